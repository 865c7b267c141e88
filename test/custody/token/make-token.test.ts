import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { makeToken } from "../../../src/custody/token/make-token.ts";
import {
  type MakeTokenOptions,
  spawnMakeToken,
} from "../../../src/custody/token/spawn-make-token.ts";
import { readPin } from "../../../src/custody/token/pin-file.ts";
import { parsePkcs11Uri } from "../../../src/custody/token/pkcs11-uri.ts";
import { openToken } from "../../../src/custody/token/token.ts";
import { initToken, test, type TokenHome } from "../../support/softhsm.ts";

function optionsFor(home: TokenHome): MakeTokenOptions {
  return {
    modulePath: home.modulePath,
    label: "issuing",
    object: "ca",
    key: "P-256",
    pinFile: join(home.directory, "issuing.pin"),
  };
}

interface Seen {
  readonly arguments: string;
  readonly environment: string;
}

/** What anybody on this machine can see of our children while `running` runs. */
async function watchChildren<T>(running: Promise<T>): Promise<{ result: T; seen: Seen[] }> {
  const seen: Seen[] = [];
  let over = false;
  const watch = async (): Promise<void> => {
    while (!over) {
      const children = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8");
      for (const pid of children.split(" ").filter((text) => text !== "")) {
        try {
          seen.push({
            arguments: readFileSync(`/proc/${pid}/cmdline`, "utf8"),
            environment: readFileSync(`/proc/${pid}/environ`, "utf8"),
          });
        } catch {
          // It has just ended.
        }
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const watching = watch();
  try {
    return { result: await running, seen };
  } finally {
    over = true;
    await watching;
  }
}

test("CUSTODY 3.5: a process makes a token whose key opens with the PIN in the file and signs", async ({
  home,
}) => {
  const options = optionsFor(home);
  const made = await spawnMakeToken(options, { SOFTHSM2_CONF: home.conf });
  expect(made.type).toBe("P-256");
  expect(parsePkcs11Uri(made.uri)).toEqual({
    token: "issuing",
    serial: made.tokenInfo.serialNumber,
    object: "ca",
    id: expect.objectContaining({ length: 16 }),
  });
  expect((statSync(options.pinFile).mode & 0o7777).toString(8)).toBe("600");
  const pin = readPin(options.pinFile);
  expect(Buffer.from(pin).toString()).toMatch(/^[A-Za-z0-9]{24}$/);

  const token = openToken({ modulePath: home.modulePath, uri: made.uri, pin });
  onTestFinished(() => token.close());
  expect(Buffer.from(token.key.publicKey)).toEqual(Buffer.from(made.publicKey));
  await expect(token.key.sign(Buffer.from("3000", "hex"))).resolves.toBeInstanceOf(Uint8Array);
});

test("ST-56, ST-57: the process gets only the environment named; no PIN is in it or in the arguments", async ({
  home,
}) => {
  process.env.NODE_OPTIONS = "--no-deprecation";
  onTestFinished(() => {
    delete process.env.NODE_OPTIONS;
  });
  const options = { ...optionsFor(home), key: "RSA-2048" } as const;
  const { result, seen } = await watchChildren(
    spawnMakeToken(options, { SOFTHSM2_CONF: home.conf }),
  );
  const pin = Buffer.from(readPin(options.pinFile)).toString();
  // Until its exec a child is still a copy of this process.
  const makers = seen.filter((one) => one.arguments.includes("make-token-main.js"));
  expect(makers.length).toBeGreaterThan(0);
  for (const one of makers) {
    expect(one.environment).toBe(`SOFTHSM2_CONF=${home.conf}\0`);
    expect(one.arguments).not.toContain(pin);
    expect(one.arguments).toMatch(/--(experimental-)?permission\0/); // ST-53
  }
  expect(JSON.stringify(result)).not.toContain(pin);
});

test("two tokens have different PINs, and each has its own file", async ({ home }) => {
  const second = { ...optionsFor(home), label: "root", pinFile: join(home.directory, "root.pin") };
  await makeToken(optionsFor(home));
  await makeToken(second);
  expect(readFileSync(second.pinFile, "utf8")).not.toBe(
    readFileSync(optionsFor(home).pinFile, "utf8"),
  );
});

test("a label may fill all 32 octets, and need not be ASCII", async ({ home }) => {
  const label = "Ä".repeat(16);
  const made = await makeToken({ ...optionsFor(home), label });
  expect(made.tokenInfo.label).toBe(label);
});

test.for([
  { name: "the PIN file is there", want: "config-invalid", options: {}, pinFile: "old" },
  {
    name: "the PIN file's directory is missing",
    want: "config-invalid",
    options: { pinFile: "/nonexistent/pin" },
  },
  { name: "the label is empty", want: "config-invalid", options: { label: "" } },
  {
    name: "the label has 33 octets",
    want: "config-invalid",
    options: { label: "ä".repeat(16) + "b" },
  },
  {
    name: "the module is missing",
    want: "config-invalid",
    options: { modulePath: "/nonexistent.so" },
  },
])("nothing is made when $name", async ({ want, options, pinFile }, { home }) => {
  const all = { ...optionsFor(home), ...options };
  if (pinFile !== undefined) writeFileSync(all.pinFile, pinFile);
  await expect(spawnMakeToken(all, { SOFTHSM2_CONF: home.conf })).rejects.toMatchObject({
    code: want,
  });
  expect(readdirSync(home.tokens)).toEqual([]);
  if (pinFile === undefined) expect(existsSync(all.pinFile)).toBe(false);
  else expect(readFileSync(all.pinFile, "utf8")).toBe(pinFile); // not overwritten
});

test("a label that another token has is refused, and that token is not touched", async ({
  home,
}) => {
  initToken(home, "issuing", "user pin");
  const before = readdirSync(home.tokens);
  await expect(makeToken(optionsFor(home))).rejects.toMatchObject({ code: "key-ambiguous" });
  expect(readdirSync(home.tokens)).toEqual(before);
  expect(existsSync(optionsFor(home).pinFile)).toBe(false);
});

test("a token without the mechanism is refused before anything is made", async ({ home }) => {
  writeFileSync(
    home.conf,
    `directories.tokendir = ${home.tokens}\nslots.mechanisms = CKM_RSA_PKCS,CKM_RSA_PKCS_KEY_PAIR_GEN\n`,
  );
  await expect(makeToken(optionsFor(home))).rejects.toMatchObject({
    code: "key-refused",
  });
  expect(readdirSync(home.tokens)).toEqual([]);
});

test("without SOFTHSM2_CONF nothing is made", async ({ home }) => {
  await expect(spawnMakeToken(optionsFor(home))).rejects.toMatchObject({ code: "config-invalid" });
  expect(existsSync(optionsFor(home).pinFile)).toBe(false);
});

test("what fails after the PIN was written takes the PIN file away", async ({ home }) => {
  const { pinFile } = optionsFor(home);
  const failing = (size: number): Uint8Array => {
    if (existsSync(pinFile)) throw new Error("no more randomness");
    return randomBytes(size);
  };
  await expect(makeToken(optionsFor(home), failing)).rejects.toThrow("no more randomness");
  expect(existsSync(pinFile)).toBe(false);
});

test.for(["with blank", "with,comma", "with*asterisk"])(
  "the PIN file may lie in a directory %s, and nothing else is written there",
  async (name, { home }) => {
    const directory = join(home.directory, name);
    mkdirSync(directory);
    const options = { ...optionsFor(home), pinFile: join(directory, "issuing.pin") };
    await spawnMakeToken(options, { SOFTHSM2_CONF: home.conf });
    expect(readdirSync(directory)).toEqual(["issuing.pin"]);
  },
);
