/** Schemas that several routes share: the same ones check requests and describe them. */

import { z } from "zod";
import { name } from "../custody/statement.ts";
import { crlReasonCodes, type CrlReason } from "../x509/certificate-list.ts";

export const issuerId = z
  .string()
  .min(1)
  .max(128)
  .meta({ description: "Id of an issuer", examples: ["issuing"] });

export const serialNumber = z
  .string()
  .regex(/^(?:[0-9A-Fa-f]{2}){1,20}$/, "expected 1 to 20 octets in hex, leading zeros kept")
  .transform((text) => text.toLowerCase())
  .meta({ description: "Serial number: hex of its content octets" });

export const profileId = z
  .string()
  .min(1)
  .max(128)
  .meta({ description: "Profile of the policy", examples: ["server"] });

/** RFC 5280 §5.3.1, spelled as there. */
export const crlReason = z
  .enum(Object.keys(crlReasonCodes) as [CrlReason, ...CrlReason[]])
  .meta({ description: "Reason, RFC 5280 §5.3.1" });

export const timestamp = z.iso
  .datetime({ offset: true, error: "expected an RFC 3339 time such as 2026-11-21T20:05:00Z" })
  .meta({ description: "RFC 3339" });

export const digest = z
  .string()
  .regex(/^sha256:[0-9a-f]{64}$/, "expected sha256: and 64 lower-case hex digits");

/** Standard base64 with padding; read as octets. */
export const base64 = z
  .base64("expected base64")
  .min(1)
  .max(65_536)
  .transform((text): Uint8Array => Buffer.from(text, "base64"));

/** The same of any length that its route reads. */
export const largeBase64 = z
  .base64("expected base64")
  .min(1)
  .transform((text): Uint8Array => Buffer.from(text, "base64"));

/** Base64 in an answer. */
export const base64Text = z.base64();

/** How a list is paged. */
export const pageQuery = {
  cursor: z
    .string()
    .regex(/^[0-9]{1,15}$/, "expected the cursor of a page")
    .transform(Number)
    .exactOptional()
    .meta({ description: "`next` of the page before" }),
  limit: z
    .string()
    .regex(/^(?:[1-9][0-9]?|1[0-9]{2}|200)$/, "expected 1 to 200")
    .transform(Number)
    .exactOptional()
    .meta({ description: "1 to 200; 50 when absent" }),
} as const;

export const issuerParams = z.strictObject({ issuer: issuerId });

export const certificateParams = z.strictObject({ issuer: issuerId, serialNumber });

export const logIndex = z.int().min(0).meta({ description: "Index in the audit log" });

/** SHA-256 of a SubjectPublicKeyInfo, as statements name a key. */
export const keyId = z
  .string()
  .regex(/^[0-9a-f]{64}$/, "expected 64 lower-case hex digits")
  .meta({ description: "SHA-256 of the key's SubjectPublicKeyInfo, hex" });

export const keyParams = z.strictObject({ id: keyId });

/** A ceremony or an unlock: who knows one of the two may read its statement. */
export const statementParams = z.strictObject({
  id: z
    .string()
    .regex(/^(?:[0-9a-f]{32}|sha256:[0-9a-f]{64})$/, "expected an id or the digest of a statement")
    .meta({ description: "Its id (32 hex digits), or the digest of its statement" }),
});

export const operatorId = name.meta({ description: "Id of an operator" });

/** Index of a share. */
export const shareIndex = z.int().min(1).max(32);

/** An SSHSIG in armor. */
export const sshSignature = z.string().min(1).max(8_192).meta({
  description: "Armored SSH signature over these octets, as ssh-keygen -Y sign writes it",
});

/** What one person signed: the signature is the credential, so no session is asked for. */
export function signedBody(what: string, namespace: string) {
  return z.strictObject({
    statement: base64.meta({
      description: `${what}: base64 of the canonical JSON that was signed, octet by octet`,
    }),
    signature: sshSignature.meta({
      description: `Armored SSH signature over these octets, namespace ${namespace}`,
    }),
  });
}

/** A note as the keeper signed it, octet by octet. */
export const noteAnswer = {
  description: "A C2SP signed note: canonical JSON, a newline, and the keeper's signature",
  content: { "text/plain": "text" },
} as const;

/** RFC 9457; problems may have further members. */
export const problem = z.looseObject({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string().optional(),
  instance: z.string(),
  code: z.string().optional(),
  errors: z.array(z.strictObject({ path: z.string(), message: z.string() })).optional(),
});
