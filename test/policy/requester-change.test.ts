import { expect, test } from "vitest";
import { compilePolicy } from "../../src/policy/decide.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import { applyRecorded, checkChange, requesterNameOf } from "../../src/policy/requester-change.ts";
import type { Requester, RequesterStatement } from "../../src/policy/requester.ts";

const policy = parsePolicy(
  `version: 1
issuers:
  issuing: { profiles: [server], names: { dns: { allow: ["subdomains:example.test"] } } }
profiles:
  server: { kind: server, lifetime: { default: 30d, maximum: 90d }, keyTypes: [P-256] }
`,
  "policy.yaml",
);

function requester(name: string, digit: string, change: Partial<Requester> = {}): Requester {
  return {
    name,
    credentials: [{ kind: "api-key", sha256: `sha256:${digit.repeat(64)}` }],
    issuers: ["issuing"],
    profiles: ["server"],
    names: {},
    revoke: "own",
    ...change,
  };
}

const common = {
  type: "countersign/requester/v1",
  operator: "alice",
  at: "2026-11-21T20:03:00Z",
  sequence: 1,
  previous: null,
  log: { size: 0, root: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" },
} as const;
const set = (entry: Requester): RequesterStatement => ({
  ...common,
  action: "set",
  requester: entry,
});
const remove = (name: string): RequesterStatement => ({ ...common, action: "remove", name });

const opened = () => compilePolicy(policy, [requester("web", "1"), requester("api", "2")]);
const ownerOf = (compiled: ReturnType<typeof opened>, digit: string): string | undefined =>
  compiled.requesterWith(`api-key:sha256:${digit.repeat(64)}`)?.name;

test.for<{ name: string; statement: RequesterStatement; code?: string }>([
  { name: "a new requester", statement: set(requester("new", "3")) },
  { name: "a requester with its own credential", statement: set(requester("web", "1")) },
  { name: "a removal", statement: remove("web") },
  {
    name: "a credential of another requester",
    statement: set(requester("web", "2")),
    code: "requester-exists",
  },
  { name: "the removal of nobody", statement: remove("nobody"), code: "requester-unknown" },
  {
    name: "an unknown issuer",
    statement: set(requester("new", "3", { issuers: ["gone"] })),
    code: "policy-invalid",
  },
  {
    name: "a pattern that cannot be read",
    statement: set(requester("new", "3", { names: { dns: { allow: ["gone"] } } })),
    code: "policy-invalid",
  },
])("$name: $code, and asking changes nothing", ({ statement, code }) => {
  const compiled = opened();
  const check = () => checkChange(compiled, statement);
  if (code === undefined) expect(check).not.toThrow();
  else expect(check).toThrow(expect.objectContaining({ code }));
  expect([...compiled.requesters.keys()]).toEqual(["web", "api"]);
  expect(["1", "2", "3"].map((digit) => ownerOf(compiled, digit))).toEqual([
    "web",
    "api",
    undefined,
  ]);
});

test("a recorded statement that fits is in force", () => {
  const compiled = opened();
  expect(applyRecorded(compiled, set(requester("web", "3")))).toBeUndefined();
  expect(["1", "3"].map((digit) => ownerOf(compiled, digit))).toEqual([undefined, "web"]);
  expect(applyRecorded(compiled, remove("web"))).toBeUndefined();
  expect([...compiled.requesters.keys()]).toEqual(["api"]);
});

test("a recorded statement that does not fit leaves its requester without any rights, also its old ones", () => {
  const compiled = opened();
  expect(applyRecorded(compiled, set(requester("web", "2")))?.code).toBe("requester-exists");
  expect([...compiled.requesters.keys()]).toEqual(["api"]);
  expect(["1", "2"].map((digit) => ownerOf(compiled, digit))).toEqual([undefined, "api"]);
});

test("the recorded removal of who is not there is nothing to do", () => {
  const compiled = opened();
  expect(applyRecorded(compiled, remove("nobody"))).toBeUndefined();
  expect([...compiled.requesters.keys()]).toEqual(["web", "api"]);
});

test("a statement is about the requester that it names", () => {
  expect([set(requester("web", "1")), remove("api")].map(requesterNameOf)).toEqual(["web", "api"]);
});
