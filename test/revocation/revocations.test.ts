/** Who may revoke what, when and why: on a real database, with certificates that were issued there. */

import {
  createPublicKey,
  generateKeyPairSync,
  hash,
  randomBytes,
  sign,
  type KeyObject,
} from "node:crypto";
import { expect, test } from "vitest";
import { canonicalJson, type JsonObject } from "../../src/audit/canonical-json.ts";
import type { Caller } from "../../src/issuance/caller.ts";
import {
  POSSESSION_MILLISECONDS,
  type Possession,
  type RevokeCommand,
} from "../../src/revocation/revocations.ts";
import { parseCertificateList } from "../../src/x509/certificate-list.ts";
import { alice, asRequester, openDomain, other, type Domain } from "../issuance/domain.ts";
import { intent } from "../store/fixture.ts";
import { DAY, testRequester } from "../support/software-ca.ts";

interface Given {
  readonly domain: Domain;
  readonly serialNumber: string;
  readonly certificate: Uint8Array;
  readonly notBefore: Date;
  readonly key: KeyObject;
  readonly revoke: (change?: Partial<RevokeCommand>) => ReturnType<Domain["revocations"]["revoke"]>;
}

/** A certificate of `deploy`, whose key is at hand. */
async function issued(domain: Domain): Promise<Given> {
  const keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const answer = await domain.issue({}, { dns: ["web.example.test"], ...keys });
  const { serialNumber, certificate, notBefore } = answer;
  return {
    domain,
    serialNumber,
    certificate,
    notBefore,
    key: keys.privateKey,
    revoke: (change) =>
      domain.revocations.revoke({
        caller: alice,
        issuer: "issuing",
        serialNumber,
        reason: "superseded",
        requestId: "0",
        ...change,
      }),
  };
}

const refused = (code: string): unknown => expect.objectContaining({ code });

async function entryTypes(domain: Domain): Promise<string[]> {
  return (await domain.entries()).map(({ type }) => type);
}

// Who

const holder = (serialNumber: string, issuer = "issuing"): Caller => ({
  kind: "certificate",
  id: `sha256:${"00".repeat(32)}`,
  via: "mtls",
  issuer,
  serialNumber,
});

test.for<{ name: string; caller: (serialNumber: string) => Caller; may: boolean }>([
  { name: "an operator", caller: () => alice, may: true },
  { name: "the requester who asked for it", caller: () => asRequester(testRequester), may: true },
  {
    name: "that requester, also where it may no longer ask this issuer",
    caller: () => asRequester({ ...testRequester, issuers: [] }),
    may: true,
  },
  { name: "another requester", caller: () => asRequester(other), may: false },
  {
    name: "another requester that may revoke any of this issuer",
    caller: () => asRequester({ ...other, revoke: "any" }),
    may: true,
  },
  {
    name: "another requester that may revoke any, of other issuers",
    caller: () => asRequester({ ...other, revoke: "any", issuers: ["elsewhere"] }),
    may: false,
  },
  {
    name: "another requester that may revoke any, of no issuer",
    caller: () => asRequester({ ...other, revoke: "any", issuers: [] }),
    may: false,
  },
  { name: "the holder of the certificate", caller: holder, may: true },
  { name: "the holder of another certificate", caller: () => holder("40"), may: false },
  {
    name: "the holder of one with its serial number from another issuer",
    caller: (serialNumber) => holder(serialNumber, "elsewhere"),
    may: false,
  },
])("$name may revoke a certificate: $may", async ({ caller, may }) => {
  await using domain = await openDomain();
  const { serialNumber, revoke } = await issued(domain);
  const asking = caller(serialNumber);
  const outcome = revoke({ caller: asking });
  if (may) {
    await expect(outcome).resolves.toMatchObject({ serialNumber, repeated: false });
    const record = (await domain.entries()).find(({ type }) => type === "certificate.revoked");
    expect(record?.actor).toEqual({ kind: asking.kind, id: asking.id, via: asking.via });
  } else {
    await expect(outcome).rejects.toEqual(refused("forbidden"));
    expect(await domain.reads.revocation("issuing", serialNumber)).toBeUndefined();
    expect(await entryTypes(domain)).not.toContain("certificate.revoked");
  }
});

