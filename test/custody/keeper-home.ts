/** A keeper's home with a real token, a log and operators, for tests. The processes run from dist. */

import { createHash, generateKeyPairSync, type KeyObject } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { canonicalJson, type Json } from "../../src/audit/canonical-json.ts";
import { noteSigner } from "../../src/audit/signed-note.ts";
import { encodeEntry, type Actor } from "../../src/audit/entry.ts";
import { CompactRange, leafHash } from "../../src/audit/merkle.ts";
import { policyDigest } from "../../src/custody/grant.ts";
import {
  startKeeper,
  type KeeperClient,
  type SignRequest,
} from "../../src/custody/keeper-client.ts";
import type { RosterDocument, RosterVersion } from "../../src/custody/roster.ts";
import { softHsmModule } from "../../src/custody/token/softhsm.ts";
import {
  spawnMakeToken,
  type MadeKeyType,
  type MadeToken,
} from "../../src/custody/token/spawn-make-token.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import { buildTbsCertList, type RevokedCertificate } from "../../src/x509/certificate-list.ts";
import { parseTbsCertificate } from "../../src/x509/certificate.ts";
import {
  buildTbsCertificate,
  certificateTemplate,
  type CertificateLeaf,
} from "../../src/x509/certificate-template.ts";
import { encodeName } from "../../src/x509/name.ts";
import { encodePem } from "../../src/x509/pem.ts";
import { parsePublicKey, spkiDigest } from "../../src/x509/public-key.ts";
import { signatureAlgorithmFor } from "../../src/x509/signature-algorithm.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import { makePeople, type People } from "../support/people.ts";
import {
  keyPair,
  newSerialNumber,
  rootAuthority,
  spkiOf,
  type Authority,
} from "../x509/authority.ts";

export { makeSshKey, sshSign } from "../support/people.ts";

const DAY = 86_400_000;

export const policyText = `version: 1
issuers:
  issuing:
    profiles: [server, short, ungranted]
    names: { dns: { allow: ["subdomains:example.test"] } }
profiles:
  server:
    kind: server
    lifetime: { default: 30d, maximum: 90d }
    keyTypes: [P-256]
  short:
    kind: server
    lifetime: { default: 10d, maximum: 10d }
    keyTypes: [P-256]
  ungranted:
    kind: server
    lifetime: { default: 30d, maximum: 90d }
    keyTypes: [P-256]
requesters:
  web:
    credentials: []
    issuers: [issuing]
    profiles: [server, short, ungranted]
    names: { dns: { allow: ["subdomains:example.test"] } }
    revoke: own
`;

export const grantedPolicy = policyDigest(parsePolicy(policyText, "policy.yaml"));

export interface KeeperHome {
  readonly directory: string;
  /** Where SoftHSM keeps the token. */
  readonly tokens: string;
  readonly configFile: string;
  readonly stateFile: string;
  readonly headFile: string;
  readonly pinFile: string;
  readonly token: MadeToken;
  readonly keyId: string;
  readonly root: Authority;
  /** Of the token's key, DER. */
  readonly certificate: Uint8Array;
  /** Of the same key and name, for 20 years and any path length: to build what the true one forbids. */
  readonly looseCertificate: Uint8Array;
  /** Who the roster names: alice, and others if they were asked for. */
  readonly people: People;
  /** Verifier keys, as a roster names them. */
  readonly service: RosterDocument["service"];
  /** The versions of the roster that a started keeper is shown; the configuration names the first. */
  versions: RosterVersion[];
  /** Another genesis, signed by everybody, for the configuration too. */
  found(change?: Partial<RosterDocument>): void;
  /** The configuration as it was at first. */
  settings(): KeeperSettings;
  /** Writes the configuration, changed; without changes, as it was at first. */
  configure(change?: (config: KeeperSettings) => void): void;
  /** An armored signature by alice's key. */
  signed(namespace: string, statement: Uint8Array): string;
  /** Starts a keeper and shows it the roster. */
  start(): Promise<KeeperClient>;
  remove(): void;
}

