/** Chooses a representation: RFC 9110 §12.5.1. */

import type { Context } from "koa";
import { CountersignError } from "../errors.ts";

export const JSON_TYPE = "application/json";
export const PEM_CHAIN_TYPE = "application/pem-certificate-chain";
export const CERTIFICATE_TYPE = "application/pkix-cert";
export const CRL_TYPE = "application/pkix-crl";
export const PEM_TYPE = "application/x-pem-file";

/**
 * The best of `available` for this request; the first one when it does not say.
 *
 * @throws CountersignError `not-acceptable`.
 */
export function negotiate<T extends string>(
  ctx: Pick<Context, "headers" | "accepts" | "vary">,
  available: readonly [T, ...T[]],
): T {
  ctx.vary("Accept");
  const { accept } = ctx.headers;
  if (accept === undefined || accept === "*/*" || accept === available[0]) return available[0];
  const chosen = ctx.accepts([...available]);
  if (typeof chosen !== "string") {
    throw new CountersignError("not-acceptable", `this comes as ${available.join(", ")}`, {
      members: { available },
    });
  }
  return chosen as T;
}
