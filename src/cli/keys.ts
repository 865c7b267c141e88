/** `countersign keys`: who can open which key, and the ceremonies that change it. CUSTODY 3, 5. */

import { readPlan, type DealtKeyType } from "../custody/plan.ts";
import type { Roster } from "../custody/roster.ts";
import { CountersignError } from "../errors.ts";
import { planOf, propose } from "./ceremony.ts";
import type { Context } from "./context.ts";
import { CommandFailure, ExitCode, usage } from "./failure.ts";
import { keyNamed, keysOf } from "./key-reference.ts";
import type { Cell } from "./output.ts";
import type { KeyAnswer } from "./people-answers.ts";
import { PinnedService } from "./pinned-service.ts";

export interface SealOptions {
  readonly threshold?: string;
  readonly custodian: readonly string[];
  readonly issuerName?: string;
  readonly payload?: "pin" | "pkcs8";
  readonly reason?: string;
}

export interface GenerateOptions extends SealOptions {
  readonly type: DealtKeyType;
}

/** A share that nobody has proved for longer than this may be lost. */
const PROOF_MILLISECONDS = 90 * 86_400_000;

export async function listKeys(context: Context): Promise<ExitCode> {
  const { output } = context;
  const client = await context.connect();
  const keys = await keysOf(client);
  output.result({ keys });
  for (const [place, key] of keys.entries()) {
    if (place > 0) output.line();
    output.line({ text: key.issuer ?? "a key without an issuer", colour: "bold" });
    output.fields(
      [
        ["key", key.keyId],
        ["custody", key.custody === "sealed" ? "opens with shares" : "opens by itself"],
        ["state", key.state],
        ["may sign", key.operations.join(", ") || "nothing now"],
        ["until", key.until],
        ["for", key.ceremony],
        ...key.shareSets.flatMap((set): [string, Cell | readonly string[]][] => [
          [
            `epoch ${set.epoch}`,
            `any ${set.threshold} of ${set.shareCount}${set.state === "pending" ? ", waits for its confirmations" : ""}`,
          ],
          ["", set.custodians.map((custodian) => custodianText(custodian))],
        ]),
        ["warning", warningOf(key)],
      ],
      2,
    );
  }
  return ExitCode.done;
}

function custodianText({
  index,
  operator,
  role,
  confirmedAt,
  provedAt,
}: KeyAnswer["shareSets"][number]["custodians"][number]): string {
  const said =
    provedAt !== undefined
      ? `proved ${provedAt.slice(0, 10)}`
      : confirmedAt !== undefined
        ? `confirmed ${confirmedAt.slice(0, 10)}`
        : "not confirmed yet";
  return `share ${index}: ${operator}${role === "escrow" ? " (escrow)" : ""}, ${said}`;
}

/** Too few who have shown lately that they still hold their share: CUSTODY 4.2. */
function warningOf({ shareSets }: KeyAnswer): Cell | undefined {
  const active = shareSets.find(({ state }) => state === "active");
  if (active === undefined) return undefined;
  const since = Date.now() - PROOF_MILLISECONDS;
  const proved = active.custodians.filter(({ confirmedAt, provedAt }) =>
    [confirmedAt, provedAt].some((time) => time !== undefined && Date.parse(time) > since),
  ).length;
  const wanted = Math.min(active.threshold + 1, active.shareCount);
  if (proved >= wanted) return undefined;
  return {
    text: `only ${proved} of ${active.shareCount} shares were proved within 90 days: countersign share prove`,
    colour: "yellow",
  };
}

/** A seal around a key in use, or a new one in its place. */
export async function sealKey(
  context: Context,
  named: string,
  options: SealOptions,
): Promise<ExitCode> {
  const client = await context.connect();
  const service = new PinnedService(client);
  const { keyId } = await keyNamed(client, named);
  const key = (await keysOf(client)).find((one) => one.keyId === keyId);
  if (key === undefined) throw usage(`there is no key ${named}`, "countersign keys list");
  const active = key.shareSets.find(({ state }) => state === "active");
  const issuer = options.issuerName ?? (await issuerNameOf(context, key));
  const plan = await planFrom(service, options, {
    issuer,
    key: { use: keyId },
    payload: options.payload ?? (await payloadOf(service, active?.digest)),
    epoch: (active?.epoch ?? 0) + 1,
    previous: active?.digest ?? null,
    reason: options.reason ?? (active === undefined ? "seal the key" : "new shares of the key"),
  });
  return propose(context, client, {
    kind: active === undefined ? "generate" : "reshare",
    keyId,
    reason: plan.reason,
    plan: planOf(plan),
  });
}

