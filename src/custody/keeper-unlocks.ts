/**
 * Unlocks: for each an unlocker that gathers shares, and the process that it will hand the secret to (CUSTODY.md 6.2 and
 * 7.1). What shares have opened belongs to its key from then on: see keeper-key.ts.
 */

import { canonicalJson } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { CountersignError } from "../errors.ts";
import { startDealer, type DealerProcess } from "./dealer-process.ts";
import type { Grant } from "./grant.ts";
import {
  inPanic,
  type Ceremonies,
  type CeremonyVotes,
  type LogRecord,
  type OpenCeremony,
} from "./keeper-ceremonies.ts";
import { checkDealt, type Dealt } from "./keeper-deals.ts";
import type { Key, Opened } from "./keeper-key.ts";
import type { KeeperKeys } from "./keeper-keys.ts";
import type { KeeperLog } from "./keeper-log.ts";
import type { Closed } from "./keeper-protocol.ts";
import type { RosterBook } from "./keeper-roster.ts";
import type { StateFile } from "./keeper-state.ts";
import { base64 } from "./octet-text.ts";
import { startOpenedSigner, type OpenedSigner } from "./opened-signer.ts";
import type { OwnNotes, Stated } from "./own-notes.ts";
import { readShareSet, type Plan, type ShareSet } from "./plan.ts";
import { readUnlock, type Signed } from "./statement.ts";
import { startUnlocker, type UnlockerProcess } from "./unlocker-process.ts";
import { checkSubmission, verdictOfSubmission, type Verdict } from "./votes.ts";

/** From the opening of a key for a ceremony of kind `sign` (CUSTODY.md 6.2). */
export const SIGN_SECONDS = 900;
/** From thisUpdate to nextUpdate, in a window, at most: when the window has ended nobody makes the next one for long. */
export const WINDOW_CRL_LIFETIME = "181d";

export interface UnlockRequest extends CeremonyVotes {
  /** The share set, a signed note. */
  readonly shareSet: string;
  /** CSKB. */
  readonly sealed: Uint8Array;
  readonly gatherSeconds: number;
  /** Of a reshare, canonical JSON. */
  readonly plan?: Uint8Array;
}

export interface OpenRequest {
  /** Digest of the unlock statement. */
  readonly unlock: string;
  readonly votes: CeremonyVotes;
  readonly submissions: readonly Signed[];
  readonly record: LogRecord;
}

/** Whose shares count, and how many are missing. */
export interface Progress {
  readonly given: readonly string[];
  readonly missing: number;
}

export interface Unlocks {
  /**
   * Starts to gather shares.
   *
   * @throws CountersignError `unlock-busy`, `panic`, `key-held`, `key-unknown`, `share-stale` for a share set that
   *   is not the active one, `sealed-key-corrupt`, `plan-invalid`, `ceremony-closed`, `ceremony-refused`, `signature-invalid`.
   */
  unlock(request: UnlockRequest): Promise<Stated>;
  /** @throws CountersignError `unlock-unknown`, `unlock-closed`, and the codes of CUSTODY.md 4.3. */
  submit(unlock: string, submission: Signed, share: Uint8Array): Promise<Progress>;
  /**
   * Opens the key for what was agreed to, or changes its shares.
   *
   * @returns What was dealt, for a reshare; undefined where a signer is open now.
   * @throws CountersignError `ceremony-refused` if it is not agreed to, or the log does not say it, `ceremony-closed`,
   *   `unlock-busy`, `panic`, `key-held`, `share-stale` if the share set was replaced meanwhile: shares are still gathered, unless a lock came in between. After every other
   *   failure the unlock is over.
   */
  open(request: OpenRequest): Promise<Dealt | undefined>;
  /** Ends the processes of an unlock, also the signer that it opened. */
  end(unlock: string): void;
  /** Ends at once what gathers for a key or has opened it, and says so. */
  endKey(keyId: string, reason: "locked" | "panic"): void;
  /** Ends everything at once, and says so. */
  endAll(reason: "panic"): void;
  /** Ends everything at once. */
  stop(): void;
}

