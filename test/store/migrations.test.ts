import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { migrations } from "../../migrations/index.ts";
import type { CeremonyKind } from "../../src/custody/statement.ts";
import { ceremony, confirmed, enrolment, shareSet, story } from "../support/custody-story.ts";
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

/** A log with the whole story of a key, and a connection that may write. */
async function custodyHome() {
  const home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const confirmations = [1, 2, 3].map((index) => confirmed(ready, index));
  const items = [...story().items, making, ready, ...confirmations, idle];
  await Promise.all(items.map((item) => journal.append(item)));
  await journal.enrolment(enrolment("erin"));
  await journal.enrolment(enrolment("frank"));
  await journal.proved(enrolment("frank").id);
  await journal.drain();
  return home;
}

const { ceremonies, unlocks, sets } = story();
/** A set of another key that only waits to be activated, and a ceremony that nobody has spoken about. */
const making = ceremony("making", "generate");
const ready = shareSet(making, 1, "1".repeat(64));
const idle = ceremony("idle", "window");
const of = ({ row }: { row: { digest: string } }) => `digest = '${row.digest}'`;
const share = (set: { row: { digest: string } }, index: number) =>
  `share_set = '${set.row.digest}' AND idx = ${index}`;
/** Every column that is frozen, changed together with a step that is allowed. */
const frozen = (table: string, step: string, where: string, columns: readonly string[]) =>
  columns.map((column) => `UPDATE "${table}" SET ${step}, "${column}" = '77' WHERE ${where}`);

