/** Names as people type them: `web.example.test`, `10.0.0.1`, or with their kind, `uri:spiffe://…`. */

import { CountersignError } from "../errors.ts";
import { canonicalName, isNameKind } from "../policy/name.ts";
import type { SubjectName } from "../x509/general-name.ts";
import { CommandFailure, ExitCode } from "./failure.ts";

/**
 * @returns The name in its one spelling.
 * @throws CommandFailure `name-malformed` with exit code 2.
 */
export function requestedName(text: string): SubjectName {
  const [, prefix, rest] = /^(dns|ip|email|uri):(.+)$/s.exec(text) ?? [];
  const kind = (prefix ?? guessedKind(text)) as SubjectName["kind"];
  const value = rest ?? text;
  if (!isNameKind(kind)) {
    if (/^[\x21-\x7e]+$/.test(value)) return { kind, value };
    throw malformed(`${JSON.stringify(value)} is not printable ASCII`);
  }
  try {
    return { kind, value: canonicalName(kind, value) };
  } catch (error) {
    if (!(error instanceof CountersignError)) throw error;
    throw malformed(error.message);
  }
}

/** A name cannot consist of digits and dots alone, so what does was meant as an address. */
function guessedKind(text: string): "dns" | "ip" {
  return text.includes(":") || /^[0-9.]+$/.test(text) ? "ip" : "dns";
}

function malformed(message: string): CommandFailure {
  return new CommandFailure(message, {
    exitCode: ExitCode.usage,
    code: "name-malformed",
    next: "correct the name; write its kind before it if it is misread: dns:, ip:, email:, uri:",
  });
}
