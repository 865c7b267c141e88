/**
 * What ceremonies come to: CUSTODY.md 6.2. Whatever may have been the last word that was missing is followed by a look
 * at the whole; steps of one ceremony come one after the other.
 */

import {
  encodeEntry,
  parseEntry,
  type Actor,
  type Evidence,
  type LogEntryOf,
} from "../audit/entry.ts";
import { readShareSet, type Plan } from "../custody/plan.ts";
import { readCeremony, readUnlock } from "../custody/statement.ts";
import { CountersignError } from "../errors.ts";
import type { JournalItem } from "../issuance/journal.ts";
import type { Reads } from "../issuance/records.ts";
import type { CompiledPolicy } from "../policy/decide.ts";
import { publicReason } from "../revocation/crl-schedule.ts";
import type { CustodyItem, CustodyJournal } from "./journal.ts";
import type { CeremonyKeeper, CeremonyVotes, Closed, Dealt, Recorded } from "./keeper.ts";
import { notedDigest, notedJson } from "./log-words.ts";
import type {
  CeremonyEnd,
  CeremonyState,
  CustodyReads,
  StoredCeremony,
  StoredUnlock,
  UnlockEnd,
} from "./records.ts";
import type { Rosters } from "./roster-book.ts";
import { proofsOfPossession } from "./roster-proofs.ts";
import { signArtefacts } from "./sign-run.ts";
import { planOf, tallyOf, type Tally } from "./tally.ts";
import { Turns } from "./turns.ts";

/** After this long a step that failed is tried again; then after twice as long, and so on, up to an hour. */
const AGAIN_MILLISECONDS = 60_000;
const AGAIN_MOST_MILLISECONDS = 3_600_000;

/** After the key was opened for a ceremony, a crash leaves no more entries than this. */
const CRASH_ENTRIES = 4096;

export interface CeremonyParts {
  /** The service's name. */
  readonly service: string;
  readonly journal: CustodyJournal;
  readonly reads: Reads & CustodyReads;
  readonly keeper: CeremonyKeeper;
  readonly rosters: Rosters;
  readonly policy: CompiledPolicy;
  readonly now: () => Date;
  readonly random: (size: number) => Uint8Array;
  /** Called when somebody was refused who did not show who they are. */
  readonly denied: () => void;
  /** Told of what went wrong where nobody waits for an answer. */
  readonly failed: (what: string, error: unknown) => void;
  /** Told of a CRL that a ceremony has made, DER. */
  readonly published?: (issuer: string, crl: Uint8Array) => void;
}

export class Progress {
  readonly #parts: CeremonyParts;
  readonly #turns = new Turns();
  /** Ceremonies of one key: one is open at a time. */
  readonly #keyTurns = new Turns();
  /** Milliseconds by which a ceremony, by digest, has to be looked at. */
  readonly #due = new Map<string, number>();
  readonly #troubles = new Map<string, { readonly detail: string; readonly times: number }>();
  /** Seals of a PIN in use that the token may not have. */
  readonly #unsettled = new Set<string>();
  /** Those whose token may have the new PIN in this life of the service. */
  readonly #maybeChanged = new Set<string>();

  constructor(parts: CeremonyParts) {
    this.#parts = parts;
  }

  /** Does a step of a ceremony when those before it are done. */
  inTurn<Value>(ceremony: string, work: () => Promise<Value>): Promise<Value> {
    return this.#turns.inTurn(ceremony, work);
  }

  /** When no step is under way. */
  idle(): Promise<void> {
    return this.#turns.idle();
  }

  /** Why the last step of a ceremony did not succeed. */
  troubleOf(ceremony: string): string | undefined {
    return this.#troubles.get(ceremony)?.detail;
  }

  /** Looks at a ceremony by a time at the latest. */
  watch(ceremony: string, at: Date): void {
    const before = this.#due.get(ceremony);
    this.#due.set(ceremony, Math.min(before ?? Number.POSITIVE_INFINITY, at.getTime()));
  }

