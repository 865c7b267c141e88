/** `countersign issue`: a certificate for a CSR, or for a key that is made here and never leaves. */

import { createPrivateKey, generateKeyPair, randomUUID, type KeyObject } from "node:crypto";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { CountersignError } from "../errors.ts";
import { buildCertificationRequest } from "../x509/certification-request-builder.ts";
import { readCertificationRequest } from "../x509/certification-request.ts";
import { parseCertificate } from "../x509/certificate.ts";
import { DerError, equalOctets } from "../x509/der.ts";
import { decodePem, encodePem } from "../x509/pem.ts";
import type { ApiClient } from "./api-client.ts";
import { chooseIssuer, issuerPath, type Context } from "./context.ts";
import { CommandFailure, ExitCode, usage } from "./failure.ts";
import {
  checkWritable,
  readInput,
  readSecretFile,
  removeSecretFile,
  writeResultFile,
  writeSecretFile,
} from "./files.ts";
import { printsItself } from "./certificate-reference.ts";
import { requestedName } from "./requested-name.ts";

export interface IssueOptions {
  readonly csr?: string;
  readonly keyOut?: string;
  readonly key?: string;
  readonly name: readonly string[];
  readonly commonName?: string;
  readonly keyType: KeyTypeName;
  readonly issuer?: string;
  readonly profile?: string;
  readonly lifetime?: string;
  readonly out?: string;
  readonly force?: boolean;
  readonly idempotencyKey?: string;
}

export const keyTypeNames = [
  "P-256",
  "P-384",
  "P-521",
  "RSA-2048",
  "RSA-3072",
  "RSA-4096",
  "Ed25519",
] as const;

export type KeyTypeName = (typeof keyTypeNames)[number];

interface Issued {
  readonly issuer: string;
  readonly serialNumber: string;
  readonly sha256: string;
  readonly certificate: string;
  readonly chain: string;
  readonly notBefore: string;
  readonly notAfter: string;
  readonly logIndex: number;
}

const DEFAULT_PROFILE = "server";

/** Answers after which nothing can have been issued: the service has refused the request as it stands. */
const refusedForGood = (error: unknown): boolean => {
  if (!(error instanceof CommandFailure) || error.uncertain) return false;
  const { status } = error.problem;
  return typeof status === "number" && status >= 400 && status < 500;
};

export async function issue(context: Context, options: IssueOptions): Promise<ExitCode> {
  const { output } = context;
  checkOptions(options);
  const client = await context.connect();
  const as = client.requireRole("requester");
  const issuer = await chooseIssuer(client, options.issuer);
  const profile = options.profile ?? client.settings.profile ?? DEFAULT_PROFILE;
  const request = await makeRequest(context, options);
  const idempotencyKey = options.idempotencyKey ?? randomUUID();
  let issued: Issued;
  try {
    issued = await client.json<Issued>(`${issuerPath(issuer)}/certificates`, {
      as,
      headers: { "idempotency-key": idempotencyKey },
      body: {
        profile,
        csr: encodePem("CERTIFICATE REQUEST", request.csr),
        ...(options.lifetime === undefined ? {} : { lifetime: options.lifetime }),
      },
      repeatable: true,
    });
  } catch (error) {
    throw afterFailure(error, options, idempotencyKey);
  }
  checkAnswer(issued, request.csr);
  const pem = issued.certificate + issued.chain;
  if (options.out !== undefined) writeOut(options.out, pem, options, issued);
  report(context, client, options, issued, profile);
  if (printsItself(context, options.out)) output.raw(pem);
  return ExitCode.done;
}

function checkOptions(options: IssueOptions): void {
  const { csr, key, keyOut, name, out } = options;
  if ([csr, key, keyOut].filter((file) => file !== undefined).length !== 1) {
    throw usage(
      "a certificate for which key?",
      "give --key-out FILE to make a new key, --key FILE for one that you have, or --csr FILE",
    );
  }
  if (csr !== undefined && (name.length > 0 || options.commonName !== undefined)) {
    throw usage("the CSR says which names it is for", "leave out --name and --common-name");
  }
  if (csr === undefined && name.length === 0) {
    throw usage("a certificate for which names?", "give --name once or more");
  }
  if (keyOut !== undefined && out !== undefined && resolve(keyOut) === resolve(out)) {
    throw usage("--key-out and --out name the same file");
  }
  if (keyOut !== undefined) checkWritable(keyOut, false, keyExists(keyOut));
  if (out !== undefined) checkWritable(out, options.force);
}

function keyExists(file: string): string {
  return `a key is never overwritten: use it with --key ${file}, or name another file`;
}

