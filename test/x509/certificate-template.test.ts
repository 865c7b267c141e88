import { X509Certificate } from "node:crypto";
import { expect, test } from "vitest";
import {
  buildRootTbsCertificate,
  buildTbsCertificate,
  certificateTemplate,
  type CertificateFields,
  type CertificateLeaf,
} from "../../src/x509/certificate-template.ts";
import { extensionOf, parseCertificate, parseTbsCertificate } from "../../src/x509/certificate.ts";
import { equalOctets, objectIdentifier, sequence } from "../../src/x509/der.ts";
import {
  parseAuthorityKeyIdentifier,
  parseBasicConstraints,
  parseExtKeyUsage,
  parseKeyUsage,
  parseSubjectKeyIdentifier,
} from "../../src/x509/extension.ts";
import { parseGeneralNames } from "../../src/x509/general-name.ts";
import { emptyName, encodeName, nameText } from "../../src/x509/name.ts";
import { extensionOids, extKeyUsageOids } from "../../src/x509/oid.ts";
import * as peculiar from "../../src/x509/peculiar.ts";
import { keyIdentifier } from "../../src/x509/public-key.ts";
import { serialNumberHex } from "../../src/x509/serial-number.ts";
import { signatureAlgorithmFor } from "../../src/x509/signature-algorithm.ts";
import {
  intermediateAuthority,
  keyPair,
  newSerialNumber,
  publicKeyInfo,
  rootAuthority,
  rootNotAfter,
  rootNotBefore,
  type KeyKind,
} from "./authority.ts";
import { fileOf, openssl, pemFileOf } from "./openssl.ts";

const root = rootAuthority();
const issuer = intermediateAuthority(root);

const serverFields: CertificateFields = {
  issuerCertificate: issuer.certificate,
  keyUsage: ["digitalSignature"],
  extKeyUsage: [extKeyUsageOids.serverAuth],
  crlUrl: "http://pki.example.com/crl/issuer.crl",
  caIssuersUrl: "http://pki.example.com/ca/issuer.cer",
  subjectKeyIdentifier: false,
};

const leafKey = publicKeyInfo(keyPair("P-256").publicKey);

const leaf: CertificateLeaf = {
  serialNumber: newSerialNumber(),
  notBefore: new Date("2026-11-01T00:00:00.500Z"),
  notAfter: new Date("2027-01-30T00:00:00.900Z"),
  subject: emptyName,
  publicKey: leafKey,
  names: [
    { kind: "dns", value: "a.example.com" },
    { kind: "ip", value: "2001:db8::1" },
  ],
};

const caFields: CertificateFields = {
  issuerCertificate: root.certificate,
  keyUsage: ["keyCertSign", "cRLSign"],
  extKeyUsage: [],
  basicConstraints: { cA: true, pathLen: 0 },
  subjectKeyIdentifier: true,
};

const caLeaf: CertificateLeaf = {
  ...leaf,
  subject: encodeName([{ type: "CN", value: "An Issuer" }]),
  names: [],
};

test("CRT-01 to CRT-19: a server certificate says what it was asked to, and nothing else", () => {
  const der = issuer.signed(buildTbsCertificate(certificateTemplate(serverFields), leaf));
  const { tbs, signatureAlgorithm } = parseCertificate(der);
  const issuerTbs = parseCertificate(issuer.certificate).tbs;
  expect(tbs.version).toBe(2);
  expect(tbs.serialNumber).toEqual(leaf.serialNumber);
  expect(tbs.issuer).toEqual(issuerTbs.subject);
  expect(tbs.signatureAlgorithm).toEqual(signatureAlgorithm);
  expect(tbs.notBefore).toEqual(new Date("2026-11-01T00:00:00Z"));
  expect(tbs.notAfter).toEqual(new Date("2027-01-30T00:00:00Z"));
  expect(tbs.subject).toEqual(emptyName);
  expect(tbs.subjectPublicKeyInfo).toEqual(leafKey.spki);
  expect(tbs.extensions.map(({ oid, critical }) => ({ oid, critical }))).toEqual([
    { oid: extensionOids.authorityKeyIdentifier, critical: false },
    { oid: extensionOids.keyUsage, critical: true },
    { oid: extensionOids.extKeyUsage, critical: false },
    { oid: extensionOids.cRLDistributionPoints, critical: false },
    { oid: extensionOids.authorityInfoAccess, critical: false },
    { oid: extensionOids.subjectAltName, critical: true },
  ]);
  const value = (name: keyof typeof extensionOids): Uint8Array =>
    extensionOf(tbs, extensionOids[name])!.value;
  expect(parseAuthorityKeyIdentifier(value("authorityKeyIdentifier"))).toEqual({
    keyIdentifier: parseSubjectKeyIdentifier(
      extensionOf(issuerTbs, extensionOids.subjectKeyIdentifier)!.value,
    ),
  });
  expect(parseKeyUsage(value("keyUsage"))).toEqual(["digitalSignature"]);
  expect(parseExtKeyUsage(value("extKeyUsage"))).toEqual([extKeyUsageOids.serverAuth]);
  expect(parseGeneralNames(value("subjectAltName"))).toMatchObject(leaf.names);
});

