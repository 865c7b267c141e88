import { expect, test } from "vitest";
import { digestOf } from "../../src/audit/digest.ts";
import {
  configuredGrant,
  grantSchema,
  hourlyAllowance,
  windowOperation,
  type Grant,
} from "../../src/custody/grant.ts";
import { emptyState, type StateFile } from "../../src/custody/keeper-state.ts";
import { signatureCount } from "../../src/custody/signature-count.ts";

const digest = `sha256:${"ab".repeat(32)}`;
const standing = { operations: ["crl"], profiles: [], policy: digest, signaturesPerHour: 5 };
const window = {
  operations: [
    { operation: "certificate", profile: "server", max: 1 },
    { operation: "certificate", max: 9 },
    { operation: "crl", max: 24 },
  ],
  notBefore: "2026-11-21T20:00:00Z",
  notAfter: "2026-11-22T20:00:00Z",
  idleSeconds: 28_800,
};
const ofWindow = (change: object): object => ({ window: { ...window, ...change }, policy: digest });

test.for([
  { name: "a standing grant", grant: standing },
  { name: "a window", grant: ofWindow({}) },
  { name: "a window of 24 hours", grant: ofWindow({ notBefore: "2026-11-21T20:00:00Z" }) },
  { name: "a window for requesters", grant: ofWindow({ requesters: ["deploy"] }) },
  { name: "a window for labels", grant: ofWindow({ labels: ["audit"] }) },
  {
    name: "a window with URLs",
    grant: { ...ofWindow({}), crlUrl: "http://a/", caIssuersUrl: "http://b/" },
  },
  { name: "a list of digests with an end", grant: { digests: [digest], seconds: 900 } },
  { name: "a bound for CRLs", grant: { ...standing, maximumCrlLifetime: "180d" } },
  { name: "a list of digests", grant: { digests: [digest] } },
])("$name is a grant", ({ grant }) => {
  expect(grantSchema.safeParse(grant).success).toBe(true);
});

test.for([
  { name: "both kinds at once", grant: { ...standing, digests: [digest] } },
  { name: "no operation", grant: { ...standing, operations: [] } },
  { name: "an unknown operation", grant: { ...standing, operations: ["csr"] } },
  { name: "no digests", grant: { digests: [] } },
  { name: "a digest twice", grant: { digests: [digest, digest] } },
  { name: "a digest in capitals", grant: { digests: [digest.toUpperCase()] } },
  { name: "no signatures", grant: { ...standing, signaturesPerHour: 0 } },
  { name: "a lifetime without a unit", grant: { ...standing, maximumCrlLifetime: "8" } },
  { name: "an unknown field", grant: { ...standing, unlimited: true } },
  { name: "a window and digests", grant: { ...ofWindow({}), digests: [digest] } },
  { name: "a window and a standing grant", grant: { ...ofWindow({}), ...standing } },
  { name: "a window without a policy", grant: { window } },
  { name: "a window without an operation", grant: ofWindow({ operations: [] }) },
  {
    name: "a window for requests",
    grant: ofWindow({ operations: [{ operation: "request", max: 1 }] }),
  },
  { name: "a window for none", grant: ofWindow({ operations: [{ operation: "crl", max: 0 }] }) },
  {
    name: "a window with an operation twice",
    grant: ofWindow({
      operations: [
        { operation: "crl", max: 1 },
        { operation: "crl", max: 2 },
      ],
    }),
  },
  {
    name: "a window with a profile twice",
    grant: ofWindow({
      operations: [
        { operation: "certificate", profile: "server", max: 1 },
        { operation: "certificate", profile: "server", max: 2 },
      ],
    }),
  },
  { name: "a window for nobody", grant: ofWindow({ requesters: [] }) },
  {
    name: "a window that is over before it begins",
    grant: ofWindow({ notAfter: "2026-11-21T19:59:59Z" }),
  },
  {
    name: "a window that is over when it begins",
    grant: ofWindow({ notAfter: "2026-11-21T20:00:00Z" }),
  },
  {
    name: "a window of 24 hours and a second",
    grant: ofWindow({ notAfter: "2026-11-22T20:00:01Z" }),
  },
  { name: "a window with an unknown field", grant: ofWindow({ unlimited: true }) },
  { name: "a window that idles for seconds", grant: ofWindow({ idleSeconds: 59 }) },
  { name: "digests for more than 15 minutes", grant: { digests: [digest], seconds: 901 } },
  { name: "digests for no time", grant: { digests: [digest], seconds: 0 } },
])("$name is no grant", ({ grant }) => {
  expect(grantSchema.safeParse(grant).success).toBe(false);
});

