/** The running service: the parts of the domain around one ledger, and what listens. */

import { randomBytes } from "node:crypto";
import { readFileSync, unwatchFile, watchFile } from "node:fs";
import { createServer as createHttpServer, type RequestListener, type Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { Logger } from "pino";
import { canonicalJson } from "./audit/canonical-json.ts";
import { encodeEntry } from "./audit/entry.ts";
import type { ServiceConfig } from "./config.ts";
import { policyDigest } from "./custody/grant.ts";
import type { KeeperStatus } from "./custody/keeper-client.ts";
import { CountersignError } from "./errors.ts";
import { createApi } from "./http/api.ts";
import type { Measurement, Readiness } from "./http/parts.ts";
import { createIssuance } from "./issuance/issuance.ts";
import { IssuerSet } from "./issuance/issuer.ts";
import { RequesterRegister } from "./issuance/requesters.ts";
import { openLedger, type Ledger } from "./ledger.ts";
import { compilePolicy, decide } from "./policy/decide.ts";
import { parsePolicy, policyFrame, type Policy } from "./policy/document.ts";
import { canonicalNames } from "./policy/name.ts";
import { createRevocations } from "./revocation/revocations.ts";
import { CrlSchedule } from "./revocation/crl-schedule.ts";

/** How often the keeper is asked how its keys are. */
const STATUS_MILLISECONDS = 1_000;

/** Strangers' attempts are summed up in one record an hour: AUDIT-LOG 9.2. */
const DENIED_MILLISECONDS = 3_600_000;

/** A request that takes longer to arrive is cut off. */
const REQUEST_MILLISECONDS = 30_000;

/** How long a stopping service waits for the requests it has. */
const DRAIN_MILLISECONDS = 10_000;

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

  await abandonOpenIntents(ledger, now);
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
    { policy: compiled, journal, reads, keeper, operators, now },
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
  const issuance = createIssuance({
    issuers,
    policy: compiled,
    policyDigest: inForce,
    journal,
    reads,
    keeper,
    now,
    random: randomBytes,
    abandoned: (error) => logger.error({ err: error }, "an intent was not signed"),
  });
  const revocations = createRevocations({ journal, reads, issuers, schedule, now });

  let stopping = false;
  let broken: string | undefined;
  const refresh = async (): Promise<KeeperStatus> => (status = await keeper.status());
  const readiness = async (): Promise<Readiness> =>
    readinessOf(status, schedule, broken ?? (stopping ? "stopping" : undefined), compiled);

  let denied = 0;
  let deniedSince = now();
  const recordDenied = async (): Promise<void> => {
    if (denied === 0) return;
    const [count, since] = [denied, deniedSince];
    denied = 0;
    deniedSince = now();
    await journal.append({
      kind: "entry",
      leaf: encodeEntry({
        type: "access.denied",
        at: deniedSince,
        actor: { kind: "service", id: status.service },
        subject: {},
        data: { count, since: since.toISOString() },
      }),
    });
  };

  const { api, publicSite } = createApi({
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
    readiness,
    status: async () => ({ ...(await statusFor(ledger, status)), policy: inForce }),
    measurements: () => measurements(ledger, status, schedule, now()),
    denied: () => {
      denied += 1;
    },
    ...(config.metricsKey === undefined ? {} : { metricsKeySha256: config.metricsKey }),
    publicEntries: config.log.publicEntries,
    now,
    random: randomBytes,
    logger,
  });

  const tls = (): { cert: Buffer; key: Buffer } => ({
    cert: readFileSync(config.api.certificate),
    key: readFileSync(config.api.key),
  });
  const apiServer = createHttpsServer(
    {
      ...tls(),
      requestCert: true,
      rejectUnauthorized: false,
      minVersion: "TLSv1.2",
      requestTimeout: REQUEST_MILLISECONDS,
    },
    listenerOf(api),
  );
  const publicServer = createHttpServer(
    { requestTimeout: REQUEST_MILLISECONDS },
    listenerOf(publicSite),
  );
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
  await listen(apiServer, config.api);
  await listen(publicServer, config.public);
  schedule.start();

  const statusTimer = setInterval(() => {
    refresh().catch((error: unknown) => logger.error({ err: error }, "the keeper gives no status"));
  }, STATUS_MILLISECONDS).unref();
  const deniedTimer = setInterval(() => {
    recordDenied().catch((error: unknown) => logger.error({ err: error }, "no record was made"));
  }, DENIED_MILLISECONDS).unref();

  const failed = Promise.race([
    journal.failed,
    keeper.ended.then((error) => error ?? new Error("the keeper ended")),
  ]);
  failed.then(
    (error) => {
      broken = error.message;
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
      clearInterval(deniedTimer);
      for (const file of [config.api.certificate, config.api.key]) unwatchFile(file, reload);
      await Promise.all([drain(apiServer), drain(publicServer)]);
      await schedule.stop();
      if (broken === undefined) await recordDenied();
      await ledger.close();
    },
  };
}

