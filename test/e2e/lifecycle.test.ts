/** How the service starts beside others, is told to stop, and goes on for long. */

import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { Agent, request as httpsRequest } from "node:https";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { readinessOf } from "../../src/readiness.ts";
import { Denials, oneAtATime } from "../../src/service.ts";
import { makeCsr } from "../support/csr.ts";
import { makePair, startSites } from "../support/http-sites.ts";
import {
  packageRoot,
  removeHome,
  startTestService,
  temporaryHome,
  type RunningService,
  type StartOptions,
} from "../support/service.ts";

const home = temporaryHome();
const running: RunningService[] = [];

async function started(options: StartOptions = {}): Promise<RunningService> {
  const service = await startTestService({ home, ...options });
  running.push(service);
  return service;
}

beforeAll(async () => {
  const service = await startTestService({ home });
  expect(await service.stop()).toBe(0);
});

afterEach(async () => {
  for (const service of running.splice(0)) await service.stop();
});

afterAll(() => removeHome(home));

/** Stock sqlite3, on the database of a service that has ended or runs. */
function query(sql: string): string {
  const file = join(home, "service/countersign.db");
  return execFileSync("sqlite3", ["-readonly", file, sql], { encoding: "utf8" }).trim();
}

/** Intents that have neither a result nor an end. */
function pending(): string {
  return query(
    "SELECT (SELECT count(*) FROM issued_certificate WHERE state = 'pending') || ' ' || " +
      "(SELECT count(*) FROM crl WHERE state = 'pending')",
  );
}

function entries(type: string): { data: Record<string, unknown> }[] {
  const lines = query(
    `SELECT CAST(leaf AS TEXT) FROM audit_entry
     WHERE CAST(leaf AS TEXT) LIKE '%"type":"countersign/${type}/v1"%' ORDER BY idx`,
  );
  return lines
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as { data: Record<string, unknown> });
}

function alive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // One that has ended may wait for its parent's attention, which may be the container's first process.
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  } catch {
    return false;
  }
}

interface Outcome {
  readonly status?: number;
  readonly connection?: string | undefined;
  readonly code?: string;
  readonly error?: string;
  /** Whether the request was written on a connection that had answered another before. */
  readonly reused?: boolean;
}

/** One issuance on the agent's connection. */
function issue(service: RunningService, agent: Agent, apiKey: string): Promise<Outcome> {
  return new Promise((resolve) => {
    const body = makeCsr({ dns: ["load.example.test"] });
    const request = httpsRequest({
      host: "127.0.0.1",
      port: service.apiPort,
      path: "/v1/issuers/issuing/certificates?profile=server",
      method: "POST",
      agent,
      headers: {
        authorization: `Bearer ${apiKey}`,
        "content-type": "application/pkcs10",
        "content-length": body.length,
      },
    });
    request.once("error", (error: NodeJS.ErrnoException) =>
      resolve({ error: error.code ?? error.message, reused: request.reusedSocket }),
    );
    request.once("response", (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      response.once("error", (error) => resolve({ error: error.message }));
      response.once("end", () =>
        resolve({
          status: response.statusCode!,
          connection: response.headers.connection,
          code: (JSON.parse(text) as { code?: string }).code ?? "",
        }),
      );
    });
    request.end(body);
  });
}

/** Clients with one kept connection each, which ask until they are refused. */
function load(service: RunningService, clients: number) {
  const outcomes: Outcome[] = [];
  const ca = readFileSync(service.files.tlsCertificate);
  const { apiKey } = service;
  const ended = Promise.all(
    Array.from({ length: clients }, async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1, ca });
      for (;;) {
        const outcome = await issue(service, agent, apiKey);
        outcomes.push(outcome);
        if (outcome.status !== 201) break;
      }
      agent.destroy();
    }),
  );
  return { outcomes, ended };
}

async function underLoad(service: RunningService, end: () => void): Promise<number> {
  const { outcomes, ended } = load(service, 16);
  await expect.poll(() => outcomes.length, { timeout: 30_000, interval: 20 }).toBeGreaterThan(100);
  const began = performance.now();
  end();
  expect(await service.ended).toBe(0);
  const took = performance.now() - began;
  await ended;
  const last = outcomes.filter(({ status }) => status !== 201);
  expect(last).toHaveLength(16);
  // Each of the kept connections is told, and none is cut while it asks.
  for (const { status, connection, code, error, reused } of last) {
    if (error === undefined) {
      expect([status, connection, code]).toEqual([503, "close", "service-stopping"]);
    } else {
      // It was answered with `Connection: close`, and asked again on a new one.
      expect([error, reused]).toEqual(["ECONNREFUSED", false]);
    }
  }
  expect(pending()).toBe("0 0");
  return took;
}

