import { expect, test } from "vitest";
import {
  credentialId,
  parseRequesterStatement,
  type Requester,
  type RequesterStatement,
} from "../../src/policy/requester.ts";

const digest = `sha256:${"0123456789abcdef".repeat(4)}`;

const web: Requester = {
  name: "web",
  credentials: [
    { kind: "api-key", sha256: digest },
    { kind: "mtls", issuer: "issuing", name: "uri:spiffe://example.test/web" },
  ],
  issuers: ["issuing"],
  profiles: ["server"],
  names: { dns: { allow: ["subdomains:example.test"], deny: [] } },
  revoke: "own",
};

const set = {
  type: "countersign/requester/v1",
  operator: "alice",
  at: "2026-11-21T20:03:00Z",
  sequence: 1,
  previous: null,
  action: "set",
  requester: web,
  log: { size: 3, root: "p5vUAZS2ZU1GBZ4VgKIVezvyXn7rgzyJJDmMmt04Vuo=" },
} as const satisfies RequesterStatement;

const { requester: _, ...common } = set;
const remove = {
  ...common,
  sequence: 2,
  previous: digest,
  action: "remove",
  name: "web",
} as const satisfies RequesterStatement;

test("a statement that sets or removes a requester is read", () => {
  expect(parseRequesterStatement(structuredClone(set))).toEqual(set);
  expect(parseRequesterStatement(structuredClone(remove))).toEqual(remove);
  const nothing = {
    name: "none",
    credentials: [],
    issuers: [],
    profiles: [],
    names: {},
    revoke: "any",
  };
  expect(parseRequesterStatement({ ...set, requester: nothing })).toEqual({
    ...set,
    requester: nothing,
  });
});

test("names of the entry come out in their one spelling", () => {
  const requester = {
    ...web,
    credentials: [{ kind: "mtls", issuer: "issuing", name: "ip:2001:DB8::0" }],
    names: { dns: { allow: ["exact:A.test"] }, ip: { allow: ["10.0.0.1"] } },
  };
  expect(parseRequesterStatement({ ...set, requester })).toMatchObject({
    requester: {
      credentials: [{ name: "ip:2001:db8::" }],
      names: {
        dns: { allow: ["exact:a.test"], deny: [] },
        ip: { allow: ["10.0.0.1/32"], deny: [] },
      },
    },
  });
});

const proto: unknown = JSON.parse(`{"__proto__": {}, ${JSON.stringify(set).slice(1)}`);
const entryWith = (change: object) => ({ ...set, requester: { ...web, ...change } });

test.for<{ name: string; json: unknown; path: string }>([
  { name: "nothing", json: null, path: "" },
  { name: "a list", json: [set], path: "" },
  { name: "another type", json: { ...set, type: "countersign/requester/v2" }, path: "type" },
  { name: "an unknown action", json: { ...set, action: "add" }, path: "action" },
  { name: "an unknown field", json: { ...set, reason: "x" }, path: "reason" },
  { name: "a field named __proto__", json: proto, path: "__proto__" },
  { name: "a missing field", json: { ...set, operator: undefined }, path: "operator" },
  { name: "both an entry and a name", json: { ...set, name: "web" }, path: "name" },
  { name: "a removal with an entry", json: { ...remove, requester: web }, path: "requester" },
  { name: "a removal without name", json: { ...remove, name: undefined }, path: "name" },
  { name: "an operator in upper case", json: { ...set, operator: "Alice" }, path: "operator" },
  { name: "a local time", json: { ...set, at: "2026-11-21T20:03:00" }, path: "at" },
  { name: "a time with offset", json: { ...set, at: "2026-11-21T20:03:00+01:00" }, path: "at" },
  { name: "a time without seconds", json: { ...set, at: "2026-11-21T20:03Z" }, path: "at" },
  { name: "a day that is not", json: { ...set, at: "2026-02-30T20:03:00Z" }, path: "at" },
  { name: "the sequence 0", json: { ...set, sequence: 0 }, path: "sequence" },
  { name: "half a sequence", json: { ...set, sequence: 1.5 }, path: "sequence" },
  { name: "a first one with predecessor", json: { ...set, previous: digest }, path: "previous" },
  { name: "a second one without predecessor", json: { ...set, sequence: 2 }, path: "previous" },
  {
    name: "a digest without prefix",
    json: { ...remove, previous: digest.slice(7) },
    path: "previous",
  },
  { name: "a negative log", json: { ...set, log: { ...set.log, size: -1 } }, path: "log.size" },
  {
    name: "a root of 31 octets",
    json: { ...set, log: { size: 3, root: "A".repeat(42) } },
    path: "log.root",
  },
  {
    name: "a root with bits after its end",
    json: { ...set, log: { size: 3, root: `${"A".repeat(42)}B=` } },
    path: "log.root",
  },
  {
    name: "an origin in the log",
    json: { ...set, log: { ...set.log, origin: "x" } },
    path: "log.origin",
  },
  { name: "a name with a blank", json: entryWith({ name: "a b" }), path: "requester.name" },
  {
    name: "a name that begins with a dot",
    json: entryWith({ name: ".a" }),
    path: "requester.name",
  },
  { name: "a name of 64", json: entryWith({ name: "a".repeat(64) }), path: "requester.name" },
  { name: "a name with a line end", json: entryWith({ name: "web\n" }), path: "requester.name" },
  {
    name: "an entry without names",
    json: entryWith({ names: undefined }),
    path: "requester.names",
  },
  { name: "another right to revoke", json: entryWith({ revoke: "all" }), path: "requester.revoke" },
  {
    name: "a pattern without prefix",
    json: entryWith({ names: { dns: { allow: ["example.test"] } } }),
    path: "requester.names.dns.allow[0]",
  },
  {
    name: "a list left empty",
    json: entryWith({ names: { dns: { allow: null } } }),
    path: "requester.names.dns.allow",
  },
  {
    name: "an issuer twice",
    json: entryWith({ issuers: ["issuing", "issuing"] }),
    path: "requester.issuers[1]",
  },
  {
    name: "a credential twice",
    json: entryWith({ credentials: [web.credentials[0], web.credentials[0]] }),
    path: "requester.credentials[1]",
  },
  {
    name: "the key itself in place of its digest",
    json: entryWith({ credentials: [{ kind: "api-key", sha256: "secret" }] }),
    path: "requester.credentials[0].sha256",
  },
  {
    name: "a credential of two kinds",
    json: entryWith({ credentials: [{ ...web.credentials[0], issuer: "issuing" }] }),
    path: "requester.credentials[0].issuer",
  },
  {
    name: "a name without kind",
    json: entryWith({ credentials: [{ kind: "mtls", issuer: "issuing", name: "web.test" }] }),
    path: "requester.credentials[0].name",
  },
])("ST-33: a statement with $name is malformed", ({ json, path }) => {
  expect(() => parseRequesterStatement(json)).toThrow(
    expect.objectContaining({
      code: "statement-malformed",
      members: expect.objectContaining({ path }),
    }),
  );
});

test("a key written in place of its digest is not repeated in the error", () => {
  const json = entryWith({ credentials: [{ kind: "api-key", sha256: "hunter2" }] });
  expect(() => parseRequesterStatement(json)).toThrow(/^(?!.*hunter2)/);
});

test("a credential is found by its kind and content", () => {
  expect(web.credentials.map(credentialId)).toEqual([
    `api-key:${digest}`,
    "mtls:issuing:uri:spiffe://example.test/web",
  ]);
});
