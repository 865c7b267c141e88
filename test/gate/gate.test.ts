import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { checkRoot, compileGate, refusal, type Gate, type GateParts } from "../../src/gate/gate.ts";
import { compilePolicy } from "../../src/policy/decide.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import { buildTbsCertList, type RevokedCertificate } from "../../src/x509/certificate-list.ts";
import {
  buildTbsCertificate,
  certificateTemplate,
  type CertificateFields,
} from "../../src/x509/certificate-template.ts";
import {
  DerReader,
  element,
  encodingOf,
  integer,
  objectIdentifier,
  sequence,
  Tag,
  type DerElement,
} from "../../src/x509/der.ts";
import {
  encodeDistributionPoint,
  encodeExtension,
  encodeExtKeyUsage,
  encodeKeyUsage,
} from "../../src/x509/extension.ts";
import { readIssuer } from "../../src/x509/issuer.ts";
import { emptyName, encodeName } from "../../src/x509/name.ts";
import {
  accessMethodOids,
  attributeTypeOids,
  extensionOids,
  extKeyUsageOids,
} from "../../src/x509/oid.ts";
import { serialNumberFrom } from "../../src/x509/serial-number.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import { parseCertificate } from "../../src/x509/certificate.ts";
import { DAY, softwareCa, softwareKey, testPolicy, testRequester } from "../support/software-ca.ts";

const now = new Date("2026-11-21T12:00:00Z");
const ca = softwareCa(now);
const leafKey = softwareKey("P-256");
const rsaKey = softwareKey("RSA-2048");
const gateParts: GateParts = {
  issuer: "issuing",
  certificate: ca.issuing,
  chain: [ca.root],
  policy: testPolicy(),
  caKeys: new Set([ca.rootKey.keyId, ca.issuingKey.keyId]),
};
const gate: Gate = compileGate(gateParts);
const peerGate: Gate = compileGate({
  ...gateParts,
  policy: compilePolicy(
    parsePolicy(
      `version: 1
issuers:
  issuing: { profiles: [server, client, peer], names: { dns: { allow: ["subdomains:example.test"] }, ip: { allow: ["10.0.0.0/8"] } } }
profiles:
  server: { kind: server, lifetime: { default: 30d, maximum: 90d }, keyTypes: [P-256, RSA-2048] }
  client: { kind: client, lifetime: { default: 30d, maximum: 90d }, keyTypes: [P-256] }
  peer: { kind: peer, lifetime: { default: 30d, maximum: 90d }, keyTypes: [P-256] }
`,
      "policy.yaml",
    ),
    [{ ...testRequester, profiles: ["server", "client", "peer"] }],
  ),
});

interface Leaf {
  names?: { kind: "dns" | "ip" | "email" | "uri"; value: string }[];
  subject?: Uint8Array;
  notBefore?: Date;
  notAfter?: Date;
  publicKey?: typeof leafKey.info;
  fields?: Partial<CertificateFields>;
}

function tbsOf(leaf: Leaf = {}): Uint8Array {
  const template = certificateTemplate({
    issuerCertificate: ca.issuing,
    keyUsage: ["digitalSignature"],
    extKeyUsage: [extKeyUsageOids.serverAuth],
    crlUrl: "http://127.0.0.1/crl/issuing.crl",
    caIssuersUrl: "http://127.0.0.1/ca/issuing.cer",
    subjectKeyIdentifier: false,
    ...leaf.fields,
  });
  const notBefore = leaf.notBefore ?? new Date(now.getTime() - 300_000);
  return buildTbsCertificate(template, {
    serialNumber: serialNumberFrom(randomBytes(20)),
    notBefore,
    notAfter: leaf.notAfter ?? new Date(notBefore.getTime() + 30 * DAY - 1000),
    subject: leaf.subject ?? emptyName,
    publicKey: leaf.publicKey ?? leafKey.info,
    names: leaf.names ?? [{ kind: "dns", value: "web.example.test" }],
  });
}

