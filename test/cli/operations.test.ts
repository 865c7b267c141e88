/** The command against the real service: token, database, TLS, ssh-keygen and openssl are those of the machine. */

import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { createServer as createTlsServer } from "node:https";
import { connect, createServer, type AddressInfo, type Server } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { makeCsr } from "../support/csr.ts";
import { removeHome, startTestService, type RunningService } from "../support/service.ts";
import {
  countersign,
  countersignJson,
  folder,
  mainModule,
  openssl,
  path,
  write,
  type Run,
} from "./command.ts";

let service: RunningService;

beforeAll(async () => {
  service = await startTestService();
});

afterAll(async () => {
  expect(await service.stop()).toBe(0);
  removeHome(service.home);
});

/** As whoever the development home has keys of. */
const run = (...parameters: string[]): Promise<Run> =>
  countersign(["--home", service.home, ...parameters]);
const runJson = <T = Record<string, unknown>>(...parameters: string[]): Promise<T> =>
  countersignJson<T>(["--home", service.home, ...parameters]);

/** The service and nothing else of the home. */
const stranger = (): string[] => [
  "--url",
  `https://127.0.0.1:${service.apiPort}`,
  "--ca",
  service.files.tlsCertificate,
];

const issuing = (profile: string, dns: string, ...more: string[]): Promise<Run> =>
  run("issue", "--issuer", "issuing", "--profile", profile, "--name", dns, ...more);

async function verifyKey(): Promise<string> {
  return (await runJson<{ log: { key: string } }>("status")).log.key;
}

test("status says that the service is ready, and to an operator all of it", async () => {
  const summary = await countersignJson(["status", ...stranger()]);
  expect(Object.keys(summary as object).toSorted()).toEqual([
    "parts",
    "ready",
    "service",
    "version",
  ]);
  const all = await runJson("status");
  expect(all).toMatchObject({
    ready: true,
    operators: ["alice", "bob", "carol", "dora", "erin"],
    log: { origin: "development/audit" },
  });
  const words = await run("status");
  expect(words).toMatchObject({ status: 0, stderr: "" });
  expect(words.stdout).toMatch(/^ready +yes$/m);
  expect(words.stdout).toMatch(/^operators +alice bob carol dora erin$/m);
});

test.for(["P-256", "P-384", "P-521", "RSA-2048", "Ed25519"])(
  "issue makes a %s key that openssl finds certified",
  async (type) => {
    const [key, out] = [`${type}.key`, `${type}.pem`];
    const made = await issuing(
      "server",
      "web.example.test",
      "--key-type",
      type,
      "--key-out",
      key,
      "--out",
      out,
    );
    expect(made, made.stderr).toMatchObject({ status: 0 });
    expect(statSync(path(key)).mode & 0o777).toBe(0o600);
    const untrusted = ["-x509_strict", "-untrusted", out, out];
    expect(openssl("verify", "-CAfile", service.files.rootCertificate, ...untrusted)).toContain(
      "OK",
    );
    const ofCertificate = openssl("x509", "-in", out, "-noout", "-pubkey");
    expect(openssl("pkey", "-in", key, "-pubout")).toBe(ofCertificate);
    expect(openssl("x509", "-in", out, "-noout", "-text")).toContain("DNS:web.example.test");
  },
);

test("without --out the chain is all that standard output has", async () => {
  const { status, stdout } = await issuing("server", "pipe.example.test", "--key-out", "pipe.key");
  expect(status).toBe(0);
  expect(stdout).toMatch(/^(?:-----BEGIN CERTIFICATE-----\n[^-]+-----END CERTIFICATE-----\n){3}$/);
});

