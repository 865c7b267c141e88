import { ECDH, generateKeyPairSync, sign } from "node:crypto";
import { expect, test } from "vitest";
import { CountersignError, type ErrorCode } from "../../src/errors.ts";
import {
  readCertificationRequest,
  verifyCertificationRequest,
} from "../../src/x509/certification-request.ts";
import {
  bitString,
  concat,
  contextTag,
  element,
  integer,
  objectIdentifier,
  octetString,
  sequence,
  Tag,
} from "../../src/x509/der.ts";
import { encodeExtension, encodeKeyUsage } from "../../src/x509/extension.ts";
import { encodeName, nameText } from "../../src/x509/name.ts";
import { algorithmOids, extensionOids, requestAttributeOids } from "../../src/x509/oid.ts";
import { encodePem } from "../../src/x509/pem.ts";
import * as peculiar from "../../src/x509/peculiar.ts";
import { signatureAlgorithms } from "../../src/x509/signature-algorithm.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import { keyPair, spkiOf, type KeyKind } from "./authority.ts";
import { fileOf, openssl, opensslBytes } from "./openssl.ts";
import {
  attribute,
  extensionRequest,
  rawSubjectAltName,
  requestInfo,
  signedRequest,
  subjectAltName,
  unsignedRequest,
} from "./request.ts";

const keys = keyPair("P-256");
const spki = spkiOf(keys.publicKey);
const aName = subjectAltName({ kind: "dns", value: "a.example.com" });
const good = signedRequest(
  requestInfo({ spki, attributes: [extensionRequest(aName)] }),
  keys.privateKey,
);

function refusal(input: Uint8Array | string): CountersignError {
  try {
    verifyCertificationRequest(readCertificationRequest(input));
  } catch (error) {
    if (error instanceof CountersignError) return error;
    throw error;
  }
  throw new Error("the request was accepted");
}

// What is accepted

test.for<{ kind: KeyKind; args: string[]; algorithm: keyof typeof signatureAlgorithms }>([
  { kind: "P-256", args: ["-sha256"], algorithm: "ecdsa-with-SHA256" },
  { kind: "P-256", args: ["-sha512"], algorithm: "ecdsa-with-SHA512" },
  { kind: "P-384", args: ["-sha384"], algorithm: "ecdsa-with-SHA384" },
  { kind: "P-521", args: ["-sha512"], algorithm: "ecdsa-with-SHA512" },
  { kind: "RSA-2048", args: ["-sha256"], algorithm: "sha256WithRSAEncryption" },
  { kind: "RSA-2048", args: ["-sha384"], algorithm: "sha384WithRSAEncryption" },
  { kind: "RSA-3072", args: ["-sha512"], algorithm: "sha512WithRSAEncryption" },
  { kind: "Ed25519", args: [], algorithm: "Ed25519" },
])("KEY-01, KEY-10: openssl's request for $kind with $algorithm is read and verified", (row) => {
  const { publicKey, privateKey } = keyPair(row.kind);
  const keyFile = fileOf(privateKey.export({ format: "pem", type: "pkcs8" }));
  const pem = openssl(
    ...["req", "-new", "-key", keyFile, "-subj", "/O=Example, Inc./CN=a.example.com"],
    ...[
      "-addext",
      "subjectAltName=DNS:a.example.com,IP:192.0.2.1,IP:2001:db8::1,email:a@example.com",
    ],
    ...["-addext", "keyUsage=critical,digitalSignature", ...row.args],
  );
  const request = readCertificationRequest(pem);
  const key = verifyCertificationRequest(request);
  expect(key.equals(publicKey)).toBe(true);
  expect(request.publicKey.type).toBe(row.kind);
  expect(request.publicKey.spki).toEqual(spkiOf(publicKey));
  expect(nameText(request.subject)).toBe(String.raw`CN=a.example.com,O=Example\, Inc.`);
  expect(request.names).toEqual([
    { kind: "dns", value: "a.example.com" },
    { kind: "ip", value: "192.0.2.1", octets: Uint8Array.of(192, 0, 2, 1) },
    { kind: "ip", value: "2001:db8::1", octets: expect.any(Uint8Array) as Uint8Array },
    { kind: "email", value: "a@example.com" },
  ]);
  expect(request.otherExtensions).toEqual([
    { oid: extensionOids.keyUsage, critical: true, value: encodeKeyUsage(["digitalSignature"]) },
  ]);
  expect(request.signatureAlgorithm).toEqual(signatureAlgorithms[row.algorithm].identifier);
  expect(readCertificationRequest(request.der)).toEqual(request);
});

