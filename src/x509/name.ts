/** Distinguished names: RFC 5280 §4.1.2.4, text as RFC 4514. */

import { CountersignError } from "../errors.ts";
import {
  contentOf,
  DerError,
  DerReader,
  element,
  encodingOf,
  ia5Text,
  objectIdentifier,
  objectIdentifierText,
  sequence,
  setOfElements,
  Tag,
  type DerElement,
} from "./der.ts";
import { attributeTypeOids } from "./oid.ts";

/** One attribute: dotted type, the tag of its string type, and the decoded value. */
export interface Attribute {
  readonly oid: string;
  readonly tag: number;
  readonly value: string;
}

export type RelativeDistinguishedName = readonly Attribute[];

export type AttributeType = keyof typeof attributeTypeOids;

/** An attribute to encode. */
export interface NameAttribute {
  readonly type: AttributeType;
  readonly value: string;
}

/** `SEQUENCE {}`, the subject of a certificate that is named by its SAN alone. */
export const emptyName: Uint8Array = Uint8Array.of(0x30, 0x00);

/**
 * Reads a Name. String types are decoded; PrintableString is held to ASCII only, because requests with `*` or
 * `@` in one are common and nothing here copies their encoding. Values that are not strings are refused.
 *
 * @throws DerError
 */
export function parseName(der: Uint8Array): RelativeDistinguishedName[] {
  const rdns = DerReader.inside(DerReader.whole(der, Tag.sequence));
  const name: RelativeDistinguishedName[] = [];
  while (!rdns.atEnd) {
    const set = rdns.read(Tag.set);
    const attributes = setOfElements(set).map(parseAttribute);
    if (attributes.length === 0) throw new DerError("empty RDN", set.start);
    name.push(attributes);
  }
  return name;
}

function parseAttribute(attribute: DerElement): Attribute {
  if (attribute.tag !== Tag.sequence) throw new DerError("not an attribute", attribute.start);
  const reader = DerReader.inside(attribute);
  const oid = objectIdentifierText(contentOf(reader.read(Tag.objectIdentifier)));
  const value = reader.readAny();
  reader.finish();
  return { oid, tag: value.tag, value: directoryStringText(value) };
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const utf16 = new TextDecoder("utf-16be", { fatal: true, ignoreBOM: true });

/**
 * Text of a DirectoryString (RFC 5280 appendix A.1) or IA5String.
 *
 * @throws DerError if it is neither, is empty, or holds octets outside its character set.
 */
export function directoryStringText(value: DerElement): string {
  const content = contentOf(value);
  if (content.length === 0) throw new DerError("attribute value is empty", value.start);
  switch (value.tag) {
    case Tag.utf8String:
      return decode(utf8, value, content);
    case Tag.printableString:
    case Tag.ia5String:
      return ia5Text(value);
    case Tag.teletexString:
      return Buffer.from(content).toString("latin1");
    case Tag.bmpString:
      return decode(utf16, value, content);
    case Tag.universalString:
      return universalText(value, content);
    default:
      throw new DerError("attribute value is not a string", value.start);
  }
}

function decode(decoder: TextDecoder, value: DerElement, content: Uint8Array): string {
  try {
    return decoder.decode(content);
  } catch {
    throw new DerError("attribute value does not fit its string type", value.start);
  }
}

function universalText(value: DerElement, content: Uint8Array): string {
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  let text = "";
  for (let offset = 0; offset < content.length; offset += 4) {
    const point = offset + 4 <= content.length ? view.getUint32(offset) : 0x110000;
    if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) {
      throw new DerError("attribute value does not fit its string type", value.start);
    }
    text += String.fromCodePoint(point);
  }
  return text;
}

/** Upper bounds in characters: RFC 5280 appendix A.1, RFC 4519 §2.4 (DN-06). The rest get 128. */
const upperBounds: Partial<Record<AttributeType, number>> = {
  C: 2,
  postalCode: 40,
  O: 64,
  OU: 64,
  CN: 64,
  surname: 64,
  givenName: 64,
  DC: 63,
  serialNumber: 64,
  emailAddress: 255,
};

const attributeTypeDer = new Map<string, Uint8Array>(
  Object.entries(attributeTypeOids).map(([type, oid]) => [type, objectIdentifier(oid)]),
);

/** The officially assigned codes of ISO 3166-1 alpha-2. */
const countries = new Set(
  (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW " +
    "BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI " +
    "FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN " +
    "IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME " +
    "MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF " +
    "PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV " +
    "SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE " +
    "YT ZA ZM ZW"
  ).split(" "),
);

