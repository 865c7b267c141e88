/** A development home: tokens, keys, a root and an issuing CA, an operator and a requester, in one folder. */

import { execFileSync, spawnSync } from "node:child_process";
import { generateKeyPairSync, randomBytes, webcrypto, type KeyObject } from "node:crypto";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:net";
import { basename, dirname, join, resolve } from "node:path";
import { stringify } from "yaml";
import { canonicalJson, type Json } from "./audit/canonical-json.ts";
import { digestOf } from "./audit/digest.ts";
import { readServiceConfig } from "./config.ts";
import { policyDigest } from "./custody/grant.ts";
import { spawnMakeToken, type MadeToken } from "./custody/token/spawn-make-token.ts";
import { CountersignError } from "./errors.ts";
import { checkRoot, compileGate, type GateDecision } from "./gate/gate.ts";
import { signCaCertificate } from "./issuance/ca-certificate.ts";
import { caIssuersUrlOf, crlUrlOf } from "./issuance/issuer.ts";
import { REQUESTER_NAMESPACE, RequesterRegister } from "./issuance/requesters.ts";
import { openLedger } from "./ledger.ts";
import { compilePolicy } from "./policy/decide.ts";
import { parsePolicy } from "./policy/document.ts";
import { REQUESTER_STATEMENT_TYPE } from "./policy/requester.ts";
import {
  buildRootTbsCertificate,
  buildTbsCertificate,
  certificateTemplate,
} from "./x509/certificate-template.ts";
import { lockHome } from "./store/database.ts";
import { encodeName } from "./x509/name.ts";
import * as peculiar from "./x509/peculiar.ts";
import { encodePem } from "./x509/pem.ts";
import { parsePublicKey, spkiDigest } from "./x509/public-key.ts";
import { SERIAL_NUMBER_OCTETS, serialNumberFrom } from "./x509/serial-number.ts";

/** A newer home is never converted silently, and a service never opens one it does not know. */
export const HOME_LAYOUT = 1;

const DAY_MILLISECONDS = 86_400_000;

/** DESIGN, "Defaults". */
export const ROOT_DAYS = 20 * 365;
export const ISSUER_DAYS = 5 * 365;

export interface DevelopmentOptions {
  readonly apiPort: number;
  readonly publicPort: number;
  readonly modulePath: string;
  /** An OpenSSH public key file for the operator; a key is made when absent. */
  readonly operatorKey?: string;
  /** Told of each step, for whoever waits. */
  readonly progress: (step: string) => void;
}

/** Where a new home's service listens. */
const LISTEN_HOST = "127.0.0.1";

/** The files of a home that others need to know. */
export function homeFiles(home: string) {
  const at = (...parts: string[]): string => join(resolve(home), ...parts);
  return {
    layout: at("layout.json"),
    unfinished: at("unfinished"),
    setUpLock: at("set-up.lock"),
    service: at("service.yaml"),
    policy: at("policy.yaml"),
    keeper: at("keeper", "keeper.yaml"),
    tlsCertificate: at("service", "tls.crt"),
    tlsKey: at("service", "tls.key"),
    database: at("service", "countersign.db"),
    rootCertificate: at("issuers", "root.pem"),
    issuingCertificate: at("issuers", "issuing.pem"),
    operatorKey: at("operator", "id_ed25519"),
    apiKey: at("client", "api.key"),
    /** For `curl --config`: the API's certificate and the key, which so stays out of arguments. */
    curl: at("client", "curl.conf"),
    metricsKey: at("client", "metrics.key"),
    /** Verifier key of the log's checkpoints, for `countersign verify --key`. */
    logKey: at("client", "log.vkey"),
  };
}

/** All that the marker of an unfinished home says. */
const UNFINISHED = "set-up had not ended\n";

/** What set-up puts into a home, beside its lock and its marker; layout.json is the last. */
const made = ["service", "keeper", "issuers", "client", "operator", "service.yaml", "policy.yaml"];

/**
 * Whether there is a home, and one of ours. An empty folder is none yet. A set-up that did not end leaves a marker
 * with our words in it, no layout.json, and nothing that it does not make itself.
 *
 * @throws CountersignError `home-unknown` for a folder that is something else, or a newer home.
 */
