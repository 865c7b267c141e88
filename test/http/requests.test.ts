import { afterAll, afterEach, expect, test } from "vitest";
import { apiKey, startSites, type Asked } from "../support/http-sites.ts";

const { api, site, domain, close } = await startSites();
const brief = await startSites((parts) => ({ ...parts, deadlineMilliseconds: 20 }));
afterAll(async () => {
  await close();
  await brief.close();
});
afterEach(() => {
  domain.commands.length = 0;
});

const path = "/v1/issuers/issuing/certificates";
const good = { profile: "server", csr: "any" };
const json = { "Content-Type": "application/json" };

test.for<{ name: string; asked: Asked; path?: string; at: string }>([
  { name: "not JSON", asked: { headers: json, body: "{" }, at: "body" },
  {
    name: "not UTF-8",
    asked: { headers: json, body: Buffer.from([0x22, 0xff, 0x22]) },
    at: "body",
  },
  { name: "no body", asked: { method: "POST", headers: json }, at: "body" },
  { name: "an array", asked: { headers: json, body: "[]" }, at: "body" },
  { name: "an unknown field", asked: { body: { ...good, extra: 1 } }, at: "body.extra" },
  {
    name: "a field named __proto__",
    asked: { headers: json, body: '{"profile":"server","csr":"any","__proto__":{}}' },
    at: "body.__proto__",
  },
  { name: "a missing field", asked: { body: { csr: "any" } }, at: "body.profile" },
  { name: "a field of another type", asked: { body: { ...good, csr: 1 } }, at: "body.csr" },
  {
    name: "a parameter beside JSON",
    asked: { body: good },
    path: `${path}?profile=x`,
    at: "query.profile",
  },
  { name: "an unknown parameter", asked: { body: good }, path: `${path}?x=1`, at: "query.x" },
  {
    name: "a repeated parameter",
    asked: { headers: { "Content-Type": "application/pkcs10" }, body: "0" },
    path: `${path}?profile=a&profile=b`,
    at: "query.profile",
  },
  {
    name: "a raw CSR without a profile",
    asked: { headers: { "Content-Type": "application/pkcs10" }, body: "0" },
    at: "query.profile",
  },
  { name: "no media type", asked: { method: "POST", body: "{}" }, at: "header.Content-Type" },
  {
    name: "a form",
    asked: { headers: { "Content-Type": "application/x-www-form-urlencoded" }, body: "a=b" },
    at: "header.Content-Type",
  },
  {
    name: "another charset",
    asked: { headers: { "Content-Type": "application/json; charset=utf-16" }, body: "{}" },
    at: "header.Content-Type",
  },
  {
    name: "a compressed body",
    asked: { headers: { ...json, "Content-Encoding": "gzip" }, body: "{}" },
    at: "header.Content-Encoding",
  },
])("request-malformed names the place: $name", async ({ asked, path: other, at }) => {
  const answer = await api(other ?? path, { token: apiKey, ...asked });
  expect(answer.status).toBe(400);
  expect(answer.json["code"]).toBe("request-malformed");
  expect(answer.json["errors"]).toContainEqual({ path: at, message: expect.any(String) });
  expect(domain.commands).toEqual([]);
});

test("what was sent does not come back in the answer", async () => {
  const answer = await api(path, { token: apiKey, headers: json, body: "hunter2" });
  expect(answer.status).toBe(400);
  expect(answer.text).not.toContain("hunter2");
});

test.for([
  { name: "65,537 octets", octets: 65_537, chunked: false },
  { name: "65,537 octets without a length", octets: 65_537, chunked: true },
  { name: "a megabyte", octets: 1_048_576, chunked: false },
])("a body of more than 64 KiB is refused: $name", async ({ octets, chunked }) => {
  const answer = await api(path, {
    token: apiKey,
    headers: { ...json, ...(chunked ? { "Transfer-Encoding": "chunked" } : {}) },
    body: "x".repeat(octets),
  });
  expect(answer.status).toBe(413);
  expect(answer.json["code"]).toBe("request-too-large");
  expect(domain.commands).toEqual([]);
});

test("who goes on sending loses the connection", async () => {
  const answer = api(path, { token: apiKey, headers: json, body: "x".repeat(8_000_000) });
  // Whether the client still sees the answer depends on what it has in flight.
  const outcome = await answer.then(
    ({ status, headers }) => `${status} ${headers.connection}`,
    (error: NodeJS.ErrnoException) => error.code,
  );
  expect(["413 close", "ECONNRESET", "EPIPE"]).toContain(outcome);
  expect(domain.commands).toEqual([]);
});

test("a body of 64 KiB is read", async () => {
  const csr = "x".repeat(65_536 - JSON.stringify({ ...good, csr: "" }).length);
  const answer = await api(path, { token: apiKey, body: { ...good, csr } });
  expect(answer.status).toBe(201);
});

