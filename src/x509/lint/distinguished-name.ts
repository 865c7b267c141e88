/** Distinguished names: RFC 5280 §4.1.2.4 and appendix A; rules DN-03, DN-04, DN-06, DN-08. */

import { DerError, DerReader, Tag } from "../der.ts";
import type { DerElement } from "../der.ts";
import { report } from "./finding.ts";
import type { Finding } from "./finding.ts";
import { contentIs, quoted } from "./octets.ts";
import { checkAnyDer, checkAscii, isAscii, readObjectIdentifier } from "./value.ts";

export interface NameWalk {
  readonly empty: boolean;
  /** commonName values, decoded. */
  readonly commonNames: readonly string[];
  /** emailAddress values (PKCS #9), decoded: name constraints on rfc822Name reach them. */
  readonly emailAddresses: readonly string[];
}

const none: readonly string[] = [];

/** ISO 3166-1 alpha-2, officially assigned, November 2026. */
const countries = new Set(
  (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ " +
    "CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR " +
    "GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO " +
    "JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR " +
    "MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO " +
    "RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV " +
    "TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
  ).split(" "),
);

const DOMAIN_COMPONENT = Uint8Array.from(Buffer.from("0992268993f22c640119", "hex"));
const EMAIL_ADDRESS = Uint8Array.from(Buffer.from("2a864886f70d010901", "hex"));

const Arc = { commonName: 3, serialNumber: 5, country: 6 } as const;

/** Upper bounds of RFC 5280 appendix A in characters, by the last arc of 2.5.4. */
const upperBounds: Readonly<Record<number, readonly [string, number]>> = {
  3: ["CN", 64],
  4: ["surname", 64],
  5: ["serialNumber", 64],
  6: ["C", 2],
  7: ["L", 128],
  8: ["ST", 128],
  9: ["street", 128],
  10: ["O", 64],
  11: ["OU", 64],
  17: ["postalCode", 40],
  42: ["givenName", 64],
};

/**
 * Walks a Name.
 *
 * @throws DerError if it is not DER, or a value is not of the characters its type has.
 */
export function walkName(name: DerElement, findings: Finding[]): NameWalk {
  if (name.contentStart === name.end) {
    return { empty: true, commonNames: none, emailAddresses: none };
  }
  const commonNames: string[] = [];
  const emailAddresses: string[] = [];
  const names = DerReader.inside(name);
  while (!names.atEnd) {
    const set = names.read(Tag.set);
    const attributes = DerReader.inside(set);
    if (attributes.atEnd) throw new DerError("empty RelativeDistinguishedName", set.start);
    let previous: DerElement | undefined;
    while (!attributes.atEnd) {
      const attribute = attributes.read(Tag.sequence);
      if (previous !== undefined) checkSetOrder(previous, attribute);
      previous = attribute;
      const reader = DerReader.inside(attribute);
      const oid = readObjectIdentifier(reader);
      const value = reader.readAny();
      reader.finish();
      const text = attributeText(value);
      if (text === undefined) continue; // not a string: RFC 5280 allows ANY
      checkAttribute(oid, value, text, findings, commonNames, emailAddresses);
    }
  }
  return { empty: false, commonNames, emailAddresses };
}

function checkAttribute(
  oid: DerElement,
  value: DerElement,
  text: string,
  findings: Finding[],
  commonNames: string[],
  emailAddresses: string[],
): void {
  const { bytes, contentStart, end } = oid;
  if (end - contentStart === 3 && bytes[contentStart] === 0x55 && bytes[contentStart + 1] === 4) {
    const arc = bytes[contentStart + 2]!;
    const bound = upperBounds[arc];
    if (bound !== undefined) checkLength(bound[0], text, bound[1], findings);
    if (arc === Arc.commonName) commonNames.push(text);
    else if (arc === Arc.country) checkCountry(value, text, findings);
    else if (arc === Arc.serialNumber && value.tag !== Tag.printableString) {
      report(findings, "DN-04", "serialNumber is not a PrintableString");
    }
  } else if (contentIs(oid, DOMAIN_COMPONENT)) {
    checkLength("DC", text, 63, findings);
    if (value.tag !== Tag.ia5String) report(findings, "DN-04", "DC is not an IA5String");
  } else if (contentIs(oid, EMAIL_ADDRESS)) {
    emailAddresses.push(text);
    if (value.tag !== Tag.ia5String) report(findings, "DN-04", "emailAddress is not an IA5String");
  }
  checkCharacters(value, text, findings);
}

function checkCountry(value: DerElement, text: string, findings: Finding[]): void {
  if (text.length > 2) return; // DN-06 has said so
  if (value.tag !== Tag.printableString) {
    report(findings, "DN-03", "C is not a PrintableString");
  } else if (!countries.has(text)) {
    report(findings, "DN-03", `C ${quoted(text)} is not an assigned ISO 3166 code in capitals`);
  }
}

