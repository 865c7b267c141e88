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
import type { Journal, JournalItem } from "./journal.ts";
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

/** The intent to sign a CA certificate, as the journal takes it. */
export function caCertificateIntent(
  { tbs, actor, kind, issuer, keyId, decision }: CaCertificateCommand,
  at: Date,
): Extract<JournalItem, { kind: "certificate-intent" }> {
  const { rule, warnings } = refusal(decision);
  const parsed = parseTbsCertificate(tbs);
  const serialNumber = Buffer.from(parsed.serialNumber).toString("hex");
  const tbsSha256 = hash("sha256", tbs, "buffer");
  return {
    kind: "certificate-intent",
    leaf: encodeEntry({
      type: "sign.intent",
      at,
      actor,
      subject: { issuer, keyId, serialNumber },
      data: {
        operation: "certificate",
        tbs: `sha256:${tbsSha256.toString("hex")}`,
        profile: kind,
        rule,
        ...(warnings.length === 0 ? {} : { warnings: [...warnings] }),
      },
    }),
    row: {
      issuer,
      keyId,
      serialNumber,
      kind,
      profile: kind,
      requester: null,
      subject: nameText(parsed.subject),
      names: [],
      notBefore: parsed.notBefore,
      notAfter: parsed.notAfter,
      spkiSha256: Buffer.from(spkiDigest(parsed.subjectPublicKeyInfo), "hex"),
      tbsSha256,
      csr: null,
      createdAt: at,
    },
  };
}

/** The certificate of an intent, as the journal takes it. */
export function caCertificateDone(
  { row }: Extract<JournalItem, { kind: "certificate-intent" }>,
  intentIndex: number,
  certificate: Uint8Array,
  actor: Actor,
  at: Date,
): Extract<JournalItem, { kind: "certificate-done" }> {
  const { issuer, keyId, serialNumber } = row;
  return {
    kind: "certificate-done",
    leaf: encodeEntry({
      type: "sign.done",
      at,
      actor,
      subject: { issuer, keyId, serialNumber },
      data: { intent: intentIndex, certificate: digestOf(certificate) },
    }),
    intentIndex,
    certificate,
  };
}

/** Puts the signature to a TBSCertificate, under the algorithm that it names. */
export function assembleCertificate(tbs: Uint8Array, signature: Uint8Array): Uint8Array {
  const algorithm = signatureAlgorithmFrom(parseTbsCertificate(tbs).signatureAlgorithm);
  if (algorithm === undefined) throw new TypeError("the TBS names an unknown signature algorithm");
  return assembleSigned(tbs, algorithm.identifier, signature);
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
  const { tbs, keyId, actor } = command;
  const intent = caCertificateIntent(command, now());
  const intentIndex = await journal.append(intent);
  const signature = await keeper.sign({
    keyId,
    operation: "certificate",
    intentIndex,
    intent: intent.leaf,
    tbs,
  });
  const certificate = assembleCertificate(tbs, signature);
  await journal.append(caCertificateDone(intent, intentIndex, certificate, actor, now()));
  // The strict reader takes the result and its key, or nothing is handed out.
  parsePublicKey(parseCertificate(certificate).tbs.subjectPublicKeyInfo);
  return certificate;
}
