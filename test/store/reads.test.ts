import { createHash, randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import type { CertificateFilter } from "../../src/issuance/records.ts";
import { createReads } from "../../src/store/reads.ts";
import {
  certificateRow,
  createHome,
  createTestKeeper,
  crlIntent,
  done,
  entry,
  intent,
  leaf,
  revocation,
  start,
} from "./fixture.ts";

test("a certificate's record comes back as it was written", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const reads = createReads(home.database);
  const row = certificateRow({
    requester: null,
    csr: null,
    subject: 'CN="quoted" \u{1f512} \\, it\'s',
    names: [
      { kind: "uri", value: "spiffe://example.com/a b" },
      { kind: "dns", value: "*.example.com" },
      { kind: "dns", value: "example.com" },
    ],
  });
  const index = await journal.append({ kind: "certificate-intent", leaf: leaf("i"), row });
  const { names: _, ...plain } = row;
  const pending = {
    ...plain,
    index,
    names: [
      { kind: "dns", value: "*.example.com" },
      { kind: "dns", value: "example.com" },
      { kind: "uri", value: "spiffe://example.com/a b" },
    ],
    state: "pending",
    doneIndex: null,
    certificate: null,
    certificateSha256: null,
    revocation: null,
  };
  expect(await reads.certificate(row.issuer, row.serialNumber)).toEqual(pending);
  expect(await reads.pendingIntents()).toEqual({ certificates: [pending], crls: [] });

  const certificate = randomBytes(700);
  const doneIndex = await journal.append(done(index, certificate));
  const certificateSha256 = createHash("sha256").update(certificate).digest();
  const issued = { ...pending, state: "issued", doneIndex, certificate, certificateSha256 };
  expect(await reads.certificate(row.issuer, row.serialNumber)).toEqual(issued);
  expect(await reads.certificateBySha256(certificateSha256)).toEqual(issued);
  expect(await reads.certificatesByKey(row.spkiSha256)).toEqual([issued]);
  expect(await reads.pendingIntents()).toEqual({ certificates: [], crls: [] });

  await journal.append(revocation(row.serialNumber));
  expect(await reads.certificate(row.issuer, row.serialNumber)).toEqual({
    ...issued,
    revocation: { reason: "superseded", revocationDate: start },
  });
});

test("what is not there is undefined or empty", async () => {
  await using home = await createHome();
  const reads = createReads(home.database);
  expect(await reads.certificate("issuing", "41")).toBeUndefined();
  expect(await reads.certificateBySha256(randomBytes(32))).toBeUndefined();
  expect(await reads.certificatesByKey(randomBytes(32))).toEqual([]);
  expect(await reads.issuerCertificates()).toEqual([]);
  expect(await reads.listCertificates({ limit: 10 })).toEqual({ certificates: [] });
  expect(await reads.revocation("issuing", "41")).toBeUndefined();
  expect(await reads.revokedForCrl("issuing")).toEqual([]);
  expect(await reads.latestCrl("issuing")).toBeUndefined();
  expect(await reads.highestCrlNumber("issuing")).toBeUndefined();
  expect(await reads.idempotency("deploy", "k", start)).toBeUndefined();
  expect(await reads.requesterStatements()).toEqual([]);
  expect(await reads.entries(0, 10)).toEqual([]);
  expect(await reads.tile(0, 0)).toBeUndefined();
  expect(await reads.checkpoint()).toBeUndefined();
  expect(await reads.logSize()).toBe(0);
  expect(await reads.counts()).toEqual({ entries: 0, issued: 0, pending: 0, revoked: 0 });
});

test("issuers' own certificates are found without looking at the leaves", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const reads = createReads(home.database);
  const root = await journal.append(intent({ issuer: "root", kind: "root" }));
  const intermediate = await journal.append(intent({ issuer: "root", kind: "intermediate" }));
  await journal.append(intent({ issuer: "root", kind: "intermediate" })); // never signed
  const issued = await journal.append(intent());
  for (const index of [root, intermediate, issued]) await journal.append(done(index));
  const found = await reads.issuerCertificates();
  expect(found.map(({ index }) => index)).toEqual([root, intermediate]);
});

