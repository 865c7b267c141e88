/** What is read of ceremonies, unlocks and shares, on connections that cannot write. */

import type {
  CustodyReads,
  StoredApproval,
  StoredCeremony,
  StoredEnrolment,
  StoredShare,
  StoredShareSet,
  StoredSubmission,
  StoredUnlock,
} from "../ceremony/records.ts";
import { parseEvidence, parseSignedText } from "./custody-batch.ts";
import type { Database, SqlValue } from "./database.ts";

interface CeremonyRow {
  digest: string;
  id: string;
  kind: StoredCeremony["kind"];
  key_id: string | null;
  proposer: string;
  note: string;
  state: StoredCeremony["state"];
  not_after: number;
  created_at: number;
  log_index: number;
  changed_index: number;
}

interface UnlockRow {
  digest: string;
  id: string;
  ceremony: string;
  key_id: string;
  share_set: string;
  note: string;
  state: StoredUnlock["state"];
  expires_at: number;
  log_index: number;
  changed_index: number;
}

interface SignedRow {
  operator: string;
  statement: Uint8Array;
  signature: string;
  log_index: number;
}

interface ShareSetRow {
  digest: string;
  key_id: string;
  epoch: number;
  ceremony: string;
  note: string;
  sealed: Uint8Array | null;
  state: StoredShareSet["state"];
  log_index: number;
  changed_index: number;
}

interface ShareRow {
  share_set: string;
  idx: number;
  operator: string;
  file_sha256: string;
  waiting: number;
  confirmation: string | null;
  confirmed_index: number | null;
  proved_at: number | null;
  proved_index: number | null;
}

interface EnrolmentRow {
  id: string;
  operator: string;
  keys: string;
  recipient: string;
  statement: Uint8Array | null;
  signature: string | null;
  challenge: Uint8Array;
  challenge_sha256: string;
  state: StoredEnrolment["state"];
  created_at: number;
}

/** Anybody may ask to be enrolled. */
const MAX_ENROLMENTS = 1000;

export function createCustodyReads({ reader }: Database): CustodyReads {
  async function unlocks(where: string, parameters: readonly SqlValue[]): Promise<StoredUnlock[]> {
    const rows = await reader.all<UnlockRow>(
      `SELECT * FROM "unlock" WHERE ${where} ORDER BY log_index`,
      parameters,
    );
    return rows.map(unlockOf);
  }

  return {
    async rosterVersions() {
      const rows = await reader.all<{
        version: number;
        digest: string;
        document: Uint8Array;
        evidence: string;
        log_index: number;
      }>("SELECT * FROM roster_version ORDER BY version");
      return rows.map(({ version, digest, document, evidence, log_index: logIndex }) => ({
        version,
        digest,
        document,
        ...parseEvidence(evidence),
        logIndex,
      }));
    },

    async object(digest) {
      const [row] = await reader.all<{ octets: Uint8Array }>(
        "SELECT octets FROM object WHERE digest = ?",
        [digest],
      );
      return row?.octets;
    },

    async ceremony(idOrDigest) {
      const [row] = await reader.all<CeremonyRow>(
        "SELECT * FROM ceremony WHERE digest = ?1 OR id = ?1",
        [idOrDigest],
      );
      return row && ceremonyOf(row);
    },

    async ceremonies({ state, kind, keyId, cursor, limit }) {
      const conditions = ["true"];
      const parameters: SqlValue[] = [];
      const add = (condition: string, value: SqlValue): void => {
        conditions.push(condition);
        parameters.push(value);
      };
      if (state !== undefined) {
        const states = typeof state === "string" ? [state] : state;
        add("state IN (SELECT value FROM json_each(?))", JSON.stringify(states));
      }
      if (kind !== undefined) add("kind = ?", kind);
      if (keyId !== undefined) add("key_id = ?", keyId);
      if (cursor !== undefined) add("log_index < ?", cursor);
      // One more than asked for tells whether there is another page.
      const rows = await reader.all<CeremonyRow>(
        `SELECT * FROM ceremony WHERE ${conditions.join(" AND ")} ORDER BY log_index DESC LIMIT ?`,
        [...parameters, limit + 1],
      );
      const page = rows.slice(0, limit).map(ceremonyOf);
      const last = page.at(-1);
      return rows.length > limit && last !== undefined
        ? { ceremonies: page, next: last.logIndex }
        : { ceremonies: page };
    },

    async approvals(ceremony) {
      const rows = await reader.all<
        SignedRow & { verdict: StoredApproval["verdict"]; role: string; at: number }
      >("SELECT * FROM approval WHERE ceremony = ? ORDER BY log_index", [ceremony]);
      return rows.map((row) => ({
        ceremony,
        verdict: row.verdict,
        role: row.role,
        at: new Date(row.at),
        ...signedOf(row),
      }));
    },

    async aborts(ceremony) {
      const rows = await reader.all<SignedRow>(
        `SELECT * FROM "abort" WHERE ceremony = ? ORDER BY log_index`,
        [ceremony],
      );
      return rows.map((row) => ({ ceremony, ...signedOf(row) }));
    },

    async unlock(idOrDigest) {
      return (await unlocks("digest = ?1 OR id = ?1", [idOrDigest]))[0];
    },

    unlocksOf: (ceremony) => unlocks("ceremony = ?", [ceremony]),

    openUnlocks: () => unlocks("state = 'gathering'", []),

    async submissions(unlock) {
      const rows = await reader.all<
        SignedRow & { verdict: StoredSubmission["verdict"]; at: number }
      >(`SELECT * FROM submission WHERE "unlock" = ? ORDER BY log_index`, [unlock]);
      return rows.map((row) => ({
        unlock,
        verdict: row.verdict,
        at: new Date(row.at),
        ...signedOf(row),
      }));
    },

    async shareSet(digest) {
      const [row] = await reader.all<ShareSetRow>("SELECT * FROM share_set WHERE digest = ?", [
        digest,
      ]);
      return row && shareSetOf(row);
    },

    async shareSets({ keyId, state }) {
      const rows = await reader.all<ShareSetRow>(
        `SELECT * FROM share_set
         WHERE (?1 IS NULL OR key_id = ?1) AND (?2 IS NULL OR state = ?2) ORDER BY log_index DESC`,
        [keyId ?? null, state ?? null],
      );
      return rows.map(shareSetOf);
    },

    async shares(shareSet) {
      const rows = await reader.all<ShareRow>(
        `SELECT share_set, idx, operator, file_sha256, file IS NOT NULL AS waiting, confirmation,
           confirmed_index, proved_at, proved_index
         FROM share WHERE share_set = ? ORDER BY idx`,
        [shareSet],
      );
      return rows.map(shareOf);
    },

    async shareFile(shareSet, index) {
      const [row] = await reader.all<{ file: Uint8Array }>(
        "SELECT file FROM share WHERE share_set = ? AND idx = ? AND file IS NOT NULL",
        [shareSet, index],
      );
      return row?.file;
    },

    async enrolments({ operator, state }) {
      const rows = await reader.all<EnrolmentRow>(
        `SELECT * FROM enrolment
         WHERE (?1 IS NULL OR operator = ?1) AND (?2 IS NULL OR state = ?2)
         ORDER BY created_at DESC, id LIMIT ${MAX_ENROLMENTS}`,
        [operator ?? null, state ?? null],
      );
      return rows.map(enrolmentOf);
    },

    async enrolment(id) {
      const [row] = await reader.all<EnrolmentRow>("SELECT * FROM enrolment WHERE id = ?", [id]);
      return row && enrolmentOf(row);
    },
  };
}

