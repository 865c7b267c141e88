/** Certificates, requests, CRLs and keys decoded for people and programs. What the strict readers refuse is still shown. */

import { createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";
import { digestOf } from "../audit/digest.ts";
import {
  readCertificationRequest,
  verifyCertificationRequest,
} from "../x509/certification-request.ts";
import { extensionOf, parseTbsCertificate } from "../x509/certificate.ts";
import { CountersignError } from "../errors.ts";
import {
  contentOf,
  contextTag,
  DerError,
  DerReader,
  encodingOf,
  integerOctets,
  objectIdentifierText,
  readTime,
  Tag,
} from "../x509/der.ts";
import {
  parseAuthorityInfoAccess,
  parseAuthorityKeyIdentifier,
  parseBasicConstraints,
  parseCrlNumber,
  parseDistributionPoints,
  parseExtKeyUsage,
  parseKeyUsage,
  parseReasonCode,
  parseSubjectKeyIdentifier,
  readExtensions,
  type Extension,
} from "../x509/extension.ts";
import { parseGeneralNames, type GeneralName } from "../x509/general-name.ts";
import { nameText } from "../x509/name.ts";
import { accessMethodOids, algorithmOids, extensionOids, extKeyUsageOids } from "../x509/oid.ts";
import { signatureAlgorithmFrom } from "../x509/signature-algorithm.ts";
import { parseSigned } from "../x509/signed.ts";
import type { Piece } from "./pieces.ts";

const DAY_MILLISECONDS = 86_400_000;

export interface NameView {
  readonly kind: string;
  readonly value: string;
}

export interface PublicKeyView {
  /** `P-256`, `RSA-2048`, `Ed25519`, … */
  readonly type: string;
  /** Of the SubjectPublicKeyInfo: the keyId of an issuer, and what a key and its certificate share. */
  readonly sha256: string;
}

export interface CertificateView {
  readonly kind: "certificate";
  readonly sha256: string;
  readonly version: number;
  readonly serialNumber: string;
  readonly subject: string;
  readonly issuer: string;
  readonly notBefore: string;
  readonly notAfter: string;
  readonly state: "valid" | "expired" | "not yet valid";
  /** Whole days until notAfter; negative once it has passed. */
  readonly daysLeft: number;
  readonly names: readonly NameView[];
  readonly publicKey: PublicKeyView;
  readonly signatureAlgorithm: string;
  readonly ca: boolean;
  readonly pathLen?: number;
  readonly keyUsage: readonly string[];
  readonly extKeyUsage: readonly string[];
  readonly subjectKeyIdentifier?: string;
  readonly authorityKeyIdentifier?: string;
  readonly crlUrls: readonly string[];
  readonly caIssuersUrls: readonly string[];
  readonly ocspUrls: readonly string[];
  /** Dotted OIDs of what is not taken apart here. */
  readonly otherExtensions: readonly string[];
  /** Issuer and subject are the same. */
  readonly selfIssued: boolean;
}

export interface RequestView {
  readonly kind: "certification request";
  readonly sha256: string;
  readonly subject: string;
  readonly names: readonly NameView[];
  readonly publicKey: PublicKeyView;
  readonly signatureAlgorithm: string;
  readonly otherExtensions: readonly string[];
  /** Why a service would refuse it whatever the policy says; null if it would not. */
  readonly refusal: {
    readonly code: string;
    readonly rule?: string;
    readonly detail: string;
  } | null;
}

export interface RevokedView {
  readonly serialNumber: string;
  readonly revocationDate: string;
  readonly reason: string;
}

export interface CrlView {
  readonly kind: "certificate list";
  readonly sha256: string;
  readonly issuer: string;
  /** Decimal; absent if there is none. */
  readonly number?: string;
  readonly thisUpdate: string;
  readonly nextUpdate?: string;
  readonly state: "current" | "outdated" | "not yet valid";
  readonly signatureAlgorithm: string;
  readonly authorityKeyIdentifier?: string;
  readonly entryCount: number;
  readonly entries: readonly RevokedView[];
}

export interface PrivateKeyView {
  readonly kind: "private key";
  /** As of a public key; `unknown` while it is encrypted and the file does not say. */
  readonly type: string;
  readonly format: string;
  readonly encrypted: boolean;
  /** Of its public key, so that the certificate that belongs to it is found. */
  readonly publicKeySha256?: string;
}

/** @throws DerError */
export function certificateView(der: Uint8Array, now: Date): CertificateView {
  const signed = parseSigned(der);
  const tbs = parseTbsCertificate(signed.tbs);
  const value = (name: keyof typeof extensionOids): Uint8Array | undefined =>
    extensionOf(tbs, extensionOids[name])?.value;
  const basic = read(value("basicConstraints"), parseBasicConstraints);
  const access = read(value("authorityInfoAccess"), parseAuthorityInfoAccess) ?? [];
  const accessUrls = (method: string): string[] =>
    access
      .filter((description) => description.method === method)
      .map((one) => nameView(one.location).value);
  const points = read(value("cRLDistributionPoints"), parseDistributionPoints) ?? [];
  const ski = read(value("subjectKeyIdentifier"), parseSubjectKeyIdentifier);
  const aki = read(value("authorityKeyIdentifier"), parseAuthorityKeyIdentifier)?.keyIdentifier;
  return {
    kind: "certificate",
    sha256: digestOf(der),
    version: tbs.version + 1,
    serialNumber: hex(tbs.serialNumber),
    subject: nameText(tbs.subject),
    issuer: nameText(tbs.issuer),
    notBefore: tbs.notBefore.toISOString(),
    notAfter: tbs.notAfter.toISOString(),
    state: now < tbs.notBefore ? "not yet valid" : now > tbs.notAfter ? "expired" : "valid",
    daysLeft: Math.floor((tbs.notAfter.getTime() - now.getTime()) / DAY_MILLISECONDS),
    names: (read(value("subjectAltName"), parseGeneralNames) ?? []).map(nameView),
    publicKey: publicKeyView(tbs.subjectPublicKeyInfo),
    signatureAlgorithm: algorithmName(signed.signatureAlgorithm),
    ca: basic?.cA ?? false,
    ...(basic?.pathLen === undefined ? {} : { pathLen: basic.pathLen }),
    keyUsage: read(value("keyUsage"), parseKeyUsage) ?? [],
    extKeyUsage: (read(value("extKeyUsage"), parseExtKeyUsage) ?? []).map(purposeName),
    ...(ski === undefined ? {} : { subjectKeyIdentifier: hex(ski) }),
    ...(aki === undefined ? {} : { authorityKeyIdentifier: hex(aki) }),
    crlUrls: points.flatMap(({ fullName = [] }) => fullName.map((name) => nameView(name).value)),
    caIssuersUrls: accessUrls(accessMethodOids.caIssuers),
    ocspUrls: accessUrls(accessMethodOids.ocsp),
    otherExtensions: otherThan(tbs.extensions, shownExtensions),
    selfIssued: hex(tbs.subject) === hex(tbs.issuer),
  };
}

const shownExtensions: readonly string[] = [
  extensionOids.basicConstraints,
  extensionOids.authorityInfoAccess,
  extensionOids.cRLDistributionPoints,
  extensionOids.subjectKeyIdentifier,
  extensionOids.authorityKeyIdentifier,
  extensionOids.subjectAltName,
  extensionOids.keyUsage,
  extensionOids.extKeyUsage,
];

function otherThan(extensions: readonly Extension[], shown: readonly string[]): string[] {
  return extensions.map(({ oid }) => oid).filter((oid) => !shown.includes(oid));
}

/** @throws DerError */
export function requestView(der: Uint8Array): RequestView {
  const signed = parseSigned(der);
  const info = DerReader.inside(DerReader.whole(signed.tbs, Tag.sequence));
  info.read(Tag.integer);
  const subject = encodingOf(info.read(Tag.sequence));
  const spki = encodingOf(info.read(Tag.sequence));
  let names: readonly GeneralName[] = [];
  let otherExtensions: string[] = [];
  let refusal: RequestView["refusal"] = null;
  try {
    const request = readCertificationRequest(der);
    names = request.names;
    otherExtensions = request.otherExtensions.map(({ oid }) => oid);
    verifyCertificationRequest(request);
  } catch (error) {
    if (!(error instanceof CountersignError)) throw error;
    const { rule } = error.members;
    refusal = {
      code: error.code,
      ...(typeof rule === "string" ? { rule } : {}),
      detail: error.message,
    };
  }
  return {
    kind: "certification request",
    sha256: digestOf(der),
    subject: nameText(subject),
    names: names.map(nameView),
    publicKey: publicKeyView(spki),
    signatureAlgorithm: algorithmName(signed.signatureAlgorithm),
    otherExtensions,
    refusal,
  };
}

/**
 * Any v1 or v2 CRL, also one without number and nextUpdate.
 *
 * @throws DerError
 */
export function crlView(der: Uint8Array, now: Date): CrlView {
  const signed = parseSigned(der);
  const reader = DerReader.inside(DerReader.whole(signed.tbs, Tag.sequence));
  reader.readOptional(Tag.integer);
  reader.read(Tag.sequence);
  const issuer = encodingOf(reader.read(Tag.sequence));
  const thisUpdate = readTime(reader);
  const next = reader.peek();
  const nextUpdate =
    next === Tag.utcTime || next === Tag.generalizedTime ? readTime(reader) : undefined;
  const revoked = reader.readOptional(Tag.sequence);
  const wrapper = reader.readOptional(contextTag(0, true));
  reader.finish();
  const extensions =
    wrapper === undefined ? [] : readExtensions(DerReader.inside(wrapper).read(Tag.sequence));
  const value = (name: keyof typeof extensionOids): Uint8Array | undefined =>
    extensionOf({ extensions }, extensionOids[name])?.value;
  const entries: RevokedView[] = [];
  if (revoked !== undefined) {
    const list = DerReader.inside(revoked);
    while (!list.atEnd) entries.push(revokedView(DerReader.inside(list.read(Tag.sequence))));
  }
  const number = read(value("cRLNumber"), parseCrlNumber);
  const aki = read(value("authorityKeyIdentifier"), parseAuthorityKeyIdentifier)?.keyIdentifier;
  return {
    kind: "certificate list",
    sha256: digestOf(der),
    issuer: nameText(issuer),
    ...(number === undefined ? {} : { number: number.toString() }),
    thisUpdate: thisUpdate.toISOString(),
    ...(nextUpdate === undefined ? {} : { nextUpdate: nextUpdate.toISOString() }),
    state:
      now < thisUpdate
        ? "not yet valid"
        : nextUpdate !== undefined && now > nextUpdate
          ? "outdated"
          : "current",
    signatureAlgorithm: algorithmName(signed.signatureAlgorithm),
    ...(aki === undefined ? {} : { authorityKeyIdentifier: hex(aki) }),
    entryCount: entries.length,
    entries,
  };
}

function revokedView(entry: DerReader): RevokedView {
  const serialNumber = hex(integerOctets(entry.read(Tag.integer)));
  const revocationDate = readTime(entry).toISOString();
  const list = entry.readOptional(Tag.sequence);
  const reason =
    list === undefined
      ? undefined
      : extensionOf({ extensions: readExtensions(list) }, extensionOids.reasonCode)?.value;
  return {
    serialNumber,
    revocationDate,
    reason: read(reason, parseReasonCode) ?? "unspecified",
  };
}

/** An extension that is broken is left out here; the linter is what names it. */
function read<T>(value: Uint8Array | undefined, parse: (value: Uint8Array) => T): T | undefined {
  if (value === undefined) return undefined;
  try {
    return parse(value);
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    return undefined;
  }
}

export function nameView(name: GeneralName): NameView {
  return { kind: name.kind, value: "value" in name ? name.value : `#${hex(name.der)}` };
}

/** Any key that OpenSSL can read, also of types that no profile takes. */
export function publicKeyView(spki: Uint8Array): PublicKeyView {
  let type = "unknown";
  try {
    type = keyType(createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" }));
  } catch {
    // No key for OpenSSL; the fingerprint is still worth having.
  }
  return { type, sha256: digestOf(spki) };
}

const curves: Readonly<Record<string, string>> = {
  prime256v1: "P-256",
  secp384r1: "P-384",
  secp521r1: "P-521",
};

function keyType(key: KeyObject): string {
  const { namedCurve, modulusLength } = key.asymmetricKeyDetails ?? {};
  const { asymmetricKeyType: type = "unknown" } = key;
  if (type === "ec") return curves[namedCurve ?? ""] ?? `EC ${namedCurve ?? "(unnamed curve)"}`;
  if (type === "rsa" || type === "rsa-pss") return `${type.toUpperCase()}-${modulusLength}`;
  return type === "ed25519" ? "Ed25519" : type;
}

/** Says what a private key is, and nothing of what it holds. */
export function privateKeyView({ label = "PRIVATE KEY", der, text }: Piece): PrivateKeyView {
  const formats: Readonly<Record<string, string>> = {
    "PRIVATE KEY": "PKCS#8",
    "ENCRYPTED PRIVATE KEY": "PKCS#8",
    "RSA PRIVATE KEY": "PKCS#1",
    "EC PRIVATE KEY": "SEC 1",
    "OPENSSH PRIVATE KEY": "OpenSSH",
  };
  const format = formats[label] ?? label;
  if (label === "OPENSSH PRIVATE KEY")
    return { kind: "private key", format, ...sshKey(text ?? "") };
  const encrypted =
    label === "ENCRYPTED PRIVATE KEY" || /^Proc-Type: 4,ENCRYPTED/m.test(text ?? "");
  if (encrypted) {
    const type = /^(RSA|EC|DSA) /.exec(label)?.[1] ?? "unknown";
    return { kind: "private key", type, format, encrypted };
  }
  try {
    const key =
      der === undefined
        ? createPrivateKey(text ?? "")
        : createPrivateKey({
            key: Buffer.from(der),
            format: "der",
            type: derTypes[label] ?? "pkcs8",
          });
    const spki = createPublicKey(key).export({ format: "der", type: "spki" });
    return {
      kind: "private key",
      type: keyType(key),
      format,
      encrypted,
      publicKeySha256: digestOf(spki),
    };
  } catch {
    // OpenSSL's own words are left out: they are about the contents.
    return { kind: "private key", type: "unreadable", format, encrypted };
  }
}

const derTypes: Readonly<Record<string, "pkcs8" | "pkcs1" | "sec1">> = {
  "RSA PRIVATE KEY": "pkcs1",
  "EC PRIVATE KEY": "sec1",
};

/** OpenSSH PROTOCOL.key: cipher and public key stand before what is secret. */
function sshKey(block: string): { type: string; encrypted: boolean } {
  const octets = Buffer.from(block.replaceAll(/-----[^\n]*-----/g, ""), "base64");
  let offset = "openssh-key-v1\0".length;
  const string = (): Buffer => {
    const length = offset + 4 <= octets.length ? octets.readUInt32BE(offset) : 0;
    const value = octets.subarray(offset + 4, offset + 4 + length);
    offset += 4 + length;
    return value;
  };
  const cipher = string().toString("latin1");
  string(); // name of the key derivation
  string(); // its options
  offset += 4; // number of keys
  const publicKey = string();
  const length = publicKey.length < 4 ? 0 : publicKey.readUInt32BE(0);
  const type = publicKey.subarray(4, 4 + length).toString("latin1");
  return { type: /^[a-z0-9@.-]+$/.test(type) ? type : "unreadable", encrypted: cipher !== "none" };
}

function algorithmName(identifier: Uint8Array): string {
  const known = signatureAlgorithmFrom(identifier);
  if (known !== undefined) return known.name;
  const reader = DerReader.inside(DerReader.whole(identifier, Tag.sequence));
  const oid = objectIdentifierText(contentOf(reader.read(Tag.objectIdentifier)));
  return nameOf(algorithmOids, oid);
}

function purposeName(oid: string): string {
  return nameOf(extKeyUsageOids, oid);
}

function nameOf(names: Readonly<Record<string, string>>, oid: string): string {
  return Object.keys(names).find((name) => names[name] === oid) ?? oid;
}

function hex(octets: Uint8Array): string {
  return Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString("hex");
}