test.for(["root", "intermediate"] as const)(
  "a certificate of a CA (%s) is revoked by nobody here",
  async (kind) => {
    await using domain = await openDomain();
    const serialNumber = `40${randomBytes(19).toString("hex")}`;
    await domain.journal.append(
      intent({ serialNumber, kind, requester: kind === "root" ? null : other.name }),
    );
    for (const caller of [alice, asRequester({ ...other, revoke: "any" }), holder(serialNumber)]) {
      const outcome = domain.revocations.revoke({
        caller,
        issuer: "issuing",
        serialNumber,
        reason: "superseded",
        requestId: "0",
      });
      await expect(outcome).rejects.toEqual(refused("forbidden"));
    }
    expect(await domain.reads.revocation("issuing", serialNumber)).toBeUndefined();
  },
);

test("a serial number of nobody is unknown", async () => {
  await using domain = await openDomain();
  const { revoke } = await issued(domain);
  await expect(revoke({ serialNumber: "40".repeat(20) })).rejects.toEqual(
    refused("certificate-unknown"),
  );
});

test.for<{ name: string; caller: Caller; reason: RevokeCommand["reason"]; may: boolean }>([
  { name: "an operator", caller: alice, reason: "privilegeWithdrawn", may: true },
  {
    name: "a requester",
    caller: asRequester(testRequester),
    reason: "privilegeWithdrawn",
    may: false,
  },
  { name: "an operator", caller: alice, reason: "cACompromise", may: false },
  { name: "an operator", caller: alice, reason: "certificateHold", may: false },
  { name: "an operator", caller: alice, reason: "removeFromCRL", may: false },
])("CRL-33: $name may give the reason $reason: $may", async ({ caller, reason, may }) => {
  await using domain = await openDomain();
  const { revoke } = await issued(domain);
  const outcome = revoke({ caller, reason });
  if (may) await expect(outcome).resolves.toMatchObject({ reason });
  else await expect(outcome).rejects.toEqual(refused("reason-refused"));
});

// When

test("a second revocation with the same reason repeats the first, another reason is refused", async () => {
  await using domain = await openDomain();
  const { revoke } = await issued(domain);
  const first = await revoke();
  domain.advance(DAY);
  expect(await revoke()).toMatchObject({ logIndex: first.logIndex, repeated: true });
  await expect(revoke({ reason: "keyCompromise" })).rejects.toEqual(refused("revocation-conflict"));
  expect((await entryTypes(domain)).filter((type) => type === "certificate.revoked")).toHaveLength(
    1,
  );
});

test("a repetition with another invalidityDate is refused, with the same one or none it is a repetition", async () => {
  await using domain = await openDomain();
  const [dated, undated] = [await issued(domain), await issued(domain)];
  const date = dated.notBefore;
  const later = new Date(+date + 1_000);
  domain.advance(DAY);
  await dated.revoke({ invalidityDate: date });
  domain.advance(2_000);
  await undated.revoke();
  const repeated = { repeated: true, invalidityDate: date };
  await expect(dated.revoke()).resolves.toMatchObject(repeated);
  // A CRL has no fractions of a second, so they are no other date.
  const fraction = new Date(+date + 999);
  for (const invalidityDate of [date, fraction]) {
    await expect(dated.revoke({ invalidityDate })).resolves.toMatchObject(repeated);
  }
  for (const { revoke, serialNumber } of [dated, undated]) {
    const before = await domain.reads.revocation("issuing", serialNumber);
    await expect(revoke({ invalidityDate: later })).rejects.toEqual(refused("revocation-conflict"));
    expect(await domain.reads.revocation("issuing", serialNumber)).toEqual(before);
  }
});

test("two revocations at the same time are one", async () => {
  await using domain = await openDomain();
  const { revoke } = await issued(domain);
  const answers = await Promise.all([revoke(), revoke()]);
  expect(answers.map(({ repeated }) => repeated)).toEqual([false, true]);
});

