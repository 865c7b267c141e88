/** A log of real certificates, and a database of its rows, filled by the sqlite3 program and open to every tampering. */

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeEntry, parseEntry, type Actor, type LogEntry } from "../../src/audit/entry.ts";
import { openDatabase } from "../../src/store/database.ts";
import { certificateTemplate, buildTbsCertificate } from "../../src/x509/certificate-template.ts";
import { parseCertificate, parseTbsCertificate } from "../../src/x509/certificate.ts";
import {
  buildTbsCertList,
  parseTbsCertList,
  type RevokedCertificate,
} from "../../src/x509/certificate-list.ts";
import { buildCertificationRequest } from "../../src/x509/certification-request-builder.ts";
import { parseGeneralNames } from "../../src/x509/general-name.ts";
import { emptyName, nameText } from "../../src/x509/name.ts";
import { extensionOids, extKeyUsageOids } from "../../src/x509/oid.ts";
import { spkiDigest } from "../../src/x509/public-key.ts";
import { serialNumberHex } from "../../src/x509/serial-number.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import { serialNumberOf, sha256, type MemoryLog } from "./log.ts";
import { DAY, softwareCa, softwareKey, type SoftwareKey } from "./software-ca.ts";

/** Runs SQL as somebody with write access to the file would. */
export function runSql(file: string, sql: string): void {
  execFileSync("sqlite3", ["-bail", file], { input: sql, stdio: ["pipe", "ignore", "inherit"] });
}

/** Runs SQL past the triggers: whoever tampers drops them first, and puts them back in their exact words. */
export function tamper(file: string, sql: string): void {
  const listed = execFileSync("sqlite3", [
    "-json",
    file,
    "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'",
  ]).toString();
  const triggers = JSON.parse(listed) as { name: string; sql: string }[];
  const drop = triggers.map(({ name }) => `DROP TRIGGER "${name}";`).join("\n");
  runSql(
    file,
    `PRAGMA synchronous = OFF;\n${drop}\n${sql};\n${triggers.map((trigger) => `${trigger.sql};`).join("\n")}`,
  );
}

const at = new Date("2026-11-21T20:05:01.123Z");
const wholeSecond = new Date("2026-11-21T20:05:01.000Z");
const service: Actor = { kind: "service", id: "ca.example.com" };
const requester: Actor = { kind: "requester", id: "deploy", via: "api-key" };

export interface Signed {
  /** Another TBS than the intent says. */
  readonly tbs?: Uint8Array;
  /** Another key than the issuer's. */
  readonly key?: SoftwareKey;
}

