/** A database in a directory of its own, a keeper without keys, and things to write. */

import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkpointText } from "../../src/audit/checkpoint.ts";
import { CompactRange } from "../../src/audit/merkle.ts";
import type { CertificateRow, JournalItem, LogHeadKeeper } from "../../src/issuance/journal.ts";
import { openDatabase, type Database } from "../../src/store/database.ts";
import { openJournal, type ClosableJournal } from "../../src/store/journal.ts";
import type { KeeperHead } from "../../src/store/log-check.ts";

export const origin = "ca.example.com/audit";
export const start = new Date("2026-11-21T20:00:00.000Z");

export interface TestKeeper extends LogHeadKeeper {
  head(): { size: number; root: Uint8Array };
  readonly calls: { firstIndex: number; count: number }[];
  /** From now on every append is refused. */
  refuse: boolean;
  /** From now on append waits for what this returns before it answers. */
  gate: () => Promise<void>;
}

/** Extends a head as the keeper does, and refuses what does not extend it; its signature is none. */
export function createTestKeeper(range: CompactRange = CompactRange.empty()): TestKeeper {
  const keeper: TestKeeper = {
    calls: [],
    refuse: false,
    gate: () => Promise.resolve(),
    head: () => ({ size: range.end, root: range.root() }),
    async append(firstIndex, leafHashes) {
      keeper.calls.push({ firstIndex, count: leafHashes.length });
      if (keeper.refuse || firstIndex !== range.end) throw new Error("does not extend the head");
      for (const hash of leafHashes) range.append(hash);
      const { size, root } = keeper.head();
      await keeper.gate();
      const note = `${checkpointText(origin, size, root)}\n— ${origin} c2lnbmF0dXJl\n`;
      return { size, root, note };
    },
  };
  return keeper;
}

export interface Home {
  readonly directory: string;
  readonly file: string;
  database: Database;
  /** How many batches were written through `openLog`. */
  commits: number;
  openLog(keeper: TestKeeper, head?: KeeperHead): Promise<ClosableJournal>;
  reopen(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function createHome(): Promise<Home> {
  const directory = mkdtempSync(join(tmpdir(), "countersign-store-"));
  const file = join(directory, "countersign.db");
  const home: Home = {
    directory,
    file,
    database: await openDatabase(file),
    commits: 0,
    openLog(keeper, head = keeper.head()) {
      const { writer } = home.database;
      const counted: typeof writer = {
        ...writer,
        all: (sql, parameters) => {
          if (sql.startsWith("INSERT INTO journal_batch")) home.commits++;
          return writer.all(sql, parameters);
        },
      };
      const database = { ...home.database, writer: counted };
      return openJournal({ database, keeper, head, now: () => start });
    },
    async reopen() {
      await home.database.close();
      home.database = await openDatabase(file);
    },
    async [Symbol.asyncDispose]() {
      await home.database.close();
      rmSync(directory, { recursive: true });
    },
  };
  return home;
}

export function leaf(text: string): Uint8Array {
  return Buffer.from(JSON.stringify({ text }));
}

export function entry(text: string): JournalItem {
  return { kind: "entry", leaf: leaf(text) };
}

export function certificateRow(changes: Partial<CertificateRow> = {}): CertificateRow {
  return {
    issuer: "issuing",
    keyId: "ab".repeat(32),
    serialNumber: `4${randomBytes(20).toString("hex").slice(1)}`,
    kind: "leaf",
    profile: "server",
    requester: "deploy",
    subject: "CN=www.example.com",
    names: [{ kind: "dns", value: "www.example.com" }],
    notBefore: start,
    notAfter: new Date("2027-02-19T20:00:00.000Z"),
    spkiSha256: randomBytes(32),
    tbsSha256: randomBytes(32),
    csr: randomBytes(300),
    createdAt: start,
    ...changes,
  };
}

export function intent(changes: Partial<CertificateRow> = {}): JournalItem {
  const row = certificateRow(changes);
  return { kind: "certificate-intent", leaf: leaf(`intent ${row.serialNumber}`), row };
}

export function done(intentIndex: number, certificate: Uint8Array = randomBytes(800)): JournalItem {
  return { kind: "certificate-done", leaf: leaf(`done ${intentIndex}`), intentIndex, certificate };
}

export function revocation(serialNumber: string, changes: { issuer?: string } = {}): JournalItem {
  return {
    kind: "revocation",
    leaf: leaf(`revoked ${serialNumber}`),
    row: {
      issuer: "issuing",
      keyId: "ab".repeat(32),
      serialNumber,
      reason: "superseded",
      revocationDate: start,
      invalidityDate: null,
      requestedBy: "deploy",
      notAfter: new Date("2027-02-19T20:00:00.000Z"),
      ...changes,
    },
  };
}

export function crlIntent(number: bigint, issuer = "issuing"): JournalItem {
  return {
    kind: "crl-intent",
    leaf: leaf(`crl ${issuer} ${number}`),
    row: {
      issuer,
      keyId: "ab".repeat(32),
      number,
      tbsSha256: randomBytes(32),
      thisUpdate: start,
      nextUpdate: new Date("2026-11-28T20:00:00.000Z"),
    },
  };
}

/** The code that a promise is rejected with. */
export async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  return promise.then(
    () => undefined,
    (error: unknown) => String((error as { code?: unknown }).code),
  );
}
