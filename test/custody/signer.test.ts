import type { ChildProcess } from "node:child_process";
import { createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { checkpointText } from "../../src/audit/checkpoint.ts";
import { leafHash } from "../../src/audit/merkle.ts";
import { noteSigner, signNote, type NoteSigner } from "../../src/audit/signed-note.ts";
import { openFrames, type Frames } from "../../src/custody/frames.ts";
import { mainModule, startProcess } from "../../src/custody/process-flags.ts";
import { errorOf } from "../../src/custody/refusal.ts";
import { decodeResults, lengthsOf } from "../../src/custody/sign-batch.ts";
import {
  fromSignerProtocol,
  type Extension,
  type FromSigner,
  type Opening,
  type ToSigner,
} from "../../src/custody/signer-protocol.ts";
import { readPin } from "../../src/custody/token/pin-file.ts";
import { openToken, type Token } from "../../src/custody/token/token.ts";
import type { CountersignError } from "../../src/errors.ts";
import { encodeName } from "../../src/x509/name.ts";
import { parsePublicKey, publicKeyObject, spkiDigest } from "../../src/x509/public-key.ts";
import { signatureAlgorithmFor, verifySignature } from "../../src/x509/signature-algorithm.ts";
import { refused } from "../support/refused.ts";
import { rootAuthority } from "../x509/authority.ts";
import {
  assembled,
  crlTbs,
  digestOf,
  intentFor,
  isAlive,
  leafPublicKey,
  leafTbs,
  newKeeperHome,
  grantedPolicy,
  policyText,
  someEntry,
  TestLog,
  type IntentChange,
  type KeeperHome,
} from "./keeper-home.ts";

/** A signer process with this test as its keeper, and so free to lie to it. */
class DrivenSigner {
  readonly log = new TestLog();
  readonly child: ChildProcess;
  readonly frames: Frames<ToSigner>;
  readonly #home: KeeperHome;
  readonly #key: NoteSigner;
  #seen = 0;
  #next = 0;
  #answer: (message: FromSigner, body: Uint8Array) => void = () => {};

  constructor(home: KeeperHome) {
    this.#home = home;
    this.#key = noteSigner(
      "test.example/audit",
      createPrivateKey(readFileSync(join(home.directory, "log.key"))),
    );
    this.child = startProcess({
      kind: "signer",
      module: mainModule("signer-main.js"),
      readFiles: [home.pinFile],
      environment: { SOFTHSM2_CONF: join(home.directory, "softhsm2.conf") },
    });
    this.frames = openFrames<FromSigner, ToSigner>(
      this.child.stdio[3] as Duplex,
      fromSignerProtocol,
      {
        onMessage: (message, body) => this.#answer(message, body),
        onEnd() {},
      },
    );
  }

  async open(change: Partial<Opening> = {}): Promise<FromSigner> {
    const opening: Opening = {
      issuer: "issuing",
      module: (this.#home.settings().keys[0]!.module as string) ?? "",
      uri: this.#home.token.uri,
      pinFile: this.#home.pinFile,
      grant: {
        operations: ["certificate", "crl"],
        profiles: ["server", "short"],
        policy: grantedPolicy,
        signaturesPerHour: 1000,
        maximumCrlLifetime: "8d",
      },
      alreadySigned: 0,
      usedDigests: [],
      policy: policyText,
      certificate: base64(this.#home.certificate),
      chain: [base64(this.#home.root.certificate)],
      caKeys: [this.#home.keyId],
      logKey: this.#key.verifierKey.text,
      head: null,
      list: null,
      ...change,
    };
    return (await this.ask({ type: "open" }, Buffer.from(JSON.stringify(opening)))).message;
  }

  ask(
    message: ToSigner,
    ...body: Uint8Array[]
  ): Promise<{ message: FromSigner; body: Uint8Array }> {
    return new Promise((resolve) => {
      this.#answer = (answer, octets) => resolve({ message: answer, body: octets });
      this.frames.send(message, ...body);
    });
  }

  /** From the head that the signer saw to that of the log. */
  extension(change: Partial<NonNullable<Extension>> = {}): [Extension, Uint8Array[]] {
    const from = this.#seen;
    const size = this.log.range.end;
    if (from === size && Object.keys(change).length === 0) return [null, []];
    const text = checkpointText(this.#key.name, size, this.log.range.root());
    const header = { from, first: from, size, note: signNote(text, this.#key), ...change };
    this.#seen = size;
    return [header, this.log.leaves.slice(header.first).map(leafHash)];
  }

  /** Signs certificates whose intents stand at these indexes. */
  async sign(
    ...requests: readonly { intentIndex: number; intent: Uint8Array; tbs: Uint8Array }[]
  ): Promise<(Uint8Array | Error)[]> {
    const [extension, hashes] = this.extension();
    const answer = await this.ask(
      { type: "sign", id: this.#next++, requests: requests.map(lengthsOf), extension },
      ...hashes,
      ...requests.flatMap(({ intent, tbs }) => [intent, tbs]),
    );
    if (answer.message.type !== "signed") throw new Error(`answered ${answer.message.type}`);
    return decodeResults(answer.message.results, answer.body);
  }

  /** Logs the intent and signs. */
  async logAndSign(tbs: Uint8Array, change: IntentChange = {}): Promise<Uint8Array | Error> {
    const intent = intentFor(this.#home, tbs, change);
    const intentIndex = this.log.add(intent);
    return (await this.sign({ intentIndex, intent, tbs }))[0]!;
  }

  /** Logs the intent and signs a CRL; returns the CRL. */
  async logAndSignList(
    tbs: Uint8Array,
    {
      predecessor,
      dropped = [],
      ...change
    }: IntentChange & { predecessor?: Uint8Array; dropped?: Uint8Array[] } = {},
  ): Promise<Uint8Array | Error> {
    const intent = intentFor(this.#home, tbs, { operation: "crl", ...change });
    const intentIndex = this.log.add(intent);
    const [extension, hashes] = this.extension();
    const { message, body } = await this.ask(
      {
        type: "sign-list",
        id: this.#next++,
        request: lengthsOf({ intentIndex, intent, tbs }),
        predecessor: predecessor?.length ?? 0,
        dropped: Buffer.concat(dropped).length,
        extension,
      },
      ...hashes,
      intent,
      tbs,
      ...(predecessor === undefined ? [] : [predecessor]),
      ...dropped,
    );
    if (message.type === "list-signed") return body.slice(message.signature);
    if (message.type !== "refused") throw new Error(`answered ${message.type}`);
    return errorOf(message);
  }
}

function base64(octets: Uint8Array): string {
  return Buffer.from(octets).toString("base64");
}

let home: KeeperHome;
let signer: DrivenSigner;
let token: Token | undefined;
beforeAll(async () => {
  home = await newKeeperHome();
});
afterAll(async () => {
  await token?.close();
  home.remove();
});
beforeEach(() => {
  signer = new DrivenSigner(home);
});
afterEach(() => {
  signer.child.kill("SIGKILL");
});

/** Whether something is a signature of the key over these bytes. */
function isSignature(tbs: Uint8Array, signature: Uint8Array | Error): boolean {
  if (signature instanceof Error) throw signature;
  const key = parsePublicKey(home.token.publicKey);
  return verifySignature(publicKeyObject(key), signatureAlgorithmFor(key.type), tbs, signature);
}

/** What the key would sign for nobody: signed behind the signer's back. */
async function signedByToken(tbs: Uint8Array): Promise<Uint8Array> {
  if (token === undefined) {
    process.env.SOFTHSM2_CONF = join(home.directory, "softhsm2.conf");
    const modulePath = home.settings().keys[0]!.module as string;
    token = openToken({ modulePath, uri: home.token.uri, pin: readPin(home.pinFile) });
  }
  return assembled(home, tbs, await token.key.sign(tbs));
}

/** The same bytes with one run of octets in the place of another of the same length. */
function replaced(octets: Uint8Array, old: Uint8Array, by: Uint8Array): Uint8Array {
  const copy = Buffer.from(octets);
  const at = copy.indexOf(old);
  if (at < 0 || old.length !== by.length) throw new Error("nothing to replace");
  copy.set(by, at);
  return copy;
}

test("what the grant allows is signed, one or many at a time", async () => {
  await signer.open();
  const all = Array.from({ length: 5 }, () => leafTbs(home));
  const requests = all.map((tbs) => {
    const intent = intentFor(home, tbs);
    return { intentIndex: signer.log.add(someEntry(), intent) + 1, intent, tbs };
  });
  const signatures = await signer.sign(...requests);
  expect(signatures.map((signature, index) => isSignature(all[index]!, signature))).toEqual(
    all.map(() => true),
  );
});

test("ST-45: a grant for CRLs signs no certificate, a grant for certificates no CRL", async () => {
  const grant = {
    profiles: ["server"],
    policy: grantedPolicy,
    signaturesPerHour: 10,
    maximumCrlLifetime: "8d",
  };
  await signer.open({ grant: { ...grant, operations: ["crl"] } });
  expect(await signer.logAndSign(leafTbs(home))).toEqual(refused("grant-mismatch"));
  const other = new DrivenSigner(home);
  await other.open({ grant: { ...grant, operations: ["certificate"] } });
  expect(await other.logAndSignList(crlTbs(home, 1n))).toEqual(refused("grant-mismatch"));
  other.child.kill("SIGKILL");
});

test("ST-46: certificates beyond the grant are refused by the signer, whatever the service let pass", async () => {
  await signer.open();
  const keyIdentifier = parsePublicKey(home.token.publicKey);
  const stranger = rootAuthority("P-256", "Another");
  const rows: { name: string; tbs: Uint8Array; change?: IntentChange; error: unknown }[] = [
    {
      name: "cA true",
      tbs: leafTbs(home, { ca: true, subject: encodeName([{ type: "CN", value: "Below" }]) }),
      error: refused("grant-mismatch", /a certificate of a CA/),
    },
    {
      name: "notAfter after the CA's",
      tbs: leafTbs(home, { days: 80 }),
      error: refused("grant-mismatch", /outlives its CA/),
    },
    {
      name: "the CA's own key",
      tbs: replaced(leafTbs(home), leafPublicKey(), home.token.publicKey),
      error: refused("grant-mismatch", /own key/),
    },
    {
      name: "a name outside the policy",
      tbs: leafTbs(home, { names: [{ kind: "dns", value: "example.com" }] }),
      error: refused("name-refused"),
    },
    {
      name: "a good name and a bad one",
      tbs: leafTbs(home, {
        names: [
          { kind: "dns", value: "a.example.test" },
          { kind: "dns", value: "example.com" },
        ],
      }),
      error: refused("name-refused"),
    },
    {
      name: "a lifetime beyond the profile's",
      tbs: leafTbs(home, { days: 20 }),
      change: { profile: "short" },
      error: refused("grant-mismatch", /lifetime/),
    },
    {
      name: "a profile that is not granted",
      tbs: leafTbs(home),
      change: { profile: "ungranted" },
      error: refused("grant-mismatch", /profile ungranted/),
    },
    {
      name: "a profile that does not exist",
      tbs: leafTbs(home),
      change: { profile: "none" },
      error: refused("grant-mismatch", /profile none/),
    },
    {
      name: "a requester that does not exist",
      tbs: leafTbs(home),
      change: { actor: { kind: "requester", id: "nobody" } },
      error: refused("requester-unknown"),
    },
    {
      name: "no requester",
      tbs: leafTbs(home),
      change: { actor: { kind: "service", id: "web" } },
      error: refused("grant-mismatch"),
    },
    {
      name: "another policy",
      tbs: leafTbs(home),
      change: { policy: digestOf(Buffer.from("p")) },
      error: refused("grant-mismatch", /policy/),
    },
    {
      name: "a serial number of 7 octets",
      tbs: leafTbs(home, { serialNumber: Buffer.from("41".repeat(7), "hex") }),
      error: refused("grant-mismatch", /serial number/),
    },
    {
      name: "a negative serial number",
      tbs: replaced(
        leafTbs(home, { serialNumber: Buffer.from("41".repeat(20), "hex") }),
        Buffer.from("41".repeat(20), "hex"),
        Buffer.from("81".repeat(20), "hex"),
      ),
      error: refused("grant-mismatch"),
    },
    {
      name: "another serial number than the intent's",
      tbs: leafTbs(home),
      change: { serialNumber: "0102030405060708" },
      error: refused("grant-mismatch", /another serial number/),
    },
    {
      name: "another CA's name",
      tbs: replaced(leafTbs(home), Buffer.from("Test Issuing"), Buffer.from("Test issuing")),
      error: refused("grant-mismatch", /issuer name/),
    },
    {
      name: "another CA's key identifier",
      tbs: replaced(leafTbs(home), authorityKeyIdentifier(), Buffer.alloc(20, 7)),
      error: refused("grant-mismatch", /authority key identifier/),
    },
    {
      name: "another algorithm",
      tbs: replaced(
        leafTbs(home),
        Buffer.from("300a06082a8648ce3d040302", "hex"),
        Buffer.from("300a06082a8648ce3d040303", "hex"),
      ),
      error: refused("grant-mismatch", /signature algorithm/),
    },
    {
      name: "bytes after it",
      tbs: Buffer.concat([leafTbs(home), Buffer.of(0)]),
      error: refused("grant-mismatch", /cannot be read/),
    },
    { name: "a root", tbs: Buffer.from(stranger.certificate), error: refused("grant-mismatch") },
    { name: "nothing", tbs: Buffer.alloc(0), error: refused("grant-mismatch") },
    {
      name: "a lint fault",
      tbs: leafTbs(home, {
        names: [
          { kind: "dns", value: "a.example.test" },
          { kind: "dns", value: "a.example.test" },
        ],
      }),
      error: refused("lint-refused"),
    },
  ];
  expect(keyIdentifier.type).toBe("P-256");
  for (const { name, tbs, change, error } of rows) {
    // oxlint-disable-next-line no-await-in-loop -- one signer, one question after the other
    expect(await signer.logAndSign(tbs, change), name).toEqual(error);
  }
  const good = leafTbs(home);
  expect(isSignature(good, await signer.logAndSign(good)), "the signer goes on").toBe(true);
});

function authorityKeyIdentifier(): Uint8Array {
  const tbs = Buffer.from(leafTbs(home));
  const at = tbs.indexOf(Buffer.from("0603551d23", "hex")); // id-ce-authorityKeyIdentifier
  return tbs.subarray(at + 11, at + 31);
}

test("ST-47: CRLs that hide or reach too far are refused by the signer", async () => {
  await signer.open();
  const revocationDate = new Date(Math.floor(Date.now() / 1000) * 1000 - 3_600_000);
  const serialNumber = Buffer.from("42".repeat(20), "hex");
  const entries = [{ serialNumber, revocationDate, reason: "keyCompromise" }] as const;
  const earlier = new Date(Date.now() - 60_000);
  const predecessor = (await signer.logAndSignList(
    crlTbs(home, 5n, { entries, thisUpdate: earlier }),
  )) as Uint8Array;
  expect(predecessor).toBeInstanceOf(Uint8Array);
  const foreign = Buffer.from(predecessor);
  foreign[foreign.length - 1]! ^= 1;
  const rows: {
    name: string;
    tbs: Uint8Array;
    predecessor?: Uint8Array;
    change?: IntentChange;
    error: RegExp;
  }[] = [
    {
      name: "an entry of the previous one missing",
      tbs: crlTbs(home, 6n),
      predecessor,
      error: /without the entry 4242/,
    },
    {
      name: "the same number",
      tbs: crlTbs(home, 5n, { entries }),
      predecessor,
      error: /not above the last one, 5/,
    },
    {
      name: "a lower number",
      tbs: crlTbs(home, 4n, { entries }),
      predecessor,
      error: /not above the last one, 5/,
    },
    {
      name: "nextUpdate in ten years",
      tbs: crlTbs(home, 6n, { entries, days: 3650 }),
      predecessor,
      error: /nextUpdate/,
    },
    {
      name: "nextUpdate a second beyond the grant",
      tbs: crlTbs(home, 6n, { entries, days: 8 + 1 / 86_400 }),
      predecessor,
      error: /nextUpdate/,
    },
    {
      name: "thisUpdate six minutes ago",
      tbs: crlTbs(home, 6n, { entries, thisUpdate: new Date(Date.now() - 360_000) }),
      predecessor,
      error: /thisUpdate/,
    },
    {
      name: "thisUpdate in six minutes",
      tbs: crlTbs(home, 6n, { entries, thisUpdate: new Date(Date.now() + 360_000) }),
      predecessor,
      error: /thisUpdate/,
    },
    {
      name: "no predecessor",
      tbs: crlTbs(home, 6n, { entries }),
      error: /without the one before it/,
    },
    {
      name: "another predecessor",
      tbs: crlTbs(home, 6n, { entries }),
      predecessor: foreign,
      error: /not the last CRL/,
    },
    {
      name: "an intent for a certificate",
      tbs: crlTbs(home, 6n, { entries }),
      predecessor,
      change: { operation: "certificate" },
      error: /another operation/,
    },
  ];
  for (const { name, tbs, predecessor: before, change, error } of rows) {
    // oxlint-disable-next-line no-await-in-loop -- one signer, one question after the other
    const outcome = await signer.logAndSignList(tbs, {
      ...change,
      ...(before === undefined ? {} : { predecessor: before }),
    });
    expect(outcome, name).toEqual(refused("grant-mismatch", error));
  }
  const next = await signer.logAndSignList(crlTbs(home, 6n, { entries }), { predecessor });
  expect(next, "the signer goes on").toBeInstanceOf(Uint8Array);
});

test("ST-47: a predecessor that this key did not sign is refused, also by a signer that saw none", async () => {
  await signer.open();
  const stranger = rootAuthority();
  const foreign = stranger.signed(crlTbs(home, 1n, { thisUpdate: new Date(Date.now() - 60_000) }));
  const outcome = await signer.logAndSignList(crlTbs(home, 2n), { predecessor: foreign });
  expect(outcome).toEqual(refused("grant-mismatch", /did not sign/));
});

test("a CRL number that the keeper remembers is not given again after a restart", async () => {
  const crl = await signedByToken(crlTbs(home, 7n, { thisUpdate: new Date(Date.now() - 60_000) }));
  await signer.open({ list: { number: "7", crl: digestOf(crl), der: base64(crl) } });
  expect(await signer.logAndSignList(crlTbs(home, 7n), { predecessor: crl })).toEqual(
    refused("grant-mismatch"),
  );
  expect(await signer.logAndSignList(crlTbs(home, 8n))).toEqual(refused("grant-mismatch"));
  expect(await signer.logAndSignList(crlTbs(home, 8n), { predecessor: crl })).toBeInstanceOf(
    Uint8Array,
  );
});

test("an entry leaves a CRL only with its certificate, expired before the last CRL", async () => {
  await signer.open();
  const hour = 3_600_000;
  const now = Math.floor(Date.now() / 1000) * 1000;
  const serialNumber = Buffer.from("43".repeat(20), "hex");
  const certificate = (notAfter: number): Promise<Uint8Array> =>
    signedByToken(
      leafTbs(home, {
        serialNumber,
        notBefore: new Date(now - 100 * hour),
        notAfter: new Date(notAfter),
      }),
    );
  const entries = [
    { serialNumber, revocationDate: new Date(now - 50 * hour), reason: "superseded" },
  ] as const;
  const predecessor = await signedByToken(
    crlTbs(home, 1n, { entries, thisUpdate: new Date(now - hour) }),
  );
  const without = (dropped: Uint8Array[]): Promise<Uint8Array | Error> =>
    signer.logAndSignList(crlTbs(home, 2n), { predecessor, dropped });
  const expired = await certificate(now - 2 * hour);
  const forged = Buffer.from(expired);
  forged[forged.length - 1]! ^= 1;
  expect(await without([forged])).toEqual(refused("grant-mismatch", /did not sign/));
  expect(await without([await certificate(now - hour / 2)])).toEqual(
    refused("grant-mismatch", /had not expired/),
  );
  expect(await without([])).toEqual(refused("grant-mismatch", /without the entry/));
  expect(await without([expired])).toBeInstanceOf(Uint8Array);
});

test("ST-52: without an intent, with another's, or with one that is spent, nothing is signed", async () => {
  await signer.open();
  const tbs = leafTbs(home);
  const other = leafTbs(home);
  const intent = intentFor(home, tbs);
  const done = someEntry();
  const first = signer.log.add(done, intent, intentFor(home, other));
  const rows = [
    { name: "an index with another leaf", intentIndex: first, intent, tbs },
    { name: "an index beyond the head", intentIndex: first + 9, intent, tbs },
    {
      name: "a leaf that was not logged",
      intentIndex: first + 1,
      intent: intentFor(home, other),
      tbs: other,
    },
    { name: "a leaf that is no intent", intentIndex: first, intent: done, tbs },
    {
      name: "an intent for other bytes",
      intentIndex: first + 2,
      intent: signer.log.leaves[first + 2]!,
      tbs,
    },
  ];
  for (const { name, ...request } of rows) {
    // oxlint-disable-next-line no-await-in-loop -- one signer, one question after the other
    expect((await signer.sign(request))[0], name).toEqual(refused("grant-mismatch"));
  }
  const request = { intentIndex: first + 1, intent, tbs };
  const [signature, again] = await signer.sign(request, request);
  expect(isSignature(tbs, signature!)).toBe(true);
  expect(again, "twice in one batch").toEqual(refused("grant-mismatch", /no unspent intent/));
  expect((await signer.sign(request))[0], "once more").toEqual(refused("grant-mismatch"));
});

test("ST-52: an intent for another key is refused", async () => {
  await signer.open();
  const keyId = spkiDigest(leafPublicKey());
  expect(await signer.logAndSign(leafTbs(home), { keyId })).toEqual(
    refused("grant-mismatch", /another key/),
  );
});

test.for<{ name: string; change: Partial<NonNullable<Extension>> }>([
  { name: "an older head than it saw", change: { from: 0, first: 0 } },
  {
    name: "a head without the log's signature",
    change: { note: "test.example/audit\n2\nAAAA\n\n— x AAAA\n" },
  },
])("ST-52: with $name a signer signs nothing", async ({ change }) => {
  await signer.open();
  await signer.logAndSign(leafTbs(home));
  const tbs = leafTbs(home);
  const intent = intentFor(home, tbs);
  const intentIndex = signer.log.add(intent);
  const [extension, hashes] = signer.extension(change);
  const { message, body } = await signer.ask(
    { type: "sign", id: 99, requests: [lengthsOf({ intentIndex, intent, tbs })], extension },
    ...hashes,
    intent,
    tbs,
  );
  expect(message.type).toBe("signed");
  const results = decodeResults((message as FromSigner & { type: "signed" }).results, body);
  expect(results).toEqual([refused("grant-mismatch", /head of the log/)]);
});

test("ST-43: the count is lowered before signing, and what is beyond it is refused", async () => {
  await signer.open({
    grant: {
      operations: ["certificate"],
      profiles: ["server"],
      policy: grantedPolicy,
      signaturesPerHour: 2,
      maximumCrlLifetime: "8d",
    },
    alreadySigned: 1,
  });
  const requests = [leafTbs(home), leafTbs(home)].map((tbs) => {
    const intent = intentFor(home, tbs);
    return { intentIndex: signer.log.add(intent), intent, tbs };
  });
  const [first, second] = await signer.sign(...requests);
  expect(isSignature(requests[0]!.tbs, first!)).toBe(true);
  expect(second).toEqual(refused("grant-exceeded"));
});

test("ST-44: under a grant of digests, those bytes are signed, each once", async () => {
  const root = await rootTbsOfToken();
  const changed = Buffer.from(root);
  changed[30]! ^= 1;
  await signer.open({ grant: { digests: [digestOf(root)] }, certificate: null, chain: [] });
  expect(await signer.logAndSign(changed)).toEqual(refused("grant-mismatch"));
  expect(isSignature(root, await signer.logAndSign(root))).toBe(true);
  expect(await signer.logAndSign(root)).toEqual(refused("grant-mismatch", /signed already/));
});

test("ST-44: a digest that the keeper says is used up is not signed again", async () => {
  const root = await rootTbsOfToken();
  const digests = [digestOf(root)];
  await signer.open({ grant: { digests }, usedDigests: digests, certificate: null, chain: [] });
  expect(await signer.logAndSign(root)).toEqual(refused("grant-mismatch"));
});

test("a founding key signs its own certificate first, and then what names it as issuer", async () => {
  const root = await rootTbsOfToken();
  const child = leafTbs(home, {
    ca: true,
    subject: encodeName([{ type: "CN", value: "Below" }]),
    names: [],
    days: 50,
  });
  await signer.open({
    grant: { digests: [digestOf(root), digestOf(child)] },
    certificate: null,
    chain: [],
  });
  expect(await signer.logAndSign(child)).toEqual(refused("grant-mismatch", /signs its own first/));
  expect(isSignature(root, await signer.logAndSign(root))).toBe(true);
  expect(await signer.logAndSign(child)).toEqual(refused("grant-mismatch", /issuer name/));
});

/** A root certificate of the token's key under another name than the issuing CA's. */
async function rootTbsOfToken(): Promise<Uint8Array> {
  const { buildRootTbsCertificate } = await import("../../src/x509/certificate-template.ts");
  const start = Math.floor(Date.now() / 1000) * 1000 - 60_000;
  return buildRootTbsCertificate({
    serialNumber: Buffer.from("44".repeat(20), "hex"),
    notBefore: new Date(start),
    notAfter: new Date(start + 20 * 365 * 86_400_000),
    subject: encodeName([{ type: "CN", value: "Founding Root" }]),
    publicKey: parsePublicKey(home.token.publicKey),
  });
}

test.for<{ name: string; change: Partial<Opening>; code: CountersignError["code"] }>([
  {
    name: "another policy than granted",
    change: { policy: `${policyText}# same frame\n`.replace("90d", "91d") },
    code: "grant-mismatch",
  },
  {
    name: "a policy that cannot be read",
    change: { policy: "version: 2" },
    code: "policy-invalid",
  },
  {
    name: "a missing token",
    change: { uri: "pkcs11:token=none;object=none" },
    code: "token-unavailable",
  },
  {
    name: "a missing key",
    change: { uri: "pkcs11:token=issuing;object=none" },
    code: "key-unknown",
  },
  {
    name: "a PIN file that it may not read",
    change: { pinFile: "/etc/passwd" },
    code: "config-invalid",
  },
])("a signer does not open with $name", async ({ change, code }) => {
  expect(await signer.open(change)).toMatchObject({ type: "failed", code });
});

test("a signer does not open with a certificate of another key", async () => {
  const certificate = base64(home.root.certificate);
  expect(await signer.open({ certificate })).toMatchObject({
    type: "failed",
    code: "config-invalid",
  });
});

test("ST-58: a signer that is asked before it is opened, or twice, ends", async () => {
  const exit = new Promise((resolve) => signer.child.once("exit", resolve));
  signer.frames.send({ type: "status", id: 1 });
  expect(await exit).toBe(1);
  const other = new DrivenSigner(home);
  await other.open();
  const otherExit = new Promise((resolve) => other.child.once("exit", resolve));
  other.frames.send({ type: "open" }, Buffer.from("{}"));
  expect(await otherExit).toBe(1);
});

test("a signer ends when its keeper's end of the pipe is gone", async () => {
  await signer.open();
  const exit = new Promise((resolve) => signer.child.once("exit", resolve));
  signer.frames.destroy();
  expect(await exit).toBe(0);
  expect(isAlive(signer.child.pid!)).toBe(false);
});
