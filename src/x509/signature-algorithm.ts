/** Signature algorithms: RFC 4055 §5, RFC 5758 §3.2, RFC 8410 §3. */

import { verify, type KeyObject } from "node:crypto";
import { equalOctets } from "./der.ts";
import type { PublicKeyInfo } from "./public-key.ts";

export interface SignatureAlgorithm {
  /** As the RFC spells it: `ecdsa-with-SHA256`. */
  readonly name: string;
  /** The AlgorithmIdentifier, DER, in the one encoding that CRL-03 and CRT-06 accept. */
  readonly identifier: Uint8Array;
  /** What the message is hashed with, or null where the algorithm takes the message itself. */
  readonly hash: "sha256" | "sha384" | "sha512" | null;
  /** `asymmetricKeyType` of the keys it belongs to. */
  readonly keyType: "rsa" | "ec" | "ed25519";
}

export const signatureAlgorithms = {
  sha256WithRSAEncryption: rsa("sha256", "300d06092a864886f70d01010b0500"),
  sha384WithRSAEncryption: rsa("sha384", "300d06092a864886f70d01010c0500"),
  sha512WithRSAEncryption: rsa("sha512", "300d06092a864886f70d01010d0500"),
  "ecdsa-with-SHA256": ecdsa("sha256", "300a06082a8648ce3d040302"),
  "ecdsa-with-SHA384": ecdsa("sha384", "300a06082a8648ce3d040303"),
  "ecdsa-with-SHA512": ecdsa("sha512", "300a06082a8648ce3d040304"),
  Ed25519: algorithm("Ed25519", null, "ed25519", "300506032b6570"),
} as const;

function rsa(hash: "sha256" | "sha384" | "sha512", identifier: string): SignatureAlgorithm {
  return algorithm(`${hash}WithRSAEncryption`, hash, "rsa", identifier);
}

function ecdsa(hash: "sha256" | "sha384" | "sha512", identifier: string): SignatureAlgorithm {
  return algorithm(`ecdsa-with-${hash.toUpperCase()}`, hash, "ec", identifier);
}

function algorithm(
  name: string,
  hash: SignatureAlgorithm["hash"],
  keyType: SignatureAlgorithm["keyType"],
  identifier: string,
): SignatureAlgorithm {
  return { name, hash, keyType, identifier: Uint8Array.from(Buffer.from(identifier, "hex")) };
}

/** The algorithm an issuer's key signs with; the hash follows the curve (CRL-04). */
export function signatureAlgorithmFor(type: PublicKeyInfo["type"]): SignatureAlgorithm {
  switch (type) {
    case "P-256":
      return signatureAlgorithms["ecdsa-with-SHA256"];
    case "P-384":
      return signatureAlgorithms["ecdsa-with-SHA384"];
    case "P-521":
      return signatureAlgorithms["ecdsa-with-SHA512"];
    case "Ed25519":
      return signatureAlgorithms.Ed25519;
    case "RSA-2048":
    case "RSA-3072":
    case "RSA-4096":
    case "RSA-other":
      return signatureAlgorithms.sha256WithRSAEncryption;
  }
}

const known: readonly SignatureAlgorithm[] = Object.values(signatureAlgorithms);

/** The algorithm that an AlgorithmIdentifier (DER) stands for, byte for byte, or undefined. */
export function signatureAlgorithmFrom(identifier: Uint8Array): SignatureAlgorithm | undefined {
  return known.find((candidate) => equalOctets(candidate.identifier, identifier));
}

/**
 * Checks a signature in the form X.509 holds it (ECDSA: DER, and only its one DER encoding).
 *
 * @returns false also when the key is not of the algorithm's kind: OpenSSL would follow the key, and so accept
 *   a signature that is labelled as something else.
 */
export function verifySignature(
  key: KeyObject,
  algorithm: SignatureAlgorithm,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  if (key.asymmetricKeyType !== algorithm.keyType) return false;
  return verify(algorithm.hash, message, key, signature);
}
