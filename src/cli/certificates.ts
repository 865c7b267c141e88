/** `countersign certificates`: searching what was issued, and fetching it again. */

import { certificatePath, printsItself, referenceTo } from "./certificate-reference.ts";
import { chooseIssuer, issuerPath, type Context } from "./context.ts";
import { ExitCode, usage } from "./failure.ts";
import { checkWritable, writeResultFile } from "./files.ts";
import type { Cell } from "./output.ts";
import { startProgress } from "./progress.ts";

export interface CertificatesOptions {
  readonly issuer?: string;
  readonly name?: string;
  readonly requester?: string;
  readonly profile?: string;
  readonly state?: string;
  readonly serial?: string;
  readonly limit?: string;
  readonly cursor?: string;
  readonly all?: boolean;
}

interface Summary {
  readonly serialNumber: string;
  readonly kind: string;
  readonly profile: string;
  readonly requester: string | null;
  readonly subject: string;
  readonly names: readonly { readonly kind: string; readonly value: string }[];
  readonly notAfter: string;
  readonly state: "pending" | "issued" | "abandoned";
  readonly revocation: { readonly reason: string } | null;
}

interface Page {
  readonly certificates: Summary[];
  readonly next?: string;
}

const DAY_MILLISECONDS = 86_400_000;
const LARGEST_PAGE = "200";

export async function certificates(
  { output, connect }: Context,
  options: CertificatesOptions,
): Promise<ExitCode> {
  const serialNumber = options.serial?.replaceAll(":", "").toLowerCase();
  if (options.all && options.limit !== undefined) {
    throw usage("--all and --limit exclude each other");
  }
  const client = await connect();
  const as = client.requireRole("requester", "operator");
  const issuer = await chooseIssuer(client, options.issuer);
  const { name, requester, profile, state, limit, cursor } = options;
  const asked = { name, requester, profile, state, serialNumber, limit };
  const read = (from: string | undefined): Promise<Page> => {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(asked)) {
      if (value !== undefined) query.set(key, value);
    }
    if (options.all) query.set("limit", LARGEST_PAGE);
    if (from !== undefined) query.set("cursor", from);
    return client.json<Page>(`${issuerPath(issuer)}/certificates?${query}`, { as });
  };
  let { certificates: found, next } = await read(cursor);
  if (options.all) {
    const progress = startProgress("certificates");
    while (next !== undefined) {
      const page: Page = await read(next);
      found = found.concat(page.certificates);
      next = page.next;
      progress.update(found.length);
    }
    progress.end();
  }
  output.result({ certificates: found, ...(next === undefined ? {} : { next }) });
  if (found.length === 0) {
    output.line("no certificate");
    return ExitCode.done;
  }
  const now = new Date();
  output.table(
    ["SERIAL NUMBER", "STATE", "UNTIL", "PROFILE", "REQUESTER", "NAMES"],
    found.map((row) => [
      row.serialNumber,
      stateOf(row, now),
      untilText(row.notAfter, now),
      row.profile,
      row.requester ?? "-",
      row.names.map(({ value }) => value).join(" ") || row.subject || "-",
    ]),
  );
  if (next !== undefined) output.note(`there are more: --cursor ${next}, or --all`);
  return ExitCode.done;
}

function stateOf({ state, revocation, notAfter }: Summary, now: Date): Cell {
  if (revocation !== null) return { text: `revoked (${revocation.reason})`, colour: "red" };
  if (state !== "issued") return { text: state, colour: "yellow" };
  return new Date(notAfter) < now ? { text: "expired", colour: "yellow" } : "valid";
}

function untilText(notAfter: string, now: Date): string {
  const days = Math.floor((new Date(notAfter).getTime() - now.getTime()) / DAY_MILLISECONDS);
  return days < 0 ? notAfter.slice(0, 10) : `${notAfter.slice(0, 10)} (${days} d)`;
}

export interface GetOptions {
  readonly issuer?: string;
  readonly out?: string;
  readonly force?: boolean;
}

export async function getCertificate(
  context: Context,
  named: string,
  options: GetOptions,
): Promise<ExitCode> {
  const { output } = context;
  if (options.out !== undefined) checkWritable(options.out, options.force);
  const client = await context.connect();
  const as = client.requireRole("requester", "operator");
  const reference = await referenceTo(client, named, options.issuer, as);
  const stored = await client.json<Summary & { certificate: string | null; chain: string }>(
    certificatePath(reference),
    { as },
  );
  output.result({ ...stored, ...(options.out === undefined ? {} : { file: options.out }) });
  if (stored.certificate === null) {
    output.note(
      `${reference.serialNumber} is recorded as ${stored.state}: there is no certificate`,
    );
    return ExitCode.failed;
  }
  const pem = stored.certificate + stored.chain;
  if (options.out !== undefined) {
    writeResultFile(options.out, pem, options.force);
    output.line(`certificate and chain: ${options.out}`);
  } else if (printsItself(context, options.out)) {
    output.raw(pem);
  }
  return ExitCode.done;
}
