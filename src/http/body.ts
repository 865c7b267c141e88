/** Reads request bodies: whole, small, and as one of the media types a route takes. */

import type { IncomingMessage } from "node:http";
import { CountersignError } from "../errors.ts";

/** The most a body may have, unless its route says otherwise. */
export const BODY_OCTETS = 65_536;

/** The most that a signed statement of one person may have, with the share file that comes with it. CUSTODY.md 4.3. */
export const SIGNED_BODY_OCTETS = 8_192;

/** What is proposed for a ceremony may carry a day's artefacts, or a roster of many people. */
export const PROPOSAL_OCTETS = 1_048_576;

/**
 * How much more is read and thrown away of a body that is too large, so that an ordinary client has finished
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
 * @throws CountersignError `request-too-large` beyond `limit` octets; `request-malformed` if the client
 *   goes away in the middle.
 */
export function readBody(request: IncomingMessage, limit = BODY_OCTETS): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let octets = 0;
    request.on("data", (chunk: Buffer) => {
      octets += chunk.length;
      if (octets <= limit) {
        chunks.push(chunk);
      } else if (octets > limit + DISCARDED_OCTETS) {
        request.pause();
        reject(tooLarge(limit));
      }
    });
    request.once("end", () => {
      if (octets > limit) reject(tooLarge(limit));
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

function tooLarge(limit: number): CountersignError {
  return new CountersignError("request-too-large", `a body here has at most ${limit} octets`);
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
