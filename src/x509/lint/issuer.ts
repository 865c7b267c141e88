/** The issuing CA as the linter sees it: read once from DER, used for every certificate and CRL under it. */

import { createPublicKey, hash } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { DerError, encodingOf } from "../der.ts";
import type { DerElement } from "../der.ts";
import type { Finding } from "./finding.ts";
import { readSubjectKey } from "./keys.ts";
import type { KeyType } from "./keys.ts";
import type { NameConstraints } from "./name-constraints.ts";
import { contentHex, encodingIs, sameOctets } from "./octets.ts";
import { signatureVerifies } from "./signatures.ts";
import { Known, KeyUsageBit, walkSigned, walkTbsCertificate } from "./structure.ts";
import type { TbsWalk } from "./structure.ts";

/** Made by {@link lintIssuer}; its members are the linter's own business. */
export interface LintIssuer {
  readonly subject: Uint8Array;
  readonly subjectPublicKeyInfo: Uint8Array;
  /** Hex SHA-256 of the SPKI. */
  readonly spkiDigest: string;
  readonly keyType: KeyType;
  readonly key: KeyObject;
  readonly subjectKeyIdentifier: Uint8Array | undefined;
  readonly keyUsage: number;
  readonly notBefore: number;
  readonly notAfter: number;
  /** What is wrong with the path whatever is issued (CRT-22). */
  readonly pathFaults: readonly string[];
  /** How many more CA certificates the path can take below the issuer: Infinity without any pathLen. */
  readonly pathBudget: number;
  /** Latest notBefore and earliest notAfter of the path. */
  readonly pathNotBefore: number;
  readonly pathNotAfter: number;
  /** The EKU of each CA of the path that has one. */
  readonly extKeyUsages: readonly (readonly DerElement[])[];
  readonly constraints: readonly NameConstraints[];
  /** Keys of the path by their SKI (CRT-17). */
  readonly pathKeys: readonly { readonly identifier: Uint8Array; readonly spki: Uint8Array }[];
}

interface PathCertificate {
  readonly walk: TbsWalk;
  readonly keyType: KeyType;
  readonly key: KeyObject;
  readonly selfIssued: boolean;
}

/**
 * Reads an issuer and the path above it.
 *
 * @param certificate - DER of the issuing CA's certificate.
 * @param chain - DER of the CA certificates above it: its issuer first, the root last; empty for a root.
 * @throws DerError if one of them cannot be read, or has a key that the linter does not know.
 */
export function lintIssuer(certificate: Uint8Array, chain: readonly Uint8Array[]): LintIssuer {
  const path: PathCertificate[] = [];
  const faults: string[] = [];
  const own = readPathCertificate(certificate, 0, faults);
  path.push(own);
  for (const [index, der] of chain.entries()) {
    path.push(readPathCertificate(der, index + 1, faults));
  }
  for (const [index, { walk, selfIssued }] of path.entries()) {
    const above = path[index + 1] ?? (selfIssued ? path[index] : undefined);
    const der = index === 0 ? certificate : chain[index - 1]!;
    if (above === undefined) {
      faults.push(`${placeOf(index)} is not self-issued, and nothing above it is given`);
    } else if (!encodingIs(walk.issuer, encodingOf(above.walk.subject))) {
      faults.push(`${placeOf(index)} does not name the next as its issuer`);
    } else if (!verifiesUnder(der, above)) {
      faults.push(`the signature of ${placeOf(index)} does not verify with the key above it`);
    }
  }

  let pathBudget = Number.POSITIVE_INFINITY;
  let below = 0; // CA certificates between this one and what is issued, self-issued ones not counted
  const extKeyUsages: DerElement[][] = [];
  const constraints: NameConstraints[] = [];
  const pathKeys: { identifier: Uint8Array; spki: Uint8Array }[] = [];
  let pathNotBefore = Number.NEGATIVE_INFINITY;
  let pathNotAfter = Number.POSITIVE_INFINITY;
  for (const [index, { walk, selfIssued }] of path.entries()) {
    const { extensions } = walk;
    if (!extensions.cA) faults.push(`${placeOf(index)} is not a CA (cA is not TRUE)`);
    if ((extensions.keyUsage & KeyUsageBit.keyCertSign) === 0) {
      faults.push(`${placeOf(index)} does not assert keyCertSign`);
    }
    if (extensions.pathLen >= 0) pathBudget = Math.min(pathBudget, extensions.pathLen - below);
    if (!selfIssued) below += 1;
    if (extensions.extKeyUsage.length > 0) extKeyUsages.push(extensions.extKeyUsage);
    if (extensions.nameConstraints !== undefined) constraints.push(extensions.nameConstraints);
    const spki = encodingOf(walk.subjectPublicKeyInfo);
    const identifier = identifierOf(walk);
    if (identifier !== undefined) pathKeys.push({ identifier, spki });
    pathNotBefore = Math.max(pathNotBefore, walk.notBeforeTime);
    pathNotAfter = Math.min(pathNotAfter, walk.notAfterTime);
  }
  if (pathBudget < 0) faults.push("a pathLen of the path does not allow this issuer");

  const subjectPublicKeyInfo = encodingOf(own.walk.subjectPublicKeyInfo);
  return {
    subject: encodingOf(own.walk.subject),
    subjectPublicKeyInfo,
    spkiDigest: hash("sha256", subjectPublicKeyInfo, "hex"),
    keyType: own.keyType,
    key: own.key,
    subjectKeyIdentifier: identifierOf(own.walk),
    keyUsage: own.walk.extensions.keyUsage,
    notBefore: own.walk.notBeforeTime,
    notAfter: own.walk.notAfterTime,
    pathFaults: faults,
    pathBudget,
    pathNotBefore,
    pathNotAfter,
    extKeyUsages,
    constraints,
    pathKeys,
  };
}

