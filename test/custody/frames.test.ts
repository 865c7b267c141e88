import { Duplex } from "node:stream";
import { afterEach, expect, test, vi } from "vitest";
import { z } from "zod";
import {
  FrameError,
  HEADER_LIMIT,
  openFrames,
  PROGRESS_MILLISECONDS,
  type Frames,
  type Protocol,
} from "../../src/custody/frames.ts";

const schema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("note"), text: z.string() }),
  z.strictObject({ type: z.literal("bytes"), id: z.int() }),
]);
type Message = z.infer<typeof schema>;
const protocol: Protocol<Message> = { schema, bodyLimits: { note: 0, bytes: 1000 } };

afterEach(() => {
  vi.useRealTimers();
});

interface End {
  readonly received: { message: Message; body: Buffer }[];
  readonly written: Buffer[][];
  ended: Error | undefined | "not yet";
  readonly frames: Frames<Message>;
  /** Hands bytes to the connection as the system would. */
  feed(bytes: Uint8Array): void;
  finish(): void;
}

function end(): End {
  const written: Buffer[][] = [];
  const socket = new Duplex({
    read() {},
    write: (chunk: Buffer, _, done) => {
      written.push([chunk]);
      done();
    },
    writev: (chunks, done) => {
      written.push(chunks.map(({ chunk }) => chunk as Buffer));
      done();
    },
  });
  const result: End = {
    received: [],
    written,
    ended: "not yet",
    frames: openFrames<Message, Message>(socket, protocol, {
      onMessage: (message, body) => result.received.push({ message, body: Buffer.from(body) }),
      onEnd: (error) => (result.ended = error),
    }),
    feed: (bytes) => socket.emit("data", bytes),
    finish: () => socket.emit("end"),
  };
  return result;
}

function frame(header: string, body: Uint8Array = Buffer.alloc(0)): Buffer {
  const prefix = Buffer.alloc(8);
  prefix.writeUInt32BE(Buffer.byteLength(header), 0);
  prefix.writeUInt32BE(body.length, 4);
  return Buffer.concat([prefix, Buffer.from(header), body]);
}

test("frames arrive whole and in order, however they are cut", () => {
  const bytes = Buffer.concat([
    frame('{"type":"note","text":"one"}'),
    frame('{"type":"bytes","id":2}', Buffer.alloc(1000, 7)),
    frame('{"type":"bytes","id":3}'),
    frame('{"type":"note","text":"four"}'),
  ]);
  for (const size of [1, 7, 8, 9, 64, 1011, bytes.length]) {
    const receiver = end();
    for (let at = 0; at < bytes.length; at += size) receiver.feed(bytes.subarray(at, at + size));
    receiver.finish();
    expect(receiver.received.map(({ message }) => message)).toEqual([
      { type: "note", text: "one" },
      { type: "bytes", id: 2 },
      { type: "bytes", id: 3 },
      { type: "note", text: "four" },
    ]);
    expect(receiver.received[1]!.body).toEqual(Buffer.alloc(1000, 7));
    expect(receiver.ended).toBeUndefined();
  }
});

test("a body in one chunk is handed on without a copy", () => {
  const bytes = frame('{"type":"bytes","id":2}', Buffer.alloc(500, 7));
  let shared = false;
  const socket = new Duplex({ read() {}, write: (_, __, done) => done() });
  openFrames<Message, Message>(socket, protocol, {
    onMessage: (_, body) => (shared = body.buffer === bytes.buffer),
    onEnd() {},
  });
  socket.emit("data", bytes);
  expect(shared).toBe(true);
});

test("a frame leaves in one write and is read back", () => {
  const sender = end();
  sender.frames.send(
    { type: "bytes", id: 1 },
    Buffer.from("ab"),
    Buffer.alloc(0),
    Buffer.from("c"),
  );
  expect(sender.written).toHaveLength(1);
  const receiver = end();
  receiver.feed(Buffer.concat(sender.written[0]!));
  expect(receiver.received).toEqual([
    { message: { type: "bytes", id: 1 }, body: Buffer.from("abc") },
  ]);
});

