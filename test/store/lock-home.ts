/** A process that takes the lock of a home: `lock-home.js FILE hold|try`. */

import { lockHome } from "../../src/store/database.ts";

const [file, mode] = process.argv.slice(2) as [string, string];
try {
  await lockHome(file);
  console.log("locked");
  if (mode === "hold") setInterval(() => {}, 60_000);
} catch (error) {
  console.log((error as { code?: string }).code);
}
