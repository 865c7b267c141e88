import { expect, test } from "vitest";
import { compilePolicy, decide, refusalError, type Question } from "../../src/policy/decide.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import { canonicalNames } from "../../src/policy/name.ts";
import { credentialId, type Requester } from "../../src/policy/requester.ts";
import { randomIntegers } from "./random-integers.ts";

const key = (digit: string) => `sha256:${digit.repeat(64)}`;

const policy = parsePolicy(
  `version: 1
issuers:
  issuing:
    profiles: [server, narrow, none]
    names:
      dns:
        allow: ["subdomains:example.test", "exact:example.test", "wildcard:open.test"]
        deny: ["exact:admin.example.test", "subdomains:secret.example.test"]
      ip: { allow: ["10.0.0.0/8", "2001:db8::/32"], deny: ["10.0.0.0/24"] }
  other: { profiles: [narrow], names: {} }
  root: { profiles: [] }
profiles:
  server: { kind: server, lifetime: { default: 90d, maximum: 90d }, keyTypes: [P-256] }
  narrow: { kind: server, lifetime: { default: 90d, maximum: 90d }, keyTypes: [P-256], names: { dns: { allow: ["one-label:example.test"] } } }
  none: { kind: server, lifetime: { default: 90d, maximum: 90d }, keyTypes: [P-256], names: {} }
  unused: { kind: server, lifetime: { default: 90d, maximum: 90d }, keyTypes: [P-256] }
requesters:
  web:
    credentials: [{ kind: api-key, sha256: "${key("1")}" }]
    issuers: [issuing, root, other]
    profiles: [server, narrow, none, unused]
    revoke: own
    names:
      dns: { allow: ["subdomains:test", "wildcard:example.test", "wildcard:open.test"], deny: ["subdomains:db.example.test"] }
      ip: { allow: ["0.0.0.0/0"] }
  nobody: { credentials: [], issuers: [], profiles: [server], revoke: own, names: {} }
  idle: { credentials: [], issuers: [issuing], profiles: [], revoke: own, names: {} }
  prod.web: { credentials: [], issuers: [issuing], profiles: [server], revoke: own, names: { dns: { allow: [] } } }
`,
  "policy.yaml",
);
const compiled = compilePolicy(policy);

/** `dns` names unless an address is among them. */
function ask(values: string[], question: Partial<Question> = {}) {
  const names = values.map((value) => ({ kind: /^[\d.]+$|::/.test(value) ? "ip" : "dns", value }));
  return decide(compiled, {
    issuer: "issuing",
    profile: "server",
    requester: { name: "web" },
    names,
    ...question,
  });
}

test("a name that every rule set allows is allowed, and the rules are named", () => {
  expect(ask(["example.test", "a.example.test", "10.1.0.1"], {})).toEqual({
    verdict: "allow",
    rule: "requesters.web.names.dns.allow[0], requesters.web.names.ip.allow[0]",
    rules: [
      {
        name: { kind: "dns", value: "example.test" },
        rules: ["issuers.issuing.names.dns.allow[1]", "requesters.web.names.dns.allow[0]"],
      },
      {
        name: { kind: "dns", value: "a.example.test" },
        rules: ["issuers.issuing.names.dns.allow[0]", "requesters.web.names.dns.allow[0]"],
      },
      {
        name: { kind: "ip", value: "10.1.0.1" },
        rules: ["issuers.issuing.names.ip.allow[0]", "requesters.web.names.ip.allow[0]"],
      },
    ],
  });
});

test("a profile with rules of its own must agree too", () => {
  expect(ask(["a.example.test"], { profile: "narrow" })).toMatchObject({
    rules: [
      {
        rules: [
          "issuers.issuing.names.dns.allow[0]",
          "profiles.narrow.names.dns.allow[0]",
          "requesters.web.names.dns.allow[0]",
        ],
      },
    ],
  });
});

test("without names the profile's entry is the rule", () => {
  expect(ask([], { profile: "narrow" })).toEqual({
    verdict: "allow",
    rule: "requesters.web.profiles[1]",
    rules: [],
  });
});

