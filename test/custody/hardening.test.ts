import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { existsSync, readFileSync, readdirSync, readlinkSync, statSync } from "node:fs";
import { createConnection, createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from "vitest";
import { connectKeeper, type KeeperClient } from "../../src/custody/keeper-client.ts";
import { startDealer } from "../../src/custody/dealer-process.ts";
import { startOpenedSigner } from "../../src/custody/opened-signer.ts";
import {
  appRoot,
  mainModule,
  networkIsolation,
  startProcess,
  type ProcessKind,
} from "../../src/custody/process-flags.ts";
import { startUnlocker } from "../../src/custody/unlocker-process.ts";
import { isAlive, newKeeperHome, pidsOf, type KeeperHome } from "./keeper-home.ts";
import { FollowedLog } from "./opened-key.ts";

let home: KeeperHome;
let keeper: KeeperClient | undefined;
beforeAll(async () => {
  home = await newKeeperHome();
});
afterAll(() => home.remove());
afterEach(async () => {
  await keeper?.close();
  keeper = undefined;
});

const processes = ["keeper", "signer", "dealer", "unlocker", "opened signer"] as const;

/** A keeper and its signer; and the processes of an unlock, that they have begun to work. */
async function started(): Promise<Record<(typeof processes)[number], number>> {
  keeper = await home.start();
  const pid = pidsOf("keeper", process.pid)[0]!;
  const signer = startOpenedSigner({ log: new FollowedLog().feed, statements: () => [] });
  const unlocker = startUnlocker({ handOff: signer.handOff, gatherSeconds: 600 });
  const dealer = startDealer({});
  onTestFinished(() => {
    for (const one of [signer, unlocker, dealer]) one.kill();
  });
  await unlocker.begin();
  for (const one of [signer, dealer]) {
    // oxlint-disable-next-line no-await-in-loop -- they start side by side
    await expect.poll(() => coredumpFilter(one.pid!), { timeout: 10_000 }).toBe("00000000");
  }
  return {
    keeper: pid,
    signer: pidsOf("signer", pid)[0]!,
    dealer: dealer.pid!,
    unlocker: unlocker.pid!,
    "opened signer": signer.pid!,
  };
}

function coredumpFilter(pid: number): string {
  return readFileSync(`/proc/${pid}/coredump_filter`, "utf8").trim();
}

function compiled(name: string): string {
  return join(appRoot, "dist", "test", "custody", name);
}

/** Sockets on which a process listens, by Linux's own account. */
function listeningSockets(pid: number): string[] {
  const listening = new Set<string>();
  for (const table of ["tcp", "tcp6"]) {
    for (const line of readFileSync(`/proc/${pid}/net/${table}`, "utf8").split("\n").slice(1)) {
      const fields = line.trim().split(/\s+/);
      if (fields[3] === "0A") listening.add(`socket:[${fields[9]}]`);
    }
  }
  return readdirSync(`/proc/${pid}/fd`)
    .map((descriptor) => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${descriptor}`);
      } catch {
        return "";
      }
    })
    .filter((link) => listening.has(link));
}

function environmentOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/environ`, "utf8")
    .split("\0")
    .filter((entry) => entry !== "");
}

const tokenProcess = { addon: "done", pollution: "done", connection: "done" };
const disabledAddon = "ERR_DLOPEN_DISABLED";
const isolated = networkIsolation() === "own-namespace" ? "ENETUNREACH" : "done";

test.for<{ kind: ProcessKind; outcome: Readonly<Record<string, string>> }>([
  { kind: "signer", outcome: { allowedFile: "done", ...tokenProcess } },
  { kind: "dealer-token", outcome: tokenProcess },
  { kind: "dealer", outcome: { pollution: "TypeError", connection: isolated } },
  { kind: "unlocker", outcome: { pollution: "TypeError", connection: isolated } },
  { kind: "signer-software", outcome: { pollution: "done", connection: isolated } },
])("ST-53: a process of kind $kind can do nothing but its work", async ({ kind, outcome }) => {
  const listener = createServer().listen(0, "127.0.0.1");
  onTestFinished(() => void listener.close());
  await new Promise((resolve) => listener.once("listening", resolve));
  const { port } = listener.address() as AddressInfo;
  const child = startProcess({
    kind,
    module: compiled("permission-probe.js"),
    arguments: [home.pinFile, join(home.directory, "log.key"), String(port)],
    readFiles: kind === "signer" ? [home.pinFile] : [],
    environment: {},
  });
  const outcomes = JSON.parse(await text(child.stdio[3] as Duplex)) as Record<string, string>;
  expect(outcomes).toEqual({
    permission: "object",
    allowedFile: "ERR_ACCESS_DENIED",
    passwd: "ERR_ACCESS_DENIED",
    forbiddenFile: "ERR_ACCESS_DENIED",
    memory: "ERR_ACCESS_DENIED",
    folder: "ERR_ACCESS_DENIED",
    write: "ERR_ACCESS_DENIED",
    spawn: "ERR_ACCESS_DENIED",
    worker: "ERR_ACCESS_DENIED",
    inspector: "ERR_ACCESS_DENIED",
    inspectorSession: "ERR_ACCESS_DENIED",
    heapSnapshot: "ERR_ACCESS_DENIED",
    report: "ERR_ACCESS_DENIED",
    code: "EvalError",
    prototype: "ERR_PROTO_ACCESS",
    addon: disabledAddon,
    ...outcome,
  });
});

test("ST-54: SIGUSR1 opens no inspector in any process", async () => {
  const control = spawn(
    process.execPath,
    ["--inspect-port=0", "-e", "setInterval(() => {}, 1000); console.log('up')"],
    {
      stdio: ["ignore", "pipe", "ignore"],
    },
  );
  await new Promise((resolve) => control.stdout.once("data", resolve));
  control.kill("SIGUSR1");
  await expect.poll(() => listeningSockets(control.pid!).length, { timeout: 10_000 }).toBe(1);
  control.kill("SIGKILL");

  const pids = await started();
  for (const name of processes) process.kill(pids[name], "SIGUSR1");
  // Longer than the process above took, in answers of both.
  for (let count = 0; count < 300; count++) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
    const [key] = (await keeper!.status()).keys;
    expect(key!.state).toBe("open");
  }
  for (const name of processes) expect(listeningSockets(pids[name]), name).toEqual([]);
});

