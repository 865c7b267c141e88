/** The service's end of the keeper: CUSTODY.md 7.4. */

import type { ChildProcess } from "node:child_process";
import { connect } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as pause } from "node:timers/promises";
import { CountersignError } from "../errors.ts";
import { openFrames, type Frames } from "./frames.ts";
import { readBody, writeBody } from "./keeper-bodies.ts";
import type { CeremonyVotes, LogRecord, Proposal } from "./keeper-ceremonies.ts";
import type { Dealt, DealRequest } from "./keeper-deals.ts";
import {
  fromKeeperProtocol,
  STATEMENTS_LIMIT,
  statusSchema,
  type Closed,
  type FromKeeper,
  type StatusBody,
  type ToKeeper,
} from "./keeper-protocol.ts";
import type { Progress, UnlockRequest } from "./keeper-unlocks.ts";
import { utf8 } from "./octet-text.ts";
import type { Stated } from "./own-notes.ts";
import type { RosterVersion } from "./roster.ts";
import { mainModule, startProcess } from "./process-flags.ts";
import { errorOf } from "./refusal.ts";
import { BATCH_BODY_LIMIT, decodeResults, lengthsOf } from "./sign-batch.ts";
import type { Signed } from "./statement.ts";

export type { Closed } from "./keeper-protocol.ts";
export type {
  CeremonyVotes,
  LogRecord,
  Proposal as CeremonyProposal,
} from "./keeper-ceremonies.ts";
export type { Dealt } from "./keeper-deals.ts";
export type { Stated } from "./own-notes.ts";

export interface SignedHead {
  readonly size: number;
  readonly root: Uint8Array;
  /** The checkpoint, a signed note. */
  readonly note: string;
}

export interface KeyStatus {
  /** Hex; empty while a key without a certificate has not opened. */
  readonly keyId: string;
  readonly issuer: string;
  readonly state: "open" | "locked" | "held" | "unavailable";
  /** `sealed`: the key, or its token's PIN, needs shares. */
  readonly custody: "token" | "sealed";
  /** Of the active share set. */
  readonly epoch?: number;
  /** What its grant, standing or window, allows now; nothing while it is not open, or is open for known bytes only. */
  readonly operations: readonly ("certificate" | "crl")[];
  /** The end of a window, RFC 3339. */
  readonly until?: string;
  /** Digest of the statement of the ceremony that it is open for. */
  readonly ceremony?: string;
  /** Why it is not open, in words. */
  readonly detail?: string;
  /** The token has refused the PIN of the file, as it stands there. */
  readonly pinRefused?: true;
  /** SubjectPublicKeyInfo, DER; empty while it is not known. */
  readonly publicKey: Uint8Array;
  /** DER. */
  readonly certificate?: Uint8Array;
  /** DER; the issuer's issuer first. */
  readonly chain: readonly Uint8Array[];
  readonly signaturesLeft?: number;
  /** `sha256:<hex>`; empty under a grant of digests. */
  readonly grantedPolicy: string;
  /** The last CRL that the key signed, which the service may not have lived to keep: see `list`. */
  readonly list?: { readonly number: bigint; readonly crl: string };
}

export interface KeeperOperator {
  readonly id: string;
  /** SSH public keys. */
  readonly keys: readonly string[];
  readonly roles: readonly string[];
  /** `age1…` */
  readonly recipient?: string;
}

export interface KeeperStatus {
  readonly service: string;
  readonly origin: string;
  /** Verifier key. */
  readonly logKey: string;
  /** Verifier key. */
  readonly identityKey: string;
  readonly head: { readonly size: number; readonly root: Uint8Array } | "missing";
  /** Digest of the first version of the roster. */
  readonly genesis: string;
  /** The version in force; null until it was shown. */
  readonly roster: { readonly version: number; readonly digest: string } | null;
  /** Who locked everything, while it lasts. */
  readonly panic: { readonly operator: string; readonly at: string } | null;
  /** Of the roster in force. */
  readonly operators: readonly KeeperOperator[];
  readonly requesterSequence: number;
  readonly keys: readonly KeyStatus[];
}

