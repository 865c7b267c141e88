/** Making CRLs: on revocation, and before the published one grows old. RFC 5280 §5. */

import { hash } from "node:crypto";
import { digestOf } from "../audit/digest.ts";
import { encodeEntry, type Actor } from "../audit/entry.ts";
import { CountersignError } from "../errors.ts";
import { refusal } from "../gate/gate.ts";
import { actorOf, type Caller } from "../issuance/caller.ts";
import { wholeSeconds } from "../issuance/issuance.ts";
import type { Issuer, IssuerSet } from "../issuance/issuer.ts";
import type { Journal } from "../issuance/journal.ts";
import type { Signing } from "../issuance/keeper.ts";
import type { Reads, RevokedRecord } from "../issuance/records.ts";
import {
  buildTbsCertList,
  parseCertificateList,
  type CrlReason,
  type RevokedCertificate,
} from "../x509/certificate-list.ts";
import { assembleSigned } from "../x509/signed.ts";

/** DESIGN, "Defaults": a CRL lives seven days and is made daily. */
export const CRL_LIFETIME_SECONDS = 7 * 86_400;
export const CRL_INTERVAL_SECONDS = 86_400;

/** DESIGN, "Defaults": what an offline issuer's CRL lives, and when its end begins to be near. */
export const OFFLINE_CRL_DAYS = 180;
export const OFFLINE_CRL_WARNING_DAYS = 60;
const DAY_MILLISECONDS = 86_400_000;

/** How long the answer to a revocation waits for the CRL that carries it. */
const WAIT_FOR_CRL_MILLISECONDS = 3_000;

/** A failed CRL is tried again after this long. */
const RETRY_MILLISECONDS = 10_000;

/** A timer does not run while the machine sleeps, and knows nothing of a clock that was set: the clock is read this often. */
const CLOCK_MILLISECONDS = 60_000;

/**
 * Revocations that keep coming share a CRL each PAUSE, since each is kept whole for ever. The first BURST have one
 * each at once, as somebody who revokes by hand expects.
 */
const PAUSE_MILLISECONDS = 5_000;
const BURST = 5;

/** The clock may lie this far behind the last thisUpdate before CRLs stop. */
const CLOCK_TOLERANCE_MILLISECONDS = 5_000;

/**
 * An entry goes only when its certificate had ended this long before the predecessor was made, so that a
 * revocation recorded while that one was being built has been on a CRL for certain (CRL-40).
 */
const DROP_MARGIN_MILLISECONDS = 60_000;

export interface PublishedCrl {
  readonly der: Uint8Array;
  /** Decimal. */
  readonly number: string;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date;
  /** `sha256:` and 64 hex digits. */
  readonly sha256: string;
}

export interface Crls {
  /** @throws CountersignError `issuer-unknown`, `crl-unknown` if the issuer has made none yet. */
  current(issuer: string): PublishedCrl;
  /** Makes a CRL now, for an operator who asks for one. */
  publish(issuer: string, caller: Caller): Promise<PublishedCrl>;
}

export interface CrlParts {
  readonly issuers: IssuerSet;
  readonly journal: Journal;
  readonly reads: Reads;
  readonly keeper: Signing & {
    /** The last CRL that a key signed, DER: the service may not have lived to keep it. */
    list(keyId: string): Promise<Uint8Array | undefined>;
  };
  /** Of the policy's frame, `sha256:` and 64 hex digits. */
  readonly policyDigest: string;
  readonly now: () => Date;
  /** Told of every CRL that could not be made; it is tried again by itself. */
  readonly failed: (issuer: string, error: unknown) => void;
}

