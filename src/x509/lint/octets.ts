/** Comparing and showing octet strings in place: no copies on the path of every certificate. */

import type { DerElement } from "../der.ts";

export function sameOctets(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Whether bytes[start, end) are exactly these. */
export function rangeIs(
  bytes: Uint8Array,
  start: number,
  end: number,
  expected: Uint8Array,
): boolean {
  const length = expected.length;
  if (end - start !== length) return false;
  for (let i = 0; i < length; i++) if (bytes[start + i] !== expected[i]) return false;
  return true;
}

/** Whether the whole element, header included, is exactly these bytes. */
export function encodingIs(element: DerElement, expected: Uint8Array): boolean {
  return rangeIs(element.bytes, element.start, element.end, expected);
}

/** Whether the element's content is exactly these bytes. */
export function contentIs(element: DerElement, expected: Uint8Array): boolean {
  return rangeIs(element.bytes, element.contentStart, element.end, expected);
}

export function sameContent(a: DerElement, b: DerElement): boolean {
  const length = a.end - a.contentStart;
  if (length !== b.end - b.contentStart) return false;
  for (let i = 0; i < length; i++) {
    if (a.bytes[a.contentStart + i] !== b.bytes[b.contentStart + i]) return false;
  }
  return true;
}

/** The content of an INTEGER or the like as lower-case hex. */
export function contentHex(element: DerElement): string {
  return rangeHex(element.bytes, element.contentStart, element.end);
}

export function rangeHex(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("hex");
}

export function hexOf(bytes: Uint8Array): string {
  return rangeHex(bytes, 0, bytes.length);
}

/** Hex for a message: long values are cut off. */
export function shown(bytes: Uint8Array): string {
  return bytes.length <= 40 ? hexOf(bytes) : `${rangeHex(bytes, 0, 40)}… (${bytes.length} octets)`;
}

/** The content of an element as one character per octet; only for what was checked to be ASCII, or for messages. */
export function contentText(element: DerElement): string {
  const { bytes, contentStart, end } = element;
  return Buffer.from(bytes.buffer, bytes.byteOffset + contentStart, end - contentStart).toString(
    "latin1",
  );
}

/** Text that came out of a certificate, for a message: printable, quoted, not endless. */
export function quoted(text: string): string {
  return JSON.stringify(text.length <= 120 ? text : `${text.slice(0, 120)}…`);
}
