/** Distinguished Encoding Rules, reading and writing: X.690 (02/2021) §8 and §10. */

/** Universal tags (X.680 §8.6), with the constructed bit where DER requires it. */
export const Tag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  objectIdentifier: 0x06,
  enumerated: 0x0a,
  utf8String: 0x0c,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  universalString: 0x1c,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const;

/** The tag of a context-specific element: `[number]`, constructed or primitive. */
export function contextTag(number: number, constructed: boolean): number {
  return 0x80 | (constructed ? 0x20 : 0) | number;
}

/** Bytes that are not the DER they should be. `offset` counts from the start of the buffer read. */
export class DerError extends Error {
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(`${message} at offset ${offset}`);
    this.name = "DerError";
    this.offset = offset;
  }
}

/** One element: identifier octet, and where header and content stand in `bytes`. */
export interface DerElement {
  readonly bytes: Uint8Array;
  readonly tag: number;
  /** Offset of the identifier octet. */
  readonly start: number;
  /** Offset of the first content octet. */
  readonly contentStart: number;
  /** Offset after the last content octet. */
  readonly end: number;
}

/** The whole element, header included, as a view (no copy). */
export function encodingOf(element: DerElement): Uint8Array {
  return element.bytes.subarray(element.start, element.end);
}

/** The content octets as a view (no copy). */
export function contentOf(element: DerElement): Uint8Array {
  return element.bytes.subarray(element.contentStart, element.end);
}

/**
 * Reads elements one after the other. Lengths are definite, minimal and inside the enclosing element; tag
 * numbers above 30 are refused (nothing in RFC 5280 uses them).
 */
export class DerReader {
  readonly #bytes: Uint8Array;
  readonly #end: number;
  #offset: number;

  constructor(bytes: Uint8Array, start = 0, end: number = bytes.length) {
    this.#bytes = bytes;
    this.#offset = start;
    this.#end = end;
  }

  /** A reader of one element's content. */
  static inside(element: DerElement): DerReader {
    return new DerReader(element.bytes, element.contentStart, element.end);
  }

  /**
   * Reads bytes that hold exactly one element.
   *
   * @throws DerError if the tag differs or bytes follow it.
   */
  static whole(bytes: Uint8Array, tag: number): DerElement {
    const reader = new DerReader(bytes);
    const element = reader.read(tag);
    reader.finish();
    return element;
  }

  get offset(): number {
    return this.#offset;
  }

  get atEnd(): boolean {
    return this.#offset === this.#end;
  }

  /** The identifier octet that comes next, or undefined at the end. */
  peek(): number | undefined {
    return this.#offset < this.#end ? this.#bytes[this.#offset] : undefined;
  }

