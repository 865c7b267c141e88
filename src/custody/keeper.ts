/**
 * The keeper: it owns the head of the log, signs checkpoints, checks what operators have signed, and starts a signer
 * for each key (CUSTODY.md 7.1). It never holds a CA key or a PIN, and takes nothing from the service on trust.
 */

import { hash } from "node:crypto";
import { statSync } from "node:fs";
import { z } from "zod";
import { parseCanonicalJson } from "../audit/canonical-json.ts";
import { checkpointText } from "../audit/checkpoint.ts";
import { CompactRange, HASH_LENGTH } from "../audit/merkle.ts";
import { noteSigner, signNote } from "../audit/signed-note.ts";
import { CountersignError } from "../errors.ts";
import { compilePolicy, type CompiledPolicy } from "../policy/decide.ts";
import { parsePolicy } from "../policy/document.ts";
import { parseRequesterStatement, type RequesterStatement } from "../policy/requester.ts";
import { applyRecorded, checkChange, requesterNameOf } from "../policy/requester-change.ts";
import { parseCertificate } from "../x509/certificate.ts";
import { spkiDigest } from "../x509/public-key.ts";
import { hourlyAllowance, isStanding, type Allowance } from "./grant.ts";
import { createHeadFile, openHeadFile, type HeadFile } from "./head-file.ts";
import type { KeeperConfig, KeyConfig } from "./keeper-config.ts";
import { statusSchema, type FromKeeper, type ToKeeper } from "./keeper-protocol.ts";
import {
  isUnused,
  openStateFile,
  type FileFingerprint,
  type KeeperState,
  type StateFile,
} from "./keeper-state.ts";
import { createLogFeed } from "./log-feed.ts";
import { refusalOf, type Refusal } from "./refusal.ts";
import { cut } from "./sign-batch.ts";
import { superviseSigner, type SignerProcess } from "./signer-process.ts";
import { verifySshSignature } from "./ssh-signature.ts";

export interface Keeper {
  /** When each key has opened or failed, or some seconds are over. */
  readonly ready: Promise<void>;
  /** Takes one message of the service. What it throws is no message, and ends the process. */
  receive(message: ToKeeper, body: Uint8Array): void;
  /** Ends the signers at once. */
  stop(): void;
}

export interface KeeperParts {
  readonly config: KeeperConfig;
  readonly now: () => Date;
  /** Seconds on a clock that nobody sets. */
  readonly monotonic: () => number;
  readonly send: (message: FromKeeper, ...body: readonly Uint8Array[]) => void;
}

/** A key of the configuration and what is known of it now. */
interface Key {
  readonly config: KeyConfig;
  /** Known from the certificate, or when the token has opened. */
  keyId: string | undefined;
  publicKey: Uint8Array | undefined;
  process: SignerProcess | undefined;
  /** Why there is no process. */
  failure: Error | undefined;
  /** The PIN file as it was when the process started. */
  pinFile: FileFingerprint | undefined;
  allowance: Allowance | undefined;
  /** Requests for granted digests that a signer has in hand, by digest. */
  readonly inHand: Map<string, DigestInHand>;
  reported: boolean;
}

interface DigestInHand {
  requests: number;
  /** Whether one of them was signed, or may have been. */
  signed: boolean;
}

interface VerifiedStatement {
  readonly octets: Uint8Array;
  readonly digest: string;
  readonly statement: RequesterStatement;
}

const READY_MILLISECONDS = 15_000;

/** Octets of the statements about requesters that are being shown, and what each takes beside its own. */
const REPLAY_LIMIT = 64 * 1024 * 1024;
const REPLAY_OVERHEAD = 256;

/** A PIN is handed to this many signers that end without a word. */
const PIN_TRIES = 2;

/** How long the answer to `status` waits for a signer's. */
const STATUS_MILLISECONDS = 2_000;

/** A lock statement older or newer than this is not today's. */
const STATEMENT_MILLISECONDS = 24 * 60 * 60 * 1000;

/**
 * Signatures are reserved in the state file in steps of a twentieth of an hour's, and of no more than this: what a
 * killed keeper had reserved and not used counts as used.
 */
