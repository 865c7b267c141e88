import { execFileSync } from "node:child_process";
import {
  createHash,
  createPublicKey,
  generateKeyPairSync,
  sign,
  type KeyObject,
} from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { sshFingerprint, verifySshSignature } from "../../src/custody/ssh-signature.ts";
import { CountersignError } from "../../src/errors.ts";
import { makeSshKey, sshSign } from "../support/people.ts";

const directory = mkdtempSync(join(tmpdir(), "countersign-ssh-"));
afterAll(() => rmSync(directory, { recursive: true }));

const namespace = "countersign-lock@v1";
const message = Buffer.from('{"type":"countersign/lock/v1"}');
const alice = makeSshKey(join(directory, "alice"));
const bob = makeSshKey(join(directory, "bob"));
const carol = makeSshKey(join(directory, "carol"), "-t", "ecdsa", "-b", "256");
const signature = sshSign(join(directory, "alice"), namespace, message);

function reason(question: Partial<Parameters<typeof verifySshSignature>[0]>): string | undefined {
  try {
    verifySshSignature({ publicKey: alice, namespace, message, signature, ...question });
    return undefined;
  } catch (error) {
    if (!(error instanceof CountersignError) || error.code !== "signature-invalid") throw error;
    return error.message;
  }
}

test("signatures of stock ssh-keygen verify: Ed25519 and ECDSA P-256, SHA-512 and SHA-256", () => {
  expect(reason({})).toBeUndefined();
  const byCarol = sshSign(join(directory, "carol"), namespace, message);
  expect(reason({ publicKey: carol, signature: byCarol })).toBeUndefined();
  const sha256 = sshSign(join(directory, "alice"), namespace, message, "-O", "hashalg=sha256");
  expect(reason({ signature: sha256 })).toBeUndefined();
});

test("a hundred P-256 signatures verify, whatever the lengths of their numbers", () => {
  const keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const publicKey = sshLine(ecBlob(keys.publicKey));
  for (let count = 0; count < 100; count++) {
    const own = sshsig(ecBlob(keys.publicKey), (signed) => ecSignature(keys.privateKey, signed));
    expect(reason({ publicKey, signature: own })).toBeUndefined();
  }
});

test("the fingerprint is that of ssh-keygen -l", () => {
  const shown = execFileSync("ssh-keygen", ["-l", "-f", join(directory, "alice.pub")]).toString();
  expect(shown.split(" ")[1]).toBe(sshFingerprint(alice));
});

test.for([
  { name: "another message", question: { message: Buffer.from("{}") } },
  { name: "another namespace", question: { namespace: "countersign-approval@v1" } },
  { name: "another operator's key", question: { publicKey: bob } },
  { name: "text after the armor", question: { signature: `${signature}x\n` } },
  { name: "no armor", question: { signature: "AAAA" } },
  {
    name: "armor of 100 kB",
    question: { signature: signature.replace("U1NI", "A".repeat(100_000)) },
  },
])("ST-34: $name is refused", ({ question }) => {
  expect(reason(question)).toMatch(/^the SSH signature is refused/);
});

test("ST-34: a signature made for git is refused", () => {
  const forGit = sshSign(join(directory, "alice"), "git", message);
  expect(reason({ signature: forGit })).toMatch(/for another purpose/);
});

test("ST-34: an RSA key is refused", () => {
  const rsa = makeSshKey(join(directory, "rsa"), "-t", "rsa", "-b", "2048");
  const byRsa = sshSign(join(directory, "rsa"), namespace, message);
  expect(reason({ publicKey: rsa, signature: byRsa })).toMatch(/kind of key is not accepted/);
});

test("ST-34: a key on another curve is refused", () => {
  const p384 = makeSshKey(join(directory, "p384"), "-t", "ecdsa", "-b", "384");
  expect(reason({ publicKey: p384 })).toMatch(/kind of key is not accepted/);
});

const ed25519 = generateKeyPairSync("ed25519");
const edLine = sshLine(edBlob(ed25519.publicKey));

/** Our own signature, with one thing changed. */
function changed(change: SshsigChange, outer?: (octets: Buffer) => Buffer): string {
  const own = (signed: Buffer): Buffer =>
    Buffer.concat([string("ssh-ed25519"), string(sign(null, signed, ed25519.privateKey))]);
  return sshsig(edBlob(ed25519.publicKey), change.inner ?? own, change, outer);
}

