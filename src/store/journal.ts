/** The one writer: entries of the log, their rows and their tiles, in one transaction for all that wait. */

import { setImmediate } from "node:timers/promises";
import { equal, leafHash } from "../audit/merkle.ts";
import { MAX_ENTRY_LENGTH, type TileTree } from "../audit/tiles.ts";
import { CountersignError } from "../errors.ts";
import type { CustodyItem, CustodyJournal } from "../ceremony/journal.ts";
import type { JournalItem, LogHeadKeeper } from "../issuance/journal.ts";
import { insertBatch, prepareBatches } from "./batch.ts";
import { custodyError, custodySize, erases, isCustodyItem } from "./custody-batch.ts";
import { sqliteCode, type Connection, type Database, type SqlValue } from "./database.ts";
import { checkLog, type KeeperHead } from "./log-check.ts";

/** What one commit takes at most; the rest waits for the next. */
const MAX_BATCH_ITEMS = 256;
const MAX_BATCH_OCTETS = 1 << 20;

/** How many leaf hashes a start hands to the keeper at a time. */
const CATCH_UP_ENTRIES = 4096;

/** How long a checkpoint waits for a commit to travel with before it gets one of its own. */
const CHECKPOINT_MILLISECONDS = 200;

/** How long a failure counts as trouble: as long as it does, a load balancer may send nobody who would try. */
const TROUBLE_MILLISECONDS = 15_000;

/** How long the answer to an Idempotency-Key is kept. */
const IDEMPOTENCY_MILLISECONDS = 24 * 3_600_000;

/** How long a request to be enrolled waits to be proved. */
const ENROLMENT_MILLISECONDS = 7 * 24 * 3_600_000;

/** How long writing stops, at most, to empty the WAL of what was deleted; and how long until that is tried again. */
const ERASE_MILLISECONDS = 250;
const ERASE_AGAIN_MILLISECONDS = 10_000;

type Item = JournalItem | CustodyItem;

/** The journal as its owner holds it. */
export interface ClosableJournal extends CustodyJournal {
  /** Drains it; what is appended after the call is refused. */
  close(): Promise<void>;
}

export interface JournalParts {
  readonly database: Database;
  readonly keeper: LogHeadKeeper;
  /** From the keeper's status. */
  readonly head: KeeperHead;
  readonly now: () => Date;
}

/**
 * Opens the log: AUDIT-LOG 9.3. What a crash left in the database and not in the keeper's head is signed now. In an
 * empty log the caller's first entry is log.started.
 *
 * @throws CountersignError `rolled-back` if the database is behind the keeper's head, is another log, or contradicts
 *   itself; `head-missing` if there is a log but no head.
 */
export async function openJournal({
  database,
  keeper,
  head,
  now,
}: JournalParts): Promise<ClosableJournal> {
  const { writer } = database;
  const tree = await checkLog(writer, head);
  const checkpoint = await catchUp(writer, keeper, tree, head === "missing" ? 0 : head.size);
  await prepareBatches(writer);
  return startJournal({ writer, keeper, tree, checkpoint, now });
}

interface Checkpoint {
  readonly size: number;
  readonly note: string;
}

/** Signs what the log has beyond the head. */
async function catchUp(
  connection: Connection,
  keeper: LogHeadKeeper,
  tree: TileTree,
  from: number,
): Promise<Checkpoint | undefined> {
  let checkpoint: Checkpoint | undefined;
  for (let first = from; first < tree.size; first += CATCH_UP_ENTRIES) {
    const rows = await connection.all<{ leaf: Uint8Array }>(
      "SELECT leaf FROM audit_entry WHERE idx >= ? ORDER BY idx LIMIT ?",
      [first, CATCH_UP_ENTRIES],
    );
    const signed = await keeper.append(
      first,
      rows.map(({ leaf }) => leafHash(leaf)),
    );
    if (signed.size === tree.size && !equal(signed.root, tree.root())) throw otherHead(signed.size);
    checkpoint = signed;
  }
  return checkpoint;
}

/** Items that are written together, or not at all. */
interface Waiting {
  readonly items: readonly Item[];
  /** With the index of the first. */
  readonly resolve: (index: number) => void;
  readonly reject: (error: unknown) => void;
}

