/** `countersign verify`: the offline verifier over a copy of the log, a service, or a database. AUDIT-LOG 9.6. */

import { statSync } from "node:fs";
import { openAuditDatabase, type AuditDatabase } from "../audit/database-rows.ts";
import { directoryLogSource } from "../audit/log-directory.ts";
import type { LogSource } from "../audit/log-source.ts";
import { urlLogSource } from "../audit/log-url.ts";
import { parseVerifierKey } from "../audit/signed-note.ts";
import { verifyLog, type VerifyReport } from "../audit/verify.ts";
import type { ApiClient } from "./api-client.ts";
import { certificateFrom } from "./certificate-reference.ts";
import type { Context } from "./context.ts";
import { CommandFailure, ExitCode, usage } from "./failure.ts";
import { readInput, reasonOf } from "./files.ts";
import { startProgress } from "./progress.ts";

export interface VerifyOptions {
  readonly key?: string;
  readonly since?: string;
  readonly database?: string;
  readonly certificate: readonly string[];
}

const FAILURES_SHOWN = 50;

export async function verify(
  context: Context,
  where: string | undefined,
  options: VerifyOptions,
): Promise<ExitCode> {
  const { output } = context;
  if (options.key !== undefined) checkKey(options.key);
  const since = options.since === undefined ? undefined : readInput(options.since);
  const certificates = options.certificate.map(certificateFrom);
  const database = await openDatabase(options.database);
  const progress = startProgress("entries");
  let report: VerifyReport;
  try {
    const { source, key } = await sourceFrom(context, where, database);
    const logKey = options.key ?? key;
    report = await verifyLog(source, {
      ...(logKey === undefined ? {} : { key: logKey }),
      ...(since === undefined ? {} : { since }),
      ...(certificates.length === 0 ? {} : { certificates }),
      ...(database === undefined ? {} : { database: database.rows }),
      onProgress: (entries, size) => progress.update(entries, size),
    });
  } catch (error) {
    throw unreadable(error);
  } finally {
    progress.end();
    await database?.close();
  }
  const exitCode = exitCodeOf(report);
  output.result(reportJson(report));
  show(context, report, exitCode);
  return exitCode;
}

function exitCodeOf({ consistent, anchored }: VerifyReport): ExitCode {
  if (!consistent) return ExitCode.failed;
  return anchored ? ExitCode.done : ExitCode.notAnchored;
}

function checkKey(key: string): void {
  try {
    parseVerifierKey(key);
  } catch (error) {
    throw usage(
      `--key: ${(error as Error).message}`,
      "countersign status shows the key to operators; get it from somebody you trust, once, and keep it",
    );
  }
}

async function openDatabase(file: string | undefined): Promise<AuditDatabase | undefined> {
  if (file === undefined) return undefined;
  try {
    statSync(file);
  } catch (error) {
    throw usage(`${file} cannot be read: ${reasonOf(error)}`);
  }
  try {
    return await openAuditDatabase(file);
  } catch (error) {
    throw new CommandFailure((error as Error).message, {
      code: "database-unreadable",
      cause: error,
    });
  }
}

