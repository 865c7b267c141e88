import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { canonicalJson, parseCanonicalJson, type JsonObject } from "../src/audit/canonical-json.ts";
import { digestOf } from "../src/audit/digest.ts";
import { openNote, parseVerifierKey } from "../src/audit/signed-note.ts";
import { LIFETIME_MILLISECONDS } from "../src/ceremony/ceremonies.ts";
import { DRILL_MILLISECONDS } from "../src/ceremony/inbox.ts";
import { GATHER_SECONDS } from "../src/ceremony/unlocks.ts";
import { standingGrant } from "../src/custody/grant.ts";
import { SIGN_SECONDS, WINDOW_CRL_LIFETIME } from "../src/custody/keeper-unlocks.ts";
import { flagsFor } from "../src/custody/process-flags.ts";
import {
  readAbort,
  readConfirmation,
  readDrill,
  readEnrolment,
  readLock,
  readPanic,
  readRecipientProof,
  readResume,
} from "../src/custody/personal-statement.ts";
import { readPlan, readShareSet } from "../src/custody/plan.ts";
import { readRoster } from "../src/custody/roster.ts";
import { checkShareProof } from "../src/custody/sealed/share.ts";
import {
  namespaces,
  readApproval,
  readCeremony,
  readSubmission,
  readUnlock,
} from "../src/custody/statement.ts";
import { developmentPolicy } from "../src/development/policy.ts";
import { ISSUER_DAYS, ROOT_DAYS } from "../src/development/set-up.ts";
import { BODY_OCTETS } from "../src/http/body.ts";
import { createSessions, LOGIN_NAMESPACE, SESSION_MILLISECONDS } from "../src/http/sessions.ts";
import { IDEMPOTENCY_MILLISECONDS } from "../src/issuance/issuance.ts";
import { REQUESTER_NAMESPACE } from "../src/issuance/requesters.ts";
import { parsePolicy } from "../src/policy/document.ts";
import { parseDuration } from "../src/policy/lifetime.ts";
import { MAX_NAMES } from "../src/policy/name.ts";
import { parseRequesterStatement } from "../src/policy/requester.ts";
import {
  CRL_INTERVAL_SECONDS,
  CRL_LIFETIME_SECONDS,
  OFFLINE_CRL_DAYS,
  OFFLINE_CRL_WARNING_DAYS,
} from "../src/revocation/crl-schedule.ts";
import {
  CRL_WITHIN_MILLISECONDS,
  POSSESSION_MILLISECONDS,
  possessionStatement,
} from "../src/revocation/revocations.ts";

const configuration = readFileSync(new URL("../docs/configuration.md", import.meta.url), "utf8");
const statements = readFileSync(new URL("../docs/statements.md", import.meta.url), "utf8");

const DAY = 86_400;

test("the table of defaults says what the code does", () => {
  const table = configuration.slice(configuration.indexOf("## Defaults"));
  const written = [...table.matchAll(/^\| (.+?) +\| (\d+(?: \w+)?) +\|$/gm)].map((row) => [
    row[1],
    row[2],
  ]);
  const server = parsePolicy(developmentPolicy, "policy.yaml").profiles.get("server")!;
  const grant = standingGrant.parse({
    operations: ["crl"],
    profiles: [],
    policy: `sha256:${"00".repeat(32)}`,
    signaturesPerHour: 1,
  });
  expect(written).toEqual([
    ["leaf, in the development policy", `${server.lifetime.default.seconds / DAY} days`],
    ["issuing CA", `${ISSUER_DAYS} days`],
    ["root", `${ROOT_DAYS} days`],
    ["CRL: nextUpdate after thisUpdate", `${CRL_LIFETIME_SECONDS / DAY} days`],
    ["CRL: made at least every", `${CRL_INTERVAL_SECONDS / DAY} day`],
    ["CRL: carries a revocation within", `${CRL_WITHIN_MILLISECONDS / 1000} seconds`],
    ["CRL: longest that a signer accepts", `${parseDuration(grant.maximumCrlLifetime) / DAY} days`],
    ["CRL of a sealed issuer: nextUpdate after thisUpdate", `${OFFLINE_CRL_DAYS} days`],
    ["CRL of a sealed issuer: ageing before its end", `${OFFLINE_CRL_WARNING_DAYS} days`],
    [
      "CRL of a sealed issuer: longest in a window",
      `${parseDuration(WINDOW_CRL_LIFETIME) / DAY} days`,
    ],
    ["ceremony, until it expires", `${LIFETIME_MILLISECONDS / DAY / 1000} days`],
    ["shares are gathered for", `${GATHER_SECONDS.usual / 3600} hours`],
    ["key opened for `sign` locks after", `${SIGN_SECONDS / 60} minutes`],
    ["share counts as proved for", `${DRILL_MILLISECONDS / DAY / 1000} days`],
    ["Idempotency-Key kept", `${IDEMPOTENCY_MILLISECONDS / 3_600_000} hours`],
    ["session", `${SESSION_MILLISECONDS / 60_000} minutes`],
    ["statement of possession accepted", `${POSSESSION_MILLISECONDS / 60_000} minutes`],
    ["request body, at most", `${BODY_OCTETS} octets`],
    ["names in a certificate, at most", `${MAX_NAMES}`],
  ]);
});

