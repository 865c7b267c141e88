/** Unlocks: shares are gathered for one ceremony, each in the name of its custodian. CUSTODY.md 4.3 and 6.2. */

import { digestOf } from "../audit/digest.ts";
import { encodeEntry } from "../audit/entry.ts";
import { readUnlock, type Signed, type Submission } from "../custody/statement.ts";
import { readShareSet } from "../custody/plan.ts";
import { checkSubmission } from "../custody/votes.ts";
import { CountersignError, type ErrorCode } from "../errors.ts";
import { actorOf } from "../issuance/caller.ts";
import { checkSeenHead } from "../issuance/seen-head.ts";
import { recordRefusal, verifying } from "./credentials.ts";
import type { Failures } from "./failures.ts";
import { evidenceOf, notedJson, signer } from "./log-words.ts";
import type { CeremonyParts, Progress } from "./progress.ts";
import type { StoredCeremony, StoredShareSet, StoredUnlock } from "./records.ts";
import { opensKey } from "./tally.ts";
import type { OperatorCaller, Unlocks, UnlockView } from "./view.ts";
import { findCeremony, findUnlock, unlockView } from "./views.ts";

/** CUSTODY.md 6.2. */
export const GATHER_SECONDS = { usual: 86_400, least: 600, most: 604_800 };

/** Wrong submissions, whose answer is known. */
const REMEMBERED = 1_000;

/** What counts against a custodian: 4.3. */
const blamed: ReadonlySet<ErrorCode> = new Set(["share-not-yours", "share-wrong"]);

/** Of what the keeper answers, what is no word about the share. */
const noWord: ReadonlySet<ErrorCode> = new Set([
  "unlock-unknown",
  "unlock-closed",
  "submission-malformed",
  "submission-unsigned",
  "operator-unknown",
  "panic",
  "key-held",
  "log-unavailable",
]);

export class UnlockBook implements Unlocks {
  readonly #parts: CeremonyParts & { readonly failures: Failures };
  readonly #progress: Progress;
  /** What was said to submissions that count against their custodian, by the digest of their statement. */
  readonly #blamed = new Map<string, CountersignError>();

  constructor(parts: CeremonyParts & { readonly failures: Failures }, progress: Progress) {
    this.#parts = parts;
    this.#progress = progress;
  }

  async open(
    idOrDigest: string,
    gatherSeconds: number | undefined,
    by: OperatorCaller,
  ): Promise<UnlockView> {
    const { reads } = this.#parts;
    const seconds = gatherSeconds ?? GATHER_SECONDS.usual;
    if (
      !Number.isInteger(seconds) ||
      seconds < GATHER_SECONDS.least ||
      seconds > GATHER_SECONDS.most
    ) {
      throw new CountersignError(
        "ceremony-refused",
        "shares are gathered for 10 minutes to 7 days",
      );
    }
    const { digest } = await findCeremony(reads, idOrDigest);
    const unlock = await this.#progress.inTurn(digest, () => this.#open(digest, seconds, by));
    return this.view(unlock);
  }

