/** The part of rule 7 of AUDIT-LOG 9.6 that needs no grants: every result belongs to an intent before it. */

import type { LogEntry, LogEntryOf } from "./entry.ts";
import type { Findings } from "./findings.ts";
import type { Intent } from "./signed-objects.ts";

/** Every result closes one intent before it, once, and no serial number of a key is intended twice. */
export class IntentRecords {
  readonly abandoned: number[] = [];
  readonly #open = new Map<number, LogEntryOf<"sign.intent">>();
  readonly #serialNumbers = new SerialNumbers();
  readonly #findings: Findings;

  constructor(findings: Findings) {
    this.#findings = findings;
  }

  get open(): number[] {
    return [...this.#open.keys()];
  }

  /** @returns The intent whose result this entry is, if it is one that was signed. */
  entry(index: number, entry: LogEntry): Intent | undefined {
    if (entry.type === "sign.intent") {
      this.#intent(index, entry);
      return undefined;
    }
    return entry.type === "sign.done" || entry.type === "sign.abandoned"
      ? this.#result(index, entry)
      : undefined;
  }

  #intent(index: number, entry: LogEntryOf<"sign.intent">): void {
    this.#open.set(index, entry);
    const { keyId, serialNumber } = entry.subject;
    if (entry.data.operation !== "certificate") return;
    if (serialNumber === undefined) {
      this.#findings.add(
        `entry ${index}`,
        "this sign.intent of a certificate has no serial number",
      );
    } else if (!this.#serialNumbers.add(keyId, serialNumber)) {
      this.#findings.add(
        `entry ${index}`,
        `an entry before it is of the same key and serial number, ${serialNumber}`,
      );
    }
  }

  #result(
    index: number,
    entry: LogEntryOf<"sign.done"> | LogEntryOf<"sign.abandoned">,
  ): Intent | undefined {
    const intent = this.#open.get(entry.data.intent);
    if (intent === undefined) {
      this.#findings.add(
        `entry ${index}`,
        `${entry.type} of entry ${entry.data.intent}, which is no open sign.intent`,
      );
      return undefined;
    }
    this.#open.delete(entry.data.intent);
    if (!sameSubject(intent.subject, entry.subject)) {
      this.#findings.add(
        `entry ${index}`,
        `${entry.type} of entry ${entry.data.intent} has another subject`,
      );
    }
    if (entry.type === "sign.abandoned") {
      this.abandoned.push(entry.data.intent);
      return undefined;
    }
    if (
      (entry.data.certificate !== undefined) !== (intent.data.operation === "certificate") ||
      (entry.data.crl !== undefined) !== (intent.data.operation === "crl") ||
      (entry.data.request !== undefined) !== (intent.data.operation === "request")
    ) {
      this.#findings.add(`entry ${index}`, `it is not the result of a ${intent.data.operation}`);
      return undefined;
    }
    return { index: entry.data.intent, entry: intent };
  }
}

function sameSubject(
  a: LogEntryOf<"sign.intent">["subject"],
  b: LogEntryOf<"sign.intent">["subject"],
): boolean {
  return a.issuer === b.issuer && a.keyId === b.keyId && a.serialNumber === b.serialNumber;
}

/** Millions of them: a text of one octet a character costs a third of its hex, and one Set holds 2^24 at most. */
class SerialNumbers {
  readonly #seen = new Map<string, Set<string>>();

  /** @returns false if it is there already. */
  add(keyId: string, serialNumber: string): boolean {
    const part = `${keyId} ${serialNumber.slice(-2)}`;
    let seen = this.#seen.get(part);
    if (seen === undefined) this.#seen.set(part, (seen = new Set()));
    const before = seen.size;
    return seen.add(Buffer.from(serialNumber, "hex").toString("latin1")).size > before;
  }
}