test("a request of @peculiar/x509 is read and verified", async () => {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const webKeys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const made = await peculiar.Pkcs10CertificateRequestGenerator.create({
    name: "CN=b.example.com",
    keys: webKeys,
    signingAlgorithm: algorithm,
    extensions: [
      new peculiar.SubjectAlternativeNameExtension([{ type: "dns", value: "b.example.com" }]),
    ],
  });
  const request = readCertificationRequest(new Uint8Array(made.rawData));
  verifyCertificationRequest(request);
  expect(request.names).toEqual([{ kind: "dns", value: "b.example.com" }]);
});

test.for([
  { name: "DER", input: good },
  { name: "PEM text", input: encodePem("CERTIFICATE REQUEST", good) },
  { name: "PEM octets", input: Buffer.from(encodePem("CERTIFICATE REQUEST", good)) },
  { name: "the label NEW CERTIFICATE REQUEST", input: encodePem("NEW CERTIFICATE REQUEST", good) },
  {
    name: "CRLF and white space around",
    input: `\r\n ${encodePem("CERTIFICATE REQUEST", good).replaceAll("\n", "\r\n")}\n\n`,
  },
])("accepted: $name", ({ input }) => {
  expect(readCertificationRequest(input).der).toEqual(good);
});

test.for([
  { name: "no attributes", attributes: [] },
  {
    name: "a challengePassword, which openssl asks for",
    attributes: [
      attribute(requestAttributeOids.challengePassword, element(Tag.utf8String, Buffer.from("x"))),
      extensionRequest(aName),
    ],
  },
])("accepted: $name", ({ attributes }) => {
  const request = readCertificationRequest(
    signedRequest(requestInfo({ spki, attributes }), keys.privateKey),
  );
  verifyCertificationRequest(request);
  expect(request.otherExtensions).toEqual([]);
});

test("names that nobody issues are handed on for the policy to refuse", () => {
  const value = sequence(
    element(contextTag(2, false), Buffer.from("a.example.com\0.evil.example")),
    element(
      contextTag(0, true),
      objectIdentifier("1.3.6.1.4.1.311.20.2.3"),
      element(contextTag(0, true), element(Tag.utf8String, Buffer.from("a@example.com"))),
    ),
    element(contextTag(4, true), encodeName([{ type: "CN", value: "a" }])),
    element(contextTag(8, false), Uint8Array.of(0x2a, 0x03)),
    element(contextTag(2, false)),
  );
  const request = readCertificationRequest(
    unsignedRequest(
      requestInfo({ spki, attributes: [extensionRequest(rawSubjectAltName(value))] }),
    ),
  );
  expect(request.names).toMatchObject([
    { kind: "dns", value: "a.example.com\0.evil.example" },
    { kind: "other" },
    { kind: "directory" },
    { kind: "registered" },
    { kind: "dns", value: "" },
  ]);
});

// What is refused

function refused(
  rows: readonly {
    name: string;
    input: () => Uint8Array | string;
    code: ErrorCode;
    rule?: string;
    says: RegExp;
  }[],
): void {
  test.for(rows)("$code $rule: $name", ({ input, code, rule, says }) => {
    const error = refusal(input());
    expect({ code: error.code, rule: error.members.rule }).toEqual({ code, rule });
    expect(error.message).toMatch(says);
  });
}

