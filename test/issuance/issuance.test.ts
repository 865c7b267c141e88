/** One certificate from request to record, on a real database: what must hold whatever goes wrong on the way. */

import { hash, X509Certificate } from "node:crypto";
import { expect, test } from "vitest";
import { CountersignError } from "../../src/errors.ts";
import type { Caller } from "../../src/issuance/caller.ts";
import { IDEMPOTENCY_MILLISECONDS, validity } from "../../src/issuance/issuance.ts";
import { parseLifetime } from "../../src/policy/lifetime.ts";
import { openDatabase } from "../../src/store/database.ts";
import { createReads } from "../../src/store/reads.ts";
import { parseCertificate } from "../../src/x509/certificate.ts";
import { signatureAlgorithmFrom } from "../../src/x509/signature-algorithm.ts";
import { DAY, keyTypes, testRequester } from "../support/software-ca.ts";
import { alice, asRequester, openDomain, other, policyDigest, underKey } from "./domain.ts";

/** What an error says, as far as callers see it. */
const refused = (code: string, members: object = {}): unknown =>
  expect.objectContaining({ code, members: expect.objectContaining(members) });

const hashes = {
  "P-256": "SHA-256",
  "P-384": "SHA-384",
  "P-521": "SHA-512",
  "RSA-2048": "SHA-256",
  Ed25519: undefined,
} as const;

test.for(keyTypes)(
  "CRT-07: a leaf of an issuer with a key of type %s verifies, and the hash follows the key",
  async (type) => {
    await using domain = await openDomain({ type });
    const { certificate, chain } = await domain.issue();
    const issuing = new X509Certificate(chain[0]!);
    expect(new X509Certificate(certificate).verify(issuing.publicKey)).toBe(true);
    expect(new X509Certificate(certificate).checkIssued(issuing)).toBe(true);
    const algorithm = signatureAlgorithmFrom(parseCertificate(certificate).signatureAlgorithm)!;
    const expected = hashes[type]?.replace("-", "").toLowerCase() ?? null;
    expect(algorithm.hash).toBe(expected);
  },
);

// The order of intent, signature and result

test("DESIGN 2: the intent is on disk when the key is used, the result before anybody has it", async () => {
  await using domain = await openDomain();
  // A connection of its own: it sees what is committed and nothing else.
  const second = await openDatabase(domain.home.file);
  const outside = createReads(second);
  const seen: unknown[] = [];
  domain.hooks.sign = async ({ intentIndex, intent, tbs }) => {
    const [leaf] = await outside.entries(intentIndex, intentIndex + 1);
    expect(Buffer.from(leaf!)).toEqual(Buffer.from(intent));
    const { certificates } = await outside.pendingIntents();
    expect(certificates.map(({ index, tbsSha256 }) => [index, tbsSha256])).toEqual([
      [intentIndex, hash("sha256", tbs, "buffer")],
    ]);
    seen.push("signed");
  };
  const answer = await domain.issue();
  expect(seen).toEqual(["signed"]);
  const row = (await outside.certificate("issuing", answer.serialNumber))!;
  expect(row).toMatchObject({ state: "issued", doneIndex: answer.logIndex });
  expect(Buffer.from(row.certificate!)).toEqual(Buffer.from(answer.certificate));
  expect(answer.intentIndex).toBeLessThan(answer.logIndex);
  await second.close();
});

test("DESIGN 2: nobody has an answer before its result is written", async () => {
  await using domain = await openDomain();
  let release!: () => void;
  const writing = new Promise<void>((resolve) => (release = resolve));
  domain.hooks.append = (item) => (item.kind === "certificate-done" ? writing : Promise.resolve());
  let answered = false;
  const answer = domain.issue().then((given) => {
    answered = true;
    return given;
  });
  await expect.poll(() => domain.asked.length).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(answered).toBe(false);
  expect((await domain.records())[0]!.state).toBe("pending");
  release();
  expect((await answer).replayed).toBe(false);
});

test("DESIGN 2: where the intent cannot be written nothing is signed", async () => {
  await using domain = await openDomain();
  domain.hooks.append = async () => {
    throw new CountersignError("log-unavailable", "the disk is full");
  };
  await expect(domain.issue()).rejects.toEqual(refused("log-unavailable"));
  expect(domain.asked).toEqual([]);
  expect(await domain.entries()).toEqual([]);
});

