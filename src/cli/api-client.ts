/** The API as the command uses it: https with the given CA only, credentials from files, answers or failures. */

import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { Agent, request as httpsRequest } from "node:https";
import { setTimeout as delay } from "node:timers/promises";
import { CommandFailure, ExitCode, usage } from "./failure.ts";
import { readInput, readSecretFile } from "./files.ts";
import { signIn, type Session } from "./operator.ts";
import type { Role, Settings } from "./settings.ts";

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** Whether an attempt before this one broke on the way. */
  readonly repeated: boolean;
}

export interface ApiRequest {
  readonly method?: "GET" | "POST" | "PUT" | "DELETE";
  /** Sent as JSON. */
  readonly body?: unknown;
  readonly accept?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly as: Role | "nobody";
  /** Sent again after a broken connection: only for what may arrive twice. GET always may. */
  readonly repeatable?: boolean;
  /** Answers beside 2xx that are returned, not thrown. */
  readonly expected?: readonly number[];
}

/** An answer may take as long as the service's own deadline, and then some. */
const ANSWER_MILLISECONDS = 60_000;

/** Pauses before the second and the third attempt. */
const PAUSES = [500, 2_000];

/** The largest CRL anybody publishes stays below. */
const ANSWER_OCTETS = 1 << 29;

/** A session is renewed this long before it ends. */
const RENEWAL_MILLISECONDS = 30_000;

const CONNECTIONS = 8;

export class ApiClient {
  readonly settings: Settings;
  readonly url: URL;
  readonly #forced: Role | undefined;
  readonly #agents = new Map<boolean, Agent>();
  #session: Promise<Session> | undefined;

  /**
   * @param as - The role for everything, whatever a command would choose.
   * @throws CommandFailure with exit code 2 if the settings do not say which service, or which CA.
   */
  constructor(settings: Settings, as?: Role) {
    this.settings = settings;
    this.#forced = as;
    this.url = serviceUrl(settings);
  }

  /** The first of these roles that there are credentials for. */
  role(...preferred: readonly Role[]): Role | undefined {
    if (this.#forced !== undefined) return this.#forced;
    return preferred.find((role) =>
      role === "operator"
        ? this.settings.operator !== undefined && this.settings.sshKey !== undefined
        : this.settings.apiKeyFile !== undefined || this.settings.clientCert !== undefined,
    );
  }

  /**
   * As `role`.
   *
   * @throws CommandFailure with exit code 2 if there are none.
   */
  requireRole(...preferred: readonly Role[]): Role {
    const role = this.role(...preferred);
    if (role !== undefined) return role;
    const ways = preferred.map((one) =>
      one === "operator"
        ? "--operator ID --ssh-key FILE"
        : "--api-key-file FILE (or --client-cert and --client-key)",
    );
    throw usage("this needs credentials", `give ${ways.join(", or ")}`);
  }

  async json<T>(path: string, request: ApiRequest): Promise<T> {
    const answer = await this.request(path, { accept: "application/json", ...request });
    return jsonOf<T>(answer);
  }

  /**
   * Sends a request to a path of the service.
   *
   * @throws CommandFailure with exit code 4 if there is no answer, and with the service's problem if it refuses.
   */
  async request(path: string, request: ApiRequest): Promise<Answer> {
    const answer = await this.#send(path, request);
    const good = answer.status >= 200 && answer.status < 300;
    if (good || request.expected?.includes(answer.status)) return answer;
    throw await this.#refusal(answer);
  }

  /** Ends the operator's session, if there is one, and the connections. */
  async close(): Promise<void> {
    const session = await this.#session?.catch(() => undefined);
    if (session !== undefined) {
      // It ends by itself; a service that went away meanwhile is no reason to fail.
      await this.#send("/v1/sessions/current", { method: "DELETE", as: "operator" }).catch(
        () => undefined,
      );
    }
    for (const agent of this.#agents.values()) agent.destroy();
  }

  async #send(path: string, request: ApiRequest): Promise<Answer> {
    const { method = request.body === undefined ? "GET" : "POST" } = request;
    const body = request.body === undefined ? undefined : Buffer.from(JSON.stringify(request.body));
    const authorization = await this.#authorization(request.as);
    const headers = {
      accept: request.accept ?? "*/*",
      "user-agent": "countersign",
      ...(body === undefined
        ? {}
        : { "content-type": "application/json", "content-length": String(body.length) }),
      ...(authorization === undefined ? {} : { authorization: `Bearer ${authorization}` }),
      ...request.headers,
    };
    const agent = this.#agent(request.as === "requester" && authorization === undefined);
    const pauses = method === "GET" || request.repeatable === true ? PAUSES : [];
    for (const [attempt, pause] of [...pauses, undefined].entries()) {
      try {
        const answer = await this.#attempt(path, { method, headers, agent }, body);
        return { ...answer, repeated: attempt > 0 };
      } catch (error) {
        if (pause === undefined || !isPassing(error)) {
          throw unreachable(this.url, error, this.settings.ca);
        }
        await delay(pause);
      }
    }
    throw new Error("unreachable");
  }

