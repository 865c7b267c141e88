/** A key in a PKCS#11 token, as the signer process uses it. */

import { isUtf8 } from "node:buffer";
import { basename } from "node:path";
import { Module, ObjectClass, type Session, SessionFlag, type Slot } from "graphene-pk11";
import pkcs11, { type PKCS11 } from "pkcs11js";
import { CountersignError } from "../../errors.ts";
import type { PublicKeyType } from "../../x509/public-key.ts";
import { attributeOf, readPublicKey, type Signing, signingOf } from "./key-kinds.ts";
import { formatPkcs11Uri, parsePkcs11Uri, type Pkcs11Uri } from "./pkcs11-uri.ts";

export interface TokenOptions {
  /** The PKCS#11 module: a shared library. */
  readonly modulePath: string;
  /** RFC 7512; names exactly one key. */
  readonly uri: string;
  /** The user PIN, UTF-8. Copied; the caller wipes its own. */
  readonly pin: Uint8Array;
  /** Takes a key that could leave the token, or that the token would show. */
  readonly allowExtractable?: boolean;
  readonly now?: () => Date;
}

/** What the token says about the private key: PKCS#11 v2.40 §4.9. */
export interface TokenKeyAttributes {
  readonly sensitive: boolean;
  readonly alwaysSensitive: boolean;
  readonly extractable: boolean;
  readonly neverExtractable: boolean;
  /** Made on the token, not imported. */
  readonly local: boolean;
}

export interface TokenInfo {
  readonly label: string;
  readonly serialNumber: string;
  readonly manufacturer: string;
  readonly model: string;
  /** `major.minor`. */
  readonly firmware: string;
}

export interface TokenKey {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array;
  readonly type: PublicKeyType;
  readonly attributes: TokenKeyAttributes;
  readonly info: TokenInfo;
  /**
   * Signs as X.509 wants it: ECDSA with the hash of the curve's size, in DER; RSA PKCS #1 v1.5 with SHA-256;
   * Ed25519. The caller verifies what comes back.
   *
   * @throws CountersignError `token-unavailable` while the token is away. The next call that comes at least a
   *   second after the last attempt opens it anew. `pin-wrong` from then on if the token refuses the PIN.
   */
  sign(tbs: Uint8Array): Promise<Uint8Array>;
}

/** At most one attempt to open the token anew in this time, milliseconds. */
const REOPEN_INTERVAL = 1000;

/**
 * Opens the token that the URI names, logs in once, and finds the key.
 *
 * One token is open at a time in a process: login and C_Finalize concern all sessions of a module.
 *
 * @throws CountersignError `config-invalid` (URI, module), `token-unavailable`, `pin-wrong`, `key-unknown`,
 *   `key-ambiguous`, `key-refused`.
 */
export function openToken(options: TokenOptions): Token {
  return new Token(options);
}

/** One open session, the private key's handle in it, and the buffers of the call it is used for. */
interface Lane {
  readonly session: Buffer;
  readonly privateKey: Buffer;
  readonly signature: Buffer;
  input: Buffer;
}

interface OpenKey {
  readonly publicKey: Uint8Array;
  readonly type: PublicKeyType;
  readonly attributes: TokenKeyAttributes;
  readonly info: TokenInfo;
  readonly lanes: readonly Lane[];
}

export class Token {
  readonly key: TokenKey;
  readonly #uri: Pkcs11Uri;
  readonly #module: Module;
  readonly #lib: PKCS11;
  /** Kept for the day the token comes back. pkcs11js takes strings only, so each login leaves one behind. */
  readonly #pin: Buffer;
  readonly #allowExtractable: boolean;
  readonly #now: () => Date;
  readonly #signing: Signing;
  readonly #idle: Lane[] = [];
  readonly #waiting: ((lane: Lane) => void)[] = [];
  /** Calls that hold a lane or wait for one. */
  #busy = 0;
  #whenIdle: (() => void) | undefined;
  #initialized = false;
  /** Why signing is off, and since when. */
  #lost: CountersignError | undefined;
  #lastAttempt = 0;
  #closed = false;

