import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { ExitCode } from "../../src/cli/failure.ts";
import { countersign, folder, openssl, path, write } from "./command.ts";

/** A port of this machine that nobody listens on. */
let closedPort: number;

beforeAll(async () => {
  openssl(
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
    ...["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=127.0.0.1", "-days", "2"],
  );
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closedPort = (server.address() as AddressInfo).port;
  await new Promise((resolve) => server.close(resolve));
  write("api.key", `csk_${"A".repeat(43)}\n`, 0o600);
});

/** Flags of a service that is not there. */
function nobody(): string[] {
  return [
    "--url",
    `https://127.0.0.1:${closedPort}`,
    "--ca",
    "ca.pem",
    "--api-key-file",
    "api.key",
  ];
}

test.for([
  { name: "no command", parameters: [] },
  { name: "an unknown command", parameters: ["frobnicate"] },
  { name: "an unknown option", parameters: ["status", "--loud"] },
  { name: "a missing argument", parameters: ["revoke"] },
  { name: "a key type that nobody has", parameters: ["issue", "--key-type", "DSA"] },
  { name: "a reason that nobody has", parameters: ["revoke", "01", "--reason", "boredom"] },
  { name: "a page size beyond 200", parameters: ["certificates", "--limit", "201"] },
  { name: "a role that nobody has", parameters: ["status", "--as", "root"] },
  { name: "no key, key file or CSR to issue for", parameters: ["issue", "--name", "a.test"] },
  { name: "two of them", parameters: ["issue", "--csr", "a", "--key", "b"] },
  { name: "a new key without a name", parameters: ["issue", "--key-out", "new.key"] },
  { name: "names beside a CSR", parameters: ["issue", "--csr", "a", "--name", "a.test"] },
  {
    name: "one file for key and certificate",
    parameters: ["issue", "--key-out", "a", "--out", "./a", "--name", "a.test"],
  },
  { name: "a service that nothing names", parameters: ["status"] },
  { name: "a service without a CA", parameters: ["status", "--url", "https://127.0.0.1:1"] },
  {
    name: "plain http",
    parameters: ["status", "--url", "http://127.0.0.1:1", "--ca", "ca.pem"],
  },
  {
    name: "a password in the URL",
    parameters: ["status", "--url", "https://a:b@127.0.0.1:1", "--ca", "ca.pem"],
  },
  {
    name: "a CA file that holds none",
    parameters: ["status", "--url", "https://127.0.0.1:1", "--ca", "api.key"],
  },
  { name: "a home that is none", parameters: ["status", "--home", "."] },
  { name: "a verifier key that is none", parameters: ["verify", ".", "--key", "abc"] },
  { name: "a file in place of a log", parameters: ["verify", "ca.pem"] },
  { name: "a requester that may ask nothing", parameters: ["requester", "add", "web"] },
  { name: "a rejection without a reason", parameters: ["reject", "00"] },
  { name: "a panic without a reason", parameters: ["panic"] },
  {
    name: "a ceremony of a kind that nobody has",
    parameters: ["ceremony", "propose", "party", "--reason", "x"],
  },
  { name: "an enrolment of nobody", parameters: ["enrol", "--service", "a", "--out", "e.json"] },
  {
    name: "an enrolment without an SSH key",
    parameters: ["--operator", "bob", "enrol", "--service", "a", "--out", "e.json"],
  },
  { name: "a roster without the service's keys", parameters: ["roster", "new", "ca.pem"] },
  { name: "a share without a pinned key", parameters: ["share", "import"] },
])("exit code 2: $name", async ({ parameters }) => {
  const run = await countersign(parameters);
  expect(run).toMatchObject({ status: 2, stdout: "" });
  expect(run.stderr).not.toBe("");
  expect(run.stderr).not.toContain("    at "); // no stack
});

