/** Names as certificates carry them: one spelling each, or a refusal. RFC 5890 §2.3.1, RFC 5952. */

import { CountersignError } from "../errors.ts";
import { ipAddressText, readIpAddress, type IpRefusal } from "./ip-address.ts";

/** The kinds that rules can speak of. A name of any other kind is refused by `decide`. */
export const nameKinds = ["dns", "ip"] as const;
export type NameKind = (typeof nameKinds)[number];

/** A name by its kind. `kind` may be one that no rule knows: such a name is never allowed. */
export interface Name {
  readonly kind: string;
  readonly value: string;
}

/** Why a name is malformed: the member `reason` of the error. */
export type NameRefusal =
  | IpRefusal
  | "empty"
  | "name-too-long"
  | "control-character"
  | "non-ascii"
  | "wildcard-position"
  | "wildcard-too-wide"
  | "ip-as-dns"
  | "trailing-dot"
  | "leading-dot"
  | "empty-label"
  | "label-too-long"
  | "label-hyphen"
  | "not-ldh"
  | "reserved-label";

/**
 * The rules that refusals here name. They are those of the server profiles, which names of every profile keep, as
 * there is one spelling of a name.
 */
const RULES = { dns: "SRV-04", ip: "SRV-05", list: "SRV-16" } as const;

/** SRV-16: more would make one certificate a list of everything an organisation runs. */
export const MAX_NAMES = 100;

const MAX_DNS_NAME = 253; // RFC 1035 §2.3.4: 255 octets on the wire
const MAX_LABEL = 63;
const LONGEST_SHOWN = 100;

/**
 * The one spelling of a name, or a refusal: nothing is dropped, shortened or repaired.
 *
 * @param text - For `dns` a host name of LDH labels (RFC 5890 §2.3.1) without final dot, the first
 *   label may be `*` when two more follow; upper case is lowered. For `ip` dotted decimal, or IPv6
 *   in any spelling of RFC 4291 §2.2, returned as RFC 5952 writes it.
 * @throws CountersignError `name-malformed` with the members `name` (escaped), `reason` and `rule`.
 */
export function canonicalName(kind: NameKind, text: string): string {
  switch (kind) {
    case "dns":
      return canonicalDnsName(text);
    case "ip":
      return canonicalIp(text);
  }
}

/** Whether `canonicalName` would return the value as it is. False for kinds that it does not know. */
export function isCanonicalName({ kind, value }: Name): boolean {
  if (kind === "dns")
    return characterRefusal(value) === undefined && dnsRefusal(value) === undefined;
  if (kind !== "ip") return false;
  const address = readIpAddress(value);
  return typeof address !== "string" && ipAddressText(address) === value;
}

/**
 * The names of one request, in its order. Names of other kinds than `nameKinds` are passed on as
 * they are, for `decide` to refuse by name.
 *
 * @throws CountersignError `names-too-many` for more than 100; `name-malformed` for the first
 *   malformed one; `name-repeated` with the member `reason` `duplicate`, or `covered-by-wildcard`
 *   where `*.host` of the same request already stands for the name (SRV-16). Each has the member `rule`.
 */
export function canonicalNames<N extends Name>(names: readonly N[]): N[] {
  if (names.length > MAX_NAMES) {
    throw new CountersignError(
      "names-too-many",
      `${names.length} names are too many for one certificate: at most ${MAX_NAMES}`,
      { members: { count: names.length, maximum: MAX_NAMES, rule: RULES.list } },
    );
  }
  const seen = new Set<string>();
  const canonical = names.map((name): N => {
    const { kind } = name;
    const value = isNameKind(kind) ? canonicalName(kind, name.value) : name.value;
    const key = `${kind}:${value}`;
    if (seen.has(key)) throw repeated(value, "duplicate", "is asked for twice");
    seen.add(key);
    return { ...name, value };
  });
  for (const { kind, value } of canonical) {
    const wildcard = `*${value.slice(value.indexOf("."))}`;
    if (kind === "dns" && value !== wildcard && seen.has(`dns:${wildcard}`)) {
      throw repeated(value, "covered-by-wildcard", `is covered by ${wildcard} of the same request`);
    }
  }
  return canonical;
}

export function isNameKind(kind: string): kind is NameKind {
  return (nameKinds as readonly string[]).includes(kind);
}

/** A name made safe to print: what is not printable ASCII is escaped, and the end cut after 100 characters. */
export function shownName(text: string): string {
  const shown = text
    .slice(0, LONGEST_SHOWN)
    .replace(
      /[^ !#-[\]-~]/g,
      (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
    );
  return text.length > LONGEST_SHOWN ? `${shown}...` : shown;
}

function canonicalDnsName(text: string): string {
  const character = characterRefusal(text);
  if (character !== undefined) throw malformed("dns", text, ...character);
  // Only after the check for ASCII: the Kelvin sign, too, has the lower case "k".
  const name = text.toLowerCase();
  const refusal = dnsRefusal(name);
  if (refusal !== undefined) throw malformed("dns", text, ...refusal);
  return name;
}

type Refusal = readonly [reason: NameRefusal, detail: string];

function characterRefusal(text: string): Refusal | undefined {
  if (text === "") return ["empty", "is empty"];
  if (text.length > MAX_DNS_NAME) {
    return ["name-too-long", `has ${text.length} characters, the most is ${MAX_DNS_NAME}`];
  }
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code < 0x20 || (code >= 0x7f && code < 0xa0)) {
      return ["control-character", "has a control character"];
    }
    if (code > 0x7f) return ["non-ascii", `is not ASCII: ${aLabelAdvice(text)}`];
  }
  return undefined;
}

