/** `countersign inspect`: says what a file is, without a service. */

import { digestOf } from "../audit/digest.ts";
import { DerError } from "../x509/der.ts";
import { parseCertificate } from "../x509/certificate.ts";
import type { Finding } from "../x509/lint/finding.ts";
import { certificatesFrom } from "./certificate-reference.ts";
import { entryRows, ENTRIES_SHOWN } from "./crl.ts";
import type { Context } from "./context.ts";
import { ExitCode } from "./failure.ts";
import {
  IssuerPool,
  isSignedBy,
  lintCertificateFile,
  lintCrlFile,
  type FileLint,
} from "./file-lint.ts";
import { readInput } from "./files.ts";
import type { Cell, Field, Output } from "./output.ts";
import { piecesOf, type Piece } from "./pieces.ts";
import {
  certificateView,
  crlView,
  privateKeyView,
  publicKeyView,
  requestView,
  type CertificateView,
  type CrlView,
  type NameView,
  type PrivateKeyView,
  type PublicKeyView,
  type RequestView,
} from "./views.ts";

export interface InspectOptions {
  /** Files with CA certificates to judge against. */
  readonly chain: readonly string[];
}

interface PublicKeyObject extends PublicKeyView {
  readonly kind: "public key";
}

interface Other {
  readonly kind: "other";
  readonly description: string;
  readonly sha256?: string;
}

interface Broken {
  readonly kind: Exclude<Piece["kind"], "other">;
  readonly broken: string;
}

type Content =
  | (CertificateView & { readonly lint: FileLint })
  | RequestView
  | (CrlView & { readonly lint: FileLint })
  | PrivateKeyView
  | PublicKeyObject
  | Other
  | Broken;

type Inspected = Content & { readonly place: string };

export async function inspect(
  { output }: Context,
  file: string,
  options: InspectOptions,
): Promise<ExitCode> {
  const now = new Date();
  const pieces = piecesOf(readInput(file));
  const certificates = pieces.flatMap(({ kind, der }) =>
    kind === "certificate" && der !== undefined ? [der] : [],
  );
  const pool = new IssuerPool([...certificates, ...options.chain.flatMap(certificatesFrom)]);
  const objects = pieces.map((piece): Inspected => ({
    place: piece.place,
    ...contentOf(piece, pool, now),
  }));
  const chain = certificates.length > 1 ? chainOf(certificates) : undefined;
  output.result({ file, objects, ...(chain === undefined ? {} : { chain }) });
  const count = objects.length === 1 ? "" : `${objects.length} objects`;
  output.line({
    text: `${file === "-" ? "standard input" : file}${count && `: ${count}`}`,
    colour: "bold",
  });
  for (const [index, object] of objects.entries()) {
    output.line();
    show(output, object, index, objects);
  }
  if (chain !== undefined) {
    output.line();
    output.fields([
      [
        "chain",
        chain.ordered
          ? "each certificate is signed by the next"
          : { text: chain.detail, colour: "yellow" },
      ],
    ]);
  }
  const nothing = objects.every((object) => object.kind === "other" || "broken" in object);
  return nothing ? ExitCode.failed : ExitCode.done;
}

function contentOf(piece: Piece, pool: IssuerPool, now: Date): Content {
  const { kind, der, description } = piece;
  if (kind === "private key") return privateKeyView(piece);
  if (kind === "other") {
    return {
      kind,
      description: description ?? "something else",
      ...(der === undefined ? {} : { sha256: digestOf(der) }),
    };
  }
  if (der === undefined) return { kind, broken: description ?? "it cannot be read" };
  try {
    switch (kind) {
      case "certificate":
        return { ...certificateView(der, now), lint: lintCertificateFile(der, pool, now) };
      case "certification request":
        return requestView(der);
      case "certificate list":
        return { ...crlView(der, now), lint: lintCrlFile(der, pool, now) };
      case "public key":
        return { kind, ...publicKeyView(der) };
    }
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    return { kind, broken: error.message };
  }
}

/** Whether each certificate is signed by the one after it, as servers send them (RFC 8446 §4.4.2). */
function chainOf(certificates: readonly Uint8Array[]): { ordered: boolean; detail: string } {
  for (const [index, der] of certificates.slice(0, -1).entries()) {
    try {
      const next = parseCertificate(certificates[index + 1]!);
      if (isSignedBy(der, next.tbs.subjectPublicKeyInfo)) continue;
    } catch (error) {
      if (!(error instanceof DerError)) throw error;
    }
    return {
      ordered: false,
      detail: `no chain: certificate ${index + 1} is not signed by certificate ${index + 2}`,
    };
  }
  return { ordered: true, detail: "each certificate is signed by the next" };
}