test("a signer that refuses leaves sign.abandoned, and the caller hears why", async () => {
  await using domain = await openDomain();
  domain.hooks.sign = async () => {
    throw new CountersignError("key-locked", "the key is locked");
  };
  await expect(domain.issue()).rejects.toEqual(refused("key-locked"));
  const [intent, closed] = await domain.entries();
  expect([intent?.type, closed?.type]).toEqual(["sign.intent", "sign.abandoned"]);
  expect(closed).toMatchObject({
    actor: { kind: "requester", id: "deploy", via: "api-key" },
    subject: intent!.subject,
    data: { intent: 0, reason: "key-locked" },
  });
  expect((await domain.records())[0]!.state).toBe("abandoned");
  expect(domain.abandoned).toHaveLength(1);
});

test("the records of an issuance carry actor, rule, policy and the digests of what was signed", async () => {
  await using domain = await openDomain();
  const { serialNumber, certificate } = await domain.issue();
  const [intent, done] = await domain.entries();
  const actor = { kind: "requester", id: "deploy", via: "api-key" };
  const subject = { issuer: "issuing", keyId: domain.ca.issuingKey.keyId, serialNumber };
  expect(intent).toMatchObject({
    type: "sign.intent",
    actor,
    subject,
    data: {
      operation: "certificate",
      tbs: `sha256:${hash("sha256", domain.asked[0]!.tbs)}`,
      profile: "server",
      policy: policyDigest,
      rule: "requesters.deploy.names.dns.allow[0]",
    },
  });
  expect(done).toMatchObject({
    type: "sign.done",
    actor,
    subject,
    data: { intent: 0, certificate: `sha256:${hash("sha256", certificate)}` },
  });
});

test.for<{
  name: string;
  dns: string[];
  commonName?: string;
  code: string;
  rule: string;
  named?: string;
}>([
  {
    name: "a malformed name",
    dns: ["web.example.test", "a_b.example.test"],
    code: "name-malformed",
    rule: "SRV-04",
    named: "a_b.example.test",
  },
  {
    name: "a name twice",
    dns: ["web.example.test", "WEB.example.test"],
    code: "name-repeated",
    rule: "SRV-16",
    named: "web.example.test",
  },
  {
    name: "a hundred and one names",
    dns: Array.from({ length: 101 }, (_, index) => `n${index}.example.test`),
    code: "names-too-many",
    rule: "SRV-16",
  },
  {
    name: "a name that the policy denies",
    dns: ["web.secret.example.test"],
    code: "name-refused",
    rule: "issuers.issuing.names.dns.deny[0]",
    named: "web.secret.example.test",
  },
  {
    name: "an address as the common name alone",
    dns: ["web.example.test"],
    commonName: "127.0.0.1",
    code: "name-refused",
    rule: "SRV-06",
    named: "127.0.0.1",
  },
  {
    name: "a common name that is not safe to print",
    dns: ["web.example.test"],
    commonName: 'a"\u202e',
    code: "name-refused",
    rule: "SRV-06",
    named: "a\\u0022\\u202e",
  },
])("DESIGN 4: the refusal of $name says which rule decided, also in the log", async (row) => {
  await using domain = await openDomain();
  const { code, rule, named, dns, commonName } = row;
  const csr = { dns, ...(commonName === undefined ? {} : { commonName }) };
  await expect(domain.issue({}, csr)).rejects.toEqual(
    refused(code, { rule, ...(named === undefined ? {} : { name: named }) }),
  );
  const entries = await domain.entries();
  expect(entries).toHaveLength(1);
  expect(entries[0]).toMatchObject({
    type: "sign.refused",
    actor: { id: "deploy" },
    data: { code, rule, ...(named === undefined ? {} : { name: named }) },
  });
  expect(await domain.records()).toEqual([]);
});

// A result that cannot be written

/** A full disk for results; the function makes room. */
function fullForResults(domain: Awaited<ReturnType<typeof openDomain>>): () => void {
  domain.hooks.append = async (item) => {
    if (item.kind !== "certificate-done") return;
    throw new CountersignError("log-unavailable", "the disk is full");
  };
  return () => {
    domain.hooks.append = async () => {};
  };
}

