import { expect, test } from "vitest";
import {
  addLifetime,
  canExceed,
  formatLifetime,
  parseDuration,
  parseLifetime,
} from "../../src/policy/lifetime.ts";
import { randomIntegers } from "./random-integers.ts";

const DAY = 86_400;

test.for([
  { text: "90d", want: { months: 0, seconds: 90 * DAY } },
  { text: "1 day", want: { months: 0, seconds: DAY } },
  { text: "24h", want: { months: 0, seconds: DAY } },
  { text: "2 hours 30 min", want: { months: 0, seconds: 9000 } },
  { text: "45minutes", want: { months: 0, seconds: 2700 } },
  { text: "90s", want: { months: 0, seconds: 90 } },
  { text: "1 second", want: { months: 0, seconds: 1 } },
  { text: "2w", want: { months: 0, seconds: 14 * DAY } },
  { text: "18 months", want: { months: 18, seconds: 0 } },
  { text: "1 month", want: { months: 1, seconds: 0 } },
  { text: "5y", want: { months: 60, seconds: 0 } },
  { text: "1 year 6 months", want: { months: 18, seconds: 0 } },
  { text: "1year6months", want: { months: 18, seconds: 0 } },
  { text: "  20 Years  ", want: { months: 240, seconds: 0 } },
  { text: "1y 1d 1h 1min 1s", want: { months: 12, seconds: DAY + 3661 } },
  { text: "100 years", want: { months: 1200, seconds: 0 } },
])("the lifetime $text is read", ({ text, want }) => {
  expect(parseLifetime(text)).toEqual(want);
});

test.for([
  { text: "5m", says: /minutes or months.*"min" or "months"/ },
  { text: "5M", says: /minutes or months/ },
  { text: "1h 5m", says: /minutes or months/ },
  { text: "", says: /for example "90d"/ },
  { text: "90", says: /number with a unit.*"90d"/ },
  { text: "d", says: /number with a unit/ },
  { text: "P90D", says: /number with a unit/ },
  { text: "-1d", says: /number with a unit/ },
  { text: "1.5d", says: /number with a unit/ },
  { text: "1,5d", says: /number with a unit/ },
  { text: "90d,", says: /number with a unit/ },
  { text: "1 year and 6 months", says: /number with a unit/ },
  { text: "90 fortnights", says: /unknown unit "fortnights"/ },
  { text: "1d 1 day", says: /twice/ },
  { text: "1d 2d", says: /twice/ },
  { text: "0d", says: /no time at all/ },
  { text: "0 years 0s", says: /no time at all/ },
  { text: "101 years", says: /longer than 100 years/ },
  { text: "999999999y", says: /longer than 100 years/ },
  { text: "9999999999s", says: /number with a unit/ },
  { text: "٩٠d", says: /number with a unit/ },
])("the lifetime $text is refused, with what to write instead", ({ text, says }) => {
  expect(() => parseLifetime(text)).toThrow(
    expect.objectContaining({ code: "lifetime-malformed", message: expect.stringMatching(says) }),
  );
});

test.for([
  { text: "5m", want: 300 },
  { text: "5 minutes", want: 300 },
  { text: "1h 30m", want: 5400 },
  { text: "24h", want: DAY },
  { text: "0s", want: 0 },
  { text: "0 minutes", want: 0 },
])("the duration $text has only one reading", ({ text, want }) => {
  expect(parseDuration(text)).toBe(want);
});

test.for(["1 month", "1y", "5", "1m 1m", "m"])("the duration %s is refused", (text) => {
  expect(() => parseDuration(text)).toThrow(
    expect.objectContaining({ code: "lifetime-malformed" }),
  );
});

test.for([
  { from: "2026-01-01T00:00:00Z", lifetime: "90d", want: "2026-03-31T23:59:59Z" },
  { from: "2026-01-01T00:00:00Z", lifetime: "1d", want: "2026-01-01T23:59:59Z" },
  { from: "2026-01-01T12:00:00Z", lifetime: "24h", want: "2026-01-02T11:59:59Z" },
  { from: "2026-01-31T12:00:00Z", lifetime: "1 month", want: "2026-02-28T11:59:59Z" },
  { from: "2028-01-31T12:00:00Z", lifetime: "1 month", want: "2028-02-29T11:59:59Z" },
  { from: "2028-02-29T12:00:00Z", lifetime: "1 year", want: "2029-02-28T11:59:59Z" },
  { from: "2028-02-29T12:00:00Z", lifetime: "4 years", want: "2032-02-29T11:59:59Z" },
  { from: "2026-03-31T00:00:00Z", lifetime: "1 month", want: "2026-04-29T23:59:59Z" },
  { from: "2026-12-31T00:00:00Z", lifetime: "2 months", want: "2027-02-27T23:59:59Z" },
  { from: "2026-08-15T00:00:00Z", lifetime: "18 months", want: "2028-02-14T23:59:59Z" },
  { from: "2026-01-31T00:00:00Z", lifetime: "1 month 1d", want: "2026-02-28T23:59:59Z" },
  { from: "2026-01-01T00:00:00Z", lifetime: "20 years", want: "2045-12-31T23:59:59Z" },
  { from: "2026-03-29T00:30:00Z", lifetime: "1d", want: "2026-03-30T00:29:59Z" },
])("CRT-10: $lifetime from $from ends with the second $want", ({ from, lifetime, want }) => {
  expect(addLifetime(new Date(from), parseLifetime(lifetime))).toEqual(new Date(want));
});

test("adding a lifetime leaves its start alone", () => {
  const from = new Date("2026-01-31T00:00:00Z");
  addLifetime(from, parseLifetime("1 month"));
  expect(from.toISOString()).toBe("2026-01-31T00:00:00.000Z");
});

test.for([
  { text: "90d", want: "90 days" },
  { text: "24h", want: "1 day" },
  { text: "18 months", want: "1 year 6 months" },
  { text: "12 months", want: "1 year" },
  { text: "1 month", want: "1 month" },
  { text: "90min", want: "1 hour 30 minutes" },
  { text: "1w 1s", want: "7 days 1 second" },
])("$text is shown as $want", ({ text, want }) => {
  expect(formatLifetime(parseLifetime(text))).toBe(want);
});

test("what is shown reads back as the same lifetime", () => {
  const next = randomIntegers(90);
  for (let round = 0; round < 1000; round++) {
    const lifetime = { months: next(600), seconds: 1 + next(1_000_000_000) };
    expect(parseLifetime(formatLifetime(lifetime))).toEqual(lifetime);
  }
  expect(formatLifetime({ months: 0, seconds: 0 })).toBe("0 seconds");
  expect(parseDuration("0 seconds")).toBe(0);
});

test.for([
  { first: "90d", second: "90d", want: false },
  { first: "91d", second: "90d", want: true },
  { first: "24h", second: "1d", want: false },
  { first: "1 year", second: "12 months", want: false },
  { first: "1 year 1s", second: "1 year", want: true },
  { first: "89d", second: "3 months", want: false },
  { first: "90d", second: "3 months", want: true },
  { first: "3 months", second: "92d", want: false },
  { first: "3 months", second: "91d", want: true },
  { first: "365d", second: "1 year", want: false },
  { first: "366d", second: "1 year", want: true },
])("whether $first can be longer than $second: $want", ({ first, second, want }) => {
  expect(canExceed(parseLifetime(first), parseLifetime(second))).toBe(want);
});
