import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { afterEach, expect, onTestFinished, test } from "vitest";
import type { KeeperClient } from "../../src/custody/keeper-client.ts";
import type { Signed } from "../../src/custody/statement.ts";
import { refused } from "../support/refused.ts";
import { home as sharedHome, keeperPid, start, startNew, useKeeperHome } from "./keeper-fixture.ts";
import {
  isAlive,
  leafTbs,
  logAndSign,
  newKeeperHome,
  pidsOf,
  someEntry,
  TestLog,
} from "./keeper-home.ts";
import { eventually, Keeping, sealedKeyOf, signing, type SealedKey } from "./keeper-people.ts";
import { rootTbs } from "./opened-key.ts";

const rules = { roster: 2, policy: 2, resume: 2, ceremonies: {} };

useKeeperHome("alice", "bob", "carol");

let own: KeeperClient[] = [];
afterEach(async () => {
  await Promise.all(own.map((keeper) => keeper.close()));
  own = [];
});

async function keeping(): Promise<Keeping> {
  sharedHome.found({ rules });
  const { keeper, log } = await startNew();
  return new Keeping(sharedHome, keeper, log);
}

/** The same home, with a key in the configuration from now on. */
async function withKey(all: Keeping, key: SealedKey, change: object = {}): Promise<Keeping> {
  await all.keeper.close();
  all.home.configure((config) => {
    config.keys.push({ issuer: "root", keyId: key.keyId, ...change });
  });
  return new Keeping(all.home, await start(), all.log);
}

function publicKeyOf(key: SealedKey): Buffer {
  return Buffer.from(key.shareSet.read.publicKey, "base64");
}

async function opensFor(all: Keeping, key: SealedKey): Promise<void> {
  const tbs = rootTbs(publicKeyOf(key));
  const unlock = await all.openFor(key, [tbs]);
  const change = { keyId: key.keyId, policy: null, profile: "root" };
  const signature = logAndSign(all.home, all.keeper, all.log, tbs, change);
  await expect(signature).resolves.toBeInstanceOf(Uint8Array);
  await all.keeper.endUnlock(unlock.digest);
}

// Generation

test("a key is dealt to those that the plan names, each of whom can read their own share and no other", async () => {
  const all = await keeping();
  const plan = all.plan();
  const { dealt, shareSet } = await all.deal(plan);
  expect(shareSet.read).toMatchObject({
    epoch: 1,
    threshold: 2,
    shareCount: 3,
    previous: null,
    roster: all.roster,
  });
  expect(shareSet.read.custodians.map(({ operator }) => operator)).toEqual(all.home.people.ids);
  for (const [index, file] of dealt.files.entries()) {
    for (const [place, id] of all.home.people.ids.entries()) {
      const { ageFile } = all.home.people.person(id);
      const read = (): string =>
        execFileSync("age", ["-d", "-i", ageFile], {
          input: file,
          stdio: ["pipe", "pipe", "ignore"],
        }).toString();
      if (place === index) expect(read()).toContain("CSSHARE1");
      else expect(read).toThrow();
    }
  }
});

test("a key is dealt when each custodian has approved, and the log says so, and then once", async () => {
  const all = await keeping();
  const plan = all.plan();
  const stated = await all.propose({ kind: "generate", plan });
  const record = await all.dealing(stated.digest);
  const deal = (by: string[], change: object = {}) =>
    all.keeper.deal({ ...all.approve(stated, by), plan, record, ...change });
  await expect(deal(["alice", "bob"])).rejects.toEqual(refused("ceremony-refused", /carol/));
  await expect(deal(["alice", "bob", "bob"])).rejects.toEqual(refused("ceremony-refused"));
  const everybody = ["alice", "bob", "carol"];
  const other = await all.dealing(all.roster);
  await expect(deal(everybody, { record: other })).rejects.toEqual(
    refused("ceremony-refused", /log/),
  );
  await expect(deal(everybody, { record: { ...record, index: record.index - 1 } })).rejects.toEqual(
    refused("ceremony-refused", /log/),
  );
  await expect(deal(everybody)).resolves.toBeDefined();
  await expect(deal(everybody)).rejects.toEqual(refused("ceremony-closed"));
});

