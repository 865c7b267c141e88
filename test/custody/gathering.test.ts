import { execFileSync } from "node:child_process";
import { generateKeyPairSync, hash, randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { noteSigner } from "../../src/audit/signed-note.ts";
import type { DealtByProcess } from "../../src/custody/dealer-process.ts";
import {
  beginGathering,
  type Gathering,
  type GatheringState,
} from "../../src/custody/gathering.ts";
import { readPlan, shareSetOctets } from "../../src/custody/plan.ts";
import { deal } from "../../src/custody/sealed/deal.ts";
import {
  newUnlockIdentity,
  SHARE_FILE_LIMIT,
  type UnlockIdentity,
} from "../../src/custody/sealed/share-file.ts";
import type { Signed } from "../../src/custody/statement.ts";
import { SUBMISSION_LIMITS } from "../../src/custody/unlocker-protocol.ts";
import type { ErrorCode } from "../../src/errors.ts";
import { refused } from "../support/refused.ts";
import { digestOf } from "./keeper-home.ts";
import {
  inSeconds,
  SealedHome,
  type Change,
  type Name,
  type UnlockChanges,
  type UnlockStated,
} from "./sealed-home.ts";

let people: SealedHome;
let dealt: DealtByProcess;
let identity: UnlockIdentity;
beforeAll(async () => {
  people = new SealedHome();
  dealt = await dealHere();
  identity = await newUnlockIdentity();
});
afterAll(() => people.remove());

/** Three of five. */
async function dealHere(change: Change = {}): Promise<DealtByProcess> {
  const plan = people.plan(3, 5, change);
  const made = await deal({
    plan: readPlan(plan),
    planDigest: digestOf(plan),
    random: randomBytes,
  });
  return { ...made, shareSetOctets: shareSetOctets(made.shareSet), pending: false };
}

interface Begun {
  readonly gathering: Gathering;
  readonly stated: UnlockStated;
  readonly clock: { seconds: number; now: Date };
}

function begin(
  changes: UnlockChanges & { readonly state?: Partial<GatheringState>; of?: DealtByProcess } = {},
): Begun {
  const stated = people.unlock(changes.of ?? dealt, identity.recipient, changes);
  const clock = { seconds: 0, now: new Date() };
  const gathering = beginGathering({
    state: { ...stated.state, ...changes.state },
    identity,
    gatherSeconds: 600,
    now: () => clock.now,
    elapsed: () => clock.seconds,
  });
  return { gathering, stated, clock };
}

async function submit(
  { gathering, stated }: Begun,
  who: Name,
  change: Parameters<SealedHome["submission"]>[2] = {},
): Promise<number> {
  const { signed, share } = people.submission(stated, who, change);
  return (await gathering.submit(signed, share)).missing;
}

function agreement(
  { stated }: Begun,
  approvals: readonly Signed[] = approvalsOf(stated, ["alice", "dora"]),
) {
  return { approvals, rosters: people.versions };
}

function approvalsOf(stated: UnlockStated, who: readonly Name[]): Signed[] {
  return who.map((id) => people.approval(stated.ceremony, id));
}

test("three shares of the right people and the approvals that the rules ask for open the key", async () => {
  const begun = begin();
  expect(await submit(begun, "erin")).toBe(2);
  expect(await submit(begun, "bob")).toBe(1);
  expect(() => begun.gathering.agreed(agreement(begun))).toThrow(/1 shares missing/);
  expect(await submit(begun, "carol")).toBe(0);
  const by = begun.gathering.agreed(agreement(begun));
  expect(by).toEqual(["erin", "bob", "carol"]);
  expect((await begun.gathering.open(by)).length).toBeGreaterThan(100);
  await expect(begun.gathering.open(by)).rejects.toEqual(refused("unlock-closed"));
  await expect(submit(begun, "dora")).rejects.toEqual(refused("unlock-closed"));
});

const others = noteSigner("ca.example.com/keeper", generateKeyPairSync("ed25519").privateKey);

test.for<{
  name: string;
  change: Parameters<typeof begin>[0] | (() => Parameters<typeof begin>[0]);
  code: ErrorCode;
}>([
  {
    name: "a recipient of another unlocker",
    change: {
      unlock: { recipient: "age1qjzr5pfu7yja3astnmznsk07weplfs4p5us4y8nxq67g7lktfytqkhjw40" },
    },
    code: "statement-stale",
  },
  {
    name: "another ceremony",
    change: () => ({ state: { ceremony: people.ceremony({ keyId: dealt.shareSet.keyId }).note } }),
    code: "statement-stale",
  },
  {
    name: "another share set",
    change: () => ({
      state: {
        shareSet: people.note({ ...dealt.shareSet, plan: `sha256:${"0".repeat(64)}` }).note,
      },
    }),
    code: "statement-stale",
  },
  { name: "another key", change: { unlock: { keyId: "0".repeat(64) } }, code: "statement-stale" },
  {
    name: "a ceremony for another key",
    change: { ceremony: { keyId: "0".repeat(64) } },
    code: "statement-stale",
  },
  {
    name: "a ceremony that opens no key",
    change: () => ({
      ceremony: { kind: "retire", artefacts: undefined, plan: `sha256:${"0".repeat(64)}` },
    }),
    code: "statement-stale",
  },
  { name: "another epoch", change: { unlock: { epoch: 2 } }, code: "statement-stale" },
  { name: "a lower threshold", change: { unlock: { threshold: 2 } }, code: "statement-stale" },
  {
    name: "another roster",
    change: { unlock: { roster: `sha256:${"0".repeat(64)}` } },
    code: "statement-stale",
  },
  {
    name: "a ceremony under a roster that never was",
    change: { ceremony: { roster: `sha256:${"0".repeat(64)}` } },
    code: "statement-stale",
  },
  { name: "a longer time", change: { unlock: { gatherSeconds: 601 } }, code: "statement-stale" },
  {
    name: "another service",
    change: { unlock: { service: "b.example" } },
    code: "statement-stale",
  },
  { name: "notes of another keeper", change: { signer: others }, code: "signature-invalid" },
  {
    name: "a keeper that the roster does not name",
    change: { state: { identityKey: others.verifierKey.text } },
    code: "roster-invalid",
  },
  {
    name: "another genesis",
    change: { state: { genesis: `sha256:${"0".repeat(64)}` } },
    code: "roster-invalid",
  },
  {
    name: "a ceremony that is over",
    change: { ceremony: { notAfter: "2026-01-01T00:00:00Z" } },
    code: "ceremony-closed",
  },
  {
    name: "a threshold lowered in statement and share set (ST-22)",
    change: { unlock: { threshold: 2 }, shareSet: { threshold: 2 } },
    code: "sealed-key-corrupt",
  },
  {
    name: "an epoch lowered in statement and share set (ST-67)",
    change: { unlock: { epoch: 2 }, shareSet: { epoch: 2 } },
    code: "sealed-key-corrupt",
  },
])("ST-68: an unlocker does not begin with $name", ({ change, code }) => {
  expect(() => begin(typeof change === "function" ? change() : change)).toThrow(
    refused(code) as Error,
  );
});

test("ST-26: bob sends carol's true share", async () => {
  const begun = begin();
  const file = people.share(dealt, "carol", identity.recipient);
  for (const index of [2, 3]) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await expect(
      submit(begun, "bob", { file, share: { index, file: digestOf(file) } }),
    ).rejects.toEqual(refused("share-not-yours", /bob/));
  }
  expect(await submit(begun, "carol")).toBe(2);
});