test("searching: filters, states and pages", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  let now = start;
  const reads = createReads(home.database, () => now);
  const soon = new Date(start.getTime() + 60_000);
  const add = async (changes: Parameters<typeof intent>[0]) => {
    const index = await journal.append(intent(changes));
    await journal.append(done(index));
    return index;
  };
  const dns = (value: string) => ({ names: [{ kind: "dns", value }] });
  const a = await add({ serialNumber: "4a01", ...dns("a.example.com"), notAfter: soon });
  const b = await add({ serialNumber: "4a02", ...dns("b.example.com"), profile: "client" });
  const c = await add({ serialNumber: "4b01", ...dns("a.b.example.com"), requester: "other" });
  const d = await add({ serialNumber: "4a01", ...dns("notexample.com"), issuer: "second" });
  const e = await add({ serialNumber: "4c01", names: [{ kind: "ip", value: "192.0.2.7" }] });
  const pending = await journal.append(intent({ serialNumber: "4d01", ...dns("example.com") }));
  await journal.append(revocation("4a02"));
  const find = async (filter: Omit<CertificateFilter, "limit">) => {
    const { certificates } = await reads.listCertificates({ limit: 100, ...filter });
    return certificates.map(({ index }) => index);
  };
  expect(await find({})).toEqual([pending, e, d, c, b, a]);
  expect(await find({ issuer: "issuing" })).toEqual([pending, e, c, b, a]);
  expect(await find({ issuer: "second" })).toEqual([d]);
  expect(await find({ requester: "other" })).toEqual([c]);
  expect(await find({ profile: "client" })).toEqual([b]);
  expect(await find({ name: "a.example.com" })).toEqual([a]);
  expect(await find({ name: "example.com" })).toEqual([pending]);
  expect(await find({ name: "*.example.com" })).toEqual([c, b, a]);
  expect(await find({ name: "*.b.example.com" })).toEqual([c]);
  expect(await find({ name: "*.com" })).toEqual([pending, d, c, b, a]);
  expect(await find({ name: "192.0.2.7" })).toEqual([e]);
  expect(await find({ name: "%" })).toEqual([]);
  expect(await find({ serialPrefix: "4a" })).toEqual([d, b, a]);
  expect(await find({ serialPrefix: "4a01", issuer: "issuing" })).toEqual([a]);
  expect(await find({ serialPrefix: "" })).toHaveLength(6);
  expect(await find({ state: "valid" })).toEqual([e, d, c, a]);
  expect(await find({ state: "revoked" })).toEqual([b]);
  expect(await find({ state: "expired" })).toEqual([]);
  now = new Date(soon.getTime() + 1);
  expect(await find({ state: "expired" })).toEqual([a]);
  expect(await find({ state: "valid" })).toEqual([e, d, c]);

  const seen: number[] = [];
  let cursor: number | undefined;
  do {
    const page = await reads.listCertificates({
      limit: 4,
      ...(cursor === undefined ? {} : { cursor }),
    });
    expect(page.certificates.length).toBeLessThanOrEqual(4);
    seen.push(...page.certificates.map(({ index }) => index));
    cursor = page.next;
  } while (cursor !== undefined);
  expect(seen).toEqual([pending, e, d, c, b, a]);
  expect((await reads.listCertificates({ limit: 6 })).next).toBeUndefined();
});

test("revocations come back whole, and for a CRL in the order of their serial numbers", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const reads = createReads(home.database);
  const row = {
    issuer: "issuing",
    keyId: "ab".repeat(32),
    serialNumber: "50",
    reason: "keyCompromise",
    revocationDate: start,
    invalidityDate: new Date("2026-11-01T00:00:00.000Z"),
    requestedBy: "operator:alice",
    notAfter: new Date("2026-12-01T00:00:00.000Z"),
  };
  const logIndex = await journal.append({ kind: "revocation", leaf: leaf("r"), row });
  await journal.append(revocation("41"));
  await journal.append(revocation("40", { issuer: "second" }));
  expect(await reads.revocation("issuing", "50")).toEqual({ ...row, logIndex });
  const revoked = await reads.revokedForCrl("issuing");
  expect(revoked.map(({ serialNumber }) => serialNumber)).toEqual(["41", "50"]);
  const { issuer: _1, keyId: _2, requestedBy: _3, ...record } = row;
  expect(revoked[1]).toEqual(record);
  expect(revoked[0]?.invalidityDate).toBeNull();
  const later = await reads.revokedForCrl("issuing", new Date(row.notAfter.getTime() + 1));
  expect(later.map(({ serialNumber }) => serialNumber)).toEqual(["41"]);
  expect(await reads.revokedForCrl("issuing", row.notAfter)).toHaveLength(2);
});

