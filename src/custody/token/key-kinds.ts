/** The kinds of key a token may hold for us: how each is made, read from the token, and signs. */

import { hash } from "node:crypto";
import pkcs11, { type PKCS11, type Template } from "pkcs11js";
import { CountersignError } from "../../errors.ts";
import {
  bitString,
  concat,
  contentOf,
  DerError,
  DerReader,
  element,
  integer,
  objectIdentifier,
  sequence,
  Tag,
} from "../../x509/der.ts";
import { algorithmOids, curveOids } from "../../x509/oid.ts";
import {
  checkPublicKey,
  type PublicKeyInfo,
  type PublicKeyType,
  requestedPublicKey,
} from "../../x509/public-key.ts";
import { signatureAlgorithmFor } from "../../x509/signature-algorithm.ts";
import type { MadeKeyType } from "./spawn-make-token.ts";

// PKCS#11 v3.0 §2.3: pkcs11js names none of them.
const CKK_EC_EDWARDS = 0x40;
const CKM_EC_EDWARDS_KEY_PAIR_GEN = 0x1055;
const CKM_EDDSA = 0x1057;

/** How keys of one kind sign. */
export interface Signing {
  readonly mechanism: number;
  /**
   * How many asynchronous calls may be in flight; 0 means synchronous calls. In SoftHSM a P-256 or Ed25519
   * signature takes no longer than the trip to a thread and back, the others take four times as long and more.
   */
  readonly inFlight: number;
  /** Octets that the longest signature takes. */
  readonly signatureLength: number;
  /** What the token is given for the bytes to sign. */
  input(tbs: Uint8Array): Uint8Array;
  /** What X.509 wants for what the token returned; a copy. */
  output(signature: Uint8Array): Uint8Array;
}

/** The DigestInfo of SHA-256 up to the digest: RFC 8017 §9.2, note 1. */
const sha256DigestInfo = Buffer.from("3031300d060960864801650304020105000420", "hex");

/** How a key of this kind signs. The hash is that of `signatureAlgorithmFor`. */
export function signingOf(type: PublicKeyType): Signing {
  const { hash: name } = signatureAlgorithmFor(type);
  const digest = (tbs: Uint8Array): Uint8Array => (name ? hash(name, tbs, "buffer") : tbs);
  switch (type) {
    case "P-256":
    case "P-384":
    case "P-521":
      return {
        mechanism: pkcs11.CKM_ECDSA,
        inFlight: type === "P-256" ? 0 : 4,
        signatureLength: 2 * 66,
        input: digest,
        output: ecdsaSignature,
      };
    case "Ed25519":
      return {
        mechanism: CKM_EDDSA,
        inFlight: 0,
        signatureLength: 64,
        input: digest,
        output: (signature) => Uint8Array.from(signature),
      };
    case "RSA-2048":
    case "RSA-3072":
    case "RSA-4096":
    case "RSA-other":
      if (name !== "sha256") throw new RangeError("the DigestInfo here is that of SHA-256");
      return {
        mechanism: pkcs11.CKM_RSA_PKCS,
        inFlight: 4,
        signatureLength: 4096 / 8,
        input: (tbs) => concat(sha256DigestInfo, digest(tbs)),
        output: (signature) => Uint8Array.from(signature),
      };
  }
}

/** ECDSA-Sig-Value (RFC 3279 §2.2.3) from the two halves that PKCS#11 returns. */
function ecdsaSignature(halves: Uint8Array): Uint8Array {
  const middle = halves.length / 2;
  return sequence(unsigned(halves.subarray(0, middle)), unsigned(halves.subarray(middle)));
}

/** INTEGER from big-endian magnitude octets. */
function unsigned(magnitude: Uint8Array): Uint8Array {
  let start = 0;
  while (start < magnitude.length - 1 && magnitude[start] === 0) start++;
  const octets = magnitude.subarray(start);
  return octets[0]! >= 0x80
    ? element(Tag.integer, Uint8Array.of(0), octets)
    : element(Tag.integer, octets);
}

/** What C_GenerateKeyPair needs for one kind. */
export interface Making {
  readonly mechanism: number;
  readonly publicTemplate: Template;
}

