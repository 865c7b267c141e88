/** The part of the service that every signature needs: database, keeper and journal, opened in their order. */

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import {
  connectKeeper,
  startKeeper,
  type KeeperClient,
  type KeeperStatus,
} from "./custody/keeper-client.ts";
import type { ServiceConfig } from "./config.ts";
import { encodeEntry } from "./audit/entry.ts";
import { openDatabase, lockHome } from "./store/database.ts";
import { createCustodyReads } from "./store/custody-reads.ts";
import { openJournal, type ClosableJournal } from "./store/journal.ts";
import { createReads } from "./store/reads.ts";
import type { CustodyReads } from "./ceremony/records.ts";
import { Rosters } from "./ceremony/roster-book.ts";
import { readRosterFile } from "./custody/roster-file.ts";
import type { Reads } from "./issuance/records.ts";

export interface Ledger {
  readonly keeper: KeeperClient;
  /** As it was at the start. */
  readonly status: KeeperStatus;
  readonly journal: ClosableJournal;
  readonly reads: Reads & CustodyReads;
  /** The people, as the keeper has been shown them. */
  readonly rosters: Rosters;
  /** Writes what is left, ends the keeper and closes the database. */
  close(): Promise<void>;
}

/**
 * @throws CountersignError `home-in-use`, `rolled-back`, `head-missing`, `config-invalid`, `roster-invalid`,
 *   `roster-unsigned`.
 */
export async function openLedger(config: ServiceConfig, now: () => Date): Promise<Ledger> {
  const opened: (() => Promise<unknown>)[] = [];
  const close = async (): Promise<void> => {
    for (const closing of opened.toReversed()) await closing();
  };
  try {
    const lock = await lockHome(join(dirname(config.database), "lock"));
    opened.push(() => lock.release());
    const database = await openDatabase(config.database);
    opened.push(() => database.close());
    const keeper = await (typeof config.keeper === "string"
      ? startKeeper({ configFile: config.keeper })
      : connectKeeper({ socketPath: config.keeper.socket }));
    opened.push(() => keeper.close());
    const { service, origin, genesis, head } = await keeper.status();
    const journal = await openJournal({ database, keeper, head, now });
    opened.push(() => journal.close());
    const reads = { ...createReads(database), ...createCustodyReads(database) };
    if (journal.size === 0) {
      await keeper.initialise();
      await journal.append({
        kind: "entry",
        leaf: encodeEntry({
          type: "log.started",
          at: now(),
          actor: { kind: "keeper", id: service },
          subject: {},
          data: { origin },
        }),
      });
    }
    const rosters = await Rosters.load(
      { service, genesis, journal, reads, keeper, now },
      existsSync(config.genesis) ? readRosterFile(config.genesis) : undefined,
    );
    return { keeper, status: await keeper.status(), journal, reads, rosters, close };
  } catch (error) {
    await close();
    throw error;
  }
}
