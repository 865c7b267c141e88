/** A CA key in the memory of its signer, out of a seal. The process's end is its end. */

import { createPrivateKey, createPublicKey, hash, sign, type KeyObject } from "node:crypto";
import { promisify } from "node:util";
import { CountersignError } from "../errors.ts";
import { parsePublicKey } from "../x509/public-key.ts";
import { signatureAlgorithmFor } from "../x509/signature-algorithm.ts";
import type { SigningKey } from "./signer.ts";

const signAside = promisify<string | null, Uint8Array, KeyObject, Buffer>(sign);

/**
 * Imports a key.
 *
 * @param pkcs8 - DER; wiped.
 * @param keyId - what its SubjectPublicKeyInfo must hash to, hex.
 * @throws CountersignError `sealed-key-corrupt` if it is another key, or none.
 */
export function softwareKey(pkcs8: Buffer, keyId: string): SigningKey {
  let key: KeyObject;
  let publicKey: Buffer;
  try {
    key = createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" });
    publicKey = createPublicKey(key).export({ format: "der", type: "spki" });
  } catch {
    // What OpenSSL says of it may quote it.
    throw new CountersignError("sealed-key-corrupt", "what was opened is no private key");
  } finally {
    pkcs8.fill(0);
  }
  if (hash("sha256", publicKey) !== keyId) {
    throw new CountersignError("sealed-key-corrupt", "what was opened is another key");
  }
  const { hash: digest, keyType } = signatureAlgorithmFor(parsePublicKey(publicKey).type);
  return {
    publicKey,
    async sign(tbs) {
      // An RSA signature takes a millisecond and more, and so leaves the other requests their turn.
      return keyType === "rsa" ? signAside(digest, tbs, key) : sign(digest, tbs, key);
    },
  };
}
