/** One pattern of a name rule: what it means is stated here, once. */

import { CountersignError } from "../errors.ts";
import {
  addressKey,
  ipAddressText,
  maskAddress,
  readIpAddress,
  type IpAddress,
} from "./ip-address.ts";
import { canonicalName, ipDetails, shownName, type NameKind } from "./name.ts";

/**
 * What a pattern says about names. With `host` = `example.test`:
 *
 * | pattern      | matches                                              | does not match                       |
 * | ------------ | ---------------------------------------------------- | ------------------------------------ |
 * | `exact:`     | `example.test`                                       | any other name                       |
 * | `subdomains:`| `a.example.test`, `b.a.example.test`, at any depth   | `example.test`, `*.example.test`     |
 * | `one-label:` | `a.example.test`                                     | `b.a.example.test`, `*.example.test` |
 * | `wildcard:`  | `*.example.test`                                     | every name without a `*`             |
 * | IP block     | each address whose first `prefix` bits are the block's; an address alone is a block of one | the other family |
 *
 * So only `wildcard:` ever allows a wildcard name. As a rule that denies, a pattern also matches a
 * wildcard name that stands for some name the pattern matches: otherwise `*.example.test` would
 * carry the `admin.example.test` that `deny: ["exact:admin.example.test"]` keeps out.
 */
export type Pattern = DnsPattern | IpPattern;

export interface DnsPattern {
  readonly kind: "dns";
  readonly form: DnsForm;
  /** Canonical, without wildcard. */
  readonly host: string;
}

export interface IpPattern {
  readonly kind: "ip";
  readonly form: "block";
  /** The first address: bits after `prefix` are zero. */
  readonly address: IpAddress;
  readonly prefix: number;
}

const dnsForms = ["exact", "subdomains", "one-label", "wildcard"] as const;
type DnsForm = (typeof dnsForms)[number];

/** Gives the place in its list of the first pattern that matches a canonical name, or -1. */
export type Matcher = (value: string) => number;

/** @throws CountersignError `policy-invalid`, saying what to write instead. */
export function parsePattern(kind: NameKind, text: string): Pattern {
  switch (kind) {
    case "dns":
      return parseDnsPattern(text);
    case "ip":
      return parseIpPattern(text);
  }
}

/** The one spelling of a pattern. */
export function patternText(pattern: Pattern): string {
  switch (pattern.kind) {
    case "dns":
      return `${pattern.form}:${pattern.host}`;
    case "ip":
      return `${ipAddressText(pattern.address)}/${pattern.prefix}`;
  }
}

/**
 * Compiles a list of patterns of one kind: the time to match a name depends on its length, not on
 * how many patterns there are.
 *
 * @param effect - `deny` also matches wildcard names that stand for a denied one: see `Pattern`.
 */
export function compilePatterns(
  kind: NameKind,
  patterns: readonly Pattern[],
  effect: "allow" | "deny",
): Matcher {
  if (patterns.length === 0) return () => -1;
  switch (kind) {
    case "dns":
      return dnsMatcher(patterns, effect);
    case "ip":
      return ipMatcher(patterns);
  }
}

/** Whether a rule that denies the first leaves nothing for a rule that allows the second. */
export function deniesAll(deny: Pattern, allow: Pattern): boolean {
  if (deny.kind === "ip" || allow.kind === "ip") {
    if (deny.kind !== "ip" || allow.kind !== "ip") return false;
    return (
      deny.address.length === allow.address.length &&
      deny.prefix <= allow.prefix &&
      addressKey(maskAddress(allow.address, deny.prefix)) === addressKey(deny.address)
    );
  }
  const below = allow.host === deny.host || allow.host.endsWith(`.${deny.host}`);
  switch (allow.form) {
    case "exact":
      return dnsMatcher([deny], "deny")(allow.host) === 0;
    case "wildcard":
      return dnsMatcher([deny], "deny")(`*.${allow.host}`) === 0;
    case "subdomains":
      return deny.form === "subdomains" && below;
    case "one-label":
      return (
        (deny.form === "subdomains" && below) ||
        (deny.form === "one-label" && deny.host === allow.host)
      );
  }
}

function parseDnsPattern(text: string): DnsPattern {
  const colon = text.indexOf(":");
  const prefix = text.slice(0, Math.max(colon, 0));
  const form = dnsForms.find((known) => known === prefix);
  if (form === undefined) {
    if (typeof readIpAddress(text.split("/")[0]!) !== "string") {
      throw invalid(text, "is an IP address: it belongs under ip");
    }
    throw invalid(
      text,
      colon < 0
        ? `has more than one reading: ${readings(text)}`
        : `has the unknown prefix "${shownName(prefix)}:": ${readings("host")}`,
    );
  }
  const written = text.slice(colon + 1);
  if (written === "") throw invalid(text, `names no host: write ${form}:example.test`);
  if (written.includes("*")) {
    const host = shownName(written.replace(/^\*\./, ""));
    throw invalid(text, `has a *: write wildcard:${host} to allow the name *.${host}`);
  }
  const host = canonicalHost(text, form === "wildcard" ? `*.${written}` : written);
  // A label and a dot more must still be a name.
  if (form !== "exact" && host.length > 251) {
    throw invalid(text, "can never match: no name below it is short enough");
  }
  return { kind: "dns", form, host };
}

