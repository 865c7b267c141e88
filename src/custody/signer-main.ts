/** The signer: a process of its own for one key, in a token or out of a seal (CUSTODY.md 7.1). Locking is its end. */

import { outliveSignals } from "./harden.ts";
import { CountersignError } from "../errors.ts";
import { spkiDigest } from "../x509/public-key.ts";
import { readHandOff } from "./hand-off.ts";
import { readExtension } from "./log-view.ts";
import { openParentFrames } from "./parent-frames.ts";
import { refusalOf, type Refusal } from "./refusal.ts";
import { cut, encodeResults } from "./sign-batch.ts";
import {
  openingSchema,
  toSignerProtocol,
  type FromSigner,
  type Opening,
  type SealedOpening,
  type ToSigner,
} from "./signer-protocol.ts";
import { createSigner, type Signer, type SigningKey } from "./signer.ts";
import { softwareKey } from "./software-key.ts";
import { readPin } from "./token/pin-file.ts";
import type { Token } from "./token/token.ts";

outliveSignals();

let token: Token | undefined;
let signer: Signer | undefined;
let opened = false;

const frames = openParentFrames<ToSigner, FromSigner>("signer", toSignerProtocol, receive);

/** What it throws ends the process. */
function receive(message: ToSigner, body: Uint8Array): void {
  if (message.type === "open") {
    if (opened) throw new Error("opened a second time");
    opened = true;
    const opening = openingSchema.parse(JSON.parse(Buffer.from(body).toString("utf8")));
    open(opening).catch((error: unknown) => frames.send({ type: "failed", ...refusalOf(error) }));
    return;
  }
  if (signer === undefined) throw new Error(`${message.type} before the key was open`);
  switch (message.type) {
    case "sign": {
      const cutter = cut(body);
      const extension = readExtension(message.extension, cutter);
      const requests = message.requests.map((lengths) => cutter.request(lengths));
      cutter.finish();
      void signer.sign(requests, extension).then((results) => {
        for (const result of results) {
          if ("refusal" in result) reportPin(result.refusal);
        }
        const { lengths, body: pieces } = encodeResults(results);
        frames.send({ type: "signed", id: message.id, results: lengths }, ...pieces);
      });
      return;
    }
    case "sign-list": {
      const cutter = cut(body);
      const extension = readExtension(message.extension, cutter);
      const request = {
        ...cutter.request(message.request),
        predecessor: message.predecessor === 0 ? undefined : cutter.take(message.predecessor),
        dropped: cutter.take(message.dropped),
      };
      cutter.finish();
      const { id } = message;
      signer.signList(request, extension).then(
        ({ signature, number, crl }) =>
          frames.send(
            { type: "list-signed", id, number: number.toString(), signature: signature.length },
            signature,
            crl,
          ),
        (error: unknown) => {
          const refusal = refusalOf(error);
          reportPin(refusal);
          frames.send({ type: "refused", id, ...refusal });
        },
      );
      return;
    }
    case "requesters": {
      const cutter = cut(body);
      signer.changeRequesters(message.statements.map((length) => cutter.take(length)));
      cutter.finish();
      return;
    }
    case "status": {
      const { id } = message;
      try {
        token?.check();
        frames.send({ type: "status", id, signaturesLeft: signer.signaturesLeft });
      } catch (error) {
        const refusal = refusalOf(error);
        reportPin(refusal);
        frames.send({ type: "refused", id, ...refusal });
      }
      return;
    }
  }
}

/** A PIN that the token refuses when it comes back must not be tried by the next process either. */
function reportPin(refusal: Refusal): void {
  if (refusal.code === "pin-wrong") frames.send({ type: "failed", ...refusal });
}

async function open(opening: Opening | SealedOpening): Promise<void> {
  const now = (): Date => new Date();
  const { issuer, grant, alreadySigned, usedDigests, policy, logKey } = opening;
  const key = await openKey(opening, now);
  signer = createSigner({
    key,
    issuer,
    grant,
    alreadySigned,
    usedDigests,
    policy,
    logKey,
    certificate: opening.certificate === null ? undefined : octets(opening.certificate),
    chain: opening.chain.map(octets),
    caKeys: new Set(opening.caKeys),
    head:
      opening.head === null
        ? undefined
        : { note: opening.head.note, nodes: opening.head.nodes.map(octets) },
    list: opening.list ?? undefined,
    now,
    monotonic: () => performance.now() / 1000,
    // What was in hand has been answered by then.
    ...("sealed" in opening
      ? { onOver: (reason) => frames.sendLast({ type: "over", reason }) }
      : {}),
  });
  frames.send({ type: "opened" }, key.publicKey);
}

async function openKey(opening: Opening | SealedOpening, now: () => Date): Promise<SigningKey> {
  if ("pinFile" in opening) {
    const { module, uri, pinFile } = opening;
    return openTokenWith(readPin(pinFile), { module, uri }, now);
  }
  const { sealed } = opening;
  const secret = readHandOff();
  if (sealed.payload === "pkcs8") return softwareKey(secret, sealed.keyId);
  const key = await openTokenWith(secret, sealed, now);
  if (spkiDigest(key.publicKey) !== sealed.keyId) {
    throw new CountersignError("key-refused", "the PIN that was opened is that of another key");
  }
  return key;
}

/** @param pin - wiped. */
async function openTokenWith(
  pin: Uint8Array,
  { module, uri }: { readonly module: string; readonly uri: string },
  now: () => Date,
): Promise<SigningKey> {
  try {
    // Loaded only here: a signer without a token may load no addons.
    const { openToken } = await import("./token/token.ts");
    token = openToken({ modulePath: module, uri, pin, now });
    return token.key;
  } finally {
    pin.fill(0);
  }
}

function octets(base64: string): Uint8Array {
  return Buffer.from(base64, "base64");
}
