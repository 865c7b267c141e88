import { expect, test } from "vitest";
import { appRoot, flagsFor, mainModule } from "../../src/custody/process-flags.ts";

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
