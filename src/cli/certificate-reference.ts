/** A certificate as the command line names it: serial number, SHA-256, or a file. */

import { existsSync } from "node:fs";
import { digestOf } from "../audit/digest.ts";
import type { ApiClient } from "./api-client.ts";
import { chooseIssuer, issuerPath, type Context } from "./context.ts";
import { CommandFailure, usage } from "./failure.ts";
import { readInput } from "./files.ts";
import { piecesOf } from "./pieces.ts";
import type { Role } from "./settings.ts";
import { certificateView } from "./views.ts";

export interface CertificateReference {
  readonly issuer: string;
  /** Lower-case hex. */
  readonly serialNumber: string;
}

/** The first certificate of a file: the leaf, where it holds a chain. */
export function certificateFrom(file: string): Uint8Array {
  const [certificate] = certificatesFrom(file);
  return certificate!;
}

/** @throws CommandFailure if there is none. */
export function certificatesFrom(file: string): Uint8Array[] {
  const certificates = piecesOf(readInput(file)).flatMap(({ kind, der }) =>
    kind === "certificate" && der !== undefined ? [der] : [],
  );
  if (certificates.length === 0) {
    throw usage(`${file} holds no certificate`, "countersign inspect says what a file is");
  }
  return certificates;
}

/** A serial number as openssl or the service writes it, or undefined for something else. */
function serialNumberFrom(text: string): string | undefined {
  const hex = text.replaceAll(":", "").toLowerCase();
  return /^(?:[0-9a-f]{2}){1,20}$/.test(hex) ? hex : undefined;
}

/**
 * Finds issuer and serial number.
 *
 * @param named - A serial number in hex, `sha256:…`, or a file with the certificate.
 */
export async function referenceTo(
  client: ApiClient,
  named: string,
  issuer: string | undefined,
  as: Role,
): Promise<CertificateReference> {
  if (/^sha256:[0-9a-f]{64}$/.test(named)) return byDigest(client, named, as);
  const serialNumber = serialNumberFrom(named);
  if (serialNumber !== undefined && !existsSync(named)) {
    return { issuer: await chooseIssuer(client, issuer), serialNumber };
  }
  const certificate = certificateFrom(named);
  if (issuer !== undefined) {
    return { issuer, serialNumber: certificateView(certificate, new Date()).serialNumber };
  }
  return byDigest(client, digestOf(certificate), as);
}

async function byDigest(
  client: ApiClient,
  digest: string,
  as: Role,
): Promise<CertificateReference> {
  const answer = await client.request(`/v1/certificates/${digest}`, { as, expected: [307] });
  const match = /^\/v1\/issuers\/([^/]+)\/certificates\/([0-9a-f]+)$/.exec(
    answer.headers.location ?? "",
  );
  if (match === null) throw new CommandFailure("the service does not say where the certificate is");
  return { issuer: decodeURIComponent(match[1]!), serialNumber: match[2]! };
}

export function certificatePath({ issuer, serialNumber }: CertificateReference): string {
  return `${issuerPath(issuer)}/certificates/${serialNumber}`;
}

/** Where a chain goes that was asked for: a file, or standard output. */
export function printsItself({ output }: Context, out: string | undefined): boolean {
  return out === undefined && !output.json;
}
