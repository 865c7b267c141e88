/**
 * The part of a batch that is about ceremonies, unlocks and shares. Unlike certificates they are few, and one item may
 * build on the one before it in the same batch; so they are operations that SQLite takes one after the other: a JSON
 * array of what it is, the item's place in the batch, where its octets stand, and its values.
 */

import type { CustodyItem } from "../ceremony/journal.ts";
import { digestOf } from "../audit/digest.ts";
import { CountersignError, type ErrorCode } from "../errors.ts";
import type { JournalItem } from "../issuance/journal.ts";

type Signed = Extract<CustodyItem, { kind: "share-confirmed" }>["confirmation"];
type Evidence = Extract<CustodyItem, { kind: "roster" }>["row"]["evidence"];
type Put = (octets: Uint8Array | null) => [number, number | null];

const view = `
  CREATE TEMP VIEW custody_operation AS
  SELECT NULL AS kind, NULL AS idx, NULL AS octets, NULL AS v`;

/** Hands the operations of a batch on, in their order. */
const handOver = `
  CREATE TEMP TRIGGER journal_batch_custody INSTEAD OF INSERT ON journal_batch
  WHEN NEW.custody IS NOT NULL
  BEGIN
    INSERT INTO custody_operation (kind, idx, octets, v)
    SELECT e.value ->> 0, NEW.first + (e.value ->> 1),
      substr(NEW.octets, e.value ->> 2, e.value ->> 3), e.value
    FROM json_each(NEW.custody) e;
  END`;

/** A value of an operation, from 0. */
const v = (place: number) => `(NEW.v ->> ${place + 4})`;

/** Refuses with a code unless `condition` holds. */
const demand = (code: ErrorCode, condition: string) =>
  `SELECT RAISE(ABORT, '${code}') WHERE (${condition}) IS NOT TRUE;`;

const ceremonyEnds = `('published', 'locked', 'applied', 'rejected', 'aborted', 'expired', 'failed')`;

const ceremonyIs = (ceremony: string, states: string) => `
  ${demand("ceremony-unknown", `EXISTS (SELECT 1 FROM ceremony WHERE digest = ${ceremony})`)}
  ${demand(
    "ceremony-closed",
    `EXISTS (SELECT 1 FROM ceremony WHERE digest = ${ceremony} AND state ${states})`,
  )}`;

const unlockGathers = (unlock: string) => `
  ${demand("unlock-unknown", `EXISTS (SELECT 1 FROM "unlock" WHERE digest = ${unlock})`)}
  ${demand(
    "unlock-closed",
    `EXISTS (SELECT 1 FROM "unlock" WHERE digest = ${unlock} AND state = 'gathering')`,
  )}`;

const setIs = (shareSet: string, state: string) =>
  demand(
    "share-set-unknown",
    `EXISTS (SELECT 1 FROM share_set WHERE digest = ${shareSet} AND state = '${state}')`,
  );

const ceremonyMoves = (ceremony: string, state: string) => `
  ${ceremonyIs(ceremony, `NOT IN ${ceremonyEnds}`)}
  UPDATE ceremony SET state = ${state}, changed_index = NEW.idx WHERE digest = ${ceremony};`;

const ceremonyOfSet = `(SELECT ceremony FROM share_set WHERE digest = ${v(0)})`;

