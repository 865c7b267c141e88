/** What a command prints: for people lines and tables, for programs one JSON value. */

import { CommandFailure } from "./failure.ts";

export type Colour = "red" | "green" | "yellow" | "bold";

const colourCodes: Record<Colour, number> = { red: 31, green: 32, yellow: 33, bold: 1 };

/** A value with the colour it has on a terminal; the text itself is made safe when it is printed. */
export interface Coloured {
  readonly text: string;
  readonly colour: Colour;
}

export type Cell = string | Coloured;

/** A label and its value, or one line for each of several values; without a value the line is left out. */
export type Field = readonly [label: string, value: Cell | readonly string[] | undefined];

export interface Output {
  readonly json: boolean;
  /** For people; nothing with --json. */
  line(text?: Cell): void;
  fields(fields: readonly Field[], indent?: number): void;
  table(head: readonly string[], rows: readonly (readonly Cell[])[]): void;
  /** The result for programs; nothing without --json. */
  result(value: unknown): void;
  /** Bytes that were asked for themselves, such as a PEM chain; for people and programs alike. */
  raw(text: string | Uint8Array): void;
  /** On standard error, for people: it belongs to no result. */
  note(text: string): void;
  failure(failure: CommandFailure): void;
}

interface Terminal {
  readonly isTTY?: boolean;
  write(text: string | Uint8Array): unknown;
}

export function createOutput(
  json: boolean,
  stdout: Terminal = process.stdout,
  stderr: Terminal = process.stderr,
): Output {
  const colours = (terminal: Terminal): boolean =>
    terminal.isTTY === true && !process.env["NO_COLOR"] && process.env["TERM"] !== "dumb";
  const paint = (terminal: Terminal, cell: Cell): string => {
    if (typeof cell === "string") return printable(cell);
    const text = printable(cell.text);
    return colours(terminal) ? `\u001b[${colourCodes[cell.colour]}m${text}\u001b[0m` : text;
  };
  const line = (text: Cell = ""): void => {
    if (!json) stdout.write(`${paint(stdout, text)}\n`);
  };
  return {
    json,
    line,
    fields(fields, indent = 0) {
      if (json) return;
      const shown = fields.filter(([, value]) => value !== undefined);
      const width = Math.max(0, ...shown.map(([label]) => label.length)) + 2;
      for (const [label, value] of shown) {
        const cells: readonly Cell[] = isList(value!) ? value : [value!];
        for (const [place, cell] of cells.entries()) {
          const name = place === 0 ? label : "";
          stdout.write(
            `${" ".repeat(indent)}${onOneLine(name).padEnd(width)}${paint(stdout, flat(cell))}\n`,
          );
        }
      }
    },
    table(head, rows) {
      if (json) return;
      const widths = head.map((title, column) =>
        Math.max(title.length, ...rows.map((row) => onOneLine(textOf(row[column]!)).length)),
      );
      const write = (cells: readonly Cell[]): void => {
        const texts = cells.map(flat).map((cell, column) => {
          const padding = widths[column]! - printable(textOf(cell)).length;
          return column === cells.length - 1
            ? paint(stdout, cell)
            : `${paint(stdout, cell)}${" ".repeat(padding)}`;
        });
        stdout.write(`${texts.join("  ").trimEnd()}\n`);
      };
      write(head.map((text) => ({ text, colour: "bold" })));
      for (const row of rows) write(row);
    },
    result(value) {
      if (json) stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
    },
    raw(text) {
      stdout.write(text);
    },
    note(text) {
      if (!json) stderr.write(`${printable(text)}\n`);
    },
    failure(failure) {
      if (json) {
        stderr.write(`${JSON.stringify({ error: failureJson(failure) })}\n`);
        return;
      }
      const { code } = failure;
      const title = code === undefined || code === "usage" ? "countersign" : code;
      const lines = [
        `${paint(stderr, { text: title, colour: "red" })}: ${printable(failure.message)}`,
        ...problemLines(failure.problem).map(printable),
        ...(failure.next?.split("\n") ?? []).map(
          (text, place) => `${place === 0 ? "  next: " : "        "}${printable(text)}`,
        ),
      ];
      stderr.write(`${lines.join("\n")}\n`);
    },
  };
}

function isList(value: Cell | readonly string[]): value is readonly string[] {
  return Array.isArray(value);
}

/** A value with a line end in it would add lines that look like others of the statement. */
function flat(cell: Cell): Cell {
  return typeof cell === "string"
    ? onOneLine(cell)
    : { text: onOneLine(cell.text), colour: cell.colour };
}

/** As {@link printable}, with line ends visible too: for somebody's text within a line of ours. */
export function onOneLine(text: string): string {
  return printable(text).replaceAll("\n", "\\n");
}

function textOf(cell: Cell): string {
  return typeof cell === "string" ? cell : cell.text;
}

/**
 * Text from certificates, files and the service with what would move a terminal's cursor, colour it or turn the
 * direction of writing made visible. Line ends are left to the caller's own text.
 */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    if (character === "\n") return character;
    const code = character.codePointAt(0)!;
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
  });
}

function failureJson(failure: CommandFailure): Record<string, unknown> {
  const { code, message, next, problem, exitCode } = failure;
  return {
    ...problem,
    code: code ?? "failed",
    detail: message,
    exitCode,
    ...(next === undefined ? {} : { next }),
  };
}

/** The members of a problem document that say which rule decided on what. */
function problemLines(problem: Readonly<Record<string, unknown>>): string[] {
  const lines: string[] = [];
  const { rule, name, findings, errors, problems, reason, instance } = problem;
  if (typeof rule === "string") lines.push(`  rule: ${oneLine(rule)}`);
  if (typeof name === "string") lines.push(`  name: ${oneLine(name)}`);
  if (typeof reason === "string") lines.push(`  reason: ${oneLine(reason)}`);
  for (const finding of listOf(findings)) {
    const { rule: id, detail } = finding as { rule?: unknown; detail?: unknown };
    lines.push(`  finding: ${[id, detail].filter(isText).map(oneLine).join(" ")}`);
  }
  for (const error of listOf(errors)) {
    const { path, message } = error as { path?: unknown; message?: unknown };
    lines.push(`  ${[path, message].filter(isText).map(oneLine).join(": ")}`);
  }
  for (const text of listOf(problems)) {
    if (typeof text === "string") lines.push(`  ${oneLine(text)}`);
  }
  if (typeof instance === "string") lines.push(`  request: ${oneLine(instance)}`);
  return lines;
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value.filter((item) => item !== null) : [];
}

function oneLine(text: string): string {
  return text.replaceAll("\n", " ");
}
