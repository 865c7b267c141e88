/** `countersign share`: a custodian's own share, fetched, confirmed, proved, and kept on paper. CUSTODY 2.4, 3.2, 4.2. */

import { existsSync } from "node:fs";
import { digestOf } from "../audit/digest.ts";
import { readConfirmation, readDrill } from "../custody/personal-statement.ts";
import type { ShareSet } from "../custody/plan.ts";
import { encryptToRecipient } from "../custody/sealed/age-file.ts";
import { proveShare, shareGroups } from "../custody/sealed/share.ts";
import { checkRecipient } from "../custody/sealed/share-file.ts";
import { namespaces } from "../custody/statement.ts";
import { ask, canAsk, confirm as agree } from "./ask.ts";
import type { Context } from "./context.ts";
import { CommandFailure, ExitCode, usage } from "./failure.ts";
import { checkWritable, readInput, writeSecretFile } from "./files.ts";
import { keyNamed, keysOf } from "./key-reference.ts";
import type { ShareSetAnswer } from "./people-answers.ts";
import {
  openShareSet,
  PinnedService,
  pinnedKey,
  serviceNameOf,
  type Stated,
} from "./pinned-service.ts";
import { shareQr } from "./qr.ts";
import {
  checkedShare,
  openOwnShare,
  ownOpener,
  placeOf,
  requireOneRecipient,
  shareFileComments,
  ShareStore,
  type Place,
} from "./share-store.ts";
import { showShareSet } from "./statement-view.ts";

export interface ShareOptions {
  /** Digest of a share set; the one that waits for its confirmations, or the one in force, when absent. */
  readonly shareSet?: string;
  readonly share?: string;
  readonly identity?: string;
  readonly yes?: boolean;
}

export interface PrintOptions extends ShareOptions {
  readonly out?: string;
  readonly qr: boolean;
}

export interface ImportOptions extends ShareOptions {
  readonly from?: string;
  readonly recipient?: string;
}

/** Octets of a share's text with whatever stands around it on a printed page. */
const PRINTED_OCTETS = 65_536;

interface Own {
  readonly service: PinnedService;
  readonly store: ShareStore;
  readonly shareSet: Stated<ShareSet>;
  readonly place: Place;
}

/** This person's place in the share set that is meant: the one in this state, or else the other one. */
async function ownPlace(
  context: Context,
  named: string,
  told: string | undefined,
  state: "pending" | "active",
): Promise<Own> {
  const service = new PinnedService(await context.connect());
  const { keyId } = await keyNamed(service.client, named);
  const sets = (await keysOf(service.client)).find((key) => key.keyId === keyId)?.shareSets ?? [];
  const digest = told ?? (sets.find((set) => set.state === state) ?? sets[0])?.digest;
  const shareSet = await service.shareSet(keyId, digest);
  const { epoch } = shareSet.statement;
  const isActive = sets.some((set) => set.digest === shareSet.digest && set.state === "active");
  service.checkEpoch({ keyId, epoch, shareSet: shareSet.digest }, isActive ? "active" : "pending");
  const store = new ShareStore(service.client.settings, service.identityKey);
  return { service, store, shareSet, place: placeOf(shareSet.statement, service.operator) };
}

export async function fetchShare(
  context: Context,
  named: string,
  options: ShareOptions,
): Promise<ExitCode> {
  const own = await ownPlace(context, named, options.shareSet, "pending");
  const file = await fetched(own);
  context.output.result({ file, shareSet: own.shareSet.digest, index: own.place.index });
  context.output.line(`share ${own.place.index}: ${file}`);
  context.output.note(`confirm it: countersign share confirm ${own.shareSet.statement.keyId}`);
  return ExitCode.done;
}

/** Fetches the file that the share set names, and nothing else. @returns where it is now. */
async function fetched({ service, store, shareSet, place }: Own): Promise<string> {
  const { body } = await service.client.request(
    `/v1/keys/${shareSet.statement.keyId}/shares/${place.index}?shareSet=${encodeURIComponent(shareSet.digest)}`,
    { as: "operator" },
  );
  if (digestOf(body) !== place.file) {
    throw new CommandFailure("the file that came is not the one that the share set names", {
      code: "share-foreign",
      next: "nothing was kept. Tell the other custodians",
    });
  }
  requireOneRecipient(body, "the file that came");
  return store.save(shareSet, place, body);
}

