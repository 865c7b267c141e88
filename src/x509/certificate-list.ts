/** Certificate revocation lists: RFC 5280 §5, rules CRL-01 to CRL-56 and CRL-78 to CRL-80. */

import {
  concat,
  contextTag,
  DerError,
  DerReader,
  element,
  equalOctets,
  generalizedTime,
  headerOf,
  integer,
  integerOctets,
  integerValue,
  objectIdentifier,
  readTime,
  sequence,
  Tag,
  time,
  type DerElement,
} from "./der.ts";
import { extensionOf, readName, readWrappedExtensions } from "./certificate.ts";
import {
  crlReasonCodes,
  crlReasons,
  encodeAuthorityKeyIdentifier,
  encodeCrlNumber,
  encodeExtension,
  parseAuthorityKeyIdentifier,
  parseCrlNumber,
  parseInvalidityDate,
  parseReasonCode,
  readExtensions,
  type CrlReason,
  type Extension,
} from "./extension.ts";
import { readIssuer, type Issuer } from "./issuer.ts";
import { extensionOids } from "./oid.ts";
import { compareSerialNumbers, isSerialNumber } from "./serial-number.ts";
import { parseSigned, readAlgorithmIdentifier } from "./signed.ts";

export { crlReasonCodes, type CrlReason } from "./extension.ts";

export interface RevokedCertificate {
  /** Content octets of the INTEGER. */
  readonly serialNumber: Uint8Array;
  readonly revocationDate: Date;
  /** `unspecified` is no extension (CRL-29). */
  readonly reason: CrlReason;
  readonly invalidityDate?: Date;
}

export interface TbsCertList {
  /** The TBSCertList, DER. */
  readonly tbs: Uint8Array;
  /** AlgorithmIdentifier, DER. */
  readonly signatureAlgorithm: Uint8Array;
  /** Name, DER. */
  readonly issuer: Uint8Array;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date;
  readonly crlNumber: bigint;
  /** The keyIdentifier of the extension. */
  readonly authorityKeyIdentifier: Uint8Array;
  readonly extensions: readonly Extension[];
  /**
   * The entries in the order they have in the list, each read only when it is asked for, so that a broken one
   * throws DerError from the iteration. Can be called again.
   */
  entries(): Iterable<RevokedCertificate>;
}

export interface CertificateList extends TbsCertList {
  readonly der: Uint8Array;
  readonly signature: Uint8Array;
}

/**
 * Reads a CertificateList.
 *
 * @throws DerError as `parseTbsCertList`, and if the inner and the outer algorithm differ (CRL-02).
 */
export function parseCertificateList(der: Uint8Array): CertificateList {
  const { tbs, signatureAlgorithm, signature } = parseSigned(der);
  const list = parseTbsCertList(tbs);
  if (!equalOctets(signatureAlgorithm, list.signatureAlgorithm)) {
    throw new DerError("signature algorithm differs inside and outside (CRL-02)", 0);
  }
  return { ...list, der, signature };
}

/**
 * Reads a TBSCertList, except its entries.
 *
 * @throws DerError for everything but the one DER encoding, and if version v2, nextUpdate, the key identifier or
 *   the CRL number is missing (CRL-01, CRL-11, CRL-50, CRL-54) or the list of entries is empty (CRL-20).
 */
export function parseTbsCertList(tbs: Uint8Array): TbsCertList {
  const reader = DerReader.inside(DerReader.whole(tbs, Tag.sequence));
  const version = reader.read(Tag.integer);
  if (integerValue(version) !== 1) throw new DerError("CRL is not v2 (CRL-01)", version.start);
  const signatureAlgorithm = readAlgorithmIdentifier(reader);
  const issuer = readName(reader);
  const thisUpdate = readTime(reader);
  const nextUpdate = readTime(reader);
  const revoked = reader.readOptional(Tag.sequence);
  if (revoked !== undefined && revoked.contentStart === revoked.end) {
    throw new DerError("empty list of revoked certificates (CRL-20)", revoked.start);
  }
  const extensions = readWrappedExtensions(reader.readOptional(contextTag(0, true)));
  reader.finish();
  const value = (name: "authorityKeyIdentifier" | "cRLNumber"): Uint8Array => {
    const extension = extensionOf({ extensions }, extensionOids[name]);
    if (extension === undefined) throw new DerError(`CRL has no ${name}`, 0);
    return extension.value;
  };
  const { keyIdentifier } = parseAuthorityKeyIdentifier(value("authorityKeyIdentifier"));
  if (keyIdentifier === undefined) throw new DerError("CRL has no key identifier (CRL-50)", 0);
  return {
    tbs,
    signatureAlgorithm,
    issuer,
    thisUpdate,
    nextUpdate,
    crlNumber: parseCrlNumber(value("cRLNumber")),
    authorityKeyIdentifier: keyIdentifier,
    extensions,
    entries: () => (revoked === undefined ? [] : readEntries(revoked)),
  };
}

