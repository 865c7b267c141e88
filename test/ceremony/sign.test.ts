/** Shares open a sealed key, and it signs what was agreed to: CUSTODY.md 6.2. */

import { X509Certificate } from "node:crypto";
import { expect, test } from "vitest";
import type { LogEntry } from "../../src/audit/entry.ts";
import type { CeremonyView } from "../../src/ceremony/view.ts";
import { digestOf } from "../custody/keeper-home.ts";
import { refused } from "../support/refused.ts";
import { parseCertificateList } from "../../src/x509/certificate-list.ts";
import {
  readCertificationRequest,
  verifyCertificationRequest,
} from "../../src/x509/certification-request.ts";
import {
  intermediateTbs,
  publicKeyOf,
  requestInfo,
  rootCrlTbs,
  rootTbs,
  strangersRoot,
  unsignedRoot,
} from "./artefacts.ts";
import { as, openSealedHome, type CeremonyHome } from "./home.ts";

/** The type of a record, and the state that it says. */
function step({ type, data }: LogEntry): string {
  const state: unknown = data !== undefined && "state" in data ? data.state : undefined;
  return typeof state === "string" ? `${type} ${state}` : type;
}

/** A day's work: a root, its first CRL, an intermediate, a request to have it certified by another. */
async function dayOf(home: CeremonyHome & { readonly shareSet: string }): Promise<Uint8Array[]> {
  const publicKey = await publicKeyOf(home, home.shareSet);
  const root = rootTbs(publicKey);
  const unsigned = unsignedRoot(root, publicKey);
  return [root, rootCrlTbs(unsigned, 1n), intermediateTbs(unsigned), requestInfo(publicKey)];
}

async function proposeDay(
  home: CeremonyHome & { readonly keyId: string; readonly shareSet: string },
): Promise<{ view: CeremonyView; artefacts: Uint8Array[] }> {
  const artefacts = await dayOf(home);
  const view = await home.propose({
    kind: "sign",
    keyId: home.keyId,
    artefacts: artefacts.map((tbs) => ({ tbs })),
  });
  return { view, artefacts };
}

test("two shares of three open the key for a day's work, all of it is stored, and the key is locked again", async () => {
  await using home = await openSealedHome({ issuer: "root" });
  const { view, artefacts } = await proposeDay(home);
  const unlock = await home.domain.unlocks.open(view.digest, undefined, as("erin"));
  expect(await home.domain.inbox.of(as("bob"))).toMatchObject([
    { what: "submit", ceremony: view.digest, unlock: unlock.digest, index: 2 },
  ]);
  expect(await home.submit("alice", unlock.digest)).toMatchObject({
    state: "gathering",
    missing: { shares: 1 },
  });
  const last = await home.submit("carol", unlock.digest);
  expect(home.failures).toEqual([]);
  expect(last.state).toBe("opened");
  const done = await home.domain.ceremonies.view(view.digest);
  expect(done).toMatchObject({ state: "published", missing: { roles: {}, shares: 0 } });
  expect(done.results!.map(({ tbs }) => tbs)).toEqual(artefacts.map(digestOf));
  const [root, crl, intermediate, request] = done.results!.map(({ der }) => der);
  const rootCertificate = new X509Certificate(root!);
  expect(rootCertificate.verify(rootCertificate.publicKey)).toBe(true);
  expect(new X509Certificate(intermediate!).verify(rootCertificate.publicKey)).toBe(true);
  expect(parseCertificateList(crl!).crlNumber).toBe(1n);
  verifyCertificationRequest(readCertificationRequest(request!));
  expect(home.published.map(({ issuer }) => issuer)).toEqual(["root"]);
  expect(Buffer.compare(home.published[0]!.crl, crl!)).toBe(0);
  expect((await home.reads.latestCrl("root"))?.number).toBe(1n);
  expect((await home.reads.issuerCertificates()).map(({ kind }) => kind)).toEqual([
    "root",
    "intermediate",
  ]);
  expect(await home.domain.custody.key(home.keyId)).toMatchObject({ state: "locked" });

  const entries = await home.entries();
  const from = entries.findLastIndex(({ type }) => type === "ceremony.opened");
  expect(entries.slice(from).map(step)).toEqual([
    "ceremony.opened",
    "unlock.opened",
    "share.accepted",
    "share.accepted",
    "ceremony.step unlocking",
    "key.unlocked",
    "unlock.closed opened",
    "ceremony.step unlocked",
    ...artefacts.map(() => "sign.intent"),
    "ceremony.step signed",
    "ceremony.step verified",
    ...artefacts.map(() => "sign.done"),
    "ceremony.closed published",
    "key.locked",
  ]);
  expect(entries.find(({ type }) => type === "key.unlocked")).toMatchObject({
    data: { kind: "sign", people: ["alice", "carol"] },
  });
});

