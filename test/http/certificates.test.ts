import { X509Certificate } from "node:crypto";
import { afterAll, beforeEach, expect, test } from "vitest";
import {
  apiKey,
  makePair,
  otherApiKey,
  sha256,
  startSites,
  storedCertificate,
  type Asked,
} from "../support/http-sites.ts";

const { api, domain, close } = await startSites();
afterAll(close);
beforeEach(() => {
  domain.commands.length = 0;
  domain.revoked.length = 0;
  domain.filters.length = 0;
  domain.rows.length = 0;
  domain.revocations.length = 0;
  domain.replayed = false;
});

const path = "/v1/issuers/issuing/certificates";
const self = `${path}/00c0ffee`;
const body = { profile: "server", csr: "-----BEGIN CERTIFICATE REQUEST-----", lifetime: "90d" };

test("an issued certificate comes as JSON with its address", async () => {
  const answer = await api(path, { token: apiKey, body });
  expect(answer.status).toBe(201);
  expect(answer.headers.location).toBe(self);
  expect(answer.headers["idempotency-replayed"]).toBeUndefined();
  const { certificate, chain, ...rest } = answer.json as { certificate: string; chain: string };
  expect(rest).toEqual({
    issuer: "issuing",
    serialNumber: "00c0ffee",
    sha256: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
    notBefore: "2026-11-21T20:00:00.000Z",
    notAfter: "2027-02-19T20:00:00.000Z",
    logIndex: 11,
    links: {
      self,
      issuer: "/v1/issuers/issuing",
      revocation: `${self}/revocation`,
      proof: `${self}/proof`,
      crl: "/v1/issuers/issuing/crl",
    },
  });
  expect(new X509Certificate(certificate).subject).toBe("CN=countersign.test");
  expect(chain.match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
  expect(domain.commands[0]).toMatchObject({ issuer: "issuing", ...body });
});

test("an answer that was given before says so", async () => {
  domain.replayed = true;
  const answer = await api(path, { token: apiKey, body });
  expect(answer.headers["idempotency-replayed"]).toBe("true");
});

test.for([
  { accept: undefined, type: "application/json; charset=utf-8" },
  { accept: "*/*", type: "application/json; charset=utf-8" },
  { accept: "application/*", type: "application/json; charset=utf-8" },
  { accept: "application/pkix-cert", type: "application/pkix-cert" },
  { accept: "text/html, application/pkix-cert;q=0.5", type: "application/pkix-cert" },
  { accept: "application/pem-certificate-chain", type: "application/pem-certificate-chain" },
  {
    accept: "application/json;q=0.1, application/pem-certificate-chain",
    type: "application/pem-certificate-chain",
  },
])("RFC 9110 §12.5.1: Accept $accept gives $type", async ({ accept, type }) => {
  domain.rows.push(storedCertificate());
  const headers = accept === undefined ? {} : { Accept: accept };
  for (const answer of [
    await api(path, { token: apiKey, headers, body }),
    await api(self, { token: apiKey, headers }),
  ]) {
    expect(answer.headers["content-type"]).toBe(type);
    expect(answer.headers.vary).toBe("Accept");
  }
});

test("the DER is the certificate, the PEM the certificate with its chain", async () => {
  const der = await api(path, {
    token: apiKey,
    headers: { Accept: "application/pkix-cert" },
    body,
  });
  expect(new X509Certificate(der.octets).raw.equals(der.octets)).toBe(true);
  const accept = { Accept: "application/pem-certificate-chain" };
  const pem = await api(path, { token: apiKey, headers: accept, body });
  const blocks = pem.text.match(/-----BEGIN[^]*?-----END CERTIFICATE-----\n/g)!;
  expect(blocks.map((block) => new X509Certificate(block).subject)).toEqual([
    "CN=countersign.test",
    "CN=Issuing",
    "CN=Root",
  ]);
});

test.for<{ name: string; type: string; sent: string | Uint8Array; got: string | Uint8Array }>([
  {
    name: "DER",
    type: "application/pkcs10",
    sent: Buffer.from("3000", "hex"),
    got: Buffer.from("3000", "hex"),
  },
  { name: "PEM as PKCS#10", type: "application/pkcs10", sent: "-----BEGIN", got: "-----BEGIN" },
  {
    name: "PEM as a PEM file",
    type: "application/x-pem-file",
    sent: "-----BEGIN",
    got: "-----BEGIN",
  },
  { name: "PEM as text", type: "text/plain; charset=utf-8", sent: "-----BEGIN", got: "-----BEGIN" },
])("a CSR comes as the body itself: $name", async ({ type, sent, got }) => {
  const answer = await api(`${path}?profile=server&lifetime=18%20months`, {
    token: apiKey,
    headers: { "Content-Type": type },
    body: sent,
  });
  expect(answer.status).toBe(201);
  expect(domain.commands[0]).toMatchObject({ profile: "server", lifetime: "18 months", csr: got });
});

test("a requester's search is for its own certificates", async () => {
  domain.rows.push(
    storedCertificate({ revocation: { reason: "superseded", revocationDate: new Date(0) } }),
  );
  const query =
    "name=*.Example.TEST&profile=server&state=valid&serialNumber=00C0&cursor=99&limit=200";
  const answer = await api(`${path}?${query}`, { token: apiKey });
  expect(answer.status).toBe(200);
  expect(domain.filters).toEqual([
    {
      issuer: "issuing",
      requester: "web",
      name: "*.example.test",
      profile: "server",
      state: "valid",
      serialPrefix: "00c0",
      cursor: 99,
      limit: 200,
    },
  ]);
  expect(answer.json["next"]).toBe("10");
  expect(answer.json["certificates"]).toEqual([
    expect.objectContaining({
      serialNumber: "00c0ffee",
      requester: "web",
      revocation: { reason: "superseded", revocationDate: "1970-01-01T00:00:00.000Z" },
    }),
  ]);
});

test.for([
  "limit=0",
  "limit=201",
  "limit=-1",
  "limit=1e2",
  "state=odd",
  "cursor=x",
  "serialNumber=xyz",
  "order=asc",
])("a search is refused: %s", async (query) => {
  expect((await api(`${path}?${query}`, { token: apiKey })).json["code"]).toBe("request-malformed");
  expect(domain.filters).toEqual([]);
});

test("a requester does not search for others", async () => {
  expect((await api(`${path}?requester=mail`, { token: apiKey })).status).toBe(403);
  expect((await api(`${path}?requester=web`, { token: apiKey })).status).toBe(200);
});

test.for([
  { name: "another requester", asked: { token: otherApiKey } },
  { name: "a serial number that does not exist", asked: { token: apiKey }, serial: "00c0ffef" },
])("certificate-unknown: $name", async ({ asked, serial }) => {
  domain.rows.push(storedCertificate());
  for (const part of ["", "/revocation", "/proof"]) {
    const answer = await api(`${path}/${serial ?? "00c0ffee"}${part}`, asked);
    expect([answer.status, answer.json["code"]]).toEqual([404, "certificate-unknown"]);
  }
  const address = `/v1/certificates/sha256:${sha256(storedCertificate().certificate!)}`;
  expect((await api(address, { token: otherApiKey })).status).toBe(404);
});

test.for(["0", "zz", "a".repeat(42), "00c0ffee "])("a serial number is hex: %j", async (serial) => {
  const answer = await api(`${path}/${encodeURIComponent(serial)}`, { token: apiKey });
  expect(answer.json["code"]).toBe("request-malformed");
});

test("a serial number may be written in upper case, as openssl prints it", async () => {
  domain.rows.push(storedCertificate());
  expect((await api(`${path}/00C0FFEE`, { token: apiKey })).json["serialNumber"]).toBe("00c0ffee");
});

test("issuer-unknown", async () => {
  for (const unknown of ["/v1/issuers/x", "/v1/issuers/x/certificates", "/v1/issuers/x/crl"]) {
    expect((await api(unknown, { token: apiKey })).json["code"]).toBe("issuer-unknown");
  }
});

test("the holder of a certificate's key sees that certificate and no other", async () => {
  const client = makePair("holder");
  domain.clients.set(sha256(client.der), {
    kind: "certificate",
    id: `sha256:${sha256(client.der)}`,
    via: "mtls",
    issuer: "issuing",
    serialNumber: "00c0ffee",
  });
  domain.rows.push(storedCertificate(), storedCertificate({ serialNumber: "01" }));
  expect((await api(self, { client })).status).toBe(200);
  expect((await api(`${path}/01`, { client })).status).toBe(404);
  expect((await api(path, { client })).status).toBe(403);
});

test("a certificate is found by its SHA-256", async () => {
  const row = storedCertificate();
  domain.rows.push(row);
  const answer = await api(`/v1/certificates/sha256:${sha256(row.certificate!)}`, {
    token: apiKey,
  });
  expect([answer.status, answer.headers.location, answer.text]).toEqual([307, self, ""]);
  expect((await api("/v1/certificates/sha256:00", { token: apiKey })).status).toBe(400);
});

test("an intent without a result has a record and no certificate", async () => {
  domain.rows.push(
    storedCertificate({ state: "abandoned", certificate: null, certificateSha256: null }),
  );
  expect((await api(self, { token: apiKey })).json).toMatchObject({
    state: "abandoned",
    certificate: null,
    sha256: null,
  });
  const headers = { Accept: "application/pkix-cert" };
  expect((await api(self, { token: apiKey, headers })).status).toBe(404);
});

test.for(["PUT", "POST"])("a revocation is asked for with %s", async (method) => {
  const answer = await api(`${self}/revocation`, {
    method,
    token: apiKey,
    body: { reason: "keyCompromise", invalidityDate: "2026-11-20T00:00:00+01:00" },
  });
  expect(answer.json).toEqual({
    issuer: "issuing",
    serialNumber: "00c0ffee",
    reason: "keyCompromise",
    revocationDate: "2026-11-21T20:00:00.000Z",
    invalidityDate: "2026-11-19T23:00:00.000Z",
    logIndex: 12,
    visible: { crlNumber: "8", by: "2026-11-21T20:00:00.000Z" },
    repeated: false,
  });
  expect(domain.revoked[0]).toMatchObject({ caller: { id: "web" }, serialNumber: "00c0ffee" });
});

test("whoever proves the private key needs no other credentials", async () => {
  const proof = { statement: Buffer.from("{}").toString("base64"), signature: "AAEC" };
  const answer = await api(`${self}/revocation`, { body: { reason: "keyCompromise", proof } });
  expect(answer.status).toBe(200);
  expect(domain.revoked[0]!.caller).toEqual({
    kind: "possession",
    statement: Buffer.from("{}"),
    signature: Buffer.from([0, 1, 2]),
  });
});

test.for<{ name: string; asked: Asked; code: string }>([
  { name: "no credentials", asked: { body: { reason: "superseded" } }, code: "unauthenticated" },
  { name: "no reason", asked: { token: apiKey, body: {} }, code: "request-malformed" },
  {
    name: "an unknown reason",
    asked: { token: apiKey, body: { reason: "bored" } },
    code: "request-malformed",
  },
  {
    name: "a time that is none",
    asked: { token: apiKey, body: { reason: "superseded", invalidityDate: "yesterday" } },
    code: "request-malformed",
  },
  {
    name: "a proof that is not base64",
    asked: { body: { reason: "superseded", proof: { statement: "{}", signature: "AAEC" } } },
    code: "request-malformed",
  },
])("a revocation is refused: $name", async ({ asked, code }) => {
  expect((await api(`${self}/revocation`, asked)).json["code"]).toBe(code);
  expect(domain.revoked).toEqual([]);
});

test("a revocation can be read", async () => {
  domain.rows.push(storedCertificate());
  expect((await api(`${self}/revocation`, { token: apiKey })).json).toEqual({ revoked: false });
  domain.revocations.push({
    issuer: "issuing",
    keyId: "ab".repeat(32),
    serialNumber: "00c0ffee",
    reason: "superseded",
    revocationDate: new Date("2026-11-21T20:00:00Z"),
    invalidityDate: null,
    notAfter: new Date("2027-02-19T20:00:00Z"),
    requestedBy: "web",
    logIndex: 12,
  });
  expect((await api(`${self}/revocation`, { token: apiKey })).json).toEqual({
    revoked: true,
    issuer: "issuing",
    serialNumber: "00c0ffee",
    reason: "superseded",
    revocationDate: "2026-11-21T20:00:00.000Z",
    logIndex: 12,
  });
});

test("issuers are listed and read", async () => {
  const list = await api("/v1/issuers", { token: apiKey });
  expect(list.json["issuers"]).toEqual([
    expect.objectContaining({ id: "issuing", state: "open", profiles: ["server"] }),
  ]);
  const one = await api("/v1/issuers/issuing", { token: apiKey });
  expect(one.json).toEqual((list.json["issuers"] as unknown[])[0]);
});

test("chain and CRL of an issuer are for everybody", async () => {
  const chain = await api("/v1/issuers/issuing/chain");
  expect(chain.headers["content-type"]).toContain("application/pem-certificate-chain");
  expect(chain.text.match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
  const crl = await api("/v1/issuers/issuing/crl");
  expect([crl.headers["content-type"], crl.octets.toString("hex")]).toEqual([
    "application/pkix-crl",
    "3003020101",
  ]);
  const pem = await api("/v1/issuers/issuing/crl", {
    headers: { Accept: "application/x-pem-file" },
  });
  expect(pem.text).toMatch(/^-----BEGIN X509 CRL-----\n/);
  const json = await api("/v1/issuers/issuing/crl", { headers: { Accept: "application/json" } });
  expect(json.json).toMatchObject({ issuer: "issuing", number: "7" });
});

test("a requester asks the policy about itself", async () => {
  const names = [{ kind: "dns", value: "evil.test" }];
  const asked = { issuer: "issuing", profile: "server", names };
  const answer = await api("/v1/policy/evaluate", { token: apiKey, body: asked });
  expect(answer.json).toMatchObject({ verdict: "refuse", name: names[0] });
  const other = { ...asked, requester: "mail" };
  expect((await api("/v1/policy/evaluate", { token: apiKey, body: other })).status).toBe(403);
});

test("a requester reads its own entry and no other", async () => {
  expect((await api("/v1/requesters/web", { token: apiKey })).json["name"]).toBe("web");
  expect((await api("/v1/requesters/mail", { token: apiKey })).status).toBe(403);
});
