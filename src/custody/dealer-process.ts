/** The keeper's end of one dealer. */

import { closeSync, constants, openSync } from "node:fs";
import type { Duplex } from "node:stream";
import { digestOf } from "../audit/digest.ts";
import { CountersignError } from "../errors.ts";
import {
  fromDealerProtocol,
  type FromDealer,
  type SecretSource,
  type ToDealer,
} from "./dealer-protocol.ts";
import { openFrames } from "./frames.ts";
import { readShareSet, type ShareSet } from "./plan.ts";
import { mainModule, startProcess } from "./process-flags.ts";
import { errorOf } from "./refusal.ts";
import { cut } from "./sign-batch.ts";
import { parsePkcs11Uri } from "./token/pkcs11-uri.ts";

export interface DealerParts {
  /** A token whose PIN is sealed; left out where a key is made in the dealer's memory, and for every reshare. */
  readonly token?: {
    /** The PKCS#11 module: a shared library. */
    readonly module: string;
    /** RFC 7512. For a token that is to be made it says what token and key will be called. */
    readonly uri: string;
    /** All of the process's environment. */
    readonly environment: Readonly<Record<string, string>>;
  };
  /** Of a token in use. It is opened here, and read by the dealer alone. */
  readonly pinFile?: string;
}

export interface DealInput {
  /** Canonical JSON. */
  readonly plan: Uint8Array;
  /** `sha256:` and the hex digest of the plan that was approved. */
  readonly planDigest: string;
  /** `hand-off` once an unlocker has written the secret. */
  readonly secret: "none" | "hand-off";
  /** SubjectPublicKeyInfo of a secret that is handed over, DER. */
  readonly publicKey?: Uint8Array;
}

export interface DealtByProcess {
  /** CSKB. */
  readonly sealed: Uint8Array;
  /** age files, in the order of the shares. */
  readonly files: readonly Uint8Array[];
  readonly shareSet: ShareSet;
  /** The share set's canonical JSON, to be signed as a note. */
  readonly shareSetOctets: Uint8Array;
  /** Whether the dealer waits for {@link DealerProcess.commit}. */
  readonly pending: boolean;
  /** Of a token that was made: with its serial number. */
  readonly uri?: string;
}

export interface DealerProcess {
  readonly pid: number | undefined;
  /** The writing end of the pipe that brings the secret of a reshare; `startUnlocker` takes it. */
  readonly handOff: Duplex;
  /**
   * Deals; once. What comes of it may be used only as a whole.
   *
   * @throws CountersignError `plan-invalid`; what the token says; `deal-failed`, also if the process ends.
   */
  deal(input: DealInput): Promise<DealtByProcess>;
  /**
   * Gives the token in use the PIN that was sealed, after the seal was stored durably. Nothing happens where nothing
   * waits for it.
   *
   * @throws CountersignError if the PIN was not changed, and the seal is of no use; any other error if it may have
   *   been: the shares are kept then, and tried.
   */
  commit(): Promise<void>;
  /**
   * Ends the process at once; one that changes the PIN of a token, when the token has answered: killed in between, it
   * could leave no token at all.
   */
  kill(): void;
  /** Nothing comes of it any more. */
  readonly ended: Promise<void>;
}

/** An RSA-4096 key in a slow token takes a minute. */
const DEAL_MILLISECONDS = 300_000;

