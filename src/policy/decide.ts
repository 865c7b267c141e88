/** The decision: whether a requester may have these names from this issuer in this profile. */

import { CountersignError, type ErrorCode } from "../errors.ts";
import type { Policy } from "./document.ts";
import { isCanonicalName, isNameKind, shownName, type Name } from "./name.ts";
import { compileNameRules, type CompiledNameRules } from "./name-rules.ts";
import { pathText } from "./problem.ts";
import { credentialId, type Requester } from "./requester.ts";

export interface Question {
  /** The id of an issuer of the policy. */
  readonly issuer: string;
  /** The id of a profile of the policy. */
  readonly profile: string;
  /** Who asks. Only the name counts: the rules are those of the compiled policy. */
  readonly requester: Pick<Requester, "name">;
  /** As `canonicalNames` returns them. A name of another spelling is refused. */
  readonly names: readonly Name[];
}

export type Decision = Allowed | Refused;

export interface Allowed {
  readonly verdict: "allow";
  /** The rules of the requester that decided, each once, joined by a comma and a blank. */
  readonly rule: string;
  /** For each name, in the order asked, the rules of issuer, profile (if it has any) and requester. */
  readonly rules: readonly { readonly name: Name; readonly rules: readonly string[] }[];
}

export interface Refused {
  readonly verdict: "refuse";
  readonly code: Extract<
    ErrorCode,
    | "issuer-unknown"
    | "requester-unknown"
    | "issuer-not-allowed"
    | "profile-not-allowed"
    | "name-refused"
  >;
  /** `issuers.issuing.names.dns.deny[0]`, or a block with the reason: `requesters.web.names.dns (no match)`. */
  readonly rule: string;
  /** The name it was decided on. */
  readonly name?: Name;
  /** One sentence. */
  readonly detail: string;
}

/** A policy and the requesters in force, ready to answer many questions. */
export interface CompiledPolicy {
  readonly policy: Policy;
  readonly issuers: ReadonlyMap<string, CompiledIssuer>;
  /** The name rules of those profiles that have some. */
  readonly profileNames: ReadonlyMap<string, CompiledNameRules>;
  readonly requesters: ReadonlyMap<string, CompiledRequester>;
  /** Who shows this credential: see `credentialId`. */
  requesterWith(credential: string): Requester | undefined;
  /**
   * Adds a requester, or puts it in the place of the one with its name.
   *
   * @throws CountersignError `requester-exists` if one of its credentials is another requester's,
   *   `policy-invalid` if one of its patterns cannot be read. Nothing has changed then.
   */
  updateRequester(requester: Requester): void;
  /** @returns Whether there was one. */
  removeRequester(name: string): boolean;
}

export interface CompiledIssuer {
  readonly profiles: ReadonlySet<string>;
  readonly names: CompiledNameRules;
}

export interface CompiledRequester {
  readonly requester: Requester;
  readonly issuers: ReadonlySet<string>;
  /** By profile the identifier of the rule that gives it. */
  readonly profiles: ReadonlyMap<string, string>;
  readonly names: CompiledNameRules;
}

/**
 * @param requesters - All that are in force: those of the document unless said otherwise. Of two
 *   with one name the later counts. One that refers to an issuer or profile that the policy no
 *   longer has is kept, and refused when it asks there.
 * @throws CountersignError as `updateRequester`.
 */
export function compilePolicy(
  policy: Policy,
  requesters: Iterable<Requester> = policy.requesters.values(),
): CompiledPolicy {
  const issuers = new Map<string, CompiledIssuer>();
  for (const [id, { profiles, names }] of policy.issuers) {
    issuers.set(id, {
      profiles: new Set(profiles),
      names: compileNameRules(names, ["issuers", id, "names"]),
    });
  }
  const profileNames = new Map<string, CompiledNameRules>();
  for (const [id, { names }] of policy.profiles) {
    if (names !== undefined)
      profileNames.set(id, compileNameRules(names, ["profiles", id, "names"]));
  }
  const compiled = new Map<string, CompiledRequester>();
  const byCredential = new Map<string, Requester>();

  const removeRequester = (name: string): boolean => {
    for (const credential of compiled.get(name)?.requester.credentials ?? []) {
      byCredential.delete(credentialId(credential));
    }
    return compiled.delete(name);
  };
  const updateRequester = (requester: Requester): void => {
    const credentials = requester.credentials.map(credentialId);
    for (const credential of credentials) {
      const owner = byCredential.get(credential);
      if (owner !== undefined && owner.name !== requester.name) {
        throw new CountersignError(
          "requester-exists",
          `a credential of ${requester.name} is one of ${owner.name}: each belongs to one requester`,
        );
      }
    }
    const next = compileRequester(requester);
    removeRequester(requester.name);
    compiled.set(requester.name, next);
    for (const credential of credentials) byCredential.set(credential, requester);
  };
  const inForce = new Map([...requesters].map((requester) => [requester.name, requester]));
  for (const requester of inForce.values()) updateRequester(requester);
  return {
    policy,
    issuers,
    profileNames,
    requesters: compiled,
    requesterWith: (credential) => byCredential.get(credential),
    updateRequester,
    removeRequester,
  };
}