function ceremonyOf(row: CeremonyRow): StoredCeremony {
  return {
    digest: row.digest,
    id: row.id,
    kind: row.kind,
    keyId: row.key_id,
    proposer: row.proposer,
    note: row.note,
    state: row.state,
    notAfter: new Date(row.not_after),
    createdAt: new Date(row.created_at),
    logIndex: row.log_index,
    changedIndex: row.changed_index,
  };
}

function signedOf({ operator, statement, signature, log_index: logIndex }: SignedRow) {
  return { operator, statement, signature, logIndex };
}

function unlockOf(row: UnlockRow): StoredUnlock {
  return {
    digest: row.digest,
    id: row.id,
    ceremony: row.ceremony,
    keyId: row.key_id,
    shareSet: row.share_set,
    note: row.note,
    state: row.state,
    expiresAt: new Date(row.expires_at),
    logIndex: row.log_index,
    changedIndex: row.changed_index,
  };
}

function shareSetOf(row: ShareSetRow): StoredShareSet {
  return {
    digest: row.digest,
    keyId: row.key_id,
    epoch: row.epoch,
    ceremony: row.ceremony,
    note: row.note,
    sealed: row.sealed,
    state: row.state,
    logIndex: row.log_index,
    changedIndex: row.changed_index,
  };
}

function shareOf(row: ShareRow): StoredShare {
  return {
    shareSet: row.share_set,
    index: row.idx,
    operator: row.operator,
    fileSha256: row.file_sha256,
    waiting: row.waiting === 1,
    confirmation: row.confirmation === null ? null : parseSignedText(row.confirmation),
    confirmedIndex: row.confirmed_index,
    provedAt: row.proved_at === null ? null : new Date(row.proved_at),
    provedIndex: row.proved_index,
  };
}

function enrolmentOf(row: EnrolmentRow): StoredEnrolment {
  return {
    id: row.id,
    operator: row.operator,
    keys: JSON.parse(row.keys) as string[],
    recipient: row.recipient,
    statement: row.statement,
    signature: row.signature,
    challenge: row.challenge,
    challengeSha256: row.challenge_sha256,
    state: row.state,
    createdAt: new Date(row.created_at),
  };
}
