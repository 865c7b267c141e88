/** Rule 11 of AUDIT-LOG 9.6 for ceremonies, unlocks and shares: what people signed, and how far it has gone. */

import {
  abortDifferences,
  approvalDifferences,
  ceremonyDifferences,
  isList,
  isObject,
  rosterDifferences,
  shareDifferences,
  shareSetDifferences,
  signedText,
  statedIn,
  submissionDifferences,
  unlockDifferences,
  type ApprovalRow,
  type CeremonyRow,
  type RecordedShare,
  type RosterVersionRow,
  type ShareSetRow,
  type SignedRow,
  type Stated,
  type SubmissionRow,
  type UnlockRow,
} from "./custody-rows.ts";
import type { CustodyRows } from "./database-custody-rows.ts";
import type { Json } from "./canonical-json.ts";
import { ceremonyStates, type LogEntry, type LogEntryOf } from "./entry.ts";
import type { Findings } from "./findings.ts";
import type { RowCursor } from "./row-cursor.ts";

const known: ReadonlySet<string> = new Set(ceremonyStates);

/** Makes the cursor of a table. */
export type MakeCursor = <Row extends { readonly index: number }>(
  rows: AsyncIterable<Row>,
  table: string,
  nameOf: (row: Row) => string,
) => RowCursor<Row>;

/** How far something has gone, as the log says. */
interface Course {
  /** Absent where it is missing, which was reported. */
  readonly position: string | undefined;
  readonly row: { readonly state: string; readonly changedIndex: number } | undefined;
  state: string;
  changedIndex: number;
}

interface Ceremony extends Course {
  readonly note: string;
  /** What people approved, as {@link signedText}. */
  readonly approvals: Set<string>;
  readonly shareSets: ShareSet[];
}

interface ShareSet extends Course {
  readonly ceremony: Ceremony | undefined;
  readonly sealed: Json | undefined;
  readonly sealedSha256: string | null | undefined;
  readonly shares: Map<number, RecordedShare>;
}

export class CustodyCheck {
  readonly #rows: CustodyRows;
  readonly #findings: Findings;
  readonly #rosters: RowCursor<RosterVersionRow>;
  readonly #ceremonyRows: RowCursor<CeremonyRow>;
  readonly #approvals: RowCursor<ApprovalRow>;
  readonly #aborts: RowCursor<SignedRow>;
  readonly #unlockRows: RowCursor<UnlockRow>;
  readonly #submissions: RowCursor<SubmissionRow>;
  readonly #shareSetRows: RowCursor<ShareSetRow>;
  readonly #ceremonies = new Map<string, Ceremony>();
  readonly #unlocks = new Map<string, Course>();
  readonly #shareSets = new Map<string, ShareSet>();
  /** By key. */
  readonly #active = new Map<string, ShareSet>();
  /** Objects that are stored, and whether a record has named them. */
  readonly #objects = new Map<string, boolean>();

