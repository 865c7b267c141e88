/** The keeper's own configuration: what its side trusts without asking the service (CUSTODY.md 7.1). */

import { createPrivateKey, type KeyObject } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { CountersignError } from "../errors.ts";
import { parseCertificate } from "../x509/certificate.ts";
import { decodePem } from "../x509/pem.ts";
import { grantSchema, type Grant } from "./grant.ts";
import { checkSshPublicKey } from "./ssh-signature.ts";

const sshPublicKey = z.string().refine((line) => {
  try {
    checkSshPublicKey(line);
    return true;
  } catch {
    return false;
  }
}, "expected an SSH public key: Ed25519, ECDSA P-256, or one of them on a FIDO2 key");

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
  operators: z
    .array(
      z.strictObject({
        id: z.string().regex(/^[a-z0-9][a-z0-9.-]{0,62}$/),
        keys: z.array(sshPublicKey).min(1),
      }),
    )
    .refine(
      (operators) => new Set(operators.map(({ id }) => id)).size === operators.length,
      "an operator stands there twice",
    )
    .default([]),
  token: z
    .strictObject({
      /** All that a signer's environment holds. */
      environment: z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string()).default({}),
    })
    .prefault({}),
  keys: z
    .array(
      z.strictObject({
        issuer: z.string().regex(/^[a-z0-9-]{1,63}$/),
        module: path,
        uri: z.string().startsWith("pkcs11:"),
        pinFile: path,
        certificate: path.optional(),
        chain: z.array(path).default([]),
        grant: grantSchema,
      }),
    )
    .refine(
      (keys) => new Set(keys.map(({ issuer }) => issuer)).size === keys.length,
      "an issuer stands there twice",
    ),
});

export interface KeyConfig {
  /** The issuer's id in the policy. */
  readonly issuer: string;
  readonly module: string;
  readonly uri: string;
  readonly pinFile: string;
  /** DER. */
  readonly certificate?: Uint8Array;
  /** DER; the issuer's issuer first, the root last. */
  readonly chain: readonly Uint8Array[];
  readonly grant: Grant;
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
  readonly operators: readonly { readonly id: string; readonly keys: readonly string[] }[];
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
    operators: config.operators,
    tokenEnvironment: config.token.environment,
    keys: config.keys.map((key, index) => {
      const at = `keys.${index}`;
      if (key.certificate === undefined && "operations" in key.grant) {
        throw invalid(`${at}.certificate: a standing grant needs the issuer's certificate`);
      }
      return {
        issuer: key.issuer,
        module: key.module,
        uri: key.uri,
        pinFile: absolute(key.pinFile),
        ...(key.certificate === undefined
          ? {}
          : { certificate: readCertificate(absolute(key.certificate), `${at}.certificate`) }),
        chain: key.chain.map((relative, place) =>
          readCertificate(absolute(relative), `${at}.chain.${place}`),
        ),
        grant: key.grant,
      };
    }),
  };
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
