/** GeneralNames: RFC 5280 §4.2.1.6. */

import {
  contentOf,
  contextTag,
  DerError,
  DerReader,
  element,
  encodingOf,
  ia5Text,
  objectIdentifierText,
  sequence,
  Tag,
  type DerElement,
} from "./der.ts";
import { parseName } from "./name.ts";

/**
 * One name. `value` is the IA5String as it stands (NUL and upper case included: judging it is the caller's
 * task); `der` is the whole element of a kind that is not taken apart here.
 */
export type GeneralName =
  | { readonly kind: "dns" | "email" | "uri"; readonly value: string }
  | { readonly kind: "ip"; readonly value: string; readonly octets: Uint8Array }
  | {
      readonly kind: "other" | "x400" | "directory" | "edi" | "registered";
      readonly der: Uint8Array;
    };

/** A name that can be put into a certificate. */
export interface SubjectName {
  readonly kind: "dns" | "ip" | "email" | "uri";
  readonly value: string;
}

const tags = {
  other: contextTag(0, true),
  email: contextTag(1, false),
  dns: contextTag(2, false),
  x400: contextTag(3, true),
  directory: contextTag(4, true),
  edi: contextTag(5, true),
  uri: contextTag(6, false),
  ip: contextTag(7, false),
  registered: contextTag(8, false),
} as const;

/**
 * Reads `SEQUENCE OF GeneralName`, which has at least one.
 *
 * @throws DerError also for characters outside IA5String and for addresses of neither 4 nor 16 octets.
 */
export function parseGeneralNames(der: Uint8Array): GeneralName[] {
  return generalNamesInside(DerReader.whole(der, Tag.sequence));
}

/** The names inside an element that stands for GeneralNames, such as `[0] IMPLICIT GeneralNames`. */
export function generalNamesInside(names: DerElement): GeneralName[] {
  const reader = DerReader.inside(names);
  const parsed: GeneralName[] = [];
  while (!reader.atEnd) parsed.push(generalName(reader.readAny()));
  if (parsed.length === 0) throw new DerError("empty GeneralNames", names.start);
  return parsed;
}

/** One GeneralName. */
export function generalName(name: DerElement): GeneralName {
  if (name.tag === tags.ip) {
    const octets = contentOf(name);
    if (octets.length !== 4 && octets.length !== 16) {
      throw new DerError("iPAddress has neither 4 nor 16 octets", name.start);
    }
    return { kind: "ip", value: ipText(octets), octets };
  }
  return namedByText(name) ?? namedOtherwise(name);
}

/** A dNSName, rfc822Name or uniformResourceIdentifier, or undefined for every other kind. */
export function namedByText(
  name: DerElement,
): { kind: "dns" | "email" | "uri"; value: string } | undefined {
  switch (name.tag) {
    case tags.dns:
      return { kind: "dns", value: ia5Text(name) };
    case tags.email:
      return { kind: "email", value: ia5Text(name) };
    case tags.uri:
      return { kind: "uri", value: ia5Text(name) };
    default:
      return undefined;
  }
}

function namedOtherwise(name: DerElement): GeneralName {
  const der = encodingOf(name);
  const reader = name.tag === tags.registered ? undefined : DerReader.inside(name);
  switch (name.tag) {
    case tags.other: {
      objectIdentifierText(contentOf(reader!.read(Tag.objectIdentifier)));
      const value = DerReader.inside(reader!.read(contextTag(0, true)));
      value.readAny();
      value.finish();
      reader!.finish();
      return { kind: "other", der };
    }
    case tags.directory:
      parseName(encodingOf(reader!.read(Tag.sequence)));
      reader!.finish();
      return { kind: "directory", der };
    case tags.x400:
      return { kind: "x400", der };
    case tags.edi:
      return { kind: "edi", der };
    case tags.registered:
      objectIdentifierText(contentOf(name));
      return { kind: "registered", der };
    default:
      throw new DerError("not a GeneralName", name.start);
  }
}

