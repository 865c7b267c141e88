import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { migrations } from "../../migrations/index.ts";
import { openAuditDatabase } from "../../src/audit/database-rows.ts";
import {
  schemaDigest,
  schemaDigests,
  schemaFindings,
  schemaSteps,
  type SchemaObject,
} from "../../src/audit/database-schema.ts";
import { openDatabase } from "../../src/store/database.ts";
import { runSql } from "../support/log-database.ts";

const directory = mkdtempSync(join(tmpdir(), "countersign-schema-"));
const made = join(directory, "made.db");

beforeAll(async () => (await openDatabase(made)).close());
afterAll(() => rmSync(directory, { recursive: true }));

let copies = 0;

async function read(sql = ""): Promise<{ objects: SchemaObject[]; steps: string[] }> {
  const file = join(directory, `${copies++}.db`);
  copyFileSync(made, file);
  if (sql !== "") runSql(file, sql);
  const database = await openAuditDatabase(file);
  const objects = await database.rows.schema();
  const steps = await database.rows.steps();
  await database.close();
  return { objects, steps };
}

test("the schema that the verifier expects is the one that the migrations make", async () => {
  const { objects, steps } = await read();
  // A new or changed step belongs into src/audit/database-schema.ts: this is what stands there.
  expect(
    Object.fromEntries(objects.map((made) => [`${made.type} ${made.name}`, schemaDigest(made)])),
  ).toEqual(schemaDigests);
  expect(steps).toEqual(schemaSteps);
  expect(steps).toEqual(migrations.map(({ name }) => name));
  expect(schemaFindings(objects, steps)).toEqual([]);
});

test.for([
  {
    name: "a trigger added",
    sql: `CREATE TRIGGER "quiet" AFTER INSERT ON "revocation"
          BEGIN UPDATE "revocation" SET "not_after" = 0; END`,
    want: ["trigger quiet"],
  },
  {
    name: "a trigger removed",
    sql: "DROP TRIGGER revocation_frozen",
    want: ["trigger revocation_frozen"],
  },
  {
    name: "a trigger made harmless",
    sql: `DROP TRIGGER audit_entry_frozen;
          CREATE TRIGGER "audit_entry_frozen" BEFORE UPDATE ON "audit_entry" BEGIN SELECT 1; END`,
    want: ["trigger audit_entry_frozen"],
  },
  {
    name: "a trigger on another table",
    sql: `DROP TRIGGER audit_entry_kept;
          CREATE TRIGGER "audit_entry_kept" BEFORE DELETE ON "audit_tile"
          BEGIN SELECT RAISE(ABORT, 'append only'); END`,
    want: ["trigger audit_entry_kept"],
  },
  { name: "an index removed", sql: "DROP INDEX crl_intent", want: ["index crl_intent"] },
  {
    name: "an index added",
    sql: `CREATE UNIQUE INDEX "once" ON "revocation" ("issuer")`,
    want: ["index once"],
  },
  { name: "a table added", sql: "CREATE TABLE other (x)", want: ["table other"] },
  {
    name: "a view in the place of a table",
    sql: `ALTER TABLE idempotency RENAME TO kept; CREATE VIEW idempotency AS SELECT * FROM kept`,
    want: [
      "index idempotency_created",
      "index sqlite_autoindex_kept_1",
      "table kept",
      "view idempotency",
      "table idempotency",
      "index sqlite_autoindex_idempotency_1",
    ],
  },
  {
    name: "a column added",
    sql: "ALTER TABLE crl ADD COLUMN x INTEGER",
    want: ["table crl"],
  },
  {
    name: "a step that was not run",
    sql: "DELETE FROM migrations WHERE id = 2",
    want: ["migrations"],
  },
])("LOG-11: in the schema, $name is found and named", async ({ sql, want }) => {
  const { objects, steps } = await read(sql);
  const found = schemaFindings(objects, steps).map(({ position }) => position);
  expect(found.toSorted()).toEqual(want.toSorted());
});

test("LOG-11: how the SQL of a step is laid out does not matter", () => {
  const object = { type: "table", name: "t", table: "t", sql: "CREATE TABLE t (\n  x\n)" };
  expect(schemaDigest(object)).toBe(schemaDigest({ ...object, sql: "CREATE TABLE t ( x )" }));
});
