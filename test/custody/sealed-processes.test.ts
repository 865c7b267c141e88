import { execFileSync, type ChildProcess } from "node:child_process";
import { closeSync, openSync, readFileSync, readSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { startDealer, type DealtByProcess } from "../../src/custody/dealer-process.ts";
import { startOpenedSigner } from "../../src/custody/opened-signer.ts";
import { mainModule, startProcess, type ProcessKind } from "../../src/custody/process-flags.ts";
import { openShareFile } from "../../src/custody/sealed/share-file.ts";
import { recoverKek } from "../../src/custody/sealed/shamir.ts";
import { startUnlocker } from "../../src/custody/unlocker-process.ts";
import { encodePem } from "../../src/x509/pem.ts";
import { refused } from "../support/refused.ts";
import { digestOf, isAlive } from "./keeper-home.ts";
import {
  agreementOf,
  beginUnlock,
  dealByProcess,
  FollowedLog,
  logAndSign,
  openingFor,
  publicKeyOf,
  rootTbs,
  submitAll,
  type OpenUnlock,
} from "./opened-key.ts";
import { names, SealedHome } from "./sealed-home.ts";

let people: SealedHome;
/** Two of three. */
let dealt: DealtByProcess;
beforeAll(async () => {
  people = new SealedHome();
  dealt = await dealByProcess(people.plan(2, 3));
});
afterAll(() => people.remove());

/** An unlock whose processes end with the test. */
async function begin(
  of: DealtByProcess = dealt,
  log = new FollowedLog(),
  changes: Parameters<typeof beginUnlock>[3] = {},
): Promise<OpenUnlock & { readonly log: FollowedLog }> {
  const open = await beginUnlock(people, of, log, changes);
  onTestFinished(() => {
    open.unlocker.kill();
    open.signer.kill();
  });
  return { ...open, log };
}

test.for(["P-256", "P-384", "RSA-2048", "RSA-4096", "Ed25519"] as const)(
  "a %s key is dealt to three, opened by two, and signs what OpenSSL verifies",
  async (generate) => {
    const plan = people.plan(2, 3, { key: { generate } });
    const made = await dealByProcess(plan);
    const { log, ...open } = await begin(made);
    await submitAll(people, open, ["carol", "alice"]);
    await open.unlocker.open(agreementOf(people, open.stated));
    const tbs = rootTbs(publicKeyOf(made));
    const { publicKey } = await open.signer.open(() => openingFor(made, log, [tbs]));
    expect(digestOf(publicKey)).toBe(`sha256:${made.shareSet.keyId}`);
    const signature = await logAndSign(open.signer, log, publicKey, tbs);
    const at = (name: string): string => join(people.directory, name);
    writeFileSync(at("key.pem"), encodePem("PUBLIC KEY", publicKey));
    writeFileSync(at("tbs"), tbs);
    writeFileSync(at("signature"), signature);
    const digest =
      generate === "Ed25519" ? [] : ["-digest", generate === "P-384" ? "sha384" : "sha256"];
    const verified = execFileSync("openssl", [
      ...["pkeyutl", "-verify", "-pubin", "-inkey", at("key.pem"), "-rawin", ...digest],
      ...["-in", at("tbs"), "-sigfile", at("signature")],
    ]);
    expect(verified.toString()).toContain("Signature Verified Successfully");
    expect(await open.unlocker.ended).toBe("opened");
    open.signer.kill();
    expect(await open.signer.ended).toBe("killed");
  },
);

const tbsOfNothing = Buffer.alloc(1);

/** The memory of a process that it can write, as the kernel gives it. */
function* memoryOf(pid: number): Generator<Buffer> {
  const memory = openSync(`/proc/${pid}/mem`, "r");
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")) {
      const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line) ?? [];
      if (from === undefined) continue;
      const start = Number.parseInt(from, 16);
      const piece = Buffer.allocUnsafeSlow(Number.parseInt(to!, 16) - start);
      let filled = 0;
      try {
        while (filled < piece.length) {
          const count = readSync(memory, piece, filled, piece.length - filled, start + filled);
          if (count === 0) break;
          filled += count;
        }
      } catch {
        // Pages that nobody has touched, or that the kernel keeps to itself.
      }
      yield piece.subarray(0, filled);
    }
  } finally {
    closeSync(memory);
  }
}

