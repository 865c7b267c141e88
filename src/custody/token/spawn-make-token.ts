/** Starts the process that makes a token; loads no PKCS#11 itself, so that any process may import it. */

import { spawn } from "node:child_process";
import { dirname, resolve } from "node:path";
import { CountersignError, type ErrorCode } from "../../errors.ts";
import type { PublicKeyType } from "../../x509/public-key.ts";
import { appRoot, flagsFor, mainModule } from "../process-flags.ts";
import type { TokenInfo } from "./token.ts";

/** The kinds of key that are made. */
export const madeKeyTypes = [
  "P-256",
  "P-384",
  "P-521",
  "RSA-2048",
  "RSA-3072",
  "RSA-4096",
  "Ed25519",
] as const satisfies readonly PublicKeyType[];

export type MadeKeyType = (typeof madeKeyTypes)[number];

/** What any new token needs. */
export interface NewTokenOptions {
  readonly modulePath: string;
  /** The token's label: 1 to 32 octets of UTF-8; no other token has it. */
  readonly label: string;
  /** The key's label. */
  readonly object: string;
  readonly key: MadeKeyType;
}

export interface MakeTokenOptions extends NewTokenOptions {
  /** Where the user PIN goes: a file that is not there yet. It gets mode 0600. */
  readonly pinFile: string;
}

export interface MadeToken {
  /** RFC 7512: label and serial number of the token, label and CKA_ID of the key. */
  readonly uri: string;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array;
  readonly type: MadeKeyType;
  readonly tokenInfo: TokenInfo;
}

/** The one line that the process prints. */
export type MakeTokenAnswer =
  | (Omit<MadeToken, "publicKey"> & { readonly publicKey: string })
  | { readonly code: ErrorCode; readonly detail: string };

/**
 * Runs `makeToken` in a process of its own, so that no PIN is ever in this one's memory. It gets neither our
 * environment nor other files.
 *
 * @param environment - all that the process gets, such as `SOFTHSM2_CONF`.
 * @throws CountersignError as `makeToken` does.
 */
export async function spawnMakeToken(
  options: MakeTokenOptions,
  environment: Readonly<Record<string, string>> = {},
): Promise<MadeToken> {
  const pinFile = resolve(options.pinFile);
  // The dealer of CUSTODY 7.3 for a token: as the token's signer, and it may write the PIN file.
  const flags = flagsFor("signer", { appRoot, readFiles: [dirname(pinFile)] });
  const child = spawn(
    process.execPath,
    [
      ...flags,
      "--disable-warning=SecurityWarning", // it is about --allow-addons
      `--allow-fs-write=${pinFile}`,
      mainModule("token/make-token-main.js"),
      ...["--module", options.modulePath, "--label", options.label],
      ...["--object", options.object, "--key", options.key, "--pin-file", pinFile],
    ],
    { env: { ...environment }, stdio: ["ignore", "pipe", "inherit"] },
  );
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  await new Promise<void>((end, reject) => {
    child.once("error", reject);
    child.once("close", () => end());
  });
  const answer = parseAnswer(output);
  if ("code" in answer) throw new CountersignError(answer.code, answer.detail);
  return { ...answer, publicKey: Buffer.from(answer.publicKey, "base64") };
}

function parseAnswer(output: string): MakeTokenAnswer {
  try {
    return JSON.parse(output) as MakeTokenAnswer;
  } catch (cause) {
    throw new Error("the process that makes tokens gave no answer", { cause });
  }
}
