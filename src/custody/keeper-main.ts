/**
 * The keeper: `keeper-main.js CONFIG` with frames on descriptor 3, as a child of the service; or
 * `keeper-main.js CONFIG --listen SOCKET` as a user of its own behind a Unix socket, for one connection at a time; with
 * `--allow-group` the group of this process may connect.
 * With its connection it ends, and its signers with it; a service manager starts it again.
 */

import { outliveSignals } from "./harden.ts";
import { randomBytes } from "node:crypto";
import { lstatSync, unlinkSync } from "node:fs";
import { createServer, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { parseArgs } from "node:util";
import { openFrames } from "./frames.ts";
import { readKeeperConfig } from "./keeper-config.ts";
import { toKeeperProtocol, type FromKeeper, type ToKeeper } from "./keeper-protocol.ts";
import { createKeeper, type Keeper } from "./keeper.ts";
import { refusalOf } from "./refusal.ts";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { listen: { type: "string" }, "allow-group": { type: "boolean", default: false } },
});
const [configFile] = positionals;

let send: (message: FromKeeper, ...body: readonly Uint8Array[]) => void = () => {};
let keeper: Keeper | undefined;
let failure: unknown;
try {
  if (configFile === undefined)
    throw new Error("usage: keeper-main.js CONFIG [--listen SOCKET [--allow-group]]");
  keeper = createKeeper({
    config: readKeeperConfig(configFile),
    now: () => new Date(),
    monotonic: () => performance.now() / 1000,
    random: randomBytes,
    send: (message, ...body) => send(message, ...body),
  });
} catch (error) {
  failure = error;
}

if (values.listen === undefined) {
  outliveSignals();
  serve(new Socket({ fd: 3 }));
} else if (keeper === undefined) {
  end(failure);
} else {
  listen(values.listen);
}

function serve(socket: Duplex): void {
  const frames = openFrames<ToKeeper, FromKeeper>(socket, toKeeperProtocol, {
    onMessage(message, body) {
      if (keeper === undefined) throw new Error("the keeper has not started");
      keeper.receive(message, body);
    },
    onEnd: end,
  });
  send = (message, ...body) => frames.send(message, ...body);
  if (keeper === undefined) {
    send({ type: "failed", ...refusalOf(failure) }); // and ends when the service has read it
  } else {
    void keeper.ready.then(() => send({ type: "ready" }));
  }
}

function listen(path: string): void {
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => end());
  // Ours alone from its first moment, or for our group as well: that of the service.
  process.umask(values["allow-group"] ? 0o117 : 0o177);
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true) unlinkSync(path);
  const server = createServer((socket) => {
    server.close(); // nobody else, while this connection lasts
    serve(socket);
  });
  server.on("error", end);
  // What it and its processes make later is its own; a folder without the bit that the socket lacks could not be used.
  server.listen(path, () => process.umask(0o077));
}

function end(error?: unknown): void {
  keeper?.stop();
  if (error !== undefined) console.error("keeper:", error instanceof Error ? error.message : error);
  process.exit(error === undefined ? 0 : 1);
}