const custodyRefused = [
  "UPDATE object SET octets = x'00'",
  "DELETE FROM object",
  "INSERT OR REPLACE INTO object SELECT digest, x'00' FROM object",
  "UPDATE roster_version SET document = x'00'",
  "DELETE FROM roster_version WHERE version = 2",
  "INSERT OR REPLACE INTO roster_version SELECT version, digest, x'00', evidence, 99 FROM roster_version",
  "INSERT INTO roster_version SELECT 4, digest, document, evidence, 99 FROM roster_version WHERE version = 2",
  // ceremonies
  "DELETE FROM ceremony",
  "INSERT OR REPLACE INTO ceremony SELECT * FROM ceremony WHERE state = 'gathering'",
  // one of the same id
  `INSERT OR REPLACE INTO ceremony SELECT 'x', id, kind, key_id, proposer, note, 'gathering', 0, 0, 99, 99 FROM ceremony`,
  // one that begins as agreed
  `INSERT INTO ceremony SELECT 'x', 'x', kind, key_id, proposer, note, 'unlocked', 0, 0, 99, 99 FROM ceremony LIMIT 1`,
  `INSERT INTO ceremony SELECT 'x', 'x', kind, key_id, proposer, note, 'gathering', 0, 0, 99, 100 FROM ceremony LIMIT 1`,
  ...frozen("ceremony", "state = 'unlocking', changed_index = 99", of(ceremonies.open), [
    "digest",
    "id",
    "kind",
    "key_id",
    "proposer",
    "note",
    "not_after",
    "created_at",
    "log_index",
  ]),
  `UPDATE ceremony SET state = 'expired', kind = 'sign', changed_index = 99 WHERE ${of(ceremonies.open)}`,
  `UPDATE ceremony SET state = 'unlocking' WHERE ${of(ceremonies.open)}`,
  `UPDATE ceremony SET changed_index = 99 WHERE ${of(ceremonies.open)}`,
  `UPDATE OR REPLACE ceremony SET state = 'unlocking', changed_index = 99, digest =
     (SELECT digest FROM ceremony WHERE kind = 'sign') WHERE ${of(ceremonies.open)}`,
  ...["pending", "applied", "signed", "published", "locked", "draft"].map(
    (state) =>
      `UPDATE ceremony SET state = '${state}', changed_index = 99 WHERE ${of(ceremonies.open)}`,
  ),
  ...["gathering", "unlocked", "signed"].map(
    (state) =>
      `UPDATE ceremony SET state = '${state}', changed_index = 99 WHERE ${of(ceremonies.waiting)}`,
  ),
  ...["gathering", "unlocked", "locked", "aborted"].map(
    (state) =>
      `UPDATE ceremony SET state = '${state}', changed_index = 99 WHERE ${of(ceremonies.sign)}`,
  ),
  ...["gathering", "failed", "pending"].map(
    (state) =>
      `UPDATE ceremony SET state = '${state}', changed_index = 99 WHERE ${of(ceremonies.reshare)}`,
  ),
  // what people signed
  "DELETE FROM approval",
  "UPDATE approval SET verdict = 'approve'",
  "UPDATE approval SET statement = x'00'",
  "INSERT OR REPLACE INTO approval SELECT ceremony, operator, 'approve', role, x'00', '', 0, 99 FROM approval",
  `INSERT INTO approval SELECT '${ceremonies.window.row.digest}', 'zoe', 'approve', role, x'00', '', 0, 99
     FROM approval LIMIT 1`,
  `INSERT INTO approval SELECT 'x', 'zoe', 'approve', role, x'00', '', 0, 99 FROM approval LIMIT 1`,
  `DELETE FROM "abort"`,
  `UPDATE "abort" SET operator = 'bob'`,
  `INSERT OR REPLACE INTO "abort" SELECT ceremony, operator, x'00', '', 99 FROM "abort"`,
  `INSERT INTO "abort" SELECT ceremony, 'zoe', x'00', '', 99 FROM "abort"`,
  // unlocks
  "DELETE FROM unlock",
  "INSERT OR REPLACE INTO unlock SELECT * FROM unlock",
  ...frozen("unlock", "state = 'ended', changed_index = 99", of(unlocks.opening), [
    "digest",
    "id",
    "ceremony",
    "key_id",
    "share_set",
    "note",
    "expires_at",
    "log_index",
  ]),
  `UPDATE unlock SET state = 'ended' WHERE ${of(unlocks.opening)}`,
  `UPDATE unlock SET state = 'unlocked', changed_index = 99 WHERE ${of(unlocks.opening)}`,
  `UPDATE unlock SET state = 'opened', changed_index = 99 WHERE ${of(unlocks.windowing)}`,
  `UPDATE unlock SET state = 'gathering', changed_index = 99 WHERE ${of(unlocks.windowing)}`,
  // a second one that gathers, and one of shares that are not active
  `INSERT INTO unlock SELECT 'x', 'x', ceremony, key_id, share_set, note, 'gathering', 0, 99, 99 FROM unlock
     WHERE ${of(unlocks.opening)}`,
  `INSERT OR REPLACE INTO unlock SELECT 'x', 'x', ceremony, key_id, share_set, note, 'gathering', 0, 99, 99
     FROM unlock WHERE ${of(unlocks.opening)}`,
  `INSERT INTO unlock SELECT 'x', 'x', ceremony, key_id, share_set, note, 'gathering', 0, 99, 99 FROM unlock
     WHERE ${of(unlocks.signing)}`,
  `INSERT INTO unlock SELECT 'x', 'x', '${ceremonies.waiting.row.digest}', key_id, share_set, note, 'gathering', 0, 99, 99
     FROM unlock WHERE ${of(unlocks.opening)}`,
  `INSERT INTO unlock SELECT 'x', 'x', '${idle.row.digest}', key_id, share_set, note, 'gathering', 0, 99, 99
     FROM unlock WHERE ${of(unlocks.signing)}`,
  `INSERT INTO unlock SELECT 'x', 'x', '${idle.row.digest}', 'x', share_set, note, 'gathering', 0, 99, 99
     FROM unlock WHERE ${of(unlocks.opening)}`,
  "DELETE FROM submission",
  "UPDATE submission SET verdict = 'give'",
  "INSERT OR REPLACE INTO submission SELECT unlock, operator, 'give', x'00', '', 0, 99 FROM submission",
  `INSERT INTO submission SELECT unlock, 'zoe', 'give', x'00', '', 0, 99 FROM submission LIMIT 1`,
  // share sets
  "DELETE FROM share_set",
  "INSERT OR REPLACE INTO share_set SELECT * FROM share_set WHERE state = 'pending'",
  // an old blob put back, in every way
  `UPDATE share_set SET sealed = x'00' WHERE ${of(sets.first)}`,
  `UPDATE share_set SET state = 'active', sealed = x'00', changed_index = 99 WHERE ${of(sets.first)}`,
  `UPDATE share_set SET sealed = x'00', changed_index = 99 WHERE ${of(sets.second)}`,
  `INSERT INTO share_set SELECT 'x', key_id, 1, ceremony, note, x'00', 'pending', 99, 99 FROM share_set
     WHERE ${of(sets.first)}`,
  `INSERT INTO share_set SELECT 'x', key_id, 9, ceremony, note, x'00', 'active', 99, 99 FROM share_set
     WHERE ${of(sets.first)}`,
  `INSERT INTO share_set SELECT 'x', key_id, 9, ceremony, note, NULL, 'pending', 99, 99 FROM share_set
     WHERE ${of(sets.first)}`,
  `INSERT INTO share_set SELECT 'x', key_id, 9, ceremony, note, x'00', 'pending', 99, 100 FROM share_set
     WHERE ${of(sets.first)}`,
  `UPDATE share_set SET state = 'active', sealed = x'00', changed_index = 99 WHERE ${of(ready)}`,
  ...frozen("share_set", "state = 'dropped', sealed = NULL, changed_index = 99", of(sets.fourth), [
    "digest",
    "key_id",
    "epoch",
    "ceremony",
    "note",
    "log_index",
  ]),
  `UPDATE share_set SET state = 'dropped', changed_index = 99 WHERE ${of(sets.fourth)}`,
  `UPDATE share_set SET state = 'retired', changed_index = 99 WHERE ${of(sets.second)}`,
  `UPDATE share_set SET state = 'pending', changed_index = 99 WHERE ${of(sets.second)}`,
  `UPDATE share_set SET state = 'dropped', sealed = NULL, changed_index = 99 WHERE ${of(sets.second)}`,
  `UPDATE share_set SET state = 'retired', sealed = NULL, changed_index = 99 WHERE ${of(sets.fourth)}`,
  `UPDATE share_set SET state = 'active', changed_index = 99 WHERE ${of(sets.fourth)}`,
  `UPDATE OR REPLACE share_set SET state = 'active', changed_index = 99 WHERE ${of(sets.fourth)}`,
  // shares
  "DELETE FROM share",
  "INSERT OR REPLACE INTO share SELECT * FROM share",
  `INSERT INTO share SELECT share_set, 9, 'zoe', x'00', file_sha256, NULL, NULL, NULL, NULL FROM share
     WHERE ${share(sets.second, 1)}`,
  `INSERT INTO share SELECT share_set, 9, 'zoe', x'00', file_sha256, '{}', 99, NULL, NULL FROM share
     WHERE ${share(sets.fourth, 1)}`,
  `INSERT INTO share SELECT share_set, 9, 'zoe', NULL, file_sha256, NULL, NULL, NULL, NULL FROM share
     WHERE ${share(sets.fourth, 1)}`,
  `INSERT INTO share SELECT share_set, 9, 'zoe', x'00', file_sha256, NULL, NULL, 1, 99 FROM share
     WHERE ${share(sets.fourth, 1)}`,
  `INSERT OR REPLACE INTO share SELECT share_set, idx, 'zoe', file, file_sha256, NULL, NULL, NULL, NULL FROM share
     WHERE ${share(sets.fourth, 1)}`,
  ...["proved_at = 1", "proved_index = 99"].map(
    (also) =>
      `UPDATE share SET file = NULL, confirmation = '{}', confirmed_index = 99, ${also} WHERE ${share(sets.fourth, 1)}`,
  ),
  ...["file = x'00'", "confirmation = '{}'"].map(
    (also) =>
      `UPDATE share SET proved_at = 1, proved_index = 99, ${also} WHERE ${share(sets.second, 1)}`,
  ),
  ...["confirmation = '{}'", "confirmed_index = 99", "proved_at = 1", "proved_index = 99"].map(
    (also) => `UPDATE share SET ${also} WHERE ${share(sets.first, 1)}`,
  ),
  `UPDATE share SET file = x'00' WHERE ${share(sets.fourth, 1)}`,
  `UPDATE share SET file = NULL WHERE ${share(sets.fourth, 1)}`,
  `UPDATE share SET file = x'00' WHERE ${share(sets.second, 1)}`,
  `UPDATE share SET file = x'00' WHERE ${share(sets.first, 1)}`,
  `UPDATE share SET confirmation = '{}', confirmed_index = 99 WHERE ${share(sets.fourth, 1)}`,
  `UPDATE share SET file = NULL, confirmed_index = 99 WHERE ${share(sets.fourth, 1)}`,
  `UPDATE share SET file = NULL, confirmation = '{}' WHERE ${share(sets.fourth, 1)}`,
  `UPDATE share SET confirmation = '{}', confirmed_index = 99 WHERE ${share(sets.fourth, 2)}`,
  `UPDATE share SET confirmation = '{}' WHERE ${share(sets.second, 1)}`,
  `UPDATE share SET proved_at = 1 WHERE ${share(sets.second, 1)}`,
  `UPDATE share SET proved_at = NULL, proved_index = 99 WHERE ${share(sets.second, 1)}`,
  `UPDATE share SET proved_at = 1, proved_index = 99 WHERE ${share(sets.first, 2)}`,
  `UPDATE share SET proved_at = 1, proved_index = 99 WHERE ${share(sets.fourth, 2)}`,
  ...frozen("share", "proved_at = 1, proved_index = 99", share(sets.second, 1), [
    "share_set",
    "idx",
    "operator",
    "file_sha256",
    "confirmed_index",
  ]),
  // enrolments
  "DELETE FROM enrolment WHERE state = 'proved'",
  "INSERT OR REPLACE INTO enrolment SELECT * FROM enrolment WHERE state = 'requested'",
  `INSERT INTO enrolment SELECT 'x', operator, keys, recipient, statement, signature, challenge, challenge_sha256,
     'proved', 0 FROM enrolment`,
  "UPDATE enrolment SET state = 'requested' WHERE state = 'proved'",
  ...frozen("enrolment", "state = 'proved'", "state = 'requested'", [
    "id",
    "operator",
    "keys",
    "recipient",
    "signature",
    "challenge_sha256",
    "created_at",
  ]),
  "UPDATE enrolment SET state = 'proved', challenge = x'00' WHERE state = 'requested'",
  "UPDATE enrolment SET state = 'proved', statement = x'00' WHERE state = 'requested'",
];

