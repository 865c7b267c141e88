/** What ceremonies, unlocks, keys under custody and the people look like to those who may see them. Nothing here holds a share. */

import type { RosterSignature, RosterVersion } from "../custody/roster.ts";
import type { CeremonyKind, CeremonyStatement, Signed } from "../custody/statement.ts";
import type { Caller } from "../issuance/caller.ts";

export type OperatorCaller = Extract<Caller, { kind: "operator" }>;

/** CUSTODY.md 6.2. */
export type CeremonyState =
  | "draft"
  | "previewed"
  | "gathering"
  | "unlocking"
  | "unlocked"
  | "signed"
  | "verified"
  | "published"
  | "pending"
  | "applied"
  | "locked"
  | "rejected"
  | "aborted"
  | "expired"
  | "failed";

export type UnlockState = "gathering" | "opened" | "refused" | "expired" | "ended";

/** What one person has said so far. */
export interface PersonView {
  readonly operator: string;
  readonly state: "approved" | "rejected" | "given" | "refused" | "waiting";
  readonly role?: string;
  readonly at?: Date;
}

export interface MissingView {
  /** How many people of each role; empty when the rules are met. */
  readonly roles: Readonly<Record<string, number>>;
  /** How many shares, where a seal is to be opened. */
  readonly shares?: number;
  /** Custodians of a plan who have not approved it. */
  readonly people?: readonly string[];
}

/** An artefact that was signed. */
export interface ResultView {
  /** SHA-256 of what was approved, `sha256:` and 64 hex digits. */
  readonly tbs: string;
  /** The certificate, CRL or request, DER. */
  readonly der: Uint8Array;
}

export interface CeremonyView {
  readonly id: string;
  /** Of its statement, `sha256:` and 64 hex digits. */
  readonly digest: string;
  readonly kind: CeremonyKind;
  readonly keyId?: string;
  readonly state: CeremonyState;
  readonly reason: string;
  readonly requestedBy: string;
  readonly notAfter: Date;
  readonly createdAt: Date;
  readonly people: readonly PersonView[];
  readonly missing: MissingView;
  /** The newest one. */
  readonly unlock?: {
    readonly id: string;
    readonly digest: string;
    readonly state: UnlockState;
    readonly expiresAt: Date;
  };
  /** Of the share set that was dealt. */
  readonly shareSet?: string;
  readonly results?: readonly ResultView[];
  /** Why the last step did not succeed; it is tried again. */
  readonly trouble?: string;
}

export interface UnlockView {
  readonly id: string;
  readonly digest: string;
  /** Digest of the ceremony that it is for. */
  readonly ceremony: string;
  readonly keyId: string;
  readonly epoch: number;
  readonly threshold: number;
  readonly shareCount: number;
  readonly shareSet: string;
  readonly state: UnlockState;
  readonly expiresAt: Date;
  readonly createdAt: Date;
  readonly people: readonly PersonView[];
  readonly missing: MissingView;
}

export interface ProposeCommand {
  readonly kind: CeremonyKind;
  readonly keyId?: string;
  readonly reason: string;
  readonly notAfter?: Date;
  readonly artefacts?: readonly { readonly tbs: Uint8Array; readonly lint?: Uint8Array }[];
  readonly window?: CeremonyStatement["window"];
  /** Canonical JSON: a plan, a roster or what is released. */
  readonly plan?: Uint8Array;
  /** Of the keys that are new in a roster. */
  readonly signatures?: readonly RosterSignature[];
}

export interface CeremonyFilter {
  readonly state?: CeremonyState;
  readonly kind?: CeremonyKind;
  readonly keyId?: string;
  readonly cursor?: number;
  readonly limit: number;
}

export interface Ceremonies {
  /** @throws CountersignError `plan-invalid`, `roster-invalid`, `roster-unsigned`, `ceremony-refused`, `panic`. */
  propose(command: ProposeCommand, by: OperatorCaller): Promise<CeremonyView>;
  /** @param address - Counted against where the signature does not verify; so in all that takes one. */
  approve(idOrDigest: string, signed: Signed, address: string): Promise<CeremonyView>;
  abort(idOrDigest: string, signed: Signed, address: string): Promise<CeremonyView>;
  /** @returns The signed note. @throws CountersignError `ceremony-unknown`; so do the others here. */
  statement(idOrDigest: string): Promise<string>;
  /** The document behind the digest in `plan`. @throws CountersignError `ceremony-unknown` where there is none. */
  plan(idOrDigest: string): Promise<Uint8Array>;
  view(idOrDigest: string): Promise<CeremonyView>;
  /** Newest first. */
  list(
    filter: CeremonyFilter,
  ): Promise<{ readonly ceremonies: readonly CeremonyView[]; readonly next?: number }>;
}

