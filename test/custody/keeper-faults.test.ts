/** What a keeper does about lost files, full disks, dead signers, and a service that asks for things twice. */

import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, rmdirSync, utimesSync, writeFileSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { leafHash } from "../../src/audit/merkle.ts";
import { readKeeperConfig } from "../../src/custody/keeper-config.ts";
import type { FromKeeper, ToKeeper } from "../../src/custody/keeper-protocol.ts";
import { emptyState, type KeeperState } from "../../src/custody/keeper-state.ts";
import { createKeeper, type Keeper } from "../../src/custody/keeper.ts";
import { lengthsOf } from "../../src/custody/sign-batch.ts";
import { buildTbsCertList } from "../../src/x509/certificate-list.ts";
import { buildRootTbsCertificate } from "../../src/x509/certificate-template.ts";
import { encodeName } from "../../src/x509/name.ts";
import { parsePublicKey } from "../../src/x509/public-key.ts";
import { refused } from "../support/refused.ts";
import { newSerialNumber } from "../x509/authority.ts";
import {
  home,
  keeperPid,
  keyState,
  keyStatus,
  signerPids,
  start,
  startNew,
  useKeeperHome,
} from "./keeper-fixture.ts";
import {
  assembled,
  crlTbs,
  digestOf,
  intentFor,
  isAlive,
  leafTbs,
  logAndSign,
  pidsOf,
  someEntry,
  TestLog,
} from "./keeper-home.ts";

const DAY = 86_400_000;

useKeeperHome();
let inside: Keeper[] = [];
afterEach(() => {
  for (const keeper of inside) keeper.stop();
  inside = [];
  rmSync(`${home.stateFile}.new`, { recursive: true, force: true });
});

/** A keeper in this process, with a clock of its own; only its signers are processes. */
class InProcess {
  readonly keeper: Keeper;
  readonly log = new TestLog();
  now = new Date();
  readonly #waiting = new Map<number, (answer: { message: FromKeeper; body: Buffer }) => void>();
  #next = 0;

  constructor() {
    this.keeper = createKeeper({
      config: readKeeperConfig(home.configFile),
      now: () => this.now,
      monotonic: () => performance.now() / 1000,
      random: randomBytes,
      send: (message, ...body) => {
        if ("id" in message) this.#waiting.get(message.id)!({ message, body: Buffer.concat(body) });
      },
    });
    inside.push(this.keeper);
  }

  ask(
    message: ToKeeper extends infer One ? (One extends ToKeeper ? Omit<One, "id"> : never) : never,
    ...body: Uint8Array[]
  ): Promise<{ message: FromKeeper; body: Buffer }> {
    return new Promise((resolve) => {
      const id = this.#next++;
      this.#waiting.set(id, resolve);
      this.keeper.receive({ ...message, id } as ToKeeper, Buffer.concat(body));
    });
  }

  async append(...leaves: Uint8Array[]): Promise<number> {
    const first = this.log.add(...leaves);
    await this.ask({ type: "append", first }, ...leaves.map(leafHash));
    return first;
  }

  /** One frame, in which each request has an intent of its own, or the index of none. */
  async sign(...all: readonly { tbs: Uint8Array; logged: boolean }[]): Promise<FromKeeper> {
    const intents = all.map(({ tbs }) => intentFor(home, tbs));
    const first = await this.append(...intents);
    const requests = all.map(({ tbs, logged }, index) => ({
      intentIndex: logged ? first + index : first + 1000,
      intent: intents[index]!,
      tbs,
    }));
    const answer = await this.ask(
      { type: "sign", keyId: home.keyId, requests: requests.map(lengthsOf) },
      ...requests.flatMap(({ intent, tbs }) => [intent, tbs]),
    );
    return answer.message;
  }
}

async function startInProcess(): Promise<InProcess> {
  const keeper = new InProcess();
  await keeper.keeper.ready;
  await keeper.ask({ type: "initialise" });
  await keeper.append(someEntry());
  return keeper;
}

function state(): KeeperState {
  return JSON.parse(readFileSync(home.stateFile, "utf8")) as KeeperState;
}