  /** Looks at the ceremonies whose time has come. */
  async tick(): Promise<void> {
    const now = this.#parts.now().getTime();
    const due = [...this.#due].filter(([, at]) => at <= now).map(([ceremony]) => ceremony);
    for (const ceremony of due) this.#due.delete(ceremony);
    await Promise.all(
      due.map((ceremony) =>
        this.inTurn(ceremony, () => this.proceed(ceremony)).catch((error: unknown) => {
          this.#stumbled(ceremony, error);
        }),
      ),
    );
  }

  /**
   * Does what can be done now. Must have its turn.
   *
   * @throws only what kept it from being looked at: a step that fails is tried again, and shown as trouble.
   */
  async proceed(digest: string): Promise<void> {
    const { reads, rosters, now } = this.#parts;
    const ceremony = await reads.ceremony(digest);
    if (ceremony === undefined) return;
    if (ceremony.state === "pending") {
      return this.#step(ceremony, async () => {
        if (await this.#settle(ceremony)) await this.activate(ceremony);
      });
    }
    if (ceremony.state !== "gathering") return;
    if (now() >= ceremony.notAfter) return this.close(ceremony, "expired");
    const tally = await tallyOf(reads, rosters.inForce, ceremony);
    if (tally.count.rejected) return this.close(ceremony, "rejected");
    const unlock = tally.unlock?.state === "gathering" ? tally.unlock : undefined;
    if (unlock !== undefined && now() >= unlock.expiresAt) {
      await this.endUnlock(unlock, "expired");
      this.#watch(ceremony, undefined);
      return;
    }
    this.#watch(ceremony, unlock);
    if (!tally.count.met) return;
    switch (ceremony.kind) {
      case "sign":
      case "window":
      case "reshare":
        if (unlock !== undefined) {
          await this.#step(ceremony, () => this.#open(ceremony, unlock, tally));
        }
        return;
      case "generate":
        return this.#step(ceremony, () => this.#deal(ceremony, tally));
      case "roster":
        return this.#step(ceremony, () => this.#follow(ceremony, tally));
      case "resume":
        return this.#step(ceremony, () => this.#resume(ceremony, tally));
      case "policy":
      case "retire":
        return;
    }
  }

  /** Closes a ceremony and what belongs to it. Must have its turn. */
  async close(
    ceremony: StoredCeremony,
    state: CeremonyEnd,
    said: { readonly reason?: string; readonly actor?: Actor; readonly evidence?: Evidence } = {},
  ): Promise<void> {
    const { journal, reads, keeper } = this.#parts;
    const unlock = (await reads.unlocksOf(ceremony.digest)).at(-1);
    // A process that is to end has nothing to wait for.
    if (unlock !== undefined) await keeper.endUnlock(unlock.digest);
    if (isOpen(ceremony)) await this.#recordLocked(ceremony, said.reason ?? state);
    const leaf = this.#closed(ceremony, state, said);
    const pending = await this.#pendingSetOf(ceremony);
    if (pending !== undefined && state !== "applied") {
      await journal.append({
        kind: "share-set-dropped",
        leaf,
        shareSet: pending.digest,
        ceremonyState: state as "aborted" | "expired" | "failed",
      });
    } else {
      await journal.append({ kind: "ceremony-state", leaf, ceremony: ceremony.digest, state });
    }
    this.#due.delete(ceremony.digest);
    this.#troubles.delete(ceremony.digest);
    if (unlock?.state === "gathering") {
      const end = state === "rejected" ? "refused" : state === "expired" ? "expired" : "ended";
      await this.#recordUnlock(unlock, end, state);
    }
    if (ceremony.keyId !== null) await this.#freed(ceremony.keyId);
  }

  /** Ends an unlock that gathers: its process, then on record. Must have the turn of its ceremony. */
  async endUnlock(unlock: StoredUnlock, state: UnlockEnd, reason?: string): Promise<void> {
    await this.#parts.keeper.endUnlock(unlock.digest);
    await this.#recordUnlock(unlock, state, reason);
  }