/** Bob's share of another key of this keyId, epoch and threshold: well-formed, and wrong. */
async function wrongShare(): Promise<Buffer> {
  const text = execFileSync("age", ["-d", "-i", people.ageKey("bob")], {
    input: dealt.files[1]!,
  }).toString();
  const { decodeShare, encodeShare } = await import("../../src/custody/sealed/share.ts");
  const share = decodeShare(text.split("\n").find((line) => line.startsWith("CSSHARE"))!);
  const context = {
    keyId: Buffer.from(dealt.shareSet.keyId, "hex"),
    epoch: 1,
    threshold: 3,
    shareCount: 5,
  };
  const wrong = encodeShare(context, { x: share.x, y: share.y.map((octet) => octet ^ 1) });
  return execFileSync("age", ["-r", identity.recipient], { input: `${wrong}\n` });
}

const withFile = (index: number, file: Uint8Array) => ({
  file,
  share: { index, file: digestOf(file) },
});

test("ST-27: a wrong share is named, and the accepted ones stay", async () => {
  const begun = begin();
  await submit(begun, "alice");
  await submit(begun, "carol");
  await expect(submit(begun, "bob", withFile(2, await wrongShare()))).rejects.toEqual(
    refused("share-wrong", /bob.*2 of 3 are counted/s),
  );
  expect(await submit(begun, "erin")).toBe(0);
});

