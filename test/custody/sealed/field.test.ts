import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { interpolate, invert, multiply } from "../../../src/custody/sealed/field.ts";

/** Multiplication as polynomials, the other way round: the product first, then the remainder. */
function productModulo(a: number, b: number): number {
  let product = 0;
  for (let bit = 0; bit < 8; bit++) if ((b >> bit) & 1) product ^= a << bit;
  for (let bit = 14; bit >= 8; bit--) if ((product >> bit) & 1) product ^= 0x11d << (bit - 8);
  return product;
}

test("every product is the remainder modulo 0x11d", () => {
  const wrong: [number, number][] = [];
  for (let a = 0; a < 256; a++) {
    for (let b = 0; b < 256; b++) if (multiply(a, b) !== productModulo(a, b)) wrong.push([a, b]);
  }
  expect(wrong).toEqual([]);
});

test("every number but 0 times its inverse is 1", () => {
  for (let a = 1; a < 256; a++) expect(multiply(a, invert(a))).toBe(1);
  expect(invert(0)).toBe(0);
});

test("a polynomial is found again at every place from as many points as it has coefficients", () => {
  const coefficients = [...randomBytes(4)];
  const valueAt = (x: number): number =>
    coefficients.reduceRight((value, coefficient) => multiply(value, x) ^ coefficient, 0);
  const points = [3, 77, 128, 255].map((x) => ({ x, y: Uint8Array.of(valueAt(x)) }));
  for (const x of [0, 1, 2, 100, 254]) expect([...interpolate(points, x)]).toEqual([valueAt(x)]);
});
