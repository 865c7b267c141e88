import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import {
  buildTbsCertList,
  crlReasonCodes,
  parseCertificateList,
  parseTbsCertList,
  type CrlReason,
  type RevokedCertificate,
} from "../../src/x509/certificate-list.ts";
import { buildTbsCertificate, certificateTemplate } from "../../src/x509/certificate-template.ts";
import { parseCertificate } from "../../src/x509/certificate.ts";
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
import { encodeExtension, MAX_CRL_NUMBER } from "../../src/x509/extension.ts";
import { emptyName } from "../../src/x509/name.ts";
import { extensionOids } from "../../src/x509/oid.ts";
import * as peculiar from "../../src/x509/peculiar.ts";
import { keyIdentifier } from "../../src/x509/public-key.ts";
import { compareSerialNumbers, serialNumberHex } from "../../src/x509/serial-number.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import {
  intermediateAuthority,
  keyPair,
  newSerialNumber,
  publicKeyInfo,
  rootAuthority,
  type KeyKind,
} from "./authority.ts";
import { fileOf, openssl, pemFileOf } from "./openssl.ts";

const root = rootAuthority();
const issuer = intermediateAuthority(root);
const thisUpdate = new Date("2026-11-21T12:00:00.750Z");
const nextUpdate = new Date("2026-11-28T12:00:00.250Z");
const revocationDate = new Date("2026-11-20T01:02:03.999Z");

function tbsOf(
  entries: readonly RevokedCertificate[],
  changes: Partial<Parameters<typeof buildTbsCertList>[0]> = {},
): Uint8Array {
  return buildTbsCertList({
    issuerCertificate: issuer.certificate,
    thisUpdate,
    nextUpdate,
    number: 7n,
    entries,
    ...changes,
  });
}

function entry(
  serialNumber: number[],
  changes: Partial<RevokedCertificate> = {},
): RevokedCertificate {
  return {
    serialNumber: Uint8Array.from(serialNumber),
    revocationDate,
    reason: "unspecified",
    ...changes,
  };
}

const everyReason = (Object.keys(crlReasonCodes) as CrlReason[]).filter(
  (reason) => reason !== "removeFromCRL",
);
const mixed: RevokedCertificate[] = everyReason.flatMap((reason, i) => [
  entry([0x20, i], { reason, revocationDate: new Date("2026-11-20T01:02:03Z") }),
  entry([0x40, i], {
    reason,
    revocationDate: new Date("2026-11-21T12:00:00Z"),
    invalidityDate: new Date("2025-02-28T23:59:59Z"),
  }),
]);

test("CRL-01, CRL-06, CRL-10 to CRL-14, CRL-50 to CRL-56: the header is what it was asked to be", () => {
  const list = parseTbsCertList(tbsOf([]));
  const { tbs } = parseCertificate(issuer.certificate);
  expect(list).toMatchObject({
    issuer: tbs.subject,
    thisUpdate: new Date("2026-11-21T12:00:00Z"),
    nextUpdate: new Date("2026-11-28T12:00:00Z"),
    crlNumber: 7n,
    authorityKeyIdentifier: keyIdentifier(issuer.publicKey),
  });
  expect(list.extensions.map(({ oid, critical }) => ({ oid, critical }))).toEqual([
    { oid: extensionOids.authorityKeyIdentifier, critical: false },
    { oid: extensionOids.cRLNumber, critical: false },
  ]);
});

test("CRL-20: without entries the field is absent", () => {
  const tbs = tbsOf([]);
  expect([...parseTbsCertList(tbs).entries()]).toEqual([]);
  const text = Buffer.from(tbs).toString("latin1");
  expect(text).toMatch(/261128120000Z\xa0/);
});

test("CRL-35: entries of every reason, with and without an invalidity date, come back", () => {
  const list = parseTbsCertList(tbsOf(mixed));
  expect([...list.entries()]).toEqual(
    mixed.toSorted((a, b) => compareSerialNumbers(a.serialNumber, b.serialNumber)),
  );
  expect([...list.entries()]).toHaveLength(mixed.length);
});

