/** Signing what a ceremony was agreed for: every artefact is recorded, signed and verified, then all are stored, or none. */

import { hash } from "node:crypto";
import { canonicalJson } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { encodeEntry, type Actor } from "../audit/entry.ts";
import { CountersignError } from "../errors.ts";
import {
  checkRoot,
  compileGate,
  refusal,
  type CrlContext,
  type Gate,
  type GateDecision,
} from "../gate/gate.ts";
import {
  assembleCertificate,
  caCertificateDone,
  caCertificateIntent,
} from "../issuance/ca-certificate.ts";
import type { JournalItem } from "../issuance/journal.ts";
import type { Reads } from "../issuance/records.ts";
import type { CompiledPolicy } from "../policy/decide.ts";
import { parseCertificateList, type TbsCertList } from "../x509/certificate-list.ts";
import { parseCertificate } from "../x509/certificate.ts";
import { equalOctets } from "../x509/der.ts";
import { parsePublicKey, publicKeyObject, spkiDigest } from "../x509/public-key.ts";
import { serialNumberHex } from "../x509/serial-number.ts";
import {
  signatureAlgorithmFor,
  signatureAlgorithmFrom,
  verifySignature,
} from "../x509/signature-algorithm.ts";
import { assembleSigned, parseSigned } from "../x509/signed.ts";
import { readArtefact, type Artefact } from "./artefact.ts";
import type { CustodyJournal } from "./journal.ts";
import type { CeremonyKeeper, CeremonyKey } from "./keeper.ts";

export interface SignRunParts {
  readonly journal: CustodyJournal;
  readonly reads: Reads;
  readonly keeper: CeremonyKeeper;
  readonly policy: CompiledPolicy;
  readonly now: () => Date;
}

/** One artefact that was signed. */
export interface SignedArtefact {
  readonly artefact: Artefact;
  /** DER. */
  readonly der: Uint8Array;
  /** Its record, which is yet to be written. */
  readonly done: JournalItem;
}

export interface SignOrder {
  readonly keyId: string;
  readonly artefacts: readonly Uint8Array[];
  readonly actor: Actor;
}

interface OpenIntent {
  readonly artefact: Artefact;
  readonly index: number;
  readonly item: JournalItem;
}

/** What is being signed: the issuer may get its certificate, and its first CRL, on the way. */
interface Run {
  readonly parts: SignRunParts;
  readonly key: CeremonyKey;
  readonly actor: Actor;
  certificate: Uint8Array | undefined;
  predecessor: Uint8Array | undefined;
}

/**
 * Checks what is to be signed, as far as that is possible before the key is open.
 *
 * @returns What was found, for the people who approve: canonical JSON, one an artefact.
 * @throws CountersignError `ceremony-refused`, `key-unknown`, or a code of the gate.
 */
export async function previewArtefacts(
  parts: SignRunParts,
  { keyId, artefacts }: Omit<SignOrder, "actor">,
): Promise<Uint8Array[]> {
  const run = await runOf(parts, keyId, { kind: "service", id: "preview" });
  const read = artefacts.map((tbs) => readArtefact(tbs, keyId));
  checkTwice(read);
  const reports: Uint8Array[] = [];
  let made = false;
  for (const artefact of read) {
    // oxlint-disable-next-line no-await-in-loop -- a CRL follows the one before it
    await checkUnused(run, artefact);
    // oxlint-disable-next-line no-await-in-loop -- as above
    const decision = await decisionOn(run, artefact, made);
    const { warnings } = refusal(decision ?? { verdict: "allow", rule: "", warnings: [] });
    reports.push(
      Buffer.from(
        canonicalJson({
          type: "countersign/lint/v1",
          tbs: artefact.digest,
          kind: artefact.kind,
          checked: decision !== undefined,
          warnings: [...warnings],
        }),
      ),
    );
    made ||= artefact.kind === "root";
    if (artefact.kind === "crl") run.predecessor = undefined;
  }
  return reports;
}

/**
 * Signs everything, in order.
 *
 * @returns What is to be recorded of it, all at once.
 * @throws what the first failure was: every intent has then been abandoned.
 */
export async function signArtefacts(
  parts: SignRunParts,
  { keyId, artefacts, actor }: SignOrder,
): Promise<SignedArtefact[]> {
  const run = await runOf(parts, keyId, actor);
  const read = artefacts.map((tbs) => readArtefact(tbs, keyId));
  checkTwice(read);
  const intents: OpenIntent[] = [];
  const signed: SignedArtefact[] = [];
  try {
    for (const artefact of read) {
      // oxlint-disable-next-line no-await-in-loop -- what comes later may stand on what comes first
      signed.push(await signOne(run, artefact, (intent) => intents.push(intent)));
    }
    return signed;
  } catch (error) {
    const reason = error instanceof CountersignError ? error.code : "internal";
    await Promise.all(
      intents.map((intent) => parts.journal.append(abandoned(run, intent, reason))),
    );
    throw error;
  }
}

