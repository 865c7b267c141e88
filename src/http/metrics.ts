/** Prometheus numbers: of the requests here, of the process, and whatever the domain measures. */

import { timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import { CountersignError } from "../errors.ts";
import { bearerToken } from "./authentication.ts";
import type { Measurement, Readiness } from "./parts.ts";
import { digestOfToken } from "./sessions.ts";

export interface Metrics {
  readonly contentType: string;
  count(method: string, route: string, status: number, seconds: number): void;
  text(readiness: Readiness, measurements: readonly Measurement[]): Promise<string>;
}

export function createMetrics(): Metrics {
  const requests = new Registry();
  collectDefaultMetrics({ register: requests });
  const count = new Counter({
    name: "countersign_http_requests_total",
    help: "Requests answered",
    labelNames: ["method", "route", "status"],
    registers: [requests],
  });
  const duration = new Histogram({
    name: "countersign_http_request_duration_seconds",
    help: "From a request's headers to its answer",
    labelNames: ["route"],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers: [requests],
  });
  return {
    contentType: requests.contentType,
    count(method, route, status, seconds) {
      count.inc({ method, route, status });
      duration.observe({ route }, seconds);
    },
    async text(readiness, measurements) {
      const registry = new Registry();
      measure(registry, {
        name: "ready",
        help: "1 while the service can do its work",
        kind: "gauge",
        values: [{ value: readiness.ready ? 1 : 0 }],
      });
      measure(registry, {
        name: "part_state",
        help: "1 for the present state of each part",
        kind: "gauge",
        values: readiness.parts.map(({ name, state }) => ({
          labels: { part: name, state },
          value: 1,
        })),
      });
      for (const measurement of measurements) measure(registry, measurement);
      return (await requests.metrics()) + (await registry.metrics());
    },
  };
}

function measure(registry: Registry, { name, help, kind, values }: Measurement): void {
  const options = {
    name: `countersign_${name}`,
    help,
    labelNames: [...new Set(values.flatMap(({ labels }) => Object.keys(labels ?? {})))],
    registers: [registry],
  };
  const metric = kind === "gauge" ? new Gauge(options) : new Counter(options);
  for (const { labels, value } of values) metric.inc(labels ?? {}, value);
}

/**
 * Lets only the metrics key pass; no other credential does, and the key opens nothing else.
 *
 * @param sha256 - `sha256:` and the hex digest of the key; undefined: there is none.
 */
export function metricsGuard(sha256: string | undefined): (request: IncomingMessage) => void {
  const wanted =
    sha256 === undefined ? undefined : Buffer.from(sha256.replace(/^sha256:/, ""), "hex");
  return (request) => {
    const token = bearerToken(request);
    if (
      wanted === undefined ||
      token === undefined ||
      !timingSafeEqual(Buffer.from(digestOfToken(token), "hex"), wanted)
    ) {
      throw new CountersignError("unauthenticated", "this needs the metrics key");
    }
  };
}
