/** `countersign enrol`: a person's keys, and the signed request to be an operator. CUSTODY 8.4. */

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { canonicalJson, type Json } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { parseVerifierKey } from "../audit/signed-note.ts";
import { readEnrolment, readRecipientProof } from "../custody/personal-statement.ts";
import { checkRecipient } from "../custody/sealed/share-file.ts";
import { checkSshPublicKey, sshFingerprint } from "../custody/ssh-signature.ts";
import { namespaces } from "../custody/statement.ts";
import { CountersignError } from "../errors.ts";
import type { ApiClient } from "./api-client.ts";
import { makeIdentityFile, openerOf } from "./age-identity.ts";
import { agrees, canAsk, confirm } from "./ask.ts";
import type { Context } from "./context.ts";
import { CommandFailure, ExitCode, usage } from "./failure.ts";
import {
  checkWritable,
  makeOwnFolder,
  replaceSecretFile,
  writeResultFile,
  writeSecretFile,
} from "./files.ts";
import { fingerprintFields, fingerprintOf } from "./fingerprint.ts";
import { headOf, seenHead } from "./log-head.ts";
import { sshSign } from "./operator.ts";
import { serviceNameOf } from "./pinned-service.ts";
import { configurationFiles, configurationFolder, type Settings } from "./settings.ts";

export interface EnrolOptions {
  readonly agent?: boolean;
  readonly recipient?: string;
  readonly identity?: string;
  readonly identityKey?: string;
  readonly logKey?: string;
  readonly service?: string;
  readonly out?: string;
  readonly yes?: boolean;
}

/** A person as the statement has them. */
interface Person {
  readonly operator: string;
  /** What ssh-keygen signs with. */
  readonly sshKey: string;
  /** Type and base64. */
  readonly publicKey: string;
  readonly recipient: string;
  /** Where the identity of that recipient is; undefined where somebody else keeps it. */
  readonly ageIdentity: string | undefined;
}

export async function enrol(context: Context, options: EnrolOptions): Promise<ExitCode> {
  const { output } = context;
  const settings = await context.settings();
  const { operator } = settings;
  if (operator === undefined) throw usage("who enrols?", "give --operator ID");
  if (options.out !== undefined) checkWritable(options.out);
  const identityKey = options.identityKey ?? settings.identityKey;
  const logKey = options.logKey ?? settings.logKey;
  if (options.logKey !== undefined) requireVerifierKey("--log-key", options.logKey);
  const client = options.out === undefined ? await context.connect() : undefined;
  const service = await serviceName(client, options.service, options.identityKey, identityKey);

  const { sshKey, publicKey } = sshKeyOf(settings, options, operator);
  const { recipient, ageIdentity } = await recipientOf(settings, options);
  const person: Person = { operator, sshKey, publicKey, recipient, ageIdentity };
  output.fields([
    ["operator", operator],
    ["service", service],
    ["SSH key", `${publicKey.split(" ")[0]} ${sshFingerprint(publicKey)}, ${sshKey}`],
    ["age recipient", recipient],
    ["its identity", ageIdentity],
  ]);
  await confirm(context, "Sign the request to be enrolled with these?", options.yes);
  const body = await signed(
    person,
    {
      type: "countersign/enrolment/v1",
      operator,
      at: new Date().toISOString(),
      service,
      key: publicKey,
      recipient,
    },
    readEnrolment,
  );

  let sent: { id: string; proved: boolean } | undefined;
  if (options.out !== undefined) {
    writeResultFile(options.out, `${JSON.stringify(body, undefined, 2)}\n`);
  } else {
    sent = await send(client!, person, body);
  }
  const stored = await store(context, settings, person, { identityKey, logKey });
  output.result({
    operator,
    service,
    key: publicKey,
    recipient,
    ...(ageIdentity === undefined ? {} : { ageIdentity }),
    ...(identityKey === undefined ? {} : { identityKey, fingerprint: fingerprintOf(identityKey) }),
    ...(sent === undefined ? { file: options.out } : sent),
    ...(stored === undefined ? {} : { configuration: stored }),
  });
  if (sent !== undefined) {
    output.line({
      text: `sent, as enrolment ${sent.id}${sent.proved ? ", and the recipient is proved" : ""}`,
      colour: "green",
    });
    output.note(`an operator takes you in: countersign roster add ${sent.id}`);
  } else {
    output.line({ text: `request: ${options.out}`, colour: "green" });
    output.note("it holds no secret: send it to whoever makes the roster");
  }
  showPinned(context, service, identityKey);
  return ExitCode.done;
}

