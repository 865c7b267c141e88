/** Lifetimes as people write them: "90d", "18 months", "1 year 6 months". */

import { CountersignError } from "../errors.ts";

/** Calendar months are added before seconds. A day is 86,400 seconds (CRT-10), a year 12 months. */
export interface Lifetime {
  readonly months: number;
  readonly seconds: number;
}

type Unit = { readonly months: number } | { readonly seconds: number };

const units: ReadonlyMap<string, Unit> = new Map(
  (
    [
      [["s", "sec", "second", "seconds"], { seconds: 1 }],
      [["min", "minute", "minutes"], { seconds: 60 }],
      [["h", "hour", "hours"], { seconds: 3600 }],
      [["d", "day", "days"], { seconds: 86_400 }],
      [["w", "week", "weeks"], { seconds: 604_800 }],
      [["month", "months"], { months: 1 }],
      [["y", "year", "years"], { months: 12 }],
    ] as const satisfies (readonly [readonly string[], Unit])[]
  ).flatMap(([words, unit]) => words.map((word) => [word, unit] as const)),
);

/** Far above any root, and far below where Date ends. */
const LONGEST_YEARS = 100;
const EXAMPLES = 'for example "90d", "24h", "18 months" or "1 year 6 months"';

/**
 * Reads one or more of number and unit, each unit once: s, min, h, d, w, months, y, and the words.
 *
 * @throws CountersignError `lifetime-malformed`: also for `m` alone, which is minutes to one
 *   reader and months to another, for nothing at all ("0d"), and for more than 100 years.
 */
export function parseLifetime(text: string): Lifetime {
  const lifetime = read(text, units, EXAMPLES);
  if (lifetime.months === 0 && lifetime.seconds === 0) {
    throw malformed(text, `is no time at all: write ${EXAMPLES}`);
  }
  return lifetime;
}

/**
 * Reads a span without calendar units, in which `m` can only be minutes.
 *
 * @returns Whole seconds; 0 for "0s".
 * @throws CountersignError `lifetime-malformed`.
 */
export function parseDuration(text: string): number {
  return read(text, durationUnits, 'for example "5m", "90s" or "24h"').seconds;
}

const durationUnits: ReadonlyMap<string, Unit> = new Map([
  ...[...units].filter(([, unit]) => "seconds" in unit),
  ["m", { seconds: 60 }],
]);

/**
 * The last second of a validity period that begins at `from`: RFC 5280 §4.1.2.5 counts notAfter
 * in, so 90 days end one second before the same time of the 90th day after (CRT-10).
 *
 * Calendar months keep the day of the month, or take the last day of a shorter month; all in UTC.
 */
export function addLifetime(from: Date, lifetime: Lifetime): Date {
  const end = new Date(from);
  if (lifetime.months !== 0) {
    end.setUTCDate(1);
    end.setUTCMonth(end.getUTCMonth() + lifetime.months);
    const lastDay = new Date(Date.UTC(end.getUTCFullYear(), end.getUTCMonth() + 1, 0));
    end.setUTCDate(Math.min(from.getUTCDate(), lastDay.getUTCDate()));
  }
  return new Date(end.getTime() + (lifetime.seconds - 1) * 1000);
}

/** The lifetime in words, each unit once and largest first; `parseLifetime` reads it back. */
export function formatLifetime(lifetime: Lifetime): string {
  const { months, seconds } = lifetime;
  const parts: [count: number, unit: string][] = [
    [Math.floor(months / 12), "year"],
    [months % 12, "month"],
    [Math.floor(seconds / 86_400), "day"],
    [Math.floor(seconds / 3600) % 24, "hour"],
    [Math.floor(seconds / 60) % 60, "minute"],
    [seconds % 60, "second"],
  ];
  const words = parts
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}${count === 1 ? "" : "s"}`);
  return words.length === 0 ? "0 seconds" : words.join(" ");
}

/**
 * Whether the first can end later than the second, for a period that begins on some day.
 * "90d" can: three months from 1 February are 89 days.
 */
export function canExceed(first: Lifetime, second: Lifetime): boolean {
  if (first.months === second.months) return first.seconds > second.seconds;
  // 28 years hold every pairing of weekday, month and leap year until 2100.
  const day = new Date(Date.UTC(2024, 0, 1));
  for (; day.getUTCFullYear() < 2052; day.setUTCDate(day.getUTCDate() + 1)) {
    if (addLifetime(day, first) > addLifetime(day, second)) return true;
  }
  return false;
}

function read(text: string, known: ReadonlyMap<string, Unit>, examples: string): Lifetime {
  const written = text.trim();
  const seen = new Set<Unit>();
  let [months, seconds, length] = [0, 0, 0];
  for (const [part, count, word] of written.matchAll(/(\d{1,9})\s*([A-Za-z]+)\s*/gy)) {
    length += part.length;
    const unit = known.get(word!.toLowerCase());
    if (unit === undefined) throw malformed(text, unitAdvice(word!, examples));
    if (seen.has(unit)) throw malformed(text, "has a unit twice: add the numbers up");
    seen.add(unit);
    if ("months" in unit) months += Number(count) * unit.months;
    else seconds += Number(count) * unit.seconds;
  }
  if (length === 0 || length !== written.length) {
    throw malformed(text, `is not a number with a unit: write ${examples}`);
  }
  if (months / 12 + seconds / (365 * 86_400) > LONGEST_YEARS) {
    throw malformed(text, `is longer than ${LONGEST_YEARS} years`);
  }
  return { months, seconds };
}

function unitAdvice(word: string, examples: string): string {
  const unit = word.toLowerCase();
  if (unit === "m") {
    return 'is ambiguous: "m" may mean minutes or months, write "min" or "months"';
  }
  return units.has(unit)
    ? `has a unit without a fixed length, "${word}": give days or less, ${examples}`
    : `has the unknown unit "${word.slice(0, 20)}": write ${examples}`;
}

function malformed(text: string, detail: string): CountersignError {
  const shown = JSON.stringify(text.slice(0, 40));
  return new CountersignError("lifetime-malformed", `the lifetime ${shown} ${detail}`);
}
