import { expect, test } from "vitest";
import { canonicalJson, type Json } from "../../src/audit/canonical-json.ts";
import { encodeEntry, entryText, parseEntry, type LogEntry } from "../../src/audit/entry.ts";

const at = new Date("2026-11-21T20:05:01.123Z");
const keyId = "6feecc8c16c5551d9feb3eb5f77e2da773bf68bd9ef9c52927ceb2c86e56892b";
const digest = `sha256:${"ab".repeat(32)}`;
const alice = { kind: "operator", id: "alice", via: "sshsig" } as const;
const evidence = { statement: "AAEC", signature: "AAEC" };
const unlocking = { ceremony: digest, unlock: digest, keyId, epoch: 7 };
const requester = { kind: "requester", id: "deploy", via: "api-key" } as const;

const intent: LogEntry = {
  type: "sign.intent",
  at,
  actor: requester,
  subject: { issuer: "issuing", keyId, serialNumber: "00ff" },
  data: {
    operation: "certificate",
    tbs: digest,
    profile: "server",
    csr: digest,
    policy: digest,
    rule: "requesters.deploy",
    warnings: ["CRT-40"],
  },
};

test("AUDIT 9.2: a leaf is the canonical JSON of the record", () => {
  expect(Buffer.from(encodeEntry(intent)).toString()).toBe(
    `{"actor":{"id":"deploy","kind":"requester","via":"api-key"},"at":"2026-11-21T20:05:01.123Z",` +
      `"data":{"csr":"${digest}","operation":"certificate","policy":"${digest}","profile":"server",` +
      `"rule":"requesters.deploy","tbs":"${digest}","warnings":["CRT-40"]},` +
      `"subject":{"issuer":"issuing","keyId":"${keyId}","serialNumber":"00ff"},"type":"countersign/sign.intent/v1"}`,
  );
});

test.for<LogEntry>([
  intent,
  {
    type: "log.started",
    at,
    actor: { kind: "service", id: "ca.example.com" },
    subject: {},
    data: { origin: "ca.example.com/audit" },
  },
  {
    type: "sign.done",
    at,
    actor: requester,
    subject: { issuer: "issuing", keyId },
    data: { intent: 7, crl: digest, number: "12" },
  },
  {
    type: "sign.abandoned",
    at,
    actor: requester,
    subject: { issuer: "issuing", keyId },
    data: { intent: 0, reason: "key-locked" },
  },
  {
    type: "sign.refused",
    at,
    actor: requester,
    subject: { issuer: "issuing" },
    data: { code: "name-refused", rule: "deny 1", name: "café.example" },
  },
  {
    type: "certificate.revoked",
    at,
    actor: { kind: "certificate", id: digest, via: "possession" },
    subject: { issuer: "issuing", keyId, serialNumber: "01" },
    data: { reason: "keyCompromise", revocationDate: at.toISOString() },
    evidence: { statement: "AAEC", signature: "AAEC" },
  },
  {
    type: "crl.published",
    at,
    actor: { kind: "service", id: "s" },
    subject: { issuer: "issuing", keyId },
    data: { number: "12", crl: digest },
  },
  {
    type: "policy.changed",
    at,
    actor: { kind: "operator", id: "alice", via: "sshsig" },
    subject: {},
    data: { requester: "deploy", action: "set", sequence: 1 },
    evidence: {
      statement: "AAEC",
      signature: "-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\nAAAA\n-----END SSH SIGNATURE-----\n",
    },
  },
  {
    type: "roster.changed",
    at,
    actor: { kind: "service", id: "s" },
    subject: {},
    data: {
      version: 2,
      roster: digest,
      document: "e30=",
      signatures: [{ operator: "alice", signature: "AAEC" }],
      ceremony: digest,
    },
  },
  {
    type: "access.denied",
    at,
    actor: { kind: "service", id: "s" },
    subject: {},
    data: { count: 3, since: at.toISOString() },
  },
  { type: "key.opened", at, actor: { kind: "keeper", id: "k" }, subject: { keyId } },
  {
    type: "key.held",
    at,
    actor: { kind: "keeper", id: "k" },
    subject: { keyId },
    data: { reason: "asked" },
  },
  {
    type: "ceremony.opened",
    at,
    actor: alice,
    subject: { ceremony: digest, keyId },
    data: { kind: "reshare", note: "{}\n\n— k AAAA\n", plan: "e30=" },
  },
  {
    type: "ceremony.step",
    at,
    actor: alice,
    subject: { ceremony: digest },
    data: { state: "abort-asked", reason: "a typing error" },
    evidence,
  },
  {
    type: "ceremony.closed",
    at,
    actor: { kind: "service", id: "s" },
    subject: { ceremony: digest },
    data: { state: "expired" },
  },
  {
    type: "approval.accepted",
    at,
    actor: alice,
    subject: { ceremony: digest },
    data: { verdict: "approve", role: "officer" },
    evidence,
  },
  {
    type: "approval.refused",
    at,
    actor: alice,
    subject: { ceremony: digest },
    data: { code: "approval-stale" },
    evidence,
  },
  {
    type: "unlock.opened",
    at,
    actor: alice,
    subject: unlocking,
    data: { note: "{}\n\n— k AAAA\n" },
  },
  {
    type: "share.accepted",
    at,
    actor: { kind: "operator", id: "bob", via: "sshsig" },
    subject: unlocking,
    data: { index: 2, quorum: 2, threshold: 3 },
    evidence,
  },
  {
    type: "share.refused",
    at,
    actor: alice,
    subject: unlocking,
    data: { code: "share-wrong", index: 1 },
    evidence,
  },
  {
    type: "unlock.closed",
    at,
    actor: { kind: "keeper", id: "k" },
    subject: unlocking,
    data: { state: "ended", reason: "restart" },
  },
  {
    type: "key.unlocked",
    at,
    actor: { kind: "service", id: "s" },
    subject: { ceremony: digest, keyId },
    data: { kind: "sign", people: ["alice", "bob"] },
  },
  {
    type: "key.locked",
    at,
    actor: alice,
    subject: { keyId, unlock: digest, ceremony: digest },
    data: { reason: "asked" },
    evidence,
  },
  {
    type: "key.generated",
    at,
    actor: { kind: "keeper", id: "k" },
    subject: { ceremony: digest, keyId, epoch: 7, shareSet: digest },
    data: { note: "{}\n\n— k AAAA\n" },
  },
  {
    type: "share.confirmed",
    at,
    actor: alice,
    subject: { keyId, epoch: 7, shareSet: digest },
    data: { index: 32 },
    evidence,
  },
  {
    type: "share.drill",
    at,
    actor: alice,
    subject: { keyId, epoch: 7, shareSet: digest },
    data: { index: 1 },
    evidence,
  },
  {
    type: "share-set.activated",
    at,
    actor: { kind: "service", id: "s" },
    subject: { keyId, epoch: 7, shareSet: digest },
    data: { previous: digest },
  },
  { type: "panic", at, actor: alice, subject: {}, data: { reason: "stolen laptop" }, evidence },
  { type: "resume", at, actor: { kind: "service", id: "s" }, subject: { ceremony: digest } },
  {
    type: "alert",
    at,
    actor: { kind: "service", id: "s" },
    subject: { unlock: digest, keyId },
    data: { code: "share-not-yours", operator: "bob" },
  },
])("AUDIT 9.2: $type is read as it was written", (entry) => {
  expect(parseEntry(encodeEntry(entry))).toEqual(entry);
});