function checkLength(type: string, text: string, bound: number, findings: Finding[]): void {
  if (text.length <= bound) return; // UTF-16 units are never fewer than characters
  let length = 0;
  for (const _character of text) length += 1;
  if (length > bound) {
    report(findings, "DN-06", `${type} has ${length} characters; at most ${bound} are allowed`);
  }
}

/** Zero-width characters, bidirectional controls, and what Unicode calls format characters. */
const invisible =
  /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u{115f}\u{1160}\u{3164}\u{ffa0}\p{Cs}\p{Noncharacter_Code_Point}]/u;

function checkCharacters(value: DerElement, text: string, findings: Finding[]): void {
  const octetPerCharacter = value.tag !== Tag.bmpString && value.tag !== Tag.universalString;
  if (octetPerCharacter && isAscii(value)) {
    for (let i = value.contentStart; i < value.end; i++) {
      const octet = value.bytes[i]!;
      if (octet >= 0x20 && octet !== 0x7f) continue;
      report(findings, "DN-08", `${quoted(text)} has a control character`);
      return;
    }
  } else if (invisible.test(text)) {
    report(findings, "DN-08", `${quoted(text)} has an invisible or bidirectional character`);
  } else if (text.normalize("NFC") !== text) {
    report(findings, "DN-08", `${quoted(text)} is not in normalization form C`);
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text of a DirectoryString or IA5String; undefined for other types. */
export function attributeText(value: DerElement): string | undefined {
  const { bytes, contentStart, end } = value;
  switch (value.tag) {
    case Tag.utf8String:
      if (isAscii(value)) return latin1(value);
      try {
        return utf8.decode(bytes.subarray(contentStart, end));
      } catch {
        throw new DerError("UTF8String is not UTF-8", value.start);
      }
    case Tag.printableString:
      checkPrintable(value);
      return latin1(value);
    case Tag.ia5String:
      checkAscii(value);
      return latin1(value);
    case Tag.teletexString:
      return latin1(value); // as everyone reads it
    case Tag.bmpString:
      return wide(value, 2);
    case Tag.universalString:
      return wide(value, 4);
    default:
      checkAnyDer(bytes, value.start, end);
      return undefined;
  }
}

function latin1(value: DerElement): string {
  const { bytes, contentStart, end } = value;
  return Buffer.from(bytes.buffer, bytes.byteOffset + contentStart, end - contentStart).toString(
    "latin1",
  );
}

function wide(value: DerElement, width: 2 | 4): string {
  const { bytes, contentStart, end } = value;
  if ((end - contentStart) % width !== 0) {
    throw new DerError("string is cut off in a character", value.start);
  }
  let text = "";
  for (let i = contentStart; i < end; i += width) {
    let point = 0;
    for (let j = 0; j < width; j++) point = point * 256 + bytes[i + j]!;
    if (point > 0x10ffff) throw new DerError("character beyond Unicode", i);
    text += String.fromCodePoint(point);
  }
  return text;
}

/** X.680 §41.4: letters, digits, space and '()+,-./:=? */
const printable: Uint8Array = (() => {
  const table = new Uint8Array(128);
  const characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 '()+,-./:=?";
  for (const character of characters) table[character.charCodeAt(0)] = 1;
  return table;
})();

function checkPrintable(value: DerElement): void {
  for (let i = value.contentStart; i < value.end; i++) {
    if (printable[value.bytes[i]!] !== 1) {
      throw new DerError("PrintableString has a character that it cannot have", i);
    }
  }
}

/** X.690 §11.6: the elements of a SET OF ascend. */
function checkSetOrder(a: DerElement, b: DerElement): void {
  const left = a.bytes.subarray(a.start, a.end);
  const right = b.bytes.subarray(b.start, b.end);
  if (Buffer.compare(left, right) > 0) throw new DerError("SET OF is not in order", b.start);
}

/**
 * The RDNs of a Name in a form in which names that a relying party takes for equal are equal: case, runs of blanks and
 * string type do not count (RFC 5280 §7.1, simplified).
 *
 * @throws DerError if it is not DER.
 */
export function comparableName(name: DerElement): string[] {
  const comparable: string[] = [];
  const names = DerReader.inside(name);
  while (!names.atEnd) {
    const attributes = DerReader.inside(names.read(Tag.set));
    const parts: string[] = [];
    while (!attributes.atEnd) {
      const attribute = DerReader.inside(attributes.read(Tag.sequence));
      const oid = readObjectIdentifier(attribute);
      const value = attribute.readAny();
      const type = Buffer.from(oid.bytes.subarray(oid.contentStart, oid.end)).toString("hex");
      const text = attributeText(value);
      const compared =
        text === undefined
          ? Buffer.from(value.bytes.subarray(value.start, value.end)).toString("hex")
          : text.normalize("NFKC").toLowerCase().trim().replaceAll(/\s+/g, " ");
      parts.push(`${type}=${compared}`);
    }
    comparable.push(parts.toSorted().join("\n"));
  }
  return comparable;
}
