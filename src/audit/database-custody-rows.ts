/** The rows about ceremonies, unlocks and shares, as an auditor reads them. */

import { createHash } from "node:crypto";
import type {
  ApprovalRow,
  CeremonyRow,
  ObjectRow,
  RosterVersionRow,
  ShareRow,
  ShareSetRow,
  SignedRow,
  SubmissionRow,
  UnlockRow,
} from "./custody-rows.ts";
import {
  literal,
  object,
  pages,
  readPieces,
  textOf,
  texts,
  type SqliteShell,
} from "./database-shell.ts";
import { digestOf } from "./digest.ts";

/** Each table in the order of the log's indexes, but for the last two. */
export interface CustodyRows {
  rosterVersions(): AsyncIterable<RosterVersionRow>;
  ceremonies(): AsyncIterable<CeremonyRow>;
  approvals(): AsyncIterable<ApprovalRow>;
  aborts(): AsyncIterable<SignedRow>;
  unlocks(): AsyncIterable<UnlockRow>;
  submissions(): AsyncIterable<SubmissionRow>;
  shareSets(): AsyncIterable<ShareSetRow>;
  shares(): AsyncIterable<ShareRow>;
  objects(): AsyncIterable<ObjectRow>;
}

/** Columns that come as hex, and are given back as what they are. */
type Hex<Row, Names extends keyof Row> = Omit<Row, Names> & { readonly [Name in Names]: string };

export function custodyRows(shell: SqliteShell): CustodyRows {
  const signedColumns = (about: string) =>
    `${texts(`${about} AS about`, "operator", "signature")}, ${object("statement")}, log_index AS "index"`;
  const signedRow = (row: Hex<SignedRow, "about" | "operator" | "signature" | "statement">) => ({
    index: row.index,
    about: textOf(row.about),
    operator: textOf(row.operator),
    signature: textOf(row.signature),
    statement: Buffer.from(row.statement, "hex"),
  });
  const changing = `log_index AS "index", changed_index AS changedIndex`;

  return {
    async *rosterVersions() {
      const rows = pages<Hex<RosterVersionRow, "digest" | "document" | "evidence">>(
        shell,
        "roster_version",
        `version, ${texts("digest", "evidence")}, ${object("document")}, log_index AS "index"`,
        ["log_index", "version"],
      );
      for await (const { index, version, digest, document, evidence } of rows) {
        yield {
          index,
          version,
          digest: textOf(digest),
          document: Buffer.from(document, "hex"),
          evidence: textOf(evidence),
        };
      }
    },
    async *ceremonies() {
      const rows = pages<Omit<CeremonyRow, "keyId"> & { readonly keyId: string | null }>(
        shell,
        "ceremony",
        `${texts("digest", "id", "kind", "key_id AS keyId", "proposer", "note", "state")},
         not_after AS notAfter, created_at AS createdAt, ${changing}`,
        ["log_index", "digest"],
      );
      for await (const row of rows) {
        yield {
          ...row,
          digest: textOf(row.digest),
          id: textOf(row.id),
          kind: textOf(row.kind),
          keyId: row.keyId === null ? null : textOf(row.keyId),
          proposer: textOf(row.proposer),
          note: textOf(row.note),
          state: textOf(row.state),
        };
      }
    },
    async *approvals() {
      const rows = pages<
        Hex<
          ApprovalRow,
          "about" | "operator" | "signature" | "statement" | "verdict" | "role" | "at"
        > & {
          readonly at: number;
        }
      >(shell, "approval", `${signedColumns("ceremony")}, ${texts("verdict", "role")}, "at"`, [
        "log_index",
        "ceremony",
        "operator",
      ]);
      for await (const row of rows) {
        yield {
          ...signedRow(row),
          verdict: textOf(row.verdict),
          role: textOf(row.role),
          at: row.at,
        };
      }
    },
    async *aborts() {
      const rows = pages<Hex<SignedRow, "about" | "operator" | "signature" | "statement">>(
        shell,
        "abort",
        signedColumns("ceremony"),
        ["log_index", "ceremony", "operator"],
      );
      for await (const row of rows) yield signedRow(row);
    },
    async *unlocks() {
      const rows = pages<UnlockRow>(
        shell,
        "unlock",
        `${texts("digest", "id", "ceremony", "key_id AS keyId", "share_set AS shareSet", "note", "state")},
         expires_at AS expiresAt, ${changing}`,
        ["log_index", "digest"],
      );
      for await (const row of rows) {
        yield {
          ...row,
          digest: textOf(row.digest),
          id: textOf(row.id),
          ceremony: textOf(row.ceremony),
          keyId: textOf(row.keyId),
          shareSet: textOf(row.shareSet),
          note: textOf(row.note),
          state: textOf(row.state),
        };
      }
    },
    async *submissions() {
      const rows = pages<
        Hex<SubmissionRow, "about" | "operator" | "signature" | "statement" | "verdict" | "at"> & {
          readonly at: number;
        }
      >(shell, "submission", `${signedColumns("unlock")}, ${texts("verdict")}, "at"`, [
        "log_index",
        "unlock",
        "operator",
      ]);
      for await (const row of rows) {
        yield { ...signedRow(row), verdict: textOf(row.verdict), at: row.at };
      }
    },
    async *shareSets() {
      const rows = pages<Omit<ShareSetRow, "sealedSha256"> & { readonly sealed: string | null }>(
        shell,
        "share_set",
        `${texts("digest", "key_id AS keyId", "ceremony", "note", "state")}, epoch, ${object("sealed")},
         ${changing}`,
        ["log_index", "digest"],
      );
      for await (const { sealed, ...row } of rows) {
        yield {
          ...row,
          digest: textOf(row.digest),
          keyId: textOf(row.keyId),
          ceremony: textOf(row.ceremony),
          note: textOf(row.note),
          state: textOf(row.state),
          sealedSha256: digestOfHex(sealed),
        };
      }
    },
    async *shares() {
      const rows = pages<Omit<ShareRow, "bytesSha256"> & { readonly file: string | null }>(
        shell,
        "share",
        `${texts("share_set AS shareSet", "operator", "file_sha256 AS fileSha256", "confirmation")},
         idx AS "index", confirmed_index AS confirmedIndex, proved_at AS provedAt, proved_index AS provedIndex,
         ${object("file")}`,
        ["share_set", "idx"],
      );
      for await (const { file, ...row } of rows) {
        yield {
          ...row,
          shareSet: textOf(row.shareSet),
          operator: textOf(row.operator),
          fileSha256: textOf(row.fileSha256),
          confirmation: row.confirmation === null ? null : textOf(row.confirmation),
          bytesSha256: digestOfHex(file),
        };
      }
    },
    async *objects() {
      const rows = pages<{ digest: string; length: number }>(
        shell,
        "object",
        `${texts("digest")}, length(octets) AS length`,
        ["digest"],
      );
      for await (const { digest, length } of rows) {
        const sha256 = createHash("sha256");
        const where = `digest = ${literal(textOf(digest))}`;
        await readPieces(shell, { table: "object", column: "octets", where, length }, (piece) =>
          sha256.update(piece),
        );
        yield { digest: textOf(digest), bytesSha256: `sha256:${sha256.digest("hex")}` };
      }
    },
  };
}

function digestOfHex(hex: string | null): string | null {
  return hex === null ? null : digestOf(Buffer.from(hex, "hex"));
}
