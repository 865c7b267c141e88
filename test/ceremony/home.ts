/** Ceremonies around a real database, a real keeper with its processes, and people with stock tools. */

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { expect, vi } from "vitest";
import { openAuditDatabase } from "../../src/audit/database-rows.ts";
import { parseEntry, type LogEntry } from "../../src/audit/entry.ts";
import type { Finding } from "../../src/audit/findings.ts";
import { verifyLog } from "../../src/audit/verify.ts";
import type { CeremonyDomain } from "../../src/ceremony/domain.ts";
import { notedJson } from "../../src/ceremony/log-words.ts";
import type { CeremonyView, ProposeCommand, UnlockView } from "../../src/ceremony/view.ts";
import { readShareSet, type ShareSet } from "../../src/custody/plan.ts";
import type { RosterDocument } from "../../src/custody/roster.ts";
import {
  decodeShare,
  encodeShare,
  proveShare,
  type Share,
} from "../../src/custody/sealed/share.ts";
import { namespaces, readUnlock, type Signed } from "../../src/custody/statement.ts";
import type { Reads } from "../../src/issuance/records.ts";
import type { CustodyReads } from "../../src/ceremony/records.ts";
import {
  digestOf,
  newKeeperHome,
  policyText,
  type KeeperHome,
  type KeeperSettings,
} from "../custody/keeper-home.ts";
import { json, type SeenLog } from "../support/people.ts";
import { startRunning, type Running, type RunningParts } from "./running.ts";

export const custodians = ["alice", "bob", "carol"] as const;
export const address = "192.0.2.1";

export function as(id: string): { kind: "operator"; id: string; via: "session" } {
  return { kind: "operator", id, via: "session" };
}

export class CeremonyHome {
  readonly home: KeeperHome;
  /** What the service's clock is ahead of the true one. */
  ahead = 0;
  /** What `denied` was called for. */
  denied = 0;
  /** What went wrong where nobody waits. */
  readonly failures: unknown[] = [];
  readonly published: { issuer: string; crl: Uint8Array }[] = [];
  /** Before the domain asks the keeper something. */
  hook: (method: string) => Promise<void> | void = () => {};
  /** When the keeper has done it. */
  afterwards: (method: string) => Promise<void> | void = () => {};
  /** Share files as they were fetched, by custodian. */
  readonly files = new Map<string, Uint8Array>();
  #running: Running | undefined;

  constructor(home: KeeperHome) {
    this.home = home;
  }

