/** Revoking one certificate: RFC 5280 §5.3.1, and who may. */

import { createPublicKey, verify } from "node:crypto";
import { z } from "zod";
import { parseCanonicalJson } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { encodeEntry, type Actor } from "../audit/entry.ts";
import { CountersignError } from "../errors.ts";
import { actorOf, type Caller } from "../issuance/caller.ts";
import { wholeSeconds } from "../issuance/issuance.ts";
import type { IssuerSet } from "../issuance/issuer.ts";
import type { Journal } from "../issuance/journal.ts";
import type { Reads, StoredCertificate, StoredRevocation } from "../issuance/records.ts";
import { parseCertificate } from "../x509/certificate.ts";
import type { CrlReason } from "../x509/certificate-list.ts";
import type { CrlSchedule } from "./crl-schedule.ts";

export interface Possession {
  readonly kind: "possession";
  /** Canonical JSON of a revocation statement. */
  readonly statement: Uint8Array;
  /** By the certificate's private key: ECDSA in DER with the hash that fits the curve, RSA PKCS#1 v1.5
   *  with SHA-256, or Ed25519. */
  readonly signature: Uint8Array;
}

export interface RevokeCommand {
  readonly caller: Caller | Possession;
  readonly issuer: string;
  readonly serialNumber: string;
  readonly reason: CrlReason;
  /** When the certificate became worthless, RFC 5280 §5.3.2: not before it began, and not later than now. A fraction
   *  of a second is dropped, as a CRL has none. Absent in a repetition: whichever is on record. */
  readonly invalidityDate?: Date;
  readonly requestId: string;
}

export interface RevocationAnswer {
  readonly issuer: string;
  readonly serialNumber: string;
  readonly reason: CrlReason;
  readonly revocationDate: Date;
  readonly invalidityDate?: Date;
  readonly logIndex: number;
  /** The CRL that carries it, once there is one, and the latest moment at which there will be. */
  readonly visible: { readonly crlNumber?: string; readonly by: Date };
  /** Whether it was revoked before, with the same reason and no other invalidityDate. */
  readonly repeated: boolean;
}

export interface Revocations {
  /**
   * @throws CountersignError `certificate-unknown`, `certificate-expired`, `forbidden`, `reason-refused`,
   *   `request-malformed` for an invalidityDate, `revocation-conflict`, `statement-malformed`, `statement-stale`, `signature-invalid`, `log-unavailable`.
   */
  revoke(command: RevokeCommand): Promise<RevocationAnswer>;
}

/** Revocations are on a CRL within this time: DESIGN, "Defaults". */
export const CRL_WITHIN_MILLISECONDS = 60_000;

/** Statements of possession are accepted this long after, and this long before, the time they carry. */
export const POSSESSION_MILLISECONDS = 5 * 60_000;

const everybody: readonly CrlReason[] = [
  "unspecified",
  "keyCompromise",
  "affiliationChanged",
  "superseded",
  "cessationOfOperation",
];

/** privilegeWithdrawn (9) is the CA's choice, never the subscriber's: CRL-33. */
const operators: readonly CrlReason[] = [...everybody, "privilegeWithdrawn"];

export interface RevocationParts {
  readonly journal: Journal;
  readonly reads: Reads;
  readonly issuers: IssuerSet;
  readonly schedule: CrlSchedule;
  readonly now: () => Date;
}

