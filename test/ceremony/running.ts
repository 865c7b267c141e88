/** What the service runs for ceremonies: a real database, a real keeper with its processes, and the domain around them. */

import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { encodeEntry } from "../../src/audit/entry.ts";
import { startCeremonies, type CeremonyDomain } from "../../src/ceremony/domain.ts";
import type { CeremonyParts } from "../../src/ceremony/progress.ts";
import type { CustodyReads } from "../../src/ceremony/records.ts";
import { Rosters } from "../../src/ceremony/roster-book.ts";
import { startKeeper, type KeeperClient } from "../../src/custody/keeper-client.ts";
import type { RosterVersion } from "../../src/custody/roster.ts";
import { abandonOpenIntents } from "../../src/issuance/open-intents.ts";
import type { Reads } from "../../src/issuance/records.ts";
import { compilePolicy } from "../../src/policy/decide.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import { createCustodyReads } from "../../src/store/custody-reads.ts";
import { openDatabase, type Database } from "../../src/store/database.ts";
import { openJournal, type ClosableJournal } from "../../src/store/journal.ts";
import { createReads } from "../../src/store/reads.ts";

/** What runs between a start and a stop. */
export interface Running {
  readonly database: Database;
  readonly keeper: KeeperClient;
  readonly journal: ClosableJournal;
  readonly reads: Reads & CustodyReads;
  readonly rosters: Rosters;
  readonly domain: CeremonyDomain;
}

export interface RunningParts {
  /** With the database and the keeper's files. */
  readonly directory: string;
  readonly configFile: string;
  readonly genesis: RosterVersion;
  /** The policy document, as text. */
  readonly policy: string;
  readonly now: () => Date;
  readonly observers: Pick<CeremonyParts, "denied" | "failed" | "published">;
  /** Changes what the domain is given of it. */
  readonly around?: (parts: Pick<CeremonyParts, "keeper" | "journal">) => typeof parts;
}

export async function startRunning(parts: RunningParts): Promise<Running> {
  const database = await openDatabase(join(parts.directory, "countersign.db"));
  const keeper = await startKeeper({ configFile: parts.configFile });
  try {
    return await startDomain(database, keeper, parts);
  } catch (error) {
    await keeper.close();
    await database.close();
    throw error;
  }
}

async function startDomain(
  database: Database,
  keeper: KeeperClient,
  parts: RunningParts,
): Promise<Running> {
  const { now, around = (same) => same } = parts;
  const status = await keeper.status();
  const journal = await openJournal({ database, keeper, head: status.head, now });
  const reads = { ...createReads(database), ...createCustodyReads(database) };
  if (journal.size === 0) {
    await keeper.initialise();
    await journal.append({
      kind: "entry",
      leaf: encodeEntry({
        type: "log.started",
        at: now(),
        actor: { kind: "keeper", id: status.service },
        subject: {},
        data: { origin: status.origin },
      }),
    });
  }
  const { service, genesis } = status;
  const rosters = await Rosters.load(
    { service, genesis, journal, reads, keeper, now },
    parts.genesis,
  );
  await abandonOpenIntents({ journal, reads, service, now });
  const domain = await startCeremonies({
    service,
    reads,
    rosters,
    policy: compilePolicy(parsePolicy(parts.policy, "policy.yaml")),
    now,
    random: (size) => Uint8Array.from(randomBytes(size)),
    ...parts.observers,
    ...around({ keeper, journal }),
  });
  return { database, keeper, journal, reads, rosters, domain };
}
