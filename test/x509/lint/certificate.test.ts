import { generatePrimeSync } from "node:crypto";
import { expect, test } from "vitest";
import {
  Tag,
  bitString,
  booleanTrue,
  concat,
  element,
  generalizedTime,
  integer,
  objectIdentifier,
  octetString,
  sequence,
  time,
} from "../../../src/x509/der.ts";
import {
  lintCertificate,
  lintIssuer,
  lintTbsCertificate,
} from "../../../src/x509/lint/certificate.ts";
import type {
  CertificateKind,
  CertificateLintContext,
  LintIssuer,
} from "../../../src/x509/lint/certificate.ts";
import { refuses } from "../../../src/x509/lint/finding.ts";
import type { Finding } from "../../../src/x509/lint/finding.ts";
import { rules } from "../../../src/x509/lint/rules.ts";
import type { RuleId } from "../../../src/x509/lint/rules.ts";
import {
  CRL_URL,
  NOW,
  accessDescriptions,
  algorithms,
  ascii,
  authorityKeyIdentifier,
  clientParts,
  days,
  distributionPoints,
  dns,
  ecPoint,
  email,
  extKeyUsage,
  extension,
  fixtureKey,
  hex,
  intermediateAuthority,
  intermediateParts,
  ip,
  keyBits,
  keyUsage,
  name,
  nameConstraints,
  noBytes,
  oids,
  otherName,
  peerParts,
  purposes,
  rootAuthority,
  rootParts,
  rsaSpki,
  serverParts,
  signed,
  spkiOf,
  tbsCertificate,
  uri,
} from "../../support/der-fixtures.ts";
import type { CertificateParts, FixtureAuthority, FixtureKey } from "../../support/der-fixtures.ts";

const keys = {
  root: fixtureKey("P-256"),
  issuing: fixtureKey("P-256"),
  sub: fixtureKey("P-256"),
  leaf: fixtureKey("P-256"),
  other: fixtureKey("P-256"),
  p384: fixtureKey("P-384"),
  p521: fixtureKey("P-521"),
  rsa: fixtureKey("RSA"),
  ed25519: fixtureKey("Ed25519"),
};
const rootSubject = name(["C", "CH"], ["O", "Example"], ["CN", "Example Root"]);
const issuingSubject = name(["O", "Example"], ["CN", "Example Issuing"]);

const root = rootAuthority(keys.root, rootSubject);
const issuing = issuer();
const roomy = issuer((parts) => {
  setExtension(parts, "basicConstraints", sequence(booleanTrue, integer(2)), true);
});
const serverOnly = issuer((parts) => {
  setExtension(parts, "extKeyUsage", extKeyUsage(purposes.serverAuth));
});
const anyPurpose = issuer((parts) => {
  setExtension(parts, "extKeyUsage", extKeyUsage(purposes.any));
});

/** An issuing CA under the root that differs in something. */
function issuer(
  mutate?: (parts: CertificateParts) => void,
  key: FixtureKey = keys.issuing,
): FixtureAuthority {
  return intermediateAuthority(root, key, issuingSubject, mutate);
}

function constrained(value: Uint8Array): FixtureAuthority {
  return issuer((parts) => setExtension(parts, "nameConstraints", value, true));
}

function setExtension(
  parts: CertificateParts,
  which: keyof typeof oids,
  value: Uint8Array,
  critical: boolean | Uint8Array = false,
): void {
  parts.extensions[which] = extension(oids[which], value, critical);
}

function removeExtension(parts: CertificateParts, which: keyof typeof oids): void {
  parts.extensions[which] = undefined;
}

function setNames(parts: CertificateParts, ...names: readonly Uint8Array[]): void {
  setExtension(parts, "subjectAltName", sequence(...names), parts.subject.length === 2);
}

/** A subject, and the SAN no longer critical because of it. */
function setSubject(
  parts: CertificateParts,
  subject: Uint8Array,
  ...names: readonly Uint8Array[]
): void {
  parts.subject = subject;
  if (names.length > 0) setNames(parts, ...names);
}

interface Row {
  readonly rule: RuleId;
  readonly name: string;
  readonly kind: CertificateKind;
  readonly mutate?: (parts: CertificateParts) => void;
  readonly context?: Partial<CertificateLintContext>;
  readonly under?: FixtureAuthority;
  /** Lints the signed certificate that this makes of the TBS. */
  readonly sign?: (tbs: Uint8Array) => Uint8Array;
  readonly approvedTbs?: Uint8Array;
}

interface RefusedRow extends Row {
  /** The level of the finding, where it is not the rule's own. */
  readonly level?: "M" | "P" | "S";
  /** Other rules that the same bytes cannot but break. */
  readonly also?: readonly RuleId[];
}

const compiled = new Map<FixtureAuthority, LintIssuer>();

function compiledIssuer(authority: FixtureAuthority): LintIssuer {
  const known = compiled.get(authority) ?? lintIssuer(authority.certificate, authority.chain);
  compiled.set(authority, known);
  return known;
}

function partsOf(kind: CertificateKind, under: FixtureAuthority): CertificateParts {
  switch (kind) {
    case "root":
      return rootParts(keys.root, rootSubject);
    case "intermediate":
      return intermediateParts(under, keys.sub, name(["O", "Example"], ["CN", "Example Sub"]));
    case "server":
      return serverParts(under, keys.leaf);
    case "peer":
      return peerParts(under, keys.leaf);
    case "client":
      return clientParts(under, keys.leaf);
  }
}

function lint(row: Row): Finding[] {
  const under = row.under ?? (row.kind === "intermediate" ? root : issuing);
  const parts = partsOf(row.kind, under);
  row.mutate?.(parts);
  const tbs = tbsCertificate(parts);
  const context: CertificateLintContext = {
    kind: row.kind,
    now: NOW,
    ...(row.kind === "root" ? {} : { issuer: compiledIssuer(under) }),
    ...row.context,
  };
  if (row.sign === undefined) return lintTbsCertificate(tbs, context);
  const { approvedTbs } = row;
  return lintCertificate(row.sign(tbs), {
    ...context,
    ...(approvedTbs === undefined ? {} : { approvedTbs }),
  });
}

function serial(content: string): (parts: CertificateParts) => void {
  return (parts) => {
    parts.serialNumber = element(Tag.integer, hex(content));
  };
}

const leafPoint = keyBits(keys.leaf.spki);
const rsaModulus = BigInt(
  `0x${Buffer.from(keyBits(keys.rsa.spki))
    .toString("hex")
    .slice(18, 18 + 512)}`,
);
const commonName = name(["CN", "www.example.org"]);
const upn = otherName(
  "1.3.6.1.4.1.311.20.2.3",
  element(Tag.utf8String, ascii("alice@corp.example")),
);
const utf8Mailbox = otherName(
  "1.3.6.1.5.5.7.8.9",
  element(Tag.utf8String, Uint8Array.from(Buffer.from("jürg@example.org"))),
);

