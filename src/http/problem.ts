/** Errors as `application/problem+json`: RFC 9457 §3. The only place that gives an error an HTTP status. */

import { CountersignError, type ErrorCode } from "../errors.ts";

export interface ProblemKind {
  readonly status: number;
  readonly title: string;
  /** What to do about it, for a person; served at `/problems/<code>`. */
  readonly advice: string;
  /** Seconds; sent as `Retry-After` where the same request may succeed later. */
  readonly retryAfter?: number;
}

export const problems: Readonly<Record<ErrorCode, ProblemKind>> = {
  "request-malformed": {
    status: 400,
    title: "Request is malformed",
    advice:
      "Correct the fields that `errors` names. Unknown fields and parameters are errors; /openapi.json has the schema.",
  },
  "request-too-large": {
    status: 413,
    title: "Request is too large",
    advice:
      "`detail` says how much a body has here at most. A CSR of that size is not a CSR for one certificate, and no submission of one share is.",
  },
  "route-unknown": {
    status: 404,
    title: "There is nothing here",
    advice: "Compare the path with /openapi.json, which lists every route.",
  },
  "method-not-allowed": {
    status: 405,
    title: "Method is not allowed here",
    advice: "Use one of the methods that the Allow header names.",
  },
  "not-acceptable": {
    status: 406,
    title: "No acceptable representation",
    advice: "Ask in Accept for one of the media types that `available` names.",
  },
  "deadline-exceeded": {
    status: 503,
    title: "Not finished in time",
    advice:
      "Send the same request again with the same Idempotency-Key: if it was finished meanwhile, you get its answer.",
    retryAfter: 5,
  },
  "rate-limited": {
    status: 429,
    title: "Too many attempts",
    advice: "Wait as long as Retry-After says.",
    retryAfter: 60,
  },
  "idempotency-key-malformed": {
    status: 400,
    title: "Idempotency-Key is malformed",
    advice: "Send 1 to 255 visible ASCII characters, a UUID for example.",
  },
  "idempotency-key-reused": {
    status: 422,
    title: "Idempotency-Key was used for another request",
    advice:
      "Take a new key for a new request; a repetition must be the same bytes to the same URL.",
  },
  unauthenticated: {
    status: 401,
    title: "Credentials are missing or not valid",
    advice:
      "Send Authorization: Bearer with an API key or a session token, or use a TLS client certificate that a requester is bound to.",
  },
  forbidden: {
    status: 403,
    title: "Not allowed",
    advice: "These credentials are valid and do not allow this. `detail` says what would.",
  },
  "issuer-not-allowed": {
    status: 403,
    title: "Issuer is not allowed for this requester",
    advice: "Use an issuer of the requester's entry in the policy, or have the entry changed.",
  },
  "profile-not-allowed": {
    status: 403,
    title: "Profile is not allowed",
    advice: "Use a profile that both the issuer and the requester's entry in the policy list.",
  },
  "session-malformed": {
    status: 400,
    title: "Session is malformed",
    advice:
      "Ask for a new challenge with POST /v1/sessions and sign exactly the statement it returns.",
  },
  "signature-invalid": {
    status: 403,
    title: "Signature does not verify",
    advice:
      "Sign the exact bytes of the statement, with the namespace it belongs to and a key that is listed for the signer.",
  },
  "statement-malformed": {
    status: 400,
    title: "Statement is malformed",
    advice: "A statement is canonical JSON (RFC 8785) with exactly the documented fields.",
  },
  "statement-stale": {
    status: 409,
    title: "Statement is stale",
    advice:
      "What it builds on has changed or expired. Read the present state and sign a new statement.",
  },
  "csr-malformed": {
    status: 400,
    title: "CSR is malformed",
    advice:
      "Send one PKCS#10 request in PEM, or its DER as application/pkcs10, with nothing after it.",
  },
  "csr-signature-invalid": {
    status: 422,
    title: "CSR signature does not verify",
    advice: "Make the CSR anew with the private key that belongs to its public key.",
  },
  "csr-algorithm-refused": {
    status: 422,
    title: "CSR signature algorithm is refused",
    advice: "Sign the CSR with SHA-256 or better, or Ed25519.",
  },
  "csr-extension-refused": {
    status: 422,
    title: "CSR asks for an extension that is refused",
    advice: "Ask only for a subject alternative name; the profile decides the other extensions.",
  },
  "key-refused": {
    status: 422,
    title: "Public key is refused",
    advice:
      "Use RSA of 2048 to 4096 bits with exponent 65537, P-256, P-384, P-521 or Ed25519, made for this certificate alone.",
  },
  "name-malformed": {
    status: 422,
    title: "Name is malformed",
    advice:
      "Correct the name that `name` shows. Names are never repaired: one bad name refuses the whole request.",
  },
  "name-repeated": {
    status: 422,
    title: "Name is repeated",
    advice: "List every name once.",
  },
  "names-too-many": {
    status: 422,
    title: "Too many names",
    advice: "A certificate has at most 100 names. Ask for several certificates.",
  },
  "name-refused": {
    status: 403,
    title: "Name is not allowed",
    advice:
      "`rule` names the policy rule that decided and `name` the name it decided on; POST /v1/policy/evaluate shows decisions without issuing.",
  },
  "lifetime-malformed": {
    status: 400,
    title: "Lifetime is malformed",
    advice: "Write a number and a unit: 90d, 12h, 18 months, 1 year.",
  },
  "lifetime-refused": {
    status: 422,
    title: "Lifetime is refused",
    advice: "Ask for no more than the profile allows and no longer than the issuer lives.",
  },
  "lint-refused": {
    status: 422,
    title: "Certificate would break a rule",
    advice:
      "`findings` or `rule` names the rules of the profile that the certificate would have broken.",
  },
  "issuer-unknown": {
    status: 404,
    title: "Issuer is unknown",
    advice: "GET /v1/issuers lists the issuers.",
  },
  "certificate-unknown": {
    status: 404,
    title: "Certificate is unknown",
    advice:
      "Check serial number and issuer: a serial number belongs to one issuer, and a requester sees its own certificates.",
  },
  "certificate-expired": {
    status: 409,
    title: "Certificate has ended",
    advice: "A certificate past its notAfter is worth nothing any more; nothing is left to do.",
  },
  "crl-unknown": {
    status: 404,
    title: "There is no CRL",
    advice: "The issuer has not published a CRL yet; /readyz says what it is waiting for.",
  },
  "requester-unknown": {
    status: 404,
    title: "Requester is unknown",
    advice: "GET /v1/requesters lists the requesters.",
  },
  "requester-exists": {
    status: 409,
    title: "Requester exists",
    advice: "Take another name, or remove the requester first.",
  },
  "log-entry-unknown": {
    status: 404,
    title: "Not in the log",
    advice: "/audit/checkpoint says how large the log is.",
  },
  "reason-refused": {
    status: 422,
    title: "Revocation reason is refused",
    advice:
      "Choose a reason that applies to this certificate: keyCompromise, superseded, cessationOfOperation and so on.",
  },
  "revocation-conflict": {
    status: 409,
    title: "Certificate is revoked with another reason or date",
    advice: "GET the revocation to see reason and date; they do not change.",
  },
  "key-locked": {
    status: 503,
    title: "Key is locked",
    advice: "Somebody has to open the issuer's key; /readyz says which.",
    retryAfter: 60,
  },
  "key-held": {
    status: 503,
    title: "Key is held",
    advice: "An operator stopped this key on purpose. It signs nothing until that is lifted.",
  },
  "key-unknown": {
    status: 503,
    title: "Key is not found",
    advice:
      "The token has no key of this URI. The service's operator has to correct the configuration or the token.",
  },
  "key-ambiguous": {
    status: 503,
    title: "Key is ambiguous",
    advice:
      "More than one key on the token fits the URI. The service's operator has to name it by its id.",
  },
  "pin-wrong": {
    status: 503,
    title: "PIN is wrong",
    advice:
      "The token refused the PIN. It is not tried again; the service's operator has to correct the PIN file.",
  },
  "pin-file-unsafe": {
    status: 503,
    title: "PIN file is not safe",
    advice:
      "The service's operator has to give the PIN file mode 0600 and its owner to the keeper's user.",
  },
  "token-unavailable": {
    status: 503,
    title: "Token is unavailable",
    advice:
      "The token that holds the issuer's key is away. Try again: the service uses it as soon as it is back.",
    retryAfter: 5,
  },
  "grant-exceeded": {
    status: 503,
    title: "Grant is used up",
    advice:
      "The signer may not sign more under the present grant; the service's operator has to renew it.",
  },
  "grant-mismatch": {
    status: 503,
    title: "Signer refuses",
    advice:
      "The signer's grant does not cover this. The service's operator finds the reason in its log.",
  },
  "log-unavailable": {
    status: 503,
    title: "Log is unavailable",
    advice: "Nothing is signed while it cannot be recorded. Try again later.",
    retryAfter: 5,
  },
  "rolled-back": {
    status: 503,
    title: "Database is behind the log's head",
    advice:
      "The database was put back to an older state. The service's operator has to restore or recover it.",
  },
  "head-missing": {
    status: 503,
    title: "Head file is missing",
    advice:
      "The file that remembers the log's head is gone. The service's operator has to recover it.",
  },
  "clock-behind": {
    status: 503,
    title: "Clock is behind",
    advice:
      "The host's clock lies before what was last signed. The service's operator has to set it right.",
  },
  "operator-unknown": {
    status: 403,
    title: "Operator is unknown",
    advice:
      "The roster in force has nobody of this name. Compare it with `operator` in what was signed.",
  },
  "roster-invalid": {
    status: 422,
    title: "Roster cannot be used",
    advice:
      "Correct what `detail` names, and have the roster signed anew: its bytes change with it.",
  },
  "roster-unsigned": {
    status: 422,
    title: "A signature under the roster is missing",
    advice:
      "Every key that is new in a roster signs it, so that nobody is enrolled with a key they do not hold.",
  },
  "approval-malformed": {
    status: 400,
    title: "Approval is malformed",
    advice:
      "Send the approval as the canonical JSON that was signed, with the members of its schema and no others.",
  },
  "submission-malformed": {
    status: 400,
    title: "Submission is malformed",
    advice:
      "Send the submission as the canonical JSON that was signed, with the members of its schema and no others.",
  },
  "plan-invalid": {
    status: 422,
    title: "Plan cannot be dealt",
    advice:
      "Correct what `detail` names and propose the plan anew: approvals are of its exact bytes.",
  },
  "recipient-refused": {
    status: 422,
    title: "Recipient is refused",
    advice:
      "Make an age identity with `age-keygen -o KEYFILE` and enrol the recipient that it prints.",
  },
  "share-malformed": {
    status: 400,
    title: "Share is malformed",
    advice:
      "Send the share file as age wrote it, in base64: binary, with one recipient, under 8 KiB.",
  },
  "share-unreadable": {
    status: 422,
    title: "Share cannot be opened",
    advice:
      "It was encrypted to another recipient, usually that of an earlier unlock. Encrypt it to the recipient in the present statement and send it again. Nobody else's share is lost.",
  },
  "share-checksum": {
    status: 422,
    title: "Share is mistyped",
    advice:
      "Compare it group by group with the paper or the share file and send it again. Nobody else's share is lost.",
  },
  "submission-stale": {
    status: 409,
    title: "Submission is stale",
    advice:
      "It is of another unlock or another file. Read the present statement, and make and sign it anew.",
  },
  "unlock-closed": {
    status: 409,
    title: "Unlock is closed",
    advice: "It has enough shares, or has ended. The ceremony says whether another one gathers.",
  },
  "share-stale": {
    status: 422,
    title: "Share is of another epoch",
    advice:
      "Use the share file of the last reshare, and destroy older ones. Nobody else's share is lost.",
  },
  "share-foreign": {
    status: 422,
    title: "Share is of another key",
    advice:
      "Look for the share file whose comments name the key in the statement. Nobody else's share is lost.",
  },
  "share-not-yours": {
    status: 403,
    title: "Share is somebody else's",
    advice:
      "Each custodian sends their own share in their own name. This was recorded. Nobody's share is lost.",
  },
  "share-wrong": {
    status: 422,
    title: "Share is wrong",
    advice:
      "It is well-formed and does not belong to the key. Decrypt the share file again or compare the paper, and send it again. This was recorded. Nobody else's share is lost.",
  },
  "share-repeated": {
    status: 409,
    title: "Share is counted already",
    advice: "Nothing more is needed from you; others are still missing.",
  },
  "kek-mismatch": {
    status: 500,
    title: "Shares do not open the key",
    advice:
      "Every share is right and yet they do not open the sealed key: it or the share set was changed. Restore both from one backup.",
  },
  "sealed-key-corrupt": {
    status: 500,
    title: "Sealed key is damaged",
    advice: "The sealed key was changed after it was made. Restore it from a backup of its epoch.",
  },
  "enrolment-unknown": {
    status: 404,
    title: "Enrolment is unknown",
    advice: "Enrol with `countersign enrol`, or ask for the id that it printed.",
  },
  "enrolment-refused": {
    status: 409,
    title: "Enrolment is refused",
    advice: "Correct what `detail` names and enrol anew.",
  },
  "ceremony-unknown": {
    status: 404,
    title: "Ceremony is unknown",
    advice: "Name it by its id or by the digest of its statement, as its invitation does.",
  },
  "ceremony-refused": {
    status: 409,
    title: "Ceremony is not possible",
    advice:
      "`detail` says what is in the way: a rule of the roster, the state of the key, or another ceremony.",
  },
  "ceremony-closed": {
    status: 409,
    title: "Ceremony is closed",
    advice: "It was carried out, rejected or aborted, or its time is over. Propose it anew.",
  },
  "approval-stale": {
    status: 409,
    title: "Approval is stale",
    advice:
      "It is of another statement, or names a head that the log never had. Read the present statement, and sign anew.",
  },
  "approval-unsigned": {
    status: 403,
    title: "Approval is not signed by its operator",
    advice:
      "Sign the exact bytes with the operator's key and the namespace countersign-approval@v1.",
  },
  "approval-repeated": {
    status: 409,
    title: "Approval is counted already",
    advice: "One verdict of each person counts. To stop the ceremony, ask for its abort.",
  },
  "submission-unsigned": {
    status: 403,
    title: "Submission is not signed by its operator",
    advice:
      "Sign the exact bytes with the operator's key and the namespace countersign-submission@v1.",
  },
  "unlock-unknown": {
    status: 404,
    title: "Unlock is unknown",
    advice:
      "Name it by its id or by the digest of its statement. The ceremony says whether one gathers.",
  },
  "unlock-busy": {
    status: 409,
    title: "Key is busy",
    advice: "Another unlock of this key is open. Wait for its end, or lock the key.",
  },
  panic: {
    status: 503,
    title: "Everything is locked",
    advice:
      "An operator has locked every key. A ceremony of kind resume, approved by the roster's quorum, lets them go.",
  },
  "share-set-unknown": {
    status: 404,
    title: "Share set is unknown",
    advice: "The key has no seal, or the share set was replaced. `countersign status` shows it.",
  },
  "confirmation-invalid": {
    status: 422,
    title: "Confirmation does not count",
    advice:
      "It must carry the proof of this very share and its custodian's signature. Fetch the share again and confirm it with `countersign share confirm`.",
  },
  "deal-failed": {
    status: 500,
    title: "Shares could not be dealt",
    advice: "Nothing was made. The ceremony and its approvals stand: it is tried again.",
  },
  "service-stopping": {
    status: 503,
    title: "Service is stopping",
    advice: "Send the request again; another start of the service will answer.",
    retryAfter: 10,
  },
  "home-in-use": {
    status: 503,
    title: "Home is in use",
    advice: "Another instance runs on this home.",
  },
  "home-unknown": {
    status: 503,
    title: "Home is unknown",
    advice: "The folder is not a home of this version.",
  },
  "config-invalid": {
    status: 500,
    title: "Configuration is not valid",
    advice: "The service's operator has to correct the configuration.",
  },
  "policy-invalid": {
    status: 422,
    title: "Policy is not valid",
    advice: "Correct what `detail` names. A requester is never wider than the policy's frame.",
  },
};