test.for<{
  name: string;
  values?: string[];
  question?: Partial<Question>;
  code: string;
  rule: string;
  on?: string;
}>([
  {
    name: "an issuer that is not there",
    question: { issuer: "absent", requester: { name: "absent" } },
    code: "issuer-unknown",
    rule: "issuers",
  },
  {
    name: "an issuer that every object has",
    question: { issuer: "constructor" },
    code: "issuer-unknown",
    rule: "issuers",
  },
  {
    name: "a requester that is not there",
    question: { requester: { name: "absent" } },
    code: "requester-unknown",
    rule: "requesters",
  },
  {
    name: "a requester without issuers",
    question: { requester: { name: "nobody" } },
    code: "issuer-not-allowed",
    rule: "requesters.nobody.issuers",
  },
  {
    name: "a requester without profiles",
    question: { requester: { name: "idle" } },
    code: "profile-not-allowed",
    rule: "requesters.idle.profiles",
  },
  {
    name: "a profile that is not there",
    question: { profile: "absent" },
    code: "profile-not-allowed",
    rule: "requesters.web.profiles",
  },
  {
    name: "a profile that the issuer does not offer",
    question: { profile: "unused" },
    code: "profile-not-allowed",
    rule: "issuers.issuing.profiles",
  },
  {
    name: "an issuer without profiles",
    question: { issuer: "root" },
    code: "profile-not-allowed",
    rule: "issuers.root.profiles",
  },
  {
    name: "an issuer without name rules",
    values: ["a.example.test"],
    question: { issuer: "other", profile: "narrow" },
    code: "name-refused",
    rule: "issuers.other.names.dns (no rules)",
    on: "a.example.test",
  },
  {
    name: "a name outside the frame that the requester allows",
    values: ["a.test"],
    code: "name-refused",
    rule: "issuers.issuing.names.dns (no match)",
    on: "a.test",
  },
  {
    name: "a name that the frame denies",
    values: ["admin.example.test"],
    code: "name-refused",
    rule: "issuers.issuing.names.dns.deny[0]",
    on: "admin.example.test",
  },
  {
    name: "a name that the requester denies",
    values: ["a.db.example.test"],
    code: "name-refused",
    rule: "requesters.web.names.dns.deny[0]",
    on: "a.db.example.test",
  },
  {
    name: "a wildcard that stands for a denied name",
    values: ["*.example.test"],
    code: "name-refused",
    rule: "issuers.issuing.names.dns.deny[0]",
    on: "*.example.test",
  },
  {
    name: "a wildcard that only ordinary patterns would match",
    values: ["*.a.example.test"],
    code: "name-refused",
    rule: "issuers.issuing.names.dns (no match)",
    on: "*.a.example.test",
  },
  {
    name: "a name that the profile does not allow",
    values: ["b.a.example.test"],
    question: { profile: "narrow" },
    code: "name-refused",
    rule: "profiles.narrow.names.dns (no match)",
    on: "b.a.example.test",
  },
  {
    name: "a kind that the profile has no rules for",
    values: ["10.1.0.1"],
    question: { profile: "narrow" },
    code: "name-refused",
    rule: "profiles.narrow.names.ip (no rules)",
    on: "10.1.0.1",
  },
  {
    name: "any name in a profile whose names are empty",
    values: ["a.example.test"],
    question: { profile: "none" },
    code: "name-refused",
    rule: "profiles.none.names.dns (no rules)",
    on: "a.example.test",
  },
  {
    name: "a name for a requester with an empty list",
    values: ["a.example.test"],
    question: { requester: { name: "prod.web" } },
    code: "name-refused",
    rule: 'requesters["prod.web"].names.dns (no match)',
    on: "a.example.test",
  },
  {
    name: "an address that the frame denies",
    values: ["10.0.0.7"],
    code: "name-refused",
    rule: "issuers.issuing.names.ip.deny[0]",
    on: "10.0.0.7",
  },
  {
    name: "an IPv6 address for a requester of IPv4",
    values: ["2001:db8::1"],
    code: "name-refused",
    rule: "requesters.web.names.ip (no match)",
    on: "2001:db8::1",
  },
  {
    name: "one bad name among good ones",
    values: ["a.example.test", "b.example.test", "evil.test", "admin.example.test"],
    code: "name-refused",
    rule: "issuers.issuing.names.dns (no match)",
    on: "evil.test",
  },
])(
  "DESIGN 4: $name is refused, and the rule is named",
  ({ values = [], question, code, rule, on }) => {
    const decision = ask(values, question);
    expect(decision).toMatchObject({ verdict: "refuse", code, rule });
    if (decision.verdict !== "refuse") return;
    expect(decision.name?.value).toBe(on);
    expect(decision.detail).not.toBe("");
  },
);

test.for(["email", "uri", "cn", "directory", "other", "", "DNS", "__proto__", "constructor"])(
  "DESIGN 4: a name of the kind %j has no rules and is refused",
  (kind) => {
    expect(ask([], { names: [{ kind, value: "a.example.test" }] })).toMatchObject({
      verdict: "refuse",
      code: "name-refused",
      rule: expect.stringMatching(/^issuers\.issuing\.names.* \(no rules\)$/),
    });
  },
);

test.for([
  "A.example.test",
  "a.example.test.",
  "evil.test\0.example.test",
  "a_b.example.test",
  "evil.test/.example.test",
  "*.*.example.test",
  "a*.example.test",
  ".example.test",
  "..example.test",
  " a.example.test",
  "\u212A.example.test",
])(
  "DESIGN 4: %j is not canonical and is refused although a suffix rule would match it",
  (value) => {
    expect(ask([], { names: [{ kind: "dns", value }] })).toMatchObject({
      verdict: "refuse",
      code: "name-refused",
      rule: "names (not canonical)",
    });
  },
);

