/** Keepers for the tests of one file: one home, without a log before each test; what is started ends with its test. */

import { rmSync } from "node:fs";
import { afterAll, afterEach, beforeAll, beforeEach } from "vitest";
import type { KeeperClient, KeyStatus } from "../../src/custody/keeper-client.ts";
import { newKeeperHome, pidsOf, someEntry, TestLog, type KeeperHome } from "./keeper-home.ts";

/** Set before the first test. */
export let home: KeeperHome;
let keepers: KeeperClient[] = [];

/** To be called once, at the top of a file of tests. @param ids - who the roster names; alice, if nobody is said. */
export function useKeeperHome(...ids: readonly string[]): void {
  beforeAll(async () => {
    home = await newKeeperHome("P-256", ids.length === 0 ? ["alice"] : ids);
  });
  afterAll(() => home.remove());
  beforeEach(() => {
    rmSync(home.headFile, { force: true });
    rmSync(home.stateFile, { force: true });
    home.found();
  });
  afterEach(async () => {
    await Promise.all(keepers.map((keeper) => keeper.close()));
    keepers = [];
  });
}

export async function start(): Promise<KeeperClient> {
  const keeper = await home.start();
  keepers.push(keeper);
  return keeper;
}

/** Starts a keeper and a new log in it. */
export async function startNew(): Promise<{ keeper: KeeperClient; log: TestLog }> {
  const keeper = await start();
  await keeper.initialise();
  const log = new TestLog();
  await log.append(keeper, someEntry());
  return { keeper, log };
}

/** Of the one key. */
export async function keyStatus(keeper: KeeperClient): Promise<KeyStatus> {
  return (await keeper.status()).keys[0]!;
}

export async function keyState(keeper: KeeperClient): Promise<KeyStatus["state"]> {
  return (await keyStatus(keeper)).state;
}

export function keeperPid(): number {
  return pidsOf("keeper", process.pid)[0]!;
}

export function signerPids(): number[] {
  return pidsOf("signer", keeperPid());
}
