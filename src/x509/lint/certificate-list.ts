/**
 * CRLs against the rules of PROFILE-RULES 4A, private family: fed DER only.
 *
 * The answer is a list of findings; M and P refuse (see `refuses`), S is recorded as a warning.
 */

import { Tag, encodingOf } from "../der.ts";
import type { DerElement } from "../der.ts";
import {
  CrlExtensionArc,
  EntryFindings,
  compareSerials,
  serialHexOf,
  walkTbsCertList,
} from "./crl-structure.ts";
import type { CrlWalk, EntryColumns, IssuingDistributionPoint } from "./crl-structure.ts";
import { report, reportBroken } from "./finding.ts";
import type { Finding } from "./finding.ts";
import { NameTag } from "./general-names.ts";
import { readDropped } from "./issuer.ts";
import type { LintIssuer } from "./issuer.ts";
import { isCaIssuers } from "./purposes.ts";
import {
  contentHex,
  contentIs,
  encodingIs,
  hexOf,
  sameContent,
  sameOctets,
  shown,
} from "./octets.ts";
import { algorithmFor, signatureVerifies } from "./signatures.ts";
import { KeyUsageBit, oidText, walkSigned } from "./structure.ts";
import type { SignedWalk } from "./structure.ts";
import { instant, integerFault, timeOf, timeTypeFits } from "./value.ts";

/** What is known of a certificate that this issuer issued. */
export interface IssuedCertificateFacts {
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly cA: boolean;
}

/** An entry as it is meant to be (CRL-35). */
export interface IntendedRevocation {
  /** Content octets. */
  readonly serialNumber: Uint8Array;
  readonly revocationDate: Date;
  /** RFC 5280 spelling of CRLReason. */
  readonly reason: string;
}

export interface CrlLintContext {
  readonly issuer: LintIssuer;
  readonly now: Date;
  /** CRL-10: seconds that thisUpdate may be ahead of `now`; 60 by default. */
  readonly clockTolerance?: number;
  /** The CRL of this scope that was published last, DER; its signature is verified before it is believed. */
  readonly predecessor?: Uint8Array;
  /** CRL-57: the highest number that this scope has ever had. */
  readonly highestNumber?: bigint;
  /** CRL-21, CRL-24, CRL-40, CRL-65: what this issuer issued, by serial number in hex. */
  readonly issued?: (serialHex: string) => IssuedCertificateFacts | undefined;
  /** CRL-40: certificates (DER) of entries that leave; believed once this issuer's signature verifies. */
  readonly dropped?: readonly Uint8Array[];
  /** CRL-41: serial numbers (hex) whose certificateHold was lifted. */
  readonly released?: ReadonlySet<string>;
  /** CRL-24: serial numbers (hex) whose earlier date is documented. */
  readonly backdated?: ReadonlySet<string>;
  /** CRL-22: whether another shard of this issuer has the serial number. */
  readonly inOtherShard?: (serialHex: string) => boolean;
  /** CRL-35. */
  readonly intended?: readonly IntendedRevocation[];
  /** CRL-71: whether a delta CRL is meant. */
  readonly delta?: boolean;
  /** CRL-72, CRL-73: the complete CRL that a delta builds on, DER; by default the predecessor if it has its number. */
  readonly base?: Uint8Array;
  /** CRL-74: the complete CRL made together with this delta, or the reverse, DER. */
  readonly companion?: Uint8Array;
  /** CRL-08: what was approved. */
  readonly approvedTbs?: Uint8Array;
}

const reasonCodes: Readonly<Record<string, number>> = {
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
};
const KEY_COMPROMISE = 1;
const CERTIFICATE_HOLD = 6;
const REMOVE_FROM_CRL = 8;

/** Checks a TBSCertList before it is signed. */
export function lintTbsCertList(tbs: Uint8Array, context: CrlLintContext): Finding[] {
  const findings: Finding[] = [];
  lintTbs(tbs, context, findings);
  return findings;
}

