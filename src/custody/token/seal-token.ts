/** Gives a token a random PIN that is kept nowhere but under a seal: CUSTODY.md 3.5. */

import { randomBytes } from "node:crypto";
import { ObjectClass, type Session, SessionFlag } from "graphene-pk11";
import pkcs11, { type PKCS11 } from "pkcs11js";
import { CountersignError } from "../../errors.ts";
import { newToken, proveKey, randomPin } from "./new-token.ts";
import { formatPkcs11Uri, parsePkcs11Uri } from "./pkcs11-uri.ts";
import type { NewTokenOptions } from "./spawn-make-token.ts";
import {
  asTokenError,
  findSlot,
  loadModule,
  logIn,
  type TokenInfo,
  type TokenKeyAttributes,
} from "./token.ts";

/** A PIN to be sealed, and the key that it opens. */
export interface TokenSeal {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array;
  /** What the token says of the key; for the transcript. */
  readonly attributes: TokenKeyAttributes;
  readonly tokenInfo: TokenInfo;
  /** The user PIN, UTF-8, in a buffer of its own. The caller wipes it, before {@link commit} too if it likes. */
  readonly secret: Buffer;
  /**
   * Makes it the token's PIN, once what seals it is stored durably. Called once, whatever comes of it.
   *
   * @throws CountersignError if the PIN was not changed: the one before it is valid, and what was sealed is of no use.
   * @throws SealUnproved if it may have been changed.
   */
  commit(): Promise<void>;
  /** Forgets both PINs, changing nothing. */
  abandon(): void;
}

/**
 * The token was told to change its PIN, and what it takes since then is not proved. The shares may be all that opens
 * it: they are kept, and the token is tried with them and with the PIN before.
 */
export class SealUnproved extends Error {
  constructor(detail: string, options?: { cause?: unknown }) {
    super(detail, options);
    this.name = "SealUnproved";
  }
}

type Random = (size: number) => Uint8Array;

/**
 * Makes a token and a key in it as {@link newToken} does, whose user PIN is nowhere but in what this returns, and
 * whose SO PIN is nowhere. If the seal is not kept, neither is the token: nothing will ever open it.
 *
 * @throws CountersignError as {@link newToken} does.
 */
export async function makeSealedToken(
  options: NewTokenOptions,
  random: Random = randomBytes,
): Promise<TokenSeal & { readonly uri: string }> {
  let secret: Buffer | undefined;
  const place = {
    keep(pin: Buffer): void {
      secret = ownCopy(pin);
    },
    kept: () => ownCopy(secret!),
  };
  try {
    const { uri, publicKey, attributes, tokenInfo } = await newToken(options, place, random);
    return {
      uri,
      publicKey,
      attributes,
      tokenInfo,
      secret: secret!,
      commit: async () => {}, // it has been the token's PIN from the beginning
      abandon: () => {},
    };
  } catch (error) {
    secret?.fill(0);
    throw error;
  }
}

export interface SealTokenOptions {
  /** The PKCS#11 module: a shared library. */
  readonly modulePath: string;
  /** RFC 7512; names exactly one key. */
  readonly uri: string;
  /** The PIN that the token has now, UTF-8. Copied; the caller wipes its own. */
  readonly pin: Uint8Array;
}

/**
 * Draws a new PIN for a token in use, and finds everything that speaks against it. Nothing is changed before
 * {@link TokenSeal.commit}.
 *
 * What the new PIN does not end, and the caller has to: a process that has the token open stays logged in. In SoftHSM
 * its sessions go on signing, and until its C_Finalize it takes the old PIN again; a signer that opens the token anew
 * fails with `pin-wrong`. A copy of SoftHSM's files from before opens with the old PIN for ever. The SO PIN stays a
 * way in.
 *
 * SoftHSM changes its token file in place, by emptying it and writing it anew: whoever kills the process within the
 * 20 milliseconds of the change may leave no token at all. So nobody kills it there, and the administrator of such a
 * token copies its folder before, and destroys the copy after.
 *
 * For a process of its own: PINs pass through strings, which only its end removes.
 *
 * @throws CountersignError as {@link openToken} does, and `ceremony-refused` if the PIN opens other keys as well, or
 *   the token or the key is used without one.
 */
export async function sealTokenInUse(
  options: SealTokenOptions,
  random: Random = randomBytes,
): Promise<TokenSeal> {
  const { modulePath } = options;
  const before = ownCopy(options.pin);
  let next: Buffer | undefined;
  let over = false;
  const forget = (): void => {
    over = true;
    before.fill(0);
    next?.fill(0);
  };
  try {
    const { publicKey, attributes, info } = await proveKey({
      modulePath,
      uri: options.uri,
      pin: before,
    });
    // Another token that comes in between may match what was asked for.
    const { label, serialNumber } = info;
    const uri = formatPkcs11Uri({
      ...parsePkcs11Uri(options.uri),
      token: label,
      serial: serialNumber,
    });
    const limits = withLogin({ modulePath, uri, pin: before }, ({ lib, session, slot }) => {
      refuseShared(session);
      return lib.C_GetTokenInfo(slot);
    });
    next = randomPin(limits, random);
    const parts = { modulePath, uri, publicKey, before, next };
    return {
      publicKey,
      attributes,
      tokenInfo: info,
      secret: ownCopy(next),
      commit: async () => {
        if (over) throw new Error("this seal was committed or abandoned");
        try {
          await change(parts);
        } finally {
          forget();
        }
      },
      abandon: forget,
    };
  } catch (error) {
    forget();
    throw error;
  }
}