export interface SignRequest {
  /** Hex (CUSTODY 2.1). */
  readonly keyId: string;
  readonly operation: "certificate" | "crl" | "request";
  /** Index of the intent in the log. */
  readonly intentIndex: number;
  /** Leaf bytes of the intent. */
  readonly intent: Uint8Array;
  /** TBSCertificate, TBSCertList or CertificationRequestInfo, DER. */
  readonly tbs: Uint8Array;
  /** The CRL before this one, DER; absent for the first. */
  readonly predecessor?: Uint8Array;
  /** Certificates, DER: expired, and no longer in the CRL. */
  readonly dropped?: readonly Uint8Array[];
}

export interface KeeperClient {
  status(): Promise<KeeperStatus>;
  /**
   * Makes the head file of a new log.
   *
   * @throws CountersignError `rolled-back` if there is one.
   */
  initialise(): Promise<SignedHead>;
  /**
   * Extends the head and has it signed; without leaves, the head as it is. What is called later is done later: a
   * signature may be asked for before this is answered.
   *
   * @param firstIndex - the size of the head before.
   * @throws CountersignError `rolled-back` if the head has another size; `head-missing`.
   */
  append(firstIndex: number, leafHashes: readonly Uint8Array[]): Promise<SignedHead>;
  /**
   * Requests that are made at the same time, as those of one commit are, travel together.
   *
   * @returns The signature as X.509 wants it (ECDSA: DER), already verified by the signer.
   * @throws CountersignError `key-unknown`, `key-locked`, `key-held`, `token-unavailable`, `pin-wrong`,
   *   `grant-exceeded`, `grant-mismatch`, `head-missing` or a code of the gate.
   */
  sign(request: SignRequest): Promise<Uint8Array>;
  /** The last CRL that a key signed, DER. */
  list(keyId: string): Promise<Uint8Array | undefined>;
  /**
   * One operator's change of a requester.
   *
   * @param statement - canonical JSON.
   * @param signature - armored, namespace `countersign-requester@v1`.
   * @throws CountersignError `statement-malformed`, `statement-stale`, `operator-unknown`, `signature-invalid`,
   *   `policy-invalid`, `requester-exists`, `requester-unknown`; `rolled-back` until roster and requesters were shown.
   */
  requester(statement: Uint8Array, signature: string): Promise<void>;
  /**
   * Shows the keeper all changes so far, from the first; once, at start.
   *
   * @throws CountersignError `rolled-back` if they are not those that it took.
   */
  requesters(
    statements: readonly { readonly statement: Uint8Array; readonly signature: string }[],
  ): Promise<void>;
  /**
   * Shows the keeper the versions of the roster, from the genesis; at start, before everything that people signed.
   *
   * @throws CountersignError `rolled-back` if the version that it saw last is not among them; `roster-invalid`,
   *   `roster-unsigned`.
   */
  rosters(versions: readonly RosterVersion[]): Promise<void>;
  /**
   * The version that a ceremony brings about; one that is in force already changes nothing.
   *
   * @throws CountersignError `roster-invalid`, `roster-unsigned` if too few agreed, `ceremony-closed`, `rolled-back`.
   */
  roster(version: RosterVersion): Promise<void>;
  /**
   * Has a ceremony statement made and signed.
   *
   * @throws CountersignError `ceremony-refused` for what cannot be agreed to or carried out now; `panic`, `key-unknown`,
   *   `plan-invalid`, `roster-invalid`, `roster-unsigned`, `operator-unknown`, `statement-malformed`; `rate-limited`
   *   from the 21st proposal of one operator within a day on; `head-missing`, `rolled-back`.
   */
  statement(proposal: Proposal): Promise<Stated>;
  /**
   * Starts an unlocker and what it will hand the secret to, and has the unlock statement made and signed.
   *
   * @throws CountersignError `unlock-busy` while the key is open, or shares are gathered for another ceremony of the same
   *   proposer; `panic`, `key-held`, `key-unknown`, `share-stale` for a share set older than the active one,
   *   `sealed-key-corrupt`, `plan-invalid`, `ceremony-closed`, `ceremony-refused`, `signature-invalid`,
   *   `statement-malformed`, `rolled-back`.
   */
  unlock(request: UnlockRequest): Promise<Stated>;
  /**
   * Passes one submission on.
   *
   * @param unlock - digest of its statement.
   * @param share - an age file to the unlock's recipient; empty for a refusal.
   * @throws CountersignError `unlock-unknown`, `unlock-closed`, `rate-limited`, or another code of CUSTODY.md 4.3.
   */
  submit(unlock: string, submission: Signed, share: Uint8Array): Promise<Progress>;
  /**
   * Opens a key for what was agreed to, or changes its shares. The record is that of the type `key.unlocked`, which must
   * stand in the log that the keeper has.
   *
   * @returns What was dealt, for a reshare; undefined where a signer is open now.
   * @throws CountersignError `ceremony-refused` if it is not agreed to, or not logged, `unlock-busy`, `panic`,
   *   `ceremony-closed`: the unlock goes on gathering. `kek-mismatch`, `sealed-key-corrupt`, `pin-wrong`, `deal-failed`
   *   and the like: it is over.
   */
  open(
    unlock: string,
    votes: CeremonyVotes,
    submissions: readonly Signed[],
    record: LogRecord,
  ): Promise<Dealt | undefined>;
  /**
   * Has a key made, or the PIN of a token in use sealed. The record is a `ceremony.step` with the state `dealing`.
   *
   * @throws CountersignError `ceremony-refused`, `ceremony-closed`, `plan-invalid`, `panic`, `unlock-busy` while the same
   *   is being dealt, `deal-failed` and what the token says.
   */
  deal(request: DealRequest): Promise<Dealt>;
  /**
   * The second step of sealing the PIN of a token in use, when what was dealt is stored: the old PIN opens nothing from
   * then on. Where nothing waits for it, nothing happens.
   *
   * @param ceremony - digest of its statement.
   * @throws CountersignError what the token says, or `deal-failed`; then it has its old PIN. Any other error if that is
   *   not known.
   */
  commit(ceremony: string): Promise<void>;
  /** Ends the processes of an unlock, whatever their state, and what it opened. */
  endUnlock(unlock: string): Promise<void>;
  /**
   * The share set that opens its key from now on: when each custodian has confirmed, and again at each start.
   *
   * @param shareSet - a signed note.
   * @throws CountersignError `confirmation-invalid`, `share-stale`, `signature-invalid`, `rolled-back`.
   */
  activate(shareSet: string, confirmations: readonly Signed[]): Promise<void>;
  /**
   * Locks a key (CUSTODY 6.2): its signer ends at once, and the unlockers that gather for it. One without a seal is held,
   * also after a restart.
   *
   * @param signature - armored, namespace `countersign-lock@v1`.
   * @throws CountersignError `statement-malformed`, `statement-stale`, `operator-unknown`, `signature-invalid`,
   *   `key-unknown`.
   */
  lock(statement: Uint8Array, signature: string): Promise<void>;
  /** Locks every key, and lets nothing open until a `resume`. As {@link lock}. */
  panic(statement: Uint8Array, signature: string): Promise<void>;
  /**
   * Lets go what is held; one that was carried out changes nothing.
   *
   * @throws CountersignError `ceremony-refused` if it is not agreed to, `ceremony-closed`, `signature-invalid`.
   */
  resume(request: CeremonyVotes & { readonly plan: Uint8Array }): Promise<void>;
  /** Is told of what ends by itself: an unlocker that died, a signer whose time, count or idle time is over. */
  onClosed(listener: (event: Closed) => void): void;
  /** Ends the keeper and with it the signers. */
  close(): Promise<void>;
  /** When the keeper has ended; without an error after `close`. */
  readonly ended: Promise<Error | undefined>;
}

