import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { directoryLogSource, exportLog } from "../../src/audit/log-directory.ts";
import { TileTree } from "../../src/audit/tiles.ts";
import { verifyLog } from "../../src/audit/verify.ts";
import { issuanceLeaves, MemoryLog } from "../support/log.ts";
import { buildSumdb } from "../support/sumdb.ts";

const directory = mkdtempSync(join(tmpdir(), "countersign-sumdb-"));
const leaves = issuanceLeaves(70_000);
let program = "";

beforeAll(() => {
  program = buildSumdb(directory);
}, 120_000);

afterAll(() => rmSync(directory, { recursive: true }));

test.for([0, 1, 255, 256, 257, 65_536, 70_000])(
  "ST-76: Go's sumdb/note and sumdb/tlog accept an exported log of %i entries, and so does the verifier",
  { timeout: 60_000 },
  async (size) => {
    const log = new MemoryLog();
    for (let from = 0; from < size; from += 1000)
      log.append(leaves.slice(from, Math.min(size, from + 1000)));
    const exported = join(directory, String(size));
    await exportLog(log.reader(), exported);

    const key = log.signer.verifierKey.text;
    const oldSize = Math.floor((size * 2) / 3);
    const oldRoot = (await TileTree.resume(oldSize, log.readTile)).root();
    const old = oldSize === 0 ? [] : [String(oldSize), Buffer.from(oldRoot).toString("base64")];
    const { stdout, status } = spawnSync(program, [exported, key, ...old], { encoding: "utf8" });
    expect(stdout).toBe(`ok ${size}\n`);
    expect(status).toBe(0);

    const report = await verifyLog(directoryLogSource(exported), { key });
    expect(report.failures).toEqual([]);
    expect(report).toMatchObject({ consistent: true, anchored: true, checkpoint: { size } });
  },
);

test("ST-76: what Go accepts is not everything: another key, another root", async () => {
  const log = new MemoryLog();
  log.append(leaves.slice(0, 300));
  const exported = join(directory, "negative");
  await exportLog(log.reader(), exported);
  const other = new MemoryLog("other.example/audit").signer.verifierKey.text;
  expect(spawnSync(program, [exported, other], { encoding: "utf8" }).status).toBe(1);
  const key = log.signer.verifierKey.text;
  const wrong = ["100", Buffer.alloc(32).toString("base64")];
  expect(spawnSync(program, [exported, key, ...wrong], { encoding: "utf8" }).stdout).toContain(
    "consistency",
  );
});
