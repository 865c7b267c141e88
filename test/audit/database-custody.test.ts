import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkpointText } from "../../src/audit/checkpoint.ts";
import { openAuditDatabase } from "../../src/audit/database-rows.ts";
import { encodeEntry } from "../../src/audit/entry.ts";
import { signNote } from "../../src/audit/signed-note.ts";
import { TileTree } from "../../src/audit/tiles.ts";
import { verifyLog, type VerifyReport } from "../../src/audit/verify.ts";
import type { CustodyItem } from "../../src/ceremony/journal.ts";
import type { JournalItem, LogHeadKeeper } from "../../src/issuance/journal.ts";
import { openDatabase } from "../../src/store/database.ts";
import { openJournal } from "../../src/store/journal.ts";
import {
  approval,
  at,
  ceremony,
  ceremonyState,
  proved,
  story,
  submission,
  tbs,
  unlockState,
} from "../support/custody-story.ts";
import { IssuedLog, runSql, tamper } from "../support/log-database.ts";
import { logSigner, sha256 } from "../support/log.ts";

const directory = mkdtempSync(join(tmpdir(), "countersign-custody-"));
const original = join(directory, "original.sqlite");
const origin = "ca.example.com/audit";
const signer = logSigner(origin);
const key = signer.verifierKey.text;

/** A database that the service itself has written. */
async function write(
  file: string,
  items: readonly (JournalItem | CustodyItem)[],
): Promise<number[]> {
  const tree = TileTree.empty();
  const keeper: LogHeadKeeper = {
    async append(_first, hashes) {
      tree.append(hashes);
      const root = tree.root();
      const note = signNote(checkpointText(origin, tree.size, root), signer);
      return { size: tree.size, root, note };
    },
  };
  const database = await openDatabase(file);
  const journal = await openJournal({ database, keeper, head: "missing", now: () => at });
  const indexes = await Promise.all(items.map((item) => journal.append(item)));
  await journal.close();
  await database.close();
  runSql(file, "PRAGMA journal_mode = DELETE");
  return indexes;
}

const started: JournalItem = {
  kind: "entry",
  leaf: encodeEntry({
    type: "log.started",
    at,
    actor: { kind: "service", id: "ca.example.com" },
    subject: {},
    data: { origin },
  }),
};
const { items, ceremonies, unlocks, sets } = story();

beforeAll(() => write(original, [started, ...items]));
afterAll(() => rmSync(directory, { recursive: true }));

let copies = 0;

async function verify(file: string): Promise<VerifyReport> {
  const database = await openAuditDatabase(file);
  try {
    return await verifyLog(database.log, { key, database: database.rows });
  } finally {
    await database.close();
  }
}

async function verifyTampered(sql: string): Promise<VerifyReport> {
  const file = join(directory, `${copies++}.sqlite`);
  copyFileSync(original, file);
  if (sql !== "") tamper(file, sql);
  return verify(file);
}

const found = ({ failures }: VerifyReport): string[] =>
  failures.map(({ rule, position, detail }) => `${rule} ${position}: ${detail}`);

test("AUDIT 9.6 rule 11: ceremonies, unlocks and shares that the log accounts for", async () => {
  const report = await verifyTampered("");
  expect(found(report)).toEqual([]);
  expect(report).toMatchObject({ consistent: true, anchored: true, notices: [] });
});

/** The index of an item's record. */
const indexOf = (item: CustodyItem): number => items.indexOf(item) + 1;
const about = (item: { row: { digest: string } }) => `digest = '${item.row.digest}'`;
const { generate, sign, window, open, people } = ceremonies;
const { signing, opening } = unlocks;
const { first, second, third, fourth } = sets;
const agreed = items.find((item) => item.kind === "approval" && item.row.operator === "dora")!;
const aborted = items.find((item) => item.kind === "abort")!;
const given = items.find((item) => item.kind === "submission" && item.row.operator === "alice")!;
const refused = items.find((item) => item.kind === "submission" && item.row.operator === "carol")!;
const grown = items.findLast((item) => item.kind === "roster")!;
const zero = `sha256:${"0".repeat(64)}`;
const share = ({ row }: typeof first, index: number) =>
  `share_set = '${row.digest}' AND idx = ${index}`;
