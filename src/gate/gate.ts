/**
 * The one check that every TBS passes before it is signed: linter, constraints of the chain, profile and policy,
 * on the final bytes. The service runs it, and the signer runs it again on its own configuration.
 */

import { CountersignError, type ErrorCode } from "../errors.ts";
import { decide, type CompiledPolicy } from "../policy/decide.ts";
import type { Profile } from "../policy/document.ts";
import { addLifetime, formatLifetime } from "../policy/lifetime.ts";
import { shownName, type Name } from "../policy/name.ts";
import type { RevokedCertificate } from "../x509/certificate-list.ts";
import { extensionOf, parseTbsCertificate, type TbsCertificate } from "../x509/certificate.ts";
import { DerError } from "../x509/der.ts";
import { parseGeneralNames } from "../x509/general-name.ts";
import {
  lintIssuer,
  lintTbsCertificate,
  type LintIssuer,
  type RequestedCertificate,
} from "../x509/lint/certificate.ts";
import { lintCertificateList, lintTbsCertList } from "../x509/lint/certificate-list.ts";
import type { Finding } from "../x509/lint/finding.ts";
import { extensionOids } from "../x509/oid.ts";
import { parsePublicKey } from "../x509/public-key.ts";

export type GateDecision =
  | {
      readonly verdict: "allow";
      /** The policy's rules that allowed it, or `grant` where the exact bytes were granted. */
      readonly rule: string;
      /** Rule ids of S findings. */
      readonly warnings: readonly string[];
    }
  | Refusal;

export interface Refusal {
  readonly verdict: "refuse";
  readonly code: ErrorCode;
  readonly rule: string;
  readonly detail: string;
  /** The name it was decided on. */
  readonly name?: string;
}

export interface GateParts {
  /** The issuer's id in the policy. */
  readonly issuer: string;
  /** DER. */
  readonly certificate: Uint8Array;
  /** DER; the issuer's issuer first, the root last. Empty for a root. */
  readonly chain: readonly Uint8Array[];
  readonly policy: CompiledPolicy;
  /** SHA-256 of the SubjectPublicKeyInfo of every CA key of this installation, hex: KEY-11. */
  readonly caKeys: ReadonlySet<string>;
}

export interface LeafContext {
  readonly profile: string;
  /** Name of the requester that the intent names. */
  readonly requester: string;
  readonly now: Date;
  /** Set when OpenSSL has already taken the very same public key, so that its point is on the curve. */
  readonly publicKeyChecked?: boolean;
  /** What was asked for, to be found in the bytes field by field: CRT-21. Only the service knows it. */
  readonly requested?: RequestedCertificate;
}

export interface CrlContext {
  readonly now: Date;
  /** DER. */
  readonly predecessor?: Uint8Array;
  /** Expired certificates, DER, whose entries are gone. */
  readonly dropped?: readonly Uint8Array[];
  /** What the CRL is meant to hold: CRL-35. */
  readonly intended?: readonly RevokedCertificate[];
}

export interface Gate {
  /** A leaf. */
  checkCertificate(tbs: Uint8Array, context: LeafContext): GateDecision;
  /** A certificate of a CA below this issuer, whose exact bytes were granted. */
  checkCaCertificate(tbs: Uint8Array, context: { readonly now: Date }): GateDecision;
  checkCertificateList(tbs: Uint8Array, context: CrlContext): GateDecision;
  /** The signed CRL, before it is published. */
  checkSignedCertificateList(crl: Uint8Array, context: CrlContext): GateDecision;
}

/** A clock of the requester's, or two of ours, may differ by this much. */
const CLOCK_MILLISECONDS = 60_000;

export function compileGate(parts: GateParts): Gate {
  const { policy, caKeys } = parts;
  const issuer: LintIssuer = lintIssuer(parts.certificate, parts.chain);

  function checkLeaf(tbs: Uint8Array, context: LeafContext): GateDecision {
    const profile = policy.policy.profiles.get(context.profile);
    if (profile === undefined) {
      return {
        verdict: "refuse",
        code: "profile-not-allowed",
        rule: "profiles",
        detail: `the policy has no profile ${shownName(context.profile)}`,
      };
    }
    const lint = verdictOf(
      lintTbsCertificate(tbs, {
        kind: profile.kind,
        issuer,
        now: context.now,
        caKeys,
        // This step has rules for DNS names and addresses alone; the policy decides on each.
        clientNames: ["dns", "ip"],
        ...(context.publicKeyChecked === undefined
          ? {}
          : { publicKeyChecked: context.publicKeyChecked }),
        ...(context.requested === undefined ? {} : { requested: context.requested }),
      }),
      "policy",
    );
    if (lint.verdict === "refuse") return lint;
    const certificate = parseTbsCertificate(tbs);
    const wrong = checkProfile(certificate, context, profile);
    if (wrong !== undefined) return wrong;
    const decision = decide(policy, {
      issuer: parts.issuer,
      profile: context.profile,
      requester: { name: context.requester },
      names: namesOf(certificate),
    });
    if (decision.verdict === "allow") {
      return { verdict: "allow", rule: decision.rule, warnings: lint.warnings };
    }
    const { code, rule, detail, name } = decision;
    return {
      verdict: "refuse",
      code,
      rule,
      detail,
      ...(name === undefined ? {} : { name: shownName(name.value) }),
    };
  }

  return {
    checkCertificate: (tbs, context) => withoutDerErrors(() => checkLeaf(tbs, context)),
    checkCaCertificate: (tbs, { now }) =>
      verdictOf(lintTbsCertificate(tbs, { kind: "intermediate", issuer, now }), "grant"),
    checkCertificateList: (tbs, context) =>
      verdictOf(lintTbsCertList(tbs, { issuer, ...context }), "grant"),
    checkSignedCertificateList: (crl, context) =>
      verdictOf(lintCertificateList(crl, { issuer, ...context }), "grant"),
  };
}

