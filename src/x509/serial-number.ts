/** Certificate serial numbers: RFC 5280 §4.1.2.2. */

/** The most RFC 5280 §4.1.2.2 allows. */
export const SERIAL_NUMBER_OCTETS = 20;

/**
 * Makes the serial number of a new certificate.
 *
 * @param random - 20 octets from a CSPRNG. 158 of the 160 bits survive, above the 64 that the
 *   CA/Browser Forum Baseline Requirements §7.1 ask for.
 * @returns The content octets of a DER INTEGER, big-endian, always 20 octets and always positive.
 * @throws RangeError if `random` is not 20 octets long.
 */
export function serialNumberFrom(random: Uint8Array): Uint8Array {
  if (random.length !== SERIAL_NUMBER_OCTETS) {
    throw new RangeError(`serial number needs 20 random octets, got ${random.length}`);
  }
  const serialNumber = Uint8Array.from(random);
  // DER reads the top bit as the sign. Clearing it keeps the number positive; setting the next
  // one keeps the first octet from being zero, which DER would have us drop.
  serialNumber[0] = (serialNumber[0]! & 0x7f) | 0x40;
  return serialNumber;
}

/**
 * Whether content octets are a serial number that may be issued or revoked: positive, at most 20 octets, with
 * a leading zero octet only where the sign bit asks for it (CRT-02).
 */
export function isSerialNumber(content: Uint8Array): boolean {
  const first = content[0];
  if (first === undefined || content.length > SERIAL_NUMBER_OCTETS || first >= 0x80) return false;
  return first !== 0 || (content.length > 1 && content[1]! >= 0x80);
}

/** Text form: lower-case hex of the content octets, leading zeros kept. */
export function serialNumberHex(content: Uint8Array): string {
  return Buffer.from(content.buffer, content.byteOffset, content.length).toString("hex");
}

/** Content octets of the text form, or undefined if the text is not lower-case hex of a serial number. */
export function serialNumberOctets(text: string): Uint8Array | undefined {
  if (text.length > 2 * SERIAL_NUMBER_OCTETS || !/^(?:[0-9a-f]{2})+$/.test(text)) return undefined;
  const content = Uint8Array.from(Buffer.from(text, "hex"));
  return isSerialNumber(content) ? content : undefined;
}

/** Compares two serial numbers as numbers. Both satisfy `isSerialNumber`. */
export function compareSerialNumbers(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) return a.length - b.length;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return 0;
}