const accepted: readonly Row[] = [
  { rule: "CRT-01", name: "v3, encoded", kind: "server" },
  {
    rule: "CRT-02",
    name: "20 octets with the top bit clear",
    kind: "server",
    mutate: serial(`7f${"ff".repeat(19)}`),
  },
  { rule: "CRT-02", name: "a 00 pad before a set top bit", kind: "server", mutate: serial("0080") },
  {
    rule: "CRT-04",
    name: "a serial number not in use",
    kind: "server",
    context: { issuedSerials: () => false },
  },
  { rule: "CRT-05", name: "the issuer's bytes", kind: "server" },
  {
    rule: "CRT-06",
    name: "P-256 signs with SHA-256",
    kind: "server",
    sign: (tbs) => signed(tbs, keys.issuing),
  },
  ...(
    [
      ["P-384 with SHA-384", keys.p384, algorithms["P-384"]],
      ["P-521 with SHA-512", keys.p521, algorithms["P-521"]],
      ["RSA with explicit NULL", keys.rsa, algorithms.RSA],
      ["Ed25519", keys.ed25519, algorithms.Ed25519],
    ] as const
  ).map(([what, key]): Row => ({
    rule: "CRT-06",
    name: what,
    kind: "server",
    under: issuer(undefined, key),
    sign: (tbs) => signed(tbs, key),
  })),
  {
    rule: "CRT-07",
    name: "verifies, and is the approved TBS",
    kind: "root",
    mutate: (parts) => {
      parts.serialNumber = integer(77);
    },
    sign: (tbs) => signed(tbs, keys.root),
    approvedTbs: (() => {
      const parts = rootParts(keys.root, rootSubject);
      parts.serialNumber = integer(77);
      return tbsCertificate(parts);
    })(),
  },
  { rule: "CRT-08", name: "no unique identifiers", kind: "client" },
  {
    rule: "CRT-09",
    name: "GeneralizedTime from 2050",
    kind: "root",
    mutate: (parts) => {
      parts.notAfter = generalizedTime(new Date("2050-01-01T00:00:00Z"));
    },
  },
  {
    rule: "CRT-09",
    name: "UTCTime in the last second of 2049",
    kind: "root",
    mutate: (parts) => {
      parts.notAfter = element(Tag.utcTime, ascii("491231235959Z"));
    },
  },
  {
    rule: "CRT-09",
    name: "29 February of a leap year",
    kind: "root",
    mutate: (parts) => {
      parts.notAfter = element(Tag.utcTime, ascii("280229000000Z"));
    },
  },
  {
    rule: "CRT-09",
    name: "no expiry where that is meant",
    kind: "root",
    context: { noExpiry: true },
    mutate: (parts) => {
      parts.notAfter = element(Tag.generalizedTime, ascii("99991231235959Z"));
    },
  },
  {
    rule: "CRT-10",
    name: "90 days, the last second included",
    kind: "server",
    context: { maximumLifetime: 90 * 86_400 },
    mutate: (parts) => {
      parts.notAfter = time(new Date(days(90).getTime() - 1000));
    },
  },
  {
    rule: "CRT-11",
    name: "exactly the issuer's validity",
    kind: "server",
    mutate: (parts) => {
      parts.notBefore = time(days(-5));
      parts.notAfter = time(days(1825));
    },
  },
  { rule: "CRT-12", name: "each extension once", kind: "intermediate" },
  {
    rule: "CRT-13",
    name: "an empty basicConstraints is cA FALSE",
    kind: "server",
    mutate: (parts) => setExtension(parts, "basicConstraints", sequence(), true),
  },
  {
    rule: "CRT-14",
    name: "nine bits, trimmed",
    kind: "server",
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(0, 4, 8), true),
  },
  { rule: "CRT-15", name: "pathLen with cA and keyCertSign", kind: "intermediate" },
  { rule: "CRT-16", name: "the issuer's SKI", kind: "server" },
  {
    rule: "CRT-17",
    name: "an SKI known for this very key",
    kind: "intermediate",
    context: { keyIdentifierOwner: () => keys.sub.spkiDigest },
  },
  { rule: "CRT-18", name: "RFC 7093 method 1", kind: "intermediate" },
  {
    rule: "CRT-18",
    name: "SHA-1 where the profile says so",
    kind: "intermediate",
    context: { subjectKeyIdentifierMethod: "sha1" },
    mutate: (parts) =>
      setExtension(parts, "subjectKeyIdentifier", octetString(keys.sub.sha1Identifier)),
  },
  {
    rule: "CRT-19",
    name: "every kind of value, well-formed",
    kind: "peer",
    mutate: (parts) => {
      setNames(
        parts,
        dns("a.example"),
        ip(192, 0, 2, 1),
        ip(...Array.from({ length: 16 }, () => 1)),
      );
      setExtension(
        parts,
        "certificatePolicies",
        sequence(
          sequence(
            objectIdentifier("1.3.6.1.4.1.99999.1"),
            sequence(
              sequence(
                objectIdentifier("1.3.6.1.5.5.7.2.1"),
                element(Tag.ia5String, ascii("http://cps")),
              ),
            ),
          ),
        ),
      );
    },
  },
  {
    rule: "CRT-20",
    name: "an extension that the profile lists",
    kind: "server",
    context: { extensions: [{ oid: oids.tlsFeature, critical: false }] },
    mutate: (parts) => setExtension(parts, "tlsFeature", sequence(integer(5))),
  },
  {
    rule: "CRT-20",
    name: "the value that the profile lists",
    kind: "server",
    context: {
      extensions: [{ oid: oids.tlsFeature, critical: true, value: sequence(integer(5)) }],
    },
    mutate: (parts) => setExtension(parts, "tlsFeature", sequence(integer(5)), true),
  },
  {
    rule: "CRT-21",
    name: "all fields as asked for, names in another order",
    kind: "server",
    mutate: (parts) => {
      parts.serialNumber = element(Tag.integer, hex("5a01"));
      setSubject(
        parts,
        commonName,
        dns("www.example.org"),
        ip(192, 0, 2, 1),
        ip(...hex("20010db8000000000000000000000001")),
      );
    },
    context: {
      requested: {
        subject: commonName,
        subjectPublicKeyInfo: keys.leaf.spki,
        serialNumber: hex("5a01"),
        notBefore: days(0),
        notAfter: days(90),
        names: [
          { kind: "ip", value: "2001:db8::1" },
          { kind: "dns", value: "www.example.org" },
          { kind: "ip", value: "192.0.2.1" },
        ],
        keyUsage: ["digitalSignature"],
        extKeyUsage: [purposes.serverAuth],
        basicConstraints: null,
        crlUrl: CRL_URL,
        caIssuersUrl: "http://pki.example.org/ca/issuing.cer",
      },
    },
  },
  { rule: "CRT-22", name: "an issuer with room for a CA", kind: "intermediate", under: roomy },
  { rule: "CRT-22", name: "a purpose that the path has", kind: "server", under: serverOnly },
  { rule: "CRT-22", name: "any purpose", kind: "peer", under: anyPurpose },

  ...(
    [
      ["P-256", keys.leaf],
      ["P-384", keys.p384],
      ["P-521", keys.p521],
      ["RSA", keys.rsa],
      ["Ed25519", keys.ed25519],
    ] as const
  ).map(([type, key]): Row => ({
    rule: "KEY-01",
    name: type,
    kind: "server",
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = key.spki;
    },
  })),
  ...(["KEY-02", "KEY-03", "KEY-04"] as const).map((rule): Row => ({
    rule,
    name: "2048 bits, 65537, an honest modulus",
    kind: "client",
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = keys.rsa.spki;
    },
  })),
  { rule: "KEY-09", name: "an uncompressed point on P-256", kind: "server" },
  {
    rule: "KEY-11",
    name: "a key that only leaves have",
    kind: "server",
    context: { caKeys: new Set([keys.root.spkiDigest, keys.issuing.spkiDigest]) },
  },
  {
    rule: "KEY-11",
    name: "a CA key that no leaf has",
    kind: "intermediate",
    context: { leafKeys: () => false },
  },
  {
    rule: "KEY-13",
    name: "Ed25519 in a private profile",
    kind: "server",
    context: { ed25519: true },
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = keys.ed25519.spki;
    },
  },

  {
    rule: "ROOT-01",
    name: "signed by itself",
    kind: "root",
    sign: (tbs) => signed(tbs, keys.root),
  },
  { rule: "ROOT-04", name: "critical, cA TRUE, no pathLen", kind: "root" },
  { rule: "ROOT-05", name: "keyCertSign and cRLSign", kind: "root" },
  {
    rule: "ROOT-05",
    name: "digitalSignature for OCSP",
    kind: "root",
    context: { ocspSigner: true },
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(0, 5, 6), true),
  },
  { rule: "ROOT-06", name: "SKI present", kind: "root" },
  { rule: "ROOT-07", name: "AKI present", kind: "root" },
  { rule: "ROOT-09", name: "nothing that a root does not need", kind: "root" },
  { rule: "ROOT-10", name: "a subject", kind: "root" },
  { rule: "ROOT-11", name: "a new name", kind: "root", context: { rootNames: new Set(["3000"]) } },

  { rule: "ICA-01", name: "AKI and SKI", kind: "intermediate" },
  {
    rule: "ICA-02",
    name: "a pathLen just below the issuer's",
    kind: "intermediate",
    under: roomy,
    mutate: (parts) =>
      setExtension(parts, "basicConstraints", sequence(booleanTrue, integer(1)), true),
  },
  { rule: "ICA-03", name: "keyCertSign and cRLSign", kind: "intermediate" },
  { rule: "ICA-07", name: "caIssuers over http", kind: "intermediate" },
  { rule: "ICA-08", name: "a subject", kind: "intermediate" },
  {
    rule: "ICA-12",
    name: "a part of the parent's purposes",
    kind: "intermediate",
    under: issuer((parts) => {
      setExtension(parts, "basicConstraints", sequence(booleanTrue, integer(2)), true);
      setExtension(parts, "extKeyUsage", extKeyUsage(purposes.clientAuth, purposes.serverAuth));
    }),
    mutate: (parts) => setExtension(parts, "extKeyUsage", extKeyUsage(purposes.serverAuth)),
  },
  {
    rule: "ICA-13",
    name: "a key of a ceremony",
    kind: "intermediate",
    context: { ceremonyKeys: new Set([keys.sub.spkiDigest]) },
  },

  {
    rule: "NC-01",
    name: "in a CA",
    kind: "intermediate",
    mutate: (parts) =>
      setExtension(parts, "nameConstraints", nameConstraints([dns("example.org")]), true),
  },
  {
    rule: "NC-02",
    name: "critical",
    kind: "intermediate",
    mutate: (parts) =>
      setExtension(parts, "nameConstraints", nameConstraints([], [dns("example.org")]), true),
  },
  {
    rule: "NC-03",
    name: "base alone",
    kind: "intermediate",
    mutate: (parts) =>
      setExtension(parts, "nameConstraints", nameConstraints([email("example.org")]), true),
  },
  {
    rule: "NC-04",
    name: "a plain name, and the empty one",
    kind: "intermediate",
    mutate: (parts) =>
      setExtension(
        parts,
        "nameConstraints",
        nameConstraints([dns("xn--bcher-kva.example")], [dns("")]),
        true,
      ),
  },
  {
    rule: "NC-05",
    name: "a network of either family",
    kind: "intermediate",
    mutate: (parts) =>
      setExtension(
        parts,
        "nameConstraints",
        nameConstraints([
          ip(10, 0, 0, 0, 255, 192, 0, 0),
          ip(...hex(`20010db8${"00".repeat(12)}ffffffff${"00".repeat(12)}`)),
        ]),
        true,
      ),
  },
  ...(
    [
      [
        "the base itself and below it",
        nameConstraints([dns("example.org")]),
        [dns("example.org"), dns("a.b.example.org")],
      ],
      ["a wildcard below the base", nameConstraints([dns("example.org")]), [dns("*.example.org")]],
      ["capitals", nameConstraints([dns("example.org")]), [dns("WWW.Example.ORG")]],
      ["inside a network", nameConstraints([ip(10, 0, 0, 0, 255, 0, 0, 0)]), [ip(10, 1, 2, 3)]],
      [
        "beside what is excluded",
        nameConstraints([], [dns("evil.example")]),
        [dns("notevil.example")],
      ],
      [
        "a wildcard that cannot reach what is excluded",
        nameConstraints([], [dns("a.b.example")]),
        [dns("*.example")],
      ],
    ] as const
  ).map(([what, value, names]): Row => ({
    rule: "NC-08",
    name: what,
    kind: "server",
    under: constrained(value),
    mutate: (parts) => setNames(parts, ...names),
  })),
  {
    rule: "NC-08",
    name: "mailbox, host and URI within",
    kind: "client",
    under: constrained(nameConstraints([email("example.org"), uri("trust.example")])),
    mutate: (parts) =>
      setNames(parts, email("alice@example.org"), uri("spiffe://trust.example/ns/a")),
  },
  {
    rule: "NC-08",
    name: "a subject within, whatever its string types",
    kind: "client",
    under: constrained(
      nameConstraints([element(0xa4, name(["O", "EXAMPLE", Tag.printableString]))]),
    ),
  },
  {
    rule: "NC-09",
    name: "a type that is not mentioned is unrestricted",
    kind: "server",
    under: constrained(nameConstraints([dns("example.org")])),
    mutate: (parts) => setNames(parts, dns("example.org"), ip(192, 0, 2, 1)),
  },

  { rule: "SRV-03", name: "critical with an empty subject", kind: "server" },
  {
    rule: "SRV-03",
    name: "not critical with a subject",
    kind: "peer",
    mutate: (parts) => setSubject(parts, name(["O", "Example"]), dns("www.example.org")),
  },
  {
    rule: "SRV-06",
    name: "a common name that is a dNSName",
    kind: "server",
    mutate: (parts) => setSubject(parts, commonName, dns("www.example.org")),
  },
  {
    rule: "SRV-06",
    name: "an IPv6 address in RFC 5952 text",
    kind: "server",
    mutate: (parts) =>
      setSubject(
        parts,
        name(["CN", "2001:db8::1"]),
        ip(...hex("20010db8000000000000000000000001")),
      ),
  },
  { rule: "SRV-08", name: "serverAuth", kind: "server" },
  { rule: "SRV-08", name: "serverAuth and clientAuth", kind: "peer" },
  { rule: "SRV-09", name: "digitalSignature, critical", kind: "server" },
  {
    rule: "SRV-14",
    name: "critical with cA FALSE",
    kind: "server",
    mutate: (parts) => setExtension(parts, "basicConstraints", sequence(), true),
  },
  {
    rule: "SRV-16",
    name: "100 names, and a wildcard beside its parent and a deeper name",
    kind: "server",
    mutate: (parts) =>
      setNames(
        parts,
        dns("*.example.org"),
        dns("example.org"),
        dns("a.b.example.org"),
        ...Array.from({ length: 97 }, (_, n) => dns(`h${n}.example.com`)),
      ),
  },

  { rule: "CLI-01", name: "clientAuth", kind: "client" },
  { rule: "CLI-02", name: "digitalSignature, critical", kind: "client" },
  { rule: "CLI-03", name: "a mailbox", kind: "client" },
  {
    rule: "CLI-03",
    name: "one SPIFFE ID and no subject",
    kind: "client",
    mutate: (parts) => setSubject(parts, name(), uri("spiffe://trust.example/ns/a")),
  },
  {
    rule: "CLI-03",
    name: "a UPN where the profile says so",
    kind: "client",
    context: { clientNames: ["upn"] },
    mutate: (parts) => setNames(parts, upn),
  },
  {
    rule: "CLI-03",
    name: "a subject without SAN",
    kind: "client",
    mutate: (parts) => removeExtension(parts, "subjectAltName"),
  },
  {
    rule: "CLI-04",
    name: "a dNSName where the profile says so",
    kind: "client",
    context: { clientNames: ["dns", "ip"] },
    mutate: (parts) => setNames(parts, dns("laptop.example.org"), ip(192, 0, 2, 1)),
  },
  { rule: "CLI-05", name: "an ASCII mailbox", kind: "client" },
  {
    rule: "CLI-05",
    name: "another mailbox as SmtpUTF8Mailbox",
    kind: "client",
    mutate: (parts) => setNames(parts, utf8Mailbox),
  },
  {
    rule: "CLI-06",
    name: "AKI and the CDP of its scope",
    kind: "client",
    context: { crlUrl: CRL_URL },
  },
  { rule: "CLI-07", name: "an issuer without purposes", kind: "client" },

  {
    rule: "DN-03",
    name: "an assigned code",
    kind: "client",
    mutate: (parts) => setSubject(parts, name(["C", "DE"], ["CN", "Alice"])),
  },
  {
    rule: "DN-04",
    name: "IA5String and PrintableString",
    kind: "client",
    mutate: (parts) =>
      setSubject(
        parts,
        name(["DC", "example"], ["serialNumber", "42"], ["emailAddress", "a@example.org"]),
      ),
  },
  {
    rule: "DN-06",
    name: "64 characters of two octets each",
    kind: "client",
    mutate: (parts) => setSubject(parts, name(["CN", "é".repeat(64)])),
  },
  {
    rule: "DN-08",
    name: "NFC",
    kind: "client",
    mutate: (parts) => setSubject(parts, name(["CN", "Jürg Żółć 山田"])),
  },
];

