/** What is left when a process ends in the middle: CUSTODY.md 6.2, SECURITY-TESTS ST-49 and ST-62. */

import { expect, test } from "vitest";
import type { CeremonyState } from "../../src/ceremony/records.ts";
import { pidsOf } from "../custody/keeper-home.ts";
import { json } from "../support/people.ts";
import { refused } from "../support/refused.ts";
import { publicKeyOf, rootTbs } from "./artefacts.ts";
import { as, openCeremonyHome, openSealedHome, sealedKey, type SealedHome } from "./home.ts";

const patience = { timeout: 20_000 };

async function proposeRoot(home: SealedHome): Promise<string> {
  const tbs = rootTbs(await publicKeyOf(home, home.shareSet));
  return (await home.propose({ kind: "sign", keyId: home.keyId, artefacts: [{ tbs }] })).digest;
}

async function submitTwo(home: SealedHome, ceremony: string): Promise<string> {
  const { digest } = await home.domain.unlocks.open(ceremony, undefined, as("alice"));
  await home.submit("alice", digest);
  await home.submit("bob", digest);
  return digest;
}

function keeperPid(): number {
  const [pid] = pidsOf("keeper", process.pid);
  return pid!;
}

test("ST-49: an unlocker that dies ends its unlock; the ceremony gathers shares again", async () => {
  await using home = await openSealedHome({ issuer: "root" });
  const ceremony = await proposeRoot(home);
  const first = await home.domain.unlocks.open(ceremony, undefined, as("alice"));
  await home.submit("alice", first.digest);
  for (const pid of pidsOf("unlocker", keeperPid())) process.kill(pid, "SIGKILL");
  await expect.poll(async () => (await home.domain.unlocks.view(first.digest)).state).toBe("ended");
  await expect(home.submit("bob", first.digest)).rejects.toEqual(refused("unlock-closed"));
  await submitTwo(home, ceremony);
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("published");
});

test.for<{ name: string; method: string; after: CeremonyState }>([
  { name: "before it is opened", method: "open", after: "gathering" },
  { name: "when it is open and nothing is signed", method: "sign", after: "failed" },
])("ST-49: the service ends $name", async ({ method, after }) => {
  await using home = await openSealedHome({ issuer: "root" });
  const ceremony = await proposeRoot(home);
  home.hook = async (name) => {
    if (name !== method) return;
    // What would follow never does: this is where the process ends.
    await new Promise<never>(() => {});
  };
  void submitTwo(home, ceremony);
  await expect
    .poll(async () => (await home.domain.ceremonies.view(ceremony)).state, patience)
    .toBe(method === "open" ? "unlocking" : "unlocked");
  await home.crash();
  home.hook = () => {};
  await home.start();
  expect(await home.domain.ceremonies.view(ceremony)).toMatchObject({
    state: after,
    unlock: { state: method === "open" ? "ended" : "opened" },
  });
  expect(await home.domain.custody.key(home.keyId)).toMatchObject({ state: "locked" });
  expect((await home.entries("key.locked")).at(-1)).toMatchObject({
    subject: { ceremony },
    data: { reason: "restart" },
  });
  if (after === "failed") return;
  await submitTwo(home, ceremony);
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("published");
});

test("ST-49: a signer that dies fails what was to be signed with it, and stores nothing", async () => {
  await using home = await openSealedHome({ issuer: "root" });
  const ceremony = await proposeRoot(home);
  home.hook = (name) => {
    if (name !== "sign") return;
    for (const pid of pidsOf("signer", keeperPid())) process.kill(pid, "SIGKILL");
  };
  await submitTwo(home, ceremony);
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("failed");
  expect(await home.reads.issuerCertificates()).toEqual([]);
  expect(await home.reads.pendingIntents()).toEqual({ certificates: [], crls: [] });
});

test("ST-62: a dealer that dies leaves nothing, and the same plan is dealt again", async () => {
  await using home = await openCeremonyHome();
  const { digest } = await home.propose({ kind: "generate", plan: home.plan() });
  await home.approve("alice", digest);
  await home.approve("bob", digest);
  const killing = setInterval(() => {
    for (const pid of pidsOf("dealer", keeperPid())) process.kill(pid, "SIGKILL");
  }, 1);
  const left = await home.approve("carol", digest);
  clearInterval(killing);
  expect(left).toMatchObject({
    state: "gathering",
    trouble: expect.stringMatching(/^deal-failed/) as string,
  });
  expect(await home.reads.shareSets({})).toEqual([]);
  await home.advance(60_000);
  const dealt = await home.domain.ceremonies.view(digest);
  expect(dealt.state).toBe("pending");
  expect(dealt.trouble).toBeUndefined();
});

