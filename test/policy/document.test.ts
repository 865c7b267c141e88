import { expect, test } from "vitest";
import { CountersignError } from "../../src/errors.ts";
import {
  checkRequester,
  parsePolicy,
  policyFrame,
  policyJsonSchema,
  type Json,
} from "../../src/policy/document.ts";
import type { Requester } from "../../src/policy/requester.ts";

const KEY = `sha256:${"0a".repeat(32)}`;

const document = `version: 1
issuers:
  issuing:
    profiles: [server, client]
    names:
      dns: { allow: ["subdomains:Example.test", "exact:example.test"], deny: ["exact:admin.example.test"] }
      ip: { allow: ["10.0.0.0/8", "2001:DB8::1"] }
  root: { profiles: [] }
profiles:
  server:
    kind: server
    lifetime: { default: 90d, maximum: 1 year }
    backdate: 1m
    keyTypes: [P-256, RSA-2048]
  client:
    kind: client
    lifetime: { default: 24h, maximum: 24h }
    keyTypes: []
    names: { dns: { allow: [] } }
requesters:
  web:
    credentials:
      - { kind: api-key, sha256: "${KEY}" }
      - { kind: mtls, issuer: issuing, name: "dns:WEB.example.test" }
    issuers: [issuing]
    profiles: [server]
    names: { dns: { allow: ["subdomains:web.example.test"] } }
    revoke: own
`;

function problemsOf(text: string): CountersignError {
  try {
    parsePolicy(text, "policy.yaml");
  } catch (error) {
    if (error instanceof CountersignError) return error;
    throw error;
  }
  throw new Error("the document was accepted");
}

test("a policy is read with its names, lifetimes and defaults in one spelling", () => {
  const policy = parsePolicy(document, "policy.yaml");
  expect(policy).toEqual({
    version: 1,
    issuers: new Map([
      [
        "issuing",
        {
          profiles: ["server", "client"],
          names: {
            dns: {
              allow: ["subdomains:example.test", "exact:example.test"],
              deny: ["exact:admin.example.test"],
            },
            ip: { allow: ["10.0.0.0/8", "2001:db8::1/128"], deny: [] },
          },
        },
      ],
      ["root", { profiles: [], names: {} }],
    ]),
    profiles: new Map<string, unknown>([
      [
        "server",
        {
          kind: "server",
          lifetime: {
            default: { months: 0, seconds: 90 * 86_400 },
            maximum: { months: 12, seconds: 0 },
          },
          backdate: 60,
          keyTypes: ["P-256", "RSA-2048"],
        },
      ],
      [
        "client",
        {
          kind: "client",
          lifetime: {
            default: { months: 0, seconds: 86_400 },
            maximum: { months: 0, seconds: 86_400 },
          },
          backdate: 300,
          keyTypes: [],
          names: { dns: { allow: [], deny: [] } },
        },
      ],
    ]),
    requesters: new Map([
      [
        "web",
        {
          name: "web",
          credentials: [
            { kind: "api-key", sha256: KEY },
            { kind: "mtls", issuer: "issuing", name: "dns:web.example.test" },
          ],
          issuers: ["issuing"],
          profiles: ["server"],
          names: { dns: { allow: ["subdomains:web.example.test"], deny: [] } },
          revoke: "own",
        },
      ],
    ]),
  });
});

test("JSON is read as YAML is", () => {
  const json = `{"version":1,
\t"issuers":{"root":{"profiles":[]}},
\t"profiles":{}}`;
  expect(parsePolicy(json, "policy.json")).toEqual({
    version: 1,
    issuers: new Map([["root", { profiles: [], names: {} }]]),
    profiles: new Map(),
    requesters: new Map(),
  });
});

test("an anchor may be used again", () => {
  const text = document
    .replace("profiles: [server, client]", "profiles: &all [server, client]")
    .replace("profiles: [server]\n", "profiles: *all\n");
  expect(parsePolicy(text, "policy.yaml").requesters.get("web")!.profiles).toEqual([
    "server",
    "client",
  ]);
});

