import { expect, test } from "vitest";
import { CountersignError } from "../../src/errors.ts";
import {
  compareOctets,
  concat,
  DerError,
  element,
  objectIdentifier,
  sequence,
  Tag,
} from "../../src/x509/der.ts";
import {
  emptyName,
  encodeName,
  nameText,
  parseName,
  type NameAttribute,
} from "../../src/x509/name.ts";
import { attributeTypeOids } from "../../src/x509/oid.ts";

test("DN-01, DN-02: one attribute an RDN, in the given order", () => {
  const attributes = [
    { type: "DC", value: "example" },
    { type: "C", value: "DE" },
    { type: "ST", value: "Bayern" },
    { type: "L", value: "München" },
    { type: "postalCode", value: "80331" },
    { type: "street", value: "Platz 1" },
    { type: "O", value: "Example" },
    { type: "surname", value: "A" },
    { type: "givenName", value: "B" },
    { type: "OU", value: "Z" },
    { type: "CN", value: "C" },
  ] as const satisfies NameAttribute[];
  const name = parseName(encodeName(attributes));
  expect(name.map((rdn) => rdn.map(({ oid, value }) => ({ oid, value })))).toEqual(
    attributes.map(({ type, value }) => [{ oid: attributeTypeOids[type], value }]),
  );
});

test.for([
  { type: "C", value: "AT", tag: Tag.printableString },
  { type: "serialNumber", value: "X-1", tag: Tag.printableString },
  { type: "DC", value: "example", tag: Tag.ia5String },
  { type: "emailAddress", value: "a@example.com", tag: Tag.ia5String },
  { type: "O", value: "Example", tag: Tag.utf8String },
  { type: "CN", value: "*.example.com", tag: Tag.utf8String },
  { type: "UID", value: "a", tag: Tag.utf8String },
] as const)("DN-03, DN-04, DN-05: $type gets tag $tag", ({ type, value, tag }) => {
  expect(parseName(encodeName([{ type, value }]))[0]![0]!.tag).toBe(tag);
});

