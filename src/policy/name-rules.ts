/** The `names` block of an issuer, a profile or a requester: for each kind what it allows and denies. */

import { z } from "zod";
import { CountersignError } from "../errors.ts";
import { nameKinds, type NameKind } from "./name.ts";
import {
  compilePatterns,
  deniesAll,
  parsePattern,
  patternText,
  type Matcher,
  type Pattern,
} from "./pattern.ts";
import { closed, pathText, type Path, type Problem } from "./problem.ts";

/**
 * A kind that is absent allows no name of that kind, and so does an empty `allow`. A name that
 * some `deny` pattern matches is refused, whatever `allow` says. Patterns: see `Pattern`.
 */
export type NameRules = { readonly [Kind in NameKind]?: KindRules };

export interface KindRules {
  readonly allow: readonly string[];
  readonly deny?: readonly string[];
}

const patternMeta = {
  dns: {
    description:
      "exact:host (that name), subdomains:host (every name under it, at any depth), one-label:host (names exactly one label under it), wildcard:host (the name *.host)",
    pattern: "^(exact|subdomains|one-label|wildcard):[A-Za-z0-9.-]+$",
    examples: ["subdomains:example.test"],
  },
  ip: {
    description: "A block such as 10.0.0.0/8 or 2001:db8::/32, or one address",
    pattern: "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$",
    examples: ["10.0.0.0/8"],
  },
} as const satisfies Record<NameKind, object>;

function kindRulesSchema(kind: NameKind) {
  const patterns = z.array(z.string().meta({ ...patternMeta[kind] }));
  return closed({
    allow: patterns.meta({ description: "What may be asked for; an empty list allows nothing" }),
    deny: patterns.meta({ description: "What is refused, whatever allow says" }).exactOptional(),
  });
}

export const nameRulesSchema = closed({
  dns: kindRulesSchema("dns").exactOptional(),
  ip: kindRulesSchema("ip").exactOptional(),
}).meta({
  description: "For each kind the names allowed and denied; a kind left out allows no name of it",
});

/**
 * The rules with each pattern in its one spelling and `deny` always there.
 *
 * @param problems - Gets what is wrong: patterns that cannot be read, that stand in their list
 *   twice, and allowing ones that a denying one of the same block leaves nothing of.
 */
export function readNameRules(rules: NameRules, path: Path, problems: Problem[]): NameRules {
  const result: { [Kind in NameKind]?: KindRules } = {};
  for (const kind of nameKinds) {
    const written = rules[kind];
    if (written === undefined) continue;
    const deny = readPatterns(kind, written.deny ?? [], [...path, kind, "deny"], problems);
    const allow = readPatterns(kind, written.allow, [...path, kind, "allow"], problems);
    for (const [place, pattern] of allow) {
      for (const [other, denying] of deny) {
        if (!deniesAll(denying, pattern)) continue;
        const stands =
          "host" in pattern && pattern.form === "wildcard"
            ? `, since *.${pattern.host} stands for denied names too`
            : "";
        problems.push({
          path: [...path, kind, "allow", place],
          message: `can never match: deny[${other}] (${patternText(denying)}) refuses every name it allows${stands}`,
        });
        break;
      }
    }
    result[kind] = {
      allow: [...allow.values()].map(patternText),
      deny: [...deny.values()].map(patternText),
    };
  }
  return result;
}

/** Patterns by their place in the list; those with a problem are left out. */
function readPatterns(
  kind: NameKind,
  written: readonly string[],
  path: Path,
  problems: Problem[],
): Map<number, Pattern> {
  const patterns = new Map<number, Pattern>();
  const places = new Map<string, number>();
  written.forEach((text, place) => {
    try {
      const pattern = parsePattern(kind, text);
      const spelling = patternText(pattern);
      const before = places.get(spelling);
      if (before === undefined) {
        places.set(spelling, place);
        patterns.set(place, pattern);
      } else {
        const message = `is in this list already, in place [${before}]`;
        problems.push({ path: [...path, place], message });
      }
    } catch (error) {
      if (!(error instanceof CountersignError)) throw error;
      problems.push({ path: [...path, place], message: error.message });
    }
  });
  return patterns;
}

/** What one `names` block says about one name: `rule` is the identifier of the rule that decided. */
export interface Verdict {
  readonly allowed: boolean;
  readonly rule: string;
  readonly because: "allow" | "deny" | "no-match" | "no-rules";
}

export type CompiledNameRules = (kind: string, value: string) => Verdict;

/**
 * @param path - Where the block stands, such as `issuers`, `issuing`, `names`; rules are named
 *   after it: `issuers.issuing.names.dns.deny[0]`.
 * @throws CountersignError `policy-invalid` for a pattern that `readNameRules` has a problem with.
 */
export function compileNameRules(rules: NameRules, path: Path): CompiledNameRules {
  const kinds = new Map<string, (value: string) => Verdict>();
  for (const kind of nameKinds) {
    const written = rules[kind];
    if (written !== undefined) kinds.set(kind, compileKind(kind, written, [...path, kind]));
  }
  const noRules = (kind: string): Verdict => ({
    allowed: false,
    rule: `${pathText([...path, kind])} (no rules)`,
    because: "no-rules",
  });
  return (kind, value) => kinds.get(kind)?.(value) ?? noRules(kind);
}

function compileKind(kind: NameKind, rules: KindRules, path: Path): (value: string) => Verdict {
  const side = (effect: "allow" | "deny", written: readonly string[]): [Matcher, Verdict[]] => [
    compilePatterns(
      kind,
      written.map((text) => parsePattern(kind, text)),
      effect,
    ),
    written.map((_, place) => ({
      allowed: effect === "allow",
      rule: pathText([...path, effect, place]),
      because: effect,
    })),
  ];
  const [deny, denials] = side("deny", rules.deny ?? []);
  const [allow, allowances] = side("allow", rules.allow);
  const noMatch: Verdict = {
    allowed: false,
    rule: `${pathText(path)} (no match)`,
    because: "no-match",
  };
  return (value) => denials[deny(value)] ?? allowances[allow(value)] ?? noMatch;
}
