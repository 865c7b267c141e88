/** People with SSH keys and age identities, their roster, and what the keeper would state to them. */

import { execFileSync } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { canonicalJson, type Json } from "../../src/audit/canonical-json.ts";
import { noteSigner, signNote, verifierKey } from "../../src/audit/signed-note.ts";
import type { DealtByProcess } from "../../src/custody/dealer-process.ts";
import type { GatheringState } from "../../src/custody/gathering.ts";
import type { DealtKeyType } from "../../src/custody/plan.ts";
import type { RosterVersion } from "../../src/custody/roster.ts";
import { namespaces, type Signed } from "../../src/custody/statement.ts";
import { digestOf } from "./keeper-home.ts";
import { makeSshKey, sshSign } from "../support/people.ts";

const root = Buffer.alloc(32, 7).toString("base64");
const seen = { size: 3, root };
const log = { origin: "ca.example.com/audit", ...seen };
const policy = `sha256:${"a".repeat(64)}`;

export const names = ["alice", "bob", "carol", "dora", "erin"] as const;
export type Name = (typeof names)[number];

/** Canonical JSON; what is undefined is left out. */
export function json(value: object): Buffer {
  return Buffer.from(canonicalJson(JSON.parse(JSON.stringify(value)) as Json));
}

/** RFC 3339, so many seconds from now. */
export function inSeconds(seconds: number): string {
  return new Date(Date.now() + seconds * 1000).toISOString();
}

interface Stated {
  readonly note: string;
  readonly digest: string;
}

export interface Change {
  readonly [member: string]: unknown;
}

/** Five people; the roster's first version; a keeper's identity key. */
export class SealedHome {
  readonly directory = mkdtempSync(join(tmpdir(), "countersign-sealed-"));
  readonly identity = noteSigner(
    "ca.example.com/keeper",
    generateKeyPairSync("ed25519").privateKey,
  );
  readonly operators = names.map((id) => {
    const key = makeSshKey(join(this.directory, id));
    execFileSync("age-keygen", ["-o", this.ageKey(id)], { stdio: "ignore" });
    const recipient = execFileSync("age-keygen", ["-y", this.ageKey(id)])
      .toString()
      .trim();
    return { id, keys: [{ kind: "ssh", key }], recipient, roles: ["officer"] };
  });
  readonly versions: RosterVersion[];
  /** Digest of the first version. */
  readonly genesis: string;

  constructor(change: Change = {}) {
    const document = json({ ...this.rosterDocument(), ...change });
    this.versions = [{ document, signatures: this.rosterSignatures(document, names) }];
    this.genesis = digestOf(document);
  }

  remove(): void {
    rmSync(this.directory, { recursive: true });
  }

  ageKey(id: string): string {
    return join(this.directory, `${id}.age`);
  }

  ageIdentity(id: string): string {
    return /AGE-SECRET-KEY-\S+/.exec(readFileSync(this.ageKey(id), "utf8"))![0];
  }

  rosterDocument() {
    return {
      type: "countersign/roster/v1",
      version: 1,
      previous: null as string | null,
      operators: this.operators,
      service: {
        identity: this.identity.verifierKey.text,
        log: verifierKey("ca.example.com/audit", new Uint8Array(32).fill(2)),
      },
      rules: { roster: 3, policy: 2, resume: 3, ceremonies: { sign: { officer: 2 } } },
    };
  }

  rosterSignatures(document: Uint8Array, who: readonly string[]) {
    return who.map((operator) => ({
      operator,
      signature: this.sign(operator, "roster", document),
    }));
  }

  sign(who: string, namespace: keyof typeof namespaces, octets: Uint8Array): string {
    return sshSign(join(this.directory, who), namespaces[namespace], octets);
  }

  signed(who: string, namespace: keyof typeof namespaces, value: object): Signed {
    const statement = json(value);
    return { statement, signature: this.sign(who, namespace, statement) };
  }

  note(value: object, signer = this.identity): Stated {
    const octets = json(value);
    return { note: signNote(`${octets.toString()}\n`, signer), digest: digestOf(octets) };
  }

  /** The digest of the roster in force. */
  get roster(): string {
    return digestOf(this.versions.at(-1)!.document);
  }

  ceremony(change: Change = {}): Stated {
    return this.note({
      type: "countersign/ceremony/v1",
      id: randomBytes(16).toString("hex"),
      service: "ca.example.com",
      kind: "sign",
      artefacts: [{ tbs: policy, lint: policy }],
      rules: { officer: 2 },
      roster: this.roster,
      policy,
      notAfter: inSeconds(3600),
      log,
      requestedBy: "alice",
      reason: "a test",
      ...change,
    });
  }

