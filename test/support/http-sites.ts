/** Both sites on loopback, over real TLS, with a domain in memory that the tests can look into. */

import { execFileSync } from "node:child_process";
import { createHash, randomBytes, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { pino } from "pino";
import { encodeEntry } from "../../src/audit/entry.ts";
import { CountersignError } from "../../src/errors.ts";
import { createApi, type Sites } from "../../src/http/api.ts";
import type { HttpParts } from "../../src/http/parts.ts";
import type { Caller } from "../../src/issuance/caller.ts";
import type { IssueCommand, IssuedAnswer } from "../../src/issuance/issuance.ts";
import type { IssuerView } from "../../src/issuance/issuer.ts";
import type {
  CertificateFilter,
  StoredCertificate,
  StoredRevocation,
} from "../../src/issuance/records.ts";
import type { Requester } from "../../src/policy/requester.ts";
import type { RevokeCommand } from "../../src/revocation/revocations.ts";
import { custodyDomain, type CustodyDomain } from "./custody-domain.ts";
import { MemoryLog } from "./log.ts";

export interface Pair {
  readonly key: string;
  readonly certificate: string;
  readonly der: Uint8Array;
}

/** A key and a self-signed certificate of stock openssl. */
export function makePair(commonName: string): Pair {
  const folder = mkdtempSync(join(tmpdir(), "countersign-pair-"));
  try {
    const [key, certificate] = [join(folder, "key.pem"), join(folder, "certificate.pem")];
    const options = [
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-days",
      "2",
    ];
    const names = ["-subj", `/CN=${commonName}`, "-addext", "subjectAltName=IP:127.0.0.1"];
    execFileSync(
      "openssl",
      ["req", "-x509", ...options, ...names, "-keyout", key, "-out", certificate],
      { stdio: "pipe" },
    );
    const pem = readFileSync(certificate, "utf8");
    return {
      key: readFileSync(key, "utf8"),
      certificate: pem,
      der: new Uint8Array(new X509Certificate(pem).raw),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly octets: Buffer;
  readonly text: string;
  /** The body as JSON; throws where it is not. */
  readonly json: Record<string, unknown>;
}

export interface Asked {
  readonly method?: string;
  readonly headers?: http.OutgoingHttpHeaders;
  readonly body?: string | Uint8Array | object;
  readonly token?: string | undefined;
  /** For TLS. */
  readonly client?: Pair;
}

export interface TestSites {
  readonly sites: Sites;
  readonly domain: MemoryDomain;
  readonly api: (path: string, asked?: Asked) => Promise<Answer>;
  readonly site: (path: string, asked?: Asked) => Promise<Answer>;
  /** For programs that ask the API. */
  readonly apiUrl: string;
  /** PEM: what they check its certificate with. */
  readonly apiCertificate: string;
  /** Everything logged so far. */
  readonly logged: () => string;
  readonly close: () => Promise<void>;
}

export const apiKey = `csk_${Buffer.alloc(32, 7).toString("base64url")}`;
export const otherApiKey = `csk_${Buffer.alloc(32, 8).toString("base64url")}`;
export const metricsKey = `csm_${Buffer.alloc(32, 9).toString("base64url")}`;

export const requester: Requester = {
  name: "web",
  credentials: [{ kind: "api-key", sha256: `sha256:${sha256(apiKey)}` }],
  issuers: ["issuing"],
  profiles: ["server"],
  names: { dns: { allow: ["subdomains:example.test"] } },
  revoke: "own",
};

export const otherRequester: Requester = {
  ...requester,
  name: "mail",
  credentials: [{ kind: "api-key", sha256: `sha256:${sha256(otherApiKey)}` }],
};

/** What the tests set and read. */
export interface MemoryDomain {
  readonly commands: IssueCommand[];
  readonly revoked: RevokeCommand[];
  readonly rows: StoredCertificate[];
  readonly revocations: StoredRevocation[];
  readonly filters: CertificateFilter[];
  readonly changes: { statement: Uint8Array; signature: string; caller: Caller }[];
  /** By SHA-256 of the certificate, hex. */
  readonly clients: Map<string, Caller>;
  readonly log: MemoryLog;
  readonly custody: CustodyDomain;
  readonly issuer: IssuerView;
  operators: { id: string; keys: string[] }[];
  /** Instead of the answer of an issuance. */
  fail?: unknown;
  /** Before the answer of an issuance. */
  wait?: Promise<void>;
  replayed: boolean;
  denied: number;
  ready: boolean;
  now: Date;
  crlUntil: Date;
}

const tls = makePair("countersign.test");

/** @param change - In place of the parts in memory. */
export async function startSites(
  change: (parts: HttpParts) => HttpParts = (parts) => parts,
): Promise<TestSites> {
  const lines: string[] = [];
  const sink = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk));
      done();
    },
  });
  const domain = memoryDomain();
  const sites = createApi(change({ ...memoryParts(domain), logger: pino(sink) }));
  const apiServer = https.createServer(
    { key: tls.key, cert: tls.certificate, requestCert: true, rejectUnauthorized: false },
    // Koa answers its own failures.
    sites.api.callback() as http.RequestListener,
  );
  const publicServer = http.createServer(sites.publicSite.callback() as http.RequestListener);
  await Promise.all([apiServer, publicServer].map((server) => listen(server)));
  return {
    sites,
    domain,
    api: (path, asked = {}) => {
      const request = https.request({
        ...target(apiServer, path, asked),
        ca: tls.certificate,
        ...(asked.client === undefined
          ? {}
          : { key: asked.client.key, cert: asked.client.certificate }),
        agent: false,
      });
      return send(request, asked);
    },
    site: (path, asked = {}) =>
      send(http.request({ ...target(publicServer, path, asked), agent: false }), asked),
    apiUrl: `https://127.0.0.1:${(apiServer.address() as AddressInfo).port}`,
    apiCertificate: tls.certificate,
    logged: () => lines.join(""),
    close: async () => {
      await Promise.all(
        [apiServer, publicServer].map(
          (server) =>
            new Promise((resolve) => {
              server.close(resolve);
              server.closeAllConnections();
            }),
        ),
      );
    },
  };
}

