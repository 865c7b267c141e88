/** What a window allows, and what ends it: CUSTODY.md 6.2 and 7.5, with real keys and a clock that the tests drive. */

import { afterEach, expect, test, vi } from "vitest";
import type { WindowGrant } from "../../src/custody/grant.ts";
import { openGrant, type Over } from "../../src/custody/open-grant.ts";
import { errorOf } from "../../src/custody/refusal.ts";
import type { SignerParts } from "../../src/custody/signer.ts";
import type { SignResult } from "../../src/custody/sign-batch.ts";
import type { RevokedCertificate } from "../../src/x509/certificate-list.ts";
import { buildTbsCertificate, certificateTemplate } from "../../src/x509/certificate-template.ts";
import { parseCertificate } from "../../src/x509/certificate.ts";
import { time } from "../../src/x509/der.ts";
import { readIssuer } from "../../src/x509/issuer.ts";
import { encodeName } from "../../src/x509/name.ts";
import { publicKeyObject } from "../../src/x509/public-key.ts";
import { signatureAlgorithmFor, verifySignature } from "../../src/x509/signature-algorithm.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import { refused } from "../support/refused.ts";
import { DAY, softwareCa } from "../support/software-ca.ts";
import { digestOf, webRequester } from "./keeper-home.ts";
import {
  bench,
  ca,
  crlTbs,
  HOUR,
  key,
  leafKey,
  leafTbs,
  listOf,
  mismatch,
  newSerialNumber,
  now,
  policy,
  replaced,
  SECOND,
  signed,
  standing,
  TestClock,
  type Bench,
} from "./signer-bench.ts";

type Window = WindowGrant["window"];

const iso = (hours: number): string => new Date(now.getTime() + hours * HOUR).toISOString();

/** From an hour ago until in eight hours, and idle for two. */
function windowOf(
  operations: Window["operations"],
  change: Partial<Window> = {},
  grant: Partial<WindowGrant> = {},
): WindowGrant {
  return {
    window: { operations, notBefore: iso(-1), notAfter: iso(8), idleSeconds: 7200, ...change },
    policy,
    maximumCrlLifetime: "8d",
    ...grant,
  };
}

const certificates = (max: number): Window["operations"][number] => ({
  operation: "certificate",
  max,
});
const crls = (max: number): Window["operations"][number] => ({ operation: "crl", max });

const exceeded = (detail?: RegExp): unknown => refused("grant-exceeded", detail);

/** A key that answers when the test says so. */
function slowKey(): { key: SignerParts["key"]; used: number; answer: (failure?: Error) => void } {
  const waiting: ((failure?: Error) => void)[] = [];
  const self = {
    used: 0,
    key: {
      publicKey: key.info.spki,
      sign: (tbs: Uint8Array) =>
        new Promise<Uint8Array>((resolve, reject) => {
          self.used++;
          waiting.push((failure) =>
            failure === undefined ? resolve(key.sign(tbs)) : reject(failure),
          );
        }),
    },
    answer: (failure?: Error) => waiting.shift()!(failure),
  };
  return self;
}

/** Several requests in one batch. */
async function batch(
  { logged, signer }: Bench,
  all: readonly Uint8Array[],
): Promise<(Uint8Array | Error)[]> {
  const requests = all.map((tbs) => ({ ...logged(tbs), tbs }));
  const { from } = requests[0]!.extension;
  const last = requests.at(-1)!.extension;
  const leaves = requests.flatMap(({ extension }) => extension.leaves);
  const results = await signer.sign(
    requests.map(({ intentIndex, intent, tbs }) => ({ intentIndex, intent, tbs })),
    { ...last, from, first: from, leaves },
  );
  return results.map((result: SignResult) =>
    "signature" in result ? result.signature : errorOf(result.refusal),
  );
}

/** What is over is over for everything, and is said once. */
async function expectLocked(opened: Bench, reason: string): Promise<void> {
  expect(await opened.sign(leafTbs())).toEqual(exceeded());
  expect(await opened.signList(crlTbs(1n))).toEqual(exceeded());
  opened.clock.pass(DAY);
  expect(opened.over).toEqual([reason]);
  expect(opened.signer.signaturesLeft).toBe(0);
  expect(opened.signer.allows.operations).toEqual([]);
}