function writeState(change: Partial<KeeperState>): void {
  writeFileSync(home.stateFile, JSON.stringify({ ...emptyState(), ...change }));
}

/** From here on the state file cannot be written, as on a full disk. */
function blockState(): void {
  mkdirSync(`${home.stateFile}.new`);
}

function freeState(): void {
  rmdirSync(`${home.stateFile}.new`);
}

function grantDigests(...tbs: readonly Uint8Array[]): void {
  home.configure((config) => {
    config.keys[0]!.grant = { digests: tbs.map(digestOf) };
  });
}

// Digests

test("a digest that a batch asks for twice is given back only if both are refused", async () => {
  const tbs = leafTbs(home);
  grantDigests(tbs);
  const keeper = await startInProcess();
  const bogus = { tbs, logged: false };
  const real = { tbs, logged: true };
  await keeper.sign(bogus, bogus);
  expect(state().digests[home.keyId], "both refused").toEqual([]);
  const answer = (await keeper.sign(bogus, real)) as FromKeeper & { type: "signed" };
  expect(answer.results.map((length) => length > 0)).toEqual([false, true]);
  expect(state().digests[home.keyId]).toEqual([digestOf(tbs)]);
});

test("a digest that two batches at once ask for is given back only if both are refused", async () => {
  const tbs = leafTbs(home);
  grantDigests(tbs);
  const keeper = await startInProcess();
  const answers = await Promise.all([
    keeper.sign({ tbs, logged: false }),
    keeper.sign({ tbs, logged: true }),
  ]);
  const lengths = answers.map((answer) => (answer as FromKeeper & { type: "signed" }).results[0]!);
  expect(lengths.map((length) => length > 0)).toEqual([false, true]);
  expect(state().digests[home.keyId]).toEqual([digestOf(tbs)]);
});

test("ST-44: a digest is used up on the disk before it is signed, so that it stays so when the keeper is killed", async () => {
  const tbs = leafTbs(home);
  grantDigests(tbs);
  const { keeper, log } = await startNew();
  const signature = logAndSign(home, keeper, log, tbs);
  await expect(signature).resolves.toBeInstanceOf(Uint8Array);
  process.kill(keeperPid(), "SIGKILL");
  await keeper.ended;
  const again = await start();
  await expect(logAndSign(home, again, log, tbs)).rejects.toEqual(
    refused("grant-mismatch", /not granted, or were signed already/),
  );
});

test("a digest whose signer is killed over it counts as signed", async () => {
  const tbs = leafTbs(home);
  grantDigests(tbs);
  const keeper = await startInProcess();
  const [signer] = pidsOf("signer", process.pid);
  process.kill(signer!, "SIGSTOP");
  const answer = keeper.sign({ tbs, logged: true });
  await keeper.ask({ type: "append", first: keeper.log.range.end });
  process.kill(signer!, "SIGKILL");
  expect(await answer).toMatchObject({ type: "refused", code: "token-unavailable" });
  expect(state().digests[home.keyId]).toEqual([digestOf(tbs)]);
});

// Keys whose id is known only when they open

function rootTbs(): Uint8Array {
  const start = Math.floor(Date.now() / 1000) * 1000 - 60_000;
  return buildRootTbsCertificate({
    serialNumber: newSerialNumber(),
    notBefore: new Date(start),
    notAfter: new Date(start + 20 * 365 * DAY),
    subject: encodeName([{ type: "CN", value: "Founding Root" }]),
    publicKey: parsePublicKey(home.token.publicKey),
  });
}

/** The key is that of a root without a certificate, which may sign these. */
function found(...tbs: readonly Uint8Array[]): void {
  home.configure((config) => {
    delete config.keys[0]!.certificate;
    config.keys[0]!.chain = [];
    config.keys[0]!.grant = { digests: tbs.map(digestOf) };
  });
}

