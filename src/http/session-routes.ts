/** Signing in: a challenge, a signature, a token. */

import { z } from "zod";
import { requesterName } from "../policy/requester.ts";
import { JSON_TYPE } from "./accept.ts";
import { bearerToken } from "./authentication.ts";
import { newestCheckpoint } from "./log-head.ts";
import type { HttpParts } from "./parts.ts";
import { route, type Route } from "./route.ts";
import { timestamp } from "./schemas.ts";
import { LOGIN_NAMESPACE, type Sessions } from "./sessions.ts";

export function sessionRoutes(parts: HttpParts, sessions: Sessions): Route[] {
  return [
    route({
      method: "POST",
      path: "/v1/sessions",
      site: "api",
      access: "public",
      id: "beginSession",
      summary: "Ask for a statement to sign in with",
      body: z.strictObject({ operator: requesterName.meta({ description: "Id of an operator" }) }),
      answers: {
        201: {
          description: "Sign `statement` as it stands, with this namespace",
          content: {
            [JSON_TYPE]: z.strictObject({
              id: z.string(),
              statement: z.string().meta({ description: "Canonical JSON, without a newline" }),
              namespace: z.literal(LOGIN_NAMESPACE),
              expiresAt: timestamp,
            }),
          },
        },
      },
      async handle({ body }, ctx) {
        const { checkpoint } = await newestCheckpoint(parts.log);
        const { id, statement, expiresAt } = sessions.challenge(body.operator, ctx.ip, {
          size: checkpoint.size,
          root: Buffer.from(checkpoint.root).toString("base64"),
        });
        ctx.status = 201;
        ctx.body = {
          id,
          statement,
          namespace: LOGIN_NAMESPACE,
          expiresAt: expiresAt.toISOString(),
        };
      },
    }),
    route({
      method: "POST",
      path: "/v1/sessions/:id",
      site: "api",
      access: "public",
      id: "openSession",
      summary: "Sign in with the signed statement",
      params: z.strictObject({ id: z.string().max(64) }),
      body: z.strictObject({
        signature: z.string().min(1).max(16_384).meta({
          description: "Armored SSH signature, as ssh-keygen -Y sign writes it",
        }),
      }),
      answers: {
        200: {
          description: "A bearer token for 15 minutes",
          content: { [JSON_TYPE]: z.strictObject({ token: z.string(), expiresAt: timestamp }) },
        },
      },
      handle({ params, body }, ctx) {
        const { token, expiresAt } = sessions.open(params.id, body.signature, ctx.ip);
        ctx.body = { token, expiresAt: expiresAt.toISOString() };
      },
    }),
    route({
      method: "DELETE",
      path: "/v1/sessions/current",
      site: "api",
      access: "operator",
      id: "endSession",
      summary: "Sign out",
      answers: { 204: { description: "The token is worth nothing any more" } },
      handle(_, ctx) {
        // The guard has found the operator by this very token.
        sessions.close(bearerToken(ctx.req) ?? "");
        ctx.status = 204;
      },
    }),
  ];
}
