/** Makes certification requests: RFC 2986 §4, with the extensionRequest attribute of RFC 2985 §5.4.2. */

import { createPublicKey, sign, type KeyObject } from "node:crypto";
import { contextTag, element, integer, objectIdentifier, sequence, Tag } from "./der.ts";
import { encodeExtension } from "./extension.ts";
import { encodeGeneralNames, type SubjectName } from "./general-name.ts";
import { emptyName, encodeName } from "./name.ts";
import { extensionOids, requestAttributeOids } from "./oid.ts";
import { parsePublicKey } from "./public-key.ts";
import { signatureAlgorithmFor } from "./signature-algorithm.ts";
import { assembleSigned } from "./signed.ts";

export interface CertificationRequestFields {
  /** Signs the request; its public key is the one to be certified. */
  readonly privateKey: KeyObject;
  /** The subjectAltName, in this order; without any there is no extension. */
  readonly names: readonly SubjectName[];
  /** Absent: the subject is empty, and the names alone say who it is. */
  readonly commonName?: string;
}

/**
 * Makes a request.
 *
 * @returns DER.
 * @throws DerError if the key is of a kind that no profile takes.
 * @throws RangeError as `encodeGeneralNames`.
 * @throws CountersignError `name-malformed` if the common name cannot be encoded.
 */
export function buildCertificationRequest(fields: CertificationRequestFields): Uint8Array {
  const { privateKey, names, commonName } = fields;
  const spki = Uint8Array.from(createPublicKey(privateKey).export({ format: "der", type: "spki" }));
  const { identifier, hash } = signatureAlgorithmFor(parsePublicKey(spki).type);
  const info = sequence(
    integer(0),
    commonName === undefined ? emptyName : encodeName([{ type: "CN", value: commonName }]),
    spki,
    element(contextTag(0, true), ...(names.length === 0 ? [] : [extensionRequest(names)])),
  );
  return assembleSigned(info, identifier, sign(hash, info, privateKey));
}

function extensionRequest(names: readonly SubjectName[]): Uint8Array {
  const subjectAltName = encodeExtension({
    oid: extensionOids.subjectAltName,
    critical: false,
    value: encodeGeneralNames(names),
  });
  return sequence(
    objectIdentifier(requestAttributeOids.extensionRequest),
    element(Tag.set, sequence(subjectAltName)),
  );
}
