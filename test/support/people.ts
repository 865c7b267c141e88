/** People with SSH keys and age identities, made by the stock tools, and what they write and sign. */

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { canonicalJson, type Json } from "../../src/audit/canonical-json.ts";
import type { RosterDocument, RosterSignature, RosterVersion } from "../../src/custody/roster.ts";
import { namespaces, type Signed } from "../../src/custody/statement.ts";
import { decodeShare, proveShare, type ShareContext } from "../../src/custody/sealed/share.ts";
import type { ShareSet } from "../../src/custody/plan.ts";

/** The head that somebody has seen; root in base64. */
export interface SeenLog {
  readonly size: number;
  readonly root: string;
}

export interface Person {
  readonly id: string;
  /** The SSH key. */
  readonly keyFile: string;
  /** Type and base64, without the comment. */
  readonly publicKey: string;
  /** As age-keygen writes it. */
  readonly ageFile: string;
  readonly recipient: string;
  /** An armored signature. */
  sign(namespace: string, octets: Uint8Array): string;
  /** Signs canonical JSON; what is undefined in it is left out. */
  signed(namespace: string, value: object): Signed;
}

export interface People {
  readonly ids: readonly string[];
  /** As a roster lists them. */
  readonly operators: RosterDocument["operators"];
  person(id: string): Person;
  /** A first version of the roster: everybody counts in every role, and as many must agree as there are. */
  roster(service: RosterDocument["service"], change?: Partial<RosterDocument>): Uint8Array;
  /** With the signatures of those whose keys are new. */
  version(
    document: Uint8Array,
    by?: readonly string[],
    ceremony?: NonNullable<RosterVersion["ceremony"]>,
  ): RosterVersion;
  /** Approvals of a ceremony, by the digest of its statement. */
  approvals(
    ceremony: string,
    log: SeenLog,
    by: readonly string[],
    change?: { readonly [member: string]: Json },
  ): Signed[];
  /**
   * A custodian's share on its way from the share file to an unlock, through the stock age.
   *
   * @param unlock - the statement's digest and recipient.
   */
  submission(
    id: string,
    unlock: { readonly digest: string; readonly recipient: string },
    index: number,
    file: Uint8Array,
    log: SeenLog,
  ): { submission: Signed; share: Uint8Array };
  refusal(id: string, unlock: string, log: SeenLog): Signed;
  /** That a share has come and is the right one. */
  confirmation(
    id: string,
    shareSet: { readonly octets: Uint8Array; readonly read: ShareSet },
    index: number,
    file: Uint8Array,
    log: SeenLog,
  ): Signed;
}

