import { randomBytes } from "node:crypto";
import { copyFileSync } from "node:fs";
import { expect, test, vi } from "vitest";
import {
  CompactRange,
  leafHash,
  verifyConsistency,
  verifyInclusion,
} from "../../src/audit/merkle.ts";
import { consistencyProof, inclusionProof } from "../../src/audit/tiles.ts";
import type { JournalItem } from "../../src/issuance/journal.ts";
import { openDatabase } from "../../src/store/database.ts";
import { createReads } from "../../src/store/reads.ts";
import {
  certificateRow,
  codeOf,
  createHome,
  createTestKeeper,
  crlIntent,
  done,
  entry,
  intent,
  leaf,
  origin,
  revocation,
  type Home,
} from "./fixture.ts";

function tileReader(home: Home) {
  const reads = createReads(home.database);
  return async (level: number, n: number) => (await reads.tile(level, n))!;
}

test("ST-79: 100 parallel appends: one order, no gap, every index has a valid proof", async () => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog(keeper);
  const indexes = await Promise.all(
    Array.from({ length: 100 }, (_, i) => journal.append(entry(`entry ${i}`))),
  );
  expect(indexes).toEqual(Array.from({ length: 100 }, (_, i) => i));
  expect(journal.size).toBe(100);
  const { size, root } = keeper.head();
  expect(size).toBe(100);
  const reads = createReads(home.database);
  const stored = await reads.entries(0, 100);
  for (const index of indexes) {
    expect(stored[index]).toEqual(leaf(`entry ${index}`));
    const proof = await inclusionProof(tileReader(home), index, size);
    const inclusion = { leafHash: leafHash(stored[index]!), index, size, root, proof };
    expect(verifyInclusion(inclusion)).toBe(true);
  }
});

test("ST-79: across tiles and batches, with heads that extend each other", async () => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog(keeper);
  const heads = [keeper.head()];
  for (const count of [1, 254, 1, 1, 300, 600]) {
    await Promise.all(Array.from({ length: count }, (_, i) => journal.append(entry(`e ${i}`))));
    await journal.drain();
    heads.push(keeper.head());
  }
  const { size, root } = heads.at(-1)!;
  expect(size).toBe(1157);
  for (const old of heads) {
    const proof = await consistencyProof(tileReader(home), old.size, size);
    expect(
      verifyConsistency({ oldSize: old.size, oldRoot: old.root, size, root, proof }),
      `${old.size}`,
    ).toBe(true);
  }
});

test("the keeper hears of an entry before the one who appended it", async () => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog(keeper);
  let release!: () => void;
  const held = new Promise<void>((resolve) => (release = resolve));
  keeper.gate = () => held; // the answer is not awaited
  await journal.append(entry("a"));
  expect(keeper.calls).toEqual([{ firstIndex: 0, count: 1 }]);
  await journal.append(entry("b"));
  expect(keeper.calls).toHaveLength(2);
  release();
  await journal.drain();
});

test("intents of one batch share a commit with results of the one before", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const first = await Promise.all([journal.append(intent()), journal.append(intent())]);
  expect(home.commits).toBe(1);
  await Promise.all([
    ...first.map((index) => journal.append(done(index))),
    journal.append(intent()),
    journal.append(intent()),
  ]);
  expect(home.commits).toBe(2);
  expect(await createReads(home.database).counts()).toEqual({
    entries: 6,
    issued: 2,
    pending: 2,
    revoked: 0,
  });
});

test("what arrives during a commit waits for the next one, which takes all of it", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const appended = [journal.append(entry("first"))];
  await vi.waitUntil(() => home.commits === 1, { interval: 0 });
  for (let i = 0; i < 200; i++) appended.push(journal.append(entry(`later ${i}`)));
  await Promise.all(appended);
  expect(home.commits).toBe(2);
});

test("a commit takes at most 256 items", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  await Promise.all(Array.from({ length: 600 }, (_, i) => journal.append(entry(`${i}`))));
  expect(home.commits).toBe(3);
});

test("a commit takes at most 1 MiB, or one item that is larger", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const indexes = await Promise.all([1n, 2n, 3n].map((n) => journal.append(crlIntent(n))));
  expect(home.commits).toBe(1);
  await Promise.all(
    indexes.map((intentIndex) =>
      journal.append({
        kind: "crl-done",
        leaf: leaf("crl"),
        intentIndex,
        crl: randomBytes(2 << 20),
      }),
    ),
  );
  expect(home.commits).toBe(4);
});

