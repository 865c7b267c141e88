/** Which service a command talks to and as whom: flags, then a home or a configuration file. */

import { existsSync, readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { usage } from "./failure.ts";
import { reasonOf } from "./files.ts";

/** Secrets are only ever named by the file that holds them. */
export interface Settings {
  readonly url?: string;
  /** PEM: the one certificate, or the ones, that vouch for the service's. */
  readonly ca?: string;
  readonly apiKeyFile?: string;
  readonly clientCert?: string;
  readonly clientKey?: string;
  readonly operator?: string;
  /** A private key, or the public key of one that an agent or a FIDO2 key holds. */
  readonly sshKey?: string;
  /** The issuer and the profile of commands that are not told. */
  readonly issuer?: string;
  readonly profile?: string;
  /** Verifier key of the log. */
  readonly logKey?: string;
  /** Verifier key of the service's identity: what a statement must be signed with before it is looked at. */
  readonly identityKey?: string;
  /** The file of the age identity that opens this person's shares. */
  readonly ageIdentity?: string;
  /** The folder of this person's share files; in the configuration's folder when absent. */
  readonly shares?: string;
}

/** The global flags as commander gives them. */
export interface ConnectionFlags {
  readonly url?: string;
  readonly ca?: string;
  readonly apiKeyFile?: string;
  readonly clientCert?: string;
  readonly clientKey?: string;
  readonly operator?: string;
  readonly sshKey?: string;
  readonly home?: string;
  readonly as?: Role;
}

export type Role = "requester" | "operator";

const fileFlags = ["ca", "apiKeyFile", "clientCert", "clientKey", "sshKey"] as const;
const fileSettings = [...fileFlags, "ageIdentity", "shares"] as const;
const textSettings = ["url", "operator", "issuer", "profile", "logKey", "identityKey"] as const;
const known: readonly string[] = [...fileSettings, ...textSettings, "home"];

/** What `npm start` makes in the folder it is started in. */
const DEVELOPMENT_HOME = "var";

/**
 * Flags count before everything else; the rest comes from `--home`, or else from the configuration file, or else
 * from the development home in this folder. Where flags name both address and CA, nothing else is read.
 *
 * @throws CommandFailure with exit code 2 for a file or home that is wrong.
 */
export async function readSettings(
  flags: ConnectionFlags,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<Settings> {
  const given: Record<string, string> = {};
  for (const name of [...fileFlags, "url", "operator"] as const) {
    const value = flags[name];
    if (value !== undefined) given[name] = value;
  }
  // Credentials of one service are never shown to another.
  const other = flags.url !== undefined && flags.ca !== undefined;
  const base: Settings = other ? {} : await baseSettings(flags, environment);
  const settings: Settings = { ...withoutReplaced(base, flags), ...given };
  if ((settings.clientCert === undefined) !== (settings.clientKey === undefined)) {
    throw usage("--client-cert and --client-key come together");
  }
  return settings;
}

/** A client certificate that a flag names counts in place of a configured API key. */
function withoutReplaced({ apiKeyFile, ...base }: Settings, flags: ConnectionFlags): Settings {
  if (apiKeyFile === undefined || flags.clientCert !== undefined) return base;
  return { ...base, apiKeyFile };
}

async function baseSettings(
  flags: ConnectionFlags,
  environment: NodeJS.ProcessEnv,
): Promise<Settings> {
  if (flags.home !== undefined) return homeSettings(flags.home);
  const named = environment["COUNTERSIGN_CONFIG"];
  if (named !== undefined && named !== "") return configSettings(named);
  const found = configurationFiles().find((file) => existsSync(file));
  if (found !== undefined) return configSettings(found);
  return isOwnHome(DEVELOPMENT_HOME) ? homeSettings(DEVELOPMENT_HOME) : {};
}

/** Where this person's settings, shares and what was seen of services are. */
export function configurationFolder(): string {
  return join(homedir(), ".config", "countersign");
}

/** The configuration's own file, by the names that it may have. */
export function configurationFiles(): readonly [string, ...string[]] {
  return [join(configurationFolder(), "config.json"), join(configurationFolder(), "config.yaml")];
}

async function configSettings(file: string): Promise<Settings> {
  const document = await readDocument(file, "the configuration");
  if (typeof document !== "object" || document === null || Array.isArray(document)) {
    throw usage(`${file} is not a configuration: expected names and values`);
  }
  const settings: Record<string, string> = {};
  for (const [name, value] of Object.entries(document)) {
    if (!known.includes(name)) {
      throw usage(`${file}: there is no setting "${name}"`, `known are ${known.join(", ")}`);
    }
    if (typeof value !== "string" || value === "") throw usage(`${file}: ${name} must be a text`);
    settings[name] = (textSettings as readonly string[]).includes(name)
      ? value
      : pathFrom(dirname(resolve(file)), value);
  }
  const { home, ...own } = settings;
  return { ...(home === undefined ? {} : await homeSettings(home)), ...own };
}

function pathFrom(folder: string, path: string): string {
  return path.startsWith("~/") ? join(homedir(), path.slice(2)) : resolve(folder, path);
}

/** A folder that somebody else made in this one must not choose the service and the keys. */
function isOwnHome(home: string): boolean {
  try {
    const { uid } = statSync(join(home, "layout.json"));
    return process.getuid === undefined || uid === process.getuid();
  } catch {
    return false;
  }
}

/** The layout that the service's set-up gives a development home. */
async function homeSettings(home: string): Promise<Settings> {
  const at = (...parts: string[]): string => join(resolve(home), ...parts);
  if (!existsSync(at("layout.json"))) {
    throw usage(
      `${home} is not a home: it has no layout.json`,
      "npm start makes one in ./var; name it with --home, or name the service with --url and --ca",
    );
  }
  const service = (await readDocument(at("service.yaml"), "the home")) as {
    api?: { host?: unknown; port?: unknown };
  } | null;
  const { host = "127.0.0.1", port } = service?.api ?? {};
  if (typeof host !== "string" || typeof port !== "number") {
    throw usage(`${at("service.yaml")} does not say where the API listens`);
  }
  const present = (path: string): string | undefined => (existsSync(path) ? path : undefined);
  const apiKeyFile = present(at("client", "api.key"));
  const logKey = present(at("client", "log.vkey"));
  const identityKey = present(at("client", "identity.vkey"));
  const own = present(at("client", "config.json"));
  const reachable = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
  return {
    url: `https://${reachable.includes(":") ? `[${reachable}]` : reachable}:${port}`,
    ca: at("service", "tls.crt"),
    ...(apiKeyFile === undefined ? {} : { apiKeyFile }),
    ...(logKey === undefined ? {} : { logKey: readFileSync(logKey, "utf8").trim() }),
    ...(identityKey === undefined ? {} : { identityKey: readFileSync(identityKey, "utf8").trim() }),
    // What the home itself says beyond its layout, for people who have keys and shares in it.
    ...(own === undefined ? {} : await configSettings(own)),
  };
}

async function readDocument(file: string, what: string): Promise<unknown> {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw usage(`${what} cannot be read: ${file}: ${reasonOf(error)}`);
  }
  try {
    if (file.endsWith(".json")) return JSON.parse(text) as unknown;
    const { parse } = await import("yaml");
    return parse(text, { uniqueKeys: true }) as unknown;
  } catch (error) {
    throw usage(`${file} is neither JSON nor YAML: ${(error as Error).message.split("\n")[0]}`);
  }
}
