import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openNote } from "../../src/audit/signed-note.ts";
import { policyDigest } from "../../src/custody/grant.ts";
import { startKeeper } from "../../src/custody/keeper-client.ts";
import type { RosterDocument, RosterVersion } from "../../src/custody/roster.ts";
import { readCeremony, type CeremonyStatement } from "../../src/custody/statement.ts";
import type { ErrorCode } from "../../src/errors.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import { json, makePeople } from "../support/people.ts";
import { refused } from "../support/refused.ts";
import { home, start, startNew, useKeeperHome } from "./keeper-fixture.ts";
import { digestOf, leafTbs, policyText, TestLog } from "./keeper-home.ts";
import { eventually, Keeping, signing, type Change } from "./keeper-people.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

useKeeperHome("alice", "bob", "carol");

const rules: RosterDocument["rules"] = {
  roster: 2,
  policy: 2,
  resume: 2,
  ceremonies: { window: { officer: 2, witness: 1 } },
};

async function keeping(): Promise<Keeping> {
  home.found({ rules });
  const { keeper, log } = await startNew();
  return new Keeping(home, keeper, log);
}

function statementIn(note: string): CeremonyStatement {
  const { text } = openNote(note, [home.service.identity]);
  return readCeremony(Buffer.from(text.slice(0, -1)));
}

function window(change: object = {}): NonNullable<CeremonyStatement["window"]> {
  const now = Date.now();
  return {
    operations: [{ operation: "crl", max: 3 }],
    notBefore: new Date(now).toISOString(),
    notAfter: new Date(now + 8 * HOUR).toISOString(),
    idleSeconds: 3600,
    ...change,
  };
}

// Statements

test("a statement says what was proposed, under which roster, policy, rules and head of the log", async () => {
  const all = await keeping();
  const notAfter = new Date(Date.now() + 30 * DAY - 1000);
  const limits = window();
  const { digest, note } = await all.propose({
    kind: "window",
    keyId: home.keyId,
    window: limits,
    notAfter,
    requestedBy: "bob",
    reason: "nightly CRLs – ±",
  });
  const statement = statementIn(note);
  expect(statement).toEqual({
    type: "countersign/ceremony/v1",
    id: expect.stringMatching(/^[0-9a-f]{32}$/) as string,
    service: "test.example",
    kind: "window",
    keyId: home.keyId,
    window: limits,
    rules: { officer: 2, witness: 1 },
    roster: all.roster,
    policy: policyDigest(parsePolicy(policyText, "policy")),
    notAfter: notAfter.toISOString(),
    log: { origin: "test.example/audit", ...all.log.head },
    requestedBy: "bob",
    reason: "nightly CRLs – ±",
  });
  expect(digest).toBe(digestOf(json(statement)));
  const again = await all.propose({ kind: "window", keyId: home.keyId, window: limits });
  expect(statementIn(again.note).id).not.toBe(statement.id);
});

test("stock tools verify a statement and take its digest, as CUSTODY.md 8.3 has it", async () => {
  const all = await keeping();
  const { digest, note } = await all.propose({ kind: "generate", plan: all.plan() });
  const at = (name: string): string => join(home.directory, name);
  writeFileSync(at("statement.note"), note);
  const script = `set -euo pipefail
cd "$1"; VKEY=$2
sed '/^$/,$d' statement.note > statement.txt
{ printf 302a300506032b6570032100 | xxd -r -p; printf %s "\${VKEY#*+*+}" | base64 -d | tail -c 32; } > identity.der
sed -n "s|^— \${VKEY%%+*} ||p" statement.note | base64 -d | tail -c 64 > statement.sig
openssl pkeyutl -verify -pubin -keyform DER -inkey identity.der -rawin -in statement.txt -sigfile statement.sig >&2
printf 'sha256:%s' "$(tr -d '\\n' < statement.txt | sha256sum | cut -d' ' -f1)"`;
  const run = (): string =>
    execFileSync("bash", ["-c", script, "bash", home.directory, home.service.identity], {
      stdio: ["ignore", "pipe", "pipe"],
    }).toString();
  expect(run()).toBe(digest);
  writeFileSync(at("statement.note"), note.replace("a test", "A test"));
  expect(run).toThrow();
});