/** Checks a signed CertificateList: all of {@link lintTbsCertList}, both algorithm fields, the signature. */
export function lintCertificateList(der: Uint8Array, context: CrlLintContext): Finding[] {
  const findings: Finding[] = [];
  try {
    const signed = walkSigned(der);
    const message = encodingOf(signed.tbs);
    const walk = lintTbs(message, context, findings);
    if (context.approvedTbs !== undefined && !sameOctets(message, context.approvedTbs)) {
      report(findings, "CRL-08", "the TBS is not the approved one, byte for byte");
    }
    if (walk === undefined) return findings;
    const inner = encodingOf(walk.signature);
    if (!encodingIs(signed.algorithm, inner)) {
      report(
        findings,
        "CRL-02",
        `signatureAlgorithm ${shown(encodingOf(signed.algorithm))} differs from the TBS's ${shown(inner)}`,
      );
    } else if (signed.signature.bytes[signed.signature.contentStart] !== 0) {
      report(findings, "CRL-08", "the signature's BIT STRING has unused bits");
    } else if (
      !("fault" in algorithmFor(signed.algorithm, context.issuer.keyType)) &&
      !verifies(signed, context.issuer)
    ) {
      report(findings, "CRL-08", "the signature does not verify with the issuer's key");
    }
  } catch (error) {
    reportBroken(findings, "CRL-09", "certificateList", error);
  }
  return findings;
}

function verifies({ tbs, algorithm, signature }: SignedWalk, issuer: LintIssuer): boolean {
  const octets = signature.bytes.subarray(signature.contentStart + 1, signature.end);
  return signatureVerifies(issuer.key, algorithm, issuer.keyType, encodingOf(tbs), octets);
}

function lintTbs(
  tbs: Uint8Array,
  context: CrlLintContext,
  findings: Finding[],
): CrlWalk | undefined {
  const walk = walkTbsCertList(tbs, findings);
  if (walk === undefined) return undefined;
  checkEnvelope(walk, context, findings);
  checkTimes(walk, context, findings);
  checkExtensions(walk, context, findings);
  const faults = new EntryFindings();
  checkEntries(walk, context, faults);
  if (context.intended !== undefined) checkIntended(walk.entries, context.intended, faults);
  if (context.predecessor !== undefined) {
    const predecessor = readEarlier(context.predecessor, context.issuer);
    if (predecessor === undefined) {
      report(findings, "CRL-41", "the predecessor is not a CRL that this issuer signed");
    } else {
      checkSuccession(walk, predecessor, findings);
      checkKept(walk, predecessor, context, faults);
    }
  }
  if (
    context.highestNumber !== undefined &&
    walk.number !== undefined &&
    integerFault(walk.number.value) === undefined &&
    BigInt(`0x${contentHex(walk.number.value)}`) <= context.highestNumber
  ) {
    report(
      findings,
      "CRL-57",
      `the CRL number ${contentHex(walk.number.value)} (hex) is not above ${context.highestNumber}, which was used before`,
    );
  }
  checkDelta(walk, context, findings);
  faults.reportTo(findings);
  return walk;
}

/** A CRL of this issuer, its signature verified; undefined for anything else. */
function readEarlier(der: Uint8Array, issuer: LintIssuer): CrlWalk | undefined {
  const findings: Finding[] = [];
  try {
    const signed = walkSigned(der);
    if (!verifies(signed, issuer)) return undefined;
    const walk = walkTbsCertList(encodingOf(signed.tbs), findings);
    return walk !== undefined && encodingIs(walk.issuer, issuer.subject) ? walk : undefined;
  } catch (error) {
    reportBroken(findings, "CRL-09", "predecessor", error);
    return undefined;
  }
}

function checkEnvelope(walk: CrlWalk, { issuer }: CrlLintContext, findings: Finding[]): void {
  if (walk.version !== 1) {
    const found =
      walk.version === -1 ? "not encoded, which means v1" : `encoded as ${walk.version}`;
    report(findings, "CRL-01", `the version is ${found}; v2 (1) is wanted`);
  }
  const known = algorithmFor(walk.signature, issuer.keyType);
  if ("fault" in known) report(findings, "CRL-04", `signature: ${known.fault}`);
  if (walk.issuer.contentStart === walk.issuer.end) {
    report(findings, "CRL-05", "the issuer is empty");
  } else if (!encodingIs(walk.issuer, issuer.subject)) {
    report(findings, "CRL-06", "the issuer is not the CA certificate's subject, byte for byte");
  }
  if ((issuer.keyUsage & KeyUsageBit.cRLSign) === 0) {
    report(findings, "CRL-07", "the CA certificate does not assert cRLSign");
  }
  if (walk.emptyEntries) {
    report(findings, "CRL-20", "revokedCertificates is an empty SEQUENCE, not absent");
  }
}

