/** Who the people are: enrolments, and the roster that follows another. CUSTODY.md 3.2, step 0, and 8.4. */

import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { namespaces } from "../../src/custody/statement.ts";
import { digestOf } from "../custody/keeper-home.ts";
import { json, makePeople, type Person } from "../support/people.ts";
import { refused } from "../support/refused.ts";
import { address, as, openCeremonyHome, type CeremonyHome } from "./home.ts";

/** Somebody who is in no roster yet. */
function newcomer(home: CeremonyHome, id = "fred"): Person {
  return makePeople(join(home.home.directory, "newcomers"), [id]).person(id);
}

function enrolment(person: Person, change: object = {}) {
  return person.signed(namespaces.enrol, {
    type: "countersign/enrolment/v1",
    operator: person.id,
    at: new Date().toISOString(),
    service: "test.example",
    key: person.publicKey,
    recipient: person.recipient,
    ...change,
  });
}

async function proof(home: CeremonyHome, person: Person, id: string, by = person) {
  const file = await home.domain.enrolments.challenge(id);
  const answer = execFileSync("age", ["-d", "-i", person.ageFile], { input: file });
  return by.signed(namespaces.enrol, {
    type: "countersign/recipient-proof/v1",
    operator: person.id,
    at: new Date().toISOString(),
    log: await home.seen(),
    enrolment: id,
    recipient: person.recipient,
    answer: digestOf(answer),
  });
}

/** The next version, with one more person. */
function withPerson(home: CeremonyHome, person: Person): Buffer {
  const { inForce } = home.running.rosters;
  return json({
    ...inForce.document,
    version: inForce.document.version + 1,
    previous: inForce.digest,
    operators: [
      ...inForce.document.operators,
      {
        id: person.id,
        keys: [{ kind: "ssh", key: person.publicKey }],
        recipient: person.recipient,
        roles: ["officer"],
      },
    ],
  });
}

test("somebody new asks to be enrolled, proves the recipient, comes into the roster, and may hold a share", async () => {
  await using home = await openCeremonyHome();
  const fred = newcomer(home);
  const { enrolments } = home.domain;
  const id = await enrolments.request(enrolment(fred), address);
  await expect(
    enrolments.prove(id, await proof(home, fred, id, home.home.people.person("bob")), address),
  ).rejects.toEqual(refused("signature-invalid"));
  expect((await enrolments.prove(id, await proof(home, fred, id), address)).state).toBe("proved");

  const plan = withPerson(home, fred);
  await expect(home.propose({ kind: "roster", plan })).rejects.toEqual(refused("roster-unsigned"));
  const { digest } = await home.propose({
    kind: "roster",
    plan,
    signatures: [{ operator: "fred", signature: fred.sign(namespaces.roster, plan) }],
  });
  await expect(home.domain.ceremonies.plan(digest)).resolves.toEqual(plan);
  expect((await home.approve("alice", digest)).state).toBe("gathering");
  expect((await home.approve("bob", digest)).state).toBe("applied");
  expect(home.failures).toEqual([]);
  expect(home.domain.roster.current()).toMatchObject({ version: 2, digest: digestOf(plan) });
  const { keeper } = home.running;
  expect((await keeper.status()).roster).toEqual({ version: 2, digest: digestOf(plan) });
  expect((await home.entries("roster.changed")).at(-1)).toMatchObject({
    data: { version: 2, roster: digestOf(plan), ceremony: digest },
  });
  // The next start shows both versions.
  await home.restart();
  expect(home.domain.roster.chain()).toHaveLength(2);
  expect(await home.domain.inbox.of(as("fred"))).toEqual([]);
});

test("a new key of somebody needs a challenge of its own before the recipient counts as theirs", async () => {
  await using home = await openCeremonyHome();
  const fred = newcomer(home);
  const plan = withPerson(home, fred);
  const { digest } = await home.propose({
    kind: "roster",
    plan,
    signatures: [{ operator: "fred", signature: fred.sign(namespaces.roster, plan) }],
  });
  await home.approve("alice", digest);
  await home.approve("bob", digest);
  await home.domain.tick();
  const [item] = await home.domain.inbox.of(as("fred"));
  expect(item).toMatchObject({ what: "prove" });
  await home.domain.enrolments.prove(
    item!.enrolment!,
    await proof(home, fred, item!.enrolment!),
    address,
  );
  expect(await home.domain.inbox.of(as("fred"))).toEqual([]);
});

