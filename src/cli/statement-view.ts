/** Statements and documents in words: what a person reads before signing. */

import type { Plan, ShareSet } from "../custody/plan.ts";
import type { Resume } from "../custody/personal-statement.ts";
import type { Roster } from "../custody/roster.ts";
import type { CeremonyKind, CeremonyStatement, UnlockStatement } from "../custody/statement.ts";
import { sshFingerprint } from "../custody/ssh-signature.ts";
import type { Field, Output } from "./output.ts";
import { fingerprintFields, fingerprintOf } from "./fingerprint.ts";
import type { Stated } from "./pinned-service.ts";

/** What a ceremony of each kind does, for those who did not think of it. */
const deeds: Readonly<Record<CeremonyKind, string>> = {
  sign: "sign exactly the bytes below, each once",
  window: "open a key for the operations below, until a limit is reached",
  generate: "make a key, or put a seal around one in use, and deal its shares",
  reshare: "deal new shares of a key; the old ones open nothing afterwards",
  roster: "change who the operators are",
  policy: "change the frame of the policy",
  resume: "let held keys go again",
  retire: "put a key out of use for good",
};

export function showCeremony(output: Output, stated: Stated<CeremonyStatement>): void {
  const { statement } = stated;
  output.line({ text: `ceremony of kind ${statement.kind}`, colour: "bold" });
  output.fields(
    [
      ["does", deeds[statement.kind]],
      ["reason", statement.reason],
      ["proposed by", statement.requestedBy],
      ["service", statement.service],
      ["key", statement.keyId],
      ...(statement.artefacts ?? []).flatMap(({ tbs, lint }, place): Field[] => [
        [`artefact ${place + 1}`, tbs],
        ["  lint report", lint],
      ]),
      ["exemptions", statement.exemptions],
      ["script", statement.script],
      ...windowFields(statement.window),
      ["document", statement.plan],
      ["asks for", rulesText(statement.rules)],
      ["until", statement.notAfter],
      ["roster", statement.roster],
      ["policy", statement.policy],
      ["log", `${statement.log.origin}, ${statement.log.size} entries`],
      ["id", statement.id],
      ["digest", stated.digest],
      ...fingerprintFields(fingerprintOf(stated.octets)),
    ],
    2,
  );
}

export function showUnlock(output: Output, stated: Stated<UnlockStatement>): void {
  const { statement } = stated;
  output.line({ text: "unlock", colour: "bold" });
  output.fields(
    [
      ["key", statement.keyId],
      [
        "shares",
        `any ${statement.threshold} of ${statement.shareCount}, of epoch ${statement.epoch}`,
      ],
      ["gathers for", durationText(statement.gatherSeconds)],
      ["recipient", statement.recipient],
      ["id", statement.id],
      ["digest", stated.digest],
      ...fingerprintFields(fingerprintOf(stated.octets)),
    ],
    2,
  );
}

export function showPlan(output: Output, plan: Plan): void {
  output.line({ text: "the plan", colour: "bold" });
  output.fields(
    [
      [
        "key",
        "generate" in plan.key
          ? `a new one, ${plan.key.generate}`
          : `the one in use, ${plan.key.use}`,
      ],
      ["issuer", plan.issuer],
      ["is sealed", plan.payload === "pin" ? "the PIN of its token" : "the key itself"],
      ["epoch", String(plan.epoch)],
      ["replaces", plan.previous ?? undefined],
      ["opens with", `any ${plan.threshold} of ${plan.shareCount} shares`],
      ...plan.custodians.map(({ operator, recipient, role }, place): Field => [
        `share ${place + 1}`,
        `${operator}${role === "escrow" ? " (escrow)" : ""}, ${recipient}`,
      ]),
      ["reason", plan.reason],
    ],
    2,
  );
}

export function showResume(output: Output, { release }: Resume): void {
  output.line({ text: "is let go", colour: "bold" });
  output.fields(
    [["keys", release === "all" ? "all of them; this also ends a panic" : [...release]]],
    2,
  );
}

/** @param before - the version that it follows; what is new against it is marked. */
export function showRoster(output: Output, roster: Roster, before?: Roster): void {
  const { version, operators, service, rules } = roster.document;
  output.line({ text: `roster, version ${version}`, colour: "bold" });
  const gone = before?.document.operators.filter(({ id }) => !roster.operators.has(id)) ?? [];
  output.fields(
    [
      ...operators.flatMap(({ id, keys, roles, recipient }): Field[] => {
        const old = before?.operators.get(id);
        const isNew = before !== undefined && old === undefined;
        const text = `${roles.join(", ")}${isNew ? "  (new)" : ""}`;
        return [
          [id, isNew ? { text, colour: "yellow" } : text],
          ...keys.map((key): Field => {
            const shown =
              key.kind === "ssh"
                ? `${key.key.split(" ")[0]} ${sshFingerprint(key.key)}`
                : `passkey ${key.id} at ${key.rpId}`;
            const known = JSON.stringify(old?.keys ?? []).includes(JSON.stringify(key));
            return [
              "",
              old === undefined || known ? shown : { text: `${shown}  (new)`, colour: "yellow" },
            ];
          }),
          [
            "",
            recipient === undefined || old === undefined || old.recipient === recipient
              ? recipient
              : { text: `${recipient}  (new)`, colour: "yellow" },
          ],
        ];
      }),
      ...gone.map(({ id }): Field => [id, { text: "is no operator any more", colour: "yellow" }]),
      ["rules", `roster ${rules.roster}, policy ${rules.policy}, resume ${rules.resume}`],
      ...Object.entries(rules.ceremonies).map(([kind, roles]): Field => [
        `  ${kind}`,
        rulesText(roles),
      ]),
      ["identity key", service.identity],
      ["log key", service.log],
      ["follows", roster.document.previous ?? undefined],
      ["digest", roster.digest],
      ...fingerprintFields(fingerprintOf(roster.octets)),
    ],
    2,
  );
}

export function showShareSet(output: Output, stated: Stated<ShareSet>): void {
  const { keyId, epoch, threshold, shareCount, custodians } = stated.statement;
  output.line({ text: "share set", colour: "bold" });
  output.fields(
    [
      ["key", keyId],
      ["shares", `any ${threshold} of ${shareCount}, of epoch ${epoch}`],
      ...custodians.map(({ index, operator }): Field => [`share ${index}`, operator]),
      ["digest", stated.digest],
      ...fingerprintFields(fingerprintOf(stated.octets)),
    ],
    2,
  );
}

function windowFields(window: CeremonyStatement["window"]): Field[] {
  if (window === undefined) return [];
  return [
    [
      "allows",
      window.operations.map(
        ({ operation, profile, max }) =>
          `${operation}${profile === undefined ? "" : ` (${profile})`}: at most ${max}`,
      ),
    ],
    ["asked by", window.requesters?.join(", ") ?? "any requester of the policy"],
    ["labels", window.labels?.join(", ")],
    ["from", window.notBefore],
    ["closes", `${window.notAfter}, or after ${durationText(window.idleSeconds)} without use`],
  ];
}

export function rulesText(rules: Readonly<Record<string, number>>): string {
  const texts = Object.entries(rules).map(([role, count]) => `${count} ${role}`);
  return texts.length === 0 ? "nobody beyond the shares and custodians" : texts.join(", ");
}

export function durationText(seconds: number): string {
  for (const [unit, length] of [
    ["d", 86_400],
    ["h", 3_600],
    ["min", 60],
  ] as const) {
    if (seconds % length === 0 && seconds >= length) return `${seconds / length} ${unit}`;
  }
  return `${seconds} s`;
}