function* readEntries(revoked: DerElement): Generator<RevokedCertificate> {
  const reader = DerReader.inside(revoked);
  while (!reader.atEnd) yield readEntry(reader.read(Tag.sequence));
}

function readEntry(entry: DerElement): RevokedCertificate {
  const reader = DerReader.inside(entry);
  const serialNumber = integerOctets(reader.read(Tag.integer));
  const revocationDate = readTime(reader);
  const list = reader.readOptional(Tag.sequence);
  reader.finish();
  if (list === undefined) return { serialNumber, revocationDate, reason: "unspecified" };
  const reason = plainReason(list);
  return reason === undefined
    ? { serialNumber, revocationDate, ...readEntryExtensions(list) }
    : { serialNumber, revocationDate, reason };
}

const reasonExtensionStart: Uint8Array = concat(
  Uint8Array.of(Tag.sequence, 10),
  objectIdentifier(extensionOids.reasonCode),
  Uint8Array.of(Tag.octetString, 3, Tag.enumerated, 1),
);
const REASON_EXTENSION_OCTETS = reasonExtensionStart.length + 1;

/** The reason of entries with that extension alone, which nearly all are, without taking it apart. */
function plainReason({ bytes, contentStart, end }: DerElement): CrlReason | undefined {
  if (end - contentStart !== REASON_EXTENSION_OCTETS) return undefined;
  for (let i = 0; i < reasonExtensionStart.length; i++) {
    if (bytes[contentStart + i] !== reasonExtensionStart[i]) return undefined;
  }
  return crlReasons[bytes[end - 1]!];
}

function readEntryExtensions(
  list: DerElement,
): Pick<RevokedCertificate, "reason" | "invalidityDate"> {
  let reason: CrlReason = "unspecified";
  let invalidityDate: Date | undefined;
  for (const { oid, value } of readExtensions(list)) {
    if (oid === extensionOids.reasonCode) reason = parseReasonCode(value);
    else if (oid === extensionOids.invalidityDate) invalidityDate = parseInvalidityDate(value);
    // A certificateIssuer would make the entry another issuer's, also where it is not critical.
    else throw new DerError(`unknown entry extension ${oid} (CRL-38)`, list.start);
  }
  return invalidityDate === undefined ? { reason } : { reason, invalidityDate };
}

/** What a new CRL says. */
export interface CertificateListFields {
  /** DER. */
  readonly issuerCertificate: Uint8Array;
  /** Fractions of a second are dropped from all times. */
  readonly thisUpdate: Date;
  readonly nextUpdate: Date;
  readonly number: bigint;
  /** In any order; fastest if already sorted as `compareSerialNumbers` does. */
  readonly entries: readonly RevokedCertificate[];
}

/**
 * Builds the TBSCertList of a complete CRL: authority key identifier and CRL number are its extensions, the
 * entries are sorted by serial number (CRL-43).
 *
 * @returns DER.
 * @throws DerError if the issuer certificate is broken.
 * @throws RangeError if the issuer may not sign CRLs (CRL-07), or the fields break CRL-12, CRL-15, CRL-21 to
 *   CRL-23, CRL-32 or CRL-56.
 */
export function buildTbsCertList(fields: CertificateListFields): Uint8Array {
  const issuer = readIssuer(fields.issuerCertificate);
  checkHeader(fields, issuer);
  const { entries } = fields;
  for (const entry of entries) checkEntry(entry, fields.thisUpdate);
  const { offsets, length } = placesOf(entries);
  const before = concat(
    integer(1),
    issuer.signatureAlgorithm.identifier,
    issuer.name,
    time(fields.thisUpdate),
    time(fields.nextUpdate),
    entries.length === 0 ? new Uint8Array(0) : headerOf(Tag.sequence, length),
  );
  const after = encodeListExtensions(issuer.keyIdentifier, fields.number);
  const header = headerOf(Tag.sequence, before.length + length + after.length);
  const tbs = new Uint8Array(header.length + before.length + length + after.length);
  tbs.set(header);
  tbs.set(before, header.length);
  writeEntries(tbs, header.length + before.length, entries, offsets);
  tbs.set(after, tbs.length - after.length);
  return tbs;
}

