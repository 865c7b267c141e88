/** `countersign roster`: the first list of operators, who signs it, and each version after it. CUSTODY 8.4. */

import { existsSync } from "node:fs";
import { canonicalJson, type Json } from "../audit/canonical-json.ts";
import { readEnrolment, type Enrolment } from "../custody/personal-statement.ts";
import {
  checkGenesis,
  checkSuccessor,
  readRoster,
  type Roster,
  type RosterDocument,
  type RosterOperator,
  type RosterSignature,
} from "../custody/roster.ts";
import { SIGNATURE_SUFFIX, signaturesBeside } from "../custody/roster-file.ts";
import { verifySshSignature } from "../custody/ssh-signature.ts";
import { namespaces } from "../custody/statement.ts";
import { OPERATOR } from "../custody/votes.ts";
import { CountersignError } from "../errors.ts";
import { confirm } from "./ask.ts";
import { propose } from "./ceremony.ts";
import type { Context } from "./context.ts";
import { CommandFailure, ExitCode, usage } from "./failure.ts";
import { checkWritable, readInput, writeResultFile } from "./files.ts";
import { operatorOf, sshSign } from "./operator.ts";
import type { EnrolmentAnswer } from "./people-answers.ts";
import { PinnedService, serviceNameOf } from "./pinned-service.ts";
import { showRoster } from "./statement-view.ts";

export interface NewOptions {
  readonly out: string;
  readonly identityKey?: string;
  readonly logKey?: string;
  readonly role: readonly string[];
  readonly rule: readonly string[];
  readonly force?: boolean;
}

export interface SignOptions {
  readonly yes?: boolean;
  readonly force?: boolean;
}

export interface AddOptions {
  readonly out: string;
  readonly role: readonly string[];
  readonly rule: readonly string[];
  readonly reason?: string;
  readonly force?: boolean;
}

export interface ProposeOptions {
  readonly reason?: string;
}

export interface ShowOptions {
  readonly out?: string;
  readonly force?: boolean;
}

/** The kinds that have a rule from the first version on: as many people as for the roster itself. */
const ruledKinds = ["sign", "window", "generate", "reshare", "retire"] as const;

/** Assembles a genesis from the requests of those who are to be in it. */
export async function newRoster(
  context: Context,
  files: readonly string[],
  options: NewOptions,
): Promise<ExitCode> {
  const settings = await context.settings();
  const identity = options.identityKey ?? settings.identityKey;
  const log = options.logKey ?? settings.logKey;
  if (identity === undefined || log === undefined) {
    throw usage(
      "which keys does the service sign its statements and its log with?",
      "give --identity-key KEY and --log-key KEY, as the service's keeper prints them",
    );
  }
  let service: string;
  try {
    service = serviceNameOf(identity);
  } catch (error) {
    throw usage(`--identity-key: ${(error as Error).message}`);
  }
  const enrolments = files.map((file) => enrolmentFrom(file));
  const other = enrolments.find((enrolment) => enrolment.service !== service);
  if (other !== undefined) {
    throw usage(`${other.operator} enrolled for ${other.service}, and this is ${service}`);
  }
  const roles = rolesFrom(options.role);
  const operators = enrolments.map((enrolment) => operatorFrom(enrolment, roles));
  requireAllUsed(roles, operators);
  const majority = Math.floor(operators.length / 2) + 1;
  const document: RosterDocument = {
    type: "countersign/roster/v1",
    version: 1,
    previous: null,
    operators,
    service: { identity, log },
    rules: withRules(
      {
        roster: majority,
        policy: majority,
        resume: majority,
        ceremonies: Object.fromEntries(
          ruledKinds.map((kind) => [kind, { [OPERATOR]: majority }]),
        ) as RosterDocument["rules"]["ceremonies"],
      },
      options.rule,
    ),
  };
  const roster = written(document, options.out, options.force);
  tellRoster(context, roster, options.out);
  context.output.note(`everybody in it signs it: countersign roster sign ${options.out}`);
  if (operators.length === 1) {
    context.output.note("a roster of one: whatever it decides, one person decides");
  }
  return ExitCode.done;
}

