/**
 * What the keeper must not forget, beside the head: the roster it saw last, which keys are held, which share set opens
 * a key, which ceremonies were carried out, the last CRL of each key, how far the requesters' statements went, what
 * grants have used up. One JSON file, replaced as a whole; CRLs lie beside it.
 */

import {
  closeSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename, dirname } from "node:path";
import { z } from "zod";
import { digestOf } from "../audit/digest.ts";
import { CountersignError } from "../errors.ts";
import { sha256Digest } from "./grant.ts";
import { syncFolder } from "./head-file.ts";

const keyId = z.string().regex(/^[0-9a-f]{64}$/);

const fingerprint = z.strictObject({ modified: z.number(), size: z.int(), inode: z.int() });

/** A file as it was: another PIN makes another one. */
export type FileFingerprint = z.infer<typeof fingerprint>;

/** Whose word locked something, when, and the digest of the statement that says so. */
const hold = z.strictObject({ operator: z.string(), at: z.string(), statement: sha256Digest });

const schema = z.strictObject({
  type: z.literal("countersign/keeper-state/v1"),
  /** The newest version after the genesis: a chain that ends before it, or has another one there, is rolled back. */
  roster: z
    .strictObject({ version: z.int().min(1), digest: sha256Digest })
    .nullable()
    .default(null),
  /** The last statement about requesters. */
  requesters: z.strictObject({ sequence: z.int().min(0), digest: sha256Digest.nullable() }),
  /** Held keys. */
  held: z.record(keyId, hold),
  /** While it is there, nothing opens. */
  panic: hold.nullable().default(null),
  /** Statements of kind `resume` that were made since something was last held, and until when: no older one lets go. */
  resumes: z.record(sha256Digest, z.iso.datetime()).default({}),
  /** The share sets that are active: one of an older epoch opens nothing. */
  seals: z
    .record(keyId, z.strictObject({ epoch: z.int().min(1), shareSet: sha256Digest }))
    .default({}),
  /** Ceremonies, by digest, that were carried out, and until when somebody could try to have it done again. */
  done: z.record(sha256Digest, z.iso.datetime()).default({}),
  /** The last CRL that each key signed, whether or not the service lived to keep it. */
  lists: z.record(keyId, z.strictObject({ number: z.string(), crl: sha256Digest })),
  /** Digests of a digest grant that have been signed, or may have been. */
  digests: z.record(keyId, z.array(sha256Digest)),
  /** Signatures counted under a standing grant: no more than `reserved` within the hour before `at`. */
  hours: z.record(keyId, z.strictObject({ at: z.iso.datetime(), reserved: z.int().min(0) })),
  /** PIN files, by issuer, with which a token refused the PIN. */
  wrongPins: z.record(z.string(), fingerprint),
  /** PIN files, by issuer, that were handed to a signer, and how often, without a word on what the token said. */
  triedPins: z
    .record(z.string(), z.strictObject({ file: fingerprint, tries: z.int() }))
    .default({}),
});

export type KeeperState = z.infer<typeof schema>;

/** By whom a key is held, or everything, since when, and the digest of the statement that says so. */
export type Hold = z.infer<typeof hold>;

export interface StateFile {
  readonly state: Readonly<KeeperState>;
  /** Changes the state; when this returns, the change is on the disk. */
  change(update: (state: KeeperState) => void): void;
  /** Keeps a CRL, and then its number as the last of its key. */
  keepList(keyId: string, list: { number: string; crl: string; der: Uint8Array }): void;
  /**
   * The last CRL of a key, DER.
   *
   * @throws CountersignError `rolled-back` if its file is missing or another one.
   */
  readList(keyId: string): Uint8Array | undefined;
}

export function emptyState(): KeeperState {
  return {
    type: "countersign/keeper-state/v1",
    roster: null,
    requesters: { sequence: 0, digest: null },
    held: {},
    panic: null,
    resumes: {},
    seals: {},
    done: {},
    lists: {},
    digests: {},
    hours: {},
    wrongPins: {},
    triedPins: {},
  };
}

/** Whether a log may begin beside this state: it knows of nothing that only a log with entries has. */
export function isUnused(state: KeeperState): boolean {
  const { roster, requesters, held, panic, seals, done, lists, digests, hours } = state;
  return (
    roster === null &&
    requesters.sequence === 0 &&
    panic === null &&
    [held, seals, done, lists, digests].every((record) => Object.keys(record).length === 0) &&
    Object.values(hours).every(({ reserved }) => reserved === 0)
  );
}

/**
 * Opens the state file.
 *
 * @param mayBeMissing - true for a log that has no head yet. Elsewhere a missing file would let held keys go.
 * @throws CountersignError `rolled-back` if it, or a CRL that it names, is missing or damaged.
 */
export function openStateFile(path: string, mayBeMissing: boolean): StateFile {
  let state = readState(path, mayBeMissing);

  function change(update: (state: KeeperState) => void): void {
    const next = structuredClone(state);
    update(next);
    replaceFile(path, Buffer.from(`${JSON.stringify(next, null, 2)}\n`));
    state = next;
  }

  const listPath = (id: string, number: string): string => `${path}.${id}.${number}.crl`;

  function readList(id: string): Uint8Array | undefined {
    const last = state.lists[id];
    if (last === undefined) return undefined;
    const file = listPath(id, last.number);
    try {
      const der = readFileSync(file);
      if (digestOf(der) === last.crl) return der;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
    throw new CountersignError(
      "rolled-back",
      `the keeper's file ${basename(file)} is missing or damaged: restore it, since the next CRL must follow this one`,
    );
  }

  for (const id of Object.keys(state.lists)) readList(id);

  return {
    get state() {
      return state;
    },
    change,
    keepList(id, { number, crl, der }) {
      const previous = state.lists[id];
      replaceFile(listPath(id, number), der);
      change((next) => {
        next.lists[id] = { number, crl };
      });
      if (previous !== undefined && previous.number !== number) {
        unlinkIfThere(listPath(id, previous.number));
      }
    },
    readList,
  };
}

/** For a change that could not be made and that nobody waits for. */
export function reportUnwritten(error: unknown): void {
  console.error(`keeper: the state file cannot be written: ${(error as Error).message}`);
}

function readState(path: string, mayBeMissing: boolean): KeeperState {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    if (mayBeMissing) return emptyState();
    throw new CountersignError(
      "rolled-back",
      "the keeper's state file is missing beside a log that has a head: restore it, since it says which keys are held",
      { cause: error },
    );
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    throw new CountersignError("rolled-back", "the keeper's state file is damaged: restore it", {
      cause: error,
    });
  }
}

/** The file is the old one or the new one, whole, whenever a crash comes. */
function replaceFile(path: string, octets: Uint8Array): void {
  const temporary = `${path}.new`;
  const descriptor = openSync(temporary, "w", 0o600);
  try {
    for (let at = 0; at < octets.length;) at += writeSync(descriptor, octets, at);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  renameSync(temporary, path);
  syncFolder(dirname(path));
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
