import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import { parseCanonicalJson } from "../../src/audit/canonical-json.ts";
import { parseLogProof, verifyLogProof } from "../../src/audit/proof.ts";
import { apiKey, metricsKey, startSites, storedCertificate } from "../support/http-sites.ts";

const folder = mkdtempSync(join(tmpdir(), "countersign-ssh-"));
const { api, domain, close } = await startSites();
afterAll(async () => {
  await close();
  rmSync(folder, { recursive: true });
});

function makeKey(name: string): string {
  const file = join(folder, name);
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file]);
  return readFileSync(`${file}.pub`, "utf8").split(" ").slice(0, 2).join(" ");
}

/** With stock ssh-keygen. */
function sign(key: string, statement: string, namespace = "countersign-login@v1"): string {
  const file = join(folder, "statement");
  writeFileSync(file, statement);
  rmSync(`${file}.sig`, { force: true });
  execFileSync("ssh-keygen", ["-q", "-Y", "sign", "-n", namespace, "-f", join(folder, key), file], {
    stdio: "pipe",
  });
  return readFileSync(`${file}.sig`, "utf8");
}

const alice = makeKey("alice");
const spare = makeKey("spare");
const bob = makeKey("bob");

let minute = 0;
beforeEach(() => {
  // Attempts are counted by the minute, and each test has its own.
  domain.now = new Date(Date.UTC(2026, 10, 21, 20, minute++));
  domain.operators = [
    { id: "alice", keys: [alice, spare] },
    { id: "bob", keys: [bob] },
  ];
});

const later = (seconds: number): void => {
  domain.now = new Date(domain.now.getTime() + seconds * 1000);
};

async function begin(operator = "alice"): Promise<{ id: string; statement: string }> {
  const answer = await api("/v1/sessions", { body: { operator } });
  expect(answer.status).toBe(201);
  return answer.json as { id: string; statement: string };
}

const answerWith = (id: string, signature: string) =>
  api(`/v1/sessions/${id}`, { body: { signature } });

async function signIn(operator = "alice"): Promise<string> {
  const { id, statement } = await begin(operator);
  const answer = await answerWith(id, sign(operator, statement));
  expect(answer.status).toBe(200);
  return answer.json["token"] as string;
}

test("CUSTODY 6.1: the login statement is canonical JSON and names the log head seen", async () => {
  const answer = await api("/v1/sessions", { body: { operator: "alice" } });
  expect(answer.json).toEqual({
    id: expect.stringMatching(/^[0-9a-f]{32}$/),
    statement: expect.any(String),
    namespace: "countersign-login@v1",
    expiresAt: new Date(domain.now.getTime() + 120_000).toISOString(),
  });
  expect(parseCanonicalJson(Buffer.from(answer.json["statement"] as string))).toEqual({
    type: "countersign/login/v1",
    operator: "alice",
    challenge: expect.stringMatching(/^[A-Za-z0-9+/]{43}=$/),
    service: "ca.example.test",
    at: domain.now.toISOString(),
    log: { size: 300, root: Buffer.from(domain.log.tree.root()).toString("base64") },
  });
});

test("a signed challenge gives a token for 15 minutes", async () => {
  const { id, statement } = await begin();
  const answer = await answerWith(id, sign("alice", statement));
  const token = answer.json["token"] as string;
  expect(token).toMatch(/^css_[A-Za-z0-9_-]{43}$/);
  expect(answer.json["expiresAt"]).toBe(new Date(domain.now.getTime() + 900_000).toISOString());
  later(899);
  expect((await api("/v1/requesters", { token })).status).toBe(200);
  later(1);
  expect((await api("/v1/requesters", { token })).status).toBe(401);
});

test("any key of the operator will do", async () => {
  const { id, statement } = await begin();
  expect((await answerWith(id, sign("spare", statement))).status).toBe(200);
});

test("a challenge is used once", async () => {
  const { id, statement } = await begin();
  const signature = sign("alice", statement);
  expect((await answerWith(id, signature)).status).toBe(200);
  expect((await answerWith(id, signature)).json["code"]).toBe("session-malformed");
});

test("a challenge ends after two minutes", async () => {
  const { id, statement } = await begin();
  later(120);
  const answer = await answerWith(id, sign("alice", statement));
  expect(answer.json["code"]).toBe("session-malformed");
});

test.for([
  { name: "another operator's key", key: "bob" },
  { name: "another namespace", key: "alice", namespace: "countersign-approval@v1" },
  {
    name: "another statement",
    key: "alice",
    change: (text: string) => text.replace("alice", "alicf"),
  },
  { name: "a newline more", key: "alice", change: (text: string) => `${text}\n` },
])("signature-invalid: $name, and the challenge is gone", async ({ key, namespace, change }) => {
  const { id, statement } = await begin();
  const wrong = await answerWith(id, sign(key, change?.(statement) ?? statement, namespace));
  expect([wrong.status, wrong.json["code"]]).toEqual([403, "signature-invalid"]);
  const right = await answerWith(id, sign("alice", statement));
  expect(right.json["code"]).toBe("session-malformed");
});

test("text that is no signature is refused", async () => {
  const { id } = await begin();
  expect((await answerWith(id, "no signature")).json["code"]).toBe("signature-invalid");
});