function checkTimes(walk: CrlWalk, context: CrlLintContext, findings: Finding[]): void {
  const { thisUpdateTime, nextUpdateTime, nextUpdate } = walk;
  const { issuer } = context;
  checkTime("thisUpdate", walk.thisUpdate, thisUpdateTime, findings);
  const tolerance = context.clockTolerance ?? 60;
  if (thisUpdateTime > context.now.getTime() + tolerance * 1000) {
    report(
      findings,
      "CRL-10",
      `thisUpdate ${instant(thisUpdateTime)} is more than ${tolerance} s after ${context.now.toISOString()}`,
    );
  }
  if (nextUpdate === undefined) {
    report(findings, "CRL-11", "nextUpdate is missing");
  } else {
    checkTime("nextUpdate", nextUpdate, nextUpdateTime, findings);
    if (nextUpdateTime <= thisUpdateTime) {
      report(
        findings,
        "CRL-12",
        `nextUpdate ${instant(nextUpdateTime)} is not after thisUpdate ${instant(thisUpdateTime)}`,
      );
    }
  }
  if (thisUpdateTime < issuer.notBefore || nextUpdateTime > issuer.notAfter) {
    report(
      findings,
      "CRL-15",
      `${instant(thisUpdateTime)} to ${instant(nextUpdateTime)} is not within the CA certificate's validity, ${instant(issuer.notBefore)} to ${instant(issuer.notAfter)}`,
    );
  }
}

function checkTime(field: string, element: DerElement, time: number, findings: Finding[]): void {
  if (Number.isNaN(time)) {
    const content = element.bytes.subarray(element.contentStart, element.end);
    report(
      findings,
      "CRL-14",
      `${field} (tag ${element.tag.toString(16)}, ${shown(content)}) is not YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ`,
    );
  } else if (!timeTypeFits(element, time)) {
    report(
      findings,
      "CRL-13",
      `${field} ${instant(time)} has the wrong type: UTCTime through 2049, then GeneralizedTime`,
    );
  }
}

function checkExtensions(walk: CrlWalk, { issuer }: CrlLintContext, findings: Finding[]): void {
  const { authorityKeyIdentifier, number, broken } = walk;
  if (authorityKeyIdentifier === undefined) {
    if (!broken.has(CrlExtensionArc.authorityKeyIdentifier)) {
      report(findings, "CRL-50", "authorityKeyIdentifier is missing");
    }
  } else {
    const { keyIdentifier, critical } = authorityKeyIdentifier;
    const wanted = issuer.subjectKeyIdentifier;
    if (wanted === undefined || keyIdentifier === undefined || !contentIs(keyIdentifier, wanted)) {
      const found =
        keyIdentifier === undefined ? "without keyIdentifier" : contentHex(keyIdentifier);
      report(
        findings,
        "CRL-51",
        `authorityKeyIdentifier is ${found}, the issuer's SKI is ${wanted === undefined ? "missing" : hexOf(wanted)}`,
      );
    }
    if (critical) report(findings, "CRL-53", "authorityKeyIdentifier is critical");
  }
  if (number === undefined) {
    if (!broken.has(CrlExtensionArc.cRLNumber)) report(findings, "CRL-54", "cRLNumber is missing");
  } else {
    checkNumber(number.value, findings);
    if (number.critical) report(findings, "CRL-55", "cRLNumber is critical");
  }
  if (walk.issuingDistributionPoint !== undefined) {
    checkDistributionPoint(walk.issuingDistributionPoint, findings);
  }
  const { authorityInfoAccess, expiredCertsOnCrl } = walk;
  if (authorityInfoAccess !== undefined) {
    if (authorityInfoAccess.critical || !authorityInfoAccess.methods.every(isCaIssuers)) {
      report(findings, "CRL-76", "the AIA has more than caIssuers, or is critical");
    }
    report(findings, "CRL-80", "the CRL has an AIA");
  }
  if (expiredCertsOnCrl !== undefined) {
    const { value, critical } = expiredCertsOnCrl;
    if (critical || value.tag !== Tag.generalizedTime || Number.isNaN(timeOf(value))) {
      report(findings, "CRL-77", "ExpiredCertsOnCRL is critical, or not a GeneralizedTime");
    }
    report(findings, "CRL-80", "the CRL has ExpiredCertsOnCRL");
  }
  for (const { oid, critical } of walk.others) {
    // No relying party may use a CRL with a critical extension that it does not know: RFC 5280 §5.2.
    const found = `the CRL has the ${critical ? "critical " : ""}extension ${oidText(oid)}`;
    report(findings, "CRL-80", found, critical ? "P" : "S");
  }
}

