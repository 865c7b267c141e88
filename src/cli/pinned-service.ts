/**
 * The service as this person has pinned it: its statements are read only under its identity key, its log and roster
 * only if they are no older than what was seen here before. CUSTODY 6.3, 8.3.
 */

import type { Checkpoint } from "../audit/checkpoint.ts";
import { canonicalJson, parseCanonicalJson, type Json } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { openNote, parseVerifierKey } from "../audit/signed-note.ts";
import { readShareSet, type ShareSet } from "../custody/plan.ts";
import { readRoster, type Roster } from "../custody/roster.ts";
import {
  readCeremony,
  readUnlock,
  type CeremonyStatement,
  type UnlockStatement,
} from "../custody/statement.ts";
import { CountersignError } from "../errors.ts";
import type { ApiClient } from "./api-client.ts";
import { CommandFailure, ExitCode, usage } from "./failure.ts";
import { KnownState, type SeenRoster } from "./known-state.ts";
import { newestHead, requireGrownFrom, seenHead } from "./log-head.ts";
import { operatorOf, sshSign } from "./operator.ts";

/** A statement that the keeper signed. */
export interface Stated<Statement> {
  readonly statement: Statement;
  /** SHA-256 of its JSON, `sha256:` and 64 hex digits. */
  readonly digest: string;
  /** Its JSON, without the newline of the note. */
  readonly octets: Buffer;
  readonly note: string;
}

/** One person's statement, signed: as the API takes it. */
export interface SignedBody {
  readonly statement: string;
  readonly signature: string;
}

interface RosterAnswer {
  readonly version: number;
  readonly digest: string;
  readonly document: string;
  readonly genesis: string;
  readonly versions: readonly { readonly document: string }[];
}

const IDENTITY_SUFFIX = "/keeper";

const readers = {
  "countersign/ceremony/v1": readCeremony,
  "countersign/unlock/v1": readUnlock,
  "countersign/share-set/v1": readShareSet,
} as const;

interface StatementOf {
  readonly "countersign/ceremony/v1": CeremonyStatement;
  readonly "countersign/unlock/v1": UnlockStatement;
  readonly "countersign/share-set/v1": ShareSet;
}

export class PinnedService {
  readonly client: ApiClient;
  readonly identityKey: string;
  /** What statements call the service. */
  readonly name: string;
  readonly operator: string;
  readonly state: KnownState;
  readonly #sshKey: string;
  #chain: Promise<readonly Roster[]> | undefined;

  /** @throws CommandFailure with exit code 2 unless the settings say who asks and which identity key is pinned. */
  constructor(client: ApiClient) {
    this.client = client;
    const { operator, sshKey } = operatorOf(client);
    this.operator = operator;
    this.#sshKey = sshKey;
    this.identityKey = pinnedKey(client.settings.identityKey);
    this.name = serviceNameOf(this.identityKey);
    this.state = new KnownState(this.identityKey);
  }

  /**
   * The statement of a ceremony.
   *
   * @param reference - its id or its digest.
   * @throws CommandFailure unless it is signed by the pinned key, of this service, and the one that was asked for.
   */
  async ceremony(reference: string): Promise<Stated<CeremonyStatement>> {
    const path = `/v1/ceremonies/${encodeURIComponent(reference)}/statement`;
    const stated = await this.#stated(path, "countersign/ceremony/v1");
    requireReference(reference, stated.statement.id, stated.digest);
    return stated;
  }

  /** The statement of an unlock, and of the ceremony that it is for; as {@link ceremony}. */
  async unlock(reference: string): Promise<{
    unlock: Stated<UnlockStatement>;
    ceremony: Stated<CeremonyStatement>;
  }> {
    const path = `/v1/unlocks/${encodeURIComponent(reference)}/statement`;
    const unlock = await this.#stated(path, "countersign/unlock/v1");
    requireReference(reference, unlock.statement.id, unlock.digest);
    const ceremony = await this.ceremony(unlock.statement.ceremony);
    if (ceremony.statement.keyId !== unlock.statement.keyId) {
      throw refused("the unlock and its ceremony are about two different keys");
    }
    return { unlock, ceremony };
  }

  /** @param shareSet - digest of one; the one in force when absent. */
  async shareSet(keyId: string, shareSet?: string): Promise<Stated<ShareSet>> {
    const query = shareSet === undefined ? "" : `?shareSet=${encodeURIComponent(shareSet)}`;
    const { body } = await this.client.request(
      `/v1/keys/${encodeURIComponent(keyId)}/share-set${query}`,
      { as: "operator" },
    );
    const stated = openShareSet(body, this.identityKey);
    if (stated.statement.keyId !== keyId || (shareSet ?? stated.digest) !== stated.digest) {
      throw refused("the service sent another share set than the one asked for");
    }
    return stated;
  }

