/** An operator's statement that locks a key. */

import { z } from "zod";
import { digestOf } from "../audit/digest.ts";
import { CountersignError } from "../errors.ts";
import type { Hold } from "./keeper-key.ts";
import type { KeeperLog } from "./keeper-log.ts";
import { readCanonical, verifyOperator, type Operator } from "./operator-statement.ts";

/** A lock statement older or newer than this is not today's. */
const STATEMENT_MILLISECONDS = 24 * 60 * 60 * 1000;

const schema = z.strictObject({
  type: z.literal("countersign/lock/v1"),
  operator: z.string(),
  /** RFC 3339, UTC. */
  at: z.iso.datetime(),
  keyId: z.string().regex(/^[0-9a-f]{64}$/),
  /** The head of the log that the operator saw. */
  log: z.strictObject({ size: z.int().min(0), root: z.base64() }),
});

/**
 * Verifies a lock statement.
 *
 * @param signature - Armored.
 * @returns The key that it locks, and what is kept of it.
 * @throws CountersignError `statement-malformed`, `signature-invalid`, `statement-stale`, `head-missing`.
 */
export function verifyLock(
  octets: Uint8Array,
  signature: string,
  against: {
    readonly operators: readonly Operator[];
    readonly log: Pick<KeeperLog, "checkSeen">;
    readonly now: Date;
  },
): { keyId: string; by: Hold } {
  const statement = schema.safeParse(readCanonical(octets));
  if (!statement.success) {
    throw new CountersignError("statement-malformed", "the bytes are no statement to lock a key");
  }
  const { operator, at, keyId, log } = statement.data;
  verifyOperator(against.operators, operator, "countersign-lock@v1", octets, signature);
  against.log.checkSeen(log);
  if (Math.abs(against.now.getTime() - Date.parse(at)) > STATEMENT_MILLISECONDS) {
    throw new CountersignError("statement-stale", "the statement is more than a day from now");
  }
  return { keyId, by: { operator, at, statement: digestOf(octets) } };
}
