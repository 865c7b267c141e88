/** age files of a custodian, made and opened in this process, as stock age makes and opens them. */

import { Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from "age-encryption";
import { CountersignError } from "../../errors.ts";

/** An age identity and who encrypts to it. */
export interface AgeIdentity {
  /** `AGE-SECRET-KEY-1…`. */
  readonly identity: string;
  /** `age1…`. */
  readonly recipient: string;
}

export async function newAgeIdentity(): Promise<AgeIdentity> {
  const identity = await generateX25519Identity();
  return { identity, recipient: await identityToRecipient(identity) };
}

/** @throws CountersignError `recipient-refused` for what is no identity; its text is not repeated. */
export async function ageRecipientOf(identity: string): Promise<string> {
  try {
    return await identityToRecipient(identity);
  } catch {
    throw notAnIdentity();
  }
}

/**
 * Encrypts to one recipient.
 *
 * @param recipient - checked by `checkRecipient`.
 * @returns a binary age file.
 */
export async function encryptToRecipient(
  recipient: string,
  octets: Uint8Array,
): Promise<Uint8Array> {
  const encrypter = new Encrypter();
  encrypter.addRecipient(recipient);
  return encrypter.encrypt(octets);
}

/**
 * Opens an age file with the identities of one person.
 *
 * @returns the plain octets; wipe them.
 * @throws CountersignError `share-unreadable`; `recipient-refused` for what is no identity.
 */
export async function decryptWithIdentities(
  identities: readonly string[],
  file: Uint8Array,
): Promise<Uint8Array> {
  const decrypter = new Decrypter();
  try {
    for (const identity of identities) decrypter.addIdentity(identity);
  } catch {
    throw notAnIdentity();
  }
  try {
    return await decrypter.decrypt(file);
  } catch (error) {
    throw new CountersignError(
      "share-unreadable",
      "this age file was not encrypted to this identity, or was damaged on its way",
      { cause: error },
    );
  }
}

function notAnIdentity(): CountersignError {
  return new CountersignError(
    "recipient-refused",
    "this is no age identity of the form AGE-SECRET-KEY-1…",
  );
}
