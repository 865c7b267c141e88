/**
 * The `sqlite3` program that systems ship, asked one thing after the other, and what its answers look like: texts and
 * octets come as hex, so that nothing of a database can end a statement or an answer.
 */

import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { devNull } from "node:os";
import { resolve } from "node:path";

/** Rows a query brings. Certificates travel as hex, with their requests about 3 kB each. */
export const PAGE = 1000;

/** Octets of one object that a query brings. */
const PIECE = 1 << 20;

/** More than a certificate or request that the service handles has; what goes on after that has another digest. */
const MAX_OBJECT_OCTETS = 1 << 17;

const MARKER = "--- end of answer ---";
const END = `${MARKER}\n`;

/** Columns (`name` or `name AS alias`) whose text comes as hex: the program ends a text at its first NUL. */
export function texts(...columns: readonly string[]): string {
  return columns
    .map((column) => {
      const [name, alias = name] = column.split(" AS ");
      return `CASE WHEN "${name}" IS NULL THEN NULL ELSE hex("${name}") END AS "${alias}"`;
    })
    .join(", ");
}

export function textOf(hex: string): string {
  return Buffer.from(hex, "hex").toString();
}

/** A column of bytes as hex. One octet too many is enough to tell that there are too many. */
export function object(column: string): string {
  return `CASE WHEN ${column} IS NULL THEN NULL
    ELSE hex(substr(${column}, 1, ${MAX_OBJECT_OCTETS + 1})) END AS ${column}`;
}

/** `sha256:` and lower case, from hex. */
export function digest(hex: string): string | null {
  return hex === "" ? null : `sha256:${hex.toLowerCase()}`;
}

/**
 * Octets of any length, in pieces.
 *
 * @param where - names one row.
 */
export async function readPieces(
  shell: SqliteShell,
  {
    table,
    column,
    where,
    length,
  }: { table: string; column: string; where: string; length: number },
  take: (piece: Buffer, offset: number) => void,
): Promise<void> {
  for (let offset = 0; offset < length; offset += PIECE) {
    const [row] = await shell.query<{ piece: string }>(
      `SELECT hex(substr("${column}", ${offset + 1}, ${PIECE})) AS piece FROM "${table}" WHERE ${where}`,
    );
    take(Buffer.from(row?.piece ?? "", "hex"), offset);
  }
}

/** Every row of a table in the order of `keys`, which together are unique, a page at a time. */
export async function* pages<Row>(
  shell: SqliteShell,
  table: string,
  columns: string,
  keys: readonly string[],
): AsyncGenerator<Row> {
  const names = keys.map((_, index) => `key_${index}`);
  const order = keys.map((key) => `"${key}"`).join(", ");
  const keyColumns = keys
    .map(
      (key, index) =>
        `CASE typeof("${key}") WHEN 'integer' THEN CAST("${key}" AS TEXT) ELSE 'x' || hex("${key}") END
         AS ${names[index]}`,
    )
    .join(", ");
  for (let after: string | undefined; ;) {
    const where = after === undefined ? "" : `WHERE (${order}) > (${after})`;
    const page = await shell.query<Row & Record<string, string>>(
      `SELECT ${columns}, ${keyColumns} FROM "${table}" ${where} ORDER BY ${order} LIMIT ${PAGE}`,
    );
    const before = after;
    for (const row of page) {
      after = names.map((name) => keyLiteral(row[name]!)).join(", ");
      for (const name of names) {
        delete (row as Record<string, string>)[name];
      }
      yield row as Row;
    }
    if (page.length < PAGE) {
      return;
    }
    if (after === before) {
      throw new Error(`${table} cannot be read in order`);
    }
  }
}

/** A key as it is sent back: an integer stays, a text goes as hex, so that it cannot end the statement. */
function keyLiteral(key: string): string {
  return key.startsWith("x") ? `CAST(X'${key.slice(1)}' AS TEXT)` : key;
}

/** A text from the database cannot end the statement it is put into. */
export function literal(text: string): string {
  return `CAST(X'${Buffer.from(text).toString("hex")}' AS TEXT)`;
}

interface Waiting {
  readonly answer: string[];
  tail: string;
  readonly resolve: (text: string) => void;
  readonly reject: (error: Error) => void;
}

/** One process of the program, asked one thing after the other. */
export class SqliteShell {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #ended: Promise<void>;
  #failure: Error | undefined;
  #errors = "";
  #waiting: Waiting | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(file: string, program: string) {
    // Without the init file of whoever runs it; stops at the first error.
    const options = ["-init", devNull, "-batch", "-bail", "-readonly", "-json", resolve(file)];
    const child = spawn(program, options, { stdio: "pipe" });
    this.#process = child;
    this.#ended = new Promise((resolve) => {
      child.on("error", (error: NodeJS.ErrnoException) => {
        this.#fail(error.code === "ENOENT" ? missing(program) : error);
        resolve();
      });
      child.on("close", () => {
        this.#fail(
          new Error(`the database cannot be read: ${this.#errors.trim() || "sqlite3 ended"}`),
        );
        resolve();
      });
    });
    child.stdin.on("error", () => {}); // the process has ended, which is reported above
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#errors = (this.#errors + text).slice(-1000);
    });
    child.stdout.setEncoding("utf8").on("data", (text: string) => this.#receive(text));
  }

  /** The rows of one statement. */
  query<Row>(sql: string): Promise<Row[]> {
    const asked = this.#last.then(() => this.#ask(sql));
    this.#last = asked.catch(() => {});
    return asked.then((text) => (text === "" ? [] : (JSON.parse(text) as Row[])));
  }

  async close(): Promise<void> {
    await this.#last;
    this.#process.stdin.end();
    await this.#ended;
  }

  #ask(sql: string): Promise<string> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      this.#waiting = { answer: [], tail: "", resolve, reject };
      this.#process.stdin.write(`${sql.replaceAll("\n", " ")};\n.print "${MARKER}"\n`);
    });
  }

  #receive(text: string): void {
    const waiting = this.#waiting;
    if (waiting === undefined) {
      return;
    }
    waiting.answer.push(text);
    // In pieces, maybe. Inside an answer nothing is followed by a line break but brackets and commas.
    waiting.tail = (waiting.tail + text).slice(-END.length);
    if (waiting.tail === END) {
      this.#waiting = undefined;
      waiting.resolve(waiting.answer.join("").slice(0, -END.length).trimEnd());
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.reject(this.#failure);
    this.#waiting = undefined;
  }
}

function missing(program: string): Error {
  return new Error(
    `the program ${program} is needed to read a database and is not installed: ` +
      "apt-get install sqlite3 (Debian, Ubuntu), dnf install sqlite (Fedora), apk add sqlite (Alpine), " +
      "brew install sqlite (macOS)",
  );
}