test("a result that could not be written is written as soon as there is room", async () => {
  await using domain = await openDomain();
  const makeRoom = fullForResults(domain);
  await expect(domain.issue()).rejects.toEqual(refused("log-unavailable"));
  const [pending] = await domain.records();
  expect(pending!.state).toBe("pending");
  makeRoom();
  await expect
    .poll(async () => (await domain.records())[0]!.state, { timeout: 5_000 })
    .toBe("issued");
  expect(await domain.records()).toHaveLength(1);
  expect((await domain.records())[0]!.serialNumber).toBe(pending!.serialNumber);
});

test("a repetition under the Idempotency-Key gets the certificate whose result could not be written", async () => {
  await using domain = await openDomain();
  const makeRoom = fullForResults(domain);
  const ask = () => domain.issue(underKey("one"));
  await expect(ask()).rejects.toEqual(refused("log-unavailable"));
  await expect(ask()).rejects.toEqual(refused("log-unavailable"));
  expect(domain.asked).toHaveLength(1);
  makeRoom();
  const answer = await ask();
  expect(answer.replayed).toBe(true);
  expect(domain.asked).toHaveLength(1);
  expect((await domain.records()).map(({ serialNumber, state }) => [serialNumber, state])).toEqual([
    [answer.serialNumber, "issued"],
  ]);
});

test("requests that come at once are prepared a few at a time, and other work comes in between", async () => {
  await using domain = await openDomain();
  let round = 0;
  let counting = setImmediate(function next() {
    round++;
    counting = setImmediate(next);
  });
  const perRound = new Map<number, number>();
  domain.hooks.append = async (item) => {
    if (item.kind === "certificate-intent") perRound.set(round, (perRound.get(round) ?? 0) + 1);
  };
  await Promise.all(Array.from({ length: 12 }, () => domain.issue()));
  clearImmediate(counting);
  expect(Math.max(...perRound.values())).toBe(5);
});

test("CRT-03: forty certificates have forty serial numbers, of which no two begin alike", async () => {
  await using domain = await openDomain();
  const answers = await Promise.all(Array.from({ length: 40 }, () => domain.issue()));
  const beginnings = answers.map(({ serialNumber }) => serialNumber.slice(0, 16));
  expect(new Set(beginnings).size).toBe(40);
  expect(answers.map(({ serialNumber }) => serialNumber.length)).toEqual(Array(40).fill(40));
});

// Kept answers

test("the same Idempotency-Key gets the same certificate, another body is refused", async () => {
  await using domain = await openDomain();
  const first = await domain.issue(underKey("one"));
  const second = await domain.issue(underKey("one"));
  expect(second).toMatchObject({ serialNumber: first.serialNumber, replayed: true });
  await expect(domain.issue(underKey("one", "another"))).rejects.toEqual(
    refused("idempotency-key-reused"),
  );
  expect(await domain.records()).toHaveLength(1);
});

const certificateHolder: Caller = {
  kind: "certificate",
  id: "deploy",
  via: "mtls",
  issuer: "issuing",
  serialNumber: "40",
};

test.for<{ name: string; caller: Caller }>([
  { name: "an operator", caller: { kind: "operator", id: "deploy", via: "session" } },
  { name: "the holder of a certificate", caller: certificateHolder },
])("$name who is named like a requester is not given its kept answer", async ({ caller }) => {
  await using domain = await openDomain();
  await domain.issue(underKey("one"));
  await expect(domain.issue({ ...underKey("one"), caller })).rejects.toEqual(refused("forbidden"));
  await expect(domain.issue({ caller: alice })).rejects.toEqual(refused("forbidden"));
});

test("two requesters with one Idempotency-Key at the same time get a certificate each", async () => {
  await using domain = await openDomain();
  const [mine, theirs] = await Promise.all([
    domain.issue(underKey("one")),
    domain.issue({ ...underKey("one"), caller: asRequester(other) }),
  ]);
  expect(mine.serialNumber).not.toBe(theirs.serialNumber);
  expect([mine.replayed, theirs.replayed]).toEqual([false, false]);
  const owners = (await domain.records()).map(({ serialNumber, requester }) => [
    serialNumber,
    requester,
  ]);
  expect(new Map(owners as [string, string][])).toEqual(
    new Map([
      [mine.serialNumber, "deploy"],
      [theirs.serialNumber, "other"],
    ]),
  );
});

