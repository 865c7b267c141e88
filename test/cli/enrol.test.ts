import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { digestOf } from "../../src/audit/digest.ts";
import { verifierKey } from "../../src/audit/signed-note.ts";
import { fingerprintOf } from "../../src/cli/fingerprint.ts";
import { readEnrolment } from "../../src/custody/personal-statement.ts";
import { checkGenesis, checkSuccessor, readRoster } from "../../src/custody/roster.ts";
import { verifySshSignature } from "../../src/custody/ssh-signature.ts";
import { makeSshKey } from "../custody/keeper-home.ts";
import { countersign, countersignJson, path, write } from "./command.ts";
import { startPeopleService, type PeopleService } from "./people-service.ts";
import { atTerminal } from "./terminal.ts";

const identityKey = verifierKey("ca.example.com/keeper", new Uint8Array(32).fill(1));
const logKey = verifierKey("ca.example.com/audit", new Uint8Array(32).fill(2));

interface Enrolled {
  readonly operator: string;
  readonly recipient: string;
  readonly ageIdentity: string;
  readonly configuration?: string;
}

const homes = new Map<string, string>();

/** A person with a home and an SSH key, and nothing else. */
function home(id: string): string {
  let folder = homes.get(id);
  if (folder === undefined) {
    folder = path(`home-${id}`);
    mkdirSync(folder);
    makeSshKey(join(folder, "key"));
    homes.set(id, folder);
  }
  return folder;
}

function flags(id: string): string[] {
  return ["--operator", id, "--ssh-key", join(home(id), "key")];
}

async function enrolled(id: string, ...more: string[]): Promise<Enrolled> {
  return countersignJson<Enrolled>(
    [
      ...flags(id),
      ...["enrol", "--service", "ca.example.com", "--out", `${id}.json`, "--yes"],
      ...more,
    ],
    { env: { HOME: home(id) } },
  );
}

let service: PeopleService;

beforeAll(async () => {
  service = await startPeopleService(["alice", "bob"]);
});
afterAll(() => service.sites.close());

test("a request is signed by the person's own key, and stock ssh-keygen accepts it", async () => {
  const answer = await enrolled("erin");
  const { statement, signature } = JSON.parse(readFileSync(path("erin.json"), "utf8")) as {
    statement: string;
    signature: string;
  };
  const octets = Buffer.from(statement, "base64");
  const { operator, key, recipient } = readEnrolment(octets);
  expect({ operator, recipient }).toEqual({ operator: "erin", recipient: answer.recipient });
  verifySshSignature({
    publicKey: key,
    namespace: "countersign-enrol@v1",
    message: octets,
    signature,
  });
  write("erin.sig", signature);
  write("signers", `erin ${key}\n`);
  const stock = spawnSync(
    "ssh-keygen",
    [
      ...["-Y", "verify", "-f", path("signers"), "-I", "erin"],
      ...["-n", "countersign-enrol@v1", "-s", path("erin.sig")],
    ],
    { input: octets, encoding: "utf8" },
  );
  expect(stock.stdout).toContain("Good");
});

test("an age identity is made once, for its owner alone, and never overwritten", async () => {
  const first = await enrolled("fred");
  expect(statSync(first.ageIdentity).mode & 0o777).toBe(0o600);
  const identity = readFileSync(first.ageIdentity, "utf8");
  const stock = spawnSync("age-keygen", ["-y", first.ageIdentity], { encoding: "utf8" });
  expect(stock.stdout.trim()).toBe(first.recipient);
  const again = await countersignJson<Enrolled>(
    [...flags("fred"), ...["enrol", "--service", "ca.example.com", "--out", "fred2.json", "--yes"]],
    { env: { HOME: home("fred") } },
  );
  expect(again.recipient).toBe(first.recipient);
  expect(readFileSync(first.ageIdentity, "utf8")).toBe(identity);
});

