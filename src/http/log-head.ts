/** The newest checkpoint, as those who sign statements refer to it. */

import { openCheckpoint, type Checkpoint } from "../audit/checkpoint.ts";
import { CountersignError } from "../errors.ts";
import type { HttpParts } from "./parts.ts";

/** @throws CountersignError `log-unavailable` while there is no checkpoint. */
export async function newestCheckpoint(
  log: HttpParts["log"],
): Promise<{ note: string; checkpoint: Checkpoint }> {
  const note = await log.checkpoint();
  if (note === undefined) {
    throw new CountersignError("log-unavailable", "the log has no signed checkpoint yet");
  }
  return { note, checkpoint: openCheckpoint(note, log.logKey) };
}
