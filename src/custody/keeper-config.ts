/** The keeper's own configuration: what its side trusts without asking the service (CUSTODY.md 7.1). */

import { createPrivateKey, type KeyObject } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { CountersignError } from "../errors.ts";
import { parseCertificate } from "../x509/certificate.ts";
import { decodePem } from "../x509/pem.ts";
import { spkiDigest } from "../x509/public-key.ts";
import { configuredGrant, httpUrl, sha256Digest, type Grant } from "./grant.ts";

const path = z.string().min(1);

const schema = z.strictObject({
  /** The name of the service, in its statements. */
  service: z.string().regex(/^[^\s+\p{Cc}]+$/u, "no white space and no plus"),
  /** The name of the log and of its key. */
  origin: z.string().regex(/^[^\s+\p{Cc}]+$/u, "no white space and no plus"),
  /** Ed25519, PKCS#8 PEM, readable by nobody else. */
  logKey: path,
  identityKey: path,
  head: path,
  state: path,
  policy: path,
  /** Digest of the first roster: who the people are begins there (CUSTODY.md 8.4). */
  genesis: sha256Digest,
  token: z
    .strictObject({
      /** Where a dealer makes new tokens; without it, where all the keys are. */
      module: path.optional(),
      /** All that a signer's environment holds. */
      environment: z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string()).default({}),
    })
    .prefault({}),
  keys: z
    .array(
      z.strictObject({
        issuer: z.string().regex(/^[a-z0-9-]{1,63}$/),
        module: path.optional(),
        uri: z.string().startsWith("pkcs11:").optional(),
        /** Without it the key is sealed: the PIN where a token is named, else the key itself. */
        pinFile: path.optional(),
        keyId: z
          .string()
          .regex(/^[0-9a-f]{64}$/, "expected 64 hex digits, lower case")
          .optional(),
        certificate: path.optional(),
        chain: z.array(path).default([]),
        grant: configuredGrant.optional(),
        /** Where leaves say that their CRL is, in a window. */
        crlUrl: httpUrl.optional(),
        /** Where leaves say that their issuer's certificate is, in a window. */
        caIssuersUrl: httpUrl.optional(),
      }),
    )
    .refine(
      (keys) => new Set(keys.map(({ issuer }) => issuer)).size === keys.length,
      "an issuer stands there twice",
    ),
});

/** Where a key is, if it is in a token. */
export interface TokenConfig {
  readonly module: string;
  readonly uri: string;
}

export interface KeyConfig {
  /** The issuer's id in the policy. */
  readonly issuer: string;
  readonly token?: TokenConfig;
  /** How the key opens at start; without it, it needs shares. */
  readonly standing?: { readonly pinFile: string; readonly grant: Grant };
  /** Hex; of the certificate, where there is one. */
  readonly keyId?: string;
  /** DER. */
  readonly certificate?: Uint8Array;
  /** DER; the issuer's issuer first, the root last. */
  readonly chain: readonly Uint8Array[];
  readonly crlUrl?: string;
  readonly caIssuersUrl?: string;
}

export interface KeeperConfig {
  readonly service: string;
  readonly origin: string;
  readonly logKey: KeyObject;
  readonly identityKey: KeyObject;
  /** Paths are absolute. */
  readonly head: string;
  readonly state: string;
  /** The policy document's text. */
  readonly policy: string;
  /** Digest of the first roster. */
  readonly genesis: string;
  /** The module with which new tokens are made, if there is one. */
  readonly tokenModule?: string;
  readonly tokenEnvironment: Readonly<Record<string, string>>;
  readonly keys: readonly KeyConfig[];
}

/**
 * Reads the configuration and the files that it names, but for PINs. Paths are relative to its folder.
 *
 * @throws CountersignError `config-invalid` that names the setting.
 */
export function readKeeperConfig(file: string): KeeperConfig {
  const result = schema.safeParse(parseYaml(readText(file, "the keeper's configuration")));
  if (!result.success) {
    const issues = result.error.issues.map(
      (issue) => `${issue.path.join(".") || "(document)"}: ${issue.message}`,
    );
    throw invalid(issues.join("; "));
  }
  const config = result.data;
  const absolute = (relative: string): string => resolve(dirname(file), relative);
  return {
    service: config.service,
    origin: config.origin,
    logKey: readPrivateKey(absolute(config.logKey), "logKey"),
    identityKey: readPrivateKey(absolute(config.identityKey), "identityKey"),
    head: absolute(config.head),
    state: absolute(config.state),
    policy: readText(absolute(config.policy), "policy"),
    genesis: config.genesis,
    ...tokenModule(config),
    tokenEnvironment: config.token.environment,
    keys: config.keys.map((key, index) => keyConfig(key, `keys.${index}`, absolute)),
  };
}

