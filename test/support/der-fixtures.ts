/**
 * Certificates and CRLs put together by hand, for tests that have to break one thing at a time. Written on the DER
 * writer's functions only: nothing here is shared with the builders of src/x509.
 */

import { createHash, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import type { KeyObject } from "node:crypto";
import {
  Tag,
  bitString,
  booleanTrue,
  contextTag,
  element,
  integer,
  objectIdentifier,
  octetString,
  sequence,
  time,
} from "../../src/x509/der.ts";

export const NOW = new Date("2026-11-21T12:00:00Z");

export function days(count: number, from: Date = NOW): Date {
  return new Date(from.getTime() + count * 86_400_000);
}

export function ascii(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, "latin1"));
}

export function hex(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));
}

/** A key with everything that certificates need of it. */
export interface FixtureKey {
  readonly privateKey: KeyObject;
  readonly spki: Uint8Array;
  readonly spkiDigest: string;
  /** RFC 7093 §2 method 1. */
  readonly identifier: Uint8Array;
  readonly sha1Identifier: Uint8Array;
  readonly signature: Uint8Array;
  readonly hash: string | null;
}

export const algorithms = {
  "P-256": hex("300a06082a8648ce3d040302"),
  "P-384": hex("300a06082a8648ce3d040303"),
  "P-521": hex("300a06082a8648ce3d040304"),
  RSA: hex("300d06092a864886f70d01010b0500"),
  Ed25519: hex("300506032b6570"),
} as const;

const hashes = {
  "P-256": "sha256",
  "P-384": "sha384",
  "P-521": "sha512",
  RSA: "sha256",
  Ed25519: null,
} as const;

/** Makes a key pair; RSA has 2048 bits. */
export function fixtureKey(type: keyof typeof algorithms): FixtureKey {
  const { privateKey } =
    type === "RSA"
      ? generateKeyPairSync("rsa", { modulusLength: 2048 })
      : type === "Ed25519"
        ? generateKeyPairSync("ed25519")
        : generateKeyPairSync("ec", { namedCurve: type });
  const spki = Uint8Array.from(createPublicKey(privateKey).export({ format: "der", type: "spki" }));
  const bits = keyBits(spki);
  const digest = (algorithm: string, octets: Uint8Array) =>
    createHash(algorithm).update(octets).digest();
  return {
    privateKey,
    spki,
    spkiDigest: digest("sha256", spki).toString("hex"),
    identifier: Uint8Array.from(digest("sha256", bits).subarray(0, 20)),
    sha1Identifier: Uint8Array.from(digest("sha1", bits)),
    signature: algorithms[type],
    hash: hashes[type],
  };
}

/** The octets of the BIT STRING at the end of an SPKI. */
export function keyBits(spki: Uint8Array): Uint8Array {
  const headerLength = (at: number) => (spki[at + 1]! < 0x80 ? 2 : 2 + (spki[at + 1]! & 0x7f));
  const algorithm = headerLength(0);
  const bits = algorithm + 2 + spki[algorithm + 1]!;
  return spki.subarray(bits + headerLength(bits) + 1);
}

/** An SPKI with any algorithm and any key octets. */
export function spkiOf(algorithm: Uint8Array, bits: Uint8Array): Uint8Array {
  return sequence(algorithm, bitString(bits));
}

export function ecPoint(type: "P-256" | "P-384" | "P-521", point: Uint8Array): Uint8Array {
  const curve = {
    "P-256": "1.2.840.10045.3.1.7",
    "P-384": "1.3.132.0.34",
    "P-521": "1.3.132.0.35",
  }[type];
  return spkiOf(sequence(objectIdentifier("1.2.840.10045.2.1"), objectIdentifier(curve)), point);
}

export function rsaSpki(modulus: bigint, exponent: bigint): Uint8Array {
  return spkiOf(
    hex("300d06092a864886f70d0101010500"),
    sequence(integer(modulus), integer(exponent)),
  );
}

const attributeTypes = {
  CN: "2.5.4.3",
  serialNumber: "2.5.4.5",
  C: "2.5.4.6",
  L: "2.5.4.7",
  O: "2.5.4.10",
  OU: "2.5.4.11",
  DC: "0.9.2342.19200300.100.1.25",
  emailAddress: "1.2.840.113549.1.9.1",
} as const;

/** A Name of one attribute per RDN. */
export function name(
  ...attributes: readonly (readonly [keyof typeof attributeTypes, string, number?])[]
): Uint8Array {
  return sequence(
    ...attributes.map(([type, value, tag]) =>
      element(
        Tag.set,
        sequence(objectIdentifier(attributeTypes[type]), text(value, tag ?? defaultTag(type))),
      ),
    ),
  );
}

