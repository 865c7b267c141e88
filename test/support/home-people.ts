/** The people of a running service's home: each runs the command, or stock tools, on a machine of their own. */

import { execFileSync, spawn } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { digestOf } from "../../src/audit/digest.ts";
import { parseEntry, type LogEntry } from "../../src/audit/entry.ts";
import { openNote } from "../../src/audit/signed-note.ts";
import { decodeEntryBundle, tilePath, tileWidth } from "../../src/audit/tiles.ts";
import { readShareSet, type ShareSet } from "../../src/custody/plan.ts";
import { namespaces, readUnlock, type Signed } from "../../src/custody/statement.ts";
import type { CeremonyAnswer, KeyAnswer, UnlockAnswer } from "../../src/cli/people-answers.ts";
import type { CommandFailure } from "../../src/cli/failure.ts";
import type { Run } from "../cli/command.ts";
import { json, sshSign, type SeenLog } from "./people.ts";
import { packageRoot, type Answer, type ApiRequest, type RunningService } from "./service.ts";

/** What docs/custody.md says that giving a share takes, and what every shell has beside it. */
const stockTools = ["curl", "age", "openssl", "ssh-keygen", "jq", "xxd"] as const;
const shellTools = ["bash", "cat", "cut", "date", "head", "sed", "tail", "tr"] as const;

/** Builds the command as one file. */
export function buildSingleFile(file: string): void {
  const { version, scripts } = JSON.parse(
    readFileSync(join(packageRoot, "package.json"), "utf8"),
  ) as { version: string; scripts: { "build:cli": string } };
  // Into another place than the script says: other tests build it too.
  execFileSync("sh", ["-c", scripts["build:cli"].replace("dist/countersign.mjs", file)], {
    cwd: packageRoot,
    env: {
      ...process.env,
      PATH: [join(packageRoot, "node_modules/.bin"), process.env["PATH"]].join(delimiter),
      npm_package_version: version,
    },
    stdio: "pipe",
  });
}

/** A share that goes to one unlock, and was signed for or encrypted to another. */
export interface MisdirectedShare {
  readonly signedFor?: string;
  readonly encryptedFor?: string;
}

export class HomePeople {
  #service: RunningService | undefined;
  readonly #files: RunningService["files"];
  /** With a home directory for each. */
  readonly folder: string;
  /** The command's file. */
  readonly #command: string;
  /** Bearer tokens, by operator. */
  readonly #sessions = new Map<string, string>();

  /** @param service - of one that is yet to be started, its files. */
  constructor(
    service: RunningService | Pick<RunningService, "files">,
    command = join(packageRoot, "dist/src/cli/main.js"),
  ) {
    this.#service = "child" in service ? service : undefined;
    this.#files = service.files;
    this.#command = command;
    this.folder = mkdtempSync(join(tmpdir(), "countersign-people-"));
  }

