/** The rules of the signer on keys in this process: what a captured service would ask for. */

import { expect, test } from "vitest";
import type { SignerParts } from "../../src/custody/signer.ts";
import type { RevokedCertificate } from "../../src/x509/certificate-list.ts";
import {
  buildRootTbsCertificate,
  type CertificateLeaf,
} from "../../src/x509/certificate-template.ts";
import { DerReader, element, integer, sequence, Tag } from "../../src/x509/der.ts";
import { encodeExtension } from "../../src/x509/extension.ts";
import { encodeName } from "../../src/x509/name.ts";
import { extensionOids } from "../../src/x509/oid.ts";
import { refused } from "../support/refused.ts";
import { DAY, softwareKey } from "../support/software-ca.ts";
import { digestOf } from "./keeper-home.ts";
import {
  HOUR,
  now,
  ca,
  key,
  standing,
  bench,
  signingKey,
  newSerialNumber,
  leafTbs,
  signed,
  crlTbs,
  elementsOf,
  withCrlExtension,
  mismatch,
  listOf,
  replaced,
} from "./signer-bench.ts";

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
