/**
 * Ceremonies as the keeper sees them: it states what is to be agreed to (CUSTODY.md 6.1), and before it acts reads its own
 * statement again and counts the votes anew. In between it knows nothing of them but which were carried out.
 */

import { canonicalJson, type JsonObject } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { leafHash } from "../audit/merkle.ts";
import { parseEntry, type LogEntry, type LogEntryType } from "../audit/entry.ts";
import { CountersignError } from "../errors.ts";
import type { KeeperLog } from "./keeper-log.ts";
import type { RosterBook } from "./keeper-roster.ts";
import type { KeeperState, StateFile } from "./keeper-state.ts";
import { base64 } from "./octet-text.ts";
import type { OwnNotes, Stated } from "./own-notes.ts";
import { readResume } from "./personal-statement.ts";
import { readPlan, type Plan } from "./plan.ts";
import { countable } from "./roster-chain.ts";
import { checkSuccessor, readRoster, type Roster, type RosterSignature } from "./roster.ts";
import {
  readCeremony,
  type CeremonyKind,
  type CeremonyStatement,
  type Signed,
} from "./statement.ts";
import { askedRules, countVotes, type Needs, type Verdict } from "./votes.ts";

const DAY_MILLISECONDS = 86_400_000;
/** From the statement to its notAfter, at most. */
const LIFETIME_MILLISECONDS = 30 * DAY_MILLISECONDS;
/** A window, at most; and how long it may go unused. */
const WINDOW_MILLISECONDS = DAY_MILLISECONDS;
const IDLE_SECONDS = 8 * 60 * 60;
/** Proposals of one operator within a day. */
const PROPOSALS = 20;

/** What somebody proposes. */
export type Proposal = Pick<
  CeremonyStatement,
  "kind" | "keyId" | "script" | "artefacts" | "exemptions" | "window" | "requestedBy" | "reason"
> & {
  readonly notAfter: Date;
  /** The document that the statement gets the digest of: a plan, a roster, or what is released. */
  readonly plan?: Uint8Array;
  /** Of a roster: those of its new keys. */
  readonly signatures?: readonly RosterSignature[];
};

/** A statement of this keeper with what people said about it. */
export interface CeremonyVotes {
  readonly note: string;
  readonly approvals: readonly Signed[];
}

export interface OpenCeremony {
  readonly statement: CeremonyStatement;
  readonly digest: string;
}

/** The entry that tells everybody before it happens. */
export interface LogRecord {
  readonly index: number;
  readonly leaf: Uint8Array;
}

export interface Ceremonies {
  /**
   * Makes and signs a statement.
   *
   * @throws CountersignError `rolled-back` until the roster was shown; `ceremony-refused` for what cannot be agreed to or
   *   carried out now; `panic`, `key-unknown`, `plan-invalid`, `roster-invalid`, `roster-unsigned`,
   *   `operator-unknown`, `statement-malformed`, `rate-limited`, `head-missing`.
   */
  state(proposal: Proposal): Stated;
  /**
   * Reads a statement of this keeper that can still be carried out.
   *
   * @throws CountersignError `signature-invalid`, `statement-malformed`; `ceremony-refused` for another kind;
   *   `ceremony-closed` if its time is over or it was carried out.
   */
  read(note: string, ...kinds: readonly CeremonyKind[]): OpenCeremony;
  /** Whether a ceremony was carried out. */
  isDone(digest: string): boolean;
  /**
   * From now on it was; when this returns, on the disk too.
   *
   * @param also - what changes in the state with it.
   */
  finish(ceremony: OpenCeremony, also?: (state: KeeperState) => void): void;
  /** Takes {@link finish} back: nothing was done after all. */
  reopen(ceremony: OpenCeremony): void;
  /**
   * Counts again, with the roster in force. What does not verify does not count.
   *
   * @param further - verdicts that are no approvals.
   * @throws CountersignError `ceremony-refused` saying what is missing.
   */
  requireVotes(
    ceremony: OpenCeremony,
    approvals: readonly Signed[],
    needs: Needs,
    further?: readonly Verdict[],
  ): void;
  /**
   * Requires that an entry stands in the log, among the newest, and that it was not shown before.
   *
   * @param says - whether it is about what is to be done.
   * @throws CountersignError `ceremony-refused`.
   */
  requireRecord<Type extends LogEntryType>(
    record: LogRecord,
    type: Type,
    says: (entry: Extract<LogEntry, { type: Type }>) => boolean,
  ): void;
  /**
   * Reads the plan of a ceremony and checks that it can be dealt to the people of today.
   *
   * @throws CountersignError `plan-invalid`, also if it is not the one that was agreed to.
   */
  planOf(ceremony: OpenCeremony, octets: Uint8Array): Plan;
}

