import { expect, test } from "vitest";
import { canonicalJson, type Json } from "../../src/audit/canonical-json.ts";
import { encodeEntry, entryText, parseEntry, type LogEntry } from "../../src/audit/entry.ts";

const at = new Date("2026-11-21T20:05:01.123Z");
const keyId = "6feecc8c16c5551d9feb3eb5f77e2da773bf68bd9ef9c52927ceb2c86e56892b";
const digest = `sha256:${"ab".repeat(32)}`;
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
    type: "sign.intent",
    at,
    actor: { kind: "operator", id: "alice", via: "sshsig" },
    subject: { issuer: "issuing", keyId },
    data: { operation: "request", tbs: digest },
  },
  {
    type: "sign.done",
    at,
    actor: { kind: "operator", id: "alice", via: "sshsig" },
    subject: { issuer: "issuing", keyId },
    data: { intent: 7, request: digest },
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
    actor: { kind: "operator", id: "alice" },
    subject: {},
    data: { operators: [{ id: "alice", keys: ["ssh-ed25519 AAAA"] }] },
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
    type: "share.accepted",
    at,
    actor: { kind: "operator", id: "bob", via: "sshsig" },
    subject: { epoch: 7 },
    data: { index: 2 },
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
