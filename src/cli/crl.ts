/** `countersign crl`: the current CRL of an issuer, or, as an operator, a new one. */

import { decodePem } from "../x509/pem.ts";
import { issuerPath, type Context } from "./context.ts";
import { CommandFailure, ExitCode } from "./failure.ts";
import { checkWritable, writeResultFile } from "./files.ts";
import { isSignedBy } from "./file-lint.ts";
import { piecesOf } from "./pieces.ts";
import { parseCertificate } from "../x509/certificate.ts";
import { crlView, type RevokedView } from "./views.ts";

export interface CrlOptions {
  readonly out?: string;
  readonly pem?: boolean;
  readonly force?: boolean;
  readonly publish?: boolean;
}

interface CrlAnswer {
  readonly issuer: string;
  readonly number: string;
  readonly thisUpdate: string;
  readonly nextUpdate: string;
  readonly sha256: string;
  readonly crl: string;
}

/** Shown to people; programs get all. */
export const ENTRIES_SHOWN = 20;

export async function crl(
  { output, connect }: Context,
  issuer: string,
  options: CrlOptions,
): Promise<ExitCode> {
  if (options.out !== undefined) checkWritable(options.out, options.force);
  const client = await connect();
  const path = `${issuerPath(issuer)}/crl`;
  const answer = options.publish
    ? await client.json<CrlAnswer>(path, { method: "POST", as: client.requireRole("operator") })
    : await client.json<CrlAnswer>(path, { as: "nobody" });
  const der = decodePem(answer.crl, "X509 CRL");
  const view = crlView(der, new Date());
  const chain = await client.request(`${issuerPath(issuer)}/chain`, { as: "nobody" });
  const certificate = piecesOf(chain.body)[0]?.der;
  if (
    certificate === undefined ||
    !isSignedBy(der, parseCertificate(certificate).tbs.subjectPublicKeyInfo)
  ) {
    throw new CommandFailure(`the CRL is not signed by the key of ${issuer}`, {
      code: "signature-invalid",
    });
  }
  if (options.out !== undefined) {
    writeResultFile(options.out, options.pem ? answer.crl : der, options.force);
  }
  output.result({
    issuer,
    number: answer.number,
    thisUpdate: view.thisUpdate,
    nextUpdate: view.nextUpdate,
    state: view.state,
    sha256: view.sha256,
    entryCount: view.entryCount,
    entries: view.entries,
    ...(options.out === undefined ? { crl: answer.crl } : { file: options.out }),
  });
  if (options.out === undefined && options.pem) {
    if (!output.json) output.raw(answer.crl);
    return ExitCode.done;
  }
  output.fields([
    ["issuer", `${issuer} (${view.issuer})`],
    ["number", answer.number],
    ["thisUpdate", view.thisUpdate],
    [
      "nextUpdate",
      view.state === "current"
        ? view.nextUpdate
        : { text: `${view.nextUpdate} (${view.state})`, colour: "red" },
    ],
    ["SHA-256", view.sha256],
    ["entries", String(view.entryCount)],
    ["file", options.out],
  ]);
  if (view.entryCount > 0) {
    output.line();
    output.table(["SERIAL NUMBER", "REVOKED", "REASON"], entryRows(view.entries));
    if (view.entryCount > ENTRIES_SHOWN) {
      output.line(`and ${view.entryCount - ENTRIES_SHOWN} more; --json has them all`);
    }
  }
  return ExitCode.done;
}

export function entryRows(entries: readonly RevokedView[]): string[][] {
  return entries
    .slice(0, ENTRIES_SHOWN)
    .map(({ serialNumber, revocationDate, reason }) => [serialNumber, revocationDate, reason]);
}