function listen(server: http.Server | https.Server): Promise<void> {
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
}

function target(
  server: http.Server | https.Server,
  path: string,
  { method, headers, body, token }: Asked,
): http.RequestOptions {
  const json = typeof body === "object" && !(body instanceof Uint8Array);
  return {
    host: "127.0.0.1",
    port: (server.address() as AddressInfo).port,
    path,
    method: method ?? (body === undefined ? "GET" : "POST"),
    headers: {
      ...(json ? { "Content-Type": "application/json" } : {}),
      ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
      ...headers,
    },
  };
}

function send(request: http.ClientRequest, { body }: Asked): Promise<Answer> {
  return new Promise((resolve, reject) => {
    request.on("error", reject);
    request.on("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const octets = Buffer.concat(chunks);
        const text = octets.toString();
        resolve({
          status: response.statusCode!,
          headers: response.headers,
          octets,
          text,
          get json() {
            return JSON.parse(text) as Record<string, unknown>;
          },
        });
      });
    });
    request.end(
      body === undefined || typeof body === "string" || body instanceof Uint8Array
        ? body
        : JSON.stringify(body),
    );
  });
}

function memoryDomain(): MemoryDomain {
  const root = makePair("Root");
  const issuing = makePair("Issuing");
  const log = new MemoryLog();
  log.append(
    Array.from({ length: 300 }, (_, index) =>
      encodeEntry({
        type: "access.denied",
        at: new Date(index * 1000),
        actor: { kind: "service", id: "service" },
        subject: {},
        data: { count: index, since: new Date(0).toISOString() },
      }),
    ),
  );
  return {
    commands: [],
    revoked: [],
    rows: [],
    revocations: [],
    filters: [],
    changes: [],
    clients: new Map(),
    log,
    custody: custodyDomain(),
    issuer: {
      id: "issuing",
      keyId: "ab".repeat(32),
      subject: "CN=Issuing",
      certificate: issuing.der,
      chain: [root.der],
      profiles: ["server"],
      state: "open",
      notAfter: new Date("2031-01-01T00:00:00Z"),
      crlUrl: "http://ca.test/crl/issuing.crl",
      caIssuersUrl: "http://ca.test/ca/issuing.cer",
    },
    operators: [],
    replayed: false,
    denied: 0,
    ready: true,
    now: new Date("2026-11-21T20:00:00Z"),
    crlUntil: new Date("2026-11-28T20:00:00Z"),
  };
}

export function storedCertificate(change: Partial<StoredCertificate> = {}): StoredCertificate {
  const certificate = change.certificate ?? tls.der;
  return {
    index: 10,
    issuer: "issuing",
    keyId: "ab".repeat(32),
    serialNumber: "00c0ffee",
    kind: "leaf",
    profile: "server",
    requester: "web",
    subject: "CN=www.example.test",
    names: [{ kind: "dns", value: "www.example.test" }],
    notBefore: new Date("2026-11-21T20:00:00Z"),
    notAfter: new Date("2027-02-19T20:00:00Z"),
    spkiSha256: new Uint8Array(32),
    tbsSha256: new Uint8Array(32),
    certificateSha256: Buffer.from(sha256(certificate), "hex"),
    state: "issued",
    doneIndex: 11,
    createdAt: new Date("2026-11-21T20:00:00Z"),
    revocation: null,
    csr: null,
    certificate,
    ...change,
  };
}