test("two requests at the same time under one Idempotency-Key are one issuance", async () => {
  await using domain = await openDomain();
  const [first, second] = await Promise.all([
    domain.issue(underKey("one")),
    domain.issue(underKey("one")),
  ]);
  expect(second).toMatchObject({ serialNumber: first.serialNumber, replayed: true });
  await expect(
    Promise.all([domain.issue(underKey("two")), domain.issue(underKey("two", "another"))]),
  ).rejects.toEqual(refused("idempotency-key-reused"));
});

test.for([
  { code: "idempotency-key-reused", change: underKey("one", "another"), issuer: "issuing" },
  { code: "issuer-unknown", change: { issuer: "another" }, issuer: "another" },
])("$code of a requester is in the log", async ({ code, change, issuer }) => {
  await using domain = await openDomain();
  await domain.issue(underKey("one"));
  await expect(domain.issue(change)).rejects.toEqual(refused(code));
  expect((await domain.entries()).at(-1)).toMatchObject({
    type: "sign.refused",
    actor: { id: "deploy" },
    subject: { issuer },
    data: { code },
  });
});

test("a kept answer is given whatever else is asked under its Idempotency-Key at the same time", async () => {
  await using domain = await openDomain();
  const first = await domain.issue(underKey("one"));
  const bodies = ["another", "the body", "a third", "the body", "the body", "another"];
  const answers = await Promise.allSettled(
    bodies.map((body) => domain.issue(underKey("one", body))),
  );
  expect(answers).toEqual(
    bodies.map((body) =>
      body === "the body"
        ? {
            status: "fulfilled",
            value: expect.objectContaining({ serialNumber: first.serialNumber, replayed: true }),
          }
        : { status: "rejected", reason: refused("idempotency-key-reused") },
    ),
  );
});

test("a refused request leaves its Idempotency-Key to another that waited for it", async () => {
  await using domain = await openDomain();
  const [bad, good] = await Promise.allSettled([
    domain.issue(underKey("one", "bad"), { dns: ["web.example.com"] }),
    domain.issue(underKey("one", "good")),
  ]);
  expect(bad).toEqual({ status: "rejected", reason: refused("name-refused") });
  expect(good).toMatchObject({ status: "fulfilled", value: { replayed: false } });
});

test("an intent without a result gets a new serial number under its Idempotency-Key", async () => {
  await using domain = await openDomain();
  domain.hooks.sign = async () => {
    throw new CountersignError("token-unavailable", "the token is away");
  };
  await expect(domain.issue(underKey("one"))).rejects.toEqual(refused("token-unavailable"));
  domain.hooks.sign = async () => {};
  const answer = await domain.issue(underKey("one"));
  expect(answer.replayed).toBe(false);
  const states = (await domain.records()).map(({ serialNumber, state }) => [serialNumber, state]);
  expect(states).toEqual([
    [answer.serialNumber, "issued"],
    [expect.not.stringMatching(answer.serialNumber), "abandoned"],
  ]);
  // And it is this one that is kept.
  const again = await domain.issue(underKey("one"));
  expect(again).toMatchObject({ serialNumber: answer.serialNumber, replayed: true });
});

test("SQLITE_FULL: nothing is signed that cannot be recorded, and with room again it goes on", async () => {
  await using domain = await openDomain();
  await domain.issue();
  await domain.journal.drain();
  const signed = domain.asked.length;
  const { writer } = domain.home.database;
  const [row] = await writer.all<{ page_count: number }>("PRAGMA page_count");
  await writer.all(`PRAGMA max_page_count = ${row!.page_count}`);
  // More than what the pages that are there have left.
  const dns = Array.from({ length: 100 }, (_, index) => `n${index}.example.test`);
  for (const attempt of [domain.issue({}, { dns }), domain.issue(underKey("one"), { dns })]) {
    await expect(attempt).rejects.toMatchObject({
      code: "log-unavailable",
      cause: { code: "SQLITE_FULL" },
    });
  }
  expect(domain.asked).toHaveLength(signed);
  expect(await domain.records()).toHaveLength(1);
  await writer.all("PRAGMA max_page_count = 1073741823");
  const answer = await domain.issue(underKey("one"), { dns });
  expect(answer.replayed).toBe(false);
  expect(domain.asked).toHaveLength(signed + 1);
  const types = (await domain.entries()).map(({ type }) => type);
  expect(types).toEqual(["sign.intent", "sign.done", "sign.intent", "sign.done"]);
});

