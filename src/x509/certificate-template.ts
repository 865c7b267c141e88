/**
 * TBSCertificates: RFC 5280 §4.1.2, rules CRT, ROOT and ICA. What is the same for all certificates of an issuer
 * and profile is encoded once; the rest is spliced in.
 *
 * The extensions come in this order, each if there is one: authorityKeyIdentifier, basicConstraints (CA only,
 * critical), keyUsage (critical), extKeyUsage, cRLDistributionPoints, authorityInfoAccess,
 * subjectKeyIdentifier, subjectAltName (critical if the subject is empty).
 */

import { concat, contextTag, element, equalOctets, integer, sequence, Tag, time } from "./der.ts";
import {
  encodeAuthorityInfoAccess,
  encodeAuthorityKeyIdentifier,
  encodeBasicConstraints,
  encodeDistributionPoint,
  encodeExtension,
  encodeExtKeyUsage,
  encodeKeyUsage,
  encodeSubjectKeyIdentifier,
  extensionEncoder,
  type KeyUsage,
} from "./extension.ts";
import { encodeGeneralNames, type SubjectName } from "./general-name.ts";
import { readIssuer, type Issuer } from "./issuer.ts";
import { emptyName } from "./name.ts";
import { extensionOids, extKeyUsageOids } from "./oid.ts";
import { keyIdentifier, type PublicKeyInfo } from "./public-key.ts";
import { isSerialNumber } from "./serial-number.ts";
import { signatureAlgorithmFor } from "./signature-algorithm.ts";

/** What all certificates of one issuer and profile share. */
export interface CertificateFields {
  /** DER. */
  readonly issuerCertificate: Uint8Array;
  readonly keyUsage: readonly KeyUsage[];
  /** Dotted purposes; none: no such extension. */
  readonly extKeyUsage: readonly string[];
  readonly crlUrl?: string;
  readonly caIssuersUrl?: string;
  /** Only for a CA: a leaf has no such extension (SRV-14). */
  readonly basicConstraints?: { readonly cA: true; readonly pathLen?: number };
  /** Whether certificates hold a subjectKeyIdentifier: a CA's must (ICA-01), SRV-13 advises against a leaf's. */
  readonly subjectKeyIdentifier: boolean;
}

export interface CertificateTemplate {
  readonly issuer: Issuer;
  readonly subjectKeyIdentifier: boolean;
  /** AlgorithmIdentifier and issuer, as they follow the serial number. */
  readonly afterSerialNumber: Uint8Array;
  /** The extensions that do not depend on the subject. */
  readonly extensions: Uint8Array;
}

/** What one certificate has of its own. */
export interface CertificateLeaf {
  /** Content octets of the INTEGER. */
  readonly serialNumber: Uint8Array;
  /** Fractions of a second are dropped from both times. */
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** Name, DER. */
  readonly subject: Uint8Array;
  readonly publicKey: PublicKeyInfo;
  /** The subjectAltName, in this order; none only if the subject is not empty. */
  readonly names: readonly SubjectName[];
}

const version3: Uint8Array = element(contextTag(0, true), integer(2));
const subjectKeyIdentifierExtension = extensionEncoder(extensionOids.subjectKeyIdentifier, false);
const subjectAltNameExtension = extensionEncoder(extensionOids.subjectAltName, false);
const criticalSubjectAltNameExtension = extensionEncoder(extensionOids.subjectAltName, true);

/**
 * Encodes what certificates of an issuer and profile share.
 *
 * @throws DerError if the issuer certificate is broken.
 * @throws RangeError if it cannot issue such certificates (CRT-22: cA, keyCertSign, pathLen, extKeyUsage), or
 *   the fields break CRT-14, CRT-15, ICA-01 to ICA-03 or SRV-14.
 */
