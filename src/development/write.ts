import { writeFileSync } from "node:fs";

/** Never overwrites, and nobody else reads it. */
export function write(file: string, content: string | Uint8Array): void {
  writeFileSync(file, content, { mode: 0o600, flag: "wx" });
}
