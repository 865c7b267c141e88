/** The people: the versions of the roster, from the genesis on, each recorded before anybody acts on it. */

import { encodeEntry } from "../audit/entry.ts";
import {
  checkGenesis,
  checkSuccessor,
  readRoster,
  type Roster,
  type RosterVersion,
} from "../custody/roster.ts";
import { CountersignError } from "../errors.ts";
import type { CustodyJournal } from "./journal.ts";
import type { CeremonyKeeper } from "./keeper.ts";
import { notedDigest } from "./log-words.ts";
import type { CustodyReads } from "./records.ts";
import type { RosterBook } from "./view.ts";

export interface RosterParts {
  /** The service's name. */
  readonly service: string;
  readonly journal: CustodyJournal;
  readonly reads: CustodyReads;
  readonly keeper: Pick<CeremonyKeeper, "rosters" | "roster">;
  /** Digest of the genesis, from the keeper's status. */
  readonly genesis: string;
  readonly now: () => Date;
}

export class Rosters implements RosterBook {
  readonly #parts: RosterParts;
  readonly #versions: RosterVersion[] = [];
  #inForce: Roster | undefined;

  private constructor(parts: RosterParts) {
    this.#parts = parts;
  }

  /**
   * Reads the versions that were recorded, and shows them to the keeper.
   *
   * @param genesis - recorded where there is none yet.
   * @throws CountersignError `roster-invalid`, `roster-unsigned`, `rolled-back`.
   */
  static async load(parts: RosterParts, genesis?: RosterVersion): Promise<Rosters> {
    const rosters = new Rosters(parts);
    for (const { document, signatures, ceremony } of await parts.reads.rosterVersions()) {
      rosters.#take({ document, signatures, ...(ceremony === undefined ? {} : { ceremony }) });
    }
    if (rosters.#inForce === undefined && genesis !== undefined) await rosters.#begin(genesis);
    await parts.keeper.rosters(rosters.#versions);
    return rosters;
  }

  get genesis(): string {
    return this.#parts.genesis;
  }

  /** @throws CountersignError `roster-invalid` while there is none. */
  get inForce(): Roster {
    if (this.#inForce === undefined) {
      throw new CountersignError("roster-invalid", "this home has no roster: set up its genesis");
    }
    return this.#inForce;
  }

  /** Nobody is an operator where there is no roster. */
  get people(): Roster | undefined {
    return this.#inForce;
  }

  current(): { version: number; digest: string; document: Uint8Array } {
    const { digest, octets, document } = this.inForce;
    return { version: document.version, digest, document: octets };
  }

  chain(): readonly RosterVersion[] {
    return this.#versions;
  }

  /** Whether a ceremony has brought about a version. */
  isOf(ceremony: string): boolean {
    return this.#versions.some(
      (version) =>
        version.ceremony !== undefined && notedDigest(version.ceremony.note) === ceremony,
    );
  }

  /**
   * Records the next version, then tells the keeper. One that is recorded already is only told.
   *
   * @throws CountersignError `roster-invalid`, `roster-unsigned`: nothing is recorded then.
   */
  async follow(version: RosterVersion): Promise<void> {
    const roster = readRoster(version.document);
    if (roster.digest !== this.inForce.digest) {
      checkSuccessor(this.inForce, roster, version.signatures);
      // A crash here leaves a version that the next start shows to the keeper.
      await this.#record(roster, version);
      this.#take(version);
    }
    await this.#parts.keeper.roster(version);
  }

  async #begin(genesis: RosterVersion): Promise<void> {
    const roster = readRoster(genesis.document);
    if (roster.digest !== this.genesis) {
      throw new CountersignError(
        "roster-invalid",
        "this is not the genesis that the keeper's configuration names",
      );
    }
    checkGenesis(roster, genesis.signatures);
    await this.#record(roster, genesis);
    this.#take(genesis);
  }

  async #record(roster: Roster, { signatures, ceremony }: RosterVersion): Promise<void> {
    const { digest, octets, document } = roster;
    await this.#parts.journal.append({
      kind: "roster",
      leaf: encodeEntry({
        type: "roster.changed",
        at: this.#parts.now(),
        actor: { kind: "service", id: this.#parts.service },
        subject: {},
        data: {
          version: document.version,
          roster: digest,
          document: Buffer.from(octets).toString("base64"),
          signatures: signatures.map(({ operator, signature }) => ({ operator, signature })),
          ...(ceremony === undefined ? {} : { ceremony: notedDigest(ceremony.note) }),
        },
      }),
      row: {
        version: document.version,
        digest,
        document: octets,
        evidence: { signatures, ...(ceremony === undefined ? {} : { ceremony }) },
      },
    });
  }

  #take(version: RosterVersion): void {
    this.#inForce = readRoster(version.document);
    this.#versions.push(version);
  }
}
