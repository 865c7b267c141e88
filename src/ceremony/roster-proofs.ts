/** The signatures of the new keys of a roster: they come with the proposal, and stand in its record. */

import { parseEntry } from "../audit/entry.ts";
import type { RosterSignature } from "../custody/roster.ts";
import type { Reads } from "../issuance/records.ts";
import type { StoredCeremony } from "./records.ts";

export async function proofsOfPossession(
  reads: Reads,
  { logIndex }: StoredCeremony,
): Promise<readonly RosterSignature[]> {
  const [leaf] = await reads.entries(logIndex, logIndex + 1);
  const entry = leaf === undefined ? undefined : parseEntry(leaf);
  if (entry?.type !== "ceremony.opened") throw new Error(`entry ${logIndex} opens no ceremony`);
  return entry.data.signatures ?? [];
}
