/** A development home: tokens, keys, a root and an issuing CA, an operator and a requester, in one folder. */

import { execFileSync } from "node:child_process";
import { generateKeyPairSync, randomBytes, type KeyObject } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { stringify } from "yaml";
import { canonicalJson, type Json } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { readServiceConfig } from "../config.ts";
import { policyDigest } from "../custody/grant.ts";
import { spawnMakeToken, type MadeToken } from "../custody/token/spawn-make-token.ts";
import { checkRoot, compileGate, type GateDecision } from "../gate/gate.ts";
import { HOME_LAYOUT, homeFiles, homeState, made, UNFINISHED } from "../home.ts";
import { signCaCertificate } from "../issuance/ca-certificate.ts";
import { caIssuersUrlOf, crlUrlOf } from "../issuance/issuer.ts";
import { REQUESTER_NAMESPACE, RequesterRegister } from "../issuance/requesters.ts";
import { openLedger } from "../ledger.ts";
import { compilePolicy } from "../policy/decide.ts";
import { parsePolicy } from "../policy/document.ts";
import { REQUESTER_STATEMENT_TYPE } from "../policy/requester.ts";
import { lockHome } from "../store/database.ts";
import {
  buildRootTbsCertificate,
  buildTbsCertificate,
  certificateTemplate,
} from "../x509/certificate-template.ts";
import { encodeName } from "../x509/name.ts";
import { encodePem } from "../x509/pem.ts";
import { parsePublicKey, spkiDigest } from "../x509/public-key.ts";
import { SERIAL_NUMBER_OCTETS, serialNumberFrom } from "../x509/serial-number.ts";
import { checkPlace, checkPorts, checkTools, LISTEN_HOST } from "./place.ts";
import { developmentPolicy } from "./policy.ts";
import { makeTlsCertificate } from "./tls.ts";
import { write } from "./write.ts";

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

function sha256(content: Uint8Array | string): string {
  return digestOf(typeof content === "string" ? Buffer.from(content) : content);
}
