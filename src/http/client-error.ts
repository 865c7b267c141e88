/** The answer to what is no HTTP request, and so never comes to the application. */

import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { problems } from "./problem.ts";

/** How long a client has to read the answer. Cut at once, it would often not see it: it is still sending. */
const READING_MILLISECONDS = 1_000;

/**
 * Answers with a problem document and ends the connection. Nothing is logged: what was sent may hold a credential in
 * a place where nobody looks for one.
 */
export function answerClientErrors(server: Server): void {
  const exchanges = new WeakMap<Duplex, Exchange>();
  const ended = new WeakSet<Duplex>();
  server.on("request", (request: IncomingMessage, response: ServerResponse) =>
    exchanges.set(request.socket, { request, response }),
  );
  server.on("clientError", (error: NodeJS.ErrnoException, socket: Duplex) => {
    if (ended.has(socket)) return; // it goes on sending
    ended.add(socket);
    const refusal = refusalOf(error.code);
    if (refusal === undefined || !socket.writable || isWaiting(exchanges.get(socket))) {
      socket.destroy();
      return;
    }
    socket.end(responseTo(refusal));
    const timer = setTimeout(() => socket.destroy(), READING_MILLISECONDS).unref();
    socket.once("close", () => clearTimeout(timer));
  });
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

/** Whether a client would take what comes now for the answer to its request before, or for a part of that. */
function isWaiting(exchange: Exchange | undefined): boolean {
  if (exchange === undefined || exchange.response.writableFinished) return false;
  return exchange.request.complete || exchange.response.headersSent;
}

interface Refusal {
  readonly status: number;
  readonly reason: string;
  readonly detail: string;
}

/** Nothing for what ends a connection before there is HTTP on it, such as a handshake that fails. */
function refusalOf(code = ""): Refusal | undefined {
  if (code === "HPE_HEADER_OVERFLOW") {
    return {
      status: 431,
      reason: "Request Header Fields Too Large",
      detail: "the request's headers are longer than 16 KiB",
    };
  }
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") {
    return {
      status: 408,
      reason: "Request Timeout",
      detail: "the request did not arrive in time",
    };
  }
  if (code.startsWith("HPE_")) {
    return { status: 400, reason: "Bad Request", detail: "this is not an HTTP request" };
  }
  return undefined;
}

function responseTo({ status, reason, detail }: Refusal): string {
  const code = "request-malformed";
  const body = JSON.stringify({
    type: `/problems/${code}`,
    title: problems[code].title,
    status,
    detail,
    code,
  });
  return [
    `HTTP/1.1 ${status} ${reason}`,
    "Content-Type: application/problem+json",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "Cache-Control: no-store",
    "Connection: close",
    "",
    body,
  ].join("\r\n");
}