const RESERVATIONS = 20;
const MAX_RESERVATION = 1024;
/** A reservation is renewed when it is this old, so that one from before the hour is known to be used up. */
const RESERVATION_MILLISECONDS = 5 * 60 * 1000;
const HOUR_MILLISECONDS = 60 * 60 * 1000;

const lockSchema = z.strictObject({
  type: z.literal("countersign/lock/v1"),
  operator: z.string(),
  /** RFC 3339, UTC. */
  at: z.iso.datetime(),
  keyId: z.string().regex(/^[0-9a-f]{64}$/),
  /** The head of the log that the operator saw. */
  log: z.strictObject({ size: z.int().min(0), root: z.base64() }),
});

/**
 * Opens the head and state files and starts the signers.
 *
 * @throws CountersignError `rolled-back` if head or state file is damaged or missing beside the other;
 *   `policy-invalid`.
 */
export function createKeeper({ config, now, monotonic, send }: KeeperParts): Keeper {
  const logSigner = noteSigner(config.origin, config.logKey);
  const identity = noteSigner(`${config.service}/keeper`, config.identityKey);
  let head: HeadFile | undefined = openHeadFile(config.head, config.origin);
  const stateFile: StateFile = openStateFile(config.state, head === undefined);
  const feed = createLogFeed(
    head?.range ?? CompactRange.empty(),
    head === undefined ? "" : checkpointOf(head.range),
  );
  const policy = parsePolicy(config.policy, "policy");
  let compiled: CompiledPolicy = compilePolicy(policy);
  let statements: Uint8Array[] = [];
  let replay: { octets: Uint8Array; signature: string }[] | undefined = [];
  let replayOctets = 0;
  const caKeys = config.keys.flatMap(({ certificate, chain }) =>
    [...(certificate === undefined ? [] : [certificate]), ...chain].map((der) =>
      spkiDigest(parseCertificate(der).tbs.subjectPublicKeyInfo),
    ),
  );

  let becomeReady: () => void;
  const ready = new Promise<void>((resolve) => {
    becomeReady = resolve;
    setTimeout(resolve, READY_MILLISECONDS).unref();
  });
  const keys: Key[] = config.keys.map((key) => {
    const publicKey = key.certificate && parseCertificate(key.certificate).tbs.subjectPublicKeyInfo;
    return {
      config: key,
      keyId: publicKey && spkiDigest(publicKey),
      publicKey,
      process: undefined,
      failure: undefined,
      pinFile: undefined,
      allowance: undefined,
      inHand: new Map(),
      reported: false,
    };
  });
  for (const key of keys) startKey(key);
  report();

  function checkpointOf(range: CompactRange): string {
    return signNote(checkpointText(config.origin, range.end, range.root()), logSigner);
  }

  function report(): void {
    if (keys.every(({ reported }) => reported)) becomeReady();
  }

  // Keys and their signers

  function startKey(key: Key): void {
    if (isHeld(key)) {
      hold(key);
      return;
    }
    const refused = pinRefusal(key.config);
    if (refused !== undefined) {
      fail(key, refused);
      return;
    }
    key.process = superviseSigner({
      pinFile: key.config.pinFile,
      environment: config.tokenEnvironment,
      log: feed,
      opening: () => openingOf(key),
      statements: () => statements,
      onOpened: (publicKey) => onOpened(key, publicKey),
      onFailed: (refusal) => onFailed(key, refusal),
      onEnded: () => {
        key.reported = true;
        report();
      },
    });
  }

  /** Three wrong tries lock a token, so a PIN file that was refused, or may have been, is not tried again. */
  function pinRefusal({ issuer, pinFile }: KeyConfig): CountersignError | undefined {
    const { wrongPins, triedPins } = stateFile.state;
    const now = fingerprintOf(pinFile);
    const wrong = wrongPins[issuer];
    const tried = triedPins[issuer];
    const repair =
      "Put the right PIN into the file, or touch the file if it is right after all, and start again.";
    if (wrong !== undefined && sameFile(wrong, now)) {
      return new CountersignError(
        "pin-wrong",
        `The token refused the PIN of issuer ${issuer}, and its PIN file has not changed since. It is not tried ` +
          `again, because three wrong tries lock a token. ${repair}`,
      );
    }
    if (tried !== undefined && tried.tries >= PIN_TRIES && sameFile(tried.file, now)) {
      return new CountersignError(
        "pin-wrong",
        `${tried.tries} signers in a row ended while they opened the token of issuer ${issuer}, so it is not known ` +
          `whether it refused the PIN. It is not tried again, because three wrong tries lock a token. ${repair}`,
      );
    }
    return undefined;
  }

  /**
   * Writes down that the PIN is about to be tried. Where that cannot be written it is not tried: a token that
   * refused it could not be remembered either, and every start would take one of its tries.
   */
  function countPinTry({ issuer }: KeyConfig, file: FileFingerprint): void {
    const tried = stateFile.state.triedPins[issuer];
    const tries = tried !== undefined && sameFile(tried.file, file) ? tried.tries + 1 : 1;
    try {
      stateFile.change((state) => {
        state.triedPins[issuer] = { file, tries };
      });
    } catch (error) {
      console.error(`keeper: the state file cannot be written: ${(error as Error).message}`);
      throw new CountersignError(
        "token-unavailable",
        "the keeper's state file cannot be written, and no PIN is tried without it",
        { cause: error },
      );
    }
  }

  function openingOf(key: Key): ReturnType<Parameters<typeof superviseSigner>[0]["opening"]> {
    const { issuer, module, uri, pinFile, grant, certificate, chain } = key.config;
    const { state } = stateFile;
    const refused = pinRefusal(key.config);
    if (refused !== undefined) throw refused;
    const list = key.keyId === undefined ? undefined : state.lists[key.keyId];
    const crl = key.keyId === undefined ? undefined : stateFile.readList(key.keyId);
    key.pinFile = fingerprintOf(pinFile);
    // Without a file there is no PIN; the signer says what is wrong with it.
    if (key.pinFile !== undefined) countPinTry(key.config, key.pinFile);
    return {
      issuer,
      module,
      uri,
      pinFile,
      grant,
      alreadySigned: allowanceOf(key)?.spent ?? 0,
      usedDigests: (key.keyId && state.digests[key.keyId]) || [],
      policy: config.policy,
      certificate: certificate === undefined ? null : base64(certificate),
      chain: chain.map(base64),
      caKeys,
      logKey: logSigner.verifierKey.text,
      head: feed.range.end === 0 ? null : { note: feed.note, nodes: feed.range.nodes.map(base64) },
      list: list === undefined || crl === undefined ? null : { ...list, der: base64(crl) },
    };
  }

  /** What the key has counted, also before a restart. */
  function allowanceOf(key: Key): Allowance | undefined {
    const { grant } = key.config;
    if (!isStanding(grant) || key.keyId === undefined) return undefined;
    if (key.allowance === undefined) {
      const hour = stateFile.state.hours[key.keyId];
      const recent =
        hour !== undefined &&
        Math.abs(now().getTime() - Date.parse(hour.at)) <
          HOUR_MILLISECONDS + RESERVATION_MILLISECONDS;
      const already = recent ? hour.reserved : 0;
      key.allowance = hourlyAllowance(grant.signaturesPerHour, already, monotonic);
    }
    return key.allowance;
  }

  function onOpened(key: Key, publicKey: Uint8Array): void {
    key.publicKey = publicKey;
    const keyId = spkiDigest(publicKey);
    const first = key.keyId === undefined;
    key.keyId = keyId;
    settlePin(key, (state, issuer) => delete state.wrongPins[issuer]);
    if (isHeld(key)) {
      hold(key);
      return;
    }
    // Which digests are used up, and the last CRL, could not be told before the key was known.
    const { digests, lists } = stateFile.state;
    if (first && (digests[keyId] !== undefined || lists[keyId] !== undefined)) {
      key.process?.restart();
      return;
    }
    key.reported = true;
    report();
  }

  function onFailed(key: Key, refusal: Refusal): void {
    const { pinFile } = key;
    settlePin(key, (state, issuer) => {
      if (refusal.code === "pin-wrong" && pinFile !== undefined) state.wrongPins[issuer] = pinFile;
    });
    key.reported = true;
    report();
  }

  /** It is known what the token said to the PIN. Where that cannot be written, the try stays on record. */
  function settlePin(key: Key, update: (state: KeeperState, issuer: string) => void): void {
    const { issuer } = key.config;
    try {
      stateFile.change((state) => {
        delete state.triedPins[issuer];
        update(state, issuer);
      });
    } catch (error) {
      console.error(`keeper: the state file cannot be written: ${(error as Error).message}`);
    }
  }

  function fail(key: Key, failure: Error): void {
    key.failure = failure;
    key.reported = true;
  }

  function isHeld(key: Key): boolean {
    return key.keyId !== undefined && stateFile.state.held[key.keyId] !== undefined;
  }

  function hold(key: Key): void {
    key.process?.kill();
    fail(key, new CountersignError("key-held", "an operator has locked this key"));
    report();
  }

  function keyOf(keyId: string): Key {
    const key = keys.find((candidate) => candidate.keyId === keyId);
    if (key === undefined) throw new CountersignError("key-unknown", `there is no key ${keyId}`);
    return key;
  }

  function openProcess(keyId: string): { key: Key; process: SignerProcess } {
    requireHead();
    const key = keyOf(keyId);
    const { process } = key;
    if (key.failure !== undefined) throw key.failure;
    if (process?.state === "open") return { key, process };
    throw process?.failure ?? new CountersignError("key-locked", "the key is being opened");
  }

  /**
   * Counts on disk what the signer is about to count in its memory, so that its end does not bring it back.
   *
   * @returns what is told the fate of each request: a digest is given back when nobody has it in hand any more, and
   *   each request for it was refused.
   */
  function count(
    key: Key,
    tbs: readonly Uint8Array[],
  ): (wasSigned: (index: number) => boolean) => void {
    const keyId = key.keyId!;
    const { grant } = key.config;
    if (isStanding(grant)) {
      const allowance = allowanceOf(key)!;
      allowance.spend(Math.min(allowance.left, tbs.length));
      reserve(keyId, grant.signaturesPerHour, allowance);
      return () => {};
    }
    const used = stateFile.state.digests[keyId] ?? [];
    const { inHand } = key;
    const asked = tbs.map(digestOf);
    const counted = new Set(
      asked.filter(
        (digest) =>
          grant.digests.includes(digest) && (inHand.has(digest) || !used.includes(digest)),
      ),
    );
    if (counted.size === 0) return () => {};
    const burnt = [...counted].filter((digest) => !used.includes(digest));
    if (burnt.length > 0) {
      stateFile.change((state) => {
        state.digests[keyId] = [...used, ...burnt];
      });
    }
    for (const digest of asked) {
      if (!counted.has(digest)) continue;
      const hand = inHand.get(digest) ?? { requests: 0, signed: false };
      hand.requests++;
      inHand.set(digest, hand);
    }
    return (wasSigned) => {
      const free = new Set<string>();
      for (const [index, digest] of asked.entries()) {
        const hand = counted.has(digest) ? inHand.get(digest) : undefined;
        if (hand === undefined) continue;
        hand.requests--;
        hand.signed ||= wasSigned(index);
        if (hand.requests > 0) continue;
        inHand.delete(digest);
        if (!hand.signed) free.add(digest);
      }
      if (free.size === 0) return;
      try {
        stateFile.change((state) => {
          state.digests[keyId] = state.digests[keyId]!.filter((digest) => !free.has(digest));
        });
      } catch (error) {
        // They stay used up; the requests have their answers.
        console.error(`keeper: the state file cannot be written: ${(error as Error).message}`);
      }
    };
  }

  function reserve(keyId: string, limit: number, allowance: Allowance): void {
    const hour = stateFile.state.hours[keyId];
    const at = now();
    const fresh =
      hour !== undefined && Math.abs(at.getTime() - Date.parse(hour.at)) < RESERVATION_MILLISECONDS;
    if (fresh && allowance.spent <= hour.reserved) return;
    const step = Math.min(Math.ceil(limit / RESERVATIONS), MAX_RESERVATION);
    const reserved = Math.min(limit, allowance.spent + step);
    stateFile.change((state) => {
      state.hours[keyId] = { at: at.toISOString(), reserved };
    });
  }

  /** What was reserved and not used is free again when the keeper ends in order. */
  function returnReservations(): void {
    const counted = keys.flatMap(({ keyId, allowance }) =>
      keyId === undefined || allowance === undefined ? [] : [[keyId, allowance.spent] as const],
    );
    if (counted.length === 0) return;
    const at = now().toISOString();
    stateFile.change((state) => {
      for (const [keyId, reserved] of counted) state.hours[keyId] = { at, reserved };
    });
  }

  // The log

  function requireHead(): HeadFile {
    if (head === undefined) {
      throw new CountersignError(
        "head-missing",
        "there is no head file: only for a log without entries is one made",
      );
    }
    return head;
  }

  function initialise(): FromKeeper & { type: "head" } {
    if (head !== undefined)
      throw new CountersignError("rolled-back", "there is a head file already");
    if (!isUnused(stateFile.state)) {
      throw new CountersignError(
        "rolled-back",
        "the head file is missing, and the keeper's state is that of a log with entries: restore the head file",
      );
    }
    stateFile.change(() => {});
    head = createHeadFile(config.head, config.origin);
    feed.append(head.range, checkpointOf(head.range), new Uint8Array(0));
    return headMessage(head.range);
  }

  function append(first: number, leaves: Uint8Array): FromKeeper & { type: "head" } {
    const { range } = requireHead();
    if (first !== range.end) {
      throw new CountersignError(
        "rolled-back",
        `the head of the log has ${range.end} entries; entries from ${first} on do not extend it`,
      );
    }
    if (leaves.length === 0) return headMessage(range);
    const extended = range.clone();
    for (let at = 0; at < leaves.length; at += HASH_LENGTH) {
      extended.append(leaves.subarray(at, at + HASH_LENGTH));
    }
    // 1. The head is on the disk. A crash here leaves a head that nobody has seen; at the next start the database,
    //    which has these entries, agrees with it.
    head!.write(extended);
    // 2. Only then is it signed: no other tree of this size can be.
    feed.append(extended, checkpointOf(extended), leaves);
    return headMessage(extended);
  }

  function headMessage(range: CompactRange): FromKeeper & { type: "head" } {
    return {
      type: "head",
      id: 0,
      size: range.end,
      root: Buffer.from(range.root()).toString("hex"),
      note: feed.note,
    };
  }

  // What operators have signed

  function verifyOperator(
    operator: string,
    namespace: string,
    message: Uint8Array,
    signature: string,
  ): void {
    const known = config.operators.find(({ id }) => id === operator);
    if (known === undefined) {
      throw new CountersignError("signature-invalid", `there is no operator ${operator}`);
    }
    let failure: unknown;
    for (const publicKey of known.keys) {
      try {
        verifySshSignature({ publicKey, namespace, message, signature });
        return;
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  /** A head that the log had: of the size it has now with its root, or smaller. */
  function checkSeenHead({ size, root }: { size: number; root: string }): void {
    const { range } = requireHead();
    if (size > range.end || (size === range.end && base64(range.root()) !== root)) {
      throw new CountersignError(
        "statement-stale",
        "the statement names a head that the log never had",
      );
    }
  }

  function changeRequester(octets: Uint8Array, signature: string): void {
    if (replay !== undefined && stateFile.state.requesters.sequence > 0) throw notShown();
    const next = readRequesterStatement(octets);
    const { sequence, digest } = stateFile.state.requesters;
    const { statement } = next;
    if (statement.sequence !== sequence + 1 || statement.previous !== digest) {
      throw new CountersignError(
        "statement-stale",
        `the statement has the sequence number ${statement.sequence}; the next one is ${sequence + 1}, after ${digest}`,
      );
    }
    verifyOperator(statement.operator, "countersign-requester@v1", octets, signature);
    checkSeenHead(statement.log);
    checkChange(compiled, statement);
    // The file first: where it cannot be written nothing has changed, and the statement can be shown again.
    stateFile.change((state) => {
      state.requesters = { sequence: statement.sequence, digest: next.digest };
    });
    applyRecorded(compiled, statement);
    replay = undefined; // there was nothing to show, or it was shown
    statements.push(octets);
    for (const { process } of keys) process?.changeRequesters([octets]);
  }

  /** The statements that the database has, from the first. */
  function replayRequesters(shown: readonly { octets: Uint8Array; signature: string }[]): void {
    const { sequence, digest } = stateFile.state.requesters;
    const chain: VerifiedStatement[] = [];
    const rebuilt = compilePolicy(policy);
    const unapplied: { statement: RequesterStatement; refused: Error }[] = [];
    for (const { octets, signature } of shown) {
      const next = readRequesterStatement(octets);
      const before = chain.at(-1);
      const { statement } = next;
      if (
        statement.sequence !== chain.length + 1 ||
        statement.previous !== (before?.digest ?? null)
      ) {
        throw rolledBack("do not follow one another");
      }
      // Up to the last one that this keeper took, the chain of digests says that these are the ones it verified,
      // even if an operator has left since.
      if (statement.sequence > sequence) {
        verifyOperator(statement.operator, "countersign-requester@v1", octets, signature);
      }
      chain.push(next);
      const refused = applyRecorded(rebuilt, statement);
      if (refused !== undefined) unapplied.push({ statement, refused });
    }
    if (chain.length < sequence || (sequence > 0 && chain[sequence - 1]!.digest !== digest)) {
      throw rolledBack(`are not those that the keeper took, of which there are ${sequence}`);
    }
    const last = chain.at(-1);
    if (last !== undefined && chain.length > sequence) {
      stateFile.change((state) => {
        state.requesters = { sequence: last.statement.sequence, digest: last.digest };
      });
    }
    for (const { statement, refused } of unapplied) {
      console.error(
        `keeper: requester ${requesterNameOf(statement)} is not in force, statement ${statement.sequence} about it ` +
          `does not fit the policy file: ${refused.message}`,
      );
    }
    compiled = rebuilt;
    statements = chain.map(({ octets }) => octets);
    for (const { process } of keys) process?.changeRequesters(statements);
  }

  function lock(octets: Uint8Array, signature: string): void {
    const statement = lockSchema.safeParse(readCanonical(octets));
    if (!statement.success) {
      throw new CountersignError("statement-malformed", "the bytes are no statement to lock a key");
    }
    const { operator, at, keyId, log } = statement.data;
    verifyOperator(operator, "countersign-lock@v1", octets, signature);
    checkSeenHead(log);
    if (Math.abs(now().getTime() - Date.parse(at)) > STATEMENT_MILLISECONDS) {
      throw new CountersignError("statement-stale", "the statement is more than a day from now");
    }
    const key = keyOf(keyId);
    key.process?.kill(); // first of all; only then what makes it last
    stateFile.change((state) => {
      state.held[keyId] ??= { operator, at, statement: digestOf(octets) };
    });
    hold(key);
  }

  // Messages

  function sign(message: ToKeeper & { type: "sign" }, body: Uint8Array): void {
    const { id, requests } = message;
    // A requester of the policy file may be one that a statement has removed. CRLs know no requesters.
    if (replay !== undefined && stateFile.state.requesters.sequence > 0) throw notShown();
    const cutter = cut(body);
    const tbs = requests.map((lengths) => cutter.request(lengths).tbs);
    cutter.finish();
    const { key, process } = openProcess(message.keyId);
    const settle = count(key, tbs);
    process.sign(
      { requests },
      [body],
      (results, signatures) => {
        settle((index) => results[index]! > 0);
        send({ type: "signed", id, results: [...results] }, signatures);
      },
      (refusal) => {
        settle(() => true); // a signer that ended may have signed
        send({ type: "refused", id, ...refusal });
      },
    );
  }

  function signList(message: ToKeeper & { type: "sign-list" }, body: Uint8Array): void {
    const { id, keyId, request, predecessor, dropped } = message;
    const cutter = cut(body);
    const { intent, tbs } = cutter.request(request);
    const before = lastList(keyId, cutter.take(predecessor));
    const certificates = cutter.take(dropped);
    cutter.finish();
    const { key, process } = openProcess(keyId);
    const settle = count(key, [tbs]);
    process.signList(
      { request, predecessor: before.length, dropped },
      [intent, tbs, before, certificates],
      ({ signature, number, crl }) => {
        settle(() => true);
        try {
          // Before anybody has the signature: no later CRL can leave out what this one says.
          stateFile.keepList(keyId, { number, crl: digestOf(crl), der: crl });
          send({ type: "list-signed", id }, signature);
        } catch (error) {
          process.restart(); // it has gone on to a CRL that does not exist
          send({ type: "refused", id, ...refusalOf(error) });
        }
      },
      (refusal) => {
        settle(() => process.state !== "open"); // a signer that ended may have signed
        send({ type: "refused", id, ...refusal });
      },
    );
  }

  /**
   * The CRL that the next one is compared with: the last that the key signed. A service that did not live to keep
   * it shows an older one, or none.
   */
  function lastList(keyId: string, shown: Uint8Array): Uint8Array {
    const last = stateFile.state.lists[keyId];
    return last === undefined || digestOf(shown) === last.crl
      ? shown
      : (stateFile.readList(keyId) ?? shown);
  }

  async function status(id: number): Promise<void> {
    const described = {
      service: config.service,
      origin: config.origin,
      logKey: logSigner.verifierKey.text,
      identityKey: identity.verifierKey.text,
      head: head === undefined ? null : { size: head.range.end, root: base64(head.range.root()) },
      operators: config.operators.map((operator) => ({
        id: operator.id,
        keys: [...operator.keys],
      })),
      requesterSequence: stateFile.state.requesters.sequence,
      keys: await Promise.all(keys.map((key) => keyStatus(key))),
    } satisfies z.infer<typeof statusSchema>;
    send({ type: "status", id }, Buffer.from(JSON.stringify(described)));
  }

  async function keyStatus(key: Key): Promise<z.infer<typeof statusSchema>["keys"][number]> {
    const { config: configured, keyId, process } = key;
    const { issuer, certificate, chain, grant } = configured;
    const list = keyId === undefined ? undefined : stateFile.state.lists[keyId];
    const signaturesLeft =
      process?.state === "open" ? await answerWithin(process.signaturesLeft()) : undefined;
    const silent = process?.state === "open" && signaturesLeft === undefined;
    const failure =
      key.failure ??
      (silent
        ? new CountersignError("token-unavailable", "the signer does not answer")
        : process?.failure);
    return {
      keyId: keyId ?? "",
      issuer,
      state: isHeld(key)
        ? "held"
        : process?.state === "open" && !silent
          ? "open"
          : failure === undefined
            ? "locked"
            : "unavailable",
      // It is shown to anybody who asks whether the service is ready.
      ...(failure === undefined
        ? {}
        : { detail: failure instanceof CountersignError ? failure.message : "internal" }),
      publicKey: key.publicKey === undefined ? "" : base64(key.publicKey),
      ...(certificate === undefined ? {} : { certificate: base64(certificate) }),
      chain: chain.map(base64),
      ...(signaturesLeft === undefined ? {} : { signaturesLeft }),
      grantedPolicy: isStanding(grant) ? grant.policy : "",
      ...(list === undefined ? {} : { list }),
    };
  }

  /** Answers one message; what it throws is the refusal. */
  function answer(message: ToKeeper, body: Uint8Array): void {
    const { id } = message;
    switch (message.type) {
      case "status":
        void status(id);
        return;
      case "initialise":
        send({ ...initialise(), id });
        return;
      case "append":
        send({ ...append(message.first, body), id });
        return;
      case "sign":
        sign(message, body);
        return;
      case "sign-list":
        signList(message, body);
        return;
      case "list": {
        const crl = stateFile.readList(message.keyId);
        send({ type: "list", id }, ...(crl === undefined ? [] : [crl]));
        return;
      }
      case "requester": {
        const cutter = cut(body);
        const statement = cutter.take(message.statement).slice();
        changeRequester(statement, text(body.subarray(message.statement)));
        send({ type: "done", id });
        return;
      }
      case "requesters": {
        if (replay === undefined) {
          throw new CountersignError(
            "rolled-back",
            "the statements about requesters were shown before",
          );
        }
        const cutter = cut(body);
        replayOctets += body.length + message.statements.length * REPLAY_OVERHEAD;
        if (replayOctets > REPLAY_LIMIT) {
          replay = [];
          replayOctets = 0;
          throw new CountersignError(
            "statement-malformed",
            `more than ${REPLAY_LIMIT} octets of statements about requesters`,
          );
        }
        for (const [statement, signature] of message.statements) {
          replay.push({
            octets: cutter.take(statement).slice(),
            signature: text(cutter.take(signature)),
          });
        }
        cutter.finish();
        if (message.last) {
          const shown = replay;
          replay = []; // a refused chain can be shown again
          replayOctets = 0;
          replayRequesters(shown);
          replay = undefined;
        }
        send({ type: "done", id });
        return;
      }
      case "lock": {
        const cutter = cut(body);
        const statement = cutter.take(message.statement);
        lock(statement, text(body.subarray(message.statement)));
        send({ type: "done", id });
      }
    }
  }

  return {
    ready,
    receive(message, body) {
      try {
        if (message.type === "append" && body.length % HASH_LENGTH !== 0) {
          throw new RangeError("leaf hashes have 32 octets each");
        }
        answer(message, body);
      } catch (error) {
        // Header and body that disagree are no message.
        if (error instanceof RangeError) throw error;
        send({ type: "refused", id: message.id, ...refusalOf(error) });
      }
    },
    stop() {
      for (const { process } of keys) process?.kill();
      try {
        returnReservations();
      } catch (error) {
        // What was reserved then counts as used. The keeper ends in order all the same.
        console.error(`keeper: the state file cannot be written: ${(error as Error).message}`);
      }
      head?.close();
    },
  };
}

function readRequesterStatement(octets: Uint8Array): VerifiedStatement {
  const statement = parseRequesterStatement(readCanonical(octets));
  return { octets, digest: digestOf(octets), statement };
}

function readCanonical(octets: Uint8Array): unknown {
  try {
    return parseCanonicalJson(octets);
  } catch (error) {
    throw new CountersignError(
      "statement-malformed",
      `the statement is not canonical JSON: ${(error as Error).message}`,
      { cause: error },
    );
  }
}

function notShown(): CountersignError {
  return rolledBack("so far were not shown");
}

function rolledBack(what: string): CountersignError {
  return new CountersignError("rolled-back", `the statements about requesters ${what}`);
}

/** undefined if there is none in time: the answer, when it comes, is nobody's. */
async function answerWithin<Answer>(answer: Promise<Answer>): Promise<Answer | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), STATUS_MILLISECONDS);
  });
  try {
    return await Promise.race([answer.catch(() => undefined), late]);
  } finally {
    clearTimeout(timer);
  }
}

function fingerprintOf(file: string): FileFingerprint | undefined {
  try {
    const { mtimeMs, size, ino } = statSync(file);
    return { modified: mtimeMs, size, inode: ino };
  } catch {
    return undefined; // the signer says what is wrong with it
  }
}

function sameFile(a: FileFingerprint, b: FileFingerprint | undefined): boolean {
  return b !== undefined && a.modified === b.modified && a.size === b.size && a.inode === b.inode;
}

function digestOf(octets: Uint8Array): string {
  return `sha256:${hash("sha256", octets, "hex")}`;
}

function base64(octets: Uint8Array): string {
  return Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString("base64");
}

function text(octets: Uint8Array): string {
  return Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString("utf8");
}
