/**
 * The linter's own walk through a TBSCertList: RFC 5280 §5.1. Entries go into columns, not objects, so that a CRL of a
 * hundred thousand is walked in linear time and little memory.
 */

import { DerError, DerReader, Tag } from "../der.ts";
import type { DerElement } from "../der.ts";
import { report, reportBroken } from "./finding.ts";
import type { Finding } from "./finding.ts";
import { readDistributionPointName, readGeneralName, readGeneralNames } from "./general-names.ts";
import { rangeHex, sameContent } from "./octets.ts";
import type { RuleId } from "./rules.ts";
import { oidText } from "./structure.ts";
import {
  booleanOctet,
  checkNatural,
  integerFault,
  readObjectIdentifier,
  timeOf,
  timeTypeFits,
} from "./value.ts";

/** The entries of a CRL, column by column. */
export interface EntryColumns {
  readonly bytes: Uint8Array;
  readonly count: number;
  /** Where the content octets of each serial number stand. */
  readonly serialStart: Int32Array;
  readonly serialEnd: Int32Array;
  /** Milliseconds, or NaN. */
  readonly revocationDate: Float64Array;
  /** CRLReason, 0 if absent; 255 if illegible. */
  readonly reason: Uint8Array;
  /** Row numbers in the order of the serial numbers. */
  readonly order: Int32Array;
  /** Whether the order is that of the rows themselves. */
  readonly sorted: boolean;
}

/** An issuingDistributionPoint: RFC 5280 §5.2.5. */
export interface IssuingDistributionPoint {
  readonly element: DerElement;
  readonly critical: boolean;
  /** undefined without distributionPoint. */
  readonly names: readonly DerElement[] | undefined;
  readonly hasName: boolean;
  readonly onlyUserCerts: boolean;
  readonly onlyCaCerts: boolean;
  readonly onlyAttributeCerts: boolean;
  readonly onlySomeReasons: boolean;
  readonly indirect: boolean;
  readonly empty: boolean;
}

export interface CrlField {
  readonly critical: boolean;
  /** What stands inside the OCTET STRING. */
  readonly value: DerElement;
}

export interface CrlWalk {
  readonly tbs: Uint8Array;
  readonly signature: DerElement;
  readonly issuer: DerElement;
  /** -1 if absent; -2 if it is longer than one octet. */
  readonly version: number;
  readonly thisUpdate: DerElement;
  readonly nextUpdate: DerElement | undefined;
  readonly thisUpdateTime: number;
  readonly nextUpdateTime: number;
  /** revokedCertificates is there, and empty. */
  readonly emptyEntries: boolean;
  readonly entries: EntryColumns;
  readonly hasExtensions: boolean;
  readonly authorityKeyIdentifier:
    | (CrlField & { readonly keyIdentifier: DerElement | undefined })
    | undefined;
  /** INTEGER. */
  readonly number: CrlField | undefined;
  readonly baseNumber: CrlField | undefined;
  readonly issuingDistributionPoint: IssuingDistributionPoint | undefined;
  readonly freshestCrl: CrlField | undefined;
  readonly authorityInfoAccess:
    | (CrlField & { readonly methods: readonly DerElement[] })
    | undefined;
  readonly expiredCertsOnCrl: CrlField | undefined;
  /** Extensions beyond the above. */
  readonly others: readonly { readonly oid: DerElement; readonly critical: boolean }[];
  /** Last arcs of 2.5.29 whose values are not DER. */
  readonly broken: ReadonlySet<number>;
}

/** Last arcs of the CRL extensions in 2.5.29; -1 for AIA. */
const Arc = {
  cRLNumber: 20,
  deltaCRLIndicator: 27,
  issuingDistributionPoint: 28,
  authorityKeyIdentifier: 35,
  freshestCRL: 46,
  expiredCertsOnCRL: 60,
  authorityInfoAccess: -1,
} as const;
export { Arc as CrlExtensionArc };