function checkNumber(number: DerElement, findings: Finding[]): void {
  const fault = integerFault(number);
  if (fault !== undefined) {
    report(findings, "CRL-09", `cRLNumber is ${fault}`);
  } else if (number.bytes[number.contentStart]! >= 0x80) {
    report(findings, "CRL-56", "cRLNumber is negative");
  } else if (number.end - number.contentStart > 20) {
    report(findings, "CRL-56", "cRLNumber has more than 20 octets");
  }
}

function checkDistributionPoint(point: IssuingDistributionPoint, findings: Finding[]): void {
  if (!point.critical) report(findings, "CRL-58", "issuingDistributionPoint is not critical");
  if (point.empty) report(findings, "CRL-59", "issuingDistributionPoint is an empty SEQUENCE");
  if (point.hasName && !(point.names?.length === 1 && point.names[0]!.tag === NameTag.uri)) {
    report(findings, "CRL-62", "the distribution point is not exactly one URI");
  }
  const kinds = [point.onlyUserCerts, point.onlyCaCerts, point.onlyAttributeCerts];
  if (kinds.filter(Boolean).length > 1) {
    report(findings, "CRL-64", "issuingDistributionPoint limits the kind of certificate twice");
  }
  if (point.onlySomeReasons) report(findings, "CRL-68", "issuingDistributionPoint has reasons");
}

/** What can be said of the entries one by one, in one pass. */
function checkEntries(walk: CrlWalk, context: CrlLintContext, faults: EntryFindings): void {
  const { entries, thisUpdateTime, issuingDistributionPoint } = walk;
  const { bytes, count, serialStart, serialEnd, revocationDate, reason, order } = entries;
  const { issued, inOtherShard, backdated } = context;
  const isDelta = walk.baseNumber !== undefined;
  const onlyUserCerts = issuingDistributionPoint?.onlyUserCerts === true;
  const onlyCaCerts = issuingDistributionPoint?.onlyCaCerts === true;
  let repeated = false;
  for (let i = 0; i < count; i++) {
    const row = order[i]!;
    if (
      i > 0 &&
      compareSerials(
        bytes,
        serialStart,
        serialEnd,
        order[i - 1]!,
        bytes,
        serialStart,
        serialEnd,
        row,
      ) === 0
    ) {
      faults.add("CRL-22", "the serial number occurs twice", serialHexOf(entries, row));
      repeated = true;
    }
    if (revocationDate[row]! > thisUpdateTime) {
      faults.add("CRL-23", "revocationDate is after thisUpdate", serialHexOf(entries, row));
    }
    if (reason[row] === REMOVE_FROM_CRL && !isDelta) {
      faults.add("CRL-32", "removeFromCRL outside a delta CRL", serialHexOf(entries, row));
    }
    if (issued === undefined && inOtherShard === undefined) continue;
    const serialHex = serialHexOf(entries, row);
    if (inOtherShard?.(serialHex) === true) {
      faults.add("CRL-22", "another shard has the serial number too", serialHex);
    }
    if (issued === undefined) continue;
    const facts = issued(serialHex);
    if (facts === undefined) {
      faults.add("CRL-21", "this issuer has not issued the serial number", serialHex);
      continue;
    }
    if (revocationDate[row]! < facts.notBefore.getTime() && backdated?.has(serialHex) !== true) {
      faults.add("CRL-24", "revocationDate is before the certificate's notBefore", serialHex);
    }
    if (facts.cA ? onlyUserCerts : onlyCaCerts) {
      faults.add("CRL-65", "the IDP excludes this kind of certificate", serialHex);
    }
  }
  // Rows that are equal are out of order for the walk, but CRL-22 says it better.
  if (entries.sorted || (repeated && isNonDescending(entries))) return;
  for (let row = 1; row < count; row++) {
    if (
      compareSerials(bytes, serialStart, serialEnd, row - 1, bytes, serialStart, serialEnd, row) > 0
    ) {
      faults.add(
        "CRL-43",
        "the serial number is below the one before it",
        serialHexOf(entries, row),
      );
    }
  }
}