test("ST-8: the signer's memory holds no KEK, share or PKCS#8, in no form that the package leaves", async () => {
  const { signer, unlocker, stated, log } = await begin();
  await submitAll(people, { unlocker, stated }, ["alice", "bob"]);
  const tbs = rootTbs(publicKeyOf(dealt));
  // Its memory before, which holds the shares: they are encrypted there, and the recipient is not.
  await unlocker.open(agreementOf(people, stated));
  const { publicKey } = await signer.open(() => openingFor(dealt, log, [tbs]));
  await logAndSign(signer, log, publicKey, tbs);
  const points = await Promise.all(
    names
      .slice(0, 2)
      .map((who, place) => openShareFile(dealt.files[place]!, people.ageIdentity(who))),
  );
  const kek = recoverKek(points, dealt.shareSet);
  const forms = (octets: Uint8Array): Buffer[] => {
    const bits = [...octets].map((octet) => octet.toString(2).padStart(8, "0")).join("");
    const hex = Buffer.from(octets).toString("hex");
    return [
      Buffer.from(octets),
      Buffer.from(octets).reverse(),
      ...[hex, bits].flatMap((text) => [Buffer.from(text), Buffer.from(text, "utf16le")]),
    ];
  };
  const needles = [kek, ...points.map(({ y }) => y)].flatMap(forms);
  // What it does hold shows that the search finds things.
  const control = Buffer.from(dealt.shareSet.keyId);
  let controls = 0;
  for (const piece of memoryOf(signer.pid!)) {
    if (piece.includes(control)) controls++;
    for (const [place, needle] of needles.entries()) {
      expect(piece.includes(needle), `needle ${place}`).toBe(false);
    }
    // A P-256 key in PKCS#8, around its 32 secret octets.
    expect(piece.includes(Buffer.from("308187020100301306072a8648ce3d0201", "hex"))).toBe(false);
  }
  expect(controls).toBeGreaterThan(0);
});

test("the keeper's end of the hand-off is given away: it can neither write to it nor read from it", async () => {
  const { signer } = await begin();
  expect(signer.handOff.destroyed).toBe(true);
});

