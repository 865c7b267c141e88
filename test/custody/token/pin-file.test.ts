import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { readPin, readPinFromDescriptor } from "../../../src/custody/token/pin-file.ts";

let directory: string;
let file: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "countersign-pin-"));
  file = join(directory, "issuing.pin");
});
afterEach(() => rmSync(directory, { recursive: true }));

function text(pin: Uint8Array): string {
  return Buffer.from(pin).toString();
}

test.for(["0600", "0400"])("a PIN file of mode %s is read", (mode) => {
  writeFileSync(file, "secret-pin\n");
  chmodSync(file, Number.parseInt(mode, 8));
  expect(text(readPin(file))).toBe("secret-pin");
});

test.for(["0604", "0640", "0602", "0620", "0644", "0666", "0700", "0777"])(
  "a PIN file of mode %s is refused with the command that repairs it",
  (mode) => {
    writeFileSync(file, "secret-pin\n");
    chmodSync(file, Number.parseInt(mode, 8));
    expect(() => readPin(file)).toThrow(
      expect.objectContaining({
        code: "pin-file-unsafe",
        message: `The PIN file issuing.pin has mode ${mode}. Repair: chmod 600 issuing.pin`,
      }),
    );
  },
);

test("a PIN file that is a symbolic link is refused", () => {
  writeFileSync(join(directory, "target"), "secret-pin\n", { mode: 0o600 });
  symlinkSync(join(directory, "target"), file);
  expect(() => readPin(file)).toThrow(expect.objectContaining({ code: "pin-file-unsafe" }));
});

test("a named pipe is refused without waiting for its writer", () => {
  execFileSync("mkfifo", ["-m", "600", file]);
  expect(() => readPin(file)).toThrow(expect.objectContaining({ code: "pin-file-unsafe" }));
});

test("a directory is refused", () => {
  expect(() => readPin(directory)).toThrow(expect.objectContaining({ code: "pin-file-unsafe" }));
});

test("a PIN file of another user is refused", () => {
  let others = "/etc/passwd"; // root's
  if (process.getuid?.() === 0) {
    writeFileSync(file, "secret-pin\n", { mode: 0o600 });
    chownSync(file, 65534, 65534);
    others = file;
  }
  expect(() => readPin(others)).toThrow(
    expect.objectContaining({
      code: "pin-file-unsafe",
      message: expect.stringContaining("Repair: chown"),
    }),
  );
});

test("a missing PIN file is named, its directory is not", () => {
  expect(() => readPin(file)).toThrow(
    expect.objectContaining({
      code: "config-invalid",
      message: "The PIN file issuing.pin cannot be read (ENOENT).",
    }),
  );
});

test.for([
  { name: "a newline at the end is dropped", content: "1234\n", want: "1234" },
  { name: "a Windows newline at the end is dropped", content: "1234\r\n", want: "1234" },
  { name: "no newline is needed", content: "1234", want: "1234" },
  { name: "blanks belong to the PIN", content: " 12 34 \n", want: " 12 34 " },
  { name: "255 octets are taken", content: `${"9".repeat(255)}\r\n`, want: "9".repeat(255) },
  { name: "256 octets are refused", content: "9".repeat(256), want: undefined },
  { name: "a large file is refused", content: "9".repeat(100_000), want: undefined },
  { name: "an empty file is refused", content: "", want: undefined },
  { name: "an empty line is refused", content: "\n", want: undefined },
  { name: "a second line is refused", content: "1234\n5678\n", want: undefined },
  { name: "a second newline is refused", content: "1234\n\n", want: undefined },
])("PIN: $name", ({ content, want }) => {
  writeFileSync(file, content, { mode: 0o600 });
  const descriptor = openSync(file, "r");
  try {
    if (want === undefined) {
      expect(() => readPinFromDescriptor(descriptor)).toThrow(
        expect.objectContaining({ code: "config-invalid" }),
      );
    } else {
      expect(text(readPinFromDescriptor(descriptor))).toBe(want);
    }
  } finally {
    closeSync(descriptor);
  }
});

test("CUSTODY 7.2: the PIN lies in a buffer of its own, so that wiping it wipes all", () => {
  writeFileSync(file, "secret-pin\n", { mode: 0o600 });
  expect(readPin(file).buffer.byteLength).toBeLessThan(300);
});
