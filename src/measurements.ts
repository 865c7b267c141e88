/** The numbers of the domain, for `/metrics`. */

import type { KeeperStatus } from "./custody/keeper-client.ts";
import type { Measurement } from "./http/parts.ts";
import type { Ledger } from "./ledger.ts";
import type { CrlSchedule } from "./revocation/crl-schedule.ts";

export async function measurements(
  ledger: Ledger,
  status: KeeperStatus,
  schedule: CrlSchedule,
  now: Date,
): Promise<Measurement[]> {
  const counts = await ledger.reads.counts();
  return [
    {
      name: "log_entries",
      help: "Entries of the audit log.",
      kind: "counter",
      values: [{ value: ledger.journal.size }],
    },
    {
      name: "certificates",
      help: "Certificate records by state.",
      kind: "gauge",
      values: [
        { labels: { state: "issued" }, value: counts.issued },
        { labels: { state: "pending" }, value: counts.pending },
      ],
    },
    {
      name: "revocations",
      help: "Revoked certificates.",
      kind: "counter",
      values: [{ value: counts.revoked }],
    },
    {
      name: "key_open",
      help: "1 while the issuer's key can sign.",
      kind: "gauge",
      values: status.keys.map(({ issuer, state }) => ({
        labels: { issuer },
        value: state === "open" ? 1 : 0,
      })),
    },
    {
      name: "crl_life_left_seconds",
      help: "Until nextUpdate of the published CRL.",
      kind: "gauge",
      values: schedule
        .troubles()
        .flatMap(({ issuer, nextUpdate }) =>
          nextUpdate === undefined
            ? []
            : [{ labels: { issuer }, value: (nextUpdate.getTime() - now.getTime()) / 1000 }],
        ),
    },
  ];
}
