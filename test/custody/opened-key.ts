/** A key from its dealing to its signature, with the test in the place of the keeper. */

import { generateKeyPairSync, hash } from "node:crypto";
import { checkpointText } from "../../src/audit/checkpoint.ts";
import { CompactRange, leafHash } from "../../src/audit/merkle.ts";
import { noteSigner, signNote } from "../../src/audit/signed-note.ts";
import { startDealer, type DealtByProcess } from "../../src/custody/dealer-process.ts";
import { createLogFeed } from "../../src/custody/log-feed.ts";
import { startOpenedSigner, type OpenedSigner } from "../../src/custody/opened-signer.ts";
import { errorOf } from "../../src/custody/refusal.ts";
import { decodeResults, lengthsOf } from "../../src/custody/sign-batch.ts";
import type { SealedOpening } from "../../src/custody/signer-protocol.ts";
import { startUnlocker, type UnlockerProcess } from "../../src/custody/unlocker-process.ts";
import { buildRootTbsCertificate } from "../../src/x509/certificate-template.ts";
import { encodeName } from "../../src/x509/name.ts";
import { parsePublicKey } from "../../src/x509/public-key.ts";
import { newSerialNumber } from "../x509/authority.ts";
import { digestOf, intentFor, policyText, type KeeperHome } from "./keeper-home.ts";
import type { Name, SealedHome, UnlockChanges, UnlockStated } from "./sealed-home.ts";

/** A log, and the signers that follow it. */
export class FollowedLog {
  readonly #signer = noteSigner("test.example/audit", generateKeyPairSync("ed25519").privateKey);
  #range = CompactRange.empty();
  readonly feed = createLogFeed(this.#range, "");

  get key(): string {
    return this.#signer.verifierKey.text;
  }

  /** @returns the leaf's index. */
  append(leaf: Uint8Array): number {
    const index = this.#range.end;
    const next = CompactRange.of(0, index, this.#range.nodes);
    next.append(leafHash(leaf));
    this.#range = next;
    const text = checkpointText("test.example/audit", next.end, next.root());
    this.feed.append(next, signNote(text, this.#signer), leafHash(leaf));
    return index;
  }
}

/** A root certificate that a key is to sign for itself. */
export function rootTbs(publicKey: Uint8Array): Uint8Array {
  const start = Math.floor(Date.now() / 1000) * 1000 - 60_000;
  return buildRootTbsCertificate({
    serialNumber: newSerialNumber(),
    notBefore: new Date(start),
    notAfter: new Date(start + 20 * 365 * 86_400_000),
    subject: encodeName([{ type: "CN", value: "Sealed Root" }]),
    publicKey: parsePublicKey(publicKey),
  });
}

export function publicKeyOf({ shareSet }: DealtByProcess): Buffer {
  return Buffer.from(shareSet.publicKey, "base64");
}

/** What the signer of a sealed key is told: it may sign these bytes. */
export function openingFor(
  dealt: DealtByProcess,
  log: FollowedLog,
  tbs: readonly Uint8Array[],
  change: Partial<SealedOpening> = {},
): SealedOpening {
  return {
    issuer: "issuing",
    sealed: { payload: "pkcs8", keyId: dealt.shareSet.keyId },
    grant: { digests: tbs.map(digestOf) },
    alreadySigned: 0,
    usedDigests: [],
    policy: policyText,
    certificate: null,
    chain: [],
    caKeys: [dealt.shareSet.keyId],
    logKey: log.key,
    head: null,
    list: null,
    ...change,
  };
}

/** Logs the intent for some bytes and has them signed. */
export function logAndSign(
  signer: OpenedSigner,
  log: FollowedLog,
  publicKey: Uint8Array,
  tbs: Uint8Array,
): Promise<Uint8Array> {
  const intent = intentFor({} as KeeperHome, tbs, {
    keyId: hash("sha256", publicKey),
    policy: null,
    profile: "root",
  });
  const intentIndex = log.append(intent);
  return new Promise((resolve, reject) => {
    signer.sign(
      { requests: [lengthsOf({ intentIndex, intent, tbs })] },
      [intent, tbs],
      (results, body) => {
        const [result] = decodeResults(results, body);
        if (result instanceof Error) reject(result);
        else resolve(result!);
      },
      (refusal) => reject(errorOf(refusal)),
    );
  });
}

/** Deals in a process of its own. */
export async function dealByProcess(plan: Uint8Array): Promise<DealtByProcess> {
  const dealer = startDealer({});
  const dealt = await dealer.deal({ plan, planDigest: digestOf(plan), secret: "none" });
  await dealer.ended;
  return dealt;
}

export interface OpenUnlock {
  readonly unlocker: UnlockerProcess;
  readonly signer: OpenedSigner;
  readonly stated: UnlockStated;
}

/** Starts a signer and an unlocker for it, and tells the unlocker what was stated. */
export async function beginUnlock(
  people: SealedHome,
  dealt: DealtByProcess,
  log: FollowedLog,
  changes: UnlockChanges & { readonly gatherSeconds?: number } = {},
): Promise<OpenUnlock> {
  const { gatherSeconds = 600 } = changes;
  const signer = startOpenedSigner({ log: log.feed, statements: () => [] });
  const unlocker = startUnlocker({ handOff: signer.handOff, gatherSeconds });
  const stated = people.unlock(dealt, await unlocker.begin(), changes);
  await unlocker.state(stated.state);
  return { unlocker, signer, stated };
}

/** Submits the shares of some custodians, one after the other. */
export async function submitAll(
  people: SealedHome,
  { unlocker, stated }: Pick<OpenUnlock, "unlocker" | "stated">,
  who: readonly Name[],
): Promise<void> {
  for (const name of who) {
    const { signed, share } = people.submission(stated, name);
    // oxlint-disable-next-line no-await-in-loop -- as people do
    await unlocker.submit(signed, share);
  }
}

/** The approvals of two officers, which the rules ask for. */
export function agreementOf(people: SealedHome, stated: UnlockStated, who = ["alice", "dora"]) {
  return {
    approvals: who.map((id) => people.approval(stated.ceremony, id)),
    rosters: people.versions,
  };
}