test("CRL-26 to CRL-29, CRL-36: entries, octet by octet", () => {
  const text = (octets: string): string => Buffer.from(octets, "latin1").toString("hex");
  const encoded = (changes: Partial<RevokedCertificate>): string => {
    const hex = Buffer.from(tbsOf([entry([5], changes)])).toString("hex");
    const from = hex.indexOf(text("261128120000Z")) + 26;
    return hex.slice(
      from,
      hex.indexOf("a0", from + 4 + Number.parseInt(hex.slice(from + 2, from + 4), 16) * 2),
    );
  };
  const date = `170d${text("261120010203Z")}`;
  const invalidityDate = new Date("2026-01-02T03:04:05.678Z");
  const reason = "300a0603551d1504030a0101";
  const invalidity = `30180603551d180411180f${text("20260102030405Z")}`;
  expect(encoded({})).toBe(`30143012020105${date}`);
  expect(encoded({ reason: "keyCompromise" })).toBe(`30223020020105${date}300c${reason}`);
  expect(encoded({ invalidityDate })).toBe(`3030302e020105${date}301a${invalidity}`);
  expect(encoded({ reason: "keyCompromise", invalidityDate })).toBe(
    `303c303a020105${date}3026${reason}${invalidity}`,
  );
});

test("CRL-13: revocation dates from 2050 are GeneralizedTime", () => {
  const dates = ["2049-12-31T23:59:59Z", "2050-01-01T00:00:00Z", "2051-06-07T08:09:10Z"];
  const longLived = withNotAfter(root.certificate, new Date("2056-01-01T00:00:00Z"));
  const built = buildTbsCertList({
    issuerCertificate: longLived,
    thisUpdate: new Date("2052-01-01T00:00:00Z"),
    nextUpdate: new Date("2052-01-08T00:00:00Z"),
    number: 1n,
    entries: dates.map((date, i) => entry([i + 1], { revocationDate: new Date(date) })),
  });
  const list = parseTbsCertList(built);
  expect(list.thisUpdate).toEqual(new Date("2052-01-01T00:00:00Z"));
  expect([...list.entries()].map((one) => one.revocationDate)).toEqual(
    dates.map((date) => new Date(date)),
  );
});

/** The certificate with another end. Its signature no longer fits, which the builder does not look at. */
function withNotAfter(certificate: Uint8Array, notAfter: Date): Uint8Array {
  const { tbs, signatureAlgorithm, signature } = parseCertificate(certificate);
  const changed = sequence(
    element(contextTag(0, true), integer(2)),
    element(Tag.integer, tbs.serialNumber),
    tbs.signatureAlgorithm,
    tbs.issuer,
    sequence(time(tbs.notBefore), time(notAfter)),
    tbs.subject,
    tbs.subjectPublicKeyInfo,
    element(contextTag(3, true), sequence(...tbs.extensions.map((one) => encodeExtension(one)))),
  );
  return assembleSigned(changed, signatureAlgorithm, signature);
}

test("CRL-43: entries are sorted by serial number, whatever order they come in", () => {
  const serialNumbers = [
    [0x01],
    [0x7f],
    [0x00, 0x80],
    [0x01, 0x00],
    [0x7f, 0xff],
    ...[0, 1, 2, 0x10].map((last) => [0x41, 1, 2, 3, 4, 5, 6, last]),
    [0x41, 1, 2, 3, 4, 6, 0, 0],
    [0x42, 0, 0, 0, 0, 0, 0, 0],
  ];
  const entries = serialNumbers.map((serialNumber) => entry(serialNumber));
  const built = tbsOf(entries);
  for (let turn = 0; turn < entries.length; turn++) {
    const turned = [...entries.slice(turn), ...entries.slice(0, turn)];
    expect(tbsOf(turned)).toEqual(built);
    expect(tbsOf(turned.toReversed())).toEqual(built);
  }
  expect(
    [...parseTbsCertList(built).entries()].map(({ serialNumber }) => [...serialNumber]),
  ).toEqual(serialNumbers);
});