/**
 * Decides. Asked in this order, and the first that says no decides: is there such an issuer and
 * requester; may the requester ask this issuer, and for this profile; does the issuer offer the
 * profile; then for each name the rules of the issuer, of the profile if it has any, and of the
 * requester, in each of which deny beats allow and no match is a refusal. All must agree on every
 * name: one bad name refuses the whole request.
 */
export function decide(policy: CompiledPolicy, question: Question): Decision {
  const issuer = policy.issuers.get(question.issuer);
  if (issuer === undefined) {
    return refusal(
      "issuer-unknown",
      "issuers",
      `the policy has no issuer ${shown(question.issuer)}`,
    );
  }
  const requester = policy.requesters.get(question.requester.name);
  if (requester === undefined) {
    const detail = `the policy has no requester ${shown(question.requester.name)}`;
    return refusal("requester-unknown", "requesters", detail);
  }
  const { name: requesterName } = requester.requester;
  if (!requester.issuers.has(question.issuer)) {
    const rule = pathText(["requesters", requesterName, "issuers"]);
    const detail = `requester ${requesterName} may not ask issuer ${question.issuer}`;
    return refusal("issuer-not-allowed", rule, detail);
  }
  const profileRule = requester.profiles.get(question.profile);
  if (profileRule === undefined) {
    const rule = pathText(["requesters", requesterName, "profiles"]);
    const detail = `requester ${requesterName} may not ask for profile ${shown(question.profile)}`;
    return refusal("profile-not-allowed", rule, detail);
  }
  if (!issuer.profiles.has(question.profile)) {
    const rule = pathText(["issuers", question.issuer, "profiles"]);
    const detail = `issuer ${question.issuer} does not offer profile ${question.profile}`;
    return refusal("profile-not-allowed", rule, detail);
  }
  const profileNames = policy.profileNames.get(question.profile);
  const layers =
    profileNames === undefined
      ? [issuer.names, requester.names]
      : [issuer.names, profileNames, requester.names];
  const decided: Allowed["rules"][number][] = [];
  for (const name of question.names) {
    // `a.example.test.` or a NUL before `.example.test` would otherwise pass as a subdomain.
    if (isNameKind(name.kind) && !isCanonicalName(name)) {
      const detail = `${nameText(name)} is not in its canonical form`;
      return { ...refusal("name-refused", "names (not canonical)", detail), name };
    }
    const rules: string[] = [];
    for (const layer of layers) {
      const { allowed, rule, because } = layer(name.kind, name.value);
      if (!allowed) {
        const stands = because === "deny" && name.value.startsWith("*.");
        const reason = stands ? "a rule denies names that it stands for" : reasons[because];
        const detail = `${nameText(name)} is refused: ${reason} (${rule})`;
        return { ...refusal("name-refused", rule, detail), name };
      }
      rules.push(rule);
    }
    decided.push({ name, rules });
  }
  const deciding = new Set(decided.map(({ rules }) => rules.at(-1)!));
  return {
    verdict: "allow",
    rule: deciding.size === 0 ? profileRule : [...deciding].join(", "),
    rules: decided,
  };
}

/** A refusal as the error that a caller gets, with the members `rule` and, where it has one, `name` and `kind`. */
export function refusalError({ code, rule, name, detail }: Refused): CountersignError {
  const named = name === undefined ? {} : { name: shownName(name.value), kind: name.kind };
  return new CountersignError(code, detail, { members: { rule, ...named } });
}

const reasons = {
  allow: "a rule allows it",
  deny: "a rule denies it",
  "no-match": "no rule allows it",
  "no-rules": "there are no rules for names of this kind",
};

function compileRequester(requester: Requester): CompiledRequester {
  const path = ["requesters", requester.name];
  return {
    requester,
    issuers: new Set(requester.issuers),
    profiles: new Map(
      requester.profiles.map((id, place) => [id, pathText([...path, "profiles", place])]),
    ),
    names: compileNameRules(requester.names, [...path, "names"]),
  };
}

function refusal(code: Refused["code"], rule: string, detail: string): Refused {
  return { verdict: "refuse", code, rule, detail };
}

function shown(id: string): string {
  return `"${shownName(id)}"`;
}

function nameText({ kind, value }: Name): string {
  return `the ${shownName(kind)} name "${shownName(value)}"`;
}