test("ST-61: a plan with another recipient than was approved is not dealt", async () => {
  const all = await keeping();
  const plan = all.plan();
  const ceremony = await all.agree({ kind: "generate", plan }, all.home.people.ids);
  const [alice, bob, carol] = all.home.people.operators;
  const swapped = all.plan({
    custodians: [
      alice!,
      { ...bob!, recipient: carol!.recipient },
      { ...carol!, recipient: bob!.recipient },
    ].map(({ id, recipient }) => ({ operator: id, recipient, role: "custodian" })),
  });
  const record = await all.dealing(ceremony.digest);
  await expect(all.keeper.deal({ ...ceremony, plan: swapped, record })).rejects.toEqual(
    refused("plan-invalid", /agreed/),
  );
  // Nor the approved one, when the roster has another recipient for one of them meanwhile.
  const operators = [
    alice!,
    { ...bob!, recipient: carol!.recipient! },
    { ...carol!, recipient: bob!.recipient! },
  ];
  await all.changeRoster({ operators }, ["alice", "bob"]);
  await expect(all.keeper.deal({ ...ceremony, plan, record })).rejects.toEqual(
    refused("plan-invalid", /recipient of bob/),
  );
});

test("ST-62: a dealer that is killed leaves nothing behind, and it can be dealt again", async () => {
  const all = await keeping();
  const plan = all.plan({ key: { generate: "RSA-4096" } });
  const ceremony = await all.agree({ kind: "generate", plan }, all.home.people.ids);
  const record = await all.dealing(ceremony.digest);
  const dealing = all.keeper.deal({ ...ceremony, plan, record });
  const outcome = expect(dealing).rejects.toEqual(refused("deal-failed"));
  await eventually(() => pidsOf("dealer", keeperPid()).length).toBe(1);
  await expect(
    all.keeper.deal({ ...ceremony, plan, record: await all.dealing(ceremony.digest) }),
  ).rejects.toEqual(refused("unlock-busy"));
  process.kill(pidsOf("dealer", keeperPid())[0]!, "SIGKILL");
  await outcome;
  const again = await all.dealing(ceremony.digest);
  await expect(
    all.keeper.deal({ ...ceremony, plan, record }),
    "the entry is used up",
  ).rejects.toEqual(refused("ceremony-refused", /log/));
  await all.keeper.deal({ ...ceremony, plan, record: again });
});

// Activation

test("ST-63, ST-64: a share set is active when every custodian has shown their own share, and not before", async () => {
  const all = await keeping();
  const key = await all.deal();
  const other = await all.deal();
  const right = all.confirmations(key);
  const { people } = all.home;
  const activate = (confirmations: readonly Signed[]) =>
    all.keeper.activate(key.dealt.shareSet, confirmations);
  const alice = right[0]!;
  const proofOf = (signed: Signed): string =>
    (JSON.parse(Buffer.from(signed.statement).toString()) as { proof: string }).proof;
  const changed = (id: string, change: object): Signed =>
    people.person(id).signed("countersign-confirm@v1", {
      ...(JSON.parse(Buffer.from(alice.statement).toString()) as object),
      ...change,
    });
  const withProof = (proof: string): Signed => changed("alice", { proof });
  const cases: [string, Signed[]][] = [
    ["one missing", right.slice(1)],
    ["one twice", [right[1]!, right[1]!, right[2]!]],
    ["none", []],
    ["the proof of another's share", [withProof(proofOf(right[1]!)), ...right.slice(1)]],
    [
      "the proof of another key's share",
      [withProof(proofOf(all.confirmations(other)[0]!)), ...right.slice(1)],
    ],
    ["of another share set", [all.confirmations(other)[0]!, ...right.slice(1)]],
    [
      "of another share set, with the proof for this one",
      [changed("alice", { shareSet: other.shareSet.digest }), ...right.slice(1)],
    ],
    [
      "in the name of somebody who has got hold of the share",
      [changed("bob", { operator: "bob" }), ...right.slice(1)],
    ],
    ["another's signature", [{ ...alice, signature: right[1]!.signature }, ...right.slice(1)]],
    [
      "in another's name",
      [
        people.confirmation("bob", key.shareSet, 1, key.dealt.files[1]!, all.log.head),
        ...right.slice(1),
      ],
    ],
  ];
  for (const [name, confirmations] of cases) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await expect(activate(confirmations), name).rejects.toEqual(refused("confirmation-invalid"));
  }
  expect(seals()).toEqual({});
  await activate(right);
  const seal = { [key.keyId]: { epoch: 1, shareSet: key.shareSet.digest } };
  expect(seals()).toEqual(seal);
  await activate([]); // at the next start, and whoever has left since
  expect(seals()).toEqual(seal);
});