function show(output: Output, object: Inspected, index: number, all: readonly Inspected[]): void {
  const title = all.length === 1 ? "" : `${index + 1}. `;
  const heading = (text: string): void =>
    output.line({
      text: `${title}${text}${all.length === 1 ? "" : `, ${object.place}`}`,
      colour: "bold",
    });
  if ("broken" in object) {
    heading(object.kind);
    output.fields([["broken", { text: object.broken, colour: "red" }]], 2);
    return;
  }
  switch (object.kind) {
    case "certificate":
      heading(object.ca ? "CA certificate" : "certificate");
      output.fields([...certificateFields(object), ...lintFields(object.lint)], 2);
      return;
    case "certification request":
      heading("certification request (CSR)");
      output.fields(requestFields(object), 2);
      return;
    case "certificate list":
      heading("certificate revocation list (CRL)");
      output.fields([...crlFields(object), ...lintFields(object.lint)], 2);
      if (object.entryCount > 0) {
        output.line();
        output.table(
          ["  SERIAL NUMBER", "REVOKED", "REASON"],
          entryRows(object.entries).map(([serial, ...rest]) => [`  ${serial}`, ...rest]),
        );
        if (object.entryCount > ENTRIES_SHOWN)
          output.line(`  and ${object.entryCount - ENTRIES_SHOWN} more; --json has them all`);
      }
      return;
    case "private key":
      heading("private key");
      output.fields(privateKeyFields(object, all), 2);
      return;
    case "public key":
      heading("public key");
      output.fields(
        [
          ["type", object.type],
          ["SHA-256", object.sha256],
        ],
        2,
      );
      return;
    case "other":
      heading(object.description);
      output.fields([["SHA-256", object.sha256]], 2);
  }
}

export function certificateFields(view: CertificateView): Field[] {
  const { state, daysLeft, notAfter } = view;
  const left = state === "valid" ? `${daysLeft} days left` : state;
  const until: Cell = {
    text: `${notAfter} (${left})`,
    colour: state === "valid" ? "green" : "red",
  };
  return [
    ["subject", view.subject || "(empty)"],
    ["names", namesOrNone(view.names)],
    ["issuer", view.selfIssued ? `${view.issuer} (itself)` : view.issuer],
    ["serial number", view.serialNumber],
    ["not before", view.notBefore],
    ["not after", until],
    ["public key", `${view.publicKey.type}, ${view.publicKey.sha256}`],
    ["signature", view.signatureAlgorithm],
    [
      "CA",
      view.ca
        ? `yes${view.pathLen === undefined ? "" : `, path length ${view.pathLen}`}`
        : undefined,
    ],
    ["key usage", view.keyUsage.join(", ") || undefined],
    ["extended usage", view.extKeyUsage.join(", ") || undefined],
    ["subject key id", view.subjectKeyIdentifier],
    ["issuer key id", view.authorityKeyIdentifier],
    ["CRL", view.crlUrls.length === 0 ? undefined : view.crlUrls],
    ["CA issuers", view.caIssuersUrls.length === 0 ? undefined : view.caIssuersUrls],
    ["OCSP", view.ocspUrls.length === 0 ? undefined : view.ocspUrls],
    ["other extensions", view.otherExtensions.join(", ") || undefined],
    ["SHA-256", view.sha256],
  ];
}

export function requestFields(view: RequestView): Field[] {
  const { refusal } = view;
  return [
    ["subject", view.subject || "(empty)"],
    ["names", namesOrNone(view.names)],
    ["public key", `${view.publicKey.type}, ${view.publicKey.sha256}`],
    ["signature", view.signatureAlgorithm],
    ["other extensions", view.otherExtensions.join(", ") || undefined],
    ["SHA-256", view.sha256],
    [
      "verdict",
      refusal === null
        ? "well-formed, and signed by its own key"
        : { text: `${refusal.rule ?? refusal.code}: ${refusal.detail}`, colour: "red" },
    ],
  ];
}

export function crlFields(view: CrlView): Field[] {
  const { state, nextUpdate } = view;
  return [
    ["issuer", view.issuer],
    ["number", view.number ?? "none"],
    ["this update", view.thisUpdate],
    [
      "next update",
      { text: `${nextUpdate ?? "none"} (${state})`, colour: state === "current" ? "green" : "red" },
    ],
    ["signature", view.signatureAlgorithm],
    ["issuer key id", view.authorityKeyIdentifier],
    ["entries", String(view.entryCount)],
    ["SHA-256", view.sha256],
  ];
}

function privateKeyFields(view: PrivateKeyView, all: readonly Inspected[]): Field[] {
  const { publicKeySha256 } = view;
  const owners = all.flatMap((object, index) =>
    "publicKey" in object && object.publicKey.sha256 === publicKeySha256 ? [`${index + 1}`] : [],
  );
  return [
    ["type", view.type],
    ["format", `${view.format}${view.encrypted ? ", encrypted" : ""}`],
    ["public key", publicKeySha256],
    ["belongs to", owners.length === 0 ? undefined : `object ${owners.join(", ")}`],
  ];
}

function lintFields({ checkedAs, notChecked, findings }: FileLint): Field[] {
  if (checkedAs === undefined) return [["lint", `not checked: ${notChecked}`]];
  if (findings.length === 0) {
    return [["lint", { text: `no findings (rules for: ${checkedAs})`, colour: "green" }]];
  }
  return [["lint", findings.map(findingText)]];
}

function findingText({ rule, level, detail }: Finding): string {
  return `${rule} (${level === "S" ? "advice" : "broken"}): ${detail}`;
}

function namesOrNone(names: readonly NameView[]): readonly string[] | string {
  return names.length === 0 ? "none" : names.map(({ kind, value }) => `${kind}:${value}`);
}
