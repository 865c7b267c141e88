/** Canonical JSON: RFC 8785, restricted to integers. One value has exactly one encoding. */

/** What canonical JSON can say. Numbers are integers of at most 2^53 − 1 in magnitude. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;

export type JsonObject = { readonly [name: string]: Json };

/** Deeper values are refused on both sides: a leaf of brackets must not exhaust the stack. */
const MAX_DEPTH = 64;

const plainText = /^[ !#-[\]-~]*$/;
const loneSurrogate = /\p{Surrogate}/u;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Writes a value: names sorted by UTF-16 code units, no white space, strings as `JSON.stringify` escapes them.
 *
 * @throws TypeError for what the encoding cannot say: fractions, −0, integers beyond 2^53 − 1, lone surrogates,
 *   `undefined`, functions, objects with a prototype of their own (a Date, a Map, bytes), the name `__proto__`,
 *   more than 64 levels.
 */
export function canonicalJson(value: Json): string {
  return write(value, 0);
}

/**
 * Reads canonical JSON. Whatever does not come back as the same bytes is refused, and with it repeated names,
 * spaces, another order, `1e3`, `\/` and numbers that lose digits.
 *
 * @throws SyntaxError if the bytes are not UTF-8, not JSON, or not canonical.
 */
export function parseCanonicalJson(bytes: Uint8Array): Json {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw new SyntaxError("not UTF-8");
  }
  const value = JSON.parse(text) as Json;
  let again: string;
  try {
    again = canonicalJson(value);
  } catch (error) {
    throw new SyntaxError(`not canonical JSON: ${(error as Error).message}`);
  }
  if (again !== text) {
    throw new SyntaxError("not canonical JSON: names, spaces, order or escapes differ");
  }
  return value;
}

function write(value: Json, depth: number): string {
  if (typeof value === "string") {
    return quote(value);
  }
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      throw new TypeError(`${Object.is(value, -0) ? "-0" : value} is not a safe integer`);
    }
    return String(value);
  }
  if (value === null || typeof value === "boolean") {
    return String(value);
  }
  if (typeof value === "object") {
    return writeStructure(value, depth);
  }
  throw new TypeError(`${typeof value} is not JSON`);
}

function writeStructure(value: readonly Json[] | JsonObject, depth: number): string {
  if (depth === MAX_DEPTH) {
    throw new TypeError(`more than ${MAX_DEPTH} levels`);
  }
  if (isArray(value)) {
    let text = "[";
    for (let index = 0; index < value.length; index++) {
      // An array with holes yields undefined here, which `write` refuses.
      text += (index === 0 ? "" : ",") + write(value[index] as Json, depth + 1);
    }
    return `${text}]`;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    throw new TypeError("an object with a prototype of its own is not JSON");
  }
  let text = "{";
  for (const name of Object.keys(value).sort()) {
    if (name === "__proto__") {
      throw new TypeError("the name __proto__ is not allowed");
    }
    text += `${text.length === 1 ? "" : ","}${quote(name)}:${write(value[name] as Json, depth + 1)}`;
  }
  return `${text}}`;
}

function quote(text: string): string {
  if (plainText.test(text)) {
    return `"${text}"`;
  }
  if (loneSurrogate.test(text)) {
    throw new TypeError("a string holds half a surrogate pair");
  }
  return JSON.stringify(text);
}

/** `Array.isArray` does not narrow a readonly array out of a union. */
function isArray(value: readonly Json[] | JsonObject): value is readonly Json[] {
  return Array.isArray(value);
}
