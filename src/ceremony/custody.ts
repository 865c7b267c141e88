/** Keys whose secret is split, their shares, and the locks that anybody can turn. CUSTODY.md 3.2, 4.2 and 6.2. */

import { digestOf } from "../audit/digest.ts";
import { encodeEntry, type Actor, type Evidence, type LogEntry } from "../audit/entry.ts";
import { readConfirmation, readDrill, readLock, readPanic } from "../custody/personal-statement.ts";
import { readShareSet, type ShareSet } from "../custody/plan.ts";
import { checkShareProof } from "../custody/sealed/share.ts";
import { namespaces, type Signed } from "../custody/statement.ts";
import { CountersignError } from "../errors.ts";
import { checkSeenHead } from "../issuance/seen-head.ts";
import { requireSigned, verifying } from "./credentials.ts";
import type { Failures } from "./failures.ts";
import type { CeremonyKey } from "./keeper.ts";
import { evidenceOf, notedJson, signer } from "./log-words.ts";
import type { CeremonyParts, Progress } from "./progress.ts";
import type { StoredShare, StoredShareSet } from "./records.ts";
import type { Custody, OperatorCaller, SealedKeyView, ShareSetView } from "./view.ts";

const CHALLENGE_OCTETS = 32;
/** How long a drill may take, from the challenge to the proof. */
const DRILL_MILLISECONDS = 3_600_000;

interface Challenge {
  readonly octets: Uint8Array;
  readonly until: number;
}

export class KeyCustody implements Custody {
  readonly #parts: CeremonyParts & { readonly failures: Failures };
  readonly #progress: Progress;
  /** Of drills that were begun, by share set and index. */
  readonly #challenges = new Map<string, Challenge>();
  /** Shares whose custodian has fetched the file in this life of the service. */
  readonly #fetched = new Set<string>();

  constructor(parts: CeremonyParts & { readonly failures: Failures }, progress: Progress) {
    this.#parts = parts;
    this.#progress = progress;
  }

