/** The dealer: a process that deals once, and ends with all that it knew (CUSTODY.md 3.2 and 7.1). */

import { outliveSignals } from "./harden.ts";
import { randomBytes } from "node:crypto";
import { digestOf } from "../audit/digest.ts";
import { CountersignError } from "../errors.ts";
import {
  toDealerProtocol,
  type FromDealer,
  type SecretSource,
  type ToDealer,
} from "./dealer-protocol.ts";
import { readHandOff } from "./hand-off.ts";
import { openParentFrames } from "./parent-frames.ts";
import { readPlan, shareSetOctets, type Plan } from "./plan.ts";
import { refusalOf } from "./refusal.ts";
import { deal, type DealParts } from "./sealed/deal.ts";
import { cut } from "./sign-batch.ts";

outliveSignals();

/** Where the PIN of a token in use comes from. */
const PIN_DESCRIPTOR = 5;

interface Source {
  readonly secret?: NonNullable<DealParts["secret"]>;
  readonly uri?: string;
  /** What gives a token the PIN that was sealed. */
  readonly commit?: () => Promise<void>;
}

let asked = false;
let commit: (() => Promise<void>) | undefined;

const frames = openParentFrames<ToDealer, FromDealer>("dealer", toDealerProtocol, receive);

/** What it throws ends the process. */
function receive(message: ToDealer, body: Uint8Array): void {
  switch (message.type) {
    case "deal": {
      if (asked) throw new Error("asked to deal a second time");
      asked = true;
      const cutter = cut(body);
      const plan = cutter.take(message.plan);
      const publicKey = cutter.take(message.publicKey);
      cutter.finish();
      dealOnce(message, plan, publicKey).catch((error: unknown) => {
        frames.sendLast({ type: "failed", ...refusalOf(presentable(error)) });
      });
      return;
    }
    case "commit": {
      if (commit === undefined) throw new Error("nothing to commit");
      const once = commit;
      commit = undefined;
      once().then(
        () => frames.sendLast({ type: "committed" }),
        // One without a code is of a PIN that may have been changed.
        (error: unknown) => frames.sendLast({ type: "failed", ...refusalOf(error) }),
      );
      return;
    }
  }
}

async function dealOnce(
  message: Extract<ToDealer, { type: "deal" }>,
  octets: Uint8Array,
  publicKey: Uint8Array,
): Promise<void> {
  const { planDigest } = message;
  const plan = readPlan(octets);
  if (digestOf(octets) !== planDigest) {
    throw new CountersignError("plan-invalid", "the plan is not the one that was approved");
  }
  requireFit(plan, message.secret);
  const source = await sourceOf(message.secret, plan, publicKey);
  const { secret, uri } = source;
  try {
    const { sealed, files, shareSet } = await deal({
      plan,
      planDigest,
      random: randomBytes,
      ...(secret === undefined ? {} : { secret }),
    });
    const set = shareSetOctets(shareSet);
    const answer = {
      type: "dealt",
      sealed: sealed.length,
      files: files.map(({ length }) => length),
      shareSet: set.length,
      pending: source.commit !== undefined,
      ...(uri === undefined ? {} : { uri }),
    } as const;
    commit = source.commit;
    if (commit === undefined) frames.sendLast(answer, sealed, ...files, set);
    else frames.send(answer, sealed, ...files, set);
  } finally {
    secret?.octets.fill(0);
  }
}

/** That the secret is of the kind that the plan wants. */
function requireFit({ key, payload, epoch }: Plan, { from }: SecretSource): void {
  const fits: Readonly<Record<SecretSource["from"], boolean>> = {
    new: "generate" in key && payload === "pkcs8",
    "new-token": "generate" in key && payload === "pin",
    token: "use" in key && payload === "pin" && epoch === 1,
    "hand-off": "use" in key && epoch > 1,
  };
  if (!fits[from]) {
    throw new CountersignError("plan-invalid", "the plan is for another kind of secret");
  }
}

async function sourceOf(source: SecretSource, plan: Plan, publicKey: Uint8Array): Promise<Source> {
  switch (source.from) {
    case "new":
      return {};
    case "hand-off":
      return { secret: { octets: readHandOff(), publicKey } };
    case "new-token": {
      const { makeSealedToken } = await import("./token/seal-token.ts");
      const { module: modulePath, label, object } = source;
      if (!("generate" in plan.key)) throw new RangeError("no key to make");
      const key = plan.key.generate;
      const made = await makeSealedToken({ modulePath, label, object, key });
      return { secret: { octets: made.secret, publicKey: made.publicKey }, uri: made.uri };
    }
    case "token": {
      const { sealTokenInUse } = await import("./token/seal-token.ts");
      const { readPinFromDescriptor } = await import("./token/pin-file.ts");
      const pin = readPinFromDescriptor(PIN_DESCRIPTOR);
      try {
        const { module: modulePath, uri } = source;
        const seal = await sealTokenInUse({ modulePath, uri, pin });
        return {
          secret: { octets: seal.secret, publicKey: seal.publicKey },
          commit: () => seal.commit(),
        };
      } finally {
        pin.fill(0);
      }
    }
  }
}

/** What OpenSSL says of an error may quote a secret; our own checks say which of them failed. */
function presentable(error: unknown): CountersignError {
  if (error instanceof CountersignError) return error;
  const own = error instanceof Error && !("code" in error) && !("opensslErrorStack" in error);
  return new CountersignError("deal-failed", `nothing was dealt${own ? `: ${error.message}` : ""}`);
}
