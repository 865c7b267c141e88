/**
 * Extensions: RFC 5280 §4.2 (certificates), §5.2 (CRLs), §5.3 (CRL entries).
 *
 * `parse…` takes an extension's value (the content of its OCTET STRING) and throws DerError for anything but
 * the one DER encoding, trailing bytes included. `encode…` gives such a value.
 */

import {
  bitString,
  bitStringValue,
  booleanTrue,
  booleanValue,
  concat,
  contentOf,
  contextTag,
  DerError,
  DerReader,
  element,
  encodingOf,
  generalizedTimeValue,
  generalizedTime,
  integer,
  integerOctets,
  integerValue,
  objectIdentifier,
  objectIdentifierText,
  octetString,
  sequence,
  Tag,
  type DerElement,
} from "./der.ts";
import {
  encodeGeneralNames,
  generalName,
  generalNamesInside,
  namedByText,
  type GeneralName,
} from "./general-name.ts";
import { accessMethodOids } from "./oid.ts";

export interface Extension {
  readonly oid: string;
  readonly critical: boolean;
  /** The content of the OCTET STRING. */
  readonly value: Uint8Array;
}

/**
 * Reads `SEQUENCE SIZE (1..MAX) OF Extension`.
 *
 * @throws DerError also if the list is empty, an OID occurs twice (CRT-12, CRL-79) or critical FALSE is
 *   encoded (CRT-13).
 */
export function readExtensions(list: DerElement): Extension[] {
  const reader = DerReader.inside(list);
  if (reader.atEnd) throw new DerError("empty list of extensions", list.start);
  const extensions: Extension[] = [];
  const seen = new Set<string>(); // a search through the list would be quadratic in what a stranger sends
  while (!reader.atEnd) {
    const start = reader.offset;
    const extension = readExtension(reader);
    if (seen.has(extension.oid)) {
      throw new DerError(`extension ${extension.oid} occurs twice`, start);
    }
    seen.add(extension.oid);
    extensions.push(extension);
  }
  return extensions;
}

function readExtension(reader: DerReader): Extension {
  const fields = DerReader.inside(reader.read(Tag.sequence));
  const oid = objectIdentifierText(contentOf(fields.read(Tag.objectIdentifier)));
  const critical = readDefaultFalse(fields, Tag.boolean);
  const value = contentOf(fields.read(Tag.octetString));
  fields.finish();
  return { oid, critical, value };
}

/** BOOLEAN DEFAULT FALSE under the given tag; DER never encodes the default (X.690 §11.5). */
function readDefaultFalse(reader: DerReader, tag: number): boolean {
  const flag = reader.readOptional(tag);
  if (flag === undefined) return false;
  if (!booleanValue(flag)) throw new DerError("default FALSE is encoded", flag.start);
  return true;
}

/** One Extension. */
export function encodeExtension({ oid, critical, value }: Extension): Uint8Array {
  return extensionEncoder(oid, critical)(value);
}

/** `encodeExtension` for one OID and criticality, which are encoded only once. */
export function extensionEncoder(
  oid: string,
  critical: boolean,
): (value: Uint8Array) => Uint8Array {
  const head = concat(objectIdentifier(oid), critical ? booleanTrue : new Uint8Array(0));
  return (value) => sequence(head, octetString(value));
}

// §4.2.1.9

export interface BasicConstraints {
  readonly cA: boolean;
  readonly pathLen?: number;
}

export function parseBasicConstraints(value: Uint8Array): BasicConstraints {
  const reader = DerReader.inside(DerReader.whole(value, Tag.sequence));
  const cA = readDefaultFalse(reader, Tag.boolean);
  const pathLen = reader.readOptional(Tag.integer);
  reader.finish();
  if (pathLen === undefined) return { cA };
  if (!cA) throw new DerError("pathLenConstraint without cA", pathLen.start);
  return { cA, pathLen: integerValue(pathLen) };
}

/** @throws RangeError if a path length is given without cA (CRT-15), or is not a whole number from 0. */
export function encodeBasicConstraints({ cA, pathLen }: BasicConstraints): Uint8Array {
  if (!cA && pathLen !== undefined) throw new RangeError("pathLen needs cA (CRT-15)");
  const parts: Uint8Array[] = [];
  if (cA) parts.push(booleanTrue);
  if (pathLen !== undefined) parts.push(integer(pathLen));
  return sequence(...parts);
}

