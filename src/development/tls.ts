/** The TLS key and certificate of a development home. */

import { webcrypto } from "node:crypto";
import * as peculiar from "../x509/peculiar.ts";
import { encodePem } from "../x509/pem.ts";
import { write } from "./write.ts";

const LIFETIME_MILLISECONDS = 2 * 365 * 86_400_000;

/** The service's own TLS key and certificate, self-signed: DESIGN, "The API". */
export async function makeTlsCertificate(certificateFile: string, keyFile: string): Promise<void> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const notBefore = new Date(Date.now() - 60_000);
  const certificate = await peculiar.X509CertificateGenerator.createSelfSigned({
    name: "CN=Countersign development API",
    notBefore,
    notAfter: new Date(notBefore.getTime() + LIFETIME_MILLISECONDS),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new peculiar.BasicConstraintsExtension(false, undefined, true),
      new peculiar.KeyUsagesExtension(peculiar.KeyUsageFlags.digitalSignature, true),
      new peculiar.ExtendedKeyUsageExtension([peculiar.ExtendedKeyUsage.serverAuth]),
      new peculiar.SubjectAlternativeNameExtension([
        { type: "dns", value: "localhost" },
        { type: "ip", value: "127.0.0.1" },
        { type: "ip", value: "::1" },
      ]),
    ],
  });
  const pkcs8 = new Uint8Array(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey));
  write(keyFile, encodePem("PRIVATE KEY", pkcs8));
  write(certificateFile, `${certificate.toString("pem")}\n`);
}
