/** Makes a token with a key in it: CUSTODY.md 3.5. Where its PIN goes is the caller's. */

import pkcs11, { type PKCS11 } from "pkcs11js";
import { CountersignError } from "../../errors.ts";
import { parsePublicKey, publicKeyObject } from "../../x509/public-key.ts";
import { signatureAlgorithmFor, verifySignature } from "../../x509/signature-algorithm.ts";
import { makingOf, signingOf } from "./key-kinds.ts";
import { formatPkcs11Uri } from "./pkcs11-uri.ts";
import type { MadeToken, NewTokenOptions } from "./spawn-make-token.ts";
import {
  asTokenError,
  loadModule,
  openToken,
  type TokenKey,
  type TokenKeyAttributes,
  type TokenOptions,
  withoutPadding,
} from "./token.ts";

/** Where the user PIN of a new token goes. */
export interface PinPlace {
  /** Takes a copy, before the token knows the PIN: what fails here leaves no token that nothing opens. */
  keep(pin: Buffer): void;
  /** A copy of what was kept, which proves that it opens the token; it is wiped then. */
  kept(): Uint8Array;
}

/**
 * Initialises an empty token with random PINs and makes a key in it. The SO PIN is kept nowhere. A token that is
 * initialised is never touched.
 *
 * For a process of its own: PINs pass through strings, which only its end removes.
 *
 * @throws CountersignError before anything is made: `config-invalid` (module, label), `key-ambiguous` (the label is
 *   taken), `key-refused` (the token makes no such keys), `token-unavailable` (none is empty). What fails later
 *   leaves a token that is of no use, to be removed with its own tool.
 */
export async function newToken(
  options: NewTokenOptions,
  place: PinPlace,
  random: (size: number) => Uint8Array,
): Promise<MadeToken & { readonly attributes: TokenKeyAttributes }> {
  const octets = Buffer.byteLength(options.label);
  if (octets < 1 || octets > 32) {
    throw new CountersignError("config-invalid", "A token's label has 1 to 32 octets.");
  }
  const id = random(16);
  const { lib } = loadModule(options.modulePath);
  let uri: string;
  try {
    lib.C_Initialize({ flags: pkcs11.CKF_OS_LOCKING_OK });
    try {
      const empty = emptySlot(lib, options);
      const userPin = randomPin(lib.C_GetTokenInfo(empty), random);
      try {
        // 1. The PIN is kept before the token knows it. A crash here leaves one that opens nothing.
        place.keep(userPin);
        // 2. The token. A crash here leaves one without a key.
        const slot = initialize(lib, empty, options.label, userPin, random);
        const serial = withoutPadding(lib.C_GetTokenInfo(slot).serialNumber);
        uri = formatPkcs11Uri({ token: options.label, serial, object: options.object, id });
        // 3. The key. A crash here leaves one that nobody was told of.
        generate(lib, slot, userPin, id, options);
      } finally {
        userPin.fill(0);
      }
    } finally {
      lib.C_Finalize();
    }
  } catch (error) {
    throw asTokenError(error);
  }
  // 4. What will be used: the URI finds the key, the PIN that was kept opens it, and it signs.
  const pin = place.kept();
  try {
    const { publicKey, type, attributes, info } = await proveKey({
      modulePath: options.modulePath,
      uri,
      pin,
    });
    if (type !== options.key) throw new Error(`the token made a ${type} key`);
    return { uri, publicKey, type: options.key, attributes, tokenInfo: info };
  } finally {
    pin.fill(0);
  }
}

/**
 * Opens a token, has its key sign once, and verifies that.
 *
 * @throws CountersignError as {@link openToken} and {@link TokenKey.sign} do; Error if the signature is wrong.
 */
export async function proveKey(options: TokenOptions): Promise<Omit<TokenKey, "sign">> {
  const token = openToken(options);
  try {
    const { publicKey, type, attributes, info } = token.key;
    const message = Buffer.from("countersign: a test of the key in a token");
    const signature = await token.key.sign(message);
    const key = publicKeyObject(parsePublicKey(publicKey));
    if (!verifySignature(key, signatureAlgorithmFor(type), message, signature)) {
      throw new Error("the token makes signatures that do not verify");
    }
    return { publicKey, type, attributes, info };
  } finally {
    await token.close();
  }
}