// §4.2.1.3

/** Names in the order of their bits. */
export const keyUsages = [
  "digitalSignature",
  "nonRepudiation",
  "keyEncipherment",
  "dataEncipherment",
  "keyAgreement",
  "keyCertSign",
  "cRLSign",
  "encipherOnly",
  "decipherOnly",
] as const;

export type KeyUsage = (typeof keyUsages)[number];

/** @throws DerError also if no bit is set or the last one is zero (CRT-14), or a bit has no name. */
export function parseKeyUsage(value: Uint8Array): KeyUsage[] {
  return namedBits(DerReader.whole(value, Tag.bitString)).map((bit) => {
    const usage = keyUsages[bit];
    if (usage === undefined) throw new DerError("key usage bit without a name", 0);
    return usage;
  });
}

/** Numbers of the bits set in a named bit list: X.690 §11.2.2. */
function namedBits(list: DerElement): number[] {
  const { octets, unusedBits } = bitStringValue(list);
  const length = octets.length * 8 - unusedBits;
  const bits: number[] = [];
  for (let bit = 0; bit < length; bit++) {
    if (octets[bit >> 3]! & (0x80 >> (bit & 7))) bits.push(bit);
  }
  if (bits.length === 0) throw new DerError("no bit is set", list.start);
  if (bits.at(-1) !== length - 1) throw new DerError("trailing zero bit", list.start);
  return bits;
}

/** @throws RangeError if there is none (CRT-14). */
export function encodeKeyUsage(usages: readonly KeyUsage[]): Uint8Array {
  const bits = usages.map((usage) => keyUsages.indexOf(usage));
  const last = Math.max(...bits);
  if (bits.length === 0 || bits.includes(-1)) throw new RangeError("no such key usage (CRT-14)");
  const octets = new Uint8Array((last >> 3) + 1);
  for (const bit of bits) octets[bit >> 3]! |= 0x80 >> (bit & 7);
  return bitString(octets, 7 - (last & 7));
}

// §4.2.1.12

/** @returns Dotted text. @throws DerError also if there is none. */
export function parseExtKeyUsage(value: Uint8Array): string[] {
  const reader = DerReader.inside(DerReader.whole(value, Tag.sequence));
  const purposes: string[] = [];
  while (!reader.atEnd) {
    purposes.push(objectIdentifierText(contentOf(reader.read(Tag.objectIdentifier))));
  }
  if (purposes.length === 0) throw new DerError("empty extKeyUsage", 0);
  return purposes;
}

/** @throws RangeError if there is none. */
export function encodeExtKeyUsage(purposes: readonly string[]): Uint8Array {
  if (purposes.length === 0) throw new RangeError("extKeyUsage has at least one purpose");
  return sequence(...purposes.map(objectIdentifier));
}

// §4.2.1.1, §4.2.1.2

export interface AuthorityKeyIdentifier {
  readonly keyIdentifier?: Uint8Array;
  readonly authorityCertIssuer?: readonly GeneralName[];
  /** Content octets of the INTEGER. */
  readonly authorityCertSerialNumber?: Uint8Array;
}

export function parseAuthorityKeyIdentifier(value: Uint8Array): AuthorityKeyIdentifier {
  const reader = DerReader.inside(DerReader.whole(value, Tag.sequence));
  const keyIdentifier = reader.readOptional(contextTag(0, false));
  const issuer = reader.readOptional(contextTag(1, true));
  const serialNumber = reader.readOptional(contextTag(2, false));
  reader.finish();
  if ((issuer === undefined) !== (serialNumber === undefined)) {
    throw new DerError("authorityCertIssuer and authorityCertSerialNumber come together", 0);
  }
  return {
    ...(keyIdentifier && { keyIdentifier: contentOf(keyIdentifier) }),
    ...(issuer && { authorityCertIssuer: generalNamesInside(issuer) }),
    ...(serialNumber && { authorityCertSerialNumber: integerOctets(serialNumber) }),
  };
}