test("issue takes a CSR of stock openssl, PEM and DER, and --json has the documented shape", async () => {
  openssl(
    ...["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
    ...["-keyout", "own.key", "-subj", "/CN=own.example.test", "-out", "own.csr"],
    ...["-addext", "subjectAltName=DNS:own.example.test,IP:127.0.0.1"],
  );
  openssl("req", "-in", "own.csr", "-outform", "DER", "-out", "own.csr.der");
  for (const csr of ["own.csr", "own.csr.der"]) {
    expect(await runJson("issue", "--csr", csr, "--lifetime", "7d")).toEqual({
      issuer: "issuing",
      serialNumber: expect.stringMatching(/^[0-9a-f]{40}$/),
      sha256: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
      profile: "server",
      notBefore: expect.any(String),
      notAfter: expect.any(String),
      logIndex: expect.any(Number),
      certificate: expect.stringContaining("BEGIN CERTIFICATE"),
      chain: expect.stringContaining("BEGIN CERTIFICATE"),
      url: expect.stringMatching(/^https:.*\/v1\/issuers\/issuing\/certificates\//),
    });
  }
});

test("a refusal is code, detail, rule, name and what to do next, and leaves no key", async () => {
  const refused = await issuing("server", "a.other.test", "--key-out", "refused.key");
  expect(refused.status).toBe(1);
  expect(refused.stderr).toContain("name-refused: ");
  expect(refused.stderr).toContain("  rule: issuers.issuing.names.dns (no match)");
  expect(refused.stderr).toContain("  name: a.other.test");
  expect(refused.stderr).toMatch(/ {2}next: .+/);
  expect(() => statSync(path("refused.key"))).toThrow("ENOENT");
});

test("the same --idempotency-key gives the same certificate, another CSR under it is refused", async () => {
  const repeat = (csr: string) =>
    runJson<{ serialNumber: string }>("issue", "--csr", csr, "--idempotency-key", "once");
  const first = await repeat("own.csr");
  expect((await repeat("own.csr")).serialNumber).toBe(first.serialNumber);
  const other = await run(
    "issue",
    "--csr",
    "own.csr",
    "--lifetime",
    "1d",
    "--idempotency-key",
    "once",
  );
  expect(other.stderr).toContain("idempotency-key-reused");
});

/** In front of the service; of the first connection that is answered with a certificate, the answer is lost. */
async function breakingProxy(): Promise<{ proxy: Server; broke: () => boolean }> {
  // A certificate and its chain have thousands; a handshake with the service's one certificate about a thousand.
  const ANSWER_OCTETS = 1_500;
  let broke = false;
  const proxy = createServer((client) => {
    const upstream = connect(service.apiPort, "127.0.0.1");
    client.on("data", (chunk: Buffer) => upstream.write(chunk));
    upstream.on("data", (chunk: Buffer) => {
      if (broke || chunk.length < ANSWER_OCTETS) {
        client.write(chunk);
      } else {
        broke = true;
        client.destroy();
      }
    });
    client.on("error", () => upstream.destroy()).on("close", () => upstream.destroy());
    upstream.on("error", () => client.destroy()).on("close", () => client.destroy());
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  return { proxy, broke: () => broke };
}

test("a connection that breaks after the request is sent gives one certificate, not two", async () => {
  const { proxy, broke } = await breakingProxy();
  const { port } = proxy.address() as AddressInfo;
  try {
    const made = await issuing(
      ...([
        "server",
        "broken.example.test",
        "--key-out",
        "broken.key",
        "--out",
        "broken.pem",
      ] as const),
      ...["--url", `https://127.0.0.1:${port}`],
    );
    expect(made, made.stderr).toMatchObject({ status: 0 });
    expect(broke()).toBe(true);
  } finally {
    proxy.close();
  }
  const { certificates } = await runJson<{ certificates: unknown[] }>(
    ...["certificates", "--name", "broken.example.test"],
  );
  expect(certificates).toHaveLength(1);
});

test("certificates are found, page by page and all at once, and fetched again", async () => {
  const issue = (name: string): Promise<unknown> =>
    service.api("/v1/issuers/issuing/certificates?profile=server", {
      body: makeCsr({ dns: [name] }),
      headers: { "content-type": "application/pkcs10" },
    });
  const names = Array.from({ length: 203 }, (_, index) => `n${index}.pages.example.test`);
  for (let from = 0; from < names.length; from += 16) {
    await Promise.all(names.slice(from, from + 16).map(issue));
  }
  interface Page {
    readonly certificates: { serialNumber: string; names: { value: string }[] }[];
    readonly next?: string;
  }
  const search = (...more: string[]): Promise<Page> =>
    runJson<Page>("certificates", "--name", "*.pages.example.test", ...more);
  const first = await search("--limit", "2");
  expect(first.certificates).toHaveLength(2);
  const second = await search("--limit", "2", "--cursor", first.next!);
  expect(second.certificates[0]!.serialNumber).not.toBe(first.certificates[1]!.serialNumber);
  const all = await search("--all");
  expect(all.certificates.map((row) => row.names[0]!.value).toSorted()).toEqual(names.toSorted());
  expect(all.next).toBeUndefined();

  const { serialNumber } = all.certificates[0]!;
  const words = await run("certificates", "--serial", serialNumber.slice(0, 16));
  expect(words.stdout).toMatch(
    new RegExp(`^${serialNumber} +valid +.+ server +developer +n\\d+`, "m"),
  );
  expect((await run("certificates", "get", serialNumber, "--out", "again.pem")).status).toBe(0);
  const serial = openssl("x509", "-in", "again.pem", "-noout", "-serial").trim().split("=")[1]!;
  expect(serial.toLowerCase()).toBe(serialNumber);
  expect((await run("certificates", "get", "again.pem")).stdout).toBe(
    readFileSync(path("again.pem"), "utf8"),
  );
  expect((await run("certificates", "get", "00ff")).stderr).toContain("certificate-unknown");
});

test("a certificate is revoked by its file, and openssl refuses it with the CRL that crl saves", async () => {
  await issuing("server", "gone.example.test", "--key-out", "gone.key", "--out", "gone.pem");
  const revoked = await runJson("revoke", "gone.pem", "--reason", "superseded");
  expect(revoked).toMatchObject({
    issuer: "issuing",
    reason: "superseded",
    repeated: false,
    visible: { crlNumber: expect.any(String) },
  });
  const again = await run("revoke", "gone.pem", "--reason", "superseded");
  expect(again).toMatchObject({ status: 0, stdout: expect.stringContaining("was revoked before") });
  const other = await run("revoke", "gone.pem", "--reason", "keyCompromise");
  expect(other).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("revocation-conflict"),
  });

  expect((await run("crl", "issuing", "--pem", "--out", "issuing.crl")).status).toBe(0);
  const check = spawnSync(
    "openssl",
    [
      "verify",
      "-crl_check",
      "-CRLfile",
      "issuing.crl",
      "-CAfile",
      service.files.rootCertificate,
    ].concat(["-untrusted", "gone.pem", "gone.pem"]),
    { cwd: folder, encoding: "utf8" },
  );
  expect(check.status).not.toBe(0);
  expect(check.stderr).toContain("certificate revoked");
});

test("crl shows number, dates and entries, never overwrites unless told, and publishes for an operator", async () => {
  const words = await run("crl", "issuing");
  expect(words.stdout).toMatch(/^number +\d+$/m);
  expect(words.stdout).toMatch(/^nextUpdate +20/m);
  expect(words.stdout).toMatch(/ superseded$/m);
  expect((await run("crl", "issuing", "--out", "issuing.crl")).stderr).toContain(
    "issuing.crl exists",
  );
  expect((await run("crl", "issuing", "--out", "issuing.crl", "--force")).status).toBe(0);
  const saved = openssl("crl", "-inform", "DER", "-in", "issuing.crl", "-noout", "-crlnumber");
  const before = await countersignJson<{ number: string; entries: { reason: string }[] }>([
    ...["crl", "issuing", ...stranger()],
  ]);
  expect(BigInt(saved.trim().split("=")[1]!)).toBe(BigInt(before.number));
  expect(before.entries).toContainEqual(expect.objectContaining({ reason: "superseded" }));
  const published = await runJson<{ number: string }>("crl", "issuing", "--publish");
  expect(BigInt(published.number)).toBe(BigInt(before.number) + 1n);
  expect((await countersign(["crl", "issuing", "--publish", ...stranger()])).status).toBe(2);
});

test.for(["P-256", "P-384", "P-521", "RSA-2048", "Ed25519"])(
  "whoever has the %s key of a certificate revokes it without other credentials",
  async (type) => {
    const [key, out] = [`held-${type}.key`, `held-${type}.pem`];
    await issuing(
      "server",
      "held.example.test",
      "--key-type",
      type,
      "--key-out",
      key,
      "--out",
      out,
    );
    const bare = await countersign(["revoke", out, ...stranger()]);
    expect(bare.status).toBe(2); // no credentials, no key
    const wrong = await countersign(["revoke", out, "--key", "gone.key", ...stranger()]);
    expect(wrong).toMatchObject({ status: 2, stderr: expect.stringContaining("not the key of") });
    const proved = await countersign([
      ...["revoke", out, "--key", key, "--reason", "keyCompromise", ...stranger()],
    ]);
    expect(proved, proved.stderr).toMatchObject({ status: 0 });
  },
);

test("requester add prints a key once that works at once, list shows it as a digest, remove ends it", async () => {
  const added = await run(
    ...["requester", "add", "web", "--issuer", "issuing", "--profile", "server", "--yes"],
    ...["--dns", "subdomains:web.example.test"],
  );
  expect(added, added.stderr).toMatchObject({ status: 0 });
  expect(added.stdout).toMatch(/^csk_[A-Za-z0-9_-]{43}\n$/);
  expect(added.stderr).toContain('"name": "web"');
  expect(added.stderr).toMatch(/statement sha256:[0-9a-f]{64}/);
  write("web.api", added.stdout, 0o600);
  const asWeb = (...more: string[]): Promise<Run> =>
    countersign([...stranger(), "--api-key-file", "web.api", ...more]);
  const good = await asWeb("issue", "--name", "a.web.example.test", "--key-out", "a.key");
  expect(good, good.stderr).toMatchObject({ status: 0 });
  const bad = await asWeb("issue", "--name", "b.example.test", "--key-out", "b.key");
  expect(bad.stderr).toContain("requesters.web.names.dns");

  const list = await run("requester", "list");
  expect(list.stdout).toMatch(
    /^web +api-key +issuing +server +dns:subdomains:web\.example\.test +own$/m,
  );
  expect((await run("requester", "list", "--json")).stdout).not.toContain(added.stdout.trim());

  const explained = await run("policy", "explain", "--requester", "web", "c.web.example.test");
  expect(explained).toMatchObject({
    status: 0,
    stdout: expect.stringContaining("requesters.web.names.dns.allow[0]"),
  });
  const refused = await run("policy", "explain", "--requester", "web", "c.example.test");
  expect(refused).toMatchObject({ status: 1, stdout: expect.stringContaining("name-refused") });

  expect((await run("requester", "remove", "web", "--yes")).status).toBe(0);
  const ended = await asWeb("certificates", "--issuer", "issuing");
  expect(ended).toMatchObject({ status: 1, stderr: expect.stringContaining("unauthenticated") });
  expect((await run("requester", "remove", "web", "--yes")).stderr).toContain("requester-unknown");
});

test("requester add writes the key into a file of mode 0600 and replaces nobody unasked", async () => {
  const add = (...more: string[]): Promise<Run> =>
    run(
      ...["requester", "add", "deploy", "--issuer", "issuing", "--profile", "client", "--yes"],
      ...["--dns", "one-label:example.test", ...more],
    );
  const added = await add("--key-out", "deploy.api");
  expect(added, added.stderr).toMatchObject({ status: 0 });
  expect(`${added.stdout}${added.stderr}`).not.toContain("csk_");
  expect(statSync(path("deploy.api")).mode & 0o777).toBe(0o600);
  expect(readFileSync(path("deploy.api"), "utf8")).toMatch(/^csk_[A-Za-z0-9_-]{43}\n$/);
  expect((await add()).stderr).toContain("requester-exists");
  expect((await add("--replace", "--key-out", "deploy.api")).stderr).toContain("deploy.api exists");
  expect((await add("--replace")).status).toBe(0);
  const before = await countersign([
    ...stranger(),
    "--api-key-file",
    "deploy.api",
    "certificates",
    "--issuer",
    "issuing",
  ]);
  expect(before.stderr).toContain("unauthenticated");
});

test("a statement that the service would refuse is not signed, and nobody signs without being asked", async () => {
  const add = (...more: string[]): Promise<Run> =>
    run("requester", "add", "odd", "--issuer", "issuing", "--profile", "server", ...more);
  expect(await add("--dns", "*.example.test", "--yes")).toMatchObject({
    status: 2,
    stderr: expect.stringContaining("statement-malformed"),
  });
  const unasked = await add("--dns", "exact:odd.example.test", "--key-out", "odd.api");
  expect(unasked).toMatchObject({ status: 2, stderr: expect.stringContaining("--yes") });
  expect(() => statSync(path("odd.api"))).toThrow("ENOENT");
  const unknown = await run(
    ...["requester", "add", "odd", "--issuer", "elsewhere", "--profile", "server", "--yes"],
    ...["--key-out", "odd.api"],
  );
  expect(unknown).toMatchObject({ status: 1, stderr: expect.stringContaining("policy-invalid") });
  expect(() => statSync(path("odd.api"))).toThrow("ENOENT");
});

test("CUSTODY 6.1: when another statement comes first, this one is made again, once", async () => {
  // An ssh-keygen that lets somebody else's change come first, and then is the real one.
  const real = execFileSync("which", ["ssh-keygen"], { encoding: "utf8" }).trim();
  mkdirSync(path("bin"), { recursive: true });
  write(
    "bin/ssh-keygen",
    `#!/bin/sh\ncase "$*" in *requester*) if mkdir "${path("raced")}" 2>/dev/null; then\n` +
      `  PATH="$OLD_PATH" node "$COMMAND" --home "$SERVICE_HOME" requester add early --issuer issuing ` +
      `--profile server --yes >/dev/null 2>&1 </dev/null || exit 9\nfi;; esac\nexec ${real} "$@"\n`,
    0o755,
  );
  const raced = await countersign(
    [
      "--home",
      service.home,
      "requester",
      "add",
      "late",
      "--issuer",
      "issuing",
      "--profile",
      "server",
      "--yes",
    ],
    {
      env: {
        PATH: `${path("bin")}:${process.env["PATH"]}`,
        OLD_PATH: process.env["PATH"]!,
        COMMAND: mainModule,
        SERVICE_HOME: service.home,
      },
    },
  );
  expect(raced, raced.stderr).toMatchObject({ status: 0 });
  expect(raced.stderr).toContain("another change came first");
  const { requesters } = await runJson<{ requesters: { name: string }[] }>("requester", "list");
  expect(requesters.map(({ name }) => name)).toEqual(expect.arrayContaining(["early", "late"]));
});

/** Runs the command on a terminal of its own, where somebody types. */
function onTerminal(
  typed: string,
  ...parameters: string[]
): { status: number | null; shown: string } {
  const words = [process.execPath, mainModule, "--home", service.home, ...parameters];
  const shell = words.map((word) => `'${word}'`).join(" ");
  const terminal = spawnSync("script", ["-qec", shell, "/dev/null"], {
    cwd: folder,
    env: { ...process.env, HOME: folder, TERM: "xterm" },
    input: typed,
    encoding: "utf8",
  });
  return { status: terminal.status, shown: terminal.stdout };
}

test.for([
  { typed: "y\n", status: 0 },
  { typed: "n\n", status: 1 },
  { typed: "\n", status: 1 },
  { typed: "\u0004", status: 1 },
])(
  "on a terminal the statement is shown and signed only after a yes: $typed",
  async ({ typed, status }) => {
    const added = onTerminal(
      typed,
      ...["requester", "add", "asked", "--issuer", "issuing", "--profile", "server", "--replace"],
      ...["--dns", "exact:asked.example.test", "--key-out", `asked-${status}.api`],
    );
    expect(added.shown).toContain("exact:asked.example.test");
    expect(added.shown).toMatch(/statement sha256:[0-9a-f]{64}/);
    expect(added.status, added.shown).toBe(status);
    expect(existsSync(path(`asked-${status}.api`))).toBe(status === 0);
  },
);

test("colours are for terminals, and NO_COLOR turns them off", async () => {
  expect(onTerminal("", "status").shown).toContain("\u001b[32myes");
  expect((await run("status")).stdout).not.toContain("\u001b");
  process.env["NO_COLOR"] = "1";
  expect(onTerminal("", "status").shown).not.toContain("\u001b");
  delete process.env["NO_COLOR"];
});

test("a requester that is bound to a client certificate asks over mTLS", async () => {
  const agent = ["--key-out", "agent.key", "--out", "agent.pem"];
  expect((await issuing("client", "agent.example.test", ...agent)).status).toBe(0);
  const added = await run(
    ...["requester", "add", "agent", "--issuer", "issuing", "--profile", "server", "--yes"],
    ...["--dns", "exact:served.example.test", "--mtls", "issuing:dns:agent.example.test"],
  );
  expect(added, added.stderr).toMatchObject({ status: 0, stdout: "" });
  const asked = await countersign([
    ...[...stranger(), "--client-cert", "agent.pem", "--client-key", "agent.key"],
    ...["issue", "--name", "served.example.test", "--key-out", "served.key"],
  ]);
  expect(asked, asked.stderr).toMatchObject({ status: 0 });
});

test("an operator signs with a key that only an agent holds", async () => {
  write("agent-key", readFileSync(service.files.operatorKey), 0o600);
  write("agent-key.pub", readFileSync(`${service.files.operatorKey}.pub`));
  const script =
    'eval "$(ssh-agent -s)" >/dev/null; ssh-add -q agent-key && mv agent-key agent-key.away; ' +
    `node "$COMMAND" "$@"; status=$?; ssh-agent -k >/dev/null; exit $status`;
  const signed = spawnSync(
    "sh",
    ["-c", script, "sh", ...stranger(), "--operator", "alice", "--ssh-key", "agent-key.pub"].concat(
      ["requester", "list"],
    ),
    {
      cwd: folder,
      encoding: "utf8",
      env: {
        ...process.env,
        HOME: folder,
        COMMAND: mainModule,
      },
    },
  );
  renameSync(path("agent-key.away"), path("agent-key"));
  expect(signed, signed.stderr).toMatchObject({ status: 0 });
  expect(signed.stdout).toContain("developer");
});

test("a stranger's SSH key signs nobody in", async () => {
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", path("stranger")]);
  const refused = await run("--ssh-key", "stranger", "requester", "list");
  expect(refused).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("signature-invalid"),
  });
});

