/** One signer process and what it was asked, for as long as the process lives. */

import type { ChildProcess } from "node:child_process";
import type { Duplex } from "node:stream";
import { CountersignError } from "../errors.ts";
import { openFrames } from "./frames.ts";
import type { LogFeed, LogFollower } from "./log-feed.ts";
import { errorOf, refusalOf, type Refusal } from "./refusal.ts";
import { decodeResults } from "./sign-batch.ts";
import {
  fromSignerProtocol,
  type FromSigner,
  type Opening,
  type SealedOpening,
  type ToSigner,
} from "./signer-protocol.ts";

export type SignerOver = Extract<FromSigner, { type: "over" }>["reason"];

export interface SignedListAnswer {
  readonly signature: Uint8Array;
  readonly number: string;
  readonly crl: Uint8Array;
}

/** What a signer can be asked. */
export interface SignerRequests {
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
}

export interface SignerConnection extends SignerRequests {
  /** Tells the process all that it will trust; from here it is shown what the log gains. */
  open(opening: Opening | SealedOpening): void;
  /** Ends the process at once, refuses what waits for it with the reason, and says nothing more. */
  end(reason: Error): void;
}

/** After each but `onOpened` the connection is over. */
export interface SignerHandlers {
  onOpened(publicKey: Uint8Array): void;
  /** The process has said why it cannot use the key. */
  onFailed(refusal: Refusal): void;
  /** The grant is over, and the process ends. */
  onOver(reason: SignerOver): void;
  /** The process has ended without a word. */
  onEnded(): void;
  /** The process did not answer in time, and was ended. */
  onSilent(): void;
}

/**
 * A process with requests in hand that says nothing for this long is ended, and for each octet of a CRL among them
 * longer: that is checked entry by entry, in one go.
 */
const ANSWER_MILLISECONDS = 20_000;
const ANSWER_MILLISECONDS_PER_OCTET = 1 / 1024;

/** Octets and statements in one frame of statements, at most. */
const STATEMENTS_FRAME = { octets: 512 * 1024, statements: 1_000 };

interface Waiting {
  readonly answer: (message: FromSigner, body: Uint8Array) => void;
  readonly refuse: (refusal: Refusal) => void;
  /** Milliseconds that an answer may take. */
  readonly patience: number;
}

/** @param process - just started: the connection and its end are the caller's. */
export function connectSigner(
  process: ChildProcess,
  log: LogFeed,
  handlers: SignerHandlers,
): SignerConnection {
  let follower: LogFollower | undefined;
  let waiting = new Map<number, Waiting>();
  let nextId = 0;
  let over = false;
  /** When the process last said something, or was first asked for something. */
  let heard = 0;
  let watch: NodeJS.Timeout | undefined;

  process.on("error", () => {}); // its frames end too
  const frames = openFrames<FromSigner, ToSigner>(process.stdio[3] as Duplex, fromSignerProtocol, {
    onMessage: receive,
    onEnd() {
      if (over) return;
      end(new CountersignError("token-unavailable", "the signer has ended"));
      handlers.onEnded();
    },
  });

  function end(reason: Error): void {
    if (over) return;
    over = true;
    clearTimeout(watch);
    follower?.stop();
    process.kill("SIGKILL");
    frames.destroy();
    const refused = waiting;
    waiting = new Map();
    for (const { refuse } of refused.values()) refuse(refusalOf(reason));
  }

  function receive(message: FromSigner, body: Uint8Array): void {
    switch (message.type) {
      case "opened":
        handlers.onOpened(body);
        return;
      case "failed": {
        const { code, detail, members } = message;
        end(errorOf({ code, detail, members }));
        handlers.onFailed({ code, detail, members });
        return;
      }
      case "over":
        end(new CountersignError("key-locked", "the time or the count of the unlock is over"));
        handlers.onOver(message.reason);
        return;
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
      end(new CountersignError("token-unavailable", "the signer did not answer"));
      handlers.onSilent();
    });
  }

  return {
    open(opening) {
      follower = log.follow();
      frames.send({ type: "open" }, Buffer.from(JSON.stringify(opening)));
    },
    end,
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
      frames.send(
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
      frames.send(
        { type: "sign-list", id, ...message, extension: news?.header ?? null },
        ...(news?.hashes ?? []),
        ...pieces,
      );
    },
    changeRequesters(statements) {
      let batch: Uint8Array[] = [];
      let octets = 0;
      const flush = (): void => {
        const lengths = batch.map(({ length }) => length);
        frames.send({ type: "requesters", statements: lengths }, ...batch);
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
        frames.send({ type: "status", id });
      });
    },
  };
}
