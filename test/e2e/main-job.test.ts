/** The main job with the real token, database, openssl and curl: issue, check, revoke, check again. */

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { generateKeyPairSync, sign } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { canonicalJson } from "../../src/audit/canonical-json.ts";
import * as peculiar from "../../src/x509/peculiar.ts";
import { crossCheckCertificate, crossCheckCrl } from "../support/cross-check.ts";
import { makeCsr } from "../support/csr.ts";
import { removeHome, startTestService, type RunningService } from "../support/service.ts";

let service: RunningService;
let folder: string;

beforeAll(async () => {
  service = await startTestService();
  folder = join(service.home, "..");
});

afterAll(async () => {
  expect(await service.stop()).toBe(0);
  removeHome(service.home);
});

function openssl(...parameters: string[]): string {
  return execFileSync("openssl", parameters, { cwd: folder, stdio: "pipe" }).toString();
}

interface Issued {
  serialNumber: string;
  sha256: string;
  certificate: string;
  chain: string;
}

/** A key and a certificate for it, in files NAME.key, NAME.pem (with its chain). */
async function issue(name: string, profile: string, dns: string): Promise<Issued> {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const csr = makeCsr({ dns: [dns], privateKey, publicKey });
  writeFileSync(
    join(folder, `${name}.key`),
    privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  );
  const answer = await service.api(`/v1/issuers/issuing/certificates?profile=${profile}`, {
    body: csr,
    headers: { "content-type": "application/pkcs10" },
  });
  expect(answer.status, answer.body.toString()).toBe(201);
  const issued = answer.json<Issued>();
  await crossCheckCertificate(issued.certificate, service.files);
  writeFileSync(join(folder, `${name}.pem`), issued.certificate + issued.chain);
  return issued;
}

async function fetchCrls(): Promise<void> {
  const issuing = await service.public("/crl/issuing.pem");
  const root = await service.public("/crl/root.pem");
  await crossCheckCrl(issuing.body.toString(), service.files.issuingCertificate);
  await crossCheckCrl(root.body.toString(), service.files.rootCertificate);
  writeFileSync(join(folder, "crls.pem"), Buffer.concat([issuing.body, root.body]));
}

function verifyWithCrls(name: string): { status: number | null; output: string } {
  const run = spawnSync(
    "openssl",
    ["verify", "-x509_strict", "-crl_check_all", "-CRLfile", "crls.pem"].concat([
      "-CAfile",
      service.files.rootCertificate,
      "-untrusted",
      `${name}.pem`,
      `${name}.pem`,
    ]),
    { cwd: folder },
  );
  return { status: run.status, output: run.stdout.toString() + run.stderr.toString() };
}

test("the commands that the service prints work as printed", () => {
  const page = service.output.stdout.slice(service.output.stdout.indexOf("# 1."));
  const [before, after] = page.split("# 5.");
  const run = (script: string) =>
    spawnSync("bash", ["-euo", "pipefail", "-c", script.replaceAll(/^ {2}/gm, "")], {
      cwd: folder,
    });
  // The steps share shell variables, so they run as one script; the last command must fail.
  const whole = run(`${before}\n echo REVOKED-NEXT\n # 5.${after}`);
  const output = whole.stdout.toString() + whole.stderr.toString();
  expect(output).toContain("web.pem: OK");
  expect(output.slice(output.indexOf("REVOKED-NEXT"))).toContain("certificate revoked");
  expect(whole.status).not.toBe(0);
});

test("openssl accepts a leaf with -crl_check_all before its revocation and refuses it afterwards", async () => {
  const issued = await issue("leaf", "server", "leaf.example.test");
  await fetchCrls();
  expect(verifyWithCrls("leaf")).toMatchObject({ status: 0 });
  const revoked = await service.send(
    `/v1/issuers/issuing/certificates/${issued.serialNumber}/revocation`,
    { reason: "keyCompromise" },
    { method: "PUT" },
  );
  expect(revoked.status, revoked.body.toString()).toBeLessThan(300);
  await fetchCrls();
  const after = verifyWithCrls("leaf");
  expect(after.status).not.toBe(0);
  expect(after.output).toContain("certificate revoked");
  const listed = openssl("crl", "-in", "crls.pem", "-noout", "-text");
  expect(listed).toContain(`Serial Number: ${issued.serialNumber.toUpperCase()}`);
  expect(listed).toContain("Key Compromise");
});