test.for<{ name: string; change: Record<string, Json> }>([
  { name: "an unknown type", change: { type: "countersign/sign.everything/v1" } },
  { name: "a type of another version", change: { type: "countersign/sign.intent/v2" } },
  { name: "a type without a prefix", change: { type: "sign.intent" } },
  { name: "a type that an object inherits", change: { type: "countersign/constructor/v1" } },
  { name: "an unknown member", change: { note: "x" } },
  {
    name: "an unknown member of the subject",
    change: { subject: { issuer: "i", keyId, owner: "x" } },
  },
  {
    name: "an unknown member of data",
    change: { data: { operation: "certificate", tbs: digest, extra: 1 } },
  },
  { name: "a missing member of data", change: { data: { operation: "certificate" } } },
  { name: "another operation", change: { data: { operation: "ocsp", tbs: digest } } },
  {
    name: "a digest without its prefix",
    change: { data: { operation: "crl", tbs: "ab".repeat(32) } },
  },
  {
    name: "a digest in capitals",
    change: { data: { operation: "crl", tbs: `sha256:${"AB".repeat(32)}` } },
  },
  {
    name: "a serial number of 21 octets",
    change: { subject: { issuer: "i", keyId, serialNumber: "01".repeat(21) } },
  },
  {
    name: "a serial number of half an octet",
    change: { subject: { issuer: "i", keyId, serialNumber: "123" } },
  },
  { name: "a time without milliseconds", change: { at: "2026-11-21T20:05:01Z" } },
  { name: "a time with an offset", change: { at: "2026-11-21T20:05:01.123+00:00" } },
  { name: "a day that does not exist", change: { at: "2026-02-30T20:05:01.123Z" } },
  { name: "an actor without an id", change: { actor: { kind: "service", id: "" } } },
  { name: "an unknown kind of actor", change: { actor: { kind: "root", id: "x" } } },
  { name: "a subject that is a list", change: { subject: [] } },
  {
    name: "evidence that is not base64",
    change: { evidence: { statement: "??", signature: "AAEC" } },
  },
  { name: "evidence without a signature", change: { evidence: { statement: "AAEC" } } },
])("AUDIT 9.2: $name is refused", ({ change }) => {
  const document = {
    ...(JSON.parse(Buffer.from(encodeEntry(intent)).toString()) as Record<string, Json>),
    ...change,
  };
  expect(() => parseEntry(Buffer.from(canonicalJson(document)))).toThrow(SyntaxError);
});

