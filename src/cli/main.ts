#!/usr/bin/env node
/** The `countersign` command. What a subcommand needs is loaded when it runs, so that the start is quick. */

import { readFileSync } from "node:fs";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import type { ApiClient } from "./api-client.ts";
import type { CertificatesOptions, GetOptions } from "./certificates.ts";
import type { Context } from "./context.ts";
import type { CrlOptions } from "./crl.ts";
import { ExitCode, failureFrom } from "./failure.ts";
import type { InspectOptions } from "./inspect.ts";
import type { IssueOptions } from "./issue.ts";
import { createOutput } from "./output.ts";
import { addPeopleCommands } from "./people-commands.ts";
import type { ExplainOptions } from "./policy.ts";
import type { AddOptions, RemoveOptions } from "./requester.ts";
import type { RevokeOptions } from "./revoke.ts";
import type { ConnectionFlags } from "./settings.ts";
import type { VerifyOptions } from "./verify.ts";

const program = new Command("countersign");

/** Runs one subcommand: its context, its exit code, and its failure in words. */
async function run(command: (context: Context) => Promise<ExitCode>): Promise<void> {
  const flags = program.opts<ConnectionFlags & { json?: boolean }>();
  const output = createOutput(flags.json === true);
  let client: Promise<ApiClient> | undefined;
  const open = async (): Promise<ApiClient> => {
    const [{ readSettings }, { ApiClient: Client }] = await Promise.all([
      import("./settings.ts"),
      import("./api-client.ts"),
    ]);
    return new Client(await readSettings(flags), flags.as);
  };
  try {
    process.exitCode = await command({
      output,
      connect: () => (client ??= open()),
      settings: async () => (await import("./settings.ts")).readSettings(flags),
    });
  } catch (error) {
    const failure = failureFrom(error);
    if (failure === undefined) throw error;
    output.failure(failure);
    process.exitCode = failure.exitCode;
  } finally {
    await client?.then(
      (used) => used.close(),
      () => undefined,
    );
  }
}

/** Those of RFC 5280 §5.3.1 that a service takes for a leaf; the last one from operators. */
const REASONS = [
  "unspecified",
  "keyCompromise",
  "affiliationChanged",
  "superseded",
  "cessationOfOperation",
  "privilegeWithdrawn",
] as const satisfies readonly RevokeOptions["reason"][];

const several = (value: string, before: readonly string[] = []): readonly string[] => [
  ...before,
  value,
];

function repeatable(flags: string, description: string): Option {
  return new Option(flags, description).argParser(several).default([], "none");
}

function pageSize(text: string): string {
  if (!/^(?:[1-9][0-9]?|1[0-9]{2}|200)$/.test(text)) throw new InvalidArgumentError("1 to 200");
  return text;
}

function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ ${line}`).join("\n")}\n`;
}

const exitCodes = `
Exit codes:
  0  done
  1  refused by the service, or failed here; verify: a rule failed; status: not ready; policy explain: refused
  2  the command line or the configuration is wrong; nothing was asked of the service
  3  verify: nothing is wrong, but there was no key to hold the log against
  4  the service cannot be reached, or is not the one that --ca vouches for
`;

const environment = `
Where the service is and who asks, in this order: the flags; --home; the file $COUNTERSIGN_CONFIG or
~/.config/countersign/config.json (settings: url, ca, apiKeyFile, clientCert, clientKey, operator, sshKey,
ageIdentity, identityKey, logKey, shares, issuer, profile, home); the development home in ./var. Secrets are
read from files, never from arguments or the environment. NO_COLOR turns colours off.
`;

