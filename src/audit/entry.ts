/** The records of the log: closed JSON documents whose canonical bytes are the leaves of the tree. */

import { canonicalJson, parseCanonicalJson, type Json, type JsonObject } from "./canonical-json.ts";
import { MAX_ENTRY_LENGTH } from "./tiles.ts";

/** Who did it, as whoever the credential showed them to be. */
export interface Actor {
  readonly kind: "requester" | "operator" | "service" | "keeper" | "certificate";
  readonly id: string;
  /** Absent for what the service and the keeper do by themselves. */
  readonly via?: "api-key" | "mtls" | "session" | "sshsig" | "possession";
}

/** What a person or a key holder signed, so that the record can be checked without anybody's database. */
export interface Evidence {
  /** Base64 of the bytes that were signed. */
  readonly statement: string;
  /** An SSH signature as `ssh-keygen` writes it, or base64 of another signature. */
  readonly signature: string;
}

/** One member of a payload: what it accepts, in code and in words. `type` is only for the compiler. */
interface Field<Value extends Json, Optional extends boolean> {
  readonly accepts: (value: Json) => boolean;
  readonly wanted: string;
  readonly optional: Optional;
  readonly type?: Value;
}

type Fields = Readonly<Record<string, Field<Json, boolean>>>;

interface Payload {
  readonly subject: Fields;
  readonly data: Fields;
  /** Whether it comes with evidence, always or never; absent where it may. */
  readonly evidence?: boolean;
}

function field<Value extends Json>(
  wanted: string,
  accepts: (value: Json) => boolean,
): Field<Value, false> {
  return { accepts, wanted, optional: false };
}

function optional<Value extends Json>({
  accepts,
  wanted,
}: Field<Value, false>): Field<Value, true> {
  return { accepts, wanted, optional: true };
}

function matching(wanted: string, pattern: RegExp): Field<string, false> {
  return field(wanted, (value) => typeof value === "string" && pattern.test(value));
}

function oneOf<const Value extends string>(...values: readonly Value[]): Field<Value, false> {
  const known = new Set<Json>(values);
  return field(`one of ${values.join(", ")}`, (value) => known.has(value));
}

function listOf<Value extends Json>(element: Field<Value, false>): Field<readonly Value[], false> {
  return field(
    `a list, each ${element.wanted}`,
    (value) => Array.isArray(value) && value.every((item: Json) => element.accepts(item)),
  );
}

function object<const Members extends Fields>(members: Members): Field<Values<Members>, false> {
  return field("an object", (value) => problem("", members, value) === undefined);
}

const text = field<string>(
  "a text that is not empty",
  (value) => typeof value === "string" && value !== "",
);
const digest = matching("a SHA-256 digest: sha256: and 64 hex digits", /^sha256:[0-9a-f]{64}$/);
const keyId = matching("a key id: 64 hex digits", /^[0-9a-f]{64}$/);
const serialNumber = matching("a serial number: 1 to 20 octets in hex", /^(?:[0-9a-f]{2}){1,20}$/);
/** RFC 5280 §5.2.3: a CRL number has at most 20 octets. */
const crlNumber = matching("a decimal number", /^(?:0|[1-9][0-9]{0,48})$/);
const index = field<number>("an index", (value) => typeof value === "number" && value >= 0);
const time = field<string>("a time with milliseconds, RFC 3339, UTC", isTime);
const reason = oneOf(
  "unspecified",
  "keyCompromise",
  "cACompromise",
  "affiliationChanged",
  "superseded",
  "cessationOfOperation",
  "certificateHold",
  "removeFromCRL",
  "privilegeWithdrawn",
  "aACompromise",
);

const base64Text = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const base64 = matching("base64", base64Text);
const epoch = field<number>("an epoch, from 1", (value) => typeof value === "number" && value >= 1);
const shareIndex = field<number>(
  "the index of a share, 1 to 32",
  (value) => typeof value === "number" && value >= 1 && value <= 32,
);

const signed = { issuer: text, keyId, serialNumber: optional(serialNumber) };
const key = { subject: { keyId }, data: { reason: optional(text) } };

