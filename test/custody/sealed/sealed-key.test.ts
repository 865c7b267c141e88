import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import {
  openSealedKey,
  readSealedKey,
  sealKey,
  type SealedKeyHeader,
} from "../../../src/custody/sealed/sealed-key.ts";
import { context, octets, recoverProgram, vectors } from "./vectors.ts";

const header: SealedKeyHeader = {
  ...context,
  payload: "pkcs8",
  commitmentsHash: octets(vectors.commitmentsHash),
};
const kek = octets(vectors.kek);
const secret = Buffer.from(vectors.payload);
const corrupt = expect.objectContaining({ code: "sealed-key-corrupt" });
const mismatch = expect.objectContaining({ code: "kek-mismatch" });

test("vector: sealed and opened as CUSTODY.md 14 has it", () => {
  expect(sealKey(header, secret, kek, octets(vectors.salt)).toString("hex")).toBe(vectors.sealed);
  expect(openSealedKey(octets(vectors.sealed), kek)).toEqual(secret);
  expect(readSealedKey(octets(vectors.sealed))).toEqual({
    ...header,
    keyId: Uint8Array.from(header.keyId),
    commitmentsHash: Uint8Array.from(header.commitmentsHash),
  });
});

test("ST-25: a program in Python opens it with the texts of three shares", () => {
  const folder = mkdtempSync(join(tmpdir(), "countersign-vectors-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const file = join(folder, "sealed.hex");
  const long = randomBytes(138);
  const sealed = sealKey(header, long, kek, randomBytes(32));
  for (const [hex, wanted] of [
    [vectors.sealed, secret],
    [sealed.toString("hex"), long],
  ] as const) {
    writeFileSync(file, hex);
    const input = [4, 0, 2].map((index) => vectors.shares[index]!.text).join("\n");
    const output = execFileSync("python3", [recoverProgram, file], { input }).toString();
    expect(octets(output.trim())).toEqual(wanted);
  }
});

const sealed298 = sealKey(header, randomBytes(138), kek, randomBytes(32));

test("ST-19: every single bit of 298 octets that is flipped is noticed", () => {
  expect(sealed298).toHaveLength(298);
  for (let bit = 0; bit < 8 * sealed298.length; bit++) {
    const changed = Buffer.from(sealed298);
    changed[bit >> 3]! ^= 1 << (bit & 7);
    expect(() => openSealedKey(changed, kek)).toThrow(
      expect.objectContaining({
        code: expect.stringMatching(/^(?:sealed-key-corrupt|kek-mismatch)$/),
      }),
    );
  }
});

test("ST-20: cut at every length, or one octet longer, it is refused", () => {
  for (let length = 0; length < sealed298.length; length++) {
    expect(() => openSealedKey(sealed298.subarray(0, length), kek)).toThrow(corrupt);
  }
  expect(() => openSealedKey(Buffer.concat([sealed298, Buffer.of(0)]), kek)).toThrow(corrupt);
});

test("ST-22: threshold, number of shares, epoch or commitments that were edited do not open", () => {
  for (const [at, value] of [
    [12, 2],
    [13, 6],
    [11, 8],
    [20, 1],
    [50, 1],
  ] as const) {
    const changed = Buffer.from(sealed298);
    changed[at] = value;
    expect(() => openSealedKey(changed, kek)).toThrow(corrupt);
  }
});

test("ST-21: another KEK is kek-mismatch, and not damage", () => {
  expect(() => openSealedKey(sealed298, randomBytes(32))).toThrow(mismatch);
  expect(() => openSealedKey(sealed298, kek.subarray(1))).toThrow(RangeError);
});

test.for([
  { name: "version 2", at: 4, value: 2 },
  { name: "suite 2", at: 5, value: 2 },
  { name: "payload 0", at: 6, value: 0 },
  { name: "payload 3", at: 6, value: 3 },
  { name: "a binding", at: 7, value: 1 },
  { name: "a reserved octet", at: 14, value: 1 },
  { name: "another reserved octet", at: 15, value: 1 },
  { name: "threshold 1", at: 12, value: 1 },
  { name: "33 shares", at: 13, value: 33 },
  { name: "another magic", at: 0, value: 0x44 },
])("$name is refused before any cryptography", ({ at, value }) => {
  const changed = Buffer.from(sealed298);
  changed[at] = value;
  expect(() => readSealedKey(changed)).toThrow(corrupt);
});

test("epoch 0 is refused, and nothing is sealed that could not be read", () => {
  const changed = Buffer.from(sealed298);
  changed.writeUInt32BE(0, 8);
  expect(() => readSealedKey(changed)).toThrow(corrupt);
  const salt = randomBytes(32);
  expect(() => sealKey(header, Buffer.alloc(0), kek, salt)).toThrow(RangeError);
  expect(() => sealKey(header, secret, kek, salt.subarray(1))).toThrow(RangeError);
  expect(() => sealKey({ ...header, epoch: 0 }, secret, kek, salt)).toThrow(RangeError);
  expect(() => sealKey({ ...header, threshold: 1 }, secret, kek, salt)).toThrow(RangeError);
});

test("a token's PIN is sealed under its own kind", () => {
  const pin = Buffer.from("ünlock-4711");
  const sealed = sealKey({ ...header, payload: "pin" }, pin, kek, randomBytes(32));
  expect(readSealedKey(sealed).payload).toBe("pin");
  expect(openSealedKey(sealed, kek)).toEqual(pin);
  sealed[6] = 1; // as if it were a private key
  expect(() => openSealedKey(sealed, kek)).toThrow(corrupt);
});
