/**
 * Frames between the processes: CUSTODY.md 7.4. One frame is
 *
 *     u32 length of the header ‖ u32 length of the body ‖ header, JSON ‖ body
 *
 * over a pipe or a Unix socket. A header passes a closed schema, and each kind of message has a limit for its body.
 * Whoever says something else is not a process of ours: the connection ends, and with it the process.
 */

import type { Duplex } from "node:stream";
import type { z } from "zod";

/** Octets of a header, at most. */
export const HEADER_LIMIT = 65_536;

/** A message that has begun must move on within this time; the whole may take longer. */
export const PROGRESS_MILLISECONDS = 5_000;

const PREFIX_LENGTH = 8;

/** The messages that one side of a connection may send. */
export interface Protocol<Message extends { readonly type: string }> {
  /** Closed: a union of strict objects. */
  readonly schema: z.ZodType<Message>;
  /** Octets of a body, at most, by type; 0 for a message that has none. */
  readonly bodyLimits: Readonly<Record<Message["type"], number>>;
}

/** What ends a connection: something that is no frame, no message, or too late. */
export class FrameError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "FrameError";
  }
}

export interface FrameHandlers<Message> {
  /** Called in the order of the frames. `body` is the receiver's. What it throws ends the connection. */
  onMessage(message: Message, body: Uint8Array): void;
  /** Called once; without an error if the other side ended the connection between two frames. */
  onEnd(error?: Error): void;
}

export interface Frames<Sent extends { readonly type: string }> {
  /**
   * Sends one frame in one write, its body in as many pieces as it comes in.
   *
   * @throws RangeError if the header is over its limit.
   */
  send(header: Sent, ...body: readonly Uint8Array[]): void;
  /** Ends the connection when everything sent has left. */
  close(): void;
  /** Ends the connection at once. */
  destroy(error?: Error): void;
}

/**
 * Speaks frames over a socket, which then belongs to the connection.
 *
 * @param socket - with both directions in binary mode.
 * @param protocol - what the other side may send.
 */
export function openFrames<
  Received extends { readonly type: string },
  Sent extends { readonly type: string },
>(socket: Duplex, protocol: Protocol<Received>, handlers: FrameHandlers<Received>): Frames<Sent> {
  const reader = frameReader(protocol, (message, body) => handlers.onMessage(message, body));
  let ended = false;

  const end = (error?: Error): void => {
    if (ended) return;
    ended = true;
    reader.stop();
    socket.destroy();
    handlers.onEnd(error);
  };

  socket.on("data", (chunk: Uint8Array) => {
    if (ended) return;
    try {
      reader.push(chunk, () => end(new FrameError("a message made no progress")));
    } catch (error) {
      end(error instanceof Error ? error : new FrameError(String(error)));
    }
  });
  socket.on("end", () =>
    end(reader.between ? undefined : new FrameError("the connection ended inside a message")),
  );
  socket.on("error", (error) => end(error));
  socket.on("close", () => end());

  return {
    send(header, ...body) {
      if (ended) return; // whoever waits for an answer hears of it through onEnd
      const text = Buffer.from(JSON.stringify(header));
      if (text.length > HEADER_LIMIT) {
        throw new RangeError(`the header of a ${header.type} message has ${text.length} octets`);
      }
      const prefix = Buffer.allocUnsafe(PREFIX_LENGTH);
      prefix.writeUInt32BE(text.length, 0);
      prefix.writeUInt32BE(
        body.reduce((length, part) => length + part.length, 0),
        4,
      );
      socket.cork(); // the pieces leave in one writev
      socket.write(prefix);
      socket.write(text);
      for (const part of body) if (part.length > 0) socket.write(part);
      socket.uncork();
    },
    close() {
      socket.end();
    },
    destroy(error) {
      end(error);
    },
  };
}

interface FrameReader {
  /** Whether everything that came was whole frames. */
  readonly between: boolean;
  push(chunk: Uint8Array, onStall: () => void): void;
  stop(): void;
}

