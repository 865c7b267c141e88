import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { expect, test } from "vitest";
import { buildCertificationRequest } from "../../src/x509/certification-request-builder.ts";
import {
  readCertificationRequest,
  verifyCertificationRequest,
} from "../../src/x509/certification-request.ts";
import { emptyName, nameText } from "../../src/x509/name.ts";
import { encodePem } from "../../src/x509/pem.ts";
import { fileOf, openssl } from "./openssl.ts";

const keys: readonly { type: string; privateKey: KeyObject }[] = [
  ...["P-256", "P-384", "P-521"].map((namedCurve) => ({
    type: namedCurve,
    ...generateKeyPairSync("ec", { namedCurve }),
  })),
  { type: "RSA-2048", ...generateKeyPairSync("rsa", { modulusLength: 2048 }) },
  { type: "Ed25519", ...generateKeyPairSync("ed25519") },
];

test.for(keys)(
  "RFC 2986 §4: openssl and the reader take a request for $type",
  ({ type, privateKey }) => {
    const der = buildCertificationRequest({
      privateKey,
      commonName: "web.example.test",
      names: [
        { kind: "dns", value: "web.example.test" },
        { kind: "ip", value: "2001:db8::7" },
        { kind: "uri", value: "spiffe://example.test/web" },
      ],
    });
    const request = readCertificationRequest(der);
    expect(request.publicKey.type).toBe(type);
    expect(nameText(request.subject)).toBe("CN=web.example.test");
    expect(request.names.map((name) => ("value" in name ? name.value : name.kind))).toEqual([
      "web.example.test",
      "2001:db8::7",
      "spiffe://example.test/web",
    ]);
    verifyCertificationRequest(request);
    const file = fileOf(encodePem("CERTIFICATE REQUEST", der));
    const text = openssl("req", "-in", file, "-verify", "-noout", "-text");
    expect(text).toContain("DNS:web.example.test, IP Address:2001:DB8:0:0:0:0:0:7");
  },
);

test("without names and common name there is neither attribute nor subject", () => {
  const { privateKey } = generateKeyPairSync("ed25519");
  const request = readCertificationRequest(buildCertificationRequest({ privateKey, names: [] }));
  expect(request.names).toEqual([]);
  expect(request.subject).toEqual(emptyName);
});

test("DN-06: a common name of more than 64 characters is refused", () => {
  const { privateKey } = generateKeyPairSync("ed25519");
  expect(() =>
    buildCertificationRequest({ privateKey, names: [], commonName: "a".repeat(65) }),
  ).toThrow(expect.objectContaining({ code: "name-malformed" }));
});
