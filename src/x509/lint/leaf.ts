/** Leaf certificates: rules SRV-* (servers and peers) and CLI-*. */

import type { DerElement } from "../der.ts";
import { Tag } from "../der.ts";
import type { Subject } from "./certificate-context.ts";
import { report } from "./finding.ts";
import type { Finding } from "./finding.ts";
import { NameTag, addressOctets, addressText, nameKind, readOtherName } from "./general-names.ts";
import type { LintIssuer } from "./issuer.ts";
import { checkPurposesOfPath } from "./purposes.ts";
import { contentIs, contentText, quoted } from "./octets.ts";
import { KeyUsageBit, Known, Purpose, keyUsageText, oidText, purposeOf } from "./structure.ts";
import { isAscii } from "./value.ts";

export function checkServer(subject: Subject, issuer: LintIssuer): void {
  const { walk, context, findings } = subject;
  const { present, broken, names } = walk.extensions;
  if ((present & Known.authorityKeyIdentifier) === 0) {
    report(findings, "CRT-16", "authorityKeyIdentifier is missing");
  }
  if ((present & Known.subjectAltName) === 0) {
    report(findings, "SRV-03", "there is no subjectAltName");
  } else if ((broken & Known.subjectAltName) === 0) {
    checkSanCriticality(subject, "SRV-03");
    if (names.length === 0) report(findings, "SRV-03", "subjectAltName is empty");
    for (const name of names) checkServerName(name, findings);
    checkCommonName(subject);
    checkRepetition(names, context.maximumNames ?? 100, findings);
  }
  checkServerPurposes(subject);
  checkPurposesOfPath(subject, issuer, "CRT-22");
  checkServerKeyUsage(subject);
  checkNoCa(subject, "SRV-14");
}

function checkServerName(name: DerElement, findings: Finding[]): void {
  if (name.tag === NameTag.dns) {
    if (!isHostLike(name)) {
      report(
        findings,
        "SRV-03",
        `dNSName ${quoted(contentText(name))} is empty or has characters that no host name has`,
      );
    }
  } else if (name.tag !== NameTag.ip) {
    report(findings, "SRV-03", `subjectAltName has a name of kind ${nameKind(name)}`);
  }
}

/**
 * Letters, digits, `-` and `_` in labels, with `*` as the whole left-most one at most. Whether `_` or a wildcard is
 * wanted is the policy's to say (SRV-04 is B).
 */
function isHostLike(name: DerElement): boolean {
  const { bytes, contentStart, end } = name;
  let labelLength = 0;
  for (let i = contentStart; i < end; i++) {
    const octet = bytes[i]!;
    if (octet === 0x2e) {
      if (labelLength === 0) return false;
      labelLength = 0;
      continue;
    }
    const letter = octet | 0x20;
    if (
      !(letter >= 0x61 && letter <= 0x7a) &&
      !(octet >= 0x30 && octet <= 0x39) &&
      octet !== 0x2d &&
      octet !== 0x5f &&
      !(octet === 0x2a && i === contentStart && bytes[i + 1] === 0x2e && i + 2 < end)
    ) {
      return false;
    }
    labelLength += 1;
    if (labelLength > 63) return false;
  }
  return labelLength > 0 && end - contentStart <= 253;
}

function checkSanCriticality({ walk, name, findings }: Subject, rule: "SRV-03" | "CLI-03"): void {
  const critical = (walk.extensions.critical & Known.subjectAltName) !== 0;
  if (critical === name.empty) return;
  report(
    findings,
    rule,
    name.empty
      ? "the subject is empty, and subjectAltName is not critical"
      : "subjectAltName is critical, and the subject is not empty",
  );
}

/** SRV-06. An IPv6 address has its RFC 5952 text, in which 4 of its octets may stand in dotted decimal. */
function checkCommonName({ walk, name, findings }: Subject): void {
  const { commonNames } = name;
  if (commonNames.length === 0) return;
  if (commonNames.length > 1) {
    report(findings, "SRV-06", `the subject has ${commonNames.length} common names`);
    return;
  }
  const commonName = commonNames[0]!;
  if (commonName.length > 64) return; // DN-06 has said so
  const octets = addressOctets(commonName);
  for (const candidate of walk.extensions.names) {
    const equal =
      candidate.tag === NameTag.dns
        ? contentText(candidate) === commonName
        : candidate.tag === NameTag.ip &&
          octets !== undefined &&
          contentIs(candidate, octets) &&
          isAddressText(commonName, octets);
    if (!equal) continue;
    report(findings, "SRV-06", `the subject has a common name, ${quoted(commonName)}`, "S");
    return;
  }
  report(findings, "SRV-06", `the common name ${quoted(commonName)} is no name of the SAN`);
}

function isAddressText(text: string, octets: Uint8Array): boolean {
  if (text === addressText(octets)) return true;
  const mapped = addressText(octets).startsWith("::ffff:") && octets.length === 16;
  return mapped && text === `::ffff:${octets.subarray(12).join(".")}`;
}

