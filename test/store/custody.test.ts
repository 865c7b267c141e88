import { copyFileSync, existsSync, readFileSync } from "node:fs";
import { expect, test, vi } from "vitest";
import { digestOf } from "../../src/audit/digest.ts";
import type { CustodyItem } from "../../src/ceremony/journal.ts";
import { openDatabase } from "../../src/store/database.ts";
import { createCustodyReads } from "../../src/store/custody-reads.ts";
import { createReads } from "../../src/store/reads.ts";
import {
  abort,
  activated,
  approval,
  at,
  ceremony,
  ceremonyState,
  confirmed,
  dropped,
  enrolment,
  keyId,
  proved,
  roster,
  shareSet,
  story,
  submission,
  tbs,
  unlock,
  unlockState,
} from "../support/custody-story.ts";
import { codeOf, createHome, createTestKeeper, entry, intent, type Home } from "./fixture.ts";

/** A home in which some items are on disk. */
async function homeWith(items: readonly CustodyItem[]) {
  const home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const indexes: number[] = [];
  for (const item of items) indexes.push(await journal.append(item));
  return {
    ...home,
    home,
    journal,
    indexes,
    reads: createCustodyReads(home.database),
    [Symbol.asyncDispose]: () => home[Symbol.asyncDispose](),
  };
}

/** A key with an active seal. */
function sealedKey() {
  const generate = ceremony("generate", "generate");
  const set = shareSet(generate, 1);
  const confirmations = [1, 2, 3].map((index) => confirmed(set, index));
  return { generate, set, items: [generate, set, ...confirmations, activated(set)] };
}

// What is written is read

test("what was written is read back, from the genesis to the last drill", async () => {
  const { items, ceremonies, unlocks, sets } = story();
  await using there = await homeWith(items);
  const { reads, indexes } = there;
  const indexOf = (item: CustodyItem) => indexes[items.indexOf(item)]!;
  const ofKind = <Kind extends CustodyItem["kind"]>(kind: Kind) =>
    items.filter((item) => item.kind === kind) as Extract<CustodyItem, { kind: Kind }>[];

  const rosters = ofKind("roster").map((item) => {
    const { evidence, ...row } = item.row;
    return { ...row, ...evidence, logIndex: indexOf(item) };
  });
  expect(await reads.rosterVersions()).toEqual(rosters);

  const states = {
    generate: "applied",
    sign: "signed",
    window: "aborted",
    reshare: "applied",
    given: "aborted",
    waiting: "pending",
    people: "applied",
    open: "gathering",
  } as const;
  for (const [name, item] of Object.entries(ceremonies)) {
    const stored = (await reads.ceremony(item.row.id))!;
    expect(stored).toEqual({
      ...item.row,
      state: states[name as keyof typeof states],
      logIndex: indexOf(item),
      changedIndex: stored.changedIndex,
    });
    expect(await reads.ceremony(item.row.digest)).toEqual(stored);
    expect(stored.changedIndex > stored.logIndex).toBe(name !== "open");
    const approvals = ofKind("approval").filter(({ row }) => row.ceremony === item.row.digest);
    expect(await reads.approvals(item.row.digest)).toEqual(
      approvals.map((one) => ({ ...one.row, logIndex: indexOf(one) })),
    );
  }
  const [asked] = ofKind("abort");
  expect(await reads.aborts(ceremonies.window.row.digest)).toEqual([
    { ...asked!.row, logIndex: indexOf(asked!) },
  ]);
  expect(await reads.aborts(ceremonies.sign.row.digest)).toEqual([]);

  for (const [name, item] of Object.entries(unlocks)) {
    const stored = (await reads.unlock(item.row.digest))!;
    const state = { windowing: "ended", opening: "gathering" }[name] ?? "opened";
    expect(stored).toMatchObject({ ...item.row, state, logIndex: indexOf(item) });
    expect(await reads.unlock(item.row.id)).toEqual(stored);
    expect(await reads.unlocksOf(item.row.ceremony)).toEqual([stored]);
  }
  expect((await reads.openUnlocks()).map(({ digest }) => digest)).toEqual([
    unlocks.opening.row.digest,
  ]);
  expect(await reads.submissions(unlocks.signing.row.digest)).toEqual(
    ofKind("submission").map((one) => ({ ...one.row, logIndex: indexOf(one) })),
  );

  const ends = { first: "retired", second: "active", third: "dropped", fourth: "pending" } as const;
  for (const [name, item] of Object.entries(sets)) {
    const state = ends[name as keyof typeof ends];
    const gone = state === "retired" || state === "dropped";
    const stored = (await reads.shareSet(item.row.digest))!;
    expect(stored).toMatchObject({
      ...item.row,
      sealed: gone ? null : item.row.sealed,
      state,
      logIndex: indexOf(item),
    });
    const shares = await reads.shares(item.row.digest);
    for (const [place, share] of shares.entries()) {
      const { file, ...row } = item.shares[place]!;
      const confirmation = ofKind("share-confirmed").find(
        (one) => one.shareSet === item.row.digest && one.index === row.index,
      );
      const drill = ofKind("share-proved").find(
        (one) => one.shareSet === item.row.digest && one.index === row.index,
      );
      expect(share).toEqual({
        shareSet: item.row.digest,
        ...row,
        waiting: state === "pending" && confirmation === undefined,
        confirmation: confirmation?.confirmation ?? null,
        confirmedIndex: confirmation === undefined ? null : indexOf(confirmation),
        provedAt: drill?.at ?? null,
        provedIndex: drill === undefined ? null : indexOf(drill),
      });
      expect(await reads.shareFile(item.row.digest, row.index)).toEqual(
        share.waiting ? file : undefined,
      );
    }
    expect(shares).toHaveLength(3);
  }
  const found = async (filter: Parameters<typeof reads.shareSets>[0]) =>
    (await reads.shareSets(filter)).map(({ epoch, state }) => `${epoch} ${state}`);
  expect(await found({ keyId })).toEqual(["3 pending", "3 dropped", "2 active", "1 retired"]);
  expect(await found({ state: "active" })).toEqual(["2 active"]);
  expect(await found({ keyId: "0".repeat(64) })).toEqual([]);

  for (const object of [...ceremonies.sign.objects, ...ceremonies.people.objects]) {
    expect(await reads.object(digestOf(object))).toEqual(object);
  }
  expect(await reads.object(`sha256:${"0".repeat(64)}`)).toBeUndefined();
  expect(await reads.ceremony("nothing")).toBeUndefined();
  expect(await reads.shareFile("nothing", 1)).toBeUndefined();
});

