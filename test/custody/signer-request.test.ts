/** Certification requests of a CA's own key, under grants of their digests: CUSTODY.md 7.5. */

import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { parseSigned, assembleSigned } from "../../src/x509/signed.ts";
import { buildCertificationRequest } from "../../src/x509/certification-request-builder.ts";
import { DerReader, element, objectIdentifier, sequence, Tag } from "../../src/x509/der.ts";
import { signatureAlgorithmFor } from "../../src/x509/signature-algorithm.ts";
import { refused } from "../support/refused.ts";
import { softwareKey, type SoftwareKey } from "../support/software-ca.ts";
import { digestOf } from "./keeper-home.ts";
import {
  bench,
  elementsOf,
  key,
  leafTbs,
  mismatch,
  replaced,
  signingKey,
  standing,
  type Bench,
} from "./signer-bench.ts";

/** The CertificationRequestInfo of a key. */
function infoOf({ privateKey }: SoftwareKey): Uint8Array {
  return parseSigned(
    buildCertificationRequest({ privateKey, names: [], commonName: "Offline CA G2" }),
  ).tbs;
}

const actor = { kind: "operator", id: "alice", via: "sshsig" } as const;

/** A key without a certificate, and a request for its own key under a grant of these bytes. */
function opened(own: SoftwareKey, ...granted: readonly Uint8Array[]): Bench {
  return bench({
    key: signingKey(own),
    grant: { digests: granted.map(digestOf), seconds: 900 },
    certificate: undefined,
    chain: [],
  });
}

test.for(["P-256", "P-384", "RSA-2048", "Ed25519"] as const)(
  "a %s key signs the request for itself that was granted, and openssl verifies it",
  async (type) => {
    const own = softwareKey(type);
    const info = infoOf(own);
    const { sign, over, clock } = opened(own, info);
    const signature = (await sign(info, { operation: "request", actor })) as Uint8Array;
    const { identifier } = signatureAlgorithmFor(own.info.type);
    // Its exit code does not say whether the signature is good.
    const args = ["req", "-verify", "-noout", "-subject", "-inform", "DER"];
    const input = assembleSigned(info, identifier, signature);
    const { stdout, stderr } = spawnSync("openssl", args, { input, encoding: "utf8" });
    expect(stderr).toMatch(/verify OK/);
    expect(stdout).toMatch(/Offline CA G2/);
    clock.pass(0);
    expect(over).toEqual(["used-up"]);
  },
);

test("ST-44: a request is signed once, and no other", async () => {
  const own = softwareKey("P-256");
  const info = infoOf(own);
  const altered = replaced(info, Buffer.from("Offline CA G2"), Buffer.from("Offline CA G3"));
  const { sign } = opened(own, info, leafTbs());
  expect(await sign(altered, { operation: "request", actor })).toEqual(mismatch(/not granted/));
  expect(await sign(info, { operation: "request", actor })).toBeInstanceOf(Uint8Array);
  expect(await sign(info, { operation: "request", actor })).toEqual(mismatch(/signed already/));
});

test("a request for another key is not signed, though it was granted", async () => {
  const info = infoOf(softwareKey("P-256"));
  const { sign } = opened(softwareKey("P-256"), info);
  expect(await sign(info, { operation: "request", actor })).toEqual(mismatch(/another key/));
});

test("a certificate is no request, so that it passes the gate, and a request no certificate", async () => {
  const faulty = leafTbs({ names: [{ kind: "dns", value: "example.com" }] });
  const info = infoOf(key);
  const { sign } = bench({ grant: { digests: [faulty, info].map(digestOf), seconds: 900 } });
  expect(await sign(faulty, { operation: "request" })).toEqual(mismatch(/cannot be read/));
  expect(await sign(faulty)).toEqual(refused("name-refused"));
  expect(await sign(info, { operation: "certificate", serialNumber: "01" })).toEqual(
    mismatch(/cannot be read/),
  );
  expect(await sign(info, { operation: "request" })).toBeInstanceOf(Uint8Array);
});

test("a request makes no CA of a key: it has no name until it founds itself or is certified", async () => {
  const info = infoOf(key);
  const tbs = leafTbs();
  const { sign } = opened(key, info, tbs);
  expect(await sign(info, { operation: "request", actor })).toBeInstanceOf(Uint8Array);
  expect(await sign(tbs)).toEqual(mismatch(/without a certificate/));
});

test("a request that cannot be read, or has an attribute that nobody knows, is not signed", async () => {
  const info = infoOf(key);
  const longer = Buffer.concat([info, Buffer.of(0)]);
  const attribute = sequence(
    objectIdentifier("1.2.3.4"),
    element(Tag.set, sequence(objectIdentifier("1.2.3"))),
  );
  const fields = elementsOf(DerReader.whole(info, Tag.sequence));
  const strange = sequence(...fields.slice(0, -1), element(0xa0, attribute));
  const { sign } = opened(key, longer, strange);
  expect(await sign(longer, { operation: "request", actor })).toEqual(mismatch(/cannot be read/));
  expect(await sign(strange, { operation: "request", actor })).toEqual(
    refused("csr-malformed", /1\.2\.3\.4/),
  );
});

test("ST-45: a standing grant is for no request", async () => {
  const { sign } = bench({ grant: standing });
  expect(await sign(infoOf(key), { operation: "request" })).toEqual(mismatch(/operation request/));
});

test("ST-52: a request needs its own intent in the log", async () => {
  const info = infoOf(key);
  const { signer, logged } = opened(key, info);
  const { intentIndex, intent } = logged(info, { operation: "request", actor });
  const [result] = await signer.sign([{ intentIndex, intent, tbs: info }], undefined);
  expect(result).toMatchObject({ refusal: { code: "grant-mismatch" } });
});
