import { createPublicKey, generateKeyPairSync, hash, randomBytes } from "node:crypto";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { expect, test } from "vitest";
import { digestOf } from "../../../src/audit/digest.ts";
import { canonicalJson, type Json } from "../../../src/audit/canonical-json.ts";
import {
  dealtKeyTypes,
  readPlan,
  readShareSet,
  shareSetOctets,
  type Plan,
} from "../../../src/custody/plan.ts";
import { deal, type Dealt } from "../../../src/custody/sealed/deal.ts";
import {
  privateKeyOf,
  openSealedKey,
  readSealedKey,
  sealKey,
} from "../../../src/custody/sealed/sealed-key.ts";
import { commitmentOf, commitmentsHash } from "../../../src/custody/sealed/share.ts";
import { openShareFile } from "../../../src/custody/sealed/share-file.ts";
import { recoverKek } from "../../../src/custody/sealed/shamir.ts";

const people = await Promise.all(
  ["alice", "bob", "carol", "dora", "erin"].map(async (operator) => {
    const identity = await generateX25519Identity();
    return { operator, identity, recipient: await identityToRecipient(identity) };
  }),
);

const base = {
  type: "countersign/plan/v1",
  service: "ca.example.com",
  issuer: "CN=Example Root",
  key: { generate: "P-256" },
  payload: "pkcs8",
  epoch: 1,
  previous: null,
  threshold: 3,
  shareCount: 5,
  custodians: people.map(({ operator, recipient }) => ({ operator, recipient, role: "custodian" })),
  roster: `sha256:${"5".repeat(64)}`,
  reason: "first root",
};

function planOf(change: object = {}): { plan: Plan; planDigest: string } {
  const octets = Buffer.from(canonicalJson({ ...base, ...change } as Json));
  return { plan: readPlan(octets), planDigest: digestOf(octets) };
}

/** The KEK, as the custodians at these places would bring it together. */
async function kekOf(dealt: Dealt, places: readonly number[]): Promise<Buffer> {
  const shares = await Promise.all(
    places.map((place) => openShareFile(dealt.files[place]!, people[place]!.identity)),
  );
  return recoverKek(shares, dealt.shareSet);
}

test.for(dealtKeyTypes)("a %s key is made, sealed, and opened by three of five", async (type) => {
  const { plan, planDigest } = planOf({ key: { generate: type } });
  const dealt = await deal({ plan, planDigest, random: randomBytes });
  const { shareSet, sealed } = dealt;
  const publicKey = Buffer.from(shareSet.publicKey, "base64");
  expect(shareSet.keyId).toBe(hash("sha256", publicKey));
  expect(readSealedKey(sealed)).toMatchObject({ payload: "pkcs8", epoch: 1, threshold: 3 });
  for (const places of [
    [0, 1, 2],
    [4, 1, 3],
  ]) {
    const secret = openSealedKey(sealed, await kekOf(dealt, places));
    const key = privateKeyOf(readSealedKey(sealed), secret)!;
    expect(createPublicKey(key).export({ format: "der", type: "spki" })).toEqual(publicKey);
  }
});

test("the share set says what was dealt: commitments, proof keys, and digests of what stands beside it", async () => {
  const { plan, planDigest } = planOf();
  const dealt = await deal({ plan, planDigest, random: randomBytes });
  const { shareSet, sealed, files } = dealt;
  expect(readShareSet(shareSetOctets(shareSet))).toEqual(shareSet);
  expect(shareSet.plan).toBe(planDigest);
  expect(shareSet.sealed).toBe(digestOf(sealed));
  expect(shareSet.custodians.map(({ file }) => file)).toEqual(files.map(digestOf));
  const context = { ...readSealedKey(sealed) };
  const commitments = await Promise.all(
    files.map(async (file, place) =>
      commitmentOf(context, await openShareFile(file, people[place]!.identity)),
    ),
  );
  expect(
    shareSet.custodians.map(({ index, operator, commit, proof }) => [
      index,
      operator,
      commit,
      proof,
    ]),
  ).toEqual(
    commitments.map(({ commit, proof }, place) => [
      place + 1,
      people[place]!.operator,
      Buffer.from(commit).toString("hex"),
      Buffer.from(proof).toString("hex"),
    ]),
  );
  expect(Buffer.from(context.commitmentsHash)).toEqual(commitmentsHash(commitments));
});

test("nobody can open another's file, and nothing secret stands in what the dealer gives", async () => {
  const { plan, planDigest } = planOf();
  const dealt = await deal({ plan, planDigest, random: randomBytes });
  await expect(openShareFile(dealt.files[0]!, people[1]!.identity)).rejects.toEqual(
    expect.objectContaining({ code: "share-unreadable" }),
  );
  const kek = await kekOf(dealt, [0, 2, 4]);
  const pkcs8 = openSealedKey(dealt.sealed, kek);
  const given = Buffer.concat([dealt.sealed, ...dealt.files, shareSetOctets(dealt.shareSet)]);
  for (const secret of [kek, pkcs8.subarray(-32), Buffer.from(kek.toString("hex"))]) {
    expect(given.includes(secret)).toBe(false);
  }
});