/** Starts a dealer. */
export function startDealer({ token, pinFile }: DealerParts): DealerProcess {
  const pin = pinFile === undefined ? undefined : openPin(pinFile);
  const child = start();
  const handOff = child.stdio[4] as Duplex;
  handOff.on("error", () => {});
  let pending = false;
  let waiting:
    | { answer: (message: FromDealer, body: Uint8Array) => void; refuse: (error: Error) => void }
    | undefined;
  /** What an end without a word means to who waits. */
  let lost = (): Error => new CountersignError("deal-failed", "the dealer has ended");
  let over = false;
  /** From when it was told to until it has answered. */
  let committing = false;
  let tellEnded = (): void => {};
  const ended = new Promise<void>((resolve) => (tellEnded = resolve));
  child.on("error", () => {}); // its frames end too
  const frames = openFrames<FromDealer, ToDealer>(child.stdio[3] as Duplex, fromDealerProtocol, {
    onMessage(message, body) {
      const { answer, refuse } = waiting ?? fail();
      waiting = undefined;
      if (message.type === "failed") refuse(errorOf(message));
      else answer(message, body);
    },
    onEnd() {
      over = true;
      // With its connection it ends by itself, between two calls of the token: see seal-token.ts.
      if (!committing) child.kill("SIGKILL");
      handOff.destroy();
      waiting?.refuse(lost());
      waiting = undefined;
      tellEnded();
    },
  });

  function start(): ReturnType<typeof startProcess> {
    try {
      return startProcess({
        kind: token === undefined ? "dealer" : "dealer-token",
        module: mainModule("dealer-main.js"),
        environment: token?.environment ?? {},
        handOff: "read",
        ...(pin === undefined ? {} : { pin }),
      });
    } finally {
      if (pin !== undefined) closeSync(pin);
    }
  }

  function ask<Answer>(
    message: ToDealer,
    body: readonly Uint8Array[],
    read: (message: FromDealer, body: Uint8Array) => Answer,
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (over) {
        reject(lost());
        return;
      }
      const timer = setTimeout(() => frames.destroy(), DEAL_MILLISECONDS);
      waiting = {
        answer(answer, octets) {
          clearTimeout(timer);
          try {
            resolve(read(answer, octets));
          } catch (error) {
            reject(error as Error);
            throw error; // which ends the process
          }
        },
        refuse(error) {
          clearTimeout(timer);
          reject(error);
        },
      };
      frames.send(message, ...body);
    });
  }

  return {
    pid: child.pid,
    handOff,
    ended,
    async deal({ plan, planDigest, secret, publicKey = new Uint8Array(0) }) {
      return ask(
        {
          type: "deal",
          planDigest,
          secret: secret === "hand-off" ? { from: "hand-off" } : ownSource(),
          plan: plan.length,
          publicKey: publicKey.length,
        },
        [plan, publicKey],
        (answer, body) => {
          const dealt = readDealt(answer, body);
          pending = dealt.pending;
          return dealt;
        },
      );
    },
    async commit() {
      if (!pending) return;
      pending = false;
      committing = true;
      lost = () => new Error("the dealer has ended while it changed the PIN of the token");
      await ask({ type: "commit" }, [], (answer) => {
        // Without a code: the PIN may have been changed all the same.
        if (answer.type !== "committed") throw new Error("the dealer gave an answer that is none");
        committing = false;
      });
    },
    kill() {
      frames.destroy();
    },
  };

  function ownSource(): SecretSource {
    if (token === undefined) return { from: "new" };
    const { module, uri } = token;
    if (pinFile !== undefined) return { from: "token", module, uri };
    return { from: "new-token", module, ...namesIn(uri) };
  }
}

/** What a token and its key are to be called. */
function namesIn(uri: string): { label: string; object: string } {
  const { token, object } = parsePkcs11Uri(uri);
  if (token === undefined || object === undefined) {
    throw new CountersignError(
      "config-invalid",
      "The PKCS#11 URI of a token that is to be made names the token and the object.",
    );
  }
  return { label: token, object };
}

function openPin(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    throw new CountersignError("config-invalid", "the PIN file cannot be opened", { cause });
  }
}

function readDealt(message: FromDealer, body: Uint8Array): DealtByProcess {
  if (message.type !== "dealt") return fail();
  const cutter = cut(body);
  const sealed = cutter.take(message.sealed);
  const files = message.files.map((length) => cutter.take(length));
  const shareSetOctets = cutter.take(message.shareSet);
  cutter.finish();
  const shareSet = readShareSet(shareSetOctets);
  const { custodians } = shareSet;
  if (
    digestOf(sealed) !== shareSet.sealed ||
    files.length !== custodians.length ||
    files.some((file, place) => digestOf(file) !== custodians[place]!.file)
  ) {
    fail();
  }
  const { pending, uri } = message;
  return {
    sealed,
    files,
    shareSet,
    shareSetOctets,
    pending,
    ...(uri === undefined ? {} : { uri }),
  };
}

function fail(): never {
  throw new CountersignError("deal-failed", "the dealer gave an answer that is none");
}
