/**
 * Certificates against the rules of PROFILE-RULES 4B, private family: fed DER only.
 *
 * The answer is a list of findings; M and P refuse (see `refuses`), S is recorded as a warning.
 */

import { createPublicKey, hash } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { DerError, encodingOf, objectIdentifier } from "../der.ts";
import type { DerElement } from "../der.ts";
import { checkIntermediate, checkRoot } from "./ca.ts";
import type { CertificateLintContext, Subject } from "./certificate-context.ts";
import { walkName } from "./distinguished-name.ts";
import { report, reportBroken } from "./finding.ts";
import type { Finding } from "./finding.ts";
import { NameTag } from "./general-names.ts";
import type { LintIssuer } from "./issuer.ts";
import { readSubjectKey } from "./keys.ts";
import { checkClient, checkServer } from "./leaf.ts";
import { checkConstraints } from "./name-constraints.ts";
import { contentHex, contentIs, encodingIs, hexOf, rangeIs, sameOctets, shown } from "./octets.ts";
import { checkRequested } from "./requested.ts";
import { algorithmFor, signatureVerifies } from "./signatures.ts";
import { KeyUsageBit, Known, oidText, walkSigned, walkTbsCertificate } from "./structure.ts";
import type { TbsWalk, UnknownExtension } from "./structure.ts";
import { NO_EXPIRY, checkAnyDer, instant, integerFault, isAscii, timeTypeFits } from "./value.ts";

export type {
  CertificateKind,
  CertificateLintContext,
  ListedExtension,
  RequestedCertificate,
} from "./certificate-context.ts";
export { lintIssuer } from "./issuer.ts";
export type { LintIssuer } from "./issuer.ts";

/**
 * Checks a TBSCertificate before it is signed.
 *
 * @throws TypeError if a certificate other than a root comes without its issuer.
 */
export function lintTbsCertificate(tbs: Uint8Array, context: CertificateLintContext): Finding[] {
  const findings: Finding[] = [];
  lintTbs(tbs, context, findings);
  return findings;
}

/** Checks a signed Certificate: all of {@link lintTbsCertificate}, both algorithm fields, the signature. */
export function lintCertificate(
  der: Uint8Array,
  context: CertificateLintContext & { readonly approvedTbs?: Uint8Array },
): Finding[] {
  const findings: Finding[] = [];
  try {
    const { tbs, algorithm, signature } = walkSigned(der);
    const message = encodingOf(tbs);
    const subject = lintTbs(message, context, findings);
    if (context.approvedTbs !== undefined && !sameOctets(message, context.approvedTbs)) {
      report(findings, "CRT-07", "the TBS is not the approved one, byte for byte");
    }
    if (subject === undefined) return findings;
    const inner = encodingOf(subject.walk.signature);
    if (!encodingIs(algorithm, inner)) {
      report(
        findings,
        "CRT-06",
        `signatureAlgorithm ${shown(encodingOf(algorithm))} differs from the TBS's ${shown(inner)}`,
      );
      return findings;
    }
    checkSignature(subject, algorithm, message, signature);
  } catch (error) {
    reportBroken(findings, "CRT-19", "certificate", error);
  }
  return findings;
}

function checkSignature(
  { walk, key, context, findings }: Subject,
  algorithm: DerElement,
  message: Uint8Array,
  signature: DerElement,
): void {
  if (signature.bytes[signature.contentStart] !== 0) {
    report(findings, "CRT-07", "the signature's BIT STRING has unused bits");
    return;
  }
  const isRoot = context.kind === "root";
  const keyType = isRoot ? key?.type : context.issuer?.keyType;
  const signer = isRoot ? keyObjectOf(walk) : context.issuer?.key;
  if (keyType === undefined) return; // the key's own finding says why
  if ("fault" in algorithmFor(algorithm, keyType)) return; // as does CRT-06
  const octets = signature.bytes.subarray(signature.contentStart + 1, signature.end);
  if (signer === undefined || !signatureVerifies(signer, algorithm, keyType, message, octets)) {
    report(
      findings,
      isRoot ? "ROOT-01" : "CRT-07",
      "the signature does not verify with the issuer's key",
    );
  }
}

function keyObjectOf(walk: TbsWalk): KeyObject | undefined {
  try {
    const key = Buffer.from(encodingOf(walk.subjectPublicKeyInfo));
    return createPublicKey({ key, format: "der", type: "spki" });
  } catch {
    return undefined;
  }
}

