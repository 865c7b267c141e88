/** Ceremonies: what is to be done, and who agrees. CUSTODY.md 6. */

import { z } from "zod";
import { ceremonyKinds, namespaces } from "../custody/statement.ts";
import { JSON_TYPE } from "./accept.ts";
import { PROPOSAL_OCTETS, SIGNED_BODY_OCTETS } from "./body.ts";
import {
  ceremony,
  ceremonyJson,
  ceremonyProgress,
  ceremonyState,
  progressJson,
} from "./ceremony-views.ts";
import type { CustodyParts } from "../ceremony/view.ts";
import { route, type Route } from "./route.ts";
import {
  keyId,
  largeBase64,
  noteAnswer,
  operatorId,
  pageQuery,
  signedBody,
  sshSignature,
  statementParams,
  timestamp,
} from "./schemas.ts";

const PAGE = 50;

const labels = z.array(z.string().min(1).max(128)).min(1).max(256);

const proposal = z.strictObject({
  kind: z.enum(ceremonyKinds),
  keyId: keyId.exactOptional(),
  reason: z.string().min(1).max(1024).meta({ description: "What for, for those who approve it" }),
  notAfter: timestamp
    .transform((text) => new Date(text))
    .exactOptional()
    .meta({ description: "Until when people may agree; seven days from now when absent" }),
  artefacts: z
    .array(
      z.strictObject({
        tbs: largeBase64.meta({ description: "DER of what is to be signed" }),
        lint: largeBase64.exactOptional().meta({ description: "Its lint report" }),
      }),
    )
    .min(1)
    .max(256)
    .exactOptional()
    .meta({ description: "For kind sign: all of them are signed, or none" }),
  window: z
    .strictObject({
      operations: z
        .array(
          z.strictObject({
            operation: z.enum(["certificate", "crl"]),
            profile: z.string().min(1).max(128).exactOptional(),
            max: z.int().min(1),
          }),
        )
        .min(1)
        .max(64),
      requesters: labels.exactOptional(),
      labels: labels.exactOptional(),
      notBefore: timestamp,
      notAfter: timestamp,
      idleSeconds: z.int().min(1),
    })
    .exactOptional()
    .meta({ description: "For kind window: what, how often and until when" }),
  plan: largeBase64.exactOptional().meta({
    description:
      "For generate, reshare, roster, resume and the like: the document, base64 of its canonical JSON",
  }),
  signatures: z
    .array(z.strictObject({ operator: operatorId, signature: sshSignature }))
    .max(256)
    .exactOptional()
    .meta({ description: `Of every new key in a roster, namespace ${namespaces.roster}` }),
});

export function ceremonyRoutes({ ceremonies }: Pick<CustodyParts, "ceremonies">): Route[] {
  const progress = {
    200: {
      description: "Counted and recorded; what is missing now",
      content: { [JSON_TYPE]: ceremonyProgress },
    },
  };

  return [
    route({
      method: "POST",
      path: "/v1/ceremonies",
      site: "api",
      access: "operator",
      id: "proposeCeremony",
      summary: "Propose a ceremony",
      description:
        "The keeper makes and signs its statement, which is logged before anybody sees it. A proposal counts toward nothing: approve the statement with a signature, as everybody does.",
      body: proposal,
      bodyOctets: PROPOSAL_OCTETS,
      answers: {
        201: {
          description: "Proposed and recorded",
          content: { [JSON_TYPE]: ceremony },
          headers: { Location: "The ceremony's own address" },
        },
      },
      async handle({ caller, body }, ctx) {
        const view = ceremonyJson(await ceremonies.propose(body, caller));
        ctx.status = 201;
        ctx.set("Location", view.links.self);
        ctx.body = view;
      },
    }),

    route({
      method: "GET",
      path: "/v1/ceremonies",
      site: "api",
      access: "operator",
      id: "listCeremonies",
      summary: "List ceremonies, newest first",
      query: z.strictObject({
        state: ceremonyState.exactOptional(),
        kind: z.enum(ceremonyKinds).exactOptional(),
        keyId: keyId.exactOptional(),
        ...pageQuery,
      }),
      answers: {
        200: {
          description: "One page",
          content: {
            [JSON_TYPE]: z.strictObject({
              ceremonies: z.array(ceremony),
              next: z.string().exactOptional().meta({ description: "Cursor of the next page" }),
            }),
          },
        },
      },
      async handle({ query: { limit = PAGE, ...filter } }, ctx) {
        const page = await ceremonies.list({ ...filter, limit });
        ctx.body = {
          ceremonies: page.ceremonies.map(ceremonyJson),
          ...(page.next === undefined ? {} : { next: String(page.next) }),
        };
      },
    }),

    route({
      method: "GET",
      path: "/v1/ceremonies/:id",
      site: "api",
      access: "operator",
      id: "getCeremony",
      summary: "How a ceremony stands",
      params: statementParams,
      answers: { 200: { description: "The ceremony", content: { [JSON_TYPE]: ceremony } } },
      async handle({ params }, ctx) {
        ctx.body = ceremonyJson(await ceremonies.view(params.id));
      },
    }),

    route({
      method: "GET",
      path: "/v1/ceremonies/:id/statement",
      site: "api",
      access: "public",
      id: "getCeremonyStatement",
      summary: "The statement of a ceremony, signed by the keeper",
      description: "For whoever knows its id or its digest: verify it before you sign anything.",
      params: statementParams,
      answers: { 200: noteAnswer },
      async handle({ params }, ctx) {
        ctx.body = await ceremonies.statement(params.id);
        ctx.type = "text/plain; charset=utf-8";
      },
    }),

    route({
      method: "GET",
      path: "/v1/ceremonies/:id/plan",
      site: "api",
      access: "operator",
      id: "getCeremonyPlan",
      summary: "The document whose digest the statement carries",
      description: "Its octets as they were proposed: their SHA-256 is `plan` of the statement.",
      params: statementParams,
      answers: {
        200: { description: "Canonical JSON", content: { [JSON_TYPE]: z.looseObject({}) } },
      },
      async handle({ params }, ctx) {
        ctx.body = Buffer.from(await ceremonies.plan(params.id));
        ctx.type = JSON_TYPE;
      },
    }),

    route({
      method: "POST",
      path: "/v1/ceremonies/:id/approvals",
      site: "api",
      access: "public",
      id: "approveCeremony",
      summary: "Approve or reject a ceremony",
      description: "The signature is the credential: no session is needed, and none counts.",
      params: statementParams,
      body: signedBody("An approval", namespaces.approval),
      bodyOctets: SIGNED_BODY_OCTETS,
      answers: progress,
      async handle({ params, body }, ctx) {
        ctx.body = progressJson(await ceremonies.approve(params.id, body, ctx.ip));
      },
    }),

    route({
      method: "POST",
      path: "/v1/ceremonies/:id/abort",
      site: "api",
      access: "public",
      id: "abortCeremony",
      summary: "Ask for the end of a ceremony",
      description: "Its proposer ends it alone, or two other operators together.",
      params: statementParams,
      body: signedBody("An abort", namespaces.abort),
      bodyOctets: SIGNED_BODY_OCTETS,
      answers: progress,
      async handle({ params, body }, ctx) {
        ctx.body = progressJson(await ceremonies.abort(params.id, body, ctx.ip));
      },
    }),
  ];
}