/** What everything that this person signs later hangs on. */
function showPinned({ output }: Context, service: string, identityKey: string | undefined): void {
  if (identityKey === undefined) {
    output.note(
      `the identity key of ${service} is not pinned yet: without it nothing is signed. Get it from somebody you trust and enrol again with --identity-key, or write it into the configuration`,
    );
    return;
  }
  output.line(`the identity key of ${service}, pinned here:`);
  output.fields([["key", identityKey], ...fingerprintFields(fingerprintOf(identityKey))], 2);
  output.note("compare it with another operator, by phone or face to face");
}

async function serviceName(
  client: ApiClient | undefined,
  told: string | undefined,
  toldKey: string | undefined,
  identityKey: string | undefined,
): Promise<string> {
  let pinned: string | undefined;
  try {
    pinned = identityKey === undefined ? undefined : serviceNameOf(identityKey);
  } catch (error) {
    throw usage(
      `${toldKey === undefined ? "identityKey of the configuration" : "--identity-key"}: ${(error as Error).message}`,
    );
  }
  const shown =
    client === undefined
      ? undefined
      : (await client.json<{ service: string }>("/v1/status", { as: "nobody" })).service;
  const names = [told, pinned, shown].filter((name) => name !== undefined);
  const [name] = names;
  if (name === undefined) {
    throw usage(
      "which service is it for?",
      "give --service NAME, or --identity-key KEY, which has its name in it",
    );
  }
  if (names.some((other) => other !== name)) {
    throw new CommandFailure(
      `this is for ${name}, and ${names.find((other) => other !== name)} answers or is pinned`,
      {
        code: "statement-refused",
        next: "nothing was signed. Check --url, --service and --identity-key",
      },
    );
  }
  return name;
}

function requireVerifierKey(option: string, key: string): void {
  try {
    parseVerifierKey(key);
  } catch (error) {
    throw usage(`${option}: ${(error as Error).message}`);
  }
}

/** The key of `--ssh-key`, or the one that an agent holds. */
function sshKeyOf(
  { sshKey }: Settings,
  { agent }: EnrolOptions,
  operator: string,
): { sshKey: string; publicKey: string } {
  if (agent === true) return agentKey(operator);
  if (sshKey === undefined) {
    throw usage(
      "which SSH key do you sign with?",
      "give --ssh-key FILE (ssh-keygen -t ed25519 makes one; -t ed25519-sk one on a FIDO2 key), or --agent",
    );
  }
  const publicFile = sshKey.endsWith(".pub") ? sshKey : `${sshKey}.pub`;
  if (existsSync(publicFile)) {
    return { sshKey, publicKey: publicKeyFrom(readFileSync(publicFile, "utf8"), publicFile) };
  }
  // It asks for the passphrase by itself, where there is one.
  const shown = spawnSync("ssh-keygen", ["-y", "-f", sshKey], {
    encoding: "utf8",
    stdio: ["inherit", "pipe", "pipe"],
  });
  if (shown.status !== 0) {
    throw usage(
      `${sshKey} is no SSH key that ssh-keygen can read`,
      "name a private key, or the .pub file of a key in your agent",
    );
  }
  return { sshKey, publicKey: publicKeyFrom(shown.stdout, sshKey) };
}

