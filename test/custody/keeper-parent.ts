/** A service that does nothing but keep a keeper: to be killed. */

import { startKeeper } from "../../src/custody/keeper-client.ts";

await startKeeper({ configFile: process.argv[2]! });
console.log("ready");
