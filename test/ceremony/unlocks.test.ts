/** Submissions, one at a time and all at once: CUSTODY.md 4.3, 6.2 and 6.5. */

import { randomBytes } from "node:crypto";
import { bech32m } from "@scure/base";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { UnlockView } from "../../src/ceremony/view.ts";
import type { ErrorCode } from "../../src/errors.ts";
import { digestOf } from "../custody/keeper-home.ts";
import { refused } from "../support/refused.ts";
import { publicKeyOf, rootTbs } from "./artefacts.ts";
import {
  address,
  as,
  custodians,
  decodeShare,
  encodeShare,
  openSealedHome,
  type SealedHome,
} from "./home.ts";

let home: SealedHome;

beforeAll(async () => {
  home = await openSealedHome({ issuer: "root" });
});

afterAll(() => home[Symbol.asyncDispose]());

afterEach(async () => {
  home.ahead = 0;
  const { ceremonies } = await home.domain.ceremonies.list({ state: "gathering", limit: 100 });
  for (const { digest, requestedBy } of ceremonies) await home.abort(requestedBy, digest);
});

let proposer = 0;

/** A ceremony that the key signs a root for, and an unlock that gathers its shares. */
async function gathering(
  by = ["alice", "bob", "carol", "dora", "erin"][proposer++ % 5]!,
): Promise<UnlockView> {
  const tbs = rootTbs(await publicKeyOf(home, home.shareSet));
  const { digest } = await home.propose(
    { kind: "sign", keyId: home.keyId, artefacts: [{ tbs }] },
    by,
  );
  return home.domain.unlocks.open(digest, undefined, as(by));
}

/** Bob's share, changed and written anew: what only a person who means it does. */
async function changedShare(change: { y?: Uint8Array; epoch?: number }): Promise<string> {
  const { read } = await home.shareSetOf(home.shareSet);
  const share = decodeShare(home.shareOf("bob"));
  const context = {
    keyId: Buffer.from(read.keyId, "hex"),
    epoch: change.epoch ?? read.epoch,
    threshold: read.threshold,
    shareCount: read.shareCount,
  };
  return encodeShare(context, { x: share.x, y: change.y ?? share.y });
}

async function refusals(unlock: string) {
  const entries = await home.entries("share.refused");
  return entries.flatMap((entry) =>
    entry.type === "share.refused" && entry.subject.unlock === unlock
      ? [{ operator: entry.actor.id, ...entry.data }]
      : [],
  );
}

async function alerts(unlock: string) {
  const entries = await home.entries("alert");
  return entries.flatMap((entry) =>
    entry.type === "alert" && entry.subject.unlock === unlock ? [entry.data] : [],
  );
}

test("ST-26: bob sends carol's true share: it is not his, and that raises an alert", async () => {
  const { digest } = await gathering();
  await expect(home.submit("bob", digest, 2, home.shareOf("carol"))).rejects.toEqual(
    refused("share-not-yours"),
  );
  expect(await refusals(digest)).toEqual([{ operator: "bob", code: "share-not-yours", index: 2 }]);
  expect(await alerts(digest)).toEqual([{ code: "share-not-yours", operator: "bob" }]);
});

test("ST-27: a well-formed wrong share is known by name at once, and the accepted ones stay", async () => {
  const { digest, ceremony } = await gathering();
  await home.submit("alice", digest);
  const wrong = await changedShare({ y: randomBytes(32) });
  await expect(home.submit("bob", digest, 2, wrong)).rejects.toEqual(
    expect.objectContaining({
      code: "share-wrong",
      members: { operator: "bob", given: ["alice"], threshold: 2, missing: 1 },
    }),
  );
  expect(await refusals(digest)).toEqual([{ operator: "bob", code: "share-wrong", index: 2 }]);
  expect(await alerts(digest)).toEqual([{ code: "share-wrong", operator: "bob" }]);
  await home.submit("carol", digest);
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("published");
});

test("ST-28: a share that is sent twice counts once", async () => {
  const { digest, ceremony } = await gathering();
  await home.submit("bob", digest);
  await expect(home.submit("bob", digest)).rejects.toEqual(refused("share-repeated"));
  expect(await home.domain.unlocks.view(digest)).toMatchObject({ missing: { shares: 1 } });
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("gathering");
});

test("ST-29: a share with index 0 is refused before anything is computed with it", async () => {
  const { digest } = await gathering();
  const { words } = bech32m.decode(home.shareOf("bob").toLowerCase() as `${string}1${string}`, 85);
  const octets = bech32m.fromWords(words);
  octets[1] = 0;
  const forged = bech32m.encode("csshare", bech32m.toWords(octets)).toUpperCase();
  await expect(home.submit("bob", digest, 2, forged)).rejects.toEqual(refused("share-checksum"));
  expect(await refusals(digest)).toEqual([{ operator: "bob", code: "share-checksum", index: 2 }]);
});