test("a PIN, or a key in use, is sealed with a KEK of its own at each epoch", async () => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const spki = publicKey.export({ format: "der", type: "spki" });
  const use = { use: hash("sha256", spki) };
  const pin = Buffer.from("correct horse 4711");
  const pinPlan = planOf({ key: use, payload: "pin", threshold: 2 });
  const first = await deal({
    ...pinPlan,
    secret: { octets: Buffer.from(pin), publicKey: spki },
    random: randomBytes,
  });
  expect(openSealedKey(first.sealed, await kekOf(first, [3, 0]))).toEqual(pin);

  const pkcs8 = privateKey.export({ format: "der", type: "pkcs8" });
  const dealAt = (epoch: number): Promise<Dealt> => {
    const previous = epoch === 1 ? null : `sha256:${"6".repeat(64)}`;
    return deal({
      ...planOf({ key: use, epoch, previous }),
      secret: { octets: Buffer.from(pkcs8), publicKey: spki },
      random: randomBytes,
    });
  };
  const [one, two] = [await dealAt(1), await dealAt(2)];
  const [oldKek, newKek] = [await kekOf(one, [0, 1, 2]), await kekOf(two, [0, 1, 2])];
  expect(openSealedKey(two.sealed, newKek)).toEqual(pkcs8);
  // ST-21: the shares of one epoch do not open the other.
  expect(() => openSealedKey(two.sealed, oldKek)).toThrow(
    expect.objectContaining({ code: "kek-mismatch" }),
  );
});

test("the secret of another key is not sealed under the name in the plan", async () => {
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const spki = publicKey.export({ format: "der", type: "spki" });
  const plan = planOf({ key: { use: "0".repeat(64) }, payload: "pin" });
  await expect(
    deal({
      ...plan,
      secret: { octets: Buffer.from("1234"), publicKey: spki },
      random: randomBytes,
    }),
  ).rejects.toThrow("not that of the key");
  await expect(deal({ ...plan, random: randomBytes })).rejects.toThrow(
    "the secret of a key in use",
  );
});

test("ST-24: a sealed key that holds another valid key is refused by its id", async () => {
  const { plan, planDigest } = planOf();
  const dealt = await deal({ plan, planDigest, random: randomBytes });
  const kek = await kekOf(dealt, [0, 1, 2]);
  const header = readSealedKey(dealt.sealed);
  const other = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  const corrupt = expect.objectContaining({ code: "sealed-key-corrupt" });
  for (const secret of [
    other.export({ format: "der", type: "pkcs8" }),
    Buffer.from("not a real PKCS#8"),
  ]) {
    const forged = sealKey(header, secret, kek, randomBytes(32));
    expect(() => privateKeyOf(readSealedKey(forged), openSealedKey(forged, kek))).toThrow(corrupt);
  }
});

test.for<{ name: string; change: object }>([
  {
    name: "a threshold above the number of shares",
    change: { threshold: 5, shareCount: 4, custodians: base.custodians.slice(1) },
  },
  { name: "threshold 1", change: { threshold: 1 } },
  { name: "more shares than custodians", change: { shareCount: 6 } },
  {
    name: "a custodian twice",
    change: {
      custodians: [...base.custodians.slice(1), { ...base.custodians[0]!, operator: "bob" }],
    },
  },
  {
    name: "ST-18: a recipient for two",
    change: {
      custodians: [
        ...base.custodians.slice(1),
        { ...base.custodians[0]!, recipient: people[1]!.recipient },
      ],
    },
  },
  { name: "a new key with epoch 2", change: { epoch: 2, previous: `sha256:${"6".repeat(64)}` } },
  {
    name: "epoch 2 without a share set before",
    change: { key: { use: "0".repeat(64) }, epoch: 2 },
  },
  { name: "a curve that is not dealt", change: { key: { generate: "P-192" } } },
  { name: "a name with a line end", change: { issuer: "CN=x\nCSSHARE" } },
  { name: "a member more", change: { note: "x" } },
])("plan-invalid: $name", ({ change }) => {
  expect(() => planOf(change)).toThrow(expect.objectContaining({ code: "plan-invalid" }));
});

test("a share set out of order is refused", async () => {
  const { plan, planDigest } = planOf();
  const { shareSet } = await deal({ plan, planDigest, random: randomBytes });
  const octets = shareSetOctets({ ...shareSet, custodians: shareSet.custodians.toReversed() });
  expect(() => readShareSet(octets)).toThrow("order");
});