program
  .description(
    "Asks a Countersign service for certificates; takes part in its ceremonies; inspects files; verifies the log.",
  )
  .version(versionOf(), "-V, --version", "print the version")
  .exitOverride()
  .showHelpAfterError("(countersign --help, or the command's own --help, says what there is)")
  .configureHelp({ showGlobalOptions: true })
  .option("--url <url>", "the service's API, https://host:port")
  .option(
    "--ca <file>",
    "PEM of the CA, or of the service's own certificate; nothing else is trusted",
  )
  .option("--api-key-file <file>", "a requester's API key; only its owner may read the file")
  .option(
    "--client-cert <file>",
    "PEM of a TLS client certificate, for a requester that is bound to it",
  )
  .option("--client-key <file>", "PEM of its key")
  .option("--operator <id>", "sign in as this operator where a command needs it")
  .option("--ssh-key <file>", "the operator's SSH key; the .pub file of a key in an agent will do")
  .addOption(
    new Option("--as <role>", "act as this, where a command would choose otherwise").choices([
      "requester",
      "operator",
    ]),
  )
  .option("--home <folder>", "take all of these from a development home")
  .option("--json", "print JSON; failures are JSON on standard error")
  .addHelpText("after", environment + exitCodes);

program
  .command("issue")
  .description("get a certificate: for a new key made here, an existing one, or a CSR")
  .option(
    "--key-out <file>",
    "make a key and write it here, mode 0600, never overwriting; it is never sent",
  )
  .option("--key <file>", "use this private key (PEM, without a passphrase)")
  .option("--csr <file>", "send this CSR (PEM or DER); - is standard input")
  .addOption(repeatable("--name <name>", "DNS name or IP address; repeat for more"))
  .option(
    "--common-name <name>",
    "subject; it must be one of the names (default: an empty subject)",
  )
  .addOption(
    new Option("--key-type <type>", "of the new key")
      .choices(["P-256", "P-384", "P-521", "RSA-2048", "RSA-3072", "RSA-4096", "Ed25519"])
      .default("P-256"),
  )
  .option("--issuer <id>", "default: the configured one, or the only one that issues")
  .option("--profile <id>", "default: the configured one, or server")
  .option("--lifetime <time>", "such as 90d or 18 months; default: the profile's")
  .option("--out <file>", "write certificate and chain here (default: standard output)")
  .option("--force", "let --out overwrite a file; never --key-out")
  .option("--idempotency-key <key>", "repeat an earlier request (default: a random one)")
  .addHelpText(
    "after",
    examples(
      "countersign issue --key-out web.key --name web.example.test --name 10.0.0.7 --out web.pem",
      "countersign issue --csr web.csr --profile server --lifetime 30d --out web.pem",
      "countersign issue --key web.key --name web.example.test --out web.pem --force    # renew",
    ),
  )
  .action((options: IssueOptions) =>
    run(async (context) => (await import("./issue.ts")).issue(context, options)),
  );

program
  .command("revoke")
  .description("revoke a certificate, by serial number (hex), sha256:… or a file that holds it")
  .argument("<certificate>", "serial number, sha256:…, or file")
  .addOption(new Option("--reason <reason>", "why").choices(REASONS).default("unspecified"))
  .option("--key <file>", "prove possession of the certificate's key instead of other credentials")
  .option("--invalidity-date <time>", "since when the key is known to be bad, RFC 3339")
  .option("--issuer <id>", "of the serial number; not needed for a file")
  .addHelpText(
    "after",
    examples(
      "countersign revoke web.pem --reason superseded",
      "countersign revoke 6d40…2a --issuer issuing --reason keyCompromise",
      "countersign revoke web.pem --key web.key --reason keyCompromise    # no other credentials",
    ),
  )
  .action((named: string, options: RevokeOptions) =>
    run(async (context) => (await import("./revoke.ts")).revoke(context, named, options)),
  );

program
  .command("crl")
  .description("show and save the current CRL of an issuer, after checking its signature")
  .argument("<issuer>", "id of the issuer")
  .option("--out <file>", "write the CRL here, DER")
  .option("--pem", "as PEM; without --out to standard output")
  .option("--force", "let --out overwrite a file")
  .option("--publish", "as an operator: have a new one made first")
  .addHelpText(
    "after",
    examples(
      "countersign crl issuing",
      "countersign crl issuing --pem --out issuing.crl.pem --force",
      "countersign crl issuing --publish",
    ),
  )
  .action((issuer: string, options: CrlOptions) =>
    run(async (context) => (await import("./crl.ts")).crl(context, issuer, options)),
  );

