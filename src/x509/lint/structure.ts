/**
 * The linter's own walk through a TBSCertificate: RFC 5280 §4.1. It knows nothing of the builders and readers beside
 * it, so that what they get wrong is found here. What is not DER becomes a CRT-19 finding.
 */

import { DerError, DerReader, Tag } from "../der.ts";
import type { DerElement } from "../der.ts";
import { report, reportBroken } from "./finding.ts";
import type { Finding } from "./finding.ts";
import { readDistributionPointName, readGeneralName, readGeneralNames } from "./general-names.ts";
import { readNameConstraints } from "./name-constraints.ts";
import type { NameConstraints } from "./name-constraints.ts";
import { contentIs, rangeHex, rangeIs, sameContent } from "./octets.ts";
import { objectIdentifierText } from "../der.ts";
import {
  booleanOctet,
  checkAnyDer,
  checkNatural,
  readObjectIdentifier,
  smallNatural,
  timeOf,
} from "./value.ts";

/** Bits of keyUsage, RFC 5280 §4.2.1.3: the bit numbered n is 1 << n. */
export const KeyUsageBit = {
  digitalSignature: 1 << 0,
  nonRepudiation: 1 << 1,
  keyEncipherment: 1 << 2,
  dataEncipherment: 1 << 3,
  keyAgreement: 1 << 4,
  keyCertSign: 1 << 5,
  cRLSign: 1 << 6,
  encipherOnly: 1 << 7,
  decipherOnly: 1 << 8,
} as const;

export function keyUsageText(bits: number): string {
  const names: string[] = [];
  for (const [name, bit] of Object.entries(KeyUsageBit)) if ((bits & bit) !== 0) names.push(name);
  return names.length === 0 ? "nothing" : names.join(", ");
}

/** The extensions that the private family knows, as bits of `present`, `critical` and `broken`. */
export const Known = {
  subjectKeyIdentifier: 1 << 0,
  keyUsage: 1 << 1,
  subjectAltName: 1 << 2,
  basicConstraints: 1 << 3,
  nameConstraints: 1 << 4,
  cRLDistributionPoints: 1 << 5,
  certificatePolicies: 1 << 6,
  authorityKeyIdentifier: 1 << 7,
  extKeyUsage: 1 << 8,
  authorityInfoAccess: 1 << 9,
} as const;

const knownNames = Object.keys(Known);

/** Known extension of an OID's content octets, or 0. All but one are 2.5.29.n. */
function knownBit(oid: DerElement): number {
  const { bytes, contentStart, end } = oid;
  if (
    end - contentStart === 3 &&
    bytes[contentStart] === 0x55 &&
    bytes[contentStart + 1] === 0x1d
  ) {
    switch (bytes[contentStart + 2]!) {
      case 14:
        return Known.subjectKeyIdentifier;
      case 15:
        return Known.keyUsage;
      case 17:
        return Known.subjectAltName;
      case 19:
        return Known.basicConstraints;
      case 30:
        return Known.nameConstraints;
      case 31:
        return Known.cRLDistributionPoints;
      case 32:
        return Known.certificatePolicies;
      case 35:
        return Known.authorityKeyIdentifier;
      case 37:
        return Known.extKeyUsage;
      default:
        return 0;
    }
  }
  return contentIs(oid, AUTHORITY_INFO_ACCESS) ? Known.authorityInfoAccess : 0;
}

const AUTHORITY_INFO_ACCESS = Uint8Array.from(Buffer.from("2b06010505070101", "hex"));

export interface UnknownExtension {
  readonly oid: DerElement;
  readonly critical: boolean;
  /** The OCTET STRING. */
  readonly value: DerElement;
}

export interface AccessDescription {
  readonly method: DerElement;
  readonly location: DerElement;
}

/** The extensions, parsed. A bit of `present` without one in `broken` means that the field is there. */
export interface ExtensionsWalk {
  present: number;
  critical: number;
  broken: number;
  /** The keyIdentifier of SKI and of AKI: OCTET STRING contents. */
  subjectKeyIdentifier: DerElement | undefined;
  authorityKeyIdentifier: DerElement | undefined;
  authorityHasIssuerForm: boolean;
  keyUsage: number;
  names: DerElement[];
  cA: boolean;
  /** -1 if absent. */
  pathLen: number;
  nameConstraints: NameConstraints | undefined;
  /** fullName URIs and other names of the CRL distribution points. */
  crlNames: DerElement[];
  extKeyUsage: DerElement[];
  access: AccessDescription[];
  unknown: UnknownExtension[];
}

