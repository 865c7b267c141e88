import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { canonicalJson, type Json } from "../../src/audit/canonical-json.ts";
import { verifierKey } from "../../src/audit/signed-note.ts";
import {
  allowedSigners,
  checkGenesis,
  checkOperatorSignature,
  checkSuccessor,
  readRoster,
  type Roster,
  type RosterDocument,
  type RosterSignature,
} from "../../src/custody/roster.ts";
import { namespaces } from "../../src/custody/statement.ts";
import { makeSshKey, sshSign } from "../support/people.ts";

const folder = mkdtempSync(join(tmpdir(), "countersign-roster-"));
afterAll(() => rmSync(folder, { recursive: true }));

const people = ["alice", "bob", "carol"] as const;
const keys = Object.fromEntries(
  [...people, "dora", "spare"].map((id) => [
    id,
    makeSshKey(join(folder, id)).trim().split(" ").slice(0, 2).join(" "),
  ]),
);

const operator = (id: string, ...roles: string[]): RosterDocument["operators"][number] => ({
  id,
  keys: [{ kind: "ssh", key: keys[id]! }],
  roles,
});

const base: RosterDocument = {
  type: "countersign/roster/v1",
  version: 1,
  previous: null,
  operators: [
    operator("alice", "officer"),
    operator("bob", "officer", "witness"),
    operator("carol", "witness"),
  ],
  service: {
    identity: verifierKey("ca.example.com/keeper", new Uint8Array(32).fill(1)),
    log: verifierKey("ca.example.com/audit", new Uint8Array(32).fill(2)),
  },
  rules: { roster: 2, policy: 2, resume: 2, ceremonies: { sign: { officer: 2, witness: 1 } } },
};

function rosterOf(change: Partial<RosterDocument> = {}): Roster {
  return readRoster(Buffer.from(canonicalJson({ ...base, ...change } as unknown as Json)));
}

function signedBy(roster: Roster, who: readonly string[], as?: string): RosterSignature[] {
  return who.map((id) => ({
    operator: as ?? id,
    signature: sshSign(join(folder, id), namespaces.roster, Buffer.from(roster.octets)),
  }));
}

const invalid = expect.objectContaining({ code: "roster-invalid" });
const unsigned = expect.objectContaining({ code: "roster-unsigned" });

test("a genesis is signed by everybody in it, and by nobody less", () => {
  const genesis = rosterOf();
  const all = signedBy(genesis, people);
  checkGenesis(genesis, all);
  for (const [index, id] of people.entries()) {
    const some = all.toSpliced(index, 1);
    expect(() => checkGenesis(genesis, some)).toThrow(unsigned);
    // Another's signature in the name of who is missing.
    const forged = [...some, ...signedBy(genesis, ["dora"], id)];
    expect(() => checkGenesis(genesis, forged)).toThrow(new RegExp(`${id} has not signed`));
  }
});

test("a signature for another purpose or of other bytes does not count under a roster", () => {
  const genesis = rosterOf();
  const rest = signedBy(genesis, ["bob", "carol"]);
  for (const [namespace, octets] of [
    [namespaces.approval, genesis.octets],
    [namespaces.roster, Buffer.from(`${Buffer.from(genesis.octets).toString()}\n`)],
  ] as const) {
    const signature = sshSign(join(folder, "alice"), namespace, Buffer.from(octets));
    expect(() => checkGenesis(genesis, [...rest, { operator: "alice", signature }])).toThrow(
      unsigned,
    );
  }
});

test("every key of a person signs: a second one without its signature is refused", () => {
  const two = {
    ...base.operators[0]!,
    keys: [...base.operators[0]!.keys, { kind: "ssh" as const, key: keys["spare"]! }],
  };
  const genesis = rosterOf({ operators: [two, ...base.operators.slice(1)] });
  const all = signedBy(genesis, people);
  expect(() => checkGenesis(genesis, all)).toThrow(unsigned);
  checkGenesis(genesis, [...all, ...signedBy(genesis, ["spare"], "alice")]);
});

test("ST-69: a version names the one before it, skips none, and is signed by each new key", () => {
  const first = rosterOf();
  const operators = [...base.operators, operator("dora", "witness")];
  const second = rosterOf({ version: 2, previous: first.digest, operators });
  checkSuccessor(first, second, signedBy(second, ["dora"]));
  expect(() => checkSuccessor(first, second, signedBy(second, ["alice"]))).toThrow(unsigned);
  const skipped = rosterOf({ version: 3, previous: first.digest, operators });
  expect(() => checkSuccessor(first, skipped, signedBy(skipped, ["dora"]))).toThrow(invalid);
  const foreign = rosterOf({ version: 2, previous: second.digest, operators });
  expect(() => checkSuccessor(first, foreign, signedBy(foreign, ["dora"]))).toThrow(invalid);
  expect(() => checkGenesis(second, signedBy(second, [...people, "dora"]))).toThrow(invalid);
});