export async function confirmShare(
  context: Context,
  named: string,
  options: ShareOptions,
): Promise<ExitCode> {
  const { output } = context;
  const opener = await ownOpener(await context.settings(), options.identity);
  const own = await ownPlace(context, named, options.shareSet, "pending");
  const { service, store, shareSet, place } = own;
  const head = await service.head();
  const file = options.share ?? store.fileOf(shareSet.statement, place);
  if (options.share === undefined && !existsSync(file)) await fetched(own);
  showShareSet(output, shareSet);
  await agree(context, `Confirm that share ${place.index} is here and yours?`, options.yes);
  const { share, context: shareContext } = await openOwnShare(
    file,
    opener,
    shareSet.statement,
    place,
  );
  const proof = proveShare(shareContext, share, Buffer.from(shareSet.digest.slice(7), "hex"));
  share.y.fill(0);
  const body = await service.sign(
    namespaces.confirm,
    {
      type: "countersign/confirmation/v1",
      shareSet: shareSet.digest,
      index: place.index,
      proof: proof.toString("base64"),
      ...service.by(head),
    },
    readConfirmation,
  );
  const answer = await service.client.json<ShareSetAnswer>(
    `/v1/keys/${shareSet.statement.keyId}/confirmations`,
    { as: "nobody", body },
  );
  output.result({ file, index: place.index, ...answer });
  const waiting = answer.custodians.filter(({ confirmedAt }) => confirmedAt === undefined);
  output.line({ text: `share ${place.index} is confirmed: ${file}`, colour: "green" });
  output.line(
    waiting.length === 0
      ? "all custodians have confirmed: the share set is in force"
      : `waiting for ${waiting.map(({ operator }) => operator).join(", ")}`,
  );
  output.note(
    `the service forgets the file now. Keep a copy of yours, and one on paper: countersign share print ${shareSet.statement.keyId}`,
  );
  return ExitCode.done;
}

export async function proveOwnShare(
  context: Context,
  named: string,
  options: ShareOptions,
): Promise<ExitCode> {
  const { output } = context;
  const opener = await ownOpener(await context.settings(), options.identity);
  const { service, store, shareSet, place } = await ownPlace(
    context,
    named,
    options.shareSet,
    "active",
  );
  const { keyId } = shareSet.statement;
  const head = await service.head();
  const { challenge } = await service.client.json<{ challenge: string }>(
    `/v1/keys/${keyId}/drills`,
    { as: "operator", body: { index: place.index } },
  );
  const octets = Buffer.from(challenge, "base64");
  if (octets.length !== 32) {
    throw new CommandFailure("the service sent something else than a challenge", {
      code: "statement-refused",
      next: "nothing was signed",
    });
  }
  await agree(
    context,
    `Prove that you still hold share ${place.index}? It is not sent.`,
    options.yes,
  );
  const { share, context: shareContext } = await openOwnShare(
    options.share ?? store.fileOf(shareSet.statement, place),
    opener,
    shareSet.statement,
    place,
  );
  const proof = proveShare(shareContext, share, octets);
  share.y.fill(0);
  const body = await service.sign(
    namespaces.confirm,
    {
      type: "countersign/drill/v1",
      shareSet: shareSet.digest,
      index: place.index,
      proof: proof.toString("base64"),
      challenge,
      ...service.by(head),
    },
    readDrill,
  );
  const answer = await service.client.json<ShareSetAnswer>(`/v1/keys/${keyId}/drills`, {
    method: "PUT",
    as: "nobody",
    body,
  });
  output.result({ index: place.index, ...answer });
  output.line({
    text: `share ${place.index} is still yours, and that is recorded`,
    colour: "green",
  });
  return ExitCode.done;
}

/** What print and import need, without a service where the share set is here. */
async function offlinePlace(
  context: Context,
  named: string | undefined,
  told: string | undefined,
): Promise<Omit<Own, "service"> & { identityKey: string }> {
  const settings = await context.settings();
  const identityKey = pinnedKey(settings.identityKey);
  const store = new ShareStore(settings, identityKey);
  const { operator } = settings;
  if (operator === undefined) throw usage("whose share is it?", "give --operator ID");
  if (told !== undefined && !/^sha256:[0-9a-f]{64}$/.test(told)) {
    // A file: the note that the service gave out, or a colleague passed on.
    const shareSet = openShareSet(readInput(told), identityKey);
    return { store, identityKey, shareSet, place: placeOf(shareSet.statement, operator) };
  }
  const kept = store.find(named, told);
  if (kept !== undefined) {
    return { store, identityKey, shareSet: kept, place: placeOf(kept.statement, operator) };
  }
  if (named === undefined) {
    throw usage("of which key is the share?", "name the key, or give --share-set FILE");
  }
  const own = await ownPlace(context, named, told, "active");
  return { ...own, identityKey };
}

