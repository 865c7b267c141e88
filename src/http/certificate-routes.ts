/** Certificates: issuing, reading, searching. */

import { createHash } from "node:crypto";
import { z } from "zod";
import { CountersignError } from "../errors.ts";
import type { Caller } from "../issuance/caller.ts";
import type { IssuedAnswer } from "../issuance/issuance.ts";
import type { CertificateSummary, StoredCertificate } from "../issuance/records.ts";
import { CERTIFICATE_TYPE, JSON_TYPE, negotiate, PEM_CHAIN_TYPE, PEM_TYPE } from "./accept.ts";
import { jsonFrom } from "./body.ts";
import type { HttpParts } from "./parts.ts";
import { caChainPem, certificatePem } from "./pem.ts";
import { check, rawBodyRoute, route, type ApiContext, type RawBody, type Route } from "./route.ts";
import {
  certificateParams,
  crlReason,
  digest,
  issuerId,
  issuerParams,
  logIndex,
  pageQuery,
  profileId,
  timestamp,
} from "./schemas.ts";

const CSR_TYPE = "application/pkcs10";

const lifetime = z
  .string()
  .min(1)
  .max(64)
  .meta({ description: "As people write it", examples: ["90d", "18 months"] });

const issueBody = z.strictObject({
  profile: profileId,
  csr: z.string().min(1).meta({ description: "PKCS#10 in PEM" }),
  lifetime: lifetime.exactOptional(),
});

const issueQuery = z.strictObject({
  profile: profileId.exactOptional(),
  lifetime: lifetime.exactOptional(),
});
const rawIssueQuery = z.strictObject({ profile: profileId, lifetime: lifetime.exactOptional() });
const jsonIssueQuery = z.strictObject({});

const idempotencyKey = z
  .string()
  .regex(/^[\x21-\x7e]{1,255}$/)
  .meta({ examples: ["5f0a9d7e-7f3b-4e0e-9d8e-2f1c6a1f5b11"] });

const links = z.strictObject({
  self: z.string(),
  issuer: z.string(),
  revocation: z.string(),
  proof: z.string(),
  crl: z.string(),
});

const certificate = z.strictObject({
  issuer: issuerId,
  serialNumber: z.string(),
  sha256: digest,
  certificate: z.string().meta({ description: "PEM" }),
  chain: z.string().meta({ description: "PEM: the issuer first, the root last" }),
  notBefore: timestamp,
  notAfter: timestamp,
  logIndex,
  links,
});

const revocationSummary = z.strictObject({ reason: crlReason, revocationDate: timestamp });

const summary = z.strictObject({
  issuer: issuerId,
  serialNumber: z.string(),
  kind: z.enum(["root", "intermediate", "leaf"]),
  profile: z.string(),
  requester: z.string().nullable(),
  subject: z.string().meta({ description: "RFC 4514" }),
  names: z.array(z.strictObject({ kind: z.string(), value: z.string() })),
  notBefore: timestamp,
  notAfter: timestamp,
  sha256: digest.nullable(),
  state: z.enum(["pending", "issued", "abandoned"]),
  revocation: revocationSummary.nullable(),
  logIndex: logIndex
    .nullable()
    .meta({ description: "Of the record of the result; null while pending" }),
  intentIndex: logIndex,
  createdAt: timestamp,
  links,
});

const storedCertificate = z.strictObject({
  ...summary.shape,
  certificate: z.string().nullable().meta({ description: "PEM; null until it is issued" }),
  chain: z.string().meta({ description: "PEM: the issuer first, the root last" }),
});

const searchQuery = z.strictObject({
  name: z
    .string()
    .min(1)
    .max(255)
    .transform((text) => text.toLowerCase()) // as they are issued
    .exactOptional()
    .meta({
      description: "A name in any case, or *.example.com for every name that ends in .example.com",
    }),
  requester: z.string().min(1).max(128).exactOptional(),
  profile: profileId.exactOptional(),
  state: z.enum(["valid", "expired", "revoked"]).exactOptional(),
  serialNumber: z
    .string()
    .regex(/^[0-9A-Fa-f]{1,40}$/, "expected hex")
    .transform((text) => text.toLowerCase())
    .exactOptional()
    .meta({ description: "The beginning of a serial number, hex" }),
  ...pageQuery,
});

const PAGE = 50;