/** The configuration as it stands in YAML, open for changes. */
export interface KeeperSettings {
  [setting: string]: Json;
  keys: { [setting: string]: Json }[];
}

/** Makes a home: one token with one key, certified by a root that has a software key. */
export async function newKeeperHome(
  key: MadeKeyType = "P-256",
  ids: readonly string[] = ["alice"],
): Promise<KeeperHome> {
  const modulePath = process.env.PKCS11_LIBRARY ?? softHsmModule();
  if (modulePath === undefined) throw new Error("SoftHSM is missing: run softhsm/install.sh");
  const directory = mkdtempSync(join(tmpdir(), "countersign-keeper-"));
  const at = (name: string): string => join(directory, name);
  const tokens = at("tokens");
  mkdirSync(tokens, { mode: 0o700 });
  const environment = { SOFTHSM2_CONF: at("softhsm2.conf") };
  writeFileSync(at("softhsm2.conf"), `directories.tokendir = ${tokens}\nlog.level = ERROR\n`);
  const pinFile = at("issuing.pin");
  const token = await spawnMakeToken(
    { modulePath, label: "issuing", object: "issuing", key, pinFile },
    environment,
  );
  const root = rootAuthority();
  const certificate = certify(root, token.publicKey, 60, 0);
  const looseCertificate = certify(root, token.publicKey, 19 * 365, 5);
  writeFileSync(at("issuing.pem"), encodePem("CERTIFICATE", certificate));
  writeFileSync(at("root.pem"), encodePem("CERTIFICATE", root.certificate));
  writeFileSync(at("policy.yaml"), policyText);
  const makeKey = (name: string, verifierName: string): string => {
    const { privateKey } = generateKeyPairSync("ed25519");
    const pem = privateKey.export({ type: "pkcs8", format: "pem" });
    writeFileSync(at(`${name}.key`), pem, { mode: 0o600 });
    return noteSigner(verifierName, privateKey).verifierKey.text;
  };
  const service = {
    log: makeKey("log", "test.example/audit"),
    identity: makeKey("identity", "test.example/keeper"),
  };
  const people = makePeople(directory, ids);
  const genesisOf = (change?: Partial<RosterDocument>): RosterVersion =>
    people.version(people.roster(service, change));
  const settings = (): KeeperSettings => ({
    service: "test.example",
    origin: "test.example/audit",
    logKey: "log.key",
    identityKey: "identity.key",
    head: "head",
    state: "state.json",
    policy: "policy.yaml",
    genesis: digestOf(home.versions[0]!.document),
    token: { environment },
    keys: [
      {
        issuer: "issuing",
        module: modulePath,
        uri: token.uri,
        pinFile: "issuing.pin",
        certificate: "issuing.pem",
        chain: ["root.pem"],
        grant: {
          operations: ["certificate", "crl"],
          profiles: ["server", "short"],
          policy: grantedPolicy,
          signaturesPerHour: 100_000,
        },
      },
    ],
  });
  const configure: KeeperHome["configure"] = (change) => {
    const config = settings();
    change?.(config);
    writeFileSync(at("keeper.yaml"), stringify(config));
  };
  const home: KeeperHome = {
    directory,
    tokens,
    configFile: at("keeper.yaml"),
    stateFile: at("state.json"),
    headFile: at("head"),
    pinFile,
    token,
    keyId: spkiDigest(token.publicKey),
    root,
    certificate,
    looseCertificate,
    people,
    service,
    versions: [genesisOf()],
    found(change) {
      home.versions = [genesisOf(change)];
      configure();
    },
    settings,
    configure,
    signed: (namespace, octets) => people.person("alice").sign(namespace, octets),
    async start() {
      const keeper = await startKeeper({ configFile: at("keeper.yaml") });
      await keeper.rosters(home.versions);
      return keeper;
    },
    remove: () => rmSync(directory, { recursive: true, force: true }),
  };
  configure();
  return home;
}