function placeOf(index: number): string {
  return index === 0 ? "the issuer" : `CA ${index} above the issuer`;
}

function identifierOf(walk: TbsWalk): Uint8Array | undefined {
  const identifier = walk.extensions.subjectKeyIdentifier;
  return identifier?.bytes.subarray(identifier.contentStart, identifier.end);
}

/** An issuer may be imported, and not have been made by these rules: only what it limits has to be legible. */
function readPathCertificate(der: Uint8Array, index: number, faults: string[]): PathCertificate {
  const owned = Uint8Array.from(der); // the caller's buffer may be reused; every view below is of this copy
  const findings: Finding[] = [];
  const walk = walkTbsCertificate(encodingOf(walkSigned(owned).tbs), findings);
  const key =
    walk === undefined ? undefined : readSubjectKey(walk.subjectPublicKeyInfo, {}, findings);
  if (walk === undefined || key === undefined) {
    const reason = findings.map((finding) => finding.detail).join("; ");
    throw new DerError(`${placeOf(index)} cannot be read: ${reason}`, 0);
  }
  const limits =
    Known.basicConstraints | Known.keyUsage | Known.extKeyUsage | Known.nameConstraints;
  if ((walk.extensions.broken & limits) !== 0) {
    const reason = findings.map((finding) => finding.detail).join("; ");
    faults.push(`an extension of ${placeOf(index)} that limits it cannot be read: ${reason}`);
  }
  if (Number.isNaN(walk.notBeforeTime) || Number.isNaN(walk.notAfterTime)) {
    faults.push(`the validity of ${placeOf(index)} cannot be read`);
  }
  const spki = encodingOf(walk.subjectPublicKeyInfo);
  return {
    walk,
    keyType: key.type,
    key: keyObjectOf(spki, index),
    selfIssued: sameOctets(encodingOf(walk.issuer), encodingOf(walk.subject)),
  };
}

function keyObjectOf(spki: Uint8Array, index: number): KeyObject {
  try {
    return createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" });
  } catch {
    throw new DerError(`the key of ${placeOf(index)} is none that OpenSSL takes`, 0);
  }
}

function verifiesUnder(der: Uint8Array, above: PathCertificate): boolean {
  const { tbs, algorithm, signature } = walkSigned(der);
  return signatureVerifies(
    above.key,
    algorithm,
    above.keyType,
    encodingOf(tbs),
    signature.bytes.subarray(signature.contentStart + 1, signature.end),
  );
}

/** What a certificate dropped from a CRL says of itself, once its issuer is sure (CRL-40). */
export interface DroppedCertificate {
  readonly serialHex: string;
  readonly notAfter: number;
}

/** Reads a certificate that this issuer signed; undefined for any other, and for what cannot be read. */
export function readDropped(issuer: LintIssuer, der: Uint8Array): DroppedCertificate | undefined {
  try {
    const { tbs, algorithm, signature } = walkSigned(der);
    const message = encodingOf(tbs);
    const bits = signature.bytes.subarray(signature.contentStart + 1, signature.end);
    if (!signatureVerifies(issuer.key, algorithm, issuer.keyType, message, bits)) return undefined;
    const walk = walkTbsCertificate(message, []);
    if (walk === undefined || !encodingIs(walk.issuer, issuer.subject)) return undefined;
    return { serialHex: contentHex(walk.serialNumber), notAfter: walk.notAfterTime };
  } catch (error) {
    if (error instanceof DerError) return undefined;
    throw error;
  }
}