export function certificateRoutes(parts: HttpParts): Route[] {
  const { issuance, issuers, reads } = parts;

  const issue = rawBodyRoute({
    method: "POST",
    path: "/v1/issuers/:issuer/certificates",
    site: "api",
    access: "caller",
    id: "issueCertificate",
    summary: "Issue a certificate for a CSR",
    description:
      "JSON, or the CSR itself (DER or PEM) with profile and lifetime in the query. Repeated under the same Idempotency-Key within 24 hours, the answer is the same.",
    params: issuerParams,
    query: issueQuery,
    headers: {
      "Idempotency-Key": { schema: idempotencyKey, text: "1 to 255 visible ASCII characters" },
    },
    bodies: {
      [JSON_TYPE]: issueBody,
      [CSR_TYPE]: "binary",
      [PEM_TYPE]: "text",
      "text/plain": "text",
    },
    answers: {
      201: {
        description: "Issued and recorded",
        content: {
          [JSON_TYPE]: certificate,
          [PEM_CHAIN_TYPE]: "text",
          [CERTIFICATE_TYPE]: "binary",
        },
        headers: {
          Location: "The certificate's own address",
          "Idempotency-Replayed": "true where the answer was given before",
        },
      },
    },
    async handle({ caller, params, body, requestId }, ctx) {
      // Before anything is signed: an answer that the client cannot take is better not made.
      const type = negotiate(ctx, [JSON_TYPE, PEM_CHAIN_TYPE, CERTIFICATE_TYPE]);
      const key = readIdempotencyKey(ctx);
      const issued = await issuance.issue({
        caller,
        issuer: params.issuer,
        ...readIssueRequest(body, ctx),
        ...(key === undefined ? {} : { idempotency: { key, bodySha256: fingerprint(ctx, body) } }),
        requestId,
      });
      ctx.status = 201;
      ctx.set("Location", addressOf(issued.issuer, issued.serialNumber));
      if (issued.replayed) ctx.set("Idempotency-Replayed", "true");
      answerIssued(ctx, type, issued);
    },
  });

  const search = route({
    method: "GET",
    path: "/v1/issuers/:issuer/certificates",
    site: "api",
    access: "caller",
    id: "listCertificates",
    summary: "Search certificates, newest first",
    description: "Operators see all of an issuer, requesters their own.",
    params: issuerParams,
    query: searchQuery,
    answers: {
      200: {
        description: "One page",
        content: {
          [JSON_TYPE]: z.strictObject({
            certificates: z.array(summary),
            next: z.string().exactOptional().meta({ description: "Cursor of the next page" }),
          }),
        },
      },
    },
    async handle({ caller, params, query }, ctx) {
      const issuer = issuers.get(params.issuer);
      const { requester, serialNumber: serialPrefix, limit = PAGE, ...filter } = query;
      const page = await reads.listCertificates({
        ...filter,
        issuer: issuer.id,
        ...onlyOwn(caller, requester),
        ...(serialPrefix === undefined ? {} : { serialPrefix }),
        limit,
      });
      ctx.body = {
        certificates: page.certificates.map(summaryJson),
        ...(page.next === undefined ? {} : { next: String(page.next) }),
      };
    },
  });

  const read = route({
    method: "GET",
    path: "/v1/issuers/:issuer/certificates/:serialNumber",
    site: "api",
    access: "caller",
    id: "getCertificate",
    summary: "Read a certificate",
    params: certificateParams,
    answers: {
      200: {
        description: "The certificate",
        content: {
          [JSON_TYPE]: storedCertificate,
          [PEM_CHAIN_TYPE]: "text",
          [CERTIFICATE_TYPE]: "binary",
        },
      },
    },
    async handle({ caller, params }, ctx) {
      const type = negotiate(ctx, [JSON_TYPE, PEM_CHAIN_TYPE, CERTIFICATE_TYPE]);
      const row = await visibleCertificate(parts, caller, params);
      const issuer = issuers.get(row.issuer);
      const chain = row.kind === "root" ? [] : [issuer.certificate, ...issuer.chain];
      if (type === JSON_TYPE) {
        ctx.body = {
          ...summaryJson(row),
          certificate: row.certificate === null ? null : certificatePem(row.certificate),
          chain: caChainPem(chain),
        };
        return;
      }
      answerCertificate(ctx, type, issuedBytes(row), chain);
    },
  });

  const byDigest = route({
    method: "GET",
    path: "/v1/certificates/:digest",
    site: "api",
    access: "caller",
    id: "findCertificate",
    summary: "Find a certificate by its SHA-256",
    params: z.strictObject({ digest }),
    answers: {
      307: {
        description: "Where the certificate is",
        headers: { Location: "The certificate's own address" },
      },
    },
    async handle({ caller, params }, ctx) {
      const row = await reads.certificateBySha256(
        Buffer.from(params.digest.slice("sha256:".length), "hex"),
      );
      if (row === undefined || !mayRead(caller, row))
        throw unknown("no certificate has this digest");
      ctx.set("Location", addressOf(row.issuer, row.serialNumber));
      ctx.body = null;
      ctx.status = 307;
    },
  });

  return [issue, search, read, byDigest];
}

/** The address of a certificate: issuer and serial number name it. */
export function addressOf(issuer: string, serialNumber: string): string {
  return `/v1/issuers/${encodeURIComponent(issuer)}/certificates/${serialNumber}`;
}

/**
 * A certificate, if this caller may see it.
 *
 * @throws CountersignError `issuer-unknown`; `certificate-unknown`, also for those of other requesters: whether
 *   they exist is not for everybody.
 */
