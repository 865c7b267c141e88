import { expect, test } from "vitest";
import { CountersignError } from "../../src/errors.ts";
import {
  canonicalName,
  canonicalNames,
  isCanonicalName,
  MAX_NAMES,
  shownName,
  type NameKind,
} from "../../src/policy/name.ts";

function refusalOf(action: () => unknown): CountersignError {
  try {
    action();
  } catch (error) {
    if (error instanceof CountersignError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const label63 = "a".repeat(63);
const name253 = `${label63}.${label63}.${label63}.${"b".repeat(56)}.test`;

test.for([
  { text: "www.example.test", want: "www.example.test" },
  { text: "WWW.Example.TEST", want: "www.example.test" },
  { text: "localhost", want: "localhost" },
  { text: "1.example.test", want: "1.example.test" },
  { text: "a--b.example.test", want: "a--b.example.test" },
  { text: "abc--d.example.test", want: "abc--d.example.test" },
  { text: "xn--bcher-kva.example", want: "xn--bcher-kva.example" },
  { text: "XN--BCHER-KVA.example", want: "xn--bcher-kva.example" },
  { text: "1a", want: "1a" },
  { text: "0xyz.0xg", want: "0xyz.0xg" },
  { text: "*.example.test", want: "*.example.test" },
  { text: "*.EXAMPLE.test", want: "*.example.test" },
  { text: `${label63}.test`, want: `${label63}.test` },
  { text: name253, want: name253 },
])("DESIGN 4: the DNS name $text has one spelling", ({ text, want }) => {
  expect(canonicalName("dns", text)).toBe(want);
  expect(isCanonicalName({ kind: "dns", value: want })).toBe(true);
  expect(isCanonicalName({ kind: "dns", value: text })).toBe(text === want);
});

test.for<{ reason: string; texts: string[] }>([
  { reason: "empty", texts: [""] },
  { reason: "name-too-long", texts: [`b${name253}`, "a".repeat(100_000), `*.${name253}`] },
  {
    reason: "control-character",
    texts: [
      "a\0.example.test",
      "\0",
      "a.example.test\0",
      "a.test\n",
      "\ta.test",
      "a\x7f.test",
      "a\x85.test",
    ],
  },
  {
    reason: "non-ascii",
    texts: [
      "bücher.example",
      "\u212Aelvin.test", // KELVIN SIGN: its lower case is the ASCII k
      "ex\u0430mple.test", // CYRILLIC SMALL LETTER A
      "a\u3002test", // IDEOGRAPHIC FULL STOP
      "a\u00adb.test",
      "\ud800.test",
    ],
  },
  {
    reason: "wildcard-position",
    texts: [
      "*",
      "*.",
      "*.*",
      "*.*.example.test",
      "a*.example.test",
      "*a.example.test",
      "**.example.test",
      "a.*.example.test",
      "example.*",
    ],
  },
  { reason: "wildcard-too-wide", texts: ["*.com", "*.localhost"] },
  {
    reason: "ip-as-dns",
    texts: [
      "10.0.0.1",
      "*.10.0.0.1",
      "10.1",
      "1",
      "010.0.0.1",
      "999.999.999.999",
      "example.123",
      "0x7f.1",
      "example.0x7f",
      "0x",
      "::1",
      "2001:db8::1",
    ],
  },
  { reason: "trailing-dot", texts: ["example.test.", "*.example.test.", ".", "10.0.0.1."] },
  { reason: "leading-dot", texts: [".example.test"] },
  { reason: "empty-label", texts: ["a..test", "*..test"] },
  { reason: "label-too-long", texts: [`a${label63}.test`, `www.a${label63}`] },
  { reason: "label-hyphen", texts: ["-a.test", "a-.test", "a.-", "-", "xn--.test"] },
  {
    reason: "not-ldh",
    texts: [
      "a_b.test",
      "_dmarc.example.test",
      "a b.test",
      " a.test",
      "a.test ",
      "a/b.test",
      "a@b.test",
      "a,b.test",
      "https://a.test",
      "a.test:443",
      "[::1]",
      '"a".test',
      "a\\.test",
    ],
  },
  {
    reason: "reserved-label",
    texts: ["ab--c.test", "bq--abc.example", "www.XY--a.test", "xm--a.b"],
  },
])("DESIGN 4: a DNS name is refused as $reason", ({ reason, texts }) => {
  for (const text of texts) {
    const error = refusalOf(() => canonicalName("dns", text));
    expect(error.code, text).toBe("name-malformed");
    expect(error.members, text).toEqual({ name: shownName(text), reason, rule: "SRV-04" });
    expect(isCanonicalName({ kind: "dns", value: text }), text).toBe(false);
  }
});

test("a name that is not ASCII is answered with the A-label to send", () => {
  expect(refusalOf(() => canonicalName("dns", "bücher.example")).message).toContain(
    "xn--bcher-kva.example",
  );
  expect(refusalOf(() => canonicalName("dns", "bü/cher")).message).toContain("xn--…");
});

test.for([
  { text: "192.0.2.1", want: "192.0.2.1" },
  { text: "0.0.0.0", want: "0.0.0.0" },
  { text: "255.255.255.255", want: "255.255.255.255" },
  { text: "2001:DB8:0:0:0:0:0:1", want: "2001:db8::1" },
  { text: "2001:0db8::0001", want: "2001:db8::1" },
  { text: "::", want: "::" },
  { text: "2001:db8:0:1:1:1:1:1", want: "2001:db8:0:1:1:1:1:1" },
  { text: "2001:0:0:1:0:0:0:1", want: "2001:0:0:1::1" },
  { text: "2001:db8:0:0:1:0:0:1", want: "2001:db8::1:0:0:1" },
  { text: "64:ff9b::192.0.2.33", want: "64:ff9b::c000:221" },
  { text: "::fffe:1.2.3.4", want: "::fffe:102:304" },
])("RFC 5952: the IP address $text is spelled $want", ({ text, want }) => {
  expect(canonicalName("ip", text)).toBe(want);
  expect(isCanonicalName({ kind: "ip", value: want })).toBe(true);
  expect(isCanonicalName({ kind: "ip", value: text })).toBe(text === want);
});

test.for<{ reason: string; texts: string[] }>([
  { reason: "empty", texts: [""] },
  { reason: "leading-zero", texts: ["010.0.0.1", "10.0.0.00", "::127.0.0.01"] },
  {
    reason: "ipv4-mapped",
    texts: ["::ffff:10.0.0.1", "::FFFF:a00:1", "0:0:0:0:0:ffff:0:0", "::ffff:255.255.255.255"],
  },
  { reason: "zone-id", texts: ["fe80::1%eth0", "fe80::1%", "::ffff:10.0.0.1%1"] },
  {
    reason: "ip-malformed",
    texts: [
      "10.0.0",
      "10.0.0.256",
      "10.0.0.0.1",
      "10.0.0.1.",
      "10.0.0.1/32",
      "10.0.0.1\0",
      "10.0.0.1\n",
      " 10.0.0.1",
      "1",
      "0x7f.0.0.1",
      "1e1.0.0.1",
      "١٠.0.0.1",
      ":",
      ":::",
      "1::2::3",
      "::1:",
      ":1::",
      "12345::",
      "g::1",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "1:2:3:4:5:6:7:8::",
      "::1:2:3:4:5:6:7:8",
      "::10.0.0.1:1",
      "10.0.0.1::",
      "::10.0.0",
      "1:2:3:4:5:6:7:10.0.0.1",
      "[::1]",
      "example.test",
      "*.0.0.1",
    ],
  },
])("DESIGN 4: an IP address is refused as $reason", ({ reason, texts }) => {
  for (const text of texts) {
    const error = refusalOf(() => canonicalName("ip", text));
    expect(error.code, text).toBe("name-malformed");
    expect(error.members, text).toEqual({ name: shownName(text), reason, rule: "SRV-05" });
    expect(isCanonicalName({ kind: "ip", value: text }), text).toBe(false);
  }
});

test("DESIGN 4: a canonical name stays as it is, and canonicalising only lowers case", () => {
  const parts = ["a", "B", "-", ".", "*", "_", "1", "xn--", "\0", "é", "0x", "::"];
  for (const first of parts) {
    for (const second of parts) {
      for (const third of ["", ...parts]) {
        for (const text of [`${first}${second}${third}`, `${first}${second}${third}.test`]) {
          let canonical: string;
          try {
            canonical = canonicalName("dns", text);
          } catch {
            continue;
          }
          expect(canonical).toBe(text.toLowerCase());
          expect(canonicalName("dns", canonical)).toBe(canonical);
          expect(canonical).toMatch(/^(?:\*\.)?[a-z0-9-]+(?:\.[a-z0-9-]+)*$/);
        }
      }
    }
  }
});

test("a name in an error is safe to print and short", () => {
  expect(shownName('a\0b\n"\\\u202e.test')).toBe("a\\u0000b\\u000a\\u0022\\u005c\\u202e.test");
  expect(shownName("x".repeat(500))).toBe(`${"x".repeat(100)}...`);
  const error = refusalOf(() => canonicalName("dns", `\0${"x".repeat(99)}`));
  expect(`${error.message}${JSON.stringify(error.members)}`).toMatch(/^[ -~]+$/);
});

const dns = (value: string) => ({ kind: "dns", value });

test("the names of a request keep their order and are canonicalised", () => {
  expect(
    canonicalNames([dns("B.example.test"), { kind: "ip", value: "::0001" }, dns("a.example.test")]),
  ).toEqual([dns("b.example.test"), { kind: "ip", value: "::1" }, dns("a.example.test")]);
  expect(canonicalNames([])).toEqual([]);
});

test("SRV-16: a hundred names are allowed and one more is not", () => {
  const names = Array.from({ length: MAX_NAMES }, (_, index) => dns(`n${index}.example.test`));
  expect(canonicalNames(names)).toHaveLength(100);
  const error = refusalOf(() => canonicalNames([...names, dns("one-more.example.test")]));
  expect(error.code).toBe("names-too-many");
  expect(error.members).toEqual({ count: 101, maximum: 100, rule: "SRV-16" });
  // Counted before anything is read.
  expect(refusalOf(() => canonicalNames([...names, dns("\0")])).code).toBe("names-too-many");
});

test.for<{ name: string; names: [NameKind | "email", string][]; repeated: string; reason: string }>(
  [
    {
      name: "the same name twice",
      names: [
        ["dns", "a.test"],
        ["dns", "b.test"],
        ["dns", "a.test"],
      ],
      repeated: "a.test",
      reason: "duplicate",
    },
    {
      name: "names that differ in case only",
      names: [
        ["dns", "a.test"],
        ["dns", "A.TEST"],
      ],
      repeated: "a.test",
      reason: "duplicate",
    },
    {
      name: "two spellings of one address",
      names: [
        ["ip", "::1"],
        ["ip", "0:0:0:0:0:0:0:1"],
      ],
      repeated: "::1",
      reason: "duplicate",
    },
    {
      name: "a name of a kind without rules twice",
      names: [
        ["email", "a@b.test"],
        ["email", "a@b.test"],
      ],
      repeated: "a@b.test",
      reason: "duplicate",
    },
    {
      name: "the same wildcard twice",
      names: [
        ["dns", "*.a.test"],
        ["dns", "*.A.test"],
      ],
      repeated: "*.a.test",
      reason: "duplicate",
    },
    {
      name: "a name covered by a wildcard after it",
      names: [
        ["dns", "a.example.test"],
        ["dns", "*.example.test"],
      ],
      repeated: "a.example.test",
      reason: "covered-by-wildcard",
    },
    {
      name: "a name covered by a wildcard before it",
      names: [
        ["dns", "*.example.test"],
        ["dns", "example.test"],
        ["dns", "A.Example.test"],
      ],
      repeated: "a.example.test",
      reason: "covered-by-wildcard",
    },
  ],
)("SRV-16: $name is refused", ({ names, repeated, reason }) => {
  const error = refusalOf(() => canonicalNames(names.map(([kind, value]) => ({ kind, value }))));
  expect(error.code).toBe("name-repeated");
  expect(error.members).toEqual({ name: repeated, reason, rule: "SRV-16" });
});

test("SRV-16: a wildcard covers one label, not its own host and not deeper names", () => {
  const names = ["*.example.test", "example.test", "b.a.example.test", "*.a.example.test"].map(dns);
  expect(() => canonicalNames(names)).toThrow("b.a.example.test");
  expect(canonicalNames(names.filter(({ value }) => value !== "b.a.example.test"))).toHaveLength(3);
  expect(canonicalNames(names.slice(0, 3))).toHaveLength(3);
});

test("DESIGN 4: one bad name among good ones refuses the whole request", () => {
  const error = refusalOf(() => canonicalNames([dns("a.test"), dns("b_b.test"), dns("c.test")]));
  expect(error.code).toBe("name-malformed");
  expect(error.members).toEqual({ name: "b_b.test", reason: "not-ldh", rule: "SRV-04" });
});

test("names of other kinds are left for the decision to refuse", () => {
  expect(canonicalNames([{ kind: "email", value: "A@b.test" }])).toEqual([
    { kind: "email", value: "A@b.test" },
  ]);
});
