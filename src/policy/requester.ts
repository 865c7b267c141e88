/** Requesters: the machines that may ask for certificates, and the signed statements that change them. */

import { z } from "zod";
import { CountersignError } from "../errors.ts";
import { canonicalName, isNameKind, shownName } from "./name.ts";
import { nameRulesSchema, readNameRules, type NameRules } from "./name-rules.ts";
import { closed, pathText, readWith, type Path, type Problem } from "./problem.ts";

/** What a requester shows to be believed. */
export type Credential =
  | {
      readonly kind: "api-key";
      /** `sha256:` and the lower-case hex digest of the key. */
      readonly sha256: string;
    }
  | {
      readonly kind: "mtls";
      /** The id of the issuer whose certificates count. */
      readonly issuer: string;
      /** A name of the certificate with its kind: `dns:web.example.test`, `uri:spiffe://…`. */
      readonly name: string;
    };

/** An entry of the policy, as it stands in JSON. Every list that is empty means none. */
export interface Requester {
  readonly name: string;
  readonly credentials: readonly Credential[];
  readonly issuers: readonly string[];
  readonly profiles: readonly string[];
  readonly names: NameRules;
  /** Which certificates it may revoke: those it asked for, or those and any of its `issuers`. */
  readonly revoke: "own" | "any";
}

/** One operator's change of one requester (CUSTODY.md 6.1), in the fields of its canonical JSON. */
export type RequesterStatement = {
  readonly type: "countersign/requester/v1";
  readonly operator: string;
  /** RFC 3339, UTC. */
  readonly at: string;
  /** 1 for the first statement of an installation, then one more each time. */
  readonly sequence: number;
  /** `sha256:<hex>` of the canonical JSON of the statement before; null for the first. */
  readonly previous: string | null;
  /** The head of the log that the operator saw; `root` is base64 of 32 octets. */
  readonly log: { readonly size: number; readonly root: string };
} & (
  | { readonly action: "set"; readonly requester: Requester }
  | { readonly action: "remove"; readonly name: string }
);

export const REQUESTER_STATEMENT_TYPE = "countersign/requester/v1";

const NAME_ADVICE = "must be 1 to 63 of a-z, 0-9, dot and hyphen, beginning with a letter or digit";

export const requesterName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9.-]{0,62}$/, { error: NAME_ADVICE })
  .meta({ description: `The name of a requester: ${NAME_ADVICE.slice("must be ".length)}` });

const digest = z.string().regex(/^sha256:[0-9a-f]{64}$/, {
  error: "must be sha256: and 64 lower-case hex digits",
});

const credentialSchema = z.discriminatedUnion(
  "kind",
  [
    closed({
      kind: z.literal("api-key"),
      sha256: digest.meta({ description: "sha256: and the hex digest of the API key" }),
    }),
    closed({
      kind: z.literal("mtls"),
      issuer: z.string().meta({ description: "The issuer whose certificates count" }),
      name: z
        .string()
        .max(512)
        .regex(/^(?:dns|ip|email|uri):[!-~]+$/, {
          error: "must be a name of the certificate with its kind, such as dns:web.example.test",
        }),
    }),
  ],
  { error: 'must have the kind "api-key" or "mtls"' },
);

const entry = {
  credentials: z.array(credentialSchema).meta({ description: "Any one of these is enough" }),
  issuers: z
    .array(z.string())
    .meta({ description: "The issuers it may ask; an empty list is none" }),
  profiles: z.array(z.string()).meta({ description: "The profiles it may ask for" }),
  names: nameRulesSchema,
  revoke: z.enum(["own", "any"]).meta({
    description: "own: certificates it asked for; any: those, and all of the issuers it may ask",
  }),
};

/** An entry of the policy document, where the key of the map is the name. */
export const requesterEntrySchema = closed(entry);

export const requesterSchema = closed({ name: requesterName, ...entry });

const TIME_ADVICE = "must be a time in UTC, such as 2026-11-21T20:03:00Z";

const statement = {
  type: z.literal(REQUESTER_STATEMENT_TYPE),
  operator: requesterName,
  at: z.iso
    .datetime({ error: TIME_ADVICE })
    .regex(/T\d\d:\d\d:\d\d(?:\.\d{1,3})?Z$/, { error: TIME_ADVICE }),
  sequence: z.int().min(1, { error: "must be at least 1" }),
  previous: z.union([digest, z.null()], {
    error: "must be sha256: and 64 hex digits, or null in the first statement",
  }),
  log: closed({
    size: z.int().min(0, { error: "must not be negative" }),
    root: z.string().regex(/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/, {
      error: "must be base64 of 32 octets",
    }),
  }),
};

