/** What is no HTTP request, over a TLS connection of its own. */

import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { connect, type TLSSocket } from "node:tls";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { answerClientErrors } from "../../src/http/client-error.ts";
import { makePair } from "../support/http-sites.ts";

const pair = makePair("countersign.test");
let server: Server;
let requests = 0;

beforeAll(async () => {
  server = createServer(
    { key: pair.key, cert: pair.certificate, requestTimeout: 300, connectionsCheckingInterval: 50 },
    (_, response) => {
      requests++;
      void pause(100).then(() => response.end("answer"));
    },
  );
  answerClientErrors(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});

afterAll(() => server.close());

/** Everything that the server sends until it ends the connection. */
async function exchange(...sent: string[]): Promise<string> {
  const { port } = server.address() as AddressInfo;
  let received = "";
  await new Promise<void>((resolve) => {
    const socket: TLSSocket = connect({ port, host: "127.0.0.1", ca: pair.certificate }, () => {
      for (const text of sent) socket.write(text);
    });
    socket.setEncoding("utf8").on("data", (text: string) => (received += text));
    socket.on("error", () => {}); // a server that cuts the connection
    socket.once("close", () => resolve());
  });
  return received;
}

test.for([
  { name: "a request line that is none", sent: ["secret garbage\r\n\r\n"], status: 400 },
  {
    name: "a header over 16 KiB",
    sent: [`GET / HTTP/1.1\r\nHost: a\r\nAuthorization: ${"secret".repeat(4000)}\r\n\r\n`],
    status: 431,
  },
  {
    name: "header after header",
    sent: [
      "GET / HTTP/1.1\r\nHost: a\r\n",
      ...Array.from({ length: 400 }, () => `X: ${"secret".repeat(20)}\r\n`),
    ],
    status: 431,
  },
  {
    name: "a body whose length is no number",
    sent: ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: secret\r\n\r\n"],
    status: 400,
  },
  {
    name: "a chunk whose length is no number",
    sent: ["POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n"],
    status: 400,
  },
  { name: "a request that does not end", sent: ["GET / HTTP/1.1\r\nX-Secret"], status: 408 },
])("$name is answered $status with a problem document", async ({ sent, status }) => {
  const answer = await exchange(...sent);
  const [head, body] = answer.split("\r\n\r\n") as [string, string];
  expect(head).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
  expect(head).toContain("\r\nContent-Type: application/problem+json\r\n");
  expect(head).toMatch(/\r\nConnection: close(\r\n|$)/);
  expect(head).toContain(`\r\nContent-Length: ${body.length}\r\n`);
  expect(JSON.parse(body)).toMatchObject({ type: "/problems/request-malformed", status });
  expect(answer).not.toMatch(/secret/i);
});

test("garbage behind a request is not taken for its answer", async () => {
  requests = 0;
  const answer = await exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "garbage\r\n\r\n");
  expect(answer).toBe("");
  expect(requests).toBe(1);
});

test("after an answered request, garbage is answered as well", async () => {
  const { port } = server.address() as AddressInfo;
  const socket = connect({ port, host: "127.0.0.1", ca: pair.certificate });
  socket.setEncoding("utf8");
  let received = "";
  socket.on("data", (text: string) => {
    if (received === "") socket.write("garbage\r\n\r\n");
    received += text;
  });
  socket.on("error", () => {});
  socket.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  await new Promise<void>((resolve) => socket.once("close", () => resolve()));
  expect(received).toMatch(/^HTTP\/1.1 200 OK[^]*answer[^]*HTTP\/1.1 400 Bad Request/);
});
