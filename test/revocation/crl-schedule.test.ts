/** When CRLs are made, and what is on them: a real database, a clock that the test sets, keys in this process. */

import { randomBytes } from "node:crypto";
import { afterEach, expect, test, vi } from "vitest";
import { CountersignError } from "../../src/errors.ts";
import { IssuerSet } from "../../src/issuance/issuer.ts";
import type { SignRequest } from "../../src/issuance/keeper.ts";
import { CrlSchedule } from "../../src/revocation/crl-schedule.ts";
import { createReads } from "../../src/store/reads.ts";
import { buildTbsCertificate, certificateTemplate } from "../../src/x509/certificate-template.ts";
import { buildTbsCertList, parseCertificateList } from "../../src/x509/certificate-list.ts";
import { emptyName } from "../../src/x509/name.ts";
import { extKeyUsageOids } from "../../src/x509/oid.ts";
import { serialNumberFrom } from "../../src/x509/serial-number.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import { createHome, createTestKeeper, done, intent, revocation } from "../store/fixture.ts";
import {
  DAY,
  keyTypes,
  softwareCa,
  softwareKey,
  testPolicy,
  type SoftwareKeyType,
} from "../support/software-ca.ts";

const begin = new Date("2026-11-21T12:00:00Z");
const operator = { kind: "operator", id: "alice", via: "session" } as const;

const realSetTimeout = globalThis.setTimeout;

/** For what really happens, in the database, while timers are the test's. */
function settle(): Promise<void> {
  return new Promise((resolve) => realSetTimeout(resolve, 30));
}

afterEach(() => {
  vi.useRealTimers();
});

async function bench(type: SoftwareKeyType = "P-256", sealed = false) {
  const home = await createHome();
  const journal = await home.openLog(createTestKeeper());
  const ca = softwareCa(begin, type);
  const clock = { now: begin };
  let operations: ("certificate" | "crl")[] = sealed ? [] : ["certificate", "crl"];
  const now = () => clock.now;
  const reads = createReads(home.database, now);
  const issuers = new IssuerSet(
    () => [
      {
        issuer: "issuing",
        keyId: ca.issuingKey.keyId,
        state: "open",
        custody: sealed ? "sealed" : "token",
        operations,
        certificate: ca.issuing,
        chain: [ca.root],
      },
    ],
    testPolicy(),
    "http://127.0.0.1",
  );
  const asked: SignRequest[] = [];
  let refuse: Error | undefined;
  let last: Uint8Array | undefined;
  let otherKey: ReturnType<typeof softwareKey> | undefined;
  const keeper = {
    async sign(request: SignRequest) {
      asked.push(request);
      if (refuse !== undefined) throw refuse;
      const signature = (otherKey ?? ca.issuingKey).sign(request.tbs);
      last = assembleSigned(request.tbs, ca.algorithm, signature);
      return signature;
    },
    list: async () => last,
  };
  const failures: unknown[] = [];
  const parts = {
    issuers,
    journal,
    reads,
    keeper,
    policyDigest: `sha256:${"00".repeat(32)}`,
    now,
    failed: (_: string, error: unknown) => failures.push(error),
  };
  let schedule = await CrlSchedule.load(parts);
  return {
    home,
    journal,
    reads,
    ca,
    clock,
    asked,
    failures,
    get schedule() {
      return schedule;
    },
    async reload() {
      schedule = await CrlSchedule.load(parts);
    },
    /** What the grant of the key allows from now on. */
    allow(...allowed: ("certificate" | "crl")[]) {
      operations = allowed;
    },
    refuse(error: Error | undefined) {
      refuse = error;
    },
    signWith(key: ReturnType<typeof softwareKey> | undefined) {
      otherKey = key;
    },
    /** A certificate that ends at `notAfter`, recorded and revoked. */
    async revoked(
      notAfter: Date,
      invalidityDate: Date | null = null,
      revocationDate = begin,
    ): Promise<string> {
      const serialNumber = serialNumberFrom(randomBytes(20));
      const tbs = buildTbsCertificate(
        certificateTemplate({
          issuerCertificate: ca.issuing,
          keyUsage: ["digitalSignature"],
          extKeyUsage: [extKeyUsageOids.serverAuth],
          crlUrl: "http://127.0.0.1/crl/issuing.crl",
          subjectKeyIdentifier: false,
        }),
        {
          serialNumber,
          notBefore: begin,
          notAfter,
          subject: emptyName,
          publicKey: softwareKey("P-256").info,
          names: [{ kind: "dns", value: "web.example.test" }],
        },
      );
      const hex = Buffer.from(serialNumber).toString("hex");
      const index = await journal.append(intent({ serialNumber: hex, notBefore: begin, notAfter }));
      const certificate = assembleSigned(tbs, ca.algorithm, ca.issuingKey.sign(tbs));
      await journal.append(done(index, certificate));
      const item = revocation(hex);
      if (item.kind !== "revocation") throw new TypeError("not a revocation");
      await journal.append({
        ...item,
        row: { ...item.row, revocationDate, invalidityDate, notAfter },
      });
      return hex;
    },
    advance(milliseconds: number) {
      clock.now = new Date(clock.now.getTime() + milliseconds);
    },
    serialNumbers() {
      const list = parseCertificateList(schedule.current("issuing").der);
      return [...list.entries()].map((entry) => Buffer.from(entry.serialNumber).toString("hex"));
    },
    async [Symbol.asyncDispose]() {
      await schedule.stop();
      await journal.close();
      await home[Symbol.asyncDispose]();
    },
  };
}

