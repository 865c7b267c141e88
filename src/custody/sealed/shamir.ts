/**
 * Shamir's scheme over a KEK: the only importer of shamirs-secret-sharing-ts. CUSTODY.md 1 lists what the package
 * gets wrong; 2.2 and 2.3 say what is done about it. Call this in processes that live for one split or one recovery:
 * the package leaves copies of the secret in memory that nobody can wipe.
 */

import { timingSafeEqual } from "node:crypto";
import { combine, split } from "shamirs-secret-sharing-ts";
import { interpolate, type Point } from "./field.ts";
import { KEK_LENGTH, MAX_SHARES, type Sharing } from "./sharing.ts";

export { KEK_LENGTH, MAX_SHARES, type Sharing };

/** A source of random octets; what it gives must be a Buffer of exactly that size. */
export type Random = (size: number) => Buffer;

/** A share as the package has it: `08`, the place, and 80 octets of which 32 matter. */
const PACKAGE_SHARE_LENGTH = 82;

/** Random octets that the package takes for each coefficient of the polynomials. */
const POOL_OCTETS_PER_COEFFICIENT = 80;

/** Honest values agree in this many of 32 places less than once in 10^12. */
const SUSPICIOUS_AGREEMENTS = 8;

/** The package keeps what an interrupted split left behind and mixes it into the next one (S4). */
let unusable = false;

/** @throws RangeError unless the numbers are integers with 2 ≤ threshold ≤ shareCount ≤ 32. */
export function checkSharing({ threshold, shareCount }: Sharing): void {
  if (!Number.isInteger(threshold) || !Number.isInteger(shareCount)) {
    throw new RangeError("threshold and number of shares are integers");
  }
  if (threshold < 2) throw new RangeError(`a threshold of ${threshold}: it is at least 2`);
  if (shareCount < threshold) {
    throw new RangeError(`${shareCount} shares can never reach a threshold of ${threshold}`);
  }
  if (shareCount > MAX_SHARES) {
    throw new RangeError(`${shareCount} shares: there are at most ${MAX_SHARES}`);
  }
}

/**
 * Splits a KEK: CUSTODY.md 2.3.
 *
 * @param kek - 32 octets.
 * @returns shares at the places 1 to `shareCount`, checked to lie on one polynomial of a degree under `threshold`.
 * @throws RangeError for numbers or a KEK that cannot be; TypeError for a random source that gives anything but a
 *   Buffer of the size asked for; Error if the self-check fails, and for every call after a failure. No share leaves
 *   then.
 */
export function splitKek(kek: Uint8Array, sharing: Sharing, random: Random): Point[] {
  checkSharing(sharing);
  if (kek.length !== KEK_LENGTH) throw new RangeError(`a KEK has ${KEK_LENGTH} octets`);
  if (unusable) throw new Error("a split failed in this process; start another one");
  const { threshold, shareCount } = sharing;
  // All of it first: a source that fails half-way fails before the package has begun.
  const pool = checkedRandom(random, POOL_OCTETS_PER_COEFFICIENT * (threshold - 1));
  const secret = Buffer.from(kek);
  let used = 0;
  const fromPool = (size: number): Buffer => {
    if (size > pool.length - used)
      throw new Error("the package wants more random octets than 2.3 says");
    used += size;
    return pool.subarray(used - size, used);
  };
  let raw: Buffer[] = [];
  try {
    // A fresh object with a property of its own: one of the prototype would be taken for it (S3, S16).
    raw = split(secret, { shares: shareCount, threshold, random: fromPool }) as Buffer[];
    const points = raw.map(readPackageShare);
    checkShares(kek, points, sharing);
    return points;
  } catch (error) {
    unusable = true;
    throw error;
  } finally {
    secret.fill(0);
    pool.fill(0);
    for (const share of raw) share.fill(0);
  }
}

/**
 * The KEK of exactly `threshold` shares, already known to be right (CUSTODY.md 4.3): nothing here can tell a wrong
 * one.
 *
 * @returns 32 octets.
 * @throws RangeError unless there are exactly `threshold` shares at distinct places from 1 to `shareCount`.
 * @throws Error if the package finds another KEK than the field's own interpolation.
 */
