import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { formsOf, NeedleSearch } from "./needles.ts";

function reader(octets: Buffer, most = Infinity): (into: Uint8Array) => number {
  let rest = octets;
  return (into) => {
    const length = rest.copy(into, 0, 0, Math.min(most, rest.length));
    rest = rest.subarray(length);
    return length;
  };
}

test("every form is found wherever it lies, across the borders of pieces too", () => {
  const secret = randomBytes(32);
  const search = new NeedleSearch({ secret });
  for (const [form, octets] of formsOf(secret)) {
    for (let offset = 0; offset < 70; offset++) {
      const haystack = Buffer.alloc(offset + octets.length + 7, 0xee);
      octets.copy(haystack, offset);
      const findings = search.search(reader(haystack, 61), 64);
      expect(findings, form).toContainEqual({ needle: "secret", form, part: "whole", offset });
    }
  }
});

test("a find is told once, and two are told twice", () => {
  const secret = randomBytes(16);
  const search = new NeedleSearch({ secret });
  const haystack = Buffer.concat([Buffer.alloc(100), secret, Buffer.alloc(3), secret, secret]);
  for (const pieceLength of [5, 16, 40, 1000]) {
    const offsets = search.search(reader(haystack), pieceLength).map(({ offset }) => offset);
    expect(offsets).toEqual([100, 119, 135]);
  }
});

test("half of a needle is found alone, less is not", () => {
  const secret = randomBytes(32);
  const search = new NeedleSearch({ secret });
  const find = (octets: Buffer): string[] =>
    search.search(reader(octets)).map(({ form, part }) => `${form}: ${part}`);
  expect(find(secret.subarray(0, 16))).toEqual(["raw: first half"]);
  expect(find(secret.subarray(9, 32))).toEqual(["raw: last half"]);
  expect(find(secret.subarray(0, 15))).toEqual([]);
  expect(find(secret.subarray(5, 27))).toEqual([]);
});

test("in random octets and in zeros nothing is found", () => {
  const search = new NeedleSearch({ one: randomBytes(16), other: randomBytes(32) });
  expect(search.search(reader(randomBytes(8 * 1024 * 1024)))).toEqual([]);
  expect(search.search(reader(Buffer.alloc(8 * 1024 * 1024)))).toEqual([]);
  expect(search.search(reader(Buffer.alloc(0)))).toEqual([]);
});

test("a needle that begins or ends with zeros is found between zeros", () => {
  const zeros = Buffer.alloc(3);
  const secret = Buffer.concat([zeros, randomBytes(26), zeros]);
  const search = new NeedleSearch({ secret });
  const haystack = Buffer.concat([Buffer.alloc(61), secret, Buffer.alloc(200)]);
  const raw = search.search(reader(haystack), 16).filter(({ form }) => form === "raw");
  expect(raw).toEqual([{ needle: "secret", form: "raw", part: "whole", offset: 61 }]);
});

test("the base64 of a needle is found in the base64 of what holds it", () => {
  const secret = randomBytes(20);
  const search = new NeedleSearch({ secret });
  for (let before = 0; before < 6; before++) {
    for (let behind = 0; behind < 3; behind++) {
      const all = Buffer.concat([randomBytes(before), secret, randomBytes(behind)]);
      const found = search.search(reader(Buffer.from(all.toString("base64"))));
      expect(found.map(({ form, part }) => `${form}: ${part}`)).toEqual([
        `base64 +${before % 3}: whole`,
      ]);
    }
  }
});

test.for([
  { name: "7 octets", needle: "01020304050607" },
  { name: "one octet, many times", needle: "a5".repeat(32) },
  { name: "zeros in one half", needle: `${"00".repeat(16)}0102030405060708090a0b0c0d0e0f10` },
])("a needle of $name is refused: it would be found anywhere", ({ needle }) => {
  expect(() => new NeedleSearch({ needle: Buffer.from(needle, "hex") })).toThrow(RangeError);
});