test.for(keyTypes)(
  "an issuer with a key of type %s makes CRLs, the hash follows the key",
  async (type) => {
    await using given = await bench(type);
    const first = await given.schedule.publish("issuing", operator);
    expect(first.number).toBe("1");
    expect(first.nextUpdate.getTime() - first.thisUpdate.getTime()).toBe(7 * DAY);
  },
);

test("CRL-57, CRL-19: numbers and thisUpdate rise with every CRL", async () => {
  await using given = await bench();
  const first = await given.schedule.publish("issuing", operator);
  given.advance(1000);
  const second = await given.schedule.publish("issuing", operator);
  expect([first.number, second.number]).toEqual(["1", "2"]);
  expect(second.thisUpdate > first.thisUpdate).toBe(true);
});

test("CRL-40: an entry stays until it has been on a CRL made after its certificate's end, then it goes", async () => {
  await using given = await bench();
  const lasting = await given.revoked(new Date(begin.getTime() + 80 * DAY));
  const ending = await given.revoked(new Date(begin.getTime() + 2 * DAY));
  given.advance(1000);
  await given.schedule.publish("issuing", operator);
  expect(given.serialNumbers().toSorted()).toEqual([lasting, ending].toSorted());
  given.advance(3 * DAY);
  await given.schedule.publish("issuing", operator);
  expect(given.serialNumbers()).toContain(ending);
  given.advance(DAY);
  await given.schedule.publish("issuing", operator);
  expect(given.serialNumbers()).toEqual([lasting]);
  // The signer was shown the certificate of the entry that left.
  expect(given.asked.at(-1)!.dropped).toHaveLength(1);
  given.advance(DAY);
  await given.schedule.publish("issuing", operator);
  expect(given.serialNumbers()).toEqual([lasting]);
  expect(given.asked.at(-1)!.dropped).toBeUndefined();
});

test("a clock set back stops CRLs with a state of its own, and nothing is signed", async () => {
  await using given = await bench();
  await given.schedule.publish("issuing", operator);
  given.advance(-3_600_000);
  await expect(given.schedule.publish("issuing", operator)).rejects.toMatchObject({
    code: "clock-behind",
  });
  expect(given.asked).toHaveLength(1);
  expect(given.schedule.troubles()[0]!.trouble).toContain("clock");
});

test("CRL-19: a timer that fires a millisecond before the second is over fails no CRL", async () => {
  await using given = await bench();
  await given.schedule.publish("issuing", operator);
  given.advance(800);
  const second = given.schedule.publish("issuing", operator);
  given.advance(199);
  setTimeout(() => given.advance(1), 300);
  expect((await second).number).toBe("2");
  expect(given.failures).toEqual([]);
});

test("many revocations at once share CRLs", async () => {
  await using given = await bench();
  for (let count = 0; count < 20; count++)
    await given.revoked(new Date(begin.getTime() + 80 * DAY));
  given.advance(1000);
  const waiting = Array.from({ length: 20 }, () => given.schedule.revoked("issuing"));
  await Promise.race(waiting);
  given.advance(2000);
  const numbers = await Promise.all(waiting);
  expect(new Set(numbers).size).toBeLessThanOrEqual(2);
  expect(given.serialNumbers()).toHaveLength(20);
});