function isNonDescending({ bytes, count, serialStart, serialEnd }: EntryColumns): boolean {
  for (let row = 1; row < count; row++) {
    if (
      compareSerials(bytes, serialStart, serialEnd, row - 1, bytes, serialStart, serialEnd, row) > 0
    ) {
      return false;
    }
  }
  return true;
}

function checkIntended(
  entries: EntryColumns,
  intended: readonly IntendedRevocation[],
  faults: EntryFindings,
): void {
  const { bytes, count, serialStart, serialEnd, revocationDate, reason, order } = entries;
  const sorted = isSorted(intended) ? intended : intended.toSorted(compareIntended);
  let i = 0;
  let j = 0;
  while (i < count || j < sorted.length) {
    const row = i < count ? order[i]! : -1;
    const wanted = sorted[j];
    const side =
      row === -1
        ? 1
        : wanted === undefined
          ? -1
          : compareOctets(bytes, serialStart[row]!, serialEnd[row]!, wanted.serialNumber);
    if (side < 0) {
      faults.add("CRL-35", "nobody meant to revoke it", serialHexOf(entries, row));
      i += 1;
    } else if (side > 0) {
      faults.add("CRL-35", "it was to be revoked, and is missing", hexOf(wanted!.serialNumber));
      j += 1;
    } else {
      // A CRL counts in seconds; whoever hands in milliseconds means the second they are in.
      const seconds = Math.floor(wanted!.revocationDate.getTime() / 1000) * 1000;
      if (revocationDate[row] !== seconds) {
        faults.add(
          "CRL-35",
          "the revocation date is not the intended one",
          serialHexOf(entries, row),
        );
      }
      if (reason[row] !== reasonCodes[wanted!.reason]) {
        faults.add("CRL-35", "the reason is not the intended one", serialHexOf(entries, row));
      }
      i += 1;
      j += 1;
    }
  }
}

function compareOctets(bytes: Uint8Array, start: number, end: number, other: Uint8Array): number {
  const difference = end - start - other.length;
  if (difference !== 0) return difference;
  for (let i = 0; i < other.length; i++) {
    const step = bytes[start + i]! - other[i]!;
    if (step !== 0) return step;
  }
  return 0;
}

function compareIntended(a: IntendedRevocation, b: IntendedRevocation): number {
  return compareOctets(a.serialNumber, 0, a.serialNumber.length, b.serialNumber);
}

function isSorted(intended: readonly IntendedRevocation[]): boolean {
  for (let i = 1; i < intended.length; i++) {
    if (compareIntended(intended[i - 1]!, intended[i]!) > 0) return false;
  }
  return true;
}

/** CRL-18, CRL-19, CRL-57, CRL-69: the header against the predecessor's. */
function checkSuccession(walk: CrlWalk, predecessor: CrlWalk, findings: Finding[]): void {
  if (walk.nextUpdateTime < predecessor.nextUpdateTime) {
    report(
      findings,
      "CRL-18",
      `nextUpdate ${instant(walk.nextUpdateTime)} is before the predecessor's, ${instant(predecessor.nextUpdateTime)}`,
    );
  }
  if (walk.thisUpdateTime <= predecessor.thisUpdateTime) {
    report(
      findings,
      "CRL-19",
      `thisUpdate ${instant(walk.thisUpdateTime)} is not after the predecessor's, ${instant(predecessor.thisUpdateTime)}`,
    );
  }
  const { number } = walk;
  if (number !== undefined && predecessor.number !== undefined) {
    if (compareNumbers(number.value, predecessor.number.value) <= 0) {
      report(
        findings,
        "CRL-57",
        `the CRL number ${contentHex(number.value)} (hex) is not above the predecessor's, ${contentHex(predecessor.number.value)}`,
      );
    }
  }
  if (!haveOneScope(walk.issuingDistributionPoint, predecessor.issuingDistributionPoint)) {
    report(findings, "CRL-69", "the IDP has another scope than the predecessor's");
  }
  if (!shareUri(walk.issuingDistributionPoint, predecessor.issuingDistributionPoint)) {
    report(findings, "CRL-69", "the IDP has no URI of the predecessor's");
  }
}

