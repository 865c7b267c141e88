/** `countersign revoke`: by who asked for the certificate, by an operator, or by the holder of its key. */

import { createPublicKey, sign, type KeyObject } from "node:crypto";
import { canonicalJson } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { parseDistributionPoints, type CrlReason } from "../x509/extension.ts";
import { extensionOf, parseCertificate } from "../x509/certificate.ts";
import { equalOctets } from "../x509/der.ts";
import { extensionOids } from "../x509/oid.ts";
import { parsePublicKey } from "../x509/public-key.ts";
import { signatureAlgorithmFor } from "../x509/signature-algorithm.ts";
import type { ApiClient, ApiRequest } from "./api-client.ts";
import {
  certificateFrom,
  certificatePath,
  referenceTo,
  type CertificateReference,
} from "./certificate-reference.ts";
import type { Context } from "./context.ts";
import { ExitCode, usage } from "./failure.ts";
import { readKey } from "./issue.ts";

export interface RevokeOptions {
  readonly issuer?: string;
  readonly reason: CrlReason;
  readonly key?: string;
  readonly invalidityDate?: string;
}

interface Revoked {
  readonly issuer: string;
  readonly serialNumber: string;
  readonly reason: string;
  readonly revocationDate: string;
  readonly logIndex: number;
  readonly visible: { readonly crlNumber?: string; readonly by: string };
  readonly repeated: boolean;
}

export async function revoke(
  { output, connect }: Context,
  named: string,
  options: RevokeOptions,
): Promise<ExitCode> {
  const client = await connect();
  const { reference, request } =
    options.key === undefined
      ? await withCredentials(client, named, options)
      : withPossession(client, named, options, options.key);
  const revoked = await client.json<Revoked>(`${certificatePath(reference)}/revocation`, {
    method: "PUT",
    // Repeated with the same reason it changes nothing.
    repeatable: true,
    ...request,
  });
  output.result(revoked);
  const { serialNumber, issuer, reason, revocationDate, visible, repeated } = revoked;
  output.line(
    repeated
      ? `${serialNumber} of ${issuer} was revoked before, on ${revocationDate} (${reason})`
      : `${serialNumber} of ${issuer} is revoked (${reason})`,
  );
  output.line(
    visible.crlNumber === undefined
      ? `on a CRL by ${visible.by} at the latest`
      : `on CRL number ${visible.crlNumber}, by ${visible.by} at the latest`,
  );
  return ExitCode.done;
}

interface Prepared {
  readonly reference: CertificateReference;
  readonly request: Pick<ApiRequest, "as" | "body">;
}

async function withCredentials(
  client: ApiClient,
  named: string,
  options: RevokeOptions,
): Promise<Prepared> {
  const as = client.requireRole("requester", "operator");
  const reference = await referenceTo(client, named, options.issuer, as);
  return { reference, request: { as, body: bodyOf(options) } };
}

function bodyOf({ reason, invalidityDate }: RevokeOptions): Record<string, unknown> {
  return { reason, ...(invalidityDate === undefined ? {} : { invalidityDate }) };
}

/** Whoever holds the key may revoke its certificate, and needs no other credentials. */
function withPossession(
  client: ApiClient,
  file: string,
  options: RevokeOptions,
  keyFile: string,
): Prepared {
  const certificate = certificateFrom(file);
  const { tbs } = parseCertificate(certificate);
  const key = readKey(keyFile);
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  if (!equalOctets(spki, tbs.subjectPublicKeyInfo)) {
    throw usage(`${keyFile} is not the key of the certificate in ${file}`);
  }
  const statement = Buffer.from(
    canonicalJson({
      type: "countersign/revocation/v1",
      certificate: digestOf(certificate),
      reason: options.reason,
      at: new Date().toISOString(),
      ...(options.invalidityDate === undefined
        ? {}
        : { invalidityDate: new Date(options.invalidityDate).toISOString() }),
    }),
  );
  const issuer = options.issuer ?? issuerOf(certificate) ?? client.settings.issuer;
  if (issuer === undefined) {
    throw usage("which issuer?", "the certificate does not say: name it with --issuer");
  }
  return {
    reference: { issuer, serialNumber: Buffer.from(tbs.serialNumber).toString("hex") },
    request: {
      as: "nobody",
      body: {
        ...bodyOf(options),
        proof: {
          statement: statement.toString("base64"),
          signature: signStatement(key, spki, statement).toString("base64"),
        },
      },
    },
  };
}

function signStatement(key: KeyObject, spki: Uint8Array, statement: Uint8Array): Buffer {
  return sign(signatureAlgorithmFor(parsePublicKey(spki).type).hash, statement, key);
}

/** The id of the issuer, which is the last part of the address of its CRL: `…/crl/issuing.crl`. */
function issuerOf(certificate: Uint8Array): string | undefined {
  const points = extensionOf(
    parseCertificate(certificate).tbs,
    extensionOids.cRLDistributionPoints,
  );
  if (points === undefined) return undefined;
  for (const { fullName = [] } of parseDistributionPoints(points.value)) {
    for (const name of fullName) {
      const id = name.kind === "uri" ? /\/crl\/([^/?#]+)\.crl$/.exec(name.value)?.[1] : undefined;
      if (id !== undefined) return decodeURIComponent(id);
    }
  }
  return undefined;
}
