/** What was said about a ceremony so far, and what is missing. */

import { readPlan, readShareSet, type Plan, type ShareSet } from "../custody/plan.ts";
import type { Roster } from "../custody/roster.ts";
import {
  readApproval,
  readCeremony,
  readSubmission,
  type CeremonyStatement,
} from "../custody/statement.ts";
import {
  countVotes,
  CUSTODIAN,
  OPERATOR,
  verdictOf,
  verdictOfSubmission,
  type Count,
  type Needs,
} from "../custody/votes.ts";
import { notedJson } from "./log-words.ts";
import type {
  CustodyReads,
  StoredApproval,
  StoredCeremony,
  StoredShareSet,
  StoredSubmission,
  StoredUnlock,
} from "./records.ts";
import type { MissingView, PersonView } from "./view.ts";

export interface Tally {
  readonly statement: CeremonyStatement;
  readonly plan: Plan | undefined;
  /** Whose shares open the key; absent where nothing is sealed. */
  readonly shareSet: ShareSet | undefined;
  readonly approvals: readonly StoredApproval[];
  /** The newest. */
  readonly unlock: StoredUnlock | undefined;
  readonly submissions: readonly StoredSubmission[];
  readonly count: Count;
}

/** Whether a ceremony of this kind opens a key. */
export function opensKey(kind: CeremonyStatement["kind"]): boolean {
  return kind === "sign" || kind === "window" || kind === "reshare";
}

export async function tallyOf(
  reads: CustodyReads,
  roster: Roster,
  ceremony: StoredCeremony,
): Promise<Tally> {
  const statement = readCeremony(notedJson(ceremony.note));
  const approvals = await reads.approvals(ceremony.digest);
  const unlock = (await reads.unlocksOf(ceremony.digest)).at(-1);
  const submissions = unlock === undefined ? [] : await reads.submissions(unlock.digest);
  const plan = await planOf(reads, statement);
  const stored = await sealOf(reads, ceremony, unlock);
  const shareSet = stored === undefined ? undefined : readShareSet(notedJson(stored.note));
  const needs: Needs = {
    ...(shareSet === undefined
      ? {}
      : {
          shares: {
            threshold: shareSet.threshold,
            custodians: shareSet.custodians.map(({ operator }) => operator),
          },
        }),
    ...(plan === undefined ? {} : { everyone: plan.custodians.map(({ operator }) => operator) }),
  };
  // What was said to an unlock that is over is over with it: the keeper counts what is said to the present one.
  const counted =
    unlock === undefined || unlock.state === "gathering" || unlock.state === "opened"
      ? submissions
      : [];
  const verdicts = [
    ...approvals.map((row) => ({
      at: row.logIndex,
      verdict: verdictOf(readApproval(row.statement)),
    })),
    ...counted.map((row) => ({
      at: row.logIndex,
      verdict: verdictOfSubmission(readSubmission(row.statement)),
    })),
  ]
    .sort((one, other) => one.at - other.at)
    .map(({ verdict }) => verdict);
  return {
    statement,
    plan,
    shareSet,
    approvals,
    unlock,
    submissions,
    count: countVotes(roster, statement, needs, verdicts),
  };
}

/** The share set whose shares a ceremony gathers. */
async function sealOf(
  reads: CustodyReads,
  { kind, keyId }: StoredCeremony,
  unlock: StoredUnlock | undefined,
): Promise<StoredShareSet | undefined> {
  if (!opensKey(kind) || keyId === null) return undefined;
  return unlock === undefined || unlock.state === "ended" || unlock.state === "expired"
    ? (await reads.shareSets({ keyId, state: "active" }))[0]
    : await reads.shareSet(unlock.shareSet);
}

/** What is to be dealt; undefined for what deals nothing. */
export async function planOf(
  reads: CustodyReads,
  { kind, plan }: CeremonyStatement,
): Promise<Plan | undefined> {
  if ((kind !== "generate" && kind !== "reshare") || plan === undefined) return undefined;
  const octets = await reads.object(plan);
  return octets === undefined ? undefined : readPlan(octets);
}

export function missingOf({ count, shareSet }: Tally): MissingView {
  const roles = Object.fromEntries(count.roles);
  return {
    // One more than the proposer must agree, in whatever role.
    roles: count.alone && count.roles.size === 0 ? { [OPERATOR]: 1 } : roles,
    ...(shareSet === undefined ? {} : { shares: count.shares }),
    ...(count.people.length === 0 ? {} : { people: count.people }),
  };
}

/** Everybody whose word counts, and what they said. */
export function peopleOf(roster: Roster, tally: Tally): PersonView[] {
  const { statement, shareSet, plan, approvals, submissions } = tally;
  const people = new Map<string, PersonView>();
  const wanted = new Set(Object.keys(statement.rules));
  for (const { id, roles } of roster.operators.values()) {
    if (wanted.has(OPERATOR) || roles.some((role) => wanted.has(role))) {
      people.set(id, { operator: id, state: "waiting" });
    }
  }
  for (const { operator } of [...(shareSet?.custodians ?? []), ...(plan?.custodians ?? [])]) {
    people.set(operator, { operator, state: "waiting", role: CUSTODIAN });
  }
  for (const { operator, verdict, role, at } of approvals) {
    people.set(operator, {
      operator,
      state: verdict === "approve" ? "approved" : "rejected",
      role,
      at,
    });
  }
  for (const { operator, verdict, at } of submissions) {
    // Who rejected the ceremony and gives a share all the same has rejected it.
    if (people.get(operator)?.state === "rejected") continue;
    people.set(operator, {
      operator,
      state: verdict === "give" ? "given" : "refused",
      role: CUSTODIAN,
      at,
    });
  }
  return [...people.values()];
}

/** The submissions of people, for an unlock's own view. */
export function submittersOf(
  shareSet: ShareSet,
  submissions: readonly StoredSubmission[],
): PersonView[] {
  return shareSet.custodians.map(({ operator }) => {
    const said = submissions.find((submission) => submission.operator === operator);
    return said === undefined
      ? { operator, state: "waiting", role: CUSTODIAN }
      : {
          operator,
          state: said.verdict === "give" ? "given" : "refused",
          role: CUSTODIAN,
          at: said.at,
        };
  });
}
