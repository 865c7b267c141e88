import { afterAll, beforeEach, expect, test } from "vitest";
import type { Caller } from "../../src/issuance/caller.ts";
import {
  apiKey,
  makePair,
  metricsKey,
  otherApiKey,
  requester,
  sha256,
  startSites,
} from "../support/http-sites.ts";

const { api, domain, close, sites } = await startSites();
const withoutMetrics = await startSites((parts) => {
  const { metricsKeySha256, ...others } = parts;
  expect(metricsKeySha256).toBeDefined();
  return others;
});
afterAll(async () => {
  await close();
  await withoutMetrics.close();
});
beforeEach(() => {
  domain.denied = 0;
  domain.commands.length = 0;
});

const path = "/v1/issuers/issuing/certificates";
const body = { profile: "server", csr: "any" };

test.for([
  { name: "no credentials", headers: {} },
  { name: "an unknown key", headers: { Authorization: `Bearer csk_${"A".repeat(43)}` } },
  { name: "a key with a character more", headers: { Authorization: `Bearer ${apiKey}A` } },
  { name: "a key without its prefix", headers: { Authorization: `Bearer ${apiKey.slice(4)}` } },
  { name: "an unknown session", headers: { Authorization: `Bearer css_${"A".repeat(43)}` } },
  { name: "the metrics key", headers: { Authorization: `Bearer ${metricsKey}` } },
  { name: "another scheme", headers: { Authorization: "Basic d2ViOndlYg==" } },
  { name: "the digest of a key", headers: { Authorization: `Bearer ${sha256(apiKey)}` } },
  { name: "an empty token", headers: { Authorization: "Bearer " } },
])("unauthenticated: $name", async ({ headers }) => {
  const answer = await api(path, { headers, body });
  expect(answer.status).toBe(401);
  expect(answer.headers["www-authenticate"]).toBe('Bearer realm="countersign"');
  expect(answer.json["code"]).toBe("unauthenticated");
  expect(domain.denied).toBe(1);
  expect(domain.commands).toEqual([]);
});

test("who has no credentials learns nothing of what is wrong with the request", async () => {
  const answer = await api(path, { body: { nonsense: true } });
  expect(answer.status).toBe(401);
  expect(answer.json["errors"]).toBeUndefined();
});

test("an API key is its requester", async () => {
  await api(path, { token: apiKey, body });
  expect(domain.commands[0]!.caller).toEqual({
    kind: "requester",
    id: "web",
    via: "api-key",
    requester,
  });
});

const client = makePair("client");

test.for<{ name: string; caller: Caller }>([
  { name: "of a requester", caller: { kind: "requester", id: "web", via: "mtls", requester } },
  {
    name: "of nobody in particular",
    caller: {
      kind: "certificate",
      id: `sha256:${sha256(client.der)}`,
      via: "mtls",
      issuer: "issuing",
      serialNumber: "00c0ffee",
    },
  },
])("a client certificate $name is looked up by what the handshake proved", async ({ caller }) => {
  domain.clients.set(sha256(client.der), caller);
  await api(path, { client, body });
  expect(domain.commands[0]!.caller).toEqual(caller);
});

test("a client certificate that was not issued here is refused", async () => {
  const answer = await api(path, { client: makePair("stranger"), body });
  expect(answer.status).toBe(401);
  expect(domain.denied).toBe(1);
});

test("wrong credentials are refused also where none are needed", async () => {
  expect((await api("/v1/status")).status).toBe(200);
  expect((await api("/v1/status", { token: `csk_${"A".repeat(43)}` })).status).toBe(401);
});

const operatorRoutes = sites.routes.filter(({ access }) => access === "operator");

test("forbidden: a requester has no way to what is for operators", async () => {
  expect(operatorRoutes.length).toBeGreaterThan(4);
  for (const { method, path: pattern } of operatorRoutes) {
    const answer = await api(pattern.replaceAll(/:[a-z]+/gi, "x"), { method, token: apiKey });
    expect([answer.status, answer.json["code"]]).toEqual([403, "forbidden"]);
  }
});

const guarded = sites.routes.filter(({ access }) => access === "caller" || access === "operator");

test("every route that is not for everybody refuses a stranger", async () => {
  for (const { method, path: pattern } of guarded) {
    const answer = await api(pattern.replaceAll(/:[a-z]+/gi, "x"), { method });
    expect([pattern, answer.status]).toEqual([pattern, 401]);
  }
});

test("the metrics key opens /metrics and nothing else", async () => {
  const metrics = await api("/metrics", { token: metricsKey });
  expect(metrics.status).toBe(200);
  expect(metrics.text).toContain('countersign_signatures_total{issuer="issuing"} 3');
  expect(metrics.text).toContain('countersign_part_state{part="key issuing",state="open"} 1');
  expect(metrics.text).toMatch(/countersign_http_requests_total\{.*\} \d/);
  for (const { method, path: pattern } of guarded) {
    const answer = await api(pattern.replaceAll(/:[a-z]+/gi, "x"), { method, token: metricsKey });
    expect(answer.status).toBe(401);
  }
});

test.for([
  { name: "nothing", token: undefined },
  { name: "an API key", token: apiKey },
  { name: "another requester's key", token: otherApiKey },
  { name: "a wrong key", token: metricsKey.replace("csm_", "csx_") },
])("$name does not open /metrics", async ({ token }) => {
  expect((await api("/metrics", { token })).status).toBe(401);
});

test("without a configured metrics key nobody reads /metrics", async () => {
  expect((await withoutMetrics.api("/metrics", { token: metricsKey })).status).toBe(401);
});
