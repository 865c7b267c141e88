/** Who has agreed to a ceremony, and whether that is enough: CUSTODY.md 6.2. People are counted, not keys. */

import { CountersignError } from "../errors.ts";
import { canBeMet, ceremonyRules, checkOperatorSignature, type Roster } from "./roster.ts";
import {
  namespaces,
  readApproval,
  readSubmission,
  type Approval,
  type CeremonyStatement,
  type Signed,
  type Submission,
} from "./statement.ts";

/** The role in which a submission counts. */
export const CUSTODIAN = "custodian";
/** The role that everybody in the roster has. */
export const OPERATOR = "operator";

/** What somebody has said about a ceremony, after their signature was checked. */
export interface Verdict {
  readonly operator: string;
  readonly role: string;
  readonly agrees: boolean;
  /** Of a share that was given and is the right one. */
  readonly share?: number;
}

/** Whose agreement a ceremony needs beside the rules of its statement. */
export interface Needs {
  /** An opened seal: so many shares of these people. */
  readonly shares?: { readonly threshold: number; readonly custodians: readonly string[] };
  /** A plan: each of the custodians that it names. */
  readonly everyone?: readonly string[];
}

export interface Count {
  /** What is missing, by role; empty when the rules are met. */
  readonly roles: ReadonlyMap<string, number>;
  readonly shares: number;
  /** Custodians of a plan who have not approved it. */
  readonly people: readonly string[];
  /** Whether nobody has agreed but the proposer, in a roster of more people. */
  readonly alone: boolean;
  readonly met: boolean;
  /** Whether those who refused leave too few. */
  readonly rejected: boolean;
}

/**
 * Counts. A person counts once for the rules, in the role of their first verdict, if the roster in force gives it; a
 * verdict to reject stands, whatever the same person says elsewhere.
 *
 * @param verdicts - in the order in which they came.
 */
export function countVotes(
  roster: Roster,
  ceremony: CeremonyStatement,
  needs: Needs,
  verdicts: readonly Verdict[],
): Count {
  const known = verdicts.filter(({ operator }) => roster.operators.has(operator));
  const against = new Set(known.flatMap(({ operator, agrees }) => (agrees ? [] : [operator])));
  const agreed = known.filter(({ operator }) => !against.has(operator));
  const roleOf = new Map<string, string>();
  for (const { operator, role } of agreed) {
    if (roleOf.has(operator)) continue;
    if (hasRole(roster, needs, operator, role)) roleOf.set(operator, role);
  }
  const rules = rulesInForce(roster, ceremony);
  const roles = new Map<string, number>();
  for (const [role, needed] of Object.entries(rules)) {
    const have = [...roleOf.values()].filter((one) => one === role).length;
    if (have < needed) roles.set(role, needed - have);
  }
  const { shares, everyone = [] } = needs;
  const holders = new Set(
    agreed.flatMap(({ operator, share }) =>
      share !== undefined && shares?.custodians[share - 1] === operator ? [operator] : [],
    ),
  );
  const missingShares = shares === undefined ? 0 : Math.max(0, shares.threshold - holders.size);
  const people = everyone.filter(
    (custodian) => !agreed.some(({ operator }) => operator === custodian),
  );
  const alone =
    roster.operators.size > 1 &&
    ![...roleOf.keys(), ...holders].some((operator) => operator !== ceremony.requestedBy);
  const willing = [...roster.operators.keys()].filter((operator) => !against.has(operator));
  const sharesLeft = shares?.custodians.filter((custodian) => willing.includes(custodian)).length;
  const rejected =
    everyone.some((custodian) => !willing.includes(custodian)) ||
    (shares !== undefined && sharesLeft! < shares.threshold) ||
    !canBeMet(
      willing.map((id) => ({ id, roles: rolesOf(roster, needs, id, roleOf.get(id)) })),
      rules,
    );
  return {
    roles,
    shares: missingShares,
    people,
    alone,
    met: roles.size === 0 && missingShares === 0 && people.length === 0 && !alone && !rejected,
    rejected,
  };
}