async function runOf(parts: SignRunParts, keyId: string, actor: Actor): Promise<Run> {
  const { keys } = await parts.keeper.status();
  const key = keys.find((candidate) => candidate.keyId === keyId);
  if (key === undefined) {
    throw new CountersignError("key-unknown", "the keeper's configuration has no key with this id");
  }
  const stored = (await parts.reads.latestCrl(key.issuer))?.crl ?? undefined;
  return {
    parts,
    key,
    actor,
    certificate: key.certificate,
    // The keeper's is newer where the service did not live to keep it.
    predecessor: (await parts.keeper.list(keyId)) ?? stored,
  };
}

async function signOne(
  run: Run,
  artefact: Artefact,
  opened: (intent: OpenIntent) => void,
): Promise<SignedArtefact> {
  const { parts, key, actor } = run;
  const { tbs } = artefact;
  await checkUnused(run, artefact);
  const context = artefact.kind === "crl" ? await crlContext(run, artefact.list) : undefined;
  const decision = (await decisionOn(run, artefact, false)) ?? allowed;
  const item = intentOf(run, artefact, decision);
  // 1. The intent is on disk before the key is used. A crash from here on burns its number, and publishes nothing:
  //    the key is locked by it, and the ceremony has failed.
  const index = await parts.journal.append(item);
  opened({ artefact, index, item });
  // 2. Signed, by a signer that knows these digests and nothing else.
  const signature = await parts.keeper.sign({
    keyId: key.keyId,
    operation: artefact.kind === "crl" ? "crl" : "certificate",
    intentIndex: index,
    intent: item.leaf,
    tbs,
    ...(context?.predecessor === undefined ? {} : { predecessor: context.predecessor }),
    ...(context?.dropped === undefined ? {} : { dropped: context.dropped }),
  });
  // 3. Verified. What becomes of it is recorded with all the others.
  const der = assemble(run, artefact, signature);
  verify(run, artefact, der, context);
  if (artefact.kind === "root") run.certificate = der;
  if (artefact.kind === "crl") run.predecessor = der;
  return { artefact, der, done: doneOf(run, artefact, { index, item }, der) };
}

const allowed: GateDecision = { verdict: "allow", rule: "grant", warnings: [] };

/** @throws CountersignError `ceremony-refused` for a number that was used before. */
async function checkUnused({ parts, key }: Run, artefact: Artefact): Promise<void> {
  const { reads } = parts;
  if (artefact.kind === "crl") {
    const highest = (await reads.highestCrlNumber(key.issuer)) ?? -1n;
    if (artefact.list.crlNumber <= highest) {
      throw refused(artefact, `its CRL number must be above ${highest}`);
    }
  } else if (artefact.kind !== "request") {
    const serialNumber = serialNumberHex(artefact.certificate.serialNumber);
    if ((await reads.certificate(key.issuer, serialNumber)) !== undefined) {
      throw refused(artefact, "its serial number was used before");
    }
  }
}

function checkTwice(artefacts: readonly Artefact[]): void {
  const seen = new Set<string>();
  for (const artefact of artefacts) {
    if (seen.has(artefact.digest)) throw refused(artefact, "it stands there twice");
    seen.add(artefact.digest);
  }
}

/**
 * What the gate says.
 *
 * @param coming - whether the issuer's certificate comes before this one in the same ceremony.
 * @returns undefined for what cannot be judged until that certificate is signed.
 */
async function decisionOn(
  run: Run,
  artefact: Artefact,
  coming: boolean,
): Promise<GateDecision | undefined> {
  const now = run.parts.now();
  switch (artefact.kind) {
    case "root":
      return checkRoot(artefact.tbs, { now });
    case "request":
      return allowed;
    case "intermediate":
      return issuerGate(run, artefact, coming)?.checkCaCertificate(artefact.tbs, { now });
    case "crl":
      return issuerGate(run, artefact, coming)?.checkCertificateList(
        artefact.tbs,
        await crlContext(run, artefact.list),
      );
  }
}

function issuerGate(run: Run, artefact: Artefact, coming: boolean): Gate | undefined {
  if (run.certificate !== undefined) return gateOf(run, run.certificate);
  if (coming) return undefined;
  throw refused(artefact, "the key that is to sign it has no certificate of a CA yet");
}

function gateOf({ parts, key }: Run, certificate: Uint8Array): Gate {
  return compileGate({
    issuer: key.issuer,
    certificate,
    chain: key.chain,
    policy: parts.policy,
    // Leaves alone are compared with them.
    caKeys: new Set(),
  });
}

/** The CRL before this one, and the certificates of the entries that it has no more. */
async function crlContext(
  { parts, key, predecessor }: Run,
  list: TbsCertList,
): Promise<CrlContext> {
  const now = parts.now();
  if (predecessor === undefined) return { now };
  const kept = new Set([...list.entries()].map((entry) => serialNumberHex(entry.serialNumber)));
  const dropped: Uint8Array[] = [];
  for (const { serialNumber } of parseCertificateList(predecessor).entries()) {
    const hex = serialNumberHex(serialNumber);
    if (kept.has(hex)) continue;
    // oxlint-disable-next-line no-await-in-loop -- few leave a CRL
    const stored = await parts.reads.certificate(key.issuer, hex);
    if (stored !== undefined && stored.certificate !== null) dropped.push(stored.certificate);
  }
  return { now, predecessor, ...(dropped.length === 0 ? {} : { dropped }) };
}