const refused: readonly RefusedRow[] = [
  {
    rule: "CRT-01",
    name: "no version",
    kind: "server",
    mutate: (parts) => {
      parts.version = noBytes;
    },
  },
  {
    rule: "CRT-01",
    name: "v2",
    kind: "server",
    mutate: (parts) => {
      parts.version = element(0xa0, integer(1));
    },
  },
  { rule: "CRT-02", name: "zero", kind: "server", mutate: serial("00") },
  { rule: "CRT-02", name: "negative", kind: "server", mutate: serial("80") },
  { rule: "CRT-02", name: "a needless pad", kind: "server", mutate: serial("007f") },
  { rule: "CRT-02", name: "21 octets", kind: "server", mutate: serial(`00${"ff".repeat(20)}`) },
  { rule: "CRT-02", name: "no octet", kind: "server", mutate: serial("") },
  {
    rule: "CRT-04",
    name: "a serial number in use",
    kind: "server",
    context: { issuedSerials: () => true },
  },
  {
    rule: "CRT-05",
    name: "the same name in another string type",
    kind: "server",
    mutate: (parts) => {
      parts.issuer = name(["O", "Example", Tag.printableString], ["CN", "Example Issuing"]);
    },
  },
  {
    rule: "CRT-06",
    name: "SHA-256 by a P-384 key",
    kind: "server",
    under: issuer(undefined, keys.p384),
    mutate: (parts) => {
      parts.signature = algorithms["P-256"];
    },
  },
  {
    rule: "CRT-06",
    name: "SHA-1",
    kind: "server",
    mutate: (parts) => {
      parts.signature = hex("300906072a8648ce3d0401");
    },
  },
  {
    rule: "CRT-06",
    name: "ECDSA with NULL parameters",
    kind: "server",
    mutate: (parts) => {
      parts.signature = hex("300c06082a8648ce3d0403020500");
    },
  },
  {
    rule: "CRT-06",
    name: "RSA without NULL parameters",
    kind: "server",
    under: issuer(undefined, keys.rsa),
    mutate: (parts) => {
      parts.signature = hex("300b06092a864886f70d01010b");
    },
  },
  {
    rule: "CRT-06",
    name: "another outer algorithm",
    kind: "server",
    sign: (tbs) => signed(tbs, keys.issuing, algorithms["P-384"]),
  },
  {
    rule: "CRT-07",
    name: "another key's signature",
    kind: "server",
    sign: (tbs) => signed(tbs, keys.other),
  },
  {
    rule: "CRT-07",
    name: "not the approved TBS",
    kind: "server",
    sign: (tbs) => signed(tbs, keys.issuing),
    approvedTbs: hex("3000"),
  },
  {
    rule: "CRT-07",
    name: "unused bits in the signature",
    kind: "server",
    sign: (tbs) => sequence(tbs, keys.issuing.signature, bitString(hex("3000"), 1)),
  },
  {
    rule: "CRT-08",
    name: "a subjectUniqueID",
    kind: "server",
    mutate: (parts) => {
      parts.uniqueIdentifiers = element(0x82, hex("00ff"));
    },
  },
  ...(
    [
      ["without seconds", Tag.utcTime, "2701010000Z"],
      ["an offset", Tag.utcTime, "270101000000+0000"],
      ["a fraction", Tag.generalizedTime, "20270101000000.5Z"],
      ["GeneralizedTime before 2050", Tag.generalizedTime, "20270101000000Z"],
      ["30 February", Tag.utcTime, "270230000000Z"],
      ["hour 24", Tag.utcTime, "270101240000Z"],
      ["a leap second", Tag.utcTime, "270101000060Z"],
      ["another type", Tag.ia5String, "270101000000Z"],
    ] as const
  ).map(([what, tag, text]): RefusedRow => ({
    rule: "CRT-09",
    name: what,
    kind: "server",
    mutate: (parts) => {
      parts.notAfter = element(tag, ascii(text));
    },
  })),
  {
    rule: "CRT-10",
    name: "a UTCTime of the year 50, which is 1950",
    kind: "root",
    mutate: (parts) => {
      parts.notAfter = element(Tag.utcTime, ascii("500101000000Z"));
    },
  },
  {
    rule: "CRT-09",
    name: "no expiry where nobody meant it",
    kind: "root",
    mutate: (parts) => {
      parts.notAfter = element(Tag.generalizedTime, ascii("99991231235959Z"));
    },
  },
  {
    rule: "CRT-10",
    name: "notBefore at notAfter",
    kind: "server",
    mutate: (parts) => {
      parts.notAfter = parts.notBefore;
    },
  },
  {
    rule: "CRT-10",
    name: "90 days and a second",
    kind: "server",
    context: { maximumLifetime: 90 * 86_400 },
  },
  {
    rule: "CRT-11",
    name: "a second after the issuer",
    kind: "server",
    mutate: (parts) => {
      parts.notAfter = time(new Date(days(1825).getTime() + 1000));
    },
  },
  {
    rule: "CRT-11",
    name: "a second before the issuer",
    kind: "server",
    mutate: (parts) => {
      parts.notBefore = time(new Date(days(-5).getTime() - 1000));
    },
  },
  {
    rule: "CRT-12",
    name: "keyUsage twice",
    kind: "server",
    mutate: (parts) => {
      parts.extensions["again"] = parts.extensions["keyUsage"];
    },
  },
  {
    rule: "CRT-12",
    name: "an extension of the profile twice",
    kind: "server",
    context: { extensions: [{ oid: oids.tlsFeature, critical: false }] },
    mutate: (parts) => {
      setExtension(parts, "tlsFeature", sequence(integer(5)));
      parts.extensions["again"] = parts.extensions["tlsFeature"];
    },
  },
  {
    rule: "CRT-12",
    name: "an empty list",
    kind: "server",
    also: ["CRT-16", "SRV-03", "SRV-08"],
    mutate: (parts) => {
      parts.extensionField = element(0xa3, sequence());
    },
  },
  {
    rule: "CRT-13",
    name: "critical FALSE",
    kind: "server",
    mutate: (parts) =>
      setExtension(parts, "extKeyUsage", extKeyUsage(purposes.serverAuth), hex("010100")),
  },
  {
    rule: "CRT-13",
    name: "critical TRUE as 01",
    kind: "server",
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(0), hex("010101")),
  },
  {
    rule: "CRT-13",
    name: "cA FALSE",
    kind: "server",
    mutate: (parts) => setExtension(parts, "basicConstraints", sequence(hex("010100")), true),
  },
  {
    rule: "CRT-14",
    name: "trailing zero bits",
    kind: "server",
    mutate: (parts) => setExtension(parts, "keyUsage", bitString(hex("80"), 0), true),
  },
  {
    rule: "CRT-14",
    name: "no bit",
    kind: "client",
    mutate: (parts) => setExtension(parts, "keyUsage", bitString(noBytes, 0), true),
  },
  {
    rule: "CRT-14",
    name: "one zero octet",
    kind: "server",
    mutate: (parts) => setExtension(parts, "keyUsage", bitString(hex("00"), 7), true),
  },
  {
    rule: "CRT-15",
    name: "pathLen without cA",
    kind: "server",
    mutate: (parts) => setExtension(parts, "basicConstraints", sequence(integer(0)), true),
  },
  {
    rule: "CRT-15",
    name: "pathLen without keyCertSign",
    kind: "intermediate",
    also: ["ICA-03"],
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(6), true),
  },
  {
    rule: "CRT-16",
    name: "another identifier",
    kind: "server",
    mutate: (parts) =>
      setExtension(parts, "authorityKeyIdentifier", authorityKeyIdentifier(keys.other.identifier)),
  },
  {
    rule: "CRT-16",
    name: "critical",
    kind: "client",
    mutate: (parts) =>
      setExtension(
        parts,
        "authorityKeyIdentifier",
        authorityKeyIdentifier(keys.issuing.identifier),
        true,
      ),
  },
  {
    rule: "CRT-16",
    name: "issuer and serial number",
    kind: "server",
    mutate: (parts) =>
      setExtension(
        parts,
        "authorityKeyIdentifier",
        sequence(
          element(0x80, keys.issuing.identifier),
          element(0xa1, element(0xa4, rootSubject)),
          element(0x82, hex("01")),
        ),
      ),
  },
  {
    rule: "CRT-16",
    name: "missing",
    kind: "server",
    mutate: (parts) => removeExtension(parts, "authorityKeyIdentifier"),
  },
  {
    rule: "CRT-16",
    name: "a root whose AKI is not its SKI",
    kind: "root",
    mutate: (parts) =>
      setExtension(parts, "authorityKeyIdentifier", authorityKeyIdentifier(keys.other.identifier)),
  },
  {
    rule: "CRT-17",
    name: "an SKI of another key",
    kind: "intermediate",
    context: { keyIdentifierOwner: () => keys.other.spkiDigest },
  },
  {
    rule: "CRT-17",
    name: "the SKI of the CA above",
    kind: "intermediate",
    also: ["CRT-18"],
    mutate: (parts) =>
      setExtension(parts, "subjectKeyIdentifier", octetString(keys.root.identifier)),
  },
  {
    rule: "CRT-17",
    name: "critical",
    kind: "intermediate",
    mutate: (parts) =>
      setExtension(parts, "subjectKeyIdentifier", octetString(keys.sub.identifier), true),
  },
  {
    rule: "CRT-18",
    name: "SHA-1 where the profile says RFC 7093",
    kind: "intermediate",
    mutate: (parts) =>
      setExtension(parts, "subjectKeyIdentifier", octetString(keys.sub.sha1Identifier)),
  },
  {
    rule: "CRT-19",
    name: "bytes after the extensions",
    kind: "server",
    mutate: (parts) => {
      parts.trailing = hex("0500");
    },
  },
  {
    rule: "CRT-19",
    name: "bytes after an extension's value",
    kind: "server",
    mutate: (parts) =>
      setExtension(parts, "subjectAltName", concat(sequence(dns("a.example")), hex("00")), true),
  },
  {
    rule: "CRT-19",
    name: "a BOOLEAN of two octets",
    kind: "server",
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(0), hex("0102ffff")),
  },
  {
    rule: "CRT-19",
    name: "padding that is not zero",
    kind: "server",
    mutate: (parts) => setExtension(parts, "keyUsage", hex("03020781"), true),
  },
  {
    rule: "CRT-19",
    name: "an iPAddress of five octets",
    kind: "server",
    mutate: (parts) => setNames(parts, ip(1, 2, 3, 4, 5)),
  },
  {
    rule: "CRT-19",
    name: "a dNSName that is not ASCII",
    kind: "server",
    mutate: (parts) => setNames(parts, element(0x82, hex("c3bc2e6368"))),
  },
  {
    rule: "CRT-19",
    name: "an empty extKeyUsage",
    kind: "client",
    mutate: (parts) => setExtension(parts, "extKeyUsage", sequence()),
  },
  {
    rule: "CRT-19",
    name: "an OID arc that is not minimal",
    kind: "server",
    mutate: (parts) =>
      setExtension(parts, "extKeyUsage", sequence(element(Tag.objectIdentifier, hex("2b8001")))),
  },
  {
    rule: "CRT-19",
    name: "a subject that is not UTF-8",
    kind: "client",
    mutate: (parts) => {
      parts.subject = sequence(
        element(Tag.set, sequence(objectIdentifier("2.5.4.3"), element(Tag.utf8String, hex("ff")))),
      );
    },
  },
  {
    rule: "CRT-19",
    name: "a multi-valued RDN out of order",
    kind: "client",
    mutate: (parts) => {
      const attribute = (oid: string) =>
        sequence(objectIdentifier(oid), element(Tag.utf8String, ascii("a")));
      parts.subject = sequence(element(Tag.set, attribute("2.5.4.11"), attribute("2.5.4.3")));
    },
  },
  {
    rule: "CRT-19",
    name: "a PrintableString with an at sign",
    kind: "client",
    mutate: (parts) => setSubject(parts, name(["O", "a@b", Tag.printableString])),
  },
  {
    rule: "CRT-19",
    name: "a key with unused bits",
    kind: "server",
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = sequence(
        hex("301306072a8648ce3d020106082a8648ce3d030107"),
        bitString(leafPoint, 1),
      );
    },
  },
  {
    rule: "CRT-19",
    name: "a listed extension that is not DER",
    kind: "server",
    context: { extensions: [{ oid: oids.tlsFeature, critical: false }] },
    mutate: (parts) => setExtension(parts, "tlsFeature", hex("3003010105")),
  },
  {
    rule: "CRT-19",
    name: "a certificate with bytes after it",
    kind: "server",
    sign: (tbs) => concat(signed(tbs, keys.issuing), hex("00")),
  },
  {
    rule: "CRT-20",
    name: "an extension that no profile lists",
    kind: "server",
    mutate: (parts) => setExtension(parts, "tlsFeature", sequence(integer(5))),
  },
  {
    rule: "CRT-20",
    name: "critical, unlike in the profile",
    kind: "server",
    context: { extensions: [{ oid: oids.tlsFeature, critical: false }] },
    mutate: (parts) => setExtension(parts, "tlsFeature", sequence(integer(5)), true),
  },
  {
    rule: "CRT-20",
    name: "a critical authorityInfoAccess",
    kind: "server",
    mutate: (parts) =>
      setExtension(parts, "authorityInfoAccess", accessDescriptions("http://a.example/"), true),
  },
  {
    rule: "CRT-19",
    name: "an empty SAN of a CA",
    kind: "intermediate",
    mutate: (parts) => setNames(parts),
  },
  {
    rule: "CRT-20",
    name: "another value than the profile's",
    kind: "server",
    context: {
      extensions: [{ oid: oids.tlsFeature, critical: false, value: sequence(integer(5)) }],
    },
    mutate: (parts) => setExtension(parts, "tlsFeature", sequence(integer(17))),
  },
  ...(
    [
      ["subject", { subject: commonName }],
      ["subjectPublicKeyInfo", { subjectPublicKeyInfo: keys.other.spki }],
      ["serialNumber", { serialNumber: hex("01") }],
      ["notBefore", { notBefore: days(-1) }],
      ["notAfter", { notAfter: days(91) }],
      ["a name less", { names: [{ kind: "dns", value: "www.example.org" }] }],
      [
        "another name",
        {
          names: [
            { kind: "dns", value: "www.example.org" },
            { kind: "dns", value: "example.com" },
          ],
        },
      ],
      [
        "one name twice",
        {
          names: [
            { kind: "dns", value: "example.org" },
            { kind: "dns", value: "example.org" },
          ],
        },
      ],
      [
        "a name of another kind",
        {
          names: [
            { kind: "dns", value: "www.example.org" },
            { kind: "uri", value: "example.org" },
          ],
        },
      ],
      ["keyUsage", { keyUsage: ["digitalSignature", "keyAgreement"] }],
      ["extKeyUsage", { extKeyUsage: [purposes.serverAuth, purposes.clientAuth] }],
      ["basicConstraints", { basicConstraints: { cA: true } }],
      ["the CDP", { crlUrl: "http://pki.example.org/crl/other.crl" }],
      ["caIssuers", { caIssuersUrl: "http://pki.example.org/other.cer" }],
    ] as const
  ).map(([what, requested]): RefusedRow => ({
    rule: "CRT-21",
    name: `${what} was asked for otherwise`,
    kind: "server",
    context: { requested },
  })),
  {
    rule: "CRT-22",
    name: "an issuer that is no CA",
    kind: "server",
    under: issuer((parts) => removeExtension(parts, "basicConstraints")),
  },
  {
    rule: "CRT-22",
    name: "an issuer without keyCertSign",
    kind: "server",
    under: issuer((parts) => setExtension(parts, "keyUsage", keyUsage(6), true)),
  },
  {
    rule: "CRT-22",
    name: "an expired issuer",
    kind: "server",
    context: { now: days(1826) },
  },
  { rule: "CRT-22", name: "a revoked issuer", kind: "server", context: { issuerRevoked: true } },
  { rule: "CRT-22", name: "no room for a CA", kind: "intermediate", under: issuing },
  {
    rule: "CRT-22",
    name: "no room for the issuer itself",
    kind: "server",
    under: (() => {
      const tight = rootAuthority(keys.root, rootSubject, (parts) =>
        setExtension(parts, "basicConstraints", sequence(booleanTrue, integer(0)), true),
      );
      const middle = intermediateAuthority(tight, keys.other, name(["CN", "Middle"]));
      return intermediateAuthority(middle, keys.issuing, issuingSubject);
    })(),
  },
  {
    rule: "CRT-22",
    name: "a purpose that the path has not",
    kind: "peer",
    under: serverOnly,
  },
  {
    rule: "CRT-22",
    name: "a chain that ends in the air",
    kind: "server",
    under: { ...issuing, chain: [] },
  },
  {
    rule: "CRT-22",
    name: "a chain whose signature another key made",
    kind: "server",
    under: { ...issuing, chain: [rootAuthority(keys.other, rootSubject).certificate] },
  },
  {
    rule: "CRT-22",
    name: "a path limit that cannot be read",
    kind: "server",
    under: issuer((parts) => setExtension(parts, "nameConstraints", hex("3003a00102"), true)),
  },

  {
    rule: "KEY-01",
    name: "id-RSASSA-PSS",
    kind: "server",
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = spkiOf(
        hex("300b06092a864886f70d01010a"),
        keyBits(keys.rsa.spki),
      );
    },
  },
  {
    rule: "KEY-01",
    name: "secp256k1",
    kind: "server",
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = spkiOf(hex("301006072a8648ce3d020106052b8104000a"), leafPoint);
    },
  },
  {
    rule: "KEY-01",
    name: "RSA without NULL",
    kind: "server",
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = spkiOf(
        hex("300b06092a864886f70d010101"),
        keyBits(keys.rsa.spki),
      );
    },
  },
  ...(
    [
      ["1024 bits", (1n << 1023n) + 1n, "M"],
      ["2047 bits", rsaModulus >> 1n, "M"],
      ["2050 bits", rsaModulus << 2n, "M"],
      ["4104 bits", (1n << 4103n) + 1n, "P"],
    ] as const
  ).map(([what, modulus, level]): RefusedRow => ({
    rule: "KEY-02",
    name: what,
    level,
    kind: "server",
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = rsaSpki(modulus, 65_537n);
    },
  })),
  ...(
    [
      ["1", 1n, "M"],
      ["an even one", 65_536n, "M"],
      ["3", 3n, "P"],
      ["another prime", 65_539n, "P"],
    ] as const
  ).map(([what, exponent, level]): RefusedRow => ({
    rule: "KEY-03",
    name: `exponent ${what}`,
    level,
    kind: "server",
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = rsaSpki(rsaModulus, exponent);
    },
  })),
  {
    rule: "KEY-04",
    name: "a factor below 752",
    kind: "server",
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = rsaSpki(rsaModulus - (rsaModulus % 751n), 65_537n);
    },
  },
  {
    rule: "KEY-04",
    name: "a square",
    kind: "server",
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = rsaSpki(
        generatePrimeSync(1024, { bigint: true }) ** 2n,
        65_537n,
      );
    },
  },
  ...(
    [
      ["compressed", ecPoint("P-256", concat(hex("02"), leafPoint.subarray(1, 33)))],
      ["at infinity", ecPoint("P-256", hex("00"))],
      [
        "off the curve",
        ecPoint(
          "P-256",
          Uint8Array.from(leafPoint, (octet, i) => (i === 64 ? octet ^ 1 : octet)),
        ),
      ],
      [
        "beyond the field",
        ecPoint(
          "P-256",
          Uint8Array.from(leafPoint, (octet, i) => (i > 0 && i <= 32 ? 0xff : octet)),
        ),
      ],
      [
        "off P-384",
        ecPoint(
          "P-384",
          Uint8Array.from(keyBits(keys.p384.spki), (octet, i) => (i === 96 ? octet ^ 1 : octet)),
        ),
      ],
      [
        "off P-521",
        ecPoint(
          "P-521",
          Uint8Array.from(keyBits(keys.p521.spki), (octet, i) => (i === 132 ? octet ^ 1 : octet)),
        ),
      ],
      ["of another curve", ecPoint("P-384", leafPoint)],
      [
        "with parameters spelled out",
        spkiOf(sequence(objectIdentifier("1.2.840.10045.2.1"), sequence(integer(1))), leafPoint),
      ],
    ] as const
  ).map(([what, spki]): RefusedRow => ({
    rule: "KEY-09",
    name: `a point ${what}`,
    kind: "server",
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = spki;
    },
  })),
  {
    rule: "KEY-11",
    name: "the issuer's own key",
    kind: "server",
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = keys.issuing.spki;
    },
  },
  {
    rule: "KEY-11",
    name: "a CA key in a leaf",
    kind: "client",
    context: { caKeys: new Set([keys.leaf.spkiDigest]) },
  },
  {
    rule: "KEY-11",
    name: "a leaf key in a CA",
    kind: "intermediate",
    context: { leafKeys: (digest) => digest === keys.sub.spkiDigest },
  },
  {
    rule: "KEY-13",
    name: "Ed25519 where the profile does not allow it",
    kind: "server",
    context: { ed25519: false },
    mutate: (parts) => {
      parts.subjectPublicKeyInfo = keys.ed25519.spki;
    },
  },

  {
    rule: "ROOT-01",
    name: "another issuer",
    kind: "root",
    mutate: (parts) => {
      parts.issuer = issuingSubject;
    },
  },
  {
    rule: "ROOT-01",
    name: "signed by another key",
    kind: "root",
    sign: (tbs) => signed(tbs, keys.other),
  },
  {
    rule: "ROOT-04",
    name: "no basicConstraints",
    kind: "root",
    mutate: (parts) => removeExtension(parts, "basicConstraints"),
  },
  {
    rule: "ROOT-04",
    name: "not critical",
    kind: "root",
    mutate: (parts) => setExtension(parts, "basicConstraints", sequence(booleanTrue)),
  },
  {
    rule: "ROOT-04",
    name: "a pathLen",
    level: "S",
    kind: "root",
    mutate: (parts) =>
      setExtension(parts, "basicConstraints", sequence(booleanTrue, integer(1)), true),
  },
  {
    rule: "ROOT-05",
    name: "digitalSignature without OCSP",
    kind: "root",
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(0, 5, 6), true),
  },
  {
    rule: "ROOT-05",
    name: "no cRLSign",
    kind: "root",
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(5), true),
  },
  {
    rule: "ROOT-05",
    name: "not critical",
    kind: "root",
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(5, 6)),
  },
  {
    rule: "ROOT-05",
    name: "missing",
    kind: "root",
    mutate: (parts) => removeExtension(parts, "keyUsage"),
  },
  {
    rule: "ROOT-06",
    name: "missing",
    kind: "root",
    mutate: (parts) => removeExtension(parts, "subjectKeyIdentifier"),
  },
  {
    rule: "ROOT-07",
    name: "missing",
    kind: "root",
    mutate: (parts) => removeExtension(parts, "authorityKeyIdentifier"),
  },
  {
    rule: "ROOT-09",
    name: "a CDP",
    kind: "root",
    mutate: (parts) => setExtension(parts, "cRLDistributionPoints", distributionPoints(CRL_URL)),
  },
  {
    rule: "ROOT-10",
    name: "an empty subject",
    kind: "root",
    mutate: (parts) => {
      parts.subject = name();
      parts.issuer = name();
    },
  },
  {
    rule: "ROOT-11",
    name: "a name that was used",
    kind: "root",
    context: { rootNames: new Set([Buffer.from(rootSubject).toString("hex")]) },
  },

  {
    rule: "ICA-01",
    name: "no SKI",
    kind: "intermediate",
    mutate: (parts) => removeExtension(parts, "subjectKeyIdentifier"),
  },
  {
    rule: "ICA-01",
    name: "no AKI",
    kind: "intermediate",
    mutate: (parts) => removeExtension(parts, "authorityKeyIdentifier"),
  },
  {
    rule: "ICA-02",
    name: "not critical",
    kind: "intermediate",
    mutate: (parts) => setExtension(parts, "basicConstraints", sequence(booleanTrue, integer(0))),
  },
  {
    rule: "ICA-02",
    name: "missing",
    kind: "intermediate",
    mutate: (parts) => removeExtension(parts, "basicConstraints"),
  },
  {
    rule: "ICA-02",
    name: "no pathLen",
    level: "P",
    kind: "intermediate",
    mutate: (parts) => setExtension(parts, "basicConstraints", sequence(booleanTrue), true),
  },
  {
    rule: "ICA-02",
    name: "the issuer's own pathLen",
    level: "P",
    kind: "intermediate",
    under: roomy,
    mutate: (parts) =>
      setExtension(parts, "basicConstraints", sequence(booleanTrue, integer(2)), true),
  },
  {
    rule: "ICA-03",
    name: "a leaf's bits beside its own",
    kind: "intermediate",
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(2, 5, 6), true),
  },
  {
    rule: "ICA-07",
    name: "no AIA",
    kind: "intermediate",
    mutate: (parts) => removeExtension(parts, "authorityInfoAccess"),
  },
  {
    rule: "ICA-07",
    name: "ldap",
    kind: "intermediate",
    mutate: (parts) =>
      setExtension(parts, "authorityInfoAccess", accessDescriptions("ldap://pki.example.org/")),
  },
  {
    rule: "ICA-08",
    name: "an empty subject",
    kind: "intermediate",
    mutate: (parts) => {
      parts.subject = name();
    },
  },
  {
    rule: "ICA-12",
    name: "a purpose that the parent has not",
    kind: "intermediate",
    under: issuer((parts) => {
      setExtension(parts, "basicConstraints", sequence(booleanTrue, integer(2)), true);
      setExtension(parts, "extKeyUsage", extKeyUsage(purposes.serverAuth));
    }),
    mutate: (parts) =>
      setExtension(parts, "extKeyUsage", extKeyUsage(purposes.serverAuth, purposes.clientAuth)),
  },
  {
    rule: "ICA-12",
    name: "every purpose under a parent with few",
    kind: "intermediate",
    under: issuer((parts) => {
      setExtension(parts, "basicConstraints", sequence(booleanTrue, integer(2)), true);
      setExtension(parts, "extKeyUsage", extKeyUsage(purposes.serverAuth));
    }),
  },
  {
    rule: "ICA-13",
    name: "a key of no ceremony",
    kind: "intermediate",
    context: { ceremonyKeys: new Set() },
  },

  {
    rule: "NC-01",
    name: "in a leaf",
    kind: "server",
    mutate: (parts) =>
      setExtension(parts, "nameConstraints", nameConstraints([dns("example.org")]), true),
  },
  {
    rule: "NC-01",
    name: "empty",
    kind: "intermediate",
    mutate: (parts) => setExtension(parts, "nameConstraints", sequence(), true),
  },
  {
    rule: "NC-02",
    name: "not critical",
    kind: "intermediate",
    mutate: (parts) =>
      setExtension(parts, "nameConstraints", nameConstraints([dns("example.org")])),
  },
  {
    rule: "NC-03",
    name: "minimum 0 encoded",
    kind: "intermediate",
    mutate: (parts) =>
      setExtension(
        parts,
        "nameConstraints",
        nameConstraints([concat(dns("example.org"), hex("800100"))]),
        true,
      ),
  },
  {
    rule: "NC-03",
    name: "a maximum",
    kind: "intermediate",
    mutate: (parts) =>
      setExtension(
        parts,
        "nameConstraints",
        nameConstraints([concat(dns("example.org"), hex("810101"))]),
        true,
      ),
  },
  ...([".example.org", "*.example.org", "Example.org"] as const).map((base): RefusedRow => ({
    rule: "NC-04",
    name: base,
    kind: "intermediate",
    mutate: (parts) => setExtension(parts, "nameConstraints", nameConstraints([dns(base)]), true),
  })),
  ...(
    [
      ["four octets", "M", [10, 0, 0, 0]],
      ["a mask with a gap", "P", [10, 0, 0, 0, 255, 0, 255, 0]],
      ["host bits", "P", [10, 0, 0, 1, 255, 0, 0, 0]],
    ] as const
  ).map(([what, level, octets]): RefusedRow => ({
    rule: "NC-05",
    name: what,
    level,
    kind: "intermediate",
    mutate: (parts) =>
      setExtension(parts, "nameConstraints", nameConstraints([ip(...octets)]), true),
  })),
  ...(
    [
      ["a name beside the base", nameConstraints([dns("example.org")]), [dns("badexample.org")]],
      [
        "one name of two",
        nameConstraints([dns("example.org")]),
        [dns("example.org"), dns("example.com")],
      ],
      [
        "a wildcard above the base",
        nameConstraints([dns("www.example.org")]),
        [dns("*.example.org")],
      ],
      ["an excluded name", nameConstraints([], [dns("example.org")]), [dns("www.example.org")]],
      [
        "a wildcard that reaches what is excluded",
        nameConstraints([], [dns("secret.example.org")]),
        [dns("*.example.org")],
      ],
      ["outside the network", nameConstraints([ip(10, 0, 0, 0, 255, 0, 0, 0)]), [ip(11, 0, 0, 1)]],
      [
        "the other address family",
        nameConstraints([ip(10, 0, 0, 0, 255, 0, 0, 0)]),
        [ip(...hex("20010db8000000000000000000000001"))],
      ],
      [
        "an excluded range that cannot be read",
        nameConstraints([], [ip(10, 0, 0, 0, 8)]),
        [ip(192, 0, 2, 1)],
      ],
      [
        "below an excluded name with a final dot",
        nameConstraints([], [dns("example.org.")]),
        [dns("www.example.org")],
      ],
      ["no names at all are permitted", nameConstraints([], [dns("")]), [dns("example.org")]],
    ] as const
  ).map(([what, value, names]): RefusedRow => ({
    rule: "NC-08",
    name: what,
    kind: "server",
    under: constrained(value),
    mutate: (parts) => setNames(parts, ...names),
  })),
  {
    rule: "NC-08",
    name: "permitted by the issuer, not by the root: the chain counts as a whole",
    kind: "server",
    under: (() => {
      const narrow = rootAuthority(keys.root, rootSubject, (parts) =>
        setExtension(parts, "nameConstraints", nameConstraints([dns("example.com")]), true),
      );
      return intermediateAuthority(narrow, keys.issuing, issuingSubject, (parts) =>
        setExtension(parts, "nameConstraints", nameConstraints([dns("example.org")]), true),
      );
    })(),
    mutate: (parts) => setNames(parts, dns("www.example.org")),
  },
  {
    rule: "NC-08",
    name: "a mailbox of another host",
    kind: "client",
    under: constrained(nameConstraints([email("example.com")])),
  },
  {
    rule: "NC-08",
    name: "an emailAddress in the subject",
    kind: "client",
    under: constrained(nameConstraints([email("example.com")])),
    mutate: (parts) => {
      parts.subject = name(["emailAddress", "alice@example.org"]);
      removeExtension(parts, "subjectAltName");
    },
  },
  {
    rule: "NC-08",
    name: "a common name that is a host",
    kind: "client",
    under: constrained(nameConstraints([dns("example.com")])),
    mutate: (parts) => setSubject(parts, name(["CN", "laptop.example.org"])),
  },
  {
    rule: "NC-08",
    name: "a URI without a host",
    kind: "client",
    under: constrained(nameConstraints([uri("trust.example")])),
    mutate: (parts) => setNames(parts, uri("urn:uuid:7")),
  },
  {
    rule: "NC-08",
    name: "a subject elsewhere",
    kind: "client",
    under: constrained(nameConstraints([element(0xa4, name(["O", "Other"]))])),
  },
  {
    rule: "NC-08",
    name: "a constrained form that cannot be tested",
    kind: "client",
    context: { clientNames: ["upn"] },
    under: constrained(nameConstraints([upn])),
    mutate: (parts) => setNames(parts, upn),
  },

  {
    rule: "SRV-03",
    name: "no SAN",
    kind: "server",
    mutate: (parts) => removeExtension(parts, "subjectAltName"),
  },
  { rule: "SRV-03", name: "an empty SAN", kind: "server", mutate: (parts) => setNames(parts) },
  {
    rule: "SRV-03",
    name: "a mailbox",
    kind: "server",
    mutate: (parts) => setNames(parts, dns("a.example"), email("a@a.example")),
  },
  {
    rule: "SRV-03",
    name: "not critical with an empty subject",
    kind: "server",
    mutate: (parts) => setExtension(parts, "subjectAltName", sequence(dns("a.example"))),
  },
  {
    rule: "SRV-03",
    name: "critical with a subject",
    kind: "peer",
    mutate: (parts) => {
      parts.subject = name(["O", "Example"]);
    },
  },
  ...(
    [
      "",
      "a..example",
      "a.example.",
      "a b",
      "a\u0000.example",
      "*",
      "*.",
      "a.*.example",
      "w*.example",
    ] as const
  ).map((value): RefusedRow => ({
    rule: "SRV-03",
    name: `dNSName ${JSON.stringify(value)}`,
    kind: "server",
    mutate: (parts) => setNames(parts, dns(value)),
  })),
  {
    rule: "SRV-06",
    name: "a common name that is no SAN value",
    kind: "server",
    mutate: (parts) => setSubject(parts, commonName, dns("example.org")),
  },
  {
    rule: "SRV-06",
    name: "capitals",
    kind: "server",
    mutate: (parts) => setSubject(parts, name(["CN", "WWW.example.org"]), dns("www.example.org")),
  },
  {
    rule: "SRV-06",
    name: "two common names",
    kind: "server",
    mutate: (parts) =>
      setSubject(
        parts,
        name(["CN", "a.example"], ["CN", "b.example"]),
        dns("a.example"),
        dns("b.example"),
      ),
  },
  {
    rule: "SRV-06",
    name: "an IPv6 address in other text",
    kind: "server",
    mutate: (parts) =>
      setSubject(
        parts,
        name(["CN", "2001:DB8:0::1"]),
        ip(...hex("20010db8000000000000000000000001")),
      ),
  },
  {
    rule: "SRV-06",
    name: "any common name",
    level: "S",
    kind: "server",
    mutate: (parts) => setSubject(parts, commonName, dns("www.example.org")),
  },
  {
    rule: "SRV-08",
    name: "no extKeyUsage",
    kind: "server",
    mutate: (parts) => removeExtension(parts, "extKeyUsage"),
  },
  {
    rule: "SRV-08",
    name: "a peer without clientAuth",
    kind: "peer",
    mutate: (parts) => setExtension(parts, "extKeyUsage", extKeyUsage(purposes.serverAuth)),
  },
  {
    rule: "SRV-08",
    name: "anyExtendedKeyUsage",
    kind: "server",
    mutate: (parts) =>
      setExtension(parts, "extKeyUsage", extKeyUsage(purposes.serverAuth, purposes.any)),
  },
  {
    rule: "SRV-08",
    name: "codeSigning",
    kind: "server",
    mutate: (parts) =>
      setExtension(parts, "extKeyUsage", extKeyUsage(purposes.serverAuth, purposes.codeSigning)),
  },
  {
    rule: "SRV-08",
    name: "critical",
    kind: "server",
    mutate: (parts) => setExtension(parts, "extKeyUsage", extKeyUsage(purposes.serverAuth), true),
  },
  {
    rule: "SRV-09",
    name: "keyEncipherment with EC",
    kind: "server",
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(0, 2), true),
  },
  {
    rule: "SRV-09",
    name: "missing",
    kind: "server",
    mutate: (parts) => removeExtension(parts, "keyUsage"),
  },
  {
    rule: "SRV-14",
    name: "cA TRUE",
    kind: "server",
    mutate: (parts) => setExtension(parts, "basicConstraints", sequence(booleanTrue), true),
  },
  {
    rule: "SRV-14",
    name: "not critical",
    kind: "server",
    mutate: (parts) => setExtension(parts, "basicConstraints", sequence()),
  },
  {
    rule: "SRV-14",
    name: "keyCertSign",
    kind: "peer",
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(0, 5), true),
  },
  {
    rule: "SRV-14",
    name: "cRLSign",
    kind: "server",
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(0, 6), true),
  },
  {
    rule: "SRV-16",
    name: "101 names",
    kind: "server",
    mutate: (parts) =>
      setNames(parts, ...Array.from({ length: 101 }, (_, n) => dns(`h${n}.example`))),
  },
  {
    rule: "SRV-16",
    name: "a name twice, in capitals",
    kind: "server",
    mutate: (parts) => setNames(parts, dns("a.example"), dns("A.example")),
  },
  {
    rule: "SRV-16",
    name: "an address twice",
    kind: "server",
    mutate: (parts) => setNames(parts, ip(1, 2, 3, 4), ip(1, 2, 3, 4)),
  },
  {
    rule: "SRV-16",
    name: "a name that a wildcard covers",
    kind: "server",
    mutate: (parts) => setNames(parts, dns("a.example.org"), dns("*.Example.org")),
  },

  {
    rule: "CLI-01",
    name: "serverAuth beside it",
    kind: "client",
    mutate: (parts) =>
      setExtension(parts, "extKeyUsage", extKeyUsage(purposes.clientAuth, purposes.serverAuth)),
  },
  {
    rule: "CLI-01",
    name: "missing",
    kind: "client",
    mutate: (parts) => removeExtension(parts, "extKeyUsage"),
  },
  {
    rule: "CLI-02",
    name: "keyAgreement beside it",
    kind: "client",
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(0, 4), true),
  },
  {
    rule: "CLI-02",
    name: "not critical",
    kind: "client",
    mutate: (parts) => setExtension(parts, "keyUsage", keyUsage(0)),
  },
  {
    rule: "CLI-03",
    name: "a UPN where no profile says so",
    kind: "client",
    mutate: (parts) => setNames(parts, upn),
  },
  {
    rule: "CLI-03",
    name: "two URIs with a SPIFFE ID",
    kind: "client",
    mutate: (parts) => setNames(parts, uri("spiffe://a.example/x"), uri("https://b.example/")),
  },
  {
    rule: "CLI-03",
    name: "a relative URI",
    kind: "client",
    mutate: (parts) => setNames(parts, uri("/x")),
  },
  {
    rule: "CLI-03",
    name: "critical with a subject",
    kind: "client",
    mutate: (parts) =>
      setExtension(parts, "subjectAltName", sequence(email("a@example.org")), true),
  },
  {
    rule: "CLI-03",
    name: "neither subject nor SAN",
    kind: "client",
    mutate: (parts) => {
      parts.subject = name();
      removeExtension(parts, "subjectAltName");
    },
  },
  {
    rule: "CLI-04",
    name: "a dNSName",
    kind: "client",
    mutate: (parts) => setNames(parts, dns("a.example")),
  },
  {
    rule: "CLI-04",
    name: "an iPAddress",
    kind: "client",
    mutate: (parts) => setNames(parts, ip(192, 0, 2, 1)),
  },
  {
    rule: "CLI-05",
    name: "octets above 7f",
    kind: "client",
    mutate: (parts) => setNames(parts, element(0x81, hex("c3a440612e6368"))),
  },
  {
    rule: "CLI-05",
    name: "no mailbox",
    kind: "client",
    mutate: (parts) => setNames(parts, email("Alice <a@example.org>")),
  },
  {
    rule: "CLI-05",
    name: "SmtpUTF8Mailbox in ASCII",
    kind: "client",
    mutate: (parts) =>
      setNames(
        parts,
        otherName("1.3.6.1.5.5.7.8.9", element(Tag.utf8String, ascii("a@example.org"))),
      ),
  },
  {
    rule: "CLI-06",
    name: "cA TRUE",
    kind: "client",
    mutate: (parts) => setExtension(parts, "basicConstraints", sequence(booleanTrue), true),
  },
  {
    rule: "CLI-06",
    name: "no AKI",
    kind: "client",
    mutate: (parts) => removeExtension(parts, "authorityKeyIdentifier"),
  },
  {
    rule: "CLI-06",
    name: "no CDP",
    kind: "client",
    mutate: (parts) => removeExtension(parts, "cRLDistributionPoints"),
  },
  {
    rule: "CLI-06",
    name: "the CDP of another scope",
    kind: "client",
    context: { crlUrl: "http://pki.example.org/other.crl" },
  },
  { rule: "CLI-07", name: "under a CA for servers", kind: "client", under: serverOnly },

  {
    rule: "DN-03",
    name: "a code that nobody has",
    kind: "client",
    mutate: (parts) => setSubject(parts, name(["C", "XX"])),
  },
  {
    rule: "DN-03",
    name: "small letters",
    kind: "client",
    mutate: (parts) => setSubject(parts, name(["C", "ch"])),
  },
  {
    rule: "DN-03",
    name: "UTF8String",
    kind: "client",
    mutate: (parts) => setSubject(parts, name(["C", "CH", Tag.utf8String])),
  },
  {
    rule: "DN-04",
    name: "DC as UTF8String",
    kind: "client",
    mutate: (parts) => setSubject(parts, name(["DC", "example", Tag.utf8String])),
  },
  {
    rule: "DN-04",
    name: "serialNumber as UTF8String",
    kind: "client",
    mutate: (parts) => setSubject(parts, name(["serialNumber", "4", Tag.utf8String])),
  },
  {
    rule: "DN-06",
    name: "65 characters",
    kind: "client",
    mutate: (parts) => setSubject(parts, name(["CN", "a".repeat(65)])),
  },
  {
    rule: "DN-06",
    name: "a country of three",
    kind: "client",
    mutate: (parts) => setSubject(parts, name(["C", "CHE"])),
  },
  ...(["a\u0007b", "a\u200bb", "a\u202eb", "e\u0301"] as const).map((value): RefusedRow => ({
    rule: "DN-08",
    name: JSON.stringify(value).replaceAll(/[^\x20-\x7e]/g, "?"),
    kind: "client",
    mutate: (parts) => setSubject(parts, name(["CN", value])),
  })),
  {
    rule: "DN-08",
    name: "a bidirectional override in a BMPString",
    kind: "client",
    mutate: (parts) => {
      parts.subject = sequence(
        element(
          Tag.set,
          sequence(objectIdentifier("2.5.4.3"), element(Tag.bmpString, hex("0061202e0062"))),
        ),
      );
    },
  },
  {
    rule: "NC-09",
    name: "excluded wins over permitted",
    kind: "server",
    under: constrained(nameConstraints([dns("example.org")], [dns("www.example.org")])),
    mutate: (parts) => setNames(parts, dns("www.example.org")),
  },
];

