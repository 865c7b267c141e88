import { test } from "vitest";
import { randomBytes } from "node:crypto";
import { serialNumberFrom } from "../../src/x509/serial-number.ts";
const now = () => { const u = process.cpuUsage(); return (u.user + u.system) / 1000; };
test("bench", () => {
  const n = 1_000_000;
  const entries = Array.from({ length: n }, () => ({ serialNumber: serialNumberFrom(randomBytes(20)) }));
  let t = now();
  const lap = (l: string) => { console.log(l, now() - t, "ms"); t = now(); };
  for (let k = 0; k < 2; k++) {
  let s = 0; for (const e of entries) s += e.serialNumber[3]!;
  lap("sequential " + s);
  let order = new Uint32Array(n); for (let i = 0; i < n; i++) order[i] = i;
  for (const at of [4, 2, 0]) {
    const digits = new Uint16Array(n); const next = new Uint32Array(0x10001);
    for (let i = 0; i < n; i++) { const o = entries[i]!.serialNumber; digits[i] = ((o[at] ?? 0) << 8) | (o[at + 1] ?? 0); next[digits[i]! + 1]!++; }
    lap("digits");
    for (let d = 1; d < next.length; d++) next[d]! += next[d - 1]!;
    const sorted = new Uint32Array(n);
    for (const i of order) sorted[next[digits[i]!]!++] = i;
    order = sorted;
    lap("scatter");
  }
  const sorted: (typeof entries)[number][] = []; for (const i of order) sorted.push(entries[i]!);
  lap("gather");
  s = 0; for (const e of sorted) s += e.serialNumber[3]!;
  lap("random read " + s);
  s = 0; for (const e of sorted) s += e.serialNumber[5]!;
  lap("random read " + s);
  }
}, 120000);