test("the CDP and AIA addresses in a certificate lead to its CRL and its issuer", async () => {
  await issue("links", "server", "links.example.test");
  const text = openssl("x509", "-in", "links.pem", "-noout", "-text");
  const path = (pattern: RegExp): string => new URL(pattern.exec(text)![1]!).pathname;
  expect(text).toContain(`http://127.0.0.1:${service.publicPort}/`);
  const crl = await service.public(path(/URI:(http:\S+\.crl)/));
  expect(crl.headers["content-type"]).toBe("application/pkix-crl");
  writeFileSync(join(folder, "links.crl"), crl.body);
  openssl(
    "crl",
    "-inform",
    "DER",
    "-in",
    "links.crl",
    "-noout",
    "-CAfile",
    service.files.issuingCertificate,
    "-verify",
  );
  const issuer = await service.public(path(/CA Issuers - URI:(http:\S+)/));
  expect(issuer.headers["content-type"]).toBe("application/pkix-cert");
  expect(issuer.body).toEqual(
    Buffer.from(
      new peculiar.X509Certificate(readFileSync(service.files.issuingCertificate, "utf8")).rawData,
    ),
  );
});

test("another library reads the same certificate and CRL, field by field", async () => {
  const issued = await issue("second", "peer", "second.example.test");
  const certificate = new peculiar.X509Certificate(issued.certificate);
  const issuer = new peculiar.X509Certificate(
    readFileSync(service.files.issuingCertificate, "utf8"),
  );
  expect(certificate.serialNumber).toBe(issued.serialNumber);
  expect(certificate.issuer).toBe(issuer.subject);
  expect(await certificate.verify({ publicKey: issuer.publicKey, signatureOnly: true })).toBe(true);
  expect(
    certificate.getExtension(peculiar.SubjectAlternativeNameExtension)!.names.toJSON(),
  ).toEqual([{ type: "dns", value: "second.example.test" }]);
  expect(certificate.getExtension(peculiar.ExtendedKeyUsageExtension)!.usages).toEqual([
    peculiar.ExtendedKeyUsage.serverAuth,
    peculiar.ExtendedKeyUsage.clientAuth,
  ]);
  const crl = new peculiar.X509Crl(
    Uint8Array.from((await service.public("/crl/issuing.crl")).body),
  );
  expect(crl.issuer).toBe(issuer.subject);
  expect(await crl.verify({ publicKey: issuer.publicKey })).toBe(true);
});

/** A TLS 1.3 handshake between `openssl s_server`, which wants a client certificate, and `openssl s_client`. */
async function handshake(client: string): Promise<string> {
  const server = spawn(
    "openssl",
    [
      "s_server",
      "-accept",
      "127.0.0.1:0",
      "-tls1_3",
      "-cert",
      "tls-server.pem",
      "-key",
      "tls-server.key",
    ].concat(
      ["-cert_chain", "tls-server.pem", "-CAfile", service.files.rootCertificate, "-Verify", "3"],
      ["-verify_return_error", "-www"],
    ),
    { cwd: folder, stdio: ["ignore", "pipe", "pipe"] },
  );
  try {
    const port = await new Promise<string>((resolve, reject) => {
      let text = "";
      server.stdout.on("data", (chunk: Buffer) => {
        text += chunk.toString();
        const found = /ACCEPT 127\.0\.0\.1:(\d+)/.exec(text);
        if (found !== null) resolve(found[1]!);
      });
      server.once("close", () => reject(new Error(`s_server ended: ${text}`)));
    });
    const run = spawnSync(
      "openssl",
      [
        "s_client",
        "-connect",
        `127.0.0.1:${port}`,
        "-tls1_3",
        "-CAfile",
        service.files.rootCertificate,
      ].concat(
        ["-verify_return_error", "-verify_hostname", "tls.example.test"],
        [
          "-cert",
          `${client}.pem`,
          "-key",
          `${client}.key`,
          "-cert_chain",
          `${client}.pem`,
          "-ign_eof",
        ],
      ),
      { cwd: folder, input: "GET / HTTP/1.0\r\n\r\n" },
    );
    return run.stdout.toString() + run.stderr.toString();
  } finally {
    server.kill();
  }
}

test("TLS 1.3 with client certificates works between two stock programs, and fails with a stranger's", async () => {
  await issue("tls-server", "server", "tls.example.test");
  await issue("tls-client", "client", "client.example.test");
  const good = await handshake("tls-client");
  expect(good).toContain("Verify return code: 0 (ok)");
  expect(good).toContain("HTTP/1.0 200 ok");
  openssl(
    ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout stranger.key".split(
      " ",
    ),
    ..."-out stranger.pem -subj /CN=client.example.test -addext extendedKeyUsage=clientAuth".split(
      " ",
    ),
  );
  const bad = await handshake("stranger");
  expect(bad).not.toContain("HTTP/1.0 200 ok");
  expect(bad).toMatch(/alert (unknown ca|bad certificate)|self[- ]signed/i);
});

