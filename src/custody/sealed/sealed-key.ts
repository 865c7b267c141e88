/** A sealed key, `CSKB` version 1: a private key or a token's PIN under a KEK. CUSTODY.md 2.5. */

import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  hash,
  hkdfSync,
  type KeyObject,
  timingSafeEqual,
} from "node:crypto";
import { CountersignError } from "../../errors.ts";
import type { ShareContext } from "./share.ts";
import { checkSharing, KEK_LENGTH } from "./shamir.ts";

/** What is sealed: a private key in PKCS#8, or a token's user PIN in UTF-8. */
export type SealedPayload = "pkcs8" | "pin";

/** What stands in clear at the beginning, and cannot be changed without the KEK. */
export interface SealedKeyHeader extends ShareContext {
  readonly payload: SealedPayload;
  /** 32 octets: CUSTODY.md 4.1. */
  readonly commitmentsHash: Uint8Array;
}

const MAGIC = Buffer.from("CSKB", "latin1");
const HEADER_LENGTH = 144;
const TAG_LENGTH = 16;
const HASH_LENGTH = 32;
const SALT = { at: 80, length: 32 };
const KEK_CHECK = { at: 112, length: 32 };
const payloads: readonly SealedPayload[] = ["pkcs8", "pin"];

/**
 * Seals a secret.
 *
 * @param salt - 32 random octets, new for every sealing: the key of the cipher is used once.
 * @returns 160 octets more than the secret.
 */
export function sealKey(
  header: SealedKeyHeader,
  secret: Uint8Array,
  kek: Uint8Array,
  salt: Uint8Array,
): Buffer {
  if (secret.length === 0) throw new RangeError("nothing to seal");
  if (salt.length !== SALT.length) throw new RangeError(`a salt has ${SALT.length} octets`);
  const octets = Buffer.alloc(HEADER_LENGTH);
  writeHeader(octets, header);
  octets.set(salt, SALT.at);
  const keys = deriveKeys(kek, salt);
  octets.set(keys.check, KEK_CHECK.at);
  const cipher = createCipheriv("aes-256-gcm", keys.key, keys.nonce);
  keys.key.fill(0);
  cipher.setAAD(octets);
  return Buffer.concat([octets, cipher.update(secret), cipher.final(), cipher.getAuthTag()]);
}

/**
 * Reads what stands in clear; only {@link openSealedKey} shows that it is genuine.
 *
 * @throws CountersignError `sealed-key-corrupt` if it is no sealed key of version 1.
 */
export function readSealedKey(sealed: Uint8Array): SealedKeyHeader {
  const octets = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.length);
  const payload = payloads[octets[6]! - 1];
  if (
    octets.length <= HEADER_LENGTH + TAG_LENGTH ||
    !octets.subarray(0, MAGIC.length).equals(MAGIC) ||
    octets[4] !== 1 || // version
    octets[5] !== 1 || // suite
    payload === undefined ||
    octets[7] !== 0 || // binding
    octets.readUInt16BE(14) !== 0
  ) {
    throw corrupt("it is not a sealed key that this version can read");
  }
  const header = {
    payload,
    epoch: octets.readUInt32BE(8),
    threshold: octets[12]!,
    shareCount: octets[13]!,
    keyId: Uint8Array.from(octets.subarray(16, 48)),
    commitmentsHash: Uint8Array.from(octets.subarray(48, 80)),
  };
  try {
    checkSharing(header);
  } catch {
    throw corrupt("its threshold and number of shares are not possible");
  }
  if (header.epoch === 0) throw corrupt("it has no epoch");
  return header;
}

/**
 * Opens a sealed key.
 *
 * @param kek - 32 octets; wipe it afterwards.
 * @returns the secret; wipe it afterwards. Whether a private key belongs to `keyId` is for the caller to check.
 * @throws CountersignError `kek-mismatch` if it was sealed under another KEK, `sealed-key-corrupt` if it was changed.
 */