test("settings are stored where there are none, with the identity key pinned and its fingerprint shown", async () => {
  const run = await countersign(
    [
      ...flags("gina"),
      ...["enrol", "--identity-key", identityKey, "--log-key", logKey],
      ...["--out", "gina.json", "--yes"],
    ],
    { env: { HOME: home("gina") } },
  );
  expect(run).toMatchObject({ status: 0 });
  const { hex, words } = fingerprintOf(identityKey);
  expect(run.stdout).toContain(identityKey);
  expect(run.stdout).toContain(hex);
  expect(run.stdout).toContain(words);
  const file = join(home("gina"), ".config/countersign/config.json");
  expect(JSON.parse(readFileSync(file, "utf8"))).toMatchObject({
    operator: "gina",
    sshKey: join(home("gina"), "key"),
    identityKey,
    logKey,
  });
  expect(run.stdout + run.stderr).not.toContain("AGE-SECRET-KEY");
});

test("a configuration that is there is changed only after a question", async () => {
  const folder = join(home("hank"), ".config/countersign");
  mkdirSync(folder, { recursive: true });
  const before = '{"operator":"hank","issuer":"issuing"}';
  const file = join(folder, "config.json");
  writeFileSync(file, before);
  const parameters = [...flags("hank"), "enrol", "--identity-key", identityKey];
  const run = await countersign([...parameters, "--out", "hank.json", "--yes"], {
    env: { HOME: home("hank") },
  });
  expect(run).toMatchObject({ status: 0 });
  expect(run.stderr).toContain("left as it is");
  expect(readFileSync(file, "utf8")).toBe(before);
  for (const [answers, kept] of [
    [["y", "n"], true],
    [["y", "y"], false],
  ] as const) {
    const asked = await atTerminal([...parameters, "--out", `hank-${kept}.json`], answers, {
      HOME: home("hank"),
    });
    expect(asked).toMatchObject({ status: 0 });
    expect(readFileSync(file, "utf8") === before).toBe(kept);
  }
  expect(JSON.parse(readFileSync(file, "utf8"))).toMatchObject({ issuer: "issuing", identityKey });
});

test("who says no has signed nothing", async () => {
  const run = await atTerminal(
    [...flags("ida"), ...["enrol", "--service", "ca.example.com", "--out", "ida.json"]],
    ["n"],
    { HOME: home("ida") },
  );
  expect(run.status).toBe(1);
  expect(run.stdout).toContain("declined");
  expect(existsSync(path("ida.json"))).toBe(false);
});

