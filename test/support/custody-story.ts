/** Items of the journal about ceremonies, unlocks and shares, with records and statements that fit; signatures are none. */

import { hash } from "node:crypto";
import { canonicalJson, type JsonObject } from "../../src/audit/canonical-json.ts";
import { digestOf } from "../../src/audit/digest.ts";
import { encodeEntry, type Actor, type LogEntry } from "../../src/audit/entry.ts";
import { signNote } from "../../src/audit/signed-note.ts";
import type { CustodyItem, EnrolmentRow } from "../../src/ceremony/journal.ts";
import type { CeremonyState, UnlockEnd } from "../../src/ceremony/records.ts";
import type { CeremonyKind, Signed } from "../../src/custody/statement.ts";
import { logSigner } from "./log.ts";

export type Item<Kind extends CustodyItem["kind"]> = Extract<CustodyItem, { kind: Kind }>;

export const at = new Date("2026-11-21T20:05:01.123Z");
const DAY = 86_400_000;
export const keyId = hash("sha256", "a key");
const service: Actor = { kind: "service", id: "ca.example.com" };
const keeper = logSigner("ca.example.com/keeper", "02".repeat(32));
const log = { size: 3, root: `${"A".repeat(43)}=` };

const person = (id: string): Actor => ({ kind: "operator", id, via: "sshsig" });
const hex = (text: string, length: number) => hash("sha256", text).slice(0, length);
const octets = (members: JsonObject): Buffer => Buffer.from(canonicalJson(members));
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");

/** What the keeper states. */
function stated(members: JsonObject): { digest: string; note: string } {
  const text = octets(members);
  return { digest: digestOf(text), note: signNote(`${text.toString()}\n`, keeper) };
}

/** What a person signs. */
function signed(members: JsonObject): Signed {
  const statement = octets({ log, at: at.toISOString(), ...members });
  const body = base64(Buffer.from(hash("sha512", statement, "buffer")));
  const signature = `-----BEGIN SSH SIGNATURE-----\n${body}\n-----END SSH SIGNATURE-----\n`;
  return { statement, signature };
}

const evidenceOf = ({ statement, signature }: Signed) => ({
  statement: base64(statement),
  signature,
});

const leafOf = (entry: LogEntry): Uint8Array => encodeEntry(entry);

export function ceremony(
  name: string,
  kind: CeremonyKind,
  { key = keyId, tbs = [] }: { key?: string; tbs?: readonly Uint8Array[] } = {},
): Item<"ceremony"> {
  const planned = !["sign", "window"].includes(kind);
  const plan = octets({ plan: name });
  const withKey = ["sign", "window", "reshare", "retire"].includes(kind);
  const notAfter = new Date(at.getTime() + 7 * DAY);
  const members = {
    type: "countersign/ceremony/v1",
    id: hex(`ceremony ${name}`, 32),
    kind,
    ...(withKey ? { keyId: key } : {}),
    ...(planned ? { plan: digestOf(plan) } : {}),
    ...(tbs.length === 0
      ? {}
      : { artefacts: tbs.map((bytes) => ({ tbs: digestOf(bytes), lint: digestOf(plan) })) }),
    notAfter: notAfter.toISOString(),
    requestedBy: "alice",
    reason: name,
  };
  const { digest, note } = stated(members);
  return {
    kind: "ceremony",
    leaf: leafOf({
      type: "ceremony.opened",
      at,
      actor: person("alice"),
      subject: { ceremony: digest, ...(withKey ? { keyId: key } : {}) },
      data: { kind, note, ...(planned ? { plan: base64(plan) } : {}) },
    }),
    row: {
      digest,
      id: members.id,
      kind,
      keyId: withKey ? key : null,
      proposer: "alice",
      note,
      notAfter,
      createdAt: at,
    },
    objects: [...(planned ? [plan] : []), ...tbs],
  };
}

