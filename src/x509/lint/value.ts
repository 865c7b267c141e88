/** DER values that the reader's strict lengths leave to be checked: X.690 §8 and §11. */

import { DerError, DerReader, Tag } from "../der.ts";
import type { DerElement } from "../der.ts";

/** An OBJECT IDENTIFIER has complete, minimal arcs: X.690 §8.19. */
export function checkObjectIdentifier(element: DerElement): void {
  const { bytes, contentStart, end } = element;
  if (contentStart === end) throw new DerError("empty OBJECT IDENTIFIER", element.start);
  let fresh = true;
  for (let i = contentStart; i < end; i++) {
    const octet = bytes[i]!;
    if (fresh && octet === 0x80) throw new DerError("OID arc is not minimal", i);
    fresh = octet < 0x80;
  }
  if (!fresh) throw new DerError("OID is cut off", end);
}

/** Reads an OBJECT IDENTIFIER and checks it. */
export function readObjectIdentifier(reader: DerReader): DerElement {
  const element = reader.read(Tag.objectIdentifier);
  checkObjectIdentifier(element);
  return element;
}

/** What is wrong with the content of an INTEGER, if anything: X.690 §8.3.2. */
export function integerFault(element: DerElement): "empty" | "not minimal" | undefined {
  const { bytes, contentStart, end } = element;
  if (contentStart === end) return "empty";
  if (end - contentStart === 1) return undefined;
  const first = bytes[contentStart]!;
  const signOfNext = bytes[contentStart + 1]! & 0x80;
  return (first === 0 && signOfNext === 0) || (first === 0xff && signOfNext !== 0)
    ? "not minimal"
    : undefined;
}

/** Throws unless the content is that of a minimal, non-negative INTEGER. */
export function checkNatural(element: DerElement): void {
  const fault = integerFault(element);
  if (fault !== undefined) throw new DerError(`INTEGER is ${fault}`, element.start);
  if (element.bytes[element.contentStart]! >= 0x80) {
    throw new DerError("INTEGER is negative", element.start);
  }
}

/** Small non-negative INTEGERs such as pathLen; larger ones saturate. */
export function smallNatural(element: DerElement): number {
  checkNatural(element);
  if (element.end - element.contentStart > 4) return 0x7fffffff;
  let value = 0;
  for (let i = element.contentStart; i < element.end; i++) value = value * 256 + element.bytes[i]!;
  return value;
}

/** The content octet of a BOOLEAN: 0xff is TRUE, 0x00 FALSE, all else is BER (X.690 §11.1). */
export function booleanOctet(element: DerElement): number {
  if (element.end - element.contentStart !== 1) {
    throw new DerError("BOOLEAN is not one octet", element.start);
  }
  return element.bytes[element.contentStart]!;
}

/** Throws unless the BIT STRING has whole octets; its octets start one after the content's start. */
export function checkOctetAligned(element: DerElement): void {
  if (element.contentStart === element.end) {
    throw new DerError("empty BIT STRING", element.start);
  }
  if (element.bytes[element.contentStart] !== 0) {
    throw new DerError("BIT STRING has unused bits", element.start);
  }
}

/** Throws unless every content octet is below 0x80 (IA5String: X.680 §41). */
export function checkAscii(element: DerElement): void {
  if (!isAscii(element)) throw new DerError("IA5String has an octet above 7f", element.start);
}

export function isAscii(element: DerElement): boolean {
  const { bytes, contentStart, end } = element;
  for (let i = contentStart; i < end; i++) if (bytes[i]! >= 0x80) return false;
  return true;
}