test("the service is verified with its key: log, database and certificate", async () => {
  const key = await verifyKey();
  const operator = ["--operator", "alice", "--ssh-key", service.files.operatorKey];
  expect(await countersign(["verify", ...stranger(), ...operator])).toMatchObject({ status: 3 });
  const own = await run("verify");
  expect(own, own.stderr).toMatchObject({ status: 0 }); // the home has kept the key
  const whole = await run("verify", "--key", key, "--certificate", "broken.pem");
  expect(whole, whole.stderr).toMatchObject({ status: 0 });
  expect(whole.stdout).toContain("logged, entry");
  const url = await run("verify", `https://127.0.0.1:${service.apiPort}/audit`, "--key", key);
  expect(url, url.stderr).toMatchObject({ status: 0 });
  const database = await run("verify", "--database", service.files.database, "--key", key);
  expect(database, database.stdout).toMatchObject({ status: 0 });
  const closed = await countersign(["verify", ...stranger(), "--key", key]);
  expect(closed).toMatchObject({ status: 2, stderr: expect.stringContaining("for operators") });
});

test("exit code 4: a service that the CA file does not vouch for is sent nothing", async () => {
  const other = await countersign([
    ...["--url", `https://127.0.0.1:${service.apiPort}`, "--ca", service.files.rootCertificate],
    ...["--api-key-file", service.files.apiKey, "certificates"],
  ]);
  expect(other).toMatchObject({ status: 4, stderr: expect.stringContaining("does not vouch for") });
  const name = await countersign([
    ...[
      "--url",
      `https://127.0.0.2:${service.apiPort}`,
      "--ca",
      service.files.tlsCertificate,
      "status",
    ],
  ]);
  expect(name.status).toBe(4);
  const site = await countersign([
    ...[
      "--url",
      `https://127.0.0.1:${service.publicPort}`,
      "--ca",
      service.files.tlsCertificate,
      "status",
    ],
  ]);
  expect(site).toMatchObject({ status: 4, stderr: expect.stringContaining("does not speak TLS") });
});

