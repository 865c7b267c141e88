/** The running service: the parts of the domain around one ledger, and what listens. */

import { randomBytes } from "node:crypto";
import { readFileSync, unwatchFile, watchFile } from "node:fs";
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { createServer as createHttpsServer } from "node:https";
import { Server as NetServer, type AddressInfo, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import type { Logger } from "pino";
import { canonicalJson } from "./audit/canonical-json.ts";
import { encodeEntry } from "./audit/entry.ts";
import type { ServiceConfig } from "./config.ts";
import { policyDigest } from "./custody/grant.ts";
import type { KeeperStatus } from "./custody/keeper-client.ts";
import { CountersignError } from "./errors.ts";
import { answerClientErrors } from "./http/client-error.ts";
import { createApi } from "./http/api.ts";
import { startCeremonies } from "./ceremony/domain.ts";
import type { Readiness } from "./http/parts.ts";
import { createIssuance } from "./issuance/issuance.ts";
import { abandonOpenIntents } from "./issuance/open-intents.ts";
import { IssuerSet } from "./issuance/issuer.ts";
import { RequesterRegister } from "./issuance/requesters.ts";
import { openLedger, type Ledger } from "./ledger.ts";
import { measurements } from "./measurements.ts";
import { compilePolicy, decide } from "./policy/decide.ts";
import { parsePolicy, policyFrame, type Policy } from "./policy/document.ts";
import { canonicalNames } from "./policy/name.ts";
import { readinessOf } from "./readiness.ts";
import { createRevocations } from "./revocation/revocations.ts";
import { CrlSchedule, publicReason } from "./revocation/crl-schedule.ts";

/** How often the keeper is asked how its keys are. */
const STATUS_MILLISECONDS = 1_000;

/** How often ceremonies are looked at for what time has made due. */
const TICK_MILLISECONDS = 1_000;

/** Strangers' attempts are summed up in one record an hour: AUDIT-LOG 9.2. */
const DENIED_MILLISECONDS = 3_600_000;

/** What one client can occupy, and for how long. */
const limits = {
  /** A request that takes longer to arrive is cut off. */
  requestTimeout: 30_000,
  /** And so are headers, from the first octet of the connection or the end of the request before. */
  headersTimeout: 10_000,
  /** How often these two are looked at. */
  connectionsCheckingInterval: 5_000,
  /** A connection without a request. Clients are told so by a header. */
  keepAliveTimeout: 30_000,
};

/** A connection on which nothing moves: a client that does not read its answer. */
const SILENCE_MILLISECONDS = 60_000;

const HANDSHAKE_MILLISECONDS = 10_000;

/** Of each site; descriptors must be left for the database. */
const MAX_CONNECTIONS = 4096;

/** How long a start waits for the CRLs that are overdue. */
const FIRST_CRLS_MILLISECONDS = 3_000;

/** How long a stopping service waits for the requests it has. */
const DRAIN_MILLISECONDS = 10_000;

/** How long it leaves to clients that keep connections open, to send what is on its way and hear of the end. */
const FAREWELL_MILLISECONDS = 1_000;

export interface Service {
  /** https, of the API. */
  readonly apiPort: number;
  /** http, of CRLs and CA certificates. */
  readonly publicPort: number;
  readonly status: KeeperStatus;
  /** Answers what it has, takes nothing new, and closes everything. */
  stop(): Promise<void>;
  /** Resolves with the reason when the service can go on no longer. */
  readonly failed: Promise<Error>;
}

/**
 * Starts the service.
 *
 * @param open - How the ledger is opened; tests wrap its parts to stop at a step.
 * @throws CountersignError `config-invalid`, `policy-invalid`, `home-in-use`, `rolled-back`, `head-missing`.
 */
export async function startService(
  config: ServiceConfig,
  logger: Logger,
  version: string,
  open: typeof openLedger = openLedger,
): Promise<Service> {
  const policy = parsePolicy(readFileSync(config.policy, "utf8"), config.policy);
  const ledger = await open(config, () => new Date());
  try {
    return await serve(config, logger, version, policy, ledger);
  } catch (error) {
    await ledger.close();
    throw error;
  }
}

async function serve(
  config: ServiceConfig,
  logger: Logger,
  version: string,
  policy: Policy,
  ledger: Ledger,
): Promise<Service> {
  const now = (): Date => new Date();
  const { keeper, journal, reads } = ledger;
  let status = ledger.status;
  const compiled = compilePolicy(policy);
  const inForce = policyDigest(policy);

  await abandonOpenIntents({ journal, reads, service: status.service, now });
  if ((await reads.policyDigest()) !== inForce) {
    await journal.append({
      kind: "policy",
      leaf: encodeEntry({
        type: "policy.changed",
        at: now(),
        actor: { kind: "service", id: status.service },
        subject: {},
        data: { policy: inForce },
      }),
      row: { digest: inForce, document: canonicalJson(policyFrame(policy)) },
    });
  }
  const recorded = await reads.requesterStatements();
  await keeper.requesters(recorded);
  const operators = (): KeeperStatus["operators"] => status.operators;
  const requesters = new RequesterRegister(
    {
      policy: compiled,
      journal,
      reads,
      keeper,
      operators,
      now,
      unapplied: ({ sequence, requester, reason }) =>
        logger.error({ sequence, requester, err: reason }, "a recorded requester is not in force"),
    },
    recorded,
  );
  const issuers = new IssuerSet(() => status.keys, compiled, config.public.url);
  const schedule = await CrlSchedule.load({
    issuers,
    journal,
    reads,
    keeper,
    policyDigest: inForce,
    now,
    failed: (issuer, error) => logger.error({ issuer, err: error }, "no CRL could be made"),
  });
  const denials = new Denials(now(), (count, since, until) =>
    journal.append({
      kind: "entry",
      leaf: encodeEntry({
        type: "access.denied",
        at: until,
        actor: { kind: "service", id: status.service },
        subject: {},
        data: { count, since: since.toISOString() },
      }),
    }),
  );

  const refresh = async (): Promise<void> => {
    const before = allowedCrls(status);
    status = await keeper.status();
    if (allowedCrls(status) !== before) schedule.look(); // a window was opened, or has ended
  };
  /** What changes a key is seen in the status that follows it, and not a second later. */
  const seen = async <Value>(change: Promise<Value>): Promise<Value> => {
    const value = await change;
    await refresh();
    return value;
  };
  const custody = await startCeremonies({
    service: status.service,
    journal,
    reads,
    keeper: {
      ...keeper,
      open: (...opening) => seen(keeper.open(...opening)),
      activate: (...set) => seen(keeper.activate(...set)),
      lock: (...lock) => seen(keeper.lock(...lock)),
      panic: (...panic) => seen(keeper.panic(...panic)),
      resume: (resume) => seen(keeper.resume(resume)),
    },
    rosters: ledger.rosters,
    policy: compiled,
    now,
    random: randomBytes,
    denied: () => denials.count(),
    failed: (what, error) => logger.error({ what, err: error }, "a step of a ceremony failed"),
    published: (issuer, crl) => schedule.adopt(issuer, crl),
  });
  const issuance = createIssuance({
    issuers,
    policy: compiled,
    policyDigest: inForce,
    journal,
    reads,
    keeper,
    now,
    random: randomBytes,
    abandoned: (error) => logger.error({ err: error }, "an intent has no recorded result"),
  });
  const revocations = createRevocations({ journal, reads, issuers, schedule, now });

  let stopping = false;
  let broken: Error | undefined;
  const trouble = (): string | undefined => {
    const reason = broken ?? journal.trouble;
    return reason === undefined ? (stopping ? "stopping" : undefined) : publicReason(reason);
  };
  const readiness = async (): Promise<Readiness> =>
    readinessOf(status, schedule.troubles(), trouble(), compiled, now());

  const sites = createApi({
    service: status.service,
    version,
    publicUrl: config.public.url,
    issuance,
    issuers,
    revocations,
    crls: schedule,
    requesters,
    reads,
    log: {
      origin: status.origin,
      logKey: status.logKey,
      checkpoint: async () => (await reads.checkpoint())?.note,
    },
    policy: {
      evaluate: (question) =>
        decide(compiled, {
          ...question,
          requester: { name: question.requester },
          names: canonicalNames(question.names),
        }),
      document: () => ({ digest: inForce, document: policyFrame(policy) }),
    },
    operators,
    ...custody,
    readiness,
    status: async () => ({
      ...(await statusFor(ledger, status)),
      policy: inForce,
      warnings: await custody.warnings(),
    }),
    measurements: () => measurements(ledger, status, schedule, now()),
    denied: () => denials.count(),
    ...(config.metricsKey === undefined ? {} : { metricsKeySha256: config.metricsKey }),
    publicEntries: config.log.publicEntries,
    now,
    random: randomBytes,
    logger,
  });

  const tls = (): { cert: Buffer; key: Buffer; minVersion: "TLSv1.2" } => ({
    cert: readFileSync(config.api.certificate),
    key: readFileSync(config.api.key),
    minVersion: "TLSv1.2",
  });
  const apiServer = createApiServer(tls);
  const publicServer = createHttpServer(limits);
  const apiSite = serveOn(apiServer, sites.api);
  const publicSite = serveOn(publicServer, sites.publicSite);
  try {
    await listen(apiServer, config.api);
    await listen(publicServer, config.public);
  } catch (error) {
    apiSite.cut();
    publicSite.cut();
    throw error;
  }

  const reload = (): void => {
    try {
      apiServer.setSecureContext(tls());
      logger.info("the TLS certificate was read again");
    } catch (error) {
      logger.error({ err: error }, "the TLS certificate could not be read; the one before stays");
    }
  };
  for (const file of [config.api.certificate, config.api.key]) {
    watchFile(file, { persistent: false, interval: 5_000 }, reload);
  }
  await Promise.race([schedule.start(), pause(FIRST_CRLS_MILLISECONDS, undefined, { ref: false })]);

  const askStatus = oneAtATime(refresh, (error) =>
    logger.error({ err: error }, "the keeper gives no status"),
  );
  const statusTimer = setInterval(askStatus, STATUS_MILLISECONDS).unref();
  const tick = oneAtATime(
    () => custody.tick(),
    (error) => logger.error({ err: error }, "ceremonies were not looked at"),
  );
  const tickTimer = setInterval(tick, TICK_MILLISECONDS).unref();
  const recordDenials = oneAtATime(
    () => denials.record(now()),
    (error) => logger.error({ err: error }, "no record was made"),
  );
  const deniedTimer = setInterval(recordDenials, DENIED_MILLISECONDS).unref();

  const failed = Promise.race([
    journal.failed,
    keeper.ended.then((error) => error ?? new Error("the keeper ended")),
  ]);
  failed.then(
    (error) => {
      broken = error;
    },
    () => undefined,
  );

  return {
    apiPort: (apiServer.address() as AddressInfo).port,
    publicPort: (publicServer.address() as AddressInfo).port,
    status,
    failed,
    async stop() {
      stopping = true;
      clearInterval(statusTimer);
      clearInterval(tickTimer);
      clearInterval(deniedTimer);
      for (const file of [config.api.certificate, config.api.key]) unwatchFile(file, reload);
      const finished = sites.stop();
      schedule.hurry();
      await Promise.all([
        apiSite.drain(),
        publicSite.drain(),
        // Also what a client asked for that has gone away since: an intent gets its result.
        Promise.race([
          Promise.all([finished, custody.idle()]),
          pause(DRAIN_MILLISECONDS, undefined, { ref: false }),
        ]),
      ]);
      await schedule.stop();
      if (broken === undefined) {
        await denials
          .record(now())
          .catch((error: unknown) => logger.error({ err: error }, "no record was made"));
      }
      await ledger.close();
    },
  };
}

/** @throws CountersignError `config-invalid` for a pair that cannot be read or does not fit together. */
function createApiServer(tls: () => { cert: Buffer; key: Buffer; minVersion: "TLSv1.2" }) {
  try {
    return createHttpsServer({
      ...tls(),
      ...limits,
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: HANDSHAKE_MILLISECONDS,
    });
  } catch (error) {
    throw new CountersignError(
      "config-invalid",
      `the API's TLS certificate and key cannot be used: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
}

/** Attempts without valid credentials, counted until they are on record. */
export class Denials {
  readonly #append: (count: number, since: Date, until: Date) => Promise<unknown>;
  #count = 0;
  #since: Date;

  constructor(since: Date, append: (count: number, since: Date, until: Date) => Promise<unknown>) {
    this.#since = since;
    this.#append = append;
  }

  count(): void {
    this.#count++;
  }

  /** One record of all since the last; a failed one leaves them for the next. */
  async record(now: Date): Promise<void> {
    const [count, since] = [this.#count, this.#since];
    if (count === 0) return;
    this.#count = 0;
    this.#since = now;
    try {
      await this.#append(count, since, now);
    } catch (error) {
      this.#count += count;
      this.#since = since;
      throw error;
    }
  }
}

/** For a timer: does nothing while the time before has not ended. */
export function oneAtATime(
  work: () => Promise<unknown>,
  failed: (error: unknown) => void,
): () => void {
  let busy = false;
  return () => {
    if (busy) return;
    busy = true;
    work()
      .catch(failed)
      .finally(() => (busy = false));
  };
}

async function statusFor(ledger: Ledger, status: KeeperStatus): Promise<Record<string, unknown>> {
  return {
    service: status.service,
    log: {
      origin: status.origin,
      key: status.logKey,
      size: ledger.journal.size,
      checkpoint: (await ledger.reads.checkpoint())?.note,
    },
    identityKey: status.identityKey,
    genesis: status.genesis,
    roster: status.roster,
    panic: status.panic,
    operators: status.operators.map(({ id }) => id),
    keys: status.keys.map((key) => ({
      issuer: key.issuer,
      keyId: key.keyId,
      custody: key.custody,
      state: key.state,
      detail: key.detail,
      epoch: key.epoch,
      operations: key.operations,
      until: key.until,
      ceremony: key.ceremony,
      signaturesLeft: key.signaturesLeft,
      grantedPolicy: key.grantedPolicy,
    })),
  };
}

/** Which keys sign CRLs now, as text. */
function allowedCrls({ keys }: Pick<KeeperStatus, "keys">): string {
  return keys
    .flatMap(({ keyId, operations }) => (operations.includes("crl") ? [keyId] : []))
    .join(" ");
}

interface ServedSite {
  /** Takes no new connections, answers what has come, and cuts what then still hangs. */
  drain(): Promise<void>;
  /** Ends everything at once. */
  cut(): void;
}

/** Lets a site answer on a server. */
function serveOn(server: Server, site: ReturnType<typeof createApi>["api"]): ServedSite {
  const handle = site.callback();
  const sockets = new Set<Socket>();
  let unanswered = 0;
  server.maxConnections = MAX_CONNECTIONS;
  server.timeout = SILENCE_MILLISECONDS;
  // Of a TLS server, too, these are the connections before their handshake, which its own lists do not have.
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  answerClientErrors(server);
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    unanswered++;
    response.once("close", () => unanswered--);
    // Koa answers every error itself, so its promise never rejects.
    void handle(request, response);
  });
  const cutAll = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    async drain() {
      // Not `Server.close` of node:http: that would first cut the connections that are idle just now, and with them
      // the requests on their way. Every answer ends its connection now; those left after a moment have nothing to ask.
      const closed = new Promise<void>((resolve) => {
        NetServer.prototype.close.call(server, () => resolve());
      });
      const started = performance.now();
      const timer = setInterval(() => {
        const waited = performance.now() - started;
        if (waited > DRAIN_MILLISECONDS || (waited > FAREWELL_MILLISECONDS && unanswered === 0)) {
          cutAll();
        }
      }, 50);
      await closed;
      clearInterval(timer);
      server.close(); // its timers
    },
    cut() {
      server.close();
      cutAll();
    },
  };
}

function listen(server: Server, { host, port }: { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        error.code === "EADDRINUSE"
          ? new CountersignError(
              "config-invalid",
              `port ${port} of ${host} is taken: end what listens there, or change the port in service.yaml`,
              { cause: error },
            )
          : error,
      ),
    );
    server.listen(port, host, () => resolve());
  });
}
