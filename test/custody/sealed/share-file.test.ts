import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateHybridIdentity, identityToRecipient } from "age-encryption";
import { afterAll, expect, test } from "vitest";
import { encodeShare } from "../../../src/custody/sealed/share.ts";
import {
  checkRecipient,
  newUnlockIdentity,
  openShareFile,
  readShareFileText,
  recipientCount,
  sealShareFile,
} from "../../../src/custody/sealed/share-file.ts";
import { context, points, vectors } from "./vectors.ts";

const folder = mkdtempSync(join(tmpdir(), "countersign-age-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** A key pair of stock age: the file with the secret, and the recipient. */
function ageKey(name: string): { file: string; identity: string; recipient: string } {
  const file = join(folder, name);
  execFileSync("age-keygen", ["-o", file], { stdio: "ignore" });
  const identity = readFileSync(file, "utf8").trim().split("\n").at(-1)!;
  return { file, identity, recipient: execFileSync("age-keygen", ["-y", file]).toString().trim() };
}

const bob = ageKey("bob");
const carol = ageKey("carol");
const labels = {
  service: "ca.example.com",
  issuer: "CN=Example Issuing CA G1",
  custodian: "bob",
  plan: `sha256:${"4".repeat(64)}`,
};
const point = points[1]!;
const share = expect.objectContaining({ x: 2, epoch: 7, threshold: 3, shareCount: 5 });
const code = (name: string): unknown => expect.objectContaining({ code: name });

/** What stock age encrypts. */
function age(input: string | Uint8Array, ...options: string[]): Buffer {
  return execFileSync("age", options, { input });
}

test("ST-17: stock age opens the service's file, which says what it is", async () => {
  const file = await sealShareFile(context, point, bob.recipient, labels);
  expect(recipientCount(file)).toBe(1);
  const text = age(file, "-d", "-i", bob.file).toString();
  expect(text.split("\n")).toEqual([
    expect.stringContaining("Keep secret"),
    "# service ca.example.com   issuer CN=Example Issuing CA G1",
    "# key 6feecc8c16c5551d…   epoch 7   share 2 of 5, any 3 unlock   custodian bob",
    `# plan ${labels.plan}`,
    vectors.shares[1]!.text,
    "",
  ]);
  expect(readShareFileText(text)).toEqual(share);
  expect(() => age(file, "-d", "-i", carol.file)).toThrow();
});

test("ST-17: a file of stock age opens with the key of an unlock, which cannot be taken out", async () => {
  const unlock = await newUnlockIdentity();
  checkRecipient(unlock.recipient);
  const file = await sealShareFile(context, point, bob.recipient, labels);
  // As the custodian does it: one pipe.
  const submitted = age(age(file, "-d", "-i", bob.file), "-r", unlock.recipient);
  expect(await openShareFile(submitted, unlock.key)).toEqual(share);
  expect(await openShareFile(file, bob.identity)).toEqual(share);
  await expect(crypto.subtle.exportKey("pkcs8", unlock.key)).rejects.toThrow();
});

test("ST-31: a file for another unlock, or one changed on its way, is share-unreadable", async () => {
  const [earlier, present] = [await newUnlockIdentity(), await newUnlockIdentity()];
  const file = age(encodeShare(context, point), "-r", earlier.recipient);
  await expect(openShareFile(file, present.key)).rejects.toEqual(code("share-unreadable"));
  for (const at of [30, file.length >> 1, file.length - 1]) {
    const changed = Buffer.from(file);
    changed[at]! ^= 1;
    await expect(openShareFile(changed, earlier.key)).rejects.toEqual(
      expect.objectContaining({ code: expect.stringMatching(/^share-(?:unreadable|malformed)$/) }),
    );
  }
});

test("ST-16: a file that a second recipient can open is refused", async () => {
  const file = age(encodeShare(context, point), "-r", bob.recipient, "-r", carol.recipient);
  expect(recipientCount(file)).toBe(2);
  await expect(openShareFile(file, bob.identity)).rejects.toEqual(code("share-unreadable"));
});

const header = "age-encryption.org/v1\n";

test.for<{ name: string; file: () => Buffer; refused: string }>([
  {
    name: "8 KiB and one octet",
    file: () => Buffer.alloc(8_193, header),
    refused: "share-malformed",
  },
  { name: "one line of 64 KiB", file: () => Buffer.alloc(65_536, "a"), refused: "share-malformed" },
  {
    name: "80 recipients",
    file: () =>
      Buffer.from(`${header}${"-> X25519 AAAA\nBBBB\n".repeat(80)}--- ${"A".repeat(43)}\n`),
    refused: "share-unreadable",
  },
  {
    name: "a passphrase that costs 2^30",
    file: () =>
      Buffer.from(
        `${header}-> scrypt ${"A".repeat(22)} 30\n${"A".repeat(43)}\n--- ${"A".repeat(43)}\n`,
      ),
    refused: "share-unreadable",
  },
  {
    name: "no age file",
    file: () => Buffer.from(vectors.shares[0]!.text),
    refused: "share-malformed",
  },
  { name: "nothing", file: () => Buffer.alloc(0), refused: "share-malformed" },
  {
    name: "an armored file",
    file: () => age(encodeShare(context, point), "-a", "-r", bob.recipient),
    refused: "share-malformed",
  },
])("ST-36: $name is refused in less than 200 ms", async ({ file, refused }) => {
  const octets = file();
  const unlock = await newUnlockIdentity();
  const start = performance.now();
  await expect(openShareFile(octets, unlock.key)).rejects.toEqual(code(refused));
  expect(performance.now() - start).toBeLessThan(200);
});

test.for<{ name: string; text: string; refused: string }>([
  {
    name: "two shares",
    text: `${vectors.shares[0]!.text}\n${vectors.shares[1]!.text}\n`,
    refused: "share-malformed",
  },
  { name: "comments only", text: "# nothing\n", refused: "share-malformed" },
  { name: "other words", text: "hello\n", refused: "share-checksum" },
])("a file with $name holds no share", async ({ text, refused }) => {
  const unlock = await newUnlockIdentity();
  const file = age(text, "-r", unlock.recipient);
  await expect(openShareFile(file, unlock.key)).rejects.toEqual(code(refused));
});

test("a label that would add a line is refused", async () => {
  const issuer = `CN=x\n${vectors.shares[0]!.text}`;
  await expect(sealShareFile(context, point, bob.recipient, { ...labels, issuer })).rejects.toThrow(
    RangeError,
  );
});

test.for([
  { name: "upper case", recipient: bob.recipient.toUpperCase() },
  { name: "mixed case", recipient: bob.recipient.replace("age1", "AGE1") },
  { name: "the old YubiKey form", recipient: `age1yubikey1${"q".repeat(60)}` },
  { name: "an SSH key", recipient: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA" },
  {
    name: "a wrong checksum",
    recipient: bob.recipient.slice(0, -1) + (bob.recipient.endsWith("q") ? "p" : "q"),
  },
  { name: "one character less", recipient: bob.recipient.slice(0, -1) },
  { name: "the secret key", recipient: bob.identity },
  { name: "nothing", recipient: "" },
])("ST-18: $name is no recipient", ({ recipient }) => {
  const refused = (): void => checkRecipient(recipient);
  expect(refused).toThrow(code("recipient-refused"));
  if (recipient !== "") expect(refused).not.toThrow(recipient);
});

test("recipients of X25519 and of its hybrid with ML-KEM are accepted, and get a file under 8 KiB", async () => {
  checkRecipient(bob.recipient);
  const identity = await generateHybridIdentity();
  const recipient = await identityToRecipient(identity);
  checkRecipient(recipient);
  const file = await sealShareFile(context, point, recipient, labels);
  expect(file.length).toBeLessThan(8_192);
  expect(await openShareFile(file, identity)).toEqual(share);
});
