/** Schemas that several routes share: the same ones check requests and describe them. */

import { z } from "zod";
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

export const issuerParams = z.strictObject({ issuer: issuerId });

export const certificateParams = z.strictObject({ issuer: issuerId, serialNumber });

export const logIndex = z.int().min(0).meta({ description: "Index in the audit log" });

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