export async function printShare(
  context: Context,
  named: string | undefined,
  options: PrintOptions,
): Promise<ExitCode> {
  const { output } = context;
  if (output.json) {
    throw usage("a share is for people: it is not printed as JSON", "leave --json out");
  }
  if (options.out === undefined && process.stdout.isTTY !== true) {
    throw usage(
      "a share is printed on a terminal, or into a file of mode 0600",
      "give --out FILE; through a pipe it could end up anywhere",
    );
  }
  if (options.out !== undefined) {
    checkWritable(options.out, false, "name another file: a share is never overwritten");
  }
  const opener = await ownOpener(await context.settings(), options.identity);
  const { store, identityKey, shareSet, place } = await offlinePlace(
    context,
    named,
    options.shareSet,
  );
  const file = options.share ?? store.fileOf(shareSet.statement, place);
  const { text, share } = await openOwnShare(file, opener, shareSet.statement, place);
  share.y.fill(0);
  const lines = [
    ...shareFileComments(serviceNameOf(identityKey), shareSet, place),
    `# its commitment begins ${place.commit.slice(0, 8)}`,
    "",
    ...numberedGroups(text),
    ...(options.qr ? ["", ...shareQr(text, options.out === undefined ? "light" : "dark")] : []),
    "",
  ];
  if (options.out === undefined) {
    output.raw(`${lines.join("\n")}\n`);
    output.note("clear the screen when it is on paper, and its scroll-back too");
    return ExitCode.done;
  }
  writeSecretFile(options.out, `${lines.join("\n")}\n`);
  output.line(
    `share ${place.index}: ${options.out}, for your eyes only; remove it when it is on paper`,
  );
  return ExitCode.done;
}

const GROUPS_PER_LINE = 6;

/** ` 1 CSSHA   2 RE1QY …`: the number says where somebody is who reads it out. */
function numberedGroups(text: string): string[] {
  const groups = shareGroups(text).map(
    (group, place) => `${String(place + 1).padStart(2)} ${group}`,
  );
  const lines: string[] = [];
  for (let first = 0; first < groups.length; first += GROUPS_PER_LINE) {
    lines.push(groups.slice(first, first + GROUPS_PER_LINE).join("   "));
  }
  return lines;
}

export async function importShare(
  context: Context,
  named: string | undefined,
  options: ImportOptions,
): Promise<ExitCode> {
  const { output } = context;
  const settings = await context.settings();
  const opener =
    options.recipient === undefined ? await ownOpener(settings, options.identity) : undefined;
  const { store, identityKey, shareSet, place } = await offlinePlace(
    context,
    named,
    options.shareSet,
  );
  const recipient = options.recipient ?? opener?.recipient ?? place.recipient;
  checkRecipient(recipient);
  const typed = shareTextOf(await typedShare(context, options.from));
  const { share, text } = checkedShare(typed, shareSet.statement, place);
  share.y.fill(0);
  const comments = shareFileComments(serviceNameOf(identityKey), shareSet, place);
  const file = await encryptToRecipient(
    recipient,
    Buffer.from(`${comments.join("\n")}\n${text}\n`),
  );
  const path = options.share ?? store.fileOf(shareSet.statement, place);
  if (options.share === undefined) {
    store.keepNote(shareSet);
    checkWritable(path, false, "it is here already; name another file with --share");
  }
  writeSecretFile(path, file, "it is here already; name another file with --share");
  output.result({ file: path, shareSet: shareSet.digest, index: place.index, recipient });
  output.line({ text: `share ${place.index} is the right one: ${path}`, colour: "green" });
  output.line(`it opens with ${recipient}`);
  return ExitCode.done;
}

/** From a file, from standard input, or typed. */
async function typedShare(context: Context, from: string | undefined): Promise<string> {
  if (from !== undefined || !canAsk(context)) {
    const octets = readInput(from ?? "-");
    if (octets.length > PRINTED_OCTETS) {
      throw usage(`${from ?? "standard input"} is too long for the text of a share`);
    }
    const text = octets.toString("utf8");
    octets.fill(0);
    return text;
  }
  context.output.note("type the share, with or without spaces; Enter after the last group");
  let text = "";
  // 85 characters may be typed on several lines; an empty one ends it early.
  while (text.replaceAll(/[\s-]/g, "").length < 85) {
    const line = await ask(text === "" ? "share: " : "       ");
    // Off the screen again, as far as the terminal lets us.
    process.stderr.write("\u001b[1A\u001b[2K");
    if (line === "") break;
    text += `${line} `;
  }
  return text;
}

/** The share in what was typed or scanned: comments, the numbers of the groups and a QR code are left out. */
function shareTextOf(text: string): string {
  const words = text
    .split(/\r?\n/)
    .filter((line) => !line.startsWith("#") && !/[▀▄█]/.test(line))
    .join(" ")
    .split(/\s+/)
    .filter((word) => word !== "");
  const numbered =
    words.length === 34 &&
    words.every((word, place) => place % 2 === 1 || word === String(place / 2 + 1));
  return words.filter((_, place) => !numbered || place % 2 === 1).join("");
}
