/** What was signed is what was to be signed, by the key that was to sign it: rule 7 of AUDIT-LOG 9.6, for the bytes. */

import type { KeyObject } from "node:crypto";
import { extensionOf, parseCertificate, type TbsCertificate } from "../x509/certificate.ts";
import { parseCertificateList, type CertificateList } from "../x509/certificate-list.ts";
import { parseCertificationRequestInfo } from "../x509/certification-request.ts";
import { parseBasicConstraints } from "../x509/extension.ts";
import { extensionOids } from "../x509/oid.ts";
import { parsePublicKey, publicKeyObject, spkiDigest } from "../x509/public-key.ts";
import { serialNumberHex } from "../x509/serial-number.ts";
import { signatureAlgorithmFrom, verifySignature } from "../x509/signature-algorithm.ts";
import { parseSigned } from "../x509/signed.ts";
import { digestOf } from "./digest.ts";
import type { LogEntryOf } from "./entry.ts";
import type { Finding, Findings } from "./findings.ts";

/** An intent, and the index of its record. */
export interface Intent {
  readonly index: number;
  readonly entry: LogEntryOf<"sign.intent">;
}

/** Checks certificates and CRLs in the order of the log, so that an issuer's certificate comes before what it signs. */
export class SignedObjects {
  /** Public keys of the CAs, by the SHA-256 of their SubjectPublicKeyInfo: a key cannot be put in another's place. */
  readonly #keys = new Map<string, KeyObject>();
  /** How many signatures by a key could not be checked. */
  readonly #unchecked = new Map<string, number>();
  readonly #missing = { certificate: 0, crl: 0, request: 0 };

  /** Bytes that are not at hand. */
  missing(operation: Intent["entry"]["data"]["operation"]): void {
    this.#missing[operation]++;
  }

  /**
   * @param der - Whose digest the sign.done has.
   * @returns undefined if it is no certificate.
   */
  certificate(
    der: Uint8Array,
    { index, entry }: Intent,
    position: string,
    findings: Findings,
  ): TbsCertificate | undefined {
    return checked(position, findings, "certificate", () => {
      const { tbs } = parseCertificate(der);
      const { keyId, serialNumber } = entry.subject;
      if (digestOf(tbs.der) !== entry.data.tbs) {
        findings.add(position, `what was signed is not what entry ${index} says was to be signed`);
      }
      if (serialNumberHex(tbs.serialNumber) !== serialNumber) {
        findings.add(position, `its serial number is not that of entry ${index}`);
      }
      const spki = spkiDigest(tbs.subjectPublicKeyInfo);
      const basicConstraints = extensionOf(tbs, extensionOids.basicConstraints);
      if (
        basicConstraints !== undefined &&
        parseBasicConstraints(basicConstraints.value).cA &&
        !this.#keys.has(spki)
      ) {
        this.#keys.set(spki, publicKeyObject(parsePublicKey(tbs.subjectPublicKeyInfo)));
      }
      this.#signature(der, keyId, position, findings);
      return tbs;
    });
  }

  /** As {@link certificate}, of a CertificateList. */
  crl(
    der: Uint8Array,
    { index, entry }: Intent,
    position: string,
    findings: Findings,
  ): CertificateList | undefined {
    return checked(position, findings, "CRL", () => {
      const list = parseCertificateList(der);
      if (digestOf(list.tbs) !== entry.data.tbs) {
        findings.add(position, `what was signed is not what entry ${index} says was to be signed`);
      }
      if (String(list.crlNumber) !== entry.data.number) {
        findings.add(position, `its CRL number is not that of entry ${index}`);
      }
      this.#signature(der, entry.subject.keyId, position, findings);
      return list;
    });
  }

  /** As {@link certificate}, of a CertificationRequest, which is signed with the key that it names. */
  request(der: Uint8Array, { index, entry }: Intent, position: string, findings: Findings): void {
    checked(position, findings, "certification request", () => {
      const { tbs, signatureAlgorithm, signature } = parseSigned(der);
      if (digestOf(tbs) !== entry.data.tbs) {
        findings.add(position, `what was signed is not what entry ${index} says was to be signed`);
      }
      const { subjectPublicKeyInfo } = parseCertificationRequestInfo(tbs);
      const key = publicKeyObject(parsePublicKey(subjectPublicKeyInfo));
      const algorithm = signatureAlgorithmFrom(signatureAlgorithm);
      if (
        spkiDigest(subjectPublicKeyInfo) !== entry.subject.keyId ||
        algorithm === undefined ||
        !verifySignature(key, algorithm, tbs, signature)
      ) {
        findings.add(position, `its signature is not one by key ${entry.subject.keyId}`);
      }
    });
  }

  /** What was not checked. */
  notices(): Finding[] {
    const notices: Finding[] = [];
    const { certificate, crl, request } = this.#missing;
    if (request > 0) {
      notices.push({
        rule: "LOG-7",
        position: "objects",
        detail: `the bytes of ${request} certification requests are not beside this log and were not checked`,
      });
    }
    if (certificate + crl > 0) {
      notices.push({
        rule: "LOG-7",
        position: "objects",
        detail:
          `the bytes of ${certificate} certificates and ${crl} CRLs are not beside this log: whether they are ` +
          "what was to be signed, and by whom they are signed, was not checked",
      });
    }
    for (const [keyId, count] of this.#unchecked) {
      notices.push({
        rule: "LOG-7",
        position: `key ${keyId}`,
        detail: `no certificate of this key comes before what it signed: ${count} signatures were not checked`,
      });
    }
    return notices;
  }

  #signature(der: Uint8Array, keyId: string, position: string, findings: Findings): void {
    const key = this.#keys.get(keyId);
    if (key === undefined) {
      this.#unchecked.set(keyId, (this.#unchecked.get(keyId) ?? 0) + 1);
      return;
    }
    const { tbs, signatureAlgorithm, signature } = parseSigned(der);
    const algorithm = signatureAlgorithmFrom(signatureAlgorithm);
    if (algorithm === undefined || !verifySignature(key, algorithm, tbs, signature)) {
      findings.add(position, `its signature is not one by key ${keyId}`);
    }
  }
}

function checked<Parsed>(
  position: string,
  findings: Findings,
  what: string,
  check: () => Parsed,
): Parsed | undefined {
  try {
    return check();
  } catch (error) {
    findings.add(position, `what was signed is no ${what}: ${(error as Error).message}`);
    return undefined;
  }
}