test.for<{ name: string; from: string; to: string; says: string | RegExp }>([
  {
    name: "an unknown key",
    from: "    revoke: own",
    to: "    revoke: own\n    colour: red",
    says: "policy.yaml:29:5: requesters.web.colour: is not known here: known are credentials, issuers, profiles, names, revoke",
  },
  {
    name: "an unknown kind of name",
    from: "ip: {",
    to: "email: {",
    says: "policy.yaml:7:7: issuers.issuing.names.email: is not known here: known are dns, ip",
  },
  {
    name: "a missing field",
    from: "    revoke: own\n",
    to: "",
    says: "policy.yaml:21:3: requesters.web.revoke: is missing",
  },
  {
    name: "a requester without names",
    from: '    names: { dns: { allow: ["subdomains:web.example.test"] } }\n',
    to: "",
    says: "policy.yaml:21:3: requesters.web.names: is missing",
  },
  {
    name: "an issuer with profiles and without names",
    from: "root: { profiles: [] }",
    to: "root: { profiles: [client] }",
    says: /^policy\.yaml:8:3: issuers\.root\.names: is missing: say which names/,
  },
  {
    name: "rules that only deny",
    from: "ip: { allow: [",
    to: "ip: { deny: [",
    says: "policy.yaml:7:7: issuers.issuing.names.ip.allow: is missing",
  },
  {
    name: "another version",
    from: "version: 1",
    to: "version: 2",
    says: "policy.yaml:1:10: version: must be 1",
  },
  {
    name: "an issuer id in upper case",
    from: "  root:",
    to: "  Root:",
    says: "policy.yaml:8:3: issuers.Root: must be 1 to 63 of a-z, 0-9 and hyphen",
  },
  {
    name: "a requester name with a blank",
    from: "  web:",
    to: "  web server:",
    says: /^policy\.yaml:21:3: requesters\["web server"\]: must be 1 to 63 of/,
  },
  {
    name: "an unknown profile",
    from: "profiles: [server, client]",
    to: "profiles: [server, clint]",
    says: 'policy.yaml:4:24: issuers.issuing.profiles[1]: there is no profile "clint": known are server, client',
  },
  {
    name: "a profile twice",
    from: "profiles: [server, client]",
    to: "profiles: [server, server]",
    says: /^policy\.yaml:4:24: issuers\.issuing\.profiles\[1\]: "server" is in this list already, in place \[0\]/,
  },
  {
    name: "an unknown issuer of a requester",
    from: "issuers: [issuing]",
    to: "issuers: [isuing]",
    says: 'policy.yaml:25:15: requesters.web.issuers[0]: there is no issuer "isuing": known are issuing, root',
  },
  {
    name: "an issuer that a prototype has",
    from: "issuers: [issuing]",
    to: "issuers: [constructor]",
    says: /there is no issuer "constructor"/,
  },
  {
    name: "an unknown profile of a requester",
    from: "profiles: [server]",
    to: "profiles: [peer]",
    says: /^policy\.yaml:26:16: requesters\.web\.profiles\[0\]: there is no profile "peer"/,
  },
  {
    name: "an unknown issuer of a credential",
    from: "mtls, issuer: issuing",
    to: "mtls, issuer: other",
    says: /^policy\.yaml:24:31: requesters\.web\.credentials\[1\]\.issuer: there is no issuer "other"/,
  },
  {
    name: "a credential of an unknown kind",
    from: "kind: api-key",
    to: "kind: password",
    says: 'policy.yaml:23:17: requesters.web.credentials[0].kind: must have the kind "api-key" or "mtls"',
  },
  {
    name: "the digest of a key in upper case",
    from: KEY,
    to: KEY.toUpperCase().replace("SHA", "sha"),
    says: /credentials\[0\]\.sha256: must be sha256: and 64 lower-case hex digits/,
  },
  {
    name: "a wildcard as the name of a credential",
    from: "dns:WEB.example.test",
    to: "dns:*.example.test",
    says: /credentials\[1\]\.name: a wildcard name identifies nobody/,
  },
  {
    name: "a malformed name of a credential",
    from: "dns:WEB.example.test",
    to: "dns:w_b.example.test",
    says: /credentials\[1\]\.name: the name "w_b\.example\.test" has "_"/,
  },
  {
    name: "a pattern without prefix",
    from: '"exact:example.test"',
    to: "example.test",
    says: /^policy\.yaml:6:49: issuers\.issuing\.names\.dns\.allow\[1\]: "example\.test" has more than one reading: write exact:/,
  },
  {
    name: "a pattern with a blank after its prefix",
    from: '"exact:example.test"',
    to: "exact: example.test",
    says: /^policy\.yaml:6:49: .*allow\[1\]: must be a text, not a map \(a ": " inside a text needs quotes or no space\)/,
  },
  {
    name: "a block with host bits",
    from: "10.0.0.0/8",
    to: "10.0.0.1/8",
    says: /^policy\.yaml:7:21: .*host bits set: write 10\.0\.0\.0\/8/,
  },
  {
    name: "a pattern that is there already in another spelling",
    from: '"exact:example.test"',
    to: '"subdomains:EXAMPLE.test"',
    says: /^policy\.yaml:6:49: .*allow\[1\]: is in this list already, in place \[0\]/,
  },
  {
    name: "a rule that another leaves nothing of",
    from: '["exact:admin.example.test"]',
    to: '["subdomains:a.test", "exact:example.test"]',
    says: "policy.yaml:6:49: issuers.issuing.names.dns.allow[1]: can never match: deny[1] (exact:example.test) refuses every name it allows",
  },
  {
    name: "a wildcard that stands for a denied name",
    from: '"exact:example.test"',
    to: '"wildcard:example.test"',
    says: "policy.yaml:6:49: issuers.issuing.names.dns.allow[1]: can never match: deny[0] (exact:admin.example.test) refuses every name it allows, since *.example.test stands for denied names too",
  },
  {
    name: "a default lifetime above the maximum",
    from: "default: 90d, maximum: 1 year",
    to: "default: 366d, maximum: 1 year",
    says: "policy.yaml:12:26: profiles.server.lifetime.default: 366d can be longer than the maximum of 1 year",
  },
  {
    name: "an ambiguous lifetime",
    from: "maximum: 1 year",
    to: "maximum: 12m",
    says: /^policy\.yaml:12:40: profiles\.server\.lifetime\.maximum: the lifetime "12m" is ambiguous/,
  },
  {
    name: "a lifetime without unit",
    from: "default: 90d",
    to: "default: 90",
    says: "policy.yaml:12:26: profiles.server.lifetime.default: must be a text, not a number",
  },
  {
    name: "backdating by months",
    from: "backdate: 1m",
    to: "backdate: 1 month",
    says: /^policy\.yaml:13:15: profiles\.server\.backdate: .*give days or less/,
  },
  {
    name: "an unknown key type",
    from: "[P-256, RSA-2048]",
    to: "[P-256, RSA-1024]",
    says: /^policy\.yaml:14:23: profiles\.server\.keyTypes\[1\]: must be "P-256" or .*"Ed25519"$/,
  },
  {
    name: "an unknown kind of profile",
    from: "kind: server",
    to: "kind: ca",
    says: 'policy.yaml:11:11: profiles.server.kind: must be "server" or "client" or "peer"',
  },
  {
    name: "a value left empty",
    from: "    profiles: [server]\n",
    to: "    profiles:\n",
    says: "policy.yaml:26:5: requesters.web.profiles: must be a list, not empty",
  },
  {
    name: "a key twice",
    from: "  root: {",
    to: "  issuing: {",
    says: "policy.yaml:8:3: this key is there already: keep one of the two",
  },
  {
    name: "a key twice, once as a number",
    from: "  root: { profiles: [] }",
    to: '  1: { profiles: [] }\n  "1": { profiles: [] }',
    says: "policy.yaml:9:3: this key is there already: keep one of the two",
  },
  {
    name: "a key that objects treat on their own",
    from: "  root: {",
    to: "  __proto__: {",
    says: "policy.yaml:8:3: the key __proto__ is not known here",
  },
  {
    name: "a key that is a list",
    from: "  root: {",
    to: "  ? [root]\n  : {",
    says: "policy.yaml:8:5: a key must be a plain text",
  },
  {
    name: "a merge key",
    from: "  root: { profiles: [] }",
    to: "  root: { <<: { profiles: [] } }",
    says: /issuers\.root\["<<"\]: is not known here/,
  },
  {
    name: "a tag",
    from: "issuers: [issuing]",
    to: "issuers: !!set {issuing}",
    says: /^policy\.yaml:25:14: is not YAML: Unresolved tag/,
  },
  {
    name: "an alias to nothing",
    from: "issuers: [issuing]",
    to: "issuers: *nothing",
    says: /^policy\.yaml:1:1: has aliases that cannot be followed/,
  },
  {
    name: "a second document",
    from: "profiles:\n  server:",
    to: "---\nprofiles:\n  server:",
    says: "policy.yaml:9:1: a second document begins here: a policy is one document",
  },
  {
    name: "broken YAML",
    from: "profiles: [server, client]",
    to: "profiles: [server, client",
    says: /^policy\.yaml:\d+:\d+: is not YAML: /,
  },
])("$name is refused with its place and what to write instead", ({ from, to, says }) => {
  expect(document).toContain(from);
  const error = problemsOf(document.replace(from, to));
  expect(error.code).toBe("policy-invalid");
  if (typeof says === "string") expect(error.message.split("\n")[0]).toBe(says);
  else expect(error.message.split("\n")).toContainEqual(expect.stringMatching(says));
});