test("ST-37: asked twice at once, an unlocker opens once", async () => {
  const { unlocker, stated } = await begin();
  await submitAll(people, { unlocker, stated }, ["alice", "bob"]);
  const agreement = agreementOf(people, stated);
  const asked = await Promise.allSettled([unlocker.open(agreement), unlocker.open(agreement)]);
  expect(asked.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
  expect(await unlocker.ended).toBe("opened");
  const { signed, share } = people.submission(stated, "carol");
  await expect(unlocker.submit(signed, share)).rejects.toEqual(refused("unlock-closed"));
});

test("ST-38: after its time to gather an unlocker has ended by itself", async () => {
  const signer = startOpenedSigner({ log: new FollowedLog().feed, statements: () => [] });
  onTestFinished(() => signer.kill());
  const unlocker = startUnlocker({ handOff: signer.handOff, gatherSeconds: 1 });
  await unlocker.begin();
  expect(await unlocker.ended).toBe("expired");
  await expect.poll(() => isAlive(unlocker.pid!)).toBe(false);
  const nothing = { statement: new Uint8Array(0), signature: "" };
  await expect(unlocker.submit(nothing, new Uint8Array(0))).rejects.toEqual(
    refused("unlock-closed", /time to gather/),
  );
});

test("ST-39: an unlocker whose votes are not enough refuses to open, and gathers on", async () => {
  const { unlocker, signer, stated, log } = await begin();
  await submitAll(people, { unlocker, stated }, ["alice", "bob"]);
  const few = agreementOf(people, stated, ["dora"]);
  await expect(unlocker.open(few)).rejects.toEqual(refused("ceremony-refused"));
  const operators = people.operators.slice(1);
  const without = [
    ...people.versions,
    people.nextVersion({ operators }, ["alice", "bob", "carol"]),
  ];
  await expect(
    unlocker.open({ ...agreementOf(people, stated, ["dora", "erin"]), rosters: without }),
  ).rejects.toEqual(refused("ceremony-refused"));
  await unlocker.open(agreementOf(people, stated, ["dora", "erin"]));
  const tbs = rootTbs(publicKeyOf(dealt));
  await signer.open(() => openingFor(dealt, log, [tbs]));
});

test("what an unlocker cannot follow back to the genesis ends it", async () => {
  const signer = startOpenedSigner({ log: new FollowedLog().feed, statements: () => [] });
  onTestFinished(() => signer.kill());
  const unlocker = startUnlocker({ handOff: signer.handOff, gatherSeconds: 600 });
  const { state } = people.unlock(dealt, await unlocker.begin());
  await expect(unlocker.state({ ...state, genesis: `sha256:${"0".repeat(64)}` })).rejects.toEqual(
    refused("roster-invalid"),
  );
  expect(await unlocker.ended).toBe("ended");
  await expect(
    signer.open(() => openingFor(dealt, new FollowedLog(), [tbsOfNothing])),
  ).rejects.toThrow(/not handed over/);
  expect(await signer.ended).toBe("ended");
});

test("ST-36, ST-42: a thousand unsigned submissions and some too long ones leave an unlocker as it was", async () => {
  const { unlocker, stated } = await begin();
  const { signed, share } = people.submission(stated, "bob");
  const junk = {
    ...signed,
    signature: people.sign("carol", "submission", Buffer.from(signed.statement)),
  };
  const outcomes = await Promise.allSettled(
    Array.from({ length: 1000 }, async () => unlocker.submit(junk, share)),
  );
  const reasons = outcomes.flatMap((one) =>
    one.status === "rejected" ? [one.reason as unknown] : [],
  );
  expect(reasons).toHaveLength(1000);
  expect(reasons).toEqual(reasons.map(() => refused("submission-unsigned")));
  for (const octets of [8 * 1024 + 1, 64 * 1024]) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await expect(unlocker.submit(signed, Buffer.alloc(octets))).rejects.toEqual(
      refused("share-malformed"),
    );
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await expect(
      unlocker.submit({ ...signed, statement: Buffer.alloc(octets) }, share),
    ).rejects.toEqual(refused("submission-malformed"));
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await expect(
      unlocker.submit({ ...signed, signature: "A".repeat(octets) }, share),
    ).rejects.toEqual(refused("submission-malformed"));
  }
  expect(await unlocker.submit(signed, share)).toEqual({ given: ["bob"], missing: 1 });
});

test("ST-49: an unlocker that is killed loses the shares and nothing else, and its signer never opens", async () => {
  const { unlocker, signer, stated } = await begin();
  await submitAll(people, { unlocker, stated }, ["alice"]);
  process.kill(unlocker.pid!, "SIGKILL");
  expect(await unlocker.ended).toBe("ended");
  const { signed, share } = people.submission(stated, "bob");
  await expect(unlocker.submit(signed, share)).rejects.toEqual(
    refused("unlock-closed", /submit the shares again/),
  );
  await expect(
    signer.open(() => openingFor(dealt, new FollowedLog(), [tbsOfNothing])),
  ).rejects.toThrow(/not handed over/);
});

test("an unlocker is not started for a signer that has ended", async () => {
  const signer = startOpenedSigner({ log: new FollowedLog().feed, statements: () => [] });
  signer.kill();
  expect(await signer.ended).toBe("killed");
  expect(() => startUnlocker({ handOff: signer.handOff, gatherSeconds: 600 })).toThrow(
    refused("token-unavailable") as Error,
  );
});

