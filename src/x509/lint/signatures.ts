/** Signature algorithms in the exact bytes of BR §7.1.3.2 (rules CRL-03, CRL-04, CRT-06), and RFC 8410's Ed25519. */

import { constants, verify } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { encodingIs } from "./octets.ts";
import type { DerElement } from "../der.ts";
import type { KeyType } from "./keys.ts";

interface SignatureAlgorithm {
  readonly name: string;
  readonly identifier: Uint8Array;
  readonly hash: "sha256" | "sha384" | "sha512" | null;
  readonly keyType: KeyType;
  /** RSASSA-PSS: octets of salt. */
  readonly saltLength?: number;
}

function algorithm(
  name: string,
  keyType: KeyType,
  hash: SignatureAlgorithm["hash"],
  hex: string,
  saltLength?: number,
): SignatureAlgorithm {
  const identifier = Uint8Array.from(Buffer.from(hex, "hex"));
  return { name, identifier, hash, keyType, ...(saltLength === undefined ? {} : { saltLength }) };
}

function pss(hash: "sha256" | "sha384" | "sha512", last: string, saltLength: number) {
  const digest = `300d060960864801650304020${last}0500`;
  const hex = `304106092a864886f70d01010a3034a00f${digest}a11c301a06092a864886f70d010108${digest}a2030201${saltLength.toString(16)}`;
  return algorithm(`RSASSA-PSS with ${hash}`, "RSA", hash, hex, saltLength);
}

const algorithms: readonly SignatureAlgorithm[] = [
  algorithm("ecdsa-with-SHA256", "P-256", "sha256", "300a06082a8648ce3d040302"),
  algorithm("ecdsa-with-SHA384", "P-384", "sha384", "300a06082a8648ce3d040303"),
  algorithm("ecdsa-with-SHA512", "P-521", "sha512", "300a06082a8648ce3d040304"),
  algorithm("Ed25519", "Ed25519", null, "300506032b6570"),
  algorithm("sha256WithRSAEncryption", "RSA", "sha256", "300d06092a864886f70d01010b0500"),
  algorithm("sha384WithRSAEncryption", "RSA", "sha384", "300d06092a864886f70d01010c0500"),
  algorithm("sha512WithRSAEncryption", "RSA", "sha512", "300d06092a864886f70d01010d0500"),
  pss("sha256", "1", 32),
  pss("sha384", "2", 48),
  pss("sha512", "3", 64),
];

/** What is wrong with signing by this key under this AlgorithmIdentifier, or the algorithm. */
export function algorithmFor(
  identifier: DerElement,
  keyType: KeyType,
): SignatureAlgorithm | { readonly fault: string } {
  for (const known of algorithms) {
    if (!encodingIs(identifier, known.identifier)) continue;
    if (known.keyType === keyType) return known;
    return { fault: `${known.name} does not fit the issuer's ${keyType} key` };
  }
  const hex = Buffer.from(identifier.bytes.subarray(identifier.start, identifier.end)).toString(
    "hex",
  );
  return { fault: `algorithm bytes ${hex.slice(0, 80)} are none of those allowed` };
}

/** Whether the signature of an X.509 object verifies; ECDSA signatures in DER. */
export function signatureVerifies(
  key: KeyObject,
  identifier: DerElement,
  keyType: KeyType,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  const known = algorithmFor(identifier, keyType);
  if ("fault" in known) return false;
  const { hash, saltLength } = known;
  return saltLength === undefined
    ? verify(hash, message, key, signature)
    : verify(
        hash,
        message,
        { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength },
        signature,
      );
}
