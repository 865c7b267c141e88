/**
 * The people: who they are, what they sign with, and how many must agree to what. CUSTODY.md 8.4. Each version names the
 * digest of the one before, back to a genesis that the configuration pins.
 */

import { z } from "zod";
import { digestOf } from "../audit/digest.ts";
import { parseVerifierKey } from "../audit/signed-note.ts";
import { CountersignError } from "../errors.ts";
import { checkSshPublicKey, sshFingerprint, verifySshSignature } from "./ssh-signature.ts";
import {
  ceremonyKinds,
  digest,
  name,
  namespaces,
  read,
  recipient,
  roleRules,
  type Signed,
} from "./statement.ts";

const sshKey = z.strictObject({
  kind: z.literal("ssh"),
  /** Type and base64, as in a .pub file, without its comment. */
  key: z
    .string()
    .regex(/^[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}$/)
    .max(1024),
});

const passkey = z.strictObject({
  kind: z.literal("webauthn"),
  id: z
    .string()
    .regex(/^[A-Za-z0-9_-]+$/)
    .max(1400),
  /** COSE, base64. */
  publicKey: z
    .string()
    .regex(/^[A-Za-z0-9+/]+={0,2}$/)
    .max(4096),
  rpId: z.string().min(1).max(253),
});

const operatorSchema = z.strictObject({
  id: name,
  keys: z
    .array(z.discriminatedUnion("kind", [sshKey, passkey]))
    .min(1)
    .max(16),
  recipient: recipient.exactOptional(),
  roles: z.array(name).min(1).max(16),
});

const rosterSchema = z.strictObject({
  type: z.literal("countersign/roster/v1"),
  version: z.int().min(1),
  previous: digest.nullable(),
  operators: z.array(operatorSchema).min(1).max(256),
  service: z.strictObject({ identity: z.string().max(1024), log: z.string().max(1024) }),
  rules: z.strictObject({
    roster: z.int().min(1),
    policy: z.int().min(1),
    resume: z.int().min(1),
    ceremonies: z.partialRecord(z.enum(ceremonyKinds), roleRules),
  }),
});

export type RosterDocument = z.infer<typeof rosterSchema>;
export type RosterOperator = RosterDocument["operators"][number];

/** A version of the roster that was read and checked. */
export interface Roster {
  readonly document: RosterDocument;
  readonly octets: Uint8Array;
  /** `sha256:` and 64 hex digits. */
  readonly digest: string;
  readonly operators: ReadonlyMap<string, RosterOperator>;
}

/** A version as it is kept and shown, with what makes it one. */
export interface RosterVersion {
  /** Canonical JSON. */
  readonly document: Uint8Array;
  readonly signatures: readonly RosterSignature[];
  /** The ceremony that brought it about; the genesis has none. */
  readonly ceremony?: { readonly note: string; readonly approvals: readonly Signed[] };
}

/** One signature under a roster: whose, and armored as `ssh-keygen -Y sign` writes it. */
export interface RosterSignature {
  readonly operator: string;
  readonly signature: string;
}

/**
 * Reads a roster and checks that it can work: nobody and no key twice, every rule within reach of its people.
 *
 * @param octets - canonical JSON.
 * @throws CountersignError `roster-invalid`.
 */
export function readRoster(octets: Uint8Array): Roster {
  const document = read(rosterSchema, octets, "roster-invalid", "the roster");
  const operators = new Map<string, RosterOperator>();
  const owners = new Map<string, string>();
  const claim = (what: string, value: string, id: string): void => {
    const owner = owners.get(value);
    // The same key or recipient for two people would make one person count twice.
    if (owner !== undefined) throw invalid(`${what} of ${id} is also one of ${owner}`);
    owners.set(value, id);
  };
  for (const operator of document.operators) {
    const { id } = operator;
    if (operators.has(id)) throw invalid(`${id} stands in it twice`);
    operators.set(id, operator);
    for (const key of operator.keys) {
      if (key.kind === "webauthn") {
        claim("a passkey", `${key.rpId} ${key.id}`, id);
        continue;
      }
      try {
        checkSshPublicKey(key.key);
      } catch (error) {
        throw invalid(`an SSH key of ${id}: ${(error as Error).message}`, error);
      }
      claim("an SSH key", sshFingerprint(key.key), id);
    }
    if (operator.recipient !== undefined) claim("the age recipient", operator.recipient, id);
    if (new Set(operator.roles).size !== operator.roles.length) {
      throw invalid(`${id} has a role twice`);
    }
  }
  for (const key of [document.service.identity, document.service.log]) {
    try {
      parseVerifierKey(key);
    } catch (error) {
      throw invalid((error as Error).message, error);
    }
  }
  checkRules(document);
  if ((document.version === 1) !== (document.previous === null)) {
    throw invalid("version 1 and no other has no version before it");
  }
  return { document, octets, digest: digestOf(octets), operators };
}

function checkRules({ operators, rules }: RosterDocument): void {
  for (const [what, needed] of [
    ["roster", rules.roster],
    ["policy", rules.policy],
    ["resume", rules.resume],
  ] as const) {
    if (needed > operators.length) {
      throw invalid(`rule ${what} asks for ${needed} people, and there are ${operators.length}`);
    }
  }
  for (const [kind, roles] of Object.entries(rules.ceremonies)) {
    if (Object.keys(roles).length === 0) throw invalid(`ceremonies of kind ${kind} ask for nobody`);
    if (!canBeMet(operators, roles)) {
      throw invalid(
        `there are not enough people for ceremonies of kind ${kind}: each counts in one role`,
      );
    }
  }
}

