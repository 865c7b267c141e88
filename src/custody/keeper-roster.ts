/**
 * The people whose word counts: the chain of rosters from the configured genesis on. The database keeps the versions and
 * shows them; the keeper keeps how far they went.
 */

import { digestOf } from "../audit/digest.ts";
import { CountersignError } from "../errors.ts";
import type { StateFile } from "./keeper-state.ts";
import { readRosterVersions } from "./roster-chain.ts";
import {
  checkOperatorSignature,
  type Roster,
  type RosterDocument,
  type RosterVersion,
} from "./roster.ts";

export interface RosterBook {
  /** Digest of the first version, from the configuration. */
  readonly genesis: string;
  /** The versions so far, from the first; none until they were shown. */
  readonly versions: readonly RosterVersion[];
  /** The newest version; undefined until it was shown. */
  readonly inForce: Roster | undefined;
  /** Verifier keys that the keeper has had: what outlives one, its share sets, was signed with any of them. */
  readonly identityKeys: readonly string[];
  /** @throws CountersignError `rolled-back` until the roster that the keeper knows was shown, else `ceremony-refused`. */
  require(): Roster;
  /**
   * Verifies what one person of the roster in force has signed.
   *
   * @throws CountersignError `rolled-back` until the roster that the keeper knows was shown; `operator-unknown`,
   *   `signature-invalid`.
   */
  check(operator: string, namespace: string, octets: Uint8Array, signature: string): void;
  /**
   * Takes the versions that the database has, from the first.
   *
   * @throws CountersignError `rolled-back` if the version that the keeper saw last is not among them;
   *   `roster-invalid`, `roster-unsigned`.
   */
  show(versions: readonly RosterVersion[]): void;
  /**
   * Takes the next version; one that is in force already changes nothing.
   *
   * @throws CountersignError `rolled-back`, `ceremony-refused` as {@link require}; `roster-invalid`,
   *   `roster-unsigned`.
   */
  add(version: RosterVersion): void;
  /** @throws CountersignError `roster-invalid` for a roster that names other keys of the service than it has. */
  checkService(document: RosterDocument): void;
}

export interface RosterBookParts {
  readonly genesis: string;
  readonly stateFile: StateFile;
  /** The service's own keys, as the roster names them. */
  readonly service: { readonly identity: string; readonly log: string };
}

export function rosterBook({ genesis, stateFile, service }: RosterBookParts): RosterBook {
  let versions: readonly RosterVersion[] = [];
  let rosters: readonly Roster[] = [];

  function take(next: readonly RosterVersion[]): void {
    const chain = readRosterVersions(genesis, service.identity, next);
    const roster = chain.at(-1)!;
    const { version } = roster.document;
    const known = stateFile.state.roster;
    if (known !== null && chain[known.version - 1]?.digest !== known.digest) {
      throw rolledBack(`are not those that the keeper saw, of which there are ${known.version}`);
    }
    checkService(roster.document);
    // Every chain begins with the genesis; what comes after it must not be forgotten.
    if (version > (known?.version ?? 1)) {
      stateFile.change((state) => {
        state.roster = { version, digest: roster.digest };
      });
    }
    versions = next;
    rosters = chain;
  }

  function checkService({ service: named }: RosterDocument): void {
    for (const key of ["identity", "log"] as const) {
      if (named[key] !== service[key]) {
        throw new CountersignError(
          "roster-invalid",
          `the roster names another ${key} key of the service than ${service[key]}`,
        );
      }
    }
  }

  function requireShown(): void {
    if (rosters.length === 0 && stateFile.state.roster !== null) {
      throw rolledBack("so far were not shown");
    }
  }

  function require(): Roster {
    requireShown();
    const inForce = rosters.at(-1);
    if (inForce === undefined) {
      throw new CountersignError("ceremony-refused", "there is no roster: show the genesis first");
    }
    return inForce;
  }

  return {
    genesis,
    get versions() {
      return versions;
    },
    get inForce() {
      return rosters.at(-1);
    },
    get identityKeys() {
      return rosters.map(({ document }) => document.service.identity);
    },
    require,
    check(operator, namespace, octets, signature) {
      requireShown();
      const inForce = rosters.at(-1);
      if (inForce === undefined) {
        throw new CountersignError("operator-unknown", "there is no roster, and so no operator");
      }
      checkOperatorSignature(inForce, operator, namespace, octets, signature);
    },
    show(next) {
      if (next.length === 0) {
        requireShown();
        return;
      }
      take(next);
    },
    add(version) {
      if (digestOf(version.document) !== require().digest) take([...versions, version]);
    },
    checkService,
  };
}

function rolledBack(what: string): CountersignError {
  return new CountersignError("rolled-back", `the versions of the roster ${what}`);
}
