/**
 * A route as one value: the router is built from it and the OpenAPI document as well, so that what is
 * described is what is checked.
 */

import type { IncomingMessage } from "node:http";
import type Koa from "koa";
import { z } from "zod";
import { CountersignError } from "../errors.ts";
import type { Caller } from "../issuance/caller.ts";
import type { Authentication } from "./authentication.ts";
import { jsonFrom, mediaTypeOf, readBody } from "./body.ts";
import { JSON_TYPE } from "./accept.ts";

/** What a request carries on its way, for the log line and the problem document. */
export interface RequestState {
  requestId: string;
  /** The pattern, never the path: a path may hold anything. */
  route?: string;
  caller?: Caller;
}

export type ApiContext = Koa.ParameterizedContext<RequestState>;

/**
 * Who may use a route. `public`: credentials are not even looked at. `anyone`: not needed, but wrong ones are
 * refused. `metrics`: its own key and nothing else.
 */
export type Access = "public" | "anyone" | "caller" | "operator" | "metrics";

type OperatorCaller = Extract<Caller, { kind: "operator" }>;

export type CallerFor<A extends Access> = A extends "operator"
  ? OperatorCaller
  : A extends "caller"
    ? Caller
    : A extends "anyone"
      ? Caller | undefined
      : undefined;

/** One representation of an answer or a body. */
export type Content = z.ZodType | "binary" | "text";

export interface Described {
  readonly description: string;
  readonly content?: Readonly<Record<string, Content>>;
  readonly headers?: Readonly<Record<string, string>>;
}

/** A body that the route reads itself, because it comes in more than one media type. */
export interface RawBody {
  readonly mediaType: string;
  readonly octets: Uint8Array;
}

export interface RouteRequest<A extends Access, P, Q, B> {
  readonly caller: CallerFor<A>;
  readonly params: P;
  readonly query: Q;
  readonly body: B;
  readonly requestId: string;
}

export interface RouteDefinition<A extends Access, P, Q, B> {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  /** In the router's syntax: `/v1/issuers/:issuer`. */
  readonly path: string;
  /** Where it is served: the API (https), the public site (http), or both. */
  readonly site: "api" | "public" | "both";
  readonly access: A;
  readonly id: string;
  readonly summary: string;
  readonly description?: string;
  readonly params?: z.ZodType<P>;
  readonly query?: z.ZodType<Q>;
  readonly headers?: Readonly<
    Record<string, { readonly schema: z.ZodType; readonly text: string }>
  >;
  /** JSON, checked by this schema. */
  readonly body?: z.ZodType<B>;
  /** Instead of `body`: the media types that the route reads itself. */
  readonly bodies?: Readonly<Record<string, Content>>;
  /** The most that its body may have; {@link BODY_OCTETS} when absent. */
  readonly bodyOctets?: number;
  readonly answers: Readonly<Record<number, Described>>;
  handle(request: RouteRequest<A, P, Q, B>, ctx: ApiContext): void | Promise<void>;
}

/** A route without its types: what a list of routes holds. */
export interface Route extends Pick<
  RouteDefinition<Access, unknown, unknown, unknown>,
  | "method"
  | "path"
  | "site"
  | "access"
  | "id"
  | "summary"
  | "description"
  | "params"
  | "query"
  | "headers"
  | "body"
  | "bodies"
  | "bodyOctets"
  | "answers"
> {
  run(ctx: ApiContext, caller: Caller | undefined, input: RouteInput): void | Promise<void>;
}

interface RouteInput {
  readonly params: unknown;
  readonly query: unknown;
  readonly body: unknown;
}

export function route<A extends Access, P = undefined, Q = undefined, B = undefined>(
  definition: RouteDefinition<A, P, Q, B>,
): Route {
  return {
    ...definition,
    // The schemas have checked the input and the guard the caller, so these are what the types say.
    run: (ctx, caller, { params, query, body }) =>
      definition.handle(
        {
          caller: caller as CallerFor<A>,
          params: params as P,
          query: query as Q,
          body: body as B,
          requestId: ctx.state.requestId,
        },
        ctx,
      ),
  };
}

