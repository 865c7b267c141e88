/** Bad input to the running service: the right problem code, a line in the log, and nothing changed. */

import { execFileSync } from "node:child_process";
import { generateKeyPairSync, sign } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  bitString,
  contextTag,
  element,
  integer,
  objectIdentifier,
  octetString,
  sequence,
  Tag,
} from "../../src/x509/der.ts";
import { makeCsr } from "../support/csr.ts";
import {
  removeHome,
  startTestService,
  type Answer,
  type ApiRequest,
  type RunningService,
} from "../support/service.ts";

let service: RunningService;
let folder: string;

beforeAll(async () => {
  service = await startTestService();
  folder = mkdtempSync(join(tmpdir(), "countersign-csr-"));
});

afterAll(async () => {
  expect(await service.stop()).toBe(0);
  removeHome(service.home);
  rmSync(folder, { recursive: true });
});

const CERTIFICATES = "/v1/issuers/issuing/certificates";

/** A CSR made by stock openssl, DER. */
function opensslCsr(parameters: readonly string[], san = "DNS:web.example.test"): Buffer {
  const file = join(folder, "request.der");
  execFileSync(
    "openssl",
    [
      "req",
      "-new",
      "-nodes",
      "-keyout",
      join(folder, "request.key"),
      "-outform",
      "DER",
      "-out",
      file,
    ].concat(["-subj", "/", "-addext", `subjectAltName=${san}`], parameters),
    { stdio: "pipe" },
  );
  return readFileSync(file);
}

const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

function post(
  csr: Uint8Array,
  query = "profile=server",
  options: ApiRequest = {},
): Promise<Answer> {
  return service.api(`${CERTIFICATES}?${query}`, {
    body: csr,
    headers: { "content-type": "application/pkcs10" },
    ...options,
  });
}

/** A copy with one byte replaced where a pattern begins. */
function patched(csr: Uint8Array, pattern: Uint8Array, replacement: Uint8Array): Buffer {
  const copy = Buffer.from(csr);
  const place = copy.indexOf(pattern);
  if (place === -1) throw new Error("the pattern is not in the CSR");
  copy.set(replacement, place);
  return copy;
}

/** No tool makes such a key: put together here, and signed by the key with the usual exponent. */
function csrWithExponentOne(): Uint8Array {
  const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const n = Buffer.from(publicKey.export({ format: "jwk" }).n!, "base64url");
  const none = Uint8Array.of(Tag.null, 0);
  const rsa = sequence(integer(BigInt(`0x${n.toString("hex")}`)), integer(1));
  const san = sequence(element(contextTag(2, false), Buffer.from("web.example.test")));
  const info = sequence(
    integer(0),
    sequence(),
    sequence(sequence(objectIdentifier("1.2.840.113549.1.1.1"), none), bitString(rsa)),
    element(
      contextTag(0, true),
      sequence(
        objectIdentifier("1.2.840.113549.1.9.14"),
        element(Tag.set, sequence(sequence(objectIdentifier("2.5.29.17"), octetString(san)))),
      ),
    ),
  );
  return sequence(
    info,
    sequence(objectIdentifier("1.2.840.113549.1.1.11"), none),
    bitString(sign("sha256", info, privateKey)),
  );
}

const good = (): Uint8Array => makeCsr({ dns: ["web.example.test"] });
const names = (...dns: string[]): Uint8Array => makeCsr({ dns });

function json(body: string, options: ApiRequest = {}): Promise<Answer> {
  return service.api(CERTIFICATES, {
    body,
    headers: { "content-type": "application/json" },
    ...options,
  });
}

interface Row {
  readonly name: string;
  readonly ask: () => Promise<Answer>;
  readonly status: number;
  readonly code: string;
  /** What the problem document must also say. */
  readonly says?: Record<string, unknown>;
}

