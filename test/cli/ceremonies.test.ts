import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { canonicalJson, type Json } from "../../src/audit/canonical-json.ts";
import { digestOf } from "../../src/audit/digest.ts";
import { encodeEntry } from "../../src/audit/entry.ts";
import { signNote } from "../../src/audit/signed-note.ts";
import { pgpWords } from "../../src/cli/pgp-words.ts";
import { readRoster, type Roster } from "../../src/custody/roster.ts";
import { decodeShare, encodeShare } from "../../src/custody/sealed/share.ts";
import { newUnlockIdentity } from "../../src/custody/sealed/share-file.ts";
import { logSigner, MemoryLog } from "../support/log.ts";
import { countersign, countersignJson, path, write, type Run } from "./command.ts";
import {
  digestOfNote,
  note,
  startPeopleService,
  stateOf,
  type PeopleService,
  type Person,
} from "./people-service.ts";
import { atTerminal } from "./terminal.ts";

let service: PeopleService;
let [alice, bob, carol]: Person[] = [];

beforeAll(async () => {
  service = await startPeopleService(["alice", "bob", "carol"]);
  [alice, bob, carol] = service.people;
  await service.deal();
});
afterAll(() => service.sites.close());
beforeEach(() => {
  service.said.length = 0;
  service.shares.length = 0;
  service.ceremonies.clear();
  for (const { home } of service.people) {
    for (const name of ["state.json", "shares"]) {
      rmSync(join(home, ".config", "countersign", name), { recursive: true, force: true });
    }
  }
});

function as(person: Person, ...parameters: string[]): Promise<Run> {
  return countersign(parameters, { env: service.env(person) });
}

function json<T>(person: Person, ...parameters: string[]): Promise<T> {
  return countersignJson<T>(parameters, { env: service.env(person) });
}

/** What every refusal has: an exit code, its code, and that nothing was said to the service. */
function expectRefused(run: Run, code: string): void {
  expect(run.stderr).toContain(`${code}: `);
  expect(run.status).toBe(1);
  expect(service.said).toEqual([]);
}

async function fetchedShare(person: Person): Promise<string> {
  const { keyId } = service.dealt.at(-1)!.shareSet;
  const { file } = await json<{ file: string }>(person, "share", "fetch", keyId);
  return file;
}

test("a ceremony is shown in full, then approved with a signature that the roster vouches for", async () => {
  const { id, digest, statement } = service.ceremony();
  const run = await as(bob!, "approve", id, "--yes");
  expect(run).toMatchObject({ status: 0 });
  for (const words of [
    "kind sign",
    statement.reason,
    statement.requestedBy,
    statement.artefacts![0]!.tbs,
    statement.notAfter,
    digest,
    digest.slice(7, 27).match(/.{4}/g)!.join(" "),
    pgpWords(Buffer.from(digest.slice(7, 27), "hex")).join(" "),
  ]) {
    expect(run.stdout).toContain(words);
  }
  expect(service.said).toEqual([
    {
      what: "approval",
      statement: expect.objectContaining({
        ceremony: digest,
        verdict: "approve",
        operator: "bob",
        role: "operator",
        log: { size: statement.log.size, root: statement.log.root },
      }) as unknown,
    },
  ]);
});

test("nothing is signed without a yes where nobody can be asked", async () => {
  const { id } = service.ceremony();
  const run = await as(bob!, "approve", id);
  expect(run).toMatchObject({ status: 2 });
  expect(run.stderr).toContain("--yes");
  expect(service.said).toEqual([]);
});

test("a rejection, an abort and a refusal carry their reason", async () => {
  const { id, digest } = service.ceremony();
  const unlock = service.unlock(id);
  await json(bob!, "reject", id, "--reason", "wrong path length", "--yes");
  await json(carol!, "abort", digest, "--reason", "proposed twice", "--yes");
  await json(carol!, "refuse", unlock.id, "--reason", "not agreed", "--yes");
  expect(service.said).toMatchObject([
    { what: "approval", statement: { verdict: "reject", reason: "wrong path length" } },
    { what: "abort", statement: { ceremony: digest, reason: "proposed twice" } },
    {
      what: "submission",
      statement: { verdict: "refuse", reason: "not agreed", unlock: unlock.digest },
    },
  ]);
  expect((await as(bob!, "reject", id, "--yes")).status).toBe(2);
});

