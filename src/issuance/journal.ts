/** What the domain asks of the one writer: whatever it appends is on disk, and in the log, when it answers. */

import type { CertificateKind, CertificateName } from "./records.ts";

/** What an intent to sign a certificate says of it. */
export interface CertificateRow {
  readonly issuer: string;
  /** Of the issuer's key: SHA-256 of its SubjectPublicKeyInfo, hex. */
  readonly keyId: string;
  /** Lower-case hex of the content octets. */
  readonly serialNumber: string;
  readonly kind: CertificateKind;
  readonly profile: string;
  /** `null` for what a ceremony or set-up makes. */
  readonly requester: string | null;
  /** RFC 4514. */
  readonly subject: string;
  readonly names: readonly CertificateName[];
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly spkiSha256: Uint8Array;
  readonly tbsSha256: Uint8Array;
  /** PKCS#10, DER. */
  readonly csr: Uint8Array | null;
  readonly createdAt: Date;
  /** Kept in the intent's own transaction; replaces an older intent under the same key. */
  readonly idempotency?: {
    readonly requester: string;
    readonly key: string;
    readonly bodySha256: Uint8Array;
  };
}

export interface RevocationRow {
  readonly issuer: string;
  readonly keyId: string;
  readonly serialNumber: string;
  /** RFC 5280 §5.3.1, spelled as there. */
  readonly reason: string;
  readonly revocationDate: Date;
  readonly invalidityDate: Date | null;
  readonly requestedBy: string;
  /** Of the certificate. */
  readonly notAfter: Date;
}

export interface CrlRow {
  readonly issuer: string;
  readonly keyId: string;
  /** Below 2^63. */
  readonly number: bigint;
  readonly tbsSha256: Uint8Array;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date;
}

export interface RequesterRow {
  readonly sequence: number;
  readonly statement: Uint8Array;
  /** SSH signature, armored. */
  readonly signature: string;
  readonly name: string;
  readonly action: "set" | "remove";
}

/** A frame of the policy that comes into force. */
export interface PolicyRow {
  /** SHA-256 of `document`, `sha256:` and 64 hex digits. */
  readonly digest: string;
  /** Canonical JSON. */
  readonly document: string;
}

/** One record of the log (`leaf`: its bytes, at most 65,535) with the rows that it accounts for. */
export type JournalItem =
  | { readonly kind: "entry"; readonly leaf: Uint8Array }
  | { readonly kind: "certificate-intent"; readonly leaf: Uint8Array; readonly row: CertificateRow }
  | {
      readonly kind: "certificate-done";
      readonly leaf: Uint8Array;
      readonly intentIndex: number;
      /** DER. */
      readonly certificate: Uint8Array;
    }
  | {
      readonly kind: "certificate-abandoned";
      readonly leaf: Uint8Array;
      readonly intentIndex: number;
    }
  | { readonly kind: "revocation"; readonly leaf: Uint8Array; readonly row: RevocationRow }
  | { readonly kind: "crl-intent"; readonly leaf: Uint8Array; readonly row: CrlRow }
  | {
      readonly kind: "crl-done";
      readonly leaf: Uint8Array;
      readonly intentIndex: number;
      /** CertificateList, DER. */
      readonly crl: Uint8Array;
    }
  | { readonly kind: "crl-abandoned"; readonly leaf: Uint8Array; readonly intentIndex: number }
  | { readonly kind: "requester"; readonly leaf: Uint8Array; readonly row: RequesterRow }
  | { readonly kind: "policy"; readonly leaf: Uint8Array; readonly row: PolicyRow };

export interface Journal {
  /**
   * Items enter the log in the order of the calls.
   *
   * @returns The item's index in the log, once it is on disk; the keeper has been told of it by then, so that a
   *   request to sign that follows finds its intent in the keeper's head.
   * @throws CountersignError `log-unavailable` if it could not be written: nothing of it is then on disk, and a
   *   later call tries again. `revocation-conflict` for a certificate that is already revoked.
   * @throws RangeError if the leaf is longer than 65,535 octets.
   */
  append(item: JournalItem): Promise<number>;
  /** Entries on disk. */
  readonly size: number;
  /** Why nothing was written of late; undefined again after a success, or when it is time to try. */
  readonly trouble: Error | undefined;
  /** Waits until everything appended is on disk, signed by the keeper, and the newest checkpoint stored. */
  drain(): Promise<void>;
  /** Resolves, with the reason, when the log can never be written again: the service must stop. */
  readonly failed: Promise<Error>;
}

/** What the journal needs of the keeper. */
export interface LogHeadKeeper {
  /**
   * Extends the log's head and signs it. Calls take effect in their order, without being awaited.
   *
   * @returns The new head; `note` is the signed checkpoint.
   */
  append(
    firstIndex: number,
    leafHashes: readonly Uint8Array[],
  ): Promise<{ size: number; root: Uint8Array; note: string }>;
}
