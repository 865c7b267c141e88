/** A custodian's own share files, on their own machine, and the check of a share before anything of it leaves. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ShareSet } from "../custody/plan.ts";
import {
  commitmentOf,
  decodeShare,
  type Share,
  type ShareContext,
} from "../custody/sealed/share.ts";
import { readShareFileText, recipientCount } from "../custody/sealed/share-file.ts";
import { openerOf, type Opener } from "./age-identity.ts";
import { CommandFailure, usage } from "./failure.ts";
import { makeOwnFolder, readInput, replaceSecretFile } from "./files.ts";
import { openShareSet, serviceNameOf, type Stated } from "./pinned-service.ts";
import { configurationFolder, type Settings } from "./settings.ts";

/** What the share set says of one custodian. */
export type Place = ShareSet["custodians"][number];

/** A share of this person's that was opened and is the right one. */
export interface OpenedShare {
  readonly share: Share;
  /** The one line that is the share, in capitals. */
  readonly text: string;
  readonly context: ShareContext;
  readonly place: Place;
}

/** The share files of one service, in a folder that only their owner may look into. */
export class ShareStore {
  readonly folder: string;
  readonly #identityKey: string;

  constructor(settings: Pick<Settings, "shares">, identityKey: string) {
    this.#identityKey = identityKey;
    // A service's name may hold what no file's may.
    const name = serviceNameOf(identityKey).replaceAll(/[^A-Za-z0-9.-]/g, "_");
    this.folder = join(settings.shares ?? join(configurationFolder(), "shares"), name);
  }

  fileOf({ keyId, epoch }: ShareSet, { index }: Pick<Place, "index">): string {
    return join(this.folder, `${keyId.slice(0, 16)}-epoch${epoch}-share${index}.age`);
  }

  save(shareSet: Stated<ShareSet>, place: Place, file: Uint8Array): string {
    makeOwnFolder(this.folder);
    const path = this.fileOf(shareSet.statement, place);
    replaceSecretFile(path, file);
    this.keepNote(shareSet);
    return path;
  }