/** NC-09 is how NC-08 is judged: its findings carry that id. */
const reportedAs: Partial<Record<RuleId, RuleId>> = { "NC-09": "NC-08" };

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
    const rule = reportedAs[row.rule] ?? row.rule;
    const level = row.level ?? rules[rule].level;
    expect(findings).toContainEqual(expect.objectContaining({ rule, level }));
    const others = new Set(
      findings.filter((finding) => finding.level !== "S").map((finding) => finding.rule),
    );
    others.delete(rule);
    expect([...others].toSorted()).toEqual([...(row.also ?? [])].toSorted());
    expect(refuses(findings)).toBe(level !== "S");
  });
}

/** The M and P rules of PROFILE-RULES 4B that bytes can show, written out so that none is forgotten. */
const wanted = `
  CRT-01 CRT-02 CRT-04 CRT-05 CRT-06 CRT-07 CRT-08 CRT-09 CRT-10 CRT-11 CRT-12 CRT-13 CRT-14 CRT-15 CRT-16 CRT-17
  CRT-18 CRT-19 CRT-20 CRT-21 CRT-22
  KEY-01 KEY-02 KEY-03 KEY-04 KEY-09 KEY-11 KEY-13
  ROOT-01 ROOT-04 ROOT-05 ROOT-06 ROOT-07 ROOT-09 ROOT-10 ROOT-11
  ICA-01 ICA-02 ICA-03 ICA-07 ICA-08 ICA-12 ICA-13
  NC-01 NC-02 NC-03 NC-04 NC-05 NC-08 NC-09
  SRV-03 SRV-06 SRV-08 SRV-09 SRV-14 SRV-16
  CLI-01 CLI-02 CLI-03 CLI-04 CLI-05 CLI-06 CLI-07
  DN-03 DN-04 DN-06 DN-08`
  .trim()
  .split(/\s+/);