function startJournal(parts: {
  writer: Connection;
  keeper: LogHeadKeeper;
  tree: TileTree;
  checkpoint: Checkpoint | undefined;
  now: () => Date;
}): ClosableJournal {
  const { writer, keeper, tree, now } = parts;
  let { checkpoint } = parts; // signed and not yet stored
  let committed = tree.size;
  let queue: Waiting[] = [];
  let writing = false;
  let signing = 0;
  let doubtful = false; // whether a failed commit may have come through after all
  let failure: { readonly error: CountersignError; readonly at: number } | undefined;
  let stopped: CountersignError | undefined;
  let closed = false;
  let timer: NodeJS.Timeout | undefined;
  let unerased = false; // whether the WAL may hold what was deleted
  let eraser: NodeJS.Timeout | undefined;
  let asides = 0;
  let idle: (() => void)[] = [];
  let fail!: (error: Error) => void;
  const failed = new Promise<Error>((resolve) => (fail = resolve));

  async function write(withCheckpoint: boolean): Promise<void> {
    writing = true;
    clearTimeout(timer);
    if (withCheckpoint && queue.length === 0) await commit([]);
    if (unerased && eraser === undefined) await erase();
    while (queue.length > 0) {
      // What this turn of the event loop still brings travels along.
      await setImmediate();
      await commit(takeBatch());
      if (unerased && eraser === undefined) await erase();
    }
    writing = false;
    rest();
  }

  /** Somebody who reads for long, as a verifier does, keeps the WAL: then it is tried again, now and then. */
  async function erase(): Promise<void> {
    unerased = !(await writer.emptyWal(ERASE_MILLISECONDS).catch(() => false));
    if (!unerased) return;
    eraser = setTimeout(() => {
      eraser = undefined;
      if (!writing && !closed) void write(false);
    }, ERASE_AGAIN_MILLISECONDS).unref();
  }

  function takeBatch(): Waiting[] {
    let octets = 0;
    let items = 0;
    let count = 0;
    for (const waiting of queue) {
      items += waiting.items.length;
      octets += waiting.items.reduce((sum, item) => sum + sizeOf(item), 0);
      if (count > 0 && (items > MAX_BATCH_ITEMS || octets > MAX_BATCH_OCTETS)) break;
      count++;
    }
    const batch = queue.slice(0, count);
    queue = queue.slice(count);
    return batch;
  }

  async function commit(batch: readonly Waiting[]): Promise<void> {
    if (stopped !== undefined) return rejectAll(batch, stopped);
    const before = tree.snapshot();
    const first = tree.size;
    const items = batch.flatMap((waiting) => waiting.items);
    const hashes = items.map(({ leaf }) => leafHash(leaf));
    const carried = checkpoint;
    try {
      if (doubtful) await compareSize(first);
      // 1. Entries, rows and tiles are on disk. A crash before leaves nothing, a crash after leaves entries that
      //    the keeper has not signed; the next start has them signed.
      await insertBatch(writer, {
        first,
        items,
        tiles: tree.append(hashes),
        checkpoint: carried,
        idempotencyFrom: new Date(now().getTime() - IDEMPOTENCY_MILLISECONDS),
      });
    } catch (error) {
      tree.restore(before);
      doubtful = true;
      if (stopped === undefined && isOfAnItem(error) && batch.length > 1) {
        // One item contradicts what is stored, or is no row at all. The others must not suffer from it.
        const half = batch.length >> 1;
        await commit(batch.slice(0, half));
        return commit(batch.slice(half));
      }
      if (!isOfAnItem(error)) failure = { error: cannotWrite(error), at: performance.now() };
      for (const waiting of batch) waiting.reject(stopped ?? unwritten(waiting.items, error));
      return;
    }
    failure = undefined;
    committed = tree.size;
    if (items.some(erases)) unerased = true;
    if (checkpoint === carried) checkpoint = undefined;
    if (stopped !== undefined) return rejectAll(batch, stopped);
    // 2. The keeper hears of it before anybody who waits does, so that their requests to sign come after it.
    if (hashes.length > 0) void sign(first, hashes);
    let index = first;
    for (const waiting of batch) {
      waiting.resolve(index);
      index += waiting.items.length;
    }
  }

  /** After a failed commit: whether the log still ends where this journal thinks it does. */
  async function compareSize(expected: number): Promise<void> {
    const [row] = await writer.all<{ size: number }>(
      "SELECT coalesce(max(idx), -1) + 1 AS size FROM audit_entry",
    );
    doubtful = false;
    if (row!.size !== expected) {
      stop(new Error(`a commit that failed left ${row!.size} entries instead of ${expected}`));
      throw stopped;
    }
  }

  async function sign(first: number, hashes: readonly Uint8Array[]): Promise<void> {
    const { size } = tree;
    const root = tree.root();
    signing++;
    try {
      const head = await keeper.append(first, hashes);
      if (head.size !== size || !equal(head.root, root)) throw otherHead(size);
      if (checkpoint === undefined || checkpoint.size < size) {
        checkpoint = { size, note: head.note };
      }
    } catch (error) {
      stop(error);
    }
    signing--;
    rest();
  }

  /** When nothing else is to do, the last checkpoint is stored by a commit of its own. */
  function rest(): void {
    if (writing || signing > 0 || asides > 0) return;
    if (checkpoint !== undefined && stopped === undefined) {
      clearTimeout(timer);
      timer = setTimeout(() => {
        if (!writing && checkpoint !== undefined) void write(true);
      }, CHECKPOINT_MILLISECONDS).unref();
    }
    const waiting = idle;
    idle = [];
    for (const resolve of waiting) resolve();
  }

  function stop(cause: unknown): void {
    if (stopped !== undefined) return;
    stopped = new CountersignError("log-unavailable", "the log has stopped", { cause });
    rejectAll(queue, stopped);
    queue = [];
    fail(cause instanceof Error ? cause : new Error(String(cause)));
  }

  /** What is written without a record, by the same connection. */
  async function aside<Row>(sql: string, parameters: readonly SqlValue[]): Promise<Row[]> {
    if (stopped !== undefined) throw stopped;
    if (closed) throw new CountersignError("log-unavailable", "the log is closed");
    asides++;
    try {
      return await writer.all<Row>(sql, parameters);
    } catch (error) {
      throw isOfAnItem(error)
        ? new CountersignError("enrolment-refused", "it contradicts what is stored", {
            cause: error,
          })
        : cannotWrite(error);
    } finally {
      asides--;
      rest();
    }
  }

  async function settled(): Promise<void> {
    while (writing || signing > 0 || asides > 0)
      await new Promise<void>((resolve) => idle.push(resolve));
  }

  async function drain(): Promise<void> {
    await settled();
    if (checkpoint !== undefined && stopped === undefined) {
      void write(true);
      await settled();
    }
    clearTimeout(timer);
    if (closed) clearTimeout(eraser);
  }

  function append(items: readonly Item[]): Promise<number> {
    return new Promise((resolve, reject) => {
      if (stopped !== undefined) throw stopped;
      if (closed) throw new CountersignError("log-unavailable", "the log is closed");
      for (const item of items) checkItem(item);
      queue.push({ items, resolve, reject });
      if (!writing) void write(false);
    });
  }

  return {
    append: (item) => append([item]),
    appendAll: append,
    async enrolment(row) {
      const createdAt = row.createdAt.getTime();
      await aside("DELETE FROM enrolment WHERE state = 'requested' AND created_at < ?", [
        createdAt - ENROLMENT_MILLISECONDS,
      ]);
      await aside(
        `INSERT INTO enrolment
           (id, operator, keys, recipient, statement, signature, challenge, challenge_sha256, state, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'requested', ?)`,
        [
          row.id,
          row.operator,
          JSON.stringify(row.keys),
          row.recipient,
          row.statement,
          row.signature,
          row.challenge,
          row.challengeSha256,
          createdAt,
        ],
      );
    },
    async proved(id) {
      const found = await aside<{ state: string }>("SELECT state FROM enrolment WHERE id = ?", [
        id,
      ]);
      if (found.length === 0) {
        throw new CountersignError("enrolment-unknown", "there is no such request to be enrolled");
      }
      await aside("UPDATE enrolment SET state = 'proved' WHERE id = ?", [id]);
    },
    get size() {
      return committed;
    },
    get trouble() {
      const recent = failure !== undefined && performance.now() - failure.at < TROUBLE_MILLISECONDS;
      return stopped ?? (recent ? failure!.error : undefined);
    },
    drain,
    close() {
      closed = true;
      return drain();
    },
    failed,
  };
}

