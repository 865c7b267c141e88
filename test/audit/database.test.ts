import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openAuditDatabase, type AuditDatabase } from "../../src/audit/database-rows.ts";
import { checkpointText } from "../../src/audit/checkpoint.ts";
import { directoryLogSource, exportLog } from "../../src/audit/log-directory.ts";
import { signNote } from "../../src/audit/signed-note.ts";
import { verifyLog, type VerifyReport } from "../../src/audit/verify.ts";
import { parseCertificate } from "../../src/x509/certificate.ts";
import { serialNumberHex } from "../../src/x509/serial-number.ts";
import {
  IssuedLog,
  makeLogDatabase,
  policyDocument,
  runSql,
  tamper,
} from "../support/log-database.ts";
import { logSigner, MemoryLog, serialNumberOf, sha256 } from "../support/log.ts";
import { softwareKey } from "../support/software-ca.ts";

const directory = mkdtempSync(join(tmpdir(), "countersign-database-"));
const original = join(directory, "original.sqlite");
const exported = join(directory, "log");

const at = new Date("2026-11-21T20:05:01.123Z");
const service = { kind: "service", id: "ca.example.com" } as const;
const deploy = { kind: "requester", id: "deploy", via: "api-key" } as const;

/** 700 records of issuance, the last an intent (699), then one of each other kind that has a row. */
const issued = new IssuedLog().fill(700);
const { issuing } = issued;
const others: (() => unknown)[] = [
  () => issued.abandon(699), // 700
  () =>
    issued.add({
      type: "certificate.revoked",
      at,
      actor: deploy,
      subject: { ...issuing, serialNumber: serialNumberOf(5) },
      data: { reason: "keyCompromise", revocationDate: at.toISOString() },
    }), // 701
  () =>
    issued.add({
      type: "certificate.revoked",
      at,
      actor: deploy,
      subject: { ...issuing, serialNumber: serialNumberOf(7) },
      data: {
        reason: "superseded",
        revocationDate: at.toISOString(),
        invalidityDate: new Date(0).toISOString(),
      },
    }), // 702
  () =>
    issued.add({
      type: "policy.changed",
      at,
      actor: { kind: "operator", id: "alice", via: "sshsig" },
      subject: {},
      data: { requester: "deploy", action: "set", sequence: 1 },
      evidence: { statement: "AAEC", signature: "AAEC" },
    }), // 703
  () =>
    issued.add({
      type: "policy.changed",
      at,
      actor: service,
      subject: {},
      data: { policy: sha256(Buffer.from(policyDocument)) },
    }), // 704
  () => issued.intendCrl(12n), // 705
  () => issued.sign(705), // 706
  () =>
    issued.add({
      type: "crl.published",
      at,
      actor: service,
      subject: issuing,
      data: { number: "12", crl: sha256(Buffer.from("any")) },
    }), // 707
  () => issued.intendCrl(13n), // 708
];
for (const add of others) add();

const log = new MemoryLog();
log.append(issued.leaves);
const key = log.signer.verifierKey.text;

const rootSerialNumber = serialNumberHex(parseCertificate(issued.ca.root).tbs.serialNumber);

beforeAll(async () => {
  await makeLogDatabase(original, log, issued.objects);
  runSql(
    original,
    `INSERT INTO idempotency SELECT requester, 'k' || idx, zeroblob(32), idx, created_at
     FROM issued_certificate WHERE idx IN (5, 7, 699)`,
  );
  await exportLog(log.reader(), exported);
});

afterAll(() => rmSync(directory, { recursive: true }));

let copies = 0;

