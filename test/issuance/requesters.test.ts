/** Requesters: who a certificate logs in as, and changes that are recorded only where they can be put into force. */

import { generateKeyPairSync, randomBytes } from "node:crypto";
import { mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { checkpointText } from "../../src/audit/checkpoint.ts";
import { digestOf } from "../../src/audit/digest.ts";
import { encodeEntry } from "../../src/audit/entry.ts";
import { CompactRange, leafHash } from "../../src/audit/merkle.ts";
import { noteSigner, signNote } from "../../src/audit/signed-note.ts";
import { grantSchema, policyDigest } from "../../src/custody/grant.ts";
import { writeBody } from "../../src/custody/keeper-bodies.ts";
import { createKeeper } from "../../src/custody/keeper.ts";
import type { FromKeeper } from "../../src/custody/keeper-protocol.ts";
import { createSigner } from "../../src/custody/signer.ts";
import { RequesterRegister, type RequesterParts } from "../../src/issuance/requesters.ts";
import { compilePolicy } from "../../src/policy/decide.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import type { Credential, Requester } from "../../src/policy/requester.ts";
import { buildTbsCertificate, certificateTemplate } from "../../src/x509/certificate-template.ts";
import type { KeyUsage } from "../../src/x509/extension.ts";
import { emptyName } from "../../src/x509/name.ts";
import { extKeyUsageOids } from "../../src/x509/oid.ts";
import { serialNumberFrom } from "../../src/x509/serial-number.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import { done, intent, start } from "../store/fixture.ts";
import { DAY, softwareKey, testRequester } from "../support/software-ca.ts";
import { statement as statementOf } from "../custody/keeper-home.ts";
import { makePeople, makeSshKey, sshSign, type People } from "../support/people.ts";
import { alice, asRequester, openDomain, other, type Domain } from "./domain.ts";

const NAMESPACE = "countersign-requester@v1";

let folder: string;
let people: People;
let operatorKey: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "countersign-requesters-"));
  people = makePeople(folder, ["alice"]);
  operatorKey = people.person("alice").publicKey;
});
afterAll(() => rmSync(folder, { recursive: true }));

const refused = (code: string): unknown => expect.objectContaining({ code });

const mtls = (name: string, issuer = "issuing"): Credential => ({ kind: "mtls", issuer, name });
const apiKey = (digit: string): Credential => ({
  kind: "api-key",
  sha256: `sha256:${digit.repeat(64)}`,
});

const robot: Requester = {
  ...testRequester,
  name: "robot",
  credentials: [mtls("dns:robot.example.test")],
};

function registerOf(domain: Domain, change: Partial<RequesterParts> = {}): RequesterRegister {
  return new RequesterRegister(
    {
      policy: domain.policy,
      journal: domain.journal,
      reads: domain.reads,
      keeper: { requester: async () => {} },
      operators: () => [{ id: "alice", keys: [operatorKey] }],
      now: () => domain.clock.now,
      ...change,
    },
    [],
  );
}

// Logging in with a certificate

const dnsOf = (...dns: string[]) => ({ dns });

async function loginWith(
  domain: Domain,
  profile: string,
  dns: string[] = ["robot.example.test"],
): Promise<{ serialNumber: string; certificate: Uint8Array; notBefore: Date; notAfter: Date }> {
  return domain.issue({ profile }, dnsOf(...dns));
}

test("a client certificate logs in as the requester of its name", async () => {
  await using domain = await openDomain({ requesters: [testRequester, robot] });
  const { certificate } = await loginWith(domain, "client");
  expect(await registerOf(domain).byCertificate(certificate)).toEqual({
    kind: "requester",
    id: "robot",
    via: "mtls",
    requester: robot,
  });
});

test("a server certificate of that name is a certificate, and no requester", async () => {
  await using domain = await openDomain({ requesters: [testRequester, robot] });
  const { certificate, serialNumber } = await loginWith(domain, "server");
  expect(await registerOf(domain).byCertificate(certificate)).toEqual({
    kind: "certificate",
    id: digestOf(certificate),
    via: "mtls",
    issuer: "issuing",
    serialNumber,
  });
});

