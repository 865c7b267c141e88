import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { coreOf, coresAreFiles } from "./core-dump.ts";
import { scanFiles } from "./disk-scan.ts";
import { startSecretHolder } from "./secret-holder.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "countersign-scan-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
});

/** `file: form, part`, without the offsets. */
function found(secret: Uint8Array, except?: readonly string[]): string[] {
  const { findings } = scanFiles(folder, { secret }, except);
  return findings.map(({ file, form, part }) => `${file}: ${form}, ${part}`).toSorted();
}

test("files of all folders are searched, in every form, and their names", () => {
  const secret = randomBytes(20);
  mkdirSync(join(folder, "a", ".hidden"), { recursive: true });
  writeFileSync(join(folder, "a", "plain"), Buffer.concat([randomBytes(3_000_000), secret]));
  writeFileSync(join(folder, "a", ".hidden", "text"), `key: ${secret.toString("base64")}\n`);
  writeFileSync(join(folder, `${secret.toString("hex")}.txt`), "");
  writeFileSync(join(folder, "other"), randomBytes(100));
  symlinkSync("/etc", join(folder, "link"));
  expect(new Set(found(secret))).toEqual(
    new Set([
      `${secret.toString("hex")}.txt (its name): hex, whole`,
      "a/.hidden/text: base64 +0, whole",
      "a/plain: raw, whole",
    ]),
  );
  expect(scanFiles(folder, { secret }).files).toHaveLength(4);
});

test("what may hold it is left out, and must be there", () => {
  const secret = randomBytes(20);
  writeFileSync(join(folder, "pin"), secret);
  expect(found(secret)).toEqual(["pin: raw, whole"]);
  expect(found(secret, ["pin"])).toEqual([]);
  expect(() => found(secret, ["pin", "other"])).toThrow("not there: other");
});

/** A connection that stays open: the last one to go would empty the write-ahead log. */
function sqlite(file: string): (sql: string) => Promise<void> {
  const shell = spawn("sqlite3", ["-bail", file], { stdio: ["pipe", "pipe", "inherit"] });
  onTestFinished(() => void shell.kill("SIGKILL"));
  const lines = createInterface(shell.stdout)[Symbol.asyncIterator]();
  return async (sql) => {
    shell.stdin.write(`${sql}; SELECT 'done';\n`);
    // oxlint-disable-next-line no-await-in-loop -- pragmas answer, too
    while ((await lines.next()).value !== "done");
  };
}

test("a database's write-ahead log is searched, and what was deleted and not overwritten", async () => {
  const run = sqlite(join(folder, "x.sqlite"));
  await run("PRAGMA journal_mode=WAL; PRAGMA secure_delete=OFF; CREATE TABLE t (x)");
  const insert = (octets: Buffer): Promise<void> =>
    run(`INSERT INTO t VALUES (x'${octets.toString("hex")}')`);
  const secret = randomBytes(32);
  await insert(secret);
  expect(found(secret)).toEqual(["x.sqlite-wal: raw, whole"]);
  await run("PRAGMA wal_checkpoint(TRUNCATE)");
  expect(found(secret)).toEqual(["x.sqlite: raw, whole"]);
  await run("DELETE FROM t; PRAGMA wal_checkpoint(TRUNCATE)");
  expect(found(secret)).toEqual(["x.sqlite: raw, whole"]);

  const other = randomBytes(32);
  await run("PRAGMA secure_delete=ON");
  await insert(other);
  await run("DELETE FROM t; PRAGMA wal_checkpoint(TRUNCATE)");
  expect(found(other)).toEqual([]);
});

test("what a database keeps in two pages is found by its halves", async () => {
  const run = sqlite(join(folder, "x.sqlite"));
  const secrets = Array.from({ length: 300 }, () => randomBytes(32));
  const hex = Buffer.concat(secrets).toString("hex"); // more than two pages of 4 KiB
  await run(`CREATE TABLE t (x); INSERT INTO t VALUES (x'${hex}')`);
  const parts = secrets.map((secret) => scanFiles(folder, { secret }).findings[0]?.part);
  expect(parts).not.toContain(undefined);
  expect(parts.filter((part) => part !== "whole").length).toBeGreaterThan(0);
});

test.skipIf(!coresAreFiles())(
  "ST-55: a core dump is found, and what was in memory is in it, but for a process that forbids it",
  async () => {
    const secret = randomBytes(32);
    const harden = new URL("../../dist/src/custody/harden.js", import.meta.url).pathname;
    for (const flags of [[], ["--import", harden]]) {
      const cwd = mkdtempSync(join(folder, "cwd-"));
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const child = await startSecretHolder("a buffer", secret, { cwd, flags });
      const dumps = join(folder, `dumps-${flags.length}`);
      // oxlint-disable-next-line no-await-in-loop
      const core = await coreOf(child.pid!, dumps);
      const { findings } = scanFiles(dumps, { secret });
      expect(statSync(core!).size).toBeGreaterThan(0);
      expect(findings.some(({ form }) => form === "raw")).toBe(flags.length === 0);
    }
  },
);