  #attempt(
    path: string,
    options: { method: string; headers: Record<string, string>; agent: Agent },
    body: Buffer | undefined,
  ): Promise<Omit<Answer, "repeated">> {
    return new Promise((resolve, reject) => {
      const request = httpsRequest(new URL(path, this.url), {
        ...options,
        rejectUnauthorized: true,
      });
      request.setTimeout(ANSWER_MILLISECONDS, () => request.destroy(new SilentService()));
      request.once("error", reject);
      request.once("response", (response) => {
        readAnswer(response).then(resolve, reject);
      });
      request.end(body);
    });
  }

  async #authorization(as: ApiRequest["as"]): Promise<string | undefined> {
    switch (as) {
      case "nobody":
        return undefined;
      case "operator":
        return (await this.#signedIn()).token;
      case "requester": {
        const { apiKeyFile, clientCert } = this.settings;
        if (apiKeyFile === undefined) {
          if (clientCert === undefined) this.requireRole();
          return undefined;
        }
        return readApiKey(apiKeyFile);
      }
    }
  }

  async #signedIn(): Promise<Session> {
    this.#session ??= signIn(this);
    const session = await this.#session;
    if (session.expiresAt.getTime() - Date.now() > RENEWAL_MILLISECONDS) return session;
    this.#session = signIn(this);
    return this.#session;
  }

  #agent(withCertificate: boolean): Agent {
    let agent = this.#agents.get(withCertificate);
    if (agent === undefined) {
      const { ca, clientCert, clientKey } = this.settings;
      agent = new Agent({
        ca: readCa(ca!),
        keepAlive: true,
        maxSockets: CONNECTIONS,
        minVersion: "TLSv1.2",
        ...(withCertificate && clientCert !== undefined && clientKey !== undefined
          ? { cert: readInput(clientCert), key: readSecretFile(clientKey, "client key") }
          : {}),
      });
      this.#agents.set(withCertificate, agent);
    }
    return agent;
  }

  async #refusal(answer: Answer): Promise<CommandFailure> {
    const problem = problemOf(answer);
    if (problem === undefined) {
      return new CommandFailure(
        `${this.url.origin} answered ${answer.status}, and not as a Countersign service does`,
        { exitCode: ExitCode.unreachable, code: "not-a-service", next: "check --url" },
      );
    }
    const { code, title, detail } = problem;
    const words = [detail, title].find((text): text is string => typeof text === "string");
    const next = typeof code === "string" ? await this.#advice(code) : undefined;
    return new CommandFailure(words ?? `refused with status ${answer.status}`, {
      code: typeof code === "string" ? code : `http-${answer.status}`,
      problem,
      uncertain: answer.repeated,
      ...(next === undefined ? {} : { next }),
    });
  }

  /** The service's own page about a problem: a title, an empty line, and what to do. */
  async #advice(code: string): Promise<string | undefined> {
    if (!/^[a-z0-9-]{1,64}$/.test(code)) return undefined;
    try {
      const page = await this.#send(`/problems/${code}`, { as: "nobody" });
      if (page.status !== 200) return undefined;
      return page.body.toString().split("\n\n").slice(1).join(" ").trim().slice(0, 1_000);
    } catch {
      return undefined;
    }
  }
}

/** @throws CommandFailure if the body is not JSON. */
export function jsonOf<T>(answer: Answer): T {
  try {
    return JSON.parse(answer.body.toString()) as T;
  } catch (error) {
    throw new CommandFailure("the answer is not JSON, so not one of a Countersign service", {
      exitCode: ExitCode.unreachable,
      code: "not-a-service",
      next: "check --url",
      cause: error,
    });
  }
}

