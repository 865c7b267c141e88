/**
 * What the keeper states and what people sign about it: CUSTODY.md 6.1. All are canonical JSON with a closed schema; the
 * digest of a statement is SHA-256 over that JSON, without a newline.
 */

import { z } from "zod";
import { parseCanonicalJson } from "../audit/canonical-json.ts";
import { CountersignError, type ErrorCode } from "../errors.ts";

/** One person's statement: canonical JSON, and the SSH signature over it, armored. */
export interface Signed {
  readonly statement: Uint8Array;
  readonly signature: string;
}

/** Namespaces of the signatures of people (SSHSIG), by what they are about. */
export const namespaces = {
  approval: "countersign-approval@v1",
  submission: "countersign-submission@v1",
  enrol: "countersign-enrol@v1",
  roster: "countersign-roster@v1",
  confirm: "countersign-confirm@v1",
  lock: "countersign-lock@v1",
  abort: "countersign-abort@v1",
} as const;

/** SHA-256, `sha256:` and 64 hex digits. */
export const digest = z.string().regex(/^sha256:[0-9a-f]{64}$/);
/** SHA-256, 64 hex digits. */
export const hexHash = z.string().regex(/^[0-9a-f]{64}$/);
/** 16 random octets, hex. */
export const randomId = z.string().regex(/^[0-9a-f]{32}$/);
const root = z.string().regex(/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/);
/** RFC 3339, UTC. */
export const time = z.iso.datetime().regex(/T\d\d:\d\d:\d\d(?:\.\d{1,3})?Z$/);
const count = z.int().min(1).max(0xffff_ffff);
export const reason = z.string().min(1).max(1024);

/** An operator, a requester, a role, a profile or a label, as people name them. */
export const name = z.string().regex(/^[a-z0-9][a-z0-9.-]{0,62}$/);

const service = z.string().min(1).max(253);
/** The head of the log that whoever signs has seen. */
export const seenLog = z.strictObject({ size: z.int().min(0), root });
const log = z.strictObject({ origin: z.string().min(1).max(512), size: z.int().min(0), root });

/** How many people of each role must agree. */
export const roleRules = z.record(name, z.int().min(1).max(64));

/** The age recipients that 3.1 allows: X25519, P-256 in hardware, and both in their hybrid form. */
export const recipient = z.string().regex(/^age1(?:(?:tag|pq|tagpq)1)?[02-9ac-hj-np-z]{20,4096}$/);

const DAY_MILLISECONDS = 86_400_000;

/** What a window lets its key sign, and until when. */
export const windowLimits = z
  .strictObject({
    operations: z
      .array(
        z.strictObject({
          operation: z.enum(["certificate", "crl"]),
          profile: name.exactOptional(),
          max: count,
        }),
      )
      .min(1)
      .max(64)
      .refine(
        (all) =>
          new Set(all.map(({ operation, profile = "" }) => `${operation} ${profile}`)).size ===
          all.length,
        "an operation stands there twice with the same profile",
      ),
    requesters: z.array(name).min(1).max(256).exactOptional(),
    labels: z.array(name).min(1).max(256).exactOptional(),
    notBefore: time,
    notAfter: time,
    idleSeconds: z.int().min(60).max(604_800),
  })
  .refine(({ notBefore, notAfter }) => {
    const milliseconds = Date.parse(notAfter) - Date.parse(notBefore);
    return milliseconds > 0 && milliseconds <= DAY_MILLISECONDS;
  }, "a window is over after it has begun, and within 24 hours");

export const ceremonyKinds = [
  "sign",
  "window",
  "generate",
  "reshare",
  "roster",
  "policy",
  "resume",
  "retire",
] as const;

const ceremonySchema = z.strictObject({
  type: z.literal("countersign/ceremony/v1"),
  id: randomId,
  service,
  kind: z.enum(ceremonyKinds),
  keyId: hexHash.exactOptional(),
  script: digest.exactOptional(),
  artefacts: z
    .array(z.strictObject({ tbs: digest, lint: digest }))
    .min(1)
    .max(256)
    .exactOptional(),
  exemptions: digest.exactOptional(),
  window: windowLimits.exactOptional(),
  plan: digest.exactOptional(),
  rules: roleRules,
  roster: digest,
  policy: digest,
  notAfter: time,
  log,
  requestedBy: name,
  reason,
});

const unlockSchema = z.strictObject({
  type: z.literal("countersign/unlock/v1"),
  id: randomId,
  service,
  ceremony: digest,
  keyId: hexHash,
  epoch: count,
  threshold: z.int().min(2).max(32),
  shareCount: z.int().min(2).max(32),
  shareSet: digest,
  roster: digest,
  recipient,
  gatherSeconds: z.int().min(600).max(604_800),
  log,
});

