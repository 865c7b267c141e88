import { expect, test } from "vitest";
import {
  compareSerialNumbers,
  isSerialNumber,
  serialNumberFrom,
  serialNumberHex,
  serialNumberOctets,
} from "../../src/x509/serial-number.ts";

test.for([
  { name: "CRT-02: a zero first octet is not dropped", first: 0x00, want: 0x40 },
  { name: "CRT-02: the sign bit is cleared", first: 0x80, want: 0x40 },
  { name: "CRT-03: the other six bits of the first octet stay", first: 0x3f, want: 0x7f },
])("$name", ({ first, want }) => {
  const random = new Uint8Array(20).fill(first, 0, 1);
  expect(serialNumberFrom(random)[0]).toBe(want);
});

test("CRT-03: the other 19 octets are the random ones, and the source is left alone", () => {
  const random = Uint8Array.from({ length: 20 }, (_, i) => 255 - i);
  expect(serialNumberFrom(random).subarray(1)).toEqual(random.subarray(1));
  expect(random[0]).toBe(255);
});

test.for([0, 8, 19, 21])("serialNumberFrom refuses %i octets", (size) => {
  expect(() => serialNumberFrom(new Uint8Array(size))).toThrow(RangeError);
});

test.for([
  { hex: "01", serial: true },
  { hex: "7f", serial: true },
  { hex: "0080", serial: true },
  { hex: "00", serial: false },
  { hex: "007f", serial: false },
  { hex: "80", serial: false },
  { hex: "", serial: false },
  { hex: `7f${"ff".repeat(19)}`, serial: true },
  { hex: `00ff${"ff".repeat(18)}`, serial: true },
  { hex: `00ff${"ff".repeat(19)}`, serial: false },
  { hex: "ABCD", serial: false },
  { hex: "1", serial: false },
  { hex: "01 ", serial: false },
])("CRT-02, CRT-04: $hex as text is a serial number: $serial", ({ hex, serial }) => {
  const octets = serialNumberOctets(hex);
  expect(octets !== undefined).toBe(serial);
  if (octets !== undefined) expect(serialNumberHex(octets)).toBe(hex);
  expect(isSerialNumber(Uint8Array.from(Buffer.from(hex, "hex")))).toBe(serial || hex === "01 ");
});

test("CRL-43: serial numbers compare as numbers", () => {
  const ascending = ["01", "7f", "0080", "00ff", "0100", "7fff", "008000"];
  const octets = ascending.map((hex) => serialNumberOctets(hex)!);
  expect(octets.toReversed().sort(compareSerialNumbers).map(serialNumberHex)).toEqual(ascending);
});
