/**
 * The keeper: it owns the head of the log, signs checkpoints and statements, checks what people have signed, and starts
 * the processes that deal, unlock and sign (CUSTODY.md 7.1). It never holds a CA key, a PIN or a share, and takes nothing
 * from the service on trust.
 */

import { digestOf } from "../audit/digest.ts";
import { HASH_LENGTH } from "../audit/merkle.ts";
import { CountersignError } from "../errors.ts";
import { parsePolicy } from "../policy/document.ts";
import { policyDigest } from "./grant.ts";
import { readBody, writeBody } from "./keeper-bodies.ts";
import { ceremonies as keeperCeremonies } from "./keeper-ceremonies.ts";
import type { KeeperConfig } from "./keeper-config.ts";
import { deals as keeperDeals, type Dealt } from "./keeper-deals.ts";
import type { OpenKey } from "./keeper-key.ts";
import { startKeys } from "./keeper-keys.ts";
import { openKeeperLog } from "./keeper-log.ts";
import type { FromKeeper, StatusBody, ToKeeper } from "./keeper-protocol.ts";
import { rosterBook } from "./keeper-roster.ts";
import { openStateFile, type Hold } from "./keeper-state.ts";
import { unlocks as keeperUnlocks } from "./keeper-unlocks.ts";
import { base64, utf8 } from "./octet-text.ts";
import { ownNotes, type Stated } from "./own-notes.ts";
import { readLock, readPanic, readResume, type Lock, type Panic } from "./personal-statement.ts";
import { refusalOf } from "./refusal.ts";
import { requesterChain } from "./requester-chain.ts";
import { cut } from "./sign-batch.ts";
import { namespaces } from "./statement.ts";

/** A statement to lock older or newer than this is not today's. */
const LOCK_MILLISECONDS = 24 * 60 * 60 * 1000;

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
  readonly random: (size: number) => Uint8Array;
  readonly send: (message: FromKeeper, ...body: readonly Uint8Array[]) => void;
}

/**
 * Opens the head and state files and starts the signers.
 *
 * @throws CountersignError `rolled-back` if head or state file is damaged or missing beside the other;
 *   `policy-invalid`.
 */
