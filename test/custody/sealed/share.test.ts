import { randomBytes } from "node:crypto";
import { bech32m } from "@scure/base";
import { expect, test } from "vitest";
import { recoverKek } from "../../../src/custody/sealed/shamir.ts";
import {
  checkShareProof,
  commitmentOf,
  commitmentsHash,
  decodeShare,
  encodeShare,
  proveShare,
  shareGroups,
} from "../../../src/custody/sealed/share.ts";
import { CountersignError } from "../../../src/errors.ts";
import { context, octets, points, vectors } from "./vectors.ts";

const refused = expect.objectContaining({ code: "share-checksum" });
const text = vectors.shares[1]!.text;
const charset = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L";

function refusalOf(share: string): CountersignError {
  try {
    decodeShare(share);
  } catch (error) {
    if (error instanceof CountersignError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

/** A text with a good checksum over whatever octets. */
function texted(change: (share: Buffer) => Buffer | void, prefix = "csshare"): string {
  const share = Buffer.from(bech32m.fromWords(bech32m.decode(text as `${string}1${string}`).words));
  return bech32m.encode(prefix, bech32m.toWords(change(share) ?? share));
}

test.for(vectors.shares.map((share, index) => ({ ...share, index })))(
  "vector: share $x is written, read and committed to as CUSTODY.md 14 has it",
  ({ index, text: wanted, x, y, commit, proof }) => {
    const point = points[index]!;
    expect(encodeShare(context, point)).toBe(wanted);
    expect(decodeShare(wanted)).toEqual({
      x,
      y: Uint8Array.from(octets(y)),
      threshold: 3,
      shareCount: 5,
      epoch: 7,
      keyLabel: Uint8Array.from(octets(vectors.keyId).subarray(0, 4)),
    });
    const commitment = commitmentOf(context, point);
    expect(Buffer.from(commitment.commit).toString("hex")).toBe(commit);
    expect(Buffer.from(commitment.proof).toString("hex")).toBe(proof);
  },
);

test("vector: the hash of the commitments, and the KEK of every three shares", () => {
  const commitments = points.map((point) => commitmentOf(context, point));
  expect(commitmentsHash(commitments).toString("hex")).toBe(vectors.commitmentsHash);
  for (const [a, b, c] of [
    [0, 1, 2],
    [4, 2, 0],
    [3, 1, 4],
  ] as const) {
    const some = [points[a]!, points[b]!, points[c]!];
    expect(recoverKek(some, context).toString("hex")).toBe(vectors.kek);
  }
});

test("ST-10: every single wrong character is noticed", () => {
  let tried = 0;
  for (let at = 0; at < text.length; at++) {
    // The separator may become any other character, each other one any of the alphabet.
    for (const character of charset) {
      if (character === text[at]) continue;
      const wrong = text.slice(0, at) + character + text.slice(at + 1);
      expect(refusalOf(wrong).code).toBe("share-checksum");
      tried++;
    }
  }
  expect(tried).toBeGreaterThanOrEqual(2_387);
});

test("ST-11: neighbours swapped, mixed case, a character more or less, another prefix", () => {
  for (let at = 8; at < text.length - 1; at++) {
    if (text[at] === text[at + 1]) continue;
    const swapped = text.slice(0, at) + text[at + 1]! + text[at]! + text.slice(at + 2);
    expect(() => decodeShare(swapped)).toThrow(refused);
  }
  const lower = text.slice(0, 40) + text.slice(40).toLowerCase();
  const bad = [lower, `${text}Q`, text.slice(0, -1), "", texted(() => {}, "csshar")];
  for (const wrong of bad) expect(() => decodeShare(wrong)).toThrow(refused);
});

test("ST-12: lower case, groups, line ends and hyphens are accepted", () => {
  const forms = [
    text.toLowerCase(),
    shareGroups(text).join(" "),
    shareGroups(text).join("-").toLowerCase(),
    ` ${text.slice(0, 43)}\r\n${text.slice(43)}\n`,
  ];
  for (const form of forms) expect(decodeShare(form)).toEqual(decodeShare(text));
  expect(shareGroups(text)).toHaveLength(17);
});

test("ST-13: padding bits that are not zero, with a good checksum", () => {
  const { words } = bech32m.decode(text as `${string}1${string}`);
  const last = words.length - 1;
  for (const padding of [1, 2, 4, 7]) {
    const changed = words.with(last, words[last]! | padding);
    expect(() => decodeShare(bech32m.encode("csshare", changed))).toThrow(refused);
  }
});

test.for<{ name: string; change: (share: Buffer) => Buffer | void }>([
  { name: "place 0", change: (share) => void (share[1] = 0) },
  { name: "a place beyond the number of shares", change: (share) => void (share[1] = 6) },
  { name: "threshold 1", change: (share) => void (share[2] = 1) },
  { name: "a threshold above the number of shares", change: (share) => void (share[2] = 6) },
  { name: "33 shares", change: (share) => void (share[3] = 33) },
  { name: "suite 2", change: (share) => void (share[0] = 2) },
  { name: "epoch 0", change: (share) => void share.writeUInt32BE(0, 4) },
  { name: "45 octets", change: (share) => Buffer.concat([share, Buffer.of(0)]) },
  { name: "43 octets", change: (share) => share.subarray(1) },
])("ST-14: $name, with a good checksum, is refused", ({ change }) => {
  expect(() => decodeShare(texted(change))).toThrow(refused);
});

test("ST-15: an error about a mistyped share holds no eight characters of it", () => {
  for (const wrong of [
    text.replace("W", "Q"),
    text.toLowerCase().replace("w", "B"),
    `${text}${text}`,
    texted(() => {}, "csshar"),
    texted((share) => void (share[0] = 2)),
  ]) {
    const error = refusalOf(wrong);
    const said = `${String(error.stack)} ${JSON.stringify(error.members)} ${String(error.cause)}`;
    for (let at = 0; at + 8 <= wrong.length; at++) {
      expect(said.toUpperCase()).not.toContain(wrong.slice(at, at + 8).toUpperCase());
    }
  }
});

test("a proof is of this share, this key, this epoch and this challenge", () => {
  const challenge = randomBytes(32);
  const [point, other] = [points[1]!, points[2]!];
  const commitment = commitmentOf(context, point);
  const proof = proveShare(context, point, challenge);
  const holds = (change: {
    context?: typeof context;
    x?: number;
    challenge?: Buffer;
    proof?: Buffer;
    commitment?: typeof commitment;
  }): boolean =>
    checkShareProof(
      change.context ?? context,
      change.x ?? point.x,
      change.commitment ?? commitment,
      change.challenge ?? challenge,
      change.proof ?? proof,
    );
  expect(holds({})).toBe(true);
  expect(holds({ challenge: randomBytes(32) })).toBe(false);
  expect(holds({ x: 3 })).toBe(false);
  expect(holds({ context: { ...context, epoch: 8 } })).toBe(false);
  expect(holds({ context: { ...context, threshold: 2 } })).toBe(false);
  expect(holds({ context: { ...context, keyId: randomBytes(32) } })).toBe(false);
  expect(holds({ commitment: commitmentOf(context, other) })).toBe(false);
  expect(holds({ proof: proveShare(context, other, challenge) })).toBe(false);
  expect(() => proveShare(context, point, randomBytes(31))).toThrow(RangeError);
});

test.for([0, -1, 1.5, 2 ** 32])("an epoch of %d is refused", (epoch) => {
  expect(() => encodeShare({ ...context, epoch }, points[0]!)).toThrow(RangeError);
  expect(() => commitmentOf({ ...context, epoch }, points[0]!)).toThrow(RangeError);
});
