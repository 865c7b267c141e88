/** A process that holds a secret in one form, for tests of the search for secrets. */

import { type ChildProcess, spawn, type SpawnOptions } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readSync } from "node:fs";
import { join } from "node:path";
import { appRoot } from "../../src/custody/process-flags.ts";

type Give = () => Buffer;

const holders = {
  nothing: () => undefined,
  "a wiped buffer": (secret: Give) => secret().fill(0),
  "a buffer": (secret: Give) => secret(),
  hex: (secret: Give) => secret().toString("hex"),
  "upper-case hex": (secret: Give) => secret().toString("hex").toUpperCase(),
  base64: (secret: Give) => secret().toString("base64"),
  "base64 behind one octet": (secret: Give) =>
    Buffer.concat([Buffer.alloc(1), secret()]).toString("base64"),
  "base64 behind two octets": (secret: Give) =>
    Buffer.concat([Buffer.alloc(2), secret()]).toString("base64"),
  base64url: (secret: Give) => secret().toString("base64url"),
  bits: (secret: Give) => [...secret()].map((octet) => octet.toString(2).padStart(8, "0")).join(""),
  "two-byte characters": (secret: Give) => Buffer.from(secret().toString("hex"), "utf16le"),
  "an array of numbers": (secret: Give) => [...secret()],
  "an array of numbers, backwards": (secret: Give) => [...secret()].toReversed(),
  "the first half": (secret: Give) => {
    const octets = secret();
    return octets.fill(0, octets.length >> 1);
  },
  "the last half": (secret: Give) => {
    const octets = secret();
    return octets.fill(0, 0, octets.length >> 1);
  },
} satisfies Record<string, (secret: Give) => unknown>;

export type Holding = keyof typeof holders;

/**
 * Starts a process that holds the secret; it ends with this one. The secret goes there masked, so that only what the
 * process makes of it is in its memory.
 *
 * @param flags - Node's.
 */
export async function startSecretHolder(
  holding: Holding,
  secret: Uint8Array,
  { flags = [], ...options }: Pick<SpawnOptions, "cwd"> & { flags?: readonly string[] } = {},
): Promise<ChildProcess> {
  const module = join(appRoot, "dist", "test", "support", "secret-holder.js");
  const child = spawn(process.execPath, [...flags, module, holding, String(secret.length)], {
    ...options,
    stdio: ["pipe", "pipe", "inherit"],
  });
  const mask = randomBytes(secret.length);
  const masked = mask.map((octet, place) => octet ^ secret[place]!);
  child.stdin.write(Buffer.concat([mask, masked]));
  await new Promise((resolve) => child.stdout.once("data", resolve));
  return child;
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const [holding, count] = process.argv.slice(2) as [Holding, string];
  const length = Number(count);
  const input = Buffer.allocUnsafeSlow(2 * length);
  for (let read = 0; read < input.length;) {
    read += readSync(0, input, read, input.length - read, null);
  }
  const held = holders[holding](() => {
    const secret = Buffer.allocUnsafeSlow(length);
    for (let place = 0; place < length; place++) {
      secret[place] = input[place]! ^ input[length + place]!;
    }
    return secret;
  });
  console.log("ready");
  process.stdin.resume();
  // Until then `held` is in use.
  process.stdin.once("end", () => process.exit(held === undefined ? 0 : 1));
}
