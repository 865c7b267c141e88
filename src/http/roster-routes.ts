/** The people: the roster with its chain back to the genesis, and those who ask to be in it. CUSTODY.md 8.4. */

import { z } from "zod";
import type { RosterVersion } from "../custody/roster.ts";
import { namespaces, type Signed } from "../custody/statement.ts";
import { JSON_TYPE } from "./accept.ts";
import { SIGNED_BODY_OCTETS } from "./body.ts";
import type { CustodyParts, EnrolmentView } from "../ceremony/view.ts";
import { route, type Route } from "./route.ts";
import { base64Text, digest, operatorId, signedBody, timestamp } from "./schemas.ts";

const OCTETS = "application/octet-stream";

const document = base64Text.meta({ description: "Base64 of its canonical JSON" });

const signature = z.string().meta({ description: "Armored SSH signature" });

const version = z.strictObject({
  document,
  signatures: z
    .array(z.strictObject({ operator: operatorId, signature }))
    .meta({ description: `Of every key that is new in it, namespace ${namespaces.roster}` }),
  ceremony: z
    .strictObject({
      note: z.string().meta({ description: "Its statement, a signed note" }),
      approvals: z.array(z.strictObject({ statement: base64Text, signature })),
    })
    .exactOptional()
    .meta({ description: "What brought it about; the genesis has none" }),
});

const roster = z.strictObject({
  version: z.int(),
  digest: digest.meta({ description: "SHA-256 of the document" }),
  document,
  genesis: digest.meta({
    description: "Digest of version 1, as the keeper's configuration has it",
  }),
  versions: z
    .array(version)
    .meta({ description: "All of them, oldest first: enough to check the chain offline" }),
});

const enrolment = z.strictObject({
  id: z.string(),
  operator: operatorId,
  keys: z.array(z.string()).meta({ description: "SSH public keys" }),
  recipient: z.string().meta({ description: "age recipient" }),
  state: z.enum(["requested", "proved"]),
  createdAt: timestamp,
});

const enrolmentParams = z.strictObject({
  id: z.string().regex(/^[0-9a-f]{32}$/, "expected the id of an enrolment"),
});

export function rosterRoutes({
  roster: book,
  enrolments,
}: Pick<CustodyParts, "roster" | "enrolments">): Route[] {
  return [
    route({
      method: "GET",
      path: "/v1/roster",
      site: "api",
      access: "operator",
      id: "getRoster",
      summary: "The roster in force, and how it came to be",
      answers: { 200: { description: "The roster", content: { [JSON_TYPE]: roster } } },
      handle(_, ctx) {
        const current = book.current();
        ctx.body = {
          version: current.version,
          digest: current.digest,
          document: text(current.document),
          genesis: book.genesis,
          versions: book.chain().map(versionJson),
        };
      },
    }),

    route({
      method: "POST",
      path: "/v1/enrolments",
      site: "api",
      access: "public",
      id: "requestEnrolment",
      summary: "Ask to be enrolled",
      description:
        "Signed with the key that is to be enrolled. It makes nobody an operator: only a ceremony of kind roster does.",
      body: signedBody("An enrolment", namespaces.enrol),
      bodyOctets: SIGNED_BODY_OCTETS,
      answers: {
        201: {
          description: "Kept; prove the recipient next",
          content: { [JSON_TYPE]: z.strictObject({ id: z.string(), challenge: z.string() }) },
          headers: { Location: "Where its challenge is" },
        },
      },
      async handle({ body }, ctx) {
        const id = await enrolments.request(body, ctx.ip);
        const challenge = `/v1/enrolments/${id}/challenge`;
        ctx.status = 201;
        ctx.set("Location", challenge);
        ctx.body = { id, challenge };
      },
    }),

    route({
      method: "GET",
      path: "/v1/enrolments",
      site: "api",
      access: "operator",
      id: "listEnrolments",
      summary: "Who asks to be enrolled",
      answers: {
        200: {
          description: "Those that are not in the roster",
          content: { [JSON_TYPE]: z.strictObject({ enrolments: z.array(enrolment) }) },
        },
      },
      async handle(_, ctx) {
        ctx.body = { enrolments: (await enrolments.list()).map(enrolmentJson) };
      },
    }),

    route({
      method: "GET",
      path: "/v1/enrolments/:id/challenge",
      site: "api",
      access: "public",
      id: "getEnrolmentChallenge",
      summary: "An age file that only the recipient's owner can read",
      params: enrolmentParams,
      answers: { 200: { description: "The age file", content: { [OCTETS]: "binary" } } },
      async handle({ params }, ctx) {
        ctx.attachment("challenge.age");
        ctx.body = Buffer.from(await enrolments.challenge(params.id));
        ctx.type = OCTETS;
      },
    }),

    route({
      method: "POST",
      path: "/v1/enrolments/:id/proof",
      site: "api",
      access: "public",
      id: "proveRecipient",
      summary: "Prove that the challenge was read",
      params: enrolmentParams,
      body: signedBody("A recipient proof", namespaces.enrol),
      bodyOctets: SIGNED_BODY_OCTETS,
      answers: { 200: { description: "Proved", content: { [JSON_TYPE]: enrolment } } },
      async handle({ params, body }, ctx) {
        ctx.body = enrolmentJson(await enrolments.prove(params.id, body, ctx.ip));
      },
    }),
  ];
}

function versionJson({
  document: octets,
  signatures,
  ceremony,
}: RosterVersion): z.input<typeof version> {
  return {
    document: text(octets),
    signatures: signatures.map(({ operator, signature: armored }) => ({
      operator,
      signature: armored,
    })),
    ...(ceremony === undefined
      ? {}
      : { ceremony: { note: ceremony.note, approvals: ceremony.approvals.map(signedJson) } }),
  };
}

function signedJson({ statement, signature: armored }: Signed): {
  statement: string;
  signature: string;
} {
  return { statement: text(statement), signature: armored };
}

function enrolmentJson(view: EnrolmentView): z.input<typeof enrolment> {
  return {
    id: view.id,
    operator: view.operator,
    keys: [...view.keys],
    recipient: view.recipient,
    state: view.state,
    createdAt: view.createdAt.toISOString(),
  };
}

function text(octets: Uint8Array): string {
  return Buffer.from(octets).toString("base64");
}