test.for([
  ["issue"],
  ["revoke"],
  ["crl"],
  ["certificates"],
  ["certificates", "get"],
  ["inspect"],
  ["requester", "add"],
  ["requester", "list"],
  ["requester", "remove"],
  ["enrol"],
  ...["new", "sign", "show", "add", "remove", "propose"].map((name) => ["roster", name]),
  ["inbox"],
  ["approve"],
  ["reject"],
  ["submit"],
  ["refuse"],
  ["abort"],
  ...["propose", "show", "list"].map((name) => ["ceremony", name]),
  ["unlock", "open"],
  ...["fetch", "confirm", "prove", "print", "import"].map((name) => ["share", name]),
  ...["list", "seal", "generate"].map((name) => ["keys", name]),
  ["lock"],
  ["panic"],
  ["invite"],
  ["status"],
  ["verify"],
  ["policy", "check"],
  ["policy", "explain"],
])("the help of %s has an example that begins with the command", async (command) => {
  const run = await countersign([...command, "--help"]);
  expect(run.status).toBe(0);
  expect(run.stdout.split("Examples:")[1]).toContain(`$ countersign ${command.join(" ")}`);
});

test("--help documents every exit code", async () => {
  const { status, stdout } = await countersign(["--help"]);
  expect(status).toBe(0);
  expect(stdout.split("Exit codes:")[1]).toMatch(/ 0 .* 1 .* 2 .* 3 .* 4 /s);
});

test("--version is that of the package", async () => {
  const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
  expect(await countersign(["--version"])).toEqual({
    status: 0,
    stdout: `${version}\n`,
    stderr: "",
  });
});

test("exit code 4 names the address that does not answer", async () => {
  const run = await countersign([...nobody(), "status"]);
  expect(run.status).toBe(4);
  expect(run.stderr).toContain(`https://127.0.0.1:${closedPort} refuses connections`);
});

test("a failure with --json is one JSON value on standard error", async () => {
  const run = await countersign([...nobody(), "--json", "status"]);
  expect(run.stdout).toBe("");
  expect(JSON.parse(run.stderr)).toMatchObject({
    error: {
      code: "unreachable",
      exitCode: 4,
      detail: expect.any(String),
      next: expect.any(String),
    },
  });
});

test("a new key is written for its owner alone, before the request, and never overwritten", async () => {
  const parameters = [...nobody(), "issue", "--issuer", "issuing", "--name", "web.example.test"];
  const first = await countersign([...parameters, "--key-out", "new.key", "--out", "new.pem"]);
  expect(first.status).toBe(4);
  expect(first.stderr).toContain("--key new.key"); // how to go on with it
  expect(statSync(path("new.key")).mode & 0o777).toBe(0o600);
  const key = readFileSync(path("new.key"), "utf8");
  expect(openssl("pkey", "-in", "new.key", "-noout", "-text")).toContain("P-256");
  for (const force of [[], ["--force"]]) {
    const again = await countersign([...parameters, "--key-out", "new.key", ...force]);
    expect(again.status).toBe(1);
    expect(again.stderr).toContain("new.key exists");
    expect(readFileSync(path("new.key"), "utf8")).toBe(key);
  }
});

test("a new key does not follow a link that somebody put in its place", async () => {
  spawnSync("ln", ["-s", "elsewhere.key", "link.key"], { cwd: folder });
  const run = await countersign([
    ...[...nobody(), "issue", "--issuer", "issuing"],
    ...["--name", "web.example.test", "--key-out", "link.key"],
  ]);
  expect(run.status).toBe(1);
  expect(run.stderr).toContain("link.key exists");
});

test("a result is not overwritten without --force, and that is said before anything is asked", async () => {
  write("there.pem", "mine\n");
  const run = await countersign([
    ...[...nobody(), "issue", "--issuer", "issuing", "--key", "ca.key"],
    ...["--name", "web.example.test", "--out", "there.pem"],
  ]);
  expect(run.status).toBe(1);
  expect(run.stderr).toContain("there.pem exists");
  expect(readFileSync(path("there.pem"), "utf8")).toBe("mine\n");
});

test.for([0o640, 0o604, 0o666])("an API key file of mode %o is refused", async (mode) => {
  write("open.key", `csk_${"B".repeat(43)}\n`);
  chmodSync(path("open.key"), mode);
  const run = await countersign([
    ...["--url", `https://127.0.0.1:${closedPort}`, "--ca", "ca.pem"],
    ...["--api-key-file", "open.key", "certificates", "--issuer", "issuing"],
  ]);
  expect(run.status).toBe(1);
  expect(run.stderr).toContain("chmod 600 open.key");
  expect(run.stderr).not.toContain("BBBB");
});

