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

/** How long the answer to a revocation waits for the CRL that carries it. */
const WAIT_FOR_CRL_MILLISECONDS = 3_000;

/** A failed CRL is tried again after this long. */
const RETRY_MILLISECONDS = 10_000;

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
  /** Why the last run failed. */
  trouble: string | undefined;
}

const scheduleActor: Actor = { kind: "service", id: "crl-schedule" };

export class CrlSchedule implements Crls {
  readonly #parts: CrlParts;
  readonly #states = new Map<string, IssuerState>();
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
      });
    }
    return schedule;
  }

  /** Makes overdue CRLs and sets the timers of the others. */
  start(): void {
    for (const state of this.#states.values()) this.#plan(state);
  }

  /** Ends the timers and waits for the run under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const state of this.#states.values()) {
      clearTimeout(state.timer);
      await state.running?.catch(() => undefined);
    }
  }

  current(issuer: string): PublishedCrl {
    const state = this.#state(issuer);
    if (state.current === undefined) {
      throw new CountersignError("crl-unknown", `issuer ${issuer} has published no CRL yet`);
    }
    return state.current;
  }

  /** For /readyz: by issuer, the trouble of the last run and when the published CRL ends. */
  troubles(): { issuer: string; trouble?: string; nextUpdate?: Date }[] {
    return [...this.#states.values()].map(({ issuer, current, trouble }) => ({
      issuer: issuer.id,
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
    return this.#request(state, actorOf(caller));
  }

  /**
   * Tells that a revocation of this issuer has been recorded.
   *
   * @returns The number of the CRL that carries it, or undefined if there is none within three seconds.
   */
  async revoked(issuer: string): Promise<bigint | undefined> {
    const made = this.#request(this.#state(issuer), scheduleActor).then(
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

  /** One run at a time; all who ask during a run share the next one, which sees all their revocations. */
  #request(state: IssuerState, actor: Actor): Promise<PublishedCrl> {
    if (state.running === undefined) return this.#run(state, actor);
    state.waiting ??= state.running
      .catch(() => undefined)
      .then(() => {
        state.waiting = undefined;
        return this.#run(state, actor);
      });
    return state.waiting;
  }

  #run(state: IssuerState, actor: Actor): Promise<PublishedCrl> {
    if (this.#stopped) {
      return Promise.reject(new CountersignError("service-stopping", "the service is stopping"));
    }
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
        state.trouble = error instanceof Error ? error.message : String(error);
        state.running = undefined;
        this.#parts.failed(state.issuer.id, error);
        this.#later(state, RETRY_MILLISECONDS);
        throw error;
      },
    );
    state.running = run;
    return run;
  }

  /** Sets the timer for the next regular CRL; an overdue one is made at once. */
  #plan(state: IssuerState): void {
    const due =
      state.current === undefined || state.current.number !== state.predecessor?.number
        ? 0
        : state.current.thisUpdate.getTime() + CRL_INTERVAL_SECONDS * 1000;
    this.#later(state, Math.max(0, due - this.#parts.now().getTime()));
  }

  #later(state: IssuerState, milliseconds: number): void {
    clearTimeout(state.timer);
    if (this.#stopped) return;
    state.timer = setTimeout(() => {
      // `#run` has told `failed` and set the next try.
      this.#request(state, scheduleActor).catch(() => undefined);
    }, milliseconds);
    state.timer.unref();
  }

  async #make(state: IssuerState, actor: Actor): Promise<PublishedCrl> {
    const { journal, reads, keeper, now } = this.#parts;
    const { issuer, predecessor } = state;
    if (predecessor !== undefined) await this.#afterSecondOf(predecessor.thisUpdate);
    const thisUpdate = wholeSeconds(now());
    const nextUpdate = new Date(
      Math.min(thisUpdate.getTime() + CRL_LIFETIME_SECONDS * 1000, issuer.notAfter.getTime()),
    );
    const { entries, dropped } = await this.#entries(issuer.id, predecessor);
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
    let signature: Uint8Array;
    try {
      signature = await keeper.sign({
        keyId: issuer.keyId,
        operation: "crl",
        intentIndex,
        intent,
        tbs,
        ...(predecessor === undefined ? {} : { predecessor: predecessor.der }),
        ...(dropped.length === 0 ? {} : { dropped }),
      });
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
    const crl = assembleSigned(tbs, issuer.algorithm.identifier, signature);
    refusal(issuer.gate.checkSignedCertificateList(crl, context));
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

  /** The entries of the next CRL, and the certificates of those that leave it: CRL-40, CRL-41. */
  async #entries(
    issuer: string,
    predecessor: PublishedCrl | undefined,
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
        if (stored !== undefined && stored.certificate !== null) {
          dropped.push(stored.certificate);
          continue;
        }
        // A serial number that was never handed out has no certificate to show for it, so its entry stays.
      }
      entries.push(entryOf(row));
    }
    return { entries, dropped };
  }

  /** CRL-19: thisUpdate rises with every CRL, and times have whole seconds. */
  async #afterSecondOf(thisUpdate: Date): Promise<void> {
    const wait = thisUpdate.getTime() + 1000 - this.#parts.now().getTime();
    if (wait <= 0) return;
    if (wait > 1000 + CLOCK_TOLERANCE_MILLISECONDS) {
      throw new CountersignError(
        "clock-behind",
        `the clock lies before the last CRL's thisUpdate, ${thisUpdate.toISOString()}: set it right; ` +
          "no CRL is made meanwhile",
      );
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

function serialNumbersOf(crl: Uint8Array): Set<string> {
  const serialNumbers = new Set<string>();
  for (const entry of parseCertificateList(crl).entries()) {
    serialNumbers.add(Buffer.from(entry.serialNumber).toString("hex"));
  }
  return serialNumbers;
}

function entryOf(row: RevokedRecord): RevokedCertificate {
  return {
    serialNumber: Buffer.from(row.serialNumber, "hex"),
    revocationDate: row.revocationDate,
    reason: row.reason as CrlReason,
    ...(row.invalidityDate === null ? {} : { invalidityDate: row.invalidityDate }),
  };
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
