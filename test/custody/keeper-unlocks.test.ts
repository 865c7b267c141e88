import { createPublicKey, verify } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import type { Closed } from "../../src/custody/keeper-client.ts";
import { encodePem } from "../../src/x509/pem.ts";
import { json } from "../support/people.ts";
import { refused } from "../support/refused.ts";
import { home, keeperPid, start, startNew, useKeeperHome } from "./keeper-fixture.ts";
import { certify, isAlive, leafTbs, logAndSign, pidsOf } from "./keeper-home.ts";
import { eventually, Keeping, sealedKeyOf, signing, type SealedKey } from "./keeper-people.ts";
import { rootTbs } from "./opened-key.ts";

const HOUR = 3_600_000;

useKeeperHome("alice", "bob", "carol");

/** Made once; each keeper here has it in its configuration. */
let key: SealedKey;
let tbs: Uint8Array;

beforeAll(async () => {
  home.found({ rules: { roster: 2, policy: 2, resume: 2, ceremonies: {} } });
  const { keeper, log } = await startNew();
  key = sealedKeyOf(home, (await new Keeping(home, keeper, log).deal()).dealt);
  await keeper.close();
  tbs = rootTbs(publicKey());
});

function publicKey(): Buffer {
  return Buffer.from(key.shareSet.read.publicKey, "base64");
}

/** A keeper that knows the key, with its share set active. */
async function keeping(
  rules: { [kind: string]: { [role: string]: number } } = {},
): Promise<Keeping> {
  home.found({ rules: { roster: 2, policy: 2, resume: 2, ceremonies: rules } });
  home.configure((config) => config.keys.push({ issuer: "root", keyId: key.keyId }));
  const { keeper, log } = await startNew();
  const all = new Keeping(home, keeper, log);
  await all.activate(key);
  return all;
}

async function rootStatus({ keeper }: Keeping) {
  return (await keeper.status()).keys.find(({ issuer }) => issuer === "root")!;
}

function sign({ keeper, log }: Keeping, bytes: Uint8Array): Promise<Uint8Array> {
  return logAndSign(home, keeper, log, bytes, {
    keyId: key.keyId,
    policy: null,
    profile: "root",
  });
}

function pids(kind: "signer" | "unlocker" | "dealer"): number[] {
  return pidsOf(kind, keeperPid());
}

/** Without that of the standing key. */
function sealedSigners(standing: readonly number[]): number[] {
  return pids("signer").filter((pid) => !standing.includes(pid));
}

test("two of three custodians open a sealed key for one certificate, and with its signature it is locked again", async () => {
  const all = await keeping();
  const closed: Closed[] = [];
  all.keeper.onClosed((event) => closed.push(event));
  expect(await rootStatus(all)).toMatchObject({
    state: "locked",
    custody: "sealed",
    epoch: 1,
    operations: [],
  });
  await expect(sign(all, tbs)).rejects.toEqual(refused("key-locked"));
  const unlock = await all.openFor(key, [tbs]);
  expect(await rootStatus(all)).toMatchObject({
    state: "open",
    operations: [],
    signaturesLeft: 1,
    ceremony: unlock.ceremony.digest,
  });
  const signature = await sign(all, tbs);
  const spki = createPublicKey({ key: publicKey(), format: "der", type: "spki" });
  expect(verify("sha256", tbs, spki, signature)).toBe(true);
  await eventually(() => closed).toEqual([
    {
      what: "key",
      unlock: unlock.digest,
      ceremony: unlock.ceremony.digest,
      keyId: key.keyId,
      reason: "used-up",
    },
  ]);
  expect(await rootStatus(all)).toMatchObject({ state: "locked" });
  await expect(sign(all, tbs)).rejects.toEqual(refused("key-locked"));
});

test("a ceremony opens a key once", async () => {
  const all = await keeping();
  const unlock = await all.openFor(key, [tbs]);
  await all.keeper.endUnlock(unlock.digest);
  expect((await rootStatus(all)).state).toBe("locked");
  await expect(all.unlock(key, unlock.ceremony)).rejects.toEqual(refused("ceremony-closed"));
  await all.keeper.close();
  const again = new Keeping(home, await start(), all.log);
  await expect(again.unlock(key, unlock.ceremony)).rejects.toEqual(refused("ceremony-closed"));
});