  async keys(): Promise<readonly SealedKeyView[]> {
    const { keeper, reads } = this.#parts;
    const { keys } = await keeper.status();
    const sets = await reads.shareSets({});
    const ids = new Set([
      ...keys.map(({ keyId }) => keyId),
      ...sets.filter(isAlive).map(({ keyId }) => keyId),
    ]);
    ids.delete("");
    return Promise.all(
      [...ids].map((keyId) =>
        this.#keyView(
          keyId,
          keys.find((key) => key.keyId === keyId),
          sets.filter((set) => set.keyId === keyId),
        ),
      ),
    );
  }

  async key(keyId: string): Promise<SealedKeyView> {
    const view = (await this.keys()).find((key) => key.keyId === keyId);
    if (view === undefined) throw new CountersignError("key-unknown", "there is no such key here");
    return view;
  }

  async shareSet(keyId: string, shareSet: string | undefined): Promise<string> {
    return (await this.#find(keyId, shareSet, "active")).note;
  }

  async shareFile(
    keyId: string,
    index: number,
    shareSet: string | undefined,
    by: OperatorCaller,
  ): Promise<Uint8Array> {
    const { reads } = this.#parts;
    const set = await this.#find(keyId, shareSet, "pending");
    const share = (await reads.shares(set.digest)).find((one) => one.index === index);
    if (share === undefined) throw unknown("this share set has no share with this index");
    if (share.operator !== by.id) {
      await this.#alertStranger(set, by.id);
      throw new CountersignError(
        "forbidden",
        `share ${index} is ${share.operator}'s, and nobody else gets its file`,
      );
    }
    const file = await reads.shareFile(set.digest, index);
    if (file === undefined) {
      throw unknown("the file of this share is deleted: its custodian has confirmed that it came");
    }
    this.#fetched.add(shareName(set.digest, index));
    return file;
  }

  /** Whether a custodian has fetched the file, and is to confirm what is in it. */
  wasFetched(shareSet: string, index: number): boolean {
    return this.#fetched.has(shareName(shareSet, index));
  }

  async confirm(keyId: string, signed: Signed, address: string): Promise<ShareSetView> {
    const { rosters, journal, now } = this.#parts;
    const { operator, log, shareSet, index, proof } = verifying(this.#parts, address, () => {
      const confirmation = readConfirmation(signed.statement);
      requireSigned(rosters.inForce, confirmation.operator, namespaces.confirm, signed);
      return confirmation;
    });
    const { digest, ceremony } = await this.#find(keyId, shareSet, "pending");
    await checkSeenHead(log, this.#parts);
    await this.#progress.inTurn(ceremony, async () => {
      const set = await this.#find(keyId, digest, "pending");
      if (set.state !== "pending") {
        throw new CountersignError(
          "confirmation-invalid",
          "this share set waits for no confirmations",
        );
      }
      await this.#progress.requireSettled(ceremony);
      const octets = notedJson(set.note);
      const read = readShareSet(octets);
      const challenge = Buffer.from(digest.slice("sha256:".length), "hex");
      requireProof(read, { operator, index, proof }, challenge);
      await journal.append({
        kind: "share-confirmed",
        leaf: encodeEntry({
          type: "share.confirmed",
          at: now(),
          actor: signer(operator),
          subject: { keyId: set.keyId, epoch: set.epoch, shareSet: digest },
          data: { index },
          evidence: evidenceOf(signed),
        }),
        shareSet: digest,
        index,
        confirmation: signed,
      });
      this.#fetched.delete(shareName(digest, index));
      await this.#progress.proceed(ceremony);
    });
    return this.#setView(digest);
  }

  async drillChallenge(keyId: string, index: number, by: OperatorCaller): Promise<Uint8Array> {
    const { random, reads, now } = this.#parts;
    const set = await this.#find(keyId, undefined, "active");
    const share = (await reads.shares(set.digest)).find((one) => one.index === index);
    if (share === undefined) throw unknown("this share set has no share with this index");
    if (share.operator !== by.id) {
      throw new CountersignError(
        "forbidden",
        `share ${index} is ${share.operator}'s, who alone can prove it`,
      );
    }
    const octets = random(CHALLENGE_OCTETS);
    this.#challenges.set(shareName(set.digest, index), {
      octets,
      until: now().getTime() + DRILL_MILLISECONDS,
    });
    return octets;
  }

  async drill(keyId: string, signed: Signed, address: string): Promise<ShareSetView> {
    const { rosters, journal, now } = this.#parts;
    const drill = verifying(this.#parts, address, () => {
      const read = readDrill(signed.statement);
      requireSigned(rosters.inForce, read.operator, namespaces.confirm, signed);
      return read;
    });
    const { operator, log, shareSet, index, challenge } = drill;
    await checkSeenHead(log, this.#parts);
    const set = await this.#find(keyId, shareSet, "active");
    const name = shareName(set.digest, index);
    const asked = this.#challenges.get(name);
    if (
      asked === undefined ||
      now().getTime() > asked.until ||
      Buffer.from(asked.octets).toString("base64") !== challenge
    ) {
      throw new CountersignError(
        "statement-stale",
        "the challenge is not the one that was given last: ask for another, and prove the share with that",
      );
    }
    requireProof(readShareSet(notedJson(set.note)), drill, asked.octets);
    this.#challenges.delete(name); // once
    await journal.append({
      kind: "share-proved",
      leaf: encodeEntry({
        type: "share.drill",
        at: now(),
        actor: signer(operator),
        subject: { keyId: set.keyId, epoch: set.epoch, shareSet: set.digest },
        data: { index },
        evidence: evidenceOf(signed),
      }),
      shareSet: set.digest,
      index,
      at: now(),
    });
    return this.#setView(set.digest);
  }

  async lock(keyId: string, signed: Signed, address: string): Promise<void> {
    const { rosters, keeper } = this.#parts;
    const { operator } = verifying(this.#parts, address, () => {
      const lock = readLock(signed.statement);
      if (lock.keyId !== keyId) {
        throw new CountersignError("statement-stale", "the statement locks another key");
      }
      requireSigned(rosters.inForce, lock.operator, namespaces.lock, signed);
      return lock;
    });
    // The process first. Whatever fails after this, nothing is signed any more.
    await keeper.lock(signed.statement, signed.signature);
    const { keys } = await keeper.status();
    const held = keys.find((key) => key.keyId === keyId)?.custody !== "sealed";
    await this.#recordOnce(operator, signed, (said) => ({
      type: held ? "key.held" : "key.locked",
      subject: { keyId },
      data: { reason: "locked" },
      ...said,
    }));
  }

  async panic(signed: Signed, address: string): Promise<void> {
    const { rosters, keeper, service } = this.#parts;
    const { operator, reason } = verifying(this.#parts, address, () => {
      const panic = readPanic(signed.statement);
      if (panic.service !== service) {
        throw new CountersignError("statement-stale", "the statement is about another service");
      }
      requireSigned(rosters.inForce, panic.operator, namespaces.lock, signed);
      return panic;
    });
    await keeper.panic(signed.statement, signed.signature);
    await this.#recordOnce(operator, signed, (said) => ({
      type: "panic",
      subject: {},
      data: { reason },
      ...said,
    }));
  }

  /** Who has seen a lock can send it again: it locks again, and stands in the log once. */
  async #recordOnce(
    operator: string,
    signed: Signed,
    entry: (said: { at: Date; actor: Actor; evidence: Evidence }) => LogEntry,
  ): Promise<void> {
    const { failures, journal, now } = this.#parts;
    const statement = digestOf(signed.statement);
    if (!failures.isNew(statement, "locked")) return;
    const said = { at: now(), actor: signer(operator), evidence: evidenceOf(signed) };
    try {
      await journal.append({ kind: "entry", leaf: encodeEntry(entry(said)) });
    } catch (error) {
      failures.forget(statement, "locked");
      throw error;
    }
  }

  async #alertStranger({ keyId, digest }: StoredShareSet, operator: string): Promise<void> {
    const { journal, service, now } = this.#parts;
    await journal.append({
      kind: "entry",
      leaf: encodeEntry({
        type: "alert",
        at: now(),
        actor: { kind: "service", id: service },
        subject: { keyId, shareSet: digest },
        data: { code: "share-not-yours", operator },
      }),
    });
  }

  /** @throws CountersignError `share-set-unknown`. */
  async #find(
    keyId: string,
    digest: string | undefined,
    state: "pending" | "active",
  ): Promise<StoredShareSet> {
    const { reads } = this.#parts;
    const set =
      digest === undefined
        ? (await reads.shareSets({ keyId, state }))[0]
        : await reads.shareSet(digest);
    if (set === undefined || set.keyId !== keyId || !isAlive(set)) {
      throw unknown(
        digest === undefined
          ? `the key has no share set that is ${state}`
          : "the key has no such share set now",
      );
    }
    return set;
  }

  async #setView(digest: string): Promise<ShareSetView> {
    const { reads } = this.#parts;
    const set = await reads.shareSet(digest);
    if (set === undefined) throw unknown("there is no such share set");
    return shareSetView(set, await reads.shares(digest));
  }

  async #keyView(
    keyId: string,
    key: CeremonyKey | undefined,
    sets: readonly StoredShareSet[],
  ): Promise<SealedKeyView> {
    const { reads } = this.#parts;
    const shareSets = await Promise.all(
      sets.filter(isAlive).map(async (set) => shareSetView(set, await reads.shares(set.digest))),
    );
    return {
      keyId,
      ...(key === undefined ? {} : { issuer: key.issuer }),
      custody: key?.custody ?? "sealed",
      state: key?.state ?? "locked",
      operations: key?.operations ?? [],
      ...(key?.until === undefined ? {} : { until: new Date(key.until) }),
      ...(key?.ceremony === undefined ? {} : { ceremony: key.ceremony }),
      shareSets,
    };
  }
}