/** Walks a TBSCertList; undefined, and a finding, if its frame is not DER. */
export function walkTbsCertList(tbs: Uint8Array, findings: Finding[]): CrlWalk | undefined {
  try {
    const reader = DerReader.inside(DerReader.whole(tbs, Tag.sequence));
    let version = -1;
    const versionField = reader.readOptional(Tag.integer);
    if (versionField !== undefined) {
      const length = versionField.end - versionField.contentStart;
      version = length === 1 ? tbs[versionField.contentStart]! : -2;
    }
    const signature = reader.read(Tag.sequence);
    const issuer = reader.read(Tag.sequence);
    const thisUpdate = reader.readAny();
    const next = reader.peek();
    const nextUpdate =
      next === Tag.utcTime || next === Tag.generalizedTime ? reader.readAny() : undefined;
    const list = reader.readOptional(Tag.sequence);
    const extensionField = reader.readOptional(0xa0);
    reader.finish();
    return {
      tbs,
      signature,
      issuer,
      version,
      thisUpdate,
      nextUpdate,
      thisUpdateTime: timeOf(thisUpdate),
      nextUpdateTime: nextUpdate === undefined ? Number.NaN : timeOf(nextUpdate),
      emptyEntries: list !== undefined && list.contentStart === list.end,
      entries: walkEntries(tbs, list, findings),
      ...walkCrlExtensions(extensionField, findings),
    };
  } catch (error) {
    reportBroken(findings, "CRL-09", "tbsCertList", error);
    return undefined;
  }
}

/** Collects what is wrong with entries: the first of a kind in full, the rest counted. */
export class EntryFindings {
  readonly #first = new Map<string, { rule: RuleId; detail: string; more: number }>();

  /** `what` tells findings of one rule apart. */
  add(rule: RuleId, what: string, serialHex: string): void {
    const key = `${rule} ${what}`;
    const known = this.#first.get(key);
    if (known !== undefined) known.more += 1;
    else this.#first.set(key, { rule, detail: `entry ${serialHex}: ${what}`, more: 0 });
  }

  reportTo(findings: Finding[]): void {
    for (const { rule, detail, more } of this.#first.values()) {
      report(findings, rule, more === 0 ? detail : `${detail} (and ${more} more entries)`);
    }
  }
}

/** The shortest entry: SEQUENCE, INTEGER of one octet, UTCTime. */
const SHORTEST_ENTRY = 20;

export const ILLEGIBLE_REASON = 255;

function walkEntries(
  bytes: Uint8Array,
  list: DerElement | undefined,
  findings: Finding[],
): EntryColumns {
  const capacity =
    list === undefined ? 0 : Math.ceil((list.end - list.contentStart) / SHORTEST_ENTRY) + 1;
  const serialStart = new Int32Array(capacity);
  const serialEnd = new Int32Array(capacity);
  const revocationDate = new Float64Array(capacity);
  const reason = new Uint8Array(capacity);
  const faults = new EntryFindings();
  let count = 0;
  let sorted = true;
  if (list !== undefined) {
    const reader = DerReader.inside(list);
    while (!reader.atEnd) {
      const entry = reader.read(Tag.sequence);
      const inside = DerReader.inside(entry);
      const serialNumber = inside.read(Tag.integer);
      const date = inside.readAny();
      const extensions = inside.readOptional(Tag.sequence);
      inside.finish();
      if (count >= capacity)
        throw new DerError("entry is shorter than an entry can be", entry.start);
      serialStart[count] = serialNumber.contentStart;
      serialEnd[count] = serialNumber.end;
      checkSerialNumber(serialNumber, faults);
      const time = timeOf(date);
      revocationDate[count] = time;
      if (Number.isNaN(time)) {
        faults.add(
          "CRL-14",
          "revocationDate is not whole seconds with Z",
          hexOfSerial(serialNumber),
        );
      } else if (!timeTypeFits(date, time)) {
        faults.add(
          "CRL-13",
          "revocationDate has the wrong type of time",
          hexOfSerial(serialNumber),
        );
      }
      if (extensions !== undefined) {
        reason[count] = walkEntryExtensions(extensions, serialNumber, faults);
      }
      if (sorted && count > 0)
        sorted =
          compareSerials(
            bytes,
            serialStart,
            serialEnd,
            count - 1,
            bytes,
            serialStart,
            serialEnd,
            count,
          ) < 0;
      count += 1;
    }
  }
  faults.reportTo(findings);
  const order = new Int32Array(count);
  for (let i = 0; i < count; i++) order[i] = i;
  if (!sorted) {
    order.sort((a, b) =>
      compareSerials(bytes, serialStart, serialEnd, a, bytes, serialStart, serialEnd, b),
    );
  }
  return { bytes, count, serialStart, serialEnd, revocationDate, reason, order, sorted };
}

