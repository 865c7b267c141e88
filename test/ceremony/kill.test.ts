/**
 * Kill -9 at every step of generation, reshare, unlock and the sealing of a PIN: what is left is safe, and leads on.
 *
 * `npm run test:kill` runs every row; without it, those that stand for the others.
 */

import { createPrivateKey } from "node:crypto";
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { privateScalar } from "../support/private-scalar.ts";
import { openSealedKey } from "../../src/custody/sealed/sealed-key.ts";
import { recoverKek } from "../../src/custody/sealed/shamir.ts";
import type { CeremonyView } from "../../src/ceremony/view.ts";
import { isAlive } from "../custody/keeper-home.ts";
import {
  pidsFile,
  startCrashing,
  type Crash,
  type CrashingService,
  type Victim,
} from "../support/crashing-ceremonies.ts";
import { scanFiles } from "../support/disk-scan.ts";
import type { Needles } from "../support/needles.ts";
import { certifySealed, publicKeyOf, requestInfo } from "./artefacts.ts";
import {
  as,
  decodeShare,
  openCeremonyHome,
  openSealedHome,
  sealedKey,
  type CeremonyHome,
} from "./home.ts";

type What = "generate" | "pin" | "reshare" | "sign" | "window";

/** A home as it was, to begin with again and again. */
interface Beginning {
  readonly home: CeremonyHome;
  readonly copy: string;
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** Of the sealed key, or of the token's. */
  readonly keyId: string;
  readonly secrets: Needles;
}

const beginnings = new Map<"new" | "sealed", Beginning>();

async function keep(home: CeremonyHome, keyId: string, secrets: Needles): Promise<Beginning> {
  await home.stop();
  const copy = mkdtempSync(join(tmpdir(), "countersign-kill-"));
  cpSync(home.home.directory, copy, { recursive: true });
  return { home, copy, files: new Map(home.files), keyId, secrets };
}

beforeAll(async () => {
  const fresh = await openCeremonyHome();
  beginnings.set("new", await keep(fresh, fresh.home.keyId, {}));
  const sealed = await openSealedHome();
  await certifySealed(sealed);
  const secrets = await secretsOf(sealed, sealed.shareSet);
  await sealed.restart(sealedKey(sealed.keyId, "issuing", true));
  beginnings.set("sealed", await keep(sealed, sealed.keyId, secrets));
});

afterAll(() => {
  for (const { home, copy } of beginnings.values()) {
    home.home.remove();
    rmSync(copy, { recursive: true });
  }
});

/** What opens a key, and what is opened: nobody but custodians, unlocker, dealer and signer ever has it. */
async function secretsOf(home: CeremonyHome, shareSet: string): Promise<Needles> {
  const { read } = await home.shareSetOf(shareSet);
  const points = ["alice", "bob"].map((id) => decodeShare(home.shareOf(id)));
  const kek = recoverKek(points, read);
  const { sealed } = (await home.reads.shareSet(shareSet))!;
  const secret = openSealedKey(sealed!, kek);
  return {
    ...Object.fromEntries(points.map(({ x, y }) => [`share ${x} of epoch ${read.epoch}`, y])),
    [`KEK of epoch ${read.epoch}`]: kek,
    ...(sealedPin(secret) ? { PIN: secret } : { "private key": privateScalar(secret) }),
  };
}

function sealedPin(secret: Buffer): boolean {
  try {
    createPrivateKey({ key: secret, format: "der", type: "pkcs8" });
    return false;
  } catch {
    return true;
  }
}

/** What people were told is done. */
interface Acknowledged {
  readonly approved: Set<string>;
  readonly confirmed: Set<string>;
}

const done: Readonly<Record<What, CeremonyView["state"]>> = {
  generate: "applied",
  pin: "applied",
  reshare: "applied",
  sign: "published",
  window: "unlocked",
};

const over = new Set<CeremonyView["state"]>(["failed", "locked", "aborted", "expired"]);

function kindOf(what: What): "generate" | "reshare" | "sign" | "window" {
  return what === "pin" ? "generate" : what;
}

