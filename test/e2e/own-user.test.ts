/**
 * The keeper behind a socket: as the same user always, and, where the tests run as root, as two users in a copy of the
 * container's folders, by the commands of docker-compose.yml.
 */

import { execFileSync, spawn, spawnSync, type SpawnSyncReturns } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from "vitest";
import { parse, parseDocument } from "yaml";
import { homeFiles } from "../../src/home.ts";
import { isAlive, pidsOf } from "../custody/keeper-home.ts";
import { makeCsr } from "../support/csr.ts";
import {
  freePort,
  mainModule,
  packageRoot,
  startTestService,
  type RunningService,
} from "../support/service.ts";

const asRoot = process.getuid!() === 0;

interface Ids {
  readonly uid: number;
  readonly gid: number;
}

/** Where keeper and service run, and as whom. */
interface Installation {
  readonly home: string;
  readonly socket: string;
  readonly node: string;
  readonly main: string;
  /** Absent: this process's user. */
  readonly users?: { readonly service: Ids; readonly keeper: Ids; readonly stranger: Ids };
}

interface Started {
  readonly pid: number;
  readonly ended: Promise<number | null>;
}

let folder: string;
let one: Installation;
let two: Installation | undefined;
let running: RunningService[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "countersign-own-user-"));
  one = await sameUser();
  if (asRoot) two = await twoUsers();
});
afterEach(async () => {
  for (const service of running) await service.stop();
  running = [];
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function run(
  command: string,
  parameters: readonly string[],
  ids: Partial<Ids> = {},
): SpawnSyncReturns<string> {
  return spawnSync(command, parameters, { cwd: "/", encoding: "utf8", timeout: 30_000, ...ids });
}

function setUp(
  { node, main }: Pick<Installation, "node" | "main">,
  home: string,
  ...options: readonly string[]
): SpawnSyncReturns<string> {
  return run(node, [main, "set-up", "--home", home, ...options]);
}

async function ports(): Promise<string[]> {
  return ["--api-port", `${await freePort()}`, "--public-port", `${await freePort()}`];
}

/** A home of this user, whose service.yaml is changed by hand. */
async function sameUser(): Promise<Installation> {
  const home = join(folder, "home");
  const made = setUp({ node: process.execPath, main: mainModule }, home, ...(await ports()));
  expect(made).toMatchObject({ status: 0, stdout: expect.stringContaining("is made.") });
  const socket = join(folder, "keeper.sock");
  const { service } = homeFiles(home);
  const document = parseDocument(readFileSync(service, "utf8"));
  document.set("keeper", { socket });
  writeFileSync(service, String(document));
  return { home, socket, node: process.execPath, main: mainModule };
}

/** The image's folders: code that is root's, a Node that may be run and not read, one home. */
async function twoUsers(): Promise<Installation> {
  chmodSync(folder, 0o755);
  const app = join(folder, "app");
  mkdirSync(join(app, "dist"), { recursive: true, mode: 0o755 });
  for (const part of ["package.json", "node_modules", "dist/src", "dist/migrations"]) {
    const [from, to] = [join(packageRoot, part), join(app, part)];
    if (run("cp", ["-al", from, to]).status !== 0) execFileSync("cp", ["-a", from, to]);
  }
  const node = join(app, "node");
  copyFileSync(process.execPath, node);
  chmodSync(node, 0o711);
  const service = { uid: 10_001, gid: 10_001 };
  const keeper = { uid: 10_002, gid: 10_001 };
  const home = join(folder, "shared");
  const main = join(app, "dist/src/main.js");
  const socket = join(folder, "run", "keeper.sock");
  const made = setUp(
    { node, main },
    home,
    ...(await ports()),
    `--service-user=${service.uid}:${service.gid}`,
    `--keeper-user=${keeper.uid}`,
    `--keeper-socket=${socket}`,
  );
  expect(made).toMatchObject({ status: 0, stderr: "" });
  expect(parse(readFileSync(homeFiles(home).service, "utf8"))).toMatchObject({
    keeper: { socket },
  });
  return {
    home,
    socket,
    node,
    main,
    users: { service, keeper, stranger: { uid: 65_534, gid: 65_534 } },
  };
}

/** Starts the keeper, without a network where this machine lets us, and waits until it listens. */
async function startKeeper({ home, socket, node, main, users }: Installation): Promise<Started> {
  const keeper = [
    ...["--disable-proto=throw", "--disallow-code-generation-from-strings", "--no-addons"],
    join(main, "../custody/keeper-main.js"),
    homeFiles(home).keeper,
    ...["--listen", socket, "--allow-group"],
  ];
  const [command, ...parameters] =
    users === undefined
      ? [node, ...keeper]
      : [
          ...(run("unshare", ["--net", "true"]).status === 0 ? ["unshare", "--net"] : []),
          ...setpriv(users.keeper),
          // setpriv still has root's capabilities when it runs a program, and could read it.
          ...["/bin/sh", "-c", 'exec "$@"', "sh"],
          ...[node, ...keeper],
        ];
  const child = spawn(command!, parameters, { stdio: ["ignore", "ignore", "inherit"], cwd: "/" });
  onTestFinished(() => void child.kill("SIGKILL"));
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  await expect.poll(() => existsSync(socket), { timeout: 20_000 }).toBe(true);
  return { pid: child.pid!, ended };
}

function setpriv({ uid, gid }: Ids): string[] {
  return ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--clear-groups", "--no-new-privs"].concat(
    ["--inh-caps=-all", "--bounding-set=-all"],
  );
}

async function startService({ home, node, main, users }: Installation): Promise<RunningService> {
  const service = await startTestService(
    users === undefined
      ? { home }
      : {
          home,
          shell: `cd / && exec ${[...setpriv(users.service), node, main, "serve", "--home", home].join(" ")}`,
        },
  );
  running.push(service);
  return service;
}

async function issue(service: RunningService): Promise<void> {
  const answer = await service.api("/v1/issuers/issuing/certificates?profile=server", {
    body: makeCsr({ dns: ["own-user.example.test"] }),
    headers: { "content-type": "application/pkcs10" },
  });
  expect(answer.status, answer.body.toString()).toBe(201);
  const { certificate, chain, serialNumber } = answer.json<Record<string, string>>();
  const file = join(folder, "issued.pem");
  writeFileSync(file, `${certificate}${chain}`);
  const { rootCertificate } = service.files;
  execFileSync("openssl", ["verify", "-CAfile", rootCertificate, "-untrusted", file, file]);
  const revoked = await service.send(
    `/v1/issuers/issuing/certificates/${serialNumber}/revocation`,
    { reason: "superseded" },
    { method: "PUT" },
  );
  expect(revoked.status, revoked.body.toString()).toBe(200);
  const crl = join(folder, "issuing.crl");
  writeFileSync(crl, (await service.public("/crl/issuing.pem")).body);
  const text = execFileSync("openssl", ["crl", "-in", crl, "-noout", "-text"], {
    encoding: "utf8",
  });
  expect(text.toLowerCase()).toContain(serialNumber!.toLowerCase());
}

test.for(asRoot ? ["one user", "two users"] : ["one user"])(
  "ST-49: a keeper behind a socket signs, and it and its service end with each other: %s",
  async (name) => {
    const installation = name === "one user" ? one : two!;
    const keeper = await startKeeper(installation);
    expect(statSync(installation.socket).mode & 0o777).toBe(0o660);
    const service = await startService(installation);
    expect(readFileSync(`/proc/${keeper.pid}/status`, "utf8")).toMatch(/^Umask:\s0077$/m);
    await issue(service);
    process.kill(keeper.pid, "SIGKILL");
    expect(await service.ended).toBe(1);

    const next = await startKeeper(installation);
    const again = await startService(installation);
    await issue(again);
    const signers = pidsOf("signer", next.pid);
    expect(signers.length).toBeGreaterThan(0);
    again.child.kill("SIGKILL");
    expect(await next.ended).toBe(0);
    await expect.poll(() => signers.filter(isAlive)).toEqual([]);
  },
);

test("a service without its keeper says where it looked for it", () => {
  const { status, stderr } = run(one.node, [one.main, "serve", "--home", one.home]);
  expect([status, stderr]).toEqual([
    1,
    `log-unavailable: no keeper answers at ${one.socket} (ENOENT): is it running, as the user whose socket that is?\n`,
  ]);
});

test("set-up makes a home once, and the service never makes one again that names a keeper's socket", () => {
  const again = setUp(one, one.home);
  expect(again).toMatchObject({ status: 0, stdout: expect.stringContaining("is there already") });
  const copy = join(folder, "copy");
  execFileSync("cp", ["-a", one.home, copy]);
  rmSync(homeFiles(copy).layout);
  writeFileSync(homeFiles(copy).unfinished, "set-up had not ended\n");
  const root = readFileSync(homeFiles(copy).rootCertificate, "utf8");
  const expected = {
    status: 1,
    stderr: expect.stringMatching(/^home-unknown: .*never made again/),
  };
  expect(run(one.node, [one.main, "serve", "--home", copy])).toMatchObject(expected);
  expect(setUp(one, copy)).toMatchObject(expected);
  expect(readFileSync(homeFiles(copy).rootCertificate, "utf8")).toBe(root);
});

test.for([
  { name: "one user without the other", options: ["--keeper-user=10002"], says: "come together" },
  {
    name: "one user for both",
    options: ["--service-user=10001:10001", "--keeper-user=10001"],
    says: asRoot ? "are two users" : "only root",
  },
  {
    name: "root as the keeper",
    options: ["--service-user=10001:10001", "--keeper-user=0"],
    says: asRoot ? "neither is root" : "only root",
  },
  {
    name: "two users out of whose reach the home is",
    options: ["--service-user=10001:10001", "--keeper-user=10002"],
    says: asRoot ? "is closed to it" : "only root",
  },
])("set-up refuses $name, and makes nothing", ({ options, says }) => {
  const closed = join(folder, "closed");
  mkdirSync(closed, { mode: 0o700, recursive: true });
  const { status, stderr } = setUp(one, join(closed, "home"), ...options);
  expect([status, stderr]).toEqual([1, expect.stringMatching(/^config-invalid: /)]);
  expect(stderr).toContain(says);
  expect(readdirSync(closed)).toEqual([]);
});

// Without root there are no other users to try this as; CI runs as root.
if (asRoot) {
  test("a keeper of its own user shows the service's nothing, and nobody else reaches it", async () => {
    const { home, socket, node, users, main } = two!;
    const { service: serviceUser, keeper: keeperUser, stranger } = users!;
    const keeper = await startKeeper(two!);
    const tryConnect = (ids: Ids): string =>
      run(
        node,
        [
          "-e",
          `require("net").connect(${JSON.stringify(socket)}).on("connect", () => { console.log("in"); process.exit() }).on("error", (e) => console.log(e.code))`,
        ],
        ids,
      ).stdout.trim();
    expect(tryConnect(stranger)).toBe("EACCES");
    const service = await startService(two!);
    expect(tryConnect(serviceUser)).toBe("ENOENT"); // while the service has its connection

    const signer = pidsOf("signer", keeper.pid)[0]!;
    const reads = (file: string, ids: Ids): boolean => {
      const { status, stderr } = run("dd", [`if=${file}`, "of=/dev/null", "count=1"], ids);
      if (status !== 0) expect(stderr).toMatch(/Permission denied/);
      return status === 0;
    };
    const files = homeFiles(home);
    const below = (part: string): string[] =>
      readdirSync(join(home, part), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name));
    const keepers = below("keeper");
    const services = below("service").filter((file) => file !== files.tlsCertificate);
    const rest = readdirSync(home, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name)
      .filter((name) => !["keeper", "service", "issuers"].includes(name));
    const peoples = rest.flatMap(below);
    for (const part of [keepers, services, peoples]) expect(part.length).toBeGreaterThan(2);
    const readable = (candidates: readonly string[], ids: Ids): string[] =>
      candidates.filter((file) => reads(file, ids));
    expect(readable(keepers, keeperUser)).toEqual(keepers);
    expect(readable(services, serviceUser)).toEqual(services);
    const shared = [files.policy, files.service, files.rootCertificate, files.issuingCertificate];
    for (const ids of [serviceUser, keeperUser]) expect(readable(shared, ids)).toEqual(shared);
    expect(readable([...keepers, ...peoples], serviceUser)).toEqual([]);
    expect(readable([...services, ...peoples], keeperUser)).toEqual([]);
    expect(readable([...keepers, ...services, ...peoples, ...shared], stranger)).toEqual([]);

    // Neither changes what both read, nor puts another folder in the place of the other's.
    const writes = (file: string, ids: Ids): boolean =>
      run("/bin/sh", ["-c", ': >> "$1"', "sh", file], ids).status === 0;
    for (const ids of [serviceUser, keeperUser]) {
      expect([...shared, join(home, "new")].filter((file) => writes(file, ids))).toEqual([]);
      for (const part of ["keeper", "service", "issuers"]) {
        expect(run("mv", [join(home, part), join(home, "away")], ids).status).toBe(1);
      }
    }
    expect(writes(join(socket, "..", "other.sock"), serviceUser)).toBe(false);

    // The memory of keeper and signers: to the service's user, and to the others of their own.
    for (const pid of [keeper.pid, signer]) {
      for (const ids of [serviceUser, keeperUser]) {
        const visible = ["mem", "environ", "maps"].map((name) => `/proc/${pid}/${name}`);
        expect(readable(visible, ids)).toEqual([]);
        expect(run("ls", [`/proc/${pid}/fd/`], ids).status).not.toBe(0);
      }
      expect(run("kill", ["-0", `${pid}`], serviceUser).status).toBe(1);
    }
    // It cannot set this itself.
    expect(readFileSync(`/proc/${signer}/coredump_filter`, "utf8").trim()).toBe("00000000");
    expect(readable([`/proc/${service.child.pid}/environ`], keeperUser)).toEqual([]);
    const interfaces = readFileSync(`/proc/${signer}/net/dev`, "utf8").match(/^ *\S+:/gm);
    if (run("unshare", ["--net", "true"]).status === 0) {
      expect(interfaces!.map((name) => name.trim())).toEqual(["lo:"]);
    }

    // While both run: given already, and so left alone.
    const before = statSync(files.service).ctimeMs;
    const given = setUp({ node, main }, home, "--service-user=10001:10001", "--keeper-user=10002");
    expect(given).toMatchObject({ status: 0, stdout: expect.stringContaining("already") });
    expect(statSync(files.service).ctimeMs).toBe(before);
  });
}
