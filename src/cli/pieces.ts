/** What a file holds: PEM blocks with whatever text around them, DER elements one after the other, or known text. */

import { DerError, DerReader, encodingOf, Tag, type DerElement } from "../x509/der.ts";
import { decodePem } from "../x509/pem.ts";

export type PieceKind =
  | "certificate"
  | "certification request"
  | "certificate list"
  | "private key"
  | "public key"
  | "other";

export interface Piece {
  readonly kind: PieceKind;
  /** Where it stands: `PEM block 2`, `octet 0`, `line 1`. */
  readonly place: string;
  /** The label of its PEM block. */
  readonly label?: string;
  /** DER; absent where the piece is text, or broken. */
  readonly der?: Uint8Array;
  /** The PEM block or the line itself, for what is not DER. Never shown. */
  readonly text?: string;
  /** For `other`: what it is. For the rest: what is wrong with it. */
  readonly description?: string;
}

const SEQUENCE = Tag.sequence;
const BEGIN = "-----BEGIN ";

/** Looks at a file's octets. The order is that of the file; what cannot be read says so in its place. */
export function piecesOf(octets: Buffer): Piece[] {
  if (octets.length === 0) return [{ kind: "other", place: "octet 0", description: "empty" }];
  if (octets[0] === SEQUENCE) {
    const pieces = derPieces(octets);
    if (pieces !== undefined) return pieces;
  }
  if (octets.includes(BEGIN)) return pemPieces(octets.toString("latin1"));
  return [textPiece(octets)];
}

function pemPieces(text: string): Piece[] {
  const pieces: Piece[] = [];
  let offset = 0;
  for (;;) {
    const begin = text.indexOf(BEGIN, offset);
    if (begin < 0) return pieces;
    const place = `PEM block ${pieces.length + 1}`;
    const label = /^[^\n\r-]{1,64}(?=-----)/.exec(
      text.slice(begin + BEGIN.length, begin + 100),
    )?.[0];
    const closing = label === undefined ? "" : `-----END ${label}-----`;
    const end = label === undefined ? -1 : text.indexOf(closing, begin);
    if (label === undefined || end < 0) {
      pieces.push({ kind: "other", place, description: "a PEM block that does not end" });
      return pieces;
    }
    offset = end + closing.length;
    pieces.push(pemPiece(text.slice(begin, offset), label, place));
  }
}

const pemKinds: Readonly<Record<string, PieceKind>> = {
  CERTIFICATE: "certificate",
  "X509 CERTIFICATE": "certificate",
  "CERTIFICATE REQUEST": "certification request",
  "NEW CERTIFICATE REQUEST": "certification request",
  "X509 CRL": "certificate list",
  "PRIVATE KEY": "private key",
  "ENCRYPTED PRIVATE KEY": "private key",
  "RSA PRIVATE KEY": "private key",
  "EC PRIVATE KEY": "private key",
  "DSA PRIVATE KEY": "private key",
  "OPENSSH PRIVATE KEY": "private key",
  "PUBLIC KEY": "public key",
  "RSA PUBLIC KEY": "public key",
};

const pemDescriptions: Readonly<Record<string, string>> = {
  "TRUSTED CERTIFICATE":
    "a certificate with OpenSSL's trust settings: write it out plain with openssl x509",
  PKCS7: "a PKCS#7 bundle: openssl pkcs7 -print_certs takes it apart",
  CMS: "a CMS message",
  "EC PARAMETERS": "the parameters of an EC key",
  "DH PARAMETERS": "Diffie-Hellman parameters",
  "SSH SIGNATURE": "an SSH signature",
  "AGE ENCRYPTED FILE": "a file that age has encrypted",
};

function pemPiece(block: string, label: string, place: string): Piece {
  const kind = pemKinds[label];
  if (kind === undefined) {
    const description = pemDescriptions[label] ?? `a PEM block of the kind ${label}`;
    return { kind: "other", place, label, description };
  }
  if (kind === "private key") return { kind, place, label, text: block };
  try {
    return { kind, place, label, der: decodePem(block, label) };
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    return { kind, place, label, description: error.message };
  }
}

