import { afterAll, expect, test } from "vitest";
import { CountersignError, type ErrorCode } from "../../src/errors.ts";
import { problemFrom, problemPage, problems } from "../../src/http/problem.ts";
import { apiKey, startSites } from "../support/http-sites.ts";

const { api, domain, logged, close } = await startSites();
afterAll(close);

const issue = () =>
  api("/v1/issuers/issuing/certificates", {
    token: apiKey,
    headers: { "X-Request-Id": "request-1" },
    body: { profile: "server", csr: "any" },
  });

test.for(Object.entries(problems))(
  "RFC 9457: %s is answered with its status",
  async ([code, kind]) => {
    domain.fail = new CountersignError(code as ErrorCode, "the detail", {
      members: { rule: "CRT-11" },
    });
    const answer = await issue();
    expect(answer.status).toBe(kind.status);
    expect(answer.headers["content-type"]).toContain("application/problem+json");
    expect(answer.headers["cache-control"]).toBe("no-store");
    expect(answer.headers["retry-after"]).toBe(kind.retryAfter?.toString());
    expect(answer.json).toEqual({
      type: `/problems/${code}`,
      title: kind.title,
      status: kind.status,
      detail: "the detail",
      instance: "urn:countersign:request:request-1",
      code,
      rule: "CRT-11",
    });
    expect(logged()).toContain(`"code":"${code}"`);
  },
);

test("an extension member does not replace a standard one", () => {
  const error = new CountersignError("forbidden", "no", {
    members: { status: 200, title: "Fine" },
  });
  expect(problemFrom(error, "1").body).toMatchObject({ status: 403, title: "Not allowed" });
});

test("an error that is not ours becomes a bare 500 and is logged", async () => {
  domain.fail = Object.assign(new Error("SQLITE_BUSY at /var/lib/secret"), { parameters: ["PIN"] });
  const answer = await issue();
  expect(answer.json).toEqual({
    type: "about:blank",
    title: "Internal Server Error",
    status: 500,
    instance: "urn:countersign:request:request-1",
  });
  expect(logged()).toContain("SQLITE_BUSY");
  expect(logged()).not.toContain("parameters");
});

test("every problem has a page that says what to do, on both sites", async () => {
  for (const code of Object.keys(problems)) expect(problemPage(code)).toContain(code);
  const page = await api("/problems/key-locked");
  expect(page.headers["content-type"]).toBe("text/plain; charset=utf-8");
  expect(page.text).toContain("Somebody has to open the issuer's key");
});

test.for(["nothing", "toString", "__proto__"])("there is no page for %s", async (code) => {
  expect((await api(`/problems/${code}`)).json["code"]).toBe("route-unknown");
});
