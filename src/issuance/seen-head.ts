/** The head of the log that people name in what they sign: whoever shows them another log is found out (AUDIT-LOG 9.5). */

import { CompactRange } from "../audit/merkle.ts";
import { rangeNodes } from "../audit/tiles.ts";
import { CountersignError, type ErrorCode } from "../errors.ts";

export interface SeenHead {
  readonly size: number;
  /** Base64. */
  readonly root: string;
}

/**
 * Checks that the log had a head. The keeper checks its size, and knows no root but that of its own head.
 *
 * @throws CountersignError `code` unless it had.
 */
export async function checkSeenHead(
  { size, root }: SeenHead,
  log: {
    readonly journal: { readonly size: number };
    readonly reads: { tile(level: number, n: number): Promise<Uint8Array | undefined> };
  },
  code: ErrorCode = "statement-stale",
): Promise<void> {
  if (size <= log.journal.size) {
    const nodes = await rangeNodes(
      async (level, n) => {
        const tile = await log.reads.tile(level, n);
        if (tile === undefined) throw new Error(`tile ${level}/${n} of the log is missing`);
        return tile;
      },
      0,
      size,
    );
    const had = CompactRange.of(0, size, nodes).root();
    if (Buffer.from(had).toString("base64") === root) return;
  }
  throw new CountersignError(
    code,
    "the statement names a head that the log never had: make it again with the log's checkpoint",
  );
}
