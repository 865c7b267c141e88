/** The longer things that service and keeper say to each other: JSON bodies of frames, in which octets are base64. */

import { z } from "zod";
import { base64, utf8 } from "./octet-text.ts";
import type { Proposal } from "./keeper-ceremonies.ts";
import { ceremonyKinds } from "./statement.ts";

const octets = z.base64().transform((text): Uint8Array => Buffer.from(text, "base64"));
const signed = z.strictObject({ statement: octets, signature: z.string() });
const rosterSignatures = z.array(z.strictObject({ operator: z.string(), signature: z.string() }));
const votes = { note: z.string(), approvals: z.array(signed) };
const record = z.strictObject({ index: z.int().min(0), leaf: octets });

const rosterVersion = z.strictObject({
  document: octets,
  signatures: rosterSignatures,
  ceremony: z.strictObject(votes).exactOptional(),
});

/** The bodies by the type of their message. What stands in a proposal, its statement's schema checks. */
export const bodies = {
  rosters: z.strictObject({ versions: z.array(rosterVersion) }),
  roster: z.strictObject({ version: rosterVersion }),
  statement: z.strictObject({
    kind: z.enum(ceremonyKinds),
    keyId: z.string().exactOptional(),
    script: z.string().exactOptional(),
    artefacts: z.custom<Proposal["artefacts"] & object>().exactOptional(),
    exemptions: z.string().exactOptional(),
    window: z.custom<Proposal["window"] & object>().exactOptional(),
    notAfter: z.iso.datetime().transform((text) => new Date(text)),
    requestedBy: z.string(),
    reason: z.string(),
    plan: octets.exactOptional(),
    signatures: rosterSignatures.exactOptional(),
  }),
  unlock: z.strictObject({
    ...votes,
    shareSet: z.string(),
    sealed: octets,
    gatherSeconds: z.int(),
    plan: octets.exactOptional(),
  }),
  submit: z.strictObject({ unlock: z.string(), submission: signed, share: octets }),
  open: z.strictObject({
    unlock: z.string(),
    votes: z.strictObject(votes),
    submissions: z.array(signed),
    record,
  }),
  deal: z.strictObject({ ...votes, plan: octets, record }),
  activate: z.strictObject({ shareSet: z.string(), confirmations: z.array(signed) }),
  resume: z.strictObject({ ...votes, plan: octets }),
  stated: z.strictObject({ digest: z.string(), note: z.string() }),
  opened: z.strictObject({
    sealed: octets,
    files: z.array(octets),
    shareSet: z.string(),
    uri: z.string().exactOptional(),
  }),
} as const;

export type Bodies = { readonly [Type in keyof typeof bodies]: z.infer<(typeof bodies)[Type]> };

/** @throws RangeError if it is not what this message has: then it is no message. */
export function readBody<Type extends keyof Bodies>(type: Type, body: Uint8Array): Bodies[Type] {
  try {
    return bodies[type].parse(JSON.parse(utf8(body))) as Bodies[Type];
  } catch (error) {
    throw new RangeError(`a ${type} with another body: ${(error as Error).message}`);
  }
}

/** What may be written: the same, with lists that nobody changes. */
type Unchanged<Value> = Value extends Uint8Array | Date
  ? Value
  : Value extends readonly (infer Item)[]
    ? readonly Unchanged<Item>[]
    : Value extends object
      ? { readonly [Name in keyof Value]: Unchanged<Value[Name]> }
      : Value;

/** Writes what {@link readBody} reads. */
export function writeBody<Type extends keyof Bodies>(
  _type: Type,
  body: Unchanged<Bodies[Type]>,
): Buffer {
  return Buffer.from(
    JSON.stringify(body, function (this: Record<string, unknown>, name, value: unknown) {
      const held = this[name]; // a Buffer has made JSON of itself in `value`
      return held instanceof Uint8Array ? base64(held) : value;
    }),
  );
}