test("ceremonies come in pages, newest first, by state, kind and key", async () => {
  const many = Array.from({ length: 7 }, (_, n) =>
    ceremony(`c${n}`, n % 2 === 0 ? "window" : "roster"),
  );
  await using there = await homeWith(many);
  const { reads, journal } = there;
  await journal.append(ceremonyState(many[2]!, "expired"));
  const names = async (filter: Parameters<typeof reads.ceremonies>[0]) => {
    const { ceremonies, next } = await reads.ceremonies(filter);
    const digests = many.map(({ row }) => row.digest);
    return { found: ceremonies.map(({ digest }) => digests.indexOf(digest)), next };
  };
  const first = await names({ limit: 3 });
  expect(first.found).toEqual([6, 5, 4]);
  const second = await names({ limit: 3, cursor: first.next! });
  expect(second.found).toEqual([3, 2, 1]);
  expect(await names({ limit: 3, cursor: second.next! })).toEqual({ found: [0], next: undefined });
  expect((await names({ limit: 7 })).next).toBeUndefined();
  expect((await names({ limit: 9, kind: "roster" })).found).toEqual([5, 3, 1]);
  expect((await names({ limit: 9, state: "expired" })).found).toEqual([2]);
  expect((await names({ limit: 9, state: ["expired", "gathering"] })).found).toHaveLength(7);
  expect((await names({ limit: 9, state: [] })).found).toEqual([]);
  expect((await names({ limit: 9, keyId })).found).toEqual([6, 4, 2, 0]);
});

