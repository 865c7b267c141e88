/** What a development home needs of the machine, looked at before anything is made. */

import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { dirname, resolve } from "node:path";
import { CountersignError } from "../errors.ts";

/** Where a new home's service listens. */
export const LISTEN_HOST = "127.0.0.1";

/** Before anything is there: a path that cannot be a home's. */
export function checkPlace(home: string): void {
  const folder = resolve(home);
  // SoftHSM's configuration file has no quoting, and these end a path in it.
  if (/[#=\p{Cc}]/u.test(folder)) {
    throw new CountersignError(
      "config-invalid",
      `SoftHSM finds no tokens below ${JSON.stringify(folder)}: name a folder without # and = with --home`,
    );
  }
  const parent = existsSync(folder) ? folder : dirname(folder);
  if (!existsSync(parent)) {
    throw new CountersignError(
      "config-invalid",
      `there is no folder ${parent} to make the home in: make it first, or name another home with --home`,
    );
  }
  try {
    accessSync(parent, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new CountersignError("config-invalid", `${parent} cannot be written to`, {
      cause: error,
    });
  }
}

export function checkTools({ operatorKey }: { readonly operatorKey?: string }): void {
  if (spawnSync("ssh-keygen", ["-?"]).error !== undefined) {
    throw new CountersignError(
      "config-invalid",
      "ssh-keygen is not installed: run sudo apt-get install openssh-client, or sh softhsm/install.sh",
    );
  }
  if (operatorKey !== undefined && !existsSync(operatorKey)) {
    throw new CountersignError("config-invalid", `there is no file ${operatorKey}`);
  }
}

/** Both at once, or they may be the same. The certificates carry the public one, so it cannot be changed later. */
export async function checkPorts({
  apiPort,
  publicPort,
}: {
  readonly apiPort: number;
  readonly publicPort: number;
}): Promise<void> {
  const bound: Server[] = [];
  try {
    bound.push(await bind(apiPort, "--api-port"));
    if (apiPort !== 0 && apiPort === publicPort) {
      throw new CountersignError(
        "config-invalid",
        `port ${publicPort} is the API's: choose another with --public-port`,
      );
    }
    bound.push(await bind(publicPort, "--public-port"));
  } finally {
    for (const server of bound) await new Promise((resolve) => server.close(resolve));
  }
}

/** @throws CountersignError `config-invalid` if nothing can listen there. */
function bind(port: number, option: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) => {
      const [reason, advice] =
        error.code === "EADDRINUSE"
          ? ["is taken", "end what listens there, or choose"]
          : [`cannot be listened on (${error.code})`, "choose"];
      reject(
        new CountersignError(
          "config-invalid",
          `port ${port} of ${LISTEN_HOST} ${reason}: ${advice} another with ${option}`,
          { cause: error },
        ),
      );
    });
    server.listen(port, LISTEN_HOST, () => resolve(server));
  });
}