export function certificateTemplate(fields: CertificateFields): CertificateTemplate {
  const issuer = readIssuer(fields.issuerCertificate);
  if (!issuer.keyUsage.includes("keyCertSign")) {
    throw new RangeError("issuer certificate has no keyCertSign (CRT-22)");
  }
  if (fields.basicConstraints === undefined) checkLeafFields(fields);
  else checkCaFields(fields, fields.basicConstraints.pathLen, issuer);
  checkPurposes(fields.extKeyUsage, issuer.extKeyUsage);

  const { basicConstraints, extKeyUsage, crlUrl, caIssuersUrl } = fields;
  const extensions = [
    encoded("authorityKeyIdentifier", false, encodeAuthorityKeyIdentifier(issuer.keyIdentifier)),
  ];
  if (basicConstraints !== undefined) {
    extensions.push(encoded("basicConstraints", true, encodeBasicConstraints(basicConstraints)));
  }
  extensions.push(encoded("keyUsage", true, encodeKeyUsage(fields.keyUsage)));
  if (extKeyUsage.length > 0) {
    extensions.push(encoded("extKeyUsage", false, encodeExtKeyUsage(extKeyUsage)));
  }
  if (crlUrl !== undefined) {
    extensions.push(encoded("cRLDistributionPoints", false, encodeDistributionPoint(crlUrl)));
  }
  if (caIssuersUrl !== undefined) {
    extensions.push(encoded("authorityInfoAccess", false, encodeAuthorityInfoAccess(caIssuersUrl)));
  }
  return {
    issuer,
    subjectKeyIdentifier: fields.subjectKeyIdentifier,
    afterSerialNumber: concat(issuer.signatureAlgorithm.identifier, issuer.name),
    extensions: concat(...extensions),
  };
}

function encoded(
  name: keyof typeof extensionOids,
  critical: boolean,
  value: Uint8Array,
): Uint8Array {
  return encodeExtension({ oid: extensionOids[name], critical, value });
}

const caKeyUsages: readonly KeyUsage[] = ["keyCertSign", "cRLSign"];

function checkLeafFields({ keyUsage }: CertificateFields): void {
  if (keyUsage.some((usage) => caKeyUsages.includes(usage))) {
    throw new RangeError("keyCertSign and cRLSign need basicConstraints (CRT-15)");
  }
}

function checkCaFields(
  { keyUsage, subjectKeyIdentifier }: CertificateFields,
  pathLen: number | undefined,
  issuer: Issuer,
): void {
  const surplus = keyUsage.some(
    (usage) => usage !== "digitalSignature" && !caKeyUsages.includes(usage),
  );
  if (surplus || !caKeyUsages.every((usage) => keyUsage.includes(usage))) {
    throw new RangeError(
      "a CA's keyUsage is keyCertSign and cRLSign, and digitalSignature at most (ICA-03)",
    );
  }
  if (!subjectKeyIdentifier) throw new RangeError("a CA has a subjectKeyIdentifier (ICA-01)");
  if (pathLen === undefined) throw new RangeError("an intermediate has a pathLen (ICA-02)");
  if (issuer.pathLen !== undefined && pathLen >= issuer.pathLen) {
    throw new RangeError(`pathLen is not below the issuer's, which is ${issuer.pathLen} (ICA-02)`);
  }
}

/** ICA-12, CLI-07: purposes are a subset of the issuer's, where it has any. */
function checkPurposes(purposes: readonly string[], issuerPurposes?: readonly string[]): void {
  if (issuerPurposes === undefined) return;
  if (issuerPurposes.includes(extKeyUsageOids.anyExtendedKeyUsage)) return;
  const surplus = purposes.find((purpose) => !issuerPurposes.includes(purpose));
  if (surplus !== undefined || purposes.length === 0) {
    throw new RangeError(`issuer is restricted to other purposes: ${surplus ?? "any"} (ICA-12)`);
  }
}

/**
 * Builds the TBSCertificate of one certificate.
 *
 * @returns DER.
 * @throws RangeError if the serial number breaks CRT-02, the times CRT-10 or CRT-11 (the issuer's own), the key
 *   is the issuer's (KEY-11), there is neither a subject nor a name, or a name cannot be encoded.
 */