test("an object that two ceremonies name is stored once", async () => {
  const one = ceremony("one", "sign", { tbs });
  const two = ceremony("two", "sign", { tbs: [tbs[1], tbs[1], tbs[0]] });
  await using there = await homeWith([]);
  await Promise.all([one, two].map((item) => there.journal.append(item)));
  expect(await there.database.reader.all("SELECT count(*) AS n FROM object")).toEqual([{ n: 2 }]);
});

// What contradicts what is stored

const { generate, set, items: sealed } = sealedKey();
const window = ceremony("window", "window");
const windowing = unlock("window", window, set);
const reshare = ceremony("reshare", "reshare");
const next = shareSet(reshare, 2);
const same = shareSet(reshare, 1);
const unlocking = [reshare, ceremonyState(reshare, "unlocking")];
const expired = ceremonyState(window, "expired");
const confirmations = [1, 2, 3].map((index) => confirmed(next, index));
const other = ceremony("other", "window");

test.for<{ name: string; before: CustodyItem[]; item: CustodyItem; code: string }>([
  {
    name: "a second approval of one person",
    before: [window, approval(window, "bob")],
    item: approval(window, "bob", "reject"),
    code: "approval-repeated",
  },
  {
    name: "an approval of nothing",
    before: [],
    item: approval(window, "bob"),
    code: "ceremony-unknown",
  },
  {
    name: "ST-38: an approval of a ceremony that is over",
    before: [window, expired],
    item: approval(window, "bob"),
    code: "ceremony-closed",
  },
  {
    name: "an approval after the key was opened",
    before: [window, ceremonyState(window, "unlocked")],
    item: approval(window, "bob"),
    code: "ceremony-closed",
  },
  {
    name: "a second abort of one person",
    before: [window, abort(window, "bob")],
    item: abort(window, "bob"),
    code: "approval-repeated",
  },
  {
    name: "an abort of a ceremony that is over",
    before: [window, expired],
    item: abort(window, "bob"),
    code: "ceremony-closed",
  },
  { name: "a step of nothing", before: [], item: expired, code: "ceremony-unknown" },
  {
    name: "a step of a ceremony that is over",
    before: [window, expired],
    item: ceremonyState(window, "unlocking"),
    code: "ceremony-closed",
  },
  {
    name: "a ceremony applied whose kind opens a key",
    before: [window],
    item: ceremonyState(window, "applied"),
    code: "ceremony-refused",
  },
  {
    name: "a ceremony in the state that it is in",
    before: [window],
    item: ceremonyState(window, "gathering"),
    code: "ceremony-refused",
  },
  {
    name: "the same ceremony again",
    before: [window],
    item: window,
    code: "log-unavailable",
  },
  {
    name: "an unlock of nothing",
    before: sealed,
    item: windowing,
    code: "ceremony-unknown",
  },
  {
    name: "an unlock of a ceremony that is over",
    before: [...sealed, window, expired],
    item: windowing,
    code: "ceremony-closed",
  },
  {
    name: "an unlock of shares that nobody has confirmed",
    before: [generate, set, window],
    item: windowing,
    code: "share-set-unknown",
  },
  {
    name: "an unlock beside another of the ceremony",
    before: [...sealed, window, windowing],
    item: unlock("second", window, set),
    code: "unlock-busy",
  },
  {
    name: "ST-38: an unlock that ended and ends otherwise",
    before: [...sealed, window, windowing, unlockState(windowing, "expired")],
    item: unlockState(windowing, "opened"),
    code: "unlock-closed",
  },
  {
    name: "the end of no unlock",
    before: [],
    item: unlockState(windowing, "ended"),
    code: "unlock-unknown",
  },
  {
    name: "a share for no unlock",
    before: sealed,
    item: submission(windowing, "alice", 1),
    code: "unlock-unknown",
  },
  {
    name: "ST-38: a share for an unlock that expired",
    before: [...sealed, window, windowing, unlockState(windowing, "expired")],
    item: submission(windowing, "alice", 1),
    code: "unlock-closed",
  },
  {
    name: "ST-28: a second share of one custodian",
    before: [...sealed, window, windowing, submission(windowing, "alice", 1)],
    item: submission(windowing, "alice", 2),
    code: "share-repeated",
  },
  {
    name: "a share of one who refused",
    before: [...sealed, window, windowing, submission(windowing, "alice", "refuse")],
    item: submission(windowing, "alice", 1),
    code: "share-repeated",
  },
  { name: "a share set of no ceremony", before: sealed, item: next, code: "ceremony-unknown" },
  {
    name: "a share set of a ceremony that gathers",
    before: [...sealed, reshare],
    item: next,
    code: "ceremony-refused",
  },
  {
    name: "a share set of the active epoch",
    before: [...sealed, ...unlocking],
    item: same,
    code: "ceremony-refused",
  },
  {
    name: "a share confirmed twice",
    before: [...sealed, ...unlocking, next, confirmed(next, 1)],
    item: confirmed(next, 1),
    code: "confirmation-invalid",
  },
  {
    name: "a share of an active set confirmed",
    before: sealed,
    item: confirmed(set, 1),
    code: "share-set-unknown",
  },
  {
    name: "a share that the set does not have",
    before: [...sealed, ...unlocking, next],
    item: { ...confirmed(next, 1), index: 4 },
    code: "share-set-unknown",
  },
  {
    name: "a drill of a pending set",
    before: [...sealed, ...unlocking, next],
    item: proved(next, 1),
    code: "share-set-unknown",
  },
  {
    name: "ST-64: a set active with one confirmation missing",
    before: [...sealed, ...unlocking, next, confirmations[0]!, confirmations[2]!],
    item: activated(next),
    code: "confirmation-invalid",
  },
  {
    name: "a set active twice",
    before: [...sealed, ...unlocking, next, ...confirmations, activated(next)],
    item: activated(next),
    code: "share-set-unknown",
  },
  {
    name: "a retired set active again",
    before: [...sealed, ...unlocking, next, ...confirmations, activated(next)],
    item: activated(set),
    code: "share-set-unknown",
  },
  { name: "an active set dropped", before: sealed, item: dropped(set), code: "share-set-unknown" },
  {
    name: "ST-69: a version of the roster that skips one",
    before: [roster(1)],
    item: roster(3),
    code: "roster-invalid",
  },
  {
    name: "ST-69: a version of the roster that is there",
    before: [roster(1), roster(2)],
    item: roster(2),
    code: "roster-invalid",
  },
  {
    name: "a time that is none",
    before: [],
    item: { ...other, row: { ...other.row, notAfter: new Date(Number.NaN) } },
    code: "log-unavailable",
  },
])("$name is refused, as $code, and leaves nothing", async ({ before, item, code }) => {
  await using there = await homeWith(before);
  const { journal, home } = there;
  const stored = await contents(home);
  const results = await Promise.allSettled([
    journal.append(intent()),
    journal.append(item),
    journal.append(entry("beside it")),
  ]);
  expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
  expect(results[1]).toMatchObject({ reason: { code } });
  expect(await createReads(home.database).logSize()).toBe(before.length + 2);
  expect(await contents(home)).toEqual(stored);
});