const named = {
  approval: `approval ${sign.row.digest}/dora`,
  abort: `abort ${window.row.digest}/alice`,
  give: `submission ${signing.row.digest}/alice`,
  refuse: `submission ${signing.row.digest}/carol`,
};

/** A row that differs from its record in one column. */
const changed: { row: string; table: string; where: string; entry: number; columns: string }[] = [
  {
    row: "roster_version 2",
    table: "roster_version",
    where: "version = 2",
    entry: indexOf(grown),
    columns: `digest = '${zero}' | document = x'7b7d' | evidence = '{}' | evidence = replace(evidence, 'alice', 'mallory') |
      evidence = json_remove(evidence, '$.ceremony') | evidence = 'x' |
      evidence = json_set(evidence, '$.ceremony.note', 'x') |
      evidence = json_set(evidence, '$.ceremony.approvals[0].statement', 'AAAA')`,
  },
  {
    row: "roster_version 1",
    table: "roster_version",
    where: "version = 1",
    entry: 1,
    columns: `evidence = json_set(evidence, '$.ceremony', json('{"note":"x","approvals":[]}'))`,
  },
  {
    row: `ceremony ${sign.row.digest}`,
    table: "ceremony",
    where: about(sign),
    entry: indexOf(sign),
    columns: `id = 'x' | kind = 'window' | key_id = NULL | key_id = '${"0".repeat(64)}' | proposer = 'mallory' |
      note = replace(note, 'sign', 'sing') | not_after = not_after + 1 | created_at = created_at + 60001`,
  },
  {
    row: named.approval,
    table: "approval",
    where: "operator = 'dora'",
    entry: indexOf(agreed),
    columns: `verdict = 'reject' | role = 'witness' | statement = x'7b7d' | signature = 'x' | at = at + 60001`,
  },
  {
    row: named.abort,
    table: "abort",
    where: "true",
    entry: indexOf(aborted),
    columns: "statement = x'7b7d' | signature = 'x'",
  },
  {
    row: `unlock ${signing.row.digest}`,
    table: "unlock",
    where: about(signing),
    entry: indexOf(signing),
    columns: `id = 'x' | ceremony = '${window.row.digest}' | key_id = 'x' | share_set = '${second.row.digest}' |
      note = 'x' | expires_at = expires_at + 60001`,
  },
  {
    row: named.give,
    table: "submission",
    where: "operator = 'alice'",
    entry: indexOf(given),
    columns: "verdict = 'refuse' | statement = x'7b7d' | signature = 'x' | at = at - 60001",
  },
  {
    row: named.refuse,
    table: "submission",
    where: "operator = 'carol'",
    entry: indexOf(refused),
    columns: "verdict = 'give' | signature = 'x'",
  },
  {
    row: `share_set ${second.row.digest}`,
    table: "share_set",
    where: about(second),
    entry: indexOf(second),
    columns: `key_id = '${"0".repeat(64)}' | epoch = 7 | ceremony = '${generate.row.digest}' | note = 'x'`,
  },
];

test.for(
  changed.flatMap(({ columns, ...rest }) =>
    columns
      .split(" | ")
      .map((change) => ({ ...rest, change: change.replaceAll(/\s+/g, " ").trim() })),
  ),
)("AUDIT 9.6 rule 11: $table with $change is found and named", async (way) => {
  const { row, table, where, entry, change } = way;
  const report = await verifyTampered(`UPDATE "${table}" SET ${change} WHERE ${where}`);
  const column = change.split(" ")[0]!;
  expect(found(report)).toEqual([`LOG-11 ${row}: it is not what entry ${entry} says: ${column}`]);
});

