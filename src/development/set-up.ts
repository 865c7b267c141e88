/** A development home: five people, a sealed root, an issuing CA in a token, and a requester, in one folder. */

import { generateKeyPairSync, randomBytes } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { stringify } from "yaml";
import type { Json } from "../audit/canonical-json.ts";
import { digestOf } from "../audit/digest.ts";
import { noteSigner } from "../audit/signed-note.ts";
import { readServiceConfig } from "../config.ts";
import { policyDigest } from "../custody/grant.ts";
import { SIGNATURE_SUFFIX } from "../custody/roster-file.ts";
import { spawnMakeToken } from "../custody/token/spawn-make-token.ts";
import { HOME_LAYOUT, homeFiles, homeState, made, UNFINISHED } from "../home.ts";
import { caIssuersUrlOf, crlUrlOf } from "../issuance/issuer.ts";
import { REQUESTER_NAMESPACE, RequesterRegister } from "../issuance/requesters.ts";
import { openLedger, type Ledger } from "../ledger.ts";
import { compilePolicy } from "../policy/decide.ts";
import { parsePolicy, type Policy } from "../policy/document.ts";
import { REQUESTER_STATEMENT_TYPE } from "../policy/requester.ts";
import { OFFLINE_CRL_DAYS } from "../revocation/crl-schedule.ts";
import { lockHome } from "../store/database.ts";
import { buildTbsCertList } from "../x509/certificate-list.ts";
import {
  buildRootTbsCertificate,
  buildTbsCertificate,
  certificateTemplate,
} from "../x509/certificate-template.ts";
import { encodeName } from "../x509/name.ts";
import { encodePem } from "../x509/pem.ts";
import { parsePublicKey } from "../x509/public-key.ts";
import { SERIAL_NUMBER_OCTETS, serialNumberFrom } from "../x509/serial-number.ts";
import { signatureAlgorithmFor } from "../x509/signature-algorithm.ts";
import { assembleSigned } from "../x509/signed.ts";
import { genesisOf, makePeople, signAs, type Person } from "./people.ts";
import { checkPlace, checkPorts, checkTools, LISTEN_HOST } from "./place.ts";
import { developmentPolicy } from "./policy.ts";
import { rootCeremonies, type RootCeremonies } from "./root.ts";
import { makeTlsCertificate } from "./tls.ts";
import { write } from "./write.ts";

/** The names that its statements and its log bear. */
const SERVICE = "development";
const ORIGIN = "development/audit";
const ROOT_NAME = "Countersign development root";

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
    "people",
    "roster",
  ]) {
    mkdirSync(join(home, folder), { mode: 0o700 });
  }
  const { progress } = options;
  progress("making the keys of the log and the service");
  await makeTlsCertificate(files.tlsCertificate, files.tlsKey);
  const logKey = makeNoteKey(join(home, "keeper", "log.key"), ORIGIN);
  const identityKey = makeNoteKey(join(home, "keeper", "identity.key"), `${SERVICE}/keeper`);
  write(files.logKey, `${logKey}\n`);
  write(files.identityKey, `${identityKey}\n`);

  progress("making the keys of five people: alice, bob, carol, dora and erin");
  const people = await makePeople(files.people, options.operatorKey);
  const genesis = genesisOf(people, { identity: identityKey, log: logKey });
  write(files.genesis, genesis.document);
  for (const { operator, signature } of genesis.signatures) {
    write(`${files.genesis}.${operator}${SIGNATURE_SUFFIX}`, signature);
  }
  for (const person of people) {
    write(join(files.people, person.id, "config.json"), clientSettings(person, ".", "../.."));
  }
  const [first] = people;
  write(files.clientConfig, clientSettings(first!, `../people/${first!.id}`));

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
      genesis: "roster/genesis.json",
      policy: "policy.yaml",
      metricsKey: sha256(metricsKey),
    }),
  );
  write(files.policy, developmentPolicy);

  progress("making the issuing CA's token and key");
  const environment = { SOFTHSM2_CONF: softhsmConf };
  const issuing = await spawnMakeToken(
    {
      modulePath: options.modulePath,
      label: "countersign issuing",
      object: "issuing",
      key: "P-256",
      pinFile: join(home, "keeper", "pins", "issuing.pin"),
    },
    environment,
  );

  const policy = parsePolicy(developmentPolicy, files.policy);
  const keeperConfig = (keys: Json[]): void => {
    writeFileSync(
      files.keeper,
      stringify({
        service: SERVICE,
        origin: ORIGIN,
        logKey: "log.key",
        identityKey: "identity.key",
        head: "head",
        state: "state.json",
        policy: "../policy.yaml",
        genesis: sha256(genesis.document),
        token: { module: options.modulePath, environment },
        keys,
      }),
      { mode: 0o600 },
    );
  };
  const withCeremonies = <Value>(work: (ceremonies: RootCeremonies) => Promise<Value>) =>
    withLedger(files.service, async (ledger) =>
      work(await rootCeremonies(ledger, policy, people, files.people)),
    );

  progress("dealing the root's key to the five: any three of them open it");
  keeperConfig([]);
  const root = await withCeremonies((ceremonies) => ceremonies.deal());
  progress("three of them open it: it signs itself, the issuing CA and its first CRL");
  keeperConfig([{ issuer: "root", keyId: root.keyId }]);
  const [rootTbs, issuingTbs, listTbs] = rootArtefacts(
    root.publicKey,
    issuing.publicKey,
    publicUrl,
  );
  const [rootCertificate, issuingCertificate] = await withCeremonies((ceremonies) =>
    ceremonies.sign(
      root.keyId,
      [rootTbs, issuingTbs, listTbs],
      "the root of this development home, its issuing CA and its first CRL",
    ),
  );
  write(files.rootCertificate, encodePem("CERTIFICATE", rootCertificate!));
  write(files.issuingCertificate, encodePem("CERTIFICATE", issuingCertificate!));

  keeperConfig([
    {
      issuer: "root",
      certificate: "../issuers/root.pem",
      crlUrl: crlUrlOf(publicUrl, "root"),
      caIssuersUrl: caIssuersUrlOf(publicUrl, "root"),
    },
    {
      issuer: "issuing",
      module: options.modulePath,
      uri: issuing.uri,
      pinFile: "pins/issuing.pin",
      certificate: "../issuers/issuing.pem",
      chain: ["../issuers/root.pem"],
      grant: {
        operations: ["certificate", "crl"],
        profiles: ["server", "client", "peer"],
        // What every certificate must point to: the service cannot lead relying parties elsewhere.
        crlUrl: crlUrlOf(publicUrl, "issuing"),
        caIssuersUrl: caIssuersUrlOf(publicUrl, "issuing"),
        policy: policyDigest(policy),
        // A bound for a development home, not a rate anybody reaches by accident.
        signaturesPerHour: 10_000_000,
      },
    },
  ]);
  progress("adding the requester");
  await addRequester(home, policy, first!);
  write(files.layout, `${JSON.stringify({ layout: HOME_LAYOUT, kind: "development" })}\n`);
  rmSync(files.unfinished);
}