/** A copy of the database that `sql` was run on. */
async function open(sql = ""): Promise<AuditDatabase> {
  const file = join(directory, `${copies++}.sqlite`);
  copyFileSync(original, file);
  if (sql !== "") tamper(file, sql);
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
          FROM issued_certificate WHERE idx = 5`,
    want: ["LOG-11 issued_certificate issuing/01"],
  },
  {
    name: "a certificate beyond the end of the log",
    sql: `UPDATE issued_certificate SET idx = 100000 WHERE idx = 301`,
    want: ["LOG-11 entry 301", `LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
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
    sql: `DELETE FROM revocation WHERE serial_number = '${serialNumberOf(5)}'`,
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
    want: [`LOG-11 revocation issuing/${serialNumberOf(5)}`],
  },
  {
    name: "a revocation date changed",
    sql: `UPDATE revocation SET revocation_date = revocation_date + 1 WHERE log_index = 701`,
    want: [`LOG-11 revocation issuing/${serialNumberOf(5)}`],
  },
  {
    name: "an invalidity date removed",
    sql: `UPDATE revocation SET invalidity_date = NULL WHERE log_index = 702`,
    want: [`LOG-11 revocation issuing/${serialNumberOf(7)}`],
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
  {
    name: "requester of a certificate set to 'other'",
    sql: `UPDATE issued_certificate SET requester = 'other' WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "requester of a certificate set to NULL",
    sql: `UPDATE issued_certificate SET requester = NULL WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "requester of a certificate set to requester || char(0) || 'x'",
    sql: `UPDATE issued_certificate SET requester = requester || char(0) || 'x' WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "kind of a certificate set to 'root'",
    sql: `UPDATE issued_certificate SET kind = 'root' WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "kind of a certificate set to 'intermediate'",
    sql: `UPDATE issued_certificate SET kind = 'intermediate' WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "subject of a certificate set to 'CN=www.example.test'",
    sql: `UPDATE issued_certificate SET subject = 'CN=www.example.test' WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "subject of a certificate set to char(0)",
    sql: `UPDATE issued_certificate SET subject = char(0) WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "not_before of a certificate set to not_before - 1000",
    sql: `UPDATE issued_certificate SET not_before = not_before - 1000 WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "not_after of a certificate set to 1",
    sql: `UPDATE issued_certificate SET not_after = 1 WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "spki_sha256 of a certificate set to zeroblob(32)",
    sql: `UPDATE issued_certificate SET spki_sha256 = zeroblob(32) WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "csr of a certificate set to X'3000'",
    sql: `UPDATE issued_certificate SET csr = X'3000' WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "csr of a certificate set to NULL",
    sql: `UPDATE issued_certificate SET csr = NULL WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "created_at of a certificate set to created_at + 120000",
    sql: `UPDATE issued_certificate SET created_at = created_at + 120000 WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "key_id of a certificate set to another key",
    sql: `UPDATE issued_certificate SET key_id = '${"0".repeat(64)}' WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "tbs_sha256 of a certificate set to zeroblob(32)",
    sql: `UPDATE issued_certificate SET tbs_sha256 = zeroblob(32) WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "done_index of a certificate set to 305",
    sql: `UPDATE issued_certificate SET done_index = 305 WHERE idx = 301`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "a root that is called a leaf",
    sql: `UPDATE issued_certificate SET kind = 'leaf' WHERE idx = 1`,
    want: [`LOG-11 issued_certificate root/${rootSerialNumber}`],
  },
  {
    name: "not_after of an abandoned certificate set to 1",
    sql: `UPDATE issued_certificate SET not_after = 1 WHERE idx = 699`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(699)}`],
  },
  {
    name: "requester of an abandoned certificate set to 'other'",
    sql: `UPDATE issued_certificate SET requester = 'other' WHERE idx = 699`,
    want: [
      `LOG-11 issued_certificate issuing/${serialNumberOf(699)}`,
      "LOG-11 idempotency deploy/k699",
    ],
  },
  {
    name: "kind of an abandoned certificate set to 'root'",
    sql: `UPDATE issued_certificate SET kind = 'root' WHERE idx = 699`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(699)}`],
  },
  {
    name: "subject of an abandoned certificate set to 'CN=x'",
    sql: `UPDATE issued_certificate SET subject = 'CN=x' WHERE idx = 699`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(699)}`],
  },
  {
    name: "spki_sha256 of an abandoned certificate set to zeroblob(32)",
    sql: `UPDATE issued_certificate SET spki_sha256 = zeroblob(32) WHERE idx = 699`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(699)}`],
  },
  {
    name: "csr of an abandoned certificate set to NULL",
    sql: `UPDATE issued_certificate SET csr = NULL WHERE idx = 699`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(699)}`],
  },
  {
    name: "tbs_sha256 of an abandoned certificate set to zeroblob(32)",
    sql: `UPDATE issued_certificate SET tbs_sha256 = zeroblob(32) WHERE idx = 699`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(699)}`],
  },
  {
    name: "a name of a certificate removed",
    sql: `DELETE FROM certificate_name WHERE idx = 301 AND kind = 'dns'`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "a name of a certificate changed",
    sql: `UPDATE certificate_name SET value = 'other.example.test' WHERE idx = 301 AND kind = 'dns'`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "a name of a certificate spelled otherwise backwards",
    sql: `UPDATE certificate_name SET reversed = 'x' WHERE idx = 301 AND kind = 'dns'`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "a name added to a certificate",
    sql: `INSERT INTO certificate_name VALUES (301, 'dns', 'a.example.test', 'tset.elpmaxe.a')`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(301)}`],
  },
  {
    name: "a name of an abandoned certificate removed",
    sql: `DELETE FROM certificate_name WHERE idx = 699 AND kind = 'ip'`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(699)}`],
  },
  {
    name: "a name of no certificate",
    sql: `INSERT INTO certificate_name VALUES (302, 'dns', 'a.example.test', 'tset.elpmaxe.a')`,
    want: ["LOG-11 certificate_name 302 dns:a.example.test"],
  },
  {
    name: "the end of a revoked certificate, so that CRLs drop it",
    sql: `UPDATE revocation SET not_after = 0 WHERE log_index = 701`,
    want: [`LOG-11 revocation issuing/${serialNumberOf(5)}`],
  },
  {
    name: "who revoked",
    sql: `UPDATE revocation SET requested_by = 'other' WHERE log_index = 701`,
    want: [`LOG-11 revocation issuing/${serialNumberOf(5)}`],
  },
  {
    name: "the issuer's key of a revocation",
    sql: `UPDATE revocation SET key_id = 'x' WHERE log_index = 701`,
    want: [`LOG-11 revocation issuing/${serialNumberOf(5)}`],
  },
  {
    name: "key_id of a CRL set to 'x'",
    sql: `UPDATE crl SET key_id = 'x' WHERE number = 12`,
    want: ["LOG-11 crl issuing/12"],
  },
  {
    name: "tbs_sha256 of a CRL set to zeroblob(32)",
    sql: `UPDATE crl SET tbs_sha256 = zeroblob(32) WHERE number = 12`,
    want: ["LOG-11 crl issuing/12"],
  },
  {
    name: "this_update of a CRL set to this_update - 1000",
    sql: `UPDATE crl SET this_update = this_update - 1000 WHERE number = 12`,
    want: ["LOG-11 crl issuing/12"],
  },
  {
    name: "next_update of a CRL set to next_update + 1000",
    sql: `UPDATE crl SET next_update = next_update + 1000 WHERE number = 12`,
    want: ["LOG-11 crl issuing/12"],
  },
  {
    name: "done_index of a CRL set to 708",
    sql: `UPDATE crl SET done_index = 708 WHERE number = 12`,
    want: ["LOG-11 crl issuing/12"],
  },
  {
    name: "this_update of a pending CRL",
    sql: `UPDATE crl SET this_update = 0 WHERE number = 13`,
    want: ["LOG-11 crl issuing/13"],
  },
  {
    name: "an answer kept for somebody else",
    sql: `UPDATE idempotency SET requester = 'other' WHERE idx = 5`,
    want: ["LOG-11 idempotency other/k5"],
  },
  {
    name: "a kept answer that is no intent",
    sql: `INSERT INTO idempotency VALUES ('deploy', 'x', zeroblob(32), 6, 0)`,
    want: ["LOG-11 idempotency deploy/x"],
  },
  {
    name: "a kept answer of what nobody asked for",
    sql: `INSERT INTO idempotency SELECT 'deploy', 'x', zeroblob(32), idx, created_at FROM issued_certificate WHERE idx = 1`,
    want: ["LOG-11 idempotency deploy/x"],
  },
  {
    name: "a second key for one answer",
    sql: `INSERT INTO idempotency SELECT 'deploy', 'x', zeroblob(32), idx, created_at FROM issued_certificate WHERE idx = 7`,
    want: ["LOG-11 idempotency deploy/x"],
  },
  {
    name: "a kept answer that does not grow old",
    sql: `UPDATE idempotency SET created_at = created_at + 1 WHERE idx = 5`,
    want: ["LOG-11 idempotency deploy/k5"],
  },
  {
    name: "a trigger that lets CRLs drop what is revoked",
    sql: `CREATE TRIGGER quiet AFTER INSERT ON revocation BEGIN UPDATE revocation SET not_after = 0; END`,
    want: ["LOG-11 trigger quiet"],
  },
  {
    name: "the sequence of a statement",
    sql: `UPDATE requester_statement SET sequence = 2`,
    want: ["LOG-11 requester_statement 2"],
  },
  {
    name: "the name of a statement",
    sql: `UPDATE requester_statement SET name = 'other'`,
    want: ["LOG-11 requester_statement 1"],
  },
  {
    name: "the action of a statement",
    sql: `UPDATE requester_statement SET action = 'remove'`,
    want: ["LOG-11 requester_statement 1"],
  },
  {
    name: "the signature of a statement",
    sql: `UPDATE requester_statement SET signature = 'AAEE'`,
    want: ["LOG-11 requester_statement 1"],
  },
  {
    name: "the digest of a policy",
    sql: `UPDATE policy_version SET digest = 'x'`,
    want: ["LOG-11 policy_version x"],
  },
  {
    name: "the serial number of a revocation",
    sql: `UPDATE revocation SET serial_number = '${serialNumberOf(9)}' WHERE log_index = 701`,
    want: [`LOG-11 revocation issuing/${serialNumberOf(9)}`],
  },
  {
    name: "the issuer of a revocation",
    sql: `UPDATE revocation SET issuer = 'x', not_after = 0 WHERE log_index = 701`,
    want: [`LOG-11 revocation x/${serialNumberOf(5)}`],
  },
  {
    name: "the issuer of a CRL",
    sql: `UPDATE crl SET issuer = 'x' WHERE number = 12`,
    want: ["LOG-11 crl x/12"],
  },
  {
    name: "a kept answer to no body",
    sql: `UPDATE idempotency SET body_sha256 = X'00' WHERE idx = 5`,
    want: ["LOG-11 idempotency deploy/k5"],
  },
  {
    name: "not_before of an abandoned certificate after its intent",
    sql: `UPDATE issued_certificate SET not_before = not_before + 120000 WHERE idx = 699`,
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(699)}`],
  },
  {
    name: "next_update of a pending CRL",
    sql: `UPDATE crl SET next_update = this_update WHERE number = 13`,
    want: ["LOG-11 crl issuing/13"],
  },
  {
    name: "a name beyond the end of the log",
    sql: `INSERT INTO certificate_name VALUES (5000, 'dns', 'a.example.test', 'tset.elpmaxe.a')`,
    want: ["LOG-11 certificate_name 5000 dns:a.example.test"],
  },
  {
    name: "a CRL beyond the end of the log",
    sql: `INSERT INTO crl SELECT issuer, key_id, 99, tbs_sha256, NULL, NULL, this_update, next_update, 5000, NULL, 'pending' FROM crl WHERE number = 13`,
    want: ["LOG-11 crl issuing/99"],
  },
  {
    name: "a revocation beyond the end of the log",
    sql: `INSERT INTO revocation SELECT issuer, key_id, '07', reason, 0, NULL, 'x', 5000, 0 FROM revocation LIMIT 1`,
    want: ["LOG-11 revocation issuing/07"],
  },
  {
    name: "a statement beyond the end of the log",
    sql: `INSERT INTO requester_statement SELECT 2, statement, signature, name, action, 5000 FROM requester_statement`,
    want: ["LOG-11 requester_statement 2"],
  },
  {
    name: "an entry before the first",
    sql: `INSERT INTO audit_entry SELECT -1, leaf FROM audit_entry WHERE idx = 7`,
    want: ["LOG-11 audit_entry -1"],
  },
  {
    name: "a tile of nothing",
    sql: `INSERT INTO audit_tile VALUES (0, 77, zeroblob(32))`,
    want: ["LOG-11 audit_tile 0/77"],
  },
  {
    name: "a hash after the last of a tile",
    sql: `UPDATE audit_tile SET hashes = CAST(hashes || zeroblob(32) AS BLOB) WHERE level = 0 AND n = 2`,
    want: ["LOG-11 audit_tile 0/2"],
  },
])("AUDIT 9.6 rule 11: $name is found and named", async ({ sql, want }) => {
  const database = await open(sql);
  // Where the log is read from makes no difference to a row; the tests around this one take both.
  const report = await verifyLog(database.log, { key, database: database.rows });
  expect(positions(report)).toEqual(want);
  await database.close();
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
    name: "the checkpoint under another size",
    sql: "UPDATE audit_checkpoint SET size = 42",
    database: ["LOG-11 audit_checkpoint 42"],
    export: ["LOG-11 audit_checkpoint 42"],
  },
  {
    name: "an older checkpoint beside the last",
    sql: "INSERT INTO audit_checkpoint SELECT 42, note FROM audit_checkpoint",
    database: ["LOG-11 audit_checkpoint"],
    export: ["LOG-11 audit_checkpoint"],
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
  ]);
});