/** id-Ed25519 (RFC 8410 §3), and the curve name that PKCS#11 v3.0 §2.3.10 has instead. */
const ed25519Oid = objectIdentifier(algorithmOids["id-Ed25519"]);
const ed25519Name = element(Tag.printableString, Buffer.from("edwards25519"));

export function makingOf(type: MadeKeyType): Making {
  switch (type) {
    case "P-256":
    case "P-384":
    case "P-521": {
      const params = Buffer.from(objectIdentifier(curveOids[type]));
      return {
        mechanism: pkcs11.CKM_EC_KEY_PAIR_GEN,
        publicTemplate: [{ type: pkcs11.CKA_EC_PARAMS, value: params }],
      };
    }
    case "Ed25519":
      return {
        mechanism: CKM_EC_EDWARDS_KEY_PAIR_GEN,
        publicTemplate: [{ type: pkcs11.CKA_EC_PARAMS, value: Buffer.from(ed25519Name) }],
      };
    case "RSA-2048":
    case "RSA-3072":
    case "RSA-4096":
      return {
        mechanism: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN,
        publicTemplate: [
          { type: pkcs11.CKA_MODULUS_BITS, value: Number(type.slice("RSA-".length)) },
          { type: pkcs11.CKA_PUBLIC_EXPONENT, value: Buffer.from([1, 0, 1]) },
        ],
      };
  }
}

/** One attribute's value. */
export function attributeOf(lib: PKCS11, session: Buffer, object: Buffer, type: number): Buffer {
  const [attribute] = lib.C_GetAttributeValue(session, object, [{ type }]);
  const value = attribute?.value;
  if (!Buffer.isBuffer(value)) throw new Error(`attribute ${type.toString(16)} has no value`);
  return value;
}

/**
 * Builds the SubjectPublicKeyInfo from the attributes of a CKO_PUBLIC_KEY, and checks it.
 *
 * @throws CountersignError `key-refused` if it is no key that can be used here.
 */
export function readPublicKey(lib: PKCS11, session: Buffer, object: Buffer): PublicKeyInfo {
  const read = (type: number): Buffer => attributeOf(lib, session, object, type);
  try {
    const key = requestedPublicKey(subjectPublicKeyInfo(read));
    checkPublicKey(key);
    return key;
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    throw new CountersignError("key-refused", "The public key in the token is broken.", {
      cause: error,
    });
  }
}

function subjectPublicKeyInfo(read: (attribute: number) => Buffer): Uint8Array {
  const type = read(pkcs11.CKA_KEY_TYPE).readUInt32LE();
  if (type === pkcs11.CKK_RSA) {
    const algorithm = [objectIdentifier(algorithmOids.rsaEncryption), Uint8Array.of(Tag.null, 0)];
    const numbers = [pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT].map((attribute) =>
      integer(BigInt(`0x0${read(attribute).toString("hex")}`)),
    );
    return sequence(sequence(...algorithm), bitString(sequence(...numbers)));
  }
  if (type !== pkcs11.CKK_EC && type !== CKK_EC_EDWARDS) {
    throw new CountersignError("key-refused", "The key in the token is neither RSA nor EC.");
  }
  const params = read(pkcs11.CKA_EC_PARAMS);
  const algorithm =
    type === pkcs11.CKK_EC
      ? [objectIdentifier(algorithmOids["id-ecPublicKey"]), params]
      : [params.equals(ed25519Name) ? ed25519Oid : params];
  return sequence(sequence(...algorithm), bitString(pointOctets(read(pkcs11.CKA_EC_POINT))));
}

/** Octets of a point of Ed25519, P-256, P-384 and P-521. An OCTET STRING around one has none of these lengths. */
const pointLengths = [32, 65, 97, 133];

/** CKA_EC_POINT is an OCTET STRING around the point (PKCS#11 v3.0 §2.3.3); some tokens leave it out. */
function pointOctets(value: Buffer): Uint8Array {
  return pointLengths.includes(value.length)
    ? value
    : contentOf(DerReader.whole(value, Tag.octetString));
}