test("wrong shares are named five times in 15 minutes; the right one is always taken", async () => {
  const begun = begin();
  const wrong = await wrongShare();
  const twice = async (): Promise<unknown> =>
    submit(begun, "bob", withFile(2, wrong)).catch((error: unknown) => error);
  for (let count = 0; count < 5; count++) {
    begun.clock.seconds = count;
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    expect(await twice()).toEqual(refused("share-wrong"));
  }
  expect(await twice()).toEqual(refused("rate-limited"));
  // What is only mistyped or misdirected never counted.
  const foreign = execFileSync("age", ["-r", identity.recipient], { input: "x\n" });
  await expect(submit(begun, "bob", withFile(2, foreign))).rejects.toEqual(
    refused("share-checksum"),
  );
  // Others are not concerned.
  await expect(submit(begun, "carol", withFile(3, wrong))).rejects.toEqual(
    refused("share-not-yours"),
  );
  expect(await submit(begun, "bob")).toBe(2);
});

test("after 15 minutes a wrong share is named again", async () => {
  const begun = begin({ unlock: { gatherSeconds: 600 } });
  const wrong = await wrongShare();
  const once = (): Promise<unknown> =>
    submit(begun, "bob", withFile(2, wrong)).catch((error: unknown) => error);
  begun.clock.seconds = -400;
  for (let count = 0; count < 5; count++) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await once();
  }
  begun.clock.seconds = 499;
  expect(await once()).toEqual(refused("rate-limited"));
  begun.clock.seconds = 501;
  expect(await once()).toEqual(refused("share-wrong"));
});

