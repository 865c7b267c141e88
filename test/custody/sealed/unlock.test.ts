import { createPrivateKey, createPublicKey, hash, randomBytes } from "node:crypto";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { beforeAll, expect, test } from "vitest";
import { digestOf } from "../../../src/audit/digest.ts";
import { canonicalJson, type Json } from "../../../src/audit/canonical-json.ts";
import { readPlan, type ShareSet } from "../../../src/custody/plan.ts";
import { deal, type Dealt } from "../../../src/custody/sealed/deal.ts";
import { openSealedKey, readSealedKey, sealKey } from "../../../src/custody/sealed/sealed-key.ts";
import { encodeShare, type Share, type ShareContext } from "../../../src/custody/sealed/share.ts";
import {
  newUnlockIdentity,
  openShareFile,
  sealShareFile,
  type UnlockIdentity,
} from "../../../src/custody/sealed/share-file.ts";
import { recoverKek } from "../../../src/custody/sealed/shamir.ts";
import { createUnlocker, type SubmittedShare } from "../../../src/custody/sealed/unlock.ts";

const people = await Promise.all(
  ["alice", "bob", "carol", "dora", "erin"].map(async (operator) => {
    const identity = await generateX25519Identity();
    return { operator, identity, recipient: await identityToRecipient(identity) };
  }),
);

const code = (name: string): unknown => expect.objectContaining({ code: name });

async function dealNew(
  epoch = 1,
  secret?: { octets: Uint8Array; publicKey: Uint8Array },
): Promise<Dealt> {
  const octets = Buffer.from(
    canonicalJson({
      type: "countersign/plan/v1",
      service: "ca.example.com",
      issuer: "CN=Example Root",
      key: secret === undefined ? { generate: "P-256" } : { use: hash("sha256", secret.publicKey) },
      payload: "pkcs8",
      epoch,
      previous: epoch === 1 ? null : `sha256:${"6".repeat(64)}`,
      threshold: 3,
      shareCount: 5,
      custodians: people.map(({ operator, recipient }) => ({
        operator,
        recipient,
        role: "custodian",
      })),
      roster: `sha256:${"5".repeat(64)}`,
      reason: "a test",
    } as Json),
  );
  return deal({
    plan: readPlan(octets),
    planDigest: digestOf(octets),
    random: randomBytes,
    ...(secret === undefined ? {} : { secret }),
  });
}

let dealt: Dealt;
let shares: Share[];
let context: ShareContext;
let unlock: UnlockIdentity;
beforeAll(async () => {
  dealt = await dealNew();
  shares = await sharesOf(dealt);
  context = readSealedKey(dealt.sealed);
  unlock = await newUnlockIdentity();
});

function sharesOf({ files }: Dealt): Promise<Share[]> {
  return Promise.all(files.map((file, place) => openShareFile(file, people[place]!.identity)));
}

const labels = { service: "s", issuer: "i", custodian: "c", plan: "p" };

/** A share in the hands of a person, encrypted to an unlock. */
async function submissionOf(
  place: number,
  change: {
    share?: Share;
    of?: ShareContext;
    to?: UnlockIdentity;
    index?: number;
    operator?: string;
  } = {},
): Promise<SubmittedShare> {
  const { share = shares[place]!, of = context, to = unlock } = change;
  const file = await sealShareFile(of, share, to.recipient, labels);
  return {
    operator: change.operator ?? people[place]!.operator,
    share: { index: change.index ?? share.x, file: digestOf(file) },
    file,
  };
}

const gather = ({ shareSet = dealt.shareSet, sealed = dealt.sealed } = {}): ReturnType<
  typeof createUnlocker
> => createUnlocker({ shareSet, sealed, identity: unlock.key });

test("any three of five open the key, and it is the key of the share set", async () => {
  const unlocker = gather();
  expect([unlocker.missing, unlocker.given]).toEqual([3, []]);
  for (const [count, place] of [4, 0, 2].entries()) {
    expect(await unlocker.submit(await submissionOf(place))).toBe(count + 1);
  }
  expect([unlocker.missing, unlocker.given]).toEqual([0, ["erin", "alice", "carol"]]);
  const key = createPrivateKey({ key: await unlocker.open(), format: "der", type: "pkcs8" });
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  expect(spki.toString("base64")).toBe(dealt.shareSet.publicKey);
  await expect(unlocker.open()).rejects.toEqual(code("unlock-closed"));
  await expect(unlocker.submit(await submissionOf(1))).rejects.toEqual(code("unlock-closed"));
});

