/** Who wants to be one of the people, and whether their age recipient is theirs: CUSTODY.md 3.2, step 0, and 8.4. */

import { digestOf } from "../audit/digest.ts";
import { verifyWithOneOf } from "../custody/roster.ts";
import { readEnrolment, readRecipientProof } from "../custody/personal-statement.ts";
import { checkRecipient, sealChallenge } from "../custody/sealed/share-file.ts";
import { checkSshPublicKey, sshFingerprint } from "../custody/ssh-signature.ts";
import { namespaces, type Signed } from "../custody/statement.ts";
import { CountersignError } from "../errors.ts";
import { checkSeenHead } from "../issuance/seen-head.ts";
import { verifying } from "./credentials.ts";
import type { Failures } from "./failures.ts";
import type { CeremonyParts } from "./progress.ts";
import type { StoredEnrolment } from "./records.ts";
import type { EnrolmentView, Enrolments } from "./view.ts";

const CHALLENGE_OCTETS = 32;
/** Requests in one name that nobody has proved; strangers must not bury the one that counts. */
const REQUESTS_OF_NAME = 20;

export class EnrolmentBook implements Enrolments {
  readonly #parts: CeremonyParts & { readonly failures: Failures };

  constructor(parts: CeremonyParts & { readonly failures: Failures }) {
    this.#parts = parts;
  }

  async request(signed: Signed, address: string): Promise<string> {
    const { service, failures, reads } = this.#parts;
    failures.enrols(address);
    const { operator, key, recipient } = verifying(this.#parts, address, () => {
      const enrolment = readEnrolment(signed.statement);
      if (enrolment.service !== service) {
        throw new CountersignError("enrolment-refused", "the enrolment is for another service");
      }
      try {
        checkSshPublicKey(enrolment.key);
      } catch (error) {
        throw new CountersignError("enrolment-refused", (error as Error).message, { cause: error });
      }
      verifyWithOneOf([enrolment.key], namespaces.enrol, signed.statement, signed.signature);
      checkRecipient(enrolment.recipient);
      return enrolment;
    });
    const waiting = await reads.enrolments({ operator, state: "requested" });
    if (waiting.length >= REQUESTS_OF_NAME) {
      throw new CountersignError(
        "enrolment-refused",
        `${waiting.length} requests in the name of ${operator} wait already; they are forgotten after a week`,
      );
    }
    return this.#write({ operator, keys: [key], recipient, signed });
  }

  async list(): Promise<readonly EnrolmentView[]> {
    return (await this.#parts.reads.enrolments({})).map(viewOf);
  }

  async challenge(id: string): Promise<Uint8Array> {
    return (await this.#find(id)).challenge;
  }

  async prove(id: string, signed: Signed, address: string): Promise<EnrolmentView> {
    const { rosters, journal } = this.#parts;
    const enrolment = await this.#find(id);
    const { log, answer } = verifying(this.#parts, address, () => {
      const proof = readRecipientProof(signed.statement);
      if (
        proof.enrolment !== id ||
        proof.operator !== enrolment.operator ||
        proof.recipient !== enrolment.recipient
      ) {
        throw new CountersignError("enrolment-refused", "the proof is of another enrolment");
      }
      const person = rosters.people?.operators.get(enrolment.operator);
      const keys = person?.keys.flatMap((key) => (key.kind === "ssh" ? [key.key] : [])) ?? [];
      // Somebody of the roster may have got another key since.
      verifyWithOneOf(
        [...enrolment.keys, ...keys],
        namespaces.enrol,
        signed.statement,
        signed.signature,
      );
      return proof;
    });
    await checkSeenHead(log, this.#parts);
    if (answer !== enrolment.challengeSha256) {
      throw new CountersignError(
        "enrolment-refused",
        "the answer is not the SHA-256 of what the challenge's file holds: age -d it with this recipient's identity",
      );
    }
    if (enrolment.state !== "proved") await journal.proved(id);
    return viewOf({ ...enrolment, state: "proved" });
  }

  /** Whether somebody of the roster in force has shown, with a key of theirs, that a recipient is theirs. */
  async isProved(operator: string, recipient: string): Promise<boolean> {
    const { reads, rosters } = this.#parts;
    const person = rosters.inForce.operators.get(operator);
    const own = new Set(
      person?.keys.flatMap((key) => (key.kind === "ssh" ? [sshFingerprint(key.key)] : [])),
    );
    const proved = await reads.enrolments({ operator, state: "proved" });
    return proved.some(
      (row) => row.recipient === recipient && row.keys.some((key) => own.has(sshFingerprint(key))),
    );
  }

  /** A challenge for everybody in the roster in force whose recipient nobody has proved, if there is none yet. */
  async inviteAll(): Promise<void> {
    const { reads, rosters } = this.#parts;
    for (const { id, keys, recipient } of rosters.people?.operators.values() ?? []) {
      if (recipient === undefined) continue;
      // oxlint-disable-next-line no-await-in-loop -- one writer
      const known = await reads.enrolments({ operator: id });
      const own = keys.flatMap((key) => (key.kind === "ssh" ? [key.key] : []));
      const invited = known.some(
        (row) => row.recipient === recipient && row.keys.some((key) => own.includes(key)),
      );
      if (invited || own.length === 0) continue;
      // oxlint-disable-next-line no-await-in-loop -- one writer
      await this.#write({ operator: id, keys: own, recipient, signed: undefined });
    }
  }

  /** What waits for somebody to be proved with a key that they have. */
  async waitingFor(operator: string): Promise<readonly EnrolmentView[]> {
    const { reads, rosters } = this.#parts;
    const recipient = rosters.people?.operators.get(operator)?.recipient;
    if (recipient === undefined || (await this.isProved(operator, recipient))) return [];
    const rows = await reads.enrolments({ operator, state: "requested" });
    return rows.filter((row) => row.recipient === recipient).map(viewOf);
  }

  async #write(row: {
    readonly operator: string;
    readonly keys: readonly string[];
    readonly recipient: string;
    readonly signed: Signed | undefined;
  }): Promise<string> {
    const { journal, random, now } = this.#parts;
    const { operator, keys, recipient, signed } = row;
    const id = Buffer.from(random(16)).toString("hex");
    const challenge = random(CHALLENGE_OCTETS);
    const challengeSha256 = digestOf(challenge);
    const file = await sealChallenge(challenge, recipient);
    challenge.fill(0);
    await journal.enrolment({
      id,
      operator,
      keys,
      recipient,
      statement: signed?.statement ?? null,
      signature: signed?.signature ?? null,
      challenge: file,
      challengeSha256,
      createdAt: now(),
    });
    return id;
  }

  async #find(id: string): Promise<StoredEnrolment> {
    const enrolment = await this.#parts.reads.enrolment(id);
    if (enrolment === undefined) {
      throw new CountersignError("enrolment-unknown", "there is no enrolment with this id");
    }
    return enrolment;
  }
}

function viewOf({
  id,
  operator,
  keys,
  recipient,
  state,
  createdAt,
}: StoredEnrolment): EnrolmentView {
  return { id, operator, keys, recipient, state, createdAt };
}