test.for<{ name: string; change: object; code: string }>([
  {
    name: "a rehearsal",
    change: { type: "countersign/rehearsal-ceremony/v1" },
    code: "statement-refused",
  },
  { name: "an unlock", change: { type: "countersign/unlock/v1" }, code: "statement-refused" },
  {
    name: "another service's",
    change: { service: "other.example.com" },
    code: "statement-refused",
  },
  {
    name: "one whose time is over",
    change: { notAfter: "2026-01-01T00:00:00Z" },
    code: "ceremony-closed",
  },
  {
    name: "of another log",
    change: { log: { origin: "x", size: 0, root: `${"A".repeat(43)}=` } },
    code: "statement-refused",
  },
  {
    name: "of a log that never was",
    change: { log: { origin: "ca.example.com/audit", size: 5, root: `${"A".repeat(43)}=` } },
    code: "log-forked",
  },
  {
    name: "of a roster that nobody knows",
    change: { roster: `sha256:${"0".repeat(64)}` },
    code: "rolled-back",
  },
  { name: "one with a member more", change: { note: "x" }, code: "statement-malformed" },
])("a statement is not signed: $name", async ({ change, code }) => {
  const { id } = service.ceremony(change);
  expectRefused(await as(bob!, "approve", id, "--yes"), code);
});

test("a statement is not signed unless the pinned key signed it, and is the one asked for", async () => {
  const { id, statement } = service.ceremony();
  const text = `${canonicalJson(statement as unknown as Json)}\n`;
  const stranger = logSigner("ca.example.com/keeper", "07".repeat(32));
  service.ceremonies.set(id, signNote(text, stranger));
  expectRefused(await as(bob!, "approve", id, "--yes"), "signature-invalid");
  service.ceremonies.set(id, note({ ...statement, reason: "a" }).replace('"a"', '"b"'));
  expectRefused(await as(bob!, "approve", id, "--yes"), "signature-invalid");
  const other = service.ceremony();
  service.ceremonies.set(id, service.ceremonies.get(other.id)!);
  expectRefused(await as(bob!, "approve", id, "--yes"), "statement-refused");
});

test("without a pinned identity key nothing is signed", async () => {
  const { id } = service.ceremony();
  const env = service.env(bob!);
  const file = join(bob!.home, ".config", "countersign", "config.json");
  const { identityKey: _, ...rest } = JSON.parse(readFileSync(file, "utf8")) as {
    identityKey: string;
  };
  writeFileSync(file, JSON.stringify(rest));
  const run = await countersign(["approve", id, "--yes"], { env });
  expect(run).toMatchObject({ status: 2 });
  expect(run.stderr).toContain("identityKey");
});

test("the bytes to be signed are decoded from a file, which must be one of the statement's", async () => {
  const tbs = Buffer.from("3003020101", "hex");
  write("good.tbs", tbs);
  write("other.tbs", "other");
  const { id } = service.ceremony({ artefacts: [{ tbs: digestOf(tbs), lint: digestOf(tbs) }] });
  const unseen = await as(bob!, "approve", id, "--yes");
  expect(unseen.stdout).toContain("the bytes of 1 of 1 artefacts were not looked at");
  service.said.length = 0;
  expectRefused(
    await as(bob!, "approve", id, "--yes", "--artefact", path("other.tbs")),
    "artefact-unknown",
  );
  const seen = await as(bob!, "approve", id, "--yes", "--artefact", path("good.tbs"));
  expect(seen.stdout).not.toContain("not looked at");
});

test("a document is shown only if it is the one that the statement names", async () => {
  const plan = Buffer.from(
    canonicalJson({ type: "countersign/resume/v1", service: "ca.example.com", release: "all" }),
  );
  const { id } = service.ceremony({
    kind: "resume",
    keyId: undefined,
    artefacts: undefined,
    plan: digestOf(plan),
  });
  service.plans.set(id, plan);
  const run = await as(bob!, "approve", id, "--yes");
  expect(run.stdout).toContain("this also ends a panic");
  service.said.length = 0;
  service.plans.set(id, Buffer.from("{}"));
  expectRefused(await as(bob!, "approve", id, "--yes"), "statement-refused");
});

