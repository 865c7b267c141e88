/**
 * The one check that every TBS passes before it is signed: linter, constraints of the chain, profile and policy,
 * on the final bytes. The service runs it, and the signer runs it again on its own configuration.
 */

import { CountersignError, type ErrorCode } from "../errors.ts";
import { decide, type CompiledPolicy } from "../policy/decide.ts";
import type { Profile } from "../policy/document.ts";
import { addLifetime, formatLifetime } from "../policy/lifetime.ts";
import { shownName, type Name } from "../policy/name.ts";
import { parseTbsCertList, type RevokedCertificate } from "../x509/certificate-list.ts";
import { extensionOf, parseTbsCertificate, type TbsCertificate } from "../x509/certificate.ts";
import { DerError, equalOctets, Tag } from "../x509/der.ts";
import {
  encodeAuthorityInfoAccess,
  encodeAuthorityKeyIdentifier,
  encodeDistributionPoint,
  encodeExtKeyUsage,
  encodeKeyUsage,
  parseAuthorityInfoAccess,
  parseDistributionPoints,
  type Extension,
} from "../x509/extension.ts";
import { parseGeneralNames, type GeneralName } from "../x509/general-name.ts";
import { readIssuer } from "../x509/issuer.ts";
import {
  lintIssuer,
  lintTbsCertificate,
  type LintIssuer,
  type RequestedCertificate,
} from "../x509/lint/certificate.ts";
import { lintCertificateList, lintTbsCertList } from "../x509/lint/certificate-list.ts";
import type { Finding } from "../x509/lint/finding.ts";
import { parseName } from "../x509/name.ts";
import { attributeTypeOids, extensionOids, extKeyUsageOids } from "../x509/oid.ts";
import { parsePublicKey } from "../x509/public-key.ts";
import { parseSigned } from "../x509/signed.ts";

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
  /** The URI that the CDP of every leaf has; without it, any one http URI passes. */
  readonly crlUrl?: string;
  /** The caIssuers URI that the AIA of every leaf has; without it, any one http URI passes. */
  readonly caIssuersUrl?: string;
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
  const { keyIdentifier } = readIssuer(parts.certificate);
  const authorityKeyIdentifier = encodeAuthorityKeyIdentifier(keyIdentifier);
  const checkLeafExtensions = leafExtensions(parts, authorityKeyIdentifier);

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
    const wrong =
      checkProfile(certificate, context, profile) ?? checkLeafExtensions(certificate, profile.kind);
    if (wrong !== undefined) return wrong;
    const names = namesOf(certificate);
    const unnamed = checkSubject(certificate, names, profile.kind);
    if (unnamed !== undefined) return unnamed;
    const decision = decide(policy, {
      issuer: parts.issuer,
      profile: context.profile,
      requester: { name: context.requester },
      names,
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

  /**
   * A CRL here is complete and for everything: what a delta, a shard or an indirect CRL leaves out would be a
   * revocation undone, so none of their extensions is passed, known or not.
   */
  function checkList(findings: readonly Finding[], tbs: () => Uint8Array): GateDecision {
    const lint = verdictOf(findings, "grant");
    if (lint.verdict === "refuse") return lint;
    return withoutDerErrors(() => {
      const { extensions } = parseTbsCertList(tbs());
      const surplus = extensions.find(
        ({ oid }) =>
          oid !== extensionOids.authorityKeyIdentifier && oid !== extensionOids.cRLNumber,
      );
      if (surplus !== undefined) {
        return lintRefusal(
          "CRL-80",
          `a CRL with the extension ${surplus.oid}, which none here has`,
        );
      }
      const authority = extensionOf({ extensions }, extensionOids.authorityKeyIdentifier);
      if (authority === undefined || !equalOctets(authority.value, authorityKeyIdentifier)) {
        return lintRefusal(
          "CRL-51",
          "authorityKeyIdentifier is not the issuer's key identifier alone",
        );
      }
      return lint;
    }, "CRL-09");
  }

  return {
    checkCertificate: (tbs, context) => withoutDerErrors(() => checkLeaf(tbs, context)),
    checkCaCertificate: (tbs, { now }) =>
      verdictOf(lintTbsCertificate(tbs, { kind: "intermediate", issuer, now }), "grant"),
    checkCertificateList: (tbs, context) =>
      checkList(lintTbsCertList(tbs, { issuer, ...context, delta: false }), () => tbs),
    checkSignedCertificateList: (crl, context) =>
      checkList(
        lintCertificateList(crl, { issuer, ...context, delta: false }),
        () => parseSigned(crl).tbs,
      ),
  };
}

/** Extended key usage of the leaf kinds, as they are written: SRV-08, CLI-01. */
const purposesOf: Readonly<Record<Profile["kind"], Uint8Array>> = {
  server: encodeExtKeyUsage([extKeyUsageOids.serverAuth]),
  client: encodeExtKeyUsage([extKeyUsageOids.clientAuth]),
  peer: encodeExtKeyUsage([extKeyUsageOids.serverAuth, extKeyUsageOids.clientAuth]),
};

const digitalSignature = encodeKeyUsage(["digitalSignature"]);

/** An extension that every leaf has, and what its value must be: these octets, or what passes the check. */
interface WantedExtension {
  readonly name: keyof typeof extensionOids;
  readonly critical: boolean;
  readonly value: Uint8Array | ((value: Uint8Array) => boolean);
}

/**
 * A leaf has exactly the extensions that `certificateTemplate` writes for its kind, with exactly these values. A
 * linter passes more, and each more is a power that no policy has decided on: a purpose, a certificate policy, a CRL
 * of somebody else's.
 */
function leafExtensions(
  { crlUrl, caIssuersUrl }: GateParts,
  authorityKeyIdentifier: Uint8Array,
): (certificate: TbsCertificate, kind: Profile["kind"]) => Refusal | undefined {
  const wantedFor = (kind: Profile["kind"]): ReadonlyMap<string, WantedExtension> => {
    const wanted: WantedExtension[] = [
      { name: "authorityKeyIdentifier", critical: false, value: authorityKeyIdentifier },
      { name: "keyUsage", critical: true, value: digitalSignature },
      { name: "extKeyUsage", critical: false, value: purposesOf[kind] },
      {
        name: "cRLDistributionPoints",
        critical: false,
        value: crlUrl === undefined ? isOneHttpPoint : encodeDistributionPoint(crlUrl),
      },
      {
        name: "authorityInfoAccess",
        critical: false,
        value:
          caIssuersUrl === undefined ? isOneHttpIssuer : encodeAuthorityInfoAccess(caIssuersUrl),
      },
    ];
    return new Map(wanted.map((extension) => [extensionOids[extension.name], extension]));
  };
  const kinds = {
    server: wantedFor("server"),
    client: wantedFor("client"),
    peer: wantedFor("peer"),
  };
  return (certificate, kind) => {
    const wanted = kinds[kind];
    let found = 0;
    for (const extension of certificate.extensions) {
      // The linter has judged its criticality, the policy decides on its names.
      if (extension.oid === extensionOids.subjectAltName) continue;
      const known = wanted.get(extension.oid);
      if (known === undefined) {
        return lintRefusal(
          "CRT-20",
          `extension ${extension.oid}, which no ${kind} certificate has`,
        );
      }
      if (!isWanted(extension, known)) {
        return lintRefusal(
          "CRT-20",
          `${known.name} is not what a ${kind} certificate of this CA has`,
        );
      }
      found++; // none occurs twice: the reader refuses that
    }
    if (found === wanted.size) return undefined;
    const missing = [...wanted.values()].find(
      ({ name }) => extensionOf(certificate, extensionOids[name]) === undefined,
    );
    return lintRefusal(
      "CRT-20",
      `there is no ${missing!.name}, which every ${kind} certificate has`,
    );
  };
}

function isWanted({ critical, value }: Extension, wanted: WantedExtension): boolean {
  if (critical !== wanted.critical) return false;
  return typeof wanted.value === "function"
    ? wanted.value(value)
    : equalOctets(value, wanted.value);
}

function isHttp(name: GeneralName | undefined): name is GeneralName & { kind: "uri" } {
  return name?.kind === "uri" && /^http:\/\/[\x21-\x7e]+$/.test(name.value);
}

/** One distribution point with one http URI, and nothing else in it. */
function isOneHttpPoint(value: Uint8Array): boolean {
  const name = parseDistributionPoints(value)[0]!.fullName?.[0];
  return isHttp(name) && equalOctets(value, encodeDistributionPoint(name.value));
}

/** One caIssuers with one http URI. */
function isOneHttpIssuer(value: Uint8Array): boolean {
  const name = parseAuthorityInfoAccess(value)[0]!.location;
  return isHttp(name) && equalOctets(value, encodeAuthorityInfoAccess(name.value));
}

/**
 * The subject says nothing that the policy has not decided on: programs take a common name for a host or a user, and
 * an organization for a group (`O=system:masters`).
 */
function checkSubject(
  certificate: TbsCertificate,
  names: readonly Name[],
  kind: Profile["kind"],
): Refusal | undefined {
  if (names.length === 0) {
    return lintRefusal(
      kind === "client" ? "CLI-03" : "SRV-03",
      "there is no subjectAltName: the policy decides on the names in it",
    );
  }
  for (const { oid, tag, value } of parseName(certificate.subject).flat()) {
    const name = shownName(value);
    if (oid !== attributeTypeOids.CN) {
      return {
        verdict: "refuse",
        code: "name-refused",
        rule: `subject field ${oid} (no rule for this kind)`,
        detail: `no rule allows names of the kind subject field ${oid}: "${name}"`,
        name,
      };
    }
    const text = tag === Tag.utf8String || tag === Tag.printableString;
    const listed = names.some(
      (other) => (other.kind === "dns" || other.kind === "ip") && other.value === value,
    );
    if (text && listed) continue;
    return {
      verdict: "refuse",
      code: "name-refused",
      rule: "SRV-06",
      detail: `the common name "${name}" is not, octet for octet, a DNS name or address of the subjectAltName`,
      name,
    };
  }
  return undefined;
}

function lintRefusal(rule: string, detail: string): Refusal {
  return { verdict: "refuse", code: "lint-refused", rule, detail };
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
function withoutDerErrors(check: () => GateDecision, rule = "CRT-19"): GateDecision {
  try {
    return check();
  } catch (error) {
    if (error instanceof DerError) {
      return { verdict: "refuse", code: "lint-refused", rule, detail: error.message };
    }
    if (error instanceof CountersignError) {
      const { rule: named, name } = error.members as { rule?: string; name?: string };
      return {
        verdict: "refuse",
        code: error.code,
        rule: named ?? error.code,
        detail: error.message,
        ...(name === undefined ? {} : { name }),
      };
    }
    throw error;
  }
}