test("a share set whose second share cannot be written leaves nothing of it", async () => {
  const made = ceremony("generate", "generate");
  const item = shareSet(made, 1);
  await using there = await homeWith([made]);
  const twice = { ...item, shares: [item.shares[0]!, item.shares[1]!, item.shares[1]!] };
  expect(await codeOf(there.journal.append(twice))).toBe("ceremony-refused");
  expect(await there.reads.shareSets({})).toEqual([]);
  expect(await there.reads.shares(item.row.digest)).toEqual([]);
  expect((await there.reads.ceremony(made.row.id))?.state).toBe("gathering");
  expect(await createReads(there.database).logSize()).toBe(1);
  await there.journal.append(item);
  expect((await there.reads.ceremony(made.row.id))?.state).toBe("pending");
});

test("two sets wait for one key: what is active first is not followed by the same epoch", async () => {
  const late = ceremony("late", "reshare");
  const lateSet = shareSet(late, 2);
  await using there = await homeWith([
    ...sealed,
    ...unlocking,
    next,
    late,
    ceremonyState(late, "unlocking"),
    lateSet,
    ...[next, lateSet].flatMap((one) => [1, 2, 3].map((index) => confirmed(one, index))),
  ]);
  const results = await Promise.allSettled([
    there.journal.append(activated(next)),
    there.journal.append(activated(lateSet)),
  ]);
  expect(results).toMatchObject([
    { status: "fulfilled" },
    { status: "rejected", reason: { code: "ceremony-refused" } },
  ]);
  const active = await there.reads.shareSets({ state: "active" });
  expect(active.map(({ digest }) => digest)).toEqual([next.row.digest]);
});

