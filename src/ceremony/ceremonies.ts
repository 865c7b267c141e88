/** Ceremonies: what is proposed, who agrees, and who wants an end to it. CUSTODY.md 6. */

import { digestOf } from "../audit/digest.ts";
import { encodeEntry } from "../audit/entry.ts";
import { readAbort, readResume } from "../custody/personal-statement.ts";
import { readPlan } from "../custody/plan.ts";
import { namespaces, readCeremony, type Approval, type Signed } from "../custody/statement.ts";
import { checkApproval, CUSTODIAN, OPERATOR } from "../custody/votes.ts";
import { CountersignError } from "../errors.ts";
import { actorOf } from "../issuance/caller.ts";
import { checkSeenHead } from "../issuance/seen-head.ts";
import { recordRefusal, requireSigned, verifying } from "./credentials.ts";
import type { EnrolmentBook } from "./enrolments.ts";
import type { Failures } from "./failures.ts";
import type { CeremonyProposal } from "./keeper.ts";
import { evidenceOf, notedJson, signer } from "./log-words.ts";
import type { CeremonyParts, Progress } from "./progress.ts";
import type { StoredCeremony } from "./records.ts";
import { previewArtefacts } from "./sign-run.ts";
import type {
  Ceremonies,
  CeremonyFilter,
  CeremonyView,
  OperatorCaller,
  ProposeCommand,
} from "./view.ts";
import { ceremonyView, findCeremony } from "./views.ts";

/** DESIGN, "Defaults". */
export const LIFETIME_MILLISECONDS = 7 * 86_400_000;

/** What a list shows at most. */
const PAGE = 100;

export class CeremonyBook implements Ceremonies {
  readonly #parts: CeremonyParts & { readonly failures: Failures };
  readonly #progress: Progress;
  readonly #enrolments: EnrolmentBook;

  constructor(
    parts: CeremonyParts & { readonly failures: Failures },
    progress: Progress,
    enrolments: EnrolmentBook,
  ) {
    this.#parts = parts;
    this.#progress = progress;
    this.#enrolments = enrolments;
  }

  async propose(command: ProposeCommand, by: OperatorCaller): Promise<CeremonyView> {
    const { journal, keeper, now } = this.#parts;
    const { kind, plan, signatures } = command;
    const { proposal, objects } = await this.#proposal(command, by);
    const { digest, note } = await keeper.statement(proposal);
    const statement = readCeremony(notedJson(note));
    let leaf: Uint8Array;
    try {
      leaf = encodeEntry({
        type: "ceremony.opened",
        at: now(),
        actor: actorOf(by),
        subject: {
          ceremony: digest,
          ...(statement.keyId === undefined ? {} : { keyId: statement.keyId }),
        },
        data: {
          kind,
          note,
          ...(plan === undefined ? {} : { plan: Buffer.from(plan).toString("base64") }),
          ...(kind === "roster" && signatures !== undefined
            ? { signatures: signatures.map(({ operator, signature }) => ({ operator, signature })) }
            : {}),
        },
      });
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw refused("it does not fit into a record of the log: propose it in parts", error);
    }
    // Nobody has seen the statement yet. A crash here leaves one that nobody will.
    await journal.append({
      kind: "ceremony",
      leaf,
      row: {
        digest,
        id: statement.id,
        kind,
        keyId: statement.keyId ?? null,
        proposer: by.id,
        note,
        notAfter: new Date(statement.notAfter),
        createdAt: now(),
      },
      objects,
    });
    this.#progress.watch(digest, new Date(statement.notAfter));
    return this.view(digest);
  }