// Counts

test("what a window allows is signed, and verifies", async () => {
  const { sign, signList } = bench({ grant: windowOf([certificates(2), crls(1)]) });
  const keyObject = publicKeyObject(key.info);
  const algorithm = signatureAlgorithmFor(key.info.type);
  const tbs = leafTbs();
  expect(verifySignature(keyObject, algorithm, tbs, (await sign(tbs)) as Uint8Array)).toBe(true);
  expect(await signList(crlTbs(1n))).toBeInstanceOf(Uint8Array);
});

test("ST-43: of two requests in one batch a window for one signs the first, refuses the other, and is over", async () => {
  const opened = bench({ grant: windowOf([certificates(1)]) });
  const [first, second] = await batch(opened, [leafTbs(), leafTbs()]);
  expect(first).toBeInstanceOf(Uint8Array);
  expect(second).toEqual(exceeded(/1 signatures/));
  await expectLocked(opened, "used-up");
});

test("ST-43: the count goes down before the key is used, and nobody is told before the answer is there", async () => {
  const slow = slowKey();
  const opened = bench({ key: slow.key, grant: windowOf([certificates(1)]) });
  const first = opened.sign(leafTbs());
  expect(opened.signer.signaturesLeft).toBe(0);
  expect(await opened.sign(leafTbs())).toEqual(exceeded());
  opened.clock.pass(SECOND);
  expect(opened.over).toEqual([]);
  slow.answer();
  expect(await first).toBeInstanceOf(Uint8Array);
  expect(opened.over, "who waits for the answer goes on first").toEqual([]);
  opened.clock.pass(0);
  expect(opened.over).toEqual(["used-up"]);
  expect(slow.used).toBe(1);
});

test("ST-43: the same for CRLs, asked for at the same time", async () => {
  const opened = bench({ grant: windowOf([crls(1)]) });
  const both = await Promise.all([opened.signList(crlTbs(1n)), opened.signList(crlTbs(2n))]);
  expect(both[0]).toBeInstanceOf(Uint8Array);
  expect(both[1]).toBeInstanceOf(Error);
  await expectLocked(opened, "used-up");
});

test("a signature that the token did not make does not come back to the window", async () => {
  const slow = slowKey();
  const opened = bench({ key: slow.key, grant: windowOf([certificates(1)]) });
  const first = opened.sign(leafTbs());
  slow.answer(new Error("away"));
  expect(await first).toEqual(expect.objectContaining({ message: "away" }));
  await expectLocked(opened, "used-up");
});

test("what is refused is not counted", async () => {
  const { sign, signer, over } = bench({ grant: windowOf([certificates(1)]) });
  expect(await sign(leafTbs({ names: [{ kind: "dns", value: "example.com" }] }))).toEqual(
    refused("name-refused"),
  );
  expect(signer.signaturesLeft).toBe(1);
  expect(over).toEqual([]);
  expect(await sign(leafTbs())).toBeInstanceOf(Uint8Array);
});

test("each profile has its count, and what has none of its own shares the one without a profile", async () => {
  const opened = bench({
    grant: windowOf([{ operation: "certificate", profile: "server", max: 1 }, certificates(2)]),
  });
  const { sign, signer } = opened;
  const short = (): Promise<Uint8Array | Error> =>
    sign(leafTbs({ notAfter: new Date(now.getTime() + 9 * DAY) }), { profile: "short" });
  expect(signer.signaturesLeft).toBe(3);
  expect(await sign(leafTbs())).toBeInstanceOf(Uint8Array);
  expect(await sign(leafTbs()), "its own count is the whole of it").toEqual(exceeded());
  expect(await short()).toBeInstanceOf(Uint8Array);
  expect(await sign(leafTbs(), { profile: "ungranted" })).toBeInstanceOf(Uint8Array);
  expect(opened.over).toEqual([]);
  expect(await short()).toEqual(exceeded());
  await expectLocked(opened, "used-up");
});

test("a profile that a window does not name is refused, and so is one that the policy does not have", async () => {
  const { sign } = bench({
    grant: windowOf([{ operation: "certificate", profile: "server", max: 9 }]),
  });
  expect(await sign(leafTbs(), { profile: "short" })).toEqual(mismatch(/of profile short/));
  expect(await sign(leafTbs(), { profile: "none" })).toEqual(mismatch(/of profile none/));
  const any = bench({ grant: windowOf([certificates(9)]) });
  expect(await any.sign(leafTbs(), { profile: "none" })).toEqual(mismatch(/profile none/));
});