test.for([
  { name: "a standing grant", grant: standing, good: true },
  { name: "digests", grant: { digests: [digest] }, good: true },
  { name: "digests with an end", grant: { digests: [digest], seconds: 900 }, good: false },
  { name: "a window", grant: ofWindow({}), good: false },
])("a configuration grants $name: $good", ({ grant, good }) => {
  expect(configuredGrant.safeParse(grant).success).toBe(good);
});

test.for([
  { operation: "certificate", profile: "server", index: 0 },
  { operation: "certificate", profile: "client", index: 1 },
  { operation: "certificate", profile: undefined, index: 1 },
  { operation: "crl", profile: undefined, index: 2 },
  { operation: "request", profile: undefined, index: -1 },
])(
  "of a window $operation $profile counts for operation $index",
  ({ operation, profile, index }) => {
    const { operations } = window as Parameters<typeof windowOperation>[0];
    expect(windowOperation({ operations }, operation, profile)).toBe(index);
  },
);

const tbs = Buffer.from("tbs");

test.for([
  { name: "a window", grant: ofWindow({}) },
  { name: "a sealed key's digests", grant: { digests: [digestOf(tbs)], seconds: 900 } },
])("the keeper writes nothing for $name: the signer's end locks the key", ({ grant }) => {
  const stateFile = {
    state: emptyState(),
    change: () => {
      throw new Error("written");
    },
  } as unknown as StateFile;
  const parts = { stateFile, now: () => new Date(0), monotonic: () => 0 };
  const count = signatureCount(grantSchema.parse(grant) satisfies Grant, parts);
  expect(count.alreadySigned("ab".repeat(32))).toBe(0);
  expect(count.spent).toBeUndefined();
  expect(() => count.count("ab".repeat(32), [tbs])(() => true)).not.toThrow();
});

test("signatures are counted within any hour, and come back minute by minute", () => {
  let seconds = 12_345;
  const allowance = hourlyAllowance(100, 0, () => seconds);
  allowance.spend(60);
  seconds += 1800;
  allowance.spend(40);
  expect(allowance.left).toBe(0);
  expect(() => allowance.spend(1)).toThrow(expect.objectContaining({ code: "grant-exceeded" }));
  seconds += 1799; // an hour less a second after the first
  expect(allowance.left).toBe(0);
  seconds += 61;
  expect(allowance.left).toBe(60);
  seconds += 1800;
  expect(allowance.left).toBe(100);
});

test("what does not fit is not counted in part", () => {
  const allowance = hourlyAllowance(10, 0, () => 0);
  allowance.spend(8);
  expect(() => allowance.spend(3)).toThrow();
  expect(allowance.left).toBe(2);
});

test("what was signed before a restart counts from the restart on", () => {
  let seconds = 0;
  const allowance = hourlyAllowance(100, 99, () => seconds);
  allowance.spend(1);
  seconds = 3599;
  expect(allowance.left).toBe(0);
  seconds = 3661;
  expect(allowance.left).toBe(100);
});

test("a long rest gives back the whole, once", () => {
  let seconds = 0;
  const allowance = hourlyAllowance(10, 5, () => seconds);
  seconds = 1_000_000;
  expect(allowance.left).toBe(10);
  allowance.spend(10);
  expect(allowance.left).toBe(0);
});
