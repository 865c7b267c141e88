/**
 * How a batch of signing requests, and of their results, lies in a frame: the lengths in the header, the octets one
 * after the other in the body. Nothing binary passes through JSON.
 */

import { z } from "zod";
import { errorOf, type Refusal, refusalSchema } from "./refusal.ts";

/** Requests in one frame, at most. */
export const BATCH_LIMIT = 256;

/** The body of a batch of certificates. */
export const BATCH_BODY_LIMIT = 1024 * 1024;

/** The body of the answer to a batch: signatures, or refusals in words. */
export const RESULTS_BODY_LIMIT = 16 * 1024 * 1024;

/** The body of a request for one CRL: new one, predecessor and dropped certificates together. */
export const LIST_BODY_LIMIT = 256 * 1024 * 1024;

const length = z.int().min(0).max(LIST_BODY_LIMIT);

/** Index of the intent in the log, octets of its leaf, octets of the TBS. */
export const requestLengths = z.tuple([z.int().min(0), length, length]).readonly();

export const batchLengths = z.array(requestLengths).min(1).max(BATCH_LIMIT).readonly();

/** For each request the octets of its signature, or as a negative number those of the refusal as JSON. */
export const resultLengths = z
  .array(z.int().min(-BATCH_BODY_LIMIT).max(BATCH_BODY_LIMIT))
  .max(BATCH_LIMIT)
  .readonly();

export type RequestLengths = z.infer<typeof requestLengths>;

export interface BatchRequest {
  readonly intentIndex: number;
  /** Leaf bytes of the intent. */
  readonly intent: Uint8Array;
  readonly tbs: Uint8Array;
}

export function lengthsOf({ intentIndex, intent, tbs }: BatchRequest): RequestLengths {
  return [intentIndex, intent.length, tbs.length];
}

/** Cuts a body into the pieces that the header announces. */
export interface BodyCutter {
  take(count: number): Uint8Array;
  request(lengths: RequestLengths): BatchRequest;
  /** @throws RangeError if something is left. */
  finish(): void;
}

/** @returns a cutter whose methods throw RangeError where header and body disagree. */
export function cut(body: Uint8Array): BodyCutter {
  let at = 0;
  const take = (count: number): Uint8Array => {
    if (count > body.length - at) throw new RangeError("a body is shorter than its header says");
    at += count;
    return body.subarray(at - count, at);
  };
  return {
    take,
    request: ([intentIndex, intent, tbs]) => ({
      intentIndex,
      intent: take(intent),
      tbs: take(tbs),
    }),
    finish() {
      if (at !== body.length) throw new RangeError("a body is longer than its header says");
    },
  };
}

export type SignResult = { readonly signature: Uint8Array } | { readonly refusal: Refusal };

/** The lengths and pieces of an answer. */
export function encodeResults(results: readonly SignResult[]): {
  lengths: number[];
  body: Uint8Array[];
} {
  const lengths: number[] = [];
  const body: Uint8Array[] = [];
  for (const result of results) {
    if ("signature" in result) {
      lengths.push(result.signature.length);
      body.push(result.signature);
    } else {
      const text = Buffer.from(JSON.stringify(result.refusal));
      lengths.push(-text.length);
      body.push(text);
    }
  }
  return { lengths, body };
}

/** @throws RangeError or ZodError if that is no answer. */
export function decodeResults(
  lengths: readonly number[],
  body: Uint8Array,
): (Uint8Array | Error)[] {
  const cutter = cut(body);
  const results = lengths.map((count) => {
    const octets = cutter.take(Math.abs(count));
    if (count > 0) return octets;
    return errorOf(refusalSchema.parse(JSON.parse(Buffer.from(octets).toString("utf8"))));
  });
  cutter.finish();
  return results;
}
