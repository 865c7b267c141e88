/** `countersign ceremony` and `unlock open`: what is to be done, proposed, shown and listed. CUSTODY 6. */

import { canonicalJson, parseCanonicalJson, type Json } from "../audit/canonical-json.ts";
import type { CeremonyKind } from "../custody/statement.ts";
import { parseDuration } from "../policy/lifetime.ts";
import { shown } from "./approve.ts";
import type { ApiClient } from "./api-client.ts";
import type { Context } from "./context.ts";
import { ExitCode, usage } from "./failure.ts";
import { readInput } from "./files.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { keyNamed } from "./key-reference.ts";
import { progressFields, type CeremonyAnswer, type UnlockAnswer } from "./people-answers.ts";
import { PinnedService } from "./pinned-service.ts";
import { showUnlock } from "./statement-view.ts";

export interface ProposeOptions {
  readonly key?: string;
  readonly reason: string;
  readonly notAfter?: string;
  readonly tbs: readonly string[];
  readonly operation: readonly string[];
  readonly requester: readonly string[];
  readonly from?: string;
  readonly until?: string;
  readonly idle?: string;
  readonly release?: string;
  readonly plan?: string;
}

export interface ListOptions {
  readonly state?: string;
  readonly kind?: string;
  readonly key?: string;
}

/** What `POST /v1/ceremonies` takes. */
export interface Proposal {
  readonly kind: CeremonyKind;
  readonly reason: string;
  readonly keyId?: string;
  readonly notAfter?: string;
  readonly artefacts?: readonly { readonly tbs: string; readonly lint?: string }[];
  readonly window?: object;
  readonly plan?: string;
  readonly signatures?: readonly { readonly operator: string; readonly signature: string }[];
}

/** A window without `--until` is as long as this; without `--idle` it closes after this long without use. */
const WINDOW_MILLISECONDS = 24 * 3_600_000;
const IDLE_SECONDS = 8 * 3_600;

export async function proposeCeremony(
  context: Context,
  kind: CeremonyKind,
  options: ProposeOptions,
): Promise<ExitCode> {
  const client = await context.connect();
  return propose(context, client, await proposalFrom(client, kind, options));
}

/** Sends a proposal, and shows the statement that came of it as whoever approves it will see it. */
export async function propose(
  context: Context,
  client: ApiClient,
  proposal: Proposal,
): Promise<ExitCode> {
  const { output } = context;
  const service = new PinnedService(client);
  const answer = await client.json<CeremonyAnswer>("/v1/ceremonies", {
    as: "operator",
    body: proposal,
  });
  const stated = await shown(context, service, answer.id);
  output.result({ ...answer, fingerprint: fingerprintOf(stated.octets) });
  output.line({
    text: "proposed; nobody has agreed to it yet, and that includes you",
    colour: "green",
  });
  output.fields(progressFields(answer), 2);
  output.note(`approve it: countersign approve ${answer.id}`);
  output.note(`ask the others: countersign invite ${answer.id}`);
  return ExitCode.done;
}

async function proposalFrom(
  client: ApiClient,
  kind: CeremonyKind,
  options: ProposeOptions,
): Promise<Proposal> {
  const keyId = options.key === undefined ? undefined : (await keyNamed(client, options.key)).keyId;
  const base = {
    kind,
    reason: options.reason,
    ...(keyId === undefined ? {} : { keyId }),
    ...(options.notAfter === undefined ? {} : { notAfter: laterTime(options.notAfter) }),
  };
  switch (kind) {
    case "sign": {
      if (keyId === undefined || options.tbs.length === 0) {
        throw usage("what is to be signed, and by which key?", "give --key KEY and --tbs FILE");
      }
      const artefacts = options.tbs.map((file) => ({ tbs: readInput(file).toString("base64") }));
      return { ...base, artefacts };
    }
    case "window":
      if (keyId === undefined || options.operation.length === 0) {
        throw usage(
          "what may be signed, and by which key?",
          "give --key KEY and --operation crl:COUNT or certificate:PROFILE:COUNT",
        );
      }
      return { ...base, window: windowFrom(options) };
    case "resume": {
      if (options.release === undefined) {
        throw usage("what is let go?", "give --release all, or --release KEY,KEY");
      }
      const release =
        options.release === "all"
          ? "all"
          : await Promise.all(
              options.release
                .split(",")
                .map(async (named) => (await keyNamed(client, named)).keyId),
            );
      const { name } = new PinnedService(client);
      return { ...base, plan: planOf({ type: "countersign/resume/v1", service: name, release }) };
    }
    case "generate":
    case "reshare":
    case "roster":
    case "policy":
    case "retire":
      if (options.plan === undefined) {
        throw usage(
          `a ceremony of kind ${kind} carries a document`,
          "give --plan FILE; countersign keys generate, keys seal and roster add make one themselves",
        );
      }
      return { ...base, plan: canonicalFile(options.plan) };
  }
}

/** A document as it is sent: base64 of its canonical JSON. */
export function planOf(document: object): string {
  return Buffer.from(canonicalJson(document as Json)).toString("base64");
}

