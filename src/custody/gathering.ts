/**
 * What an unlocker believes: nothing that it cannot follow back to the genesis of the roster. It checks what is stated
 * and what is submitted by itself (CUSTODY.md 4.3), and counts who agrees again before it opens (6.2).
 */

import { CountersignError } from "../errors.ts";
import { openKeeperNote } from "./keeper-note.ts";
import { readShareSet, type ShareSet } from "./plan.ts";
import { countable, readRosterVersions } from "./roster-chain.ts";
import type { Roster, RosterVersion } from "./roster.ts";
import { SHARE_FILE_LIMIT, type UnlockIdentity } from "./sealed/share-file.ts";
import { createUnlocker, type Unlocker } from "./sealed/unlock.ts";
import {
  readCeremony,
  readUnlock,
  type CeremonyStatement,
  type Signed,
  type UnlockStatement,
} from "./statement.ts";
import { checkSubmission, countVotes, verdictOfSubmission, type Verdict } from "./votes.ts";

/** What an unlocker is told when its statement has been made. */
export interface GatheringState {
  /** Digest of the roster's first version. */
  readonly genesis: string;
  readonly rosters: readonly RosterVersion[];
  /** Verifier key of the keeper, as the roster names it. */
  readonly identityKey: string;
  /** The notes of the ceremony, of this unlock, and of the share set. */
  readonly ceremony: string;
  readonly unlock: string;
  readonly shareSet: string;
  /** CSKB. */
  readonly sealed: Uint8Array;
}

export interface GatheringParts {
  readonly state: GatheringState;
  readonly identity: UnlockIdentity;
  /** As the unlocker was started with; the statement must say the same. */
  readonly gatherSeconds: number;
  readonly now: () => Date;
  /** Seconds on a clock that nobody sets, since the unlocker was asked to begin. */
  readonly elapsed: () => number;
}

export interface Progress {
  /** Who has given a share that counts. */
  readonly given: readonly string[];
  /** How many shares are still missing. */
  readonly missing: number;
}

/** What is known of those who agree, at the moment of opening. */
export interface Agreement {
  readonly approvals: readonly Signed[];
  /** Up to the version in force. */
  readonly rosters: readonly RosterVersion[];
}

export interface Gathering {
  /**
   * Takes a submission; one with the verdict `refuse` comes with an empty share and stands.
   *
   * @throws CountersignError a code of CUSTODY.md 4.3; `rate-limited` instead of a fifth wrong share in 15 minutes.
   */
  submit(submission: Signed, share: Uint8Array): Promise<Progress>;
  /**
   * Counts under the roster in force: the approvals, and of the submissions what their people could still sign.
   *
   * @returns whose shares may be used.
   * @throws CountersignError `ceremony-refused` if that is not enough; `ceremony-closed`; as `readRosterChain` does.
   */
  agreed(agreement: Agreement): readonly string[];
  /**
   * Opens the secret; once.
   *
   * @param by - what {@link agreed} gave.
   * @returns PKCS#8 or a PIN; wipe it.
   * @throws CountersignError `kek-mismatch`, `sealed-key-corrupt`, `unlock-closed`.
   */
  open(by: readonly string[]): Promise<Buffer>;
}

/** Wrong shares of one person that are named as such, in this time. */
const WRONG = { most: 5, seconds: 15 * 60 };

/** What counts against the one who has signed it. */
const counted = new Set(["share-not-yours", "share-wrong"]);

/**
 * Begins to gather.
 *
 * @throws CountersignError as `readRosterChain` does; `signature-invalid`, `statement-malformed`; `statement-stale` if the
 *   statements do not belong together or are of another unlocker; `ceremony-closed`; `sealed-key-corrupt`.
 */