test.for<{ name: string; sql: string; want: string[] }>([
  // deleted
  {
    name: "a version of the roster deleted",
    sql: "DELETE FROM roster_version WHERE version = 2",
    want: [`entry ${indexOf(grown)}: this roster.changed has no row in roster_version`],
  },
  {
    name: "a ceremony deleted",
    sql: `DELETE FROM ceremony WHERE ${about(sign)}`,
    want: [`entry ${indexOf(sign)}: this ceremony.opened has no row in ceremony`],
  },
  {
    name: "ST-40: a rejection deleted",
    sql: "DELETE FROM approval WHERE verdict = 'reject'",
    want: [`entry ${indexOf(opening) - 1}: this approval.accepted has no row in approval`],
  },
  {
    name: "an abort deleted",
    sql: `DELETE FROM "abort"`,
    want: [`entry ${indexOf(aborted)}: this ceremony.step has no row in abort`],
  },
  {
    name: "an unlock deleted",
    sql: `DELETE FROM "unlock" WHERE ${about(opening)}`,
    want: [`entry ${indexOf(opening)}: this unlock.opened has no row in unlock`],
  },
  {
    name: "a share that was given deleted",
    sql: "DELETE FROM submission WHERE verdict = 'give'",
    want: [`entry ${indexOf(given)}: this share.accepted has no row in submission`],
  },
  {
    name: "a refusal deleted",
    sql: "DELETE FROM submission WHERE verdict = 'refuse'",
    want: [`entry ${indexOf(refused)}: this share.refused has no row in submission`],
  },
  {
    name: "a share set deleted",
    sql: `DELETE FROM share_set WHERE ${about(third)}`,
    want: [`entry ${indexOf(third)}: this key.generated has no row in share_set`],
  },
  {
    name: "a share deleted",
    sql: `DELETE FROM share WHERE ${share(fourth, 1)}`,
    want: [`share_set ${fourth.row.digest}: its share 1 has no row in share`],
  },
  {
    name: "a plan deleted",
    sql: `DELETE FROM object WHERE digest = '${sha256(people.objects[0]!)}'`,
    want: [
      `entry ${indexOf(people)}: this ceremony.opened has no row in object: ${sha256(people.objects[0]!)}`,
    ],
  },
  {
    name: "a TBS deleted",
    sql: `DELETE FROM object WHERE digest = '${sha256(tbs[1])}'`,
    want: [`entry ${indexOf(sign)}: this ceremony.opened has no row in object: ${sha256(tbs[1])}`],
  },
  // under another name
  {
    name: "a ceremony under another digest",
    sql: `UPDATE ceremony SET digest = '${zero}' WHERE ${about(window)}`,
    want: [`ceremony ${zero}: it is not what entry ${indexOf(window)} says: digest`],
  },
  {
    name: "an unlock under another digest",
    sql: `UPDATE "unlock" SET digest = '${zero}' WHERE ${about(opening)}`,
    want: [`unlock ${zero}: it is not what entry ${indexOf(opening)} says: digest`],
  },
  {
    name: "a share set under another digest",
    sql: `UPDATE share_set SET digest = '${zero}' WHERE ${about(third)};
          UPDATE share SET share_set = '${zero}' WHERE share_set = '${third.row.digest}'`,
    want: [
      `share_set ${zero}: it is not what entry ${indexOf(third)} says: digest`,
      ...[1, 2, 3].map(
        (n) => `share ${zero}/${n}: it has no record: no share set of the log has it`,
      ),
      ...[1, 2, 3].map((n) => `share_set ${third.row.digest}: its share ${n} has no row in share`),
    ],
  },
  {
    name: "a roster under another version",
    sql: "UPDATE roster_version SET version = 7 WHERE version = 2",
    want: [`roster_version 7: it is not what entry ${indexOf(grown)} says: version`],
  },
  {
    name: "an abort by somebody else",
    sql: `UPDATE "abort" SET operator = 'mallory'`,
    want: [
      `abort ${window.row.digest}/mallory: it is not what entry ${indexOf(aborted)} says: operator`,
    ],
  },
  {
    name: "an approval of somebody else",
    sql: "UPDATE approval SET operator = 'mallory' WHERE operator = 'dora'",
    want: [
      `approval ${sign.row.digest}/mallory: it is not what entry ${indexOf(agreed)} says: operator`,
    ],
  },
  {
    name: "an approval of something else",
    sql: `UPDATE approval SET ceremony = '${open.row.digest}' WHERE operator = 'dora'`,
    want: [
      `approval ${open.row.digest}/dora: it is not what entry ${indexOf(agreed)} says: ceremony`,
    ],
  },
  {
    name: "a share for another unlock",
    sql: `UPDATE submission SET "unlock" = '${opening.row.digest}' WHERE operator = 'alice'`,
    want: [
      `submission ${opening.row.digest}/alice: it is not what entry ${indexOf(given)} says: unlock`,
    ],
  },
  // added
  {
    name: "ST-68: a version of the roster added",
    sql: "INSERT INTO roster_version SELECT 3, digest, document, evidence, 9999 FROM roster_version WHERE version = 2",
    want: ["roster_version 3: it has no record: entry 9999 is not about it"],
  },
  {
    name: "a ceremony added",
    sql: `INSERT INTO ceremony SELECT '${zero}', 'x', kind, key_id, proposer, note, state, not_after, created_at, 5, 6
          FROM ceremony WHERE ${about(sign)}`,
    want: [`ceremony ${zero}: it has no record: entry 5 is not about it`],
  },
  {
    name: "an approval added",
    sql: `INSERT INTO approval SELECT ceremony, 'mallory', verdict, role, statement, signature, at, log_index
          FROM approval WHERE operator = 'dora'`,
    want: [
      `approval ${sign.row.digest}/mallory: it has no record: entry ${indexOf(agreed)} is not about it`,
    ],
  },
  {
    name: "an abort added",
    sql: `INSERT INTO "abort" SELECT ceremony, 'mallory', statement, signature, 2 FROM "abort"`,
    want: [`abort ${window.row.digest}/mallory: it has no record: entry 2 is not about it`],
  },
  {
    name: "an unlock added",
    sql: `INSERT INTO "unlock" SELECT '${zero}', 'x', ceremony, key_id, share_set, note, 'ended', expires_at, 3, 4
          FROM "unlock" WHERE ${about(opening)}`,
    want: [`unlock ${zero}: it has no record: entry 3 is not about it`],
  },
  {
    name: "a share that nobody gave",
    sql: `INSERT INTO submission SELECT "unlock", 'mallory', verdict, statement, signature, at, 9999
          FROM submission WHERE operator = 'alice'`,
    want: [
      `submission ${signing.row.digest}/mallory: it has no record: entry 9999 is not about it`,
    ],
  },
  {
    name: "a share set added",
    sql: `INSERT INTO share_set SELECT '${zero}', '${"1".repeat(64)}', epoch, ceremony, note, sealed, state, 4, 4
          FROM share_set WHERE ${about(second)}`,
    want: [`share_set ${zero}: it has no record: entry 4 is not about it`],
  },
  {
    name: "a share of a further custodian",
    sql: `INSERT INTO share SELECT share_set, 4, 'mallory', file, file_sha256, NULL, NULL, NULL, NULL
          FROM share WHERE ${share(fourth, 1)}`,
    want: [`share ${fourth.row.digest}/4: it has no record: no share set of the log has it`],
  },
  {
    name: "a share of no set",
    sql: `INSERT INTO share SELECT '${zero}', 1, operator, file, file_sha256, NULL, NULL, NULL, NULL
          FROM share WHERE ${share(fourth, 1)}`,
    want: [`share ${zero}/1: it has no record: no share set of the log has it`],
  },
  {
    name: "an object that nothing names",
    sql: `INSERT INTO object VALUES ('${sha256(Buffer.from("x"))}', CAST('x' AS BLOB))`,
    want: [`object ${sha256(Buffer.from("x"))}: it has no record: nothing names it`],
  },
  {
    name: "ST-61: a plan changed",
    sql: `UPDATE object SET octets = CAST('{"plan":"mine"}' AS BLOB) WHERE digest = '${sha256(people.objects[0]!)}'`,
    want: [`object ${sha256(people.objects[0]!)}: its bytes have another digest`],
  },
  // how far things have gone
  {
    name: "a ceremony that goes on",
    sql: `UPDATE ceremony SET state = 'gathering' WHERE ${about(window)}`,
    want: [
      `ceremony ${window.row.digest}: it is gathering since entry ${indexOf(aborted) + 1}, and the log says ` +
        `aborted, since entry ${indexOf(aborted) + 1}`,
    ],
  },
  {
    name: "a ceremony that was agreed to by nobody",
    sql: `UPDATE ceremony SET state = 'unlocked', changed_index = 7 WHERE ${about(open)}`,
    want: [
      `ceremony ${open.row.digest}: it is unlocked since entry 7, and the log says gathering, since entry ${indexOf(open)}`,
    ],
  },
  {
    name: "the record of a ceremony's last step",
    sql: `UPDATE ceremony SET changed_index = changed_index + 1 WHERE ${about(generate)}`,
    want: [
      `ceremony ${generate.row.digest}: it is applied since entry 11, and the log says applied, since entry 10`,
    ],
  },
  {
    name: "an unlock that gathers again",
    sql: `UPDATE "unlock" SET state = 'gathering', changed_index = log_index WHERE ${about(signing)}`,
    want: [
      `unlock ${signing.row.digest}: it is gathering since entry ${indexOf(signing)}, and the log says opened, since ` +
        `entry ${indexOf(signing) + 4}`,
    ],
  },
  {
    name: "ST-67: an old sealed secret put back",
    sql: `UPDATE share_set SET sealed = x'${Buffer.from(first.row.sealed).toString("hex")}' WHERE ${about(first)}`,
    want: [
      `share_set ${first.row.digest}: it is retired, and what it sealed is still there: sealed`,
    ],
  },
  {
    name: "ST-67: an old share set put back in the place of the new one",
    sql: `UPDATE share_set SET state = 'retired' WHERE ${about(second)};
          UPDATE share_set SET state = 'active', sealed = x'${Buffer.from(first.row.sealed).toString("hex")}' WHERE ${about(first)}`,
    want: [
      `share_set ${first.row.digest}: it is active since entry ${indexOf(second) + 4}, and the log says retired, since ` +
        `entry ${indexOf(second) + 4}`,
      `share_set ${second.row.digest}: it is retired since entry ${indexOf(second) + 4}, and the log says active, ` +
        `since entry ${indexOf(second) + 4}`,
      `share_set ${first.row.digest}: it is retired, and what it sealed is still there: sealed`,
    ],
  },
  {
    name: "another sealed secret",
    sql: `UPDATE share_set SET sealed = x'00' WHERE ${about(second)}`,
    want: [`share_set ${second.row.digest}: what is sealed is not what the share set says: sealed`],
  },
  {
    name: "a sealed secret deleted",
    sql: `UPDATE share_set SET sealed = NULL WHERE ${about(second)}`,
    want: [`share_set ${second.row.digest}: what is sealed is not what the share set says: sealed`],
  },
  {
    name: "a dropped set that is pending",
    sql: `UPDATE share_set SET state = 'pending' WHERE ${about(third)}`,
    want: [
      `share_set ${third.row.digest}: it is pending since entry ${indexOf(third) + 2}, and the log says dropped, since ` +
        `entry ${indexOf(third) + 2}`,
    ],
  },
  // shares
  ...[
    { set: second, index: 2, change: "operator = 'mallory'" },
    { set: second, index: 2, change: `file_sha256 = '${zero}'` },
    { set: second, index: 2, change: "file = x'00'" },
    { set: fourth, index: 1, change: "file = x'00'" },
    { set: fourth, index: 1, change: "file = NULL" },
    { set: third, index: 2, change: "file = x'00'" },
    { set: second, index: 2, change: "confirmation = NULL" },
    { set: second, index: 2, change: "confirmation = 'x'" },
    { set: second, index: 2, change: "confirmation = json_set(confirmation, '$.signature', 'x')" },
    { set: fourth, index: 1, change: "confirmation = '{}'" },
    { set: second, index: 2, change: "confirmed_index = confirmed_index + 1" },
    { set: fourth, index: 1, change: "confirmed_index = 9" },
    { set: second, index: 1, change: "proved_at = proved_at + 60001" },
    { set: second, index: 1, change: "proved_at = NULL" },
    { set: second, index: 2, change: "proved_at = 0" },
    { set: second, index: 1, change: "proved_index = proved_index - 1" },
    { set: second, index: 2, change: "proved_index = 9" },
  ].map(({ set, index, change }) => ({
    name: `a share with ${change}`,
    sql: `UPDATE share SET ${change} WHERE ${share(set, index)}`,
    want: [
      `share ${set.row.digest}/${index}: it is not what the share set and the records of it say: ${change.split(" ")[0]}`,
    ],
  })),
])("AUDIT 9.6 rule 11: $name is found and named", async ({ sql, want }) => {
  expect(found(await verifyTampered(sql))).toEqual(want.map((line) => `LOG-11 ${line}`));
});

