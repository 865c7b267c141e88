/** The OpenAPI 3.1 document, made from the routes themselves. */

import { z } from "zod";
import { problems } from "./problem.ts";
import type { Access, Content, Described, Route } from "./route.ts";
import { problem } from "./schemas.ts";

type JsonSchema = Record<string, unknown>;

export interface OpenApiDocument {
  readonly openapi: "3.1.1";
  readonly paths: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly [member: string]: unknown;
}

const security: Readonly<Record<Access, readonly Record<string, readonly string[]>[]>> = {
  public: [],
  anyone: [{}, { apiKey: [] }, { session: [] }, { clientCertificate: [] }],
  caller: [{ apiKey: [] }, { session: [] }, { clientCertificate: [] }],
  operator: [{ session: [] }],
  metrics: [{ metricsKey: [] }],
};

export function openApiDocument(
  routes: readonly Route[],
  about: { version: string; publicUrl: string },
): OpenApiDocument {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const item = (paths[openApiPath(route.path)] ??= {});
    item[route.method.toLowerCase()] = operation(route, about.publicUrl);
  }
  return {
    openapi: "3.1.1",
    info: {
      title: "Countersign",
      version: about.version,
      description: "A certificate-authority signing service for teams who run their own PKI.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    jsonSchemaDialect: "https://json-schema.org/draft/2020-12/schema",
    servers: [{ url: "/" }],
    paths,
    components: {
      schemas: { Problem: schemaOf(problem, "output"), ProblemCode: problemCodes() },
      responses: {
        Problem: {
          description: "RFC 9457; /problems/<code> says what to do",
          content: {
            "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } },
          },
        },
      },
      securitySchemes: {
        apiKey: { type: "http", scheme: "bearer", description: "csk_…, of a requester" },
        session: {
          type: "http",
          scheme: "bearer",
          description: "css_…, from POST /v1/sessions/{id}",
        },
        metricsKey: {
          type: "http",
          scheme: "bearer",
          description: "Opens /metrics and nothing else",
        },
        clientCertificate: { type: "mutualTLS" },
      },
    },
  };
}

/** `/v1/issuers/:issuer` and `/audit/tile/*tile` as OpenAPI writes them. */
export function openApiPath(path: string): string {
  return path.replaceAll(/[:*]([A-Za-z]+)/g, "{$1}");
}

function operation(route: Route, publicUrl: string): Record<string, unknown> {
  return {
    operationId: route.id,
    summary: route.summary,
    ...(route.description === undefined ? {} : { description: route.description }),
    ...(route.site === "public" ? { servers: [{ url: publicUrl }] } : {}),
    security: security[route.access],
    parameters: [
      ...parameters(route.params, "path"),
      ...parameters(route.query, "query"),
      ...Object.entries(route.headers ?? {}).map(([name, { schema, text }]) => ({
        name,
        in: "header",
        required: false,
        description: text,
        schema: schemaOf(schema, "input"),
      })),
    ],
    ...requestBody(route),
    responses: {
      ...Object.fromEntries(
        Object.entries(route.answers).map(([status, described]) => [status, response(described)]),
      ),
      default: { $ref: "#/components/responses/Problem" },
    },
  };
}

function requestBody(route: Route): Record<string, unknown> {
  const content: Readonly<Record<string, Content>> | undefined =
    route.bodies ?? (route.body === undefined ? undefined : { "application/json": route.body });
  return content === undefined
    ? {}
    : {
        requestBody: {
          required: true,
          ...(route.bodyOctets === undefined
            ? {}
            : { description: `At most ${route.bodyOctets} octets` }),
          content: contentOf(content, "input"),
        },
      };
}

function response({ description, content, headers }: Described): Record<string, unknown> {
  return {
    description,
    ...(content === undefined ? {} : { content: contentOf(content, "output") }),
    ...(headers === undefined
      ? {}
      : {
          headers: Object.fromEntries(
            Object.entries(headers).map(([name, text]) => [
              name,
              { description: text, schema: { type: "string" } },
            ]),
          ),
        }),
  };
}

function contentOf(
  content: Readonly<Record<string, Content>>,
  io: "input" | "output",
): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(content).map(([type, kind]) => [
      type,
      // OpenAPI 3.1 §4.8.14.1: raw binary content has no schema.
      kind === "binary"
        ? {}
        : { schema: kind === "text" ? { type: "string" } : schemaOf(kind, io) },
    ]),
  );
}

function parameters(schema: z.ZodType | undefined, place: "path" | "query"): unknown[] {
  if (schema === undefined) return [];
  const { properties = {}, required = [] } = schemaOf(schema, "input") as {
    properties?: Record<string, JsonSchema>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, { description, ...property }]) => ({
    name,
    in: place,
    required: place === "path" || required.includes(name),
    ...(description === undefined ? {} : { description }),
    schema: property,
  }));
}

/** JSON Schema 2020-12, which is what OpenAPI 3.1 takes. */
function schemaOf(schema: z.ZodType, io: "input" | "output"): JsonSchema {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io });
  return rest;
}

function problemCodes(): JsonSchema {
  return {
    type: "string",
    description: "The stable codes of problems",
    oneOf: Object.entries(problems).map(([code, { status, title }]) => ({
      const: code,
      description: `${title} (${status})`,
    })),
  };
}
