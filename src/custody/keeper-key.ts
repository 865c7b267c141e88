/** One key of the keeper's configuration: its signer's life, whether it is held, and what is known of it now. */

import { CountersignError } from "../errors.ts";
import { parseCertificate } from "../x509/certificate.ts";
import { spkiDigest } from "../x509/public-key.ts";
import { isStanding } from "./grant.ts";
import type { KeyConfig } from "./keeper-config.ts";
import type { KeeperLog } from "./keeper-log.ts";
import type { StatusBody } from "./keeper-protocol.ts";
import type { KeeperState, StateFile } from "./keeper-state.ts";
import { base64 } from "./octet-text.ts";
import { pinTries } from "./pin-tries.ts";
import type { Refusal } from "./refusal.ts";
import { signatureCount, type Settle } from "./signature-count.ts";
import { superviseSigner, type SignerProcess } from "./signer-process.ts";

/** How long the answer to `status` waits for a signer's. */
const STATUS_MILLISECONDS = 2_000;

/** By whom a key is held, since when, and the digest of the statement that says so. */
export type Hold = KeeperState["held"][string];

export interface Key {
  /** Known from the certificate, or when the token has opened. */
  readonly keyId: string | undefined;
  /** Whether it has opened or failed. */
  readonly reported: boolean;
  /** Signatures that the key's hour has counted, where it was asked for. */
  readonly spent: number | undefined;
  start(): void;
  /** @throws CountersignError, if the key is not open, that says why. */
  open(): OpenKey;
  /** Ends the signer at once, and lets none start from now on. */
  hold(by: Hold): void;
  changeRequesters(statements: readonly Uint8Array[]): void;
  status(): Promise<StatusBody["keys"][number]>;
  /** Ends the signer at once. */
  kill(): void;
}

export interface OpenKey {
  readonly process: SignerProcess;
  /** Counts on the disk what the signer is about to count in its memory: see signature-count.ts. */
  readonly count: (tbs: readonly Uint8Array[]) => Settle;
}

export interface KeyParts {
  readonly stateFile: StateFile;
  readonly log: Pick<KeeperLog, "feed" | "verifierKey">;
  /** The policy document, as text. */
  readonly policy: string;
  /** SHA-256 of the SubjectPublicKeyInfo of the CA keys of this installation, hex. */
  readonly caKeys: string[];
  /** All of a signer's environment. */
  readonly environment: Readonly<Record<string, string>>;
  /** The statements about requesters so far, canonical JSON. */
  readonly statements: () => readonly Uint8Array[];
  readonly now: () => Date;
  /** Seconds on a clock that nobody sets. */
  readonly monotonic: () => number;
}

