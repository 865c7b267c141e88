import { execFileSync } from "node:child_process";
import { createPublicKey, type KeyObject, verify } from "node:crypto";
import { cpSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import pkcs11 from "pkcs11js";
import { expect, type MockInstance, onTestFinished, vi } from "vitest";

import { makeToken } from "../../../src/custody/token/make-token.ts";
import {
  type MadeKeyType,
  madeKeyTypes,
  type MadeToken,
} from "../../../src/custody/token/spawn-make-token.ts";
import { readPin } from "../../../src/custody/token/pin-file.ts";
import { openToken, type Token, type TokenOptions } from "../../../src/custody/token/token.ts";
import { DerReader, Tag } from "../../../src/x509/der.ts";
import {
  generateKey,
  initToken,
  test,
  type TokenHome,
  withSession,
} from "../../support/softhsm.ts";

const tbs = Buffer.from("30820123", "hex");
const hashes = { "P-256": "sha256", "P-384": "sha384", "P-521": "sha512", Ed25519: null } as const;

function hashOf(type: string): "sha256" | "sha384" | "sha512" | null {
  return type.startsWith("RSA") ? "sha256" : hashes[type as keyof typeof hashes];
}

interface Made extends MadeToken {
  readonly options: TokenOptions;
}

async function make(home: TokenHome, key: MadeKeyType): Promise<Made> {
  const pinFile = join(home.directory, "issuing.pin");
  const { modulePath } = home;
  const made = await makeToken({ modulePath, label: "issuing", object: "ca", key, pinFile });
  return { ...made, options: { modulePath, uri: made.uri, pin: readPin(pinFile) } };
}

function open(options: TokenOptions): Token {
  const token = openToken(options);
  onTestFinished(() => token.close());
  return token;
}

function keyObject(spki: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" });
}

function codeOf(action: () => unknown): unknown {
  try {
    return action();
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
}

/** Counts the real calls that log in as user. */
function loginCalls(): MockInstance {
  const native = Object.getPrototypeOf(pkcs11.PKCS11.prototype) as pkcs11.PKCS11;
  const spy = vi.spyOn(native, "C_Login");
  onTestFinished(() => spy.mockRestore());
  return spy;
}

test.for([...madeKeyTypes])(
  "a %s key signs in the token, and the signature verifies outside",
  { timeout: 60_000 }, // RSA-4096 takes its time to be made
  async (type, { home }) => {
    const { options } = await make(home, type);
    const { key } = open(options);
    expect(key.type).toBe(type);
    const signature = await key.sign(tbs);
    expect(verify(hashOf(type), tbs, keyObject(key.publicKey), signature)).toBe(true);
    expect(verify(hashOf(type), Buffer.from("other"), keyObject(key.publicKey), signature)).toBe(
      false,
    );
  },
);

test.for([
  { type: "P-256", hash: "sha256" },
  { type: "P-384", hash: "sha384" },
  { type: "P-521", hash: "sha512" },
  { type: "RSA-2048", hash: "sha256" },
] as const)(
  "CRT-06: the hash follows the key: OpenSSL verifies $type with $hash",
  async ({ type, hash }, { home }) => {
    const { options } = await make(home, type);
    const { key } = open(options);
    const path = (name: string): string => join(home.directory, name);
    writeFileSync(path("tbs"), tbs);
    writeFileSync(path("signature"), await key.sign(tbs));
    writeFileSync(
      path("key.pem"),
      keyObject(key.publicKey).export({ format: "pem", type: "spki" }),
    );
    const files = ["-verify", path("key.pem"), "-signature", path("signature"), path("tbs")];
    const output = execFileSync("openssl", ["dgst", `-${hash}`, ...files], { encoding: "utf8" });
    expect(output.trim()).toBe("Verified OK");
  },
);

test("the SubjectPublicKeyInfo is what OpenSSL would write", async ({ home }) => {
  const { options, publicKey } = await make(home, "P-384");
  const { key } = open(options);
  expect(key.publicKey).toEqual(publicKey);
  expect(keyObject(key.publicKey).export({ format: "der", type: "spki" })).toEqual(
    Buffer.from(key.publicKey),
  );
});

test("ECDSA signatures are DER whatever their numbers begin with", async ({ home }) => {
  const { options } = await make(home, "P-256");
  const { key } = open(options);
  const publicKey = keyObject(key.publicKey);
  for (let i = 0; i < 600; i++) {
    const message = Buffer.from([i >> 8, i & 0xff]);
    const signature = await key.sign(message);
    const inside = DerReader.inside(DerReader.whole(signature, Tag.sequence));
    inside.read(Tag.integer);
    inside.read(Tag.integer);
    inside.finish();
    expect(verify("sha256", message, publicKey, signature)).toBe(true);
  }
});

test("the key cannot leave the token and was made there; what the token says of itself is told", async ({
  home,
}) => {
  const { options, uri } = await make(home, "P-256");
  const { key } = open(options);
  expect(key.attributes).toEqual({
    sensitive: true,
    alwaysSensitive: true,
    extractable: false,
    neverExtractable: true,
    local: true,
  });
  expect(key.info).toMatchObject({
    label: "issuing",
    model: "SoftHSM v2",
    manufacturer: "SoftHSM project",
  });
  expect(uri).toContain(`serial=${key.info.serialNumber};`);
});

test.for(["RSA-2048", "P-256", "P-384", "Ed25519"] as const)(
  "200 signatures at once with %s do not dead-lock and are not mixed up",
  async (type, { home }) => {
    const { options } = await make(home, type);
    const { key } = open(options);
    const messages = Array.from({ length: 200 }, (_, i) => Buffer.from(`message ${i}`));
    const signatures = await Promise.all(messages.map((message) => key.sign(message)));
    const publicKey = keyObject(key.publicKey);
    for (const [i, message] of messages.entries()) {
      expect(verify(hashOf(type), message, publicKey, signatures[i]!)).toBe(true);
    }
  },
);

test("close waits for what is being signed", async ({ home }) => {
  const { options } = await make(home, "RSA-2048");
  const token = openToken(options);
  const signatures = Array.from({ length: 8 }, () =>
    token.key.sign(tbs).then(
      () => "signed",
      (error: { code: string }) => error.code,
    ),
  );
  await token.close();
  // Four were in flight; those that waited for a session are told.
  expect(await Promise.all(signatures)).toEqual([
    ...Array.from({ length: 4 }, () => "signed"),
    ...Array.from({ length: 4 }, () => "token-unavailable"),
  ]);
  await expect(token.key.sign(tbs)).rejects.toMatchObject({ code: "token-unavailable" });
});

test("a wrong PIN stops at once and is tried once", async ({ home }) => {
  const { options } = await make(home, "P-256");
  const logins = loginCalls();
  expect(codeOf(() => openToken({ ...options, pin: Buffer.from("not the PIN") }))).toBe(
    "pin-wrong",
  );
  expect(logins).toHaveBeenCalledTimes(1);
  // The token has noticed, and a right PIN still opens it.
  expect(userPinFlags(home)).toBe(pkcs11.CKF_USER_PIN_COUNT_LOW);
  open(options);
  expect(logins).toHaveBeenCalledTimes(2);
});

function userPinFlags(home: TokenHome): number {
  const lib = new pkcs11.PKCS11(home.modulePath);
  lib.C_Initialize({ flags: pkcs11.CKF_OS_LOCKING_OK });
  try {
    const mask =
      pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_USER_PIN_FINAL_TRY | pkcs11.CKF_USER_PIN_LOCKED;
    return lib.C_GetTokenInfo(lib.C_GetSlotList(true)[0]!).flags & mask;
  } finally {
    lib.C_Finalize();
  }
}

test("a PIN that is wrong when the token comes back is tried once, however often signing is asked for", async ({
  home,
}) => {
  const { options } = await make(home, "P-256");
  const original = join(home.directory, "original");
  cpSync(home.tokens, original, { recursive: true });
  withSession(home, "issuing", Buffer.from(options.pin).toString(), (session) =>
    session.setPin(Buffer.from(options.pin).toString(), "another PIN"),
  );
  const changed = join(home.directory, "changed");
  renameSync(home.tokens, changed);
  renameSync(original, home.tokens);

  const clock = { now: 0 };
  const logins = loginCalls();
  const token = open({ ...options, now: () => new Date(clock.now) });
  await token.key.sign(tbs);
  renameSync(home.tokens, original);
  await expect(token.key.sign(tbs)).rejects.toMatchObject({ code: "token-unavailable" });
  renameSync(changed, home.tokens);

  logins.mockClear();
  for (let i = 0; i < 5; i++) {
    clock.now += 10_000;
    await expect(token.key.sign(tbs)).rejects.toMatchObject({ code: "pin-wrong" });
    expect(codeOf(() => token.reopen())).toBe("pin-wrong");
  }
  expect(logins).toHaveBeenCalledTimes(1);
});

test.for([
  { name: "of one EC token", type: "P-256", which: "token" },
  { name: "of one RSA token", type: "RSA-2048", which: "token" },
  { name: "of all tokens", type: "P-256", which: "all" },
] as const)(
  "when the directory $name goes away signing fails, and works again after its return",
  async ({ type, which }, { home }) => {
    const { options } = await make(home, type);
    const clock = { now: 0 };
    const token = open({ ...options, now: () => new Date(clock.now) });
    const publicKey = keyObject(token.key.publicKey);
    const away = join(home.directory, "away");
    const [name] =
      which === "all" ? [""] : execFileSync("ls", [home.tokens], { encoding: "utf8" }).split("\n");
    const place = join(home.tokens, name!);

    for (let round = 0; round < 3; round++) {
      expect(verify("sha256", tbs, publicKey, await token.key.sign(tbs))).toBe(true);
      token.check();
      renameSync(place, away);
      if (round === 1) expect(codeOf(() => token.check())).toBe("token-unavailable"); // unasked
      for (let i = 0; i < 3; i++) {
        const results = await Promise.allSettled(
          Array.from({ length: 6 }, () => token.key.sign(tbs)),
        );
        for (const result of results) {
          expect(result).toMatchObject({
            status: "rejected",
            reason: { code: "token-unavailable" },
          });
        }
        clock.now += 1000;
      }
      renameSync(away, place);
      if (round === 1) token.check();
    }
    expect(verify("sha256", tbs, publicKey, await token.key.sign(tbs))).toBe(true);
  },
);

test("a lost token is looked for at most once a second, and at once on reopen()", async ({
  home,
}) => {
  const { options } = await make(home, "P-256");
  const clock = { now: 50_000 };
  const token = open({ ...options, now: () => new Date(clock.now) });
  const away = join(home.directory, "away");
  renameSync(home.tokens, away);
  await expect(token.key.sign(tbs)).rejects.toMatchObject({ code: "token-unavailable" }); // noticed
  await expect(token.key.sign(tbs)).rejects.toMatchObject({ code: "token-unavailable" }); // looked for
  renameSync(away, home.tokens);
  clock.now += 999;
  await expect(token.key.sign(tbs)).rejects.toMatchObject({ code: "token-unavailable" });
  clock.now += 1;
  await expect(token.key.sign(tbs)).resolves.toBeInstanceOf(Uint8Array);

  renameSync(home.tokens, away);
  await expect(token.key.sign(tbs)).rejects.toMatchObject({ code: "token-unavailable" });
  expect(codeOf(() => token.reopen())).toBe("token-unavailable");
  renameSync(away, home.tokens);
  token.reopen();
  await expect(token.key.sign(tbs)).resolves.toBeInstanceOf(Uint8Array);
});

test("a token that comes back with another key of the same name is refused", async ({ home }) => {
  const { options } = await make(home, "P-256");
  const original = join(home.directory, "original");
  const clock = { now: 0 };
  const pin = Buffer.from(options.pin).toString();
  const byName = {
    ...options,
    uri: "pkcs11:token=issuing;object=ca",
    now: () => new Date(clock.now),
  };
  renameSync(home.tokens, original);
  execFileSync("mkdir", [home.tokens]);
  initToken(home, "issuing", pin);
  withSession(home, "issuing", pin, (session) => generateKey(session, "ca", 2));
  const other = join(home.directory, "other");
  renameSync(home.tokens, other);
  renameSync(original, home.tokens);

  const token = open(byName);
  renameSync(home.tokens, original);
  await expect(token.key.sign(tbs)).rejects.toMatchObject({ code: "token-unavailable" });
  renameSync(other, home.tokens);
  await expect(token.key.sign(tbs)).rejects.toMatchObject({ code: "key-unknown" });
  renameSync(home.tokens, other);
  renameSync(original, home.tokens);
  clock.now += 1000;
  await expect(token.key.sign(tbs)).resolves.toBeInstanceOf(Uint8Array);
});

test("an extractable key is taken where that is asked for, and its attributes tell", async ({
  home,
}) => {
  initToken(home, "t", "user pin");
  withSession(home, "t", "user pin", (session) =>
    generateKey(session, "a", 1, { extractable: true }),
  );
  const pin = Buffer.from("user pin");
  const token = open({
    modulePath: home.modulePath,
    uri: "pkcs11:token=t",
    pin,
    allowExtractable: true,
  });
  expect(token.key.attributes).toMatchObject({ extractable: true, neverExtractable: false });
});

test("SoftHSM without SOFTHSM2_CONF is refused: it would open the tokens of the system", ({
  home,
}) => {
  delete process.env.SOFTHSM2_CONF;
  const options = {
    modulePath: home.modulePath,
    uri: "pkcs11:token=t",
    pin: Buffer.from("user pin"),
  };
  expect(codeOf(() => openToken(options))).toBe("config-invalid");
});

test("a module that cannot be loaded is refused without its path", ({ home }) => {
  const options = {
    modulePath: join(home.directory, "no-module.so"),
    uri: "pkcs11:",
    pin: Buffer.from("1"),
  };
  expect(() => openToken(options)).toThrow(
    expect.objectContaining({
      code: "config-invalid",
      message: "The PKCS#11 module cannot be loaded.",
    }),
  );
});

test("a second token in the same process is refused, and the first goes on", async ({ home }) => {
  const { options } = await make(home, "P-256");
  const { key } = open(options);
  expect(() => openToken(options)).toThrow("another token is open in this process");
  await expect(key.sign(tbs)).resolves.toBeInstanceOf(Uint8Array);
});

test("the PIN is in no error", async ({ home }) => {
  const { options } = await make(home, "P-256");
  let error: unknown;
  try {
    openToken({ ...options, pin: Buffer.from("hunter2hunter2") });
  } catch (thrown) {
    error = thrown;
  }
  expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain("hunter2");
});