  /** The share set itself, so that a share can be checked without a service. */
  keepNote(shareSet: Stated<ShareSet>): void {
    makeOwnFolder(this.folder);
    replaceSecretFile(this.#noteOf(shareSet.digest), shareSet.note);
  }

  /**
   * The newest share set of a key that is kept here.
   *
   * @param named - the beginning of its keyId; of any key when absent, if there is only one.
   * @param digest - of the share set, where that is told.
   */
  find(named: string | undefined, digest: string | undefined): Stated<ShareSet> | undefined {
    if (digest !== undefined) return this.shareSet(digest);
    if (!existsSync(this.folder)) return undefined;
    const kept = readdirSync(this.folder)
      .filter((name) => name.endsWith(".share-set"))
      .map((name) => openShareSet(readFileSync(join(this.folder, name)), this.#identityKey))
      .filter(({ statement }) => named === undefined || statement.keyId.startsWith(named));
    if (new Set(kept.map(({ statement }) => statement.keyId)).size > 1) return undefined;
    return kept.toSorted((a, b) => a.statement.epoch - b.statement.epoch).at(-1);
  }

  /** The share set as it was kept beside its share; the keeper's signature is checked again. */
  shareSet(digest: string): Stated<ShareSet> | undefined {
    const path = this.#noteOf(digest);
    if (!existsSync(path)) return undefined;
    const stated = openShareSet(readFileSync(path), this.#identityKey);
    return stated.digest === digest ? stated : undefined;
  }

  #noteOf(digest: string): string {
    return join(this.folder, `${digest.slice(7, 39)}.share-set`);
  }
}

/** This person's place in a share set. @throws CommandFailure `share-not-yours`. */
export function placeOf({ custodians, epoch }: ShareSet, operator: string): Place {
  const place = custodians.find((custodian) => custodian.operator === operator);
  if (place !== undefined) return place;
  throw new CommandFailure(`${operator} holds no share of this key in epoch ${epoch}`, {
    code: "share-not-yours",
    next: `its custodians are ${custodians.map((custodian) => custodian.operator).join(", ")}`,
  });
}

/** The age identity of the settings, or of `--identity`. */
export function ownOpener(settings: Settings, told: string | undefined): Promise<Opener> {
  const file = told ?? settings.ageIdentity;
  if (file === undefined) {
    throw usage(
      "which age identity opens your share?",
      "give --identity FILE, or write ageIdentity into the configuration",
    );
  }
  return openerOf(file);
}

/**
 * Refuses a share file that more than its custodian can open: age does not show who else can (ST-16).
 *
 * @throws CommandFailure `share-malformed`, `share-unreadable`.
 */
export function requireOneRecipient(file: Uint8Array, where: string): void {
  const count = recipientCount(file);
  if (count === 1) return;
  throw new CommandFailure(
    `${where} can be opened by ${count} recipients, and a share has one: somebody else may be able to read it`,
    {
      code: "share-unreadable",
      next: "do not use it. Tell the other custodians: a share that somebody else could read is dealt anew",
    },
  );
}

/**
 * Opens a share file and checks the share against the share set, on this machine.
 *
 * @throws CommandFailure or CountersignError with the codes of CUSTODY 4.3, without a character of the share.
 */
export async function openOwnShare(
  file: string,
  opener: Opener,
  shareSet: ShareSet,
  place: Place,
): Promise<OpenedShare> {
  if (!existsSync(file)) {
    throw new CommandFailure(`your share is not here: ${file} is missing`, {
      code: "share-missing",
      next: "name its file with --share; bring it in from paper with countersign share import; or fetch it, if you have not confirmed it yet: countersign share fetch",
    });
  }
  const octets = readInput(file);
  requireOneRecipient(octets, file);
  const opened = await opener.open(octets);
  try {
    return checkedShare(Buffer.from(opened).toString("latin1"), shareSet, place);
  } finally {
    opened.fill(0);
  }
}

/**
 * Reads the text of a share, or of a share file, and checks it against the share set.
 *
 * @throws CommandFailure `share-malformed`, `share-checksum`, `share-foreign`, `share-stale`, `share-not-yours`,
 *   `share-wrong`.
 */
export function checkedShare(text: string, shareSet: ShareSet, place: Place): OpenedShare {
  const share = readShareFileText(text);
  const { epoch, threshold, shareCount } = shareSet;
  const keyId = Buffer.from(shareSet.keyId, "hex");
  const wrong = (code: string, message: string, next: string): CommandFailure =>
    new CommandFailure(message, { code, next: `nothing was sent; ${next}` });
  if (!keyId.subarray(0, share.keyLabel.length).equals(share.keyLabel)) {
    throw wrong("share-foreign", "this share is of another key", "take the one of this key");
  }
  if (share.epoch !== epoch) {
    throw wrong(
      "share-stale",
      `this share is of epoch ${share.epoch}, and the share set of epoch ${epoch}`,
      share.epoch < epoch
        ? "the key was dealt anew since: take the newer share"
        : "somebody may have put an old database back: ask the other custodians",
    );
  }
  if (share.threshold !== threshold || share.shareCount !== shareCount) {
    throw wrong(
      "share-stale",
      `this share is one of ${share.shareCount} of which any ${share.threshold} unlock, and the share set says any ${threshold} of ${shareCount}`,
      "somebody may have changed the share set: ask the other custodians",
    );
  }
  if (share.x !== place.index) {
    throw wrong(
      "share-not-yours",
      `this is share ${share.x}, and share ${place.index} is the one of ${place.operator}`,
      "take your own: a share of somebody else's is worth an alarm",
    );
  }
  const context: ShareContext = { keyId, epoch, threshold, shareCount };
  const { commit, proof } = commitmentOf(context, share);
  if (
    !Buffer.from(commit).equals(Buffer.from(place.commit, "hex")) ||
    !Buffer.from(proof).equals(Buffer.from(place.proof, "hex"))
  ) {
    throw wrong(
      "share-wrong",
      "this is the text of a share, but not of the one that was dealt",
      "nobody mistypes that far: ask the other custodians, and look for the file or the paper that you confirmed",
    );
  }
  return { share, text: shareLine(text), context, place };
}

/** The line that is the share, one way of writing for all. */
function shareLine(text: string): string {
  const line = text
    .split(/\r?\n/)
    .find((one) => one.trim() !== "" && !one.startsWith("#"))!
    .replaceAll(/[\s-]/g, "")
    .toUpperCase();
  decodeShare(line);
  return line;
}

/** What a share file says, for the person's own file. CUSTODY 3.3. */
export function shareFileComments(
  service: string,
  shareSet: Stated<ShareSet>,
  { index, operator }: Place,
): string[] {
  const { keyId, epoch, threshold, shareCount } = shareSet.statement;
  return [
    "# countersign share, version 1. Keep secret. Never e-mail, photograph or paste into a web page.",
    `# service ${service}`,
    `# key ${keyId.slice(0, 16)}…   epoch ${epoch}   share ${index} of ${shareCount}, any ${threshold} unlock   custodian ${operator}`,
    `# share set ${shareSet.digest}`,
  ];
}