function checkHeader(fields: CertificateListFields, issuer: Issuer): void {
  if (!issuer.keyUsage.includes("cRLSign")) {
    throw new RangeError("issuer certificate has no cRLSign (CRL-07)");
  }
  const thisUpdate = wholeSeconds(fields.thisUpdate);
  const nextUpdate = wholeSeconds(fields.nextUpdate);
  if (!(thisUpdate < nextUpdate)) {
    throw new RangeError("nextUpdate is not after thisUpdate (CRL-12)");
  }
  if (thisUpdate < wholeSeconds(issuer.notBefore) || nextUpdate > wholeSeconds(issuer.notAfter)) {
    throw new RangeError("the CRL begins before its issuer or outlives it (CRL-15)");
  }
}

function wholeSeconds(date: Date): number {
  return Math.floor(date.getTime() / 1000);
}

function checkEntry(
  { serialNumber, revocationDate, reason }: RevokedCertificate,
  thisUpdate: Date,
): void {
  if (!isSerialNumber(serialNumber)) {
    throw new RangeError(
      "serial number is not positive, minimal and of at most 20 octets (CRL-21)",
    );
  }
  if (!(wholeSeconds(revocationDate) <= wholeSeconds(thisUpdate))) {
    throw new RangeError("a revocation date is after thisUpdate (CRL-23)");
  }
  if (reason === "removeFromCRL") {
    throw new RangeError("removeFromCRL is only for a delta CRL (CRL-32)");
  }
}

/**
 * Where each entry goes, so that entries can be written in the order they come in: memory is then read from
 * front to back, which with a million entries is worth more than anything else.
 *
 * @returns For each entry its offset from the first one, and the length of all.
 */
function placesOf(entries: readonly RevokedCertificate[]): {
  offsets: Uint32Array;
  length: number;
} {
  const lengths = new Uint8Array(entries.length);
  for (let i = 0; i < lengths.length; i++) lengths[i] = 2 + entryLength(entries[i]!);
  const offsets = new Uint32Array(entries.length);
  let length = 0;
  for (const i of serialOrder(entries)) {
    offsets[i] = length;
    length += lengths[i]!;
  }
  return { offsets, length };
}

/**
 * Indices of the entries by ascending serial number.
 *
 * @throws RangeError if one occurs twice.
 */
function serialOrder(entries: readonly RevokedCertificate[]): Uint32Array {
  let order = new Uint32Array(entries.length);
  for (let i = 0; i < order.length; i++) order[i] = i;
  if (isAscending(entries, order)) return order;
  // Sorting a million by comparison takes 20 million comparisons, a radix sort by length and first six octets
  // four passes. Comparing is left for serial numbers that agree in those.
  for (const digits of sortKeys(entries)) order = sortedBy(order, digits);
  if (isAscending(entries, order)) return order;
  order.sort((a, b) => compareSerialNumbers(entries[a]!.serialNumber, entries[b]!.serialNumber));
  if (!isAscending(entries, order)) throw new RangeError("a serial number occurs twice (CRL-22)");
  return order;
}

function isAscending(entries: readonly RevokedCertificate[], order: Uint32Array): boolean {
  let previous: Uint8Array | undefined;
  for (const i of order) {
    const { serialNumber } = entries[i]!;
    if (previous !== undefined && compareSerialNumbers(previous, serialNumber) >= 0) return false;
    previous = serialNumber;
  }
  return true;
}

/** Digits of 16 bits, the least significant first: the sixth and fifth octet, …, and the length. */
function sortKeys(entries: readonly RevokedCertificate[]): Uint16Array[] {
  const first = new Uint16Array(entries.length);
  const second = new Uint16Array(entries.length);
  const third = new Uint16Array(entries.length);
  const lengths = new Uint16Array(entries.length);
  for (let i = 0; i < entries.length; i++) {
    const { serialNumber: octets } = entries[i]!;
    first[i] = (octets[0]! << 8) | (octets[1] ?? 0);
    second[i] = ((octets[2] ?? 0) << 8) | (octets[3] ?? 0);
    third[i] = ((octets[4] ?? 0) << 8) | (octets[5] ?? 0);
    lengths[i] = octets.length;
  }
  return [third, second, first, lengths];
}

/** One stable pass of a radix sort. */
function sortedBy(order: Uint32Array<ArrayBuffer>, digits: Uint16Array): Uint32Array<ArrayBuffer> {
  const next = new Uint32Array(0x10001);
  for (const digit of digits) next[digit + 1]!++;
  for (let digit = 1; digit < next.length; digit++) next[digit]! += next[digit - 1]!;
  const sorted = new Uint32Array(order.length);
  for (const i of order) sorted[next[digits[i]!]!++] = i;
  return sorted;
}

