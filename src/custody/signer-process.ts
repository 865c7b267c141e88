/** The keeper's end of one signer: starts it, starts it again when it dies, carries requests there and answers back. */

import type { ChildProcess } from "node:child_process";
import type { Duplex } from "node:stream";
import { CountersignError } from "../errors.ts";
import { openFrames, type Frames } from "./frames.ts";
import type { LogFeed, LogFollower } from "./log-feed.ts";
import { mainModule, startProcess } from "./process-flags.ts";
import { errorOf, refusalOf, type Refusal } from "./refusal.ts";
import { decodeResults } from "./sign-batch.ts";
import {
  fromSignerProtocol,
  type FromSigner,
  type Opening,
  type ToSigner,
} from "./signer-protocol.ts";

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

export interface SignedListAnswer {
  readonly signature: Uint8Array;
  readonly number: string;
  readonly crl: Uint8Array;
}

export interface SignerProcess {
  readonly state: SignerState;
  /** Why it is not open. */
  readonly failure: Error | undefined;
  readonly pid: number | undefined;
  /** @param pieces - the body, as signer-protocol.ts lays it out, without the extension. */
  sign(
    message: Pick<Extract<ToSigner, { type: "sign" }>, "requests">,
    pieces: readonly Uint8Array[],
    answer: (results: readonly number[], body: Uint8Array) => void,
    refuse: (refusal: Refusal) => void,
  ): void;
  signList(
    message: Omit<Extract<ToSigner, { type: "sign-list" }>, "type" | "id" | "extension">,
    pieces: readonly Uint8Array[],
    answer: (list: SignedListAnswer) => void,
    refuse: (refusal: Refusal) => void,
  ): void;
  changeRequesters(statements: readonly Uint8Array[]): void;
  /** @throws CountersignError what keeps the key from signing now, `token-unavailable` for one. */
  signaturesLeft(): Promise<number>;
  /** Ends the process and starts a new one. */
  restart(): void;
  /** Ends the process at once, for good. */
  kill(): void;
}

const BACK_OFF = { first: 100, most: 30_000 };

/** A process that lived this long has not failed to start. */
const SETTLED_MILLISECONDS = 10_000;

/**
 * A process with requests in hand that says nothing for this long is ended and started anew, and for each octet of a
 * CRL among them longer: that is checked entry by entry, in one go.
 */
const ANSWER_MILLISECONDS = 20_000;
const ANSWER_MILLISECONDS_PER_OCTET = 1 / 1024;

/** What does not pass by itself; and a PIN is never tried twice. */
const lasting = new Set<string | null>([
  "pin-wrong",
  "config-invalid",
  "policy-invalid",
  "grant-mismatch",
  "signature-invalid",
  "key-refused",
]);

/** Octets and statements in one frame of statements, at most. */
const STATEMENTS_FRAME = { octets: 512 * 1024, statements: 1_000 };

interface Waiting {
  readonly answer: (message: FromSigner, body: Uint8Array) => void;
  readonly refuse: (refusal: Refusal) => void;
  /** Milliseconds that an answer may take. */
  readonly patience: number;
}