test("only what was agreed to is signed", async () => {
  const all = await keeping();
  await all.openFor(key, [tbs]);
  await expect(sign(all, rootTbs(publicKey()))).rejects.toEqual(refused("grant-mismatch"));
  await expect(sign(all, tbs)).resolves.toBeInstanceOf(Uint8Array);
});

// What has to be there before it opens

test("it does not open before enough shares are there", async () => {
  const all = await keeping();
  const unlock = await all.unlock(key, [tbs]);
  await all.give(unlock, ["bob"]);
  await expect(all.open(unlock)).rejects.toEqual(
    refused("ceremony-refused", /missing are 1 shares/),
  );
  await all.give(unlock, ["carol"]);
  await expect(all.open(unlock), "it gathered on").resolves.toBeUndefined();
});

test("it does not open before the log says so", async () => {
  const all = await keeping();
  const unlock = await all.unlock(key, [tbs]);
  const other = await all.propose(signing(key.keyId, [tbs]));
  await all.give(unlock, ["bob", "carol"]);
  const open = (record: { index: number; leaf: Uint8Array }) =>
    all.keeper.open(unlock.digest, unlock.ceremony, [], record);
  const right = await all.unlocked(unlock);
  const elsewhere = { ...right, index: right.index - 1 };
  const nowhere = { ...right, index: right.index + 1 };
  const changed = { ...right, leaf: Buffer.from(right.leaf).fill(" ", 5, 6) };
  const records = {
    elsewhere,
    nowhere,
    changed,
    "another ceremony": await all.unlocked(unlock, { ceremony: other.digest }),
    "another unlock": await all.unlocked(unlock, { unlock: other.digest }),
    "another key": await all.unlocked(unlock, { keyId: home.keyId }),
    "another type": await all.dealing(unlock.ceremony.digest),
  };
  for (const [name, record] of Object.entries(records)) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await expect(open(record), name).rejects.toEqual(refused("ceremony-refused", /log/));
  }
  expect((await rootStatus(all)).state).toBe("locked");
  await expect(open(right)).resolves.toBeUndefined();
});

test("the rules count beside the shares", async () => {
  const all = await keeping({ sign: { witness: 1 } });
  const ceremony = await all.propose(signing(key.keyId, [tbs]));
  const unlock = await all.unlock(key, { ...ceremony, approvals: [] });
  await all.give(unlock, ["alice", "bob"]);
  await expect(all.open(unlock)).rejects.toEqual(
    refused("ceremony-refused", /missing are 1 in the role witness/),
  );
  const [approval] = home.people.approvals(ceremony.digest, all.log.head, ["carol"], {
    role: "witness",
  });
  const forged = {
    ...approval!,
    signature: all.approve(ceremony, ["bob"]).approvals[0]!.signature,
  };
  const withVotes = (approvals: readonly (typeof forged)[]) => ({
    ...unlock,
    ceremony: { ...unlock.ceremony, approvals },
  });
  await expect(all.open(withVotes([forged]))).rejects.toEqual(refused("ceremony-refused"));
  await expect(all.open(withVotes([approval!]))).resolves.toBeUndefined();
});

test("ST-39: who left the roster between submission and opening does not count", async () => {
  const all = await keeping();
  const unlock = await all.unlock(key, [tbs]);
  await all.give(unlock, ["bob", "carol"]);
  const operators = home.people.operators.filter(({ id }) => id !== "carol");
  await all.changeRoster({ operators }, ["alice", "bob"]);
  await expect(all.open(unlock)).rejects.toEqual(
    refused("ceremony-refused", /missing are 1 shares/),
  );
  expect((await rootStatus(all)).state).toBe("locked");
  await all.give(unlock, ["alice"]);
  await expect(all.open(unlock)).resolves.toBeUndefined();
});

test("ST-39: a submission by a key that its custodian has no more does not count", async () => {
  const all = await keeping();
  const unlock = await all.unlock(key, [tbs]);
  await all.give(unlock, ["bob", "carol"]);
  const { publicKey: strange } = home.people.person("alice");
  const operators = home.people.operators
    .filter(({ id }) => id !== "alice")
    .map((operator) =>
      operator.id === "carol"
        ? { ...operator, keys: [{ kind: "ssh" as const, key: strange }] }
        : operator,
    );
  const document = all.nextRoster({ operators });
  const signatures = [
    {
      operator: "carol",
      signature: home.people.person("alice").sign("countersign-roster@v1", document),
    },
  ];
  const ceremony = await all.agree({ kind: "roster", plan: document, signatures }, [
    "alice",
    "bob",
  ]);
  await all.keeper.roster({ document, signatures, ceremony });
  await expect(all.open(unlock)).rejects.toEqual(
    refused("ceremony-refused", /missing are 1 shares/),
  );
});