test("ST-30: a share of another epoch is stale", async () => {
  const { digest } = await gathering();
  const old = await changedShare({ epoch: 7 });
  await expect(home.submit("bob", digest, 2, old)).rejects.toEqual(refused("share-stale"));
});

test("ST-31: a submission is of one unlock, also of the same ceremony", async () => {
  const first = await gathering();
  const { signed, share } = await home.submission("bob", first.digest, 2);
  home.ahead = 25 * 3_600_000;
  await home.domain.tick();
  expect((await home.domain.unlocks.view(first.digest)).state).toBe("expired");
  home.ahead = 0;
  const second = await home.domain.unlocks.open(first.ceremony, undefined, as("alice"));
  await expect(home.domain.unlocks.submit(second.digest, signed, share, address)).rejects.toEqual(
    refused("submission-stale"),
  );
  // The file alone, under a submission of its own, was encrypted to a key that is gone.
  const anew = await home.submission("bob", second.digest, 2, undefined, {
    share: { index: 2, file: digestOf(share) },
  });
  await expect(
    home.domain.unlocks.submit(second.digest, anew.signed, share, address),
  ).rejects.toEqual(refused("share-unreadable"));
});

test("ST-32: a submission with the file of another unlock is stale", async () => {
  const a = await gathering("alice");
  const b = await gathering("bob");
  const { signed } = await home.submission("bob", a.digest, 2);
  const { share } = await home.submission("bob", b.digest, 2);
  await expect(home.domain.unlocks.submit(a.digest, signed, share, address)).rejects.toEqual(
    refused("submission-stale"),
  );
  // It may be sent again with another file, by anybody who saw it: the log has it once.
  for (let times = 0; times < 3; times++) {
    await expect(
      home.domain.unlocks.submit(a.digest, signed, Buffer.from(`junk ${times}`), address),
    ).rejects.toEqual(refused("submission-stale"));
  }
  expect(await refusals(a.digest)).toEqual([
    { operator: "bob", code: "submission-stale", index: 2 },
  ]);
});

test("ST-37: fifty submissions at once open the key once, with as many shares as the threshold", async () => {
  const { digest, ceremony } = await gathering();
  const all = [];
  for (let count = 0; count < 50; count++) {
    const id = custodians[count % 3]!;
    all.push(await home.submission(id, digest, (count % 3) + 1));
  }
  const results = await Promise.allSettled(
    all.map(({ signed, share }) => home.domain.unlocks.submit(digest, signed, share, address)),
  );
  expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(2);
  const codes = results.flatMap((result) =>
    result.status === "rejected" ? [(result.reason as { code: ErrorCode }).code] : [],
  );
  expect(new Set(codes)).toEqual(new Set(["unlock-closed"]));
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("published");
  const unlocked = await home.entries("key.unlocked");
  expect(
    unlocked.filter((entry) => entry.type === "key.unlocked" && entry.subject.unlock === digest),
  ).toHaveLength(1);
  expect((await home.reads.submissions(digest)).map(({ operator }) => operator)).toHaveLength(2);
});

test("ST-38: a submission after gatherSeconds, an approval after notAfter", async () => {
  const { digest, ceremony } = await gathering();
  const late = await home.submission("bob", digest, 2);
  home.ahead = 24 * 3_600_000 + 1;
  await expect(
    home.domain.unlocks.submit(digest, late.signed, late.share, address),
  ).rejects.toEqual(refused("unlock-closed"));
  await home.domain.tick();
  expect((await home.domain.unlocks.view(digest)).state).toBe("expired");
  // The ceremony goes on until its own end.
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("gathering");
  home.ahead = 7 * 86_400_000 + 1;
  await expect(home.approve("dora", ceremony)).rejects.toEqual(refused("ceremony-closed"));
  await home.domain.tick();
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("expired");
  expect((await home.entries("approval.refused")).at(-1)).toMatchObject({
    subject: { ceremony },
    data: { code: "ceremony-closed" },
  });
});

test("ST-40: when too few are left to reach the threshold the ceremony is rejected, whoever agrees later", async () => {
  const { digest, ceremony } = await gathering("erin");
  await home.submit("alice", digest);
  const late = await home.submission("alice", digest, 1);
  await home.refuse("bob", digest);
  expect((await home.domain.ceremonies.view(ceremony)).state).toBe("gathering");
  expect(await home.reject("carol", ceremony)).toMatchObject({
    state: "rejected",
    unlock: { state: "refused" },
    people: [
      { operator: "alice", state: "given" },
      { operator: "bob", state: "refused" },
      { operator: "carol", state: "rejected" },
    ],
  });
  await expect(
    home.domain.unlocks.submit(digest, late.signed, late.share, address),
  ).rejects.toEqual(refused("unlock-closed"));
  await expect(home.domain.unlocks.open(ceremony, undefined, as("alice"))).rejects.toEqual(
    refused("ceremony-closed"),
  );
});

