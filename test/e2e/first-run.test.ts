/** The first start: what it makes, what it never touches, and what a bare machine is told. */

import { execFileSync, spawn, spawnSync, type SpawnSyncReturns } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  freePort,
  mainModule,
  packageRoot,
  startTestService,
  type RunningService,
} from "../support/service.ts";

const MARKER = "set-up had not ended\n";

let folder: string;
const running: RunningService[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "countersign-first-"));
});

afterEach(async () => {
  for (const service of running.splice(0)) await service.stop();
  rmSync(folder, { recursive: true });
});

async function started(...parameters: Parameters<typeof startTestService>) {
  const service = await startTestService(...parameters);
  running.push(service);
  return service;
}

/** A start that is expected to end by itself. */
function serve(
  home: string,
  env: NodeJS.ProcessEnv = process.env,
  options: readonly string[] = [],
): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [mainModule, "serve", "--home", home, ...options], {
    cwd: folder,
    env,
    encoding: "utf8",
    timeout: 30_000,
  });
}

/** Every file below the folder, with its content. */
function filesBelow(path: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(path, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .toSorted()
      .map((file) => [file, readFileSync(file, "utf8")]),
  );
}

test.for([
  { name: "that is somebody's own", files: { "thesis.tex": "mine", unfinished: "chapter 4" } },
  { name: "whose `unfinished` is a folder", files: { "unfinished/chapter-4.tex": "mine" } },
  {
    name: "that has our marker and a stranger's file",
    files: { unfinished: MARKER, "service/tls.key": "ours", "thesis.tex": "mine" },
    named: "thesis.tex",
  },
  {
    name: "of a newer version, with a marker",
    files: { unfinished: MARKER, "layout.json": '{"layout":99}', "service/tls.key": "ours" },
    named: "layout 99",
  },
])("a folder $name is refused, and nothing in it changes", ({ files, named }) => {
  const home = join(folder, "home");
  for (const [file, content] of Object.entries(files)) {
    mkdirSync(join(home, file, ".."), { recursive: true });
    writeFileSync(join(home, file), content as string);
  }
  const before = filesBelow(folder);
  const { status, stderr } = serve(home);
  expect(status).toBe(1);
  expect(stderr).toMatch(/^home-unknown: /);
  expect(stderr).toContain(named ?? home);
  expect(filesBelow(folder)).toEqual(before);
});

test("a file in place of the home is refused and stays", () => {
  const home = join(folder, "home");
  writeFileSync(home, "mine");
  expect(serve(home)).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("is not a folder"),
  });
  expect(readFileSync(home, "utf8")).toBe("mine");
});

test("a set-up that was killed half-way is made again by the next start", async () => {
  const home = join(folder, "home");
  const ports = ["--api-port", `${await freePort()}`, "--public-port", `${await freePort()}`];
  const child = spawn(process.execPath, [mainModule, "serve", "--home", home, ...ports], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise<void>((resolve) => {
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      if (text.includes("three of them open it")) resolve();
    });
  });
  const ended = new Promise((resolve) => child.once("close", resolve));
  child.kill("SIGKILL");
  await ended;
  expect(readFileSync(join(home, "unfinished"), "utf8")).toBe(MARKER);
  const service = await started({ home });
  expect(service.output.stdout).toContain("was left unfinished by an earlier start");
  expect((await service.public("/readyz")).status).toBe(200);
  expect(existsSync(join(home, "unfinished"))).toBe(false);
  expect(existsSync(join(home, "set-up.lock"))).toBe(false);
});

test("a home whose set-up ended just before its marker went is opened, not made again", async () => {
  const home = join(folder, "home");
  const first = await started({ home });
  await first.stop();
  const root = readFileSync(first.files.rootCertificate, "utf8");
  writeFileSync(join(home, "unfinished"), MARKER);
  const second = await started({ home });
  expect(second.output.stdout).not.toContain("unfinished");
  expect(readFileSync(second.files.rootCertificate, "utf8")).toBe(root);
});

test("a home that cannot be used any more is refused in one line that says what to do", async () => {
  const home = join(folder, "home");
  const service = await started({ home });
  await service.stop();
  const { database } = service.files;
  for (const suffix of ["-wal", "-shm"]) rmSync(`${database}${suffix}`, { force: true });
  writeFileSync(database, "not a database. ".repeat(1000));
  expect(serve(home)).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/^rolled-back: .* is not a database.*: restore it.*\n$/),
  });
  const lock = join(home, "service", "lock");
  rmSync(lock);
  symlinkSync("/proc/sys/kernel/ostype", lock); // not even root may change it
  expect(serve(home)).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/^log-unavailable: the home .* cannot be written: E.*\n$/),
  });
});

