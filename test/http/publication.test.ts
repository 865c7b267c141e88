import { afterAll, beforeEach, expect, test } from "vitest";
import { encodeEntryBundle } from "../../src/audit/tiles.ts";
import { apiKey, startSites } from "../support/http-sites.ts";

const { api, site, domain, close } = await startSites();
const open = await startSites((parts) => ({ ...parts, publicEntries: true }));
afterAll(async () => {
  await close();
  await open.close();
});
beforeEach(() => {
  domain.now = new Date("2026-11-21T20:00:00Z");
});

test("RFC 5280 §4.2.1.13: the CRL is served as DER over plain http", async () => {
  const answer = await site("/crl/issuing.crl");
  expect(answer.status).toBe(200);
  expect(answer.octets.toString("hex")).toBe("3003020101");
  expect(answer.headers).toMatchObject({
    "content-type": "application/pkix-crl",
    "last-modified": "Sat, 21 Nov 2026 19:00:00 GMT",
    "cache-control": "public, max-age=60, must-revalidate",
    etag: expect.stringMatching(/^"sha256:[0-9a-f]{64}"$/),
  });
});

test("HEAD says the same and sends nothing", async () => {
  const [head, get] = [
    await site("/crl/issuing.crl", { method: "HEAD" }),
    await site("/crl/issuing.crl"),
  ];
  expect(head.octets).toHaveLength(0);
  expect(head.headers["content-length"]).toBe("5");
  expect(head.headers.etag).toBe(get.headers.etag);
});

test.for([
  { left: 30, maxAge: 29 },
  { left: 1, maxAge: 0 },
  { left: 0, maxAge: 0 },
  { left: -60, maxAge: 0 },
])("max-age stays below nextUpdate: $left s before it", async ({ left, maxAge }) => {
  domain.now = new Date(domain.crlUntil.getTime() - left * 1000);
  const answer = await site("/crl/issuing.crl");
  expect(answer.headers["cache-control"]).toBe(`public, max-age=${maxAge}, must-revalidate`);
});

test("RFC 9110 §13: who has the CRL is told so", async () => {
  const { etag } = (await site("/crl/issuing.crl")).headers;
  for (const { headers, status } of [
    { headers: { "If-None-Match": etag }, status: 304 },
    { headers: { "If-None-Match": `"other", ${etag}` }, status: 304 },
    { headers: { "If-None-Match": '"other"' }, status: 200 },
    { headers: { "If-Modified-Since": "Sat, 21 Nov 2026 19:00:00 GMT" }, status: 304 },
    { headers: { "If-Modified-Since": "Sat, 21 Nov 2026 18:59:59 GMT" }, status: 200 },
    {
      headers: { "If-None-Match": '"other"', "If-Modified-Since": "Sat, 21 Nov 2026 19:00:00 GMT" },
      status: 200,
    },
  ]) {
    const answer = await site("/crl/issuing.crl", { headers });
    expect([headers, answer.status]).toEqual([headers, status]);
    expect(answer.octets).toHaveLength(status === 304 ? 0 : 5);
    expect(answer.headers.etag).toBe(etag);
  }
});

test("the CRL comes as PEM too", async () => {
  const answer = await site("/crl/issuing.pem");
  expect(answer.text).toMatch(/^-----BEGIN X509 CRL-----\n[^]*-----END X509 CRL-----\n$/);
});

test("CA certificates are served, DER alone and PEM with those above", async () => {
  const der = await site("/ca/issuing.cer");
  expect(der.headers["content-type"]).toBe("application/pkix-cert");
  expect(der.octets.equals(domain.issuer.certificate)).toBe(true);
  const pem = await site("/ca/issuing.pem");
  expect(pem.text.match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
  const again = await site("/ca/issuing.cer", { headers: { "If-None-Match": der.headers.etag } });
  expect(again.status).toBe(304);
});

test.for(["/crl/other.crl", "/crl/other.pem", "/ca/other.cer"])("there is no %s", async (path) => {
  expect((await site(path)).json["code"]).toBe("issuer-unknown");
});

test("a parameter that a cache adds does no harm", async () => {
  expect((await site("/crl/issuing.crl?cachebust=1")).status).toBe(200);
});

test("the checkpoint is on both sites", async () => {
  for (const ask of [api, site]) {
    const answer = await ask("/audit/checkpoint");
    expect(answer.text).toBe(domain.log.checkpoint());
    expect(answer.headers["content-type"]).toBe("text/plain; charset=utf-8");
    expect(answer.headers["cache-control"]).toBe("no-cache");
  }
});

test("AUDIT-LOG 9.4: a full tile never changes, a partial one is cut from the row", async () => {
  const full = await site("/audit/tile/0/000");
  expect(full.octets.equals(domain.log.tiles.get("0/0")!)).toBe(true);
  expect(full.headers["cache-control"]).toBe("public, max-age=31536000, immutable");
  const partial = await site("/audit/tile/0/001.p/40");
  expect(partial.octets.equals(domain.log.tiles.get("0/1")!.subarray(0, 40 * 32))).toBe(true);
  expect(partial.headers["cache-control"]).not.toContain("immutable");
  const older = await site("/audit/tile/0/000.p/7");
  expect(older.octets.equals(full.octets.subarray(0, 7 * 32))).toBe(true);
});

test.for([
  "/audit/tile/0/001",
  "/audit/tile/0/001.p/45",
  "/audit/tile/0/002.p/1",
  "/audit/tile/0/0",
  "/audit/tile/0/000.p/256",
  "/audit/tile/0/000.p/0",
  "/audit/tile/64/000",
  "/audit/tile/0/x000/000",
  "/audit/tile/..%2f..%2fetc/passwd",
])("log-entry-unknown: %s", async (path) => {
  const answer = await site(path);
  expect([answer.status, answer.json["code"]]).toEqual([404, "log-entry-unknown"]);
});

test("entries are for operators unless they are public", async () => {
  const path = "/audit/tile/entries/000.p/3";
  expect((await site(path)).status).toBe(401);
  expect((await api(path, { token: apiKey })).status).toBe(403);
  const answer = await open.site(path);
  expect(answer.octets.equals(encodeEntryBundle(open.domain.log.leaves.slice(0, 3)))).toBe(true);
  expect((await open.site("/audit/tile/entries/001.p/45")).status).toBe(404);
});

test("health is on both sites, and readiness says what is locked", async () => {
  for (const ask of [api, site]) {
    domain.ready = true;
    expect((await ask("/healthz")).text).toBe("ok\n");
    expect((await ask("/readyz")).status).toBe(200);
    domain.ready = false;
    expect((await ask("/healthz")).status).toBe(200);
    const answer = await ask("/readyz");
    expect(answer.status).toBe(503);
    expect(answer.json["parts"]).toEqual([
      { name: "key issuing", state: "locked", detail: "opened by its PIN" },
    ]);
  }
});