function rejectAll(batch: readonly Waiting[], error: CountersignError): void {
  for (const { reject } of batch) reject(error);
}

/** What the database would take and change. */
function checkItem(item: Item): void {
  if (item.leaf.length > MAX_ENTRY_LENGTH) {
    throw new RangeError(
      `an entry has at most ${MAX_ENTRY_LENGTH} octets, got ${item.leaf.length}`,
    );
  }
  if (item.kind === "crl-intent") {
    const { number } = item.row;
    if (number < 0n || number >= 1n << 63n)
      throw new RangeError(`CRL number ${number} is too large`);
  }
}

function sizeOf(item: Item): number {
  if (isCustodyItem(item)) return item.leaf.length + custodySize(item);
  switch (item.kind) {
    case "certificate-done":
      return item.leaf.length + item.certificate.length;
    case "crl-done":
      return item.leaf.length + item.crl.length;
    case "certificate-intent":
      return item.leaf.length + (item.row.csr?.length ?? 0);
    case "policy":
      return item.leaf.length + item.row.document.length;
    case "entry":
    case "certificate-abandoned":
    case "revocation":
    case "crl-intent":
    case "crl-abandoned":
    case "requester":
      return item.leaf.length;
  }
}

/** Whether it is an item's fault and not the disk's. */
function isOfAnItem(error: unknown): boolean {
  const code = sqliteCode(error);
  return code === undefined || code === "SQLITE_CONSTRAINT";
}

function unwritten(items: readonly Item[], cause: unknown): CountersignError {
  if (!isOfAnItem(cause)) return cannotWrite(cause);
  for (const item of items) {
    const refused = isCustodyItem(item) ? custodyError(item, cause) : undefined;
    if (refused !== undefined) return refused;
  }
  return items[0]?.kind === "revocation"
    ? new CountersignError("revocation-conflict", "the certificate is already revoked", { cause })
    : new CountersignError("log-unavailable", "the record contradicts what is stored", { cause });
}

function cannotWrite(cause: unknown): CountersignError {
  return new CountersignError("log-unavailable", "the log cannot be written", { cause });
}

function otherHead(size: number): Error {
  return new Error(`the keeper's head of ${size} entries is not that of this log`);
}
