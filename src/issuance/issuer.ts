/** The issuers of this service: their certificates, templates and gate, compiled once. */

import { CountersignError } from "../errors.ts";
import { compileGate, type Gate } from "../gate/gate.ts";
import type { CompiledPolicy } from "../policy/decide.ts";
import { certificateTemplate, type CertificateTemplate } from "../x509/certificate-template.ts";
import { parseCertificate } from "../x509/certificate.ts";
import { nameText } from "../x509/name.ts";
import { extKeyUsageOids } from "../x509/oid.ts";
import { parsePublicKey } from "../x509/public-key.ts";
import { signatureAlgorithmFor, type SignatureAlgorithm } from "../x509/signature-algorithm.ts";

export type KeyState = "open" | "locked" | "held" | "unavailable";

/** What the keeper says about one issuer's key. */
export interface IssuerKey {
  readonly issuer: string;
  readonly keyId: string;
  readonly state: KeyState;
  readonly detail?: string;
  /** `sealed`: only a quorum opens it, or its token. */
  readonly custody: "token" | "sealed";
  /** What its grant allows now, of which a sealed one has none while it is locked. */
  readonly operations: readonly ("certificate" | "crl")[];
  /** Absent until the issuer has a certificate. */
  readonly certificate?: Uint8Array;
  readonly chain: readonly Uint8Array[];
}

export interface IssuerView {
  readonly id: string;
  readonly keyId: string;
  /** RFC 4514. */
  readonly subject: string;
  readonly certificate: Uint8Array;
  /** The issuers above, the root last; empty for a root. */
  readonly chain: readonly Uint8Array[];
  readonly profiles: readonly string[];
  readonly state: KeyState;
  readonly detail?: string;
  readonly notAfter: Date;
  readonly crlUrl: string;
  readonly caIssuersUrl: string;
}

export interface Issuer {
  readonly id: string;
  readonly keyId: string;
  readonly certificate: Uint8Array;
  readonly chain: readonly Uint8Array[];
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly algorithm: SignatureAlgorithm;
  readonly crlUrl: string;
  readonly caIssuersUrl: string;
  readonly gate: Gate;
  /** By profile. */
  readonly templates: ReadonlyMap<string, CertificateTemplate>;
}

export interface Issuers {
  list(): IssuerView[];
  /** @throws CountersignError `issuer-unknown`. */
  get(id: string): IssuerView;
}

/** Key usage and extended key usage of the leaf kinds: SRV-08, SRV-09, CLI-01, CLI-02. */
const extKeyUsageOf = {
  server: [extKeyUsageOids.serverAuth],
  client: [extKeyUsageOids.clientAuth],
  peer: [extKeyUsageOids.serverAuth, extKeyUsageOids.clientAuth],
} as const;

/** Where relying parties find an issuer's CRL and certificate, below the public site's URL. */
export function crlUrlOf(publicUrl: string, issuer: string): string {
  return `${publicUrl}/crl/${issuer}.crl`;
}

export function caIssuersUrlOf(publicUrl: string, issuer: string): string {
  return `${publicUrl}/ca/${issuer}.cer`;
}

export class IssuerSet implements Issuers {
  readonly #issuers: ReadonlyMap<string, Issuer>;
  readonly #keys: () => readonly IssuerKey[];
  readonly #policy: CompiledPolicy;
  /** SHA-256 of the SubjectPublicKeyInfo of every CA key here, hex. */
  readonly caKeys: ReadonlySet<string>;

  /**
   * @param keys - The keeper's latest word on the keys; read again for every view.
   * @param publicUrl - Base of CDP and AIA URLs, without a slash at the end.
   */
  constructor(keys: () => readonly IssuerKey[], policy: CompiledPolicy, publicUrl: string) {
    this.#keys = keys;
    this.#policy = policy;
    this.caKeys = new Set(keys().map((key) => key.keyId));
    this.#issuers = new Map(
      keys().flatMap((key) =>
        key.certificate === undefined
          ? []
          : [[key.issuer, compileIssuer(key, key.certificate, policy, publicUrl, this.caKeys)]],
      ),
    );
  }

  /** @throws CountersignError `issuer-unknown`. */
  find(id: string): Issuer {
    const issuer = this.#issuers.get(id);
    if (issuer === undefined) {
      throw new CountersignError("issuer-unknown", `there is no issuer ${JSON.stringify(id)}`);
    }
    return issuer;
  }

  all(): IterableIterator<Issuer> {
    return this.#issuers.values();
  }

  get(id: string): IssuerView {
    const { certificate, chain, keyId, notAfter, crlUrl, caIssuersUrl } = this.find(id);
    const key = this.#key(id);
    return {
      id,
      keyId,
      subject: nameText(parseCertificate(certificate).tbs.subject),
      certificate,
      chain,
      profiles: [...(this.#policy.issuers.get(id)?.profiles ?? [])],
      state: key?.state ?? "unavailable",
      ...(key?.detail === undefined ? {} : { detail: key.detail }),
      notAfter,
      crlUrl,
      caIssuersUrl,
    };
  }

  /** Whether only a quorum opens this issuer's key. */
  isSealed(id: string): boolean {
    return this.#key(id)?.custody === "sealed";
  }

  /** Whether the service makes this issuer's CRLs by itself; otherwise a ceremony does. */
  makesCrls(id: string): boolean {
    return !this.isSealed(id) || this.#key(id)?.operations.includes("crl") === true;
  }

  #key(id: string): IssuerKey | undefined {
    return this.#keys().find((candidate) => candidate.issuer === id);
  }

  list(): IssuerView[] {
    return [...this.#issuers.keys()].map((id) => this.get(id));
  }
}

function compileIssuer(
  key: IssuerKey,
  certificate: Uint8Array,
  policy: CompiledPolicy,
  publicUrl: string,
  caKeys: ReadonlySet<string>,
): Issuer {
  const { tbs } = parseCertificate(certificate);
  const offered = [...(policy.issuers.get(key.issuer)?.profiles ?? [])];
  const templates = offered.map((profile) => {
    const { kind } = policy.policy.profiles.get(profile)!; // parsePolicy has checked the reference
    return [
      profile,
      certificateTemplate({
        issuerCertificate: certificate,
        keyUsage: ["digitalSignature"],
        extKeyUsage: extKeyUsageOf[kind],
        crlUrl: crlUrlOf(publicUrl, key.issuer),
        caIssuersUrl: caIssuersUrlOf(publicUrl, key.issuer),
        subjectKeyIdentifier: false,
      }),
    ] as const;
  });
  return {
    id: key.issuer,
    keyId: key.keyId,
    certificate,
    chain: key.chain,
    notBefore: tbs.notBefore,
    notAfter: tbs.notAfter,
    algorithm: signatureAlgorithmFor(parsePublicKey(tbs.subjectPublicKeyInfo).type),
    crlUrl: crlUrlOf(publicUrl, key.issuer),
    caIssuersUrl: caIssuersUrlOf(publicUrl, key.issuer),
    gate: compileGate({
      issuer: key.issuer,
      certificate,
      chain: key.chain,
      policy,
      caKeys,
      crlUrl: crlUrlOf(publicUrl, key.issuer),
      caIssuersUrl: caIssuersUrlOf(publicUrl, key.issuer),
    }),
    templates: new Map(templates),
  };
}