/** What is done for an operation; the tables' own triggers have the last word. */
const operations: Readonly<Record<string, string>> = {
  object: `
    INSERT INTO object (digest, octets) SELECT ${v(0)}, NEW.octets
    WHERE NOT EXISTS (SELECT 1 FROM object WHERE digest = ${v(0)});`,

  roster: `
    ${demand(
      "roster-invalid",
      `${v(0)} = (SELECT coalesce(max(version), 0) + 1 FROM roster_version)`,
    )}
    INSERT INTO roster_version (version, digest, document, evidence, log_index)
    VALUES (${v(0)}, ${v(1)}, NEW.octets, ${v(2)}, NEW.idx);`,

  ceremony: `
    INSERT INTO ceremony
      (digest, id, kind, key_id, proposer, note, state, not_after, created_at, log_index, changed_index)
    VALUES (${v(0)}, ${v(1)}, ${v(2)}, ${v(3)}, ${v(4)}, ${v(5)}, 'gathering', ${v(6)}, ${v(7)},
      NEW.idx, NEW.idx);`,

  "ceremony-state": ceremonyMoves(v(0), v(1)),

  approval: `
    ${ceremonyIs(v(0), "IN ('gathering', 'unlocking')")}
    ${demand(
      "approval-repeated",
      `NOT EXISTS (SELECT 1 FROM approval WHERE ceremony = ${v(0)} AND operator = ${v(1)})`,
    )}
    INSERT INTO approval (ceremony, operator, verdict, role, statement, signature, at, log_index)
    VALUES (${v(0)}, ${v(1)}, ${v(2)}, ${v(3)}, NEW.octets, ${v(4)}, ${v(5)}, NEW.idx);`,

  abort: `
    ${ceremonyIs(v(0), `NOT IN ${ceremonyEnds}`)}
    ${demand(
      "approval-repeated",
      `NOT EXISTS (SELECT 1 FROM "abort" WHERE ceremony = ${v(0)} AND operator = ${v(1)})`,
    )}
    INSERT INTO "abort" (ceremony, operator, statement, signature, log_index)
    VALUES (${v(0)}, ${v(1)}, NEW.octets, ${v(2)}, NEW.idx);`,

  unlock: `
    ${ceremonyIs(v(2), "= 'gathering'")}
    ${setIs(v(4), "active")}
    ${demand(
      "unlock-busy",
      `NOT EXISTS (SELECT 1 FROM "unlock" WHERE ceremony = ${v(2)} AND state = 'gathering')`,
    )}
    INSERT INTO "unlock"
      (digest, id, ceremony, key_id, share_set, note, state, expires_at, log_index, changed_index)
    VALUES (${v(0)}, ${v(1)}, ${v(2)}, ${v(3)}, ${v(4)}, ${v(5)}, 'gathering', ${v(6)}, NEW.idx, NEW.idx);`,

  "unlock-state": `
    ${unlockGathers(v(0))}
    UPDATE "unlock" SET state = ${v(1)}, changed_index = NEW.idx WHERE digest = ${v(0)};`,

  submission: `
    ${unlockGathers(v(0))}
    ${demand(
      "share-repeated",
      `NOT EXISTS (SELECT 1 FROM submission WHERE "unlock" = ${v(0)} AND operator = ${v(1)})`,
    )}
    INSERT INTO submission ("unlock", operator, verdict, statement, signature, at, log_index)
    VALUES (${v(0)}, ${v(1)}, ${v(2)}, NEW.octets, ${v(3)}, ${v(4)}, NEW.idx);`,

  "share-set": `
    INSERT INTO share_set
      (digest, key_id, epoch, ceremony, note, sealed, state, log_index, changed_index)
    VALUES (${v(0)}, ${v(1)}, ${v(2)}, ${v(3)}, ${v(4)}, NEW.octets, 'pending', NEW.idx, NEW.idx);
    ${ceremonyMoves(v(3), v(5))}`,

  share: `
    INSERT INTO share (share_set, idx, operator, file, file_sha256)
    VALUES (${v(0)}, ${v(1)}, ${v(2)}, NEW.octets, ${v(3)});`,

  "share-confirmed": `
    ${setIs(v(0), "pending")}
    ${demand(
      "share-set-unknown",
      `EXISTS (SELECT 1 FROM share WHERE share_set = ${v(0)} AND idx = ${v(1)})`,
    )}
    ${demand(
      "confirmation-invalid",
      `EXISTS (SELECT 1 FROM share
       WHERE share_set = ${v(0)} AND idx = ${v(1)} AND confirmed_index IS NULL)`,
    )}
    UPDATE share SET file = NULL, confirmation = ${v(2)}, confirmed_index = NEW.idx
    WHERE share_set = ${v(0)} AND idx = ${v(1)};`,

  "share-proved": `
    ${setIs(v(0), "active")}
    ${demand(
      "share-set-unknown",
      `EXISTS (SELECT 1 FROM share WHERE share_set = ${v(0)} AND idx = ${v(1)})`,
    )}
    UPDATE share SET proved_at = ${v(2)}, proved_index = NEW.idx
    WHERE share_set = ${v(0)} AND idx = ${v(1)};`,

  "share-set-activated": `
    ${setIs(v(0), "pending")}
    ${demand(
      "confirmation-invalid",
      `NOT EXISTS (SELECT 1 FROM share WHERE share_set = ${v(0)} AND confirmed_index IS NULL)`,
    )}
    ${demand(
      "ceremony-refused",
      `NOT EXISTS (SELECT 1 FROM share_set o, share_set n
       WHERE n.digest = ${v(0)} AND o.key_id = n.key_id AND o.state IN ('active', 'retired')
         AND o.epoch >= n.epoch)`,
    )}
    UPDATE share_set SET state = 'retired', sealed = NULL, changed_index = NEW.idx
    WHERE state = 'active' AND key_id = (SELECT key_id FROM share_set WHERE digest = ${v(0)});
    UPDATE share SET file = NULL WHERE file IS NOT NULL
      AND share_set IN (SELECT digest FROM share_set WHERE state = 'retired');
    UPDATE share_set SET state = 'active', changed_index = NEW.idx WHERE digest = ${v(0)};
    ${ceremonyMoves(ceremonyOfSet, v(1))}`,

  "share-set-dropped": `
    ${setIs(v(0), "pending")}
    UPDATE share_set SET state = 'dropped', sealed = NULL, changed_index = NEW.idx
    WHERE digest = ${v(0)};
    UPDATE share SET file = NULL WHERE file IS NOT NULL AND share_set = ${v(0)};
    ${ceremonyMoves(ceremonyOfSet, v(1))}`,
};