function lintTbs(
  tbs: Uint8Array,
  context: CertificateLintContext,
  findings: Finding[],
): Subject | undefined {
  const { kind, issuer } = context;
  if (kind !== "root" && issuer === undefined) {
    throw new TypeError(`a certificate of kind ${kind} is linted with its issuer`);
  }
  const walk = walkTbsCertificate(tbs, findings);
  if (walk === undefined) return undefined;
  let name: Subject["name"];
  try {
    name = walkName(walk.subject, findings);
  } catch (error) {
    reportBroken(findings, "CRT-19", "subject", error);
    return undefined;
  }
  const key = readSubjectKey(walk.subjectPublicKeyInfo, context, findings);
  const subject: Subject = { walk, name, key, context, findings };

  checkFields(subject);
  checkTimes(subject);
  checkExtensions(subject);
  checkAlgorithm(subject);
  if (issuer !== undefined && kind !== "root") checkPath(subject, issuer);
  checkKeyUses(subject);
  switch (kind) {
    case "root":
      checkRoot(subject);
      break;
    case "intermediate":
      checkIntermediate(subject, issuer!);
      break;
    case "server":
    case "peer":
      checkServer(subject, issuer!);
      break;
    case "client":
      checkClient(subject, issuer!);
      break;
  }
  if (context.requested !== undefined) checkRequested(subject, context.requested);
  return subject;
}

function checkFields({ walk, context, findings }: Subject): void {
  if (walk.version !== 2) {
    const found =
      walk.version === -1 ? "not encoded, which means v1" : `encoded as ${walk.version}`;
    report(findings, "CRT-01", `the version is ${found}; v3 (2) is wanted`);
  }
  checkSerialNumber(walk.serialNumber, context, findings);
  if (context.kind !== "root" && !encodingIs(walk.issuer, context.issuer!.subject)) {
    report(findings, "CRT-05", "the issuer is not the issuer certificate's subject, byte for byte");
  }
  if (walk.hasUniqueIdentifiers) {
    report(findings, "CRT-08", "the TBS has an issuerUniqueID or subjectUniqueID");
  }
}

function checkSerialNumber(
  serialNumber: DerElement,
  context: CertificateLintContext,
  findings: Finding[],
): void {
  const { bytes, contentStart, end } = serialNumber;
  const fault = integerFault(serialNumber);
  const length = end - contentStart;
  const negative = length > 0 && bytes[contentStart]! >= 0x80;
  const zero = length === 1 && bytes[contentStart] === 0;
  if (fault !== undefined || negative || zero || length > 20) {
    const found = fault ?? (negative ? "negative" : zero ? "zero" : `${length} octets long`);
    report(
      findings,
      "CRT-02",
      `serialNumber is ${found}; a positive INTEGER of at most 20 octets is wanted`,
    );
  } else if (context.issuedSerials?.(contentHex(serialNumber)) === true) {
    report(findings, "CRT-04", `serialNumber ${contentHex(serialNumber)} is already in use`);
  }
}

function checkTimes({ walk, context, findings }: Subject): void {
  const { notBeforeTime, notAfterTime } = walk;
  checkTime("notBefore", walk.notBefore, notBeforeTime, findings);
  checkTime("notAfter", walk.notAfter, notAfterTime, findings);
  if (notBeforeTime === NO_EXPIRY || (notAfterTime === NO_EXPIRY && context.noExpiry !== true)) {
    report(findings, "CRT-09", "99991231235959Z means no expiry, which was not meant here");
  }
  if (notBeforeTime >= notAfterTime) {
    report(
      findings,
      "CRT-10",
      `notBefore ${instant(notBeforeTime)} is not before notAfter ${instant(notAfterTime)}`,
    );
  } else if (context.maximumLifetime !== undefined) {
    const lifetime = (notAfterTime - notBeforeTime) / 1000 + 1;
    if (lifetime > context.maximumLifetime) {
      report(
        findings,
        "CRT-10",
        `the validity is ${lifetime} s, its last second included; at most ${context.maximumLifetime} s are allowed`,
      );
    }
  }
}

function checkTime(field: string, element: DerElement, time: number, findings: Finding[]): void {
  if (Number.isNaN(time)) {
    const content = element.bytes.subarray(element.contentStart, element.end);
    report(
      findings,
      "CRT-09",
      `${field} (tag ${element.tag.toString(16)}, ${shown(content)}) is not YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ`,
    );
  } else if (!timeTypeFits(element, time)) {
    report(
      findings,
      "CRT-09",
      `${field} ${instant(time)} has the wrong type: UTCTime through 2049, then GeneralizedTime`,
    );
  }
}

