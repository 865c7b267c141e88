/** Unlocks: the shares that open one key for one ceremony. CUSTODY.md 4.3 and 6. */

import { z } from "zod";
import { namespaces } from "../custody/statement.ts";
import { JSON_TYPE } from "./accept.ts";
import { SIGNED_BODY_OCTETS } from "./body.ts";
import { missing, missingJson, unlock, unlockJson, unlockState } from "./ceremony-views.ts";
import type { CustodyParts, UnlockView } from "../ceremony/view.ts";
import { route, type Route } from "./route.ts";
import {
  base64,
  noteAnswer,
  operatorId,
  problem,
  sshSignature,
  statementParams,
} from "./schemas.ts";

const counted = z.strictObject({
  given: z.array(operatorId).meta({ description: "Whose shares are counted" }),
  missing,
  state: unlockState,
});

const submission = z.strictObject({
  submission: base64.meta({
    description: "Base64 of the canonical JSON that was signed, octet by octet",
  }),
  signature: sshSignature.meta({
    description: `Armored SSH signature over these octets, namespace ${namespaces.submission}`,
  }),
  share: base64.exactOptional().meta({
    description:
      "The share, as an age file to the unlock's recipient, binary, in base64; absent in a refusal",
  }),
});

/** What is said beside the code when a share is refused. */
const refused = z.looseObject({
  ...problem.shape,
  operator: operatorId.optional().meta({ description: "Whose share it was to be" }),
  given: z
    .array(operatorId)
    .optional()
    .meta({ description: "Whose shares are counted, and stay so" }),
  threshold: z.int().optional(),
  missing: z.int().optional().meta({ description: "How many shares are missing still" }),
});

const refusal = {
  description: "Only this share is refused: those of the others stay counted",
  content: { "application/problem+json": refused },
} as const;

export function unlockRoutes({ unlocks }: Pick<CustodyParts, "unlocks">): Route[] {
  return [
    route({
      method: "POST",
      path: "/v1/unlocks",
      site: "api",
      access: "operator",
      id: "openUnlock",
      summary: "Begin to gather shares for a ceremony",
      body: z.strictObject({
        ceremony: statementParams.shape.id,
        gatherSeconds: z.int().min(600).max(604_800).exactOptional().meta({
          description: "How long shares are gathered; a day when absent",
        }),
      }),
      answers: {
        201: {
          description: "An unlocker waits for shares",
          content: { [JSON_TYPE]: unlock },
          headers: { Location: "The unlock's own address" },
        },
      },
      async handle({ caller, body }, ctx) {
        const view = unlockJson(await unlocks.open(body.ceremony, body.gatherSeconds, caller));
        ctx.status = 201;
        ctx.set("Location", view.links.self);
        ctx.body = view;
      },
    }),

    route({
      method: "GET",
      path: "/v1/unlocks/:id",
      site: "api",
      access: "operator",
      id: "getUnlock",
      summary: "How an unlock stands",
      params: statementParams,
      answers: { 200: { description: "The unlock", content: { [JSON_TYPE]: unlock } } },
      async handle({ params }, ctx) {
        ctx.body = unlockJson(await unlocks.view(params.id));
      },
    }),

    route({
      method: "GET",
      path: "/v1/unlocks/:id/statement",
      site: "api",
      access: "public",
      id: "getUnlockStatement",
      summary: "The statement of an unlock, signed by the keeper",
      description:
        "For whoever knows its id or its digest. It names the recipient that a share is encrypted to: verify it first.",
      params: statementParams,
      answers: { 200: noteAnswer },
      async handle({ params }, ctx) {
        ctx.body = await unlocks.statement(params.id);
        ctx.type = "text/plain; charset=utf-8";
      },
    }),

    route({
      method: "POST",
      path: "/v1/unlocks/:id/submissions",
      site: "api",
      access: "public",
      id: "submitShare",
      summary: "Give a share, or refuse to",
      description:
        "The signature is the credential: no session is needed, and none counts. A share counts as its sender's approval of the ceremony.",
      params: statementParams,
      body: submission,
      bodyOctets: SIGNED_BODY_OCTETS,
      answers: {
        202: {
          description: "Counted and recorded; what is missing now",
          content: { [JSON_TYPE]: counted },
        },
        403: refusal,
        409: refusal,
        422: refusal,
      },
      async handle({ params, body }, ctx) {
        const view = await unlocks.submit(
          params.id,
          { statement: body.submission, signature: body.signature },
          body.share ?? new Uint8Array(),
          ctx.ip,
        );
        ctx.status = 202;
        ctx.body = countedJson(view);
      },
    }),
  ];
}

function countedJson({ people, missing: left, state }: UnlockView): z.input<typeof counted> {
  return {
    given: people.flatMap((person) => (person.state === "given" ? [person.operator] : [])),
    missing: missingJson(left),
    state,
  };
}