test.for(processes)("ST-55: the %s leaves no core, though its parent would", async (name) => {
  execFileSync("prlimit", ["--pid", String(process.pid), "--core=unlimited"]);
  const pids = await started();
  const pid = pids[name];
  expect(readFileSync(`/proc/${pid}/limits`, "utf8")).toMatch(/Max core file size +0 +0 /);
  expect(coredumpFilter(pid)).toBe("00000000");
  const folder = readlinkSync(`/proc/${pid}/cwd`);
  process.kill(pid, "SIGABRT");
  await expect.poll(() => isAlive(pid)).toBe(false);
  expect(readdirSync(folder).filter((file) => file.startsWith("core"))).toEqual([]);
});

test("ST-56: environments are empty but for what the configuration names", async () => {
  const pids = await started();
  const { signer, ...others } = pids;
  expect(environmentOf(signer)).toEqual([`SOFTHSM2_CONF=${join(home.directory, "softhsm2.conf")}`]);
  for (const [name, pid] of Object.entries(others)) expect(environmentOf(pid), name).toEqual([]);
});

test("ST-57: NODE_OPTIONS of the service does not reach its children", async () => {
  process.env.NODE_OPTIONS = "--inspect=0";
  try {
    const pids = await started();
    for (const name of processes) {
      expect(environmentOf(pids[name]).join(), name).not.toContain("NODE_OPTIONS");
      expect(listeningSockets(pids[name]), name).toEqual([]);
    }
  } finally {
    delete process.env.NODE_OPTIONS;
  }
});

function frame(header: string, bodyLength = 0): Buffer {
  const prefix = Buffer.alloc(8);
  prefix.writeUInt32BE(Buffer.byteLength(header), 0);
  prefix.writeUInt32BE(bodyLength, 4);
  return Buffer.concat([prefix, Buffer.from(header)]);
}