export function recoverKek(points: readonly Point[], sharing: Sharing): Buffer {
  checkSharing(sharing);
  if (points.length !== sharing.threshold) {
    throw new RangeError(`${points.length} shares instead of ${sharing.threshold}`);
  }
  const places = new Set(points.map(({ x }) => x));
  if (places.size !== points.length) throw new RangeError("a share twice");
  for (const { x, y } of points) {
    if (!Number.isInteger(x) || x < 1 || x > sharing.shareCount) {
      throw new RangeError(`a share at ${x}`);
    }
    if (y.length !== KEK_LENGTH) throw new RangeError(`a share's value has ${KEK_LENGTH} octets`);
  }
  const kek = Buffer.from(interpolate(points, 0));
  const again = combinePoints(points);
  const same = again.length === KEK_LENGTH && timingSafeEqual(again, kek);
  again.fill(0);
  if (!same) throw new Error("the package combines the shares to another KEK");
  return kek;
}

/**
 * The self-check of 2.3: that all shares lie on one polynomial of a degree under the threshold, that the first and
 * the last of them give the KEK back, and that no share looks like it or like another.
 *
 * @throws Error saying which check failed, without an octet of a share.
 */
export function checkShares(kek: Uint8Array, points: readonly Point[], sharing: Sharing): void {
  const { threshold, shareCount } = sharing;
  if (points.length !== shareCount) throw new Error(`the package made ${points.length} shares`);
  for (const [index, { x }] of points.entries()) {
    if (x !== index + 1) throw new Error(`share ${index + 1} stands at ${x}`);
  }
  const first = points.slice(0, threshold);
  requireSame(interpolate(first, 0), kek, "the shares do not give the KEK back");
  for (const point of points.slice(threshold)) {
    requireSame(interpolate(first, point.x), point.y, "the shares lie on no common polynomial");
  }
  for (const some of [first, points.slice(-threshold)]) {
    requireSame(combinePoints(some), kek, "the package does not give the KEK back");
  }
  const values = [kek, ...points.map(({ y }) => y)];
  for (const [index, value] of values.entries()) {
    for (const other of values.slice(index + 1)) {
      if (agreements(value, other) >= SUSPICIOUS_AGREEMENTS) {
        throw new Error(
          "shares that agree with each other or with the KEK: the random source is broken",
        );
      }
    }
  }
}

/**
 * The canonical form of a share (2.2): its place and the 32 octets that matter.
 *
 * @throws Error if the package's share is not of the form that 2.2 describes.
 */
export function readPackageShare(share: Uint8Array): Point {
  if (share.length !== PACKAGE_SHARE_LENGTH || share[0] !== 0x08 || share[1] === 0) {
    throw new Error("the package made a share of another form");
  }
  const y = new Uint8Array(KEK_LENGTH);
  for (let octet = 0; octet < KEK_LENGTH; octet++) y[octet] = share[placeOf(octet)]!;
  return { x: share[1]!, y };
}

/** Back again: the octets that do not matter are those of a constant polynomial. */
function writePackageShare({ x, y }: Point): Buffer {
  const share = Buffer.alloc(PACKAGE_SHARE_LENGTH);
  share[0] = 0x08;
  share[1] = x;
  share[17] = 0x01;
  for (let octet = 0; octet < KEK_LENGTH; octet++) share[placeOf(octet)] = y[octet]!;
  return share;
}

function placeOf(octet: number): number {
  return PACKAGE_SHARE_LENGTH - 1 - 2 * octet;
}

function combinePoints(points: readonly Point[]): Buffer {
  const shares = points.map(writePackageShare);
  try {
    return combine(shares) as Buffer;
  } finally {
    for (const share of shares) share.fill(0);
  }
}

function checkedRandom(random: Random, size: number): Buffer {
  const octets: unknown = random(size);
  // Another type of the same octets makes the package hand out the secret (S1, S2).
  if (!Buffer.isBuffer(octets) || octets.length !== size) {
    throw new TypeError(`the random source did not give a Buffer of ${size} octets`);
  }
  return Buffer.from(octets);
}

function requireSame(actual: Uint8Array, wanted: Uint8Array, failure: string): void {
  const same = actual.length === wanted.length && timingSafeEqual(actual, wanted);
  actual.fill(0);
  if (!same) throw new Error(failure);
}

function agreements(a: Uint8Array, b: Uint8Array): number {
  let count = 0;
  for (let octet = 0; octet < a.length; octet++) {
    count += ((a[octet]! ^ b[octet]!) - 1) >>> 31;
  }
  return count;
}