/** Every intent that a crash left open is closed, so that the log says what became of it: AUDIT-LOG 9.2. */
async function abandonOpenIntents(ledger: Ledger, now: () => Date): Promise<void> {
  const { journal, reads, status } = ledger;
  const { certificates, crls } = await reads.pendingIntents();
  const actor = { kind: "service", id: status.service } as const;
  for (const { issuer, keyId, serialNumber, index } of certificates) {
    await journal.append({
      kind: "certificate-abandoned",
      leaf: encodeEntry({
        type: "sign.abandoned",
        at: now(),
        actor,
        subject: { issuer, keyId, serialNumber },
        data: { intent: index, reason: "found open at start" },
      }),
      intentIndex: index,
    });
  }
  for (const { issuer, keyId, intentIndex } of crls) {
    await journal.append({
      kind: "crl-abandoned",
      leaf: encodeEntry({
        type: "sign.abandoned",
        at: now(),
        actor,
        subject: { issuer, keyId },
        data: { intent: intentIndex, reason: "found open at start" },
      }),
      intentIndex,
    });
  }
}

function readinessOf(
  status: KeeperStatus,
  schedule: CrlSchedule,
  trouble: string | undefined,
  policy: ReturnType<typeof compilePolicy>,
): Readiness {
  const keys = status.keys.map((key) => ({
    name: `key of ${key.issuer}`,
    state: key.state,
    ...(key.detail === undefined ? {} : { detail: key.detail }),
  }));
  const crls = schedule.troubles().map(({ issuer, trouble: detail, nextUpdate }) => ({
    name: `CRL of ${issuer}`,
    state: nextUpdate === undefined ? "missing" : detail === undefined ? "fresh" : "ageing",
    ...(detail === undefined && nextUpdate === undefined
      ? {}
      : {
          detail: [detail, nextUpdate && `the published one ends ${nextUpdate.toISOString()}`]
            .filter(Boolean)
            .join("; "),
        }),
  }));
  const issuing = status.keys.filter(
    (key) => (policy.issuers.get(key.issuer)?.profiles.size ?? 0) > 0,
  );
  return {
    ready: trouble === undefined && issuing.some((key) => key.state === "open"),
    parts: [
      {
        name: "log",
        state: trouble === undefined ? "open" : "failed",
        ...(trouble === undefined ? {} : { detail: trouble }),
      },
      ...keys,
      ...crls,
    ],
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
    operators: status.operators.map(({ id }) => id),
    keys: status.keys.map(({ issuer, keyId, state, detail, signaturesLeft, grantedPolicy }) => ({
      issuer,
      keyId,
      state,
      detail,
      signaturesLeft,
      grantedPolicy,
    })),
  };
}

async function measurements(
  ledger: Ledger,
  status: KeeperStatus,
  schedule: CrlSchedule,
  now: Date,
): Promise<Measurement[]> {
  const counts = await ledger.reads.counts();
  return [
    {
      name: "log_entries",
      help: "Entries of the audit log.",
      kind: "counter",
      values: [{ value: ledger.journal.size }],
    },
    {
      name: "certificates",
      help: "Certificate records by state.",
      kind: "gauge",
      values: [
        { labels: { state: "issued" }, value: counts.issued },
        { labels: { state: "pending" }, value: counts.pending },
      ],
    },
    {
      name: "revocations",
      help: "Revoked certificates.",
      kind: "counter",
      values: [{ value: counts.revoked }],
    },
    {
      name: "key_open",
      help: "1 while the issuer's key can sign.",
      kind: "gauge",
      values: status.keys.map(({ issuer, state }) => ({
        labels: { issuer },
        value: state === "open" ? 1 : 0,
      })),
    },
    {
      name: "crl_life_left_seconds",
      help: "Until nextUpdate of the published CRL.",
      kind: "gauge",
      values: schedule
        .troubles()
        .flatMap(({ issuer, nextUpdate }) =>
          nextUpdate === undefined
            ? []
            : [{ labels: { issuer }, value: (nextUpdate.getTime() - now.getTime()) / 1000 }],
        ),
    },
  ];
}

/** Koa answers every error itself, so its promise never rejects. */
function listenerOf(site: ReturnType<typeof createApi>["api"]): RequestListener {
  const handle = site.callback();
  return (request, response) => void handle(request, response);
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

/** Takes no new connections, waits for the answers under way, and cuts what then still hangs. */
async function drain(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  const timer = setTimeout(() => server.closeAllConnections(), DRAIN_MILLISECONDS);
  await closed;
  clearTimeout(timer);
}
