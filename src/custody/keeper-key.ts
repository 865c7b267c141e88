/**
 * One key of the keeper's configuration: its signer's life, whether it is held or sealed, and what is known of it now. A
 * standing signer starts by itself and again when it dies; what shares have opened is there once, until it ends.
 */

import { CountersignError } from "../errors.ts";
import { parseCertificate } from "../x509/certificate.ts";
import { spkiDigest } from "../x509/public-key.ts";
import { isStanding, type Operation } from "./grant.ts";
import type { KeyConfig } from "./keeper-config.ts";
import type { KeeperLog } from "./keeper-log.ts";
import type { StatusBody } from "./keeper-protocol.ts";
import type { Hold, StateFile } from "./keeper-state.ts";
import { base64 } from "./octet-text.ts";
import type { OpenedSigner } from "./opened-signer.ts";
import { pinTries, type PinTries } from "./pin-tries.ts";
import type { Refusal } from "./refusal.ts";
import { signatureCount, type Settle, type SignatureCount } from "./signature-count.ts";
import { superviseSigner, type SignerProcess } from "./signer-process.ts";
import type { Opening } from "./signer-protocol.ts";

/** How long the answer to `status` waits for a signer's. */
const STATUS_MILLISECONDS = 2_000;

/** What shares have opened, and for what. */
export interface Opened {
  readonly signer: OpenedSigner;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array;
  /** Digests of the statements. */
  readonly unlock: string;
  readonly ceremony: string;
  /** Of a window: what it allows, and when. */
  readonly window?: {
    readonly operations: readonly Operation[];
    readonly notBefore: Date;
    readonly notAfter: Date;
    readonly policy: string;
  };
}

export interface Key {
  readonly config: KeyConfig;
  /** Known from the configuration, or when the token has opened. */
  readonly keyId: string | undefined;
  /** Whether it opens with shares only. */
  readonly sealed: boolean;
  /** Whether it has opened or failed. */
  readonly reported: boolean;
  /** Signatures that the key's hour has counted, where it was asked for. */
  readonly spent: number | undefined;
  /** What shares have opened, while it lasts. */
  readonly opened: Opened | undefined;
  /** Starts the signer of a standing grant, unless the key is held or sealed. */
  start(): void;
  /** @throws CountersignError, if the key is not open, that says why. */
  open(): OpenKey;
  /** Ends the signer at once, and lets none of a standing grant start from now on. */
  lock(by: Hold): void;
  /** Ends the signer at once, for what the state file says from now on. */
  endSigner(): void;
  /** From now on what shares have opened signs. */
  admit(opened: Opened): void;
  changeRequesters(statements: readonly Uint8Array[]): void;
  /** What a signer is told of the key, but for its secret and what it may sign. */
  described(): KeyDescription;
  status(): Promise<StatusBody["keys"][number]>;
  /** Ends the signer at once. */
  kill(): void;
}

export type KeyDescription = Pick<
  Opening,
  "issuer" | "policy" | "certificate" | "chain" | "caKeys" | "logKey" | "head" | "list"
>;

export interface OpenKey {
  readonly process: Pick<SignerProcess, "sign" | "signList" | "state" | "restart">;
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
  const { issuer, token, standing, certificate, chain } = config;
  const { stateFile, log } = parts;
  const pins: PinTries | undefined = standing && pinTries(issuer, standing.pinFile, stateFile);
  const signatures: SignatureCount | undefined = standing && signatureCount(standing.grant, parts);
  let publicKey = certificate && parseCertificate(certificate).tbs.subjectPublicKeyInfo;
  let keyId = config.keyId;
  let process: SignerProcess | undefined;
  let opened: Opened | undefined;
  /** Why there is no process. */
  let failure: Error | undefined;
  let reported = false;

  function settled(): void {
    reported = true;
    report();
  }

  function described(): KeyDescription {
    const { feed } = log;
    const list = keyId === undefined ? undefined : stateFile.state.lists[keyId];
    const crl = keyId === undefined ? undefined : stateFile.readList(keyId);
    return {
      issuer,
      policy: parts.policy,
      certificate: certificate === undefined ? null : base64(certificate),
      chain: chain.map(base64),
      caKeys: parts.caKeys,
      logKey: log.verifierKey,
      head: feed.range.end === 0 ? null : { note: feed.note, nodes: feed.range.nodes.map(base64) },
      list: list === undefined || crl === undefined ? null : { ...list, der: base64(crl) },
    };
  }

  function opening(): Opening {
    const { pinFile, grant } = standing!;
    const reason = closed();
    if (reason !== undefined) throw reason;
    pins!.check();
    const description = described();
    pins!.begin();
    return {
      ...description,
      ...token!,
      pinFile,
      grant,
      alreadySigned: keyId === undefined ? 0 : signatures!.alreadySigned(keyId),
      usedDigests: (keyId && stateFile.state.digests[keyId]) || [],
    };
  }

