/** Shares from beginning to end, with the command: dealt, confirmed, proved, on paper and back, and dealt anew. */

import { existsSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type {
  CeremonyAnswer,
  InboxItem,
  KeyAnswer,
  ShareSetAnswer,
  UnlockAnswer,
} from "../../src/cli/people-answers.ts";
import { HomePeople } from "../support/home-people.ts";
import { removeHome, startTestService, type RunningService } from "../support/service.ts";

/** For what the service does by itself. */
const WAIT = 20_000;

let service: RunningService;
let people: HomePeople;
/** The key that the first ceremony makes. */
let keyId: string;

beforeAll(async () => {
  service = await startTestService();
  people = new HomePeople(service);
});

afterAll(async () => {
  expect(await service.stop()).toBe(0);
  people.remove();
  removeHome(service.home);
});

/** What waits for somebody, without what everybody could do. */
async function inbox(id: string): Promise<InboxItem[]> {
  return (await people.json<{ items: InboxItem[] }>(id, "inbox")).items;
}

/** Proposes a new key, and has all its custodians approve the plan. */
async function generate(issuer: string, custodians: readonly string[]): Promise<CeremonyAnswer> {
  const proposed = await people.json<CeremonyAnswer>(
    "alice",
    ...["keys", "generate", "--issuer-name", issuer, "--threshold", "2"],
    ...custodians.flatMap((id) => ["--custodian", id]),
  );
  expect(proposed).toMatchObject({ state: "gathering", missing: { people: custodians } });
  for (const id of custodians) await people.told(id, "approve", proposed.id, "--yes");
  await vi.waitFor(async () => {
    expect(await people.ceremony(proposed.id)).toMatchObject({ state: "pending" });
  }, WAIT);
  return people.ceremony(proposed.id);
}

test("CUSTODY 3.2: a key is made for three people, and counts when each has confirmed their share", async () => {
  const custodians = ["alice", "bob", "carol"];
  const ceremony = await generate("CN=Example Partners CA", custodians);
  const { shareSets, ...key } = await people.key(ceremony.keyId!);
  keyId = key.keyId;
  expect(key).toMatchObject({ custody: "sealed", state: "locked" });
  expect(shareSets).toMatchObject([
    { digest: ceremony.shareSet, epoch: 1, state: "pending", threshold: 2, shareCount: 3 },
  ]);
  // ST-60: nobody gets another's.
  const foreign = await service.api(`/v1/keys/${keyId}/shares/1`, {
    token: await people.session("bob"),
  });
  expect([foreign.status, foreign.json()["code"]]).toEqual([403, "forbidden"]);

  const { digest, shareSet } = ceremony;
  const waits = { ceremony: digest, keyId, shareSet, index: 2 };
  expect(await inbox("bob")).toEqual([{ what: "fetch", ...waits }]);
  expect(await inbox("dora")).toEqual([]);
  await people.told("bob", "share", "fetch", keyId);
  expect(statSync(people.shareFile("bob", keyId)).mode & 0o077).toBe(0);
  expect(await inbox("bob")).toEqual([{ what: "confirm", ...waits }]);
  for (const [place, id] of ["bob", "alice", "carol"].entries()) {
    const set = await people.json<ShareSetAnswer>(id, "share", "confirm", keyId, "--yes");
    expect(set.state).toBe(place < 2 ? "pending" : "active");
  }
  expect(await inbox("bob")).toEqual([]);
  expect(await people.ceremony(ceremony.id)).toMatchObject({ state: "applied" });
  // Who has confirmed has the only file.
  const gone = await people.run("bob", "share", "fetch", keyId);
  expect([gone.status, gone.stderr]).toEqual([1, expect.stringContaining("confirmed")]);
  const list = await people.told("dora", "keys", "list");
  expect(list).toMatch(/^ {2}epoch 1 +any 2 of 3$/m);
  expect(list).toMatch(/share 2: bob, confirmed \d{4}-\d\d-\d\d$/m);
});

test("CUSTODY 4.2: who holds a share proves it without showing it, with the file or with what came back from paper", async () => {
  const file = people.shareFile("bob", keyId);
  const paper = join(people.homeOf("bob"), "paper.txt");
  await people.told("bob", "share", "print", keyId, "--out", paper);
  expect(statSync(paper).mode & 0o077).toBe(0);
  const before = people.shareText("bob", file);
  expect(readFileSync(paper, "utf8")).not.toContain(before); // in groups
  rmSync(file);
  const lost = await people.run("bob", "share", "prove", keyId, "--yes");
  expect([lost.status, lost.stderr]).toEqual([1, expect.stringContaining("share-missing")]);

  await people.told("bob", "share", "import", keyId, "--from", paper);
  expect(existsSync(file)).toBe(true);
  expect(people.shareText("bob", file)).toBe(before);
  const set = await people.json<ShareSetAnswer>("bob", "share", "prove", keyId, "--yes");
  expect(set.custodians.map(({ provedAt }) => provedAt !== undefined)).toEqual([
    false,
    true,
    false,
  ]);
  expect(await people.told("dora", "keys", "list")).toMatch(/share 2: bob, proved \d{4}-/);
});

test("CUSTODY 4.2: a key that one lost share would lose is warned of", async () => {
  expect(await people.get("/v1/status")).toMatchObject({ warnings: [] });
  const { keyId: narrow } = await generate("CN=Example Two CA", ["dora", "erin"]);
  for (const id of ["dora", "erin"]) await people.told(id, "share", "confirm", narrow!, "--yes");
  expect(await people.get("/v1/status")).toMatchObject({
    warnings: [{ keyId: narrow, threshold: 2, shareCount: 2, proved: 2 }],
  });
  const { stdout } = await people.run("bob", "status");
  expect(stdout).toContain(`key ${narrow!.slice(0, 16)}…: 2 of 2 shares were proved`);
});

test("ST-65, ST-66, ST-67: the root's shares are dealt to other people, and the old files open nothing", async () => {
  const root = await people.key("root");
  const [first] = root.shareSets;
  const proposed = await people.json<CeremonyAnswer>(
    "erin",
    ...["keys", "seal", "root", "--threshold", "2", "--reason", "alice and bob have left"],
    ...["carol", "dora", "erin"].flatMap((id) => ["--custodian", id]),
  );
  expect(proposed).toMatchObject({ kind: "reshare", keyId: root.keyId, missing: { shares: 3 } });
  // Who is to hold a share of the new ones agrees to the plan; carol does so with her old share.
  expect(proposed.missing.people).toEqual(["carol", "dora", "erin"]);
  const unlock = await people.json<UnlockAnswer>("erin", "unlock", "open", proposed.id);
  for (const id of ["dora", "erin"]) await people.told(id, "approve", proposed.id, "--yes");
  for (const id of ["alice", "bob", "carol"]) await people.told(id, "submit", unlock.id, "--yes");
  await vi.waitFor(async () => {
    expect(await people.ceremony(proposed.id)).toMatchObject({ state: "pending" });
  }, WAIT);

  // Until the last confirmation the old shares are the ones that count.
  const old = new Map(
    ["alice", "carol"].map((id) => [id, people.shareText(id, people.shareFile(id, root.keyId))]),
  );
  const { shareSet } = await people.ceremony(proposed.id);
  for (const id of ["erin", "carol"]) {
    await people.told(id, "share", "confirm", "root", "--yes");
    const { shareSets } = await people.key("root");
    expect(new Map(shareSets.map(({ digest, state }) => [digest, state]))).toEqual(
      new Map([
        [first!.digest, "active"],
        [shareSet, "pending"],
      ]),
    );
  }
  await people.told("dora", "share", "confirm", "root", "--yes");
  expect((await people.key("root")).shareSets).toMatchObject([
    { digest: shareSet, epoch: 2, state: "active", threshold: 2, shareCount: 3 },
  ]);
  expect(await people.ceremony(proposed.id)).toMatchObject({ state: "applied" });

  const now = Date.now();
  const window = {
    operations: [{ operation: "crl", max: 1 }],
    notBefore: new Date(now).toISOString(),
    notAfter: new Date(now + 3_600_000).toISOString(),
    idleSeconds: 600,
  };
  const next = await people.propose({ kind: "window", keyId: root.keyId, window });
  const { id, epoch, threshold } = await people.unlock(next.digest);
  expect([epoch, threshold]).toEqual([2, 2]);
  for (const [person, index] of [
    ["alice", 1],
    ["carol", 1],
  ] as const) {
    const answer = await people.submit(person, id, index, old.get(person)!);
    expect([person, answer.status, answer.json()["code"]]).toEqual([person, 422, "share-stale"]);
  }
  const file = people.shareFile("carol", root.keyId, 1);
  const [stale, stranger] = await Promise.all([
    people.refusal("carol", "submit", id, "--share", file, "--yes"),
    people.refusal("alice", "submit", id, "--yes"),
  ]);
  expect([stale, stranger]).toEqual(["share-stale", "share-not-yours"]);
  for (const person of ["erin", "carol"]) await people.told(person, "submit", id, "--yes");
  await vi.waitFor(async () => {
    expect(await people.get<KeyAnswer>(`/v1/keys/${root.keyId}`)).toMatchObject({ state: "open" });
  }, WAIT);
  await people.told("dora", "lock", "root", "--yes");
  await vi.waitFor(async () => {
    expect(await people.ceremony(next.id)).toMatchObject({ state: "locked" });
  }, WAIT);
});

test("ST-80: the log accounts for all that was done here", async () => {
  const key = readFileSync(service.files.logKey, "utf8").trim();
  const { status, stdout } = await people.run(
    "bob",
    ...["verify", "--database", service.files.database, "--key", key],
  );
  expect([status, stdout]).toEqual([0, expect.stringContaining("LOG-11")]);
});