/** The octets of a file that holds canonical JSON, with or without a newline at its end. */
function canonicalFile(file: string): string {
  const octets = readInput(file);
  const document = octets.at(-1) === 0x0a ? octets.subarray(0, -1) : octets;
  try {
    parseCanonicalJson(document);
  } catch (error) {
    throw usage(
      `${file} is not canonical JSON: ${(error as Error).message}`,
      "jq -cS . FILE writes it so, for ordinary text",
    );
  }
  return document.toString("base64");
}

function windowFrom(options: ProposeOptions): object {
  const notBefore = options.from === undefined ? new Date() : timeFrom(options.from);
  const notAfter =
    options.until === undefined
      ? new Date(notBefore.getTime() + WINDOW_MILLISECONDS)
      : new Date(laterTime(options.until));
  return {
    operations: options.operation.map(operationFrom),
    ...(options.requester.length === 0 ? {} : { requesters: options.requester }),
    notBefore: notBefore.toISOString(),
    notAfter: notAfter.toISOString(),
    idleSeconds: options.idle === undefined ? IDLE_SECONDS : parseDuration(options.idle),
  };
}

function operationFrom(text: string): object {
  const match = /^(crl|certificate)(?::([a-z0-9][a-z0-9.-]{0,62}))?:([1-9][0-9]{0,8})$/.exec(text);
  if (match === null) {
    throw usage(`${text} is no operation`, "write crl:24 or certificate:server:100");
  }
  const [, operation, profile, max] = match;
  return { operation, ...(profile === undefined ? {} : { profile }), max: Number(max) };
}

function timeFrom(text: string): Date {
  const time = /^\d{4}-\d\d-\d\d(?:T[\d:.]+(?:Z|[+-]\d\d:\d\d))?$/.test(text)
    ? new Date(text)
    : new Date(Number.NaN);
  if (Number.isNaN(time.getTime())) {
    throw usage(`${text} is no time`, "write RFC 3339, such as 2026-11-28T20:00:00Z");
  }
  return time;
}

/** A time, or how long from now. */
function laterTime(text: string): string {
  return /^\d{4}-/.test(text)
    ? timeFrom(text).toISOString()
    : new Date(Date.now() + parseDuration(text) * 1000).toISOString();
}

export async function showOneCeremony(context: Context, id: string): Promise<ExitCode> {
  const { output } = context;
  const client = await context.connect();
  const service = new PinnedService(client);
  const stated = await shown(context, service, id);
  const answer = await client.json<CeremonyAnswer>(`/v1/ceremonies/${stated.statement.id}`, {
    as: "operator",
  });
  output.result({
    ...answer,
    statement: stated.statement,
    fingerprint: fingerprintOf(stated.octets),
  });
  output.line({ text: "how it stands", colour: "bold" });
  output.fields(
    [
      ...progressFields(answer),
      [
        "unlock",
        answer.unlock === undefined
          ? undefined
          : `${answer.unlock.id}, ${answer.unlock.state}, until ${answer.unlock.expiresAt}`,
      ],
      ["share set", answer.shareSet],
      ["signed", (answer.results ?? []).map(({ tbs }) => tbs)],
      [
        "trouble",
        answer.trouble === undefined ? undefined : { text: answer.trouble, colour: "red" },
      ],
    ],
    2,
  );
  return ExitCode.done;
}

export async function listCeremonies(context: Context, options: ListOptions): Promise<ExitCode> {
  const { output } = context;
  const client = await context.connect();
  const query = new URLSearchParams();
  if (options.state !== undefined) query.set("state", options.state);
  if (options.kind !== undefined) query.set("kind", options.kind);
  if (options.key !== undefined) query.set("keyId", (await keyNamed(client, options.key)).keyId);
  const page = await client.json<{ ceremonies: readonly CeremonyAnswer[]; next?: string }>(
    `/v1/ceremonies?${query.toString()}`,
    { as: "operator" },
  );
  output.result(page);
  output.table(
    ["ID", "KIND", "STATE", "PROPOSED BY", "UNTIL", "REASON"],
    page.ceremonies.map(({ id, kind, state, requestedBy, notAfter, reason }) => [
      id,
      kind,
      state,
      requestedBy,
      notAfter.slice(0, 16),
      reason,
    ]),
  );
  if (page.next !== undefined)
    output.note("there are older ones; --state and --kind narrow it down");
  return ExitCode.done;
}

export async function openUnlock(
  context: Context,
  ceremony: string,
  { gather }: { readonly gather?: string },
): Promise<ExitCode> {
  const { output } = context;
  const client = await context.connect();
  const service = new PinnedService(client);
  const stated = await service.ceremony(ceremony);
  const answer = await client.json<UnlockAnswer>("/v1/unlocks", {
    as: "operator",
    body: {
      ceremony: stated.statement.id,
      ...(gather === undefined ? {} : { gatherSeconds: parseDuration(gather) }),
    },
  });
  const { unlock } = await service.unlock(answer.id);
  showUnlock(output, unlock);
  output.result({ ...answer, fingerprint: fingerprintOf(unlock.octets) });
  output.line({ text: `shares are gathered until ${answer.expiresAt}`, colour: "green" });
  output.fields(progressFields(answer), 2);
  output.note(`give yours: countersign submit ${answer.id}`);
  output.note(`ask the others: countersign invite ${answer.id}`);
  return ExitCode.done;
}
