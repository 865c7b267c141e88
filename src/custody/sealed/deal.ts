/** What the dealer does, in a process of its own that ends with it: CUSTODY.md 3.2, step 3. */

import { createPublicKey, generateKeyPairSync, hash, sign, type KeyObject } from "node:crypto";
import { digestOf } from "../../audit/digest.ts";
import { parsePublicKey, publicKeyObject } from "../../x509/public-key.ts";
import { signatureAlgorithmFor, verifySignature } from "../../x509/signature-algorithm.ts";
import type { DealtKeyType, Plan, ShareSet } from "../plan.ts";
import { openSealedKey, privateKeyOf, readSealedKey, sealKey } from "./sealed-key.ts";
import {
  commitmentOf,
  commitmentsHash,
  decodeShare,
  encodeShare,
  type ShareContext,
} from "./share.ts";
import { sealShareFile } from "./share-file.ts";
import { KEK_LENGTH, recoverKek, splitKek, type Random } from "./shamir.ts";

export interface DealParts {
  readonly plan: Plan;
  /** `sha256:` and the hex digest of the plan's octets. */
  readonly planDigest: string;
  /** What a reshare or a seal around a key in use takes over: the secret, and the public key that it is for. */
  readonly secret?: { readonly octets: Uint8Array; readonly publicKey: Uint8Array };
  readonly random: Random;
}

export interface Dealt {
  /** CSKB. */
  readonly sealed: Buffer;
  /** In the order of the shares. */
  readonly files: readonly Uint8Array[];
  readonly shareSet: ShareSet;
}

/**
 * Makes the key (or takes the one it is given), and a KEK that it seals and splits; opens what it made with the first
 * and with the last shares; and encrypts each share to its custodian.
 *
 * Nothing but what is returned leaves this function, and all of that is public or encrypted.
 *
 * @throws Error if any check of what was made fails. Nothing of it may be used then.
 */
export async function deal({ plan, planDigest, secret, random }: DealParts): Promise<Dealt> {
  const { octets, publicKey } = secret ?? makeKey(plan);
  const kek = random(KEK_LENGTH);
  try {
    const keyId = hash("sha256", publicKey, "buffer");
    if ("use" in plan.key && keyId.toString("hex") !== plan.key.use) {
      throw new Error("the secret is not that of the key that the plan names");
    }
    const { epoch, threshold, shareCount } = plan;
    const context: ShareContext = { keyId, epoch, threshold, shareCount };
    const points = splitKek(kek, plan, random);
    const commitments = points.map((point) => commitmentOf(context, point));
    const sealed = sealKey(
      { ...context, payload: plan.payload, commitmentsHash: commitmentsHash(commitments) },
      octets,
      kek,
      random(32),
    );
    // As an unlock will do it, from the text of the shares on.
    const read = points.map((point) => decodeShare(encodeShare(context, point)));
    for (const some of [read.slice(0, threshold), read.slice(-threshold)]) {
      proveOpening(sealed, recoverKek(some, plan), octets, publicKey);
    }
    const files = await Promise.all(
      points.map((point, index) => {
        const { operator, recipient } = plan.custodians[index]!;
        return sealShareFile(context, point, recipient, {
          service: plan.service,
          issuer: plan.issuer,
          custodian: operator,
          plan: planDigest,
        });
      }),
    );
    for (const { y } of [...points, ...read]) y.fill(0);
    return {
      sealed,
      files,
      shareSet: {
        type: "countersign/share-set/v1",
        keyId: keyId.toString("hex"),
        publicKey: Buffer.from(publicKey).toString("base64"),
        epoch,
        suite: 1,
        threshold,
        shareCount,
        sealed: digestOf(sealed),
        previous: plan.previous,
        binding: "none",
        plan: planDigest,
        roster: plan.roster,
        custodians: plan.custodians.map(({ operator, recipient, role }, index) => ({
          index: index + 1,
          operator,
          recipient,
          commit: Buffer.from(commitments[index]!.commit).toString("hex"),
          proof: Buffer.from(commitments[index]!.proof).toString("hex"),
          file: digestOf(files[index]!),
          role,
        })),
      },
    };
  } finally {
    kek.fill(0);
    octets.fill(0);
  }
}

/** Opens what was sealed, and has a private key sign one message. */
function proveOpening(
  sealed: Uint8Array,
  kek: Buffer,
  secret: Uint8Array,
  publicKey: Uint8Array,
): void {
  const opened = openSealedKey(sealed, kek);
  try {
    if (!opened.equals(secret)) throw new Error("the shares open another secret than was sealed");
    const key = privateKeyOf(readSealedKey(sealed), opened);
    if (key !== undefined) signTestMessage(key, publicKey);
  } finally {
    opened.fill(0);
    kek.fill(0);
  }
}

function signTestMessage(key: KeyObject, spki: Uint8Array): void {
  const info = parsePublicKey(spki);
  const algorithm = signatureAlgorithmFor(info.type);
  const message = Buffer.from("countersign: a test of a new key");
  const signature = sign(algorithm.hash, message, key);
  if (!verifySignature(publicKeyObject(info), algorithm, message, signature)) {
    throw new Error("the new key makes signatures that do not verify");
  }
}

/** PKCS#8 and SubjectPublicKeyInfo, DER. */
function makeKey({ key, payload }: Plan): { octets: Buffer; publicKey: Buffer } {
  if (!("generate" in key) || payload !== "pkcs8") {
    throw new Error("this plan needs the secret of a key in use");
  }
  const privateKey = generate(key.generate);
  return {
    octets: privateKey.export({ format: "der", type: "pkcs8" }),
    publicKey: createPublicKey(privateKey).export({ format: "der", type: "spki" }),
  };
}

function generate(type: DealtKeyType): KeyObject {
  switch (type) {
    case "P-256":
    case "P-384":
      return generateKeyPairSync("ec", { namedCurve: type }).privateKey;
    case "RSA-2048":
    case "RSA-3072":
    case "RSA-4096":
      return generateKeyPairSync("rsa", { modulusLength: Number(type.slice("RSA-".length)) })
        .privateKey;
    case "Ed25519":
      return generateKeyPairSync("ed25519").privateKey;
  }
}
