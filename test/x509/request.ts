/** Certification requests made by hand, so that each part can be wrong. */

import { sign, type KeyObject } from "node:crypto";
import {
  contextTag,
  element,
  integer,
  objectIdentifier,
  sequence,
  Tag,
} from "../../src/x509/der.ts";
import { encodeExtension } from "../../src/x509/extension.ts";
import { encodeGeneralNames, type SubjectName } from "../../src/x509/general-name.ts";
import { emptyName } from "../../src/x509/name.ts";
import { extensionOids, requestAttributeOids } from "../../src/x509/oid.ts";
import { signatureAlgorithms } from "../../src/x509/signature-algorithm.ts";
import { assembleSigned } from "../../src/x509/signed.ts";

export interface RequestParts {
  readonly spki: Uint8Array;
  readonly version?: number;
  readonly subject?: Uint8Array;
  /** Encoded attributes. */
  readonly attributes?: readonly Uint8Array[];
  /** Instead of `[0] { attributes }`. */
  readonly afterKey?: Uint8Array;
}

export function requestInfo(parts: RequestParts): Uint8Array {
  return sequence(
    integer(parts.version ?? 0),
    parts.subject ?? emptyName,
    parts.spki,
    parts.afterKey ?? element(contextTag(0, true), ...(parts.attributes ?? [])),
  );
}

export function attribute(oid: string, ...values: readonly Uint8Array[]): Uint8Array {
  return sequence(objectIdentifier(oid), element(Tag.set, ...values));
}

export function extensionRequest(...extensions: readonly Uint8Array[]): Uint8Array {
  return attribute(requestAttributeOids.extensionRequest, sequence(...extensions));
}

export function subjectAltName(...names: readonly SubjectName[]): Uint8Array {
  return rawSubjectAltName(encodeGeneralNames(names));
}

export function rawSubjectAltName(value: Uint8Array): Uint8Array {
  return encodeExtension({ oid: extensionOids.subjectAltName, critical: false, value });
}

export function signedRequest(
  info: Uint8Array,
  privateKey: KeyObject,
  algorithm: keyof typeof signatureAlgorithms = "ecdsa-with-SHA256",
): Uint8Array {
  const { identifier, hash } = signatureAlgorithms[algorithm];
  return assembleSigned(info, identifier, sign(hash, info, privateKey));
}

/** A request whose signature is 64 zero octets: for what is refused before anyone looks at it. */
export function unsignedRequest(
  info: Uint8Array,
  identifier: Uint8Array = signatureAlgorithms["ecdsa-with-SHA256"].identifier,
): Uint8Array {
  return assembleSigned(info, identifier, new Uint8Array(64));
}