test("the policy in the docs is one that the service reads", () => {
  const text = /## The policy[\s\S]*?```yaml\n([\s\S]*?)```/.exec(configuration)![1]!;
  expect([...parsePolicy(text, "docs/configuration.md").profiles.keys()]).toEqual(["server"]);
});

interface Example {
  readonly name: string;
  readonly octets: Buffer;
  readonly document: JsonObject;
}

/** By the name in their type; those of a type with two examples have the same. */
const examples: readonly Example[] = [...statements.matchAll(/```text\n(.*?)\n```/gs)].map(
  ([, text]) => {
    const octets = Buffer.from(text!);
    const document = parseCanonicalJson(octets) as JsonObject;
    const [, name] = /^countersign\/([a-z-]+)\/v1$/.exec(document["type"] as string)!;
    return { name: name!, octets, document };
  },
);

const example = (name: string): Example => examples.find((one) => one.name === name)!;

/** What the service reads each with. */
const readers: Readonly<Record<string, (octets: Buffer) => unknown>> = {
  ceremony: readCeremony,
  unlock: readUnlock,
  "share-set": readShareSet,
  approval: readApproval,
  submission: readSubmission,
  abort: readAbort,
  enrolment: readEnrolment,
  "recipient-proof": readRecipientProof,
  confirmation: readConfirmation,
  drill: readDrill,
  lock: readLock,
  panic: readPanic,
  roster: (octets) => readRoster(octets).document,
  plan: readPlan,
  resume: readResume,
  requester: (octets) => parseRequesterStatement(JSON.parse(octets.toString())),
  revocation: (octets) => possessionStatement.parse(JSON.parse(octets.toString())),
  // Made by the service, and compared with what was sent out: there is nothing that reads it.
  login: (octets) => JSON.parse(octets.toString()) as unknown,
};

test.for(examples)("the $name in the docs is one that the service reads", ({ name, octets }) => {
  expect(canonicalJson(parseCanonicalJson(octets))).toBe(octets.toString());
  expect(readers[name]!(octets)).toMatchObject(JSON.parse(octets.toString()) as object);
});

