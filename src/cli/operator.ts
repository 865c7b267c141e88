/** What an operator signs, with stock ssh-keygen: file keys, agents and FIDO2 keys alike. CUSTODY 8.2. */

import { spawn } from "node:child_process";
import { parseCanonicalJson, type JsonObject } from "../audit/canonical-json.ts";
import type { ApiClient } from "./api-client.ts";
import { CommandFailure, usage } from "./failure.ts";

/** Namespaces of CUSTODY 6.1. They are pinned here: a service never chooses what a signature is good for. */
const LOGIN_NAMESPACE = "countersign-login@v1";
export const REQUESTER_NAMESPACE = "countersign-requester@v1";

export interface Session {
  readonly token: string;
  readonly expiresAt: Date;
}

/** @throws CommandFailure with exit code 2 unless the settings name both. */
export function operatorOf({ settings }: Pick<ApiClient, "settings">): {
  operator: string;
  sshKey: string;
} {
  const { operator, sshKey } = settings;
  if (operator === undefined || sshKey === undefined) {
    throw usage("this is for operators", "give --operator ID and --ssh-key FILE");
  }
  return { operator, sshKey };
}

/** Signs in: the service's challenge, if it is one for this operator, and a token that stays in memory. */
export async function signIn(client: ApiClient): Promise<Session> {
  const { operator, sshKey } = operatorOf(client);
  const challenge = await client.json<{ id: string; statement: string }>("/v1/sessions", {
    as: "nobody",
    body: { operator },
  });
  const statement = Buffer.from(challenge.statement);
  checkLoginStatement(statement, operator);
  const signature = await sshSign(sshKey, LOGIN_NAMESPACE, statement);
  const { token, expiresAt } = await client.json<{ token: string; expiresAt: string }>(
    `/v1/sessions/${encodeURIComponent(challenge.id)}`,
    { as: "nobody", body: { signature } },
  );
  return { token, expiresAt: new Date(expiresAt) };
}

/** Nothing but a login is signed as one, whatever the service sends. */
function checkLoginStatement(statement: Uint8Array, operator: string): void {
  let fields: JsonObject | undefined;
  try {
    fields = parseCanonicalJson(statement) as JsonObject;
  } catch {
    fields = undefined;
  }
  if (fields?.["type"] !== "countersign/login/v1" || fields["operator"] !== operator) {
    throw new CommandFailure("the service sent something else than a challenge for this operator", {
      code: "session-malformed",
      next: "nothing was signed; check --url",
    });
  }
}

/**
 * Signs with `ssh-keygen -Y sign`, which asks for a passphrase or a touch on the terminal itself.
 *
 * @param key - The private key's file, or the public key's of one that an agent holds.
 * @returns The armored SSHSIG.
 */
export async function sshSign(
  key: string,
  namespace: string,
  message: Uint8Array,
): Promise<string> {
  const child = spawn("ssh-keygen", ["-q", "-Y", "sign", "-n", namespace, "-f", key], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  let signature = "";
  let complaints = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (signature += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaints += text;
    // "Confirm user presence for key …" must be seen while there is time.
    if (process.stderr.isTTY) process.stderr.write(text);
  });
  child.stdin.on("error", () => undefined); // it ended before it read; its exit code says so
  child.stdin.end(message);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        error.code === "ENOENT"
          ? new CommandFailure("ssh-keygen is not installed", {
              code: "ssh-keygen-missing",
              next: "install OpenSSH (Debian and Ubuntu: apt-get install openssh-client)",
            })
          : error,
      ),
    );
    child.once("close", resolve);
  });
  if (code !== 0 || !signature.startsWith("-----BEGIN SSH SIGNATURE-----")) {
    throw new CommandFailure(
      `ssh-keygen did not sign with ${key}: ${complaints.trim().split("\n").at(-1) || `it ended with ${code}`}`,
      {
        code: "not-signed",
        next: "check --ssh-key: a private key that you can open, or the .pub file of a key in your agent",
      },
    );
  }
  return signature;
}
