/** The command as one file: built, alone in an empty folder, run with `node` and nothing else. */

import { execFileSync, spawnSync } from "node:child_process";
import { generateKeyPairSync, hash, randomBytes } from "node:crypto";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { builtinModules } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { canonicalJson } from "../../src/audit/canonical-json.ts";
import { digestOf } from "../../src/audit/digest.ts";
import { encodeEntry } from "../../src/audit/entry.ts";
import { exportLog } from "../../src/audit/log-directory.ts";
import { readPlan, shareSetOctets } from "../../src/custody/plan.ts";
import { newAgeIdentity } from "../../src/custody/sealed/age-file.ts";
import { deal } from "../../src/custody/sealed/deal.ts";
import { makeSshKey } from "../custody/keeper-home.ts";
import { MemoryLog } from "../support/log.ts";
import { packageRoot } from "../support/service.ts";
import { identity, note } from "./people-service.ts";

const folder = mkdtempSync(join(tmpdir(), "countersign-single-"));
const at = (name: string): string => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true }));

beforeAll(() => {
  execFileSync("npm", ["run", "--silent", "build:cli"], { cwd: packageRoot, stdio: "pipe" });
  copyFileSync(join(packageRoot, "dist", "countersign.mjs"), at("countersign.mjs"));
  expect(readdirSync(folder)).toEqual(["countersign.mjs"]);
});

function run(...parameters: string[]): { status: number | null; stdout: string; stderr: string } {
  const { COUNTERSIGN_CONFIG: _, NODE_PATH: __, ...env } = process.env;
  return spawnSync(process.execPath, ["countersign.mjs", ...parameters], {
    cwd: folder,
    env: { ...env, HOME: folder },
    encoding: "utf8",
  });
}

test("it imports nothing but what node has, and holds neither native modules nor the Shamir package", () => {
  const text = readFileSync(at("countersign.mjs"), "utf8").replaceAll(/^\s*(?:\*|\/\/).*$/gm, "");
  const named = [
    ...text.matchAll(/^import .* from "([^"]+)";$/gm),
    ...text.matchAll(/\b__require\("([^"]+)"\)/g),
    ...text.matchAll(/\bimport\("([^"]+)"\)/g),
  ].map(([, name]) => name!.replace(/^node:/, ""));
  expect(named.length).toBeGreaterThan(5);
  expect(named.filter((name) => !builtinModules.includes(name))).toEqual([]);
  expect(text).not.toMatch(/shamirs|pkcs11|\.node"/);
});

test("it has help and the package's version", () => {
  const { version } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as {
    version: string;
  };
  expect(run("--version")).toMatchObject({ status: 0, stdout: `${version}\n` });
  const help = run("--help");
  expect(help.status).toBe(0);
  expect(help.stdout).toContain("enrol");
});

test("it inspects a file", () => {
  execFileSync("openssl", ["genpkey", "-algorithm", "ed25519", "-out", at("a.key")]);
  expect(run("inspect", "a.key")).toMatchObject({ status: 0 });
});

test("it verifies a log, and finds what is wrong with one", async () => {
  const log = new MemoryLog();
  log.append([
    encodeEntry({
      type: "log.started",
      at: new Date(0),
      actor: { kind: "service", id: "ca.example.com" },
      subject: {},
      data: { origin: "ca.example.com/audit" },
    }),
  ]);
  await exportLog(log.reader(), at("log"));
  const key = log.signer.verifierKey.text;
  expect(run("verify", "log", "--key", key)).toMatchObject({ status: 0 });
  writeFileSync(at("log/checkpoint"), log.checkpoint().replace("\n1\n", "\n2\n"));
  expect(run("verify", "log", "--key", key)).toMatchObject({ status: 1 });
});

test("it enrols somebody with what is on their machine", () => {
  makeSshKey(at("key"));
  const enrolled = run(
    ...["--operator", "bob", "--ssh-key", "key", "enrol"],
    ...["--identity-key", identity.verifierKey.text, "--out", "bob.json", "--yes"],
  );
  expect(enrolled).toMatchObject({ status: 0 });
  expect(statSync(at(".config/countersign/age.key")).mode & 0o777).toBe(0o600);
});

test("it brings a share in from paper and prints it again", async () => {
  const recipient = /# public key: (.*)/.exec(
    readFileSync(at(".config/countersign/age.key"), "utf8"),
  )![1]!;
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const spki = publicKey.export({ format: "der", type: "spki" });
  const plan = Buffer.from(
    canonicalJson({
      ...{ type: "countersign/plan/v1", service: "ca.example.com", issuer: "CN=Example Root" },
      ...{ key: { use: hash("sha256", spki) }, payload: "pkcs8", epoch: 1, previous: null },
      ...{ threshold: 2, shareCount: 2, reason: "a root" },
      custodians: [
        { operator: "bob", recipient, role: "custodian" },
        { operator: "carol", recipient: (await newAgeIdentity()).recipient, role: "custodian" },
      ],
      roster: digestOf(Buffer.from("roster")),
    }),
  );
  const { files, shareSet } = await deal({
    plan: readPlan(plan),
    planDigest: digestOf(plan),
    secret: { octets: privateKey.export({ format: "der", type: "pkcs8" }), publicKey: spki },
    random: randomBytes,
  });
  expect(JSON.parse(shareSetOctets(shareSet).toString())).toEqual(shareSet);
  writeFileSync(at("root.share-set"), note(shareSet));
  const paper = execFileSync("age", ["-d", "-i", at(".config/countersign/age.key")], {
    input: files[0]!,
  })
    .toString()
    .split("\n")
    .at(-2)!;
  mkdirSync(at("paper"));
  writeFileSync(at("paper/share.txt"), paper.toLowerCase());
  const imported = run(
    "share",
    "import",
    "--share-set",
    "root.share-set",
    "--from",
    "paper/share.txt",
  );
  expect(imported).toMatchObject({ status: 0 });
  expect(run("share", "print", "--out", "paper/printed.txt")).toMatchObject({ status: 0 });
  const printed = readFileSync(at("paper/printed.txt"), "utf8");
  expect(printed).toContain(` 1 ${paper.slice(0, 5)}`);
  expect(printed).toMatch(/[▀▄█]/);
});
