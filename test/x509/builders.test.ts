import { expect, test } from "vitest";
import { buildTbsCertList } from "../../src/x509/certificate-list.ts";
import { buildTbsCertificate, certificateTemplate } from "../../src/x509/certificate-template.ts";
import { emptyName, encodeName } from "../../src/x509/name.ts";
import { lintCertificate, lintIssuer } from "../../src/x509/lint/certificate.ts";
import { lintCertificateList } from "../../src/x509/lint/certificate-list.ts";
import { extKeyUsageOids } from "../../src/x509/oid.ts";
import {
  intermediateAuthority,
  keyPair,
  newSerialNumber,
  publicKeyInfo,
  rootAuthority,
  type KeyKind,
} from "./authority.ts";

// The linter shares no parser with the builders, so that it would see their mistakes.
test.for<KeyKind>(["P-256", "P-384", "P-521", "RSA-2048", "RSA-3072", "Ed25519"])(
  "4A, 4B: the linter finds nothing in what the builders make with %s",
  (kind) => {
    const now = new Date("2026-11-21T12:00:00Z");
    const root = rootAuthority(kind);
    const issuer = intermediateAuthority(root, kind);
    expect(
      lintCertificate(root.certificate, { kind: "root", now: new Date("2026-01-01T12:00:00Z") }),
    ).toEqual([]);
    expect(
      lintCertificate(issuer.certificate, {
        kind: "intermediate",
        issuer: lintIssuer(root.certificate, []),
        now: new Date("2026-02-01T12:00:00Z"),
      }),
    ).toEqual([]);

    const fields = {
      issuerCertificate: issuer.certificate,
      keyUsage: ["digitalSignature"],
      crlUrl: "http://pki.example.com/crl/issuer.crl",
      caIssuersUrl: "http://pki.example.com/ca/issuer.cer",
    } as const;
    const leaf = {
      notBefore: now,
      notAfter: new Date("2027-02-19T11:59:59Z"),
      publicKey: publicKeyInfo(keyPair(kind).publicKey),
    };
    const linted = lintIssuer(issuer.certificate, [root.certificate]);
    const server = certificateTemplate({
      ...fields,
      extKeyUsage: [extKeyUsageOids.serverAuth],
      subjectKeyIdentifier: false,
    });
    const serverCertificate = buildTbsCertificate(server, {
      ...leaf,
      serialNumber: newSerialNumber(),
      subject: emptyName,
      names: [
        { kind: "dns", value: "a.example.com" },
        { kind: "dns", value: "*.b.example.com" },
        { kind: "ip", value: "192.0.2.1" },
        { kind: "ip", value: "2001:db8::1" },
      ],
    });
    const context = { issuer: linted, now };
    expect(
      lintCertificate(issuer.signed(serverCertificate), { ...context, kind: "server" }),
    ).toEqual([]);

    const client = certificateTemplate({
      ...fields,
      extKeyUsage: [extKeyUsageOids.clientAuth],
      subjectKeyIdentifier: true,
    });
    const clientCertificate = buildTbsCertificate(client, {
      ...leaf,
      serialNumber: newSerialNumber(),
      subject: encodeName([{ type: "CN", value: "deploy" }]),
      names: [{ kind: "uri", value: "spiffe://example.com/deploy" }],
    });
    expect(
      lintCertificate(issuer.signed(clientCertificate), { ...context, kind: "client" }),
    ).toEqual([]);

    for (const entries of [
      [],
      [
        { serialNumber: newSerialNumber(), revocationDate: now, reason: "unspecified" },
        {
          serialNumber: newSerialNumber(),
          revocationDate: now,
          reason: "keyCompromise",
          invalidityDate: new Date("2026-11-01T00:00:00Z"),
        },
      ] as const,
    ]) {
      const list = buildTbsCertList({
        issuerCertificate: issuer.certificate,
        thisUpdate: now,
        nextUpdate: new Date("2026-11-28T12:00:00Z"),
        number: 3n,
        entries,
      });
      expect(lintCertificateList(issuer.signed(list), context)).toEqual([]);
    }
  },
);
