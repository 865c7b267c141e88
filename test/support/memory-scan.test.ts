import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { expect, onTestFinished, test } from "vitest";
import { scanMemory } from "./memory-scan.ts";
import { type Holding, startSecretHolder } from "./secret-holder.ts";

async function holder(form: Holding, secret: Uint8Array): Promise<number> {
  const child = await startSecretHolder(form, secret);
  onTestFinished(() => void child.kill("SIGKILL"));
  return child.pid!;
}

test.for([
  ["a buffer", "raw"],
  ["hex", "hex"],
  ["upper-case hex", "HEX"],
  ["base64", "base64 +0"],
  ["base64 behind one octet", "base64 +1"],
  ["base64 behind two octets", "base64 +2"],
  ["base64url", "base64url +0"],
  ["bits", "bits"],
  ["two-byte characters", "hex, UTF-16"],
  ["an array of numbers", "integers"],
  ["an array of numbers, backwards", "integers, backwards"],
] as const)("a secret that a process holds as %s is found", async ([holding, form]) => {
  const secret = Buffer.concat([Buffer.from("fbefff", "hex"), randomBytes(29)]); // in base64url: "--__"
  const pid = await holder(holding, secret);
  const findings = scanMemory(pid, { secret, other: randomBytes(32) });
  expect(findings).toContainEqual(
    expect.objectContaining({ needle: "secret", form, part: "whole" }),
  );
  expect(findings.filter(({ needle }) => needle === "other")).toEqual([]);
});

test.for([
  ["the first half", "first half"],
  ["the last half", "last half"],
] as const)("%s alone is found", async ([holding, part]) => {
  const secret = randomBytes(32);
  const pid = await holder(holding, secret);
  const raw = scanMemory(pid, { secret }).filter(({ form }) => form === "raw");
  expect(raw.length).toBeGreaterThan(0);
  expect(raw.every((finding) => finding.part === part)).toBe(true);
});

test.for(["nothing", "a wiped buffer"] as const)(
  "a process that holds %s holds none of it",
  async (form) => {
    const secret = randomBytes(32);
    const pid = await holder(form, secret);
    expect(scanMemory(pid, { secret })).toEqual([]);
  },
);

test("a find says where", async () => {
  const secret = randomBytes(32);
  const pid = await holder("a buffer", secret);
  const [finding] = scanMemory(pid, { secret });
  expect(finding).toMatchObject({ mapping: expect.stringMatching(/^(\[heap\]|anonymous)$/) });
  expect(finding!.range).toMatch(/^[0-9a-f]+-[0-9a-f]+ rw-p$/);
  const [from, to] = finding!.range.split(/[- ]/).map((text) => Number.parseInt(text, 16));
  expect(finding!.offset).toBeLessThan(to! - from!);
});

test("the process goes on afterwards", async () => {
  const pid = await holder("nothing", randomBytes(32));
  scanMemory(pid, {});
  await expect.poll(() => readFileSync(`/proc/${pid}/stat`, "utf8")).toMatch(/\) [SR] /);
});

test("a process that cannot be scanned is no process without secrets", async () => {
  expect(() => scanMemory(process.pid, {})).toThrow("holds the needles itself");
  expect(() => scanMemory(2 ** 22, {})).toThrow("ENOENT");
});