test("ST-45: a window for CRLs signs no certificate, one for certificates no CRL, and none a request", async () => {
  const crl = bench({ grant: windowOf([crls(5)]) });
  expect(await crl.sign(leafTbs())).toEqual(mismatch(/operation certificate/));
  expect(crl.signer.signaturesLeft).toBe(5);
  const leaf = bench({ grant: windowOf([certificates(5)]) });
  expect(await leaf.signList(crlTbs(1n))).toEqual(mismatch(/operation crl/));
  expect(leaf.signer.signaturesLeft).toBe(5);
  const both = bench({ grant: windowOf([certificates(5), crls(5)]) });
  expect(await both.sign(leafTbs(), { operation: "request" })).toEqual(
    mismatch(/operation request/),
  );
});

// Who asks, and for what

test("a window for some requesters signs for no other; CRLs are nobody's request", async () => {
  const open = (...requesters: string[]): Bench =>
    bench({ grant: windowOf([certificates(5), crls(5)], { requesters }) });
  expect(await open("deploy", "web").sign(leafTbs())).toBeInstanceOf(Uint8Array);
  expect(await open("deploy").sign(leafTbs())).toEqual(mismatch(/that the window does not have/));
  expect(
    await open("web").sign(leafTbs(), { actor: { ...webRequester, kind: "operator" } }),
    "nor for an operator with the requester's name",
  ).toEqual(mismatch(/that the window does not have/));
  const actor = { kind: "service", id: "crl-schedule" } as const;
  expect(await open("deploy").signList(crlTbs(1n), { actor })).toBeInstanceOf(Uint8Array);
});

test("a window for labels signs nothing: no request can carry one", async () => {
  const grant = windowOf([certificates(5), crls(5)], { labels: ["audit-2026"] });
  const { sign, signList, signer } = bench({ grant });
  expect(await sign(leafTbs())).toEqual(mismatch(/label/));
  expect(await signList(crlTbs(1n))).toEqual(mismatch(/label/));
  expect(signer.allows.operations).toEqual([]);
});

test("a window is for one policy: that of the signer, and that of the intents", async () => {
  const other = digestOf(Buffer.from("another"));
  expect(() => bench({ grant: windowOf([certificates(1)], {}, { policy: other }) })).toThrow(
    expect.objectContaining({ code: "grant-mismatch" }),
  );
  const { sign } = bench({ grant: windowOf([certificates(5)]) });
  expect(await sign(leafTbs(), { policy: other })).toEqual(mismatch(/policy that is not granted/));
  expect(await sign(leafTbs(), { policy: null })).toEqual(mismatch(/policy that is not granted/));
});

test("a window that names the URLs of CDP and AIA is for certificates with those", async () => {
  const crlUrl = "http://pki.example.test/crl/issuing.crl";
  const caIssuersUrl = "http://pki.example.test/ca/issuing.cer";
  const { sign } = bench({ grant: windowOf([certificates(9)], {}, { crlUrl, caIssuersUrl }) });
  expect(await sign(leafTbs())).toBeInstanceOf(Uint8Array);
  for (const fields of [{ crlUrl: `${crlUrl}x` }, { caIssuersUrl: `${caIssuersUrl}x` }]) {
    expect(await sign(leafTbs({}, fields))).toEqual(refused("lint-refused"));
  }
});

/** Of the same key and name, with room below it: to build what the true one forbids. */
function looseCa(): Uint8Array {
  const { subject, notBefore, notAfter } = parseCertificate(ca.issuing).tbs;
  const template = certificateTemplate({
    issuerCertificate: ca.root,
    keyUsage: ["keyCertSign", "cRLSign"],
    extKeyUsage: [],
    basicConstraints: { cA: true, pathLen: 5 },
    subjectKeyIdentifier: true,
  });
  const serialNumber = newSerialNumber();
  const { info: publicKey } = key;
  const leaf = { serialNumber, notBefore, notAfter, subject, publicKey, names: [] };
  const tbs = buildTbsCertificate(template, leaf);
  return assembleSigned(tbs, ca.algorithm, ca.rootKey.sign(tbs));
}

