/**
 * How an installation grows: one person with an issuing key in a token and its PIN in a file, then three people two of
 * whom open it, with the same key, the same certificate, and what was issued on the first day.
 */

import { execFileSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stringify } from "yaml";
import { noteSigner } from "../../src/audit/signed-note.ts";
import type { CeremonyAnswer, InboxItem, UnlockAnswer } from "../../src/cli/people-answers.ts";
import { digestOf } from "../../src/audit/digest.ts";
import { policyDigest } from "../../src/custody/grant.ts";
import { softHsmModule } from "../../src/custody/token/softhsm.ts";
import { spawnMakeToken } from "../../src/custody/token/spawn-make-token.ts";
import { openToken } from "../../src/custody/token/token.ts";
import { developmentPolicy } from "../../src/development/policy.ts";
import { makeTlsCertificate } from "../../src/development/tls.ts";
import { CountersignError } from "../../src/errors.ts";
import { HOME_LAYOUT, homeFiles } from "../../src/home.ts";
import { caIssuersUrlOf, crlUrlOf } from "../../src/issuance/issuer.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import { buildTbsCertificate, certificateTemplate } from "../../src/x509/certificate-template.ts";
import { encodeName } from "../../src/x509/name.ts";
import { encodePem } from "../../src/x509/pem.ts";
import { parsePublicKey } from "../../src/x509/public-key.ts";
import { crossCheckCertificate, crossCheckCrl } from "../support/cross-check.ts";
import { makeCsr } from "../support/csr.ts";
import { HomePeople } from "../support/home-people.ts";
import { makeSshKey } from "../support/people.ts";
import {
  freePort,
  removeHome,
  startTestService,
  temporaryHome,
  type RunningService,
} from "../support/service.ts";
import { newSerialNumber, rootAuthority } from "../x509/authority.ts";

const SERVICE = "day-one";
/** For what the service does by itself. */
const WAIT = { timeout: 20_000, interval: 100 };

const home = temporaryHome();
const files = homeFiles(home);
const pinFile = join(home, "keeper", "issuing.pin");
const modulePath = process.env["PKCS11_LIBRARY"] ?? softHsmModule()!;
let service: RunningService;
let people: HomePeople;
let apiUrl: string;
/** Of the token's key, RFC 7512. */
let uri: string;

/** A home of one person, whose commands make its roster. */
async function makeHome(): Promise<void> {
  for (const folder of ["service", "keeper/tokens", "issuers", "client", "roster"]) {
    mkdirSync(join(home, folder), { recursive: true, mode: 0o700 });
  }
  await makeTlsCertificate(files.tlsCertificate, files.tlsKey);
  for (const [name, file, verifier] of [
    [`${SERVICE}/audit`, "log.key", files.logKey],
    [`${SERVICE}/keeper`, "identity.key", files.identityKey],
  ] as const) {
    const { privateKey } = generateKeyPairSync("ed25519");
    const pem = privateKey.export({ type: "pkcs8", format: "pem" });
    writeFileSync(join(home, "keeper", file), pem, { mode: 0o600 });
    writeFileSync(verifier, `${noteSigner(name, privateKey).verifierKey.text}\n`);
  }
  const [api, publicSite] = [await freePort(), await freePort()];
  const publicUrl = `http://127.0.0.1:${publicSite}`;
  writeFileSync(
    files.service,
    stringify({
      api: { port: api, certificate: "service/tls.crt", key: "service/tls.key" },
      public: { port: publicSite, url: publicUrl },
      database: "service/countersign.db",
      keeper: "keeper/keeper.yaml",
      genesis: "roster/genesis.json",
      policy: "policy.yaml",
    }),
  );
  apiUrl = `https://127.0.0.1:${api}`;
  writeFileSync(files.policy, developmentPolicy);
  writeFileSync(files.layout, JSON.stringify({ layout: HOME_LAYOUT, kind: "development" }));

  const softhsm = join(home, "keeper", "softhsm2.conf");
  writeFileSync(softhsm, `directories.tokendir = ${join(home, "keeper", "tokens")}\n`);
  const environment = { SOFTHSM2_CONF: softhsm };
  process.env["SOFTHSM2_CONF"] = softhsm;
  const made = await spawnMakeToken(
    { modulePath, label: "issuing", object: "issuing", key: "P-256", pinFile },
    environment,
  );
  ({ uri } = made);

  const root = rootAuthority();
  const start = new Date(Math.floor(Date.now() / 1000) * 1000 - 60_000);
  const issuing = root.signed(
    buildTbsCertificate(
      certificateTemplate({
        issuerCertificate: root.certificate,
        keyUsage: ["keyCertSign", "cRLSign"],
        extKeyUsage: [],
        basicConstraints: { cA: true, pathLen: 0 },
        subjectKeyIdentifier: true,
      }),
      {
        serialNumber: newSerialNumber(),
        notBefore: start,
        notAfter: new Date(start.getTime() + 5 * 365 * 86_400_000),
        subject: encodeName([{ type: "CN", value: "Day One Issuing CA" }]),
        publicKey: parsePublicKey(made.publicKey),
        names: [],
      },
    ),
  );
  writeFileSync(files.rootCertificate, encodePem("CERTIFICATE", root.certificate));
  writeFileSync(files.issuingCertificate, encodePem("CERTIFICATE", issuing));
  const urls = {
    crlUrl: crlUrlOf(publicUrl, "issuing"),
    caIssuersUrl: caIssuersUrlOf(publicUrl, "issuing"),
  };
  await enrol("alice", "--out", join(people.homeOf("alice"), "alice.json"), "--service", SERVICE);
  await people.told("alice", "roster", "new", "alice.json", "--out", files.genesis);
  await people.told("alice", "roster", "sign", files.genesis, "--yes");
  writeFileSync(
    files.keeper,
    stringify({
      service: SERVICE,
      origin: `${SERVICE}/audit`,
      logKey: "log.key",
      identityKey: "identity.key",
      head: "head",
      state: "state.json",
      policy: "../policy.yaml",
      genesis: digestOf(readFileSync(files.genesis)),
      token: { module: modulePath, environment },
      keys: [
        {
          issuer: "issuing",
          module: modulePath,
          uri,
          pinFile: "issuing.pin",
          certificate: "../issuers/issuing.pem",
          chain: ["../issuers/root.pem"],
          // For the windows of later.
          ...urls,
          grant: {
            operations: ["certificate", "crl"],
            profiles: ["server"],
            ...urls,
            policy: policyDigest(parsePolicy(developmentPolicy, "policy.yaml")),
            signaturesPerHour: 1_000,
          },
        },
      ],
    }),
  );
}

