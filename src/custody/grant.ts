/** What a signer may sign: CUSTODY.md 7.1 (standing grants) and 7.5 (`sign` and `window`). */

import { hash } from "node:crypto";
import { z } from "zod";
import { canonicalJson } from "../audit/canonical-json.ts";
import { CountersignError } from "../errors.ts";
import { policyFrame, type Policy } from "../policy/document.ts";
import { parseDuration } from "../policy/lifetime.ts";
import { windowLimits, type WindowLimits } from "./statement.ts";

export const sha256Digest = z
  .string()
  .regex(/^sha256:[0-9a-f]{64}$/, "expected sha256: and 64 hex digits, lower case");

const unique = (values: readonly string[]): boolean => new Set(values).size === values.length;

const duration = z.string().refine((text) => {
  try {
    return parseDuration(text) > 0;
  } catch {
    return false;
  }
}, 'expected a duration such as "8d" or "24h"');

const httpUrl = z.string().regex(/^http:\/\/[\x21-\x7e]+$/, "expected an http URL");

/** What is asked of requests that only match, where the exact bytes were not granted. */
const matching = {
  /** Digest of the policy document's frame. */
  policy: sha256Digest,
  /** From thisUpdate to nextUpdate, at most. */
  maximumCrlLifetime: duration.default("8d"),
  /** Where leaves say that their CRL is; without it, any one http URL passes. */
  crlUrl: httpUrl.exactOptional(),
  /** Where leaves say that their issuer's certificate is; without it, any one http URL passes. */
  caIssuersUrl: httpUrl.exactOptional(),
};

/** Matching requests, so many an hour. */
export const standingGrant = z.strictObject({
  operations: z
    .array(z.enum(["certificate", "crl"]))
    .min(1)
    .refine(unique, "an operation stands there twice"),
  profiles: z.array(z.string().min(1)).refine(unique, "a profile stands there twice"),
  signaturesPerHour: z.int().min(1),
  ...matching,
});

/** Matching requests of an approved window, until one of its limits is reached. */
export const windowGrant = z.strictObject({ window: windowLimits, ...matching });

const digests = z.array(sha256Digest).min(1).refine(unique, "a digest stands there twice");

/** Exactly these TBS bytes, each once: SHA-256 over them. */
export const digestGrant = z.strictObject({
  digests,
  /** From the opening of a sealed key; without it, the grant has no end. */
  seconds: z.int().min(1).max(900).exactOptional(),
});

export const grantSchema = z.union([standingGrant, digestGrant, windowGrant]);

/** What a configuration can grant: whatever ends by itself is granted by people, through an unlock. */
export const configuredGrant = z.union([standingGrant, z.strictObject({ digests })]);

export type StandingGrant = z.infer<typeof standingGrant>;
export type DigestGrant = z.infer<typeof digestGrant>;
export type WindowGrant = z.infer<typeof windowGrant>;
export type Grant = z.infer<typeof grantSchema>;
export type Operation = StandingGrant["operations"][number];

export function isStanding(grant: Grant): grant is StandingGrant {
  return "operations" in grant;
}

export function isWindow(grant: Grant): grant is WindowGrant {
  return "window" in grant;
}

export function isDigests(grant: Grant): grant is DigestGrant {
  return "digests" in grant;
}

/** Whether the key was opened by shares for this grant, and is locked by itself when it is over. */
export function hasEnd(grant: Grant): boolean {
  return isWindow(grant) || (isDigests(grant) && grant.seconds !== undefined);
}

/**
 * Which of a window's operations a request counts for: the one with its profile, or else the one without a profile.
 * What the first allows is not made more by the second.
 *
 * @returns its index; -1 if the window has none.
 */
export function windowOperation(
  { operations }: Pick<WindowLimits, "operations">,
  asked: string,
  askedProfile: string | undefined,
): number {
  const index = operations.findIndex(
    ({ operation, profile }) =>
      operation === asked && profile !== undefined && profile === askedProfile,
  );
  return index >= 0
    ? index
    : operations.findIndex(
        ({ operation, profile }) => operation === asked && profile === undefined,
      );
}

/** What a standing grant names a policy by: `sha256:<hex>` of the canonical JSON of its frame. */
export function policyDigest(policy: Policy): string {
  return `sha256:${hash("sha256", canonicalJson(policyFrame(policy)), "hex")}`;
}

/** Signatures within any hour, counted before they are made. */
export interface Allowance {
  /** Signatures that may still be made now. */
  readonly left: number;
  /** Signatures counted within the last hour. */
  readonly spent: number;
  /**
   * Counts signatures.
   *
   * @throws CountersignError `grant-exceeded`; then nothing is counted.
   */
  spend(count: number): void;
}

const HOUR_SECONDS = 3600;
const SLICES = 60;

/**
 * An allowance that begins with some signatures already made, as if at this moment: what one process has counted
 * does not come back with the next.
 *
 * @param monotonic - seconds on a clock that nobody sets.
 */
export function hourlyAllowance(
  limit: number,
  alreadySpent: number,
  monotonic: () => number,
): Allowance {
  // A ring of minutes and the one that is under way: a signature counts for 60 to 61 minutes.
  const slices = new Array<number>(SLICES + 1).fill(0);
  let current = Math.floor((monotonic() * SLICES) / HOUR_SECONDS);
  let spent = alreadySpent;
  slices[current % slices.length] = alreadySpent;

  function turn(): void {
    const now = Math.floor((monotonic() * SLICES) / HOUR_SECONDS);
    for (let steps = Math.min(now - current, slices.length); steps > 0; steps--) {
      const slice = (now - steps + 1) % slices.length;
      spent -= slices[slice]!;
      slices[slice] = 0;
    }
    current = Math.max(now, current);
  }

  return {
    get left() {
      turn();
      return Math.max(0, limit - spent);
    },
    get spent() {
      turn();
      return spent;
    },
    spend(count) {
      turn();
      if (spent + count > limit) {
        throw new CountersignError(
          "grant-exceeded",
          `the key may sign ${limit} times an hour, and has`,
        );
      }
      spent += count;
      slices[current % slices.length]! += count;
    },
  };
}