/** The view and its triggers, to be made once on a connection, after `journal_batch`. */
export const custodyStatements: readonly string[] = [
  "DROP VIEW IF EXISTS temp.custody_operation",
  view,
  ...Object.entries(operations).map(
    ([kind, statements]) => `
      CREATE TEMP TRIGGER "custody ${kind}" INSTEAD OF INSERT ON custody_operation
      WHEN NEW.kind = '${kind}'
      BEGIN ${statements}
      END`,
  ),
  handOver,
];

export function isCustodyItem(item: JournalItem | CustodyItem): item is CustodyItem {
  return Object.hasOwn(operations, item.kind);
}

/** The operations of one item; `put` stores octets and says where. */
export function custodyOperations(item: CustodyItem, offset: number, put: Put): unknown[] {
  const operation = (kind: string, octets: Uint8Array | null, ...values: unknown[]) => [
    kind,
    offset,
    ...put(octets),
    ...values,
  ];
  switch (item.kind) {
    case "roster": {
      const { version, digest, document, evidence } = item.row;
      return [operation("roster", document, version, digest, evidenceText(evidence))];
    }
    case "ceremony": {
      const { row } = item;
      return [
        ...item.objects.map((octets) => operation("object", octets, digestOf(octets))),
        operation(
          "ceremony",
          null,
          row.digest,
          row.id,
          row.kind,
          row.keyId,
          row.proposer,
          row.note,
          row.notAfter.getTime(),
          row.createdAt.getTime(),
        ),
      ];
    }
    case "ceremony-state":
      return [
        ...(item.objects ?? []).map((octets) => operation("object", octets, digestOf(octets))),
        operation("ceremony-state", null, item.ceremony, item.state),
      ];
    case "approval": {
      const { ceremony, operator, verdict, role, statement, signature, at } = item.row;
      return [
        operation(
          "approval",
          statement,
          ceremony,
          operator,
          verdict,
          role,
          signature,
          at.getTime(),
        ),
      ];
    }
    case "abort": {
      const { ceremony, operator, statement, signature } = item.row;
      return [operation("abort", statement, ceremony, operator, signature)];
    }
    case "unlock": {
      const { digest, id, ceremony, keyId, shareSet, note, expiresAt } = item.row;
      const expires = expiresAt.getTime();
      return [operation("unlock", null, digest, id, ceremony, keyId, shareSet, note, expires)];
    }
    case "unlock-state":
      return [operation("unlock-state", null, item.unlock, item.state)];
    case "submission": {
      const { unlock, operator, verdict, statement, signature, at } = item.row;
      return [
        operation("submission", statement, unlock, operator, verdict, signature, at.getTime()),
      ];
    }
    case "share-set": {
      const { digest, keyId, epoch, ceremony, note, sealed } = item.row;
      return [
        operation("share-set", sealed, digest, keyId, epoch, ceremony, note, item.ceremonyState),
        ...item.shares.map(({ index, operator, file, fileSha256 }) =>
          operation("share", file, digest, index, operator, fileSha256),
        ),
      ];
    }
    case "share-confirmed": {
      const { shareSet, index, confirmation } = item;
      return [operation("share-confirmed", null, shareSet, index, signedText(confirmation))];
    }
    case "share-proved":
      return [operation("share-proved", null, item.shareSet, item.index, item.at.getTime())];
    case "share-set-activated":
    case "share-set-dropped":
      return [operation(item.kind, null, item.shareSet, item.ceremonyState)];
  }
}

