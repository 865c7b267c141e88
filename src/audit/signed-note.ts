/** C2SP signed notes with Ed25519 (type 0x01): what Go's `sumdb/note` reads and writes. */

import { createPublicKey, hash, type KeyObject, sign, verify } from "node:crypto";
import { CountersignError } from "../errors.ts";

const ED25519 = 0x01;
const KEY_ID_LENGTH = 4;
const SIGNATURE_LENGTH = 64;
/** sumdb/note reads as many; C2SP asks for at least 16. */
const MAX_SIGNATURES = 100;
/** Checkpoints have some hundred octets, statements some thousand; post-quantum cosignatures nearly 5 kB each. */
const MAX_NOTE_LENGTH = 1_000_000;

const unfitForName = /[\p{White_Space}\p{Cc}\p{Surrogate}+]/u;
// oxlint-disable-next-line no-control-regex -- C2SP signed-note forbids them, but for the newline.
const unfitForText = /[\u0000-\u0009\u000b-\u001f]|\p{Surrogate}/u;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A key that verifies notes. */
export interface VerifierKey {
  readonly name: string;
  /** Four octets: where a verifier recognises the key, not a fingerprint. */
  readonly keyId: Uint8Array;
  readonly publicKey: KeyObject;
  /** As people exchange it: `name+<key id, hex>+<base64 of type and key>`. */
  readonly text: string;
}

/** A key that signs notes. */
export interface NoteSigner {
  readonly name: string;
  readonly verifierKey: VerifierKey;
  /** @returns 64 octets over the text. */
  readonly sign: (text: Uint8Array) => Uint8Array;
}

/**
 * The text form of a key.
 *
 * @param publicKey - 32 octets, RFC 8032.
 * @throws RangeError if the name is empty or has white space, control characters or a plus, or the key has another
 *   length.
 */
export function verifierKey(name: string, publicKey: Uint8Array): string {
  if (name === "" || unfitForName.test(name)) {
    throw new RangeError(`"${name}" cannot name a key: no white space, control characters or plus`);
  }
  if (publicKey.length !== 32) {
    throw new RangeError(`an Ed25519 key has 32 octets, got ${publicKey.length}`);
  }
  const typed = Buffer.concat([Uint8Array.of(ED25519), publicKey]);
  return `${name}+${keyId(name, typed).toString("hex")}+${typed.toString("base64")}`;
}

/**
 * Reads the text form.
 *
 * @throws SyntaxError if it is not one, its key id does not fit, or its key is not Ed25519.
 */