test("CRL-43: entries given in any order are left in that order", () => {
  const entries = [entry([2]), entry([1])];
  tbsOf(entries);
  expect(entries.map(({ serialNumber }) => serialNumber[0])).toEqual([2, 1]);
});

const leafOnly = certificateTemplate({
  issuerCertificate: issuer.certificate,
  keyUsage: ["digitalSignature"],
  extKeyUsage: [],
  subjectKeyIdentifier: true,
});
const leafCertificate = issuer.signed(
  buildTbsCertificate(leafOnly, {
    serialNumber: newSerialNumber(),
    notBefore: thisUpdate,
    notAfter: nextUpdate,
    subject: emptyName,
    publicKey: publicKeyInfo(keyPair("P-256").publicKey),
    names: [{ kind: "dns", value: "a.example.com" }],
  }),
);

const issuerTbs = parseCertificate(issuer.certificate).tbs;

test.for<{
  rule: string;
  name: string;
  entries?: RevokedCertificate[];
  changes?: Partial<Parameters<typeof buildTbsCertList>[0]>;
}>([
  {
    rule: "CRL-12",
    name: "nextUpdate in the second of thisUpdate",
    changes: { nextUpdate: new Date("2026-11-21T12:00:00.999Z") },
  },
  { rule: "CRL-12", name: "no date", changes: { thisUpdate: new Date(Number.NaN) } },
  {
    rule: "CRL-15",
    name: "thisUpdate before the issuer's notBefore",
    changes: { thisUpdate: new Date(issuerTbs.notBefore.getTime() - 1) },
  },
  {
    rule: "CRL-15",
    name: "nextUpdate after the issuer's notAfter",
    changes: { nextUpdate: new Date(issuerTbs.notAfter.getTime() + 1000) },
  },
  { rule: "CRL-21", name: "serial number zero", entries: [entry([0])] },
  { rule: "CRL-21", name: "a negative serial number", entries: [entry([0x80])] },
  { rule: "CRL-21", name: "a padded serial number", entries: [entry([0, 1])] },
  {
    rule: "CRL-21",
    name: "a serial number of 21 octets",
    entries: [entry([0, ...new Uint8Array(20).fill(255)])],
  },
  {
    rule: "CRL-22",
    name: "a serial number twice",
    entries: [entry([1]), entry([2]), entry([1], { reason: "superseded" })],
  },
  {
    rule: "CRL-23",
    name: "a revocation in the second after thisUpdate",
    entries: [entry([1], { revocationDate: new Date("2026-11-21T12:00:01Z") })],
  },
  {
    rule: "CRL-23",
    name: "a revocation without a date",
    entries: [entry([1], { revocationDate: new Date(Number.NaN) })],
  },
  { rule: "CRL-32", name: "removeFromCRL", entries: [entry([1], { reason: "removeFromCRL" })] },
  { rule: "CRL-56", name: "a negative number", changes: { number: -1n } },
  { rule: "CRL-56", name: "a number of 2^159", changes: { number: 2n ** 159n } },
])("$rule is refused: $name", ({ rule, entries, changes }) => {
  expect(() => tbsOf(entries ?? [], changes)).toThrow(RangeError);
  expect(() => tbsOf(entries ?? [], changes)).toThrow(rule);
});

test("CRL-36: an invalidity date that cannot be encoded is refused", () => {
  for (const invalidityDate of [new Date(Number.NaN), new Date("+010000-01-01T00:00:00Z")]) {
    expect(() => tbsOf([entry([1], { invalidityDate })])).toThrow(RangeError);
  }
});

test("CRL-07: a leaf signs no CRL", () => {
  expect(() => tbsOf([], { issuerCertificate: leafCertificate })).toThrow(RangeError);
});

test("CRL-15, CRL-23, CRL-56: the limits themselves are allowed", () => {
  const { notBefore, notAfter } = issuerTbs;
  const list = parseTbsCertList(
    tbsOf([entry([1], { revocationDate: notBefore })], {
      thisUpdate: notBefore,
      nextUpdate: notAfter,
      number: MAX_CRL_NUMBER,
    }),
  );
  expect(list.crlNumber).toBe(MAX_CRL_NUMBER);
});