const afterTheCa = new Date(now.getTime() + 901 * DAY);
const tenDays = new Date(now.getTime() + 10 * DAY);

test.for<{ name: string; tbs: () => Uint8Array; error: unknown; profile?: string }>([
  {
    name: "cA true",
    tbs: () =>
      leafTbs(
        { subject: encodeName([{ type: "CN", value: "Below" }]), names: [] },
        {
          issuerCertificate: looseCa(),
          keyUsage: ["keyCertSign", "cRLSign"],
          extKeyUsage: [],
          basicConstraints: { cA: true, pathLen: 0 },
          subjectKeyIdentifier: true,
        },
      ),
    error: mismatch(/a certificate of a CA/),
  },
  {
    name: "notAfter after the CA's",
    tbs: () => replaced(leafTbs(), time(tenDays), time(afterTheCa)),
    error: mismatch(/outlives its CA/),
  },
  {
    name: "the CA's own key",
    tbs: () => replaced(leafTbs(), leafKey.info.spki, key.info.spki),
    error: mismatch(/own key/),
  },
  {
    name: "another CA's key",
    tbs: () => leafTbs({ publicKey: ca.rootKey.info }),
    error: refused("lint-refused", /KEY-11/),
  },
  {
    name: "a name outside the policy",
    tbs: () => leafTbs({ names: [{ kind: "dns", value: "example.com" }] }),
    error: refused("name-refused"),
  },
  {
    name: "a name of the policy and one outside",
    tbs: () =>
      leafTbs({
        names: [
          { kind: "dns", value: "a.example.test" },
          { kind: "dns", value: "example.com" },
        ],
      }),
    error: refused("name-refused"),
  },
  {
    name: "a lifetime longer than the profile's",
    tbs: () => leafTbs({ notAfter: new Date(now.getTime() + 20 * DAY) }),
    profile: "short",
    error: mismatch(/lifetime/),
  },
  {
    name: "a serial number of 7 octets",
    tbs: () => leafTbs({ serialNumber: Buffer.from("41".repeat(7), "hex") }),
    error: mismatch(/serial number/),
  },
  {
    name: "another signature algorithm",
    tbs: () => leafTbs({}, { issuerCertificate: softwareCa(now, "P-384").issuing }),
    error: mismatch(/signature algorithm/),
  },
  {
    name: "another CA's name",
    tbs: () => leafTbs({}, { issuerCertificate: ca.root }),
    error: mismatch(/issuer name/),
  },
  {
    name: "another CA's key identifier",
    tbs: () => replaced(leafTbs(), readIssuer(ca.issuing).keyIdentifier, Buffer.alloc(20, 7)),
    error: mismatch(/authority key identifier/),
  },
])(
  "ST-46: under a window $name is refused by the signer",
  async ({ tbs, error, profile = "server" }) => {
    const { sign, signer } = bench({ grant: windowOf([certificates(3)]) });
    expect(await sign(tbs(), { profile })).toEqual(error);
    expect(await sign(leafTbs()), "the signer goes on").toBeInstanceOf(Uint8Array);
    expect(signer.signaturesLeft).toBe(2);
  },
);

test("under a window a serial number is signed once, and a revoked one never", async () => {
  const serialNumber = newSerialNumber();
  const { sign, signList } = bench({ grant: windowOf([certificates(5), crls(1)]) });
  expect(await sign(leafTbs({ serialNumber }))).toBeInstanceOf(Uint8Array);
  expect(await sign(leafTbs({ serialNumber }))).toEqual(mismatch(/signed before/));
  const gone = newSerialNumber();
  const entry = { serialNumber: gone, revocationDate: now, reason: "superseded" } as const;
  expect(await signList(crlTbs(1n, [entry]))).toBeInstanceOf(Uint8Array);
  expect(await sign(leafTbs({ serialNumber: gone }))).toEqual(mismatch(/last CRL revokes/));
});