test("a certificate that has ended is not revoked, up to its end it is", async () => {
  await using domain = await openDomain();
  const early = await issued(domain);
  const late = await issued(domain);
  const { notAfter } = (await domain.reads.certificate("issuing", late.serialNumber))!;
  domain.clock.now = new Date(notAfter.getTime() - 1);
  await expect(early.revoke()).resolves.toMatchObject({ repeated: false });
  domain.clock.now = notAfter;
  await expect(late.revoke()).rejects.toEqual(refused("certificate-expired"));
  // What was revoked in time stays an answer.
  await expect(early.revoke()).resolves.toMatchObject({ repeated: true });
});

// invalidityDate

test.for<{ name: string; date: (given: Given) => Date }>([
  { name: "in the future", date: ({ domain }) => new Date(domain.clock.now.getTime() + 1) },
  { name: "before the certificate began", date: ({ notBefore }) => new Date(+notBefore - 1) },
  { name: "that a CRL cannot carry", date: () => new Date("1000-01-01T00:00:00Z") },
  { name: "before the year 0", date: () => new Date("0000-01-01T00:00:00+23:59") },
  { name: "that is none", date: () => new Date(Number.NaN) },
])("an invalidityDate $name is refused, and the next CRL is made", async ({ date }) => {
  await using domain = await openDomain();
  const given = await issued(domain);
  await expect(given.revoke({ invalidityDate: date(given) })).rejects.toEqual(
    refused("request-malformed"),
  );
  expect(await domain.reads.revocation("issuing", given.serialNumber)).toBeUndefined();
  await expect(domain.schedule.publish("issuing", alice)).resolves.toMatchObject({ number: "1" });
});

test("an invalidityDate is kept in whole seconds, from the certificate's begin to now", async () => {
  await using domain = await openDomain();
  const first = await issued(domain);
  const second = await issued(domain);
  await first.revoke({ invalidityDate: first.notBefore });
  domain.advance(1_234);
  await second.revoke({ invalidityDate: domain.clock.now });
  const stored = async ({ serialNumber }: Given) =>
    (await domain.reads.revocation("issuing", serialNumber))!.invalidityDate;
  expect(await stored(first)).toEqual(first.notBefore);
  const whole = new Date(Math.floor(+domain.clock.now / 1000) * 1000);
  expect(await stored(second)).toEqual(whole);
  // The record and the CRL say the same.
  const records = (await domain.entries()).filter(({ type }) => type === "certificate.revoked");
  expect(records[1]).toMatchObject({ data: { invalidityDate: whole.toISOString() } });
  domain.advance(2_000);
  await domain.schedule.publish("issuing", alice);
  const list = parseCertificateList(domain.schedule.current("issuing").der);
  const dates = new Map(
    [...list.entries()].map(({ serialNumber, invalidityDate }) => [
      Buffer.from(serialNumber).toString("hex"),
      invalidityDate,
    ]),
  );
  expect(dates).toEqual(
    new Map([
      [first.serialNumber, first.notBefore],
      [second.serialNumber, whole],
    ]),
  );
});

// Proof of possession

function proofOf(
  { domain, certificate, key }: Given,
  change: JsonObject = {},
  signedWith: KeyObject = key,
): Possession {
  const statement = Buffer.from(
    canonicalJson({
      type: "countersign/revocation/v1",
      certificate: `sha256:${hash("sha256", certificate)}`,
      reason: "keyCompromise",
      at: domain.clock.now.toISOString(),
      ...change,
    }),
  );
  return { kind: "possession", statement, signature: sign("sha256", statement, signedWith) };
}

test("whoever proves the private key revokes the certificate, and the proof is in the log", async () => {
  await using domain = await openDomain();
  const given = await issued(domain);
  const proof = proofOf(given);
  await given.revoke({ caller: proof, reason: "keyCompromise" });
  const record = (await domain.entries()).find(({ type }) => type === "certificate.revoked");
  expect(record).toMatchObject({
    actor: {
      kind: "certificate",
      id: `sha256:${hash("sha256", given.certificate)}`,
      via: "possession",
    },
    evidence: {
      statement: Buffer.from(proof.statement).toString("base64"),
      signature: Buffer.from(proof.signature).toString("base64"),
    },
  });
});

const stranger = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;

