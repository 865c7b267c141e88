/** The sealed root of a development home, opened by its people: with the command, and with stock tools alone. */

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { digestOf } from "../../src/audit/digest.ts";
import type { CeremonyAnswer, InboxItem, UnlockAnswer } from "../../src/cli/people-answers.ts";
import { decodeShare, encodeShare } from "../../src/custody/sealed/share.ts";
import { buildTbsCertList } from "../../src/x509/certificate-list.ts";
import { parseTbsCertificate } from "../../src/x509/certificate.ts";
import { decodePem, encodePem } from "../../src/x509/pem.ts";
import { serialNumberHex } from "../../src/x509/serial-number.ts";
import { intermediateTbs, rootCrlTbs } from "../ceremony/artefacts.ts";
import { crossCheckCrl } from "../support/cross-check.ts";
import { buildSingleFile, HomePeople, type MisdirectedShare } from "../support/home-people.ts";
import { removeHome, startTestService, type RunningService } from "../support/service.ts";

const everybody = ["alice", "bob", "carol", "dora", "erin"] as const;
const docs = readFileSync(new URL("../../docs/custody.md", import.meta.url), "utf8");

/** For what the service does by itself. */
const WAIT = 20_000;

let service: RunningService;
let people: HomePeople;
let folder: string;
let keyId: string;
/** The second intermediate, whose certificate the first ceremony makes. */
let intermediate: { tbs: Uint8Array; serialNumber: string };

beforeAll(async () => {
  service = await startTestService();
  folder = join(service.home, "..");
  const command = join(folder, "countersign.mjs");
  buildSingleFile(command);
  people = new HomePeople(service, command);
  ({ keyId } = await people.key("root"));
});

afterAll(async () => {
  expect(await service.stop()).toBe(0);
  people.remove();
  removeHome(service.home);
});

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

function openssl(...parameters: string[]): string {
  return execFileSync("openssl", parameters, { cwd: folder, stdio: "pipe" }).toString();
}

function rootCertificate(): Uint8Array {
  return decodePem(readFileSync(service.files.rootCertificate, "utf8"), "CERTIFICATE");
}

function wholeSecond(days = 0): Date {
  return new Date(Math.floor(Date.now() / 1000) * 1000 + days * 86_400_000);
}

/** The share that somebody holds of the root. */
function shareOf(id: string): string {
  return people.shareText(id, people.shareFile(id, keyId));
}

/** A root's CRL as the public site serves it, once openssl has verified it with the root. */
async function servedCrl(): Promise<{ number: bigint; revoked: string[] }> {
  const pem = (await service.public("/crl/root.pem")).body.toString();
  await crossCheckCrl(pem, service.files.rootCertificate);
  const text = openssl("crl", "-in", file("root-crl.pem", pem), "-noout", "-text", "-crlnumber");
  return {
    number: BigInt(/^crlNumber=(0x[0-9A-F]+)$/m.exec(text)![1]!),
    revoked: [...text.matchAll(/Serial Number: ([0-9A-F]+)/g)].map(([, hex]) => hex!.toLowerCase()),
  };
}