test("a plan that sends somebody's share elsewhere is not approved by them", async () => {
  const { recipient } = await newUnlockIdentity();
  const [own] = service.dealt;
  const custodians = own!.shareSet.custodians.map(({ operator, recipient: its, role }) => ({
    operator,
    recipient: operator === "bob" ? recipient : its,
    role,
  }));
  const plan = Buffer.from(
    canonicalJson({
      ...{ type: "countersign/plan/v1", service: "ca.example.com", issuer: "CN=Root" },
      ...{ key: { generate: "P-256" }, payload: "pkcs8", epoch: 1, previous: null },
      ...{ threshold: 2, shareCount: 3, custodians, reason: "a root" },
      roster: service.rosters[0]!.digest,
    }),
  );
  const { id } = service.ceremony({
    kind: "generate",
    keyId: undefined,
    artefacts: undefined,
    plan: digestOf(plan),
  });
  service.plans.set(id, plan);
  expectRefused(await as(bob!, "approve", id, "--yes"), "recipient-refused");
  expect((await as(carol!, "approve", id, "--yes")).status).toBe(0);
});

test("a share is fetched, confirmed with its proof key, and proved again in a drill", async () => {
  const { keyId } = service.dealt[0]!.shareSet;
  const run = await as(bob!, "share", "confirm", "root", "--yes");
  expect(run).toMatchObject({ status: 0 });
  const folder = join(bob!.home, ".config", "countersign", "shares");
  expect(statSync(folder).mode & 0o777).toBe(0o700);
  const [file] = readdirSync(join(folder, "ca.example.com")).filter((name) => name.endsWith("age"));
  expect(statSync(join(folder, "ca.example.com", file!)).mode & 0o777).toBe(0o600);
  await json(bob!, "share", "prove", keyId, "--yes");
  expect(service.said).toMatchObject([
    { what: "confirmation", statement: { operator: "bob", index: 2 } },
    { what: "drill", statement: { operator: "bob", index: 2 } },
  ]);
});

test("ST-17: stock age opens what was fetched, and the service what stock age encrypted", async () => {
  const file = await fetchedShare(bob!);
  const text = execFileSync("age", ["-d", "-i", join(bob!.home, "age.key"), file]).toString();
  expect(text).toMatch(/^CSSHARE1[A-Z0-9]{77}$/m);
  const { id } = service.ceremony();
  const unlock = service.unlock(id);
  const copy = path("bob.copy.age");
  execFileSync("age", ["-r", bob!.recipient, "-o", copy], { input: text });
  await json(bob!, "submit", unlock.id, "--share", copy, "--yes");
  expect(service.shares).toEqual([2]);
});

test("ST-16: a share file that two people can open is refused, and not kept", async () => {
  const { keyId } = service.dealt[0]!.shareSet;
  const good = await fetchedShare(bob!);
  const text = execFileSync("age", ["-d", "-i", join(bob!.home, "age.key"), good]);
  const two = execFileSync("age", ["-r", bob!.recipient, "-r", carol!.recipient], { input: text });
  rmSync(good);
  rmSync(join(bob!.home, ".config", "countersign", "state.json"));
  const [dealt] = service.dealt;
  const custodians = dealt!.shareSet.custodians.map((one) =>
    one.operator === "bob" ? { ...one, file: digestOf(two) } : one,
  );
  const forged = note({ ...dealt!.shareSet, custodians });
  service.dealt.push({ ...dealt!, note: forged, digest: digestOfNote(forged) });
  service.shareFile = two;
  try {
    const run = await as(bob!, "share", "fetch", keyId);
    expectRefused(run, "share-unreadable");
    expect(run.stderr).toContain("2 recipients");
    expect(() => statSync(good)).toThrow("ENOENT");
  } finally {
    service.shareFile = undefined;
    service.dealt.pop();
  }
  write("two.age", two);
  rmSync(join(bob!.home, ".config", "countersign", "state.json"));
  const unlock = service.unlock(service.ceremony().id);
  const run = await as(bob!, "submit", unlock.id, "--share", path("two.age"), "--yes");
  expectRefused(run, "share-unreadable");
});

test("a file that the share set does not name is not kept", async () => {
  service.shareFile = service.dealt[0]!.files[0]!;
  try {
    const run = await as(bob!, "share", "fetch", service.dealt[0]!.shareSet.keyId);
    expectRefused(run, "share-foreign");
  } finally {
    service.shareFile = undefined;
  }
});

