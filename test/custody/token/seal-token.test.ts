import { execFileSync, spawn } from "node:child_process";
import { createPublicKey, generateKeyPairSync, verify } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { Module, ObjectClass, type Session } from "graphene-pk11";
import pkcs11, { type PKCS11 } from "pkcs11js";
import { describe, expect, onTestFinished, vi } from "vitest";
import { appRoot } from "../../../src/custody/process-flags.ts";
import { makeToken } from "../../../src/custody/token/make-token.ts";
import { readPin } from "../../../src/custody/token/pin-file.ts";
import { parsePkcs11Uri } from "../../../src/custody/token/pkcs11-uri.ts";
import {
  makeSealedToken,
  SealUnproved,
  sealTokenInUse,
  type TokenSeal,
} from "../../../src/custody/token/seal-token.ts";
import {
  type MadeKeyType,
  type NewTokenOptions,
} from "../../../src/custody/token/spawn-make-token.ts";
import { openToken } from "../../../src/custody/token/token.ts";
import { scanFiles } from "../../support/disk-scan.ts";
import {
  generateKey,
  initToken,
  test,
  type TokenHome,
  withSession,
} from "../../support/softhsm.ts";
import { crashSteps } from "./crashing-seal.ts";

const crashingSeal = join(appRoot, "dist", "test", "custody", "token", "crashing-seal.js");
const tbs = Buffer.from("3003020101", "hex");

function optionsFor(home: TokenHome): NewTokenOptions {
  return { modulePath: home.modulePath, label: "root", object: "ca", key: "P-256" };
}

interface InUse {
  readonly modulePath: string;
  readonly uri: string;
  readonly pin: Buffer;
  readonly pinFile: string;
}

/** A token whose PIN lies in a file, as every token's in use does. */
async function tokenInUse(home: TokenHome, key: MadeKeyType = "P-256"): Promise<InUse> {
  const pinFile = join(home.directory, "root.pin");
  const { uri } = await makeToken({ ...optionsFor(home), key, pinFile });
  return { modulePath: home.modulePath, uri, pin: Buffer.from(readPin(pinFile)), pinFile };
}

async function signs(options: { modulePath: string; uri: string; pin: Uint8Array }): Promise<true> {
  const token = openToken(options);
  try {
    const key = createPublicKey({
      key: Buffer.from(token.key.publicKey),
      format: "der",
      type: "spki",
    });
    const hash = token.key.type === "Ed25519" ? null : "sha256";
    expect(verify(hash, tbs, key, await token.key.sign(tbs))).toBe(true);
    return true;
  } finally {
    await token.close();
  }
}

/** Whether a PIN opens the only token there, by PKCS#11 itself. */
function login(lib: PKCS11, user: number, pin: string): string {
  const slot = lib
    .C_GetSlotList(true)
    .find((one) => (lib.C_GetTokenInfo(one).flags & pkcs11.CKF_TOKEN_INITIALIZED) !== 0)!;
  const session = lib.C_OpenSession(slot, pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION);
  try {
    lib.C_Login(session, user, pin);
    lib.C_Logout(session);
    return "CKR_OK";
  } catch (error) {
    return /CKR_[A-Z_]+/.exec((error as Error).message)![0];
  } finally {
    lib.C_CloseSession(session);
  }
}

function withModule<T>(home: TokenHome, use: (lib: PKCS11) => T): T {
  const { lib } = Module.load(home.modulePath);
  lib.C_Initialize({ flags: pkcs11.CKF_OS_LOCKING_OK });
  try {
    return use(lib);
  } finally {
    lib.C_Finalize();
  }
}

const native = Object.getPrototypeOf(pkcs11.PKCS11.prototype) as PKCS11;