/** The checkpoint of the first `size` entries, by the log's key. */
function checkpointOf(size: number, origin?: string): string {
  const older = new MemoryLog(origin);
  older.append(log.leaves.slice(0, size));
  return older.checkpoint();
}

const putBack = (size: number, note = checkpointOf(size)): string =>
  `DELETE FROM audit_checkpoint; INSERT INTO audit_checkpoint VALUES (${size}, '${note}')`;

test("LOG-11: the database's own entries behind its checkpoint are checked, and said not to be covered", async () => {
  const report = await verifyTampered(putBack(600), "database");
  expect(report.failures).toEqual([]);
  expect(report.notices).toMatchObject([
    {
      rule: "LOG-11",
      position: "audit_checkpoint",
      detail: expect.stringMatching(
        /covers only 600 of 709 entries: nobody has signed the last 109/,
      ),
    },
  ]);
  // What the checkpoint covers is what is reported: its last entry is an intent.
  expect(report).toMatchObject({ openIntents: [599], abandonedIntents: [], consistent: true });
});

test.for([
  { name: "512 entries", size: 197, want: [] },
  { name: "513 entries", size: 196, want: ["LOG-11 audit_checkpoint"] },
])("LOG-11: a checkpoint that leaves $name uncovered", async ({ size, want }) => {
  const report = await verifyTampered(putBack(size), "database");
  expect(positions(report)).toEqual(want);
  if (want.length === 0) return;
  expect(report.failures[0]!.detail).toMatch(/covers only 196 of 709 entries/);
  // An export that covers them does not make the database's own checkpoint a newer one.
  expect(positions(await verifyTampered(putBack(size), "export"))).toEqual([]);
});

