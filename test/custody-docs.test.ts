/** docs/custody.md: its numbers are those of the code, and its programs are run. */

import { execFileSync, spawn } from "node:child_process";
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  hash,
  randomBytes,
} from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { canonicalJson, type Json } from "../src/audit/canonical-json.ts";
import { digestOf } from "../src/audit/digest.ts";
import { noteSigner, signNote, type NoteSigner } from "../src/audit/signed-note.ts";
import { readPlan } from "../src/custody/plan.ts";
import { readRoster, type Roster } from "../src/custody/roster.ts";
import { deal, type Dealt } from "../src/custody/sealed/deal.ts";
import { privateKeyOf, readSealedKey } from "../src/custody/sealed/sealed-key.ts";
import {
  newUnlockIdentity,
  sealShareFile,
  type UnlockIdentity,
} from "../src/custody/sealed/share-file.ts";
import { createUnlocker, type Unlocker } from "../src/custody/sealed/unlock.ts";
import { readLock } from "../src/custody/personal-statement.ts";
import { readUnlock, type Signed } from "../src/custody/statement.ts";
import { checkApproval, checkSubmission } from "../src/custody/votes.ts";
import { verifyWithOneOf } from "../src/custody/roster.ts";
import { CountersignError } from "../src/errors.ts";
import { ceremonyState, unlockState } from "../src/http/ceremony-views.ts";
import { problems } from "../src/http/problem.ts";
import { context, octets, vectors } from "./custody/sealed/vectors.ts";
import { startSites, type TestSites } from "./support/http-sites.ts";

const docs = readFileSync(new URL("../docs/custody.md", import.meta.url), "utf8");

const block = (language: string): string =>
  new RegExp("```" + language + "\\n(.*?)```", "s").exec(docs)![1]!;

const folder = mkdtempSync(join(tmpdir(), "countersign-docs-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("the share in the docs is the one of the vectors", () => {
  const { x, y, commit, proof, text } = vectors.shares[1]!;
  const [first, ...rows] = block("share").trim().split(/\n+/);
  expect(first).toBe(text);
  expect(Object.fromEntries(rows.map((row) => row.split(/ +/)))).toEqual({
    x: String(x),
    threshold: String(vectors.threshold),
    shareCount: String(vectors.shareCount),
    epoch: String(vectors.epoch),
    keyId: vectors.keyId,
    Y: y,
    commit,
    proof,
  });
});

test("CUSTODY 3.3: the share file in the docs is what a dealer encrypts", async () => {
  const identity = await generateX25519Identity();
  const { x, y } = vectors.shares[1]!;
  const plan = /^# plan (sha256:[0-9a-f]{64})$/m.exec(block("share-file"))![1]!;
  const file = await sealShareFile(
    context,
    { x, y: octets(y) },
    await identityToRecipient(identity),
    { service: "ca.example.com", issuer: "CN=Example Root G1", custodian: "bob", plan },
  );
  const key = join(folder, "reader.key");
  writeFileSync(key, `${identity}\n`);
  const text = execFileSync("age", ["-d", "-i", key], { input: file, stdio: ["pipe", "pipe", 2] });
  expect(text.toString()).toBe(block("share-file"));
});

test("CUSTODY 4.3: every answer in the docs has the status that it is sent with", () => {
  const section = docs.slice(docs.indexOf("## What a submission is answered"));
  const rows = [...section.matchAll(/^\| (?:\d+|open) +\| `([a-z-]+)` +\| (\d{3}) +\|/gm)];
  expect(rows.length).toBeGreaterThan(18);
  for (const [, code, status] of rows) {
    expect([code, problems[code as keyof typeof problems].status]).toEqual([code, Number(status)]);
  }
});

test("CUSTODY 6.2: every state is in the docs", () => {
  const section = docs.slice(docs.indexOf("## States"), docs.indexOf("## What a submission"));
  for (const state of [...ceremonyState.options, ...unlockState.options]) {
    expect(section).toContain(`\`${state}\``);
  }
});

