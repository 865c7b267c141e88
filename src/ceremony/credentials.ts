/** Checking what people signed, before anything is believed of it; and who pays for what does not verify. */

import { digestOf } from "../audit/digest.ts";
import { encodeEntry, type Actor, type Evidence, type LogEntry } from "../audit/entry.ts";
import { checkOperatorSignature, type Roster } from "../custody/roster.ts";
import type { Signed } from "../custody/statement.ts";
import { CountersignError, type ErrorCode } from "../errors.ts";
import type { Failures } from "./failures.ts";
import type { CustodyJournal } from "./journal.ts";
import { evidenceOf, signer } from "./log-words.ts";

/** Whoever was refused with one of these has not shown who they are. */
const unverified: ReadonlySet<ErrorCode> = new Set([
  "approval-unsigned",
  "submission-unsigned",
  "signature-invalid",
  "operator-unknown",
]);

export interface CredentialParts {
  readonly failures: Failures;
  readonly journal: CustodyJournal;
  readonly denied: () => void;
  readonly now: () => Date;
}

/**
 * Runs the checks that come before a signature is known to be somebody's.
 *
 * @throws what the checks throw, which is only counted; CountersignError `rate-limited` for an address that sent too
 *   many signatures that do not verify.
 */
export function verifying<Value>(
  { failures, denied }: CredentialParts,
  address: string,
  check: () => Value,
): Value {
  try {
    return check();
  } catch (error) {
    denied();
    if (error instanceof CountersignError && unverified.has(error.code)) {
      failures.addressFailed(address);
    }
    throw error;
  }
}

/** The signature over one of the smaller statements. @throws CountersignError `signature-invalid`, `operator-unknown`. */
export function requireSigned(
  roster: Roster,
  operator: string,
  namespace: string,
  { statement, signature }: Signed,
): void {
  checkOperatorSignature(roster, operator, namespace, statement, signature);
}

/**
 * Records that what somebody signed was refused; the same bytes once.
 *
 * @param entry - the record, of who said what when.
 * @returns whether it was new.
 */
export async function recordRefusal(
  { failures, journal, now }: CredentialParts,
  operator: string,
  signed: Signed,
  code: string,
  entry: (said: { at: Date; actor: Actor; evidence: Evidence }) => LogEntry,
): Promise<boolean> {
  if (!failures.isNew(digestOf(signed.statement), code)) return false;
  const said = { at: now(), actor: signer(operator), evidence: evidenceOf(signed) };
  await journal.append({ kind: "entry", leaf: encodeEntry(entry(said)) });
  return true;
}