function canonicalHost(pattern: string, name: string): string {
  try {
    return canonicalName("dns", name).replace(/^\*\./, "");
  } catch (error) {
    if (!(error instanceof CountersignError)) throw error;
    throw invalid(pattern, `can never match: ${error.message}`);
  }
}

/** What somebody may have meant who wrote a bare name. */
function readings(text: string): string {
  const host = shownName(text.replace(/^(?:\*?\.)+/, "").split("/")[0]!) || "host";
  return (
    `write exact:${host} for that name, subdomains:${host} for every name under it, ` +
    `one-label:${host} for names one label under it, or wildcard:${host} for *.${host}`
  );
}

function parseIpPattern(text: string): IpPattern {
  const [written, bits, ...rest] = text.split("/");
  const address = readIpAddress(written!);
  if (typeof address === "string") {
    const exact = /^exact:(.*)$/s.exec(text)?.[1];
    if (exact !== undefined && typeof readIpAddress(exact) !== "string") {
      throw invalid(text, `is written without prefix: ${exact}`);
    }
    throw invalid(
      text,
      address === "ip-malformed"
        ? "is not an IP block: write 10.0.0.0/8, 2001:db8::/32, or an address alone"
        : ipDetails[address],
    );
  }
  const width = address.length * 32;
  const prefix = bits === undefined ? width : Number(bits);
  if (
    rest.length > 0 ||
    (bits !== undefined && !/^(?:0|[1-9]\d{0,2})$/.test(bits)) ||
    prefix > width
  ) {
    throw invalid(
      text,
      `needs a prefix length from 0 to ${width} after the /, such as ${written}/${width}`,
    );
  }
  const first = maskAddress(address, prefix);
  if (addressKey(first) !== addressKey(address)) {
    throw invalid(
      text,
      `has host bits set: write ${ipAddressText(first)}/${prefix} for the block, or ${written} for the address`,
    );
  }
  return { kind: "ip", form: "block", address: first, prefix };
}

function invalid(text: string, detail: string): CountersignError {
  return new CountersignError("policy-invalid", `"${shownName(text)}" ${detail}`);
}

/** Higher than any place in a list, so that the lowest of several is the answer. */
const NONE = Number.MAX_SAFE_INTEGER;

function dnsMatcher(patterns: readonly Pattern[], effect: "allow" | "deny"): Matcher {
  const hosts = (form: DnsForm, hostOf = (host: string) => host) => {
    const places = new Map<string, number>();
    patterns.forEach((pattern, place) => {
      if (pattern.kind !== "dns" || pattern.form !== form) return;
      const host = hostOf(pattern.host);
      if (!places.has(host)) places.set(host, place);
    });
    return places;
  };
  const exact = hosts("exact");
  const subdomains = hosts("subdomains");
  const oneLabel = hosts("one-label");
  const wildcard = hosts("wildcard");
  const exactParents = hosts("exact", parentOf);

  /** The first `subdomains:` whose host is `name` itself or above it. */
  const suffix = (name: string): number => {
    if (subdomains.size === 0) return NONE;
    let place = subdomains.get(name) ?? NONE;
    for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1)) {
      place = Math.min(place, subdomains.get(name.slice(dot + 1)) ?? NONE);
    }
    return place;
  };

  return (name) => {
    let place: number;
    const parent = parentOf(name);
    if (name.startsWith("*.")) {
      place = wildcard.get(parent) ?? NONE;
      if (effect === "deny") {
        // `*.parent` stands for every name one label under `parent`.
        place = Math.min(
          place,
          exactParents.get(parent) ?? NONE,
          oneLabel.get(parent) ?? NONE,
          suffix(parent),
        );
      }
    } else {
      place = exact.get(name) ?? NONE;
      if (parent !== "") place = Math.min(place, oneLabel.get(parent) ?? NONE, suffix(parent));
    }
    return place === NONE ? -1 : place;
  };
}

/** The name without its first label, or "". */
function parentOf(name: string): string {
  const dot = name.indexOf(".");
  return dot < 0 ? "" : name.slice(dot + 1);
}

function ipMatcher(patterns: readonly Pattern[]): Matcher {
  interface Blocks {
    readonly words: number;
    readonly prefix: number;
    readonly places: Map<number | string, number>;
  }
  const byPrefix = new Map<string, Blocks>();
  patterns.forEach((pattern, place) => {
    if (pattern.kind !== "ip") return;
    const { address, prefix } = pattern;
    const family = `${address.length}/${prefix}`;
    const blocks = byPrefix.get(family) ?? { words: address.length, prefix, places: new Map() };
    byPrefix.set(family, blocks);
    const key = addressKey(address);
    if (!blocks.places.has(key)) blocks.places.set(key, place);
  });
  const all = [...byPrefix.values()];
  return (value) => {
    const address = readIpAddress(value);
    if (typeof address === "string") return -1;
    let place = NONE;
    for (const { words, prefix, places } of all) {
      if (words !== address.length) continue;
      place = Math.min(place, places.get(addressKey(maskAddress(address, prefix))) ?? NONE);
    }
    return place === NONE ? -1 : place;
  };
}