test.for([
  { text: "", says: "policy.yaml:1:1: must be a map, not empty" },
  { text: "[]", says: "policy.yaml:1:1: must be a map, not a list" },
  { text: "policy", says: "policy.yaml:1:1: must be a map, not a text" },
  {
    text: "version: 1",
    says: "policy.yaml:1:1: issuers: is missing\npolicy.yaml:1:1: profiles: is missing",
  },
])("the document $text is refused", ({ text, says }) => {
  expect(problemsOf(text).message).toBe(says);
});

test("a version line of older YAML brings no merge keys back", () => {
  const text = document.replace("root: { profiles: [] }", "root: { <<: { profiles: [] } }");
  const directive = "%YAML 1.1\n---\n";
  expect(problemsOf(`${directive}${text}`).message).toContain('issuers.root["<<"]');
  expect(parsePolicy(`${directive}${document}`, "policy.yaml")).toEqual(
    parsePolicy(document, "policy.yaml"),
  );
});

test("aliases that multiply are refused", () => {
  const lines = ["version: 1", "a0: &a0 [x]"];
  for (let level = 1; level <= 8; level++) {
    const alias = `*a${level - 1}`;
    lines.push(`a${level}: &a${level} [${Array(10).fill(alias).join(", ")}]`);
  }
  expect(problemsOf(lines.join("\n")).message).toContain("aliases that cannot be followed");
});