const entry: RevokedCertificate = {
  serialNumber: newSerialNumber(),
  revocationDate: new Date(now.getTime() - 5 * HOUR),
  reason: "keyCompromise",
};
const predecessor = signed(crlTbs(5n, [entry], new Date(now.getTime() - HOUR)));
const sevenDays = new Date(now.getTime() + 7 * DAY);
const tenYears = new Date(now.getTime() + 3650 * DAY);
const minutes = (count: number): Date => new Date(now.getTime() + count * 60_000);

test.for<{ name: string; tbs: Uint8Array; error: RegExp; before?: null }>([
  { name: "without an entry of the last one", tbs: crlTbs(6n), error: /without the entry/ },
  { name: "with the last one's number", tbs: crlTbs(5n, [entry]), error: /not above the last/ },
  { name: "with a lower number", tbs: crlTbs(4n, [entry]), error: /not above the last/ },
  {
    name: "with a nextUpdate in ten years",
    tbs: replaced(crlTbs(6n, [entry]), time(sevenDays), time(tenYears)),
    error: /8d/,
  },
  {
    name: "with a nextUpdate a second beyond the grant",
    tbs: crlTbs(6n, [entry], now, 8 + 1 / 86_400),
    error: /nextUpdate later/,
  },
  { name: "of six minutes ago", tbs: crlTbs(6n, [entry], minutes(-6)), error: /five minutes/ },
  { name: "of in six minutes", tbs: crlTbs(6n, [entry], minutes(6)), error: /five minutes/ },
  { name: "without the last one", tbs: crlTbs(6n, [entry]), before: null, error: /the one before/ },
])("ST-47: under a window a CRL $name is refused by the signer", async ({ tbs, error, before }) => {
  const { signList, signer } = bench({
    grant: windowOf([crls(2)]),
    list: listOf(predecessor, "5"),
  });
  expect(await signList(tbs, before === null ? {} : { predecessor })).toEqual(mismatch(error));
  const next = await signList(crlTbs(6n, [entry]), { predecessor });
  expect(next, "the signer goes on").toBeInstanceOf(Uint8Array);
  expect(signer.signaturesLeft).toBe(1);
});

// Times

test("ST-48: an idle key is locked on time, by nobody's request; a signature begins the idle time anew", async () => {
  const opened = bench({ grant: windowOf([certificates(9)]) });
  const { clock, over, sign } = opened;
  clock.pass(2 * HOUR - SECOND);
  expect(over).toEqual([]);
  const notBefore = clock.now();
  expect(await sign(leafTbs({ notBefore }))).toBeInstanceOf(Uint8Array);
  clock.pass(2 * HOUR - SECOND);
  expect(over).toEqual([]);
  clock.pass(SECOND);
  expect(over).toEqual(["idle"]);
  await expectLocked(opened, "idle");
});

test("ST-48: a refusal does not keep an idle key open", async () => {
  const opened = bench({ grant: windowOf([certificates(9)]) });
  opened.clock.pass(2 * HOUR - SECOND);
  expect(await opened.sign(leafTbs(), { profile: "none" })).toBeInstanceOf(Error);
  opened.clock.pass(SECOND);
  expect(opened.over).toEqual(["idle"]);
});

test("ST-48: a window ends on time, by nobody's request", async () => {
  const opened = bench({ grant: windowOf([certificates(9)], { idleSeconds: 604_800 }) });
  expect(opened.signer.allows.until).toEqual(new Date(iso(8)));
  opened.clock.pass(8 * HOUR - 1);
  expect(opened.over).toEqual([]);
  opened.clock.pass(1);
  expect(opened.over).toEqual(["expired"]);
  await expectLocked(opened, "expired");
});

test.for([
  { name: "the window's end", change: { idleSeconds: 604_800 }, left: 8 * HOUR, over: "expired" },
  { name: "the idle time", change: {}, left: 2 * HOUR, over: "idle" },
])(
  "ST-48: a wall clock that is set back does not prolong $name",
  ({ change, left, over: reason }) => {
    for (const back of [HOUR / 2, DAY]) {
      const { clock, over } = bench({ grant: windowOf([certificates(9)], change) });
      clock.pass(HOUR);
      clock.wall -= back;
      clock.pass(left - HOUR - SECOND);
      expect(over).toEqual([]);
      clock.pass(SECOND);
      expect(over).toEqual([reason]);
    }
  },
);