test.for<{ name: string; proposal: () => object; code: ErrorCode; detail?: RegExp }>([
  {
    name: "a kind that does not exist yet",
    proposal: () => ({ kind: "policy", plan: Buffer.from("{}") }),
    code: "ceremony-refused",
  },
  {
    name: "what no rule and no seal stands before",
    proposal: () => signing(home.keyId, [leafTbs(home)]),
    code: "ceremony-refused",
    detail: /no rule/,
  },
  {
    name: "a proposer who is not in the roster",
    proposal: () => ({ kind: "window", requestedBy: "mallory" }),
    code: "operator-unknown",
  },
  {
    name: "a key that is not there",
    proposal: () => ({ kind: "window", keyId: "0".repeat(64) }),
    code: "key-unknown",
  },
  {
    name: "one that is over already",
    proposal: () => ({ kind: "window", notAfter: new Date(Date.now() - 1000) }),
    code: "ceremony-refused",
    detail: /notAfter/,
  },
  {
    name: "one of more than 30 days",
    proposal: () => ({ kind: "window", notAfter: new Date(Date.now() + 30 * DAY + HOUR) }),
    code: "ceremony-refused",
    detail: /notAfter/,
  },
  {
    name: "a window of more than a day",
    proposal: () => ({
      kind: "window",
      window: window({ notAfter: new Date(Date.now() + DAY + HOUR).toISOString() }),
    }),
    code: "statement-malformed",
  },
  {
    name: "a window that is over already",
    proposal: () => ({
      kind: "window",
      window: window({
        notBefore: new Date(Date.now() - 2 * HOUR).toISOString(),
        notAfter: new Date(Date.now() - HOUR).toISOString(),
      }),
    }),
    code: "ceremony-refused",
  },
  {
    name: "a window that may lie idle for longer than 8 hours",
    proposal: () => ({ kind: "window", window: window({ idleSeconds: 28_801 }) }),
    code: "ceremony-refused",
    detail: /8 hours/,
  },
  {
    name: "a window with artefacts",
    proposal: () => ({
      kind: "window",
      artefacts: [{ tbs: digestOf(Buffer.alloc(0)), lint: digestOf(Buffer.alloc(0)) }],
    }),
    code: "statement-malformed",
  },
  {
    name: "a resume of what is not held",
    proposal: () => ({
      kind: "resume",
      plan: json({
        type: "countersign/resume/v1",
        service: "test.example",
        release: [home.keyId],
      }),
    }),
    code: "ceremony-refused",
    detail: /not held/,
  },
  {
    name: "a resume of another service",
    proposal: () => ({
      kind: "resume",
      plan: json({ type: "countersign/resume/v1", service: "other.example", release: "all" }),
    }),
    code: "ceremony-refused",
  },
  {
    name: "a reshare of a key without shares",
    proposal: () => ({ kind: "reshare", keyId: home.keyId, plan: Buffer.from("{}") }),
    code: "ceremony-refused",
  },
])("$name is not stated", async ({ proposal, code, detail }) => {
  const all = await keeping();
  const whole = proposal() as { kind: string };
  const common = whole.kind === "window" ? { keyId: home.keyId, window: window() } : {};
  await expect(all.propose({ ...common, ...whole } as never)).rejects.toEqual(
    refused(code, detail),
  );
});

test("an operator proposes at most 20 ceremonies a day, and each has their own 20", async () => {
  const all = await keeping();
  const proposal = { kind: "window", keyId: home.keyId, window: window() } as const;
  await Promise.all(Array.from({ length: 20 }, () => all.propose(proposal)));
  await expect(all.propose(proposal)).rejects.toEqual(refused("rate-limited"));
  await expect(all.propose({ ...proposal, requestedBy: "bob" })).resolves.toBeDefined();
});

// Plans

test.for<{ name: string; plan: (all: Keeping) => Change; detail?: RegExp }>([
  { name: "for another service", plan: () => ({ service: "other.example" }) },
  {
    name: "of another roster",
    plan: () => ({ roster: digestOf(Buffer.alloc(0)) }),
    detail: /roster/,
  },
  {
    name: "with somebody who is not in the roster",
    plan: (all) => ({
      custodians: all.home.people.operators.map(({ id, recipient }) => ({
        operator: id === "carol" ? "mallory" : id,
        recipient,
        role: "custodian",
      })),
    }),
    detail: /mallory/,
  },
  {
    name: "with another recipient than the roster has",
    plan: (all) => ({
      custodians: all.home.people.operators.map(({ id, recipient }) => ({
        operator: id,
        recipient: id === "carol" ? `${recipient!.slice(0, -6)}qqqqqq` : recipient,
        role: "custodian",
      })),
    }),
    detail: /carol/,
  },
  { name: "for a key in use, without saying so", plan: () => ({ key: { use: home.keyId } }) },
  { name: "whose threshold is beyond reach", plan: () => ({ threshold: 4 }) },
])("a plan $name is not stated", async ({ plan, detail }) => {
  const all = await keeping();
  await expect(all.propose({ kind: "generate", plan: all.plan(plan(all)) })).rejects.toEqual(
    refused("plan-invalid", detail),
  );
});

