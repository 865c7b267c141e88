/** What the API answers about ceremonies, unlocks and custody, as the command reads it; docs/command.md has the JSON. */

import type { CeremonyKind } from "../custody/statement.ts";
import type { Field } from "./output.ts";

export interface PersonAnswer {
  readonly operator: string;
  readonly state: "approved" | "rejected" | "given" | "refused" | "waiting";
  readonly role?: string;
  readonly at?: string;
}

export interface MissingAnswer {
  readonly roles: Readonly<Record<string, number>>;
  readonly shares?: number;
  readonly people?: readonly string[];
}

export interface ProgressAnswer {
  readonly id: string;
  readonly digest: string;
  readonly state: string;
  readonly people: readonly PersonAnswer[];
  readonly missing: MissingAnswer;
}

export interface CeremonyAnswer extends ProgressAnswer {
  readonly kind: CeremonyKind;
  readonly keyId?: string;
  readonly reason: string;
  readonly requestedBy: string;
  readonly notAfter: string;
  readonly createdAt: string;
  readonly unlock?: {
    readonly id: string;
    readonly digest: string;
    readonly state: string;
    readonly expiresAt: string;
  };
  readonly shareSet?: string;
  readonly results?: readonly { readonly tbs: string; readonly signed: string }[];
  readonly trouble?: string;
}

export interface UnlockAnswer extends ProgressAnswer {
  readonly ceremony: string;
  readonly keyId: string;
  readonly epoch: number;
  readonly threshold: number;
  readonly shareCount: number;
  readonly shareSet: string;
  readonly expiresAt: string;
}

export interface ShareSetAnswer {
  readonly digest: string;
  readonly epoch: number;
  readonly state: "pending" | "active";
  readonly threshold: number;
  readonly shareCount: number;
  readonly custodians: readonly {
    readonly index: number;
    readonly operator: string;
    readonly role: string;
    readonly confirmedAt?: string;
    readonly provedAt?: string;
  }[];
}

export interface KeyAnswer {
  readonly keyId: string;
  readonly issuer?: string;
  readonly custody: "token" | "sealed";
  readonly state: string;
  readonly operations: readonly string[];
  readonly until?: string;
  readonly ceremony?: string;
  readonly shareSets: readonly ShareSetAnswer[];
}

export interface EnrolmentAnswer {
  readonly id: string;
  readonly operator: string;
  readonly keys: readonly string[];
  readonly recipient: string;
  readonly state: "requested" | "proved";
  readonly createdAt: string;
}

export interface InboxItem {
  readonly what: "prove" | "approve" | "submit" | "fetch" | "confirm" | "drill";
  readonly enrolment?: string;
  readonly ceremony?: string;
  readonly unlock?: string;
  readonly keyId?: string;
  readonly shareSet?: string;
  readonly index?: number;
  readonly reason?: string;
  readonly until?: string;
}

/** How a ceremony or unlock stands, in lines. */
export function progressFields({ state, people, missing }: ProgressAnswer): Field[] {
  return [
    ["state", state],
    ...people.map(({ operator, state: said, role, at }): Field => [
      operator,
      `${said}${role === undefined ? "" : ` as ${role}`}${at === undefined ? "" : `, ${at}`}`,
    ]),
    ["missing", missingText(missing)],
  ];
}

export function missingText({ roles, shares = 0, people = [] }: MissingAnswer): string {
  const parts = [
    ...Object.entries(roles).map(([role, count]) => `${count} ${role}`),
    ...(shares === 0 ? [] : [shares === 1 ? "1 share" : `${shares} shares`]),
    ...(people.length === 0 ? [] : [people.join(", ")]),
  ];
  return parts.length === 0 ? "nothing" : parts.join("; ");
}