/** Checks a value of unknown syntax as far as its universal tags go; what it holds is the profile's word. */
export function checkAnyDer(bytes: Uint8Array, start: number, end: number, depth = 0): void {
  if (depth > 16) throw new DerError("nested too deeply", start);
  const reader = new DerReader(bytes, start, end);
  let previous: DerElement | undefined;
  while (!reader.atEnd) {
    const element = reader.readAny();
    if (depth === 0 && previous !== undefined)
      throw new DerError("unexpected bytes", element.start);
    previous = element;
    if ((element.tag & 0x20) !== 0) {
      if (element.tag < 0x40 && element.tag !== Tag.sequence && element.tag !== Tag.set) {
        throw new DerError("constructed encoding of a primitive type", element.start);
      }
      checkAnyDer(bytes, element.contentStart, element.end, depth + 1);
    } else if (element.tag === Tag.boolean) {
      const octet = booleanOctet(element);
      if (octet !== 0 && octet !== 0xff)
        throw new DerError("BOOLEAN is not 00 or ff", element.start);
    } else if (element.tag === Tag.integer || element.tag === Tag.enumerated) {
      const fault = integerFault(element);
      if (fault !== undefined) throw new DerError(`INTEGER is ${fault}`, element.start);
    } else if (element.tag === Tag.objectIdentifier) {
      checkObjectIdentifier(element);
    } else if (element.tag === Tag.null && element.contentStart !== element.end) {
      throw new DerError("NULL has content", element.start);
    } else if (element.tag === 0x10 || element.tag === 0x11) {
      throw new DerError("primitive encoding of a constructed type", element.start);
    }
  }
  if (depth === 0 && previous === undefined) throw new DerError("element is cut off", start);
}

/** `99991231235959Z`: RFC 5280 §4.1.2.5, no expiry known. */
export const NO_EXPIRY: number = Date.UTC(9999, 11, 31, 23, 59, 59);

/**
 * Milliseconds of a UTCTime or GeneralizedTime in the one form RFC 5280 §4.1.2.5 allows; NaN for any other, for other
 * tags, and for instants that no calendar has.
 */
export function timeOf(element: DerElement): number {
  const { bytes, contentStart, end, tag } = element;
  const length = end - contentStart;
  if (!((tag === Tag.utcTime && length === 13) || (tag === Tag.generalizedTime && length === 15))) {
    return Number.NaN;
  }
  if (bytes[end - 1] !== 0x5a) return Number.NaN;
  for (let i = contentStart; i < end - 1; i++) {
    const octet = bytes[i]!;
    if (octet < 0x30 || octet > 0x39) return Number.NaN;
  }
  let at = contentStart;
  let year: number;
  if (tag === Tag.utcTime) {
    year = twoDigits(bytes, at);
    year += year < 50 ? 2000 : 1900;
    at += 2;
  } else {
    year = twoDigits(bytes, at) * 100 + twoDigits(bytes, at + 2);
    at += 4;
  }
  const month = twoDigits(bytes, at);
  const day = twoDigits(bytes, at + 2);
  const hour = twoDigits(bytes, at + 4);
  const minute = twoDigits(bytes, at + 6);
  const second = twoDigits(bytes, at + 8);
  if (month < 1 || month > 12 || day < 1 || day > daysOf(year, month)) return Number.NaN;
  if (hour > 23 || minute > 59 || second > 59) return Number.NaN;
  // Date.UTC reads years below 100 as 19xx; nothing that old is a certificate.
  return year < 100 ? Number.NaN : Date.UTC(year, month - 1, day, hour, minute, second);
}

const START_OF_2050 = Date.UTC(2050, 0, 1);

/** Whether the type is the one RFC 5280 §4.1.2.5 prescribes for this instant. */
export function timeTypeFits(element: DerElement, instant: number): boolean {
  return element.tag === (instant < START_OF_2050 ? Tag.utcTime : Tag.generalizedTime);
}

function twoDigits(bytes: Uint8Array, at: number): number {
  return bytes[at]! * 10 + bytes[at + 1]! - 528; // 528 = 11 × 0x30
}

function daysOf(year: number, month: number): number {
  if (month === 2) return (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0 ? 29 : 28;
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

/** An instant of {@link timeOf} for a message. */
export function instant(time: number): string {
  return Number.isNaN(time) ? "(unreadable)" : new Date(time).toISOString();
}