export function certify(
  root: Authority,
  spki: Uint8Array,
  days: number,
  pathLen: number,
): Uint8Array {
  const template = certificateTemplate({
    issuerCertificate: root.certificate,
    keyUsage: ["keyCertSign", "cRLSign"],
    extKeyUsage: [],
    basicConstraints: { cA: true, pathLen },
    subjectKeyIdentifier: true,
  });
  const now = Math.floor(Date.now() / 1000) * 1000;
  return root.signed(
    buildTbsCertificate(template, {
      serialNumber: newSerialNumber(),
      notBefore: new Date(now - 30 * DAY),
      notAfter: new Date(now + days * DAY),
      subject: encodeName([{ type: "CN", value: "Test Issuing" }]),
      publicKey: parsePublicKey(spki),
      names: [],
    }),
  );
}

/** A log in memory, appended to as the journal does. */
export class TestLog {
  readonly leaves: Uint8Array[] = [];
  readonly range = CompactRange.empty();

  /** @returns The index of the first leaf. */
  add(...leaves: readonly Uint8Array[]): number {
    const first = this.leaves.length;
    for (const leaf of leaves) {
      this.leaves.push(leaf);
      this.range.append(leafHash(leaf));
    }
    return first;
  }

  async append(keeper: KeeperClient, ...leaves: readonly Uint8Array[]): Promise<number> {
    const first = this.add(...leaves);
    await keeper.append(first, leaves.map(leafHash));
    return first;
  }

  get head(): { size: number; root: string } {
    return { size: this.range.end, root: Buffer.from(this.range.root()).toString("base64") };
  }
}

export function someEntry(): Uint8Array {
  return encodeEntry({
    type: "log.started",
    at: new Date(),
    actor: { kind: "keeper", id: "test.example" },
    subject: {},
    data: { origin: "test.example/audit" },
  });
}

export const webRequester: Actor = { kind: "requester", id: "web", via: "api-key" };

export interface IntentChange {
  readonly actor?: Actor;
  readonly keyId?: string;
  readonly tbs?: Uint8Array;
  readonly operation?: "certificate" | "crl";
  readonly profile?: string;
  readonly policy?: string | null;
  /** That of the certificate if it is left out; null for none. */
  readonly serialNumber?: string | null;
  readonly number?: string;
}

/** The leaf of an intent for these bytes. */
export function intentFor(
  home: KeeperHome,
  tbs: Uint8Array,
  change: IntentChange = {},
): Uint8Array {
  const { operation = "certificate", policy = grantedPolicy, number } = change;
  const serialNumber =
    change.serialNumber === undefined && operation === "certificate"
      ? serialNumberIn(tbs)
      : change.serialNumber;
  return encodeEntry({
    type: "sign.intent",
    at: new Date(),
    actor: change.actor ?? webRequester,
    subject: {
      issuer: "issuing",
      keyId: change.keyId ?? home.keyId,
      ...(typeof serialNumber === "string" ? { serialNumber } : {}),
    },
    data: {
      operation,
      tbs: digestOf(change.tbs ?? tbs),
      ...(policy === null ? {} : { policy }),
      ...(number === undefined ? {} : { number }),
      ...(operation === "certificate" ? { profile: change.profile ?? "server" } : {}),
    },
  });
}

/** undefined for what is no certificate. */
function serialNumberIn(tbs: Uint8Array): string | undefined {
  try {
    return Buffer.from(parseTbsCertificate(tbs).serialNumber).toString("hex");
  } catch {
    return undefined;
  }
}

let leafKey: KeyObject | undefined;

/** The subject key of the certificates made here, DER. */
export function leafPublicKey(): Uint8Array {
  leafKey ??= keyPair("P-256").publicKey;
  return spkiOf(leafKey);
}

