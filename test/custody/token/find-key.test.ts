import pkcs11 from "pkcs11js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openToken } from "../../../src/custody/token/token.ts";
import {
  generateKey,
  initToken,
  newTokenHome,
  type TokenHome,
  withSession,
} from "../../support/softhsm.ts";

let home: TokenHome;

beforeAll(() => {
  home = newTokenHome();
  process.env.SOFTHSM2_CONF = home.conf;
  initToken(home, "t", "user pin");
  initToken(home, "double", "user pin");
  initToken(home, "double", "user pin");
  withSession(home, "t", "user pin", (session) => {
    generateKey(session, "a", 1);
    generateKey(session, "half", 2);
    session.destroy({ class: pkcs11.CKO_PRIVATE_KEY, label: "half" });
    generateKey(session, "twice", 3);
    generateKey(session, "twice", 4);
    generateKey(session, "same1", 5);
    generateKey(session, "same2", 5);
    generateKey(session, "extractable", 6, { extractable: true });
    generateKey(session, "plain", 7, { sensitive: false });
    generateKey(session, "mute", 8, { sign: false });
    generateKey(session, "nameless", undefined);
  });
});
afterAll(() => home.remove());

async function outcome(uri: string): Promise<unknown> {
  try {
    const token = openToken({ modulePath: home.modulePath, uri, pin: Buffer.from("user pin") });
    await token.close();
    return "opened";
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
}

test.for([
  { name: "no key of that name", uri: "pkcs11:token=t;object=c", want: "key-unknown" },
  { name: "no key of that CKA_ID", uri: "pkcs11:token=t;object=a;id=%09", want: "key-unknown" },
  { name: "the public key alone", uri: "pkcs11:token=t;object=half", want: "key-unknown" },
  { name: "two keys of one name", uri: "pkcs11:token=t;object=twice", want: "key-ambiguous" },
  {
    name: "two private keys of one CKA_ID",
    uri: "pkcs11:token=t;object=same1",
    want: "key-ambiguous",
  },
  { name: "several keys and no name", uri: "pkcs11:token=t", want: "key-ambiguous" },
  { name: "two tokens of one name", uri: "pkcs11:token=double;object=a", want: "key-ambiguous" },
  { name: "no such token", uri: "pkcs11:token=absent;object=a", want: "token-unavailable" },
  {
    name: "another serial number",
    uri: "pkcs11:token=t;serial=00;object=a",
    want: "token-unavailable",
  },
  { name: "another model", uri: "pkcs11:token=t;model=x;object=a", want: "token-unavailable" },
  { name: "another module", uri: "pkcs11:library-manufacturer=x", want: "config-invalid" },
  { name: "a public key", uri: "pkcs11:token=t;object=a;type=public", want: "config-invalid" },
  { name: "an extractable key", uri: "pkcs11:token=t;object=extractable", want: "key-refused" },
  { name: "a key that can be read", uri: "pkcs11:token=t;object=plain", want: "key-refused" },
  { name: "a key that may not sign", uri: "pkcs11:token=t;object=mute", want: "key-refused" },
  {
    name: "one of two keys of a name, by CKA_ID",
    uri: "pkcs11:token=t;object=twice;id=%04",
    want: "opened",
  },
  { name: "a key by its CKA_ID alone", uri: "pkcs11:token=t;id=%01", want: "opened" },
  {
    name: "a key by all a token's texts",
    uri: "pkcs11:token=t;manufacturer=SoftHSM%20project;model=SoftHSM%20v2;object=a;type=private;library-manufacturer=SoftHSM;library-description=Implementation%20of%20PKCS11",
    want: "opened",
  },
])("a URI that names $name: $want", async ({ uri, want }) => {
  expect(await outcome(uri)).toBe(want);
});
