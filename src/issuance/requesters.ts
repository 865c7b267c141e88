/** Requesters: the policy's entries for machines, changed by one operator's signed statement each. */

import { hash } from "node:crypto";
import { parseCanonicalJson } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { encodeEntry } from "../audit/entry.ts";
import { verifySshSignature } from "../custody/ssh-signature.ts";
import { CountersignError } from "../errors.ts";
import type { CompiledPolicy } from "../policy/decide.ts";
import { checkRequester } from "../policy/document.ts";
import {
  credentialId,
  parseRequesterStatement,
  type Requester,
  type RequesterStatement,
} from "../policy/requester.ts";
import type { Caller } from "./caller.ts";
import type { Journal } from "./journal.ts";
import type { Reads } from "./records.ts";

/** Namespace of the operators' signatures over requester statements: CUSTODY 6.1. */
export const REQUESTER_NAMESPACE = "countersign-requester@v1";

export interface Operator {
  readonly id: string;
  /** OpenSSH public keys, `ssh-ed25519 AAAA…`. */
  readonly keys: readonly string[];
}

export interface Requesters {
  /** @param sha256 - SHA-256 of the API key, hex. */
  byApiKey(sha256: string): Requester | undefined;
  /** @param certificate - DER, of a client whose TLS handshake proved its private key. */
  byCertificate(certificate: Uint8Array): Promise<Caller | undefined>;
  list(): Requester[];
  /** What the next statement must carry. */
  next(): { sequence: number; previous: string | null };
  /**
   * @param statement - canonical JSON, CUSTODY 2.6.
   * @param signature - armored SSHSIG.
   * @throws CountersignError `forbidden`, `statement-malformed`, `statement-stale`, `signature-invalid`,
   *   `requester-unknown`, `policy-invalid`.
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
}

export class RequesterRegister implements Requesters {
  readonly #parts: RequesterParts;
  #sequence = 0;
  #previous: string | null = null;
  /** Statements are applied one after the other. */
  #turn: Promise<void> = Promise.resolve();

  /** Replays the recorded statements. */
  constructor(parts: RequesterParts, recorded: Iterable<{ statement: Uint8Array }>) {
    this.#parts = parts;
    for (const { statement } of recorded) this.#apply(statement, read(statement));
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
    if (row === undefined || row.state !== "issued") return undefined;
    const at = now();
    if (at < row.notBefore || at > row.notAfter) return undefined;
    if ((await reads.revocation(row.issuer, row.serialNumber)) !== undefined) return undefined;
    const owner = row.names
      .map(({ kind, value }) =>
        this.#parts.policy.requesterWith(
          credentialId({ kind: "mtls", issuer: row.issuer, name: `${kind}:${value}` }),
        ),
      )
      .find((requester) => requester !== undefined);
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
    const { policy, journal, keeper, operators, now } = this.#parts;
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
    const name = parsed.action === "set" ? parsed.requester.name : parsed.name;
    if (parsed.action === "remove" && !policy.requesters.has(name)) {
      throw new CountersignError("requester-unknown", `there is no requester ${name}`);
    }
    if (parsed.action === "set") checkRequester(policy.policy, parsed.requester);
    // The record first: a keeper that is behind the log is brought up at start, one ahead of it would refuse.
    await journal.append({
      kind: "requester",
      leaf: encodeEntry({
        type: "policy.changed",
        at: now(),
        actor: { kind: "operator", id: parsed.operator, via: "sshsig" },
        subject: {},
        data: { requester: name, action: parsed.action, sequence },
        evidence: { statement: Buffer.from(statement).toString("base64"), signature },
      }),
      row: { sequence, statement, signature, name, action: parsed.action },
    });
    await keeper.requester(statement, signature);
    this.#apply(statement, parsed);
  }

  #apply(statement: Uint8Array, parsed: RequesterStatement): void {
    const { policy } = this.#parts;
    if (parsed.action === "set") policy.updateRequester(parsed.requester);
    else policy.removeRequester(parsed.name);
    this.#sequence = parsed.sequence;
    this.#previous = digestOf(statement);
  }
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
