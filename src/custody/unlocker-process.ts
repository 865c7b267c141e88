/** The keeper's end of one unlocker. */

import type { Duplex } from "node:stream";
import { CountersignError } from "../errors.ts";
import { openFrames } from "./frames.ts";
import type { Agreement, GatheringState, Progress } from "./gathering.ts";
import { mainModule, startProcess } from "./process-flags.ts";
import { errorOf } from "./refusal.ts";
import type { Signed } from "./statement.ts";
import {
  encodeAgreement,
  encodeState,
  fromUnlockerProtocol,
  SUBMISSION_LIMITS,
  type FromUnlocker,
  type ToUnlocker,
} from "./unlocker-protocol.ts";

export interface UnlockerParts {
  /** Of the process that will use the secret. It is given away with this: nothing here can write to it any more. */
  readonly handOff: Duplex;
  /** From {@link UnlockerProcess.begin} on, by a clock that nobody sets; then the process ends. */
  readonly gatherSeconds: number;
}

/** How an unlocker ended: the secret was handed over; its time was over; or anything else, such as a crash. */
export type UnlockerEnd = "opened" | "expired" | "ended";

export interface UnlockerProcess {
  readonly pid: number | undefined;
  /**
   * Begins the time to gather.
   *
   * @returns the recipient of the shares, `age1…`, whose key never leaves the process.
   */
  begin(): Promise<string>;
  /**
   * Shows it what has been stated. What it cannot follow back to the genesis ends it.
   *
   * @throws CountersignError as `beginGathering` does.
   */
  state(state: GatheringState): Promise<void>;
  /**
   * Passes on one submission; with an empty share, a refusal.
   *
   * @throws CountersignError a code of CUSTODY.md 4.3, `rate-limited`, `ceremony-closed`; `unlock-closed` also when the
   *   process has ended.
   */
  submit(submission: Signed, share: Uint8Array): Promise<Progress>;
  /**
   * Has it count who agrees once more, open the secret and hand it over. After `ceremony-refused`, `ceremony-closed` and
   * what is wrong with the rosters it still gathers; otherwise it ends.
   *
   * @throws CountersignError as `Gathering.agreed` and `Gathering.open` do.
   */
  open(agreement: Agreement): Promise<void>;
  /** Ends the process at once. */
  kill(): void;
  readonly ended: Promise<UnlockerEnd>;
}

interface Waiting {
  readonly answer: (message: FromUnlocker) => void;
  readonly refuse: (error: Error) => void;
}

/**
 * Starts an unlocker.
 *
 * @throws CountersignError `token-unavailable` if the process that would use the secret has ended.
 */
export function startUnlocker({ handOff, gatherSeconds }: UnlockerParts): UnlockerProcess {
  const child = startProcess({
    kind: "unlocker",
    module: mainModule("unlocker-main.js"),
    environment: {},
    handOff,
  });
  /** By id; `begin` and `state` have none, and wait alone. */
  const waiting = new Map<number | "alone", Waiting>();
  let nextId = 0;
  let end: UnlockerEnd = "ended";
  let over = false;
  let tellEnded: (end: UnlockerEnd) => void = () => {};
  const ended = new Promise<UnlockerEnd>((resolve) => (tellEnded = resolve));
  child.on("error", () => {}); // its frames end too
  const frames = openFrames<FromUnlocker, ToUnlocker>(
    child.stdio[3] as Duplex,
    fromUnlockerProtocol,
    {
      onMessage(message) {
        if (message.type === "expired") {
          end = "expired";
          frames.destroy();
          return;
        }
        if (message.type === "opened") end = "opened";
        const place = "id" in message ? message.id : "alone";
        const waiter = waiting.get(place);
        if (waiter === undefined) throw new RangeError("an answer to nothing");
        waiting.delete(place);
        if (message.type === "refused" || message.type === "failed") {
          waiter.refuse(errorOf(message));
        } else {
          waiter.answer(message);
        }
      },
      onEnd() {
        over = true;
        child.kill("SIGKILL");
        for (const { refuse } of waiting.values()) refuse(closed(end));
        waiting.clear();
        tellEnded(end);
      },
    },
  );

  function ask<Type extends FromUnlocker["type"]>(
    place: number | "alone",
    wanted: Type,
    message: ToUnlocker,
    ...body: readonly Uint8Array[]
  ): Promise<Extract<FromUnlocker, { type: Type }>> {
    return new Promise((resolve, reject) => {
      if (over) {
        reject(closed(end));
        return;
      }
      waiting.set(place, {
        answer(answer) {
          if (answer.type !== wanted) throw new RangeError("an answer to another question");
          resolve(answer as Extract<FromUnlocker, { type: Type }>);
        },
        refuse: reject,
      });
      frames.send(message, ...body);
    });
  }

  return {
    pid: child.pid,
    ended,
    async begin() {
      const { recipient } = await ask("alone", "recipient", { type: "begin", gatherSeconds });
      return recipient;
    },
    async state(state) {
      await ask("alone", "gathering", { type: "state" }, encodeState(state));
    },
    async submit({ statement, signature }, share) {
      const armored = Buffer.from(signature);
      // A frame over its limits would end the unlocker, and with it the shares of others.
      for (const [octets, limit, code] of [
        [statement, SUBMISSION_LIMITS.statement, "submission-malformed"],
        [armored, SUBMISSION_LIMITS.signature, "submission-malformed"],
        [share, SUBMISSION_LIMITS.share, "share-malformed"],
      ] as const) {
        if (octets.length > limit) {
          throw new CountersignError(code, `a part of the submission is over ${limit} octets`);
        }
      }
      const id = nextId++;
      const lengths = { statement: statement.length, signature: armored.length };
      const { given, missing } = await ask(
        id,
        "submitted",
        { type: "submit", id, ...lengths },
        statement,
        armored,
        share,
      );
      return { given, missing };
    },
    async open(agreement) {
      const id = nextId++;
      await ask(id, "opened", { type: "open", id }, encodeAgreement(agreement));
    },
    kill() {
      frames.destroy();
    },
  };
}

function closed(end: UnlockerEnd): CountersignError {
  return new CountersignError(
    "unlock-closed",
    end === "expired"
      ? "the time to gather shares is over"
      : "this unlock gathers no shares any more: open another one and submit the shares again",
  );
}
