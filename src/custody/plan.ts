/** What is to be dealt, which every custodian signs (CUSTODY.md 3.2 and 5.1), and what was dealt (3.4). */

import { z } from "zod";
import { canonicalJson, type Json } from "../audit/canonical-json.ts";
import { CountersignError } from "../errors.ts";
import { digest, hexHash, name, read, reason, recipient } from "./statement.ts";

const line = z
  .string()
  .min(1)
  .max(1024)
  .regex(/^\P{Cc}*$/u);

/** Keys that a dealer makes. */
export const dealtKeyTypes = [
  "P-256",
  "P-384",
  "RSA-2048",
  "RSA-3072",
  "RSA-4096",
  "Ed25519",
] as const;
export type DealtKeyType = (typeof dealtKeyTypes)[number];

const planSchema = z.strictObject({
  type: z.literal("countersign/plan/v1"),
  service: line,
  /** Distinguished name, RFC 4514. */
  issuer: line,
  key: z.union([
    z.strictObject({ generate: z.enum(dealtKeyTypes) }),
    z.strictObject({ use: hexHash }),
  ]),
  payload: z.enum(["pkcs8", "pin"]),
  epoch: z.int().min(1).max(0xffff_ffff),
  /** The share set before it; null for the first. */
  previous: digest.nullable(),
  threshold: z.int().min(2).max(32),
  shareCount: z.int().min(2).max(32),
  /** In the order of their shares. */
  custodians: z
    .array(z.strictObject({ operator: name, recipient, role: z.enum(["custodian", "escrow"]) }))
    .min(2)
    .max(32),
  roster: digest,
  reason,
});

const shareSetSchema = z.strictObject({
  type: z.literal("countersign/share-set/v1"),
  keyId: hexHash,
  /** SubjectPublicKeyInfo, base64. */
  publicKey: z.string().regex(/^[A-Za-z0-9+/]+={0,2}$/),
  epoch: z.int().min(1).max(0xffff_ffff),
  suite: z.literal(1),
  threshold: z.int().min(2).max(32),
  shareCount: z.int().min(2).max(32),
  sealed: digest,
  previous: digest.nullable(),
  binding: z.literal("none"),
  plan: digest,
  roster: digest,
  custodians: z
    .array(
      z.strictObject({
        index: z.int().min(1).max(32),
        operator: name,
        recipient,
        commit: hexHash,
        proof: hexHash,
        file: digest,
        role: z.enum(["custodian", "escrow"]),
      }),
    )
    .min(2)
    .max(32),
});

export type Plan = z.infer<typeof planSchema>;
export type ShareSet = z.infer<typeof shareSetSchema>;

/**
 * Reads a plan.
 *
 * @param octets - canonical JSON.
 * @throws CountersignError `plan-invalid`.
 */
export function readPlan(octets: Uint8Array): Plan {
  const plan = read(planSchema, octets, "plan-invalid", "the plan");
  checkPeople(plan);
  if ((plan.epoch === 1) !== (plan.previous === null)) {
    throw invalid("epoch 1 and no other has no share set before it");
  }
  if ("generate" in plan.key && plan.epoch !== 1) throw invalid("a new key begins with epoch 1");
  return plan;
}

/**
 * Reads a share set.
 *
 * @param octets - canonical JSON, without the newline of its note.
 * @throws CountersignError `statement-malformed`; `plan-invalid` where its numbers or people contradict each other.
 */
export function readShareSet(octets: Uint8Array): ShareSet {
  const set = read(shareSetSchema, octets, "statement-malformed", "a share set");
  checkPeople(set);
  if (set.custodians.some(({ index }, place) => index !== place + 1)) {
    throw invalid("its custodians are not in the order of their shares");
  }
  return set;
}

/** The share set's canonical JSON, which the keeper signs as a note. */
export function shareSetOctets(set: ShareSet): Buffer {
  return Buffer.from(canonicalJson(set as unknown as Json));
}

function checkPeople({ threshold, shareCount, custodians }: Plan | ShareSet): void {
  if (threshold > shareCount) {
    throw invalid(`${shareCount} shares can never reach a threshold of ${threshold}`);
  }
  if (custodians.length !== shareCount) {
    throw invalid(`there are ${shareCount} shares and ${custodians.length} custodians`);
  }
  // Two shares in one hand would make k − 1 people enough.
  for (const member of ["operator", "recipient"] as const) {
    const all = custodians.map((custodian) => custodian[member]);
    const twice = all.find((value, place) => all.indexOf(value) !== place);
    if (twice !== undefined) throw invalid(`the ${member} ${twice} stands in it twice`);
  }
}

function invalid(detail: string): CountersignError {
  return new CountersignError("plan-invalid", `the plan cannot be dealt: ${detail}`);
}