/** Start of the invalidityDate extension up to the digits; CRL-36: GeneralizedTime, not critical. */
const invalidityExtensionStart: Uint8Array = concat(
  Uint8Array.of(Tag.sequence, 24),
  objectIdentifier(extensionOids.invalidityDate),
  Uint8Array.of(Tag.octetString, 17, Tag.generalizedTime, 15),
);
const INVALIDITY_EXTENSION_OCTETS = invalidityExtensionStart.length + 15;

function entryExtensionsLength({ reason, invalidityDate }: RevokedCertificate): number {
  return (
    (reason === "unspecified" ? 0 : REASON_EXTENSION_OCTETS) +
    (invalidityDate === undefined ? 0 : INVALIDITY_EXTENSION_OCTETS)
  );
}

/** Content octets of an entry: 79 at most, so that every length in it is one octet. */
function entryLength(entry: RevokedCertificate): number {
  const extensions = entryExtensionsLength(entry);
  const time = entry.revocationDate.getTime() < year2050 ? 15 : 17;
  return 2 + entry.serialNumber.length + time + (extensions === 0 ? 0 : 2 + extensions);
}

const year2050 = Date.UTC(2050, 0);

function writeEntries(
  target: Uint8Array,
  start: number,
  entries: readonly RevokedCertificate[],
  offsets: Uint32Array,
): void {
  const writeDate = dateWriter();
  let offset = start;
  const writeHeader = (tag: number, length: number): void => {
    target[offset++] = tag;
    target[offset++] = length;
  };
  for (const [i, entry] of entries.entries()) {
    const { serialNumber, revocationDate, reason, invalidityDate } = entry;
    offset = start + offsets[i]!;
    writeHeader(Tag.sequence, entryLength(entry));
    writeHeader(Tag.integer, serialNumber.length);
    for (const octet of serialNumber) target[offset++] = octet;
    const short = revocationDate.getTime() < year2050;
    writeHeader(short ? Tag.utcTime : Tag.generalizedTime, short ? 13 : 15);
    offset = writeDate(target, offset, revocationDate, short);

    const extensions = entryExtensionsLength(entry);
    if (extensions === 0) continue;
    writeHeader(Tag.sequence, extensions);
    if (reason !== "unspecified") {
      target.set(reasonExtensionStart, offset);
      offset += reasonExtensionStart.length;
      target[offset++] = crlReasonCodes[reason];
    }
    if (invalidityDate !== undefined) {
      target.set(invalidityExtensionStart, offset);
      offset += invalidityExtensionStart.length;
      offset = writeDate(target, offset, invalidityDate, false);
    }
  }
}

const DAY = 86_400_000;

/** Writes `[YY]YYMMDDHHMMSSZ` and returns the offset after it. It finds the date of each day only once. */
function dateWriter(): (target: Uint8Array, at: number, date: Date, short: boolean) => number {
  const calendar = new Map<number, Uint8Array>();
  return (target, at, date, short) => {
    const instant = date.getTime();
    const day = Math.floor(instant / DAY);
    let digits = calendar.get(day);
    if (digits === undefined) {
      // GeneralizedTime without its header; refuses years that cannot be encoded.
      digits = generalizedTime(date).subarray(2, 10);
      calendar.set(day, digits);
    }
    let offset = at;
    for (let i = short ? 2 : 0; i < 8; i++) target[offset++] = digits[i]!;
    const seconds = Math.floor((instant - day * DAY) / 1000);
    offset = writeTwoDigits(target, offset, Math.floor(seconds / 3600));
    offset = writeTwoDigits(target, offset, Math.floor(seconds / 60) % 60);
    offset = writeTwoDigits(target, offset, seconds % 60);
    target[offset++] = 0x5a;
    return offset;
  };
}

function writeTwoDigits(target: Uint8Array, offset: number, value: number): number {
  target[offset] = 0x30 + Math.floor(value / 10);
  target[offset + 1] = 0x30 + (value % 10);
  return offset + 2;
}

function encodeListExtensions(keyIdentifier: Uint8Array, number: bigint): Uint8Array {
  return element(
    contextTag(0, true),
    sequence(
      encodeExtension({
        oid: extensionOids.authorityKeyIdentifier,
        critical: false,
        value: encodeAuthorityKeyIdentifier(keyIdentifier),
      }),
      encodeExtension({
        oid: extensionOids.cRLNumber,
        critical: false,
        value: encodeCrlNumber(number),
      }),
    ),
  );
}
