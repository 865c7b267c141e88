/** What the records of ceremonies are made of: who, and what they signed. */

import { digestOf } from "../audit/digest.ts";
import type { Actor, Evidence } from "../audit/entry.ts";
import { splitNote } from "../audit/signed-note.ts";
import type { Signed } from "../custody/statement.ts";

/** Somebody whose signature over what is recorded was checked. */
export function signer(operator: string): Actor {
  return { kind: "operator", id: operator, via: "sshsig" };
}

/** What somebody signed, as a record holds it. */
export function evidenceOf({ statement, signature }: Signed): Evidence {
  return {
    statement: Buffer.from(statement).toString("base64"),
    // The reader of signatures takes empty lines between those of the base64; the log knows one form.
    signature: signature.replaceAll(/(?:\r?\n)+/g, "\n"),
  };
}

/** The canonical JSON in a note that the keeper has just made, or that was stored as it made it. */
export function notedJson(note: string): Uint8Array {
  return Buffer.from(splitNote(note).text.slice(0, -1));
}

/** The digest of the statement in a note. */
export function notedDigest(note: string): string {
  return digestOf(notedJson(note));
}