test.for<{
  name: string;
  change?: (given: Given) => JsonObject;
  signedWith?: KeyObject;
  command?: Partial<RevokeCommand>;
  code: string;
}>([
  {
    name: "about another certificate",
    change: () => ({ certificate: `sha256:${"00".repeat(32)}` }),
    code: "statement-stale",
  },
  {
    name: "with another reason",
    change: () => ({ reason: "superseded" }),
    code: "statement-stale",
  },
  {
    name: "of more than five minutes ago",
    change: ({ domain }) => ({
      at: new Date(+domain.clock.now - POSSESSION_MILLISECONDS - 1).toISOString(),
    }),
    code: "statement-stale",
  },
  {
    name: "of more than five minutes from now",
    change: ({ domain }) => ({
      at: new Date(+domain.clock.now + POSSESSION_MILLISECONDS + 1).toISOString(),
    }),
    code: "statement-stale",
  },
  { name: "signed with another key", signedWith: stranger, code: "signature-invalid" },
  {
    name: "with a time as people write it",
    change: ({ domain }) => ({ at: domain.clock.now.toUTCString() }),
    code: "statement-malformed",
  },
  {
    name: "with a time in another zone",
    change: ({ domain }) => ({ at: domain.clock.now.toISOString().replace("Z", "+00:00") }),
    code: "statement-malformed",
  },
  {
    name: "with a day that is not",
    change: () => ({ at: "2026-02-30T20:00:00Z" }),
    code: "statement-malformed",
  },
  { name: "with a year alone", change: () => ({ at: "2026" }), code: "statement-malformed" },
  {
    name: "of another type",
    change: () => ({ type: "countersign/revocation/v2" }),
    code: "statement-malformed",
  },
  { name: "with an unknown field", change: () => ({ note: "x" }), code: "statement-malformed" },
  {
    name: "with a malformed invalidityDate",
    change: () => ({ invalidityDate: "2026" }),
    code: "statement-malformed",
  },
  {
    name: "with an invalidityDate beside it that is not signed",
    command: { invalidityDate: new Date("2026-11-21T19:58:00Z") },
    code: "request-malformed",
  },
  {
    name: "with an invalidityDate beside it that is not the signed one",
    change: () => ({ invalidityDate: "2026-11-21T19:57:00Z" }),
    command: { invalidityDate: new Date("2026-11-21T19:58:00Z") },
    code: "request-malformed",
  },
  {
    name: "with an invalidityDate in the future",
    change: ({ domain }) => ({ invalidityDate: new Date(+domain.clock.now + 1000).toISOString() }),
    code: "request-malformed",
  },
])("a proof of possession $name is refused", async (row) => {
  await using domain = await openDomain();
  const given = await issued(domain);
  const caller = proofOf(given, row.change?.(given), row.signedWith);
  await expect(given.revoke({ caller, reason: "keyCompromise", ...row.command })).rejects.toEqual(
    refused(row.code),
  );
  expect(await domain.reads.revocation("issuing", given.serialNumber)).toBeUndefined();
});

test.for([-POSSESSION_MILLISECONDS, POSSESSION_MILLISECONDS])(
  "a proof of possession counts %i milliseconds away from its time",
  async (away) => {
    await using domain = await openDomain();
    const given = await issued(domain);
    const at = new Date(+domain.clock.now - away).toISOString();
    const caller = proofOf(given, { at });
    await expect(given.revoke({ caller, reason: "keyCompromise" })).resolves.toBeDefined();
  },
);

test.for([true, false])(
  "the invalidityDate of a signed statement counts (repeated beside it: %s)",
  async (beside) => {
    await using domain = await openDomain();
    const given = await issued(domain);
    const text = "2026-11-21T19:58:00Z";
    const caller = proofOf(given, { invalidityDate: text });
    const answer = await given.revoke({
      caller,
      reason: "keyCompromise",
      ...(beside ? { invalidityDate: new Date(text) } : {}),
    });
    expect(answer.invalidityDate).toEqual(new Date(text));
  },
);

test("a proof is that of one certificate: it does not revoke another of the same key", async () => {
  await using domain = await openDomain();
  const given = await issued(domain);
  const again = await domain.issue(
    {},
    {
      dns: ["web.example.test"],
      privateKey: given.key,
      publicKey: createPublicKey(given.key),
    },
  );
  const caller = proofOf(given);
  await expect(
    given.revoke({ caller, serialNumber: again.serialNumber, reason: "keyCompromise" }),
  ).rejects.toEqual(refused("statement-stale"));
});
