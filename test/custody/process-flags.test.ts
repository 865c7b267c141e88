import { once } from "node:events";
import { readlinkSync } from "node:fs";
import type { Duplex } from "node:stream";
import { expect, onTestFinished, test } from "vitest";
import {
  appRoot,
  flagsFor,
  mainModule,
  networkIsolation,
  startProcess,
} from "../../src/custody/process-flags.ts";

const versions = {
  20: new Set(["--experimental-permission"]),
  22: new Set(["--experimental-permission", "--permission", "--disable-sigusr1"]),
  24: new Set(["--permission", "--disable-sigusr1"]),
};

test.for([
  { version: 20, permission: "--experimental-permission", sigusr1: false },
  { version: 22, permission: "--permission", sigusr1: true },
  { version: 24, permission: "--permission", sigusr1: true },
] as const)(
  "Node $version: the signer runs with $permission",
  ({ version, permission, sigusr1 }) => {
    const known = versions[version];
    const flags = flagsFor("signer", { appRoot: "/app", readFiles: ["/home/pins/a.pin"], known });
    expect(flags.filter((flag) => flag.includes("permission"))).toEqual([permission]);
    expect(flags.includes("--disable-sigusr1")).toBe(sigusr1);
    expect(flags).toContain("--disable-proto=throw");
    expect(flags).toContain("--disallow-code-generation-from-strings");
    expect(flags).toContain("--allow-fs-write=/proc/self/coredump_filter");
    expect(flags).toContain("--allow-fs-read=/home/pins/a.pin");
    expect(flags.filter((flag) => flag.startsWith("--allow-fs-read="))).toHaveLength(4);
  },
);

const common = [
  "--disable-proto=throw",
  "--disallow-code-generation-from-strings",
  "--disable-sigusr1",
  "--permission",
  "--allow-fs-read=/app/dist/",
  "--allow-fs-read=/app/node_modules/",
  "--allow-fs-read=/app/package.json",
  "--allow-fs-write=/proc/self/coredump_filter",
  "--secure-heap=65536",
  "--secure-heap-min=16",
];

test.for([
  { kind: "dealer", own: ["--no-addons", "--frozen-intrinsics"] },
  { kind: "unlocker", own: ["--no-addons", "--frozen-intrinsics"] },
  { kind: "signer-software", own: ["--no-addons"] },
  { kind: "dealer-token", own: ["--allow-addons"] },
  { kind: "signer", own: ["--allow-addons"] },
] as const)("CUSTODY 7.3: the flags of a process of kind $kind", ({ kind, own }) => {
  const flags = flagsFor(kind, { appRoot: "/app", known: versions[24] });
  const warnings = flags.filter((flag) => flag.startsWith("--disable-warning="));
  expect(flags.filter((flag) => !warnings.includes(flag))).toEqual([...common, ...own]);
});

test("who needs no network has a network namespace of its own, and whoever has a token the keeper's", async () => {
  // Where the machine allows none at all, nobody has one.
  const namespaceOf = (pid: number | "self"): string => readlinkSync(`/proc/${pid}/ns/net`);
  for (const [kind, isolated] of [
    ["dealer", true],
    ["unlocker", true],
    ["signer-software", true],
    ["dealer-token", false],
    ["signer", false],
  ] as const) {
    const module = kind.startsWith("signer")
      ? "signer-main.js"
      : kind.replace("-token", "") + "-main.js";
    const child = startProcess({ kind, module: mainModule(module), environment: {} });
    onTestFinished(() => void child.kill("SIGKILL"));
    const own = isolated && networkIsolation() === "own-namespace";
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await expect
      .poll(() => namespaceOf(child.pid!) !== namespaceOf("self"), { timeout: 5_000 })
      .toBe(own);
    (child.stdio[3] as Duplex).end();
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    expect(await once(child, "exit"), kind).toEqual([0, null]);
  }
});

test("no process may read a home that lies beside the code", () => {
  const flags = flagsFor("signer", { appRoot: "/app", known: versions[20] });
  expect(flags).not.toContain("--allow-fs-read=/app");
  expect(flags).not.toContain("--allow-fs-read=/app/");
  expect(flags).toContain("--allow-fs-read=/app/dist/");
});

test("an installed package reads the dependencies beside it", () => {
  const flags = flagsFor("signer", {
    appRoot: "/srv/node_modules/countersign",
    known: versions[24],
  });
  expect(flags).toContain("--allow-fs-read=/srv/node_modules/");
});

test("the keeper, which starts the others, has no permission model and no addons", () => {
  const flags = flagsFor("keeper", { appRoot: "/app", known: versions[24] });
  expect(flags).toContain("--no-addons");
  expect(flags.join(" ")).not.toMatch(/permission|--allow/);
});

test("the processes are the built ones, wherever their parent runs from", () => {
  expect(mainModule("keeper-main.js")).toBe(`${appRoot}/dist/src/custody/keeper-main.js`);
  expect(appRoot).not.toMatch(/dist|src|\/$/);
});
