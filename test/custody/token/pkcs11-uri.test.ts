import { expect, test } from "vitest";
import { formatPkcs11Uri, parsePkcs11Uri } from "../../../src/custody/token/pkcs11-uri.ts";

test("RFC 7512: every attribute is read, percent-decoded", () => {
  const uri =
    "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;" +
    "serial=4a9b;slot-id=327;object=my-certificate;id=%69%95%3e%5c%f4%bd%ec%91;type=private;" +
    "library-manufacturer=M;library-description=L%c3%a4";
  expect(parsePkcs11Uri(uri)).toEqual({
    token: "The Software PKCS#11 Softtoken",
    manufacturer: "Snake Oil, Inc.",
    model: "1.0",
    serial: "4a9b",
    slotId: 327,
    object: "my-certificate",
    id: Uint8Array.of(0x69, 0x95, 0x3e, 0x5c, 0xf4, 0xbd, 0xec, 0x91),
    type: "private",
    libraryManufacturer: "M",
    libraryDescription: "Lä",
  });
});

test.for([
  { name: "the empty URI matches everything", uri: "pkcs11:", want: {} },
  { name: "the scheme's case does not count", uri: "PKCS11:token=a", want: { token: "a" } },
  {
    name: "an id of plain octets is taken",
    uri: "pkcs11:id=ab%00",
    want: { id: Uint8Array.of(97, 98, 0) },
  },
  { name: "a value may hold =", uri: "pkcs11:token=a=b", want: { token: "a=b" } },
])("RFC 7512: $name", ({ uri, want }) => {
  expect(parsePkcs11Uri(uri)).toEqual(want);
});

test.for([
  { name: "another scheme", uri: "pkcs12:token=a", says: "begin with pkcs11:" },
  { name: "an unknown attribute", uri: "pkcs11:tokn=a", says: "may hold only" },
  { name: "an attribute twice", uri: "pkcs11:token=a;token=a", says: "twice" },
  { name: "an attribute without a value", uri: "pkcs11:token", says: "no value" },
  { name: "an empty value", uri: "pkcs11:token=", says: "empty" },
  { name: "an empty attribute", uri: "pkcs11:token=a;", says: "no value" },
  { name: "a bare percent sign", uri: "pkcs11:token=50%", says: "percent sign" },
  { name: "a half percent encoding", uri: "pkcs11:id=%0", says: "percent sign" },
  { name: "percent and no hex digits", uri: "pkcs11:id=%zz", says: "percent sign" },
  { name: "a bare blank", uri: "pkcs11:token=a b", says: "must be percent-encoded" },
  { name: "a bare slash", uri: "pkcs11:token=a/b", says: "must be percent-encoded" },
  { name: "a bare number sign", uri: "pkcs11:token=a#b", says: "must be percent-encoded" },
  { name: "bare UTF-8", uri: "pkcs11:token=ä", says: "must be percent-encoded" },
  { name: "a token that is not UTF-8", uri: "pkcs11:token=%ff", says: "not UTF-8" },
  { name: "a NUL", uri: "pkcs11:token=a%00b", says: "NUL" },
  { name: "another type", uri: "pkcs11:type=cert", says: "neither public nor private" },
  { name: "a slot that is no number", uri: "pkcs11:slot-id=0x1", says: "decimal" },
  { name: "a slot beyond all numbers", uri: "pkcs11:slot-id=9999999999999999", says: "decimal" },
  { name: "pin-value", uri: "pkcs11:token=a?pin-value=hunter2", says: "PIN never stands in a URI" },
  { name: "pin-source", uri: "pkcs11:token=a?x=y&pin-source=/hunter2", says: "PIN never stands" },
  { name: "module-path", uri: "pkcs11:?module-path=/hunter2.so", says: "module is a setting" },
  { name: "any other query", uri: "pkcs11:token=a?x-a=b", says: "query attributes" },
  { name: "an empty query", uri: "pkcs11:token=a?", says: "query attributes" },
  { name: "pin-value in the path", uri: "pkcs11:pin-value=hunter2", says: "may hold only" },
])("a URI with $name is refused, and nothing of it repeated", ({ uri, says }) => {
  let error: unknown;
  try {
    parsePkcs11Uri(uri);
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toMatchObject({ code: "config-invalid", message: expect.stringContaining(says) });
  expect(String(error)).not.toContain("hunter2");
});

test.for([
  {},
  { token: "issuing ca; 100%?" },
  { token: "Ä", serial: "0", slotId: 0, object: "k", id: Uint8Array.of(0, 255), type: "private" },
] as const)("what is formatted is read back: %j", (uri) => {
  expect(parsePkcs11Uri(formatPkcs11Uri(uri))).toEqual(uri);
});

test("every octet of an id is percent-encoded", () => {
  expect(formatPkcs11Uri({ object: "ca", id: Uint8Array.of(0x41, 0) })).toBe(
    "pkcs11:object=ca;id=%41%00",
  );
});
