/** The database file: SQLite in WAL mode, one connection that writes and two that cannot. The only importer of sqlite3. */

import { chmodSync, closeSync, openSync } from "node:fs";
import { dirname } from "node:path";
import sqlite3 from "sqlite3";
import { DataSource } from "typeorm";
import { migrations } from "../../migrations/index.ts";
import { CountersignError } from "../errors.ts";
import { entities } from "./entities.ts";

/** Integers beyond 2^31 are bound as REAL, which columns of type INTEGER turn back. */
export type SqlValue = string | number | Uint8Array | null;

/** How many prepared statements a connection keeps; searches are put together, the rest are about thirty. */
const MAX_STATEMENTS = 128;

/** How long a statement waits for another program's lock on the database. */
const BUSY_MILLISECONDS = 5000;

/**
 * One connection of SQLite. Its statements are prepared once and run one at a time: SQLite would let the others wait
 * for the connection while they occupy threads, and the process has four for everything.
 */
export interface Connection {
  /** Runs a statement to its end. */
  all<Row>(sql: string, parameters?: readonly SqlValue[]): Promise<Row[]>;
  /**
   * Brings the WAL into the database and empties it, so that what was deleted is in neither.
   *
   * @param wait - How long for others who read, in milliseconds; nothing is written meanwhile.
   * @returns Whether it is empty: not while somebody reads an older state.
   */
  emptyWal(wait: number): Promise<boolean>;
  readonly dataSource: DataSource;
  close(): Promise<void>;
}

export interface Database {
  /** For migrations and the journal, nobody else. */
  readonly writer: Connection;
  /** Read-only: look-ups. */
  readonly reader: Connection;
  /** Read-only: what may take longer, so that look-ups do not wait behind it. */
  readonly scanner: Connection;
  close(): Promise<void>;
}

/**
 * Opens the database, makes it (mode 0600) if there is none, and brings it up to date.
 *
 * @throws CountersignError `home-unknown` if a newer version has written it; `rolled-back` if it is no database or
 *   a damaged one; `log-unavailable` if it cannot be written.
 */
export async function openDatabase(file: string): Promise<Database> {
  makePrivate(file);
  const open: Connection[] = [];
  try {
    const writer = await connect(file, sqlite3.OPEN_READWRITE, open);
    const [mode] = await writer.all<{ journal_mode: string }>("PRAGMA journal_mode = WAL");
    if (mode?.journal_mode !== "wal") {
      throw new Error("the database's file system does not support SQLite's WAL mode");
    }
    await writer.all("PRAGMA synchronous = FULL");
    // 64 MiB of WAL between checkpoints. Serial numbers and digests fall on pages all over their indexes, and the
    // longer the WAL, the more of them a checkpoint writes once for many commits.
    await writer.all("PRAGMA wal_autocheckpoint = 16384");
    await writer.all("PRAGMA journal_size_limit = 134217728");
    // And they should be found in memory: 64 MiB.
    await writer.all("PRAGMA cache_size = -65536");
    // Sealed secrets and shares that are deleted are overwritten: CUSTODY.md 5.1. A crash may have left some in the WAL.
    await writer.all("PRAGMA secure_delete = ON");
    await writer.emptyWal(0);
    await refuseNewer(writer);
    await writer.dataSource.runMigrations();
    const reader = await connect(file, sqlite3.OPEN_READONLY, open);
    const scanner = await connect(file, sqlite3.OPEN_READONLY, open);
    return { writer, reader, scanner, close: () => closeAll(open) };
  } catch (error) {
    await closeAll(open);
    throw unusable(file, error);
  }
}

/** What an operator has to act on has a code; the rest stays what it is. */
function unusable(file: string, error: unknown): unknown {
  switch (sqliteCode(error)) {
    case "SQLITE_NOTADB":
    case "SQLITE_CORRUPT":
      return new CountersignError(
        "rolled-back",
        `${file} is not a database, or a damaged one: restore it from a backup`,
        { cause: error },
      );
    case "SQLITE_READONLY":
    case "SQLITE_CANTOPEN":
    case "SQLITE_PERM":
    case "SQLITE_FULL":
    case "SQLITE_IOERR":
      return unwritable(file, error as Error);
    case undefined:
    default:
      return error;
  }
}

function unwritable(file: string, cause: Error): CountersignError {
  return new CountersignError(
    "log-unavailable",
    `the home ${dirname(file)} cannot be written: ${cause.message}`,
    { cause },
  );
}

/** TypeORM itself ignores steps that it does not know. */
async function refuseNewer(writer: Connection): Promise<void> {
  const tables = await writer.all("SELECT 1 FROM sqlite_master WHERE name = 'migrations'");
  if (tables.length === 0) return;
  const known = new Set(migrations.map(({ name }) => name));
  const applied = await writer.all<{ name: string }>("SELECT name FROM migrations ORDER BY id");
  const unknown = applied.find(({ name }) => !known.has(name));
  if (unknown !== undefined) {
    throw new CountersignError(
      "home-unknown",
      `the database was written by a newer version: its step ${unknown.name} is not known here`,
    );
  }
}

/**
 * Makes the file if there is none. SQLite gives its -wal and -shm files the mode of the database file. A file that
 * exists is not opened here: closing it again would give up the locks that this process has on it.
 */
function makePrivate(file: string): void {
  try {
    if (!makeNew(file)) chmodSync(file, 0o600);
  } catch (error) {
    throw unwritable(file, error as Error);
  }
}

