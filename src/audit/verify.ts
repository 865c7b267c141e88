/**
 * The offline verifier of the log: rules 1 to 4, 10, 11 and part of 7 of AUDIT-LOG 9.6, from a directory, a URL or a database.
 * Nothing that is read is trusted; whatever is wrong with it becomes a finding with its position.
 */

import { DerReader, encodingOf, Tag } from "../x509/der.ts";
import { openCheckpoint, parseCheckpoint, type Checkpoint } from "./checkpoint.ts";
import { DatabaseCheck, type DatabaseRows } from "./database-check.ts";
import { digestOf } from "./digest.ts";
import { parseEntry, type LogEntry } from "./entry.ts";
import { Findings, type Finding } from "./findings.ts";
import { IntentRecords } from "./intent-records.ts";
import type { LogSource } from "./log-source.ts";
import { equal } from "./merkle.ts";
import { SignedObjects, type Intent } from "./signed-objects.ts";
import { parseVerifierKey, splitNote } from "./signed-note.ts";
import { readBundles, TreeCheck } from "./tree-check.ts";

/** What the log says of a certificate. */
export interface CertificateFinding {
  /** `sha256:` and hex, of the whole certificate. */
  readonly sha256: string;
  /** `intent`: its TBS was to be signed, but no record says that it was. */
  readonly verdict: "logged" | "intent" | "not-logged";
  readonly intentIndex?: number;
  readonly doneIndex?: number;
}

export interface VerifyOptions {
  /** The log's verifier key. Without it the log is compared with itself only. */
  readonly key?: string;
  /** A checkpoint saved before: the log must have grown out of it. */
  readonly since?: string | Uint8Array;
  /** DER: each must be in the log. */
  readonly certificates?: readonly Uint8Array[];
  /** The rows of a database, which the log must account for, and they for the log. */
  readonly database?: DatabaseRows;
  readonly onProgress?: (entries: number, size: number) => void;
}

export interface VerifyReport {
  /** Nothing failed. Worth no more than "consistent with itself" unless `anchored`. */
  readonly consistent: boolean;
  /** The checkpoint is signed by the key that was given. */
  readonly anchored: boolean;
  /** Absent when there is no checkpoint to read. */
  readonly checkpoint?: Checkpoint;
  /** The rules that were applied. */
  readonly rules: readonly string[];
  readonly failures: readonly Finding[];
  /** Failures beyond the first 1,000. */
  readonly moreFailures: number;
  readonly notices: readonly Finding[];
  readonly certificates: readonly CertificateFinding[];
  /** Indexes of sign.intent records without a result, and of those that were given up: possibly signed. */
  readonly openIntents: readonly number[];
  readonly abandonedIntents: readonly number[];
}

/**
 * Verifies a log.
 *
 * @returns What was found. It rejects only when the source or the database cannot be read at all.
 * @throws SyntaxError if `key` is not a verifier key.
 */