export interface UnlocksParts {
  readonly service: string;
  readonly origin: string;
  /** Digest of the policy. */
  readonly policy: string;
  readonly tokenEnvironment: Readonly<Record<string, string>>;
  readonly ceremonies: Ceremonies;
  readonly keys: KeeperKeys;
  readonly log: KeeperLog;
  readonly notes: OwnNotes;
  readonly roster: RosterBook;
  readonly stateFile: StateFile;
  /** The statements about requesters so far, canonical JSON. */
  readonly statements: () => readonly Uint8Array[];
  readonly now: () => Date;
  readonly random: (size: number) => Uint8Array;
  readonly closed: (event: Closed) => void;
}

type Receiver =
  | { readonly signer: OpenedSigner }
  | { readonly dealer: DealerProcess; readonly plan: Plan; readonly planOctets: Uint8Array };

interface Gathering {
  readonly ceremony: OpenCeremony;
  readonly key: Key;
  readonly keyId: string;
  readonly shareSet: ShareSet;
  readonly shareSetDigest: string;
  readonly receiver: Receiver;
  readonly unlocker: UnlockerProcess;
  /** Digest of its statement; undefined until there is one. */
  digest: string | undefined;
  state: "starting" | "gathering" | "opening" | "over";
  /** Those that the unlocker has taken. */
  readonly submissions: Signed[];
}

/** An event, told once at most. */
interface Announcement {
  readonly keyId: string;
  tell(reason: Closed["reason"]): void;
  forget(): void;
}

