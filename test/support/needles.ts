/** Looks for secrets in octets, in every form in which JavaScript and our formats may have left them. */

/**
 * What must not be found, by name: the secrets themselves, not a structure around them. Half of a PKCS#8 is its
 * public key, which is no find. At least 8 octets each.
 */
export type Needles = Readonly<Record<string, Uint8Array>>;

/** Where a needle was found. */
export interface Finding {
  readonly needle: string;
  /** Such as `raw`, `hex`, `base64 +1`, `bits, UTF-16`. */
  readonly form: string;
  /** A needle whose form has 16 octets and more is found by half: what lies across pages, or was half overwritten. */
  readonly part: "whole" | "first half" | "last half";
  /** Octets from the beginning of what was searched. */
  readonly offset: number;
}

/**
 * The forms of a secret: as it is, in hex, base64 (at each of its three alignments) and bits; those texts and the
 * octets as a two-byte string; its octets as an array of small integers; and backwards, as the package for shares
 * turns them.
 */
export function formsOf(secret: Uint8Array): Map<string, Buffer> {
  const octets = Buffer.from(secret);
  for (const half of [
    octets.subarray(0, octets.length >> 1),
    octets.subarray(octets.length >> 1),
  ]) {
    if (octets.length < 8 || new Set(half).size < 4) {
      throw new RangeError("so short or so even a needle is found anywhere");
    }
  }
  const backwards = Buffer.from(octets).reverse();
  const hex = octets.toString("hex");
  const texts = new Map<string, string>([
    ["raw", octets.toString("latin1")],
    ["backwards", backwards.toString("latin1")],
    ["hex", hex],
    ...(hex === hex.toUpperCase() ? [] : [["HEX", hex.toUpperCase()] as const]),
    ["bits", [...octets].map((octet) => octet.toString(2).padStart(8, "0")).join("")],
  ]);
  for (const alignment of [0, 1, 2]) {
    const base64 = base64At(octets, alignment);
    texts.set(`base64 +${alignment}`, base64);
    const base64url = base64.replaceAll("+", "-").replaceAll("/", "_");
    if (base64url !== base64) texts.set(`base64url +${alignment}`, base64url);
  }
  const forms = new Map<string, Buffer>();
  for (const [form, text] of texts) {
    forms.set(form, Buffer.from(text, "latin1"));
    // Without the zero octet at its end, which says nothing.
    forms.set(`${form}, UTF-16`, Buffer.from(text, "utf16le").subarray(0, -1));
  }
  forms.set("integers", smallIntegers(octets));
  forms.set("integers, backwards", smallIntegers(backwards));
  return forms;
}

/** What of a base64 text depends on these octets alone, when `before` octets precede them in their group. */
function base64At(octets: Buffer, before: number): string {
  const text = Buffer.concat([Buffer.alloc(before), octets]).toString("base64");
  const first = Math.ceil((before * 8) / 6);
  return text.slice(first, Math.floor(((before + octets.length) * 8) / 6));
}

/** A JavaScript array of these numbers in memory: V8 on 64-bit machines keeps each in the upper half of eight octets. */
function smallIntegers(octets: Buffer): Buffer {
  const array = Buffer.alloc(octets.length * 8);
  for (const [place, octet] of octets.entries()) array[place * 8 + 4] = octet;
  return array.subarray(4, -3);
}

interface Pattern extends Omit<Finding, "offset"> {
  readonly octets: Buffer;
  /** Of the whole form; 0 if this is all of it. */
  readonly wholeLength: number;
}

interface Found {
  readonly pattern: Pattern;
  readonly offset: number;
}

/** Where in a pattern a word lies. */
interface Anchor {
  readonly pattern: Pattern;
  readonly at: number;
}

const WORD = 4;

/** Looks for many needles at once, in one pass. */
export class NeedleSearch {
  /** By the value of one word in them; one anchor for each way that a pattern may lie across words. */
  readonly #anchors = new Map<number, Anchor[]>();
  /** Which words may be in #anchors, by 16 bits of a hash: a Map for each word of a gigabyte would take minutes. */
  readonly #filter = new Uint8Array(65_536);
  #longest = 0;

  constructor(needles: Needles) {
    for (const [needle, octets] of Object.entries(needles)) {
      for (const [form, bytes] of formsOf(octets)) {
        for (const pattern of patternsOf(needle, form, bytes)) this.#add(pattern);
      }
    }
  }

