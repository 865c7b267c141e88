/** The stock openssl command, for a second opinion. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { encodePem } from "../../src/x509/pem.ts";

const directory = mkdtempSync(join(tmpdir(), "countersign-x509-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Runs openssl and returns what it printed. Throws with its complaints if it fails. */
export function openssl(...args: readonly string[]): string {
  return execFileSync("openssl", args, { cwd: directory, encoding: "utf8", stdio: "pipe" });
}

/** As `openssl`, for binary output. */
export function opensslBytes(...args: readonly string[]): Uint8Array {
  return Uint8Array.from(execFileSync("openssl", args, { cwd: directory, stdio: "pipe" }));
}

let files = 0;

/** Puts octets or text into a file, whose name it returns. */
export function fileOf(content: Uint8Array | string): string {
  const name = `file-${files++}`;
  writeFileSync(join(directory, name), content);
  return name;
}

/** Certificates as one PEM file. */
export function pemFileOf(...certificates: readonly Uint8Array[]): string {
  return fileOf(certificates.map((der) => encodePem("CERTIFICATE", der)).join(""));
}
