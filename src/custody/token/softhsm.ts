/** Where SoftHSM's module is, for development homes and tests. */

import { existsSync } from "node:fs";

const places = [
  "/usr/lib/softhsm/libsofthsm2.so", // Debian, Ubuntu
  "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
  "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
  "/usr/lib64/pkcs11/libsofthsm2.so", // Fedora
  "/usr/lib/pkcs11/libsofthsm2.so", // Arch
  "/usr/local/lib/softhsm/libsofthsm2.so",
  "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];

/** The path of libsofthsm2, or undefined if it is in none of the usual places. */
export function softHsmModule(): string | undefined {
  return places.find((path) => existsSync(path));
}