const certificates = program
  .command("certificates")
  .description("list and search issued certificates, newest first; requesters see their own")
  .option("--name <name>", "a name, or *.example.test for all that end in .example.test")
  .option("--requester <name>", "operators: of this requester")
  .option("--profile <id>", "of this profile")
  .addOption(
    new Option("--state <state>", "in this state").choices(["valid", "expired", "revoked"]),
  )
  .option("--serial <hex>", "with a serial number that begins like this")
  .option("--limit <count>", "as many, 1 to 200 (default: 50)", pageSize)
  .option("--cursor <cursor>", "the page after an earlier one")
  .option("--all", "all pages")
  .option("--issuer <id>", "default: the configured one, or the only one that issues")
  .addHelpText(
    "after",
    examples(
      "countersign certificates --state valid",
      "countersign certificates --name '*.example.test' --all --json",
      "countersign certificates get 6d40…2a --out web.pem",
    ),
  )
  .action((options: CertificatesOptions) =>
    run(async (context) => (await import("./certificates.ts")).certificates(context, options)),
  );

certificates
  .command("get")
  .description("fetch a certificate with its chain again")
  .argument("<certificate>", "serial number, sha256:…, or file")
  .option("--out <file>", "write certificate and chain here (default: standard output)")
  .option("--force", "let --out overwrite a file")
  .addHelpText("after", examples("countersign certificates get 6d40…2a --out web.pem"))
  .action((named: string, options: GetOptions, command: Command) =>
    run(async (context) =>
      (await import("./certificates.ts")).getCertificate(context, named, {
        ...issuerOf(command),
        ...options,
      }),
    ),
  );

/** `--issuer` belongs to the command above as well, wherever it is written. */
function issuerOf(command: Command): { issuer?: string } {
  const { issuer } = command.optsWithGlobals<{ issuer?: string }>();
  return issuer === undefined ? {} : { issuer };
}

program
  .command("inspect")
  .description("say what a PEM or DER file is: certificates, CSRs, CRLs, keys; no service is asked")
  .argument("<file>", "- is standard input")
  .addOption(repeatable("--chain <file>", "CA certificates to judge against, up to the root"))
  .addHelpText(
    "after",
    examples(
      "countersign inspect web.pem --chain var/issuers/root.pem",
      "openssl s_client -connect web:443 -showcerts </dev/null | countersign inspect -",
    ),
  )
  .action((file: string, options: InspectOptions) =>
    run(async (context) => (await import("./inspect.ts")).inspect(context, file, options)),
  );

const requester = program
  .command("requester")
  .description("add, list and remove the machines that may ask for certificates (operators)");

requester
  .command("add")
  .description("add a requester by a signed statement; its API key is made here and shown once")
  .argument("<name>", "1 to 63 of a-z, 0-9, dot and hyphen")
  .addOption(repeatable("--issuer <id>", "it may ask this issuer; repeat for more"))
  .addOption(repeatable("--profile <id>", "for this profile; repeat for more"))
  .addOption(
    repeatable(
      "--dns <pattern>",
      "exact:, subdomains:, one-label: or wildcard: and a host; repeat for more",
    ),
  )
  .addOption(
    repeatable("--ip <pattern>", "an address or a block such as 10.0.0.0/8; repeat for more"),
  )
  .addOption(repeatable("--deny-dns <pattern>", "refused, whatever --dns says"))
  .addOption(repeatable("--deny-ip <pattern>", "refused, whatever --ip says"))
  .addOption(
    new Option("--revoke <which>", "the certificates that it may revoke")
      .choices(["own", "any"])
      .default("own"),
  )
  .addOption(
    repeatable(
      "--mtls <issuer:kind:name>",
      "instead of an API key: holders of such a client certificate",
    ),
  )
  .option("--key-out <file>", "write the API key here, mode 0600, instead of standard output")
  .option("--replace", "put it in the place of the requester with this name")
  .option("--yes", "sign the statement without asking")
  .addHelpText(
    "after",
    examples(
      "countersign requester add web --issuer issuing --profile server --dns subdomains:web.example.test",
      "countersign requester add deploy --issuer issuing --profile client --dns one-label:example.test --key-out deploy.key",
      "countersign requester add agent --issuer issuing --profile peer --dns exact:agent.example.test --mtls issuing:dns:agent.example.test",
    ),
  )
  .action((name: string, options: AddOptions) =>
    run(async (context) => (await import("./requester.ts")).addRequester(context, name, options)),
  );

