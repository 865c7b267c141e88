/** An error on its way from one process to another: code, detail and members, or a detail alone for what has no code. */

import { z } from "zod";
import { CountersignError, type ErrorCode } from "../errors.ts";

/** A linter can find the same fault in each of a million entries; the first ones say it. */
const DETAIL_LIMIT = 2_000;
const MEMBERS_LIMIT = 4_000;

export const refusalFields = {
  /** null: not an error of ours, such as a full disk. */
  code: z
    .string()
    .regex(/^[a-z][a-z-]{0,63}$/)
    .nullable(),
  detail: z.string(),
  members: z.record(z.string(), z.json()),
};

export const refusalSchema = z.strictObject(refusalFields);

export type Refusal = z.infer<typeof refusalSchema>;

export function refusalOf(error: unknown): Refusal {
  if (!(error instanceof CountersignError)) {
    const detail = error instanceof Error ? error.message : String(error);
    return { code: null, detail: shortened(detail), members: {} };
  }
  const members = JSON.stringify(error.members);
  return {
    code: error.code,
    detail: shortened(error.message),
    members: members.length > MEMBERS_LIMIT ? {} : (JSON.parse(members) as Refusal["members"]),
  };
}

export function errorOf({ code, detail, members }: Refusal): Error {
  if (code === null) return new Error(detail);
  // The other process has the same table of codes; an unknown one has no status and so becomes a bare 500.
  return new CountersignError(code as ErrorCode, detail, { members });
}

function shortened(text: string): string {
  return text.length > DETAIL_LIMIT ? `${text.slice(0, DETAIL_LIMIT)} …` : text;
}
