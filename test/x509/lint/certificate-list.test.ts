import { expect, test } from "vitest";
import {
  Tag,
  bitString,
  concat,
  element,
  generalizedTime,
  integer,
  sequence,
  time,
} from "../../../src/x509/der.ts";
import { lintCertificateList, lintTbsCertList } from "../../../src/x509/lint/certificate-list.ts";
import type { CrlLintContext } from "../../../src/x509/lint/certificate-list.ts";
import { lintIssuer } from "../../../src/x509/lint/certificate.ts";
import type { LintIssuer } from "../../../src/x509/lint/certificate.ts";
import { refuses } from "../../../src/x509/lint/finding.ts";
import type { Finding } from "../../../src/x509/lint/finding.ts";
import { rules } from "../../../src/x509/lint/rules.ts";
import type { RuleId } from "../../../src/x509/lint/rules.ts";
import {
  NOW,
  accessDescriptions,
  algorithms,
  ascii,
  authorityKeyIdentifier,
  crlEntry,
  crlParts,
  days,
  distributionPoint,
  distributionPoints,
  dns,
  extension,
  fixtureKey,
  hex,
  intermediateAuthority,
  keyUsage,
  name,
  noBytes,
  oids,
  reasonCode,
  rootAuthority,
  serialOctets,
  serverParts,
  signed,
  tbsCertList,
  tbsCertificate,
  uri,
} from "../../support/der-fixtures.ts";
import type { CrlParts, FixtureAuthority, FixtureKey } from "../../support/der-fixtures.ts";

const keys = {
  root: fixtureKey("P-256"),
  issuing: fixtureKey("P-256"),
  leaf: fixtureKey("P-256"),
  p384: fixtureKey("P-384"),
  p521: fixtureKey("P-521"),
  rsa: fixtureKey("RSA"),
  ed25519: fixtureKey("Ed25519"),
};
const root = rootAuthority(keys.root, name(["CN", "Example Root"]));
const issuing = authority(keys.issuing);
const compiled = new Map<FixtureAuthority, LintIssuer>();

function authority(key: FixtureKey): FixtureAuthority {
  return intermediateAuthority(root, key, name(["CN", "Example Issuing"]), (parts) => {
    parts.notBefore = time(days(-40));
  });
}

function compiledIssuer(of: FixtureAuthority): LintIssuer {
  const known = compiled.get(of) ?? lintIssuer(of.certificate, of.chain);
  compiled.set(of, known);
  return known;
}

type Mutate = (parts: CrlParts) => void;

interface Row {
  readonly rule: RuleId;
  readonly name: string;
  readonly mutate?: Mutate;
  readonly context?: Partial<CrlLintContext>;
  readonly under?: FixtureAuthority;
  readonly sign?: (tbs: Uint8Array) => Uint8Array;
}

interface RefusedRow extends Row {
  readonly level?: "M" | "P" | "S";
  readonly also?: readonly RuleId[];
}

function lint(row: Row): Finding[] {
  const under = row.under ?? issuing;
  const parts = crlParts(under, 8);
  row.mutate?.(parts);
  const tbs = tbsCertList(parts);
  const context = { issuer: compiledIssuer(under), now: NOW, ...row.context };
  return row.sign === undefined
    ? lintTbsCertList(tbs, context)
    : lintCertificateList(row.sign(tbs), context);
}

/** A signed CRL of the issuing CA, made the day before and numbered 7. */
function earlier(mutate?: Mutate): Uint8Array {
  const parts = crlParts(issuing, 7);
  parts.thisUpdate = time(days(-1));
  parts.nextUpdate = time(days(6));
  mutate?.(parts);
  return signed(tbsCertList(parts), keys.issuing);
}

function setExtension(
  parts: CrlParts,
  which: keyof typeof oids,
  value: Uint8Array,
  critical: boolean | Uint8Array = false,
): void {
  parts.extensions[which] = extension(oids[which], value, critical);
}

const entries =
  (...list: readonly Uint8Array[]): Mutate =>
  (parts) => {
    parts.entries.push(...list);
  };

const first = serialOctets(1);
const second = serialOctets(2);
const revoked = days(-2);
const shard = "http://pki.example.org/crl/1.crl";

const idp =
  (value: Uint8Array, critical = true): Mutate =>
  (parts) =>
    setExtension(parts, "issuingDistributionPoint", value, critical);

const delta =
  (base: number, critical = true): Mutate =>
  (parts) =>
    setExtension(parts, "deltaCRLIndicator", integer(base), critical);

function both(...mutations: readonly Mutate[]): Mutate {
  return (parts) => {
    for (const mutate of mutations) mutate(parts);
  };
}

const facts = { notBefore: days(-30), notAfter: days(60), cA: false };

/** A certificate of the issuing CA with this serial number, expired when `notAfter` says. */
function certificate(serialNumber: Uint8Array, notAfter: Date, key: FixtureKey = keys.issuing) {
  const parts = serverParts(issuing, keys.leaf);
  parts.serialNumber = element(Tag.integer, serialNumber);
  parts.notBefore = time(days(-30));
  parts.notAfter = time(notAfter);
  return signed(tbsCertificate(parts), key);
}