export function superviseSigner(parts: SignerProcessParts): SignerProcess {
  let state: SignerState = "starting";
  let failure: Error | undefined;
  let child: ChildProcess | undefined;
  let frames: Frames<ToSigner> | undefined;
  let follower: LogFollower | undefined;
  let waiting = new Map<number, Waiting>();
  let nextId = 0;
  let failures = 0;
  let retry: NodeJS.Timeout | undefined;
  let started = 0;
  /** When the process last said something, or was first asked for something. */
  let heard = 0;
  let watch: NodeJS.Timeout | undefined;

  function start(): void {
    state = "starting";
    started = Date.now();
    let opening: Uint8Array;
    try {
      opening = Buffer.from(JSON.stringify(parts.opening()));
    } catch (error) {
      failure = error as Error;
      state = "unavailable";
      restartLater();
      parts.onEnded();
      return;
    }
    const process = startProcess({
      kind: "signer",
      module: mainModule("signer-main.js"),
      readFiles: [parts.pinFile],
      environment: parts.environment,
    });
    child = process;
    process.on("error", () => {}); // its frames end too
    const socket = process.stdio[3] as Duplex;
    const connection = openFrames<FromSigner, ToSigner>(socket, fromSignerProtocol, {
      onMessage(message, body) {
        if (frames === connection) receive(message, body);
      },
      onEnd() {
        process.kill("SIGKILL");
        if (frames !== connection) return;
        drop(new CountersignError("token-unavailable", "the signer has ended"));
        restartLater();
        parts.onEnded();
      },
    });
    frames = connection;
    follower = parts.log.follow();
    connection.send({ type: "open" }, opening);
  }

  /** Forgets the process, and refuses what waits for it. */
  function drop(reason: Error): void {
    follower?.stop();
    frames = undefined;
    child = undefined;
    if (state !== "stopped") state = "unavailable";
    failure = reason;
    const refused = waiting;
    waiting = new Map();
    for (const { refuse } of refused.values()) refuse(refusalOf(reason));
  }

  function end(reason: Error): void {
    const ended = child;
    const connection = frames;
    drop(reason);
    ended?.kill("SIGKILL");
    connection?.destroy();
  }

  function restartLater(): void {
    if (state === "stopped" || lasting.has(refusalOf(failure).code)) return;
    if (Date.now() - started > SETTLED_MILLISECONDS) failures = 0;
    const delay = Math.min(BACK_OFF.most, BACK_OFF.first * 2 ** Math.min(failures, 20));
    failures++;
    retry = setTimeout(start, delay);
  }

  function receive(message: FromSigner, body: Uint8Array): void {
    switch (message.type) {
      case "opened":
        parts.onOpened(body);
        if (frames === undefined) return; // a held key
        state = "open";
        failure = undefined;
        sendStatements(parts.statements());
        return;
      case "failed": {
        const { code, detail, members } = message;
        end(errorOf({ code, detail, members }));
        restartLater();
        parts.onFailed({ code, detail, members });
        return;
      }
      case "signed":
      case "list-signed":
      case "status":
      case "refused": {
        const waiter = waiting.get(message.id);
        if (waiter === undefined) throw new RangeError("an answer to nothing");
        waiting.delete(message.id);
        heard = performance.now();
        if (message.type === "refused") {
          const { code, detail, members } = message;
          waiter.refuse({ code, detail, members });
        } else {
          waiter.answer(message, body);
        }
      }
    }
  }

  function wait(waiter: Omit<Waiting, "patience">, octets = 0): number {
    const id = nextId++;
    if (waiting.size === 0) heard = performance.now();
    const patience = ANSWER_MILLISECONDS + octets * ANSWER_MILLISECONDS_PER_OCTET;
    waiting.set(id, { ...waiter, patience });
    watch ??= setTimeout(look, patience);
    return id;
  }

  /** A process that is stopped, or waits for ever for its token, would not be replaced otherwise. */
  function look(): void {
    // If this process was busy, what came meanwhile is only read after the timers: look again then.
    setImmediate(() => {
      watch = undefined;
      if (waiting.size === 0) return;
      const patience = Math.max(...[...waiting.values()].map((waiter) => waiter.patience));
      const left = heard + patience - performance.now();
      if (left > 0) {
        watch = setTimeout(look, left);
        return;
      }
      end(
        new CountersignError("token-unavailable", "the signer did not answer; it is started anew"),
      );
      restartLater();
    });
  }

  function sendStatements(statements: readonly Uint8Array[]): void {
    let batch: Uint8Array[] = [];
    let octets = 0;
    const flush = (): void => {
      const lengths = batch.map(({ length }) => length);
      frames?.send({ type: "requesters", statements: lengths }, ...batch);
      batch = [];
      octets = 0;
    };
    for (const statement of statements) {
      if (
        batch.length === STATEMENTS_FRAME.statements ||
        octets + statement.length > STATEMENTS_FRAME.octets
      ) {
        flush();
      }
      batch.push(statement);
      octets += statement.length;
    }
    if (batch.length > 0) flush();
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
    sign({ requests }, pieces, answer, refuse) {
      const news = follower?.next() ?? null;
      const id = wait({
        answer(message, body) {
          if (message.type !== "signed" || message.results.length !== requests.length) {
            throw new RangeError("an answer to another question");
          }
          decodeResults(message.results, body); // the service need not trust the lengths
          answer(message.results, body);
        },
        refuse,
      });
      frames?.send(
        { type: "sign", id, requests, extension: news?.header ?? null },
        ...(news?.hashes ?? []),
        ...pieces,
      );
    },
    signList(message, pieces, answer, refuse) {
      const news = follower?.next() ?? null;
      const id = wait(
        {
          answer(signed, body) {
            if (signed.type !== "list-signed" || signed.signature > body.length) {
              throw new RangeError("an answer to another question");
            }
            answer({
              signature: body.subarray(0, signed.signature),
              number: signed.number,
              crl: body.subarray(signed.signature),
            });
          },
          refuse,
        },
        pieces.reduce((octets, { length }) => octets + length, 0),
      );
      frames?.send(
        { type: "sign-list", id, ...message, extension: news?.header ?? null },
        ...(news?.hashes ?? []),
        ...pieces,
      );
    },
    changeRequesters(statements) {
      if (state === "open") sendStatements(statements);
    },
    signaturesLeft() {
      return new Promise((resolve, reject) => {
        const id = wait({
          answer(message) {
            if (message.type !== "status") throw new RangeError("an answer to another question");
            resolve(message.signaturesLeft);
          },
          refuse: (refusal) => reject(errorOf(refusal)),
        });
        frames?.send({ type: "status", id });
      });
    },
    restart() {
      end(new CountersignError("token-unavailable", "the signer is started anew"));
      restartLater();
    },
    kill() {
      state = "stopped";
      clearTimeout(retry);
      clearTimeout(watch);
      end(new CountersignError("key-held", "the key is held"));
    },
  };
}