export function createRevocations(parts: RevocationParts): Revocations {
  const { journal, reads, issuers, schedule, now } = parts;
  /** One revocation of one certificate at a time. */
  const turns = new Map<string, Promise<unknown>>();

  async function revokeInTurn(command: RevokeCommand): Promise<RevocationAnswer> {
    const issuer = issuers.find(command.issuer);
    const row = await reads.certificate(issuer.id, command.serialNumber);
    // An abandoned intent counts as possibly issued (AUDIT-LOG 9.2), so it can be revoked as well.
    if (row === undefined) {
      throw new CountersignError(
        "certificate-unknown",
        `issuer ${issuer.id} has no certificate with serial number ${command.serialNumber}`,
      );
    }
    const { actor, invalidityDate } = authorise(command, row, now());
    const before = await reads.revocation(issuer.id, command.serialNumber);
    if (before !== undefined) {
      if (before.reason !== command.reason) {
        throw new CountersignError(
          "revocation-conflict",
          `the certificate is revoked already, with reason ${before.reason}`,
          { members: { reason: before.reason, revocationDate: before.revocationDate } },
        );
      }
      if (
        invalidityDate !== null &&
        invalidityDate.getTime() !== before.invalidityDate?.getTime()
      ) {
        const { invalidityDate: recorded } = before;
        throw new CountersignError(
          "revocation-conflict",
          "the certificate is revoked already, with " +
            (recorded === null
              ? "no invalidityDate"
              : `the invalidityDate ${recorded.toISOString()}`),
          {
            members: {
              reason: before.reason,
              revocationDate: before.revocationDate,
              ...(recorded === null ? {} : { invalidityDate: recorded }),
            },
          },
        );
      }
      return answer(before, true, {
        by: new Date(before.revocationDate.getTime() + CRL_WITHIN_MILLISECONDS),
      });
    }
    const at = now();
    if (row.notAfter <= at) {
      throw new CountersignError(
        "certificate-expired",
        `the certificate ended ${row.notAfter.toISOString()}: nothing relies on it any more`,
      );
    }
    const revocation = {
      issuer: issuer.id,
      keyId: issuer.keyId,
      serialNumber: command.serialNumber,
      reason: command.reason,
      revocationDate: wholeSeconds(at),
      invalidityDate,
      requestedBy: actor.id,
      notAfter: row.notAfter,
    };
    const logIndex = await journal.append({
      kind: "revocation",
      leaf: encodeEntry({
        type: "certificate.revoked",
        at,
        actor,
        subject: {
          issuer: issuer.id,
          keyId: issuer.keyId,
          serialNumber: command.serialNumber,
        },
        data: {
          reason: command.reason,
          revocationDate: revocation.revocationDate.toISOString(),
          ...(revocation.invalidityDate === null
            ? {}
            : { invalidityDate: revocation.invalidityDate.toISOString() }),
        },
        ...(command.caller.kind === "possession"
          ? {
              evidence: {
                statement: Buffer.from(command.caller.statement).toString("base64"),
                signature: Buffer.from(command.caller.signature).toString("base64"),
              },
            }
          : {}),
      }),
      row: revocation,
    });
    const crlNumber = await schedule.revoked(issuer.id);
    return answer({ ...revocation, logIndex }, false, {
      by: new Date(at.getTime() + CRL_WITHIN_MILLISECONDS),
      ...(crlNumber === undefined ? {} : { crlNumber: crlNumber.toString() }),
    });
  }

  return {
    async revoke(command) {
      const key = `${command.issuer} ${command.serialNumber}`;
      const turn = (turns.get(key) ?? Promise.resolve())
        .catch(() => undefined)
        .then(() => revokeInTurn(command));
      turns.set(key, turn);
      try {
        return await turn;
      } finally {
        if (turns.get(key) === turn) turns.delete(key);
      }
    },
  };
}

function answer(
  row: StoredRevocation,
  repeated: boolean,
  visible: RevocationAnswer["visible"],
): RevocationAnswer {
  return {
    issuer: row.issuer,
    serialNumber: row.serialNumber,
    reason: row.reason as CrlReason,
    revocationDate: row.revocationDate,
    ...(row.invalidityDate === null ? {} : { invalidityDate: row.invalidityDate }),
    logIndex: row.logIndex,
    visible,
    repeated,
  };
}

interface Authorised {
  readonly actor: Actor;
  readonly invalidityDate: Date | null;
}

/** Decides whether this caller may revoke this certificate with this reason. */
function authorise(command: RevokeCommand, row: StoredCertificate, now: Date): Authorised {
  const { caller, reason } = command;
  const allowed = caller.kind === "operator" ? operators : everybody;
  if (row.kind !== "leaf") {
    throw new CountersignError(
      "forbidden",
      "a CA certificate is revoked in a ceremony of its issuer, not here",
    );
  }
  const { actor, asked } =
    caller.kind === "possession"
      ? provePossession(command, caller, row, now)
      : { actor: actorFor(caller, row), asked: command.invalidityDate };
  if (!allowed.includes(reason)) {
    throw new CountersignError(
      "reason-refused",
      `reason ${reason} is not offered to this caller; choose one of ${allowed.join(", ")}`,
    );
  }
  return { actor, invalidityDate: asked === undefined ? null : checkInvalidity(asked, row, now) };
}