const CLOSE_MILLISECONDS = 5_000;

/**
 * Requests in one frame to a signer, at most. A frame is answered as a whole: small ones let service and signer
 * work at the same time, where one large one makes each wait for the other.
 */
const FRAME_REQUESTS = 8;
const CONNECT_MILLISECONDS = 10_000;
const CONNECT_PAUSE_MILLISECONDS = 100;

/**
 * Starts the keeper as a child.
 *
 * @param configFile - absolute path of the keeper's own configuration, which is not read here.
 * @throws CountersignError what keeps the keeper from starting: `config-invalid`, `rolled-back`, `policy-invalid`.
 */
export async function startKeeper({
  configFile,
}: {
  readonly configFile: string;
}): Promise<KeeperClient> {
  const child = startProcess({
    kind: "keeper",
    module: mainModule("keeper-main.js"),
    arguments: [configFile],
    environment: {},
  });
  const exited = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", () => resolve());
  });
  return openClient(child.stdio[3] as Duplex, () => endChild(child, exited));
}

/**
 * Connects to a keeper that runs as a user of its own; waits some seconds for one that is just starting.
 *
 * @throws CountersignError `log-unavailable` if none answers.
 */
export async function connectKeeper({
  socketPath,
}: {
  readonly socketPath: string;
}): Promise<KeeperClient> {
  const deadline = Date.now() + CONNECT_MILLISECONDS;
  for (;;) {
    const socket = connect(socketPath);
    const connected = new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    try {
      // oxlint-disable-next-line no-await-in-loop -- one attempt after the other
      await connected;
      return await openClient(socket, () => Promise.resolve());
    } catch (error) {
      if (Date.now() > deadline) throw unreachable(socketPath, error);
      // oxlint-disable-next-line no-await-in-loop -- a pause between two attempts
      await pause(CONNECT_PAUSE_MILLISECONDS);
    }
  }
}