test.for<{
  name: string;
  keyUsage: readonly KeyUsage[];
  extKeyUsage: readonly string[];
  kind: string;
}>([
  {
    name: "digitalSignature and clientAuth",
    keyUsage: ["digitalSignature"],
    extKeyUsage: [extKeyUsageOids.clientAuth],
    kind: "requester",
  },
  {
    name: "clientAuth beside serverAuth",
    keyUsage: ["digitalSignature"],
    extKeyUsage: [extKeyUsageOids.serverAuth, extKeyUsageOids.clientAuth],
    kind: "requester",
  },
  {
    name: "a key that is not for signatures",
    keyUsage: ["keyAgreement"],
    extKeyUsage: [extKeyUsageOids.clientAuth],
    kind: "certificate",
  },
  {
    name: "any purpose, which is not this one by name",
    keyUsage: ["digitalSignature"],
    extKeyUsage: [extKeyUsageOids.anyExtendedKeyUsage],
    kind: "certificate",
  },
])("a certificate with $name logs in as a $kind", async ({ keyUsage, extKeyUsage, kind }) => {
  await using domain = await openDomain({ requesters: [robot] });
  const { ca } = domain;
  const names = [{ kind: "dns", value: "robot.example.test" }] as const;
  const serialNumber = serialNumberFrom(randomBytes(20));
  const [notBefore, notAfter] = [start, new Date(+start + DAY)];
  const tbs = buildTbsCertificate(
    certificateTemplate({
      issuerCertificate: ca.issuing,
      keyUsage,
      extKeyUsage,
      crlUrl: "http://127.0.0.1/crl/issuing.crl",
      subjectKeyIdentifier: false,
    }),
    {
      serialNumber,
      notBefore,
      notAfter,
      subject: emptyName,
      publicKey: softwareKey("P-256").info,
      names,
    },
  );
  const certificate = assembleSigned(tbs, ca.algorithm, ca.issuingKey.sign(tbs));
  const row = { serialNumber: Buffer.from(serialNumber).toString("hex"), names };
  const index = await domain.journal.append(intent({ ...row, notBefore, notAfter }));
  await domain.journal.append(done(index, certificate));
  expect(await registerOf(domain).byCertificate(certificate)).toMatchObject({ kind });
});

test("a certificate with the names of two requesters is nobody, with two names of one it is that one", async () => {
  const team = { ...other, name: "team", credentials: [mtls("dns:team.example.test")] };
  const two = { ...robot, credentials: [...robot.credentials, mtls("dns:robot2.example.test")] };
  await using domain = await openDomain({ requesters: [testRequester, two, team] });
  const register = registerOf(domain);
  const both = await loginWith(domain, "client", ["robot.example.test", "team.example.test"]);
  expect(await register.byCertificate(both.certificate)).toBeUndefined();
  const one = await loginWith(domain, "client", ["robot.example.test", "robot2.example.test"]);
  expect(await register.byCertificate(one.certificate)).toMatchObject({ id: "robot" });
  const stranger = await loginWith(domain, "client", ["robot.example.test", "x.example.test"]);
  expect(await register.byCertificate(stranger.certificate)).toMatchObject({ id: "robot" });
});

test("a name counts in certificates of the credential's issuer only", async () => {
  const elsewhere = { ...robot, credentials: [mtls("dns:robot.example.test", "root")] };
  await using domain = await openDomain({ requesters: [testRequester, elsewhere] });
  const { certificate } = await loginWith(domain, "client");
  expect(await registerOf(domain).byCertificate(certificate)).toMatchObject({
    kind: "certificate",
  });
});

