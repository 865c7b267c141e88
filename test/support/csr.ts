/** Certification requests for tests and benchmarks: PKCS#10, RFC 2986 §4, made without the code under test's reader. */

import { generateKeyPairSync, sign, type KeyObject } from "node:crypto";
import {
  bitString,
  contextTag,
  element,
  integer,
  objectIdentifier,
  octetString,
  sequence,
  Tag,
} from "../../src/x509/der.ts";

export interface CsrOptions {
  readonly dns?: readonly string[];
  readonly commonName?: string;
  readonly privateKey?: KeyObject;
  readonly publicKey?: KeyObject;
}

const ecdsaWithSha256 = sequence(objectIdentifier("1.2.840.10045.4.3.2"));
const extensionRequest = objectIdentifier("1.2.840.113549.1.9.14");
const subjectAltName = objectIdentifier("2.5.29.17");
const commonNameType = objectIdentifier("2.5.4.3");

/** A request for a P-256 key (a new one unless given) that ECDSA with SHA-256 signs, DER. */
export function makeCsr(options: CsrOptions): Uint8Array {
  const keys =
    options.privateKey === undefined || options.publicKey === undefined
      ? generateKeyPairSync("ec", { namedCurve: "P-256" })
      : { privateKey: options.privateKey, publicKey: options.publicKey };
  const names = (options.dns ?? []).map((name) => element(0x82, Buffer.from(name, "latin1")));
  const attributes =
    names.length === 0
      ? new Uint8Array(0)
      : sequence(
          extensionRequest,
          element(Tag.set, sequence(sequence(subjectAltName, octetString(sequence(...names))))),
        );
  const subject =
    options.commonName === undefined
      ? sequence()
      : sequence(
          element(
            Tag.set,
            sequence(commonNameType, element(Tag.utf8String, Buffer.from(options.commonName))),
          ),
        );
  const info = sequence(
    integer(0),
    subject,
    keys.publicKey.export({ format: "der", type: "spki" }),
    element(contextTag(0, true), attributes),
  );
  return sequence(info, ecdsaWithSha256, bitString(sign("sha256", info, keys.privateKey)));
}