test("ST-28, ST-37: fifty submissions at once of three custodians count three", async () => {
  const begun = begin();
  const three = (["alice", "bob", "carol"] as const).map((who) =>
    people.submission(begun.stated, who),
  );
  const all = await Promise.allSettled(
    Array.from({ length: 50 }, async (_, count) => {
      const { signed, share } = three[count % 3]!;
      return begun.gathering.submit(signed, share);
    }),
  );
  expect(all.filter(({ status }) => status === "fulfilled")).toHaveLength(3);
  const reasons = all.flatMap((one) => (one.status === "rejected" ? [one.reason as unknown] : []));
  expect(reasons).toEqual(reasons.map(() => refused("share-repeated")));
  const by = begun.gathering.agreed(agreement(begun));
  const opened = await Promise.allSettled([begun.gathering.open(by), begun.gathering.open(by)]);
  expect(opened.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
});

test("ST-29: a share at index zero is refused when it is read", async () => {
  const begun = begin();
  const { bech32m } = await import("@scure/base");
  const octets = Uint8Array.from([
    1,
    0,
    3,
    5,
    0,
    0,
    0,
    1,
    ...Buffer.from(dealt.shareSet.keyId, "hex").subarray(0, 4),
    ...randomBytes(32),
  ]);
  const zero = bech32m.encode("csshare", bech32m.toWords(octets), 200).toUpperCase();
  const file = execFileSync("age", ["-r", identity.recipient], { input: `${zero}\n` });
  await expect(submit(begun, "bob", withFile(2, file))).rejects.toMatchObject({
    code: expect.stringMatching(/^share-(?:checksum|malformed)$/) as string,
  });
});

test("ST-30: a share of the epoch before is stale", async () => {
  const begun = begin();
  const text = execFileSync("age", ["-d", "-i", people.ageKey("bob")], { input: dealt.files[1]! });
  const { decodeShare, encodeShare } = await import("../../src/custody/sealed/share.ts");
  const share = decodeShare(
    text
      .toString()
      .split("\n")
      .find((line) => line.startsWith("CSSHARE"))!,
  );
  const context = {
    keyId: Buffer.from(dealt.shareSet.keyId, "hex"),
    epoch: 2,
    threshold: 3,
    shareCount: 5,
  };
  const later = execFileSync("age", ["-r", identity.recipient], {
    input: encodeShare(context, share),
  });
  await expect(submit(begun, "bob", withFile(2, later))).rejects.toEqual(refused("share-stale"));
});

test("ST-21: a share of another key is foreign", async () => {
  const other = await dealHere();
  const begun = begin();
  const file = people.share(other, "bob", identity.recipient);
  await expect(submit(begun, "bob", withFile(2, file))).rejects.toEqual(refused("share-foreign"));
});

test("ST-31, ST-32: a submission belongs to one unlock, and its file to one submission", async () => {
  const begun = begin();
  const second = begin();
  const { signed, share } = people.submission(begun.stated, "bob");
  await expect(second.gathering.submit(signed, share)).rejects.toEqual(refused("submission-stale"));
  const another = people.submission(begun.stated, "bob");
  await expect(begun.gathering.submit(signed, another.share)).rejects.toEqual(
    refused("submission-stale", /not the one that was signed/),
  );
  // A file of an unlock before: encrypted to a key that is gone.
  const gone = await newUnlockIdentity();
  const old = people.share(dealt, "bob", gone.recipient);
  await expect(submit(begun, "bob", withFile(2, old))).rejects.toEqual(refused("share-unreadable"));
});

test("ST-33: a submission of another form, or altered in one octet, is refused", async () => {
  const begun = begin();
  const { signed, share } = people.submission(begun.stated, "bob");
  const { statement } = signed;
  for (let at = 0; at < statement.length; at += 7) {
    const altered = Buffer.from(statement);
    altered[at]! ^= 1;
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await expect(
      begun.gathering.submit({ ...signed, statement: altered }, share),
    ).rejects.toMatchObject({
      code: expect.stringMatching(
        /^(?:submission-(?:malformed|stale|unsigned)|operator-unknown)$/,
      ) as string,
    });
  }
  const resigned = (text: string): Promise<unknown> =>
    begun.gathering.submit(
      {
        statement: Buffer.from(text),
        signature: people.sign("bob", "submission", Buffer.from(text)),
      },
      share,
    );
  const text = Buffer.from(statement).toString();
  for (const form of [
    text.replace('{"at"', '{ "at"'),
    text.replace("{", '{"also":1,'),
    text.replace("{", '{"__proto__":{},'),
    text.replace("{", '{"operator":"bob",'),
    `${text}\n`,
  ]) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await expect(resigned(form)).rejects.toEqual(refused("submission-malformed"));
  }
});

test("ST-34: a signature for another purpose, of another person, or of nobody in the roster does not count", async () => {
  const begun = begin();
  const { signed, share } = people.submission(begun.stated, "bob");
  const { statement } = signed;
  for (const signature of [
    people.sign("bob", "approval", Buffer.from(statement)),
    people.sign("carol", "submission", Buffer.from(statement)),
    "",
    "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n",
  ]) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await expect(begun.gathering.submit({ statement, signature }, share)).rejects.toEqual(
      refused("submission-unsigned"),
    );
  }
  const stranger = people.submission(begun.stated, "bob", { operator: "mallory" });
  await expect(begun.gathering.submit(stranger.signed, stranger.share)).rejects.toEqual(
    refused("operator-unknown"),
  );
});