function serviceUrl({ url, ca }: Settings): URL {
  if (url === undefined) {
    throw usage(
      "which service? Nothing says where it is",
      "give --url and --ca, or --home; or write them into ~/.config/countersign/config.json; or start in a folder that has a development home in var",
    );
  }
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw usage(`${url} is not a URL`, "write https://host:port");
  }
  if (parsed.protocol !== "https:") {
    throw usage(`${url} is not https, and the API is nothing else`, "write https://host:port");
  }
  if (parsed.username !== "" || parsed.password !== "") {
    throw usage("a URL holds no user name and no password", "credentials come from files");
  }
  if (ca === undefined) {
    throw usage(
      `which certificate vouches for ${parsed.origin}?`,
      "give its CA, or its own certificate, with --ca FILE; nothing else is trusted",
    );
  }
  return parsed;
}

function readCa(file: string): Buffer {
  const pem = readInput(file);
  if (!pem.includes("-----BEGIN CERTIFICATE-----")) throw usage(`${file} holds no PEM certificate`);
  return pem;
}

function readApiKey(file: string): string {
  const key = readSecretFile(file, "API key").toString("latin1").trim();
  if (!/^[\x21-\x7e]{1,256}$/.test(key)) throw usage(`${file} does not hold an API key`);
  return key;
}

async function readAnswer(response: IncomingMessage): Promise<Omit<Answer, "repeated">> {
  const chunks: Buffer[] = [];
  let octets = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    octets += chunk.length;
    if (octets > ANSWER_OCTETS) throw new Error("the answer does not end");
    chunks.push(chunk);
  }
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks),
  };
}

function problemOf(answer: Answer): Record<string, unknown> | undefined {
  if (!answer.headers["content-type"]?.startsWith("application/problem+json")) return undefined;
  try {
    const problem = JSON.parse(answer.body.toString()) as unknown;
    if (typeof problem !== "object" || problem === null) return undefined;
    return problem as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

class SilentService extends Error {
  readonly code = "SILENT";
}

/** Whether the connection broke on the way: the same request may get through the next time. */
function isPassing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ECONNRESET" || code === "EPIPE" || code === "ETIMEDOUT" || code === "EAI_AGAIN";
}

const certificateTroubles: Readonly<Record<string, string>> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: "it shows a certificate that the CA file does not vouch for",
  SELF_SIGNED_CERT_IN_CHAIN: "it shows a certificate that the CA file does not vouch for",
  UNABLE_TO_GET_ISSUER_CERT: "it shows a certificate that the CA file does not vouch for",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "it shows a certificate that the CA file does not vouch for",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "it shows a certificate that the CA file does not vouch for",
  CERT_SIGNATURE_FAILURE: "it shows a certificate that the CA file does not vouch for",
  CERT_HAS_EXPIRED: "its certificate has expired",
  CERT_NOT_YET_VALID: "its certificate is not valid yet: is the clock here right?",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another name",
};

function unreachable(url: URL, error: unknown, ca: string | undefined): CommandFailure {
  if (error instanceof CommandFailure) return error;
  const { code = "", message } = error as NodeJS.ErrnoException;
  const fail = (detail: string, next: string): CommandFailure =>
    new CommandFailure(`${url.origin} ${detail}`, {
      exitCode: ExitCode.unreachable,
      code: "unreachable",
      next,
      cause: error,
    });
  const trouble = certificateTroubles[code];
  if (trouble !== undefined) {
    return fail(
      `is not trusted: ${trouble}`,
      `check that --url is the service and ${ca} its CA or its own certificate; nothing was sent`,
    );
  }
  switch (code) {
    case "ECONNREFUSED":
      return fail("refuses connections", "is the service running there? check --url");
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return fail("has a host name that nobody knows", "check --url and the network's DNS");
    case "SILENT":
      return fail(
        `did not answer within ${ANSWER_MILLISECONDS / 1000} s`,
        "it may still finish: ask for the state before you repeat the command",
      );
    case "EPROTO":
      return fail("does not speak TLS as expected", "check --url: is that the port of the API?");
    case "ECONNRESET":
    case "EPIPE":
      return fail(
        "closed the connection before it answered",
        "is that the port of the API, and is the service healthy?",
      );
    default:
      return fail(`cannot be reached: ${message}`, "check --url, the network and the firewall");
  }
}
