import { expect, test } from "vitest";
import {
  bitStringOctets,
  bitStringValue,
  booleanValue,
  DerError,
  DerReader,
  element,
  generalizedTime,
  generalizedTimeValue,
  integer,
  integerOctets,
  integerValue,
  objectIdentifier,
  objectIdentifierText,
  positiveIntegerOctets,
  readTime,
  setOfElements,
  Tag,
  time,
  type DerElement,
} from "../../src/x509/der.ts";

function octets(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, "hex"));
}

function read(hex: string): DerElement {
  return new DerReader(octets(hex)).readAny();
}

test.for([
  ["0.0", "00"],
  ["0.39", "27"],
  ["1.0", "28"],
  ["1.39", "4f"],
  ["2.0", "50"],
  ["2.5.29.17", "551d11"],
  ["2.999.3", "883703"], // X.690 §8.19.5
  ["1.2.840.113549.1.1.11", "2a864886f70d01010b"],
  ["1.3.6.1.4.1.4294967295", "2b060104018fffffff7f"],
  ["2.25.329800735698586629295641978511506172918", "6983f09da7ebcfdee0c7a1a7b2c0948cc8f9d776"],
] as const)("X.690 §8.19: %s is %s, both ways", ([text, hex]) => {
  expect(objectIdentifierText(octets(hex))).toBe(text);
  expect(objectIdentifier(text)).toEqual(element(Tag.objectIdentifier, octets(hex)));
});

test.for([
  { name: "no octets", hex: "" },
  { name: "an arc that is cut off", hex: "2a83" },
  { name: "a padded first arc", hex: "802a" },
  { name: "a padded arc", hex: "2a8001" },
  { name: "more than 128 octets", hex: `2a${"01".repeat(128)}` },
])("X.690 §8.19: an OID with $name is refused", ({ hex }) => {
  expect(() => objectIdentifierText(octets(hex))).toThrow(DerError);
});

test.for([
  { name: "cut off in the header", hex: "30" },
  { name: "cut off in the length", hex: "3082ff" },
  { name: "cut off in the content", hex: "3001" },
  { name: "an indefinite length", hex: "30800000" },
  { name: "a long form for a short length", hex: "30810100" },
  { name: "a length with a leading zero", hex: `308200ff${"00".repeat(255)}` },
  { name: "a length of five octets", hex: "30850000000001" },
  { name: "the reserved length FF", hex: "30ff" },
  { name: "a tag number above 30", hex: "1f8101" },
])("X.690 §10.1: an element is refused: $name", ({ hex }) => {
  expect(() => read(hex)).toThrow(DerError);
});

test.for([
  ["0101ff", true],
  ["010100", false],
] as const)("X.690 §11.1: BOOLEAN %s is %s", ([hex, value]) => {
  expect(booleanValue(read(hex))).toBe(value);
});

test.for(["010101", "010180", "0100", "0102ffff"])("X.690 §11.1: BOOLEAN %s is refused", (hex) => {
  expect(() => booleanValue(read(hex))).toThrow(DerError);
});

test.for(["0200", "02020001", "0202007f", "0202ff80", "0202ffff"])(
  "CRT-02, X.690 §8.3.2: INTEGER %s is refused",
  (hex) => {
    expect(() => integerOctets(read(hex))).toThrow(DerError);
  },
);

test.for(["020100", "02017f", "02020080", "0201ff", "0202ff7f"])(
  "X.690 §8.3.2: INTEGER %s is minimal",
  (hex) => {
    expect(integerOctets(read(hex))).toEqual(octets(hex.slice(4)));
  },
);

test("a positive INTEGER loses its sign octet; zero and negative ones are refused", () => {
  expect(positiveIntegerOctets(read("02020080"))).toEqual(octets("80"));
  expect(() => positiveIntegerOctets(read("020100"))).toThrow("zero");
  expect(() => positiveIntegerOctets(read("020180"))).toThrow("negative");
});

test("an INTEGER for counting has up to six octets", () => {
  expect(integerValue(read("02067fffffffffff"))).toBe(2 ** 47 - 1);
  expect(() => integerValue(read("020700ffffffffffff"))).toThrow("too large");
  expect(() => integerValue(read("0201ff"))).toThrow("negative");
});

test.for([0n, 127n, 128n, 255n, 256n, 2n ** 159n - 1n])("INTEGER %s is minimal", (value) => {
  const content = integerOctets(DerReader.whole(integer(value), Tag.integer));
  expect(BigInt(`0x${Buffer.from(content).toString("hex")}`)).toBe(value);
  expect(content[0]! < 0x80).toBe(true);
});