/** Elements one after the other to the end of the file, or undefined if it is something else. */
function derPieces(octets: Buffer): Piece[] | undefined {
  const pieces: Piece[] = [];
  const reader = new DerReader(octets);
  try {
    while (!reader.atEnd) {
      const place = `octet ${reader.offset}`;
      pieces.push({ ...kindOf(reader.read(SEQUENCE)), place });
    }
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    return undefined;
  }
  return pieces;
}

/** By the tags of the first fields: RFC 5280 §4.1, §5.1, RFC 2986 §4, RFC 5958 §2, RFC 5915 §3, RFC 8017 §A.1. */
function kindOf(element: DerElement): Omit<Piece, "place"> {
  const der = Uint8Array.from(encodingOf(element));
  const [first, second, third] = childrenOf(element);
  const tags = tagsOf(element);
  const other = (description: string): Omit<Piece, "place"> => ({
    kind: "other",
    der,
    description,
  });
  if (tags === "30 30 03") return { kind: signedKind(first!), der };
  if (tags === "30 03") return { kind: "public key", der };
  if (tags.startsWith("02 30 04")) return { kind: "private key", der, label: "PRIVATE KEY" };
  if (tags.startsWith("02 04")) return { kind: "private key", der, label: "EC PRIVATE KEY" };
  if (/^02( 02){8}/.test(tags)) return { kind: "private key", der, label: "RSA PRIVATE KEY" };
  if (tags === "30 04" && third === undefined && tagsOf(first!).startsWith("06 30")) {
    return { kind: "private key", der, label: "ENCRYPTED PRIVATE KEY" };
  }
  if (tags.startsWith("02 30") && tagsOf(second!).startsWith("06 a0")) {
    return other("a PKCS#12 file: openssl pkcs12 takes it apart");
  }
  if (tags === "06 a0")
    return other("a PKCS#7 or CMS bundle: openssl pkcs7 -print_certs takes it apart");
  if (tags === "02 02") return other("an RSA public key without its algorithm (PKCS#1)");
  return other("DER that is none of the kinds known here");
}

function signedKind(tbs: DerElement): PieceKind {
  const tags = tagsOf(tbs);
  if (tags.startsWith("a0 02")) return "certificate";
  // Version, algorithm, issuer, and a time: a CRL of v2; without the version one of v1.
  if (/^(?:02 )?30 30 (?:17|18)/.test(tags)) return "certificate list";
  if (/^02 30 30 30/.test(tags)) return "certificate";
  if (/^02 30 30(?: a0|$)/.test(tags)) return "certification request";
  return "other";
}

function childrenOf(element: DerElement): DerElement[] {
  const children: DerElement[] = [];
  const reader = DerReader.inside(element);
  try {
    while (!reader.atEnd && children.length < 12) children.push(reader.readAny());
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
  }
  return children;
}

function tagsOf(element: DerElement): string {
  return childrenOf(element)
    .map(({ tag }) => tag.toString(16).padStart(2, "0"))
    .join(" ");
}

function textPiece(octets: Buffer): Piece {
  const text = octets.subarray(0, 4_096).toString("utf8");
  const place = "line 1";
  const known: readonly (readonly [RegExp, string])[] = [
    [/^(?:ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+ AAAA/, "an SSH public key"],
    [/^c2sp\.org\/tlog-proof@v1\n/, "a proof that a record is in a log (tlog-proof)"],
    [/^[^\n]+\n[0-9]+\n[A-Za-z0-9+/]{43}=\n\n— /, "a signed checkpoint of a log"],
    [/^[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}=*\s*$/, "the verifier key of a log"],
    [/^csk_/, "an API key"],
    [/^age-encryption\.org\/v1/, "a file that age has encrypted"],
  ];
  const found = known.find(([pattern]) => pattern.test(text));
  return {
    kind: "other",
    place,
    description: found?.[1] ?? "neither PEM nor DER",
  };
}
