import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { checkRoot, compileGate, refusal, type Gate } from "../../src/gate/gate.ts";
import { buildTbsCertList, type RevokedCertificate } from "../../src/x509/certificate-list.ts";
import {
  buildTbsCertificate,
  certificateTemplate,
  type CertificateFields,
} from "../../src/x509/certificate-template.ts";
import { emptyName, encodeName } from "../../src/x509/name.ts";
import { extKeyUsageOids } from "../../src/x509/oid.ts";
import { serialNumberFrom } from "../../src/x509/serial-number.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import { parseCertificate } from "../../src/x509/certificate.ts";
import { DAY, softwareCa, softwareKey, testPolicy } from "../support/software-ca.ts";

const now = new Date("2026-11-21T12:00:00Z");
const ca = softwareCa(now);
const leafKey = softwareKey("P-256");
const gate: Gate = compileGate({
  issuer: "issuing",
  certificate: ca.issuing,
  chain: [ca.root],
  policy: testPolicy(),
  caKeys: new Set([ca.rootKey.keyId, ca.issuingKey.keyId]),
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