/** Signs a roster with this person's key, beside its file. */
export async function signRoster(
  context: Context,
  file: string,
  options: SignOptions,
): Promise<ExitCode> {
  const { output } = context;
  const settings = await context.settings();
  const { operator, sshKey } = operatorOf({ settings });
  const roster = rosterFrom(file);
  const person = roster.operators.get(operator);
  if (person === undefined) {
    throw new CommandFailure(`there is no ${operator} in this roster`, {
      code: "operator-unknown",
      next: `in it are ${[...roster.operators.keys()].join(", ")}`,
    });
  }
  const signatureFile = `${file}.${operator}${SIGNATURE_SUFFIX}`;
  // A person with several keys signs with each.
  const place = options.force === true ? signatureFile : freeName(signatureFile);
  checkWritable(place, options.force);
  if (
    settings.identityKey !== undefined &&
    settings.identityKey !== roster.document.service.identity
  ) {
    throw new CommandFailure("this roster names another identity key than the one pinned here", {
      code: "statement-refused",
      next: "nothing was signed. Ask the others, by phone, which key is the service's",
    });
  }
  showRoster(output, roster);
  await confirm(context, `Sign this roster as ${operator}?`, options.yes);
  const signature = await sshSign(sshKey, namespaces.roster, roster.octets);
  requireKeyOf(person, roster, signature);
  writeResultFile(place, signature, options.force);
  const missing = missingFrom(roster, file);
  output.result({ digest: roster.digest, signature: place, missing });
  output.line({ text: `signed: ${place}`, colour: "green" });
  tellMissing(context, roster, missing);
  return ExitCode.done;
}

/** Shows a roster: one in a file with the signatures beside it, or the service's. */
export async function showRosterFile(
  context: Context,
  file: string | undefined,
  options: ShowOptions,
): Promise<ExitCode> {
  const { output } = context;
  if (file === undefined) {
    const service = new PinnedService(await context.connect());
    const roster = await service.roster();
    const genesis = (await service.rosterChain())[0]!.digest;
    showRoster(output, roster);
    output.fields([["genesis", genesis]], 2);
    output.result({ digest: roster.digest, genesis, document: roster.document });
    return ExitCode.done;
  }
  const roster = rosterFrom(file);
  const signatures = signaturesBeside(file, roster);
  const missing = missingFrom(roster, file);
  showRoster(output, roster);
  output.fields(
    [
      [
        "signed by",
        [...new Set(signatures.map(({ operator }) => operator))].join(", ") || "nobody",
      ],
    ],
    2,
  );
  tellMissing(context, roster, missing);
  const whole = {
    document: Buffer.from(roster.octets).toString("base64"),
    signatures,
  };
  if (options.out !== undefined) {
    if (missing.length > 0) {
      throw new CommandFailure(`the roster is not signed by all: ${missing.join(", ")}`, {
        code: "roster-unsigned",
        next: `each of them: countersign roster sign ${file}`,
      });
    }
    writeResultFile(options.out, `${JSON.stringify(whole, undefined, 2)}\n`, options.force);
    output.line(`roster with its signatures: ${options.out}`);
  }
  output.result({ digest: roster.digest, missing, ...whole });
  return ExitCode.done;
}

/** The next version, with one more person or another key; proposed once the new keys have signed it. */
export async function addToRoster(
  context: Context,
  reference: string,
  options: AddOptions,
): Promise<ExitCode> {
  const client = await context.connect();
  const service = new PinnedService(client);
  const before = await service.roster();
  const newcomer = await newcomerFrom(service, reference);
  const roles = rolesFrom(options.role);
  const old = before.operators.get(newcomer.operator);
  const added: RosterOperator = {
    ...operatorFrom(newcomer, roles),
    // Who was in it keeps their roles unless others are told.
    roles: roles.get(newcomer.operator) ?? old?.roles ?? [OPERATOR],
  };
  requireAllUsed(roles, [added]);
  const operators =
    old === undefined
      ? [...before.document.operators, added]
      : before.document.operators.map((one) => (one.id === added.id ? added : one));
  return proposeNext(context, service, before, operators, options);
}

/** The next version without a person. */
export async function removeFromRoster(
  context: Context,
  operator: string,
  options: AddOptions,
): Promise<ExitCode> {
  const service = new PinnedService(await context.connect());
  const before = await service.roster();
  if (!before.operators.has(operator)) {
    throw new CommandFailure(`there is no ${operator} in the roster`, { code: "operator-unknown" });
  }
  const operators = before.document.operators.filter(({ id }) => id !== operator);
  context.output.note(
    `shares of ${operator} still open what they opened: deal new ones with countersign keys seal`,
  );
  return proposeNext(context, service, before, operators, options);
}

async function proposeNext(
  context: Context,
  service: PinnedService,
  before: Roster,
  operators: RosterDocument["operators"],
  options: AddOptions,
): Promise<ExitCode> {
  const roster = written(
    {
      ...before.document,
      version: before.document.version + 1,
      previous: before.digest,
      operators,
      rules: withRules(before.document.rules, options.rule),
    },
    options.out,
    options.force,
  );
  tellRoster(context, roster, options.out, before);
  const missing = missingSignature(roster, before, []);
  if (missing === undefined) return proposeVersion(context, service, roster, [], options.reason);
  context.output.result({ digest: roster.digest, file: options.out, missing });
  context.output.note(`${missing}; then propose it: countersign roster propose ${options.out}`);
  return ExitCode.done;
}

