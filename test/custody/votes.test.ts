import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { verifierKey } from "../../src/audit/signed-note.ts";
import { readRoster, type Roster, type RosterDocument } from "../../src/custody/roster.ts";
import { readCeremony, type CeremonyStatement } from "../../src/custody/statement.ts";
import {
  askedRules,
  checkApproval,
  checkSubmission,
  countVotes,
  CUSTODIAN,
  verdictOf,
  verdictOfSubmission,
  type Count,
  type Needs,
  type Verdict,
} from "../../src/custody/votes.ts";
import { json, makePeople, makeSshKey, sshSign } from "../support/people.ts";
import { refused } from "../support/refused.ts";

const folder = mkdtempSync(join(tmpdir(), "countersign-votes-"));
afterAll(() => rmSync(folder, { recursive: true }));

const people = makePeople(folder, ["alice", "bob", "carol", "dora", "erin"]);
const service = {
  identity: verifierKey("ca.example.com/keeper", new Uint8Array(32).fill(1)),
  log: verifierKey("ca.example.com/audit", new Uint8Array(32).fill(2)),
};
const seen = { size: 3, root: Buffer.alloc(32).toString("base64") };
const digest = `sha256:${"1".repeat(64)}`;
const roles: Record<string, string[]> = {
  alice: ["officer"],
  bob: ["officer", "witness"],
  carol: ["witness"],
  dora: ["witness"],
  erin: ["guest"],
};

type Rules = Partial<RosterDocument["rules"]>;

/** Everybody with the roles above, or some of them. */
function rosterOf(rules: Rules = {}, ids: readonly string[] = people.ids): Roster {
  const operators = people.operators
    .filter(({ id }) => ids.includes(id))
    .map((operator) => ({ ...operator, roles: roles[operator.id]! }));
  const all = { roster: 1, policy: 1, resume: 1, ceremonies: {}, ...rules };
  return readRoster(people.roster(service, { operators, rules: all }));
}

function ceremonyOf(change: Partial<CeremonyStatement> = {}): CeremonyStatement {
  return readCeremony(
    json({
      type: "countersign/ceremony/v1",
      id: "0".repeat(32),
      service: "ca.example.com",
      kind: "sign",
      keyId: "0".repeat(64),
      artefacts: [{ tbs: digest, lint: digest }],
      rules: { officer: 2, witness: 1 },
      roster: digest,
      policy: digest,
      notAfter: "2026-11-28T20:00:00Z",
      log: { origin: "ca.example.com/audit", ...seen },
      requestedBy: "alice",
      reason: "a test",
      ...change,
    }),
  );
}

