/** The frames of a process with the keeper that started it, on descriptor 3; when they end, the process does. */

import { Socket } from "node:net";
import { openFrames, type FrameHandlers, type Frames, type Protocol } from "./frames.ts";

export interface ParentFrames<Sent extends { readonly type: string }> extends Frames<Sent> {
  /** Sends one more frame, and ends the process when it has left. */
  sendLast(header: Sent, ...body: readonly Uint8Array[]): void;
}

/** @param name - of the process, for words to the administrator. */
export function openParentFrames<
  Received extends { readonly type: string },
  Sent extends { readonly type: string },
>(
  name: string,
  protocol: Protocol<Received>,
  onMessage: FrameHandlers<Received>["onMessage"],
): ParentFrames<Sent> {
  const socket = new Socket({ fd: 3 });
  const frames = openFrames<Received, Sent>(socket, protocol, {
    onMessage,
    onEnd(error) {
      if (error !== undefined) console.error(`${name}: ${error.message}`);
      process.exit(error === undefined ? 0 : 1);
    },
  });
  return {
    ...frames,
    sendLast(header, ...body) {
      frames.send(header, ...body);
      socket.end(() => process.exit(0));
    },
  };
}