/** Proposes a version whose new keys have signed it. */
export async function proposeRoster(
  context: Context,
  file: string,
  options: ProposeOptions,
): Promise<ExitCode> {
  const service = new PinnedService(await context.connect());
  const before = await service.roster();
  const roster = rosterFrom(file);
  const signatures = signaturesBeside(file, roster);
  const missing = missingSignature(roster, before, signatures);
  if (missing !== undefined) {
    throw new CommandFailure(missing, {
      code: "roster-unsigned",
      next: "nothing was proposed: let them sign, and put the signatures beside the file",
    });
  }
  return proposeVersion(context, service, roster, signatures, options.reason);
}

function proposeVersion(
  context: Context,
  { client }: PinnedService,
  roster: Roster,
  signatures: readonly RosterSignature[],
  reason = `version ${roster.document.version} of the roster`,
): Promise<ExitCode> {
  return propose(context, client, {
    kind: "roster",
    reason,
    plan: Buffer.from(roster.octets).toString("base64"),
    ...(signatures.length === 0 ? {} : { signatures }),
  });
}

/** @returns what is missing, in words; undefined when nothing is. */
function missingSignature(
  roster: Roster,
  before: Roster,
  signatures: readonly RosterSignature[],
): string | undefined {
  try {
    checkSuccessor(before, roster, signatures);
    return undefined;
  } catch (error) {
    if (!(error instanceof CountersignError) || error.code !== "roster-unsigned") throw error;
    return error.message;
  }
}

async function newcomerFrom(
  { client, name }: PinnedService,
  reference: string,
): Promise<Enrolment> {
  if (existsSync(reference)) {
    const enrolment = enrolmentFrom(reference);
    if (enrolment.service !== name) {
      throw usage(`${enrolment.operator} enrolled for ${enrolment.service}, and this is ${name}`);
    }
    return enrolment;
  }
  const { enrolments } = await client.json<{ enrolments: readonly EnrolmentAnswer[] }>(
    "/v1/enrolments",
    { as: "operator" },
  );
  const found = enrolments.filter(({ id, operator }) => id === reference || operator === reference);
  if (found.length !== 1) {
    throw usage(
      found.length === 0
        ? `there is no enrolment ${reference}`
        : `${reference} has enrolled ${found.length} times`,
      `enrolments are ${enrolments.map(({ id, operator }) => `${id} (${operator})`).join(", ") || "none"}`,
    );
  }
  const [enrolment] = found;
  if (enrolment!.state !== "proved") {
    throw new CommandFailure(`${enrolment!.operator} has not proved to own the age recipient yet`, {
      code: "enrolment-refused",
      next: `they do, with countersign enrol --prove ${enrolment!.id}; a share sent to it before could be lost`,
    });
  }
  const { operator, keys, recipient, createdAt } = enrolment!;
  return {
    type: "countersign/enrolment/v1",
    operator,
    at: createdAt,
    service: name,
    key: keys[0]!,
    recipient,
  };
}

/** A request as `enrol --out` writes it; its signature by its own key is checked. */
function enrolmentFrom(file: string): Enrolment {
  const refused = (why: string): CommandFailure =>
    new CommandFailure(`${file} is no request to be enrolled: ${why}`, {
      code: "enrolment-refused",
      next: "countersign enrol --out FILE writes one",
    });
  let body: { statement?: unknown; signature?: unknown } | null;
  try {
    body = JSON.parse(readInput(file).toString()) as typeof body;
  } catch {
    throw refused("it is not JSON");
  }
  const { statement, signature } = body ?? {};
  if (typeof statement !== "string" || typeof signature !== "string") {
    throw refused("statement or signature is missing");
  }
  const octets = Buffer.from(statement, "base64");
  try {
    const enrolment = readEnrolment(octets);
    verifySshSignature({
      publicKey: enrolment.key,
      namespace: namespaces.enrol,
      message: octets,
      signature,
    });
    return enrolment;
  } catch (error) {
    if (!(error instanceof CountersignError)) throw error;
    throw refused(error.message);
  }
}

function operatorFrom(
  { operator, key, recipient }: Enrolment,
  roles: ReadonlyMap<string, string[]>,
): RosterOperator {
  return {
    id: operator,
    keys: [{ kind: "ssh", key }],
    recipient,
    roles: roles.get(operator) ?? [OPERATOR],
  };
}

/** `alice=officer,witness`. */
function rolesFrom(told: readonly string[]): ReadonlyMap<string, string[]> {
  return new Map(
    told.map((text) => {
      const match = /^([^=]+)=([^=]+)$/.exec(text);
      if (match === null) throw usage(`${text} gives nobody a role`, "write alice=officer,witness");
      return [match[1]!, match[2]!.split(",")] as const;
    }),
  );
}