async function makeRequest(
  { output }: Context,
  options: IssueOptions,
): Promise<{ csr: Uint8Array }> {
  if (options.csr !== undefined) return { csr: readRequest(options.csr) };
  const names = options.name.map(requestedName);
  const privateKey =
    options.key === undefined
      ? await makeKey(options.keyType, options.keyOut!)
      : readKey(options.key);
  if (options.keyOut !== undefined) output.note(`new key: ${options.keyOut}`);
  try {
    const csr = buildCertificationRequest({
      privateKey,
      names,
      ...(options.commonName === undefined ? {} : { commonName: options.commonName }),
    });
    return { csr };
  } catch (error) {
    if (error instanceof DerError) throw usage("this kind of key cannot be certified");
    if (!(error instanceof CountersignError)) throw error;
    if (options.keyOut !== undefined) removeSecretFile(options.keyOut);
    throw new CommandFailure(error.message, { exitCode: ExitCode.usage, code: error.code });
  }
}

/** What is not a request is found here; whether it is a good one is for the service to say. */
function readRequest(file: string): Uint8Array {
  const input = readInput(file);
  try {
    return readCertificationRequest(input).der;
  } catch (error) {
    if (!(error instanceof CountersignError)) throw error;
    throw new CommandFailure(`${file}: ${error.message}`, {
      code: error.code,
      problem: error.members,
      next: "make the request anew; countersign inspect shows what it holds",
    });
  }
}

/** The key is on disk before anybody hears of it: a certificate without its key would be worth nothing. */
async function makeKey(type: KeyTypeName, file: string): Promise<KeyObject> {
  const privateKey = await newKey(type);
  const pem = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  writeSecretFile(file, pem, keyExists(file));
  return privateKey;
}

const generate = promisify(generateKeyPair);

async function newKey(type: KeyTypeName): Promise<KeyObject> {
  switch (type) {
    case "P-256":
    case "P-384":
    case "P-521":
      return (await generate("ec", { namedCurve: type })).privateKey;
    case "RSA-2048":
    case "RSA-3072":
    case "RSA-4096": {
      const modulusLength = Number(type.slice("RSA-".length));
      return (await generate("rsa", { modulusLength, publicExponent: 0x10001 })).privateKey;
    }
    case "Ed25519":
      return (await generate("ed25519")).privateKey;
  }
}

/** @throws CommandFailure without what OpenSSL says of the contents. */
export function readKey(file: string): KeyObject {
  const pem = readSecretFile(file, "private key");
  try {
    return createPrivateKey(pem);
  } catch {
    throw usage(
      `${file} does not hold a private key that can be opened here`,
      "it must be PEM without a passphrase; countersign inspect says what a file is",
    );
  }
}

/** A service that certified another key than the one asked for has not done what was asked. */
function checkAnswer(issued: Issued, csr: Uint8Array): void {
  const { spki } = readCertificationRequest(csr).publicKey;
  let certified: Uint8Array;
  try {
    const der = decodePem(issued.certificate, "CERTIFICATE");
    certified = parseCertificate(der).tbs.subjectPublicKeyInfo;
  } catch (error) {
    throw new CommandFailure("the service answered with something else than a certificate", {
      cause: error,
    });
  }
  if (!equalOctets(certified, spki)) {
    throw new CommandFailure("the service answered with a certificate for another key");
  }
}

function afterFailure(error: unknown, options: IssueOptions, idempotencyKey: string): unknown {
  if (!(error instanceof CommandFailure)) return error;
  const { keyOut } = options;
  if (refusedForGood(error)) {
    if (keyOut === undefined) return error;
    removeSecretFile(keyOut);
    return error.with(`${keyOut} was removed again: no certificate was issued for it`);
  }
  if (keyOut !== undefined) {
    return error.with(`the new key stays in ${keyOut}: try again with --key ${keyOut}`);
  }
  if (options.csr !== undefined) {
    return error.with(
      `try again with --idempotency-key ${idempotencyKey}: nothing is issued twice`,
    );
  }
  return error;
}

function writeOut(file: string, pem: string, options: IssueOptions, issued: Issued): void {
  try {
    writeResultFile(file, pem, options.force);
  } catch (error) {
    if (!(error instanceof CommandFailure)) throw error;
    throw error.with(
      `the certificate is issued: countersign certificates get ${issued.serialNumber} --issuer ${issued.issuer} --out FILE`,
    );
  }
}

function report(
  { output }: Context,
  client: ApiClient,
  options: IssueOptions,
  issued: Issued,
  profile: string,
): void {
  output.result({
    issuer: issued.issuer,
    serialNumber: issued.serialNumber,
    sha256: issued.sha256,
    profile,
    notBefore: issued.notBefore,
    notAfter: issued.notAfter,
    logIndex: issued.logIndex,
    certificate: issued.certificate,
    chain: issued.chain,
    url: new URL(`${issuerPath(issued.issuer)}/certificates/${issued.serialNumber}`, client.url)
      .href,
    ...(options.keyOut === undefined ? {} : { keyFile: options.keyOut }),
    ...(options.out === undefined ? {} : { file: options.out }),
  });
  const summary = `${profile} certificate ${issued.serialNumber} by ${issued.issuer}, until ${issued.notAfter}`;
  if (options.out === undefined) {
    output.note(summary);
    return;
  }
  output.line(summary);
  output.line(`certificate and chain: ${options.out}`);
}
