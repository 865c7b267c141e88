/** The policy document: YAML or JSON in, one checked value out. */

import { isAlias, isMap, isPair, isScalar, isSeq, LineCounter, parseDocument, visit } from "yaml";
import type { Document, Node } from "yaml";
import { z } from "zod";
import { CountersignError } from "../errors.ts";
import {
  canExceed,
  formatLifetime,
  parseDuration,
  parseLifetime,
  type Lifetime,
} from "./lifetime.ts";
import { nameRulesSchema, readNameRules, type NameRules } from "./name-rules.ts";
import { closed, pathText, readWith, type Path, type Problem } from "./problem.ts";
import {
  credentialId,
  readRequester,
  referenceProblems,
  repeatedProblems,
  requesterEntrySchema,
  requesterName,
  type Requester,
} from "./requester.ts";

export const profileKinds = ["server", "client", "peer"] as const;
export type ProfileKind = (typeof profileKinds)[number];

export const keyTypes = [
  "P-256",
  "P-384",
  "P-521",
  "RSA-2048",
  "RSA-3072",
  "RSA-4096",
  "Ed25519",
] as const;
export type KeyType = (typeof keyTypes)[number];

/** What an issuer of the policy may sign. */
export interface IssuerRules {
  readonly profiles: readonly string[];
  /** The outer rules. Empty for an issuer without profiles, which issues nothing by policy. */
  readonly names: NameRules;
}

export interface Profile {
  readonly kind: ProfileKind;
  readonly lifetime: { readonly default: Lifetime; readonly maximum: Lifetime };
  /** Whole seconds from notBefore to the time of signing. */
  readonly backdate: number;
  /** Key types that may be certified. */
  readonly keyTypes: readonly KeyType[];
  /** Absent: the profile adds no restriction to those of the issuer and the requester, which always apply. */
  readonly names?: NameRules;
}

/** A checked policy: what refers to something refers to something that is there. */
export interface Policy {
  readonly version: 1;
  readonly issuers: ReadonlyMap<string, IssuerRules>;
  readonly profiles: ReadonlyMap<string, Profile>;
  /** The entries of the file; signed statements come on top of them. */
  readonly requesters: ReadonlyMap<string, Requester>;
}

/** Plain JSON. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const ID_ADVICE = "must be 1 to 63 of a-z, 0-9 and hyphen";
const id = z.string().regex(/^[a-z0-9-]{1,63}$/, { error: ID_ADVICE });

const lifetimeText = z.string().meta({
  description: "Number and unit: s, min, h, d, weeks, months, years",
  examples: ["90d", "18 months", "1 year 6 months"],
});

const profileSchema = closed({
  kind: z.enum(profileKinds).meta({
    description: "server: TLS servers, client: TLS clients, peer: both in one certificate",
  }),
  lifetime: closed({
    default: lifetimeText.meta({ description: "What a request gets that does not say" }),
    maximum: lifetimeText.meta({ description: "The most that a request may ask for" }),
  }),
  backdate: z
    .string()
    .meta({ description: "How far notBefore lies before signing", examples: ["5m"], default: "5m" })
    .exactOptional(),
  keyTypes: z.array(z.enum(keyTypes)).meta({ description: "Key types that may be certified" }),
  names: nameRulesSchema.exactOptional(),
});

const policySchema = closed({
  version: z.literal(1),
  issuers: z.record(
    id,
    closed({
      profiles: z.array(id).meta({ description: "What it issues; an empty list is nothing" }),
      names: nameRulesSchema.exactOptional(),
    }),
  ),
  profiles: z.record(id, profileSchema),
  requesters: z.record(requesterName, requesterEntrySchema).exactOptional(),
}).meta({ title: "Countersign policy" });

type PolicyDocument = z.output<typeof policySchema>;

/** The JSON Schema (draft 2020-12) of the document, for editors; `parsePolicy` checks more. */
export function policyJsonSchema(): Json {
  return z.toJSONSchema(policySchema, { io: "input" }) as Json;
}

/**
 * Reads a policy document.
 *
 * @param text - YAML 1.2; JSON is YAML. One document, no key twice.
 * @param filename - As the reader knows it; it begins every line of the error.
 * @throws CountersignError `policy-invalid`. The message has a line for each problem, with file,
 *   line and column and what to write instead; the members `line`, `column` (both from 1) and
 *   `path` are those of the first, and `problems` lists all.
 */
