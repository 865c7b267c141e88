/** Ceremonies and unlocks as people see them: nothing that only the journal, the keeper or a process needs. */

import { parseEntry } from "../audit/entry.ts";
import { readShareSet } from "../custody/plan.ts";
import { readUnlock } from "../custody/statement.ts";
import { CountersignError } from "../errors.ts";
import type { Reads } from "../issuance/records.ts";
import { notedJson } from "./log-words.ts";
import type { CustodyReads, StoredCeremony, StoredUnlock } from "./records.ts";
import type { Rosters } from "./roster-book.ts";
import { missingOf, peopleOf, submittersOf, tallyOf } from "./tally.ts";
import type { CeremonyView, MissingView, ResultView, UnlockView } from "./view.ts";

export interface ViewParts {
  readonly reads: Reads & CustodyReads;
  readonly rosters: Rosters;
}

/** @throws CountersignError `ceremony-unknown`. */
export async function findCeremony(
  reads: CustodyReads,
  idOrDigest: string,
): Promise<StoredCeremony> {
  const ceremony = await reads.ceremony(idOrDigest);
  if (ceremony === undefined) {
    throw new CountersignError("ceremony-unknown", "there is no ceremony with this id or digest");
  }
  return ceremony;
}

/** @throws CountersignError `unlock-unknown`. */
export async function findUnlock(reads: CustodyReads, idOrDigest: string): Promise<StoredUnlock> {
  const unlock = await reads.unlock(idOrDigest);
  if (unlock === undefined) {
    throw new CountersignError("unlock-unknown", "there is no unlock with this id or digest");
  }
  return unlock;
}

/** @param trouble - why its last step did not succeed. */
export async function ceremonyView(
  { reads, rosters }: ViewParts,
  ceremony: StoredCeremony,
  trouble: string | undefined,
): Promise<CeremonyView> {
  const tally = await tallyOf(reads, rosters.inForce, ceremony);
  const { statement, unlock } = tally;
  const { digest, id, kind, state, proposer, notAfter, createdAt } = ceremony;
  const sets = await reads.shareSets({});
  const shareSet = sets.find((set) => set.ceremony === digest);
  const keyId = ceremony.keyId ?? shareSet?.keyId;
  const results = state === "published" ? await resultsOf(reads, ceremony) : undefined;
  return {
    id,
    digest,
    kind,
    ...(keyId === undefined ? {} : { keyId }),
    state,
    reason: statement.reason,
    requestedBy: proposer,
    notAfter,
    createdAt,
    people: peopleOf(rosters.inForce, tally),
    missing: missingOf(tally),
    ...(unlock === undefined
      ? {}
      : {
          unlock: {
            id: unlock.id,
            digest: unlock.digest,
            state: unlock.state,
            expiresAt: unlock.expiresAt,
          },
        }),
    ...(shareSet === undefined ? {} : { shareSet: shareSet.digest }),
    ...(results === undefined ? {} : { results }),
    ...(trouble === undefined ? {} : { trouble }),
  };
}

/** What was signed stands in the log just before the record that the ceremony is published, in the same transaction. */
async function resultsOf(
  reads: Reads & CustodyReads,
  { note, changedIndex }: StoredCeremony,
): Promise<ResultView[]> {
  const { artefacts = [] } = JSON.parse(Buffer.from(notedJson(note)).toString("utf8")) as {
    artefacts?: readonly { readonly tbs: string }[];
  };
  const leaves = await reads.entries(changedIndex - artefacts.length, changedIndex);
  return Promise.all(
    artefacts.map(async ({ tbs }, place) => {
      const entry = parseEntry(leaves[place]!);
      if (entry.type !== "sign.done") throw new Error(`entry before ${changedIndex} is no result`);
      const { certificate, crl, request } = entry.data;
      const der = await reads.object((certificate ?? crl ?? request)!);
      if (der === undefined) throw new Error(`the result of artefact ${tbs} is missing`);
      return { tbs, der };
    }),
  );
}

export async function unlockView(
  { reads, rosters }: ViewParts,
  unlock: StoredUnlock,
): Promise<UnlockView> {
  const { digest, id, ceremony, keyId, shareSet, state, expiresAt, logIndex } = unlock;
  const { epoch, threshold, shareCount } = readUnlock(notedJson(unlock.note));
  const stored = await reads.shareSet(shareSet);
  if (stored === undefined) throw new Error(`share set ${shareSet} is missing`);
  const set = readShareSet(notedJson(stored.note));
  const [opened] = await reads.entries(logIndex, logIndex + 1);
  return {
    id,
    digest,
    ceremony,
    keyId,
    epoch,
    threshold,
    shareCount,
    shareSet,
    state,
    expiresAt,
    createdAt: parseEntry(opened!).at,
    people: submittersOf(set, await reads.submissions(digest)),
    missing: await missingFor({ reads, rosters }, unlock, threshold),
  };
}

async function missingFor(
  { reads, rosters }: ViewParts,
  unlock: StoredUnlock,
  threshold: number,
): Promise<MissingView> {
  if (unlock.state === "opened") return { roles: {}, shares: 0 };
  const ceremony = await findCeremony(reads, unlock.ceremony);
  const tally = await tallyOf(reads, rosters.inForce, ceremony);
  // Of one that is over, nothing counts any more.
  return tally.unlock?.digest === unlock.digest
    ? missingOf(tally)
    : { ...missingOf(tally), shares: threshold };
}