test("a certificate counts from its begin to its end", async () => {
  await using domain = await openDomain({ requesters: [testRequester, robot] });
  const { certificate, notBefore, notAfter } = await loginWith(domain, "client");
  const register = registerOf(domain);
  const idAt = async (at: number): Promise<string | undefined> => {
    domain.clock.now = new Date(at);
    return (await register.byCertificate(certificate))?.id;
  };
  expect(await idAt(+notBefore - 1)).toBeUndefined();
  expect(await idAt(+notBefore)).toBe("robot");
  expect(await idAt(+notAfter)).toBe("robot");
  expect(await idAt(+notAfter + 1)).toBeUndefined();
});

test("a revoked certificate is nobody", async () => {
  await using domain = await openDomain({ requesters: [testRequester, robot] });
  const { certificate, serialNumber } = await loginWith(domain, "client");
  const register = registerOf(domain);
  expect(await register.byCertificate(certificate)).toMatchObject({ id: "robot" });
  await domain.revocations.revoke({
    caller: alice,
    issuer: "issuing",
    serialNumber,
    reason: "superseded",
    requestId: "0",
  });
  expect(await register.byCertificate(certificate)).toBeUndefined();
});

test("a certificate that was not issued here, or whose record does not say so, is nobody", async () => {
  await using domain = await openDomain({ requesters: [testRequester, robot] });
  const { certificate } = await loginWith(domain, "client");
  const register = registerOf(domain);
  const changed = Buffer.from(certificate);
  changed[changed.length - 1]! ^= 1;
  expect(await register.byCertificate(changed)).toBeUndefined();
  // No state but issued has bytes to be found by; were there one, it would not count.
  for (const state of ["pending", "abandoned"] as const) {
    const reads: RequesterParts["reads"] = {
      ...domain.reads,
      certificateBySha256: async (digest) => ({
        ...(await domain.reads.certificateBySha256(digest))!,
        state,
      }),
    };
    expect(await registerOf(domain, { reads }).byCertificate(certificate)).toBeUndefined();
  }
});

test("the certificate of a CA is nobody, whatever its names", async () => {
  await using domain = await openDomain({ requesters: [testRequester, robot] });
  const { certificate } = await loginWith(domain, "client");
  // The row of a CA whose certificate has the bytes of a client's: the kind alone speaks against it.
  const reads: RequesterParts["reads"] = {
    ...domain.reads,
    certificateBySha256: async (digest) => ({
      ...(await domain.reads.certificateBySha256(digest))!,
      kind: "intermediate",
    }),
  };
  expect(await registerOf(domain, { reads }).byCertificate(certificate)).toBeUndefined();
  const index = await domain.journal.append(intent({ kind: "intermediate", requester: null }));
  await domain.journal.append(done(index, domain.ca.issuing));
  expect(await registerOf(domain).byCertificate(domain.ca.issuing)).toBeUndefined();
});

// Changes

interface Statement {
  readonly statement: Uint8Array;
  readonly signature: string;
}

type Change =
  | { readonly action: "set"; readonly requester: Requester }
  | { readonly action: "remove"; readonly name: string };

const set = (requester: Requester): Change => ({ action: "set", requester });
const remove = (name: string): Change => ({ action: "remove", name });

