/** Requesters: the policy's entries for machines. */

import { z } from "zod";
import { CountersignError } from "../errors.ts";
import type { Caller } from "../issuance/caller.ts";
import { requesterSchema, type Requester } from "../policy/requester.ts";
import { JSON_TYPE } from "./accept.ts";
import type { HttpParts } from "./parts.ts";
import { route, type Route } from "./route.ts";
import { base64, digest } from "./schemas.ts";

const next = z.strictObject({
  sequence: z.int().min(1),
  previous: digest.nullable().meta({ description: "Digest of the statement before" }),
});

export function requesterRoutes({ requesters }: HttpParts): Route[] {
  return [
    route({
      method: "GET",
      path: "/v1/requesters",
      site: "api",
      access: "operator",
      id: "listRequesters",
      summary: "List the requesters",
      answers: {
        200: {
          description: "All requesters; API keys are stored and shown as digests",
          content: { [JSON_TYPE]: z.strictObject({ requesters: z.array(requesterSchema) }) },
        },
      },
      handle(_, ctx) {
        ctx.body = { requesters: requesters.list() };
      },
    }),
    route({
      method: "GET",
      path: "/v1/requesters/next",
      site: "api",
      access: "operator",
      id: "nextRequesterStatement",
      summary: "What the next requester statement must carry",
      answers: { 200: { description: "Sequence and predecessor", content: { [JSON_TYPE]: next } } },
      handle(_, ctx) {
        ctx.body = requesters.next();
      },
    }),
    route({
      method: "POST",
      path: "/v1/requesters",
      site: "api",
      access: "operator",
      id: "changeRequester",
      summary: "Set or remove a requester by an operator's signed statement",
      body: z.strictObject({
        statement: base64.meta({ description: "Canonical JSON of a requester statement, base64" }),
        signature: z.string().min(1).max(16_384).meta({
          description: "Armored SSH signature, namespace countersign-requester@v1",
        }),
      }),
      answers: {
        200: {
          description: "Changed and recorded; what the next statement must carry",
          content: { [JSON_TYPE]: next },
        },
      },
      async handle({ caller, body }, ctx) {
        await requesters.change(body.statement, body.signature, caller);
        ctx.body = requesters.next();
      },
    }),
    route({
      method: "GET",
      path: "/v1/requesters/:name",
      site: "api",
      access: "caller",
      id: "getRequester",
      summary: "Read a requester",
      description: "For operators, and for the requester itself.",
      params: z.strictObject({ name: z.string().max(128) }),
      answers: { 200: { description: "The requester", content: { [JSON_TYPE]: requesterSchema } } },
      handle({ caller, params }, ctx) {
        ctx.body = visibleRequester(requesters.list(), caller, params.name);
      },
    }),
  ];
}

/** @throws CountersignError `forbidden` unless it is the caller's own or the caller an operator; `requester-unknown`. */
export function visibleRequester(
  all: readonly Requester[],
  caller: Caller,
  name: string,
): Requester {
  if (caller.kind !== "operator" && !(caller.kind === "requester" && caller.id === name)) {
    throw new CountersignError("forbidden", "only operators see other requesters");
  }
  const found = all.find((requester) => requester.name === name);
  if (found === undefined) {
    throw new CountersignError("requester-unknown", "there is no requester of this name");
  }
  return found;
}
