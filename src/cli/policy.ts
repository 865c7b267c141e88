/** `countersign policy`: a document checked here, and what a service's policy decides. */

import { CountersignError } from "../errors.ts";
import { chooseIssuer, type Context } from "./context.ts";
import { CommandFailure, ExitCode } from "./failure.ts";
import { readInput } from "./files.ts";
import { requestedName } from "./requested-name.ts";

export async function checkPolicy({ output }: Context, file: string): Promise<ExitCode> {
  const text = readInput(file).toString("utf8");
  const [{ parsePolicy }, { policyDigest }] = await Promise.all([
    import("../policy/document.ts"),
    import("../custody/grant.ts"),
  ]);
  try {
    const policy = parsePolicy(text, file === "-" ? "standard input" : file);
    const digest = policyDigest(policy);
    const issuers = [...policy.issuers.keys()];
    const profiles = [...policy.profiles.keys()];
    const requesters = [...policy.requesters.keys()];
    output.result({ valid: true, digest, issuers, profiles, requesters });
    output.fields([
      ["valid", { text: "yes", colour: "green" }],
      ["digest", digest],
      ["issuers", issuers.join(" ") || "none"],
      ["profiles", profiles.join(" ") || "none"],
      ["requesters", requesters.join(" ") || "none in the document"],
    ]);
    return ExitCode.done;
  } catch (error) {
    if (!(error instanceof CountersignError)) throw error;
    // Each line of the message names its place already; the member says the same again.
    const { problems } = error.members;
    throw new CommandFailure(error.message, {
      code: error.code,
      ...(output.json ? { problem: { problems } } : {}),
    });
  }
}

export interface ExplainOptions {
  readonly requester?: string;
  readonly issuer?: string;
  readonly profile?: string;
}

interface DecisionAnswer {
  readonly verdict: "allow" | "refuse";
  readonly rule: string;
  readonly code?: string;
  readonly name?: { readonly kind: string; readonly value: string };
  readonly detail?: string;
  readonly rules?: readonly {
    readonly name: { readonly kind: string; readonly value: string };
    readonly rules: readonly string[];
  }[];
}

/** @returns 1 if the policy refuses. */
export async function explainPolicy(
  { output, connect }: Context,
  names: readonly string[],
  options: ExplainOptions,
): Promise<ExitCode> {
  const asked = names.map(requestedName);
  const client = await connect();
  const as =
    options.requester === undefined
      ? client.requireRole("requester", "operator")
      : client.requireRole("operator", "requester");
  const decision = await client.json<DecisionAnswer>("/v1/policy/evaluate", {
    as,
    body: {
      issuer: await chooseIssuer(client, options.issuer),
      profile: options.profile ?? client.settings.profile ?? "server",
      ...(options.requester === undefined ? {} : { requester: options.requester }),
      names: asked,
    },
    repeatable: true,
  });
  output.result(decision);
  const { verdict, rule, rules = [], name, code, detail } = decision;
  output.fields([
    ["verdict", { text: verdict, colour: verdict === "allow" ? "green" : "red" }],
    ["rule", rule],
    ["name", name === undefined ? undefined : `${name.kind}:${name.value}`],
    ["code", code],
    ["detail", detail],
    ...rules.map(({ name: one, rules: deciding }): [string, readonly string[]] => [
      `${one.kind}:${one.value}`,
      deciding,
    ]),
  ]);
  return verdict === "allow" ? ExitCode.done : ExitCode.failed;
}