function checkExtensions({ walk, context, findings }: Subject): void {
  const { extensions } = walk;
  const { present, broken, critical } = extensions;
  const readable = present & ~broken;
  if (
    (readable & Known.basicConstraints) !== 0 &&
    extensions.pathLen >= 0 &&
    !(extensions.cA && (extensions.keyUsage & KeyUsageBit.keyCertSign) !== 0)
  ) {
    report(findings, "CRT-15", "pathLen without cA TRUE and keyCertSign");
  }
  checkAuthorityKeyIdentifier(walk, context, findings);
  if ((critical & Known.subjectKeyIdentifier) !== 0) {
    report(findings, "CRT-17", "subjectKeyIdentifier is critical");
  }
  if ((present & Known.nameConstraints) !== 0) {
    if (!extensions.cA) report(findings, "NC-01", "nameConstraints in a certificate that is no CA");
    else if ((critical & Known.nameConstraints) === 0) {
      report(findings, "NC-02", "nameConstraints is not critical");
    }
  }
  if ((critical & Known.authorityInfoAccess) !== 0) {
    report(findings, "CRT-20", "authorityInfoAccess is critical, which RFC 5280 §4.2.2.1 forbids");
  }
  if (context.kind === "root" || context.kind === "intermediate") {
    if ((readable & Known.subjectAltName) !== 0) checkCaNames(extensions.names, findings);
  }
  for (const unknown of extensions.unknown) checkUnknown(unknown, context, findings);
}

/** The names of a CA have no rule of their own; those of a leaf are judged by its kind. */
function checkCaNames(names: readonly DerElement[], findings: Finding[]): void {
  if (names.length === 0) report(findings, "CRT-19", "subjectAltName is empty");
  for (const name of names) {
    if (name.tag === NameTag.email && !isAscii(name)) {
      report(findings, "CRT-19", "subjectAltName has an rfc822Name with octets above 7f");
    }
  }
}

function checkAuthorityKeyIdentifier(
  walk: TbsWalk,
  context: CertificateLintContext,
  findings: Finding[],
): void {
  const { present, broken, critical, authorityKeyIdentifier, authorityHasIssuerForm } =
    walk.extensions;
  if ((present & Known.authorityKeyIdentifier) === 0) return; // each kind has its own rule
  if ((critical & Known.authorityKeyIdentifier) !== 0) {
    report(findings, "CRT-16", "authorityKeyIdentifier is critical");
  }
  if ((broken & Known.authorityKeyIdentifier) !== 0) return;
  if (authorityHasIssuerForm) {
    report(findings, "CRT-16", "authorityKeyIdentifier has the issuer and serial number form");
  }
  const own = walk.extensions.subjectKeyIdentifier;
  const wanted =
    context.kind === "root"
      ? own?.bytes.subarray(own.contentStart, own.end)
      : context.issuer?.subjectKeyIdentifier;
  if (wanted === undefined) {
    if (context.kind !== "root") {
      report(findings, "CRT-16", "the issuer certificate has no SKI that the AKI could equal");
    }
  } else if (authorityKeyIdentifier === undefined) {
    report(findings, "CRT-16", "authorityKeyIdentifier has no keyIdentifier");
  } else if (!contentIs(authorityKeyIdentifier, wanted)) {
    report(
      findings,
      "CRT-16",
      `authorityKeyIdentifier ${contentHex(authorityKeyIdentifier)} is not the issuer's SKI ${hexOf(wanted)}`,
    );
  }
}

function checkUnknown(
  unknown: UnknownExtension,
  context: CertificateLintContext,
  findings: Finding[],
): void {
  const { oid, critical, value } = unknown;
  const listed = context.extensions?.find((extension) =>
    encodingIs(oid, objectIdentifier(extension.oid)),
  );
  if (listed === undefined) {
    report(
      findings,
      "CRT-20",
      `extension ${oidText(oid)} is unknown, and the profile does not list it`,
    );
    return;
  }
  if (listed.critical !== critical) {
    report(
      findings,
      "CRT-20",
      `extension ${oidText(oid)} is ${critical ? "" : "not "}critical, unlike in the profile`,
    );
  }
  if (listed.value !== undefined) {
    if (!contentIs(value, listed.value)) {
      report(findings, "CRT-20", `extension ${oidText(oid)} has another value than the profile's`);
    }
    return;
  }
  try {
    checkAnyDer(value.bytes, value.contentStart, value.end);
  } catch (error) {
    reportBroken(findings, "CRT-19", `extension ${oidText(oid)}`, error);
  }
}

