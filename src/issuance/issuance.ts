/** One certificate from request to record: DESIGN "An issuance, as data sees it". */

import { hash } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import { digestOf } from "../audit/digest.ts";
import { encodeEntry, entryText, type LogEntryOf } from "../audit/entry.ts";
import { CountersignError } from "../errors.ts";
import { refusal } from "../gate/gate.ts";
import { decide, refusalError, type CompiledPolicy } from "../policy/decide.ts";
import type { Profile } from "../policy/document.ts";
import { addLifetime, formatLifetime, parseLifetime } from "../policy/lifetime.ts";
import { canonicalNames } from "../policy/name.ts";
import { buildTbsCertificate } from "../x509/certificate-template.ts";
import {
  readCertificationRequest,
  verifyCertificationRequest,
} from "../x509/certification-request.ts";
import { nameText } from "../x509/name.ts";
import { spkiDigest, type PublicKeyInfo } from "../x509/public-key.ts";
import { SERIAL_NUMBER_OCTETS, serialNumberFrom } from "../x509/serial-number.ts";
import { assembleSigned } from "../x509/signed.ts";
import { actorOf, requireRequester, type Caller } from "./caller.ts";
import type { Issuer, IssuerSet } from "./issuer.ts";
import type { CertificateRow, Journal, JournalItem } from "./journal.ts";
import type { Signing } from "./keeper.ts";
import type { Reads, StoredCertificate } from "./records.ts";
import { requestedNames } from "./requested-names.ts";
import { takeTurns } from "./turns.ts";

export interface IssueCommand {
  readonly caller: Caller;
  readonly issuer: string;
  readonly profile: string;
  /** PKCS#10, DER or PEM. */
  readonly csr: Uint8Array | string;
  /** As people write it, `90d`; the profile's default when absent. */
  readonly lifetime?: string;
  readonly idempotency?: {
    readonly key: string;
    /** SHA-256 of what is asked: the same key with another question is refused. */
    readonly bodySha256: Uint8Array;
  };
  readonly requestId: string;
}

export interface IssuedAnswer {
  readonly issuer: string;
  /** Lower-case hex of the content octets. */
  readonly serialNumber: string;
  /** DER. */
  readonly certificate: Uint8Array;
  /** DER; the issuer first, the root last. */
  readonly chain: readonly Uint8Array[];
  /** Index of sign.done in the log. */
  readonly logIndex: number;
  /** Index of sign.intent in the log. */
  readonly intentIndex: number;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** SHA-256 of the certificate, `sha256:` and 64 hex digits. */
  readonly sha256: string;
  /** Whether this answer was given before, under the same Idempotency-Key. */
  readonly replayed: boolean;
}

export interface Issuance {
  /**
   * @throws CountersignError with the code of what was refused; everything but the key's and the log's own
   *   trouble leaves nothing behind but a `sign.refused` record.
   */
  issue(command: IssueCommand): Promise<IssuedAnswer>;
}

export interface IssuanceParts {
  readonly issuers: IssuerSet;
  readonly policy: CompiledPolicy;
  /** Of the policy's frame, `sha256:` and 64 hex digits. */
  readonly policyDigest: string;
  readonly journal: Journal;
  readonly reads: Reads;
  readonly keeper: Signing;
  readonly now: () => Date;
  readonly random: (size: number) => Uint8Array;
  /** Called when an intent has no result or its result is not recorded; for the service's own log. */
  readonly abandoned: (error: unknown) => void;
}

/** How long the answer of an Idempotency-Key is kept. */
export const IDEMPOTENCY_MILLISECONDS = 24 * 3_600_000;

/** When a result that could not be written is tried again. */
const RECORD_AGAIN_MILLISECONDS = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000];

/** Requests that are prepared, at some 0.4 ms each, before the answers of disk and signer are looked at again. */
const PREPARED_AT_ONCE = 5;

/** Serial numbers that one call of the random source is for; that call costs as much as building a certificate. */
const SERIAL_NUMBERS_AT_ONCE = 16;