test("a signature in the same form as ours is accepted by stock ssh-keygen", () => {
  const own = changed({});
  expect(reason({ publicKey: edLine, signature: own })).toBeUndefined();
  expect(stockVerifies(edLine, own)).toBe(true);
});

test.for<{ name: string; make: () => string }>([
  { name: "version 2", make: () => changed({ version: 2 }) },
  { name: "version 0", make: () => changed({ version: 0 }) },
  { name: "a reserved field that is not empty", make: () => changed({ reserved: "x" }) },
  { name: "the hash sha1", make: () => changed({ hash: "sha1" }) },
  {
    name: "a byte after the signature",
    make: () => changed({}, (octets) => Buffer.concat([octets, Buffer.of(0)])),
  },
  {
    name: "another magic",
    make: () => changed({}, (octets) => Buffer.concat([Buffer.from("SSHSIH"), octets.subarray(6)])),
  },
  { name: "a cut", make: () => changed({}, (octets) => octets.subarray(0, -1)) },
  {
    name: "a byte after the inner signature",
    make: () =>
      changed({
        inner: (signed) =>
          Buffer.concat([
            string("ssh-ed25519"),
            string(sign(null, signed, ed25519.privateKey)),
            Buffer.of(0),
          ]),
      }),
  },
  {
    name: "an algorithm that is not the key's",
    make: () =>
      changed({
        inner: (signed) =>
          Buffer.concat([string("ssh-rsa"), string(sign(null, signed, ed25519.privateKey))]),
      }),
  },
])("ST-34: $name is refused", ({ make }) => {
  expect(reason({ publicKey: edLine, signature: make() })).toMatch(/^the SSH signature is refused/);
});

const application = "ssh:";
const USER_PRESENT = 0x01;
const USER_VERIFIED = 0x04;

/** What an authenticator signs: OpenSSH PROTOCOL.u2f. */
function onSecurityKey(
  key: "ed25519" | "p256",
  flags: number,
): { publicKey: string; signature: string } {
  const keys = key === "ed25519" ? ed25519 : generateKeyPairSync("ec", { namedCurve: "P-256" });
  const type =
    key === "ed25519" ? "sk-ssh-ed25519@openssh.com" : "sk-ecdsa-sha2-nistp256@openssh.com";
  const plain = key === "ed25519" ? edBlob(keys.publicKey) : ecBlob(keys.publicKey);
  const plainType = key === "ed25519" ? "ssh-ed25519" : "ecdsa-sha2-nistp256";
  const blob = Buffer.concat([
    string(type),
    plain.subarray(string(plainType).length),
    string(application),
  ]);
  const counter = Buffer.from("00000007", "hex");
  const signed = (tbs: Buffer): Buffer => {
    const message = Buffer.concat([
      sha256(Buffer.from(application)),
      Buffer.of(flags),
      counter,
      sha256(tbs),
    ]);
    const octets =
      key === "ed25519"
        ? Buffer.concat([string(type), string(sign(null, message, keys.privateKey))])
        : ecSignature(keys.privateKey, message, type);
    return Buffer.concat([octets, Buffer.of(flags), counter]);
  };
  return { publicKey: `${type} ${blob.toString("base64")}`, signature: sshsig(blob, signed) };
}

test.for(["ed25519", "p256"] as const)(
  "a FIDO2 key (%s) that felt a touch is accepted, as by ssh-keygen",
  (key) => {
    const made = onSecurityKey(key, USER_PRESENT);
    expect(reason(made)).toBeUndefined();
    expect(stockVerifies(made.publicKey, made.signature)).toBe(true);
  },
);

test.for(["ed25519", "p256"] as const)(
  "ST-34: a FIDO2 key (%s) without user presence is refused",
  (key) => {
    expect(reason(onSecurityKey(key, USER_VERIFIED))).toMatch(/nobody touched/);
  },
);

test("user verification is required where it is asked for", () => {
  const touched = onSecurityKey("ed25519", USER_PRESENT);
  const verified = onSecurityKey("ed25519", USER_PRESENT | USER_VERIFIED);
  expect(reason({ ...touched, requireUserVerification: true })).toMatch(/did not verify its user/);
  expect(reason({ ...verified, requireUserVerification: true })).toBeUndefined();
});