const program = join(folder, "recover.py");
writeFileSync(program, block("python"));

/** @returns What it prints; throws what it says. */
function recover(sealed: Uint8Array, shares: readonly string[]): Buffer {
  const file = join(folder, "sealed.cskb");
  writeFileSync(file, sealed);
  return execFileSync("python3", [program, file], { input: shares.join("\n"), stdio: "pipe" });
}

const texts = vectors.shares.map(({ text }) => text);
const sealedVector = octets(vectors.sealed);

test("ST-25: the program in the docs opens the sealed key of CUSTODY 14", () => {
  for (const places of [
    [0, 1, 2],
    [4, 2, 0],
    [3, 1, 4, 0],
  ]) {
    const shares = places.map((place) => texts[place]!);
    expect(recover(sealedVector, shares).toString()).toBe(vectors.payload);
  }
  const onPaper = texts.slice(0, 3).map((text) => text.toLowerCase().replace(/(.{5})/g, "$1 "));
  expect(recover(sealedVector, ["# on paper", ...onPaper, ""]).toString()).toBe(vectors.payload);
});

const changed = (at: number): Buffer => {
  const sealed = Buffer.from(sealedVector);
  sealed[at]! ^= 1;
  return sealed;
};

test.for([
  { name: "too few", sealed: sealedVector, shares: texts.slice(1, 3), says: "3 different shares" },
  {
    name: "one of them twice",
    sealed: sealedVector,
    shares: [texts[0]!, texts[0]!, texts[1]!],
    says: "3 different shares",
  },
  {
    name: "one mistyped",
    sealed: sealedVector,
    shares: [texts[0]!, texts[1]!, texts[2]!.replace("CSSHARE1QYPS", "CSSHARE1QYPP")],
    says: "mistyped",
  },
  {
    name: "one cut",
    sealed: sealedVector,
    shares: [texts[0]!, texts[1]!, texts[2]!.slice(1)],
    says: "not the text of a share",
  },
  { name: "another epoch", sealed: changed(11), shares: texts, says: "this epoch" },
  { name: "another key", sealed: changed(16), shares: texts, says: "of this key" },
  { name: "an edited key id", sealed: changed(40), shares: texts, says: "was changed" },
  { name: "another KEK check", sealed: changed(112), shares: texts, says: "do not open" },
  { name: "an edited secret", sealed: changed(144), shares: texts, says: "was changed" },
  {
    name: "an edited tag",
    sealed: changed(-1 + sealedVector.length),
    shares: texts,
    says: "changed",
  },
  { name: "another version", sealed: changed(4), shares: texts, says: "version 1" },
])("the program in the docs refuses: $name", ({ sealed, shares, says }) => {
  expect(() => recover(sealed, shares)).toThrow(says);
});

// With stock tools: a service on a port, and custodians with nothing of ours.

const SERVICE = "ca.example.com";
const origin = `${SERVICE}/audit`;

interface Person {
  readonly operator: string;
  readonly sshKey: string;
  readonly publicKey: string;
  readonly ageIdentity: string;
  readonly recipient: string;
}

function makePerson(operator: string): Person {
  const sshKey = join(folder, `${operator}-ssh`);
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", operator, "-f", sshKey]);
  const ageIdentity = join(folder, `${operator}-age`);
  execFileSync("age-keygen", ["-o", ageIdentity], { stdio: "pipe" });
  const recipient = execFileSync("age-keygen", ["-y", ageIdentity]).toString().trim();
  const publicKey = readFileSync(`${sshKey}.pub`, "utf8").split(" ").slice(0, 2).join(" ");
  return { operator, sshKey, publicKey, ageIdentity, recipient };
}

const people = ["alice", "bob", "carol"].map(makePerson);
const [alice, bob] = people as [Person, Person, Person];
const keeper: NoteSigner = noteSigner(
  `${SERVICE}/keeper`,
  generateKeyPairSync("ed25519").privateKey,
);