/** Whether people can be found for all roles, each in one of theirs (Hall's theorem, by augmenting paths). */
export function canBeMet(
  operators: readonly { readonly id: string; readonly roles: readonly string[] }[],
  roles: Readonly<Record<string, number>>,
): boolean {
  const seats = Object.entries(roles).flatMap(([role, needed]) => Array<string>(needed).fill(role));
  if (seats.length > operators.length) return false;
  const seatOf = new Map<string, number>();
  const place = (seat: number, tried: Set<string>): boolean =>
    operators.some(({ id, roles: own }) => {
      if (tried.has(id) || !own.includes(seats[seat]!)) return false;
      tried.add(id);
      const taken = seatOf.get(id);
      if (taken !== undefined && !place(taken, tried)) return false;
      seatOf.set(id, seat);
      return true;
    });
  return seats.every((_, seat) => place(seat, new Set()));
}

/**
 * Checks a genesis: everybody in it has signed it, with each of their keys.
 *
 * @throws CountersignError `roster-invalid` if it is not version 1; `roster-unsigned` naming whose signature is
 *   missing or wrong.
 */
export function checkGenesis(roster: Roster, signatures: readonly RosterSignature[]): void {
  if (roster.document.version !== 1) throw invalid("a genesis has version 1");
  requirePossession(roster, undefined, signatures);
}

/**
 * Checks a version against the one before it: it names that, and every key that is new has signed it. That people of
 * the version before agreed is the ceremony's to show.
 *
 * @throws CountersignError `roster-invalid` if it does not follow; `roster-unsigned`.
 */
export function checkSuccessor(
  before: Roster,
  roster: Roster,
  signatures: readonly RosterSignature[],
): void {
  const { version, previous } = roster.document;
  if (version !== before.document.version + 1) {
    throw invalid(`version ${version} does not follow version ${before.document.version}`);
  }
  if (previous !== before.digest) throw invalid("it names another version before it");
  requirePossession(roster, before, signatures);
}

function requirePossession(
  roster: Roster,
  before: Roster | undefined,
  signatures: readonly RosterSignature[],
): void {
  for (const { id, keys } of roster.document.operators) {
    const known = new Set(
      before?.operators
        .get(id)
        ?.keys.flatMap((key) => (key.kind === "ssh" ? [sshFingerprint(key.key)] : [])),
    );
    const own = signatures.filter(({ operator }) => operator === id);
    for (const key of keys) {
      if (key.kind !== "ssh" || known.has(sshFingerprint(key.key))) continue;
      if (
        !own.some(({ signature }) => verifies(key.key, namespaces.roster, roster.octets, signature))
      ) {
        throw new CountersignError(
          "roster-unsigned",
          `${id} has not signed the roster with the key ${sshFingerprint(key.key)}: ` +
            `ssh-keygen -Y sign -n ${namespaces.roster} -f KEY roster.json`,
        );
      }
    }
  }
}

/**
 * Checks what one person of the roster signed.
 *
 * @throws CountersignError `operator-unknown`; `signature-invalid` if none of the person's SSH keys made it.
 */
export function checkOperatorSignature(
  roster: Roster,
  operator: string,
  namespace: string,
  message: Uint8Array,
  signature: string,
): void {
  const person = roster.operators.get(operator);
  if (person === undefined) {
    throw new CountersignError("operator-unknown", `the roster has no operator ${operator}`);
  }
  const keys = person.keys.flatMap((key) => (key.kind === "ssh" ? [key.key] : []));
  verifyWithOneOf(keys, namespace, message, signature);
}

/**
 * Verifies that one of a person's SSH keys made a signature.
 *
 * @throws CountersignError `signature-invalid`.
 */
export function verifyWithOneOf(
  publicKeys: readonly string[],
  namespace: string,
  message: Uint8Array,
  signature: string,
): void {
  let failure: unknown = new CountersignError(
    "signature-invalid",
    "the signer has no SSH key here",
  );
  for (const publicKey of publicKeys) {
    try {
      verifySshSignature({ publicKey, namespace, message, signature });
      return;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

/** What the roster asks for a ceremony of a kind: people of each role; undefined where it has no rule, which is no. */
export function ceremonyRules(
  roster: Roster,
  kind: (typeof ceremonyKinds)[number],
): Readonly<Record<string, number>> | undefined {
  return roster.document.rules.ceremonies[kind];
}

/** The people as `ssh-keygen -Y verify -f` reads them (ssh-keygen(1), ALLOWED SIGNERS). */
export function allowedSigners(roster: Roster): string {
  return roster.document.operators
    .flatMap(({ id, keys }) =>
      keys.flatMap((key) =>
        key.kind === "ssh" ? [`${id} namespaces="countersign-*@v1" ${key.key}\n`] : [],
      ),
    )
    .join("");
}

function verifies(
  publicKey: string,
  namespace: string,
  message: Uint8Array,
  signature: string,
): boolean {
  try {
    verifySshSignature({ publicKey, namespace, message, signature });
    return true;
  } catch (error) {
    if (error instanceof CountersignError) return false;
    throw error;
  }
}

function invalid(detail: string, cause?: unknown): CountersignError {
  return new CountersignError("roster-invalid", `the roster cannot be used: ${detail}`, { cause });
}