interface IssuerState {
  readonly issuer: Issuer;
  current: PublishedCrl | undefined;
  /**
   * The last that was signed. After a crash between signature and record it is newer than the published one:
   * nobody gets it, but the next must follow it.
   */
  predecessor: PublishedCrl | undefined;
  /** The run that is under way. */
  running: Promise<PublishedCrl> | undefined;
  /** The run after it, which everybody who asks meanwhile shares. */
  waiting: Promise<PublishedCrl> | undefined;
  timer: NodeJS.Timeout | undefined;
  /** Why the last run failed, for everybody. */
  trouble: string | undefined;
  /** Whether a revocation is recorded that the published CRL does not have. */
  owing: boolean;
  /** What the predecessor has and no revocation here accounts for: a ceremony has put it there, and there it stays. */
  others: readonly RevokedCertificate[];
  /** Until when the CRLs that revocations caused would last at one each PAUSE; milliseconds of the clock. */
  paced: number;
  /** Ends the pause before the waiting run. */
  hasten: (() => void) | undefined;
  /** Until a ceremony's CRL was compared with what is on record. */
  adopting: Promise<void> | undefined;
}

const scheduleActor: Actor = { kind: "service", id: "crl-schedule" };

export class CrlSchedule implements Crls {
  readonly #parts: CrlParts;
  readonly #states = new Map<string, IssuerState>();
  #hurried = false;
  #stopped = false;

  private constructor(parts: CrlParts) {
    this.#parts = parts;
  }