const asked = { profile: "server", requester: "deploy", now };

test("a leaf that the policy allows passes, and the decision names the rule", () => {
  expect(gate.checkCertificate(tbsOf(), asked)).toEqual({
    verdict: "allow",
    rule: "requesters.deploy.names.dns.allow[0]",
    warnings: [],
  });
});

test.for([
  {
    name: "a name outside the policy",
    tbs: () => tbsOf({ names: [{ kind: "dns", value: "web.example.com" }] }),
    want: { code: "name-refused", name: "web.example.com" },
  },
  {
    name: "a denied name",
    tbs: () => tbsOf({ names: [{ kind: "dns", value: "a.secret.example.test" }] }),
    want: { code: "name-refused", rule: "issuers.issuing.names.dns.deny[0]" },
  },
  {
    name: "an address outside the policy",
    tbs: () => tbsOf({ names: [{ kind: "ip", value: "192.0.2.1" }] }),
    want: { code: "name-refused", name: "192.0.2.1" },
  },
  {
    name: "one bad name among good ones",
    tbs: () =>
      tbsOf({
        names: [
          { kind: "dns", value: "a.example.test" },
          { kind: "dns", value: "b.example.com" },
        ],
      }),
    want: { code: "name-refused", name: "b.example.com" },
  },
  {
    name: "a name that is not in its canonical form",
    tbs: () => tbsOf({ names: [{ kind: "dns", value: "WEB.example.test" }] }),
    want: { code: "name-refused" },
  },
  {
    name: "a common name that is no SAN (SRV-06)",
    tbs: () => tbsOf({ subject: encodeName([{ type: "CN", value: "other.example.test" }]) }),
    want: { code: "lint-refused", rule: "SRV-06" },
  },
  {
    name: "cA TRUE",
    tbs: () => parseCertificate(ca.issuing).tbs.der,
    want: { code: "lint-refused" },
  },
  {
    name: "the issuer's own key (KEY-11)",
    // The builder refuses it too, so the key is put into the finished bytes.
    tbs: () => {
      const tbs = Buffer.from(tbsOf());
      tbs.set(ca.issuingKey.info.spki, tbs.indexOf(leafKey.info.spki));
      return tbs;
    },
    want: { code: "lint-refused", rule: "KEY-11" },
  },
  {
    name: "the key of another CA of this installation (KEY-11)",
    tbs: () => tbsOf({ publicKey: ca.rootKey.info }),
    want: { code: "lint-refused", rule: "KEY-11" },
  },
  {
    name: "extended key usage that is not the profile's (SRV-08)",
    tbs: () => tbsOf({ fields: { extKeyUsage: [extKeyUsageOids.clientAuth] } }),
    want: { code: "lint-refused", rule: "SRV-08" },
  },
  {
    name: "a lifetime beyond the profile's",
    tbs: () => tbsOf({ notAfter: new Date(now.getTime() + 91 * DAY) }),
    want: { code: "lifetime-refused", rule: "profiles.server.lifetime.maximum" },
  },
  {
    name: "a notBefore further back than the profile's backdating",
    tbs: () => tbsOf({ notBefore: new Date(now.getTime() - 3_000_000) }),
    want: { code: "lifetime-refused", rule: "profiles.server.backdate" },
  },
  {
    name: "a notBefore in the future",
    tbs: () => tbsOf({ notBefore: new Date(now.getTime() + 3_600_000) }),
    want: { code: "lifetime-refused", rule: "profiles.server.backdate" },
  },
])("a leaf with $name is refused", ({ tbs, want }) => {
  expect(gate.checkCertificate(tbs(), asked)).toMatchObject({ verdict: "refuse", ...want });
});