/** When somebody last showed that a share is there. */
export function lastProof({ confirmation, provedAt }: StoredShare): Date | undefined {
  const confirmedAt = confirmedAtOf(confirmation);
  if (provedAt === null) return confirmedAt;
  return confirmedAt === undefined || provedAt > confirmedAt ? provedAt : confirmedAt;
}

function confirmedAtOf(confirmation: Signed | null): Date | undefined {
  if (confirmation === null) return undefined;
  return new Date(readConfirmation(confirmation.statement).at);
}

function shareSetView(set: StoredShareSet, shares: readonly StoredShare[]): ShareSetView {
  const { threshold, shareCount, custodians } = readShareSet(notedJson(set.note));
  return {
    digest: set.digest,
    epoch: set.epoch,
    state: set.state === "active" ? "active" : "pending",
    threshold,
    shareCount,
    custodians: custodians.map(({ index, operator, role }, place) => {
      const { confirmation = null, provedAt = null } = shares[place] ?? {};
      const confirmedAt = confirmedAtOf(confirmation);
      return {
        index,
        operator,
        role,
        ...(confirmedAt === undefined ? {} : { confirmedAt }),
        ...(provedAt === null ? {} : { provedAt }),
      };
    }),
  };
}

/** @throws CountersignError `confirmation-invalid` unless this custodian has shown that they hold this share. */
function requireProof(
  set: ShareSet,
  said: { readonly operator: string; readonly index: number; readonly proof: string },
  challenge: Uint8Array,
): void {
  const custodian = set.custodians[said.index - 1];
  if (custodian === undefined || custodian.operator !== said.operator) {
    throw new CountersignError(
      "confirmation-invalid",
      `share ${said.index} of this set is not ${said.operator}'s`,
    );
  }
  const { keyId, epoch, threshold, shareCount } = set;
  const context = { keyId: Buffer.from(keyId, "hex"), epoch, threshold, shareCount };
  const commitment = {
    commit: Buffer.from(custodian.commit, "hex"),
    proof: Buffer.from(custodian.proof, "hex"),
  };
  const proof = Buffer.from(said.proof, "base64");
  if (checkShareProof(context, said.index, commitment, challenge, proof)) return;
  throw new CountersignError(
    "confirmation-invalid",
    `the proof is not one by share ${said.index} of this set: was it made with another share file?`,
  );
}

function isAlive({ state }: StoredShareSet): boolean {
  return state === "pending" || state === "active";
}

function shareName(shareSet: string, index: number): string {
  return `${shareSet} ${index}`;
}

function unknown(detail: string): CountersignError {
  return new CountersignError("share-set-unknown", detail);
}