test.for([
  {
    name: "a row that is not what its entry says",
    sql: "UPDATE issued_certificate SET not_after = 1 WHERE idx = 651",
    want: [`LOG-11 issued_certificate issuing/${serialNumberOf(651)}`],
  },
  {
    name: "a row without an entry",
    sql: "INSERT INTO revocation SELECT issuer, key_id, '07', reason, 0, NULL, 'x', 707, 0 FROM revocation LIMIT 1",
    want: ["LOG-11 revocation issuing/07"],
  },
  {
    name: "a row of an entry to come",
    sql: "INSERT INTO policy_version VALUES (709, 'x', 'x')",
    want: ["LOG-11 policy_version x"],
  },
  {
    name: "an entry that is no record",
    sql: "UPDATE audit_entry SET leaf = X'7b7d' WHERE idx = 707",
    want: ["LOG-4 entry 707", "LOG-11 audit_tile 0/2"],
  },
  {
    name: "an entry in the place of another",
    sql: `UPDATE audit_entry SET leaf = (SELECT leaf FROM audit_entry WHERE idx = 702) WHERE idx = 707;
          UPDATE revocation SET log_index = 707 WHERE log_index = 701`,
    want: ["LOG-11 entry 701", "LOG-11 revocation issuing/${5}", "LOG-11 audit_tile 0/2"],
  },
  {
    name: "an entry added, without its hash",
    sql: "INSERT INTO audit_entry SELECT 709, leaf FROM audit_entry WHERE idx = 707",
    want: ["LOG-11 audit_tile 0/2"],
  },
  {
    name: "an entry missing",
    sql: "DELETE FROM audit_entry WHERE idx = 707",
    want: ["LOG-11 audit_entry 707", "LOG-11 crl issuing/13"],
  },
  {
    name: "a hash of a tile that is full by now",
    size: 500,
    sql: `UPDATE audit_tile SET hashes = CAST(substr(hashes, 1, 8160) || zeroblob(32) AS BLOB)
          WHERE level = 0 AND n = 1`,
    want: ["LOG-11 audit_tile 0/1"],
  },
  {
    name: "a hash of the second level",
    size: 500,
    sql: `UPDATE audit_tile SET hashes = CAST(substr(hashes, 1, 32) || zeroblob(32) AS BLOB) WHERE level = 1`,
    want: ["LOG-11 audit_tile 1/0"],
  },
  {
    name: "a result of nothing",
    sql: "UPDATE audit_entry SET leaf = (SELECT leaf FROM audit_entry WHERE idx = 698) WHERE idx = 707",
    want: ["LOG-7 entry 707", "LOG-11 audit_tile 0/2"],
  },
])("LOG-11: behind an older checkpoint, $name is found", async ({ sql, want, size = 600 }) => {
  const report = await verifyTampered(`${sql}; ${putBack(size)}`, "database");
  expect(positions(report).toSorted()).toEqual(
    want.map((position) => position.replace("${5}", serialNumberOf(5))).toSorted(),
  );
});