/** CUSTODY.md 6.1. */
const ceremonyKind = oneOf(
  "sign",
  "window",
  "generate",
  "reshare",
  "roster",
  "policy",
  "resume",
  "retire",
);
/** CUSTODY.md 6.2; `draft` and `previewed` come before there is anything to record. */
export const ceremonyStates = [
  "gathering",
  "unlocking",
  "unlocked",
  "pending",
  "signed",
  "verified",
  "published",
  "locked",
  "applied",
  "rejected",
  "aborted",
  "expired",
  "failed",
] as const;
/** `ceremony` and `unlock` are digests of statements, `shareSet` of a share set. */
const ofCeremony = { ceremony: digest };
const ofUnlock = { ceremony: digest, unlock: digest, keyId, epoch };
const ofShareSet = { keyId, epoch, shareSet: digest };

/** The payloads that are specified. `subject` is what the record is about, `data` what is said of it. */
const payloads = {
  "log.started": { subject: {}, data: { origin: text } },
  "sign.intent": {
    subject: signed,
    data: {
      operation: oneOf("certificate", "crl", "request"),
      tbs: digest,
      profile: optional(text),
      csr: optional(digest),
      policy: optional(digest),
      rule: optional(text),
      number: optional(crlNumber),
      warnings: optional(listOf(text)),
    },
  },
  "sign.done": {
    subject: signed,
    data: {
      intent: index,
      certificate: optional(digest),
      crl: optional(digest),
      /** Of a CertificationRequest. */
      request: optional(digest),
      number: optional(crlNumber),
    },
  },
  "sign.abandoned": { subject: signed, data: { intent: index, reason: text } },
  "sign.refused": {
    subject: {
      issuer: text,
      keyId: optional(keyId),
      serialNumber: optional(serialNumber),
      profile: optional(text),
    },
    data: { code: text, rule: optional(text), name: optional(text) },
  },
  "certificate.revoked": {
    subject: { issuer: text, keyId, serialNumber },
    data: { reason, revocationDate: time, invalidityDate: optional(time) },
  },
  "crl.published": { subject: { issuer: text, keyId }, data: { number: crlNumber, crl: digest } },
  "policy.changed": {
    subject: {},
    data: {
      policy: optional(digest),
      requester: optional(text),
      action: optional(oneOf("set", "remove")),
      sequence: optional(index),
    },
  },
  "roster.changed": {
    subject: {},
    data: {
      version: epoch,
      roster: digest,
      document: base64,
      signatures: listOf(object({ operator: text, signature: text })),
      ceremony: optional(digest),
    },
    evidence: false,
  },
  "access.denied": { subject: {}, data: { count: index, since: time } },
  "key.opened": key,
  "key.locked": {
    subject: { keyId, unlock: optional(digest), ceremony: optional(digest) },
    data: { reason: optional(text) },
  },
  "key.held": key,
  "ceremony.opened": {
    subject: { ceremony: digest, keyId: optional(keyId) },
    data: {
      kind: ceremonyKind,
      note: text,
      plan: optional(base64),
      /** Of a roster: those of its new keys. */
      signatures: optional(listOf(object({ operator: text, signature: text }))),
    },
    evidence: false,
  },
  "ceremony.step": {
    subject: ofCeremony,
    // What one person asked for changes no state, nor does what a dealer is about to do.
    data: { state: oneOf(...ceremonyStates, "abort-asked", "dealing"), reason: optional(text) },
  },
  "ceremony.closed": {
    subject: ofCeremony,
    data: { state: oneOf(...ceremonyStates), reason: optional(text) },
  },
  "approval.accepted": {
    subject: ofCeremony,
    data: { verdict: oneOf("approve", "reject"), role: text },
    evidence: true,
  },
  "approval.refused": { subject: ofCeremony, data: { code: text }, evidence: true },
  "unlock.opened": { subject: ofUnlock, data: { note: text }, evidence: false },
  "share.accepted": {
    subject: ofUnlock,
    data: { index: shareIndex, quorum: index, threshold: index },
    evidence: true,
  },
  /** `verdict` for whoever refuses, `code` for a share that is refused. */
  "share.refused": {
    subject: ofUnlock,
    data: {
      code: optional(text),
      index: optional(shareIndex),
      verdict: optional(oneOf("refuse")),
    },
    evidence: true,
  },
  "unlock.closed": {
    subject: ofUnlock,
    data: { state: oneOf("opened", "refused", "expired", "ended"), reason: optional(text) },
    evidence: false,
  },
  /** A key without a seal is unlocked without an unlock. */
  "key.unlocked": {
    subject: { ceremony: digest, unlock: optional(digest), keyId, epoch: optional(epoch) },
    data: { kind: ceremonyKind, people: listOf(text) },
    evidence: false,
  },
  "key.generated": {
    subject: { ...ofCeremony, ...ofShareSet },
    data: { note: text },
    evidence: false,
  },
  "share.confirmed": { subject: ofShareSet, data: { index: shareIndex }, evidence: true },
  "share.drill": { subject: ofShareSet, data: { index: shareIndex }, evidence: true },
  "share-set.activated": {
    subject: ofShareSet,
    data: { previous: optional(digest) },
    evidence: false,
  },
  panic: { subject: {}, data: { reason: text }, evidence: true },
  resume: { subject: ofCeremony, data: {}, evidence: false },
  alert: {
    subject: {
      ceremony: optional(digest),
      unlock: optional(digest),
      keyId: optional(keyId),
      epoch: optional(epoch),
      shareSet: optional(digest),
    },
    data: { code: text, operator: optional(text) },
  },
} as const satisfies Record<string, Payload>;