/** The keyIdentifier form only (CRT-16, CRL-52). */
export function encodeAuthorityKeyIdentifier(keyIdentifier: Uint8Array): Uint8Array {
  return sequence(element(contextTag(0, false), keyIdentifier));
}

export function parseSubjectKeyIdentifier(value: Uint8Array): Uint8Array {
  const keyIdentifier = contentOf(DerReader.whole(value, Tag.octetString));
  if (keyIdentifier.length === 0) throw new DerError("empty subjectKeyIdentifier", 0);
  return keyIdentifier;
}

export function encodeSubjectKeyIdentifier(keyIdentifier: Uint8Array): Uint8Array {
  return octetString(keyIdentifier);
}

// §4.2.1.6: parseGeneralNames and encodeGeneralNames of general-name.ts are the value.

// §4.2.1.13

export interface DistributionPoint {
  readonly fullName?: readonly GeneralName[];
  /** The whole `[1]` element of a name relative to the CRL issuer. */
  readonly nameRelativeToCRLIssuer?: Uint8Array;
  /** Bits of ReasonFlags: 1 is keyCompromise, 8 aACompromise. */
  readonly reasons?: readonly number[];
  readonly cRLIssuer?: readonly GeneralName[];
}

export function parseDistributionPoints(value: Uint8Array): DistributionPoint[] {
  const reader = DerReader.inside(DerReader.whole(value, Tag.sequence));
  const points: DistributionPoint[] = [];
  while (!reader.atEnd) points.push(readDistributionPoint(reader.read(Tag.sequence)));
  if (points.length === 0) throw new DerError("empty cRLDistributionPoints", 0);
  return points;
}

function readDistributionPoint(point: DerElement): DistributionPoint {
  const reader = DerReader.inside(point);
  const name = reader.readOptional(contextTag(0, true));
  const reasons = reader.readOptional(contextTag(1, false));
  const cRLIssuer = reader.readOptional(contextTag(2, true));
  reader.finish();
  if (name === undefined && cRLIssuer === undefined) {
    throw new DerError("distribution point names nothing", point.start);
  }
  return {
    ...(name && readDistributionPointName(name)),
    ...(reasons && { reasons: reasonFlags(reasons) }),
    ...(cRLIssuer && { cRLIssuer: generalNamesInside(cRLIssuer) }),
  };
}

function readDistributionPointName(
  name: DerElement,
): Pick<DistributionPoint, "fullName" | "nameRelativeToCRLIssuer"> {
  const reader = DerReader.inside(name);
  const choice = reader.readAny();
  reader.finish();
  if (choice.tag === contextTag(0, true)) return { fullName: generalNamesInside(choice) };
  if (choice.tag === contextTag(1, true)) return { nameRelativeToCRLIssuer: encodingOf(choice) };
  throw new DerError("not a DistributionPointName", choice.start);
}

function reasonFlags(flags: DerElement): number[] {
  const bits = namedBits(flags);
  if (bits.at(-1)! > 8) throw new DerError("reason flag without a name", flags.start);
  return bits;
}

/** One distribution point with one URI (ICA-06). */
export function encodeDistributionPoint(uri: string): Uint8Array {
  return sequence(sequence(distributionPointName(uri)));
}

function distributionPointName(uri: string): Uint8Array {
  const names = contentOf(DerReader.whole(encodeGeneralNames([{ kind: "uri", value: uri }]), 0x30));
  return element(contextTag(0, true), element(contextTag(0, true), names));
}

// §4.2.2.1

export interface AccessDescription {
  /** Dotted text. */
  readonly method: string;
  readonly location: GeneralName;
}

export function parseAuthorityInfoAccess(value: Uint8Array): AccessDescription[] {
  const reader = DerReader.inside(DerReader.whole(value, Tag.sequence));
  const descriptions: AccessDescription[] = [];
  while (!reader.atEnd) {
    const fields = DerReader.inside(reader.read(Tag.sequence));
    const method = objectIdentifierText(contentOf(fields.read(Tag.objectIdentifier)));
    descriptions.push({ method, location: generalName(fields.readAny()) });
    fields.finish();
  }
  if (descriptions.length === 0) throw new DerError("empty authorityInfoAccess", 0);
  return descriptions;
}

