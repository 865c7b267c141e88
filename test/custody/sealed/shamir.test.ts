import { randomBytes, randomInt } from "node:crypto";
import { combine, split } from "shamirs-secret-sharing-ts";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Point } from "../../../src/custody/sealed/field.ts";
import type { Random } from "../../../src/custody/sealed/shamir.ts";

// The wrapper gives up for good when a split fails, so each test has one of its own.
let shamir: typeof import("../../../src/custody/sealed/shamir.ts");
beforeEach(async () => {
  vi.resetModules();
  shamir = await import("../../../src/custody/sealed/shamir.ts");
});
afterEach(() => vi.doUnmock("shamirs-secret-sharing-ts"));

const random: Random = (size) => randomBytes(size);
const threeOfFive = { threshold: 3, shareCount: 5 };

function subsets<Item>(items: readonly Item[], size: number): Item[][] {
  if (size === 0) return [[]];
  return items.flatMap((item, at) =>
    subsets(items.slice(at + 1), size - 1).map((rest) => [item, ...rest]),
  );
}

const keks = [
  { name: "random", kek: () => randomBytes(32) },
  { name: "beginning with zeros", kek: () => Buffer.concat([Buffer.alloc(5), randomBytes(27)]) },
  { name: "all zero", kek: () => Buffer.alloc(32) },
  { name: "all 0xff", kek: () => Buffer.alloc(32, 0xff) },
];

test.for(keks)("ST-1: every k shares of n ≤ 6 give a KEK that is $name back", ({ kek }) => {
  for (let shareCount = 2; shareCount <= 6; shareCount++) {
    for (let threshold = 2; threshold <= shareCount; threshold++) {
      const sharing = { threshold, shareCount };
      const secret = kek();
      const points = shamir.splitKek(secret, sharing, random);
      for (const some of subsets(points, threshold)) {
        expect(shamir.recoverKek(some, sharing)).toEqual(secret);
      }
    }
  }
});

test("ST-1: random k shares of up to 32, in any order, give the KEK back", () => {
  for (let round = 0; round < 40; round++) {
    const shareCount = randomInt(2, 33);
    const threshold = randomInt(2, shareCount + 1);
    const secret = randomBytes(32);
    const points = shamir.splitKek(secret, { threshold, shareCount }, random);
    const some = points
      .map((point) => ({ point, order: randomInt(1 << 30) }))
      .toSorted((a, b) => a.order - b.order)
      .slice(0, threshold)
      .map(({ point }) => point);
    expect(shamir.recoverKek(some, { threshold, shareCount })).toEqual(secret);
  }
});

test("ST-2: fewer shares than the threshold, or more, are refused, and fewer never give the KEK", async () => {
  const { interpolate } = await import("../../../src/custody/sealed/field.ts");
  const secret = randomBytes(32);
  const points = shamir.splitKek(secret, threeOfFive, random);
  for (const count of [0, 1, 2, 4, 5]) {
    expect(() => shamir.recoverKek(points.slice(0, count), threeOfFive)).toThrow(RangeError);
  }
  for (const pair of subsets(points, 2)) {
    expect(Buffer.from(interpolate(pair, 0))).not.toEqual(secret);
  }
});

test("a share twice, at place 0, or beyond the number of shares is refused", () => {
  const points = shamir.splitKek(randomBytes(32), threeOfFive, random);
  const [first, second, third] = points as [Point, Point, Point];
  for (const bad of [{ ...third, x: 0 }, { ...third, x: 6 }, first, { ...third, x: 1.5 }]) {
    expect(() => shamir.recoverKek([first, second, bad], threeOfFive)).toThrow(RangeError);
  }
  const short = { ...third, y: third.y.subarray(1) };
  expect(() => shamir.recoverKek([first, second, short], threeOfFive)).toThrow(RangeError);
});

test.for([
  [0, 5],
  [1, 5],
  [1.5, 5],
  [Number.NaN, 5],
  ["2", 5],
  [3, 2],
  [2, 33],
  [2, 256],
  [2, 2.5],
])(
  "ST-3: a threshold of %j with %j shares is refused before the package is called",
  async (pair) => {
    vi.resetModules();
    const called = vi.fn();
    vi.doMock("shamirs-secret-sharing-ts", () => ({ split: called, combine: called }));
    const { splitKek } = await import("../../../src/custody/sealed/shamir.ts");
    const [threshold, shareCount] = pair as [number, number];
    expect(() => splitKek(randomBytes(32), { threshold, shareCount }, random)).toThrow(RangeError);
    expect(called).not.toHaveBeenCalled();
  },
);