test("NODE_TLS_REJECT_UNAUTHORIZED does not open the door", async () => {
  const other = await countersign(
    [
      "--url",
      `https://127.0.0.1:${service.apiPort}`,
      "--ca",
      service.files.rootCertificate,
      "status",
    ],
    { env: { NODE_TLS_REJECT_UNAUTHORIZED: "0" } },
  );
  expect(other.status).toBe(4);
});

test("a challenge that is something else than a login is not signed", async () => {
  openssl(
    ...[
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-days",
      "2",
    ],
    ...[
      "-keyout",
      "evil.key",
      "-out",
      "evil.pem",
      "-subj",
      "/CN=evil",
      "-addext",
      "subjectAltName=IP:127.0.0.1",
    ],
  );
  const asked: string[] = [];
  const evil = createTlsServer(
    { key: readFileSync(path("evil.key")), cert: readFileSync(path("evil.pem")) },
    (request, response) => {
      asked.push(`${request.method} ${request.url}`);
      response.setHeader("content-type", "application/json");
      response.end(
        JSON.stringify({
          id: "1",
          statement: '{"operator":"alice","type":"countersign/requester/v1"}',
          namespace: "countersign-requester@v1",
        }),
      );
    },
  );
  await new Promise<void>((resolve) => evil.listen(0, "127.0.0.1", resolve));
  const { port } = evil.address() as AddressInfo;
  try {
    const evilService = ["--url", `https://127.0.0.1:${port}`, "--ca", "evil.pem"];
    const fooled = await countersign([
      ...[...evilService, "--operator", "alice", "--ssh-key", service.files.operatorKey],
      ...["requester", "list"],
    ]);
    expect(fooled).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("nothing was signed"),
    });
    expect(asked).toEqual(["POST /v1/sessions"]);
    // Where address and CA are those of another service, the credentials of the home are not.
    const other = await run(...evilService, "certificates", "--issuer", "issuing");
    expect(other).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("needs credentials"),
    });
    expect(asked).toHaveLength(1);
  } finally {
    evil.close();
    evil.closeAllConnections();
  }
});

test("the development home in ./var is found without being named, if it is one's own", async () => {
  spawnSync("ln", ["-sfn", service.home, path("var")]);
  expect((await countersign(["status"])).stdout).toMatch(/^ready +yes$/m);
  spawnSync("rm", [path("var")]);
});
