/** Certificates as bytes and back: RFC 5280 §4.1. */

import {
  contextTag,
  DerError,
  DerReader,
  encodingOf,
  integerOctets,
  integerValue,
  bitStringOctets,
  readTime,
  Tag,
  type DerElement,
} from "./der.ts";
import { readExtensions, type Extension } from "./extension.ts";
import { parseName } from "./name.ts";
import { parseSigned, readAlgorithmIdentifier } from "./signed.ts";

export interface TbsCertificate {
  readonly der: Uint8Array;
  /** As encoded: 2 stands for v3, and 0 (v1) for an absent field. */
  readonly version: number;
  /** Content octets of the INTEGER; CRT-02 is not checked here. */
  readonly serialNumber: Uint8Array;
  /** AlgorithmIdentifier, DER. */
  readonly signatureAlgorithm: Uint8Array;
  /** Name, DER. */
  readonly issuer: Uint8Array;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** Name, DER. */
  readonly subject: Uint8Array;
  /** DER. */
  readonly subjectPublicKeyInfo: Uint8Array;
  readonly extensions: readonly Extension[];
}

export interface Certificate {
  readonly der: Uint8Array;
  readonly tbs: TbsCertificate;
  /** The outer AlgorithmIdentifier, DER; that it equals the inner one is not checked here (CRT-06). */
  readonly signatureAlgorithm: Uint8Array;
  readonly signature: Uint8Array;
}

/**
 * Reads a TBSCertificate. Extension values are left to the parsers of extension.ts.
 *
 * @throws DerError for everything but the one DER encoding; also for unique identifiers (CRT-08), extensions in
 *   a certificate that is not v3, a repeated extension (CRT-12) and times in the wrong form (CRT-09).
 */
export function parseTbsCertificate(der: Uint8Array): TbsCertificate {
  const reader = DerReader.inside(DerReader.whole(der, Tag.sequence));
  const version = readVersion(reader);
  const serialNumber = integerOctets(reader.read(Tag.integer));
  const signatureAlgorithm = readAlgorithmIdentifier(reader);
  const issuer = readName(reader);
  const validity = DerReader.inside(reader.read(Tag.sequence));
  const notBefore = readTime(validity);
  const notAfter = readTime(validity);
  validity.finish();
  const subject = readName(reader);
  const subjectPublicKeyInfo = readSubjectPublicKeyInfo(reader);
  const extensions = readWrappedExtensions(reader.readOptional(contextTag(3, true)));
  reader.finish();
  if (extensions.length > 0 && version !== 2) throw new DerError("extensions need version v3", 0);
  return {
    der,
    version,
    serialNumber,
    signatureAlgorithm,
    issuer,
    notBefore,
    notAfter,
    subject,
    subjectPublicKeyInfo,
    extensions,
  };
}

function readVersion(reader: DerReader): number {
  const wrapper = reader.readOptional(contextTag(0, true));
  if (wrapper === undefined) return 0;
  const inside = DerReader.inside(wrapper);
  const version = integerValue(inside.read(Tag.integer));
  inside.finish();
  // v1 is the default, and so never encoded; there is nothing above v3.
  if (version !== 1 && version !== 2) throw new DerError("no such version", wrapper.start);
  return version;
}

/** Reads a Name, which is checked as `parseName` does. */
export function readName(reader: DerReader): Uint8Array {
  const name = encodingOf(reader.read(Tag.sequence));
  parseName(name);
  return name;
}

/** Reads a SubjectPublicKeyInfo, of which only the outer shape is checked. */
export function readSubjectPublicKeyInfo(reader: DerReader): Uint8Array {
  const spki = reader.read(Tag.sequence);
  const fields = DerReader.inside(spki);
  readAlgorithmIdentifier(fields);
  bitStringOctets(fields.read(Tag.bitString));
  fields.finish();
  return encodingOf(spki);
}

/** The extensions inside an EXPLICIT tag; none if it is absent. */
export function readWrappedExtensions(wrapper: DerElement | undefined): Extension[] {
  if (wrapper === undefined) return [];
  const inside = DerReader.inside(wrapper);
  const list = inside.read(Tag.sequence);
  inside.finish();
  return readExtensions(list);
}

/** Reads a Certificate. @throws DerError as `parseTbsCertificate`. */
export function parseCertificate(der: Uint8Array): Certificate {
  const { tbs, signatureAlgorithm, signature } = parseSigned(der);
  return { der, tbs: parseTbsCertificate(tbs), signatureAlgorithm, signature };
}

/** The extension of this OID, which occurs at most once. */
export function extensionOf(
  { extensions }: { readonly extensions: readonly Extension[] },
  oid: string,
): Extension | undefined {
  return extensions.find((extension) => extension.oid === oid);
}