test.for<{ name: string; item: CustodyItem }>([
  { name: "an approval", item: approval(open, "carol") },
  { name: "a step", item: ceremonyState(open, "unlocking") },
  { name: "a share", item: submission(opening, "bob", 2) },
  { name: "the end of an unlock", item: unlockState(opening, "ended") },
  { name: "a drill", item: proved(second, 3) },
  { name: "a ceremony", item: ceremony("another", "window") },
])("AUDIT 9.6 rule 11: $name that is in the log and in no row is found", async ({ item }) => {
  const file = join(directory, `${copies++}.sqlite`);
  await write(file, [started, ...items, { kind: "entry", leaf: item.leaf }]);
  const report = await verify(file);
  expect(report.failures.map(({ rule }) => rule)).toEqual(["LOG-11"]);
});

test("a ceremony that is said to be over once more is no other", async () => {
  const file = join(directory, `${copies++}.sqlite`);
  const { leaf } = ceremonyState(generate, "applied");
  await write(file, [started, ...items, { kind: "entry", leaf }]);
  expect(found(await verify(file))).toEqual([]);
});

test("what was signed may be kept beside what was to be signed", async () => {
  const file = join(directory, `${copies++}.sqlite`);
  const issued = new IssuedLog();
  const der = issued.ca.root;
  const leaves = issued.leaves.map((leaf): JournalItem => ({ kind: "entry", leaf }));
  await write(file, leaves);
  const rows = `INSERT INTO object VALUES ('${sha256(der)}', x'${Buffer.from(der).toString("hex")}')`;
  const before = found(await verify(file));
  tamper(file, rows);
  expect(found(await verify(file))).toEqual(before); // the rows of certificates are not there
});

test("an object of any length is compared", async () => {
  const file = join(directory, `${copies++}.sqlite`);
  const large = Buffer.alloc(3_000_000, "large");
  const item = ceremony("large", "sign", { tbs: [large] });
  await write(file, [started, item]);
  expect(found(await verify(file))).toEqual([]);
  tamper(file, "UPDATE object SET octets = CAST(octets || x'00' AS BLOB)");
  expect(found(await verify(file))).toEqual([
    `LOG-11 object ${sha256(large)}: its bytes have another digest`,
  ]);
});