/** The same TBS with other extensions. */
function withExtensions(tbs: Uint8Array, change: (list: Uint8Array[]) => Uint8Array[]): Uint8Array {
  const fields = elementsOf(DerReader.whole(tbs, Tag.sequence));
  const [list] = elementsOf(DerReader.whole(fields.pop()!, 0xa3));
  const extensions = change(elementsOf(DerReader.whole(list!, Tag.sequence)));
  return sequence(...fields, element(0xa3, sequence(...extensions)));
}

function elementsOf(outer: DerElement): Uint8Array[] {
  const reader = DerReader.inside(outer);
  const elements: Uint8Array[] = [];
  while (!reader.atEnd) elements.push(encodingOf(reader.readAny()));
  return elements;
}

const is =
  (oid: string) =>
  (extension: Uint8Array): boolean =>
    Buffer.from(extension).includes(Buffer.from(objectIdentifier(oid)));

const without =
  (...oids: string[]) =>
  (list: Uint8Array[]): Uint8Array[] =>
    list.filter((extension) => !oids.some((oid) => is(oid)(extension)));

const replacing =
  (oid: string, value: Uint8Array, critical = false) =>
  (list: Uint8Array[]): Uint8Array[] =>
    list.map((extension) =>
      is(oid)(extension) ? encodeExtension({ oid, critical, value }) : extension,
    );

const adding =
  (oid: string, value: Uint8Array) =>
  (list: Uint8Array[]): Uint8Array[] => [...list, encodeExtension({ oid, critical: false, value })];

const purposes = extKeyUsageOids;
const smartcardLogon = "1.3.6.1.4.1.311.20.2.2";

test.for<{
  name: string;
  profile?: string;
  change?: (list: Uint8Array[]) => Uint8Array[];
  leaf?: Leaf;
}>([
  {
    name: "clientAuth in a server's",
    change: replacing(
      extensionOids.extKeyUsage,
      encodeExtKeyUsage([purposes.serverAuth, purposes.clientAuth]),
    ),
  },
  {
    name: "smart card logon in a server's",
    change: replacing(
      extensionOids.extKeyUsage,
      encodeExtKeyUsage([purposes.serverAuth, smartcardLogon]),
    ),
  },
  {
    name: "a third purpose in a peer's",
    profile: "peer",
    change: replacing(
      extensionOids.extKeyUsage,
      encodeExtKeyUsage([purposes.serverAuth, purposes.clientAuth, smartcardLogon]),
    ),
  },
  { name: "no purpose", change: without(extensionOids.extKeyUsage) },
  {
    name: "keyAgreement",
    change: replacing(
      extensionOids.keyUsage,
      encodeKeyUsage(["digitalSignature", "keyAgreement"]),
      true,
    ),
  },
  {
    name: "keyEncipherment with an RSA key, which the linter passes",
    leaf: {
      publicKey: rsaKey.info,
      fields: { keyUsage: ["digitalSignature", "keyEncipherment"] },
    },
  },
  {
    name: "anyPolicy",
    change: adding(
      extensionOids.certificatePolicies,
      sequence(sequence(objectIdentifier("2.5.29.32.0"))),
    ),
  },
  { name: "a subjectKeyIdentifier", leaf: { fields: { subjectKeyIdentifier: true } } },
  {
    name: "an issuerAltName",
    change: adding(extensionOids.issuerAltName, sequence(element(0x82, Buffer.from("evil.test")))),
  },
  { name: "no CDP", change: without(extensionOids.cRLDistributionPoints) },
  { name: "no AIA", change: without(extensionOids.authorityInfoAccess) },
  {
    name: "a CDP by ldap",
    change: replacing(
      extensionOids.cRLDistributionPoints,
      encodeDistributionPoint("ldap://a.example.test/crl"),
    ),
  },
  {
    name: "two CDPs",
    change: replacing(
      extensionOids.cRLDistributionPoints,
      sequence(
        ...["http://a.example.test/", "http://b.example.test/"].flatMap((url) =>
          elementsOf(DerReader.whole(encodeDistributionPoint(url), Tag.sequence)),
        ),
      ),
    ),
  },
  {
    name: "a critical CDP",
    change: replacing(
      extensionOids.cRLDistributionPoints,
      encodeDistributionPoint("http://127.0.0.1/crl/issuing.crl"),
      true,
    ),
  },
  {
    name: "an OCSP responder in the AIA",
    change: replacing(
      extensionOids.authorityInfoAccess,
      sequence(
        sequence(
          objectIdentifier(accessMethodOids.ocsp),
          element(0x86, Buffer.from("http://a.example.test/")),
        ),
      ),
    ),
  },
  {
    name: "an AKI that names another certificate too",
    change: replacing(
      extensionOids.authorityKeyIdentifier,
      sequence(
        element(0x80, readIssuer(ca.issuing).keyIdentifier),
        element(0xa1, element(0x82, Buffer.from("evil.test"))),
        element(0x82, Uint8Array.of(1)),
      ),
    ),
  },
])(
  "a leaf with $name is refused: no template writes it",
  ({ profile = "server", change, leaf }) => {
    const fields: Partial<CertificateFields> =
      profile === "peer" ? { extKeyUsage: [purposes.serverAuth, purposes.clientAuth] } : {};
    const tbs = tbsOf({ ...leaf, fields: { ...fields, ...leaf?.fields } });
    const changed = change === undefined ? tbs : withExtensions(tbs, change);
    const decision = peerGate.checkCertificate(changed, { ...asked, profile });
    expect(decision).toMatchObject({ verdict: "refuse", code: "lint-refused" });
    if (leaf === undefined) {
      expect(peerGate.checkCertificate(tbs, { ...asked, profile })).toMatchObject({
        verdict: "allow",
      });
    }
  },
);

