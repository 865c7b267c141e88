/**
 * The head of the log as the keeper last signed it, kept outside the database: AUDIT-LOG.md 9.3.
 *
 * The file is text of a fixed size, written in place: two slots in turn, so that a write that a crash cut off leaves
 * the slot before it. A slot holds the origin, the size, the root, and the hashes of the tree's right edge, from
 * which the keeper goes on without asking anybody what the log was:
 *
 *     ca.example.com/audit
 *     3
 *     p5vUAZS2ZU1GBZ4VgKIVezvyXn7rgzyJJDmMmt04Vuo=
 *     <a line for each perfect subtree, widest first>
 *     <empty lines>
 */

import {
  closeSync,
  constants,
  fdatasyncSync,
  fsyncSync,
  openSync,
  readFileSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { CompactRange, equal } from "../audit/merkle.ts";
import { CountersignError } from "../errors.ts";

/** Octets of a slot: origin, size, root and at most 53 hashes fit. */
const SLOT_LENGTH = 4096;
const ORIGIN_LIMIT = 512;

export interface HeadFile {
  /** The whole log up to the head: `[0, size)`. */
  readonly range: CompactRange;
  /**
   * Makes `range`, which extends the one before it, the head. When this returns, it is on the disk.
   */
  write(range: CompactRange): void;
  close(): void;
}

/**
 * Opens the head file.
 *
 * @returns undefined if there is none.
 * @throws CountersignError `rolled-back` if it is damaged or another log's.
 */
export function openHeadFile(path: string, origin: string): HeadFile | undefined {
  let text: string;
  try {
    text = readFileSync(path, "latin1");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  const slots = [0, 1].map((slot) =>
    readSlot(text.slice(slot * SLOT_LENGTH, (slot + 1) * SLOT_LENGTH), origin),
  );
  const current = (slots[1]?.end ?? -1) > (slots[0]?.end ?? -1) ? 1 : 0;
  const range = slots[current];
  if (range === undefined) {
    throw new CountersignError(
      "rolled-back",
      `the head file is damaged or belongs to a log other than ${origin}`,
    );
  }
  return headFile(openSync(path, constants.O_RDWR), origin, range, 1 - current);
}

/**
 * Makes the head file of a log without entries.
 *
 * @throws an EEXIST error if there is a file already.
 */
export function createHeadFile(path: string, origin: string): HeadFile {
  if (origin.length > ORIGIN_LIMIT) {
    throw new RangeError(`an origin of more than ${ORIGIN_LIMIT} octets`);
  }
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
  const range = CompactRange.empty();
  const created = headFile(openSync(path, flags, 0o600), origin, range, 0);
  created.write(range);
  syncFolder(dirname(path));
  return created;
}

function headFile(descriptor: number, origin: string, first: CompactRange, slot: number): HeadFile {
  let range = first;
  let next = slot;
  return {
    get range() {
      return range;
    },
    write(extended) {
      const octets = Buffer.from(writeSlot(extended, origin), "latin1");
      // A disk that fills up takes a part, and says so only in the count.
      for (let at = 0; at < SLOT_LENGTH;) {
        at += writeSync(descriptor, octets, at, SLOT_LENGTH - at, next * SLOT_LENGTH + at);
      }
      fdatasyncSync(descriptor);
      range = extended;
      next = 1 - next;
    },
    close() {
      closeSync(descriptor);
    },
  };
}

function writeSlot(range: CompactRange, origin: string): string {
  const hashes = [range.root(), ...range.nodes].map((hash) => Buffer.from(hash).toString("base64"));
  return [origin, range.end, ...hashes, ""].join("\n").padEnd(SLOT_LENGTH, "\n");
}

/** What a slot says, if all of it is there: a torn write does not have the root that it names. */
function readSlot(text: string, origin: string): CompactRange | undefined {
  const [named, sizeText, ...lines] = text.replace(/\n+$/, "").split("\n");
  const size = Number(sizeText);
  if (named !== origin || String(size) !== sizeText) return undefined;
  const hashes = lines.map((line) => Buffer.from(line, "base64"));
  if (hashes.some((hash, index) => hash.toString("base64") !== lines[index])) return undefined;
  const [root, ...nodes] = hashes;
  try {
    const range = CompactRange.of(0, size, nodes);
    return root !== undefined && equal(range.root(), root) ? range : undefined;
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

/** A file that was made or renamed is only there after a crash when its folder is on the disk too. */
export function syncFolder(path: string): void {
  const descriptor = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
