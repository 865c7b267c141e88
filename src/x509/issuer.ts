/** An issuing certificate as the builders need it. */

import { extensionOf, parseCertificate } from "./certificate.ts";
import {
  parseBasicConstraints,
  parseExtKeyUsage,
  parseKeyUsage,
  parseSubjectKeyIdentifier,
  type KeyUsage,
} from "./extension.ts";
import { emptyName } from "./name.ts";
import { extensionOids } from "./oid.ts";
import { parsePublicKey, type PublicKeyInfo } from "./public-key.ts";
import { signatureAlgorithmFor, type SignatureAlgorithm } from "./signature-algorithm.ts";

export interface Issuer {
  /** The subject of the certificate, DER, copied byte for byte (CRT-05, CRL-06). */
  readonly name: Uint8Array;
  readonly publicKey: PublicKeyInfo;
  /** What its key signs with. */
  readonly signatureAlgorithm: SignatureAlgorithm;
  /** The value of its subjectKeyIdentifier, copied and not computed (CRT-16, CRL-51). */
  readonly keyIdentifier: Uint8Array;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly keyUsage: readonly KeyUsage[];
  /** How many CA certificates may follow it; undefined: any number. */
  readonly pathLen: number | undefined;
  /** Dotted purposes; undefined: unrestricted. */
  readonly extKeyUsage: readonly string[] | undefined;
}

/**
 * Reads an issuing certificate.
 *
 * @param certificate - DER.
 * @throws DerError if it is broken.
 * @throws RangeError if it cannot issue: no cA, keyUsage, subjectKeyIdentifier or subject.
 */
export function readIssuer(certificate: Uint8Array): Issuer {
  const { tbs } = parseCertificate(certificate);
  const valueOf = (name: keyof typeof extensionOids): Uint8Array | undefined =>
    extensionOf(tbs, extensionOids[name])?.value;
  const needed = (name: keyof typeof extensionOids): Uint8Array => {
    const value = valueOf(name);
    if (value === undefined) throw new RangeError(`issuer certificate has no ${name}`);
    return value;
  };
  const { cA, pathLen } = parseBasicConstraints(needed("basicConstraints"));
  if (!cA) throw new RangeError("issuer certificate is not of a CA");
  if (tbs.subject.length === emptyName.length) throw new RangeError("issuer has no name (CRL-05)");
  const publicKey = parsePublicKey(tbs.subjectPublicKeyInfo);
  const extKeyUsage = valueOf("extKeyUsage");
  return {
    name: tbs.subject,
    publicKey,
    signatureAlgorithm: signatureAlgorithmFor(publicKey.type),
    keyIdentifier: parseSubjectKeyIdentifier(needed("subjectKeyIdentifier")),
    notBefore: tbs.notBefore,
    notAfter: tbs.notAfter,
    keyUsage: parseKeyUsage(needed("keyUsage")),
    pathLen,
    extKeyUsage: extKeyUsage && parseExtKeyUsage(extKeyUsage),
  };
}