export function openSealedKey(sealed: Uint8Array, kek: Uint8Array): Buffer {
  readSealedKey(sealed);
  const octets = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.length);
  const header = octets.subarray(0, HEADER_LENGTH);
  const keys = deriveKeys(kek, header.subarray(SALT.at, SALT.at + SALT.length));
  const check = header.subarray(KEK_CHECK.at, KEK_CHECK.at + KEK_CHECK.length);
  if (!timingSafeEqual(keys.check, check)) {
    keys.key.fill(0);
    throw new CountersignError(
      "kek-mismatch",
      "the shares are those of the share set, and still they do not open this key: the sealed key or the share set " +
        "was changed. Restore both from one backup",
    );
  }
  const decipher = createDecipheriv("aes-256-gcm", keys.key, keys.nonce, {
    authTagLength: TAG_LENGTH,
  });
  keys.key.fill(0);
  decipher.setAAD(header);
  decipher.setAuthTag(octets.subarray(-TAG_LENGTH));
  const secret = decipher.update(octets.subarray(HEADER_LENGTH, -TAG_LENGTH));
  try {
    decipher.final();
  } catch (error) {
    secret.fill(0);
    throw corrupt("it was changed after it was sealed", error);
  }
  return secret;
}

/**
 * The private key that was opened, after checking that it is the one of `keyId`; undefined if a PIN is sealed.
 *
 * @param secret - what {@link openSealedKey} gave.
 * @throws CountersignError `sealed-key-corrupt` if it is another key.
 */
export function privateKeyOf(
  { payload, keyId }: Pick<SealedKeyHeader, "payload" | "keyId">,
  secret: Buffer,
): KeyObject | undefined {
  if (payload !== "pkcs8") return undefined;
  let key: KeyObject;
  let spki: Buffer;
  try {
    key = createPrivateKey({ key: secret, format: "der", type: "pkcs8" });
    spki = createPublicKey(key).export({ format: "der", type: "spki" });
  } catch {
    // What OpenSSL says of it may quote it.
    throw corrupt("it holds no private key");
  }
  if (!timingSafeEqual(hash("sha256", spki, "buffer"), keyId)) {
    throw corrupt("it holds another key than it says");
  }
  return key;
}

function writeHeader(octets: Buffer, header: SealedKeyHeader): void {
  checkSharing(header);
  const { payload, epoch, threshold, shareCount, keyId, commitmentsHash } = header;
  if (keyId.length !== HASH_LENGTH || commitmentsHash.length !== HASH_LENGTH) {
    throw new RangeError("key id and hash of the commitments have 32 octets");
  }
  if (!Number.isInteger(epoch) || epoch < 1) throw new RangeError(`an epoch of ${epoch}`);
  octets.set(MAGIC, 0);
  octets[4] = 1; // version
  octets[5] = 1; // suite
  octets[6] = payloads.indexOf(payload) + 1;
  octets[7] = 0; // binding: none
  octets.writeUInt32BE(epoch, 8);
  octets[12] = threshold;
  octets[13] = shareCount;
  octets.set(keyId, 16);
  octets.set(commitmentsHash, 48);
}

function deriveKeys(
  kek: Uint8Array,
  salt: Uint8Array,
): { readonly check: Buffer; readonly key: Buffer; readonly nonce: Buffer } {
  if (kek.length !== KEK_LENGTH) throw new RangeError(`a KEK has ${KEK_LENGTH} octets`);
  const derive = (name: string, length: number): Buffer =>
    Buffer.from(hkdfSync("sha256", kek, salt, `countersign/v1/${name}`, length));
  return {
    check: derive("kek-check", KEK_CHECK.length),
    key: derive("wrap-key", 32),
    nonce: derive("wrap-nonce", 12),
  };
}

function corrupt(detail: string, cause?: unknown): CountersignError {
  return new CountersignError(
    "sealed-key-corrupt",
    `the sealed key cannot be opened: ${detail}. Restore it from a backup of its epoch`,
    { cause },
  );
}