/** What ended a keeper stands in its own log: the service cannot read it. */
function unreachable(socketPath: string, cause: unknown): unknown {
  const { code } = cause as NodeJS.ErrnoException;
  if (cause instanceof CountersignError || code === undefined) return cause;
  return new CountersignError(
    "log-unavailable",
    `no keeper answers at ${socketPath} (${code}): is it running, as the user whose socket that is?`,
    { cause },
  );
}

async function endChild(child: ChildProcess, exited: Promise<void>): Promise<void> {
  const timer = setTimeout(() => child.kill("SIGKILL"), CLOSE_MILLISECONDS);
  await exited;
  clearTimeout(timer);
}

interface Waiting {
  readonly request: ToKeeper;
  readonly resolve: (message: FromKeeper, body: Uint8Array) => void;
  readonly reject: (error: Error) => void;
}

interface QueuedSignature {
  readonly request: SignRequest;
  readonly resolve: (signature: Uint8Array) => void;
  readonly reject: (error: Error) => void;
}

/** A request without its number. */
type Numbered<Message> = Message extends unknown ? Omit<Message, "id"> : never;

async function openClient(socket: Duplex, whenClosed: () => Promise<void>): Promise<KeeperClient> {
  const waiting = new Map<number, Waiting>();
  let nextId = 0;
  let queue: QueuedSignature[] = [];
  let over: Error | undefined;
  let closing = false;
  const closedListeners: ((event: Closed) => void)[] = [];

  let onReady: { readonly resolve: () => void; readonly reject: (error: Error) => void };
  const ready = new Promise<void>((resolve, reject) => {
    onReady = { resolve, reject };
  });
  let onOver: (error: Error | undefined) => void;
  const ended = new Promise<Error | undefined>((resolve) => {
    onOver = resolve;
  });

  const frames: Frames<ToKeeper> = openFrames<FromKeeper, ToKeeper>(socket, fromKeeperProtocol, {
    onMessage: receive,
    onEnd(error) {
      over = error ?? new Error("the keeper has ended");
      onReady.reject(over);
      for (const { request, reject } of waiting.values()) reject(failureOf(request.type, over));
      waiting.clear();
      for (const { reject } of queue) reject(failureOf("sign", over));
      queue = [];
      void whenClosed().then(() => onOver(closing ? undefined : over));
    },
  });

  function receive(message: FromKeeper, body: Uint8Array): void {
    switch (message.type) {
      case "ready":
        onReady.resolve();
        return;
      case "failed": {
        const { code, detail, members } = message;
        onReady.reject(errorOf({ code, detail, members }));
        frames.destroy();
        return;
      }
      case "status":
      case "head":
      case "signed":
      case "list-signed":
      case "list":
      case "done":
      case "stated":
      case "gathered":
      case "opened":
      case "refused": {
        const waiter = waiting.get(message.id);
        if (waiter === undefined) throw new RangeError("an answer to nothing");
        waiting.delete(message.id);
        if (message.type === "refused") {
          const { code, detail, members } = message;
          waiter.reject(errorOf({ code, detail, members }));
        } else {
          waiter.resolve(message, body);
        }
        return;
      }
      case "closed": {
        const { what, unlock, ceremony, keyId, reason } = message;
        for (const tell of closedListeners) tell({ what, unlock, ceremony, keyId, reason });
      }
    }
  }

  /** Sends a request behind everything that was asked before. */
  function ask<Type extends FromKeeper["type"], Value>(
    request: Numbered<ToKeeper>,
    pieces: readonly Uint8Array[],
    type: Type,
    read: (message: Extract<FromKeeper, { type: Type }>, body: Uint8Array) => Value,
  ): Promise<Value> {
    if (request.type !== "sign" && request.type !== "sign-list") flush();
    return new Promise<Value>((resolve, reject) => {
      if (over !== undefined) {
        reject(failureOf(request.type, over));
        return;
      }
      const id = nextId++;
      const numbered = { ...request, id } as ToKeeper;
      waiting.set(id, {
        request: numbered,
        resolve(message, body) {
          if (message.type !== type) throw new RangeError("an answer to another question");
          resolve(read(message as Extract<FromKeeper, { type: Type }>, body));
        },
        reject,
      });
      frames.send(numbered, ...pieces);
    });
  }

  function flush(): void {
    if (queue.length === 0) return;
    const queued = queue;
    queue = [];
    const batches = new Map<string, QueuedSignature[]>();
    for (const item of queued) {
      const { keyId, operation } = item.request;
      if (operation === "crl") {
        sendList(item);
        continue;
      }
      const batch = batches.get(keyId);
      if (batch === undefined) batches.set(keyId, [item]);
      else batch.push(item);
    }
    for (const [keyId, batch] of batches) {
      const octetsOf = ({ request }: QueuedSignature): number =>
        request.intent.length + request.tbs.length;
      for (const part of inParts(batch, octetsOf, FRAME_REQUESTS)) sendBatch(keyId, part);
    }
  }

  function sendBatch(keyId: string, batch: readonly QueuedSignature[]): void {
    const requests = batch.map(({ request }) => lengthsOf(request));
    const pieces = batch.flatMap(({ request }) => [request.intent, request.tbs]);
    ask({ type: "sign", keyId, requests }, pieces, "signed", ({ results }, body) => {
      if (results.length !== batch.length) throw new RangeError("an answer to another question");
      return decodeResults(results, body);
    }).then(
      (results) => {
        for (const [index, result] of results.entries()) {
          if (result instanceof Error) batch[index]!.reject(result);
          else batch[index]!.resolve(result);
        }
      },
      (error: Error) => {
        for (const { reject } of batch) reject(error);
      },
    );
  }

  function sendList({ request, resolve, reject }: QueuedSignature): void {
    const { keyId, intent, tbs, predecessor, dropped = [] } = request;
    ask(
      {
        type: "sign-list",
        keyId,
        request: lengthsOf(request),
        predecessor: predecessor?.length ?? 0,
        dropped: dropped.reduce((length, der) => length + der.length, 0),
      },
      [intent, tbs, ...(predecessor === undefined ? [] : [predecessor]), ...dropped],
      "list-signed",
      (_, body) => body,
    ).then(resolve, reject);
  }

  function done(request: Numbered<ToKeeper>, pieces: readonly Uint8Array[]): Promise<void> {
    return ask(request, pieces, "done", () => undefined);
  }

  const client: KeeperClient = {
    status: () => ask({ type: "status" }, [], "status", (_, body) => readStatus(body)),
    initialise: () => ask({ type: "initialise" }, [], "head", readHead),
    append: (firstIndex, leafHashes) =>
      appendInFrames(firstIndex, leafHashes, (first, leaves) =>
        ask({ type: "append", first }, leaves, "head", readHead),
      ),
    sign(request) {
      return new Promise((resolve, reject) => {
        if (over !== undefined) {
          reject(failureOf("sign", over));
          return;
        }
        // When what is asked now is in the queue, and before the event loop goes on to other work.
        if (queue.length === 0) process.nextTick(flush);
        queue.push({ request, resolve, reject });
      });
    },
    list: (keyId) =>
      ask({ type: "list", keyId }, [], "list", (_, body) => (body.length === 0 ? undefined : body)),
    requester(statement, signature) {
      const pieces = [statement, Buffer.from(signature)];
      return done({ type: "requester", statement: statement.length }, pieces);
    },
    async requesters(statements) {
      const parts = inParts(
        statements.map(({ statement, signature }) => [statement, Buffer.from(signature)] as const),
        ([statement, signature]) => statement.length + signature.length,
        STATEMENTS_LIMIT,
      );
      for (const [index, part] of parts.entries()) {
        const lengths = part.map(([statement, signature]): [number, number] => [
          statement.length,
          signature.length,
        ]);
        const last = index === parts.length - 1;
        // oxlint-disable-next-line no-await-in-loop -- a refusal ends it
        await done({ type: "requesters", statements: lengths, last }, part.flat());
      }
    },
    rosters: (versions) => done({ type: "rosters" }, [writeBody("rosters", { versions })]),
    roster: (version) => done({ type: "roster" }, [writeBody("roster", { version })]),
    statement: (proposal) =>
      ask({ type: "statement" }, [writeBody("statement", proposal)], "stated", readStated),
    unlock: (request) =>
      ask({ type: "unlock" }, [writeBody("unlock", request)], "stated", readStated),
    submit: (unlock, submission, share) =>
      ask(
        { type: "submit" },
        [writeBody("submit", { unlock, submission, share })],
        "gathered",
        ({ given, missing }) => ({ given, missing }),
      ),
    open: (unlock, votes, submissions, record) =>
      ask(
        { type: "open" },
        [writeBody("open", { unlock, votes, submissions, record })],
        "opened",
        (_, body) => (body.length === 0 ? undefined : readBody("opened", body)),
      ),
    deal: (request) =>
      ask({ type: "deal" }, [writeBody("deal", request)], "opened", (_, body) =>
        readBody("opened", body),
      ),
    commit: (ceremony) => done({ type: "commit", ceremony }, []),
    endUnlock: (unlock) => done({ type: "end-unlock", unlock }, []),
    activate: (shareSet, confirmations) =>
      done({ type: "activate" }, [writeBody("activate", { shareSet, confirmations })]),
    lock(statement, signature) {
      const pieces = [statement, Buffer.from(signature)];
      return done({ type: "lock", statement: statement.length }, pieces);
    },
    panic(statement, signature) {
      const pieces = [statement, Buffer.from(signature)];
      return done({ type: "panic", statement: statement.length }, pieces);
    },
    resume: (request) => done({ type: "resume" }, [writeBody("resume", request)]),
    onClosed(listener) {
      closedListeners.push(listener);
    },
    async close() {
      closing = true;
      flush();
      frames.close();
      await ended;
    },
    ended,
  };
  try {
    await ready;
  } catch (error) {
    frames.destroy();
    await ended;
    throw error;
  }
  return client;
}

