/**
 * Signatures of people: SSHSIG (OpenSSH PROTOCOL.sshsig), made by `ssh-keygen -Y sign`. CUSTODY.md 8.2.
 *
 * Accepted are Ed25519, ECDSA P-256 and both on a FIDO2 key, whose user-presence flag must be set. Everything that
 * could be said in two ways is pinned: the public key blob, the namespace, version 1, SHA-512 or SHA-256, no bytes
 * after the signature.
 */

import { createPublicKey, hash, verify, type KeyObject } from "node:crypto";
import { CountersignError } from "../errors.ts";

export interface SshSignatureQuestion {
  /** One line of an authorized_keys file: type, base64 blob, and a comment that does not matter. */
  readonly publicKey: string;
  readonly namespace: string;
  readonly message: Uint8Array;
  /** Armored, as `ssh-keygen -Y sign` writes it. */
  readonly signature: string;
  /** Whether a FIDO2 key must have verified its user (PIN, fingerprint), not only felt a touch. */
  readonly requireUserVerification?: boolean;
}

const USER_PRESENT = 0x01;
const USER_VERIFIED = 0x04;

/** An armored signature is a few hundred characters; with a long application name still less than this. */
const SIGNATURE_LIMIT = 8_192;

const armor =
  /^-----BEGIN SSH SIGNATURE-----\r?\n([A-Za-z0-9+/=\r\n]+)\r?\n-----END SSH SIGNATURE-----\r?\n?$/;

/**
 * Checks one signature of one key.
 *
 * @throws CountersignError `signature-invalid`; the detail says in words what is wrong.
 */
export function verifySshSignature(question: SshSignatureQuestion): void {
  const key = readPublicKey(question.publicKey);
  const reader = new SshReader(dearmor(question.signature));
  if (reader.bytes(6).toString("latin1") !== "SSHSIG") refuse("it is no SSHSIG signature");
  if (reader.uint32() !== 1) refuse("it is not of version 1");
  if (!reader.string().equals(key.blob)) refuse("it was made by another key");
  if (reader.text() !== question.namespace) {
    refuse(`it was made for another purpose: sign with -n ${question.namespace}`);
  }
  if (reader.string().length !== 0) refuse("its reserved field is not empty");
  const hashName = reader.text();
  if (hashName !== "sha512" && hashName !== "sha256") refuse("its hash is not sha512 or sha256");
  const inner = new SshReader(reader.string());
  reader.finish();

  const signed = Buffer.concat([
    Buffer.from("SSHSIG"),
    sshString(Buffer.from(question.namespace)),
    sshString(Buffer.alloc(0)),
    sshString(Buffer.from(hashName)),
    sshString(hash(hashName, question.message, "buffer")),
  ]);
  if (!key.check(inner, signed, question.requireUserVerification ?? false)) {
    refuse("it does not match what was signed");
  }
}

/** `SHA256:` and unpadded base64 of the key blob's digest, as `ssh-keygen -l` shows it. */
export function sshFingerprint(publicKey: string): string {
  const digest = hash("sha256", readPublicKey(publicKey).blob, "base64");
  return `SHA256:${digest.replace(/=+$/, "")}`;
}

/**
 * Whether a line is a public key of a kind that is accepted here.
 *
 * @throws CountersignError `signature-invalid`.
 */
export function checkSshPublicKey(publicKey: string): void {
  readPublicKey(publicKey);
}

interface SshPublicKey {
  readonly blob: Buffer;
  /** Reads the signature part of an SSHSIG to its end. */
  check(signature: SshReader, signed: Buffer, requireUserVerification: boolean): boolean;
}

function readPublicKey(line: string): SshPublicKey {
  const [type, base64] = line.trim().split(/[ \t]+/);
  const blob = Buffer.from(base64 ?? "", "base64");
  if (type === undefined || blob.toString("base64") !== base64)
    refuse("the public key is malformed");
  const reader = new SshReader(blob);
  if (reader.text() !== type) refuse("the public key is malformed");
  switch (type) {
    case "ssh-ed25519": {
      const key = ed25519Key(reader.string());
      reader.finish();
      return { blob, check: (signature, signed) => checkEd25519(key, type, signature, signed) };
    }
    case "ecdsa-sha2-nistp256": {
      const key = p256Key(reader);
      reader.finish();
      return { blob, check: (signature, signed) => checkP256(key, type, signature, signed) };
    }
    case "sk-ssh-ed25519@openssh.com": {
      const key = ed25519Key(reader.string());
      const application = reader.string();
      reader.finish();
      return { blob, check: onSecurityKey(application, type, key, checkEd25519) };
    }
    case "sk-ecdsa-sha2-nistp256@openssh.com": {
      const key = p256Key(reader);
      const application = reader.string();
      reader.finish();
      return { blob, check: onSecurityKey(application, type, key, checkP256) };
    }
    default:
      return refuse(
        "the kind of key is not accepted: use Ed25519, ECDSA P-256 or one of them on a FIDO2 key",
      );
  }
}