test("a proof by a stranger's key proves nothing for somebody of the roster, even with their age identity", async () => {
  await using home = await openCeremonyHome({ prove: ["alice", "carol"] });
  const { recipient, ageFile } = home.home.people.person("bob");
  const stranger = {
    ...makePeople(join(home.home.directory, "strangers"), ["bob"]).person("bob"),
    recipient,
    ageFile,
  };
  const { enrolments } = home.domain;
  const id = await enrolments.request(enrolment(stranger), address);
  await enrolments.prove(id, await proof(home, stranger, id), address);
  await expect(home.propose({ kind: "generate", plan: home.plan() })).rejects.toEqual(
    refused("recipient-refused", /bob/),
  );
});

test.for([
  { name: "of another service", change: { service: "other.example" }, code: "enrolment-refused" },
  { name: "whose key did not sign it", change: { key: undefined }, code: "statement-malformed" },
  {
    name: "of an SSH key as recipient",
    change: { recipient: "ssh-ed25519 AAAA" },
    code: "statement-malformed",
  },
  {
    name: "with a recipient whose checksum is wrong",
    change: { recipient: "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq" },
    code: "recipient-refused",
  },
] as const)("ST-18: an enrolment $name is refused", async ({ change, code }) => {
  await using home = await openCeremonyHome({ ids: ["alice"], prove: [] });
  const fred = newcomer(home);
  await expect(home.domain.enrolments.request(enrolment(fred, change), address)).rejects.toEqual(
    refused(code),
  );
  expect((await home.domain.enrolments.list()).map(({ operator }) => operator)).toEqual(["alice"]);
});

test("enrolments are limited by address, and stand in no log", async () => {
  await using home = await openCeremonyHome({ ids: ["alice"], prove: [] });
  const fred = newcomer(home);
  const size = await home.reads.logSize();
  for (let times = 0; times < 10; times++) {
    await home.domain.enrolments.request(enrolment(fred), address);
  }
  await expect(home.domain.enrolments.request(enrolment(fred), address)).rejects.toEqual(
    refused("rate-limited"),
  );
  await home.domain.enrolments.request(enrolment(fred), "192.0.2.2");
  expect(await home.reads.logSize()).toBe(size);
});

test("a wrong answer to a challenge proves nothing", async () => {
  await using home = await openCeremonyHome({ ids: ["alice"], prove: [] });
  const { enrolments, inbox } = home.domain;
  const [item] = await inbox.of(as("alice"));
  const alice = home.home.people.person("alice");
  const signed = await proof(home, alice, item!.enrolment!);
  const wrong = JSON.parse(Buffer.from(signed.statement).toString()) as object;
  await expect(
    enrolments.prove(
      item!.enrolment!,
      alice.signed(namespaces.enrol, { ...wrong, answer: digestOf(Buffer.of()) }),
      address,
    ),
  ).rejects.toEqual(refused("enrolment-refused"));
  expect(await inbox.of(as("alice"))).toEqual([item]);
});

test("a roster that another has overtaken fails, and changes nothing", async () => {
  await using home = await openCeremonyHome();
  const [fred, gina] = [newcomer(home), newcomer(home, "gina")];
  const proposals = [];
  for (const person of [fred, gina]) {
    const plan = withPerson(home, person);
    proposals.push(
      await home.propose({
        kind: "roster",
        plan,
        signatures: [{ operator: person.id, signature: person.sign(namespaces.roster, plan) }],
      }),
    );
  }
  const [first, second] = proposals;
  await home.approve("alice", first!.digest);
  await home.approve("bob", first!.digest);
  await home.approve("alice", second!.digest);
  expect((await home.approve("bob", second!.digest)).state).toBe("failed");
  expect(home.domain.roster.current().version).toBe(2);
});

test("ST-39: whoever has left the roster counts no more, in what they said before", async () => {
  await using home = await openCeremonyHome();
  const plan = home.plan({}, ["alice", "bob", "dora"]);
  const { digest } = await home.propose({ kind: "generate", plan }, "erin");
  await home.approve("alice", digest);
  await home.approve("bob", digest);
  const { inForce } = home.running.rosters;
  const next = json({
    ...inForce.document,
    version: 2,
    previous: inForce.digest,
    operators: inForce.document.operators.filter(({ id }) => id !== "bob"),
  });
  const roster = await home.propose({ kind: "roster", plan: next });
  await home.approve("alice", roster.digest);
  expect((await home.approve("carol", roster.digest)).state).toBe("applied");
  expect((await home.approve("dora", digest)).state).toBe("rejected");
});