/** @param report - Is told that the key has opened or failed, perhaps not for the first time. */
export function createKey(config: KeyConfig, parts: KeyParts, report: () => void): Key {
  const { issuer, module, uri, pinFile, grant, certificate, chain } = config;
  const { stateFile, log } = parts;
  const pins = pinTries(issuer, pinFile, stateFile);
  const signatures = signatureCount(grant, parts);
  let publicKey = certificate && parseCertificate(certificate).tbs.subjectPublicKeyInfo;
  let keyId = publicKey && spkiDigest(publicKey);
  let process: SignerProcess | undefined;
  /** Why there is no process. */
  let failure: Error | undefined;
  let reported = false;

  function settled(): void {
    reported = true;
    report();
  }

  function opening(): ReturnType<Parameters<typeof superviseSigner>[0]["opening"]> {
    pins.check();
    const { state } = stateFile;
    const { feed } = log;
    const list = keyId === undefined ? undefined : state.lists[keyId];
    const crl = keyId === undefined ? undefined : stateFile.readList(keyId);
    pins.begin();
    return {
      issuer,
      module,
      uri,
      pinFile,
      grant,
      alreadySigned: keyId === undefined ? 0 : signatures.alreadySigned(keyId),
      usedDigests: (keyId && state.digests[keyId]) || [],
      policy: parts.policy,
      certificate: certificate === undefined ? null : base64(certificate),
      chain: chain.map(base64),
      caKeys: parts.caKeys,
      logKey: log.verifierKey,
      head: feed.range.end === 0 ? null : { note: feed.note, nodes: feed.range.nodes.map(base64) },
      list: list === undefined || crl === undefined ? null : { ...list, der: base64(crl) },
    };
  }

  function onOpened(opened: Uint8Array): void {
    const first = keyId === undefined;
    publicKey = opened;
    keyId = spkiDigest(opened);
    pins.accepted();
    if (isHeld()) {
      endHeld();
      return;
    }
    // Which digests are used up, and the last CRL, could not be told before the key was known.
    const { digests, lists } = stateFile.state;
    if (first && (digests[keyId] !== undefined || lists[keyId] !== undefined)) {
      process?.restart();
      return;
    }
    settled();
  }

  function onFailed({ code }: Refusal): void {
    pins.failed(code);
    settled();
  }

  function isHeld(): boolean {
    return keyId !== undefined && stateFile.state.held[keyId] !== undefined;
  }

  function endHeld(): void {
    process?.kill();
    failure = new CountersignError("key-held", "an operator has locked this key");
    settled();
  }

  return {
    get keyId() {
      return keyId;
    },
    get reported() {
      return reported;
    },
    get spent() {
      return signatures.spent;
    },
    start() {
      if (isHeld()) {
        endHeld();
        return;
      }
      try {
        pins.check();
      } catch (error) {
        failure = error as Error;
        settled();
        return;
      }
      process = superviseSigner({
        pinFile,
        environment: parts.environment,
        log: log.feed,
        opening,
        statements: parts.statements,
        onOpened,
        onFailed,
        onEnded: settled,
      });
    },
    open() {
      if (failure !== undefined) throw failure;
      if (process?.state !== "open") {
        throw process?.failure ?? new CountersignError("key-locked", "the key is being opened");
      }
      const id = keyId!; // an open one has told it
      return { process, count: (tbs) => signatures.count(id, tbs) };
    },
    hold(by) {
      process?.kill(); // first of all; only then what makes it last
      stateFile.change(({ held }) => {
        held[keyId!] ??= by;
      });
      endHeld();
    },
    changeRequesters(statements) {
      process?.changeRequesters(statements);
    },
    async status() {
      const list = keyId === undefined ? undefined : stateFile.state.lists[keyId];
      let signaturesLeft: number | undefined;
      let trouble = failure ?? process?.failure;
      if (process?.state === "open") {
        try {
          signaturesLeft = await answerWithin(process.signaturesLeft());
        } catch (error) {
          trouble = failure ?? (error as Error);
        }
      }
      return {
        keyId: keyId ?? "",
        issuer,
        state: isHeld()
          ? "held"
          : signaturesLeft !== undefined
            ? "open"
            : trouble === undefined
              ? "locked"
              : "unavailable",
        // It is shown to anybody who asks whether the service is ready.
        ...(trouble === undefined
          ? {}
          : { detail: trouble instanceof CountersignError ? trouble.message : "internal" }),
        publicKey: publicKey === undefined ? "" : base64(publicKey),
        ...(certificate === undefined ? {} : { certificate: base64(certificate) }),
        chain: chain.map(base64),
        ...(signaturesLeft === undefined ? {} : { signaturesLeft }),
        grantedPolicy: isStanding(grant) ? grant.policy : "",
        ...(list === undefined ? {} : { list }),
      };
    },
    kill() {
      process?.kill();
    },
  };
}

/** @throws CountersignError `token-unavailable` if there is none in time: the answer, when it comes, is nobody's. */
async function answerWithin<Answer>(answer: Promise<Answer>): Promise<Answer> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new CountersignError("token-unavailable", "the signer does not answer")),
      STATUS_MILLISECONDS,
    );
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