/** A revocation is never taken back: a date that no CRL can carry would keep the issuer from making any. */
function checkInvalidity(asked: Date, row: StoredCertificate, now: Date): Date {
  if (asked > now) {
    throw new CountersignError("request-malformed", "invalidityDate lies in the future");
  }
  if (!(asked >= row.notBefore)) {
    throw new CountersignError(
      "request-malformed",
      `invalidityDate lies before the certificate began, ${row.notBefore.toISOString()}`,
    );
  }
  return wholeSeconds(asked);
}

function actorFor(caller: Caller, row: StoredCertificate): Actor {
  switch (caller.kind) {
    case "operator":
      return actorOf(caller);
    case "requester": {
      const { revoke, issuers } = caller.requester;
      const any = revoke === "any" && issuers.includes(row.issuer);
      if (any || row.requester === caller.id) return actorOf(caller);
      throw new CountersignError(
        "forbidden",
        revoke === "any"
          ? "this requester may revoke only certificates of its issuers and those it asked for"
          : "this requester may revoke only the certificates it asked for",
      );
    }
    case "certificate":
      if (caller.issuer === row.issuer && caller.serialNumber === row.serialNumber) {
        return actorOf(caller);
      }
      throw new CountersignError(
        "forbidden",
        "the certificate of this connection is not the one to revoke",
      );
  }
}

/** RFC 3339, UTC, as `Date` writes it, or with whole seconds. */
const utcTime = z.iso.datetime().regex(/T\d\d:\d\d:\d\d(?:\.\d{1,3})?Z$/);

/** What the holder of a certificate's key signs: closed, canonical JSON. */
export const possessionStatement = z.strictObject({
  type: z.literal("countersign/revocation/v1"),
  /** `sha256:<hex>` of the DER. */
  certificate: z.string(),
  reason: z.string(),
  at: utcTime,
  invalidityDate: utcTime.exactOptional(),
});

function provePossession(
  command: RevokeCommand,
  proof: Possession,
  row: StoredCertificate,
  now: Date,
): { actor: Actor; asked: Date | undefined } {
  if (row.certificate === null) {
    throw new CountersignError("forbidden", "this serial number was never handed out");
  }
  const sha256 = digestOf(row.certificate);
  const statement = readPossession(proof.statement);
  if (
    statement.certificate !== sha256 ||
    statement.reason !== command.reason ||
    Math.abs(now.getTime() - Date.parse(statement.at)) > POSSESSION_MILLISECONDS
  ) {
    throw new CountersignError(
      "statement-stale",
      "the statement is about another certificate or reason, or more than five minutes old",
    );
  }
  const asked =
    statement.invalidityDate === undefined ? undefined : new Date(statement.invalidityDate);
  // Beside the statement it would be the word of whoever carried the statement here.
  if (
    command.invalidityDate !== undefined &&
    command.invalidityDate.getTime() !== asked?.getTime()
  ) {
    throw new CountersignError(
      "request-malformed",
      "invalidityDate is not the one in the signed statement: with a proof it stands there",
    );
  }
  const key = createPublicKey({
    key: Buffer.from(parseCertificate(row.certificate).tbs.subjectPublicKeyInfo),
    format: "der",
    type: "spki",
  });
  const curve = key.asymmetricKeyDetails?.namedCurve;
  const hash =
    key.asymmetricKeyType === "ed25519"
      ? null
      : curve === "secp384r1"
        ? "sha384"
        : curve === "secp521r1"
          ? "sha512"
          : "sha256";
  if (!verify(hash, proof.statement, key, proof.signature)) {
    throw new CountersignError(
      "signature-invalid",
      "the signature was not made by the certificate's private key",
    );
  }
  return { actor: { kind: "certificate", id: sha256, via: "possession" }, asked };
}

/** @throws CountersignError `statement-malformed`. */
function readPossession(octets: Uint8Array): z.infer<typeof possessionStatement> {
  let json: unknown;
  try {
    json = parseCanonicalJson(octets);
  } catch (error) {
    throw new CountersignError("statement-malformed", "the statement is not canonical JSON", {
      cause: error,
    });
  }
  const read = possessionStatement.safeParse(json);
  if (read.success) return read.data;
  throw new CountersignError(
    "statement-malformed",
    'expected {"at":"<RFC 3339, UTC>","certificate":"sha256:<hex>","reason":"<reason>","type":"countersign/revocation/v1"}, ' +
      'and "invalidityDate":"<RFC 3339, UTC>" where one is given',
    { cause: read.error },
  );
}