/** Puts something between us and one function of the token, until the test ends; the token stays a real one. */
function replace<K extends "C_GetTokenInfo" | "C_InitToken" | "C_Login" | "C_SetPIN">(
  name: K,
  instead: (original: PKCS11[K], ...parameters: Parameters<PKCS11[K]>) => ReturnType<PKCS11[K]>,
): void {
  const original = native[name] as (...parameters: unknown[]) => unknown;
  const replaced = function (this: PKCS11, ...parameters: Parameters<PKCS11[K]>) {
    return instead(original.bind(this) as PKCS11[K], ...parameters);
  };
  vi.spyOn(native, name as "C_SetPIN").mockImplementation(replaced as PKCS11["C_SetPIN"]);
  onTestFinished(() => void vi.restoreAllMocks());
}

/** Everything that somebody who has the whole folder might try. */
function candidatesIn(folder: string): Set<string> {
  const candidates = new Set(["1234", "12345678", "0000", "123456", "root", "ca", "countersign"]);
  for (const file of scanFiles(folder, {}).files) {
    candidates.add(file);
    const content = readFileSync(join(folder, file));
    candidates.add(content.toString("utf8"));
    for (const line of content.toString("utf8").split(/\r?\n/))
      candidates.add(line).add(line.trim());
    for (const [run] of content.toString("latin1").matchAll(/[\x20-\x7e]{4,}/g))
      candidates.add(run);
    // Attributes of a token's files: any run of octets that SoftHSM keeps may be one, in hex.
    for (const [run] of content.toString("hex").matchAll(/(?:(?!00)..){8,64}/g))
      candidates.add(run);
  }
  return new Set([...candidates].filter((pin) => Buffer.byteLength(pin) <= 255 && pin !== ""));
}

/** Which of the candidates open the token, as user or as SO. */
function openingPins(home: TokenHome, candidates: Iterable<string>): string[] {
  return withModule(home, (lib) =>
    [...candidates].flatMap((pin) =>
      [pkcs11.CKU_USER, pkcs11.CKU_SO].flatMap((user) =>
        login(lib, user, pin) === "CKR_OK"
          ? [`${user === pkcs11.CKU_SO ? "SO" : "user"}: ${pin}`]
          : [],
      ),
    ),
  );
}

/** Whether softhsm2-util, which knows nothing of ours, is let in. Puts a key of its own in the token if it is. */
function utilityIsLetIn(home: TokenHome, pin: string): boolean {
  const file = join(home.directory, "another.pem");
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  writeFileSync(file, privateKey.export({ format: "pem", type: "pkcs8" }));
  try {
    execFileSync(
      "softhsm2-util",
      ["--import", file, "--token", "root", "--label", "x", "--id", "ff", "--pin", pin],
      { env: { ...process.env, SOFTHSM2_CONF: home.conf }, stdio: "ignore" },
    );
    return true;
  } catch {
    return false;
  } finally {
    rmSync(file);
  }
}