  approval(ceremony: string, operator: string, change: Change = {}): Signed {
    return this.signed(operator, "approval", {
      type: "countersign/approval/v1",
      ceremony,
      verdict: "approve",
      operator,
      role: "officer",
      log: seen,
      at: inSeconds(0),
      ...change,
    });
  }

  /** The next version of the roster, and the ceremony that its people held. */
  nextVersion(change: Change, by: readonly string[], ceremonyChange: Change = {}): RosterVersion {
    const before = JSON.parse(Buffer.from(this.versions.at(-1)!.document).toString()) as {
      version: number;
    };
    const document = json({
      ...before,
      version: before.version + 1,
      previous: this.roster,
      ...change,
    });
    const { note, digest } = this.ceremony({
      kind: "roster",
      artefacts: undefined,
      rules: { operator: 3 },
      plan: digestOf(document),
      ...ceremonyChange,
    });
    const approvals = by.map((id) => this.approval(digest, id, { role: "operator" }));
    return { document, signatures: [], ceremony: { note, approvals } };
  }

  /** A plan for the first so many people. */
  plan(threshold: number, shareCount: number, change: Change = {}): Buffer {
    return json({
      type: "countersign/plan/v1",
      service: "ca.example.com",
      issuer: "CN=Test Issuing",
      key: { generate: "P-256" satisfies DealtKeyType },
      payload: "pkcs8",
      epoch: 1,
      previous: null,
      threshold,
      shareCount,
      custodians: this.operators
        .slice(0, shareCount)
        .map(({ id, recipient }) => ({ operator: id, recipient, role: "custodian" })),
      roster: this.roster,
      reason: "a test",
      ...change,
    });
  }

  /** All that an unlocker is told about a key that was dealt, for a recipient that it made. */
  unlock(dealt: DealtByProcess, recipient: string, changes: UnlockChanges = {}): UnlockStated {
    const { shareSet, sealed } = dealt;
    const { keyId, epoch, threshold, shareCount } = shareSet;
    const set = this.note({ ...shareSet, ...changes.shareSet }, changes.signer);
    const ceremony = this.ceremony({ keyId, ...changes.ceremony });
    const unlock = this.note(
      {
        type: "countersign/unlock/v1",
        id: randomBytes(16).toString("hex"),
        service: "ca.example.com",
        ceremony: ceremony.digest,
        keyId,
        epoch,
        threshold,
        shareCount,
        shareSet: set.digest,
        roster: this.roster,
        recipient,
        gatherSeconds: 600,
        log,
        ...changes.unlock,
      },
      changes.signer,
    );
    return {
      recipient,
      digest: unlock.digest,
      ceremony: ceremony.digest,
      dealt,
      state: {
        genesis: this.genesis,
        rosters: this.versions,
        identityKey: this.identity.verifierKey.text,
        ceremony: ceremony.note,
        unlock: unlock.note,
        shareSet: set.note,
        sealed,
      },
    };
  }

  /** A custodian's share as stock age takes it out of its file and encrypts it to an unlock. */
  share(dealt: DealtByProcess, who: Name, recipient: string): Buffer {
    const file = Buffer.from(dealt.files[names.indexOf(who)]!);
    const text = execFileSync("age", ["-d", "-i", this.ageKey(who)], { input: file });
    return execFileSync("age", ["-r", recipient], { input: text });
  }

  submission(
    unlock: UnlockStated,
    who: Name,
    change: Change & { readonly file?: Uint8Array } = {},
  ): { signed: Signed; share: Buffer } {
    const { file, ...members } = change;
    const share = Buffer.from(file ?? this.share(unlock.dealt, who, unlock.recipient));
    const signed = this.signed(who, "submission", {
      type: "countersign/submission/v1",
      unlock: unlock.digest,
      verdict: "give",
      operator: who,
      share: { index: names.indexOf(who) + 1, file: digestOf(share) },
      log: seen,
      at: inSeconds(0),
      ...members,
    });
    return { signed, share };
  }

  refusal(unlock: UnlockStated, who: Name): Signed {
    return this.submission(unlock, who, {
      verdict: "refuse",
      share: undefined,
      reason: "no",
      file: new Uint8Array(0),
    }).signed;
  }
}

export interface UnlockChanges {
  readonly ceremony?: Change;
  readonly unlock?: Change;
  readonly shareSet?: Change;
  readonly signer?: SealedHome["identity"];
}

export interface UnlockStated {
  readonly recipient: string;
  /** Of the unlock statement. */
  readonly digest: string;
  /** Of the ceremony statement. */
  readonly ceremony: string;
  readonly dealt: DealtByProcess;
  readonly state: GatheringState;
}
