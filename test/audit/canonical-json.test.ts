import { readFileSync } from "node:fs";
import { hash } from "node:crypto";
import { expect, test } from "vitest";
import { canonicalJson, parseCanonicalJson, type Json } from "../../src/audit/canonical-json.ts";

interface Vectors {
  readonly documents: readonly { name: string; length: number; json: string; sha256: string }[];
}

const vectors = JSON.parse(
  readFileSync(new URL("../vectors/canonical-json.json", import.meta.url), "utf8"),
) as Vectors;

test.for(vectors.documents)(
  "CUSTODY 14: $name is its own canonical form",
  ({ json, length, sha256 }) => {
    const bytes = Buffer.from(json);
    expect(bytes.length).toBe(length);
    const again = canonicalJson(parseCanonicalJson(bytes));
    expect(again).toBe(json);
    expect(hash("sha256", again)).toBe(sha256);
  },
);

test.for<{ name: string; value: Json; want: string }>([
  { name: "names in order", value: { b: 1, a: [true, null] }, want: '{"a":[true,null],"b":1}' },
  { name: "names that look like numbers", value: { "10": 1, "9": 2 }, want: '{"10":1,"9":2}' },
  {
    name: "names by UTF-16 units: U+1F600 before U+FB33",
    value: { "\ufb33": 1, "\u{1f600}": 2 },
    want: '{"\u{1f600}":2,"\ufb33":1}',
  },
  { name: "escapes", value: '"\\/\b\t\u0001\u007f', want: '"\\"\\\\/\\b\\t\\u0001\u007f"' },
  {
    name: "largest integer",
    value: [2 ** 53 - 1, -(2 ** 53 - 1), 0],
    want: `[${2 ** 53 - 1},-${2 ** 53 - 1},0]`,
  },
  { name: "nothing", value: {}, want: "{}" },
])("CUSTODY 2.6: $name", ({ value, want }) => {
  expect(canonicalJson(value)).toBe(want);
  expect(parseCanonicalJson(Buffer.from(want))).toEqual(value);
});

test.for<{ name: string; value: unknown }>([
  { name: "a fraction", value: 0.5 },
  { name: "minus zero", value: -0 },
  { name: "2^53", value: 2 ** 53 },
  { name: "not a number", value: Number.NaN },
  { name: "half a surrogate pair", value: "\ud800" },
  { name: "half a surrogate pair in a name", value: { "\udc00": 1 } },
  { name: "an undefined member", value: { a: undefined } },
  { name: "a hole", value: [, 1] }, // oxlint-disable-line no-sparse-arrays
  { name: "a date", value: new Date(0) },
  { name: "bytes", value: new Uint8Array(1) },
  { name: "a bigint", value: 1n },
  { name: "__proto__", value: JSON.parse('{"__proto__":1}') },
  { name: "65 levels", value: nested(65) },
])("CUSTODY 2.6: $name has no encoding", ({ value }) => {
  expect(() => canonicalJson(value as Json)).toThrow(TypeError);
});

test.for([
  { name: "a repeated name", text: '{"a":1,"a":1}' },
  { name: "a space", text: '{"a": 1}' },
  { name: "a newline at the end", text: '{"a":1}\n' },
  { name: "another order", text: '{"b":1,"a":1}' },
  { name: "an exponent", text: "1e3" },
  { name: "minus zero", text: "-0" },
  { name: "a fraction", text: "0.5" },
  { name: "a number that loses digits", text: "9007199254740993" },
  { name: "an escaped slash", text: '"\\/"' },
  { name: "an escape that was not needed", text: '"\\u0041"' },
  { name: "half a surrogate pair", text: '"\\ud800"' },
  { name: "__proto__", text: '{"__proto__":1}' },
  { name: "a byte order mark", text: "\ufeff{}" },
  { name: "nothing", text: "" },
  { name: "30,000 brackets", text: "[".repeat(30_000) + "]".repeat(30_000) },
])("CUSTODY 2.6: $name is refused", ({ text }) => {
  expect(() => parseCanonicalJson(Buffer.from(text))).toThrow(SyntaxError);
});

test("CUSTODY 2.6: bytes that are not UTF-8 are refused", () => {
  expect(() => parseCanonicalJson(Uint8Array.of(0x22, 0xc3, 0x28, 0x22))).toThrow(SyntaxError);
  expect(() => parseCanonicalJson(Uint8Array.of(0x22, 0xed, 0xa0, 0x80, 0x22))).toThrow(
    SyntaxError,
  );
});

test("64 levels are written and read", () => {
  const text = canonicalJson(nested(64));
  expect(canonicalJson(parseCanonicalJson(Buffer.from(text)))).toBe(text);
});

function nested(levels: number): Json {
  let value: Json = [];
  for (let level = 1; level < levels; level++) {
    value = [value];
  }
  return value;
}