export function parsePolicy(text: string, filename: string): Policy {
  const lines = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    // A %YAML 1.1 line must not bring merge keys or other readings of the same text back.
    schema: "core",
    merge: false,
    resolveKnownTags: false,
    // An object has one key for 1 and "1": the second would silently replace the first.
    uniqueKeys: (a, b) => isScalar(a) && isScalar(b) && String(a.value) === String(b.value),
  });
  const syntax = [...document.errors, ...document.warnings].map((error) => ({
    ...position(lines, error.pos[0]),
    path: "",
    message: syntaxAdvice(error.code, error.message),
  }));
  if (syntax.length > 0) throw invalid(filename, syntax);

  const place = (problem: Problem): PlacedProblem => ({
    ...position(lines, offsetOf(document, problem)),
    path: pathText(problem.path),
    message: problem.message,
  });
  const unsafe = unsafeKeys(document).map(({ offset, message }) => ({
    ...position(lines, offset),
    path: "",
    message,
  }));
  if (unsafe.length > 0) throw invalid(filename, unsafe);
  let json: unknown;
  try {
    json = document.toJS({ maxAliasCount: 100 });
  } catch (cause) {
    // Aliases that refer to too much, or to nothing.
    const message = "has aliases that cannot be followed: write the values out";
    throw invalid(filename, [place({ path: [], message })], cause);
  }
  const result = readWith(policySchema, json);
  if ("problems" in result) throw invalid(filename, result.problems.map(place));
  const problems: Problem[] = [];
  const policy = readPolicy(result.value, problems);
  if (problems.length > 0) throw invalid(filename, problems.map(place));
  return policy;
}

/**
 * The part of a policy that changes by ceremony where the roster says so: version, issuers and
 * profiles without the requesters. Names, lifetimes and defaults are in their one spelling, so that
 * two documents that mean the same have the same frame. Its digest is over its canonical JSON.
 *
 * @returns Plain JSON, frozen throughout, keys in ascending order.
 */
export function policyFrame(policy: Policy): Json {
  return freeze({
    issuers: Object.fromEntries(
      sorted(policy.issuers).map(([name, { profiles, names }]) => [
        name,
        { names: structuredClone(names) as Json, profiles: [...profiles] },
      ]),
    ),
    profiles: Object.fromEntries(
      sorted(policy.profiles).map(([name, profile]) => [
        name,
        {
          backdate: formatLifetime({ months: 0, seconds: profile.backdate }),
          keyTypes: [...profile.keyTypes],
          kind: profile.kind,
          lifetime: {
            default: formatLifetime(profile.lifetime.default),
            maximum: formatLifetime(profile.lifetime.maximum),
          },
          ...(profile.names === undefined ? {} : { names: structuredClone(profile.names) as Json }),
        },
      ]),
    ),
    version: policy.version,
  });
}

/**
 * Checks a requester that a signed statement brings against the frame: its issuers and profiles
 * must be there. Its names need no check, since the rules of the frame apply as well.
 *
 * @throws CountersignError `policy-invalid` with the members `path` and `problems`.
 */
export function checkRequester(policy: Policy, requester: Requester): void {
  const problems: Problem[] = [];
  referenceProblems(requester, policy, ["requesters", requester.name], problems);
  if (problems.length === 0) return;
  const lines = problems.map(({ path, message }) => `${pathText(path)}: ${message}`);
  throw new CountersignError("policy-invalid", lines.join("; "), {
    members: { path: pathText(problems[0]!.path), problems: lines },
  });
}

function readPolicy(document: PolicyDocument, problems: Problem[]): Policy {
  const profiles = new Map(
    Object.entries(document.profiles).map(([name, profile]) => [
      name,
      readProfile(profile, ["profiles", name], problems),
    ]),
  );
  const issuers = new Map<string, IssuerRules>();
  for (const [name, issuer] of Object.entries(document.issuers)) {
    const path = ["issuers", name];
    repeatedProblems(issuer.profiles, [...path, "profiles"], problems);
    issuer.profiles.forEach((profile, place) => {
      if (profiles.has(profile)) return;
      const known = [...profiles.keys()].join(", ") || "none";
      const message = `there is no profile "${profile}": known are ${known}`;
      problems.push({ path: [...path, "profiles", place], message });
    });
    if (issuer.names === undefined && issuer.profiles.length > 0) {
      const message =
        'is missing: say which names this issuer may sign, such as dns: { allow: ["subdomains:example.test"] }';
      problems.push({ path: [...path, "names"], message });
    }
    const names = readNameRules(issuer.names ?? {}, [...path, "names"], problems);
    issuers.set(name, { profiles: issuer.profiles, names });
  }
  const requesters = new Map<string, Requester>();
  const owners = new Map<string, string>();
  for (const [name, entry] of Object.entries(document.requesters ?? {})) {
    const path = ["requesters", name];
    const requester = readRequester({ name, ...entry }, path, problems);
    referenceProblems(requester, { issuers, profiles }, path, problems);
    requester.credentials.forEach((credential, place) => {
      const shown = credentialId(credential);
      const owner = owners.get(shown);
      if (owner === undefined) owners.set(shown, name);
      else if (owner !== name) {
        const message = `is a credential of ${owner} too: each belongs to one requester`;
        problems.push({ path: [...path, "credentials", place], message });
      }
    });
    requesters.set(name, requester);
  }
  return { version: 1, issuers, profiles, requesters };
}

