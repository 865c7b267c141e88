/** `countersign lock` and `panic`: any one operator, at once. Locking is cheap, unlocking is not. */

import { readLock, readPanic } from "../custody/personal-statement.ts";
import { namespaces } from "../custody/statement.ts";
import type { Checkpoint } from "../audit/checkpoint.ts";
import { confirm } from "./ask.ts";
import type { Context } from "./context.ts";
import { CommandFailure, ExitCode } from "./failure.ts";
import { keyNamed } from "./key-reference.ts";
import { headOf } from "./log-head.ts";
import { PinnedService } from "./pinned-service.ts";

export async function lock(
  context: Context,
  named: string,
  { yes }: { readonly yes?: boolean },
): Promise<ExitCode> {
  const { output } = context;
  const service = new PinnedService(await context.connect());
  const { keyId, issuer } = await keyNamed(service.client, named);
  const head = await headInAnyCase(context, service);
  await confirm(context, `Lock key ${issuer ?? keyId} of ${service.name} at once?`, yes);
  const body = await service.sign(
    namespaces.lock,
    { type: "countersign/lock/v1", keyId, ...service.by(head) },
    readLock,
  );
  await service.client.request(`/v1/keys/${keyId}/lock`, {
    as: "nobody",
    body,
    repeatable: true,
  });
  output.result({ locked: keyId });
  output.line({ text: `key ${issuer ?? keyId} is locked`, colour: "green" });
  output.note(
    "a sealed key opens again by an unlock; any other is held until a ceremony of kind resume",
  );
  return ExitCode.done;
}

export async function panic(
  context: Context,
  { reason, yes }: { readonly reason: string; readonly yes?: boolean },
): Promise<ExitCode> {
  const { output } = context;
  const service = new PinnedService(await context.connect());
  const head = await headInAnyCase(context, service);
  await confirm(context, `Lock every key of ${service.name} at once, because "${reason}"?`, yes);
  const body = await service.sign(
    namespaces.lock,
    { type: "countersign/panic/v1", service: service.name, reason, ...service.by(head) },
    readPanic,
  );
  await service.client.request("/v1/panic", { as: "nobody", body, repeatable: true });
  output.result({ panic: service.name });
  output.line({ text: "every key is locked, and nothing opens", colour: "green" });
  output.note("it ends by a ceremony: countersign ceremony propose resume --release all");
  return ExitCode.done;
}

/** A log that was put back is a reason to lock, not one to refuse to: it is said, and the shown head is signed. */
async function headInAnyCase({ output }: Context, service: PinnedService): Promise<Checkpoint> {
  try {
    return await service.head();
  } catch (error) {
    const alarm =
      error instanceof CommandFailure &&
      /^(?:rolled-back|log-forked|state-unreadable)$/.test(error.code ?? "");
    if (!alarm) throw error;
    output.note(`ALARM: ${error.message}. Locking goes on; tell the other operators`);
    return headOf(service.client);
  }
}
