/** Name constraints: RFC 5280 §4.2.1.10; rules NC-01 to NC-05 for those we issue, NC-08 and NC-09 for names under them. */

import { DerError, DerReader, Tag } from "../der.ts";
import type { DerElement } from "../der.ts";
import { comparableName } from "./distinguished-name.ts";
import type { NameWalk } from "./distinguished-name.ts";
import { report } from "./finding.ts";
import type { Finding } from "./finding.ts";
import { NameTag, addressText, nameKind } from "./general-names.ts";
import { contentText, quoted } from "./octets.ts";
import { checkAnyDer, checkAscii, checkObjectIdentifier } from "./value.ts";

interface Subtree {
  readonly tag: number;
  /** Content octets of the base: a view. */
  readonly octets: Uint8Array;
  /** dns, email, uri: the base in lower case. */
  readonly text: string;
  /** directory: the RDNs as comparableName gives them. */
  readonly names: readonly string[];
}

export interface NameConstraints {
  readonly permitted: readonly Subtree[];
  readonly excluded: readonly Subtree[];
}

/**
 * Reads the value of a nameConstraints extension.
 *
 * @throws DerError if it is not DER.
 */
export function readNameConstraints(value: DerElement, findings: Finding[]): NameConstraints {
  const reader = DerReader.inside(value);
  const permitted = reader.readOptional(0xa0);
  const excluded = reader.readOptional(0xa1);
  reader.finish();
  if (permitted === undefined && excluded === undefined) {
    report(findings, "NC-01", "nameConstraints is an empty SEQUENCE");
  }
  return {
    permitted: permitted === undefined ? [] : readSubtrees(permitted, findings),
    excluded: excluded === undefined ? [] : readSubtrees(excluded, findings),
  };
}

function readSubtrees(list: DerElement, findings: Finding[]): Subtree[] {
  const subtrees: Subtree[] = [];
  const reader = DerReader.inside(list);
  if (reader.atEnd) throw new DerError("empty GeneralSubtrees", list.start);
  while (!reader.atEnd) {
    const inside = DerReader.inside(reader.read(Tag.sequence));
    subtrees.push(readSubtree(inside.readAny(), findings));
    const minimum = inside.readOptional(0x80);
    const maximum = inside.readOptional(0x81);
    inside.finish();
    if (minimum !== undefined) report(findings, "NC-03", "a GeneralSubtree encodes its minimum");
    if (maximum !== undefined) report(findings, "NC-03", "a GeneralSubtree has a maximum");
  }
  return subtrees;
}

function readSubtree(base: DerElement, findings: Finding[]): Subtree {
  const octets = base.bytes.subarray(base.contentStart, base.end);
  let text = "";
  let names: string[] = [];
  switch (base.tag) {
    case NameTag.dns:
      checkAscii(base);
      text = contentText(base);
      if (text.startsWith(".") || text.includes("*") || text !== text.toLowerCase()) {
        report(
          findings,
          "NC-04",
          `dNSName constraint ${quoted(text)} has a leading dot, a \`*\` or capitals`,
        );
      }
      text = text.toLowerCase().replace(/\.$/, "");
      break;
    case NameTag.email:
    case NameTag.uri:
      checkAscii(base);
      text = contentText(base).toLowerCase();
      break;
    case NameTag.ip:
      checkAddressRange(octets, findings);
      break;
    case NameTag.directory: {
      const inside = DerReader.inside(base);
      const name = inside.read(Tag.sequence);
      inside.finish();
      names = comparableName(name);
      break;
    }
    case NameTag.registered:
      checkObjectIdentifier(base);
      break;
    case NameTag.other:
    case NameTag.x400:
    case NameTag.edi:
      checkAnyDer(base.bytes, base.start, base.end);
      break;
    default:
      throw new DerError("not an alternative of GeneralName", base.start);
  }
  return { tag: base.tag, octets, text, names };
}

