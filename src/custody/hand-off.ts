/**
 * A secret on its way from the unlocker to the process that will use it: CUSTODY.md 7.1. The keeper makes the pipe and
 * gives its ends away; what goes through is
 *
 *     u32 length ‖ octets ‖ end
 *
 * and passes through no stream and no string, which would keep copies that nobody can wipe.
 */

import { closeSync, readSync, writeSync } from "node:fs";

/** The descriptor of either end, in the process that has it. */
export const HAND_OFF_DESCRIPTOR = 4;

/** Octets of a secret, at most; the PKCS#8 of an RSA-4096 key has some 2,400. */
export const SECRET_LIMIT = 16 * 1024;

const PREFIX_LENGTH = 4;

/**
 * Writes the secret and closes the pipe. It fits into what the kernel holds for the reader.
 *
 * @param secret - wiped.
 * @throws Error if nobody can read it any more.
 */
export function writeHandOff(secret: Buffer, descriptor: number = HAND_OFF_DESCRIPTOR): void {
  try {
    if (secret.length === 0 || secret.length > SECRET_LIMIT) {
      throw new RangeError(`a secret of ${secret.length} octets`);
    }
    const prefix = Buffer.alloc(PREFIX_LENGTH);
    prefix.writeUInt32BE(secret.length);
    for (const part of [prefix, secret]) {
      for (let at = 0; at < part.length;) at += writeSync(descriptor, part, at);
    }
  } finally {
    secret.fill(0);
    closeSync(descriptor);
  }
}

/**
 * Reads the secret up to the end, blocking: to be called when it has been written. Whoever could write it and ends
 * ends the wait too.
 *
 * @returns a buffer of its own, to be wiped.
 * @throws Error if that is no secret, whole and alone.
 */
export function readHandOff(descriptor: number = HAND_OFF_DESCRIPTOR): Buffer {
  try {
    const prefix = readExactly(descriptor, PREFIX_LENGTH);
    const length = prefix.readUInt32BE();
    if (length === 0 || length > SECRET_LIMIT) throw new Error(`a secret of ${length} octets`);
    const secret = readExactly(descriptor, length);
    const rest = Buffer.alloc(1);
    if (readSync(descriptor, rest, 0, 1, null) !== 0) {
      secret.fill(0);
      throw new Error("more than a secret was handed over");
    }
    return secret;
  } finally {
    closeSync(descriptor);
  }
}

function readExactly(descriptor: number, length: number): Buffer {
  const octets = Buffer.allocUnsafeSlow(length);
  for (let at = 0; at < length;) {
    const count = readSync(descriptor, octets, at, length - at, null);
    if (count === 0) {
      octets.fill(0);
      throw new Error("the secret was not handed over");
    }
    at += count;
  }
  return octets;
}
