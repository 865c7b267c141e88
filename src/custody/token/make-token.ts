/** Makes a token with a key in it: CUSTODY 3.5, for a new token whose PIN stays in a file. */

import { randomBytes } from "node:crypto";
import { closeSync, constants, openSync, unlinkSync, writeSync } from "node:fs";
import { basename } from "node:path";
import pkcs11, { type PKCS11 } from "pkcs11js";
import { CountersignError } from "../../errors.ts";
import { parsePublicKey, publicKeyObject } from "../../x509/public-key.ts";
import { signatureAlgorithmFor, verifySignature } from "../../x509/signature-algorithm.ts";
import { makingOf, signingOf } from "./key-kinds.ts";
import { readPin } from "./pin-file.ts";
import { formatPkcs11Uri } from "./pkcs11-uri.ts";
import type { MadeToken, MakeTokenOptions } from "./spawn-make-token.ts";
import { loadModule, openToken, returnValue, withoutPadding } from "./token.ts";

/**
 * Initialises an empty token with random PINs and makes a key in it, in a process of its own: PINs pass through
 * strings, which only its end removes. The SO PIN is kept nowhere. A token that is initialised is never touched.
 *
 * @throws CountersignError before anything is made: `config-invalid` (module, label, PIN file), `key-ambiguous`
 *   (the label is taken), `key-refused` (the token makes no such keys), `token-unavailable` (none is empty).
 *   What fails later leaves a token that nothing opens, to be removed with its own tool, and no PIN file.
 */
export async function makeToken(
  options: MakeTokenOptions,
  random: (size: number) => Uint8Array = randomBytes,
): Promise<MadeToken> {
  const octets = Buffer.byteLength(options.label);
  if (octets < 1 || octets > 32) {
    throw new CountersignError("config-invalid", "A token's label has 1 to 32 octets.");
  }
  const id = random(16);
  const { lib } = loadModule(options.modulePath);
  let written = false;
  try {
    lib.C_Initialize({ flags: pkcs11.CKF_OS_LOCKING_OK });
    let serial: string;
    try {
      const empty = emptySlot(lib, options);
      const userPin = randomPin(lib, empty, random);
      // 1. The PIN is on disk before the token knows it. A crash here leaves a file that opens nothing.
      writePinFile(options.pinFile, userPin);
      written = true;
      // 2. The token. A crash here leaves one without a key.
      const slot = initialize(lib, empty, options.label, randomPin(lib, empty, random), userPin);
      serial = withoutPadding(lib.C_GetTokenInfo(slot).serialNumber);
      // 3. The key. A crash here leaves one that nobody was told of.
      generate(lib, slot, userPin, id, options);
    } finally {
      lib.C_Finalize();
    }
    // 4. What will be used: the URI finds the key, the PIN in the file opens it, and it signs.
    return await prove(
      options,
      formatPkcs11Uri({ token: options.label, serial, object: options.object, id }),
    );
  } catch (error) {
    if (written) unlinkSync(options.pinFile);
    if (error instanceof CountersignError) throw error;
    const value = returnValue(error);
    if (value === undefined) throw error;
    throw new CountersignError("token-unavailable", `The token does not answer (${value}).`, {
      cause: error,
    });
  }
}

/** A slot whose token nobody has initialised, and that makes such keys. */
function emptySlot(lib: PKCS11, { label, key }: MakeTokenOptions): Buffer {
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

/** 24 characters of 62 kinds, 142 bits; fewer, and at least 8, only if the token takes no more. */
function randomPin(lib: PKCS11, slot: Buffer, random: (size: number) => Uint8Array): string {
  const { minPinLen, maxPinLen } = lib.C_GetTokenInfo(slot);
  const length = Math.min(Math.max(24, minPinLen), maxPinLen);
  if (length < 8) {
    throw new CountersignError("config-invalid", "The token takes no PIN of 8 characters.");
  }
  let pin = "";
  while (pin.length < length) {
    const [octet] = random(1);
    // 248 is the last multiple of 62 in an octet: what lies above would favour the first letters.
    if (octet! < 248) pin += alphabet[octet! % alphabet.length];
  }
  return pin;
}

function writePinFile(path: string, pin: string): void {
  let file: number;
  try {
    // Node's permission model has no fsync, hence O_SYNC.
    const { O_CREAT, O_EXCL, O_SYNC, O_WRONLY } = constants;
    file = openSync(path, O_CREAT | O_EXCL | O_SYNC | O_WRONLY, 0o600);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    const why = code === "EEXIST" ? "is there already and is not overwritten" : "cannot be made";
    throw new CountersignError("config-invalid", `The PIN file ${basename(path)} ${why}.`, {
      cause,
    });
  }
  try {
    writeSync(file, `${pin}\n`);
  } catch (error) {
    unlinkSync(path);
    throw error;
  } finally {
    closeSync(file);
  }
}

/** @returns the slot where the token is afterwards: SoftHSM gives it another number. */
function initialize(
  lib: PKCS11,
  empty: Buffer,
  label: string,
  soPin: string,
  userPin: string,
): Buffer {
  const before = new Set(
    lib.C_GetSlotList(true).map((slot) => lib.C_GetTokenInfo(slot).serialNumber),
  );
  // C_InitToken reads 32 octets, whatever the string's length.
  lib.C_InitToken(empty, soPin, label + " ".repeat(32 - Buffer.byteLength(label)));
  const slot = lib.C_GetSlotList(true).find((candidate) => {
    const token = lib.C_GetTokenInfo(candidate);
    return withoutPadding(token.label) === label && !before.has(token.serialNumber);
  });
  if (slot === undefined) throw new Error("the token is not there after its initialisation");
  const session = lib.C_OpenSession(slot, pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION);
  lib.C_Login(session, pkcs11.CKU_SO, soPin);
  lib.C_InitPIN(session, userPin);
  lib.C_Logout(session);
  lib.C_CloseSession(session);
  return slot;
}

function generate(
  lib: PKCS11,
  slot: Buffer,
  pin: string,
  id: Uint8Array,
  { key, object }: MakeTokenOptions,
): void {
  const session = lib.C_OpenSession(slot, pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION);
  lib.C_Login(session, pkcs11.CKU_USER, pin);
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

async function prove(options: MakeTokenOptions, uri: string): Promise<MadeToken> {
  const pin = readPin(options.pinFile);
  try {
    const token = openToken({ modulePath: options.modulePath, uri, pin });
    try {
      const { publicKey, type, info } = token.key;
      const message = Buffer.from("countersign: the first signature of this key");
      const signature = await token.key.sign(message);
      const key = publicKeyObject(parsePublicKey(publicKey));
      const algorithm = signatureAlgorithmFor(type);
      if (type !== options.key || !verifySignature(key, algorithm, message, signature)) {
        throw new Error("the token's first signature does not verify");
      }
      return { uri, publicKey, type: options.key, tokenInfo: info };
    } finally {
      await token.close();
    }
  } finally {
    pin.fill(0);
  }
}