/** What stands in the record of a share that was taken. */
const taken = {
  type: "countersign/share.accepted/v1",
  at: at.toISOString(),
  actor: alice,
  subject: unlocking,
  data: { index: 2, quorum: 2, threshold: 3 },
  evidence,
};

test.for<{ name: string; document: Record<string, Json>; says: RegExp }>([
  {
    name: "a share without what its custodian signed",
    document: { ...taken, evidence: undefined as unknown as Json },
    says: /evidence is missing/,
  },
  {
    name: "a share of index 0",
    document: { ...taken, data: { ...taken.data, index: 0 } },
    says: /data\.index/,
  },
  {
    name: "a share of index 33",
    document: { ...taken, data: { ...taken.data, index: 33 } },
    says: /data\.index/,
  },
  {
    name: "a share of epoch 0",
    document: { ...taken, subject: { ...unlocking, epoch: 0 } },
    says: /subject\.epoch/,
  },
  {
    name: "a share with its text",
    document: { ...taken, data: { ...taken.data, share: "CSSHARE1" } },
    says: /unknown member data\.share/,
  },
  {
    name: "a statement of the keeper with somebody's signature",
    document: {
      ...taken,
      type: "countersign/unlock.opened/v1",
      data: { note: "{}" },
    },
    says: /unknown member evidence/,
  },
  {
    name: "a ceremony of an unknown kind",
    document: {
      ...taken,
      type: "countersign/ceremony.opened/v1",
      subject: { ceremony: digest },
      data: { kind: "rehearsal", note: "{}" },
      evidence: undefined as unknown as Json,
    },
    says: /data\.kind/,
  },
  {
    name: "a ceremony that closes because an abort was asked for",
    document: {
      ...taken,
      type: "countersign/ceremony.closed/v1",
      subject: { ceremony: digest },
      data: { state: "abort-asked" },
    },
    says: /data\.state/,
  },
])("AUDIT 9.2: $name is refused", ({ document, says }) => {
  const { evidence: given, ...rest } = document;
  const read = () =>
    parseEntry(
      Buffer.from(canonicalJson(given === undefined ? rest : { ...rest, evidence: given })),
    );
  expect(read).toThrow(SyntaxError);
  expect(read).toThrow(says);
});

test("AUDIT 9.2: what would be refused when it is read is not written", () => {
  const bad = { ...intent, subject: { issuer: "issuing", keyId: "short" } } as LogEntry;
  expect(() => encodeEntry(bad)).toThrow(/subject\.keyId is not a key id/);
  expect(() => encodeEntry({ ...intent, type: "toString" } as unknown as LogEntry)).toThrow(
    TypeError,
  );
  expect(() =>
    encodeEntry({
      ...intent,
      data: { operation: "crl", tbs: digest, number: "1", extra: 1 },
    } as unknown as LogEntry),
  ).toThrow(TypeError);
  const fraction = {
    type: "access.denied",
    at,
    actor: requester,
    subject: {},
    data: { count: 0.5, since: at.toISOString() },
  } as const;
  expect(() => encodeEntry(fraction)).toThrow(TypeError);
});

test("AUDIT 9.2: a leaf that is not canonical is refused", () => {
  const leaf = Buffer.from(encodeEntry(intent)).toString();
  expect(() => parseEntry(Buffer.from(`${leaf}\n`))).toThrow(SyntaxError);
  expect(() => parseEntry(Buffer.from(leaf.replace('"actor":', '"actor": ')))).toThrow(SyntaxError);
  expect(() => parseEntry(Buffer.from("[]"))).toThrow(SyntaxError);
});

test("ST-77: a leaf of 65,535 octets is written, one of 65,536 is refused", () => {
  const withName = (length: number): LogEntry => ({
    type: "sign.refused",
    at,
    actor: requester,
    subject: { issuer: "issuing" },
    data: { code: "name-refused", name: "x".repeat(length) },
  });
  const overhead = encodeEntry(withName(1)).length - 1;
  const longest = encodeEntry(withName(65_535 - overhead));
  expect(longest.length).toBe(65_535);
  expect(parseEntry(longest)).toEqual(withName(65_535 - overhead));
  expect(() => encodeEntry(withName(65_536 - overhead))).toThrow(RangeError);
});

test.for([
  { name: "ordinary text stays", outside: "a.example", want: "a.example" },
  { name: "half a pair is replaced", outside: "a\ud800", want: "a\ufffd" },
  { name: "nothing is named", outside: "", want: "(empty)" },
  { name: "long text is cut", outside: "x".repeat(5000), want: `${"x".repeat(1023)}…` },
  {
    name: "a pair is not cut in two",
    outside: `${"x".repeat(1023)}\u{1f600}y`,
    want: `${"x".repeat(1023)}…`,
  },
])("entryText: $name", ({ outside, want }) => {
  expect(entryText(outside)).toBe(want);
});