test("ST-48: after the wall clock was set back, to before the window or not, nothing is signed at its end", async () => {
  const opened = bench({ grant: windowOf([certificates(9)], { idleSeconds: 604_800 }) });
  opened.clock.wall -= DAY;
  const notBefore = opened.clock.now();
  expect(await opened.sign(leafTbs({ notBefore }))).toEqual(exceeded(/has not begun/));
  opened.clock.wall += DAY - HOUR / 2;
  expect(await opened.sign(leafTbs({ notBefore: opened.clock.now() }))).toBeInstanceOf(Uint8Array);
  opened.clock.pass(8 * HOUR);
  expect(opened.clock.now() < new Date(iso(8)), "the wall clock says that there is time").toBe(
    true,
  );
  await expectLocked(opened, "expired");
});

test("ST-48: a wall clock that is set forward locks: at the next request, and within seconds without one", async () => {
  const asked = bench({ grant: windowOf([certificates(9)]) });
  asked.clock.wall += DAY;
  const notBefore = asked.clock.now();
  const notAfter = new Date(notBefore.getTime() + DAY);
  expect(await asked.sign(leafTbs({ notBefore, notAfter }))).toEqual(exceeded(/time/));
  asked.clock.pass(0);
  expect(asked.over).toEqual(["expired"]);

  const unasked = bench({ grant: windowOf([certificates(9)]) });
  unasked.clock.wall += DAY;
  unasked.clock.pass(5 * SECOND);
  expect(unasked.over).toEqual(["expired"]);

  const idle = bench({ grant: windowOf([certificates(9)]) });
  idle.clock.wall += 3 * HOUR;
  idle.clock.pass(5 * SECOND);
  expect(idle.over).toEqual(["idle"]);
});

test("a window begins when both clocks say so, and may be opened before", async () => {
  const grant = windowOf([certificates(9)], { notBefore: iso(1) });
  const opened = bench({ grant });
  const { clock, sign, signer } = opened;
  expect(await sign(leafTbs())).toEqual(exceeded(/has not begun/));
  expect(signer.allows.operations).toEqual([]);
  clock.wall += HOUR; // set forward
  expect(await sign(leafTbs({ notBefore: clock.now() }))).toEqual(exceeded(/has not begun/));
  clock.wall -= HOUR;
  clock.pass(HOUR);
  expect(signer.allows.operations).toEqual(["certificate"]);
  expect(await sign(leafTbs({ notBefore: clock.now() }))).toBeInstanceOf(Uint8Array);
});

test("a window that has ended opens no key", () => {
  const grant = windowOf([certificates(9)], { notBefore: iso(-3), notAfter: iso(0) });
  expect(() => bench({ grant })).toThrow(expect.objectContaining({ code: "grant-exceeded" }));
});

test("what was begun in time is answered, and only then is the end told", async () => {
  const slow = slowKey();
  const opened = bench({ key: slow.key, grant: windowOf([certificates(9)]) });
  const first = opened.sign(leafTbs());
  opened.clock.pass(2 * HOUR);
  expect(await opened.sign(leafTbs())).toEqual(exceeded());
  opened.clock.pass(SECOND);
  expect(opened.over).toEqual([]);
  slow.answer();
  expect(await first).toBeInstanceOf(Uint8Array);
  await expectLocked(opened, "idle");
});

test("what waits behind a CRL when time is over is not signed", async () => {
  const slow = slowKey();
  const opened = bench({ key: slow.key, grant: windowOf([crls(9)]) });
  const first = opened.signList(crlTbs(1n));
  const second = opened.signList(crlTbs(2n), { predecessor: signed(crlTbs(1n)) });
  await vi.waitFor(() => expect(slow.used).toBe(1));
  opened.clock.pass(2 * HOUR);
  slow.answer();
  expect(await first).toBeInstanceOf(Uint8Array);
  expect(await second).toEqual(exceeded());
  expect(slow.used).toBe(1);
});

test("what a check has taken so long over that time is over is not signed", () => {
  const clock = new TestClock();
  const opened = openGrant({
    grant: windowOf([crls(9)]),
    alreadySigned: 0,
    usedDigests: [],
    now: clock.now,
    monotonic: clock.monotonic,
    schedule: clock.schedule,
  });
  opened.check();
  clock.wall += DAY;
  const asked = { tbs: crlTbs(1n), operation: "crl", profile: undefined };
  expect(() => opened.spend(asked)).toThrow(expect.objectContaining({ code: "grant-exceeded" }));
});