/** @returns Whether it did: false for a file that exists. */
function makeNew(file: string): boolean {
  try {
    closeSync(openSync(file, "wx", 0o600));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

async function connect(file: string, flags: number, open: Connection[]): Promise<Connection> {
  const dataSource = new DataSource({
    type: "sqlite",
    database: file,
    flags: flags | sqlite3.OPEN_FULLMUTEX,
    busyTimeout: BUSY_MILLISECONDS,
    // TypeORM would switch on the tracing of sqlite3, which makes a stack trace for every statement.
    driver: { ...sqlite3, verbose: () => sqlite3 },
    entities,
    migrations,
    synchronize: false,
    logging: false,
  });
  await dataSource.initialize();
  const connection = connectionOf(dataSource);
  open.push(connection);
  // Functions in the schema of a database that somebody else has written to must not do harm.
  await connection.all("PRAGMA trusted_schema = OFF");
  await connection.all("PRAGMA cell_size_check = ON");
  await connection.all("PRAGMA temp_store = MEMORY");
  return connection;
}

function connectionOf(dataSource: DataSource): Connection {
  const database = (dataSource.driver as unknown as { databaseConnection: sqlite3.Database })
    .databaseConnection;
  const statements = new Map<string, sqlite3.Statement>();
  const waiting: (() => void)[] = [];
  let busy = false;

  function next(): void {
    const work = waiting.shift();
    busy = work !== undefined;
    work?.();
  }

  /** Calls back with a statement that nothing else uses; it must be given back by `next`. */
  function exclusively(work: () => void): void {
    if (busy) {
      waiting.push(work);
    } else {
      busy = true;
      work();
    }
  }

  function prepared(sql: string, use: (error: Error | null, statement: sqlite3.Statement) => void) {
    const known = statements.get(sql);
    if (known !== undefined) return use(null, known);
    const statement = database.prepare(sql, (error) => {
      if (error === null) {
        if (statements.size === MAX_STATEMENTS) forgetOldest();
        statements.set(sql, statement);
      }
      use(error, statement);
    });
  }

  function forgetOldest(): void {
    for (const [sql, statement] of statements) {
      statements.delete(sql);
      statement.finalize();
      return;
    }
  }

  function run<Row>(
    sql: string,
    parameters: readonly SqlValue[],
    done: (error: Error | null, rows: Row[]) => void,
  ): void {
    prepared(sql, (unprepared, statement) => {
      if (unprepared !== null) return done(unprepared, []);
      // `all`, never `get`: it steps to the end, so that no statement stays open and holds an old snapshot.
      statement.all<Row>(parameters, done);
    });
  }

  return {
    dataSource,
    all<Row>(sql: string, parameters: readonly SqlValue[] = []): Promise<Row[]> {
      return new Promise((resolve, reject) => {
        exclusively(() => {
          run<Row>(sql, parameters, (error, rows) => {
            if (error === null) resolve(rows);
            else reject(error);
            next();
          });
        });
      });
    },
    emptyWal(wait) {
      return new Promise((resolve, reject) => {
        exclusively(() => {
          database.configure("busyTimeout", wait);
          run<{ busy: number }>("PRAGMA wal_checkpoint(TRUNCATE)", [], (error, rows) => {
            database.configure("busyTimeout", BUSY_MILLISECONDS);
            if (error === null) resolve(rows[0]?.busy === 0);
            else reject(error);
            next();
          });
        });
      });
    },
    async close() {
      await new Promise<void>((resolve) => exclusively(resolve));
      for (const statement of statements.values()) {
        await new Promise<void>((resolve) => statement.finalize(() => resolve()));
      }
      statements.clear();
      next();
      await dataSource.destroy();
    },
  };
}

/** The writer last: the last connection to close brings the WAL into the database. */
async function closeAll(open: Connection[]): Promise<void> {
  for (let last = open.pop(); last !== undefined; last = open.pop()) {
    await last.close();
  }
}

/** Keeps a second instance from the same home. */
export interface HomeLock {
  release(): Promise<void>;
}

/**
 * Takes the home's lock: an exclusive lock of SQLite on a small database of its own. The kernel gives it up when the
 * process ends, however that happens, and child processes do not inherit it. Nothing else in this process may open
 * the file: closing it would give up the lock.
 *
 * @throws CountersignError `home-in-use` if a running process holds it; `log-unavailable` if it cannot be written;
 *   `home-unknown` if the file is something else.
 */
export async function lockHome(file: string): Promise<HomeLock> {
  makePrivate(file);
  const database = await new Promise<sqlite3.Database>((resolve, reject) => {
    const opened: sqlite3.Database = new sqlite3.Database(file, sqlite3.OPEN_READWRITE, (error) =>
      error === null ? resolve(opened) : reject(unusable(file, error)),
    );
  });
  database.configure("busyTimeout", 0);
  const release = () =>
    new Promise<void>((resolve, reject) =>
      database.close((error) => (error === null ? resolve() : reject(error))),
    );
  try {
    await new Promise<void>((resolve, reject) =>
      database.exec("BEGIN EXCLUSIVE", (error) => (error === null ? resolve() : reject(error))),
    );
  } catch (error) {
    await release();
    if (sqliteCode(error) === "SQLITE_NOTADB") {
      throw new CountersignError(
        "home-unknown",
        `${file} is not a lock of this service: remove it`,
        {
          cause: error,
        },
      );
    }
    if (sqliteCode(error) !== "SQLITE_BUSY") throw unusable(file, error);
    throw new CountersignError("home-in-use", "another process is using this home", {
      cause: error,
    });
  }
  return { release };
}

/** `SQLITE_FULL` and the like; undefined for what is not an error of SQLite. */
export function sqliteCode(error: unknown): string | undefined {
  const { code } = error as { code?: unknown };
  return typeof code === "string" && code.startsWith("SQLITE_") ? code : undefined;
}