/** The octets of an item beside its leaf, about. */
export function custodySize(item: CustodyItem): number {
  switch (item.kind) {
    case "roster":
      return 2 * item.row.document.length;
    case "ceremony":
      return item.objects.reduce((sum, { length }) => sum + length, item.row.note.length);
    case "approval":
    case "abort":
    case "submission":
      return item.row.statement.length;
    case "unlock":
      return item.row.note.length;
    case "share-set":
      return item.shares.reduce(
        (sum, { file }) => sum + file.length,
        item.row.note.length + item.row.sealed.length,
      );
    case "ceremony-state":
      return (item.objects ?? []).reduce((sum, { length }) => sum + length, 0);
    case "unlock-state":
    case "share-confirmed":
    case "share-proved":
    case "share-set-activated":
    case "share-set-dropped":
      return 0;
  }
}

/** Whether the item deletes what nobody may read any more: it must not stay in the file or the WAL either. */
export function erases(item: { readonly kind: string }): boolean {
  return (
    item.kind === "share-confirmed" ||
    item.kind === "share-set-activated" ||
    item.kind === "share-set-dropped"
  );
}

const details = {
  "ceremony-unknown": "there is no such ceremony",
  "ceremony-closed": "the ceremony is past this",
  "ceremony-refused": "the ceremony cannot take this step",
  "approval-repeated": "this operator has spoken already, and what was said stands",
  "unlock-unknown": "there is no such unlock",
  "unlock-closed": "the unlock has ended",
  "unlock-busy": "another unlock of the ceremony gathers shares",
  "share-repeated": "this custodian has answered the unlock already",
  "share-set-unknown": "no share set in that state has such a share",
  "confirmation-invalid":
    "each share of a pending set is confirmed once, and all before it is activated",
  "roster-invalid": "the roster does not follow the last one",
} as const satisfies Partial<Record<ErrorCode, string>>;

/** What a constraint says about an item; undefined for a contradiction that has no code. */
export function custodyError(item: CustodyItem, cause: unknown): CountersignError | undefined {
  const said = /^SQLITE_CONSTRAINT: ([a-z-]+)$/.exec((cause as Error).message)?.[1];
  const code =
    said !== undefined && Object.hasOwn(details, said)
      ? (said as keyof typeof details)
      : item.kind === "ceremony-state" || item.kind.startsWith("share-set")
        ? "ceremony-refused"
        : undefined;
  return code && new CountersignError(code, details[code], { cause });
}

interface SignedJson {
  readonly statement: string;
  readonly signature: string;
}

function jsonOf({ statement, signature }: Signed): SignedJson {
  return { statement: Buffer.from(statement).toString("base64"), signature };
}

function signedOf({ statement, signature }: SignedJson): Signed {
  return { statement: Buffer.from(statement, "base64"), signature };
}

function signedText(signed: Signed): string {
  return JSON.stringify(jsonOf(signed));
}

export function parseSignedText(text: string): Signed {
  return signedOf(JSON.parse(text) as SignedJson);
}

function evidenceText({ signatures, ceremony }: Evidence): string {
  return JSON.stringify({
    signatures: signatures.map(({ operator, signature }) => ({ operator, signature })),
    ...(ceremony && {
      ceremony: { note: ceremony.note, approvals: ceremony.approvals.map(jsonOf) },
    }),
  });
}

export function parseEvidence(text: string): Evidence {
  const { signatures, ceremony } = JSON.parse(text) as {
    signatures: Evidence["signatures"];
    ceremony?: { note: string; approvals: readonly SignedJson[] };
  };
  return {
    signatures,
    ...(ceremony && {
      ceremony: { note: ceremony.note, approvals: ceremony.approvals.map(signedOf) },
    }),
  };
}
