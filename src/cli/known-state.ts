/**
 * What this person's machine has seen of each service, so that nobody shows it an older log, roster or share set later:
 * CUSTODY 8.3, AUDIT-LOG 9.5.
 */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CommandFailure } from "./failure.ts";
import { makeOwnFolder, reasonOf, replaceSecretFile } from "./files.ts";
import { configurationFolder } from "./settings.ts";

export interface SeenHead {
  readonly size: number;
  /** Base64. */
  readonly root: string;
}

export interface SeenRoster {
  readonly version: number;
  readonly digest: string;
}

export interface SeenShareSet {
  readonly epoch: number;
  readonly shareSet: string;
}

/** All of one service; what was never seen is absent. */
export interface Seen {
  readonly log?: SeenHead;
  readonly roster?: SeenRoster;
  /** By keyId. */
  readonly keys?: Readonly<Record<string, SeenShareSet>>;
}

interface StateFile {
  readonly version: 1;
  /** By the verifier key of the service's identity: another key is another service. */
  readonly services: Readonly<Record<string, Seen>>;
}

const none: StateFile = { version: 1, services: {} };

export class KnownState {
  readonly #identityKey: string;
  readonly file: string;

  constructor(identityKey: string, folder = configurationFolder()) {
    this.#identityKey = identityKey;
    this.file = join(folder, "state.json");
  }

  /** @throws CommandFailure `state-unreadable` if the file is damaged: starting anew would forget what it is for. */
  seen(): Seen {
    return this.#read().services[this.#identityKey] ?? {};
  }

  /** Puts what was seen beside what is there, on disk before this returns. */
  remember(news: Seen): void {
    // Read again: another command may have seen more meanwhile.
    const state = this.#read();
    const before = state.services[this.#identityKey] ?? {};
    const log = later(before.log, news.log, ({ size }) => size);
    const roster = later(before.roster, news.roster, ({ version }) => version);
    const keys: Record<string, SeenShareSet> = { ...before.keys };
    for (const [keyId, seen] of Object.entries(news.keys ?? {})) {
      keys[keyId] = later(keys[keyId], seen, ({ epoch }) => epoch)!;
    }
    const after: Seen = {
      ...(log === undefined ? {} : { log }),
      ...(roster === undefined ? {} : { roster }),
      ...(Object.keys(keys).length === 0 ? {} : { keys }),
    };
    if (JSON.stringify(after) === JSON.stringify(before)) return;
    const services = { ...state.services, [this.#identityKey]: after };
    makeOwnFolder(join(this.file, ".."));
    replaceSecretFile(
      this.file,
      `${JSON.stringify({ ...state, services } satisfies StateFile, undefined, 2)}\n`,
    );
  }

  #read(): StateFile {
    if (!existsSync(this.file)) return none;
    let text: string;
    try {
      text = readFileSync(this.file, "utf8");
    } catch (error) {
      throw this.#unreadable(reasonOf(error), error);
    }
    try {
      const state = JSON.parse(text) as StateFile;
      if (state.version === 1 && typeof state.services === "object" && state.services !== null) {
        return state;
      }
    } catch (error) {
      throw this.#unreadable("it is not JSON", error);
    }
    throw this.#unreadable("it is not of this version of the command");
  }

  #unreadable(why: string, cause?: unknown): CommandFailure {
    return new CommandFailure(`what was seen before cannot be read from ${this.file}: ${why}`, {
      code: "state-unreadable",
      next: "put it back from a backup. Without it an older log, roster or share would not be noticed: remove it only if you know what happened to it",
      cause,
    });
  }
}

/** The one that is further on; the new one where both are as far. */
function later<Item>(
  before: Item | undefined,
  news: Item | undefined,
  place: (item: Item) => number,
): Item | undefined {
  if (before === undefined || news === undefined) return news ?? before;
  return place(news) >= place(before) ? news : before;
}
