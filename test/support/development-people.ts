/** The people of a development home, who ask its service over https with what lies in their folders. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Json } from "../../src/audit/canonical-json.ts";
import { digestOf } from "../../src/audit/digest.ts";
import { notedJson } from "../../src/ceremony/log-words.ts";
import { readShareSet, type ShareSet } from "../../src/custody/plan.ts";
import { decryptWithIdentities, encryptToRecipient } from "../../src/custody/sealed/age-file.ts";
import { proveShare, type Share } from "../../src/custody/sealed/share.ts";
import { readShareFileText } from "../../src/custody/sealed/share-file.ts";
import { namespaces, readUnlock, type Signed } from "../../src/custody/statement.ts";
import { DEVELOPMENT_PEOPLE, signAs, signatureOf } from "../../src/development/people.ts";
import type { Answer, ApiRequest, RunningService } from "./service.ts";

/** A share set, and what it is called. */
export interface NamedShareSet {
  readonly digest: string;
  readonly read: ShareSet;
}

export class DevelopmentPeople {
  readonly service: RunningService;
  /** Whatever the service has answered. */
  readonly answers: Buffer[] = [];
  readonly #sessions = new Map<string, string>();

  constructor(service: RunningService) {
    this.service = service;
  }

  /** As `who`, or as nobody. */
  async ask(path: string, who?: string, options: ApiRequest = {}): Promise<Answer> {
    const token = who === undefined ? false : await this.#session(who);
    return this.#kept(await this.service.api(path, { token, ...options }));
  }

  async send(path: string, body: unknown, who?: string, method = "POST"): Promise<Answer> {
    const token = who === undefined ? false : await this.#session(who);
    return this.#kept(await this.service.send(path, body, { token, method }));
  }

  /** @throws Error unless the answer is a good one. */
  async done<Value>(answer: Promise<Answer>): Promise<Value> {
    const { status, body } = await answer;
    if (status >= 300) throw new Error(`${status}: ${body.toString()}`);
    return JSON.parse(body.toString()) as Value;
  }

