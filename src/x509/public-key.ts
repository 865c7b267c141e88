/** Public keys: SubjectPublicKeyInfo of RFC 3279 §2.3, RFC 5480 §2, RFC 8410 §4. Rules KEY-01 to KEY-04, KEY-09. */

import { createPublicKey, hash, type JsonWebKey, type KeyObject } from "node:crypto";
import { CountersignError } from "../errors.ts";
import {
  bitStringOctets,
  contentOf,
  DerError,
  DerReader,
  encodingOf,
  equalOctets,
  objectIdentifierText,
  positiveIntegerOctets,
  Tag,
} from "./der.ts";
import { algorithmOids, curveOids } from "./oid.ts";

export type PublicKeyType =
  | "RSA-2048"
  | "RSA-3072"
  | "RSA-4096"
  | "RSA-other"
  | "P-256"
  | "P-384"
  | "P-521"
  | "Ed25519";

export interface PublicKeyInfo {
  /** The SubjectPublicKeyInfo, DER. */
  readonly spki: Uint8Array;
  readonly type: PublicKeyType;
  /** Content of the BIT STRING without its octet of unused bits. */
  readonly bits: Uint8Array;
  /** RSA only: magnitude octets, big-endian, without the sign octet. */
  readonly modulus?: Uint8Array;
  /** RSA only: magnitude octets. */
  readonly exponent?: Uint8Array;
}

type Curve = "P-256" | "P-384" | "P-521";

/** AlgorithmIdentifiers in their one accepted encoding (KEY-01). */
const algorithms: readonly {
  readonly type: "RSA" | "Ed25519" | Curve;
  readonly der: Uint8Array;
}[] = [
  { type: "P-256", der: fromHex("301306072a8648ce3d020106082a8648ce3d030107") },
  { type: "RSA", der: fromHex("300d06092a864886f70d0101010500") },
  { type: "P-384", der: fromHex("301006072a8648ce3d020106052b81040022") },
  { type: "P-521", der: fromHex("301006072a8648ce3d020106052b81040023") },
  { type: "Ed25519", der: fromHex("300506032b6570") },
];

function fromHex(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, "hex"));
}

/**
 * Takes a SubjectPublicKeyInfo apart. Whether the key is good enough is `checkPublicKey`'s question.
 *
 * @throws DerError unless the algorithm is encoded as KEY-01 says (or is Ed25519) and an RSA key has two
 *   positive numbers.
 */
export function parsePublicKey(spki: Uint8Array): PublicKeyInfo {
  const { algorithm, bits } = publicKeyFields(spki);
  const type = algorithms.find(({ der }) => equalOctets(der, algorithm))?.type;
  if (type === undefined) throw new DerError("public-key algorithm is not an accepted one", 0);
  if (type !== "RSA") return { spki, type, bits };

  const numbers = DerReader.inside(DerReader.whole(bits, Tag.sequence));
  const modulus = positiveIntegerOctets(numbers.read(Tag.integer));
  const exponent = positiveIntegerOctets(numbers.read(Tag.integer));
  numbers.finish();
  return { spki, type: rsaType(modulus), bits, modulus, exponent };
}

function publicKeyFields(spki: Uint8Array): { algorithm: Uint8Array; bits: Uint8Array } {
  const reader = DerReader.inside(DerReader.whole(spki, Tag.sequence));
  const algorithm = encodingOf(reader.read(Tag.sequence));
  const bits = bitStringOctets(reader.read(Tag.bitString));
  reader.finish();
  return { algorithm, bits };
}

function rsaType(modulus: Uint8Array): PublicKeyType {
  switch (bitLength(modulus)) {
    case 2048:
      return "RSA-2048";
    case 3072:
      return "RSA-3072";
    case 4096:
      return "RSA-4096";
    default:
      return "RSA-other";
  }
}

function bitLength(magnitude: Uint8Array): number {
  return magnitude.length * 8 - (Math.clz32(magnitude[0]!) - 24);
}

/**
 * Reads the public key of a request, naming the rule where `parsePublicKey` would only say no.
 *
 * @throws CountersignError `key-refused` with `members.rule` if the algorithm is not an accepted one.
 * @throws DerError if the bytes are broken.
 */
