/** `countersign inbox` and `invite`: what waits for somebody, and how they are asked. */

import { approve } from "./approve.ts";
import { agrees, canAsk } from "./ask.ts";
import type { Context } from "./context.ts";
import { proveEnrolment } from "./enrol.ts";
import { CommandFailure, ExitCode, failureFrom } from "./failure.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { operatorOf } from "./operator.ts";
import { onOneLine } from "./output.ts";
import type { InboxItem, UnlockAnswer } from "./people-answers.ts";
import { PinnedService } from "./pinned-service.ts";
import { confirmShare, fetchShare, proveOwnShare } from "./share.ts";
import { submit } from "./submit.ts";

export async function inbox(context: Context): Promise<ExitCode> {
  const { output } = context;
  const client = await context.connect();
  operatorOf(client);
  const { items } = await client.json<{ items: readonly InboxItem[] }>("/v1/inbox", {
    as: "operator",
  });
  output.result({ items });
  if (items.length === 0) {
    output.line("nothing waits for you");
    return ExitCode.done;
  }
  output.table(
    ["WHAT", "COMMAND", "UNTIL", "REASON"],
    items.map((item) => [
      deeds[item.what],
      commandOf(item),
      item.until?.slice(0, 16) ?? "",
      item.reason ?? "",
    ]),
  );
  if (!canAsk(context)) return ExitCode.done;
  let worst: ExitCode = ExitCode.done;
  for (const item of items) {
    output.line();
    output.line({
      text: `${deeds[item.what]}: ${onOneLine(item.reason ?? commandOf(item))}`,
      colour: "bold",
    });
    if (!(await agrees("Look at it now?"))) continue;
    try {
      await take(context, item);
    } catch (error) {
      // One that fails, or that somebody thinks better of, leaves the others.
      const failure = failureFrom(error);
      if (failure === undefined) throw error;
      output.failure(failure);
      if (failure.code !== "declined") worst = ExitCode.failed;
    }
  }
  return worst;
}

const deeds: Readonly<Record<InboxItem["what"], string>> = {
  prove: "prove your age recipient",
  approve: "approve or reject",
  submit: "give your share",
  fetch: "fetch your share",
  confirm: "confirm your share",
  drill: "prove your share",
};

function commandOf({ what, enrolment, ceremony, unlock, keyId }: InboxItem): string {
  switch (what) {
    case "prove":
      return `countersign enrol --prove ${enrolment ?? ""}`;
    case "approve":
      return `countersign approve ${ceremony ?? ""}`;
    case "submit":
      return `countersign submit ${unlock ?? ""}`;
    case "fetch":
      return `countersign share fetch ${keyId ?? ""}`;
    case "confirm":
      return `countersign share confirm ${keyId ?? ""}`;
    case "drill":
      return `countersign share prove ${keyId ?? ""}`;
  }
}

async function take(context: Context, item: InboxItem): Promise<ExitCode> {
  const { what, enrolment = "", ceremony = "", unlock = "", keyId = "", shareSet } = item;
  const ofSet = shareSet === undefined ? {} : { shareSet };
  switch (what) {
    case "prove":
      return proveEnrolment(context, enrolment);
    case "approve":
      return approve(context, ceremony, { artefact: [] });
    case "submit":
      return submit(context, unlock, { artefact: [] });
    case "fetch":
      await fetchShare(context, keyId, ofSet);
      return confirmShare(context, keyId, ofSet);
    case "confirm":
      return confirmShare(context, keyId, ofSet);
    case "drill":
      return proveOwnShare(context, keyId, ofSet);
  }
}

/** The text of a mail or message to those who are to agree. It holds nothing that anybody could misuse. */
export async function invite(context: Context, id: string): Promise<ExitCode> {
  const { output } = context;
  const service = new PinnedService(await context.connect());
  const { what, stated, reason, kind, until, command } = await invited(service, id);
  const { hex, words } = fingerprintOf(stated.octets);
  const text = [
    `Subject: ${service.name}: ${what} (${kind})`,
    "",
    `${service.operator} asks you to ${what} for ${service.name}.`,
    "",
    `What:   a ceremony of kind ${kind}`,
    `Why:    ${onOneLine(reason)}`,
    `Until:  ${onOneLine(until)}`,
    "",
    "Run this on your own machine, and read what it shows before you answer:",
    "",
    `    ${command}`,
    "",
    "It shows the fingerprint of the statement, which must be this one:",
    "",
    `    ${hex}`,
    `    ${words}`,
    "",
    "Nobody will ever ask you for a share, or for a key or a passphrase, in a reply, in a form or on a web page.",
    "If somebody does, tell the other operators, and lock the key: countersign lock KEY",
    "",
  ].join("\n");
  output.result({ id, kind, reason, until, command, fingerprint: { hex, words }, text });
  if (!output.json) output.raw(text);
  return ExitCode.done;
}

async function invited(service: PinnedService, id: string) {
  try {
    const stated = await service.ceremony(id);
    const { kind, reason, notAfter } = stated.statement;
    return {
      ...{ what: "approve or reject a ceremony", stated, reason, kind, until: notAfter },
      command: `countersign approve ${stated.statement.id}`,
    };
  } catch (error) {
    if (!(error instanceof CommandFailure) || error.code !== "ceremony-unknown") throw error;
  }
  const { unlock, ceremony } = await service.unlock(id);
  const { kind, reason } = ceremony.statement;
  const { expiresAt } = await service.client.json<UnlockAnswer>(
    `/v1/unlocks/${unlock.statement.id}`,
    { as: "operator" },
  );
  return {
    ...{ what: "give your share", stated: unlock, reason, kind, until: expiresAt },
    command: `countersign submit ${unlock.statement.id}`,
  };
}