/**
 * Encodes a Name with one attribute per RDN, in the given order. C and serialNumber become PrintableString, DC
 * and emailAddress IA5String, all others UTF8String (DN-04, DN-05).
 *
 * @throws CountersignError `name-malformed` if a value is empty, too long (DN-06), starts or ends with a blank
 *   (DN-07), holds control or invisible characters or is not in NFC (DN-08), does not fit its string type
 *   (DN-04), or is no ISO country code (DN-03).
 */
export function encodeName(attributes: readonly NameAttribute[]): Uint8Array {
  return sequence(
    ...attributes.map(({ type, value }) =>
      element(
        Tag.set,
        sequence(attributeTypeDer.get(type)!, element(stringTagOf(type), valueOctets(type, value))),
      ),
    ),
  );
}

function stringTagOf(type: AttributeType): number {
  if (type === "C" || type === "serialNumber") return Tag.printableString;
  return type === "DC" || type === "emailAddress" ? Tag.ia5String : Tag.utf8String;
}

function valueOctets(type: AttributeType, value: string): Uint8Array {
  const refuse = (rule: string, reason: string): never => {
    throw new CountersignError("name-malformed", `${type} of the subject ${reason}`, {
      members: { name: value, reason, rule },
    });
  };
  const bound = upperBounds[type] ?? 128;
  const length = Array.from(value).length;
  if (length === 0) refuse("DN-07", "is empty");
  if (length > bound) refuse("DN-06", `has ${length} characters, more than ${bound}`);
  if (value !== value.trim()) refuse("DN-07", "starts or ends with a blank");
  if (/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/u.test(value)) {
    refuse("DN-08", "has control, invisible or unassigned characters");
  }
  if (value !== value.normalize("NFC")) refuse("DN-08", "is not in Unicode normalization form C");
  const tag = stringTagOf(type);
  if (tag === Tag.printableString && !isPrintableString(value)) {
    refuse("DN-04", "has characters outside PrintableString");
  }
  if (tag === Tag.ia5String && !/^[\x20-\x7e]+$/.test(value)) refuse("DN-04", "is not ASCII");
  if (type === "C" && !countries.has(value)) {
    refuse("DN-03", "is not an ISO 3166-1 code of two upper-case letters");
  }
  return Uint8Array.from(Buffer.from(value, "utf8"));
}

/** Whether text stays inside PrintableString: X.680 §41.4. */
export function isPrintableString(text: string): boolean {
  return /^[A-Za-z0-9 '()+,\-./:=?]*$/.test(text);
}

/** Descriptors of RFC 4514 §3, and those that OpenSSL and LDAP servers use for the other known types. */
const descriptors = new Map<string, string>(
  Object.entries(attributeTypeOids).map(([type, oid]) => [
    oid,
    type === "street" ? "STREET" : type,
  ]),
);

/**
 * Text of a Name for people: RFC 4514, so last RDN first. Control, invisible and bidirectional characters are
 * escaped as `\xx`, so that the text can be shown and logged.
 *
 * @throws DerError as `parseName`.
 */
export function nameText(der: Uint8Array): string {
  const rdns = DerReader.inside(DerReader.whole(der, Tag.sequence));
  const texts: string[] = [];
  for (const rdn of parseName(der)) {
    const elements = setOfElements(rdns.read(Tag.set));
    texts.push(rdn.map((attribute, i) => attributeText(attribute, elements[i]!)).join("+"));
  }
  return texts.reverse().join(",");
}

function attributeText({ oid, value }: Attribute, attribute: DerElement): string {
  const descriptor = descriptors.get(oid);
  if (descriptor !== undefined) return `${descriptor}=${escapeValue(value)}`;
  const reader = DerReader.inside(attribute);
  reader.readAny();
  return `${oid}=#${Buffer.from(encodingOf(reader.readAny())).toString("hex")}`;
}

/** RFC 4514 §2.4. Escaping more than it asks for is allowed. */
function escapeValue(value: string): string {
  const characters = Array.from(value);
  return characters
    .map((character, i) => {
      if (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(character)) {
        return Buffer.from(character, "utf8")
          .toString("hex")
          .replaceAll(/../g, String.raw`\$&`);
      }
      const special =
        '"+,;<>\\'.includes(character) ||
        (i === 0 && character === "#") ||
        (character === " " && (i === 0 || i === characters.length - 1));
      return special ? `\\${character}` : character;
    })
    .join("");
}
