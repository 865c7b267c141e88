import { constants, sign } from "node:crypto";
import { expect, test } from "vitest";
import { concat } from "../../src/x509/der.ts";
import {
  signatureAlgorithmFor,
  signatureAlgorithmFrom,
  signatureAlgorithms,
  verifySignature,
} from "../../src/x509/signature-algorithm.ts";
import { keyPair, type KeyKind } from "./authority.ts";

const message = Uint8Array.from(Buffer.from("message"));

test.for([
  { type: "P-256", name: "ecdsa-with-SHA256", identifier: "300a06082a8648ce3d040302" },
  { type: "P-384", name: "ecdsa-with-SHA384", identifier: "300a06082a8648ce3d040303" },
  { type: "P-521", name: "ecdsa-with-SHA512", identifier: "300a06082a8648ce3d040304" },
  {
    type: "RSA-2048",
    name: "sha256WithRSAEncryption",
    identifier: "300d06092a864886f70d01010b0500",
  },
  { type: "Ed25519", name: "Ed25519", identifier: "300506032b6570" },
] as const)(
  "CRL-03, CRL-04, CRT-06: a $type key signs with $name",
  ({ type, name, identifier }) => {
    const algorithm = signatureAlgorithmFor(type);
    expect(algorithm.name).toBe(name);
    expect(Buffer.from(algorithm.identifier).toString("hex")).toBe(identifier);
    expect(signatureAlgorithmFrom(algorithm.identifier)).toBe(algorithm);

    const { publicKey, privateKey } = keyPair(type);
    const signature = sign(algorithm.hash, message, privateKey);
    expect(verifySignature(publicKey, algorithm, message, signature)).toBe(true);
    expect(verifySignature(publicKey, algorithm, concat(message, message), signature)).toBe(false);
    expect(verifySignature(publicKey, algorithm, message, signature.subarray(1))).toBe(false);
  },
);

test.for<KeyKind>(["P-256", "RSA-2048", "Ed25519"])(
  "CRT-06: a signature by a %s key counts only under an algorithm of that kind",
  (kind) => {
    const { publicKey, privateKey } = keyPair(kind);
    const own = signatureAlgorithmFor(kind);
    const signature = sign(own.hash, message, privateKey);
    for (const algorithm of Object.values(signatureAlgorithms)) {
      expect(verifySignature(publicKey, algorithm, message, signature)).toBe(algorithm === own);
    }
  },
);

test("CRL-03: RSA-PSS is no PKCS#1 v1.5 signature", () => {
  const { publicKey, privateKey } = keyPair("RSA-2048");
  const key = { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING };
  const signature = sign("sha256", message, key);
  const { sha256WithRSAEncryption } = signatureAlgorithms;
  expect(verifySignature(publicKey, sha256WithRSAEncryption, message, signature)).toBe(false);
});

test.for([
  { name: "RSA without NULL", hex: "300b06092a864886f70d01010b" },
  { name: "ECDSA with NULL", hex: "300c06082a8648ce3d0403020500" },
  { name: "SHA-1", hex: "300d06092a864886f70d0101050500" },
  { name: "Ed448", hex: "300506032b6571" },
])("CRL-03, CRT-06: not known: $name", ({ hex }) => {
  expect(signatureAlgorithmFrom(Uint8Array.from(Buffer.from(hex, "hex")))).toBeUndefined();
});
