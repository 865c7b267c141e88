import { expect } from "vitest";
import type { ErrorCode } from "../../src/errors.ts";

/** Matches an error of ours with this code and, if it is given, this detail. */
export function refused(code: ErrorCode, detail?: RegExp): unknown {
  return expect.objectContaining({
    code,
    ...(detail === undefined ? {} : { message: expect.stringMatching(detail) as string }),
  });
}
