/** Digests as records and rows write them. */

import { hash } from "node:crypto";

/** `sha256:` and 64 hex digits. */
export function digestOf(bytes: Uint8Array): string {
  return `sha256:${hash("sha256", bytes)}`;
}