function defaultTag(type: keyof typeof attributeTypes): number {
  if (type === "C" || type === "serialNumber") return Tag.printableString;
  return type === "DC" || type === "emailAddress" ? Tag.ia5String : Tag.utf8String;
}

function text(value: string, tag: number): Uint8Array {
  const encoding = tag === Tag.utf8String ? "utf8" : "latin1";
  return element(tag, Uint8Array.from(Buffer.from(value, encoding)));
}

/** One Extension. `critical` may be the bytes of the field, for fields that are not as they should be. */
export function extension(
  oid: string,
  value: Uint8Array,
  critical: boolean | Uint8Array = false,
): Uint8Array {
  const field =
    typeof critical === "boolean" ? (critical ? booleanTrue : new Uint8Array()) : critical;
  return sequence(objectIdentifier(oid), field, octetString(value));
}

export const oids = {
  subjectKeyIdentifier: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  cRLNumber: "2.5.29.20",
  reasonCode: "2.5.29.21",
  invalidityDate: "2.5.29.24",
  deltaCRLIndicator: "2.5.29.27",
  issuingDistributionPoint: "2.5.29.28",
  certificateIssuer: "2.5.29.29",
  nameConstraints: "2.5.29.30",
  cRLDistributionPoints: "2.5.29.31",
  certificatePolicies: "2.5.29.32",
  authorityKeyIdentifier: "2.5.29.35",
  extKeyUsage: "2.5.29.37",
  freshestCRL: "2.5.29.46",
  expiredCertsOnCRL: "2.5.29.60",
  authorityInfoAccess: "1.3.6.1.5.5.7.1.1",
  tlsFeature: "1.3.6.1.5.5.7.1.24",
} as const;

export const purposes = {
  serverAuth: "1.3.6.1.5.5.7.3.1",
  clientAuth: "1.3.6.1.5.5.7.3.2",
  codeSigning: "1.3.6.1.5.5.7.3.3",
  any: "2.5.29.37.0",
} as const;

export function authorityKeyIdentifier(identifier: Uint8Array): Uint8Array {
  return sequence(element(0x80, identifier));
}

export function keyUsage(...bits: readonly number[]): Uint8Array {
  const last = Math.max(...bits);
  const octets = new Uint8Array((last >> 3) + 1);
  for (const bit of bits) octets[bit >> 3]! |= 0x80 >> (bit & 7);
  return bitString(octets, 7 - (last & 7));
}

export function extKeyUsage(...oidTexts: readonly string[]): Uint8Array {
  return sequence(...oidTexts.map((oid) => objectIdentifier(oid)));
}

export const dns = (value: string): Uint8Array => element(0x82, ascii(value));
export const email = (value: string): Uint8Array => element(0x81, ascii(value));
export const uri = (value: string): Uint8Array => element(0x86, ascii(value));
export const ip = (...octets: readonly number[]): Uint8Array =>
  element(0x87, Uint8Array.from(octets));
export const otherName = (oid: string, value: Uint8Array): Uint8Array =>
  element(0xa0, objectIdentifier(oid), element(0xa0, value));

export function distributionPoints(...uris: readonly string[]): Uint8Array {
  return sequence(...uris.map((value) => sequence(element(0xa0, element(0xa0, uri(value))))));
}

export function accessDescriptions(...locations: readonly string[]): Uint8Array {
  return sequence(
    ...locations.map((value) => sequence(objectIdentifier("1.3.6.1.5.5.7.48.2"), uri(value))),
  );
}

/** GeneralSubtrees of permitted and excluded bases. */
export function nameConstraints(
  permitted: readonly Uint8Array[],
  excluded: readonly Uint8Array[] = [],
): Uint8Array {
  const list = (number: number, bases: readonly Uint8Array[]) =>
    bases.length === 0
      ? new Uint8Array()
      : element(contextTag(number, true), ...bases.map((base) => sequence(base)));
  return sequence(list(0, permitted), list(1, excluded));
}

/** The fields of a TBSCertificate, each the bytes that are to stand there. */
export interface CertificateParts {
  version: Uint8Array;
  serialNumber: Uint8Array;
  signature: Uint8Array;
  issuer: Uint8Array;
  notBefore: Uint8Array;
  notAfter: Uint8Array;
  subject: Uint8Array;
  subjectPublicKeyInfo: Uint8Array;
  uniqueIdentifiers: Uint8Array;
  /** In this order. `undefined` leaves one out. */
  extensions: Record<string, Uint8Array | undefined>;
  /** The whole [3] field, instead of `extensions`. */
  extensionField?: Uint8Array;
  trailing: Uint8Array;
}

export const V3 = element(0xa0, integer(2));