/** A self-signed root, whose exact bytes were granted. */
export function checkRoot(tbs: Uint8Array, context: { readonly now: Date }): GateDecision {
  return verdictOf(lintTbsCertificate(tbs, { kind: "root", now: context.now }), "grant");
}

/**
 * Returns the allowance, or throws what was refused.
 *
 * @throws CountersignError with the refusal's code, and members `rule` and `name`.
 */
export function refusal<T extends { readonly verdict: "allow" }>(decision: T | Refusal): T {
  if (decision.verdict === "allow") return decision as T;
  const { code, rule, detail, name } = decision as Refusal;
  throw new CountersignError(code, detail, {
    members: { rule, ...(name === undefined ? {} : { name }) },
  });
}

function verdictOf(
  findings: readonly Finding[],
  rule: string,
): Extract<GateDecision, { verdict: "allow" }> | Refusal {
  const warnings: string[] = [];
  const refused: Finding[] = [];
  for (const finding of findings) {
    if (finding.level === "S") warnings.push(finding.rule);
    else refused.push(finding);
  }
  const [first] = refused;
  if (first === undefined) return { verdict: "allow", rule, warnings };
  return {
    verdict: "refuse",
    code: "lint-refused",
    rule: first.rule,
    detail: refused.map((finding) => `${finding.rule}: ${finding.detail}`).join("; "),
  };
}

/** What the profile fixes beside what the linter's kind says: key types and times. */
function checkProfile(
  certificate: TbsCertificate,
  context: LeafContext,
  profile: Profile,
): Refusal | undefined {
  const at = `profiles.${context.profile}`;
  const { type } = parsePublicKey(certificate.subjectPublicKeyInfo);
  if (!profile.keyTypes.some((allowed) => allowed === type)) {
    return {
      verdict: "refuse",
      code: "key-refused",
      rule: `${at}.keyTypes`,
      detail: `profile ${context.profile} takes keys of type ${profile.keyTypes.join(", ")}, not ${type}`,
    };
  }
  const { notBefore, notAfter } = certificate;
  const earliest = context.now.getTime() - profile.backdate * 1000 - CLOCK_MILLISECONDS;
  if (
    notBefore.getTime() < earliest ||
    notBefore.getTime() > context.now.getTime() + CLOCK_MILLISECONDS
  ) {
    return {
      verdict: "refuse",
      code: "lifetime-refused",
      rule: `${at}.backdate`,
      detail: `notBefore ${notBefore.toISOString()} is not within the profile's backdating of now`,
    };
  }
  if (notAfter > addLifetime(notBefore, profile.lifetime.maximum)) {
    return {
      verdict: "refuse",
      code: "lifetime-refused",
      rule: `${at}.lifetime.maximum`,
      detail: `notAfter ${notAfter.toISOString()} is beyond the ${formatLifetime(profile.lifetime.maximum)} of profile ${context.profile}`,
    };
  }
  return undefined;
}

/** The names that stand in the certificate; the policy refuses those that are not in canonical form. */
function namesOf(certificate: TbsCertificate): Name[] {
  const extension = extensionOf(certificate, extensionOids.subjectAltName);
  if (extension === undefined) return [];
  return parseGeneralNames(extension.value).map((name) => ({
    kind: name.kind,
    value: "value" in name ? name.value : name.kind,
  }));
}

/** Bytes that the strict readers refuse are a finding, not a crash of the signer. */
function withoutDerErrors(check: () => GateDecision): GateDecision {
  try {
    return check();
  } catch (error) {
    if (error instanceof DerError) {
      return { verdict: "refuse", code: "lint-refused", rule: "CRT-19", detail: error.message };
    }
    if (error instanceof CountersignError) {
      const { rule, name } = error.members as { rule?: string; name?: string };
      return {
        verdict: "refuse",
        code: error.code,
        rule: rule ?? error.code,
        detail: error.message,
        ...(name === undefined ? {} : { name }),
      };
    }
    throw error;
  }
}