  constructor(rows: CustodyRows, findings: Findings, cursor: MakeCursor) {
    this.#rows = rows;
    this.#findings = findings;
    const signedName = ({ about, operator }: SignedRow) => `${about}/${operator}`;
    this.#rosters = cursor(rows.rosterVersions(), "roster_version", ({ version }) =>
      String(version),
    );
    this.#ceremonyRows = cursor(rows.ceremonies(), "ceremony", ({ digest }) => digest);
    this.#approvals = cursor(rows.approvals(), "approval", signedName);
    this.#aborts = cursor(rows.aborts(), "abort", signedName);
    this.#unlockRows = cursor(rows.unlocks(), "unlock", ({ digest }) => digest);
    this.#submissions = cursor(rows.submissions(), "submission", signedName);
    this.#shareSetRows = cursor(rows.shareSets(), "share_set", ({ digest }) => digest);
  }

  /** Before the first entry. */
  async begin(): Promise<void> {
    for await (const { digest, bytesSha256 } of this.#rows.objects()) {
      this.#objects.set(digest, false);
      if (bytesSha256 === digest) continue;
      this.#findings.add(`object ${digest}`, "its bytes have another digest");
    }
  }

  async entry(index: number, entry: LogEntry): Promise<void> {
    if (entry.type === "sign.done") {
      // What was signed may be kept beside what was to be signed.
      for (const value of Object.values(entry.data)) this.#name(value);
    } else if (entry.type === "roster.changed") {
      await this.#roster(index, entry);
    } else if (entry.type === "ceremony.opened") {
      await this.#ceremony(index, entry);
    } else if (entry.type === "ceremony.step" && entry.data.state === "abort-asked") {
      await this.#signed(this.#aborts, "abort", index, entry, (row) =>
        abortDifferences(row, entry),
      );
    } else if (entry.type === "ceremony.step" || entry.type === "ceremony.closed") {
      const { state } = entry.data;
      // A step may also say what is about to be done.
      if (!known.has(state)) return;
      this.#move(this.#ceremonies.get(entry.subject.ceremony), index, state);
    } else if (entry.type === "approval.accepted") {
      this.#ceremonies.get(entry.subject.ceremony)?.approvals.add(signedText(entry.evidence));
      await this.#signed(this.#approvals, "approval", index, entry, (row) =>
        approvalDifferences(row, entry),
      );
    } else if (entry.type === "unlock.opened") {
      await this.#unlock(index, entry);
    } else if (entry.type === "unlock.closed") {
      advance(this.#unlocks.get(entry.subject.unlock), index, entry.data.state);
    } else if (
      entry.type === "share.accepted" ||
      // A share that was refused is no row; somebody who refuses to give one is.
      (entry.type === "share.refused" && entry.data?.verdict !== undefined)
    ) {
      await this.#signed(this.#submissions, "submission", index, entry, (row) =>
        submissionDifferences(row, entry),
      );
    } else if (entry.type === "key.generated") {
      await this.#shareSet(index, entry);
    } else if (entry.type === "share.confirmed") {
      const share = this.#shareSets.get(entry.subject.shareSet)?.shares.get(entry.data.index);
      if (share !== undefined) share.confirmed = { index, evidence: entry.evidence };
    } else if (entry.type === "share.drill") {
      const share = this.#shareSets.get(entry.subject.shareSet)?.shares.get(entry.data.index);
      if (share !== undefined) share.proved = { index, at: entry.at };
    } else if (entry.type === "share-set.activated") {
      this.#activated(index, entry);
    }
  }

  /** After the last entry. */
  async finish(): Promise<void> {
    await this.#rosters.finish();
    await this.#ceremonyRows.finish();
    await this.#approvals.finish();
    await this.#aborts.finish();
    await this.#unlockRows.finish();
    await this.#submissions.finish();
    await this.#shareSetRows.finish();
    for (const courses of [this.#ceremonies, this.#unlocks, this.#shareSets]) {
      for (const course of courses.values()) this.#course(course);
    }
    for (const set of this.#shareSets.values()) this.#sealed(set);
    await this.#shares();
    for (const [digest, named] of this.#objects) {
      if (!named) this.#findings.add(`object ${digest}`, "it has no record: nothing names it");
    }
  }

  async #roster(index: number, entry: LogEntryOf<"roster.changed">): Promise<void> {
    const row = await this.#at(this.#rosters, index, entry, "roster_version");
    if (row === undefined) return;
    const { ceremony } = entry.data;
    const recorded = ceremony === undefined ? undefined : this.#ceremonies.get(ceremony);
    this.#differing(
      `roster_version ${row.version}`,
      index,
      rosterDifferences(row, entry, recorded),
    );
  }

  /** What one person signed. */
  async #signed<Row extends SignedRow>(
    cursor: RowCursor<Row>,
    table: string,
    index: number,
    entry: LogEntry,
    differences: (row: Row) => string[],
  ): Promise<void> {
    const row = await this.#at(cursor, index, entry, table);
    if (row === undefined) return;
    this.#differing(`${table} ${row.about}/${row.operator}`, index, differences(row));
  }

  async #unlock(index: number, entry: LogEntryOf<"unlock.opened">): Promise<void> {
    const row = await this.#at(this.#unlockRows, index, entry, "unlock");
    const position = row && `unlock ${row.digest}`;
    if (row !== undefined) {
      this.#differing(position!, index, unlockDifferences(row, entry, statedIn(entry.data.note)));
    }
    const course = { position, row, state: "gathering", changedIndex: index };
    this.#unlocks.set(entry.subject.unlock, course);
  }

  async #ceremony(index: number, entry: LogEntryOf<"ceremony.opened">): Promise<void> {
    const stated = statedIn(entry.data.note);
    const row = await this.#at(this.#ceremonyRows, index, entry, "ceremony");
    const position = row && `ceremony ${row.digest}`;
    if (row !== undefined) {
      this.#differing(position!, index, ceremonyDifferences(row, entry, stated));
    }
    this.#ceremonies.set(entry.subject.ceremony, {
      position,
      row,
      note: entry.data.note,
      approvals: new Set(),
      shareSets: [],
      state: "gathering",
      changedIndex: index,
    });
    this.#nameAll(stated, index);
  }

  /** A TBS and a plan must be there; the rest may have been shown otherwise. */
  #nameAll(stated: Stated | undefined, index: number): void {
    const { plan, script, exemptions, artefacts } = stated?.members ?? {};
    const list = isList(artefacts) ? artefacts.filter(isObject) : [];
    for (const digest of [script, exemptions, ...list.map(({ lint }) => lint)]) this.#name(digest);
    for (const digest of new Set([plan, ...list.map(({ tbs }) => tbs)])) {
      if (typeof digest !== "string" || this.#name(digest)) continue;
      this.#findings.add(`entry ${index}`, `this ceremony.opened has no row in object: ${digest}`);
    }
  }

  /** @returns Whether it is stored. */
  #name(digest: Json | undefined): boolean {
    if (typeof digest !== "string" || !this.#objects.has(digest)) return false;
    this.#objects.set(digest, true);
    return true;
  }

  async #shareSet(index: number, entry: LogEntryOf<"key.generated">): Promise<void> {
    const stated = statedIn(entry.data.note);
    const row = await this.#at(this.#shareSetRows, index, entry, "share_set");
    const position = row && `share_set ${row.digest}`;
    if (row !== undefined) {
      this.#differing(position!, index, shareSetDifferences(row, entry, stated));
    }
    const shares = new Map<number, RecordedShare>();
    const { custodians, sealed } = stated?.members ?? {};
    for (const custodian of isList(custodians) ? custodians : []) {
      if (!isObject(custodian) || typeof custodian.index !== "number") continue;
      shares.set(custodian.index, { operator: custodian.operator, file: custodian.file });
    }
    const ceremony = this.#ceremonies.get(entry.subject.ceremony);
    const set: ShareSet = {
      position,
      row,
      ceremony,
      sealed,
      sealedSha256: row?.sealedSha256,
      shares,
      state: "pending",
      changedIndex: index,
    };
    this.#shareSets.set(entry.subject.shareSet, set);
    ceremony?.shareSets.push(set);
    this.#move(ceremony, index, "pending");
  }

  #activated(index: number, { subject }: LogEntryOf<"share-set.activated">): void {
    const set = this.#shareSets.get(subject.shareSet);
    if (set === undefined) return;
    advance(this.#active.get(subject.keyId), index, "retired");
    this.#active.set(subject.keyId, set);
    advance(set, index, "active");
    this.#move(set.ceremony, index, "applied");
  }

  /** A ceremony that ends without what it waited for takes its share set with it. */
  #move(ceremony: Ceremony | undefined, index: number, state: string): void {
    if (ceremony?.state === "pending" && state !== "applied") {
      for (const set of ceremony.shareSets) {
        if (set.state === "pending") advance(set, index, "dropped");
      }
    }
    advance(ceremony, index, state);
  }

  #course({ position, row, state, changedIndex }: Course): void {
    if (row === undefined || (row.state === state && row.changedIndex === changedIndex)) return;
    this.#findings.add(
      position!,
      `it is ${row.state} since entry ${row.changedIndex}, and the log says ${state}, since entry ${changedIndex}`,
    );
  }

  #sealed({ position, row, state, sealed, sealedSha256 }: ShareSet): void {
    if (row === undefined) return;
    const gone = state === "retired" || state === "dropped";
    if (sealedSha256 !== (gone ? null : sealed)) {
      this.#findings.add(
        position!,
        gone
          ? `it is ${state}, and what it sealed is still there: sealed`
          : "what is sealed is not what the share set says: sealed",
      );
    }
  }

  async #shares(): Promise<void> {
    const seen = new Map<ShareSet, Set<number>>();
    for await (const row of this.#rows.shares()) {
      const position = `share ${row.shareSet}/${row.index}`;
      const set = this.#shareSets.get(row.shareSet);
      const share = set?.shares.get(row.index);
      if (set === undefined || share === undefined) {
        this.#findings.add(position, "it has no record: no share set of the log has it");
        continue;
      }
      if (!seen.has(set)) seen.set(set, new Set());
      seen.get(set)!.add(row.index);
      const over = set.state === "retired" || set.state === "dropped";
      const wrong = shareDifferences(row, share, over);
      if (wrong.length > 0) {
        this.#findings.add(
          position,
          `it is not what the share set and the records of it say: ${wrong.join(", ")}`,
        );
      }
    }
    for (const [digest, set] of this.#shareSets) {
      for (const index of set.shares.keys()) {
        if (seen.get(set)?.has(index) === true) continue;
        this.#findings.add(`share_set ${digest}`, `its share ${index} has no row in share`);
      }
    }
  }

  async #at<Row>(
    cursor: RowCursor<Row>,
    index: number,
    { type }: LogEntry,
    table: string,
  ): Promise<Row | undefined> {
    const row = await cursor.at(index);
    if (row === undefined) {
      this.#findings.add(`entry ${index}`, `this ${type} has no row in ${table}`);
    }
    return row;
  }

  #differing(position: string, index: number, columns: readonly string[]): void {
    if (columns.length === 0) return;
    this.#findings.add(position, `it is not what entry ${index} says: ${columns.join(", ")}`);
  }
}

/** A record of the state that something is in already says no more than the one before it. */
function advance(course: Course | undefined, index: number, state: string): void {
  if (course === undefined || course.state === state) return;
  course.state = state;
  course.changedIndex = index;
}
