/** A roster as people hand it round: the document, canonical JSON, and beside it `FILE.OPERATOR.sig` from each signer. */

import { readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { readRoster, type Roster, type RosterSignature, type RosterVersion } from "./roster.ts";

export const SIGNATURE_SUFFIX = ".sig";

/**
 * Reads a version with the signatures beside it, which are checked by whoever takes it.
 *
 * @throws CountersignError `roster-invalid`.
 */
export function readRosterFile(file: string): RosterVersion {
  const document = readFileSync(file);
  return { document, signatures: signaturesBeside(file, readRoster(document)) };
}

/** The signatures of people in it; one with several keys has `FILE.OPERATOR.1.sig` and so on. */
export function signaturesBeside(
  file: string,
  { operators }: Pick<Roster, "operators">,
): RosterSignature[] {
  const start = `${basename(file)}.`;
  return readdirSync(dirname(file))
    .filter((name) => name.startsWith(start) && name.endsWith(SIGNATURE_SUFFIX))
    .toSorted()
    .flatMap((name) => {
      const operator = name.slice(start.length, -SIGNATURE_SUFFIX.length).replace(/\.\d+$/, "");
      if (!operators.has(operator)) return [];
      return [{ operator, signature: readFileSync(join(dirname(file), name), "latin1") }];
    });
}