/** A key that a dealer makes, sealed from the beginning. */
export async function generateKey(context: Context, options: GenerateOptions): Promise<ExitCode> {
  if (options.issuerName === undefined) {
    throw usage("which issuer is the key for?", "give --issuer-name 'CN=…'");
  }
  const client = await context.connect();
  const plan = await planFrom(new PinnedService(client), options, {
    issuer: options.issuerName,
    key: { generate: options.type },
    payload: options.payload ?? "pkcs8",
    epoch: 1,
    previous: null,
    reason: options.reason ?? `a new key for ${options.issuerName}`,
  });
  return propose(context, client, { kind: "generate", reason: plan.reason, plan: planOf(plan) });
}

interface PlanParts {
  readonly issuer: string;
  readonly key: object;
  readonly payload: "pin" | "pkcs8";
  readonly epoch: number;
  readonly previous: string | null;
  readonly reason: string;
}

/** Checked here as the service will check it. */
async function planFrom(
  service: PinnedService,
  { threshold, custodian: told }: SealOptions,
  parts: PlanParts,
): Promise<PlanParts> {
  const roster = await service.roster();
  const people = told.length > 0 ? told : withRecipient(roster);
  if (people.length < 2) {
    throw usage(
      `a secret is split among two or more, and ${people.length === 0 ? "nobody in the roster has" : `only ${people[0]} has`} an age recipient`,
      "enrol more people (countersign enrol), or name them with --custodian",
    );
  }
  const plan = {
    type: "countersign/plan/v1",
    service: service.name,
    ...parts,
    threshold:
      threshold === undefined
        ? Math.floor(people.length / 2) + 1
        : numberOf(threshold, "--threshold"),
    shareCount: people.length,
    custodians: people.map((operator) => ({
      operator,
      recipient: recipientOf(roster, operator),
      role: "custodian",
    })),
    roster: roster.digest,
  };
  try {
    readPlan(Buffer.from(planOf(plan), "base64"));
  } catch (error) {
    if (!(error instanceof CountersignError)) throw error;
    throw new CommandFailure(error.message, {
      exitCode: ExitCode.usage,
      code: error.code,
      next: "nothing was proposed; correct the options",
    });
  }
  return plan;
}

function withRecipient(roster: Roster): readonly string[] {
  return roster.document.operators.flatMap(({ id, recipient }) =>
    recipient === undefined ? [] : [id],
  );
}

function recipientOf(roster: Roster, operator: string): string {
  const person = roster.operators.get(operator);
  if (person?.recipient !== undefined) return person.recipient;
  throw usage(
    person === undefined
      ? `there is no operator ${operator} in the roster`
      : `${operator} has no age recipient in the roster, and so can get no share`,
    "countersign enrol makes one; countersign roster add puts it into the roster",
  );
}

function numberOf(text: string, option: string): number {
  if (!/^[1-9][0-9]?$/.test(text)) throw usage(`${option} is a number`);
  return Number(text);
}

async function issuerNameOf(context: Context, { issuer }: KeyAnswer): Promise<string> {
  if (issuer === undefined) {
    throw usage("which issuer is the key for?", "give --issuer-name 'CN=…'");
  }
  const client = await context.connect();
  const { issuers } = await client.json<{ issuers: { id: string; subject: string }[] }>(
    "/v1/issuers",
    { as: "operator" },
  );
  return issuers.find(({ id }) => id === issuer)?.subject ?? issuer;
}

/** What is sealed stays what it was: the plan of the share set in force says it; a token in use has a PIN. */
async function payloadOf(
  service: PinnedService,
  shareSet: string | undefined,
): Promise<"pin" | "pkcs8"> {
  if (shareSet === undefined) return "pin";
  const ceremonies = await service.client.json<{
    ceremonies: readonly { id: string; shareSet?: string }[];
  }>(`/v1/ceremonies?limit=200`, { as: "operator" });
  const dealt = ceremonies.ceremonies.find((one) => one.shareSet === shareSet);
  if (dealt === undefined) {
    throw usage(
      "is the key itself sealed, or the PIN of its token?",
      "give --payload pkcs8 or pin",
    );
  }
  const { body } = await service.client.request(`/v1/ceremonies/${dealt.id}/plan`, {
    as: "operator",
  });
  return readPlan(body).payload;
}