test("a signer that refuses leaves an abandoned intent, and the next CRL has a higher number", async () => {
  await using given = await bench();
  given.refuse(new Error("locked"));
  await expect(given.schedule.publish("issuing", operator)).rejects.toThrow("locked");
  expect(given.failures).toHaveLength(1);
  given.refuse(undefined);
  given.advance(1000);
  expect((await given.schedule.publish("issuing", operator)).number).toBe("2");
});

test("a CRL that was signed and not recorded is not served, and the next one follows it", async () => {
  await using given = await bench();
  await given.schedule.publish("issuing", operator);
  given.advance(1000);
  // The crash: signed, and the journal gone before the result.
  const append = given.journal.append.bind(given.journal);
  given.journal.append = (item) =>
    item.kind === "crl-done" ? Promise.reject(new Error("crash")) : append(item);
  await expect(given.schedule.publish("issuing", operator)).rejects.toThrow("crash");
  given.journal.append = append;
  await given.schedule.stop();
  await given.reload();
  expect(given.schedule.current("issuing").number).toBe("1");
  given.advance(1000);
  const third = await given.schedule.publish("issuing", operator);
  expect(third.number).toBe("3");
  expect(parseCertificateList(given.asked.at(-1)!.predecessor!).crlNumber).toBe(2n);
});

test("a service that was down makes the overdue CRL at its start", async () => {
  await using given = await bench();
  await given.schedule.publish("issuing", operator);
  await given.schedule.stop();
  given.advance(2 * DAY);
  await given.reload();
  await given.schedule.start();
  expect(given.schedule.current("issuing").number).toBe("2");
});

test("requesters do not ask for CRLs, and unknown issuers have none", async () => {
  await using given = await bench();
  const requester = {
    kind: "certificate",
    id: "x",
    via: "mtls",
    issuer: "issuing",
    serialNumber: "40",
  } as const;
  expect(() => given.schedule.publish("issuing", requester)).toThrow(
    expect.objectContaining({ code: "forbidden" }),
  );
  expect(() => given.schedule.current("nobody")).toThrow(
    expect.objectContaining({ code: "issuer-unknown" }),
  );
  expect(() => given.schedule.current("issuing")).toThrow(
    expect.objectContaining({ code: "crl-unknown" }),
  );
});

test.for(["0001-01-01", "1949-12-31", "+010000-01-01"])(
  "an invalidity date of %s in the database, which no CRL can carry, blocks no CRL",
  async (date) => {
    await using given = await bench();
    const end = new Date(begin.getTime() + 80 * DAY);
    const poisoned = await given.revoked(end, new Date(`${date}T00:00:00Z`));
    const other = await given.revoked(end, new Date("2026-11-20T00:00:00Z"));
    const crl = await given.schedule.publish("issuing", operator);
    const dates = new Map(
      [...parseCertificateList(crl.der).entries()].map((entry) => [
        Buffer.from(entry.serialNumber).toString("hex"),
        entry.invalidityDate?.toISOString(),
      ]),
    );
    expect(dates).toEqual(
      new Map([
        [poisoned, undefined],
        [other, "2026-11-20T00:00:00.000Z"],
      ]),
    );
  },
);

test("after a sleep or a clock that was set forward, the overdue CRL is made within a minute", async () => {
  await using given = await bench();
  await given.schedule.publish("issuing", operator);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  await given.schedule.start();
  // Timers stood still for eight days.
  given.advance(8 * DAY);
  const { overdue, nextUpdate } = given.schedule.troubles()[0]!;
  expect([overdue, nextUpdate! < given.clock.now]).toEqual([true, true]);
  await vi.advanceTimersByTimeAsync(60_000);
  vi.useRealTimers();
  await expect.poll(() => given.schedule.current("issuing").number).toBe("2");
  expect(given.schedule.troubles()[0]).toMatchObject({ overdue: false });
});

test("without a jump of the clock, a CRL a day is made", async () => {
  await using given = await bench();
  await given.schedule.publish("issuing", operator);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  await given.schedule.start();
  for (let minutes = 0; minutes < 24 * 60 - 1; minutes++) {
    given.advance(60_000);
    await vi.advanceTimersByTimeAsync(60_000);
  }
  await settle();
  expect(given.schedule.current("issuing").number).toBe("1");
  given.advance(60_000);
  await vi.advanceTimersByTimeAsync(60_000);
  await expect.poll(() => given.schedule.current("issuing").number).toBe("2");
});