test("every rule has a certificate that it accepts and one that it refuses", () => {
  const covered = (rows: readonly Row[]) => new Set<string>(rows.map((row) => row.rule));
  expect(wanted.filter((rule) => !covered(accepted).has(rule))).toEqual([]);
  expect(wanted.filter((rule) => !covered(refused).has(rule))).toEqual([]);
});

test("the table of rules has exactly these, and those that no bytes can show", () => {
  const listed = Object.entries(rules)
    .filter(([id, rule]) => !id.startsWith("CRL-") && rule.decides !== "elsewhere")
    .map(([id]) => id);
  expect(listed.toSorted()).toEqual(wanted.toSorted());
});

test("a certificate that is not a root is not linted without its issuer", () => {
  const tbs = tbsCertificate(serverParts(issuing, keys.leaf));
  expect(() => lintTbsCertificate(tbs, { kind: "server", now: NOW })).toThrow(TypeError);
});

test("CRT-07: one changed bit anywhere in a signed certificate is refused, and none makes the linter throw", () => {
  const context = { kind: "server", now: NOW, issuer: compiledIssuer(issuing) } as const;
  const der = signed(tbsCertificate(serverParts(issuing, keys.leaf)), keys.issuing);
  expect(refuses(lintCertificate(der, context))).toBe(false);
  for (let i = 0; i < der.length; i++) {
    const changed = Uint8Array.from(der);
    changed[i]! ^= 1 << (i % 8);
    expect(refuses(lintCertificate(changed, context)), `octet ${i}`).toBe(true);
  }
});