test("a signer that is told of another key than it was handed does not open", async () => {
  const { unlocker, signer, stated, log } = await begin();
  await submitAll(people, { unlocker, stated }, ["alice", "bob"]);
  await unlocker.open(agreementOf(people, stated));
  const sealed = { payload: "pkcs8", keyId: "0".repeat(64) } as const;
  await expect(
    signer.open(() =>
      openingFor(dealt, log, [], { sealed, grant: { digests: [digestOf(Buffer.alloc(1))] } }),
    ),
  ).rejects.toEqual(refused("sealed-key-corrupt"));
  expect(await signer.ended).toBe("ended");
  await expect(signer.signaturesLeft()).rejects.toEqual(refused("key-locked"));
});

test("ST-49: a signer that is killed is locked, and does not start again", async () => {
  const { unlocker, signer, stated, log } = await begin();
  await submitAll(people, { unlocker, stated }, ["alice", "bob"]);
  await unlocker.open(agreementOf(people, stated));
  const tbs = rootTbs(publicKeyOf(dealt));
  const { publicKey } = await signer.open(() => openingFor(dealt, log, [tbs]));
  expect(await signer.signaturesLeft()).toBe(1);
  process.kill(signer.pid!, "SIGKILL");
  expect(await signer.ended).toBe("ended");
  expect(signer.state).toBe("ended");
  await expect(logAndSign(signer, log, publicKey, tbs)).rejects.toEqual(refused("key-locked"));
});

test("ST-43: a signer whose grant is used up answers, says so, and is gone", async () => {
  const { unlocker, signer, stated, log } = await begin();
  await submitAll(people, { unlocker, stated }, ["alice", "bob"]);
  await unlocker.open(agreementOf(people, stated));
  const tbs = rootTbs(publicKeyOf(dealt));
  const grant = { digests: [digestOf(tbs)], seconds: 900 };
  const { publicKey } = await signer.open(() => openingFor(dealt, log, [], { grant }));
  const [first, second] = await Promise.allSettled([
    logAndSign(signer, log, publicKey, tbs),
    logAndSign(signer, log, publicKey, tbs),
  ]);
  expect(first.status).toBe("fulfilled");
  // It may come while the first is in hand, when that is done, or when the signer has gone.
  expect(second).toMatchObject({
    reason: {
      code: expect.stringMatching(/^(?:grant-mismatch|grant-exceeded|key-locked)$/) as string,
    },
  });
  expect(await signer.ended).toBe("used-up");
  await expect.poll(() => isAlive(signer.pid!)).toBe(false);
  await expect(logAndSign(signer, log, publicKey, tbs)).rejects.toEqual(refused("key-locked"));
});

test("ST-48: a signer whose time is over says so and is gone, though nobody asks it anything", async () => {
  const { unlocker, signer, stated, log } = await begin();
  await submitAll(people, { unlocker, stated }, ["alice", "bob"]);
  await unlocker.open(agreementOf(people, stated));
  const grant = { digests: [digestOf(Buffer.alloc(1))], seconds: 1 };
  await signer.open(() => openingFor(dealt, log, [], { grant }));
  expect(await signer.ended).toBe("expired");
  await expect.poll(() => isAlive(signer.pid!)).toBe(false);
});

/** Who holds the shares of the second epoch. */
const later = ["carol", "dora", "erin"] as const;

