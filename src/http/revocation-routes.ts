/** Revoking a certificate, and reading that it is. */

import { z } from "zod";
import { CountersignError } from "../errors.ts";
import type { Caller } from "../issuance/caller.ts";
import type { Possession, RevocationAnswer } from "../revocation/revocations.ts";
import { JSON_TYPE } from "./accept.ts";
import { visibleCertificate } from "./certificate-routes.ts";
import type { HttpParts } from "./parts.ts";
import { route, type Route } from "./route.ts";
import { base64, certificateParams, crlReason, issuerId, logIndex, timestamp } from "./schemas.ts";

const revokeBody = z.strictObject({
  reason: crlReason,
  invalidityDate: timestamp.transform((text) => new Date(text)).exactOptional(),
  proof: z.strictObject({ statement: base64, signature: base64 }).exactOptional().meta({
    description:
      "Instead of credentials: a signature by the certificate's private key over the canonical JSON of {type: countersign/revocation/v1, certificate, reason, at} and, where one is given, invalidityDate",
  }),
});

const revocation = z.strictObject({
  issuer: issuerId,
  serialNumber: z.string(),
  reason: crlReason,
  revocationDate: timestamp,
  invalidityDate: timestamp.exactOptional(),
  logIndex,
});

const revoked = z.strictObject({
  ...revocation.shape,
  visible: z
    .strictObject({ crlNumber: z.string().exactOptional(), by: timestamp })
    .meta({ description: "The CRL that carries it, and when one will at the latest" }),
  repeated: z.boolean().meta({
    description: "Whether it was revoked before, with this reason and no other invalidityDate",
  }),
});

export function revocationRoutes(parts: HttpParts): Route[] {
  const { revocations, reads } = parts;
  const path = "/v1/issuers/:issuer/certificates/:serialNumber/revocation";

  const revoke = (method: "PUT" | "POST", id: string): Route =>
    route({
      method,
      path,
      site: "api",
      access: "anyone",
      id,
      summary: "Revoke a certificate",
      description:
        "For operators, the requester it was issued to or one that may revoke any of its issuers, the holder of its private key by mTLS, or anybody with a proof of possession. invalidityDate lies between the certificate's notBefore and now. The same again is answered as it was; another reason, or an invalidityDate that is not the recorded one, is a revocation-conflict.",
      params: certificateParams,
      body: revokeBody,
      answers: {
        200: { description: "Revoked and recorded", content: { [JSON_TYPE]: revoked } },
      },
      async handle({ caller, params, body, requestId }, ctx) {
        const { proof, ...asked } = body;
        const answer = await revocations.revoke({
          ...params,
          ...asked,
          caller: whoRevokes(caller, proof),
          requestId,
        });
        ctx.body = revokedJson(answer);
      },
    });

  const read = route({
    method: "GET",
    path,
    site: "api",
    access: "caller",
    id: "getRevocation",
    summary: "Whether and why a certificate is revoked",
    params: certificateParams,
    answers: {
      200: {
        description: "The revocation, or that there is none",
        content: {
          [JSON_TYPE]: z.union([
            z.strictObject({ revoked: z.literal(false) }),
            z.strictObject({ revoked: z.literal(true), ...revocation.shape }),
          ]),
        },
      },
    },
    async handle({ caller, params }, ctx) {
      const row = await visibleCertificate(parts, caller, params);
      const found = await reads.revocation(row.issuer, row.serialNumber);
      ctx.body =
        found === undefined
          ? { revoked: false }
          : {
              revoked: true,
              issuer: found.issuer,
              serialNumber: found.serialNumber,
              reason: found.reason,
              revocationDate: found.revocationDate.toISOString(),
              ...(found.invalidityDate === null
                ? {}
                : { invalidityDate: found.invalidityDate.toISOString() }),
              logIndex: found.logIndex,
            };
    },
  });

  return [revoke("PUT", "putRevocation"), revoke("POST", "postRevocation"), read];
}

/** A proof counts before credentials: who sends one means it. */
function whoRevokes(
  caller: Caller | undefined,
  proof: Omit<Possession, "kind"> | undefined,
): Caller | Possession {
  if (proof !== undefined) return { kind: "possession", ...proof };
  if (caller !== undefined) return caller;
  throw new CountersignError(
    "unauthenticated",
    "this needs credentials, or a proof of possession of the certificate's private key",
  );
}

function revokedJson(answer: RevocationAnswer): z.input<typeof revoked> {
  return {
    issuer: answer.issuer,
    serialNumber: answer.serialNumber,
    reason: answer.reason,
    revocationDate: answer.revocationDate.toISOString(),
    ...(answer.invalidityDate === undefined
      ? {}
      : { invalidityDate: answer.invalidityDate.toISOString() }),
    logIndex: answer.logIndex,
    visible: {
      ...(answer.visible.crlNumber === undefined ? {} : { crlNumber: answer.visible.crlNumber }),
      by: answer.visible.by.toISOString(),
    },
    repeated: answer.repeated,
  };
}
