/** Operators who sign in at a site with stock ssh-keygen. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestSites } from "./http-sites.ts";

/** Gives the site these operators, and each of them a session. */
export async function signInAs<Operator extends string>(
  { api, domain }: Pick<TestSites, "api" | "domain">,
  ...operators: readonly Operator[]
): Promise<Record<Operator, string>> {
  const folder = mkdtempSync(join(tmpdir(), "countersign-operators-"));
  const sessions: Partial<Record<Operator, string>> = {};
  try {
    for (const id of operators) {
      const key = join(folder, id);
      execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", id, "-f", key]);
      const [type, blob] = readFileSync(`${key}.pub`, "utf8").split(" ");
      domain.operators.push({ id, keys: [`${type} ${blob}`] });
      const challenge = (await api("/v1/sessions", { body: { operator: id } })).json;
      const signature = execFileSync(
        "ssh-keygen",
        ["-q", "-Y", "sign", "-n", challenge["namespace"] as string, "-f", key],
        { input: challenge["statement"] as string, stdio: ["pipe", "pipe", "pipe"] },
      ).toString();
      const session = await api(`/v1/sessions/${challenge["id"] as string}`, {
        body: { signature },
      });
      sessions[id] = session.json["token"] as string;
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  return sessions as Record<Operator, string>;
}