const invalidityDate = (value: Uint8Array, critical = false) =>
  extension(oids.invalidityDate, value, critical);

const accepted: readonly Row[] = [
  { rule: "CRL-01", name: "v2, encoded" },
  { rule: "CRL-02", name: "the same algorithm twice", sign: (tbs) => signed(tbs, keys.issuing) },
  { rule: "CRL-04", name: "P-256 with SHA-256" },
  ...(
    [
      ["P-384 with SHA-384", keys.p384],
      ["P-521 with SHA-512", keys.p521],
      ["RSA with SHA-256", keys.rsa],
      ["Ed25519", keys.ed25519],
    ] as const
  ).map(([what, key]): Row => ({
    rule: "CRL-04",
    name: what,
    under: authority(key),
    sign: (tbs) => signed(tbs, key),
  })),
  { rule: "CRL-05", name: "an issuer" },
  { rule: "CRL-06", name: "the bytes of the CA's subject" },
  { rule: "CRL-07", name: "a CA with cRLSign" },
  { rule: "CRL-08", name: "the issuer's signature", sign: (tbs) => signed(tbs, keys.issuing) },
  { rule: "CRL-09", name: "DER", mutate: entries(crlEntry(first, revoked, { reason: 1 })) },
  { rule: "CRL-10", name: "now" },
  {
    rule: "CRL-10",
    name: "a minute ahead, which clocks may be",
    mutate: (parts) => {
      parts.thisUpdate = time(new Date(NOW.getTime() + 60_000));
    },
  },
  { rule: "CRL-11", name: "nextUpdate" },
  { rule: "CRL-12", name: "nextUpdate after thisUpdate" },
  { rule: "CRL-13", name: "UTCTime before 2050" },
  { rule: "CRL-14", name: "whole seconds and Z" },
  {
    rule: "CRL-15",
    name: "the CA certificate's last second",
    mutate: (parts) => {
      parts.nextUpdate = time(days(1825));
    },
  },
  { rule: "CRL-18", name: "a later nextUpdate", context: { predecessor: earlier() } },
  { rule: "CRL-19", name: "a later thisUpdate", context: { predecessor: earlier() } },

  { rule: "CRL-20", name: "no entries, no field" },
  {
    rule: "CRL-21",
    name: "issued serial numbers",
    mutate: entries(crlEntry(first, revoked)),
    context: { issued: () => facts },
  },
  {
    rule: "CRL-22",
    name: "two serial numbers",
    mutate: entries(crlEntry(first, revoked), crlEntry(second, revoked)),
    context: { inOtherShard: () => false },
  },
  {
    rule: "CRL-23",
    name: "revoked in the second of thisUpdate",
    mutate: entries(crlEntry(first, NOW)),
  },
  {
    rule: "CRL-24",
    name: "revoked the second it began",
    mutate: entries(crlEntry(first, facts.notBefore)),
    context: { issued: () => facts },
  },
  {
    rule: "CRL-24",
    name: "backdating that is documented",
    mutate: entries(crlEntry(first, days(-31), { reason: 1 })),
    context: { issued: () => facts, backdated: new Set([Buffer.from(first).toString("hex")]) },
  },
  {
    rule: "CRL-26",
    name: "an entry without extensions",
    mutate: entries(crlEntry(first, revoked)),
  },
  ...([1, 2, 3, 4, 5, 6, 9, 10] as const).map((reason): Row => ({
    rule: "CRL-27",
    name: `reason ${reason} in one octet`,
    mutate: entries(crlEntry(first, revoked, { reason })),
  })),
  {
    rule: "CRL-28",
    name: "a reason, not critical",
    mutate: entries(crlEntry(first, revoked, { reason: 3 })),
  },
  { rule: "CRL-29", name: "no reason by absence", mutate: entries(crlEntry(first, revoked)) },
  {
    rule: "CRL-30",
    name: "the highest reason",
    mutate: entries(crlEntry(first, revoked, { reason: 10 })),
  },
  {
    rule: "CRL-32",
    name: "removeFromCRL in a delta",
    mutate: both(delta(7), entries(crlEntry(first, revoked, { reason: 8 }))),
  },
  {
    rule: "CRL-35",
    name: "the intended entries, in any order",
    mutate: entries(crlEntry(first, revoked, { reason: 4 }), crlEntry(second, revoked)),
    context: {
      intended: [
        { serialNumber: second, revocationDate: revoked, reason: "unspecified" },
        { serialNumber: first, revocationDate: revoked, reason: "superseded" },
      ],
    },
  },
  {
    rule: "CRL-36",
    name: "GeneralizedTime before 2050",
    mutate: entries(
      crlEntry(first, revoked, {
        extensions: [reasonCode(1), invalidityDate(generalizedTime(days(-9)))],
      }),
    ),
  },
  {
    rule: "CRL-38",
    name: "reasonCode and invalidityDate",
    mutate: entries(
      crlEntry(first, revoked, {
        extensions: [reasonCode(1), invalidityDate(generalizedTime(days(-9)))],
      }),
    ),
  },
  {
    rule: "CRL-39",
    name: "two extensions",
    mutate: entries(
      crlEntry(first, revoked, {
        extensions: [reasonCode(1), invalidityDate(generalizedTime(days(-9)))],
      }),
    ),
  },
  {
    rule: "CRL-40",
    name: "an entry that goes after one CRL since the expiry",
    context: {
      predecessor: earlier(entries(crlEntry(first, revoked))),
      issued: () => ({ ...facts, notAfter: new Date(days(-1).getTime() - 1000) }),
    },
  },
  {
    rule: "CRL-40",
    name: "the certificate itself as the proof",
    context: {
      predecessor: earlier(entries(crlEntry(first, revoked))),
      dropped: [certificate(first, new Date(days(-1).getTime() - 1000))],
    },
  },
  {
    rule: "CRL-41",
    name: "everything kept, more revoked",
    mutate: entries(crlEntry(first, revoked), crlEntry(second, revoked)),
    context: { predecessor: earlier(entries(crlEntry(second, revoked))) },
  },
  {
    rule: "CRL-41",
    name: "a hold that was lifted",
    context: {
      predecessor: earlier(entries(crlEntry(first, revoked, { reason: 6 }))),
      released: new Set([Buffer.from(first).toString("hex")]),
    },
  },
  {
    rule: "CRL-42",
    name: "keyCompromise at an earlier date",
    mutate: entries(crlEntry(first, days(-3), { reason: 1 })),
    context: { predecessor: earlier(entries(crlEntry(first, revoked, { reason: 4 }))) },
  },
  {
    rule: "CRL-43",
    name: "in order, shorter numbers first",
    mutate: entries(
      crlEntry(hex("7f"), revoked),
      crlEntry(hex("0080"), revoked),
      crlEntry(first, revoked),
    ),
  },

  { rule: "CRL-50", name: "an AKI" },
  { rule: "CRL-51", name: "the issuer's SKI" },
  { rule: "CRL-53", name: "not critical" },
  { rule: "CRL-54", name: "a number" },
  { rule: "CRL-55", name: "not critical" },
  {
    rule: "CRL-56",
    name: "2^159 - 1",
    mutate: (parts) => setExtension(parts, "cRLNumber", integer(2n ** 159n - 1n)),
  },
  {
    rule: "CRL-57",
    name: "one more",
    context: { predecessor: earlier(), highestNumber: 7n },
  },
  { rule: "CRL-58", name: "a critical IDP", mutate: idp(distributionPoint(shard)) },
  { rule: "CRL-59", name: "an IDP with a URI", mutate: idp(distributionPoint(shard)) },
  { rule: "CRL-62", name: "one URI", mutate: idp(distributionPoint(shard)) },
  {
    rule: "CRL-64",
    name: "one kind of certificate",
    mutate: idp(distributionPoint(shard, hex("8101ff"))),
  },
  {
    rule: "CRL-65",
    name: "leaves in a CRL for leaves",
    mutate: both(idp(distributionPoint(shard, hex("8101ff"))), entries(crlEntry(first, revoked))),
    context: { issued: () => facts },
  },
  { rule: "CRL-68", name: "all reasons", mutate: idp(distributionPoint(shard)) },
  {
    rule: "CRL-69",
    name: "the predecessor's URI",
    mutate: idp(distributionPoint(shard)),
    context: { predecessor: earlier(idp(distributionPoint(shard))) },
  },
  { rule: "CRL-71", name: "a critical indicator", mutate: delta(7), context: { delta: true } },
  { rule: "CRL-72", name: "a complete base", mutate: delta(7), context: { base: earlier() } },
  {
    rule: "CRL-73",
    name: "the AKI and IDP of the base",
    mutate: both(delta(7), idp(distributionPoint(shard))),
    context: { base: earlier(idp(distributionPoint(shard))) },
  },
  {
    rule: "CRL-74",
    name: "one number for both",
    mutate: delta(7),
    context: { companion: signed(tbsCertList(crlParts(issuing, 8)), keys.issuing) },
  },
  {
    rule: "CRL-75",
    name: "not critical, in a complete CRL",
    mutate: (parts) => setExtension(parts, "freshestCRL", distributionPoints(shard)),
  },
  {
    rule: "CRL-76",
    name: "caIssuers",
    mutate: (parts) =>
      setExtension(parts, "authorityInfoAccess", accessDescriptions("http://a.example/")),
  },
  {
    rule: "CRL-77",
    name: "an entry that expired before what it promises",
    mutate: (parts) => setExtension(parts, "expiredCertsOnCRL", generalizedTime(days(-5))),
    context: {
      predecessor: earlier(entries(crlEntry(first, days(-8)))),
      issued: () => ({ ...facts, notAfter: days(-6) }),
    },
  },
  { rule: "CRL-78", name: "no default encoded" },
  { rule: "CRL-79", name: "each extension once" },
  { rule: "CRL-80", name: "AKI, number and IDP", mutate: idp(distributionPoint(shard)) },
];