test.for(["010.1.0.1", "::ffff:10.1.0.1", "::ffff:a01:1", "10.1.0.1/8", "10.1.0.1\0"])(
  "DESIGN 4: the address %j is not canonical and is refused",
  (value) => {
    expect(ask([], { names: [{ kind: "ip", value }] })).toMatchObject({
      verdict: "refuse",
      rule: "names (not canonical)",
    });
  },
);

test("a wildcard is allowed where a wildcard rule allows it and nothing below is denied", () => {
  expect(ask(["*.open.test"])).toMatchObject({
    verdict: "allow",
    rule: "requesters.web.names.dns.allow[2]",
  });
});

test("a refusal becomes an error with rule, name and kind", () => {
  const decision = ask(["evil.test"]);
  if (decision.verdict !== "refuse") throw new Error("allowed");
  expect(refusalError(decision)).toMatchObject({
    code: "name-refused",
    message:
      'the dns name "evil.test" is refused: no rule allows it (issuers.issuing.names.dns (no match))',
    members: { rule: "issuers.issuing.names.dns (no match)", name: "evil.test", kind: "dns" },
  });
});

test("DESIGN 4: adding a name never turns a refusal into an allowance", () => {
  const next = randomIntegers(4);
  const pool = canonicalNames(
    [
      "example.test",
      "a.example.test",
      "b.a.example.test",
      "admin.example.test",
      "*.open.test",
      "x.test",
    ].map((value) => ({ kind: "dns", value })),
  );
  for (let round = 0; round < 500; round++) {
    const names = pool.filter(() => next(2) === 0);
    const each = names.map((name) => ask([], { names: [name] }).verdict);
    expect(ask([], { names }).verdict).toBe(each.includes("refuse") ? "refuse" : "allow");
  }
});

const api: Requester = {
  name: "api",
  credentials: [{ kind: "api-key", sha256: key("2") }],
  issuers: ["issuing"],
  profiles: ["server"],
  names: { dns: { allow: ["exact:api.example.test"] } },
  revoke: "own",
};

test("requesters come, change and go", () => {
  const own = compilePolicy(policy, []);
  const question: Question = {
    issuer: "issuing",
    profile: "server",
    requester: api,
    names: [{ kind: "dns", value: "api.example.test" }],
  };
  const first = credentialId(api.credentials[0]!);
  expect(decide(own, question)).toMatchObject({ code: "requester-unknown" });
  expect(own.requesterWith(first)).toBeUndefined();

  own.updateRequester(api);
  expect(decide(own, question).verdict).toBe("allow");
  expect(own.requesterWith(first)).toBe(api);

  const changed: Requester = {
    ...api,
    credentials: [{ kind: "api-key", sha256: key("3") }],
    names: { dns: { allow: [] } },
  };
  own.updateRequester(changed);
  // The object that the caller still holds counts for nothing.
  expect(decide(own, question)).toMatchObject({ code: "name-refused" });
  expect(own.requesterWith(first)).toBeUndefined();
  expect(own.requesterWith(credentialId(changed.credentials[0]!))).toBe(changed);

  expect(own.removeRequester("api")).toBe(true);
  expect(own.removeRequester("api")).toBe(false);
  expect(decide(own, question)).toMatchObject({ code: "requester-unknown" });
  expect(own.requesterWith(credentialId(changed.credentials[0]!))).toBeUndefined();
});

test("of two requesters with one name the later counts, credentials included", () => {
  const own = compilePolicy(policy, [
    ...policy.requesters.values(),
    { ...api, name: "web", credentials: [] },
  ]);
  expect(own.requesterWith(`api-key:${key("1")}`)).toBeUndefined();
  expect(own.requesters.get("web")!.requester.credentials).toEqual([]);
});

test("a credential of another requester is refused and changes nothing", () => {
  const own = compilePolicy(policy);
  const taken: Requester = { ...api, credentials: [{ kind: "api-key", sha256: key("1") }] };
  expect(() => own.updateRequester(taken)).toThrow(
    expect.objectContaining({ code: "requester-exists" }),
  );
  expect(own.requesters.has("api")).toBe(false);
  expect(own.requesterWith(`api-key:${key("1")}`)!.name).toBe("web");
});

test("a requester that refers to what the policy no longer has is kept and refused", () => {
  const own = compilePolicy(policy, [{ ...api, issuers: ["gone"], profiles: ["gone"] }]);
  const question = { requester: api, profile: "gone", names: [] };
  expect(decide(own, { ...question, issuer: "gone" })).toMatchObject({ code: "issuer-unknown" });
  expect(decide(own, { ...question, issuer: "issuing" })).toMatchObject({
    code: "issuer-not-allowed",
  });
});