test("ST-40: when n − k + 1 refuse, it does not open even if k give their shares", async () => {
  const all = await keeping();
  const unlock = await all.unlock(key, [tbs]);
  await all.give(unlock, ["alice", "bob"]);
  for (const id of ["bob", "carol"]) {
    const refusal = home.people.refusal(id, unlock.digest, all.log.head);
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await all.keeper.submit(unlock.digest, refusal, new Uint8Array(0));
  }
  await expect(all.open(unlock)).rejects.toEqual(
    refused("ceremony-refused", /so many people refused/),
  );
  expect((await rootStatus(all)).state).toBe("locked");
});

test("ST-27: a wrong share is refused by name, and costs the others nothing", async () => {
  const all = await keeping();
  const unlock = await all.unlock(key, [tbs]);
  await all.give(unlock, ["alice"]);
  const other = home.people.submission(
    "bob",
    { digest: unlock.digest, recipient: unlock.statement.recipient },
    2,
    key.dealt.files[1]!,
    all.log.head,
  );
  const { submission, share } = all.submission(unlock, "carol");
  await expect(all.keeper.submit(unlock.digest, submission, other.share)).rejects.toEqual(
    refused("submission-stale"),
  );
  await expect(all.keeper.submit(unlock.digest, submission, share)).resolves.toEqual({
    given: ["alice", "carol"],
    missing: 0,
  });
  await expect(all.open(unlock)).resolves.toBeUndefined();
});

// One at a time

test("several people may have shares gathered for one key, each once, and one of them opens it", async () => {
  const all = await keeping();
  const first = await all.unlock(key, [tbs]);
  await expect(all.unlock(key, [tbs])).rejects.toEqual(refused("unlock-busy"));
  const ofBob = await all.agree({ ...signing(key.keyId, [tbs]), requestedBy: "bob" });
  const second = await all.unlock(key, ofBob);
  await all.give(first, ["alice", "bob"]);
  await all.give(second, ["alice", "bob"]);
  await all.open(first);
  await expect(all.open(second)).rejects.toEqual(refused("unlock-busy"));
  const ofCarol = await all.agree({ ...signing(key.keyId, [tbs]), requestedBy: "carol" });
  await expect(all.unlock(key, ofCarol)).rejects.toEqual(refused("unlock-busy"));
  await all.keeper.endUnlock(first.digest);
  await expect(all.open(second)).resolves.toBeUndefined();
});

/** A reshare of the key that was agreed to and dealt, and that nobody has confirmed yet. */
async function reshared(all: Keeping): Promise<SealedKey> {
  const plan = all.plan({
    key: { use: key.keyId },
    epoch: 2,
    previous: key.shareSet.digest,
    reason: "a reshare",
  });
  const ceremony = await all.agree(
    { kind: "reshare", keyId: key.keyId, plan, requestedBy: "bob" },
    home.people.ids,
  );
  const unlock = await all.unlock(key, ceremony, { plan });
  await all.give(unlock, ["bob", "carol"]);
  return sealedKeyOf(home, (await all.open(unlock))!);
}

test("ST-65: shares that were dealt and never confirmed open nothing, whatever the service says", async () => {
  const all = await keeping();
  const next = await reshared(all);
  await expect(all.unlock(next, [tbs])).rejects.toEqual(refused("share-stale", /epoch 1/));
  await expect(all.openFor(key, [tbs]), "the active set").resolves.toBeDefined();
});

test("ST-66: an unlock that began before a reshare does not open with the old shares after it", async () => {
  const all = await keeping();
  const old = await all.unlock(key, [tbs]);
  await all.give(old, ["bob", "carol"]);
  const next = await reshared(all);
  await all.activate(next);
  await expect(all.open(old)).rejects.toEqual(refused("share-stale", /epoch 2/));
  await all.keeper.endUnlock(old.digest);
  await expect(all.openFor(next, [tbs])).resolves.toBeDefined();
});