/** Orders serial numbers as the positive INTEGERs they are: by length, then by octets. */
export function compareSerials(
  bytes: Uint8Array,
  starts: Int32Array,
  ends: Int32Array,
  row: number,
  otherBytes: Uint8Array,
  otherStarts: Int32Array,
  otherEnds: Int32Array,
  otherRow: number,
): number {
  const start = starts[row]!;
  const otherStart = otherStarts[otherRow]!;
  const length = ends[row]! - start;
  const difference = length - (otherEnds[otherRow]! - otherStart);
  if (difference !== 0) return difference;
  for (let i = 0; i < length; i++) {
    const step = bytes[start + i]! - otherBytes[otherStart + i]!;
    if (step !== 0) return step;
  }
  return 0;
}

export function serialHexOf(entries: EntryColumns, row: number): string {
  return rangeHex(entries.bytes, entries.serialStart[row]!, entries.serialEnd[row]!);
}

function hexOfSerial(serialNumber: DerElement): string {
  return rangeHex(serialNumber.bytes, serialNumber.contentStart, serialNumber.end);
}

function checkSerialNumber(serialNumber: DerElement, faults: EntryFindings): void {
  const { bytes, contentStart, end } = serialNumber;
  const length = end - contentStart;
  const fault = integerFault(serialNumber);
  if (fault !== undefined) {
    faults.add("CRL-09", `serial number is ${fault}`, hexOfSerial(serialNumber));
  } else if (
    length > 20 ||
    bytes[contentStart]! >= 0x80 ||
    (length === 1 && bytes[contentStart] === 0)
  ) {
    faults.add(
      "CRL-21",
      "serial number is not positive with at most 20 octets",
      hexOfSerial(serialNumber),
    );
  }
}

/** Returns the reason code. */
function walkEntryExtensions(
  list: DerElement,
  serialNumber: DerElement,
  faults: EntryFindings,
): number {
  const reader = DerReader.inside(list);
  if (reader.atEnd) {
    faults.add("CRL-26", "crlEntryExtensions is an empty SEQUENCE", hexOfSerial(serialNumber));
  }
  let reason = 0;
  let seen: DerElement[] | undefined;
  let first: DerElement | undefined;
  while (!reader.atEnd) {
    const inside = DerReader.inside(reader.read(Tag.sequence));
    const oid = readObjectIdentifier(inside);
    const criticalField = inside.readOptional(Tag.boolean);
    const value = inside.read(Tag.octetString);
    inside.finish();
    if (first === undefined) first = oid;
    else {
      seen ??= [first];
      for (const other of seen) {
        if (sameContent(other, oid)) {
          faults.add("CRL-39", `extension ${oidText(oid)} occurs twice`, hexOfSerial(serialNumber));
        }
      }
      seen.push(oid);
    }
    let critical = false;
    if (criticalField !== undefined) {
      const octet = booleanOctet(criticalField);
      critical = octet !== 0;
      if (octet === 0) {
        faults.add("CRL-78", "critical FALSE is encoded", hexOfSerial(serialNumber));
      } else if (octet !== 0xff) {
        faults.add("CRL-09", "BOOLEAN TRUE is not ff", hexOfSerial(serialNumber));
      }
    }
    switch (standardArc(oid)) {
      case 21:
        reason = readReason(value, serialNumber, faults);
        if (critical) faults.add("CRL-28", "reasonCode is critical", hexOfSerial(serialNumber));
        break;
      case 24:
        checkInvalidityDate(value, serialNumber, faults);
        if (critical) faults.add("CRL-36", "invalidityDate is critical", hexOfSerial(serialNumber));
        break;
      default:
        // certificateIssuer is among these: no CRL here is indirect, and even where it is not critical OpenSSL takes
        // the entry for another issuer's.
        faults.add(
          "CRL-38",
          `${critical ? "critical " : ""}extension ${oidText(oid)} is unknown here`,
          hexOfSerial(serialNumber),
        );
    }
  }
  return reason;
}