function agentKey(operator: string): { sshKey: string; publicKey: string } {
  const listed = spawnSync("ssh-add", ["-L"], { encoding: "utf8" });
  const keys = (listed.status === 0 ? listed.stdout : "")
    .split("\n")
    .filter((line) => isAccepted(line));
  if (keys.length !== 1) {
    throw usage(
      `your SSH agent holds ${keys.length} keys that can sign here`,
      keys.length === 0
        ? "add one with ssh-add: Ed25519 or ECDSA P-256, also of a FIDO2 key"
        : "write the one to use into a .pub file, and name that with --ssh-key",
    );
  }
  const publicKey = publicKeyFrom(keys[0]!, "the agent");
  const file = join(configurationFolder(), `${operator}.pub`);
  if (!existsSync(file)) {
    makeOwnFolder(configurationFolder());
    writeResultFile(file, `${publicKey} ${operator}\n`);
  } else if (publicKeyFrom(readFileSync(file, "utf8"), file) !== publicKey) {
    throw usage(
      `${file} is another key than the one in your agent`,
      "name a .pub file with --ssh-key",
    );
  }
  return { sshKey: file, publicKey };
}

/** Type and base64, without the comment. */
function publicKeyFrom(line: string, where: string): string {
  const publicKey = line.trim().split(/\s+/).slice(0, 2).join(" ");
  try {
    checkSshPublicKey(publicKey);
  } catch (error) {
    throw usage(
      `the key of ${where} cannot sign here: ${(error as Error).message}`,
      "make one with ssh-keygen -t ed25519, or -t ed25519-sk on a FIDO2 key",
    );
  }
  return publicKey;
}

function isAccepted(line: string): boolean {
  try {
    checkSshPublicKey(line.trim().split(/\s+/).slice(0, 2).join(" "));
    return line.trim() !== "";
  } catch {
    return false;
  }
}

/** The recipient that is told, or that of an identity: one that is there, or a new one. */
async function recipientOf(
  settings: Settings,
  { recipient, identity }: EnrolOptions,
): Promise<{ recipient: string; ageIdentity: string | undefined }> {
  const own = identity ?? settings.ageIdentity;
  if (recipient !== undefined) {
    checkRecipient(recipient);
    return { recipient, ageIdentity: own === undefined ? undefined : resolve(own) };
  }
  const file = resolve(own ?? join(configurationFolder(), "age.key"));
  if (!existsSync(file)) {
    if (own === undefined) makeOwnFolder(configurationFolder());
    return { recipient: await makeIdentityFile(file), ageIdentity: file };
  }
  const { recipient: its } = await openerOf(file);
  if (its === undefined) {
    throw usage(
      `only age knows the recipient of ${file}`,
      "give it with --recipient; the plugin printed it when it made the identity",
    );
  }
  return { recipient: its, ageIdentity: file };
}

async function signed(
  { sshKey }: Person,
  statement: object,
  read: (octets: Uint8Array) => unknown,
): Promise<{ statement: string; signature: string }> {
  const octets = Buffer.from(canonicalJson(statement as Json));
  try {
    read(octets);
  } catch (error) {
    if (!(error instanceof CountersignError)) throw error;
    throw new CommandFailure(error.message, {
      exitCode: ExitCode.usage,
      code: error.code,
      next: "nothing was signed; correct the options",
    });
  }
  return {
    statement: octets.toString("base64"),
    signature: await sshSign(sshKey, namespaces.enrol, octets),
  };
}

/** Sends the request, and proves that its recipient is this person's. */
async function send(
  client: ApiClient,
  person: Person,
  body: object,
): Promise<{ id: string; proved: boolean }> {
  const { id } = await client.json<{ id: string }>("/v1/enrolments", { as: "nobody", body });
  if (person.ageIdentity === undefined) return { id, proved: false };
  await proveRecipient(client, person, id, person.ageIdentity);
  return { id, proved: true };
}