export function ceremonyState(
  { row }: Item<"ceremony">,
  state: CeremonyState,
): Item<"ceremony-state"> {
  const ended = ["published", "locked", "applied", "rejected", "aborted", "expired", "failed"];
  return {
    kind: "ceremony-state",
    leaf: leafOf({
      type: ended.includes(state) ? "ceremony.closed" : "ceremony.step",
      at,
      actor: service,
      subject: { ceremony: row.digest },
      data: { state },
    }),
    ceremony: row.digest,
    state,
  };
}

export function approval(
  { row: { digest } }: Item<"ceremony">,
  operator: string,
  verdict: "approve" | "reject" = "approve",
): Item<"approval"> {
  const said = signed({
    type: "countersign/approval/v1",
    ceremony: digest,
    verdict,
    operator,
    role: "officer",
    ...(verdict === "reject" ? { reason: "no" } : {}),
  });
  return {
    kind: "approval",
    leaf: leafOf({
      type: "approval.accepted",
      at,
      actor: person(operator),
      subject: { ceremony: digest },
      data: { verdict, role: "officer" },
      evidence: evidenceOf(said),
    }),
    row: { ceremony: digest, operator, verdict, role: "officer", at, ...said },
  };
}

export function abort({ row: { digest } }: Item<"ceremony">, operator: string): Item<"abort"> {
  const said = signed({
    type: "countersign/abort/v1",
    ceremony: digest,
    operator,
    reason: "a typing error",
  });
  return {
    kind: "abort",
    leaf: leafOf({
      type: "ceremony.step",
      at,
      actor: person(operator),
      subject: { ceremony: digest },
      data: { state: "abort-asked", reason: "a typing error" },
      evidence: evidenceOf(said),
    }),
    row: { ceremony: digest, operator, ...said },
  };
}

export function unlock(
  name: string,
  { row }: Item<"ceremony">,
  set: Item<"share-set">,
): Item<"unlock"> {
  const { keyId: key, epoch, digest: shareSet } = set.row;
  const gatherSeconds = 86_400;
  const members = {
    type: "countersign/unlock/v1",
    id: hex(`unlock ${name}`, 32),
    ceremony: row.digest,
    keyId: key,
    epoch,
    shareSet,
    gatherSeconds,
  };
  const { digest, note } = stated(members);
  return {
    kind: "unlock",
    leaf: leafOf({
      type: "unlock.opened",
      at,
      actor: person("alice"),
      subject: { ceremony: row.digest, unlock: digest, keyId: key, epoch },
      data: { note },
    }),
    row: {
      digest,
      id: members.id,
      ceremony: row.digest,
      keyId: key,
      shareSet,
      note,
      expiresAt: new Date(at.getTime() + gatherSeconds * 1000),
    },
  };
}

export function unlockState({ row, leaf }: Item<"unlock">, state: UnlockEnd): Item<"unlock-state"> {
  return {
    kind: "unlock-state",
    leaf: leafOf({
      type: "unlock.closed",
      at,
      actor: service,
      subject: subjectOf(leaf),
      data: { state },
    }),
    unlock: row.digest,
    state,
  };
}

export function submission(
  { row, leaf }: Item<"unlock">,
  operator: string,
  index: number | "refuse",
): Item<"submission"> {
  const verdict = index === "refuse" ? "refuse" : "give";
  const said = signed({
    type: "countersign/submission/v1",
    unlock: row.digest,
    verdict,
    operator,
    ...(index === "refuse" ? { reason: "no" } : { share: { index, file: row.digest } }),
  });
  const common = {
    at,
    actor: person(operator),
    subject: subjectOf(leaf),
    evidence: evidenceOf(said),
  };
  return {
    kind: "submission",
    leaf: leafOf(
      index === "refuse"
        ? { type: "share.refused", ...common, data: { verdict: "refuse" } }
        : { type: "share.accepted", ...common, data: { index, quorum: 1, threshold: 2 } },
    ),
    row: { unlock: row.digest, operator, verdict, at, ...said },
  };
}

function subjectOf(leaf: Uint8Array) {
  const entry = JSON.parse(Buffer.from(leaf).toString()) as {
    subject: { ceremony: string; unlock: string; keyId: string; epoch: number };
  };
  return entry.subject;
}

