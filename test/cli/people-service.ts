/**
 * A service on loopback for the commands of people: real routes, notes of a real keeper's key, shares of a real dealer,
 * and a domain in memory that checks every signature as the service does and can be told to be hostile.
 */

import { generateKeyPairSync, hash, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { canonicalJson, type Json } from "../../src/audit/canonical-json.ts";
import { digestOf } from "../../src/audit/digest.ts";
import { signNote, verifierKey } from "../../src/audit/signed-note.ts";
import {
  readAbort,
  readConfirmation,
  readDrill,
  readEnrolment,
  readLock,
  readPanic,
  readRecipientProof,
} from "../../src/custody/personal-statement.ts";
import { readPlan, shareSetOctets } from "../../src/custody/plan.ts";
import {
  checkOperatorSignature,
  readRoster,
  type Roster,
  type RosterDocument,
} from "../../src/custody/roster.ts";
import { encryptToRecipient, newAgeIdentity } from "../../src/custody/sealed/age-file.ts";
import { deal, type Dealt } from "../../src/custody/sealed/deal.ts";
import { checkShareProof, commitmentOf } from "../../src/custody/sealed/share.ts";
import {
  newUnlockIdentity,
  openShareFile,
  type UnlockIdentity,
} from "../../src/custody/sealed/share-file.ts";
import {
  namespaces,
  readApproval,
  type CeremonyStatement,
  type Signed,
} from "../../src/custody/statement.ts";
import { checkApproval, checkSubmission } from "../../src/custody/votes.ts";
import { CountersignError } from "../../src/errors.ts";
import type {
  CeremonyView,
  EnrolmentView,
  ProposeCommand,
  ShareSetView,
  UnlockView,
} from "../../src/ceremony/view.ts";
import { makeSshKey } from "../custody/keeper-home.ts";
import { logSigner } from "../support/log.ts";
import { startSites, type TestSites } from "../support/http-sites.ts";
import { path } from "./command.ts";

export const SERVICE = "ca.example.com";
export const identity = logSigner(`${SERVICE}/keeper`, "02".repeat(32));

export interface Person {
  readonly id: string;
  /** For `HOME` of the command. */
  readonly home: string;
  readonly sshKey: string;
  readonly publicKey: string;
  readonly identity: string;
  readonly recipient: string;
}

/** A person with an SSH key, an age identity and a home of their own. */
export async function newPerson(id: string): Promise<Person> {
  const home = path(id);
  mkdirSync(join(home, ".config", "countersign"), { recursive: true });
  const sshKey = join(home, "id_ed25519");
  const publicKey = makeSshKey(sshKey);
  const age = await newAgeIdentity();
  writeFileSync(join(home, "age.key"), `# public key: ${age.recipient}\n${age.identity}\n`, {
    mode: 0o600,
  });
  return { id, home, sshKey, publicKey, ...age };
}

export function stateOf({ home }: Person): Record<string, unknown> {
  return JSON.parse(
    readFileSync(join(home, ".config", "countersign", "state.json"), "utf8"),
  ) as Record<string, unknown>;
}

/** What a statement or document says, as the keeper signs it. */
export function note(statement: object): string {
  return signNote(`${canonicalJson(statement as Json)}\n`, identity);
}

export interface PeopleService {
  readonly sites: TestSites;
  readonly people: readonly Person[];
  readonly rosters: Roster[];
  /** What it was sent, after its signature was checked: the statement's own words. */
  readonly said: { readonly what: string; readonly statement: Record<string, unknown> }[];
  /** Whose shares were given, opened with the unlock's key and checked. */
  readonly shares: number[];
  readonly proposals: ProposeCommand[];
  /** Dealt among all people, epoch by epoch. */
  readonly dealt: (Dealt & { digest: string; note: string })[];
  unlockIdentity: UnlockIdentity;
  /** In place of what is served, by its id. */
  readonly ceremonies: Map<string, string>;
  readonly unlocks: Map<string, string>;
  readonly plans: Map<string, Uint8Array>;
  /** In place of the share file of a person. */
  shareFile: Uint8Array | undefined;
  shareSetState: "pending" | "active";
  /** A configuration file for a person, and what the command needs to use it. */
  env(person: Person): Record<string, string>;
  /** Makes and serves a ceremony. */
  ceremony(change?: object): { id: string; digest: string; statement: CeremonyStatement };
  /** Makes and serves an unlock of it. */
  unlock(ceremony: string, change?: object): { id: string; digest: string };
  deal(change?: object): Promise<Dealt & { digest: string; note: string }>;
}

const DAY = 86_400_000;

/** The CA key whose shares are dealt. */
const key = generateKeyPairSync("ec", { namedCurve: "P-256" });

export async function startPeopleService(ids: readonly string[]): Promise<PeopleService> {
  const people = await Promise.all(ids.map(newPerson));
  const ceremonies = new Map<string, string>();
  const unlocks = new Map<string, string>();
  const plans = new Map<string, Uint8Array>();
  const enrolments = new Map<string, { view: EnrolmentView; answer: Buffer; file: Uint8Array }>();
  const said: PeopleService["said"] = [];
  const rosters: Roster[] = [];

  const view = (id: string): CeremonyView => {
    const statement = statementOf(ceremonies, id) as unknown as CeremonyStatement;
    const votes = said.filter(({ what }) => what === "approval");
    return {
      id: statement.id,
      digest: digestOfNote(ceremonies.get(id)!),
      kind: statement.kind,
      ...(statement.keyId === undefined ? {} : { keyId: statement.keyId }),
      state: said.some(({ what }) => what === "abort") ? "aborted" : "gathering",
      reason: statement.reason,
      requestedBy: statement.requestedBy,
      notAfter: new Date(statement.notAfter),
      createdAt: new Date(),
      people: votes.map(({ statement: vote }) => ({
        operator: vote["operator"] as string,
        state: vote["verdict"] === "approve" ? ("approved" as const) : ("rejected" as const),
        role: vote["role"] as string,
      })),
      missing: { roles: { operator: 1 } },
    };
  };
  const unlockView = (id: string): UnlockView => {
    const statement = statementOf(unlocks, id);
    return {
      id: statement["id"] as string,
      digest: digestOfNote(unlocks.get(id)!),
      ceremony: statement["ceremony"] as string,
      keyId: statement["keyId"] as string,
      epoch: statement["epoch"] as number,
      threshold: statement["threshold"] as number,
      shareCount: statement["shareCount"] as number,
      shareSet: statement["shareSet"] as string,
      state: "gathering",
      expiresAt: new Date(Date.now() + DAY),
      createdAt: new Date(),
      people: service.shares.map((index) => ({
        operator: ids[index - 1]!,
        state: "given" as const,
      })),
      missing: { roles: {}, shares: 1 },
    };
  };
  const newest = (): Dealt & { digest: string; note: string } => service.dealt.at(-1)!;
  const shareSetView = (dealt = newest()): ShareSetView => ({
    digest: dealt.digest,
    epoch: dealt.shareSet.epoch,
    state: service.shareSetState,
    threshold: dealt.shareSet.threshold,
    shareCount: dealt.shareSet.shareCount,
    custodians: dealt.shareSet.custodians.map(({ index, operator, role }) => ({
      index,
      operator,
      role,
      ...(said.some(
        ({ what, statement }) => what === "confirmation" && statement["operator"] === operator,
      )
        ? { confirmedAt: new Date() }
        : {}),
    })),
  });
  /** A statement whose signature the roster vouches for. */
  const checked = <Statement extends { operator: string }>(
    what: string,
    namespace: string,
    read: (octets: Uint8Array) => Statement,
    { statement, signature }: Signed,
  ): Statement => {
    const value = read(statement);
    checkOperatorSignature(rosters.at(-1)!, value.operator, namespace, statement, signature);
    said.push({ what, statement: value as unknown as Record<string, unknown> });
    return value;
  };
  const dealtBy = (digest: string): Dealt & { digest: string; note: string } =>
    service.dealt.find((one) => one.digest === digest)!;
  const requireProof = (
    { shareSet, index, proof }: { shareSet: string; index: number; proof: string },
    challenge: Uint8Array,
  ): void => {
    const set = dealtBy(shareSet).shareSet;
    const place = set.custodians[index - 1]!;
    const good = checkShareProof(
      { ...set, keyId: Buffer.from(set.keyId, "hex") },
      index,
      { commit: Buffer.from(place.commit, "hex"), proof: Buffer.from(place.proof, "hex") },
      challenge,
      Buffer.from(proof, "base64"),
    );
    if (!good) throw new CountersignError("confirmation-invalid", "the proof is wrong");
  };
  const drillChallenge = randomBytes(32);

  const sites = await startSites((parts) => ({
    ...parts,
    service: SERVICE,
    ceremonies: {
      async propose(command) {
        service.proposals.push(command);
        const plan = command.plan === undefined ? {} : { plan: digestOf(command.plan) };
        const { id } = service.ceremony({
          kind: command.kind,
          reason: command.reason,
          keyId: command.keyId,
          artefacts: command.artefacts?.map(({ tbs }) => ({
            tbs: digestOf(tbs),
            lint: digestOf(new Uint8Array()),
          })),
          window: command.window,
          plan: undefined,
          ...plan,
        });
        if (command.plan !== undefined) plans.set(id, command.plan);
        return view(id);
      },
      async approve(id, signed) {
        const digest = digestOfNote(ceremonies.get(id)!);
        checkApproval(rosters.at(-1)!, digest, signed);
        said.push({
          what: "approval",
          statement: readApproval(signed.statement) as unknown as Record<string, unknown>,
        });
        return view(id);
      },
      async abort(id, signed) {
        checked("abort", namespaces.abort, readAbort, signed);
        return view(id);
      },
      statement: async (id) => served(ceremonies, id, "ceremony-unknown"),
      plan: async (id) => plans.get(id)!,
      view: async (id) => view(id),
      list: async () => ({ ceremonies: [...ceremonies.keys()].filter(isId).map(view) }),
    },
    unlocks: {
      open: async (ceremony) => unlockView(service.unlock(ceremony).id),
      statement: async (id) => served(unlocks, id, "unlock-unknown"),
      view: async (id) => unlockView(id),
      async submit(id, signed, file) {
        const submission = checkSubmission(rosters.at(-1)!, digestOfNote(unlocks.get(id)!), signed);
        said.push({
          what: "submission",
          statement: submission as unknown as Record<string, unknown>,
        });
        if (submission.verdict === "give") {
          const set = newest().shareSet;
          if (digestOf(file) !== submission.share.file) {
            throw new CountersignError("submission-stale", "another file");
          }
          const share = await openShareFile(file, service.unlockIdentity.key);
          const { commit } = commitmentOf({ ...set, keyId: Buffer.from(set.keyId, "hex") }, share);
          const place = set.custodians[share.x - 1]!;
          if (Buffer.from(commit).toString("hex") !== place.commit) {
            throw new CountersignError("share-wrong", "a wrong share reached the service");
          }
          service.shares.push(share.x);
        }
        return unlockView(id);
      },
    },
    custody: {
      keys: async () => [
        {
          keyId: newest().shareSet.keyId,
          issuer: "root",
          custody: "sealed",
          state: "locked",
          operations: [],
          shareSets: [shareSetView()],
        },
      ],
      key: async () => {
        throw new Error("not asked for");
      },
      shareSet: async (_, digest) => (digest === undefined ? newest().note : dealtBy(digest).note),
      async shareFile(_, index, digest, by) {
        if (ids[index - 1] !== by.id) throw new CountersignError("forbidden", "not yours");
        return service.shareFile ?? dealtBy(digest ?? newest().digest).files[index - 1]!;
      },
      async confirm(_, signed) {
        const value = readConfirmation(signed.statement);
        requireProof(value, Buffer.from(value.shareSet.slice(7), "hex"));
        checked("confirmation", namespaces.confirm, readConfirmation, signed);
        return shareSetView();
      },
      drillChallenge: async () => drillChallenge,
      async drill(_, signed) {
        requireProof(readDrill(signed.statement), drillChallenge);
        checked("drill", namespaces.confirm, readDrill, signed);
        return shareSetView();
      },
      async lock(_, signed) {
        checked("lock", namespaces.lock, readLock, signed);
      },
      async panic(signed) {
        checked("panic", namespaces.lock, readPanic, signed);
      },
    },
    enrolments: {
      async request({ statement }) {
        const { operator, key, recipient } = readEnrolment(statement);
        const id = randomBytes(16).toString("hex");
        const answer = randomBytes(32);
        enrolments.set(id, {
          view: {
            id,
            operator,
            keys: [key],
            recipient,
            state: "requested",
            createdAt: new Date(),
          },
          answer,
          file: await encryptToRecipient(recipient, answer),
        });
        return id;
      },
      list: async () => [...enrolments.values()].map((one) => one.view),
      challenge: async (id) => enrolments.get(id)!.file,
      async prove(id, { statement }) {
        const enrolment = enrolments.get(id)!;
        const proof = readRecipientProof(statement);
        if (proof.answer !== digestOf(enrolment.answer)) {
          throw new CountersignError("enrolment-refused", "the answer is wrong");
        }
        enrolment.view = { ...enrolment.view, state: "proved" };
        return enrolment.view;
      },
    },
    roster: {
      get genesis() {
        return rosters[0]!.digest;
      },
      current: () => {
        const { document, digest, octets } = rosters.at(-1)!;
        return { version: document.version, digest, document: octets };
      },
      chain: () => rosters.map(({ octets }) => ({ document: octets, signatures: [] })),
    },
    inbox: {
      of: async () => [
        ...[...ceremonies.keys()].filter(isId).map((ceremony) => ({
          what: "approve" as const,
          ceremony,
          reason: "issue intermediate G2",
        })),
      ],
    },
  }));
  // Sessions are of today, as the command's clock is.
  sites.domain.now = new Date();
  sites.domain.operators.push(...people.map(({ id, publicKey }) => ({ id, keys: [publicKey] })));
  writeFileSync(path("service.pem"), sites.apiCertificate);

  const document: RosterDocument = {
    type: "countersign/roster/v1",
    version: 1,
    previous: null,
    operators: people.map(({ id, publicKey, recipient }) => ({
      id,
      keys: [{ kind: "ssh", key: publicKey }],
      recipient,
      roles: ["operator"],
    })),
    service: {
      identity: identity.verifierKey.text,
      log: sites.domain.log.signer.verifierKey.text,
    },
    rules: {
      roster: 1,
      policy: 1,
      resume: 1,
      ceremonies: {
        sign: { operator: 1 },
        window: { operator: 1 },
        generate: { operator: 1 },
        reshare: { operator: 1 },
      },
    },
  };
  rosters.push(readRoster(Buffer.from(canonicalJson(document as unknown as Json))));

  const log = (): { origin: string; size: number; root: string } => ({
    origin: sites.domain.log.signer.name,
    size: sites.domain.log.tree.size,
    root: Buffer.from(sites.domain.log.tree.root()).toString("base64"),
  });
  const service: PeopleService = {
    sites,
    people,
    rosters,
    said,
    shares: [],
    proposals: [],
    dealt: [],
    unlockIdentity: await newUnlockIdentity(),
    ceremonies,
    unlocks,
    plans,
    shareFile: undefined,
    shareSetState: "active",
    env(person) {
      const config = join(person.home, ".config", "countersign", "config.json");
      writeFileSync(
        config,
        JSON.stringify({
          url: sites.apiUrl,
          ca: path("service.pem"),
          operator: person.id,
          sshKey: person.sshKey,
          ageIdentity: join(person.home, "age.key"),
          identityKey: identity.verifierKey.text,
          logKey: sites.domain.log.signer.verifierKey.text,
        }),
      );
      return { HOME: person.home };
    },
    ceremony(change = {}) {
      const id = randomBytes(16).toString("hex");
      const statement = withoutAbsent({
        type: "countersign/ceremony/v1",
        id,
        service: SERVICE,
        kind: "sign",
        keyId: service.dealt.at(-1)?.shareSet.keyId ?? "6f".repeat(32),
        artefacts: [{ tbs: digestOf(Buffer.from("tbs")), lint: digestOf(Buffer.from("lint")) }],
        rules: { operator: 1 },
        roster: rosters.at(-1)!.digest,
        policy: digestOf(Buffer.from("policy")),
        notAfter: new Date(Date.now() + 7 * DAY).toISOString(),
        log: log(),
        requestedBy: ids[0]!,
        reason: "issue intermediate G2",
        ...change,
      });
      const text = note(statement);
      const digest = digestOfNote(text);
      ceremonies.set(id, text);
      ceremonies.set(digest, text);
      return { id, digest, statement: statement as unknown as CeremonyStatement };
    },
    unlock(ceremony, change = {}) {
      const { shareSet, digest: set } = newest();
      const id = randomBytes(16).toString("hex");
      const text = note({
        type: "countersign/unlock/v1",
        id,
        service: SERVICE,
        ceremony: digestOfNote(ceremonies.get(ceremony)!),
        keyId: shareSet.keyId,
        epoch: shareSet.epoch,
        threshold: shareSet.threshold,
        shareCount: shareSet.shareCount,
        shareSet: set,
        roster: rosters.at(-1)!.digest,
        recipient: service.unlockIdentity.recipient,
        gatherSeconds: 86_400,
        log: log(),
        ...change,
      });
      unlocks.set(id, text);
      unlocks.set(digestOfNote(text), text);
      return { id, digest: digestOfNote(text) };
    },
    async deal(change = {}) {
      const before = service.dealt.at(-1);
      const publicKey = key.publicKey.export({ format: "der", type: "spki" });
      const plan = Buffer.from(
        canonicalJson({
          type: "countersign/plan/v1",
          service: SERVICE,
          issuer: "CN=Example Root",
          key: { use: hash("sha256", publicKey) },
          payload: "pkcs8",
          epoch: (before?.shareSet.epoch ?? 0) + 1,
          previous: before?.digest ?? null,
          threshold: 2,
          shareCount: people.length,
          custodians: people.map(({ id, recipient }) => ({
            operator: id,
            recipient,
            role: "custodian",
          })),
          roster: rosters.at(-1)!.digest,
          reason: "a root",
          ...change,
        }),
      );
      const dealt = await deal({
        plan: readPlan(plan),
        planDigest: digestOf(plan),
        secret: { octets: key.privateKey.export({ format: "der", type: "pkcs8" }), publicKey },
        random: randomBytes,
      });
      const octets = shareSetOctets(dealt.shareSet);
      const all = {
        ...dealt,
        digest: digestOf(octets),
        note: signNote(`${octets.toString()}\n`, identity),
      };
      service.dealt.push(all);
      return all;
    },
  };
  return service;
}

/** Verifier keys that fit each other, of a service that nobody runs. */
export const strangersKeys = {
  identity: verifierKey("other.example.com/keeper", new Uint8Array(32).fill(3)),
};

const isId = (name: string): boolean => /^[0-9a-f]{32}$/.test(name);

export function digestOfNote(text: string): string {
  return digestOf(Buffer.from(text.slice(0, text.indexOf("\n"))));
}

function statementOf(notes: Map<string, string>, id: string): Record<string, unknown> {
  const text = notes.get(id)!;
  return JSON.parse(text.slice(0, text.indexOf("\n"))) as Record<string, unknown>;
}

function served(
  notes: Map<string, string>,
  id: string,
  code: "ceremony-unknown" | "unlock-unknown",
): string {
  const text = notes.get(id);
  if (text === undefined) throw new CountersignError(code, "there is none of this id");
  return text;
}

function withoutAbsent(object: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}
