/** A home: the folder with everything one installation has, where its files lie, and whether it is one. */

import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { CountersignError } from "./errors.ts";

/** A newer home is never converted silently, and a service never opens one it does not know. */
export const HOME_LAYOUT = 2;

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
    /** The first roster; the signatures of those in it lie beside it. */
    genesis: at("roster", "genesis.json"),
    /** A folder for each person of a development home. */
    people: at("people"),
    /** The key of the first of them, unless it was given. */
    operatorKey: at("people", "alice", "id_ed25519"),
    /** What the command is told of whoever asks. */
    clientConfig: at("client", "config.json"),
    apiKey: at("client", "api.key"),
    /** For `curl --config`: the API's certificate and the key, which so stays out of arguments. */
    curl: at("client", "curl.conf"),
    metricsKey: at("client", "metrics.key"),
    /** Verifier key of the log's checkpoints, for `countersign verify --key`. */
    logKey: at("client", "log.vkey"),
    /** Verifier key of the service's statements. */
    identityKey: at("client", "identity.vkey"),
  };
}

/** All that the marker of an unfinished home says. */
export const UNFINISHED = "set-up had not ended\n";

/** What set-up puts into a home, beside its lock and its marker; layout.json is the last. */
export const made = [
  "service",
  "keeper",
  "issuers",
  "client",
  "people",
  "roster",
  "service.yaml",
  "policy.yaml",
];

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
