/** The people themselves: a sixth is taken in, and leaves; one locks everything, and a quorum lets it go again. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { CeremonyAnswer, InboxItem } from "../../src/cli/people-answers.ts";
import { makeCsr } from "../support/csr.ts";
import { HomePeople } from "../support/home-people.ts";
import { makeSshKey } from "../support/people.ts";
import { removeHome, startTestService, type RunningService } from "../support/service.ts";

/** For what the service does by itself. */
const WAIT = { timeout: 20_000, interval: 100 };

let service: RunningService;
let people: HomePeople;

beforeAll(async () => {
  service = await startTestService();
  people = new HomePeople(service);
});

afterAll(async () => {
  expect(await service.stop()).toBe(0);
  people.remove();
  removeHome(service.home);
});

/** Has three of the five approve, which is what the roster's rules ask for; nothing happens before. */
async function agree(id: string, by: readonly string[]): Promise<void> {
  for (const [place, person] of by.entries()) {
    const { state } = await people.json<CeremonyAnswer>(person, "approve", id, "--yes");
    expect(state).toBe(place < 2 ? "gathering" : "applied");
  }
}

function anHour(): object {
  const now = Date.now();
  return {
    operations: [{ operation: "crl", max: 1 }],
    notBefore: new Date(now).toISOString(),
    notAfter: new Date(now + 3_600_000).toISOString(),
    idleSeconds: 600,
  };
}

async function issue(): Promise<unknown> {
  const answer = await service.api("/v1/issuers/issuing/certificates?profile=server", {
    body: makeCsr({ dns: ["web.example.test"] }),
    headers: { "content-type": "application/pkcs10" },
  });
  return answer.status === 201 ? 201 : answer.json()["code"];
}

test("CUSTODY 8.4: who has enrolled is one of the people when a quorum of them says so, and signs in from then on", async () => {
  const { apiPort, files } = service;
  const frankKey = people.fileOf("frank", "id_ed25519");
  makeSshKey(frankKey);
  const enrolled = await people.json<{ id: string; proved: boolean }>(
    "frank",
    ...["enrol", "--operator", "frank", "--ssh-key", frankKey, "--yes"],
    ...["--url", `https://127.0.0.1:${apiPort}`, "--ca", files.tlsCertificate],
    ...["--identity-key", readFileSync(files.identityKey, "utf8").trim()],
    ...["--log-key", readFileSync(files.logKey, "utf8").trim()],
  );
  expect(enrolled.proved).toBe(true);
  expect((await people.signIn("frank")).status).not.toBe(200);

  const next = join(people.folder, "roster-2.json");
  await people.told("alice", "roster", "add", "frank", "--out", next, "--reason", "a sixth");
  expect(await people.refusal("alice", "roster", "propose", next)).toBe("roster-unsigned");
  await people.told("frank", "roster", "sign", next, "--yes");
  const proposed = await people.json<CeremonyAnswer>(
    "alice",
    ...["roster", "propose", next, "--reason", "a sixth"],
  );
  const { items } = await people.json<{ items: InboxItem[] }>("bob", "inbox");
  expect(items).toMatchObject([{ what: "approve", ceremony: proposed.digest, reason: "a sixth" }]);
  // Who is not one of them yet has no say in it.
  expect(await people.refusal("frank", "approve", proposed.id, "--yes")).toBeDefined();
  await agree(proposed.id, ["alice", "bob", "carol"]);

  expect(await people.get("/v1/roster")).toMatchObject({ version: 2 });
  await expect.poll(async () => (await people.signIn("frank")).status, WAIT).toBe(200);
  const shown = await people.told("frank", "roster", "show");
  expect(shown).toContain("roster, version 2");
  expect(shown).toContain("frank");
});

test("ST-34, ST-39: who is taken out cannot do anything any more, whatever they have still", async () => {
  const opened = await people.signIn("frank");
  const { token } = opened.json<{ token: string }>();
  expect((await service.api("/v1/roster", { token })).status).toBe(200);
  const { keyId } = await people.key("root");
  const ceremony = await people.propose({ kind: "window", keyId, window: anHour() });
  const approves = async (id: string): Promise<unknown> => {
    const { statement, signature } = await people.signed(id, "approval", {
      type: "countersign/approval/v1",
      ceremony: ceremony.digest,
      verdict: "approve",
      role: "operator",
    });
    const body = { statement: Buffer.from(statement).toString("base64"), signature };
    const path = `/v1/ceremonies/${ceremony.id}/approvals`;
    const answer = await service.send(path, body, { token: false });
    return answer.json()["code"] ?? answer.status;
  };
  expect(await approves("frank")).toBe(200);

  const proposed = await people.json<CeremonyAnswer>(
    "bob",
    ...["roster", "remove", "frank", "--reason", "has left"],
    ...["--out", join(people.folder, "roster-3.json")],
  );
  await agree(proposed.id, ["carol", "dora", "erin"]);
  // The session that is open ends with it, and there is no new one.
  await expect
    .poll(async () => (await service.api("/v1/roster", { token })).status, WAIT)
    .toBe(401);
  expect((await people.signIn("frank")).status).not.toBe(200);
  expect(await approves("frank")).toBe("operator-unknown");
  expect(await approves("alice")).toBe(200);
  expect((await people.run("frank", "lock", keyId, "--yes")).stderr).toContain("operator-unknown");
  expect(await issue()).toBe(201);
});

test("ST-50: one locks everything at once, and only a quorum lets it go", async () => {
  const { keyId } = await people.key("root");
  const window = anHour();
  const before = await people.propose({ kind: "window", keyId, window });
  const gathering = await people.unlock(before.digest);
  expect(service.processes().signers).toHaveLength(2);
  expect(await issue()).toBe(201);

  await people.told("dora", "panic", "--reason", "the host is not ours any more", "--yes");
  expect(service.processes().signers).toEqual([]);
  expect(await issue()).toBe("key-held");
  await expect
    .poll(
      async () => (await people.get<{ state: string }>(`/v1/unlocks/${gathering.id}`)).state,
      WAIT,
    )
    .toBe("ended");
  const proposal = { reason: "in a panic", kind: "window", keyId, window };
  for (const [path, body] of [
    ["/v1/ceremonies", proposal],
    ["/v1/unlocks", { ceremony: before.digest }],
  ] as const) {
    expect([path, (await people.send(path, body)).json()["code"]]).toEqual([path, "panic"]);
  }
  await expect
    .poll(() => people.get("/v1/status"), WAIT)
    .toMatchObject({ panic: { operator: "dora" } });

  // Also after a restart.
  expect(await service.stop()).toBe(0);
  service = await startTestService({ home: service.home });
  people.restarted(service);
  expect(await issue()).toBe("key-held");
  expect(service.processes().signers).toEqual([]);

  const proposed = await people.json<CeremonyAnswer>(
    "dora",
    ...["ceremony", "propose", "resume", "--release", "all", "--reason", "the host is replaced"],
  );
  await agree(proposed.id, ["alice", "bob", "erin"]);
  await expect.poll(issue, WAIT).toBe(201);
  await expect.poll(() => people.get("/v1/status"), WAIT).toMatchObject({ panic: null });
});

test("ST-80: the log accounts for all that was done here", async () => {
  const key = readFileSync(service.files.logKey, "utf8").trim();
  const { status, stdout } = await people.run(
    "bob",
    ...["verify", "--database", service.files.database, "--key", key],
  );
  expect([status, stdout]).toEqual([0, expect.stringContaining("LOG-11")]);
});
