/** Certification requests (CSRs): RFC 2986, the extensionRequest attribute of RFC 2985 §5.4.2. */

import type { KeyObject } from "node:crypto";
import { CountersignError } from "../errors.ts";
import { readName, readSubjectPublicKeyInfo } from "./certificate.ts";
import {
  contentOf,
  contextTag,
  DerError,
  DerReader,
  integerValue,
  objectIdentifierText,
  setOfElements,
  Tag,
  type DerElement,
} from "./der.ts";
import { readExtensions, type Extension } from "./extension.ts";
import { parseGeneralNames, type GeneralName } from "./general-name.ts";
import { directoryStringText } from "./name.ts";
import { algorithmOids, extensionOids, requestAttributeOids } from "./oid.ts";
import { decodePem } from "./pem.ts";
import {
  checkPublicKey,
  publicKeyObject,
  requestedPublicKey,
  type PublicKeyInfo,
} from "./public-key.ts";
import { signatureAlgorithmFrom, verifySignature } from "./signature-algorithm.ts";
import { parseSigned } from "./signed.ts";

export interface CertificationRequest {
  readonly der: Uint8Array;
  /** The CertificationRequestInfo that is signed, DER. */
  readonly info: Uint8Array;
  /** Name, DER. */
  readonly subject: Uint8Array;
  readonly publicKey: PublicKeyInfo;
  /** The requested subjectAltName as it stands, kinds that nobody issues included. */
  readonly names: readonly GeneralName[];
  /** The other requested extensions. */
  readonly otherExtensions: readonly Extension[];
  /** AlgorithmIdentifier, DER; one of those that `signatureAlgorithmFrom` knows. */
  readonly signatureAlgorithm: Uint8Array;
  readonly signature: Uint8Array;
}

/** A request with a hundred names and the largest key stays far below. */
const MAX_REQUEST_OCTETS = 65_536;

const pemLabels = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/**
 * Reads a request. Its signature is checked by `verifyCertificationRequest`.
 *
 * @param input - DER, or PEM as text or its octets.
 * @throws CountersignError
 *   `csr-malformed` if it is anything but one request in DER, with no attributes but one extensionRequest and
 *   one challengePassword (which is ignored);
 *   `csr-algorithm-refused` unless it is signed with ECDSA or RSA PKCS#1 v1.5 over SHA-256, SHA-384 or SHA-512, or
 *   with Ed25519;
 *   `key-refused` with `members.rule` as `requestedPublicKey` and `checkPublicKey`.
 */
export function readCertificationRequest(input: Uint8Array | string): CertificationRequest {
  try {
    const request = parseRequest(derOf(input));
    checkPublicKey(request.publicKey);
    return request;
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    throw malformed(
      `it is not valid DER: ${error.message}; send the request exactly as the tool wrote it, or make a new one`,
      error,
    );
  }
}

function malformed(detail: string, cause?: unknown): CountersignError {
  return new CountersignError(
    "csr-malformed",
    `the certification request is malformed: ${detail}`,
    {
      cause,
    },
  );
}

function derOf(input: Uint8Array | string): Uint8Array {
  if (input.length > 2 * MAX_REQUEST_OCTETS)
    throw malformed("it is too large; ask for fewer names");
  const isText = typeof input === "string" || input[0] !== Tag.sequence;
  const der = isText ? pemContent(input) : input;
  if (der.length > MAX_REQUEST_OCTETS) throw malformed("it is too large; ask for fewer names");
  return der;
}

function pemContent(input: Uint8Array | string): Uint8Array {
  const text = typeof input === "string" ? input : Buffer.from(input).toString("latin1");
  try {
    return decodePem(text, pemLabels);
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    throw malformed(
      `${error.message}; send one request, in DER or as one PEM block with nothing before or after it`,
      error,
    );
  }
}

/** What the holder of a key signs to have it certified; the fields are not judged. */
export interface CertificationRequestInfo {
  /** Name, DER. */
  readonly subject: Uint8Array;
  /** DER. */
  readonly subjectPublicKeyInfo: Uint8Array;
  /** Those that are asked for. */
  readonly extensions: readonly Extension[];
}

/**
 * Reads a CertificationRequestInfo.
 *
 * @throws DerError for everything but the one DER encoding; CountersignError `csr-malformed` as
 *   `readCertificationRequest`.
 */
