/** `countersign verify` on exported logs, whole and broken: ST-72, ST-73. */

import { createHash } from "node:crypto";
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { beforeAll, expect, test } from "vitest";
import { encodeEntry } from "../../src/audit/entry.ts";
import { exportLog } from "../../src/audit/log-directory.ts";
import { IssuedLog, makeLogDatabase, runSql, tamper } from "../support/log-database.ts";
import { MemoryLog } from "../support/log.ts";
import { countersign, folder, openssl, path, write } from "./command.ts";

const ORIGIN = "ca.example.com/audit";
const SIZE = 600;
const keyId = "6f".repeat(32);
const log = new MemoryLog(ORIGIN);
const key = log.signer.verifierKey.text;
let earlier: string;

interface Report {
  readonly consistent: boolean;
  readonly anchored: boolean;
  readonly failures: { rule: string; position: string; detail: string }[];
  readonly certificates: { verdict: string }[];
  readonly rules: string[];
}

function entry(index: number): Uint8Array {
  const at = new Date(Date.UTC(2026, 10, 21) + index * 1000);
  return encodeEntry({
    type: "access.denied",
    at,
    actor: { kind: "service", id: "ca.example.com" },
    subject: {},
    data: { count: index, since: at.toISOString() },
  });
}

beforeAll(async () => {
  openssl(
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
    ...["-keyout", "k.key", "-out", "logged.pem", "-subj", "/CN=logged", "-days", "2"],
  );
  openssl("x509", "-in", "logged.pem", "-outform", "DER", "-out", "logged.der");
  const certificate = readFileSync(path("logged.der"));
  const digest = (octets: Uint8Array): string =>
    `sha256:${createHash("sha256").update(octets).digest("hex")}`;
  // The TBS is the first element of the certificate's sequence; both have lengths of two octets.
  const length = certificate.readUInt16BE(6) + 4;
  const actor = { kind: "requester", id: "deploy", via: "api-key" } as const;
  const subject = { issuer: "issuing", keyId, serialNumber: "00ff" };
  log.append([
    encodeEntry({
      type: "log.started",
      at: new Date(Date.UTC(2026, 10, 20)),
      actor: { kind: "service", id: "ca.example.com" },
      subject: {},
      data: { origin: ORIGIN },
    }),
    encodeEntry({
      type: "sign.intent",
      at: new Date(Date.UTC(2026, 10, 20)),
      actor,
      subject,
      data: {
        operation: "certificate",
        tbs: digest(certificate.subarray(4, 4 + length)),
        profile: "server",
        policy: digest(Buffer.from("policy")),
        rule: "requesters.deploy",
      },
    }),
    encodeEntry({
      type: "sign.done",
      at: new Date(Date.UTC(2026, 10, 20)),
      actor,
      subject,
      data: { intent: 1, certificate: digest(certificate) },
    }),
  ]);
  earlier = log.checkpoint();
  log.append(Array.from({ length: SIZE - log.leaves.length }, (_, index) => entry(index)));
  await exportLog(log.reader(), path("log"));
  write("earlier", earlier);
});

async function verify(...parameters: string[]): Promise<{ status: number | null; report: Report }> {
  const run = await countersign(["--json", "verify", ...parameters]);
  return { status: run.status, report: JSON.parse(run.stdout) as Report };
}

/** A copy of the log in which one octet of one file is another. */
function broken(file: string, at: number): string {
  rmSync(path("broken"), { recursive: true, force: true });
  cpSync(path("log"), path("broken"), { recursive: true });
  const name = path(`broken/${file}`);
  const octets = readFileSync(name);
  octets[at < 0 ? octets.length + at : at]! ^= 0x01;
  writeFileSync(name, octets);
  return "broken";
}

test("exit code 0: the log is consistent and signed by the key that was given", async () => {
  const { status, report } = await verify("log", "--key", key, "--since", "earlier");
  expect(status).toBe(0);
  expect(report).toMatchObject({
    consistent: true,
    anchored: true,
    failures: [],
    checkpoint: { origin: ORIGIN, size: SIZE },
    rules: ["LOG-1", "LOG-2", "LOG-4", "LOG-3"],
  });
});

test("AUDIT 9.6, exit code 3: without a key it is anchored in nothing, and says so", async () => {
  const run = await countersign(["verify", "log"]);
  expect(run.status).toBe(3);
  expect(run.stdout).toContain("consistent with itself, anchored in nothing");
});