test("an unlock that was ended takes no share, and ending it again does nothing", async () => {
  const all = await keeping();
  const unlock = await all.unlock(key, [tbs]);
  expect(pids("unlocker")).toHaveLength(1);
  await all.keeper.endUnlock(unlock.digest);
  await all.keeper.endUnlock(unlock.digest);
  await eventually(() => pids("unlocker")).toEqual([]);
  const { submission, share } = all.submission(unlock, "alice");
  await expect(all.keeper.submit(unlock.digest, submission, share)).rejects.toEqual(
    refused("unlock-unknown"),
  );
  await expect(all.open(unlock)).rejects.toEqual(refused("unlock-unknown"));
});

// Statements that may not be used

test("ST-38: when the ceremony's time is over it is closed, though shares are there", async () => {
  const all = await keeping();
  const soon = new Date(Date.now() + 4_000);
  const ceremony = await all.agree({ ...signing(key.keyId, [tbs]), notAfter: soon });
  const unlock = await all.unlock(key, ceremony);
  await all.give(unlock, ["alice", "bob"]);
  const record = await all.unlocked(unlock);
  const open = () => all.keeper.open(unlock.digest, ceremony, [], record);
  await eventually(() => new Date() > soon).toBe(true);
  await expect(open()).rejects.toEqual(refused("ceremony-closed"));
  await expect(all.unlock(key, ceremony)).rejects.toEqual(refused("ceremony-closed"));
});

test("what this keeper did not state opens nothing", async () => {
  const all = await keeping();
  const ceremony = await all.agree(signing(key.keyId, [tbs]));
  const changed = ceremony.note.replace("a test", "another");
  await expect(all.unlock(key, { ...ceremony, note: changed })).rejects.toEqual(
    refused("signature-invalid"),
  );
  await expect(
    all.unlock(key, ceremony, {
      shareSet: key.dealt.shareSet.replace('"threshold":2', '"threshold":3'),
    }),
  ).rejects.toEqual(refused("signature-invalid"));
  await expect(
    all.unlock(key, ceremony, { shareSet: ceremony.note }),
    "a note of another kind",
  ).rejects.toEqual(refused("statement-malformed"));
  await expect(all.unlock(key, { ...ceremony, note: key.dealt.shareSet })).rejects.toEqual(
    refused("statement-malformed"),
  );
  const plan = all.plan();
  const generate = await all.agree({ kind: "generate", plan });
  await expect(all.unlock(key, generate)).rejects.toEqual(refused("ceremony-refused"));
  const sealed = Buffer.from(key.dealt.sealed);
  sealed[200]! ^= 1;
  await expect(all.unlock(key, ceremony, { sealed })).rejects.toEqual(
    refused("sealed-key-corrupt"),
  );
  expect(pids("unlocker")).toEqual([]);
});

// Windows

test("a window opens a key for what it says, and lock ends it", async () => {
  const all = await keeping();
  const certificate = certify(home.root, publicKey(), 60, 0);
  writeFileSync(join(home.directory, "sealed.pem"), encodePem("CERTIFICATE", certificate));
  home.configure((config) => {
    config.keys = [{ issuer: "issuing", certificate: "sealed.pem", chain: ["root.pem"] }];
  });
  await all.keeper.close();
  const again = new Keeping(home, await start(), all.log);
  const from = new Date(Date.now() - 1000);
  const until = new Date(Date.now() + HOUR);
  const window = {
    operations: [{ operation: "certificate" as const, profile: "server", max: 2 }],
    notBefore: from.toISOString(),
    notAfter: until.toISOString(),
    idleSeconds: 3600,
  };
  const ceremony = await again.agree({ kind: "window", keyId: key.keyId, window });
  const closed: Closed[] = [];
  again.keeper.onClosed((event) => closed.push(event));
  await again.openFor(key, ceremony);
  const [status] = (await again.keeper.status()).keys;
  expect(status).toMatchObject({
    state: "open",
    custody: "sealed",
    operations: ["certificate"],
    until: until.toISOString(),
    ceremony: ceremony.digest,
    signaturesLeft: 2,
  });
  const own = { ...home, keyId: key.keyId, looseCertificate: certificate };
  const leaf = leafTbs(own);
  await expect(logAndSign(own, again.keeper, again.log, leaf)).resolves.toBeInstanceOf(Uint8Array);
  await again.keeper.lock(...again.locking("bob", "lock", { keyId: key.keyId }));
  expect(closed.map(({ what, reason }) => ({ what, reason }))).toEqual([
    { what: "key", reason: "locked" },
  ]);
  expect((await again.keeper.status()).keys[0]).toMatchObject({ state: "locked", operations: [] });
  await expect(logAndSign(own, again.keeper, again.log, leafTbs(own))).rejects.toEqual(
    refused("key-locked"),
  );
});

