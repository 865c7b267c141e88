/**
 * The operators' statements about requesters, each naming the one before it. The keeper keeps the number and the
 * digest of the last; the database keeps the statements, and shows them when the service starts.
 */

import { parseCanonicalJson } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { CountersignError } from "../errors.ts";
import { compilePolicy } from "../policy/decide.ts";
import type { Policy } from "../policy/document.ts";
import { parseRequesterStatement, type RequesterStatement } from "../policy/requester.ts";
import { applyRecorded, checkChange, requesterNameOf } from "../policy/requester-change.ts";
import type { KeeperLog } from "./keeper-log.ts";
import type { RosterBook } from "./keeper-roster.ts";
import type { StateFile } from "./keeper-state.ts";
import { utf8 } from "./octet-text.ts";
import { cut } from "./sign-batch.ts";

/** Octets of the statements that are being shown, and what each takes beside its own. */
const REPLAY_LIMIT = 64 * 1024 * 1024;
const REPLAY_OVERHEAD = 256;

const NAMESPACE = "countersign-requester@v1";

export interface RequesterChain {
  /** The statements so far, canonical JSON. */
  readonly statements: readonly Uint8Array[];
  /** @throws CountersignError `rolled-back` until the statements that the keeper took were shown. */
  requireShown(): void;
  /**
   * Takes the next statement.
   *
   * @param signature - Armored.
   * @throws CountersignError `rolled-back`, `statement-malformed`, `statement-stale`, `operator-unknown`,
   *   `signature-invalid`, `head-missing`, or why the policy does not allow the change.
   */
  change(octets: Uint8Array, signature: string): void;
  /**
   * Takes some of the statements that the database has, the first of them first.
   *
   * @param lengths - Of each statement and its armored signature, which lie in the body one after the other.
   * @param last - Whether these are all; only then are they verified. Refused ones can be shown again.
   * @throws CountersignError `rolled-back`, `statement-malformed`, `operator-unknown`, `signature-invalid`;
   *   RangeError if lengths and body disagree.
   */
  show(lengths: readonly (readonly [number, number])[], body: Uint8Array, last: boolean): void;
}

export interface RequesterChainParts {
  readonly stateFile: StateFile;
  readonly log: Pick<KeeperLog, "checkSeen">;
  readonly roster: Pick<RosterBook, "check">;
  readonly policy: Policy;
  /** Is told of statements that are in force from now on, canonical JSON. */
  readonly changed: (statements: readonly Uint8Array[]) => void;
}

interface SignedStatement {
  readonly octets: Uint8Array;
  readonly signature: string;
}

interface ReadStatement {
  readonly octets: Uint8Array;
  readonly digest: string;
  readonly statement: RequesterStatement;
}

export function requesterChain({
  stateFile,
  log,
  roster,
  policy,
  changed,
}: RequesterChainParts): RequesterChain {
  let compiled = compilePolicy(policy);
  let statements: Uint8Array[] = [];
  /** What was shown so far; undefined when all was, or there is nothing to show. */
  let shown: SignedStatement[] | undefined = [];
  let shownOctets = 0;

  function requireShown(): void {
    if (shown !== undefined && stateFile.state.requesters.sequence > 0) {
      throw rolledBack("so far were not shown");
    }
  }

  function forget(): void {
    shown = [];
    shownOctets = 0;
  }

  /** The statements that the database has, from the first. */
  function replay(all: readonly SignedStatement[]): void {
    const { sequence, digest } = stateFile.state.requesters;
    const chain: ReadStatement[] = [];
    const rebuilt = compilePolicy(policy);
    const unapplied: { statement: RequesterStatement; refused: Error }[] = [];
    for (const { octets, signature } of all) {
      const next = readStatement(octets);
      const before = chain.at(-1);
      const { statement } = next;
      if (
        statement.sequence !== chain.length + 1 ||
        statement.previous !== (before?.digest ?? null)
      ) {
        throw rolledBack("do not follow one another");
      }
      // Up to the last one that this keeper took, the chain of digests says that these are the ones it verified,
      // even if an operator has left since.
      if (statement.sequence > sequence) {
        roster.check(statement.operator, NAMESPACE, octets, signature);
      }
      chain.push(next);
      const refused = applyRecorded(rebuilt, statement);
      if (refused !== undefined) unapplied.push({ statement, refused });
    }
    if (chain.length < sequence || (sequence > 0 && chain[sequence - 1]!.digest !== digest)) {
      throw rolledBack(`are not those that the keeper took, of which there are ${sequence}`);
    }
    const last = chain.at(-1);
    if (last !== undefined && chain.length > sequence) keepLast(last);
    for (const { statement, refused } of unapplied) {
      console.error(
        `keeper: requester ${requesterNameOf(statement)} is not in force, statement ${statement.sequence} about it ` +
          `does not fit the policy file: ${refused.message}`,
      );
    }
    compiled = rebuilt;
    statements = chain.map(({ octets }) => octets);
    changed(statements);
  }

  function keepLast({ statement, digest }: ReadStatement): void {
    stateFile.change((state) => {
      state.requesters = { sequence: statement.sequence, digest };
    });
  }

  return {
    get statements() {
      return statements;
    },
    requireShown,
    change(octets, signature) {
      requireShown();
      const next = readStatement(octets);
      const { sequence, digest } = stateFile.state.requesters;
      const { statement } = next;
      if (statement.sequence !== sequence + 1 || statement.previous !== digest) {
        throw new CountersignError(
          "statement-stale",
          `the statement has the sequence number ${statement.sequence}; the next one is ${sequence + 1}, after ${digest}`,
        );
      }
      roster.check(statement.operator, NAMESPACE, octets, signature);
      log.checkSeen(statement.log);
      checkChange(compiled, statement);
      // The file first: where it cannot be written nothing has changed, and the statement can be shown again.
      keepLast(next);
      applyRecorded(compiled, statement);
      shown = undefined; // there was nothing to show, or it was shown
      statements.push(octets);
      changed([octets]);
    },
    show(lengths, body, last) {
      if (shown === undefined) throw rolledBack("were shown before");
      shownOctets += body.length + lengths.length * REPLAY_OVERHEAD;
      if (shownOctets > REPLAY_LIMIT) {
        forget();
        throw new CountersignError(
          "statement-malformed",
          `more than ${REPLAY_LIMIT} octets of statements about requesters`,
        );
      }
      const cutter = cut(body);
      for (const [statement, signature] of lengths) {
        shown.push({
          octets: cutter.take(statement).slice(),
          signature: utf8(cutter.take(signature)),
        });
      }
      cutter.finish();
      if (!last) return;
      const all = shown;
      forget(); // a refused chain can be shown again
      replay(all);
      shown = undefined;
    },
  };
}

function readStatement(octets: Uint8Array): ReadStatement {
  const statement = parseRequesterStatement(readCanonical(octets));
  return { octets, digest: digestOf(octets), statement };
}

/** @throws CountersignError `statement-malformed` for what is no canonical JSON. */
function readCanonical(octets: Uint8Array): unknown {
  try {
    return parseCanonicalJson(octets);
  } catch (error) {
    throw new CountersignError(
      "statement-malformed",
      `the statement is not canonical JSON: ${(error as Error).message}`,
      { cause: error },
    );
  }
}

function rolledBack(what: string): CountersignError {
  return new CountersignError("rolled-back", `the statements about requesters ${what}`);
}
