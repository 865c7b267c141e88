import { createPrivateKey, createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { checkpointText, openCheckpoint, parseCheckpoint } from "../../src/audit/checkpoint.ts";
import { CompactRange, emptyRoot, leafHash } from "../../src/audit/merkle.ts";
import {
  noteSigner,
  openNote,
  parseVerifierKey,
  signNote,
  splitNote,
  verifierKey,
} from "../../src/audit/signed-note.ts";
import { CountersignError } from "../../src/errors.ts";
import { logSigner } from "../support/log.ts";

interface Vectors {
  readonly seed: string;
  readonly leaves: readonly string[];
  readonly verifierKey: string;
  readonly checkpoint: string;
}

const vectors = JSON.parse(
  readFileSync(new URL("../vectors/audit-log.json", import.meta.url), "utf8"),
) as Vectors;
const origin = "ca.example.com/audit";
const signer = logSigner(origin, vectors.seed);

test("CUSTODY 14, AUDIT 9.3: verifier key and checkpoint to the byte", () => {
  const range = CompactRange.empty();
  for (const leaf of vectors.leaves) range.append(leafHash(Buffer.from(leaf)));
  expect(signer.verifierKey.text).toBe(vectors.verifierKey);
  expect(signNote(checkpointText(origin, 3, range.root()), signer)).toBe(vectors.checkpoint);
  expect(openCheckpoint(vectors.checkpoint, vectors.verifierKey)).toEqual({
    origin,
    size: 3,
    root: range.root(),
  });
  expect(openCheckpoint(Buffer.from(vectors.checkpoint), signer.verifierKey).size).toBe(3);
});

test("C2SP signed-note: the example of the specification is taken apart", () => {
  const note =
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n" +
    "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
  const { text, signatures } = splitNote(note);
  expect(text.endsWith("\n\ned è subito sera.\n")).toBe(true);
  expect(signatures.map(({ name }) => name)).toEqual(["quasimodo.example/salvatore"]);
});

test("signatures of unknown keys are ignored, also under a known name", () => {
  const other = logSigner(origin, "02".repeat(32));
  const [text, ours] = signNote("text\n", signer).split("\n\n") as [string, string];
  const theirs = signNote("text\n", other).split("\n\n")[1]!;
  const junk = "— witness.example/w1 AAAAAAA=\n";
  expect(openNote(`${text}\n\n${theirs}${ours}${junk}`, [vectors.verifierKey])).toEqual({
    text: "text\n",
    verified: [vectors.verifierKey],
  });
  expect(
    openNote(`${text}\n\n${theirs}${ours}`, [vectors.verifierKey, other.verifierKey]).verified,
  ).toEqual([other.verifierKey.text, vectors.verifierKey]);
});

const note = signNote("text\n", signer);

test.for([
  { name: "another text", note: note.replace("text", "Text") },
  { name: "no signature", note: "text\n\n" },
  { name: "no empty line", note: note.replace("\n\n", "\n") },
  { name: "no newline at the end", note: note.slice(0, -1) },
  { name: "a hyphen for the dash", note: note.replace("—", "-") },
  { name: "a carriage return", note: note.replace("text", "te\rxt") },
  { name: "half a surrogate pair", note: note.replace("text", "te\ud800xt") },
  { name: "a signature of another length", note: note.replace(/ (\S{88})\S*\n$/, " $1\n") },
  { name: "a line that is no signature", note: `${note}x\n` },
  { name: "base64 with a space", note: note.replace(/(.{4})\n$/, " $1\n") },
  { name: "101 signatures", note: note + "— w AAAAAAA=\n".repeat(100) },
  { name: "a million octets", note: note.replace("text", "x".repeat(1_000_000)) },
  { name: "nothing", note: "" },
])("C2SP signed-note: $name is refused", ({ note }) => {
  expect(() => openNote(note, [vectors.verifierKey])).toThrow(CountersignError);
});

test("a note that a known key signed wrongly is refused, though another key signed it well", () => {
  const other = logSigner(origin, "02".repeat(32));
  const good = signNote("text\n", other);
  const wrong = signNote("Text\n", signer).split("\n\n")[1]!;
  expect(() => openNote(good + wrong, [vectors.verifierKey, other.verifierKey])).toThrow(
    /does not verify/,
  );
  expect(() => openNote(good, [vectors.verifierKey])).toThrow(/none of the expected keys/);
});

test("a note that is not UTF-8 is refused", () => {
  const bytes = Buffer.from(note);
  bytes[0] = 0xff;
  expect(() => openNote(bytes, [vectors.verifierKey])).toThrow(/not UTF-8/);
});

test.for([
  { name: "another key id", text: vectors.verifierKey.replace("c347ce62", "c347ce63") },
  { name: "another name", text: vectors.verifierKey.replace("ca.", "cb.") },
  { name: "a space in the name", text: vectors.verifierKey.replace("ca.", "c .") },
  { name: "another type", text: vectors.verifierKey.replace("+AY", "+BY") },
  { name: "two parts", text: "ca.example.com/audit+c347ce62" },
  { name: "nothing", text: "" },
])("a verifier key with $name is refused", ({ text }) => {
  expect(() => parseVerifierKey(text)).toThrow(SyntaxError);
});

test("an unfit name, text or key is a bug of the caller", () => {
  const publicKey = Buffer.alloc(32, 1);
  for (const name of ["", "a b", "a+b", "a\u3000b", "a\nb"]) {
    expect(() => verifierKey(name, publicKey)).toThrow(RangeError);
  }
  expect(() => verifierKey("a", publicKey.subarray(1))).toThrow(RangeError);
  expect(() => signNote("text", signer)).toThrow(RangeError);
  expect(() => signNote("te\u0000xt\n", signer)).toThrow(RangeError);
  const key = createPrivateKey({
    key: Buffer.from(`302e020100300506032b657004220420${vectors.seed}`, "hex"),
    format: "der",
    type: "pkcs8",
  });
  expect(() => noteSigner("a", createPublicKey(key))).toThrow(TypeError);
});

test("C2SP tlog-checkpoint: the empty tree", () => {
  const text = checkpointText(origin, 0, emptyRoot);
  expect(text).toBe(`${origin}\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n`);
  expect(parseCheckpoint(text)).toEqual({ origin, size: 0, root: emptyRoot });
});

const root = "p5vUAZS2ZU1GBZ4VgKIVezvyXn7rgzyJJDmMmt04Vuo=";

test.for([
  { name: "a leading zero", text: `o\n03\n${root}\n` },
  { name: "a negative size", text: `o\n-3\n${root}\n` },
  { name: "a size beyond 2^53", text: `o\n9007199254740993\n${root}\n` },
  { name: "no origin", text: `\n3\n${root}\n` },
  { name: "a short root", text: `o\n3\n${root.slice(4)}\n` },
  { name: "a root with unused bits set", text: `o\n3\n${root.replace("uo=", "up=")}\n` },
  { name: "an extension line", text: `o\n3\n${root}\nmore\n` },
  { name: "no last newline", text: `o\n3\n${root}` },
  { name: "two lines", text: "o\n3\n" },
])("C2SP tlog-checkpoint: $name is refused", ({ text }) => {
  expect(() => parseCheckpoint(text)).toThrow(SyntaxError);
});

test("a checkpoint of another log is refused, though the key signed it", () => {
  const other = signNote(checkpointText("other.example/audit", 0, emptyRoot), signer);
  expect(() => openCheckpoint(other, vectors.verifierKey)).toThrow(/not of ca\.example\.com/);
  expect(() => openCheckpoint(signNote("hello\n", signer), vectors.verifierKey)).toThrow(
    CountersignError,
  );
});