test("items of one batch build on each other, in their order", async () => {
  const { items } = story();
  await using there = await homeWith([]);
  await Promise.all(items.map((item) => there.journal.append(item)));
  expect(there.home.commits).toBe(1);
  expect(await contents(there.home)).toEqual(await contentsOneByOne(items));
});

async function contentsOneByOne(items: readonly CustodyItem[]) {
  await using there = await homeWith(items);
  return await contents(there.home);
}

// What is deleted is gone

const searched = ["", "-wal", "-journal"];

/** Whether any file of the database holds the octets, or any 24 of them. */
function onDisk(file: string, octets: Uint8Array): boolean {
  const files = searched.map((suffix) => file + suffix).filter((name) => existsSync(name));
  return files.some((name) => {
    const bytes = readFileSync(name);
    for (let place = 8; place + 24 <= octets.length; place += 24) {
      if (bytes.includes(Buffer.from(octets.subarray(place, place + 24)))) return true;
    }
    return false;
  });
}

test("ST-66: after a reshare neither the file nor the WAL has the old sealed secret or a share's file", async () => {
  await using there = await homeWith([...sealed, ...unlocking, next]);
  const { journal, file } = there;
  await journal.drain();
  expect(onDisk(file, set.row.sealed)).toBe(true);
  expect(onDisk(file, next.row.sealed)).toBe(true);
  for (const [place, item] of confirmations.entries()) {
    const { file: share } = next.shares[place]!;
    expect(onDisk(file, share)).toBe(true);
    await journal.append(item);
    await journal.drain();
    expect(onDisk(file, share)).toBe(false);
  }
  await journal.append(activated(next));
  await journal.drain();
  expect(onDisk(file, set.row.sealed)).toBe(false);
  expect(onDisk(file, next.row.sealed)).toBe(true);
});

test("ST-65: a reshare that was aborted leaves the old set, and nothing of the new one", async () => {
  await using there = await homeWith([...sealed, ...unlocking, next, confirmations[0]!]);
  const { journal, file, reads } = there;
  await journal.append(dropped(next));
  await journal.drain();
  expect(onDisk(file, next.row.sealed)).toBe(false);
  for (const share of next.shares) expect(onDisk(file, share.file)).toBe(false);
  expect(onDisk(file, set.row.sealed)).toBe(true);
  expect((await reads.shareSets({ state: "active" }))[0]?.digest).toBe(set.row.digest);
  expect((await reads.ceremony(reshare.row.id))?.state).toBe("aborted");
});

test("ST-66: a sealed secret larger than a page, among many others, leaves nothing either", async () => {
  const large = {
    ...next,
    row: { ...next.row, sealed: Buffer.alloc(9000, Buffer.from(next.row.sealed)) },
  };
  const many = Array.from({ length: 40 }, (_, n) => {
    const one = ceremony(`many ${n}`, "generate");
    return [one, shareSet(one, 1, String(n).padStart(64, "0"))];
  }).flat();
  await using there = await homeWith([...sealed, ...unlocking, large, ...many]);
  await there.journal.drain();
  expect(onDisk(there.file, large.row.sealed)).toBe(true);
  await there.journal.append(dropped(next));
  await there.journal.drain();
  expect(onDisk(there.file, large.row.sealed)).toBe(false);
});

/** Somebody else who has a transaction open. */
async function reading(file: string) {
  const other = await openDatabase(file);
  await other.reader.all("BEGIN");
  await other.reader.all("SELECT count(*) FROM share_set");
  return async () => {
    await other.reader.all("COMMIT");
    await other.close();
  };
}

