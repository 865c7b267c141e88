import { expect, test } from "vitest";
import { concat, contextTag, DerError, element, sequence } from "../../src/x509/der.ts";
import {
  encodeGeneralNames,
  ipOctets,
  ipText,
  parseGeneralNames,
  type SubjectName,
} from "../../src/x509/general-name.ts";

test("CRT-19: names come back as they went in, in order", () => {
  const names: SubjectName[] = [
    { kind: "dns", value: "B.example.com" },
    { kind: "dns", value: "*.a.example.com" },
    { kind: "ip", value: "192.0.2.255" },
    { kind: "ip", value: "2001:db8::1" },
    { kind: "email", value: "a@example.com" },
    { kind: "uri", value: "spiffe://example.com/a?b" },
  ];
  const parsed = parseGeneralNames(encodeGeneralNames(names));
  expect(parsed.map((name) => ({ kind: name.kind, value: "value" in name && name.value }))).toEqual(
    names,
  );
});

test.for<{ name: string; names: SubjectName[] }>([
  { name: "no name", names: [] },
  { name: "an empty name", names: [{ kind: "dns", value: "" }] },
  { name: "NUL", names: [{ kind: "dns", value: "a\0b" }] },
  { name: "a blank", names: [{ kind: "uri", value: "http://a b" }] },
  { name: "not ASCII", names: [{ kind: "dns", value: "bücher.example" }] },
  { name: "a character whose low octet is ASCII", names: [{ kind: "dns", value: "\u0161" }] },
  { name: "no address", names: [{ kind: "ip", value: "a.example.com" }] },
])("encodeGeneralNames refuses $name", ({ names }) => {
  expect(() => encodeGeneralNames(names)).toThrow(RangeError);
});

test.for([
  { name: "no names", der: sequence() },
  { name: "SRV-05: an address of 3 octets", der: sequence(element(0x87, new Uint8Array(3))) },
  { name: "SRV-05: an address with a mask", der: sequence(element(0x87, new Uint8Array(8))) },
  { name: "CLI-05: eight bits", der: sequence(element(0x81, Uint8Array.of(0xe4))) },
  { name: "a constructed dNSName", der: sequence(element(contextTag(2, true))) },
  { name: "an otherName without a value", der: sequence(element(0xa0, Uint8Array.of(6, 1, 42))) },
  {
    name: "an otherName with two",
    der: sequence(element(0xa0, Uint8Array.of(6, 1, 42, 0xa0, 4, 5, 0, 5, 0))),
  },
  {
    name: "a directoryName that is no name",
    der: sequence(element(0xa4, Uint8Array.of(0x30, 2, 0x31, 0))),
  },
  {
    name: "a registeredID that is cut off",
    der: sequence(element(0x88, Uint8Array.of(0x2a, 0x83))),
  },
  { name: "an unknown tag", der: sequence(element(0x89, new Uint8Array(1))) },
  {
    name: "bytes behind",
    der: concat(sequence(element(0x82, Uint8Array.of(0x61))), Uint8Array.of(0)),
  },
])("parseGeneralNames refuses $name", ({ der }) => {
  expect(() => parseGeneralNames(der)).toThrow(DerError);
});

// RFC 5952 §4 and §5, RFC 4291 §2.2
test.for([
  { text: "2001:0db8::0001", canonical: "2001:db8::1" },
  { text: "2001:db8:0:0:0:0:2:1", canonical: "2001:db8::2:1" },
  { text: "2001:db8:0:1:1:1:1:1", canonical: "2001:db8:0:1:1:1:1:1" },
  { text: "2001:0:0:1:0:0:0:1", canonical: "2001:0:0:1::1" },
  { text: "2001:db8:0:0:1:0:0:1", canonical: "2001:db8::1:0:0:1" },
  { text: "2001:DB8::A", canonical: "2001:db8::a" },
  { text: "::", canonical: "::" },
  { text: "::1", canonical: "::1" },
  { text: "1::", canonical: "1::" },
  { text: "2001:db8::1:1:1:1:1", canonical: "2001:db8:0:1:1:1:1:1" },
  { text: "::ffff:192.0.2.1", canonical: "::ffff:192.0.2.1" },
  { text: "::ffff:c000:201", canonical: "::ffff:192.0.2.1" },
  { text: "64:ff9b::192.0.2.33", canonical: "64:ff9b::c000:221" },
  { text: "0.0.0.0", canonical: "0.0.0.0" },
  { text: "255.255.255.255", canonical: "255.255.255.255" },
])("RFC 5952: $text is $canonical", ({ text, canonical }) => {
  expect(ipText(ipOctets(text)!)).toBe(canonical);
});

test.for([
  ...[
    "",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "01.2.3.4",
    "1.2.3.4 ",
    "1.2.3.",
    "0x1.2.3.4",
    "1e1.2.3.4",
    "٣.2.3.4",
  ],
  ...[
    ":",
    ":::",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "::1::",
    "1:2:3:4:5:6:7::8",
    "12345::",
    "g::",
  ],
  ...[
    "::1%eth0",
    "[::1]",
    "1.2.3.4::",
    "::1.2.3.4:1",
    "::1.2.3",
    "1:2:3:4:5:6:7:1.2.3.4",
    ":1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7:8:",
  ],
])("SRV-05: %s is no address", (text) => {
  expect(ipOctets(text)).toBeUndefined();
});

test.for([0, 3, 5, 15, 17])("ipText refuses %i octets", (size) => {
  expect(() => ipText(new Uint8Array(size))).toThrow(RangeError);
});
