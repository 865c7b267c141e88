/** What the keeper states: a signed note whose text is canonical JSON and a newline (CUSTODY.md 6.1). */

import { digestOf } from "../audit/digest.ts";
import { openNote } from "../audit/signed-note.ts";

/** A statement out of its note. */
export interface Noted {
  /** The JSON, without the newline. */
  readonly octets: Buffer;
  /** `sha256:` and the hex digest of that. */
  readonly digest: string;
}

/**
 * Opens a note of the keeper.
 *
 * @param identityKeys - verifier keys, any of which may have signed it.
 * @throws CountersignError `signature-invalid`.
 */
export function openKeeperNote(note: string, identityKeys: readonly string[]): Noted {
  const { text } = openNote(note, identityKeys);
  const octets = Buffer.from(text.slice(0, -1));
  return { octets, digest: digestOf(octets) };
}