/** Random sources that the package takes and that give the secret away (S1 to S3). */
const brokenSources: { name: string; source: (size: number) => unknown; typed: boolean }[] = [
  { name: "a Uint8Array", source: (size) => Uint8Array.from(randomBytes(size)), typed: false },
  { name: "a promise", source: async (size) => randomBytes(size), typed: false },
  { name: "an empty Buffer", source: () => Buffer.alloc(0), typed: false },
  { name: "a short Buffer", source: (size) => randomBytes(size - 1), typed: false },
  { name: "all zero", source: (size) => Buffer.alloc(size), typed: true },
];

test.for(brokenSources)("ST-4: a random source of $name gives no shares", ({ source, typed }) => {
  expect(() => shamir.splitKek(randomBytes(32), threeOfFive, source as Random)).toThrow(
    typed ? "the random source is broken" : TypeError,
  );
});

test.for(brokenSources.filter(({ name }) => name !== "a short Buffer"))(
  "ST-4: without the type check the self-check finds a random source of $name",
  ({ source }) => {
    const secret = randomBytes(32);
    const points = (split(secret, { shares: 5, threshold: 3, random: source }) as Buffer[]).map(
      shamir.readPackageShare,
    );
    expect(() => shamir.checkShares(secret, points, threeOfFive)).toThrow(
      "the random source is broken",
    );
  },
);

test("ST-5: a random source that throws makes no shares, and no other split follows in the process", () => {
  let given = 0;
  const throwing: Random = (size) => {
    given += size;
    if (given > 39) throw new Error("no entropy");
    return randomBytes(size);
  };
  expect(() => shamir.splitKek(randomBytes(32), threeOfFive, throwing)).toThrow("no entropy");
  // Nothing had begun: the source is asked once, before the package is.
  expect(shamir.splitKek(randomBytes(32), threeOfFive, random)).toHaveLength(5);
  expect(() => shamir.splitKek(randomBytes(32), threeOfFive, (size) => Buffer.alloc(size))).toThrow(
    "the random source is broken",
  );
  expect(() => shamir.splitKek(randomBytes(32), threeOfFive, random)).toThrow(
    "a split failed in this process",
  );
});

test("ST-6: Object.prototype.random changes nothing", () => {
  const asked = vi.fn((size: number) => Buffer.alloc(size));
  Object.defineProperty(Object.prototype, "random", { value: asked, configurable: true });
  try {
    const secret = randomBytes(32);
    const points = shamir.splitKek(secret, threeOfFive, random);
    expect(shamir.recoverKek(points.slice(2), threeOfFive)).toEqual(secret);
    expect(asked).not.toHaveBeenCalled();
  } finally {
    delete (Object.prototype as { random?: unknown }).random;
  }
});

test.for([0, 2, 4])(
  "ST-7: share %i altered in one bit by the package does not leave",
  async (at) => {
    vi.resetModules();
    vi.doMock("shamirs-secret-sharing-ts", () => ({
      combine,
      split: (secret: Buffer, options: object) => {
        const shares = split(secret, options) as Buffer[];
        shares[at]![81 - 2 * 7]! ^= 0x10;
        return shares;
      },
    }));
    const { splitKek } = await import("../../../src/custody/sealed/shamir.ts");
    expect(() => splitKek(randomBytes(32), threeOfFive, random)).toThrow();
  },
);

test("a package that combines to another KEK is found out", async () => {
  const points = shamir.splitKek(randomBytes(32), threeOfFive, random).slice(0, 3);
  vi.resetModules();
  vi.doMock("shamirs-secret-sharing-ts", () => ({ split, combine: () => randomBytes(32) }));
  const { recoverKek } = await import("../../../src/custody/sealed/shamir.ts");
  expect(() => recoverKek(points, threeOfFive)).toThrow("to another KEK");
});

test("a KEK of another length is refused", () => {
  for (const length of [0, 16, 31, 33]) {
    expect(() => shamir.splitKek(randomBytes(length), threeOfFive, random)).toThrow(RangeError);
  }
});