const pem = encodePem("CERTIFICATE REQUEST", good);

refused(
  [
    { name: "nothing", input: "", says: /no PEM block.*send one request/ },
    { name: "not PEM", input: "hello", says: /no PEM block/ },
    { name: "base64 without PEM", input: Buffer.from(good).toString("base64"), says: /no PEM/ },
    { name: "bytes that are neither", input: Uint8Array.of(0xff, 0xfe), says: /no PEM block/ },
    { name: "a certificate's label", input: encodePem("CERTIFICATE", good), says: /not labelled/ },
    { name: "text before the PEM block", input: `Subject: a\n${pem}`, says: /text before/ },
    { name: "text after the PEM block", input: `${pem}x`, says: /text after/ },
    { name: "two requests in one PEM text", input: pem + pem, says: /2 PEM blocks instead of one/ },
    { name: "a certificate after it", input: pem + encodePem("CERTIFICATE", good), says: /label/ },
    { name: "a block without an end", input: pem.slice(0, -20), says: /does not end with/ },
    { name: "two different labels", input: pem.replace("END C", "END NEW C"), says: /end with/ },
    { name: "PEM that is not base64", input: pem.replace("\nM", "\n!"), says: /base64/ },
    { name: "headers in the PEM block", input: pem.replace("\n", "\nA: b\n\n"), says: /base64/ },
    {
      name: "an empty PEM block",
      input: encodePem("CERTIFICATE REQUEST", new Uint8Array(0)),
      says: /base64/,
    },
    { name: "trailing bytes", input: concat(good, Uint8Array.of(0)), says: /unexpected bytes/ },
    { name: "two requests in DER", input: concat(good, good), says: /unexpected bytes/ },
    { name: "a cut off end", input: good.subarray(0, -1), says: /not valid DER.*make a new one/ },
    { name: "an indefinite length", input: Uint8Array.of(0x30, 0x80, 0, 0), says: /indefinite/ },
    { name: "too many bytes", input: sequence(new Uint8Array(70_000)), says: /too large/ },
    { name: "too much text", input: "-".repeat(140_000), says: /too large/ },
    { name: "an empty SEQUENCE", input: sequence(), says: /cut off/ },
  ].map((row) => ({ ...row, code: "csr-malformed" as const, input: () => row.input })),
);

const challengePassword = attribute(
  requestAttributeOids.challengePassword,
  element(Tag.printableString, Buffer.from("secret")),
);
const keyUsage = encodeExtension({
  oid: extensionOids.keyUsage,
  critical: true,
  value: encodeKeyUsage(["digitalSignature"]),
});

