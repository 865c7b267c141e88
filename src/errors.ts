/** Failures that a caller can act on, by stable code. A released code keeps its meaning. */

export type ErrorCode =
  // requests
  | "request-malformed"
  | "request-too-large"
  | "route-unknown"
  | "method-not-allowed"
  | "not-acceptable"
  | "deadline-exceeded"
  | "rate-limited"
  | "idempotency-key-malformed"
  | "idempotency-key-reused"
  // who is asking
  | "unauthenticated"
  | "forbidden"
  | "issuer-not-allowed"
  | "profile-not-allowed"
  | "session-malformed"
  | "signature-invalid"
  | "statement-malformed"
  | "statement-stale"
  // certificate requests
  | "csr-malformed"
  | "csr-signature-invalid"
  | "csr-algorithm-refused"
  | "csr-extension-refused"
  | "key-refused"
  | "name-malformed"
  | "name-repeated"
  | "names-too-many"
  | "name-refused"
  | "lifetime-malformed"
  | "lifetime-refused"
  | "lint-refused"
  // what is named
  | "issuer-unknown"
  | "certificate-unknown"
  | "crl-unknown"
  | "requester-unknown"
  | "requester-exists"
  | "log-entry-unknown"
  // revocation
  | "reason-refused"
  | "revocation-conflict"
  | "certificate-expired"
  | "clock-behind"
  // keys and the log
  | "key-locked"
  | "key-held"
  | "key-unknown"
  | "key-ambiguous"
  | "pin-wrong"
  | "pin-file-unsafe"
  | "token-unavailable"
  | "grant-exceeded"
  | "grant-mismatch"
  | "log-unavailable"
  | "rolled-back"
  | "head-missing"
  // people, and what they sign
  | "operator-unknown"
  | "roster-invalid"
  | "roster-unsigned"
  | "approval-malformed"
  | "enrolment-unknown"
  | "enrolment-refused"
  | "ceremony-unknown"
  | "ceremony-refused"
  | "ceremony-closed"
  | "approval-stale"
  | "approval-unsigned"
  | "approval-repeated"
  | "submission-malformed"
  | "submission-unsigned"
  | "submission-stale"
  | "unlock-unknown"
  | "unlock-busy"
  | "unlock-closed"
  | "panic"
  // shares and what they open
  | "plan-invalid"
  | "recipient-refused"
  | "share-malformed"
  | "share-unreadable"
  | "share-checksum"
  | "share-stale"
  | "share-foreign"
  | "share-not-yours"
  | "share-wrong"
  | "share-repeated"
  | "share-set-unknown"
  | "confirmation-invalid"
  | "deal-failed"
  | "kek-mismatch"
  | "sealed-key-corrupt"
  // the installation
  | "service-stopping"
  | "home-in-use"
  | "home-unknown"
  | "config-invalid"
  | "policy-invalid";

/** Extra members of a problem document (RFC 9457 §3.2): plain JSON, no secrets. */
export type ProblemMembers = Readonly<Record<string, unknown>>;

/** A failure a caller can act on. `message` and `members` reach the client: no secrets, no paths. */
export class CountersignError extends Error {
  readonly code: ErrorCode;
  readonly members: ProblemMembers;

  constructor(
    code: ErrorCode,
    detail: string,
    options: { cause?: unknown; members?: ProblemMembers } = {},
  ) {
    super(detail, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "CountersignError";
    this.code = code;
    this.members = options.members ?? {};
  }
}
