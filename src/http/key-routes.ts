/** Keys under custody: who holds their shares, whether they still do, and how any one operator locks them. */

import { z } from "zod";
import { namespaces } from "../custody/statement.ts";
import { JSON_TYPE } from "./accept.ts";
import { SIGNED_BODY_OCTETS } from "./body.ts";
import type { CustodyParts, InboxItem, SealedKeyView, ShareSetView } from "../ceremony/view.ts";
import { route, type Route } from "./route.ts";
import {
  base64Text,
  digest,
  issuerId,
  keyId,
  keyParams,
  noteAnswer,
  operatorId,
  shareIndex,
  signedBody,
  timestamp,
} from "./schemas.ts";

const OCTETS = "application/octet-stream";

const shareSet = z.strictObject({
  digest: digest.meta({ description: "SHA-256 of its JSON, without a newline" }),
  epoch: z.int(),
  state: z.enum(["pending", "active"]),
  threshold: z.int(),
  shareCount: z.int(),
  custodians: z.array(
    z.strictObject({
      index: shareIndex,
      operator: operatorId,
      role: z.enum(["custodian", "escrow"]),
      confirmedAt: timestamp.exactOptional().meta({ description: "When it was confirmed" }),
      provedAt: timestamp.exactOptional().meta({ description: "When it was last proved" }),
    }),
  ),
});

const key = z.strictObject({
  keyId,
  issuer: issuerId.exactOptional(),
  custody: z
    .enum(["token", "sealed"])
    .meta({ description: "sealed: the key, or the PIN of its token, needs shares" }),
  state: z.string(),
  operations: z
    .array(z.enum(["certificate", "crl"]))
    .meta({ description: "What its grant allows now" }),
  until: timestamp.exactOptional().meta({ description: "End of the window" }),
  ceremony: digest.exactOptional().meta({ description: "The ceremony that it is open for" }),
  shareSets: z
    .array(shareSet)
    .meta({ description: "The one in force, and one that waits for its confirmations" }),
  links: z.strictObject({ self: z.string(), shareSet: z.string() }),
});

const inboxItem = z.strictObject({
  what: z
    .enum(["prove", "approve", "submit", "fetch", "confirm", "drill"])
    .meta({ description: "What is asked of the caller" }),
  enrolment: z.string().exactOptional(),
  ceremony: z.string().exactOptional(),
  unlock: z.string().exactOptional(),
  keyId: keyId.exactOptional(),
  shareSet: digest.exactOptional(),
  index: shareIndex.exactOptional(),
  reason: z.string().exactOptional(),
  until: timestamp.exactOptional(),
});

const whichShareSet = z.strictObject({
  shareSet: digest.exactOptional().meta({ description: "Digest of a share set" }),
});

/** An index in a path. */
const indexInPath = z
  .string()
  .regex(/^(?:[1-9]|[12][0-9]|3[0-2])$/, "expected 1 to 32")
  .transform(Number)
  .meta({ description: "Index of a share, 1 to 32" });

