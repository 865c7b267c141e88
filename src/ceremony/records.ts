/** What is stored of ceremonies, unlocks and shares, as the domain reads it: plain values, each of its own snapshot. */

import type { RosterVersion } from "../custody/roster.ts";
import type { CeremonyKind, Signed } from "../custody/statement.ts";

/** CUSTODY.md 6.2; what comes before `gathering` is not stored. Each kind goes its own way through these. */
export type CeremonyState =
  | "gathering"
  | "unlocking"
  | "unlocked"
  | "pending"
  | "signed"
  | "verified"
  | CeremonyEnd;

export type CeremonyEnd =
  | "published"
  | "locked"
  | "applied"
  | "rejected"
  | "aborted"
  | "expired"
  | "failed";

export type UnlockState = "gathering" | UnlockEnd;
export type UnlockEnd = "opened" | "refused" | "expired" | "ended";

export type ShareSetState = "pending" | "active" | "retired" | "dropped";

export type EnrolmentState = "requested" | "proved";

/** A version of the roster, as the keeper is shown it. */
export interface StoredRosterVersion extends RosterVersion {
  readonly version: number;
  /** Of `document`: `sha256:` and 64 hex digits, like every digest here. */
  readonly digest: string;
  /** Of its roster.changed in the log. */
  readonly logIndex: number;
}

export interface StoredCeremony {
  /** Of its statement. */
  readonly digest: string;
  /** 16 random octets, hex. */
  readonly id: string;
  readonly kind: CeremonyKind;
  /** 64 hex digits; `null` where no key of a CA is asked for, or it is yet to be made. */
  readonly keyId: string | null;
  readonly proposer: string;
  /** The statement, as the keeper signed it. */
  readonly note: string;
  readonly state: CeremonyState;
  readonly notAfter: Date;
  readonly createdAt: Date;
  /** Of its ceremony.opened in the log. */
  readonly logIndex: number;
  /** Of the record of its last change of state; `logIndex` before the first. */
  readonly changedIndex: number;
}

export interface CeremonyFilter {
  /** One state, or any of several. */
  readonly state?: CeremonyState | readonly CeremonyState[];
  readonly kind?: CeremonyKind;
  readonly keyId?: string;
  /** `next` of the page before. */
  readonly cursor?: number;
  readonly limit: number;
}

export interface CeremonyPage {
  /** Newest first. */
  readonly ceremonies: readonly StoredCeremony[];
  /** Absent on the last page. */
  readonly next?: number;
}

export interface StoredApproval extends Signed {
  /** Digest of the ceremony's statement. */
  readonly ceremony: string;
  readonly operator: string;
  readonly verdict: "approve" | "reject";
  readonly role: string;
  /** When it came. */
  readonly at: Date;
  /** Of its approval.accepted in the log. */
  readonly logIndex: number;
}

export interface StoredAbort extends Signed {
  readonly ceremony: string;
  readonly operator: string;
  /** Of its ceremony.step `abort-asked` in the log. */
  readonly logIndex: number;
}

export interface StoredUnlock {
  /** Of its statement. */
  readonly digest: string;
  /** 16 random octets, hex. */
  readonly id: string;
  /** Digest of the ceremony's statement. */
  readonly ceremony: string;
  readonly keyId: string;
  /** Digest of the share set that it gathers shares of. */
  readonly shareSet: string;
  /** The statement, as the keeper signed it. */
  readonly note: string;
  readonly state: UnlockState;
  readonly expiresAt: Date;
  /** Of its unlock.opened in the log. */
  readonly logIndex: number;
  /** Of its unlock.closed; `logIndex` before that. */
  readonly changedIndex: number;
}

export interface StoredSubmission extends Signed {
  /** Digest of the unlock's statement. */
  readonly unlock: string;
  readonly operator: string;
  readonly verdict: "give" | "refuse";
  /** When it came. */
  readonly at: Date;
  /** Of its share.accepted, or of the share.refused of a refusal. */
  readonly logIndex: number;
}

export interface StoredShareSet {
  readonly digest: string;
  readonly keyId: string;
  readonly epoch: number;
  /** Digest of the statement of the ceremony that made it. */
  readonly ceremony: string;
  /** The share set, as the keeper signed it. */
  readonly note: string;
  /** CSKB; `null` once it is retired or dropped. */
  readonly sealed: Uint8Array | null;
  readonly state: ShareSetState;
  /** Of its key.generated in the log. */
  readonly logIndex: number;
  /** Of the record of its last change of state; `logIndex` before the first. */
  readonly changedIndex: number;
}

export interface StoredShare {
  readonly shareSet: string;
  readonly index: number;
  readonly operator: string;
  /** Of the age file. */
  readonly fileSha256: string;
  /** Whether the file is still there to be fetched. */
  readonly waiting: boolean;
  /** `null` until its custodian has confirmed it. */
  readonly confirmation: Signed | null;
  /** Of its share.confirmed in the log. */
  readonly confirmedIndex: number | null;
  /** Of the last drill. */
  readonly provedAt: Date | null;
  /** Of its share.drill in the log. */
  readonly provedIndex: number | null;
}

export interface StoredEnrolment {
  /** 16 random octets, hex. */
  readonly id: string;
  readonly operator: string;
  /** SSH public keys, type and base64. */
  readonly keys: readonly string[];
  /** age recipient. */
  readonly recipient: string;
  /** `null` where the person did not ask in writing. */
  readonly statement: Uint8Array | null;
  readonly signature: string | null;
  /** The age file that only the recipient's owner can open. */
  readonly challenge: Uint8Array;
  /** Of what the file holds. */
  readonly challengeSha256: string;
  readonly state: EnrolmentState;
  readonly createdAt: Date;
}

export interface CustodyReads {
  /** From the genesis on. */
  rosterVersions(): Promise<StoredRosterVersion[]>;
  /** The bytes of a plan, a TBS, a lint report: whatever a ceremony's statement names by digest. */
  object(digest: string): Promise<Uint8Array | undefined>;
  ceremony(idOrDigest: string): Promise<StoredCeremony | undefined>;
  ceremonies(filter: CeremonyFilter): Promise<CeremonyPage>;
  /** In the order in which they came, as the others of one ceremony or unlock. */
  approvals(ceremony: string): Promise<StoredApproval[]>;
  aborts(ceremony: string): Promise<StoredAbort[]>;
  unlock(idOrDigest: string): Promise<StoredUnlock | undefined>;
  unlocksOf(ceremony: string): Promise<StoredUnlock[]>;
  /** Of every ceremony: what still gathers, or what a crash left so. */
  openUnlocks(): Promise<StoredUnlock[]>;
  submissions(unlock: string): Promise<StoredSubmission[]>;
  shareSet(digest: string): Promise<StoredShareSet | undefined>;
  /** Newest first. */
  shareSets(filter: {
    readonly keyId?: string;
    readonly state?: ShareSetState;
  }): Promise<StoredShareSet[]>;
  /** In the order of their indexes. */
  shares(shareSet: string): Promise<StoredShare[]>;
  /** The age file, until its custodian has confirmed it. */
  shareFile(shareSet: string, index: number): Promise<Uint8Array | undefined>;
  /** The newest 1,000, newest first. */
  enrolments(filter: {
    readonly operator?: string;
    readonly state?: EnrolmentState;
  }): Promise<StoredEnrolment[]>;
  enrolment(id: string): Promise<StoredEnrolment | undefined>;
}
