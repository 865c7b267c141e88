/** Extended key usage along a path: every CA that has one limits what is below it (CRT-22, ICA-12, CLI-07). */

import type { DerElement } from "../der.ts";
import type { Subject } from "./certificate-context.ts";
import { report } from "./finding.ts";
import type { LintIssuer } from "./issuer.ts";
import { contentIs, sameContent } from "./octets.ts";
import { Known, Purpose, oidText, purposeOf } from "./structure.ts";

const CA_ISSUERS = Uint8Array.from(Buffer.from("2b06010505073002", "hex"));

export function isCaIssuers(method: DerElement): boolean {
  return contentIs(method, CA_ISSUERS);
}

/** Reports purposes that a CA above does not have. No EKU means every purpose, which is more than any list. */
export function checkPurposesOfPath(
  { walk, findings }: Subject,
  issuer: LintIssuer,
  rule: "CRT-22" | "ICA-12" | "CLI-07",
): void {
  if (issuer.extKeyUsages.length === 0) return;
  const { present, broken, extKeyUsage } = walk.extensions;
  if ((broken & Known.extKeyUsage) !== 0) return;
  for (const limits of issuer.extKeyUsages) {
    if (limits.some((limit) => purposeOf(limit) === Purpose.any)) continue;
    if ((present & Known.extKeyUsage) === 0) {
      report(findings, rule, "there is no extKeyUsage, but a CA above is limited by one");
      return;
    }
    for (const purpose of extKeyUsage) {
      if (limits.some((limit) => sameContent(limit, purpose))) continue;
      report(findings, rule, `purpose ${oidText(purpose)} is not one of a CA above`);
      return;
    }
  }
}