test("refusals are not kept: a corrected request may use the key again", async () => {
  await using domain = await openDomain();
  const bad = underKey("one", "bad");
  await expect(domain.issue(bad, { dns: ["web.example.com"] })).rejects.toEqual(
    refused("name-refused"),
  );
  const good = await domain.issue(underKey("one", "good"));
  expect(good.replayed).toBe(false);
});

test("a key is kept for a day, then it issues anew", async () => {
  await using domain = await openDomain();
  const first = await domain.issue(underKey("one"));
  domain.advance(IDEMPOTENCY_MILLISECONDS);
  const kept = await domain.issue(underKey("one"));
  expect(kept).toMatchObject({ serialNumber: first.serialNumber, replayed: true });
  domain.advance(1);
  const anew = await domain.issue(underKey("one", "another"));
  expect(anew.replayed).toBe(false);
  expect(anew.serialNumber).not.toBe(first.serialNumber);
});

// Lifetimes

test("CRT-11: a default lifetime is cut at the issuer's end, one that was asked for is refused", async () => {
  await using domain = await openDomain({ issuerDays: 20 });
  const end = new Date(new X509Certificate(domain.ca.issuing).validTo);
  const { certificate, notAfter } = await domain.issue();
  expect(notAfter).toEqual(end);
  expect(parseCertificate(certificate).tbs.notAfter).toEqual(end);
  await expect(domain.issue({ lifetime: "30d" })).rejects.toEqual(
    refused("lifetime-refused", { rule: "CRT-11" }),
  );
  await expect(domain.issue({ lifetime: "91d" })).rejects.toEqual(
    refused("lifetime-refused", { rule: "profiles.server.lifetime.maximum" }),
  );
  const asked = await domain.issue({ lifetime: "10d" });
  expect(asked.notAfter.getTime() - asked.notBefore.getTime()).toBe(10 * DAY - 1000);
});

const begin = new Date("2026-11-21T20:00:00Z");
const after = (milliseconds: number): Date => new Date(begin.getTime() + milliseconds);
const profile = {
  lifetime: { default: parseLifetime("30d"), maximum: parseLifetime("90d") },
  backdate: 300,
};

test("CRT-11: notBefore is backdated, but never before the issuer's own", () => {
  const long = { notBefore: after(-DAY), notAfter: after(1000 * DAY) };
  expect(validity(begin, "server", profile, undefined, long)).toEqual({
    notBefore: after(-300_000),
    notAfter: after(-300_000 + 30 * DAY - 1000),
  });
  const young = { ...long, notBefore: after(-60_000) };
  expect(validity(begin, "server", profile, undefined, young).notBefore).toEqual(after(-60_000));
});

test.for<{ name: string; asked?: string; ends: number; rule: string }>([
  { name: "an issuer that has ended", ends: 0, rule: "CRT-11" },
  { name: "a lifetime that is over when it begins", asked: "5min", ends: 1000, rule: "CRT-11" },
  { name: "a lifetime beyond the issuer", asked: "90d", ends: 80, rule: "CRT-11" },
  {
    name: "a lifetime beyond the profile",
    asked: "90d 1s",
    ends: 1000,
    rule: "profiles.server.lifetime.maximum",
  },
])("$name is refused", ({ asked, ends, rule }) => {
  const issuer = { notBefore: after(-100 * DAY), notAfter: after(ends * DAY) };
  expect(() => validity(begin, "server", profile, asked, issuer)).toThrow(
    refused("lifetime-refused", { rule }) as Error,
  );
});

test("the longest lifetime that profile and issuer allow is granted as it was asked", () => {
  const issuer = { notBefore: after(-100 * DAY), notAfter: after(-300_000 + 90 * DAY - 1000) };
  expect(validity(begin, "server", profile, "90d", issuer).notAfter).toEqual(issuer.notAfter);
});

test("KEY-11: the key of a CA here is refused for a leaf", async () => {
  await using domain = await openDomain();
  const { privateKey } = domain.ca.issuingKey;
  const publicKey = new X509Certificate(domain.ca.issuing).publicKey;
  await expect(
    domain.issue({}, { dns: ["web.example.test"], privateKey, publicKey }),
  ).rejects.toEqual(refused("key-refused", { rule: "KEY-11" }));
});

test("a requester whose rights were withdrawn meanwhile is refused by the policy in force", async () => {
  await using domain = await openDomain();
  domain.policy.removeRequester("deploy");
  await expect(domain.issue({ caller: asRequester(testRequester) })).rejects.toEqual(
    refused("requester-unknown"),
  );
});