const statementSchema = z.discriminatedUnion(
  "action",
  [
    closed({ ...statement, action: z.literal("set"), requester: requesterSchema }),
    closed({ ...statement, action: z.literal("remove"), name: requesterName }),
  ],
  { error: 'must have the action "set" or "remove"' },
);

/** The key under which a credential is found again when somebody shows it. */
export function credentialId(credential: Credential): string {
  switch (credential.kind) {
    case "api-key":
      return `api-key:${credential.sha256}`;
    case "mtls":
      return `mtls:${credential.issuer}:${credential.name}`;
  }
}

/**
 * Reads a requester statement. Whether its bytes were canonical JSON, who signed it and whether it
 * follows the one before are the caller's to check.
 *
 * @throws CountersignError `statement-malformed` with the members `path` and `problems`.
 */
export function parseRequesterStatement(json: unknown): RequesterStatement {
  const result = readWith<RequesterStatement>(statementSchema, json);
  if ("problems" in result) throw malformed(result.problems);
  const { value } = result;
  const problems: Problem[] = [];
  if ((value.sequence === 1) !== (value.previous === null)) {
    const message = "must be null in the first statement, and only there";
    problems.push({ path: ["previous"], message });
  }
  const requester =
    value.action === "set" ? readRequester(value.requester, ["requester"], problems) : undefined;
  if (problems.length > 0) throw malformed(problems);
  return value.action === "set" ? { ...value, requester: requester! } : value;
}

/** The entry with names in their one spelling; what is wrong in it alone goes to `problems`. */
export function readRequester(requester: Requester, path: Path, problems: Problem[]): Requester {
  for (const list of ["issuers", "profiles"] as const) {
    repeatedProblems(requester[list], [...path, list], problems);
  }
  const credentials = requester.credentials.map((credential, place): Credential => {
    if (credential.kind !== "mtls") return credential;
    try {
      return { ...credential, name: readCredentialName(credential.name) };
    } catch (error) {
      if (!(error instanceof CountersignError)) throw error;
      problems.push({ path: [...path, "credentials", place, "name"], message: error.message });
      return credential;
    }
  });
  repeatedProblems(credentials.map(credentialId), [...path, "credentials"], problems);
  const names = readNameRules(requester.names, [...path, "names"], problems);
  return { ...requester, credentials, names };
}

/** Adds a problem for every text that its list has already. */
export function repeatedProblems(texts: readonly string[], path: Path, problems: Problem[]): void {
  texts.forEach((text, place) => {
    const before = texts.indexOf(text);
    if (before === place) return;
    const message = `"${shownName(text)}" is in this list already, in place [${before}]`;
    problems.push({ path: [...path, place], message });
  });
}

/** Adds a problem for every issuer and profile of the entry that the frame does not have. */
export function referenceProblems(
  requester: Requester,
  frame: {
    readonly issuers: ReadonlyMap<string, unknown>;
    readonly profiles: ReadonlyMap<string, unknown>;
  },
  path: Path,
  problems: Problem[],
): void {
  const check = (id: string, kind: "issuer" | "profile", at: Path) => {
    const known = kind === "issuer" ? frame.issuers : frame.profiles;
    if (known.has(id)) return;
    const ids = [...known.keys()].join(", ") || "none";
    problems.push({
      path: at,
      message: `there is no ${kind} "${shownName(id)}": known are ${ids}`,
    });
  };
  requester.issuers.forEach((id, place) => check(id, "issuer", [...path, "issuers", place]));
  requester.profiles.forEach((id, place) => check(id, "profile", [...path, "profiles", place]));
  requester.credentials.forEach((credential, place) => {
    if (credential.kind !== "mtls") return;
    check(credential.issuer, "issuer", [...path, "credentials", place, "issuer"]);
  });
}

function readCredentialName(text: string): string {
  const colon = text.indexOf(":");
  const kind = text.slice(0, colon);
  const value = text.slice(colon + 1);
  if (value.includes("*")) {
    throw new CountersignError("name-malformed", "a wildcard name identifies nobody");
  }
  return isNameKind(kind) ? `${kind}:${canonicalName(kind, value)}` : text;
}

function malformed(problems: readonly Problem[]): CountersignError {
  const lines = problems.map(
    ({ path, message }) => `${pathText(path) || "the statement"} ${message}`,
  );
  return new CountersignError("statement-malformed", lines.join("; "), {
    members: { path: pathText(problems[0]!.path), problems: lines },
  });
}
