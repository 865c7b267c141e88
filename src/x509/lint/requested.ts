/** What was asked for against what the bytes say, field by field (CRT-21). */

import { encodingOf, objectIdentifier } from "../der.ts";
import type { DerElement } from "../der.ts";
import type { RequestedCertificate, Subject } from "./certificate-context.ts";
import { report } from "./finding.ts";
import { NameTag, addressOctets } from "./general-names.ts";
import { isCaIssuers } from "./purposes.ts";
import { contentIs, contentText, encodingIs, shown } from "./octets.ts";
import { KeyUsageBit, keyUsageText } from "./structure.ts";
import { instant } from "./value.ts";

export function checkRequested(subject: Subject, requested: RequestedCertificate): void {
  const { walk } = subject;
  const { extensions } = walk;
  checkBytes(subject, "serialNumber", requested.serialNumber, (octets) =>
    contentIs(walk.serialNumber, octets),
  );
  checkBytes(subject, "subject", requested.subject, (octets) => encodingIs(walk.subject, octets));
  checkBytes(subject, "subjectPublicKeyInfo", requested.subjectPublicKeyInfo, (octets) =>
    encodingIs(walk.subjectPublicKeyInfo, octets),
  );
  checkInstant(subject, "notBefore", requested.notBefore, walk.notBeforeTime);
  checkInstant(subject, "notAfter", requested.notAfter, walk.notAfterTime);
  if (requested.names !== undefined) checkNames(subject, requested.names);
  if (requested.keyUsage !== undefined) checkKeyUsage(subject, requested.keyUsage);
  if (requested.extKeyUsage !== undefined) checkPurposes(subject, requested.extKeyUsage);
  if (requested.basicConstraints !== undefined) {
    const wanted = requested.basicConstraints;
    const pathLen = wanted?.pathLen ?? -1;
    if (extensions.cA !== (wanted !== null) || extensions.pathLen !== pathLen) {
      const found = extensions.cA ? `cA with pathLen ${extensions.pathLen}` : "no cA";
      differ(subject, `basicConstraints is ${found} (-1: none)`);
    }
  }
  if (requested.crlUrl !== undefined) {
    checkUrl(subject, "cRLDistributionPoints", requested.crlUrl, extensions.crlNames);
  }
  if (requested.caIssuersUrl !== undefined) {
    const locations = extensions.access
      .filter(({ method }) => isCaIssuers(method))
      .map(({ location }) => location);
    checkUrl(subject, "caIssuers", requested.caIssuersUrl, locations);
  }
}

function differ({ findings }: Subject, found: string): void {
  report(findings, "CRT-21", `${found}, which is not what was asked for`);
}

function checkBytes(
  subject: Subject,
  field: "serialNumber" | "subject" | "subjectPublicKeyInfo",
  wanted: Uint8Array | undefined,
  equals: (octets: Uint8Array) => boolean,
): void {
  if (wanted === undefined || equals(wanted)) return;
  differ(subject, `${field} is ${shown(encodingOf(subject.walk[field]))}`);
}

function checkInstant(
  subject: Subject,
  field: string,
  wanted: Date | undefined,
  time: number,
): void {
  if (wanted === undefined) return;
  // A certificate counts in seconds; whoever asks in milliseconds means the second they are in.
  if (Math.floor(wanted.getTime() / 1000) * 1000 === time) return;
  differ(subject, `${field} is ${instant(time)}`);
}

const nameTags = {
  dns: NameTag.dns,
  ip: NameTag.ip,
  email: NameTag.email,
  uri: NameTag.uri,
} as const;

function checkNames(subject: Subject, wanted: NonNullable<RequestedCertificate["names"]>): void {
  const found = subject.walk.extensions.names;
  if (found.length !== wanted.length) {
    differ(subject, `subjectAltName has ${found.length} names instead of ${wanted.length}`);
    return;
  }
  // Usually in the order asked for: then each is found at its own place, and the whole is linear.
  const used = new Uint8Array(found.length);
  for (const [index, name] of wanted.entries()) {
    let at = isName(found[index]!, name) && used[index] === 0 ? index : -1;
    for (let i = 0; at === -1 && i < found.length; i++) {
      if (used[i] === 0 && isName(found[i]!, name)) at = i;
    }
    if (at === -1)
      differ(subject, `subjectAltName has no ${name.kind} ${JSON.stringify(name.value)}`);
    else used[at] = 1;
  }
}

function isName(
  found: DerElement,
  wanted: { readonly kind: "dns" | "ip" | "email" | "uri"; readonly value: string },
): boolean {
  if (found.tag !== nameTags[wanted.kind]) return false;
  if (wanted.kind === "ip") {
    const octets = addressOctets(wanted.value);
    return octets !== undefined && contentIs(found, octets);
  }
  const { bytes, contentStart, end } = found;
  const { value } = wanted;
  if (end - contentStart !== value.length) return false;
  for (let i = 0; i < value.length; i++) {
    if (bytes[contentStart + i] !== value.charCodeAt(i)) return false;
  }
  return true;
}

function checkKeyUsage(subject: Subject, wanted: readonly string[]): void {
  let bits = 0;
  for (const name of wanted) {
    if (!(name in KeyUsageBit)) throw new RangeError(`keyUsage has no bit ${name}`);
    bits |= KeyUsageBit[name as keyof typeof KeyUsageBit];
  }
  const { keyUsage } = subject.walk.extensions;
  if (keyUsage !== bits) differ(subject, `keyUsage is ${keyUsageText(keyUsage)}`);
}

/** OIDs of profiles recur for as long as the service runs. */
const encodedOids = new Map<string, Uint8Array>();

function encodedOid(dotted: string): Uint8Array {
  let encoded = encodedOids.get(dotted);
  if (encoded === undefined) {
    encoded = objectIdentifier(dotted);
    if (encodedOids.size < 1000) encodedOids.set(dotted, encoded);
  }
  return encoded;
}

function checkPurposes(subject: Subject, wanted: readonly string[]): void {
  const found = subject.walk.extensions.extKeyUsage;
  const missing = wanted.some((dotted) => {
    const oid = encodedOid(dotted);
    return !found.some((purpose) => encodingIs(purpose, oid));
  });
  if (missing || found.length !== wanted.length) {
    differ(subject, `extKeyUsage has ${found.length} purposes, not exactly ${wanted.join(", ")}`);
  }
}

function checkUrl(
  subject: Subject,
  field: string,
  wanted: string,
  found: readonly DerElement[],
): void {
  const [only] = found;
  if (found.length === 1 && only?.tag === NameTag.uri && contentText(only) === wanted) return;
  differ(subject, `${field} has not exactly the URI ${JSON.stringify(wanted)}`);
}
