/** Whether the service can do its work, and what of it can not: for load balancers, and for people to read. */

import type { KeeperStatus } from "./custody/keeper-client.ts";
import type { Readiness } from "./http/parts.ts";
import type { CompiledPolicy } from "./policy/decide.ts";
import type { CrlSchedule } from "./revocation/crl-schedule.ts";

/** @param trouble - What keeps the service from working, for everybody to read. */
export function readinessOf(
  status: Pick<KeeperStatus, "keys">,
  lists: ReturnType<CrlSchedule["troubles"]>,
  trouble: string | undefined,
  policy: Pick<CompiledPolicy, "issuers">,
  now: Date,
): Readiness {
  const keys = status.keys.map((key) => ({
    name: `key of ${key.issuer}`,
    state: key.state,
    ...(key.detail === undefined ? {} : { detail: key.detail }),
  }));
  const crls = lists.map(({ issuer, overdue, trouble: reason, nextUpdate }) => {
    const detail = [reason, nextUpdate && `the published one ends ${nextUpdate.toISOString()}`];
    const part = {
      name: `CRL of ${issuer}`,
      state:
        nextUpdate === undefined
          ? "missing"
          : nextUpdate <= now
            ? "expired"
            : overdue || reason !== undefined
              ? "ageing"
              : "fresh",
      ...(reason === undefined && nextUpdate === undefined
        ? {}
        : { detail: detail.filter(Boolean).join("; ") }),
    };
    return { issuer, part };
  });
  // Without a CRL that is in force, relying parties refuse all that the issuer has issued.
  const withoutCrl = new Set(
    crls
      .filter(({ part: { state } }) => state === "missing" || state === "expired")
      .map(({ issuer }) => issuer),
  );
  const issuing = status.keys.filter(
    (key) => (policy.issuers.get(key.issuer)?.profiles.size ?? 0) > 0,
  );
  return {
    ready:
      trouble === undefined &&
      issuing.some((key) => key.state === "open" && !withoutCrl.has(key.issuer)),
    parts: [
      {
        name: "log",
        state: trouble === undefined ? "open" : "failed",
        ...(trouble === undefined ? {} : { detail: trouble }),
      },
      ...keys,
      ...crls.map(({ part }) => part),
    ],
  };
}