async function newest(home: CeremonyHome, what: What): Promise<CeremonyView | undefined> {
  const kind = kindOf(what);
  return (await home.domain.ceremonies.list({ kind, limit: 1 })).ceremonies[0];
}

async function oldest(home: CeremonyHome, what: What): Promise<CeremonyView | undefined> {
  const kind = kindOf(what);
  return (await home.domain.ceremonies.list({ kind, limit: 50 })).ceremonies.at(-1);
}

async function propose(home: CeremonyHome, what: What, keyId: string): Promise<void> {
  switch (what) {
    case "generate":
      await home.propose({ kind: "generate", plan: home.plan() });
      return;
    case "pin": {
      const plan = home.plan({ key: { use: keyId }, payload: "pin" });
      await home.propose({ kind: "generate", keyId, plan });
      return;
    }
    case "reshare": {
      const [active] = await home.reads.shareSets({ keyId, state: "active" });
      const next = { key: { use: keyId }, epoch: 2, previous: active!.digest };
      await home.propose({ kind: "reshare", keyId, plan: home.plan(next) });
      return;
    }
    case "sign": {
      const [active] = await home.reads.shareSets({ keyId, state: "active" });
      const tbs = requestInfo(await publicKeyOf(home, active!.digest));
      await home.propose({ kind: "sign", keyId, artefacts: [{ tbs }] });
      return;
    }
    case "window": {
      const at = Math.floor(Date.now() / 1000) * 1000;
      await home.propose({
        kind: "window",
        keyId,
        window: {
          operations: [{ operation: "crl", max: 1 }],
          notBefore: new Date(at - 60_000).toISOString(),
          notAfter: new Date(at + 3_600_000).toISOString(),
          idleSeconds: 3600,
        },
      });
    }
  }
}

/** Whoever has not said something says it. */
async function goOn(home: CeremonyHome, view: CeremonyView, said: Acknowledged): Promise<void> {
  const { digest, kind, state, people } = view;
  if (state === "pending") {
    const shares = await home.reads.shares(view.shareSet!);
    for (const { index, operator, confirmation } of shares) {
      if (confirmation !== null) continue;
      await home.confirm(view.shareSet!, index, operator);
      said.confirmed.add(operator);
    }
    return;
  }
  if (kind === "generate") {
    const waiting = people.filter((person) => person.state === "waiting");
    // Where all have approved, one more word has the service try again what failed.
    const whose = waiting.length > 0 ? waiting.map(({ operator }) => operator) : ["dora", "erin"];
    for (const id of whose.filter((one) => !said.approved.has(one))) {
      await home.approve(id, digest);
      said.approved.add(id);
    }
    return;
  }
  for (const id of view.missing.people ?? []) {
    await home.approve(id, digest);
    said.approved.add(id);
  }
  let unlock = view.unlock;
  if (unlock?.state !== "gathering") {
    unlock = await home.domain.unlocks.open(digest, undefined, as("alice"));
  }
  for (const id of ["alice", "bob"]) {
    const { people: givers } = await home.domain.unlocks.view(unlock.digest);
    if (givers.some((one) => one.operator === id && one.state === "given")) continue;
    await home.submit(id, unlock.digest);
  }
}

/** People do what is left to do, whatever was done; what fails is tried again. */
async function drive(
  home: CeremonyHome,
  what: What,
  keyId: string,
  said: Acknowledged,
  isOver: () => boolean = () => false,
): Promise<unknown> {
  let failure: unknown;
  for (let round = 0; round < 12 && !isOver(); round++) {
    try {
      await home.domain.idle();
      const view = await newest(home, what);
      if (view?.state === done[what]) return undefined;
      if (view === undefined || over.has(view.state)) {
        said.approved.clear();
        await propose(home, what, keyId);
      } else {
        await goOn(home, view, said);
      }
    } catch (error) {
      failure = error;
    }
  }
  return failure ?? new Error(`it comes to no end: ${JSON.stringify(await newest(home, what))}`);
}

