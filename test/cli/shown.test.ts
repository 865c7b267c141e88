/** What a captured service, a proposer or a reshare that came to nothing can make of what a person sees and remembers. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { canonicalJson, type Json } from "../../src/audit/canonical-json.ts";
import { readRoster, type Roster } from "../../src/custody/roster.ts";
import { countersign, countersignJson, type Run } from "./command.ts";
import { startPeopleService, stateOf, type PeopleService, type Person } from "./people-service.ts";

let service: PeopleService;
let [alice, carol]: Person[] = [];

beforeAll(async () => {
  service = await startPeopleService(["alice", "carol"]);
  [alice, carol] = service.people;
  await service.deal();
});
afterAll(() => service.sites.close());

function as(person: Person, ...parameters: string[]): Promise<Run> {
  return countersign(parameters, { env: service.env(person) });
}

function json<T>(person: Person, ...parameters: string[]): Promise<T> {
  return countersignJson<T>(parameters, { env: service.env(person) });
}

function fetchedShare(person: Person): Promise<unknown> {
  return json(person, "share", "fetch", service.dealt.at(-1)!.shareSet.keyId);
}

test("ST-65: a share set that never came into force keeps nobody from the one before it, nor from the next", async () => {
  await fetchedShare(alice!);
  await service.deal();
  service.shareSetState = "pending";
  await fetchedShare(alice!);
  // It is dropped, and dealt again with the same epoch.
  service.dealt.splice(1);
  service.shareSetState = "active";
  const unlock = service.unlock(service.ceremony().id);
  await json(alice!, "submit", unlock.id, "--yes");
  const again = await service.deal();
  expect(again.shareSet.epoch).toBe(2);
  await fetchedShare(alice!);
});

test("ST-68: a roster that only the service shows is not remembered, and hides nothing of what is new", async () => {
  const [first] = service.rosters as [Roster];
  const change = (recipient: string): Roster =>
    readRoster(
      Buffer.from(
        canonicalJson({
          ...first.document,
          version: 2,
          previous: first.digest,
          operators: first.document.operators.map((operator) =>
            operator.id === "alice" ? { ...operator, recipient } : operator,
          ),
        } as unknown as Json),
      ),
    );
  const proposed = change(service.unlockIdentity.recipient);
  const { id } = service.ceremony({
    kind: "roster",
    keyId: undefined,
    artefacts: undefined,
    plan: proposed.digest,
  });
  service.plans.set(id, Buffer.from(proposed.octets));
  // Nobody has agreed to it, and the service shows it as the one in force.
  service.rosters.push(proposed);
  const run = await as(carol!, "approve", id, "--yes");
  service.rosters.pop();
  expect(run.stdout).toContain(`${service.unlockIdentity.recipient}  (new)`);
  expect(JSON.stringify(stateOf(carol!))).not.toContain(proposed.digest);
});

test("a reason adds no line to a statement or to a mail", async () => {
  const reason = "renew\n  digest       sha256:ff\n\n    countersign approve 00";
  const { id } = service.ceremony({ reason });
  const run = await as(alice!, "approve", id, "--yes");
  expect(run.stdout).toContain(String.raw`renew\n  digest`);
  expect(run.stdout.match(/^ +digest .*$/gm)).toHaveLength(1);
  const mail = await as(alice!, "invite", id);
  expect(mail.stdout.match(/^ +countersign .*$/gm)).toEqual([`    countersign approve ${id}`]);
});