test("ST-26, ST-27, ST-28, ST-30, ST-31: three people open the root with the command, whatever else is sent in between", async () => {
  const root = rootCertificate();
  const tbs = intermediateTbs(root);
  intermediate = { tbs, serialNumber: serialNumberHex(parseTbsCertificate(tbs).serialNumber) };
  const before = await servedCrl();
  const list = rootCrlTbs(root, before.number + 1n);

  const proposed = await people.json<CeremonyAnswer>(
    "alice",
    ...["ceremony", "propose", "sign", "--key", "root", "--reason", "intermediate G2"],
    ...["--tbs", file("g2.tbs", tbs), "--tbs", file("crl.tbs", list)],
  );
  expect(proposed).toMatchObject({ kind: "sign", state: "gathering", missing: { shares: 3 } });
  const unlock = await people.json<UnlockAnswer>("alice", "unlock", "open", proposed.id);

  // Everybody who holds a share is asked for it, and told what for.
  const waiting = await people.all(everybody, (id) =>
    people.json<{ items: InboxItem[] }>(id, "inbox"),
  );
  for (const [place, { items }] of waiting.entries()) {
    expect(items).toEqual([
      {
        what: "submit",
        ...{ ceremony: proposed.digest, unlock: unlock.digest, keyId, index: place + 1 },
        ...{ reason: "intermediate G2", until: expect.any(String) as unknown },
      },
    ]);
  }
  const invitation = await people.told("alice", "invite", unlock.id);
  expect(invitation).toContain(`\n    countersign submit ${unlock.id}\n`);
  expect(invitation).toContain("intermediate G2");

  await people.told("dora", "reject", proposed.id, "--reason", "not on a Sunday", "--yes");
  // The bytes that are to be signed are decoded before anything is signed.
  const shown = await people.told(
    "alice",
    ...["submit", unlock.id, "--yes"],
    ...["--artefact", join(folder, "g2.tbs"), "--artefact", join(folder, "crl.tbs")],
  );
  expect(shown).toContain("Test Issuing G2");
  expect(shown).toContain("2 shares");

  // What the command refuses, it does not send.
  const text = shareOf("bob");
  const mistyped = text.replace(/.$/, (last) => (last === "Q" ? "P" : "Q"));
  const recipient = people.recipientOf("bob");
  const share = file("mistyped.age", execFileSync("age", ["-r", recipient], { input: mistyped }));
  expect(await people.refusal("bob", "submit", unlock.id, "--share", share, "--yes")).toBe(
    "share-checksum",
  );

  // And what is sent without it is refused by name, while alice's share stays counted.
  const own = decodeShare(text);
  const named = { keyId: Buffer.from(keyId, "hex") };
  const wrong = Uint8Array.from(own.y);
  wrong[7]! ^= 1;
  const other = await people.propose({ kind: "window", keyId, window: aDay("crl", 1) }, "bob");
  const otherUnlock = await people.unlock(other.digest);
  const refusals: readonly (readonly [number, string, string, MisdirectedShare?])[] = [
    [422, "share-checksum", mistyped],
    [403, "share-not-yours", shareOf("carol")],
    [422, "share-wrong", encodeShare({ ...own, ...named }, { x: 2, y: wrong })],
    [422, "share-stale", encodeShare({ ...own, ...named, epoch: 2 }, own)],
    [422, "share-foreign", encodeShare({ ...own, keyId: Buffer.alloc(32, 7) }, own)],
    [422, "share-unreadable", text, { encryptedFor: otherUnlock.id }],
    [409, "submission-stale", text, { signedFor: otherUnlock.id }],
  ];
  for (const [status, code, sent, misdirected] of refusals) {
    const answer = await people.submit("bob", unlock.id, 2, sent, misdirected);
    expect([answer.status, answer.json()["code"]]).toEqual([status, code]);
    if (code !== "submission-stale") {
      const counts = { operator: "bob", given: ["alice"], threshold: 3, missing: 2 };
      expect(answer.json()).toMatchObject(counts);
    }
  }
  const again = await people.submit("alice", unlock.id, 1, shareOf("alice"));
  expect([again.status, again.json()["code"]]).toEqual([409, "share-repeated"]);
  const counted = await people.get<UnlockAnswer>(`/v1/unlocks/${unlock.id}`);
  expect(counted).toMatchObject({ state: "gathering", missing: { shares: 2 } });
  expect(counted.people.filter(({ state }) => state === "given")).toMatchObject([
    { operator: "alice" },
  ]);
  const alerts = await people.entries("alert");
  expect(alerts.map(({ data }) => data)).toEqual([
    { code: "share-not-yours", operator: "bob" },
    { code: "share-wrong", operator: "bob" },
  ]);

  await people.told("bob", "submit", unlock.id, "--yes");
  await people.told("erin", "submit", unlock.digest, "--yes");
  await vi.waitFor(async () => {
    expect((await people.ceremony(proposed.id)).state).toBe("published");
  }, WAIT);

  const { results = [], people: said } = await people.ceremony(proposed.id);
  expect(said).toMatchObject([
    { operator: "alice", state: "given" },
    { operator: "bob", state: "given" },
    { operator: "carol", state: "waiting" },
    { operator: "dora", state: "rejected" },
    { operator: "erin", state: "given" },
  ]);
  expect(results.map((result) => result.tbs)).toEqual([digestOf(tbs), digestOf(list)]);
  // The root's own certificate vouches for what came of it, and the service has it.
  const signed = encodePem("CERTIFICATE", Buffer.from(results[0]!.signed, "base64"));
  expect(
    openssl(
      "verify",
      "-x509_strict",
      "-CAfile",
      service.files.rootCertificate,
      file("g2.pem", signed),
    ),
  ).toContain("OK");
  const stored = await people.get<{ certificate: string; state: string }>(
    `/v1/issuers/root/certificates/${intermediate.serialNumber}`,
  );
  expect(stored).toMatchObject({ certificate: signed, state: "issued" });
  expect(await servedCrl()).toEqual({ number: before.number + 1n, revoked: [] });
  expect(await people.key("root")).toMatchObject({ state: "locked", operations: [] });
  await people.told("bob", "abort", other.id, "--reason", "served its purpose", "--yes");
  expect(await people.ceremony(other.id)).toMatchObject({ state: "aborted" });
});