function seals(): unknown {
  return (JSON.parse(readFileSync(sharedHome.stateFile, "utf8")) as { seals: unknown }).seals;
}

// Reshares

test("ST-65, ST-66, ST-67: the old shares open a key until the new ones are active, and never again", async () => {
  const first = await keeping();
  const key = await first.deal();
  const all = await withKey(first, key);
  await all.activate(key);
  const plan = all.plan({
    key: { use: key.keyId },
    epoch: 2,
    previous: key.shareSet.digest,
    threshold: 3,
  });
  const proposed = await all.agree({ kind: "reshare", keyId: key.keyId, plan });
  const early = await all.unlock(key, proposed, { plan });
  await all.give(early, ["alice", "carol"]);
  await expect(all.open(early), "bob is to hold a share, and has not agreed").rejects.toEqual(
    refused("ceremony-refused", /the approval of bob/),
  );
  await all.keeper.endUnlock(early.digest);
  const ceremony = all.approve(proposed, ["bob"]);
  const unlock = await all.unlock(key, ceremony, { plan });
  await all.give(unlock, ["alice", "carol"]);
  const dealt = (await all.open(unlock))!;
  const next = sealedKeyOf(all.home, dealt);
  expect(next.shareSet.read).toMatchObject({
    keyId: key.keyId,
    publicKey: key.shareSet.read.publicKey,
    epoch: 2,
    previous: key.shareSet.digest,
    threshold: 3,
  });
  await eventually(() => pidsOf("dealer", keeperPid())).toEqual([]);
  await opensFor(all, key);
  await all.activate(next);
  expect((await all.keeper.status()).keys.at(-1)).toMatchObject({ epoch: 2 });
  const tbs = rootTbs(publicKeyOf(key));
  await expect(all.unlock(key, [tbs])).rejects.toEqual(refused("share-stale"));
  await expect(all.activate(key), "nor is it made active again").rejects.toEqual(
    refused("share-stale"),
  );
  const two = await all.unlock(next, [tbs]);
  await all.give(two, ["alice", "bob"]);
  await expect(all.open(two), "three are needed now").rejects.toEqual(refused("ceremony-refused"));
  await all.give(two, ["carol"]);
  await expect(all.open(two)).resolves.toBeUndefined();
});

test("a reshare follows the active share set, of the same key and kind of secret", async () => {
  const first = await keeping();
  const key = await first.deal();
  const all = await withKey(first, key);
  const reshare = {
    key: { use: key.keyId },
    epoch: 2,
    previous: key.shareSet.digest,
  };
  const propose = (change: object = {}) =>
    all.propose({
      kind: "reshare",
      keyId: key.keyId,
      plan: all.plan({ ...reshare, ...change }),
    });
  await expect(propose()).rejects.toEqual(refused("plan-invalid", /no active share set/));
  await all.activate(key);
  for (const change of [
    { epoch: 3 },
    { previous: all.roster },
    { payload: "pin" },
    { key: { use: all.home.keyId } },
    { key: { generate: "P-256" }, epoch: 1, previous: null },
  ]) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await expect(propose(change)).rejects.toEqual(refused("plan-invalid"));
  }
  const stated = await propose();
  await expect(all.unlock(key, { ...stated, approvals: [] })).rejects.toEqual(
    refused("plan-invalid"),
  );
  const plan = all.plan({ ...reshare, threshold: 3 });
  await expect(all.unlock(key, { ...stated, approvals: [] }, { plan })).rejects.toEqual(
    refused("plan-invalid", /agreed/),
  );
});

