import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import {
  startDealer,
  type DealerParts,
  type DealtByProcess,
} from "../../src/custody/dealer-process.ts";
import { startOpenedSigner } from "../../src/custody/opened-signer.ts";
import { openShareFile } from "../../src/custody/sealed/share-file.ts";
import { openSealedKey } from "../../src/custody/sealed/sealed-key.ts";
import { recoverKek } from "../../src/custody/sealed/shamir.ts";
import { startUnlocker } from "../../src/custody/unlocker-process.ts";
import { spkiDigest } from "../../src/x509/public-key.ts";
import { refused } from "../support/refused.ts";
import { digestOf, newKeeperHome, type KeeperHome } from "./keeper-home.ts";
import {
  agreementOf,
  FollowedLog,
  logAndSign,
  openingFor,
  publicKeyOf,
  rootTbs,
  submitAll,
} from "./opened-key.ts";
import { names, SealedHome, type Change } from "./sealed-home.ts";

let people: SealedHome;
beforeAll(() => {
  people = new SealedHome();
});
afterAll(() => people.remove());

/** A token in use, with its PIN in a file. */
async function tokenInUse(): Promise<KeeperHome & { readonly parts: Required<DealerParts> }> {
  const home = await newKeeperHome();
  onTestFinished(() => home.remove());
  return { ...home, parts: { token: tokenOf(home, home.token.uri), pinFile: home.pinFile } };
}

function tokenOf(home: KeeperHome, uri: string): NonNullable<DealerParts["token"]> {
  return {
    module: home.settings().keys[0]!["module"] as string,
    uri,
    environment: { SOFTHSM2_CONF: join(home.directory, "softhsm2.conf") },
  };
}

function planFor(change: Change): { plan: Buffer; planDigest: string; secret: "none" } {
  const plan = people.plan(2, 3, { payload: "pin", ...change });
  return { plan, planDigest: digestOf(plan), secret: "none" };
}

/** Two of three open the PIN, and the token signs with it. */
async function openAndSign(
  dealt: DealtByProcess,
  token: NonNullable<DealerParts["token"]>,
): Promise<void> {
  const log = new FollowedLog();
  const signer = startOpenedSigner({ token, log: log.feed, statements: () => [] });
  onTestFinished(() => signer.kill());
  const unlocker = startUnlocker({ handOff: signer.handOff, gatherSeconds: 600 });
  const stated = people.unlock(dealt, await unlocker.begin());
  await unlocker.state(stated.state);
  await submitAll(people, { unlocker, stated }, ["bob", "carol"]);
  await unlocker.open(agreementOf(people, stated));
  const tbs = rootTbs(publicKeyOf(dealt));
  const { module, uri } = token;
  const { keyId } = dealt.shareSet;
  const sealed = { payload: "pin", keyId, module, uri } as const;
  const { publicKey } = await signer.open(() => openingFor(dealt, log, [tbs], { sealed }));
  expect(spkiDigest(publicKey)).toBe(keyId);
  expect((await logAndSign(signer, log, publicKey, tbs)).length).toBeGreaterThan(60);
}

/** The PIN that was sealed. */
async function pinOf(dealt: DealtByProcess): Promise<string> {
  const shares = await Promise.all(
    names
      .slice(0, 2)
      .map((who, place) => openShareFile(dealt.files[place]!, people.ageIdentity(who))),
  );
  return openSealedKey(dealt.sealed, recoverKek(shares, dealt.shareSet)).toString();
}

test("a dealer makes a token whose PIN two of three custodians open", async () => {
  const home = await tokenInUse();
  const conf = join(home.directory, "new.conf");
  const tokens = join(home.directory, "new-tokens");
  mkdirSync(tokens);
  writeFileSync(conf, `directories.tokendir = ${tokens}\nlog.level = ERROR\n`);
  const token = {
    ...tokenOf(home, "pkcs11:token=root;object=root-key"),
    environment: { SOFTHSM2_CONF: conf },
  };
  const dealer = startDealer({ token });
  const dealt = await dealer.deal(planFor({}));
  expect(dealt.pending).toBe(false);
  expect(dealt.uri).toMatch(/^pkcs11:token=root;serial=/);
  await dealer.commit(); // nothing waits for it
  await dealer.ended;
  await openAndSign(dealt, token);
});

test("a token in use has its old PIN until the seal is stored, and the sealed one from then on", async () => {
  const { parts, keyId, pinFile } = await tokenInUse();
  const old = readFileSync(pinFile, "utf8").trim();
  const first = startDealer(parts);
  const dropped = await first.deal(planFor({ key: { use: keyId } }));
  expect(dropped.pending).toBe(true);
  first.kill(); // before it is stored
  await first.ended;

  const dealer = startDealer(parts);
  const dealt = await dealer.deal(planFor({ key: { use: keyId } }));
  expect([await pinOf(dealt), await pinOf(dropped)]).not.toContain(old);
  await dealer.commit();
  await dealer.ended;
  expect(readFileSync(pinFile, "utf8").trim()).toBe(old); // which opens nothing any more
  await openAndSign(dealt, parts.token);
  await expect(startDealer(parts).deal(planFor({ key: { use: keyId } }))).rejects.toEqual(
    refused("pin-wrong"),
  );
  await expect(openAndSign(dropped, parts.token)).rejects.toEqual(refused("pin-wrong"));
});

test("a plan for another key than the token's changes no PIN", async () => {
  const { parts, keyId } = await tokenInUse();
  const wrong = startDealer(parts);
  await expect(wrong.deal(planFor({ key: { use: "0".repeat(64) } }))).rejects.toEqual(
    refused("deal-failed"),
  );
  await wrong.ended;
  const later = startDealer(parts);
  const epoch2 = { epoch: 2, previous: `sha256:${"1".repeat(64)}`, key: { use: keyId } };
  await expect(later.deal(planFor(epoch2))).rejects.toEqual(refused("plan-invalid"));
  await later.ended;
  const right = startDealer(parts);
  expect((await right.deal(planFor({ key: { use: keyId } }))).pending).toBe(true);
  right.kill();
});

test("a PIN that opens another key than the share set's signs nothing", async () => {
  const { parts, keyId } = await tokenInUse();
  const token = parts.token;
  const dealer = startDealer(parts);
  const dealt = await dealer.deal(planFor({ key: { use: keyId } }));
  await dealer.commit();
  const log = new FollowedLog();
  const signer = startOpenedSigner({ token, log: log.feed, statements: () => [] });
  const unlocker = startUnlocker({ handOff: signer.handOff, gatherSeconds: 600 });
  const stated = people.unlock(dealt, await unlocker.begin());
  await unlocker.state(stated.state);
  await submitAll(people, { unlocker, stated }, ["alice", "carol"]);
  await unlocker.open(agreementOf(people, stated));
  const { module, uri } = token;
  const sealed = { payload: "pin", keyId: "0".repeat(64), module, uri } as const;
  await expect(
    signer.open(() => openingFor(dealt, log, [Buffer.alloc(1)], { sealed })),
  ).rejects.toEqual(refused("key-refused"));
  expect(await signer.ended).toBe("ended");
});

test("a PIN file that cannot be opened, and a URI that does not say what the token is called", async () => {
  const home = await tokenInUse();
  expect(() => startDealer({ ...home.parts, pinFile: join(home.directory, "none") })).toThrow(
    refused("config-invalid") as Error,
  );
  const dealer = startDealer({ token: tokenOf(home, "pkcs11:token=x") });
  await expect(dealer.deal(planFor({}))).rejects.toEqual(refused("config-invalid"));
  dealer.kill();
});
