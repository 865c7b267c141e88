import { afterAll, expect, test } from "vitest";
import { z } from "zod";
import { openApiPath } from "../../src/http/openapi.ts";
import { problems } from "../../src/http/problem.ts";
import { apiKey, startSites, storedCertificate } from "../support/http-sites.ts";

const { api, sites, domain, close } = await startSites();
afterAll(close);

type JsonSchema = Exclude<Parameters<typeof z.fromJSONSchema>[0], boolean>;

interface Operation {
  operationId: string;
  summary: string;
  security: Record<string, string[]>[];
  parameters: { name: string; in: string; required: boolean; schema: JsonSchema }[];
  requestBody?: { content: Record<string, { schema?: JsonSchema }> };
  responses: Record<
    string,
    { description?: string; content?: Record<string, { schema?: JsonSchema }> }
  >;
}

const document = (await api("/openapi.json")).json as {
  openapi: string;
  info: { title: string; version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, JsonSchema>; securitySchemes: Record<string, object> };
};

const operations = Object.entries(document.paths).flatMap(([path, item]) =>
  Object.entries(item).map(([method, operation]) => ({ path, method, operation })),
);

/** What both routers really have. */
const registered = [sites.api, sites.publicSite].flatMap((app) =>
  app.middleware.flatMap((middleware) => {
    const { router } = middleware as { router?: { stack: { path: string; methods: string[] }[] } };
    return (router?.stack ?? []).flatMap(({ path, methods }) =>
      methods
        .filter((method) => method !== "HEAD")
        .map((method) => `${method} ${openApiPath(path)}`),
    );
  }),
);

test("the document is OpenAPI 3.1", () => {
  expect(document.openapi).toMatch(/^3\.1\./);
  expect(document.info).toMatchObject({ title: "Countersign", version: "0.1.0" });
});

test("every route is in the document, and every operation of the document is a route", () => {
  const described = operations.map(({ path, method }) => `${method.toUpperCase()} ${path}`);
  expect(new Set(registered)).toEqual(new Set(described));
  expect(registered.length).toBeGreaterThan(30);
});

test("every operation has its own id, a summary, and its path parameters", () => {
  const ids = operations.map(({ operation }) => operation.operationId);
  expect(new Set(ids).size).toBe(ids.length);
  for (const { path, operation } of operations) {
    const inPath = [...path.matchAll(/\{([^}]+)\}/g)].map(([, name]) => name);
    const declared = operation.parameters.filter((parameter) => parameter.in === "path");
    expect(declared.map(({ name }) => name)).toEqual(inPath);
    expect(declared.every(({ required }) => required)).toBe(true);
    expect(operation.summary).not.toBe("");
    for (const scheme of operation.security.flatMap((one) => Object.keys(one))) {
      expect(document.components.securitySchemes).toHaveProperty(scheme);
    }
  }
});

test("every response has a description or is a reference that resolves", () => {
  for (const { operation } of operations) {
    const { default: fallback, ...others } = operation.responses;
    expect(fallback).toEqual({ $ref: "#/components/responses/Problem" });
    expect(Object.keys(others).length).toBeGreaterThan(0);
    for (const [status, { description }] of Object.entries(others)) {
      expect(status).toMatch(/^[1-5][0-9]{2}$/);
      expect(description).toEqual(expect.any(String));
    }
  }
});

test("every schema is JSON Schema that can be read back", () => {
  const schemas = operations.flatMap(({ operation }) => [
    ...operation.parameters.map(({ schema }) => schema),
    ...[operation.requestBody, ...Object.values(operation.responses)].flatMap((body) =>
      Object.values(body?.content ?? {}).flatMap(({ schema }) =>
        schema === undefined ? [] : [schema],
      ),
    ),
  ]);
  expect(schemas.length).toBeGreaterThan(60);
  for (const schema of schemas) {
    expect(() => z.fromJSONSchema(schema)).not.toThrow();
    expect(JSON.stringify(schema)).not.toContain("$schema");
  }
});

test("a request schema of the document is closed like the one that checks", () => {
  for (const { operation } of operations) {
    const schema = operation.requestBody?.content["application/json"]?.schema;
    if (schema !== undefined) expect(schema).toMatchObject({ additionalProperties: false });
  }
});

const bodies = sites.routes.filter(({ body }) => body !== undefined);

test.for(bodies.map((route) => ({ name: `${route.method} ${route.path}`, route })))(
  "the schema in the document is the one that checks: $name",
  ({ route }) => {
    const operation = document.paths[openApiPath(route.path)]![route.method.toLowerCase()]!;
    const { $schema: _, ...checking } = z.toJSONSchema(route.body!, { io: "input" });
    expect(operation.requestBody!.content["application/json"]!.schema).toEqual(checking);
  },
);

test("every problem code is in the document", () => {
  const { oneOf } = document.components.schemas["ProblemCode"] as { oneOf: { const: string }[] };
  expect(oneOf.map((one) => one.const)).toEqual(Object.keys(problems));
});

const self = "/v1/issuers/issuing/certificates";
const evaluation = {
  issuer: "issuing",
  profile: "server",
  names: [{ kind: "dns", value: "a.test" }],
};

test.for([
  { id: "issueCertificate", path: self, body: { profile: "server", csr: "any" } },
  { id: "listCertificates", path: self },
  { id: "getCertificate", path: `${self}/00c0ffee` },
  { id: "getRevocation", path: `${self}/00c0ffee/revocation` },
  { id: "postRevocation", path: `${self}/00c0ffee/revocation`, body: { reason: "superseded" } },
  { id: "listIssuers", path: "/v1/issuers" },
  { id: "getIssuer", path: "/v1/issuers/issuing" },
  { id: "getCrl", path: "/v1/issuers/issuing/crl", headers: { Accept: "application/json" } },
  { id: "getRequester", path: "/v1/requesters/web" },
  { id: "evaluatePolicy", path: "/v1/policy/evaluate", body: evaluation },
  { id: "beginSession", path: "/v1/sessions", body: { operator: "alice" } },
  { id: "readiness", path: "/readyz" },
  { id: "status", path: "/v1/status" },
])("the answer of $id is what the document says", async ({ id, path, body, headers }) => {
  domain.rows.splice(0, domain.rows.length, storedCertificate());
  const route = sites.routes.find((one) => one.id === id)!;
  const answer = await api(path, {
    token: apiKey,
    ...(body === undefined ? {} : { body }),
    ...(headers === undefined ? {} : { headers }),
  });
  const schema = route.answers[answer.status]!.content!["application/json"] as z.ZodType;
  expect(schema.safeParse(answer.json).error).toBeUndefined();
});

test("a problem is what the document says", async () => {
  const answer = await api("/v1/issuers");
  const schema = z.fromJSONSchema(document.components.schemas["Problem"]!);
  expect(schema.safeParse(answer.json).error).toBeUndefined();
});
