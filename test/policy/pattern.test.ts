import { expect, test } from "vitest";
import { CountersignError } from "../../src/errors.ts";
import { isCanonicalName, type NameKind } from "../../src/policy/name.ts";
import {
  compilePatterns,
  deniesAll,
  parsePattern,
  patternText,
  type DnsPattern,
} from "../../src/policy/pattern.ts";
import { randomIntegers } from "./random-integers.ts";

const matches = (effect: "allow" | "deny", kind: NameKind, pattern: string, name: string) =>
  compilePatterns(kind, [parsePattern(kind, pattern)], effect)(name) === 0;

test.for([
  { pattern: "exact:example.test", yes: ["example.test"] },
  { pattern: "exact:EXAMPLE.test", yes: ["example.test"] },
  { pattern: "exact:a.example.test", yes: ["a.example.test"] },
  { pattern: "exact:test", yes: ["test"] },
  {
    pattern: "subdomains:example.test",
    yes: ["a.example.test", "b.example.test", "b.a.example.test", "example.test.example.test"],
  },
  { pattern: "one-label:example.test", yes: ["a.example.test", "b.example.test"] },
  { pattern: "one-label:test", yes: ["example.test", "aexample.test", "a-example.test"] },
  { pattern: "wildcard:example.test", yes: ["*.example.test"] },
  { pattern: "wildcard:a.example.test", yes: ["*.a.example.test"] },
])("the pattern $pattern allows these names and no others", ({ pattern, yes }) => {
  const names = [
    ...["test", "example.test", "a.example.test", "b.example.test", "b.a.example.test"],
    ...["*.example.test", "*.a.example.test", "*.b.a.example.test"],
    ...["aexample.test", "a-example.test", "example.testa", "example.test.example.test"],
    ...["a.example", "example", "a.other.example", "test.example"],
  ];
  expect(names.filter((name) => matches("allow", "dns", pattern, name))).toEqual(
    names.filter((name) => yes.includes(name)),
  );
});

// Every host of up to two labels and every name of up to four, over two labels.
const labels = ["a", "b"];
const below = (names: string[]) =>
  names.flatMap((name) => labels.map((label) => `${label}.${name}`));
const two = below(labels);
const hosts = [...labels, ...two];
const ordinary = [...hosts, ...below(two), ...below(below(two))];
const names = [...ordinary, ...ordinary.map((name) => `*.${name}`)].filter((value) =>
  isCanonicalName({ kind: "dns", value }),
);
const patterns = hosts
  .flatMap((host) =>
    ["exact", "subdomains", "one-label", "wildcard"].map((form) => `${form}:${host}`),
  )
  .filter((pattern) => !/^wildcard:[ab]$/.test(pattern));

/** The meanings as `Pattern` states them, the slow way. */
function allows({ form, host }: DnsPattern, name: string): boolean {
  if (name.startsWith("*.")) return form === "wildcard" && name === `*.${host}`;
  const under = name.endsWith(`.${host}`);
  const depth = name.split(".").length - host.split(".").length;
  const meanings = {
    exact: name === host,
    subdomains: under,
    "one-label": under && depth === 1,
    wildcard: false,
  };
  return meanings[form];
}

function denies(pattern: DnsPattern, name: string): boolean {
  if (allows(pattern, name)) return true;
  if (!name.startsWith("*.")) return false;
  // "c" is a label that no pattern here names.
  return [...labels, "c"].some((label) => allows(pattern, `${label}${name.slice(1)}`));
}

test("every pattern means what its docstring says, for every small name", () => {
  for (const text of patterns) {
    const pattern = parsePattern("dns", text) as DnsPattern;
    for (const name of names) {
      expect(matches("allow", "dns", text, name), `${text} ${name}`).toBe(allows(pattern, name));
      expect(matches("deny", "dns", text, name), `deny ${text} ${name}`).toBe(
        denies(pattern, name),
      );
    }
  }
});

test("of several patterns that match the first is the one that decides", () => {
  const next = randomIntegers(1);
  for (let round = 0; round < 300; round++) {
    const texts = Array.from({ length: 1 + next(6) }, () => patterns[next(patterns.length)]!);
    const list = texts.map((text) => parsePattern("dns", text) as DnsPattern);
    for (const [effect, meaning] of [["allow", allows] as const, ["deny", denies] as const]) {
      const matcher = compilePatterns("dns", list, effect);
      for (const name of names) {
        expect(matcher(name), `${effect} ${texts.join()} ${name}`).toBe(
          list.findIndex((pattern) => meaning(pattern, name)),
        );
      }
    }
  }
});

