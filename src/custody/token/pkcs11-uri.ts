/** PKCS#11 URIs: RFC 7512. They name a key; how to reach it (module, PIN) is never part of them here. */

import { CountersignError } from "../../errors.ts";

/** What a URI says about token and key; what it leaves out matches everything (RFC 7512 §2.5). */
export interface Pkcs11Uri {
  readonly token?: string;
  readonly manufacturer?: string;
  readonly model?: string;
  readonly serial?: string;
  readonly slotId?: number;
  /** CKA_LABEL. */
  readonly object?: string;
  /** CKA_ID. */
  readonly id?: Uint8Array;
  readonly type?: "public" | "private";
  readonly libraryManufacturer?: string;
  readonly libraryDescription?: string;
}

const textAttributes = {
  token: "token",
  manufacturer: "manufacturer",
  model: "model",
  serial: "serial",
  object: "object",
  "library-manufacturer": "libraryManufacturer",
  "library-description": "libraryDescription",
} as const;

const known = [...Object.keys(textAttributes), "id", "type", "slot-id"];

/**
 * Reads a URI such as `pkcs11:token=issuing;object=ca;id=%01%02`.
 *
 * Stricter than RFC 7512: an attribute that is not known here is refused instead of matching nothing, and so
 * is every query attribute. A PIN in a URI ends up in logs and process lists.
 *
 * @throws CountersignError `config-invalid`; the message repeats no value.
 */
export function parsePkcs11Uri(text: string): Pkcs11Uri {
  const scheme = /^pkcs11:/i.exec(text)?.[0];
  if (scheme === undefined) throw invalid("it does not begin with pkcs11:");
  const [path, query] = splitOnce(text.slice(scheme.length), "?");
  if (query !== undefined) throw invalid(queryRefusal(query));

  const uri: { -readonly [K in keyof Pkcs11Uri]: Pkcs11Uri[K] } = {};
  const seen = new Set<string>();
  for (const part of path === "" ? [] : path.split(";")) {
    const [name, value] = splitOnce(part, "=");
    if (value === undefined) throw invalid("an attribute has no value");
    if (!known.includes(name)) throw invalid(`it may hold only ${known.join(", ")}`);
    if (seen.has(name)) throw invalid(`${name} stands there twice`);
    seen.add(name);
    const octets = percentDecode(name, value);
    if (name === "id") uri.id = octets;
    else if (name === "type") uri.type = objectType(octets);
    else if (name === "slot-id") uri.slotId = slotId(octets);
    else uri[textAttributes[name as keyof typeof textAttributes]] = utf8(name, octets);
  }
  return uri;
}

/** Writes a URI; attributes in the order of {@link Pkcs11Uri}, every octet of `id` percent-encoded. */
export function formatPkcs11Uri(uri: Pkcs11Uri): string {
  const text = (name: string, value: string | undefined): string[] =>
    value === undefined ? [] : [`${name}=${percentEncode(Buffer.from(value))}`];
  const parts = [
    ...text("token", uri.token),
    ...text("manufacturer", uri.manufacturer),
    ...text("model", uri.model),
    ...text("serial", uri.serial),
    ...(uri.slotId === undefined ? [] : [`slot-id=${uri.slotId}`]),
    ...text("object", uri.object),
    ...(uri.id === undefined
      ? []
      : [`id=${Buffer.from(uri.id).toString("hex").replace(/../g, "%$&")}`]),
    ...text("type", uri.type),
    ...text("library-manufacturer", uri.libraryManufacturer),
    ...text("library-description", uri.libraryDescription),
  ];
  return `pkcs11:${parts.join(";")}`;
}

function invalid(why: string): CountersignError {
  return new CountersignError("config-invalid", `The PKCS#11 URI is refused: ${why}.`);
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

function queryRefusal(query: string): string {
  const names = query.split("&").map((part) => splitOnce(part, "=")[0]);
  if (names.includes("pin-value") || names.includes("pin-source")) {
    return "a PIN never stands in a URI, it is read from a file of mode 0600";
  }
  if (names.includes("module-path") || names.includes("module-name")) {
    return "the module is a setting of its own, not part of the URI";
  }
  return "query attributes are not used";
}

/** RFC 7512 §2.3, pk11-pchar: what may stand unencoded. */
const plain = /^[A-Za-z0-9\-._~:[\]@!$'()*+,=&]$/;

function percentDecode(name: string, value: string): Uint8Array {
  const octets: number[] = [];
  for (let i = 0; i < value.length; i++) {
    const character = value[i]!;
    if (character === "%") {
      const digits = value.slice(i + 1, i + 3);
      if (!/^[0-9a-fA-F]{2}$/.test(digits)) throw invalid(`${name} holds a bare percent sign`);
      octets.push(Number.parseInt(digits, 16));
      i += 2;
    } else if (plain.test(character)) {
      octets.push(character.charCodeAt(0));
    } else {
      throw invalid(`${name} holds a character that must be percent-encoded`);
    }
  }
  if (octets.length === 0) throw invalid(`${name} is empty`);
  return Uint8Array.from(octets);
}

function percentEncode(octets: Uint8Array): string {
  let text = "";
  for (const octet of octets) {
    const character = String.fromCharCode(octet);
    text += /^[A-Za-z0-9\-._~]$/.test(character)
      ? character
      : `%${octet.toString(16).padStart(2, "0")}`;
  }
  return text;
}

function utf8(name: string, octets: Uint8Array): string {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(octets);
  } catch {
    throw invalid(`${name} is not UTF-8`);
  }
  // Nobody would see it, and PKCS#11 would not match it.
  if (text.includes("\0")) throw invalid(`${name} holds a NUL`);
  return text;
}

function objectType(octets: Uint8Array): "public" | "private" {
  const text = utf8("type", octets);
  if (text !== "public" && text !== "private") throw invalid("type is neither public nor private");
  return text;
}

function slotId(octets: Uint8Array): number {
  const text = utf8("slot-id", octets);
  const number = Number(text);
  if (!/^[0-9]{1,16}$/.test(text) || !Number.isSafeInteger(number)) {
    throw invalid("slot-id is not a decimal number");
  }
  return number;
}
