/** PEM answers. */

import { encodePem } from "../x509/pem.ts";

/** Of CA certificates: the same few arrays come with every certificate that is issued. */
const known = new WeakMap<Uint8Array, string>();

function caCertificatePem(der: Uint8Array): string {
  let pem = known.get(der);
  if (pem === undefined) {
    pem = encodePem("CERTIFICATE", der);
    known.set(der, pem);
  }
  return pem;
}

/** CA certificates one after the other, RFC 8555 §9.1. */
export function caChainPem(chain: readonly Uint8Array[]): string {
  return chain.map(caCertificatePem).join("");
}

export function certificatePem(der: Uint8Array): string {
  return encodePem("CERTIFICATE", der);
}

export function crlPem(der: Uint8Array): string {
  return encodePem("X509 CRL", der);
}
