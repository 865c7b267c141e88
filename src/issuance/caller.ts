/** Who is asking, once a credential has been verified. */

import type { Actor } from "../audit/entry.ts";
import { CountersignError } from "../errors.ts";
import type { Requester } from "../policy/requester.ts";

export type Caller =
  | {
      readonly kind: "requester";
      readonly id: string;
      readonly via: "api-key" | "mtls";
      readonly requester: Requester;
    }
  | { readonly kind: "operator"; readonly id: string; readonly via: "session" }
  | {
      /** Somebody who showed, in the TLS handshake, the private key of a certificate issued here. */
      readonly kind: "certificate";
      /** SHA-256 of the certificate, `sha256:` and 64 hex digits. */
      readonly id: string;
      readonly via: "mtls";
      readonly issuer: string;
      readonly serialNumber: string;
    };

/** The caller as a log record names it. */
export function actorOf(caller: Caller): Actor {
  return { kind: caller.kind, id: caller.id, via: caller.via };
}

/**
 * Requires a requester of the policy.
 *
 * @throws CountersignError `forbidden` for everybody else.
 */
export function requireRequester(caller: Caller): Extract<Caller, { kind: "requester" }> {
  if (caller.kind === "requester") return caller;
  throw new CountersignError(
    "forbidden",
    caller.kind === "operator"
      ? "operators do not request certificates: use the API key of a requester (countersign requester add)"
      : "this certificate belongs to no requester of the policy",
  );
}