  constructor(options: TokenOptions) {
    this.#uri = parsePkcs11Uri(options.uri);
    if (this.#uri.type === "public") {
      throw new CountersignError("config-invalid", "The PKCS#11 URI names a public key.");
    }
    this.#allowExtractable = options.allowExtractable ?? false;
    this.#now = options.now ?? (() => new Date());
    this.#module = loadModule(options.modulePath);
    this.#lib = this.#module.lib;
    this.#pin = Buffer.allocUnsafeSlow(options.pin.length);
    this.#pin.set(options.pin);
    try {
      const open = this.#open();
      this.#signing = signingOf(open.type);
      this.#idle.push(...open.lanes);
      const { publicKey, type, attributes, info } = open;
      this.key = { publicKey, type, attributes, info, sign: (tbs) => this.#sign(tbs) };
    } catch (error) {
      this.#finalize();
      this.#pin.fill(0);
      throw error;
    }
  }

  /**
   * Opens the token anew after it was lost; does nothing while it works. Signing does this by itself.
   *
   * @throws CountersignError as {@link openToken} does. After `pin-wrong` it is thrown again without asking the
   *   token: three wrong tries lock a real one.
   */
  reopen(): void {
    if (this.#closed) throw new CountersignError("token-unavailable", "The token is closed.");
    if (this.#lost === undefined) return;
    if (this.#lost.code === "pin-wrong") throw this.#lost;
    // C_Finalize under a running call ends the process.
    if (this.#busy > 0) throw this.#lost;
    this.#lastAttempt = this.#now().getTime();
    // Handles of sessions and objects stay invalid after a token's return, and SoftHSM finds no objects in
    // sessions opened then: only a new C_Initialize looks at everything afresh.
    this.#finalize();
    this.#idle.length = 0;
    try {
      const open = this.#open();
      if (!Buffer.from(open.publicKey).equals(this.key.publicKey)) {
        throw new CountersignError("key-unknown", "The token came back with another key.");
      }
      this.#idle.push(...open.lanes);
      this.#lost = undefined;
    } catch (error) {
      this.#lost = asTokenError(error);
      throw this.#lost;
    }
  }

  /**
   * Looks whether the key is there, and opens the token anew as signing does.
   *
   * @throws CountersignError as signing would.
   */
  check(): void {
    if (this.#lost !== undefined) this.#reopenInTime(this.#lost);
    // A call under way finds out by itself.
    const lane = this.#idle[0];
    if (this.#busy > 0 || lane === undefined) return;
    try {
      attributeOf(this.#lib, lane.session, lane.privateKey, pkcs11.CKA_ID);
    } catch (error) {
      throw this.#lose(error);
    }
  }

  /** Waits for the calls under way, logs out and forgets the PIN. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#lost ??= new CountersignError("token-unavailable", "The token is closed.");
    if (this.#busy > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    this.#finalize();
    this.#pin.fill(0);
  }

  async #sign(tbs: Uint8Array): Promise<Uint8Array> {
    if (this.#lost !== undefined) this.#reopenInTime(this.#lost);
    if (this.#signing.inFlight === 0) return this.#signNow(tbs);

    this.#busy++;
    const lane =
      this.#idle.pop() ?? (await new Promise<Lane>((resolve) => this.#waiting.push(resolve)));
    try {
      if (this.#lost !== undefined) throw this.#lost;
      return await this.#signInBackground(lane, tbs);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#idle.push(lane);
      else next(lane);
      this.#busy--;
      if (this.#busy === 0) this.#whenIdle?.();
    }
  }

  #signNow(tbs: Uint8Array): Uint8Array {
    const lane = this.#idle[0]!;
    const input = asBuffer(this.#signing.input(tbs));
    try {
      this.#lib.C_SignInit(lane.session, { mechanism: this.#signing.mechanism }, lane.privateKey);
      const signature = this.#lib.C_Sign(lane.session, input, lane.signature);
      return this.#signing.output(signature);
    } catch (error) {
      throw this.#lose(error);
    }
  }

  async #signInBackground(lane: Lane, tbs: Uint8Array): Promise<Uint8Array> {
    // pkcs11js keeps no reference to the bytes that its thread reads.
    lane.input = asBuffer(this.#signing.input(tbs));
    try {
      this.#lib.C_SignInit(lane.session, { mechanism: this.#signing.mechanism }, lane.privateKey);
      const signature = await new Promise<Uint8Array>((resolve, reject) => {
        this.#lib.C_Sign(lane.session, lane.input, lane.signature, (error, data) => {
          if (error) reject(error);
          else resolve(data);
        });
      });
      return this.#signing.output(signature);
    } catch (error) {
      throw this.#lose(error);
    }
  }

  /** Whatever a signing call fails with, its session is not used again. */
  #lose(error: unknown): CountersignError {
    if (this.#lost === undefined) {
      this.#lost = asTokenError(error);
      this.#lastAttempt = -Infinity; // the first attempt to reopen may come at once
    }
    return this.#lost;
  }

  #reopenInTime(lost: CountersignError): void {
    const since = Math.abs(this.#now().getTime() - this.#lastAttempt); // a clock set back waits no longer
    if (since < REOPEN_INTERVAL) throw lost;
    this.reopen();
  }

  #open(): OpenKey {
    try {
      this.#initialize();
      const slot = findSlot(this.#module, this.#uri);
      const token = slot.getToken();
      const first = slot.open(SessionFlag.SERIAL_SESSION);
      if ((token.flags & pkcs11.CKF_LOGIN_REQUIRED) !== 0) this.#login(first, token.flags);

      const publicObject = findPublicKey(first, this.#uri);
      const { spki, type } = readPublicKey(this.#lib, first.handle, publicObject);
      const id = this.#uri.id ?? attributeOf(this.#lib, first.handle, publicObject, pkcs11.CKA_ID);
      const privateObject = findPrivateKey(first, id);
      const attributes = this.#checkPrivateKey(first.handle, privateObject);

      const signing = signingOf(type);
      const sessions = [first];
      while (sessions.length < signing.inFlight) {
        const another = openAnother(slot);
        if (another === undefined) break;
        sessions.push(another);
      }
      return {
        publicKey: spki,
        type,
        attributes,
        info: {
          label: withoutPadding(token.label),
          serialNumber: withoutPadding(token.serialNumber),
          manufacturer: withoutPadding(token.manufacturerID),
          model: withoutPadding(token.model),
          firmware: `${token.firmwareVersion.major}.${token.firmwareVersion.minor}`,
        },
        lanes: sessions.map(({ handle }) => ({
          session: handle,
          privateKey: privateObject, // object handles are the same in all sessions of a process
          signature: Buffer.allocUnsafeSlow(signing.signatureLength),
          input: Buffer.alloc(0),
        })),
      };
    } catch (error) {
      throw asTokenError(error);
    }
  }

  #initialize(): void {
    // Without this flag SoftHSM takes no locks, and concurrent asynchronous calls dead-lock.
    try {
      this.#lib.C_Initialize({ flags: pkcs11.CKF_OS_LOCKING_OK });
    } catch (error) {
      if (returnValue(error) === "CKR_CRYPTOKI_ALREADY_INITIALIZED") {
        throw new Error("another token is open in this process", { cause: error });
      }
      throw error;
    }
    this.#initialized = true;
  }

  /** Logs in with the one try that each opening has. */
  #login(session: Session, flags: number): void {
    const refusal = logIn(this.#lib, session.handle, this.#pin, flags);
    if (refusal === undefined) return;
    throw new CountersignError(
      "pin-wrong",
      `The token refuses the PIN (${refusal}). It is not tried again until the signer is started anew.`,
    );
  }

  #checkPrivateKey(session: Buffer, object: Buffer): TokenKeyAttributes {
    const is = (type: number): boolean | undefined => {
      try {
        return attributeOf(this.#lib, session, object, type)[0] === 1;
      } catch (error) {
        if (returnValue(error) === "CKR_ATTRIBUTE_TYPE_INVALID") return undefined;
        throw error;
      }
    };
    if (is(pkcs11.CKA_SIGN) === false) throw keyRefused("it may not sign");
    if (is(pkcs11.CKA_ALWAYS_AUTHENTICATE) === true) {
      throw keyRefused("the token wants the PIN for each signature");
    }
    const attributes = {
      sensitive: is(pkcs11.CKA_SENSITIVE) ?? false,
      alwaysSensitive: is(pkcs11.CKA_ALWAYS_SENSITIVE) ?? false,
      extractable: is(pkcs11.CKA_EXTRACTABLE) ?? true,
      neverExtractable: is(pkcs11.CKA_NEVER_EXTRACTABLE) ?? false,
      local: is(pkcs11.CKA_LOCAL) ?? false,
    };
    if (!this.#allowExtractable) {
      if (attributes.extractable) throw keyRefused("the token would let it out (CKA_EXTRACTABLE)");
      if (!attributes.sensitive) throw keyRefused("the token would show it (not CKA_SENSITIVE)");
    }
    return attributes;
  }

  /** Ends all sessions and the login. The library stays loaded: a token may be opened again. */
  #finalize(): void {
    if (!this.#initialized) return;
    this.#initialized = false;
    try {
      this.#lib.C_Finalize();
    } catch {
      // A token that is away may refuse even this; C_Initialize will tell.
    }
  }
}

/**
 * Loads the library; C_Initialize is the caller's.
 *
 * @throws CountersignError `config-invalid`
 */
export function loadModule(modulePath: string): Module {
  if (basename(modulePath).includes("softhsm") && !process.env.SOFTHSM2_CONF) {
    throw new CountersignError(
      "config-invalid",
      "SOFTHSM2_CONF is not set: SoftHSM would open the tokens of the whole system.",
    );
  }
  try {
    return Module.load(modulePath);
  } catch (cause) {
    throw new CountersignError("config-invalid", "The PKCS#11 module cannot be loaded.", { cause });
  }
}

/**
 * Tries a user PIN once.
 *
 * @param pin - UTF-8.
 * @param flags - those of the token's CK_TOKEN_INFO, from just before.
 * @returns undefined if the token takes the PIN, or the name of the CKR_ value with which it refuses it.
 * @throws CountersignError `pin-wrong` without a try, where a wrong one would lock the token, or it is locked.
 */
export function logIn(
  lib: PKCS11,
  session: Buffer,
  pin: Buffer,
  flags: number,
): string | undefined {
  if ((flags & pkcs11.CKF_USER_PIN_LOCKED) !== 0) {
    throw new CountersignError("pin-wrong", "The token has locked its user PIN.");
  }
  if ((flags & pkcs11.CKF_USER_PIN_FINAL_TRY) !== 0) {
    // A service manager that starts us again and again would use it up.
    throw new CountersignError(
      "pin-wrong",
      "One more wrong PIN locks the token, so it was not tried. Log in once with the token's own tool.",
    );
  }
  if (!isUtf8(pin)) throw new CountersignError("pin-wrong", "The PIN is not UTF-8.");
  try {
    lib.C_Login(session, pkcs11.CKU_USER, pin.toString("utf8"));
    return undefined;
  } catch (error) {
    const value = returnValue(error) ?? "";
    if (!/^CKR_(USER_)?PIN_/.test(value)) throw error;
    return value;
  }
}

/**
 * The slot of the one token that the URI names.
 *
 * @throws CountersignError `config-invalid`, `token-unavailable`, `key-ambiguous`.
 */
export function findSlot(module: Module, uri: Pkcs11Uri): Slot {
  if (uri.libraryManufacturer !== undefined || uri.libraryDescription !== undefined) {
    const { manufacturerID, libraryDescription } = module.lib.C_GetInfo();
    if (
      !matches(uri.libraryManufacturer, manufacturerID) ||
      !matches(uri.libraryDescription, libraryDescription)
    ) {
      throw new CountersignError("config-invalid", "The PKCS#11 URI names another module.");
    }
  }
  const found: Slot[] = [];
  const slots = module.getSlots(true);
  for (let index = 0; index < slots.length; index++) {
    try {
      const slot = slots.items(index);
      const token = slot.getToken();
      if (
        (token.flags & pkcs11.CKF_TOKEN_INITIALIZED) !== 0 &&
        matches(uri.token, token.label) &&
        matches(uri.manufacturer, token.manufacturerID) &&
        matches(uri.model, token.model) &&
        matches(uri.serial, token.serialNumber) &&
        (uri.slotId === undefined || BigInt(uri.slotId) === slot.handle.readBigUInt64LE())
      ) {
        found.push(slot);
      }
    } catch {
      // One broken token must not hide the others.
    }
  }
  const [slot, ...others] = found;
  if (slot === undefined) {
    throw new CountersignError("token-unavailable", `No token matches ${formatPkcs11Uri(uri)}.`);
  }
  if (others.length > 0) {
    throw new CountersignError("key-ambiguous", `Several tokens match ${formatPkcs11Uri(uri)}.`);
  }
  return slot;
}

/** Token texts are padded with blanks; some tokens pad with NUL. */
export function withoutPadding(text: string): string {
  return text.replace(/[ \0]+$/, "");
}

function matches(wanted: string | undefined, padded: string): boolean {
  return wanted === undefined || wanted === withoutPadding(padded);
}

function findPublicKey(session: Session, uri: Pkcs11Uri): Buffer {
  const found = session.find({
    class: ObjectClass.PUBLIC_KEY,
    ...(uri.object === undefined ? {} : { label: uri.object }),
    ...(uri.id === undefined ? {} : { id: asBuffer(uri.id) }),
  });
  if (found.length === 0) {
    throw new CountersignError(
      "key-unknown",
      `The token has no public key ${formatPkcs11Uri(uri)}.`,
    );
  }
  if (found.length > 1) {
    throw new CountersignError(
      "key-ambiguous",
      `Several public keys match ${formatPkcs11Uri(uri)}.`,
    );
  }
  return found.items(0).handle;
}

function findPrivateKey(session: Session, id: Uint8Array): Buffer {
  if (id.length === 0) throw keyRefused("it has no CKA_ID, so its halves cannot be matched");
  const found = session.find({ class: ObjectClass.PRIVATE_KEY, id: asBuffer(id) });
  if (found.length === 0) {
    throw new CountersignError(
      "key-unknown",
      "The token has the public key but not the private one.",
    );
  }
  if (found.length > 1) {
    throw new CountersignError("key-ambiguous", "Several private keys have the same CKA_ID.");
  }
  return found.items(0).handle;
}

/** More sessions make RSA faster; a token that has no more of them is still of use. */
function openAnother(slot: Slot): Session | undefined {
  try {
    return slot.open(SessionFlag.SERIAL_SESSION);
  } catch (error) {
    if (returnValue(error) === "CKR_SESSION_COUNT") return undefined;
    throw error;
  }
}

function keyRefused(why: string): CountersignError {
  return new CountersignError("key-refused", `The key in the token cannot be used: ${why}.`);
}

/** The CKR_ name in what pkcs11js throws; it throws three classes and some bare errors. */
export function returnValue(error: unknown): string | undefined {
  return error instanceof Error ? /CKR_[A-Z0-9_]+/.exec(error.message)?.[0] : undefined;
}

/**
 * Whatever the token fails with in operation means that it cannot be used now. Errors that are not the token's
 * pass.
 */
export function asTokenError(error: unknown): CountersignError {
  if (error instanceof CountersignError) return error;
  const value = returnValue(error);
  if (value === undefined) throw error;
  return new CountersignError("token-unavailable", `The token does not answer (${value}).`, {
    cause: error,
  });
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
