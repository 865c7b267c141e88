/**
 * The keeper: it owns the head of the log, signs checkpoints, checks what operators have signed, and starts a signer
 * for each key (CUSTODY.md 7.1). It never holds a CA key or a PIN, and takes nothing from the service on trust.
 */

import { digestOf } from "../audit/digest.ts";
import { HASH_LENGTH } from "../audit/merkle.ts";
import { noteSigner } from "../audit/signed-note.ts";
import { parsePolicy } from "../policy/document.ts";
import type { KeeperConfig } from "./keeper-config.ts";
import type { OpenKey } from "./keeper-key.ts";
import { startKeys } from "./keeper-keys.ts";
import { openKeeperLog } from "./keeper-log.ts";
import type { FromKeeper, StatusBody, ToKeeper } from "./keeper-protocol.ts";
import { openStateFile } from "./keeper-state.ts";
import { verifyLock } from "./lock-statement.ts";
import { base64, utf8 } from "./octet-text.ts";
import { refusalOf } from "./refusal.ts";
import { requesterChain } from "./requester-chain.ts";
import { cut } from "./sign-batch.ts";

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

/**
 * Opens the head and state files and starts the signers.
 *
 * @throws CountersignError `rolled-back` if head or state file is damaged or missing beside the other;
 *   `policy-invalid`.
 */
export function createKeeper({ config, now, monotonic, send }: KeeperParts): Keeper {
  const { operators } = config;
  const identity = noteSigner(`${config.service}/keeper`, config.identityKey);
  const log = openKeeperLog(config.head, config.origin, config.logKey);
  const stateFile = openStateFile(config.state, log.head === undefined);
  const requesters = requesterChain({
    stateFile,
    log,
    operators,
    policy: parsePolicy(config.policy, "policy"),
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

  function openKey(keyId: string): OpenKey {
    log.requireHead();
    return keys.open(keyId);
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
    const described = {
      service: config.service,
      origin: config.origin,
      logKey: log.verifierKey,
      identityKey: identity.verifierKey.text,
      head: head === undefined ? null : { size: head.end, root: base64(head.root()) },
      operators: operators.map((operator) => ({ id: operator.id, keys: [...operator.keys] })),
      requesterSequence: stateFile.state.requesters.sequence,
      keys: await keys.status(),
    } satisfies StatusBody;
    send({ type: "status", id }, Buffer.from(JSON.stringify(described)));
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
      case "lock": {
        const [statement, signature] = signedStatement(message.statement, body);
        const { keyId, by } = verifyLock(statement, signature, { operators, log, now: now() });
        keys.hold(keyId, by);
        send({ type: "done", id });
      }
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
      keys.stop();
      log.close();
    },
  };
}

/** A statement and, behind it in the body, its armored signature. */
function signedStatement(length: number, body: Uint8Array): [Uint8Array, string] {
  return [cut(body).take(length), utf8(body.subarray(length))];
}
