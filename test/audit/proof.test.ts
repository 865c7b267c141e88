import { expect, test } from "vitest";
import {
  formatLogProof,
  parseLogProof,
  verifyLogProof,
  type LogProof,
} from "../../src/audit/proof.ts";
import { inclusionProof } from "../../src/audit/tiles.ts";
import { CountersignError } from "../../src/errors.ts";
import { issuanceLeaves, MemoryLog } from "../support/log.ts";

const log = new MemoryLog();
log.append(issuanceLeaves(300));
const key = log.signer.verifierKey.text;

async function proofOf(index: number): Promise<LogProof> {
  const proof = await inclusionProof(log.readTile, index, 300);
  return { index, proof, checkpoint: log.checkpoint(), extra: log.leaves[index]! };
}

test("AUDIT 9.6: a proof carries its record, and verifies by itself", async () => {
  for (const index of [0, 1, 255, 256, 299]) {
    const text = formatLogProof(await proofOf(index));
    const verified = verifyLogProof(parseLogProof(text), key);
    expect(verified).toMatchObject({
      index,
      checkpoint: { size: 300, origin: "ca.example.com/audit" },
    });
    expect(Buffer.compare(verified.leaf, log.leaves[index]!)).toBe(0);
  }
});

test("C2SP tlog-proof: the form to the byte, with and without extra", async () => {
  const proof = await proofOf(299);
  const hashes = proof.proof.map((hash) => `${Buffer.from(hash).toString("base64")}\n`).join("");
  const rest = `index 299\n${hashes}\n${log.checkpoint()}`;
  const extra = `extra ${Buffer.from(proof.extra!).toString("base64")}\n`;
  const { extra: _, ...without } = proof;
  expect(formatLogProof(proof)).toBe(`c2sp.org/tlog-proof@v1\n${extra}${rest}`);
  expect(formatLogProof(without)).toBe(`c2sp.org/tlog-proof@v1\n${rest}`);
  expect(formatLogProof(parseLogProof(formatLogProof(without)))).toBe(formatLogProof(without));
  expect(parseLogProof(formatLogProof(without)).extra).toBeUndefined();
  expect(verifyLogProof(without, key, log.leaves[299]!).index).toBe(299);
  expect(() => verifyLogProof(without, key)).toThrow(/carries no record/);
});

test("C2SP tlog-proof: the only leaf of a log has an empty path", () => {
  const single = new MemoryLog();
  single.append(issuanceLeaves(1));
  const text = formatLogProof({
    index: 0,
    proof: [],
    checkpoint: single.checkpoint(),
    extra: single.leaves[0]!,
  });
  expect(text).toContain("\nindex 0\n\nca.example.com/audit\n1\n");
  expect(verifyLogProof(parseLogProof(text), key).index).toBe(0);
});

test("a changed proof does not verify", async () => {
  const proof = await proofOf(7);
  const other = new MemoryLog("other.example/audit");
  other.append(issuanceLeaves(300));
  for (const changed of [
    { ...proof, index: 8 },
    { ...proof, extra: log.leaves[8]! },
    { ...proof, proof: proof.proof.slice(1) },
    { ...proof, proof: [...proof.proof.slice(1), proof.proof[0]!] },
    { ...proof, checkpoint: other.checkpoint() },
    { ...proof, checkpoint: proof.checkpoint.replace("\n300\n", "\n301\n") },
  ]) {
    expect(() => verifyLogProof(changed, key)).toThrow(CountersignError);
  }
});

test("C2SP tlog-proof: what has another form is refused", async () => {
  const text = formatLogProof(await proofOf(7));
  for (const malformed of [
    "",
    text.replace("@v1", "@v2"),
    text.replace("index 7", "index 07"),
    text.replace("index 7", "index -7"),
    text.replace("index 7\n", ""),
    text.replace("extra ", "extra  "),
    text.replace("index 7\n", "index 7\nAAAA\n"),
    text.replace("index 7\n", `index 7\n${`${"A".repeat(43)}=\n`.repeat(64)}`),
    text.split("\n\n")[0]!,
  ]) {
    expect(() => parseLogProof(malformed)).toThrow(SyntaxError);
  }
});