export interface TbsWalk {
  readonly tbs: Uint8Array;
  /** Content octet of the version, or -1 if it is not encoded; -2 if it is something longer. */
  readonly version: number;
  readonly serialNumber: DerElement;
  readonly signature: DerElement;
  readonly issuer: DerElement;
  readonly notBefore: DerElement;
  readonly notAfter: DerElement;
  /** Milliseconds, or NaN. */
  readonly notBeforeTime: number;
  readonly notAfterTime: number;
  readonly subject: DerElement;
  readonly subjectPublicKeyInfo: DerElement;
  readonly hasUniqueIdentifiers: boolean;
  readonly extensions: ExtensionsWalk;
}

/** Walks a TBSCertificate; undefined, and a finding, if its frame is not DER. */
export function walkTbsCertificate(tbs: Uint8Array, findings: Finding[]): TbsWalk | undefined {
  try {
    const reader = DerReader.inside(DerReader.whole(tbs, Tag.sequence));
    let version = -1;
    const versionField = reader.readOptional(0xa0);
    if (versionField !== undefined) {
      const inside = DerReader.inside(versionField);
      const number = inside.read(Tag.integer);
      inside.finish();
      version = number.end - number.contentStart === 1 ? tbs[number.contentStart]! : -2;
    }
    const serialNumber = reader.read(Tag.integer);
    const signature = reader.read(Tag.sequence);
    const issuer = reader.read(Tag.sequence);
    const validity = DerReader.inside(reader.read(Tag.sequence));
    const notBefore = validity.readAny();
    const notAfter = validity.readAny();
    validity.finish();
    const subject = reader.read(Tag.sequence);
    const subjectPublicKeyInfo = reader.read(Tag.sequence);
    const issuerUniqueId = reader.readOptional(0x81);
    const subjectUniqueId = reader.readOptional(0x82);
    const extensionField = reader.readOptional(0xa3);
    reader.finish();
    return {
      tbs,
      version,
      serialNumber,
      signature,
      issuer,
      notBefore,
      notAfter,
      notBeforeTime: timeOf(notBefore),
      notAfterTime: timeOf(notAfter),
      subject,
      subjectPublicKeyInfo,
      hasUniqueIdentifiers: issuerUniqueId !== undefined || subjectUniqueId !== undefined,
      extensions: walkExtensions(extensionField, findings),
    };
  } catch (error) {
    reportBroken(findings, "CRT-19", "tbsCertificate", error);
    return undefined;
  }
}

function walkExtensions(field: DerElement | undefined, findings: Finding[]): ExtensionsWalk {
  const walk: ExtensionsWalk = {
    present: 0,
    critical: 0,
    broken: 0,
    subjectKeyIdentifier: undefined,
    authorityKeyIdentifier: undefined,
    authorityHasIssuerForm: false,
    keyUsage: 0,
    names: [],
    cA: false,
    pathLen: -1,
    nameConstraints: undefined,
    crlNames: [],
    extKeyUsage: [],
    access: [],
    unknown: [],
  };
  if (field === undefined) return walk;
  const outer = DerReader.inside(field);
  const list = DerReader.inside(outer.read(Tag.sequence));
  outer.finish();
  if (list.atEnd)
    report(findings, "CRT-12", "the extension list is empty; then it has to be absent");
  while (!list.atEnd) {
    const reader = DerReader.inside(list.read(Tag.sequence));
    const oid = readObjectIdentifier(reader);
    const criticalField = reader.readOptional(Tag.boolean);
    const value = reader.read(Tag.octetString);
    reader.finish();
    const bit = knownBit(oid);
    let critical = false;
    if (criticalField !== undefined) {
      critical = booleanIsTrue(criticalField, `critical of ${extensionName(oid)}`, findings);
    }
    if (bit === 0) {
      for (const other of walk.unknown) {
        if (sameContent(other.oid, oid)) {
          report(findings, "CRT-12", `extension ${extensionName(oid)} occurs twice`);
        }
      }
      walk.unknown.push({ oid, critical, value });
      continue;
    }
    if ((walk.present & bit) !== 0) {
      report(findings, "CRT-12", `extension ${extensionName(oid)} occurs twice`);
      continue;
    }
    walk.present |= bit;
    if (critical) walk.critical |= bit;
    try {
      readValue(bit, value, walk, findings);
    } catch (error) {
      walk.broken |= bit;
      reportBroken(findings, "CRT-19", `extension ${extensionName(oid)}`, error);
    }
  }
  return walk;
}