test("ST-34: flags changed after signing are refused", () => {
  const made = onSecurityKey("ed25519", USER_VERIFIED);
  const octets = Buffer.from(made.signature.split("\n").slice(1, -2).join(""), "base64");
  octets[octets.length - 5] = USER_PRESENT;
  expect(reason({ ...made, signature: armored(octets) })).toMatch(/does not match/);
});

interface SshsigChange {
  readonly version?: number;
  readonly reserved?: string;
  readonly hash?: string;
  readonly inner?: (signed: Buffer) => Buffer;
}

function sshsig(
  blob: Buffer,
  inner: (signed: Buffer) => Buffer,
  { version = 1, reserved = "", hash = "sha512" }: SshsigChange = {},
  outer: (octets: Buffer) => Buffer = (octets) => octets,
): string {
  const signed = Buffer.concat([
    Buffer.from("SSHSIG"),
    string(namespace),
    string(reserved),
    string(hash),
    string(createHash(hash).update(message).digest()),
  ]);
  const octets = Buffer.concat([
    Buffer.from("SSHSIG"),
    uint32(version),
    string(blob),
    string(namespace),
    string(reserved),
    string(hash),
    string(inner(signed)),
  ]);
  return armored(outer(octets));
}

function armored(octets: Buffer): string {
  const lines = octets.toString("base64").match(/.{1,70}/g)!;
  return ["-----BEGIN SSH SIGNATURE-----", ...lines, "-----END SSH SIGNATURE-----", ""].join("\n");
}

function stockVerifies(publicKey: string, armoredSignature: string): boolean {
  writeFileSync(join(directory, "allowed"), `someone ${publicKey}\n`);
  writeFileSync(join(directory, "message.sig"), armoredSignature);
  const files = ["-f", join(directory, "allowed"), "-s", join(directory, "message.sig")];
  try {
    execFileSync("ssh-keygen", ["-Y", "verify", "-I", "someone", "-n", namespace, ...files], {
      input: message,
      stdio: ["pipe", "ignore", "ignore"],
    });
    return true;
  } catch {
    return false;
  }
}

function edBlob(key: KeyObject): Buffer {
  const { x } = createPublicKey(key.export({ type: "spki", format: "pem" })).export({
    format: "jwk",
  });
  return Buffer.concat([string("ssh-ed25519"), string(Buffer.from(x!, "base64url"))]);
}

function ecBlob(key: KeyObject): Buffer {
  const { x, y } = createPublicKey(key.export({ type: "spki", format: "pem" })).export({
    format: "jwk",
  });
  const point = [Buffer.of(4), Buffer.from(x!, "base64url"), Buffer.from(y!, "base64url")];
  return Buffer.concat([
    string("ecdsa-sha2-nistp256"),
    string("nistp256"),
    string(Buffer.concat(point)),
  ]);
}

function ecSignature(key: KeyObject, signed: Buffer, type = "ecdsa-sha2-nistp256"): Buffer {
  const octets = sign("sha256", signed, { key, dsaEncoding: "ieee-p1363" });
  const numbers = [mpint(octets.subarray(0, 32)), mpint(octets.subarray(32))];
  return Buffer.concat([string(type), string(Buffer.concat(numbers))]);
}

function mpint(octets: Buffer): Buffer {
  let number = octets;
  while (number[0] === 0) number = number.subarray(1);
  return string(number[0]! >= 0x80 ? Buffer.concat([Buffer.of(0), number]) : number);
}

function sshLine(blob: Buffer): string {
  return `${blob.subarray(4, 4 + blob.readUInt32BE(0)).toString()} ${blob.toString("base64")}`;
}

function sha256(octets: Buffer): Buffer {
  return createHash("sha256").update(octets).digest();
}

function string(octets: Buffer | string): Buffer {
  return Buffer.concat([uint32(Buffer.byteLength(octets)), Buffer.from(octets)]);
}

function uint32(value: number): Buffer {
  const octets = Buffer.alloc(4);
  octets.writeUInt32BE(value);
  return octets;
}

test("the public key file of an operator, comment and all, names the same key", () => {
  expect(reason({ publicKey: readFileSync(join(directory, "alice.pub"), "utf8") })).toBeUndefined();
});