const vanishing = { predecessor: earlier(entries(crlEntry(first, revoked))) };

const refused: readonly RefusedRow[] = [
  {
    rule: "CRL-01",
    name: "no version",
    mutate: (parts) => {
      parts.version = noBytes;
    },
  },
  {
    rule: "CRL-01",
    name: "v3",
    mutate: (parts) => {
      parts.version = integer(2);
    },
  },
  {
    rule: "CRL-02",
    name: "another outer algorithm",
    sign: (tbs) => signed(tbs, keys.issuing, algorithms["P-384"]),
  },
  {
    rule: "CRL-04",
    name: "SHA-256 by a P-384 key",
    under: authority(keys.p384),
    mutate: (parts) => {
      parts.signature = algorithms["P-256"];
    },
  },
  {
    rule: "CRL-04",
    name: "SHA-1",
    mutate: (parts) => {
      parts.signature = hex("300906072a8648ce3d0401");
    },
  },
  {
    rule: "CRL-05",
    name: "an empty issuer",
    mutate: (parts) => {
      parts.issuer = name();
    },
  },
  {
    rule: "CRL-06",
    name: "the same name in another string type",
    mutate: (parts) => {
      parts.issuer = name(["CN", "Example Issuing", Tag.printableString]);
    },
  },
  {
    rule: "CRL-07",
    name: "a CA without cRLSign",
    under: intermediateAuthority(root, keys.issuing, name(["CN", "Example Issuing"]), (parts) => {
      parts.extensions["keyUsage"] = extension(oids.keyUsage, keyUsage(5), true);
    }),
  },
  { rule: "CRL-08", name: "another key's signature", sign: (tbs) => signed(tbs, keys.root) },
  {
    rule: "CRL-08",
    name: "unused bits",
    sign: (tbs) => sequence(tbs, algorithms["P-256"], bitString(hex("3000"), 1)),
  },
  {
    rule: "CRL-08",
    name: "not the approved TBS",
    sign: (tbs) => signed(tbs, keys.issuing),
    context: { approvedTbs: hex("3000") },
  },
  {
    rule: "CRL-09",
    name: "bytes after the TBS",
    mutate: (parts) => {
      parts.trailing = hex("0500");
    },
  },
  {
    rule: "CRL-09",
    name: "bytes after the CRL",
    sign: (tbs) => concat(signed(tbs, keys.issuing), hex("00")),
  },
  {
    rule: "CRL-09",
    name: "a serial number that is not minimal",
    mutate: entries(crlEntry(hex("0001"), revoked)),
  },
  {
    rule: "CRL-09",
    name: "a number that is not minimal",
    mutate: (parts) => setExtension(parts, "cRLNumber", hex("02020008")),
  },
  {
    rule: "CRL-09",
    name: "an AKI with bytes after it",
    mutate: (parts) =>
      setExtension(
        parts,
        "authorityKeyIdentifier",
        concat(authorityKeyIdentifier(keys.issuing.identifier), hex("00")),
      ),
  },
  {
    rule: "CRL-09",
    name: "a flag of the IDP that encodes FALSE",
    mutate: idp(distributionPoint(shard, hex("810100"))),
  },
  {
    rule: "CRL-09",
    name: "critical TRUE as 01",
    mutate: (parts) =>
      setExtension(parts, "issuingDistributionPoint", distributionPoint(shard), hex("010101")),
  },
  {
    rule: "CRL-10",
    name: "61 seconds ahead",
    mutate: (parts) => {
      parts.thisUpdate = time(new Date(NOW.getTime() + 61_000));
    },
  },
  {
    rule: "CRL-11",
    name: "missing",
    mutate: (parts) => {
      parts.nextUpdate = noBytes;
    },
  },
  {
    rule: "CRL-12",
    name: "the same second",
    mutate: (parts) => {
      parts.nextUpdate = parts.thisUpdate;
    },
  },
  {
    rule: "CRL-13",
    name: "GeneralizedTime before 2050",
    mutate: (parts) => {
      parts.nextUpdate = generalizedTime(days(7));
    },
  },
  {
    rule: "CRL-13",
    name: "the same in an entry",
    mutate: entries(crlEntry(first, generalizedTime(revoked))),
  },
  {
    rule: "CRL-14",
    name: "no seconds",
    mutate: (parts) => {
      parts.thisUpdate = element(Tag.utcTime, ascii("2611211200Z"));
    },
  },
  {
    rule: "CRL-14",
    name: "a fraction in an entry",
    mutate: entries(crlEntry(first, element(Tag.generalizedTime, ascii("20261101000000.5Z")))),
  },
  {
    rule: "CRL-15",
    name: "a second beyond the CA certificate",
    mutate: (parts) => {
      parts.nextUpdate = time(new Date(days(1825).getTime() + 1000));
    },
  },
  {
    rule: "CRL-15",
    name: "before the CA certificate",
    mutate: (parts) => {
      parts.thisUpdate = time(days(-41));
    },
  },
  {
    rule: "CRL-18",
    name: "an earlier nextUpdate",
    mutate: (parts) => {
      parts.nextUpdate = time(days(5));
    },
    context: { predecessor: earlier() },
  },
  {
    rule: "CRL-19",
    name: "the same thisUpdate",
    mutate: (parts) => {
      parts.thisUpdate = time(days(-1));
    },
    context: { predecessor: earlier() },
  },

  {
    rule: "CRL-20",
    name: "an empty SEQUENCE",
    mutate: (parts) => {
      parts.entryField = sequence();
    },
  },
  {
    rule: "CRL-21",
    name: "a serial number that was never issued",
    mutate: entries(crlEntry(first, revoked)),
    context: { issued: () => undefined },
  },
  { rule: "CRL-21", name: "a negative one", mutate: entries(crlEntry(hex("80"), revoked)) },
  { rule: "CRL-21", name: "zero", mutate: entries(crlEntry(hex("00"), revoked)) },
  {
    rule: "CRL-21",
    name: "21 octets",
    mutate: entries(crlEntry(hex(`00${"ff".repeat(20)}`), revoked)),
  },
  {
    rule: "CRL-22",
    name: "a serial number twice",
    mutate: entries(crlEntry(first, revoked), crlEntry(first, revoked)),
  },
  {
    rule: "CRL-22",
    name: "twice, far apart",
    also: ["CRL-43"],
    mutate: entries(crlEntry(first, revoked), crlEntry(second, revoked), crlEntry(first, revoked)),
  },
  {
    rule: "CRL-22",
    name: "another shard has it",
    mutate: entries(crlEntry(first, revoked)),
    context: { inOtherShard: () => true },
  },
  {
    rule: "CRL-23",
    name: "a second after thisUpdate",
    mutate: entries(crlEntry(first, new Date(NOW.getTime() + 1000))),
  },
  {
    rule: "CRL-24",
    name: "a second before notBefore",
    mutate: entries(crlEntry(first, new Date(facts.notBefore.getTime() - 1000))),
    context: { issued: () => facts },
  },
  {
    rule: "CRL-26",
    name: "an empty SEQUENCE",
    mutate: entries(crlEntry(first, revoked, { extensions: [] })),
  },
  ...(
    [
      ["an INTEGER", integer(1)],
      ["two octets", element(Tag.enumerated, hex("0001"))],
      ["bytes after it", hex("0a010100")],
    ] as const
  ).map(([what, value]): RefusedRow => ({
    rule: "CRL-27",
    name: what,
    mutate: entries(crlEntry(first, revoked, { extensions: [extension(oids.reasonCode, value)] })),
  })),
  {
    rule: "CRL-28",
    name: "critical",
    mutate: entries(crlEntry(first, revoked, { extensions: [reasonCode(1, true)] })),
  },
  { rule: "CRL-29", name: "0, encoded", mutate: entries(crlEntry(first, revoked, { reason: 0 })) },
  { rule: "CRL-30", name: "7", mutate: entries(crlEntry(first, revoked, { reason: 7 })) },
  { rule: "CRL-30", name: "11", mutate: entries(crlEntry(first, revoked, { reason: 11 })) },
  {
    rule: "CRL-32",
    name: "removeFromCRL in a complete CRL",
    mutate: entries(crlEntry(first, revoked, { reason: 8 })),
  },
  ...(
    [
      ["one too many", []],
      [
        "one too few",
        [
          [first, revoked, "superseded"],
          [second, revoked, "superseded"],
        ],
      ],
      ["another date", [[first, days(-3), "superseded"]]],
      ["a reason that was lost", [[first, revoked, "keyCompromise"]]],
      ["another serial number", [[second, revoked, "superseded"]]],
    ] as const
  ).map(([what, intended]): RefusedRow => ({
    rule: "CRL-35",
    name: what,
    mutate: entries(crlEntry(first, revoked, { reason: 4 })),
    context: {
      intended: intended.map(([serialNumber, revocationDate, reason]) => ({
        serialNumber,
        revocationDate,
        reason,
      })),
    },
  })),
  ...(
    [
      ["UTCTime", invalidityDate(time(days(-9)))],
      ["a fraction", invalidityDate(element(Tag.generalizedTime, ascii("20261101000000.5Z")))],
      ["critical", invalidityDate(generalizedTime(days(-9)), true)],
    ] as const
  ).map(([what, der]): RefusedRow => ({
    rule: "CRL-36",
    name: what,
    mutate: entries(crlEntry(first, revoked, { extensions: [der] })),
  })),
  {
    rule: "CRL-38",
    name: "an unknown critical one",
    mutate: entries(
      crlEntry(first, revoked, {
        extensions: [extension("1.3.6.1.4.1.99999.1", hex("0500"), true)],
      }),
    ),
  },
  {
    rule: "CRL-38",
    name: "an unknown one that is not critical",
    mutate: entries(
      crlEntry(first, revoked, { extensions: [extension("1.3.6.1.4.1.99999.1", hex("0500"))] }),
    ),
  },
  {
    rule: "CRL-38",
    name: "certificateIssuer that is not critical, for which OpenSSL gives the entry to another issuer",
    mutate: entries(
      crlEntry(first, revoked, {
        extensions: [
          reasonCode(1),
          extension(oids.certificateIssuer, sequence(element(0xa4, issuing.subject))),
        ],
      }),
    ),
  },
  {
    rule: "CRL-38",
    name: "certificateIssuer, which belongs in indirect CRLs",
    mutate: entries(
      crlEntry(first, revoked, {
        extensions: [
          extension(oids.certificateIssuer, sequence(element(0xa4, issuing.subject)), true),
        ],
      }),
    ),
  },
  {
    rule: "CRL-39",
    name: "reasonCode twice",
    mutate: entries(crlEntry(first, revoked, { extensions: [reasonCode(1), reasonCode(1)] })),
  },
  {
    rule: "CRL-40",
    name: "the certificate is still valid",
    context: { ...vanishing, issued: () => facts },
  },
  {
    rule: "CRL-40",
    name: "it expired, but no CRL since has had the entry",
    context: { ...vanishing, issued: () => ({ ...facts, notAfter: days(-1) }) },
  },
  {
    rule: "CRL-40",
    name: "the certificate handed in is still valid",
    context: { ...vanishing, dropped: [certificate(first, days(1))] },
  },
  { rule: "CRL-41", name: "an entry vanishes", context: vanishing },
  {
    rule: "CRL-41",
    name: "the certificate handed in is of another key",
    context: { ...vanishing, dropped: [certificate(first, days(-3), keys.leaf)] },
  },
  {
    rule: "CRL-41",
    name: "the last of many vanishes",
    mutate: entries(crlEntry(first, revoked)),
    context: {
      predecessor: earlier(entries(crlEntry(first, revoked), crlEntry(second, revoked))),
    },
  },
  {
    rule: "CRL-41",
    name: "a hold goes that nobody lifted",
    context: { predecessor: earlier(entries(crlEntry(first, revoked, { reason: 6 }))) },
  },
  {
    rule: "CRL-41",
    name: "a predecessor that this issuer did not sign",
    context: { predecessor: signed(tbsCertList(crlParts(issuing, 7)), keys.root) },
  },
  { rule: "CRL-41", name: "a predecessor that is no CRL", context: { predecessor: hex("3000") } },
  {
    rule: "CRL-42",
    name: "a later date",
    mutate: entries(crlEntry(first, days(-1))),
    context: vanishing,
  },
  {
    rule: "CRL-42",
    name: "a reason that was keyCompromise",
    mutate: entries(crlEntry(first, revoked, { reason: 4 })),
    context: { predecessor: earlier(entries(crlEntry(first, revoked, { reason: 1 }))) },
  },
  {
    rule: "CRL-43",
    name: "the greater first",
    mutate: entries(crlEntry(second, revoked), crlEntry(first, revoked)),
  },

  {
    rule: "CRL-50",
    name: "missing",
    mutate: (parts) => {
      parts.extensions["authorityKeyIdentifier"] = undefined;
    },
  },
  {
    rule: "CRL-51",
    name: "another key's",
    mutate: (parts) =>
      setExtension(parts, "authorityKeyIdentifier", authorityKeyIdentifier(keys.root.identifier)),
  },
  {
    rule: "CRL-51",
    name: "no keyIdentifier",
    mutate: (parts) => setExtension(parts, "authorityKeyIdentifier", sequence()),
  },
  {
    rule: "CRL-53",
    name: "critical",
    mutate: (parts) =>
      setExtension(
        parts,
        "authorityKeyIdentifier",
        authorityKeyIdentifier(keys.issuing.identifier),
        true,
      ),
  },
  {
    rule: "CRL-54",
    name: "missing",
    mutate: (parts) => {
      parts.extensions["cRLNumber"] = undefined;
    },
  },
  {
    rule: "CRL-55",
    name: "critical",
    mutate: (parts) => setExtension(parts, "cRLNumber", integer(8), true),
  },
  {
    rule: "CRL-56",
    name: "negative",
    mutate: (parts) => setExtension(parts, "cRLNumber", hex("0201ff")),
  },
  {
    rule: "CRL-56",
    name: "2^159",
    mutate: (parts) => setExtension(parts, "cRLNumber", integer(2n ** 159n)),
  },
  {
    rule: "CRL-57",
    name: "the predecessor's",
    mutate: (parts) => setExtension(parts, "cRLNumber", integer(7)),
    context: { predecessor: earlier() },
  },
  {
    rule: "CRL-57",
    name: "a number used before a restore",
    context: { predecessor: earlier(), highestNumber: 8n },
  },
  { rule: "CRL-58", name: "not critical", mutate: idp(distributionPoint(shard), false) },
  { rule: "CRL-59", name: "empty", mutate: idp(sequence()) },
  {
    rule: "CRL-62",
    name: "two URIs",
    mutate: idp(sequence(element(0xa0, element(0xa0, uri(shard), uri("http://b.example/"))))),
  },
  {
    rule: "CRL-62",
    name: "no URI",
    mutate: idp(sequence(element(0xa0, element(0xa0, dns("a.example"))))),
  },
  {
    rule: "CRL-64",
    name: "two kinds",
    mutate: idp(distributionPoint(shard, hex("8101ff"), hex("8201ff"))),
  },
  {
    rule: "CRL-65",
    name: "a CA in a CRL for leaves",
    mutate: both(idp(distributionPoint(shard, hex("8101ff"))), entries(crlEntry(first, revoked))),
    context: { issued: () => ({ ...facts, cA: true }) },
  },
  {
    rule: "CRL-65",
    name: "a leaf in a CRL for CAs",
    mutate: both(idp(distributionPoint(shard, hex("8201ff"))), entries(crlEntry(first, revoked))),
    context: { issued: () => facts },
  },
  { rule: "CRL-68", name: "some reasons", mutate: idp(distributionPoint(shard, hex("83020640"))) },
  {
    rule: "CRL-69",
    name: "another URI",
    mutate: idp(distributionPoint(shard)),
    context: { predecessor: earlier(idp(distributionPoint("http://pki.example.org/crl/2.crl"))) },
  },
  {
    rule: "CRL-69",
    name: "a shard after a complete one",
    mutate: idp(distributionPoint(shard)),
    context: { predecessor: earlier() },
  },
  {
    rule: "CRL-69",
    name: "attribute certificates only, after a complete one",
    mutate: idp(sequence(hex("8501ff"))),
    context: { predecessor: earlier() },
  },
  {
    rule: "CRL-69",
    name: "leaves only, after one for everything at the same URI",
    mutate: idp(distributionPoint(shard, hex("8101ff"))),
    context: { predecessor: earlier(idp(distributionPoint(shard))) },
  },
  {
    rule: "CRL-41",
    name: "an entry that vanishes behind a delta, where none is meant",
    mutate: () => {},
    context: {
      delta: false,
      predecessor: earlier(both(delta(6), entries(crlEntry(first, revoked, { reason: 8 })))),
    },
  },
  { rule: "CRL-71", name: "not critical", mutate: delta(7, false) },
  { rule: "CRL-71", name: "missing where a delta is meant", context: { delta: true } },
  {
    rule: "CRL-71",
    name: "there where a complete one is meant",
    mutate: delta(7),
    context: { delta: false },
  },
  { rule: "CRL-72", name: "its own number", mutate: delta(8) },
  {
    rule: "CRL-72",
    name: "another base than the one given",
    mutate: delta(6),
    context: { base: earlier() },
  },
  {
    rule: "CRL-72",
    name: "a delta as base",
    mutate: delta(7),
    context: { base: earlier(delta(6)) },
  },
  {
    rule: "CRL-73",
    name: "another IDP",
    mutate: both(delta(7), idp(distributionPoint(shard))),
    context: { base: earlier() },
  },
  {
    rule: "CRL-74",
    name: "two numbers",
    mutate: delta(7),
    context: { companion: signed(tbsCertList(crlParts(issuing, 9)), keys.issuing) },
  },
  {
    rule: "CRL-75",
    name: "critical",
    mutate: (parts) => setExtension(parts, "freshestCRL", distributionPoints(shard), true),
  },
  {
    rule: "CRL-75",
    name: "in a delta",
    mutate: both(delta(7), (parts) =>
      setExtension(parts, "freshestCRL", distributionPoints(shard)),
    ),
  },
  {
    rule: "CRL-76",
    name: "critical",
    mutate: (parts) =>
      setExtension(parts, "authorityInfoAccess", accessDescriptions("http://a.example/"), true),
  },
  {
    rule: "CRL-77",
    name: "UTCTime",
    mutate: (parts) => setExtension(parts, "expiredCertsOnCRL", time(days(-5))),
  },
  {
    rule: "CRL-77",
    name: "an expired entry goes in spite of it",
    mutate: (parts) => setExtension(parts, "expiredCertsOnCRL", generalizedTime(days(-5))),
    context: { ...vanishing, issued: () => ({ ...facts, notAfter: days(-3) }) },
  },
  {
    rule: "CRL-78",
    name: "an empty list",
    also: ["CRL-50", "CRL-54"],
    mutate: (parts) => {
      parts.extensionField = element(0xa0, sequence());
    },
  },
  {
    rule: "CRL-78",
    name: "critical FALSE",
    mutate: (parts) => setExtension(parts, "cRLNumber", integer(8), hex("010100")),
  },
  {
    rule: "CRL-78",
    name: "critical FALSE in an entry",
    mutate: entries(crlEntry(first, revoked, { extensions: [reasonCode(1, hex("010100"))] })),
  },
  {
    rule: "CRL-79",
    name: "the number twice",
    mutate: (parts) => {
      parts.extensions["again"] = parts.extensions["cRLNumber"];
    },
  },
  {
    rule: "CRL-80",
    name: "something else",
    mutate: (parts) => setExtension(parts, "tlsFeature", hex("3000")),
  },
  {
    rule: "CRL-80",
    name: "something unknown and critical",
    level: "P",
    mutate: (parts) => setExtension(parts, "tlsFeature", hex("3000"), true),
  },
];