refused(
  [
    { name: "version 1", parts: { version: 1 }, says: /version 0/ },
    { name: "no attributes field", parts: { afterKey: new Uint8Array(0) }, says: /cut off/ },
    {
      name: "bytes after the attributes",
      parts: { afterKey: Uint8Array.of(0xa0, 0, 5, 0) },
      says: /unexpected/,
    },
    {
      name: "extensionRequest twice",
      attributes: [extensionRequest(aName), extensionRequest(aName)],
      says: /1\.9\.14 occurs twice/,
    },
    {
      name: "challengePassword twice",
      attributes: [challengePassword, challengePassword],
      says: /occurs twice/,
    },
    {
      name: "a challengePassword that is no text",
      attributes: [attribute(requestAttributeOids.challengePassword, integer(1))],
      says: /not a string/,
    },
    {
      name: "unstructuredName",
      attributes: [
        attribute(requestAttributeOids.unstructuredName, element(Tag.utf8String, Buffer.from("x"))),
      ],
      says: /1\.9\.2 is not supported; make the request without it/,
    },
    {
      name: "an unknown attribute",
      attributes: [attribute("1.3.6.1.4.1.311.13.2.3", element(Tag.ia5String, Buffer.from("10")))],
      says: /without it/,
    },
    {
      name: "attributes out of order",
      attributes: [extensionRequest(aName), challengePassword],
      says: /ascending order/,
    },
    {
      name: "extensionRequest without a value",
      attributes: [attribute(requestAttributeOids.extensionRequest)],
      says: /0 values/,
    },
    {
      name: "extensionRequest with two values",
      attributes: [
        attribute(requestAttributeOids.extensionRequest, sequence(aName), sequence(aName)),
      ],
      says: /2 values/,
    },
    {
      name: "an empty list of extensions",
      attributes: [extensionRequest()],
      says: /empty list of extensions/,
    },
    {
      name: "an extension twice",
      attributes: [extensionRequest(aName, keyUsage, aName)],
      says: /2\.5\.29\.17 occurs twice/,
    },
    {
      name: "critical FALSE encoded",
      attributes: [
        extensionRequest(
          sequence(
            objectIdentifier(extensionOids.keyUsage),
            Uint8Array.of(1, 1, 0),
            octetString(new Uint8Array(2)),
          ),
        ),
      ],
      says: /FALSE/,
    },
    {
      name: "critical TRUE as 01",
      attributes: [
        extensionRequest(
          sequence(
            objectIdentifier(extensionOids.keyUsage),
            Uint8Array.of(1, 1, 1),
            octetString(new Uint8Array(2)),
          ),
        ),
      ],
      says: /BOOLEAN/,
    },
    {
      name: "an empty subjectAltName",
      attributes: [extensionRequest(rawSubjectAltName(sequence()))],
      says: /empty GeneralNames/,
    },
    {
      name: "bytes after the subjectAltName",
      attributes: [
        extensionRequest(
          rawSubjectAltName(
            concat(sequence(element(contextTag(2, false), Uint8Array.of(0x61))), Uint8Array.of(0)),
          ),
        ),
      ],
      says: /unexpected/,
    },
    {
      name: "a dNSName that is not ASCII",
      attributes: [
        extensionRequest(
          rawSubjectAltName(sequence(element(contextTag(2, false), Buffer.from("bücher.example")))),
        ),
      ],
      says: /IA5String/,
    },
    {
      name: "an iPAddress of 5 octets",
      attributes: [
        extensionRequest(
          rawSubjectAltName(sequence(element(contextTag(7, false), new Uint8Array(5)))),
        ),
      ],
      says: /4 nor 16/,
    },
    {
      name: "a GeneralName with tag 9",
      attributes: [
        extensionRequest(
          rawSubjectAltName(sequence(element(contextTag(9, false), new Uint8Array(5)))),
        ),
      ],
      says: /not a GeneralName/,
    },
    {
      name: "a subject with an attribute that is no string",
      parts: {
        subject: sequence(element(Tag.set, sequence(objectIdentifier("2.5.4.3"), integer(1)))),
      },
      says: /not a string/,
    },
    {
      name: "a subject that is not UTF-8",
      parts: {
        subject: sequence(
          element(
            Tag.set,
            sequence(objectIdentifier("2.5.4.3"), element(Tag.utf8String, Uint8Array.of(0xff))),
          ),
        ),
      },
      says: /string type/,
    },
  ].map(({ name, parts, attributes, says }) => ({
    name,
    says,
    code: "csr-malformed" as const,
    input: () =>
      signedRequest(
        requestInfo({ spki, ...parts, ...(attributes && { attributes }) }),
        keys.privateKey,
      ),
  })),
);

test("csr-malformed: a length that is not minimal", () => {
  const { length } = good.subarray(3);
  expect(good.subarray(0, 3)).toEqual(Uint8Array.of(0x30, 0x81, length));
  const padded = concat(Uint8Array.of(0x30, 0x82, 0, length), good.subarray(3));
  expect(refusal(padded)).toMatchObject({
    code: "csr-malformed",
    message: expect.stringMatching(/length is not minimal/) as string,
  });
});

// Signatures

const info = requestInfo({ spki });

