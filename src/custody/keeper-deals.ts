/** What dealers make, and from when on it counts: CUSTODY.md 3.2, 3.5 and 5.1. */

import { hash } from "node:crypto";
import { digestOf } from "../audit/digest.ts";
import { CountersignError } from "../errors.ts";
import { startDealer, type DealerProcess, type DealtByProcess } from "./dealer-process.ts";
import {
  inPanic,
  type Ceremonies,
  type CeremonyVotes,
  type LogRecord,
} from "./keeper-ceremonies.ts";
import type { KeeperKeys } from "./keeper-keys.ts";
import type { RosterBook } from "./keeper-roster.ts";
import type { StateFile } from "./keeper-state.ts";
import type { OwnNotes } from "./own-notes.ts";
import { readConfirmation } from "./personal-statement.ts";
import { readShareSet, type Plan, type ShareSet } from "./plan.ts";
import { checkShareProof } from "./sealed/share.ts";
import { namespaces, type Signed } from "./statement.ts";

/** What was dealt. Nobody holds a share before its file was fetched, and the key is as it was until activation. */
export interface Dealt {
  /** CSKB. */
  readonly sealed: Uint8Array;
  /** Age files, in the order of the shares. */
  readonly files: readonly Uint8Array[];
  /** A signed note. */
  readonly shareSet: string;
  /** RFC 7512, of a token that was made: for the keeper's configuration. */
  readonly uri?: string;
}

export interface DealRequest extends CeremonyVotes {
  readonly plan: Uint8Array;
  readonly record: LogRecord;
}

export interface Deals {
  /**
   * Makes a key, or the seal around the PIN of one in use.
   *
   * @throws CountersignError `ceremony-refused`, `ceremony-closed`, `plan-invalid`, `panic`, `unlock-busy` while the same
   *   is being dealt, `deal-failed`.
   */
  deal(request: DealRequest): Promise<Dealt>;
  /**
   * Gives a token in use the PIN that was sealed. What has no dealer waiting for it is left as it is.
   *
   * @param ceremony - digest of its statement.
   * @throws CountersignError what the token says, or `deal-failed`; then it still has its old PIN. Any other error if that
   *   is not known.
   */
  commit(ceremony: string): Promise<void>;
  /**
   * Makes a share set the one that opens its key; one that is it already changes nothing.
   *
   * @param note - the share set, signed.
   * @throws CountersignError `confirmation-invalid` if not every custodian has confirmed their own share; `share-stale`
   *   if the active one is newer; `signature-invalid`, `statement-malformed`, `rolled-back`.
   */
  activate(note: string, confirmations: readonly Signed[]): void;
  /** Ends at once what deals, for one key or all. */
  end(keyId?: string): void;
}

export interface DealsParts {
  readonly tokenModule: string | undefined;
  readonly tokenEnvironment: Readonly<Record<string, string>>;
  readonly ceremonies: Ceremonies;
  readonly keys: KeeperKeys;
  readonly notes: OwnNotes;
  readonly roster: RosterBook;
  readonly stateFile: StateFile;
}

interface Dealing {
  readonly dealer: DealerProcess;
  /** undefined for a key that is being made. */
  readonly keyId: string | undefined;
  /** What waits for its commit. */
  shareSet?: { readonly epoch: number; readonly digest: string };
}

