/** What is stored, as the domain reads it: plain values, each read of its own snapshot. */

export type CertificateKind = "root" | "intermediate" | "leaf";

/** `pending`: an intent without a result. `abandoned`: it has none, but counts as possibly issued. */
export type RecordState = "pending" | "issued" | "abandoned";

/** A subject alternative name: `dns`, `ip`, `email`, `uri`, and its canonical text. */
export interface CertificateName {
  readonly kind: string;
  readonly value: string;
}

/** A certificate's record without its bytes, as lists show it. */
export interface CertificateSummary {
  /** Of its sign.intent in the log. */
  readonly index: number;
  readonly issuer: string;
  /** Of the issuer's key: SHA-256 of its SubjectPublicKeyInfo, hex. */
  readonly keyId: string;
  /** Lower-case hex of the content octets. */
  readonly serialNumber: string;
  readonly kind: CertificateKind;
  readonly profile: string;
  readonly requester: string | null;
  /** RFC 4514. */
  readonly subject: string;
  /** Ordered by kind and value. */
  readonly names: readonly CertificateName[];
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly spkiSha256: Uint8Array;
  readonly tbsSha256: Uint8Array;
  /** `null` until it is issued. */
  readonly certificateSha256: Uint8Array | null;
  readonly state: RecordState;
  /** Of its sign.done or sign.abandoned in the log; `null` while pending. */
  readonly doneIndex: number | null;
  readonly createdAt: Date;
  readonly revocation: { readonly reason: string; readonly revocationDate: Date } | null;
}

export interface StoredCertificate extends CertificateSummary {
  /** PKCS#10, DER. */
  readonly csr: Uint8Array | null;
  /** DER; `null` until it is issued. */
  readonly certificate: Uint8Array | null;
}

export interface CertificateFilter {
  readonly issuer?: string;
  readonly requester?: string;
  readonly profile?: string;
  /** A canonical name, or `*.example.com` for every name that ends in `.example.com`. */
  readonly name?: string;
  /** Absent: every record, intents without a certificate included. The three exclude each other. */
  readonly state?: "valid" | "expired" | "revoked";
  /** Lower-case hex. */
  readonly serialPrefix?: string;
  /** `next` of the page before. */
  readonly cursor?: number;
  readonly limit: number;
}

export interface CertificatePage {
  /** Newest first. */
  readonly certificates: readonly CertificateSummary[];
  /** Absent on the last page. */
  readonly next?: number;
}

/** What a CRL entry is made from. */
export interface RevokedRecord {
  readonly serialNumber: string;
  readonly revocationDate: Date;
  /** RFC 5280 §5.3.1, spelled as there. */
  readonly reason: string;
  readonly invalidityDate: Date | null;
  /** Of the certificate. */
  readonly notAfter: Date;
}

export interface StoredRevocation extends RevokedRecord {
  readonly issuer: string;
  readonly keyId: string;
  readonly requestedBy: string;
  /** Of its certificate.revoked in the log. */
  readonly logIndex: number;
}

export interface StoredCrl {
  readonly issuer: string;
  readonly keyId: string;
  readonly number: bigint;
  readonly tbsSha256: Uint8Array;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date;
  readonly intentIndex: number;
  readonly doneIndex: number | null;
  readonly state: RecordState;
  /** DER; `null` unless issued. */
  readonly crl: Uint8Array | null;
  readonly crlSha256: Uint8Array | null;
}

export interface StoredRequesterStatement {
  readonly sequence: number;
  readonly statement: Uint8Array;
  readonly signature: string;
  readonly name: string;
  readonly action: "set" | "remove";
  /** Of its policy.changed in the log. */
  readonly logIndex: number;
}

export interface Reads {
  certificate(issuer: string, serialNumber: string): Promise<StoredCertificate | undefined>;
  certificateBySha256(digest: Uint8Array): Promise<StoredCertificate | undefined>;
  /** Every record of a public key, oldest first. */
  certificatesByKey(spkiSha256: Uint8Array): Promise<StoredCertificate[]>;
  /** Roots and intermediates that were issued, oldest first. */
  issuerCertificates(): Promise<StoredCertificate[]>;
  listCertificates(filter: CertificateFilter): Promise<CertificatePage>;
  revocation(issuer: string, serialNumber: string): Promise<StoredRevocation | undefined>;
  /**
   * Ordered by serial number as text, which is its numeric order where all are 20 octets long.
   *
   * @param notAfterFrom - Leaves out certificates that ended before it.
   */
  revokedForCrl(issuer: string, notAfterFrom?: Date): Promise<RevokedRecord[]>;
  /** The issued CRL with the highest number. */
  latestCrl(issuer: string): Promise<StoredCrl | undefined>;
  /** Of every CRL that was intended, whatever became of it: no number of these is used again. */
  highestCrlNumber(issuer: string): Promise<bigint | undefined>;
  /** Intents without a result: what a crash left, or what is being signed. */
  pendingIntents(): Promise<{ certificates: StoredCertificate[]; crls: StoredCrl[] }>;
  /** What was last intended under a key, unless before `notBefore`. */
  idempotency(
    requester: string,
    key: string,
    notBefore: Date,
  ): Promise<{ bodySha256: Uint8Array; certificate: StoredCertificate } | undefined>;
  /** In their sequence. */
  requesterStatements(): Promise<StoredRequesterStatement[]>;
  /** Digest of the policy's frame that came into force last. */
  policyDigest(): Promise<string | undefined>;
  /** Leaf bytes of the entries from `from` up to, not including, `to`; fewer where the log ends. */
  entries(from: number, to: number): Promise<Uint8Array[]>;
  /** The hashes that a tile has by now: 32 to 8,192 octets. */
  tile(level: number, n: number): Promise<Uint8Array | undefined>;
  /** The newest that was stored; the log may be longer. */
  checkpoint(): Promise<{ size: number; note: string } | undefined>;
  logSize(): Promise<number>;
  counts(): Promise<{ entries: number; issued: number; pending: number; revoked: number }>;
}
