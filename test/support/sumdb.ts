/** Go's `sumdb/note` and `sumdb/tlog` from Debian (golang-go, golang-golang-x-mod-dev), unmodified. */

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Builds the program of `test/support/go` into a directory. Takes some seconds; later builds use its cache. */
export function buildSumdb(directory: string): string {
  const program = join(directory, "sumdb");
  const source = fileURLToPath(new URL("go/main.go", import.meta.url));
  execFileSync("go", ["build", "-o", program, source], {
    stdio: ["ignore", "inherit", "inherit"],
    env: {
      PATH: process.env.PATH,
      HOME: directory,
      GOPATH: "/usr/share/gocode",
      GO111MODULE: "off",
      GOFLAGS: "",
      CGO_ENABLED: "0",
      GOCACHE: join(tmpdir(), `countersign-go-${process.getuid?.() ?? 0}`),
    },
  });
  return program;
}
