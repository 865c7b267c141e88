/** Whether the service lives and can do its work. */

import { z } from "zod";
import { JSON_TYPE } from "./accept.ts";
import { issuerJson } from "./issuer-routes.ts";
import type { Metrics } from "./metrics.ts";
import type { HttpParts } from "./parts.ts";
import { route, type Route } from "./route.ts";

const readiness = z.strictObject({
  ready: z.boolean(),
  parts: z.array(
    z.strictObject({ name: z.string(), state: z.string(), detail: z.string().exactOptional() }),
  ),
});

const status = z.looseObject({
  service: z.string(),
  version: z.string(),
  ...readiness.shape,
});

export function healthRoutes(parts: HttpParts, metrics: Metrics): Route[] {
  return [
    route({
      method: "GET",
      path: "/healthz",
      site: "both",
      access: "public",
      id: "health",
      summary: "Answers while the service lives",
      answers: { 200: { description: "It lives", content: { "text/plain": "text" } } },
      handle(_, ctx) {
        ctx.set("Cache-Control", "no-store");
        ctx.body = "ok\n";
      },
    }),
    route({
      method: "GET",
      path: "/readyz",
      site: "both",
      access: "public",
      id: "readiness",
      summary: "Whether it can sign, and what is locked or missing",
      answers: {
        200: { description: "Ready", content: { [JSON_TYPE]: readiness } },
        503: { description: "Not ready", content: { [JSON_TYPE]: readiness } },
      },
      async handle(_, ctx) {
        const state = await parts.readiness();
        ctx.set("Cache-Control", "no-store");
        ctx.status = state.ready ? 200 : 503;
        ctx.body = state;
      },
    }),
    route({
      method: "GET",
      path: "/v1/status",
      site: "api",
      access: "anyone",
      id: "status",
      summary: "The state of the service; operators see all of it",
      answers: { 200: { description: "The state", content: { [JSON_TYPE]: status } } },
      async handle({ caller }, ctx) {
        const summary = {
          service: parts.service,
          version: parts.version,
          ...(await parts.readiness()),
        };
        ctx.body =
          caller?.kind === "operator" ? { ...(await everything(parts)), ...summary } : summary;
      },
    }),
    route({
      method: "GET",
      path: "/metrics",
      site: "api",
      access: "metrics",
      id: "metrics",
      summary: "Numbers for Prometheus",
      answers: {
        200: { description: "Text exposition format", content: { "text/plain": "text" } },
      },
      async handle(_, ctx) {
        const [state, measurements] = await Promise.all([parts.readiness(), parts.measurements()]);
        ctx.set("Cache-Control", "no-store");
        ctx.body = await metrics.text(state, measurements);
        ctx.type = metrics.contentType;
      },
    }),
  ];
}

async function everything(parts: HttpParts): Promise<Record<string, unknown>> {
  const [own, counts] = await Promise.all([parts.status(), parts.reads.counts()]);
  return {
    ...own,
    issuers: parts.issuers.list().map(issuerJson),
    requesters: parts.requesters.list().length,
    counts,
  };
}