/** The log, and the key that the configuration has for it: of a service only, never for a copy from elsewhere. */
async function sourceFrom(
  context: Context,
  where: string | undefined,
  database: AuditDatabase | undefined,
): Promise<{ source: LogSource; key?: string }> {
  if (where === undefined && database !== undefined) return { source: database.log };
  if (where === undefined) return ofService(await context.connect(), "/audit");
  if (/^https?:\/\//i.test(where)) return fromUrl(context, where);
  let isDirectory: boolean;
  try {
    isDirectory = statSync(where).isDirectory();
  } catch (error) {
    throw usage(`${where} cannot be read: ${reasonOf(error)}`);
  }
  if (isDirectory) return { source: directoryLogSource(where) };
  throw usage(
    `${where} is a file: a log is a folder with checkpoint and tile`,
    "name a folder or a URL; a database goes with --database, a certificate with --certificate",
  );
}

/** The configured service is read as its settings say; any other address as a browser would. */
async function fromUrl(
  context: Context,
  where: string,
): Promise<{ source: LogSource; key?: string }> {
  const url = new URL(where);
  if (url.protocol === "https:") {
    const client = await context.connect().catch(() => undefined);
    if (client?.url.origin === url.origin) return ofService(client, url.pathname);
  }
  return { source: urlLogSource(where) };
}

function ofService(client: ApiClient, path: string): { source: LogSource; key?: string } {
  const prefix = path.replace(/\/+$/, "");
  const { logKey } = client.settings;
  let as: "nobody" | "operator" = "nobody";
  return {
    source: {
      async read(resource) {
        const ask = (): ReturnType<ApiClient["request"]> =>
          client.request(`${prefix}/${resource}`, { as, expected: [401, 404] });
        let answer = await ask();
        if (answer.status === 401 && client.role("operator") === "operator") {
          // The entries of this log are not public.
          as = "operator";
          answer = await ask();
        }
        if (answer.status === 401) {
          throw usage(
            "the entries of this log are for operators",
            "give --operator ID and --ssh-key FILE, or verify an exported copy",
          );
        }
        return answer.status === 404 ? undefined : answer.body;
      },
    },
    ...(logKey === undefined ? {} : { key: logKey }),
  };
}

function unreadable(error: unknown): unknown {
  if (error instanceof CommandFailure || !(error instanceof Error)) return error;
  const { name, message, cause } = error;
  const reason = cause instanceof Error ? `${message}: ${cause.message}` : message;
  if (message.endsWith(" answered 401")) {
    return new CommandFailure("the entries of this log are not public", {
      code: "unauthenticated",
      next: "read it through the API as an operator: countersign verify, without an address",
      cause: error,
    });
  }
  const network = name === "TypeError" || name === "TimeoutError" || / answered \d+$/.test(message);
  return new CommandFailure(`the log cannot be read: ${reason}`, {
    exitCode: network ? ExitCode.unreachable : ExitCode.failed,
    code: network ? "unreachable" : "log-unreadable",
    cause: error,
  });
}

/** The report of --json. */
function reportJson(report: VerifyReport): Record<string, unknown> {
  const { checkpoint, ...rest } = report;
  return {
    ...rest,
    checkpoint:
      checkpoint === undefined
        ? null
        : { ...checkpoint, root: Buffer.from(checkpoint.root).toString("base64") },
  };
}

function show({ output }: Context, report: VerifyReport, exitCode: ExitCode): void {
  const { checkpoint, failures, moreFailures, notices, openIntents, abandonedIntents } = report;
  output.fields([
    ["log", checkpoint?.origin ?? "none"],
    ["entries", checkpoint === undefined ? undefined : String(checkpoint.size)],
    [
      "root",
      checkpoint === undefined ? undefined : Buffer.from(checkpoint.root).toString("base64"),
    ],
    ["rules", report.rules.join(" ")],
    ["open intents", openIntents.length === 0 ? undefined : someOf(openIntents)],
    ["given-up intents", abandonedIntents.length === 0 ? undefined : someOf(abandonedIntents)],
    ...report.certificates.map(({ sha256, verdict, intentIndex, doneIndex }): [string, string] => [
      "certificate",
      `${sha256}: ${
        verdict === "logged"
          ? `logged, entry ${doneIndex} (intent ${intentIndex})`
          : verdict === "intent"
            ? `intended, entry ${intentIndex}, and never recorded as signed`
            : "NOT logged"
      }`,
    ]),
  ]);
  for (const { rule, position, detail } of notices)
    output.line(`note: ${rule} ${position}: ${detail}`);
  const shown = failures.slice(0, FAILURES_SHOWN);
  for (const { rule, position, detail } of shown) {
    output.line({ text: `${rule} failed: ${position}: ${detail}`, colour: "red" });
  }
  const more = failures.length - shown.length + moreFailures;
  if (more > 0) output.line(`and ${more} more failures`);
  if (exitCode === ExitCode.failed) {
    output.line({ text: "the log does NOT verify", colour: "red" });
  } else if (exitCode === ExitCode.notAnchored) {
    output.line({ text: "consistent with itself, anchored in nothing", colour: "yellow" });
    output.note(
      "give --key with the log's verifier key: whoever made this copy could have made all of it up",
    );
  } else {
    output.line({ text: "the log is consistent, and signed by the given key", colour: "green" });
  }
}

function someOf(indexes: readonly number[]): string {
  const first = indexes.slice(0, 10).join(" ");
  return indexes.length > 10 ? `${first} and ${indexes.length - 10} more` : first;
}
