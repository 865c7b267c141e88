import { expect, test } from "vitest";
import { grantSchema, hourlyAllowance } from "../../src/custody/grant.ts";

const digest = `sha256:${"ab".repeat(32)}`;
const standing = { operations: ["crl"], profiles: [], policy: digest, signaturesPerHour: 5 };

test.for([
  { name: "a standing grant", grant: standing },
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
])("$name is no grant", ({ grant }) => {
  expect(grantSchema.safeParse(grant).success).toBe(false);
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
