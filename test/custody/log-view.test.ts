import { createPrivateKey } from "node:crypto";
import { expect, test } from "vitest";
import { checkpointText } from "../../src/audit/checkpoint.ts";
import { CompactRange, leafHash } from "../../src/audit/merkle.ts";
import { noteSigner, signNote } from "../../src/audit/signed-note.ts";
import { createLogFeed, type LogFeed } from "../../src/custody/log-feed.ts";
import { openLogView, readExtension, type LogExtension } from "../../src/custody/log-view.ts";
import { cut } from "../../src/custody/sign-batch.ts";

const origin = "test.example/audit";
const logKey = signerOf("01");
const otherKey = signerOf("02");
const vkey = logKey.verifierKey.text;

function signerOf(seed: string): ReturnType<typeof noteSigner> {
  const der = Buffer.from(`302e020100300506032b657004220420${seed.repeat(32)}`, "hex");
  return noteSigner(origin, createPrivateKey({ key: der, format: "der", type: "pkcs8" }));
}

function checkpoint(range: CompactRange, signer = logKey): string {
  return signNote(checkpointText(origin, range.end, range.root()), signer);
}

function hashOf(index: number): Uint8Array {
  return leafHash(Buffer.from(`leaf ${index}`));
}

/** A log that has `size` leaves, as the keeper feeds it. */
function growingLog(size = 0): { feed: LogFeed; grow(count: number): void } {
  const range = CompactRange.empty();
  for (let index = 0; index < size; index++) range.append(hashOf(index));
  const feed = createLogFeed(range, checkpoint(range));
  return {
    feed,
    grow(count) {
      const extended = feed.range.clone();
      const leaves = Array.from({ length: count }, (_, offset) => hashOf(extended.end + offset));
      for (const leaf of leaves) extended.append(leaf);
      feed.append(extended, checkpoint(extended), Buffer.concat(leaves));
    },
  };
}

/** As it comes out of a frame. */
function carried(next: ReturnType<ReturnType<LogFeed["follow"]>["next"]>): LogExtension {
  const body = Buffer.concat(next!.hashes);
  const cutter = cut(body);
  const extension = readExtension(next!.header, cutter)!;
  cutter.finish();
  return extension;
}

test.for([
  { name: "from nothing", sizes: [0, 1, 2, 3, 70] },
  { name: "in single steps", sizes: [5, 6, 7, 8, 9, 10, 11, 12, 13] },
  { name: "past the window", sizes: [3, 40, 1500, 1501, 4000, 9000, 9001] },
])("a view follows the log $name", ({ sizes: [start, ...sizes] }) => {
  const log = growingLog(start);
  const head = { note: log.feed.note, nodes: log.feed.range.nodes };
  const view = openLogView(vkey, head);
  const follower = log.feed.follow();
  for (const size of sizes) {
    log.grow(size - log.feed.range.end);
    view.extend(carried(follower.next()));
    expect(view.size).toBe(size);
    expect(follower.next()).toBeNull();
    expect(view.spend(size - 1, hashOf(size - 1))).toBe(true);
  }
});

test("a reader that was away is shown the newest leaves one by one and the others folded", () => {
  const log = growingLog(10);
  const view = openLogView(vkey, { note: log.feed.note, nodes: log.feed.range.nodes });
  const follower = log.feed.follow();
  for (let step = 0; step < 500; step++) log.grow(32);
  const extension = carried(follower.next());
  expect(extension.leaves.length).toBeLessThan(1100);
  expect(extension.nodes.length).toBeLessThan(28);
  view.extend(extension);
  expect(view.spend(16_009, hashOf(16_009))).toBe(true);
  expect(view.spend(11, hashOf(11))).toBe(false);
});

test("ST-52: a leaf is spent once, at its own index", () => {
  const log = growingLog();
  const view = openLogView(vkey, undefined);
  const follower = log.feed.follow();
  log.grow(4);
  view.extend(carried(follower.next()));
  expect(view.spend(2, hashOf(1))).toBe(false);
  expect(view.spend(4, hashOf(4))).toBe(false);
  expect(view.spend(2, hashOf(2))).toBe(true);
  expect(view.spend(2, hashOf(2))).toBe(false);
  log.grow(1);
  view.extend(carried(follower.next()));
  expect(view.spend(1, hashOf(1))).toBe(true); // not yet spent, and older than the head
});

test.for<{ name: string; change: (extension: LogExtension) => LogExtension }>([
  { name: "an older head", change: (e) => ({ ...e, from: 0, first: 0 }) },
  { name: "another leaf", change: (e) => ({ ...e, leaves: [hashOf(99), ...e.leaves.slice(1)] }) },
  { name: "a leaf too few", change: (e) => ({ ...e, leaves: e.leaves.slice(1) }) },
  { name: "another size", change: (e) => ({ ...e, size: e.size + 1 }) },
  { name: "a node too many", change: (e) => ({ ...e, nodes: [...e.nodes, hashOf(1)] }) },
  {
    name: "a checkpoint by another key",
    change: (e) => ({ ...e, note: checkpoint(growingLog(9).feed.range, otherKey) }),
  },
  {
    name: "a checkpoint of another tree",
    change: (e) => {
      const fork = CompactRange.empty();
      for (let index = 0; index < 9; index++) fork.append(hashOf(index + 1));
      return { ...e, note: checkpoint(fork) };
    },
  },
])("ST-52: $name is refused, and the view stays where it was", ({ change }) => {
  const log = growingLog(5);
  const view = openLogView(vkey, { note: log.feed.note, nodes: log.feed.range.nodes });
  const follower = log.feed.follow();
  log.grow(4);
  const extension = carried(follower.next());
  expect(() => view.extend(change(extension))).toThrow(
    expect.objectContaining({ code: "grant-mismatch" }),
  );
  expect(view.size).toBe(5);
  view.extend(extension);
  expect(view.size).toBe(9);
});

test("ST-52: an older head, signed by the log's key, is refused", () => {
  const log = growingLog(5);
  const old = { note: log.feed.note, nodes: log.feed.range.nodes.map((node) => node) };
  log.grow(4);
  const view = openLogView(vkey, { note: log.feed.note, nodes: log.feed.range.nodes });
  const back = { from: 9, first: 9, size: 5, note: old.note, nodes: [], leaves: [] };
  expect(() => view.extend(back)).toThrow(/the signer was shown/);
});

test("a view is not opened with an edge that is not the checkpoint's", () => {
  const log = growingLog(5);
  const nodes = [...log.feed.range.nodes.slice(0, -1), hashOf(77)];
  expect(() => openLogView(vkey, { note: log.feed.note, nodes })).toThrow(/another root/);
});
