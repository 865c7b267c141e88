/** The head of the service's log, held against the one that this person saw last. AUDIT-LOG 9.5. */

import { openCheckpoint, parseCheckpoint, type Checkpoint } from "../audit/checkpoint.ts";
import { tileReader } from "../audit/log-source.ts";
import { verifyConsistency } from "../audit/merkle.ts";
import { splitNote } from "../audit/signed-note.ts";
import { consistencyProof } from "../audit/tiles.ts";
import type { ApiClient } from "./api-client.ts";
import { CommandFailure } from "./failure.ts";
import type { KnownState, SeenHead } from "./known-state.ts";

/** The newest head, by the log's own key where that is configured. */
export async function headOf(client: ApiClient): Promise<Checkpoint> {
  const { body } = await client.request("/audit/checkpoint", { as: "nobody" });
  try {
    const { logKey } = client.settings;
    return logKey === undefined
      ? parseCheckpoint(splitNote(body).text)
      : openCheckpoint(body, logKey);
  } catch (error) {
    throw new CommandFailure(
      `the log's checkpoint is not as it should be: ${(error as Error).message}`,
      {
        code: "signature-invalid",
        cause: error,
      },
    );
  }
}

/** As statements carry it. */
export function seenHead({ size, root }: Checkpoint): SeenHead {
  return { size, root: Buffer.from(root).toString("base64") };
}

/**
 * The newest head, which must have grown out of the last one that was seen here; it is remembered.
 *
 * @throws CommandFailure `rolled-back` for an older log, `log-forked` for another one.
 */
export async function newestHead(client: ApiClient, state: KnownState): Promise<Checkpoint> {
  const head = await headOf(client);
  const before = state.seen().log;
  if (before !== undefined) {
    if (head.size < before.size) {
      throw new CommandFailure(
        `the service shows a log of ${head.size} entries, and has shown one of ${before.size} here before: it was cut or put back from a backup`,
        { code: "rolled-back", next: tellTheOthers },
      );
    }
    await requireGrownFrom(client, before, head, "the log that was seen here before");
  }
  state.remember({ log: seenHead(head) });
  return head;
}

/**
 * That the log of `head` begins with an earlier one.
 *
 * @param what - the earlier one, in words.
 * @throws CommandFailure `log-forked`.
 */
export async function requireGrownFrom(
  client: ApiClient,
  earlier: SeenHead,
  head: Checkpoint,
  what: string,
): Promise<void> {
  const forked = (why: string, cause?: unknown): CommandFailure =>
    new CommandFailure(`the service's log does not continue ${what}: ${why}`, {
      code: "log-forked",
      next: tellTheOthers,
      cause,
    });
  const oldRoot = Buffer.from(earlier.root, "base64");
  const { size, root } = head;
  if (earlier.size > size) throw forked(`${earlier.size} entries were shown there, ${size} here`);
  const source = {
    async read(path: string): Promise<Buffer | undefined> {
      const answer = await client.request(`/audit/${path}`, { as: "nobody", expected: [404] });
      return answer.status === 404 ? undefined : answer.body;
    },
  };
  let proof: Uint8Array[];
  try {
    proof = await consistencyProof(tileReader(source, size), earlier.size, size);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw forked(error.message, error);
  }
  if (!verifyConsistency({ oldSize: earlier.size, oldRoot, size, root, proof })) {
    throw forked(`entries before ${earlier.size} are not the ones that were there`);
  }
}

const tellTheOthers =
  "nothing was signed. Do not go on: ask the other operators, by phone, which log they see";