test("ST-49: a dealer that is killed while shares are gathered for it ends the unlock, and the old shares stay", async () => {
  const first = await keeping();
  const key = await first.deal();
  const all = await withKey(first, key);
  await all.activate(key);
  const plan = all.plan({ key: { use: key.keyId }, epoch: 2, previous: key.shareSet.digest });
  const ceremony = await all.agree({ kind: "reshare", keyId: key.keyId, plan }, ["bob", "carol"]);
  const unlock = await all.unlock(key, ceremony, { plan });
  await all.give(unlock, ["alice", "carol"]);
  process.kill(pidsOf("dealer", keeperPid())[0]!, "SIGKILL");
  await eventually(() => pidsOf("unlocker", keeperPid())).toEqual([]);
  await expect(all.open(unlock)).rejects.toEqual(refused("unlock-unknown"));
  const again = await all.unlock(key, ceremony, { plan });
  await all.give(again, ["alice", "bob"]);
  await expect(all.open(again)).resolves.toBeDefined();
  await opensFor(all, key);
});

// PINs

/** A home of its own: the PIN of its token changes. */
async function ownHome(): Promise<Keeping> {
  const home = await newKeeperHome("P-256", ["alice", "bob", "carol"]);
  onTestFinished(() => home.remove());
  home.found({ rules });
  const keeper = await home.start();
  own.push(keeper);
  await keeper.initialise();
  const log = new TestLog();
  await log.append(keeper, someEntry());
  return new Keeping(home, keeper, log);
}

async function restarted(all: Keeping): Promise<Keeping> {
  await all.keeper.close();
  const keeper = await all.home.start();
  own.push(keeper);
  return new Keeping(all.home, keeper, all.log);
}

test("the PIN of a token in use is sealed: its standing signer ends, and from then on shares open it", async () => {
  const all = await ownHome();
  const { home, keeper, log } = all;
  const plan = all.plan({ key: { use: home.keyId }, payload: "pin" });
  const key = await all.deal(plan, home.keyId);
  await expect(logAndSign(home, keeper, log, leafTbs(home)), "in use").resolves.toBeDefined();
  await keeper.commit(key.ceremony.digest);
  await keeper.commit(key.ceremony.digest);
  await expect(
    logAndSign(home, keeper, log, leafTbs(home)),
    "until the shares are there",
  ).resolves.toBeDefined();
  const [signer] = pidsOf("signer", keeperPid());
  await all.activate(key);
  await eventually(() => isAlive(signer!)).toBe(false);
  const [status] = (await keeper.status()).keys;
  expect(status).toMatchObject({ state: "locked", custody: "sealed", epoch: 1, operations: [] });
  await expect(logAndSign(home, keeper, log, leafTbs(home))).rejects.toEqual(refused("key-locked"));

  const again = await restarted(all);
  expect((await again.keeper.status()).keys[0]).toMatchObject({ state: "locked" });
  const tbs = leafTbs(home);
  const unlock = await again.unlock(key, await again.agree(signing(home.keyId, [tbs])));
  await again.give(unlock, ["bob", "carol"]);
  await again.open(unlock);
  await expect(logAndSign(home, again.keeper, log, tbs)).resolves.toBeInstanceOf(Uint8Array);
  await again.keeper.close();

  const { stateFile } = home;
  const state = JSON.parse(readFileSync(stateFile, "utf8")) as { wrongPins: object };
  expect(state.wrongPins, "the old PIN was not tried").toEqual({});
});

test("ST-49: a keeper that is killed after the PIN was changed has a key that shares open, before activation too", async () => {
  const all = await ownHome();
  const { home } = all;
  const plan = all.plan({ key: { use: home.keyId }, payload: "pin" });
  const key = await all.deal(plan, home.keyId);
  await all.keeper.commit(key.ceremony.digest);
  process.kill(keeperPid(), "SIGKILL");
  await all.keeper.ended;
  const keeper = await home.start();
  own.push(keeper);
  const again = new Keeping(home, keeper, all.log);
  expect((await keeper.status()).keys[0]).toMatchObject({ state: "locked", custody: "sealed" });
  await again.openFor(key, [leafTbs(home)]);
});