describe("a new token", () => {
  test("CUSTODY 3.5: its key is made in it, never leaves it, and opens with the sealed PIN alone", async ({
    home,
  }) => {
    const seal = await makeSealedToken(optionsFor(home));
    expect(seal.attributes).toEqual({
      sensitive: true,
      alwaysSensitive: true,
      extractable: false,
      neverExtractable: true,
      local: true,
    });
    expect(parsePkcs11Uri(seal.uri)).toEqual({
      token: "root",
      serial: seal.tokenInfo.serialNumber,
      object: "ca",
      id: expect.objectContaining({ length: 16 }),
    });
    await seal.commit();
    expect(seal.secret.toString()).toMatch(/^[A-Za-z0-9]{24}$/);
    const { modulePath } = home;
    expect(await signs({ modulePath, uri: seal.uri, pin: seal.secret })).toBe(true);
    expect(openingPins(home, candidatesIn(home.directory))).toEqual([]);
    expect(openingPins(home, [seal.secret.toString()])).toEqual([
      `user: ${seal.secret.toString()}`,
    ]);
    expect(scanFiles(home.directory, { pin: seal.secret }).findings).toEqual([]);
    expect(utilityIsLetIn(home, "12345678")).toBe(false);
    expect(utilityIsLetIn(home, seal.secret.toString())).toBe(true);
  });

  test("every token has PINs of its own: user and SO PIN differ, and from those of the next", async ({
    home,
  }) => {
    const soPins: string[] = [];
    replace("C_InitToken", (original, slot, pin, label) => {
      soPins.push(pin!);
      return original(slot, pin, label);
    });
    const one = await makeSealedToken(optionsFor(home));
    const other = await makeSealedToken({ ...optionsFor(home), label: "issuing" });
    const pins = [one, other].map(({ secret }) => secret.toString());
    expect(soPins).toHaveLength(2);
    expect(new Set([...pins, ...soPins]).size).toBe(4);
    for (const pin of soPins) expect(pin).toMatch(/^[A-Za-z0-9]{24}$/);
    const needles = Object.fromEntries([...pins, ...soPins].map((pin) => [pin, Buffer.from(pin)]));
    expect(scanFiles(home.directory, needles).findings).toEqual([]);
  });

  test.for(["P-384", "RSA-2048", "Ed25519"] as const)(
    "it may hold a %s key",
    async (key, { home }) => {
      const seal = await makeSealedToken({ ...optionsFor(home), key });
      const { modulePath } = home;
      const token = openToken({ modulePath, uri: seal.uri, pin: seal.secret });
      onTestFinished(() => token.close());
      expect(token.key.type).toBe(key);
      expect(Buffer.from(token.key.publicKey)).toEqual(Buffer.from(seal.publicKey));
    },
  );

  test.for([
    { min: 4, max: 255, want: 24 },
    { min: 4, max: 16, want: 16 },
    { min: 32, max: 64, want: 32 },
    { min: 1, max: 8, want: 8 },
    { min: 4, max: 7, want: "config-invalid" },
  ])("the PINs keep to the token's limits: $min to $max", async ({ min, max, want }, { home }) => {
    replace("C_GetTokenInfo", (original, slot) => ({
      ...original(slot),
      minPinLen: min,
      maxPinLen: max,
    }));
    const lengths = await makeSealedToken(optionsFor(home)).then(
      ({ secret }) => secret.length,
      (error: { code: unknown }) => error.code,
    );
    expect(lengths).toBe(want);
    if (typeof want === "string") expect(readdirSync(home.tokens)).toEqual([]);
  });

  test.for([
    { name: "the label is taken", label: "taken", modulePath: undefined, want: "key-ambiguous" },
    { name: "the label is empty", label: "", modulePath: undefined, want: "config-invalid" },
    {
      name: "the module is missing",
      label: "root",
      modulePath: "/nonexistent.so",
      want: "config-invalid",
    },
  ])("nothing is made when $name", async ({ want, label, modulePath }, { home }) => {
    initToken(home, "taken", "user pin");
    const before = readdirSync(home.tokens);
    const options = { ...optionsFor(home), label, ...(modulePath && { modulePath }) };
    await expect(makeSealedToken(options)).rejects.toMatchObject({ code: want });
    expect(readdirSync(home.tokens)).toEqual(before);
  });
});