type Check = (
  key: KeyObject,
  type: string,
  signature: SshReader,
  signed: Buffer,
  more?: (signature: SshReader) => Buffer,
) => boolean;

/** `more` reads what follows the signature and returns what was really signed. */
const checkEd25519: Check = (key, type, signature, signed, more) => {
  if (signature.text() !== type) refuse("its algorithm is not that of the key");
  const octets = signature.string();
  const message = more?.(signature) ?? signed;
  signature.finish();
  return octets.length === 64 && verify(null, message, key, octets);
};

const checkP256: Check = (key, type, signature, signed, more) => {
  if (signature.text() !== type) refuse("its algorithm is not that of the key");
  const numbers = new SshReader(signature.string());
  const octets = Buffer.concat([scalar(numbers.string()), scalar(numbers.string())]);
  numbers.finish();
  const message = more?.(signature) ?? signed;
  signature.finish();
  return verify("sha256", message, { key, dsaEncoding: "ieee-p1363" }, octets);
};

/** OpenSSH PROTOCOL.u2f: the authenticator signs the digests of application and message with flags and a counter. */
function onSecurityKey(
  application: Buffer,
  type: string,
  key: KeyObject,
  check: Check,
): SshPublicKey["check"] {
  return (signature, signed, requireUserVerification) =>
    check(key, type, signature, signed, (rest) => {
      const flags = rest.bytes(1);
      const counter = rest.bytes(4);
      if ((flags[0]! & USER_PRESENT) === 0) refuse("nobody touched the security key");
      if (requireUserVerification && (flags[0]! & USER_VERIFIED) === 0) {
        refuse("the security key did not verify its user");
      }
      return Buffer.concat([
        hash("sha256", application, "buffer"),
        flags,
        counter,
        hash("sha256", signed, "buffer"),
      ]);
    });
}

function ed25519Key(x: Buffer): KeyObject {
  if (x.length !== 32) refuse("the public key is malformed");
  return createPublicKey({
    key: { kty: "OKP", crv: "Ed25519", x: x.toString("base64url") },
    format: "jwk",
  });
}

function p256Key(reader: SshReader): KeyObject {
  if (reader.text() !== "nistp256") refuse("the public key is malformed");
  const point = reader.string();
  if (point.length !== 65 || point[0] !== 0x04) refuse("the public key is malformed");
  const x = point.subarray(1, 33).toString("base64url");
  const y = point.subarray(33).toString("base64url");
  try {
    return createPublicKey({ key: { kty: "EC", crv: "P-256", x, y }, format: "jwk" });
  } catch {
    return refuse("the public key is malformed"); // not on the curve
  }
}

/** An SSH mpint (RFC 4251 §5) as the 32 octets of a P-256 scalar. */
function scalar(mpint: Buffer): Buffer {
  const malformed = "its numbers are malformed";
  const [first, second] = mpint;
  if (first === undefined || first >= 0x80) return refuse(malformed);
  if (first === 0 && (second === undefined || second < 0x80)) return refuse(malformed);
  const octets = first === 0 ? mpint.subarray(1) : mpint;
  if (octets.length > 32) return refuse(malformed);
  return Buffer.concat([Buffer.alloc(32 - octets.length), octets]);
}

function dearmor(text: string): Buffer {
  const body = text.length > SIGNATURE_LIMIT ? undefined : armor.exec(text)?.[1];
  if (body === undefined) return refuse("it is not an armored SSH signature");
  const base64 = body.replace(/\r?\n/g, "");
  const octets = Buffer.from(base64, "base64");
  if (octets.toString("base64") !== base64) return refuse("it is not an armored SSH signature");
  return octets;
}

function sshString(octets: Uint8Array): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(octets.length);
  return Buffer.concat([length, octets]);
}

/** Reads the wire encoding of RFC 4251 §5. */
class SshReader {
  readonly #octets: Buffer;
  #offset = 0;

  constructor(octets: Buffer) {
    this.#octets = octets;
  }

  bytes(count: number): Buffer {
    if (count > this.#octets.length - this.#offset) refuse("it is cut off");
    this.#offset += count;
    return this.#octets.subarray(this.#offset - count, this.#offset);
  }

  uint32(): number {
    return this.bytes(4).readUInt32BE(0);
  }

  string(): Buffer {
    return this.bytes(this.uint32());
  }

  text(): string {
    return this.string().toString("latin1");
  }

  finish(): void {
    if (this.#offset !== this.#octets.length) refuse("bytes follow it");
  }
}

function refuse(reason: string): never {
  throw new CountersignError("signature-invalid", `the SSH signature is refused: ${reason}`);
}