requester
  .command("list")
  .description("list the requesters and what they may ask for")
  .addHelpText("after", examples("countersign requester list"))
  .action(() => run(async (context) => (await import("./requester.ts")).listRequesters(context)));

requester
  .command("remove")
  .description("remove a requester by a signed statement")
  .argument("<name>")
  .option("--yes", "sign the statement without asking")
  .addHelpText("after", examples("countersign requester remove web"))
  .action((name: string, options: RemoveOptions) =>
    run(async (context) =>
      (await import("./requester.ts")).removeRequester(context, name, options),
    ),
  );

addPeopleCommands(program, { run, repeatable, examples });

program
  .command("status")
  .description("say whether the service can do its work; operators see all of it")
  .addHelpText("after", examples("countersign status", "countersign status --json"))
  .action(() => run(async (context) => (await import("./status.ts")).status(context)));

program
  .command("verify")
  .description(
    "verify the audit log: a copy in a folder, a URL, a database, or the configured service",
  )
  .argument(
    "[log]",
    "folder or URL of the log (default: the configured service's, or the database's)",
  )
  .option("--key <vkey>", "the log's verifier key; without it nothing anchors the log")
  .option("--since <file>", "a checkpoint saved earlier: the log must have grown out of it")
  .option(
    "--database <file>",
    "compare the service's database with the log, row by row (needs sqlite3)",
  )
  .addOption(repeatable("--certificate <file>", "the log must account for this certificate"))
  .addHelpText(
    "after",
    examples(
      "countersign verify /srv/audit-copy --key 'ca.example.com/audit+52e4d55e+AYqI…'",
      "countersign verify --since checkpoint.old --certificate web.pem",
      "countersign verify --database var/service/countersign.db --key …",
    ),
  )
  .action((log: string | undefined, options: VerifyOptions) =>
    run(async (context) => (await import("./verify.ts")).verify(context, log, options)),
  );

const policy = program.command("policy").description("check a policy document; explain a decision");

policy
  .command("check")
  .description("check a policy document (YAML or JSON); no service is asked")
  .argument("<file>", "- is standard input")
  .addHelpText("after", examples("countersign policy check policy.yaml"))
  .action((file: string) =>
    run(async (context) => (await import("./policy.ts")).checkPolicy(context, file)),
  );

policy
  .command("explain")
  .description("ask the service what its policy decides, without issuing")
  .argument("<name...>", "DNS names and IP addresses")
  .option("--requester <name>", "operators: as this requester")
  .option("--issuer <id>", "default: the configured one, or the only one that issues")
  .option("--profile <id>", "default: the configured one, or server")
  .addHelpText(
    "after",
    examples("countersign policy explain --requester web web.example.test 10.0.0.7"),
  )
  .action((names: string[], options: ExplainOptions) =>
    run(async (context) => (await import("./policy.ts")).explainPolicy(context, names, options)),
  );

/** What the single file is made with in place of a package.json beside it. */
declare const COUNTERSIGN_VERSION: string | undefined;

/** From dist/src/cli and from src/cli alike. */
function versionOf(): string {
  if (typeof COUNTERSIGN_VERSION === "string") return COUNTERSIGN_VERSION;
  for (const path of ["../../../package.json", "../../package.json"]) {
    try {
      const text = readFileSync(new URL(path, import.meta.url), "utf8");
      return (JSON.parse(text) as { version: string }).version;
    } catch {
      continue;
    }
  }
  return "unknown";
}

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  // `countersign … | head` has seen enough.
  if (error.code !== "EPIPE") throw error;
  process.exit();
});

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? ExitCode.done : ExitCode.usage;
}