test("ST-36: what is too long, or has eighty recipients, or a passphrase, is refused at once", async () => {
  expect(SUBMISSION_LIMITS.share).toBe(SHARE_FILE_LIMIT);
  const begun = begin();
  const long = Buffer.alloc(SHARE_FILE_LIMIT + 1);
  await expect(submit(begun, "bob", withFile(2, long))).rejects.toEqual(refused("share-malformed"));
  const file = execFileSync("age", ["-r", identity.recipient], { input: "x" }).toString("latin1");
  const [stanza] = /-> X25519 \S+\n\S+\n/.exec(file)!;
  const stanzas = Buffer.from(file.replace(stanza, stanza.repeat(80)), "latin1");
  expect(stanzas.length).toBeLessThanOrEqual(SHARE_FILE_LIMIT);
  const scrypt = Buffer.from(
    file.replace(
      stanza,
      `-> scrypt ${Buffer.alloc(16).toString("base64").replace(/=+$/, "")} 30\n${"A".repeat(43)}\n`,
    ),
    "latin1",
  );
  const line = Buffer.from(
    file.replace(stanza, `-> X25519 ${"A".repeat(7000)}\n${"A".repeat(43)}\n`),
    "latin1",
  );
  for (const bad of [stanzas, scrypt, line]) {
    const started = performance.now();
    // oxlint-disable-next-line no-await-in-loop -- each is timed
    await expect(submit(begun, "bob", withFile(2, bad))).rejects.toEqual(
      refused("share-unreadable"),
    );
    // Signing is in it, with ssh-keygen; the work factor alone would take minutes.
    expect(performance.now() - started).toBeLessThan(1000);
  }
  expect(await submit(begun, "bob")).toBe(2);
});

test("ST-38: a share after the time to gather, or after the ceremony's, comes too late", async () => {
  const begun = begin();
  begun.clock.seconds = 600;
  await expect(submit(begun, "bob")).rejects.toEqual(refused("unlock-closed"));
  expect(() => begun.gathering.agreed(agreement(begun))).toThrow(/time to gather shares is over/);
  const short = begin({ ceremony: { notAfter: inSeconds(100) } });
  await submit(short, "bob");
  short.clock.now = new Date(Date.now() + 101_000);
  await expect(submit(short, "carol")).rejects.toEqual(refused("ceremony-closed"));
  expect(() => short.gathering.agreed(agreement(short))).toThrow(/ceremony's time is over/);
});

test("ST-39: who has left the roster since counts neither as an officer nor with a share", async () => {
  const begun = begin();
  for (const who of ["bob", "carol", "erin"] as const) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await submit(begun, who);
  }
  const without = (id: string) => {
    const operators = people.operators.filter((operator) => operator.id !== id);
    const version = people.nextVersion({ operators }, ["alice", "bob", "carol"]);
    return [...people.versions, version];
  };
  const officers = approvalsOf(begun.stated, ["alice", "dora"]);
  expect(() => begun.gathering.agreed({ approvals: officers, rosters: without("alice") })).toThrow(
    /those who are left/,
  );
  expect(() => begun.gathering.agreed({ approvals: officers, rosters: without("erin") })).toThrow(
    /1 shares missing/,
  );
  // Somebody else's share takes its place.
  await submit(begun, "dora");
  const by = begun.gathering.agreed({ approvals: officers, rosters: without("erin") });
  expect(by).toEqual(["bob", "carol", "dora"]);
  expect(hash("sha256", await begun.gathering.open(by))).toMatch(/^[0-9a-f]{64}$/);
});