/** The records of a service with a root and an issuing CA, and what they name by digest. */
export class IssuedLog {
  readonly leaves: Uint8Array[] = [];
  /** Certificates, CRLs, requests, and every TBS, by their digest. */
  readonly objects = new Map<string, Uint8Array>();
  readonly ca = softwareCa(at);
  readonly issuing = { issuer: "issuing", keyId: this.ca.issuingKey.keyId };
  readonly names = [
    { kind: "dns", value: "www.example.test" },
    { kind: "ip", value: "10.0.0.7" },
  ] as const;
  readonly #key = softwareKey("P-256");
  readonly #csr = this.#keep(
    buildCertificationRequest({
      privateKey: this.#key.privateKey,
      // The service writes a name in its one spelling, whatever the request has.
      names: this.names.map(({ kind, value }) => ({ kind, value: value.replace("www", "WWW") })),
    }),
  );
  readonly #template = certificateTemplate({
    issuerCertificate: this.ca.issuing,
    keyUsage: ["digitalSignature"],
    extKeyUsage: [extKeyUsageOids.serverAuth],
    crlUrl: "http://127.0.0.1/crl/issuing.crl",
    caIssuersUrl: "http://127.0.0.1/ca/issuing.cer",
    subjectKeyIdentifier: false,
  });

  /** Entries 0 to 4: the log, the root, the issuing CA. */
  constructor() {
    const origin = "ca.example.com/audit";
    this.add({ type: "log.started", at, actor: service, subject: {}, data: { origin } });
    this.#authority(this.ca.root, "root");
    this.#authority(this.ca.issuing, "intermediate");
  }

  /** @returns Its index. */
  add(entry: LogEntry): number {
    return this.leaves.push(encodeEntry(entry)) - 1;
  }

  /** Leaf certificates until there are `size` entries; the last may be an intent. */
  fill(size: number): this {
    while (this.leaves.length < size) {
      const intent = this.intend();
      if (this.leaves.length < size) this.sign(intent);
    }
    return this;
  }

  /** The intent of a leaf; its serial number is that of its index. */
  intend(serialNumber = serialNumberOf(this.leaves.length)): number {
    const tbs = this.#keep(this.tbs(serialNumber));
    return this.add({
      type: "sign.intent",
      at,
      actor: requester,
      subject: { ...this.issuing, serialNumber },
      data: {
        operation: "certificate",
        tbs,
        profile: "server",
        csr: this.#csr,
        policy: sha256(Buffer.from(policyDocument)),
        rule: "requesters.deploy.names.dns.allow[0]",
      },
    });
  }

  intendCrl(number: bigint, entries: readonly RevokedCertificate[] = []): number {
    const tbs = this.crlTbs(number, entries);
    return this.add({
      type: "sign.intent",
      at,
      actor: service,
      subject: this.issuing,
      data: { operation: "crl", tbs: this.#keep(tbs), number: String(number) },
    });
  }

  /** What a CRL is to say. */
  crlTbs(number: bigint, entries: readonly RevokedCertificate[] = []): Uint8Array {
    return buildTbsCertList({
      issuerCertificate: this.ca.issuing,
      thisUpdate: wholeSecond,
      nextUpdate: new Date(wholeSecond.getTime() + DAY),
      number,
      entries,
    });
  }

  /** The result of an intent: whatever was signed, the log names what came of it. */
  sign(intent: number, { tbs: other, key = this.ca.issuingKey }: Signed = {}): number {
    const entry = parseEntry(this.leaves[intent]!);
    if (entry.type !== "sign.intent") throw new TypeError(`entry ${intent} is no intent`);
    const { subject, actor, data } = entry;
    const tbs = other ?? this.objects.get(data.tbs)!;
    const digest = this.#keep(assembleSigned(tbs, this.ca.algorithm, key.sign(tbs)));
    const result =
      data.operation === "crl" ? { crl: digest, number: data.number! } : { certificate: digest };
    return this.add({ type: "sign.done", at, actor, subject, data: { intent, ...result } });
  }

  abandon(intent: number): number {
    const entry = parseEntry(this.leaves[intent]!) as LogEntry & { type: "sign.intent" };
    const data = { intent, reason: "found open at start" };
    return this.add({
      type: "sign.abandoned",
      at,
      actor: service,
      subject: entry.subject,
      data,
    });
  }

  /** What a leaf's certificate is to say. */
  tbs(serialNumber: string, names: readonly { kind: "dns" | "ip"; value: string }[] = this.names) {
    return buildTbsCertificate(this.#template, {
      serialNumber: Buffer.from(serialNumber, "hex"),
      notBefore: wholeSecond,
      notAfter: new Date(wholeSecond.getTime() + 90 * DAY),
      subject: emptyName,
      publicKey: this.#key.info,
      names,
    });
  }

  #authority(certificate: Uint8Array, profile: "root" | "intermediate"): void {
    const { tbs } = parseCertificate(certificate);
    const subject = {
      issuer: "root",
      keyId: this.ca.rootKey.keyId,
      serialNumber: serialNumberHex(tbs.serialNumber),
    };
    const data = { operation: "certificate", tbs: this.#keep(tbs.der), profile } as const;
    const intent = this.add({ type: "sign.intent", at, actor: service, subject, data });
    const done = { intent, certificate: this.#keep(certificate) };
    this.add({ type: "sign.done", at, actor: service, subject, data: done });
  }

  #keep(object: Uint8Array): string {
    const digest = sha256(object);
    this.objects.set(digest, object);
    return digest;
  }
}

const blob = (bytes: Uint8Array): string => `X'${Buffer.from(bytes).toString("hex")}'`;
const digest = (text: string): string => `X'${text.slice("sha256:".length)}'`;
const text = (value: string): string => `'${value.replaceAll("'", "''")}'`;

/** The document that records of the tests name by its digest. */
export const policyDocument = "policy";

let empty: Promise<string> | undefined;

/** A database as a new service makes it; one for each process. */
async function emptyDatabase(): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "countersign-empty-"));
  process.once("exit", () => rmSync(directory, { recursive: true }));
  const file = join(directory, "empty.db");
  await (await openDatabase(file)).close();
  runSql(file, "PRAGMA journal_mode = DELETE");
  return file;
}

/** The log, and the rows that its records account for. */
export async function makeLogDatabase(
  file: string,
  log: MemoryLog,
  objects: ReadonlyMap<string, Uint8Array> = new Map(),
): Promise<void> {
  copyFileSync(await (empty ??= emptyDatabase()), file);
  const sql: string[] = ["BEGIN;"];
  for (const [index, leaf] of log.leaves.entries()) {
    sql.push(
      `INSERT INTO audit_entry VALUES (${index}, ${blob(leaf)});`,
      ...rowsOf(index, leaf, objects),
    );
  }
  for (const [key, hashes] of log.tiles) {
    const [level, n] = key.split("/");
    sql.push(`INSERT INTO audit_tile VALUES (${level}, ${n}, ${blob(hashes)});`);
  }
  sql.push(
    `INSERT INTO audit_checkpoint VALUES (${log.tree.size}, ${text(log.checkpoint())});`,
    "COMMIT",
  );
  tamper(file, sql.join("\n"));
}