interface Row extends Crash {
  readonly name: string;
  readonly what: What;
  /** Of the ceremony, when all has come to rest: after the next start, or in the service that goes on. */
  readonly state: CeremonyView["state"] | "none" | readonly CeremonyView["state"][];
  /** Runs each time, not only when all of them do. */
  readonly always?: true;
}

type Line = readonly [
  step: string,
  victims: Victim | readonly Victim[],
  state: Row["state"],
  more?: { readonly time?: number; readonly always?: readonly Victim[] },
];

function rows(what: What, lines: readonly Line[]): Row[] {
  return lines.flatMap(([step, whom, state, { time, always = [] } = {}]) =>
    [whom].flat().map((victim: Victim) => ({
      name: `${what}: kill -9 of the ${victim} ${step}${time === undefined ? "" : ` no. ${time}`}`,
      what,
      step,
      victim,
      state,
      ...(time === undefined ? {} : { time }),
      ...(always.includes(victim) ? { always: true as const } : {}),
    })),
  );
}

const confirming: readonly Line[] = [
  ["after key.generated", ["service", "keeper"], "pending", { always: ["service"] }],
  ["before share.confirmed", "service", "pending", { time: 2 }],
  ["after share.confirmed", "service", "pending", { time: 2 }],
  // Everybody has confirmed, and it is for the next start to go on.
  ["after share.confirmed", ["service", "keeper"], "applied", { time: 3, always: ["service"] }],
  ["after share-set.activated", ["service", "keeper"], "applied", { always: ["service"] }],
];

const gathering: readonly Line[] = [
  ["before ceremony.opened", "service", "none"],
  ["after ceremony.opened", ["service", "keeper"], "gathering"],
  ["before keeper.unlock", "service", "gathering"],
  ["after keeper.unlock", ["service", "keeper"], "gathering"],
  ["after unlock.opened", ["service", "keeper"], "gathering", { always: ["service"] }],
  ["before keeper.submit", ["service", "keeper"], "gathering", { time: 2 }],
  ["after keeper.submit", ["service", "keeper"], "gathering", { time: 1 }],
  ["after share.accepted", ["service", "keeper"], "gathering", { time: 1, always: ["service"] }],
  ["after share.accepted", ["service", "keeper"], "gathering", { time: 2 }],
  ["after ceremony.step unlocking", ["service", "keeper"], "gathering"],
  ["after key.unlocked", ["service", "keeper"], "gathering", { always: ["keeper"] }],
];

