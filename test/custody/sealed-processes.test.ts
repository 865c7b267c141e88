import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { encodePem } from "../../src/x509/pem.ts";
import { digestOf } from "./keeper-home.ts";
import {
  agreementOf,
  beginUnlock,
  dealByProcess,
  FollowedLog,
  logAndSign,
  openingFor,
  publicKeyOf,
  rootTbs,
  submitAll,
} from "./opened-key.ts";
import { SealedHome } from "./sealed-home.ts";

let people: SealedHome;
beforeAll(() => {
  people = new SealedHome();
});
afterAll(() => people.remove());

test.for(["P-256", "P-384", "RSA-2048", "Ed25519"] as const)(
  "a %s key is dealt to three, opened by two, and signs what OpenSSL verifies",
  async (generate) => {
    const plan = people.plan(2, 3, { key: { generate } });
    const dealt = await dealByProcess(plan);
    const log = new FollowedLog();
    const open = await beginUnlock(people, dealt, log);
    await submitAll(people, open, ["carol", "alice"]);
    await open.unlocker.open(agreementOf(people, open.stated));
    const tbs = rootTbs(publicKeyOf(dealt));
    const { publicKey } = await open.signer.open(() => openingFor(dealt, log, [tbs]));
    expect(digestOf(publicKey)).toBe(`sha256:${dealt.shareSet.keyId}`);
    const signature = await logAndSign(open.signer, log, publicKey, tbs);
    const at = (name: string): string => join(people.directory, name);
    writeFileSync(at("key.pem"), encodePem("PUBLIC KEY", publicKey));
    writeFileSync(at("tbs"), tbs);
    writeFileSync(at("signature"), signature);
    const digest =
      generate === "Ed25519" ? [] : ["-digest", generate === "P-384" ? "sha384" : "sha256"];
    const verified = execFileSync("openssl", [
      ...["pkeyutl", "-verify", "-pubin", "-inkey", at("key.pem"), "-rawin", ...digest],
      ...["-in", at("tbs"), "-sigfile", at("signature")],
    ]);
    expect(verified.toString()).toContain("Signature Verified Successfully");
    expect(await open.unlocker.ended).toBe("opened");
    open.signer.kill();
    expect(await open.signer.ended).toBe("killed");
  },
);