  async statement(idOrDigest: string): Promise<string> {
    return (await findUnlock(this.#parts.reads, idOrDigest)).note;
  }

  async view(idOrDigest: string): Promise<UnlockView> {
    return unlockView(this.#parts, await findUnlock(this.#parts.reads, idOrDigest));
  }

  async submit(
    idOrDigest: string,
    signed: Signed,
    share: Uint8Array,
    address: string,
  ): Promise<UnlockView> {
    const { reads, rosters, failures, denied } = this.#parts;
    const { digest, ceremony } = await findUnlock(reads, idOrDigest);
    // Steps 2 and 3 of 4.3: nobody is on record who has not shown who they are.
    const submission = verifying(this.#parts, address, () =>
      checkSubmission(rosters.inForce, digest, signed),
    );
    failures.requireOperator(submission.operator);
    try {
      await checkSeenHead(submission.log, this.#parts, "submission-stale");
    } catch (error) {
      denied();
      throw error;
    }
    await this.#progress.inTurn(ceremony, async () => {
      const unlock = await findUnlock(reads, digest);
      this.#requireGathering(unlock);
      await this.#take(unlock, submission, signed, share);
      await this.#progress.proceed(ceremony);
    });
    return this.view(digest);
  }

  async #open(digest: string, seconds: number, by: OperatorCaller): Promise<string> {
    const { reads, journal, keeper, now } = this.#parts;
    await this.#progress.proceed(digest); // its time may be over
    const ceremony = await findCeremony(reads, digest);
    const set = await this.#setOf(ceremony);
    const plan = await this.#planOf(ceremony);
    const approvals = await reads.approvals(digest);
    let stated;
    try {
      stated = await keeper.unlock({
        note: ceremony.note,
        approvals: approvals.map(({ statement, signature }) => ({ statement, signature })),
        shareSet: set.note,
        sealed: set.sealed!,
        gatherSeconds: seconds,
        ...(plan === undefined ? {} : { plan }),
      });
    } catch (error) {
      if (error instanceof CountersignError && error.code === "ceremony-closed") {
        // It was opened, or was about to be, when the service ended: the keeper lets it happen once.
        await this.#progress.close(ceremony, "failed", { reason: "it was carried out already" });
      }
      throw error;
    }
    const unlock = readUnlock(notedJson(stated.note));
    const { keyId, epoch } = unlock;
    const expiresAt = new Date(
      Math.min(now().getTime() + seconds * 1000, ceremony.notAfter.getTime()),
    );
    try {
      await journal.append({
        kind: "unlock",
        leaf: encodeEntry({
          type: "unlock.opened",
          at: now(),
          actor: actorOf(by),
          subject: { ceremony: digest, unlock: stated.digest, keyId, epoch },
          data: { note: stated.note },
        }),
        row: {
          digest: stated.digest,
          id: unlock.id,
          ceremony: digest,
          keyId,
          shareSet: set.digest,
          note: stated.note,
          expiresAt,
        },
      });
    } catch (error) {
      await keeper.endUnlock(stated.digest);
      throw error;
    }
    this.#progress.watch(digest, expiresAt);
    return stated.digest;
  }

  async #setOf({ kind, keyId, state }: StoredCeremony): Promise<StoredShareSet> {
    if (!opensKey(kind)) {
      throw new CountersignError("ceremony-refused", `a ceremony of kind ${kind} opens no key`);
    }
    if (state !== "gathering") {
      throw new CountersignError("ceremony-closed", "the ceremony gathers no shares any more");
    }
    const { reads } = this.#parts;
    const [set] = keyId === null ? [] : await reads.shareSets({ keyId, state: "active" });
    if (set === undefined) {
      throw new CountersignError("share-set-unknown", "nobody holds shares of this key");
    }
    return set;
  }