function checkAlgorithm({ walk, key, context, findings }: Subject): void {
  const keyType = context.kind === "root" ? key?.type : context.issuer?.keyType;
  if (keyType === undefined) return; // the key's own finding says why
  const known = algorithmFor(walk.signature, keyType);
  if ("fault" in known) report(findings, "CRT-06", `signature: ${known.fault}`);
}

/** CRT-11, CRT-22, NC-08: what the path above allows. */
function checkPath({ walk, name, context, findings }: Subject, issuer: LintIssuer): void {
  if (walk.notBeforeTime < issuer.notBefore) {
    report(
      findings,
      "CRT-11",
      `notBefore ${instant(walk.notBeforeTime)} is before the issuer's, ${instant(issuer.notBefore)}`,
    );
  }
  if (walk.notAfterTime > issuer.notAfter) {
    report(
      findings,
      "CRT-11",
      `notAfter ${instant(walk.notAfterTime)} is after the issuer's, ${instant(issuer.notAfter)}`,
    );
  }
  for (const fault of issuer.pathFaults) report(findings, "CRT-22", fault);
  const now = context.now.getTime();
  if (!(now >= issuer.pathNotBefore && now <= issuer.pathNotAfter)) {
    report(findings, "CRT-22", `a CA of the path is not valid at ${context.now.toISOString()}`);
  }
  if (context.issuerRevoked === true) report(findings, "CRT-22", "a CA of the path is revoked");
  if (issuer.constraints.length > 0) {
    try {
      checkConstraints(
        issuer.constraints,
        { subject: walk.subject, subjectWalk: name, names: walk.extensions.names },
        findings,
      );
    } catch (error) {
      if (!(error instanceof DerError)) throw error;
      report(findings, "NC-08", `a name cannot be held against the constraints: ${error.message}`);
    }
  }
}

/** CRT-17, CRT-18, KEY-11, ICA-13: what hangs on the identity of the key. */
function checkKeyUses({ walk, key, context, findings }: Subject): void {
  const { kind, issuer, caKeys, leafKeys, ceremonyKeys } = context;
  const spki = walk.subjectPublicKeyInfo;
  const identifier = walk.extensions.subjectKeyIdentifier;
  const isCa = kind === "root" || kind === "intermediate";
  if (kind !== "root" && issuer !== undefined && encodingIs(spki, issuer.subjectPublicKeyInfo)) {
    report(findings, "KEY-11", "the subject key is the issuer's own");
  }
  if (identifier !== undefined) {
    if (key !== undefined) checkIdentifierMethod(identifier, key.bits, context, findings);
    for (const other of issuer?.pathKeys ?? []) {
      if (contentIs(identifier, other.identifier) && !encodingIs(spki, other.spki)) {
        report(findings, "CRT-17", "the SKI is that of a CA above, which has another key");
      }
    }
  }
  const owner =
    identifier === undefined ? undefined : context.keyIdentifierOwner?.(contentHex(identifier));
  if (
    owner === undefined &&
    (isCa ? leafKeys : caKeys) === undefined &&
    (kind !== "intermediate" || ceremonyKeys === undefined)
  ) {
    return;
  }
  const digest = hash("sha256", encodingOf(spki), "hex");
  if (owner !== undefined && owner !== digest) {
    report(findings, "CRT-17", `the SKI is already that of another key, ${owner}`);
  }
  if (isCa && leafKeys?.(digest) === true) {
    report(findings, "KEY-11", "the subject key is that of a leaf");
  } else if (!isCa && caKeys?.has(digest) === true) {
    report(findings, "KEY-11", "the subject key is that of a CA");
  }
  if (kind === "intermediate" && ceremonyKeys?.has(digest) === false) {
    report(findings, "ICA-13", "no approved ceremony made this key");
  }
}

function checkIdentifierMethod(
  identifier: DerElement,
  bits: Uint8Array,
  context: CertificateLintContext,
  findings: Finding[],
): void {
  const method = context.subjectKeyIdentifierMethod ?? "rfc7093-1";
  const digest = hash(method === "sha1" ? "sha1" : "sha256", bits, "buffer");
  const { bytes, contentStart, end } = identifier;
  if (rangeIs(bytes, contentStart, end, digest.subarray(0, 20))) return;
  report(
    findings,
    "CRT-18",
    `the SKI ${contentHex(identifier)} is not made by the method ${method}, which gives ${hexOf(digest.subarray(0, 20))}`,
  );
}
