/** A log in memory: entries, tiles and a checkpoint, as the store keeps them. */

import { createPrivateKey, hash } from "node:crypto";
import { checkpointText } from "../../src/audit/checkpoint.ts";
import { encodeEntry, type LogEntry } from "../../src/audit/entry.ts";
import type { LogReader } from "../../src/audit/log-directory.ts";
import { leafHash } from "../../src/audit/merkle.ts";
import { noteSigner, signNote, type NoteSigner } from "../../src/audit/signed-note.ts";
import { TileTree, type ReadTile } from "../../src/audit/tiles.ts";

/** A signer from a seed of 32 octets, hex. */
export function logSigner(origin: string, seed = "01".repeat(32)): NoteSigner {
  const der = Buffer.from(`302e020100300506032b657004220420${seed}`, "hex");
  return noteSigner(origin, createPrivateKey({ key: der, format: "der", type: "pkcs8" }));
}

export class MemoryLog {
  readonly signer: NoteSigner;
  readonly leaves: Uint8Array[] = [];
  readonly tiles = new Map<string, Uint8Array>();
  readonly tree = TileTree.empty();

  constructor(origin = "ca.example.com/audit") {
    this.signer = logSigner(origin);
  }

  /** One batch. */
  append(leaves: readonly Uint8Array[]): void {
    this.leaves.push(...leaves);
    for (const { level, n, hashes } of this.tree.append(leaves.map(leafHash))) {
      this.tiles.set(`${level}/${n}`, hashes);
    }
  }

  readonly readTile: ReadTile = async (level, n) => {
    const tile = this.tiles.get(`${level}/${n}`);
    if (tile === undefined) throw new Error(`no tile ${level}/${n}`);
    return tile;
  };

  checkpoint(): string {
    return signNote(
      checkpointText(this.signer.name, this.tree.size, this.tree.root()),
      this.signer,
    );
  }

  reader(): LogReader {
    return {
      size: this.tree.size,
      checkpoint: this.checkpoint(),
      entries: async (from, to) => this.leaves.slice(from, to),
      tile: this.readTile,
    };
  }
}

const at = new Date("2026-11-21T20:05:01.123Z");
const keyId = "6feecc8c16c5551d9feb3eb5f77e2da773bf68bd9ef9c52927ceb2c86e56892b";
const actor = { kind: "requester", id: "deploy", via: "api-key" } as const;
const service = { kind: "service", id: "ca.example.com" } as const;

export const sha256 = (bytes: Uint8Array): string => `sha256:${hash("sha256", bytes)}`;

/** Bytes that an outer reader of DER takes for a certificate or CRL: TBS, algorithm, signature. */
export function signedObject(serialNumber: string): { der: Uint8Array; tbs: Uint8Array } {
  const tbs = Buffer.from(`3016${"0214"}${serialNumber}`, "hex");
  return {
    tbs,
    der: Buffer.concat([
      Buffer.from([0x30, tbs.length + 5]),
      tbs,
      Buffer.from("3000030100", "hex"),
    ]),
  };
}

/** The 20 octets of the n-th serial number of these tests. */
export function serialNumberOf(n: number): string {
  return `40${n.toString(16).padStart(38, "0")}`;
}

/** `log.started`, then an intent and its result by turns, until there are `size` records. */
export function issuanceLeaves(size: number): Uint8Array[] {
  const leaves: Uint8Array[] = [];
  const add = (entry: LogEntry): void => {
    leaves.push(encodeEntry(entry));
  };
  if (size > 0) {
    add({
      type: "log.started",
      at,
      actor: service,
      subject: {},
      data: { origin: "ca.example.com/audit" },
    });
  }
  while (leaves.length < size) {
    const intent = leaves.length;
    const { der, tbs } = signedObject(serialNumberOf(intent));
    const subject = { issuer: "issuing", keyId, serialNumber: serialNumberOf(intent) };
    add({
      type: "sign.intent",
      at,
      actor,
      subject,
      data: { operation: "certificate", tbs: sha256(tbs), profile: "server", policy: sha256(tbs) },
    });
    if (leaves.length < size) {
      add({ type: "sign.done", at, actor, subject, data: { intent, certificate: sha256(der) } });
    }
  }
  return leaves;
}