const octetsOf = (document: Json): Buffer => Buffer.from(canonicalJson(document));
const noteOf = (json: Uint8Array): string => signNote(`${Buffer.from(json).toString()}\n`, keeper);

let site: TestSites;
let dealt: Dealt;
let roster: Roster;
let identity: UnlockIdentity;
let unlocker: Unlocker;
let ceremony: Buffer;
let unlock: Buffer;
let notes: Record<"ceremony" | "unlock", string>;
const locked: string[] = [];
const ceremonyId = "00112233445566778899aabbccddeeff";
const unlockId = "ffeeddccbbaa99887766554433221100";

beforeAll(async () => {
  site = await startSites((parts) => ({
    ...parts,
    ceremonies: {
      ...parts.ceremonies,
      statement: async (name) => known(name, [ceremonyId, digestOf(ceremony)], notes.ceremony),
      async approve(name, signed) {
        known(name, [ceremonyId], "");
        checkApproval(roster, digestOf(ceremony), signed);
        return parts.ceremonies.view(name);
      },
    },
    unlocks: {
      ...parts.unlocks,
      statement: async (name) => known(name, [unlockId, digestOf(unlock)], notes.unlock),
      async submit(name, signed, file) {
        await take(signed, file);
        const view = await parts.unlocks.view(name);
        return {
          ...view,
          people: unlocker.given.map((operator) => ({ operator, state: "given" as const })),
          missing: { roles: {}, shares: unlocker.missing },
        };
      },
    },
    custody: {
      ...parts.custody,
      async lock(keyId, { statement, signature }) {
        const lock = readLock(statement);
        const keys = people.flatMap(({ operator, publicKey }) =>
          operator === lock.operator ? [publicKey] : [],
        );
        verifyWithOneOf(keys, "countersign-lock@v1", statement, signature);
        expect(lock.log).toEqual({
          size: 300,
          root: Buffer.from(site.domain.log.tree.root()).toString("base64"),
        });
        expect(lock.keyId).toBe(keyId);
        locked.push(keyId);
      },
    },
  }));
  writeFileSync(join(folder, "ca.pem"), site.apiCertificate);

  roster = readRoster(
    octetsOf({
      type: "countersign/roster/v1",
      version: 1,
      previous: null,
      operators: people.map((one) => ({
        id: one.operator,
        keys: [{ kind: "ssh", key: one.publicKey }],
        recipient: one.recipient,
        roles: ["officer"],
      })),
      service: { identity: keeper.verifierKey.text, log: site.domain.log.signer.verifierKey.text },
      rules: { roster: 2, policy: 2, resume: 2, ceremonies: { sign: { officer: 2 } } },
    }),
  );
  const plan = octetsOf({
    type: "countersign/plan/v1",
    service: SERVICE,
    issuer: "CN=Example Root G1",
    key: { generate: "P-256" },
    payload: "pkcs8",
    epoch: 1,
    previous: null,
    threshold: 2,
    shareCount: 3,
    custodians: people.map(({ operator, recipient }) => ({
      operator,
      recipient,
      role: "custodian",
    })),
    roster: roster.digest,
    reason: "a root",
  });
  dealt = await deal({ plan: readPlan(plan), planDigest: digestOf(plan), random: randomBytes });
  for (const [place, { operator }] of people.entries()) {
    writeFileSync(join(folder, `${operator}.share.age`), dealt.files[place]!);
  }
});
afterAll(() => site.close());

