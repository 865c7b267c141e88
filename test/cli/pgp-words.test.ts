import { hash } from "node:crypto";
import { expect, test } from "vitest";
import { fingerprintOf } from "../../src/cli/fingerprint.ts";
import { pgpWords } from "../../src/cli/pgp-words.ts";

const EVEN = "60c4b44eb39b83922a3593b21b41c7ff634fdf9ea0bb63654450cec8c9aa6833";
const ODD = "995bb1017581b4f8c0fd824323ef0f83051d7559cb88969ff679f868cbade3a5";

const every = Uint8Array.from({ length: 512 }, (_, place) => place >> 1);

test("the published example of the PGP word list comes out", () => {
  const octets = Buffer.from("e58294f2e9a227486e8b061b31cc528fd7fa3f19", "hex");
  expect(pgpWords(octets).join(" ")).toBe(
    "topmost Istanbul Pluto vagabond treadmill Pacific brackish dictator goldfish Medusa " +
      "afflict bravado chatter revolver Dupont midsummer stopwatch whimsical cowbell bottomless",
  );
});

test("the list is the published one: 512 words, each once", () => {
  const words = pgpWords(every);
  expect(new Set(words).size).toBe(512);
  const both = [0, 1].map((odd) => words.filter((_, place) => place % 2 === odd).join(" "));
  expect(both.map((list) => list.split(" ").length)).toEqual([256, 256]);
  // In lower case, for copies differ in their capitals.
  expect(both.map((list) => hash("sha256", list.toLowerCase()))).toEqual([EVEN, ODD]);
});

test("a word that is moved by one place is another word", () => {
  const [even, odd] = [0, 1].map(
    (first) => new Set(pgpWords(every).filter((_, place) => place % 2 === first)),
  );
  expect([...even!].filter((word) => odd!.has(word))).toEqual([]);
});

test("a fingerprint is the first 10 octets of SHA-256, in hex and in words", () => {
  const { hex, words } = fingerprintOf("abc");
  expect(hex).toBe("ba78 16bf 8f01 cfea 4141");
  expect(words.split(" ")).toHaveLength(10);
  expect(words).toBe(pgpWords(Buffer.from("ba7816bf8f01cfea4141", "hex")).join(" "));
});