const approval = {
  type: z.literal("countersign/approval/v1"),
  ceremony: digest,
  operator: name,
  role: name,
  log: seenLog,
  at: time,
};

const approvalSchema = z.discriminatedUnion("verdict", [
  z.strictObject({ ...approval, verdict: z.literal("approve") }),
  z.strictObject({ ...approval, verdict: z.literal("reject"), reason }),
]);

const submission = {
  type: z.literal("countersign/submission/v1"),
  unlock: digest,
  operator: name,
  log: seenLog,
  at: time,
};

const submissionSchema = z.discriminatedUnion("verdict", [
  z.strictObject({
    ...submission,
    verdict: z.literal("give"),
    share: z.strictObject({ index: z.int().min(1).max(32), file: digest }),
  }),
  z.strictObject({ ...submission, verdict: z.literal("refuse"), reason }),
]);

export type WindowLimits = z.infer<typeof windowLimits>;
export type CeremonyStatement = z.infer<typeof ceremonySchema>;
export type UnlockStatement = z.infer<typeof unlockSchema>;
export type Approval = z.infer<typeof approvalSchema>;
export type Submission = z.infer<typeof submissionSchema>;
export type CeremonyKind = CeremonyStatement["kind"];

/** What a ceremony of each kind carries, and nothing else of these. */
const carried: Readonly<Record<CeremonyKind, readonly (keyof CeremonyStatement)[]>> = {
  sign: ["keyId", "artefacts"],
  window: ["keyId", "window"],
  generate: ["plan"],
  reshare: ["keyId", "plan"],
  roster: ["plan"],
  policy: ["plan"],
  resume: ["plan"],
  retire: ["keyId", "plan"],
};

/** What a ceremony of each kind may carry beside that. */
const carriedAlso: Readonly<Partial<Record<CeremonyKind, readonly (keyof CeremonyStatement)[]>>> = {
  sign: ["script", "exemptions"],
  // One in use that gets a seal.
  generate: ["keyId"],
};

const carriable = ["keyId", "script", "artefacts", "exemptions", "window", "plan"] as const;

/**
 * Reads a ceremony statement.
 *
 * @param octets - the JSON, without the newline of its note.
 * @throws CountersignError `statement-malformed`.
 */
export function readCeremony(octets: Uint8Array): CeremonyStatement {
  const ceremony = read(ceremonySchema, octets, "statement-malformed", "a ceremony statement");
  for (const member of carriable) {
    const wanted = carried[ceremony.kind].includes(member);
    const allowed = wanted || carriedAlso[ceremony.kind]?.includes(member) === true;
    if (
      (wanted && ceremony[member] === undefined) ||
      (!allowed && ceremony[member] !== undefined)
    ) {
      throw new CountersignError(
        "statement-malformed",
        `a ceremony of kind ${ceremony.kind} ${wanted ? "needs" : "has no"} ${member}`,
      );
    }
  }
  return ceremony;
}

/** Reads an unlock statement; as {@link readCeremony}. */
export function readUnlock(octets: Uint8Array): UnlockStatement {
  const unlock = read(unlockSchema, octets, "statement-malformed", "an unlock statement");
  if (unlock.threshold > unlock.shareCount) {
    throw new CountersignError(
      "statement-malformed",
      "the threshold is above the number of shares",
    );
  }
  return unlock;
}

/** @throws CountersignError `approval-malformed`. */
export function readApproval(octets: Uint8Array): Approval {
  return read(approvalSchema, octets, "approval-malformed", "an approval");
}

/** @throws CountersignError `submission-malformed`. */
export function readSubmission(octets: Uint8Array): Submission {
  return read(submissionSchema, octets, "submission-malformed", "a submission");
}

/**
 * Reads one signed or stated document.
 *
 * @throws CountersignError `code`, saying where it is wrong and never what stands there.
 */
export function read<Schema extends z.ZodType>(
  schema: Schema,
  octets: Uint8Array,
  code: ErrorCode,
  what: string,
): z.infer<Schema> {
  let value: unknown;
  try {
    value = parseCanonicalJson(octets);
  } catch (error) {
    throw new CountersignError(
      code,
      `${what} must be canonical JSON (jq -cS without the newline): ${(error as Error).message}`,
      { cause: error },
    );
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const place = issue!.path.map(String).join(".");
  const wrong =
    issue!.code === "unrecognized_keys"
      ? `has no member ${[place, issue!.keys[0]!].filter((part) => part !== "").join(".")}`
      : `is wrong at ${place === "" ? "its top" : place}`;
  throw new CountersignError(code, `${what} ${wrong}`);
}