  /** Reads what was published last; `start` then makes what is overdue. */
  static async load(parts: CrlParts): Promise<CrlSchedule> {
    const schedule = new CrlSchedule(parts);
    for (const issuer of parts.issuers.all()) {
      const latest = await parts.reads.latestCrl(issuer.id);
      const signed = await parts.keeper.list(issuer.keyId);
      const current =
        latest === undefined || latest.crl === null ? undefined : published(latest.crl);
      schedule.#states.set(issuer.id, {
        issuer,
        current,
        predecessor: signed === undefined ? current : published(signed),
        running: undefined,
        waiting: undefined,
        timer: undefined,
        trouble: undefined,
        owing: await schedule.#owes(issuer.id, current),
        others: await schedule.#othersOn(issuer.id, signed ?? current?.der),
        paced: Number.NEGATIVE_INFINITY,
        hasten: undefined,
        adopting: undefined,
      });
    }
    return schedule;
  }

  /**
   * Makes overdue CRLs and sets the timers of the others.
   *
   * @returns When the overdue ones are made, or have failed and will be tried again.
   */
  async start(): Promise<void> {
    const states = [...this.#states.values()];
    for (const state of states) this.#plan(state);
    await Promise.allSettled(states.flatMap(({ running }) => running ?? []));
  }

  /** From now on no CRL waits for more revocations to share it: those who wait for it want to end. */
  hurry(): void {
    this.#hurried = true;
    for (const { hasten } of this.#states.values()) hasten?.();
  }

  /** Ends the timers and makes what has been asked for: a revocation does not wait for the next start. */
  async stop(): Promise<void> {
    this.hurry();
    this.#stopped = true;
    for (const state of this.#states.values()) {
      clearTimeout(state.timer);
      await state.adopting?.catch(() => undefined);
      await (state.waiting ?? state.running)?.catch(() => undefined);
    }
  }

  current(issuer: string): PublishedCrl {
    const state = this.#state(issuer);
    if (state.current === undefined) {
      throw new CountersignError("crl-unknown", `issuer ${issuer} has published no CRL yet`);
    }
    return state.current;
  }

  /**
   * Takes a CRL that a ceremony has made and recorded, DER: the next one follows it. That of an issuer which has just
   * become one waits for the next start.
   */
  adopt(issuer: string, crl: Uint8Array): void {
    const state = this.#states.get(issuer);
    const current = published(crl);
    if (state === undefined || BigInt(current.number) <= BigInt(state.current?.number ?? -1)) {
      return;
    }
    state.current = current;
    state.predecessor = current;
    state.trouble = undefined;
    state.owing = false;
    state.adopting = Promise.all([this.#owes(issuer, current), this.#othersOn(issuer, crl)]).then(
      ([owing, others]) => {
        // People have built it: a revocation that was recorded meanwhile need not be on it.
        state.owing ||= owing;
        state.others = others;
        if (state.running === undefined && state.waiting === undefined) this.#plan(state);
      },
    );
    state.adopting.catch((error: unknown) => this.#parts.failed(issuer, error));
  }

  /** Looks now at what is due: a key may have been opened. */
  look(): void {
    for (const state of this.#states.values()) this.#plan(state);
  }

  /** For /readyz: by issuer, the trouble of the last run, when the published CRL ends, whether its successor is late. */
  troubles(): { issuer: string; overdue: boolean; trouble?: string; nextUpdate?: Date }[] {
    return [...this.#states.values()].map(({ issuer, current, trouble }) => ({
      issuer: issuer.id,
      overdue: current !== undefined && this.#dueAt(issuer, current) <= this.#parts.now().getTime(),
      ...(trouble === undefined ? {} : { trouble }),
      ...(current === undefined ? {} : { nextUpdate: current.nextUpdate }),
    }));
  }

  publish(issuer: string, caller: Caller): Promise<PublishedCrl> {
    const state = this.#state(issuer);
    if (caller.kind !== "operator") {
      throw new CountersignError(
        "forbidden",
        "operators ask for CRLs; revoking makes one by itself",
      );
    }
    return this.#request(state, actorOf(caller), 0);
  }

  /**
   * Tells that a revocation of this issuer has been recorded.
   *
   * @returns The number of the CRL that carries it, or undefined if there is none within three seconds.
   */
  async revoked(issuer: string): Promise<bigint | undefined> {
    const state = this.#state(issuer);
    state.owing = true;
    if (!this.#parts.issuers.makesCrls(issuer)) return undefined;
    const made = this.#request(state, scheduleActor, this.#pauseBefore(state)).then(
      (crl) => BigInt(crl.number),
      // The run itself has reported the failure and tries again; the revocation stands.
      () => undefined,
    );
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), WAIT_FOR_CRL_MILLISECONDS);
    });
    try {
      return await Promise.race([made, timeout]);
    } finally {
      clearTimeout(timer);
    }
  }

  #state(issuer: string): IssuerState {
    const state = this.#states.get(issuer);
    if (state === undefined) {
      throw new CountersignError("issuer-unknown", `there is no issuer ${JSON.stringify(issuer)}`);
    }
    return state;
  }

  /** How long the next CRL for a revocation is to wait; it counts against the rate. */
  #pauseBefore(state: IssuerState): number {
    if (this.#hurried || state.waiting !== undefined) return 0; // that one carries it
    const now = this.#parts.now().getTime();
    const allowance = (BURST - 1) * PAUSE_MILLISECONDS;
    // A clock that was set back must not keep revocations waiting.
    const paced = Math.min(Math.max(state.paced, now), now + allowance + PAUSE_MILLISECONDS);
    state.paced = paced + PAUSE_MILLISECONDS;
    return Math.max(0, paced - allowance - now);
  }

  /**
   * One run at a time; all who ask during a run, or during the pause before one, share the next one, which sees all
   * their revocations.
   */
  #request(state: IssuerState, actor: Actor, pause: number): Promise<PublishedCrl> {
    if (this.#stopped) {
      return Promise.reject(new CountersignError("service-stopping", "the service is stopping"));
    }
    const { id } = state.issuer;
    if (!this.#parts.issuers.makesCrls(id)) {
      return Promise.reject(
        new CountersignError(
          "key-locked",
          `the key of ${id} is sealed: a ceremony of kind sign makes its next CRL, or one of kind window lets the service make it`,
        ),
      );
    }
    if (state.waiting !== undefined) {
      if (actor !== scheduleActor) state.hasten?.(); // a person
      return state.waiting;
    }
    if (state.running === undefined && pause === 0) return this.#run(state, actor);
    const paused = new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, pause).unref();
      state.hasten = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    state.waiting = Promise.all([state.running?.catch(() => undefined), paused]).then(() => {
      state.waiting = undefined;
      state.hasten = undefined;
      return this.#run(state, actor);
    });
    return state.waiting;
  }

  #run(state: IssuerState, actor: Actor): Promise<PublishedCrl> {
    const owed = state.owing;
    state.owing = false; // what is recorded from here on asks for the next run
    const run = this.#make(state, actor).then(
      (crl) => {
        state.current = crl;
        state.predecessor = crl;
        state.trouble = undefined;
        state.running = undefined;
        this.#plan(state);
        return crl;
      },
      (error: unknown) => {
        state.trouble = publicReason(error);
        state.running = undefined;
        state.owing ||= owed;
        this.#parts.failed(state.issuer.id, error);
        this.#later(state, RETRY_MILLISECONDS, () => this.#again(state));
        throw error;
      },
    );
    state.running = run;
    return run;
  }

  /** An overdue CRL is made at once; for the next regular one the clock is read again and again. */
  #plan(state: IssuerState): void {
    const { issuer, current, predecessor, owing } = state;
    if (!this.#parts.issuers.makesCrls(issuer.id)) {
      this.#later(state, CLOCK_MILLISECONDS, () => this.#plan(state)); // until its key is opened for it
      return;
    }
    const overdue =
      current === undefined || current.number !== predecessor?.number || owing
        ? 0
        : regularlyDue(current) - this.#parts.now().getTime();
    if (overdue <= 0) this.#begin(state);
    else this.#later(state, Math.min(overdue, CLOCK_MILLISECONDS), () => this.#plan(state));
  }

  /** After a run that failed. A key that was locked meanwhile is not asked: each time would stand in the log. */
  #again(state: IssuerState): void {
    if (this.#parts.issuers.makesCrls(state.issuer.id)) {
      this.#begin(state);
      return;
    }
    state.trouble = undefined;
    this.#plan(state);
  }

  /** When the window of a sealed issuer has ended, its last CRL has to do until people meet again. */
  #lifetimeSeconds({ id }: Issuer): number {
    return this.#parts.issuers.isSealed(id) ? OFFLINE_CRL_DAYS * 86_400 : CRL_LIFETIME_SECONDS;
  }

  /** When the successor of a CRL is late. */
  #dueAt({ id }: Issuer, current: PublishedCrl): number {
    return this.#parts.issuers.makesCrls(id)
      ? regularlyDue(current)
      : current.nextUpdate.getTime() - OFFLINE_CRL_WARNING_DAYS * DAY_MILLISECONDS;
  }

  #begin(state: IssuerState): void {
    if (state.running !== undefined || state.waiting !== undefined) return; // that one plans the next
    // `#run` has told `failed` and set the next try.
    this.#request(state, scheduleActor, 0).catch(() => undefined);
  }

  #later(state: IssuerState, milliseconds: number, then: () => void): void {
    clearTimeout(state.timer);
    if (this.#stopped) return;
    state.timer = setTimeout(then, milliseconds).unref();
  }

  async #make(state: IssuerState, actor: Actor): Promise<PublishedCrl> {
    const { journal, reads, keeper, now } = this.#parts;
    await state.adopting;
    const { issuer, predecessor, others } = state;
    if (predecessor !== undefined) await this.#afterSecondOf(predecessor.thisUpdate);
    const thisUpdate = wholeSeconds(now());
    const nextUpdate = new Date(
      Math.min(
        thisUpdate.getTime() + this.#lifetimeSeconds(issuer) * 1000,
        issuer.notAfter.getTime(),
      ),
    );
    const { entries, dropped } = await this.#entries(issuer.id, predecessor, others);
    const number = ((await reads.highestCrlNumber(issuer.id)) ?? 0n) + 1n;
    const tbs = buildTbsCertList({
      issuerCertificate: issuer.certificate,
      thisUpdate,
      nextUpdate,
      number,
      entries,
    });
    const context = {
      now: now(),
      intended: entries,
      ...(predecessor === undefined ? {} : { predecessor: predecessor.der }),
      ...(dropped.length === 0 ? {} : { dropped }),
    };
    const { warnings } = refusal(issuer.gate.checkCertificateList(tbs, context));
    const subject = { issuer: issuer.id, keyId: issuer.keyId };
    const tbsSha256 = hash("sha256", tbs, "buffer");
    const intent = encodeEntry({
      type: "sign.intent",
      at: now(),
      actor,
      subject,
      data: {
        operation: "crl",
        tbs: `sha256:${tbsSha256.toString("hex")}`,
        number: number.toString(),
        policy: this.#parts.policyDigest,
        ...(warnings.length === 0 ? {} : { warnings: [...warnings] }),
      },
    });
    // 1. The intent, with its number, is on disk before the key is used. A crash here leaves a gap in the
    //    numbers, which rise all the same.
    const intentIndex = await journal.append({
      kind: "crl-intent",
      leaf: intent,
      row: { issuer: issuer.id, keyId: issuer.keyId, number, tbsSha256, thisUpdate, nextUpdate },
    });
    // 2. The signer compares with the predecessor again and signs. A crash here leaves a CRL nobody has.
    let crl: Uint8Array;
    try {
      const signature = await keeper.sign({
        keyId: issuer.keyId,
        operation: "crl",
        intentIndex,
        intent,
        tbs,
        ...(predecessor === undefined ? {} : { predecessor: predecessor.der }),
        ...(dropped.length === 0 ? {} : { dropped }),
      });
      crl = assembleSigned(tbs, issuer.algorithm.identifier, signature);
      refusal(issuer.gate.checkSignedCertificateList(crl, context));
    } catch (error) {
      await journal.append({
        kind: "crl-abandoned",
        leaf: encodeEntry({
          type: "sign.abandoned",
          at: now(),
          actor,
          subject,
          data: {
            intent: intentIndex,
            reason: error instanceof CountersignError ? error.code : "internal",
          },
        }),
        intentIndex,
      });
      throw error;
    }
    // 3. The CRL is on disk before anybody fetches it. A crash here serves the one before.
    await journal.append({
      kind: "crl-done",
      leaf: encodeEntry({
        type: "sign.done",
        at: now(),
        actor,
        subject,
        data: { intent: intentIndex, crl: digestOf(crl), number: number.toString() },
      }),
      intentIndex,
      crl,
    });
    return published(crl);
  }

  /** Whether a crash came between a revocation and its CRL. */
  async #owes(issuer: string, current: PublishedCrl | undefined): Promise<boolean> {
    if (current === undefined) return false;
    const listed = serialNumbersOf(current.der);
    const rows = await this.#parts.reads.revokedForCrl(issuer);
    return rows.some(
      ({ serialNumber, notAfter }) => notAfter >= current.thisUpdate && !listed.has(serialNumber),
    );
  }

  /** What is on a CRL, DER, and on record as no revocation: a CA's certificate is revoked by a ceremony's CRL. */
  async #othersOn(issuer: string, crl: Uint8Array | undefined): Promise<RevokedCertificate[]> {
    if (crl === undefined) return [];
    const rows = await this.#parts.reads.revokedForCrl(issuer);
    const recorded = new Set(rows.map(({ serialNumber }) => serialNumber));
    return [...parseCertificateList(crl).entries()].filter(
      ({ serialNumber }) => !recorded.has(hexOf(serialNumber)),
    );
  }

  /** The entries of the next CRL, and the certificates of those that leave it: CRL-40, CRL-41. */
  async #entries(
    issuer: string,
    predecessor: PublishedCrl | undefined,
    others: readonly RevokedCertificate[],
  ): Promise<{ entries: RevokedCertificate[]; dropped: Uint8Array[] }> {
    const { reads } = this.#parts;
    const rows = await reads.revokedForCrl(issuer);
    const limit =
      predecessor === undefined
        ? Number.NEGATIVE_INFINITY
        : predecessor.thisUpdate.getTime() - DROP_MARGIN_MILLISECONDS;
    const dropped: Uint8Array[] = [];
    const entries: RevokedCertificate[] = [];
    let before: ReadonlySet<string> | undefined;
    for (const row of rows) {
      if (predecessor !== undefined && row.notAfter.getTime() < limit) {
        before ??= serialNumbersOf(predecessor.der);
        if (!before.has(row.serialNumber)) continue; // it left an earlier CRL
        const stored = await reads.certificate(issuer, row.serialNumber);
        if (stored !== undefined && stored.certificate !== null && wasValidAt(stored, row)) {
          dropped.push(stored.certificate);
          continue;
        }
        // A serial number that was never handed out has no certificate to show for it, and the signer takes none
        // whose revocation lies outside its validity (a clock that was set back): such an entry stays.
      }
      entries.push(entryOf(row));
    }
    if (others.length > 0) {
      entries.push(...others);
      entries.sort((a, b) => Buffer.compare(a.serialNumber, b.serialNumber));
    }
    return { entries, dropped };
  }

  /** CRL-19: thisUpdate rises with every CRL, and times have whole seconds. */
  async #afterSecondOf(thisUpdate: Date): Promise<void> {
    // Again and again: a timer and the clock differ, and a millisecond early is the same second.
    for (;;) {
      const wait = thisUpdate.getTime() + 1000 - this.#parts.now().getTime();
      if (wait <= 0) return;
      if (wait > 1000 + CLOCK_TOLERANCE_MILLISECONDS) {
        throw new CountersignError(
          "clock-behind",
          `the clock lies before the last CRL's thisUpdate, ${thisUpdate.toISOString()}: set it right; ` +
            "no CRL is made meanwhile",
        );
      }
      // oxlint-disable-next-line no-await-in-loop -- one pause after the other
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

function wasValidAt(
  { notBefore, notAfter }: { readonly notBefore: Date; readonly notAfter: Date },
  { revocationDate }: RevokedRecord,
): boolean {
  return revocationDate >= notBefore && revocationDate <= notAfter;
}

function serialNumbersOf(crl: Uint8Array): Set<string> {
  const serialNumbers = new Set<string>();
  for (const entry of parseCertificateList(crl).entries()) {
    serialNumbers.add(hexOf(entry.serialNumber));
  }
  return serialNumbers;
}

function hexOf(serialNumber: Uint8Array): string {
  return Buffer.from(serialNumber).toString("hex");
}

/**
 * An invalidity date that no GeneralizedTime holds is left out: rows stay as they are for ever, and one must not keep
 * all other revocations from being published.
 */
function entryOf(row: RevokedRecord): RevokedCertificate {
  const { invalidityDate } = row;
  return {
    serialNumber: Buffer.from(row.serialNumber, "hex"),
    revocationDate: row.revocationDate,
    reason: row.reason as CrlReason,
    ...(invalidityDate === null || !isEncodable(invalidityDate) ? {} : { invalidityDate }),
  };
}

/** What `x509/der.ts` writes: the years 1950 to 9999. */
function isEncodable(date: Date): boolean {
  const year = date.getUTCFullYear();
  return year >= 1950 && year <= 9999; // NaN is neither
}

/** Of a failure, what strangers may read: others' messages may hold paths and SQL. */
export function publicReason(error: unknown): string {
  return error instanceof CountersignError ? `${error.code}: ${error.message}` : "internal";
}

function regularlyDue({ thisUpdate }: PublishedCrl): number {
  return thisUpdate.getTime() + CRL_INTERVAL_SECONDS * 1000;
}

function published(der: Uint8Array): PublishedCrl {
  const list = parseCertificateList(der);
  return {
    der,
    number: list.crlNumber.toString(),
    thisUpdate: list.thisUpdate,
    nextUpdate: list.nextUpdate,
    sha256: digestOf(der),
  };
}
