/** The domain around a real database: a clock that the test sets, an issuing CA whose key is in this process. */

import { hash, randomBytes } from "node:crypto";
import { parseEntry, type LogEntry } from "../../src/audit/entry.ts";
import type { Caller } from "../../src/issuance/caller.ts";
import { createIssuance, type IssueCommand } from "../../src/issuance/issuance.ts";
import { IssuerSet } from "../../src/issuance/issuer.ts";
import type { Journal, JournalItem } from "../../src/issuance/journal.ts";
import type { SignRequest } from "../../src/issuance/keeper.ts";
import { compilePolicy, type CompiledPolicy } from "../../src/policy/decide.ts";
import type { Requester } from "../../src/policy/requester.ts";
import { CrlSchedule } from "../../src/revocation/crl-schedule.ts";
import { createRevocations } from "../../src/revocation/revocations.ts";
import { createReads } from "../../src/store/reads.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import { createHome, createTestKeeper, start } from "../store/fixture.ts";
import { makeCsr, type CsrOptions } from "../support/csr.ts";
import {
  softwareCa,
  testPolicy,
  testRequester,
  type SoftwareKeyType,
} from "../support/software-ca.ts";

export const policyDigest = `sha256:${"7f".repeat(32)}`;

export const other: Requester = { ...testRequester, name: "other" };

export function asRequester(requester: Requester): Extract<Caller, { kind: "requester" }> {
  return { kind: "requester", id: requester.name, via: "api-key", requester };
}

export const alice: Caller = { kind: "operator", id: "alice", via: "session" };

export interface DomainOptions {
  readonly type?: SoftwareKeyType;
  /** From an hour before the clock's first time to the end of the issuing CA. */
  readonly issuerDays?: number;
  readonly requesters?: readonly Requester[];
}

export interface Hooks {
  /** Before an item is written. */
  append: (item: JournalItem) => Promise<void>;
  /** Before something is signed. */
  sign: (request: SignRequest) => Promise<void>;
}

export async function openDomain(options: DomainOptions = {}) {
  const home = await createHome();
  const writer = await home.openLog(createTestKeeper());
  const clock = { now: start };
  const now = () => clock.now;
  const reads = createReads(home.database, now);
  const ca = softwareCa(start, options.type ?? "P-256", options.issuerDays ?? 1000);
  const policy: CompiledPolicy = compilePolicy(
    testPolicy().policy,
    options.requesters ?? [testRequester, other],
  );
  const issuers = new IssuerSet(
    () => [
      {
        issuer: "issuing",
        keyId: ca.issuingKey.keyId,
        state: "open",
        custody: "token",
        operations: ["certificate", "crl"],
        certificate: ca.issuing,
        chain: [ca.root],
      },
    ],
    policy,
    "http://127.0.0.1",
  );
  const hooks: Hooks = { append: async () => {}, sign: async () => {} };
  const journal: Journal = {
    append: async (item) => {
      await hooks.append(item);
      return writer.append(item);
    },
    get size() {
      return writer.size;
    },
    get trouble() {
      return writer.trouble;
    },
    drain: () => writer.drain(),
    failed: writer.failed,
  };
  const asked: SignRequest[] = [];
  let lastList: Uint8Array | undefined;
  const keeper = {
    async sign(request: SignRequest) {
      asked.push(request);
      await hooks.sign(request);
      const signature = ca.issuingKey.sign(request.tbs);
      if (request.operation === "crl")
        lastList = assembleSigned(request.tbs, ca.algorithm, signature);
      return signature;
    },
    list: async () => lastList,
  };
  const abandoned: unknown[] = [];
  const issuance = createIssuance({
    issuers,
    policy,
    policyDigest,
    journal,
    reads,
    keeper,
    now,
    random: randomBytes,
    abandoned: (error) => abandoned.push(error),
  });
  const schedule = await CrlSchedule.load({
    issuers,
    journal,
    reads,
    keeper,
    policyDigest,
    now,
    failed: () => {},
  });
  const revocations = createRevocations({ journal, reads, issuers, schedule, now });
  return {
    home,
    journal,
    reads,
    policy,
    clock,
    ca,
    hooks,
    asked,
    abandoned,
    schedule,
    revocations,
    advance(milliseconds: number) {
      clock.now = new Date(clock.now.getTime() + milliseconds);
    },
    /** Asks as `deploy` for a server certificate of web.example.test. */
    issue(change: Partial<IssueCommand> = {}, csr: CsrOptions = { dns: ["web.example.test"] }) {
      const request = makeCsr(csr);
      return issuance.issue({
        caller: asRequester(testRequester),
        issuer: "issuing",
        profile: "server",
        csr: request,
        requestId: "0",
        ...change,
      });
    },
    async entries(): Promise<LogEntry[]> {
      return (await reads.entries(0, await reads.logSize())).map(parseEntry);
    },
    async records() {
      return (await reads.listCertificates({ limit: 100 })).certificates;
    },
    async [Symbol.asyncDispose]() {
      await schedule.stop();
      await writer.close();
      await home[Symbol.asyncDispose]();
    },
  };
}

/** An Idempotency-Key as part of what {@link Domain.issue} is asked. */
export function underKey(key: string, body = "the body"): Pick<IssueCommand, "idempotency"> {
  return { idempotency: { key, bodySha256: hash("sha256", body, "buffer") } };
}

export type Domain = Awaited<ReturnType<typeof openDomain>>;