function intentOf(
  { key, actor, parts }: Run,
  artefact: Artefact,
  decision: GateDecision,
): JournalItem {
  const { issuer, keyId } = key;
  const at = parts.now();
  if (artefact.kind === "root" || artefact.kind === "intermediate") {
    const { kind, tbs } = artefact;
    return caCertificateIntent({ kind, issuer, keyId, tbs, decision, actor }, at);
  }
  const { warnings } = refusal(decision);
  const crl = artefact.kind === "crl" ? artefact.list : undefined;
  const leaf = encodeEntry({
    type: "sign.intent",
    at,
    actor,
    subject: { issuer, keyId },
    data: {
      operation: crl === undefined ? "request" : "crl",
      tbs: artefact.digest,
      ...(crl === undefined ? {} : { number: crl.crlNumber.toString() }),
      ...(warnings.length === 0 ? {} : { warnings: [...warnings] }),
    },
  });
  if (crl === undefined) return { kind: "entry", leaf };
  return {
    kind: "crl-intent",
    leaf,
    row: {
      issuer,
      keyId,
      number: crl.crlNumber,
      tbsSha256: hash("sha256", artefact.tbs, "buffer"),
      thisUpdate: crl.thisUpdate,
      nextUpdate: crl.nextUpdate,
    },
  };
}

function doneOf(
  { key, actor, parts }: Run,
  artefact: Artefact,
  { index, item }: Pick<OpenIntent, "index" | "item">,
  der: Uint8Array,
): JournalItem {
  const at = parts.now();
  if (item.kind === "certificate-intent") return caCertificateDone(item, index, der, actor, at);
  const leaf = encodeEntry({
    type: "sign.done",
    at,
    actor,
    subject: { issuer: key.issuer, keyId: key.keyId },
    data:
      artefact.kind === "crl"
        ? { intent: index, crl: digestOf(der), number: artefact.list.crlNumber.toString() }
        : { intent: index, request: digestOf(der) },
  });
  return artefact.kind === "crl"
    ? { kind: "crl-done", leaf, intentIndex: index, crl: der }
    : { kind: "entry", leaf };
}

function abandoned(
  { key, actor, parts }: Run,
  { artefact, index, item }: OpenIntent,
  reason: string,
): JournalItem {
  const { issuer, keyId } = key;
  const serialNumber =
    artefact.kind === "root" || artefact.kind === "intermediate"
      ? { serialNumber: serialNumberHex(artefact.certificate.serialNumber) }
      : {};
  const leaf = encodeEntry({
    type: "sign.abandoned",
    at: parts.now(),
    actor,
    subject: { issuer, keyId, ...serialNumber },
    data: { intent: index, reason },
  });
  switch (item.kind) {
    case "certificate-intent":
      return { kind: "certificate-abandoned", leaf, intentIndex: index };
    case "crl-intent":
      return { kind: "crl-abandoned", leaf, intentIndex: index };
    default:
      return { kind: "entry", leaf };
  }
}

function assemble({ key }: Run, artefact: Artefact, signature: Uint8Array): Uint8Array {
  const { tbs } = artefact;
  switch (artefact.kind) {
    case "root":
    case "intermediate":
      return assembleCertificate(tbs, signature);
    case "crl":
      return assembleSigned(tbs, artefact.list.signatureAlgorithm, signature);
    case "request": {
      const { identifier } = signatureAlgorithmFor(parsePublicKey(key.publicKey).type);
      return assembleSigned(tbs, identifier, signature);
    }
  }
}

/** By the strict readers, and with the key, which nothing that was asked of the signer can have changed. */
function verify(
  run: Run,
  artefact: Artefact,
  der: Uint8Array,
  context: CrlContext | undefined,
): void {
  const { key } = run;
  if (spkiDigest(key.publicKey) !== key.keyId)
    throw new Error("the keeper's key is not that of its id");
  const { tbs, signatureAlgorithm, signature } = parseSigned(der);
  const algorithm = signatureAlgorithmFrom(signatureAlgorithm);
  if (
    !equalOctets(tbs, artefact.tbs) ||
    algorithm === undefined ||
    !verifySignature(publicKeyObject(parsePublicKey(key.publicKey)), algorithm, tbs, signature)
  ) {
    throw new Error(`what was signed for artefact ${artefact.digest} is not what was approved`);
  }
  if (artefact.kind === "crl") {
    refusal(gateOf(run, run.certificate!).checkSignedCertificateList(der, context!));
  } else if (artefact.kind !== "request") {
    parsePublicKey(parseCertificate(der).tbs.subjectPublicKeyInfo);
  }
}

function refused({ digest }: Artefact, detail: string): CountersignError {
  return new CountersignError("ceremony-refused", `artefact ${digest} cannot be signed: ${detail}`);
}