test.for([
  { name: "an entry", file: "tile/entries/001", at: 40, rule: "LOG-2", position: /^entry \d+$/ },
  {
    name: "a hash of the first level",
    file: "tile/0/001",
    at: 32 * 7,
    rule: "LOG-2",
    position: /^tile\/0\/001 hash 7$/,
  },
  {
    name: "the last partial tile",
    file: "tile/0/002.p/88",
    at: -1,
    rule: "LOG-2",
    position: /^tile\/0\/002/,
  },
  {
    name: "a hash of the second level",
    file: "tile/1/000.p/2",
    at: 0,
    rule: "LOG-2",
    position: /^tile\/1\/000/,
  },
  {
    name: "the checkpoint's signature",
    file: "checkpoint",
    at: -10,
    rule: "LOG-1",
    position: /^checkpoint$/,
  },
])(
  "ST-72, exit code 1: $name was changed, and rule and position are named",
  async ({ file, at, rule, position }) => {
    const { status, report } = await verify(broken(file, at), "--key", key);
    expect(status).toBe(1);
    expect(report.failures).toContainEqual(
      expect.objectContaining({ rule, position: expect.stringMatching(position) }),
    );
  },
);

test("the words for people name rule and position as well", async () => {
  const run = await countersign(["verify", broken("tile/0/001", 32 * 7), "--key", key]);
  expect(run.status).toBe(1);
  expect(run.stdout).toContain("LOG-2 failed: tile/0/001 hash 7");
  expect(run.stdout).toContain("does NOT verify");
});

test("ST-73, exit code 1: a log that was cut off behind a saved checkpoint", async () => {
  write("later", log.checkpoint());
  const short = new MemoryLog(ORIGIN);
  short.append(log.leaves.slice(0, 300));
  await exportLog(short.reader(), path("short"));
  const { status, report } = await verify("short", "--key", key, "--since", "later");
  expect(status).toBe(1);
  expect(report.failures[0]).toMatchObject({
    rule: "LOG-3",
    detail: expect.stringContaining("cut off"),
  });
});

test("exit code 1: signed by another key", async () => {
  const other = new MemoryLog("other.example.com/audit").signer.verifierKey.text;
  expect((await verify("log", "--key", other)).status).toBe(1);
});

test("LOG-10: a certificate that is in the log, and one that is not", async () => {
  const logged = await verify("log", "--key", key, "--certificate", "logged.pem");
  expect(logged.status).toBe(0);
  expect(logged.report.certificates).toEqual([expect.objectContaining({ verdict: "logged" })]);
  openssl(
    ...[
      "req",
      "-x509",
      "-key",
      "k.key",
      "-out",
      "stranger.pem",
      "-subj",
      "/CN=logged",
      "-days",
      "3",
    ],
  );
  const stranger = await verify("log", "--key", key, "--certificate", "stranger.pem");
  expect(stranger.status).toBe(1);
  expect(stranger.report.certificates).toEqual([
    expect.objectContaining({ verdict: "not-logged" }),
  ]);
});

test("a copy without certificates says that it could not check them", async () => {
  const run = await countersign(["verify", "log", "--key", key]);
  expect(run.status).toBe(0);
  expect(run.stdout).toContain("note: LOG-7 objects: the bytes of 1 certificates and 0 CRLs");
});

test("LOG-11: a database alone, its own log, whole and tampered with", async () => {
  const issued = new IssuedLog().fill(9);
  const small = new MemoryLog(ORIGIN);
  small.append(issued.leaves);
  await makeLogDatabase(path("service.db"), small, issued.objects);
  const whole = await verify("--database", "service.db", "--key", key);
  expect(whole.report.failures).toEqual([]);
  expect(whole).toMatchObject({
    status: 0,
    report: { consistent: true, anchored: true, rules: ["LOG-1", "LOG-2", "LOG-4", "LOG-11"] },
  });
  tamper(path("service.db"), "UPDATE issued_certificate SET not_after = 1 WHERE idx = 5");
  runSql(path("service.db"), "DROP TRIGGER revocation_kept");
  const run = await countersign(["verify", "--database", "service.db", "--key", key]);
  expect(run.status).toBe(1);
  expect(run.stdout).toContain("LOG-11 failed: trigger revocation_kept: it is missing");
  expect(run.stdout).toMatch(
    /LOG-11 failed: issued_certificate issuing\/\w+: it is not what the certificate says: not_after/,
  );
});

test("a folder without a log, and a folder that is not there", async () => {
  expect((await verify(folder)).report.failures[0]).toMatchObject({ position: "checkpoint" });
  expect((await countersign(["verify", "nowhere"])).status).toBe(2);
});

test("exit code 4: a URL that does not answer", async () => {
  const run = await countersign(["verify", "http://127.0.0.1:9/audit", "--key", key]);
  expect(run.status).toBe(4);
});