test("where the URLs of CDP and AIA are known, a leaf has no others", () => {
  const parts = {
    crlUrl: "http://127.0.0.1/crl/issuing.crl",
    caIssuersUrl: "http://127.0.0.1/ca/issuing.cer",
  };
  const strict = compileGate({ ...gateParts, ...parts });
  expect(strict.checkCertificate(tbsOf(), asked)).toMatchObject({ verdict: "allow" });
  for (const fields of [
    { crlUrl: "http://127.0.0.1/crl/another.crl" },
    { caIssuersUrl: "http://127.0.0.1/ca/another.cer" },
  ]) {
    const tbs = tbsOf({ fields });
    expect(strict.checkCertificate(tbs, asked)).toMatchObject({ rule: "CRT-20" });
    expect(gate.checkCertificate(tbs, asked)).toMatchObject({ verdict: "allow" });
  }
});

const webName = { type: "CN", value: "web.example.test" } as const;

test.for<{
  name: string;
  subject: Parameters<typeof encodeName>[0];
  names?: Leaf["names"];
  code: string;
}>([
  {
    name: "an organization",
    subject: [{ type: "O", value: "system:masters" }],
    code: "name-refused",
  },
  {
    name: "an organization beside a listed common name",
    subject: [{ type: "O", value: "system:masters" }, webName],
    code: "name-refused",
  },
  {
    name: "an organization that is called as the host",
    subject: [{ type: "O", value: "web.example.test" }],
    code: "name-refused",
  },
  { name: "a unit", subject: [{ type: "OU", value: "evil.test" }], code: "name-refused" },
  {
    name: "a mail address",
    subject: [{ type: "emailAddress", value: "a@example.test" }],
    code: "name-refused",
  },
  { name: "a user id", subject: [{ type: "UID", value: "root" }], code: "name-refused" },
  {
    name: "a common name that is no SAN",
    subject: [{ type: "CN", value: "admin" }],
    code: "name-refused",
  },
  {
    name: "a common name in other letters",
    subject: [{ type: "CN", value: "WEB.example.test" }],
    code: "name-refused",
  },
  {
    name: "a common name and another",
    subject: [webName, { type: "CN", value: "admin" }],
    code: "name-refused",
  },
  {
    name: "a common name without a SAN",
    subject: [{ type: "CN", value: "admin" }],
    names: [],
    code: "lint-refused",
  },
])(
  "a client with $name in its subject is refused: the policy has not decided on it",
  ({ subject, names, code }) => {
    const leaf = { subject: encodeName(subject), ...(names === undefined ? {} : { names }) };
    const client = tbsOf({ ...leaf, fields: { extKeyUsage: [purposes.clientAuth] } });
    const decision = gate.checkCertificate(client, { ...asked, profile: "client" });
    expect(decision).toMatchObject({ verdict: "refuse", code });
    expect(gate.checkCertificate(tbsOf(leaf), asked)).toMatchObject({ verdict: "refuse" });
  },
);

