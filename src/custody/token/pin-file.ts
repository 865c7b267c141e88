/** Where a PIN comes from: a file that only we can read, or a descriptor that the parent process hands over. */

import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { basename } from "node:path";
import { CountersignError } from "../../errors.ts";

/** The longest PIN taken, octets; SoftHSM takes no longer one either. */
export const PIN_OCTETS = 255;

/**
 * Reads the PIN of a token from a file.
 *
 * The file is a regular one, not a symbolic link, ours, and closed to group and others: what anybody else can
 * read or replace is no secret.
 *
 * @returns 1 to 255 octets without the newline that ends the file. The caller wipes them.
 * @throws CountersignError `pin-file-unsafe` if another can read the file, with the command that closes it;
 *   `config-invalid` if it is missing or holds no PIN.
 */
export function readPin(path: string): Uint8Array {
  const name = basename(path);
  let descriptor: number;
  try {
    // O_NONBLOCK: opening a named pipe would wait for its writer.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    descriptor = openSync(path, flags);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === "ELOOP") {
      throw new CountersignError("pin-file-unsafe", `The PIN file ${name} is a symbolic link.`, {
        cause,
      });
    }
    throw new CountersignError("config-invalid", `The PIN file ${name} cannot be read (${code}).`, {
      cause,
    });
  }
  try {
    const status = fstatSync(descriptor);
    if (!status.isFile()) {
      throw new CountersignError("pin-file-unsafe", `The PIN file ${name} is not a regular file.`);
    }
    if (status.uid !== process.getuid?.()) {
      throw new CountersignError(
        "pin-file-unsafe",
        `The PIN file ${name} belongs to another user. Repair: chown ${process.getuid?.()} ${name}`,
      );
    }
    const mode = status.mode & 0o777;
    if (mode !== 0o600 && mode !== 0o400) {
      throw new CountersignError(
        "pin-file-unsafe",
        `The PIN file ${name} has mode 0${mode.toString(8)}. Repair: chmod 600 ${name}`,
      );
    }
    return readPinFromDescriptor(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Reads a PIN from a pipe or file up to its end, blocking. The descriptor stays open.
 *
 * @returns as {@link readPin}.
 * @throws CountersignError `config-invalid` if that is no PIN.
 */
export function readPinFromDescriptor(descriptor: number): Uint8Array {
  // One buffer of our own, not from Node's pool, so that wiping it wipes all (CUSTODY 7.2).
  const buffer = Buffer.allocUnsafeSlow(PIN_OCTETS + "\r\n".length + 1);
  try {
    let length = 0;
    while (length < buffer.length) {
      const read = readSync(descriptor, buffer, length, buffer.length - length, null);
      if (read === 0) break;
      length += read;
    }
    const pin = withoutNewline(buffer.subarray(0, length));
    if (pin.length === 0) throw invalid("is empty");
    if (pin.length > PIN_OCTETS) throw invalid(`is longer than ${PIN_OCTETS} octets`);
    if (pin.some((octet) => octet < 0x20 || octet === 0x7f)) {
      throw invalid("holds a control character, such as a second line");
    }
    return pin;
  } catch (error) {
    buffer.fill(0);
    throw error;
  }
}

function withoutNewline(bytes: Uint8Array): Uint8Array {
  let end = bytes.length;
  if (bytes[end - 1] === 0x0a) {
    end--;
    if (bytes[end - 1] === 0x0d) end--;
  }
  return bytes.subarray(0, end);
}

function invalid(why: string): CountersignError {
  return new CountersignError("config-invalid", `The PIN ${why}.`);
}
