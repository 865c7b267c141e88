import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { CompactRange, leafHash } from "../../src/audit/merkle.ts";
import { createHeadFile, openHeadFile } from "../../src/custody/head-file.ts";
import { CountersignError } from "../../src/errors.ts";

/** Octets that one write takes, at most: a disk that fills up takes a part. */
const taken = vi.hoisted(() => ({ most: Number.POSITIVE_INFINITY }));
vi.mock(import("node:fs"), async (original) => {
  const fs = await original();
  const writeSync = (
    descriptor: number,
    octets: Buffer,
    offset: number,
    length: number,
    position: number,
  ): number => fs.writeSync(descriptor, octets, offset, Math.min(length, taken.most), position);
  return { ...fs, writeSync: writeSync as typeof fs.writeSync };
});

const origin = "test.example/audit";
let directory: string;
let path: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "countersign-head-"));
  path = join(directory, "head");
});
afterEach(() => rmSync(directory, { recursive: true }));

function rangeOf(size: number): CompactRange {
  const range = CompactRange.empty();
  for (let index = 0; index < size; index++) range.append(leafHash(Buffer.from(`${index}`)));
  return range;
}

function reopened(): CompactRange | undefined {
  const file = openHeadFile(path, origin);
  file?.close();
  return file?.range;
}

test("a missing head file is none, and is not made", () => {
  expect(openHeadFile(path, origin)).toBeUndefined();
  expect(existsSync(path)).toBe(false);
});

test("a new head is that of a log without entries, and is made once, for its owner alone", () => {
  createHeadFile(path, origin).close();
  expect(reopened()?.end).toBe(0);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(() => createHeadFile(path, origin)).toThrow(/EEXIST/);
});

test("a reopened head goes on with the right edge of the tree", () => {
  const file = createHeadFile(path, origin);
  const range = CompactRange.empty();
  for (let size = 1; size <= 70; size++) {
    range.append(leafHash(Buffer.from(`${size - 1}`)));
    file.write(range.clone());
    expect(reopened()?.nodes).toEqual(rangeOf(size).nodes);
  }
  file.close();
});

test("size and root stand in the file as text", () => {
  const file = createHeadFile(path, origin);
  file.write(rangeOf(3));
  file.close();
  const root = Buffer.from(rangeOf(3).root()).toString("base64");
  expect(readFileSync(path, "latin1")).toContain(`${origin}\n3\n${root}\n`);
});

test("a write that was cut off anywhere leaves the head before it", () => {
  const file = createHeadFile(path, origin);
  file.write(rangeOf(5));
  const before = readFileSync(path);
  file.write(rangeOf(7));
  file.close();
  const after = readFileSync(path);
  const first = before.findIndex((octet, index) => octet !== after[index]);
  const length = after.subarray(first, 4096).findLastIndex((octet) => octet !== 0x0a);
  for (let cut = first; cut < first + length; cut++) {
    writeFileSync(path, Buffer.concat([after.subarray(0, cut), before.subarray(cut)]));
    expect(reopened()?.end).toBe(5);
  }
  writeFileSync(path, after);
  expect(reopened()?.end).toBe(7);
});

test("a head that the disk takes in parts is written whole", () => {
  const file = createHeadFile(path, origin);
  taken.most = 100;
  try {
    for (let size = 1; size <= 5; size++) {
      file.write(rangeOf(size));
      expect(statSync(path).size % 4096, "both slots are whole").toBe(0);
      expect(reopened()?.end).toBe(size);
    }
  } finally {
    taken.most = Number.POSITIVE_INFINITY;
  }
  file.close();
});

test.for([
  { name: "empty", content: "" },
  {
    name: "of another log",
    content: "other.example/audit\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
  },
  {
    name: "with another root",
    content: `${origin}\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n`,
  },
])("a head file that is $name is refused, not replaced", ({ content }) => {
  writeFileSync(path, content);
  expect(() => openHeadFile(path, origin)).toThrow(CountersignError);
  expect(readFileSync(path, "latin1")).toBe(content);
});