/** A route that reads its body itself, as one of the media types in `bodies`. */
export function rawBodyRoute<A extends Access, P = undefined, Q = undefined>(
  definition: RouteDefinition<A, P, Q, RawBody>,
): Route {
  return route(definition);
}

export interface Guard {
  readonly authentication: Authentication;
  /** @throws CountersignError `unauthenticated` unless the request carries the metrics key. */
  checkMetricsKey(request: IncomingMessage): void;
}

/** The one middleware of a route: who asks, then what, then the handler. */
export function routeMiddleware(
  route: Route,
  guard: Guard,
): (ctx: ApiContext & { params: Record<string, string> }) => Promise<void> {
  const { params, query, body, bodies, bodyOctets, access, method } = route;
  const changes = method !== "GET";
  const personal = route.path.startsWith("/v1/");
  const mediaTypes = bodies === undefined ? [JSON_TYPE] : Object.keys(bodies);
  return async (ctx) => {
    ctx.state.route = route.path;
    if (personal) ctx.set("Cache-Control", "no-store");
    if (changes) refuseCrossSite(ctx.req);
    const caller = await identify(ctx, access, guard);
    const input = {
      params: params === undefined ? undefined : check(params, ctx.params, "path"),
      query: readQuery(ctx, query, access),
      body: undefined as unknown,
    };
    if (bodies !== undefined) {
      const mediaType = mediaTypeOf(ctx.req, mediaTypes);
      input.body = { mediaType, octets: await readBody(ctx.req, bodyOctets) } satisfies RawBody;
    } else if (body !== undefined) {
      mediaTypeOf(ctx.req, mediaTypes);
      input.body = check(body, jsonFrom(await readBody(ctx.req, bodyOctets)), "body");
    }
    await route.run(ctx, caller, input);
  };
}

async function identify(
  ctx: ApiContext,
  access: Access,
  guard: Guard,
): Promise<Caller | undefined> {
  if (access === "public") return undefined;
  if (access === "metrics") {
    guard.checkMetricsKey(ctx.req);
    return undefined;
  }
  const caller = await guard.authentication.callerOf(ctx.req);
  if (caller === undefined) {
    if (access === "anyone") return undefined;
    throw new CountersignError("unauthenticated", "this needs credentials");
  }
  ctx.state.caller = caller;
  if (access === "operator" && caller.kind !== "operator") {
    throw new CountersignError(
      "forbidden",
      "this is for operators: sign in with countersign login",
    );
  }
  return caller;
}

/**
 * A browser may hold a client certificate and sends it with requests that any page makes. Those are told apart
 * by a header that pages cannot set; other programs do not send it.
 */
function refuseCrossSite(request: IncomingMessage): void {
  const site = request.headers["sec-fetch-site"];
  if (site !== undefined && site !== "same-origin" && site !== "none") {
    throw new CountersignError(
      "forbidden",
      "requests from pages of other sites change nothing here",
    );
  }
}

const noQuery = z.strictObject({});

function readQuery(ctx: ApiContext, schema: z.ZodType | undefined, access: Access): unknown {
  if (schema === undefined) {
    // What is public may stand behind a cache that adds parameters of its own.
    if (ctx.querystring !== "" && access !== "public") check(noQuery, ctx.query, "query");
    return undefined;
  }
  return check(schema, ctx.query, "query");
}

/** The most errors that one answer lists. */
const ERRORS = 20;

/**
 * Checks a value from outside.
 *
 * @param place - Where it stood, the first part of every `path` in `errors`.
 * @throws CountersignError `request-malformed` with `errors: [{ path, message }]`.
 */
export function check<T>(schema: z.ZodType<T>, value: unknown, place: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const errors = result.error.issues.flatMap((issue) => {
    const path = [place, ...issue.path.map(String)].join(".");
    return issue.code === "unrecognized_keys"
      ? issue.keys.map((key) => ({ path: `${path}.${key}`, message: "unknown field" }))
      : [{ path, message: issue.message }];
  });
  throw new CountersignError("request-malformed", `${errors[0]!.path}: ${errors[0]!.message}`, {
    members: { errors: errors.slice(0, ERRORS) },
  });
}
