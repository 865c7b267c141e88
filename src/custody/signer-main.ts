/** The signer: a process of its own for one key in a token (CUSTODY.md 7.1). Locking is its end. */

import { outliveSignals } from "./harden.ts";
import { Socket } from "node:net";
import { openFrames } from "./frames.ts";
import { readExtension } from "./log-view.ts";
import { refusalOf, type Refusal } from "./refusal.ts";
import { cut, encodeResults } from "./sign-batch.ts";
import {
  openingSchema,
  toSignerProtocol,
  type FromSigner,
  type Opening,
  type ToSigner,
} from "./signer-protocol.ts";
import { createSigner, type Signer } from "./signer.ts";
import { readPin } from "./token/pin-file.ts";
import { openToken, type Token } from "./token/token.ts";

outliveSignals();

let token: Token | undefined;
let signer: Signer | undefined;
let opened = false;

const frames = openFrames<ToSigner, FromSigner>(new Socket({ fd: 3 }), toSignerProtocol, {
  onMessage: receive,
  onEnd(error) {
    if (error !== undefined) console.error(`signer: ${error.message}`);
    process.exit(error === undefined ? 0 : 1);
  },
});

/** What it throws ends the process. */
function receive(message: ToSigner, body: Uint8Array): void {
  if (message.type === "open") {
    if (opened) throw new Error("opened a second time");
    opened = true;
    try {
      signer = open(openingSchema.parse(JSON.parse(Buffer.from(body).toString("utf8"))));
    } catch (error) {
      frames.send({ type: "failed", ...refusalOf(error) });
    }
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
        token!.check();
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

function open(opening: Opening): Signer {
  const now = (): Date => new Date();
  const { issuer, grant, alreadySigned, usedDigests, policy, logKey } = opening;
  token = openTokenOf(opening, now);
  const { key } = token;
  const signer = createSigner({
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
  });
  frames.send({ type: "opened" }, key.publicKey);
  return signer;
}

function openTokenOf({ module, uri, pinFile }: Opening, now: () => Date): Token {
  const pin = readPin(pinFile);
  try {
    return openToken({ modulePath: module, uri, pin, now });
  } finally {
    pin.fill(0);
  }
}

function octets(base64: string): Uint8Array {
  return Buffer.from(base64, "base64");
}