/** CRT-13: a BOOLEAN that is encoded is TRUE, because FALSE is always a default here. */
function booleanIsTrue(element: DerElement, what: string, findings: Finding[]): boolean {
  const octet = booleanOctet(element);
  if (octet === 0) report(findings, "CRT-13", `${what} encodes its default FALSE`);
  else if (octet !== 0xff) {
    report(findings, "CRT-13", `${what} encodes TRUE as ${octet.toString(16)}, not ff`);
  }
  return octet !== 0;
}

export function extensionName(oid: DerElement): string {
  const bit = knownBit(oid);
  const name = knownNames[31 - Math.clz32(bit)];
  return bit !== 0 && name !== undefined ? name : oidText(oid);
}

/** Dotted text for a message; the OID was checked when it was read. */
export function oidText(oid: DerElement): string {
  return objectIdentifierText(oid.bytes.subarray(oid.contentStart, oid.end));
}

function readValue(
  bit: number,
  value: DerElement,
  walk: ExtensionsWalk,
  findings: Finding[],
): void {
  const outer = DerReader.inside(value);
  switch (bit) {
    case Known.subjectKeyIdentifier:
      walk.subjectKeyIdentifier = outer.read(Tag.octetString);
      if (walk.subjectKeyIdentifier.contentStart === walk.subjectKeyIdentifier.end) {
        throw new DerError("empty key identifier", value.start);
      }
      break;
    case Known.keyUsage:
      walk.keyUsage = readKeyUsage(outer.read(Tag.bitString), findings);
      break;
    case Known.subjectAltName:
      walk.names = readGeneralNames(DerReader.inside(outer.read(Tag.sequence)));
      break;
    case Known.basicConstraints: {
      const reader = DerReader.inside(outer.read(Tag.sequence));
      const cA = reader.readOptional(Tag.boolean);
      const pathLen = reader.readOptional(Tag.integer);
      reader.finish();
      if (cA !== undefined) walk.cA = booleanIsTrue(cA, "cA of basicConstraints", findings);
      if (pathLen !== undefined) walk.pathLen = smallNatural(pathLen);
      break;
    }
    case Known.nameConstraints:
      walk.nameConstraints = readNameConstraints(outer.read(Tag.sequence), findings);
      break;
    case Known.cRLDistributionPoints:
      readDistributionPoints(outer.read(Tag.sequence), walk);
      break;
    case Known.certificatePolicies:
      readPolicies(outer.read(Tag.sequence));
      break;
    case Known.authorityKeyIdentifier: {
      const reader = DerReader.inside(outer.read(Tag.sequence));
      walk.authorityKeyIdentifier = reader.readOptional(0x80);
      const issuer = reader.readOptional(0xa1);
      const serialNumber = reader.readOptional(0x82);
      reader.finish();
      if (issuer !== undefined) readGeneralNames(DerReader.inside(issuer));
      if (serialNumber !== undefined) checkNatural(serialNumber);
      walk.authorityHasIssuerForm = issuer !== undefined || serialNumber !== undefined;
      break;
    }
    case Known.extKeyUsage: {
      const list = outer.read(Tag.sequence);
      const reader = DerReader.inside(list);
      if (reader.atEnd) throw new DerError("empty SEQUENCE", list.start);
      while (!reader.atEnd) walk.extKeyUsage.push(readObjectIdentifier(reader));
      break;
    }
    case Known.authorityInfoAccess: {
      const list = outer.read(Tag.sequence);
      const reader = DerReader.inside(list);
      if (reader.atEnd) throw new DerError("empty SEQUENCE", list.start);
      while (!reader.atEnd) {
        const inside = DerReader.inside(reader.read(Tag.sequence));
        const method = readObjectIdentifier(inside);
        const location = readGeneralName(inside);
        inside.finish();
        walk.access.push({ method, location });
      }
      break;
    }
    default:
      throw new RangeError("not a known extension");
  }
  outer.finish();
}