/** What the statement asks for and what the roster asks for today: the greater number of each role. */
function rulesInForce(
  roster: Roster,
  ceremony: CeremonyStatement,
): Readonly<Record<string, number>> {
  const rules: Record<string, number> = { ...ceremony.rules };
  for (const [role, needed] of Object.entries(askedRules(roster, ceremony.kind) ?? {})) {
    rules[role] = Math.max(rules[role] ?? 0, needed);
  }
  return rules;
}

/** What the roster asks for a ceremony of a kind; undefined where it says nothing. */
export function askedRules(
  roster: Roster,
  kind: CeremonyStatement["kind"],
): Readonly<Record<string, number>> | undefined {
  const rules = ceremonyRules(roster, kind);
  return kind === "roster" || kind === "policy" || kind === "resume"
    ? { [OPERATOR]: roster.document.rules[kind], ...rules }
    : rules;
}

function hasRole(roster: Roster, needs: Needs, operator: string, role: string): boolean {
  return rolesOf(roster, needs, operator, undefined).includes(role);
}

function rolesOf(
  roster: Roster,
  needs: Needs,
  operator: string,
  counted: string | undefined,
): readonly string[] {
  if (counted !== undefined) return [counted];
  const custodian =
    needs.shares?.custodians.includes(operator) === true ||
    needs.everyone?.includes(operator) === true;
  return [
    ...(roster.operators.get(operator)?.roles ?? []),
    OPERATOR,
    ...(custodian ? [CUSTODIAN] : []),
  ];
}

/**
 * Checks an approval of a ceremony.
 *
 * @param ceremony - digest of its statement.
 * @throws CountersignError `approval-malformed`, `approval-stale` for another ceremony, `approval-unsigned`,
 *   `operator-unknown`.
 */
export function checkApproval(
  roster: Roster,
  ceremony: string,
  { statement, signature }: Signed,
): Approval {
  const approval = readApproval(statement);
  if (approval.ceremony !== ceremony) {
    throw new CountersignError("approval-stale", "the approval is of another statement");
  }
  checkSignature(roster, approval.operator, "approval", statement, signature);
  return approval;
}

/**
 * Checks the words of a submission; its share is for the unlocker to check.
 *
 * @param unlock - digest of its statement.
 * @throws CountersignError `submission-malformed`, `submission-stale` for another unlock, `submission-unsigned`,
 *   `operator-unknown`.
 */
export function checkSubmission(
  roster: Roster,
  unlock: string,
  { statement, signature }: Signed,
): Submission {
  const submission = readSubmission(statement);
  if (submission.unlock !== unlock) {
    throw new CountersignError(
      "submission-stale",
      "the submission is of another unlock: read the present statement, and make and sign it anew",
    );
  }
  checkSignature(roster, submission.operator, "submission", statement, signature);
  return submission;
}

function checkSignature(
  roster: Roster,
  operator: string,
  what: "approval" | "submission",
  statement: Uint8Array,
  signature: string,
): void {
  const namespace = namespaces[what];
  try {
    checkOperatorSignature(roster, operator, namespace, statement, signature);
  } catch (error) {
    if (!(error instanceof CountersignError) || error.code !== "signature-invalid") throw error;
    throw new CountersignError(
      `${what}-unsigned`,
      `${operator} has not signed this ${what} (${error.message}): ssh-keygen -Y sign -n ${namespace} -f KEY`,
      { cause: error },
    );
  }
}

/** What an approval says, for {@link countVotes}. */
export function verdictOf({ operator, role, verdict }: Approval): Verdict {
  return { operator, role, agrees: verdict === "approve" };
}

/** What a submission says; a share that is given counts only after the unlocker has taken it. */
export function verdictOfSubmission(submission: Submission): Verdict {
  const { operator } = submission;
  return submission.verdict === "give"
    ? { operator, role: CUSTODIAN, agrees: true, share: submission.share.index }
    : { operator, role: CUSTODIAN, agrees: false };
}