export function requestedPublicKey(spki: Uint8Array): PublicKeyInfo {
  const { algorithm } = publicKeyFields(spki);
  if (!algorithms.some(({ der }) => equalOctets(der, algorithm))) refuseAlgorithm(algorithm);
  return parsePublicKey(spki);
}

const acceptedKeys = "use P-256, P-384, P-521, RSA of 2048 to 4096 bits, or Ed25519";

function refuseAlgorithm(algorithm: Uint8Array): never {
  const reader = DerReader.inside(DerReader.whole(algorithm, Tag.sequence));
  const oid = objectIdentifierText(contentOf(reader.read(Tag.objectIdentifier)));
  const parameters = reader.atEnd ? undefined : reader.readAny();
  reader.finish();
  const name = nameOf(algorithmOids, oid);
  if (oid === algorithmOids["id-RSASSA-PSS"]) {
    refuse(
      "KEY-01",
      "an RSA key must be marked rsaEncryption, not id-RSASSA-PSS; make a plain RSA key",
    );
  }
  if (oid === algorithmOids.rsaEncryption || oid === algorithmOids["id-Ed25519"]) {
    const expected = oid === algorithmOids.rsaEncryption ? "NULL" : "absent";
    refuse("KEY-01", `the parameters of ${name} must be ${expected}; encode the key anew`);
  }
  if (oid === algorithmOids["id-ecPublicKey"]) {
    if (parameters?.tag === Tag.objectIdentifier) {
      const curve = nameOf(curveOids, objectIdentifierText(contentOf(parameters)));
      refuse("KEY-01", `the curve ${curve} is not accepted; ${acceptedKeys}`);
    }
    refuse(
      "KEY-09",
      "the curve must be named, not given by explicit parameters; with openssl use -pkeyopt ec_param_enc:named_curve",
    );
  }
  refuse("KEY-01", `keys of the algorithm ${name} are not accepted; ${acceptedKeys}`);
}

function nameOf(names: Readonly<Record<string, string>>, oid: string): string {
  return Object.keys(names).find((name) => names[name] === oid) ?? oid;
}

function refuse(rule: string, detail: string): never {
  throw new CountersignError("key-refused", detail, { members: { rule } });
}

/**
 * Checks what makes a key unfit for every profile: KEY-02, KEY-03, KEY-09 and the odd modulus of KEY-04.
 *
 * @throws CountersignError `key-refused` with `members.rule`.
 */
export function checkPublicKey(key: PublicKeyInfo): void {
  switch (key.type) {
    case "P-256":
    case "P-384":
    case "P-521":
      checkPoint(key.type, key.bits);
      return;
    case "Ed25519":
      checkEdwardsPoint(key.bits);
      return;
    case "RSA-2048":
    case "RSA-3072":
    case "RSA-4096":
    case "RSA-other":
      checkRsa(key.modulus!, key.exponent!);
  }
}

function checkRsa(modulus: Uint8Array, exponent: Uint8Array): void {
  const size = bitLength(modulus);
  if (size < 2048) {
    refuse("KEY-02", `the RSA key has ${size} bits; make one of at least 2048`);
  }
  if (size > 4096) refuse("KEY-02", `the RSA key has ${size} bits; make one of at most 4096`);
  if (size % 8 !== 0) {
    refuse(
      "KEY-02",
      `the RSA key has ${size} bits, not a multiple of 8; make one of 2048, 3072 or 4096`,
    );
  }
  if (!equalOctets(exponent, publicExponent)) {
    refuse("KEY-03", "the RSA public exponent is not 65537; make a key with that exponent");
  }
  if ((modulus.at(-1)! & 1) === 0) {
    refuse("KEY-04", "the RSA modulus is even, so this is no RSA key; make a new one");
  }
}

const publicExponent = Uint8Array.of(0x01, 0x00, 0x01);

/** Field prime and the coefficient b (a is −3): SP 800-186 §3.2.1. */
const curves: Record<Curve, { readonly octets: number; readonly p: bigint; readonly b: bigint }> = {
  "P-256": {
    octets: 32,
    p: 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n,
    b: 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn,
  },
  "P-384": {
    octets: 48,
    p: 2n ** 384n - 2n ** 128n - 2n ** 96n + 2n ** 32n - 1n,
    b: 0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aefn,
  },
  "P-521": {
    octets: 66,
    p: 2n ** 521n - 1n,
    b: 0x51953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00n,
  },
};