test.for<KeyKind>(["P-256", "P-384", "P-521", "RSA-2048", "Ed25519"])(
  "CRL-02 to CRL-04, CRL-08: openssl verifies a CRL of a %s issuer and lists its entries",
  (kind) => {
    const signer = intermediateAuthority(root, kind);
    const der = signer.signed(tbsOf(mixed, { issuerCertificate: signer.certificate }));
    const file = fileOf(der);
    const options = ["-inform", "DER", "-noout", "-CAfile", pemFileOf(signer.certificate)];
    openssl("crl", "-in", file, ...options); // fails if the signature does
    const shown = openssl("crl", "-in", file, "-inform", "DER", "-noout", "-text");
    expect(shown).toContain("Version 2 (0x1)");
    expect(shown).toContain("Last Update: Nov 21 12:00:00 2026 GMT");
    expect(shown).toContain("Next Update: Nov 28 12:00:00 2026 GMT");
    expect(shown).toContain("X509v3 CRL Number: \n                7\n");
    expect(shown.match(/Serial Number: /g)).toHaveLength(mixed.length);
    expect(shown.match(/CRL Reason Code/g)).toHaveLength(mixed.length - 2);
    expect(shown.match(/Invalidity Date/g)).toHaveLength(mixed.length / 2);
    expect(shown).toContain("Feb 28 23:59:59 2025 GMT");
    const list = parseCertificateList(der);
    expect(assembleSigned(list.tbs, list.signatureAlgorithm, list.signature)).toEqual(der);
  },
);

test("CRL-21: openssl verify rejects a certificate that the CRL lists, and accepts it before", () => {
  const verify = (entries: RevokedCertificate[]): string =>
    openssl(
      ...["verify", "-crl_check", "-attime", "1795300000"],
      ...["-CAfile", pemFileOf(root.certificate, issuer.certificate), "-partial_chain"],
      ...["-CRLfile", fileOf(crlPem(issuer.signed(tbsOf(entries))))],
      pemFileOf(leafCertificate),
    );
  const { serialNumber } = parseCertificate(leafCertificate).tbs;
  expect(verify([entry([1])])).toMatch(/: OK\n$/);
  const revoked = entry([...serialNumber], { reason: "keyCompromise" });
  expect(() => verify([entry([1]), revoked])).toThrow(/certificate revoked/);
});

function crlPem(der: Uint8Array): string {
  return openssl("crl", "-in", fileOf(der), "-inform", "DER");
}

test("CRL-35: @peculiar/x509 reads the same entries", () => {
  const list = new peculiar.X509Crl(Buffer.from(issuer.signed(tbsOf(mixed))));
  expect(list.thisUpdate).toEqual(new Date("2026-11-21T12:00:00Z"));
  expect(
    list.entries.map((one) => ({
      serialNumber: one.serialNumber,
      revocationDate: one.revocationDate,
      code: one.reason ?? 0,
      invalidityDate: one.invalidity,
    })),
  ).toEqual(
    mixed
      .toSorted((a, b) => compareSerialNumbers(a.serialNumber, b.serialNumber))
      .map((one) => ({
        serialNumber: serialNumberHex(one.serialNumber),
        revocationDate: one.revocationDate,
        code: crlReasonCodes[one.reason],
        invalidityDate: one.invalidityDate,
      })),
  );
});

// Reading what others made

const good = parseTbsCertList(tbsOf(mixed.slice(0, 3)));
const extensionsElement = element(
  contextTag(0, true),
  sequence(...good.extensions.map((one) => encodeExtension(one))),
);
const entryElement = sequence(integer(1), time(revocationDate));

function rebuilt(changes: Partial<Record<keyof typeof parts, Uint8Array>>): Uint8Array {
  return sequence(...Object.values({ ...parts, ...changes }));
}

