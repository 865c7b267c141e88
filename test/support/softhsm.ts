/** Fresh SoftHSM tokens for tests. Real ones: needs Vitest's default pool, a process per file. */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Module, type Session, SessionFlag } from "graphene-pk11";
import pkcs11 from "pkcs11js";
import { test as base } from "vitest";
import { softHsmModule } from "../../src/custody/token/softhsm.ts";

export interface TokenHome {
  /** Removed by {@link TokenHome.remove}, with all in it. */
  readonly directory: string;
  /** Where SoftHSM keeps the tokens, a directory each. */
  readonly tokens: string;
  /** The value of SOFTHSM2_CONF. */
  readonly conf: string;
  readonly modulePath: string;
  remove(): void;
}

/** A new place for tokens, empty. Sets no environment: SOFTHSM2_CONF is for whoever loads the module. */
export function newTokenHome(): TokenHome {
  const modulePath = process.env.PKCS11_LIBRARY ?? softHsmModule();
  if (modulePath === undefined) throw new Error("SoftHSM is missing: run softhsm/install.sh");
  const directory = mkdtempSync(join(tmpdir(), "countersign-token-"));
  const tokens = join(directory, "tokens");
  const conf = join(directory, "softhsm2.conf");
  mkdirSync(tokens, { mode: 0o700 });
  writeFileSync(conf, `directories.tokendir = ${tokens}\nlog.level = ERROR\n`);
  const remove = (): void => rmSync(directory, { recursive: true, force: true });
  return { directory, tokens, conf, modulePath, remove };
}

/** Initialises a token without a key, by SoftHSM's own tool. */
export function initToken(home: TokenHome, label: string, pin: string): void {
  const token = ["--free", "--label", label, "--so-pin", "12345678", "--pin", pin];
  execFileSync("softhsm2-util", ["--init-token", ...token], {
    env: { ...process.env, SOFTHSM2_CONF: home.conf },
    stdio: ["ignore", "ignore", "inherit"],
  });
}

/**
 * Runs `use` with a session of its own, logged in, while no other part of this process has the module open;
 * SOFTHSM2_CONF is set as the `home` fixture does.
 */
export function withSession<T>(
  home: TokenHome,
  label: string,
  pin: string,
  use: (session: Session) => T,
): T {
  const module = Module.load(home.modulePath);
  module.lib.C_Initialize({ flags: pkcs11.CKF_OS_LOCKING_OK });
  try {
    const slots = module.getSlots(true);
    for (let index = 0; index < slots.length; index++) {
      if (slots.items(index).getToken().label !== label) continue;
      const session = slots.items(index).open(SessionFlag.RW_SESSION | SessionFlag.SERIAL_SESSION);
      session.login(pin);
      return use(session);
    }
    throw new Error(`there is no token named ${label}`);
  } finally {
    module.finalize();
  }
}

/** Makes a P-256 key with an id of one octet, by default one that the product takes. */
export function generateKey(
  session: Session,
  label: string,
  id: number | undefined,
  flags: { extractable?: boolean; sensitive?: boolean; sign?: boolean } = {},
): void {
  const both = { token: true, label, ...(id === undefined ? {} : { id: Buffer.from([id]) }) };
  const curve = Buffer.from("06082a8648ce3d030107", "hex");
  session.generateKeyPair(
    pkcs11.CKM_EC_KEY_PAIR_GEN,
    { ...both, verify: true, paramsECDSA: curve },
    { ...both, private: true, sensitive: true, extractable: false, sign: true, ...flags },
  );
}

/** `test` with a `home` of its own in each test; SOFTHSM2_CONF is set while the test runs. */
export const test = base.extend<{ home: TokenHome }>({
  // oxlint-disable-next-line no-empty-pattern -- Vitest reads a fixture's needs from it.
  home: async ({}, use) => {
    const home = newTokenHome();
    const before = process.env.SOFTHSM2_CONF;
    process.env.SOFTHSM2_CONF = home.conf;
    await use(home);
    if (before === undefined) delete process.env.SOFTHSM2_CONF;
    else process.env.SOFTHSM2_CONF = before;
    home.remove();
  },
});