refused([
  {
    name: "another key's signature",
    input: () => signedRequest(info, keyPair("P-256").privateKey),
    code: "csr-signature-invalid",
    rule: "KEY-10",
    says: /make the request anew with the private key/,
  },
  {
    name: "a signature over something else",
    input: () =>
      assembleSigned(
        info,
        signatureAlgorithms["ecdsa-with-SHA256"].identifier,
        sign("sha256", spki, keys.privateKey),
      ),
    code: "csr-signature-invalid",
    rule: "KEY-10",
    says: /does not fit/,
  },
  {
    name: "another hash than the algorithm says",
    input: () =>
      assembleSigned(
        info,
        signatureAlgorithms["ecdsa-with-SHA384"].identifier,
        sign("sha256", info, keys.privateKey),
      ),
    code: "csr-signature-invalid",
    rule: "KEY-10",
    says: /does not fit/,
  },
  {
    name: "an RSA algorithm with an EC key and its good signature",
    input: () =>
      assembleSigned(
        info,
        signatureAlgorithms.sha256WithRSAEncryption.identifier,
        sign("sha256", info, keys.privateKey),
      ),
    code: "csr-signature-invalid",
    rule: "KEY-10",
    says: /does not fit/,
  },
  {
    name: "a signature that is no DER",
    input: () => unsignedRequest(info),
    code: "csr-signature-invalid",
    rule: "KEY-10",
    says: /does not fit/,
  },
  {
    name: "an empty signature",
    input: () =>
      assembleSigned(info, signatureAlgorithms["ecdsa-with-SHA256"].identifier, new Uint8Array(0)),
    code: "csr-signature-invalid",
    rule: "KEY-10",
    says: /does not fit/,
  },
  {
    name: "bytes after the ECDSA signature",
    input: () =>
      assembleSigned(
        info,
        signatureAlgorithms["ecdsa-with-SHA256"].identifier,
        concat(sign("sha256", info, keys.privateKey), Uint8Array.of(0)),
      ),
    code: "csr-signature-invalid",
    rule: "KEY-10",
    says: /does not fit/,
  },
  {
    name: "an unused bit in the signature's BIT STRING",
    input: () =>
      sequence(
        info,
        signatureAlgorithms["ecdsa-with-SHA256"].identifier,
        bitString(Uint8Array.of(0x30, 0), 1),
      ),
    code: "csr-malformed",
    says: /whole octets/,
  },
]);

const refusedAlgorithms: readonly (keyof typeof algorithmOids)[] = [
  "md5WithRSAEncryption",
  "sha1WithRSAEncryption",
  "sha224WithRSAEncryption",
  "id-RSASSA-PSS",
  "ecdsa-with-SHA1",
  "ecdsa-with-SHA224",
  "id-dsa-with-sha256",
  "id-Ed448",
];

refused(
  refusedAlgorithms.map((name) => ({
    name,
    input: () => unsignedRequest(info, sequence(objectIdentifier(algorithmOids[name]))),
    code: "csr-algorithm-refused",
    rule: "KEY-10",
    says: new RegExp(`signed with ${name}.*sign it with ECDSA or RSA`),
  })),
);

refused([
  {
    name: "ecdsa-with-SHA256 with NULL parameters",
    input: () =>
      unsignedRequest(
        info,
        sequence(objectIdentifier(algorithmOids["ecdsa-with-SHA256"]), Uint8Array.of(5, 0)),
      ),
    code: "csr-algorithm-refused",
    rule: "KEY-10",
    says: /in this form/,
  },
  {
    name: "sha256WithRSAEncryption without parameters",
    input: () =>
      unsignedRequest(info, sequence(objectIdentifier(algorithmOids.sha256WithRSAEncryption))),
    code: "csr-algorithm-refused",
    rule: "KEY-10",
    says: /in this form/,
  },
  {
    name: "openssl's own SHA-1 request",
    input: () => {
      const keyFile = fileOf(
        keyPair("RSA-2048").privateKey.export({ format: "pem", type: "pkcs8" }),
      );
      return openssl("req", "-new", "-key", keyFile, "-subj", "/CN=a", "-sha1");
    },
    code: "csr-algorithm-refused",
    rule: "KEY-10",
    says: /sha1WithRSAEncryption/,
  },
]);

