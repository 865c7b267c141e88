/**
 * What a key has used of its grant, on the disk: counted before its signer counts it in its memory, so that the
 * signer's end does not bring it back.
 */

import { digestOf } from "../audit/digest.ts";
import {
  hasEnd,
  hourlyAllowance,
  isDigests,
  isStanding,
  type Allowance,
  type DigestGrant,
  type Grant,
  type StandingGrant,
} from "./grant.ts";
import { reportUnwritten, type StateFile } from "./keeper-state.ts";

/**
 * Signatures are reserved in the state file in steps of a twentieth of an hour's, and of no more than this: what a
 * killed keeper had reserved and not used counts as used.
 */
const RESERVATIONS = 20;
const MAX_RESERVATION = 1024;
/** A reservation is renewed when it is this old, so that one from before the hour is known to be used up. */
const RESERVATION_MILLISECONDS = 5 * 60 * 1000;
const HOUR_MILLISECONDS = 60 * 60 * 1000;

/**
 * Is told the fate of each request, by its index: a digest is given back when nobody has it in hand any more, and
 * each request for it was refused.
 */
export type Settle = (wasSigned: (index: number) => boolean) => void;

export interface SignatureCount {
  /** Signatures under a standing grant within the last hour, also before a restart. */
  alreadySigned(keyId: string): number;
  /** The same, but only where this keeper has asked for it. */
  readonly spent: number | undefined;
  /** Counts what the signer is about to sign. What it throws keeps it from signing. */
  count(keyId: string, tbs: readonly Uint8Array[]): Settle;
}

export interface SignatureCountParts {
  readonly stateFile: StateFile;
  readonly now: () => Date;
  /** Seconds on a clock that nobody sets. */
  readonly monotonic: () => number;
}

/** Counts what one key signs. Its id may not be known yet. */
export function signatureCount(grant: Grant, parts: SignatureCountParts): SignatureCount {
  if (isStanding(grant)) return hourlyCount(grant, parts);
  if (isDigests(grant) && !hasEnd(grant)) return digestCount(grant, parts);
  // The signer's end locks the key: what it has counted in its memory can never be used again.
  return { alreadySigned: () => 0, spent: undefined, count: () => () => {} };
}

function hourlyCount(
  { signaturesPerHour }: StandingGrant,
  { stateFile, now, monotonic }: SignatureCountParts,
): SignatureCount {
  let allowance: Allowance | undefined;

  function allowanceOf(keyId: string): Allowance {
    if (allowance === undefined) {
      const hour = stateFile.state.hours[keyId];
      const recent =
        hour !== undefined &&
        Math.abs(now().getTime() - Date.parse(hour.at)) <
          HOUR_MILLISECONDS + RESERVATION_MILLISECONDS;
      const already = recent ? hour.reserved : 0;
      allowance = hourlyAllowance(signaturesPerHour, already, monotonic);
    }
    return allowance;
  }

  function reserve(keyId: string, { spent }: Allowance): void {
    const hour = stateFile.state.hours[keyId];
    const at = now();
    const fresh =
      hour !== undefined && Math.abs(at.getTime() - Date.parse(hour.at)) < RESERVATION_MILLISECONDS;
    if (fresh && spent <= hour.reserved) return;
    const step = Math.min(Math.ceil(signaturesPerHour / RESERVATIONS), MAX_RESERVATION);
    const reserved = Math.min(signaturesPerHour, spent + step);
    stateFile.change((state) => {
      state.hours[keyId] = { at: at.toISOString(), reserved };
    });
  }

  return {
    alreadySigned: (keyId) => allowanceOf(keyId).spent,
    get spent() {
      return allowance?.spent;
    },
    count(keyId, tbs) {
      const left = allowanceOf(keyId);
      left.spend(Math.min(left.left, tbs.length));
      reserve(keyId, left);
      return () => {};
    },
  };
}

function digestCount(
  grant: DigestGrant,
  { stateFile }: Pick<SignatureCountParts, "stateFile">,
): SignatureCount {
  /** Requests for granted digests that a signer has in hand, and whether one was signed, or may have been. */
  const inHand = new Map<string, { requests: number; signed: boolean }>();

  return {
    alreadySigned: () => 0,
    spent: undefined,
    count(keyId, tbs) {
      const used = stateFile.state.digests[keyId] ?? [];
      const asked = tbs.map(digestOf);
      const counted = new Set(
        asked.filter(
          (digest) =>
            grant.digests.includes(digest) && (inHand.has(digest) || !used.includes(digest)),
        ),
      );
      if (counted.size === 0) return () => {};
      const burnt = [...counted].filter((digest) => !used.includes(digest));
      if (burnt.length > 0) {
        stateFile.change((state) => {
          state.digests[keyId] = [...used, ...burnt];
        });
      }
      for (const digest of asked) {
        if (!counted.has(digest)) continue;
        const hand = inHand.get(digest) ?? { requests: 0, signed: false };
        hand.requests++;
        inHand.set(digest, hand);
      }
      return (wasSigned) => {
        const free = new Set<string>();
        for (const [index, digest] of asked.entries()) {
          const hand = counted.has(digest) ? inHand.get(digest) : undefined;
          if (hand === undefined) continue;
          hand.requests--;
          hand.signed ||= wasSigned(index);
          if (hand.requests > 0) continue;
          inHand.delete(digest);
          if (!hand.signed) free.add(digest);
        }
        if (free.size === 0) return;
        try {
          stateFile.change((state) => {
            state.digests[keyId] = state.digests[keyId]!.filter((digest) => !free.has(digest));
          });
        } catch (error) {
          reportUnwritten(error); // they stay used up; the requests have their answers
        }
      };
    },
  };
}

/** What was reserved and not used is free again when the keeper ends in order. */
export function returnReservations(
  stateFile: StateFile,
  counts: readonly { readonly keyId: string | undefined; readonly spent: number | undefined }[],
  now: Date,
): void {
  const counted = counts.flatMap(({ keyId, spent }) =>
    keyId === undefined || spent === undefined ? [] : [[keyId, spent] as const],
  );
  if (counted.length === 0) return;
  const at = now.toISOString();
  try {
    stateFile.change((state) => {
      for (const [keyId, reserved] of counted) state.hours[keyId] = { at, reserved };
    });
  } catch (error) {
    reportUnwritten(error); // what was reserved then counts as used; the keeper ends in order all the same
  }
}
