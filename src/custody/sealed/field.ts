/**
 * GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d), and interpolation over it, one polynomial for each octet.
 *
 * No branch and no index depends on the data, and no octet passes through a string or an array of numbers: nothing of
 * a secret stays in memory that cannot be wiped (CUSTODY.md 1, S17 and S18).
 */

const REDUCTION = 0x1d;

/** The value of one polynomial for each octet, at one place. */
export interface Point {
  /** 1 to 255. */
  readonly x: number;
  readonly y: Uint8Array;
}

export function multiply(a: number, b: number): number {
  let product = 0;
  let factor = a;
  for (let bit = 0; bit < 8; bit++) {
    product ^= factor & -((b >>> bit) & 1);
    factor = ((factor << 1) ^ (REDUCTION & -(factor >>> 7))) & 0xff;
  }
  return product;
}

/** The inverse: a to the 254th power. 0 has none and gives 0. */
export function invert(a: number): number {
  let power = a; // a^(2^n - 1): six more times squared and multiplied makes a^127
  for (let n = 1; n < 7; n++) power = multiply(multiply(power, power), a);
  return multiply(power, power);
}

/**
 * The values at `x` of the polynomials of the lowest degree through all points.
 *
 * @param points - with distinct places, none of them `x`, and values of one length.
 * @returns as many octets as each point has; wipe them when they are secret.
 */
export function interpolate(points: readonly Point[], x: number): Uint8Array {
  const result = new Uint8Array(points[0]!.y.length);
  for (const point of points) {
    let numerator = 1;
    let denominator = 1;
    for (const other of points) {
      if (other === point) continue;
      numerator = multiply(numerator, x ^ other.x);
      denominator = multiply(denominator, point.x ^ other.x);
    }
    const weight = multiply(numerator, invert(denominator));
    for (let octet = 0; octet < result.length; octet++) {
      result[octet] = result[octet]! ^ multiply(weight, point.y[octet]!);
    }
  }
  return result;
}