function checkAddressRange(octets: Uint8Array, findings: Finding[]): void {
  if (octets.length !== 8 && octets.length !== 32) {
    report(findings, "NC-05", `iPAddress constraint of ${octets.length} octets, not 8 or 32`);
    return;
  }
  const size = octets.length / 2;
  let ended = false;
  for (let i = 0; i < size; i++) {
    const mask = octets[size + i]!;
    for (let bit = 0x80; bit > 0; bit >>= 1) {
      if ((mask & bit) === 0) ended = true;
      else if (ended) {
        report(findings, "NC-05", "iPAddress constraint with a mask that has a gap", "P");
        return;
      }
    }
    if ((octets[i]! & ~mask & 0xff) !== 0) {
      report(findings, "NC-05", "iPAddress constraint with host bits that are not zero", "P");
      return;
    }
  }
}

/** What a subject offers to the constraints above it. */
export interface ConstrainedNames {
  readonly subject: DerElement;
  readonly subjectWalk: NameWalk;
  readonly names: readonly DerElement[];
}

/**
 * Tests every name against every CA of the chain that has constraints, which is their intersection: a name has to be
 * inside each. A form that cannot be tested here, and is constrained, is outside.
 */
export function checkConstraints(
  chain: readonly NameConstraints[],
  subject: ConstrainedNames,
  findings: Finding[],
): void {
  for (const constraints of chain) {
    let hasDns = false;
    let hasEmail = false;
    for (const name of subject.names) {
      hasDns ||= name.tag === NameTag.dns;
      hasEmail ||= name.tag === NameTag.email;
      checkName(constraints, name.tag, name, describe(name), findings);
    }
    if (!subject.subjectWalk.empty) checkSubject(constraints, subject.subject, findings);
    // RFC 5280 §4.2.1.10 for emailAddress; for a CN that looks like a host, OpenSSL does the same.
    if (!hasEmail) {
      for (const text of subject.subjectWalk.emailAddresses) {
        checkName(constraints, NameTag.email, text, `emailAddress ${quoted(text)}`, findings);
      }
    }
    if (!hasDns) {
      for (const text of subject.subjectWalk.commonNames) {
        if (!/^[\w*-]+(\.[\w-]+)+$/.test(text) || /^[0-9.]+$/.test(text)) continue;
        checkName(constraints, NameTag.dns, text, `CN ${quoted(text)}`, findings);
      }
    }
  }
}

function describe(name: DerElement): string {
  const text =
    name.tag === NameTag.ip
      ? addressText(name.bytes.subarray(name.contentStart, name.end))
      : name.tag < 0xa0
        ? quoted(contentText(name))
        : "";
  return `${nameKind(name)} ${text}`.trimEnd();
}

function checkSubject(
  constraints: NameConstraints,
  subject: DerElement,
  findings: Finding[],
): void {
  const constrained = [...constraints.permitted, ...constraints.excluded];
  if (!constrained.some((subtree) => subtree.tag === NameTag.directory)) return;
  const names = comparableName(subject);
  const within = (subtree: Subtree) =>
    subtree.tag === NameTag.directory &&
    subtree.names.length <= names.length &&
    subtree.names.every((name, index) => name === names[index]);
  judge(constraints, NameTag.directory, "the subject", within, within, findings);
}

