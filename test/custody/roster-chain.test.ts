import { generateKeyPairSync } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { noteSigner } from "../../src/audit/signed-note.ts";
import { readRosterChain } from "../../src/custody/roster-chain.ts";
import type { RosterVersion } from "../../src/custody/roster.ts";
import { refused } from "../support/refused.ts";
import { digestOf, makeSshKey } from "./keeper-home.ts";
import { json, SealedHome } from "./sealed-home.ts";
import { join } from "node:path";

let home: SealedHome;
/** Erin leaves. */
let second: RosterVersion;
const quorum = ["alice", "bob", "carol"];
beforeAll(() => {
  home = new SealedHome();
  second = home.nextVersion({ operators: home.operators.slice(0, 4) }, quorum);
});
afterAll(() => home.remove());

const read = (...later: RosterVersion[]): string =>
  readRosterChain(home.genesis, home.identity.verifierKey.text, [...home.versions, ...later])
    .digest;

const chain = (...later: RosterVersion[]) => {
  try {
    return read(...later);
  } catch (error) {
    return error;
  }
};

test("ST-69: a chain from the genesis to a version that a quorum wanted is followed", () => {
  expect(read()).toBe(home.genesis);
  expect(read(second)).toBe(digestOf(second.document));
});

test("ST-68: another genesis than the configured one is refused", () => {
  const [first] = home.versions;
  const changed = json({
    ...(JSON.parse(Buffer.from(first!.document).toString()) as object),
    rules: { roster: 1, policy: 1, resume: 1, ceremonies: {} },
  });
  const forged = {
    document: changed,
    signatures: home.rosterSignatures(changed, ["alice", "bob", "carol", "dora", "erin"]),
  };
  const key = home.identity.verifierKey.text;
  expect(() => readRosterChain(home.genesis, key, [forged])).toThrow(/not the genesis/);
  expect(readRosterChain(digestOf(changed), key, [forged]).digest).toBe(digestOf(changed));
  expect(() => readRosterChain(home.genesis, key, [])).toThrow(/no version/);
  const unsigned = { ...first!, signatures: first!.signatures.slice(1) };
  expect(() => readRosterChain(home.genesis, key, [unsigned])).toThrow(/alice has not signed/);
});

test("a keeper whose identity key no version names is refused", () => {
  const other = noteSigner("ca.example.com/keeper", generateKeyPairSync("ed25519").privateKey);
  expect(() => readRosterChain(home.genesis, other.verifierKey.text, home.versions)).toThrow(
    /no version names the identity key/,
  );
});

test("ST-69: too few signers, and the same signer often, are too few", () => {
  const operators = home.operators.slice(0, 4);
  const two = home.nextVersion({ operators }, ["alice", "bob"]);
  expect(chain(two)).toEqual(refused("roster-unsigned"));
  const often = home.nextVersion({ operators }, ["alice", "bob", "bob", "bob"]);
  expect(chain(often)).toEqual(refused("roster-unsigned"));
});

test("ST-69: people of version 2 only do not make version 2", () => {
  const newcomers = ["frank", "grace", "heidi"];
  const added = newcomers.map((id) => ({
    id,
    keys: [{ kind: "ssh", key: makeSshKey(join(home.directory, id)) }],
    roles: ["officer"],
  }));
  const version = home.nextVersion({ operators: [...home.operators, ...added] }, newcomers);
  const signed = { ...version, signatures: home.rosterSignatures(version.document, newcomers) };
  expect(chain(signed)).toEqual(refused("roster-unsigned", /too few people of version 1/));
  // And people of version 1 do, if the new ones have signed that they have their keys.
  const wanted = home.nextVersion({ operators: [...home.operators, ...added] }, quorum);
  expect(chain(wanted)).toEqual(refused("roster-unsigned", /frank has not signed/));
  const { document } = wanted;
  expect(chain({ ...wanted, signatures: home.rosterSignatures(document, newcomers) })).toBe(
    digestOf(document),
  );
});

test("ST-69: a version that is skipped, or comes without its ceremony or with another's, is refused", () => {
  const skipping = home.nextVersion({ version: 3 }, quorum);
  expect(chain(skipping)).toEqual(refused("roster-invalid", /does not follow/));
  const { ceremony, ...bare } = second;
  expect(chain(bare)).toEqual(refused("roster-invalid", /without its ceremony/));
  const other = home.nextVersion({ operators: home.operators.slice(1) }, quorum);
  expect(chain({ ...other, ceremony: ceremony! })).toEqual(
    refused("roster-invalid", /something else/),
  );
  const policy = home.nextVersion({}, quorum, { kind: "policy" });
  expect(chain(policy)).toEqual(refused("roster-invalid", /something else/));
  const older = home.nextVersion({}, quorum, { roster: `sha256:${"0".repeat(64)}` });
  expect(chain(older)).toEqual(refused("roster-invalid", /something else/));
});

test("ST-69: a ceremony that the keeper has not stated is none, whoever approves it", () => {
  const other = noteSigner("ca.example.com/keeper", generateKeyPairSync("ed25519").privateKey);
  const stated = home.note(JSON.parse(second.ceremony!.note.split("\n")[0]!) as object, other);
  const forged = { ...second, ceremony: { ...second.ceremony!, note: stated.note } };
  expect(chain(forged)).toEqual(refused("signature-invalid"));
});

test("a rejection by one of a quorum that is just enough leaves too few", () => {
  const { note } = second.ceremony!;
  const digest = digestOf(Buffer.from(note.split("\n")[0]!));
  const approvals = [
    ...second.ceremony!.approvals,
    home.approval(digest, "carol", { verdict: "reject", reason: "no", role: "operator" }),
  ];
  expect(chain({ ...second, ceremony: { note, approvals } })).toEqual(refused("roster-unsigned"));
});

test("ST-69: a replaced identity key signs from the version after on", () => {
  const next = noteSigner("ca.example.com/keeper", generateKeyPairSync("ed25519").privateKey);
  const before = JSON.parse(Buffer.from(home.versions[0]!.document).toString()) as {
    service: object;
  };
  const replaced = home.nextVersion(
    { service: { ...before.service, identity: next.verifierKey.text } },
    quorum,
  );
  const versions = [...home.versions, replaced];
  expect(
    readRosterChain(home.genesis, next.verifierKey.text, versions).document.service.identity,
  ).toBe(next.verifierKey.text);
});