test("ST-41: one unrelated operator cannot stop a ceremony, two can, and so can its proposer alone", async () => {
  const { digest, ceremony } = await gathering("alice");
  expect((await home.abort("bob", ceremony)).state).toBe("gathering");
  await expect(home.abort("bob", ceremony)).rejects.toEqual(refused("approval-repeated"));
  expect((await home.domain.unlocks.view(digest)).state).toBe("gathering");
  expect((await home.abort("carol", ceremony)).state).toBe("aborted");
  expect((await home.domain.unlocks.view(digest)).state).toBe("ended");
  const other = await gathering("alice");
  expect((await home.abort("alice", other.ceremony)).state).toBe("aborted");
});

test("ST-42: a thousand junk submissions in bob's name from his address keep him from nothing", async () => {
  const { digest } = await gathering();
  const { signed, share } = await home.submission("bob", digest, 2);
  const outsider = home.home.people
    .person("dora")
    .sign("countersign-submission@v1", signed.statement);
  const before = [home.denied, await home.reads.logSize()];
  const codes = new Map<string, number>();
  for (let times = 0; times < 1000; times++) {
    const junk = { statement: signed.statement, signature: outsider };
    const error: unknown = await home.domain.unlocks
      .submit(digest, junk, share, address)
      .catch((thrown: unknown) => thrown);
    const { code } = error as { code: ErrorCode };
    codes.set(code, (codes.get(code) ?? 0) + 1);
  }
  expect(codes).toEqual(
    new Map([
      ["submission-unsigned", 20],
      ["rate-limited", 980],
    ]),
  );
  expect([home.denied, await home.reads.logSize()]).toEqual([before[0]! + 1000, before[1]]);
  await home.domain.unlocks.submit(digest, signed, share, address);
  expect(await home.domain.unlocks.view(digest)).toMatchObject({ missing: { shares: 1 } });
});

test("after five wrong shares a custodian is not heard for 15 minutes; the same one again counts once", async () => {
  const { digest } = await gathering();
  const once = await home.submission("carol", digest, 3, home.shareOf("bob"));
  for (let times = 0; times < 10; times++) {
    await expect(
      home.domain.unlocks.submit(digest, once.signed, once.share, address),
    ).rejects.toEqual(refused("share-not-yours"));
  }
  for (let times = 1; times < 5; times++) {
    await expect(home.submit("carol", digest, 3, home.shareOf("bob"))).rejects.toEqual(
      refused("share-not-yours"),
    );
  }
  await expect(home.submit("carol", digest)).rejects.toEqual(refused("rate-limited"));
  expect((await alerts(digest)).map((data) => data?.code)).toEqual([
    ...Array<string>(5).fill("share-not-yours"),
    "rate-limited",
  ]);
  home.ahead = 15 * 60_000 + 1;
  await home.submit("carol", digest);
});

test("one ceremony of a proposer gathers for a key at a time, and an open one shuts out the others", async () => {
  const first = await gathering("alice");
  const tbs = rootTbs(await publicKeyOf(home, home.shareSet));
  const second = await home.propose({ kind: "sign", keyId: home.keyId, artefacts: [{ tbs }] });
  await expect(home.domain.unlocks.open(second.digest, undefined, as("bob"))).rejects.toEqual(
    refused("unlock-busy"),
  );
  await expect(home.domain.unlocks.open(first.ceremony, undefined, as("bob"))).rejects.toEqual(
    refused("unlock-busy"),
  );
});

test("an approval with a head that the log never had, or an older one than the statement's, is stale", async () => {
  const { ceremony } = await gathering();
  const { size } = await home.seen();
  const root = Buffer.alloc(32, 7).toString("base64");
  await expect(home.approve("dora", ceremony, { log: { size, root } })).rejects.toEqual(
    refused("approval-stale"),
  );
  const genesis = { size: 0, root: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" };
  await expect(home.approve("dora", ceremony, { log: genesis })).rejects.toEqual(
    refused("approval-stale", /before that in the statement/),
  );
  await expect(home.approve("dora", ceremony, { role: "auditor" })).rejects.toEqual(
    refused("approval-malformed", /role auditor/),
  );
  await home.approve("dora", ceremony);
  await expect(home.approve("dora", ceremony)).rejects.toEqual(refused("approval-repeated"));
});