test("SIGTERM with 16 kept connections under load: every request is answered, no intent stays open, and it ends soon", async () => {
  const service = await started();
  const took = await underLoad(service, () => service.child.kill("SIGTERM"));
  expect(took).toBeLessThan(3000);
  console.log(`SIGTERM under load took ${Math.round(took)} ms`);
});

test("Ctrl-C reaches the whole process group, and the service still finishes what it has", async () => {
  const service = await started({ group: true });
  const { keeper, signers } = service.processes();
  const took = await underLoad(service, () => process.kill(-service.child.pid!, "SIGINT"));
  expect(took).toBeLessThan(3000);
  await expect.poll(() => [keeper, ...signers].filter(alive)).toEqual([]);
});

test("keeper and signers outlive SIGINT and SIGTERM, as a service manager sends them to all processes", async () => {
  const service = await started();
  const { keeper, signers } = service.processes();
  expect(signers).toHaveLength(1);
  for (const pid of [keeper, ...signers]) {
    process.kill(pid, "SIGINT");
    process.kill(pid, "SIGTERM");
  }
  await pause(300);
  expect([keeper, ...signers].filter(alive)).toHaveLength(2);
  expect(service.processes()).toMatchObject({ keeper, signers });
  expect(await service.stop()).toBe(0);
  await expect.poll(() => [keeper, ...signers].filter(alive)).toEqual([]);
});

test("connections that say nothing do not hold up the end", async () => {
  const service = await started();
  const silent = [service.apiPort, service.publicPort].map((port) => connect(port, "127.0.0.1"));
  await Promise.all(silent.map((socket) => new Promise((done) => socket.once("connect", done))));
  for (const socket of silent) socket.on("error", () => {});
  const began = performance.now();
  expect(await service.stop()).toBe(0);
  expect(performance.now() - began).toBeLessThan(3000);
});

test("a revocation just before the end is on a CRL", async () => {
  const service = await started();
  const serials: string[] = [];
  for (let count = 0; count < 8; count++) {
    const answer = await service.api("/v1/issuers/issuing/certificates?profile=server", {
      body: makeCsr({ dns: ["end.example.test"] }),
      headers: { "content-type": "application/pkcs10" },
    });
    serials.push(answer.json<{ serialNumber: string }>().serialNumber);
  }
  const revoke = (serial: string) =>
    service.send(
      `/v1/issuers/issuing/certificates/${serial}/revocation`,
      { reason: "superseded" },
      { method: "PUT" },
    );
  const under: Promise<{ status: number }>[] = [];
  for (const serial of serials) {
    under.push(revoke(serial));
    await pause(700);
  }
  expect(await service.stop()).toBe(0);
  expect((await Promise.all(under)).map(({ status }) => status)).toEqual(serials.map(() => 200));
  const hex = query(
    "SELECT hex(crl) FROM crl WHERE issuer = 'issuing' ORDER BY number DESC LIMIT 1",
  );
  for (const serial of serials) expect(hex).toContain(serial.toUpperCase());
});

test.for(["api", "public"] as const)(
  "where the port of its %s site is taken, the service says so, ends with 1 and leaves nothing running",
  async (site) => {
    const settings = readFileSync(join(home, "service.yaml"), "utf8");
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    const { port } = taken.address() as AddressInfo;
    writeFileSync(
      join(home, "service.yaml"),
      settings.replace(new RegExp(`(${site}:\\n  port: )\\d+`), `$1${port}`),
    );
    try {
      const outcome = await Promise.race([
        startTestService({ home }).then(String, String),
        pause(20_000, "still running"),
      ]);
      expect(outcome).toContain("the service ended with 1");
      expect(outcome).toContain(`config-invalid: port ${port} of 127.0.0.1 is taken`);
    } finally {
      await new Promise((resolve) => taken.close(resolve));
      writeFileSync(join(home, "service.yaml"), settings);
    }
    // Nothing of it holds the home.
    expect((await (await started()).public("/readyz")).status).toBe(200);
  },
);

test("a TLS pair that cannot be used is a matter of configuration, and ends the start", async () => {
  const { tlsKey } = (await started()).files;
  await running.pop()!.stop();
  const key = readFileSync(tlsKey, "utf8");
  writeFileSync(tlsKey, "no key");
  try {
    await expect(startTestService({ home })).rejects.toThrow(/ended with 1: .*config-invalid: /s);
  } finally {
    writeFileSync(tlsKey, key);
  }
});