for (const row of accepted) {
  test(`${row.rule}: accepts ${row.name}`, () => {
    const findings = lint(row);
    expect(findings.filter((finding) => finding.level !== "S")).toEqual([]);
    if (rules[row.rule].level === "S") {
      expect(findings.map((finding) => finding.rule)).not.toContain(row.rule);
    }
  });
}

for (const row of refused) {
  test(`${row.rule}: refuses ${row.name}`, () => {
    const findings = lint(row);
    const level = row.level ?? rules[row.rule].level;
    expect(findings).toContainEqual(expect.objectContaining({ rule: row.rule, level }));
    const others = new Set<string>(
      findings.filter((finding) => finding.level !== "S").map((finding) => finding.rule),
    );
    others.delete(row.rule);
    expect([...others].toSorted()).toEqual([...(row.also ?? [])].toSorted());
    expect(refuses(findings)).toBe(level !== "S");
  });
}

/** The M, P and S rules of PROFILE-RULES 4A up to CRL-80, written out so that none is forgotten. */
const wanted = `
  CRL-01 CRL-02 CRL-04 CRL-05 CRL-06 CRL-07 CRL-08 CRL-09 CRL-10 CRL-11 CRL-12 CRL-13 CRL-14 CRL-15 CRL-18 CRL-19
  CRL-20 CRL-21 CRL-22 CRL-23 CRL-24 CRL-26 CRL-27 CRL-28 CRL-29 CRL-30 CRL-32 CRL-35 CRL-36 CRL-38 CRL-39 CRL-40
  CRL-41 CRL-42 CRL-43
  CRL-50 CRL-51 CRL-53 CRL-54 CRL-55 CRL-56 CRL-57 CRL-58 CRL-59 CRL-62 CRL-64 CRL-65 CRL-68 CRL-69 CRL-71 CRL-72
  CRL-73 CRL-74 CRL-75 CRL-76 CRL-77 CRL-78 CRL-79 CRL-80`
  .trim()
  .split(/\s+/);