  get running(): Running {
    if (this.#running === undefined) throw new Error("nothing runs");
    return this.#running;
  }

  get domain(): CeremonyDomain {
    return this.running.domain;
  }

  get reads(): Reads & CustodyReads {
    return this.running.reads;
  }

  now(): Date {
    return new Date(Date.now() + this.ahead);
  }

  /** What the service is started with. */
  get settings(): Pick<RunningParts, "directory" | "configFile" | "genesis" | "policy"> {
    const { directory, configFile, versions } = this.home;
    return { directory, configFile, genesis: versions[0]!, policy: policyText };
  }

  async start(): Promise<void> {
    const around: RunningParts["around"] = ({ keeper, journal }) => ({
      journal,
      keeper: new Proxy(keeper, {
        get: (target, name, receiver) => {
          const value: unknown = Reflect.get(target, name, receiver);
          if (typeof value !== "function" || name === "onClosed") return value;
          return async (...args: unknown[]): Promise<unknown> => {
            await this.hook(String(name));
            const result = await (value as (...given: unknown[]) => unknown).apply(target, args);
            await this.afterwards(String(name));
            return result;
          };
        },
      }),
    });
    this.#running = await startRunning({
      ...this.settings,
      now: () => this.now(),
      observers: {
        denied: () => this.denied++,
        failed: (_, error) => this.failures.push(error),
        published: (issuer, crl) => this.published.push({ issuer, crl }),
      },
      around,
    });
  }

  /** Works with what runs elsewhere; undefined when that has ended. */
  attach(running: Running | undefined): void {
    this.#running = running;
  }

  async stop(): Promise<void> {
    const { domain, journal, keeper, database } = this.running;
    await domain.idle();
    await journal.close();
    await keeper.close();
    await database.close();
    this.#running = undefined;
  }

  /** Ends everything where it stands. What waits for an answer waits for ever. */
  async crash(): Promise<void> {
    const { journal, keeper, database } = this.running;
    await journal.close();
    await keeper.close();
    await database.close();
    this.#running = undefined;
  }

  async restart(change?: (config: KeeperSettings) => void): Promise<void> {
    await this.stop();
    if (change !== undefined) this.home.configure(change);
    await this.start();
  }

  /** Lets the service's clock go on, and looks at what is due. */
  async advance(milliseconds: number): Promise<void> {
    this.ahead += milliseconds;
    await this.domain.tick();
    await this.domain.idle();
  }

  /**
   * Waits for what the keeper tells by itself.
   *
   * @param step - by which the clock goes on with each look.
   */
  async until(ceremony: string, state: CeremonyView["state"], step = 0): Promise<void> {
    await vi.waitFor(async () => {
      await this.advance(step);
      expect((await this.domain.ceremonies.view(ceremony)).state).toBe(state);
    }, 20_000);
  }

  async entries(type?: LogEntry["type"]): Promise<LogEntry[]> {
    const leaves = await this.reads.entries(0, await this.reads.logSize());
    return leaves.map(parseEntry).filter((entry) => type === undefined || entry.type === type);
  }

  /** The head that an operator sees. */
  async seen(): Promise<SeenLog> {
    const { head } = await this.running.keeper.status();
    if (head === "missing") throw new Error("no head");
    return { size: head.size, root: Buffer.from(head.root).toString("base64") };
  }

  signed(id: string, namespace: keyof typeof namespaces, value: object): Signed {
    return this.home.people.person(id).signed(namespaces[namespace], value);
  }

  /** Everybody reads their challenge and sends its digest. */
  async proveAll(ids: readonly string[] = this.home.people.ids): Promise<void> {
    for (const id of ids) await this.prove(id);
  }

  async prove(id: string): Promise<void> {
    const { enrolments, inbox } = this.domain;
    const item = (await inbox.of(as(id))).find(({ what }) => what === "prove");
    if (item?.enrolment === undefined) throw new Error(`${id} has nothing to prove`);
    const { recipient, ageFile } = this.home.people.person(id);
    const answer = execFileSync("age", ["-d", "-i", ageFile], {
      input: await enrolments.challenge(item.enrolment),
    });
    const signed = this.signed(id, "enrol", {
      type: "countersign/recipient-proof/v1",
      operator: id,
      at: new Date().toISOString(),
      log: await this.seen(),
      enrolment: item.enrolment,
      recipient,
      answer: digestOf(answer),
    });
    await enrolments.prove(item.enrolment, signed, address);
  }

  plan(change: object = {}, people: readonly string[] = custodians): Buffer {
    return json({
      type: "countersign/plan/v1",
      service: "test.example",
      issuer: "CN=Test Issuing",
      key: { generate: "P-256" },
      payload: "pkcs8",
      epoch: 1,
      previous: null,
      threshold: 2,
      shareCount: people.length,
      custodians: people.map((operator) => ({
        operator,
        recipient: this.home.people.person(operator).recipient,
        role: "custodian",
      })),
      roster: this.running.rosters.inForce.digest,
      reason: "a key for the tests",
      ...change,
    });
  }

  propose(command: Partial<ProposeCommand> & Pick<ProposeCommand, "kind">, by = "alice") {
    return this.domain.ceremonies.propose({ reason: "a test", ...command }, as(by));
  }

  async approval(
    id: string,
    ceremony: string,
    change: Record<string, unknown> = {},
  ): Promise<Signed> {
    return this.signed(id, "approval", {
      type: "countersign/approval/v1",
      ceremony,
      verdict: "approve",
      operator: id,
      role: "operator",
      log: await this.seen(),
      at: new Date().toISOString(),
      ...change,
    });
  }

  async approve(
    id: string,
    ceremony: string,
    change: Record<string, unknown> = {},
  ): Promise<CeremonyView> {
    const signed = await this.approval(id, ceremony, change);
    return this.domain.ceremonies.approve(ceremony, signed, address);
  }

  async reject(id: string, ceremony: string): Promise<CeremonyView> {
    return this.approve(id, ceremony, { verdict: "reject", reason: "I do not agree" });
  }

  async abort(id: string, ceremony: string): Promise<CeremonyView> {
    const signed = this.signed(id, "abort", {
      type: "countersign/abort/v1",
      operator: id,
      at: new Date().toISOString(),
      log: await this.seen(),
      ceremony,
      reason: "no more",
    });
    return this.domain.ceremonies.abort(ceremony, signed, address);
  }

  /** The share set of a ceremony, out of its note. */
  async shareSetOf(digest: string): Promise<{ octets: Uint8Array; read: ShareSet }> {
    const octets = notedJson((await this.reads.shareSet(digest))!.note);
    return { octets, read: readShareSet(octets) };
  }

  /** Fetches the file of a share. */
  async fetch(shareSet: string, index: number, id: string): Promise<Uint8Array> {
    const { read } = await this.shareSetOf(shareSet);
    const file = await this.domain.custody.shareFile(read.keyId, index, shareSet, as(id));
    this.files.set(id, file);
    return file;
  }

  async confirm(shareSet: string, index: number, id: string): Promise<void> {
    const set = await this.shareSetOf(shareSet);
    const file = await this.fetch(shareSet, index, id);
    const signed = this.home.people.confirmation(id, set, index, file, await this.seen());
    await this.domain.custody.confirm(set.read.keyId, signed, address);
  }

  async confirmAll(shareSet: string): Promise<void> {
    const { read } = await this.shareSetOf(shareSet);
    for (const { index, operator } of read.custodians) {
      await this.confirm(shareSet, index, operator);
    }
  }

  /** What a custodian's file holds. */
  shareOf(id: string, file: Uint8Array = this.files.get(id)!): string {
    const { ageFile } = this.home.people.person(id);
    const text = execFileSync("age", ["-d", "-i", ageFile], { input: file }).toString();
    return text.split("\n").find((line) => line !== "" && !line.startsWith("#"))!;
  }

  /** A submission of a share's text to an unlock. */
  async submission(
    id: string,
    unlock: string,
    index: number,
    text: string = this.shareOf(id),
    change: Record<string, unknown> = {},
  ): Promise<{ signed: Signed; share: Buffer }> {
    const { recipient } = readUnlock(notedJson(await this.domain.unlocks.statement(unlock)));
    const share = execFileSync("age", ["-r", recipient], { input: `${text}\n` });
    const signed = this.signed(id, "submission", {
      type: "countersign/submission/v1",
      unlock,
      verdict: "give",
      operator: id,
      share: { index, file: digestOf(share) },
      log: await this.seen(),
      at: new Date().toISOString(),
      ...change,
    });
    return { signed, share };
  }

  async submit(
    id: string,
    unlock: string,
    index: number = custodians.indexOf(id as (typeof custodians)[number]) + 1,
    text?: string,
  ): Promise<UnlockView> {
    const { signed, share } = await this.submission(id, unlock, index, text);
    return this.domain.unlocks.submit(unlock, signed, share, address);
  }

  async refuse(id: string, unlock: string): Promise<UnlockView> {
    const signed = this.home.people.refusal(id, unlock, await this.seen());
    return this.domain.unlocks.submit(unlock, signed, Buffer.of(), address);
  }

  /** Makes a key whose shares alice, bob and carol hold, two of which open it. */
  async generate(
    change: object = {},
    people: readonly string[] = custodians,
  ): Promise<{
    keyId: string;
    shareSet: string;
    ceremony: string;
  }> {
    const { digest } = await this.propose({ kind: "generate", plan: this.plan(change, people) });
    for (const id of people) await this.approve(id, digest);
    const view = await this.domain.ceremonies.view(digest);
    if (view.shareSet === undefined) {
      throw new Error(`nothing was dealt: ${JSON.stringify(view)}`, {
        cause: this.failures.at(-1),
      });
    }
    return { keyId: view.keyId!, shareSet: view.shareSet, ceremony: digest };
  }

  proof(shareSet: ShareSet, share: Share, challenge: Uint8Array): string {
    const { keyId, epoch, threshold, shareCount } = shareSet;
    const context = { keyId: Buffer.from(keyId, "hex"), epoch, threshold, shareCount };
    return proveShare(context, share, challenge).toString("base64");
  }

  /** What is in the database is what the log says, and nothing else: AUDIT-LOG 9.6, rule 11. */
  async verify(): Promise<void> {
    expect(await this.logFailures()).toEqual([]);
  }

  /** What the verifier finds wrong with the log and its database. */
  async logFailures(): Promise<readonly Finding[]> {
    const database = await openAuditDatabase(join(this.home.directory, "countersign.db"));
    const { log, rows } = database;
    const report = await verifyLog(log, { key: this.home.service.log, database: rows });
    await database.close();
    return report.failures;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.hook = () => {};
    this.afterwards = () => {};
    try {
      if (this.#running !== undefined) {
        await this.stop();
        await this.verify();
      }
    } finally {
      this.home.remove();
    }
  }
}

