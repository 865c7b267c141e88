/** Subject public keys: rules KEY-01 to KEY-13; RFC 3279 §2.3, RFC 5480 §2, RFC 8410 §4. */

import { DerError, DerReader, Tag } from "../der.ts";
import type { DerElement } from "../der.ts";
import { report, reportBroken } from "./finding.ts";
import type { Finding } from "./finding.ts";
import { encodingIs, rangeIs, shown } from "./octets.ts";
import { checkNatural, checkOctetAligned, integerFault } from "./value.ts";

export type KeyType = "RSA" | "P-256" | "P-384" | "P-521" | "Ed25519";

export interface SubjectKey {
  readonly type: KeyType;
  /** The octets of the BIT STRING, a view: what key identifiers are computed over. */
  readonly bits: Uint8Array;
}

/** y² = x³ − 3x + b over the integers mod p: SEC 2 v2 §2.4–2.6. */
interface Curve {
  /** Octets of a coordinate. */
  readonly size: number;
  readonly p: bigint;
  readonly b: bigint;
}

const curves: Record<"P-256" | "P-384" | "P-521", Curve> = {
  "P-256": {
    size: 32,
    p: 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n,
    b: 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn,
  },
  "P-384": {
    size: 48,
    p: 2n ** 384n - 2n ** 128n - 2n ** 96n + 2n ** 32n - 1n,
    b: 0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aefn,
  },
  "P-521": {
    size: 66,
    p: 2n ** 521n - 1n,
    b: 0x0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00n,
  },
};

const algorithms: readonly { readonly type: KeyType; readonly identifier: Uint8Array }[] = [
  { type: "P-256", identifier: bytes("301306072a8648ce3d020106082a8648ce3d030107") },
  { type: "RSA", identifier: bytes("300d06092a864886f70d0101010500") },
  { type: "P-384", identifier: bytes("301006072a8648ce3d020106052b81040022") },
  { type: "P-521", identifier: bytes("301006072a8648ce3d020106052b81040023") },
  { type: "Ed25519", identifier: bytes("300506032b6570") },
];

const EC_PUBLIC_KEY = bytes("06072a8648ce3d0201");
const EXPONENT_65537 = bytes("010001");

export interface KeyRules {
  /** Whether OpenSSL has accepted these same bytes as a key: then the point is on its curve. */
  readonly publicKeyChecked?: boolean | undefined;
  /** Whether the profile allows Ed25519 (KEY-13). */
  readonly ed25519?: boolean | undefined;
}

/** Reads a subjectPublicKeyInfo and reports what rules it breaks; undefined if it cannot be used further. */
export function readSubjectKey(
  spki: DerElement,
  rules: KeyRules,
  findings: Finding[],
): SubjectKey | undefined {
  try {
    const reader = DerReader.inside(spki);
    const algorithm = reader.read(Tag.sequence);
    const bitString = reader.read(Tag.bitString);
    reader.finish();
    const type = keyTypeOf(algorithm);
    if (type === undefined) {
      reportAlgorithm(algorithm, findings);
      return undefined;
    }
    checkOctetAligned(bitString);
    const bits = spki.bytes.subarray(bitString.contentStart + 1, bitString.end);
    if (type === "RSA") checkRsa(bits, findings);
    else if (type === "Ed25519") checkEd25519(bits, rules, findings);
    else checkPoint(type, bits, rules.publicKeyChecked === true, findings);
    return { type, bits };
  } catch (error) {
    reportBroken(findings, "CRT-19", "subjectPublicKeyInfo", error);
    return undefined;
  }
}

function keyTypeOf(algorithm: DerElement): KeyType | undefined {
  for (const { type, identifier } of algorithms) if (encodingIs(algorithm, identifier)) return type;
  return undefined;
}

function reportAlgorithm(algorithm: DerElement, findings: Finding[]): void {
  const encoded = algorithm.bytes.subarray(algorithm.start, algorithm.end);
  const inside = DerReader.inside(algorithm);
  const oid = inside.readAny();
  // ECParameters that are spelled out, or inherited, are how CVE-2020-0601 passed another curve off as P-384.
  if (encodingIs(oid, EC_PUBLIC_KEY) && inside.peek() !== Tag.objectIdentifier) {
    report(findings, "KEY-09", `EC parameters ${shown(encoded)} are not a named curve`);
  } else {
    report(
      findings,
      "KEY-01",
      `algorithm bytes ${shown(encoded)} are none of RSA, P-256, P-384, P-521, Ed25519`,
    );
  }
}