const table: readonly Row[] = [
  ...rows("generate", [
    ["before ceremony.opened", "service", "none"],
    ["after ceremony.opened", ["service", "keeper"], "gathering"],
    ["before approval.accepted", "service", "gathering", { time: 2 }],
    ["after approval.accepted", ["service", "keeper"], "gathering", { time: 2 }],
    ["after approval.accepted", ["service", "keeper"], "pending", { time: 3 }],
    ["after ceremony.step dealing", ["service", "keeper"], "pending"],
    ["during keeper.deal", ["service", "keeper"], "pending", { always: ["service", "keeper"] }],
    ["during keeper.deal", "dealer", "applied", { always: ["dealer"] }],
    // What was dealt is lost with the service, and nobody has a share of it.
    ["after keeper.deal", "service", "failed", { always: ["service"] }],
    // Or the database has it, and only the head of the log has not.
    ["after keeper.deal", "keeper", ["failed", "pending"]],
    ...confirming,
    ["after keeper.activate", ["service", "keeper"], "applied"],
  ]),
  ...rows("pin", [
    ["during keeper.deal", "service", "pending"],
    ["during keeper.deal", "dealer", "applied"],
    ["after keeper.deal", ["service", "keeper"], "failed"],
    // The seal is stored, and the token has the PIN that it had.
    ["after key.generated", ["service", "keeper"], "failed", { always: ["service"] }],
    ["before keeper.commit", "dealer", ["failed", "pending"], { always: ["dealer"] }],
    ["during keeper.commit", ["service", "keeper"], ["failed", "pending"], { always: ["keeper"] }],
    // The token has the PIN that is sealed.
    ["after keeper.commit", ["service", "keeper"], "pending", { always: ["service"] }],
    ["after share.confirmed", ["service", "keeper"], "pending", { time: 1 }],
    ["after share-set.activated", ["service", "keeper"], "applied"],
  ]),
  ...rows("reshare", [
    ...gathering,
    ["after unlock.opened", ["unlocker", "dealer"], "applied"],
    ["before keeper.submit", ["unlocker", "dealer"], "applied", { time: 2, always: ["unlocker"] }],
    ["before keeper.open", ["unlocker", "dealer"], "applied"],
    ["during keeper.open", ["unlocker", "dealer"], "applied", { always: ["dealer"] }],
    ["during keeper.open", ["service", "keeper"], ["gathering", "failed"], { always: ["service"] }],
    ["after keeper.open", ["service", "keeper"], "gathering", { always: ["keeper"] }],
    ["after unlock.closed opened", "service", "gathering"],
    ...confirming,
    // The first is of the start.
    ["after keeper.activate", ["service", "keeper"], "applied", { time: 2 }],
  ]),
  ...rows("sign", [
    ...gathering.slice(3),
    ["after unlock.opened", ["unlocker", "signer"], "published"],
    ["before keeper.submit", ["unlocker", "signer"], "published", { time: 2 }],
    ["during keeper.open", ["unlocker", "signer"], "failed", { always: ["signer"] }],
    ["during keeper.open", ["service", "keeper"], "gathering", { always: ["service"] }],
    ["after keeper.open", ["service", "keeper"], "gathering", { always: ["service"] }],
    ["after keeper.open", "signer", "failed"],
    ["after ceremony.step unlocked", ["service", "keeper", "signer"], "failed"],
    ["after sign.intent", ["service", "keeper", "signer"], "failed", { always: ["keeper"] }],
    ["after keeper.sign", ["service", "keeper"], "failed", { always: ["service"] }],
    ["after ceremony.step signed", ["service", "keeper"], "failed"],
    ["after ceremony.step verified", "service", "failed"],
    ["after ceremony.step verified", "keeper", ["failed", "published"]],
    [
      "after ceremony.closed published",
      ["service", "keeper"],
      "published",
      { always: ["service"] },
    ],
  ]),
  ...rows("window", [
    ["after keeper.open", ["service", "keeper"], "gathering"],
    ["after keeper.open", "signer", "locked"],
    ["after ceremony.step unlocked", ["service", "keeper"], "locked", { always: ["service"] }],
    ["after ceremony.step unlocked", "signer", "locked", { always: ["signer"] }],
  ]),
];

const chosen =
  process.env["COUNTERSIGN_KILL"] === "all" ? table : table.filter((row) => row.always);

for (const { name, what, state, ...crash } of chosen) {
  test(`ST-49, ST-62: ${name} leaves what is safe, and leads on`, async () => {
    const { home, copy, files, keyId, secrets } = beginnings.get(
      what === "generate" || what === "pin" ? "new" : "sealed",
    )!;
    const { directory } = home.home;
    for (const name of readdirSync(directory)) rmSync(join(directory, name), { recursive: true });
    cpSync(copy, directory, { recursive: true });
    home.files.clear();
    for (const [id, file] of files) home.files.set(id, file);
    home.failures.length = 0;

    const said: Acknowledged = { approved: new Set(), confirmed: new Set() };
    const service = await startCrashing(home.settings, crash);
    home.attach(service.running);
    const killed = (): boolean => readdirSync(directory).includes("killed.json");
    const goesOn = crash.victim !== "service" && crash.victim !== "keeper";
    const failure = await drive(home, what, keyId, said, () => killed() && !goesOn);
    expect(killed(), `the step did not come: ${String(failure)}, ${service.failures.join()}`).toBe(
      true,
    );
    if (goesOn) {
      await expect
        .poll(async () => [state].flat().includes((await oldest(home, what))?.state ?? "none"))
        .toBe(true);
      const waits = what === "pin" && (await newest(home, what))?.state === "pending";
      if (!waits) await leadsOn(home, what, keyId, said);
    }
    await end(service, directory);
    await home.start();
    try {
      await home.domain.idle();
      if (!goesOn) {
        const first = await oldest(home, what);
        const found = first?.state ?? "none";
        expect([state].flat(), first?.trouble).toContain(found);
        await keptWhatWasSaid(first, said, home);
      }
      await isSafe(home, keyId);
      await leadsOn(home, what, keyId, said);
      if (what === "generate" || what === "pin" || what === "reshare") {
        await opens(home, what, keyId, secrets);
      }
      expect((await allActive(home)).length, "one active set for each key").toBe(
        new Set((await allActive(home)).map((set) => set.keyId)).size,
      );
    } finally {
      await home.stop();
    }
    await home.verify();
  });
}