// The roster

test("until the roster is shown, nobody's word counts", async () => {
  home.found({ rules });
  const keeper = await startKeeper({ configFile: home.configFile });
  try {
    await keeper.initialise();
    const { operators, roster, genesis } = await keeper.status();
    expect({ operators, roster, genesis }).toEqual({
      operators: [],
      roster: null,
      genesis: digestOf(home.versions[0]!.document),
    });
    const all = new Keeping(home, keeper, new TestLog());
    const [lock, signature] = all.locking("alice", "lock", { keyId: home.keyId });
    await expect(keeper.lock(lock, signature)).rejects.toEqual(refused("operator-unknown"));
    await expect(
      all.propose({ kind: "window", keyId: home.keyId, window: window() }),
    ).rejects.toEqual(refused("ceremony-refused", /roster/));
    await keeper.rosters(home.versions);
    const status = await keeper.status();
    expect(status.roster).toEqual({ version: 1, digest: genesis });
    expect(status.operators.map(({ id, roles }) => [id, roles])).toEqual(
      ["alice", "bob", "carol"].map((id) => [id, ["officer", "witness"]]),
    );
    await keeper.lock(lock, signature);
  } finally {
    await keeper.close();
  }
});

test("a roster that people agreed to is in force at once, and shown again after a restart", async () => {
  const all = await keeping();
  const operators = home.people.operators.slice(0, 2);
  await all.changeRoster({ operators, rules: { ...rules, ceremonies: {} } }, ["alice", "carol"]);
  expect((await all.keeper.status()).operators.map(({ id }) => id)).toEqual(["alice", "bob"]);
  await all.keeper.roster(home.versions[1]!); // again
  const lock = all.locking("carol", "lock", { keyId: home.keyId });
  await expect(all.keeper.lock(...lock)).rejects.toEqual(refused("operator-unknown"));
  await all.keeper.close();
  const again = await start();
  expect((await again.status()).roster).toEqual({ version: 2, digest: all.roster });
});

test("ST-69: a roster that too few agreed to, or whose new people have not signed, is refused", async () => {
  const all = await keeping();
  const document = all.nextRoster({ rules: { ...rules, roster: 1 } });
  const few = await all.agreeToRoster(document, ["bob"]);
  await expect(all.keeper.roster(few)).rejects.toEqual(refused("roster-unsigned"));
  const more = await all.agreeToRoster(document, ["bob", "carol"]);
  const other = { ...more, document: all.nextRoster({ rules: { ...rules, roster: 3 } }) };
  await expect(all.keeper.roster(other)).rejects.toEqual(refused("roster-invalid"));
  const { ceremony: _, ...bare } = more;
  await expect(all.keeper.roster(bare)).rejects.toEqual(refused("roster-invalid"));
  expect((await all.keeper.status()).roster).toMatchObject({ version: 1 });

  const newcomers = makePeople(join(home.directory, "newcomers"), ["dora"]);
  const withDora = all.nextRoster({
    operators: [...home.people.operators, ...newcomers.operators],
  });
  const signatures = newcomers.version(withDora).signatures;
  await expect(all.propose({ kind: "roster", plan: withDora })).rejects.toEqual(
    refused("roster-unsigned"),
  );
  const ceremony = await all.agree({ kind: "roster", plan: withDora, signatures }, [
    "alice",
    "bob",
  ]);
  await expect(all.keeper.roster({ document: withDora, signatures: [], ceremony })).rejects.toEqual(
    refused("roster-unsigned"),
  );
  await all.keeper.roster({ document: withDora, signatures, ceremony });
  expect((await all.keeper.status()).roster).toMatchObject({ version: 2 });
});

