import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { lockHome, openDatabase } from "../../src/store/database.ts";
import { codeOf, createHome } from "./fixture.ts";

test("the migrations build what the entities describe", async () => {
  await using home = await createHome();
  const { dataSource } = home.database.writer;
  const { upQueries } = await dataSource.driver.createSchemaBuilder().log();
  expect(upQueries.map(({ query }) => query)).toEqual([]);
  expect(dataSource.options.synchronize).toBe(false);
});

test("a database is brought up to date once", async () => {
  await using home = await createHome();
  await home.reopen();
  expect(await home.database.writer.dataSource.showMigrations()).toBe(false);
});

test("a database of a newer version is left alone", async () => {
  await using home = await createHome();
  const { writer } = home.database;
  await writer.all(
    "INSERT INTO migrations (timestamp, name) VALUES (9999999999999, 'Later9999999999999')",
  );
  await writer.all("PRAGMA wal_checkpoint");
  expect(await codeOf(openDatabase(home.file))).toBe("home-unknown");
});

test("a commit is on disk when it is done: WAL and synchronous=FULL", async () => {
  await using home = await createHome();
  const { writer } = home.database;
  expect(await writer.all("PRAGMA journal_mode")).toEqual([{ journal_mode: "wal" }]);
  expect(await writer.all("PRAGMA synchronous")).toEqual([{ synchronous: 2 }]);
});

test("only their owner can read the files of the database", async () => {
  await using home = await createHome();
  for (const suffix of ["", "-wal", "-shm"]) {
    expect(statSync(home.file + suffix).mode & 0o777).toBe(0o600);
  }
  chmodSync(home.file, 0o644);
  await home.reopen();
  expect(statSync(home.file).mode & 0o777).toBe(0o600);
});

test.for(["reader", "scanner"] as const)("the %s cannot write", async (name) => {
  await using home = await createHome();
  const connection = home.database[name];
  expect(await codeOf(connection.all("INSERT INTO audit_checkpoint VALUES (1, 'x')"))).toBe(
    "SQLITE_READONLY",
  );
  expect(await codeOf(connection.all("CREATE TABLE t (a)"))).toBe("SQLITE_READONLY");
});

test("statements of one connection run in the order of the calls", async () => {
  await using home = await createHome();
  const { writer } = home.database;
  await writer.all("CREATE TEMP TABLE t (a)");
  await Promise.all(
    Array.from({ length: 50 }, (_, a) => writer.all("INSERT INTO t VALUES (?)", [a])),
  );
  const rows = await writer.all<{ a: number }>("SELECT a FROM t ORDER BY rowid");
  expect(rows.map(({ a }) => a)).toEqual(Array.from({ length: 50 }, (_, a) => a));
});

test("a statement that fails does not hold up the next", async () => {
  await using home = await createHome();
  const { reader } = home.database;
  const results = await Promise.allSettled([
    reader.all("SELECT * FROM nothing"),
    reader.all("SELECT abs(?) AS a", [-(2 ** 31)]),
    reader.all("SELECT abs(?) AS a", [-3]),
  ]);
  expect(results.map(({ status }) => status)).toEqual(["rejected", "fulfilled", "fulfilled"]);
});

test("more different statements than are kept", async () => {
  await using home = await createHome();
  for (let round = 0; round < 2; round++) {
    for (let a = 0; a < 200; a++) {
      expect(await home.database.reader.all(`SELECT ${a} AS a`)).toEqual([{ a }]);
    }
  }
});

test("a home has one process: a second one is refused until the first lets go", async () => {
  const directory = mkdtempSync(join(tmpdir(), "countersign-lock-"));
  const file = join(directory, "lock");
  const lock = await lockHome(file);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  // The refused attempt must not take the lock from its holder: POSIX locks end when any descriptor closes.
  expect(await codeOf(lockHome(file))).toBe("home-in-use");
  expect(await codeOf(lockHome(file))).toBe("home-in-use");
  expect(await lockInAnotherProcess(file)).toBe("home-in-use");
  await lock.release();
  await (await lockHome(file)).release();
  rmSync(directory, { recursive: true });
});

test.for([
  { name: "garbage", content: "not a database. ".repeat(300) },
  { name: "a short text", content: "nothing" },
])("a database file of $name is refused as rolled-back, and stays", async ({ content }) => {
  const directory = mkdtempSync(join(tmpdir(), "countersign-garbage-"));
  const file = join(directory, "countersign.db");
  writeFileSync(file, content);
  expect(await codeOf(openDatabase(file))).toBe("rolled-back");
  expect(readFileSync(file, "utf8")).toBe(content);
  rmSync(directory, { recursive: true });
});

test("a database with a damaged schema is refused as rolled-back", async () => {
  const home = await createHome();
  await home.database.close();
  const bytes = readFileSync(home.file);
  bytes.fill(0xa5, 100, 4096); // the header stays
  writeFileSync(home.file, bytes);
  expect(await codeOf(openDatabase(home.file))).toBe("rolled-back");
  rmSync(home.directory, { recursive: true });
});

test("a lock that is something else is not taken", async () => {
  const directory = mkdtempSync(join(tmpdir(), "countersign-lock-"));
  const file = join(directory, "lock");
  writeFileSync(file, "not a lock. ".repeat(100));
  expect(await codeOf(lockHome(file))).toBe("home-unknown");
  rmSync(directory, { recursive: true });
});

// Of the kernel's own file systems: refused to root as well.
test.for([
  { name: "a folder that takes no files", file: "/sys/countersign.db" },
  { name: "a file that cannot be changed", file: "/proc/sys/kernel/ostype" },
  { name: "a folder that is not there", file: "/nowhere/service/countersign.db" },
])("$name: the home cannot be written", async ({ file }) => {
  for (const opening of [openDatabase(file), lockHome(file)]) {
    await expect(opening).rejects.toMatchObject({
      code: "log-unavailable",
      message: expect.stringMatching(/^the home \/.* cannot be written: E[A-Z]+/),
    });
  }
});

test("the kernel frees the home of a process that was killed", async () => {
  const directory = mkdtempSync(join(tmpdir(), "countersign-lock-"));
  const file = join(directory, "lock");
  const holder = spawnLock(file, "hold");
  const [line] = (await once(holder.stdout.setEncoding("utf8"), "data")) as [string];
  expect(line.trim()).toBe("locked");
  expect(await codeOf(lockHome(file))).toBe("home-in-use");
  const exit = once(holder, "exit");
  holder.kill("SIGKILL");
  await exit;
  await (await lockHome(file)).release();
  rmSync(directory, { recursive: true });
});

async function lockInAnotherProcess(file: string): Promise<string> {
  const child = spawnLock(file, "try");
  const [line] = (await once(child.stdout.setEncoding("utf8"), "data")) as [string];
  return line.trim();
}

function spawnLock(file: string, mode: "hold" | "try") {
  const script = new URL("../../dist/test/store/lock-home.js", import.meta.url).pathname;
  if (!existsSync(script)) throw new Error("run tsc first: this test starts a process from dist/");
  return spawn(process.execPath, [script, file, mode], { stdio: ["ignore", "pipe", "inherit"] });
}