/** Known types whose payload is not specified yet: any object. */
const openTypes = [
  "crl.alarm",
  "revocation.backdated",
  "certificate.imported",
  "grant.changed",
  "key.retired",
  "export",
  "recovery",
] as const;

type Payloads = typeof payloads;
type ValueOf<F> = F extends Field<infer Value, boolean> ? Value : never;
type OptionalNames<F extends Fields> = {
  [Name in keyof F]: F[Name]["optional"] extends true ? Name : never;
}[keyof F];
type Values<F extends Fields> = {
  readonly [Name in Exclude<keyof F, OptionalNames<F>>]: ValueOf<F[Name]>;
} & { readonly [Name in OptionalNames<F>]?: ValueOf<F[Name]> };

/** A type, without its prefix `countersign/` and its version `/v1`. */
export type LogEntryType = keyof Payloads | (typeof openTypes)[number];

type EvidenceOf<Type extends LogEntryType> = Type extends keyof Payloads
  ? Payloads[Type] extends { readonly evidence: true }
    ? { readonly evidence: Evidence }
    : Payloads[Type] extends { readonly evidence: false }
      ? { readonly evidence?: never }
      : { readonly evidence?: Evidence }
  : { readonly evidence?: Evidence };

/** A record of one type. */
export type LogEntryOf<Type extends LogEntryType> = {
  readonly type: Type;
  readonly at: Date;
  readonly actor: Actor;
} & EvidenceOf<Type> &
  (Type extends keyof Payloads
    ? { readonly subject: Values<Payloads[Type]["subject"]> } & (object extends Values<
        Payloads[Type]["data"]
      >
        ? { readonly data?: Values<Payloads[Type]["data"]> }
        : { readonly data: Values<Payloads[Type]["data"]> })
    : { readonly subject: JsonObject; readonly data?: JsonObject });

/** A record. Its place in the log is not part of it: the tree says where it stands. */
export type LogEntry = { [Type in LogEntryType]: LogEntryOf<Type> }[LogEntryType];

const known = new Map<string, Payload | "open">([
  ...Object.entries(payloads),
  ...openTypes.map((type) => [type, "open"] as const),
]);

const actorFields: Fields = {
  kind: oneOf("requester", "operator", "service", "keeper", "certificate"),
  id: text,
  via: optional(oneOf("api-key", "mtls", "session", "sshsig", "possession")),
};

const sshSignature =
  /^-----BEGIN SSH SIGNATURE-----\r?\n(?:[A-Za-z0-9+/=]+\r?\n)+-----END SSH SIGNATURE-----(?:\r?\n)?$/;

const evidenceFields: Fields = {
  statement: base64,
  signature: field(
    "an SSH signature or base64",
    (value) =>
      typeof value === "string" &&
      value !== "" &&
      (base64Text.test(value) || sshSignature.test(value)),
  ),
};

/**
 * The leaf of a record.
 *
 * Text that comes from outside can be long, and can hold half of a surrogate pair: pass it through
 * {@link entryText}.
 *
 * @throws TypeError if a member is missing, unknown or not what its type wants: what is appended stays for ever.
 * @throws RangeError if the leaf has more than 65,535 octets.
 */
