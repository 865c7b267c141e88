/** The bytes that a ceremony of kind sign is about, decoded: nobody approves a description. */

import { digestOf } from "../audit/digest.ts";
import type { CeremonyStatement } from "../custody/statement.ts";
import { DerError } from "../x509/der.ts";
import { assembleSigned } from "../x509/signed.ts";
import { entryRows } from "./crl.ts";
import { CommandFailure } from "./failure.ts";
import { readInput } from "./files.ts";
import { certificateFields, crlFields, requestFields } from "./inspect.ts";
import type { Field, Output } from "./output.ts";
import { piecesOf } from "./pieces.ts";
import { certificateView, crlView, requestView } from "./views.ts";

/** id-Ed25519: something has to stand where the signature will be. */
const SOME_ALGORITHM = Uint8Array.of(0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70);

/** What only the signed object has, or what says that the signature is missing. */
const notYet: readonly string[] = ["signature", "SHA-256", "verdict"];

/**
 * Shows the files that somebody has of what is to be signed.
 *
 * @param files - DER of TBSCertificates, TBSCertLists or CertificationRequestInfos.
 * @throws CommandFailure `artefact-unknown` for one that the statement does not name.
 */
export function showArtefacts(
  output: Output,
  { artefacts = [] }: CeremonyStatement,
  files: readonly string[],
): void {
  const seen = new Set<string>();
  for (const file of files) {
    const octets = readInput(file);
    const digest = digestOf(octets);
    const place = artefacts.findIndex(({ tbs }) => tbs === digest);
    if (place === -1) {
      throw new CommandFailure(`${file} is none of the artefacts of this ceremony`, {
        code: "artefact-unknown",
        next: "nothing was signed. Its SHA-256 is none of the statement's: ask the proposer for the very bytes",
      });
    }
    seen.add(digest);
    output.line({ text: `artefact ${place + 1}, ${file}`, colour: "bold" });
    output.fields(
      fieldsOf(octets).filter(([label]) => !notYet.includes(label)),
      2,
    );
  }
  const unseen = artefacts.filter(({ tbs }) => !seen.has(tbs)).length;
  if (unseen > 0) {
    output.line({
      text: `the bytes of ${unseen} of ${artefacts.length} artefacts were not looked at: give each with --artefact FILE`,
      colour: "yellow",
    });
  }
}

function fieldsOf(tbs: Uint8Array): readonly Field[] {
  const [piece] = piecesOf(Buffer.from(assembleSigned(tbs, SOME_ALGORITHM, new Uint8Array(64))));
  const { kind = "other", der = tbs } = piece ?? {};
  const now = new Date();
  try {
    if (kind === "certificate") {
      return [["is", "a certificate to be"], ...certificateFields(certificateView(der, now))];
    }
    if (kind === "certificate list") {
      const view = crlView(der, now);
      const rows = entryRows(view.entries).map((row) => row.join("  "));
      return [["is", "a CRL to be"], ...crlFields(view), ["revoked", rows]];
    }
    if (kind === "certification request") {
      return [["is", "a certification request to be"], ...requestFields(requestView(der))];
    }
    return [["is", { text: "nothing that is known here", colour: "red" }]];
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    return [["broken", { text: error.message, colour: "red" }]];
  }
}