export function buildTbsCertificate(
  template: CertificateTemplate,
  leaf: CertificateLeaf,
): Uint8Array {
  const { issuer } = template;
  const { notBefore, notAfter, subject, publicKey, names } = leaf;
  if (
    wholeSeconds(notBefore) < wholeSeconds(issuer.notBefore) ||
    wholeSeconds(notAfter) > wholeSeconds(issuer.notAfter)
  ) {
    throw new RangeError("the certificate is valid before or after its issuer (CRT-11)");
  }
  if (equalOctets(publicKey.spki, issuer.publicKey.spki)) {
    throw new RangeError("the key is the issuer's own (KEY-11)");
  }
  const own: Uint8Array[] = [];
  if (template.subjectKeyIdentifier) {
    const identifier = encodeSubjectKeyIdentifier(keyIdentifier(publicKey));
    own.push(subjectKeyIdentifierExtension(identifier));
  }
  const anonymous = subject.length === emptyName.length;
  if (names.length > 0) {
    const subjectAltName = encodeGeneralNames(names);
    own.push(
      anonymous
        ? criticalSubjectAltNameExtension(subjectAltName)
        : subjectAltNameExtension(subjectAltName),
    );
  } else if (anonymous) {
    throw new RangeError("a certificate has a subject or a subjectAltName");
  }
  return sequence(
    version3,
    serialNumberElement(leaf.serialNumber),
    template.afterSerialNumber,
    validity(notBefore, notAfter),
    subject,
    publicKey.spki,
    element(contextTag(3, true), sequence(template.extensions, ...own)),
  );
}

function serialNumberElement(serialNumber: Uint8Array): Uint8Array {
  if (!isSerialNumber(serialNumber)) {
    throw new RangeError(
      "serial number is not positive, minimal and of at most 20 octets (CRT-02)",
    );
  }
  return element(Tag.integer, serialNumber);
}

function validity(notBefore: Date, notAfter: Date): Uint8Array {
  // Not `<=` on the dates: what counts are the seconds that are encoded.
  if (!(wholeSeconds(notBefore) < wholeSeconds(notAfter))) {
    throw new RangeError("notAfter is not after notBefore (CRT-10)");
  }
  return sequence(time(notBefore), time(notAfter));
}

function wholeSeconds(date: Date): number {
  return Math.floor(date.getTime() / 1000);
}

/** What a root has of its own. */
export interface RootFields {
  readonly serialNumber: Uint8Array;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** Name, DER; not empty. */
  readonly subject: Uint8Array;
  readonly publicKey: PublicKeyInfo;
}

/**
 * Builds the TBSCertificate of a root: rules ROOT-01, ROOT-04 to ROOT-09. No path length, keyCertSign and
 * cRLSign, authorityKeyIdentifier equal to the subjectKeyIdentifier, and nothing else.
 *
 * @returns DER; the extensions are in the order that certificates of a template have.
 * @throws RangeError as `buildTbsCertificate`, and if the subject is empty.
 */
export function buildRootTbsCertificate(root: RootFields): Uint8Array {
  const { serialNumber, notBefore, notAfter, subject, publicKey } = root;
  if (subject.length === emptyName.length) throw new RangeError("a root has a subject (CRL-05)");
  const identifier = keyIdentifier(publicKey);
  return sequence(
    version3,
    serialNumberElement(serialNumber),
    signatureAlgorithmFor(publicKey.type).identifier,
    subject,
    validity(notBefore, notAfter),
    subject,
    publicKey.spki,
    element(
      contextTag(3, true),
      sequence(
        encoded("authorityKeyIdentifier", false, encodeAuthorityKeyIdentifier(identifier)),
        encoded("basicConstraints", true, encodeBasicConstraints({ cA: true })),
        encoded("keyUsage", true, encodeKeyUsage(caKeyUsages)),
        encoded("subjectKeyIdentifier", false, encodeSubjectKeyIdentifier(identifier)),
      ),
    ),
  );
}
