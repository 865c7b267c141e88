import { expect, test } from "vitest";
import { DerError } from "../../src/x509/der.ts";
import { decodePem, decodePemAll, encodePem } from "../../src/x509/pem.ts";

const octets = Uint8Array.from({ length: 100 }, (_, i) => i);

test("RFC 7468 §2: lines have 64 characters, the last one ends too", () => {
  const lines = encodePem("X509 CRL", octets).split("\n");
  expect(lines.map(({ length }) => length)).toEqual([24, 64, 64, 8, 22, 0]);
});

test.for([1, 2, 3, 47, 48, 49, 100])("%i octets come back", (size) => {
  const some = octets.subarray(0, size);
  expect(decodePem(encodePem("CERTIFICATE", some), "CERTIFICATE")).toEqual(some);
});

test("a chain comes back in order", () => {
  const chain = [octets, octets.subarray(50)];
  const text = chain.map((der) => encodePem("CERTIFICATE", der)).join("\r\n");
  expect(decodePemAll(text, "CERTIFICATE")).toEqual(chain);
  expect(() => decodePem(text, "CERTIFICATE")).toThrow("2 PEM blocks instead of one");
});

const good = encodePem("CERTIFICATE", octets);

test.for([
  { name: "nothing", text: " \n", says: "no PEM block" },
  { name: "another label", text: good.replaceAll("CERT", "X CERT"), says: "not labelled" },
  {
    name: "a private key among certificates",
    text: good + encodePem("PRIVATE KEY", octets),
    says: "not labelled",
  },
  { name: "text after", text: `${good}x`, says: "text after a PEM block" },
  { name: "text before", text: `x${good}`, says: "text before a PEM block" },
  { name: "text between", text: `${good}x${good}`, says: "text after a PEM block" },
  {
    name: "padding left out",
    text: encodePem("CERTIFICATE", octets).replace("==", ""),
    says: "base64",
  },
  {
    name: "stray bits before the padding",
    text: encodePem("CERTIFICATE", Uint8Array.of(0)).replace("AA==", "AB=="),
    says: "base64",
  },
  {
    name: "the alphabet of base64url",
    text: encodePem("CERTIFICATE", Uint8Array.of(255, 255, 255)).replace("////", "____"),
    says: "base64",
  },
  { name: "a begin line without its dashes", text: "-----BEGIN CERTIFICATE", says: "not labelled" },
  { name: "no end", text: "-----BEGIN CERTIFICATE-----\nAAAA\n", says: "does not end" },
])("refused: $name", ({ text, says }) => {
  expect(() => decodePemAll(text, "CERTIFICATE")).toThrow(DerError);
  expect(() => decodePemAll(text, "CERTIFICATE")).toThrow(says);
});
