/** `countersign dev unlock`: one newcomer plays all five people of a development home. No other home knows it. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseDuration } from "../policy/lifetime.ts";
import { ApiClient } from "./api-client.ts";
import { approve } from "./approve.ts";
import { openUnlock, proposeCeremony } from "./ceremony.ts";
import type { Context } from "./context.ts";
import { CommandFailure, ExitCode, usage } from "./failure.ts";
import type { Output } from "./output.ts";
import type { CeremonyAnswer, UnlockAnswer } from "./people-answers.ts";
import { readSettings } from "./settings.ts";
import { submit } from "./submit.ts";

export interface DevUnlockOptions {
  /** The development home. */
  readonly home: string;
  readonly operation: readonly string[];
  readonly for?: string;
}

/** What is asked of the key when nothing is said. */
const OPERATIONS = ["crl:10"];
const DURATION = "1h";

/** The kinds that open a seal. */
const opening: readonly string[] = ["sign", "window", "reshare"];

/**
 * Carries a ceremony as far as the five can: approvals, and shares where a seal is to be opened.
 *
 * @param named - a ceremony, or a key, which gets a window.
 */
export async function devUnlock(
  context: Context,
  named: string,
  options: DevUnlockOptions,
): Promise<ExitCode> {
  const { output } = context;
  const people = peopleOf(options.home);
  output.note(
    `a development home: this plays ${people.join(", ")}, whose keys lie in ${join(options.home, "people")}. ` +
      "Elsewhere each of them runs countersign inbox on their own machine",
  );
  const clients: ApiClient[] = [];
  const actAs = async (id: string): Promise<Context & { last: () => unknown }> => {
    const settings = await readSettings(
      {},
      { COUNTERSIGN_CONFIG: join(options.home, "people", id, "config.json") },
    );
    const client = new ApiClient(settings);
    clients.push(client);
    const heard = hearing(output);
    return {
      output: heard.output,
      last: heard.last,
      connect: async () => client,
      settings: async () => settings,
    };
  };
  try {
    const first = await actAs(people[0]!);
    const ceremony = await ceremonyFor(first, named, options);
    output.line(`ceremony ${ceremony.id}: ${ceremony.reason}`);
    let state = ceremony.state;
    if (!opening.includes(ceremony.kind)) {
      for (const id of people) {
        if (state !== "gathering") break;
        const person = await actAs(id);
        await approve(person, ceremony.id, { role: "operator", artefact: [], yes: true });
        state = (person.last() as { state: string }).state;
        output.line({ text: `${id} approved`, colour: "green" });
      }
    } else {
      const unlock = await unlockOf(first, ceremony);
      for (const id of people) {
        const person = await actAs(id);
        await submit(person, unlock, { artefact: [], yes: true });
        const { missing } = person.last() as { missing: { shares?: number } };
        output.line({ text: `${id} gave a share`, colour: "green" });
        if ((missing.shares ?? 0) === 0) break;
      }
    }
    const client = await first.connect();
    const answer = await client.json<CeremonyAnswer>(`/v1/ceremonies/${ceremony.id}`, {
      as: "operator",
    });
    output.result(answer);
    output.line(`the ceremony is ${answer.state}`);
    return ExitCode.done;
  } finally {
    await Promise.all(clients.map((client) => client.close()));
  }
}

/** @throws CommandFailure `home-unknown` for every home but a development home. */
function peopleOf(home: string): string[] {
  let kind: unknown;
  try {
    ({ kind } = JSON.parse(readFileSync(join(home, "layout.json"), "utf8")) as { kind?: unknown });
  } catch {
    throw usage(`${home} is no home`, "name the development home with --home");
  }
  if (kind !== "development") {
    throw new CommandFailure("only a development home has all people in one place", {
      code: "home-unknown",
      next: "here each person runs countersign inbox on their own machine",
    });
  }
  const folder = join(home, "people");
  return readdirSync(folder)
    .filter((id) => existsSync(join(folder, id, "config.json")))
    .toSorted();
}

async function ceremonyFor(
  person: Context & { last: () => unknown },
  named: string,
  { operation, for: duration }: DevUnlockOptions,
): Promise<CeremonyAnswer> {
  if (/^(?:sha256:[0-9a-f]{64}|[0-9a-f]{32})$/.test(named)) {
    const client = await person.connect();
    return client.json<CeremonyAnswer>(`/v1/ceremonies/${encodeURIComponent(named)}`, {
      as: "operator",
    });
  }
  await proposeCeremony(person, "window", {
    key: named,
    reason: `a development window for ${named}`,
    operation: operation.length === 0 ? OPERATIONS : operation,
    until: new Date(Date.now() + parseDuration(duration ?? DURATION) * 1000).toISOString(),
    tbs: [],
    requester: [],
  });
  return person.last() as CeremonyAnswer;
}

async function unlockOf(
  person: Context & { last: () => unknown },
  { id, unlock }: CeremonyAnswer,
): Promise<string> {
  if (unlock?.state === "gathering") return unlock.id;
  await openUnlock(person, id, {});
  return (person.last() as UnlockAnswer).id;
}

/** What a command says when another one runs it: its result is kept, and its words are not repeated. */
function hearing(outer: Output): { output: Output; last: () => unknown } {
  let last: unknown;
  const silent = (): void => undefined;
  return {
    output: {
      json: outer.json,
      line: silent,
      fields: silent,
      table: silent,
      raw: silent,
      note: silent,
      failure: (failure) => outer.failure(failure),
      result: (value) => (last = value),
    },
    last: () => last,
  };
}