export function parseCertificationRequestInfo(info: Uint8Array): CertificationRequestInfo {
  const reader = DerReader.inside(DerReader.whole(info, Tag.sequence));
  const version = reader.read(Tag.integer);
  if (integerValue(version) !== 0) throw new DerError("request is not of version 0", version.start);
  const subject = readName(reader);
  const subjectPublicKeyInfo = readSubjectPublicKeyInfo(reader);
  const attributes = reader.read(contextTag(0, true));
  reader.finish();
  return { subject, subjectPublicKeyInfo, extensions: requestedExtensions(attributes) };
}

function parseRequest(der: Uint8Array): CertificationRequest {
  const { tbs: info, signatureAlgorithm, signature } = parseSigned(der);
  const { subject, subjectPublicKeyInfo, extensions } = parseCertificationRequestInfo(info);
  const subjectAltName = extensions.find(({ oid }) => oid === extensionOids.subjectAltName);
  if (signatureAlgorithmFrom(signatureAlgorithm) === undefined) refuseAlgorithm(signatureAlgorithm);
  return {
    der,
    info,
    subject,
    publicKey: requestedPublicKey(subjectPublicKeyInfo),
    names: subjectAltName === undefined ? [] : parseGeneralNames(subjectAltName.value),
    otherExtensions: extensions.filter((extension) => extension !== subjectAltName),
    signatureAlgorithm,
    signature,
  };
}

function requestedExtensions(attributes: DerElement): Extension[] {
  const seen = new Set<string>();
  let extensions: Extension[] = [];
  for (const attribute of setOfElements(attributes)) {
    if (attribute.tag !== Tag.sequence) throw new DerError("not an attribute", attribute.start);
    const reader = DerReader.inside(attribute);
    const oid = objectIdentifierText(contentOf(reader.read(Tag.objectIdentifier)));
    const values = setOfElements(reader.read(Tag.set));
    reader.finish();
    if (seen.has(oid)) throw malformed(`the attribute ${oid} occurs twice; send each once`);
    seen.add(oid);
    const [value] = values;
    if (value === undefined || values.length > 1) {
      throw malformed(`the attribute ${oid} has ${values.length} values; send one`);
    }
    if (oid === requestAttributeOids.extensionRequest) {
      if (value.tag !== Tag.sequence) throw new DerError("not a list of extensions", value.start);
      extensions = readExtensions(value);
    } else if (oid === requestAttributeOids.challengePassword) {
      // OpenSSL asks for one when it asks for the subject. It says nothing about the certificate.
      directoryStringText(value);
    } else {
      throw malformed(`the attribute ${oid} is not supported; make the request without it`);
    }
  }
  return extensions;
}

function refuseAlgorithm(identifier: Uint8Array): never {
  const reader = DerReader.inside(DerReader.whole(identifier, Tag.sequence));
  const oid = objectIdentifierText(contentOf(reader.read(Tag.objectIdentifier)));
  const names: Readonly<Record<string, string>> = algorithmOids;
  const name = Object.keys(names).find((candidate) => names[candidate] === oid) ?? oid;
  throw new CountersignError(
    "csr-algorithm-refused",
    `the request is signed with ${name}, which is not accepted in this form; sign it with ECDSA or RSA ` +
      "(PKCS#1 v1.5) over SHA-256, SHA-384 or SHA-512, or with Ed25519",
    { members: { algorithm: name, rule: "KEY-10" } },
  );
}

/**
 * Checks that the requester holds the key (KEY-10).
 *
 * @returns The public key, so that it is built only once.
 * @throws CountersignError `csr-signature-invalid`; `key-refused` if OpenSSL does not take the key.
 */
export function verifyCertificationRequest(request: CertificationRequest): KeyObject {
  const key = publicKeyObject(request.publicKey);
  const algorithm = signatureAlgorithmFrom(request.signatureAlgorithm);
  if (
    algorithm === undefined ||
    !verifySignature(key, algorithm, request.info, request.signature)
  ) {
    throw new CountersignError(
      "csr-signature-invalid",
      "the signature of the certification request does not fit its public key; make the request anew with the private key that belongs to it",
      { members: { rule: "KEY-10" } },
    );
  }
  return key;
}