test("the docs have an example of every statement, with its namespace", () => {
  expect(new Set(examples.map(({ name }) => name))).toEqual(new Set(Object.keys(readers)));
  const rows = statements.matchAll(
    /^\| [a-z ]+? +\| `countersign\/([a-z-]+)\/v1` +\| [^|]+\| (?:`([^`]+)`|–) +\|/gm,
  );
  const table = Object.fromEntries([...rows].map(([, name, namespace]) => [name, namespace]));
  expect(new Set(Object.keys(table))).toEqual(new Set(Object.keys(readers)));
  expect(table).toEqual({
    approval: namespaces.approval,
    submission: namespaces.submission,
    abort: namespaces.abort,
    enrolment: namespaces.enrol,
    "recipient-proof": namespaces.enrol,
    confirmation: namespaces.confirm,
    drill: namespaces.confirm,
    lock: namespaces.lock,
    panic: namespaces.lock,
    roster: namespaces.roster,
    login: LOGIN_NAMESPACE,
    requester: REQUESTER_NAMESPACE,
  });
});

test("the login in the docs has the fields of one that the service makes", () => {
  const sessions = createSessions({
    service: "ca.example.com",
    operators: () => [],
    now: () => new Date("2026-11-21T20:03:00Z"),
    random: (size) => new Uint8Array(size),
  });
  const { statement } = sessions.challenge("alice", "127.0.0.1", { size: 3, root: "" });
  expect(Object.keys(JSON.parse(statement) as object)).toEqual(
    Object.keys(example("login").document),
  );
});

test("the examples in the docs belong together", () => {
  const digestOfThe = (name: string): string => digestOf(example(name).octets);
  expect(examples.filter(({ name }) => name === "approval")).toHaveLength(2);
  expect(examples.filter(({ name }) => name === "submission")).toHaveLength(2);
  for (const { name, document } of examples) {
    for (const other of ["roster", "ceremony", "unlock"]) {
      if (document[other] !== undefined)
        expect([name, document[other]]).toEqual([name, digestOfThe(other)]);
    }
    if (document["shareSet"] !== undefined)
      expect(document["shareSet"]).toBe(digestOfThe("share-set"));
    if (name === "share-set") expect(document["plan"]).toBe(digestOfThe("plan"));
  }
});

test("the proofs in the docs are of the share in the docs", () => {
  const set = readShareSet(example("share-set").octets);
  const context = { ...set, keyId: Buffer.from(set.keyId, "hex") };
  const own = set.custodians[1]!;
  const commitment = {
    commit: Buffer.from(own.commit, "hex"),
    proof: Buffer.from(own.proof, "hex"),
  };
  const confirmation = readConfirmation(example("confirmation").octets);
  const drill = readDrill(example("drill").octets);
  for (const [signed, challenge] of [
    [confirmation, Buffer.from(confirmation.shareSet.slice("sha256:".length), "hex")],
    [drill, Buffer.from(drill.challenge, "base64")],
  ] as const) {
    const proof = Buffer.from(signed.proof, "base64");
    expect(signed).toMatchObject({ operator: own.operator, index: own.index });
    expect(checkShareProof(context, signed.index, commitment, challenge, proof)).toBe(true);
  }
});

test("the note in the docs verifies with the key in the docs", () => {
  const note = /```note\n(.*?)```/s.exec(statements)![1]!;
  const [, key] = /This one verifies with\s+`([^`]+)`/.exec(statements)!;
  const { text } = openNote(note, [parseVerifierKey(key!)]);
  expect(text).toBe(`${example("unlock").octets.toString()}\n`);
});

test("every setting of service.yaml is in the README", () => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const config = readFileSync(new URL("../src/config.ts", import.meta.url), "utf8");
  const schema = config.slice(config.indexOf("const schema"), config.indexOf("export type"));
  const names = [...schema.matchAll(/^\s+(\w+): (?!z\s*\.strictObject|\.\.\.)/gm)].map(
    (match) => match[1]!,
  );
  expect(names.length).toBeGreaterThan(6);
  for (const name of names) expect(readme).toMatch(new RegExp(`\`(?:\\w+\\.)*${name}\``));
});

function file(name: string): string {
  return readFileSync(new URL(`../${name}`, import.meta.url), "utf8");
}

test("the container starts the service with the flags of npm start", () => {
  const { scripts } = JSON.parse(file("package.json")) as { scripts: { start: string } };
  const [, inScript] = /\bexec node (.*?)dist\/src\/main\.js serve /.exec(scripts.start)!;
  const [, inContainer] = /^CMD (\[.*\])$/m.exec(file("Dockerfile"))!;
  const command = JSON.parse(inContainer!) as string[];
  expect(command.slice(1, command.indexOf("dist/src/main.js")).join(" ")).toBe(inScript!.trim());
});

interface ComposeService {
  readonly user: string;
  readonly command?: readonly string[];
  readonly entrypoint?: readonly string[];
  readonly network_mode: string;
  readonly cap_drop: readonly string[];
  readonly cap_add?: readonly string[];
}

/** Node's flags of a keeper that no parent starts. */
function keeperFlags(known: (flag: string) => boolean): string[] {
  return flagsFor("keeper", { appRoot: "/app", known: { has: known } });
}

test("the containers of service and keeper are the two users that set-up gives the home to", () => {
  const { services } = parse(file("docker-compose.yml"), { merge: true }) as {
    services: Record<"set-up" | "keeper" | "countersign", ComposeService>;
  };
  const { keeper, countersign } = services;
  const option = (name: string): string =>
    services["set-up"].command!.find((word) => word.startsWith(`--${name}=`))!.split("=")[1]!;
  expect(countersign.user).toBe(option("service-user"));
  expect(keeper.user).toBe(`${option("keeper-user")}:${option("service-user").split(":")[1]}`);
  expect(keeper.network_mode).toBe("none");
  for (const service of Object.values(services)) expect(service.cap_drop).toEqual(["ALL"]);
  expect([keeper.cap_add, countersign.cap_add]).toEqual([undefined, undefined]);

  expect(keeper.entrypoint![2]).toMatch(/^echo 0 > \/proc\/self\/coredump_filter && exec /);
  const [node, ...words] = keeper.command!;
  const flags = words.slice(0, words.indexOf("dist/src/custody/keeper-main.js"));
  expect(flags.toSorted()).toEqual(keeperFlags(() => true).toSorted());
  expect(words.slice(flags.length + 1)).toEqual([
    `${option("home")}/keeper/keeper.yaml`,
    `--listen=${option("keeper-socket")}`,
    "--allow-group",
  ]);
  const dockerfile = file("Dockerfile");
  expect(dockerfile).toMatch(new RegExp(`install -D -o root -g root -m 0711 \\S+ ${node}$`, "m"));
  expect(/^CMD (\[.*\])$/m.exec(dockerfile)![1]).toContain(`"--home", "${option("home")}"`);
});

test("the units in the docs start the keeper with the flags that the service would", () => {
  // Node 20 does not know the flag; harden.ts does without it.
  const flags = keeperFlags((flag) => flag !== "--disable-sigusr1");
  const commands = configuration.match(/^ExecStart=(?:.*\\\n)*.*$/gm)!;
  const command = commands.find((text) => text.includes("keeper-main.js"))!;
  expect(command.split(/[\s\\]+/).filter((word) => flags.includes(word))).toEqual(flags);
});