/** By kill -9: of the service, and with it of all that it has started. */
async function end({ child, ended }: CrashingService, directory: string): Promise<void> {
  child.kill("SIGKILL");
  await ended;
  const pids = JSON.parse(readFileSync(pidsFile(directory), "utf8")) as number[];
  await expect.poll(() => pids.filter(isAlive), { timeout: 10_000 }).toEqual([]);
}

async function allActive(home: CeremonyHome) {
  return home.reads.shareSets({ state: "active" });
}

async function keptWhatWasSaid(
  view: CeremonyView | undefined,
  said: Acknowledged,
  home: CeremonyHome,
): Promise<void> {
  for (const id of said.approved) {
    expect(["approved", "given"]).toContain(
      view?.people.find(({ operator }) => operator === id)?.state,
    );
  }
  if (view?.shareSet !== undefined) {
    const shares = await home.reads.shares(view.shareSet);
    for (const id of said.confirmed) {
      expect(shares.find(({ operator }) => operator === id)?.confirmation).not.toBeNull();
    }
  }
  // Shares are asked for again.
  if (view?.unlock !== undefined) expect(view.unlock.state).not.toBe("gathering");
}

/** A sealed key is locked, and nothing gathers or deals. */
async function isSafe(home: CeremonyHome, keyId: string): Promise<void> {
  const { keys } = await home.running.keeper.status();
  const key = keys.find((one) => one.keyId === keyId);
  const [active] = await home.reads.shareSets({ keyId, state: "active" });
  // A token that was in use goes on until its shares are confirmed.
  if (active !== undefined) {
    expect(key).toMatchObject({ state: "locked", operations: [], epoch: active.epoch });
    expect(key).not.toHaveProperty("signaturesLeft");
  }
  expect(await home.reads.openUnlocks()).toEqual([]);
}

async function leadsOn(
  home: CeremonyHome,
  what: What,
  keyId: string,
  said: Acknowledged,
): Promise<void> {
  if (what === "window" && (await newest(home, what))?.state === "unlocked") return;
  expect(await drive(home, what, keyId, said)).toBeUndefined();
}

/** The shares of the set in force open the key, and no file has anything of it in clear. */
async function opens(
  home: CeremonyHome,
  what: "generate" | "pin" | "reshare",
  before: string,
  secrets: Needles,
): Promise<void> {
  const set = (await allActive(home)).find(({ keyId }) => what === "generate" || keyId === before)!;
  const needles = { ...secrets, ...(await secretsOf(home, set.digest)) };
  const control = Buffer.from(set.sealed!.subarray(-64, -16));
  const scanned = scanFiles(home.home.directory, { ...needles, control });
  expect(scanned.findings.filter(({ needle }) => needle !== "control")).toEqual([]);
  expect(scanned.findings.some(({ needle }) => needle === "control")).toBe(true);
  if (what === "generate") return;
  const said: Acknowledged = { approved: new Set(), confirmed: new Set() };
  expect(await drive(home, "sign", set.keyId, said)).toBeUndefined();
}
