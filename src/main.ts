#!/usr/bin/env node
/** The service: makes a development home where there is none, opens the home and listens; or only makes the home. */

import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { Command, InvalidArgumentError } from "commander";
import { pino } from "pino";
import { readServiceConfig } from "./config.ts";
import { setUpInProcess } from "./development/set-up-process.ts";
import { checkTwoUsers, giveToTwoUsers, socketOf, type Ids } from "./development/two-users.ts";
import { CountersignError } from "./errors.ts";
import { homeFiles, homeState } from "./home.ts";
import { startService } from "./service.ts";

const modulePaths = [
  process.env["PKCS11_LIBRARY"],
  "/usr/lib/softhsm/libsofthsm2.so",
  "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
  "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
];

interface HomeOptions {
  home: string;
  apiPort: number;
  publicPort: number;
  operatorKey?: string;
}

interface SetUpOptions extends HomeOptions {
  serviceUser?: Ids;
  keeperUser?: number;
  keeperSocket?: string;
}

/** Makes the home unless it is there. */
async function makeHome({ home, ...options }: HomeOptions): Promise<void> {
  if (homeState(home) === "ready") return;
  if (keeperSocket(home) !== undefined) {
    throw new CountersignError(
      "home-unknown",
      `${home} has a service.yaml with a keeper of its own user, and no layout.json: it is never made again here`,
    );
  }
  const modulePath = modulePaths.find((path) => path !== undefined && existsSync(path));
  if (modulePath === undefined) {
    throw new CountersignError(
      "config-invalid",
      "SoftHSM is not installed: run sh softhsm/install.sh, or name its library in PKCS11_LIBRARY",
    );
  }
  await setUpInProcess(home, {
    ...options,
    modulePath,
    progress: (step) => console.log(step),
  });
}

/** Where the home's keeper listens, if it is a user of its own. A file that set-up has not finished says nothing. */
function keeperSocket(home: string): string | undefined {
  try {
    const { keeper } = readServiceConfig(homeFiles(home).service);
    return typeof keeper === "string" ? undefined : keeper.socket;
  } catch {
    return undefined;
  }
}

async function setUp(options: SetUpOptions): Promise<void> {
  const { home, serviceUser, keeperUser } = options;
  if ((serviceUser === undefined) !== (keeperUser === undefined)) {
    throw new CountersignError("config-invalid", "--service-user and --keeper-user come together");
  }
  const there = homeState(home) === "ready";
  if (serviceUser === undefined || keeperUser === undefined) {
    await makeHome(options);
    console.log(`${resolve(home)} ${there ? "is there already" : "is made"}. It is opened by:

  node ${mainModule()} serve --home ${shellWord(resolve(home))}`);
    return;
  }
  const users = {
    service: serviceUser,
    keeper: { uid: keeperUser, gid: serviceUser.gid },
    socket: resolve(options.keeperSocket ?? socketOf(home)),
  };
  checkTwoUsers(home, users);
  await makeHome(options);
  const given = await giveToTwoUsers(home, users);
  console.log(twoUsersSteps(home, there, given, users));
}

function twoUsersSteps(
  home: string,
  there: boolean,
  given: boolean,
  { service, keeper }: { service: Ids; keeper: Ids },
): string {
  const at = (name: string): string => shellWord(join(resolve(home), name));
  const socket = keeperSocket(home)!;
  if (!given) return `${resolve(home)} has a keeper of its own user already, at ${socket}.`;
  const keeperMain = join(dirname(mainModule()), "custody", "keeper-main.js");
  return `${resolve(home)} ${there ? "is given" : "is made, and given"} to two users of group ${service.gid}:

  keeper/                              user ${keeper.uid}, nobody else
  service/                             user ${service.uid}, nobody else
  policy.yaml, service.yaml, issuers/  root; both users read them
  everything else                      root, nobody else: what people sign and ask with

The keeper, as user ${keeper.uid} and group ${keeper.gid}:

  node --disable-proto=throw --disallow-code-generation-from-strings --no-addons ${keeperMain} \\
    ${at("keeper/keeper.yaml")} --listen ${shellWord(socket)} --allow-group

The service, as user ${service.uid} and group ${service.gid}:

  node --max-semi-space-size=32 ${mainModule()} serve --home ${shellWord(resolve(home))}

Each ends with the other: have both started again. docs/configuration.md has units for systemd.`;
}

function mainModule(): string {
  return shellWord(fileURLToPath(import.meta.url));
}

async function serve(options: HomeOptions): Promise<void> {
  const { home } = options;
  const { version } = JSON.parse(
    readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
  ) as { version: string };
  await makeHome(options);
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

/** `UID:GID`, in numbers: a container has no names for them. */
function userAndGroup(text: string): Ids {
  const match = /^(\d{1,9}):(\d{1,9})$/.exec(text);
  if (match === null) throw new InvalidArgumentError("expected UID:GID, in numbers");
  return { uid: Number(match[1]), gid: Number(match[2]) };
}

function userId(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("expected a UID, a number");
  return Number(text);
}

/** What both commands take that can make a home. */
function homeCommand(name: string, isDefault: boolean): Command {
  return program
    .command(name, { isDefault })
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
    );
}

const program = new Command("countersign-service").description(
  "The Countersign service. Without a home it makes a development home first.",
);
homeCommand("serve", true).description("open the home and listen").action(serve);
homeCommand("set-up", false)
  .description("make a development home where there is none, and end")
  .option("--service-user <uid:gid>", "as root: user and group of the service", userAndGroup)
  .option("--keeper-user <uid>", "as root: the keeper's own user, of the same group", userId)
  .option(
    "--keeper-socket <file>",
    "where that keeper listens, in a folder of its own; in the home unless given",
  )
  .action(setUp);

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CountersignError)) throw error;
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
}