export function createIssuance(parts: IssuanceParts): Issuance {
  const turn = takeTurns(PREPARED_AT_ONCE);
  const newSerialNumber = serialNumbers(parts.random);
  const inFlight = new Map<string, { body: Buffer; answer: Promise<IssuedAnswer> }>();
  /** Results that are not on disk, by their intent's index, and the attempt to write each that is under way. */
  const unrecorded = new Map<number, { done: Done; attempt: Promise<number> | undefined }>();

  /** One answer for each key of each requester: RFC draft httpapi-idempotency-key-header §2. */
  async function once(
    command: IssueCommand,
    { key, bodySha256 }: NonNullable<IssueCommand["idempotency"]>,
  ): Promise<IssuedAnswer> {
    const scope = `${command.caller.id} ${key}`;
    const body = Buffer.from(bodySha256);
    for (let running = inFlight.get(scope); running; running = inFlight.get(scope)) {
      if (running.body.equals(body)) return { ...(await running.answer), replayed: true };
      // Which of two questions the key stands for is known when the one under way has its answer, or none.
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await running.answer.catch(() => {});
    }
    const answer = replayOrIssue(command, key, body);
    inFlight.set(scope, { body, answer });
    try {
      return await answer;
    } finally {
      inFlight.delete(scope);
    }
  }

  async function replayOrIssue(
    command: IssueCommand,
    key: string,
    body: Buffer,
  ): Promise<IssuedAnswer> {
    const since = new Date(parts.now().getTime() - IDEMPOTENCY_MILLISECONDS);
    const kept = await parts.reads.idempotency(command.caller.id, key, since);
    if (kept !== undefined) {
      if (!body.equals(kept.bodySha256)) {
        const error = reused();
        await parts.journal.append({ kind: "entry", leaf: refusedEntry(command, error) });
        throw error;
      }
      let row = kept.certificate;
      if (row.state === "pending") {
        if (unrecorded.has(row.index)) await record(row.index);
        row = (await parts.reads.certificate(row.issuer, row.serialNumber)) ?? row;
      }
      // An intent that never got its result (a crash) is made anew, with a new serial number.
      if (row.state === "issued") return answerFrom(row, parts.issuers.find(row.issuer), true);
    }
    return issueAnew(command);
  }

  /** Writes a result that is not on disk yet; one attempt at a time. */
  function record(intentIndex: number): Promise<number> {
    const waiting = unrecorded.get(intentIndex)!;
    waiting.attempt ??= parts.journal
      .append(waiting.done)
      .then((logIndex) => {
        unrecorded.delete(intentIndex);
        return logIndex;
      })
      .finally(() => {
        waiting.attempt = undefined;
      });
    return waiting.attempt;
  }

  async function recordLater(intentIndex: number): Promise<void> {
    for (const pause of RECORD_AGAIN_MILLISECONDS) {
      await setTimeout(pause, undefined, { ref: false });
      if (!unrecorded.has(intentIndex)) return;
      try {
        await record(intentIndex);
        return;
      } catch (error) {
        parts.abandoned(error);
      }
    }
  }

  async function issueAnew(command: IssueCommand): Promise<IssuedAnswer> {
    const { requester } = requireRequester(command.caller);
    await turn();
    try {
      const issuer = parts.issuers.find(command.issuer);
      return await sign(
        command,
        issuer,
        prepare(parts, command, issuer, requester.name, newSerialNumber()),
      );
    } catch (error) {
      if (error instanceof CountersignError && !(error instanceof SigningFailure)) {
        await parts.journal.append({ kind: "entry", leaf: refusedEntry(command, error) });
      }
      throw error instanceof SigningFailure ? error.failure : error;
    }
  }

  async function sign(
    command: IssueCommand,
    issuer: Issuer,
    prepared: Prepared,
  ): Promise<IssuedAnswer> {
    const subject = {
      issuer: issuer.id,
      keyId: issuer.keyId,
      serialNumber: prepared.row.serialNumber,
    };
    // 1. The intent is on disk before the key is used. A crash here burns the serial number, visibly.
    const intentIndex = await parts.journal
      .append({ kind: "certificate-intent", leaf: prepared.intent, row: prepared.row })
      .catch(failed);
    // 2. The signer demands the logged intent, checks the TBS again and signs. A crash here may leave a
    //    signature nobody has; the intent names it, and it can be revoked by its serial number.
    let signature: Uint8Array;
    try {
      signature = await parts.keeper.sign({
        keyId: issuer.keyId,
        operation: "certificate",
        intentIndex,
        intent: prepared.intent,
        tbs: prepared.tbs,
      });
    } catch (error) {
      await abandon(command, subject, intentIndex, error);
      throw new SigningFailure(error);
    }
    const certificate = assembleSigned(prepared.tbs, issuer.algorithm.identifier, signature);
    // 3. The result is on disk before anybody receives it. A crash here loses an answer, no record. Where it cannot be
    //    written (a full disk) nobody receives it either; it is tried again for a minute, and by every repetition of
    //    the request under its Idempotency-Key, which then gets this certificate. After that the intent stays
    //    pending, and the next start closes it as abandoned.
    const sha256 = digestOf(certificate);
    const done: Done = {
      kind: "certificate-done",
      leaf: encodeEntry({
        type: "sign.done",
        at: parts.now(),
        actor: actorOf(command.caller),
        subject,
        data: { intent: intentIndex, certificate: sha256 },
      }),
      intentIndex,
      certificate,
    };
    const logIndex = await parts.journal.append(done).catch((error: unknown) => {
      unrecorded.set(intentIndex, { done, attempt: undefined });
      void recordLater(intentIndex);
      return failed(error);
    });
    return {
      issuer: issuer.id,
      serialNumber: prepared.row.serialNumber,
      certificate,
      chain: [issuer.certificate, ...issuer.chain],
      logIndex,
      intentIndex,
      notBefore: prepared.row.notBefore,
      notAfter: prepared.row.notAfter,
      sha256,
      replayed: false,
    };
  }

  /** Closes an intent that the signer did not honour, so that the log says so at once. */
  async function abandon(
    command: IssueCommand,
    subject: LogEntryOf<"sign.abandoned">["subject"],
    intentIndex: number,
    error: unknown,
  ): Promise<void> {
    parts.abandoned(error);
    await parts.journal
      .append({
        kind: "certificate-abandoned",
        leaf: encodeEntry({
          type: "sign.abandoned",
          at: parts.now(),
          actor: actorOf(command.caller),
          subject,
          data: {
            intent: intentIndex,
            reason: error instanceof CountersignError ? error.code : "internal",
          },
        }),
        intentIndex,
      })
      // The start-up sweep closes what could not be closed here; the first failure is the one to report.
      .catch(parts.abandoned);
  }

  function refusedEntry(command: IssueCommand, error: CountersignError): Uint8Array {
    const { rule, name } = error.members as { rule?: unknown; name?: unknown };
    const issuer = [...parts.issuers.all()].find(({ id }) => id === command.issuer);
    return encodeEntry({
      type: "sign.refused",
      at: parts.now(),
      actor: actorOf(command.caller),
      subject: {
        issuer: entryText(command.issuer),
        ...(issuer === undefined ? {} : { keyId: issuer.keyId }),
      },
      data: {
        code: error.code,
        ...(typeof rule === "string" ? { rule: entryText(rule) } : {}),
        ...(typeof name === "string" ? { name: entryText(name) } : {}),
      },
    });
  }

  return {
    async issue(command) {
      // First of all: kept answers are a requester's, and nobody else is ever given one.
      requireRequester(command.caller);
      return command.idempotency === undefined
        ? issueAnew(command)
        : once(command, command.idempotency);
    },
  };
}