test("SRV-03, CLI-03: subjectAltName is critical if and only if the subject is empty", () => {
  const template = certificateTemplate(serverFields);
  const subject = encodeName([{ type: "CN", value: "a.example.com" }]);
  const critical = (changes: Partial<CertificateLeaf>): boolean | undefined => {
    const tbs = parseTbsCertificate(buildTbsCertificate(template, { ...leaf, ...changes }));
    return extensionOf(tbs, extensionOids.subjectAltName)?.critical;
  };
  expect(critical({})).toBe(true);
  expect(critical({ subject })).toBe(false);
  expect(critical({ subject, names: [] })).toBeUndefined();
  expect(() => critical({ names: [] })).toThrow("a subject or a subjectAltName");
});

test("CRT-17, CRT-18: with the flag, subjectKeyIdentifier is RFC 7093 method 1 of the key", () => {
  const template = certificateTemplate({ ...serverFields, subjectKeyIdentifier: true });
  const tbs = parseTbsCertificate(buildTbsCertificate(template, leaf));
  const extension = extensionOf(tbs, extensionOids.subjectKeyIdentifier)!;
  expect(extension.critical).toBe(false);
  expect(parseSubjectKeyIdentifier(extension.value)).toEqual(keyIdentifier(leafKey));
});

test.for<{ rootKind: KeyKind; issuerKind: KeyKind; leafKind: KeyKind }>([
  { rootKind: "P-256", issuerKind: "P-256", leafKind: "P-256" },
  { rootKind: "P-384", issuerKind: "P-384", leafKind: "RSA-2048" },
  { rootKind: "P-521", issuerKind: "RSA-3072", leafKind: "P-384" },
  { rootKind: "RSA-2048", issuerKind: "P-521", leafKind: "P-521" },
  { rootKind: "Ed25519", issuerKind: "Ed25519", leafKind: "Ed25519" },
])(
  "CRT-06, CRT-07: openssl verifies the chain of $rootKind, $issuerKind and $leafKind",
  ({ rootKind, issuerKind, leafKind }) => {
    const top = rootAuthority(rootKind);
    const middle = intermediateAuthority(top, issuerKind);
    const template = certificateTemplate({
      ...serverFields,
      issuerCertificate: middle.certificate,
    });
    const publicKey = publicKeyInfo(keyPair(leafKind).publicKey);
    const der = middle.signed(buildTbsCertificate(template, { ...leaf, publicKey }));
    const verified = openssl(
      ...["verify", "-x509_strict", "-check_ss_sig", "-purpose", "sslserver"],
      ...["-verify_hostname", "a.example.com", "-attime", "1796000000"],
      ...["-CAfile", pemFileOf(top.certificate), "-untrusted", pemFileOf(middle.certificate)],
      pemFileOf(der),
    );
    expect(verified).toMatch(/: OK\n$/);
    expect(parseCertificate(der).tbs.signatureAlgorithm).toEqual(
      signatureAlgorithmFor(middle.publicKey.type).identifier,
    );
  },
);

