/** `countersign status`: whether the service can do its work; operators see all of it. */

import type { IssuerAnswer, Context } from "./context.ts";
import { ExitCode } from "./failure.ts";
import type { Cell, Field } from "./output.ts";

interface StatusAnswer {
  readonly service: string;
  readonly version: string;
  readonly ready: boolean;
  readonly parts: readonly {
    readonly name: string;
    readonly state: string;
    readonly detail?: string;
  }[];
  readonly issuers?: readonly IssuerAnswer[];
  readonly operators?: readonly string[];
  readonly requesters?: number;
  readonly policy?: string;
  readonly log?: {
    readonly origin: string;
    readonly key: string;
    readonly size: number;
  };
  readonly counts?: Readonly<Record<string, number>>;
  readonly warnings?: readonly {
    readonly keyId: string;
    readonly threshold: number;
    readonly shareCount: number;
    readonly proved: number;
  }[];
  readonly keys?: readonly {
    readonly issuer: string;
    readonly state: string;
    readonly signaturesLeft?: number;
  }[];
}

const goodStates = new Set(["open", "fresh"]);

/** Without credentials there is the summary. @returns 1 if the service is not ready. */
export async function status({ output, connect }: Context): Promise<ExitCode> {
  const client = await connect();
  const answer = await client.json<StatusAnswer>("/v1/status", {
    as: client.role("operator") ?? "nobody",
  });
  output.result(answer);
  output.fields([
    ["service", `${answer.service} ${answer.version} at ${client.url.origin}`],
    ["ready", answer.ready ? { text: "yes", colour: "green" } : { text: "no", colour: "red" }],
    ...answer.parts.map(({ name, state, detail }): Field => [name, stateCell(state, detail)]),
    ...everything(answer),
  ]);
  return answer.ready ? ExitCode.done : ExitCode.failed;
}

function stateCell(state: string, detail: string | undefined): Cell {
  const text = detail === undefined ? state : `${state}: ${detail}`;
  return goodStates.has(state) ? text : { text, colour: "red" };
}

function everything(answer: StatusAnswer): Field[] {
  const { issuers = [], operators, requesters, policy, log, counts, keys = [] } = answer;
  const { warnings = [] } = answer;
  const left = keys.flatMap(({ issuer, signaturesLeft }) =>
    signaturesLeft === undefined ? [] : [`${issuer}: ${signaturesLeft}`],
  );
  return [
    ...warnings.map(({ keyId, threshold, shareCount, proved }): Field => [
      "warning",
      {
        text: `key ${keyId.slice(0, 16)}…: ${proved} of ${shareCount} shares were proved within 90 days, and ${threshold} open it: countersign share prove, or deal more (countersign keys seal)`,
        colour: "yellow",
      },
    ]),
    [
      "issuers",
      issuers.length === 0
        ? undefined
        : issuers.map(
            ({ id, subject, profiles, notAfter }) =>
              `${id}: ${subject}, until ${notAfter.slice(0, 10)}, profiles ${profiles.join(" ") || "none"}`,
          ),
    ],
    ["signatures left", left.length === 0 ? undefined : left],
    ["operators", operators?.join(" ")],
    ["requesters", requesters === undefined ? undefined : String(requesters)],
    [
      "certificates",
      counts === undefined
        ? undefined
        : `${counts["issued"] ?? 0} issued, ${counts["revoked"] ?? 0} revoked, ${counts["pending"] ?? 0} pending`,
    ],
    ["policy", policy],
    ["audit log", log === undefined ? undefined : `${log.origin}, ${log.size} entries`],
    ["its key", log?.key],
  ];
}