/** caIssuers with one URI (ICA-07). */
export function encodeAuthorityInfoAccess(caIssuers: string): Uint8Array {
  const location = contentOf(
    DerReader.whole(encodeGeneralNames([{ kind: "uri", value: caIssuers }]), Tag.sequence),
  );
  return sequence(sequence(objectIdentifier(accessMethodOids.caIssuers), location));
}

// §4.2.1.10

/** The base of a subtree. An IP range is an address and a mask of the same length, 4 or 16 octets each. */
export type NameConstraint =
  | { readonly kind: "dns" | "email" | "uri"; readonly value: string }
  | { readonly kind: "ip"; readonly address: Uint8Array; readonly mask: Uint8Array }
  | {
      readonly kind: "other" | "x400" | "directory" | "edi" | "registered";
      readonly der: Uint8Array;
    };

export interface NameConstraints {
  readonly permitted: readonly NameConstraint[];
  readonly excluded: readonly NameConstraint[];
}

/** @throws DerError also if it is empty (NC-01), or minimum or maximum is encoded (NC-03). */
export function parseNameConstraints(value: Uint8Array): NameConstraints {
  const reader = DerReader.inside(DerReader.whole(value, Tag.sequence));
  const permitted = reader.readOptional(contextTag(0, true));
  const excluded = reader.readOptional(contextTag(1, true));
  reader.finish();
  if (permitted === undefined && excluded === undefined) {
    throw new DerError("empty nameConstraints", 0);
  }
  return {
    permitted: permitted ? readSubtrees(permitted) : [],
    excluded: excluded ? readSubtrees(excluded) : [],
  };
}

function readSubtrees(subtrees: DerElement): NameConstraint[] {
  const reader = DerReader.inside(subtrees);
  const bases: NameConstraint[] = [];
  while (!reader.atEnd) {
    const fields = DerReader.inside(reader.read(Tag.sequence));
    bases.push(nameConstraint(fields.readAny()));
    fields.finish();
  }
  if (bases.length === 0) throw new DerError("empty GeneralSubtrees", subtrees.start);
  return bases;
}

function nameConstraint(base: DerElement): NameConstraint {
  const named = namedByText(base);
  if (named !== undefined) return named;
  if (base.tag === contextTag(7, false)) {
    const octets = contentOf(base);
    const half = octets.length / 2;
    if (half !== 4 && half !== 16) {
      throw new DerError("iPAddress range has neither 8 nor 32 octets", base.start);
    }
    return { kind: "ip", address: octets.subarray(0, half), mask: octets.subarray(half) };
  }
  const other = generalName(base);
  if (!("der" in other)) throw new DerError("not a name constraint", base.start);
  return other;
}

/** @throws RangeError if both lists are empty (NC-01). */
export function encodeNameConstraints({ permitted, excluded }: NameConstraints): Uint8Array {
  if (permitted.length + excluded.length === 0) throw new RangeError("no name constraint (NC-01)");
  const parts: Uint8Array[] = [];
  if (permitted.length > 0) parts.push(encodeSubtrees(contextTag(0, true), permitted));
  if (excluded.length > 0) parts.push(encodeSubtrees(contextTag(1, true), excluded));
  return sequence(...parts);
}

function encodeSubtrees(tag: number, bases: readonly NameConstraint[]): Uint8Array {
  return element(tag, ...bases.map((base) => sequence(encodeNameConstraint(base))));
}

const textTags = { email: 1, dns: 2, uri: 6 } as const;

function encodeNameConstraint(base: NameConstraint): Uint8Array {
  if ("der" in base) return base.der;
  if (base.kind === "ip") return element(contextTag(7, false), base.address, base.mask);
  if (!/^[\x21-\x7e]*$/.test(base.value)) throw new RangeError("a name constraint is ASCII");
  const octets = Uint8Array.from(Buffer.from(base.value, "latin1"));
  return element(contextTag(textTags[base.kind], false), octets); // dns may be empty: NC-06
}

// §5.2.3

