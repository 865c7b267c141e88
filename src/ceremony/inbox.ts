/** What waits for one person. */

import { readShareSet } from "../custody/plan.ts";
import { OPERATOR } from "../custody/votes.ts";
import { lastProof, type KeyCustody } from "./custody.ts";
import type { EnrolmentBook } from "./enrolments.ts";
import { notedJson } from "./log-words.ts";
import type { CeremonyParts } from "./progress.ts";
import type { StoredCeremony } from "./records.ts";
import { tallyOf } from "./tally.ts";
import type { Inbox, InboxItem, OperatorCaller } from "./view.ts";

/** CUSTODY.md 4.2. */
export const DRILL_MILLISECONDS = 90 * 86_400_000;

/** More than this nobody does in a day. */
const CEREMONIES = 100;

export class InboxOfPeople implements Inbox {
  readonly #parts: CeremonyParts;
  readonly #custody: KeyCustody;
  readonly #enrolments: EnrolmentBook;

  constructor(parts: CeremonyParts, custody: KeyCustody, enrolments: EnrolmentBook) {
    this.#parts = parts;
    this.#custody = custody;
    this.#enrolments = enrolments;
  }

  async of({ id }: OperatorCaller): Promise<readonly InboxItem[]> {
    const { reads } = this.#parts;
    const enrolments = await this.#enrolments.waitingFor(id);
    const { ceremonies } = await reads.ceremonies({ state: "gathering", limit: CEREMONIES });
    const asked = await Promise.all(ceremonies.map((ceremony) => this.#asked(ceremony, id)));
    return [
      ...enrolments.map((one): InboxItem => ({ what: "prove", enrolment: one.id })),
      ...asked.flat(),
      ...(await this.#shares(id)),
    ];
  }

  /** What a ceremony wants of somebody: their share where one is gathered, else their word. */
  async #asked(ceremony: StoredCeremony, id: string): Promise<InboxItem[]> {
    const { reads, rosters, now } = this.#parts;
    const { digest, notAfter } = ceremony;
    if (now() >= notAfter) return [];
    const tally = await tallyOf(reads, rosters.inForce, ceremony);
    const { statement, unlock, shareSet, approvals, submissions, count, plan } = tally;
    const { reason } = statement;
    if (approvals.some((row) => row.operator === id && row.verdict === "reject")) return [];
    const index = shareSet?.custodians.find((custodian) => custodian.operator === id)?.index;
    if (
      index !== undefined &&
      unlock?.state === "gathering" &&
      !submissions.some((row) => row.operator === id)
    ) {
      const { keyId } = unlock;
      const of = { ceremony: digest, unlock: unlock.digest, keyId, index };
      return [{ what: "submit", ...of, reason, until: unlock.expiresAt }];
    }
    const spoken =
      approvals.some((row) => row.operator === id) ||
      submissions.some((row) => row.operator === id);
    const roles = [OPERATOR, ...(rosters.inForce.operators.get(id)?.roles ?? [])];
    const wanted =
      plan?.custodians.some((custodian) => custodian.operator === id) === true ||
      roles.some((role) => count.roles.has(role)) ||
      (count.alone && id !== statement.requestedBy && rosters.inForce.operators.has(id));
    if (spoken || !wanted) return [];
    return [
      {
        what: "approve",
        ceremony: digest,
        ...(ceremony.keyId === null ? {} : { keyId: ceremony.keyId }),
        reason,
        until: notAfter,
      },
    ];
  }

  async #shares(id: string): Promise<InboxItem[]> {
    const { reads, now } = this.#parts;
    const items: InboxItem[] = [];
    for (const { digest, keyId, ceremony } of await reads.shareSets({ state: "pending" })) {
      // oxlint-disable-next-line no-await-in-loop -- few wait at a time
      for (const share of await reads.shares(digest)) {
        if (share.operator !== id || share.confirmation !== null) continue;
        const { index } = share;
        const what = this.#custody.wasFetched(digest, index) ? "confirm" : "fetch";
        items.push({ what, ceremony, keyId, shareSet: digest, index });
      }
    }
    for (const { digest, keyId } of await reads.shareSets({ state: "active" })) {
      // oxlint-disable-next-line no-await-in-loop -- one set a key
      for (const share of await reads.shares(digest)) {
        if (share.operator !== id || isProved(lastProof(share), now())) continue;
        items.push({ what: "drill", keyId, shareSet: digest, index: share.index });
      }
    }
    return items;
  }
}

/** Sealed keys that may be lost with the next share: fewer than threshold + 1 shares were proved within 90 days. */
export async function shareWarnings({
  reads,
  now,
}: Pick<CeremonyParts, "reads" | "now">): Promise<readonly ShareWarning[]> {
  const warnings: ShareWarning[] = [];
  for (const { digest, keyId, note } of await reads.shareSets({ state: "active" })) {
    // oxlint-disable-next-line no-await-in-loop -- one set a key
    const shares = await reads.shares(digest);
    const proved = shares.filter((share) => isProved(lastProof(share), now())).length;
    const { threshold, shareCount } = readShareSet(notedJson(note));
    if (proved > threshold) continue;
    warnings.push({ keyId, shareSet: digest, threshold, shareCount, proved });
  }
  return warnings;
}

export interface ShareWarning {
  readonly keyId: string;
  readonly shareSet: string;
  readonly threshold: number;
  readonly shareCount: number;
  /** Within 90 days. */
  readonly proved: number;
}

function isProved(at: Date | undefined, now: Date): boolean {
  return at !== undefined && now.getTime() - at.getTime() <= DRILL_MILLISECONDS;
}