const EMPTY = { size: 0, root: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" };

function signed(
  next: { sequence: number; previous: string | null },
  change: Change,
  log: { size: number; root: string } = EMPTY,
): Statement {
  const statement = statementOf({
    type: "countersign/requester/v1",
    operator: "alice",
    at: "2026-11-21T20:03:00Z",
    ...next,
    log,
    ...change,
  } as never);
  return { statement, signature: sshSign(join(folder, "alice"), NAMESPACE, statement) };
}

/** Statements one after the other, as they were recorded. */
function chainOf(...changes: readonly Change[]): Statement[] {
  const chain: Statement[] = [];
  for (const change of changes) {
    const before = chain.at(-1);
    const previous = before === undefined ? null : digestOf(before.statement);
    chain.push(signed({ sequence: chain.length + 1, previous }, change));
  }
  return chain;
}

const web: Requester = { ...testRequester, name: "web", credentials: [apiKey("1")] };

test("a change is recorded, in force and told to the keeper, in this order", async () => {
  await using domain = await openDomain();
  const steps: string[] = [];
  domain.hooks.append = async (item) => void steps.push(item.kind);
  const register = registerOf(domain, {
    keeper: {
      async requester() {
        steps.push(register.byApiKey("1".repeat(64))?.name ?? "not in force");
      },
    },
  });
  const { statement, signature } = signed(register.next(), set(web));
  await register.change(statement, signature, alice);
  expect(steps).toEqual(["requester", "web"]);
  expect((await domain.reads.requesterStatements()).map(({ name }) => name)).toEqual(["web"]);
  expect(register.next()).toEqual({ sequence: 2, previous: digestOf(statement) });
  expect(await domain.entries()).toMatchObject([
    {
      type: "policy.changed",
      actor: { kind: "operator", id: "alice", via: "sshsig" },
      data: { requester: "web", action: "set", sequence: 1 },
      evidence: { statement: Buffer.from(statement).toString("base64"), signature },
    },
  ]);
});

const taken: Requester = { ...web, name: "thief" };
const elsewhere = { sequence: 1, previous: `sha256:${"00".repeat(32)}` };

test.for<{
  name: string;
  change: Change;
  next?: { sequence: number; previous: string | null };
  log?: { size: number; root: string };
  code: string;
}>([
  { name: "gives a credential that is another's", change: set(taken), code: "requester-exists" },
  { name: "removes nobody", change: remove("nobody"), code: "requester-unknown" },
  {
    name: "refers to an issuer that is not there",
    change: set({ ...robot, issuers: ["gone"] }),
    code: "policy-invalid",
  },
  {
    name: "names a head that the log has not reached",
    change: set(robot),
    log: { size: 2, root: EMPTY.root },
    code: "statement-stale",
  },
  {
    name: "names a head of this size that the log never had",
    change: set(robot),
    log: { size: 1, root: EMPTY.root },
    code: "statement-stale",
  },
  {
    name: "names an empty log with a root",
    change: set(robot),
    log: { size: 0, root: "A".repeat(43) + "=" },
    code: "statement-stale",
  },
  {
    name: "is out of its turn",
    change: set(robot),
    next: { sequence: 3, previous: elsewhere.previous },
    code: "statement-stale",
  },
  {
    name: "follows another one",
    change: set(robot),
    next: { sequence: 2, previous: elsewhere.previous },
    code: "statement-stale",
  },
])(
  "a statement that $name is refused before it is recorded, and the next one passes",
  async (row) => {
    await using domain = await openDomain();
    const told: Uint8Array[] = [];
    const register = registerOf(domain, {
      keeper: { requester: async (statement) => void told.push(statement) },
    });
    const first = signed(register.next(), set(web));
    await register.change(first.statement, first.signature, alice);
    const before = register.next();
    const bad = signed(row.next ?? before, row.change, row.log);
    await expect(register.change(bad.statement, bad.signature, alice)).rejects.toEqual(
      refused(row.code),
    );
    expect(await domain.reads.requesterStatements()).toHaveLength(1);
    expect(await domain.entries()).toHaveLength(1);
    expect(told).toHaveLength(1);
    expect(register.next()).toEqual(before);
    expect(register.list().map(({ name }) => name)).toEqual(["deploy", "other", "web"]);
    const good = signed(before, set(robot));
    await register.change(good.statement, good.signature, alice);
    expect(register.next().sequence).toBe(3);
  },
);

test("a statement may name any head that the log had", async () => {
  await using domain = await openDomain();
  const register = registerOf(domain);
  const roots = [EMPTY];
  for (const sequence of [1, 2, 3]) {
    const { statement, signature } = signed(register.next(), set(web), roots[sequence - 1]);
    await register.change(statement, signature, alice);
    await domain.journal.drain();
    const { size, note } = (await domain.reads.checkpoint())!;
    roots.push({ size, root: note.split("\n")[2]! });
  }
  expect(roots.map(({ size }) => size)).toEqual([0, 1, 2, 3]);
});

test("only operators change requesters, and only over their own signature", async () => {
  await using domain = await openDomain();
  const register = registerOf(domain);
  const { statement, signature } = signed(register.next(), set(web));
  await expect(register.change(statement, signature, asRequester(testRequester))).rejects.toEqual(
    refused("forbidden"),
  );
  const stranger = join(folder, "mallory");
  makeSshKey(stranger);
  await expect(
    register.change(statement, sshSign(stranger, NAMESPACE, statement), alice),
  ).rejects.toEqual(refused("signature-invalid"));
  await expect(
    register.change(statement, sshSign(join(folder, "alice"), "git", statement), alice),
  ).rejects.toEqual(refused("signature-invalid"));
  expect(await domain.entries()).toEqual([]);
});

test("a keeper that could not take a statement hears of it before the next one", async () => {
  await using domain = await openDomain();
  const told: string[] = [];
  let full = true;
  const register = registerOf(domain, {
    keeper: {
      async requester(statement) {
        if (full) throw new Error("no space left on device");
        told.push(digestOf(statement));
      },
    },
  });
  const first = signed(register.next(), set(web));
  await expect(register.change(first.statement, first.signature, alice)).rejects.toThrow("space");
  // It is recorded, and so in force.
  expect(register.byApiKey("1".repeat(64))?.name).toBe("web");
  const second = signed(register.next(), set(robot));
  await expect(register.change(second.statement, second.signature, alice)).rejects.toThrow("space");
  expect(await domain.reads.requesterStatements()).toHaveLength(1);
  full = false;
  await register.change(second.statement, second.signature, alice);
  expect(told).toEqual([first, second].map(({ statement }) => digestOf(statement)));
});

// The start: what was recorded, on top of a policy file that may have changed

const file = `version: 1
issuers:
  issuing:
    profiles: [server]
    names: { dns: { allow: ["subdomains:example.test"] } }
profiles:
  server: { kind: server, lifetime: { default: 30d, maximum: 90d }, keyTypes: [P-256] }
requesters:
`;
const entryOf = (name: string, digit: string): string =>
  `  ${name}: { credentials: [{ kind: api-key, sha256: "sha256:${digit.repeat(64)}" }], ` +
  "issuers: [issuing], profiles: [server], names: {}, revoke: own }\n";

const serverOnly = { ...testRequester, profiles: ["server"] };
const withKey = (name: string, digit: string): Requester => ({
  ...serverOnly,
  name,
  credentials: [apiKey(digit)],
});

const histories: readonly {
  name: string;
  policy: string;
  changes: readonly Change[];
  /** By the digit of the API key. */
  inForce: { [digit: string]: string };
  unapplied: readonly number[];
}[] = [
  {
    name: "a credential that an entry of the file has by now",
    policy: entryOf("a", "2"),
    changes: [set(withKey("web", "2"))],
    inForce: { "2": "a" },
    unapplied: [1],
  },
  {
    name: "a new key that an entry of the file has by now: the old one does not come back",
    policy: entryOf("a", "2"),
    changes: [set(withKey("web", "1")), set(withKey("web", "2")), set(withKey("api", "1"))],
    inForce: { "1": "api", "2": "a" },
    unapplied: [2],
  },
  {
    name: "a later statement puts it right",
    policy: entryOf("a", "2"),
    changes: [set(withKey("web", "2")), set(withKey("web", "3"))],
    inForce: { "2": "a", "3": "web" },
    unapplied: [1],
  },
  {
    name: "the removal of an entry that the file no longer has",
    policy: entryOf("a", "2"),
    changes: [remove("gone"), set(withKey("web", "1"))],
    inForce: { "1": "web", "2": "a" },
    unapplied: [],
  },
  {
    name: "statements that fit",
    policy: entryOf("a", "2"),
    changes: [remove("a"), set(withKey("web", "2")), set(withKey("web", "1")), remove("web")],
    inForce: {},
    unapplied: [],
  },
];

test.for(histories)("at the start: $name (register)", async (history) => {
  await using domain = await openDomain();
  const policy = compilePolicy(parsePolicy(file + history.policy, "policy.yaml"));
  const unapplied: number[] = [];
  const register = new RequesterRegister(
    {
      policy,
      journal: domain.journal,
      reads: domain.reads,
      keeper: { requester: async () => {} },
      operators: () => [],
      now: () => domain.clock.now,
      unapplied: ({ sequence }) => unapplied.push(sequence),
    },
    chainOf(...history.changes),
  );
  const owners = ["1", "2", "3"].flatMap((digit) => {
    const owner = register.byApiKey(digit.repeat(64));
    return owner === undefined ? [] : [[digit, owner.name]];
  });
  expect(Object.fromEntries(owners)).toEqual(history.inForce);
  expect(register.list().map(({ name }) => name)).toEqual(
    Object.values(history.inForce).toSorted(),
  );
  expect(unapplied).toEqual(history.unapplied);
  expect(register.next().sequence).toBe(history.changes.length + 1);
});

test("a statement that is not in force is a warning of the process where nobody else is told", async () => {
  await using domain = await openDomain();
  const warning = vi.spyOn(process, "emitWarning").mockReturnValue();
  onTestFinished(() => warning.mockRestore());
  const policy = compilePolicy(parsePolicy(file + entryOf("a", "2"), "policy.yaml"));
  const parts = {
    policy,
    journal: domain.journal,
    reads: domain.reads,
    keeper: { requester: async () => {} },
    operators: () => [],
    now: () => domain.clock.now,
  };
  expect(new RequesterRegister(parts, chainOf(set(withKey("web", "2")))).list()).toHaveLength(1);
  expect(warning).toHaveBeenCalledWith(expect.stringMatching(/requester web is not in force/));
});

/** A keeper without keys, in this process. */
function keeperFor(policy: string) {
  const directory = mkdtempSync(join(folder, "keeper-"));
  const answers: FromKeeper[] = [];
  const key = () => generateKeyPairSync("ed25519").privateKey;
  const logKey = key();
  const identityKey = key();
  const alone = people.roster({
    identity: noteSigner("test.example/keeper", identityKey).verifierKey.text,
    log: noteSigner("test.example/audit", logKey).verifierKey.text,
  });
  const keeper = createKeeper({
    config: {
      service: "test.example",
      origin: "test.example/audit",
      logKey,
      identityKey,
      head: join(directory, "head"),
      state: join(directory, "state.json"),
      policy,
      genesis: digestOf(alone),
      tokenEnvironment: {},
      keys: [],
    },
    now: () => new Date(),
    monotonic: () => performance.now() / 1000,
    random: randomBytes,
    send: (message) => answers.push(message),
  });
  onTestFinished(() => keeper.stop());
  const ask = (message: Parameters<typeof keeper.receive>[0], ...body: Uint8Array[]) => {
    keeper.receive(message, Buffer.concat(body));
    const answer = answers.pop()!;
    return answer.type === "refused" ? answer.code : answer.type;
  };
  ask({ type: "initialise", id: 0 });
  ask({ type: "rosters", id: 0 }, writeBody("rosters", { versions: [people.version(alone)] }));
  return {
    directory,
    show: (chain: readonly Statement[]) =>
      ask(
        {
          type: "requesters",
          id: 0,
          statements: chain.map(({ statement, signature }) => [statement.length, signature.length]),
          last: true,
        },
        ...chain.flatMap(({ statement, signature }) => [statement, Buffer.from(signature)]),
      ),
    change: ({ statement, signature }: Statement) =>
      ask(
        { type: "requester", id: 0, statement: statement.length },
        statement,
        Buffer.from(signature),
      ),
  };
}

test.for(histories)("at the start: $name (keeper)", (history) => {
  const loud = vi.spyOn(console, "error").mockReturnValue();
  onTestFinished(() => loud.mockRestore());
  const keeper = keeperFor(file + history.policy);
  const chain = chainOf(...history.changes);
  expect(keeper.show(chain)).toBe("done");
  expect(loud).toHaveBeenCalledTimes(history.unapplied.length);
  // What is in force shows in what the keeper refuses next.
  let last = chain.at(-1)!;
  let sequence = chain.length;
  const next = (change: Change): Statement =>
    signed({ sequence: sequence + 1, previous: digestOf(last.statement) }, change);
  for (const digit of ["1", "2", "3"]) {
    const owned = history.inForce[digit] !== undefined;
    const statement = next(set(withKey("probe", digit)));
    expect([digit, keeper.change(statement)]).toEqual([digit, owned ? "requester-exists" : "done"]);
    if (owned) continue;
    last = statement;
    sequence++;
  }
  for (const name of ["a", "api", "web", "gone"]) {
    const there = Object.values(history.inForce).includes(name);
    const statement = next(remove(name));
    expect([name, keeper.change(statement)]).toEqual([name, there ? "done" : "requester-unknown"]);
    if (!there) continue;
    last = statement;
    sequence++;
  }
});

test.for(histories)("at the start: $name (signer)", async (history) => {
  await using domain = await openDomain();
  const { serialNumber } = await domain.issue();
  const { tbs } = domain.asked[0]!;
  const { issuingKey, issuing, root } = domain.ca;
  const policy = file + history.policy;
  const granted = policyDigest(parsePolicy(policy, "policy.yaml"));
  const logKey = noteSigner("test.example/audit", generateKeyPairSync("ed25519").privateKey);
  const signer = createSigner({
    key: { publicKey: issuingKey.info.spki, sign: async (octets) => issuingKey.sign(octets) },
    issuer: "issuing",
    grant: grantSchema.parse({
      operations: ["certificate"],
      profiles: ["server"],
      policy: granted,
      signaturesPerHour: 100,
    }),
    alreadySigned: 0,
    usedDigests: [],
    policy,
    certificate: issuing,
    chain: [root],
    caKeys: new Set([issuingKey.keyId]),
    logKey: logKey.verifierKey.text,
    head: undefined,
    list: undefined,
    now: () => domain.clock.now,
    monotonic: () => 0,
  });
  signer.changeRequesters(chainOf(...history.changes).map(({ statement }) => statement));
  const names = ["a", "api", "web"];
  const requests = names.map((name, intentIndex) => {
    const intent = encodeEntry({
      type: "sign.intent",
      at: domain.clock.now,
      actor: { kind: "requester", id: name },
      subject: { issuer: "issuing", keyId: issuingKey.keyId, serialNumber },
      data: {
        operation: "certificate",
        tbs: digestOf(tbs),
        profile: "server",
        policy: granted,
      },
    });
    return { intentIndex, intent, tbs };
  });
  const leaves = requests.map(({ intent }) => leafHash(intent));
  const log = CompactRange.empty();
  for (const leaf of leaves) log.append(leaf);
  const size = leaves.length;
  const note = signNote(checkpointText("test.example/audit", size, log.root()), logKey);
  const results = await signer.sign(requests, { from: 0, first: 0, size, note, nodes: [], leaves });
  const unknown = names.filter((_, index) => {
    const result = results[index]!;
    return "refusal" in result && result.refusal.code === "requester-unknown";
  });
  const inForce = Object.values(history.inForce);
  expect(unknown).toEqual(names.filter((name) => !inForce.includes(name)));
});

test("a keeper that cannot write its state changes nothing, and takes the same statement later", () => {
  const keeper = keeperFor(file + entryOf("a", "2"));
  const [statement] = chainOf(remove("a"));
  const away = `${keeper.directory}-away`;
  renameSync(keeper.directory, away);
  expect(keeper.change(statement!)).toBeNull(); // no code of ours: it is the disk
  renameSync(away, keeper.directory);
  expect(keeper.change(statement!)).toBe("done");
});