const keyId = "00".repeat(32);

test.for([
  { name: "an unknown message", bytes: frame('{"type":"getKey","id":1}') },
  {
    name: "a message with __proto__",
    bytes: frame('{"type":"status","id":1,"__proto__":{"x":1}}'),
  },
  {
    name: "a header over 64 KiB",
    bytes: frame(JSON.stringify({ type: "status", id: "x".repeat(65_536) })),
  },
  {
    name: "a batch over 1 MiB",
    bytes: frame(`{"type":"sign","id":1,"keyId":"${keyId}","requests":[[0,1,1]]}`, 1024 * 1024 + 1),
  },
  {
    name: "a CRL over 256 MiB",
    bytes: frame(
      `{"type":"sign-list","id":1,"keyId":"${keyId}","request":[0,1,1],"predecessor":0,"dropped":0}`,
      256 * 1024 * 1024 + 1,
    ),
  },
  { name: "a body that its message does not have", bytes: frame('{"type":"status","id":1}', 1) },
  {
    name: "leaf hashes of 33 octets",
    bytes: Buffer.concat([frame('{"type":"append","id":1,"first":0}', 33), Buffer.alloc(33)]),
  },
  {
    name: "a body that is not what its header says",
    bytes: Buffer.concat([
      frame(`{"type":"sign","id":1,"keyId":"${keyId}","requests":[[0,9,9]]}`, 5),
      Buffer.alloc(5),
    ]),
  },
])("ST-58: $name ends the keeper and its signers", async ({ bytes }) => {
  const child = startProcess({
    kind: "keeper",
    module: mainModule("keeper-main.js"),
    arguments: [home.configFile],
    environment: {},
  });
  const socket = child.stdio[3] as Duplex;
  await new Promise((resolve) => socket.once("data", resolve)); // ready
  const signers = pidsOf("signer", child.pid!);
  expect(signers).toHaveLength(1);
  const exit = new Promise((resolve) => child.once("exit", resolve));
  socket.on("error", () => {}); // it ends while we may still be writing
  socket.write(bytes);
  expect(await exit).toBe(1);
  await expect.poll(() => signers.filter(isAlive)).toEqual([]);
});

async function startParent(): Promise<{ parent: ChildProcess; keeper: number; signer: number }> {
  const parent = spawn(process.execPath, [compiled("keeper-parent.js"), home.configFile], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise((resolve) => parent.stdout.once("data", resolve));
  const pid = pidsOf("keeper", parent.pid!)[0]!;
  return { parent, keeper: pid, signer: pidsOf("signer", pid)[0]! };
}

test("ST-49: when the service is killed, keeper and signer end", async () => {
  const { parent, ...pids } = await startParent();
  parent.kill("SIGKILL");
  await expect.poll(() => Object.values(pids).filter(isAlive)).toEqual([]);
});

test("ST-49: when the keeper is killed, its signers end, and the service hears of it", async () => {
  const pids = await started();
  process.kill(pids.keeper, "SIGKILL");
  expect(await keeper!.ended).toBeInstanceOf(Error);
  await expect(keeper!.append(0, [])).rejects.toEqual(
    expect.objectContaining({ code: "log-unavailable" }),
  );
  await expect.poll(() => isAlive(pids.signer)).toBe(false);
});

test("a keeper of its own user listens on a socket that is its own, for one connection", async () => {
  const path = join(home.directory, "keeper.sock");
  const child = startProcess({
    kind: "keeper",
    module: mainModule("keeper-main.js"),
    arguments: [home.configFile, "--listen", path],
    environment: {},
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const exit = new Promise((resolve) => child.once("exit", resolve));
  await expect.poll(() => existsSync(path), { timeout: 10_000 }).toBe(true);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const client = await connectKeeper({ socketPath: path });
  expect((await client.status()).keys[0]!.state).toBe("open");
  const second = createConnection(path);
  const refusal = await new Promise<NodeJS.ErrnoException>((resolve) =>
    second.once("error", resolve),
  );
  expect(["ECONNREFUSED", "ENOENT"]).toContain(refusal.code);
  await client.close();
  expect(await exit).toBe(0);
});