test("a share is given: encrypted to the unlock, bound to it, and right", async () => {
  await as(bob!, "share", "confirm", "root", "--yes");
  service.said.length = 0;
  const ceremony = service.ceremony();
  const unlock = service.unlock(ceremony.id);
  const run = await as(bob!, "submit", unlock.id, "--yes");
  expect(run).toMatchObject({ status: 0 });
  expect(run.stdout).toContain(ceremony.statement.reason);
  expect(run.stdout).toContain(service.unlockIdentity.recipient);
  expect(service.shares).toEqual([2]);
  expect(service.said).toMatchObject([
    { what: "submission", statement: { unlock: unlock.digest, share: { index: 2 } } },
  ]);
});

test.for<{ name: string; code: string; text: (shares: string[]) => string }>([
  {
    name: "mistyped",
    code: "share-checksum",
    text: ([, own]) => own!.replace(/.$/, (last) => (last === "Q" ? "P" : "Q")),
  },
  { name: "another's", code: "share-not-yours", text: ([first]) => first! },
  {
    name: "of another key",
    code: "share-foreign",
    text: () =>
      "CSSHARE1QYPQXPGQQQQQWMLWEJXF3VGV04PGCLCN8C5U3344KDXZ7RZ8MXNGWZW2NY0Z755A73CA2FGVH99LV",
  },
  { name: "two shares", code: "share-malformed", text: (shares) => shares.join("\n") },
  {
    name: "well-formed and wrong",
    code: "share-wrong",
    text: ([, own]) => {
      const { x, y, ...share } = decodeShare(own!);
      y[7]! ^= 1;
      const keyId = Buffer.from(service.dealt[0]!.shareSet.keyId, "hex");
      return encodeShare({ ...share, keyId }, { x, y });
    },
  },
])(
  "ST-15: a share that is $name never leaves, and nothing of it is shown",
  async ({ text, code }) => {
    const shares = service.people.map((person, place) => {
      write(`${person.id}.age`, service.dealt[0]!.files[place]!);
      return execFileSync("age", [
        "-d",
        "-i",
        join(person.home, "age.key"),
        path(`${person.id}.age`),
      ])
        .toString()
        .split("\n")
        .at(-2)!;
    });
    const wrong = text(shares);
    const file = path("wrong.age");
    writeFileSync(
      file,
      execFileSync("age", ["-r", bob!.recipient], { input: `# a comment\n${wrong}\n` }),
    );
    const unlock = service.unlock(service.ceremony().id);
    const run = await as(bob!, "submit", unlock.id, "--share", file, "--yes");
    expectRefused(run, code);
    const words = wrong.replaceAll("\n", "").slice("CSSHARE1".length);
    const shown = `${run.stdout}${run.stderr}`.toUpperCase();
    for (let start = 0; start + 8 <= words.length; start++) {
      expect(shown).not.toContain(words.slice(start, start + 8));
    }
  },
);

test("ST-67: an older epoch is refused, and so is another share set of the same one", async () => {
  const keep = service.dealt.slice();
  const first = service.dealt[0]!;
  await fetchedShare(bob!);
  const second = await service.deal();
  expect(second.shareSet.epoch).toBe(2);
  await fetchedShare(bob!);
  const unlock = service.unlock(service.ceremony().id);
  await json(bob!, "submit", unlock.id, "--yes");
  expect(service.shares).toEqual([2]);
  expect(JSON.stringify(stateOf(bob!))).toContain('"epoch":2');
  service.said.length = 0;
  // The old rows are written back: the statement shows the old epoch.
  service.dealt.splice(0, service.dealt.length, first);
  const old = service.unlock(service.ceremony().id);
  const run = await as(bob!, "submit", old.id, "--yes");
  expectRefused(run, "rolled-back");
  expect(run.stderr).toContain("epoch 1");
  expectRefused(await as(bob!, "share", "fetch", "root"), "rolled-back");
  const other = { ...second, digest: `sha256:${"0".repeat(64)}` };
  service.dealt.push(other);
  const forged = service.unlock(service.ceremony().id);
  service.dealt.pop();
  expectRefused(await as(bob!, "submit", forged.id, "--yes"), "rolled-back");
  service.dealt.splice(0, service.dealt.length, ...keep);
  // Who has seen nothing yet cannot know.
  const { file } = await json<{ file: string }>(carol!, "share", "fetch", "root");
  expect(file).toContain("epoch1");
});