test("approvals that the rules ask for count before and after the shares", async () => {
  await using home = await openSealedHome({
    issuer: "root",
    rules: { ceremonies: { sign: { officer: 1, witness: 1 } } },
  });
  const { view } = await proposeDay(home);
  const unlock = await home.domain.unlocks.open(view.digest, undefined, as("alice"));
  await home.approve("dora", view.digest, { role: "officer" });
  await home.submit("alice", unlock.digest);
  await home.submit("bob", unlock.digest);
  expect(await home.domain.ceremonies.view(view.digest)).toMatchObject({
    state: "gathering",
    missing: { roles: { witness: 1 }, shares: 0 },
  });
  expect((await home.approve("erin", view.digest, { role: "witness" })).state).toBe("published");
});

test("an artefact that the gate refuses is not proposed; one that fails at the last moment leaves nothing", async () => {
  await using home = await openSealedHome({ issuer: "root" });
  const publicKey = await publicKeyOf(home, home.shareSet);
  const root = rootTbs(publicKey);
  await expect(
    home.propose({
      kind: "sign",
      keyId: home.keyId,
      artefacts: [{ tbs: rootCrlTbs(unsignedRoot(root, publicKey), 1n) }],
    }),
  ).rejects.toEqual(refused("ceremony-refused", /no certificate of a CA yet/));
  await expect(
    home.propose({ kind: "sign", keyId: home.keyId, artefacts: [{ tbs: root }, { tbs: root }] }),
  ).rejects.toEqual(refused("ceremony-refused", /twice/));
  await expect(
    home.propose({ kind: "sign", keyId: home.keyId, artefacts: [{ tbs: Buffer.from("no DER") }] }),
  ).rejects.toEqual(refused("ceremony-refused", /no TBSCertificate/));
  // An intermediate of another root: nobody can tell before the root is signed.
  const { digest } = await home.propose({
    kind: "sign",
    keyId: home.keyId,
    artefacts: [{ tbs: root }, { tbs: intermediateTbs(strangersRoot()) }],
  });
  const unlock = await home.domain.unlocks.open(digest, undefined, as("alice"));
  await home.submit("alice", unlock.digest);
  await home.submit("bob", unlock.digest);
  expect((await home.domain.ceremonies.view(digest)).state).toBe("failed");
  expect(home.failures).toHaveLength(1);
  expect(await home.reads.issuerCertificates()).toEqual([]);
  expect(await home.reads.pendingIntents()).toEqual({ certificates: [], crls: [] });
  expect(await home.entries("sign.abandoned")).toHaveLength(1);
  expect(await home.entries("sign.done")).toEqual([]);
  expect(await home.domain.custody.key(home.keyId)).toMatchObject({ state: "locked" });
});

test("what a stop leaves of an unlock is over; what people approved stands, and shares are gathered again", async () => {
  await using home = await openSealedHome({
    issuer: "root",
    rules: { ceremonies: { sign: { officer: 1 } } },
  });
  const { view } = await proposeDay(home);
  await home.approve("dora", view.digest, { role: "officer" });
  const first = await home.domain.unlocks.open(view.digest, undefined, as("alice"));
  await home.submit("alice", first.digest);
  await home.restart((config) => {
    config.keys = [{ issuer: "root", keyId: home.keyId }];
  });
  expect((await home.domain.unlocks.view(first.digest)).state).toBe("ended");
  expect(await home.domain.ceremonies.view(view.digest)).toMatchObject({
    state: "gathering",
    missing: { roles: {}, shares: 2 },
  });
  const second = await home.domain.unlocks.open(view.digest, undefined, as("alice"));
  await home.submit("alice", second.digest);
  await home.submit("bob", second.digest);
  expect((await home.domain.ceremonies.view(view.digest)).state).toBe("published");
});
