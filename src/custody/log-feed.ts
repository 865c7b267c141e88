/** How the keeper shows its signers what the log has gained, each from where it stands: see signer-protocol.ts. */

import { CompactRange, HASH_LENGTH } from "../audit/merkle.ts";
import type { Extension } from "./signer-protocol.ts";

/** Leaves behind the head that are shown one by one, at least; intents are among the newest. */
const WINDOW = 1024;

export interface LogFeed {
  /** The whole log. */
  readonly range: CompactRange;
  /** The checkpoint of the head. */
  readonly note: string;
  /**
   * Moves on to a new head.
   *
   * @param leaves - hashes of the leaves it gained, one after the other.
   */
  append(range: CompactRange, note: string, leaves: Uint8Array): void;
  /** The hash of one of the newest leaves; undefined for an older one, and for what is not there. */
  leafAt(index: number): Uint8Array | undefined;
  /** A reader that has seen the head of this moment. */
  follow(): LogFollower;
}

export interface LogFollower {
  /** From what this reader has seen to the head, which it has seen with that; null if there is nothing new. */
  next(): { header: NonNullable<Extension>; hashes: Uint8Array[] } | null;
  stop(): void;
}

/** Leaf hashes from index `start` on, as they came. */
interface Run {
  readonly start: number;
  readonly end: number;
  readonly octets: Uint8Array;
}

export function createLogFeed(head: CompactRange, checkpoint: string): LogFeed {
  let range = head;
  let note = checkpoint;
  let runs: Run[] = [];
  /** What each reader has not seen, up to the window. */
  const behind = new Map<object, CompactRange>();

  return {
    get range() {
      return range;
    },
    get note() {
      return note;
    },
    append(extended, nextNote, leaves) {
      runs.push({ start: range.end, end: extended.end, octets: leaves });
      range = extended;
      note = nextNote;
      while (runs.length > 1 && range.end - runs[0]!.end >= WINDOW) {
        const run = runs.shift()!;
        for (const gap of behind.values()) {
          for (let index = Math.max(gap.end, run.start); index < run.end; index++) {
            gap.append(leafOf(run, index));
          }
        }
      }
    },
    leafAt(index) {
      const run = runs.find(({ start, end }) => start <= index && index < end);
      return run && leafOf(run, index);
    },
    follow() {
      const reader = {};
      behind.set(reader, CompactRange.empty(range.end));
      return {
        next() {
          const gap = behind.get(reader)!;
          if (gap.begin === range.end) return null;
          const first = gap.end;
          const hashes = [...gap.nodes];
          for (const run of runs) {
            if (run.end > first) hashes.push(leavesFrom(run, Math.max(first, run.start)));
          }
          behind.set(reader, CompactRange.empty(range.end));
          return { header: { from: gap.begin, first, size: range.end, note }, hashes };
        },
        stop() {
          behind.delete(reader);
        },
      };
    },
  };
}

function leafOf(run: Run, index: number): Uint8Array {
  const at = (index - run.start) * HASH_LENGTH;
  return run.octets.subarray(at, at + HASH_LENGTH);
}

function leavesFrom(run: Run, index: number): Uint8Array {
  return run.octets.subarray((index - run.start) * HASH_LENGTH);
}
