import { isIPv4, isIPv6 } from "node:net";
import { expect, test } from "vitest";
import { ipAddressText, maskAddress, readIpAddress } from "../../src/policy/ip-address.ts";
import { randomIntegers } from "./random-integers.ts";

test("RFC 5952: any address is written as the URL standard writes it, and reads back", () => {
  const next = randomIntegers(5952);
  for (let round = 0; round < 5000; round++) {
    // Many zeros, so that runs of every length and place occur.
    const hextets = Array.from({ length: 8 }, () => (next(2) === 0 ? 0 : next(0x10000)));
    const full = hextets.map((hextet) => hextet.toString(16).padStart(4, "0")).join(":");
    const address = readIpAddress(full);
    if (typeof address === "string") {
      expect(hextets.slice(0, 6)).toEqual([0, 0, 0, 0, 0, 0xffff]);
      continue;
    }
    const text = ipAddressText(address);
    expect(`[${text}]`).toBe(new URL(`http://[${full}]`).hostname);
    expect(readIpAddress(text)).toEqual(address);
  }
});

test("an address is read exactly where the platform reads one", () => {
  const next = randomIntegers(4291);
  const parts = [
    ":",
    "::",
    ":",
    "0",
    "1",
    "ffff",
    "12345",
    ".",
    "10.0.0.1",
    "256",
    "g",
    "db8",
    "00",
  ];
  for (let round = 0; round < 20_000; round++) {
    const text = Array.from({ length: 1 + next(16) }, () => parts[next(parts.length)]).join("");
    const address = readIpAddress(text);
    const read = typeof address !== "string" || address === "ipv4-mapped";
    expect(read, text).toBe(isIPv4(text) || isIPv6(text));
  }
});

test.for([
  { address: [0xffffffff], prefix: 0, want: [0] },
  { address: [0xffffffff], prefix: 1, want: [0x80000000] },
  { address: [0xffffffff], prefix: 31, want: [0xfffffffe] },
  { address: [0xffffffff], prefix: 32, want: [0xffffffff] },
  {
    address: [-1 >>> 0, -1 >>> 0, -1 >>> 0, -1 >>> 0],
    prefix: 33,
    want: [0xffffffff, 0x80000000, 0, 0],
  },
  { address: [1, 2, 3, 4], prefix: 96, want: [1, 2, 3, 0] },
  { address: [1, 2, 3, 4], prefix: 128, want: [1, 2, 3, 4] },
])("the first $prefix bits of $address are kept", ({ address, prefix, want }) => {
  expect(maskAddress(address, prefix)).toEqual(want);
});
