/** What a crash leaves of issuance. */

import { encodeEntry } from "../audit/entry.ts";
import type { Journal } from "./journal.ts";
import type { Reads } from "./records.ts";

/** Every intent that a crash left open is closed, so that the log says what became of it: AUDIT-LOG 9.2. */
export async function abandonOpenIntents(parts: {
  readonly journal: Pick<Journal, "append">;
  readonly reads: Pick<Reads, "pendingIntents">;
  /** The service's name. */
  readonly service: string;
  readonly now: () => Date;
}): Promise<void> {
  const { journal, reads, now } = parts;
  const { certificates, crls } = await reads.pendingIntents();
  const actor = { kind: "service", id: parts.service } as const;
  for (const { issuer, keyId, serialNumber, index } of certificates) {
    await journal.append({
      kind: "certificate-abandoned",
      leaf: encodeEntry({
        type: "sign.abandoned",
        at: now(),
        actor,
        subject: { issuer, keyId, serialNumber },
        data: { intent: index, reason: "found open at start" },
      }),
      intentIndex: index,
    });
  }
  for (const { issuer, keyId, intentIndex } of crls) {
    await journal.append({
      kind: "crl-abandoned",
      leaf: encodeEntry({
        type: "sign.abandoned",
        at: now(),
        actor,
        subject: { issuer, keyId },
        data: { intent: intentIndex, reason: "found open at start" },
      }),
      intentIndex,
    });
  }
}
