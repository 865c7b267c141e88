/** `npm run bench`: the real service over https, in ratios to `openssl speed` of the same run. */

import { execFileSync } from "node:child_process";
import { createHash, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { setTimeout as pause } from "node:timers/promises";
import { parseCertificate } from "../../src/x509/certificate.ts";
import { buildTbsCertList } from "../../src/x509/certificate-list.ts";
import { lintIssuer } from "../../src/x509/lint/certificate.ts";
import { lintTbsCertList } from "../../src/x509/lint/certificate-list.ts";
import { decodePem } from "../../src/x509/pem.ts";
import { makeCsr } from "../support/csr.ts";
import { removeHome, startTestService, type RunningService } from "../support/service.ts";
import { dealMilliseconds, junk, median, openingMilliseconds, transport } from "./custody.ts";
import { Connection } from "./http-client.ts";

const RUNS = 3;
const WARM_UP_RUNS = 3;
const SECONDS = Number(process.env["BENCH_SECONDS"] ?? 5);
const CONCURRENCIES = [1, 8, 32];

interface Figures {
  perSecond: number;
  p50: number;
  p99: number;
  /** Milliseconds of processor time for each certificate, by process. */
  cpu: Record<"service" | "keeper" | "signer" | "load generator", number>;
}

/** Signs a second of one core, by OpenSSL itself. */
function opensslSpeed(): number {
  const text = execFileSync("openssl", ["speed", "-seconds", "2", "ecdsap256"], {
    stdio: ["ignore", "pipe", "ignore"],
  }).toString();
  const found = /nistp256\)\s+\S+s\s+\S+s\s+([\d.]+)/.exec(text);
  if (found === null) throw new Error(`openssl speed printed something else: ${text}`);
  return Number(found[1]);
}

/** User and system time of a process, in milliseconds, threads included. */
function cpuOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

function requestFor(apiKey: string): Buffer {
  const csr = makeCsr({ dns: [`${randomBytes(6).toString("hex")}.example.test`] });
  return Buffer.concat([
    Buffer.from(
      "POST /v1/issuers/issuing/certificates?profile=server HTTP/1.1\r\nHost: localhost\r\n" +
        `Authorization: Bearer ${apiKey}\r\nContent-Type: application/pkcs10\r\nAccept: application/json\r\n` +
        `Content-Length: ${csr.length}\r\n\r\n`,
    ),
    csr,
  ]);
}

/** @param during - how long; for SECONDS when absent. */
async function measure(
  service: RunningService,
  concurrency: number,
  during?: () => Promise<unknown>,
): Promise<Figures> {
  const ca = readFileSync(service.files.tlsCertificate);
  const { apiKey } = service;
  const connections = await Promise.all(
    Array.from({ length: concurrency }, () => Connection.open(service.apiPort, ca)),
  );
  // Distinct requests, made before the clock runs; more than can be used up.
  const requests = Array.from({ length: SECONDS * (concurrency === 1 ? 700 : 4_000) }, () =>
    requestFor(apiKey),
  );
  const { service: servicePid, keeper, signers } = service.processes();
  const cpu = () => ({
    service: cpuOf(servicePid),
    keeper: cpuOf(keeper),
    signer: signers.reduce((sum, pid) => sum + cpuOf(pid), 0),
    "load generator": process.cpuUsage().user / 1000 + process.cpuUsage().system / 1000,
  });
  const before = cpu();
  const start = performance.now();
  let over = false;
  const ending = (during?.() ?? pause(SECONDS * 1000)).finally(() => (over = true));
  const latencies: number[] = [];
  await Promise.all(
    connections.map(async (connection) => {
      while (!over) {
        const request = requests.pop();
        if (request === undefined) throw new Error("the bench has run out of requests");
        const answer = await connection.send(request);
        if (answer.status !== 201) throw new Error(`a request was answered ${answer.status}`);
        latencies.push(answer.milliseconds);
      }
    }),
  );
  const seconds = (performance.now() - start) / 1000;
  await ending;
  const after = cpu();
  for (const connection of connections) connection.close();
  latencies.sort((a, b) => a - b);
  const each = (name: keyof Figures["cpu"]): number =>
    (after[name] - before[name]) / latencies.length;
  return {
    perSecond: latencies.length / seconds,
    p50: latencies[Math.floor(latencies.length * 0.5)]!,
    p99: latencies[Math.floor(latencies.length * 0.99)]!,
    cpu: {
      service: each("service"),
      keeper: each("keeper"),
      signer: each("signer"),
      "load generator": each("load generator"),
    },
  };
}