/** Makes somebody's keys, and their request to be one of the people. */
function enrol(id: string, ...options: string[]): Promise<{ proved: boolean }> {
  const sshKey = people.fileOf(id, "id_ed25519");
  makeSshKey(sshKey);
  return people.json(
    id,
    ...["enrol", "--operator", id, "--ssh-key", sshKey, "--yes"],
    ...["--url", apiUrl, "--ca", files.tlsCertificate],
    ...["--identity-key", readFileSync(files.identityKey, "utf8").trim()],
    ...["--log-key", readFileSync(files.logKey, "utf8").trim()],
    ...options,
  );
}

beforeAll(async () => {
  people = new HomePeople({ files });
  await makeHome();
  service = await startTestService({ home });
  people.restarted(service);
});

afterAll(async () => {
  expect(await service.stop()).toBe(0);
  people.remove();
  removeHome(home);
});

const dayOne = generateKeyPairSync("ec", { namedCurve: "P-256" });

interface Issued {
  readonly certificate: string;
  readonly serialNumber: string;
}

/** Asks for a certificate of the same names and the same key. */
async function issue(): Promise<Issued | string> {
  const answer = await service.api("/v1/issuers/issuing/certificates?profile=server", {
    body: makeCsr({ dns: ["web.example.test"], ...dayOne }),
    headers: { "content-type": "application/pkcs10" },
  });
  if (answer.status !== 201) return answer.json<{ code: string }>().code;
  const issued = answer.json<Issued>();
  await crossCheckCertificate(issued.certificate, files);
  return issued;
}

/** What opens the token by PKCS#11 itself: whether the PIN in a file does. */
async function opensWith(pin: string): Promise<boolean> {
  try {
    await openToken({ modulePath, uri, pin: Buffer.from(pin) }).close();
    return true;
  } catch (error) {
    if (!(error instanceof CountersignError) || error.code !== "pin-wrong") throw error;
    return false;
  }
}

async function approve(id: string, ...by: string[]): Promise<string> {
  let state = "";
  for (const person of by) {
    ({ state } = await people.json<CeremonyAnswer>(person, "approve", id, "--yes"));
  }
  return state;
}

/** Takes one more person in. */
async function grow(id: string, by: readonly string[], ...rules: string[]): Promise<void> {
  expect(await enrol(id)).toMatchObject({ proved: true });
  const next = join(people.folder, `roster-${id}.json`);
  await people.told("alice", "roster", "add", id, "--out", next, ...rules);
  await people.told(id, "roster", "sign", next, "--yes");
  const proposed = await people.json<CeremonyAnswer>("alice", "roster", "propose", next);
  expect(await approve(proposed.id, ...by)).toBe("applied");
}

