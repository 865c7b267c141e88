/** The two sites of the service: the API (https), and what relying parties read (plain http). */

import Router from "@koa/router";
import Koa from "koa";
import { z } from "zod";
import { CountersignError } from "../errors.ts";
import { JSON_TYPE } from "./accept.ts";
import { createAuthentication, noCredentials } from "./authentication.ts";
import { ceremonyRoutes } from "./ceremony-routes.ts";
import { certificateRoutes } from "./certificate-routes.ts";
import { healthRoutes } from "./health-routes.ts";
import { issuerRoutes } from "./issuer-routes.ts";
import { keyRoutes } from "./key-routes.ts";
import { logRoutes } from "./log-routes.ts";
import { createMetrics, metricsGuard } from "./metrics.ts";
import { openApiDocument } from "./openapi.ts";
import type { HttpParts } from "./parts.ts";
import { policyRoutes } from "./policy-routes.ts";
import { problemPage } from "./problem.ts";
import { publicationRoutes } from "./publication-routes.ts";
import { Changes, requestFrame, type FrameParts } from "./request-frame.ts";
import { requesterRoutes } from "./requester-routes.ts";
import { revocationRoutes } from "./revocation-routes.ts";
import { rosterRoutes } from "./roster-routes.ts";
import { route, routeMiddleware, type Guard, type RequestState, type Route } from "./route.ts";
import { createSessions } from "./sessions.ts";
import { sessionRoutes } from "./session-routes.ts";
import { unlockRoutes } from "./unlock-routes.ts";

export const DEADLINE_MILLISECONDS = 30_000;

export interface Sites {
  /** For an https server with `requestCert: true, rejectUnauthorized: false`. */
  readonly api: Koa<RequestState>;
  /** For a plain http server. */
  readonly publicSite: Koa<RequestState>;
  readonly routes: readonly Route[];
  /**
   * From now on what would change something is refused as `service-stopping`, and every answer ends its connection.
   *
   * @returns When the changes under way are finished.
   */
  stop(): Promise<void>;
}

export function createApi(parts: HttpParts): Sites {
  const sessions = createSessions(parts);
  const metrics = createMetrics();
  const guard: Guard = {
    authentication: createAuthentication(parts.requesters, sessions),
    checkMetricsKey: metricsGuard(parts.metricsKeySha256),
  };
  // Whoever sent a key in clear must not learn that it works.
  const publicGuard: Guard = {
    authentication: noCredentials,
    checkMetricsKey: metricsGuard(undefined),
  };
  const changes = new Changes();
  const routes: Route[] = [
    // The busiest first: the router tries them in this order.
    ...certificateRoutes(parts),
    ...issuerRoutes(parts),
    ...revocationRoutes(parts),
    ...logRoutes(parts),
    ...sessionRoutes(parts, sessions),
    ...requesterRoutes(parts),
    ...ceremonyRoutes(parts),
    ...unlockRoutes(parts),
    ...keyRoutes(parts),
    ...rosterRoutes(parts),
    ...policyRoutes(parts),
    ...healthRoutes(parts, metrics),
    ...publicationRoutes(parts),
  ];
  routes.push(...descriptionRoutes(parts, routes));
  const frame: FrameParts = {
    changes,
    logger: parts.logger,
    random: parts.random,
    deadlineMilliseconds: parts.deadlineMilliseconds ?? DEADLINE_MILLISECONDS,
    denied: () => parts.denied(),
    count: (...request) => metrics.count(...request),
  };
  return {
    api: siteOf(
      routes.filter(({ site }) => site !== "public"),
      guard,
      frame,
    ),
    publicSite: siteOf(
      routes.filter(({ site }) => site !== "api"),
      publicGuard,
      frame,
    ),
    routes,
    stop: () => changes.stop(),
  };
}

function descriptionRoutes(parts: HttpParts, others: readonly Route[]): Route[] {
  let text: string | undefined;
  const own: Route[] = [
    route({
      method: "GET",
      path: "/openapi.json",
      site: "api",
      access: "public",
      id: "openapi",
      summary: "This description",
      answers: { 200: { description: "OpenAPI 3.1", content: { [JSON_TYPE]: z.looseObject({}) } } },
      handle(_, ctx) {
        text ??= JSON.stringify(openApiDocument([...others, ...own], parts));
        ctx.type = JSON_TYPE;
        ctx.body = text;
      },
    }),
    route({
      method: "GET",
      path: "/problems/:code",
      site: "both",
      access: "public",
      id: "explainProblem",
      summary: "What a problem means and what to do about it",
      params: z.strictObject({ code: z.string().max(64) }),
      answers: { 200: { description: "For a person", content: { "text/plain": "text" } } },
      handle({ params }, ctx) {
        ctx.type = "text/plain; charset=utf-8";
        ctx.body = problemPage(params.code);
      },
    }),
  ];
  return own;
}

function siteOf(routes: readonly Route[], guard: Guard, frame: FrameParts): Koa<RequestState> {
  const app = new Koa<RequestState>();
  const router = new Router<RequestState>({ sensitive: true, strict: true });
  for (const one of routes) {
    router.register(one.path, [one.method], routeMiddleware(one, guard));
  }
  app.use(requestFrame(frame));
  app.use(router.routes());
  app.use((ctx) => {
    const allow = allowedMethods(router, ctx.path);
    throw allow.length === 0
      ? new CountersignError("route-unknown", "no route has this path")
      : new CountersignError("method-not-allowed", `this takes ${allow.join(", ")}`, {
          members: { allow },
        });
  });
  // Only what happens outside the frame comes here: a client that went away while it was answered.
  app.on("error", (error: Error) => {
    frame.logger.debug({ error: error.message }, "response not delivered");
  });
  return app;
}

function allowedMethods(router: Router<RequestState>, path: string): string[] {
  const methods = router.match(path, "").path.flatMap((layer) => layer.methods);
  return [...new Set(methods)].toSorted();
}
