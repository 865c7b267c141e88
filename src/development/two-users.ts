/**
 * A home whose keeper is a user of its own: CUSTODY.md 6.6 and 7.1. Set-up makes the home as root, in a folder that is
 * closed to everybody else; at its end each user gets its own part, and root keeps the rest. Both users read what
 * neither may change: a captured service cannot put another policy or issuer before the keeper.
 */

import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { parseDocument } from "yaml";
import { readServiceConfig } from "../config.ts";
import { CountersignError } from "../errors.ts";
import { homeFiles } from "../home.ts";
import { lockHome } from "../store/database.ts";
import { write } from "./write.ts";

/** Linux, the shortest of those that we know. */
const SOCKET_PATH_OCTETS = 107;

export interface TwoUsers {
  /** The service's user and group. */
  readonly service: Ids;
  /** The keeper's user, and the group of the service: by it both read what they share, and the service connects. */
  readonly keeper: Ids;
  /** Absolute, in a folder of its own, which becomes the keeper's. */
  readonly socket: string;
}

export interface Ids {
  readonly uid: number;
  readonly gid: number;
}

/** Where the keeper listens unless told. */
export function socketOf(home: string): string {
  return join(resolve(home), "socket", "keeper.sock");
}

/**
 * Before anything is made.
 *
 * @throws CountersignError `config-invalid` that says what to do.
 */
export function checkTwoUsers(home: string, { service, keeper, socket }: TwoUsers): void {
  if (process.getuid?.() !== 0) {
    throw invalid(
      "only root can give files to other users: run it as root, or leave out --service-user and --keeper-user",
    );
  }
  if (service.uid === keeper.uid || service.uid === 0 || keeper.uid === 0) {
    throw invalid("service and keeper are two users, and neither is root");
  }
  if (Buffer.byteLength(socket) > SOCKET_PATH_OCTETS) {
    throw invalid(`${socket} is too long for a socket: name a shorter one with --keeper-socket`);
  }
  for (const folder of [resolve(home), dirname(socket)]) {
    const stat = lstatSync(folder, { throwIfNoEntry: false });
    if (stat === undefined) continue;
    const owners = folder === dirname(socket) ? [0, keeper.uid] : [0];
    if (!stat.isDirectory() || !owners.includes(stat.uid)) {
      throw invalid(
        `${folder} must be root's, since what others own they can exchange: stop what uses it, and chown -R root: it`,
      );
    }
  }
  const beside = filesOf(dirname(socket)).find((name) => name !== basename(socket));
  if (beside !== undefined) {
    throw invalid(
      `the folder of the socket becomes the keeper's, and ${dirname(socket)} has ${beside} in it: name another with --keeper-socket`,
    );
  }
  const own = dirname(dirname(socket)) === resolve(home);
  if (!own && !existsSync(dirname(dirname(socket)))) {
    throw invalid(`there is no folder ${dirname(dirname(socket))} to make the socket's folder in`);
  }
  for (const path of own ? [resolve(home)] : [resolve(home), dirname(socket)]) {
    for (const ids of [service, keeper]) checkReach(path, ids);
  }
}

/** That a user comes as far as the folder that `path` is in, or will be. */
function checkReach(path: string, { uid, gid }: Ids): void {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const stat = statSync(folder, { throwIfNoEntry: false });
    if (stat !== undefined) {
      const shift = stat.uid === uid ? 6 : stat.gid === gid ? 3 : 0;
      if (((stat.mode >> shift) & 1) === 0) {
        throw invalid(`user ${uid} does not reach ${path}: ${folder} is closed to it`);
      }
    }
    if (folder === dirname(folder)) return;
  }
}

/**
 * Gives a home that set-up has made to its two users. A home that is theirs already stays as it is: nothing that they
 * could have changed meanwhile is touched.
 *
 * @returns Whether it did.
 * @throws CountersignError `home-in-use` while a service runs on it.
 */
export async function giveToTwoUsers(home: string, users: TwoUsers): Promise<boolean> {
  const files = homeFiles(home);
  const folder = resolve(home);
  const before = readServiceConfig(files.service);
  const given = typeof before.keeper !== "string";
  if (!given) {
    const lock = await lockHome(join(dirname(before.database), "lock"));
    try {
      chmodSync(folder, 0o700); // nobody else comes in before everything is in its place
      give(folder, users);
    } finally {
      await lock.release();
    }
  }
  // Also after a crash right before this.
  chownSync(folder, 0, users.service.gid);
  chmodSync(folder, 0o750);
  return !given;
}

function give(home: string, { service, keeper, socket }: TwoUsers): void {
  const files = homeFiles(home);
  const shared = { uid: 0, gid: service.gid };
  giveTree(join(home, "keeper"), keeper, { folder: 0o700, file: 0o600 });
  // Who goes through this folder may read the API's certificate and nothing else.
  giveTree(dirname(files.database), service, { folder: 0o711, file: 0o600 });
  chmodSync(files.tlsCertificate, 0o644);
  const readable = { folder: 0o750, file: 0o640 };
  giveTree(dirname(files.rootCertificate), shared, readable);
  for (const file of [files.policy, files.layout]) giveTree(file, shared, readable);

  if (!existsSync(dirname(socket))) mkdirSync(dirname(socket), { mode: 0o700 });
  chownSync(dirname(socket), keeper.uid, keeper.gid);
  chmodSync(dirname(socket), 0o710);

  // The last: it says that the home is given.
  const document = parseDocument(readFileSync(files.service, "utf8"));
  document.set("keeper", { socket });
  const next = `${files.service}.new`;
  rmSync(next, { force: true });
  write(next, String(document));
  giveTree(next, shared, readable);
  renameSync(next, files.service);
}

/** Never follows a link: set-up makes none. */
function giveTree(
  path: string,
  ids: Ids,
  modes: { readonly folder: number; readonly file: number },
): void {
  const stat = lstatSync(path);
  if (!stat.isDirectory() && !stat.isFile()) {
    throw invalid(`${path} is neither a file nor a folder: move it away`);
  }
  for (const name of stat.isDirectory() ? filesOf(path) : []) {
    giveTree(join(path, name), ids, modes);
  }
  chmodSync(path, stat.isDirectory() ? modes.folder : modes.file);
  chownSync(path, ids.uid, ids.gid);
}

function filesOf(folder: string): string[] {
  return lstatSync(folder, { throwIfNoEntry: false })?.isDirectory() === true
    ? readdirSync(folder)
    : [];
}

function invalid(detail: string): CountersignError {
  return new CountersignError("config-invalid", detail);
}
