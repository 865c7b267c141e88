/** Issuers, their chains and their CRLs. */

import { z } from "zod";
import type { IssuerView } from "../issuance/issuer.ts";
import type { PublishedCrl } from "../revocation/crl-schedule.ts";
import {
  CERTIFICATE_TYPE,
  CRL_TYPE,
  JSON_TYPE,
  negotiate,
  PEM_CHAIN_TYPE,
  PEM_TYPE,
} from "./accept.ts";
import type { HttpParts } from "./parts.ts";
import { caChainPem, certificatePem, crlPem } from "./pem.ts";
import { route, type Route } from "./route.ts";
import { digest, issuerId, issuerParams, timestamp } from "./schemas.ts";

const issuer = z.strictObject({
  id: issuerId,
  keyId: z.string().meta({ description: "SHA-256 of the SubjectPublicKeyInfo, hex" }),
  subject: z.string().meta({ description: "RFC 4514" }),
  profiles: z.array(z.string()),
  state: z.enum(["open", "locked", "held", "unavailable"]),
  detail: z.string().exactOptional(),
  notAfter: timestamp,
  certificate: z.string().meta({ description: "PEM" }),
  crlUrl: z.string().exactOptional(),
  caIssuersUrl: z.string().exactOptional(),
  links: z.strictObject({
    self: z.string(),
    chain: z.string(),
    crl: z.string(),
    certificates: z.string(),
  }),
});

const crl = z.strictObject({
  issuer: issuerId,
  number: z.string().meta({ description: "CRL number, decimal" }),
  thisUpdate: timestamp,
  nextUpdate: timestamp,
  sha256: digest,
  crl: z.string().meta({ description: "PEM" }),
});

export function issuerRoutes(parts: HttpParts): Route[] {
  const { issuers, crls } = parts;
  return [
    route({
      method: "GET",
      path: "/v1/issuers",
      site: "api",
      access: "caller",
      id: "listIssuers",
      summary: "List the issuers",
      answers: {
        200: {
          description: "All issuers",
          content: { [JSON_TYPE]: z.strictObject({ issuers: z.array(issuer) }) },
        },
      },
      handle(_, ctx) {
        ctx.body = { issuers: issuers.list().map(issuerJson) };
      },
    }),
    route({
      method: "GET",
      path: "/v1/issuers/:issuer",
      site: "api",
      access: "caller",
      id: "getIssuer",
      summary: "Read an issuer",
      params: issuerParams,
      answers: {
        200: {
          description: "The issuer",
          content: { [JSON_TYPE]: issuer, [CERTIFICATE_TYPE]: "binary" },
        },
      },
      handle({ params }, ctx) {
        const type = negotiate(ctx, [JSON_TYPE, CERTIFICATE_TYPE]);
        const view = issuers.get(params.issuer);
        ctx.body = type === JSON_TYPE ? issuerJson(view) : Buffer.from(view.certificate);
        ctx.type = type;
      },
    }),
    route({
      method: "GET",
      path: "/v1/issuers/:issuer/chain",
      site: "api",
      access: "public",
      id: "getIssuerChain",
      summary: "The issuer's certificate and those above it, the root last",
      params: issuerParams,
      answers: { 200: { description: "The chain", content: { [PEM_CHAIN_TYPE]: "text" } } },
      handle({ params }, ctx) {
        const type = negotiate(ctx, [PEM_CHAIN_TYPE, PEM_TYPE]);
        const view = issuers.get(params.issuer);
        ctx.body = caChainPem([view.certificate, ...view.chain]);
        ctx.type = type;
      },
    }),
    route({
      method: "GET",
      path: "/v1/issuers/:issuer/crl",
      site: "api",
      access: "public",
      id: "getCrl",
      summary: "The current CRL",
      params: issuerParams,
      answers: {
        200: {
          description: "The CRL",
          content: { [CRL_TYPE]: "binary", [PEM_TYPE]: "text", [JSON_TYPE]: crl },
        },
      },
      handle({ params }, ctx) {
        const type = negotiate(ctx, [CRL_TYPE, PEM_TYPE, JSON_TYPE]);
        const current = crls.current(params.issuer);
        const represent = {
          [CRL_TYPE]: () => Buffer.from(current.der),
          [PEM_TYPE]: () => crlPem(current.der),
          [JSON_TYPE]: () => crlJson(params.issuer, current),
        };
        ctx.body = represent[type]();
        ctx.type = type;
      },
    }),
    route({
      method: "POST",
      path: "/v1/issuers/:issuer/crl",
      site: "api",
      access: "operator",
      id: "publishCrl",
      summary: "Make a new CRL now",
      params: issuerParams,
      answers: { 201: { description: "Made and published", content: { [JSON_TYPE]: crl } } },
      async handle({ caller, params }, ctx) {
        const published = await crls.publish(params.issuer, caller);
        ctx.status = 201;
        ctx.body = crlJson(params.issuer, published);
      },
    }),
  ];
}

export function issuerJson(view: IssuerView): z.input<typeof issuer> {
  const self = `/v1/issuers/${encodeURIComponent(view.id)}`;
  return {
    id: view.id,
    keyId: view.keyId,
    subject: view.subject,
    profiles: [...view.profiles],
    state: view.state,
    ...(view.detail === undefined ? {} : { detail: view.detail }),
    notAfter: view.notAfter.toISOString(),
    certificate: certificatePem(view.certificate),
    crlUrl: view.crlUrl,
    caIssuersUrl: view.caIssuersUrl,
    links: {
      self,
      chain: `${self}/chain`,
      crl: `${self}/crl`,
      certificates: `${self}/certificates`,
    },
  };
}

function crlJson(issuerOfCrl: string, published: PublishedCrl): z.input<typeof crl> {
  return {
    issuer: issuerOfCrl,
    number: published.number,
    thisUpdate: published.thisUpdate.toISOString(),
    nextUpdate: published.nextUpdate.toISOString(),
    sha256: published.sha256,
    crl: crlPem(published.der),
  };
}
