/** What people and the service do with a keeper: they propose, approve, deal, give shares and open. */

import { expect } from "vitest";
import { encodeEntry, type LogEntry } from "../../src/audit/entry.ts";
import { openNote } from "../../src/audit/signed-note.ts";
import type {
  CeremonyProposal,
  Dealt,
  KeeperClient,
  LogRecord,
  Stated,
} from "../../src/custody/keeper-client.ts";
import { readShareSet, type ShareSet } from "../../src/custody/plan.ts";
import type { RosterDocument, RosterVersion } from "../../src/custody/roster.ts";
import {
  readUnlock,
  type CeremonyStatement,
  type Signed,
  type UnlockStatement,
} from "../../src/custody/statement.ts";
import { json } from "../support/people.ts";
import { digestOf, type KeeperHome, type TestLog } from "./keeper-home.ts";

const HOUR = 3_600_000;

/** As `expect.poll`, for processes of a machine that is busy. */
export function eventually<Value>(read: () => Value | Promise<Value>) {
  return expect.poll(read, { timeout: 20_000 });
}

export interface Change {
  readonly [member: string]: unknown;
}

/** A key that was dealt. */
export interface SealedKey {
  readonly keyId: string;
  readonly dealt: Dealt;
  readonly shareSet: {
    readonly octets: Uint8Array;
    readonly digest: string;
    readonly read: ShareSet;
  };
}

/** A ceremony with what was stated and said. */
export interface Agreed {
  readonly digest: string;
  readonly note: string;
  readonly approvals: readonly Signed[];
}

export interface OpenUnlock {
  readonly ceremony: Agreed;
  readonly digest: string;
  readonly note: string;
  readonly statement: UnlockStatement;
  readonly key: SealedKey;
}

/** One keeper and its log, with the people of its home. */
export class Keeping {
  readonly home: KeeperHome;
  readonly keeper: KeeperClient;
  readonly log: TestLog;

  constructor(home: KeeperHome, keeper: KeeperClient, log: TestLog) {
    this.home = home;
    this.keeper = keeper;
    this.log = log;
  }

  /** Digest of the roster in force. */
  get roster(): string {
    return digestOf(this.home.versions.at(-1)!.document);
  }

  async record(entry: Pick<LogEntry, "type" | "subject" | "data">): Promise<LogRecord> {
    const leaf = encodeEntry({
      at: new Date(),
      actor: { kind: "service", id: "test.example" },
      ...entry,
    } as LogEntry);
    return { index: await this.log.append(this.keeper, leaf), leaf };
  }

  propose(proposal: Pick<CeremonyProposal, "kind"> & Partial<CeremonyProposal>): Promise<Stated> {
    return this.keeper.statement({
      requestedBy: "alice",
      reason: "a test",
      notAfter: new Date(Date.now() + HOUR),
      ...proposal,
    });
  }

  approve(ceremony: Stated, by: readonly string[] = []): Agreed {
    const approvals = this.home.people.approvals(ceremony.digest, this.log.head, by);
    return { ...ceremony, approvals };
  }

  /** Has a ceremony proposed, and approved by some. */
  async agree(
    proposal: Parameters<Keeping["propose"]>[0],
    by: readonly string[] = [],
  ): Promise<Agreed> {
    return this.approve(await this.propose(proposal), by);
  }

  /** For everybody in the home, any two of whom open it. */
  plan(change: Change = {}): Buffer {
    const { people } = this.home;
    return json({
      type: "countersign/plan/v1",
      service: "test.example",
      issuer: "CN=Test Root",
      key: { generate: "P-256" },
      payload: "pkcs8",
      epoch: 1,
      previous: null,
      threshold: 2,
      shareCount: people.ids.length,
      custodians: people.operators.map(({ id, recipient }) => ({
        operator: id,
        recipient,
        role: "custodian",
      })),
      roster: this.roster,
      reason: "a test",
      ...change,
    });
  }

  dealing(ceremony: string): Promise<LogRecord> {
    return this.record({
      type: "ceremony.step",
      subject: { ceremony },
      data: { state: "dealing" },
    });
  }

  /** Has a key made, or what a plan says; everybody approves. */
  async deal(plan = this.plan(), keyId?: string): Promise<SealedKey & { ceremony: Agreed }> {
    const ceremony = await this.agree(
      { kind: "generate", plan, ...(keyId === undefined ? {} : { keyId }) },
      this.home.people.ids,
    );
    const record = await this.dealing(ceremony.digest);
    const dealt = await this.keeper.deal({ ...ceremony, plan, record });
    return { ...sealedKeyOf(this.home, dealt), ceremony };
  }

  confirmations(key: SealedKey, ids = this.home.people.ids): Signed[] {
    const { people } = this.home;
    return ids.map((id) => {
      const index = people.ids.indexOf(id) + 1;
      const file = key.dealt.files[index - 1]!;
      return people.confirmation(id, key.shareSet, index, file, this.log.head);
    });
  }

  activate(key: SealedKey): Promise<void> {
    return this.keeper.activate(key.dealt.shareSet, this.confirmations(key));
  }