type Done = Extract<JournalItem, { kind: "certificate-done" }>;

/** Keeps the failure of a key or the log apart from a refusal of the request. */
class SigningFailure extends Error {
  readonly failure: unknown;

  constructor(failure: unknown) {
    super("signing failed");
    this.failure = failure;
  }
}

function failed(error: unknown): never {
  throw new SigningFailure(error);
}

interface Prepared {
  readonly tbs: Uint8Array;
  /** Leaf bytes of the sign.intent record. */
  readonly intent: Uint8Array;
  readonly row: CertificateRow;
}

/** Draws for several at once, and gives each to one certificate. */
function serialNumbers(random: (size: number) => Uint8Array): () => Uint8Array {
  let drawn = new Uint8Array(0);
  return () => {
    if (drawn.length === 0)
      drawn = Uint8Array.from(random(SERIAL_NUMBERS_AT_ONCE * SERIAL_NUMBER_OCTETS));
    const octets = drawn.subarray(0, SERIAL_NUMBER_OCTETS);
    drawn = drawn.subarray(SERIAL_NUMBER_OCTETS);
    return serialNumberFrom(octets);
  };
}

/** Everything before the intent: reads, decides and builds; touches neither key nor database. */
function prepare(
  parts: IssuanceParts,
  command: IssueCommand,
  issuer: Issuer,
  requester: string,
  serialNumber: Uint8Array,
): Prepared {
  const { policy } = parts;
  // Whether this requester may ask here at all is said before its CSR is looked at.
  const asking = { issuer: issuer.id, profile: command.profile, requester: { name: requester } };
  const may = decide(policy, { ...asking, names: [] });
  if (may.verdict === "refuse") throw refusalError(may);
  const template = issuer.templates.get(command.profile);
  const profile = policy.policy.profiles.get(command.profile);
  if (template === undefined || profile === undefined) {
    throw new Error(`issuer ${issuer.id} has no template for profile ${command.profile}`);
  }
  const csr = readCertificationRequest(command.csr);
  const names = canonicalNames(requestedNames(csr, profile.kind));
  const publicKey: PublicKeyInfo = csr.publicKey;
  const spki = spkiDigest(publicKey.spki);
  if (parts.issuers.caKeys.has(spki)) {
    throw new CountersignError("key-refused", "this is the key of a CA: make another for a leaf", {
      members: { rule: "KEY-11" },
    });
  }
  verifyCertificationRequest(csr);
  const now = wholeSeconds(parts.now());
  const { notBefore, notAfter } = validity(now, command.profile, profile, command.lifetime, issuer);
  const tbs = buildTbsCertificate(template, {
    serialNumber,
    notBefore,
    notAfter,
    subject: csr.subject,
    publicKey,
    names,
  });
  const decision = issuer.gate.checkCertificate(tbs, {
    profile: command.profile,
    requester,
    now,
    publicKeyChecked: true,
    requested: {
      serialNumber,
      subject: csr.subject,
      subjectPublicKeyInfo: publicKey.spki,
      notBefore,
      notAfter,
      names,
      crlUrl: issuer.crlUrl,
      caIssuersUrl: issuer.caIssuersUrl,
    },
  });
  const { rule, warnings } = refusal(decision);
  const tbsSha256 = hash("sha256", tbs, "buffer");
  const serialNumberHex = Buffer.from(serialNumber).toString("hex");
  return {
    tbs,
    intent: encodeEntry({
      type: "sign.intent",
      at: parts.now(),
      actor: actorOf(command.caller),
      subject: { issuer: issuer.id, keyId: issuer.keyId, serialNumber: serialNumberHex },
      data: {
        operation: "certificate",
        tbs: `sha256:${tbsSha256.toString("hex")}`,
        profile: command.profile,
        csr: digestOf(csr.der),
        policy: parts.policyDigest,
        rule,
        ...(warnings.length === 0 ? {} : { warnings: [...warnings] }),
      },
    }),
    row: {
      issuer: issuer.id,
      keyId: issuer.keyId,
      serialNumber: serialNumberHex,
      kind: "leaf",
      profile: command.profile,
      requester,
      subject: nameText(csr.subject),
      names,
      notBefore,
      notAfter,
      spkiSha256: Buffer.from(spki, "hex"),
      tbsSha256,
      csr: csr.der,
      createdAt: now,
      ...(command.idempotency === undefined
        ? {}
        : { idempotency: { requester, ...command.idempotency } }),
    },
  };
}