test("ST-77: an entry of 65,535 octets is taken, one of 65,536 refused before anything is written", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const item = (length: number): JournalItem => ({ kind: "entry", leaf: Buffer.alloc(length, 1) });
  expect(await journal.append(item(65_535))).toBe(0);
  await expect(journal.append(item(65_536))).rejects.toThrow(RangeError);
  expect(await journal.append(item(0))).toBe(1);
  const reads = createReads(home.database);
  expect((await reads.entries(0, 9)).map(({ length }) => length)).toEqual([65_535, 0]);
});

test("a CRL number that SQLite cannot hold is refused, not rounded", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  await expect(journal.append(crlIntent(1n << 63n))).rejects.toThrow(RangeError);
  await journal.append(crlIntent((1n << 63n) - 1n));
  expect(await createReads(home.database).highestCrlNumber("issuing")).toBe((1n << 63n) - 1n);
});

test.for([
  {
    name: "SQLITE_FULL",
    break: async ({ database: { writer } }: Home) => {
      const [{ page_count: pages }] = (await writer.all("PRAGMA page_count")) as [
        { page_count: number },
      ];
      await writer.all(`PRAGMA max_page_count = ${pages}`);
    },
    mend: ({ database: { writer } }: Home) => writer.all("PRAGMA max_page_count = 1073741823"),
  },
  {
    name: "SQLITE_READONLY",
    break: ({ database: { writer } }: Home) => writer.all("PRAGMA query_only = ON"),
    mend: ({ database: { writer } }: Home) => writer.all("PRAGMA query_only = OFF"),
  },
])("$name: the batch is refused and leaves nothing, and the next one tries again", async (way) => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog(keeper);
  const index = await journal.append(intent());
  await journal.drain();
  await way.break(home);
  const big = (text: string): JournalItem => ({ kind: "entry", leaf: Buffer.alloc(60_000, text) });
  const refused = await Promise.allSettled([
    journal.append(done(index)),
    journal.append(big("a")),
    journal.append(intent()),
  ]);
  for (const result of refused) {
    expect(result).toMatchObject({
      status: "rejected",
      reason: { code: "log-unavailable", cause: { code: way.name } },
    });
  }
  expect(journal.size).toBe(1);
  expect(keeper.head().size).toBe(1);
  await way.mend(home);
  expect(await createReads(home.database).counts()).toMatchObject({ entries: 1, issued: 0 });
  expect(await journal.append(big("b"))).toBe(1);
  expect(await journal.append(done(index))).toBe(2);
  await journal.drain();
  await home.reopen();
  await home.openLog(keeper);
});

test("a commit that failed and came through all the same ends the journal", async () => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog(keeper);
  const { writer } = home.database;
  await journal.append(entry("a"));
  await writer.all("PRAGMA query_only = ON");
  expect(await codeOf(journal.append(entry("b")))).toBe("log-unavailable");
  await writer.all("PRAGMA query_only = OFF");
  await writer.all("INSERT INTO audit_entry VALUES (1, ?)", [leaf("b")]);
  expect(await codeOf(journal.append(entry("c")))).toBe("log-unavailable");
  expect((await journal.failed).message).toContain("left 2 entries instead of 1");
  expect(await codeOf(journal.append(entry("d")))).toBe("log-unavailable");
  expect(keeper.head().size).toBe(1);
});

test("one item that contradicts what is stored does not fail the others of its batch", async () => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog(keeper);
  const issued = await journal.append(intent({ serialNumber: "41" }));
  await journal.append(done(issued));
  await journal.append(revocation("41"));
  await journal.append(crlIntent(5n));
  const results = await Promise.allSettled([
    journal.append(intent()),
    journal.append(revocation("41")), // already revoked
    journal.append(intent({ serialNumber: "41" })), // serial number taken
    journal.append(done(issued)), // already issued
    journal.append(done(1000)), // no such intent
    journal.append(crlIntent(4n)), // a lower number
    journal.append(intent({ notAfter: new Date(Number.NaN) })),
    journal.append(intent({ subject: undefined as unknown as string })),
    journal.append(intent({ notBefore: undefined as unknown as Date })), // not even encodable
    journal.append(entry("last")),
  ]);
  expect(
    results.map((result) =>
      result.status === "fulfilled" ? result.value : (result.reason as { code: string }).code,
    ),
  ).toEqual([4, "revocation-conflict", ...Array.from({ length: 7 }, () => "log-unavailable"), 5]);
  await journal.drain();
  expect(keeper.head().size).toBe(6);
  await home.reopen();
  await home.openLog(keeper);
});

test("two results for one intent in one batch: the first is kept", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const index = await journal.append(intent());
  const results = await Promise.allSettled([
    journal.append(done(index, leaf("one"))),
    journal.append({ kind: "certificate-abandoned", leaf: leaf("a"), intentIndex: index }),
  ]);
  expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
});

