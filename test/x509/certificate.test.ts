import { expect, test } from "vitest";
import { CountersignError } from "../../src/errors.ts";
import { buildTbsCertificate, certificateTemplate } from "../../src/x509/certificate-template.ts";
import {
  parseCertificate,
  parseTbsCertificate,
  type TbsCertificate,
} from "../../src/x509/certificate.ts";
import {
  concat,
  contextTag,
  DerError,
  element,
  integer,
  sequence,
  Tag,
  time,
} from "../../src/x509/der.ts";
import * as extension from "../../src/x509/extension.ts";
import { parseGeneralNames } from "../../src/x509/general-name.ts";
import { readIssuer } from "../../src/x509/issuer.ts";
import { encodeName, nameText } from "../../src/x509/name.ts";
import { extensionOids, extKeyUsageOids } from "../../src/x509/oid.ts";
import { checkPublicKey, parsePublicKey, publicKeyObject } from "../../src/x509/public-key.ts";
import { assembleSigned, parseSigned } from "../../src/x509/signed.ts";
import {
  intermediateAuthority,
  keyPair,
  newSerialNumber,
  publicKeyInfo,
  rootAuthority,
} from "./authority.ts";
import { fileOf, openssl, opensslBytes } from "./openssl.ts";

const root = rootAuthority();
const issuer = intermediateAuthority(root);
const template = certificateTemplate({
  issuerCertificate: issuer.certificate,
  keyUsage: ["digitalSignature"],
  extKeyUsage: [extKeyUsageOids.clientAuth],
  crlUrl: "http://pki.example.com/issuer.crl",
  subjectKeyIdentifier: true,
});
const built = buildTbsCertificate(template, {
  serialNumber: newSerialNumber(),
  notBefore: new Date("2026-11-01T00:00:00Z"),
  notAfter: new Date("2027-01-30T00:00:00Z"),
  subject: encodeName([{ type: "CN", value: "a" }]),
  publicKey: publicKeyInfo(keyPair("P-256").publicKey),
  names: [
    { kind: "email", value: "a@example.com" },
    { kind: "uri", value: "spiffe://example.com/a" },
  ],
});
const parsed = parseTbsCertificate(built);
const certificate = issuer.signed(built);