export function homeState(home: string): "absent" | "unfinished" | "ready" {
  const files = homeFiles(home);
  if (!existsSync(home)) return "absent";
  if (!statSync(home).isDirectory()) throw unknownHome(`${home} is not a folder`);
  if (existsSync(files.layout)) {
    checkLayout(home, files.layout);
    return "ready";
  }
  const lock = basename(files.setUpLock);
  const names = readdirSync(home).filter((name) => name !== lock && name !== `${lock}-journal`);
  if (names.length === 0) return "absent";
  if (!isOurMarker(files.unfinished)) {
    throw unknownHome(`${home} is not a home of this service: it has no layout.json`);
  }
  const others = names.filter(
    (name) => name !== basename(files.unfinished) && !made.includes(name),
  );
  if (others.length > 0) {
    throw unknownHome(
      `${home} was left unfinished by an earlier start, and would be made again, but it has files of somebody else: ` +
        `${others.join(", ")}. Move them away`,
    );
  }
  return "unfinished";
}

function isOurMarker(file: string): boolean {
  try {
    return readFileSync(file, "utf8") === UNFINISHED;
  } catch {
    return false; // absent, or a folder
  }
}

function checkLayout(home: string, file: string): void {
  let layout: unknown;
  try {
    layout = (JSON.parse(readFileSync(file, "utf8")) as { layout?: unknown }).layout;
  } catch (error) {
    throw unknownHome(
      `${home} is not a home of this service: its layout.json cannot be read`,
      error,
    );
  }
  if (layout !== HOME_LAYOUT) {
    throw new CountersignError(
      "home-unknown",
      `${home} has layout ${String(layout)}, this version knows ${HOME_LAYOUT}: use the version that made it`,
    );
  }
}

function unknownHome(reason: string, cause?: unknown): CountersignError {
  return new CountersignError("home-unknown", `${reason}. Name another folder with --home`, {
    cause,
  });
}

/**
 * Makes the home, or makes it again where a crash left it unfinished; nothing if another process has just made it.
 *
 * @throws CountersignError `home-in-use` while another process makes it; `home-unknown`; `config-invalid` if it cannot
 *   be made here.
 */
export async function setUpDevelopmentHome(
  home: string,
  options: DevelopmentOptions,
): Promise<void> {
  checkPlace(home);
  checkTools(options);
  await checkPorts(options);
  const files = homeFiles(home);
  mkdirSync(home, { mode: 0o700, recursive: true });
  const lock = await lockHome(files.setUpLock);
  try {
    const state = homeState(home);
    if (state === "ready") return;
    if (state === "unfinished") {
      options.progress(`${home} was left unfinished by an earlier start: making it again`);
      for (const name of made) rmSync(join(home, name), { recursive: true, force: true });
    } else {
      write(files.unfinished, UNFINISHED);
    }
    options.progress(`Making a development home in ${home}:`);
    await makeDevelopmentHome(home, {
      ...options,
      progress: (step) => options.progress(`  ${step}`),
    });
    // From here on the home is ready for whoever holds the lock next.
    rmSync(files.setUpLock);
  } finally {
    await lock.release();
  }
}

/** Before anything is there: a path that cannot be a home's. */
function checkPlace(home: string): void {
  const folder = resolve(home);
  // SoftHSM's configuration file has no quoting, and these end a path in it.
  if (/[#=\p{Cc}]/u.test(folder)) {
    throw new CountersignError(
      "config-invalid",
      `SoftHSM finds no tokens below ${JSON.stringify(folder)}: name a folder without # and = with --home`,
    );
  }
  const parent = existsSync(folder) ? folder : dirname(folder);
  if (!existsSync(parent)) {
    throw new CountersignError(
      "config-invalid",
      `there is no folder ${parent} to make the home in: make it first, or name another home with --home`,
    );
  }
  try {
    accessSync(parent, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new CountersignError("config-invalid", `${parent} cannot be written to`, {
      cause: error,
    });
  }
}

function checkTools({ operatorKey }: DevelopmentOptions): void {
  if (spawnSync("ssh-keygen", ["-?"]).error !== undefined) {
    throw new CountersignError(
      "config-invalid",
      "ssh-keygen is not installed: run sudo apt-get install openssh-client, or sh softhsm/install.sh",
    );
  }
  if (operatorKey !== undefined && !existsSync(operatorKey)) {
    throw new CountersignError("config-invalid", `there is no file ${operatorKey}`);
  }
}

/** Both at once, or they may be the same. The certificates carry the public one, so it cannot be changed later. */
async function checkPorts({ apiPort, publicPort }: DevelopmentOptions): Promise<void> {
  const bound: Server[] = [];
  try {
    bound.push(await bind(apiPort, "--api-port"));
    if (apiPort !== 0 && apiPort === publicPort) {
      throw new CountersignError(
        "config-invalid",
        `port ${publicPort} is the API's: choose another with --public-port`,
      );
    }
    bound.push(await bind(publicPort, "--public-port"));
  } finally {
    for (const server of bound) await new Promise((resolve) => server.close(resolve));
  }
}

/** @throws CountersignError `config-invalid` if nothing can listen there. */
function bind(port: number, option: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) => {
      const [reason, advice] =
        error.code === "EADDRINUSE"
          ? ["is taken", "end what listens there, or choose"]
          : [`cannot be listened on (${error.code})`, "choose"];
      reject(
        new CountersignError(
          "config-invalid",
          `port ${port} of ${LISTEN_HOST} ${reason}: ${advice} another with ${option}`,
          { cause: error },
        ),
      );
    });
    server.listen(port, LISTEN_HOST, () => resolve(server));
  });
}