test("of two first starts at once one makes the home and the other is refused as home-in-use", async () => {
  const home = join(folder, "home");
  const outcomes = await Promise.allSettled([started({ home }), started({ home })]);
  const refused = outcomes.filter((outcome) => outcome.status === "rejected");
  expect(refused).toHaveLength(1);
  expect(String(refused[0]!.reason)).toContain("home-in-use");
  expect((await running[0]!.public("/readyz")).status).toBe(200);
});

test("an empty folder becomes a home", async () => {
  const home = join(folder, "home");
  mkdirSync(home);
  const service = await started({ home });
  expect((await service.public("/readyz")).status).toBe(200);
});

test("a home without a folder to be in is refused with the way out", () => {
  const home = join(folder, "missing", "home");
  const { status, stderr } = serve(home);
  expect(status).toBe(1);
  expect(stderr).toMatch(/^config-invalid: there is no folder .*missing to make the home in/);
  expect(readdirSync(folder)).toEqual([]);
});

test.for(["a#b", "a=b"])("a home %s, where SoftHSM would find no tokens, is refused", (name) => {
  const { status, stderr } = serve(join(folder, name));
  expect([status, stderr]).toEqual([1, expect.stringMatching(/^config-invalid: SoftHSM/)]);
  expect(readdirSync(folder)).toEqual([]);
});

test("without ssh-keygen the first start says what installs it, and makes nothing", () => {
  const home = join(folder, "home");
  const { status, stderr } = serve(home, { PATH: "/nowhere" });
  expect(status).toBe(1);
  expect(stderr).toMatch(/^config-invalid: .*sudo apt-get install openssh-client/);
  expect(existsSync(home)).toBe(false);
});

test.for([
  { option: "--api-port", other: "--public-port" },
  { option: "--public-port", other: "--api-port" },
])(
  "a port that is taken is refused before anything is made: $option",
  async ({ option, other }) => {
    const home = join(folder, "home");
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const { status, stderr } = serve(home, process.env, [
      ...[option, `${port}`],
      ...[other, `${await freePort()}`],
    ]);
    expect([status, stderr]).toEqual([
      1,
      `config-invalid: port ${port} of 127.0.0.1 is taken: end what listens there, or choose another with ${option}\n`,
    ]);
    expect(existsSync(home)).toBe(false);
    await new Promise((resolve) => server.close(resolve));
  },
);

test("one port for both sites is refused before anything is made", async () => {
  const home = join(folder, "home");
  const port = `${await freePort()}`;
  const { status, stderr } = serve(home, process.env, ["--api-port", port, "--public-port", port]);
  expect(status).toBe(1);
  expect(stderr).toContain(`port ${port} is the API's: choose another with --public-port`);
  expect(existsSync(home)).toBe(false);
});

test("an operator key that is not there is refused before anything is made", () => {
  const home = join(folder, "home");
  const { status, stderr } = spawnSync(
    process.execPath,
    [mainModule, "serve", "--home", home, "--operator-key", "nobody.pub"],
    { encoding: "utf8", cwd: folder },
  );
  expect([status, stderr]).toEqual([1, "config-invalid: there is no file nobody.pub\n"]);
  expect(existsSync(home)).toBe(false);
});

test.for(["a home of ours", `it's "the" $HOME\\`])(
  "the printed commands can be pasted for a home named %s",
  async (name) => {
    const service = await started({ home: join(folder, name) });
    const { stdout } = service.output;
    const script = stdout.slice(stdout.indexOf("# 1.")).replaceAll(/^ {2}/gm, "");
    const run = spawnSync("bash", ["-c", script], { cwd: folder, encoding: "utf8" });
    expect(run.stdout + run.stderr).toContain("web.pem: OK");
    expect(run.stdout + run.stderr).toContain("certificate revoked");
    expect(statSync(service.files.curl).mode & 0o077).toBe(0);
  },
);

test("npm start's line takes a home with a space, and what is sent to the shell reaches the service", async () => {
  const home = join(folder, "a home");
  const first = await started({ home });
  await first.stop();
  // npm and tsc would build what others are testing; node and the script are the real ones.
  const bin = join(folder, "bin");
  mkdirSync(bin);
  for (const command of ["npm", "tsc"]) {
    symlinkSync(execFileSync("which", ["true"], { encoding: "utf8" }).trim(), join(bin, command));
  }
  const { scripts } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as {
    scripts: { start: string };
  };
  const env = { PATH: `${bin}:${process.env["PATH"]}`, COUNTERSIGN_HOME: home };
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const service = await started({ home, env, shell: scripts.start });
    expect((await service.public("/readyz")).status).toBe(200);
    const began = performance.now();
    service.child.kill(signal);
    service.child.kill(signal); // npm passes on what the terminal has sent already
    expect(await service.ended).toBe(0);
    expect(performance.now() - began).toBeLessThan(3000);
    await expect(service.public("/healthz")).rejects.toThrow("ECONNREFUSED");
  }
});