  /** Reads the next element, whatever its tag. */
  readAny(): DerElement {
    const bytes = this.#bytes;
    const start = this.#offset;
    if (start + 2 > this.#end) throw new DerError("element is cut off", start);
    const tag = bytes[start]!;
    if ((tag & 0x1f) === 0x1f) throw new DerError("tag number above 30", start);
    let contentStart = start + 2;
    let length = bytes[start + 1]!;
    if (length >= 0x80) {
      const octets = length & 0x7f;
      if (octets === 0) throw new DerError("indefinite length", start);
      if (octets > 4) throw new DerError("length of more than four octets", start);
      if (contentStart + octets > this.#end) throw new DerError("element is cut off", start);
      length = 0;
      for (let i = 0; i < octets; i++) length = length * 256 + bytes[contentStart + i]!;
      if (length < 0x80 || bytes[contentStart] === 0) {
        throw new DerError("length is not minimal", start);
      }
      contentStart += octets;
    }
    const end = contentStart + length;
    if (end > this.#end) throw new DerError("element is longer than what encloses it", start);
    this.#offset = end;
    return { bytes, tag, start, contentStart, end };
  }

  /** Reads the next element, which must have this tag. */
  read(tag: number): DerElement {
    const start = this.#offset;
    const element = this.readAny();
    if (element.tag !== tag) {
      throw new DerError(`expected tag ${hex(tag)}, found ${hex(element.tag)}`, start);
    }
    return element;
  }

  /** Reads the next element if it has this tag. */
  readOptional(tag: number): DerElement | undefined {
    return this.peek() === tag ? this.readAny() : undefined;
  }

  /** Requires that nothing is left. */
  finish(): void {
    if (!this.atEnd) throw new DerError("unexpected bytes", this.#offset);
  }
}

function hex(tag: number): string {
  return tag.toString(16).padStart(2, "0");
}

/** Joins pieces to one buffer. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const joined = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

/** Encodes one element around the given content octets. */
export function element(tag: number, ...content: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of content) length += part.length;
  const header = headerOf(tag, length);
  const encoded = new Uint8Array(header.length + length);
  encoded.set(header);
  let offset = header.length;
  for (const part of content) {
    encoded.set(part, offset);
    offset += part.length;
  }
  return encoded;
}

/** Identifier and length octets of an element whose content has `length` octets. */
export function headerOf(tag: number, length: number): Uint8Array {
  if (length < 0x80) return Uint8Array.of(tag, length);
  if (length < 0x100) return Uint8Array.of(tag, 0x81, length);
  if (length < 0x10000) return Uint8Array.of(tag, 0x82, length >> 8, length & 0xff);
  if (length < 0x1000000) {
    return Uint8Array.of(tag, 0x83, length >> 16, (length >> 8) & 0xff, length & 0xff);
  }
  return Uint8Array.of(
    tag,
    0x84,
    length >>> 24,
    (length >> 16) & 0xff,
    (length >> 8) & 0xff,
    length & 0xff,
  );
}

export function sequence(...content: readonly Uint8Array[]): Uint8Array {
  return element(Tag.sequence, ...content);
}

/** INTEGER of a non-negative number; X.690 §8.3.2 (shortest form, sign bit clear). */
export function integer(value: bigint | number): Uint8Array {
  return element(Tag.integer, integerContent(BigInt(value)));
}

/** Content octets of a non-negative INTEGER. */
export function integerContent(value: bigint): Uint8Array {
  if (value < 0n) throw new RangeError("a negative INTEGER is not used here");
  let digits = value.toString(16);
  if (digits.length % 2 === 1) digits = `0${digits}`;
  if (Number.parseInt(digits.slice(0, 2), 16) >= 0x80) digits = `00${digits}`;
  return Uint8Array.from(Buffer.from(digits, "hex"));
}

/** OBJECT IDENTIFIER from dotted text: X.690 §8.19. */
export function objectIdentifier(dotted: string): Uint8Array {
  const arcs = dotted.split(".").map(BigInt);
  const [first, second, ...rest] = arcs;
  if (first === undefined || second === undefined) throw new RangeError("an OID has two arcs");
  const octets: number[] = [];
  for (const arc of [first * 40n + second, ...rest]) {
    const base128: number[] = [Number(arc & 0x7fn)];
    for (let left = arc >> 7n; left > 0n; left >>= 7n) base128.unshift(Number(left & 0x7fn) | 0x80);
    octets.push(...base128);
  }
  return element(Tag.objectIdentifier, Uint8Array.from(octets));
}

/** Longer OBJECT IDENTIFIERs are refused: nothing real comes near, and decoding long arcs is not linear. */
const OBJECT_IDENTIFIER_OCTETS = 128;

/**
 * Dotted text of an OBJECT IDENTIFIER.
 *
 * @param content - its content octets.
 * @throws DerError if an arc is cut off or not minimal, or if there are more than 128 octets.
 */
export function objectIdentifierText(content: Uint8Array): string {
  if (content.length === 0) throw new DerError("empty OBJECT IDENTIFIER", 0);
  if (content.length > OBJECT_IDENTIFIER_OCTETS) throw new DerError("OID is too long", 0);
  let text = "";
  let arc = 0;
  let start = 0;
  for (let offset = 0; offset < content.length; offset++) {
    const octet = content[offset]!;
    if (offset === start && octet === 0x80) throw new DerError("OID arc is not minimal", offset);
    arc = arc * 128 + (octet & 0x7f);
    if (octet >= 0x80) continue;
    // Seven octets are 49 bits, which a double holds; UUID arcs (2.25.…) need 128.
    const exact = offset - start < 7 ? arc : wideArc(content, start, offset);
    if (start > 0) text += `.${exact}`;
    else if (arc < 80) text = arc < 40 ? `0.${arc}` : `1.${arc - 40}`;
    else text = `2.${typeof exact === "bigint" ? exact - 80n : exact - 80}`;
    arc = 0;
    start = offset + 1;
  }
  if (start !== content.length) throw new DerError("OID is cut off", content.length);
  return text;
}

function wideArc(content: Uint8Array, start: number, last: number): bigint {
  let arc = 0n;
  for (let i = start; i <= last; i++) arc = (arc << 7n) | BigInt(content[i]! & 0x7f);
  return arc;
}

/** BIT STRING of whole octets: X.690 §8.6. */
export function bitString(octets: Uint8Array, unusedBits = 0): Uint8Array {
  return element(Tag.bitString, Uint8Array.of(unusedBits), octets);
}

export function octetString(octets: Uint8Array): Uint8Array {
  return element(Tag.octetString, octets);
}

/** BOOLEAN TRUE; FALSE is always a default here and so never encoded (X.690 §11.5). */
export const booleanTrue: Uint8Array = Uint8Array.of(Tag.boolean, 1, 0xff);

/**
 * RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050; whole seconds, Z. A fraction is dropped.
 *
 * @throws RangeError if the year is not 1950 to 9999.
 */
export function time(date: Date): Uint8Array {
  return date.getUTCFullYear() < 2050
    ? element(Tag.utcTime, ascii(timeDigits(date).slice(2)))
    : generalizedTime(date);
}

/** `YYYYMMDDHHMMSSZ`: RFC 5280 §4.1.2.5.2. */
export function generalizedTime(date: Date): Uint8Array {
  return element(Tag.generalizedTime, ascii(timeDigits(date)));
}

function timeDigits(date: Date): string {
  const iso = date.toISOString(); // 2026-11-21T20:05:01.123Z
  // A UTCTime before 1950 would be read as one a hundred years later.
  if (iso.length !== 24 || iso < "1950") throw new RangeError(`${iso} cannot be encoded`);
  return `${iso.slice(0, 4)}${iso.slice(5, 7)}${iso.slice(8, 10)}${iso.slice(11, 13)}${iso.slice(14, 16)}${iso.slice(17, 19)}Z`;
}

function ascii(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, "latin1"));
}

// Values of elements. Each function expects the caller to have read the element by its tag.

/** BOOLEAN: 00 or FF (X.690 §11.1). */
export function booleanValue(element: DerElement): boolean {
  const octet = element.bytes[element.contentStart];
  if (element.end - element.contentStart !== 1 || (octet !== 0x00 && octet !== 0xff)) {
    throw new DerError("BOOLEAN is not 00 or FF", element.start);
  }
  return octet === 0xff;
}

/** Content octets of an INTEGER or ENUMERATED in its shortest form (X.690 §8.3.2); the sign is not looked at. */
export function integerOctets(element: DerElement): Uint8Array {
  const { bytes, contentStart, end } = element;
  if (contentStart === end) throw new DerError("INTEGER has no octets", element.start);
  if (end - contentStart > 1) {
    const first = bytes[contentStart]!;
    const signBit = bytes[contentStart + 1]! & 0x80;
    if ((first === 0x00 && signBit === 0) || (first === 0xff && signBit !== 0)) {
      throw new DerError("INTEGER is not minimal", element.start);
    }
  }
  return bytes.subarray(contentStart, end);
}

/** Magnitude octets of a positive INTEGER, without the sign octet. */
export function positiveIntegerOctets(element: DerElement): Uint8Array {
  const octets = integerOctets(element);
  if (octets[0]! >= 0x80) throw new DerError("INTEGER is negative", element.start);
  if (octets[0] !== 0) return octets;
  if (octets.length === 1) throw new DerError("INTEGER is zero", element.start);
  return octets.subarray(1);
}

/** A non-negative INTEGER of up to six octets. */
export function integerValue(element: DerElement): number {
  const octets = integerOctets(element);
  if (octets[0]! >= 0x80) throw new DerError("INTEGER is negative", element.start);
  if (octets.length > 6) throw new DerError("INTEGER is too large", element.start);
  let value = 0;
  for (const octet of octets) value = value * 256 + octet;
  return value;
}

/** Octets of a BIT STRING and how many bits of the last are padding, which must be zero (X.690 §11.2.1). */
export function bitStringValue(element: DerElement): { octets: Uint8Array; unusedBits: number } {
  const { bytes, contentStart, end } = element;
  const unusedBits = bytes[contentStart];
  if (contentStart === end || unusedBits === undefined || unusedBits > 7) {
    throw new DerError("BIT STRING has a wrong number of unused bits", element.start);
  }
  const octets = bytes.subarray(contentStart + 1, end);
  if (unusedBits > 0 && (octets.length === 0 || octets.at(-1)! & ((1 << unusedBits) - 1))) {
    throw new DerError("unused bits of BIT STRING are not zero", element.start);
  }
  return { octets, unusedBits };
}

/** Octets of a BIT STRING without unused bits. */
export function bitStringOctets(element: DerElement): Uint8Array {
  const { octets, unusedBits } = bitStringValue(element);
  if (unusedBits !== 0) throw new DerError("BIT STRING is not whole octets", element.start);
  return octets;
}

/** Reads a Time as `time` writes it: UTCTime through 2049, GeneralizedTime from 2050 (RFC 5280 §4.1.2.5). */
export function readTime(reader: DerReader): Date {
  const element = reader.readAny();
  if (element.tag === Tag.utcTime) {
    const shortYear = digits(element, 0, 2);
    return dateOf(element, shortYear < 50 ? 2000 + shortYear : 1900 + shortYear, 2);
  }
  if (element.tag !== Tag.generalizedTime) throw new DerError("not a time", element.start);
  const date = generalizedTimeValue(element);
  if (date.getUTCFullYear() < 2050) {
    throw new DerError("a time before 2050 must be UTCTime", element.start);
  }
  return date;
}

/** A GeneralizedTime `YYYYMMDDHHMMSSZ`: RFC 5280 §4.1.2.5.2. */
export function generalizedTimeValue(element: DerElement): Date {
  return dateOf(element, digits(element, 0, 4), 4);
}

function dateOf(element: DerElement, year: number, offset: number): Date {
  const { bytes, contentStart, end, start } = element;
  if (end - contentStart !== offset + 11 || bytes[end - 1] !== 0x5a) {
    throw new DerError("a time has seconds, no fraction, and ends in Z", start);
  }
  const month = digits(element, offset, 2);
  const day = digits(element, offset + 2, 2);
  const hour = digits(element, offset + 4, 2);
  const minute = digits(element, offset + 6, 2);
  const second = digits(element, offset + 8, 2);
  const date = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
  if (
    hour > 23 ||
    minute > 59 ||
    second > 59 ||
    date.getUTCDate() !== day ||
    date.getUTCMonth() !== month - 1 ||
    date.getUTCFullYear() !== year
  ) {
    throw new DerError("no such date and time", start);
  }
  return date;
}

function digits(element: DerElement, offset: number, count: number): number {
  const from = element.contentStart + offset;
  if (from + count > element.end) throw new DerError("time is cut off", element.start);
  let value = 0;
  for (let i = from; i < from + count; i++) {
    const digit = element.bytes[i]! - 0x30;
    if (digit < 0 || digit > 9) throw new DerError("time has something else than digits", i);
    value = value * 10 + digit;
  }
  return value;
}

/** Text of IA5String octets (7-bit, NUL included), whatever tag they stand under. */
export function ia5Text(element: DerElement): string {
  const { bytes, contentStart, end } = element;
  for (let i = contentStart; i < end; i++) {
    if (bytes[i]! > 0x7f) throw new DerError("character outside IA5String", i);
  }
  return Buffer.from(bytes.buffer, bytes.byteOffset + contentStart, end - contentStart).toString(
    "latin1",
  );
}

/** Compares two encodings as X.690 §11.6 orders the elements of a SET OF. */
export function compareOctets(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}

/** Elements of a SET OF, which DER wants in ascending order: X.690 §11.6. */
export function setOfElements(set: DerElement): DerElement[] {
  const reader = DerReader.inside(set);
  const elements: DerElement[] = [];
  while (!reader.atEnd) {
    const element = reader.readAny();
    const previous = elements.at(-1);
    if (previous !== undefined && compareOctets(encodingOf(previous), encodingOf(element)) > 0) {
      throw new DerError("SET OF is not in ascending order", element.start);
    }
    elements.push(element);
  }
  return elements;
}

export function equalOctets(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