test("shares beyond the threshold are taken, and only those of the people named are used", async () => {
  const unlocker = gather();
  for (const [count, place] of [4, 0, 2, 1].entries()) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    expect(await unlocker.submit(await submissionOf(place))).toBe(count + 1);
  }
  expect([unlocker.missing, unlocker.given]).toEqual([0, ["erin", "alice", "carol", "bob"]]);
  await expect(unlocker.open(["erin", "alice", "dora"])).rejects.toEqual(code("unlock-closed"));
  expect((await unlocker.open(["bob", "alice", "erin"])).length).toBeGreaterThan(100);
});

test("two of three do not open it", async () => {
  const unlocker = gather();
  await unlocker.submit(await submissionOf(0));
  await unlocker.submit(await submissionOf(1));
  await expect(unlocker.open()).rejects.toEqual(code("unlock-closed"));
  expect(unlocker.missing).toBe(1);
});

/** What a custodian can send wrongly, after two good shares. */
const wrong: { name: string; submission: () => Promise<SubmittedShare>; refused: string }[] = [
  {
    name: "ST-26: carol's true share from bob",
    submission: () => submissionOf(1, { share: shares[2]! }),
    refused: "share-not-yours",
  },
  {
    name: "ST-26: carol's true share under bob's index",
    submission: () => submissionOf(1, { share: shares[2]!, index: 2 }),
    refused: "share-not-yours",
  },
  {
    name: "a share of somebody who has none",
    submission: () => submissionOf(1, { operator: "mallory" }),
    refused: "share-not-yours",
  },
  {
    name: "ST-27: a well-formed wrong share",
    submission: () => submissionOf(1, { share: { ...shares[1]!, y: randomBytes(32) } }),
    refused: "share-wrong",
  },
  {
    name: "ST-27: a share with one wrong bit",
    submission: () => {
      const y = shares[1]!.y.slice();
      y[31]! ^= 1;
      return submissionOf(1, { share: { ...shares[1]!, y } });
    },
    refused: "share-wrong",
  },
  {
    name: "ST-28: a share that is counted already",
    submission: () => submissionOf(0),
    refused: "share-repeated",
  },
  {
    name: "ST-30: a share of the epoch before",
    submission: () => submissionOf(1, { of: { ...context, epoch: 2 } }),
    refused: "share-stale",
  },
  {
    name: "ST-22: a share of another threshold",
    submission: () => submissionOf(1, { of: { ...context, threshold: 2 } }),
    refused: "share-stale",
  },
  {
    name: "ST-21: a share of another key",
    submission: () => submissionOf(1, { of: { ...context, keyId: randomBytes(32) } }),
    refused: "share-foreign",
  },
  {
    name: "ST-31: a share for another unlock",
    submission: async () => submissionOf(1, { to: await newUnlockIdentity() }),
    refused: "share-unreadable",
  },
  {
    name: "ST-32: another file than was signed",
    submission: async () => ({ ...(await submissionOf(1)), file: (await submissionOf(1)).file }),
    refused: "submission-stale",
  },
];

test.for(wrong)(
  "$name is refused, and the good ones stay counted",
  async ({ submission, refused }) => {
    const unlocker = gather();
    await unlocker.submit(await submissionOf(0));
    await unlocker.submit(await submissionOf(3));
    await expect(unlocker.submit(await submission())).rejects.toEqual(code(refused));
    expect(unlocker.given).toEqual(["alice", "dora"]);
    await unlocker.submit(await submissionOf(1));
    expect((await unlocker.open()).length).toBeGreaterThan(100);
  },
);