/** A slot whose token nobody has initialised, and that makes such keys. */
function emptySlot(lib: PKCS11, { label, key }: NewTokenOptions): Buffer {
  const slots = lib.C_GetSlotList(true).map((slot) => ({ slot, token: lib.C_GetTokenInfo(slot) }));
  const initialized = ({ token }: (typeof slots)[number]): boolean =>
    (token.flags & pkcs11.CKF_TOKEN_INITIALIZED) !== 0;
  if (slots.some((one) => initialized(one) && withoutPadding(one.token.label) === label)) {
    throw new CountersignError("key-ambiguous", `There is a token named ${label} already.`);
  }
  const empty = slots.find((one) => !initialized(one))?.slot;
  if (empty === undefined) {
    throw new CountersignError("token-unavailable", "No token is empty; none is overwritten.");
  }
  const mechanisms = lib.C_GetMechanismList(empty);
  if (![makingOf(key).mechanism, signingOf(key).mechanism].every((m) => mechanisms.includes(m))) {
    throw new CountersignError("key-refused", `The token makes no ${key} keys.`);
  }
  return empty;
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/**
 * Draws a PIN: 24 characters of 62 kinds, 142 bits; fewer, and at least 8, only if the token takes no more.
 *
 * @returns ASCII, in a buffer of its own.
 * @throws CountersignError `config-invalid` if the token takes no PIN of 8 characters.
 */
export function randomPin(
  { minPinLen, maxPinLen }: Pick<pkcs11.TokenInfo, "minPinLen" | "maxPinLen">,
  random: (size: number) => Uint8Array,
): Buffer {
  const length = Math.min(Math.max(24, minPinLen), maxPinLen);
  if (length < 8) {
    throw new CountersignError("config-invalid", "The token takes no PIN of 8 characters.");
  }
  const pin = Buffer.allocUnsafeSlow(length);
  for (let at = 0; at < length;) {
    const [octet] = random(1);
    // 248 is the last multiple of 62 in an octet: what lies above would favour the first letters.
    if (octet! < 248) pin[at++] = alphabet.charCodeAt(octet! % alphabet.length);
  }
  return pin;
}

/** @returns the slot where the token is afterwards: SoftHSM gives it another number. */
function initialize(
  lib: PKCS11,
  empty: Buffer,
  label: string,
  userPin: Buffer,
  random: (size: number) => Uint8Array,
): Buffer {
  const soPin = randomPin(lib.C_GetTokenInfo(empty), random);
  try {
    const before = new Set(
      lib.C_GetSlotList(true).map((slot) => lib.C_GetTokenInfo(slot).serialNumber),
    );
    const soPinText = soPin.toString("utf8");
    // C_InitToken reads 32 octets, whatever the string's length.
    lib.C_InitToken(empty, soPinText, label + " ".repeat(32 - Buffer.byteLength(label)));
    const slot = lib.C_GetSlotList(true).find((candidate) => {
      const token = lib.C_GetTokenInfo(candidate);
      return withoutPadding(token.label) === label && !before.has(token.serialNumber);
    });
    if (slot === undefined) throw new Error("the token is not there after its initialisation");
    const session = lib.C_OpenSession(slot, pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION);
    lib.C_Login(session, pkcs11.CKU_SO, soPinText);
    lib.C_InitPIN(session, userPin.toString("utf8"));
    lib.C_Logout(session);
    lib.C_CloseSession(session);
    return slot;
  } finally {
    soPin.fill(0);
  }
}

function generate(
  lib: PKCS11,
  slot: Buffer,
  pin: Buffer,
  id: Uint8Array,
  { key, object }: NewTokenOptions,
): void {
  const session = lib.C_OpenSession(slot, pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION);
  lib.C_Login(session, pkcs11.CKU_USER, pin.toString("utf8"));
  const { mechanism, publicTemplate } = makingOf(key);
  const both = [
    { type: pkcs11.CKA_TOKEN, value: true },
    { type: pkcs11.CKA_LABEL, value: object },
    { type: pkcs11.CKA_ID, value: Buffer.from(id) },
  ];
  lib.C_GenerateKeyPair(
    session,
    { mechanism },
    [...both, { type: pkcs11.CKA_VERIFY, value: true }, ...publicTemplate],
    [
      ...both,
      { type: pkcs11.CKA_PRIVATE, value: true },
      { type: pkcs11.CKA_SENSITIVE, value: true },
      { type: pkcs11.CKA_EXTRACTABLE, value: false },
      { type: pkcs11.CKA_SIGN, value: true },
      { type: pkcs11.CKA_DECRYPT, value: false },
      { type: pkcs11.CKA_UNWRAP, value: false },
      { type: pkcs11.CKA_DERIVE, value: false },
    ],
  );
}
