import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openAuditDatabase, type AuditDatabase } from "../../src/audit/database-rows.ts";
import { encodeEntry, type LogEntry } from "../../src/audit/entry.ts";
import { directoryLogSource, exportLog } from "../../src/audit/log-directory.ts";
import { verifyLog, type VerifyReport } from "../../src/audit/verify.ts";
import { makeLogDatabase, policyDocument, runSql } from "../support/log-database.ts";
import { issuanceLeaves, MemoryLog, serialNumberOf, sha256, signedObject } from "../support/log.ts";

const directory = mkdtempSync(join(tmpdir(), "countersign-database-"));
const original = join(directory, "original.sqlite");
const exported = join(directory, "log");

const at = new Date("2026-11-21T20:05:01.123Z");
const keyId = "6feecc8c16c5551d9feb3eb5f77e2da773bf68bd9ef9c52927ceb2c86e56892b";
const actor = { kind: "service", id: "ca.example.com" } as const;
const crl = signedObject("12".padStart(40, "0"));
const subject = { issuer: "issuing", keyId };

/** After 700 records of issuance, the last an intent (699): one of each other kind that has a row. */
const others: LogEntry[] = [
  {
    type: "sign.abandoned",
    at,
    actor,
    subject: { ...subject, serialNumber: serialNumberOf(699) },
    data: { intent: 699, reason: "crash" },
  },
  {
    type: "certificate.revoked",
    at,
    actor,
    subject: { ...subject, serialNumber: serialNumberOf(1) },
    data: { reason: "keyCompromise", revocationDate: at.toISOString() },
  },
  {
    type: "certificate.revoked",
    at,
    actor,
    subject: { ...subject, serialNumber: serialNumberOf(3) },
    data: {
      reason: "superseded",
      revocationDate: at.toISOString(),
      invalidityDate: new Date(0).toISOString(),
    },
  },
  {
    type: "policy.changed",
    at,
    actor: { kind: "operator", id: "alice", via: "sshsig" },
    subject: {},
    data: { requester: "deploy", action: "set", sequence: 1 },
    evidence: { statement: "AAEC", signature: "AAEC" },
  },
  {
    type: "policy.changed",
    at,
    actor,
    subject: {},
    data: { policy: sha256(Buffer.from(policyDocument)) },
  },
  {
    type: "sign.intent",
    at,
    actor,
    subject,
    data: { operation: "crl", tbs: sha256(crl.tbs), number: "12" },
  },
  {
    type: "sign.done",
    at,
    actor,
    subject,
    data: { intent: 705, crl: sha256(crl.der), number: "12" },
  },
  { type: "crl.published", at, actor, subject, data: { number: "12", crl: sha256(crl.der) } },
  {
    type: "sign.intent",
    at,
    actor,
    subject,
    data: { operation: "crl", tbs: sha256(crl.tbs), number: "13" },
  },
];

const log = new MemoryLog();
log.append([...issuanceLeaves(700), ...others.map(encodeEntry)]);
const key = log.signer.verifierKey.text;

beforeAll(async () => {
  await makeLogDatabase(original, log);
  await exportLog(log.reader(), exported);
});

afterAll(() => rmSync(directory, { recursive: true }));

let copies = 0;

/** A copy of the database that `sql` was run on. */
async function open(sql = ""): Promise<AuditDatabase> {
  const file = join(directory, `${copies++}.sqlite`);
  copyFileSync(original, file);
  if (sql !== "") runSql(file, sql);
  return openAuditDatabase(file);
}

async function verifyTampered(sql: string, source: "export" | "database"): Promise<VerifyReport> {
  const database = await open(sql);
  try {
    const from = source === "export" ? directoryLogSource(exported) : database.log;
    return await verifyLog(from, { key, database: database.rows });
  } finally {
    await database.close();
  }
}

const positions = ({ failures }: VerifyReport): string[] =>
  failures.map(({ rule, position }) => `${rule} ${position}`);