export function parseVerifierKey(text: string): VerifierKey {
  const match = /^([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+=*)$/.exec(text);
  const typed = match === null ? undefined : fromBase64(match[3]!);
  if (match === null || typed === undefined || unfitForName.test(match[1]!)) {
    throw new SyntaxError("not a verifier key: want name+<8 hex digits>+<base64>");
  }
  if (typed[0] !== ED25519 || typed.length !== 33) {
    throw new SyntaxError("not an Ed25519 verifier key");
  }
  const name = match[1]!;
  const id = keyId(name, typed);
  if (id.toString("hex") !== match[2]) {
    throw new SyntaxError("the key id of the verifier key does not fit its name and key");
  }
  const x = Buffer.from(typed.subarray(1)).toString("base64url");
  const publicKey = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  return { name, keyId: id, publicKey, text };
}

/**
 * A signer under a name; a log's key has its origin as name.
 *
 * @throws RangeError if the name is unfit, TypeError if the key is not an Ed25519 private key.
 */
export function noteSigner(name: string, privateKey: KeyObject): NoteSigner {
  if (privateKey.type !== "private" || privateKey.asymmetricKeyType !== "ed25519") {
    throw new TypeError("a note is signed with an Ed25519 private key");
  }
  const { x } = createPublicKey(privateKey).export({ format: "jwk" });
  const key = parseVerifierKey(verifierKey(name, Buffer.from(x!, "base64url")));
  return { name, verifierKey: key, sign: (text) => sign(null, text, privateKey) };
}

/**
 * Signs a text.
 *
 * @param text - Ends in a newline, which is part of what is signed.
 * @returns The note: text, empty line, signature line.
 * @throws RangeError if the text does not end in a newline or has other control characters.
 */
export function signNote(text: string, signer: NoteSigner): string {
  if (!text.endsWith("\n") || unfitForText.test(text)) {
    throw new RangeError(
      "the text of a note ends in a newline and has no other control characters",
    );
  }
  const signature = Buffer.concat([signer.verifierKey.keyId, signer.sign(Buffer.from(text))]);
  return `${text}\n\u2014 ${signer.name} ${signature.toString("base64")}\n`;
}

/** One signature line. */
export interface NoteSignature {
  readonly name: string;
  readonly keyId: Uint8Array;
  readonly signature: Uint8Array;
}

/**
 * Takes a note apart. **Nothing is verified.**
 *
 * @returns The text with its final newline, and the signatures in order.
 * @throws SyntaxError if it is not a signed note.
 */
export function splitNote(note: string | Uint8Array): {
  text: string;
  signatures: NoteSignature[];
} {
  const whole = decode(note);
  const split = whole.lastIndexOf("\n\n");
  if (split < 0 || !whole.endsWith("\n") || split + 2 === whole.length) {
    throw new SyntaxError("not a signed note: no signatures after an empty line");
  }
  const lines = whole.slice(split + 2, -1).split("\n");
  if (lines.length > MAX_SIGNATURES) {
    throw new SyntaxError(`a note with more than ${MAX_SIGNATURES} signatures`);
  }
  const signatures = lines.map((line) => {
    const match = /^\u2014 ([^ ]+) ([A-Za-z0-9+/]+=*)$/.exec(line);
    const bytes = match === null ? undefined : fromBase64(match[2]!);
    if (
      match === null ||
      bytes === undefined ||
      bytes.length <= KEY_ID_LENGTH ||
      unfitForName.test(match[1]!)
    ) {
      throw new SyntaxError("not a signed note: a signature line is malformed");
    }
    return {
      name: match[1]!,
      keyId: bytes.subarray(0, KEY_ID_LENGTH),
      signature: bytes.subarray(KEY_ID_LENGTH),
    };
  });
  return { text: whole.slice(0, split + 1), signatures };
}

/**
 * Opens a note. Signatures by other keys are ignored; one by a known key that does not verify refuses the whole note.
 *
 * @param verifierKeys - The keys to trust, as text or already read (reading costs more than verifying).
 * @returns The text, and the text form of each key whose signature verified: at least one.
 * @throws CountersignError `signature-invalid` if it is not a note, or none of the keys signed it.
 */
export function openNote(
  note: string | Uint8Array,
  verifierKeys: readonly (string | VerifierKey)[],
): { text: string; verified: string[] } {
  let parts: ReturnType<typeof splitNote>;
  try {
    parts = splitNote(note);
  } catch (error) {
    throw new CountersignError("signature-invalid", (error as Error).message, { cause: error });
  }
  const keys = verifierKeys.map((key) => (typeof key === "string" ? parseVerifierKey(key) : key));
  const text = Buffer.from(parts.text);
  const verified = new Set<string>();
  for (const { name, keyId: id, signature } of parts.signatures) {
    const key = keys.find((known) => known.name === name && Buffer.compare(known.keyId, id) === 0);
    if (key === undefined || verified.has(key.text)) {
      continue;
    }
    if (signature.length !== SIGNATURE_LENGTH || !verify(null, text, key.publicKey, signature)) {
      throw new CountersignError("signature-invalid", `the signature of ${name} does not verify`);
    }
    verified.add(key.text);
  }
  if (verified.size === 0) {
    throw new CountersignError("signature-invalid", "none of the expected keys signed this note");
  }
  return { text: parts.text, verified: [...verified] };
}

function decode(note: string | Uint8Array): string {
  if (note.length > MAX_NOTE_LENGTH) {
    throw new SyntaxError("a note of more than a million octets");
  }
  let text: string;
  try {
    text = typeof note === "string" ? note : utf8.decode(note);
  } catch {
    throw new SyntaxError("not a signed note: not UTF-8");
  }
  if (unfitForText.test(text)) {
    throw new SyntaxError("not a signed note: control characters");
  }
  return text;
}

/** SHA-256(name ‖ newline ‖ type ‖ key)[:4]. */
function keyId(name: string, typedKey: Uint8Array): Buffer {
  const input = Buffer.concat([Buffer.from(`${name}\n`), typedKey]);
  return hash("sha256", input, "buffer").subarray(0, KEY_ID_LENGTH);
}

/** Strict: padding and unused bits have one form. */
function fromBase64(text: string): Uint8Array | undefined {
  const bytes = Buffer.from(text, "base64");
  return bytes.toString("base64") === text ? bytes : undefined;
}