test("a key that moves to another person is new there", () => {
  const first = rosterOf();
  const operators = [
    { ...operator("alice", "officer"), keys: [{ kind: "ssh" as const, key: keys["spare"]! }] },
    ...base.operators.slice(1),
    { ...operator("dora", "witness"), keys: [{ kind: "ssh" as const, key: keys["alice"]! }] },
  ];
  const second = rosterOf({ version: 2, previous: first.digest, operators });
  expect(() => checkSuccessor(first, second, signedBy(second, ["spare"], "alice"))).toThrow(
    /dora has not signed/,
  );
});

test.for<{ name: string; change: object }>([
  {
    name: "a person twice",
    change: { operators: [...base.operators, operator("alice", "witness")] },
  },
  {
    name: "one key for two people",
    change: {
      operators: [
        ...base.operators,
        { ...operator("dora", "witness"), keys: [{ kind: "ssh", key: keys["bob"]! }] },
      ],
    },
  },
  {
    name: "one recipient for two people",
    change: {
      operators: base.operators.map((one) => ({ ...one, recipient: `age1${"q".repeat(58)}` })),
    },
  },
  { name: "nobody", change: { operators: [] } },
  { name: "a person without a key", change: { operators: [{ ...base.operators[0]!, keys: [] }] } },
  { name: "a person without a role", change: { operators: [operator("alice")] } },
  { name: "a role twice", change: { operators: [operator("alice", "officer", "officer")] } },
  {
    name: "an RSA key",
    change: {
      operators: [
        {
          ...operator("alice", "officer"),
          keys: [{ kind: "ssh", key: "ssh-rsa AAAAB3NzaC1yc2E=" }],
        },
      ],
    },
  },
  {
    name: "a key with a comment",
    change: {
      operators: [
        { ...operator("alice", "officer"), keys: [{ kind: "ssh", key: `${keys["alice"]!} me` }] },
      ],
    },
  },
  {
    name: "an SSH key as recipient",
    change: { operators: [{ ...operator("alice", "officer"), recipient: keys["alice"]! }] },
  },
  {
    name: "a rule that asks for more people than there are",
    change: { rules: { ...base.rules, resume: 4 } },
  },
  { name: "a rule of 0", change: { rules: { ...base.rules, roster: 0 } } },
  {
    name: "a ceremony that asks for nobody",
    change: { rules: { ...base.rules, ceremonies: { sign: {} } } },
  },
  {
    name: "a role that nobody has",
    change: { rules: { ...base.rules, ceremonies: { sign: { auditor: 1 } } } },
  },
  {
    name: "one person for two roles",
    change: { rules: { ...base.rules, ceremonies: { sign: { officer: 2, witness: 2 } } } },
  },
  {
    name: "a ceremony of no kind",
    change: { rules: { ...base.rules, ceremonies: { party: { officer: 1 } } } },
  },
  {
    name: "a verifier key that is none",
    change: { service: { ...base.service, log: "log+00000000+AAAA" } },
  },
  { name: "version 2 without one before", change: { version: 2 } },
  { name: "version 1 with one before", change: { previous: `sha256:${"0".repeat(64)}` } },
  { name: "a member more", change: { note: "hello" } },
])("$name is refused", ({ change }) => {
  expect(() => rosterOf(change as Partial<RosterDocument>)).toThrow(invalid);
});

test("a roster of one is allowed", () => {
  const alone = rosterOf({
    operators: [operator("alice", "officer")],
    rules: { roster: 1, policy: 1, resume: 1, ceremonies: { sign: { officer: 1 } } },
  });
  checkGenesis(alone, signedBy(alone, ["alice"]));
});

test("stock ssh-keygen accepts what the roster accepts, and refuses what it refuses", () => {
  const roster = rosterOf();
  const signers = join(folder, "allowed_signers");
  writeFileSync(signers, allowedSigners(roster));
  const message = Buffer.from('{"type":"countersign/approval/v1"}');
  const cases = [
    { id: "alice", key: "alice", namespace: namespaces.approval, good: true },
    { id: "alice", key: "bob", namespace: namespaces.approval, good: false },
    { id: "dora", key: "dora", namespace: namespaces.approval, good: false },
    { id: "alice", key: "alice", namespace: "git", good: false },
  ];
  for (const { id, key, namespace, good } of cases) {
    const signature = sshSign(join(folder, key), namespace, message);
    writeFileSync(join(folder, "signature"), signature);
    const stock = (): Buffer =>
      execFileSync(
        "ssh-keygen",
        ["-Y", "verify", "-f", signers, "-I", id, "-n", namespace, "-s", join(folder, "signature")],
        { input: message, stdio: ["pipe", "pipe", "pipe"] },
      );
    const ours = (): void =>
      checkOperatorSignature(roster, id, namespaces.approval, message, signature);
    if (good) {
      expect(stock().toString()).toContain("Good");
      ours();
    } else {
      expect(stock).toThrow();
      expect(ours).toThrow();
    }
  }
});