export function unlocks(parts: UnlocksParts): Unlocks {
  const { ceremonies, keys, log, notes, roster, stateFile, now } = parts;
  const gatherings = new Set<Gathering>();
  /** Of what is open, by the digest of its unlock. */
  const openings = new Map<string, Announcement>();

  function requireCalm(keyId: string): void {
    if (stateFile.state.panic !== null) throw inPanic();
    if (stateFile.state.held[keyId] !== undefined) {
      throw new CountersignError("key-held", "an operator has locked this key");
    }
  }

  function requireFree({ opened }: Key, keyId: string): void {
    const busy = [...gatherings].some((one) => one.keyId === keyId && one.state === "opening");
    if (opened !== undefined || busy) {
      throw new CountersignError(
        "unlock-busy",
        "the key is open for another ceremony; lock it first, or wait for its end",
      );
    }
  }

  /** One that was dealt opens nothing before everybody has confirmed it, and one that was replaced nothing any more. */
  function requireActive(keyId: string, shareSet: string): void {
    const active = stateFile.state.seals[keyId];
    if (active?.shareSet === shareSet) return;
    throw new CountersignError(
      "share-stale",
      active === undefined
        ? "no share set of this key is active: all of its custodians have to confirm their shares first"
        : `this is not the active share set of the key, which has epoch ${active.epoch}`,
    );
  }

  /** The share set of a key that opens it now. */
  function readShares(note: string, sealed: Uint8Array, keyId: string): [ShareSet, string] {
    const { octets, digest } = notes.open(note, roster.identityKeys);
    const shareSet = readShareSet(octets);
    if (shareSet.keyId !== keyId) {
      throw new CountersignError("ceremony-refused", "the share set is that of another key");
    }
    requireActive(keyId, digest);
    if (digestOf(sealed) !== shareSet.sealed) {
      throw new CountersignError(
        "sealed-key-corrupt",
        "the sealed key and its share set do not belong together: restore both from one backup",
      );
    }
    return [shareSet, digest];
  }

  /** What keeps a window from being opened from now on. */
  function requireWindow({ statement: { window, policy } }: OpenCeremony): void {
    if (window === undefined) return;
    if (Date.parse(window.notAfter) <= now().getTime()) {
      throw new CountersignError("ceremony-closed", "the window is over");
    }
    if (policy !== parts.policy) {
      throw new CountersignError(
        "ceremony-refused",
        "the policy has changed since the window was proposed: propose it again",
      );
    }
  }

  function startReceiver(
    ceremony: OpenCeremony,
    key: Key,
    planOctets: Uint8Array | undefined,
  ): Receiver {
    if (ceremony.statement.kind !== "reshare") {
      const { token } = key.config;
      return {
        signer: startOpenedSigner({
          log: log.feed,
          statements: parts.statements,
          ...(token === undefined ? {} : { token: { environment: parts.tokenEnvironment } }),
        }),
      };
    }
    if (planOctets === undefined) {
      throw new CountersignError("plan-invalid", "a reshare needs its plan");
    }
    const plan = ceremonies.planOf(ceremony, planOctets);
    return { dealer: startDealer({}), plan, planOctets };
  }

  function start(
    ceremony: OpenCeremony,
    key: Key,
    [shareSet, shareSetDigest]: readonly [ShareSet, string],
    { plan, gatherSeconds }: UnlockRequest,
  ): Gathering {
    const receiver = startReceiver(ceremony, key, plan);
    const process = processOf(receiver);
    let unlocker: UnlockerProcess;
    try {
      unlocker = startUnlocker({ handOff: process.handOff, gatherSeconds });
    } catch (error) {
      process.kill();
      throw error;
    }
    const gathering: Gathering = {
      ceremony,
      key,
      keyId: shareSet.keyId,
      shareSet,
      shareSetDigest,
      receiver,
      unlocker,
      digest: undefined,
      state: "starting",
      submissions: [],
    };
    gatherings.add(gathering);
    void unlocker.ended.then((end) => {
      // One that has opened ends by itself, and so does one that is being opened and fails.
      if (gathering.state !== "opening") finish(gathering, end === "expired" ? end : "ended");
    });
    void process.ended.then(() => {
      if (gathering.state !== "opening") finish(gathering, "ended");
    });
    return gathering;
  }

  /** Ends the processes at once; with a reason, whoever knows of the unlock is told. */
  function finish(gathering: Gathering, reason?: Closed["reason"]): void {
    if (gathering.state === "over") return;
    gathering.state = "over";
    gatherings.delete(gathering);
    gathering.unlocker.kill();
    processOf(gathering.receiver).kill();
    const { digest, ceremony, keyId } = gathering;
    if (reason !== undefined && digest !== undefined) {
      parts.closed({ what: "unlock", unlock: digest, ceremony: ceremony.digest, keyId, reason });
    }
  }

  /** A key that was locked meanwhile has ended the processes. */
  function requireAlive({ state, keyId }: Gathering): void {
    if (state !== "over") return;
    requireCalm(keyId);
    throw new CountersignError("unlock-closed", "the unlock was ended meanwhile");
  }

  function gatheringOf(unlock: string): Gathering {
    const gathering = [...gatherings].find(({ digest }) => digest === unlock);
    if (gathering === undefined) {
      throw new CountersignError("unlock-unknown", "there is no such unlock, or it has ended");
    }
    if (gathering.state === "opening") {
      throw new CountersignError("unlock-closed", "the key is being opened");
    }
    return gathering;
  }

  /** What people said with their submissions; a share counts only if the unlocker has taken it. */
  function submitted(gathering: Gathering, further: readonly Signed[]): Verdict[] {
    const { submissions, digest } = gathering;
    const people = roster.require();
    const verdicts = (all: readonly Signed[]): Verdict[] =>
      all.flatMap((signed) => {
        try {
          return [verdictOfSubmission(checkSubmission(people, digest!, signed))];
        } catch (error) {
          if (error instanceof CountersignError) return []; // of who has left, or has other keys now
          throw error;
        }
      });
    return [...verdicts(submissions), ...verdicts(further).filter(({ agrees }) => !agrees)];
  }

  function grantFor(ceremony: OpenCeremony, { config }: Key): Grant {
    const { artefacts = [], window, policy } = ceremony.statement;
    if (window === undefined) {
      const digests = [...new Set(artefacts.map(({ tbs }) => tbs))];
      return { digests, seconds: SIGN_SECONDS };
    }
    const { crlUrl, caIssuersUrl } = config;
    return {
      window,
      policy,
      maximumCrlLifetime: WINDOW_CRL_LIFETIME,
      ...(crlUrl === undefined ? {} : { crlUrl }),
      ...(caIssuersUrl === undefined ? {} : { caIssuersUrl }),
    };
  }

  async function openSigner(gathering: Gathering, signer: OpenedSigner): Promise<void> {
    const { ceremony, key, keyId } = gathering;
    const { token } = key.config;
    const { publicKey } = await signer.open(() => ({
      ...key.described(),
      grant: grantFor(ceremony, key),
      alreadySigned: 0,
      usedDigests: [],
      sealed:
        token === undefined ? { payload: "pkcs8", keyId } : { payload: "pin", keyId, ...token },
    }));
    requireAlive(gathering);
    admit(gathering, signer, publicKey);
  }

  function admit(gathering: Gathering, signer: OpenedSigner, publicKey: Uint8Array): void {
    const { ceremony, key, keyId } = gathering;
    const unlock = gathering.digest!;
    const { window, policy } = ceremony.statement;
    const opened: Opened = {
      signer,
      publicKey,
      unlock,
      ceremony: ceremony.digest,
      ...(window === undefined
        ? {}
        : {
            window: {
              operations: [...new Set(window.operations.map(({ operation }) => operation))],
              notBefore: new Date(window.notBefore),
              notAfter: new Date(window.notAfter),
              policy,
            },
          }),
    };
    const announcement: Announcement = {
      keyId,
      tell(reason) {
        if (openings.get(unlock) !== announcement) return;
        openings.delete(unlock);
        parts.closed({ what: "key", unlock, ceremony: ceremony.digest, keyId, reason });
      },
      forget: () => void openings.delete(unlock),
    };
    openings.set(unlock, announcement);
    key.admit(opened);
    void signer.ended.then((reason) => announcement.tell(reason === "killed" ? "ended" : reason));
    // The unlocker has handed over and ends by itself; the signer is the key's now.
    gathering.state = "over";
    gatherings.delete(gathering);
  }

  async function reshare(
    gathering: Gathering,
    { dealer, plan, planOctets }: Extract<Receiver, { dealer: DealerProcess }>,
  ): Promise<Dealt> {
    const dealt = await dealer.deal({
      plan: planOctets,
      planDigest: digestOf(planOctets),
      secret: "hand-off",
      publicKey: Buffer.from(gathering.shareSet.publicKey, "base64"),
    });
    requireAlive(gathering);
    checkDealt(dealt, plan, digestOf(planOctets), gathering.keyId);
    const { note } = notes.state(dealt.shareSetOctets);
    ceremonies.finish(gathering.ceremony);
    finish(gathering);
    return { sealed: dealt.sealed, files: dealt.files, shareSet: note };
  }

  return {
    async unlock(request) {
      const ceremony = ceremonies.read(request.note, "sign", "window", "reshare");
      const keyId = ceremony.statement.keyId!;
      const key = keys.of(keyId);
      roster.require();
      requireCalm(keyId);
      requireWindow(ceremony);
      const [shareSet, shareSetDigest] = readShares(request.shareSet, request.sealed, keyId);
      requireFree(key, keyId);
      const { requestedBy } = ceremony.statement;
      for (const { ceremony: other, keyId: gathered } of gatherings) {
        if (gathered === keyId && other.statement.requestedBy === requestedBy) {
          throw new CountersignError(
            "unlock-busy",
            `shares are being gathered for this key and a ceremony of ${requestedBy} already`,
          );
        }
      }
      log.requireHead();
      const gathering = start(ceremony, key, [shareSet, shareSetDigest], request);
      try {
        const recipient = await gathering.unlocker.begin();
        requireAlive(gathering);
        const head = log.requireHead();
        const octets = Buffer.from(
          canonicalJson({
            type: "countersign/unlock/v1",
            id: Buffer.from(parts.random(16)).toString("hex"),
            service: parts.service,
            ceremony: ceremony.digest,
            keyId,
            epoch: shareSet.epoch,
            threshold: shareSet.threshold,
            shareCount: shareSet.shareCount,
            shareSet: shareSetDigest,
            roster: roster.require().digest,
            recipient,
            gatherSeconds: request.gatherSeconds,
            log: { origin: parts.origin, size: head.end, root: base64(head.root()) },
          }),
        );
        readUnlock(octets);
        const stated = notes.state(octets);
        await gathering.unlocker.state({
          genesis: roster.genesis,
          rosters: roster.versions,
          identityKey: notes.verifierKey,
          ceremony: request.note,
          unlock: stated.note,
          shareSet: request.shareSet,
          sealed: request.sealed,
        });
        requireAlive(gathering);
        gathering.digest = stated.digest;
        gathering.state = "gathering";
        return stated;
      } catch (error) {
        finish(gathering);
        throw error;
      }
    },
    async submit(unlock, submission, share) {
      const gathering = gatheringOf(unlock);
      const progress = await gathering.unlocker.submit(submission, share);
      gathering.submissions.push(submission);
      return progress;
    },
    async open({ unlock, votes, submissions, record }) {
      const gathering = gatheringOf(unlock);
      const { ceremony, key, keyId, shareSet, receiver } = gathering;
      const { kind } = ceremony.statement;
      requireCalm(keyId);
      requireFree(key, keyId);
      // A reshare may have come in between: who gave the old shares may not be asked any more.
      requireActive(keyId, gathering.shareSetDigest);
      if (ceremonies.read(votes.note, kind).digest !== ceremony.digest) {
        throw new CountersignError("ceremony-refused", "the unlock is of another ceremony");
      }
      requireWindow(ceremony);
      if ("dealer" in receiver) ceremonies.planOf(ceremony, receiver.planOctets);
      ceremonies.requireVotes(
        ceremony,
        votes.approvals,
        {
          shares: {
            threshold: shareSet.threshold,
            custodians: shareSet.custodians.map(({ operator }) => operator),
          },
          // Of a reshare those who are to hold the new shares, too: a recipient that nobody confirmed is a way out.
          ...("dealer" in receiver
            ? { everyone: receiver.plan.custodians.map(({ operator }) => operator) }
            : {}),
        },
        submitted(gathering, submissions),
      );
      ceremonies.requireRecord(
        record,
        "key.unlocked",
        ({ subject }) =>
          subject.unlock === unlock &&
          subject.ceremony === ceremony.digest &&
          subject.keyId === keyId,
      );
      gathering.state = "opening";
      // The old way in must not sign beside the new one.
      if ("signer" in receiver) key.endSigner();
      try {
        // 1. The ceremony counts as carried out. A crash here leaves it so, and the key locked: it needs another one.
        if ("signer" in receiver) ceremonies.finish(ceremony);
        // 2. The secret goes from the unlocker to the signer or the dealer. A crash ends both.
        await gathering.unlocker.open({ approvals: votes.approvals, rosters: roster.versions });
        requireAlive(gathering);
        // 3. It is used. A reshare counts as carried out when its shares are made: until then it can be tried again.
        if ("dealer" in receiver) return await reshare(gathering, receiver);
        await openSigner(gathering, receiver.signer);
        return undefined;
      } catch (error) {
        key.start(); // one without a seal is what it was
        if (gathering.state === "opening" && isStillGathering(error)) {
          if ("signer" in receiver) ceremonies.reopen(ceremony);
          gathering.state = "gathering";
        } else {
          finish(gathering);
        }
        throw error;
      }
    },
    end(unlock) {
      const gathering = [...gatherings].find(({ digest }) => digest === unlock);
      if (gathering !== undefined) finish(gathering);
      openings.get(unlock)?.forget();
      for (const key of keys.all) {
        if (key.opened?.unlock === unlock) key.endSigner();
      }
    },
    endKey(keyId, reason) {
      for (const gathering of gatherings) {
        if (gathering.keyId === keyId) finish(gathering, reason);
      }
      for (const announcement of openings.values()) {
        if (announcement.keyId === keyId) announcement.tell(reason);
      }
    },
    endAll(reason) {
      for (const gathering of gatherings) finish(gathering, reason);
      for (const announcement of openings.values()) announcement.tell(reason);
    },
    stop() {
      for (const gathering of gatherings) finish(gathering);
      openings.clear();
    },
  };
}

/** Whether an unlocker has refused to open, and has done nothing. */
function isStillGathering(error: unknown): boolean {
  return (
    error instanceof CountersignError &&
    (error.code === "ceremony-refused" || error.code === "ceremony-closed")
  );
}

function processOf(receiver: Receiver): OpenedSigner | DealerProcess {
  return "signer" in receiver ? receiver.signer : receiver.dealer;
}