test("a roster that names other keys of the service is not stated", async () => {
  const all = await keeping();
  const service = { ...home.service, log: home.service.identity };
  await expect(all.propose({ kind: "roster", plan: all.nextRoster({ service }) })).rejects.toEqual(
    refused("roster-invalid", /log key/),
  );
});

test("ST-73: a chain of rosters that ends before the one that the keeper saw, or differs there, is rolled back", async () => {
  const all = await keeping();
  const [genesis] = home.versions;
  const first = await all.agreeToRoster(all.nextRoster({ rules: { ...rules, resume: 1 } }), [
    "alice",
    "bob",
  ]);
  const other = await all.agreeToRoster(all.nextRoster({ rules: { ...rules, resume: 3 } }), [
    "alice",
    "bob",
  ]);
  await all.keeper.roster(first);
  await all.keeper.close();
  const show = async (versions: RosterVersion[]): Promise<void> => {
    const keeper = await startKeeper({ configFile: home.configFile });
    try {
      await keeper.rosters(versions);
    } catch (error) {
      const unshown = new Keeping(home, keeper, all.log);
      const lock = unshown.locking("alice", "lock", { keyId: home.keyId });
      await expect(keeper.lock(...lock)).rejects.toEqual(refused("rolled-back"));
      throw error;
    } finally {
      await keeper.close();
    }
  };
  await expect(show([])).rejects.toEqual(refused("rolled-back"));
  await expect(show([genesis!])).rejects.toEqual(refused("rolled-back"));
  await expect(show([genesis!, other])).rejects.toEqual(refused("rolled-back"));
  await expect(show([genesis!, first])).resolves.toBeUndefined();
});

test("ST-68: a roster that was edited in the database, or a genesis that is another, is refused", async () => {
  const all = await keeping();
  await all.changeRoster({ rules: { ...rules, resume: 1 } }, ["alice", "bob"]);
  await all.keeper.close();
  const [genesis, second] = home.versions as [RosterVersion, RosterVersion];
  const edited = (version: RosterVersion, from: string, to: string): RosterVersion => ({
    ...version,
    document: Buffer.from(Buffer.from(version.document).toString().replace(from, to)),
  });
  const chains: [RosterVersion[], ErrorCode][] = [
    [[edited(genesis, '"roster":2', '"roster":1'), second], "roster-invalid"],
    [[genesis, edited(second, '"policy":2', '"policy":1')], "roster-invalid"],
    [[genesis, second, edited(second, '"version":2', '"version":3')], "roster-invalid"],
    [[{ ...genesis, signatures: genesis.signatures.slice(1) }, second], "roster-unsigned"],
  ];
  for (const [versions, code] of chains) {
    // oxlint-disable-next-line no-await-in-loop -- one keeper after the other
    const keeper = await startKeeper({ configFile: home.configFile });
    // oxlint-disable-next-line no-await-in-loop -- as above
    await expect(keeper.rosters(versions)).rejects.toEqual(refused(code));
    // oxlint-disable-next-line no-await-in-loop -- as above
    expect((await keeper.status()).roster).toBeNull();
    // oxlint-disable-next-line no-await-in-loop -- as above
    await keeper.close();
  }
});

test("ST-38: a roster is not changed by a ceremony whose time is over", async () => {
  const all = await keeping();
  const document = all.nextRoster({ rules: { ...rules, resume: 1 } });
  const soon = new Date(Date.now() + 1500);
  const ceremony = await all.agree({ kind: "roster", plan: document, notAfter: soon }, [
    "alice",
    "bob",
  ]);
  await eventually(() => new Date() > soon).toBe(true);
  await expect(all.keeper.roster({ document, signatures: [], ceremony })).rejects.toEqual(
    refused("ceremony-closed"),
  );
});

// The state file

test("a state file from before there were rosters is read, and has them from the next change on", async () => {
  const all = await keeping();
  await all.keeper.close();
  const state = JSON.parse(readFileSync(home.stateFile, "utf8")) as Record<string, unknown>;
  for (const member of ["roster", "panic", "seals", "done"]) delete state[member];
  writeFileSync(home.stateFile, JSON.stringify(state));
  const again = new Keeping(home, await start(), all.log);
  await again.changeRoster({ rules: { ...rules, resume: 1 } }, ["alice", "bob"]);
  expect(JSON.parse(readFileSync(home.stateFile, "utf8"))).toMatchObject({
    roster: { version: 2 },
    panic: null,
    seals: {},
  });
});