describe("a token in use", () => {
  test("CUSTODY 3.5: a sealed PIN really is the only way in", async ({ home }) => {
    const inUse = await tokenInUse(home);
    const seal = await sealTokenInUse(inUse);
    const candidates = (): Set<string> => candidatesIn(home.directory).add(inUse.pin.toString());

    // Up to here nothing has changed: the PIN in the file opens the token, and the new one does not.
    expect(openingPins(home, candidates())).toEqual([`user: ${inUse.pin.toString()}`]);
    expect(openingPins(home, [seal.secret.toString()])).toEqual([]);

    await seal.commit();
    expect(openingPins(home, candidates())).toEqual([]);
    expect(openingPins(home, [seal.secret.toString()])).toEqual([
      `user: ${seal.secret.toString()}`,
    ]);
    expect(await signs({ ...inUse, pin: seal.secret })).toBe(true);
    expect(scanFiles(home.directory, { pin: seal.secret }).findings).toEqual([]);
    expect(utilityIsLetIn(home, inUse.pin.toString())).toBe(false);
    expect(utilityIsLetIn(home, seal.secret.toString())).toBe(true);
  });

  test.for(["RSA-2048", "Ed25519"] as const)(
    "a %s key is sealed as well",
    async (key, { home }) => {
      const inUse = await tokenInUse(home, key);
      const seal = await sealTokenInUse(inUse);
      await seal.commit();
      expect(await signs({ ...inUse, pin: seal.secret })).toBe(true);
      expect(() => openToken(inUse)).toThrow("CKR_PIN_INCORRECT");
    },
  );

  test("the PIN before is tried once, the new one opens the token right after it", async ({
    home,
  }) => {
    const inUse = await tokenInUse(home);
    const seal = await sealTokenInUse(inUse);
    const calls: string[] = [];
    const nameOf = (pin: unknown): string => (pin === inUse.pin.toString() ? "before" : "new");
    replace("C_Login", (original, session, user, pin) => {
      calls.push(`C_Login ${nameOf(pin)}`);
      original(session, user, pin);
    });
    replace("C_SetPIN", (original, session, before, next) => {
      calls.push(`C_SetPIN ${nameOf(before)} ${nameOf(next)}`);
      original(session, before, next);
    });
    const secret = Buffer.from(seal.secret);
    seal.secret.fill(0); // it is sealed by now
    await seal.commit();
    expect(calls.slice(-3)).toEqual(["C_SetPIN before new", "C_Login before", "C_Login new"]);
    expect(withModule(home, (lib) => login(lib, pkcs11.CKU_USER, secret.toString()))).toBe(
      "CKR_OK",
    );
    expect(userPinFlags(home)).toBe(0); // the wrong try is forgotten
  });

  test("what is abandoned, or never committed, leaves the PIN before", async ({ home }) => {
    const inUse = await tokenInUse(home);
    const seal = await sealTokenInUse(inUse);
    seal.abandon();
    await expect(seal.commit()).rejects.toThrow("committed or abandoned");
    await sealTokenInUse(inUse);
    expect(openingPins(home, [seal.secret.toString(), inUse.pin.toString()])).toEqual([
      `user: ${inUse.pin.toString()}`,
    ]);
    expect(inUse.pin.toString()).toMatch(/^[A-Za-z0-9]{24}$/); // the caller's own is not wiped
  });

  test("it is committed once", async ({ home }) => {
    const inUse = await tokenInUse(home);
    const seal = await sealTokenInUse(inUse);
    await seal.commit();
    await expect(seal.commit()).rejects.toThrow("committed or abandoned");
    expect(await signs({ ...inUse, pin: seal.secret })).toBe(true);
  });

  test.for([
    {
      name: "another private key",
      add: (home: TokenHome, pin: string) => addKey(home, pin, 9),
      count: 2,
    },
    {
      name: "two other private keys, one without a name",
      add: (home: TokenHome, pin: string) => {
        addKey(home, pin, 9);
        addKey(home, pin, undefined);
      },
      count: 3,
    },
    {
      name: "a secret key",
      add: (home: TokenHome, pin: string) =>
        withSession(home, "root", pin, (session) =>
          session.generateKey(pkcs11.CKM_AES_KEY_GEN, { token: true, valueLen: 32, private: true }),
        ),
      count: 2,
    },
  ])("a token with $name is refused: one PIN opens them all", async ({ add, count }, { home }) => {
    const inUse = await tokenInUse(home);
    const early = await sealTokenInUse(inUse);
    add(home, inUse.pin.toString());
    const refusal = { code: "ceremony-refused", message: expect.stringContaining(`${count} keys`) };
    await expect(sealTokenInUse(inUse)).rejects.toMatchObject(refusal);
    // Also if it came after the PIN was sealed.
    await expect(early.commit()).rejects.toMatchObject(refusal);
    expect(await signs(inUse)).toBe(true);
  });

  test("a key that can be used without a PIN is not sealed", async ({ home }) => {
    initToken(home, "root", "user pin");
    withSession(home, "root", "user pin", importPublicly);
    const inUse = {
      modulePath: home.modulePath,
      uri: "pkcs11:token=root",
      pin: Buffer.from("user pin"),
    };
    await expect(sealTokenInUse(inUse)).rejects.toMatchObject({
      code: "ceremony-refused",
      message: expect.stringContaining("without its PIN"),
    });
    expect(await signs(inUse)).toBe(true);
  });

  test.for([
    { name: "the PIN is wrong", change: { pin: Buffer.from("wrong pin") }, want: "pin-wrong" },
    {
      name: "there is no such key",
      change: { uri: "pkcs11:token=root;object=x" },
      want: "key-unknown",
    },
    {
      name: "there is no such token",
      change: { uri: "pkcs11:token=x" },
      want: "token-unavailable",
    },
    { name: "the URI is none", change: { uri: "root" }, want: "config-invalid" },
  ])("nothing is changed when $name", async ({ change, want }, { home }) => {
    const inUse = await tokenInUse(home);
    await expect(sealTokenInUse({ ...inUse, ...change })).rejects.toMatchObject({ code: want });
    expect(await signs(inUse)).toBe(true);
  });

  test("a key that could leave the token is not sealed", async ({ home }) => {
    initToken(home, "root", "user pin");
    withSession(home, "root", "user pin", (session) =>
      generateKey(session, "ca", 1, { extractable: true }),
    );
    const inUse = {
      modulePath: home.modulePath,
      uri: "pkcs11:token=root",
      pin: Buffer.from("user pin"),
    };
    await expect(sealTokenInUse(inUse)).rejects.toMatchObject({ code: "key-refused" });
  });
});

