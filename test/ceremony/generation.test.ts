/** Making a key whose secret is split: CUSTODY.md 3.2. */

import { expect, test } from "vitest";
import { encodeEntry } from "../../src/audit/entry.ts";
import { refused } from "../support/refused.ts";
import { address, as, decodeShare, openCeremonyHome } from "./home.ts";
import { namespaces } from "../../src/custody/statement.ts";

test("a key is dealt when each custodian of the plan has approved it, and in force when each has confirmed their share", async () => {
  await using home = await openCeremonyHome();
  const { ceremonies, custody, inbox } = home.domain;
  const { digest } = await home.propose({ kind: "generate", plan: home.plan() });
  expect(await home.approve("alice", digest)).toMatchObject({
    state: "gathering",
    missing: { people: ["bob", "carol"] },
  });
  await home.approve("dora", digest);
  await home.approve("bob", digest);
  expect((await inbox.of(as("carol"))).map(({ what }) => what)).toEqual(["approve"]);
  const { state, shareSet, keyId } = await home.approve("carol", digest);
  expect(state).toBe("pending");
  expect((await inbox.of(as("bob"))).map(({ what }) => what)).toEqual(["fetch"]);
  await home.fetch(shareSet!, 2, "bob");
  expect((await inbox.of(as("bob"))).map(({ what }) => what)).toEqual(["confirm"]);
  await home.confirm(shareSet!, 2, "bob");
  expect(await inbox.of(as("bob"))).toEqual([]);
  // The file of a confirmed share is gone.
  await expect(home.fetch(shareSet!, 2, "bob")).rejects.toEqual(refused("share-set-unknown"));
  await home.confirm(shareSet!, 1, "alice");
  expect((await ceremonies.view(digest)).state).toBe("pending");
  await home.confirm(shareSet!, 3, "carol");
  expect((await ceremonies.view(digest)).state).toBe("applied");
  expect(await custody.key(keyId!)).toMatchObject({
    custody: "sealed",
    shareSets: [{ digest: shareSet, epoch: 1, state: "active", threshold: 2 }],
  });
  expect(home.failures).toEqual([]);
  const types = (await home.entries()).map(({ type }) => type);
  expect(types.slice(types.indexOf("ceremony.opened"))).toEqual([
    "ceremony.opened",
    "approval.accepted",
    "approval.accepted",
    "approval.accepted",
    "approval.accepted",
    "ceremony.step",
    "key.generated",
    "share.confirmed",
    "share.confirmed",
    "share.confirmed",
    "share-set.activated",
  ]);
});

test("a plan is refused while the recipient of a custodian is not proved, and says whose", async () => {
  await using home = await openCeremonyHome({ prove: ["alice", "carol"] });
  const plan = home.plan();
  await expect(home.propose({ kind: "generate", plan })).rejects.toEqual(
    refused("recipient-refused", /recipient of bob\./),
  );
  await home.prove("bob");
  await home.propose({ kind: "generate", plan });
  // Nor is a recipient taken that is not the one in the roster, whoever has proved it.
  const { recipient } = home.home.people.person("bob");
  const { recipient: other } = home.home.people.person("dora");
  const changed = Buffer.from(plan.toString().replace(recipient, other));
  await expect(home.propose({ kind: "generate", plan: changed })).rejects.toEqual(
    refused("recipient-refused", /bob is not the one in the roster/),
  );
});

test("ST-60: the file of another custodian's share is refused, and that is on record", async () => {
  await using home = await openCeremonyHome();
  const { keyId, shareSet } = await home.generate();
  await expect(home.domain.custody.shareFile(keyId, 1, shareSet, as("bob"))).rejects.toEqual(
    refused("forbidden"),
  );
  await expect(home.domain.custody.shareFile(keyId, 1, shareSet, as("dora"))).rejects.toEqual(
    refused("forbidden"),
  );
  expect(await home.entries("alert")).toMatchObject([
    { subject: { keyId, shareSet }, data: { code: "share-not-yours", operator: "bob" } },
    { subject: { keyId, shareSet }, data: { code: "share-not-yours", operator: "dora" } },
  ]);
});

test("ST-61: approvals of one plan are void for another, whatever differs", async () => {
  await using home = await openCeremonyHome();
  const first = await home.propose({ kind: "generate", plan: home.plan() });
  const second = await home.propose({
    kind: "generate",
    plan: home.plan({}, ["alice", "bob", "dora"]),
  });
  const signed = await home.approval("alice", first.digest);
  await expect(home.domain.ceremonies.approve(second.digest, signed, address)).rejects.toEqual(
    refused("approval-stale"),
  );
  expect((await home.domain.ceremonies.view(second.digest)).people).toMatchObject([
    { operator: "alice", state: "waiting" },
    { operator: "bob", state: "waiting" },
    { operator: "dora", state: "waiting" },
  ]);
});