/** Makes the home in a folder that has nothing but the marker. */
async function makeDevelopmentHome(home: string, options: DevelopmentOptions): Promise<void> {
  const files = homeFiles(home);
  for (const folder of [
    "service",
    "keeper",
    "keeper/pins",
    "keeper/tokens",
    "issuers",
    "client",
    "operator",
  ]) {
    mkdirSync(join(home, folder), { mode: 0o700 });
  }
  const { progress } = options;
  progress("making the keys of the log, the service and the operator");
  await makeTlsCertificate(files.tlsCertificate, files.tlsKey);
  const operatorKey = makeOperatorKey(files.operatorKey, options.operatorKey);
  for (const name of ["log", "identity"]) {
    const { privateKey } = generateKeyPairSync("ed25519");
    writePrivateKey(join(home, "keeper", `${name}.key`), privateKey);
  }
  const softhsmConf = join(resolve(home), "keeper", "softhsm2.conf");
  write(
    softhsmConf,
    `directories.tokendir = ${join(resolve(home), "keeper", "tokens")}\nobjectstore.backend = file\nlog.level = ERROR\n`,
  );
  const publicUrl = `http://${LISTEN_HOST}:${options.publicPort}`;
  const metricsKey = `csm_${randomBytes(32).toString("base64url")}`;
  write(files.metricsKey, `${metricsKey}\n`);
  write(
    files.service,
    stringify({
      api: { port: options.apiPort, certificate: "service/tls.crt", key: "service/tls.key" },
      public: { port: options.publicPort, url: publicUrl },
      database: "service/countersign.db",
      keeper: "keeper/keeper.yaml",
      policy: "policy.yaml",
      metricsKey: sha256(metricsKey),
    }),
  );
  write(files.policy, developmentPolicy);

  progress("making the root's token and key");
  const environment = { SOFTHSM2_CONF: softhsmConf };
  const make = (issuer: "root" | "issuing"): Promise<MadeToken> =>
    spawnMakeToken(
      {
        modulePath: options.modulePath,
        label: `countersign ${issuer}`,
        object: issuer,
        key: "P-256",
        pinFile: join(home, "keeper", "pins", `${issuer}.pin`),
      },
      environment,
    );
  const root = await make("root");
  progress("making the issuing CA's token and key");
  const issuing = await make("issuing");

  const policy = parsePolicy(developmentPolicy, files.policy);
  const grantedPolicy = policyDigest(policy);
  const keeperConfig = (keys: Json[]): void => {
    writeFileSync(
      files.keeper,
      stringify({
        service: "development",
        origin: "development/audit",
        logKey: "log.key",
        identityKey: "identity.key",
        head: "head",
        state: "state.json",
        policy: "../policy.yaml",
        operators: [{ id: "developer", keys: [operatorKey] }],
        token: { environment },
        keys,
      }),
      { mode: 0o600 },
    );
  };
  const keyOf = (issuer: "root" | "issuing", token: MadeToken): { [key: string]: Json } => ({
    issuer,
    module: options.modulePath,
    uri: token.uri,
    pinFile: `pins/${issuer}.pin`,
  });
  const certifiedRoot = { ...keyOf("root", root), certificate: "../issuers/root.pem" };

  const start = new Date(Math.floor(Date.now() / 1000) * 1000 - 60_000);
  const rootKey = parsePublicKey(root.publicKey);
  const rootTbs = buildRootTbsCertificate({
    serialNumber: serialNumberFrom(randomBytes(SERIAL_NUMBER_OCTETS)),
    notBefore: start,
    notAfter: new Date(start.getTime() + ROOT_DAYS * DAY_MILLISECONDS - 1000),
    subject: encodeName([{ type: "CN", value: "Countersign development root" }]),
    publicKey: rootKey,
  });
  progress("signing the root's certificate");
  keeperConfig([{ ...keyOf("root", root), grant: { digests: [sha256(rootTbs)] } }]);
  const rootCertificate = await signGranted(files.service, root, "root", rootTbs, () =>
    checkRoot(rootTbs, { now: new Date() }),
  );
  write(files.rootCertificate, encodePem("CERTIFICATE", rootCertificate));

  const issuingTbs = buildTbsCertificate(
    certificateTemplate({
      issuerCertificate: rootCertificate,
      keyUsage: ["keyCertSign", "cRLSign"],
      extKeyUsage: [],
      basicConstraints: { cA: true, pathLen: 0 },
      crlUrl: crlUrlOf(publicUrl, "root"),
      caIssuersUrl: caIssuersUrlOf(publicUrl, "root"),
      subjectKeyIdentifier: true,
    }),
    {
      serialNumber: serialNumberFrom(randomBytes(SERIAL_NUMBER_OCTETS)),
      notBefore: start,
      notAfter: new Date(start.getTime() + ISSUER_DAYS * DAY_MILLISECONDS - 1000),
      subject: encodeName([{ type: "CN", value: "Countersign development issuing CA" }]),
      publicKey: parsePublicKey(issuing.publicKey),
      names: [],
    },
  );
  progress("signing the issuing CA's certificate");
  keeperConfig([{ ...certifiedRoot, grant: { digests: [sha256(issuingTbs)] } }]);
  const issuingCertificate = await signGranted(
    files.service,
    root,
    "intermediate",
    issuingTbs,
    () =>
      compileGate({
        issuer: "root",
        certificate: rootCertificate,
        chain: [],
        policy: compilePolicy(policy),
        caKeys: new Set([spkiDigest(root.publicKey), spkiDigest(issuing.publicKey)]),
      }).checkCaCertificate(issuingTbs, { now: new Date() }),
  );
  write(files.issuingCertificate, encodePem("CERTIFICATE", issuingCertificate));

  keeperConfig([
    {
      ...certifiedRoot,
      grant: { operations: ["crl"], profiles: [], policy: grantedPolicy, signaturesPerHour: 100 },
    },
    {
      ...keyOf("issuing", issuing),
      certificate: "../issuers/issuing.pem",
      chain: ["../issuers/root.pem"],
      grant: {
        operations: ["certificate", "crl"],
        profiles: ["server", "client", "peer"],
        // What every certificate must point to: the service cannot lead relying parties elsewhere.
        crlUrl: crlUrlOf(publicUrl, "issuing"),
        caIssuersUrl: caIssuersUrlOf(publicUrl, "issuing"),
        policy: grantedPolicy,
        // A bound for a development home, not a rate anybody reaches by accident.
        signaturesPerHour: 10_000_000,
      },
    },
  ]);
  progress("adding the requester");
  await addRequester(home, options.operatorKey ?? files.operatorKey);
  write(files.layout, `${JSON.stringify({ layout: HOME_LAYOUT, kind: "development" })}\n`);
  rmSync(files.unfinished);
}