test("a founding key that has used a digest has used it after a restart", async () => {
  const root = rootTbs();
  found(root);
  const { keeper, log } = await startNew();
  await expect(logAndSign(home, keeper, log, root)).resolves.toBeInstanceOf(Uint8Array);
  await keeper.close();
  const again = await start();
  await expect.poll(() => keyState(again), { timeout: 20_000 }).toBe("open");
  await expect(logAndSign(home, again, log, root)).rejects.toEqual(refused("grant-mismatch"));
});

test("a founding key that is known to have signed a CRL signs none below it", async () => {
  const root = rootTbs();
  const thisUpdate = new Date(Math.floor(Date.now() / 1000) * 1000);
  const nextUpdate = new Date(thisUpdate.getTime() + DAY);
  const issuerCertificate = assembled(home, root, new Uint8Array(70));
  const crl = buildTbsCertList({
    issuerCertificate,
    thisUpdate,
    nextUpdate,
    number: 5n,
    entries: [],
  });
  found(root, crl);
  const last = assembled(home, crlTbs(home, 7n), new Uint8Array(70));
  writeState({ lists: { [home.keyId]: { number: "7", crl: digestOf(last) } } });
  writeFileSync(`${home.stateFile}.${home.keyId}.7.crl`, last);
  // The state has a list, so the head is put there by hand, as a log that has been used.
  const written = readFileSync(home.stateFile);
  rmSync(home.stateFile);
  const first = await startNew();
  await first.keeper.close();
  writeFileSync(home.stateFile, written);
  const keeper = await start();
  await expect.poll(() => keyState(keeper), { timeout: 20_000 }).toBe("open");
  await expect(logAndSign(home, keeper, first.log, root)).resolves.toBeInstanceOf(Uint8Array);
  await expect(logAndSign(home, keeper, first.log, crl, { operation: "crl" })).rejects.toEqual(
    refused("grant-mismatch", /not above the last one, 7/),
  );
});

test("ST-51: a held key without a certificate is held as soon as its token tells which one it is", async () => {
  found(rootTbs());
  const { keeper } = await startNew();
  await keeper.close();
  writeState({
    held: {
      [home.keyId]: {
        operator: "alice",
        at: "2026-11-21T20:03:00Z",
        statement: digestOf(Buffer.alloc(0)),
      },
    },
  });
  const again = await start();
  expect(await keyState(again)).toBe("held");
  await expect.poll(signerPids).toEqual([]);
});

// CRLs

test("a CRL that the keeper cannot keep is given to nobody", async () => {
  const { keeper, log } = await startNew();
  const sign = (): Promise<Uint8Array> =>
    logAndSign(home, keeper, log, crlTbs(home, 1n), { operation: "crl" });
  await logAndSign(home, keeper, log, leafTbs(home)); // so that no reservation is due
  blockState();
  await expect(sign()).rejects.toThrow(/EISDIR/);
  freeState();
  expect(state().lists).toEqual({});
  await expect.poll(() => keyState(keeper), { timeout: 20_000 }).toBe("open");
  await expect(sign()).resolves.toBeInstanceOf(Uint8Array);
});

test.for([
  { name: "missing", spoil: (file: string) => rmSync(file) },
  {
    name: "another",
    spoil: (file: string) =>
      writeFileSync(file, assembled(home, crlTbs(home, 1n), new Uint8Array(70))),
  },
])("a last CRL whose file is $name keeps the keeper from starting", async ({ spoil }) => {
  const { keeper, log } = await startNew();
  await logAndSign(home, keeper, log, crlTbs(home, 1n), { operation: "crl" });
  await keeper.close();
  spoil(`${home.stateFile}.${home.keyId}.1.crl`);
  await expect(home.start()).rejects.toEqual(
    refused("rolled-back", /1\.crl is missing or damaged/),
  );
});

test("a restarted signer knows the serial numbers that the last CRL revokes", async () => {
  const { keeper, log } = await startNew();
  const serialNumber = newSerialNumber();
  const revocationDate = new Date(Math.floor(Date.now() / 1000) * 1000 - 60_000);
  const tbs = crlTbs(home, 1n, {
    entries: [{ serialNumber, revocationDate, reason: "keyCompromise" }],
  });
  await logAndSign(home, keeper, log, tbs, { operation: "crl" });
  await keeper.close();
  const again = await start();
  await expect(logAndSign(home, again, log, leafTbs(home, { serialNumber }))).rejects.toEqual(
    refused("grant-mismatch", /last CRL revokes/),
  );
});