export function beginGathering(parts: GatheringParts): Gathering {
  const { state, identity, gatherSeconds, now, elapsed } = parts;
  const rosters = readRosterVersions(state.genesis, state.identityKey, state.rosters);
  const roster = rosters.at(-1)!;
  if (roster.document.service.identity !== state.identityKey) {
    throw new CountersignError("roster-invalid", "the roster names another identity key");
  }
  // A share set may be older than the identity key of today.
  const identityKeys = [...new Set(rosters.map(({ document }) => document.service.identity))];
  const unlockNote = openKeeperNote(state.unlock, [state.identityKey]);
  const ceremonyNote = openKeeperNote(state.ceremony, identityKeys);
  const shareSetNote = openKeeperNote(state.shareSet, identityKeys);
  const unlock = readUnlock(unlockNote.octets);
  const ceremony = readCeremony(ceremonyNote.octets);
  const shareSet = readShareSet(shareSetNote.octets);
  const fits: Readonly<Record<string, boolean>> = {
    recipient: unlock.recipient === identity.recipient,
    ceremony: unlock.ceremony === ceremonyNote.digest,
    "share set": unlock.shareSet === shareSetNote.digest,
    ...sameKey(unlock, ceremony, shareSet),
    roster:
      unlock.roster === roster.digest && rosters.some(({ digest }) => digest === ceremony.roster),
    service: unlock.service === ceremony.service,
    "time to gather": unlock.gatherSeconds === gatherSeconds,
  };
  const [misfit] = Object.entries(fits).find(([, same]) => !same) ?? [];
  if (misfit !== undefined) {
    throw new CountersignError("statement-stale", `the unlock statement names another ${misfit}`);
  }
  requireInTime();
  const { threshold } = shareSet;
  const custodians = shareSet.custodians.map(({ operator }) => operator);
  const unlocker: Unlocker = createUnlocker({
    shareSet,
    sealed: state.sealed,
    identity: identity.key,
  });
  /** Of each person the submission that counts, in the order in which they came. */
  const submissions = new Map<string, Signed>();
  const refused = new Map<string, Signed>();
  const wrong = new Map<string, number[]>();

  function requireInTime(): void {
    if (elapsed() >= gatherSeconds) {
      throw new CountersignError("unlock-closed", "the time to gather shares is over");
    }
    if (now() >= new Date(ceremony.notAfter)) {
      throw new CountersignError("ceremony-closed", "the ceremony's time is over");
    }
  }

  /** The same error, until the person has made it too often. */
  function limited(operator: string, error: unknown): unknown {
    if (!(error instanceof CountersignError) || !counted.has(error.code)) return error;
    const recent = (wrong.get(operator) ?? []).filter((at) => elapsed() - at < WRONG.seconds);
    if (recent.length >= WRONG.most) {
      return new CountersignError(
        "rate-limited",
        `${operator} has sent ${WRONG.most} wrong shares within ${WRONG.seconds / 60} minutes; only the right one is taken`,
      );
    }
    wrong.set(operator, [...recent, elapsed()]);
    return error;
  }

  function progress(): Progress {
    const given = [...submissions.keys()].filter((operator) => !refused.has(operator));
    return { given, missing: Math.max(0, threshold - given.length) };
  }

  function rosterInForce(versions: readonly RosterVersion[]): Roster {
    const chain = readRosterVersions(state.genesis, state.identityKey, versions);
    if (!chain.some(({ digest }) => digest === roster.digest)) {
      throw new CountersignError(
        "rolled-back",
        "the roster that was shown is older than the one that this unlock began with",
      );
    }
    return chain.at(-1)!;
  }

  function verdicts(today: Roster, approvals: readonly Signed[]): Verdict[] {
    return [
      ...countable(today, ceremonyNote.digest, approvals),
      ...[...submissions.values(), ...refused.values()].flatMap((signed) => {
        try {
          return [verdictOfSubmission(checkSubmission(today, unlockNote.digest, signed))];
        } catch (error) {
          if (error instanceof CountersignError) return []; // who has left, or has other keys now
          throw error;
        }
      }),
    ];
  }

  return {
    async submit(signed, share) {
      requireInTime();
      if (share.length > SHARE_FILE_LIMIT) {
        throw new CountersignError(
          "share-malformed",
          `an encrypted share has at most ${SHARE_FILE_LIMIT} octets`,
        );
      }
      const submission = checkSubmission(roster, unlockNote.digest, signed);
      const { operator } = submission;
      if (refused.has(operator)) {
        throw new CountersignError(
          "share-repeated",
          `${operator}: you have refused this unlock, and that stands`,
        );
      }
      if (submission.verdict === "refuse") {
        if (share.length > 0) {
          throw new CountersignError("share-malformed", "a refusal comes without a share");
        }
        refused.set(operator, signed);
        return progress();
      }
      try {
        await unlocker.submit({ operator, share: submission.share, file: share });
      } catch (error) {
        throw limited(operator, error);
      }
      submissions.set(operator, signed);
      return progress();
    },
    agreed({ approvals, rosters: versions }) {
      requireInTime();
      const today = rosterInForce(versions);
      const said = verdicts(today, approvals);
      const count = countVotes(today, ceremony, { shares: { threshold, custodians } }, said);
      if (!count.met) {
        throw new CountersignError(
          "ceremony-refused",
          count.rejected
            ? "too many have refused: those who are left cannot open the key"
            : `not enough people of the roster in force agree: ${[
                ...[...count.roles].map(([role, missing]) => `${missing} of role ${role}`),
                ...(count.shares === 0 ? [] : [`${count.shares} shares`]),
                ...(count.alone ? ["somebody beside the proposer"] : []),
              ].join(", ")} missing`,
        );
      }
      const against = new Set(said.flatMap(({ operator, agrees }) => (agrees ? [] : [operator])));
      return said.flatMap(({ operator, share }) =>
        share === undefined || against.has(operator) ? [] : [operator],
      );
    },
    open: (by) => unlocker.open(by),
  };
}

function sameKey(
  unlock: UnlockStatement,
  ceremony: CeremonyStatement,
  shareSet: ShareSet,
): Record<string, boolean> {
  return {
    "kind of ceremony": ["sign", "window", "reshare"].includes(ceremony.kind),
    key: unlock.keyId === ceremony.keyId && unlock.keyId === shareSet.keyId,
    epoch: unlock.epoch === shareSet.epoch,
    threshold: unlock.threshold === shareSet.threshold && unlock.shareCount === shareSet.shareCount,
  };
}