/** A seal for alice, bob and carol, any two of whom open it. `sealed` and the files can be searched for. */
export function shareSet({ row }: Item<"ceremony">, epoch: number, key = keyId): Item<"share-set"> {
  const name = `${row.digest} ${epoch} ${key}`;
  const noise = (what: string) =>
    Buffer.concat(
      Array.from({ length: 20 }, (_, part) => hash("sha256", `${what} ${part} ${name}`, "buffer")),
    );
  const sealed = Buffer.concat([Buffer.from("CSKB\x01\x01"), noise("sealed")]);
  const shares = ["alice", "bob", "carol"].map((operator, place) => {
    const file = Buffer.concat([Buffer.from("age-encryption.org/v1\n"), noise(operator)]);
    return { index: place + 1, operator, file, fileSha256: digestOf(file) };
  });
  const { digest, note } = stated({
    type: "countersign/share-set/v1",
    keyId: key,
    epoch,
    threshold: 2,
    shareCount: 3,
    sealed: digestOf(sealed),
    custodians: shares.map(({ index, operator, fileSha256: file }) => ({ index, operator, file })),
    plan: name,
  });
  return {
    kind: "share-set",
    leaf: leafOf({
      type: "key.generated",
      at,
      actor: { kind: "keeper", id: "ca.example.com" },
      subject: { ceremony: row.digest, keyId: key, epoch, shareSet: digest },
      data: { note },
    }),
    row: { digest, keyId: key, epoch, ceremony: row.digest, note, sealed },
    shares,
    ceremonyState: "pending",
  };
}

const setSubject = ({ row: { keyId: key, epoch, digest } }: Item<"share-set">) => ({
  keyId: key,
  epoch,
  shareSet: digest,
});

export function confirmed(set: Item<"share-set">, index: number): Item<"share-confirmed"> {
  const { operator } = set.shares[index - 1]!;
  const confirmation = signed({
    type: "countersign/confirmation/v1",
    shareSet: set.row.digest,
    index,
    operator,
  });
  return {
    kind: "share-confirmed",
    leaf: leafOf({
      type: "share.confirmed",
      at,
      actor: person(operator),
      subject: setSubject(set),
      data: { index },
      evidence: evidenceOf(confirmation),
    }),
    shareSet: set.row.digest,
    index,
    confirmation,
  };
}

export function proved(set: Item<"share-set">, index: number): Item<"share-proved"> {
  const { operator } = set.shares[index - 1]!;
  return {
    kind: "share-proved",
    leaf: leafOf({
      type: "share.drill",
      at,
      actor: person(operator),
      subject: setSubject(set),
      data: { index },
      evidence: evidenceOf(signed({ type: "countersign/drill/v1", index, operator })),
    }),
    shareSet: set.row.digest,
    index,
    at,
  };
}

export function activated(set: Item<"share-set">): Item<"share-set-activated"> {
  return {
    kind: "share-set-activated",
    leaf: leafOf({
      type: "share-set.activated",
      at,
      actor: service,
      subject: setSubject(set),
      data: {},
    }),
    shareSet: set.row.digest,
    ceremonyState: "applied",
  };
}

export function dropped(set: Item<"share-set">): Item<"share-set-dropped"> {
  return {
    kind: "share-set-dropped",
    leaf: leafOf({
      type: "ceremony.closed",
      at,
      actor: service,
      subject: { ceremony: set.row.ceremony },
      data: { state: "aborted" },
    }),
    shareSet: set.row.digest,
    ceremonyState: "aborted",
  };
}

export function roster(
  version: number,
  brought?: { by: Item<"ceremony">; approvals: readonly Item<"approval">[] },
): Item<"roster"> {
  const document = octets({ type: "countersign/roster/v1", version });
  const digest = digestOf(document);
  const signatures = ["alice", "bob"].map((operator) => ({
    operator,
    signature: signed({ operator, version }).signature,
  }));
  return {
    kind: "roster",
    leaf: leafOf({
      type: "roster.changed",
      at,
      actor: service,
      subject: {},
      data: {
        version,
        roster: digest,
        document: base64(document),
        signatures,
        ...(brought && { ceremony: brought.by.row.digest }),
      },
    }),
    row: {
      version,
      digest,
      document,
      evidence: {
        signatures,
        ...(brought && {
          ceremony: {
            note: brought.by.row.note,
            approvals: brought.approvals.map(({ row: { statement, signature } }) => ({
              statement,
              signature,
            })),
          },
        }),
      },
    },
  };
}