test("ST-66: a reshare hands the key to a dealer; new shares open it, and the old ones are stale", async () => {
  const { keyId } = dealt.shareSet;
  const plan = people.plan(3, 3, {
    key: { use: keyId },
    epoch: 2,
    previous: `sha256:${"1".repeat(64)}`,
    custodians: later.map((id) => ({
      operator: id,
      recipient: people.operators.find((operator) => operator.id === id)!.recipient,
      role: "custodian",
    })),
  });
  const dealer = startDealer({});
  const unlocker = startUnlocker({ handOff: dealer.handOff, gatherSeconds: 600 });
  const stated = people.unlock(dealt, await unlocker.begin(), {
    ceremony: { kind: "reshare", artefacts: undefined, plan: digestOf(plan) },
  });
  await unlocker.state(stated.state);
  await submitAll(people, { unlocker, stated }, ["alice", "carol"]);
  await unlocker.open(agreementOf(people, stated, ["dora", "erin"]));
  const publicKey = publicKeyOf(dealt);
  const next = await dealer.deal({
    plan,
    planDigest: digestOf(plan),
    secret: "hand-off",
    publicKey,
  });
  await dealer.ended;
  expect(next.shareSet).toMatchObject({ keyId, epoch: 2, threshold: 3, shareCount: 3 });

  const again = await begin(next);
  const old = people.share(dealt, "carol", again.stated.recipient);
  const stale = people.submission(again.stated, "carol", {
    file: old,
    share: { index: 3, file: digestOf(old) },
  });
  await expect(again.unlocker.submit(stale.signed, stale.share)).rejects.toEqual(
    refused("share-stale"),
  );
  for (const [place, who] of later.entries()) {
    const text = execFileSync("age", ["-d", "-i", people.ageKey(who)], {
      input: next.files[place]!,
    });
    const file = execFileSync("age", ["-r", again.stated.recipient], { input: text });
    const { signed } = people.submission(again.stated, who, {
      file,
      share: { index: place + 1, file: digestOf(file) },
    });
    // oxlint-disable-next-line no-await-in-loop -- as people do
    await again.unlocker.submit(signed, file);
  }
  await again.unlocker.open(agreementOf(people, again.stated, ["alice", "bob"]));
  const tbs = rootTbs(publicKey);
  await again.signer.open(() => openingFor(next, again.log, [tbs]));
  await logAndSign(again.signer, again.log, publicKey, tbs);
});

test("a dealer deals no secret of another key than the plan and the share set say", async () => {
  const { keyId } = dealt.shareSet;
  const other = await dealByProcess(people.plan(2, 3));
  const plan = (use: string): Buffer =>
    people.plan(2, 3, { key: { use }, epoch: 2, previous: `sha256:${"1".repeat(64)}` });
  for (const [use, publicKey] of [
    [other.shareSet.keyId, publicKeyOf(other)],
    [keyId, publicKeyOf(other)],
    [other.shareSet.keyId, publicKeyOf(dealt)],
  ] as const) {
    const dealer = startDealer({});
    const unlocker = startUnlocker({ handOff: dealer.handOff, gatherSeconds: 600 });
    // oxlint-disable no-await-in-loop -- one after the other
    const stated = people.unlock(dealt, await unlocker.begin());
    await unlocker.state(stated.state);
    await submitAll(people, { unlocker, stated }, ["alice", "bob"]);
    await unlocker.open(agreementOf(people, stated));
    const planned = plan(use);
    await expect(
      dealer.deal({ plan: planned, planDigest: digestOf(planned), secret: "hand-off", publicKey }),
    ).rejects.toMatchObject({
      code: expect.stringMatching(/^(?:deal-failed|sealed-key-corrupt)$/) as string,
    });
    await dealer.ended;
    // oxlint-enable no-await-in-loop
  }
});

test.for([
  { name: "a plan of another digest", change: {}, planDigest: `sha256:${"0".repeat(64)}` },
  { name: "a plan for a key in use", change: { key: { use: "0".repeat(64) } } },
  { name: "a plan for a PIN", change: { payload: "pin" } },
  { name: "no plan", change: { type: "countersign/plan/v2" } },
])("ST-61: a dealer without a token deals nothing for $name", async ({ change, planDigest }) => {
  const plan = people.plan(2, 3, change);
  const dealer = startDealer({});
  await expect(
    dealer.deal({ plan, planDigest: planDigest ?? digestOf(plan), secret: "none" }),
  ).rejects.toEqual(refused("plan-invalid"));
  await dealer.ended;
});