test("CRL numbers: the highest that was intended, the latest that was issued", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const reads = createReads(home.database);
  const item = crlIntent(2n ** 53n + 1n);
  const first = await journal.append(item);
  const crl = randomBytes(500);
  const doneIndex = await journal.append({
    kind: "crl-done",
    leaf: leaf("d"),
    intentIndex: first,
    crl,
  });
  const second = await journal.append(crlIntent(2n ** 53n + 2n));
  await journal.append({ kind: "crl-abandoned", leaf: leaf("a"), intentIndex: second });
  const third = await journal.append(crlIntent(2n ** 53n + 3n));
  await journal.append(crlIntent(1n, "second"));
  expect(await reads.highestCrlNumber("issuing")).toBe(2n ** 53n + 3n);
  expect(item).toMatchObject({ row: { number: 2n ** 53n + 1n } });
  expect(await reads.latestCrl("issuing")).toEqual({
    ...(item.kind === "crl-intent" ? item.row : {}),
    intentIndex: first,
    doneIndex,
    state: "issued",
    crl,
    crlSha256: createHash("sha256").update(crl).digest(),
  });
  expect(await reads.latestCrl("second")).toBeUndefined();
  const { crls } = await reads.pendingIntents();
  expect(crls.map(({ intentIndex }) => intentIndex)).toEqual([third, third + 1]);
});

test("requesters' statements come back in their sequence", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const rows = [1, 2].map((sequence) => ({
    sequence,
    statement: randomBytes(100),
    signature: "-----BEGIN SSH SIGNATURE-----\n",
    name: "deploy",
    action: sequence === 1 ? ("set" as const) : ("remove" as const),
  }));
  for (const row of rows) await journal.append({ kind: "requester", leaf: leaf("r"), row });
  expect(await createReads(home.database).requesterStatements()).toEqual(
    rows.map((row, logIndex) => ({ ...row, logIndex })),
  );
});

test("entries are read by range, and tiles as far as they are filled", async () => {
  await using home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const reads = createReads(home.database);
  await Promise.all(Array.from({ length: 260 }, (_, i) => journal.append(entry(`${i}`))));
  expect(await reads.entries(255, 258)).toEqual([leaf("255"), leaf("256"), leaf("257")]);
  expect(await reads.entries(258, 300)).toEqual([leaf("258"), leaf("259")]);
  expect((await reads.tile(0, 0))?.length).toBe(8192);
  expect((await reads.tile(0, 1))?.length).toBe(4 * 32);
  expect((await reads.tile(1, 0))?.length).toBe(32);
  expect(await reads.logSize()).toBe(260);
});

test("a read sees what was committed and nothing that is still being written", async () => {
  await using home = await createHome();
  const { reader, writer } = home.database;
  await writer.all("BEGIN IMMEDIATE");
  await writer.all("INSERT INTO audit_entry VALUES (0, x'00')");
  expect(await reader.all("SELECT count(*) AS n FROM audit_entry")).toEqual([{ n: 0 }]);
  await writer.all("COMMIT");
  expect(await reader.all("SELECT count(*) AS n FROM audit_entry")).toEqual([{ n: 1 }]);
});

// The plans of searches that must stay fast when the table is large: none reads every row or sorts them.
test.for([
  { name: "newest of an issuer", filter: { issuer: "issuing" } },
  { name: "newest of a requester", filter: { requester: "deploy" } },
  { name: "by name", filter: { name: "a.example.com" } },
  { name: "by suffix", filter: { name: "*.example.com" } },
  { name: "by name and issuer", filter: { name: "a.example.com", issuer: "issuing" } },
])("no search sorts the table: $name", async ({ filter }) => {
  await using home = await createHome();
  const seen: string[] = [];
  const { scanner } = home.database;
  const reads = createReads({
    ...home.database,
    scanner: {
      ...scanner,
      all: async (sql, parameters) => {
        const plan = await scanner.all<{ detail: string }>(`EXPLAIN QUERY PLAN ${sql}`, parameters);
        seen.push(...plan.map(({ detail }) => detail));
        return [];
      },
    },
  });
  await reads.listCertificates({ ...filter, limit: 10 });
  expect(seen.join("\n")).not.toMatch(/TEMP B-TREE/);
});
