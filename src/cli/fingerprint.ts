/** A fingerprint that people compare by eye and read aloud: CUSTODY 6.3. */

import { hash } from "node:crypto";
import type { Field } from "./output.ts";
import { pgpWords } from "./pgp-words.ts";

/** Enough that nobody finds another statement with the same. */
const FINGERPRINT_OCTETS = 10;

export interface Fingerprint {
  /** In groups of four digits. */
  readonly hex: string;
  readonly words: string;
}

/** The first 10 octets of SHA-256 over a statement, or over a key's text. */
export function fingerprintOf(octets: Uint8Array | string): Fingerprint {
  const octetsShown = hash("sha256", octets, "buffer").subarray(0, FINGERPRINT_OCTETS);
  return {
    hex: octetsShown.toString("hex").match(/.{4}/g)!.join(" "),
    words: pgpWords(octetsShown).join(" "),
  };
}

export function fingerprintFields({ hex, words }: Fingerprint): Field[] {
  return [
    ["fingerprint", { text: hex, colour: "bold" }],
    ["in words", { text: words, colour: "bold" }],
  ];
}