// The head

const digest = digestOf(Buffer.alloc(0));

test.for<{ name: string; change: Partial<KeeperState> }>([
  { name: "a statement about requesters", change: { requesters: { sequence: 1, digest } } },
  { name: "a CRL", change: { lists: { ["00".repeat(32)]: { number: "1", crl: digest } } } },
  { name: "a used digest", change: { digests: { ["00".repeat(32)]: [digest] } } },
  {
    name: "a held key",
    change: {
      held: {
        ["00".repeat(32)]: { operator: "alice", at: "2026-11-21T20:03:00Z", statement: digest },
      },
    },
  },
  {
    name: "signatures of the last hour",
    change: { hours: { ["00".repeat(32)]: { at: "2026-11-21T20:03:00Z", reserved: 1 } } },
  },
])("beside a state with $name no new head is made", async ({ change }) => {
  writeState(change);
  const crl = `${home.stateFile}.${"00".repeat(32)}.1.crl`;
  writeFileSync(crl, "");
  const keeper = await start();
  expect((await keeper.status()).head).toBe("missing");
  await expect(keeper.initialise()).rejects.toEqual(refused("rolled-back", /head file is missing/));
  rmSync(crl);
});

test("when the head file of a log with a CRL is lost, no new one is made", async () => {
  const { keeper, log } = await startNew();
  await logAndSign(home, keeper, log, crlTbs(home, 1n), { operation: "crl" });
  await keeper.close();
  rmSync(home.headFile);
  const again = await start();
  await expect(again.initialise()).rejects.toEqual(refused("rolled-back", /head file is missing/));
});

test("a keeper that was started and ended before its log began can begin it", async () => {
  await (await start()).close();
  const keeper = await start();
  expect((await keeper.initialise()).size).toBe(0);
});

// PINs

test("a PIN is not tried while the state file cannot be written, and is when it can", async () => {
  blockState();
  const keeper = await start();
  expect(await keyStatus(keeper)).toMatchObject({
    state: "unavailable",
    detail: expect.stringMatching(/no PIN is tried without it/),
  });
  expect(signerPids()).toEqual([]);
  freeState();
  await expect.poll(() => keyState(keeper), { timeout: 20_000 }).toBe("open");
});

test("signers that end while they open the token are two, and then the PIN file must change", async () => {
  const killed = new Set<number>();
  const killer = setInterval(() => {
    for (const parent of pidsOf("keeper", process.pid)) {
      for (const pid of pidsOf("signer", parent)) {
        if (!killed.has(pid)) process.kill(pid, "SIGKILL");
        killed.add(pid);
      }
    }
  }, 5);
  try {
    const keeper = await start();
    await expect
      .poll(async () => (await keyStatus(keeper)).detail, { timeout: 20_000 })
      .toMatch(/2 signers in a row ended/);
    await keeper.close();
  } finally {
    clearInterval(killer);
  }
  expect(killed.size).toBe(2);
  const again = await start();
  expect(await keyStatus(again)).toMatchObject({
    state: "unavailable",
    detail: expect.stringMatching(/2 signers in a row/),
  });
  expect(signerPids()).toEqual([]);
  await again.close();
  utimesSync(home.pinFile, new Date(), new Date());
  const last = await start();
  expect(await keyState(last)).toBe("open");
  expect(state().triedPins).toEqual({});
});

test("one signer that ended while it opened the token leaves one try, and a PIN that is right takes it", async () => {
  const { keeper } = await startNew();
  process.kill(signerPids()[0]!, "SIGKILL"); // an open one: it has said what the token said
  await expect.poll(() => keyState(keeper), { timeout: 20_000 }).toBe("open");
  process.kill(signerPids()[0]!, "SIGKILL");
  await expect.poll(() => keyState(keeper), { timeout: 20_000 }).toBe("open");
  expect(state().triedPins).toEqual({});
});