test("a private key that others may read is refused", async () => {
  const key = openssl("genpkey", "-algorithm", "ed25519");
  write("loose.key", key, 0o644);
  const run = await countersign([
    ...[...nobody(), "issue", "--issuer", "issuing"],
    ...["--key", "loose.key", "--name", "web.example.test"],
  ]);
  expect(run.stderr).toContain("chmod 600 loose.key");
});

test.for([
  "bad_name.example.test",
  "-a.example.test",
  "a..b",
  "*.*.example.test",
  "1.2.3.4.5",
  "a\u0000b",
])("a malformed name is refused here, before a key is made: %j", async (name) => {
  const run = await countersign([
    ...[...nobody(), "issue", "--issuer", "issuing", "--key-out", "unmade.key"],
    ...["--name", name.replace("\u0000", "\u0001")],
  ]);
  expect(run).toMatchObject({ status: 2 });
  expect(run.stderr).toContain("name-malformed");
  expect(() => statSync(path("unmade.key"))).toThrow("ENOENT");
});

test("settings come from $COUNTERSIGN_CONFIG, JSON or YAML, with paths against the file's folder", async () => {
  mkdirSync(path("settings"));
  const url = `https://127.0.0.1:${closedPort}`;
  writeFileSync(path("settings/config.json"), JSON.stringify({ url, ca: "../ca.pem" }));
  writeFileSync(path("settings/config.yaml"), `url: ${url}\nca: ../ca.pem\n`);
  for (const file of ["settings/config.json", "settings/config.yaml"]) {
    const run = await countersign(["status"], { env: { COUNTERSIGN_CONFIG: file } });
    expect(run.status).toBe(4); // it knows whom to ask
    expect(run.stderr).toContain(url);
  }
});

test("flags count before the configuration", async () => {
  write("first.json", JSON.stringify({ url: "https://127.0.0.1:9", ca: "ca.pem" }));
  const run = await countersign(["status", "--url", `https://127.0.0.1:${closedPort}`], {
    env: { COUNTERSIGN_CONFIG: "first.json" },
  });
  expect(run.stderr).toContain(`:${closedPort}`);
});

test("the standard configuration file is read", async () => {
  mkdirSync(path(".config/countersign"), { recursive: true });
  const file = join(".config", "countersign", "config.json");
  write(file, JSON.stringify({ url: `https://127.0.0.1:${closedPort}`, ca: "~/ca.pem" }));
  const run = await countersign(["status"]);
  write(file, "{}");
  expect(run.status).toBe(4);
});

test.for([
  { name: "a setting that nobody knows", text: '{"password":"x"}', says: "password" },
  { name: "a setting that is no text", text: '{"url":1}', says: "url must be a text" },
  { name: "a list", text: "[]", says: "not a configuration" },
  { name: "no JSON", text: "{", says: "neither JSON nor YAML" },
])("a configuration with $name is refused", async ({ text, says }) => {
  write("wrong.json", text);
  const run = await countersign(["status"], { env: { COUNTERSIGN_CONFIG: "wrong.json" } });
  expect(run.status).toBe(2);
  expect(run.stderr).toContain(says);
});

test("a policy document is checked without a service, and each problem has its place", async () => {
  write("policy.yaml", "version: 1\nissuers: {}\nprofiles: {}\n");
  const good = await countersign(["--json", "policy", "check", "policy.yaml"]);
  expect(good.status).toBe(0);
  expect(JSON.parse(good.stdout)).toMatchObject({
    valid: true,
    digest: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
    issuers: [],
  });
  write("bad.yaml", "version: 1\nissuers:\n  issuing:\n    profiles: [server]\nprofiles: {}\n");
  const bad = await countersign(["policy", "check", "bad.yaml"]);
  expect(bad.status).toBe(1);
  expect(bad.stderr).toContain("bad.yaml:4:");
});

test("docs/command.md has every command and every exit code", async () => {
  const { stdout } = await countersign(["--help"]);
  const commands = stdout.split("\nCommands:\n")[1]!.split("\n\n")[0]!;
  const names = [...commands.matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name!);
  const page = readFileSync("docs/command.md", "utf8");
  const headings = [...page.matchAll(/^## ([a-z]+)$/gm)].map(([, name]) => name!);
  expect(headings.toSorted()).toEqual(names.filter((name) => name !== "help").toSorted());
  const codes = [...page.matchAll(/^\| (\d) {4}\|/gm)].map(([, code]) => Number(code));
  expect(codes).toEqual(Object.values(ExitCode));
});