test("ST-39: an older roster than the one that it began with is not believed", async () => {
  const later = new SealedHome();
  const version = later.nextVersion({ operators: later.operators.slice(0, 4) }, [
    "alice",
    "bob",
    "carol",
  ]);
  const [first] = later.versions;
  later.versions.push(version);
  const plan = later.plan(3, 4);
  const made = await deal({
    plan: readPlan(plan),
    planDigest: digestOf(plan),
    random: randomBytes,
  });
  const stated = later.unlock(
    { ...made, shareSetOctets: shareSetOctets(made.shareSet), pending: false },
    identity.recipient,
  );
  const gathering = beginGathering({
    state: stated.state,
    identity,
    gatherSeconds: 600,
    now: () => new Date(),
    elapsed: () => 0,
  });
  expect(() => gathering.agreed({ approvals: [], rosters: [first!] })).toThrow(
    refused("rolled-back") as Error,
  );
  expect(() => gathering.agreed({ approvals: [], rosters: later.versions })).toThrow(
    refused("ceremony-refused") as Error,
  );
  later.remove();
});

test("approvals that nobody signed, or of another ceremony, count nothing", async () => {
  const begun = begin();
  for (const who of ["bob", "carol", "erin"] as const) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await submit(begun, who);
  }
  const [alice, dora] = approvalsOf(begun.stated, ["alice", "dora"]);
  const forged = { statement: alice!.statement, signature: dora!.signature };
  const foreign = people.approval(`sha256:${"0".repeat(64)}`, "alice");
  for (const approvals of [[], [dora!], [dora!, dora!], [dora!, forged], [dora!, foreign]]) {
    expect(() => begun.gathering.agreed(agreement(begun, approvals))).toThrow(/of role officer/);
  }
  expect(begun.gathering.agreed(agreement(begun, [dora!, alice!]))).toHaveLength(3);
});

test("ST-40: a refusal stands, also after a share was given, and the shares of others take its place", async () => {
  const begun = begin();
  const { gathering, stated } = begun;
  await submit(begun, "bob");
  await submit(begun, "carol");
  expect(await gathering.submit(people.refusal(stated, "bob"), new Uint8Array(0))).toEqual({
    given: ["carol"],
    missing: 2,
  });
  await expect(submit(begun, "bob")).rejects.toEqual(refused("share-repeated", /refused/));
  await submit(begun, "dora");
  expect(() => gathering.agreed(agreement(begun))).toThrow(/1 shares missing/);
  expect(await submit(begun, "erin")).toBe(0);
  expect(gathering.agreed(agreement(begun))).toEqual(["carol", "dora", "erin"]);
  // A rejection by approval is the same person's word.
  const no = people.approval(stated.ceremony, "erin", { verdict: "reject", reason: "no" });
  const approvals = [...approvalsOf(stated, ["alice", "dora"]), no];
  expect(() => gathering.agreed(agreement(begun, approvals))).toThrow(/1 shares missing/);
  await submit(begun, "alice");
  expect(gathering.agreed(agreement(begun, approvals))).toEqual(["carol", "dora", "alice"]);
});

test("ST-40: refusals of three of five leave too few, whoever approves later", async () => {
  const begun = begin();
  for (const who of ["alice", "bob", "carol"] as const) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await begun.gathering.submit(people.refusal(begun.stated, who), new Uint8Array(0));
  }
  await submit(begun, "dora");
  await submit(begun, "erin");
  expect(() => begun.gathering.agreed(agreement(begun))).toThrow(/too many have refused/);
});

test("a refusal with a share is refused", async () => {
  const begun = begin();
  await expect(
    begun.gathering.submit(people.refusal(begun.stated, "bob"), new Uint8Array(1)),
  ).rejects.toEqual(refused("share-malformed"));
});

test("ST-42: junk in bob's name that he has not signed never counts against him", async () => {
  const begun = begin();
  const { signed, share } = people.submission(begun.stated, "bob");
  const mallory = people.sign("carol", "submission", Buffer.from(signed.statement));
  for (let count = 0; count < 1000; count++) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await expect(
      begun.gathering.submit({ statement: signed.statement, signature: mallory }, share),
    ).rejects.toEqual(refused("submission-unsigned"));
  }
  expect((await begun.gathering.submit(signed, share)).given).toEqual(["bob"]);
});
