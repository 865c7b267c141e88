/** `countersign requester`: the machines that may ask, each changed by one signed statement of an operator. */

import { randomBytes } from "node:crypto";
import { canonicalJson, type JsonObject } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { CountersignError } from "../errors.ts";
import type { Credential, Requester, RequesterStatement } from "../policy/requester.ts";
import type { ApiClient } from "./api-client.ts";
import { confirm } from "./ask.ts";
import type { Context } from "./context.ts";
import { CommandFailure, ExitCode, usage } from "./failure.ts";
import { checkWritable, removeSecretFile, writeSecretFile } from "./files.ts";
import { headOf, seenHead } from "./log-head.ts";
import { operatorOf, REQUESTER_NAMESPACE, sshSign } from "./operator.ts";

export interface AddOptions {
  readonly issuer: readonly string[];
  readonly profile: readonly string[];
  readonly dns: readonly string[];
  readonly ip: readonly string[];
  readonly denyDns: readonly string[];
  readonly denyIp: readonly string[];
  readonly revoke: "own" | "any";
  readonly mtls: readonly string[];
  readonly keyOut?: string;
  readonly replace?: boolean;
  readonly yes?: boolean;
}

export interface RemoveOptions {
  readonly yes?: boolean;
}

/** The part of a statement that says what is changed. */
type Change =
  | { readonly action: "set"; readonly requester: Requester }
  | { readonly action: "remove"; readonly name: string };

const API_KEY_PREFIX = "csk_";
const API_KEY_OCTETS = 32;

export async function addRequester(
  context: Context,
  name: string,
  options: AddOptions,
): Promise<ExitCode> {
  const { output } = context;
  const { keyOut } = options;
  if (options.issuer.length === 0 || options.profile.length === 0) {
    throw usage(
      "what may this requester ask for?",
      "give --issuer and --profile, each once or more; an empty list would be none",
    );
  }
  const apiKey =
    options.mtls.length > 0
      ? undefined
      : `${API_KEY_PREFIX}${randomBytes(API_KEY_OCTETS).toString("base64url")}`;
  if (keyOut !== undefined) {
    if (apiKey === undefined) throw usage("there is no API key to write with --mtls");
    checkWritable(keyOut, false, "name another file: a key is never overwritten");
  }
  const change: Change = { action: "set", requester: requesterFrom(name, options, apiKey) };
  const client = await context.connect();
  const present = await listOf(client);
  if (options.replace !== true && present.some((requester) => requester.name === name)) {
    throw new CommandFailure(`there is a requester ${name} already`, {
      code: "requester-exists",
      next: "take another name, or give --replace: its credentials and rules are then the new ones",
    });
  }
  // On disk before it counts: a key that is in force and that nobody has would be of no use.
  if (keyOut !== undefined && apiKey !== undefined) writeSecretFile(keyOut, `${apiKey}\n`);
  let statement: RequesterStatement;
  try {
    statement = await changeRequester(context, client, change, options.yes === true);
  } catch (error) {
    if (keyOut !== undefined && cameToNothing(error)) {
      removeSecretFile(keyOut);
      throw (error as CommandFailure).with(
        `${keyOut} was removed again: the key in it is not in force`,
      );
    }
    throw error;
  }
  output.result({
    requester: change.requester,
    ...(apiKey === undefined ? {} : keyOut === undefined ? { apiKey } : { apiKeyFile: keyOut }),
    statement: { sequence: statement.sequence, sha256: digestOf(bytesOf(statement)) },
  });
  output.note(`requester ${name} is in force`);
  if (keyOut !== undefined) {
    output.line(`API key: ${keyOut}`);
  } else if (apiKey !== undefined) {
    output.note("its API key, shown this once:");
    output.line(apiKey);
  }
  return ExitCode.done;
}

export async function removeRequester(
  context: Context,
  name: string,
  options: RemoveOptions,
): Promise<ExitCode> {
  const client = await context.connect();
  const statement = await changeRequester(
    context,
    client,
    { action: "remove", name },
    options.yes === true,
  );
  context.output.result({
    removed: name,
    statement: { sequence: statement.sequence, sha256: digestOf(bytesOf(statement)) },
  });
  context.output.line(`requester ${name} is removed; what it was issued stays valid`);
  return ExitCode.done;
}

export async function listRequesters({ output, connect }: Context): Promise<ExitCode> {
  const requesters = await listOf(await connect());
  output.result({ requesters });
  if (requesters.length === 0) {
    output.line("no requester");
    return ExitCode.done;
  }
  output.table(
    ["NAME", "CREDENTIALS", "ISSUERS", "PROFILES", "NAMES", "REVOKES"],
    requesters.map((requester) => [
      requester.name,
      requester.credentials.map(credentialText).join(" ") || "none",
      requester.issuers.join(",") || "none",
      requester.profiles.join(",") || "none",
      namesText(requester) || "none",
      requester.revoke,
    ]),
  );
  return ExitCode.done;
}