test("a CRL that a ceremony has made is the published one, unless a newer one is", async () => {
  await using given = await bench();
  const first = await given.schedule.publish("issuing", operator);
  const other = await bench();
  await other.schedule.publish("issuing", operator);
  other.advance(60_000);
  const second = await other.schedule.publish("issuing", operator);
  await other[Symbol.asyncDispose]();
  given.schedule.adopt("issuing", second.der);
  expect(given.schedule.current("issuing").number).toBe("2");
  // One that is older than what is published changes nothing.
  given.schedule.adopt("issuing", first.der);
  expect(given.schedule.current("issuing").number).toBe("2");
});

test("a revocation that a crash kept from its CRL is published by the next start", async () => {
  await using given = await bench();
  const end = new Date(begin.getTime() + 80 * DAY);
  await given.revoked(end);
  await given.schedule.publish("issuing", operator);
  given.advance(1000);
  // Recorded, and the process gone before the CRL.
  const late = await given.revoked(end);
  await given.schedule.stop();
  await given.reload();
  await given.schedule.start();
  expect(given.schedule.current("issuing").number).toBe("2");
  expect(given.serialNumbers()).toContain(late);
  // One that ended and left the CRL long ago is not missing from it.
  given.advance(1000);
  await given.schedule.stop();
  await given.reload();
  await given.schedule.start();
  expect(given.asked).toHaveLength(2);
});

test("revocations that keep coming share CRLs: five at once, then one in five seconds, and none is forgotten", async () => {
  await using given = await bench();
  const end = new Date(begin.getTime() + 80 * DAY);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const firsts: (string | undefined)[] = [];
  const SECONDS = 40;
  for (let second = 0; second < SECONDS; second++) {
    given.advance(1000);
    await given.revoked(end);
    const made = given.schedule.revoked("issuing");
    await settle();
    if (second < 5) firsts.push((await made)?.toString());
    await vi.advanceTimersByTimeAsync(1000);
    await settle();
  }
  expect(firsts).toEqual(["1", "2", "3", "4", "5"]);
  expect(given.asked.length).toBeGreaterThan(SECONDS / 5);
  expect(given.asked.length).toBeLessThanOrEqual(5 + SECONDS / 5);
  given.advance(5000);
  await vi.advanceTimersByTimeAsync(5000);
  await expect.poll(() => given.serialNumbers().length).toBe(SECONDS);
});

test("a stop publishes what waits for its CRL, and an operator's CRL does not wait", async () => {
  await using given = await bench();
  const end = new Date(begin.getTime() + 80 * DAY);
  // The burst and what the clock has added to it meanwhile.
  for (let count = 1; count <= 6; count++) {
    given.advance(1000);
    await given.revoked(end);
    expect(await given.schedule.revoked("issuing")).toBe(BigInt(count));
  }
  given.advance(1000);
  await given.revoked(end);
  const held = given.schedule.revoked("issuing");
  await settle();
  expect(given.asked).toHaveLength(6);
  const asked = performance.now();
  await given.schedule.publish("issuing", operator);
  expect(await held).toBe(7n);
  expect(given.serialNumbers()).toHaveLength(7);
  given.advance(1000);
  await given.revoked(end);
  const paused = given.schedule.revoked("issuing");
  await given.schedule.stop();
  expect(await paused).toBe(8n);
  expect(given.serialNumbers()).toHaveLength(8);
  expect(performance.now() - asked).toBeLessThan(2500);
  await expect(given.schedule.publish("issuing", operator)).rejects.toMatchObject({
    code: "service-stopping",
  });
});

test("a CRL with another key's signature is not published, and its intent is closed", async () => {
  await using given = await bench();
  given.signWith(softwareKey("P-256"));
  await expect(given.schedule.publish("issuing", operator)).rejects.toMatchObject({
    code: "lint-refused",
  });
  expect(() => given.schedule.current("issuing")).toThrow(
    expect.objectContaining({ code: "crl-unknown" }),
  );
  expect((await given.reads.latestCrl("issuing"))?.crl ?? null).toBeNull();
  expect((await given.reads.pendingIntents()).crls).toEqual([]);
});

test("what a failure of the disk says is for the log, not for strangers", async () => {
  await using given = await bench();
  given.refuse(new Error("EIO: /srv/countersign/keeper/head"));
  await expect(given.schedule.publish("issuing", operator)).rejects.toThrow("EIO");
  expect(given.schedule.troubles()[0]!.trouble).toBe("internal");
});