/** What is known of a key here. */
export interface CeremonyKey {
  readonly sealed: boolean;
  readonly inToken: boolean;
  readonly certified: boolean;
}

export interface CeremoniesParts {
  readonly service: string;
  readonly origin: string;
  /** Digest of the policy. */
  readonly policy: string;
  readonly roster: RosterBook;
  readonly notes: OwnNotes;
  readonly log: Pick<KeeperLog, "feed" | "requireHead">;
  readonly stateFile: StateFile;
  /** @throws CountersignError `key-unknown`. */
  readonly key: (keyId: string) => CeremonyKey;
  /** Whether there is a module to make tokens with. */
  readonly canMakeTokens: boolean;
  readonly now: () => Date;
  readonly random: (size: number) => Uint8Array;
}

export function ceremonies(parts: CeremoniesParts): Ceremonies {
  const { service, roster, notes, log, stateFile, now } = parts;
  /** When each operator made the proposals of the last day. */
  const proposals = new Map<string, number[]>();
  /** Indexes of entries that were shown for something that was done. */
  const spent = new Set<number>();

  function countProposal(operator: string): void {
    const at = now().getTime();
    const recent = (proposals.get(operator) ?? []).filter(
      (before) => Math.abs(at - before) < DAY_MILLISECONDS,
    );
    if (recent.length >= PROPOSALS) {
      throw new CountersignError(
        "rate-limited",
        `${operator} has proposed ${PROPOSALS} ceremonies within a day; the next one tomorrow`,
      );
    }
    proposals.set(operator, [...recent, at]);
  }

  function checkDuration(notAfter: string): void {
    const left = Date.parse(notAfter) - now().getTime();
    if (!(left > 0 && left <= LIFETIME_MILLISECONDS)) {
      throw refused("its notAfter must lie within the next 30 days");
    }
  }

  function checkWindow(keyId: string, window: NonNullable<CeremonyStatement["window"]>): void {
    const from = Date.parse(window.notBefore);
    const until = Date.parse(window.notAfter);
    if (!(from < until && until - from <= WINDOW_MILLISECONDS)) {
      throw refused("a window lasts at most 24 hours, and ends after it begins");
    }
    if (until <= now().getTime()) throw refused("the window is over already");
    if (window.idleSeconds > IDLE_SECONDS) {
      throw refused("a window closes when it was not used for 8 hours, or earlier");
    }
    if (!parts.key(keyId).certified) {
      throw refused("a window needs the issuer's certificate in the keeper's configuration");
    }
  }

  /** That the people of a plan are those of the roster, with the recipients that they have there. */
  function checkPeople(plan: Plan, people: Roster): void {
    for (const { operator, recipient } of plan.custodians) {
      const person = people.operators.get(operator);
      if (person === undefined) throw unfit(`the roster has no operator ${operator}`);
      if (person.recipient !== recipient) {
        throw unfit(`the recipient of ${operator} is not the one in the roster`);
      }
    }
  }

  function checkPlan(plan: Plan, kind: "generate" | "reshare", keyId: string | undefined): void {
    if (plan.service !== service) throw unfit("it is for another service");
    if ("generate" in plan.key) {
      if (kind === "reshare") throw unfit("a reshare is of a key in use");
      if (keyId !== undefined) throw unfit("a key that is yet to be made has no id");
      if (plan.payload === "pin" && !parts.canMakeTokens) {
        throw unfit(
          "the keeper's configuration names no module to make tokens with (token.module)",
        );
      }
      return;
    }
    if (keyId !== plan.key.use) throw unfit("it is for another key than the ceremony");
    const key = parts.key(keyId);
    if (plan.payload !== (key.inToken ? "pin" : "pkcs8")) {
      throw unfit(`what is sealed of this key is its ${key.inToken ? "PIN" : "private key"}`);
    }
    const active = stateFile.state.seals[keyId];
    if (kind === "generate") {
      if (key.sealed) throw unfit("the key has a seal: its shares are changed by a reshare");
      if (plan.epoch !== 1) throw unfit("a first seal has epoch 1");
      return;
    }
    if (active === undefined) throw unfit("the key has no active share set");
    if (plan.epoch !== active.epoch + 1 || plan.previous !== active.shareSet) {
      throw unfit(`it must follow the active share set, which has epoch ${active.epoch}`);
    }
  }

  /** What the statement says must be agreed to, besides shares and the custodians of a plan. */
  function rulesFor(kind: CeremonyKind, keyId: string | undefined): Record<string, number> {
    const rules = askedRules(roster.require(), kind);
    if (rules !== undefined) return { ...rules };
    // The custodians of the plan are asked, or those who hold the shares.
    if (kind === "generate") return {};
    if (keyId !== undefined && parts.key(keyId).sealed) return {};
    throw refused(
      `the roster has no rule for ceremonies of kind ${kind}, and there is no seal: nobody could agree to it`,
    );
  }

  /** Checks that a statement can be agreed to and carried out. What it carries, its schema has said. */
  function check(statement: CeremonyStatement, { plan, signatures = [] }: Proposal): void {
    const { kind, keyId, window, requestedBy } = statement;
    const inForce = roster.require();
    if (!inForce.operators.has(requestedBy)) {
      throw new CountersignError("operator-unknown", `the roster has no operator ${requestedBy}`);
    }
    checkDuration(statement.notAfter);
    if (stateFile.state.panic !== null && kind !== "resume" && kind !== "roster") throw inPanic();
    switch (kind) {
      case "sign":
        parts.key(keyId!);
        return;
      case "window":
        checkWindow(keyId!, window!);
        return;
      case "generate":
      case "reshare": {
        const read = readPlan(plan!);
        if (read.roster !== inForce.digest) {
          throw unfit("it names another roster than the one in force");
        }
        checkPeople(read, inForce);
        checkPlan(read, kind, keyId);
        return;
      }
      case "roster": {
        const next = readRoster(plan!);
        checkSuccessor(inForce, next, signatures);
        roster.checkService(next.document);
        return;
      }
      case "resume": {
        const { service: named, release } = readResume(plan!);
        if (named !== service) throw refused("the document is for another service");
        if (release === "all") return;
        const free = release.find((keyId) => stateFile.state.held[keyId] === undefined);
        if (free !== undefined) throw refused(`key ${free} is not held`);
        return;
      }
      case "policy":
      case "retire":
        throw refused(`there are no ceremonies of kind ${kind} yet`);
    }
  }

  return {
    state(proposal) {
      const { notAfter, plan, signatures: _, ...stated } = proposal;
      const head = log.requireHead();
      const octets = Buffer.from(
        canonicalJson({
          type: "countersign/ceremony/v1",
          id: Buffer.from(parts.random(16)).toString("hex"),
          service,
          ...(stated as JsonObject),
          ...(plan === undefined ? {} : { plan: digestOf(plan) }),
          rules: rulesFor(stated.kind, stated.keyId),
          roster: roster.require().digest,
          policy: parts.policy,
          notAfter: notAfter.toISOString(),
          log: { origin: parts.origin, size: head.end, root: base64(head.root()) },
        }),
      );
      check(readCeremony(octets), proposal);
      countProposal(proposal.requestedBy);
      const made = notes.state(octets);
      if (stated.kind === "resume") {
        stateFile.change(({ resumes }) => {
          for (const [old, until] of Object.entries(resumes)) {
            if (Date.parse(until) < now().getTime()) delete resumes[old];
          }
          resumes[made.digest] = notAfter.toISOString();
        });
      }
      return made;
    },
    read(note, ...kinds) {
      const { octets, digest } = notes.open(note);
      const statement = readCeremony(octets);
      if (!kinds.includes(statement.kind)) {
        throw refused(`this is done for a ceremony of kind ${kinds.join(" or ")}`);
      }
      if (stateFile.state.done[digest] !== undefined) {
        throw new CountersignError("ceremony-closed", "the ceremony was carried out");
      }
      if (Date.parse(statement.notAfter) < now().getTime()) {
        throw new CountersignError("ceremony-closed", "the time of the ceremony is over");
      }
      return { statement, digest };
    },
    isDone: (digest) => stateFile.state.done[digest] !== undefined,
    finish({ digest, statement }, also) {
      const at = now().getTime();
      stateFile.change((state) => {
        const { done } = state;
        // A clock that is set back by a day does not bring one back.
        for (const [old, until] of Object.entries(done)) {
          if (Date.parse(until) + DAY_MILLISECONDS < at) delete done[old];
        }
        done[digest] = statement.notAfter;
        also?.(state);
      });
    },
    reopen({ digest }) {
      stateFile.change(({ done }) => {
        delete done[digest];
      });
    },
    requireVotes({ statement, digest }, approvals, needs, further = []) {
      const people = roster.require();
      const verdicts = countable(people, digest, approvals);
      const count = countVotes(people, statement, needs, [...verdicts, ...further]);
      if (count.met) return;
      const missing = [
        ...[...count.roles].map(([role, number]) => `${number} in the role ${role}`),
        ...(count.shares === 0 ? [] : [`${count.shares} shares`]),
        ...(count.people.length === 0 ? [] : [`the approval of ${count.people.join(", ")}`]),
        ...(count.alone ? ["anybody but the proposer"] : []),
      ];
      throw refused(
        count.rejected
          ? "so many people refused that it cannot be agreed to"
          : `it is not agreed to by the people of the roster in force: missing are ${missing.join(", ")}`,
      );
    },
    requireRecord(record, type, says) {
      const { index, leaf } = record;
      const known = log.feed.leafAt(index);
      if (known === undefined || Buffer.compare(known, leafHash(leaf)) !== 0 || spent.has(index)) {
        throw refused("what is to be done does not stand in the log where it is said to stand");
      }
      let entry: LogEntry;
      try {
        entry = parseEntry(leaf);
      } catch (error) {
        throw refused(`the log does not say what is to be done: ${(error as Error).message}`);
      }
      if (entry.type !== type || !says(entry as Extract<LogEntry, { type: typeof type }>)) {
        throw refused("the log says something else than what is to be done");
      }
      spent.add(index);
    },
    planOf({ statement }, octets) {
      if (digestOf(octets) !== statement.plan) throw unfit("it is not the one that was agreed to");
      const plan = readPlan(octets);
      checkPeople(plan, roster.require());
      checkPlan(plan, statement.kind as "generate" | "reshare", statement.keyId);
      return plan;
    },
  };
}

export function inPanic(): CountersignError {
  return new CountersignError("panic", "everything is locked until people agree to resume");
}

function refused(detail: string): CountersignError {
  return new CountersignError("ceremony-refused", detail);
}

function unfit(detail: string): CountersignError {
  return new CountersignError("plan-invalid", `the plan cannot be dealt: ${detail}`);
}