test.for([
  { name: "TeletexString", tag: 0x14 },
  { name: "IA5String", tag: 0x16 },
])("a common name that is a SAN, but as $name, is refused (SRV-06)", ({ tag }) => {
  const subject = (stringTag: number): Uint8Array =>
    sequence(
      element(
        Tag.set,
        sequence(
          objectIdentifier(attributeTypeOids.CN),
          element(stringTag, Buffer.from(webName.value)),
        ),
      ),
    );
  const decision = gate.checkCertificate(tbsOf({ subject: subject(tag) }), asked);
  expect(decision).toMatchObject({ verdict: "refuse" });
  const passes = gate.checkCertificate(tbsOf({ subject: subject(Tag.printableString) }), asked);
  expect(passes).toMatchObject({ verdict: "allow" });
});

test("a common name that is a SAN, octet for octet, passes in every kind", () => {
  for (const [profile, extKeyUsage] of [
    ["server", [purposes.serverAuth]],
    ["client", [purposes.clientAuth]],
    ["peer", [purposes.serverAuth, purposes.clientAuth]],
  ] as const) {
    for (const value of ["web.example.test", "10.0.0.1"]) {
      const tbs = tbsOf({
        subject: encodeName([{ type: "CN", value }]),
        names: [
          { kind: "dns", value: "web.example.test" },
          { kind: "ip", value: "10.0.0.1" },
        ],
        fields: { extKeyUsage },
      });
      expect(peerGate.checkCertificate(tbs, { ...asked, profile })).toMatchObject({
        verdict: "allow",
      });
    }
  }
});

test("a key type that the profile does not take is refused", () => {
  const tbs = tbsOf({
    publicKey: softwareKey("P-384").info,
    fields: { extKeyUsage: [extKeyUsageOids.clientAuth] },
  });
  expect(gate.checkCertificate(tbs, { ...asked, profile: "client" })).toMatchObject({
    code: "key-refused",
    rule: "profiles.client.keyTypes",
  });
});

test.for([
  { name: "an unknown profile", context: { profile: "other" }, code: "profile-not-allowed" },
  { name: "an unknown requester", context: { requester: "nobody" }, code: "requester-unknown" },
])("$name is refused: $code", ({ context, code }) => {
  expect(gate.checkCertificate(tbsOf(), { ...asked, ...context })).toMatchObject({
    verdict: "refuse",
    code,
  });
});

test("CRT-21: bytes that differ from what was asked are refused", () => {
  const requested = { names: [{ kind: "dns", value: "app.example.test" }] } as const;
  expect(gate.checkCertificate(tbsOf(), { ...asked, requested })).toMatchObject({
    code: "lint-refused",
    rule: "CRT-21",
  });
});

test("every cut-off and every flipped byte of a TBS is decided, never thrown", () => {
  const tbs = tbsOf();
  for (let length = 0; length < tbs.length; length++) {
    expect(gate.checkCertificate(tbs.subarray(0, length), asked).verdict).toBe("refuse");
  }
  for (let place = 0; place < tbs.length; place++) {
    const changed = Uint8Array.from(tbs);
    changed[place]! ^= 0x21;
    expect(["allow", "refuse"]).toContain(gate.checkCertificate(changed, asked).verdict);
  }
});