const parts = {
  version: integer(1),
  signature: good.signatureAlgorithm,
  issuer: good.issuer,
  thisUpdate: time(thisUpdate),
  nextUpdate: time(nextUpdate),
  revoked: sequence(entryElement),
  extensions: extensionsElement,
};

const absent = new Uint8Array(0);
const [aki, number] = good.extensions.map((one) => encodeExtension(one)) as [
  Uint8Array,
  Uint8Array,
];

test("CRL-09: parse, then encode, gives the same bytes", () => {
  expect(rebuilt({})).toEqual(tbsOf([entry([1])]));
});

test.for([
  { name: "CRL-01: no version", der: rebuilt({ version: absent }) },
  { name: "CRL-01: v1", der: rebuilt({ version: integer(0) }) },
  { name: "CRL-11: no nextUpdate", der: rebuilt({ nextUpdate: absent }) },
  {
    name: "CRL-13: GeneralizedTime before 2050",
    der: rebuilt({
      nextUpdate: element(Tag.generalizedTime, Uint8Array.from(Buffer.from("20261128120000Z"))),
    }),
  },
  { name: "CRL-20: an empty list of entries", der: rebuilt({ revoked: sequence() }) },
  {
    name: "CRL-50: no authority key identifier",
    der: rebuilt({ extensions: element(0xa0, sequence(number)) }),
  },
  { name: "CRL-54: no CRL number", der: rebuilt({ extensions: element(0xa0, sequence(aki)) }) },
  {
    name: "CRL-78: an empty list of extensions",
    der: rebuilt({ extensions: element(0xa0, sequence()) }),
  },
  {
    name: "CRL-79: an extension twice",
    der: rebuilt({ extensions: element(0xa0, sequence(aki, number, aki)) }),
  },
  { name: "no extensions", der: rebuilt({ extensions: absent }) },
  { name: "CRL-09: bytes behind", der: concat(good.tbs, Uint8Array.of(0)) },
])("parseTbsCertList refuses $name", ({ der }) => {
  expect(() => parseTbsCertList(der)).toThrow(DerError);
});

test.for([
  {
    name: "CRL-26: empty entry extensions",
    revoked: sequence(integer(1), time(revocationDate), sequence()),
  },
  {
    name: "CRL-27: a reason in two octets",
    revoked: sequence(integer(1), time(revocationDate), reasonElement("0a020001")),
  },
  {
    name: "CRL-30: reason 7",
    revoked: sequence(integer(1), time(revocationDate), reasonElement("0a0107")),
  },
  {
    name: "CRL-30: reason 11",
    revoked: sequence(integer(1), time(revocationDate), reasonElement("0a010b")),
  },
  {
    name: "CRL-38: an unknown critical extension",
    revoked: sequence(
      integer(1),
      time(revocationDate),
      sequence(
        encodeExtension({
          oid: extensionOids.certificateIssuer,
          critical: true,
          value: sequence(),
        }),
      ),
    ),
  },
  {
    name: "CRL-38: an unknown extension that is not critical",
    revoked: sequence(
      integer(1),
      time(revocationDate),
      sequence(encodeExtension({ oid: "1.2.3", critical: false, value: sequence() })),
    ),
  },
  {
    name: "CRL-38: certificateIssuer beside a reason",
    revoked: sequence(
      integer(1),
      time(revocationDate),
      sequence(
        reason1(),
        encodeExtension({
          oid: extensionOids.certificateIssuer,
          critical: false,
          value: sequence(),
        }),
      ),
    ),
  },
  {
    name: "CRL-39: a reason twice",
    revoked: sequence(integer(1), time(revocationDate), sequence(reason1(), reason1())),
  },
  {
    name: "a padded serial number",
    revoked: sequence(Uint8Array.of(2, 2, 0, 1), time(revocationDate)),
  },
  {
    name: "CRL-14: a date without seconds",
    revoked: sequence(
      integer(1),
      element(Tag.utcTime, Uint8Array.from(Buffer.from("2611200102Z"))),
    ),
  },
  {
    name: "a field too many",
    revoked: sequence(integer(1), time(revocationDate), sequence(reason1()), integer(1)),
  },
  { name: "something else", revoked: integer(1) },
])("entries() refuses $name", ({ revoked }) => {
  const list = parseTbsCertList(rebuilt({ revoked: sequence(revoked) }));
  expect(() => [...list.entries()]).toThrow(DerError);
});

