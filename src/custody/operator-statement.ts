/** What every statement of an operator is: canonical JSON, signed by one of the operator's keys for one purpose. */

import { parseCanonicalJson } from "../audit/canonical-json.ts";
import { CountersignError } from "../errors.ts";
import { verifySshSignature } from "./ssh-signature.ts";

export interface Operator {
  readonly id: string;
  /** SSH public keys, as lines. */
  readonly keys: readonly string[];
}

/** @throws CountersignError `statement-malformed` for what is no canonical JSON. */
export function readCanonical(octets: Uint8Array): unknown {
  try {
    return parseCanonicalJson(octets);
  } catch (error) {
    throw new CountersignError(
      "statement-malformed",
      `the statement is not canonical JSON: ${(error as Error).message}`,
      { cause: error },
    );
  }
}

/**
 * Verifies that one of the operators has signed a statement.
 *
 * @param operator - The id of the one who is said to have signed it.
 * @param namespace - Of the SSH signature: what the statement is for.
 * @param signature - Armored.
 * @throws CountersignError `signature-invalid`.
 */
export function verifyOperator(
  operators: readonly Operator[],
  operator: string,
  namespace: string,
  message: Uint8Array,
  signature: string,
): void {
  const known = operators.find(({ id }) => id === operator);
  if (known === undefined) {
    throw new CountersignError("signature-invalid", `there is no operator ${operator}`);
  }
  verifyWithOneOf(known.keys, namespace, message, signature);
}

/**
 * Verifies that one of a person's SSH keys made a signature.
 *
 * @throws CountersignError `signature-invalid`.
 */
export function verifyWithOneOf(
  publicKeys: readonly string[],
  namespace: string,
  message: Uint8Array,
  signature: string,
): void {
  let failure: unknown = new CountersignError(
    "signature-invalid",
    "the signer has no SSH key here",
  );
  for (const publicKey of publicKeys) {
    try {
      verifySshSignature({ publicKey, namespace, message, signature });
      return;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}