export function tbsCertificate(parts: CertificateParts): Uint8Array {
  const listed = Object.values(parts.extensions).filter((der) => der !== undefined);
  return sequence(
    parts.version,
    parts.serialNumber,
    parts.signature,
    parts.issuer,
    sequence(parts.notBefore, parts.notAfter),
    parts.subject,
    parts.subjectPublicKeyInfo,
    parts.uniqueIdentifiers,
    parts.extensionField ??
      (listed.length === 0 ? new Uint8Array() : element(0xa3, sequence(...listed))),
    parts.trailing,
  );
}

export function signed(
  tbs: Uint8Array,
  key: FixtureKey,
  algorithm: Uint8Array = key.signature,
): Uint8Array {
  return sequence(tbs, algorithm, bitString(Uint8Array.from(sign(key.hash, tbs, key.privateKey))));
}

export const noBytes = new Uint8Array();

/** A CA of the tests: its certificate and what stands above it. */
export interface FixtureAuthority {
  readonly key: FixtureKey;
  readonly subject: Uint8Array;
  readonly certificate: Uint8Array;
  /** Its issuer first, the root last. */
  readonly chain: readonly Uint8Array[];
}

let serial = 0;

/** A serial number that no other call has given. */
export function nextSerialNumber(): Uint8Array {
  serial += 1;
  const content = new Uint8Array(20);
  content[0] = 0x5a;
  new DataView(content.buffer).setUint32(16, serial);
  return element(Tag.integer, content);
}

export function rootParts(key: FixtureKey, subject: Uint8Array): CertificateParts {
  return {
    version: V3,
    serialNumber: nextSerialNumber(),
    signature: key.signature,
    issuer: subject,
    notBefore: time(days(-10)),
    notAfter: time(days(3650)),
    subject,
    subjectPublicKeyInfo: key.spki,
    uniqueIdentifiers: noBytes,
    extensions: {
      subjectKeyIdentifier: extension(oids.subjectKeyIdentifier, octetString(key.identifier)),
      authorityKeyIdentifier: extension(
        oids.authorityKeyIdentifier,
        authorityKeyIdentifier(key.identifier),
      ),
      basicConstraints: extension(oids.basicConstraints, sequence(booleanTrue), true),
      keyUsage: extension(oids.keyUsage, keyUsage(5, 6), true),
    },
    trailing: noBytes,
  };
}

/** Parts of a certificate under a CA, without the extensions of its kind. */
function issuedParts(
  issuer: FixtureAuthority,
  key: FixtureKey,
  subject: Uint8Array,
): CertificateParts {
  return {
    version: V3,
    serialNumber: nextSerialNumber(),
    signature: issuer.key.signature,
    issuer: issuer.subject,
    notBefore: time(days(0)),
    notAfter: time(days(90)),
    subject,
    subjectPublicKeyInfo: key.spki,
    uniqueIdentifiers: noBytes,
    extensions: {
      authorityKeyIdentifier: extension(
        oids.authorityKeyIdentifier,
        authorityKeyIdentifier(issuer.key.identifier),
      ),
    },
    trailing: noBytes,
  };
}

export const CRL_URL = "http://pki.example.org/crl/issuing.crl";

export function intermediateParts(
  issuer: FixtureAuthority,
  key: FixtureKey,
  subject: Uint8Array,
  pathLen = 0,
): CertificateParts {
  const parts = issuedParts(issuer, key, subject);
  parts.notAfter = time(days(1825));
  Object.assign(parts.extensions, {
    subjectKeyIdentifier: extension(oids.subjectKeyIdentifier, octetString(key.identifier)),
    basicConstraints: extension(
      oids.basicConstraints,
      sequence(booleanTrue, integer(pathLen)),
      true,
    ),
    keyUsage: extension(oids.keyUsage, keyUsage(5, 6), true),
    authorityInfoAccess: extension(
      oids.authorityInfoAccess,
      accessDescriptions("http://pki.example.org/ca/root.cer"),
    ),
  });
  return parts;
}

export function serverParts(issuer: FixtureAuthority, key: FixtureKey): CertificateParts {
  const parts = issuedParts(issuer, key, name());
  Object.assign(parts.extensions, {
    subjectAltName: extension(
      oids.subjectAltName,
      sequence(dns("www.example.org"), dns("example.org")),
      true,
    ),
    keyUsage: extension(oids.keyUsage, keyUsage(0), true),
    extKeyUsage: extension(oids.extKeyUsage, extKeyUsage(purposes.serverAuth)),
    cRLDistributionPoints: extension(oids.cRLDistributionPoints, distributionPoints(CRL_URL)),
    authorityInfoAccess: extension(
      oids.authorityInfoAccess,
      accessDescriptions("http://pki.example.org/ca/issuing.cer"),
    ),
  });
  return parts;
}

