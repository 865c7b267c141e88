import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { expect, test } from "vitest";

const src = new URL("../src", import.meta.url).pathname;

/** What each room may import of ours, beside errors.ts and itself. */
const arrows: Record<string, readonly string[]> = {
  x509: [],
  policy: [],
  audit: ["policy", "x509"],
  gate: ["policy", "x509"],
  custody: ["gate", "audit", "policy", "x509"],
  issuance: ["custody", "gate", "audit", "policy", "x509"],
  revocation: ["issuance", "custody", "gate", "audit", "policy", "x509"],
  ceremony: ["issuance", "revocation", "custody", "gate", "audit", "policy", "x509"],
  // The store implements what the domain declares.
  store: ["ceremony", "issuance", "audit", "migrations"],
  http: ["ceremony", "issuance", "revocation", "custody", "gate", "audit", "policy", "x509"],
  cli: ["audit", "policy", "x509", "custody"],
  // A part of main.ts: it sets a home up with all parts.
  development: [
    "cli",
    "ceremony",
    "issuance",
    "revocation",
    "custody",
    "gate",
    "store",
    "audit",
    "policy",
    "x509",
  ],
};

/** Files beside main.ts that its parts share. */
const shared = new Set(["config.ts", "errors.ts", "home.ts", "ledger.ts"]);

/** Who alone may import a package. */
const owners: Record<string, string> = {
  typeorm: "store/",
  sqlite3: "store/database.ts",
  "graphene-pk11": "custody/token/",
  pkcs11js: "custody/token/",
  "shamirs-secret-sharing-ts": "custody/sealed/shamir.ts",
  "@scure/base": "custody/sealed/",
  "age-encryption": "custody/",
  koa: "http/",
  "@koa/router": "http/",
  "prom-client": "http/",
  "@peculiar/x509": "x509/peculiar.ts",
  "reflect-metadata": "x509/peculiar.ts",
};

interface Import {
  readonly file: string;
  readonly target: string;
  readonly typeOnly: boolean;
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => relative(src, join(entry.parentPath, entry.name)));
}

const imports: Import[] = filesBelow(src).flatMap((file) => {
  const text = readFileSync(join(src, file), "utf8");
  const found = text.matchAll(
    /^(?:import|export)\b([^;]*?)\bfrom\s+"([^"]+)";|^import\s+"([^"]+)";/gm,
  );
  return [...found].map((match) => ({
    file,
    target: match[2] ?? match[3]!,
    typeOnly: /^\s*type\b/.test(match[1] ?? ""),
  }));
});

function roomOf(path: string): string {
  return path.includes("/") ? path.slice(0, path.indexOf("/")) : "";
}

test("imports between the rooms go one way", () => {
  const wrong = imports.filter(({ file, target }) => {
    const room = roomOf(file);
    if (room === "" || !target.startsWith(".")) return false;
    const path = relative(src, join(src, file, "..", target));
    const goal = path.startsWith("../") ? path.split("/")[1]! : roomOf(path);
    if (goal === room || path === "errors.ts") return false;
    if (room === "development" && shared.has(path)) return false;
    return !(arrows[room] ?? []).includes(goal);
  });
  expect(wrong).toEqual([]);
});

test("each room that imports something is drawn in the house", () => {
  const rooms = new Set(imports.map(({ file }) => roomOf(file)).filter((room) => room !== ""));
  expect([...rooms].filter((room) => !(room in arrows))).toEqual([]);
});

test("a dependency of a room stays in that room (ST-9: the Shamir package in its wrapper)", () => {
  const wrong = imports.filter(({ file, target, typeOnly }) => {
    const owner = owners[target];
    return owner !== undefined && !typeOnly && !file.startsWith(owner);
  });
  expect(wrong).toEqual([]);
});

/** The packages that are loaded with these modules; what is only imported when it is needed is not. */
function packagesWith(...files: readonly string[]): Set<string> {
  const reached = new Set<string>();
  const visit = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    for (const { target, typeOnly, file: from } of imports) {
      if (from !== file || typeOnly || !target.startsWith(".")) continue;
      visit(relative(src, join(src, file, "..", target)));
    }
  };
  for (const file of files) visit(file);
  expect(reached.size).toBeGreaterThan(files.length);
  return new Set(
    imports
      .filter(({ file, typeOnly }) => reached.has(file) && !typeOnly)
      .map(({ target }) => target),
  );
}

const native = ["typeorm", "sqlite3", "pkcs11js", "graphene-pk11"];

test("what the command may be bundled from reaches no native module", () => {
  const packages = packagesWith(...filesBelow(join(src, "cli")));
  expect(native.filter((name) => packages.has(name))).toEqual([]);
});

test("CUSTODY 7.1: a signer loads neither the package that splits KEKs nor, without a token, an addon", () => {
  const shamir = "shamirs-secret-sharing-ts";
  for (const file of ["dealer-main.ts", "unlocker-main.ts"]) {
    const packages = packagesWith(`custody/${file}`);
    expect(packages.has(shamir), file).toBe(true);
    // Neither runs with addons, nor what reflect-metadata does to intrinsics.
    expect(
      [...native, "reflect-metadata"].filter((name) => packages.has(name)),
      file,
    ).toEqual([]);
  }
  const signer = packagesWith("custody/signer-main.ts");
  expect([...native, "age-encryption", shamir].filter((name) => signer.has(name))).toEqual([]);
});