test("ST-40: when three of five reject it, a ceremony is over", async () => {
  const { id, digest } = await people.propose({ kind: "window", keyId, window: aDay("crl", 1) });
  const { id: unlock } = await people.unlock(digest);
  for (const [place, person] of ["carol", "dora", "erin"].entries()) {
    const { state } = await people.json<CeremonyAnswer>(
      person,
      ...["reject", id, "--reason", "no CRL is due", "--yes"],
    );
    expect(state).toBe(place < 2 ? "gathering" : "rejected");
  }
  expect(await people.refusal("alice", "submit", unlock, "--yes")).toBe("unlock-closed");
});

test("an intermediate is revoked by a CRL that a ceremony signs", async () => {
  const before = await servedCrl();
  const tbs = buildTbsCertList({
    issuerCertificate: rootCertificate(),
    thisUpdate: wholeSecond(),
    nextUpdate: wholeSecond(180),
    number: before.number + 1n,
    entries: [
      {
        serialNumber: Buffer.from(intermediate.serialNumber, "hex"),
        revocationDate: wholeSecond(),
        reason: "cessationOfOperation",
      },
    ],
  });
  const artefacts = [{ tbs: Buffer.from(tbs).toString("base64") }];
  const { id, digest } = await people.propose({ kind: "sign", keyId, artefacts });
  const unlock = await people.unlock(digest);
  for (const person of ["carol", "dora", "erin"] as const) {
    const index = everybody.indexOf(person) + 1;
    expect((await people.submit(person, unlock.id, index, shareOf(person))).status).toBe(202);
  }
  await vi.waitFor(async () => {
    expect((await people.ceremony(id)).state).toBe("published");
  }, WAIT);
  expect(await servedCrl()).toEqual({
    number: before.number + 1n,
    revoked: [intermediate.serialNumber],
  });
  const check = ["-crl_check", "-CRLfile", "root-crl.pem"];
  const root = ["-CAfile", service.files.rootCertificate];
  expect(openssl("verify", ...check, ...root, service.files.issuingCertificate)).toContain("OK");
  expect(() => openssl("verify", ...check, ...root, "g2.pem")).toThrow("certificate revoked");
});