test("whoever proves a certificate's private key may revoke that one, without any other credential", async () => {
  const issued = await issue("lost", "server", "lost.example.test");
  const other = await issue("other", "server", "other.example.test");
  const statement = Buffer.from(
    canonicalJson({
      type: "countersign/revocation/v1",
      certificate: issued.sha256,
      reason: "keyCompromise",
      at: new Date().toISOString(),
    }),
  );
  const revoke = (serialNumber: string, key: string) =>
    service.send(
      `/v1/issuers/issuing/certificates/${serialNumber}/revocation`,
      {
        reason: "keyCompromise",
        proof: {
          statement: statement.toString("base64"),
          signature: sign("sha256", statement, readFileSync(join(folder, `${key}.key`))).toString(
            "base64",
          ),
        },
      },
      { method: "PUT", token: false },
    );
  expect((await revoke(other.serialNumber, "lost")).json()).toMatchObject({
    type: "/problems/statement-stale",
  });
  expect((await revoke(issued.serialNumber, "other")).json()).toMatchObject({
    type: "/problems/signature-invalid",
  });
  expect((await revoke(issued.serialNumber, "lost")).json()).toMatchObject({
    reason: "keyCompromise",
    serialNumber: issued.serialNumber,
  });
});

test("a TLS client certificate revokes itself", async () => {
  const issued = await issue("self", "client", "self.example.test");
  const answer = await service.send(
    `/v1/issuers/issuing/certificates/${issued.serialNumber}/revocation`,
    { reason: "cessationOfOperation" },
    {
      method: "PUT",
      token: false,
      client: {
        cert: readFileSync(join(folder, "self.pem"), "utf8"),
        key: readFileSync(join(folder, "self.key"), "utf8"),
      },
    },
  );
  expect(answer.status, answer.body.toString()).toBeLessThan(300);
});

test("the same Idempotency-Key gives the same certificate, and another body is refused", async () => {
  const body = { profile: "server", csr: pem(makeCsr({ dns: ["once.example.test"] })) };
  const send = (json: unknown) =>
    service.send("/v1/issuers/issuing/certificates", json, {
      headers: { "idempotency-key": "once-1" },
    });
  const [first, second] = await Promise.all([send(body), send(body)]);
  const third = await send(body);
  expect(first.status).toBe(201);
  expect(second.json<Issued>().serialNumber).toBe(first.json<Issued>().serialNumber);
  expect(third.json<Issued>().certificate).toBe(first.json<Issued>().certificate);
  const other = await send({ ...body, lifetime: "1d" });
  expect(other.status).toBe(422);
  expect(other.json()).toMatchObject({ type: "/problems/idempotency-key-reused" });
});

test("certificates are found by name and by page", async () => {
  for (const name of ["a", "b", "c"])
    await issue(`page-${name}`, "server", `${name}.pages.example.test`);
  const find = async (query: string) =>
    (await service.api(`/v1/issuers/issuing/certificates?${query}`)).json<{
      certificates: { names: { value: string }[] }[];
      next?: string;
    }>();
  const first = await find("name=*.pages.example.test&limit=2");
  expect(first.certificates.map(({ names }) => names[0]!.value)).toEqual([
    "c.pages.example.test",
    "b.pages.example.test",
  ]);
  const second = await find(`name=*.pages.example.test&limit=2&cursor=${first.next}`);
  expect(second.certificates.map(({ names }) => names[0]!.value)).toEqual(["a.pages.example.test"]);
  expect(second.next).toBeUndefined();
  expect((await find("name=b.pages.example.test")).certificates).toHaveLength(1);
});

test("a lifetime is granted as asked, up to the profile's", async () => {
  const ask = (lifetime: string) =>
    service.send("/v1/issuers/issuing/certificates", {
      profile: "server",
      csr: pem(makeCsr({ dns: ["life.example.test"] })),
      lifetime,
    });
  const week = (await ask("1 week")).json<{ notBefore: string; notAfter: string }>();
  expect(Date.parse(week.notAfter) - Date.parse(week.notBefore)).toBe(7 * 86_400_000 - 1000);
  expect((await ask("91d")).json()).toMatchObject({ type: "/problems/lifetime-refused" });
});

function pem(der: Uint8Array): string {
  return `-----BEGIN CERTIFICATE REQUEST-----\n${Buffer.from(der).toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;
}