  /** The newest head of the log, checked against the last one seen. */
  head(): Promise<Checkpoint> {
    return newestHead(this.client, this.state);
  }

  /**
   * Everything that must hold before a statement is signed: the log that it names is the one that was seen and is shown,
   * and its roster is none that was replaced before.
   *
   * @returns the head to sign with.
   */
  async check(statement: CeremonyStatement | UnlockStatement): Promise<Checkpoint> {
    const { log, roster } = statement;
    const head = await this.head();
    if (log.origin !== head.origin) {
      throw refused(`the statement names the log ${log.origin}, and this one is ${head.origin}`);
    }
    await requireGrownFrom(this.client, log, head, "the one that the statement names");
    this.state.remember({ roster: await this.#checkRoster(roster) });
    return head;
  }

  /**
   * That nobody put back an older share set of a key (ST-67); a newer one is remembered once it is active. One that is
   * pending may never be: then the one before it goes on, and the next one has the same epoch.
   *
   * @throws CommandFailure `rolled-back`.
   */
  checkEpoch(
    { keyId, epoch, shareSet }: { keyId: string; epoch: number; shareSet: string },
    state: "pending" | "active",
  ): void {
    const before = this.state.seen().keys?.[keyId];
    const next =
      "nothing was signed. Somebody may have put an old database back: ask the other custodians, by phone, which epoch they see";
    if (before !== undefined && epoch < before.epoch) {
      throw new CommandFailure(
        `the statement is of epoch ${epoch} of this key, and epoch ${before.epoch} was seen here before`,
        { code: "rolled-back", next },
      );
    }
    if (before !== undefined && epoch === before.epoch && shareSet !== before.shareSet) {
      throw new CommandFailure(
        `the statement is of another share set of epoch ${epoch} than the one that was seen here before`,
        { code: "rolled-back", next },
      );
    }
    if (state === "active") this.state.remember({ keys: { [keyId]: { epoch, shareSet } } });
  }

  /** The versions of the roster, oldest first, each naming the one before it. */
  async rosterChain(): Promise<readonly Roster[]> {
    this.#chain ??= this.#readChain();
    return this.#chain;
  }

  /**
   * The roster in force, as the service shows it. It is not remembered: only a statement's is the keeper's word, and a
   * version that somebody made up would have every later one refused here.
   */
  async roster(): Promise<Roster> {
    const roster = (await this.rosterChain()).at(-1)!;
    await this.#checkRoster(roster.digest);
    return roster;
  }

  /** The roster that a statement of the keeper names. */
  async rosterOf({ roster: digest }: Pick<CeremonyStatement, "roster">): Promise<Roster> {
    const named = (await this.rosterChain()).find((roster) => roster.digest === digest);
    if (named === undefined) throw refused("the service does not show the statement's roster");
    return named;
  }

  /**
   * Signs a statement of this person's, after its own reader has read it: nothing is signed that would be refused.
   *
   * @param read - throws what is wrong with it.
   */
  async sign(
    namespace: string,
    statement: object,
    read: (octets: Uint8Array) => unknown,
  ): Promise<SignedBody> {
    const octets = Buffer.from(canonicalJson(statement as Json));
    try {
      read(octets);
    } catch (error) {
      if (!(error instanceof CountersignError)) throw error;
      throw new CommandFailure(error.message, {
        exitCode: ExitCode.usage,
        code: error.code,
        next: "nothing was signed; correct the options",
      });
    }
    return {
      statement: octets.toString("base64"),
      signature: await sshSign(this.#sshKey, namespace, octets),
    };
  }

  /** What every statement of this person begins with. */
  by(head: Checkpoint): { operator: string; at: string; log: { size: number; root: string } } {
    return { operator: this.operator, at: new Date().toISOString(), log: seenHead(head) };
  }

  async #stated<Type extends "countersign/ceremony/v1" | "countersign/unlock/v1">(
    path: string,
    type: Type,
  ): Promise<Stated<StatementOf[Type]>> {
    const { body } = await this.client.request(path, { as: "nobody" });
    const stated = openStated(body, this.identityKey, type);
    const { service } = stated.statement as CeremonyStatement | UnlockStatement;
    if (service !== this.name) {
      throw refused(`the statement is of the service ${service}, and not of ${this.name}`);
    }
    return stated;
  }

  async #checkRoster(digest: string): Promise<SeenRoster> {
    const before = this.state.seen().roster;
    if (before?.digest === digest) return before;
    const chain = await this.rosterChain();
    const named = chain.find((roster) => roster.digest === digest);
    const next =
      "nothing was signed. Ask the other operators, by phone, which roster is in force; a ceremony of an older one is proposed again";
    if (named === undefined) {
      throw new CommandFailure("the statement names a roster that the service does not show", {
        code: "rolled-back",
        next,
      });
    }
    if (before !== undefined && !chain.some((roster) => roster.digest === before.digest)) {
      throw new CommandFailure(
        `the service's rosters do not go back to version ${before.version}, which was seen here before`,
        { code: "rolled-back", next },
      );
    }
    const { version } = named.document;
    if (before !== undefined && version < before.version) {
      throw new CommandFailure(
        `the statement was made under version ${version} of the roster, and version ${before.version} was seen here before`,
        { code: "rolled-back", next },
      );
    }
    return { version, digest };
  }

  async #readChain(): Promise<readonly Roster[]> {
    const answer = await this.client.json<RosterAnswer>("/v1/roster", { as: "operator" });
    let before: Roster | undefined;
    return answer.versions.map(({ document }) => {
      const roster = readRoster(Buffer.from(document, "base64"));
      const { previous, version } = roster.document;
      if (
        previous !== (before?.digest ?? null) ||
        version !== (before?.document.version ?? 0) + 1
      ) {
        throw refused(`version ${version} of the roster does not follow the one before it`);
      }
      before = roster;
      return roster;
    });
  }
}

