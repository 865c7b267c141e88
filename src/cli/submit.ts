/** `countersign submit` and `refuse`: a custodian's share for one unlock, checked here before it leaves. CUSTODY 6.1, 8.3. */

import { digestOf } from "../audit/digest.ts";
import { encryptToRecipient } from "../custody/sealed/age-file.ts";
import { namespaces, readSubmission } from "../custody/statement.ts";
import { showArtefacts } from "./artefacts.ts";
import { requireOpen, showDocument } from "./approve.ts";
import { confirm } from "./ask.ts";
import type { Context } from "./context.ts";
import { ExitCode, usage } from "./failure.ts";
import { missingText, type MissingAnswer } from "./people-answers.ts";
import { PinnedService, refused } from "./pinned-service.ts";
import { openOwnShare, ownOpener, placeOf, ShareStore } from "./share-store.ts";
import { showCeremony, showUnlock } from "./statement-view.ts";

export interface SubmitOptions {
  readonly share?: string;
  readonly identity?: string;
  readonly artefact: readonly string[];
  readonly yes?: boolean;
}

export interface RefuseOptions {
  readonly reason?: string;
  readonly yes?: boolean;
}

interface CountedAnswer {
  readonly given: readonly string[];
  readonly missing: MissingAnswer;
  readonly state: string;
}

/** What both begin with: the two statements, checked and shown. */
async function prepare(context: Context, id: string, artefacts: readonly string[]) {
  const service = new PinnedService(await context.connect());
  const { unlock, ceremony } = await service.unlock(id);
  await service.check(ceremony.statement);
  const head = await service.check(unlock.statement);
  service.checkEpoch(unlock.statement, "active");
  requireOpen(ceremony.statement);
  showCeremony(context.output, ceremony);
  await showDocument(context, service, ceremony.statement);
  showArtefacts(context.output, ceremony.statement, artefacts);
  showUnlock(context.output, unlock);
  return { service, unlock, ceremony, head };
}

export async function submit(
  context: Context,
  id: string,
  options: SubmitOptions,
): Promise<ExitCode> {
  const { output } = context;
  const opener = await ownOpener(await context.settings(), options.identity);
  const { service, unlock, ceremony, head } = await prepare(context, id, options.artefact);
  const { statement } = unlock;
  const store = new ShareStore(service.client.settings, service.identityKey);
  const shareSet =
    store.shareSet(statement.shareSet) ??
    (await service.shareSet(statement.keyId, statement.shareSet));
  const { keyId, epoch, threshold, shareCount, custodians } = shareSet.statement;
  if (
    keyId !== statement.keyId ||
    epoch !== statement.epoch ||
    threshold !== statement.threshold ||
    shareCount !== statement.shareCount
  ) {
    throw refused("the unlock and its share set contradict each other");
  }
  if (custodians.some(({ recipient }) => recipient === statement.recipient)) {
    throw refused("the unlock's recipient is a custodian's, and not one made for this unlock");
  }
  const place = placeOf(shareSet.statement, service.operator);
  await confirm(context, `Give share ${place.index} for this?`, options.yes);
  const file = options.share ?? store.fileOf(shareSet.statement, place);
  const own = await openOwnShare(file, opener, shareSet.statement, place);
  const share = await encryptToRecipient(statement.recipient, Buffer.from(`${own.text}\n`));
  own.share.y.fill(0);
  const { statement: submission, signature } = await service.sign(
    namespaces.submission,
    {
      type: "countersign/submission/v1",
      unlock: unlock.digest,
      verdict: "give",
      share: { index: place.index, file: digestOf(share) },
      ...service.by(head),
    },
    readSubmission,
  );
  const counted = await service.client.json<CountedAnswer>(
    `/v1/unlocks/${statement.id}/submissions`,
    {
      as: "nobody",
      body: { submission, signature, share: Buffer.from(share).toString("base64") },
    },
  );
  tell(context, counted, {
    unlock: unlock.digest,
    ceremony: ceremony.digest,
    verdict: "give",
    index: place.index,
  });
  output.line({ text: `share ${place.index} is counted`, colour: "green" });
  tellMissing(context, counted);
  return ExitCode.done;
}

export async function refuse(
  context: Context,
  id: string,
  { reason, yes }: RefuseOptions,
): Promise<ExitCode> {
  if (reason === undefined) throw usage("why is it refused?", "give --reason TEXT");
  const { service, unlock, ceremony, head } = await prepare(context, id, []);
  await confirm(context, `Refuse your share for this, because "${reason}"?`, yes);
  const { statement: submission, signature } = await service.sign(
    namespaces.submission,
    {
      type: "countersign/submission/v1",
      unlock: unlock.digest,
      verdict: "refuse",
      reason,
      ...service.by(head),
    },
    readSubmission,
  );
  const counted = await service.client.json<CountedAnswer>(
    `/v1/unlocks/${unlock.statement.id}/submissions`,
    { as: "nobody", body: { submission, signature } },
  );
  tell(context, counted, { unlock: unlock.digest, ceremony: ceremony.digest, verdict: "refuse" });
  context.output.line({ text: "refused, and recorded", colour: "green" });
  tellMissing(context, counted);
  return ExitCode.done;
}

function tell({ output }: Context, counted: CountedAnswer, said: object): void {
  output.result({ ...said, ...counted });
}

function tellMissing({ output }: Context, { given, missing, state }: CountedAnswer): void {
  output.fields(
    [
      ["state", state],
      ["given by", given.join(", ") || "nobody"],
      ["missing", missingText(missing)],
    ],
    2,
  );
}
