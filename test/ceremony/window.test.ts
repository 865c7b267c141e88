/** A key that is open for a time, for requests that match: CUSTODY.md 6.2. And what locks it. */

import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { createIssuance } from "../../src/issuance/issuance.ts";
import { IssuerSet } from "../../src/issuance/issuer.ts";
import { compilePolicy } from "../../src/policy/decide.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import { CrlSchedule } from "../../src/revocation/crl-schedule.ts";
import { asRequester } from "../issuance/domain.ts";
import { grantedPolicy, policyText } from "../custody/keeper-home.ts";
import { makeCsr } from "../support/csr.ts";
import { json } from "../support/people.ts";
import { refused } from "../support/refused.ts";
import { certifySealed } from "./artefacts.ts";
import { address, as, openSealedHome, sealedKey, type SealedHome } from "./home.ts";

async function openIssuing(): Promise<SealedHome> {
  const home = await openSealedHome();
  await certifySealed(home);
  await home.restart(sealedKey(home.keyId, "issuing", true));
  return home;
}

function window(change: object = {}) {
  const at = Math.floor(Date.now() / 1000) * 1000;
  return {
    operations: [
      { operation: "certificate" as const, profile: "server", max: 1 },
      { operation: "crl" as const, max: 2 },
    ],
    notBefore: new Date(at - 60_000).toISOString(),
    notAfter: new Date(at + 3_600_000).toISOString(),
    idleSeconds: 3600,
    ...change,
  };
}

/** Opens a window with the shares of alice and bob. */
async function openWindow(home: SealedHome, change: object = {}): Promise<string> {
  const { digest } = await home.propose({
    kind: "window",
    keyId: home.keyId,
    window: window(change),
  });
  const unlock = await home.domain.unlocks.open(digest, undefined, as("carol"));
  await home.submit("alice", unlock.digest);
  await home.submit("bob", unlock.digest);
  return digest;
}

/** Issuance and CRLs around the same journal and keeper. */
async function issuing(home: SealedHome) {
  const { journal, reads, keeper } = home.running;
  const policy = compilePolicy(parsePolicy(policyText, "policy.yaml"));
  const status = await keeper.status();
  const issuers = new IssuerSet(() => status.keys, policy, "http://127.0.0.1");
  const now = (): Date => home.now();
  const common = { issuers, journal, reads, keeper, policyDigest: grantedPolicy, now };
  const schedule = await CrlSchedule.load({ ...common, failed: () => {} });
  const issuance = createIssuance({
    ...common,
    policy,
    random: randomBytes,
    abandoned: () => {},
  });
  return {
    schedule,
    issue: () =>
      issuance.issue({
        caller: asRequester(policy.requesters.get("web")!.requester),
        issuer: "issuing",
        profile: "server",
        csr: makeCsr({ dns: ["a.example.test"] }),
        requestId: "0",
      }),
  };
}

test("a window issues what it allows, until its counts are used up: then the key and the ceremony are locked", async () => {
  await using home = await openIssuing();
  const ceremony = await openWindow(home);
  expect(home.failures).toEqual([]);
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("unlocked");
  expect(await home.domain.custody.key(home.keyId)).toMatchObject({
    state: "open",
    operations: ["certificate", "crl"],
    ceremony,
  });
  const { issue, schedule } = await issuing(home);
  const { certificate } = await issue();
  expect(certificate.length).toBeGreaterThan(100);
  await expect(issue()).rejects.toEqual(refused("grant-exceeded"));
  expect((await schedule.publish("issuing", as("alice"))).number).toBe("1");
  expect((await schedule.publish("issuing", as("alice"))).number).toBe("2");
  await home.until(ceremony, "locked");
  expect((await home.entries()).slice(-2)).toMatchObject([
    { type: "key.locked", subject: { keyId: home.keyId, ceremony }, data: { reason: "used-up" } },
    {
      type: "ceremony.closed",
      subject: { ceremony },
      data: { state: "locked", reason: "used-up" },
    },
  ]);
  await expect(issue()).rejects.toEqual(refused("key-locked"));
  await schedule.stop();
});