  #add(pattern: Pattern): void {
    const { octets } = pattern;
    this.#longest = Math.max(this.#longest, octets.length);
    for (let residue = 0; residue < WORD; residue++) {
      // The word of most different octets: that of zeros, in an array of integers, is everywhere.
      let best = residue;
      for (let at = residue; at + WORD <= octets.length; at += WORD) {
        if (variety(octets, at) > variety(octets, best)) best = at;
      }
      const word = octets.readInt32LE(best);
      const anchors = this.#anchors.get(word);
      if (anchors === undefined) this.#anchors.set(word, [{ pattern, at: best }]);
      else anchors.push({ pattern, at: best });
      this.#filter[hashOf(word)] = 1;
    }
  }

  /**
   * Searches octets that come piece by piece.
   *
   * @param read - fills a buffer with what follows, and tells how much that was; 0 at the end.
   * @param pieceLength - octets that are read at a time.
   */
  search(read: (into: Uint8Array) => number, pieceLength = 1024 * 1024): Finding[] {
    // What is kept of the piece before: as much as a needle across the border may have there, in whole words.
    const overlap = Math.ceil(this.#longest / WORD) * WORD;
    const space = new ArrayBuffer(Math.ceil((overlap + pieceLength) / WORD) * WORD + WORD);
    const buffer = Buffer.from(space);
    const zeros = Buffer.alloc(buffer.length);
    const found: Found[] = [];
    let kept = 0;
    let start = 0; // the offset of buffer[0]
    for (;;) {
      const length = read(buffer.subarray(kept, kept + pieceLength));
      if (length === 0) return joined(found);
      const end = kept + length;
      if (buffer.compare(zeros, 0, end, 0, end) !== 0) {
        for (const { pattern, at } of this.#findIn(buffer, end)) {
          if (at + pattern.octets.length <= kept) continue; // found in the piece before
          found.push({ pattern, offset: start + at });
        }
      }
      const dropped = Math.max(0, Math.floor((end - overlap) / WORD) * WORD);
      buffer.copyWithin(0, dropped, end);
      start += dropped;
      kept = end - dropped;
    }
  }

  *#findIn(buffer: Buffer, end: number): Generator<Anchor> {
    const words = new Int32Array(buffer.buffer, 0, Math.ceil(end / WORD));
    const filter = this.#filter;
    for (let index = 0; index < words.length; index++) {
      const word = words[index]!;
      if (filter[hashOf(word)] === 0) continue;
      for (const { pattern, at } of this.#anchors.get(word) ?? []) {
        const first = index * WORD - at;
        const last = first + pattern.octets.length;
        if (first < 0 || last > end) continue;
        if (buffer.compare(pattern.octets, 0, pattern.octets.length, first, last) === 0) {
          yield { pattern, at: first };
        }
      }
    }
  }
}

function hashOf(word: number): number {
  return Math.imul(word, 0x9e3779b1) >>> 16;
}

function variety(octets: Buffer, at: number): number {
  return new Set(octets.subarray(at, at + WORD)).size;
}

function patternsOf(needle: string, form: string, octets: Buffer): Pattern[] {
  if (octets.length < 16) return [{ needle, form, part: "whole", octets, wholeLength: 0 }];
  const middle = octets.length >> 1;
  const wholeLength = octets.length;
  return [
    { needle, form, part: "first half", octets: octets.subarray(0, middle), wholeLength },
    { needle, form, part: "last half", octets: octets.subarray(middle), wholeLength },
  ];
}

/** Two halves side by side are one find, and what lies in it in another form that begins or ends the same is none. */
function joined(found: readonly Found[]): Finding[] {
  const key = ({ pattern }: Found, part: string, offset: number): string =>
    JSON.stringify([pattern.needle, pattern.form, part, offset]);
  const all = new Set(found.map((one) => key(one, one.pattern.part, one.offset)));
  const wholes: (Finding & { readonly end: number })[] = [];
  const halves: typeof wholes = [];
  for (const one of found) {
    const { offset, pattern } = one;
    const { needle, form, part, octets, wholeLength } = pattern;
    const middle = wholeLength >> 1;
    const end = offset + octets.length;
    if (part === "whole") wholes.push({ needle, form, part, offset, end });
    else if (part === "first half" && all.has(key(one, "last half", offset + middle))) {
      wholes.push({ needle, form, part: "whole", offset, end: offset + wholeLength });
    } else if (part === "first half" || !all.has(key(one, "first half", offset - middle))) {
      halves.push({ needle, form, part, offset, end });
    }
  }
  const alone = halves.filter(
    (half) =>
      !wholes.some(
        ({ needle, offset, end }) =>
          needle === half.needle && offset <= half.offset && end >= half.end,
      ),
  );
  return [...wholes, ...alone]
    .map(({ needle, form, part, offset }) => ({ needle, form, part, offset }))
    .toSorted((one, other) => one.offset - other.offset);
}
