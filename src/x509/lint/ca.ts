/** CA certificates: rules ROOT-* and ICA-*. */

import { encodingOf } from "../der.ts";
import type { Subject } from "./certificate-context.ts";
import { checkPurposesOfPath } from "./purposes.ts";
import { report } from "./finding.ts";
import { NameTag } from "./general-names.ts";
import type { LintIssuer } from "./issuer.ts";
import { contentText, encodingIs, hexOf } from "./octets.ts";
import { KeyUsageBit, Known, keyUsageText } from "./structure.ts";
import { isCaIssuers } from "./purposes.ts";

export function checkRoot(subject: Subject): void {
  const { walk, name, context, findings } = subject;
  const { present, pathLen, authorityKeyIdentifier } = walk.extensions;
  if (!encodingIs(walk.issuer, encodingOf(walk.subject))) {
    report(findings, "ROOT-01", "issuer and subject of the root are not the same bytes");
  }
  checkBasicConstraints(subject, "ROOT-04");
  if (pathLen >= 0) report(findings, "ROOT-04", `the root has a pathLen of ${pathLen}`, "S");
  checkKeyUsage(subject, "ROOT-05");
  if ((present & Known.subjectKeyIdentifier) === 0) {
    report(findings, "ROOT-06", "the root has no subjectKeyIdentifier");
  }
  if (authorityKeyIdentifier === undefined) {
    report(findings, "ROOT-07", "the root has no authorityKeyIdentifier");
  }
  const unwanted =
    Known.certificatePolicies |
    Known.cRLDistributionPoints |
    Known.authorityInfoAccess |
    Known.nameConstraints;
  if ((present & unwanted) !== 0) {
    report(
      findings,
      "ROOT-09",
      "the root has certificatePolicies, a CDP, an AIA or name constraints",
    );
  }
  if (name.empty) report(findings, "ROOT-10", "the root's subject is empty");
  if (context.rootNames?.has(hexOf(encodingOf(walk.subject))) === true) {
    report(findings, "ROOT-11", "another root of this installation has this subject");
  }
}

export function checkIntermediate(subject: Subject, issuer: LintIssuer): void {
  const { walk, name, findings } = subject;
  const { present, critical, broken, pathLen, cA, access } = walk.extensions;
  const identifiers = Known.authorityKeyIdentifier | Known.subjectKeyIdentifier;
  if ((present & identifiers) !== identifiers) {
    report(findings, "ICA-01", "authorityKeyIdentifier or subjectKeyIdentifier is missing");
  }
  checkBasicConstraints(subject, "ICA-02");
  if (issuer.pathBudget < 1) {
    if (issuer.pathBudget === 0) {
      report(findings, "CRT-22", "the pathLen of the path allows no further CA below the issuer");
    }
  } else if (cA && pathLen < 0) {
    report(findings, "ICA-02", "basicConstraints has no pathLen", "P");
  } else if (pathLen >= issuer.pathBudget) {
    report(
      findings,
      "ICA-02",
      `pathLen ${pathLen} is not below the issuer's ${issuer.pathBudget}`,
      "P",
    );
  }
  checkKeyUsage(subject, "ICA-03");
  if ((present & ~broken & Known.authorityInfoAccess) !== 0) {
    const located = access.some(
      ({ method, location }) =>
        isCaIssuers(method) &&
        location.tag === NameTag.uri &&
        contentText(location).startsWith("http://"),
    );
    if (!located || (critical & Known.authorityInfoAccess) !== 0) {
      report(findings, "ICA-07", "the AIA has no caIssuers with an http URI, or is critical");
    }
  } else {
    report(findings, "ICA-07", "there is no AIA");
  }
  if (name.empty) report(findings, "ICA-08", "the CA's subject is empty");
  checkPurposesOfPath(subject, issuer, "ICA-12");
}

function checkBasicConstraints({ walk, findings }: Subject, rule: "ROOT-04" | "ICA-02"): void {
  const { present, critical, broken, cA } = walk.extensions;
  if ((broken & Known.basicConstraints) !== 0) return;
  if ((present & Known.basicConstraints) === 0) {
    report(findings, rule, "basicConstraints is missing");
  } else if (!cA) {
    report(findings, rule, "basicConstraints does not say cA TRUE");
  } else if ((critical & Known.basicConstraints) === 0) {
    report(findings, rule, "basicConstraints is not critical");
  }
}

/** ROOT-05: keyCertSign and cRLSign; digitalSignature only for a CA that signs OCSP responses itself. */
function checkKeyUsage({ walk, context, findings }: Subject, rule: "ROOT-05" | "ICA-03"): void {
  const { present, critical, broken, keyUsage } = walk.extensions;
  if ((broken & Known.keyUsage) !== 0) return;
  if ((present & Known.keyUsage) === 0) {
    report(findings, rule, "keyUsage is missing");
    return;
  }
  if ((critical & Known.keyUsage) === 0) report(findings, rule, "keyUsage is not critical");
  const wanted = KeyUsageBit.keyCertSign | KeyUsageBit.cRLSign;
  const allowed = wanted | (context.ocspSigner === true ? KeyUsageBit.digitalSignature : 0);
  if (keyUsage === 0) return; // CRT-14 has said so
  if ((keyUsage & wanted) !== wanted || (keyUsage & ~allowed) !== 0) {
    report(
      findings,
      rule,
      `keyUsage is ${keyUsageText(keyUsage)}; keyCertSign and cRLSign are wanted`,
    );
  }
}
