/**
 * What is left of a grant while its key is open, and until when: CUSTODY.md 6.2 and 7.5. Of a key that shares have
 * opened, counts and deadlines live in the signer's memory alone: its end locks the key.
 */

import { digestOf } from "../audit/digest.ts";
import { CountersignError } from "../errors.ts";
import {
  hasEnd,
  hourlyAllowance,
  isDigests,
  isStanding,
  isWindow,
  windowOperation,
  type DigestGrant,
  type Grant,
  type Operation,
  type StandingGrant,
  type WindowGrant,
} from "./grant.ts";

/** Why a key that shares have opened is to be locked: its time, idle time or count is over. */
export type Over = "expired" | "idle" | "used-up";

export interface OpenGrantParts {
  readonly grant: Grant;
  /** Signatures that count as made within the last hour. */
  readonly alreadySigned: number;
  /** Of the grant's digests, those that are used up. */
  readonly usedDigests: readonly string[];
  readonly now: () => Date;
  /** Seconds on a clock that nobody sets. */
  readonly monotonic: () => number;
  /** Calls back after so many milliseconds: `setTimeout`, unless a test drives the clock. */
  readonly schedule?: (callback: () => void, milliseconds: number) => void;
  /**
   * Is told once that the grant is over, when all that was in hand has been answered. Never called for a standing
   * grant, nor for digests without `seconds`.
   */
  readonly onOver?: (reason: Over) => void;
}

/** What a key may sign now by matching a grant, not by its exact bytes. */
export interface Allows {
  readonly operations: readonly Operation[];
  /** The end of a window, or of a sealed key's digests. */
  readonly until: Date | undefined;
}

export interface Asked {
  readonly tbs: Uint8Array;
  readonly operation: string;
  readonly profile: string | undefined;
}

export interface OpenGrant {
  readonly signaturesLeft: number;
  readonly allows: Allows;
  /** @throws CountersignError `grant-exceeded` if the grant is over, or its window has not begun. */
  check(): void;
  /**
   * Counts a signature, before the key is used.
   *
   * @returns what gives a digest back whose signature was never made; a count does not come back.
   * @throws CountersignError `grant-exceeded`; `grant-mismatch` for a digest that is not there, or not any more.
   */
  spend(asked: Asked): () => void;
  /** A signature was made: the idle time begins anew. */
  signed(): void;
  /** Does what may sign, and holds back `onOver` until its result has been received. */
  during<Result>(work: () => Promise<Result>): Promise<Result>;
}

/** How often the wall clock is looked at, which may have been set: nothing else tells of that. */
const LOOK_MILLISECONDS = 5_000;

const overDetail: Readonly<Record<Over, string>> = {
  expired: "the time for which the key was opened is over",
  idle: "the key has signed nothing for so long that it is locked",
  "used-up": "the key has signed all that it was opened for",
};

/** @throws CountersignError `grant-exceeded` if a window has ended already. */
export function openGrant(parts: OpenGrantParts): OpenGrant {
  const { grant, onOver = () => {} } = parts;
  const schedule =
    parts.schedule ??
    ((callback, milliseconds) => {
      setTimeout(callback, milliseconds).unref();
    });
  const counts = countsOf(parts);
  const deadline = deadlineOf(parts);
  let over: Over | undefined;
  let inHand = 0;
  let told = false;

  function isOver(): Over | undefined {
    return (over ??= deadline?.passed());
  }

  function tell(): void {
    if (over === undefined || inHand > 0 || told) return;
    told = true;
    const reason = over;
    // Whoever waits for the last result goes on before a timer does.
    schedule(() => onOver(reason), 0);
  }

  function look(): void {
    if (isOver() === undefined) {
      schedule(look, Math.max(1, Math.min(LOOK_MILLISECONDS, Math.ceil(deadline!.left()))));
    } else {
      tell();
    }
  }

  function check(): void {
    const reason = isOver();
    if (reason !== undefined) throw exceeded(overDetail[reason]);
    if (deadline?.hasBegun() === false) throw exceeded("the window has not begun");
  }

  if (deadline !== undefined) {
    if (deadline.passed() !== undefined) throw exceeded(overDetail.expired);
    look();
  }

  return {
    get signaturesLeft() {
      return isOver() === undefined ? counts.left : 0;
    },
    get allows() {
      const now = isOver() === undefined && deadline?.hasBegun() !== false;
      return { operations: now ? counts.operations : [], until: deadline?.until };
    },
    check,
    spend(asked) {
      check();
      return counts.spend(asked);
    },
    signed() {
      deadline?.signed();
    },
    async during(work) {
      inHand++;
      try {
        return await work();
      } finally {
        inHand--;
        // Not before: a digest in hand may still come back.
        if (hasEnd(grant) && inHand === 0 && counts.left === 0) over ??= "used-up";
        tell();
      }
    },
  };
}

