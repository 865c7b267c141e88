/** A database with the tables of the migrations, filled by the sqlite3 program and open to every tampering. */

import { execFileSync } from "node:child_process";
import type { QueryRunner } from "typeorm";
import { migrations } from "../../migrations/index.ts";
import { parseEntry } from "../../src/audit/entry.ts";
import { signedObject, type MemoryLog } from "./log.ts";

/** Runs SQL as somebody with write access to the file would. */
export function runSql(file: string, sql: string): void {
  execFileSync("sqlite3", ["-bail", file], { input: sql, stdio: ["pipe", "ignore", "inherit"] });
}

const blob = (bytes: Uint8Array): string => `X'${Buffer.from(bytes).toString("hex")}'`;
const digest = (text: string): string => `X'${text.slice("sha256:".length)}'`;
const text = (value: string): string => `'${value.replaceAll("'", "''")}'`;

/** The document that records of the tests name by its digest. */
export const policyDocument = "policy";

/** The log, and the rows that its records account for. Triggers are gone: whoever tampers drops them first. */
export async function makeLogDatabase(file: string, log: MemoryLog): Promise<void> {
  const sql: string[] = [];
  const queryRunner = {
    query: async (statement: string) => {
      if (!/^\s*CREATE TRIGGER/.test(statement)) sql.push(`${statement};`);
    },
  } as unknown as QueryRunner;
  for (const Migration of migrations) await new Migration().up(queryRunner);

  sql.push("BEGIN;");
  for (const [index, leaf] of log.leaves.entries()) {
    sql.push(`INSERT INTO audit_entry VALUES (${index}, ${blob(leaf)});`, ...rowsOf(index, leaf));
  }
  for (const [key, hashes] of log.tiles) {
    const [level, n] = key.split("/");
    sql.push(`INSERT INTO audit_tile VALUES (${level}, ${n}, ${blob(hashes)});`);
  }
  sql.push(
    `INSERT INTO audit_checkpoint VALUES (${log.tree.size}, ${text(log.checkpoint())});`,
    "COMMIT;",
  );
  runSql(file, sql.join("\n"));
}

function rowsOf(index: number, leaf: Uint8Array): string[] {
  const entry = parseEntry(leaf);
  if (entry.type === "sign.intent") {
    const { issuer, keyId, serialNumber = "" } = entry.subject;
    return entry.data.operation === "crl"
      ? [
          `INSERT INTO crl VALUES (${text(issuer)}, ${text(keyId)}, ${entry.data.number}, ${digest(entry.data.tbs)},
           NULL, NULL, 0, 0, ${index}, NULL, 'pending');`,
        ]
      : [
          `INSERT INTO issued_certificate VALUES (${index}, ${text(issuer)}, ${text(keyId)}, ${text(serialNumber)},
           'leaf', ${text(entry.data.profile!)}, 'deploy', 'CN=x', 0, 0, X'00', ${digest(entry.data.tbs)}, NULL, NULL,
           NULL, NULL, 'pending', 0);`,
        ];
  }
  if (entry.type === "sign.done") {
    const { certificate, crl, intent, number } = entry.data;
    return certificate === undefined
      ? [
          `UPDATE crl SET crl = ${blob(signedObject(number!.padStart(40, "0")).der)}, crl_sha256 = ${digest(crl!)},
           done_index = ${index}, state = 'issued' WHERE intent_index = ${intent};`,
        ]
      : [
          `UPDATE issued_certificate SET certificate = ${blob(signedObject(entry.subject.serialNumber!).der)},
           certificate_sha256 = ${digest(certificate)}, done_index = ${index}, state = 'issued' WHERE idx = ${intent};`,
        ];
  }
  if (entry.type === "sign.abandoned") {
    return ["issued_certificate SET", "crl SET"].map((table) => {
      const column = table.startsWith("crl") ? "intent_index" : "idx";
      return `UPDATE ${table} done_index = ${index}, state = 'abandoned' WHERE ${column} = ${entry.data.intent};`;
    });
  }
  if (entry.type === "certificate.revoked") {
    const { issuer, keyId, serialNumber } = entry.subject;
    const { reason, revocationDate, invalidityDate } = entry.data;
    return [
      `INSERT INTO revocation VALUES (${text(issuer)}, ${text(keyId)}, ${text(serialNumber)}, ${text(reason)},
       ${Date.parse(revocationDate)}, ${invalidityDate === undefined ? "NULL" : Date.parse(invalidityDate)}, 'deploy',
       ${index}, 0);`,
    ];
  }
  if (entry.type === "policy.changed" && entry.evidence !== undefined) {
    const { sequence, requester, action } = entry.data!;
    const { statement, signature } = entry.evidence;
    return [
      `INSERT INTO requester_statement VALUES (${sequence}, ${blob(Buffer.from(statement, "base64"))},
       ${text(signature)}, ${text(requester!)}, ${text(action!)}, ${index});`,
    ];
  }
  if (entry.type === "policy.changed" && entry.data?.policy !== undefined) {
    return [
      `INSERT INTO policy_version VALUES (${index}, ${text(entry.data.policy)}, ${text(policyDocument)});`,
    ];
  }
  return [];
}