interface Change {
  readonly modulePath: string;
  readonly uri: string;
  readonly publicKey: Uint8Array;
  readonly before: Buffer;
  readonly next: Buffer;
}

async function change({ modulePath, uri, publicKey, before, next }: Change): Promise<void> {
  // 1. Nothing has changed since the PIN was sealed. A crash here leaves the PIN before.
  let failure: unknown;
  let called = false;
  try {
    const key = await proveKey({ modulePath, uri, pin: before });
    if (!Buffer.from(key.publicKey).equals(publicKey)) {
      throw new CountersignError("key-unknown", "The token has another key by now.");
    }
    withLogin({ modulePath, uri, pin: before }, ({ lib, session }) => {
      refuseShared(session);
      // 2. The change. A crash here leaves the one or the other, which only a try can tell.
      called = true;
      lib.C_SetPIN(session.handle, before.toString("utf8"), next.toString("utf8"));
    });
  } catch (error) {
    if (!called) throw unchanged(error);
    failure = error;
  }
  // 3. The PIN before opens it no longer. One try: three wrong ones lock a real token. A crash here and from here on
  //    leaves the new PIN.
  if (isTaken({ modulePath, uri, pin: before })) {
    if (failure !== undefined) throw unchanged(asTokenError(failure));
    throw new SealUnproved("The token says that it changed its PIN, and the one before opens it.");
  }
  // 4. The new one opens it, and the key signs; the right PIN also makes the token forget the wrong one.
  try {
    const key = await proveKey({ modulePath, uri, pin: next });
    if (Buffer.from(key.publicKey).equals(publicKey)) return;
  } catch (cause) {
    throw new SealUnproved("The token does not prove that the new PIN opens it.", { cause });
  }
  throw new SealUnproved("The new PIN opens the token, and there is another key in it.");
}

/** What failed before the change, with a word about the PIN. */
function unchanged(error: unknown): unknown {
  if (!(error instanceof CountersignError)) return error;
  const detail = `${error.message} The PIN was not changed: the one before it is valid.`;
  return new CountersignError(error.code, detail, { cause: error.cause, members: error.members });
}

/** Whether a PIN opens a token, by one try. */
function isTaken(options: Login): boolean {
  try {
    withLogin(options, () => undefined);
    return true;
  } catch (error) {
    if (error instanceof Refusal && error.value === "CKR_PIN_INCORRECT") return false;
    throw new SealUnproved("Whether the token changed its PIN is not known.", { cause: error });
  }
}

/** One PIN opens every key of a token: a seal around one key must not take another away, nor leave it to others. */
function refuseShared(session: Session): void {
  const counts = [ObjectClass.PRIVATE_KEY, ObjectClass.SECRET_KEY].map(
    (kind) => session.find({ class: kind, token: true }).length,
  );
  const count = counts.reduce((sum, one) => sum + one, 0);
  if (count === 1) return;
  throw new CountersignError(
    "ceremony-refused",
    `The token holds ${count} keys that its PIN opens. A PIN is sealed only where it opens one key alone.`,
  );
}

/** The token refused a PIN. */
class Refusal extends CountersignError {
  readonly value: string;

  constructor(value: string) {
    super("pin-wrong", `The token refuses the PIN (${value}).`);
    this.value = value;
  }
}

interface Login extends SealTokenOptions {
  readonly pin: Buffer;
}

interface LoggedIn {
  readonly lib: PKCS11;
  readonly slot: Buffer;
  readonly session: Session;
}

/** Runs `use` with a session that may write, logged in with one try; nothing stays open. */
function withLogin<T>({ modulePath, uri, pin }: Login, use: (open: LoggedIn) => T): T {
  const module = loadModule(modulePath);
  const { lib } = module;
  try {
    lib.C_Initialize({ flags: pkcs11.CKF_OS_LOCKING_OK });
    try {
      const slot = findSlot(module, parsePkcs11Uri(uri));
      const { flags } = slot.getToken();
      if ((flags & pkcs11.CKF_LOGIN_REQUIRED) === 0) {
        throw new CountersignError("ceremony-refused", "The token opens without a PIN.");
      }
      const session = slot.open(SessionFlag.SERIAL_SESSION | SessionFlag.RW_SESSION);
      if (session.find({ class: ObjectClass.PRIVATE_KEY }).length > 0) {
        throw new CountersignError(
          "ceremony-refused",
          "The token lets a key be used without its PIN (not CKA_PRIVATE).",
        );
      }
      const refusal = logIn(lib, session.handle, pin, flags);
      if (refusal !== undefined) throw new Refusal(refusal);
      return use({ lib, slot: slot.handle, session });
    } finally {
      lib.C_Finalize();
    }
  } catch (error) {
    throw asTokenError(error);
  }
}

/** In memory of its own, so that wiping it wipes all of it. */
function ownCopy(octets: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(octets.length);
  copy.set(octets);
  return copy;
}