test("CRT-21: openssl, Node and @peculiar/x509 read a server certificate as it was meant", () => {
  const subject = encodeName([
    { type: "C", value: "DE" },
    { type: "O", value: "Example, Inc." },
    { type: "CN", value: "a.example.com" },
  ]);
  const der = issuer.signed(
    buildTbsCertificate(certificateTemplate(serverFields), { ...leaf, subject }),
  );
  const shown = openssl("x509", "-in", fileOf(der), "-inform", "DER", "-noout", "-text");
  for (const line of [
    "Version: 3 (0x2)",
    "Issuer: O = Example, CN = Test Issuer",
    "Not Before: Nov  1 00:00:00 2026 GMT",
    "Not After : Jan 30 00:00:00 2027 GMT",
    'Subject: C = DE, O = "Example, Inc.", CN = a.example.com',
    "X509v3 Key Usage: critical\n                Digital Signature\n",
    "X509v3 Extended Key Usage: \n                TLS Web Server Authentication\n",
    "X509v3 Subject Alternative Name: \n                DNS:a.example.com, IP Address:2001:DB8:0:0:0:0:0:1\n",
    "URI:http://pki.example.com/crl/issuer.crl\n",
    "CA Issuers - URI:http://pki.example.com/ca/issuer.cer\n",
  ]) {
    expect(shown).toContain(line);
  }
  expect(shown).not.toContain("Basic Constraints");
  expect(shown).not.toContain("Subject Key Identifier");

  const node = new X509Certificate(der);
  expect(node.serialNumber.toLowerCase()).toBe(serialNumberHex(leaf.serialNumber));
  expect(node.verify(new X509Certificate(issuer.certificate).publicKey)).toBe(true);

  const other = new peculiar.X509Certificate(Buffer.from(der));
  expect(other.serialNumber).toBe(serialNumberHex(leaf.serialNumber));
  expect(other.notBefore).toEqual(new Date("2026-11-01T00:00:00Z"));
  expect(other.notAfter).toEqual(new Date("2027-01-30T00:00:00Z"));
  expect(other.subject).toBe(String.raw`C=DE, O=Example\, Inc., CN=a.example.com`);
  expect(other.extensions.map(({ type, critical }) => ({ oid: type, critical }))).toEqual(
    parseCertificate(der).tbs.extensions.map(({ oid, critical }) => ({ oid, critical })),
  );
  const names = other.getExtension(peculiar.SubjectAlternativeNameExtension)!.names.toJSON();
  expect(names).toEqual([
    { type: "dns", value: "a.example.com" },
    { type: "ip", value: "2001:db8::1" },
  ]);
  expect(new Uint8Array(other.publicKey.rawData)).toEqual(leafKey.spki);
});

test.for([
  { name: "zero", serialNumber: [0] },
  { name: "negative", serialNumber: [0x80] },
  { name: "padded", serialNumber: [0, 1] },
  { name: "no octets", serialNumber: [] },
  { name: "21 octets", serialNumber: [0, ...new Uint8Array(20).fill(0xff)] },
])("CRT-02: a serial number is refused: $name", ({ serialNumber }) => {
  const template = certificateTemplate(serverFields);
  const wrong = { ...leaf, serialNumber: Uint8Array.from(serialNumber) };
  expect(() => buildTbsCertificate(template, wrong)).toThrow("CRT-02");
});

test("CRT-02: a serial number that needs its zero octet keeps it", () => {
  const serialNumber = Uint8Array.of(0, 0x80);
  const tbs = buildTbsCertificate(certificateTemplate(serverFields), { ...leaf, serialNumber });
  expect(parseTbsCertificate(tbs).serialNumber).toEqual(serialNumber);
});

const issuerTbs = parseCertificate(issuer.certificate).tbs;

test.for([
  {
    rule: "CRT-10",
    name: "notAfter in the second of notBefore",
    change: { notAfter: new Date("2026-11-01T00:00:00.999Z") },
  },
  {
    rule: "CRT-10",
    name: "notAfter before notBefore",
    change: { notAfter: new Date("2026-10-31T00:00:00Z") },
  },
  { rule: "CRT-10", name: "no date", change: { notAfter: new Date(Number.NaN) } },
  {
    rule: "CRT-11",
    name: "notAfter a second after the issuer's",
    change: { notAfter: new Date(issuerTbs.notAfter.getTime() + 1000) },
  },
  {
    rule: "CRT-11",
    name: "notBefore a second before the issuer's",
    change: { notBefore: new Date(issuerTbs.notBefore.getTime() - 1000) },
  },
  { rule: "KEY-11", name: "the issuer's own key", change: { publicKey: issuer.publicKey } },
])("$rule is refused: $name", ({ rule, change }) => {
  const template = certificateTemplate(serverFields);
  expect(() => buildTbsCertificate(template, { ...leaf, ...change })).toThrow(rule);
});

test("CRT-11: a certificate may live exactly as long as its issuer", () => {
  const { notBefore, notAfter } = issuerTbs;
  const template = certificateTemplate(serverFields);
  const tbs = parseTbsCertificate(buildTbsCertificate(template, { ...leaf, notBefore, notAfter }));
  expect(tbs).toMatchObject({ notBefore, notAfter });
});

