/** What every signed object of RFC 5280 and RFC 2986 looks like: SEQUENCE { tbs, algorithm, signature }. */

import {
  bitString,
  bitStringOctets,
  contentOf,
  DerReader,
  encodingOf,
  objectIdentifierText,
  sequence,
  Tag,
  type DerElement,
} from "./der.ts";

export interface Signed {
  readonly der: Uint8Array;
  /** The element that is signed, header included. */
  readonly tbs: Uint8Array;
  /** The AlgorithmIdentifier, DER. */
  readonly signatureAlgorithm: Uint8Array;
  readonly signature: Uint8Array;
}

/**
 * Takes the envelope apart; what is signed is only known to be a SEQUENCE.
 *
 * @throws DerError also if bytes follow, or the signature is not whole octets.
 */
export function parseSigned(der: Uint8Array): Signed {
  const reader = DerReader.inside(DerReader.whole(der, Tag.sequence));
  const tbs = encodingOf(reader.read(Tag.sequence));
  const signatureAlgorithm = readAlgorithmIdentifier(reader);
  const signature = bitStringOctets(reader.read(Tag.bitString));
  reader.finish();
  return { der, tbs, signatureAlgorithm, signature };
}

/** Reads an AlgorithmIdentifier (RFC 5280 §4.1.1.2): an OID and at most one element of parameters. */
export function readAlgorithmIdentifier(reader: DerReader): Uint8Array {
  const identifier: DerElement = reader.read(Tag.sequence);
  const fields = DerReader.inside(identifier);
  objectIdentifierText(contentOf(fields.read(Tag.objectIdentifier)));
  if (!fields.atEnd) fields.readAny();
  fields.finish();
  return encodingOf(identifier);
}

/** Puts the signature to what was signed: a Certificate, CertificateList or CertificationRequest. */
export function assembleSigned(
  tbs: Uint8Array,
  signatureAlgorithm: Uint8Array,
  signature: Uint8Array,
): Uint8Array {
  return sequence(tbs, signatureAlgorithm, bitString(signature));
}