/** CRL-56. */
export const MAX_CRL_NUMBER = 2n ** 159n - 1n;

/** @throws DerError also if it is negative or has more than 20 octets (CRL-56). */
export function parseCrlNumber(value: Uint8Array): bigint {
  const number = DerReader.whole(value, Tag.integer);
  const octets = integerOctets(number);
  if (octets[0]! >= 0x80 || octets.length > 20) {
    throw new DerError("CRL number is not 0 to 2^159 - 1", number.start);
  }
  return BigInt(`0x${Buffer.from(octets).toString("hex")}`);
}

/** @throws RangeError outside 0 … 2^159 − 1 (CRL-56). */
export function encodeCrlNumber(number: bigint): Uint8Array {
  if (number < 0n || number > MAX_CRL_NUMBER) {
    throw new RangeError("CRL number is not 0 to 2^159 - 1 (CRL-56)");
  }
  return integer(number);
}

// §5.3.1, §5.3.2

/** CRLReason by name; 7 is not used. */
export const crlReasonCodes = {
  unspecified: 0,
  keyCompromise: 1,
  cACompromise: 2,
  affiliationChanged: 3,
  superseded: 4,
  cessationOfOperation: 5,
  certificateHold: 6,
  removeFromCRL: 8,
  privilegeWithdrawn: 9,
  aACompromise: 10,
} as const;

export type CrlReason = keyof typeof crlReasonCodes;

/** Reasons by code; holes where there is none (CRL-30). */
export const crlReasons: readonly (CrlReason | undefined)[] = Array.from(
  { length: 11 },
  (_, code) =>
    (Object.keys(crlReasonCodes) as CrlReason[]).find((reason) => crlReasonCodes[reason] === code),
);

/** @throws DerError also for 7 and above 10 (CRL-30). */
export function parseReasonCode(value: Uint8Array): CrlReason {
  const code = DerReader.whole(value, Tag.enumerated);
  const reason = crlReasons[integerValue(code)];
  if (reason === undefined) throw new DerError("no such CRL reason", code.start);
  return reason;
}

/** Value 0 is expressed by absence (CRL-29), so it is not for this function. */
export function encodeReasonCode(reason: Exclude<CrlReason, "unspecified">): Uint8Array {
  return element(Tag.enumerated, Uint8Array.of(crlReasonCodes[reason]));
}

export function parseInvalidityDate(value: Uint8Array): Date {
  return generalizedTimeValue(DerReader.whole(value, Tag.generalizedTime));
}

export function encodeInvalidityDate(date: Date): Uint8Array {
  return generalizedTime(date);
}

// §5.2.5

export interface IssuingDistributionPoint {
  readonly fullName?: readonly GeneralName[];
  readonly nameRelativeToCRLIssuer?: Uint8Array;
  readonly onlyContainsUserCerts: boolean;
  readonly onlyContainsCACerts: boolean;
  readonly onlySomeReasons?: readonly number[];
  readonly indirectCRL: boolean;
  readonly onlyContainsAttributeCerts: boolean;
}

/** @throws DerError also if it is empty (CRL-59). */
export function parseIssuingDistributionPoint(value: Uint8Array): IssuingDistributionPoint {
  const reader = DerReader.inside(DerReader.whole(value, Tag.sequence));
  if (reader.atEnd) throw new DerError("empty issuingDistributionPoint", 0);
  const name = reader.readOptional(contextTag(0, true));
  const onlyContainsUserCerts = readDefaultFalse(reader, contextTag(1, false));
  const onlyContainsCACerts = readDefaultFalse(reader, contextTag(2, false));
  const onlySomeReasons = reader.readOptional(contextTag(3, false));
  const indirectCRL = readDefaultFalse(reader, contextTag(4, false));
  const onlyContainsAttributeCerts = readDefaultFalse(reader, contextTag(5, false));
  reader.finish();
  return {
    ...(name && readDistributionPointName(name)),
    onlyContainsUserCerts,
    onlyContainsCACerts,
    ...(onlySomeReasons && { onlySomeReasons: reasonFlags(onlySomeReasons) }),
    indirectCRL,
    onlyContainsAttributeCerts,
  };
}