test("ST-74: a log that is shorter than the one seen, or another one, is refused before anything is signed", async () => {
  const { id } = service.ceremony();
  await json(bob!, "approve", id, "--yes");
  service.said.length = 0;
  const { log } = service.sites.domain;
  const seen = { leaves: log.leaves.slice(), checkpoint: log.checkpoint.bind(log) };
  log.append([seen.leaves[0]!]);
  await json(bob!, "approve", service.ceremony().id, "--yes");
  service.said.length = 0;
  const cut = new MemoryLog();
  cut.append(seen.leaves);
  const fork = new MemoryLog();
  fork.append([...seen.leaves.toReversed(), ...seen.leaves]);
  const grown = new Map(log.tiles);
  for (const [other, code] of [
    [cut, "rolled-back"],
    [fork, "log-forked"],
  ] as const) {
    log.checkpoint = () => other.checkpoint();
    log.tiles.clear();
    for (const [name, tile] of other.tiles) log.tiles.set(name, tile);
    expectRefused(await as(bob!, "approve", id, "--yes"), code);
  }
  // A lock is never refused for that; the alarm is raised beside it.
  const locked = await as(bob!, "lock", "root", "--yes");
  expect(locked).toMatchObject({ status: 0 });
  expect(locked.stderr).toContain("ALARM");
  expect(service.said).toMatchObject([{ what: "lock" }]);
  log.checkpoint = seen.checkpoint;
  log.tiles.clear();
  for (const [name, tile] of grown) log.tiles.set(name, tile);
});

test("a log that has grown since is taken, and what was seen moves on with it", async () => {
  await json(bob!, "approve", service.ceremony().id, "--yes");
  const before = JSON.stringify(stateOf(bob!));
  service.sites.domain.log.append([
    encodeEntry({
      type: "access.denied",
      at: new Date(),
      actor: { kind: "service", id: "service" },
      subject: {},
      data: { count: 1, since: new Date(0).toISOString() },
    }),
  ]);
  await json(bob!, "approve", service.ceremony().id, "--yes");
  expect(JSON.stringify(stateOf(bob!))).not.toBe(before);
});

test("ST-68: a roster that was replaced before is refused; a newer one that follows it is taken", async () => {
  const [first] = service.rosters as [Roster];
  /** A version after another, told from its sisters by its rule for `resume`. */
  const next = (before: Roster, resume: number): Roster =>
    readRoster(
      Buffer.from(
        canonicalJson({
          ...before.document,
          version: before.document.version + 1,
          previous: before.digest,
          rules: { ...before.document.rules, resume },
        } as unknown as Json),
      ),
    );
  const show = (...rosters: Roster[]): void => {
    service.rosters.splice(0, service.rosters.length, ...rosters);
  };
  const old = service.ceremony();
  await json(bob!, "approve", old.id, "--yes");
  const second = next(first, 2);
  show(first, second);
  await json(bob!, "approve", service.ceremony().id, "--yes");
  service.said.length = 0;
  expectRefused(await as(bob!, "approve", old.id, "--yes"), "rolled-back");
  show(first);
  expectRefused(await as(bob!, "approve", service.ceremony().id, "--yes"), "rolled-back");
  // Longer than what was seen, and another one.
  const other = next(first, 3);
  show(first, other, next(other, 3));
  expectRefused(await as(bob!, "approve", service.ceremony().id, "--yes"), "rolled-back");
  show(first, second, next(other, 3));
  expectRefused(await as(bob!, "approve", service.ceremony().id, "--yes"), "statement-refused");
  show(first, second, next(second, 3));
  await json(bob!, "approve", service.ceremony().id, "--yes");
  show(first);
});

test("a state file that is damaged stops everything that signs, and says why", async () => {
  const { id } = service.ceremony();
  await json(bob!, "approve", id, "--yes");
  const file = join(bob!.home, ".config", "countersign", "state.json");
  expect(statSync(file).mode & 0o777).toBe(0o600);
  service.said.length = 0;
  writeFileSync(file, '{"version":1,');
  const run = await as(bob!, "approve", id, "--yes");
  expectRefused(run, "state-unreadable");
  expect(readFileSync(file, "utf8")).toBe('{"version":1,'); // not begun anew
  const locked = await as(bob!, "lock", "root", "--yes");
  expect(locked).toMatchObject({ status: 0 });
  expect(locked.stderr).toContain("ALARM");
});

test("lock and panic are signed statements of one operator", async () => {
  await json(alice!, "lock", "root", "--yes");
  await json(alice!, "panic", "--reason", "laptop stolen", "--yes");
  expect(service.said).toMatchObject([
    { what: "lock", statement: { keyId: service.dealt[0]!.shareSet.keyId, operator: "alice" } },
    { what: "panic", statement: { service: "ca.example.com", reason: "laptop stolen" } },
  ]);
});