test.for([
  { path: "/", method: "GET" },
  { path: "/v1", method: "GET" },
  { path: "/v2/issuers", method: "GET" },
  { path: "/V1/issuers", method: "GET" },
  { path: "/v1/issuers/", method: "GET" },
  { path: "//v1/issuers", method: "GET" },
  { path: "/crl/issuing.crl", method: "GET" },
])("route-unknown: $path", async ({ path: unknown, method }) => {
  const answer = await api(unknown, { method, token: apiKey });
  expect(answer.status).toBe(404);
  expect(answer.json["code"]).toBe("route-unknown");
});

test("a path that cannot be decoded is no failure of ours", async () => {
  expect((await api("/v1/issuers/%zz", { token: apiKey })).json["code"]).toBe("issuer-unknown");
});

test.for([
  { path, method: "DELETE", allow: "GET, HEAD, POST" },
  { path: `${path}/00/revocation`, method: "PATCH", allow: "GET, HEAD, POST, PUT" },
  { path: "/healthz", method: "POST", allow: "GET, HEAD" },
])("method-not-allowed: $method $path", async ({ path: known, method, allow }) => {
  const answer = await api(known, { method, token: apiKey });
  expect(answer.status).toBe(405);
  expect(answer.headers.allow).toBe(allow);
  expect(answer.json["code"]).toBe("method-not-allowed");
});

test("the public site has nothing of the API", async () => {
  for (const hidden of ["/v1/issuers", "/v1/status", "/metrics", path]) {
    expect((await site(hidden, { token: apiKey })).status).toBe(404);
  }
});

test.for(["a".repeat(256), "", "a b", "ä", "a\tb"])(
  "idempotency-key-malformed: %j",
  async (key) => {
    const answer = await api(path, {
      token: apiKey,
      headers: { "Idempotency-Key": key },
      body: good,
    });
    expect(answer.status).toBe(400);
    expect(answer.json["code"]).toBe("idempotency-key-malformed");
    expect(domain.commands).toEqual([]);
  },
);

test("two Idempotency-Keys are none", async () => {
  const answer = await api(path, {
    token: apiKey,
    headers: { "Idempotency-Key": ["a", "b"] },
    body: good,
  });
  expect(answer.json["code"]).toBe("idempotency-key-malformed");
});

test("an Idempotency-Key stands for the body and the URL it went to", async () => {
  const headers = { "Idempotency-Key": "~".repeat(255), "Content-Type": "application/pkcs10" };
  for (const query of ["profile=a", "profile=b"]) {
    await api(`${path}?${query}`, { token: apiKey, headers, body: "0" });
  }
  const [first, second] = domain.commands;
  expect(first!.idempotency!.key).toBe("~".repeat(255));
  expect(first!.idempotency!.bodySha256).toHaveLength(32);
  expect(first!.idempotency!.bodySha256).not.toEqual(second!.idempotency!.bodySha256);
});

test("not-acceptable is said before anything is signed", async () => {
  const answer = await api(path, { token: apiKey, headers: { Accept: "text/html" }, body: good });
  expect(answer.status).toBe(406);
  expect(answer.json).toMatchObject({
    code: "not-acceptable",
    available: ["application/json", "application/pem-certificate-chain", "application/pkix-cert"],
  });
  expect(domain.commands).toEqual([]);
});

test("deadline-exceeded: the client is told to come again, and a late failure is logged", async () => {
  let fail: (error: Error) => void;
  brief.domain.wait = new Promise((_, reject) => {
    fail = reject;
  });
  const answer = await brief.api(path, { token: apiKey, body: good });
  expect(answer.status).toBe(503);
  expect(answer.headers["retry-after"]).toBe("5");
  expect(answer.json["code"]).toBe("deadline-exceeded");
  fail!(new Error("too late"));
  await brief.api("/healthz");
  expect(brief.logged()).toContain("failed after its deadline");
});

test.for(["cross-site", "same-site"])(
  "a page of another site changes nothing: %s",
  async (from) => {
    const headers = { "Sec-Fetch-Site": from, "Content-Type": "text/plain" };
    const answer = await api(`${path}?profile=server`, { token: apiKey, headers, body: "0" });
    expect(answer.status).toBe(403);
    expect(domain.commands).toEqual([]);
  },
);

test.for([
  { name: "a sane one is kept", given: "build-17.retry_2", kept: true },
  { name: "one with spaces is replaced", given: "a b", kept: false },
  { name: "a long one is replaced", given: "a".repeat(65), kept: false },
])("X-Request-Id: $name", async ({ given, kept }) => {
  const answer = await api("/healthz", { headers: { "X-Request-Id": given } });
  expect(answer.headers["x-request-id"]).toMatch(kept ? given : /^[0-9a-f]{32}$/);
});

test("answers of the API are not cached and not sniffed", async () => {
  const answer = await api("/v1/issuers", { token: apiKey });
  expect(answer.headers["cache-control"]).toBe("no-store");
  expect(answer.headers["x-content-type-options"]).toBe("nosniff");
});
