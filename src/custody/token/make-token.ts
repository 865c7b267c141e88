/** Makes a token whose PIN stays in a file: CUSTODY.md 3.5. */

import { randomBytes } from "node:crypto";
import { closeSync, constants, openSync, unlinkSync, writeSync } from "node:fs";
import { basename } from "node:path";
import { CountersignError } from "../../errors.ts";
import { newToken } from "./new-token.ts";
import { readPin } from "./pin-file.ts";
import type { MadeToken, MakeTokenOptions } from "./spawn-make-token.ts";

/**
 * Makes a token as {@link newToken} does, and keeps its user PIN in a file.
 *
 * @throws CountersignError as {@link newToken} does, and `config-invalid` if the PIN file is there or cannot be made.
 *   What fails after it was made takes it away again.
 */
export async function makeToken(
  { pinFile, ...options }: MakeTokenOptions,
  random: (size: number) => Uint8Array = randomBytes,
): Promise<MadeToken> {
  let written = false;
  const place = {
    keep(pin: Buffer): void {
      writePinFile(pinFile, pin);
      written = true;
    },
    kept: () => readPin(pinFile),
  };
  try {
    const { uri, publicKey, type, tokenInfo } = await newToken(options, place, random);
    return { uri, publicKey, type, tokenInfo };
  } catch (error) {
    if (written) unlinkSync(pinFile);
    throw error;
  }
}

function writePinFile(path: string, pin: Buffer): void {
  let file: number;
  try {
    // Node's permission model has no fsync, hence O_SYNC.
    const { O_CREAT, O_EXCL, O_SYNC, O_WRONLY } = constants;
    file = openSync(path, O_CREAT | O_EXCL | O_SYNC | O_WRONLY, 0o600);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    const why = code === "EEXIST" ? "is there already and is not overwritten" : "cannot be made";
    throw new CountersignError("config-invalid", `The PIN file ${basename(path)} ${why}.`, {
      cause,
    });
  }
  try {
    writeSync(file, `${pin.toString("utf8")}\n`);
  } catch (error) {
    unlinkSync(path);
    throw error;
  } finally {
    closeSync(file);
  }
}