  function onOpened(spki: Uint8Array): void {
    const first = keyId === undefined;
    publicKey = spki;
    keyId = spkiDigest(spki);
    pins!.accepted();
    if (isHeld() || isSealed()) {
      endSigner();
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
    pins!.failed(code);
    settled();
  }

  function isHeld(): boolean {
    const { held, panic } = stateFile.state;
    return panic !== null || (keyId !== undefined && held[keyId] !== undefined);
  }

  function isSealed(): boolean {
    return (
      standing === undefined || (keyId !== undefined && stateFile.state.seals[keyId] !== undefined)
    );
  }

  /** Why it does not open now, if the state file says so. */
  function closed(): CountersignError | undefined {
    if (stateFile.state.panic !== null) {
      return new CountersignError("key-held", "an operator has locked every key");
    }
    if (isHeld()) return new CountersignError("key-held", "an operator has locked this key");
    if (isSealed()) {
      return new CountersignError("key-locked", "the key is sealed: it opens with shares");
    }
    return undefined;
  }

  function endSigner(): void {
    process?.kill();
    process = undefined;
    opened?.signer.kill();
    opened = undefined;
    failure = undefined;
    settled();
  }

  function start(): void {
    if (process !== undefined) return;
    failure = undefined;
    if (closed() !== undefined) {
      settled();
      return;
    }
    try {
      pins!.check();
    } catch (error) {
      failure = error as Error;
      settled();
      return;
    }
    process = superviseSigner({
      pinFile: standing!.pinFile,
      environment: parts.environment,
      log: log.feed,
      opening,
      statements: parts.statements,
      onOpened,
      onFailed,
      onEnded() {
        // One whose PIN was sealed while it had its token open was the last.
        if (closed() === undefined) settled();
        else endSigner();
      },
    });
  }

  return {
    config,
    get keyId() {
      return keyId;
    },
    get sealed() {
      return isSealed();
    },
    get reported() {
      return reported;
    },
    get spent() {
      return signatures?.spent;
    },
    get opened() {
      return opened;
    },
    start,
    open() {
      if (opened !== undefined) {
        const { signer } = opened;
        return { process: asProcess(signer), count: () => () => {} };
      }
      if (process?.state !== "open") {
        throw (
          closed() ??
          failure ??
          process?.failure ??
          new CountersignError("key-locked", "the key is being opened")
        );
      }
      const id = keyId!; // an open one has told it
      return { process, count: (tbs) => signatures!.count(id, tbs) };
    },
    lock(by) {
      const wasSealed = isSealed();
      endSigner(); // first of all; only then what makes it last
      if (wasSealed) return;
      stateFile.change((state) => {
        if (state.held[keyId!] !== undefined) return;
        state.held[keyId!] = by;
        state.resumes = {};
      });
    },
    endSigner,
    admit(next) {
      opened = next;
      publicKey = next.publicKey;
      void next.signer.ended.then(() => {
        if (opened !== next) return;
        opened = undefined;
        start(); // one without a seal is what it was
      });
    },
    changeRequesters(statements) {
      process?.changeRequesters(statements);
      opened?.signer.changeRequesters(statements);
    },
    described,
    async status() {
      const { state } = stateFile;
      const list = keyId === undefined ? undefined : state.lists[keyId];
      let signaturesLeft: number | undefined;
      let trouble = closed() ?? failure ?? process?.failure;
      if (opened !== undefined || process?.state === "open") {
        try {
          signaturesLeft = await answerWithin((opened?.signer ?? process!).signaturesLeft());
          trouble = undefined;
        } catch (error) {
          trouble = closed() ?? failure ?? (error as Error);
        }
      }
      const now = signaturesLeft === undefined ? undefined : opened;
      const { window } = now ?? {};
      const seal = keyId === undefined ? undefined : state.seals[keyId];
      const grant = standing?.grant;
      return {
        keyId: keyId ?? "",
        issuer,
        state: isHeld()
          ? "held"
          : signaturesLeft !== undefined
            ? "open"
            : trouble === undefined || isSealed()
              ? "locked"
              : "unavailable",
        custody: isSealed() ? "sealed" : "token",
        ...(seal === undefined ? {} : { epoch: seal.epoch }),
        operations:
          signaturesLeft === undefined
            ? []
            : now !== undefined
              ? window !== undefined && isWithin(window, parts.now())
                ? [...window.operations]
                : []
              : grant !== undefined && isStanding(grant)
                ? [...grant.operations]
                : [],
        ...(window === undefined ? {} : { until: window.notAfter.toISOString() }),
        ...(now === undefined ? {} : { ceremony: now.ceremony }),
        // It is shown to anybody who asks whether the service is ready.
        ...(trouble === undefined
          ? {}
          : { detail: trouble instanceof CountersignError ? trouble.message : "internal" }),
        ...(pins?.refused() === true ? { pinRefused: true } : {}),
        publicKey: publicKey === undefined ? "" : base64(publicKey),
        ...(certificate === undefined ? {} : { certificate: base64(certificate) }),
        chain: chain.map(base64),
        ...(signaturesLeft === undefined ? {} : { signaturesLeft }),
        grantedPolicy:
          window?.policy ?? (grant !== undefined && isStanding(grant) ? grant.policy : ""),
        ...(list === undefined ? {} : { list }),
      };
    },
    kill() {
      process?.kill();
      opened?.signer.kill();
    },
  };
}

function isWithin({ notBefore, notAfter }: NonNullable<Opened["window"]>, at: Date): boolean {
  return notBefore <= at && at < notAfter;
}

/** What has one life: where another one would be started anew, it ends. */
function asProcess(signer: OpenedSigner): OpenKey["process"] {
  return {
    sign: (...request) => signer.sign(...request),
    signList: (...request) => signer.signList(...request),
    get state() {
      return signer.state === "open" ? "open" : "stopped";
    },
    restart: () => signer.kill(),
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
