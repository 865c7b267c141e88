/** What issuance and revocation need of the process that keeps the log head and passes requests to signers. */

export interface SignRequest {
  /** SHA-256 of the key's SubjectPublicKeyInfo, hex (CUSTODY 2.1). */
  readonly keyId: string;
  readonly operation: "certificate" | "crl" | "request";
  /** Index of the intent in the log. */
  readonly intentIndex: number;
  /** Leaf bytes of the intent. */
  readonly intent: Uint8Array;
  /** TBSCertificate, TBSCertList or CertificationRequestInfo, DER. */
  readonly tbs: Uint8Array;
  /** The CRL before this one, DER; absent for the first. */
  readonly predecessor?: Uint8Array;
  /** Expired certificates, DER, whose entries the new CRL no longer has. */
  readonly dropped?: readonly Uint8Array[];
}

export interface Signing {
  /**
   * @returns The signature as X.509 wants it (ECDSA: DER), already verified with the public key.
   * @throws CountersignError `key-locked`, `key-held`, `token-unavailable`, `pin-wrong`, `grant-exceeded`,
   *   `grant-mismatch` or a code of the gate.
   */
  sign(request: SignRequest): Promise<Uint8Array>;
}