  get service(): RunningService {
    if (this.#service === undefined) throw new Error("the service was not started yet");
    return this.#service;
  }

  /** The same home, opened by another process, to which everybody signs in anew. */
  restarted(service: RunningService): void {
    this.#service = service;
    this.#sessions.clear();
  }

  remove(): void {
    rmSync(this.folder, { recursive: true });
  }

  /** The home directory of somebody, which is not the one of the service. */
  homeOf(id: string): string {
    const home = join(this.folder, id);
    mkdirSync(home, { recursive: true });
    return home;
  }

  /** A file of somebody's: `id_ed25519`, `age.key`. The five have theirs in the service's home. */
  fileOf(id: string, name: string): string {
    const folder = join(this.#files.people, id);
    return join(existsSync(folder) ? folder : this.homeOf(id), name);
  }

  /** Runs `countersign` as one of the people, in their home directory. */
  run(id: string, ...parameters: readonly string[]): Promise<Run> {
    const config = this.fileOf(id, "config.json");
    const { COUNTERSIGN_CONFIG: _, ...env } = process.env;
    return ended(process.execPath, [this.#command, ...parameters], {
      folder: this.homeOf(id),
      env: {
        ...env,
        HOME: this.homeOf(id),
        ...(existsSync(config) ? { COUNTERSIGN_CONFIG: config } : {}),
      },
    });
  }

  /** As `run`. @returns What it printed. @throws Error with what it said instead, unless it did what it was told. */
  async told(id: string, ...parameters: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.run(id, ...parameters);
    if (status !== 0) {
      throw new Error(`${id}: countersign ${parameters.join(" ")} ended with ${status}: ${stderr}`);
    }
    return stdout;
  }

  /** As `told`, with `--json`. */
  async json<T>(id: string, ...parameters: readonly string[]): Promise<T> {
    return JSON.parse(await this.told(id, "--json", ...parameters)) as T;
  }

  /** The code of a command that is refused. */
  async refusal(id: string, ...parameters: readonly string[]): Promise<string | undefined> {
    const { status, stderr } = await this.run(id, "--json", ...parameters);
    if (status === 0) throw new Error(`${id}: countersign ${parameters.join(" ")} was not refused`);
    const { error } = JSON.parse(stderr) as { error: Pick<CommandFailure, "code"> };
    return error.code;
  }

  /** What several do at the same time, each on their own machine. */
  all<T>(ids: readonly string[], work: (id: string) => Promise<T>): Promise<T[]> {
    return Promise.all(ids.map((id) => work(id)));
  }

  /** Asks for a session, with stock ssh-keygen; a second time it is the same one. */
  async session(id: string): Promise<string> {
    const open = this.#sessions.get(id);
    if (open !== undefined) return open;
    const answer = await this.signIn(id);
    if (answer.status !== 200) throw new Error(`${id} cannot sign in: ${answer.body.toString()}`);
    const { token } = answer.json<{ token: string }>();
    this.#sessions.set(id, token);
    return token;
  }

  /** One try to sign in. */
  async signIn(id: string): Promise<Answer> {
    const challenge = await this.service.send("/v1/sessions", { operator: id }, { token: false });
    const opened = challenge.json<{ id: string; statement: string }>();
    const signature = sshSign(
      this.fileOf(id, "id_ed25519"),
      "countersign-login@v1",
      Buffer.from(opened.statement),
    );
    return this.service.send(`/v1/sessions/${opened.id}`, { signature }, { token: false });
  }

  /** What an operator gets from the API. */
  async get<T>(path: string, id = "alice"): Promise<T> {
    const answer = await this.service.api(path, { token: await this.session(id) });
    if (answer.status !== 200) throw new Error(`${path}: ${answer.body.toString()}`);
    return answer.json<T>();
  }

  /** What an operator sends to the API. */
  async send(path: string, body: unknown, id = "alice", options?: ApiRequest): Promise<Answer> {
    return this.service.send(path, body, { token: await this.session(id), ...options });
  }

  async propose(body: object, id?: string): Promise<CeremonyAnswer> {
    return created(await this.send("/v1/ceremonies", { reason: "a test", ...body }, id));
  }

  async unlock(ceremony: string, id?: string): Promise<UnlockAnswer> {
    return created(await this.send("/v1/unlocks", { ceremony }, id));
  }

  ceremony(id: string): Promise<CeremonyAnswer> {
    return this.get(`/v1/ceremonies/${id}`);
  }

  /** A key by its issuer, or by its id. */
  async key(named: string): Promise<KeyAnswer> {
    const { keys } = await this.get<{ keys: KeyAnswer[] }>("/v1/keys");
    const found = keys.find(({ keyId, issuer }) => issuer === named || keyId === named);
    if (found === undefined) throw new Error(`there is no key ${named}`);
    return found;
  }

  /** The share set of a key, its note checked with the service's identity key. */
  async shareSet(keyId: string): Promise<ShareSet> {
    const answer = await this.service.api(`/v1/keys/${keyId}/share-set`, {
      token: await this.session("alice"),
    });
    return readShareSet(this.opened(answer.body));
  }

  /** The JSON of a note of the keeper's. */
  opened(note: Uint8Array): Buffer {
    const key = readFileSync(this.#files.identityKey, "utf8").trim();
    return Buffer.from(openNote(note, [key]).text.slice(0, -1));
  }

  async seenLog(): Promise<SeenLog> {
    const { body } = await this.service.api("/audit/checkpoint", { token: false });
    const [, size, root] = body.toString().split("\n");
    return { size: Number(size), root: root! };
  }

  /** The entries of some types in the audit log, oldest first. */
  async entries(...types: readonly LogEntry["type"][]): Promise<LogEntry[]> {
    const { size } = await this.seenLog();
    const entries: LogEntry[] = [];
    for (let n = 0, width; (width = tileWidth("entries", n, size)) > 0; n++) {
      const path = `/audit/${tilePath("entries", n, width)}`;
      // oxlint-disable-next-line no-await-in-loop -- one bundle, seldom two
      const { body } = await this.service.api(path, { token: await this.session("alice") });
      entries.push(...decodeEntryBundle(body).leaves.map((leaf) => parseEntry(leaf)));
    }
    return entries.filter(({ type }) => types.includes(type));
  }

  /** Signs as somebody, with stock ssh-keygen, what every statement has and this. */
  async signed(id: string, namespace: keyof typeof namespaces, what: object): Promise<Signed> {
    const statement = json({
      operator: id,
      at: new Date().toISOString(),
      log: await this.seenLog(),
      ...what,
    });
    const signature = sshSign(this.fileOf(id, "id_ed25519"), namespaces[namespace], statement);
    return { statement, signature };
  }

  /** Somebody's age recipient. */
  recipientOf(id: string): string {
    return execFileSync("age-keygen", ["-y", this.fileOf(id, "age.key")])
      .toString()
      .trim();
  }

  /** The line of a share file that is the share, with stock age. */
  shareText(id: string, file: string): string {
    const text = execFileSync("age", ["-d", "-i", this.fileOf(id, "age.key"), file]).toString();
    return text.split("\n").find((line) => line !== "" && !line.startsWith("#"))!;
  }

  /** Where the command keeps somebody's share of a key. */
  shareFile(id: string, keyId: string, epoch = 1): string {
    const folder = this.fileOf(id, "shares/development");
    const start = `${keyId.slice(0, 16)}-epoch${epoch}-share`;
    const name = readdirSync(folder).find((one) => one.startsWith(start));
    if (name === undefined) throw new Error(`${id} has no share of epoch ${epoch}`);
    return join(folder, name);
  }

  /** Sends a share to an unlock without the command, which would look at it first. */
  async submit(
    id: string,
    unlock: string,
    index: number,
    text: string,
    misdirected?: MisdirectedShare,
  ): Promise<Answer> {
    const body = await this.submission(id, unlock, index, text, misdirected);
    return this.service.send(`/v1/unlocks/${unlock}/submissions`, body, { token: false });
  }

  /** What is sent to an unlock, made with stock tools. */
  async submission(
    id: string,
    unlock: string,
    index: number,
    text: string,
    { signedFor = unlock, encryptedFor = unlock }: MisdirectedShare = {},
  ): Promise<{ submission: string; signature: string; share: string }> {
    const { recipient } = readUnlock(await this.#unlockStatement(encryptedFor));
    const share = execFileSync("age", ["-r", recipient], { input: `${text}\n` });
    const { statement, signature } = await this.signed(id, "submission", {
      type: "countersign/submission/v1",
      unlock: digestOf(await this.#unlockStatement(signedFor)),
      verdict: "give",
      share: { index, file: digestOf(share) },
    });
    return {
      submission: Buffer.from(statement).toString("base64"),
      signature,
      share: share.toString("base64"),
    };
  }

  async #unlockStatement(unlock: string): Promise<Buffer> {
    const { body } = await this.service.api(`/v1/unlocks/${unlock}/statement`, { token: false });
    return this.opened(body);
  }

  /** Runs commands of docs/custody.md as somebody who has nothing of ours: the tools that it names, and a shell. */
  async stock(id: string, commands: string, settings: Record<string, string>): Promise<Run> {
    const tools = join(this.folder, "stock-tools");
    if (!existsSync(tools)) {
      mkdirSync(tools);
      for (const tool of [...stockTools, ...shellTools]) {
        const found = execFileSync("which", [tool], { encoding: "utf8" }).trim();
        symlinkSync(found, join(tools, tool));
      }
    }
    const { apiPort } = this.service;
    const folder = mkdtempSync(join(this.homeOf(id), "stock-"));
    copyFileSync(this.#files.tlsCertificate, join(folder, "service.pem"));
    return ended(join(tools, "bash"), ["-c", commands], {
      folder,
      env: {
        PATH: tools,
        HOME: this.homeOf(id),
        URL: `https://127.0.0.1:${apiPort}`,
        CA: "service.pem",
        VKEY: readFileSync(this.#files.identityKey, "utf8").trim(),
        OPERATOR: id,
        SSH_KEY: this.fileOf(id, "id_ed25519"),
        ...settings,
      },
    });
  }
}

function created<T>(answer: Answer): T {
  if (answer.status !== 201) throw new Error(answer.body.toString());
  return answer.json<T>();
}

async function ended(
  command: string,
  parameters: readonly string[],
  { folder, env }: { readonly folder: string; readonly env: NodeJS.ProcessEnv },
): Promise<Run> {
  const child = spawn(command, parameters, {
    cwd: folder,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  return { status, stdout, stderr };
}