test("ST-63: a confirmation with another share's proof key is refused", async () => {
  await using home = await openCeremonyHome();
  const { keyId, shareSet } = await home.generate();
  const set = await home.shareSetOf(shareSet);
  await home.fetch(shareSet, 1, "alice");
  const aliceShare = decodeShare(home.shareOf("alice"));
  const challenge = Buffer.from(shareSet.slice("sha256:".length), "hex");
  const signed = home.home.people.person("bob").signed(namespaces.confirm, {
    type: "countersign/confirmation/v1",
    operator: "bob",
    at: new Date().toISOString(),
    log: await home.seen(),
    shareSet,
    index: 2,
    proof: home.proof(set.read, aliceShare, challenge),
  });
  await expect(home.domain.custody.confirm(keyId, signed, address)).rejects.toEqual(
    refused("confirmation-invalid"),
  );
  // Nor is alice's share bob's to confirm.
  const asAlice = home.home.people.confirmation(
    "alice",
    set,
    1,
    home.files.get("alice")!,
    await home.seen(),
  );
  const forged = home.home.people
    .person("bob")
    .signed(namespaces.confirm, JSON.parse(Buffer.from(asAlice.statement).toString()) as object);
  await expect(home.domain.custody.confirm(keyId, forged, address)).rejects.toEqual(
    refused("signature-invalid"),
  );
  expect(await home.entries("share.confirmed")).toEqual([]);
});

test("ST-64: a share set with one confirmation missing is not activated, in the database or by the keeper", async () => {
  await using home = await openCeremonyHome();
  const { keyId, shareSet, ceremony } = await home.generate();
  await home.confirm(shareSet, 1, "alice");
  await home.confirm(shareSet, 2, "bob");
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("pending");
  const { journal, keeper, reads } = home.running;
  await expect(
    journal.append({
      kind: "share-set-activated",
      leaf: encodeEntry({
        type: "share-set.activated",
        at: new Date(),
        actor: { kind: "service", id: "test.example" },
        subject: { keyId, epoch: 1, shareSet },
      }),
      shareSet,
      ceremonyState: "applied",
    }),
  ).rejects.toEqual(refused("confirmation-invalid"));
  const confirmations = (await reads.shares(shareSet)).flatMap(
    ({ confirmation }) => confirmation ?? [],
  );
  const { note } = (await reads.shareSet(shareSet))!;
  await expect(keeper.activate(note, confirmations)).rejects.toEqual(
    refused("confirmation-invalid"),
  );
  expect((await home.domain.custody.key(keyId)).shareSets).toMatchObject([{ state: "pending" }]);
});

test("what waits for confirmations survives a restart, and is activated by the last one", async () => {
  await using home = await openCeremonyHome();
  const { shareSet, ceremony } = await home.generate();
  await home.confirm(shareSet, 1, "alice");
  await home.restart();
  await home.confirm(shareSet, 2, "bob");
  await home.confirm(shareSet, 3, "carol");
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("applied");
});

test("a drill proves a share by a fresh challenge, once, and the reminder goes", async () => {
  await using home = await openCeremonyHome();
  const { keyId, shareSet } = await home.generate();
  await home.confirmAll(shareSet);
  expect(await home.domain.warnings()).toEqual([]);
  await home.advance(91 * 86_400_000);
  expect(await home.domain.warnings()).toMatchObject([{ keyId, threshold: 2, proved: 0 }]);
  expect(await home.domain.inbox.of(as("bob"))).toMatchObject([{ what: "drill", keyId, index: 2 }]);
  await expect(home.domain.custody.drillChallenge(keyId, 2, as("carol"))).rejects.toEqual(
    refused("forbidden"),
  );
  const { read } = await home.shareSetOf(shareSet);
  const challenge = await home.domain.custody.drillChallenge(keyId, 2, as("bob"));
  const proofOf = async (id: string) =>
    home.signed("bob", "confirm", {
      type: "countersign/drill/v1",
      operator: "bob",
      at: new Date().toISOString(),
      log: await home.seen(),
      shareSet,
      index: 2,
      challenge: Buffer.from(challenge).toString("base64"),
      proof: home.proof(read, decodeShare(home.shareOf(id)), challenge),
    });
  await expect(home.domain.custody.drill(keyId, await proofOf("carol"), address)).rejects.toEqual(
    refused("confirmation-invalid"),
  );
  const signed = await proofOf("bob");
  await home.domain.custody.drill(keyId, signed, address);
  await expect(home.domain.custody.drill(keyId, signed, address)).rejects.toEqual(
    refused("statement-stale"),
  );
  expect(await home.domain.inbox.of(as("bob"))).toEqual([]);
  expect(await home.entries("share.drill")).toMatchObject([
    { subject: { keyId, epoch: 1, shareSet }, data: { index: 2 } },
  ]);
  expect(await home.domain.warnings()).toMatchObject([{ keyId, proved: 1 }]);
});