function checkRepetition(names: readonly DerElement[], most: number, findings: Finding[]): void {
  if (names.length > most) {
    report(findings, "SRV-16", `${names.length} names; at most ${most} are allowed`);
    return;
  }
  if (names.length < 2) return;
  const seen = new Set<string>();
  let wildcards = false;
  for (const name of names) {
    const text = contentText(name).toLowerCase();
    wildcards ||= text.startsWith("*.");
    const entry = name.tag === NameTag.dns ? text : `${name.tag} ${text}`;
    if (seen.has(entry))
      report(findings, "SRV-16", `${nameKind(name)} ${quoted(text)} stands there twice`);
    seen.add(entry);
  }
  if (!wildcards) return;
  for (const name of names) {
    if (name.tag !== NameTag.dns) continue;
    const text = contentText(name).toLowerCase();
    const dot = text.indexOf(".");
    if (dot === -1 || text.startsWith("*.") || !seen.has(`*${text.slice(dot)}`)) continue;
    report(findings, "SRV-16", `${quoted(text)} is covered by *${text.slice(dot)} beside it`);
  }
}

/** id-kp purposes, anyExtendedKeyUsage and precertificate signing that a server's key never has (ICA-04). */
const foreignPurposes: ReadonlySet<number> = new Set([
  Purpose.any,
  Purpose.codeSigning,
  Purpose.emailProtection,
  Purpose.timeStamping,
  Purpose.OCSPSigning,
]);
const PRECERTIFICATE_SIGNING = Uint8Array.from(Buffer.from("2b06010401d679020404", "hex"));

function checkServerPurposes({ walk, context, findings }: Subject): void {
  const { present, broken, critical, extKeyUsage } = walk.extensions;
  if ((broken & Known.extKeyUsage) !== 0) return;
  if ((present & Known.extKeyUsage) === 0) {
    report(findings, "SRV-08", "there is no extKeyUsage");
    return;
  }
  if ((critical & Known.extKeyUsage) !== 0) report(findings, "SRV-08", "extKeyUsage is critical");
  let server = false;
  let client = false;
  for (const oid of extKeyUsage) {
    const purpose = purposeOf(oid);
    server ||= purpose === Purpose.serverAuth;
    client ||= purpose === Purpose.clientAuth;
    if (foreignPurposes.has(purpose) || contentIs(oid, PRECERTIFICATE_SIGNING)) {
      report(findings, "SRV-08", `extKeyUsage has ${oidText(oid)}, which a server's never has`);
    }
  }
  if (!server) report(findings, "SRV-08", "extKeyUsage has no serverAuth");
  if (!client && context.kind === "peer") {
    report(findings, "SRV-08", "extKeyUsage of a peer has no clientAuth");
  }
}

function checkServerKeyUsage({ walk, key, findings }: Subject): void {
  const { present, broken, critical, keyUsage } = walk.extensions;
  if ((broken & Known.keyUsage) !== 0) return;
  if ((present & Known.keyUsage) === 0) {
    report(findings, "SRV-09", "there is no keyUsage");
    return;
  }
  if ((critical & Known.keyUsage) === 0) report(findings, "SRV-09", "keyUsage is not critical");
  const allowed =
    KeyUsageBit.digitalSignature |
    (key?.type === "RSA" ? KeyUsageBit.keyEncipherment : 0) |
    KeyUsageBit.keyCertSign | // SRV-14's
    KeyUsageBit.cRLSign;
  if ((keyUsage & KeyUsageBit.digitalSignature) === 0 || (keyUsage & ~allowed) !== 0) {
    report(
      findings,
      "SRV-09",
      `keyUsage is ${keyUsageText(keyUsage)}; digitalSignature (RSA: and keyEncipherment) is wanted`,
    );
  }
}

function checkNoCa({ walk, findings }: Subject, rule: "SRV-14" | "CLI-06"): void {
  const { present, broken, critical, cA, keyUsage } = walk.extensions;
  if ((present & ~broken & Known.basicConstraints) !== 0) {
    if (cA) report(findings, rule, "basicConstraints says cA TRUE");
    else if ((critical & Known.basicConstraints) === 0) {
      report(findings, rule, "basicConstraints is not critical");
    }
  }
  const bits = keyUsage & (KeyUsageBit.keyCertSign | KeyUsageBit.cRLSign);
  // CLI-02 allows a client digitalSignature alone, and says so itself.
  if (rule === "SRV-14" && bits !== 0 && !cA) {
    report(findings, rule, `keyUsage of a leaf asserts ${keyUsageText(bits)}`);
  }
}

