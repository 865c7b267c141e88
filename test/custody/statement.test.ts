import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { digestOf } from "../../src/audit/digest.ts";
import { canonicalJson, type JsonObject } from "../../src/audit/canonical-json.ts";
import {
  readApproval,
  readCeremony,
  readSubmission,
  readUnlock,
} from "../../src/custody/statement.ts";

interface Vector {
  readonly name: "ceremony" | "approval" | "unlock" | "submission";
  readonly length: number;
  readonly json: string;
  readonly sha256: string;
}

const { documents } = JSON.parse(
  readFileSync(new URL("../vectors/canonical-json.json", import.meta.url), "utf8"),
) as { documents: readonly Vector[] };

const readers = {
  ceremony: readCeremony,
  approval: readApproval,
  unlock: readUnlock,
  submission: readSubmission,
};
const codes = {
  ceremony: "statement-malformed",
  approval: "approval-malformed",
  unlock: "statement-malformed",
  submission: "submission-malformed",
};

test.for(documents)("vector: the $name of CUSTODY.md 14 is read, and has its digest", (vector) => {
  const octets = Buffer.from(vector.json);
  expect(octets).toHaveLength(vector.length);
  expect(digestOf(octets)).toBe(`sha256:${vector.sha256}`);
  expect(readers[vector.name](octets)).toEqual(JSON.parse(vector.json));
});

const documentOf = (name: Vector["name"]): JsonObject =>
  JSON.parse(documents.find((vector) => vector.name === name)!.json) as JsonObject;

const without = (document: JsonObject, member: string): JsonObject =>
  Object.fromEntries(Object.entries(document).filter(([name]) => name !== member));

test.for(documents)("ST-33: a changed $name is refused", ({ name, json }) => {
  const refused = expect.objectContaining({ code: codes[name] });
  const reader = readers[name];
  const members = Object.entries(JSON.parse(json) as JsonObject);
  const otherOrder = JSON.stringify(Object.fromEntries(members.toReversed()));
  const changed = [
    otherOrder,
    ` ${json}`,
    `${json}\n`,
    json.replace("{", '{"extra":1,'),
    canonicalJson({ ...Object.fromEntries(members), extra: 1 }),
    json.replace("{", '{"__proto__":{"a":1},'),
    json.replace("{", `{"type":"countersign/${name}/v1",`),
    json.replace("/v1", "/v2"),
    json.replace("countersign/", "countersign/rehearsal-"),
    json.slice(0, -1),
    "[]",
    "",
  ];
  for (const text of changed) expect(() => reader(Buffer.from(text))).toThrow(refused);
  for (const [member] of members) {
    if (name === "ceremony" && member === "script") continue; // only some have one
    const text = canonicalJson(without(documentOf(name), member));
    expect(() => reader(Buffer.from(text)), `without ${member}`).toThrow(refused);
  }
});

test("what is refused says where it is wrong, and not what stands there", () => {
  const secret = "csshare1qyqsxpgqqqqqwml";
  const text = canonicalJson({
    ...documentOf("submission"),
    share: { index: 2, file: secret },
  });
  const error = expect.objectContaining({
    code: "submission-malformed",
    message: "a submission is wrong at share.file",
  });
  expect(() => readSubmission(Buffer.from(text))).toThrow(error);
});

test.for([
  {
    name: "a refusal with a reason",
    change: { verdict: "refuse", reason: "not today" },
    share: false,
    good: true,
  },
  { name: "a refusal without a reason", change: { verdict: "refuse" }, share: false, good: false },
  {
    name: "a refusal with a share",
    change: { verdict: "refuse", reason: "no" },
    share: true,
    good: false,
  },
  { name: "a gift without a share", change: {}, share: false, good: false },
  {
    name: "index 0",
    change: { share: { index: 0, file: `sha256:${"0".repeat(64)}` } },
    share: true,
    good: false,
  },
  {
    name: "index 33",
    change: { share: { index: 33, file: `sha256:${"0".repeat(64)}` } },
    share: true,
    good: false,
  },
])("ST-29: submission, $name: $good", ({ change, share, good }) => {
  const document = documentOf("submission");
  const octets = Buffer.from(
    canonicalJson({ ...(share ? document : without(document, "share")), ...change } as JsonObject),
  );
  if (good) expect(readSubmission(octets)).toMatchObject(change);
  else expect(() => readSubmission(octets)).toThrow("a submission");
});

const window = {
  operations: [{ operation: "crl", max: 24 }],
  notBefore: "2026-11-21T20:00:00Z",
  notAfter: "2026-11-22T20:00:00Z",
  idleSeconds: 28_800,
};
const plan = `sha256:${"1".repeat(64)}`;

test.for<{ kind: string; change: JsonObject; drop?: string[]; good: boolean }>([
  { kind: "sign", change: {}, good: true },
  { kind: "sign", change: { plan }, good: false },
  { kind: "sign", change: { window }, good: false },
  { kind: "sign", change: {}, drop: ["artefacts"], good: false },
  { kind: "window", change: { window }, drop: ["artefacts", "script"], good: true },
  { kind: "window", change: { window }, drop: ["script"], good: false },
  { kind: "window", change: {}, drop: ["artefacts", "script"], good: false },
  { kind: "generate", change: { plan }, drop: ["artefacts", "script"], good: true },
  { kind: "generate", change: { plan }, drop: ["artefacts", "script", "keyId"], good: true },
  { kind: "reshare", change: { plan }, drop: ["artefacts", "script"], good: true },
  { kind: "reshare", change: { plan }, drop: ["artefacts", "script", "keyId"], good: false },
  { kind: "roster", change: { plan }, drop: ["artefacts", "script", "keyId"], good: true },
  { kind: "resume", change: { plan }, drop: ["artefacts", "script"], good: false },
  { kind: "destroy", change: { plan }, drop: ["artefacts", "script"], good: false },
])(
  "a ceremony of kind $kind with $change, without $drop: $good",
  ({ kind, change, drop, good }) => {
    let document: JsonObject = { ...documentOf("ceremony"), kind, ...change };
    for (const member of drop ?? []) document = without(document, member);
    const octets = Buffer.from(canonicalJson(document));
    if (good) expect(readCeremony(octets).kind).toBe(kind);
    else expect(() => readCeremony(octets)).toThrow("ceremony");
  },
);