test("a rule is dead exactly where another denies every name that it allows", () => {
  for (const denyText of patterns) {
    const deny = parsePattern("dns", denyText) as DnsPattern;
    for (const allowText of patterns) {
      const allow = parsePattern("dns", allowText) as DnsPattern;
      const left = names.filter((name) => allows(allow, name) && !denies(deny, name));
      // Two labels are a small world: a third one is there for what is not a single name.
      if (allow.form === "one-label" || allow.form === "subdomains") {
        if (!denies(deny, `c.${allow.host}`)) left.push(`c.${allow.host}`);
      }
      expect(deniesAll(deny, allow), `deny ${denyText}, allow ${allowText}`).toBe(
        left.length === 0,
      );
    }
  }
});

test.for([
  { pattern: "10.0.0.0/8", yes: ["10.0.0.0", "10.255.255.255"], no: ["9.255.255.255", "11.0.0.0"] },
  { pattern: "10.0.0.1", yes: ["10.0.0.1"], no: ["10.0.0.0", "10.0.0.2"] },
  { pattern: "10.0.0.1/32", yes: ["10.0.0.1"], no: ["10.0.0.0", "10.0.0.2"] },
  { pattern: "0.0.0.0/0", yes: ["0.0.0.0", "255.255.255.255"], no: ["::", "::1", "::a00:1"] },
  { pattern: "128.0.0.0/1", yes: ["128.0.0.0", "255.255.255.255"], no: ["127.255.255.255"] },
  { pattern: "::/0", yes: ["::", "2001:db8::1"], no: ["0.0.0.0", "10.0.0.1"] },
  {
    pattern: "2001:DB8::/33",
    yes: ["2001:db8::", "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff"],
    no: ["2001:db8:8000::", "2001:db9::"],
  },
  { pattern: "2001:db8::1", yes: ["2001:db8::1"], no: ["2001:db8::", "2001:db8::2"] },
])("the IP block $pattern holds its addresses and no others", ({ pattern, yes, no }) => {
  for (const name of yes) expect(matches("allow", "ip", pattern, name), name).toBe(true);
  for (const name of no) expect(matches("allow", "ip", pattern, name), name).toBe(false);
  expect(matches("deny", "ip", pattern, yes[0]!)).toBe(true);
});

test("IP blocks hold the addresses that arithmetic says they hold, and the first one decides", () => {
  const next = randomIntegers(10);
  const dotted = (value: number) =>
    [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255].join(".");
  for (let round = 0; round < 300; round++) {
    const blocks = Array.from({ length: 1 + next(5) }, () => {
      const prefix = next(33);
      const size = 2 ** (32 - prefix);
      return { first: Math.floor(next(2 ** 32) / size) * size, size, prefix };
    });
    const matcher = compilePatterns(
      "ip",
      blocks.map(({ first, prefix }) => parsePattern("ip", `${dotted(first)}/${prefix}`)),
      "allow",
    );
    for (const { first, size } of blocks) {
      for (const value of [first - 1, first, first + size - 1, first + size, next(2 ** 32)]) {
        if (value < 0 || value >= 2 ** 32) continue;
        expect(matcher(dotted(value))).toBe(
          blocks.findIndex((block) => value >= block.first && value < block.first + block.size),
        );
      }
    }
  }
});

test.for([
  { deny: "10.0.0.0/8", allow: "10.1.0.0/16", want: true },
  { deny: "10.0.0.0/8", allow: "10.0.0.0/8", want: true },
  { deny: "10.1.0.0/16", allow: "10.0.0.0/8", want: false },
  { deny: "10.0.0.0/8", allow: "11.0.0.0/16", want: false },
  { deny: "0.0.0.0/0", allow: "::/0", want: false },
  { deny: "::/0", allow: "10.0.0.1", want: false },
  { deny: "2001:db8::/32", allow: "2001:db8::1", want: true },
])("denying $deny leaves nothing of $allow: $want", ({ deny, allow, want }) => {
  expect(deniesAll(parsePattern("ip", deny), parsePattern("ip", allow))).toBe(want);
});

test.for([
  { kind: "dns", text: "Exact", want: /more than one reading/ },
  { kind: "dns", text: "subdomains:Example.TEST", want: "subdomains:example.test" },
  { kind: "dns", text: "wildcard:Example.test", want: "wildcard:example.test" },
  { kind: "ip", text: "10.0.0.1", want: "10.0.0.1/32" },
  { kind: "ip", text: "2001:DB8:0::/48", want: "2001:db8::/48" },
] as const)("the pattern $text has one spelling", ({ kind, text, want }) => {
  if (typeof want === "string") {
    expect(patternText(parsePattern(kind, text))).toBe(want);
    expect(patternText(parsePattern(kind, want))).toBe(want);
  } else {
    expect(() => parsePattern(kind, text)).toThrow(want);
  }
});