function readProfile(
  document: PolicyDocument["profiles"][string],
  path: Path,
  problems: Problem[],
): Profile {
  const read = <T>(text: string, at: Path, parse: (text: string) => T, otherwise: T): T => {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof CountersignError)) throw error;
      problems.push({ path: at, message: error.message });
      return otherwise;
    }
  };
  const none: Lifetime = { months: 0, seconds: 0 };
  const { lifetime } = document;
  const initial = read(lifetime.default, [...path, "lifetime", "default"], parseLifetime, none);
  const maximum = read(lifetime.maximum, [...path, "lifetime", "maximum"], parseLifetime, none);
  if (maximum !== none && canExceed(initial, maximum)) {
    const message = `${lifetime.default} can be longer than the maximum of ${lifetime.maximum}`;
    problems.push({ path: [...path, "lifetime", "default"], message });
  }
  repeatedProblems(document.keyTypes, [...path, "keyTypes"], problems);
  return {
    kind: document.kind,
    lifetime: { default: initial, maximum },
    backdate: read(document.backdate ?? "5m", [...path, "backdate"], parseDuration, 0),
    keyTypes: document.keyTypes,
    ...(document.names === undefined
      ? {}
      : { names: readNameRules(document.names, [...path, "names"], problems) }),
  };
}

interface PlacedProblem {
  readonly line: number;
  readonly column: number;
  readonly path: string;
  readonly message: string;
}

const MOST_PROBLEMS = 20;

function invalid(
  filename: string,
  found: readonly PlacedProblem[],
  cause?: unknown,
): CountersignError {
  const problems = found.toSorted((a, b) => a.line - b.line || a.column - b.column);
  const shown = problems.slice(0, MOST_PROBLEMS).map(({ line, column, path, message }) => {
    return `${filename}:${line}:${column}: ${path === "" ? "" : `${path}: `}${message}`;
  });
  if (problems.length > MOST_PROBLEMS) shown.push(`and ${problems.length - MOST_PROBLEMS} more`);
  const { line, column, path } = problems[0]!;
  return new CountersignError("policy-invalid", shown.join("\n"), {
    cause,
    members: { line, column, path, problems: problems.slice(0, MOST_PROBLEMS) },
  });
}

function position(lines: LineCounter, offset: number): { line: number; column: number } {
  const { line, col } = lines.linePos(offset);
  return { line: Math.max(line, 1), column: Math.max(col, 1) };
}

function syntaxAdvice(code: string, message: string): string {
  switch (code) {
    case "DUPLICATE_KEY":
      return "this key is there already: keep one of the two";
    case "MULTIPLE_DOCS":
      return "a second document begins here: a policy is one document";
    default:
      return `is not YAML: ${message.split("\n")[0]}`;
  }
}

/** Keys that a JavaScript object does not keep as they are. */
function unsafeKeys(document: Document.Parsed): { offset: number; message: string }[] {
  const found: { offset: number; message: string }[] = [];
  visit(document, {
    Pair: (_, { key }) => {
      const offset = start(key) ?? 0;
      if (!isScalar(key)) found.push({ offset, message: "a key must be a plain text" });
      else if (key.value === "__proto__") {
        found.push({ offset, message: "the key __proto__ is not known here" });
      }
    },
  });
  return found;
}

/** Where the text, number or list item at the path begins, or else the innermost key that leads there. */
function offsetOf(document: Document.Parsed, { path, key }: Problem): number {
  let node: unknown = document.contents;
  let offset = start(node) ?? 0;
  for (const segment of path) {
    if (isAlias(node)) node = node.resolve(document);
    if (isMap(node)) {
      const pair = node.items.find(
        ({ key }) => String(isScalar(key) ? key.value : key) === segment,
      );
      if (pair === undefined) return offset;
      offset = start(pair.key) ?? offset;
      node = pair.value;
    } else if (isSeq(node) && typeof segment === "number") {
      node = node.items[segment];
      if (isPair(node)) node = node.value;
      offset = start(node) ?? offset;
    } else {
      return offset;
    }
  }
  const scalar = isScalar(node) && node.value !== null && key === undefined;
  return (scalar ? start(node) : undefined) ?? offset;
}

function start(node: unknown): number | undefined {
  return (node as Node | null)?.range?.[0];
}

function sorted<T>(map: ReadonlyMap<string, T>): [string, T][] {
  return [...map].toSorted(([a], [b]) => (a < b ? -1 : 1));
}

function freeze(json: Json): Json {
  if (typeof json === "object" && json !== null) {
    Object.values(json).forEach(freeze);
    Object.freeze(json);
  }
  return json;
}