export function peerParts(issuer: FixtureAuthority, key: FixtureKey): CertificateParts {
  const parts = serverParts(issuer, key);
  parts.extensions["extKeyUsage"] = extension(
    oids.extKeyUsage,
    extKeyUsage(purposes.serverAuth, purposes.clientAuth),
  );
  return parts;
}

export function clientParts(issuer: FixtureAuthority, key: FixtureKey): CertificateParts {
  const parts = issuedParts(issuer, key, name(["O", "Example"], ["CN", "Alice"]));
  Object.assign(parts.extensions, {
    subjectAltName: extension(oids.subjectAltName, sequence(email("alice@example.org"))),
    keyUsage: extension(oids.keyUsage, keyUsage(0), true),
    extKeyUsage: extension(oids.extKeyUsage, extKeyUsage(purposes.clientAuth)),
    cRLDistributionPoints: extension(oids.cRLDistributionPoints, distributionPoints(CRL_URL)),
  });
  return parts;
}

/** A root CA, signed. */
export function rootAuthority(
  key: FixtureKey,
  subject: Uint8Array,
  mutate: (parts: CertificateParts) => void = () => {},
): FixtureAuthority {
  const parts = rootParts(key, subject);
  mutate(parts);
  return { key, subject, certificate: signed(tbsCertificate(parts), key), chain: [] };
}

/** A CA below another, signed. */
export function intermediateAuthority(
  issuer: FixtureAuthority,
  key: FixtureKey,
  subject: Uint8Array,
  mutate: (parts: CertificateParts) => void = () => {},
): FixtureAuthority {
  const parts = intermediateParts(issuer, key, subject);
  parts.notBefore = time(days(-5));
  mutate(parts);
  return {
    key,
    subject,
    certificate: signed(tbsCertificate(parts), issuer.key),
    chain: [issuer.certificate, ...issuer.chain],
  };
}

/** The fields of a TBSCertList, each the bytes that are to stand there. */
export interface CrlParts {
  version: Uint8Array;
  signature: Uint8Array;
  issuer: Uint8Array;
  thisUpdate: Uint8Array;
  nextUpdate: Uint8Array;
  entries: Uint8Array[];
  /** The whole field, instead of `entries`. */
  entryField?: Uint8Array;
  extensions: Record<string, Uint8Array | undefined>;
  /** The whole [0] field, instead of `extensions`. */
  extensionField?: Uint8Array;
  trailing: Uint8Array;
}

export function crlParts(issuer: FixtureAuthority, number: number | bigint = 7): CrlParts {
  return {
    version: integer(1),
    signature: issuer.key.signature,
    issuer: issuer.subject,
    thisUpdate: time(days(0)),
    nextUpdate: time(days(7)),
    entries: [],
    extensions: {
      authorityKeyIdentifier: extension(
        oids.authorityKeyIdentifier,
        authorityKeyIdentifier(issuer.key.identifier),
      ),
      cRLNumber: extension(oids.cRLNumber, integer(number)),
    },
    trailing: noBytes,
  };
}

export function tbsCertList(parts: CrlParts): Uint8Array {
  const listed = Object.values(parts.extensions).filter((der) => der !== undefined);
  return sequence(
    parts.version,
    parts.signature,
    parts.issuer,
    parts.thisUpdate,
    parts.nextUpdate,
    parts.entryField ??
      (parts.entries.length === 0
        ? noBytes
        : sequence(Uint8Array.from(Buffer.concat(parts.entries)))),
    parts.extensionField ?? (listed.length === 0 ? noBytes : element(0xa0, sequence(...listed))),
    parts.trailing,
  );
}

/** One entry; `reason` is a code, `extensions` replaces the whole list of entry extensions. */
export function crlEntry(
  serialNumber: Uint8Array,
  date: Date | Uint8Array,
  options: { reason?: number; extensions?: readonly Uint8Array[] } = {},
): Uint8Array {
  const { reason, extensions } = options;
  const list =
    extensions !== undefined
      ? sequence(...extensions)
      : reason === undefined
        ? noBytes
        : sequence(reasonCode(reason));
  const when = date instanceof Date ? time(date) : date;
  return sequence(element(Tag.integer, serialNumber), when, list);
}

export function reasonCode(reason: number, critical: boolean | Uint8Array = false): Uint8Array {
  return extension(oids.reasonCode, element(Tag.enumerated, Uint8Array.of(reason)), critical);
}

/** An issuingDistributionPoint with one URI, and whatever follows it. */
export function distributionPoint(value: string, ...rest: readonly Uint8Array[]): Uint8Array {
  return sequence(element(0xa0, element(0xa0, uri(value))), ...rest);
}

/** Twenty octets of a serial number that is positive and ordered by `n`. */
export function serialOctets(n: number): Uint8Array {
  const octets = new Uint8Array(20);
  octets[0] = 0x40;
  new DataView(octets.buffer).setUint32(16, n);
  return octets;
}
