import { createHash, ECDH, generateKeyPairSync } from "node:crypto";
import { expect, test } from "vitest";
import { bitString, DerError, integer, sequence } from "../../src/x509/der.ts";
import {
  checkPublicKey,
  keyIdentifier,
  parsePublicKey,
  publicKeyObject,
  spkiDigest,
} from "../../src/x509/public-key.ts";
import { keyPair, spkiOf, type KeyKind } from "./authority.ts";

const kinds: KeyKind[] = ["P-256", "P-384", "P-521", "RSA-2048", "RSA-3072", "Ed25519"];

test.for(kinds)("KEY-01: %s is read, checked, and becomes the same key", (kind) => {
  const { publicKey } = keyPair(kind);
  const spki = spkiOf(publicKey);
  const key = parsePublicKey(spki);
  expect(key.type).toBe(kind);
  checkPublicKey(key);
  expect(publicKeyObject(key).equals(publicKey)).toBe(true);
  expect(spkiDigest(spki)).toBe(createHash("sha256").update(spki).digest("hex"));
});

test("KEY-02: RSA 2056 is fit, and named RSA-other", () => {
  const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 2056 });
  const key = parsePublicKey(spkiOf(publicKey));
  expect(key.type).toBe("RSA-other");
  expect(key.modulus).toHaveLength(257);
  expect(key.exponent).toEqual(Uint8Array.of(1, 0, 1));
  checkPublicKey(key);
});

test("KEY-09: a hundred points of each curve are on it", () => {
  const names = { "P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1" } as const;
  for (const [curve, name] of Object.entries(names)) {
    const { spki } = parsePublicKey(spkiOf(keyPair(curve as KeyKind).publicKey));
    for (let i = 0; i < 100; i++) {
      const point = ECDH.convertKey(newPoint(name), name, undefined, undefined, "uncompressed");
      const other = Uint8Array.from(spki);
      other.set(Buffer.from(point as Buffer), spki.length - point.length);
      expect(() => checkPublicKey(parsePublicKey(other))).not.toThrow();
    }
  }
});

function newPoint(curve: string): Buffer {
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: curve });
  const { x, y } = publicKey.export({ format: "jwk" });
  return Buffer.concat([Buffer.of(4), Buffer.from(x!, "base64url"), Buffer.from(y!, "base64url")]);
}

test("key-refused KEY-09: OpenSSL, too, refuses a point off the curve", () => {
  const spki = spkiOf(keyPair("P-256").publicKey);
  spki[spki.length - 1]! ^= 1;
  expect(() => publicKeyObject(parsePublicKey(spki))).toThrow(
    expect.objectContaining({ code: "key-refused", members: { rule: "KEY-09" } }) as Error,
  );
});

test.for([
  { name: "RSA without parameters", algorithm: "300b06092a864886f70d010101" },
  { name: "id-RSASSA-PSS", algorithm: "300b06092a864886f70d01010a" },
  { name: "P-192", algorithm: "301306072a8648ce3d020106082a8648ce3d030101" },
  { name: "Ed25519 with NULL", algorithm: "300706032b65700500" },
])("KEY-01: $name is not read", ({ algorithm }) => {
  const spki = sequence(
    Uint8Array.from(Buffer.from(algorithm, "hex")),
    bitString(new Uint8Array(65)),
  );
  expect(() => parsePublicKey(spki)).toThrow(DerError);
});

test("RFC 7093 §2 method 1 (CRT-18): 160 bits of the SHA-256 of the key bits", () => {
  const bits = sequence(integer((1n << 2047n) | 1n), integer(65537));
  const algorithm = Uint8Array.from(Buffer.from("300d06092a864886f70d0101010500", "hex"));
  const key = parsePublicKey(sequence(algorithm, bitString(bits)));
  const digest = createHash("sha256").update(bits).digest();
  expect(keyIdentifier(key)).toEqual(Uint8Array.from(digest.subarray(0, 20)));
});