test.for([
  { name: "no octets", hex: "0300" },
  { name: "eight unused bits", hex: "030208ff" },
  { name: "unused bits of nothing", hex: "030101" },
  { name: "unused bits that are set", hex: "030201ff" },
])("X.690 §11.2.1: BIT STRING with $name is refused", ({ hex }) => {
  expect(() => bitStringValue(read(hex))).toThrow(DerError);
});

test("X.690 §8.6: a BIT STRING", () => {
  expect(bitStringValue(read("03020780"))).toEqual({ octets: octets("80"), unusedBits: 7 });
  expect(bitStringOctets(read("030100"))).toEqual(octets(""));
  expect(() => bitStringOctets(read("03020780"))).toThrow("whole octets");
});

function text(tag: number, value: string): DerReader {
  return new DerReader(element(tag, Uint8Array.from(Buffer.from(value, "latin1"))));
}

test.for([
  ["1950-01-01T00:00:00.000Z", Tag.utcTime, "500101000000Z"],
  ["2026-11-21T20:05:01.999Z", Tag.utcTime, "261121200501Z"],
  ["2049-12-31T23:59:59.000Z", Tag.utcTime, "491231235959Z"],
  ["2050-01-01T00:00:00.000Z", Tag.generalizedTime, "20500101000000Z"],
  ["9999-12-31T23:59:59.000Z", Tag.generalizedTime, "99991231235959Z"],
] as const)("CRL-13, CRL-14, CRT-09: %s", ([iso, tag, digits]) => {
  const encoded = time(new Date(iso));
  expect(encoded).toEqual(element(tag, Uint8Array.from(Buffer.from(digits))));
  expect(readTime(new DerReader(encoded)).getTime()).toBe(
    Math.floor(Date.parse(iso) / 1000) * 1000,
  );
});

test.for([
  { name: "no seconds", tag: Tag.utcTime, value: "2611212005Z" },
  { name: "no Z", tag: Tag.utcTime, value: "261121200501" },
  { name: "an offset", tag: Tag.utcTime, value: "261121200501+0000" },
  { name: "a fraction", tag: Tag.generalizedTime, value: "20501121200501.5Z" },
  { name: "GeneralizedTime before 2050", tag: Tag.generalizedTime, value: "20261121200501Z" },
  { name: "a month 13", tag: Tag.utcTime, value: "261321200501Z" },
  { name: "a month 0", tag: Tag.utcTime, value: "260021200501Z" },
  { name: "a day 0", tag: Tag.utcTime, value: "261100200501Z" },
  { name: "30 February", tag: Tag.utcTime, value: "260230200501Z" },
  { name: "29 February of a common year", tag: Tag.utcTime, value: "260229200501Z" },
  { name: "hour 24", tag: Tag.utcTime, value: "261121240000Z" },
  { name: "minute 60", tag: Tag.utcTime, value: "261121206000Z" },
  { name: "a leap second", tag: Tag.utcTime, value: "161231235960Z" },
  { name: "a sign among the digits", tag: Tag.utcTime, value: "2611212005-1Z" },
  { name: "a blank among the digits", tag: Tag.utcTime, value: "26112120050 Z" },
  { name: "nothing", tag: Tag.utcTime, value: "" },
  { name: "another type", tag: Tag.utf8String, value: "261121200501Z" },
])("CRL-13, CRL-14, CRT-09: a time is refused: $name", ({ tag, value }) => {
  expect(() => readTime(text(tag, value))).toThrow(DerError);
});

test("CRL-36: GeneralizedTime stands for every year that has four digits", () => {
  const value = (year: string): Date =>
    generalizedTimeValue(text(Tag.generalizedTime, `${year}0229120000Z`).readAny());
  expect(value("2024").toISOString()).toBe("2024-02-29T12:00:00.000Z");
  expect(generalizedTime(value("2024"))).toEqual(
    element(Tag.generalizedTime, Uint8Array.from(Buffer.from("20240229120000Z"))),
  );
  expect(() => value("0004")).toThrow(DerError);
});

test.for(["1949-12-31T23:59:59Z", "+010000-01-01T00:00:00Z", "-000001-01-01T00:00:00Z", "no date"])(
  "CRT-09: %s cannot be encoded",
  (iso) => {
    expect(() => time(new Date(iso))).toThrow(RangeError);
  },
);

test("X.690 §11.6: a SET OF is in ascending order", () => {
  expect(setOfElements(read("3106020101020102"))).toHaveLength(2);
  expect(() => setOfElements(read("3106020102020101"))).toThrow("ascending order");
  expect(setOfElements(read("3100"))).toEqual([]);
});
