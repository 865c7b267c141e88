import { spawnSync, type SpawnSyncReturns } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "countersign-install-"));
  chmodSync(directory, 0o755);
  mkdirSync(join(directory, "softhsm"));
  mkdirSync(join(directory, "bin"));
  copyFileSync("softhsm/install.sh", join(directory, "softhsm/install.sh"));
  for (const name of ["sh", "dirname", "id", "awk", "printf"]) link(name, `/usr/bin/${name}`);
  node(process.version);
});
afterEach(() => rmSync(directory, { recursive: true }));

function link(name: string, target: string): void {
  symlinkSync(target, join(directory, "bin", name));
}

/** A Node that only tells its version: the real one may lie where an ordinary user cannot reach it, below /root. */
function node(version: string): void {
  writeFileSync(join(directory, "bin/node"), `#!/bin/sh\necho ${version}\n`);
  chmodSync(join(directory, "bin/node"), 0o755);
}

/** Runs a copy of the script as an ordinary user, who has the linked commands and no others. */
function runAsUser(...parameters: string[]): SpawnSyncReturns<string> {
  const nobody = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
  return spawnSync("/bin/sh", [join(directory, "softhsm/install.sh"), ...parameters], {
    env: { PATH: join(directory, "bin") },
    encoding: "utf8",
    ...nobody,
  });
}

test.for([[], ["--test"]])("install.sh %j says nothing when nothing is missing", (parameters) => {
  const { status, stdout, stderr } = spawnSync("softhsm/install.sh", parameters, {
    encoding: "utf8",
  });
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "", stderr: "" });
});

test.for([
  {
    sudo: false,
    command: "please run as root: apt-get update && apt-get install -y --no-install-recommends",
  },
  {
    sudo: true,
    command: "please run: sudo apt-get update && sudo apt-get install -y --no-install-recommends",
  },
])(
  "install.sh names the command to an ordinary user, and runs nothing: %j",
  ({ sudo, command }) => {
    link("apt-get", "/bin/false");
    if (sudo) link("sudo", "/bin/false");
    const { status, stdout, stderr } = runAsUser();
    expect(stdout).toBe("");
    expect(stderr).toBe(
      `softhsm/install.sh: ${command} softhsm2 openssh-client openssl curl sqlite3 jq python3 make g++\n`,
    );
    expect(status).toBe(1);
  },
);

test("install.sh --test also asks for what the tests use", () => {
  link("apt-get", "/bin/false");
  expect(runAsUser("--test").stderr).toMatch(/softhsm2 .*sqlite3 .*golang-go /);
});

test("install.sh asks for no compiler once the native packages are built", () => {
  link("apt-get", "/bin/false");
  for (const file of [
    "pkcs11js/build/Release/pkcs11.node",
    "sqlite3/build/Release/node_sqlite3.node",
  ]) {
    mkdirSync(join(directory, "node_modules", file, ".."), { recursive: true });
    writeFileSync(join(directory, "node_modules", file), "");
  }
  expect(runAsUser().stderr).toMatch(/ softhsm2 openssh-client openssl curl sqlite3 jq\n$/);
});

test("install.sh names the packages where there is no apt-get", () => {
  const { status, stderr } = runAsUser();
  expect(stderr).toContain("please install these packages");
  expect(stderr).toContain("softhsm2 openssh-client openssl curl sqlite3 jq python3 make g++");
  expect(status).toBe(1);
});

test.for(["v20.18.3", "v18.20.0"])("install.sh refuses Node %s", (version) => {
  node(version);
  link("softhsm2-util", "/bin/false");
  for (const name of ["python3", "make", "c++"]) link(name, "/bin/false");
  const { status, stderr } = runAsUser();
  expect(stderr).toContain(`Node 20.19 or newer is needed, found: ${version}`);
  expect(status).toBe(1);
});

test("install.sh refuses an unknown option", () => {
  expect(runAsUser("--tset").status).toBe(2);
});