const twoReadings =
  /more than one reading: write exact:example\.test .* subdomains:example\.test .* one-label:example\.test .* wildcard:example\.test for \*\.example\.test/;

test.for<{ kind: NameKind; text: string; says: RegExp }>([
  { kind: "dns", text: "example.test", says: twoReadings },
  { kind: "dns", text: "*.example.test", says: twoReadings },
  { kind: "dns", text: ".example.test", says: twoReadings },
  { kind: "dns", text: "", says: /more than one reading/ },
  { kind: "dns", text: "*", says: /more than one reading/ },
  { kind: "dns", text: "exact:*.example.test", says: /write wildcard:example\.test/ },
  { kind: "dns", text: "subdomains:*.example.test", says: /write wildcard:example\.test/ },
  { kind: "dns", text: "wildcard:*.example.test", says: /write wildcard:example\.test/ },
  { kind: "dns", text: "exact:a*.example.test", says: /has a \*/ },
  { kind: "dns", text: "suffix:example.test", says: /unknown prefix "suffix:".*subdomains:/ },
  { kind: "dns", text: "Exact:example.test", says: /unknown prefix "Exact:"/ },
  { kind: "dns", text: "exact :example.test", says: /unknown prefix/ },
  { kind: "dns", text: "toString:example.test", says: /unknown prefix/ },
  { kind: "dns", text: "exact:", says: /names no host/ },
  { kind: "dns", text: "exact: example.test", says: /can never match.*letters, digits/ },
  { kind: "dns", text: "exact:example.test.", says: /can never match.*ends in a dot/ },
  { kind: "dns", text: "subdomains:.example.test", says: /can never match.*begins with a dot/ },
  { kind: "dns", text: "exact:a_b.test", says: /can never match.*"_"/ },
  { kind: "dns", text: "exact:bücher.example", says: /can never match.*xn--bcher-kva\.example/ },
  { kind: "dns", text: "exact:a\0.test", says: /can never match.*control character/ },
  { kind: "dns", text: "exact:10.0.0.1", says: /can never match.*IP name/ },
  { kind: "dns", text: "wildcard:com", says: /can never match.*two labels must follow/ },
  { kind: "dns", text: "10.0.0.1", says: /belongs under ip/ },
  { kind: "dns", text: "10.0.0.0/8", says: /belongs under ip/ },
  { kind: "dns", text: "2001:db8::1", says: /belongs under ip/ },
  {
    kind: "dns",
    text: `subdomains:${`${"a".repeat(62)}.`.repeat(4)}`.slice(0, -1) + "b",
    says: /can never match: no name below it is short enough/,
  },
  {
    kind: "ip",
    text: "10.0.0.1/8",
    says: /host bits set: write 10\.0\.0\.0\/8 .* or 10\.0\.0\.1 for/,
  },
  { kind: "ip", text: "2001:db8::1/64", says: /host bits set: write 2001:db8::\/64/ },
  { kind: "ip", text: "10.0.0.0/33", says: /prefix length from 0 to 32/ },
  { kind: "ip", text: "2001:db8::/129", says: /prefix length from 0 to 128/ },
  { kind: "ip", text: "10.0.0.0/", says: /prefix length/ },
  { kind: "ip", text: "10.0.0.0/08", says: /prefix length/ },
  { kind: "ip", text: "10.0.0.0/-1", says: /prefix length/ },
  { kind: "ip", text: "10.0.0.0/8/8", says: /prefix length/ },
  { kind: "ip", text: "10.0.0.0/255.0.0.0", says: /prefix length/ },
  { kind: "ip", text: "10/8", says: /not an IP block: write 10\.0\.0\.0\/8/ },
  { kind: "ip", text: "10.0.0.1-10.0.0.9", says: /not an IP block/ },
  { kind: "ip", text: "", says: /not an IP block/ },
  { kind: "ip", text: "example.test", says: /not an IP block/ },
  { kind: "ip", text: "exact:10.0.0.1", says: /without prefix: 10\.0\.0\.1/ },
  { kind: "ip", text: "010.0.0.0/8", says: /leading zero/ },
  { kind: "ip", text: "::ffff:0:0/96", says: /write the IPv4 address/ },
  { kind: "ip", text: "::ffff:10.0.0.1", says: /write the IPv4 address/ },
  { kind: "ip", text: "fe80::%eth0/64", says: /zone id/ },
])("the $kind pattern $text is refused, with what to write instead", ({ kind, text, says }) => {
  expect(() => parsePattern(kind, text)).toThrow(CountersignError);
  expect(() => parsePattern(kind, text)).toThrow(says);
});