test("a checkpoint travels with the next commit, and is the only one kept", async () => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog(keeper);
  const reads = createReads(home.database);
  await journal.append(entry("a"));
  await vi.waitUntil(() => keeper.calls.length === 1);
  await journal.append(entry("b"));
  expect(await reads.checkpoint()).toMatchObject({ size: 1 });
  expect(home.commits).toBe(2);
  await journal.append(entry("c"));
  expect(await reads.checkpoint()).toMatchObject({ size: 2 });
  expect(await home.database.reader.all("SELECT size FROM audit_checkpoint")).toHaveLength(1);
});

test("a checkpoint that nothing follows is stored by itself", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const reads = createReads(home.database);
  await journal.append(entry("a"));
  const checkpoint = await vi.waitUntil(() => reads.checkpoint(), { timeout: 5000 });
  expect(checkpoint).toMatchObject({ size: 1 });
  expect(checkpoint!.note.startsWith(`${origin}\n1\n`)).toBe(true);
  expect(home.commits).toBe(2);
});

test("drain waits for commit, head and checkpoint; what follows close is refused", async () => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog(keeper);
  const appended = journal.append(entry("a"));
  await journal.drain();
  expect(await createReads(home.database).checkpoint()).toMatchObject({ size: 1 });
  expect(await appended).toBe(0);
  const last = journal.append(entry("b"));
  await journal.close();
  expect(await last).toBe(1);
  expect(keeper.head().size).toBe(2);
  expect(await codeOf(journal.append(entry("c")))).toBe("log-unavailable");
});

test("a head that the keeper refuses ends the journal", async () => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog(keeper);
  await journal.append(entry("a"));
  keeper.refuse = true;
  await journal.append(entry("b"));
  expect((await journal.failed).message).toBe("does not extend the head");
  expect(await codeOf(journal.append(entry("c")))).toBe("log-unavailable");
  await journal.drain();
  // The next start has it signed.
  keeper.refuse = false;
  await home.reopen();
  expect((await home.openLog(keeper)).size).toBe(2);
  expect(keeper.head().size).toBe(2);
});

test("a keeper that signs another head ends the journal", async () => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog({
    ...keeper,
    append: async (first, hashes) => ({ ...(await keeper.append(first, hashes)), size: 7 }),
  });
  await journal.append(entry("a"));
  expect((await journal.failed).message).toContain("not that of this log");
});

test("an Idempotency-Key moves to the newest intent, and is forgotten after 24 hours", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const reads = createReads(home.database);
  const key = (changes: object) => ({
    idempotency: { requester: "deploy", key: "k", bodySha256: randomBytes(32), ...changes },
  });
  const day = 24 * 3_600_000;
  const past = new Date(certificateRow().createdAt.getTime() - day - 1);
  await journal.append(intent({ ...key({ key: "old" }), createdAt: past }));
  expect(await reads.idempotency("deploy", "old", past)).toBeDefined();
  const first = intent(key({}));
  const second = intent(key({}));
  await journal.append(first);
  expect(await reads.idempotency("deploy", "old", past)).toBeUndefined();
  const index = await journal.append(second);
  const found = await reads.idempotency("deploy", "k", past);
  expect(found?.certificate.index).toBe(index);
  expect(second).toMatchObject({ row: { idempotency: { bodySha256: found?.bodySha256 } } });
  expect(await reads.idempotency("other", "k", past)).toBeUndefined();
});

// Opening a log

test("ST-73: yesterday's database file is refused", async () => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog(keeper);
  for (let i = 0; i < 3; i++) await journal.append(entry(`${i}`));
  await journal.drain();
  await home.database.close();
  copyFileSync(home.file, `${home.file}.yesterday`);
  home.database = await openDatabase(home.file);
  const today = await home.openLog(keeper);
  await today.append(entry("today"));
  await today.drain();
  await home.database.close();
  copyFileSync(`${home.file}.yesterday`, home.file);
  home.database = await openDatabase(home.file);
  await expect(home.openLog(keeper)).rejects.toMatchObject({
    code: "rolled-back",
    members: { size: 3, headSize: 4 },
  });
});

test("another log of the same length is refused", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  for (let i = 0; i < 3; i++) await journal.append(entry(`${i}`));
  await journal.drain();
  await home.reopen();
  const other = CompactRange.empty();
  for (const text of ["0", "1", "x"]) other.append(leafHash(leaf(text)));
  expect(await codeOf(home.openLog(createTestKeeper(other)))).toBe("rolled-back");
});