test("a stranger's name gets a challenge like any other, and nobody in", async () => {
  const { id, statement } = await begin("mallory");
  expect((await answerWith(id, sign("bob", statement))).json["code"]).toBe("session-malformed");
});

test("an operator's name is not a place for other text", async () => {
  for (const operator of ["", "A", "\ud800", "a b", "a".repeat(64)]) {
    expect((await api("/v1/sessions", { body: { operator } })).json["code"]).toBe(
      "request-malformed",
    );
  }
});

test("rate-limited: ten wrong answers in a minute, and no longer than the minute", async () => {
  for (let attempt = 0; attempt < 10; attempt++) {
    expect((await answerWith("0".repeat(32), "x")).status).toBe(400);
  }
  const { id, statement } = await begin();
  const limited = await answerWith(id, sign("alice", statement));
  expect([limited.status, limited.headers["retry-after"]]).toEqual([429, "60"]);
  later(60);
  expect((await answerWith(id, sign("alice", statement))).status).toBe(200);
  minute++;
});

test("signing out ends the session, and only that one", async () => {
  const [first, second] = [await signIn(), await signIn()];
  const out = await api("/v1/sessions/current", { method: "DELETE", token: first });
  expect([out.status, out.text]).toEqual([204, ""]);
  expect((await api("/v1/requesters", { token: first })).status).toBe(401);
  expect((await api("/v1/requesters", { token: second })).status).toBe(200);
});

test("whoever leaves the roster is out at once", async () => {
  const token = await signIn("bob");
  domain.operators = domain.operators.filter(({ id }) => id !== "bob");
  expect((await api("/v1/requesters", { token })).status).toBe(401);
});

test("operators see every certificate and may search by requester", async () => {
  const token = await signIn();
  domain.rows.push(storedCertificate({ requester: "mail" }));
  const path = "/v1/issuers/issuing/certificates";
  expect((await api(`${path}/00c0ffee`, { token })).status).toBe(200);
  await api(path, { token });
  await api(`${path}?requester=mail`, { token });
  expect(domain.filters).toEqual([
    { issuer: "issuing", limit: 50 },
    { issuer: "issuing", limit: 50, requester: "mail" },
  ]);
});

test("the proof of a certificate's record verifies offline", async () => {
  const token = await signIn();
  domain.rows.splice(0, domain.rows.length, storedCertificate({ doneIndex: 270 }));
  const path = "/v1/issuers/issuing/certificates/00c0ffee/proof";
  const answer = await api(path, { token });
  expect(answer.status).toBe(200);
  const proof = parseLogProof(answer.text);
  expect(proof.index).toBe(270);
  const verified = verifyLogProof(proof, domain.log.signer.verifierKey);
  expect(verified.leaf).toEqual(domain.log.leaves[270]);
  // Not covered by a checkpoint yet.
  domain.rows.splice(0, domain.rows.length, storedCertificate({ doneIndex: 300 }));
  expect((await api(path, { token })).json["code"]).toBe("log-unavailable");
});

test("an operator's session does not open /metrics", async () => {
  const token = await signIn();
  expect((await api("/metrics", { token })).status).toBe(401);
  expect((await api("/metrics", { token: metricsKey })).status).toBe(200);
});

test("an operator changes requesters with a signed statement", async () => {
  const token = await signIn();
  expect((await api("/v1/requesters/next", { token })).json).toEqual({
    sequence: 1,
    previous: null,
  });
  const statement = Buffer.from("{}");
  const answer = await api("/v1/requesters", {
    token,
    body: { statement: statement.toString("base64"), signature: "armored" },
  });
  expect(answer.json).toEqual({ sequence: 2, previous: null });
  expect(domain.changes).toEqual([
    { statement, signature: "armored", caller: { kind: "operator", id: "alice", via: "session" } },
  ]);
  const list = await api("/v1/requesters", { token });
  expect(list.text).not.toContain(apiKey);
  expect((await api("/v1/requesters/mail", { token })).json["name"]).toBe("mail");
  expect((await api("/v1/requesters/nobody", { token })).json["code"]).toBe("requester-unknown");
});

test("an operator asks the policy about any requester, by name", async () => {
  const token = await signIn();
  const body = { issuer: "issuing", profile: "server", names: [{ kind: "dns", value: "a.test" }] };
  expect((await api("/v1/policy/evaluate", { token, body })).json["code"]).toBe(
    "request-malformed",
  );
  const named = { ...body, requester: "mail" };
  expect((await api("/v1/policy/evaluate", { token, body: named })).json["verdict"]).toBe("refuse");
  expect((await api("/v1/policy", { token })).json["document"]).toEqual({ version: 1 });
});

test("an operator asks for a new CRL and reads the whole status and the entries", async () => {
  const token = await signIn();
  const crl = await api("/v1/issuers/issuing/crl", { method: "POST", token });
  expect([crl.status, crl.json["number"]]).toEqual([201, "7"]);
  const status = await api("/v1/status", { token });
  expect(status.json).toMatchObject({ service: "ca.example.test", keeper: "child", requesters: 2 });
  const summary = await api("/v1/status", { token: apiKey });
  expect(Object.keys(summary.json).toSorted()).toEqual(["parts", "ready", "service", "version"]);
  expect((await api("/audit/tile/entries/000", { token })).headers["cache-control"]).toBe(
    "private, no-store",
  );
});
