/**
 * A process that appends to a log until it is killed: `append-entries.js DATABASE HEAD [custody]`. Each line of its
 * output is an index that was acknowledged, with the serial number of the row if it has one. With `custody` it tells
 * the stories of keys that are dealt, unlocked and dealt anew.
 */

import { randomUUID } from "node:crypto";
import { readFileSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { CompactRange } from "../../src/audit/merkle.ts";
import { openDatabase } from "../../src/store/database.ts";
import { openJournal } from "../../src/store/journal.ts";
import { story } from "../support/custody-story.ts";
import { createTestKeeper, done, intent, type TestKeeper } from "./fixture.ts";

const [file, headFile, what] = process.argv.slice(2) as [string, string, string | undefined];
const nodes = readFileSync(headFile, "utf8").split("\n").slice(1);
const size = Number(readFileSync(headFile, "utf8").split("\n")[0]);
const range = CompactRange.of(
  0,
  size,
  nodes.filter((node) => node !== "").map((node) => Buffer.from(node, "hex")),
);
const memory = createTestKeeper(range);
const keeper: TestKeeper = {
  ...memory,
  // The head file is written whole before the answer, as the real keeper's is.
  append: (first, hashes) => {
    const answer = memory.append(first, hashes);
    const hex = range.nodes.map((node) => Buffer.from(node).toString("hex"));
    writeFileSync(`${headFile}.new`, [range.end, ...hex].join("\n"));
    renameSync(`${headFile}.new`, headFile);
    return answer;
  },
};
const database = await openDatabase(file);
const journal = await openJournal({
  database,
  keeper,
  head: keeper.head(),
  now: () => new Date(),
});
writeSync(1, "open\n");

async function issue(): Promise<void> {
  const item = intent();
  if (item.kind !== "certificate-intent") return;
  const index = await journal.append(item);
  writeSync(1, `${index} intent ${item.row.serialNumber}\n`);
  const doneIndex = await journal.append(done(index));
  writeSync(1, `${doneIndex} done ${item.row.serialNumber}\n`);
}

async function tell(prefix: string): Promise<void> {
  for (const item of story(prefix).items) {
    if (item.kind === "roster") continue; // there is one, whoever else tells a story
    const index = await journal.append(item);
    writeSync(1, `${index} ${item.kind} ${prefix}\n`);
  }
}

await Promise.all(
  Array.from({ length: 8 }, async () => {
    for (;;) await (what === "custody" ? tell(`${randomUUID()} `) : issue());
  }),
);