test("a standing signer that dies after its PIN was sealed is not started again with the old one", async () => {
  const all = await ownHome();
  const { home, keeper } = all;
  const plan = all.plan({ key: { use: home.keyId }, payload: "pin" });
  const key = await all.deal(plan, home.keyId);
  await keeper.commit(key.ceremony.digest);
  const status = async () => (await keeper.status()).keys[0];
  expect(await status()).toMatchObject({ state: "open", custody: "sealed" });
  process.kill(pidsOf("signer", keeperPid())[0]!, "SIGKILL");
  await eventually(status).toMatchObject({ state: "locked", operations: [] });
  expect(pidsOf("signer", keeperPid())).toEqual([]);
  await all.openFor(key, [leafTbs(home)]);
});

test("without the commit the token has its old PIN, after a restart too", async () => {
  const all = await ownHome();
  const plan = all.plan({ key: { use: all.home.keyId }, payload: "pin" });
  await all.deal(plan, all.home.keyId);
  const again = await restarted(all);
  expect((await again.keeper.status()).keys[0]).toMatchObject({ state: "open", custody: "token" });
});

test("a PIN whose dealer a panic has ended is not changed, and the commit says so", async () => {
  const all = await ownHome();
  const { home, keeper } = all;
  const plan = all.plan({ key: { use: home.keyId }, payload: "pin" });
  const key = await all.deal(plan, home.keyId);
  await keeper.panic(...all.locking("carol", "panic"));
  await expect(keeper.commit(key.ceremony.digest)).rejects.toEqual(refused("deal-failed"));
  await all.resume(["alice", "bob"]);
  await eventually(async () => (await keeper.status()).keys[0]).toMatchObject({
    state: "open",
    custody: "token",
  });
});
test.for(["a lock", "the end of the keeper"])(
  "%s ends a dealer that changes a PIN between two calls of the token, and not in one",
  async (what) => {
    const all = await ownHome();
    const { home, keeper } = all;
    const plan = all.plan({ key: { use: home.keyId }, payload: "pin" });
    const key = await all.deal(plan, home.keyId);
    const pid = keeperPid();
    const [dealer] = pidsOf("dealer", pid);
    process.kill(dealer!, "SIGSTOP"); // as if the token took its time
    const committing = expect(keeper.commit(key.ceremony.digest)).rejects.toThrow();
    if (what === "a lock")
      await keeper.lock(...all.locking("alice", "lock", { keyId: home.keyId }));
    else await keeper.close();
    await committing;
    // Longer than a kill takes.
    for (let count = 0; count < 100; count++) execFileSync("true");
    expect(isAlive(dealer!)).toBe(true);
    process.kill(dealer!, "SIGCONT");
    await expect.poll(() => isAlive(dealer!)).toBe(false);
    if (what === "a lock") {
      await all.resume(["alice", "bob"]);
      await keeper.close();
    }
    // One of the two PINs opens it, whichever.
    const again = await restarted(all);
    const [status] = (await again.keeper.status()).keys;
    if (status!.state === "open") {
      await expect(logAndSign(home, again.keeper, all.log, leafTbs(home))).resolves.toBeDefined();
    } else {
      expect(status).toMatchObject({ state: "unavailable" });
      await again.activate(key);
      await again.openFor(key, [leafTbs(home)]);
    }
  },
);

test("a new token is made with a PIN that nobody has seen, and opens with shares", async () => {
  const all = await ownHome();
  const { home } = all;
  const key = await all.deal(all.plan({ payload: "pin" }));
  const { uri } = key.dealt;
  expect(uri).toMatch(/^pkcs11:/);
  await all.keeper.close();
  home.configure((config) => {
    const { module } = config.keys[0]!;
    config.keys.push({ issuer: "root", keyId: key.keyId, module: module!, uri: uri! });
  });
  const again = await restarted(all);
  await again.activate(key);
  await opensFor(again, key);
});