test.for([
  { rule: "DN-03", type: "C", value: "de" },
  { rule: "DN-03", type: "C", value: "ZZ" },
  { rule: "DN-03", type: "C", value: "D" },
  { rule: "DN-04", type: "C", value: "Ö" },
  { rule: "DN-06", type: "C", value: "DEU" },
  { rule: "DN-04", type: "DC", value: "bücher" },
  { rule: "DN-04", type: "serialNumber", value: "a_b" },
  { rule: "DN-04", type: "emailAddress", value: "ä@example.com" },
  { rule: "DN-06", type: "CN", value: "a".repeat(65) },
  { rule: "DN-06", type: "O", value: "ä".repeat(65) },
  { rule: "DN-06", type: "L", value: "a".repeat(129) },
  { rule: "DN-06", type: "postalCode", value: "1".repeat(41) },
  { rule: "DN-06", type: "DC", value: "a".repeat(64) },
  { rule: "DN-07", type: "CN", value: "" },
  { rule: "DN-07", type: "CN", value: " a" },
  { rule: "DN-07", type: "CN", value: "a\n" },
  { rule: "DN-08", type: "CN", value: "a\0b" },
  { rule: "DN-08", type: "CN", value: "a\u200bb" },
  { rule: "DN-08", type: "CN", value: "a\u202eb" },
  { rule: "DN-08", type: "CN", value: "a\ud800b" },
  { rule: "DN-08", type: "CN", value: "a\u0308" },
] as const)("$rule: $type refuses $value", ({ rule, type, value }) => {
  let error: unknown;
  try {
    encodeName([{ type, value }]);
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(CountersignError);
  expect(error).toMatchObject({ code: "name-malformed", members: { rule, name: value } });
});

test.for(["ä".repeat(64), "😀".repeat(64)])("DN-06: lengths are characters: %s", (value) => {
  expect(parseName(encodeName([{ type: "CN", value }]))[0]![0]!.value).toBe(value);
});

test("an empty name is the empty SEQUENCE", () => {
  expect(encodeName([])).toEqual(emptyName);
  expect(parseName(emptyName)).toEqual([]);
  expect(nameText(emptyName)).toBe("");
});

function attribute(oid: string, tag: number, ...octets: number[]): Uint8Array {
  return sequence(objectIdentifier(oid), element(tag, Uint8Array.from(octets)));
}

function nameOf(...rdns: readonly Uint8Array[][]): Uint8Array {
  return sequence(
    ...rdns.map((attributes) => element(Tag.set, ...attributes.toSorted(compareOctets))),
  );
}

const cn = attributeTypeOids.CN;

test.for([
  { name: "UTF8String", tag: Tag.utf8String, octets: [0xc3, 0xa4], value: "ä" },
  { name: "PrintableString", tag: Tag.printableString, octets: [0x61], value: "a" },
  { name: "PrintableString with a star", tag: Tag.printableString, octets: [0x2a], value: "*" },
  { name: "TeletexString", tag: Tag.teletexString, octets: [0xe4], value: "ä" },
  {
    name: "BMPString",
    tag: Tag.bmpString,
    octets: [0x00, 0xe4, 0xd8, 0x3d, 0xde, 0x00],
    value: "ä😀",
  },
  { name: "UniversalString", tag: Tag.universalString, octets: [0, 1, 0xf6, 0], value: "😀" },
  {
    name: "a byte order mark",
    tag: Tag.utf8String,
    octets: [0xef, 0xbb, 0xbf, 0x61],
    value: "\ufeffa",
  },
])("a $name is decoded", ({ tag, octets, value }) => {
  expect(parseName(nameOf([attribute(cn, tag, ...octets)]))).toEqual([[{ oid: cn, tag, value }]]);
});

const a = attribute(cn, Tag.utf8String, 0x61);
const b = attribute(cn, Tag.utf8String, 0x62);

test.for([
  { name: "an empty RDN", der: nameOf([]) },
  { name: "attributes of an RDN out of order", der: sequence(element(Tag.set, b, a)) },
  { name: "an attribute without a value", der: nameOf([sequence(objectIdentifier(cn))]) },
  {
    name: "an attribute with two values",
    der: nameOf([concat(sequence(objectIdentifier(cn), a, b))]),
  },
  { name: "an empty value", der: nameOf([attribute(cn, Tag.utf8String)]) },
  { name: "broken UTF-8", der: nameOf([attribute(cn, Tag.utf8String, 0xc3)]) },
  { name: "overlong UTF-8", der: nameOf([attribute(cn, Tag.utf8String, 0xc0, 0x80)]) },
  { name: "a UTF-8 surrogate", der: nameOf([attribute(cn, Tag.utf8String, 0xed, 0xa0, 0x80)]) },
  {
    name: "a PrintableString of eight bits",
    der: nameOf([attribute(cn, Tag.printableString, 0xe4)]),
  },
  { name: "half a BMPString character", der: nameOf([attribute(cn, Tag.bmpString, 0x00)]) },
  {
    name: "a UniversalString beyond Unicode",
    der: nameOf([attribute(cn, Tag.universalString, 0, 0x11, 0, 0)]),
  },
  {
    name: "half a UniversalString character",
    der: nameOf([attribute(cn, Tag.universalString, 0, 0, 0)]),
  },
  { name: "a number", der: nameOf([attribute(cn, Tag.integer, 1)]) },
  { name: "bytes after the name", der: concat(nameOf([a]), Uint8Array.of(0)) },
])("refused: $name", ({ der }) => {
  expect(() => parseName(der)).toThrow(DerError);
});

test.for([
  {
    name: "last RDN first",
    der: encodeName([
      { type: "C", value: "DE" },
      { type: "O", value: "E" },
      { type: "CN", value: "x" },
    ]),
    text: "CN=x,O=E,C=DE",
  },
  {
    name: "an RDN of two",
    der: nameOf([a, attribute(attributeTypeOids.O, Tag.utf8String, 0x62)]),
    text: "CN=a+O=b",
  },
  {
    name: "special characters",
    der: encodeName([{ type: "CN", value: 'a"+,;<>\\=b' }]),
    text: String.raw`CN=a\"\+\,\;\<\>\\=b`,
  },
  {
    name: "# and blanks at the edge",
    der: nameOf(
      [attribute(cn, Tag.utf8String, 0x23, 0x23)],
      [attribute(cn, Tag.utf8String, 0x20, 0x20, 0x20)],
    ),
    text: String.raw`CN=\  \ ,CN=\##`,
  },
  {
    name: "a backslash before a last blank",
    der: nameOf([attribute(cn, Tag.utf8String, 0x5c, 0x20)]),
    text: String.raw`CN=\\\ `,
  },
  { name: "street", der: encodeName([{ type: "street", value: "s" }]), text: "STREET=s" },
  {
    name: "NUL, line ends and bidirectional overrides",
    der: nameOf([attribute(cn, Tag.utf8String, 0, 0x0a, 0xe2, 0x80, 0xae)]),
    text: String.raw`CN=\00\0a\e2\80\ae`,
  },
  {
    name: "an unknown type",
    der: nameOf([attribute("1.2.3.4", Tag.utf8String, 0x61)]),
    text: "1.2.3.4=#0c0161",
  },
])("RFC 4514: $name", ({ der, text }) => {
  expect(nameText(der)).toBe(text);
});