/** Makes people, each with a key and an identity in a folder. */
export function makePeople(folder: string, ids: readonly string[]): People {
  const people = new Map(ids.map((id) => [id, makePerson(folder, id)]));

  function person(id: string): Person {
    const found = people.get(id);
    if (found === undefined) throw new Error(`nobody here is called ${id}`);
    return found;
  }

  const operators = ids.map((id) => {
    const { publicKey, recipient } = person(id);
    return {
      id,
      keys: [{ kind: "ssh" as const, key: publicKey }],
      recipient,
      roles: ["officer", "witness"],
    };
  });

  return {
    ids,
    operators,
    person,
    roster: (service, change = {}) =>
      json({
        type: "countersign/roster/v1",
        version: 1,
        previous: null,
        operators,
        service,
        rules: {
          roster: ids.length,
          policy: ids.length,
          resume: ids.length,
          ceremonies: {},
        },
        ...change,
      }),
    version: (document, by = ids, ceremony) => ({
      document,
      signatures: by.map((operator): RosterSignature => ({
        operator,
        signature: person(operator).sign(namespaces.roster, document),
      })),
      ...(ceremony === undefined ? {} : { ceremony }),
    }),
    approvals: (ceremony, log, by, change = {}) =>
      by.map((operator) =>
        person(operator).signed(namespaces.approval, {
          type: "countersign/approval/v1",
          ceremony,
          verdict: "approve",
          operator,
          role: "operator",
          log,
          at: new Date().toISOString(),
          ...change,
        }),
      ),
    submission(id, unlock, index, file, log) {
      const share = execFileSync("age", ["-r", unlock.recipient], {
        input: openedBy(person(id), file),
      });
      const submission = person(id).signed(namespaces.submission, {
        type: "countersign/submission/v1",
        unlock: unlock.digest,
        verdict: "give",
        operator: id,
        share: { index, file: sha256(share) },
        log,
        at: new Date().toISOString(),
      });
      return { submission, share };
    },
    refusal: (id, unlock, log) =>
      person(id).signed(namespaces.submission, {
        type: "countersign/submission/v1",
        unlock,
        verdict: "refuse",
        reason: "not today",
        operator: id,
        log,
        at: new Date().toISOString(),
      }),
    confirmation(id, { octets, read }, index, file, log) {
      const lines = openedBy(person(id), file).toString().split("\n");
      const share = decodeShare(lines.find((line) => line !== "" && !line.startsWith("#"))!);
      const context: ShareContext = {
        keyId: Buffer.from(read.keyId, "hex"),
        epoch: read.epoch,
        threshold: read.threshold,
        shareCount: read.shareCount,
      };
      const challenge = createHash("sha256").update(octets).digest();
      return person(id).signed(namespaces.confirm, {
        type: "countersign/confirmation/v1",
        operator: id,
        at: new Date().toISOString(),
        log,
        shareSet: sha256(octets),
        index,
        proof: proveShare(context, share, challenge).toString("base64"),
      });
    },
  };
}

function makePerson(folder: string, id: string): Person {
  const keyFile = join(folder, id);
  const publicKey = makeSshKey(keyFile);
  const ageFile = join(folder, `${id}.age`);
  writeFileSync(ageFile, execFileSync("age-keygen", { stdio: ["ignore", "pipe", "ignore"] }), {
    mode: 0o600,
  });
  const recipient = execFileSync("age-keygen", ["-y", ageFile]).toString().trim();
  const sign = (namespace: string, octets: Uint8Array): string =>
    sshSign(keyFile, namespace, octets);
  return {
    id,
    keyFile,
    publicKey,
    ageFile,
    recipient,
    sign,
    signed(namespace, value) {
      const statement = json(value);
      return { statement, signature: sign(namespace, statement) };
    },
  };
}

function openedBy({ ageFile }: Person, file: Uint8Array): Buffer {
  return execFileSync("age", ["-d", "-i", ageFile], { input: file });
}

/** Canonical JSON; what is undefined is left out. */
export function json(value: object): Buffer {
  return Buffer.from(canonicalJson(JSON.parse(JSON.stringify(value)) as Json));
}

function sha256(octets: Uint8Array): string {
  return `sha256:${createHash("sha256").update(octets).digest("hex")}`;
}

/** Makes an SSH key without a passphrase; returns the public line without its comment. */
export function makeSshKey(file: string, ...options: string[]): string {
  const kind = options.length === 0 ? ["-t", "ed25519"] : options;
  mkdirSync(dirname(file), { recursive: true });
  execFileSync("ssh-keygen", ["-q", ...kind, "-N", "", "-C", "test", "-f", file]);
  return readFileSync(`${file}.pub`, "utf8").trim().split(" ").slice(0, 2).join(" ");
}

/** Signs as an operator does. */
export function sshSign(
  keyFile: string,
  namespace: string,
  message: Uint8Array,
  ...options: string[]
): string {
  return execFileSync(
    "ssh-keygen",
    ["-q", "-Y", "sign", "-n", namespace, "-f", keyFile, ...options],
    { input: message, stdio: ["pipe", "pipe", "pipe"] },
  ).toString();
}