// Locking

test("ST-49: a lock ends the signer of a sealed key and what gathers for it; it may be opened again", async () => {
  const all = await keeping();
  const standing = pids("signer");
  await all.openFor(key, [tbs]);
  const [signer] = sealedSigners(standing);
  await all.keeper.lock(...all.locking("carol", "lock", { keyId: key.keyId }));
  await eventually(() => isAlive(signer!)).toBe(false);
  expect((await rootStatus(all)).state, "locked, and not held").toBe("locked");
  await expect(sign(all, tbs)).rejects.toEqual(refused("key-locked"));

  const unlock = await all.unlock(key, [tbs]);
  const closed: Closed[] = [];
  all.keeper.onClosed((event) => closed.push(event));
  const processes = [...pids("unlocker"), ...sealedSigners(standing)];
  expect(processes).toHaveLength(2);
  await all.keeper.lock(...all.locking("carol", "lock", { keyId: key.keyId }));
  await eventually(() => processes.filter(isAlive)).toEqual([]);
  expect(closed).toMatchObject([{ what: "unlock", unlock: unlock.digest, reason: "locked" }]);
  await all.openFor(key, unlock.ceremony);
  await expect(sign(all, tbs)).resolves.toBeInstanceOf(Uint8Array);
});

test("ST-50: panic ends every signer, unlocker and dealer within a second, and nothing opens until people resume", async () => {
  const all = await keeping();
  const gathering = await all.agree({ ...signing(key.keyId, [tbs]), requestedBy: "bob" });
  await all.unlock(key, gathering);
  await all.openFor(key, [tbs]);
  const slow = all.plan({ key: { generate: "RSA-4096" } });
  const generate = await all.agree({ kind: "generate", plan: slow }, home.people.ids);
  const dealing = all.keeper.deal({
    ...generate,
    plan: slow,
    record: await all.dealing(generate.digest),
  });
  const outcome = expect(dealing).rejects.toEqual(refused("deal-failed"));
  await eventually(() => pids("dealer").length).toBe(1);
  const processes = [...pids("signer"), ...pids("unlocker"), ...pids("dealer")];
  expect(processes, "standing, waiting and open signers").toHaveLength(5);
  const before = performance.now();
  await all.keeper.panic(...all.locking("carol", "panic"));
  await expect.poll(() => processes.filter(isAlive), { interval: 10, timeout: 5000 }).toEqual([]);
  expect(performance.now() - before).toBeLessThan(1000);
  await outcome;

  const nothingOpens = async (on: Keeping): Promise<void> => {
    const { keys, panic } = await on.keeper.status();
    expect(panic).toMatchObject({ operator: "carol" });
    expect(keys.map(({ state }) => state)).toEqual(["held", "held"]);
    await expect(on.unlock(key, gathering)).rejects.toEqual(refused("panic"));
    await expect(on.propose(signing(key.keyId, [tbs]))).rejects.toEqual(refused("panic"));
    const plan = on.plan();
    const record = await on.dealing(generate.digest);
    await expect(on.keeper.deal({ ...generate, plan, record })).rejects.toEqual(refused("panic"));
    await expect(logAndSign(home, on.keeper, on.log, leafTbs(home))).rejects.toEqual(
      refused("key-held"),
    );
    expect(pids("signer")).toEqual([]);
  };
  await nothingOpens(all);
  await all.keeper.close();
  const again = new Keeping(home, await start(), all.log);
  await nothingOpens(again);
  await expect(again.resume(["bob"])).rejects.toEqual(refused("ceremony-refused"));
  await again.resume(["bob", "alice"]);
  expect((await again.keeper.status()).panic).toBeNull();
  await eventually(async () => (await again.keeper.status()).keys[0]!.state).toBe("open");
  await again.openFor(key, gathering);
});