test("CRT-09: times from 2050 are GeneralizedTime", () => {
  const notBefore = new Date("2049-12-31T23:59:59Z");
  const notAfter = new Date("2050-01-01T00:00:00Z");
  const fields = { ...caLeaf, notBefore, notAfter };
  const tbs = buildRootTbsCertificate(fields);
  expect(parseTbsCertificate(tbs)).toMatchObject({ notBefore, notAfter });
  const text = Buffer.from(tbs).toString("latin1");
  expect(text).toContain("\x17\r491231235959Z\x18\x0f20500101000000Z");
});

test.for<{ rule: string; name: string; fields: Partial<CertificateFields> }>([
  { rule: "CRT-14", name: "no key usage", fields: { keyUsage: [] } },
  {
    rule: "CRT-15",
    name: "keyCertSign in a leaf",
    fields: { keyUsage: ["digitalSignature", "keyCertSign"] },
  },
  { rule: "CRT-15", name: "cRLSign in a leaf", fields: { keyUsage: ["cRLSign"] } },
])("$rule: a leaf's template is refused: $name", ({ rule, fields }) => {
  expect(() => certificateTemplate({ ...serverFields, ...fields })).toThrow(rule);
});

test.for<{ rule: string; name: string; fields: Partial<CertificateFields> }>([
  { rule: "ICA-01", name: "no subjectKeyIdentifier", fields: { subjectKeyIdentifier: false } },
  { rule: "ICA-02", name: "no pathLen", fields: { basicConstraints: { cA: true } } },
  { rule: "ICA-03", name: "no keyCertSign", fields: { keyUsage: ["cRLSign"] } },
  { rule: "ICA-03", name: "no cRLSign", fields: { keyUsage: ["keyCertSign"] } },
  {
    rule: "ICA-03",
    name: "keyEncipherment",
    fields: { keyUsage: ["keyCertSign", "cRLSign", "keyEncipherment"] },
  },
  {
    rule: "ICA-02",
    name: "under an issuer without path length left",
    fields: { issuerCertificate: issuer.certificate },
  },
])("$rule: an intermediate's template is refused: $name", ({ rule, fields }) => {
  expect(() => certificateTemplate({ ...caFields, ...fields })).toThrow(rule);
});

test("ICA-01 to ICA-03: an intermediate", () => {
  const tbs = parseTbsCertificate(buildTbsCertificate(certificateTemplate(caFields), caLeaf));
  expect(tbs.extensions.map(({ oid, critical }) => ({ oid, critical }))).toEqual([
    { oid: extensionOids.authorityKeyIdentifier, critical: false },
    { oid: extensionOids.basicConstraints, critical: true },
    { oid: extensionOids.keyUsage, critical: true },
    { oid: extensionOids.subjectKeyIdentifier, critical: false },
  ]);
  const basicConstraints = extensionOf(tbs, extensionOids.basicConstraints)!;
  expect(parseBasicConstraints(basicConstraints.value)).toEqual({ cA: true, pathLen: 0 });
  const wide = intermediateAuthority(root, "P-256", { pathLen: 2 });
  const below = (pathLen: number): unknown =>
    certificateTemplate({
      ...caFields,
      issuerCertificate: wide.certificate,
      basicConstraints: { cA: true, pathLen },
    });
  expect(() => below(1)).not.toThrow();
  expect(() => below(2)).toThrow("ICA-02");
});

test("ICA-12, CLI-07: purposes stay within the issuer's", () => {
  const { serverAuth, clientAuth, anyExtendedKeyUsage } = extKeyUsageOids;
  const under = (issuerPurposes: string[], extKeyUsage: string[]): unknown => {
    const restricted = intermediateAuthority(root, "P-256", { extKeyUsage: issuerPurposes });
    return certificateTemplate({
      ...serverFields,
      issuerCertificate: restricted.certificate,
      extKeyUsage,
    });
  };
  expect(() => under([serverAuth], [serverAuth])).not.toThrow();
  expect(() => under([serverAuth, clientAuth], [clientAuth])).not.toThrow();
  expect(() => under([anyExtendedKeyUsage], [clientAuth])).not.toThrow();
  expect(() => under([serverAuth], [clientAuth])).toThrow("ICA-12");
  expect(() => under([serverAuth], [serverAuth, clientAuth])).toThrow("ICA-12");
  expect(() => under([serverAuth], [])).toThrow("ICA-12");
});

