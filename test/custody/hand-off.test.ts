import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { readHandOff, SECRET_LIMIT, writeHandOff } from "../../src/custody/hand-off.ts";

const folder = mkdtempSync(join(tmpdir(), "countersign-hand-off-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Both ends of a pipe, by a name of its own. */
let count = 0;
function pipe(): { read: number; write: number } {
  const path = join(folder, String(count++));
  execFileSync("mkfifo", [path]);
  const both = openSync(path, "r+"); // so that neither of the others waits
  const ends = { read: openSync(path, "r"), write: openSync(path, "w") };
  closeSync(both);
  return ends;
}

/** Writes these octets and closes. */
function written(octets: Uint8Array): number {
  const { read, write } = pipe();
  writeSync(write, octets);
  closeSync(write);
  return read;
}

const prefixed = (length: number, octets: Uint8Array): Buffer => {
  const prefix = Buffer.alloc(4);
  prefix.writeUInt32BE(length);
  return Buffer.concat([prefix, octets]);
};

test.for([1, 138, 2400, SECRET_LIMIT])(
  "%d octets come out as they went in, and are wiped where they came from",
  (length) => {
    const secret = Buffer.alloc(length, 7);
    const { read, write } = pipe();
    writeHandOff(secret, write);
    expect(secret.equals(Buffer.alloc(length))).toBe(true);
    const received = readHandOff(read);
    expect(received.equals(Buffer.alloc(length, 7))).toBe(true);
    // Of its own, not a piece of Node's pool: wiping it wipes all.
    expect(received.buffer.byteLength).toBe(length);
    for (const end of [read, write]) {
      expect(() => readSync(end, Buffer.alloc(1))).toThrow(/EBADF/); // both are closed
    }
  },
);

test.for([
  { name: "nothing", octets: Buffer.alloc(0) },
  { name: "half a length", octets: Buffer.alloc(2) },
  { name: "a length of zero", octets: prefixed(0, Buffer.alloc(0)) },
  { name: "a length over the limit", octets: prefixed(SECRET_LIMIT + 1, Buffer.alloc(10)) },
  { name: "less than was announced", octets: prefixed(20, Buffer.alloc(19)) },
  { name: "more than was announced", octets: prefixed(20, Buffer.alloc(21)) },
])("$name is no secret", ({ octets }) => {
  expect(() => readHandOff(written(octets))).toThrow(Error);
});

test("what is no secret is not written, and wiped all the same", () => {
  const { read, write } = pipe();
  const long = Buffer.alloc(SECRET_LIMIT + 1, 7);
  expect(() => writeHandOff(long, write)).toThrow(RangeError);
  expect(long.includes(7)).toBe(false);
  expect(() => readHandOff(read)).toThrow(/not handed over/);
});
