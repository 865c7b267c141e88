/** C2SP tlog-checkpoint, without extension lines: origin, size and root of the log. */

import { CountersignError } from "../errors.ts";
import { HASH_LENGTH } from "./merkle.ts";
import { openNote, parseVerifierKey, type VerifierKey } from "./signed-note.ts";

/** What a checkpoint says. */
export interface Checkpoint {
  readonly origin: string;
  readonly size: number;
  readonly root: Uint8Array;
}

/**
 * The text that is signed.
 *
 * @throws RangeError if the origin is empty or has a line break, the size is not one, or the root is not 32 octets.
 */
export function checkpointText(origin: string, size: number, root: Uint8Array): string {
  if (origin === "" || origin.includes("\n")) {
    throw new RangeError("the origin of a log is one line that is not empty");
  }
  if (!Number.isSafeInteger(size) || size < 0 || root.length !== HASH_LENGTH) {
    throw new RangeError("a checkpoint has a size, and a root of 32 octets");
  }
  return `${origin}\n${size}\n${Buffer.from(root).toString("base64")}\n`;
}

/**
 * Reads the text of a checkpoint, signature lines already taken off.
 *
 * @throws SyntaxError if it is anything but origin, size without leading zeros, root, and the last newline.
 */
export function parseCheckpoint(text: string): Checkpoint {
  const [origin, size, root, end, ...more] = text.split("\n");
  if (
    origin === undefined ||
    size === undefined ||
    root === undefined ||
    end !== "" ||
    more.length > 0
  ) {
    throw new SyntaxError("a checkpoint is three lines: origin, size and root");
  }
  if (!/^(?:0|[1-9][0-9]{0,15})$/.test(size) || !Number.isSafeInteger(Number(size))) {
    throw new SyntaxError("the size of a checkpoint is a decimal number without leading zeros");
  }
  const hash = Buffer.from(root, "base64");
  if (origin === "" || hash.length !== HASH_LENGTH || hash.toString("base64") !== root) {
    throw new SyntaxError("a checkpoint has an origin, and a root of 32 octets in base64");
  }
  return { origin, size: Number(size), root: hash };
}

/**
 * Opens the checkpoint of the log that has this key: its origin is the key's name.
 *
 * @throws CountersignError `signature-invalid` if it is not signed by this key, not a checkpoint, or of another log.
 */
export function openCheckpoint(note: string | Uint8Array, key: string | VerifierKey): Checkpoint {
  const logKey = typeof key === "string" ? parseVerifierKey(key) : key;
  const { text } = openNote(note, [logKey]);
  let checkpoint: Checkpoint;
  try {
    checkpoint = parseCheckpoint(text);
  } catch (error) {
    throw new CountersignError("signature-invalid", (error as Error).message, { cause: error });
  }
  if (checkpoint.origin !== logKey.name) {
    throw new CountersignError(
      "signature-invalid",
      `a checkpoint of ${checkpoint.origin}, not of ${logKey.name}`,
    );
  }
  return checkpoint;
}
