/** What the keeper states itself: signed notes whose text is one line of canonical JSON (CUSTODY.md 2.7 and 6.1). */

import type { KeyObject } from "node:crypto";
import { digestOf } from "../audit/digest.ts";
import { noteSigner, signNote } from "../audit/signed-note.ts";
import { openKeeperNote, type Noted } from "./keeper-note.ts";

/** A statement of the keeper: `sha256:` and the hex digest of its JSON, and the note that shows it. */
export interface Stated {
  readonly digest: string;
  readonly note: string;
}

export interface OwnNotes {
  /** Of the identity key, as text. */
  readonly verifierKey: string;
  /** @param octets - canonical JSON. */
  state(octets: Uint8Array): Stated;
  /**
   * Opens a note that this keeper signed.
   *
   * @param earlier - verifier keys that it had before, for what outlives one.
   * @throws CountersignError `signature-invalid`.
   */
  open(note: string, earlier?: readonly string[]): Noted;
}

/** @param identityKey - Ed25519. */
export function ownNotes(service: string, identityKey: KeyObject): OwnNotes {
  const signer = noteSigner(`${service}/keeper`, identityKey);
  return {
    verifierKey: signer.verifierKey.text,
    state(octets) {
      const note = signNote(`${Buffer.from(octets).toString("utf8")}\n`, signer);
      return { digest: digestOf(octets), note };
    },
    open: (note, earlier = []) =>
      openKeeperNote(note, [...new Set([signer.verifierKey.text, ...earlier])]),
  };
}