test("all problems are told at once, in the order of the document", () => {
  const error = problemsOf(
    document
      .replace("10.0.0.0/8", "10.0.0.1/8")
      .replace("[server, client]", "[server, clint]")
      .replace("backdate: 1m", "backdate: soon"),
  );
  expect(error.message.split("\n").map((line) => line.split(" ")[0])).toEqual([
    "policy.yaml:4:24:",
    "policy.yaml:7:21:",
    "policy.yaml:13:15:",
  ]);
  expect(error.members).toMatchObject({ line: 4, column: 24, path: "issuers.issuing.profiles[1]" });
  expect(error.members["problems"]).toHaveLength(3);
});

test("a long list of problems is cut short", () => {
  const bad = Array.from({ length: 50 }, (_, index) => `n${index}.test`).join(", ");
  const error = problemsOf(document.replace('"exact:example.test"', bad));
  expect(error.message.split("\n")).toHaveLength(21);
  expect(error.message).toMatch(/\nand 30 more$/);
});

test("one credential belongs to one requester", () => {
  const again = document.slice(document.indexOf("  web:")).replace("  web:", "  mail:");
  const error = problemsOf(`${document}${again}`);
  expect(error.message.split("\n")).toEqual([
    expect.stringContaining("requesters.mail.credentials[0]: is a credential of web too"),
    expect.stringContaining("requesters.mail.credentials[1]: is a credential of web too"),
  ]);
});