  async approve(idOrDigest: string, signed: Signed, address: string): Promise<CeremonyView> {
    const { reads, rosters, journal, now } = this.#parts;
    const { digest } = await findCeremony(reads, idOrDigest);
    const approval = verifying(this.#parts, address, () =>
      checkApproval(rosters.inForce, digest, signed),
    );
    const { operator, verdict, role } = approval;
    await this.#progress.inTurn(digest, async () => {
      try {
        await this.#requireAcceptable(await findCeremony(reads, digest), approval);
      } catch (error) {
        if (error instanceof CountersignError) {
          const { code } = error;
          await recordRefusal(this.#parts, operator, signed, code, (said) => ({
            type: "approval.refused",
            subject: { ceremony: digest },
            data: { code },
            ...said,
          }));
        }
        throw error;
      }
      await journal.append({
        kind: "approval",
        leaf: encodeEntry({
          type: "approval.accepted",
          at: now(),
          actor: signer(operator),
          subject: { ceremony: digest },
          data: { verdict, role },
          evidence: evidenceOf(signed),
        }),
        row: {
          ceremony: digest,
          operator,
          verdict,
          role,
          statement: signed.statement,
          signature: signed.signature,
          at: now(),
        },
      });
      await this.#progress.proceed(digest);
    });
    return this.view(digest);
  }

  async abort(idOrDigest: string, signed: Signed, address: string): Promise<CeremonyView> {
    const { reads, rosters, journal, now } = this.#parts;
    const { digest } = await findCeremony(reads, idOrDigest);
    const { operator, reason, log } = verifying(this.#parts, address, () => {
      const abort = readAbort(signed.statement);
      if (abort.ceremony !== digest) {
        throw new CountersignError("statement-stale", "the statement is about another ceremony");
      }
      requireSigned(rosters.inForce, abort.operator, namespaces.abort, signed);
      return abort;
    });
    await checkSeenHead(log, this.#parts);
    await this.#progress.inTurn(digest, async () => {
      const ceremony = await findCeremony(reads, digest);
      this.#requireAbortable(ceremony);
      await this.#progress.requireDroppable(ceremony);
      const before = await reads.aborts(digest);
      if (before.some((row) => row.operator === operator)) {
        throw new CountersignError(
          "approval-repeated",
          `${operator} has asked for this already: one more operator must`,
        );
      }
      await journal.append({
        kind: "abort",
        leaf: encodeEntry({
          type: "ceremony.step",
          at: now(),
          actor: signer(operator),
          subject: { ceremony: digest },
          data: { state: "abort-asked", reason },
          evidence: evidenceOf(signed),
        }),
        row: { ceremony: digest, operator, ...signed },
      });
      // One alone must not be able to stop the others; who proposed it may think better of it.
      const others = [...before.map((row) => row.operator), operator].filter((id) =>
        rosters.inForce.operators.has(id),
      );
      if (operator === ceremony.proposer || others.length >= 2) {
        const actor = signer(operator);
        const evidence = evidenceOf(signed);
        await this.#progress.close(ceremony, "aborted", { reason, actor, evidence });
      }
    });
    return this.view(digest);
  }

  async statement(idOrDigest: string): Promise<string> {
    return (await findCeremony(this.#parts.reads, idOrDigest)).note;
  }

  async plan(idOrDigest: string): Promise<Uint8Array> {
    const { reads } = this.#parts;
    const ceremony = await findCeremony(reads, idOrDigest);
    const { plan } = readCeremony(notedJson(ceremony.note));
    const octets = plan === undefined ? undefined : await reads.object(plan);
    if (octets === undefined) {
      throw new CountersignError(
        "ceremony-unknown",
        `a ceremony of kind ${ceremony.kind} has no document`,
      );
    }
    return octets;
  }

  async view(idOrDigest: string): Promise<CeremonyView> {
    const ceremony = await findCeremony(this.#parts.reads, idOrDigest);
    return ceremonyView(this.#parts, ceremony, this.#progress.troubleOf(ceremony.digest));
  }

  async list(
    filter: CeremonyFilter,
  ): Promise<{ readonly ceremonies: readonly CeremonyView[]; readonly next?: number }> {
    const { state, kind, keyId, cursor, limit } = filter;
    if (state === "draft" || state === "previewed") return { ceremonies: [] };
    const { ceremonies, next } = await this.#parts.reads.ceremonies({
      limit: Math.min(limit, PAGE),
      ...(state === undefined ? {} : { state }),
      ...(kind === undefined ? {} : { kind }),
      ...(keyId === undefined ? {} : { keyId }),
      ...(cursor === undefined ? {} : { cursor }),
    });
    const views = await Promise.all(
      ceremonies.map((one) => ceremonyView(this.#parts, one, this.#progress.troubleOf(one.digest))),
    );
    return { ceremonies: views, ...(next === undefined ? {} : { next }) };
  }

  /** What the keeper is asked to state, and the bytes that the statement names. */
  async #proposal(
    command: ProposeCommand,
    by: OperatorCaller,
  ): Promise<{ proposal: CeremonyProposal; objects: Uint8Array[] }> {
    const { kind, keyId, reason, window, plan, signatures } = command;
    const { service, policy, now } = this.#parts;
    const common = {
      kind,
      reason,
      requestedBy: by.id,
      notAfter: wholeSeconds(command.notAfter ?? new Date(now().getTime() + LIFETIME_MILLISECONDS)),
    };
    const ofPlan = plan === undefined ? {} : { plan };
    const objects = plan === undefined ? [] : [plan];
    switch (kind) {
      case "sign":
        return this.#signProposal(command, common);
      case "window": {
        if (keyId === undefined || window === undefined) {
          throw refused("a window needs a keyId and its limits");
        }
        const unknown = window.operations.find(
          ({ profile, operation }) =>
            operation === "certificate" &&
            profile !== undefined &&
            !policy.policy.profiles.has(profile),
        );
        if (unknown !== undefined) {
          throw refused(`the policy has no profile ${unknown.profile}`);
        }
        return { proposal: { ...common, keyId, window }, objects: [] };
      }
      case "generate":
      case "reshare": {
        if (plan === undefined) throw refused(`a ceremony of kind ${kind} needs a plan`);
        const read = readPlan(plan);
        const of = "use" in read.key ? read.key.use : undefined;
        if (keyId !== undefined && keyId !== of) throw refused("the plan is for another key");
        await this.#requirePeople(read.custodians);
        if (of !== undefined) await this.#requireNoOther(of);
        return {
          proposal: { ...common, ...ofPlan, ...(of === undefined ? {} : { keyId: of }) },
          objects,
        };
      }
      case "roster":
        return {
          proposal: { ...common, ...ofPlan, signatures: signatures ?? [] },
          objects,
        };
      case "resume": {
        if (plan !== undefined && readResume(plan).service !== service) {
          throw refused("the document is for another service");
        }
        return { proposal: { ...common, ...ofPlan }, objects };
      }
      case "policy":
      case "retire":
        throw refused(`there are no ceremonies of kind ${kind} yet`);
    }
  }

  async #signProposal(
    { keyId, artefacts }: ProposeCommand,
    common: Pick<CeremonyProposal, "kind" | "reason" | "requestedBy" | "notAfter">,
  ): Promise<{ proposal: CeremonyProposal; objects: Uint8Array[] }> {
    if (keyId === undefined || artefacts === undefined || artefacts.length === 0) {
      throw refused("a ceremony of kind sign needs a keyId and the bytes that are to be signed");
    }
    const reports = await previewArtefacts(this.#parts, {
      keyId,
      artefacts: artefacts.map(({ tbs }) => tbs),
    });
    const lints = artefacts.map(({ lint }, place) => lint ?? reports[place]!);
    return {
      proposal: {
        ...common,
        keyId,
        artefacts: artefacts.map(({ tbs }, place) => ({
          tbs: digestOf(tbs),
          lint: digestOf(lints[place]!),
        })),
      },
      objects: [...artefacts.map(({ tbs }) => tbs), ...lints],
    };
  }

  /** A recipient that nobody has proved is a way out for a share. */
  async #requirePeople(
    custodians: readonly { readonly operator: string; readonly recipient: string }[],
  ): Promise<void> {
    const { rosters } = this.#parts;
    const unproved: string[] = [];
    for (const { operator, recipient } of custodians) {
      const person = rosters.inForce.operators.get(operator);
      if (person !== undefined && person.recipient !== recipient) {
        throw new CountersignError(
          "recipient-refused",
          `the recipient of ${operator} is not the one in the roster`,
        );
      }
      // oxlint-disable-next-line no-await-in-loop -- thirty-two at most
      if (!(await this.#enrolments.isProved(operator, recipient))) unproved.push(operator);
    }
    if (unproved.length === 0) return;
    throw new CountersignError(
      "recipient-refused",
      `not proved yet: the age recipient of ${unproved.join(", ")}. Each reads their challenge first ` +
        "(countersign enrol prove)",
    );
  }

  /** Two changes of the shares of one key would each make the other's shares worthless. */
  async #requireNoOther(keyId: string): Promise<void> {
    const [pending] = await this.#parts.reads.shareSets({ keyId, state: "pending" });
    if (pending === undefined) return;
    throw refused(
      `ceremony ${pending.ceremony} has dealt shares of this key that wait to be confirmed: finish or abort it first`,
    );
  }

  /** @throws CountersignError `ceremony-closed`, `approval-stale`, `approval-malformed`, `approval-repeated`. */
  async #requireAcceptable(
    { digest, note, state, notAfter }: StoredCeremony,
    { operator, role, log }: Approval,
  ): Promise<void> {
    const { reads, rosters, now } = this.#parts;
    if (state !== "gathering" || now() >= notAfter) {
      throw new CountersignError("ceremony-closed", "the ceremony takes no approvals any more");
    }
    await checkSeenHead(log, this.#parts, "approval-stale");
    const statement = readCeremony(notedJson(note));
    if (log.size < statement.log.size) {
      throw new CountersignError(
        "approval-stale",
        "the approval names a head of the log before that in the statement",
      );
    }
    const { roles = [] } = rosters.inForce.operators.get(operator) ?? {};
    if (role !== OPERATOR && role !== CUSTODIAN && !roles.includes(role)) {
      throw new CountersignError(
        "approval-malformed",
        `the roster does not give ${operator} the role ${role}`,
      );
    }
    if ((await reads.approvals(digest)).some((row) => row.operator === operator)) {
      throw new CountersignError(
        "approval-repeated",
        `${operator} has spoken already, and what was said stands`,
      );
    }
  }

  #requireAbortable({ state }: StoredCeremony): void {
    if (state === "gathering" || state === "pending" || state === "unlocked") return;
    throw new CountersignError("ceremony-closed", "the ceremony is over");
  }
}

function wholeSeconds(time: Date): Date {
  return new Date(Math.floor(time.getTime() / 1000) * 1000);
}

function refused(detail: string, cause?: unknown): CountersignError {
  return new CountersignError("ceremony-refused", detail, { cause });
}