test("a root and an intermediate are checked by the rules of their kind", () => {
  const root = parseCertificate(ca.root).tbs.der;
  const intermediate = parseCertificate(ca.issuing).tbs.der;
  expect(checkRoot(root, { now })).toMatchObject({ verdict: "allow" });
  expect(checkRoot(intermediate, { now })).toMatchObject({ verdict: "refuse" });
  const rootGate = compileGate({
    issuer: "root",
    certificate: ca.root,
    chain: [],
    policy: testPolicy(),
    caKeys: new Set(),
  });
  expect(rootGate.checkCaCertificate(intermediate, { now })).toMatchObject({ verdict: "allow" });
  expect(rootGate.checkCaCertificate(tbsOf(), { now })).toMatchObject({ verdict: "refuse" });
});

const entries: RevokedCertificate[] = [1, 2, 3].map((number) => ({
  serialNumber: Uint8Array.of(0x40, number),
  revocationDate: new Date(now.getTime() - 3_600_000),
  reason: "superseded",
}));

function crlOf(
  number: bigint,
  revoked: readonly RevokedCertificate[],
  thisUpdate = now,
): Uint8Array {
  return buildTbsCertList({
    issuerCertificate: ca.issuing,
    thisUpdate,
    nextUpdate: new Date(thisUpdate.getTime() + 7 * DAY),
    number,
    entries: revoked,
  });
}

const sign = (tbs: Uint8Array): Uint8Array =>
  assembleSigned(tbs, ca.algorithm, ca.issuingKey.sign(tbs));
const predecessor = sign(crlOf(4n, entries, new Date(now.getTime() - 1000)));

test.for([
  { name: "the next CRL", tbs: crlOf(5n, entries), rule: undefined },
  { name: "a CRL that drops an entry", tbs: crlOf(5n, entries.slice(1)), rule: "CRL-41" },
  { name: "a CRL with the number of the one before", tbs: crlOf(4n, entries), rule: "CRL-57" },
  { name: "a CRL with a lower number", tbs: crlOf(3n, entries), rule: "CRL-57" },
  {
    name: "a CRL made in the same second",
    tbs: crlOf(5n, entries, new Date(now.getTime() - 1000)),
    rule: "CRL-19",
  },
  {
    name: "a CRL that changes a reason",
    tbs: crlOf(5n, [{ ...entries[0]!, reason: "unspecified" }, ...entries.slice(1)]),
    rule: "CRL-42",
  },
])("after its predecessor: $name gets $rule", ({ tbs, rule }) => {
  const decision = gate.checkCertificateList(tbs, { now, predecessor });
  if (rule === undefined) expect(decision).toMatchObject({ verdict: "allow" });
  else expect(decision).toMatchObject({ verdict: "refuse", rule });
});

test("CRL-35: a reason that was lost on the way is found before and after signing", () => {
  const lost = crlOf(
    5n,
    entries.map((entry) => ({ ...entry, reason: "unspecified" as const })),
  );
  const context = { now, intended: entries };
  expect(gate.checkCertificateList(lost, context)).toMatchObject({ rule: "CRL-35" });
  expect(gate.checkSignedCertificateList(sign(lost), context)).toMatchObject({ rule: "CRL-35" });
  expect(gate.checkSignedCertificateList(sign(crlOf(5n, entries)), context)).toMatchObject({
    verdict: "allow",
  });
});

/** The same CRL with other extensions. */
function withCrlExtensions(
  tbs: Uint8Array,
  change: (list: Uint8Array[]) => Uint8Array[],
): Uint8Array {
  const fields = elementsOf(DerReader.whole(tbs, Tag.sequence));
  const [list] = elementsOf(DerReader.whole(fields.pop()!, 0xa0));
  const extensions = elementsOf(DerReader.whole(list!, Tag.sequence));
  return sequence(...fields, element(0xa0, sequence(...change(extensions))));
}