test("ST-29: a share at place 0 cannot even be written, and is refused where it is read", async () => {
  const text = encodeShare(context, { ...shares[0]!, x: 0 });
  const { Encrypter } = await import("age-encryption");
  const encrypter = new Encrypter();
  encrypter.addRecipient(unlock.recipient);
  const file = await encrypter.encrypt(text);
  const submission = { operator: "alice", share: { index: 0, file: digestOf(file) }, file };
  await expect(gather().submit(submission)).rejects.toEqual(code("share-checksum"));
});

test("ST-27: the refusal names the custodian and says what is counted, without a piece of the share", async () => {
  const unlocker = gather();
  await unlocker.submit(await submissionOf(0));
  const share = { ...shares[1]!, y: randomBytes(32) };
  const text = encodeShare(context, share);
  const error: unknown = await unlocker
    .submit(await submissionOf(1, { share }))
    .catch((caught: unknown) => caught);
  const said = `${String((error as Error).stack)} ${JSON.stringify(error)}`;
  expect(said).toContain("bob: the share is well-formed and is not share 2");
  expect(said).toContain("1 of 3 are counted and stay so");
  for (let at = 12; at + 8 <= text.length; at++) {
    expect(said.toUpperCase()).not.toContain(text.slice(at, at + 8));
  }
});

test("ST-37: fifty submissions at the same time count each custodian once", async () => {
  const unlocker = gather();
  const submissions = await Promise.all(
    Array.from({ length: 50 }, (_, number) => submissionOf(number % 3)),
  );
  const results = await Promise.allSettled(submissions.map((one) => unlocker.submit(one)));
  expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(3);
  expect(unlocker.given.toSorted()).toEqual(["alice", "bob", "carol"]);
  await unlocker.open();
});

test("ST-23: an edited commitment blames nobody: sealed key and share set do not belong together", () => {
  const custodians = dealt.shareSet.custodians.with(1, {
    ...dealt.shareSet.custodians[1]!,
    commit: "0".repeat(64),
  });
  expect(() => gather({ shareSet: { ...dealt.shareSet, custodians } })).toThrow(
    code("sealed-key-corrupt"),
  );
  // And where the header is adjusted too, the secret does not open.
  const sealed = Buffer.from(dealt.sealed);
  sealed.fill(0, 48, 80);
  expect(() => openSealedKey(sealed, recoverKek(shares.slice(0, 3), context))).toThrow(
    code("sealed-key-corrupt"),
  );
});

test.for<{ name: string; change: Partial<ShareSet> }>([
  { name: "another threshold", change: { threshold: 2 } },
  { name: "another epoch", change: { epoch: 2 } },
  { name: "another key", change: { keyId: "0".repeat(64) } },
  { name: "another public key", change: { publicKey: "AAAA" } },
  { name: "another sealed key", change: { sealed: `sha256:${"0".repeat(64)}` } },
])("ST-22: a share set with $name does not gather", ({ change }) => {
  expect(() => gather({ shareSet: { ...dealt.shareSet, ...change } })).toThrow(
    code("sealed-key-corrupt"),
  );
});

test("ST-30: after a reshare the old shares are stale, also under the new epoch's name", async () => {
  const pkcs8 = openSealedKey(dealt.sealed, recoverKek(shares.slice(0, 3), context));
  const publicKey = Buffer.from(dealt.shareSet.publicKey, "base64");
  const next = await dealNew(2, { octets: Buffer.from(pkcs8), publicKey });
  const unlocker = gather(next);
  await expect(unlocker.submit(await submissionOf(0))).rejects.toEqual(code("share-stale"));
  const forged = await submissionOf(0, { of: readSealedKey(next.sealed) });
  await expect(unlocker.submit(forged)).rejects.toEqual(code("share-wrong"));
});

test("ST-21: a sealed key that a share set was forged around is kek-mismatch", async () => {
  const sealed = sealKey(
    readSealedKey(dealt.sealed),
    randomBytes(100),
    randomBytes(32),
    randomBytes(32),
  );
  const unlocker = gather({
    sealed,
    shareSet: { ...dealt.shareSet, sealed: digestOf(sealed) },
  });
  for (const place of [0, 1, 2]) await unlocker.submit(await submissionOf(place));
  await expect(unlocker.open()).rejects.toEqual(code("kek-mismatch"));
});