test("ceremonies are proposed, and the statement that came of it is checked and shown", async () => {
  write("a.tbs", "3003020101");
  const sign = await json<{ fingerprint: { words: string } }>(
    alice!,
    ...["ceremony", "propose", "sign", "--key", "root", "--tbs", path("a.tbs")],
    ...["--reason", "issue intermediate G2"],
  );
  expect(sign.fingerprint.words.split(" ")).toHaveLength(10);
  await json(
    alice!,
    ...["ceremony", "propose", "window", "--key", "root", "--operation", "crl:4"],
    ...["--operation", "certificate:server:100", "--idle", "2h", "--reason", "a day of CRLs"],
  );
  await json(
    alice!,
    ...["ceremony", "propose", "resume", "--release", "all", "--reason", "host replaced"],
  );
  expect(service.proposals).toMatchObject([
    { kind: "sign", artefacts: [{ tbs: Buffer.from("3003020101") }] },
    {
      kind: "window",
      window: {
        operations: [
          { operation: "crl", max: 4 },
          { operation: "certificate", profile: "server", max: 100 },
        ],
        idleSeconds: 7_200,
      },
    },
    { kind: "resume", plan: expect.any(Uint8Array) as unknown },
  ]);
  const listed = await json<{ ceremonies: unknown[] }>(alice!, "ceremony", "list");
  expect(listed.ceremonies.length).toBeGreaterThan(2);
});

test("keys are listed with their custodians, and sealed anew by a reshare of the next epoch", async () => {
  const run = await as(alice!, "keys", "list");
  expect(run.stdout).toContain("any 2 of 3");
  expect(run.stdout).toContain("share 2: bob");
  service.proposals.length = 0;
  await json(
    alice!,
    ...["keys", "seal", "root", "--threshold", "2", "--payload", "pkcs8"],
    ...["--issuer-name", "CN=Example Root", "--custodian", "alice", "--custodian", "carol"],
  );
  const [proposal] = service.proposals;
  expect(proposal).toMatchObject({ kind: "reshare" });
  expect(JSON.parse(Buffer.from(proposal!.plan!).toString())).toMatchObject({
    epoch: 2,
    previous: service.dealt[0]!.digest,
    shareCount: 2,
    custodians: [
      { operator: "alice", recipient: alice!.recipient },
      { operator: "carol", recipient: carol!.recipient },
    ],
  });
});

test("an unlock is opened, and the invitation to it has the fingerprint, one command and the warning", async () => {
  const { id } = service.ceremony();
  const opened = await json<{ id: string; fingerprint: { hex: string; words: string } }>(
    alice!,
    ...["unlock", "open", id, "--gather", "2h"],
  );
  const run = await as(alice!, "invite", opened.id);
  expect(run.status).toBe(0);
  expect(run.stdout).toContain(opened.fingerprint.hex);
  expect(run.stdout).toContain(opened.fingerprint.words);
  expect(run.stdout.match(/^ +countersign .*$/gm)).toEqual([`    countersign submit ${opened.id}`]);
  expect(run.stdout).toContain("Nobody will ever ask you for a share");
  const ofCeremony = await as(alice!, "invite", id);
  expect(ofCeremony.stdout).toContain(`countersign approve ${id}`);
});

test("the inbox lists what waits, with the command for each", async () => {
  const { id } = service.ceremony();
  const run = await as(bob!, "inbox");
  expect(run.stdout).toContain(`countersign approve ${id}`);
  const { items } = await json<{ items: { ceremony: string }[] }>(bob!, "inbox");
  expect(items.map(({ ceremony }) => ceremony)).toContain(id);
});

test("the inbox asks before it looks at something, and again before it signs", async () => {
  service.ceremony({ reason: "first" });
  const second = service.ceremony({ reason: "second" });
  const run = await atTerminal(["inbox"], ["n", "y", "y"], service.env(bob!));
  expect(run).toMatchObject({ status: 0 });
  expect(run.stdout).toContain("second");
  expect(service.said).toMatchObject([{ statement: { ceremony: second.digest } }]);
  service.said.length = 0;
  const declined = await atTerminal(["inbox"], ["y", "n", "n"], service.env(bob!));
  expect(declined.stdout).toContain("declined");
  expect(service.said).toEqual([]);
});