export async function verifyLog(
  source: LogSource,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  const findings = {
    head: new Findings("LOG-1"),
    tree: new Findings("LOG-2"),
    since: new Findings("LOG-3"),
    entries: new Findings("LOG-4"),
    intents: new Findings("LOG-7"),
    certificates: new Findings("LOG-10"),
    database: new Findings("LOG-11"),
  };
  const notices: Finding[] = [];
  const rules = ["LOG-1", "LOG-2", "LOG-4"];
  const { head, anchored } = await readHead(source, options.key, findings.head);
  const intents = new IntentRecords(findings.intents);
  const objects = new SignedObjects();
  // False once so much is missing that nobody can say where the next entry stands.
  let readable = head !== undefined;
  let open: readonly number[] = [];
  let abandoned: readonly number[] = [];
  const wanted = new WantedCertificates(options.certificates ?? [], findings.certificates);
  if (head !== undefined) {
    if (options.since !== undefined) rules.push("LOG-3");
    try {
      await verifyTree(head);
    } catch (error) {
      // A file of which SQLite has said that it is damaged may not be readable to its end.
      if ((options.database?.damage.length ?? 0) === 0) throw error;
      findings.database.add("database", `it cannot be read on: ${(error as Error).message}`);
      readable = false;
    }
  }

  async function verifyTree(head: Checkpoint): Promise<void> {
    const tree = new TreeCheck(source, head, findings.tree);
    if (options.since !== undefined) {
      checkSince(options.since, options.key, head, tree, findings.since);
    }
    const database =
      options.database === undefined
        ? undefined
        : await DatabaseCheck.begin(
            {
              database: options.database,
              source,
              head,
              key: options.key,
              objects,
              findings: findings.database,
              notices,
            },
            tree,
          );
    for await (const bundle of readBundles(source, head.size)) {
      await tree.bundle(bundle);
      await database?.bundle(bundle);
      for (const [offset, leaf] of bundle.leaves.entries()) {
        const index = bundle.first + offset;
        const entry = readEntry(leaf, index, head, findings);
        if (entry === undefined) continue;
        const signed = intents.entry(index, entry);
        wanted.entry(index, entry);
        if (database !== undefined) await database.entry(index, entry);
        else if (signed !== undefined) await checkObject(index, entry, signed);
      }
      options.onProgress?.(bundle.first + bundle.width, head.size);
      if (tree.lost) {
        readable = false;
        break;
      }
    }
    await tree.finish();
    open = intents.open;
    abandoned = [...intents.abandoned];
    if (database === undefined || !readable) return;
    for await (const { index, leaf } of database.tail()) {
      const entry = readEntry(leaf, index, head, findings);
      if (entry === undefined) continue;
      intents.entry(index, entry);
      await database.entry(index, entry);
    }
    await database.finish();
  }

  /** A certificate or CRL beside the log. With a database it is the database's that counts. */
  async function checkObject(index: number, entry: LogEntry, intent: Intent): Promise<void> {
    if (entry.type !== "sign.done") return;
    const { certificate, crl, request } = entry.data;
    const digest = certificate ?? crl ?? request;
    const der = digest === undefined ? undefined : await source.object?.(digest);
    const position = `entry ${index}`;
    if (der === undefined) {
      objects.missing(intent.entry.data.operation);
    } else if (digestOf(der) !== digest) {
      findings.intents.add(position, "the object beside the log has another digest");
    } else if (crl !== undefined) {
      objects.crl(der, intent, position, findings.intents);
    } else if (request !== undefined) {
      objects.request(der, intent, position, findings.intents);
    } else {
      objects.certificate(der, intent, position, findings.intents);
    }
  }

  if (options.certificates !== undefined) {
    rules.push("LOG-10");
  }
  if (options.database !== undefined) {
    rules.push("LOG-11");
  }
  const certificates = wanted.finish(readable);
  const all = Object.values(findings);
  const failures = all.flatMap(({ list }) => list);
  return {
    consistent: failures.length === 0,
    anchored,
    ...(head === undefined ? {} : { checkpoint: head }),
    rules,
    failures,
    moreFailures: all.reduce((sum, { more }) => sum + more, 0),
    notices: [...notices, ...objects.notices()],
    certificates,
    openIntents: open,
    abandonedIntents: abandoned,
  };
}

/** Rule 1: the note's signature, and that its origin is the key's name. */
async function readHead(
  source: LogSource,
  key: string | undefined,
  findings: Findings,
): Promise<{ head: Checkpoint | undefined; anchored: boolean }> {
  const logKey = key === undefined ? undefined : parseVerifierKey(key);
  const note = await source.read("checkpoint");
  if (note === undefined) {
    findings.add("checkpoint", "there is none");
    return { head: undefined, anchored: false };
  }
  if (logKey !== undefined) {
    try {
      return { head: openCheckpoint(note, logKey), anchored: true };
    } catch (error) {
      findings.add("checkpoint", (error as Error).message);
    }
  }
  // Unsigned, or by somebody else: the rest is still checked, since it tells what was changed.
  try {
    return { head: parseCheckpoint(splitNote(note).text), anchored: false };
  } catch (error) {
    findings.add("checkpoint", (error as Error).message);
    return { head: undefined, anchored: false };
  }
}

