/** The age identity that opens a person's shares: a file of their own, or whatever stock age can use in its place. */

import { spawn } from "node:child_process";
import {
  ageRecipientOf,
  decryptWithIdentities,
  newAgeIdentity,
} from "../custody/sealed/age-file.ts";
import { CommandFailure, usage } from "./failure.ts";
import { readSecretFile, writeSecretFile } from "./files.ts";

/** Opens age files for one person. */
export interface Opener {
  /** Of this identity; undefined where only stock age can say. */
  readonly recipient: string | undefined;
  /** @returns the plain octets; wipe them. @throws `share-unreadable` */
  open(file: Uint8Array): Promise<Uint8Array>;
}

/**
 * An identity in a file. Plain ones (`AGE-SECRET-KEY-1…`) are used in this process; those of a plugin, and a file that is
 * itself encrypted, by stock `age`, which asks for a touch, a PIN or the passphrase by itself.
 */
export async function openerOf(file: string): Promise<Opener> {
  const text = readSecretFile(file, "age identity").toString("latin1");
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "" && !line.startsWith("#"));
  if (lines.length > 0 && lines.every((line) => line.startsWith("AGE-SECRET-KEY-"))) {
    const identities = lines.map((line) => line.trim());
    return {
      recipient: await ageRecipientOf(identities[0]!),
      open: (octets) => decryptWithIdentities(identities, octets),
    };
  }
  const known = /^(?:AGE-PLUGIN-|age-encryption\.org\/v1|-----BEGIN AGE ENCRYPTED FILE-----)/;
  if (lines.length === 0 || !known.test(lines[0]!)) {
    throw usage(
      `${file} is not an age identity`,
      "name the file that age-keygen -o or an age plugin wrote; countersign enrol makes one",
    );
  }
  return { recipient: undefined, open: (octets) => decryptWithAge(file, octets) };
}

/**
 * Makes an identity in a new file of mode 0600.
 *
 * @returns its recipient.
 */
export async function makeIdentityFile(file: string): Promise<string> {
  const { identity, recipient } = await newAgeIdentity();
  writeSecretFile(
    file,
    `# created: ${new Date().toISOString()}\n# public key: ${recipient}\n${identity}\n`,
    "name another file with --identity: an identity is never overwritten",
  );
  return recipient;
}

async function decryptWithAge(identity: string, file: Uint8Array): Promise<Uint8Array> {
  // It talks to the person on the terminal itself; nothing of the secret passes through there.
  const child = spawn("age", ["-d", "-i", identity], { stdio: ["pipe", "pipe", "inherit"] });
  const chunks: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  child.stdin.on("error", () => undefined); // it ended before it read; its exit code says so
  child.stdin.end(file);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        error.code === "ENOENT"
          ? new CommandFailure(`${identity} needs the program age, which is not installed`, {
              code: "age-missing",
              next: "install age and the plugin of this identity (https://age-encryption.org)",
            })
          : error,
      ),
    );
    child.once("close", resolve);
  });
  const octets = Buffer.concat(chunks);
  for (const chunk of chunks) chunk.fill(0);
  if (code !== 0) {
    octets.fill(0);
    throw new CommandFailure(`age did not open the share with ${identity}: see above`, {
      code: "share-unreadable",
      next: "is it the identity that you enrolled, and is its hardware key plugged in?",
    });
  }
  return octets;
}