  #kept(answer: Answer): Answer {
    this.answers.push(Buffer.from(JSON.stringify(answer.headers)), answer.body);
    return answer;
  }

  #folder(id: string): string {
    return join(this.service.home, "people", id);
  }

  #sign(id: string, namespace: string, statement: Json): Signed {
    return signAs({ sshKey: join(this.#folder(id), "id_ed25519") }, namespace, statement);
  }

  async #session(id: string): Promise<string> {
    const before = this.#sessions.get(id);
    if (before !== undefined) return before;
    const opened = await this.done<{ id: string; statement: string; namespace: string }>(
      this.send("/v1/sessions", { operator: id }),
    );
    const signature = signatureOf(
      join(this.#folder(id), "id_ed25519"),
      opened.namespace,
      Buffer.from(opened.statement),
    );
    const answer = await this.service.send(
      `/v1/sessions/${opened.id}`,
      { signature },
      { token: false },
    );
    const { token } = answer.json<{ token: string }>();
    this.#sessions.set(id, token);
    return token;
  }

  async #said(type: string, operator: string) {
    const { log } = await this.done<{ log: { checkpoint: string } }>(
      this.ask("/v1/status", "alice"),
    );
    const [, size, root] = log.checkpoint.split("\n");
    return {
      type: `countersign/${type}/v1`,
      operator,
      at: new Date().toISOString(),
      log: { size: Number(size), root: root! },
    };
  }

  async approve(id: string, ceremony: string): Promise<void> {
    const approval = {
      ...(await this.#said("approval", id)),
      ceremony,
      verdict: "approve",
      role: "operator",
    };
    const { statement, signature } = this.#sign(id, namespaces.approval, approval);
    await this.done(
      this.send(`/v1/ceremonies/${ceremony}/approvals`, {
        statement: Buffer.from(statement).toString("base64"),
        signature,
      }),
    );
  }

  async shareSet(keyId: string, digest?: string): Promise<NamedShareSet> {
    const query = digest === undefined ? "" : `?shareSet=${digest}`;
    const { body } = await this.ask(`/v1/keys/${keyId}/share-set${query}`, "alice");
    const octets = notedJson(body.toString());
    return { digest: digestOf(octets), read: readShareSet(octets) };
  }

  async #opened(id: string, file: Uint8Array): Promise<string> {
    const [identity] = /AGE-SECRET-KEY-\S+/.exec(
      readFileSync(join(this.#folder(id), "age.key"), "utf8"),
    )!;
    return Buffer.from(await decryptWithIdentities([identity], file)).toString();
  }

  /** The text of the share of the root that somebody keeps. */
  async keptShare(id: string, { keyId }: ShareSet): Promise<string> {
    const folder = join(this.#folder(id), "shares");
    const file = readdirSync(folder, { recursive: true, encoding: "utf8" }).find(
      (name) => name.endsWith(".age") && name.includes(keyId.slice(0, 16)),
    )!;
    return lineOf(await this.#opened(id, readFileSync(join(folder, file))));
  }

  /** Fetches the own share of a pending set, and confirms it. @returns its text. */
  async confirm(id: string, { digest, read }: NamedShareSet): Promise<string> {
    const { keyId, epoch, threshold, shareCount, custodians } = read;
    const { index } = custodians.find(({ operator }) => operator === id)!;
    const file = await this.ask(`/v1/keys/${keyId}/shares/${index}?shareSet=${digest}`, id);
    const text = await this.#opened(id, file.body);
    const context = { keyId: Buffer.from(keyId, "hex"), epoch, threshold, shareCount };
    const challenge = Buffer.from(digest.slice("sha256:".length), "hex");
    const confirmation = {
      ...(await this.#said("confirmation", id)),
      shareSet: digest,
      index,
      proof: proveShare(context, readShareFileText(text), challenge).toString("base64"),
    };
    const { statement, signature } = this.#sign(id, namespaces.confirm, confirmation);
    await this.done(
      this.send(`/v1/keys/${keyId}/confirmations`, {
        statement: Buffer.from(statement).toString("base64"),
        signature,
      }),
    );
    return lineOf(text);
  }

  /** Gives the text of a share to an unlock, right or wrong. */
  async submit(id: string, unlock: string, text: string): Promise<Answer> {
    const note = await this.ask(`/v1/unlocks/${unlock}/statement`);
    const { recipient, shareSet, keyId } = readUnlock(notedJson(note.body.toString()));
    const { read } = await this.shareSet(keyId, shareSet);
    const { index } = read.custodians.find(({ operator }) => operator === id)!;
    const share = await encryptToRecipient(recipient, Buffer.from(`${text}\n`));
    const submission = {
      ...(await this.#said("submission", id)),
      unlock: digestOf(notedJson(note.body.toString())),
      verdict: "give",
      share: { index, file: digestOf(share) },
    };
    const { statement, signature } = this.#sign(id, namespaces.submission, submission);
    return this.send(`/v1/unlocks/${unlock}/submissions`, {
      submission: Buffer.from(statement).toString("base64"),
      signature,
      share: Buffer.from(share).toString("base64"),
    });
  }

  async lock(id: string, keyId: string): Promise<Answer> {
    const lock = { ...(await this.#said("lock", id)), keyId };
    const { statement, signature } = this.#sign(id, namespaces.lock, lock);
    return this.send(`/v1/keys/${keyId}/lock`, {
      statement: Buffer.from(statement).toString("base64"),
      signature,
    });
  }

  /** A plan for a PIN of a token in use, with all of them. */
  async planForPin(keyId: string): Promise<Json> {
    const roster = await this.done<{ digest: string; document: string }>(
      this.ask("/v1/roster", "alice"),
    );
    const { operators } = JSON.parse(Buffer.from(roster.document, "base64").toString()) as {
      operators: { id: string; recipient: string }[];
    };
    const status = await this.done<{ service: string }>(this.ask("/v1/status", "alice"));
    return {
      type: "countersign/plan/v1",
      service: status.service,
      issuer: "issuing",
      key: { use: keyId },
      payload: "pin",
      epoch: 1,
      previous: null,
      threshold: 3,
      shareCount: DEVELOPMENT_PEOPLE.length,
      custodians: DEVELOPMENT_PEOPLE.map((operator) => ({
        operator,
        recipient: operators.find(({ id }) => id === operator)!.recipient,
        role: "custodian",
      })),
      roster: roster.digest,
      reason: "a test",
    };
  }
}

function lineOf(text: string): string {
  return text.split("\n").find((line) => line !== "" && !line.startsWith("#"))!;
}

export function pointOf(text: string): Share {
  return readShareFileText(text);
}
