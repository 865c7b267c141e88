import { createPublicKey, randomBytes, verify } from "node:crypto";
import { chmodSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { Json } from "../../src/audit/canonical-json.ts";
import { openCheckpoint } from "../../src/audit/checkpoint.ts";
import { leafHash } from "../../src/audit/merkle.ts";
import type { CountersignError } from "../../src/errors.ts";
import { refused } from "../support/refused.ts";
import {
  home,
  keeperPid,
  keyState,
  signerPids,
  start,
  startNew,
  useKeeperHome,
} from "./keeper-fixture.ts";
import {
  crlTbs,
  digestOf,
  intentFor,
  isAlive,
  leafTbs,
  logAndSign,
  someEntry,
  statement,
  type KeeperSettings,
  type TestLog,
} from "./keeper-home.ts";
import { makeSshKey, sshSign } from "../support/people.ts";

useKeeperHome();

function signerPid(): number {
  return signerPids()[0]!;
}

// The head

test("a keeper without a head file makes one only when it is told to", async () => {
  const keeper = await start();
  expect((await keeper.status()).head).toBe("missing");
  await expect(keeper.append(0, [leafHash(someEntry())])).rejects.toEqual(refused("head-missing"));
  expect(existsSync(home.headFile)).toBe(false);
  expect((await keeper.initialise()).size).toBe(0);
  await expect(keeper.initialise()).rejects.toEqual(refused("rolled-back"));
});

test("append signs the checkpoint of what it was given, and status tells the head", async () => {
  const { keeper, log } = await startNew();
  const first = log.add(someEntry(), someEntry(), someEntry());
  const head = await keeper.append(first, log.leaves.slice(first).map(leafHash));
  const status = await keeper.status();
  expect(head.size).toBe(4);
  expect(Buffer.from(head.root)).toEqual(Buffer.from(log.range.root()));
  expect(openCheckpoint(head.note, status.logKey)).toMatchObject({
    origin: "test.example/audit",
    size: 4,
  });
  expect(status.head).toEqual({ size: 4, root: Buffer.from(head.root) });
});

test("append without leaves answers with the head as it is", async () => {
  const { keeper } = await startNew();
  expect((await keeper.append(1, [])).size).toBe(1);
});

test.for([0, 2])(
  "append from index %i, which does not extend a head of 1, is refused",
  async (first) => {
    const { keeper } = await startNew();
    const other = leafHash(Buffer.from("another"));
    await expect(keeper.append(first, [other])).rejects.toEqual(refused("rolled-back"));
    expect((await keeper.status()).head).toMatchObject({ size: 1 });
  },
);

test("an append of more leaves than a frame holds is one append", async () => {
  const { keeper } = await startNew();
  const leaves = Array.from({ length: 70_000 }, () => randomBytes(32));
  expect((await keeper.append(1, leaves)).size).toBe(70_001);
});

test("the head is on disk before its checkpoint is handed out, and a restart goes on from it", async () => {
  const { keeper, log } = await startNew();
  const note = (await keeper.append(1, [])).note;
  expect(readFileSync(home.headFile, "latin1")).toContain(note.split("\n")[2]);
  await keeper.close();
  const again = await start();
  expect((await again.status()).head).toMatchObject({ size: 1 });
  await log.append(again, someEntry());
  const tbs = leafTbs(home);
  await expect(logAndSign(home, again, log, tbs)).resolves.toBeInstanceOf(Uint8Array);
});

test("a keeper killed between two appends has the last head that it signed", async () => {
  const { keeper, log } = await startNew();
  for (let count = 0; count < 5; count++) await log.append(keeper, someEntry());
  process.kill(keeperPid(), "SIGKILL");
  expect(await keeper.ended).toBeInstanceOf(Error);
  const again = await start();
  expect((await again.status()).head).toMatchObject({ size: 6 });
});

test("a head file that another made unreadable keeps the keeper from starting", async () => {
  const { keeper } = await startNew();
  await keeper.close();
  writeFileSync(home.headFile, "rubbish");
  await expect(home.start()).rejects.toEqual(refused("rolled-back", /head file is damaged/));
});

test("a missing state file beside a head keeps the keeper from starting: it may have held keys", async () => {
  const { keeper } = await startNew();
  await keeper.close();
  rmSync(home.stateFile);
  await expect(home.start()).rejects.toEqual(refused("rolled-back", /state file is missing/));
});

// Signing

test("requests of one turn of the event loop are signed in one frame, in the order of append and sign", async () => {
  const { keeper, log } = await startNew();
  const all = Array.from({ length: 40 }, () => leafTbs(home));
  // Not awaited in between: the order of the calls is what counts.
  const signatures = await Promise.all(all.map((tbs) => logAndSign(home, keeper, log, tbs)));
  const key = createPublicKey({
    key: Buffer.from(home.token.publicKey),
    format: "der",
    type: "spki",
  });
  for (const [index, signature] of signatures.entries()) {
    expect(verify("sha256", all[index]!, key, signature)).toBe(true);
  }
});

test("a key that the configuration does not have is unknown", async () => {
  const { keeper } = await startNew();
  const request = {
    operation: "certificate",
    intentIndex: 0,
    intent: someEntry(),
    tbs: someEntry(),
  } as const;
  await expect(keeper.sign({ ...request, keyId: "00".repeat(32) })).rejects.toEqual(
    refused("key-unknown"),
  );
});

test("a signer that is killed is started again, and what it had in hand is refused", async () => {
  const { keeper, log } = await startNew();
  const signer = signerPid();
  process.kill(signer, "SIGSTOP");
  const tbs = leafTbs(home);
  const intent = intentFor(home, tbs);
  const intentIndex = await log.append(keeper, intent);
  const lost = keeper.sign({
    keyId: home.keyId,
    operation: "certificate",
    intentIndex,
    intent,
    tbs,
  });
  const outcome = expect(lost).rejects.toEqual(refused("token-unavailable"));
  await keeper.append(2, []); // with this answer, the request has reached the keeper
  process.kill(signer, "SIGKILL");
  await outcome;
  await expect.poll(() => keyState(keeper), { timeout: 20_000 }).toBe("open");
  await expect(logAndSign(home, keeper, log, leafTbs(home))).resolves.toBeInstanceOf(Uint8Array);
});

test("a token that goes away is token-unavailable, and comes back without a restart", async () => {
  const { keeper, log } = await startNew();
  await logAndSign(home, keeper, log, leafTbs(home));
  const signer = signerPid();
  renameSync(home.tokens, `${home.tokens}-away`);
  await expect(logAndSign(home, keeper, log, leafTbs(home))).rejects.toEqual(
    refused("token-unavailable"),
  );
  renameSync(`${home.tokens}-away`, home.tokens);
  await expect
    .poll(
      () =>
        logAndSign(home, keeper, log, leafTbs(home)).then(
          () => "signed",
          () => "not yet",
        ),
      {
        timeout: 20_000,
        interval: 300,
      },
    )
    .toBe("signed");
  expect(signerPid()).toBe(signer);
});

test("a keeper with many leaves between two signatures still shows the signer its intent", async () => {
  const { keeper, log } = await startNew();
  const random = Array.from({ length: 5000 }, () => randomBytes(40));
  for (let at = 0; at < random.length; at += 500)
    await log.append(keeper, ...random.slice(at, at + 500));
  await expect(logAndSign(home, keeper, log, leafTbs(home))).resolves.toBeInstanceOf(Uint8Array);
});

test("signatures an hour count also over a restart of signer and keeper", async () => {
  home.configure((config) => {
    (config.keys[0]!.grant as { [name: string]: Json }).signaturesPerHour = 20;
  });
  const { keeper, log } = await startNew();
  for (let count = 0; count < 10; count++) await logAndSign(home, keeper, log, leafTbs(home));
  process.kill(signerPid(), "SIGKILL");
  await expect.poll(() => keyState(keeper), { timeout: 20_000 }).toBe("open");
  expect((await keeper.status()).keys[0]!.signaturesLeft).toBe(10);
  await keeper.close();
  const again = await start();
  // One step of a twentieth is set aside ahead of time.
  expect((await again.status()).keys[0]!.signaturesLeft).toBeLessThanOrEqual(10);
  expect((await again.status()).keys[0]!.signaturesLeft).toBeGreaterThanOrEqual(9);
});

// CRLs

test("a CRL that the service did not live to keep is there, and the next one follows it", async () => {
  const { keeper, log } = await startNew();
  const tbs = crlTbs(home, 1n, { thisUpdate: new Date(Date.now() - 10_000) });
  await logAndSign(home, keeper, log, tbs, { operation: "crl" });
  const { list } = (await keeper.status()).keys[0]!;
  await keeper.close();
  const again = await start();
  const crl = (await again.list(home.keyId))!;
  expect(list).toEqual({ number: 1n, crl: digestOf(crl) });
  // The service knows of no predecessor; the keeper does.
  const next = logAndSign(home, again, log, crlTbs(home, 2n), { operation: "crl" });
  await expect(next).resolves.toBeInstanceOf(Uint8Array);
  expect((await again.status()).keys[0]!.list?.number).toBe(2n);
  expect(existsSync(`${home.stateFile}.${home.keyId}.1.crl`)).toBe(false);
});

// Wrong PINs

test("a wrong PIN is tried once, also across restarts, until the PIN file changes", async () => {
  const pin = readFileSync(home.pinFile);
  try {
    writeFileSync(home.pinFile, "not the pin\n");
    const keeper = await start();
    expect((await keeper.status()).keys[0]).toMatchObject({ state: "unavailable" });
    const request = {
      operation: "certificate",
      intentIndex: 0,
      intent: someEntry(),
      tbs: someEntry(),
    } as const;
    await keeper.initialise();
    await expect(keeper.sign({ ...request, keyId: home.keyId })).rejects.toEqual(
      refused("pin-wrong"),
    );
    await keeper.close();

    const again = await start();
    const [key] = (await again.status()).keys;
    expect(key).toMatchObject({
      state: "unavailable",
      detail: expect.stringMatching(/has not changed since/),
    });
    expect(signerPids()).toEqual([]);
    await again.close();
  } finally {
    writeFileSync(home.pinFile, pin);
  }
  expect(await keyState(await start())).toBe("open");
});

test("a PIN file that others can read is not used", async () => {
  chmodSync(home.pinFile, 0o644);
  try {
    const keeper = await start();
    expect((await keeper.status()).keys[0]).toMatchObject({
      state: "unavailable",
      detail: expect.stringMatching(/chmod 600/),
    });
  } finally {
    chmodSync(home.pinFile, 0o600);
  }
});

// What operators sign

function lockStatement(log: TestLog, change: { [name: string]: Json } = {}): Uint8Array {
  return statement({
    type: "countersign/lock/v1",
    operator: "alice",
    at: new Date().toISOString(),
    keyId: home.keyId,
    log: log.head,
    ...change,
  });
}

test("ST-51: a key that one operator locks is held at once, and stays held over restarts", async () => {
  const { keeper, log } = await startNew();
  const signer = signerPid();
  const lock = lockStatement(log);
  await keeper.lock(lock, home.signed("countersign-lock@v1", lock));
  await expect.poll(() => isAlive(signer)).toBe(false); // the system takes its time over a process
  expect(await keyState(keeper)).toBe("held");
  await expect(logAndSign(home, keeper, log, leafTbs(home))).rejects.toEqual(refused("key-held"));
  await keeper.close();
  const again = await start();
  expect(await keyState(again)).toBe("held");
  expect(signerPids()).toEqual([]);
  await expect(logAndSign(home, again, log, leafTbs(home))).rejects.toEqual(refused("key-held"));
});

test.for<{
  name: string;
  change?: { [name: string]: Json };
  namespace?: string;
  code: CountersignError["code"];
}>([
  { name: "for another purpose", namespace: "git", code: "signature-invalid" },
  {
    name: "of an operator that is not listed",
    change: { operator: "mallory" },
    code: "operator-unknown",
  },
  {
    name: "with another type",
    change: { type: "countersign/panic/v1" },
    code: "statement-malformed",
  },
  { name: "with an extra field", change: { until: "tomorrow" }, code: "statement-malformed" },
  { name: "of another day", change: { at: "2020-01-01T00:00:00Z" }, code: "statement-stale" },
  {
    name: "with a head that never was",
    change: { log: { size: 1, root: Buffer.alloc(32).toString("base64") } },
    code: "statement-stale",
  },
  {
    name: "with a head of later",
    change: { log: { size: 9, root: Buffer.alloc(32).toString("base64") } },
    code: "statement-stale",
  },
  { name: "for another key", change: { keyId: "00".repeat(32) }, code: "key-unknown" },
])(
  "a lock statement $name is refused",
  async ({ change, namespace = "countersign-lock@v1", code }) => {
    const { keeper, log } = await startNew();
    const lock = lockStatement(log, change);
    await expect(keeper.lock(lock, home.signed(namespace, lock))).rejects.toEqual(refused(code));
    expect(await keyState(keeper)).toBe("open");
  },
);

test("ST-33: a lock statement that is not canonical is refused", async () => {
  const { keeper, log } = await startNew();
  const text = Buffer.from(lockStatement(log)).toString();
  for (const other of [
    `${text}\n`,
    text.replace('{"at"', '{ "at"'),
    text.replace("}", ',"__proto__":{}}'),
  ]) {
    const lock = Buffer.from(other);
    const outcome = keeper.lock(lock, home.signed("countersign-lock@v1", lock));
    await expect(outcome).rejects.toEqual(refused("statement-malformed"));
  }
});

function requesterStatement(log: TestLog, change: { [name: string]: Json } = {}): Uint8Array {
  return statement({
    type: "countersign/requester/v1",
    operator: "alice",
    at: "2026-11-21T20:03:00Z",
    sequence: 1,
    previous: null,
    log: log.head,
    action: "set",
    requester: {
      name: "pipeline",
      credentials: [],
      issuers: ["issuing"],
      profiles: ["server"],
      names: { dns: { allow: ["exact:p.example.test"] } },
      revoke: "own",
    },
    ...change,
  });
}

const requesterNamespace = "countersign-requester@v1";

test("a requester that an operator adds may have what it was given, from then on and after a restart", async () => {
  const { keeper, log } = await startNew();
  const tbs = (): Uint8Array =>
    leafTbs(home, { names: [{ kind: "dns", value: "p.example.test" }] });
  const actor = { kind: "requester", id: "pipeline" } as const;
  await expect(logAndSign(home, keeper, log, tbs(), { actor })).rejects.toEqual(
    refused("requester-unknown"),
  );
  const added = requesterStatement(log);
  const signature = home.signed(requesterNamespace, added);
  await keeper.requester(added, signature);
  await expect(logAndSign(home, keeper, log, tbs(), { actor })).resolves.toBeInstanceOf(Uint8Array);
  process.kill(signerPid(), "SIGKILL");
  await expect.poll(() => keyState(keeper), { timeout: 20_000 }).toBe("open");
  await expect(logAndSign(home, keeper, log, tbs(), { actor })).resolves.toBeInstanceOf(Uint8Array);
  await keeper.close();

  const again = await start();
  await again.requesters([{ statement: added, signature }]);
  await expect(logAndSign(home, again, log, tbs(), { actor })).resolves.toBeInstanceOf(Uint8Array);
  const removed = statement({
    type: "countersign/requester/v1",
    operator: "alice",
    at: "2026-11-21T20:03:00Z",
    sequence: 2,
    previous: digestOf(added),
    log: log.head,
    action: "remove",
    name: "pipeline",
  });
  await again.requester(removed, home.signed(requesterNamespace, removed));
  await expect(logAndSign(home, again, log, tbs(), { actor })).rejects.toEqual(
    refused("requester-unknown"),
  );
  expect((await again.status()).requesterSequence).toBe(2);
});

test.for<{
  name: string;
  change?: { [name: string]: Json };
  namespace?: string;
  code: CountersignError["code"];
}>([
  { name: "for another purpose", namespace: "countersign-lock@v1", code: "signature-invalid" },
  {
    name: "out of its turn",
    change: { sequence: 2, previous: digestOf(Buffer.alloc(0)) },
    code: "statement-stale",
  },
  { name: "of a stranger", change: { operator: "mallory" }, code: "operator-unknown" },
  { name: "with an extra field", change: { until: "tomorrow" }, code: "statement-malformed" },
  {
    name: "with a head that never was",
    change: { log: { size: 1, root: Buffer.alloc(32).toString("base64") } },
    code: "statement-stale",
  },
  {
    name: "with a head of later",
    change: { log: { size: 9, root: Buffer.alloc(32).toString("base64") } },
    code: "statement-stale",
  },
  {
    name: "for an issuer that the policy does not have",
    change: {
      requester: {
        name: "pipeline",
        credentials: [],
        issuers: ["nowhere"],
        profiles: ["server"],
        names: {},
        revoke: "own",
      },
    },
    code: "policy-invalid",
  },
])(
  "a requester statement $name is refused",
  async ({ change, namespace = requesterNamespace, code }) => {
    const { keeper, log } = await startNew();
    const octets = requesterStatement(log, change);
    await expect(keeper.requester(octets, home.signed(namespace, octets))).rejects.toEqual(
      refused(code),
    );
    expect((await keeper.status()).requesterSequence).toBe(0);
  },
);

test("a requester statement by an operator's other key is refused, by a listed one accepted", async () => {
  const second = `${home.directory}/alice-2-${randomBytes(4).toString("hex")}`;
  const [alice] = home.people.operators;
  const keys = [{ kind: "ssh" as const, key: makeSshKey(second) }, ...alice!.keys];
  home.found({ operators: [{ ...alice!, keys }] });
  const { document, signatures } = home.versions[0]!;
  const signature = sshSign(second, "countersign-roster@v1", document);
  home.versions = [{ document, signatures: [...signatures, { operator: "alice", signature }] }];
  const { keeper, log } = await startNew();
  const octets = requesterStatement(log);
  const stranger = `${home.directory}/mallory-${randomBytes(4).toString("hex")}`;
  makeSshKey(stranger);
  await expect(
    keeper.requester(octets, sshSign(stranger, requesterNamespace, octets)),
  ).rejects.toEqual(refused("signature-invalid"));
  await keeper.requester(octets, home.signed(requesterNamespace, octets));
});

test("ST-73: statements about requesters that end before those the keeper took are rolled back", async () => {
  const { keeper, log } = await startNew();
  const first = requesterStatement(log);
  const second = requesterStatement(log, { sequence: 2, previous: digestOf(first) });
  const other = requesterStatement(log, {
    sequence: 2,
    previous: digestOf(first),
    at: "2026-11-21T20:04:00Z",
  });
  const signed = (octets: Uint8Array): { statement: Uint8Array; signature: string } => ({
    statement: octets,
    signature: home.signed(requesterNamespace, octets),
  });
  await keeper.requester(first, signed(first).signature);
  await keeper.requester(second, signed(second).signature);
  await keeper.close();
  for (const chain of [[], [first], [second], [first, other], [first, first]]) {
    const again = await start();
    await expect(again.requesters(chain.map(signed))).rejects.toEqual(refused("rolled-back"));
    await again.close();
  }
  const again = await start();
  const third = requesterStatement(log, { sequence: 3, previous: digestOf(second) });
  await again.requesters([first, second, third].map(signed)); // written, but the keeper had not heard of it
  expect((await again.status()).requesterSequence).toBe(3);
});

test("until the statements about requesters are shown, a restarted keeper has CRLs signed and no certificates", async () => {
  const { keeper, log } = await startNew();
  const added = requesterStatement(log);
  const removed = statement({
    type: "countersign/requester/v1",
    operator: "alice",
    at: "2026-11-21T20:03:00Z",
    sequence: 2,
    previous: digestOf(added),
    log: log.head,
    action: "remove",
    name: "web", // which the policy file has
  });
  const shown = [added, removed].map((octets) => ({
    statement: octets,
    signature: home.signed(requesterNamespace, octets),
  }));
  for (const { statement: octets, signature } of shown) await keeper.requester(octets, signature);
  await keeper.close();

  const again = await start();
  const byWeb = (): Promise<Uint8Array> => logAndSign(home, again, log, leafTbs(home));
  await expect(byWeb()).rejects.toEqual(refused("rolled-back", /not shown/));
  await expect(again.requesters(shown.slice(0, 1))).rejects.toEqual(refused("rolled-back"));
  await expect(byWeb()).rejects.toEqual(refused("rolled-back", /not shown/));
  const third = requesterStatement(log, { sequence: 3, previous: digestOf(removed) });
  await expect(
    again.requester(third, home.signed(requesterNamespace, third)),
    "nor is one taken before they are shown",
  ).rejects.toEqual(refused("rolled-back", /not shown/));
  await expect(
    logAndSign(home, again, log, crlTbs(home, 1n), { operation: "crl" }),
  ).resolves.toBeInstanceOf(Uint8Array);
  await again.requesters(shown);
  await expect(byWeb()).rejects.toEqual(refused("requester-unknown"));
});

test("statements that the keeper has not taken are verified when they are shown", async () => {
  const { keeper, log } = await startNew();
  const octets = requesterStatement(log);
  const outcome = keeper.requesters([{ statement: octets, signature: home.signed("git", octets) }]);
  await expect(outcome).rejects.toEqual(refused("signature-invalid"));
  expect((await keeper.status()).requesterSequence).toBe(0);
});

// Configuration

test.for<{ name: string; change: (config: { [name: string]: Json }) => void; detail: RegExp }>([
  { name: "an unknown setting", change: (config) => (config.pins = "here"), detail: /pins/ },
  {
    name: "a genesis that is no digest",
    change: (config) => (config.genesis = "sha256:1234"),
    detail: /genesis/,
  },
  {
    name: "a token without a key in it",
    change: (config) => {
      delete (config as KeeperSettings).keys[0]!.uri;
    },
    detail: /keys\.0: module and uri/,
  },
  {
    name: "a PIN file without a grant",
    change: (config) => {
      delete (config as KeeperSettings).keys[0]!.grant;
    },
    detail: /keys\.0: a grant goes with a pinFile/,
  },
  {
    name: "a sealed key that nothing names",
    change: (config) => (config.keys = [{ issuer: "root" }]),
    detail: /keys\.0\.keyId/,
  },
  {
    name: "a certificate of another key than the one named",
    change: (config) => {
      (config as KeeperSettings).keys[0]!.keyId = "00".repeat(32);
    },
    detail: /keys\.0\.keyId/,
  },
  {
    name: "a missing log key",
    change: (config) => (config.logKey = "none.key"),
    detail: /logKey.*ENOENT/,
  },
  {
    name: "a standing grant without a certificate",
    change: (config) => {
      delete (config as KeeperSettings).keys[0]!.certificate;
    },
    detail: /keys\.0\.certificate/,
  },
  {
    name: "a key that is a certificate",
    change: (config) => (config.logKey = "issuing.pem"),
    detail: /logKey/,
  },
])("config-invalid: $name keeps the keeper from starting", async ({ change, detail }) => {
  home.configure(change);
  await expect(home.start()).rejects.toEqual(refused("config-invalid", detail));
});

test("a log key that others can read keeps the keeper from starting", async () => {
  chmodSync(`${home.directory}/log.key`, 0o640);
  try {
    await expect(home.start()).rejects.toEqual(refused("config-invalid", /chmod 600/));
  } finally {
    chmodSync(`${home.directory}/log.key`, 0o600);
  }
});

test("a policy that was not granted keeps the key closed", async () => {
  home.configure((config) => {
    (config.keys[0]!.grant as { [name: string]: Json }).policy = digestOf(Buffer.from("another"));
  });
  const keeper = await start();
  expect((await keeper.status()).keys[0]).toMatchObject({
    state: "unavailable",
    detail: expect.stringMatching(/for another policy/),
  });
});

// What an hour's grant has left

test("ST-49: a keeper that ends in order keeps what was counted, and gives back what was reserved and not used", async () => {
  const limit = 40;
  home.configure((config) => {
    (config.keys[0]!.grant as { [name: string]: Json }).signaturesPerHour = limit;
  });
  const { keeper, log } = await startNew();
  await logAndSign(home, keeper, log, leafTbs(home));
  await keeper.close();
  const second = await start();
  await expect.poll(() => keyState(second)).toBe("open");
  expect((await second.status()).keys[0]!.signaturesLeft).toBe(limit - 1);
  await logAndSign(home, second, log, leafTbs(home));
  process.kill(keeperPid(), "SIGKILL");
  await second.ended;
  const third = await start();
  await expect.poll(() => keyState(third)).toBe("open");
  // Killed: the whole reservation counts, a twentieth of an hour's beyond what was made.
  expect((await third.status()).keys[0]!.signaturesLeft).toBe(limit - 1 - 1 - limit / 20);
});