function presented(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().subject.CN as string);
      socket.destroy();
    });
    socket.once("error", reject);
  });
}

test("a replaced TLS pair is taken for new connections, and one that cannot be read leaves the pair before", async () => {
  const service = await started();
  const { tlsCertificate, tlsKey } = service.files;
  const before = [tlsCertificate, tlsKey].map((file) => readFileSync(file, "utf8"));
  try {
    const old = connectTls({ port: service.apiPort, host: "127.0.0.1", rejectUnauthorized: false });
    await new Promise((resolve) => old.once("secureConnect", resolve));
    const pair = makePair("renewed.example.test");
    writeFileSync(tlsCertificate, pair.certificate);
    writeFileSync(tlsKey, pair.key);
    const wait = { timeout: 20_000, interval: 200 };
    await expect.poll(() => presented(service.apiPort), wait).toBe("renewed.example.test");
    expect(old.destroyed).toBe(false); // a connection from before lives on
    old.destroy();
    rmSync(tlsKey);
    writeFileSync(tlsCertificate, "no certificate");
    await expect
      .poll(() => service.output.stderr, wait)
      .toContain("the TLS certificate could not be read; the one before stays");
    expect(await presented(service.apiPort)).toBe("renewed.example.test");
  } finally {
    writeFileSync(tlsCertificate, before[0]!);
    writeFileSync(tlsKey, before[1]!);
  }
});

test("attempts without valid credentials are counted and on record when the service ends", async () => {
  const before = entries("access.denied").length;
  const service = await started();
  for (const token of [false, `csk_${"A".repeat(43)}`, "csk_short"] as const) {
    expect((await service.api("/v1/issuers", { token })).status).toBe(401);
  }
  expect((await service.api("/v1/issuers")).status).toBe(200);
  expect(await service.stop()).toBe(0);
  const records = entries("access.denied").slice(before);
  expect(records).toMatchObject([{ data: { count: 3, since: expect.any(String) } }]);
});

test("a count that could not be recorded is part of the next record", async () => {
  const recorded: [number, string][] = [];
  let full = true;
  const at = (seconds: number) => new Date(Date.UTC(2026, 10, 21, 12, 0, seconds));
  const denials = new Denials(at(0), async (count, since) => {
    if (full) throw new Error("disk full");
    recorded.push([count, since.toISOString()]);
  });
  denials.count();
  denials.count();
  await expect(denials.record(at(1))).rejects.toThrow("disk full");
  denials.count();
  full = false;
  await denials.record(at(2));
  await denials.record(at(3)); // nothing new
  denials.count();
  await denials.record(at(4));
  expect(recorded).toEqual([
    [3, at(0).toISOString()],
    [1, at(2).toISOString()],
  ]);
});

test("a question that the keeper has not answered is not asked again", async () => {
  let asked = 0;
  let answer = (): void => {};
  const failures: unknown[] = [];
  const ask = oneAtATime(
    () => {
      asked++;
      return new Promise<void>((resolve, reject) => {
        answer = asked === 1 ? resolve : () => reject(new Error("gone"));
      });
    },
    (error) => failures.push(error),
  );
  for (let second = 0; second < 5; second++) ask();
  expect(asked).toBe(1);
  for (const expected of [2, 3]) {
    answer();
    await pause(1);
    ask();
    expect(asked).toBe(expected);
  }
  expect(failures).toHaveLength(1);
});

test("an intent that a crash left open is closed by the next start, and the log says so", async () => {
  const before = entries("sign.abandoned").length;
  const crashing = await started({
    program: {
      module: join(packageRoot, "dist/test/support/crashing-service.js"),
      parameters: ["after the intent is written", "service"],
    },
  });
  await crashing
    .api("/v1/issuers/issuing/certificates?profile=server", {
      body: makeCsr({ dns: ["crash.example.test"] }),
      headers: { "content-type": "application/pkcs10" },
    })
    .catch(() => undefined);
  await crashing.ended;
  expect(pending()).toBe("1 0");
  const index = query("SELECT idx FROM issued_certificate WHERE state = 'pending'");
  const service = await started();
  expect(await service.stop()).toBe(0);
  expect(pending()).toBe("0 0");
  expect(entries("sign.abandoned").slice(before)).toMatchObject([
    { data: { intent: Number(index), reason: "found open at start" } },
  ]);
});

