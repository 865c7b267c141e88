/** The policy, and what it would decide. */

import { z } from "zod";
import { CountersignError } from "../errors.ts";
import type { Caller } from "../issuance/caller.ts";
import { JSON_TYPE } from "./accept.ts";
import type { HttpParts } from "./parts.ts";
import { visibleRequester } from "./requester-routes.ts";
import { route, type Route } from "./route.ts";
import { digest, issuerId, profileId } from "./schemas.ts";

const name = z.strictObject({ kind: z.string().min(1).max(32), value: z.string().max(1024) });

const decision = z.strictObject({
  verdict: z.enum(["allow", "refuse"]),
  rule: z.string().meta({ description: "The rule that decided" }),
  code: z.string().exactOptional().meta({ description: "The problem code of a refusal" }),
  name: name.exactOptional().meta({ description: "The name it decided on" }),
  detail: z.string().exactOptional(),
  rules: z
    .array(z.strictObject({ name, rules: z.array(z.string()) }))
    .exactOptional()
    .meta({ description: "For each name, the rules that allow it" }),
});

export function policyRoutes({ policy, requesters }: HttpParts): Route[] {
  return [
    route({
      method: "GET",
      path: "/v1/policy",
      site: "api",
      access: "operator",
      id: "getPolicy",
      summary: "The policy in force",
      answers: {
        200: {
          description: "The document and the digest of its frame",
          content: { [JSON_TYPE]: z.strictObject({ digest, document: z.unknown() }) },
        },
      },
      handle(_, ctx) {
        const { digest: sha256, document } = policy.document();
        ctx.body = { digest: sha256, document };
      },
    }),
    route({
      method: "POST",
      path: "/v1/policy/evaluate",
      site: "api",
      access: "caller",
      id: "evaluatePolicy",
      summary: "What the policy decides, without issuing",
      description: "Requesters ask about themselves, operators about any requester.",
      body: z.strictObject({
        issuer: issuerId,
        profile: profileId,
        requester: z.string().min(1).max(128).exactOptional(),
        names: z.array(name).max(100),
      }),
      answers: { 200: { description: "The decision", content: { [JSON_TYPE]: decision } } },
      handle({ caller, body }, ctx) {
        const requester = body.requester ?? ownName(caller);
        ctx.body = policy.evaluate({
          ...body,
          requester: visibleRequester(requesters.list(), caller, requester).name,
        });
      },
    }),
  ];
}

function ownName(caller: Caller): string {
  if (caller.kind === "requester") return caller.id;
  throw new CountersignError("request-malformed", "body.requester: say which requester asks", {
    members: { errors: [{ path: "body.requester", message: "required" }] },
  });
}