/** KEY-09: uncompressed, coordinates in range, on the curve. The cofactor is 1, so that is all. */
function checkPoint(curve: Curve, bits: Uint8Array): void {
  const { octets, p, b } = curves[curve];
  if (bits.length === 1 && bits[0] === 0)
    refuse("KEY-09", "the public key is the point at infinity");
  if (bits[0] === 2 || bits[0] === 3) {
    refuse(
      "KEY-09",
      "the point is compressed; with openssl use -pkeyopt ec_point_format:uncompressed",
    );
  }
  if (bits[0] !== 4 || bits.length !== 1 + 2 * octets) {
    refuse("KEY-09", `the public key is not an uncompressed point of ${curve}`);
  }
  const x = bigEndian(bits.subarray(1, 1 + octets));
  const y = bigEndian(bits.subarray(1 + octets));
  if (x >= p || y >= p || (y * y - (x * x - 3n) * x - b) % p !== 0n) {
    refuse("KEY-09", `the public key is not a point of ${curve}; make a new key`);
  }
}

/** Multiples of the identity's eighth roots: with one of these a signature can be made without any key. */
const smallOrder = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

function checkEdwardsPoint(bits: Uint8Array): void {
  if (bits.length !== 32) refuse("KEY-09", "an Ed25519 public key has 32 octets");
  const y = Uint8Array.from(bits);
  y[31]! &= 0x7f;
  // 2^255 − 19 and above is no coordinate: RFC 8032 §5.1.3.
  const inRange =
    y[0]! < 0xed || y[31] !== 0x7f || y.subarray(1, 31).some((octet) => octet !== 0xff);
  if (!inRange || smallOrder.has(hexOf(y))) {
    refuse("KEY-09", "the Ed25519 public key is out of range or of small order; make a new key");
  }
}

function bigEndian(octets: Uint8Array): bigint {
  return BigInt(`0x${hexOf(octets)}`);
}

function hexOf(octets: Uint8Array): string {
  return Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString("hex");
}

/**
 * The key as OpenSSL holds it. Made from a JWK, which takes half the time that an SPKI does.
 *
 * @throws CountersignError `key-refused` if OpenSSL does not take it, for example for a point off the curve.
 */
export function publicKeyObject(key: PublicKeyInfo): KeyObject {
  try {
    return createPublicKey({ key: jsonWebKey(key), format: "jwk" });
  } catch (error) {
    throw new CountersignError("key-refused", "OpenSSL does not accept the public key", {
      cause: error,
      members: { rule: key.modulus === undefined ? "KEY-09" : "KEY-02" },
    });
  }
}

function jsonWebKey(key: PublicKeyInfo): JsonWebKey {
  const { type, bits } = key;
  if (key.modulus !== undefined && key.exponent !== undefined) {
    return { kty: "RSA", n: base64url(key.modulus), e: base64url(key.exponent) };
  }
  if (type === "Ed25519") return { kty: "OKP", crv: type, x: base64url(bits) };
  // A compressed point must not be read as two short coordinates.
  if (bits[0] !== 4) throw new RangeError("the point is not uncompressed");
  const middle = 1 + (bits.length - 1) / 2;
  return {
    kty: "EC",
    crv: type,
    x: base64url(bits.subarray(1, middle)),
    y: base64url(bits.subarray(middle)),
  };
}

function base64url(octets: Uint8Array): string {
  return Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString("base64url");
}

/** Lower-case hex of the SHA-256 of a SubjectPublicKeyInfo: the keyId of CUSTODY.md 2.1. */
export function spkiDigest(spki: Uint8Array): string {
  return hash("sha256", spki, "hex");
}

/** RFC 7093 §2 method 1: the leftmost 160 bits of the SHA-256 of the BIT STRING's content (CRT-18). */
export function keyIdentifier(key: PublicKeyInfo): Uint8Array {
  return Uint8Array.from(hash("sha256", key.bits, "buffer").subarray(0, 20));
}
