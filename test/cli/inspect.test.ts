/** Files of every kind, made by stock openssl and ssh-keygen. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { beforeAll, expect, test } from "vitest";
import { countersign, countersignJson, folder, openssl, path, write } from "./command.ts";

interface Inspection {
  readonly objects: Record<string, unknown>[];
  readonly chain?: { readonly ordered: boolean };
}

const inspect = (file: string, ...more: string[]): Promise<Inspection> =>
  countersignJson<Inspection>(["inspect", file, ...more]);

const root = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";

beforeAll(() => {
  write(
    "ca.cnf",
    `[req]\ndistinguished_name=dn\nx509_extensions=root\n[dn]\n[root]\n${root}subjectKeyIdentifier=hash\n` +
      "[leaf]\nsubjectAltName=DNS:web.example.test,IP:2001:db8::7\nextendedKeyUsage=serverAuth\n" +
      "keyUsage=critical,digitalSignature\nauthorityKeyIdentifier=keyid:always\n" +
      "[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\nserial=serial\ncrlnumber=crlnumber\n" +
      "default_md=sha256\ncrl_extensions=crl\n[crl]\nauthorityKeyIdentifier=keyid:always\n",
  );
  for (const name of ["root", "web"]) {
    openssl(
      "genpkey",
      "-algorithm",
      "EC",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-out",
      `${name}.key`,
    );
  }
  openssl(
    ...[
      "req",
      "-x509",
      "-config",
      "ca.cnf",
      "-key",
      "root.key",
      "-subj",
      "/C=DE/O=Example/CN=Test root",
    ],
    ...["-days", "30", "-out", "root.pem"],
  );
  openssl(
    ...["req", "-new", "-key", "web.key", "-subj", "/CN=web.example.test", "-out", "web.csr"],
    ...["-addext", "subjectAltName=DNS:web.example.test,IP:10.0.0.7,email:a@example.test"],
  );
  openssl(
    ...["x509", "-req", "-in", "web.csr", "-CA", "root.pem", "-CAkey", "root.key", "-days", "10"],
    ...["-extfile", "ca.cnf", "-extensions", "leaf", "-out", "web.pem"],
  );
  write("index.txt", "");
  write("crlnumber", "2A\n");
  const serial = openssl("x509", "-in", "web.pem", "-noout", "-serial").trim().split("=")[1]!;
  write(
    "index.txt",
    `R\t301231000000Z\t261101000000Z,keyCompromise\t${serial}\tunknown\t/CN=web\n`,
  );
  openssl(
    ...["ca", "-config", "ca.cnf", "-gencrl", "-cert", "root.pem", "-keyfile", "root.key"],
    ...["-crldays", "7", "-out", "root.crl"],
  );
});

test("a certificate is decoded, with fingerprint, names and the days it has left", async () => {
  const { objects } = await inspect("web.pem");
  const fingerprint = openssl("x509", "-in", "web.pem", "-noout", "-fingerprint", "-sha256");
  expect(objects).toEqual([
    expect.objectContaining({
      kind: "certificate",
      sha256: `sha256:${fingerprint.trim().split("=")[1]!.replaceAll(":", "").toLowerCase()}`,
      version: 3,
      subject: "CN=web.example.test",
      issuer: "CN=Test root,O=Example,C=DE",
      state: "valid",
      daysLeft: 9,
      names: [
        { kind: "dns", value: "web.example.test" },
        { kind: "ip", value: "2001:db8::7" },
      ],
      publicKey: { type: "P-256", sha256: expect.stringMatching(/^sha256:/) },
      signatureAlgorithm: "ecdsa-with-SHA256",
      ca: false,
      keyUsage: ["digitalSignature"],
      extKeyUsage: ["serverAuth"],
      selfIssued: false,
      lint: { notChecked: expect.stringContaining("CN=Test root"), findings: [] },
    }),
  ]);
});

test("DER and PEM of the same thing are the same", async () => {
  openssl("x509", "-in", "web.pem", "-outform", "DER", "-out", "web.der");
  openssl("crl", "-in", "root.crl", "-outform", "DER", "-out", "root.crl.der");
  openssl("req", "-in", "web.csr", "-outform", "DER", "-out", "web.csr.der");
  for (const name of ["web.pem web.der", "root.crl root.crl.der", "web.csr web.csr.der"]) {
    const [pem, der] = await Promise.all(name.split(" ").map((file) => inspect(file)));
    expect({ ...der!.objects[0], place: "" }).toEqual({ ...pem!.objects[0], place: "" });
  }
});

test("with its chain a certificate is linted, and findings have rule ids", async () => {
  const { objects } = await inspect("web.pem", "--chain", "root.pem");
  const { lint } = objects[0] as {
    lint: { checkedAs: string; findings: { rule: string; level: string }[] };
  };
  expect(lint.checkedAs).toBe("server");
  // It has no CRL distribution point, no caIssuers and a common name: advice, nothing broken.
  expect(lint.findings.length).toBeGreaterThan(0);
  for (const { rule } of lint.findings) expect(rule).toMatch(/^[A-Z]+-\d\d$/);
});

test("a broken rule is named: SRV-14, a leaf that says it may sign certificates", async () => {
  write(
    "bad.cnf",
    "[bad]\nsubjectAltName=DNS:web.example.test\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature,keyCertSign\n",
  );
  openssl(
    ...["x509", "-req", "-in", "web.csr", "-CA", "root.pem", "-CAkey", "root.key", "-days", "10"],
    ...["-extfile", "bad.cnf", "-extensions", "bad", "-out", "bad.pem"],
  );
  const { objects } = await inspect("bad.pem", "--chain", "root.pem");
  expect(JSON.stringify(objects[0]!["lint"])).toContain("SRV-14");
});

test("several objects in one file, text between them, and which key belongs to which certificate", async () => {
  const [key, web, ca] = ["web.key", "web.pem", "root.pem"].map((file) =>
    readFileSync(path(file), "utf8"),
  );
  write("all.pem", `Bag Attributes\n${key}subject=web\n${web}\n${ca}`, 0o600);
  const { objects, chain } = await inspect("all.pem");
  expect(objects.map(({ kind }) => kind)).toEqual(["private key", "certificate", "certificate"]);
  expect(objects[0]!["publicKeySha256"]).toBe(
    (objects[1]!["publicKey"] as { sha256: string }).sha256,
  );
  expect(chain).toEqual(expect.objectContaining({ ordered: true }));
  const { stdout } = await countersign(["inspect", "all.pem"]);
  expect(stdout).toContain("belongs to  object 2");
  write("turned.pem", `${ca}${web}`);
  expect((await inspect("turned.pem")).chain).toMatchObject({ ordered: false });
});

test("certificates one after the other in DER", async () => {
  openssl("x509", "-in", "root.pem", "-outform", "DER", "-out", "root.der");
  write("both.der", Buffer.concat([readFileSync(path("web.der")), readFileSync(path("root.der"))]));
  const { objects } = await inspect("both.der");
  expect(objects.map(({ subject }) => subject)).toEqual([
    "CN=web.example.test",
    "CN=Test root,O=Example,C=DE",
  ]);
});

test("a CRL is decoded with its entries, and linted against its issuer", async () => {
  const { objects } = await inspect("root.crl", "--chain", "root.pem");
  expect(objects[0]).toMatchObject({
    kind: "certificate list",
    issuer: "CN=Test root,O=Example,C=DE",
    number: "42",
    state: "current",
    entryCount: 1,
    entries: [{ reason: "keyCompromise", revocationDate: "2026-11-01T00:00:00.000Z" }],
    lint: { checkedAs: "certificate list" },
  });
});

test("a CRL without number and key identifier is decoded as well", async () => {
  const plain = readFileSync(path("ca.cnf"), "utf8")
    .replace("crl_extensions=crl\n", "")
    .replace("crlnumber=crlnumber\n", "");
  write("plain.cnf", plain);
  openssl(
    ...["ca", "-config", "plain.cnf", "-gencrl", "-cert", "root.pem", "-keyfile", "root.key"],
    ...["-crldays", "7", "-out", "plain.crl"],
  );
  const [view] = (await inspect("plain.crl", "--chain", "root.pem")).objects;
  expect(view).toMatchObject({ kind: "certificate list", entryCount: 1 });
  expect(view).not.toHaveProperty("number");
  expect(JSON.stringify(view!["lint"])).toContain("CRL-5"); // CRL-50, CRL-54: both are missing
});

test("a CSR is decoded, and said to be well-formed", async () => {
  expect((await inspect("web.csr")).objects[0]).toMatchObject({
    kind: "certification request",
    subject: "CN=web.example.test",
    names: [
      { kind: "dns", value: "web.example.test" },
      { kind: "ip", value: "10.0.0.7" },
      { kind: "email", value: "a@example.test" },
    ],
    publicKey: { type: "P-256" },
    refusal: null,
  });
});

test("KEY-02, KEY-10: what a service would refuse is said of a CSR", async () => {
  openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "small.key");
  openssl("req", "-new", "-key", "small.key", "-subj", "/CN=a", "-out", "small.csr");
  openssl("req", "-new", "-sha1", "-key", "web.key", "-subj", "/CN=a", "-out", "sha1.csr");
  expect((await inspect("small.csr")).objects[0]).toMatchObject({
    publicKey: { type: "RSA-1024" },
    refusal: { code: "key-refused", rule: "KEY-02" },
  });
  expect((await inspect("sha1.csr")).objects[0]).toMatchObject({
    signatureAlgorithm: "ecdsa-with-SHA1",
    refusal: { code: "csr-algorithm-refused", rule: "KEY-10" },
  });
});

const passphrase = ["-aes256", "-passout", "pass:open-sesame"];

test.for([
  {
    name: "P-256",
    make: ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    type: "P-256",
    format: "PKCS#8",
  },
  {
    name: "Ed25519",
    make: ["genpkey", "-algorithm", "ed25519"],
    type: "Ed25519",
    format: "PKCS#8",
  },
  { name: "RSA", make: ["genpkey", "-algorithm", "RSA"], type: "RSA-2048", format: "PKCS#8" },
  {
    name: "SEC 1",
    make: ["ecparam", "-name", "secp384r1", "-genkey", "-noout"],
    type: "P-384",
    format: "SEC 1",
  },
  {
    name: "secp256k1",
    make: ["ecparam", "-name", "secp256k1", "-genkey", "-noout"],
    type: "EC secp256k1",
    format: "SEC 1",
  },
  { name: "PKCS#1", make: ["genrsa", "-traditional", "2048"], type: "RSA-2048", format: "PKCS#1" },
  { name: "X25519", make: ["genpkey", "-algorithm", "x25519"], type: "x25519", format: "PKCS#8" },
])("a private key is named and nothing of it is shown: $name", async ({ make, type, format }) => {
  const pem = openssl(...make);
  write("some.key", pem, 0o600);
  const run = await countersign(["--json", "inspect", "some.key"]);
  expect((JSON.parse(run.stdout) as Inspection).objects).toEqual([
    {
      place: "PEM block 1",
      kind: "private key",
      type,
      format,
      encrypted: false,
      publicKeySha256: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
    },
  ]);
  for (const line of pem.split("\n").filter((text) => /^[A-Za-z0-9+/]{20}/.test(text))) {
    expect(run.stdout).not.toContain(line);
  }
});

test("an encrypted private key is recognised without its passphrase", async () => {
  openssl(
    "pkcs8",
    "-topk8",
    "-in",
    "web.key",
    "-passout",
    "pass:open-sesame",
    "-out",
    "sealed.key",
  );
  openssl("genrsa", "-traditional", ...passphrase, "-out", "legacy.key", "2048");
  expect((await inspect("sealed.key")).objects[0]).toMatchObject({
    kind: "private key",
    encrypted: true,
    type: "unknown",
  });
  expect((await inspect("legacy.key")).objects[0]).toMatchObject({
    kind: "private key",
    encrypted: true,
    type: "RSA",
    format: "PKCS#1",
  });
});

test("OpenSSH keys are recognised, private and public", async () => {
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", "id"], { cwd: folder });
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "open-sesame", "-f", "locked"], {
    cwd: folder,
  });
  expect((await inspect("id")).objects[0]).toMatchObject({
    kind: "private key",
    type: "ssh-ed25519",
    format: "OpenSSH",
    encrypted: false,
  });
  expect((await inspect("locked")).objects[0]).toMatchObject({
    type: "ssh-ed25519",
    encrypted: true,
  });
  expect((await inspect("id.pub")).objects[0]).toMatchObject({
    kind: "other",
    description: "an SSH public key",
  });
});

test.for([
  {
    name: "a private key in DER",
    make: ["pkey", "-in", "web.key", "-outform", "DER"],
    want: { kind: "private key", type: "P-256" },
  },
  {
    name: "a SEC 1 key in DER",
    make: ["ec", "-in", "web.key", "-outform", "DER"],
    want: { kind: "private key", type: "P-256", format: "SEC 1" },
  },
  {
    name: "an encrypted key in DER",
    make: ["pkcs8", "-topk8", "-in", "web.key", "-passout", "pass:x-y-z-w", "-outform", "DER"],
    want: { kind: "private key", encrypted: true },
  },
  {
    name: "a public key",
    make: ["pkey", "-in", "web.key", "-pubout"],
    want: { kind: "public key", type: "P-256" },
  },
  {
    name: "a public key in DER",
    make: ["pkey", "-in", "web.key", "-pubout", "-outform", "DER"],
    want: { kind: "public key", type: "P-256" },
  },
  {
    name: "a PKCS#7 bundle",
    make: ["crl2pkcs7", "-nocrl", "-certfile", "web.pem", "-outform", "DER"],
    want: { kind: "other", description: expect.stringContaining("PKCS#7") },
  },
  {
    name: "a PKCS#12 file",
    make: ["pkcs12", "-export", "-in", "web.pem", "-inkey", "web.key", "-passout", "pass:"],
    want: { kind: "other", description: expect.stringContaining("PKCS#12") },
  },
])("it recognises $name", async ({ make, want }) => {
  openssl(...make, "-out", "made");
  expect((await inspect("made")).objects[0]).toMatchObject(want);
});

test.for([
  { name: "nothing", content: "" },
  { name: "text", content: "hello\n" },
  { name: "random octets", content: Buffer.from("30820fff0102", "hex") },
  { name: "a PEM block that does not end", content: "-----BEGIN CERTIFICATE-----\nMIIB\n" },
  {
    name: "a PEM block that holds no certificate",
    content: "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
  },
  {
    name: "a PEM block that is not base64",
    content: "-----BEGIN X509 CRL-----\n!!!!\n-----END X509 CRL-----\n",
  },
])("exit code 1 for a file that holds nothing known: $name", async ({ content }) => {
  write("strange", content);
  const run = await countersign(["inspect", "strange"]);
  expect(run.status).toBe(1);
  expect(run.stderr).toBe("");
});

test("every cut and every flipped octet of a certificate ends in words, not in a crash", async () => {
  const der = readFileSync(path("web.der"));
  const { piecesOf } = await import("../../src/cli/pieces.ts");
  const { certificateView } = await import("../../src/cli/views.ts");
  const { DerError } = await import("../../src/x509/der.ts");
  for (let at = 0; at < der.length; at++) {
    const flipped = Buffer.from(der);
    flipped[at]! ^= 0x41;
    for (const octets of [der.subarray(0, at), flipped]) {
      for (const piece of piecesOf(Buffer.from(octets))) {
        if (piece.kind !== "certificate" || piece.der === undefined) continue;
        try {
          certificateView(piece.der, new Date());
        } catch (error) {
          expect(error).toBeInstanceOf(DerError);
        }
      }
    }
  }
});

test("standard input is a file as well", async () => {
  const run = await countersign(["inspect", "-"], { input: readFileSync(path("web.pem")) });
  expect(run.status).toBe(0);
  expect(run.stdout).toContain("CN=web.example.test");
});

test("what a certificate says cannot move the terminal's cursor", async () => {
  write("esc.cnf", "[esc]\nsubjectAltName=DNS:\u001b[2Jevil.example.test\n");
  openssl(
    ...["x509", "-req", "-in", "web.csr", "-CA", "root.pem", "-CAkey", "root.key", "-days", "10"],
    ...["-extfile", "esc.cnf", "-extensions", "esc", "-out", "esc.pem"],
  );
  const { stdout } = await countersign(["inspect", "esc.pem"]);
  expect(stdout).toContain("evil.example.test");
  expect(stdout).not.toContain("\u001b");
});