export function createKeeper({ config, now, monotonic, random, send }: KeeperParts): Keeper {
  const { service, origin } = config;
  const notes = ownNotes(service, config.identityKey);
  const log = openKeeperLog(config.head, config.origin, config.logKey);
  const stateFile = openStateFile(config.state, log.head === undefined);
  const policy = parsePolicy(config.policy, "policy");
  const roster = rosterBook({
    genesis: config.genesis,
    stateFile,
    service: { identity: notes.verifierKey, log: log.verifierKey },
  });
  const requesters = requesterChain({
    stateFile,
    log,
    roster,
    policy,
    changed: (statements) => keys.changeRequesters(statements),
  });
  const keys = startKeys(config.keys, {
    stateFile,
    log,
    policy: config.policy,
    environment: config.tokenEnvironment,
    statements: () => requesters.statements,
    now,
    monotonic,
  });
  const ceremonies = keeperCeremonies({
    service,
    origin,
    policy: policyDigest(policy),
    roster,
    notes,
    log,
    stateFile,
    key(keyId) {
      const { sealed, config: key } = keys.of(keyId);
      return {
        sealed,
        inToken: key.token !== undefined,
        certified: key.certificate !== undefined,
      };
    },
    canMakeTokens: config.tokenModule !== undefined,
    now,
    random,
  });
  const { tokenEnvironment, tokenModule } = config;
  const deals = keeperDeals({
    tokenModule,
    tokenEnvironment,
    ceremonies,
    keys,
    notes,
    roster,
    stateFile,
  });
  const unlocks = keeperUnlocks({
    service,
    origin,
    policy: policyDigest(policy),
    tokenEnvironment,
    ceremonies,
    keys,
    log,
    notes,
    roster,
    stateFile,
    statements: () => requesters.statements,
    now,
    random,
    closed: (event) => send({ type: "closed", ...event }),
  });

  function openKey(keyId: string): OpenKey {
    log.requireHead();
    return keys.of(keyId).open();
  }

  function sign(message: ToKeeper & { type: "sign" }, body: Uint8Array): void {
    const { id, requests } = message;
    // A requester of the policy file may be one that a statement has removed. CRLs know no requesters.
    requesters.requireShown();
    const cutter = cut(body);
    const tbs = requests.map((lengths) => cutter.request(lengths).tbs);
    cutter.finish();
    const { process, count } = openKey(message.keyId);
    const settle = count(tbs);
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
    const { process, count } = openKey(keyId);
    const settle = count([tbs]);
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

  function sendHead(id: number): void {
    const { range, note } = log.feed;
    const root = Buffer.from(range.root()).toString("hex");
    send({ type: "head", id, size: range.end, root, note });
  }

  async function status(id: number): Promise<void> {
    const { head } = log;
    const { inForce } = roster;
    const { panic } = stateFile.state;
    const described = {
      service,
      origin,
      logKey: log.verifierKey,
      identityKey: notes.verifierKey,
      head: head === undefined ? null : { size: head.end, root: base64(head.root()) },
      genesis: roster.genesis,
      roster:
        inForce === undefined
          ? null
          : { version: inForce.document.version, digest: inForce.digest },
      panic: panic === null ? null : { operator: panic.operator, at: panic.at },
      operators: (inForce?.document.operators ?? []).map(
        ({ id: operator, keys: own, roles, recipient }) => ({
          id: operator,
          keys: own.flatMap((key) => (key.kind === "ssh" ? [key.key] : [])),
          roles: [...roles],
          ...(recipient === undefined ? {} : { recipient }),
        }),
      ),
      requesterSequence: stateFile.state.requesters.sequence,
      keys: await keys.status(),
    } satisfies StatusBody;
    send({ type: "status", id }, Buffer.from(JSON.stringify(described)));
  }

  /** Verifies a statement that locks. */
  function readHold<Statement extends Lock | Panic>(
    read: (octets: Uint8Array) => Statement,
    length: number,
    body: Uint8Array,
  ): { statement: Statement; by: Hold } {
    const [octets, signature] = signedStatement(length, body);
    const statement = read(octets);
    const { operator, at } = statement;
    roster.check(operator, namespaces.lock, octets, signature);
    log.checkSeen(statement.log);
    if (Math.abs(now().getTime() - Date.parse(at)) > LOCK_MILLISECONDS) {
      throw new CountersignError("statement-stale", "the statement is more than a day from now");
    }
    return { statement, by: { operator, at, statement: digestOf(octets) } };
  }

  function lock(length: number, body: Uint8Array): void {
    const { statement, by } = readHold(readLock, length, body);
    const { keyId } = statement;
    const key = keys.of(keyId);
    unlocks.endKey(keyId, "locked");
    deals.end(keyId);
    key.lock(by);
  }

  function panic(length: number, body: Uint8Array): void {
    const { statement, by } = readHold(readPanic, length, body);
    if (statement.service !== service) {
      throw new CountersignError("statement-stale", "the statement is for another service");
    }
    unlocks.endAll("panic");
    deals.end();
    for (const key of keys.all) key.endSigner();
    // Only now what makes it last. If that fails, nothing starts all the same before the keeper does.
    stateFile.change((state) => {
      if (state.panic !== null) return;
      state.panic = by;
      state.resumes = {};
    });
  }

  function resume({ note, approvals, plan }: ReturnType<typeof readBody<"resume">>): void {
    if (ceremonies.isDone(notes.open(note).digest)) return;
    const ceremony = ceremonies.read(note, "resume");
    if (digestOf(plan) !== ceremony.statement.plan) {
      throw new CountersignError("ceremony-refused", "this is not what was agreed to release");
    }
    const { release } = readResume(plan);
    // People agreed to let go what they knew of, and not what somebody has locked since.
    if (stateFile.state.resumes[ceremony.digest] === undefined) {
      throw new CountersignError(
        "ceremony-refused",
        "something was locked after this was proposed: propose the resume again",
      );
    }
    ceremonies.requireVotes(ceremony, approvals, {});
    ceremonies.finish(ceremony, (state) => {
      if (release === "all") {
        state.panic = null;
        state.held = {};
      } else {
        for (const keyId of release) delete state.held[keyId];
      }
    });
    for (const key of keys.all) key.start();
  }

  function addRoster({ version }: ReturnType<typeof readBody<"roster">>): void {
    const known = roster.inForce?.digest === digestOf(version.document);
    // What the chain cannot say: that it is not too late for it.
    if (!known && version.ceremony !== undefined) ceremonies.read(version.ceremony.note, "roster");
    roster.add(version);
  }

  function sendStated(id: number, stated: Stated): void {
    send({ type: "stated", id }, writeBody("stated", stated));
  }

  function sendOpened(id: number, dealt?: Dealt): void {
    send({ type: "opened", id }, ...(dealt === undefined ? [] : [writeBody("opened", dealt)]));
  }

  /** Answers when some work is done that takes longer than a turn. */
  function later<Result>(
    id: number,
    work: Promise<Result>,
    answerWith: (result: Result) => void,
  ): void {
    work.then(answerWith, (error: unknown) => send({ type: "refused", id, ...refusalOf(error) }));
  }

  /** Answers one message; what it throws is the refusal. */
  function answer(message: ToKeeper, body: Uint8Array): void {
    const { id } = message;
    switch (message.type) {
      case "status":
        void status(id);
        return;
      case "initialise":
        log.initialise(stateFile);
        sendHead(id);
        return;
      case "append":
        log.append(message.first, body);
        sendHead(id);
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
        const [statement, signature] = signedStatement(message.statement, body);
        requesters.change(statement.slice(), signature);
        send({ type: "done", id });
        return;
      }
      case "requesters":
        requesters.show(message.statements, body, message.last);
        send({ type: "done", id });
        return;
      case "lock":
        lock(message.statement, body);
        send({ type: "done", id });
        return;
      case "panic":
        panic(message.statement, body);
        send({ type: "done", id });
        return;
      case "resume":
        resume(readBody("resume", body));
        send({ type: "done", id });
        return;
      case "rosters":
        roster.show(readBody("rosters", body).versions);
        send({ type: "done", id });
        return;
      case "roster":
        addRoster(readBody("roster", body));
        send({ type: "done", id });
        return;
      case "statement":
        sendStated(id, ceremonies.state(readBody("statement", body)));
        return;
      case "activate": {
        const { shareSet, confirmations } = readBody("activate", body);
        deals.activate(shareSet, confirmations);
        send({ type: "done", id });
        return;
      }
      case "end-unlock":
        unlocks.end(message.unlock);
        send({ type: "done", id });
        return;
      case "unlock":
        later(id, unlocks.unlock(readBody("unlock", body)), (stated) => sendStated(id, stated));
        return;
      case "submit": {
        const { unlock, submission, share } = readBody("submit", body);
        later(id, unlocks.submit(unlock, submission, share), ({ given, missing }) =>
          send({ type: "gathered", id, given: [...given], missing }),
        );
        return;
      }
      case "open":
        later(id, unlocks.open(readBody("open", body)), (dealt) => sendOpened(id, dealt));
        return;
      case "deal":
        later(id, deals.deal(readBody("deal", body)), (dealt) => sendOpened(id, dealt));
        return;
      case "commit":
        later(id, deals.commit(message.ceremony), () => send({ type: "done", id }));
    }
  }

  return {
    ready: keys.ready,
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
      unlocks.stop();
      deals.end();
      keys.stop();
      log.close();
    },
  };
}

/** A statement and, behind it in the body, its armored signature. */
function signedStatement(length: number, body: Uint8Array): [Uint8Array, string] {
  return [cut(body).take(length), utf8(body.subarray(length))];
}