/** Signs one CA certificate, by the root's key, under the digest that the keeper has just been given. */
async function signGranted(
  serviceFile: string,
  root: MadeToken,
  kind: "root" | "intermediate",
  tbs: Uint8Array,
  check: () => GateDecision,
): Promise<Uint8Array> {
  const now = (): Date => new Date();
  const ledger = await openLedger(readServiceConfig(serviceFile), now);
  try {
    return await signCaCertificate(
      { journal: ledger.journal, keeper: ledger.keeper, now },
      {
        kind,
        issuer: "root",
        keyId: spkiDigest(root.publicKey),
        tbs,
        decision: check(),
        actor: { kind: "service", id: "development set-up" },
      },
    );
  } finally {
    await ledger.close();
  }
}

/** The development requester, by a statement that the operator's key signs like any later one. */
async function addRequester(home: string, signingKey: string): Promise<void> {
  const files = homeFiles(home);
  const config = readServiceConfig(files.service);
  const now = (): Date => new Date();
  const apiKey = `csk_${randomBytes(32).toString("base64url")}`;
  write(files.apiKey, `${apiKey}\n`);
  write(
    files.curl,
    // In quotes, curl takes a backslash as an escape.
    `cacert = "${files.tlsCertificate.replaceAll(/["\\]/g, "\\$&")}"\nheader = "Authorization: Bearer ${apiKey}"\nsilent\nshow-error\nfail-with-body\n`,
  );
  const ledger = await openLedger(config, now);
  try {
    const policy = compilePolicy(parsePolicy(readFileSync(config.policy, "utf8"), config.policy));
    const { journal, reads, keeper, status } = ledger;
    write(files.logKey, `${status.logKey}\n`);
    const operator = status.operators[0]!;
    const register = new RequesterRegister(
      { policy, journal, reads, keeper, operators: () => status.operators, now },
      [],
    );
    const head = await keeper.status().then((current) => current.head);
    if (head === "missing") throw new Error("the log has no head");
    const statement = Buffer.from(
      canonicalJson({
        type: REQUESTER_STATEMENT_TYPE,
        operator: operator.id,
        at: now().toISOString(),
        ...register.next(),
        action: "set",
        requester: {
          name: "developer",
          credentials: [{ kind: "api-key", sha256: sha256(apiKey) }],
          issuers: ["issuing"],
          profiles: ["server", "client", "peer"],
          names: {
            dns: { allow: ["exact:localhost", "subdomains:example.test"] },
            ip: { allow: ["127.0.0.1"] },
          },
          revoke: "own",
        },
        log: { size: head.size, root: Buffer.from(head.root).toString("base64") },
      }),
    );
    const signature = execFileSync(
      "ssh-keygen",
      ["-q", "-Y", "sign", "-n", REQUESTER_NAMESPACE, "-f", signingKey],
      { input: statement, stdio: ["pipe", "pipe", "pipe"] },
    ).toString();
    await register.change(statement, signature, {
      kind: "operator",
      id: operator.id,
      via: "session",
    });
  } finally {
    await ledger.close();
  }
}

