/** The sealed root of a development home: its key is dealt to five people, three of whom open it, once, to sign. */

import { hash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { canonicalJson, type Json } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { startCeremonies } from "../ceremony/domain.ts";
import { notedJson } from "../ceremony/log-words.ts";
import type { CeremonyView } from "../ceremony/view.ts";
import { openShareSet } from "../cli/pinned-service.ts";
import { ShareStore } from "../cli/share-store.ts";
import type { Plan } from "../custody/plan.ts";
import { decryptWithIdentities, encryptToRecipient } from "../custody/sealed/age-file.ts";
import { proveShare } from "../custody/sealed/share.ts";
import { readShareFileText } from "../custody/sealed/share-file.ts";
import { namespaces, readUnlock } from "../custody/statement.ts";
import { OPERATOR } from "../custody/votes.ts";
import type { Ledger } from "../ledger.ts";
import { compilePolicy } from "../policy/decide.ts";
import type { Policy } from "../policy/document.ts";
import { DEVELOPMENT_THRESHOLD, signAs, type Person } from "./people.ts";

/** Where the set-up asks from. It is counted nowhere, since every signature verifies. */
const ADDRESS = "127.0.0.1";

/** One key, dealt and confirmed. */
export interface DealtRoot {
  readonly keyId: string;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array;
}

/** What the five do, one after the other, with the parts of the service around a ledger. */
export interface RootCeremonies {
  /** Makes a key that three of the five open; each share file lies in its custodian's folder then. */
  deal(): Promise<DealtRoot>;
  /** Has three of them open the key, to sign exactly these bytes. @returns What was signed, DER, in their order. */
  sign(keyId: string, artefacts: readonly Uint8Array[], reason: string): Promise<Uint8Array[]>;
}

/** @param folder - with a folder for each of them. */
export async function rootCeremonies(
  ledger: Ledger,
  policy: Policy,
  people: readonly Person[],
  folder: string,
): Promise<RootCeremonies> {
  const { keeper, journal, reads, rosters, status } = ledger;
  const { service, identityKey } = status;
  const now = (): Date => new Date();
  let failure: unknown;
  const domain = await startCeremonies({
    service,
    journal,
    reads,
    keeper,
    rosters,
    policy: compilePolicy(policy),
    now,
    random: randomBytes,
    denied: () => undefined,
    failed: (_, error) => (failure = error),
  });
  const caller = { kind: "operator", id: people[0]!.id, via: "session" } as const;

  /** What every statement of theirs says. */
  async function said(type: string, operator: string): Promise<{ [name: string]: Json }> {
    const { head } = await keeper.status();
    if (head === "missing") throw new Error("the log has no head");
    const log = { size: head.size, root: Buffer.from(head.root).toString("base64") };
    return { type: `countersign/${type}/v1`, operator, at: now().toISOString(), log };
  }

  async function proveRecipients(): Promise<void> {
    for (const { id, operator, recipient } of await domain.enrolments.list()) {
      const person = people.find((one) => one.id === operator)!;
      const challenge = await domain.enrolments.challenge(id);
      const answer = digestOf(await decryptWithIdentities([person.identity], challenge));
      const proof = {
        ...(await said("recipient-proof", operator)),
        enrolment: id,
        recipient,
        answer,
      };
      await domain.enrolments.prove(id, signAs(person, namespaces.enrol, proof), ADDRESS);
    }
  }

  async function approve(ceremony: string, person: Person): Promise<CeremonyView> {
    const approval = {
      ...(await said("approval", person.id)),
      ceremony,
      verdict: "approve",
      role: OPERATOR,
    };
    const signed = signAs(person, namespaces.approval, approval);
    return domain.ceremonies.approve(ceremony, signed, ADDRESS);
  }

  async function confirm(shareSetNote: string, person: Person): Promise<void> {
    const shareSet = openShareSet(Buffer.from(shareSetNote), identityKey);
    const { keyId, custodians, epoch, threshold, shareCount } = shareSet.statement;
    const place = custodians.find(({ operator }) => operator === person.id)!;
    const caller = { kind: "operator", id: person.id, via: "session" } as const;
    const file = await domain.custody.shareFile(keyId, place.index, shareSet.digest, caller);
    const text = Buffer.from(await decryptWithIdentities([person.identity], file)).toString();
    const context = { keyId: Buffer.from(keyId, "hex"), epoch, threshold, shareCount };
    const challenge = Buffer.from(shareSet.digest.slice("sha256:".length), "hex");
    const confirmation = {
      ...(await said("confirmation", person.id)),
      shareSet: shareSet.digest,
      index: place.index,
      proof: proveShare(context, readShareFileText(text), challenge).toString("base64"),
    };
    new ShareStore({ shares: join(folder, person.id, "shares") }, identityKey).save(
      shareSet,
      place,
      file,
    );
    await domain.custody.confirm(keyId, signAs(person, namespaces.confirm, confirmation), ADDRESS);
  }

  async function submit(unlock: string, note: string, person: Person): Promise<void> {
    const statement = readUnlock(notedJson(note));
    const store = new ShareStore({ shares: join(folder, person.id, "shares") }, identityKey);
    const shareSet = store.shareSet(statement.shareSet)!;
    const place = shareSet.statement.custodians.find(({ operator }) => operator === person.id)!;
    const file = readFileSync(store.fileOf(shareSet.statement, place));
    const text = await decryptWithIdentities([person.identity], file);
    const share = await encryptToRecipient(statement.recipient, text);
    const submission = {
      ...(await said("submission", person.id)),
      unlock,
      verdict: "give",
      share: { index: place.index, file: digestOf(share) },
    };
    const signed = signAs(person, namespaces.submission, submission);
    await domain.unlocks.submit(unlock, signed, share, ADDRESS);
  }

  /** The ceremony when it has come to a state, or why it has not. */
  async function arrived(ceremony: string, ...states: readonly string[]): Promise<CeremonyView> {
    await domain.idle();
    const view = await domain.ceremonies.view(ceremony);
    if (states.includes(view.state)) return view;
    throw new Error(`the ceremony ${ceremony} is ${view.state}: ${view.trouble ?? "no trouble"}`, {
      cause: failure,
    });
  }

  return {
    async deal() {
      await proveRecipients();
      const plan: Plan = {
        type: "countersign/plan/v1",
        service,
        issuer: "CN=Countersign development root",
        key: { generate: "P-256" },
        payload: "pkcs8",
        epoch: 1,
        previous: null,
        threshold: DEVELOPMENT_THRESHOLD,
        shareCount: people.length,
        custodians: people.map(({ id, recipient }) => ({
          operator: id,
          recipient,
          role: "custodian",
        })),
        roster: rosters.current().digest,
        reason: "the root of this development home",
      };
      const { digest } = await domain.ceremonies.propose(
        {
          kind: "generate",
          reason: plan.reason,
          plan: Buffer.from(canonicalJson(plan as unknown as Json)),
        },
        caller,
      );
      for (const person of people) await approve(digest, person);
      const { keyId, shareSet } = await arrived(digest, "pending");
      const note = await domain.custody.shareSet(keyId!, shareSet);
      for (const person of people) await confirm(note, person);
      await arrived(digest, "applied");
      const { statement } = openShareSet(Buffer.from(note), identityKey);
      return { keyId: keyId!, publicKey: Buffer.from(statement.publicKey, "base64") };
    },
    async sign(keyId, artefacts, reason) {
      const { digest } = await domain.ceremonies.propose(
        { kind: "sign", keyId, reason, artefacts: artefacts.map((tbs) => ({ tbs })) },
        caller,
      );
      const unlock = await domain.unlocks.open(digest, undefined, caller);
      const note = await domain.unlocks.statement(unlock.digest);
      for (const person of people.slice(0, DEVELOPMENT_THRESHOLD)) {
        await submit(unlock.digest, note, person);
      }
      const { results = [] } = await arrived(digest, "published", "verified", "signed");
      return artefacts.map((tbs) => {
        const result = results.find((one) => one.tbs === `sha256:${hash("sha256", tbs)}`);
        if (result === undefined) throw new Error("a signed artefact is missing");
        return Buffer.from(result.der);
      });
    },
  };
}