  /** For a ceremony that was agreed to, or for one of kind `sign` over some bytes. */
  async unlock(
    key: SealedKey,
    what: Agreed | readonly Uint8Array[],
    change: Partial<Parameters<KeeperClient["unlock"]>[0]> = {},
  ): Promise<OpenUnlock> {
    const ceremony = "digest" in what ? what : await this.agree(signing(key.keyId, what));
    const { digest, note } = await this.keeper.unlock({
      ...ceremony,
      shareSet: key.dealt.shareSet,
      sealed: key.dealt.sealed,
      gatherSeconds: 600,
      ...change,
    });
    const { text } = openNote(note, [this.home.service.identity]);
    const statement = readUnlock(Buffer.from(text.slice(0, -1)));
    return { ceremony, digest, note, statement, key };
  }

  /** Custodians give their shares. */
  async give(unlock: OpenUnlock, ids: readonly string[]): Promise<Signed[]> {
    const all: Signed[] = [];
    for (const id of ids) {
      const { submission, share } = this.submission(unlock, id);
      // oxlint-disable-next-line no-await-in-loop -- as people do
      await this.keeper.submit(unlock.digest, submission, share);
      all.push(submission);
    }
    return all;
  }

  submission({ key, digest, statement }: OpenUnlock, id: string) {
    const { people } = this.home;
    const index = people.ids.indexOf(id) + 1;
    const { recipient } = statement;
    const file = key.dealt.files[index - 1]!;
    return people.submission(id, { digest, recipient }, index, file, this.log.head);
  }

  unlocked({ digest, ceremony, key }: OpenUnlock, change: Change = {}): Promise<LogRecord> {
    return this.record({
      type: "key.unlocked",
      subject: {
        ceremony: ceremony.digest,
        unlock: digest,
        keyId: key.keyId,
        epoch: key.shareSet.read.epoch,
        ...change,
      },
      data: { kind: "sign", people: [...this.home.people.ids] },
    });
  }

  /** After the log has said so. */
  async open(unlock: OpenUnlock, submissions: readonly Signed[] = []): Promise<Dealt | undefined> {
    const record = await this.unlocked(unlock);
    return this.keeper.open(unlock.digest, unlock.ceremony, submissions, record);
  }

  /** Opens a key with the shares of two. */
  async openFor(key: SealedKey, what: Agreed | readonly Uint8Array[]): Promise<OpenUnlock> {
    const unlock = await this.unlock(key, what);
    await this.give(unlock, this.home.people.ids.slice(0, 2));
    expect(await this.open(unlock)).toBeUndefined();
    return unlock;
  }

  /** What lets everything go again. */
  async resume(by: readonly string[], release: "all" | string[] = "all"): Promise<void> {
    const plan = json({ type: "countersign/resume/v1", service: "test.example", release });
    const ceremony = await this.agree({ kind: "resume", plan }, by);
    await this.keeper.resume({ ...ceremony, plan });
  }

  /** The next version of the roster. */
  nextRoster(change: Partial<RosterDocument>): Buffer {
    const { document } = this.home.versions.at(-1)!;
    const before = JSON.parse(Buffer.from(document).toString()) as RosterDocument;
    return json({ ...before, version: before.version + 1, previous: this.roster, ...change });
  }

  async agreeToRoster(document: Uint8Array, by: readonly string[]): Promise<RosterVersion> {
    const ceremony = await this.agree({ kind: "roster", plan: document }, by);
    return {
      document,
      signatures: [],
      ceremony: { note: ceremony.note, approvals: ceremony.approvals },
    };
  }

  async changeRoster(change: Partial<RosterDocument>, by: readonly string[]): Promise<void> {
    const version = await this.agreeToRoster(this.nextRoster(change), by);
    await this.keeper.roster(version);
    this.home.versions.push(version);
  }

  /** A statement that locks, signed. */
  locking(id: string, type: "lock" | "panic", change: Change = {}): [Uint8Array, string] {
    const { statement, signature } = this.home.people.person(id).signed("countersign-lock@v1", {
      type: `countersign/${type}/v1`,
      operator: id,
      at: new Date().toISOString(),
      log: this.log.head,
      ...(type === "panic" ? { service: "test.example", reason: "a test" } : {}),
      ...change,
    });
    return [statement, signature];
  }
}

export function sealedKeyOf(home: KeeperHome, dealt: Dealt): SealedKey {
  const { text } = openNote(dealt.shareSet, [home.service.identity]);
  const octets = Buffer.from(text.slice(0, -1));
  const read = readShareSet(octets);
  return { keyId: read.keyId, dealt, shareSet: { octets, digest: digestOf(octets), read } };
}

export function signing(keyId: string, tbs: readonly Uint8Array[]) {
  const artefacts: CeremonyStatement["artefacts"] = tbs.map((octets) => ({
    tbs: digestOf(octets),
    lint: digestOf(Buffer.from("no findings")),
  }));
  return { kind: "sign" as const, keyId, artefacts };
}