/** Rule 3: the tree has grown out of the saved one. */
function checkSince(
  note: string | Uint8Array,
  key: string | undefined,
  head: Checkpoint,
  tree: TreeCheck,
  findings: Findings,
): void {
  const position = "saved checkpoint";
  let since: Checkpoint;
  try {
    since = key === undefined ? parseCheckpoint(splitNote(note).text) : openCheckpoint(note, key);
  } catch (error) {
    findings.add(position, (error as Error).message);
    return;
  }
  if (since.origin !== head.origin) {
    findings.add(position, `it is one of ${since.origin}, the log is ${head.origin}`);
  } else if (since.size > head.size) {
    findings.add(
      position,
      `it covers ${since.size} entries, the log has only ${head.size}: it was cut off`,
    );
  } else {
    tree.rootAt(since.size, (root) => {
      if (!equal(root, since.root)) {
        findings.add(
          position,
          `the first ${since.size} entries of the log have another root: it was rewritten`,
        );
      }
    });
  }
}

/** Rule 4: the leaf is canonical and of a known type. */
function readEntry(
  leaf: Uint8Array,
  index: number,
  head: Checkpoint,
  findings: { readonly entries: Findings; readonly head: Findings },
): LogEntry | undefined {
  let entry: LogEntry;
  try {
    entry = parseEntry(leaf);
  } catch (error) {
    findings.entries.add(`entry ${index}`, (error as Error).message);
    return undefined;
  }
  if (entry.type === "log.started" && entry.data.origin !== head.origin) {
    findings.head.add(
      `entry ${index}`,
      `it starts the log ${entry.data.origin}, the checkpoint is of ${head.origin}`,
    );
  }
  return entry;
}

/** Rule 10: certificates that are to be found in the log. */
class WantedCertificates {
  readonly #byDigest = new Map<string, { intentIndex?: number; doneIndex?: number }>();
  readonly #byTbs = new Map<string, { intentIndex?: number; doneIndex?: number }>();
  readonly #findings: Findings;

  constructor(certificates: readonly Uint8Array[], findings: Findings) {
    this.#findings = findings;
    for (const certificate of certificates) {
      const record = {};
      this.#byDigest.set(digestOf(certificate), record);
      const tbs = tbsOf(certificate);
      if (tbs !== undefined) this.#byTbs.set(digestOf(tbs), record);
    }
  }

  entry(index: number, entry: LogEntry): void {
    if (this.#byDigest.size === 0) {
      return;
    }
    if (entry.type === "sign.intent") {
      const record = this.#byTbs.get(entry.data.tbs);
      if (record !== undefined) record.intentIndex = index;
    } else if (entry.type === "sign.done" && entry.data.certificate !== undefined) {
      const record = this.#byDigest.get(entry.data.certificate);
      if (record !== undefined) record.doneIndex = index;
    }
  }

  finish(readable: boolean): CertificateFinding[] {
    return [...this.#byDigest].map(([sha256, record]) => {
      if (record.doneIndex !== undefined) {
        return { sha256, verdict: "logged", ...record };
      }
      if (record.intentIndex !== undefined) {
        const detail = `only the intent to sign it is logged, as entry ${record.intentIndex}; no sign.done names it`;
        this.#findings.add(`certificate ${sha256}`, detail);
        return { sha256, verdict: "intent", ...record };
      }
      this.#findings.add(
        `certificate ${sha256}`,
        readable ? "it is NOT logged" : "it was not found in what could be read of the log",
      );
      return { sha256, verdict: "not-logged" };
    });
  }
}

/** The TBSCertificate, DER, if this is a certificate at all. */
function tbsOf(certificate: Uint8Array): Uint8Array | undefined {
  try {
    const whole = DerReader.whole(certificate, Tag.sequence);
    return encodingOf(DerReader.inside(whole).read(Tag.sequence));
  } catch {
    return undefined;
  }
}