/** The last arc of 2.5.29.n, or 0. */
function standardArc(oid: DerElement): number {
  const { bytes, contentStart, end } = oid;
  return end - contentStart === 3 &&
    bytes[contentStart] === 0x55 &&
    bytes[contentStart + 1] === 0x1d
    ? bytes[contentStart + 2]!
    : 0;
}

function readReason(value: DerElement, serialNumber: DerElement, faults: EntryFindings): number {
  const { bytes, contentStart, end } = value;
  if (
    end - contentStart !== 3 ||
    bytes[contentStart] !== Tag.enumerated ||
    bytes[contentStart + 1] !== 1
  ) {
    faults.add("CRL-27", "reasonCode is not an ENUMERATED of one octet", hexOfSerial(serialNumber));
    return ILLEGIBLE_REASON;
  }
  const reason = bytes[contentStart + 2]!;
  if (reason === 0) {
    faults.add("CRL-29", "reason 0 is encoded, not left out", hexOfSerial(serialNumber));
  } else if (reason === 7 || reason > 10) {
    faults.add("CRL-30", `reason ${reason} does not exist`, hexOfSerial(serialNumber));
  }
  return reason;
}

function checkInvalidityDate(
  value: DerElement,
  serialNumber: DerElement,
  faults: EntryFindings,
): void {
  const inside = DerReader.inside(value);
  const date = inside.readAny();
  inside.finish();
  if (date.tag !== Tag.generalizedTime || Number.isNaN(timeOf(date))) {
    faults.add(
      "CRL-36",
      "invalidityDate is not a GeneralizedTime of whole seconds with Z",
      hexOfSerial(serialNumber),
    );
  }
}

type CrlExtensions = Pick<
  CrlWalk,
  | "hasExtensions"
  | "authorityKeyIdentifier"
  | "number"
  | "baseNumber"
  | "issuingDistributionPoint"
  | "freshestCrl"
  | "authorityInfoAccess"
  | "expiredCertsOnCrl"
  | "others"
  | "broken"
>;

const AUTHORITY_INFO_ACCESS = "1.3.6.1.5.5.7.1.1";