function keysAscend(json: Json): boolean {
  if (typeof json !== "object" || json === null) return true;
  const keys = Array.isArray(json) ? [] : Object.keys(json);
  return keys.join() === keys.toSorted().join() && Object.values(json).every(keysAscend);
}

test("the frame is the policy without its requesters, frozen and in one order", () => {
  const frame = policyFrame(parsePolicy(document, "policy.yaml"));
  expect(frame).toEqual({
    version: 1,
    issuers: {
      issuing: {
        profiles: ["server", "client"],
        names: {
          dns: {
            allow: ["subdomains:example.test", "exact:example.test"],
            deny: ["exact:admin.example.test"],
          },
          ip: { allow: ["10.0.0.0/8", "2001:db8::1/128"], deny: [] },
        },
      },
      root: { profiles: [], names: {} },
    },
    profiles: {
      server: {
        kind: "server",
        lifetime: { default: "90 days", maximum: "1 year" },
        backdate: "1 minute",
        keyTypes: ["P-256", "RSA-2048"],
      },
      client: {
        kind: "client",
        lifetime: { default: "1 day", maximum: "1 day" },
        backdate: "5 minutes",
        keyTypes: [],
        names: { dns: { allow: [], deny: [] } },
      },
    },
  });
  expect(keysAscend(frame)).toBe(true);
  const frozen = (json: Json): boolean =>
    typeof json !== "object" ||
    json === null ||
    (Object.isFrozen(json) && Object.values(json).every(frozen));
  expect(frozen(frame)).toBe(true);
});

test("documents that mean the same have the same frame, and others have not", () => {
  const frameText = (text: string) => JSON.stringify(policyFrame(parsePolicy(text, "policy.yaml")));
  const frame = frameText(document);
  for (const [from, to] of [
    ["subdomains:Example.test", "subdomains:example.TEST"],
    ["1 year", "12 months"],
    ["24h", "1d"],
    ["kind: client", "kind: client\n    backdate: 5m"],
    ["revoke: own", "revoke: any"],
    ["  root: { profiles: [] }", "  root: { profiles: [], names: {} }"],
  ] as const) {
    expect(document).toContain(from);
    expect(frameText(document.replace(from, to)), from).toBe(frame);
  }
  expect(frameText(document.slice(0, document.indexOf("requesters:")))).toBe(frame);
  for (const [from, to] of [
    ["backdate: 1m", "backdate: 2m"],
    ["    names: { dns: { allow: [] } }\n", ""],
    [", deny: [", ", deny: [exact:b.example.test, "],
    ["keyTypes: []", "keyTypes: [P-384]"],
    ["profiles: [server, client]", "profiles: [server]"],
  ] as const) {
    expect(document).toContain(from);
    expect(frameText(document.replace(from, to)), from).not.toBe(frame);
  }
});

test("the JSON Schema closes every object and describes the patterns", () => {
  const schema = policyJsonSchema() as Record<string, never>;
  expect(schema).toMatchObject({
    type: "object",
    additionalProperties: false,
    required: ["version", "issuers", "profiles"],
    properties: {
      requesters: {
        additionalProperties: {
          additionalProperties: false,
          required: expect.arrayContaining(["names"]),
        },
      },
    },
  });
  const text = JSON.stringify(schema);
  for (const word of ["subdomains:host", "one-label:host", "wildcard:host", "P-384", "keyTypes"]) {
    expect(text).toContain(word);
  }
});

test("a requester that a statement brings must name what the frame has", () => {
  const policy = parsePolicy(document, "policy.yaml");
  const web = policy.requesters.get("web")!;
  checkRequester(policy, web);
  const wrong: Requester = { ...web, name: "a.b", issuers: ["issuing", "x"], profiles: ["y"] };
  expect(() => checkRequester(policy, wrong)).toThrow(
    expect.objectContaining({
      code: "policy-invalid",
      members: {
        path: 'requesters["a.b"].issuers[1]',
        problems: [
          'requesters["a.b"].issuers[1]: there is no issuer "x": known are issuing, root',
          'requesters["a.b"].profiles[0]: there is no profile "y": known are server, client',
        ],
      },
    }),
  );
});