/** Parts that fit into a frame each; one at least, though it be empty. */
function inParts<Item>(
  items: readonly Item[],
  octetsOf: (item: Item) => number,
  most: number,
): Item[][] {
  const parts: Item[][] = [];
  let part: Item[] = [];
  let octets = 0;
  for (const item of items) {
    const length = octetsOf(item);
    if (part.length === most || (part.length > 0 && octets + length > BATCH_BODY_LIMIT)) {
      parts.push(part);
      part = [];
      octets = 0;
    }
    part.push(item);
    octets += length;
  }
  parts.push(part);
  return parts;
}

/** All frames leave at once, so that what is asked next comes after them; the answer is that to the last. */
async function appendInFrames(
  first: number,
  leaves: readonly Uint8Array[],
  append: (first: number, leaves: readonly Uint8Array[]) => Promise<SignedHead>,
): Promise<SignedHead> {
  const limit = BATCH_BODY_LIMIT / 32;
  const answers: Promise<SignedHead>[] = [];
  for (let at = 0; at === 0 || at < leaves.length; at += limit) {
    answers.push(append(first + at, leaves.slice(at, at + limit)));
  }
  return (await Promise.all(answers)).at(-1)!;
}

function readHead({ size, root, note }: Extract<FromKeeper, { type: "head" }>): SignedHead {
  return { size, root: Buffer.from(root, "hex"), note };
}