// Keys

function ecKey(...options: readonly string[]): Uint8Array {
  const args = options.flatMap((option) => ["-pkeyopt", option]);
  const key = fileOf(openssl("genpkey", "-algorithm", "EC", ...args));
  return opensslBytes("pkey", "-in", key, "-pubout", "-outform", "DER");
}

function spkiWith(algorithm: string, bits: Uint8Array): Uint8Array {
  return sequence(Uint8Array.from(Buffer.from(algorithm, "hex")), bitString(bits));
}

const p256 = "301306072a8648ce3d020106082a8648ce3d030107";
const rsa = "300d06092a864886f70d0101010500";

function rsaSpki(modulus: bigint, exponent: bigint): Uint8Array {
  return spkiWith(rsa, sequence(integer(modulus), integer(exponent)));
}

/** An odd number of so many bits, which nobody needs to have the factors of. */
function odd(bits: bigint): bigint {
  return (1n << (bits - 1n)) | 0x1234567n;
}

const point = spki.subarray(-65);
const compressed = Uint8Array.from(
  ECDH.convertKey(Buffer.from(point), "prime256v1", undefined, undefined, "compressed") as Buffer,
);
const offCurve = Uint8Array.from(point);
offCurve[64]! ^= 1;
// The point with x = 0, whose coordinate still fits 32 octets when the field prime is added to it.
const atZero = Uint8Array.from(
  Buffer.from(
    `04${"0".repeat(64)}66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4`,
    "hex",
  ),
);
const prime = 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n;
const outOfRange = concat(Uint8Array.of(4), integerOctets32(prime), atZero.subarray(33));

test("KEY-09: the point with x = 0 is a point of P-256", () => {
  const request = unsignedRequest(requestInfo({ spki: spkiWith(p256, atZero) }));
  expect(readCertificationRequest(request).publicKey.bits).toEqual(atZero);
});

function integerOctets32(value: bigint): Uint8Array {
  return Uint8Array.from(Buffer.from(value.toString(16).padStart(64, "0"), "hex"));
}