test("ST-62: a dealer that is killed at any moment leaves everything or nothing, and has written no file", async () => {
  const plan = people.plan(3, 5, { key: { generate: "RSA-2048" } });
  const attempt = async (killAfter?: number): Promise<"dealt" | "failed"> => {
    const dealer = startDealer({});
    const timer = killAfter === undefined ? undefined : setTimeout(end, killAfter);
    function end(): void {
      // What it wrote until here went to no disk.
      const io = readFileSync(`/proc/${dealer.pid!}/io`, "utf8");
      dealer.kill();
      expect(io).toMatch(/^write_bytes: 0$/m);
    }
    try {
      const made = await dealer.deal({ plan, planDigest: digestOf(plan), secret: "none" });
      expect([made.files.length, made.sealed.length > 1000]).toEqual([5, true]);
      return "dealt";
    } catch (error) {
      expect(error).toEqual(refused("deal-failed"));
      return "failed";
    } finally {
      clearTimeout(timer);
      await dealer.ended;
    }
  };
  const started = performance.now();
  expect(await attempt()).toBe("dealt");
  const whole = performance.now() - started;
  const outcomes: string[] = [];
  for (let step = 0; step < 10; step++) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    outcomes.push(await attempt((whole * step) / 10));
  }
  expect(outcomes).toContain("failed");
});

function frame(header: string, bodyLength = 0): Buffer {
  const prefix = Buffer.alloc(8);
  prefix.writeUInt32BE(Buffer.byteLength(header), 0);
  prefix.writeUInt32BE(bodyLength, 4);
  return Buffer.concat([prefix, Buffer.from(header)]);
}

const kinds = [
  { kind: "dealer", module: "dealer-main.js" },
  { kind: "unlocker", module: "unlocker-main.js" },
  { kind: "signer-software", module: "signer-main.js" },
] as const satisfies readonly { kind: ProcessKind; module: string }[];

function started({ kind, module }: (typeof kinds)[number]): ChildProcess {
  const child = startProcess({
    kind,
    module: mainModule(module),
    environment: {},
    handOff: "read",
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  child.stdio[4]!.on("error", () => {});
  return child;
}

const open = JSON.stringify({ type: "open" });

test.for(
  kinds.flatMap((process) =>
    [
      { name: "an unknown message", bytes: frame('{"type":"getKey","id":1}') },
      { name: "a name too many", bytes: frame('{"type":"begin","gatherSeconds":600,"also":1}') },
      { name: "a message with __proto__", bytes: frame('{"type":"commit","__proto__":{"x":1}}') },
      { name: "a header over 64 KiB", bytes: frame(`{"type":"${"x".repeat(65_536)}"}`) },
      {
        name: "a body over its limit",
        bytes:
          process.kind === "dealer"
            ? frame(
                `{"type":"deal","planDigest":"sha256:${"0".repeat(64)}","secret":{"from":"new"},"plan":1,"publicKey":0}`,
                1024 * 1024 + 1,
              )
            : process.kind === "unlocker"
              ? frame('{"type":"submit","id":1,"statement":1,"signature":1}', 3 * 8 * 1024 + 1)
              : frame(open, 512 * 1024 * 1024),
      },
      {
        name: "a message out of turn",
        bytes: frame(
          {
            dealer: '{"type":"commit"}',
            unlocker: '{"type":"submit","id":1,"statement":0,"signature":0}',
            "signer-software": '{"type":"status","id":1}',
          }[process.kind],
        ),
      },
    ].map((attack) => ({ ...process, ...attack })),
  ),
)("ST-58: $name ends the $kind", async ({ bytes, ...process }) => {
  const child = started(process);
  const exit = new Promise((resolve) => child.once("exit", resolve));
  const socket = child.stdio[3] as Duplex;
  socket.on("error", () => {}); // it ends while we may still be writing
  socket.write(bytes);
  expect(await exit).toBe(1);
});

test.for(kinds)(
  "the $kind ends with its connection, though it is busy with nothing",
  async (process) => {
    const child = started(process);
    const exit = new Promise((resolve) => child.once("exit", resolve));
    (child.stdio[3] as Duplex).end();
    expect(await exit).toBe(0);
  },
);