function readStated(_: unknown, body: Uint8Array): Stated {
  return readBody("stated", body);
}

function readStatus(body: Uint8Array): KeeperStatus {
  const status: StatusBody = statusSchema.parse(JSON.parse(utf8(body)));
  const octets = (base64: string): Uint8Array => Buffer.from(base64, "base64");
  return {
    ...status,
    head:
      status.head === null ? "missing" : { size: status.head.size, root: octets(status.head.root) },
    operators: status.operators.map(({ recipient, ...operator }) => ({
      ...operator,
      ...(recipient === undefined ? {} : { recipient }),
    })),
    keys: status.keys.map(
      ({
        detail,
        pinRefused,
        certificate,
        signaturesLeft,
        list,
        epoch,
        until,
        ceremony,
        ...key
      }) => ({
        ...key,
        ...(epoch === undefined ? {} : { epoch }),
        ...(until === undefined ? {} : { until }),
        ...(ceremony === undefined ? {} : { ceremony }),
        publicKey: octets(key.publicKey),
        chain: key.chain.map(octets),
        ...(detail === undefined ? {} : { detail }),
        ...(pinRefused === undefined ? {} : { pinRefused }),
        ...(certificate === undefined ? {} : { certificate: octets(certificate) }),
        ...(signaturesLeft === undefined ? {} : { signaturesLeft }),
        ...(list === undefined ? {} : { list: { number: BigInt(list.number), crl: list.crl } }),
      }),
    ),
  };
}

/** What a request fails with when the keeper is gone; the service says 503 for both. */
function failureOf(type: ToKeeper["type"], cause: Error): Error {
  const signing = type === "sign" || type === "sign-list";
  return new CountersignError(signing ? "key-locked" : "log-unavailable", "the keeper has ended", {
    cause,
  });
}