  async #planOf({ kind, note }: StoredCeremony): Promise<Uint8Array | undefined> {
    if (kind !== "reshare") return undefined;
    const { plan } = JSON.parse(Buffer.from(notedJson(note)).toString("utf8")) as { plan: string };
    return this.#parts.reads.object(plan);
  }

  #requireGathering({ state, expiresAt }: StoredUnlock): void {
    if (state === "gathering" && this.#parts.now() < expiresAt) return;
    throw new CountersignError(
      "unlock-closed",
      "the unlock has ended: open another one, and send the share to that",
    );
  }

  /** Hands a submission to the unlocker, and records what it says. */
  async #take(
    unlock: StoredUnlock,
    submission: Submission,
    signed: Signed,
    share: Uint8Array,
  ): Promise<void> {
    const { keeper, reads } = this.#parts;
    const { operator } = submission;
    const answered = (await reads.submissions(unlock.digest)).find(
      (row) => row.operator === operator,
    );
    try {
      this.#requireNew(answered !== undefined, operator);
      // The same bytes are as wrong as before, and whoever has seen them can send them.
      const before = this.#blamed.get(digestOf(signed.statement));
      if (before !== undefined) throw before;
      await keeper.submit(unlock.digest, signed, share);
    } catch (error) {
      if (!(error instanceof CountersignError)) throw error;
      if (error.code === "unlock-unknown") {
        throw new CountersignError("unlock-closed", "the unlocker has ended: open another unlock", {
          cause: error,
        });
      }
      // The unlocker has counted it, and a failing disk kept it from the record: it is recorded now.
      const counted = error.code === "share-repeated" && answered === undefined;
      if (!counted) {
        if (!noWord.has(error.code)) await this.#refused(unlock, submission, signed, error);
        throw await this.#withProgress(unlock, operator, error);
      }
    }
    await this.#record(unlock, submission, signed);
  }

  #requireNew(answered: boolean, operator: string): void {
    if (!answered) return;
    throw new CountersignError(
      "share-repeated",
      `${operator} has answered this unlock already, and is counted once`,
    );
  }

  async #record(unlock: StoredUnlock, submission: Submission, signed: Signed): Promise<void> {
    const { journal, reads, now } = this.#parts;
    const { digest, ceremony, keyId } = unlock;
    const { operator, verdict } = submission;
    const { epoch, threshold } = readUnlock(notedJson(unlock.note));
    const said = {
      at: now(),
      actor: signer(operator),
      subject: { ceremony, unlock: digest, keyId, epoch },
      evidence: evidenceOf(signed),
    };
    const given = (await reads.submissions(digest)).filter((row) => row.verdict === "give").length;
    await journal.append({
      kind: "submission",
      leaf: encodeEntry(
        submission.verdict === "give"
          ? {
              type: "share.accepted",
              ...said,
              data: { index: submission.share.index, quorum: given + 1, threshold },
            }
          : { type: "share.refused", ...said, data: { verdict: "refuse" } },
      ),
      row: { unlock: digest, operator, verdict, ...signed, at: now() },
    });
    await this.#alertEscrow(unlock, submission);
  }

  /** A share that is kept for the worst is not given unnoticed: CUSTODY.md 5.4. */
  async #alertEscrow(unlock: StoredUnlock, submission: Submission): Promise<void> {
    if (submission.verdict !== "give") return;
    const stored = await this.#parts.reads.shareSet(unlock.shareSet);
    const set = stored === undefined ? undefined : readShareSet(notedJson(stored.note));
    if (set?.custodians[submission.share.index - 1]?.role !== "escrow") return;
    await this.#alert(unlock, "escrow-share", submission.operator);
  }

  async #refused(
    unlock: StoredUnlock,
    submission: Submission,
    signed: Signed,
    error: CountersignError,
  ): Promise<void> {
    const { failures } = this.#parts;
    const { code } = error;
    const { digest, ceremony, keyId } = unlock;
    const { operator } = submission;
    const { epoch } = readUnlock(notedJson(unlock.note));
    const isNew = await recordRefusal(this.#parts, operator, signed, code, (said) => ({
      type: "share.refused",
      subject: { ceremony, unlock: digest, keyId, epoch },
      data: {
        code,
        ...(submission.verdict === "give" ? { index: submission.share.index } : {}),
      },
      ...said,
    }));
    if (!isNew || !blamed.has(code)) return;
    this.#blamed.set(digestOf(signed.statement), error);
    if (this.#blamed.size > REMEMBERED) this.#blamed.delete(this.#blamed.keys().next().value!);
    const silenced = failures.operatorFailed(operator);
    await this.#alert(unlock, code, operator);
    if (silenced) await this.#alert(unlock, "rate-limited", operator);
  }

  async #alert(unlock: StoredUnlock, code: string, operator: string): Promise<void> {
    const { journal, service, now } = this.#parts;
    const { digest, ceremony, keyId } = unlock;
    await journal.append({
      kind: "entry",
      leaf: encodeEntry({
        type: "alert",
        at: now(),
        actor: { kind: "service", id: service },
        subject: { ceremony, unlock: digest, keyId },
        data: { code, operator },
      }),
    });
  }

  /** Says beside what is wrong how far the others are: their shares are counted still. */
  async #withProgress(
    { digest, note }: StoredUnlock,
    operator: string,
    { code, message, members, cause }: CountersignError,
  ): Promise<CountersignError> {
    const { threshold } = readUnlock(notedJson(note));
    const rows = await this.#parts.reads.submissions(digest);
    const given = rows.flatMap((row) => (row.verdict === "give" ? [row.operator] : []));
    const missing = Math.max(0, threshold - given.length);
    return new CountersignError(code, message, {
      cause,
      members: { ...members, operator, given, threshold, missing },
    });
  }
}