test("LOG-11: the database's own checkpoint is of this log, where it goes on after the copy too", async () => {
  const older = new MemoryLog();
  older.append(log.leaves.slice(0, 600));
  const copy = directoryLogSource(join(directory, "copy-600"));
  await exportLog(older.reader(), join(directory, "copy-600"));
  const verify = async (note: string, size = 709): Promise<string[]> => {
    const database = await open(putBack(size, note));
    const report = await verifyLog(copy, { key, database: database.rows });
    await database.close();
    return report.failures.map(({ position, detail }) => `${position}: ${detail}`);
  };
  expect(await verify(log.checkpoint())).toEqual([]);
  expect(await verify(checkpointOf(650), 650)).toEqual([]);
  const { signer } = log;
  const another = signNote(checkpointText(signer.name, 650, Buffer.alloc(32)), signer);
  expect(await verify(another, 650)).toEqual([
    "audit_checkpoint 650: the log has another root at this size",
  ]);
  const beyond = signNote(checkpointText(signer.name, 710, Buffer.alloc(32)), signer);
  expect(await verify(beyond, 710)).toEqual([
    "audit_checkpoint 710: it covers 710 entries, and the database has 709",
  ]);
  const forger = logSigner(signer.name, "02".repeat(32));
  const forged = signNote(checkpointText(signer.name, 709, log.tree.root()), forger);
  expect(await verify(forged)).toEqual([expect.stringMatching(/^audit_checkpoint: /)]);
});

