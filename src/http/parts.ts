/** What the HTTP side needs of the domain. `main.ts` hands it in; nothing here knows how it is done. */

import type { Logger } from "pino";
import type { Issuance } from "../issuance/issuance.ts";
import type { Issuers } from "../issuance/issuer.ts";
import type { Reads } from "../issuance/records.ts";
import type { Operator, Requesters } from "../issuance/requesters.ts";
import type { Decision } from "../policy/decide.ts";
import type { Crls } from "../revocation/crl-schedule.ts";
import type { Revocations } from "../revocation/revocations.ts";
import type { CustodyParts } from "../ceremony/view.ts";

export interface Readiness {
  readonly ready: boolean;
  /** Everything the service waits for or depends on, and its state; `detail` is public. */
  readonly parts: readonly {
    readonly name: string;
    readonly state: string;
    readonly detail?: string;
  }[];
}

export interface PolicyQuestion {
  readonly issuer: string;
  readonly profile: string;
  readonly requester: string;
  readonly names: readonly { readonly kind: string; readonly value: string }[];
}

/** One number for Prometheus; its name gets the prefix `countersign_`. */
export interface Measurement {
  readonly name: string;
  readonly help: string;
  readonly kind: "counter" | "gauge";
  readonly values: readonly {
    readonly labels?: Readonly<Record<string, string>>;
    readonly value: number;
  }[];
}

export interface HttpParts extends CustodyParts {
  /** The service's name, as it stands in statements. */
  readonly service: string;
  readonly version: string;
  /** Base of the public site: `http://ca.example.com:8080`, without a slash at the end. */
  readonly publicUrl: string;
  readonly issuance: Issuance;
  readonly issuers: Issuers;
  readonly revocations: Revocations;
  readonly crls: Crls;
  readonly requesters: Requesters;
  readonly reads: Reads;
  readonly log: {
    readonly origin: string;
    /** Verifier key of the checkpoints. */
    readonly logKey: string;
    /** The newest signed checkpoint; undefined while there is none. */
    checkpoint(): Promise<string | undefined>;
  };
  readonly policy: {
    /** @throws CountersignError for an unknown issuer or requester, or a malformed name. */
    evaluate(question: PolicyQuestion): Decision;
    /** The document in force and its digest, `sha256:` and 64 hex digits. */
    document(): { readonly digest: string; readonly document: unknown };
  };
  /** Read again for every login and every use of a session: whoever leaves the roster is out at once. */
  operators(): readonly Operator[];
  readiness(): Promise<Readiness>;
  /** What only operators see in `/v1/status`, as plain JSON. */
  status(): Promise<Readonly<Record<string, unknown>>>;
  /** Numbers of the domain, for `/metrics`. */
  measurements(): Promise<readonly Measurement[]>;
  /** Called when somebody without valid credentials was refused. */
  denied(): void;
  /** SHA-256 of the key that reads `/metrics`, `sha256:` and 64 hex digits; absent: nobody reads them. */
  readonly metricsKeySha256?: string;
  /** Whether anybody may read log entries, and not only operators. */
  readonly publicEntries: boolean;
  readonly now: () => Date;
  readonly random: (size: number) => Uint8Array;
  readonly logger: Logger;
  /** After which a request is answered with `deadline-exceeded`; 30,000 when absent. */
  readonly deadlineMilliseconds?: number;
}
