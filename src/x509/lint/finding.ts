/** What the linter finds: PROFILE-RULES ids with the words a person needs to act on them. */

import { DerError } from "../der.ts";
import { rules } from "./rules.ts";
import type { Level, RuleId } from "./rules.ts";

export interface Finding {
  readonly rule: string;
  /** M and P refuse; S warns. */
  readonly level: Level;
  /** What was found, then what the rule wants. */
  readonly detail: string;
}

/** Adds a finding, at the rule's own level unless a milder (or stricter) part of it is meant. */
export function report(
  findings: Finding[],
  rule: RuleId,
  detail: string,
  level: Level = rules[rule].level,
): void {
  findings.push({ rule, level, detail });
}

/** Whether nothing may be signed, or published, with these findings. */
export function refuses(findings: readonly Finding[]): boolean {
  for (const finding of findings) if (finding.level !== "S") return true;
  return false;
}

/** Turns bytes that are not DER into a finding; rethrows what is not about bytes. */
export function reportBroken(
  findings: Finding[],
  rule: RuleId,
  where: string,
  error: unknown,
): void {
  if (!(error instanceof DerError)) throw error;
  report(findings, rule, `${where}: ${error.message}`);
}