/** Positive, minimal INTEGERs. */
function compareNumbers(a: DerElement, b: DerElement): number {
  return compareOctets(a.bytes, a.contentStart, a.end, b.bytes.subarray(b.contentStart, b.end));
}

/** A narrower scope leaves out what the one before it revoked, with every entry still there. */
function haveOneScope(
  a: IssuingDistributionPoint | undefined,
  b: IssuingDistributionPoint | undefined,
): boolean {
  return (
    (a?.onlyUserCerts ?? false) === (b?.onlyUserCerts ?? false) &&
    (a?.onlyCaCerts ?? false) === (b?.onlyCaCerts ?? false) &&
    (a?.onlyAttributeCerts ?? false) === (b?.onlyAttributeCerts ?? false) &&
    (a?.onlySomeReasons ?? false) === (b?.onlySomeReasons ?? false) &&
    (a?.indirect ?? false) === (b?.indirect ?? false)
  );
}

function shareUri(
  a: IssuingDistributionPoint | undefined,
  b: IssuingDistributionPoint | undefined,
): boolean {
  const uris = (point: IssuingDistributionPoint | undefined) =>
    (point?.names ?? []).filter((name) => name.tag === NameTag.uri);
  const before = uris(b);
  const after = uris(a);
  if (before.length === 0 && after.length === 0) return true;
  return after.some((uri) => before.some((other) => sameContent(uri, other)));
}

/** CRL-40, CRL-41, CRL-42, CRL-77: what became of the predecessor's entries; one merge of two sorted lists. */
function checkKept(
  walk: CrlWalk,
  predecessor: CrlWalk,
  context: CrlLintContext,
  faults: EntryFindings,
): void {
  // A delta tells what changed since its base: only two deltas of one base can be compared. Where none is meant,
  // neither may serve to leave out what the other had.
  const comparable =
    context.delta === false ||
    (walk.baseNumber === undefined
      ? predecessor.baseNumber === undefined
      : predecessor.baseNumber !== undefined &&
        sameContent(walk.baseNumber.value, predecessor.baseNumber.value));
  if (!comparable) return;
  const before = predecessor.entries;
  const after = walk.entries;
  let expiries: Map<string, number> | undefined;
  let j = 0;
  for (let i = 0; i < before.count; i++) {
    const row = before.order[i]!;
    let side = -1;
    while (j < after.count) {
      side = compareSerials(
        before.bytes,
        before.serialStart,
        before.serialEnd,
        row,
        after.bytes,
        after.serialStart,
        after.serialEnd,
        after.order[j]!,
      );
      if (side <= 0) break;
      j += 1;
    }
    if (j < after.count && side === 0) {
      checkChange(before, row, after, after.order[j]!, faults);
      continue;
    }
    const serialHex = serialHexOf(before, row);
    if (before.reason[row] === CERTIFICATE_HOLD && context.released?.has(serialHex) === true)
      continue;
    expiries ??= droppedExpiries(context);
    const notAfter = context.issued?.(serialHex)?.notAfter.getTime() ?? expiries.get(serialHex);
    checkDropped(walk, predecessor, serialHex, notAfter, faults);
  }
}

function checkDropped(
  walk: CrlWalk,
  predecessor: CrlWalk,
  serialHex: string,
  notAfter: number | undefined,
  faults: EntryFindings,
): void {
  if (notAfter === undefined || Number.isNaN(notAfter)) {
    faults.add(
      "CRL-41",
      "it has vanished, and nothing shows that its certificate expired",
      serialHex,
    );
  } else if (notAfter >= predecessor.thisUpdateTime) {
    faults.add(
      "CRL-40",
      "it has vanished, and no CRL issued after its certificate's expiry has had it",
      serialHex,
    );
  } else if (
    walk.expiredCertsOnCrl !== undefined &&
    notAfter >= timeOf(walk.expiredCertsOnCrl.value)
  ) {
    faults.add("CRL-77", "it has vanished, but ExpiredCertsOnCRL promises expired ones", serialHex);
  }
}

function droppedExpiries({ dropped, issuer }: CrlLintContext): Map<string, number> {
  const expiries = new Map<string, number>();
  for (const der of dropped ?? []) {
    const certificate = readDropped(issuer, der);
    if (certificate !== undefined) expiries.set(certificate.serialHex, certificate.notAfter);
  }
  return expiries;
}

