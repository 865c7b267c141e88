/** Signing a root or an intermediate whose exact bytes the keeper's configuration grants. */

import { hash } from "node:crypto";
import { digestOf } from "../audit/digest.ts";
import { encodeEntry, type Actor } from "../audit/entry.ts";
import { refusal, type GateDecision } from "../gate/gate.ts";
import { nameText } from "../x509/name.ts";
import { parseCertificate, parseTbsCertificate } from "../x509/certificate.ts";
import { parsePublicKey, spkiDigest } from "../x509/public-key.ts";
import { signatureAlgorithmFrom } from "../x509/signature-algorithm.ts";
import { assembleSigned } from "../x509/signed.ts";
import type { Journal } from "./journal.ts";
import type { Signing } from "./keeper.ts";

export interface CaCertificateCommand {
  readonly kind: "root" | "intermediate";
  /** Id of the issuer whose key signs. */
  readonly issuer: string;
  readonly keyId: string;
  /** TBSCertificate, DER. */
  readonly tbs: Uint8Array;
  /** What the gate says of exactly these bytes. */
  readonly decision: GateDecision;
  readonly actor: Actor;
}

/**
 * Records, signs and records again, as every signature: intent, signature, result.
 *
 * @returns The certificate, DER.
 */
export async function signCaCertificate(
  parts: { readonly journal: Journal; readonly keeper: Signing; readonly now: () => Date },
  command: CaCertificateCommand,
): Promise<Uint8Array> {
  const { journal, keeper, now } = parts;
  const { tbs, actor } = command;
  const { rule, warnings } = refusal(command.decision);
  const parsed = parseTbsCertificate(tbs);
  const algorithm = signatureAlgorithmFrom(parsed.signatureAlgorithm);
  if (algorithm === undefined) throw new TypeError("the TBS names an unknown signature algorithm");
  const serialNumber = Buffer.from(parsed.serialNumber).toString("hex");
  const tbsSha256 = hash("sha256", tbs, "buffer");
  const subject = { issuer: command.issuer, keyId: command.keyId, serialNumber };
  const intent = encodeEntry({
    type: "sign.intent",
    at: now(),
    actor,
    subject,
    data: {
      operation: "certificate",
      tbs: `sha256:${tbsSha256.toString("hex")}`,
      profile: command.kind,
      rule,
      ...(warnings.length === 0 ? {} : { warnings: [...warnings] }),
    },
  });
  const intentIndex = await journal.append({
    kind: "certificate-intent",
    leaf: intent,
    row: {
      issuer: command.issuer,
      keyId: command.keyId,
      serialNumber,
      kind: command.kind,
      profile: command.kind,
      requester: null,
      subject: nameText(parsed.subject),
      names: [],
      notBefore: parsed.notBefore,
      notAfter: parsed.notAfter,
      spkiSha256: Buffer.from(spkiDigest(parsed.subjectPublicKeyInfo), "hex"),
      tbsSha256,
      csr: null,
      createdAt: now(),
    },
  });
  const signature = await keeper.sign({
    keyId: command.keyId,
    operation: "certificate",
    intentIndex,
    intent,
    tbs,
  });
  const certificate = assembleSigned(tbs, algorithm.identifier, signature);
  await journal.append({
    kind: "certificate-done",
    leaf: encodeEntry({
      type: "sign.done",
      at: now(),
      actor,
      subject,
      data: { intent: intentIndex, certificate: digestOf(certificate) },
    }),
    intentIndex,
    certificate,
  });
  // The strict reader takes the result and its key, or nothing is handed out.
  parsePublicKey(parseCertificate(certificate).tbs.subjectPublicKeyInfo);
  return certificate;
}