/** A session of the development operator. */
async function login(service: RunningService): Promise<string> {
  const opened = await service.send("/v1/sessions", { operator: "alice" }, { token: false });
  const { id, statement } = opened.json<{ id: string; statement: string }>();
  const signature = execFileSync(
    "ssh-keygen",
    ["-q", "-Y", "sign", "-n", "countersign-login@v1", "-f", service.files.operatorKey],
    { input: statement, stdio: ["pipe", "pipe", "ignore"] },
  ).toString();
  const signed = await service.send(`/v1/sessions/${id}`, { signature }, { token: false });
  return signed.json<{ token: string }>().token;
}

test("the public site, which everybody on the way can read, honours no credentials", async () => {
  const service = await started();
  const token = await login(service);
  const path = "/audit/tile/entries/000.p/1";
  expect((await service.api(path, { token })).status).toBe(200);
  const headers = { authorization: `Bearer ${token}` };
  const inClear = await service.public(path, { headers });
  expect(inClear.status).toBe(401);
  // And does not tell whether they are valid.
  const wrong = await service.public(path, { headers: { authorization: "Bearer csk_wrong" } });
  const problem = ({ body }: typeof wrong) =>
    body.toString().replace(/urn:countersign:request:\w+/, "");
  expect(problem(wrong)).toBe(problem(inClear));
});

const at = new Date("2026-11-21T12:00:00Z");
const hours = (count: number): Date => new Date(at.getTime() + count * 3_600_000);
const issuing = { issuer: "issuing", state: "open" } as never;
const policy = {
  issuers: new Map([["issuing", { profiles: new Map([["server", {}]]) }]]),
} as never;

test.for([
  { list: { overdue: false, nextUpdate: hours(160) }, state: "fresh", ready: true },
  { list: { overdue: true, nextUpdate: hours(100) }, state: "ageing", ready: true },
  {
    list: { overdue: false, trouble: "key-locked: the key is locked", nextUpdate: hours(160) },
    state: "ageing",
    ready: true,
  },
  { list: { overdue: true, nextUpdate: hours(0) }, state: "expired", ready: false },
  { list: { overdue: true, nextUpdate: hours(-24) }, state: "expired", ready: false },
  { list: { overdue: false, trouble: "internal" }, state: "missing", ready: false },
])("a CRL with $list is $state, ready: $ready", ({ list, state, ready }) => {
  const lists = [{ issuer: "issuing", ...list }];
  const readiness = readinessOf({ keys: [issuing] }, lists, undefined, policy, at);
  expect(readiness.ready).toBe(ready);
  expect(readiness.parts.at(-1)).toMatchObject({ name: "CRL of issuing", state });
});

test("the CRL of an issuer without profiles does not make the service unready", () => {
  const lists = [
    { issuer: "root", overdue: true, nextUpdate: hours(-1) },
    { issuer: "issuing", overdue: false, nextUpdate: hours(100) },
  ];
  expect(readinessOf({ keys: [issuing] }, lists, undefined, policy, at).ready).toBe(true);
});

test("a CRL is written as PEM once, however many fetch it", async () => {
  let read = 0;
  const crl = {
    get der() {
      read++;
      return Buffer.from("3003020101", "hex");
    },
    number: "1",
    thisUpdate: hours(-1),
    nextUpdate: hours(100),
    sha256: `sha256:${"ab".repeat(32)}`,
  };
  const sites = await startSites((parts) => ({
    ...parts,
    crls: { ...parts.crls, current: () => crl },
  }));
  try {
    const texts = await Promise.all(
      [1, 2, 3].map(async () => (await sites.site("/crl/issuing.pem")).text),
    );
    expect(new Set(texts).size).toBe(1);
    expect(texts[0]).toContain("BEGIN X509 CRL");
    await sites.site("/crl/issuing.crl");
    await sites.site("/crl/issuing.crl");
    expect(read).toBe(2); // one for each representation
  } finally {
    await sites.close();
  }
});

function lifetimeOf(socket: Socket): Promise<number> {
  const began = performance.now();
  return new Promise((resolve) => {
    socket.on("error", () => {});
    socket.once("close", () => resolve(performance.now() - began));
    socket.resume();
  });
}

test("a connection that shakes no hands, or sends half a request, is cut within seconds", async () => {
  const service = await started();
  const handshake = connect(service.apiPort, "127.0.0.1");
  const headers = connect(service.publicPort, "127.0.0.1", () =>
    headers.write("GET / HTTP/1.1\r\n"),
  );
  const lifetimes = await Promise.all([lifetimeOf(handshake), lifetimeOf(headers)]);
  for (const milliseconds of lifetimes) expect(milliseconds).toBeLessThan(20_000);
});