export async function visibleCertificate(
  { issuers, reads }: Pick<HttpParts, "issuers" | "reads">,
  caller: Caller,
  params: { issuer: string; serialNumber: string },
): Promise<StoredCertificate> {
  const issuer = issuers.get(params.issuer);
  const row = await reads.certificate(issuer.id, params.serialNumber);
  if (row === undefined || !mayRead(caller, row)) {
    throw unknown(`issuer ${issuer.id} has no certificate with this serial number for you`);
  }
  return row;
}

function unknown(detail: string): CountersignError {
  return new CountersignError("certificate-unknown", detail);
}

function mayRead(caller: Caller, row: CertificateSummary): boolean {
  switch (caller.kind) {
    case "operator":
      return true;
    case "requester":
      return row.requester === caller.id;
    case "certificate":
      return row.issuer === caller.issuer && row.serialNumber === caller.serialNumber;
  }
}

/** A requester's search is always one of its own certificates. */
function onlyOwn(caller: Caller, asked: string | undefined): { requester?: string } {
  if (caller.kind === "operator") return asked === undefined ? {} : { requester: asked };
  if (caller.kind === "requester" && (asked === undefined || asked === caller.id)) {
    return { requester: caller.id };
  }
  throw new CountersignError("forbidden", "only operators see the certificates of others");
}

function readIdempotencyKey(ctx: ApiContext): string | undefined {
  const key = ctx.headers["idempotency-key"];
  if (key === undefined) return undefined;
  // Node joins repeated headers with a comma and a space, which is no visible character.
  if (typeof key !== "string" || !idempotencyKey.safeParse(key).success) {
    throw new CountersignError(
      "idempotency-key-malformed",
      "Idempotency-Key is 1 to 255 visible ASCII characters",
    );
  }
  return key;
}

function readIssueRequest(
  { mediaType, octets }: RawBody,
  ctx: ApiContext,
): { profile: string; csr: string | Uint8Array; lifetime?: string } {
  if (mediaType === JSON_TYPE) {
    if (ctx.querystring !== "") check(jsonIssueQuery, ctx.query, "query");
    return check(issueBody, jsonFrom(octets), "body");
  }
  // DER begins with a SEQUENCE; people send PEM under each of these types.
  const csr = octets[0] === 0x30 ? octets : Buffer.from(octets).toString("latin1");
  return { ...check(rawIssueQuery, ctx.query, "query"), csr };
}

/** What an Idempotency-Key stands for: the body, and the URL that says what is asked of it. */
function fingerprint(ctx: ApiContext, { octets }: RawBody): Uint8Array {
  return createHash("sha256").update(`${ctx.url}\n`).update(octets).digest();
}

function answerIssued(ctx: ApiContext, type: string, issued: IssuedAnswer): void {
  if (type !== JSON_TYPE) {
    answerCertificate(ctx, type, issued.certificate, issued.chain);
    return;
  }
  ctx.body = {
    issuer: issued.issuer,
    serialNumber: issued.serialNumber,
    sha256: issued.sha256,
    certificate: certificatePem(issued.certificate),
    chain: caChainPem(issued.chain),
    notBefore: issued.notBefore.toISOString(),
    notAfter: issued.notAfter.toISOString(),
    logIndex: issued.logIndex,
    links: linksOf(issued.issuer, issued.serialNumber),
  };
}

function answerCertificate(
  ctx: ApiContext,
  type: string,
  der: Uint8Array,
  chain: readonly Uint8Array[],
): void {
  ctx.body = type === CERTIFICATE_TYPE ? Buffer.from(der) : certificatePem(der) + caChainPem(chain);
  ctx.type = type;
}

function issuedBytes(row: StoredCertificate): Uint8Array {
  if (row.certificate === null) throw unknown("this serial number has a record and no certificate");
  return row.certificate;
}

function summaryJson(row: CertificateSummary): z.input<typeof summary> {
  return {
    issuer: row.issuer,
    serialNumber: row.serialNumber,
    kind: row.kind,
    profile: row.profile,
    requester: row.requester,
    subject: row.subject,
    names: row.names.map(({ kind, value }) => ({ kind, value })),
    notBefore: row.notBefore.toISOString(),
    notAfter: row.notAfter.toISOString(),
    sha256:
      row.certificateSha256 === null
        ? null
        : `sha256:${Buffer.from(row.certificateSha256).toString("hex")}`,
    state: row.state,
    revocation:
      row.revocation === null
        ? null
        : {
            reason: crlReason.parse(row.revocation.reason),
            revocationDate: row.revocation.revocationDate.toISOString(),
          },
    logIndex: row.doneIndex,
    intentIndex: row.index,
    createdAt: row.createdAt.toISOString(),
    links: linksOf(row.issuer, row.serialNumber),
  };
}

function linksOf(issuer: string, serial: string): z.input<typeof links> {
  const self = addressOf(issuer, serial);
  const issuerAddress = `/v1/issuers/${encodeURIComponent(issuer)}`;
  return {
    self,
    issuer: issuerAddress,
    revocation: `${self}/revocation`,
    proof: `${self}/proof`,
    crl: `${issuerAddress}/crl`,
  };
}