test("CRLs of a sealed issuer come from ceremonies: nothing is asked of its key, and revocations wait on record", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const sealed = await bench("P-256", true);
  const { schedule, asked, failures, clock } = sealed;
  await schedule.start();
  const serialNumber = await sealed.revoked(new Date(begin.getTime() + 90 * DAY));
  expect(await schedule.revoked("issuing")).toBeUndefined();
  await expect(schedule.publish("issuing", operator)).rejects.toEqual(
    expect.objectContaining({ code: "key-locked" }),
  );
  expect([asked, failures, schedule.troubles()]).toEqual([
    [],
    [],
    [{ issuer: "issuing", overdue: false }],
  ]);

  // A window lets the service make them by itself.
  sealed.allow("crl");
  schedule.look();
  await vi.waitFor(() => expect(schedule.current("issuing").number).toBe("1"));
  const entries = [...parseCertificateList(schedule.current("issuing").der).entries()];
  expect(entries.map((entry) => Buffer.from(entry.serialNumber).toString("hex"))).toEqual([
    serialNumber,
  ]);
  const { thisUpdate, nextUpdate } = schedule.current("issuing");
  expect(nextUpdate.getTime() - thisUpdate.getTime()).toBe(180 * DAY);
  sealed.allow();
  clock.now = new Date(begin.getTime() + 2 * DAY);
  await vi.advanceTimersByTimeAsync(2 * DAY);
  expect(asked).toHaveLength(1);
  await schedule.stop();
});

test("the CRL of a sealed issuer that a ceremony made is published at once, and ages 60 days before its end", async () => {
  const online = await bench();
  await online.schedule.start();
  const crl = online.schedule.current("issuing");
  await online.schedule.stop();
  const { schedule, clock } = await bench("P-256", true);
  schedule.adopt("issuing", crl.der);
  expect(schedule.current("issuing").sha256).toBe(crl.sha256);
  // It lives seven days only, so its end is near from its first day on.
  expect(schedule.troubles()).toEqual([
    { issuer: "issuing", overdue: true, nextUpdate: crl.nextUpdate },
  ]);
  clock.now = new Date(crl.nextUpdate.getTime() - 60 * DAY - 1000);
  expect(schedule.troubles()[0]!.overdue).toBe(false);
  await schedule.stop();
});

test("a key that was locked under a CRL is not asked again, and what is owed is made when it opens", async () => {
  await using given = await bench("P-256", true);
  given.allow("crl");
  await given.schedule.start();
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const serialNumber = await given.revoked(new Date(begin.getTime() + 90 * DAY));
  // The window's last second: whoever asks does not know yet that it is over.
  given.refuse(new CountersignError("key-locked", "the key is sealed: it opens with shares"));
  given.advance(1000);
  await expect(given.schedule.publish("issuing", operator)).rejects.toThrow("sealed");
  await given.schedule.revoked("issuing");
  const asked = given.asked.length;
  const size = given.journal.size;
  given.allow();
  await vi.advanceTimersByTimeAsync(10 * 60_000);
  await settle();
  expect([given.asked.length, given.journal.size]).toEqual([asked, size]);
  expect(given.schedule.troubles()[0]).not.toHaveProperty("trouble");

  given.refuse(undefined);
  given.allow("crl");
  given.schedule.look();
  await vi.waitFor(() => expect(given.serialNumbers()).toEqual([serialNumber]));
});

test("CRL-40: what a ceremony's CRL has and no revocation here accounts for stays on the next ones", async () => {
  await using given = await bench("P-256", true);
  const own = await given.revoked(new Date(begin.getTime() + 90 * DAY));
  const intermediate = Buffer.alloc(20, 0x7e);
  const tbs = buildTbsCertList({
    issuerCertificate: given.ca.issuing,
    thisUpdate: begin,
    nextUpdate: new Date(begin.getTime() + 180 * DAY),
    number: 0n,
    entries: [
      { serialNumber: intermediate, revocationDate: begin, reason: "cessationOfOperation" },
    ],
  });
  await given.schedule.start();
  given.schedule.adopt(
    "issuing",
    assembleSigned(tbs, given.ca.algorithm, given.ca.issuingKey.sign(tbs)),
  );
  const both = [own, intermediate.toString("hex")].toSorted();
  given.advance(1000);
  given.allow("crl");
  // It was built before the revocation was known: that is owed still, and made at once.
  given.schedule.look();
  await vi.waitFor(() => expect(given.serialNumbers()).toEqual(both));
  // And so it goes on, also after a restart.
  await given.schedule.stop();
  await given.reload();
  given.advance(1000);
  await given.schedule.publish("issuing", operator);
  expect(given.serialNumbers()).toEqual(both);
});
