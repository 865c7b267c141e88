/** Ceremonies, unlocks, keys and people in memory: what the HTTP side asks is kept, and what it is told can be set. */

import { randomBytes } from "node:crypto";
import { canonicalJson } from "../../src/audit/canonical-json.ts";
import { CountersignError } from "../../src/errors.ts";
import type {
  CeremonyView,
  CustodyParts,
  EnrolmentView,
  InboxItem,
  SealedKeyView,
  ShareSetView,
  UnlockView,
} from "../../src/ceremony/view.ts";

/** One call of the domain: its name and its arguments. */
export type Call = readonly [name: string, ...asked: unknown[]];

export interface CustodyDomain {
  readonly calls: Call[];
  /** Instead of any answer. */
  fail: unknown;
  /** Who may fetch which share. */
  readonly custodians: readonly string[];
  readonly ceremony: CeremonyView;
  readonly unlock: UnlockView;
  readonly key: SealedKeyView;
  readonly shareSet: ShareSetView;
  readonly enrolment: EnrolmentView;
  readonly item: InboxItem;
  /** What stands beside these in the store, and has no place in a view. */
  readonly ciphertext: Uint8Array;
  readonly note: string;
  readonly plan: Uint8Array;
  readonly parts: CustodyParts;
}

const id = "00112233445566778899aabbccddeeff";
const digest = `sha256:${"2b".repeat(32)}`;
const keyId = "6f".repeat(32);
const at = new Date("2026-11-21T20:03:00Z");
const later = new Date("2026-11-28T20:00:00Z");

export function custodyDomain(): CustodyDomain {
  const calls: Call[] = [];
  const ciphertext = Buffer.concat([
    Buffer.from("age-encryption.org/v1\n-> X25519 secret\n"),
    randomBytes(64),
  ]);
  // A store that hands out whole rows: what a view does not list must not come out of the routes.
  const row = {
    sealed: ciphertext,
    file: ciphertext,
    share: ciphertext,
    submissions: [{ share: ciphertext }],
  };
  const people = [
    { operator: "alice", state: "approved" as const, role: "officer", at, ...row },
    { operator: "bob", state: "given" as const, role: "custodian", at, ...row },
    { operator: "carol", state: "waiting" as const, ...row },
  ];
  const shareSet: ShareSetView = {
    ...row,
    digest: `sha256:${"47".repeat(32)}`,
    epoch: 7,
    state: "active",
    threshold: 3,
    shareCount: 5,
    custodians: ["alice", "bob"].map((operator, place) => ({
      ...row,
      index: place + 1,
      operator,
      role: "custodian" as const,
      confirmedAt: at,
      ...(place === 0 ? { provedAt: at } : {}),
    })),
  };
  const ceremony: CeremonyView = {
    ...row,
    id,
    digest,
    kind: "sign",
    keyId,
    state: "gathering",
    reason: "issue intermediate G2",
    requestedBy: "alice",
    notAfter: later,
    createdAt: at,
    people,
    missing: { roles: { witness: 1 }, shares: 2, people: ["carol"] },
    unlock: { ...row, id, digest, state: "gathering", expiresAt: later },
    shareSet: shareSet.digest,
    results: [{ tbs: digest, der: Buffer.from("3003020101", "hex") }],
    trouble: "the dealer ended",
  };
  const unlock: UnlockView = {
    ...row,
    id,
    digest,
    ceremony: digest,
    keyId,
    epoch: 7,
    threshold: 3,
    shareCount: 5,
    shareSet: shareSet.digest,
    state: "gathering",
    expiresAt: later,
    createdAt: at,
    people,
    missing: { roles: {}, shares: 2 },
  };
  const key: SealedKeyView = {
    ...row,
    keyId,
    issuer: "issuing",
    custody: "sealed",
    state: "open",
    operations: ["crl"],
    until: later,
    ceremony: digest,
    shareSets: [shareSet],
  };
  const enrolment: EnrolmentView = {
    ...row,
    id,
    operator: "dave",
    keys: ["ssh-ed25519 AAAA"],
    recipient: "age1qqq",
    state: "requested",
    createdAt: at,
  };
  const item: InboxItem = {
    ...row,
    what: "submit",
    ceremony: digest,
    unlock: digest,
    keyId,
    shareSet: shareSet.digest,
    index: 2,
    reason: "issue intermediate G2",
    until: later,
  };
  const document = { version: 1, digest, document: Buffer.from("{}") };
  const note = `${canonicalJson({ id })}\n\n— ca.example.test/keeper w0fOYvq3\n`;
  const plan = Buffer.from(canonicalJson({ type: "countersign/plan/v1" }));

  const domain: CustodyDomain = {
    calls,
    fail: undefined,
    custodians: ["alice", "bob", "carol"],
    ceremony,
    unlock,
    key,
    shareSet,
    enrolment,
    item,
    ciphertext,
    note,
    plan,
    parts: {
      ceremonies: {
        propose: answer("propose", () => ceremony),
        approve: answer("approve", () => ceremony),
        abort: answer("abort", () => ceremony),
        statement: answer("ceremony statement", () => note),
        plan: answer("plan", () => plan),
        view: answer("ceremony", () => ceremony),
        list: answer("list", () => ({ ceremonies: [ceremony], next: 7 })),
      },
      unlocks: {
        open: answer("open", () => unlock),
        statement: answer("unlock statement", () => note),
        view: answer("unlock", () => unlock),
        submit: answer("submit", () => unlock),
      },
      custody: {
        keys: answer("keys", () => [key]),
        key: answer("key", () => key),
        shareSet: answer("share set", () => note),
        shareFile: answer("share file", (_keyId, index, _shareSet, by) => {
          if (domain.custodians[index - 1] !== by.id) {
            throw new CountersignError("forbidden", "this share file is its custodian's alone");
          }
          return ciphertext;
        }),
        confirm: answer("confirm", () => shareSet),
        drillChallenge: answer("challenge", () => new Uint8Array(32).fill(5)),
        drill: answer("drill", () => shareSet),
        lock: answer("lock", () => undefined),
        panic: answer("panic", () => undefined),
      },
      enrolments: {
        request: answer("request", () => id),
        list: answer("enrolments", () => [enrolment]),
        challenge: answer("enrolment challenge", () => ciphertext),
        prove: answer("prove", () => enrolment),
      },
      roster: {
        genesis: digest,
        current: () => document,
        chain: () => [
          { document: document.document, signatures: [{ operator: "alice", signature: "armor" }] },
          {
            document: document.document,
            signatures: [],
            ceremony: {
              note,
              approvals: [{ statement: Buffer.from("{}"), signature: "armor" }],
            },
          },
        ],
      },
      inbox: { of: answer("inbox", () => [item]) },
    },
  };

  function answer<Asked extends unknown[], Told>(
    name: string,
    told: (...asked: Asked) => Told,
  ): (...asked: Asked) => Promise<Told> {
    return async (...asked) => {
      calls.push([name, ...asked]);
      if (domain.fail !== undefined) throw domain.fail;
      return told(...asked);
    };
  }

  return domain;
}