function checkName(
  constraints: NameConstraints,
  tag: number,
  name: DerElement | string,
  shownAs: string,
  findings: Finding[],
): void {
  switch (tag) {
    case NameTag.dns: {
      const text = textOf(name).toLowerCase();
      judge(
        constraints,
        tag,
        shownAs,
        (subtree) => dnsWithin(text, subtree.text),
        (subtree) => dnsTouches(text, subtree.text),
        findings,
      );
      break;
    }
    case NameTag.ip: {
      const { bytes, contentStart, end } = name as DerElement;
      const octets = bytes.subarray(contentStart, end);
      judge(
        constraints,
        tag,
        shownAs,
        (subtree) => addressWithin(octets, subtree.octets),
        // A range of impossible length excludes whatever its author had in mind.
        ({ octets: range }) =>
          addressWithin(octets, range) || (range.length !== 8 && range.length !== 32),
        findings,
      );
      break;
    }
    case NameTag.email: {
      const text = textOf(name);
      const within = (subtree: Subtree) => emailWithin(text, subtree.text);
      judge(constraints, tag, shownAs, within, within, findings);
      break;
    }
    case NameTag.uri: {
      const host = uriHost(textOf(name));
      // RFC 5280: constraints apply to the host part; without one (or with an address) nothing can be shown to fit.
      judge(
        constraints,
        tag,
        shownAs,
        (subtree) => host !== undefined && hostWithin(host, subtree.text),
        (subtree) => host === undefined || hostWithin(host, subtree.text),
        findings,
      );
      break;
    }
    case NameTag.directory: {
      const inside = DerReader.inside(name as DerElement);
      checkSubject(constraints, inside.read(Tag.sequence), findings);
      break;
    }
    default:
      judge(
        constraints,
        tag,
        shownAs,
        () => false,
        () => true,
        findings,
      );
  }
}

/** NC-09: excluded wins over permitted; a form without permitted subtrees is unrestricted. */
function judge(
  constraints: NameConstraints,
  tag: number,
  shownAs: string,
  within: (subtree: Subtree) => boolean,
  touches: (subtree: Subtree) => boolean,
  findings: Finding[],
): void {
  for (const subtree of constraints.excluded) {
    if (subtree.tag === tag && touches(subtree)) {
      report(findings, "NC-08", `${shownAs} is excluded by the name constraints of the chain`);
      return;
    }
  }
  let constrained = false;
  for (const subtree of constraints.permitted) {
    if (subtree.tag !== tag) continue;
    constrained = true;
    if (within(subtree)) return;
  }
  if (constrained) {
    report(findings, "NC-08", `${shownAs} is not permitted by the name constraints of the chain`);
  }
}

function textOf(name: DerElement | string): string {
  return typeof name === "string" ? name : contentText(name);
}

/** Whether a name, or all that a wildcard stands for, is the base or below it. */
function dnsWithin(name: string, base: string): boolean {
  if (base === "") return true;
  if (base.startsWith(".")) return name.length > base.length && name.endsWith(base);
  const plain = name.startsWith("*.") ? name.slice(2) : name;
  return plain === base || plain.endsWith(`.${base}`);
}

/** Whether a name, or anything that a wildcard stands for, is the base or below it. */
function dnsTouches(name: string, base: string): boolean {
  if (dnsWithin(name, base)) return true;
  if (!name.startsWith("*.")) return false;
  const parent = name.slice(1);
  const plain = base.startsWith(".") ? base.slice(1) : base;
  return plain.endsWith(parent) && !plain.slice(0, -parent.length).includes(".");
}

function hostWithin(host: string, base: string): boolean {
  return base.startsWith(".") ? host.length > base.length && host.endsWith(base) : host === base;
}

function emailWithin(address: string, base: string): boolean {
  const at = address.lastIndexOf("@");
  const host = address.slice(at + 1).toLowerCase();
  if (base.includes("@")) return `${address.slice(0, at)}@${host}`.toLowerCase() === base;
  return hostWithin(host, base);
}

/** The host of a URI in lower case; undefined without authority, or if the host is an address. */
function uriHost(uri: string): string | undefined {
  const match = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/i.exec(uri);
  const authority = match?.[1];
  if (authority === undefined) return undefined;
  const host = authority
    .slice(authority.lastIndexOf("@") + 1)
    .replace(/:[0-9]*$/, "")
    .toLowerCase();
  return host === "" || host.startsWith("[") || /^[0-9.]+$/.test(host) ? undefined : host;
}

function addressWithin(address: Uint8Array, range: Uint8Array): boolean {
  const size = address.length;
  if (range.length !== 2 * size) return false;
  for (let i = 0; i < size; i++) {
    if ((address[i]! & range[size + i]!) !== (range[i]! & range[size + i]!)) return false;
  }
  return true;
}