export function enrolment(name: string, changes: Partial<EnrolmentRow> = {}): EnrolmentRow {
  return {
    id: hex(`enrolment ${name}`, 32),
    operator: name,
    keys: ["ssh-ed25519 AAAA"],
    recipient: `age1${hex(name, 58)}`,
    ...signed({ type: "countersign/enrolment/v1", operator: name }),
    challenge: Buffer.from(`age-encryption.org/v1\n${name}`),
    challengeSha256: `sha256:${hex(name, 64)}`,
    createdAt: at,
    ...changes,
  };
}

/** Two TBS, as far as anybody here looks. */
export const tbs = [Buffer.from("the first TBS"), Buffer.from("the second TBS")] as const;

/** Something of everything: a key that is dealt, used, dealt anew, and a roster that changes. */
export function story(prefix = "") {
  const key = prefix === "" ? keyId : hash("sha256", prefix);
  const generate = ceremony(`${prefix}generate`, "generate", { key });
  const first = shareSet(generate, 1, key);
  const sign = ceremony(`${prefix}sign`, "sign", { key, tbs });
  const signing = unlock(`${prefix}sign`, sign, first);
  const window = ceremony(`${prefix}window`, "window", { key });
  const windowing = unlock(`${prefix}window`, window, first);
  const reshare = ceremony(`${prefix}reshare`, "reshare", { key });
  const resharing = unlock(`${prefix}reshare`, reshare, first);
  const second = shareSet(reshare, 2, key);
  const given = ceremony(`${prefix}given up`, "reshare", { key });
  const third = shareSet(given, 3, key);
  const waiting = ceremony(`${prefix}waiting`, "reshare", { key });
  const fourth = shareSet(waiting, 3, key);
  const people = ceremony(`${prefix}roster`, "roster", { key });
  const agreed = [approval(people, "alice"), approval(people, "bob")];
  const open = ceremony(`${prefix}open`, "window", { key });
  const opening = unlock(`${prefix}open`, open, second);
  const items: CustodyItem[] = [
    roster(1),
    generate,
    approval(generate, "alice"),
    approval(generate, "bob"),
    approval(generate, "carol"),
    first,
    ...[1, 2, 3].map((index) => confirmed(first, index)),
    activated(first),
    proved(first, 2),
    sign,
    approval(sign, "dora"),
    signing,
    submission(signing, "alice", 1),
    submission(signing, "carol", "refuse"),
    ceremonyState(sign, "unlocking"),
    unlockState(signing, "opened"),
    ceremonyState(sign, "unlocked"),
    ceremonyState(sign, "signed"),
    window,
    windowing,
    unlockState(windowing, "ended"),
    abort(window, "alice"),
    ceremonyState(window, "aborted"),
    reshare,
    resharing,
    ceremonyState(reshare, "unlocking"),
    unlockState(resharing, "opened"),
    second,
    ...[3, 2, 1].map((index) => confirmed(second, index)),
    activated(second),
    proved(second, 1),
    given,
    ceremonyState(given, "unlocking"),
    third,
    confirmed(third, 1),
    dropped(third),
    waiting,
    ceremonyState(waiting, "unlocking"),
    fourth,
    confirmed(fourth, 2),
    people,
    ...agreed,
    roster(2, { by: people, approvals: agreed }),
    ceremonyState(people, "applied"),
    open,
    approval(open, "bob", "reject"),
    opening,
  ];
  return {
    items,
    ceremonies: { generate, sign, window, reshare, given, waiting, people, open },
    unlocks: { signing, windowing, resharing, opening },
    sets: { first, second, third, fourth },
  };
}