function memoryParts(domain: MemoryDomain): Omit<HttpParts, "logger"> {
  const { log, issuer } = domain;
  const requesters = [requester, otherRequester];
  const crl = Buffer.from("3003020101", "hex"); // any DER will do
  const published = () => ({
    der: crl,
    number: "7",
    thisUpdate: new Date("2026-11-21T19:00:00Z"),
    nextUpdate: domain.crlUntil,
    sha256: `sha256:${sha256(crl)}`,
  });
  const find = (id: string): IssuerView => {
    if (id !== issuer.id) throw new CountersignError("issuer-unknown", "there is no such issuer");
    return issuer;
  };
  const never = (): never => {
    throw new Error("not for HTTP");
  };
  return {
    service: "ca.example.test",
    version: "0.1.0",
    publicUrl: "http://ca.test",
    issuance: {
      async issue(command): Promise<IssuedAnswer> {
        domain.commands.push(command);
        await domain.wait;
        if (domain.fail !== undefined) throw domain.fail;
        return {
          issuer: command.issuer,
          serialNumber: "00c0ffee",
          certificate: tls.der,
          chain: [issuer.certificate, ...issuer.chain],
          logIndex: 11,
          intentIndex: 10,
          notBefore: new Date("2026-11-21T20:00:00Z"),
          notAfter: new Date("2027-02-19T20:00:00Z"),
          sha256: `sha256:${sha256(tls.der)}`,
          replayed: domain.replayed,
        };
      },
    },
    issuers: { list: () => [issuer], get: find },
    revocations: {
      async revoke(command) {
        domain.revoked.push(command);
        return {
          issuer: command.issuer,
          serialNumber: command.serialNumber,
          reason: command.reason,
          revocationDate: domain.now,
          ...(command.invalidityDate === undefined
            ? {}
            : { invalidityDate: command.invalidityDate }),
          logIndex: 12,
          visible: { crlNumber: "8", by: domain.now },
          repeated: false,
        };
      },
    },
    crls: {
      current(id) {
        find(id);
        return published();
      },
      async publish(id) {
        find(id);
        return published();
      },
    },
    requesters: {
      byApiKey: (digest) =>
        requesters.find(({ credentials }) =>
          credentials.some((one) => one.kind === "api-key" && one.sha256 === `sha256:${digest}`),
        ),
      byCertificate: async (der) => domain.clients.get(sha256(der)),
      list: () => requesters,
      next: () => ({ sequence: domain.changes.length + 1, previous: null }),
      async change(statement, signature, caller) {
        domain.changes.push({ statement, signature, caller });
      },
    },
    reads: {
      policyDigest: async () => undefined,
      certificate: async (id, serial) =>
        domain.rows.find((row) => row.issuer === id && row.serialNumber === serial),
      certificateBySha256: async (digest) =>
        domain.rows.find((row) => Buffer.from(row.certificateSha256!).equals(digest)),
      async listCertificates(filter) {
        domain.filters.push(filter);
        return { certificates: domain.rows, next: 10 };
      },
      revocation: async (id, serial) =>
        domain.revocations.find((row) => row.issuer === id && row.serialNumber === serial),
      entries: async (from, to) => log.leaves.slice(from, to),
      tile: async (level, n) => log.tiles.get(`${level}/${n}`),
      counts: async () => ({ entries: log.tree.size, issued: 1, pending: 0, revoked: 0 }),
      certificatesByKey: never,
      issuerCertificates: never,
      revokedForCrl: never,
      latestCrl: never,
      highestCrlNumber: never,
      pendingIntents: never,
      idempotency: never,
      requesterStatements: never,
      checkpoint: never,
      logSize: never,
    },
    log: {
      origin: log.signer.name,
      logKey: log.signer.verifierKey.text,
      checkpoint: async () => log.checkpoint(),
    },
    policy: {
      evaluate: ({ names }) => ({
        verdict: "refuse",
        code: "name-refused",
        rule: "requesters.web.names.dns (no match)",
        name: { kind: "dns", value: names[0]!.value },
        detail: "no rule allows it",
      }),
      document: () => ({ digest: `sha256:${"cd".repeat(32)}`, document: { version: 1 } }),
    },
    operators: () => domain.operators,
    ...domain.custody.parts,
    readiness: async () => ({
      ready: domain.ready,
      parts: [
        {
          name: "key issuing",
          state: domain.ready ? "open" : "locked",
          detail: "opened by its PIN",
        },
      ],
    }),
    status: async () => ({ keeper: "child" }),
    measurements: async () => [
      {
        name: "signatures_total",
        help: "Signatures made",
        kind: "counter",
        values: [{ labels: { issuer: "issuing" }, value: 3 }],
      },
    ],
    denied: () => {
      domain.denied++;
    },
    metricsKeySha256: `sha256:${sha256(metricsKey)}`,
    publicEntries: false,
    now: () => domain.now,
    random: (size) => randomBytes(size),
  };
}

export function sha256(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}
