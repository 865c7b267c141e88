/** A QR code in text: two modules a character, one above the other. ISO/IEC 18004. */

import encodeQr from "qr";

const QUIET_MODULES = 4;

/**
 * The text of a share as a QR code: version 4, error correction M, alphanumeric (CUSTODY.md 2.4).
 *
 * @param dark - what is drawn where a character stands: on paper the dark modules, on a dark terminal the light ones.
 */
export function shareQr(text: string, drawn: "dark" | "light"): string[] {
  const modules = encodeQr(text, "raw", {
    ecc: "medium",
    encoding: "alphanumeric",
    version: 4,
    border: QUIET_MODULES,
  });
  const isDrawn = (row: number, column: number): boolean =>
    (modules[row]?.[column] ?? false) === (drawn === "dark");
  const lines: string[] = [];
  for (let row = 0; row < modules.length; row += 2) {
    const line = modules[row]!.map((_, column) => {
      const above = isDrawn(row, column);
      const below = row + 1 < modules.length && isDrawn(row + 1, column);
      return above ? (below ? "█" : "▀") : below ? "▄" : " ";
    });
    lines.push(line.join("").trimEnd());
  }
  return lines;
}
