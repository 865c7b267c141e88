/** Other shares for the same key: CUSTODY.md 5.1. And a seal for a token that is in use: 3.5. */

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { refused } from "../support/refused.ts";
import { publicKeyOf, rootTbs } from "./artefacts.ts";
import {
  as,
  openCeremonyHome,
  openSealedHome,
  sealedKey,
  type CeremonyHome,
  type SealedHome,
} from "./home.ts";

/** Shares for bob, carol and dora, in the place of alice, bob and carol. */
async function proposeReshare(home: SealedHome): Promise<string> {
  const plan = home.plan({ key: { use: home.keyId }, epoch: 2, previous: home.shareSet }, [
    "bob",
    "carol",
    "dora",
  ]);
  return (await home.propose({ kind: "reshare", plan })).digest;
}

/** Until the new shares wait to be confirmed. */
async function dealtReshare(home: SealedHome): Promise<{ ceremony: string; shareSet: string }> {
  const ceremony = await proposeReshare(home);
  // Those who are to get a share have to agree to the plan; who gives one has agreed.
  await home.approve("dora", ceremony);
  const { digest } = await home.domain.unlocks.open(ceremony, undefined, as("alice"));
  await home.submit("bob", digest, 2);
  const missing = await home.domain.ceremonies.view(ceremony);
  expect(missing.missing).toMatchObject({ shares: 1, people: ["carol"] });
  await home.submit("carol", digest, 3);
  const view = await home.domain.ceremonies.view(ceremony);
  expect(home.failures).toEqual([]);
  expect(view.state).toBe("pending");
  return { ceremony, shareSet: view.shareSet! };
}

/** Whether two people open the key with the shares they have. */
async function opensWith(
  home: CeremonyHome & { readonly keyId: string; readonly shareSet: string },
  givers: readonly (readonly [id: string, index: number, text: string])[],
): Promise<string> {
  const tbs = rootTbs(await publicKeyOf(home, home.shareSet));
  const { digest } = await home.propose(
    { kind: "sign", keyId: home.keyId, artefacts: [{ tbs }] },
    "erin",
  );
  const unlock = await home.domain.unlocks.open(digest, undefined, as("erin"));
  for (const [id, index, text] of givers) await home.submit(id, unlock.digest, index, text);
  return (await home.domain.ceremonies.view(digest)).state;
}

test("ST-66: after a reshare the new shares open the key, the old ones are stale, and the old secret is gone from the file", async () => {
  await using home = await openSealedHome({ issuer: "root" });
  const old = new Map(["alice", "bob", "carol"].map((id) => [id, home.shareOf(id)]));
  const { sealed } = (await home.reads.shareSet(home.shareSet))!;
  const { shareSet } = await dealtReshare(home);
  await home.confirmAll(shareSet);
  expect((await home.domain.custody.key(home.keyId)).shareSets).toMatchObject([
    { digest: shareSet, epoch: 2, state: "active" },
  ]);
  expect(await home.reads.shareSet(home.shareSet)).toMatchObject({
    state: "retired",
    sealed: null,
  });
  await expect(opensWith(home, [["bob", 1, old.get("bob")!]])).rejects.toEqual(
    refused("share-stale"),
  );
  const [open] = (await home.domain.ceremonies.list({ state: "gathering", limit: 1 })).ceremonies;
  await home.abort("erin", open!.digest);
  expect(
    await opensWith(home, [
      ["dora", 3, home.shareOf("dora")],
      ["bob", 1, home.shareOf("bob")],
    ]),
  ).toBe("published");
  await home.stop();
  const file = join(home.home.directory, "countersign.db");
  for (const name of [file, `${file}-wal`]) {
    expect(octetsOf(name).includes(Buffer.from(sealed!).subarray(144))).toBe(false);
  }
});

function octetsOf(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch {
    return Buffer.of(); // a log that is empty is deleted
  }
}

test("ST-67: an old share set that is written back is refused; with the keeper's state put back too it opens under its old epoch, and the log shows it", async () => {
  await using home = await openSealedHome({ issuer: "root" });
  const old = new Map(["alice", "bob"].map((id) => [id, home.shareOf(id)]));
  const { sealed } = (await home.reads.shareSet(home.shareSet))!;
  const stateBefore = readFileSync(home.home.stateFile);
  const { shareSet } = await dealtReshare(home);
  await home.confirmAll(shareSet);
  await home.stop();
  const database = join(home.home.directory, "countersign.db");
  const sql = (text: string): string =>
    execFileSync("sqlite3", [database], { input: text }).toString();
  const triggers = sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").trim().split("\n");
  sql(`${triggers.map((name) => `DROP TRIGGER "${name}";`).join("")}
    UPDATE share_set SET state = 'retired' WHERE digest = '${shareSet}';
    UPDATE share_set SET state = 'active', sealed = x'${Buffer.from(sealed!).toString("hex")}'
      WHERE digest = '${home.shareSet}';`);
  await expect(home.start()).rejects.toEqual(refused("share-stale"));
  writeFileSync(home.home.stateFile, stateBefore);
  await home.start();
  expect(
    await opensWith(home, [
      ["alice", 1, old.get("alice")!],
      ["bob", 2, old.get("bob")!],
    ]),
  ).toBe("published");
  const opened = (await home.entries("unlock.opened")).at(-1);
  expect(opened).toMatchObject({ subject: { epoch: 1 } });
  await home.stop();
  expect(await home.logFailures()).toContainEqual(
    expect.objectContaining({
      position: `share_set ${home.shareSet}`,
      detail: expect.stringContaining("the log says retired") as string,
    }),
  );
});