function checkEd25519(bits: Uint8Array, rules: KeyRules, findings: Finding[]): void {
  if (bits.length !== 32) throw new DerError("Ed25519 public key is not 32 octets", 0);
  if (rules.ed25519 === false) {
    report(findings, "KEY-13", "the key is Ed25519, which the profile does not allow");
  }
}

function checkRsa(bits: Uint8Array, findings: Finding[]): void {
  const reader = DerReader.inside(DerReader.whole(bits, Tag.sequence));
  const modulus = reader.read(Tag.integer);
  const exponent = reader.read(Tag.integer);
  reader.finish();
  checkNatural(modulus);
  const fault = integerFault(exponent);
  if (fault !== undefined) throw new DerError(`INTEGER is ${fault}`, exponent.start);

  let start = modulus.contentStart;
  if (bits[start] === 0) start += 1;
  const length = (modulus.end - start) * 8 - Math.clz32(bits[start] ?? 0) + 24;
  if (length < 2048 || length % 8 !== 0) {
    report(
      findings,
      "KEY-02",
      `RSA modulus of ${length} bits; at least 2048 and a multiple of 8 are wanted`,
    );
  } else if (length > 4096) {
    report(findings, "KEY-02", `RSA modulus of ${length} bits; at most 4096 are wanted`, "P");
  } else {
    checkModulus(bits, start, modulus.end, findings);
  }

  if (rangeIs(bits, exponent.contentStart, exponent.end, EXPONENT_65537)) return;
  const value = shown(bits.subarray(exponent.contentStart, exponent.end));
  const single = exponent.end - exponent.contentStart === 1;
  const first = bits[exponent.contentStart]!;
  if (first >= 0x80 || bits[exponent.end - 1]! % 2 === 0 || (single && first < 3)) {
    report(findings, "KEY-03", `RSA exponent ${value} (hex) is not odd and at least 3`);
  } else {
    report(findings, "KEY-03", `RSA exponent ${value} (hex) is not 65537`, "P");
  }
}

const smallPrimes: readonly bigint[] = (() => {
  const primes: bigint[] = [];
  for (let n = 2n; n < 752n; n++) if (primes.every((prime) => n % prime !== 0n)) primes.push(n);
  return primes;
})();
const productOfSmallPrimes: bigint = smallPrimes.reduce((product, prime) => product * prime, 1n);

function checkModulus(bits: Uint8Array, start: number, end: number, findings: Finding[]): void {
  const modulus = toBigInt(bits, start, end);
  const rest = modulus % productOfSmallPrimes; // once over the long number, then over a short one
  for (const prime of smallPrimes) {
    if (rest % prime !== 0n) continue;
    report(findings, "KEY-04", `RSA modulus is divisible by ${prime}`);
    return;
  }
  if (isSquare(modulus)) report(findings, "KEY-04", "RSA modulus is a square");
}

/** Higher prime powers are left out: telling them apart costs more than an S rule is worth. */
function isSquare(value: bigint): boolean {
  if ((value & 7n) !== 1n) return false; // odd squares are 1 mod 8
  let root = 1n << BigInt(value.toString(16).length * 2 + 1);
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root * root === value;
    root = next;
  }
}

function checkPoint(
  type: "P-256" | "P-384" | "P-521",
  bits: Uint8Array,
  checked: boolean,
  findings: Finding[],
): void {
  const curve = curves[type];
  const { size } = curve;
  if (bits.length !== 1 + 2 * size || bits[0] !== 4) {
    const form = bits.length === 1 && bits[0] === 0 ? "the point at infinity" : shown(bits);
    report(
      findings,
      "KEY-09",
      `EC point ${form} is not the uncompressed form of ${type}: 04 and ${2 * size} octets`,
    );
    return;
  }
  if (checked) return;
  const x = toBigInt(bits, 1, 1 + size);
  const y = toBigInt(bits, 1 + size, bits.length);
  const { p, b } = curve;
  if (x >= p || y >= p) {
    report(findings, "KEY-09", `EC point has a coordinate outside the field of ${type}`);
  } else if ((y * y - (x * x - 3n) * x - b) % p !== 0n) {
    report(findings, "KEY-09", `EC point ${shown(bits)} is not on ${type}`);
  }
}

function toBigInt(octets: Uint8Array, start: number, end: number): bigint {
  const hex = Buffer.from(octets.buffer, octets.byteOffset + start, end - start).toString("hex");
  return BigInt(`0x${hex}`);
}

function bytes(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, "hex"));
}