export function keyRoutes({ custody, inbox }: Pick<CustodyParts, "custody" | "inbox">): Route[] {
  const setAnswer = (description: string) => ({
    200: { description, content: { [JSON_TYPE]: shareSet } },
  });
  const done = { 204: { description: "Done and recorded" } };

  return [
    route({
      method: "GET",
      path: "/v1/keys",
      site: "api",
      access: "operator",
      id: "listKeys",
      summary: "List the keys, how they are held and what they may do now",
      answers: {
        200: {
          description: "All keys",
          content: { [JSON_TYPE]: z.strictObject({ keys: z.array(key) }) },
        },
      },
      async handle(_, ctx) {
        ctx.body = { keys: (await custody.keys()).map(keyJson) };
      },
    }),

    route({
      method: "GET",
      path: "/v1/keys/:id",
      site: "api",
      access: "operator",
      id: "getKey",
      summary: "How a key is held, and who has confirmed and proved their shares",
      params: keyParams,
      answers: { 200: { description: "The key", content: { [JSON_TYPE]: key } } },
      async handle({ params }, ctx) {
        ctx.body = keyJson(await custody.key(params.id));
      },
    }),

    route({
      method: "GET",
      path: "/v1/keys/:id/share-set",
      site: "api",
      access: "operator",
      id: "getShareSet",
      summary: "The share set of a key, signed by the keeper",
      description: "The one in force, unless `shareSet` names another.",
      params: keyParams,
      query: whichShareSet,
      answers: { 200: noteAnswer },
      async handle({ params, query }, ctx) {
        ctx.body = await custody.shareSet(params.id, query.shareSet);
        ctx.type = "text/plain; charset=utf-8";
      },
    }),

    route({
      method: "GET",
      path: "/v1/keys/:id/shares/:index",
      site: "api",
      access: "operator",
      id: "getShare",
      summary: "A custodian's own share file",
      description:
        "An age file to that custodian, for that custodian alone, until its confirmation: then it is deleted here.",
      params: z.strictObject({ id: keyId, index: indexInPath }),
      query: whichShareSet,
      answers: { 200: { description: "The age file", content: { [OCTETS]: "binary" } } },
      async handle({ caller, params, query }, ctx) {
        const file = await custody.shareFile(params.id, params.index, query.shareSet, caller);
        ctx.attachment(`share-${params.index}.age`);
        ctx.body = Buffer.from(file);
        ctx.type = OCTETS;
      },
    }),

    route({
      method: "POST",
      path: "/v1/keys/:id/confirmations",
      site: "api",
      access: "public",
      id: "confirmShare",
      summary: "Confirm that a share came and is the right one",
      description:
        "Signed with the share's proof key and with its custodian's own key; the share itself is not sent. With the last confirmation the share set comes into force.",
      params: keyParams,
      body: signedBody("A confirmation", namespaces.confirm),
      bodyOctets: SIGNED_BODY_OCTETS,
      answers: setAnswer("Confirmed and recorded"),
      async handle({ params, body }, ctx) {
        ctx.body = shareSetJson(await custody.confirm(params.id, body, ctx.ip));
      },
    }),

    route({
      method: "POST",
      path: "/v1/keys/:id/drills",
      site: "api",
      access: "operator",
      id: "beginDrill",
      summary: "Ask for a challenge to prove a share with",
      params: keyParams,
      body: z.strictObject({ index: shareIndex }),
      answers: {
        201: {
          description: "32 random octets",
          content: { [JSON_TYPE]: z.strictObject({ challenge: base64Text }) },
        },
      },
      async handle({ caller, params, body }, ctx) {
        const challenge = await custody.drillChallenge(params.id, body.index, caller);
        ctx.status = 201;
        ctx.body = { challenge: Buffer.from(challenge).toString("base64") };
      },
    }),

    route({
      method: "PUT",
      path: "/v1/keys/:id/drills",
      site: "api",
      access: "public",
      id: "proveShare",
      summary: "Prove that a share is still there, without showing it",
      params: keyParams,
      body: signedBody("A drill", namespaces.confirm),
      bodyOctets: SIGNED_BODY_OCTETS,
      answers: setAnswer("Proved and recorded"),
      async handle({ params, body }, ctx) {
        ctx.body = shareSetJson(await custody.drill(params.id, body, ctx.ip));
      },
    }),

    route({
      method: "POST",
      path: "/v1/keys/:id/lock",
      site: "api",
      access: "public",
      id: "lockKey",
      summary: "Lock a key at once",
      description:
        "Any one operator does. Its signer and its unlocker end before anything else happens.",
      params: keyParams,
      body: signedBody("A lock", namespaces.lock),
      bodyOctets: SIGNED_BODY_OCTETS,
      answers: done,
      async handle({ params, body }, ctx) {
        await custody.lock(params.id, body, ctx.ip);
        ctx.status = 204;
      },
    }),

    route({
      method: "POST",
      path: "/v1/panic",
      site: "api",
      access: "public",
      id: "panic",
      summary: "Lock every key at once",
      description:
        "Any one operator does. Nothing opens until a ceremony of kind resume, which needs the roster's quorum.",
      body: signedBody("A panic", namespaces.lock),
      bodyOctets: SIGNED_BODY_OCTETS,
      answers: done,
      async handle({ body }, ctx) {
        await custody.panic(body, ctx.ip);
        ctx.status = 204;
      },
    }),

    route({
      method: "GET",
      path: "/v1/inbox",
      site: "api",
      access: "operator",
      id: "getInbox",
      summary: "What waits for you",
      answers: {
        200: {
          description: "What is asked of the caller, the most urgent first",
          content: { [JSON_TYPE]: z.strictObject({ items: z.array(inboxItem) }) },
        },
      },
      async handle({ caller }, ctx) {
        ctx.body = { items: (await inbox.of(caller)).map(itemJson) };
      },
    }),
  ];
}

function keyJson(view: SealedKeyView): z.input<typeof key> {
  const self = `/v1/keys/${view.keyId}`;
  return {
    keyId: view.keyId,
    ...(view.issuer === undefined ? {} : { issuer: view.issuer }),
    custody: view.custody,
    state: view.state,
    operations: [...view.operations],
    ...(view.until === undefined ? {} : { until: view.until.toISOString() }),
    ...(view.ceremony === undefined ? {} : { ceremony: view.ceremony }),
    shareSets: view.shareSets.map(shareSetJson),
    links: { self, shareSet: `${self}/share-set` },
  };
}

function shareSetJson(view: ShareSetView): z.input<typeof shareSet> {
  return {
    digest: view.digest,
    epoch: view.epoch,
    state: view.state,
    threshold: view.threshold,
    shareCount: view.shareCount,
    custodians: view.custodians.map(({ index, operator, role, confirmedAt, provedAt }) => ({
      index,
      operator,
      role,
      ...(confirmedAt === undefined ? {} : { confirmedAt: confirmedAt.toISOString() }),
      ...(provedAt === undefined ? {} : { provedAt: provedAt.toISOString() }),
    })),
  };
}

function itemJson(item: InboxItem): z.input<typeof inboxItem> {
  const { what, enrolment, ceremony, unlock, keyId: id, shareSet: set, index, reason } = item;
  return {
    what,
    ...(enrolment === undefined ? {} : { enrolment }),
    ...(ceremony === undefined ? {} : { ceremony }),
    ...(unlock === undefined ? {} : { unlock }),
    ...(id === undefined ? {} : { keyId: id }),
    ...(set === undefined ? {} : { shareSet: set }),
    ...(index === undefined ? {} : { index }),
    ...(reason === undefined ? {} : { reason }),
    ...(item.until === undefined ? {} : { until: item.until.toISOString() }),
  };
}
