/** `countersign approve`, `reject` and `abort`: one person's signed word about a ceremony. CUSTODY 6. */

import { readAbort, readResume } from "../custody/personal-statement.ts";
import { readPlan, type Plan } from "../custody/plan.ts";
import { readRoster, type Roster } from "../custody/roster.ts";
import { namespaces, readApproval, type CeremonyStatement } from "../custody/statement.ts";
import { askedRules, CUSTODIAN, OPERATOR } from "../custody/votes.ts";
import { digestOf } from "../audit/digest.ts";
import { CommandFailure, ExitCode, usage } from "./failure.ts";
import { confirm } from "./ask.ts";
import { showArtefacts } from "./artefacts.ts";
import type { Context } from "./context.ts";
import { openerOf } from "./age-identity.ts";
import { progressFields, type ProgressAnswer } from "./people-answers.ts";
import { PinnedService, refused, type Stated } from "./pinned-service.ts";
import { showCeremony, showPlan, showResume, showRoster } from "./statement-view.ts";

export interface ApproveOptions {
  readonly role?: string;
  readonly artefact: readonly string[];
  readonly reason?: string;
  readonly yes?: boolean;
}

export interface AbortOptions {
  readonly reason: string;
  readonly yes?: boolean;
}

export function approve(context: Context, id: string, options: ApproveOptions): Promise<ExitCode> {
  return decide(context, id, "approve", options);
}

export function reject(context: Context, id: string, options: ApproveOptions): Promise<ExitCode> {
  if (options.reason === undefined) throw usage("why is it rejected?", "give --reason TEXT");
  return decide(context, id, "reject", options);
}

async function decide(
  context: Context,
  id: string,
  verdict: "approve" | "reject",
  options: ApproveOptions,
): Promise<ExitCode> {
  const { output } = context;
  const service = new PinnedService(await context.connect());
  const stated = await service.ceremony(id);
  const head = await service.check(stated.statement);
  requireOpen(stated.statement);
  showCeremony(output, stated);
  const plan = await showDocument(context, service, stated.statement);
  showArtefacts(output, stated.statement, options.artefact);
  const role = options.role ?? (await roleOf(service, stated.statement, plan));
  await confirm(
    context,
    `${verdict === "approve" ? "Approve" : "Reject"} this as ${role}?`,
    options.yes,
  );
  const body = await service.sign(
    namespaces.approval,
    {
      type: "countersign/approval/v1",
      ceremony: stated.digest,
      verdict,
      role,
      ...service.by(head),
      ...(verdict === "reject" ? { reason: options.reason } : {}),
    },
    readApproval,
  );
  const progress = await service.client.json<ProgressAnswer>(
    `/v1/ceremonies/${stated.statement.id}/approvals`,
    { as: "nobody", body },
  );
  output.result({ ceremony: stated.digest, verdict, role, ...progress });
  output.line({
    text: verdict === "approve" ? `approved as ${role}` : `rejected as ${role}`,
    colour: "green",
  });
  output.fields(progressFields(progress), 2);
  return ExitCode.done;
}

export async function abort(
  context: Context,
  id: string,
  { reason, yes }: AbortOptions,
): Promise<ExitCode> {
  const { output } = context;
  const service = new PinnedService(await context.connect());
  const stated = await service.ceremony(id);
  const head = await service.check(stated.statement);
  showCeremony(output, stated);
  await confirm(context, `Ask for the end of this, because "${reason}"?`, yes);
  const body = await service.sign(
    namespaces.abort,
    { type: "countersign/abort/v1", ceremony: stated.digest, reason, ...service.by(head) },
    readAbort,
  );
  const progress = await service.client.json<ProgressAnswer>(
    `/v1/ceremonies/${stated.statement.id}/abort`,
    { as: "nobody", body },
  );
  output.result({ ceremony: stated.digest, ...progress });
  output.line(
    progress.state === "aborted"
      ? "the ceremony is aborted"
      : "asked for; another operator must ask for it too, for you did not propose it",
  );
  return ExitCode.done;
}

/** @throws CommandFailure `ceremony-closed` once its time is over. */
export function requireOpen({ notAfter }: CeremonyStatement): void {
  if (Date.parse(notAfter) > Date.now()) return;
  throw new CommandFailure(`the ceremony was open until ${notAfter}`, {
    code: "ceremony-closed",
    next: "nothing was signed. Is the clock here right? If so, it is to be proposed again",
  });
}

/**
 * The document behind the digest in `plan`, by its octets.
 *
 * @returns the plan, where it is one.
 */
export async function showDocument(
  context: Context,
  service: PinnedService,
  statement: CeremonyStatement,
): Promise<Plan | undefined> {
  const { id, kind, plan: digest } = statement;
  if (digest === undefined) return undefined;
  const { body } = await service.client.request(`/v1/ceremonies/${id}/plan`, { as: "operator" });
  if (digestOf(body) !== digest) {
    throw refused("the document that the service shows is not the one that the statement names");
  }
  const { output } = context;
  if (kind === "generate" || kind === "reshare") {
    const plan = readPlan(body);
    showPlan(output, plan);
    await requireOwnRecipient(service, plan);
    return plan;
  }
  if (kind === "roster") {
    // What is new is marked against the version that the keeper names, and no other that the service may show.
    showRoster(output, readRoster(body), await service.rosterOf(statement));
  } else if (kind === "resume") {
    showResume(output, readResume(body));
  } else {
    output.line(body.toString());
  }
  return undefined;
}

/** A share would go to a recipient that is not this person's: the way to see it is to look before it is dealt. */
async function requireOwnRecipient(
  { operator, client: { settings } }: PinnedService,
  { custodians }: Plan,
): Promise<void> {
  const own = custodians.find((custodian) => custodian.operator === operator);
  if (own === undefined || settings.ageIdentity === undefined) return;
  const { recipient } = await openerOf(settings.ageIdentity);
  if (recipient !== undefined && recipient !== own.recipient) {
    throw new CommandFailure(
      `the plan sends your share to ${own.recipient}, and your identity is ${recipient}`,
      {
        code: "recipient-refused",
        next: "nothing was signed. If you did not enrol that recipient, tell the other operators by phone",
      },
    );
  }
}

/** The one role in which this person's word counts here; told by `--role` where there are several. */
async function roleOf(
  service: PinnedService,
  ceremony: CeremonyStatement,
  plan: Plan | undefined,
): Promise<string> {
  const roster = await service.roster();
  const asked = Object.keys(rulesOf(roster, ceremony));
  const own = [...(roster.operators.get(service.operator)?.roles ?? []), OPERATOR];
  const counted = [...new Set(asked.filter((role) => own.includes(role)))];
  if (counted.length === 1) return counted[0]!;
  if (counted.length > 1) {
    throw usage(
      `you could approve it as ${counted.join(" or ")}, and count in one role`,
      "say which with --role",
    );
  }
  const isCustodian = plan?.custodians.some(({ operator }) => operator === service.operator);
  return isCustodian === true ? CUSTODIAN : (own[0] ?? OPERATOR);
}

function rulesOf(roster: Roster, ceremony: CeremonyStatement): Readonly<Record<string, number>> {
  return { ...ceremony.rules, ...askedRules(roster, ceremony.kind) };
}

/** For those who only look. */
export async function shown(
  context: Context,
  service: PinnedService,
  id: string,
): Promise<Stated<CeremonyStatement>> {
  const stated = await service.ceremony(id);
  showCeremony(context.output, stated);
  await showDocument(context, service, stated.statement);
  return stated;
}
