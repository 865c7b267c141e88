import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { migrations } from "../../migrations/index.ts";
import {
  codeOf,
  createHome,
  createTestKeeper,
  crlIntent,
  done,
  entry,
  intent,
  leaf,
  revocation,
} from "./fixture.ts";

/** A log with one of everything, and a connection that may write. */
async function filledHome() {
  const home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  await journal.append(entry("started")); // 0
  const idempotency = { requester: "deploy", key: "k", bodySha256: randomBytes(32) };
  await journal.append(intent({ serialNumber: "41", idempotency })); // 1
  await journal.append(done(1)); // 2
  await journal.append(intent({ serialNumber: "42" })); // 3
  await journal.append(revocation("41")); // 4
  await journal.append(crlIntent(7n)); // 5
  await journal.append({ kind: "crl-done", leaf: leaf("c"), intentIndex: 5, crl: leaf("crl") }); // 6
  await journal.append(crlIntent(8n)); // 7
  await journal.append({
    kind: "requester",
    leaf: leaf("r"),
    row: { sequence: 1, statement: leaf("s"), signature: "sig", name: "deploy", action: "set" },
  }); // 8
  const policy = { digest: `sha256:${"00".repeat(32)}`, document: "{}" };
  await journal.append({ kind: "policy", leaf: leaf("p"), row: policy }); // 9
  await journal.drain();
  return home;
}

const refused = [
  // the log
  "UPDATE audit_entry SET leaf = x'00' WHERE idx = 3",
  "UPDATE OR REPLACE audit_entry SET idx = 2 WHERE idx = 3",
  "DELETE FROM audit_entry WHERE idx = 8",
  "INSERT INTO audit_entry VALUES (3, x'00')",
  "INSERT OR REPLACE INTO audit_entry VALUES (3, x'00')",
  "REPLACE INTO audit_entry VALUES (3, x'00')",
  "INSERT INTO audit_entry VALUES (3, x'00') ON CONFLICT DO UPDATE SET leaf = x'00'",
  "INSERT OR IGNORE INTO audit_entry VALUES (11, x'00')", // a gap
  "INSERT INTO audit_entry VALUES (-1, x'00')",
  "UPDATE audit_tile SET hashes = zeroblob(length(hashes))",
  "UPDATE audit_tile SET hashes = substr(hashes, 1, 32)",
  "UPDATE audit_tile SET n = 1",
  "INSERT OR REPLACE INTO audit_tile VALUES (0, 0, x'00')",
  "DELETE FROM audit_tile",
  // certificates
  "DELETE FROM issued_certificate",
  "UPDATE issued_certificate SET serial_number = '43' WHERE idx = 3",
  "UPDATE issued_certificate SET not_after = 0 WHERE idx = 3",
  "UPDATE issued_certificate SET certificate = x'00' WHERE idx = 1",
  "UPDATE issued_certificate SET state = 'abandoned', certificate = NULL, certificate_sha256 = NULL WHERE idx = 1",
  "UPDATE issued_certificate SET state = 'pending' WHERE idx = 1",
  "UPDATE issued_certificate SET state = 'issued' WHERE idx = 3",
  "UPDATE issued_certificate SET state = 'issued', certificate = x'00', certificate_sha256 = zeroblob(32) WHERE idx = 3",
  "UPDATE issued_certificate SET state = 'revoked', done_index = 9 WHERE idx = 3",
  "UPDATE issued_certificate SET state = 'abandoned', done_index = 9, subject = '' WHERE idx = 3",
  "UPDATE issued_certificate SET state = 'abandoned', done_index = 9, idx = 4 WHERE idx = 3",
  "INSERT OR REPLACE INTO issued_certificate SELECT * FROM issued_certificate WHERE idx = 3",
  // the same serial number under another index
  `INSERT OR REPLACE INTO issued_certificate
     SELECT 9, issuer, key_id, serial_number, kind, profile, requester, subject, not_before, not_after,
       spki_sha256, tbs_sha256, csr, certificate, certificate_sha256, done_index, state, created_at
     FROM issued_certificate WHERE idx = 3`,
  // never an intent
  `INSERT INTO issued_certificate
     SELECT 9, issuer, key_id, '99', kind, profile, requester, subject, not_before, not_after, spki_sha256,
       tbs_sha256, csr, certificate, certificate_sha256, done_index, state, created_at
     FROM issued_certificate WHERE idx = 1`,
  "DELETE FROM certificate_name",
  "UPDATE certificate_name SET value = 'evil.example.com'",
  "INSERT OR REPLACE INTO certificate_name SELECT idx, kind, value, 'x' FROM certificate_name",
  // revocations and CRLs
  "DELETE FROM revocation",
  "UPDATE revocation SET reason = 'removeFromCRL'",
  "INSERT OR REPLACE INTO revocation SELECT issuer, key_id, serial_number, 'x', 0, 0, '', 9, 0 FROM revocation",
  "DELETE FROM crl",
  "UPDATE crl SET number = 6 WHERE number = 7",
  "UPDATE crl SET crl = x'00' WHERE number = 7",
  "UPDATE crl SET state = 'issued' WHERE number = 8",
  "UPDATE crl SET state = 'abandoned', done_index = 1 WHERE number = 8",
  "INSERT OR REPLACE INTO crl SELECT * FROM crl WHERE number = 8",
  `INSERT INTO crl SELECT issuer, key_id, 6, tbs_sha256, NULL, NULL, 0, 0, 9, NULL, 'pending'
     FROM crl WHERE number = 7`,
  `INSERT OR REPLACE INTO crl SELECT issuer, key_id, 9, tbs_sha256, NULL, NULL, 0, 0, 7, NULL, 'pending'
     FROM crl WHERE number = 7`,
  // what an operator signed
  "DELETE FROM requester_statement",
  "UPDATE requester_statement SET name = 'other'",
  "INSERT OR REPLACE INTO requester_statement SELECT sequence, statement, signature, 'x', 'remove', 9 FROM requester_statement",
  // the policies that were in force
  "DELETE FROM policy_version",
  "UPDATE policy_version SET document = '{}'",
  "INSERT OR REPLACE INTO policy_version SELECT log_index, digest, '{}' FROM policy_version",
];