/** @throws CommandFailure with exit code 2 if none is configured. */
export function pinnedKey(identityKey: string | undefined): string {
  if (identityKey === undefined) {
    throw usage(
      "which key does the service sign its statements with? None is pinned here",
      "get the service's identity key from somebody you trust, and write it into the configuration as identityKey; countersign enrol does that",
    );
  }
  try {
    serviceNameOf(identityKey);
  } catch (error) {
    throw usage(`identityKey of the configuration: ${(error as Error).message}`);
  }
  return identityKey;
}

/** @throws SyntaxError if it is not the verifier key of a keeper. */
export function serviceNameOf(identityKey: string): string {
  const { name } = parseVerifierKey(identityKey);
  if (!name.endsWith(IDENTITY_SUFFIX) || name === IDENTITY_SUFFIX) {
    throw new SyntaxError(`${name} is not the identity of a service: its name ends in /keeper`);
  }
  return name.slice(0, -IDENTITY_SUFFIX.length);
}

/** @throws CommandFailure unless it is a share set that the pinned key has signed. */
export function openShareSet(note: Uint8Array, identityKey: string): Stated<ShareSet> {
  return openStated(note, identityKey, "countersign/share-set/v1");
}

/**
 * Opens a note that must hold a statement of one type.
 *
 * @throws CommandFailure `signature-invalid`; `statement-refused` for a rehearsal, or any other type.
 */
function openStated<Type extends keyof StatementOf>(
  note: Uint8Array,
  identityKey: string,
  type: Type,
): Stated<StatementOf[Type]> {
  let text: string;
  try {
    ({ text } = openNote(note, [identityKey]));
  } catch (error) {
    if (!(error instanceof CountersignError)) throw error;
    throw new CommandFailure(
      `the statement does not come from ${serviceNameOf(identityKey)}: ${error.message}`,
      {
        code: "signature-invalid",
        next: "nothing was signed. Check --url; if the service has a new identity key, hear that from the other operators, not from the service",
        cause: error,
      },
    );
  }
  const octets = Buffer.from(text.slice(0, -1));
  const found = typeOf(octets);
  if (found !== type) {
    throw refused(
      found?.startsWith("countersign/rehearsal") === true
        ? `this is a rehearsal (${found}), and nothing of it is signed as if it were real`
        : `this is not a statement of the type ${type}${found === undefined ? "" : `, but ${found}`}`,
    );
  }
  return {
    statement: readers[type](octets) as StatementOf[Type],
    digest: digestOf(octets),
    octets,
    note: Buffer.from(note).toString(),
  };
}

function typeOf(octets: Uint8Array): string | undefined {
  try {
    const { type } = parseCanonicalJson(octets) as { type?: unknown };
    return typeof type === "string" ? type : undefined;
  } catch {
    return undefined;
  }
}

function requireReference(reference: string, id: string, digest: string): void {
  if (reference !== id && reference !== digest) {
    throw refused("the service sent another statement than the one asked for");
  }
}

export function refused(message: string): CommandFailure {
  return new CommandFailure(message, { code: "statement-refused", next: "nothing was signed" });
}