test("CUSTODY 6.2: ceremonies, unlocks and shares go only the ways that they have", async () => {
  await using home = await custodyHome();
  const { writer } = home.database;
  const before = await custodyContents(home);
  for (const recursive of ["OFF", "ON"]) {
    await writer.all(`PRAGMA recursive_triggers = ${recursive}`);
    for (const sql of custodyRefused) {
      expect.soft(await codeOf(writer.all(sql)), sql).toBe("SQLITE_CONSTRAINT");
    }
  }
  expect(await custodyContents(home)).toEqual(before);
});

/** Each way from the first state to an end. */
const ways: Readonly<Record<CeremonyKind, readonly string[]>> = {
  sign: [
    "unlocking unlocked signed verified published",
    "unlocking gathering unlocking unlocked published",
    "unlocked signed published",
    "unlocked signed failed",
    "unlocked failed",
    "unlocked aborted",
  ],
  window: ["unlocking unlocked locked", "unlocked locked", "unlocking gathering expired"],
  generate: ["pending applied", "pending aborted", "pending failed", "pending expired"],
  reshare: ["unlocking pending applied", "unlocking failed", "unlocking gathering rejected"],
  roster: ["applied", "rejected"],
  policy: ["applied", "aborted"],
  resume: ["applied", "expired"],
  retire: ["applied", "failed"],
};

test.for(Object.entries(ways) as [CeremonyKind, readonly string[]][])(
  "CUSTODY 6.2: a ceremony of kind %s goes its ways to an end, and no further",
  async ([kind, list]) => {
    await using home = await createHome();
    const journal = await home.openLog(createTestKeeper());
    const { writer } = home.database;
    for (const way of list) {
      const item = ceremony(way, kind);
      await journal.append(item);
      let index = 1000;
      const move = (state: string) =>
        writer.all(
          `UPDATE ceremony SET state = ?, changed_index = ? WHERE digest = '${item.row.digest}'`,
          [state, index++],
        );
      for (const state of way.split(" ")) await move(state);
      for (const state of ["gathering", "unlocking", "unlocked", "pending", "applied", "failed"]) {
        expect(await codeOf(move(state)), `${way} ${state}`).toBe("SQLITE_CONSTRAINT");
      }
    }
  },
);

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

async function custodyContents(home: Awaited<ReturnType<typeof createHome>>): Promise<unknown> {
  const tables = ["object", "roster_version", "ceremony", "approval", "abort", "unlock"];
  tables.push("submission", "share_set", "share", "enrolment");
  return Promise.all(tables.map((table) => home.database.reader.all(`SELECT * FROM "${table}"`)));
}