test("a window that is open is locked after a restart, and by an abort of its proposer", async () => {
  await using home = await openIssuing();
  const first = await openWindow(home);
  await home.restart(sealedKey(home.keyId, "issuing", true));
  expect((await home.domain.ceremonies.view(first)).state).toBe("locked");
  expect(await home.domain.custody.key(home.keyId)).toMatchObject({ state: "locked" });
  const second = await openWindow(home);
  expect((await home.abort("alice", second)).state).toBe("aborted");
  expect(await home.domain.custody.key(home.keyId)).toMatchObject({ state: "locked" });
});

test("a ceremony whose votes are met waits while the key is open for another, and goes on when it is locked", async () => {
  await using home = await openIssuing();
  const waiting = await home.propose(
    { kind: "window", keyId: home.keyId, window: window({ idleSeconds: 600 }) },
    "bob",
  );
  const unlock = await home.domain.unlocks.open(waiting.digest, undefined, as("bob"));
  await home.submit("alice", unlock.digest);
  const first = await openWindow(home);
  await home.submit("carol", unlock.digest);
  expect(await home.domain.ceremonies.view(waiting.digest)).toMatchObject({
    state: "gathering",
    trouble: expect.stringMatching(/^unlock-busy/) as string,
  });
  // Nothing says that a key is open which is not.
  const unlocked = await home.entries("key.unlocked");
  expect(unlocked.map(({ subject }) => subject)).toMatchObject([{ ceremony: first }]);
  await home.abort("alice", first);
  await home.advance(0);
  expect((await home.domain.ceremonies.view(waiting.digest)).state).toBe("unlocked");
});

test("any one operator locks a key at once; a lock that is sent again stands in the log once", async () => {
  await using home = await openIssuing();
  const ceremony = await openWindow(home);
  const lock = home.signed("erin", "lock", {
    type: "countersign/lock/v1",
    operator: "erin",
    at: new Date().toISOString(),
    log: await home.seen(),
    keyId: home.keyId,
  });
  await home.domain.custody.lock(home.keyId, lock, address);
  expect(await home.domain.custody.key(home.keyId)).toMatchObject({ state: "locked" });
  await home.until(ceremony, "locked");
  await home.domain.custody.lock(home.keyId, lock, address).catch(() => undefined);
  const locked = (await home.entries("key.locked")).filter(
    ({ evidence }) => evidence !== undefined,
  );
  expect(locked).toMatchObject([{ actor: { id: "erin" }, subject: { keyId: home.keyId } }]);
  // A sealed key is only locked: the next unlock opens it.
  expect((await home.domain.ceremonies.view(await openWindow(home))).state).toBe("unlocked");
});

test("ST-50: after a panic nothing opens and no unlock starts, until people have agreed to resume", async () => {
  await using home = await openIssuing();
  const ceremony = await openWindow(home);
  const panic = home.signed("erin", "lock", {
    type: "countersign/panic/v1",
    operator: "erin",
    at: new Date().toISOString(),
    log: await home.seen(),
    service: "test.example",
    reason: "somebody stands at the rack",
  });
  await home.domain.custody.panic(panic, address);
  await home.until(ceremony, "locked");
  expect(await home.entries("panic")).toMatchObject([{ actor: { id: "erin" } }]);
  await expect(openWindow(home)).rejects.toEqual(refused("panic"));
  await home.restart(sealedKey(home.keyId, "issuing", true));
  await expect(openWindow(home)).rejects.toEqual(refused("panic"));
  const plan = json({ type: "countersign/resume/v1", service: "test.example", release: "all" });
  const { digest } = await home.propose({ kind: "resume", plan });
  expect((await home.approve("alice", digest)).state).toBe("gathering");
  expect((await home.approve("dora", digest)).state).toBe("applied");
  expect(await home.entries("resume")).toMatchObject([{ subject: { ceremony: digest } }]);
  expect((await home.domain.ceremonies.view(await openWindow(home))).state).toBe("unlocked");
});

test("a window for a profile that the policy does not have, or without a key, is not proposed", async () => {
  await using home = await openIssuing();
  await expect(
    home.propose({
      kind: "window",
      keyId: home.keyId,
      window: window({ operations: [{ operation: "certificate", profile: "none", max: 1 }] }),
    }),
  ).rejects.toEqual(refused("ceremony-refused", /no profile none/));
  await expect(home.propose({ kind: "window", window: window() })).rejects.toEqual(
    refused("ceremony-refused"),
  );
});