/** RFC 5280 §4.2.1.3; X.690 §11.2: a named bit list has no trailing zero bits, and its padding is zero. */
function readKeyUsage(element: DerElement, findings: Finding[]): number {
  const { bytes, contentStart, end } = element;
  const octets = end - contentStart - 1;
  if (octets < 0) throw new DerError("empty BIT STRING", element.start);
  const unused = bytes[contentStart]!;
  if (unused > 7 || (octets === 0 && unused !== 0)) {
    throw new DerError("impossible count of unused bits", contentStart);
  }
  if (octets === 0) {
    report(findings, "CRT-14", "keyUsage has no bit");
    return 0;
  }
  const last = bytes[end - 1]!;
  if ((last & ((1 << unused) - 1)) !== 0) throw new DerError("unused bits are not zero", end - 1);
  let usage = 0;
  for (let bit = 0; bit < octets * 8; bit++) {
    if ((bytes[contentStart + 1 + (bit >> 3)]! & (0x80 >> (bit & 7))) === 0) continue;
    if (bit > 8) report(findings, "CRT-14", `keyUsage has bit ${bit}, which is not defined`);
    else usage |= 1 << bit;
  }
  if ((last & (1 << unused)) === 0) {
    const encoded = rangeHex(bytes, element.start, end);
    report(
      findings,
      "CRT-14",
      last === 0 && octets === 1
        ? "keyUsage has no bit"
        : `keyUsage ${encoded} has trailing zero bits that DER leaves out`,
    );
  }
  return usage;
}

function readDistributionPoints(list: DerElement, walk: ExtensionsWalk): void {
  const reader = DerReader.inside(list);
  if (reader.atEnd) throw new DerError("empty SEQUENCE", list.start);
  while (!reader.atEnd) {
    const point = reader.read(Tag.sequence);
    const inside = DerReader.inside(point);
    const name = inside.readOptional(0xa0);
    const reasons = inside.readOptional(0x81);
    const issuer = inside.readOptional(0xa2);
    inside.finish();
    if (name === undefined && issuer === undefined) {
      throw new DerError("distribution point with neither name nor cRLIssuer", point.start);
    }
    if (name !== undefined) walk.crlNames.push(...(readDistributionPointName(name) ?? []));
    if (reasons !== undefined && reasons.end - reasons.contentStart < 2) {
      throw new DerError("reasons without a bit", reasons.start);
    }
    if (issuer !== undefined) readGeneralNames(DerReader.inside(issuer));
  }
}

function readPolicies(list: DerElement): void {
  const reader = DerReader.inside(list);
  if (reader.atEnd) throw new DerError("empty SEQUENCE", list.start);
  while (!reader.atEnd) {
    const inside = DerReader.inside(reader.read(Tag.sequence));
    readObjectIdentifier(inside);
    const qualifiers = inside.readOptional(Tag.sequence);
    inside.finish();
    if (qualifiers === undefined) continue;
    if (qualifiers.contentStart === qualifiers.end) {
      throw new DerError("empty policyQualifiers", qualifiers.start);
    }
    checkAnyDer(qualifiers.bytes, qualifiers.start, qualifiers.end);
  }
}

const PURPOSE_PREFIX = Uint8Array.from(Buffer.from("2b060105050703", "hex"));

/** The last arc of 1.3.6.1.5.5.7.3.n, 0 for anyExtendedKeyUsage, -1 for all others. */
export function purposeOf(oid: DerElement): number {
  const { bytes, contentStart, end } = oid;
  const last = bytes[end - 1]!;
  if (rangeIs(bytes, contentStart, end - 1, PURPOSE_PREFIX) && last < 0x80) return last;
  const any = end - contentStart === 4 && bytes[contentStart] === 0x55;
  return any && bytes[contentStart + 1] === 0x1d && bytes[contentStart + 2] === 0x25 && last === 0
    ? 0
    : -1;
}

/** Purposes of id-kp by their last arc. */
export const Purpose = {
  any: 0,
  serverAuth: 1,
  clientAuth: 2,
  codeSigning: 3,
  emailProtection: 4,
  timeStamping: 8,
  OCSPSigning: 9,
} as const;

/** A signed object's frame: what is signed, the outer algorithm, the BIT STRING. */
export interface SignedWalk {
  readonly tbs: DerElement;
  readonly algorithm: DerElement;
  readonly signature: DerElement;
}

/** @throws DerError if it is not a SEQUENCE of the three, or bytes follow. */
export function walkSigned(der: Uint8Array): SignedWalk {
  const reader = DerReader.inside(DerReader.whole(der, Tag.sequence));
  const tbs = reader.read(Tag.sequence);
  const algorithm = reader.read(Tag.sequence);
  const signature = reader.read(Tag.bitString);
  reader.finish();
  if (signature.contentStart === signature.end) {
    throw new DerError("empty BIT STRING", signature.start);
  }
  return { tbs, algorithm, signature };
}