test("what a grant allows now: its operations with something left, and until when", async () => {
  const { signer, sign, signList } = bench({ grant: windowOf([certificates(1), crls(1)]) });
  const until = new Date(iso(8));
  expect(signer.allows).toEqual({ operations: ["certificate", "crl"], until });
  await sign(leafTbs());
  expect(signer.allows).toEqual({ operations: ["crl"], until });
  await signList(crlTbs(1n));
  expect(signer.allows).toEqual({ operations: [], until });
  expect(bench({ grant: standing }).signer.allows).toEqual({
    operations: ["certificate", "crl"],
    until: undefined,
  });
  const digests = [digestOf(leafTbs())];
  expect(bench({ grant: { digests } }).signer.allows).toEqual({ operations: [], until: undefined });
  expect(bench({ grant: { digests, seconds: 900 } }).signer.allows).toEqual({
    operations: [],
    until: new Date(now.getTime() + 900 * SECOND),
  });
});

// Digests

test("ST-44: of a sealed key's digests each is signed once, and nothing that differs in one bit", async () => {
  const all = [leafTbs(), leafTbs()] as const;
  const opened = bench({ grant: { digests: all.map(digestOf), seconds: 900 } });
  const differing = Buffer.from(all[0]);
  differing[differing.length - 1]! ^= 1;
  expect(await opened.sign(differing)).toBeInstanceOf(Error);
  const another = leafTbs();
  expect(await opened.sign(another)).toEqual(mismatch(/not granted/));
  expect(await opened.sign(all[0])).toBeInstanceOf(Uint8Array);
  expect(await opened.sign(all[0])).toEqual(mismatch(/signed already/));
  expect(opened.signer.signaturesLeft).toBe(1);
  expect(opened.over).toEqual([]);
  expect(await opened.sign(all[1])).toBeInstanceOf(Uint8Array);
  await expectLocked(opened, "used-up");
});

test("ST-48: a sealed key's digests are locked 15 minutes after opening, by either clock", async () => {
  const open = (): Bench => bench({ grant: { digests: [digestOf(tbs)], seconds: 900 } });
  const tbs = leafTbs();
  const onTime = open();
  onTime.clock.pass(899 * SECOND);
  expect(onTime.over).toEqual([]);
  onTime.clock.pass(SECOND);
  expect(onTime.over).toEqual(["expired"]);
  expect(await onTime.sign(tbs)).toEqual(exceeded());

  const back = open();
  back.clock.wall -= DAY;
  back.clock.pass(900 * SECOND);
  expect(back.over).toEqual(["expired"]);

  const forward = open();
  forward.clock.wall += DAY;
  expect(await forward.sign(tbs)).toEqual(exceeded());
});

test("a digest whose signature the token did not make keeps the key open for it", async () => {
  const slow = slowKey();
  const tbs = leafTbs();
  const opened = bench({ key: slow.key, grant: { digests: [digestOf(tbs)], seconds: 900 } });
  const first = opened.sign(tbs);
  expect(await opened.sign(tbs), "it is in hand").toEqual(mismatch(/signed already/));
  slow.answer(new Error("away"));
  await first;
  opened.clock.pass(SECOND);
  expect(opened.over).toEqual([]);
  const second = opened.sign(tbs);
  slow.answer();
  expect(await second).toBeInstanceOf(Uint8Array);
  opened.clock.pass(0);
  expect(opened.over).toEqual(["used-up"]);
});

test("a digest that was used up before is not signed", async () => {
  const all = [leafTbs(), leafTbs()] as const;
  const usedDigests = [digestOf(all[0])];
  const { sign, signer } = bench({ grant: { digests: all.map(digestOf) }, usedDigests });
  expect(signer.signaturesLeft).toBe(1);
  expect(await sign(all[0])).toEqual(mismatch(/signed already/));
  expect(await sign(all[1])).toBeInstanceOf(Uint8Array);
});

