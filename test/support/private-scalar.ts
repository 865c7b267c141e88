/** The secret octets of a private key. */

import { createPrivateKey } from "node:crypto";

/** Of a P-256 or P-384 key: half of its PKCS#8 is public. @param pkcs8 - DER. */
export function privateScalar(pkcs8: Uint8Array): Buffer {
  const key = createPrivateKey({ key: Buffer.from(pkcs8), format: "der", type: "pkcs8" });
  return Buffer.from((key.export({ format: "jwk" }) as { d: string }).d, "base64url");
}
