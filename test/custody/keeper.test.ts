import { afterEach, expect, test } from "vitest";
import { createPublicKey, verify } from "node:crypto";
import { newKeeperHome, startWithLog, leafTbs, logAndSign, type KeeperHome } from "./keeper-home.ts";

test("signs", async () => {
  const home = await newKeeperHome();
  console.time("start");
  const { keeper, log } = await startWithLog(home);
  console.timeEnd("start");
  console.log(await keeper.status());
  const tbs = leafTbs(home);
  const signature = await logAndSign(home, keeper, log, tbs);
  const key = createPublicKey({ key: Buffer.from(home.token.publicKey), format: "der", type: "spki" });
  expect(verify("sha256", tbs, key, signature)).toBe(true);
  await keeper.close();
  home.remove();
});