test("a header over its limit is not sent", () => {
  const text = "x".repeat(HEADER_LIMIT);
  expect(() => end().frames.send({ type: "note", text })).toThrow(RangeError);
});

test.for([
  { name: "an unknown message", bytes: frame('{"type":"getKey"}') },
  { name: "an unknown field", bytes: frame('{"type":"note","text":"a","more":1}') },
  { name: "a field of another type", bytes: frame('{"type":"note","text":1}') },
  { name: "a name twice", bytes: frame('{"type":"note","text":"a","text":"b"}') },
  { name: "spaces", bytes: frame('{"type":"note", "text":"a"}') },
  { name: "__proto__", bytes: frame('{"type":"note","text":"a","__proto__":{"x":1}}') },
  { name: "__proto__ in escapes", bytes: frame('{"type":"note","text":"a","\\u005f_proto__":{}}') },
  { name: "no JSON", bytes: frame("note") },
  { name: "a list", bytes: frame("[]") },
  { name: "no header", bytes: frame("") },
  {
    name: "bytes that are not UTF-8",
    bytes: Buffer.concat([Buffer.from("0000000100000000ff", "hex")]),
  },
  {
    name: "a body over the limit of its kind",
    bytes: frame('{"type":"note","text":""}', Buffer.alloc(1)),
  },
  {
    name: "a body over another limit",
    bytes: frame('{"type":"bytes","id":1}', Buffer.alloc(1001)),
  },
])("ST-58: $name ends the connection", ({ bytes }) => {
  const receiver = end();
  receiver.feed(bytes);
  receiver.feed(frame('{"type":"note","text":"later"}'));
  expect(receiver.ended).toBeInstanceOf(FrameError);
  expect(receiver.received).toEqual([]);
});

test("ST-58: a header over 64 KiB ends the connection as soon as it is announced", () => {
  const receiver = end();
  receiver.feed(Buffer.from("0001000100000000", "hex"));
  expect(receiver.ended).toBeInstanceOf(FrameError);
});

test("the text __proto__ is no name", () => {
  const receiver = end();
  receiver.feed(frame('{"type":"note","text":"{\\"__proto__\\":1}"}'));
  expect(receiver.received).toHaveLength(1);
});

test("what a message handler throws ends the connection", () => {
  const socket = new Duplex({ read() {}, write: (_, __, done) => done() });
  let ended: Error | undefined;
  openFrames<Message, Message>(socket, protocol, {
    onMessage() {
      throw new RangeError("no such request");
    },
    onEnd: (error) => (ended = error),
  });
  socket.emit("data", frame('{"type":"note","text":""}'));
  expect(ended).toEqual(new RangeError("no such request"));
});

test("an end inside a message is an error", () => {
  const receiver = end();
  receiver.feed(frame('{"type":"note","text":"a"}').subarray(0, 12));
  receiver.finish();
  expect(receiver.ended).toBeInstanceOf(FrameError);
});

test("a message that makes no progress for 5 s ends the connection, a slow one does not", async () => {
  vi.useFakeTimers();
  const bytes = frame('{"type":"note","text":"a"}');
  const slow = end();
  const stuck = end();
  stuck.feed(bytes.subarray(0, 10));
  for (const octet of bytes) {
    slow.feed(Buffer.of(octet));
    await vi.advanceTimersByTimeAsync(PROGRESS_MILLISECONDS - 1000);
  }
  expect(slow.received).toHaveLength(1);
  expect(slow.ended).toBe("not yet");
  expect(stuck.ended).toBeInstanceOf(FrameError);
});

test("between two messages a connection may rest", async () => {
  vi.useFakeTimers();
  const receiver = end();
  receiver.feed(frame('{"type":"note","text":"a"}'));
  await vi.advanceTimersByTimeAsync(PROGRESS_MILLISECONDS * 10);
  expect(receiver.ended).toBe("not yet");
});
