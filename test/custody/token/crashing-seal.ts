/**
 * Seals the PIN of a token in use, in a process that kills itself at one step: `crashing-seal.js MODULE URI PIN-FILE
 * STEP`. Prints the new PIN before it begins to change anything; with a step that it does not know, it goes
 * through.
 */

import { writeSync } from "node:fs";
import pkcs11, { type PKCS11 } from "pkcs11js";
import { readPin } from "../../../src/custody/token/pin-file.ts";
import { sealTokenInUse } from "../../../src/custody/token/seal-token.ts";

/** Calls of the token after which it ends, counted from the beginning of the change; `before` one or `after` it. */
export const crashSteps = [
  { step: "before the check", at: ["before", "C_Login", 1], pin: "before" },
  { step: "after the check", at: ["after", "C_Finalize", 1], pin: "before" },
  { step: "before the change", at: ["before", "C_SetPIN", 1], pin: "before" },
  { step: "after the change", at: ["after", "C_SetPIN", 1], pin: "new" },
  { step: "before the PIN before is tried", at: ["before", "C_Login", 3], pin: "new" },
  { step: "before the new PIN is tried", at: ["before", "C_Login", 4], pin: "new" },
  { step: "before the key signs", at: ["before", "C_Sign", 2], pin: "new" },
  { step: "after the key signed", at: ["after", "C_Sign", 2], pin: "new" },
] as const;

type Step = (typeof crashSteps)[number]["at"];

function killAt([when, name, count]: Step): void {
  const native = Object.getPrototypeOf(pkcs11.PKCS11.prototype) as PKCS11;
  const original = native[name] as (...parameters: unknown[]) => unknown;
  let calls = 0;
  const replaced = function (this: PKCS11, ...parameters: unknown[]): unknown {
    calls++;
    if (calls === count && when === "before") process.kill(process.pid, "SIGKILL");
    const result = original.apply(this, parameters);
    if (calls === count) process.kill(process.pid, "SIGKILL");
    return result;
  };
  Object.assign(native, { [name]: replaced });
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const [modulePath, uri, pinFile, wanted] = process.argv.slice(2) as [
    string,
    string,
    string,
    string,
  ];
  const crash = crashSteps.find(({ step }) => step === wanted);
  const seal = await sealTokenInUse({ modulePath, uri, pin: readPin(pinFile) });
  writeSync(1, seal.secret.toString());
  if (crash !== undefined) killAt(crash.at);
  await seal.commit();
  writeSync(1, " and it was not killed");
}