test("a log without the keeper's head is refused; without a log there is nothing to miss", async () => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog(keeper, "missing");
  await journal.append(entry("a"));
  await journal.drain();
  await home.reopen();
  expect(await codeOf(home.openLog(keeper, "missing"))).toBe("head-missing");
});

test.for([1, 255, 256, 5000])(
  "AUDIT-LOG 9.3: a database %i entries ahead of the head is signed",
  async (ahead) => {
    await using home = await createHome();
    const keeper = createTestKeeper();
    const journal = await home.openLog(keeper);
    await journal.append(entry("a"));
    await journal.append(entry("b"));
    const { size, root } = keeper.head();
    const behind = CompactRange.empty();
    for (const text of ["a", "b"]) behind.append(leafHash(leaf(text)));
    expect(behind.root()).toEqual(root);
    await Promise.all(Array.from({ length: ahead }, (_, i) => journal.append(entry(`${i}`))));
    await journal.drain();
    const whole = keeper.head();
    await home.reopen();
    const restored = createTestKeeper(behind);
    const reopened = await home.openLog(restored, { size, root });
    expect(restored.head()).toEqual(whole);
    expect(await reopened.append(entry("next"))).toBe(2 + ahead);
    await reopened.drain();
    expect(await createReads(home.database).checkpoint()).toMatchObject({ size: 3 + ahead });
  },
);

test.for([
  {
    name: "an entry of the last tile was changed",
    sql: ["UPDATE audit_entry SET leaf = x'00' WHERE idx = 299"],
  },
  { name: "the last entry is gone", sql: ["DELETE FROM audit_entry WHERE idx = 299"], head: 299 },
  {
    name: "a hash of the last tile was changed",
    sql: ["UPDATE audit_tile SET hashes = zeroblob(44 * 32) WHERE level = 0 AND n = 1"],
  },
  {
    name: "the last tile is too long",
    sql: [
      "UPDATE audit_tile SET hashes = CAST(hashes || zeroblob(32) AS BLOB) WHERE level = 0 AND n = 1",
    ],
  },
  { name: "the last tile is gone", sql: ["DELETE FROM audit_tile WHERE level = 0 AND n = 1"] },
  {
    name: "a full tile was changed",
    sql: ["UPDATE audit_tile SET hashes = zeroblob(8192) WHERE level = 0 AND n = 0"],
  },
  {
    name: "a tile above was changed",
    sql: ["UPDATE audit_tile SET hashes = zeroblob(32) WHERE level = 1"],
  },
  { name: "there is a tile too many", sql: ["INSERT INTO audit_tile VALUES (2, 0, zeroblob(32))"] },
  {
    name: "the checkpoint is longer than the log",
    sql: ["UPDATE audit_checkpoint SET size = 301"],
  },
  {
    name: "the checkpoint has another root",
    sql: [
      `UPDATE audit_checkpoint SET note = '${origin}' || char(10) || '300' || char(10) || '${Buffer.alloc(32).toString("base64")}' || char(10) || char(10)`,
    ],
  },
  { name: "the checkpoint is none", sql: ["UPDATE audit_checkpoint SET note = 'nothing'"] },
])("a start notices when $name", async ({ sql }) => {
  await using home = await createHome();
  const keeper = createTestKeeper();
  const journal = await home.openLog(keeper);
  await Promise.all(Array.from({ length: 300 }, (_, i) => journal.append(entry(`${i}`))));
  await journal.drain();
  await home.reopen();
  const { writer } = home.database;
  const triggers = await writer.all<{ name: string }>(
    "SELECT name FROM sqlite_master WHERE type = 'trigger'",
  );
  for (const { name } of triggers) await writer.all(`DROP TRIGGER "${name}"`);
  for (const statement of sql) await writer.all(statement);
  expect(await codeOf(home.openLog(keeper))).toBe("rolled-back");
});

test("items that are written together are written all or not at all, in one order and without the others", async () => {
  await using home = await createHome();
  const log = await home.openLog(createTestKeeper());
  const [first, second] = [intent(), intent()];
  const index = await log.append(first);
  const other = await log.append(second);
  const certificate = Buffer.from("a certificate");
  // The second of these is a result of nothing.
  const refused = log.appendAll([done(index, certificate), done(99, certificate)]);
  const beside = log.append(entry("beside"));
  await expect(refused).rejects.toEqual(expect.objectContaining({ code: "log-unavailable" }));
  expect(await beside).toBe(2);
  expect(await log.appendAll([done(index, certificate), done(other, certificate)])).toBe(3);
  expect(log.size).toBe(5);
  await log.close();
});
