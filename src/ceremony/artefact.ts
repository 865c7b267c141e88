/** What a ceremony of kind `sign` has signed: bytes that people have approved, read as what they are. */

import { digestOf } from "../audit/digest.ts";
import { CountersignError } from "../errors.ts";
import { parseTbsCertList, type TbsCertList } from "../x509/certificate-list.ts";
import { extensionOf, parseTbsCertificate, type TbsCertificate } from "../x509/certificate.ts";
import {
  parseCertificationRequestInfo,
  type CertificationRequestInfo,
} from "../x509/certification-request.ts";
import { DerError } from "../x509/der.ts";
import { parseBasicConstraints } from "../x509/extension.ts";
import { extensionOids } from "../x509/oid.ts";
import { spkiDigest } from "../x509/public-key.ts";

interface Bytes {
  readonly tbs: Uint8Array;
  /** `sha256:` and 64 hex digits. */
  readonly digest: string;
}

export type Artefact = Bytes &
  (
    | { readonly kind: "root" | "intermediate"; readonly certificate: TbsCertificate }
    | { readonly kind: "crl"; readonly list: TbsCertList }
    | { readonly kind: "request"; readonly info: CertificationRequestInfo }
  );

/**
 * Reads what is to be signed by a key.
 *
 * @param keyId - of the key, hex: a certificate of that very key is a root.
 * @throws CountersignError `ceremony-refused` for everything but a CA's TBSCertificate, a TBSCertList and a
 *   CertificationRequestInfo of this key.
 */
export function readArtefact(tbs: Uint8Array, keyId: string): Artefact {
  const bytes = { tbs, digest: digestOf(tbs) };
  const certificate = reading(() => parseTbsCertificate(tbs));
  if (!(certificate instanceof Error)) {
    const constraints = extensionOf(certificate, extensionOids.basicConstraints);
    const cA = reading(
      () => constraints !== undefined && parseBasicConstraints(constraints.value).cA,
    );
    if (cA !== true) {
      throw refused(
        bytes.digest,
        "it is a certificate of no CA: those are issued under a grant or in a window, by the policy",
      );
    }
    const own = spkiDigest(certificate.subjectPublicKeyInfo) === keyId;
    return { ...bytes, kind: own ? "root" : "intermediate", certificate };
  }
  const list = reading(() => parseTbsCertList(tbs));
  if (!(list instanceof Error)) return { ...bytes, kind: "crl", list };
  const info = reading(() => parseCertificationRequestInfo(tbs));
  if (!(info instanceof Error)) {
    if (spkiDigest(info.subjectPublicKeyInfo) !== keyId) {
      throw refused(
        bytes.digest,
        "it is a request for another key than the one that is to sign it",
      );
    }
    return { ...bytes, kind: "request", info };
  }
  throw refused(
    bytes.digest,
    `it is no TBSCertificate (${certificate.message}), no TBSCertList (${list.message}) and no ` +
      `CertificationRequestInfo (${info.message})`,
  );
}

function reading<Value>(read: () => Value): Value | Error {
  try {
    return read();
  } catch (error) {
    if (error instanceof DerError || error instanceof CountersignError) return error;
    throw error;
  }
}

function refused(digest: string, detail: string): CountersignError {
  return new CountersignError("ceremony-refused", `artefact ${digest} cannot be signed: ${detail}`);
}