function walkCrlExtensions(field: DerElement | undefined, findings: Finding[]): CrlExtensions {
  const walk = {
    hasExtensions: field !== undefined,
    authorityKeyIdentifier: undefined as CrlWalk["authorityKeyIdentifier"],
    number: undefined as CrlField | undefined,
    baseNumber: undefined as CrlField | undefined,
    issuingDistributionPoint: undefined as IssuingDistributionPoint | undefined,
    freshestCrl: undefined as CrlField | undefined,
    authorityInfoAccess: undefined as CrlWalk["authorityInfoAccess"],
    expiredCertsOnCrl: undefined as CrlField | undefined,
    others: [] as { oid: DerElement; critical: boolean }[],
    broken: new Set<number>(),
  };
  if (field === undefined) return walk;
  const outer = DerReader.inside(field);
  const list = DerReader.inside(outer.read(Tag.sequence));
  outer.finish();
  if (list.atEnd) report(findings, "CRL-78", "crlExtensions is an empty SEQUENCE");
  const seen: DerElement[] = [];
  while (!list.atEnd) {
    const inside = DerReader.inside(list.read(Tag.sequence));
    const oid = readObjectIdentifier(inside);
    const criticalField = inside.readOptional(Tag.boolean);
    const octets = inside.read(Tag.octetString);
    inside.finish();
    const critical = criticalField !== undefined && readCritical(criticalField, oid, findings);
    if (seen.some((other) => sameContent(other, oid))) {
      report(findings, "CRL-79", `extension ${oidText(oid)} occurs twice`);
      continue;
    }
    seen.push(oid);
    const arc = oidText(oid) === AUTHORITY_INFO_ACCESS ? Arc.authorityInfoAccess : standardArc(oid);
    try {
      const reader = DerReader.inside(octets);
      switch (arc) {
        case Arc.cRLNumber:
          walk.number = { critical, value: reader.read(Tag.integer) };
          break;
        case Arc.deltaCRLIndicator:
          walk.baseNumber = { critical, value: reader.read(Tag.integer) };
          checkNatural(walk.baseNumber.value);
          break;
        case Arc.authorityKeyIdentifier: {
          const value = reader.read(Tag.sequence);
          const parts = DerReader.inside(value);
          const keyIdentifier = parts.readOptional(0x80);
          const issuer = parts.readOptional(0xa1);
          const serialNumber = parts.readOptional(0x82);
          parts.finish();
          if (issuer !== undefined) readGeneralNames(DerReader.inside(issuer));
          if (serialNumber !== undefined) checkNatural(serialNumber);
          walk.authorityKeyIdentifier = { critical, value, keyIdentifier };
          break;
        }
        case Arc.issuingDistributionPoint:
          walk.issuingDistributionPoint = readIssuingDistributionPoint(
            reader.read(Tag.sequence),
            critical,
          );
          break;
        case Arc.freshestCRL:
          walk.freshestCrl = { critical, value: reader.read(Tag.sequence) };
          break;
        case Arc.expiredCertsOnCRL:
          walk.expiredCertsOnCrl = { critical, value: reader.readAny() };
          break;
        case Arc.authorityInfoAccess: {
          const value = reader.read(Tag.sequence);
          const methods: DerElement[] = [];
          const descriptions = DerReader.inside(value);
          if (descriptions.atEnd) throw new DerError("empty SEQUENCE", value.start);
          while (!descriptions.atEnd) {
            const description = DerReader.inside(descriptions.read(Tag.sequence));
            methods.push(readObjectIdentifier(description));
            readGeneralName(description);
            description.finish();
          }
          walk.authorityInfoAccess = { critical, value, methods };
          break;
        }
        default:
          walk.others.push({ oid, critical });
          continue;
      }
      reader.finish();
    } catch (error) {
      walk.broken.add(arc);
      reportBroken(findings, "CRL-09", `extension ${oidText(oid)}`, error);
    }
  }
  return walk;
}

function readCritical(element: DerElement, oid: DerElement, findings: Finding[]): boolean {
  const octet = booleanOctet(element);
  if (octet === 0) {
    report(findings, "CRL-78", `extension ${oidText(oid)} encodes critical FALSE`);
  } else if (octet !== 0xff) {
    report(findings, "CRL-09", `extension ${oidText(oid)} encodes TRUE other than as ff`);
  }
  return octet !== 0;
}

function readIssuingDistributionPoint(
  element: DerElement,
  critical: boolean,
): IssuingDistributionPoint {
  const reader = DerReader.inside(element);
  const empty = reader.atEnd;
  const name = reader.readOptional(0xa0);
  const names = name === undefined ? undefined : readDistributionPointName(name);
  const onlyUserCerts = readFlag(reader, 0x81);
  const onlyCaCerts = readFlag(reader, 0x82);
  const reasons = reader.readOptional(0x83);
  const indirect = readFlag(reader, 0x84);
  const onlyAttributeCerts = readFlag(reader, 0x85);
  reader.finish();
  return {
    element,
    critical,
    names,
    hasName: name !== undefined,
    onlyUserCerts,
    onlyCaCerts,
    onlyAttributeCerts,
    onlySomeReasons: reasons !== undefined,
    indirect,
    empty,
  };
}

/** X.690 §11.5: FALSE is the default of every flag here, and TRUE is ff. */
function readFlag(reader: DerReader, tag: number): boolean {
  const element = reader.readOptional(tag);
  if (element === undefined) return false;
  if (booleanOctet(element) !== 0xff)
    throw new DerError("flag is encoded, and not TRUE", element.start);
  return true;
}
