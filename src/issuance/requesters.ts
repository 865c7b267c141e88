/** Requesters: the policy's entries for machines, changed by one operator's signed statement each. */

import { hash } from "node:crypto";
import { parseCanonicalJson } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { encodeEntry } from "../audit/entry.ts";
import { verifySshSignature } from "../custody/ssh-signature.ts";
import { CountersignError } from "../errors.ts";
import type { CompiledPolicy } from "../policy/decide.ts";
import {
  credentialId,
  parseRequesterStatement,
  type Requester,
  type RequesterStatement,
} from "../policy/requester.ts";
import { applyRecorded, checkChange, requesterNameOf } from "../policy/requester-change.ts";
import { extensionOf, parseCertificate } from "../x509/certificate.ts";
import { parseExtKeyUsage, parseKeyUsage } from "../x509/extension.ts";
import { extensionOids, extKeyUsageOids } from "../x509/oid.ts";
import type { Caller } from "./caller.ts";
import type { Journal } from "./journal.ts";
import type { Reads, StoredCertificate } from "./records.ts";
import { checkSeenHead } from "./seen-head.ts";

/** Namespace of the operators' signatures over requester statements: CUSTODY 6.1. */
export const REQUESTER_NAMESPACE = "countersign-requester@v1";

/** What fits, in base64 and with its signature, into one record of the log. */
const STATEMENT_OCTETS = 32_768;

export interface Operator {
  readonly id: string;
  /** OpenSSH public keys, `ssh-ed25519 AAAA…`. */
  readonly keys: readonly string[];
}

export interface Requesters {
  /** @param sha256 - SHA-256 of the API key, hex. */
  byApiKey(sha256: string): Requester | undefined;
  /**
   * A requester by a certificate that is good for logging in (a leaf with clientAuth and digitalSignature), otherwise
   * the holder of that certificate, who may do no more than revoke it.
   *
   * @param certificate - DER, of a client whose TLS handshake proved its private key.
   * @returns undefined for what was not issued here, is not valid now or is of a CA, and for a certificate whose
   *   names are those of two requesters.
   */
  byCertificate(certificate: Uint8Array): Promise<Caller | undefined>;
  list(): Requester[];
  /** What the next statement must carry. */
  next(): { sequence: number; previous: string | null };
  /**
   * @param statement - canonical JSON, CUSTODY 2.6.
   * @param signature - armored SSHSIG.
   * @throws CountersignError `forbidden`, `statement-malformed`, `statement-stale`, `signature-invalid`,
   *   `requester-unknown`, `requester-exists`, `policy-invalid`: nothing is recorded then.
   */
  change(statement: Uint8Array, signature: string, caller: Caller): Promise<void>;
}

export interface RequesterParts {
  readonly policy: CompiledPolicy;
  readonly journal: Journal;
  readonly reads: Reads;
  readonly keeper: { requester(statement: Uint8Array, signature: string): Promise<void> };
  /** Read again for every change. */
  readonly operators: () => readonly Operator[];
  readonly now: () => Date;
  /** Told at the start of each recorded statement that does not fit the policy file; a process warning otherwise. */
  readonly unapplied?: (statement: Unapplied) => void;
}

/** A recorded statement that is not in force. Nor is its requester. */
export interface Unapplied {
  readonly sequence: number;
  readonly requester: string;
  readonly reason: CountersignError;
}

interface Signed {
  readonly statement: Uint8Array;
  readonly signature: string;
}

export class RequesterRegister implements Requesters {
  readonly #parts: RequesterParts;
  #sequence = 0;
  #previous: string | null = null;
  /** Recorded statements that the keeper has not taken yet. */
  #untaken: Signed[] = [];
  /** Statements are applied one after the other. */
  #turn: Promise<void> = Promise.resolve();

  /** Replays the recorded statements, which the keeper has been shown. */
  constructor(parts: RequesterParts, recorded: Iterable<{ statement: Uint8Array }>) {
    this.#parts = parts;
    for (const { statement } of recorded) {
      const parsed = read(statement);
      const reason = this.#apply(statement, parsed);
      if (reason === undefined) continue;
      const { sequence } = parsed;
      (parts.unapplied ?? warn)({ sequence, requester: requesterNameOf(parsed), reason });
    }
  }