function reasonElement(value: string): Uint8Array {
  const octets = Uint8Array.from(Buffer.from(value, "hex"));
  return sequence(
    encodeExtension({ oid: extensionOids.reasonCode, critical: false, value: octets }),
  );
}

function reason1(): Uint8Array {
  return encodeExtension({
    oid: extensionOids.reasonCode,
    critical: false,
    value: Uint8Array.of(10, 1, 1),
  });
}

test("CRL-29: a reason 0 that others encode is read as unspecified", () => {
  const revoked = sequence(sequence(integer(1), time(revocationDate), reasonElement("0a0100")));
  const reasons = [...parseTbsCertList(rebuilt({ revoked })).entries()].map(({ reason }) => reason);
  expect(reasons).toEqual(["unspecified"]);
});

test("CRL-02: the inner and the outer algorithm are the same", () => {
  const rsa = Uint8Array.from(Buffer.from("300d06092a864886f70d01010b0500", "hex"));
  expect(() => parseCertificateList(assembleSigned(good.tbs, rsa, new Uint8Array(8)))).toThrow(
    "CRL-02",
  );
});

test("entries are read only when asked for, and again when asked again", () => {
  const revoked = sequence(entryElement, integer(1));
  const list = parseTbsCertList(rebuilt({ revoked }));
  for (let turn = 0; turn < 2; turn++) {
    const entries = list.entries()[Symbol.iterator]();
    expect(entries.next().value).toMatchObject({ reason: "unspecified" });
    expect(() => entries.next()).toThrow(DerError);
  }
});

const damaged = issuer.signed(tbsOf(mixed.slice(0, 6)));

test("every truncation of a CRL is a DerError", () => {
  for (let length = 0; length < damaged.length; length++) {
    expect(() => parseCertificateList(damaged.subarray(0, length))).toThrow(DerError);
  }
});

test("a changed octet of a CRL is read, or is a DerError", () => {
  for (let at = 0; at < damaged.length; at++) {
    for (const mask of [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff]) {
      const changed = Uint8Array.from(damaged);
      changed[at]! ^= mask;
      try {
        expect([...parseCertificateList(changed).entries()].length).toBeLessThan(20);
      } catch (error) {
        expect(error, `octet ${at}, mask ${mask}`).toBeInstanceOf(DerError);
      }
    }
  }
});

test("CRL-99: 100,000 entries in any order, in linear time", () => {
  const entries = Array.from({ length: 100_000 }, (_, i) => ({
    serialNumber: newSerialNumber(),
    revocationDate: new Date(thisUpdate.getTime() - i * 1000),
    reason: everyReason[i % everyReason.length]!,
  }));
  // A quadratic search would take minutes: the limit of a test tells.
  const list = parseTbsCertList(tbsOf(entries));
  let count = 0;
  let previous: RevokedCertificate | undefined;
  for (const one of list.entries()) {
    count++;
    if (
      previous !== undefined &&
      compareSerialNumbers(previous.serialNumber, one.serialNumber) >= 0
    ) {
      throw new Error("out of order");
    }
    previous = one;
  }
  expect(count).toBe(entries.length);
});

test("CRL-43, CRL-99: serial numbers that differ only at the end are sorted too", () => {
  const start = randomBytes(16);
  start[0]! &= 0x3f;
  start[0]! |= 0x40;
  const entries = Array.from({ length: 20_000 }, (_, i) => {
    const last = (i * 7919) % 20_000;
    return entry([...start, 0, last >> 8, last & 0xff]);
  });
  const serialNumbers = Array.from(parseTbsCertList(tbsOf(entries)).entries(), ({ serialNumber }) =>
    serialNumberHex(serialNumber),
  );
  expect(serialNumbers).toEqual(serialNumbers.toSorted());
  expect(serialNumbers).toHaveLength(20_000);
});
