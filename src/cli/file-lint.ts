/** The linter over files: which rules apply, and against which issuers. */

import { hash } from "node:crypto";
import { parseCertificate, extensionOf, type Certificate } from "../x509/certificate.ts";
import { DerError, DerReader, encodingOf, equalOctets, Tag } from "../x509/der.ts";
import {
  parseBasicConstraints,
  parseExtKeyUsage,
  parseSubjectKeyIdentifier,
} from "../x509/extension.ts";
import { lintCertificate, lintIssuer, type CertificateKind } from "../x509/lint/certificate.ts";
import { lintCertificateList } from "../x509/lint/certificate-list.ts";
import type { Finding } from "../x509/lint/finding.ts";
import { nameText } from "../x509/name.ts";
import { extensionOids, extKeyUsageOids } from "../x509/oid.ts";
import { parsePublicKey, publicKeyObject } from "../x509/public-key.ts";
import { signatureAlgorithmFrom, verifySignature } from "../x509/signature-algorithm.ts";
import { parseSigned } from "../x509/signed.ts";
import { CountersignError } from "../errors.ts";

export interface FileLint {
  /** What it was checked as; absent if it was not. */
  readonly checkedAs?: CertificateKind | "certificate list";
  /** Why it was not. */
  readonly notChecked?: string;
  readonly findings: readonly Finding[];
}

/** The CA certificates at hand, among which issuers are looked for. */
export class IssuerPool {
  readonly #certificates: readonly Certificate[];

  /** @param certificates - DER; what cannot be read is left out. */
  constructor(certificates: readonly Uint8Array[]) {
    this.#certificates = certificates.flatMap((der) => {
      const certificate = parsed(der);
      return certificate === undefined ? [] : [certificate];
    });
  }

  /** The certificate that signed this, by name and signature. */
  issuerOf(signed: Uint8Array, issuerName: Uint8Array): Certificate | undefined {
    return this.#certificates.find(
      ({ tbs }) =>
        equalOctets(tbs.subject, issuerName) && isSignedBy(signed, tbs.subjectPublicKeyInfo),
    );
  }

  /** From the issuer up to a root: undefined where one is missing. */
  pathAbove(signed: Uint8Array, issuerName: Uint8Array): Certificate[] | undefined {
    const path: Certificate[] = [];
    for (let [der, name] = [signed, issuerName]; ;) {
      const issuer = this.issuerOf(der, name);
      if (issuer === undefined || path.includes(issuer)) return undefined;
      path.push(issuer);
      if (isSelfIssued(issuer)) return path;
      [der, name] = [issuer.der, issuer.tbs.issuer];
    }
  }
}

function parsed(der: Uint8Array): Certificate | undefined {
  try {
    return parseCertificate(der);
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    return undefined;
  }
}

/** Whether the signature of a certificate or CRL verifies with a key; false also for algorithms unknown here. */
export function isSignedBy(der: Uint8Array, spki: Uint8Array): boolean {
  try {
    const { tbs, signatureAlgorithm, signature } = parseSigned(der);
    const algorithm = signatureAlgorithmFrom(signatureAlgorithm);
    if (algorithm === undefined) return false;
    return verifySignature(publicKeyObject(parsePublicKey(spki)), algorithm, tbs, signature);
  } catch (error) {
    if (!(error instanceof DerError || error instanceof CountersignError)) throw error;
    return false;
  }
}

function isSelfIssued({ tbs }: Certificate): boolean {
  return equalOctets(tbs.issuer, tbs.subject);
}

const missing = (issuer: Uint8Array): string =>
  `its issuer (${nameText(issuer)}) up to a root is not at hand: add those certificates with --chain FILE`;

/** A certificate against the rules of its kind, as they were when it was made. */
export function lintCertificateFile(der: Uint8Array, pool: IssuerPool, now: Date): FileLint {
  const certificate = parsed(der);
  if (certificate === undefined) return { notChecked: "it cannot be read", findings: [] };
  const { tbs } = certificate;
  const kind = kindOf(certificate);
  if (kind === undefined) {
    return { notChecked: "it is for neither a CA, a TLS server nor a TLS client", findings: [] };
  }
  // A chain that has ended since is no fault of the certificate.
  const at = new Date(
    Math.max(tbs.notBefore.getTime(), Math.min(now.getTime(), tbs.notAfter.getTime())),
  );
  const context = {
    kind,
    now: at,
    clientNames: ["dns", "ip", "email", "uri", "upn"],
    subjectKeyIdentifierMethod: keyIdentifierMethod(certificate),
  } as const;
  if (kind === "root") return { checkedAs: kind, findings: lintCertificate(der, context) };
  const path = pool.pathAbove(der, tbs.issuer);
  if (path === undefined) return { notChecked: missing(tbs.issuer), findings: [] };
  const [issuer, ...chain] = path.map((above) => above.der);
  try {
    const findings = lintCertificate(der, { ...context, issuer: lintIssuer(issuer!, chain) });
    return { checkedAs: kind, findings };
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    return { notChecked: error.message, findings: [] };
  }
}

export function lintCrlFile(der: Uint8Array, pool: IssuerPool, now: Date): FileLint {
  let name: Uint8Array;
  try {
    const reader = DerReader.inside(DerReader.whole(parseSigned(der).tbs, Tag.sequence));
    reader.readOptional(Tag.integer);
    reader.read(Tag.sequence);
    name = encodingOf(reader.read(Tag.sequence));
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    return { notChecked: "it cannot be read", findings: [] };
  }
  const path = pool.pathAbove(der, name);
  if (path === undefined) return { notChecked: missing(name), findings: [] };
  const [issuer, ...chain] = path.map((above) => above.der);
  try {
    const findings = lintCertificateList(der, { issuer: lintIssuer(issuer!, chain), now });
    return { checkedAs: "certificate list", findings };
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    return { notChecked: error.message, findings: [] };
  }
}

function kindOf(certificate: Certificate): CertificateKind | undefined {
  const { tbs } = certificate;
  try {
    const basic = extensionOf(tbs, extensionOids.basicConstraints);
    if (basic !== undefined && parseBasicConstraints(basic.value).cA) {
      return isSelfIssued(certificate) ? "root" : "intermediate";
    }
    const usage = extensionOf(tbs, extensionOids.extKeyUsage);
    const purposes = usage === undefined ? [] : parseExtKeyUsage(usage.value);
    const server = purposes.includes(extKeyUsageOids.serverAuth);
    const client = purposes.includes(extKeyUsageOids.clientAuth);
    if (server) return client ? "peer" : "server";
    return client ? "client" : undefined;
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    return undefined;
  }
}

/** Most CAs take SHA-1 of the key, which is no fault (RFC 5280 §4.2.1.2); those of this service do not. */
function keyIdentifierMethod({ tbs }: Certificate): "rfc7093-1" | "sha1" {
  try {
    const extension = extensionOf(tbs, extensionOids.subjectKeyIdentifier);
    const identifier = extension && parseSubjectKeyIdentifier(extension.value);
    const sha1 = hash("sha1", parsePublicKey(tbs.subjectPublicKeyInfo).bits, "buffer");
    return identifier !== undefined && equalOctets(identifier, sha1) ? "sha1" : "rfc7093-1";
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    return "rfc7093-1";
  }
}