test("AUDIT-LOG 9.4: nothing recorded can be changed, deleted or replaced", async () => {
  await using home = await filledHome();
  const { writer } = home.database;
  const before = await contents(home);
  for (const recursive of ["OFF", "ON"]) {
    await writer.all(`PRAGMA recursive_triggers = ${recursive}`);
    for (const sql of refused) {
      expect.soft(await codeOf(writer.all(sql)), sql).toBe("SQLITE_CONSTRAINT");
    }
  }
  expect(await contents(home)).toEqual(before);
});

test("the steps that are allowed: an intent ends once, as issued or as abandoned", async () => {
  await using home = await filledHome();
  const { writer } = home.database;
  await writer.all(
    "UPDATE issued_certificate SET state = 'abandoned', done_index = 9 WHERE idx = 3",
  );
  await writer.all("UPDATE crl SET state = 'abandoned', done_index = 9 WHERE number = 8");
  const again = "UPDATE issued_certificate SET state = 'abandoned', done_index = 10 WHERE idx = 3";
  expect(await codeOf(writer.all(again))).toBe("SQLITE_CONSTRAINT");
});

test("migrations stand in the order of their times, and none can be undone", async () => {
  const names = migrations.map(({ name }) => name);
  expect(names.map((name) => name.slice(-13)).toSorted()).toEqual(
    names.map((name) => name.slice(-13)),
  );
  for (const Migration of migrations) {
    await expect(new Migration().down()).rejects.toThrow("restore a backup");
  }
});

async function contents(home: Awaited<ReturnType<typeof createHome>>): Promise<unknown> {
  const tables = ["audit_entry", "audit_tile", "issued_certificate", "certificate_name"];
  tables.push("revocation", "crl", "requester_statement", "policy_version");
  return Promise.all(tables.map((table) => home.database.reader.all(`SELECT * FROM ${table}`)));
}