/** The same CRL with one extension more. */
function withCrlExtension(
  tbs: Uint8Array,
  oid: string,
  critical: boolean,
  value: Uint8Array,
): Uint8Array {
  return withCrlExtensions(tbs, (list) => [...list, encodeExtension({ oid, critical, value })]);
}

test("CRL-51: a CRL whose AKI names issuer and serial number beside the key is refused", () => {
  const tbs = withCrlExtensions(
    crlOf(5n, entries),
    replacing(
      extensionOids.authorityKeyIdentifier,
      sequence(
        element(0x80, readIssuer(ca.issuing).keyIdentifier),
        element(0xa1, element(0xa4, encodeName([{ type: "CN", value: "evil.test" }]))),
        element(0x82, Uint8Array.of(1)),
      ),
    ),
  );
  expect(gate.checkCertificateList(tbs, { now })).toMatchObject({ rule: "CRL-51" });
  expect(gate.checkSignedCertificateList(sign(tbs), { now })).toMatchObject({ rule: "CRL-51" });
});

const attributeCertificatesOnly = sequence(element(0x85, Uint8Array.of(0xff)));

test.for([
  { name: "a delta CRL", oid: extensionOids.deltaCRLIndicator, critical: true, value: integer(4) },
  {
    name: "a CRL for attribute certificates",
    oid: extensionOids.issuingDistributionPoint,
    critical: true,
    value: attributeCertificatesOnly,
  },
  {
    name: "a CRL with an AIA",
    oid: extensionOids.authorityInfoAccess,
    critical: false,
    value: sequence(
      sequence(
        objectIdentifier(accessMethodOids.caIssuers),
        element(0x86, Buffer.from("http://a.example.test/")),
      ),
    ),
  },
  { name: "a CRL with an unknown extension", oid: "1.2.3.4", critical: false, value: integer(1) },
])(
  "$name is refused, before and after signing, also as the first one",
  ({ oid, critical, value }) => {
    const tbs = withCrlExtension(crlOf(5n, entries), oid, critical, value);
    for (const context of [{ now }, { now, predecessor }]) {
      expect(gate.checkCertificateList(tbs, context)).toMatchObject({ verdict: "refuse" });
      expect(gate.checkSignedCertificateList(sign(tbs), context)).toMatchObject({
        verdict: "refuse",
      });
    }
  },
);

test("CRL-41: an entry that a delta CRL said to remove stays", () => {
  const removed = Buffer.from(crlOf(5n, [{ ...entries[0]!, reason: "aACompromise" }]));
  removed[removed.indexOf(Buffer.from("0a010a", "hex")) + 2] = 8; // removeFromCRL
  const delta = sign(withCrlExtension(removed, extensionOids.deltaCRLIndicator, true, integer(4)));
  const next = crlOf(6n, [], new Date(now.getTime() + 1000));
  expect(gate.checkCertificateList(next, { now, predecessor: delta })).toMatchObject({
    verdict: "refuse",
    rule: "CRL-41",
  });
});

test("CRL-08: a CRL that another key signed is not published", () => {
  const tbs = crlOf(5n, entries);
  const foreign = assembleSigned(tbs, ca.algorithm, ca.rootKey.sign(tbs));
  expect(gate.checkSignedCertificateList(foreign, { now })).toMatchObject({
    verdict: "refuse",
    rule: "CRL-08",
  });
});

test("a refusal becomes an error with its code, rule and name", () => {
  const refused = {
    verdict: "refuse",
    code: "name-refused",
    rule: "r",
    detail: "d",
    name: "n",
  } as const;
  expect(() => refusal(refused)).toThrow(
    expect.objectContaining({
      code: "name-refused",
      message: "d",
      members: { rule: "r", name: "n" },
    }),
  );
});