test("ST-62: what was dealt and not stored is lost, and nobody can have it dealt again behind the people's backs", async () => {
  await using home = await openCeremonyHome();
  const { digest } = await home.propose({ kind: "generate", plan: home.plan() });
  await home.approve("alice", digest);
  await home.approve("bob", digest);
  let dealt = false;
  home.afterwards = async (name) => {
    if (name !== "deal") return;
    dealt = true;
    await new Promise<never>(() => {});
  };
  void home.approve("carol", digest);
  await expect.poll(() => dealt, patience).toBe(true);
  await home.crash();
  home.afterwards = () => {};
  await home.start();
  expect((await home.domain.ceremonies.view(digest)).state).toBe("failed");
});

test("a roster and a resume that a crash cut short are finished at the next start", async () => {
  await using home = await openCeremonyHome();
  const { inForce } = home.running.rosters;
  const next = json({
    ...inForce.document,
    version: 2,
    previous: inForce.digest,
    operators: inForce.document.operators.filter(({ id }) => id !== "erin"),
  });
  const { digest } = await home.propose({ kind: "roster", plan: next });
  await home.approve("alice", digest);
  home.hook = async (name) => {
    if (name === "endUnlock" || name === "roster") await new Promise<never>(() => {});
  };
  void home.approve("bob", digest);
  await expect.poll(async () => (await home.reads.rosterVersions()).length, patience).toBe(2);
  await home.crash();
  home.hook = () => {};
  await home.start();
  expect((await home.domain.ceremonies.view(digest)).state).toBe("applied");
  expect((await home.running.keeper.status()).roster?.version).toBe(2);

  const panic = home.signed("bob", "lock", {
    type: "countersign/panic/v1",
    operator: "bob",
    at: new Date().toISOString(),
    log: await home.seen(),
    service: "test.example",
    reason: "a test",
  });
  await home.domain.custody.panic(panic, "192.0.2.1");
  const plan = json({ type: "countersign/resume/v1", service: "test.example", release: "all" });
  const resume = await home.propose({ kind: "resume", plan });
  await home.approve("alice", resume.digest);
  let resumed = false;
  home.afterwards = async (name) => {
    if (name !== "resume") return;
    resumed = true;
    await new Promise<never>(() => {});
  };
  void home.approve("bob", resume.digest);
  await expect.poll(() => resumed, patience).toBe(true);
  await home.crash();
  home.afterwards = () => {};
  await home.start();
  expect((await home.domain.ceremonies.view(resume.digest)).state).toBe("applied");
  expect((await home.running.keeper.status()).panic).toBeNull();
});

test("a share set whose keeper did not hear that it is in force hears of it at the next start", async () => {
  await using home = await openCeremonyHome();
  const { keyId, shareSet, ceremony } = await home.generate();
  await home.confirm(shareSet, 1, "alice");
  await home.confirm(shareSet, 2, "bob");
  home.hook = async (name) => {
    if (name === "activate") await new Promise<never>(() => {});
  };
  void home.confirm(shareSet, 3, "carol");
  await expect
    .poll(async () => (await home.domain.ceremonies.view(ceremony)).state, patience)
    .toBe("applied");
  await home.crash();
  home.hook = () => {};
  home.home.configure(sealedKey(keyId, "root"));
  await home.start();
  await submitTwo(
    Object.assign(home, { keyId, shareSet }),
    await proposeRoot(Object.assign(home, { keyId, shareSet })),
  );
  expect((await home.domain.custody.key(keyId)).shareSets).toMatchObject([{ state: "active" }]);
  expect((await home.running.keeper.status()).keys).toMatchObject([{ keyId, epoch: 1 }]);
  expect(home.failures).toEqual([]);
});

test("a restart with nothing open changes nothing, and the keeper knows the shares in force", async () => {
  await using home = await openSealedHome({ issuer: "root" });
  const size = await home.reads.logSize();
  await home.restart(sealedKey(home.keyId, "root"));
  expect(await home.reads.logSize()).toBe(size);
  expect(await home.domain.custody.key(home.keyId)).toMatchObject({
    state: "locked",
    custody: "sealed",
    shareSets: [{ epoch: 1, state: "active" }],
  });
});
