/** Other people's programs on what the service issued: openssl and @peculiar/x509, not our readers. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import * as peculiar from "../../src/x509/peculiar.ts";

export interface Issuers {
  /** PEM files. */
  readonly rootCertificate: string;
  readonly issuingCertificate: string;
}

/** openssl verifies the chain in its strict mode, and the other library reads the same serial number and issuer. */
export async function crossCheckCertificate(pem: string, files: Issuers): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "countersign-check-"));
  try {
    const file = join(folder, "leaf.pem");
    writeFileSync(file, pem);
    const verified = execFileSync("openssl", [
      ...["verify", "-x509_strict", "-CAfile", files.rootCertificate],
      ...["-untrusted", files.issuingCertificate, file],
    ]).toString();
    expect(verified).toContain("OK");
    const shown = execFileSync("openssl", [
      "x509",
      "-in",
      file,
      "-noout",
      "-serial",
      "-text",
    ]).toString();
    const certificate = new peculiar.X509Certificate(pem);
    const issuer = new peculiar.X509Certificate(readFileSync(files.issuingCertificate, "utf8"));
    expect(shown).toContain(`serial=${certificate.serialNumber.toUpperCase()}`);
    expect(certificate.issuer).toBe(issuer.subject);
    expect(await certificate.verify({ publicKey: issuer.publicKey, signatureOnly: true })).toBe(
      true,
    );
    const authority = certificate.getExtension(peculiar.AuthorityKeyIdentifierExtension);
    const subject = issuer.getExtension(peculiar.SubjectKeyIdentifierExtension);
    expect(authority?.keyId).toBe(subject?.keyId);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** openssl verifies the signature and reads the list, and the other library finds the same entries. */
export async function crossCheckCrl(pem: string, issuerFile: string): Promise<void> {
  const options = { input: pem, stdio: ["pipe", "pipe", "pipe"] as ["pipe", "pipe", "pipe"] };
  const shown = execFileSync(
    "openssl",
    ["crl", "-noout", "-text", "-verify", "-CAfile", issuerFile],
    options,
  ).toString();
  const crl = new peculiar.X509Crl(pem);
  const issuer = new peculiar.X509Certificate(readFileSync(issuerFile, "utf8"));
  expect(crl.issuer).toBe(issuer.subject);
  expect(await crl.verify({ publicKey: issuer.publicKey })).toBe(true);
  const listed = [...shown.matchAll(/Serial Number: ([0-9A-F]+)/g)].map((match) =>
    match[1]!.toLowerCase(),
  );
  expect(crl.entries.map((entry) => entry.serialNumber)).toEqual(listed);
  expect(listed).toEqual(listed.toSorted());
}