/** The `instance` of every problem of one request. */
export function problemInstance(requestId: string): string {
  return `urn:countersign:request:${requestId}`;
}

export interface Problem {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Readonly<Record<string, unknown>>;
  /** Absent for an error that is not ours. */
  readonly code?: ErrorCode;
}

/** Renders a failure. One that is not ours says nothing but 500: its message may hold anything. */
export function problemFrom(error: unknown, requestId: string): Problem {
  const instance = problemInstance(requestId);
  if (!(error instanceof CountersignError)) {
    const status = 500;
    const title = "Internal Server Error";
    return { status, headers: {}, body: { type: "about:blank", title, status, instance } };
  }
  const { code, members, message: detail } = error;
  const { status, title, retryAfter } = problems[code];
  const seconds = typeof members["retryAfter"] === "number" ? members["retryAfter"] : retryAfter;
  return {
    status,
    code,
    headers: {
      ...(seconds === undefined ? {} : { "Retry-After": String(seconds) }),
      // RFC 9110 §15.5.2: a 401 names the scheme it wants.
      ...(status === 401 ? { "WWW-Authenticate": 'Bearer realm="countersign"' } : {}),
      ...(Array.isArray(members["allow"]) ? { Allow: members["allow"].join(", ") } : {}),
    },
    // The standard members come last: an extension member never hides one of them.
    body: { ...members, type: `/problems/${code}`, title, status, detail, instance, code },
  };
}

/** The page behind a problem's `type`, plain text for a person. */
export function problemPage(code: string): string {
  const kind = Object.hasOwn(problems, code) ? problems[code as ErrorCode] : undefined;
  if (kind === undefined) {
    throw new CountersignError("route-unknown", "there is no problem of this name");
  }
  const { title, status, advice } = kind;
  return `${title} (${code}, HTTP ${status})\n\n${advice}\n`;
}
