import { afterAll, expect, test } from "vitest";
import { apiKey, metricsKey, startSites } from "../support/http-sites.ts";

const { api, domain, logged, close } = await startSites();
afterAll(close);

test("a log line has the request's id, route, status, time and caller, and no secret", async () => {
  const secrets = [
    apiKey,
    metricsKey,
    "hunter2-body",
    "hunter2-query",
    "hunter2-path",
    "hunter2-key",
  ];
  const [, , inBody, inQuery, inPath, inKey] = secrets;
  const path = "/v1/issuers/issuing/certificates";
  await api(path, {
    token: apiKey,
    headers: { "X-Request-Id": "first", "Idempotency-Key": inKey },
    body: { profile: "server", csr: inBody },
  });
  await api(`${path}?token=${inQuery}`, { token: apiKey });
  await api(`/${inPath}`);
  await api(`/v1/issuers/${inPath}`, { token: apiKey });
  await api("/metrics", { token: metricsKey });
  await api(path, { token: `${apiKey}x`, body: "x" });
  await api("/v1/sessions/abc", { body: { signature: inBody } });
  await api(path, {
    token: apiKey,
    headers: { "Content-Type": "application/json" },
    body: inBody!,
  });
  domain.fail = Object.assign(new Error("disk full"), { sql: `INSERT ${inBody}` });
  await api(path, { token: apiKey, body: { profile: "server", csr: inBody } });

  const text = logged();
  for (const secret of secrets) expect(text).not.toContain(secret);
  const lines = text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(lines).toHaveLength(9);
  expect(lines[0]).toMatchObject({
    requestId: "first",
    method: "POST",
    route: "/v1/issuers/:issuer/certificates",
    status: 201,
    milliseconds: expect.any(Number),
    caller: "web",
    via: "api-key",
    msg: "request",
  });
  expect(lines[2]).toMatchObject({ route: "unknown", status: 404, code: "route-unknown" });
  expect(lines.at(-1)).toMatchObject({
    level: 50,
    code: "internal",
    error: expect.stringContaining("disk full"),
  });
});