/** @returns The key's verifier key. */
function makeNoteKey(file: string, name: string): string {
  const { privateKey } = generateKeyPairSync("ed25519");
  write(file, privateKey.export({ type: "pkcs8", format: "pem" }).toString());
  return noteSigner(name, privateKey).verifierKey.text;
}

/** What the command is told of one of the people. @param own - their folder, from the file that says it. */
function clientSettings({ id, sshKey }: Person, own: string, home?: string): string {
  const settings = {
    ...(home === undefined ? {} : { home }),
    operator: id,
    sshKey,
    ageIdentity: `${own}/age.key`,
    shares: `${own}/shares`,
  };
  return `${JSON.stringify(settings, undefined, 2)}\n`;
}

/** What the root signs on its first day, TBS bytes each: its own certificate, the issuing CA's, and a CRL. */
function rootArtefacts(
  rootKey: Uint8Array,
  issuingKey: Uint8Array,
  publicUrl: string,
): [Uint8Array, Uint8Array, Uint8Array] {
  const start = new Date(Math.floor(Date.now() / 1000) * 1000 - 60_000);
  const after = (days: number): Date => new Date(start.getTime() + days * DAY_MILLISECONDS - 1000);
  const publicKey = parsePublicKey(rootKey);
  const rootTbs = buildRootTbsCertificate({
    serialNumber: serialNumberFrom(randomBytes(SERIAL_NUMBER_OCTETS)),
    notBefore: start,
    notAfter: after(ROOT_DAYS),
    subject: encodeName([{ type: "CN", value: ROOT_NAME }]),
    publicKey,
  });
  // Its signature is yet to come; names, key and identifiers are what the others are built from.
  const { identifier } = signatureAlgorithmFor(publicKey.type);
  const issuerCertificate = assembleSigned(rootTbs, identifier, new Uint8Array(64));
  const issuingTbs = buildTbsCertificate(
    certificateTemplate({
      issuerCertificate,
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
      notAfter: after(ISSUER_DAYS),
      subject: encodeName([{ type: "CN", value: "Countersign development issuing CA" }]),
      publicKey: parsePublicKey(issuingKey),
      names: [],
    },
  );
  const listTbs = buildTbsCertList({
    issuerCertificate,
    thisUpdate: start,
    nextUpdate: after(OFFLINE_CRL_DAYS),
    number: 1n,
    entries: [],
  });
  return [rootTbs, issuingTbs, listTbs];
}

async function withLedger<Value>(
  serviceFile: string,
  work: (ledger: Ledger) => Promise<Value>,
): Promise<Value> {
  const ledger = await openLedger(readServiceConfig(serviceFile), () => new Date());
  try {
    return await work(ledger);
  } finally {
    await ledger.close();
  }
}

/** The development requester, by a statement that an operator's key signs like any later one. */
async function addRequester(home: string, policy: Policy, operator: Person): Promise<void> {
  const files = homeFiles(home);
  const apiKey = `csk_${randomBytes(32).toString("base64url")}`;
  write(files.apiKey, `${apiKey}\n`);
  write(
    files.curl,
    // In quotes, curl takes a backslash as an escape.
    `cacert = "${files.tlsCertificate.replaceAll(/["\\]/g, "\\$&")}"\nheader = "Authorization: Bearer ${apiKey}"\nsilent\nshow-error\nfail-with-body\n`,
  );
  await withLedger(files.service, async ({ journal, reads, keeper, status }) => {
    const now = (): Date => new Date();
    const register = new RequesterRegister(
      {
        policy: compilePolicy(policy),
        journal,
        reads,
        keeper,
        operators: () => status.operators,
        now,
      },
      [],
    );
    const { head } = await keeper.status();
    if (head === "missing") throw new Error("the log has no head");
    const { statement, signature } = signAs(operator, REQUESTER_NAMESPACE, {
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
    });
    const caller = { kind: "operator", id: operator.id, via: "session" } as const;
    await register.change(statement, signature, caller);
  });
}

function sha256(content: Uint8Array | string): string {
  return digestOf(typeof content === "string" ? Buffer.from(content) : content);
}
