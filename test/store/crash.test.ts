import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openAuditDatabase } from "../../src/audit/database-rows.ts";
import { CompactRange, leafHash } from "../../src/audit/merkle.ts";
import { verifyLog } from "../../src/audit/verify.ts";
import { createReads } from "../../src/store/reads.ts";
import { openDatabase } from "../../src/store/database.ts";
import { createHome, createTestKeeper } from "./fixture.ts";

const script = new URL("../../dist/test/store/append-entries.js", import.meta.url).pathname;

test("ST-78: killed at any moment, the log opens again with everything it acknowledged", async () => {
  if (!existsSync(script)) throw new Error("run tsc first: this test starts a process from dist/");
  await using home = await createHome();
  await home.database.close();
  const headFile = join(home.directory, "head");
  writeFileSync(headFile, "0");
  const acknowledged = new Map<number, { what: string; serialNumber: string }>();
  for (let round = 0; round < 20; round++) {
    for (const line of await runAndKill(home.file, headFile, randomInt(1, 400))) {
      const [index, what, serialNumber] = line.split(" ") as [string, string, string];
      expect(acknowledged.has(Number(index)), `index ${index} is given once`).toBe(false);
      acknowledged.set(Number(index), { what, serialNumber });
    }

    home.database = await openDatabase(home.file);
    const reads = createReads(home.database);
    const keeper = createTestKeeper(headRange(headFile));
    const journal = await home.openLog(keeper); // verifies the edge, and that the head is extended
    const leaves = await reads.entries(0, journal.size);
    const whole = CompactRange.empty();
    for (const bytes of leaves) whole.append(leafHash(bytes));
    expect(leaves.length).toBe(journal.size);
    expect(keeper.head()).toEqual({ size: journal.size, root: whole.root() });
    for (const [index, { what, serialNumber }] of acknowledged) {
      expect(index).toBeLessThan(journal.size);
      const certificate = await reads.certificate("issuing", serialNumber);
      if (what === "done") expect(certificate?.doneIndex).toBe(index);
      else expect(certificate?.index).toBe(index);
    }
    // No row without its record: each names the index that its record has.
    for (const { index, serialNumber } of (await reads.pendingIntents()).certificates) {
      expect(Buffer.from(leaves[index]!).toString()).toContain(serialNumber);
    }
    await journal.close();
    writeFileSync(headFile, headText(whole));
    await home.database.close();
  }
  home.database = await openDatabase(home.file);
  expect(acknowledged.size).toBeGreaterThan(20);
});

test("ST-49: killed at any moment, each step of a ceremony or a share set is there with its record or not at all", async () => {
  if (!existsSync(script)) throw new Error("run tsc first: this test starts a process from dist/");
  await using home = await createHome();
  await home.database.close();
  const headFile = join(home.directory, "head");
  writeFileSync(headFile, "0");
  const acknowledged = new Map<number, string>();
  for (let round = 0; round < 10; round++) {
    // The last one is long enough for all kinds.
    const count = round < 9 ? randomInt(1, 400) : 600;
    for (const line of await runAndKill(home.file, headFile, count, "custody")) {
      const [index, kind] = line.split(" ") as [string, string];
      acknowledged.set(Number(index), kind);
    }
    home.database = await openDatabase(home.file);
    const journal = await home.openLog(createTestKeeper(headRange(headFile)));
    const leaves = await createReads(home.database).entries(0, journal.size);
    await journal.close();
    const whole = CompactRange.empty();
    for (const bytes of leaves) whole.append(leafHash(bytes));
    writeFileSync(headFile, headText(whole));
    await home.database.close();

    const audited = await openAuditDatabase(home.file);
    const { failures } = await verifyLog(audited.log, { database: audited.rows });
    await audited.close();
    expect(failures).toEqual([]);
    for (const [index, kind] of acknowledged) {
      const record = Buffer.from(leaves[index] ?? "").toString();
      expect(record, `${index}`).toContain(recordOf[kind]);
    }
  }
  home.database = await openDatabase(home.file);
  expect(new Set(acknowledged.values()).size).toBe(Object.keys(recordOf).length);
});

/** The record of each kind of item. */
const recordOf: Readonly<Record<string, string>> = {
  ceremony: "/ceremony.opened/",
  "ceremony-state": "/ceremony.",
  approval: "/approval.accepted/",
  abort: "abort-asked",
  unlock: "/unlock.opened/",
  "unlock-state": "/unlock.closed/",
  submission: "/share.",
  "share-set": "/key.generated/",
  "share-confirmed": "/share.confirmed/",
  "share-proved": "/share.drill/",
  "share-set-activated": "/share-set.activated/",
  "share-set-dropped": "/ceremony.closed/",
};

/** Lets the process acknowledge some entries, kills it, and returns what it had acknowledged by then. */
async function runAndKill(
  file: string,
  headFile: string,
  count: number,
  ...what: readonly "custody"[]
): Promise<string[]> {
  const child = spawn(process.execPath, [script, file, headFile, ...what], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exit = once(child, "exit");
  let output = "";
  for await (const chunk of child.stdout.setEncoding("utf8") as AsyncIterable<string>) {
    output += chunk;
    if (output.split("\n").length > count) child.kill("SIGKILL");
  }
  expect(await exit).toEqual([null, "SIGKILL"]);
  // What stands after the last line break was cut off by the kill.
  return output.split("\n").slice(1, -1);
}

function headRange(headFile: string): CompactRange {
  const [size, ...nodes] = readFileSync(headFile, "utf8").split("\n");
  return CompactRange.of(
    0,
    Number(size),
    nodes.map((node) => Buffer.from(node, "hex")),
  );
}

function headText(range: CompactRange): string {
  return [range.end, ...range.nodes.map((node) => Buffer.from(node).toString("hex"))].join("\n");
}