test("somebody who reads for long keeps the WAL: nobody waits for that, and it is tried again", async () => {
  await using there = await homeWith([...sealed, ...unlocking, next]);
  const { journal, file } = there;
  await journal.drain();
  const read = await reading(file);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    await journal.append(confirmations[0]!);
    await journal.append(entry("others go on"));
    await journal.drain();
    expect(onDisk(file, next.shares[0]!.file)).toBe(true);
    await read();
    vi.advanceTimersByTime(10_000);
    await journal.drain();
    expect(onDisk(file, next.shares[0]!.file)).toBe(false);
  } finally {
    vi.useRealTimers();
  }
});

test("ST-66: what a crash left in the WAL is gone when the database is open again", async () => {
  await using there = await homeWith([...sealed, ...unlocking, next]);
  const { journal, file } = there;
  await journal.drain();
  const read = await reading(file);
  await journal.append(confirmations[0]!);
  await journal.drain();
  const crashed = `${file}.crashed`;
  for (const suffix of ["", "-wal"]) copyFileSync(file + suffix, crashed + suffix);
  await read();
  expect(onDisk(crashed, next.shares[0]!.file)).toBe(true);
  const again = await openDatabase(crashed);
  expect(onDisk(crashed, next.shares[0]!.file)).toBe(false);
  const [share] = await createCustodyReads(again).shares(next.row.digest);
  expect(share).toMatchObject({ index: 1, waiting: false, confirmedIndex: journal.size - 1 });
  await again.close();
});

test("ST-66: what is deleted is overwritten", async () => {
  await using home = await createHome();
  expect(await home.database.writer.all("PRAGMA secure_delete")).toEqual([{ secure_delete: 1 }]);
});

// Enrolments

test("a request to be enrolled is stored without a record, and proved once", async () => {
  await using there = await homeWith([]);
  const { journal, reads } = there;
  const erin = enrolment("erin");
  const frank = enrolment("frank", { statement: null, signature: null });
  await Promise.all([erin, frank].map((row) => journal.enrolment(row)));
  expect(journal.size).toBe(0);
  expect(await reads.enrolment(erin.id)).toEqual({ ...erin, state: "requested" });
  expect(await reads.enrolment(frank.id)).toEqual({ ...frank, state: "requested" });
  await journal.proved(erin.id);
  expect(await reads.enrolment(erin.id)).toEqual({ ...erin, state: "proved" });
  expect((await reads.enrolments({ state: "proved" })).map(({ id }) => id)).toEqual([erin.id]);
  expect((await reads.enrolments({ operator: "frank" })).map(({ id }) => id)).toEqual([frank.id]);
  expect(await reads.enrolments({ operator: "frank", state: "proved" })).toEqual([]);
  expect(await codeOf(journal.proved(erin.id))).toBe("enrolment-refused");
  expect(await codeOf(journal.proved("nothing"))).toBe("enrolment-unknown");
  expect(await codeOf(journal.enrolment(erin))).toBe("enrolment-refused");
  expect(await createReads(there.database).logSize()).toBe(0);
  await journal.close();
  expect(await codeOf(journal.enrolment(enrolment("grace")))).toBe("log-unavailable");
});

test("a request that nobody proves is forgotten after a week", async () => {
  await using there = await homeWith([]);
  const { journal, reads } = there;
  const week = 7 * 86_400_000;
  const later = (milliseconds: number) => new Date(at.getTime() + milliseconds);
  await journal.enrolment(enrolment("early"));
  await journal.enrolment(enrolment("proved"));
  await journal.proved(enrolment("proved").id);
  await journal.enrolment(enrolment("on time", { createdAt: later(week) }));
  expect(await reads.enrolments({})).toHaveLength(3);
  await journal.enrolment(enrolment("late", { createdAt: later(week + 1) }));
  const left = await reads.enrolments({});
  expect(left.map(({ operator }) => operator)).toEqual(["late", "on time", "proved"]);
});

/** Every table of this, without the log. */
async function contents({ database }: Home): Promise<unknown> {
  const tables = ["object", "roster_version", "ceremony", "approval", "abort", "unlock"];
  tables.push("submission", "share_set", "share");
  return Promise.all(tables.map((table) => database.reader.all(`SELECT * FROM "${table}"`)));
}
