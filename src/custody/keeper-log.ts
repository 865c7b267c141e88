/** The head of the log: the keeper moves it on, first on the disk, and signs its checkpoints. */

import type { KeyObject } from "node:crypto";
import { checkpointText } from "../audit/checkpoint.ts";
import { CompactRange, HASH_LENGTH } from "../audit/merkle.ts";
import { noteSigner, signNote } from "../audit/signed-note.ts";
import { CountersignError } from "../errors.ts";
import { createHeadFile, openHeadFile } from "./head-file.ts";
import { isUnused, type StateFile } from "./keeper-state.ts";
import { createLogFeed, type LogFeed } from "./log-feed.ts";
import { base64 } from "./octet-text.ts";

export interface KeeperLog {
  /** The head with its checkpoint, and what signers are shown of it. */
  readonly feed: LogFeed;
  /** The key of the checkpoints, as text. */
  readonly verifierKey: string;
  /** undefined while there is no head file. */
  readonly head: CompactRange | undefined;
  /** @throws CountersignError `head-missing`. */
  requireHead(): CompactRange;
  /**
   * Makes the head file of a new log.
   *
   * @throws CountersignError `rolled-back` if there is one, or the state is that of a log with entries.
   */
  initialise(stateFile: StateFile): void;
  /**
   * Moves the head on.
   *
   * @param first - The index of the first leaf; it must be the size of the log.
   * @param leaves - Leaf hashes, 32 octets each.
   * @throws CountersignError `head-missing`, `rolled-back`.
   */
  append(first: number, leaves: Uint8Array): void;
  /**
   * A head that the log had: of the size it has now with its root, or smaller.
   *
   * @param head - Its root in base64.
   * @throws CountersignError `head-missing`, `statement-stale`.
   */
  checkSeen(head: { size: number; root: string }): void;
  close(): void;
}

/** @throws CountersignError `rolled-back` if the head file is damaged. */
export function openKeeperLog(path: string, origin: string, key: KeyObject): KeeperLog {
  const signer = noteSigner(origin, key);
  let file = openHeadFile(path, origin);
  const feed = createLogFeed(
    file?.range ?? CompactRange.empty(),
    file === undefined ? "" : checkpointOf(file.range),
  );

  function checkpointOf(range: CompactRange): string {
    return signNote(checkpointText(origin, range.end, range.root()), signer);
  }

  function requireFile(): NonNullable<typeof file> {
    if (file === undefined) {
      throw new CountersignError(
        "head-missing",
        "there is no head file: only for a log without entries is one made",
      );
    }
    return file;
  }

  return {
    feed,
    verifierKey: signer.verifierKey.text,
    get head() {
      return file?.range;
    },
    requireHead: () => requireFile().range,
    initialise(stateFile) {
      if (file !== undefined)
        throw new CountersignError("rolled-back", "there is a head file already");
      if (!isUnused(stateFile.state)) {
        throw new CountersignError(
          "rolled-back",
          "the head file is missing, and the keeper's state is that of a log with entries: restore the head file",
        );
      }
      stateFile.change(() => {});
      file = createHeadFile(path, origin);
      feed.append(file.range, checkpointOf(file.range), new Uint8Array(0));
    },
    append(first, leaves) {
      const head = requireFile();
      const { range } = head;
      if (first !== range.end) {
        throw new CountersignError(
          "rolled-back",
          `the head of the log has ${range.end} entries; entries from ${first} on do not extend it`,
        );
      }
      if (leaves.length === 0) return;
      const extended = range.clone();
      for (let at = 0; at < leaves.length; at += HASH_LENGTH) {
        extended.append(leaves.subarray(at, at + HASH_LENGTH));
      }
      // 1. The head is on the disk. A crash here leaves a head that nobody has seen; at the next start the database,
      //    which has these entries, agrees with it.
      head.write(extended);
      // 2. Only then is it signed: no other tree of this size can be.
      feed.append(extended, checkpointOf(extended), leaves);
    },
    checkSeen({ size, root }) {
      const { range } = requireFile();
      if (size > range.end || (size === range.end && base64(range.root()) !== root)) {
        throw new CountersignError(
          "statement-stale",
          "the statement names a head that the log never had",
        );
      }
    },
    close: () => file?.close(),
  };
}
