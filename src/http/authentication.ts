/** Who sent a request: a bearer token or the key of a TLS client certificate, looked up, never guessed. */

import type { IncomingMessage } from "node:http";
import { TLSSocket } from "node:tls";
import { CountersignError } from "../errors.ts";
import type { Caller } from "../issuance/caller.ts";
import type { Requesters } from "../issuance/requesters.ts";
import { digestOfToken, SESSION_TOKEN_PREFIX, type Sessions } from "./sessions.ts";

export const API_KEY_PREFIX = "csk_";

/** 32 octets in base64url. */
const secret = /^[A-Za-z0-9_-]{43}$/;

export interface Authentication {
  /**
   * @returns undefined where there are no credentials at all.
   * @throws CountersignError `unauthenticated` where there are and they are not valid.
   */
  callerOf(request: IncomingMessage): Caller | undefined | Promise<Caller | undefined>;
}

/** Of a site that everybody on the way can read: credentials are not even looked at. */
export const noCredentials: Authentication = { callerOf: () => undefined };

export function createAuthentication(
  requesters: Pick<Requesters, "byApiKey" | "byCertificate">,
  sessions: Pick<Sessions, "operatorOf">,
): Authentication {
  return {
    callerOf(request) {
      const token = bearerToken(request);
      if (token === undefined) return callerByCertificate(requesters, request);
      return callerByToken(requesters, sessions, token);
    },
  };
}

/**
 * The token of `Authorization: Bearer`, RFC 6750 §2.1; undefined without the header.
 *
 * @throws CountersignError `unauthenticated` for another scheme.
 */
export function bearerToken(request: IncomingMessage): string | undefined {
  const header = request.headers.authorization;
  if (header === undefined) return undefined;
  const match = /^bearer +([\x21-\x7e]+) *$/i.exec(header);
  if (match === null) {
    throw new CountersignError(
      "unauthenticated",
      "Authorization is not of the form Bearer <token>",
    );
  }
  return match[1]!;
}

function callerByToken(
  requesters: Pick<Requesters, "byApiKey">,
  sessions: Pick<Sessions, "operatorOf">,
  token: string,
): Caller {
  const kind = token.slice(0, API_KEY_PREFIX.length);
  if (secret.test(token.slice(API_KEY_PREFIX.length))) {
    if (kind === API_KEY_PREFIX) {
      // Looked up by its digest: how long that takes says nothing about the key.
      const requester = requesters.byApiKey(digestOfToken(token));
      if (requester !== undefined) {
        return { kind: "requester", id: requester.name, via: "api-key", requester };
      }
    } else if (kind === SESSION_TOKEN_PREFIX) {
      const operator = sessions.operatorOf(token);
      if (operator !== undefined) return { kind: "operator", id: operator, via: "session" };
    }
  }
  throw new CountersignError(
    "unauthenticated",
    kind === SESSION_TOKEN_PREFIX
      ? "this session is unknown or has ended: sign in again"
      : "this API key is not valid",
  );
}

/** What the handshake showed, by connection. Only the bytes are kept: what they are worth may change. */
const certificates = new WeakMap<TLSSocket, Uint8Array | null>();

async function callerByCertificate(
  requesters: Pick<Requesters, "byCertificate">,
  request: IncomingMessage,
): Promise<Caller | undefined> {
  const certificate = clientCertificate(request);
  if (certificate === undefined) return undefined;
  const caller = await requesters.byCertificate(certificate);
  if (caller === undefined) {
    throw new CountersignError(
      "unauthenticated",
      "the TLS client certificate was not issued here, has ended or is revoked",
    );
  }
  return caller;
}

/** DER of the client certificate whose private key the TLS handshake has proved (RFC 8446 §4.4.3). */
function clientCertificate({ socket }: IncomingMessage): Uint8Array | undefined {
  if (!(socket instanceof TLSSocket)) return undefined;
  const known = certificates.get(socket);
  if (known !== undefined) return known ?? undefined;
  // An empty object, without `raw`, where the client sent none.
  const der = socket.getPeerCertificate()?.raw as Uint8Array | undefined;
  certificates.set(socket, der ?? null);
  return der;
}
