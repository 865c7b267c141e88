/** The vectors of CUSTODY.md 14, which two other programs made. */

import { readFileSync } from "node:fs";
import type { Point } from "../../../src/custody/sealed/field.ts";
import type { ShareContext } from "../../../src/custody/sealed/share.ts";

interface Vectors {
  readonly kek: string;
  readonly keyId: string;
  readonly epoch: number;
  readonly threshold: number;
  readonly shareCount: number;
  readonly shares: readonly {
    readonly x: number;
    readonly y: string;
    readonly commit: string;
    readonly proof: string;
    readonly text: string;
  }[];
  readonly commitmentsHash: string;
  readonly salt: string;
  readonly payload: string;
  readonly sealed: string;
}

const folder = new URL("../../vectors/", import.meta.url);

export const recoverProgram = new URL("recover.py", folder).pathname;

export const vectors = JSON.parse(readFileSync(new URL("custody.json", folder), "utf8")) as Vectors;

export const octets = (hex: string): Buffer => Buffer.from(hex, "hex");

export const context: ShareContext = {
  keyId: octets(vectors.keyId),
  epoch: vectors.epoch,
  threshold: vectors.threshold,
  shareCount: vectors.shareCount,
};

export const points: readonly Point[] = vectors.shares.map(({ x, y }) => ({ x, y: octets(y) }));