/** A certificate that the grant and the policy allow, but for what is changed. */
export function leafTbs(
  home: KeeperHome,
  change: Partial<CertificateLeaf> & { readonly days?: number; readonly ca?: boolean } = {},
): Uint8Array {
  const { days = 30, ca = false, ...leaf } = change;
  const template = certificateTemplate({
    issuerCertificate: home.looseCertificate,
    keyUsage: ca ? ["keyCertSign", "cRLSign"] : ["digitalSignature"],
    extKeyUsage: ca ? [] : ["1.3.6.1.5.5.7.3.1"],
    ...(ca ? { basicConstraints: { cA: true, pathLen: 0 } as const } : {}),
    crlUrl: "http://pki.example.test/crl/issuing.crl",
    caIssuersUrl: "http://pki.example.test/ca/issuing.cer",
    subjectKeyIdentifier: ca,
  });
  const start = Math.floor(Date.now() / 1000) * 1000 - 60_000;
  return buildTbsCertificate(template, {
    serialNumber: newSerialNumber(),
    notBefore: new Date(start),
    notAfter: new Date(start + days * DAY - 1000),
    subject: encodeName([]),
    publicKey: parsePublicKey(leafPublicKey()),
    names: [{ kind: "dns", value: "a.example.test" }],
    ...leaf,
  });
}

/** A CRL of the issuing CA. */
export function crlTbs(
  home: KeeperHome,
  number: bigint,
  change: {
    readonly entries?: readonly RevokedCertificate[];
    readonly thisUpdate?: Date;
    readonly days?: number;
  } = {},
): Uint8Array {
  const { entries = [], thisUpdate = new Date(), days = 7 } = change;
  const from = new Date(Math.floor(thisUpdate.getTime() / 1000) * 1000);
  return buildTbsCertList({
    issuerCertificate: home.looseCertificate,
    thisUpdate: from,
    nextUpdate: new Date(from.getTime() + days * DAY),
    number,
    entries,
  });
}

/** Puts a signature to what it was made for. */
export function assembled(home: KeeperHome, tbs: Uint8Array, signature: Uint8Array): Uint8Array {
  return assembleSigned(tbs, signatureAlgorithmFor(home.token.type).identifier, signature);
}

/** Logs the intent for some bytes and asks for their signature. */
export async function logAndSign(
  home: KeeperHome,
  keeper: KeeperClient,
  log: TestLog,
  tbs: Uint8Array,
  change: IntentChange & Pick<SignRequest, "predecessor" | "dropped"> = {},
): Promise<Uint8Array> {
  const operation = change.operation ?? "certificate";
  const intent = intentFor(home, tbs, change);
  const intentIndex = await log.append(keeper, intent);
  const { predecessor, dropped } = change;
  return keeper.sign({
    keyId: change.keyId ?? home.keyId,
    operation,
    intentIndex,
    intent,
    tbs,
    ...(predecessor === undefined ? {} : { predecessor }),
    ...(dropped === undefined ? {} : { dropped }),
  });
}

export function statement(value: Json): Uint8Array {
  return Buffer.from(canonicalJson(value));
}

export function digestOf(octets: Uint8Array): string {
  return `sha256:${createHash("sha256").update(octets).digest("hex")}`;
}

/** The processes of a kind that a process has started, by Linux's own account. */
export function pidsOf(
  kind: "keeper" | "signer" | "unlocker" | "dealer",
  parent: number,
): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
        const [state, parentPid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
        const command = readFileSync(`/proc/${pid}/cmdline`, "utf8");
        return state !== "Z" && Number(parentPid) === parent && command.includes(`${kind}-main.js`);
      } catch {
        return false; // it has ended meanwhile
      }
    });
}

export function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2)[0] !== "Z";
  } catch {
    return false;
  }
}