async function proveRecipient(
  client: ApiClient,
  person: Person,
  id: string,
  ageIdentity: string,
): Promise<void> {
  const path = `/v1/enrolments/${encodeURIComponent(id)}`;
  const challenge = await client.request(`${path}/challenge`, { as: "nobody" });
  const answer = await (await openerOf(ageIdentity)).open(challenge.body);
  const proof = await signed(
    person,
    {
      type: "countersign/recipient-proof/v1",
      operator: person.operator,
      at: new Date().toISOString(),
      log: seenHead(await headOf(client)),
      enrolment: id,
      recipient: person.recipient,
      answer: digestOf(answer),
    },
    readRecipientProof,
  );
  answer.fill(0);
  await client.request(`${path}/proof`, { as: "nobody", body: proof });
}

/** The second half of an enrolment, where the first was sent without it: `countersign enrol --prove ID`. */
export async function proveEnrolment(context: Context, id: string): Promise<ExitCode> {
  const client = await context.connect();
  const { operator, sshKey, ageIdentity } = client.settings;
  if (operator === undefined || sshKey === undefined || ageIdentity === undefined) {
    throw usage(
      "this needs your keys",
      "give --operator and --ssh-key, and ageIdentity in the configuration",
    );
  }
  const { recipient } = await openerOf(ageIdentity);
  const { enrolments } = await client.json<{
    enrolments: readonly { id: string; recipient: string }[];
  }>("/v1/enrolments", { as: "operator" });
  const its = enrolments.find((enrolment) => enrolment.id === id)?.recipient ?? recipient;
  if (its === undefined) throw usage(`there is no enrolment ${id}`);
  const person: Person = { operator, sshKey, publicKey: "", recipient: its, ageIdentity };
  await proveRecipient(client, person, id, ageIdentity);
  context.output.result({ id, proved: true });
  context.output.line({ text: "the recipient is proved", colour: "green" });
  return ExitCode.done;
}

/**
 * Writes the configuration where there is none, and adds to one after a question.
 *
 * @returns its file, where it was written.
 */
async function store(
  context: Context,
  settings: Settings,
  { operator, sshKey, ageIdentity }: Person,
  pinned: { readonly identityKey: string | undefined; readonly logKey: string | undefined },
): Promise<string | undefined> {
  const wanted: Record<string, string> = {};
  const want = (name: string, value: string | undefined): void => {
    if (value !== undefined) wanted[name] = value;
  };
  want("url", settings.url);
  want("ca", settings.ca === undefined ? undefined : resolve(settings.ca));
  want("operator", operator);
  want("sshKey", resolve(sshKey));
  want("ageIdentity", ageIdentity);
  want("identityKey", pinned.identityKey);
  want("logKey", pinned.logKey);
  const there = configurationFiles().find((file) => existsSync(file));
  if (there === undefined) {
    const [file] = configurationFiles();
    makeOwnFolder(configurationFolder());
    writeSecretFile(file, `${JSON.stringify(wanted, undefined, 2)}\n`);
    context.output.note(`settings: ${file}`);
    return file;
  }
  const present = there.endsWith(".json") ? readJson(there) : undefined;
  const changes =
    present === undefined
      ? []
      : Object.entries(wanted).filter(([name, value]) => !sameSetting(name, present[name], value));
  if (present !== undefined && changes.length === 0) return undefined;
  const lines = (present === undefined ? Object.entries(wanted) : changes).map(
    ([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value)}`,
  );
  context.output.note(`${there} is there, and says otherwise than this:\n${lines.join("\n")}`);
  if (present !== undefined && canAsk(context) && (await agrees("Write these into it?"))) {
    const merged = { ...present, ...Object.fromEntries(changes) };
    replaceSecretFile(there, `${JSON.stringify(merged, undefined, 2)}\n`);
    return there;
  }
  context.output.note("it was left as it is; write them in where you want them");
  return undefined;
}

function sameSetting(name: string, present: unknown, value: string): boolean {
  if (typeof present !== "string") return false;
  const isPath = name === "ca" || name === "sshKey" || name === "ageIdentity";
  if (!isPath) return present === value;
  return present === value || resolve(configurationFolder(), present) === value;
}

function readJson(file: string): Record<string, unknown> | undefined {
  try {
    const value = JSON.parse(readFileSync(file, "utf8")) as unknown;
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