describe("a process that has the token open while its PIN is changed", () => {
  async function sealElsewhere({ modulePath, uri, pinFile }: InUse): Promise<Buffer> {
    const child = spawn(process.execPath, [crashingSeal, modulePath, uri, pinFile, "never"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    return Buffer.from((await text(child.stdout)).replace(/ .*/, ""));
  }

  test.for(["P-256", "RSA-2048"] as const)(
    "its %s key goes on signing in SoftHSM; opened anew, the token refuses the PIN, and that is tried once",
    async (key, { home }) => {
      const inUse = await tokenInUse(home, key);
      let logins = 0;
      replace("C_Login", (original, ...parameters) => {
        logins++;
        original(...parameters);
      });
      const clock = { now: 0 };
      const token = openToken({ ...inUse, now: () => new Date(clock.now) });
      onTestFinished(() => token.close());
      const secret = await sealElsewhere(inUse);
      token.check();
      const signed = await Promise.all(Array.from({ length: 8 }, () => token.key.sign(tbs)));
      expect(signed.every((signature) => signature.length > 0)).toBe(true);

      const away = join(home.directory, "away");
      renameSync(home.tokens, away);
      await expect(token.key.sign(tbs)).rejects.toMatchObject({ code: "token-unavailable" });
      renameSync(away, home.tokens);
      logins = 0;
      for (let i = 0; i < 3; i++) {
        clock.now += 10_000;
        // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
        await expect(token.key.sign(tbs)).rejects.toMatchObject({ code: "pin-wrong" });
      }
      expect(logins).toBe(1);
      await token.close();
      expect(await signs({ ...inUse, pin: secret })).toBe(true);
    },
  );

  test("SoftHSM takes the PIN before from it until its C_Finalize: it must be ended", async ({
    home,
  }) => {
    const inUse = await tokenInUse(home);
    const pin = inUse.pin.toString();
    const { lib } = Module.load(home.modulePath);
    lib.C_Initialize({ flags: pkcs11.CKF_OS_LOCKING_OK });
    expect(login(lib, pkcs11.CKU_USER, pin)).toBe("CKR_OK");
    const secret = await sealElsewhere(inUse);
    expect(login(lib, pkcs11.CKU_USER, pin)).toBe("CKR_OK");
    lib.C_Finalize();
    expect(openingPins(home, [pin, secret.toString()])).toEqual([`user: ${secret.toString()}`]);
  });
});

describe("what may go wrong in the change", () => {
  async function outcome(
    home: TokenHome,
    seal: TokenSeal,
    inUse: InUse,
  ): Promise<{ error: Error & { code?: string }; opens: string[] }> {
    const error = await seal.commit().then(
      () => expect.unreachable(),
      (thrown: Error) => thrown,
    );
    vi.restoreAllMocks();
    const names = new Map([
      [inUse.pin.toString(), "before"],
      [seal.secret.toString(), "new"],
    ]);
    const opens = openingPins(home, names.keys()).map((pin) => names.get(pin.slice(6))!);
    return { error, opens };
  }

  test("a token that refuses the new PIN keeps the one before, and the error says so", async ({
    home,
  }) => {
    const inUse = await tokenInUse(home);
    const seal = await sealTokenInUse(inUse);
    replace("C_SetPIN", (original, session, before) => original(session, before, "x"));
    const { error, opens } = await outcome(home, seal, inUse);
    expect(error).toMatchObject({
      code: "token-unavailable",
      message: expect.stringMatching(/CKR_PIN_LEN_RANGE.*the one before it is valid/),
    });
    expect(opens).toEqual(["before"]);
  });

  test("a token that changes its PIN and reports an error has changed it", async ({ home }) => {
    const inUse = await tokenInUse(home);
    const seal = await sealTokenInUse(inUse);
    replace("C_SetPIN", (original, session, before, next) => {
      original(session, before, next);
      throw new Error("CKR_DEVICE_ERROR");
    });
    await seal.commit();
    expect(await signs({ ...inUse, pin: seal.secret })).toBe(true);
  });

  test.for([
    { name: "does not change it", change: () => {}, opens: ["before"] },
    {
      name: "changes it to another",
      change: (original: PKCS11["C_SetPIN"], session: Buffer, before: string) =>
        original(session, before, "quite another"),
      opens: [],
    },
  ])(
    "a token that says it changed its PIN and $name is found out",
    async ({ change, opens }, { home }) => {
      const inUse = await tokenInUse(home);
      const seal = await sealTokenInUse(inUse);
      replace("C_SetPIN", change);
      const result = await outcome(home, seal, inUse);
      expect(result.error).toBeInstanceOf(SealUnproved);
      expect(result.opens).toEqual(opens);
    },
  );

  test("a token that goes away in the change leaves it open which PIN is valid", async ({
    home,
  }) => {
    const inUse = await tokenInUse(home);
    const seal = await sealTokenInUse(inUse);
    const away = join(home.directory, "away");
    replace("C_SetPIN", (original, session, before, next) => {
      original(session, before, next);
      renameSync(home.tokens, away);
      mkdirSync(home.tokens);
    });
    const error = await seal.commit().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(SealUnproved);
  });

  test("a token that does not answer the PIN before has not refused it", async ({ home }) => {
    const inUse = await tokenInUse(home);
    const seal = await sealTokenInUse(inUse);
    let changed = false;
    replace("C_SetPIN", (original, ...parameters) => {
      original(...parameters);
      changed = true;
    });
    replace("C_Login", (original, session, user, pin) => {
      if (changed && pin === inUse.pin.toString()) throw new Error("CKR_DEVICE_ERROR");
      original(session, user, pin);
    });
    await expect(seal.commit()).rejects.toBeInstanceOf(SealUnproved);
  });

  test("another token that comes in between is not taken for it", async ({ home }) => {
    const inUse = await tokenInUse(home);
    const seal = await sealTokenInUse({ ...inUse, uri: "pkcs11:object=ca" });
    initToken(home, "another", inUse.pin.toString());
    await seal.commit();
    expect(await signs({ ...inUse, pin: seal.secret })).toBe(true);
  });

  test("a token that is away before the change keeps its PIN", async ({ home }) => {
    const inUse = await tokenInUse(home);
    const seal = await sealTokenInUse(inUse);
    const away = join(home.directory, "away");
    renameSync(home.tokens, away);
    mkdirSync(home.tokens);
    await expect(seal.commit()).rejects.toMatchObject({
      code: "token-unavailable",
      message: expect.stringContaining("The PIN was not changed"),
    });
    rmSync(home.tokens, { recursive: true });
    renameSync(away, home.tokens);
    expect(await signs(inUse)).toBe(true);
  });

  test("a PIN that somebody changed in between is not changed again", async ({ home }) => {
    const inUse = await tokenInUse(home);
    const seal = await sealTokenInUse(inUse);
    withSession(home, "root", inUse.pin.toString(), (session) =>
      session.setPin(inUse.pin.toString(), "in between"),
    );
    await expect(seal.commit()).rejects.toMatchObject({ code: "pin-wrong" });
    expect(await signs({ ...inUse, pin: Buffer.from("in between") })).toBe(true);
  });

  test("another key in its place is not opened instead", async ({ home }) => {
    const pinFile = join(home.directory, "root.pin");
    await makeToken({ ...optionsFor(home), pinFile });
    const inUse = {
      modulePath: home.modulePath,
      uri: "pkcs11:",
      pin: Buffer.from(readPin(pinFile)),
    };
    const seal = await sealTokenInUse(inUse);
    withSession(home, "root", inUse.pin.toString(), (session) => {
      session.destroy({ label: "ca" });
      generateKey(session, "ca", 1);
    });
    await expect(seal.commit()).rejects.toMatchObject({ code: "key-unknown" });
    expect(await signs(inUse)).toBe(true);
  });

  test.for(crashSteps)(
    "ST-62: killed $step, the PIN $pin opens the token",
    async ({ step, pin }, { home }) => {
      const inUse = await tokenInUse(home);
      const child = spawn(
        process.execPath,
        [crashingSeal, home.modulePath, inUse.uri, inUse.pinFile, step],
        {
          stdio: ["ignore", "pipe", "inherit"],
        },
      );
      const exit = new Promise((resolve) => child.once("exit", (_, signal) => resolve(signal)));
      const secret = await text(child.stdout);
      expect(await exit).toBe("SIGKILL");
      expect(secret).toMatch(/^[A-Za-z0-9]{24}$/);
      const valid = pin === "new" ? Buffer.from(secret) : inUse.pin;
      expect(await signs({ ...inUse, pin: valid })).toBe(true);
      expect(openingPins(home, [secret, inUse.pin.toString()])).toEqual([
        `user: ${valid.toString()}`,
      ]);
      // What the crash left can be sealed anew.
      const again = await sealTokenInUse({ ...inUse, pin: valid });
      await again.commit();
      expect(await signs({ ...inUse, pin: again.secret })).toBe(true);
    },
  );
});

/** Imports a key that SoftHSM lets anybody sign with, not CKA_PRIVATE; those that it makes are. */
function importPublicly(session: Session): void {
  const { d, x, y } = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({
    format: "jwk",
  });
  const octets = (text: string | undefined): Buffer => Buffer.from(text!, "base64url");
  const both = {
    keyType: pkcs11.CKK_EC,
    token: true,
    private: false,
    label: "ca",
    id: Buffer.from([1]),
    paramsECDSA: Buffer.from("06082a8648ce3d030107", "hex"),
  };
  const secret = { sensitive: true, extractable: false, sign: true, value: octets(d) };
  session.create({ ...both, ...secret, class: ObjectClass.PRIVATE_KEY });
  const point = Buffer.concat([Buffer.from("044104", "hex"), octets(x), octets(y)]);
  session.create({ ...both, class: ObjectClass.PUBLIC_KEY, pointEC: point });
}

function addKey(home: TokenHome, pin: string, id: number | undefined): void {
  withSession(home, "root", pin, (session) => generateKey(session, "other", id));
}

function userPinFlags(home: TokenHome): number {
  return withModule(home, (lib) => {
    const mask =
      pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_USER_PIN_FINAL_TRY | pkcs11.CKF_USER_PIN_LOCKED;
    return lib.C_GetTokenInfo(lib.C_GetSlotList(true)[0]!).flags & mask;
  });
}
