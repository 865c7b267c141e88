/** What ceremonies need of the process that makes the statements, checks every vote again, and starts the others. */

import type { RosterSignature, RosterVersion } from "../custody/roster.ts";
import type { CeremonyStatement, Signed } from "../custody/statement.ts";
import type { Signing } from "../issuance/keeper.ts";

/** What a ceremony statement is to say; the keeper adds the rest and signs it. */
export interface CeremonyProposal {
  readonly kind: CeremonyStatement["kind"];
  readonly keyId?: string;
  readonly script?: string;
  readonly artefacts?: CeremonyStatement["artefacts"];
  readonly exemptions?: string;
  readonly window?: CeremonyStatement["window"];
  readonly notAfter: Date;
  readonly requestedBy: string;
  readonly reason: string;
  /** The document itself, canonical JSON; the statement has its digest. */
  readonly plan?: Uint8Array;
  /** Of a roster: those of its new keys. */
  readonly signatures?: readonly RosterSignature[];
}

/** A statement that the keeper made. */
export interface Stated {
  /** SHA-256 of its JSON, `sha256:` and 64 hex digits. */
  readonly digest: string;
  /** The signed note. */
  readonly note: string;
}

export interface CeremonyVotes {
  /** The ceremony's statement, a signed note. */
  readonly note: string;
  readonly approvals: readonly Signed[];
}

/** The record in the log that must stand there before a key is used: its index and its leaf. */
export interface Recorded {
  readonly index: number;
  readonly leaf: Uint8Array;
}

/** What a dealer made: nothing of it is secret. */
export interface Dealt {
  /** CSKB. */
  readonly sealed: Uint8Array;
  /** Age files, in the order of the shares. */
  readonly files: readonly Uint8Array[];
  /** The share set, a signed note. */
  readonly shareSet: string;
}

/** Something that ended by itself, or by somebody's lock. */
export interface Closed {
  readonly what: "unlock" | "key";
  /** Digest of the unlock's statement. */
  readonly unlock: string;
  /** Digest of the ceremony's statement. */
  readonly ceremony: string;
  readonly keyId: string;
  readonly reason: "ended" | "expired" | "idle" | "used-up" | "locked" | "panic";
}

/** A key of the keeper, as far as ceremonies look at it. */
export interface CeremonyKey {
  /** Hex; empty while it is not known. */
  readonly keyId: string;
  /** The issuer's id. */
  readonly issuer: string;
  readonly state: "open" | "locked" | "held" | "unavailable";
  /** Why it is not open, in words. */
  readonly detail?: string;
  /** The token has refused the PIN of the file, as it stands there. */
  readonly pinRefused?: true;
  readonly custody: "token" | "sealed";
  /** Of the share set in force. */
  readonly epoch?: number;
  /** What its grant allows now; empty while it is locked. */
  readonly operations: readonly ("certificate" | "crl")[];
  /** RFC 3339: the end of a window. */
  readonly until?: string;
  /** Digest of the ceremony that it is open for. */
  readonly ceremony?: string;
  /** SubjectPublicKeyInfo, DER; empty while it is not known. */
  readonly publicKey: Uint8Array;
  /** DER; absent until there is one. */
  readonly certificate?: Uint8Array;
  /** DER; the issuer's issuer first. */
  readonly chain: readonly Uint8Array[];
}

export interface CeremonyKeeper extends Signing {
  status(): Promise<{
    readonly genesis: string;
    readonly roster: { readonly version: number; readonly digest: string } | null;
    readonly panic: { readonly operator: string; readonly at: string } | null;
    readonly keys: readonly CeremonyKey[];
  }>;
  /** Shows the chain, from the genesis; once, at start. */
  rosters(versions: readonly RosterVersion[]): Promise<void>;
  /** The version that a ceremony brings about. */
  roster(version: RosterVersion): Promise<void>;
  /**
   * @throws CountersignError `plan-invalid`, `roster-invalid`, `roster-unsigned`, `ceremony-refused`, `key-unknown`,
   *   `statement-malformed`, `rate-limited`, `panic`.
   */
  statement(proposal: CeremonyProposal): Promise<Stated>;
  /** Starts an unlocker. @throws CountersignError `unlock-busy`, `panic`, `sealed-key-corrupt`, `ceremony-closed`. */
  unlock(
    request: CeremonyVotes & {
      /** A signed note. */
      readonly shareSet: string;
      /** CSKB. */
      readonly sealed: Uint8Array;
      readonly gatherSeconds: number;
      readonly plan?: Uint8Array;
    },
  ): Promise<Stated>;
  /**
   * @param unlock - digest of its statement.
   * @param share - an age file to the unlock's recipient; empty for a refusal.
   * @returns The operators whose shares are counted, and how many shares are missing.
   * @throws CountersignError with the codes of CUSTODY.md 4.3.
   */
  submit(
    unlock: string,
    submission: Signed,
    share: Uint8Array,
  ): Promise<{ readonly given: readonly string[]; readonly missing: number }>;
  /** @returns undefined when a signer is open now; what was dealt, for a reshare. */
  open(
    unlock: string,
    votes: CeremonyVotes,
    submissions: readonly Signed[],
    record: Recorded,
  ): Promise<Dealt | undefined>;
  deal(
    votes: CeremonyVotes & { readonly plan: Uint8Array; readonly record: Recorded },
  ): Promise<Dealt>;
  /** The second step of sealing a PIN in use: from here on the old PIN opens nothing. */
  commit(ceremony: string): Promise<void>;
  /** Ends the processes of an unlock, whatever their state. */
  endUnlock(unlock: string): Promise<void>;
  /** The share set in force, at its activation and again at each start. */
  activate(shareSet: string, confirmations: readonly Signed[]): Promise<void>;
  /** The last CRL that a key signed, DER. */
  list(keyId: string): Promise<Uint8Array | undefined>;
  lock(statement: Uint8Array, signature: string): Promise<void>;
  panic(statement: Uint8Array, signature: string): Promise<void>;
  resume(votes: CeremonyVotes & { readonly plan: Uint8Array }): Promise<void>;
  onClosed(listener: (event: Closed) => void): void;
}