export function deals(parts: DealsParts): Deals {
  const { ceremonies, keys, notes, roster, stateFile } = parts;
  /** By the digest of the ceremony. */
  const dealings = new Map<string, Dealing>();
  /** Ceremonies whose dealer has ended while it waited for its commit. */
  const lost = new Set<string>();

  function forget(ceremony: string, dealing: Dealing): void {
    if (dealings.get(ceremony) !== dealing) return;
    dealings.delete(ceremony);
    if (dealing.shareSet !== undefined) lost.add(ceremony);
  }

  function start(plan: Plan, planDigest: string): DealerProcess {
    const environment = parts.tokenEnvironment;
    if ("use" in plan.key) {
      const { token, standing } = keys.of(plan.key.use).config;
      if (token === undefined || standing === undefined) {
        throw new CountersignError("plan-invalid", "the key has no PIN to seal");
      }
      return startDealer({ token: { ...token, environment }, pinFile: standing.pinFile });
    }
    if (plan.payload === "pkcs8") return startDealer({});
    const name = `countersign-${planDigest.slice("sha256:".length).slice(0, 16)}`;
    const uri = `pkcs11:token=${name};object=${name}`;
    return startDealer({ token: { module: parts.tokenModule!, uri, environment } });
  }

  function activeSeal(set: ShareSet, digest: string): "active" | "next" {
    const active = stateFile.state.seals[set.keyId];
    if (active?.shareSet === digest) return "active";
    if (active !== undefined && set.epoch <= active.epoch) {
      throw new CountersignError(
        "share-stale",
        `the shares of this key were changed since: epoch ${active.epoch} is the active one`,
      );
    }
    return "next";
  }

  /** The index of the share that a custodian has confirmed. */
  function confirmed(set: ShareSet, octets: Uint8Array, signed: Signed): number {
    const { statement, signature } = signed;
    const confirmation = readConfirmation(statement);
    const { operator, index, shareSet, proof } = confirmation;
    const own = set.custodians[index - 1];
    if (shareSet !== digestOf(octets) || own?.operator !== operator) {
      throw unconfirmed(`share ${index} of this share set is not one of ${operator}`);
    }
    try {
      roster.check(operator, namespaces.confirm, statement, signature);
    } catch (error) {
      if (!(error instanceof CountersignError) || error.code === "rolled-back") throw error;
      throw unconfirmed(error.message, error);
    }
    const { epoch, threshold, shareCount } = set;
    const context = { keyId: Buffer.from(set.keyId, "hex"), epoch, threshold, shareCount };
    const commitment = {
      commit: Buffer.from(own.commit, "hex"),
      proof: Buffer.from(own.proof, "hex"),
    };
    const challenge = hash("sha256", octets, "buffer");
    if (!checkShareProof(context, index, commitment, challenge, Buffer.from(proof, "base64"))) {
      throw unconfirmed(`${operator} has not shown that they hold share ${index}`);
    }
    return index;
  }

  function makeActive(keyId: string, epoch: number, shareSet: string): void {
    stateFile.change(({ seals }) => {
      seals[keyId] = { epoch, shareSet };
    });
  }

  return {
    async deal(request) {
      const ceremony = ceremonies.read(request.note, "generate");
      if (stateFile.state.panic !== null) throw inPanic();
      const { keyId } = ceremony.statement;
      const plan = ceremonies.planOf(ceremony, request.plan);
      const planDigest = digestOf(request.plan);
      ceremonies.requireVotes(ceremony, request.approvals, {
        everyone: plan.custodians.map(({ operator }) => operator),
      });
      const busy = [...dealings].some(
        ([digest, other]) =>
          digest === ceremony.digest || (keyId !== undefined && other.keyId === keyId),
      );
      if (busy) throw new CountersignError("unlock-busy", "this is being dealt already");
      ceremonies.requireRecord(
        request.record,
        "ceremony.step",
        ({ subject, data }) => subject.ceremony === ceremony.digest && data?.state === "dealing",
      );
      const dealer = start(plan, planDigest);
      const dealing: Dealing = { dealer, keyId };
      dealings.set(ceremony.digest, dealing);
      void dealer.ended.then(() => forget(ceremony.digest, dealing));
      try {
        const dealt = await dealer.deal({ plan: request.plan, planDigest, secret: "none" });
        checkDealt(dealt, plan, planDigest, keyId);
        const { note, digest } = notes.state(dealt.shareSetOctets);
        ceremonies.finish(ceremony);
        if (dealt.pending) dealing.shareSet = { epoch: plan.epoch, digest };
        const { sealed, files, uri } = dealt;
        return { sealed, files, shareSet: note, ...(uri === undefined ? {} : { uri }) };
      } catch (error) {
        dealer.kill();
        throw error;
      }
    },
    async commit(ceremony) {
      if (lost.has(ceremony)) {
        throw new CountersignError(
          "deal-failed",
          "the dealer has ended before the commit: the token has the PIN that it had",
        );
      }
      const dealing = dealings.get(ceremony);
      const shareSet = dealing?.shareSet;
      if (dealing === undefined || shareSet === undefined) return;
      delete dealing.shareSet; // once
      await dealing.dealer.commit();
      // The PIN file opens nothing any more: from here on only the shares do. The signer that has the token open goes on
      // until activation. A crash just before leaves a key that its PIN file does not open; the shares do all the same.
      makeActive(dealing.keyId!, shareSet.epoch, shareSet.digest);
    },
    activate(note, confirmations) {
      const { octets, digest } = notes.open(note, roster.identityKeys);
      const set = readShareSet(octets);
      const place = activeSeal(set, digest);
      const key = keys.all.find(({ keyId }) => keyId === set.keyId);
      if (place === "next") {
        const indexes = new Set(confirmations.map((signed) => confirmed(set, octets, signed)));
        if (indexes.size !== set.shareCount) {
          throw unconfirmed(`${indexes.size} of ${set.shareCount} shares are confirmed`);
        }
        makeActive(set.keyId, set.epoch, digest);
      }
      // Its standing signer, if it has one; what shares have opened goes on to its end.
      if (key !== undefined && key.opened === undefined) key.endSigner();
    },
    end(keyId) {
      for (const [ceremony, dealing] of dealings) {
        if (keyId !== undefined && dealing.keyId !== keyId) continue;
        forget(ceremony, dealing);
        dealing.dealer.kill();
      }
    },
  };
}

/** That what a dealer made is what was planned, before the keeper puts its name to it. */
export function checkDealt(
  { shareSet }: DealtByProcess,
  plan: Plan,
  planDigest: string,
  keyId: string | undefined,
): void {
  const sameKey = keyId === undefined || shareSet.keyId === keyId;
  const samePeople =
    shareSet.shareCount === plan.shareCount &&
    plan.custodians.every(({ operator, recipient }, place) => {
      const custodian = shareSet.custodians[place];
      return custodian?.operator === operator && custodian.recipient === recipient;
    });
  if (
    !sameKey ||
    !samePeople ||
    shareSet.plan !== planDigest ||
    shareSet.epoch !== plan.epoch ||
    shareSet.threshold !== plan.threshold ||
    shareSet.previous !== plan.previous
  ) {
    throw new CountersignError("deal-failed", "the dealer has dealt something else than the plan");
  }
}

function unconfirmed(detail: string, cause?: unknown): CountersignError {
  return new CountersignError("confirmation-invalid", detail, { cause });
}