test("every rule has a CRL that it accepts and one that it refuses", () => {
  const covered = (rows: readonly Row[]) => new Set<string>(rows.map((row) => row.rule));
  expect(wanted.filter((rule) => !covered(accepted).has(rule))).toEqual([]);
  expect(wanted.filter((rule) => !covered(refused).has(rule))).toEqual([]);
});

test("the table of rules has exactly these", () => {
  const listed = Object.keys(rules).filter((id) => id.startsWith("CRL-"));
  expect(listed.toSorted()).toEqual(wanted.toSorted());
});

test("CRL-08: one changed bit anywhere in a signed CRL is refused, and none makes the linter throw", () => {
  const parts = crlParts(issuing, 8);
  parts.entries.push(crlEntry(first, revoked, { reason: 1 }), crlEntry(second, revoked));
  setExtension(parts, "issuingDistributionPoint", distributionPoint(shard), true);
  const der = signed(tbsCertList(parts), keys.issuing);
  const context = { issuer: compiledIssuer(issuing), now: NOW };
  expect(lintCertificateList(der, context)).toEqual([]);
  for (let i = 0; i < der.length; i++) {
    const changed = Uint8Array.from(der);
    changed[i]! ^= 1 << (i % 8);
    expect(refuses(lintCertificateList(changed, context)), `octet ${i}`).toBe(true);
  }
});