test("LOG-11: rows that an index hides are found by SQLite's own check", async () => {
  const file = join(directory, "hidden.sqlite");
  copyFileSync(original, file);
  const index = `CREATE INDEX "issued_certificate_spki" ON "issued_certificate" ("spki_sha256")`;
  const rewrite = (sql: string): void =>
    runSql(
      file,
      `PRAGMA writable_schema = ON;
       UPDATE sqlite_master SET sql = '${sql}' WHERE name = 'issued_certificate_spki'`,
    );
  rewrite(`${index} WHERE idx < 0`);
  runSql(file, "REINDEX issued_certificate_spki");
  rewrite(index);
  const database = await openAuditDatabase(file);
  const report = await verifyLog(database.log, { key, database: database.rows });
  await database.close();
  expect(report.consistent).toBe(false);
  expect(report.failures.length).toBe(20);
  expect(report.failures[0]).toEqual({
    rule: "LOG-11",
    position: "database",
    detail: "it is damaged: row 1 missing from index issued_certificate_spki",
  });
});

test("LOG-11: a damaged file that cannot be read on is a finding and not an error", async () => {
  const database = await open();
  const broken = {
    ...database.rows,
    damage: ["Tree 5 page 7: btreeInitPage() returns error code 11"],
    logSize: () => Promise.reject(new Error("database disk image is malformed")),
  };
  const report = await verifyLog(database.log, { key, database: broken });
  expect(positions(report)).toEqual(["LOG-11 database", "LOG-11 database"]);
  await expect(
    verifyLog(database.log, { key, database: { ...broken, damage: [] } }),
  ).rejects.toThrow(/malformed/);
  await database.close();
});

