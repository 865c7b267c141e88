/** The keeper's end of the signer of a token in use: starts it, and starts it again when it dies. */

import type { ChildProcess } from "node:child_process";
import { CountersignError } from "../errors.ts";
import type { LogFeed } from "./log-feed.ts";
import { mainModule, startProcess } from "./process-flags.ts";
import { errorOf, refusalOf, type Refusal } from "./refusal.ts";
import { connectSigner, type SignerConnection, type SignerRequests } from "./signer-connection.ts";
import type { Opening } from "./signer-protocol.ts";

export type SignerState = "starting" | "open" | "unavailable" | "stopped";

export interface SignerProcessParts {
  readonly pinFile: string;
  /** All of the process's environment. */
  readonly environment: Readonly<Record<string, string>>;
  readonly log: LogFeed;
  /** What the process is told when it starts; asked for anew each time. What it throws keeps it from starting. */
  opening(): Opening;
  /** The statements about requesters so far, canonical JSON. */
  statements(): readonly Uint8Array[];
  /** The token is open. Before this returns, nothing is signed. */
  onOpened(publicKey: Uint8Array): void;
  /** The process has said why it cannot use the key. */
  onFailed(refusal: Refusal): void;
  /** The process has ended without a word, or was not started. */
  onEnded(): void;
}

export interface SignerProcess extends SignerRequests {
  readonly state: SignerState;
  /** Why it is not open. */
  readonly failure: Error | undefined;
  readonly pid: number | undefined;
  /** Ends the process and starts a new one. */
  restart(): void;
  /** Ends the process at once, for good. */
  kill(): void;
}

const BACK_OFF = { first: 100, most: 30_000 };

/** A process that lived this long has not failed to start. */
const SETTLED_MILLISECONDS = 10_000;

/** What does not pass by itself; and a PIN is never tried twice. */
const lasting = new Set<string | null>([
  "pin-wrong",
  "config-invalid",
  "policy-invalid",
  "grant-mismatch",
  "signature-invalid",
  "key-refused",
]);

export function superviseSigner(parts: SignerProcessParts): SignerProcess {
  let state: SignerState = "starting";
  let failure: Error | undefined;
  let child: ChildProcess | undefined;
  let connection: SignerConnection | undefined;
  let failures = 0;
  let retry: NodeJS.Timeout | undefined;
  let started = 0;

  function start(): void {
    state = "starting";
    started = Date.now();
    let opening: Opening;
    try {
      opening = parts.opening();
    } catch (error) {
      failure = error as Error;
      state = "unavailable";
      restartLater();
      parts.onEnded();
      return;
    }
    child = startProcess({
      kind: "signer",
      module: mainModule("signer-main.js"),
      readFiles: [parts.pinFile],
      environment: parts.environment,
    });
    const current = connectSigner(child, parts.log, {
      onOpened(publicKey) {
        parts.onOpened(publicKey);
        if (connection !== current) return; // a held key
        state = "open";
        failure = undefined;
        current.changeRequesters(parts.statements());
      },
      onFailed(refusal) {
        drop(errorOf(refusal));
        restartLater();
        parts.onFailed(refusal);
      },
      onOver() {
        drop(new CountersignError("key-locked", "the signer's grant is over"));
        restartLater();
        parts.onEnded();
      },
      onEnded() {
        drop(new CountersignError("token-unavailable", "the signer has ended"));
        restartLater();
        parts.onEnded();
      },
      onSilent() {
        drop(
          new CountersignError(
            "token-unavailable",
            "the signer did not answer; it is started anew",
          ),
        );
        restartLater();
      },
    });
    connection = current;
    current.open(opening);
  }

  /** Forgets the process. */
  function drop(reason: Error): void {
    connection = undefined;
    child = undefined;
    if (state !== "stopped") state = "unavailable";
    failure = reason;
  }

  function end(reason: Error): void {
    const ended = connection;
    drop(reason);
    ended?.end(reason);
  }

  function restartLater(): void {
    if (state === "stopped" || lasting.has(refusalOf(failure).code)) return;
    if (Date.now() - started > SETTLED_MILLISECONDS) failures = 0;
    const delay = Math.min(BACK_OFF.most, BACK_OFF.first * 2 ** Math.min(failures, 20));
    failures++;
    retry = setTimeout(start, delay);
  }

  start();
  return {
    get state() {
      return state;
    },
    get failure() {
      return failure;
    },
    get pid() {
      return child?.pid;
    },
    sign(message, pieces, answer, refuse) {
      if (connection === undefined) refuse(refusalOf(failure));
      else connection.sign(message, pieces, answer, refuse);
    },
    signList(message, pieces, answer, refuse) {
      if (connection === undefined) refuse(refusalOf(failure));
      else connection.signList(message, pieces, answer, refuse);
    },
    changeRequesters(statements) {
      if (state === "open") connection?.changeRequesters(statements);
    },
    async signaturesLeft() {
      if (connection === undefined) throw failure!;
      return connection.signaturesLeft();
    },
    restart() {
      end(new CountersignError("token-unavailable", "the signer is started anew"));
      restartLater();
    },
    kill() {
      state = "stopped";
      clearTimeout(retry);
      end(new CountersignError("key-held", "the key is held"));
    },
  };
}