export function encodeEntry(entry: LogEntry): Uint8Array {
  const payload = known.get(entry.type);
  if (payload === undefined) {
    throw new TypeError(`no record has the type ${String(entry.type)}`);
  }
  // The members by name, so that none besides them is written.
  const document: Record<string, Json> = {
    type: `countersign/${entry.type}/v1`,
    at: entry.at.toISOString(),
    actor: entry.actor as unknown as JsonObject,
    subject: entry.subject as JsonObject,
  };
  if (entry.data !== undefined) {
    document.data = entry.data as JsonObject;
  }
  if (entry.evidence !== undefined) {
    document.evidence = entry.evidence as unknown as JsonObject;
  }
  const wrong = entryProblem(payload, document);
  if (wrong !== undefined) {
    throw new TypeError(`${entry.type}: ${wrong}`);
  }
  const leaf = Buffer.from(canonicalJson(document));
  if (leaf.length > MAX_ENTRY_LENGTH) {
    throw new RangeError(
      `a record has at most ${MAX_ENTRY_LENGTH} octets, this one ${leaf.length}`,
    );
  }
  return leaf;
}

/**
 * Reads a leaf.
 *
 * @throws SyntaxError if it is not canonical JSON, of an unknown type, or has a member that its type does not.
 */
export function parseEntry(leaf: Uint8Array): LogEntry {
  if (leaf.length > MAX_ENTRY_LENGTH) {
    throw new SyntaxError(
      `a record has at most ${MAX_ENTRY_LENGTH} octets, this one ${leaf.length}`,
    );
  }
  const document = parseCanonicalJson(leaf);
  if (!isObject(document)) {
    throw new SyntaxError("a record is an object");
  }
  const type =
    typeof document.type === "string"
      ? /^countersign\/([a-z.-]+)\/v1$/.exec(document.type)?.[1]
      : undefined;
  const payload = type === undefined ? undefined : known.get(type);
  if (type === undefined || payload === undefined) {
    throw new SyntaxError(`unknown type ${JSON.stringify(document.type)}`);
  }
  const wrong = entryProblem(payload, document);
  if (wrong !== undefined) {
    throw new SyntaxError(`${type}: ${wrong}`);
  }
  return { ...document, type, at: new Date(document.at as string) } as unknown as LogEntry;
}

/** Text from outside as a record can hold it: well-formed Unicode, at most 1,024 characters, never empty. */
export function entryText(outside: string): string {
  const wellFormed = outside.replaceAll(/\p{Surrogate}/gu, "\ufffd");
  const short =
    wellFormed.length <= 1024
      ? wellFormed
      : `${wellFormed.slice(0, 1023).replace(/\p{Surrogate}$/u, "")}…`;
  return short === "" ? "(empty)" : short;
}

const names = new Set(["type", "at", "actor", "subject", "data", "evidence"]);

/** What is wrong with a record whose type is known. */
function entryProblem(payload: Payload | "open", document: JsonObject): string | undefined {
  for (const name of Object.keys(document)) {
    if (!names.has(name)) {
      return `unknown member ${name}`;
    }
  }
  if (!isTime(document.at ?? null)) {
    return `at is not ${time.wanted}`;
  }
  const { actor, subject, data, evidence } = document;
  if (payload === "open") {
    return (
      problem("actor", actorFields, actor) ??
      (isObject(subject) ? undefined : "subject is not an object") ??
      (data === undefined || isObject(data) ? undefined : "data is not an object") ??
      (evidence === undefined ? undefined : problem("evidence", evidenceFields, evidence))
    );
  }
  return (
    problem("actor", actorFields, actor) ??
    problem("subject", payload.subject, subject) ??
    // Absent data is data without members.
    problem("data", payload.data, data === undefined ? {} : data) ??
    (evidence === undefined
      ? payload.evidence === true
        ? "evidence is missing"
        : undefined
      : payload.evidence === false
        ? "unknown member evidence"
        : problem("evidence", evidenceFields, evidence))
  );
}

function problem(where: string, fields: Fields, value: Json | undefined): string | undefined {
  if (!isObject(value)) {
    return `${where} is not an object`;
  }
  for (const name of Object.keys(value)) {
    if (!Object.hasOwn(fields, name)) {
      return `unknown member ${where}.${name}`;
    }
  }
  for (const name in fields) {
    const { accepts, wanted, optional } = fields[name]!;
    const member = value[name];
    if (member === undefined ? !optional : !accepts(member)) {
      return member === undefined
        ? `${where}.${name} is missing`
        : `${where}.${name} is not ${wanted}`;
    }
  }
  return undefined;
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `2026-11-21T20:05:01.123Z`, and a day that exists. */
function isTime(value: Json): boolean {
  if (typeof value !== "string" || value.length !== 24) {
    return false;
  }
  const milliseconds = Date.parse(value);
  return !Number.isNaN(milliseconds) && new Date(milliseconds).toISOString() === value;
}