beforeEach(async () => {
  identity = await newUnlockIdentity();
  unlocker = createUnlocker({
    shareSet: dealt.shareSet,
    sealed: dealt.sealed,
    identity: identity.key,
  });
  const log = { origin, size: 3, root: `${"A".repeat(43)}=` };
  const { keyId } = dealt.shareSet;
  ceremony = octetsOf({
    type: "countersign/ceremony/v1",
    id: ceremonyId,
    service: SERVICE,
    kind: "sign",
    keyId,
    artefacts: [{ tbs: digestOf(Buffer.of(1)), lint: digestOf(Buffer.of(2)) }],
    rules: { officer: 2 },
    roster: roster.digest,
    policy: digestOf(Buffer.of(3)),
    notAfter: "2026-11-28T20:00:00Z",
    log,
    requestedBy: "alice",
    reason: "issue intermediate G2 — “quickly”",
  });
  unlock = octetsOf({
    type: "countersign/unlock/v1",
    id: unlockId,
    service: SERVICE,
    ceremony: digestOf(ceremony),
    keyId,
    epoch: 1,
    threshold: 2,
    shareCount: 3,
    shareSet: digestOf(octetsOf(dealt.shareSet as unknown as Json)),
    roster: roster.digest,
    recipient: identity.recipient,
    gatherSeconds: 600,
    log,
  });
  notes = { ceremony: noteOf(ceremony), unlock: noteOf(unlock) };
});

function known(name: string, names: readonly string[], note: string): string {
  if (!names.includes(name)) throw new CountersignError("unlock-unknown", "nothing of this name");
  return note;
}

async function take(signed: Signed, file: Uint8Array): Promise<void> {
  const submission = checkSubmission(roster, digestOf(unlock), signed);
  if (submission.verdict === "refuse") throw new Error("nobody refuses here");
  expect(submission.log).toEqual({ size: 3, root: readUnlock(unlock).log.root });
  await unlocker.submit({ operator: submission.operator, share: submission.share, file });
}

/** Runs commands as somebody with nothing but the files and settings that the docs name. */
function run(
  commands: string,
  person: Person,
  settings: Record<string, string> = {},
): Promise<{ status: number; output: string; errors: string; folder: string }> {
  const own = mkdtempSync(join(folder, "run-"));
  mkdirSync(join(own, "home"));
  const child = spawn("bash", ["-c", commands], {
    cwd: own,
    env: {
      PATH: process.env["PATH"]!,
      HOME: join(own, "home"),
      URL: site.apiUrl,
      CA: join(folder, "ca.pem"),
      VKEY: keeper.verifierKey.text,
      ID: unlockId,
      OPERATOR: person.operator,
      INDEX: String(people.indexOf(person) + 1),
      SSH_KEY: person.sshKey,
      AGE_IDENTITY: person.ageIdentity,
      SHARE_FILE: join(folder, `${person.operator}.share.age`),
      ...settings,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [output, errors] = [[] as Buffer[], [] as Buffer[]];
  child.stdout.on("data", (chunk: Buffer) => output.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => errors.push(chunk));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status) => {
      const [said, wrong] = [output, errors].map((one) => Buffer.concat(one).toString());
      resolve({ status: status ?? -1, output: said!, errors: wrong!, folder: own });
    });
  });
}

const submitting = block("sh");

