/** Octets as text, without a copy of them in between. */

export function base64(octets: Uint8Array): string {
  return view(octets).toString("base64");
}

export function utf8(octets: Uint8Array): string {
  return view(octets).toString("utf8");
}

function view(octets: Uint8Array): Buffer {
  return Buffer.from(octets.buffer, octets.byteOffset, octets.length);
}
