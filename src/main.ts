#!/usr/bin/env node
/** The service: makes a development home where there is none, opens the home and listens. */

import { existsSync, readFileSync } from "node:fs";
import { relative } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { pino } from "pino";
import { readServiceConfig } from "./config.ts";
import { setUpDevelopmentHome } from "./development/set-up.ts";
import { CountersignError } from "./errors.ts";
import { homeFiles, homeState } from "./home.ts";
import { startService } from "./service.ts";

const modulePaths = [
  process.env["PKCS11_LIBRARY"],
  "/usr/lib/softhsm/libsofthsm2.so",
  "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
  "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
];

interface ServeOptions {
  home: string;
  apiPort: number;
  publicPort: number;
  operatorKey?: string;
}

async function serve(options: ServeOptions): Promise<void> {
  const { home } = options;
  const { version } = JSON.parse(
    readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
  ) as { version: string };
  if (homeState(home) !== "ready") {
    const modulePath = modulePaths.find((path) => path !== undefined && existsSync(path));
    if (modulePath === undefined) {
      throw new CountersignError(
        "config-invalid",
        "SoftHSM is not installed: run sh softhsm/install.sh, or name its library in PKCS11_LIBRARY",
      );
    }
    await setUpDevelopmentHome(home, {
      ...options,
      modulePath,
      progress: (step) => console.log(step),
    });
  }
  const config = readServiceConfig(homeFiles(home).service);
  // Standard error, so that standard output holds what a person reads.
  // Lines are gathered for a moment: a write for each would cost more than the request's own work.
  const logger = pino(
    { level: config.log.level },
    pino.destination({ dest: 2, sync: false, minLength: 4096, periodicFlush: 100 }),
  );
  const started = startService(config, logger, version);

  let stopping: Promise<void> | undefined;
  const stop = (): void => {
    // What keeps it from starting is thrown below.
    stopping ??= started.then(
      (running) =>
        running.stop().catch((error: unknown) => {
          logger.fatal({ err: error }, "the service did not stop cleanly");
          process.exitCode = 1;
        }),
      () => undefined,
    );
  };
  // Not once: npm passes on a Ctrl-C that the terminal has already sent, and the second one must not cut the first.
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  const service = await started;
  service.failed.then(
    (error) => {
      if (stopping !== undefined) return;
      logger.fatal({ err: error }, "the service cannot go on");
      process.exitCode = 1;
      stop();
    },
    () => undefined,
  );
  console.log(nextSteps(home, config.api.host, service.apiPort, config.public.url));
}

/** What a newcomer pastes next; `docs` and the README show the same, and a test runs it. */
function nextSteps(home: string, host: string, port: number, publicUrl: string): string {
  const files = homeFiles(home);
  const shown = (file: string): string => shellWord(relative(process.cwd(), file) || ".");
  const api = `https://${host}:${port}`;
  return `
Countersign serves ${api} (API) and ${publicUrl} (CRLs, CA certificates). Its keys are in ${shown(home)}; Ctrl-C ends it.
This is a development home: its issuers are named "development", and nothing outside this machine should trust them.

Next, in another terminal, in this folder:

  # 1. a key and a request, with stock openssl
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout web.key -out web.csr \\
    -subj /CN=web.example.test -addext subjectAltName=DNS:web.example.test

  # 2. have it signed: the answer is the certificate and its chain
  curl --config ${shown(files.curl)} -H 'Content-Type: application/pkcs10' -H 'Accept: application/pem-certificate-chain' \\
    --data-binary @web.csr -o web.pem '${api}/v1/issuers/issuing/certificates?profile=server'

  # 3. check it against the root and the CRL
  curl -s -o issuing.crl ${publicUrl}/crl/issuing.pem
  openssl verify -crl_check -CRLfile issuing.crl -CAfile ${shown(files.rootCertificate)} -untrusted web.pem web.pem

  # 4. revoke it
  SERIAL=$(openssl x509 -in web.pem -noout -serial | cut -d= -f2 | tr A-F a-f)
  curl --config ${shown(files.curl)} -H 'Content-Type: application/json' -d '{"reason":"superseded"}' -X PUT \\
    ${api}/v1/issuers/issuing/certificates/$SERIAL/revocation

  # 5. the next CRL has it: the same check now says "certificate revoked"
  curl -s -o issuing.crl ${publicUrl}/crl/issuing.pem
  openssl verify -crl_check -CRLfile issuing.crl -CAfile ${shown(files.rootCertificate)} -untrusted web.pem web.pem
`;
}

/** As a shell reads it back. */
function shellWord(text: string): string {
  return /^[\w./:@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function port(text: string): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number > 65_535) throw new InvalidArgumentError("expected a port");
  return number;
}

const program = new Command("countersign-service").description(
  "The Countersign service. Without a home it makes a development home first.",
);
program
  .command("serve", { isDefault: true })
  .description("open the home and listen")
  .option("--home <folder>", "where keys, database and configuration are", "var")
  .option("--api-port <port>", "for a new home: the API's port", port, 8443)
  .option(
    "--public-port <port>",
    "for a new home: the port of CRLs and CA certificates",
    port,
    8080,
  )
  .option(
    "--operator-key <file>",
    "for a new home: an SSH public key; its agent or key file must be at hand",
  )
  .action(serve);

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CountersignError)) throw error;
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
}