/** What is signed is not what was to be signed, or by somebody else; the log itself says so, and every row agrees. */
const stranger = softwareKey("P-256");
test.for<{
  name: string;
  make: (crafted: IssuedLog) => void;
  index: number;
  row: string;
  want: RegExp;
}>([
  {
    name: "a certificate of another TBS",
    make: (crafted) =>
      crafted.sign(crafted.intend(), {
        tbs: crafted.tbs(serialNumberOf(5), [{ kind: "dns", value: "evil.example.test" }]),
      }),
    index: 6,
    row: `issued_certificate issuing/${serialNumberOf(5)}`,
    want: /is not what entry 5 says was to be signed/,
  },
  {
    name: "a certificate of another serial number",
    make: (crafted) => crafted.sign(crafted.intend(), { tbs: crafted.tbs(serialNumberOf(99)) }),
    index: 6,
    row: `issued_certificate issuing/${serialNumberOf(5)}`,
    want: /its serial number is not that of entry 5/,
  },
  {
    name: "a certificate by another key",
    make: (crafted) => crafted.sign(crafted.intend(), { key: stranger }),
    index: 6,
    row: `issued_certificate issuing/${serialNumberOf(5)}`,
    want: /its signature is not one by key/,
  },
  {
    name: "a certificate that is none",
    make: (crafted) => crafted.sign(crafted.intend(), { tbs: Buffer.from("3000", "hex") }),
    index: 6,
    row: `issued_certificate issuing/${serialNumberOf(5)}`,
    want: /is no certificate/,
  },
  {
    name: "a CRL of another TBS",
    make: (crafted) =>
      crafted.sign(crafted.intendCrl(2n), {
        tbs: crafted.crlTbs(2n, [
          { serialNumber: Buffer.from("05", "hex"), revocationDate: at, reason: "unspecified" },
        ]),
      }),
    index: 6,
    row: "crl issuing/2",
    want: /is not what entry 5 says was to be signed/,
  },
  {
    name: "a CRL of another number",
    make: (crafted) => crafted.sign(crafted.intendCrl(2n), { tbs: crafted.crlTbs(9n) }),
    index: 6,
    row: "crl issuing/2",
    want: /its CRL number is not that of entry 5/,
  },
  {
    name: "a CRL by another key",
    make: (crafted) => crafted.sign(crafted.intendCrl(2n), { key: stranger }),
    index: 6,
    row: "crl issuing/2",
    want: /its signature is not one by key/,
  },
  {
    name: "a CRL that is none",
    make: (crafted) => crafted.sign(crafted.intendCrl(2n), { tbs: Buffer.from("3000", "hex") }),
    index: 6,
    row: "crl issuing/2",
    want: /is no CRL/,
  },
])("LOG-7: $name is found, in a database and beside a copy of the log", async (row) => {
  const crafted = new IssuedLog();
  row.make(crafted);
  const small = new MemoryLog();
  small.append(crafted.leaves);
  const name = join(directory, row.name.replaceAll(" ", "-"));
  await makeLogDatabase(`${name}.sqlite`, small, crafted.objects);
  const database = await openAuditDatabase(`${name}.sqlite`);
  const fromDatabase = await verifyLog(database.log, { key, database: database.rows });
  await database.close();
  expect(new Set(positions(fromDatabase))).toEqual(new Set([`LOG-11 ${row.row}`]));
  expect(fromDatabase.failures.map(({ detail }) => detail).join()).toMatch(row.want);

  await exportLog(small.reader(), name, crafted.objects.values());
  const beside = await verifyLog(directoryLogSource(name), { key });
  expect(new Set(positions(beside))).toEqual(new Set([`LOG-7 entry ${row.index}`]));
  expect(beside.failures.map(({ detail }) => detail).join()).toMatch(row.want);
  expect(beside.notices).toEqual([]);
});

