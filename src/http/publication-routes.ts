/** What relying parties fetch over plain http: CRLs and CA certificates. RFC 5280 §4.2.1.13, §4.2.2.1. */

import { createHash } from "node:crypto";
import type { PublishedCrl } from "../revocation/crl-schedule.ts";
import { CERTIFICATE_TYPE, CRL_TYPE, PEM_CHAIN_TYPE, PEM_TYPE } from "./accept.ts";
import type { HttpParts } from "./parts.ts";
import { caChainPem, crlPem } from "./pem.ts";
import { route, type ApiContext, type Route } from "./route.ts";
import { issuerParams } from "./schemas.ts";

/** A revocation is on a CRL within a minute; a cache may hold it back for one more. */
const CRL_SECONDS = 60;

const CA_SECONDS = 3_600;

export function publicationRoutes(parts: HttpParts): Route[] {
  const { issuers, crls, now } = parts;

  const crlRoute = (
    path: string,
    id: string,
    type: string,
    represent: (der: Uint8Array) => string | Buffer,
  ): Route => {
    // A CRL may have megabytes, and everybody fetches the same one.
    const represented = new WeakMap<PublishedCrl, string | Buffer>();
    const representationOf = (crl: PublishedCrl): string | Buffer => {
      const known = represented.get(crl);
      if (known !== undefined) return known;
      const made = represent(crl.der);
      represented.set(crl, made);
      return made;
    };
    return route({
      method: "GET",
      path,
      site: "public",
      access: "public",
      id,
      summary: "The current CRL of an issuer",
      params: issuerParams,
      answers: {
        200: {
          description: "The CRL",
          content: { [type]: type === CRL_TYPE ? "binary" : "text" },
          headers: { ETag: "Of the CRL's digest", "Last-Modified": "Its thisUpdate" },
        },
        304: { description: "It is still the one you have" },
      },
      handle({ params }, ctx) {
        const current = crls.current(params.issuer);
        const left = Math.floor((current.nextUpdate.getTime() - now().getTime()) / 1000);
        const maxAge = Math.max(0, Math.min(CRL_SECONDS, left - 1));
        ctx.set("Cache-Control", `public, max-age=${maxAge}, must-revalidate`);
        ctx.set("Last-Modified", current.thisUpdate.toUTCString());
        answer(ctx, type, current.sha256, () => representationOf(current));
      },
    });
  };

  const caRoute = (
    path: string,
    id: string,
    type: string,
    summary: string,
    represent: (view: { certificate: Uint8Array; chain: readonly Uint8Array[] }) => string | Buffer,
  ): Route =>
    route({
      method: "GET",
      path,
      site: "public",
      access: "public",
      id,
      summary,
      params: issuerParams,
      answers: {
        200: {
          description: "The certificate",
          content: { [type]: type === CERTIFICATE_TYPE ? "binary" : "text" },
          headers: { ETag: "Of the bytes" },
        },
        304: { description: "It is still the one you have" },
      },
      handle({ params }, ctx) {
        const bytes = represent(issuers.get(params.issuer));
        const sha256 = createHash("sha256").update(bytes).digest("hex");
        ctx.set("Cache-Control", `public, max-age=${CA_SECONDS}`);
        answer(ctx, type, sha256, () => bytes);
      },
    });

  return [
    crlRoute("/crl/:issuer.crl", "downloadCrl", CRL_TYPE, (der) => Buffer.from(der)),
    crlRoute("/crl/:issuer.pem", "downloadCrlPem", PEM_TYPE, crlPem),
    caRoute(
      "/ca/:issuer.cer",
      "downloadCaCertificate",
      CERTIFICATE_TYPE,
      "The certificate of an issuer",
      (view) => Buffer.from(view.certificate),
    ),
    caRoute(
      "/ca/:issuer.pem",
      "downloadCaChain",
      PEM_CHAIN_TYPE,
      "The certificate of an issuer and those above it, the root last",
      (view) => caChainPem([view.certificate, ...view.chain]),
    ),
  ];
}

/** With its validators; without the bytes where the client has them: RFC 9110 §13.2. */
function answer(
  ctx: ApiContext,
  type: string,
  tag: string,
  represent: () => string | Buffer,
): void {
  ctx.status = 200;
  ctx.set("ETag", `"${tag}"`);
  if (ctx.fresh) {
    ctx.status = 304;
    return;
  }
  ctx.body = represent();
  ctx.type = type;
}