  byApiKey(sha256: string): Requester | undefined {
    return this.#parts.policy.requesterWith(
      credentialId({ kind: "api-key", sha256: `sha256:${sha256}` }),
    );
  }

  async byCertificate(certificate: Uint8Array): Promise<Caller | undefined> {
    const { reads, now } = this.#parts;
    // The handshake proved the key; that the very same bytes are recorded here proves the issuer.
    const digest = hash("sha256", certificate, "buffer");
    const row = await reads.certificateBySha256(digest);
    // A CA's key is for signing certificates: whoever logs in with one is nobody to do business with.
    if (row === undefined || row.state !== "issued" || row.kind !== "leaf") return undefined;
    const at = now();
    if (at < row.notBefore || at > row.notAfter) return undefined;
    if ((await reads.revocation(row.issuer, row.serialNumber)) !== undefined) return undefined;
    // Otherwise a web server, whose key many can use who are not to ask for certificates, would be the requester
    // of its name.
    const owners = isForClients(certificate) ? this.#ownersOf(row) : [];
    if (owners.length > 1) return undefined;
    const [owner] = owners;
    return owner === undefined
      ? {
          kind: "certificate",
          id: `sha256:${digest.toString("hex")}`,
          via: "mtls",
          issuer: row.issuer,
          serialNumber: row.serialNumber,
        }
      : { kind: "requester", id: owner.name, via: "mtls", requester: owner };
  }

  /** The requesters that a name of the certificate stands for, each once. */
  #ownersOf({ issuer, names }: StoredCertificate): Requester[] {
    const owners = names.map(({ kind, value }) =>
      this.#parts.policy.requesterWith(
        credentialId({ kind: "mtls", issuer, name: `${kind}:${value}` }),
      ),
    );
    return [...new Set(owners)].filter((owner) => owner !== undefined);
  }

  list(): Requester[] {
    return [...this.#parts.policy.requesters.values()].map(({ requester }) => requester);
  }

  next(): { sequence: number; previous: string | null } {
    return { sequence: this.#sequence + 1, previous: this.#previous };
  }

  change(statement: Uint8Array, signature: string, caller: Caller): Promise<void> {
    const done = this.#turn.then(() => this.#change(statement, signature, caller));
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async #change(statement: Uint8Array, signature: string, caller: Caller): Promise<void> {
    if (caller.kind !== "operator") {
      throw new CountersignError("forbidden", "requesters are changed by operators");
    }
    const { policy, journal, operators, now } = this.#parts;
    if (statement.length > STATEMENT_OCTETS) {
      throw new CountersignError(
        "statement-malformed",
        `a statement has at most ${STATEMENT_OCTETS} octets, this one ${statement.length}`,
      );
    }
    const parsed = read(statement);
    const operator = operators().find((candidate) => candidate.id === parsed.operator);
    if (operator === undefined) {
      throw new CountersignError(
        "signature-invalid",
        `${parsed.operator} is not an operator of this service`,
      );
    }
    verifyByAny(operator.keys, statement, signature);
    const { sequence, previous } = this.next();
    if (parsed.sequence !== sequence || parsed.previous !== previous) {
      throw new CountersignError(
        "statement-stale",
        "another change of the requesters came first: make the statement again (countersign requester does)",
      );
    }
    checkChange(policy, parsed);
    await checkSeenHead(parsed.log, this.#parts);
    // A keeper that could not write its state would take this one for one out of turn.
    await this.#tell();
    const name = requesterNameOf(parsed);
    const leaf = encodeEntry({
      type: "policy.changed",
      at: now(),
      actor: { kind: "operator", id: parsed.operator, via: "sshsig" },
      subject: {},
      data: { requester: name, action: parsed.action, sequence },
      evidence: { statement: Buffer.from(statement).toString("base64"), signature },
    });
    // 1. The record. A crash here leaves a statement that the next start shows to the keeper and puts into force.
    await journal.append({
      kind: "requester",
      leaf,
      row: { sequence, statement, signature, name, action: parsed.action },
    });
    // 2. What is recorded is in force; everything that could speak against it was asked before. A crash here is the
    //    one above.
    this.#apply(statement, parsed);
    // 3. The keeper and the signers. A keeper that fails here hears of it before the next change, or at the start.
    this.#untaken.push({ statement, signature });
    await this.#tell();
  }

  async #tell(): Promise<void> {
    const { keeper } = this.#parts;
    for (let first; (first = this.#untaken[0]) !== undefined; this.#untaken.shift()) {
      await keeper.requester(first.statement, first.signature);
    }
  }

  #apply(statement: Uint8Array, parsed: RequesterStatement): CountersignError | undefined {
    this.#sequence = parsed.sequence;
    this.#previous = digestOf(statement);
    return applyRecorded(this.#parts.policy, parsed);
  }
}

/** RFC 5280 §4.2.1.12: what stock TLS servers require of a client's certificate. */
function isForClients(certificate: Uint8Array): boolean {
  const { tbs } = parseCertificate(certificate);
  const purposes = extensionOf(tbs, extensionOids.extKeyUsage);
  const usages = extensionOf(tbs, extensionOids.keyUsage);
  return (
    purposes !== undefined &&
    parseExtKeyUsage(purposes.value).includes(extKeyUsageOids.clientAuth) &&
    usages !== undefined &&
    parseKeyUsage(usages.value).includes("digitalSignature")
  );
}

function warn({ sequence, requester, reason }: Unapplied): void {
  process.emitWarning(
    `requester ${requester} is not in force, statement ${sequence} about it does not fit the policy file: ` +
      reason.message,
  );
}

function read(statement: Uint8Array): RequesterStatement {
  let json: unknown;
  try {
    json = parseCanonicalJson(statement);
  } catch (error) {
    throw new CountersignError(
      "statement-malformed",
      "the statement is not canonical JSON (RFC 8785)",
      { cause: error },
    );
  }
  return parseRequesterStatement(json);
}

/** @throws CountersignError `signature-invalid` if none of the operator's keys made the signature. */
function verifyByAny(keys: readonly string[], message: Uint8Array, signature: string): void {
  let last: unknown = new CountersignError("signature-invalid", "this operator has no key");
  for (const publicKey of keys) {
    try {
      verifySshSignature({ publicKey, namespace: REQUESTER_NAMESPACE, message, signature });
      return;
    } catch (error) {
      last = error;
    }
  }
  throw last;
}