test("CRT-19: a certificate that is cut off anywhere is refused", () => {
  const context = { kind: "server", now: NOW, issuer: compiledIssuer(issuing) } as const;
  const der = signed(tbsCertificate(serverParts(issuing, keys.leaf)), keys.issuing);
  for (let length = 0; length < der.length; length++) {
    const findings = lintCertificate(der.subarray(0, length), context);
    expect(findings.map((finding) => finding.rule)).toEqual(["CRT-19"]);
  }
});

test("KEY-09: the point is not checked again when OpenSSL has accepted it", () => {
  const parts = serverParts(issuing, keys.leaf);
  parts.subjectPublicKeyInfo = ecPoint(
    "P-256",
    Uint8Array.from(leafPoint, (octet, i) => (i === 64 ? octet ^ 1 : octet)),
  );
  const context = { kind: "server", now: NOW, issuer: compiledIssuer(issuing) } as const;
  const tbs = tbsCertificate(parts);
  expect(lintTbsCertificate(tbs, context)).toHaveLength(1);
  expect(lintTbsCertificate(tbs, { ...context, publicKeyChecked: true })).toEqual([]);
});

test("an issuer that cannot be read at all is an error, not an issuer", () => {
  expect(() => lintIssuer(hex("3000"), [])).toThrow();
  const broken = rootAuthority(keys.root, rootSubject, (parts) => {
    parts.trailing = hex("0500");
  });
  expect(() => lintIssuer(broken.certificate, [])).toThrow(/the issuer cannot be read/);
});