/** `bob:witness` agrees, `!bob` does not, `bob#2` has given share 2. */
function verdicts(...texts: readonly string[]): Verdict[] {
  return texts.map((text) => {
    const [, not, operator, role, share] = /^(!?)(\w+)(?::(\w+))?(?:#(\d+))?$/.exec(text)!;
    return {
      operator: operator!,
      role: role ?? CUSTODIAN,
      agrees: not === "",
      ...(share === undefined ? {} : { share: Number(share) }),
    };
  });
}

function count(
  texts: readonly string[],
  parts: { roster?: Roster; ceremony?: CeremonyStatement; needs?: Needs } = {},
): Count {
  const { roster = rosterOf(), ceremony = ceremonyOf(), needs = {} } = parts;
  return countVotes(roster, ceremony, needs, verdicts(...texts));
}

// Roles

test.for<{ name: string; said: string[]; missing: Record<string, number> }>([
  { name: "nobody", said: [], missing: { officer: 2, witness: 1 } },
  {
    name: "two officers and a witness",
    said: ["alice:officer", "bob:officer", "carol:witness"],
    missing: {},
  },
  {
    name: "one person twice in one role",
    said: ["alice:officer", "alice:officer", "carol:witness"],
    missing: { officer: 1 },
  },
  {
    name: "one person in two roles, who counts in the first",
    said: ["bob:officer", "bob:witness", "alice:officer"],
    missing: { witness: 1 },
  },
  {
    name: "somebody in a role that the roster does not give",
    said: ["carol:officer", "alice:officer", "bob:officer"],
    missing: { witness: 1 },
  },
  {
    name: "a person whose first role is none of theirs, and whose second is",
    said: ["carol:officer", "carol:witness", "alice:officer", "bob:officer"],
    missing: {},
  },
  {
    name: "a stranger",
    said: ["mallory:officer", "alice:officer", "carol:witness"],
    missing: { officer: 1 },
  },
  {
    name: "a custodian of no share in that role",
    said: ["alice:custodian", "bob:officer", "carol:witness"],
    missing: { officer: 1 },
  },
])("people are counted, in a role that they have: $name", ({ said, missing }) => {
  const counted = count(said);
  expect(Object.fromEntries(counted.roles)).toEqual(missing);
  expect(counted.met).toBe(Object.keys(missing).length === 0);
  expect(counted.rejected).toBe(false);
});

test("everybody in the roster has the role of operator, which counts for rosters, policies and resume", () => {
  const roster = rosterOf({ resume: 3 });
  const ceremony = ceremonyOf({
    kind: "resume",
    keyId: undefined,
    artefacts: undefined,
    plan: digest,
    rules: { operator: 3 },
  } as unknown as Partial<CeremonyStatement>);
  const said = ["alice:operator", "erin:operator"];
  expect(Object.fromEntries(count(said, { roster, ceremony }).roles)).toEqual({ operator: 1 });
  expect(count([...said, "dora:operator"], { roster, ceremony }).met).toBe(true);
  expect(askedRules(roster, "resume")).toEqual({ operator: 3 });
  expect(askedRules(roster, "sign")).toBeUndefined();
});

// The proposer

test("the proposer alone is never enough, where there are others", () => {
  const ceremony = ceremonyOf({ rules: { officer: 1 } });
  expect(count(["alice:officer"], { ceremony })).toMatchObject({ alone: true, met: false });
  expect(count(["bob:officer"], { ceremony })).toMatchObject({ alone: false, met: true });
  const further = count(["alice:officer", "dora:witness"], { ceremony });
  expect(further, "somebody else's word makes it two").toMatchObject({ alone: false, met: true });
  const noRole = count(["alice:officer", "dora:officer"], { ceremony });
  expect(noRole, "in a role that they have not").toMatchObject({ alone: true, met: false });
});

test("in a roster of one, one is enough", () => {
  const roster = rosterOf({}, ["alice"]);
  const ceremony = ceremonyOf({ rules: { officer: 1 } });
  expect(count(["alice:officer"], { roster, ceremony })).toMatchObject({ alone: false, met: true });
  expect(count([], { roster, ceremony }).met).toBe(false);
});

// Shares

const shares: Needs = { shares: { threshold: 2, custodians: ["alice", "bob", "carol"] } };

test.for<{ name: string; said: string[]; missing: number; met: boolean }>([
  { name: "two custodians", said: ["alice#1", "bob#2"], missing: 0, met: true },
  { name: "all of them", said: ["alice#1", "bob#2", "carol#3"], missing: 0, met: true },
  { name: "one twice", said: ["bob#2", "bob#2"], missing: 1, met: false },
  { name: "one with another's share", said: ["alice#1", "bob#3"], missing: 1, met: false },
  { name: "one with two shares", said: ["alice#1", "alice#2"], missing: 1, met: false },
  { name: "somebody without a share", said: ["alice#1", "dora#2"], missing: 1, met: false },
  {
    name: "an approval instead of a share",
    said: ["alice#1", "bob:custodian"],
    missing: 1,
    met: false,
  },
  { name: "a share of no index", said: ["alice#1", "bob#9"], missing: 1, met: false },
])("each share counts once, of the custodian that it was dealt to: $name", (row) => {
  const counted = count(row.said, { ceremony: ceremonyOf({ rules: {} }), needs: shares });
  expect(counted).toMatchObject({ shares: row.missing, met: row.met });
});

test("a custodian who gives a share counts as a custodian for the rules, or in the role that they approved in before", () => {
  const ceremony = ceremonyOf({ rules: { custodian: 1, officer: 1 } });
  const parts = { ceremony, needs: shares };
  expect(count(["alice#1", "bob#2"], parts)).toMatchObject({ shares: 0, met: false });
  expect(count(["alice:officer", "alice#1", "bob#2"], parts).met).toBe(true);
});

// A plan

test("a plan needs each custodian that it names, whatever their number", () => {
  const ceremony = ceremonyOf({ rules: {} });
  const needs: Needs = { everyone: ["alice", "bob", "erin"] };
  const two = count(["alice:custodian", "erin:custodian", "dora:witness"], { ceremony, needs });
  expect(two).toMatchObject({ people: ["bob"], met: false });
  const all = ["alice:custodian", "erin:custodian", "bob:officer"];
  expect(count(all, { ceremony, needs })).toMatchObject({ people: [], met: true });
  expect(count([...all, "!erin"], { ceremony, needs })).toMatchObject({
    met: false,
    rejected: true,
  });
});

// Rejections

test("ST-40: when n − k + 1 refuse, it is rejected, and stays so if k agree later", () => {
  const parts = { ceremony: ceremonyOf({ rules: {} }), needs: shares };
  expect(count(["!alice"], parts)).toMatchObject({ rejected: false });
  expect(count(["!alice", "!bob"], parts)).toMatchObject({ rejected: true });
  const later = ["!alice", "!bob", "carol#3", "alice#1", "bob#2"];
  expect(count(later, parts)).toMatchObject({ rejected: true, met: false });
  expect(count(["!alice", "bob#2", "carol#3"], parts)).toMatchObject({
    rejected: false,
    met: true,
  });
});

test.for<{ name: string; said: string[]; rejected: boolean }>([
  { name: "one witness of three", said: ["!dora"], rejected: false },
  { name: "one officer of two, where two are needed", said: ["!alice"], rejected: true },
  {
    name: "all witnesses who are not needed as officers",
    said: ["!carol", "!dora"],
    rejected: true,
  },
  { name: "a guest", said: ["!erin"], rejected: false },
  { name: "a stranger", said: ["!mallory"], rejected: false },
  {
    name: "nobody, but one of two officers has agreed as a witness",
    said: ["bob:witness"],
    rejected: true,
  },
  {
    name: "nobody, but everybody has agreed as an operator",
    said: ["alice:operator", "bob:operator", "carol:operator", "dora:operator"],
    rejected: true,
  },
])("it is rejected when the roles cannot be filled any more: $name", ({ said, rejected }) => {
  expect(count(said)).toMatchObject({ rejected });
});

test("a rejection stands, before and after the same person's approval", () => {
  const agreed = ["alice:officer", "bob:officer", "carol:witness"];
  expect(count(["!carol", ...agreed]).roles.get("witness")).toBe(1);
  expect(count([...agreed, "!carol"])).toMatchObject({ met: false });
  expect(count([...agreed, "!carol", "dora:witness"]).met).toBe(true);
});

// Another roster

test("ST-39: who has left the roster does not count any more", () => {
  const said = ["alice:officer", "bob:officer", "carol:witness"];
  expect(count(said).met).toBe(true);
  const roster = rosterOf({}, ["alice", "bob", "dora", "erin"]);
  expect(count(said, { roster })).toMatchObject({ met: false });
  const given = ["alice#1", "carol#3"];
  const parts = { ceremony: ceremonyOf({ rules: {} }), needs: shares };
  expect(count(given, parts).met).toBe(true);
  expect(count(given, { ...parts, roster })).toMatchObject({ shares: 1, met: false });
});

test.for<{ name: string; stated: Record<string, number>; today: Record<string, number> }>([
  { name: "of the roster today", stated: { officer: 1 }, today: { officer: 2, witness: 1 } },
  { name: "of the statement", stated: { officer: 2, witness: 1 }, today: { officer: 1 } },
  { name: "of both", stated: { officer: 2 }, today: { witness: 1 } },
])("the stricter rule counts, $name", ({ stated, today }) => {
  const roster = rosterOf({ ceremonies: { sign: today } });
  const ceremony = ceremonyOf({ rules: stated });
  const parts = { roster, ceremony };
  expect(count(["alice:officer", "bob:officer"], parts).met).toBe(false);
  expect(count(["alice:officer", "carol:witness"], parts).met).toBe(false);
  expect(count(["alice:officer", "bob:officer", "carol:witness"], parts).met).toBe(true);
});

// What was signed

function approval(change: object = {}, signer = "bob", namespace = "countersign-approval@v1") {
  return people.person(signer).signed(namespace, {
    type: "countersign/approval/v1",
    ceremony: digest,
    verdict: "approve",
    operator: "bob",
    role: "officer",
    log: seen,
    at: "2026-11-21T20:03:00Z",
    ...change,
  });
}

test("an approval says who agrees, in which role; a rejection who does not", () => {
  const agreed = checkApproval(rosterOf(), digest, approval());
  expect(verdictOf(agreed)).toEqual({ operator: "bob", role: "officer", agrees: true });
  const not = checkApproval(rosterOf(), digest, approval({ verdict: "reject", reason: "no" }));
  expect(verdictOf(not)).toEqual({ operator: "bob", role: "officer", agrees: false });
});

test.for<{ name: string; signed: () => ReturnType<typeof approval>; code: string }>([
  {
    name: "of another ceremony",
    signed: () => approval({ ceremony: `sha256:${"2".repeat(64)}` }),
    code: "approval-stale",
  },
  {
    name: "by somebody else's key",
    signed: () => approval({}, "carol"),
    code: "approval-unsigned",
  },
  {
    name: "for another purpose",
    signed: () => approval({}, "bob", "countersign-abort@v1"),
    code: "approval-unsigned",
  },
  {
    name: "of a stranger",
    signed: () => approval({ operator: "mallory" }),
    code: "operator-unknown",
  },
  {
    name: "to reject without a reason",
    signed: () => approval({ verdict: "reject" }),
    code: "approval-malformed",
  },
  { name: "with a member more", signed: () => approval({ also: 1 }), code: "approval-malformed" },
])("an approval $name is refused", ({ signed, code }) => {
  expect(() => checkApproval(rosterOf(), digest, signed())).toThrow(
    refused(code as never) as Error,
  );
});

test("ST-33: an approval with one other byte is refused", () => {
  const { statement, signature } = approval();
  for (const at of [0, 20, statement.length - 2]) {
    const other = Uint8Array.from(statement);
    other[at]! ^= 1;
    expect(() => checkApproval(rosterOf(), digest, { statement: other, signature })).toThrow(
      /approval/,
    );
  }
});

test("ST-39: an approval by a key that its operator has no more does not verify", () => {
  const signed = approval();
  const key = makeSshKey(join(folder, "bob-again"));
  const operators = people.operators.map((operator) =>
    operator.id === "bob" ? { ...operator, keys: [{ kind: "ssh" as const, key }] } : operator,
  );
  const roster = readRoster(people.roster(service, { operators }));
  expect(() => checkApproval(roster, digest, signed)).toThrow(
    refused("approval-unsigned") as Error,
  );
  const { statement } = signed;
  const signature = sshSign(join(folder, "bob-again"), "countersign-approval@v1", statement);
  expect(checkApproval(roster, digest, { statement, signature }).operator).toBe("bob");
});

test("a submission counts as a custodian's word, and for its share", () => {
  const common = {
    type: "countersign/submission/v1",
    unlock: digest,
    operator: "bob",
    log: seen,
    at: "2026-11-21T20:05:00Z",
  };
  const bob = people.person("bob");
  const give = bob.signed("countersign-submission@v1", {
    ...common,
    verdict: "give",
    share: { index: 2, file: digest },
  });
  const submission = checkSubmission(rosterOf(), digest, give);
  expect(verdictOfSubmission(submission)).toEqual({
    operator: "bob",
    role: "custodian",
    agrees: true,
    share: 2,
  });
  const refusal = bob.signed("countersign-submission@v1", {
    ...common,
    verdict: "refuse",
    reason: "no",
  });
  expect(verdictOfSubmission(checkSubmission(rosterOf(), digest, refusal))).toEqual({
    operator: "bob",
    role: "custodian",
    agrees: false,
  });
  expect(() => checkSubmission(rosterOf(), `sha256:${"2".repeat(64)}`, give)).toThrow(
    refused("submission-stale") as Error,
  );
  const unsigned = { statement: give.statement, signature: approval().signature };
  expect(() => checkSubmission(rosterOf(), digest, unsigned)).toThrow(
    refused("submission-unsigned") as Error,
  );
});
