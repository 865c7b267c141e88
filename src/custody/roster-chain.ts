/** The roster from its genesis to the version in force: CUSTODY.md 8.4. Nothing of it is believed, all of it is shown. */

import { CountersignError } from "../errors.ts";
import { openKeeperNote } from "./keeper-note.ts";
import {
  checkGenesis,
  checkSuccessor,
  readRoster,
  type Roster,
  type RosterVersion,
} from "./roster.ts";
import { readCeremony } from "./statement.ts";
import { checkApproval, countVotes, verdictOf, type Verdict } from "./votes.ts";

/**
 * Verifies every version up to the last.
 *
 * @param genesis - `sha256:` and the digest of version 1, from the configuration.
 * @param identityKey - verifier key of the keeper that asks: one that some version names. The notes of ceremonies are
 *   checked with the key of the version before.
 * @param versions - all, from the genesis on.
 * @returns the last.
 * @throws CountersignError `roster-invalid` if it is no chain from that genesis; `roster-unsigned` if somebody whose
 *   signature a version needs has not given it, or too few have agreed to it; `signature-invalid`,
 *   `statement-malformed` for a ceremony that the keeper did not state.
 */
export function readRosterChain(
  genesis: string,
  identityKey: string,
  versions: readonly RosterVersion[],
): Roster {
  return readRosterVersions(genesis, identityKey, versions).at(-1)!;
}

/** As {@link readRosterChain}, with all versions: at least one. */
export function readRosterVersions(
  genesis: string,
  identityKey: string,
  versions: readonly RosterVersion[],
): Roster[] {
  const rosters: Roster[] = [];
  for (const version of versions) {
    const roster = readRoster(version.document);
    const before = rosters.at(-1);
    if (before === undefined) {
      if (roster.digest !== genesis) {
        throw invalid("its first version is not the genesis that the configuration names");
      }
      checkGenesis(roster, version.signatures);
    } else {
      checkSuccessor(before, roster, version.signatures);
      checkCeremony(before, roster, version.ceremony);
    }
    rosters.push(roster);
  }
  if (rosters.length === 0) throw invalid("it has no version");
  if (!rosters.some(({ document }) => document.service.identity === identityKey)) {
    throw invalid("no version names the identity key of this keeper");
  }
  return rosters;
}

/** That the people of the version before wanted this one. */
function checkCeremony(before: Roster, roster: Roster, evidence: RosterVersion["ceremony"]): void {
  const { version } = roster.document;
  if (evidence === undefined) throw invalid(`version ${version} comes without its ceremony`);
  const { octets, digest } = openKeeperNote(evidence.note, [before.document.service.identity]);
  const ceremony = readCeremony(octets);
  if (
    ceremony.kind !== "roster" ||
    ceremony.plan !== roster.digest ||
    ceremony.roster !== before.digest
  ) {
    throw invalid(`version ${version} comes with the ceremony of something else`);
  }
  const verdicts = countable(before, digest, evidence.approvals);
  const count = countVotes(before, ceremony, {}, verdicts);
  if (!count.met) {
    throw new CountersignError(
      "roster-unsigned",
      `too few people of version ${before.document.version} have agreed to version ${version}`,
    );
  }
}

/** What those approvals say that count under a roster; the others say nothing. */
export function countable(
  roster: Roster,
  ceremony: string,
  approvals: NonNullable<RosterVersion["ceremony"]>["approvals"],
): Verdict[] {
  return approvals.flatMap((signed) => {
    try {
      return [verdictOf(checkApproval(roster, ceremony, signed))];
    } catch (error) {
      if (error instanceof CountersignError) return [];
      throw error;
    }
  });
}

function invalid(detail: string): CountersignError {
  return new CountersignError("roster-invalid", `the roster cannot be followed: ${detail}`);
}
