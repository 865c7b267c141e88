/** The service with one process killed, without warning, at one step of the first issuance that comes. */

import { pino } from "pino";
import { readServiceConfig } from "../../src/config.ts";
import { homeFiles } from "../../src/home.ts";
import { openLedger, type Ledger } from "../../src/ledger.ts";
import { startService } from "../../src/service.ts";
import { processesBelow } from "./service.ts";

export const steps = [
  "before the intent is written",
  "after the intent is written",
  "after the signature",
  "after the result is written",
] as const;
export const victims = ["service", "keeper", "signer"] as const;

export type Step = (typeof steps)[number];
export type Victim = (typeof victims)[number];

function kill(victim: Victim): void {
  const { service, keeper, signers } = processesBelow(process.pid);
  const pids = { service: [service], keeper: [keeper], signer: signers }[victim];
  for (const pid of pids) process.kill(pid, "SIGKILL");
}

/** Kills once, at the step. */
function crashing(ledger: Ledger, at: Step, victim: Victim): Ledger {
  let armed = true;
  const reached = (step: Step): void => {
    if (!armed || step !== at) return;
    armed = false;
    kill(victim);
  };
  const { journal, keeper } = ledger;
  const append: typeof journal.append = async (item) => {
    if (item.kind === "certificate-intent") reached("before the intent is written");
    const index = await journal.append(item);
    if (item.kind === "certificate-intent") reached("after the intent is written");
    if (item.kind === "certificate-done") reached("after the result is written");
    return index;
  };
  const sign: typeof keeper.sign = async (request) => {
    const signature = await keeper.sign(request);
    if (request.operation === "certificate") reached("after the signature");
    return signature;
  };
  return {
    ...ledger,
    journal: new Proxy(journal, {
      get: (target, name) => (name === "append" ? append : bound(target, name)),
    }),
    keeper: new Proxy(keeper, {
      get: (target, name) => (name === "sign" ? sign : bound(target, name)),
    }),
  };
}

function bound(target: object, name: string | symbol): unknown {
  const value: unknown = Reflect.get(target, name);
  return typeof value === "function" ? value.bind(target) : value;
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const [home, step, victim] = process.argv.slice(2) as [string, Step, Victim];
  const config = readServiceConfig(homeFiles(home).service);
  const service = await startService(
    config,
    pino(pino.destination(2)),
    "0.0.0",
    async (...parameters) => crashing(await openLedger(...parameters), step, victim),
  );
  process.once("SIGTERM", () => void service.stop());
  void service.failed.then(() => service.stop());
  console.log(
    `serves https://127.0.0.1:${service.apiPort} (API) and http://127.0.0.1:${service.publicPort} until a certificate revoked`,
  );
}