export { decodeShare, encodeShare };

export function sha256(octets: Uint8Array): Buffer {
  return createHash("sha256").update(octets).digest();
}

export interface HomeOptions {
  /** Who has proved their recipient; everybody when absent. */
  readonly prove?: readonly string[];
  readonly ids?: readonly string[];
  readonly rules?: Partial<RosterDocument["rules"]>;
}

/** People who have proved their recipients. */
export async function openCeremonyHome({
  ids = [...custodians, "dora", "erin"],
  rules = {},
  prove = ids,
}: HomeOptions = {}): Promise<CeremonyHome> {
  const keeperHome = await newKeeperHome("P-256", ids);
  const most = Math.min(2, ids.length);
  keeperHome.found({
    rules: { roster: most, policy: most, resume: most, ceremonies: {}, ...rules },
  });
  const home = new CeremonyHome(keeperHome);
  await home.start();
  await home.proveAll(prove);
  return home;
}

/** The only key is one that is sealed, in the name of an issuer; its certificate, if there is one. */
export function sealedKey(
  keyId: string,
  issuer = "issuing",
  certificate = false,
): (config: KeeperSettings) => void {
  return (config) => {
    config.keys = [
      certificate
        ? {
            issuer,
            certificate: `${issuer}-sealed.pem`,
            chain: ["root.pem"],
            crlUrl: "http://127.0.0.1/crl/issuing.crl",
            caIssuersUrl: "http://127.0.0.1/ca/issuing.cer",
          }
        : { issuer, keyId },
    ];
  };
}

export type SealedHome = CeremonyHome & { readonly keyId: string; readonly shareSet: string };

/** With a sealed key, which `generate` has made and everybody has confirmed. */
export async function openSealedHome(
  options: HomeOptions & { readonly issuer?: string } = {},
): Promise<SealedHome> {
  const home = await openCeremonyHome(options);
  const { keyId, shareSet } = await home.generate();
  await home.confirmAll(shareSet);
  await home.restart(sealedKey(keyId, options.issuer));
  return Object.assign(home, { keyId, shareSet });
}