type Settings = z.infer<typeof schema>;

function keyConfig(
  key: Settings["keys"][number],
  at: string,
  absolute: (relative: string) => string,
): KeyConfig {
  const { issuer, module, uri, pinFile, grant, crlUrl, caIssuersUrl } = key;
  if ((module === undefined) !== (uri === undefined)) {
    throw invalid(`${at}: module and uri name a token together`);
  }
  if ((pinFile === undefined) !== (grant === undefined)) {
    throw invalid(`${at}: a grant goes with a pinFile; a sealed key has neither`);
  }
  if (pinFile !== undefined && module === undefined) {
    throw invalid(`${at}.pinFile: only a token, with its module and uri, has a PIN`);
  }
  if (key.certificate === undefined && grant !== undefined && "operations" in grant) {
    throw invalid(`${at}.certificate: a standing grant needs the issuer's certificate`);
  }
  if (key.certificate === undefined && pinFile === undefined && key.keyId === undefined) {
    throw invalid(`${at}.keyId: a sealed key without a certificate is known by its id only`);
  }
  const certificate =
    key.certificate === undefined
      ? undefined
      : readCertificate(absolute(key.certificate), `${at}.certificate`);
  const certified =
    certificate && spkiDigest(parseCertificate(certificate).tbs.subjectPublicKeyInfo);
  if (key.keyId !== undefined && certified !== undefined && key.keyId !== certified) {
    throw invalid(`${at}.keyId: the certificate is that of another key`);
  }
  const keyId = certified ?? key.keyId;
  return {
    issuer,
    ...(module === undefined ? {} : { token: { module, uri: uri! } }),
    ...(pinFile === undefined ? {} : { standing: { pinFile: absolute(pinFile), grant: grant! } }),
    ...(keyId === undefined ? {} : { keyId }),
    ...(certificate === undefined ? {} : { certificate }),
    chain: key.chain.map((relative, place) =>
      readCertificate(absolute(relative), `${at}.chain.${place}`),
    ),
    ...(crlUrl === undefined ? {} : { crlUrl }),
    ...(caIssuersUrl === undefined ? {} : { caIssuersUrl }),
  };
}

function tokenModule({ token, keys }: Settings): { tokenModule?: string } {
  const modules = new Set(keys.flatMap(({ module }) => module ?? []));
  const [only, ...others] = modules;
  const module = token.module ?? (others.length === 0 ? only : undefined);
  return module === undefined ? {} : { tokenModule: module };
}

function parseYaml(text: string): unknown {
  try {
    return parse(text, { strict: true, uniqueKeys: true });
  } catch (error) {
    throw invalid(error instanceof Error ? error.message : String(error), error);
  }
}

function readText(file: string, setting: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw invalid(`${setting}: the file cannot be read (${code})`, error);
  }
}

function readPrivateKey(file: string, setting: string): KeyObject {
  const text = readText(file, setting);
  if ((statSync(file).mode & 0o077) !== 0) {
    throw invalid(`${setting}: others can read the file; repair it with chmod 600`);
  }
  let key: KeyObject;
  try {
    key = createPrivateKey(text);
  } catch {
    throw invalid(`${setting}: not a private key in PEM`); // the cause might quote the file
  }
  if (key.asymmetricKeyType !== "ed25519") throw invalid(`${setting}: not an Ed25519 key`);
  return key;
}

function readCertificate(file: string, setting: string): Uint8Array {
  try {
    const der = decodePem(readText(file, setting), "CERTIFICATE");
    parseCertificate(der);
    return der;
  } catch (error) {
    if (error instanceof CountersignError) throw error;
    throw invalid(`${setting}: ${error instanceof Error ? error.message : String(error)}`, error);
  }
}

function invalid(detail: string, cause?: unknown): CountersignError {
  return new CountersignError("config-invalid", `keeper: ${detail}`, { cause });
}
