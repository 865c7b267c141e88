/** The rules of the signer on keys in this process: what a captured service would ask for. */

import { generateKeyPairSync, randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { checkpointText } from "../../src/audit/checkpoint.ts";
import { encodeEntry, type Actor } from "../../src/audit/entry.ts";
import { leafHash } from "../../src/audit/merkle.ts";
import { noteSigner, signNote } from "../../src/audit/signed-note.ts";
import { policyDigest, type Grant } from "../../src/custody/grant.ts";
import type { LogExtension } from "../../src/custody/log-view.ts";
import { errorOf } from "../../src/custody/refusal.ts";
import {
  createSigner,
  type ListRequest,
  type Signer,
  type SignerParts,
} from "../../src/custody/signer.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import { buildTbsCertList, type RevokedCertificate } from "../../src/x509/certificate-list.ts";
import {
  buildRootTbsCertificate,
  buildTbsCertificate,
  certificateTemplate,
  type CertificateFields,
  type CertificateLeaf,
} from "../../src/x509/certificate-template.ts";
import { parseTbsCertificate } from "../../src/x509/certificate.ts";
import {
  DerReader,
  element,
  encodingOf,
  integer,
  sequence,
  Tag,
  type DerElement,
} from "../../src/x509/der.ts";
import { encodeExtension } from "../../src/x509/extension.ts";
import { emptyName, encodeName } from "../../src/x509/name.ts";
import { extensionOids, extKeyUsageOids } from "../../src/x509/oid.ts";
import { spkiDigest } from "../../src/x509/public-key.ts";
import { serialNumberFrom } from "../../src/x509/serial-number.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import { refused } from "../support/refused.ts";
import { DAY, softwareCa, softwareKey, type SoftwareKey } from "../support/software-ca.ts";
import { digestOf, policyText, TestLog, webRequester, type IntentChange } from "./keeper-home.ts";

const HOUR = 3_600_000;
const now = new Date("2026-11-21T12:00:00Z");
const ca = softwareCa(new Date(now.getTime() - 100 * DAY));
const key = ca.issuingKey;
const leafKey = softwareKey("P-256");
const logKey = noteSigner("test.example/audit", generateKeyPairSync("ed25519").privateKey);
const policy = policyDigest(parsePolicy(policyText, "policy"));
const standing: Grant = {
  operations: ["certificate", "crl"],
  profiles: ["server", "short"],
  policy,
  signaturesPerHour: 1000,
  maximumCrlLifetime: "8d",
};

interface Bench {
  readonly signer: Signer;
  /** The clock of the signer, and of what is made here. */
  now: Date;
  readonly sign: (tbs: Uint8Array, change?: IntentChange) => Promise<Uint8Array | Error>;
  readonly signList: (
    tbs: Uint8Array,
    change?: IntentChange & Partial<Pick<ListRequest, "predecessor" | "dropped">>,
  ) => Promise<Uint8Array | Error>;
}

function bench(change: Partial<SignerParts> = {}): Bench {
  const log = new TestLog();
  let seen = 0;
  const keyId = spkiDigest(change.key?.publicKey ?? key.info.spki);
  const signer = createSigner({
    key: signingKey(key),
    issuer: "issuing",
    grant: standing,
    alreadySigned: 0,
    usedDigests: [],
    policy: policyText,
    certificate: ca.issuing,
    chain: [ca.root],
    caKeys: new Set([ca.rootKey.keyId, ca.issuingKey.keyId]),
    logKey: logKey.verifierKey.text,
    head: undefined,
    list: undefined,
    now: () => self.now,
    monotonic: () => 0,
    ...change,
  });
  function logged(
    tbs: Uint8Array,
    asked: IntentChange,
  ): { intentIndex: number; intent: Uint8Array; extension: LogExtension } {
    const intent = intentFor(tbs, asked, keyId);
    const intentIndex = log.add(intent);
    const size = log.range.end;
    const note = signNote(checkpointText(logKey.name, size, log.range.root()), logKey);
    const leaves = log.leaves.slice(seen).map(leafHash);
    const extension = { from: seen, first: seen, size, note, nodes: [], leaves };
    seen = size;
    return { intentIndex, intent, extension };
  }
  const self: Bench = {
    signer,
    now,
    async sign(tbs, asked = {}) {
      const { extension, ...request } = logged(tbs, asked);
      const [result] = await signer.sign([{ ...request, tbs }], extension);
      return "signature" in result! ? result.signature : errorOf(result!.refusal);
    },
    async signList(tbs, { predecessor, dropped = new Uint8Array(0), ...asked } = {}) {
      const { extension, ...request } = logged(tbs, { operation: "crl", ...asked });
      try {
        return (await signer.signList({ ...request, tbs, predecessor, dropped }, extension)).crl;
      } catch (error) {
        return error as Error;
      }
    },
  };
  return self;
}

function signingKey(from: SoftwareKey): SignerParts["key"] {
  return { publicKey: from.info.spki, sign: (tbs) => Promise.resolve(from.sign(tbs)) };
}

function intentFor(tbs: Uint8Array, change: IntentChange, keyId: string): Uint8Array {
  const { operation = "certificate", actor = webRequester, number } = change;
  const serialNumber =
    change.serialNumber === undefined && operation === "certificate"
      ? Buffer.from(parseTbsCertificate(tbs).serialNumber).toString("hex")
      : change.serialNumber;
  const named = change.policy === undefined ? policy : change.policy;
  return encodeEntry({
    type: "sign.intent",
    at: now,
    actor: actor satisfies Actor,
    subject: {
      issuer: "issuing",
      keyId: change.keyId ?? keyId,
      ...(typeof serialNumber === "string" ? { serialNumber } : {}),
    },
    data: {
      operation,
      tbs: digestOf(tbs),
      ...(named === null ? {} : { policy: named }),
      ...(operation === "certificate" ? { profile: change.profile ?? "server" } : {}),
      ...(number === undefined ? {} : { number }),
    },
  });
}

const newSerialNumber = (): Uint8Array => serialNumberFrom(randomBytes(20));

function leafTbs(
  leaf: Partial<CertificateLeaf> = {},
  fields: Partial<CertificateFields> = {},
): Uint8Array {
  const template = certificateTemplate({
    issuerCertificate: ca.issuing,
    keyUsage: ["digitalSignature"],
    extKeyUsage: [extKeyUsageOids.serverAuth],
    crlUrl: "http://pki.example.test/crl/issuing.crl",
    caIssuersUrl: "http://pki.example.test/ca/issuing.cer",
    subjectKeyIdentifier: false,
    ...fields,
  });
  return buildTbsCertificate(template, {
    serialNumber: newSerialNumber(),
    notBefore: new Date(now.getTime() - 60_000),
    notAfter: new Date(now.getTime() + 10 * DAY),
    subject: emptyName,
    publicKey: leafKey.info,
    names: [{ kind: "dns", value: "a.example.test" }],
    ...leaf,
  });
}

/** What the key has signed at some time: behind the signer's back. */
function signed(tbs: Uint8Array): Uint8Array {
  return assembleSigned(tbs, ca.algorithm, key.sign(tbs));
}

function crlTbs(
  number: bigint,
  entries: readonly RevokedCertificate[] = [],
  thisUpdate: Date = now,
): Uint8Array {
  const nextUpdate = new Date(thisUpdate.getTime() + 7 * DAY);
  return buildTbsCertList({
    issuerCertificate: ca.issuing,
    thisUpdate,
    nextUpdate,
    number,
    entries,
  });
}

function elementsOf(outer: DerElement): Uint8Array[] {
  const reader = DerReader.inside(outer);
  const elements: Uint8Array[] = [];
  while (!reader.atEnd) elements.push(encodingOf(reader.readAny()));
  return elements;
}

/** The same CRL with one extension more. */
function withCrlExtension(tbs: Uint8Array, oid: string, value: Uint8Array): Uint8Array {
  const fields = elementsOf(DerReader.whole(tbs, Tag.sequence));
  const [list] = elementsOf(DerReader.whole(fields.pop()!, 0xa0));
  const extensions = elementsOf(DerReader.whole(list!, Tag.sequence));
  extensions.push(encodeExtension({ oid, critical: true, value }));
  return sequence(...fields, element(0xa0, sequence(...extensions)));
}

const mismatch = (detail: RegExp): unknown => refused("grant-mismatch", detail);

function listOf(crl: Uint8Array, number: string): NonNullable<SignerParts["list"]> {
  return { number, crl: digestOf(crl), der: Buffer.from(crl).toString("base64") };
}

// Serial numbers and what is revoked

test("a certificate needs an intent that names its serial number", async () => {
  const { sign } = bench();
  expect(await sign(leafTbs(), { serialNumber: null })).toEqual(
    mismatch(/another serial number, or for none/),
  );
  expect(await sign(leafTbs(), { serialNumber: "40".repeat(20) })).toEqual(
    mismatch(/another serial number/),
  );
  expect(await sign(leafTbs())).toBeInstanceOf(Uint8Array);
});

test("a certificate that has ended is not signed", async () => {
  const { sign } = bench();
  const notBefore = new Date(now.getTime() - 200_000);
  const ended = leafTbs({ notBefore, notAfter: now });
  expect(await sign(ended)).toEqual(mismatch(/has ended already/));
  const short = leafTbs({ notBefore, notAfter: new Date(now.getTime() + 1000) });
  expect(await sign(short)).toBeInstanceOf(Uint8Array);
});

test("a serial number is signed once, also in one batch", async () => {
  const { sign, signer } = bench();
  const serialNumber = newSerialNumber();
  const twin = (): Uint8Array => leafTbs({ serialNumber, publicKey: softwareKey("P-256").info });
  const both = await Promise.all([sign(twin()), sign(twin())]);
  expect(both[0]).toBeInstanceOf(Uint8Array);
  expect(both[1]).toEqual(mismatch(/signed before/));
  expect(await sign(twin())).toEqual(mismatch(/signed before/));
  expect(signer.signaturesLeft, "a refusal is not counted").toBe(999);
});

test("a serial number that the last CRL revokes is not signed, whether the signer made that CRL or was told of it", async () => {
  const serialNumber = newSerialNumber();
  const entries = [{ serialNumber, revocationDate: now, reason: "keyCompromise" }] as const;
  const first = bench();
  const crl = (await first.signList(crlTbs(1n, entries))) as Uint8Array;
  expect(await first.sign(leafTbs({ serialNumber }))).toEqual(mismatch(/last CRL revokes/));
  const second = bench({ list: listOf(crl, "1") });
  expect(await second.sign(leafTbs({ serialNumber }))).toEqual(mismatch(/last CRL revokes/));
  expect(await second.sign(leafTbs())).toBeInstanceOf(Uint8Array);
});

test("a signer does not begin with a CRL other than the one it is said to have signed", () => {
  const list = listOf(signed(crlTbs(1n)), "1");
  const der = Buffer.from(signed(crlTbs(2n))).toString("base64");
  expect(() => bench({ list: { ...list, der } })).toThrow(
    expect.objectContaining({ code: "rolled-back" }),
  );
});

/** A CRL with one entry, two hours old, and what the signer says to the next one without it. */
async function dropping(
  revocationDate: Date,
  certificate: { notBefore: Date; notAfter: Date },
): Promise<Uint8Array | Error> {
  const serialNumber = newSerialNumber();
  const entries = [{ serialNumber, revocationDate, reason: "superseded" }] as const;
  const predecessor = signed(crlTbs(1n, entries, new Date(now.getTime() - 2 * HOUR)));
  const { signList } = bench({ list: listOf(predecessor, "1") });
  const dropped = signed(leafTbs({ serialNumber, ...certificate }));
  return signList(crlTbs(2n), { predecessor, dropped });
}

const at = (hours: number): Date => new Date(now.getTime() + hours * HOUR);

test("an entry goes with a certificate that was valid when it was revoked, and has ended", async () => {
  const valid = { notBefore: at(-50), notAfter: at(-10) };
  expect(await dropping(at(-20), valid)).toBeInstanceOf(Uint8Array);
  expect(await dropping(at(-10), valid), "in its last second").toBeInstanceOf(Uint8Array);
  expect(await dropping(at(-9), valid)).toEqual(mismatch(/not valid when it was revoked/));
  expect(await dropping(at(-51), valid)).toEqual(mismatch(/not valid when it was revoked/));
  const running = { notBefore: at(-50), notAfter: at(-2) };
  expect(await dropping(at(-20), running)).toEqual(mismatch(/had not expired/));
});

test("a revocation keeps its date: an earlier one would make a twin of then do for the certificate", async () => {
  const serialNumber = newSerialNumber();
  const entry = { serialNumber, revocationDate: at(-5), reason: "superseded" } as const;
  const predecessor = signed(crlTbs(1n, [entry], at(-2)));
  const { signList } = bench({ list: listOf(predecessor, "1") });
  for (const revocationDate of [at(-6), at(-4)]) {
    const next = crlTbs(2n, [{ ...entry, revocationDate }]);
    expect(await signList(next, { predecessor })).toEqual(mismatch(/another revocation date/));
  }
  expect(await signList(crlTbs(2n, [entry]), { predecessor })).toBeInstanceOf(Uint8Array);
});

// What a CRL is

const oneEntry: RevokedCertificate = {
  serialNumber: newSerialNumber(),
  revocationDate: at(-5),
  reason: "aACompromise",
};

/** The same entry with removeFromCRL in the place of its reason. */
function removing(number: bigint, thisUpdate = now): Uint8Array {
  const tbs = Buffer.from(crlTbs(number, [oneEntry], thisUpdate));
  tbs[tbs.indexOf(Buffer.from("0a010a", "hex")) + 2] = 8;
  return tbs;
}

test("a delta CRL is not signed, and one that was signed takes no entry away", async () => {
  const predecessor = signed(crlTbs(1n, [oneEntry], at(-2)));
  const { signList } = bench({ list: listOf(predecessor, "1") });
  const delta = withCrlExtension(removing(2n), extensionOids.deltaCRLIndicator, integer(1));
  expect(await signList(delta, { predecessor })).toEqual(refused("lint-refused", /CRL-71/));

  const older = signed(
    withCrlExtension(removing(2n, at(-1)), extensionOids.deltaCRLIndicator, integer(1)),
  );
  const next = bench({ list: listOf(older, "2") });
  expect(await next.signList(crlTbs(3n), { predecessor: older })).toEqual(
    mismatch(/without the entry/),
  );
});

test("a CRL for attribute certificates only is not signed", async () => {
  const predecessor = signed(crlTbs(1n, [oneEntry], at(-2)));
  const { signList } = bench({ list: listOf(predecessor, "1") });
  const point = sequence(element(0x85, Uint8Array.of(0xff)));
  const narrowed = withCrlExtension(
    crlTbs(2n, [oneEntry]),
    extensionOids.issuingDistributionPoint,
    point,
  );
  expect(await signList(narrowed, { predecessor })).toEqual(refused("lint-refused"));
  expect(await bench().signList(narrowed), "nor as the first").toEqual(refused("lint-refused"));
});

test("an entry that certificateIssuer makes another issuer's is not signed", async () => {
  const predecessor = signed(crlTbs(1n, [oneEntry], at(-2)));
  const { signList } = bench({ list: listOf(predecessor, "1") });
  const fields = elementsOf(DerReader.whole(crlTbs(2n, [oneEntry]), Tag.sequence));
  const [entry] = elementsOf(DerReader.whole(fields[5]!, Tag.sequence));
  const [serialNumber, date, extensions] = elementsOf(DerReader.whole(entry!, Tag.sequence));
  const issuer = encodeExtension({
    oid: extensionOids.certificateIssuer,
    critical: false,
    value: sequence(element(0xa4, encodeName([{ type: "CN", value: "Nobody" }]))),
  });
  const reason = elementsOf(DerReader.whole(extensions!, Tag.sequence));
  fields[5] = sequence(sequence(serialNumber!, date!, sequence(...reason, issuer)));
  expect(await signList(sequence(...fields), { predecessor })).toEqual(
    mismatch(/certificateIssuer|2\.5\.29\.29/),
  );
});

test("a CRL number leaves room for those after it", async () => {
  const step = 1n << 20n;
  const crl = signed(crlTbs(7n, [], at(-1)));
  const { signList } = bench({ list: listOf(crl, "7") });
  for (const number of [1n << 158n, 1n << 63n, 7n + step + 1n]) {
    expect(await signList(crlTbs(number), { predecessor: crl })).toEqual(mismatch(/too far above/));
  }
  expect(await signList(crlTbs(7n + step), { predecessor: crl })).toBeInstanceOf(Uint8Array);
  expect(await bench().signList(crlTbs(step + 1n)), "the first").toEqual(mismatch(/too far above/));
  const last = (1n << 63n) - 1n;
  const final = signed(crlTbs(last, [], at(-1)));
  expect(
    await bench({ list: listOf(final, `${last}`) }).signList(crlTbs(last + 1n), {
      predecessor: final,
    }),
  ).toEqual(mismatch(/too far above/));
});

test("a CRL's intent that names a number names the CRL's", async () => {
  const { signList } = bench();
  expect(await signList(crlTbs(1n), { number: "2" })).toEqual(mismatch(/another CRL number/));
  expect(await signList(crlTbs(1n), { number: "1" })).toBeInstanceOf(Uint8Array);
});

// Grants

test("under a standing grant a certificate's intent names the policy, a CRL's need not", async () => {
  const { sign, signList } = bench();
  expect(await sign(leafTbs(), { policy: null })).toEqual(mismatch(/policy that is not granted/));
  expect(await signList(crlTbs(1n), { policy: null })).toBeInstanceOf(Uint8Array);
  expect(await signList(crlTbs(2n), { policy: digestOf(Buffer.from("another")) })).toEqual(
    mismatch(/policy that is not granted/),
  );
});

test("a grant that names the URLs of CDP and AIA is for certificates with those", async () => {
  const crlUrl = "http://pki.example.test/crl/issuing.crl";
  const caIssuersUrl = "http://pki.example.test/ca/issuing.cer";
  const { sign } = bench({ grant: { ...standing, crlUrl, caIssuersUrl } });
  expect(await sign(leafTbs())).toBeInstanceOf(Uint8Array);
  for (const fields of [{ crlUrl: `${crlUrl}x` }, { caIssuersUrl: `${caIssuersUrl}x` }]) {
    expect(await sign(leafTbs({}, fields))).toEqual(refused("lint-refused"));
    expect(await bench().sign(leafTbs({}, fields))).toBeInstanceOf(Uint8Array);
  }
});

test("a signature that does not verify leaves no signer, and its digest is used up", async () => {
  const tbs = leafTbs();
  const other = softwareKey("P-256");
  const faulty = {
    publicKey: key.info.spki,
    sign: (octets: Uint8Array) => Promise.resolve(other.sign(octets)),
  };
  for (const grant of [standing, { digests: [digestOf(tbs)] }]) {
    const { sign, signer } = bench({ key: faulty, grant });
    const before = signer.signaturesLeft;
    expect(await sign(tbs)).toEqual(refused("token-unavailable", /does not verify/));
    expect(signer.signaturesLeft).toBe(before - 1);
  }
  const list = bench({ key: faulty });
  expect(await list.signList(crlTbs(1n))).toEqual(refused("token-unavailable", /does not verify/));
});

test("a digest whose signature the token did not make can be signed when it is back", async () => {
  const tbs = leafTbs();
  let away = true;
  const flaky: SignerParts["key"] = {
    publicKey: key.info.spki,
    sign: (octets) =>
      away ? Promise.reject(new Error("away")) : Promise.resolve(key.sign(octets)),
  };
  const { sign } = bench({ key: flaky, grant: { digests: [digestOf(tbs)] } });
  expect(await sign(tbs)).toEqual(expect.objectContaining({ message: "away" }));
  away = false;
  expect(await sign(tbs)).toBeInstanceOf(Uint8Array);
});

/** A root of the signer's key, as it founds itself; what is granted are its exact bytes. */
function rootTbs(change: Partial<Parameters<typeof buildRootTbsCertificate>[0]> = {}): Uint8Array {
  return buildRootTbsCertificate({
    serialNumber: newSerialNumber(),
    notBefore: new Date(now.getTime() - 60_000),
    notAfter: new Date(now.getTime() + 3650 * DAY),
    subject: encodeName([{ type: "CN", value: "Founding root" }]),
    publicKey: ca.rootKey.info,
    ...change,
  });
}

const founding = (tbs: Uint8Array, profile: string): Promise<Uint8Array | Error> =>
  bench({
    key: signingKey(ca.rootKey),
    grant: { digests: [digestOf(tbs)] },
    certificate: undefined,
    chain: [],
  }).sign(tbs, { profile, actor: { kind: "service", id: "set-up" } });

/** The same octets with one run in the place of another. */
function replaced(octets: Uint8Array, old: Uint8Array, by: Uint8Array, last = false): Uint8Array {
  const copy = Buffer.from(octets);
  const place = last ? copy.lastIndexOf(old) : copy.indexOf(old);
  if (place < 0 || old.length !== by.length) throw new Error("nothing to replace");
  copy.set(by, place);
  return copy;
}

test("a granted root that begins later, names another issuer, or is no root, is not signed", async () => {
  const good = rootTbs();
  expect(await founding(good, "root")).toBeInstanceOf(Uint8Array);
  const later = rootTbs({ notBefore: new Date(now.getTime() + 1000) });
  expect(await founding(later, "root")).toEqual(mismatch(/notBefore later than now/));
  const otherSubject = replaced(
    good,
    Buffer.from("Founding root"),
    Buffer.from("Founding ruut"),
    true,
  );
  expect(await founding(otherSubject, "root")).toEqual(mismatch(/own key as subject/));
  const keyCertSignOnly = replaced(
    good,
    Buffer.from("03020106", "hex"),
    Buffer.from("03020204", "hex"),
  );
  expect(await founding(keyCertSignOnly, "root")).toEqual(refused("lint-refused", /ROOT-05/));
});

function intermediateTbs(leaf: Partial<CertificateLeaf> = {}): Uint8Array {
  return leafTbs(
    {
      subject: encodeName([{ type: "CN", value: "Below" }]),
      names: [],
      publicKey: softwareKey("P-256").info,
      ...leaf,
    },
    {
      issuerCertificate: ca.root,
      keyUsage: ["keyCertSign", "cRLSign"],
      extKeyUsage: [],
      basicConstraints: { cA: true, pathLen: 0 },
      subjectKeyIdentifier: true,
    },
  );
}

test("a granted intermediate passes the gate too", async () => {
  const sign = (tbs: Uint8Array): Promise<Uint8Array | Error> =>
    bench({
      key: signingKey(ca.rootKey),
      grant: { digests: [digestOf(tbs)] },
      certificate: ca.root,
      chain: [],
    }).sign(tbs, { profile: "intermediate", actor: { kind: "service", id: "set-up" } });
  const good = intermediateTbs();
  expect(await sign(good)).toBeInstanceOf(Uint8Array);
  const signOnly = replaced(good, Buffer.from("03020106", "hex"), Buffer.from("03020204", "hex"));
  expect(await sign(signOnly)).toEqual(refused("lint-refused", /ICA-03/));
  const later = intermediateTbs({ notBefore: new Date(now.getTime() + 1000) });
  expect(await sign(later)).toEqual(mismatch(/notBefore later than now/));
});
