/** A key as people name it: its keyId, the beginning of it, or the issuer that it is of. */

import type { ApiClient } from "./api-client.ts";
import { usage } from "./failure.ts";
import type { KeyAnswer } from "./people-answers.ts";

/**
 * Finds a key of the service.
 *
 * @throws CommandFailure with exit code 2 if there is none, or more than one.
 */
export async function keyNamed(
  client: ApiClient,
  named: string,
): Promise<Pick<KeyAnswer, "keyId"> & Partial<KeyAnswer>> {
  if (/^[0-9a-f]{64}$/.test(named)) return { keyId: named };
  const keys = await keysOf(client);
  const isStart = /^[0-9a-f]{8,63}$/.test(named);
  const found = keys.filter(
    ({ keyId, issuer }) => issuer === named || (isStart && keyId.startsWith(named)),
  );
  if (found.length === 1) return found[0]!;
  throw usage(
    found.length === 0 ? `there is no key ${named}` : `${named} is the beginning of several keys`,
    `keys are ${keys.map(({ keyId, issuer }) => `${issuer ?? "?"} (${keyId.slice(0, 16)}…)`).join(", ") || "none"}`,
  );
}

export async function keysOf(client: ApiClient): Promise<readonly KeyAnswer[]> {
  const { keys } = await client.json<{ keys: readonly KeyAnswer[] }>("/v1/keys", {
    as: "operator",
  });
  return keys;
}