test("ST-65: a reshare that is aborted before its activation leaves the old shares as they were, and the new ones useless", async () => {
  await using home = await openSealedHome({ issuer: "root" });
  const old = new Map(["alice", "bob", "carol"].map((id) => [id, home.shareOf(id)]));
  const { ceremony, shareSet } = await dealtReshare(home);
  await home.confirm(shareSet, 1, "bob");
  await home.abort("alice", ceremony);
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("aborted");
  expect(await home.reads.shareSet(shareSet)).toMatchObject({ state: "dropped", sealed: null });
  await expect(opensWith(home, [["bob", 2, home.shareOf("bob")]])).rejects.toEqual(
    refused("share-stale"),
  );
  const [open] = (await home.domain.ceremonies.list({ state: "gathering", limit: 1 })).ceremonies;
  await home.abort("erin", open!.digest);
  expect(
    await opensWith(home, [
      ["alice", 1, old.get("alice")!],
      ["carol", 3, old.get("carol")!],
    ]),
  ).toBe("published");
});

test("a reshare waits through a restart, and is activated by the last confirmation", async () => {
  await using home = await openSealedHome({ issuer: "root" });
  const { ceremony, shareSet } = await dealtReshare(home);
  await home.confirm(shareSet, 1, "bob");
  await home.restart(sealedKey(home.keyId, "root"));
  await home.confirm(shareSet, 2, "carol");
  await home.confirm(shareSet, 3, "dora");
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("applied");
});

test("while shares of a key wait to be confirmed no others are planned", async () => {
  await using home = await openSealedHome({ issuer: "root" });
  await dealtReshare(home);
  await expect(proposeReshare(home)).rejects.toEqual(
    refused("ceremony-refused", /wait to be confirmed/),
  );
});

test("an unlock that gathers shares of the set before ends when the new one comes into force", async () => {
  await using home = await openSealedHome({ issuer: "root" });
  const { shareSet } = await dealtReshare(home);
  const tbs = rootTbs(await publicKeyOf(home, home.shareSet));
  const { digest } = await home.propose(
    { kind: "sign", keyId: home.keyId, artefacts: [{ tbs }] },
    "erin",
  );
  const unlock = await home.domain.unlocks.open(digest, undefined, as("erin"));
  expect(unlock.shareSet).toBe(home.shareSet);
  await home.confirmAll(shareSet);
  await home.domain.idle();
  expect((await home.domain.unlocks.view(unlock.digest)).state).toBe("ended");
  expect((await home.domain.unlocks.open(digest, undefined, as("erin"))).epoch).toBe(2);
});

/** A seal for the PIN of the token in use. */
async function sealPin(
  home: CeremonyHome,
): Promise<{ keyId: string; shareSet: string; ceremony: string }> {
  return home.generate({ key: { use: home.home.keyId }, payload: "pin" });
}

test("a token in use gets a seal: its PIN file opens nothing any more, and two shares of three do", async () => {
  await using home = await openCeremonyHome();
  const { keyId, shareSet, ceremony } = await sealPin(home);
  expect(keyId).toBe(home.home.keyId);
  expect(await home.domain.custody.key(keyId)).toMatchObject({ custody: "sealed" });
  // Nothing else opens the token from here on.
  await expect(home.abort("alice", ceremony)).rejects.toEqual(refused("ceremony-refused"));
  await home.confirm(shareSet, 1, "alice");
  await home.restart();
  await home.confirm(shareSet, 2, "bob");
  await home.confirm(shareSet, 3, "carol");
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("applied");
  expect(await home.domain.custody.key(keyId)).toMatchObject({ state: "locked", operations: [] });
  const at = Math.floor(Date.now() / 1000) * 1000;
  const { digest } = await home.propose({
    kind: "window",
    keyId,
    window: {
      operations: [{ operation: "crl", max: 1 }],
      notBefore: new Date(at - 60_000).toISOString(),
      notAfter: new Date(at + 3_600_000).toISOString(),
      idleSeconds: 3600,
    },
  });
  const unlock = await home.domain.unlocks.open(digest, undefined, as("alice"));
  await home.submit("alice", unlock.digest);
  await home.submit("carol", unlock.digest);
  expect(home.failures).toEqual([]);
  expect(await home.domain.custody.key(keyId)).toMatchObject({
    state: "open",
    operations: ["crl"],
  });
});

test("a seal whose token has its old PIN still, because the service ended before the change, is dropped at the next start", async () => {
  await using home = await openCeremonyHome();
  home.hook = (method) => {
    // The service ends here, for all that the keeper sees.
    if (method === "commit") throw new Error("stopped");
  };
  const { keyId, shareSet, ceremony } = await sealPin(home);
  const signed = home.home.people.confirmation(
    "alice",
    await home.shareSetOf(shareSet),
    1,
    await home.fetch(shareSet, 1, "alice"),
    await home.seen(),
  );
  await expect(home.domain.custody.confirm(keyId, signed, "192.0.2.1")).rejects.toEqual(
    refused("key-locked"),
  );
  home.hook = () => {};
  await home.restart();
  await home.until(ceremony, "failed", 3_600_000);
  expect(await home.reads.shareSet(shareSet)).toMatchObject({ state: "dropped", sealed: null });
  expect(await home.domain.custody.key(keyId)).toMatchObject({ custody: "token", state: "open" });
  const again = await sealPin(home);
  expect((await home.domain.ceremonies.view(again.ceremony)).state).toBe("pending");
});