function checkChange(
  before: EntryColumns,
  row: number,
  after: EntryColumns,
  newRow: number,
  faults: EntryFindings,
): void {
  const reason = after.reason[newRow]!;
  const oldReason = before.reason[row]!;
  if (after.revocationDate[newRow]! > before.revocationDate[row]!) {
    faults.add("CRL-42", "its revocation date has become later", serialHexOf(after, newRow));
  }
  // From certificateHold every reason is a step on: RFC 5280 §5.3.1.
  if (reason !== oldReason && reason !== KEY_COMPROMISE && oldReason !== CERTIFICATE_HOLD) {
    faults.add(
      "CRL-42",
      `its reason has changed from ${oldReason} to ${reason}`,
      serialHexOf(after, newRow),
    );
  }
}

/** CRL-71 to CRL-75. */
function checkDelta(walk: CrlWalk, context: CrlLintContext, findings: Finding[]): void {
  const { baseNumber, number, freshestCrl } = walk;
  if (freshestCrl !== undefined) {
    if (freshestCrl.critical) report(findings, "CRL-75", "freshestCRL is critical");
    if (baseNumber !== undefined) report(findings, "CRL-75", "a delta CRL has freshestCRL");
    report(findings, "CRL-80", "the CRL has freshestCRL");
  }
  if (context.companion !== undefined)
    checkCompanion(walk, context.companion, context.issuer, findings);
  if (baseNumber === undefined) {
    if (context.delta === true && !walk.broken.has(CrlExtensionArc.deltaCRLIndicator)) {
      report(findings, "CRL-71", "a delta CRL is meant, and there is no deltaCRLIndicator");
    }
    return;
  }
  if (!baseNumber.critical) report(findings, "CRL-71", "deltaCRLIndicator is not critical");
  if (context.delta === false) {
    report(findings, "CRL-71", "a complete CRL is meant, and there is a deltaCRLIndicator");
  }
  if (number !== undefined && compareNumbers(baseNumber.value, number.value) >= 0) {
    report(
      findings,
      "CRL-72",
      `BaseCRLNumber ${contentHex(baseNumber.value)} is not below the CRL number ${contentHex(number.value)}`,
    );
  }
  const der = context.base ?? context.predecessor;
  if (der !== undefined) checkBase(walk, baseNumber.value, der, context, findings);
}

function checkBase(
  walk: CrlWalk,
  baseNumber: DerElement,
  der: Uint8Array,
  context: CrlLintContext,
  findings: Finding[],
): void {
  const base = readEarlier(der, context.issuer);
  if (context.base === undefined) {
    // A predecessor is the base only if it is complete and has the number; if not, the base is unknown here.
    const isBase = base?.baseNumber === undefined && base?.number !== undefined;
    if (!isBase || !sameContent(base.number.value, baseNumber)) return;
  }
  if (base?.number === undefined || base.baseNumber !== undefined) {
    report(findings, "CRL-72", "the base is not a complete CRL of this issuer");
    return;
  }
  if (!sameContent(base.number.value, baseNumber)) {
    report(
      findings,
      "CRL-72",
      `BaseCRLNumber ${contentHex(baseNumber)} is not the base's number, ${contentHex(base.number.value)}`,
    );
  }
  const identifiers = [walk.authorityKeyIdentifier?.value, base.authorityKeyIdentifier?.value];
  const points = [walk.issuingDistributionPoint?.element, base.issuingDistributionPoint?.element];
  if (!sameOptional(identifiers[0], identifiers[1]) || !sameOptional(points[0], points[1])) {
    report(findings, "CRL-73", "the AKI or the IDP differs from the base's");
  }
}

function sameOptional(a: DerElement | undefined, b: DerElement | undefined): boolean {
  return a === undefined || b === undefined ? a === b : sameContent(a, b);
}

function checkCompanion(
  walk: CrlWalk,
  der: Uint8Array,
  issuer: LintIssuer,
  findings: Finding[],
): void {
  const companion = readEarlier(der, issuer);
  if (
    companion?.number === undefined ||
    walk.number === undefined ||
    companion.thisUpdateTime !== walk.thisUpdateTime ||
    !sameContent(companion.number.value, walk.number.value)
  ) {
    report(
      findings,
      "CRL-74",
      "the CRL made together with this one has another thisUpdate or another number",
    );
  }
}
