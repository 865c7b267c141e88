/** What a certificate is judged against besides its bytes, and what is passed from rule to rule. */

import type { NameWalk } from "./distinguished-name.ts";
import type { Finding } from "./finding.ts";
import type { LintIssuer } from "./issuer.ts";
import type { SubjectKey } from "./keys.ts";
import type { TbsWalk } from "./structure.ts";

export type CertificateKind = "root" | "intermediate" | "server" | "client" | "peer";

/** What was asked for (CRT-21): each member that is given is compared with what the bytes say. */
export interface RequestedCertificate {
  /** Name, DER. */
  readonly subject?: Uint8Array;
  /** DER. */
  readonly subjectPublicKeyInfo?: Uint8Array;
  /** Content octets. */
  readonly serialNumber?: Uint8Array;
  readonly notBefore?: Date;
  readonly notAfter?: Date;
  /** All names of the SAN, in any order; an empty list means no SAN. */
  readonly names?: readonly {
    readonly kind: "dns" | "ip" | "email" | "uri";
    readonly value: string;
  }[];
  /** RFC 5280 spelling; an empty list means no extension. */
  readonly keyUsage?: readonly string[];
  /** Dotted OIDs in any order; an empty list means no extension. */
  readonly extKeyUsage?: readonly string[];
  /** `null`: not a CA. */
  readonly basicConstraints?: { readonly cA: true; readonly pathLen?: number } | null;
  /** The one URI of the CRL distribution point. */
  readonly crlUrl?: string;
  /** The one caIssuers URI. */
  readonly caIssuersUrl?: string;
}

export interface ListedExtension {
  readonly oid: string;
  readonly critical: boolean;
  /** The value that the profile writes, DER; without it any well-formed DER passes. */
  readonly value?: Uint8Array;
}

export interface CertificateLintContext {
  readonly kind: CertificateKind;
  /** Absent for a root, required for all others. */
  readonly issuer?: LintIssuer;
  readonly now: Date;
  /** CRT-20: what the profile lists beyond the known extensions. */
  readonly extensions?: readonly ListedExtension[];
  /** CRT-18; `rfc7093-1` by default. */
  readonly subjectKeyIdentifierMethod?: "rfc7093-1" | "sha1";
  /** CRT-10: seconds that the profile allows at most, the last one included. */
  readonly maximumLifetime?: number;
  /** CRT-09: whether `99991231235959Z` is meant. */
  readonly noExpiry?: boolean;
  /** CRT-17: the hex SPKI digest of the key that this installation knows by an SKI (hex). */
  readonly keyIdentifierOwner?: (identifierHex: string) => string | undefined;
  /** CRT-22: the issuer, or a CA above it, is revoked. */
  readonly issuerRevoked?: boolean;
  /** CLI-03, CLI-04: the kinds of name that the profile allows; `email` and `uri` by default. */
  readonly clientNames?: readonly ("dns" | "ip" | "email" | "uri" | "upn")[];
  /** CLI-06: the URI that the CDP of this scope has. */
  readonly crlUrl?: string;
  /** SRV-16; 100 by default. */
  readonly maximumNames?: number;
  /** ROOT-05, ICA-03: the CA's own key will sign OCSP responses, and may assert digitalSignature. */
  readonly ocspSigner?: boolean;
  /** KEY-11: hex SPKI digests of all CA keys. */
  readonly caKeys?: ReadonlySet<string>;
  /** KEY-11, for CA certificates: whether a leaf was ever issued for this key. */
  readonly leafKeys?: (spkiDigest: string) => boolean;
  /** KEY-13: false if the profile does not allow Ed25519. */
  readonly ed25519?: boolean;
  /** KEY-09: OpenSSL has already accepted the SPKI in this TBS as a key, so its point is on the curve. */
  readonly publicKeyChecked?: boolean;
  /** ROOT-11: hex of the Name DER of every root there was. */
  readonly rootNames?: ReadonlySet<string>;
  /** CRT-04. */
  readonly issuedSerials?: (serialHex: string) => boolean;
  /** CRT-21. */
  readonly requested?: RequestedCertificate;
  /** ICA-13: hex SPKI digests of keys made in approved ceremonies. */
  readonly ceremonyKeys?: ReadonlySet<string>;
}

/** One certificate being judged. */
export interface Subject {
  readonly walk: TbsWalk;
  readonly name: NameWalk;
  readonly key: SubjectKey | undefined;
  readonly context: CertificateLintContext;
  readonly findings: Finding[];
}
