/** What keeper and dealer say to each other: CUSTODY.md 3.2, 3.5 and 7.4. A dealer deals once. */

import { z } from "zod";
import type { Protocol } from "./frames.ts";
import { refusalFields } from "./refusal.ts";
import { digest } from "./statement.ts";

const BODY_LIMIT = 1024 * 1024;
const octets = z.int().min(0).max(BODY_LIMIT);

/**
 * Where the secret comes from: the dealer makes it; an unlocker hands it over; the dealer makes a token with a PIN of
 * its own; the dealer gives a token in use another PIN, and reads the present one from descriptor 5.
 */
const secret = z.discriminatedUnion("from", [
  z.strictObject({ from: z.literal("new") }),
  z.strictObject({ from: z.literal("hand-off") }),
  z.strictObject({
    from: z.literal("new-token"),
    module: z.string(),
    /** Of the token and of the key, as they will be. */
    label: z.string(),
    object: z.string(),
  }),
  z.strictObject({ from: z.literal("token"), module: z.string(), uri: z.string() }),
]);

const toDealer = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("deal"),
    planDigest: digest,
    secret,
    /** Octets of the plan, which comes first in the body. */
    plan: octets,
    /** Octets of the SubjectPublicKeyInfo of the secret's key, DER; 0 unless an unlocker hands over. */
    publicKey: octets,
  }),
  /** What was dealt is stored durably: the token may now have the PIN that was sealed. */
  z.strictObject({ type: z.literal("commit") }),
]);

export type ToDealer = z.infer<typeof toDealer>;
export type SecretSource = z.infer<typeof secret>;

export const toDealerProtocol: Protocol<ToDealer> = {
  schema: toDealer,
  bodyLimits: { deal: BODY_LIMIT, commit: 0 },
};

const fromDealer = z.discriminatedUnion("type", [
  /** Octets of the sealed key, of each share file and of the share set, canonical JSON, as they lie in the body. */
  z.strictObject({
    type: z.literal("dealt"),
    sealed: octets,
    files: z.array(octets).min(2).max(32),
    shareSet: octets,
    /** Whether a `commit` is to follow. */
    pending: z.boolean(),
    /** Of a token that was made. */
    uri: z.string().exactOptional(),
  }),
  z.strictObject({ type: z.literal("committed") }),
  z.strictObject({ type: z.literal("failed"), ...refusalFields }),
]);

export type FromDealer = z.infer<typeof fromDealer>;

export const fromDealerProtocol: Protocol<FromDealer> = {
  schema: fromDealer,
  bodyLimits: { dealt: BODY_LIMIT, committed: 0, failed: 0 },
};
