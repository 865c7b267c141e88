/** The five people of a development home: one newcomer plays all of them. */

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { canonicalJson, type Json } from "../audit/canonical-json.ts";
import { newAgeIdentity } from "../custody/sealed/age-file.ts";
import type { RosterDocument, RosterSignature } from "../custody/roster.ts";
import { namespaces, type Signed } from "../custody/statement.ts";
import { write } from "./write.ts";

/** Three of them open the root. */
export const DEVELOPMENT_PEOPLE = ["alice", "bob", "carol", "dora", "erin"] as const;
export const DEVELOPMENT_THRESHOLD = 3;

export interface Person {
  readonly id: string;
  /** What `ssh-keygen -Y sign -f` is given: a private key, or the public one of an agent's. */
  readonly sshKey: string;
  /** Type and base64. */
  readonly publicKey: string;
  /** `AGE-SECRET-KEY-1…` */
  readonly identity: string;
  /** `age1…` */
  readonly recipient: string;
}

/**
 * Makes the keys of the five.
 *
 * @param folder - it gets a folder for each of them: `id_ed25519`, `id_ed25519.pub` and `age.key`.
 * @param firstKey - the public key's file of the first, whose private key is somewhere else.
 */
export async function makePeople(folder: string, firstKey: string | undefined): Promise<Person[]> {
  const people: Person[] = [];
  for (const [place, id] of DEVELOPMENT_PEOPLE.entries()) {
    const own = join(resolve(folder), id);
    mkdirSync(own, { mode: 0o700 });
    // oxlint-disable-next-line no-await-in-loop -- five, each some milliseconds
    const { identity, recipient } = await newAgeIdentity();
    write(join(own, "age.key"), `# public key: ${recipient}\n${identity}\n`);
    const named = place === 0 && firstKey !== undefined ? resolve(firstKey) : undefined;
    const sshKey = named ?? makeSshKey(own, id);
    people.push({
      id,
      sshKey,
      publicKey: publicKeyIn(named ?? `${sshKey}.pub`),
      identity,
      recipient,
    });
  }
  return people;
}

function makeSshKey(folder: string, id: string): string {
  const file = join(folder, "id_ed25519");
  const comment = `countersign development operator ${id}`;
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", file]);
  return file;
}

/** As OpenSSH writes it, without its comment. */
function publicKeyIn(file: string): string {
  return readFileSync(file, "utf8").trim().split(" ").slice(0, 2).join(" ");
}

/** Signs canonical JSON, with stock ssh-keygen. */
export function signAs(
  { sshKey }: Pick<Person, "sshKey">,
  namespace: string,
  statement: Json,
): Signed {
  const octets = Buffer.from(canonicalJson(statement));
  return { statement: octets, signature: signatureOf(sshKey, namespace, octets) };
}

export function signatureOf(sshKey: string, namespace: string, octets: Uint8Array): string {
  return execFileSync("ssh-keygen", ["-q", "-Y", "sign", "-n", namespace, "-f", sshKey], {
    input: octets,
    stdio: ["pipe", "pipe", "pipe"],
  }).toString();
}

/** The first roster, signed by all: each is an officer and holds a share. */
export function genesisOf(
  people: readonly Person[],
  service: RosterDocument["service"],
): { document: Buffer; signatures: RosterSignature[] } {
  const roster: RosterDocument = {
    type: "countersign/roster/v1",
    version: 1,
    previous: null,
    operators: people.map(({ id, publicKey, recipient }) => ({
      id,
      keys: [{ kind: "ssh", key: publicKey }],
      recipient,
      roles: ["officer"],
    })),
    service,
    rules: { roster: 3, policy: 2, resume: 3, ceremonies: {} },
  };
  const document = Buffer.from(canonicalJson(roster as unknown as Json));
  return {
    document,
    signatures: people.map(({ id, sshKey }) => ({
      operator: id,
      signature: signatureOf(sshKey, namespaces.roster, document),
    })),
  };
}
