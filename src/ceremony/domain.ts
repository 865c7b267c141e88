/** The room as a whole: its parts around one journal and one keeper. */

import { CeremonyBook } from "./ceremonies.ts";
import { KeyCustody } from "./custody.ts";
import { EnrolmentBook } from "./enrolments.ts";
import { Failures } from "./failures.ts";
import { InboxOfPeople, shareWarnings, type ShareWarning } from "./inbox.ts";
import { Progress, type CeremonyParts } from "./progress.ts";
import { UnlockBook } from "./unlocks.ts";
import type { CustodyParts } from "./view.ts";

export interface CeremonyDomain extends CustodyParts {
  /** Looks at what time has made due; to be called each second, one call after the other. */
  tick(): Promise<void>;
  /** Sealed keys that may be lost with the next share. */
  warnings(): Promise<readonly ShareWarning[]>;
  /** When no step of a ceremony is under way. */
  idle(): Promise<void>;
}

/**
 * Takes up what was left, and waits for more. The roster has been shown to the keeper, and intents that a crash left
 * open are closed.
 *
 * @throws what the keeper says of a share set in force, such as `share-stale` after a restore.
 */
export async function startCeremonies(parts: CeremonyParts): Promise<CeremonyDomain> {
  const withFailures = { ...parts, failures: new Failures(parts.now) };
  const progress = new Progress(parts);
  const enrolments = new EnrolmentBook(withFailures);
  const custody = new KeyCustody(withFailures, progress);
  parts.keeper.onClosed((event) => {
    progress.closed(event).catch((error: unknown) => {
      parts.failed(`the end of ${event.what} ${event.unlock}`, error);
    });
  });
  await progress.recover();
  await enrolments.inviteAll();
  let invited = parts.rosters.people?.digest;
  return {
    ceremonies: new CeremonyBook(withFailures, progress, enrolments),
    unlocks: new UnlockBook(withFailures, progress),
    custody,
    enrolments,
    roster: parts.rosters,
    inbox: new InboxOfPeople(parts, custody, enrolments),
    async tick() {
      await progress.tick();
      const roster = parts.rosters.people?.digest;
      if (roster === invited) return;
      await enrolments.inviteAll();
      invited = roster;
    },
    warnings: () => shareWarnings(parts),
    idle: () => progress.idle(),
  };
}