test("CRT-19: a certificate of openssl is read as openssl shows it", () => {
  const key = fileOf(openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"));
  const der = opensslBytes(
    ...["req", "-x509", "-new", "-key", key, "-subj", "/C=DE/O=Example/CN=Root", "-days", "30"],
    ...["-set_serial", "0x80ff", "-outform", "DER", "-sha384"],
    ...["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
    ...[
      "-addext",
      "nameConstraints=critical,permitted;DNS:example.com,excluded;IP:10.0.0.0/255.0.0.0",
    ],
  );
  const { tbs } = parseCertificate(der);
  expect(tbs.version).toBe(2);
  expect(tbs.serialNumber).toEqual(Uint8Array.of(0, 0x80, 0xff));
  expect(nameText(tbs.subject)).toBe("CN=Root,O=Example,C=DE");
  expect(tbs.notAfter.getTime() - tbs.notBefore.getTime()).toBe(30 * 86_400_000);
  expect(readIssuer(der)).toMatchObject({
    keyUsage: ["keyCertSign", "cRLSign"],
    pathLen: undefined,
    extKeyUsage: undefined,
    signatureAlgorithm: { name: "ecdsa-with-SHA384" },
  });
  const constraints = tbs.extensions.find(({ oid }) => oid === extensionOids.nameConstraints)!;
  expect(extension.parseNameConstraints(constraints.value)).toEqual({
    permitted: [{ kind: "dns", value: "example.com" }],
    excluded: [
      { kind: "ip", address: Uint8Array.of(10, 0, 0, 0), mask: Uint8Array.of(255, 0, 0, 0) },
    ],
  });
});

test("assembleSigned undoes parseCertificate", () => {
  const { tbs, signatureAlgorithm, signature } = parseCertificate(certificate);
  expect(assembleSigned(tbs.der, signatureAlgorithm, signature)).toEqual(certificate);
  expect(parseSigned(certificate).tbs).toEqual(built);
});

/** The parts of a TBSCertificate, to be put together with one of them wrong. */
function rebuilt(changes: Partial<Record<keyof typeof parts, Uint8Array>>): Uint8Array {
  return sequence(...Object.values({ ...parts, ...changes }));
}

const wrapped = (...extensions: Uint8Array[]): Uint8Array =>
  element(contextTag(3, true), sequence(...extensions));
const parts = partsOf(parsed);

function partsOf(tbs: TbsCertificate) {
  return {
    version: element(contextTag(0, true), integer(2)),
    serialNumber: element(Tag.integer, tbs.serialNumber),
    signature: tbs.signatureAlgorithm,
    issuer: tbs.issuer,
    validity: sequence(time(tbs.notBefore), time(tbs.notAfter)),
    subject: tbs.subject,
    spki: tbs.subjectPublicKeyInfo,
    uniqueIds: new Uint8Array(0),
    extensions: wrapped(...tbs.extensions.map((one) => extension.encodeExtension(one))),
  };
}

test("CRT-19: parse, then encode, gives the same bytes", () => {
  expect(rebuilt({})).toEqual(built);
});

const absent = new Uint8Array(0);
const oneExtension = extension.encodeExtension(parsed.extensions[0]!);

function utc(digits: string): Uint8Array {
  return element(Tag.utcTime, Uint8Array.from(Buffer.from(digits)));
}

test.for([
  { name: "CRT-01: v1 encoded", der: rebuilt({ version: element(0xa0, integer(0)) }) },
  { name: "CRT-01: v4", der: rebuilt({ version: element(0xa0, integer(3)) }) },
  { name: "CRT-01: v2 with extensions", der: rebuilt({ version: element(0xa0, integer(1)) }) },
  { name: "CRT-01: v1 with extensions", der: rebuilt({ version: absent }) },
  {
    name: "CRT-02: a padded serial number",
    der: rebuilt({ serialNumber: Uint8Array.of(2, 2, 0, 1) }),
  },
  {
    name: "CRT-02: a serial number without octets",
    der: rebuilt({ serialNumber: Uint8Array.of(2, 0) }),
  },
  {
    name: "an algorithm with three fields",
    der: rebuilt({ signature: sequence(Uint8Array.of(6, 1, 42, 5, 0, 5, 0)) }),
  },
  { name: "a name that is none", der: rebuilt({ issuer: sequence(integer(1)) }) },
  {
    name: "CRT-09: a time without seconds",
    der: rebuilt({ validity: sequence(utc("2611010000Z"), utc("270130000000Z")) }),
  },
  {
    name: "CRT-09: three times",
    der: rebuilt({
      validity: sequence(utc("261101000000Z"), utc("270130000000Z"), utc("270130000000Z")),
    }),
  },
  { name: "a key that is no key", der: rebuilt({ spki: sequence() }) },
  {
    name: "CRT-08: issuerUniqueID",
    der: rebuilt({ uniqueIds: element(0x81, Uint8Array.of(0, 1)) }),
  },
  {
    name: "CRT-08: subjectUniqueID",
    der: rebuilt({ uniqueIds: element(0x82, Uint8Array.of(0, 1)) }),
  },
  { name: "CRT-12: an empty list of extensions", der: rebuilt({ extensions: wrapped() }) },
  {
    name: "CRT-12: an extension twice",
    der: rebuilt({ extensions: wrapped(oneExtension, oneExtension) }),
  },
  {
    name: "extensions twice",
    der: rebuilt({ extensions: concat(parts.extensions, parts.extensions) }),
  },
  { name: "CRT-19: bytes behind", der: concat(built, Uint8Array.of(0)) },
])("parseTbsCertificate refuses $name", ({ der }) => {
  expect(() => parseTbsCertificate(der)).toThrow(DerError);
});

test("a v1 certificate without extensions can be read", () => {
  const der = rebuilt({ version: absent, extensions: absent });
  expect(parseTbsCertificate(der)).toMatchObject({ version: 0, extensions: [] });
});

function issuerWithout(...oids: readonly string[]): Uint8Array {
  const { tbs } = parseCertificate(issuer.certificate);
  const left = tbs.extensions.filter(({ oid }) => !oids.includes(oid));
  const extensions = wrapped(...left.map((one) => extension.encodeExtension(one)));
  return issuer.signed(sequence(...Object.values({ ...partsOf(tbs), extensions })));
}

test.for(["basicConstraints", "keyUsage", "subjectKeyIdentifier"] as const)(
  "CRT-22: readIssuer refuses an issuer without %s",
  (name) => {
    expect(() => readIssuer(issuerWithout())).not.toThrow();
    expect(() => readIssuer(issuerWithout(extensionOids[name]))).toThrow(`has no ${name}`);
  },
);

test("CRT-22: readIssuer refuses cA FALSE, and an issuer without a name", () => {
  const { tbs } = parseCertificate(issuer.certificate);
  const notCa = tbs.extensions.map((one) =>
    one.oid === extensionOids.basicConstraints ? { ...one, value: sequence() } : one,
  );
  const changed = (changes: Partial<typeof parts>): Uint8Array =>
    issuer.signed(sequence(...Object.values({ ...partsOf(tbs), ...changes })));
  const extensions = wrapped(...notCa.map((one) => extension.encodeExtension(one)));
  expect(() => readIssuer(changed({ extensions }))).toThrow("not of a CA");
  expect(() => readIssuer(changed({ subject: sequence() }))).toThrow("CRL-05");
});

/** Everything that can be asked of a certificate. */
function readThroughout(der: Uint8Array): void {
  const { tbs } = parseCertificate(der);
  nameText(tbs.issuer);
  nameText(tbs.subject);
  const key = parsePublicKey(tbs.subjectPublicKeyInfo);
  checkPublicKey(key);
  publicKeyObject(key);
  for (const { oid, value } of tbs.extensions) valueParsers.get(oid)?.(value);
}

const valueParsers = new Map<string, (value: Uint8Array) => unknown>([
  [extensionOids.basicConstraints, extension.parseBasicConstraints],
  [extensionOids.keyUsage, extension.parseKeyUsage],
  [extensionOids.extKeyUsage, extension.parseExtKeyUsage],
  [extensionOids.authorityKeyIdentifier, extension.parseAuthorityKeyIdentifier],
  [extensionOids.subjectKeyIdentifier, extension.parseSubjectKeyIdentifier],
  [extensionOids.subjectAltName, parseGeneralNames],
  [extensionOids.cRLDistributionPoints, extension.parseDistributionPoints],
  [extensionOids.authorityInfoAccess, extension.parseAuthorityInfoAccess],
  [extensionOids.nameConstraints, extension.parseNameConstraints],
]);

const damaged = [
  { name: "leaf", der: certificate },
  { name: "intermediate", der: issuer.certificate },
  { name: "root with an RSA key", der: rootAuthority("RSA-2048").certificate },
];

test.for(damaged)("every truncation of a certificate is a DerError: $name", ({ der }) => {
  for (let length = 0; length < der.length; length++) {
    expect(() => parseCertificate(der.subarray(0, length))).toThrow(DerError);
  }
});

test.for(damaged)("a changed octet is read, or is a DerError or refusal: $name", ({ der }) => {
  for (let at = 0; at < der.length; at++) {
    for (const mask of [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff]) {
      const changed = Uint8Array.from(der);
      changed[at]! ^= mask;
      try {
        readThroughout(changed);
      } catch (error) {
        const expected = error instanceof DerError || error instanceof CountersignError;
        expect(expected, `octet ${at}, mask ${mask}: ${String(error)}`).toBe(true);
      }
    }
  }
});