test.for(["export", "database"] as const)(
  "AUDIT 9.6 rule 11: a database that the log accounts for, log read from the %s",
  async (source) => {
    const report = await verifyTampered("", source);
    expect(report).toMatchObject({
      consistent: true,
      anchored: true,
      failures: [],
      notices: [],
      openIntents: [708],
    });
    expect(report.rules).toContain("LOG-11");
  },
);

test.for([
  {
    name: "a certificate that the log does not know",
    sql: `INSERT INTO issued_certificate SELECT 2, issuer, key_id, '01', kind, profile, requester, subject, not_before,
          not_after, spki_sha256, tbs_sha256, csr, certificate, certificate_sha256, done_index, state, created_at
          FROM issued_certificate WHERE idx = 1`,
    want: ["LOG-11 issued_certificate issuing/01"],
  },
  {
    name: "a certificate beyond the end of the log",
    sql: `UPDATE issued_certificate SET idx = 100000 WHERE idx = 1`,
    want: ["LOG-11 entry 1", `LOG-11 issued_certificate issuing/${serialNumberOf(1)}`],
  },
  {
    name: "a certificate deleted",
    sql: `DELETE FROM issued_certificate WHERE idx = 301`,
    want: ["LOG-11 entry 301"],
  },
  {
    name: "a serial number changed",
    sql: `UPDATE issued_certificate SET serial_number = '05' WHERE idx = 301`,
    want: ["LOG-11 issued_certificate issuing/05"],
  },
  {
    name: "an issuer with a quotation mark",
    sql: `UPDATE issued_certificate SET issuer = 'x''; DROP TABLE' WHERE idx = 301`,
    want: [`LOG-11 issued_certificate x'; DROP TABLE/${serialNumberOf(301)}`],
  },
  {
    name: "a profile changed",
    sql: `UPDATE issued_certificate SET profile = 'client' WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "the bytes of a certificate changed",
    sql: `UPDATE issued_certificate SET certificate = X'3000' WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "the bytes of a certificate changed, with their digest",
    sql: `UPDATE issued_certificate SET certificate = X'3000', certificate_sha256 =
          X'${sha256(Buffer.from("3000", "hex")).slice(7)}' WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "an issued certificate made pending",
    sql: `UPDATE issued_certificate SET state = 'pending', certificate = NULL, certificate_sha256 = NULL,
          done_index = NULL WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "an abandoned certificate made issued",
    sql: `UPDATE issued_certificate SET state = 'issued' WHERE idx = 699`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(699)}`],
  },
  {
    name: "a revocation deleted",
    sql: `DELETE FROM revocation WHERE serial_number = '${serialNumberOf(1)}'`,
    want: ["LOG-11 entry 701"],
  },
  {
    name: "a revocation added",
    sql: `INSERT INTO revocation SELECT issuer, key_id, '07', reason, 0, NULL, 'x', 7, 0 FROM revocation LIMIT 1`,
    want: ["LOG-11 revocation issuing/07"],
  },
  {
    name: "a reason changed",
    sql: `UPDATE revocation SET reason = 'unspecified' WHERE log_index = 701`,
    want: [`LOG-11 revocation issuing/${serialNumberOf(1)}`],
  },
  {
    name: "a revocation date changed",
    sql: `UPDATE revocation SET revocation_date = revocation_date + 1 WHERE log_index = 701`,
    want: [`LOG-11 revocation issuing/${serialNumberOf(1)}`],
  },
  {
    name: "an invalidity date removed",
    sql: `UPDATE revocation SET invalidity_date = NULL WHERE log_index = 702`,
    want: [`LOG-11 revocation issuing/${serialNumberOf(3)}`],
  },
  {
    name: "a requester's statement changed",
    sql: `UPDATE requester_statement SET statement = X'00'`,
    want: ["LOG-11 requester_statement 1"],
  },
  {
    name: "a policy's document changed",
    sql: `UPDATE policy_version SET document = 'other'`,
    want: [`LOG-11 policy_version ${sha256(Buffer.from(policyDocument))}`],
  },
  {
    name: "a policy deleted",
    sql: `DELETE FROM policy_version`,
    want: ["LOG-11 entry 704"],
  },
  {
    name: "a requester's statement deleted",
    sql: `DELETE FROM requester_statement`,
    want: ["LOG-11 entry 703"],
  },
  {
    name: "the bytes of a CRL changed",
    sql: `UPDATE crl SET crl = zeroblob(3000000) WHERE number = 12`,
    want: ["LOG-11 crl issuing/12"],
  },
  {
    name: "the number of a CRL changed",
    sql: `UPDATE crl SET number = 14 WHERE number = 12`,
    want: ["LOG-11 crl issuing/14"],
  },
  {
    name: "a pending CRL made issued",
    sql: `UPDATE crl SET crl = X'00', state = 'issued', done_index = 708 WHERE number = 13`,
    want: ["LOG-11 crl issuing/13"],
  },
])("AUDIT 9.6 rule 11: $name is found and named", async ({ sql, want }) => {
  expect(positions(await verifyTampered(sql, "export"))).toEqual(want);
  expect(positions(await verifyTampered(sql, "database"))).toEqual(want);
});

test.for([
  {
    name: "an entry changed",
    sql: "UPDATE audit_entry SET leaf = CAST(replace(CAST(leaf AS TEXT), 'deploy', 'deplox') AS BLOB) WHERE idx = 300",
    database: ["LOG-2 entry 300"],
    export: ["LOG-11 audit_entry 300"],
  },
  {
    name: "the last entry deleted",
    sql: "DELETE FROM audit_entry WHERE idx = 708",
    database: ["LOG-2 entry 708", "LOG-11 audit_entry", "LOG-11 crl issuing/13"],
    export: ["LOG-11 audit_entry", "LOG-11 audit_entry 708"],
  },
  {
    name: "an entry in the middle deleted",
    sql: "DELETE FROM audit_entry WHERE idx = 511",
    database: [
      "LOG-2 entry 511",
      `LOG-11 issued_certificate issuing/${serialNumberOf(511)}`,
      "LOG-7 entry 512",
    ],
    export: ["LOG-11 audit_entry 511"],
  },
  {
    name: "two entries swapped",
    sql: `UPDATE audit_entry SET idx = -1 WHERE idx = 702; UPDATE audit_entry SET idx = 702 WHERE idx = 704;
          UPDATE audit_entry SET idx = 704 WHERE idx = -1`,
    database: ["LOG-2 entry 702", "LOG-2 entry 704"],
    export: ["LOG-11 audit_entry 702", "LOG-11 audit_entry 704"],
  },
  {
    name: "a tile changed",
    sql: "UPDATE audit_tile SET hashes = X'00' || substr(hashes, 2) WHERE level = 0 AND n = 1",
    database: ["LOG-2 tile/0/001"],
    export: ["LOG-11 audit_tile 0/1"],
  },
  {
    name: "a tile of the second level deleted",
    sql: "DELETE FROM audit_tile WHERE level = 1",
    database: ["LOG-2 tile/1/000.p/2"],
    export: ["LOG-11 audit_tile 1/0"],
  },
  {
    name: "the checkpoint deleted",
    sql: "DELETE FROM audit_checkpoint",
    database: ["LOG-1 checkpoint"],
    export: ["LOG-11 audit_checkpoint"],
  },
])("ST-72, AUDIT 9.6 rule 11: in the database's copy of the log, $name", async (row) => {
  const sql = row.sql.replace(
    "X'00' || substr(hashes, 2)",
    "CAST(X'00' || substr(hashes, 2) AS BLOB)",
  );
  const plain = (found: string[]): string[] =>
    found.map((position) => position.replace(/ hash \d+$/, ""));
  const fromDatabase = plain(positions(await verifyTampered(sql, "database")));
  for (const want of row.database) expect(fromDatabase).toContain(want);
  expect(plain(positions(await verifyTampered(sql, "export"))).sort()).toEqual(
    row.export.toSorted(),
  );
});

test("a database that has grown past the log's copy is told apart from one that was tampered with", async () => {
  const older = new MemoryLog();
  older.append(log.leaves.slice(0, 600)); // ends with sign.intent 599, whose result is 600
  const copy = join(directory, "older");
  await exportLog(older.reader(), copy);
  const database = await open();
  const report = await verifyLog(directoryLogSource(copy), { key, database: database.rows });
  await database.close();
  expect(report.failures).toEqual([]);
  expect(report.notices).toEqual([
    {
      rule: "LOG-11",
      position: "audit_entry",
      detail: "the last 109 entries of the database are not covered by this checkpoint",
    },
    {
      rule: "LOG-11",
      position: "issued_certificate",
      detail: "rows of entries that this checkpoint does not cover: 51",
    },
    {
      rule: "LOG-11",
      position: "crl",
      detail: "rows of entries that this checkpoint does not cover: 2",
    },
    {
      rule: "LOG-11",
      position: "revocation",
      detail: "rows of entries that this checkpoint does not cover: 2",
    },
    {
      rule: "LOG-11",
      position: "requester_statement",
      detail: "rows of entries that this checkpoint does not cover: 1",
    },
    {
      rule: "LOG-11",
      position: "policy_version",
      detail: "rows of entries that this checkpoint does not cover: 1",
    },
  ]);
});

test("ST-73: yesterday's database does not hold today's log", async () => {
  const older = new MemoryLog();
  older.append(log.leaves.slice(0, 600));
  const file = join(directory, "yesterday.sqlite");
  await makeLogDatabase(file, older);
  const database = await openAuditDatabase(file);
  const report = await verifyLog(directoryLogSource(exported), { key, database: database.rows });
  await database.close();
  expect(positions(report)).toContain("LOG-11 audit_entry");
  expect(positions(report)).toContain("LOG-11 audit_entry 600");
  expect(positions(report)).toContain("LOG-11 entry 601");
});

test("one snapshot: what a running service writes meanwhile is not seen", async () => {
  const file = join(directory, "running.sqlite");
  copyFileSync(original, file);
  runSql(file, "PRAGMA journal_mode = WAL");
  const database = await openAuditDatabase(file);
  runSql(file, "DELETE FROM issued_certificate; DELETE FROM audit_entry");
  expect((await verifyLog(database.log, { key, database: database.rows })).failures).toEqual([]);
  await database.close();
});

test("more rows than a page come in order and complete", async () => {
  const file = join(directory, "pages.sqlite");
  const long = new MemoryLog();
  long.append(issuanceLeaves(5001));
  await makeLogDatabase(file, long);
  runSql(
    file,
    `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2999)
     INSERT INTO revocation SELECT 'it''s ' || (i % 3), '', printf('%06d', i), 'unspecified', 0, NULL, 'x', i % 2, 0 FROM n`,
  );
  const database = await openAuditDatabase(file);
  const indexes: number[] = [];
  for await (const { intentIndex } of database.rows.certificates()) indexes.push(intentIndex);
  expect(indexes).toEqual(Array.from({ length: 2500 }, (_, pair) => 1 + 2 * pair));
  const names: string[] = [];
  for await (const { index, issuer, serialNumber } of database.rows.revocations())
    names.push(`${index} ${issuer} ${serialNumber}`);
  expect(names.length).toBe(3000);
  expect(names).toEqual([...new Set(names)].sort());
  await database.close();
});

test("a program that is missing is named with the command that installs it", async () => {
  await expect(openAuditDatabase(original, "sqlite3-is-not-here")).rejects.toThrow(
    /apt-get install sqlite3/,
  );
});

test("a file that is no database, or none of ours, is an error and not a finding", async () => {
  await expect(openAuditDatabase(join(directory, "nothing.sqlite"))).rejects.toThrow(
    /cannot be read/,
  );
  const junk = join(directory, "junk.sqlite");
  writeFileSync(junk, "junk".repeat(1000));
  await expect(openAuditDatabase(junk)).rejects.toThrow(/not a database/);
  const empty = join(directory, "empty.sqlite");
  runSql(empty, "CREATE TABLE other (x)");
  const database = await openAuditDatabase(empty);
  await expect(
    verifyLog(directoryLogSource(exported), { database: database.rows }),
  ).rejects.toThrow(/no such table/);
  await database.close();
});