refused(
  [
    {
      name: "RSA 1024",
      rule: "KEY-02",
      key: () => rsaSpki(odd(1024n), 65537n),
      says: /1024 bits; make one of at least 2048/,
    },
    {
      name: "RSA 2047",
      rule: "KEY-02",
      key: () => rsaSpki(odd(2047n), 65537n),
      says: /at least 2048/,
    },
    {
      name: "RSA 2052",
      rule: "KEY-02",
      key: () => rsaSpki(odd(2052n), 65537n),
      says: /multiple of 8/,
    },
    {
      name: "RSA 4104",
      rule: "KEY-02",
      key: () => rsaSpki(odd(4104n), 65537n),
      says: /at most 4096/,
    },
    {
      name: "RSA 8192",
      rule: "KEY-02",
      key: () => rsaSpki(odd(8192n), 65537n),
      says: /at most 4096/,
    },
    { name: "RSA exponent 1", rule: "KEY-03", key: () => rsaSpki(odd(2048n), 1n), says: /65537/ },
    { name: "RSA exponent 3", rule: "KEY-03", key: () => rsaSpki(odd(2048n), 3n), says: /65537/ },
    {
      name: "RSA exponent 65536",
      rule: "KEY-03",
      key: () => rsaSpki(odd(2048n), 65536n),
      says: /65537/,
    },
    {
      name: "RSA exponent 2^32 + 15",
      rule: "KEY-03",
      key: () => rsaSpki(odd(2048n), 2n ** 32n + 15n),
      says: /65537/,
    },
    {
      name: "an even RSA modulus",
      rule: "KEY-04",
      key: () => rsaSpki(odd(2048n) - 1n, 65537n),
      says: /even/,
    },
    {
      name: "RSA without NULL parameters",
      rule: "KEY-01",
      key: () =>
        spkiWith("300b06092a864886f70d010101", sequence(integer(odd(2048n)), integer(65537))),
      says: /NULL/,
    },
    {
      name: "id-RSASSA-PSS",
      rule: "KEY-01",
      key: () => spkiOf(generateKeyPairSync("rsa-pss", { modulusLength: 2048 }).publicKey),
      says: /rsaEncryption, not id-RSASSA-PSS/,
    },
    {
      name: "P-192",
      rule: "KEY-01",
      key: () => ecKey("ec_paramgen_curve:P-192"),
      says: /P-192 is not accepted; use P-256/,
    },
    { name: "P-224", rule: "KEY-01", key: () => ecKey("ec_paramgen_curve:P-224"), says: /P-224/ },
    {
      name: "secp256k1",
      rule: "KEY-01",
      key: () => ecKey("ec_paramgen_curve:secp256k1"),
      says: /secp256k1/,
    },
    {
      name: "brainpoolP256r1",
      rule: "KEY-01",
      key: () => ecKey("ec_paramgen_curve:brainpoolP256r1"),
      says: /brainpoolP256r1/,
    },
    {
      name: "a curve without a name here",
      rule: "KEY-01",
      key: () => ecKey("ec_paramgen_curve:brainpoolP320r1"),
      says: /1\.3\.36\.3\.3\.2\.8\.1\.1\.9/,
    },
    {
      name: "explicit parameters",
      rule: "KEY-09",
      key: () => ecKey("ec_paramgen_curve:P-256", "ec_param_enc:explicit"),
      says: /named_curve/,
    },
    {
      name: "a compressed point",
      rule: "KEY-09",
      key: () => spkiWith(p256, compressed),
      says: /compressed/,
    },
    {
      name: "a hybrid point",
      rule: "KEY-09",
      key: () => spkiWith(p256, concat(Uint8Array.of(6 + (point[64]! & 1)), point.subarray(1))),
      says: /uncompressed/,
    },
    {
      name: "a point off the curve",
      rule: "KEY-09",
      key: () => spkiWith(p256, offCurve),
      says: /not a point of P-256/,
    },
    {
      name: "a coordinate out of range",
      rule: "KEY-09",
      key: () => spkiWith(p256, outOfRange),
      says: /not a point of P-256/,
    },
    {
      name: "a P-256 point as P-384",
      rule: "KEY-09",
      key: () => spkiWith("301006072a8648ce3d020106052b81040022", point),
      says: /point of P-384/,
    },
    {
      name: "the point at infinity",
      rule: "KEY-09",
      key: () => spkiWith(p256, Uint8Array.of(0)),
      says: /infinity/,
    },
    {
      name: "the point (0, 0)",
      rule: "KEY-09",
      key: () => spkiWith(p256, concat(Uint8Array.of(4), new Uint8Array(64))),
      says: /not a point/,
    },
    {
      name: "no point at all",
      rule: "KEY-09",
      key: () => spkiWith(p256, new Uint8Array(0)),
      says: /uncompressed/,
    },
    {
      name: "Ed448",
      rule: "KEY-01",
      key: () => spkiOf(generateKeyPairSync("ed448").publicKey),
      says: /id-Ed448/,
    },
    {
      name: "X25519",
      rule: "KEY-01",
      key: () => spkiOf(generateKeyPairSync("x25519").publicKey),
      says: /id-X25519/,
    },
    {
      name: "DSA",
      rule: "KEY-01",
      key: () =>
        spkiOf(generateKeyPairSync("dsa", { modulusLength: 2048, divisorLength: 256 }).publicKey),
      says: /id-dsa/,
    },
    {
      name: "an unknown algorithm",
      rule: "KEY-01",
      key: () => spkiWith("300406022a03", new Uint8Array(4)),
      says: /1\.2\.3/,
    },
    {
      name: "Ed25519 with 31 octets",
      rule: "KEY-09",
      key: () => spkiWith("300506032b6570", new Uint8Array(31)),
      says: /32 octets/,
    },
    {
      name: "the Ed25519 identity",
      rule: "KEY-09",
      key: () => spkiWith("300506032b6570", Uint8Array.of(1, ...new Uint8Array(31))),
      says: /small order/,
    },
    {
      name: "an Ed25519 coordinate of 2^255 - 18",
      rule: "KEY-09",
      key: () =>
        spkiWith("300506032b6570", Uint8Array.of(0xee, ...new Uint8Array(30).fill(0xff), 0x7f)),
      says: /out of range/,
    },
  ].map(({ key, ...row }) => ({
    ...row,
    code: "key-refused" as const,
    input: () => unsignedRequest(requestInfo({ spki: key() })),
  })),
);