/** Cuts chunks into frames. What lies in one chunk is handed on as a view of it, without a copy. */
function frameReader<Message extends { readonly type: string }>(
  protocol: Protocol<Message>,
  deliver: (message: Message, body: Uint8Array) => void,
): FrameReader {
  let stage: "prefix" | "header" | "body" = "prefix";
  let needed = PREFIX_LENGTH;
  let bodyLength = 0;
  let message: Message | undefined;
  let partial: Uint8Array | undefined; // of what is needed now, the part that came in earlier chunks
  let filled = 0;
  let progress = 0;
  let timer: NodeJS.Timeout | undefined;

  let chunk: Uint8Array = new Uint8Array(0);
  let at = 0;

  function take(): Uint8Array | undefined {
    if (partial === undefined) {
      if (chunk.length - at >= needed) {
        at += needed;
        return chunk.subarray(at - needed, at);
      }
      // Not zeroed, and never handed on before it is full. The system gives the pages of a large one as they fill.
      partial = Buffer.allocUnsafeSlow(needed);
      filled = 0;
    }
    const count = Math.min(needed - filled, chunk.length - at);
    partial.set(chunk.subarray(at, at + count), filled);
    filled += count;
    at += count;
    if (filled < needed) return undefined;
    const whole = partial;
    partial = undefined;
    return whole;
  }

  function between(): boolean {
    return stage === "prefix" && partial === undefined;
  }

  function watch(onStall: () => void): void {
    if (between()) {
      clearTimeout(timer);
      timer = undefined;
    } else if (timer === undefined) {
      timer = setTimeout(() => {
        // If this process was busy, what came meanwhile is only read after the timers: look again then.
        const seen = progress;
        setImmediate(() => {
          if (timer !== undefined && progress === seen) onStall();
        });
      }, PROGRESS_MILLISECONDS);
    } else {
      timer.refresh();
    }
  }

  return {
    get between() {
      return between();
    },
    push(next, onStall) {
      chunk = next;
      at = 0;
      progress++;
      for (;;) {
        const part = take();
        if (part === undefined) break;
        if (stage === "prefix") {
          const view = new DataView(part.buffer, part.byteOffset, PREFIX_LENGTH);
          needed = view.getUint32(0);
          bodyLength = view.getUint32(4);
          if (needed > HEADER_LIMIT) throw new FrameError(`a header of ${needed} octets`);
          stage = "header";
        } else if (stage === "header") {
          message = readHeader(protocol, part, bodyLength);
          needed = bodyLength;
          stage = "body";
        } else {
          stage = "prefix";
          needed = PREFIX_LENGTH;
          deliver(message!, part);
        }
        if (stage === "prefix" && at === chunk.length) break;
      }
      watch(onStall);
    },
    stop() {
      clearTimeout(timer);
      timer = undefined;
    },
  };
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

// In text that JSON.stringify wrote, a quote after a brace or comma begins a name or a value, never part of one.
const prototypeName = /[{,]"__proto__":/;

function readHeader<Message extends { readonly type: string }>(
  protocol: Protocol<Message>,
  octets: Uint8Array,
  bodyLength: number,
): Message {
  let message: Message;
  try {
    const text = utf8.decode(octets);
    const value: unknown = JSON.parse(text);
    // One value, one encoding: no name twice, no escapes to hide a name behind.
    if (JSON.stringify(value) !== text) throw new FrameError("not as JSON.stringify writes it");
    if (prototypeName.test(text)) throw new FrameError("the name __proto__");
    message = protocol.schema.parse(value);
  } catch (error) {
    throw new FrameError("a header that is no message", { cause: error });
  }
  const limit = protocol.bodyLimits[message.type as Message["type"]];
  if (bodyLength > limit) {
    throw new FrameError(`a body of ${bodyLength} octets in a ${message.type} message`);
  }
  return message;
}
