/** PEM text: RFC 7468, in its strict form and with line ends and line lengths left free. */

import { DerError } from "./der.ts";

const BEGIN = "-----BEGIN ";
const END = "-----END ";
const DASHES = "-----";

/**
 * Reads text that holds exactly one block, with nothing but white space around it.
 *
 * @param label - what the block must be called, or the names it may have: `"CERTIFICATE"`.
 * @returns The decoded octets, which are not looked at.
 * @throws DerError saying what is wrong; `offset` counts characters of the text.
 */
export function decodePem(text: string, label: string | readonly string[]): Uint8Array {
  const blocks = decodePemAll(text, label);
  if (blocks.length > 1) throw new DerError(`${blocks.length} PEM blocks instead of one`, 0);
  return blocks[0]!;
}

/**
 * Reads text that holds one or more blocks, with nothing but white space around and between them.
 *
 * @throws DerError as `decodePem`.
 */
export function decodePemAll(text: string, label: string | readonly string[]): Uint8Array[] {
  const labels = typeof label === "string" ? [label] : label;
  const blocks: Uint8Array[] = [];
  let offset = skipSpace(text, 0);
  while (offset < text.length || blocks.length === 0) {
    if (!text.startsWith(BEGIN, offset)) {
      const where = blocks.length === 0 ? "before" : "after";
      throw new DerError(
        text.includes(BEGIN)
          ? `text ${where} a PEM block`
          : `no PEM block (${BEGIN}${labels[0]}${DASHES})`,
        offset,
      );
    }
    const labelEnd = text.indexOf(DASHES, offset + BEGIN.length);
    const found = text.slice(offset + BEGIN.length, Math.max(labelEnd, offset + BEGIN.length));
    if (!labels.includes(found)) {
      throw new DerError(`PEM block is not labelled ${labels.join(" or ")}`, offset);
    }
    const bodyStart = labelEnd + DASHES.length;
    const bodyEnd = text.indexOf(END, bodyStart);
    const closing = `${END}${found}${DASHES}`;
    if (bodyEnd < 0 || !text.startsWith(closing, bodyEnd)) {
      throw new DerError(`PEM block does not end with ${closing}`, offset);
    }
    blocks.push(decodeBase64(text.slice(bodyStart, bodyEnd), bodyStart));
    offset = skipSpace(text, bodyEnd + closing.length);
  }
  return blocks;
}

function skipSpace(text: string, from: number): number {
  let offset = from;
  while (offset < text.length && isSpace(text.charCodeAt(offset))) offset++;
  return offset;
}

function isSpace(code: number): boolean {
  return code === 0x20 || (code >= 0x09 && code <= 0x0d);
}

function decodeBase64(body: string, offset: number): Uint8Array {
  const base64 = body.replaceAll(/[ \t-\r]+/g, "");
  const octets = Buffer.from(base64, "base64");
  // Node skips what is not base64; encoding again finds that, and wrong padding and stray bits too.
  if (octets.length === 0 || octets.toString("base64") !== base64) {
    throw new DerError("PEM block does not hold base64", offset);
  }
  return Uint8Array.from(octets);
}

/** One block: lines of 64 characters that end in LF, the last one too. */
export function encodePem(label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.length).toString("base64");
  const lines = base64.match(/.{1,64}/g) ?? [];
  return `${BEGIN}${label}${DASHES}\n${lines.join("\n")}\n${END}${label}${DASHES}\n`;
}