function rowsOf(
  index: number,
  leaf: Uint8Array,
  objects: ReadonlyMap<string, Uint8Array>,
): string[] {
  const entry = parseEntry(leaf);
  if (entry.type === "sign.intent") {
    if (entry.data.operation === "request") return []; // no table keeps it
    return entry.data.operation === "crl"
      ? [crlRow(index, entry, objects)]
      : certificateRows(index, entry, objects);
  }
  if (entry.type === "sign.done") {
    const { certificate, crl, request, intent } = entry.data;
    if (request !== undefined) return [];
    const [table, column, key] =
      certificate === undefined
        ? ["crl", "crl", "intent_index"]
        : ["issued_certificate", "certificate", "idx"];
    const named = (certificate ?? crl)!;
    return [
      `UPDATE ${table} SET ${column} = ${blob(objects.get(named)!)}, ${column}_sha256 = ${digest(named)},
       done_index = ${index}, state = 'issued' WHERE ${key} = ${intent};`,
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
      `INSERT INTO revocation SELECT ${text(issuer)}, ${text(keyId)}, ${text(serialNumber)}, ${text(reason)},
       ${Date.parse(revocationDate)}, ${invalidityDate === undefined ? "NULL" : Date.parse(invalidityDate)},
       ${text(entry.actor.id)}, ${index}, not_after FROM issued_certificate
       WHERE issuer = ${text(issuer)} AND serial_number = ${text(serialNumber)};`,
    ];
  }
  if (entry.type === "policy.changed" && entry.evidence !== undefined) {
    const { sequence, requester: name, action } = entry.data!;
    const { statement, signature } = entry.evidence;
    return [
      `INSERT INTO requester_statement VALUES (${sequence}, ${blob(Buffer.from(statement, "base64"))},
       ${text(signature)}, ${text(name!)}, ${text(action!)}, ${index});`,
    ];
  }
  if (entry.type === "policy.changed" && entry.data?.policy !== undefined) {
    return [
      `INSERT INTO policy_version VALUES (${index}, ${text(entry.data.policy)}, ${text(policyDocument)});`,
    ];
  }
  return [];
}

type Intent = LogEntry & { type: "sign.intent" };

function certificateRows(
  index: number,
  { subject, actor, data }: Intent,
  objects: ReadonlyMap<string, Uint8Array>,
): string[] {
  const tbs = parseTbsCertificate(objects.get(data.tbs)!);
  const asked = actor.kind === "requester";
  const csr = data.csr === undefined ? "NULL" : blob(objects.get(data.csr)!);
  const names = tbs.extensions
    .filter(({ oid }) => oid === extensionOids.subjectAltName)
    .flatMap(({ value }) => parseGeneralNames(value))
    .flatMap((name) => ("value" in name ? [name] : []));
  return [
    `INSERT INTO issued_certificate VALUES (${index}, ${text(subject.issuer)}, ${text(subject.keyId)},
     ${text(subject.serialNumber!)}, ${asked ? "'leaf'" : text(data.profile!)}, ${text(data.profile!)},
     ${asked ? text(actor.id) : "NULL"}, ${text(nameText(tbs.subject))}, ${tbs.notBefore.getTime()},
     ${tbs.notAfter.getTime()}, X'${spkiDigest(tbs.subjectPublicKeyInfo)}', ${digest(data.tbs)}, ${csr}, NULL, NULL,
     NULL, 'pending', ${wholeSecond.getTime()});`,
    ...names.map(
      ({ kind, value }) =>
        `INSERT INTO certificate_name VALUES (${index}, ${text(kind)}, ${text(value)},
         ${text(Array.from(value).reverse().join(""))});`,
    ),
  ];
}

function crlRow(
  index: number,
  { subject, data }: Intent,
  objects: ReadonlyMap<string, Uint8Array>,
): string {
  const list = parseTbsCertList(objects.get(data.tbs)!);
  return `INSERT INTO crl VALUES (${text(subject.issuer)}, ${text(subject.keyId)}, ${data.number}, ${digest(data.tbs)},
    NULL, NULL, ${list.thisUpdate.getTime()}, ${list.nextUpdate.getTime()}, ${index}, NULL, 'pending');`;
}