test("a grant of the configuration is never over", async () => {
  const tbs = leafTbs();
  for (const grant of [{ digests: [digestOf(tbs)] }, { ...standing, signaturesPerHour: 1 }]) {
    const { sign, clock, over } = bench({ grant });
    expect(await sign(tbs)).toBeInstanceOf(Uint8Array);
    expect(await sign(leafTbs())).toBeInstanceOf(Error);
    clock.pass(30 * DAY);
    expect(over).toEqual([]);
  }
});

// The log

test.for([
  { name: "a window", grant: () => windowOf([certificates(9)]) },
  { name: "digests", grant: (tbs: Uint8Array) => ({ digests: [digestOf(tbs)], seconds: 900 }) },
])("ST-52: under $name nothing is signed without its own intent in the log", async ({ grant }) => {
  const tbs = leafTbs();
  const opened = bench({ grant: grant(tbs) });
  const { signer, logged } = opened;
  const outcome = async (...asked: Parameters<typeof signer.sign>): Promise<unknown> => {
    const [result] = await signer.sign(...asked);
    return "refusal" in result! ? errorOf(result.refusal) : result;
  };
  const older = { size: 0, nodes: [], leaves: [] as Uint8Array[] };
  const first = logged(leafTbs());
  const { intentIndex, intent } = logged(tbs);
  const later = logged(leafTbs());
  expect(await outcome([{ intentIndex, intent, tbs }], undefined), "not shown").toEqual(
    mismatch(/no unspent intent/),
  );
  const leaves = [...first.extension.leaves];
  expect(await outcome([{ intentIndex: 0, intent, tbs }], first.extension), "another leaf").toEqual(
    mismatch(/no unspent intent/),
  );
  const stale = { ...first.extension, ...older, from: 0, first: 0 };
  expect(await outcome([{ intentIndex, intent, tbs }], stale), "an older head").toEqual(
    mismatch(/goes on from 0/),
  );
  const forked = { ...later.extension, from: 1, first: 1, leaves: [...leaves, ...leaves] };
  expect(await outcome([{ intentIndex, intent, tbs }], forked), "another log").toEqual(
    mismatch(/does not extend/),
  );
  expect(signer.signaturesLeft, "nothing was counted").toBe("window" in grant(tbs) ? 9 : 1);
});

test("ST-52: an intent serves for its operation and its bytes alone", async () => {
  const grant = windowOf([certificates(9), crls(9)]);
  const { sign, signList, signer, logged } = bench({ grant });
  expect(await sign(leafTbs(), { operation: "crl" })).toEqual(mismatch(/another operation/));
  const asCertificate = { operation: "certificate", serialNumber: "01" } as const;
  expect(await signList(crlTbs(1n), asCertificate)).toEqual(mismatch(/another operation/));
  expect(await signList(crlTbs(1n), { operation: "request" })).toEqual(
    mismatch(/another operation/),
  );
  const { extension, ...request } = logged(leafTbs());
  const [result] = await signer.sign([{ ...request, tbs: leafTbs() }], extension);
  expect(result).toMatchObject({ refusal: { detail: expect.stringMatching(/other bytes/) } });
});

test("ST-52: an intent serves once", async () => {
  const { signer, logged } = bench({ grant: windowOf([certificates(9)]) });
  const tbs = leafTbs();
  const { extension, ...request } = logged(tbs);
  expect(await signer.sign([{ ...request, tbs }], extension)).toEqual([
    { signature: expect.any(Uint8Array) as Uint8Array },
  ]);
  const [again] = await signer.sign([{ ...request, tbs }], undefined);
  expect(again).toMatchObject({ refusal: { code: "grant-mismatch" } });
});

// The timer of a process

afterEach(() => {
  vi.useRealTimers();
});

test("ST-48: without a driven clock the signer's own timer ends it", () => {
  vi.useFakeTimers({ now, toFake: ["setTimeout", "Date", "performance"] });
  const over: Over[] = [];
  openGrant({
    grant: windowOf([certificates(9)]),
    alreadySigned: 0,
    usedDigests: [],
    now: () => new Date(),
    monotonic: () => performance.now() / 1000,
    onOver: (reason) => over.push(reason),
  });
  vi.advanceTimersByTime(2 * HOUR - SECOND);
  expect(over).toEqual([]);
  vi.advanceTimersByTime(SECOND + 1);
  expect(over).toEqual(["idle"]);
});
