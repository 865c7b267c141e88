/** Certificate authorities with software keys, for tests. */

import {
  generateKeyPairSync,
  randomBytes,
  sign,
  type KeyObject,
  type KeyPairKeyObjectResult,
} from "node:crypto";
import {
  buildRootTbsCertificate,
  buildTbsCertificate,
  certificateTemplate,
} from "../../src/x509/certificate-template.ts";
import { encodeName } from "../../src/x509/name.ts";
import { parsePublicKey, type PublicKeyInfo } from "../../src/x509/public-key.ts";
import { serialNumberFrom } from "../../src/x509/serial-number.ts";
import { signatureAlgorithmFor } from "../../src/x509/signature-algorithm.ts";
import { assembleSigned } from "../../src/x509/signed.ts";

export type KeyKind = "P-256" | "P-384" | "P-521" | "RSA-2048" | "RSA-3072" | "Ed25519";

export function keyPair(kind: KeyKind): KeyPairKeyObjectResult {
  if (kind === "Ed25519") return generateKeyPairSync("ed25519");
  if (kind === "RSA-2048") return generateKeyPairSync("rsa", { modulusLength: 2048 });
  if (kind === "RSA-3072") return generateKeyPairSync("rsa", { modulusLength: 3072 });
  return generateKeyPairSync("ec", { namedCurve: kind });
}

export function publicKeyInfo(key: KeyObject): PublicKeyInfo {
  return parsePublicKey(spkiOf(key));
}

export function spkiOf(key: KeyObject): Uint8Array {
  return Uint8Array.from(key.export({ format: "der", type: "spki" }));
}

export function newSerialNumber(): Uint8Array {
  return serialNumberFrom(randomBytes(20));
}

export interface Authority {
  /** DER. */
  readonly certificate: Uint8Array;
  readonly publicKey: PublicKeyInfo;
  /** Signs a TBSCertificate or TBSCertList and puts it together. */
  readonly signed: (tbs: Uint8Array) => Uint8Array;
}

export const rootNotBefore: Date = new Date("2026-01-01T00:00:00Z");
export const rootNotAfter: Date = new Date("2046-01-01T00:00:00Z");

function authority(
  keys: KeyPairKeyObjectResult,
  certificateOf: (key: PublicKeyInfo) => Uint8Array,
): Authority {
  const publicKey = publicKeyInfo(keys.publicKey);
  return {
    publicKey,
    certificate: certificateOf(publicKey),
    signed: signerOf(keys.privateKey, publicKey),
  };
}

function signerOf(
  privateKey: KeyObject,
  publicKey: PublicKeyInfo,
): (tbs: Uint8Array) => Uint8Array {
  const { hash, identifier } = signatureAlgorithmFor(publicKey.type);
  return (tbs) => assembleSigned(tbs, identifier, sign(hash, tbs, privateKey));
}

export function rootAuthority(kind: KeyKind = "P-256", commonName = "Test Root"): Authority {
  const keys = keyPair(kind);
  return authority(keys, (publicKey) =>
    signerOf(
      keys.privateKey,
      publicKey,
    )(
      buildRootTbsCertificate({
        serialNumber: newSerialNumber(),
        notBefore: rootNotBefore,
        notAfter: rootNotAfter,
        subject: encodeName([
          { type: "O", value: "Example" },
          { type: "CN", value: commonName },
        ]),
        publicKey,
      }),
    ),
  );
}

export function intermediateAuthority(
  issuer: Authority,
  kind: KeyKind = "P-256",
  { pathLen = 0, extKeyUsage = [] as readonly string[] } = {},
): Authority {
  const template = certificateTemplate({
    issuerCertificate: issuer.certificate,
    keyUsage: ["keyCertSign", "cRLSign"],
    extKeyUsage,
    basicConstraints: { cA: true, pathLen },
    subjectKeyIdentifier: true,
    crlUrl: "http://pki.example.com/crl/root.crl",
    caIssuersUrl: "http://pki.example.com/ca/root.cer",
  });
  return authority(keyPair(kind), (publicKey) =>
    issuer.signed(
      buildTbsCertificate(template, {
        serialNumber: newSerialNumber(),
        notBefore: new Date("2026-02-01T00:00:00Z"),
        notAfter: new Date("2031-02-01T00:00:00Z"),
        subject: encodeName([
          { type: "O", value: "Example" },
          { type: "CN", value: "Test Issuer" },
        ]),
        publicKey,
        names: [],
      }),
    ),
  );
}