interface Counts {
  readonly left: number;
  readonly operations: readonly Operation[];
  spend(asked: Asked): () => void;
}

function countsOf(parts: OpenGrantParts): Counts {
  const { grant } = parts;
  if (isStanding(grant)) return hourlyCounts(grant, parts);
  return isWindow(grant) ? windowCounts(grant) : digestCounts(grant, parts);
}

const nothingBack = (): void => {};

function hourlyCounts(
  { operations, signaturesPerHour }: StandingGrant,
  { alreadySigned, monotonic }: OpenGrantParts,
): Counts {
  const allowance = hourlyAllowance(signaturesPerHour, alreadySigned, monotonic);
  return {
    get left() {
      return allowance.left;
    },
    operations,
    spend() {
      allowance.spend(1);
      return nothingBack;
    },
  };
}

function windowCounts({ window }: WindowGrant): Counts {
  const left = window.operations.map(({ max }) => max);
  return {
    get left() {
      return left.reduce((sum, count) => sum + count, 0);
    },
    get operations() {
      // No request can carry a label yet, see signer.ts.
      if (window.labels !== undefined) return [];
      const some = window.operations.filter((_, index) => left[index]! > 0);
      return [...new Set(some.map(({ operation }) => operation))];
    },
    spend({ operation, profile }) {
      const index = windowOperation(window, operation, profile);
      if (index < 0) {
        throw new CountersignError("grant-mismatch", "the window does not have this operation");
      }
      if (left[index] === 0) {
        const { max } = window.operations[index]!;
        throw exceeded(`the window is for ${max} signatures of this kind, and they were made`);
      }
      left[index]!--;
      return nothingBack;
    },
  };
}

function digestCounts(grant: DigestGrant, { usedDigests }: OpenGrantParts): Counts {
  const digests = new Set(grant.digests.filter((digest) => !usedDigests.includes(digest)));
  return {
    get left() {
      return digests.size;
    },
    operations: [],
    spend({ tbs }) {
      const digest = digestOf(tbs);
      if (!digests.delete(digest)) {
        throw new CountersignError(
          "grant-mismatch",
          "the signer was given bytes that were not granted, or were signed already",
        );
      }
      return () => {
        digests.add(digest);
      };
    },
  };
}

/** Two clocks agree that it may be used: the wall clock can be set, the other one stands still in a sleeping machine. */
interface Deadline {
  readonly until: Date;
  hasBegun(): boolean;
  passed(): Over | undefined;
  /** Milliseconds until it has passed by one of the clocks, if nothing is signed. */
  left(): number;
  signed(): void;
}

/** Milliseconds on both clocks. */
interface Moment {
  readonly wall: number;
  readonly steady: number;
}

function deadlineOf({ grant, now, monotonic }: OpenGrantParts): Deadline | undefined {
  const moment = (): Moment => ({ wall: now().getTime(), steady: monotonic() * 1000 });
  const opened = moment();
  const at = (wall: number): Moment => ({ wall, steady: opened.steady + wall - opened.wall });
  let begin = opened;
  let end: Moment;
  let idle = Number.POSITIVE_INFINITY;
  if (isWindow(grant)) {
    const { notBefore, notAfter, idleSeconds } = grant.window;
    begin = at(Date.parse(notBefore));
    end = at(Date.parse(notAfter));
    idle = idleSeconds * 1000;
  } else if (isDigests(grant) && grant.seconds !== undefined) {
    end = at(opened.wall + grant.seconds * 1000);
  } else {
    return undefined;
  }
  let last = opened;
  const sooner = (from: Moment, to: Moment): number =>
    Math.min(to.wall - from.wall, to.steady - from.steady);
  const later = (from: Moment, to: Moment): number =>
    Math.max(to.wall - from.wall, to.steady - from.steady);

  return {
    until: new Date(end.wall),
    hasBegun: () => sooner(begin, moment()) >= 0,
    passed() {
      const current = moment();
      if (sooner(current, end) <= 0) return "expired";
      return later(last, current) >= idle ? "idle" : undefined;
    },
    left() {
      const current = moment();
      return Math.min(sooner(current, end), idle - later(last, current));
    },
    signed() {
      last = moment();
    },
  };
}

function exceeded(detail: string): CountersignError {
  return new CountersignError("grant-exceeded", detail);
}
