/** The real service in a process of its own, on a development home of its own, as `npm start` runs it. */

import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { homeFiles } from "../../src/home.ts";

/** The package's folder, from test/ and from dist/test/ alike. */
const root = [new URL("../..", import.meta.url), new URL("../../..", import.meta.url)]
  .map((url) => fileURLToPath(url))
  .find((folder) => existsSync(join(folder, "package.json")))!;

export const mainModule = join(root, "dist/src/main.js");
export const packageRoot = root;

/** Node's flags in `npm start`. */
const startFlags = /\bexec node ((?:--\S+ )*)dist\/src\/main\.js /
  .exec(
    (
      JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
        scripts: { start: string };
      }
    ).scripts.start,
  )![1]!
  .split(" ")
  .filter((flag) => flag !== "");

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
  /** The body as JSON. */
  json<T = Record<string, unknown>>(): T;
}

export interface ApiRequest {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  /** `false`: without credentials. A text: this bearer token. Absent: the development requester's API key. */
  readonly token?: string | false;
  /** PEM files of a TLS client certificate. */
  readonly client?: { readonly cert: string; readonly key: string };
}

export class RunningService {
  readonly home: string;
  readonly files: ReturnType<typeof homeFiles>;
  readonly child: ChildProcess;
  readonly apiPort: number;
  readonly publicPort: number;
  /** Standard output and standard error up to now. */
  readonly output: { stdout: string; stderr: string };
  readonly ended: Promise<number | null>;

  constructor(
    home: string,
    child: ChildProcess,
    ports: { api: number; public: number },
    output: { stdout: string; stderr: string },
    ended: Promise<number | null>,
  ) {
    this.home = home;
    this.files = homeFiles(home);
    this.child = child;
    this.apiPort = ports.api;
    this.publicPort = ports.public;
    this.output = output;
    this.ended = ended;
  }

  get apiKey(): string {
    return readFileSync(this.files.apiKey, "utf8").trim();
  }

  /** Asks the API over https. */
  api(path: string, options: ApiRequest = {}): Promise<Answer> {
    const token = options.token ?? this.apiKey;
    return ask(
      httpsRequest({
        host: "127.0.0.1",
        port: this.apiPort,
        path,
        method: options.method ?? (options.body === undefined ? "GET" : "POST"),
        ca: readFileSync(this.files.tlsCertificate),
        agent: false,
        headers: {
          ...(token === false ? {} : { authorization: `Bearer ${token}` }),
          ...options.headers,
        },
        ...options.client,
      }),
      options.body,
    );
  }

  /** Posts JSON, or puts it with `method`. */
  send(path: string, body: unknown, options: ApiRequest = {}): Promise<Answer> {
    return this.api(path, {
      ...options,
      body: JSON.stringify(body),
      headers: { "content-type": "application/json", ...options.headers },
    });
  }

  /** Asks the public site over http. */
  public(path: string, options: Pick<ApiRequest, "method" | "headers"> = {}): Promise<Answer> {
    return ask(
      httpRequest({
        host: "127.0.0.1",
        port: this.publicPort,
        path,
        method: options.method ?? "GET",
        agent: false,
        headers: options.headers ?? {},
      }),
    );
  }

  /** The service's processes: the service itself, the keeper and the signers, by what they run. */
  processes(): { service: number; keeper: number; signers: number[] } {
    return processesBelow(this.child.pid!);
  }

  /** Ends it as an operator would. */
  async stop(): Promise<number | null> {
    if (this.child.exitCode === null) this.child.kill("SIGTERM");
    return this.ended;
  }
}

async function ask(
  request: ReturnType<typeof httpRequest>,
  body?: string | Uint8Array,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    request.once("error", reject);
    request.once("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.once("error", reject);
      response.once("end", () => {
        const whole = Buffer.concat(chunks);
        resolve({
          status: response.statusCode!,
          headers: response.headers,
          body: whole,
          json: <T>() => JSON.parse(whole.toString()) as T,
        });
      });
    });
    request.end(body);
  });
}

export interface StartOptions {
  /** An existing home; a new one in a temporary folder when absent. */
  readonly home?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Another program than the service's own, and what it is told beside the home. */
  readonly program?: { readonly module: string; readonly parameters: readonly string[] };
  /** In a process group of its own, as a terminal starts it. */
  readonly group?: boolean;
  /** Instead: this line in a shell, in the package's folder, on an existing home. */
  readonly shell?: string;
}

/** A port that nobody listens on now; certificates carry it, so it must be known before the service starts. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Where a new home of a test goes. */
export function temporaryHome(): string {
  return join(mkdtempSync(join(tmpdir(), "countersign-")), "home");
}

export function removeHome(home: string): void {
  rmSync(join(home, ".."), { recursive: true, force: true });
}

/**
 * Starts the service and waits until it listens.
 *
 * @throws Error with what it printed, if it ends instead.
 */
export async function startTestService(options: StartOptions = {}): Promise<RunningService> {
  const home = options.home ?? temporaryHome();
  const [api, publicSite] = [await freePort(), await freePort()];
  const [command, parameters] =
    options.shell === undefined
      ? [process.execPath, commandLine()]
      : ["/bin/sh", ["-c", options.shell]];
  const child = spawn(command, parameters, {
    cwd: options.shell === undefined ? join(home, "..") : root,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...options.env },
    detached: options.group === true,
  });

  function commandLine(): string[] {
    return options.program === undefined
      ? [
          ...startFlags,
          mainModule,
          "serve",
          "--home",
          home,
          "--api-port",
          `${api}`,
          "--public-port",
          `${publicSite}`,
        ]
      : [options.program.module, home, ...options.program.parameters];
  }
  const output = { stdout: "", stderr: "" };
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (output.stderr += text));
  const ports = await new Promise<{ api: number; public: number }>((resolve, reject) => {
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      output.stdout += text;
      const found = /serves https:\/\/[\d.]+:(\d+) \(API\) and http:\/\/[\d.]+:(\d+) /.exec(
        output.stdout,
      );
      if (found !== null && output.stdout.includes("certificate revoked")) {
        resolve({ api: Number(found[1]), public: Number(found[2]) });
      }
    });
    void ended.then((code) =>
      reject(new Error(`the service ended with ${code}: ${output.stdout}${output.stderr}`)),
    );
  });
  return new RunningService(home, child, ports, output, ended);
}

/** The processes of a service by what they run. */
export function processesBelow(service: number): {
  service: number;
  keeper: number;
  signers: number[];
} {
  const tree = descendants(service);
  const running = (name: string): number[] =>
    tree.filter((pid) => commandOf(pid).includes(`${name}.js`));
  return { service, keeper: running("keeper-main")[0]!, signers: running("signer-main") };
}

/** Every process below `pid`, from /proc. */
function descendants(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
    } catch {
      continue; // it ended meanwhile
    }
  }
  const found = [pid];
  for (const candidate of found) {
    for (const [child, parent] of parents) if (parent === candidate) found.push(child);
  }
  return found.slice(1);
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return ""; // it ended meanwhile
  }
}