refused(
  [
    {
      name: "a negative RSA modulus",
      key: () =>
        spkiWith(
          rsa,
          sequence(element(Tag.integer, new Uint8Array(256).fill(0xff, 0, 1)), integer(65537)),
        ),
      says: /negative/,
    },
    {
      name: "an RSA modulus with a superfluous zero octet",
      key: () =>
        spkiWith(
          rsa,
          sequence(element(Tag.integer, new Uint8Array(257).fill(1, 1)), integer(65537)),
        ),
      says: /not minimal/,
    },
    { name: "an RSA modulus of zero", key: () => rsaSpki(0n, 65537n), says: /zero/ },
    {
      name: "bytes after the RSA numbers",
      key: () => spkiWith(rsa, sequence(integer(odd(2048n)), integer(65537), integer(1))),
      says: /unexpected/,
    },
    {
      name: "unused bits in the key",
      key: () =>
        sequence(
          Uint8Array.from(Buffer.from(p256, "hex")),
          bitString(Uint8Array.of(...point.subarray(0, 64), 0), 3),
        ),
      says: /whole octets/,
    },
  ].map(({ key, ...row }) => ({
    ...row,
    code: "csr-malformed" as const,
    input: () => unsignedRequest(requestInfo({ spki: key() })),
  })),
);

// Damage

const damaged = [
  { name: "P-256", der: good },
  {
    name: "RSA-2048 with a name and extensions",
    der: (() => {
      const rsaKeys = keyPair("RSA-2048");
      const parts = {
        spki: spkiOf(rsaKeys.publicKey),
        subject: encodeName([
          { type: "C", value: "DE" },
          { type: "CN", value: "ä" },
        ]),
        attributes: [challengePassword, extensionRequest(aName, keyUsage)],
      };
      return signedRequest(requestInfo(parts), rsaKeys.privateKey, "sha256WithRSAEncryption");
    })(),
  },
];

test.for(damaged)("every truncation of a request is csr-malformed: $name", ({ der }) => {
  for (let length = 0; length < der.length; length++) {
    expect(refusal(der.subarray(0, length)).code).toBe("csr-malformed");
  }
});

test.for(damaged)(
  "no request with a changed octet is accepted, and none breaks the reader: $name",
  ({ der }) => {
    for (let at = 0; at < der.length; at++) {
      for (const mask of [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff]) {
        const changed = Uint8Array.from(der);
        changed[at]! ^= mask;
        expect(refusal(changed).code, `octet ${at}, mask ${mask}`).toMatch(/^(?:csr-|key-)/);
      }
    }
  },
);

test("damaged PEM is refused, or read as it was", () => {
  for (let at = 0; at < pem.length; at++) {
    for (const character of ["", "\n", "A", "-", "=", "\0", "ÿ"]) {
      const changed = pem.slice(0, at) + character + pem.slice(at + 1);
      try {
        verifyCertificationRequest(readCertificationRequest(changed));
      } catch (error) {
        expect(error).toBeInstanceOf(CountersignError);
        continue;
      }
      expect(readCertificationRequest(changed).der).toEqual(good);
    }
  }
});