test("LOG-7: objects beside a copy are checked, and those that are not there are counted", async () => {
  const crafted = new IssuedLog().fill(9);
  crafted.sign(crafted.intendCrl(1n));
  const small = new MemoryLog();
  small.append(crafted.leaves);
  const verify = async (name: string, objects: Iterable<Uint8Array>): Promise<VerifyReport> => {
    await exportLog(small.reader(), join(directory, name), objects);
    return verifyLog(directoryLogSource(join(directory, name)), { key });
  };
  const all = [...crafted.objects.values()];
  expect(await verify("all", all)).toMatchObject({ consistent: true, notices: [] });

  expect(await verify("none", [])).toMatchObject({
    consistent: true,
    notices: [
      {
        rule: "LOG-7",
        position: "objects",
        detail: expect.stringMatching(
          /the bytes of 4 certificates and 1 CRLs are not beside this log/,
        ),
      },
    ],
  });

  const { root, issuing: issuingCertificate, rootKey, issuingKey } = crafted.ca;
  const withoutCas = all.filter((object) => object !== root && object !== issuingCertificate);
  const { notices, failures } = await verify("without-cas", withoutCas);
  expect(failures).toEqual([]);
  expect(notices.map(({ position, detail }) => `${position}: ${detail}`)).toEqual([
    expect.stringMatching(/^objects: the bytes of 2 certificates and 0 CRLs/),
    expect.stringMatching(`^key ${issuingKey.keyId}: .* 3 signatures were not checked`),
  ]);
  const withoutRoot = await verify(
    "without-root",
    all.filter((object) => object !== root),
  );
  expect(withoutRoot.notices[1]).toMatchObject({ position: `key ${rootKey.keyId}` });

  const certificate = sha256(issuingCertificate).slice("sha256:".length);
  writeFileSync(join(directory, "all/objects", certificate), root);
  const swapped = await verifyLog(directoryLogSource(join(directory, "all")), { key });
  expect(positions(swapped)).toEqual(["LOG-7 entry 4"]);
});

test("ST-73: yesterday's database does not hold today's log", async () => {
  const older = new MemoryLog();
  older.append(log.leaves.slice(0, 600));
  const file = join(directory, "yesterday.sqlite");
  await makeLogDatabase(file, older, issued.objects);
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
  tamper(file, "DELETE FROM issued_certificate; DELETE FROM audit_entry");
  expect((await verifyLog(database.log, { key, database: database.rows })).failures).toEqual([]);
  await database.close();
});

test("more rows than a page come in order and complete", async () => {
  const file = join(directory, "pages.sqlite");
  const long = new MemoryLog();
  const many = new IssuedLog().fill(2405);
  long.append(many.leaves);
  await makeLogDatabase(file, long, many.objects);
  tamper(
    file,
    `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2999)
     INSERT INTO revocation SELECT 'it''s ' || (i % 3) || char(0), '', printf('%06d', i), 'unspecified', 0, NULL, 'x',
       i % 2, 0 FROM n`,
  );
  const database = await openAuditDatabase(file);
  const indexes: number[] = [];
  for await (const { intentIndex } of database.rows.certificates()) indexes.push(intentIndex);
  expect(indexes).toEqual(Array.from({ length: 1202 }, (_, pair) => 1 + 2 * pair));
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

test("LOG-11: a request of a CA's own key has no row, and needs none", async () => {
  const crafted = new IssuedLog();
  const actor = { kind: "operator", id: "alice", via: "sshsig" } as const;
  const about = { type: "sign.intent", at, actor, subject: crafted.issuing } as const;
  const any = sha256(Buffer.from("any"));
  const intent = crafted.add({ ...about, data: { operation: "request", tbs: any } });
  crafted.add({ ...about, type: "sign.done", data: { intent, request: any } });
  const small = new MemoryLog();
  small.append(crafted.leaves);
  const file = join(directory, "request.sqlite");
  await makeLogDatabase(file, small, crafted.objects);
  const database = await openAuditDatabase(file);
  const report = await verifyLog(database.log, { key, database: database.rows });
  await database.close();
  expect(report).toMatchObject({ failures: [], openIntents: [] });
});