export function checkClient(subject: Subject, issuer: LintIssuer): void {
  const { walk, findings } = subject;
  const { present, broken, critical, extKeyUsage, keyUsage } = walk.extensions;
  if ((broken & Known.extKeyUsage) === 0) {
    const only = extKeyUsage.length === 1 ? purposeOf(extKeyUsage[0]!) : -1;
    if (only !== Purpose.clientAuth) {
      const found = extKeyUsage.map(oidText).join(", ");
      report(findings, "CLI-01", `extKeyUsage is [${found}]; exactly clientAuth is wanted`);
    }
  }
  checkPurposesOfPath(subject, issuer, "CLI-07");
  if ((broken & Known.keyUsage) === 0) {
    const isCritical = (critical & Known.keyUsage) !== 0;
    const empty = (present & Known.keyUsage) !== 0 && keyUsage === 0; // CRT-14 has said so
    if (!empty && (!isCritical || keyUsage !== KeyUsageBit.digitalSignature)) {
      report(
        findings,
        "CLI-02",
        `keyUsage is ${isCritical ? "" : "not "}critical with ${keyUsageText(keyUsage)}; critical with digitalSignature alone is wanted`,
      );
    }
  }
  checkClientNames(subject);
  checkNoCa(subject, "CLI-06");
  if ((present & Known.authorityKeyIdentifier) === 0) {
    report(findings, "CLI-06", "authorityKeyIdentifier is missing");
  }
  checkScope(subject);
}

const defaultClientNames: readonly string[] = ["email", "uri"];

function checkClientNames(subject: Subject): void {
  const { walk, name, context, findings } = subject;
  const { present, broken, names } = walk.extensions;
  if ((present & Known.subjectAltName) === 0) {
    if (name.empty) report(findings, "CLI-03", "there is neither a subject nor a subjectAltName");
    return;
  }
  if ((broken & Known.subjectAltName) !== 0) return;
  checkSanCriticality(subject, "CLI-03");
  if (names.length === 0) report(findings, "CLI-03", "subjectAltName is empty");
  const allowed: readonly string[] = context.clientNames ?? defaultClientNames;
  let uris = 0;
  let spiffe = false;
  for (const candidate of names) {
    const kind = nameKind(candidate);
    if (kind === "dns" || kind === "ip") {
      if (!allowed.includes(kind)) {
        report(findings, "CLI-04", `subjectAltName has a name of kind ${kind}`);
      } else if (kind === "dns" && !isHostLike(candidate)) {
        report(findings, "CLI-04", `dNSName ${quoted(contentText(candidate))} is no host name`);
      }
    } else if (!allowed.includes(kind === "smtp-utf8" ? "email" : kind)) {
      report(findings, "CLI-03", `subjectAltName has a name of kind ${kind}`);
    } else if (kind === "uri") {
      uris += 1;
      const text = contentText(candidate);
      spiffe ||= text.startsWith("spiffe://");
      if (!/^[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+$/.test(text)) {
        report(findings, "CLI-03", `URI ${quoted(text)} is not absolute`);
      }
    } else if (kind === "email") {
      checkMailbox(candidate, findings);
    } else if (kind === "smtp-utf8") {
      checkUtf8Mailbox(candidate, findings);
    } else if (kind === "upn" && readOtherName(candidate).tag !== Tag.utf8String) {
      report(findings, "CLI-03", "a UPN is not a UTF8String");
    }
  }
  // SPIFFE X509-SVID §2: a certificate with two URIs is no SVID at all.
  if (spiffe && uris !== 1) report(findings, "CLI-03", `a SPIFFE ID among ${uris} URIs`);
}

function checkMailbox(name: DerElement, findings: Finding[]): void {
  const text = contentText(name);
  if (!isAscii(name)) {
    report(findings, "CLI-05", `rfc822Name ${quoted(text)} has octets above 7f`);
  } else if (!/^[\w!#$%&'*+/=?^`{|}~.-]+@[\w.-]+$/.test(text)) {
    report(findings, "CLI-05", `rfc822Name ${quoted(text)} is not a mailbox`);
  }
}

/** RFC 9598 §3: only for local parts that an rfc822Name cannot hold. */
function checkUtf8Mailbox(name: DerElement, findings: Finding[]): void {
  const value = readOtherName(name);
  if (value.tag !== Tag.utf8String) {
    report(findings, "CLI-05", "a SmtpUTF8Mailbox is not a UTF8String");
  } else if (isAscii(value)) {
    report(findings, "CLI-05", "a SmtpUTF8Mailbox in ASCII belongs in an rfc822Name");
  }
}

function checkScope({ walk, context, findings }: Subject): void {
  const { present, broken, crlNames } = walk.extensions;
  if ((broken & Known.cRLDistributionPoints) !== 0) return;
  if ((present & Known.cRLDistributionPoints) === 0) {
    report(findings, "CLI-06", "there is no cRLDistributionPoints");
    return;
  }
  const { crlUrl } = context;
  const found = crlNames.some(
    (name) => name.tag === NameTag.uri && (crlUrl === undefined || contentText(name) === crlUrl),
  );
  if (!found) {
    report(
      findings,
      "CLI-06",
      `cRLDistributionPoints has not the URI ${quoted(crlUrl ?? "of its scope")}`,
    );
  }
}
