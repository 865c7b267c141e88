/**
 * The unlocker: a process that gathers the shares of one unlock, hands over what they open, and ends with all that it
 * knew (CUSTODY.md 4.3, 6.2 and 7.1).
 */

import { outliveSignals } from "./harden.ts";
import { CountersignError } from "../errors.ts";
import { beginGathering, type Gathering } from "./gathering.ts";
import { writeHandOff } from "./hand-off.ts";
import { openParentFrames } from "./parent-frames.ts";
import { refusalOf } from "./refusal.ts";
import { newUnlockIdentity, type UnlockIdentity } from "./sealed/share-file.ts";
import { cut } from "./sign-batch.ts";
import {
  decodeAgreement,
  decodeState,
  toUnlockerProtocol,
  type FromUnlocker,
  type ToUnlocker,
} from "./unlocker-protocol.ts";

outliveSignals();

let begun: { readonly at: number; readonly gatherSeconds: number } | undefined;
let identity: UnlockIdentity | undefined;
let gathering: Gathering | undefined;
let opening = false;

const frames = openParentFrames<ToUnlocker, FromUnlocker>("unlocker", toUnlockerProtocol, receive);

/** What it throws ends the process. */
function receive(message: ToUnlocker, body: Uint8Array): void {
  switch (message.type) {
    case "begin": {
      if (begun !== undefined) throw new Error("begun a second time");
      const { gatherSeconds } = message;
      begun = { at: performance.now(), gatherSeconds };
      setTimeout(() => frames.sendLast({ type: "expired" }), gatherSeconds * 1000);
      void newUnlockIdentity().then((made) => {
        identity = made;
        frames.send({ type: "recipient", recipient: made.recipient });
      });
      return;
    }
    case "state": {
      if (begun === undefined || identity === undefined || gathering !== undefined) {
        throw new Error("a state out of turn");
      }
      const { at, gatherSeconds } = begun;
      const state = decodeState(body);
      try {
        gathering = beginGathering({
          state,
          identity,
          gatherSeconds,
          now: () => new Date(),
          elapsed: () => (performance.now() - at) / 1000,
        });
        frames.send({ type: "gathering" });
      } catch (error) {
        frames.sendLast({ type: "failed", ...refusalOf(error) });
      }
      return;
    }
    case "submit": {
      const cutter = cut(body);
      const statement = cutter.take(message.statement);
      const signature = Buffer.from(cutter.take(message.signature)).toString("utf8");
      const share = cutter.take(body.length - message.statement - message.signature);
      const { id } = message;
      requireGathering()
        .submit({ statement, signature }, share)
        .then(
          ({ given, missing }) =>
            frames.send({ type: "submitted", id, given: [...given], missing }),
          (error: unknown) => frames.send({ type: "refused", id, ...refusalOf(error) }),
        );
      return;
    }
    case "open": {
      const { id } = message;
      const agreement = decodeAgreement(body);
      try {
        const by = requireGathering().agreed(agreement);
        if (opening) throw new CountersignError("unlock-closed", "this unlock is being opened");
        opening = true;
        void open(id, by);
      } catch (error) {
        frames.send({ type: "refused", id, ...refusalOf(error) });
      }
      return;
    }
  }
}

function requireGathering(): Gathering {
  if (gathering === undefined) throw new Error("asked before it gathers");
  return gathering;
}

/** Whatever comes of it, the process ends. */
async function open(id: number, by: readonly string[]): Promise<void> {
  try {
    // The secret leaves this process before anybody hears of it: whoever is told finds it in the pipe.
    writeHandOff(await gathering!.open(by));
    frames.sendLast({ type: "opened", id });
  } catch (error) {
    frames.sendLast({ type: "refused", id, ...refusalOf(error) });
  }
}
