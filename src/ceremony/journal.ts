/** What ceremonies, unlocks and shares ask of the one writer, beside what issuance does. */

import type { RosterVersion } from "../custody/roster.ts";
import type { Signed } from "../custody/statement.ts";
import type { Journal, JournalItem } from "../issuance/journal.ts";
import type {
  CeremonyState,
  StoredAbort,
  StoredApproval,
  StoredCeremony,
  StoredEnrolment,
  StoredShareSet,
  StoredSubmission,
  StoredUnlock,
  UnlockEnd,
} from "./records.ts";

type Row<Stored> = Readonly<Omit<Stored, "state" | "logIndex" | "changedIndex">>;

export interface RosterRow {
  readonly version: number;
  /** Of `document`. */
  readonly digest: string;
  /** Canonical JSON. */
  readonly document: Uint8Array;
  readonly evidence: Omit<RosterVersion, "document">;
}

export type CeremonyRow = Row<StoredCeremony>;
export type ApprovalRow = Row<StoredApproval>;
export type AbortRow = Row<StoredAbort>;
export type UnlockRow = Row<StoredUnlock>;
export type SubmissionRow = Row<StoredSubmission>;
export type ShareSetRow = Row<StoredShareSet> & { readonly sealed: Uint8Array };
export type EnrolmentRow = Row<StoredEnrolment>;

export interface ShareRow {
  /** From 1. */
  readonly index: number;
  readonly operator: string;
  /** The age file. */
  readonly file: Uint8Array;
  readonly fileSha256: string;
}

/**
 * One record of the log (`leaf`) with the rows that it accounts for. Beside each stands the type that the record must
 * have: the verifier compares them.
 */
export type CustodyItem =
  /** roster.changed */
  | { readonly kind: "roster"; readonly leaf: Uint8Array; readonly row: RosterRow }
  /** ceremony.opened. `objects`: what its statement names by digest; one that is there already stays. */
  | {
      readonly kind: "ceremony";
      readonly leaf: Uint8Array;
      readonly row: CeremonyRow;
      readonly objects: readonly Uint8Array[];
    }
  /** ceremony.step or ceremony.closed, whose `state` is this one. */
  | {
      readonly kind: "ceremony-state";
      readonly leaf: Uint8Array;
      /** Digest of its statement, here and below. */
      readonly ceremony: string;
      readonly state: CeremonyState;
      /** What was signed, by its digest to be found again. */
      readonly objects?: readonly Uint8Array[];
    }
  /** approval.accepted */
  | { readonly kind: "approval"; readonly leaf: Uint8Array; readonly row: ApprovalRow }
  /** ceremony.step with the state `abort-asked`. The ceremony stays as it is. */
  | { readonly kind: "abort"; readonly leaf: Uint8Array; readonly row: AbortRow }
  /** unlock.opened */
  | { readonly kind: "unlock"; readonly leaf: Uint8Array; readonly row: UnlockRow }
  /** unlock.closed, whose `state` is this one. */
  | {
      readonly kind: "unlock-state";
      readonly leaf: Uint8Array;
      readonly unlock: string;
      readonly state: UnlockEnd;
    }
  /** share.accepted; share.refused with the verdict `refuse` for a refusal. */
  | { readonly kind: "submission"; readonly leaf: Uint8Array; readonly row: SubmissionRow }
  /** key.generated, for a reshare as well. The set and the ceremony are pending. */
  | {
      readonly kind: "share-set";
      readonly leaf: Uint8Array;
      readonly row: ShareSetRow;
      readonly shares: readonly ShareRow[];
      readonly ceremonyState: "pending";
    }
  /** share.confirmed. The share's file is deleted. */
  | {
      readonly kind: "share-confirmed";
      readonly leaf: Uint8Array;
      readonly shareSet: string;
      readonly index: number;
      readonly confirmation: Signed;
    }
  /** share.drill */
  | {
      readonly kind: "share-proved";
      readonly leaf: Uint8Array;
      readonly shareSet: string;
      readonly index: number;
      readonly at: Date;
    }
  /** share-set.activated. The key's active set before it is retired, its sealed secret and files deleted. */
  | {
      readonly kind: "share-set-activated";
      readonly leaf: Uint8Array;
      readonly shareSet: string;
      readonly ceremonyState: "applied";
    }
  /** ceremony.closed, whose `state` is `ceremonyState`. The pending set's sealed secret and files are deleted. */
  | {
      readonly kind: "share-set-dropped";
      readonly leaf: Uint8Array;
      readonly shareSet: string;
      readonly ceremonyState: "aborted" | "expired" | "failed";
    };

export interface CustodyJournal extends Journal {
  /**
   * As {@link Journal.append}. An item that contradicts what is stored fails alone, with:
   *
   * @throws CountersignError `ceremony-unknown`; `ceremony-closed` if its state does not take this any more;
   *   `ceremony-refused` for a step that its kind does not have, or an epoch that is not above that of the active set;
   *   `approval-repeated`, also for a second abort of one person; `unlock-unknown`, `unlock-closed`; `unlock-busy` if
   *   another unlock of the ceremony gathers; `share-repeated`; `share-set-unknown` if there is none in the state that
   *   this needs; `confirmation-invalid` for a share that is confirmed already, or to activate a set with one that is
   *   not; `roster-invalid` for a version that does not follow the last. `log-unavailable` for any other contradiction.
   */
  append(item: JournalItem | CustodyItem): Promise<number>;
  /**
   * As `append`, of several items that are written together, or not at all.
   *
   * @param items - one at least.
   * @returns The index of the first; the others follow it.
   */
  appendAll(items: readonly (JournalItem | CustodyItem)[]): Promise<number>;
  /**
   * Writes a request to be enrolled, without a record: strangers must not fill the log. Those that nobody has proved
   * for a week are forgotten.
   */
  enrolment(row: EnrolmentRow): Promise<void>;
  /** @throws CountersignError `enrolment-unknown`; `enrolment-refused` if it was proved before. */
  proved(id: string): Promise<void>;
}
