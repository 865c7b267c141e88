/** What every command is given. */

import type { ApiClient } from "./api-client.ts";
import { usage } from "./failure.ts";
import type { Output } from "./output.ts";
import type { Settings } from "./settings.ts";

export interface Context {
  readonly output: Output;
  /** The one client of this run, made when a command needs it. */
  readonly connect: () => Promise<ApiClient>;
  /** The settings alone, for what needs no service. */
  readonly settings: () => Promise<Settings>;
}

export interface IssuerAnswer {
  readonly id: string;
  readonly keyId: string;
  readonly subject: string;
  readonly profiles: readonly string[];
  readonly state: string;
  readonly detail?: string;
  readonly notAfter: string;
  readonly crlUrl?: string;
}

/**
 * The issuer that a command is about: the one it was told, or the configured one, or the only one that issues.
 *
 * @throws CommandFailure with exit code 2 if there are several.
 */
export async function chooseIssuer(client: ApiClient, told: string | undefined): Promise<string> {
  const known = told ?? client.settings.issuer;
  if (known !== undefined) return known;
  const as = client.requireRole("requester", "operator");
  const { issuers } = await client.json<{ issuers: IssuerAnswer[] }>("/v1/issuers", { as });
  const issuing = issuers.filter(({ profiles }) => profiles.length > 0);
  if (issuing.length === 1) return issuing[0]!.id;
  throw usage(
    "which issuer?",
    `name one with --issuer: ${issuing.map(({ id }) => id).join(", ") || "there is none that issues"}`,
  );
}

export function issuerPath(issuer: string): string {
  return `/v1/issuers/${encodeURIComponent(issuer)}`;
}