function credentialText(credential: Credential): string {
  return credential.kind === "api-key" ? "api-key" : `mtls:${credential.issuer}:${credential.name}`;
}

function namesText({ names }: Requester): string {
  return Object.entries(names)
    .flatMap(([kind, { allow, deny = [] }]) => [
      ...allow.map((pattern) => `${kind}:${pattern}`),
      ...deny.map((pattern) => `not:${kind}:${pattern}`),
    ])
    .join(" ");
}

async function listOf(client: ApiClient): Promise<Requester[]> {
  operatorOf(client);
  const { requesters } = await client.json<{ requesters: Requester[] }>("/v1/requesters", {
    as: "operator",
  });
  return requesters;
}

function requesterFrom(name: string, options: AddOptions, apiKey: string | undefined): Requester {
  const credentials: Credential[] = options.mtls.map(mtlsCredential);
  if (apiKey !== undefined) {
    credentials.push({ kind: "api-key", sha256: digestOf(Buffer.from(apiKey)) });
  }
  const rules = (
    allow: readonly string[],
    deny: readonly string[],
  ): { allow: readonly string[]; deny?: readonly string[] } | undefined =>
    allow.length + deny.length === 0
      ? undefined
      : { allow, ...(deny.length === 0 ? {} : { deny }) };
  const dns = rules(options.dns, options.denyDns);
  const ip = rules(options.ip, options.denyIp);
  return {
    name,
    credentials,
    issuers: options.issuer,
    profiles: options.profile,
    names: { ...(dns === undefined ? {} : { dns }), ...(ip === undefined ? {} : { ip }) },
    revoke: options.revoke,
  };
}

/** `issuing:dns:agent.example.test`: the issuer, then a name of the certificate with its kind. */
function mtlsCredential(text: string): Credential {
  const colon = text.indexOf(":");
  const issuer = text.slice(0, Math.max(colon, 0));
  const name = text.slice(colon + 1);
  if (issuer === "" || !/^(?:dns|ip|email|uri):./.test(name)) {
    throw usage(
      `${text} does not name a client certificate`,
      "write ISSUER:KIND:NAME, for example issuing:dns:agent.example.test",
    );
  }
  return { kind: "mtls", issuer, name };
}

/** Makes, shows, signs and sends the statement; once more where somebody else's change came first. */
async function changeRequester(
  context: Context,
  client: ApiClient,
  change: Change,
  yes: boolean,
): Promise<RequesterStatement> {
  const { operator, sshKey } = operatorOf(client);
  for (let attempt = 1; ; attempt++) {
    const statement = await statementFor(client, operator, change);
    const bytes = bytesOf(statement);
    await confirmStatement(context, statement, yes);
    const signature = await sshSign(sshKey, REQUESTER_NAMESPACE, bytes);
    try {
      await client.json("/v1/requesters", {
        as: "operator",
        body: { statement: bytes.toString("base64"), signature },
      });
      return statement;
    } catch (error) {
      const stale = error instanceof CommandFailure && error.code === "statement-stale";
      if (!stale || attempt > 1) throw error;
      context.output.note("another change came first: the statement is made again");
    }
  }
}

async function statementFor(
  client: ApiClient,
  operator: string,
  change: Change,
): Promise<RequesterStatement> {
  const next = await client.json<{ sequence: number; previous: string | null }>(
    "/v1/requesters/next",
    { as: "operator" },
  );
  const head = await headOf(client);
  // Parsed by the rules of the service, so that nothing is signed that it would refuse.
  const { parseRequesterStatement } = await import("../policy/requester.ts");
  try {
    return parseRequesterStatement({
      type: "countersign/requester/v1",
      operator,
      at: new Date().toISOString(),
      sequence: next.sequence,
      previous: next.previous,
      log: seenHead(head),
      ...change,
    });
  } catch (error) {
    if (!(error instanceof CountersignError)) throw error;
    throw new CommandFailure(error.message, {
      exitCode: ExitCode.usage,
      code: error.code,
      next: "nothing was signed; correct the options",
    });
  }
}

async function confirmStatement(
  context: Context,
  statement: RequesterStatement,
  yes: boolean,
): Promise<void> {
  const { output } = context;
  output.note(
    `statement ${digestOf(bytesOf(statement))}, to be signed for ${REQUESTER_NAMESPACE}:`,
  );
  output.note(JSON.stringify(statement, undefined, 2));
  await confirm(context, "Sign this?", yes);
}

/** Whether the failure says for certain that the statement is not in force. */
function cameToNothing(error: unknown): error is CommandFailure {
  if (!(error instanceof CommandFailure)) return false;
  const { status } = error.problem;
  return (
    (typeof status === "number" && status >= 400 && status < 500) ||
    error.exitCode === ExitCode.usage ||
    error.code === "declined" ||
    error.code === "not-signed" ||
    error.code === "ssh-keygen-missing"
  );
}

function bytesOf(statement: RequesterStatement): Buffer {
  return Buffer.from(canonicalJson(statement as unknown as JsonObject));
}