test("ST-51: after a restart a sealed key is locked, and a held one stays held until it is released", async () => {
  const all = await keeping();
  await all.openFor(key, [tbs]);
  await all.keeper.lock(...all.locking("bob", "lock", { keyId: home.keyId }));
  await all.keeper.close();
  const again = new Keeping(home, await start(), all.log);
  const states = async (): Promise<string[]> =>
    (await again.keeper.status()).keys.map(({ state }) => state);
  expect(await states()).toEqual(["held", "locked"]);
  await expect(again.resume(["alice", "bob"], [key.keyId])).rejects.toEqual(
    refused("ceremony-refused", /not held/),
  );
  await again.resume(["alice", "bob"], [home.keyId]);
  await eventually(states).toEqual(["open", "locked"]);
});

test("a resume is carried out once: it does not let go what is held later", async () => {
  const all = await keeping();
  await all.keeper.panic(...all.locking("bob", "panic"));
  const plan = Buffer.from(
    '{"release":"all","service":"test.example","type":"countersign/resume/v1"}',
  );
  const ceremony = await all.agree({ kind: "resume", plan }, ["alice", "carol"]);
  await all.keeper.resume({ ...ceremony, plan });
  await all.keeper.panic(...all.locking("bob", "panic"));
  await all.keeper.resume({ ...ceremony, plan });
  expect((await all.keeper.status()).panic).not.toBeNull();
});

// Ends

test("ST-50: a resume that was agreed to before a panic does not end it", async () => {
  const all = await keeping();
  await all.keeper.panic(...all.locking("carol", "panic"));
  const plan = json({ type: "countersign/resume/v1", service: "test.example", release: "all" });
  const kept = await all.agree({ kind: "resume", plan }, ["alice", "bob"]);
  await all.resume(["alice", "bob"]);
  await all.keeper.panic(...all.locking("bob", "panic"));
  await expect(all.keeper.resume({ ...kept, plan })).rejects.toEqual(
    refused("ceremony-refused", /locked after/),
  );
  expect((await all.keeper.status()).panic).not.toBeNull();
  await all.resume(["alice", "bob"]);
  expect((await all.keeper.status()).panic).toBeNull();
});

test.for(["signer", "unlocker"] as const)(
  "ST-49: when the %s is killed while shares are gathered, the unlock has ended and the ceremony gathers again",
  async (kind) => {
    const all = await keeping();
    const standing = pids("signer");
    const unlock = await all.unlock(key, [tbs]);
    await all.give(unlock, ["alice"]);
    const closed: Closed[] = [];
    all.keeper.onClosed((event) => closed.push(event));
    const [pid] = kind === "signer" ? sealedSigners(standing) : pids("unlocker");
    process.kill(pid!, "SIGKILL");
    await eventually(() => closed).toMatchObject([
      { what: "unlock", unlock: unlock.digest, reason: "ended" },
    ]);
    expect([...pids("unlocker"), ...sealedSigners(standing)]).toEqual([]);
    await all.openFor(key, unlock.ceremony);
  },
);

test("ST-49: when the signer of an opened key is killed, the key is locked, and everybody is told", async () => {
  const all = await keeping();
  const standing = pids("signer");
  const unlock = await all.openFor(key, [tbs]);
  const closed: Closed[] = [];
  all.keeper.onClosed((event) => closed.push(event));
  process.kill(sealedSigners(standing)[0]!, "SIGKILL");
  await eventually(() => closed).toMatchObject([
    { what: "key", unlock: unlock.digest, reason: "ended" },
  ]);
  expect((await rootStatus(all)).state).toBe("locked");
});

test("ST-49: with the keeper everything that it started dies, and the sealed key is locked", async () => {
  const all = await keeping();
  const open = await all.openFor(key, [tbs]);
  const processes = pids("signer");
  expect(processes).toHaveLength(2);
  process.kill(keeperPid(), "SIGKILL");
  await eventually(() => processes.filter(isAlive)).toEqual([]);
  await all.keeper.ended;
  const again = new Keeping(home, await start(), all.log);
  expect((await rootStatus(again)).state).toBe("locked");
  await expect(again.unlock(key, open.ceremony)).rejects.toEqual(refused("ceremony-closed"));
});