export interface Unlocks {
  open(
    ceremony: string,
    gatherSeconds: number | undefined,
    by: OperatorCaller,
  ): Promise<UnlockView>;
  statement(idOrDigest: string): Promise<string>;
  view(idOrDigest: string): Promise<UnlockView>;
  /**
   * @param share - An age file to the unlock's recipient; empty for a refusal.
   * @throws CountersignError with the codes of CUSTODY.md 4.3; from step 4 on with the members `operator`, `given`,
   *   `threshold` and `missing`.
   */
  submit(
    idOrDigest: string,
    submission: Signed,
    share: Uint8Array,
    address: string,
  ): Promise<UnlockView>;
}

/** A key under custody, and who holds its shares. */
export interface SealedKeyView {
  readonly keyId: string;
  /** The issuer's id; absent while no issuer uses the key. */
  readonly issuer?: string;
  readonly custody: "token" | "sealed";
  readonly state: string;
  /** What its grant allows now; empty while it is locked. */
  readonly operations: readonly ("certificate" | "crl")[];
  /** End of the window. */
  readonly until?: Date;
  /** Digest of the ceremony that it is open for. */
  readonly ceremony?: string;
  /** The one in force, and one that waits for its confirmations. */
  readonly shareSets: readonly ShareSetView[];
}

export interface ShareSetView {
  readonly digest: string;
  readonly epoch: number;
  readonly state: "pending" | "active";
  readonly threshold: number;
  readonly shareCount: number;
  readonly custodians: readonly {
    readonly index: number;
    readonly operator: string;
    readonly role: "custodian" | "escrow";
    /** When its custodian confirmed that it came. */
    readonly confirmedAt?: Date;
    /** When its custodian last proved to hold it. */
    readonly provedAt?: Date;
  }[];
}

export interface Custody {
  keys(): Promise<readonly SealedKeyView[]>;
  /** @throws CountersignError `share-set-unknown` for a key that nobody seals; so do the others here. */
  key(keyId: string): Promise<SealedKeyView>;
  /** @param shareSet - The one in force when absent. @returns The signed note. */
  shareSet(keyId: string, shareSet: string | undefined): Promise<string>;
  /**
   * @param shareSet - The one that waits for confirmations when absent.
   * @returns The age file.
   * @throws CountersignError `forbidden` for everybody but its custodian.
   */
  shareFile(
    keyId: string,
    index: number,
    shareSet: string | undefined,
    by: OperatorCaller,
  ): Promise<Uint8Array>;
  confirm(keyId: string, signed: Signed, address: string): Promise<ShareSetView>;
  /** @returns 32 random octets. */
  drillChallenge(keyId: string, index: number, by: OperatorCaller): Promise<Uint8Array>;
  drill(keyId: string, signed: Signed, address: string): Promise<ShareSetView>;
  lock(keyId: string, signed: Signed, address: string): Promise<void>;
  panic(signed: Signed, address: string): Promise<void>;
}

export interface EnrolmentView {
  readonly id: string;
  readonly operator: string;
  /** SSH public keys. */
  readonly keys: readonly string[];
  readonly recipient: string;
  readonly state: "requested" | "proved";
  readonly createdAt: Date;
}

export interface Enrolments {
  /** @returns Its id. */
  request(signed: Signed, address: string): Promise<string>;
  list(): Promise<readonly EnrolmentView[]>;
  /** @returns An age file to the recipient that is to be proved. */
  challenge(id: string): Promise<Uint8Array>;
  prove(id: string, signed: Signed, address: string): Promise<EnrolmentView>;
}

export interface RosterBook {
  /** Digest of version 1, as the keeper's configuration pins it. */
  readonly genesis: string;
  current(): { readonly version: number; readonly digest: string; readonly document: Uint8Array };
  /** Oldest first. */
  chain(): readonly RosterVersion[];
}

/** One thing that waits for somebody. */
export interface InboxItem {
  /** `fetch` turns into `confirm` when the file was fetched. */
  readonly what: "prove" | "approve" | "submit" | "fetch" | "confirm" | "drill";
  readonly enrolment?: string;
  readonly ceremony?: string;
  readonly unlock?: string;
  readonly keyId?: string;
  readonly shareSet?: string;
  readonly index?: number;
  /** As the ceremony gives it. */
  readonly reason?: string;
  readonly until?: Date;
}

export interface Inbox {
  of(by: OperatorCaller): Promise<readonly InboxItem[]>;
}

export interface CustodyParts {
  readonly ceremonies: Ceremonies;
  readonly unlocks: Unlocks;
  readonly custody: Custody;
  readonly enrolments: Enrolments;
  readonly roster: RosterBook;
  readonly inbox: Inbox;
}