test.for([
  { name: "upper case", recipient: `AGE1${"Q".repeat(58)}` },
  { name: "the old YubiKey form", recipient: `age1yubikey1${"q".repeat(58)}` },
  { name: "an SSH key", recipient: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA" },
  { name: "a wrong checksum", recipient: `age1${"q".repeat(58)}` },
  { name: "a secret key", recipient: "AGE-SECRET-KEY-1QQQ" },
])("ST-18: $name is refused as recipient, with what to do", async ({ recipient }) => {
  const run = await countersign(
    [
      ...flags("jack"),
      ...["enrol", "--service", "ca.example.com", "--recipient", recipient],
      ...["--out", "jack.json", "--yes"],
    ],
    { env: { HOME: home("jack") } },
  );
  expect(run.status).toBe(1);
  expect(run.stderr).toContain("recipient-refused");
  expect(run.stderr).not.toContain("AGE-SECRET-KEY-1QQQ");
  expect(existsSync(path("jack.json"))).toBe(false);
});

test("an RSA key is refused, and so is a request for another service than the pinned one", async () => {
  makeSshKey(path("rsa"), "-t", "rsa", "-b", "2048");
  const rsa = await countersign([
    ...["--operator", "kim", "--ssh-key", "rsa", "enrol", "--service", "ca.example.com"],
    ...["--out", "kim.json", "--yes"],
  ]);
  expect(rsa).toMatchObject({ status: 2 });
  const other = await countersign([
    ...flags("jack"),
    ...["enrol", "--service", "other.example.com", "--identity-key", identityKey],
    ...["--out", "kim.json", "--yes"],
  ]);
  expect(other.stderr).toContain("statement-refused");
});

test("a request that is sent proves its recipient at once", async () => {
  const answer = await countersignJson<{ id: string; proved: boolean }>(
    [
      ...flags("dora"),
      ...["--url", service.sites.apiUrl, "--ca", path("service.pem")],
      ...["enrol", "--yes"],
    ],
    { env: { HOME: home("dora") } },
  );
  expect(answer.proved).toBe(true);
});

test("a genesis is assembled from requests, signed by all, and its digest is that of the file", async () => {
  for (const id of ["lena", "mike", "nora"]) await enrolled(id);
  const requests = ["lena.json", "mike.json", "nora.json"];
  const made = await countersign([
    ...["roster", "new", ...requests, "--out", "roster.json"],
    ...["--identity-key", identityKey, "--log-key", logKey],
    ...[
      "--role",
      "lena=officer,witness",
      "--rule",
      "sign=officer:1,operator:1",
      "--rule",
      "resume=3",
    ],
  ]);
  expect(made).toMatchObject({ status: 0 });
  const octets = readFileSync(path("roster.json"));
  expect(made.stdout).toContain(`genesis: ${digestOf(octets)}`);
  const roster = readRoster(octets);
  expect(roster.document.rules).toMatchObject({
    roster: 2,
    policy: 2,
    resume: 3,
    ceremonies: { sign: { officer: 1, operator: 1 }, window: { operator: 2 } },
  });
  for (const [place, id] of ["lena", "mike", "nora"].entries()) {
    const signed = await countersignJson<{ missing: string[] }>(
      [...flags(id), "roster", "sign", path("roster.json"), "--yes"],
      { env: { HOME: home(id) } },
    );
    expect(signed.missing).toHaveLength(2 - place);
    const early = await countersign(["roster", "show", "roster.json", "--out", "genesis.json"]);
    expect(early.status).toBe(place === 2 ? 0 : 1);
  }
  const { signatures, document } = JSON.parse(readFileSync(path("genesis.json"), "utf8")) as {
    document: string;
    signatures: { operator: string; signature: string }[];
  };
  expect(Buffer.from(document, "base64")).toEqual(octets);
  checkGenesis(roster, signatures);
});

test("nobody signs a roster that they are not in, or with a key that it does not have", async () => {
  const stranger = await countersign([...flags("erin"), "roster", "sign", "roster.json", "--yes"]);
  expect(stranger.stderr).toContain("operator-unknown");
  const wrongKey = await countersign([
    ...["--operator", "mike", "--ssh-key", join(home("erin"), "key")],
    ...["roster", "sign", "roster.json", "--yes"],
  ]);
  expect(wrongKey.stderr).toContain("signature-invalid");
  expect(existsSync(path("roster.json.mike.2.sig"))).toBe(false);
});

test("a request that somebody has changed, or signed for another, is not taken", async () => {
  const request = JSON.parse(readFileSync(path("mike.json"), "utf8")) as { statement: string };
  const changed = Buffer.from(request.statement, "base64").toString().replace('"mike"', '"moke"');
  write(
    "forged.json",
    JSON.stringify({ ...request, statement: Buffer.from(changed).toString("base64") }),
  );
  for (const files of [
    ["forged.json", "lena.json"],
    ["mike.json", "mike.json"],
  ]) {
    const run = await countersign([
      ...["roster", "new", ...files, "--out", "bad.json"],
      ...["--identity-key", identityKey, "--log-key", logKey],
    ]);
    expect(run.status).toBe(1);
    expect(existsSync(path("bad.json"))).toBe(false);
  }
});

test("a newcomer is added by the next version, which their key signs before it is proposed", async () => {
  const [alice] = service.people;
  const env = service.env(alice!);
  const added = await countersignJson<{ missing: string }>(
    ["roster", "add", "dora", "--role", "dora=operator,witness", "--out", "next.json"],
    { env },
  );
  expect(added.missing).toContain("dora has not signed");
  const early = await countersign(["roster", "propose", "next.json"], { env });
  expect(early.stderr).toContain("roster-unsigned");
  expect(service.proposals).toEqual([]);
  await countersignJson([...flags("dora"), "roster", "sign", path("next.json"), "--yes"], {
    env: { HOME: home("dora") },
  });
  await countersignJson(["roster", "propose", "next.json"], { env });
  const [{ kind, plan, signatures }] = service.proposals as [(typeof service.proposals)[number]];
  expect(kind).toBe("roster");
  const next = readRoster(plan!);
  checkSuccessor(service.rosters[0]!, next, signatures!);
  expect(next.operators.get("dora")!.roles).toEqual(["operator", "witness"]);
  const shown = await countersign(["roster", "remove", "bob", "--out", "without.json"], { env });
  expect(shown.stdout).toContain("is no operator any more");
  expect(service.proposals).toHaveLength(2);
});