function requireAllUsed(
  roles: ReadonlyMap<string, string[]>,
  operators: readonly RosterOperator[],
): void {
  const stranger = [...roles.keys()].find((id) => !operators.some((one) => one.id === id));
  if (stranger !== undefined) throw usage(`--role names ${stranger}, who is not enrolled here`);
}

/** `roster=2` or `sign=officer:2,witness:1`. */
function withRules(
  rules: RosterDocument["rules"],
  told: readonly string[],
): RosterDocument["rules"] {
  const numbers: Record<string, number> = {};
  const ceremonies: Record<string, Record<string, number>> = {};
  for (const text of told) {
    const match = /^([a-z]+)=(.+)$/.exec(text);
    const [, kind, rule] = match ?? [];
    if (kind === undefined || rule === undefined) throw notARule(text);
    if (/^(?:roster|policy|resume)$/.test(kind) && /^[1-9]\d?$/.test(rule)) {
      numbers[kind] = Number(rule);
      continue;
    }
    ceremonies[kind] = Object.fromEntries(
      rule.split(",").map((part) => {
        const [, role, count] = /^([^:]+):([1-9]\d?)$/.exec(part) ?? [];
        if (role === undefined) throw notARule(text);
        return [role, Number(count)];
      }),
    );
  }
  return {
    ...rules,
    ...numbers,
    ceremonies: { ...rules.ceremonies, ...ceremonies },
  };
}

function notARule(text: string): CommandFailure {
  return usage(`${text} is no rule`, "write roster=2, or sign=officer:2,witness:1");
}

/** Writes a document as its canonical JSON, without a newline: these octets are signed. */
function written(document: RosterDocument, file: string, force: boolean | undefined): Roster {
  const octets = Buffer.from(canonicalJson(document as unknown as Json));
  const roster = readRoster(octets);
  writeResultFile(file, octets, force);
  return roster;
}

/** The octets as they were written; a newline at the end, of an editor or of jq, is taken off. */
function rosterFrom(file: string): Roster {
  const octets = readInput(file);
  return readRoster(octets.at(-1) === 0x0a ? octets.subarray(0, -1) : octets);
}

function requireKeyOf(person: RosterOperator, roster: Roster, signature: string): void {
  const good = person.keys.some(({ kind, ...key }) => {
    try {
      if (kind !== "ssh" || !("key" in key)) return false;
      verifySshSignature({
        publicKey: key.key,
        namespace: namespaces.roster,
        message: roster.octets,
        signature,
      });
      return true;
    } catch {
      return false;
    }
  });
  if (!good) {
    throw new CommandFailure(`--ssh-key is no key that the roster has of ${person.id}`, {
      code: "signature-invalid",
      next: "nothing was written: sign with the key that you enrolled",
    });
  }
}

/** Who of a roster has still to sign it, for a genesis; of a later version only the new keys do. */
function missingFrom(roster: Roster, file: string): string[] {
  if (roster.document.version !== 1) return [];
  const signatures = signaturesBeside(file, roster);
  return [...roster.operators.values()].flatMap((person) => {
    const alone = { ...roster, document: { ...roster.document, operators: [person] } };
    try {
      checkGenesis(alone, signatures);
      return [];
    } catch (error) {
      if (!(error instanceof CountersignError) || error.code !== "roster-unsigned") throw error;
      return [person.id];
    }
  });
}

function freeName(file: string): string {
  if (!existsSync(file)) return file;
  const stem = file.slice(0, -SIGNATURE_SUFFIX.length);
  for (let number = 2; ; number++) {
    const next = `${stem}.${number}${SIGNATURE_SUFFIX}`;
    if (!existsSync(next)) return next;
  }
}

function tellRoster(context: Context, roster: Roster, file: string, before?: Roster): void {
  const { output } = context;
  showRoster(output, roster, before);
  if (before === undefined) {
    output.result({ digest: roster.digest, file, document: roster.document });
    output.line(`genesis: ${roster.digest}`);
    output.note("that line goes into the keeper's configuration, once all have signed");
  }
  output.line({ text: `roster: ${file}`, colour: "green" });
}

function tellMissing({ output }: Context, roster: Roster, missing: readonly string[]): void {
  if (roster.document.version !== 1) {
    output.note("of this version only new keys sign; the service says whose are missing");
    return;
  }
  output.line(`genesis: ${roster.digest}`);
  output.line(
    missing.length === 0
      ? { text: "signed by everybody in it", colour: "green" }
      : { text: `not signed yet by ${missing.join(", ")}`, colour: "yellow" },
  );
}
