/** A root and an issuing CA whose keys are in this process: for what a token's clock and grants are not the point of. */

import { generateKeyPairSync, randomBytes, sign, type KeyObject } from "node:crypto";
import { compilePolicy, type CompiledPolicy } from "../../src/policy/decide.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import type { Requester } from "../../src/policy/requester.ts";
import {
  buildRootTbsCertificate,
  buildTbsCertificate,
  certificateTemplate,
} from "../../src/x509/certificate-template.ts";
import { encodeName } from "../../src/x509/name.ts";
import { parsePublicKey, spkiDigest, type PublicKeyInfo } from "../../src/x509/public-key.ts";
import { serialNumberFrom } from "../../src/x509/serial-number.ts";
import { signatureAlgorithmFor } from "../../src/x509/signature-algorithm.ts";
import { assembleSigned } from "../../src/x509/signed.ts";

export const keyTypes = ["P-256", "P-384", "P-521", "RSA-2048", "Ed25519"] as const;
export type SoftwareKeyType = (typeof keyTypes)[number];

export interface SoftwareKey {
  readonly info: PublicKeyInfo;
  readonly keyId: string;
  readonly privateKey: KeyObject;
  /** As X.509 wants it. */
  sign(tbs: Uint8Array): Uint8Array;
}

export function softwareKey(type: SoftwareKeyType): SoftwareKey {
  const { privateKey, publicKey } =
    type === "RSA-2048"
      ? generateKeyPairSync("rsa", { modulusLength: 2048 })
      : type === "Ed25519"
        ? generateKeyPairSync("ed25519")
        : generateKeyPairSync("ec", { namedCurve: type });
  const spki = publicKey.export({ type: "spki", format: "der" });
  const info = parsePublicKey(spki);
  const { hash } = signatureAlgorithmFor(info.type);
  return {
    info,
    keyId: spkiDigest(spki),
    privateKey,
    sign: (tbs) => sign(hash, tbs, privateKey),
  };
}

export interface SoftwareCa {
  readonly root: Uint8Array;
  readonly issuing: Uint8Array;
  readonly rootKey: SoftwareKey;
  readonly issuingKey: SoftwareKey;
  readonly algorithm: Uint8Array;
}

export const DAY = 86_400_000;

/** Valid from an hour before `at`: the root for ten years, the issuing CA for `days`. */
export function softwareCa(at: Date, type: SoftwareKeyType = "P-256", days = 1000): SoftwareCa {
  const rootKey = softwareKey(type);
  const issuingKey = softwareKey(type);
  const notBefore = new Date(Math.floor(at.getTime() / 1000) * 1000 - 3_600_000);
  const { identifier } = signatureAlgorithmFor(rootKey.info.type);
  const rootTbs = buildRootTbsCertificate({
    serialNumber: serialNumberFrom(randomBytes(20)),
    notBefore,
    notAfter: new Date(notBefore.getTime() + 3650 * DAY),
    subject: encodeName([{ type: "CN", value: `Test root ${type}` }]),
    publicKey: rootKey.info,
  });
  const root = assembleSigned(rootTbs, identifier, rootKey.sign(rootTbs));
  const issuingTbs = buildTbsCertificate(
    certificateTemplate({
      issuerCertificate: root,
      keyUsage: ["keyCertSign", "cRLSign"],
      extKeyUsage: [],
      basicConstraints: { cA: true, pathLen: 0 },
      crlUrl: "http://127.0.0.1/crl/root.crl",
      caIssuersUrl: "http://127.0.0.1/ca/root.cer",
      subjectKeyIdentifier: true,
    }),
    {
      serialNumber: serialNumberFrom(randomBytes(20)),
      notBefore,
      notAfter: new Date(notBefore.getTime() + days * DAY),
      subject: encodeName([{ type: "CN", value: `Test issuing CA ${type}` }]),
      publicKey: issuingKey.info,
      names: [],
    },
  );
  const issuing = assembleSigned(issuingTbs, identifier, rootKey.sign(issuingTbs));
  return { root, issuing, rootKey, issuingKey, algorithm: identifier };
}

export const testRequester: Requester = {
  name: "deploy",
  credentials: [],
  issuers: ["issuing"],
  profiles: ["server", "client"],
  names: { dns: { allow: ["subdomains:example.test"] }, ip: { allow: ["10.0.0.0/8"] } },
  revoke: "own",
};

export function testPolicy(): CompiledPolicy {
  const policy = parsePolicy(
    `version: 1
issuers:
  root: { profiles: [] }
  issuing:
    profiles: [server, client]
    names:
      dns: { allow: ["subdomains:example.test"], deny: ["subdomains:secret.example.test"] }
      ip: { allow: ["10.0.0.0/8"] }
profiles:
  server:
    kind: server
    lifetime: { default: 30d, maximum: 90d }
    keyTypes: [P-256, P-384, P-521, RSA-2048, Ed25519]
  client:
    kind: client
    lifetime: { default: 30d, maximum: 90d }
    keyTypes: [P-256]
`,
    "test-policy.yaml",
  );
  return compilePolicy(policy, [testRequester]);
}
