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

/**
 * Dotted text of an OBJECT IDENTIFIER.
 *
 * @param content - its content octets.
 * @throws DerError if an arc is cut off or not minimal.
 */
export function objectIdentifierText(content: Uint8Array): string {
  if (content.length === 0) throw new DerError("empty OBJECT IDENTIFIER", 0);
  const arcs: string[] = [];
  let arc = 0n;
  let fresh = true;
  for (const [offset, octet] of content.entries()) {
    if (fresh && octet === 0x80) throw new DerError("OID arc is not minimal", offset);
    arc = (arc << 7n) | BigInt(octet & 0x7f);
    fresh = (octet & 0x80) === 0;
    if (!fresh) continue;
    if (arcs.length === 0) {
      const first = arc < 40n ? 0n : arc < 80n ? 1n : 2n;
      arcs.push(first.toString(), (arc - first * 40n).toString());
    } else {
      arcs.push(arc.toString());
    }
    arc = 0n;
  }
  if (!fresh) throw new DerError("OID is cut off", content.length);
  return arcs.join(".");
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

/** RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050; whole seconds, Z. */
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
  return `${iso.slice(0, 4)}${iso.slice(5, 7)}${iso.slice(8, 10)}${iso.slice(11, 13)}${iso.slice(14, 16)}${iso.slice(17, 19)}Z`;
}

function ascii(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, "latin1"));
}
