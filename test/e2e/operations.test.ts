/** What an operator meets: a token that goes away, a log that cannot be written, requesters, a stop. */

import { execFileSync, spawn } from "node:child_process";
import { createHash, generateKeyPairSync, randomBytes } from "node:crypto";
import { chmodSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { canonicalJson } from "../../src/audit/canonical-json.ts";
import { crossCheckCertificate } from "../support/cross-check.ts";
import { makeCsr } from "../support/csr.ts";
import {
  removeHome,
  startTestService,
  temporaryHome,
  type Answer,
  type ApiRequest,
  type RunningService,
} from "../support/service.ts";

const home = temporaryHome();
let service: RunningService;

beforeAll(async () => {
  service = await startTestService({ home });
});

afterAll(async () => {
  await service.stop();
  removeHome(home);
});

async function issue(
  dns = "web.example.test",
  options: ApiRequest = {},
  profile = "server",
): Promise<Answer> {
  const answer = await service.api(`/v1/issuers/issuing/certificates?profile=${profile}`, {
    body: makeCsr({ dns: [dns] }),
    headers: { "content-type": "application/pkcs10" },
    ...options,
  });
  if (answer.status === 201) {
    await crossCheckCertificate(answer.json<{ certificate: string }>().certificate, service.files);
  }
  return answer;
}

async function readyz(): Promise<{ status: number; parts: { name: string; state: string }[] }> {
  const answer = await service.public("/readyz");
  return { ...answer.json<{ parts: { name: string; state: string }[] }>(), status: answer.status };
}

test("files with secrets are the owner's alone", () => {
  const secret = [
    "keeper/log.key",
    "keeper/identity.key",
    "keeper/pins/issuing.pin",
    "service/tls.key",
    "service/countersign.db",
    "client/api.key",
    "client/curl.conf",
    "client/metrics.key",
    "people/alice/id_ed25519",
    "people/alice/age.key",
  ];
  for (const file of secret)
    expect([file, statSync(join(home, file)).mode & 0o077]).toEqual([file, 0]);
  for (const folder of ["", "keeper", "service"]) {
    expect(statSync(join(home, folder)).mode & 0o077).toBe(0);
  }
});

test("the API key is in no argument of any process, and the PIN in none either", () => {
  const pins = ["issuing"].map((name) =>
    readFileSync(join(home, "keeper/pins", `${name}.pin`), "utf8").trim(),
  );
  const { service: pid, keeper, signers } = service.processes();
  expect(signers).toHaveLength(1);
  for (const process of [pid, keeper, ...signers]) {
    const seen =
      readFileSync(`/proc/${process}/cmdline`, "utf8") +
      readFileSync(`/proc/${process}/environ`, "utf8");
    for (const pin of pins) expect(seen).not.toContain(pin);
    expect(seen).not.toContain(service.apiKey);
  }
});

/** What /readyz says of the issuing CA's key, after its status. */
async function keyState(): Promise<string> {
  const answer = await service.api("/readyz", { token: false });
  const { parts } = answer.json<{ parts: { name: string; state: string }[] }>();
  return `${answer.status} ${parts.find(({ name }) => name === "key of issuing")?.state}`;
}

test("a token that goes away gives 503, and comes back without a restart", async () => {
  const tokens = join(home, "keeper/tokens");
  expect((await issue()).status).toBe(201);
  renameSync(tokens, `${tokens}.away`);
  const away = await issue();
  // Nobody needs to ask for a certificate for it to be seen, nor for it to be seen again.
  await expect.poll(() => keyState(), { timeout: 20_000, interval: 250 }).toBe("503 unavailable");
  renameSync(`${tokens}.away`, tokens);
  expect(away.status).toBe(503);
  expect(away.json()).toMatchObject({ type: "/problems/token-unavailable" });
  await expect.poll(() => keyState(), { timeout: 20_000, interval: 250 }).toBe("200 open");
  expect((await issue()).status).toBe(201);
});

test("a log that cannot be written signs nothing, and goes on when it can", async () => {
  // Another program holds the write lock of the database.
  const holder = spawn("sqlite3", [service.files.database], { stdio: ["pipe", "pipe", "inherit"] });
  const held = new Promise((resolve) => holder.stdout.once("data", resolve));
  holder.stdin.write("BEGIN IMMEDIATE; SELECT 'held';\n");
  await held;
  const refused = await issue();
  const ready = await service.api("/readyz", { token: false });
  expect([ready.status, ready.json()["parts"]]).toEqual([
    503,
    expect.arrayContaining([{ name: "log", state: "failed", detail: expect.any(String) }]),
  ]);
  const ended = new Promise((resolve) => holder.once("close", resolve));
  holder.stdin.end("ROLLBACK;\n");
  await ended;
  expect(refused.status).toBe(503);
  expect(refused.json()).toMatchObject({ type: "/problems/log-unavailable" });
  expect((await issue()).status).toBe(201);
  expect((await service.api("/readyz", { token: false })).status).toBe(200);
});

test("metrics need their own key, which opens nothing else", async () => {
  const metricsKey = readFileSync(service.files.metricsKey, "utf8").trim();
  const page = await service.api("/metrics", { token: metricsKey });
  expect(page.status).toBe(200);
  expect(page.body.toString()).toMatch(/^countersign_key_open\{issuer="issuing"\} 1$/m);
  expect(page.body.toString()).toMatch(
    /^countersign_crl_life_left_seconds\{issuer="root"\} \d{6}/m,
  );
  expect((await service.api("/metrics")).status).toBe(401);
  expect((await service.api("/v1/issuers", { token: metricsKey })).status).toBe(401);
});

interface Sequence {
  sequence: number;
  previous: string | null;
}

/** Signs as the operator does, with stock ssh-keygen. */
function sshSign(namespace: string, message: string): string {
  return execFileSync(
    "ssh-keygen",
    ["-q", "-Y", "sign", "-n", namespace, "-f", service.files.operatorKey],
    {
      input: message,
      stdio: ["pipe", "pipe", "ignore"],
    },
  ).toString();
}

/** An operator's session, by challenge. */
async function login(): Promise<string> {
  const opened = await service.send("/v1/sessions", { operator: "alice" }, { token: false });
  const { id, statement } = opened.json<{ id: string; statement: string }>();
  const signed = await service.send(
    `/v1/sessions/${id}`,
    { signature: sshSign("countersign-login@v1", statement) },
    { token: false },
  );
  return signed.json<{ token: string }>().token;
}

/** Puts a requester into force, or takes one out, as `countersign requester` does. */
async function change(token: string, what: Record<string, unknown>): Promise<Answer> {
  const next = (await service.api("/v1/requesters/next", { token })).json<Sequence>();
  const checkpoint = (await service.api("/audit/checkpoint", { token })).body
    .toString()
    .split("\n");
  const statement = canonicalJson({
    type: "countersign/requester/v1",
    operator: "alice",
    at: new Date().toISOString(),
    sequence: next.sequence,
    previous: next.previous,
    log: { size: Number(checkpoint[1]), root: checkpoint[2]! },
    ...what,
  } as never);
  return service.send(
    "/v1/requesters",
    {
      statement: Buffer.from(statement).toString("base64"),
      signature: sshSign("countersign-requester@v1", statement),
    },
    { token },
  );
}

function requester(name: string, credential: Record<string, string>): Record<string, unknown> {
  return {
    action: "set",
    requester: {
      name,
      credentials: [credential],
      issuers: ["issuing"],
      profiles: ["client"],
      names: { dns: { allow: ["subdomains:team.example.test"] } },
      revoke: "own",
    },
  };
}

test("a requester is added and removed by an operator's signed statement, and its key is stored hashed", async () => {
  const token = await login();
  const apiKey = `csk_${randomBytes(32).toString("base64url")}`;
  const sha256 = `sha256:${createHash("sha256").update(apiKey).digest("hex")}`;
  const added = await change(token, requester("team", { kind: "api-key", sha256 }));
  expect(added.status, added.body.toString()).toBe(200);
  const asTeam = { token: apiKey, headers: { "content-type": "application/pkcs10" } };
  expect((await issue("a.team.example.test", asTeam, "client")).status).toBe(201);
  // What the frame allows and this requester does not, and the reverse.
  expect((await issue("web.example.test", asTeam, "client")).json()).toMatchObject({
    type: "/problems/name-refused",
    rule: expect.stringContaining("requesters.team.names.dns"),
  });
  expect((await issue("a.team.example.test", asTeam, "server")).json()).toMatchObject({
    type: "/problems/profile-not-allowed",
  });
  expect(readFileSync(service.files.database).includes(apiKey)).toBe(false);
  expect((await change(token, { action: "remove", name: "team" })).status).toBe(200);
  expect((await issue("a.team.example.test", asTeam, "client")).status).toBe(401);
});

test("requesters survive a restart, and one authenticates by its certificate", async () => {
  const token = await login();
  const added = await change(
    token,
    requester("mtls-team", { kind: "mtls", issuer: "issuing", name: "dns:robot.example.test" }),
  );
  expect(added.status, added.body.toString()).toBe(200);
  const keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const robot = await service.api("/v1/issuers/issuing/certificates?profile=client", {
    body: makeCsr({ dns: ["robot.example.test"], ...keys }),
    headers: { "content-type": "application/pkcs10" },
  });
  const { certificate, serialNumber } = robot.json<{ certificate: string; serialNumber: string }>();
  const client = {
    cert: certificate,
    key: keys.privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
  await service.stop();
  service = await startTestService({ home });
  const asRobot: ApiRequest = {
    token: false,
    client,
    headers: { "content-type": "application/pkcs10" },
  };
  expect((await issue("b.team.example.test", asRobot, "client")).status).toBe(201);
  await service.send(
    `/v1/issuers/issuing/certificates/${serialNumber}/revocation`,
    { reason: "superseded" },
    { method: "PUT" },
  );
  expect((await issue("b.team.example.test", asRobot, "client")).status).toBe(401);
});

test("a statement that somebody else signed changes nothing", async () => {
  const token = await login();
  const next = (await service.api("/v1/requesters/next", { token })).json<Sequence>();
  const stranger = join(home, "..", "stranger");
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", stranger]);
  const statement = canonicalJson({
    type: "countersign/requester/v1",
    operator: "alice",
    at: new Date().toISOString(),
    ...next,
    log: { size: 0, root: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" },
    ...requester("intruder", { kind: "api-key", sha256: `sha256:${"00".repeat(32)}` }),
  } as never);
  const signature = execFileSync(
    "ssh-keygen",
    ["-q", "-Y", "sign", "-n", "countersign-requester@v1", "-f", stranger],
    { input: statement, stdio: ["pipe", "pipe", "ignore"] },
  ).toString();
  const answer = await service.send(
    "/v1/requesters",
    { statement: Buffer.from(statement).toString("base64"), signature },
    { token },
  );
  expect(answer.json()).toMatchObject({ type: "/problems/signature-invalid" });
  expect((await service.api("/v1/requesters/next", { token })).json()).toEqual(next);
});

test("a PIN file that others can read keeps the key closed, and the message says what to do", async () => {
  await service.stop();
  const pinFile = join(home, "keeper/pins/issuing.pin");
  chmodSync(pinFile, 0o644);
  service = await startTestService({ home });
  const answer = await issue();
  expect(answer.status).toBe(503);
  const { parts, status } = await readyz();
  expect(status).toBe(503);
  expect(JSON.stringify(parts)).toContain("chmod 600");
  chmodSync(pinFile, 0o600);
  await service.stop();
  service = await startTestService({ home });
  expect((await issue()).status).toBe(201);
});

test("a changed policy holds the key until it is granted again", async () => {
  await service.stop();
  const { policy } = service.files;
  const before = readFileSync(policy, "utf8");
  writeFileSync(policy, before.replace("maximum: 90d", "maximum: 91d"));
  service = await startTestService({ home });
  const answer = await issue();
  expect(answer.status).not.toBe(201);
  writeFileSync(policy, before);
  await service.stop();
  service = await startTestService({ home });
  expect((await issue()).status).toBe(201);
});

test("SIGTERM answers what is under way, takes nothing new, and ends with 0", async () => {
  const under = Array.from({ length: 20 }, (_, index) => issue(`n${index}.example.test`));
  await Promise.race(under);
  const code = service.stop();
  const answers = await Promise.allSettled(under);
  expect(await code).toBe(0);
  const statuses = answers.map((answer) =>
    answer.status === "fulfilled" ? answer.value.status : "not connected",
  );
  expect(statuses.filter((status) => status === 201).length).toBeGreaterThan(0);
  expect(statuses.filter((status) => ![201, 503, "not connected"].includes(status))).toEqual([]);
  service = await startTestService({ home });
  const page = await service.api("/v1/issuers/issuing/certificates?limit=200&state=valid");
  const recorded = page.json<{ certificates: unknown[] }>().certificates.length;
  expect(recorded).toBeGreaterThanOrEqual(statuses.filter((status) => status === 201).length);
});
