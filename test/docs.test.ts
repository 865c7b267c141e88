import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { canonicalJson, parseCanonicalJson } from "../src/audit/canonical-json.ts";
import { standingGrant } from "../src/custody/grant.ts";
import { developmentPolicy } from "../src/development/policy.ts";
import { ISSUER_DAYS, ROOT_DAYS } from "../src/development/set-up.ts";
import { BODY_OCTETS } from "../src/http/body.ts";
import { SESSION_MILLISECONDS } from "../src/http/sessions.ts";
import { IDEMPOTENCY_MILLISECONDS } from "../src/issuance/issuance.ts";
import { parsePolicy } from "../src/policy/document.ts";
import { parseDuration } from "../src/policy/lifetime.ts";
import { MAX_NAMES } from "../src/policy/name.ts";
import { CRL_INTERVAL_SECONDS, CRL_LIFETIME_SECONDS } from "../src/revocation/crl-schedule.ts";
import { CRL_WITHIN_MILLISECONDS, POSSESSION_MILLISECONDS } from "../src/revocation/revocations.ts";

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

test("the statements in the docs are canonical JSON", () => {
  const examples = [...statements.matchAll(/```text\n(.*?)\n```/gs)].map((match) => match[1]!);
  expect(examples).toHaveLength(4);
  for (const example of examples) {
    expect(canonicalJson(parseCanonicalJson(Buffer.from(example)))).toBe(example);
  }
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

test("the container starts the service with the flags of npm start", () => {
  const file = (name: string): string =>
    readFileSync(new URL(`../${name}`, import.meta.url), "utf8");
  const { scripts } = JSON.parse(file("package.json")) as { scripts: { start: string } };
  const [, inScript] = /\bexec node (.*?)dist\/src\/main\.js serve /.exec(scripts.start)!;
  const [, inContainer] = /^CMD (\[.*\])$/m.exec(file("Dockerfile"))!;
  const command = JSON.parse(inContainer!) as string[];
  expect(command.slice(1, command.indexOf("dist/src/main.js")).join(" ")).toBe(inScript!.trim());
});
