/** Around every request: its id, its deadline, its problem document, one log line and one count. */

import { performance } from "node:perf_hooks";
import type { Middleware } from "koa";
import type { Logger } from "pino";
import { CountersignError } from "../errors.ts";
import { BODY_OCTETS } from "./body.ts";
import { problemFrom } from "./problem.ts";
import type { ApiContext, RequestState } from "./route.ts";

/** What a client may choose as its request id; anything else is replaced. */
const sane = /^[A-Za-z0-9._-]{1,64}$/;

/** The requests that change something: when the service stops it finishes those it has and takes no more. */
export class Changes {
  readonly #underWay = new Set<Promise<unknown>>();
  #stopping = false;

  get stopping(): boolean {
    return this.#stopping;
  }

  /** @throws CountersignError `service-stopping`. */
  begin(work: () => Promise<unknown>): Promise<unknown> {
    if (this.#stopping) {
      throw new CountersignError("service-stopping", "the service is stopping");
    }
    const promise = work();
    this.#underWay.add(promise);
    const over = (): void => void this.#underWay.delete(promise);
    promise.then(over, over);
    return promise;
  }

  /** @returns When those under way are finished, also those whose client has gone away. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.allSettled(this.#underWay);
  }
}

const readingMethods = new Set(["GET", "HEAD", "OPTIONS"]);

export interface FrameParts {
  readonly logger: Logger;
  readonly random: (size: number) => Uint8Array;
  readonly deadlineMilliseconds: number;
  readonly changes: Changes;
  /** Called when somebody without valid credentials was refused. */
  denied(): void;
  /** @param seconds - From the request's headers to its answer. */
  count(method: string, route: string, status: number, seconds: number): void;
}

export function requestFrame(parts: FrameParts): Middleware<RequestState> {
  const { logger, changes } = parts;
  const newRequestId = requestIds(parts.random);
  return async (ctx: ApiContext, next) => {
    const started = performance.now();
    const given = ctx.headers["x-request-id"];
    const requestId = typeof given === "string" && sane.test(given) ? given : newRequestId();
    ctx.state.requestId = requestId;
    let code: string | undefined;
    let failure: unknown;
    let work: Promise<unknown> | undefined;
    try {
      work = readingMethods.has(ctx.method) ? next() : changes.begin(next);
      await withDeadline(work, parts.deadlineMilliseconds);
    } catch (error) {
      const problem = problemFrom(error, requestId);
      code = problem.code ?? "internal";
      if (problem.code === undefined) failure = error;
      if (problem.code === "unauthenticated") parts.denied();
      if (problem.code === "deadline-exceeded") {
        work?.catch((late: unknown) => {
          logger.error({ requestId, error: stackOf(late) }, "failed after its deadline");
        });
      }
      ctx.status = problem.status;
      ctx.body = JSON.stringify(problem.body);
      ctx.type = "application/problem+json";
      // What the handler prepared before it failed describes another answer.
      for (const name of ["ETag", "Last-Modified", "Location", "Idempotency-Replayed"]) {
        ctx.remove(name);
      }
      ctx.set("Cache-Control", "no-store");
      ctx.set(problem.headers);
      dropUnreadBody(ctx);
    }
    ctx.set("X-Request-Id", requestId);
    ctx.set("X-Content-Type-Options", "nosniff");
    // The client is told before the connection goes, so that no further request of its is on the way then.
    if (changes.stopping) ctx.set("Connection", "close");
    const milliseconds = performance.now() - started;
    const { status } = ctx;
    const route = ctx.state.route ?? "unknown";
    const caller = ctx.state.caller;
    const line = {
      requestId,
      method: ctx.method,
      route,
      status,
      milliseconds: Math.round(milliseconds * 100) / 100,
      ...(caller === undefined ? {} : { caller: caller.id, via: caller.via }),
      ...(code === undefined ? {} : { code }),
      ...(failure === undefined ? {} : { error: stackOf(failure) }),
    };
    if (status >= 500) logger.error(line, "request");
    else logger.info(line, "request");
    parts.count(ctx.method, route, status, milliseconds / 1000);
  };
}

/** 32 hex digits: half random for the process, half a count. They need to differ, not to be secret. */
function requestIds(random: (size: number) => Uint8Array): () => string {
  const process = Buffer.from(random(8)).toString("hex");
  let count = 0;
  return () => process + (++count).toString(16).padStart(16, "0");
}

/** Where and what, without the properties that libraries hang on their errors (values, SQL parameters). */
function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : typeof error;
}

async function withDeadline(work: Promise<unknown>, milliseconds: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(
        new CountersignError(
          "deadline-exceeded",
          `not finished within ${milliseconds / 1000} s; it may still finish`,
        ),
      );
    }, milliseconds);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Node reads the rest of a refused body to keep the connection; one without a small end loses it instead. */
function dropUnreadBody(ctx: ApiContext): void {
  if (ctx.req.complete) return;
  const length = ctx.req.headers["content-length"];
  const chunked = ctx.req.headers["transfer-encoding"] !== undefined;
  if (chunked || (length !== undefined && Number(length) > BODY_OCTETS)) {
    ctx.set("Connection", "close");
  }
}