test("CRL-09: a CRL that is cut off anywhere is refused", () => {
  const parts = crlParts(issuing, 8);
  parts.entries.push(crlEntry(first, revoked, { reason: 1 }));
  const der = signed(tbsCertList(parts), keys.issuing);
  for (let length = 0; length < der.length; length++) {
    const findings = lintCertificateList(der.subarray(0, length), {
      issuer: compiledIssuer(issuing),
      now: NOW,
    });
    expect(findings.map((finding) => finding.rule)).toEqual(["CRL-09"]);
  }
});

test("a finding that many entries share is told once, and counted", () => {
  const parts = crlParts(issuing, 8);
  for (let n = 0; n < 1000; n++)
    parts.entries.push(crlEntry(serialOctets(n), revoked, { reason: 7 }));
  const findings = lintTbsCertList(tbsCertList(parts), {
    issuer: compiledIssuer(issuing),
    now: NOW,
  });
  expect(findings).toEqual([
    {
      rule: "CRL-30",
      level: "M",
      detail: `entry ${Buffer.from(serialOctets(0)).toString("hex")}: reason 7 does not exist (and 999 more entries)`,
    },
  ]);
});

test("CRL-35, CRL-41: twenty thousand entries are compared in their order, whatever order they are given in", () => {
  const count = 20_000;
  const before = crlParts(issuing, 7);
  before.thisUpdate = time(days(-1));
  const now = crlParts(issuing, 8);
  const intended = [];
  for (let n = 0; n < count; n++) {
    const serialNumber = serialOctets(n);
    now.entries.push(crlEntry(serialNumber, revoked, { reason: 4 }));
    if (n % 2 === 0) before.entries.push(crlEntry(serialNumber, revoked, { reason: 4 }));
    intended.unshift({ serialNumber, revocationDate: revoked, reason: "superseded" });
  }
  const context = {
    issuer: compiledIssuer(issuing),
    now: NOW,
    predecessor: signed(tbsCertList(before), keys.issuing),
    intended,
  };
  expect(lintTbsCertList(tbsCertList(now), context)).toEqual([]);
  now.entries.splice(10_000, 1);
  const findings = lintTbsCertList(tbsCertList(now), context);
  expect(findings.map((finding) => finding.rule).toSorted()).toEqual(["CRL-35", "CRL-41"]);
});
