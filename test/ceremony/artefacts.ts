/** Bytes that a sealed root is to sign. */

import { generateKeyPairSync } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  buildRootTbsCertificate,
  buildTbsCertificate,
  certificateTemplate,
} from "../../src/x509/certificate-template.ts";
import { buildTbsCertList } from "../../src/x509/certificate-list.ts";
import { contextTag, element, integer, sequence } from "../../src/x509/der.ts";
import { encodeName } from "../../src/x509/name.ts";
import { encodePem } from "../../src/x509/pem.ts";
import { parsePublicKey } from "../../src/x509/public-key.ts";
import { newSerialNumber, publicKeyInfo } from "../x509/authority.ts";
import type { CeremonyHome, SealedHome } from "./home.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import { signatureAlgorithmFor } from "../../src/x509/signature-algorithm.ts";

const DAY = 86_400_000;

export const rootName = encodeName([{ type: "CN", value: "Test Sealed Root" }]);

/** The public key that a share set is of, DER. */
export async function publicKeyOf(home: CeremonyHome, shareSet: string): Promise<Uint8Array> {
  const { read } = await home.shareSetOf(shareSet);
  return Buffer.from(read.publicKey, "base64");
}

function wholeSecond(days = 0): Date {
  return new Date(Math.floor(Date.now() / 1000) * 1000 + days * DAY);
}

export function rootTbs(publicKey: Uint8Array): Uint8Array {
  return buildRootTbsCertificate({
    serialNumber: newSerialNumber(),
    notBefore: wholeSecond(),
    notAfter: new Date(wholeSecond(20 * 365).getTime() - 1000),
    subject: rootName,
    publicKey: parsePublicKey(publicKey),
  });
}

/** As the root will look, with a signature that nobody has made: enough for what reads names and keys from it. */
export function unsignedRoot(tbs: Uint8Array, publicKey: Uint8Array): Uint8Array {
  const { identifier } = signatureAlgorithmFor(parsePublicKey(publicKey).type);
  return assembleSigned(tbs, identifier, new Uint8Array(70));
}

export function intermediateTbs(root: Uint8Array): Uint8Array {
  const template = certificateTemplate({
    issuerCertificate: root,
    keyUsage: ["keyCertSign", "cRLSign"],
    extKeyUsage: [],
    basicConstraints: { cA: true, pathLen: 0 },
    subjectKeyIdentifier: true,
  });
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return buildTbsCertificate(template, {
    serialNumber: newSerialNumber(),
    notBefore: wholeSecond(),
    notAfter: new Date(wholeSecond(5 * 365).getTime() - 1000),
    subject: encodeName([{ type: "CN", value: "Test Issuing G2" }]),
    publicKey: publicKeyInfo(publicKey),
    names: [],
  });
}

/** A root that nobody here has: what is issued under it is no child of another. */
export function strangersRoot(): Uint8Array {
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const spki = publicKeyInfo(publicKey).spki;
  return unsignedRoot(rootTbs(spki), spki);
}

export function rootCrlTbs(root: Uint8Array, number: bigint): Uint8Array {
  return buildTbsCertList({
    issuerCertificate: root,
    thisUpdate: wholeSecond(),
    nextUpdate: wholeSecond(180),
    number,
    entries: [],
  });
}

/** A CertificationRequestInfo of the sealed key. */
export function requestInfo(publicKey: Uint8Array): Uint8Array {
  return sequence(integer(0), rootName, publicKey, element(contextTag(0, true)));
}

/** Has the software root certify the sealed key, and puts the certificate beside the configuration. */
export async function certifySealed(home: SealedHome, issuer = "issuing"): Promise<Uint8Array> {
  const { root, directory } = home.home;
  const template = certificateTemplate({
    issuerCertificate: root.certificate,
    keyUsage: ["keyCertSign", "cRLSign"],
    extKeyUsage: [],
    basicConstraints: { cA: true, pathLen: 0 },
    subjectKeyIdentifier: true,
  });
  const certificate = root.signed(
    buildTbsCertificate(template, {
      serialNumber: newSerialNumber(),
      notBefore: wholeSecond(-30),
      notAfter: wholeSecond(365),
      subject: encodeName([{ type: "CN", value: "Test Issuing" }]),
      publicKey: parsePublicKey(await publicKeyOf(home, home.shareSet)),
      names: [],
    }),
  );
  writeFileSync(join(directory, `${issuer}-sealed.pem`), encodePem("CERTIFICATE", certificate));
  return certificate;
}
