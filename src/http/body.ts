/** Reads request bodies: whole, small, and as one of the media types a route takes. */

import type { IncomingMessage } from "node:http";
import { CountersignError } from "../errors.ts";

/** The most a body may have. */
export const BODY_OCTETS = 65_536;

/**
 * What is still read and thrown away of a body that is too large, so that an ordinary client has finished
 * sending and sees the answer; a longer one loses its connection.
 */
const DISCARDED_OCTETS = 1_048_576;

const utf8 = new TextDecoder("utf-8", { fatal: true });

/**
 * The media type of a request, lower case and without parameters.
 *
 * @throws CountersignError `request-malformed` if it is not one of `accepted`, has a charset other than UTF-8,
 *   or if the body is compressed.
 */
export function mediaTypeOf(request: IncomingMessage, accepted: readonly string[]): string {
  const header = request.headers["content-type"] ?? "";
  const [type = "", ...parameters] = header.split(";").map((part) => part.trim().toLowerCase());
  const charset = parameters.find((parameter) => parameter.startsWith("charset="));
  if (
    !accepted.includes(type) ||
    (charset !== undefined && !/^charset="?(?:utf-8|us-ascii)"?$/.test(charset))
  ) {
    throw new CountersignError("request-malformed", `send the body as ${accepted.join(" or ")}`, {
      members: {
        errors: [{ path: "header.Content-Type", message: `expected ${accepted.join(" or ")}` }],
      },
    });
  }
  const encoding = request.headers["content-encoding"];
  if (encoding !== undefined && encoding !== "identity") {
    throw new CountersignError("request-malformed", "compressed bodies are not read", {
      members: { errors: [{ path: "header.Content-Encoding", message: "expected none" }] },
    });
  }
  return type;
}

/**
 * Reads a body to its end.
 *
 * @throws CountersignError `request-too-large` beyond {@link BODY_OCTETS}; `request-malformed` if the client
 *   goes away in the middle.
 */
export function readBody(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let octets = 0;
    request.on("data", (chunk: Buffer) => {
      octets += chunk.length;
      if (octets <= BODY_OCTETS) {
        chunks.push(chunk);
      } else if (octets > DISCARDED_OCTETS) {
        request.pause();
        reject(tooLarge());
      }
    });
    request.once("end", () => {
      if (octets > BODY_OCTETS) reject(tooLarge());
      else resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks));
    });
    const aborted = (): void => {
      if (request.complete) return;
      reject(new CountersignError("request-malformed", "the body ended before its length"));
    };
    request.once("error", aborted);
    request.once("close", aborted);
  });
}

function tooLarge(): CountersignError {
  return new CountersignError("request-too-large", `a body has at most ${BODY_OCTETS} octets`);
}

/**
 * Reads JSON.
 *
 * @throws CountersignError `request-malformed`, without a piece of the body: it may hold a secret.
 */
export function jsonFrom(body: Uint8Array): unknown {
  try {
    return JSON.parse(utf8.decode(body));
  } catch {
    throw new CountersignError("request-malformed", "the body is not JSON in UTF-8", {
      members: { errors: [{ path: "body", message: "not JSON" }] },
    });
  }
}