test("a keeper that cannot write its state ends in order", async () => {
  const keeper = await startInProcess();
  await keeper.sign({ tbs: leafTbs(home), logged: true });
  blockState();
  expect(() => keeper.keeper.stop()).not.toThrow();
  inside = [];
  freeState();
});

// Signers that say nothing

test(
  "a signer that does not answer is unavailable, and is ended and replaced",
  { timeout: 90_000 },
  async () => {
    const { keeper, log } = await startNew();
    const [signer] = signerPids();
    process.kill(signer!, "SIGSTOP");
    const asked = performance.now();
    const lost = logAndSign(home, keeper, log, leafTbs(home));
    const outcome = expect(lost).rejects.toEqual(refused("token-unavailable", /did not answer/));
    await expect
      .poll(() => keyStatus(keeper), { timeout: 10_000 })
      .toMatchObject({ state: "unavailable", detail: "the signer does not answer" });
    await outcome;
    expect(performance.now() - asked).toBeGreaterThan(15_000);
    await expect.poll(() => isAlive(signer!)).toBe(false);
    await expect.poll(() => keyState(keeper), { timeout: 20_000 }).toBe("open");
    await expect(logAndSign(home, keeper, log, leafTbs(home))).resolves.toBeInstanceOf(Uint8Array);
  },
);

// Statements that pile up

test("statements about requesters that are shown without an end are refused, and forgotten", async () => {
  const keeper = await startInProcess();
  const octets = Buffer.alloc(8 * 1024 * 1024 - 4096, 0x20);
  const show = async (): Promise<FromKeeper> =>
    (
      await keeper.ask(
        { type: "requesters", statements: [[octets.length, 0]], last: false },
        octets,
      )
    ).message;
  for (let round = 0; round < 2; round++) {
    for (let frame = 0; frame < 8; frame++) expect(await show()).toMatchObject({ type: "done" });
    expect(await show()).toMatchObject({ type: "refused", code: "statement-malformed" });
  }
  const none = Array.from({ length: 500 }, (): [number, number] => [0, 0]);
  const answers = new Set<string>();
  for (let frame = 0; frame < 600; frame++) {
    answers.add(
      (await keeper.ask({ type: "requesters", statements: none, last: false })).message.type,
    );
  }
  expect(answers, "empty ones too").toContain("refused");
});

// Reservations

test("a reservation is renewed after five minutes, so that one from before the hour is known to be used up", async () => {
  home.configure((config) => {
    (config.keys[0]!.grant as { signaturesPerHour: number }).signaturesPerHour = 1000;
  });
  const keeper = await startInProcess();
  const hour = (): { at: string; reserved: number } => state().hours[home.keyId]!;
  const sign = (): Promise<FromKeeper> => keeper.sign({ tbs: leafTbs(home), logged: true });
  const first = keeper.now;
  await sign();
  expect(hour()).toEqual({ at: first.toISOString(), reserved: 51 });
  keeper.now = new Date(first.getTime() + 299_000);
  await sign();
  expect(hour(), "within the five minutes").toEqual({ at: first.toISOString(), reserved: 51 });
  keeper.now = new Date(first.getTime() + 300_000);
  await sign();
  expect(hour()).toEqual({ at: keeper.now.toISOString(), reserved: 53 });
});

// What is no message

test.for<{ name: string; body: string }>([
  { name: "is no JSON", body: "rubbish" },
  { name: "lacks a member", body: '{"shareSet":"a note"}' },
  { name: "has a member more", body: '{"shareSet":"a note","confirmations":[],"also":1}' },
  {
    name: "has octets that are not base64",
    body: '{"shareSet":"","confirmations":[{"statement":"=","signature":""}]}',
  },
])("ST-58: a body that $name is no message, and ends the keeper", async ({ body }) => {
  const { keeper } = await startInProcess();
  expect(() => keeper.receive({ type: "activate", id: 1 }, Buffer.from(body))).toThrow(RangeError);
});
