/** Kill -9 at every step of an issuance: nothing given out is unrecorded, no serial number repeats, the log verifies. */

import { execFile } from "node:child_process";
import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { makeCsr } from "../support/csr.ts";
import { steps, victims } from "../support/crashing-service.ts";
import {
  packageRoot,
  removeHome,
  startTestService,
  temporaryHome,
  type RunningService,
  type StartOptions,
} from "../support/service.ts";

const home = temporaryHome();

/** What a failed test leaves running is ended after it. */
const running: RunningService[] = [];

async function started(options: StartOptions): Promise<RunningService> {
  const service = await startTestService(options);
  running.push(service);
  return service;
}

afterEach(async () => {
  for (const service of running.splice(0)) await service.stop();
});

beforeAll(async () => {
  const service = await startTestService({ home });
  expect(await service.stop()).toBe(0);
});

afterAll(() => removeHome(home));

interface Given {
  readonly serialNumber: string;
  readonly sha256: string;
}

/** Asks for a certificate; undefined if there was no answer, or one that it could not be made. */
async function ask(service: RunningService): Promise<Given | undefined> {
  const answer = await service
    .api("/v1/issuers/issuing/certificates?profile=server", {
      body: makeCsr({ dns: ["crash.example.test"] }),
      headers: { "content-type": "application/pkcs10" },
    })
    .catch(() => undefined);
  if (answer === undefined || answer.status !== 201) return undefined;
  return answer.json<Given>();
}

/** Every record that the service has, after the crash. */
async function recorded(
  service: RunningService,
): Promise<{ serialNumber: string; sha256: string | null }[]> {
  const all: { serialNumber: string; sha256: string | null }[] = [];
  let cursor: string | undefined;
  do {
    const page = await service.api(
      `/v1/issuers/issuing/certificates?limit=200${cursor === undefined ? "" : `&cursor=${cursor}`}`,
    );
    const { certificates, next } = page.json<{
      certificates: { serialNumber: string; sha256: string | null }[];
      next?: string;
    }>();
    all.push(...certificates);
    cursor = next;
  } while (cursor !== undefined);
  return all;
}

/** The offline verifier over the database file, with the log's own key. */
async function verifyLog(service: RunningService): Promise<string> {
  await service.stop();
  const { stdout } = await promisify(execFile)(process.execPath, [
    join(packageRoot, "dist/src/cli/main.js"),
    "verify",
    "--database",
    service.files.database,
    "--key",
    readFileSync(service.files.logKey, "utf8").trim(),
  ]);
  return stdout;
}

async function checkAfterCrash(given: readonly Given[]): Promise<void> {
  const service = await started({ home });
  const records = await recorded(service);
  const serialNumbers = records.map(({ serialNumber }) => serialNumber);
  expect(new Set(serialNumbers).size).toBe(serialNumbers.length);
  const issued = new Set(records.map(({ sha256 }) => sha256));
  for (const { sha256 } of given) expect(issued).toContain(sha256);
  expect(await ask(service), service.output.stderr).toBeDefined();
  await verifyLog(service);
}

test.for(victims.flatMap((victim) => steps.map((step) => ({ victim, step }))))(
  "ST-49: kill -9 of the $victim $step loses no certificate and repeats no serial number",
  async ({ victim, step }) => {
    const service = await started({
      home,
      program: {
        module: join(packageRoot, "dist/test/support/crashing-service.js"),
        parameters: [step, victim],
      },
    });
    const given = await ask(service);
    await service.stop();
    await checkAfterCrash(given === undefined ? [] : [given]);
  },
);

test("ST-78: kill -9 under load, at any moment: every certificate that was given out is recorded", async () => {
  const given: Given[] = [];
  for (const victim of victims) {
    for (let round = 0; round < 2; round++) {
      const service = await started({ home });
      let running = true;
      const clients = Array.from({ length: 8 }, async () => {
        while (running) {
          const answer = await ask(service);
          if (answer === undefined) return;
          given.push(answer);
        }
      });
      const target = given.length + 20 + Math.floor(Math.random() * 60);
      await expect
        .poll(() => given.length, { timeout: 30_000, interval: 5 })
        .toBeGreaterThan(target);
      const { service: pid, keeper, signers } = service.processes();
      process.kill({ service: pid, keeper, signer: signers[0]! }[victim], "SIGKILL");
      running = false;
      await Promise.all(clients);
      await service.stop();
    }
  }
  await checkAfterCrash(given);
});

test("a database file that is older than the head file is refused as rolled-back (ST-73)", async () => {
  const first = await started({ home });
  await first.stop();
  const { database } = first.files;
  copyFileSync(database, `${database}.yesterday`);
  const second = await started({ home });
  expect(await ask(second)).toBeDefined();
  await second.stop();
  copyFileSync(database, `${database}.today`);
  copyFileSync(`${database}.yesterday`, database);
  await expect(startTestService({ home })).rejects.toThrow("rolled-back");
  copyFileSync(`${database}.today`, database);
  const third = await started({ home });
  expect(await ask(third)).toBeDefined();
  await third.stop();
});

test("a second instance on the same home is refused, and the first goes on", async () => {
  const service = await started({ home });
  await expect(startTestService({ home })).rejects.toThrow("home-in-use");
  expect(await ask(service)).toBeDefined();
  expect(readFileSync(service.files.layout, "utf8")).toContain("development");
  await service.stop();
});
