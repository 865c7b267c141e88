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

/** Writes what {@link readBody} reads, and nothing else that the value may have: the other side would end at that. */
export function writeBody<Type extends keyof Bodies>(
  type: Type,
  body: Unchanged<Bodies[Type]>,
): Buffer {
  return Buffer.from(JSON.stringify(written(bodies[type], body)));
}

/** The value as its schema has it, octets in base64. */
function written(schema: z.core.$ZodType, value: unknown): unknown {
  if (value instanceof Uint8Array) return base64(value);
  if (value === undefined) return undefined;
  if (schema instanceof z.ZodObject) {
    const shape = Object.entries(schema.shape as Record<string, z.core.$ZodType>);
    const members = value as Record<string, unknown>;
    return Object.fromEntries(
      shape.map(([name, member]) => [name, written(member, members[name])]),
    );
  }
  if (schema instanceof z.ZodArray) {
    return (value as unknown[]).map((item) => written(schema.element, item));
  }
  if (schema instanceof z.ZodExactOptional) return written(schema.unwrap(), value);
  return value; // a Date is JSON by itself
}
