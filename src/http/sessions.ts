/** Operators' sessions: a signed challenge gives a 15-minute bearer token. CUSTODY 8.2. */

import { hash } from "node:crypto";
import { canonicalJson } from "../audit/canonical-json.ts";
import { verifySshSignature } from "../custody/ssh-signature.ts";
import { CountersignError } from "../errors.ts";
import type { Operator } from "../issuance/requesters.ts";

/** CUSTODY 6.1. */
export const LOGIN_NAMESPACE = "countersign-login@v1";
export const SESSION_TOKEN_PREFIX = "css_";

const CHALLENGE_MILLISECONDS = 120_000;
export const SESSION_MILLISECONDS = 15 * 60_000;
const MINUTE_MILLISECONDS = 60_000;

/** Open at a time; beyond, the oldest of the same operator makes room. */
const CHALLENGES_PER_OPERATOR = 256;
const SESSIONS_PER_OPERATOR = 64;
/** In one minute, from one address. */
const CHALLENGES_PER_ADDRESS = 60;
const FAILURES_PER_ADDRESS = 10;

export interface Challenge {
  readonly id: string;
  /** Canonical JSON: these bytes are what the operator signs. */
  readonly statement: string;
  readonly expiresAt: Date;
}

export interface Sessions {
  /** @throws CountersignError `rate-limited`. */
  challenge(operator: string, address: string, log: { size: number; root: string }): Challenge;
  /**
   * Uses a challenge up, whether its signature is right or wrong.
   *
   * @param signature - Armored SSHSIG over the statement.
   * @throws CountersignError `session-malformed` for a challenge that is unknown, used or expired,
   *   `signature-invalid`, `rate-limited`.
   */
  open(id: string, signature: string, address: string): { token: string; expiresAt: Date };
  /** The operator a token belongs to, while the session lasts and the operator is in the roster. */
  operatorOf(token: string): string | undefined;
  close(token: string): void;
}

export interface SessionParts {
  readonly service: string;
  operators(): readonly Operator[];
  readonly now: () => Date;
  readonly random: (size: number) => Uint8Array;
}

interface OpenChallenge {
  readonly operator: string;
  readonly statement: string;
  readonly expires: number;
}

interface OpenSession {
  readonly operator: string;
  readonly expires: number;
}

export function createSessions(parts: SessionParts): Sessions {
  const challenges = new Map<string, OpenChallenge>();
  /** By SHA-256 of the token, so that a look into memory or a core dump shows no token. */
  const sessions = new Map<string, OpenSession>();
  const asked = attempts(CHALLENGES_PER_ADDRESS);
  const failed = attempts(FAILURES_PER_ADDRESS);

  return {
    challenge(operator, address, log) {
      const now = parts.now();
      asked.check(address, now);
      asked.count(address, now);
      const expires = now.getTime() + CHALLENGE_MILLISECONDS;
      const id = Buffer.from(parts.random(16)).toString("hex");
      const statement = canonicalJson({
        type: "countersign/login/v1",
        operator,
        challenge: Buffer.from(parts.random(32)).toString("base64"),
        service: parts.service,
        at: now.toISOString(),
        log: { size: log.size, root: log.root },
      });
      // A stranger's name gets an answer like any other and leaves nothing in memory.
      if (parts.operators().some((candidate) => candidate.id === operator)) {
        makeRoom(challenges, operator, CHALLENGES_PER_OPERATOR, now);
        challenges.set(id, { operator, statement, expires });
      }
      return { id, statement, expiresAt: new Date(expires) };
    },

    open(id, signature, address) {
      const now = parts.now();
      failed.check(address, now);
      const challenge = challenges.get(id);
      challenges.delete(id);
      if (challenge === undefined || challenge.expires <= now.getTime()) {
        failed.count(address, now);
        throw new CountersignError(
          "session-malformed",
          "this challenge is unknown, used or expired: ask for a new one",
        );
      }
      const { operator, statement } = challenge;
      const keys = parts.operators().find((candidate) => candidate.id === operator)?.keys ?? [];
      try {
        verifyByAny(keys, Buffer.from(statement), signature);
      } catch (error) {
        failed.count(address, now);
        throw error;
      }
      const token = SESSION_TOKEN_PREFIX + Buffer.from(parts.random(32)).toString("base64url");
      const expires = now.getTime() + SESSION_MILLISECONDS;
      makeRoom(sessions, operator, SESSIONS_PER_OPERATOR, now);
      sessions.set(digestOfToken(token), { operator, expires });
      return { token, expiresAt: new Date(expires) };
    },

    operatorOf(token) {
      const session = sessions.get(digestOfToken(token));
      if (session === undefined || session.expires <= parts.now().getTime()) return undefined;
      return parts.operators().find((candidate) => candidate.id === session.operator)?.id;
    },

    close(token) {
      sessions.delete(digestOfToken(token));
    },
  };
}

/** SHA-256 of a bearer token, hex: what is stored and looked up in place of it. */
export function digestOfToken(token: string): string {
  return hash("sha256", token, "hex");
}

function verifyByAny(keys: readonly string[], message: Uint8Array, signature: string): void {
  for (const publicKey of keys) {
    try {
      verifySshSignature({ publicKey, namespace: LOGIN_NAMESPACE, message, signature });
      return;
    } catch (error) {
      if (!(error instanceof CountersignError)) throw error;
    }
  }
  throw new CountersignError(
    "signature-invalid",
    `the signature is not by a key of this operator over the statement, with namespace ${LOGIN_NAMESPACE}`,
  );
}

/** Drops what has expired, and the oldest of this operator where there are too many. */
function makeRoom(
  open: Map<string, { operator: string; expires: number }>,
  operator: string,
  limit: number,
  now: Date,
): void {
  const own: string[] = [];
  for (const [id, entry] of open) {
    if (entry.expires <= now.getTime()) open.delete(id);
    else if (entry.operator === operator) own.push(id);
  }
  if (own.length >= limit) open.delete(own[0]!);
}

/** Counts by address in windows of one minute. */
function attempts(limit: number): {
  check(address: string, now: Date): void;
  count(address: string, now: Date): void;
} {
  let window = 0;
  let counts = new Map<string, number>();
  const turn = (now: Date): void => {
    const current = Math.floor(now.getTime() / MINUTE_MILLISECONDS);
    if (current !== window) {
      window = current;
      counts = new Map();
    }
  };
  return {
    check(address, now) {
      turn(now);
      if ((counts.get(address) ?? 0) < limit) return;
      const retryAfter = Math.ceil(((window + 1) * MINUTE_MILLISECONDS - now.getTime()) / 1000);
      throw new CountersignError("rate-limited", "too many attempts from this address", {
        members: { retryAfter },
      });
    },
    count(address, now) {
      turn(now);
      counts.set(address, (counts.get(address) ?? 0) + 1);
    },
  };
}