/**
 * The validity of a leaf: backdated as the profile says, and never beyond the issuer. A default lifetime is
 * cut at the issuer's end; one that was asked for is granted as it stands or refused.
 *
 * @throws CountersignError `lifetime-malformed`, `lifetime-refused`.
 */
export function validity(
  now: Date,
  name: string,
  profile: Pick<Profile, "lifetime" | "backdate">,
  asked: string | undefined,
  issuer: Pick<Issuer, "notBefore" | "notAfter">,
): { notBefore: Date; notAfter: Date } {
  const notBefore = new Date(
    Math.max(now.getTime() - profile.backdate * 1000, issuer.notBefore.getTime()),
  );
  const wanted = addLifetime(
    notBefore,
    asked === undefined ? profile.lifetime.default : parseLifetime(asked),
  );
  const longest = addLifetime(notBefore, profile.lifetime.maximum);
  if (asked !== undefined) {
    if (wanted > longest) {
      throw new CountersignError(
        "lifetime-refused",
        `${asked} is longer than the ${formatLifetime(profile.lifetime.maximum)} that profile ${name} allows`,
        { members: { rule: `profiles.${name}.lifetime.maximum` } },
      );
    }
    if (wanted > issuer.notAfter) {
      throw new CountersignError(
        "lifetime-refused",
        `${asked} reaches beyond the issuer, which ends ${issuer.notAfter.toISOString()}`,
        { members: { rule: "CRT-11" } },
      );
    }
  }
  const notAfter = wanted > issuer.notAfter ? issuer.notAfter : wanted;
  if (notAfter <= now) {
    throw new CountersignError(
      "lifetime-refused",
      asked === undefined
        ? `the issuer ended ${issuer.notAfter.toISOString()}`
        : `a certificate of ${asked} would have ended before it is signed`,
      { members: { rule: "CRT-11" } },
    );
  }
  return { notBefore, notAfter };
}

export function wholeSeconds(date: Date): Date {
  return new Date(Math.floor(date.getTime() / 1000) * 1000);
}

function reused(): CountersignError {
  return new CountersignError(
    "idempotency-key-reused",
    "this Idempotency-Key was used with another body; take a new key for a new request",
  );
}

function answerFrom(row: StoredCertificate, issuer: Issuer, replayed: boolean): IssuedAnswer {
  if (row.certificate === null || row.doneIndex === null) {
    throw new Error(`certificate ${row.serialNumber} is recorded as issued without its bytes`);
  }
  return {
    issuer: row.issuer,
    serialNumber: row.serialNumber,
    certificate: row.certificate,
    chain: [issuer.certificate, ...issuer.chain],
    logIndex: row.doneIndex,
    intentIndex: row.index,
    notBefore: row.notBefore,
    notAfter: row.notAfter,
    sha256: digestOf(row.certificate),
    replayed,
  };
}