/**
 * Encodes `SEQUENCE OF GeneralName` in the given order. Values are taken as they stand.
 *
 * @throws RangeError if there is no name, or one is empty, not ASCII, or not an IP address.
 */
export function encodeGeneralNames(names: readonly SubjectName[]): Uint8Array {
  if (names.length === 0) throw new RangeError("GeneralNames has at least one name");
  return sequence(...names.map(({ kind, value }) => element(tags[kind], nameOctets(kind, value))));
}

function nameOctets(kind: SubjectName["kind"], value: string): Uint8Array {
  if (kind === "ip") {
    const octets = ipOctets(value);
    if (octets === undefined) throw new RangeError(`${JSON.stringify(value)} is no IP address`);
    return octets;
  }
  if (value === "") throw new RangeError(`a ${kind} name is empty`);
  const octets = new Uint8Array(value.length);
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i);
    if (code <= 0x20 || code >= 0x7f) {
      throw new RangeError(`${kind} name ${JSON.stringify(value)} is not printable ASCII`);
    }
    octets[i] = code;
  }
  return octets;
}

/**
 * Octets of an IP address: dotted decimal without leading zeros, or any text form of RFC 4291 §2.2, without a
 * zone. Undefined for everything else.
 */
export function ipOctets(text: string): Uint8Array | undefined {
  return text.includes(":") ? ipv6Octets(text) : ipv4Octets(text);
}

function ipv4Octets(text: string): Uint8Array | undefined {
  const parts = text.split(".", 5);
  if (parts.length !== 4 || text.length > 15) return undefined;
  const octets = new Uint8Array(4);
  for (const [i, part] of parts.entries()) {
    if (!/^(?:0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined;
    octets[i] = Number(part);
  }
  return octets;
}

function ipv6Octets(text: string): Uint8Array | undefined {
  if (text.length > 45) return undefined;
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = ipv6Groups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? ipv6Groups(halves[1]!, true) : [];
  if (head === undefined || tail === undefined) return undefined;
  // "::" stands for at least one group (RFC 5952 §4.2.2 asks for two; reading is not that strict).
  const missing = 16 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 2) return undefined;
  const octets = new Uint8Array(16);
  octets.set(head);
  octets.set(tail, 16 - tail.length);
  return octets;
}

function ipv6Groups(text: string, atEnd: boolean): number[] | undefined {
  if (text === "") return [];
  const octets: number[] = [];
  const groups = text.split(":");
  for (const [i, group] of groups.entries()) {
    if (atEnd && i === groups.length - 1 && group.includes(".")) {
      const embedded = ipv4Octets(group);
      if (embedded === undefined) return undefined;
      octets.push(...embedded);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return undefined;
      const value = Number.parseInt(group, 16);
      octets.push(value >> 8, value & 0xff);
    }
  }
  return octets;
}

/**
 * Canonical text of an IP address: dotted decimal, or RFC 5952 (an IPv4-mapped address ends in dotted decimal,
 * §5).
 *
 * @param octets - 4 or 16.
 * @throws RangeError for any other number of octets.
 */
export function ipText(octets: Uint8Array): string {
  if (octets.length === 4) return octets.join(".");
  if (octets.length !== 16) throw new RangeError("an IP address has 4 or 16 octets");
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push((octets[i]! << 8) | octets[i + 1]!);
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) {
    return `::ffff:${octets.subarray(12).join(".")}`;
  }
  const { start, length } = longestZeroRun(groups);
  const texts = groups.map((group) => group.toString(16));
  if (length < 2) return texts.join(":");
  return `${texts.slice(0, start).join(":")}::${texts.slice(start + length).join(":")}`;
}

/** The first of the longest runs of zero groups: RFC 5952 §4.2.3. */
function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let longest = { start: 0, length: 0 };
  let length = 0;
  for (const [i, group] of groups.entries()) {
    length = group === 0 ? length + 1 : 0;
    if (length > longest.length) longest = { start: i - length + 1, length };
  }
  return longest;
}
