/** GeneralName and the places that hold it: RFC 5280 §4.2.1.6, §4.2.1.13, §5.2.5. */

import { DerError, DerReader, Tag } from "../der.ts";
import type { DerElement } from "../der.ts";
import { contentIs } from "./octets.ts";
import { checkAnyDer, checkAscii, checkObjectIdentifier, readObjectIdentifier } from "./value.ts";

/** Context tags of GeneralName's alternatives. */
export const NameTag = {
  other: 0xa0,
  email: 0x81,
  dns: 0x82,
  x400: 0xa3,
  directory: 0xa4,
  edi: 0xa5,
  uri: 0x86,
  ip: 0x87,
  registered: 0x88,
} as const;

/** What a name is called in messages and in a profile's list of kinds. */
export function nameKind(name: DerElement): string {
  switch (name.tag) {
    case NameTag.email:
      return "email";
    case NameTag.dns:
      return "dns";
    case NameTag.uri:
      return "uri";
    case NameTag.ip:
      return "ip";
    case NameTag.directory:
      return "directory";
    case NameTag.registered:
      return "registered";
    case NameTag.other:
      return otherNameKind(name);
    default:
      return "other";
  }
}

const UPN = Uint8Array.from(Buffer.from("2b060104018237140203", "hex")); // 1.3.6.1.4.1.311.20.2.3
const SMTP_UTF8_MAILBOX = Uint8Array.from(Buffer.from("2b06010505070809", "hex")); // RFC 9598

function otherNameKind(name: DerElement): string {
  const oid = DerReader.inside(name).readAny();
  if (contentIs(oid, UPN)) return "upn";
  return contentIs(oid, SMTP_UTF8_MAILBOX) ? "smtp-utf8" : "other";
}

/**
 * Reads the GeneralNames inside a SEQUENCE or a context tag: forms and lengths, not what the names say. An rfc822Name
 * is left to CLI-05, and an empty list to who asked.
 */
export function readGeneralNames(reader: DerReader): DerElement[] {
  const names: DerElement[] = [];
  while (!reader.atEnd) names.push(readGeneralName(reader));
  return names;
}

export function readGeneralName(reader: DerReader): DerElement {
  const name = reader.readAny();
  switch (name.tag) {
    case NameTag.email:
      break;
    case NameTag.dns:
    case NameTag.uri:
      checkAscii(name);
      break;
    case NameTag.ip: {
      const length = name.end - name.contentStart;
      if (length !== 4 && length !== 16) {
        throw new DerError(`iPAddress has ${length} octets, not 4 or 16`, name.start);
      }
      break;
    }
    case NameTag.registered:
      checkObjectIdentifier(name);
      break;
    case NameTag.other:
      readOtherName(name);
      break;
    case NameTag.directory: {
      const inside = DerReader.inside(name);
      inside.read(Tag.sequence);
      inside.finish();
      checkAnyDer(name.bytes, name.contentStart, name.end);
      break;
    }
    case NameTag.x400:
    case NameTag.edi:
      checkAnyDer(name.bytes, name.start, name.end);
      break;
    default:
      throw new DerError("not an alternative of GeneralName", name.start);
  }
  return name;
}

/** The value of an otherName: what stands inside its [0]. */
export function readOtherName(name: DerElement): DerElement {
  const inside = DerReader.inside(name);
  readObjectIdentifier(inside);
  const wrapper = inside.read(0xa0);
  inside.finish();
  const value = DerReader.inside(wrapper);
  const held = value.readAny();
  value.finish();
  checkAnyDer(held.bytes, held.start, held.end);
  return held;
}

/** A DistributionPointName's fullName, or undefined when it is relative to the issuer. */
export function readDistributionPointName(element: DerElement): DerElement[] | undefined {
  const reader = DerReader.inside(element);
  const choice = reader.readAny();
  reader.finish();
  if (choice.tag === 0xa1) {
    checkAnyDer(choice.bytes, choice.start, choice.end);
    return undefined;
  }
  if (choice.tag !== 0xa0) throw new DerError("not a DistributionPointName", choice.start);
  const names = readGeneralNames(DerReader.inside(choice));
  if (names.length === 0) throw new DerError("empty GeneralNames", choice.start);
  return names;
}

/** Octets of an address text, or undefined: dotted decimal without leading zeros, or RFC 4291 §2.2. */
export function addressOctets(text: string): Uint8Array | undefined {
  if (!text.includes(":")) return dottedOctets(text);
  if (text.includes("%") || /[^0-9a-f:.]/i.test(text)) return undefined;
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = groups(halves[0]!);
  const tail = halves.length === 2 ? groups(halves[1]!) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 2 ? missing < 2 : missing !== 0) return undefined;
  return Uint8Array.from([...head, ...Array.from({ length: missing }, () => 0), ...tail]);
}

function groups(text: string): number[] | undefined {
  const octets: number[] = [];
  if (text === "") return octets;
  const parts = text.split(":");
  for (const [index, part] of parts.entries()) {
    if (part.includes(".") && index === parts.length - 1) {
      const dotted = dottedOctets(part);
      if (dotted === undefined) return undefined;
      octets.push(...dotted);
    } else {
      if (!/^[0-9a-f]{1,4}$/i.test(part)) return undefined;
      const value = Number.parseInt(part, 16);
      octets.push(value >> 8, value & 0xff);
    }
  }
  return octets;
}

function dottedOctets(text: string): Uint8Array | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  const octets = new Uint8Array(4);
  for (const [index, part] of parts.entries()) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined;
    octets[index] = Number(part);
  }
  return octets;
}

/** Text of 4 or 16 address octets: dotted decimal, or RFC 5952 in hexadecimal groups throughout. */
export function addressText(octets: Uint8Array): string {
  if (octets.length === 4) return octets.join(".");
  const values: number[] = [];
  for (let i = 0; i < 16; i += 2) values.push(octets[i]! * 256 + octets[i + 1]!);
  // RFC 5952 §4.2: the longest run of zero groups, the first of equals, never a run of one.
  let best = -1;
  let bestLength = 1;
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && values[start + length] === 0) length++;
    if (length > bestLength) [best, bestLength] = [start, length];
  }
  const text = (part: readonly number[]) => part.map((value) => value.toString(16)).join(":");
  if (best === -1) return text(values);
  return `${text(values.slice(0, best))}::${text(values.slice(best + bestLength))}`;
}