test("CRT-22: a leaf issues nothing", () => {
  const der = issuer.signed(buildTbsCertificate(certificateTemplate(serverFields), leaf));
  expect(() => certificateTemplate({ ...serverFields, issuerCertificate: der })).toThrow(
    RangeError,
  );
});

test("CRT-16: the issuer's key identifier is copied, not computed", () => {
  // The same certificate with the key identifier that an older CA might have chosen.
  const tbs = parseCertificate(root.certificate).tbs;
  const own = keyIdentifier(root.publicKey);
  const other = Uint8Array.from(own, (octet) => octet ^ 0xff);
  const changed = Uint8Array.from(tbs.der);
  for (let at = 0; at + own.length <= changed.length; at++) {
    if (equalOctets(changed.subarray(at, at + own.length), own)) changed.set(other, at);
  }
  const template = certificateTemplate({ ...caFields, issuerCertificate: root.signed(changed) });
  const built = parseTbsCertificate(buildTbsCertificate(template, caLeaf));
  const extension = extensionOf(built, extensionOids.authorityKeyIdentifier)!;
  expect(parseAuthorityKeyIdentifier(extension.value)).toEqual({ keyIdentifier: other });
});

test("CRT-05: the issuer's name is copied, whatever string types it has", () => {
  const attribute = (tag: number, text: string): Uint8Array =>
    Uint8Array.of(
      0x31,
      text.length + 9,
      0x30,
      text.length + 7,
      ...objectIdentifier("2.5.4.10"),
      tag,
      text.length,
      ...Buffer.from(text),
    );
  const subject = sequence(attribute(0x13, "Printed"), attribute(0x14, "Teletype"));
  const key = keyPair("P-256");
  const publicKey = publicKeyInfo(key.publicKey);
  const fields = {
    ...caLeaf,
    notBefore: rootNotBefore,
    notAfter: rootNotAfter,
    subject,
    publicKey,
  };
  // Its signature is another key's: templates do not look at it.
  const issuerCertificate = root.signed(buildRootTbsCertificate(fields));
  const template = certificateTemplate({ ...caFields, issuerCertificate });
  expect(parseTbsCertificate(buildTbsCertificate(template, caLeaf)).issuer).toEqual(subject);
});

test.for<KeyKind>(["P-256", "P-384", "RSA-3072", "Ed25519"])(
  "ROOT-01, ROOT-04 to ROOT-09: a root of %s",
  (kind) => {
    const { certificate, publicKey } = rootAuthority(kind, "Root R1");
    const { tbs } = parseCertificate(certificate);
    expect(tbs.issuer).toEqual(tbs.subject);
    expect(nameText(tbs.subject)).toBe("CN=Root R1,O=Example");
    expect(tbs.extensions.map(({ oid, critical }) => ({ oid, critical }))).toEqual([
      { oid: extensionOids.authorityKeyIdentifier, critical: false },
      { oid: extensionOids.basicConstraints, critical: true },
      { oid: extensionOids.keyUsage, critical: true },
      { oid: extensionOids.subjectKeyIdentifier, critical: false },
    ]);
    const value = (name: keyof typeof extensionOids): Uint8Array =>
      extensionOf(tbs, extensionOids[name])!.value;
    expect(parseBasicConstraints(value("basicConstraints"))).toEqual({ cA: true });
    expect(parseKeyUsage(value("keyUsage"))).toEqual(["keyCertSign", "cRLSign"]);
    const identifier = keyIdentifier(publicKey);
    expect(parseSubjectKeyIdentifier(value("subjectKeyIdentifier"))).toEqual(identifier);
    expect(parseAuthorityKeyIdentifier(value("authorityKeyIdentifier"))).toEqual({
      keyIdentifier: identifier,
    });
    const file = pemFileOf(certificate);
    const when = ["-attime", "1796000000"];
    const verified = openssl(
      ...["verify", "-x509_strict", "-check_ss_sig", ...when, "-CAfile", file, file],
    );
    expect(verified).toMatch(/: OK\n$/);
  },
);

test("CRL-05: a root has a name", () => {
  expect(() => buildRootTbsCertificate({ ...caLeaf, subject: emptyName })).toThrow(RangeError);
});

test("CRT-19: building the same twice gives the same bytes", () => {
  const template = certificateTemplate(serverFields);
  expect(buildTbsCertificate(template, leaf)).toEqual(buildTbsCertificate(template, leaf));
});