/** @param name - ASCII without control characters; an upper-case letter is not LDH here. */
function dnsRefusal(name: string): Refusal | undefined {
  const wildcard = name.startsWith("*.") && name.length > 2;
  const host = wildcard ? name.slice(2) : name;
  if (host.includes("*")) {
    return ["wildcard-position", "may have * only as its whole first label, with a name after it"];
  }
  if (host.includes(":") && typeof readIpAddress(host) !== "string") return IP_AS_DNS;
  if (host.endsWith(".")) return ["trailing-dot", "ends in a dot: leave it out"];
  if (host.startsWith(".")) {
    return wildcard
      ? ["empty-label", "has two dots in a row"]
      : ["leading-dot", "begins with a dot: leave it out"];
  }
  let start = 0;
  for (;;) {
    const dot = host.indexOf(".", start);
    const end = dot < 0 ? host.length : dot;
    const refusal = labelRefusal(host, start, end);
    if (refusal !== undefined) return refusal;
    if (dot < 0) break;
    start = dot + 1;
  }
  // A last label that is a number makes resolvers and URL parsers read the whole as an IPv4 address.
  const code = host.charCodeAt(start);
  if (code >= 0x30 && code <= 0x39 && /^(?:\d+|0x[0-9a-f]*)$/.test(host.slice(start))) {
    return IP_AS_DNS;
  }
  if (wildcard && start === 0) {
    return ["wildcard-too-wide", "has a * right below a top-level name: two labels must follow it"];
  }
  return undefined;
}

const IP_AS_DNS: Refusal = [
  "ip-as-dns",
  "is or looks like an IP address: ask for it as an IP name",
];

function labelRefusal(host: string, start: number, end: number): Refusal | undefined {
  if (start === end) return ["empty-label", "has two dots in a row"];
  if (end - start > MAX_LABEL) {
    return ["label-too-long", `has a label of ${end - start} characters, the most is ${MAX_LABEL}`];
  }
  for (let index = start; index < end; index++) {
    const code = host.charCodeAt(index);
    const letterOrDigit = (code >= 0x61 && code <= 0x7a) || (code >= 0x30 && code <= 0x39);
    if (!letterOrDigit && code !== 0x2d) {
      return [
        "not-ldh",
        `has "${shownName(host[index]!)}": labels are letters, digits and hyphens`,
      ];
    }
  }
  if (host[start] === "-" || host[end - 1] === "-") {
    return ["label-hyphen", "has a label that begins or ends with a hyphen"];
  }
  // RFC 5890 §2.3.1: such labels are reserved, and only A-labels are defined.
  if (host.startsWith("--", start + 2) && !host.startsWith("xn", start) && start + 4 <= end) {
    return ["reserved-label", "has a label with -- in third place that is not an A-label (xn--…)"];
  }
  return undefined;
}

/** Names the A-label where the platform's UTS 46 knows it; the caller still has to send it so. */
function aLabelAdvice(text: string): string {
  const advice = "give its A-label (xn--…)";
  if (!/^(?:[a-z0-9.-]|[^\0-\x7f])+$/iu.test(text)) return advice;
  const host = URL.canParse(`http://${text}`) ? new URL(`http://${text}`).hostname : "";
  return host.includes("xn--") ? `${advice}, for example ${host}` : advice;
}

function canonicalIp(text: string): string {
  if (text === "") throw malformed("ip", text, "empty", "is empty");
  const address = readIpAddress(text);
  if (typeof address !== "string") return ipAddressText(address);
  throw malformed("ip", text, address, ipDetails[address]);
}

/** What to say about a text that is no IP address. */
export const ipDetails: Record<IpRefusal, string> = {
  "ip-malformed": "is not an IP address: write 192.0.2.1 or 2001:db8::1",
  "leading-zero": "has an octet with a leading zero, which some read as octal: write it without",
  "ipv4-mapped": "is an IPv4-mapped address: write the IPv4 address",
  "zone-id": "has a zone id, which means something on one host only",
};

function malformed(
  kind: NameKind,
  text: string,
  reason: NameRefusal,
  detail: string,
): CountersignError {
  const name = shownName(text);
  return new CountersignError("name-malformed", `the name "${name}" ${detail}`, {
    members: { name, reason, rule: RULES[kind] },
  });
}

function repeated(
  value: string,
  reason: "duplicate" | "covered-by-wildcard",
  detail: string,
): CountersignError {
  const name = shownName(value);
  return new CountersignError("name-repeated", `the name "${name}" ${detail}`, {
    members: { name, reason, rule: RULES.list },
  });
}
