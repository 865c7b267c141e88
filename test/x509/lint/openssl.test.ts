/** The linter and certificates that neither our builders nor our fixtures made: the stock openssl command's. */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { X509Certificate } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { lintCertificateList } from "../../../src/x509/lint/certificate-list.ts";
import { lintCertificate, lintIssuer } from "../../../src/x509/lint/certificate.ts";
import type { LintIssuer } from "../../../src/x509/lint/certificate.ts";

const directory = mkdtempSync(join(tmpdir(), "countersign-lint-"));
const now = new Date();
let root: LintIssuer;
let issuing: LintIssuer;

function openssl(...args: readonly string[]): void {
  execFileSync("openssl", args, { cwd: directory, stdio: "pipe" });
}

function der(file: string): Uint8Array {
  return Uint8Array.from(new X509Certificate(readFileSync(join(directory, file))).raw);
}

const configuration = `
[ca]
default_ca = issuing
[issuing]
certificate = issuing.pem
private_key = issuing.key
database = index.txt
crlnumber = crlnumber
default_md = sha256
default_crl_days = 7
crl_extensions = crl
[crl]
authorityKeyIdentifier = keyid
[req]
distinguished_name = name
[name]
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[intermediate]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
nameConstraints = critical, permitted;DNS:example.org, permitted;email:example.org
authorityInfoAccess = caIssuers;URI:http://pki.example.org/root.cer
[server]
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:www.example.org
authorityKeyIdentifier = keyid
crlDistributionPoints = URI:http://pki.example.org/issuing.crl
[client]
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = email:alice@example.org
authorityKeyIdentifier = keyid
crlDistributionPoints = URI:http://pki.example.org/issuing.crl
[outside]
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:www.example.com
authorityKeyIdentifier = keyid
`;

function issue(file: string, subject: string, section: string, issuer?: string): void {
  openssl(
    "genpkey",
    "-algorithm",
    "EC",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-out",
    `${file}.key`,
  );
  const request = ["req", "-new", "-config", "ca.cnf", "-key", `${file}.key`, "-subj", subject];
  if (issuer === undefined) {
    openssl(...request, "-x509", "-days", "3650", "-extensions", section, "-out", `${file}.pem`);
    return;
  }
  openssl(...request, "-out", `${file}.csr`);
  const signer = ["-CA", `${issuer}.pem`, "-CAkey", `${issuer}.key`, "-extfile", "ca.cnf"];
  openssl(
    // An issuer outlives what it issues, whatever second each is made in.
    ...[
      "x509",
      "-req",
      "-in",
      `${file}.csr`,
      "-days",
      file === "issuing" ? "365" : "90",
      ...signer,
    ],
    ...["-extensions", section, "-out", `${file}.pem`],
  );
}

beforeAll(() => {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "ca.cnf"), configuration);
  writeFileSync(join(directory, "index.txt"), "");
  writeFileSync(join(directory, "crlnumber"), "01\n");
  issue("root", "/O=Example/CN=Root", "root");
  issue("issuing", "/O=Example/CN=Issuing", "intermediate", "root");
  issue("server", "/CN=www.example.org", "server", "issuing");
  issue("client", "/O=Example/CN=Alice", "client", "issuing");
  issue("outside", "/CN=www.example.com", "outside", "issuing");
  root = lintIssuer(der("root.pem"), []);
  issuing = lintIssuer(der("issuing.pem"), [der("root.pem")]);
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

test("a root, an intermediate, a server and a client of OpenSSL's keep the rules", () => {
  const common = { now, subjectKeyIdentifierMethod: "sha1" } as const; // OpenSSL's only method
  const findings = [
    ...lintCertificate(der("root.pem"), { ...common, kind: "root" }),
    ...lintCertificate(der("issuing.pem"), { ...common, kind: "intermediate", issuer: root }),
    ...lintCertificate(der("server.pem"), { ...common, kind: "server", issuer: issuing }),
    ...lintCertificate(der("client.pem"), { ...common, kind: "client", issuer: issuing }),
  ];
  // Its versions differ in what they add to a root (ROOT-07), and a common name is never more than a warning.
  expect(findings.filter((finding) => finding.level !== "S")).toEqual([]);
});

test("NC-08: what OpenSSL's verification refuses for its name, the linter refuses before it is signed", () => {
  const chain = ["-CAfile", "root.pem", "-untrusted", "issuing.pem"];
  openssl("verify", ...chain, "server.pem");
  expect(() => openssl("verify", ...chain, "outside.pem")).toThrow(/permitted subtree violation/);
  const context = {
    kind: "server",
    now,
    issuer: issuing,
    subjectKeyIdentifierMethod: "sha1",
  } as const;
  const refused = lintCertificate(der("outside.pem"), context).filter(({ level }) => level !== "S");
  expect(refused.map(({ rule }) => rule)).toEqual(["NC-08"]);
});

test("a CRL of OpenSSL's keeps the rules", () => {
  openssl("ca", "-config", "ca.cnf", "-revoke", "server.pem", "-crl_reason", "superseded");
  openssl("ca", "-config", "ca.cnf", "-gencrl", "-out", "issuing.crl");
  openssl("crl", "-in", "issuing.crl", "-outform", "DER", "-out", "issuing.crl.der");
  const crl = Uint8Array.from(readFileSync(join(directory, "issuing.crl.der")));
  const findings = lintCertificateList(crl, { issuer: issuing, now: new Date() });
  expect(findings).toEqual([]);
});