test("CUSTODY 8.3: the settings of the commands stand at their top", () => {
  const [settings, rest] = submitting.split("\n\n", 2);
  const names = settings!.split("\n").map((line) => /^([A-Z_]+)=\$\{\1:-/.exec(line)?.[1]);
  expect(names).toEqual([
    "URL",
    "CA",
    "VKEY",
    "ID",
    "OPERATOR",
    "INDEX",
    "SSH_KEY",
    "AGE_IDENTITY",
    "SHARE_FILE",
  ]);
  expect(rest).toMatch(/^set -euo pipefail/);
});

test("CUSTODY 8.3: two custodians open a key with stock tools", async () => {
  const first = await run(submitting, alice);
  expect([first.status, first.errors]).toEqual([0, expect.not.stringContaining("curl:")]);
  expect(first.output).toContain('"reason": "issue intermediate G2 — “quickly”"');
  expect(first.output).toContain(
    '{"given":["alice"],"missing":{"roles":{},"shares":1},"state":"gathering"}',
  );
  // By the digest as well as by the id.
  const second = await run(submitting, bob, { ID: digestOf(unlock) });
  expect([second.status, second.output]).toEqual([0, expect.stringContaining('"shares":0')]);
  const secret = await unlocker.open();
  const key = privateKeyOf(readSealedKey(dealt.sealed), secret)!;
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  expect(hash("sha256", spki)).toBe(dealt.shareSet.keyId);
});

test.for([
  {
    name: "another verifier key",
    settings: () => ({
      VKEY: noteSigner(keeper.name, generateKeyPairSync("ed25519").privateKey).verifierKey.text,
    }),
    says: "Signature Verification Failure",
  },
  {
    name: "a note that was changed",
    change: () => {
      notes.unlock = notes.unlock.replace('"gatherSeconds":600', '"gatherSeconds":601');
    },
    says: "Signature Verification Failure",
  },
  {
    name: "a statement of another type",
    change: () => {
      notes.unlock = noteOf(
        Buffer.from(
          unlock.toString().replace("countersign/unlock", "countersign/rehearsal-unlock"),
        ),
      );
    },
    says: "",
  },
  {
    name: "another unlock",
    change: () => {
      notes.unlock = noteOf(Buffer.from(unlock.toString().replace(unlockId, ceremonyId)));
    },
    says: "",
  },
  {
    name: "another ceremony",
    change: () => {
      notes.ceremony = noteOf(Buffer.from(ceremony.toString().replace("G2", "G3")));
    },
    says: "",
  },
  {
    name: "an unlock that nobody knows",
    settings: () => ({ ID: ceremonyId }),
    says: '"code":"unlock-unknown"',
  },
  {
    name: "another age identity",
    settings: () => ({ AGE_IDENTITY: bob.ageIdentity }),
    says: "no identity matched",
  },
])("CUSTODY 8.3: nothing is signed after: $name", async ({ change, settings, says }) => {
  change?.();
  const { status, output, errors, folder: own } = await run(submitting, alice, settings?.());
  expect(status).not.toBe(0);
  expect(output + errors).toContain(says);
  expect(() => readFileSync(join(own, "submission.json.sig"))).toThrow("ENOENT");
  expect(unlocker.given).toEqual([]);
});

test("ST-26: what is refused is shown as the service says it", async () => {
  const { status, output } = await run(submitting, alice, {
    SHARE_FILE: join(folder, "bob.share.age"),
    AGE_IDENTITY: bob.ageIdentity,
  });
  expect(status).not.toBe(0);
  expect(output).toContain('"code":"share-not-yours"');
  expect(unlocker.given).toEqual([]);
});

const [approving, locking] = [...docs.matchAll(/```bash\n(.*?)```/gs)].map(([, text]) => text!);
/** What the other commands use of the first: settings and functions. */
const beginning = submitting.slice(0, submitting.indexOf("# The unlock:"));

test("CUSTODY 8.3: an approval with stock tools", async () => {
  const { status, output } = await run(beginning + approving!, bob, {
    ID: ceremonyId,
    ROLE: "officer",
  });
  expect([status, output]).toEqual([0, expect.stringContaining('"missing":')]);
});

test("CUSTODY 8.3: a lock with stock tools", async () => {
  const KEY = dealt.shareSet.keyId;
  const { status, errors } = await run(beginning + locking!, bob, { KEY });
  expect([status, errors]).toEqual([0, expect.not.stringContaining("curl:")]);
  expect(locked).toEqual([KEY]);
});

test("Leaving: two shares that stock age decrypts, and the key is an ordinary one", () => {
  const shares = [alice, bob].map(({ operator, ageIdentity }) =>
    execFileSync("age", [
      "-d",
      "-i",
      ageIdentity,
      join(folder, `${operator}.share.age`),
    ]).toString(),
  );
  const der = recover(dealt.sealed, shares);
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  expect(key.asymmetricKeyDetails?.namedCurve).toBe("prime256v1");
  const command = /^openssl pkey .*sha256sum/m.exec(docs)![0];
  writeFileSync(join(folder, "root.der"), der);
  const digest = execFileSync("bash", ["-c", command], { cwd: folder }).toString().slice(0, 64);
  expect(digest).toBe(dealt.shareSet.keyId);
});