const [submitting] = [...docs.matchAll(/```sh\n(.*?)```/gs)].map(([, text]) => text!);
const [approving, locking] = [...docs.matchAll(/```bash\n(.*?)```/gs)].map(([, text]) => text!);
/** What the other commands use of the first: settings and functions. */
const beginning = submitting!.slice(0, submitting!.indexOf("# The unlock:"));

/** Has three people give their shares with the commands of the docs, and nothing else. */
async function openWithStockTools(unlock: string): Promise<void> {
  for (const [place, id] of (["bob", "carol", "dora"] as const).entries()) {
    const { status, stdout, stderr } = await people.stock(id, submitting!, {
      ID: unlock,
      INDEX: String(everybody.indexOf(id) + 1),
      AGE_IDENTITY: people.fileOf(id, "age.key"),
      SHARE_FILE: people.shareFile(id, keyId),
    });
    expect([status, stderr]).toEqual([0, expect.not.stringContaining("curl:")]);
    expect(stdout).toContain(`"shares":${2 - place}`);
  }
  await vi.waitFor(async () => {
    expect(await people.get("/v1/issuers/root")).toMatchObject({ state: "open" });
  }, WAIT);
}

/** Has the service make the root's next CRL, if the key is open for it. */
async function nextCrl(): Promise<unknown> {
  const answer = await people.send("/v1/issuers/root/crl", {});
  return answer.json()["code"] ?? answer.status;
}

test("CUSTODY 8.3: with curl, age, openssl, ssh-keygen, jq and xxd alone three people open a window, in which the root's CRLs are made", async () => {
  const before = await servedCrl();
  expect(await nextCrl()).toBe("key-locked");
  const { id, digest } = await people.propose({ kind: "window", keyId, window: aDay("crl", 2) });
  const approval = await people.stock("erin", beginning + approving!, { ID: id, ROLE: "officer" });
  expect([approval.status, approval.stdout]).toEqual([0, expect.stringContaining('"missing":')]);
  await openWithStockTools((await people.unlock(digest)).id);
  expect(await people.ceremony(id)).toMatchObject({ state: "unlocked" });

  expect(await nextCrl()).toBe(201);
  expect(await servedCrl()).toEqual({
    number: before.number + 1n,
    revoked: before.revoked, // a ceremony said so
  });
  // The second is the last.
  expect(await nextCrl()).toBe(201);
  await vi.waitFor(async () => {
    expect(await people.ceremony(id)).toMatchObject({ state: "locked" });
  }, WAIT);
  expect(await nextCrl()).toBe("key-locked");
  expect(await people.key("root")).toMatchObject({ state: "locked", operations: [] });
});

test("CUSTODY 8.3: with the same tools any one of them locks it again, at once", async () => {
  const { id, digest } = await people.propose({ kind: "window", keyId, window: aDay("crl", 9) });
  await openWithStockTools((await people.unlock(digest)).digest);
  expect(service.processes().signers).toHaveLength(2);
  const { status, stderr } = await people.stock("erin", beginning + locking!, { KEY: keyId });
  expect([status, stderr]).toEqual([0, expect.not.stringContaining("curl:")]);
  expect(service.processes().signers).toHaveLength(1);
  expect(await nextCrl()).toBe("key-locked");
  await vi.waitFor(async () => {
    expect(await people.ceremony(id)).toMatchObject({ state: "locked" });
  }, WAIT);
});

test("ST-80: the log accounts for all that was done here", async () => {
  const key = readFileSync(service.files.logKey, "utf8").trim();
  const { status, stdout } = await people.run(
    "bob",
    ...["verify", "--database", service.files.database, "--key", key],
  );
  expect([status, stdout]).toEqual([0, expect.stringContaining("LOG-11")]);
});

function aDay(operation: string, max: number): object {
  const now = Date.now();
  return {
    operations: [{ operation, max }],
    notBefore: new Date(now).toISOString(),
    notAfter: new Date(now + 86_400_000).toISOString(),
    idleSeconds: 600,
  };
}
