/** The keeper's end of a signer whose secret comes out of a seal: it has one life, and its end is the lock. */

import type { Duplex } from "node:stream";
import { CountersignError } from "../errors.ts";
import type { LogFeed } from "./log-feed.ts";
import { mainModule, startProcess } from "./process-flags.ts";
import { errorOf, refusalOf } from "./refusal.ts";
import { connectSigner, type SignerOver, type SignerRequests } from "./signer-connection.ts";
import type { SealedOpening } from "./signer-protocol.ts";

export interface OpenedSignerParts {
  /** All of the process's environment, of a token whose PIN is sealed; left out for a sealed key. */
  readonly token?: { readonly environment: Readonly<Record<string, string>> };
  readonly log: LogFeed;
  /** The statements about requesters so far, canonical JSON. */
  statements(): readonly Uint8Array[];
}

/** `waiting` for the secret, `opening` with it. */
export type OpenedSignerState = "waiting" | "opening" | "open" | "ended";

/** Why it has ended: its grant is over; it was killed here; or anything else, such as a crash. */
export type OpenedSignerEnd = SignerOver | "killed" | "ended";

export interface OpenedSigner extends SignerRequests {
  readonly pid: number | undefined;
  readonly state: OpenedSignerState;
  /** The writing end of the pipe that brings the secret; `startUnlocker` takes it. */
  readonly handOff: Duplex;
  /**
   * Tells it what it may sign, once the unlocker has handed the secret over. Where it fails, the process ends.
   *
   * @param opening - called in the same turn, so that the log's head in it is that of now.
   * @returns the key's SubjectPublicKeyInfo, DER: the one of the key id in the opening.
   * @throws CountersignError what the signer says, `sealed-key-corrupt` for one; `key-locked` if it has ended.
   */
  open(opening: () => SealedOpening): Promise<{ readonly publicKey: Uint8Array }>;
  /** Ends the process at once: the key is locked. */
  kill(): void;
  readonly ended: Promise<OpenedSignerEnd>;
}

/** The machine may be busy, and a token slow; a secret that was never written would be waited for. */
const OPEN_MILLISECONDS = 60_000;

/** Starts a signer, which waits for its secret. */
export function startOpenedSigner(parts: OpenedSignerParts): OpenedSigner {
  const { token, log } = parts;
  let state: OpenedSignerState = "waiting";
  let opened:
    | { readonly resolve: (publicKey: Uint8Array) => void; readonly reject: (error: Error) => void }
    | undefined;
  let tellEnded: (end: OpenedSignerEnd) => void = () => {};
  const ended = new Promise<OpenedSignerEnd>((resolve) => (tellEnded = resolve));
  const child = startProcess({
    kind: token === undefined ? "signer-software" : "signer",
    module: mainModule("signer-main.js"),
    environment: token?.environment ?? {},
    handOff: "read",
  });
  const handOff = child.stdio[4] as Duplex;
  handOff.on("error", () => {});
  const connection = connectSigner(child, log, {
    onOpened(publicKey) {
      if (opened === undefined) throw new RangeError("opened without being asked");
      state = "open";
      connection.changeRequesters(parts.statements());
      opened.resolve(publicKey);
    },
    onFailed: (refusal) => over("ended", errorOf(refusal)),
    onOver: (reason) => over(reason),
    onEnded: () => over("ended"),
    onSilent: () => over("ended"),
  });

  function over(end: OpenedSignerEnd, reason: Error = locked()): void {
    if (state === "ended") return;
    state = "ended";
    handOff.destroy();
    opened?.reject(reason);
    tellEnded(end);
  }

  function kill(): void {
    connection.end(locked());
    over("killed");
  }

  return {
    pid: child.pid,
    get state() {
      return state;
    },
    handOff,
    ended,
    async open(opening) {
      if (state !== "waiting") throw locked();
      state = "opening";
      const timer = setTimeout(kill, OPEN_MILLISECONDS);
      try {
        const publicKey = await new Promise<Uint8Array>((resolve, reject) => {
          opened = { resolve, reject };
          connection.open(opening());
        });
        return { publicKey };
      } catch (error) {
        kill();
        throw error;
      } finally {
        clearTimeout(timer);
      }
    },
    sign(message, pieces, answer, refuse) {
      if (state !== "open") refuse(refusalOf(locked()));
      else connection.sign(message, pieces, answer, refuse);
    },
    signList(message, pieces, answer, refuse) {
      if (state !== "open") refuse(refusalOf(locked()));
      else connection.signList(message, pieces, answer, refuse);
    },
    changeRequesters(changed) {
      if (state === "open") connection.changeRequesters(changed);
    },
    async signaturesLeft() {
      if (state !== "open") throw locked();
      return connection.signaturesLeft();
    },
    kill,
  };
}

function locked(): CountersignError {
  return new CountersignError("key-locked", "the key is locked: open it with a ceremony");
}