const rows: readonly Row[] = [
  { name: "a body that is not JSON", ask: () => json("{"), status: 400, code: "request-malformed" },
  {
    name: "an unknown field",
    ask: () => json(JSON.stringify({ profile: "server", csr: "x", extra: 1 })),
    status: 400,
    code: "request-malformed",
  },
  {
    name: "a body over 64 KiB",
    ask: () => json(JSON.stringify({ profile: "server", csr: "x".repeat(65_600) })),
    status: 413,
    code: "request-too-large",
  },
  {
    name: "a CSR that is not PEM",
    ask: () => json(JSON.stringify({ profile: "server", csr: "hello" })),
    status: 400,
    code: "csr-malformed",
  },
  {
    name: "broken DER",
    ask: () => post(good().subarray(0, 90)),
    status: 400,
    code: "csr-malformed",
  },
  {
    name: "trailing bytes",
    ask: () => post(Buffer.concat([good(), Buffer.of(0)])),
    status: 400,
    code: "csr-malformed",
  },
  {
    name: "a wrong signature",
    ask: () => post(patched(good(), Buffer.from("web."), Buffer.from("wab."))),
    status: 422,
    code: "csr-signature-invalid",
  },
  {
    name: "a SHA-1 signature",
    ask: () => post(opensslCsr([...ec, "-sha1"])),
    status: 422,
    code: "csr-algorithm-refused",
  },
  {
    name: "RSA of 1024 bits (KEY-02)",
    ask: () => post(opensslCsr(["-newkey", "rsa:1024"])),
    status: 422,
    code: "key-refused",
  },
  {
    name: "RSA with the exponent 1 (KEY-03)",
    ask: () => post(csrWithExponentOne()),
    status: 422,
    code: "key-refused",
    says: { rule: "KEY-03" },
  },
  {
    name: "RSA with an exponent that is not minimal DER",
    ask: () =>
      post(
        patched(
          opensslCsr(["-newkey", "rsa:2048"]),
          Buffer.from("0203010001", "hex"),
          Buffer.from("0203000001", "hex"),
        ),
      ),
    status: 400,
    code: "csr-malformed",
  },
  {
    name: "RSA with the exponent 3 (KEY-03)",
    ask: () => post(opensslCsr(["-newkey", "rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"])),
    status: 422,
    code: "key-refused",
  },
  {
    name: "RSA with an even modulus (KEY-04)",
    ask: () => {
      const csr = opensslCsr(["-newkey", "rsa:2048"]);
      const place = csr.indexOf(Buffer.from("0203010001", "hex"));
      csr[place - 1]! &= 0xfe;
      return post(csr);
    },
    status: 422,
    code: "key-refused",
  },
  {
    name: "a key on P-192 (KEY-01)",
    ask: () => post(opensslCsr(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime192v1"])),
    status: 422,
    code: "key-refused",
  },
  {
    name: "a point off the curve (KEY-09)",
    ask: () => {
      const csr = Buffer.from(good());
      const point = csr.indexOf(Buffer.from("03420004", "hex")) + 4;
      csr[point + 63]! ^= 1;
      return post(csr);
    },
    status: 422,
    code: "key-refused",
  },
  {
    name: "a name with NUL",
    ask: () => post(names("web\0.example.test")),
    status: 422,
    code: "name-malformed",
    says: { reason: "control-character", rule: "SRV-04" },
  },
  {
    name: "a name with an underscore",
    ask: () => post(names("a_b.example.test")),
    status: 422,
    code: "name-malformed",
    says: { reason: "not-ldh", rule: "SRV-04" },
  },
  {
    name: "a name with a trailing dot",
    ask: () => post(names("web.example.test.")),
    status: 422,
    code: "name-malformed",
    says: { reason: "trailing-dot", rule: "SRV-04" },
  },
  { name: "the name *.", ask: () => post(names("*.")), status: 422, code: "name-malformed" },
  { name: "the name *.*.x", ask: () => post(names("*.*.x")), status: 422, code: "name-malformed" },
  { name: "the name a*.x", ask: () => post(names("a*.x")), status: 422, code: "name-malformed" },
  {
    name: "an address as the common name only",
    ask: () => post(makeCsr({ dns: ["web.example.test"], commonName: "10.0.0.1" })),
    status: 403,
    code: "name-refused",
    says: { rule: "SRV-06", name: "10.0.0.1" },
  },
  {
    name: "an unknown kind of SAN",
    ask: () => post(opensslCsr(ec, "otherName:1.3.6.1.4.1.311.20.2.3;UTF8:user@example.test")),
    status: 403,
    code: "name-refused",
  },
  {
    name: "101 names (SRV-16)",
    ask: () => post(names(...Array.from({ length: 101 }, (_, index) => `n${index}.example.test`))),
    status: 422,
    code: "names-too-many",
    says: { rule: "SRV-16" },
  },
  {
    name: "a name twice (SRV-16)",
    ask: () => post(names("web.example.test", "WEB.example.test")),
    status: 422,
    code: "name-repeated",
    says: { rule: "SRV-16" },
  },
  {
    name: "one bad name among good ones",
    ask: () => post(names("web.example.test", "web.example.com", "app.example.test")),
    status: 403,
    code: "name-refused",
    says: { name: "web.example.com", rule: expect.stringContaining("names.dns") },
  },
  {
    name: "no names in a server profile (SRV-03)",
    ask: () => post(makeCsr({})),
    status: 422,
    code: "lint-refused",
    says: { rule: "SRV-03" },
  },
  {
    name: "cA TRUE in the CSR",
    ask: () => post(opensslCsr([...ec, "-addext", "basicConstraints=critical,CA:TRUE"])),
    status: 422,
    code: "csr-extension-refused",
  },
  {
    name: "an unknown issuer",
    ask: () =>
      service.api("/v1/issuers/nobody/certificates?profile=server", {
        body: good(),
        headers: { "content-type": "application/pkcs10" },
      }),
    status: 404,
    code: "issuer-unknown",
  },
  {
    name: "no credentials",
    ask: () => post(good(), undefined, { token: false }),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "a wrong API key",
    ask: () => post(good(), undefined, { token: `csk_${"A".repeat(43)}` }),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "a profile that is not the requester's",
    ask: () => post(good(), "profile=other"),
    status: 403,
    code: "profile-not-allowed",
  },
  {
    name: "an issuer that is not the requester's",
    ask: () =>
      service.api("/v1/issuers/root/certificates?profile=server", {
        body: good(),
        headers: { "content-type": "application/pkcs10" },
      }),
    status: 403,
    code: "issuer-not-allowed",
  },
  {
    name: "a serial number that does not exist",
    ask: () => service.api(`${CERTIFICATES}/${"40".repeat(20)}`),
    status: 404,
    code: "certificate-unknown",
  },
  {
    name: "a lifetime that cannot be read",
    ask: () => post(good(), "profile=server&lifetime=soon"),
    status: 400,
    code: "lifetime-malformed",
  },
  {
    name: "an Idempotency-Key with a blank",
    ask: () =>
      post(good(), undefined, {
        headers: { "idempotency-key": "a b", "content-type": "application/pkcs10" },
      }),
    status: 400,
    code: "idempotency-key-malformed",
  },
  {
    name: "an unknown route",
    ask: () => service.api("/v1/nothing"),
    status: 404,
    code: "route-unknown",
  },
];

async function certificatesNow(): Promise<number> {
  const page = await service.api(`${CERTIFICATES}?limit=200`);
  return page.json<{ certificates: unknown[] }>().certificates.length;
}

test.for(rows)("$name: $status $code", async ({ ask, status, code, says }) => {
  const before = await certificatesNow();
  const answer = await ask();
  const problem = answer.json<{ type: string; instance: string }>();
  expect(answer.headers["content-type"]).toContain("application/problem+json");
  expect(problem).toMatchObject({ type: `/problems/${code}`, ...says });
  expect(answer.status).toBe(status);
  expect(await certificatesNow()).toBe(before);
  // The same request id stands in the service's log, with the code.
  const id = problem.instance.slice(problem.instance.lastIndexOf(":") + 1);
  await expect
    .poll(() => service.output.stderr.split("\n").find((line) => line.includes(id)))
    .toContain(code);
});

test("a search finds a name in any case", async () => {
  const { serialNumber } = (await post(names("Search.example.test"))).json<{
    serialNumber: string;
  }>();
  for (const name of ["search.example.test", "SEARCH.example.test", "*.EXAMPLE.test"]) {
    const page = await service.api(`${CERTIFICATES}?name=${name}&limit=200`);
    const found = page.json<{ certificates: { serialNumber: string }[] }>().certificates;
    expect(found.map((certificate) => certificate.serialNumber)).toContain(serialNumber);
  }
});

test("the issuer's own key is refused (KEY-11)", async () => {
  // Nobody has the private key outside the token, so the possession check refuses it first.
  const pem = readFileSync(service.files.issuingCertificate, "utf8");
  const spki = execFileSync("openssl", ["x509", "-noout", "-pubkey"], { input: pem });
  const der = execFileSync("openssl", ["pkey", "-pubin", "-outform", "DER"], { input: spki });
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const csr = Buffer.from(makeCsr({ dns: ["web.example.test"], privateKey, publicKey }));
  const own = publicKey.export({ type: "spki", format: "der" });
  csr.set(der, csr.indexOf(own));
  const answer = await post(csr);
  expect(answer.status).toBe(422);
  expect(answer.json()).toMatchObject({ type: "/problems/key-refused", rule: "KEY-11" });
});

test("a second revocation with another reason is refused, the same one is repeated", async () => {
  const issued = (await post(good())).json<{ serialNumber: string }>();
  const path = `${CERTIFICATES}/${issued.serialNumber}/revocation`;
  const revoke = (reason: string) => service.send(path, { reason }, { method: "PUT" });
  expect((await revoke("superseded")).json()).toMatchObject({ reason: "superseded" });
  const again = await revoke("superseded");
  expect(again.status).toBeLessThan(300);
  const other = await revoke("keyCompromise");
  expect(other.status).toBe(409);
  expect(other.json()).toMatchObject({
    type: "/problems/revocation-conflict",
    reason: "superseded",
  });
  expect((await revoke("nonsense")).json()).toMatchObject({ type: "/problems/request-malformed" });
});

test("an invalidityDate that no CRL can carry is refused, and the issuer goes on making CRLs", async () => {
  const issued = (await post(good())).json<{ serialNumber: string }>();
  const path = `${CERTIFICATES}/${issued.serialNumber}/revocation`;
  for (const invalidityDate of [
    "1000-01-01T00:00:00Z",
    "0000-01-01T00:00:00+23:59",
    "1949-12-31T23:59:59Z",
    "9999-12-31T23:59:59Z",
  ]) {
    const answer = await service.send(
      path,
      { reason: "superseded", invalidityDate },
      { method: "PUT" },
    );
    expect(answer.status, invalidityDate).toBe(400);
    expect(answer.json()).toMatchObject({ type: "/problems/request-malformed" });
  }
  const revoked = await service.send(path, { reason: "superseded" }, { method: "PUT" });
  expect(revoked.json()).toMatchObject({ visible: { crlNumber: expect.any(String) } });
});

test("reasons that are not the subscriber's to give are refused", async () => {
  const issued = (await post(good())).json<{ serialNumber: string }>();
  for (const reason of ["certificateHold", "removeFromCRL", "privilegeWithdrawn", "cACompromise"]) {
    const answer = await service.send(
      `${CERTIFICATES}/${issued.serialNumber}/revocation`,
      { reason },
      { method: "PUT" },
    );
    expect(answer.json()).toMatchObject({ type: "/problems/reason-refused" });
  }
});

test("a serial number asked of the wrong issuer is not found", async () => {
  const issued = (await post(good())).json<{ serialNumber: string }>();
  const answer = await service.api(`/v1/issuers/root/certificates/${issued.serialNumber}`);
  expect(answer.status).toBe(404);
  expect(answer.json()).toMatchObject({ type: "/problems/certificate-unknown" });
});

test("no refusal puts a credential or a private key into the log", () => {
  const { stdout, stderr } = service.output;
  expect(stderr.length).toBeGreaterThan(1000);
  expect(stdout + stderr).not.toContain(service.apiKey);
  const pin = readFileSync(join(service.home, "keeper", "pins", "issuing.pin"), "utf8").trim();
  expect(stdout + stderr).not.toContain(pin);
});

test("what is no HTTP request is answered with a problem as well", async () => {
  const socket = connect(service.publicPort, "127.0.0.1");
  socket.end("secret garbage\r\n\r\n");
  let answer = "";
  for await (const chunk of socket) answer += String(chunk);
  expect(answer).toMatch(/^HTTP\/1\.1 400 .*"code":"request-malformed"/s);
  expect(service.output.stdout + service.output.stderr).not.toContain("secret garbage");
});