  /** What the keeper tells of processes that ended. */
  async closed(event: Closed): Promise<void> {
    await this.inTurn(event.ceremony, async () => {
      const { reads } = this.#parts;
      if (event.what === "unlock") {
        const unlock = await reads.unlock(event.unlock);
        if (unlock?.state !== "gathering") return;
        await this.#recordUnlock(
          unlock,
          event.reason === "expired" ? "expired" : "ended",
          event.reason,
        );
        return;
      }
      const ceremony = await reads.ceremony(event.ceremony);
      if (ceremony?.state === "unlocked") await this.#locks(ceremony, event.reason);
    });
  }

  /**
   * Makes a pending share set the one in force, when everybody has confirmed. Must have the turn of its ceremony.
   */
  async activate(ceremony: StoredCeremony): Promise<void> {
    const { journal, reads, now } = this.#parts;
    const set = await this.#pendingSetOf(ceremony);
    if (set === undefined) return;
    const shares = await reads.shares(set.digest);
    if (shares.some(({ confirmation }) => confirmation === null)) return;
    const { previous } = readShareSet(notedJson(set.note));
    // A crash before this leaves the set before in force, and this one to be activated at the next start; a crash
    // after it, one of which the keeper hears at the next start.
    await journal.append({
      kind: "share-set-activated",
      leaf: encodeEntry({
        type: "share-set.activated",
        at: now(),
        actor: this.#self,
        subject: { keyId: set.keyId, epoch: set.epoch, shareSet: set.digest },
        data: previous === null ? {} : { previous },
      }),
      shareSet: set.digest,
      ceremonyState: "applied",
    });
    this.#due.delete(ceremony.digest);
    void this.#endUnlocksOf(set.keyId, set.digest).catch((error: unknown) => {
      this.#parts.failed(`unlocks of key ${set.keyId}`, error);
    });
    await this.tellActive(set.digest, set.note);
  }

  /** Unlocks that gather shares of a set before the one in force. */
  async #endUnlocksOf(key: string, active: string): Promise<void> {
    for (const { digest, ceremony, keyId, shareSet } of await this.#parts.reads.openUnlocks()) {
      if (keyId !== key || shareSet === active) continue;
      // oxlint-disable-next-line no-await-in-loop -- the order of the records
      await this.inTurn(ceremony, async () => {
        const unlock = await this.#parts.reads.unlock(digest);
        if (unlock?.state === "gathering") await this.endUnlock(unlock, "ended", "reshare");
      });
    }
  }

  /** Tells the keeper of a share set that is in force. */
  async tellActive(digest: string, note: string): Promise<void> {
    const { reads, keeper } = this.#parts;
    const shares = await reads.shares(digest);
    await keeper.activate(
      note,
      shares.flatMap(({ confirmation }) => confirmation ?? []),
    );
  }

  /** What a crash or a stop left: CUSTODY.md 6.2, "a restart is locked". */
  async recover(): Promise<void> {
    const { reads } = this.#parts;
    for (const unlock of await reads.openUnlocks()) {
      // oxlint-disable-next-line no-await-in-loop -- the order of the records
      await this.inTurn(unlock.ceremony, () => this.#recordUnlock(unlock, "ended", "restart"));
    }
    for (const { digest, note } of await reads.shareSets({ state: "active" })) {
      // oxlint-disable-next-line no-await-in-loop -- one refusal ends the start
      await this.tellActive(digest, note);
    }
    for await (const ceremony of this.#unfinished()) {
      await this.inTurn(ceremony.digest, () => this.#takeUp(ceremony)).catch((error: unknown) => {
        this.#stumbled(ceremony.digest, error);
      });
    }
  }

  async *#unfinished(): AsyncGenerator<StoredCeremony> {
    const states = ["gathering", "unlocking", "unlocked", "pending", "signed", "verified"] as const;
    const all: StoredCeremony[] = [];
    let cursor: number | undefined;
    do {
      // oxlint-disable-next-line no-await-in-loop -- page by page
      const page = await this.#parts.reads.ceremonies({
        state: states,
        limit: 100,
        ...(cursor === undefined ? {} : { cursor }),
      });
      all.push(...page.ceremonies);
      cursor = page.next;
    } while (cursor !== undefined);
    yield* all.toReversed();
  }

  async #takeUp(ceremony: StoredCeremony): Promise<void> {
    if (ceremony.state === "unlocking") {
      // Whether the keeper came to open it, it knows: then it does not do it again.
      await this.#recordLocked(ceremony, "restart");
      await this.#record(ceremony, "gathering", "restart");
    } else if (isOpen(ceremony)) {
      await this.#abandonRequests(ceremony);
      await this.#locks(ceremony, "restart");
      return;
    }
    await this.proceed(ceremony.digest);
  }

  /** Intents of requests have no row in which the start would find them open. */
  async #abandonRequests({ changedIndex }: StoredCeremony): Promise<void> {
    const { reads, journal, now } = this.#parts;
    const leaves = await reads.entries(changedIndex, changedIndex + CRASH_ENTRIES);
    const entries = leaves.map((leaf) => parseEntry(leaf));
    const closed = new Set(
      entries.flatMap((entry) =>
        entry.type === "sign.done" || entry.type === "sign.abandoned" ? [entry.data.intent] : [],
      ),
    );
    for (const [place, entry] of entries.entries()) {
      const intent = changedIndex + place;
      if (entry.type !== "sign.intent" || entry.data.operation !== "request") continue;
      if (closed.has(intent)) continue;
      // oxlint-disable-next-line no-await-in-loop -- few
      await journal.append({
        kind: "entry",
        leaf: encodeEntry({
          type: "sign.abandoned",
          at: now(),
          actor: this.#self,
          subject: entry.subject,
          data: { intent, reason: "found open at start" },
        }),
      });
    }
  }

  /** Ceremonies that wait for a key which is locked now go on. */
  async #freed(keyId: string): Promise<void> {
    const { reads, now } = this.#parts;
    const waiting = await reads.ceremonies({ keyId, state: "gathering", limit: 100 });
    for (const { digest } of waiting.ceremonies) this.watch(digest, now());
  }

  /** What becomes of a ceremony whose key is locked. */
  async #locks(ceremony: StoredCeremony, reason: string): Promise<void> {
    await this.close(ceremony, ceremony.kind === "window" ? "locked" : "failed", { reason });
  }

  /** Tries a step; what went wrong is shown, and it is tried again. */
  async #step(ceremony: StoredCeremony, step: () => Promise<void>): Promise<void> {
    try {
      await step();
      this.#troubles.delete(ceremony.digest);
    } catch (error) {
      this.#stumbled(ceremony.digest, error);
    }
  }

  #stumbled(ceremony: string, error: unknown): void {
    const { failed, now } = this.#parts;
    const times = (this.#troubles.get(ceremony)?.times ?? 0) + 1;
    this.#troubles.set(ceremony, { detail: publicReason(error), times });
    const again = Math.min(AGAIN_MILLISECONDS * 2 ** (times - 1), AGAIN_MOST_MILLISECONDS);
    this.watch(ceremony, new Date(now().getTime() + again));
    failed(`ceremony ${ceremony}`, error);
  }

  #watch({ digest, notAfter }: StoredCeremony, unlock: StoredUnlock | undefined): void {
    this.watch(digest, notAfter);
    if (unlock !== undefined) this.watch(digest, unlock.expiresAt);
  }

  /** Opens a key: CUSTODY.md 6.2, "log record first, then open, then hand-off to the signer". */
  async #open(ceremony: StoredCeremony, unlock: StoredUnlock, tally: Tally): Promise<void> {
    const { keeper } = this.#parts;
    const votes = votesOf(ceremony, tally);
    const record = await this.#keyTurns.inTurn(unlock.keyId, async () => {
      await this.#requireKeyFree(unlock.keyId);
      await this.#record(ceremony, "unlocking");
      return this.#recordUnlocked(ceremony, unlock, tally);
    });
    let dealt: Dealt | undefined;
    try {
      // A crash from here on leaves a key that the end of its process has locked.
      dealt = await keeper.open(
        unlock.digest,
        votes,
        tally.submissions.map(({ statement, signature }) => ({ statement, signature })),
        record,
      );
    } catch (error) {
      return this.#notOpened({ ...ceremony, state: "unlocking" }, unlock, error);
    }
    await this.#recordUnlock(unlock, "opened");
    if (ceremony.kind === "reshare") {
      if (dealt === undefined) throw new Error("the keeper dealt nothing for a reshare");
      await this.#recordLocked(ceremony, "used-up");
      await this.#pending(ceremony, dealt);
      return;
    }
    // A window closes when the keeper tells so.
    await this.#record(ceremony, "unlocked");
    if (ceremony.kind === "sign") await this.#sign(ceremony, unlock, tally);
  }

  async #requireKeyFree(keyId: string): Promise<void> {
    const { ceremonies } = await this.#parts.reads.ceremonies({
      keyId,
      state: ["unlocking", "unlocked", "signed", "verified"],
      limit: 1,
    });
    if (ceremonies.length > 0) {
      throw new CountersignError(
        "unlock-busy",
        "the key is open for another ceremony: this one goes on when it is locked",
      );
    }
  }

  /** @throws the error again where it is to be tried again. */
  async #notOpened(ceremony: StoredCeremony, unlock: StoredUnlock, error: unknown): Promise<void> {
    const { failed, journal, now } = this.#parts;
    const code = error instanceof CountersignError ? error.code : "internal";
    if (gathersOn.has(code)) {
      await this.#recordLocked(ceremony, code);
      await this.#record(ceremony, "gathering", code);
      throw error;
    }
    failed(`unlock ${unlock.digest}`, error);
    if (code === "kek-mismatch" || code === "sealed-key-corrupt") {
      await journal.append({
        kind: "entry",
        leaf: encodeEntry({
          type: "alert",
          at: now(),
          actor: this.#self,
          subject: { ceremony: ceremony.digest, unlock: unlock.digest, keyId: unlock.keyId },
          data: { code },
        }),
      });
    }
    if (ceremony.kind !== "reshare") {
      // For the keeper it counts as carried out from the moment that the secret was on its way.
      await this.close(ceremony, "failed", { reason: code });
      return;
    }
    await this.endUnlock(unlock, "ended", code);
    await this.#recordLocked(ceremony, code);
    await this.#record(ceremony, "gathering", code);
  }

  /** Signs all artefacts of a ceremony whose key is open, and stores all, or none. */
  async #sign(ceremony: StoredCeremony, unlock: StoredUnlock, tally: Tally): Promise<void> {
    const { keeper, journal, reads, published, failed } = this.#parts;
    const { statement } = tally;
    let signed: Awaited<ReturnType<typeof signArtefacts>>;
    try {
      const artefacts = await Promise.all(
        statement.artefacts!.map(async ({ tbs }) => {
          const octets = await reads.object(tbs);
          if (octets === undefined) throw new Error(`the bytes of artefact ${tbs} are missing`);
          return octets;
        }),
      );
      signed = await signArtefacts(this.#parts, {
        keyId: unlock.keyId,
        artefacts,
        actor: { kind: "operator", id: statement.requestedBy, via: "session" },
      });
      await this.#record(ceremony, "signed");
      await this.#record(ceremony, "verified");
      await journal.appendAll([
        ...signed.map(({ done }) => done),
        {
          kind: "ceremony-state",
          leaf: this.#closed(ceremony, "published", {}),
          ceremony: ceremony.digest,
          state: "published",
          objects: signed.map(({ der }) => der),
        },
      ]);
    } catch (error) {
      failed(`ceremony ${ceremony.digest}`, error);
      const current = await reads.ceremony(ceremony.digest);
      if (current !== undefined && isOpen(current)) {
        await this.close(current, "failed", { reason: publicReason(error) });
      }
      return;
    }
    await keeper.endUnlock(unlock.digest);
    await this.#recordLocked(ceremony, "used-up");
    this.#due.delete(ceremony.digest);
    await this.#freed(unlock.keyId);
    const { keys } = await keeper.status();
    const issuer = keys.find(({ keyId }) => keyId === unlock.keyId)?.issuer;
    for (const { artefact, der } of signed) {
      if (artefact.kind === "crl" && issuer !== undefined) published?.(issuer, der);
    }
  }

  /** Makes a key and its shares, or a seal for a PIN in use. */
  async #deal(ceremony: StoredCeremony, tally: Tally): Promise<void> {
    const { keeper, journal, now } = this.#parts;
    const plan = await this.#document(tally);
    const leaf = encodeEntry({
      type: "ceremony.step",
      at: now(),
      actor: this.#self,
      subject: { ceremony: ceremony.digest },
      data: { state: "dealing" },
    });
    const record = { index: await journal.append({ kind: "entry", leaf }), leaf };
    let dealt: Dealt;
    try {
      dealt = await keeper.deal({ ...votesOf(ceremony, tally), plan, record });
    } catch (error) {
      if (!(error instanceof CountersignError) || error.code !== "ceremony-closed") throw error;
      // A crash came between the dealer and our database: what was dealt is lost, and nobody needs it.
      return this.close(ceremony, "failed", {
        reason: "what was dealt was lost: propose it again",
      });
    }
    // 1. What was dealt is on disk. A crash before leaves nothing that anybody needs.
    await this.#pending(ceremony, dealt);
    // 2. Only now a PIN in use is changed to the one that is sealed. A crash before leaves the old one: see #settle.
    if (!sealsPinInUse(tally.plan)) return;
    this.#unsettled.add(ceremony.digest);
    try {
      await keeper.commit(ceremony.digest);
    } catch (error) {
      if (!(error instanceof CountersignError) || error.code === "log-unavailable") {
        // It may have been changed, also by a dealer whose keeper has ended. The signer that has the token open does not notice, the next start does.
        this.#maybeChanged.add(ceremony.digest);
        throw error;
      }
      this.#unsettled.delete(ceremony.digest);
      await this.close({ ...ceremony, state: "pending" }, "failed", {
        reason: publicReason(error),
      });
      return;
    }
    // A dealer that had ended before it was told has changed nothing.
    await this.#settle({ ...ceremony, state: "pending" });
  }

  /**
   * Looks again, where it was not known at the start because the token did not answer yet.
   *
   * @throws CountersignError `key-locked` while it is not known whether the token has the sealed PIN; `ceremony-closed`
   *   if it has not.
   */
  async requireSettled(digest: string): Promise<void> {
    if (!this.#unsettled.has(digest)) return;
    const ceremony = await this.#parts.reads.ceremony(digest);
    if (ceremony?.state === "pending" && (await this.#settle(ceremony))) return;
    throw new CountersignError("ceremony-closed", "the token has the PIN that it had");
  }

  /**
   * Whether what was dealt can be dropped again.
   *
   * @throws CountersignError `ceremony-refused` for the seal of a PIN that the token has by now: nothing else opens it.
   */
  async requireDroppable(ceremony: StoredCeremony): Promise<void> {
    if (ceremony.state !== "pending") return;
    const plan = await planOf(this.#parts.reads, readCeremony(notedJson(ceremony.note)));
    if (!sealsPinInUse(plan)) return;
    throw new CountersignError(
      "ceremony-refused",
      "the token has the sealed PIN already, and only these shares open it: confirm them",
    );
  }

  /**
   * After a crash: whether the PIN of a token in use is the one that is sealed. Where it is not, the set is worth
   * nothing; where it is, the set is all that opens the token.
   *
   * @returns whether the set is to be used.
   */
  async #settle(ceremony: StoredCeremony): Promise<boolean> {
    const plan = await planOf(this.#parts.reads, readCeremony(notedJson(ceremony.note)));
    if (!sealsPinInUse(plan)) return true;
    const { digest, keyId } = ceremony;
    const { keys } = await this.#parts.keeper.status();
    const key = keys.find((candidate) => candidate.keyId === keyId);
    if (key?.custody === "sealed" || key?.pinRefused === true) {
      this.#unsettled.delete(digest);
      return true;
    }
    if (key?.state === "open" && !this.#maybeChanged.has(digest)) {
      await this.close(ceremony, "failed", { reason: "the token has the PIN that it had" });
      return false;
    }
    this.#unsettled.add(digest);
    throw new CountersignError(
      "key-locked",
      "whether the token has the sealed PIN is not known yet: start the service again, and confirm then",
    );
  }

  async #pending(ceremony: StoredCeremony, dealt: Dealt): Promise<void> {
    const { journal, now } = this.#parts;
    const set = readShareSet(notedJson(dealt.shareSet));
    const digest = notedDigest(dealt.shareSet);
    const { keyId, epoch } = set;
    await journal.append({
      kind: "share-set",
      leaf: encodeEntry({
        type: "key.generated",
        at: now(),
        actor: this.#self,
        subject: { ceremony: ceremony.digest, keyId, epoch, shareSet: digest },
        data: { note: dealt.shareSet },
      }),
      row: {
        digest,
        keyId,
        epoch,
        ceremony: ceremony.digest,
        note: dealt.shareSet,
        sealed: dealt.sealed,
      },
      shares: set.custodians.map(({ index, operator, file }, place) => ({
        index,
        operator,
        file: dealt.files[place]!,
        fileSha256: file,
      })),
      ceremonyState: "pending",
    });
    this.#due.delete(ceremony.digest);
  }

  async #follow(ceremony: StoredCeremony, tally: Tally): Promise<void> {
    const { rosters, reads } = this.#parts;
    const document = await this.#document(tally);
    const before = rosters.isOf(ceremony.digest);
    if (!before && tally.statement.roster !== rosters.inForce.digest) {
      await this.close(ceremony, "failed", { reason: "the roster has been changed meanwhile" });
      return;
    }
    await rosters.follow({
      document,
      signatures: await proofsOfPossession(reads, ceremony),
      ceremony: votesOf(ceremony, tally),
    });
    await this.close(ceremony, "applied");
  }

  async #resume(ceremony: StoredCeremony, tally: Tally): Promise<void> {
    const { journal, keeper, now } = this.#parts;
    const plan = await this.#document(tally);
    await journal.append({
      kind: "entry",
      leaf: encodeEntry({
        type: "resume",
        at: now(),
        actor: this.#self,
        subject: { ceremony: ceremony.digest },
      }),
    });
    try {
      await keeper.resume({ ...votesOf(ceremony, tally), plan });
    } catch (error) {
      // A crash came between its deed and our record of it.
      if (!(error instanceof CountersignError) || error.code !== "ceremony-closed") throw error;
    }
    await this.close(ceremony, "applied");
  }

  async #document({ statement }: Tally): Promise<Uint8Array> {
    const octets = await this.#parts.reads.object(statement.plan!);
    if (octets === undefined) throw new Error(`document ${statement.plan} is missing`);
    return octets;
  }

  async #pendingSetOf({ digest, state }: StoredCeremony) {
    if (state !== "pending") return undefined;
    const sets = await this.#parts.reads.shareSets({ state: "pending" });
    return sets.find(({ ceremony }) => ceremony === digest);
  }

  get #self(): Actor {
    return { kind: "service", id: this.#parts.service };
  }

  #closed(
    { digest }: StoredCeremony,
    state: CeremonyEnd,
    said: { readonly reason?: string; readonly actor?: Actor; readonly evidence?: Evidence },
  ): Uint8Array {
    return encodeEntry({
      type: "ceremony.closed",
      at: this.#parts.now(),
      actor: said.actor ?? this.#self,
      subject: { ceremony: digest },
      data: { state, ...(said.reason === undefined ? {} : { reason: said.reason }) },
      ...(said.evidence === undefined ? {} : { evidence: said.evidence }),
    });
  }

  #stateItem(ceremony: StoredCeremony, state: CeremonyState, reason?: string): CustodyItem {
    return {
      kind: "ceremony-state",
      leaf: encodeEntry({
        type: "ceremony.step",
        at: this.#parts.now(),
        actor: this.#self,
        subject: { ceremony: ceremony.digest },
        data: { state, ...(reason === undefined ? {} : { reason }) },
      }),
      ceremony: ceremony.digest,
      state,
    };
  }

  async #record(ceremony: StoredCeremony, state: CeremonyState, reason?: string): Promise<void> {
    await this.#parts.journal.append(this.#stateItem(ceremony, state, reason));
  }

  /** Says in the log who opens the key and for what: the keeper does nothing without it. */
  async #recordUnlocked(
    ceremony: StoredCeremony,
    unlock: StoredUnlock | undefined,
    { statement, approvals, submissions }: Tally,
  ): Promise<Recorded> {
    const people = [
      ...approvals.filter(({ verdict }) => verdict === "approve"),
      ...submissions.filter(({ verdict }) => verdict === "give"),
    ].map(({ operator }) => operator);
    const keyId = unlock?.keyId ?? statement.keyId;
    const leaf = encodeEntry({
      type: "key.unlocked",
      at: this.#parts.now(),
      actor: this.#self,
      subject: {
        ceremony: ceremony.digest,
        ...(unlock === undefined
          ? {}
          : { unlock: unlock.digest, epoch: readUnlock(notedJson(unlock.note)).epoch }),
        ...(keyId === undefined ? {} : { keyId }),
      } as LogEntryOf<"key.unlocked">["subject"],
      data: { kind: statement.kind, people: [...new Set(people)] },
    });
    return { index: await this.#parts.journal.append({ kind: "entry", leaf }), leaf };
  }

  async #recordLocked(ceremony: StoredCeremony, reason: string): Promise<void> {
    const unlock = (await this.#parts.reads.unlocksOf(ceremony.digest)).at(-1);
    if (unlock === undefined) return;
    const item: JournalItem = {
      kind: "entry",
      leaf: encodeEntry({
        type: "key.locked",
        at: this.#parts.now(),
        actor: this.#self,
        subject: { keyId: unlock.keyId, unlock: unlock.digest, ceremony: ceremony.digest },
        data: { reason },
      }),
    };
    await this.#parts.journal.append(item);
  }

  async #recordUnlock(unlock: StoredUnlock, state: UnlockEnd, reason?: string): Promise<void> {
    const { epoch } = readUnlock(notedJson(unlock.note));
    await this.#parts.journal.append({
      kind: "unlock-state",
      leaf: encodeEntry({
        type: "unlock.closed",
        at: this.#parts.now(),
        actor: this.#self,
        subject: { ceremony: unlock.ceremony, unlock: unlock.digest, keyId: unlock.keyId, epoch },
        data: { state, ...(reason === undefined ? {} : { reason }) },
      }),
      unlock: unlock.digest,
      state,
    });
  }
}

/** After these, the keeper's unlocker has its shares still. */
const gathersOn: ReadonlySet<string> = new Set([
  "ceremony-refused",
  "unlock-busy",
  "panic",
  "key-held",
]);

/** Whether a key is, or was, open for it. */
function isOpen({ state }: StoredCeremony): boolean {
  return ["unlocking", "unlocked", "signed", "verified"].includes(state);
}

/** Whether the PIN of a token that was in use goes under its first seal. */
function sealsPinInUse(plan: Plan | undefined): boolean {
  return plan !== undefined && "use" in plan.key && plan.payload === "pin" && plan.epoch === 1;
}

function votesOf({ note }: StoredCeremony, { approvals }: Tally): CeremonyVotes {
  return {
    note,
    approvals: approvals.map(({ statement, signature }) => ({ statement, signature })),
  };
}