test("one person with a PIN file grows to three people, any two of whom open the same key, and a certificate of the first day is renewed and revoked", async () => {
  await people.told(
    "alice",
    ...["requester", "add", "web", "--issuer", "issuing", "--profile", "server"],
    ...["--dns", "subdomains:example.test", "--key-out", files.apiKey, "--yes"],
  );
  const first = (await issue()) as Issued;
  expect(first.certificate).toContain("BEGIN CERTIFICATE");
  expect(await opensWith(readFileSync(pinFile, "utf8").trim())).toBe(true);

  // It grows, a command a step: one, two and three people, two of whom decide from then on.
  const pin = readFileSync(pinFile, "utf8").trim();
  const issuer = readFileSync(files.issuingCertificate, "utf8");
  await grow("bob", ["alice"], "--rule", "roster=2", "--rule", "resume=2");
  await grow("carol", ["alice", "bob"]);
  const { items } = await people.json<{ items: InboxItem[] }>("alice", "inbox");
  expect(items).toMatchObject([{ what: "prove" }]);
  await people.told("alice", "enrol", "--prove", items[0]!.enrolment!);

  // The PIN of the token in use goes under a seal of any two of three.
  const sealing = await people.json<CeremonyAnswer>(
    "alice",
    ...["keys", "seal", "issuing", "--threshold", "2", "--reason", "three of us now"],
  );
  expect(sealing).toMatchObject({
    kind: "generate",
    missing: { people: ["alice", "bob", "carol"] },
  });
  expect(await approve(sealing.id, "alice", "bob", "carol")).toBe("pending");
  expect(await opensWith(pin)).toBe(false);
  for (const id of ["alice", "bob", "carol"]) {
    await people.told(id, "share", "confirm", "issuing", "--yes");
  }
  expect(await people.key("issuing")).toMatchObject({
    custody: "sealed",
    state: "locked",
    shareSets: [{ epoch: 1, state: "active", threshold: 2, shareCount: 3 }],
  });
  expect(await issue()).toBe("key-locked");

  // Neither a restart nor the file brings the old way in back.
  expect(await service.stop()).toBe(0);
  service = await startTestService({ home });
  people.restarted(service);
  expect(readFileSync(pinFile, "utf8").trim()).toBe(pin);
  expect(await opensWith(pin)).toBe(false);
  expect(await issue()).toBe("key-locked");
  expect(readFileSync(files.issuingCertificate, "utf8")).toBe(issuer);

  // Two of three open a window, and the first day's certificate is renewed in it.
  const proposed = await people.json<CeremonyAnswer>(
    "alice",
    ...["ceremony", "propose", "window", "--key", "issuing", "--reason", "renewals of the day"],
    ...["--operation", "certificate:server:2", "--operation", "crl:2"],
  );
  const unlock = await people.json<UnlockAnswer>("bob", "unlock", "open", proposed.id);
  await people.told("alice", "approve", proposed.id, "--yes");
  for (const id of ["bob", "carol"]) await people.told(id, "submit", unlock.id, "--yes");
  await expect.poll(() => people.get("/v1/issuers/issuing"), WAIT).toMatchObject({ state: "open" });

  const renewed = (await issue()) as Issued;
  expect(renewed.serialNumber).not.toBe(first.serialNumber);
  const revocation = `/v1/issuers/issuing/certificates/${first.serialNumber}/revocation`;
  const answer = await service.send(revocation, { reason: "superseded" }, { method: "PUT" });
  expect([answer.status, answer.json()["visible"]]).toEqual([
    200,
    expect.objectContaining({ crlNumber: expect.stringMatching(/^\d+$/) as unknown }),
  ]);

  const crl = (await service.public("/crl/issuing.pem")).body.toString();
  await crossCheckCrl(crl, files.issuingCertificate);
  const at = (name: string, content: string): string => {
    writeFileSync(join(people.folder, name), content);
    return join(people.folder, name);
  };
  const verify = (name: string, certificate: string): string =>
    execFileSync(
      "openssl",
      [
        ...["verify", "-crl_check", "-CRLfile", at("issuing.crl", crl)],
        ...["-CAfile", files.rootCertificate, "-untrusted", files.issuingCertificate],
        at(name, certificate),
      ],
      { stdio: "pipe" },
    ).toString();
  expect(verify("renewed.pem", renewed.certificate)).toContain("OK");
  expect(() => verify("first.pem", first.certificate)).toThrow("certificate revoked");

  // The window's limits are those that were agreed to.
  expect(await issue()).toMatchObject({ certificate: expect.any(String) as unknown });
  expect(await issue()).toBe("grant-exceeded");
}, 120_000);

test("ST-80: the log accounts for all that was done here", async () => {
  const key = readFileSync(files.logKey, "utf8").trim();
  const { status, stdout } = await people.run(
    "carol",
    ...["verify", "--database", files.database, "--key", key],
  );
  expect([status, stdout]).toEqual([0, expect.stringContaining("LOG-11")]);
});