/** Milliseconds to build, check and sign a CRL of so many entries, with a software key. */
function crlMilliseconds(service: RunningService, entries: number): number {
  const issuer = decodePem(readFileSync(service.files.issuingCertificate, "utf8"), "CERTIFICATE");
  const chain = [decodePem(readFileSync(service.files.rootCertificate, "utf8"), "CERTIFICATE")];
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const now = new Date(Math.floor(Date.now() / 1000) * 1000);
  const revoked = Array.from({ length: entries }, (_, index) => {
    const serialNumber = createHash("sha256").update(`${index}`).digest().subarray(0, 20);
    serialNumber[0] = (serialNumber[0]! & 0x7f) | 0x40;
    return { serialNumber, revocationDate: now, reason: "superseded" as const };
  });
  const compiled = lintIssuer(issuer, chain);
  const times = Array.from({ length: 5 }, () => {
    const start = performance.now();
    const tbs = buildTbsCertList({
      issuerCertificate: issuer,
      thisUpdate: now,
      nextUpdate: new Date(now.getTime() + 86_400_000),
      number: 2n,
      entries: revoked,
    });
    const findings = lintTbsCertList(tbs, { issuer: compiled, now });
    if (findings.some((finding) => finding.level !== "S")) throw new Error(findings[0]!.detail);
    sign("sha256", tbs, privateKey);
    return performance.now() - start;
  });
  return median(times);
}

const service = await startTestService();
try {
  parseCertificate(
    decodePem(readFileSync(service.files.issuingCertificate, "utf8"), "CERTIFICATE"),
  );
  console.log(`Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model}`);
  // Warms up, not counted: the engine compiles what is hot in the first tens of thousands of certificates.
  for (let run = 0; run < WARM_UP_RUNS; run++) await measure(service, 32);
  const speeds = [opensslSpeed()];
  const rows: string[] = [];
  let signer = 0;
  for (const concurrency of CONCURRENCIES) {
    const runs: Figures[] = [];
    for (let run = 0; run < RUNS; run++) runs.push(await measure(service, concurrency));
    speeds.push(opensslSpeed());
    const of = (pick: (figures: Figures) => number): number => median(runs.map(pick));
    const perSecond = of((run) => run.perSecond);
    signer = of((run) => run.cpu.signer);
    const [service_, keeper, signer_, load] = (
      ["service", "keeper", "signer", "load generator"] as const
    ).map((name) => of((run) => run.cpu[name]).toFixed(2));
    rows.push(
      `| ${concurrency} | ${perSecond.toFixed(0)} | RATIO${perSecond} | ${of((run) => run.p50).toFixed(1)} | ` +
        `${of((run) => run.p99).toFixed(1)} | ${service_} | ${keeper} | ${signer_} | ${load} |`,
    );
  }
  const openssl = median(speeds);
  console.log(
    `openssl speed ecdsap256: ${openssl.toFixed(0)} signs/s (median of ${speeds.length})\n`,
  );
  console.log(
    "| concurrency | certificates/s | of openssl's signs/s | p50 ms | p99 ms | CPU ms: service | keeper | signer | load generator |",
  );
  console.log("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
  for (const row of rows) {
    console.log(
      row.replace(
        /RATIO([\d.]+)/,
        (_, perSecond) => `${((100 * perSecond) / openssl).toFixed(2)} %`,
      ),
    );
  }
  console.log(
    `\nCRL of 10,000 entries, built, checked and signed: ${crlMilliseconds(service, 10_000).toFixed(1)} ms`,
  );
  const carried = await transport();
  console.log(
    `\nTo the signer and back, both ends: ${carried.request.toFixed(1)} µs of processor time a request, ` +
      `${(carried.request / carried.sign).toFixed(2)} of a P-256 crypto.sign (${carried.sign.toFixed(1)} µs; at most 1)\n` +
      `A signature with all the signer's checks: ${((signer * 1000) / carried.sign).toFixed(1)} of a crypto.sign (at most 10)`,
  );
  console.log(
    `Dealer, P-256, 3 of 5: ${(await dealMilliseconds()).toFixed(0)} ms (under 500)\n` +
      `From the third share to the end of the ceremony that it opens: ${(await openingMilliseconds(service)).toFixed(0)} ms (under 300)`,
  );
  const { rate, counted } = await junk(
    service,
    async (during) => (await measure(service, 8, during)).perSecond,
  );
  console.log(
    `1,000 junk submissions in a custodian's name: others are answered at ${(100 * rate).toFixed(0)} % of the usual rate ` +
      `(at least 50); the custodian ${counted ? "still gets in" : "DOES NOT GET IN"}`,
  );
} finally {
  await service.stop();
  removeHome(service.home);
}