/** The service's own TLS key and certificate, self-signed: DESIGN, "The API". */
async function makeTlsCertificate(certificateFile: string, keyFile: string): Promise<void> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const notBefore = new Date(Date.now() - 60_000);
  const certificate = await peculiar.X509CertificateGenerator.createSelfSigned({
    name: "CN=Countersign development API",
    notBefore,
    notAfter: new Date(notBefore.getTime() + 2 * 365 * DAY_MILLISECONDS),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new peculiar.BasicConstraintsExtension(false, undefined, true),
      new peculiar.KeyUsagesExtension(peculiar.KeyUsageFlags.digitalSignature, true),
      new peculiar.ExtendedKeyUsageExtension([peculiar.ExtendedKeyUsage.serverAuth]),
      new peculiar.SubjectAlternativeNameExtension([
        { type: "dns", value: "localhost" },
        { type: "ip", value: "127.0.0.1" },
        { type: "ip", value: "::1" },
      ]),
    ],
  });
  const pkcs8 = new Uint8Array(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey));
  write(keyFile, encodePem("PRIVATE KEY", pkcs8));
  write(certificateFile, `${certificate.toString("pem")}\n`);
}

/** @returns The operator's public key, as OpenSSH writes it, without its comment. */
function makeOperatorKey(file: string, named: string | undefined): string {
  let publicKey: string;
  if (named === undefined) {
    execFileSync("ssh-keygen", [
      "-q",
      "-t",
      "ed25519",
      "-N",
      "",
      "-C",
      "countersign development operator",
      "-f",
      file,
    ]);
    publicKey = readFileSync(`${file}.pub`, "utf8");
  } else {
    publicKey = readFileSync(named, "utf8");
  }
  return publicKey.trim().split(" ").slice(0, 2).join(" ");
}

function writePrivateKey(file: string, key: KeyObject): void {
  write(file, key.export({ type: "pkcs8", format: "pem" }).toString());
}

/** Never overwrites, and nobody else reads it. */
function write(file: string, content: string): void {
  writeFileSync(file, content, { mode: 0o600, flag: "wx" });
}

function sha256(content: Uint8Array | string): string {
  return digestOf(typeof content === "string" ? Buffer.from(content) : content);
}

export const developmentPolicy = `# Who may have which names. A change of issuers or profiles changes the policy's digest, which the
# grants in keeper/keeper.yaml name: the keys are held until they are granted again.
version: 1
issuers:
  root:
    profiles: []
  issuing:
    profiles: [server, client, peer]
    names:
      dns: { allow: ["exact:localhost", "subdomains:example.test", "wildcard:example.test"] }
      ip: { allow: ["127.0.0.0/8", "10.0.0.0/8"] }
profiles:
  server:
    kind: server
    lifetime: { default: 90d, maximum: 90d }
    keyTypes: [P-256, P-384, P-521, RSA-2048, RSA-3072, RSA-4096, Ed25519]
  client:
    kind: client
    lifetime: { default: 90d, maximum: 90d }
    keyTypes: [P-256, P-384, P-521, RSA-2048, RSA-3072, RSA-4096, Ed25519]
  peer:
    kind: peer
    lifetime: { default: 90d, maximum: 90d }
    keyTypes: [P-256, P-384, P-521, RSA-2048, RSA-3072, RSA-4096, Ed25519]
`;
