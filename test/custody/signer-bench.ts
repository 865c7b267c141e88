/** A signer with its keys in this process, and a service that asks it for whatever a test likes. */

import { generateKeyPairSync, randomBytes } from "node:crypto";
import { checkpointText } from "../../src/audit/checkpoint.ts";
import { encodeEntry, type Actor } from "../../src/audit/entry.ts";
import { leafHash } from "../../src/audit/merkle.ts";
import { noteSigner, signNote } from "../../src/audit/signed-note.ts";
import { policyDigest, type Grant } from "../../src/custody/grant.ts";
import type { LogExtension } from "../../src/custody/log-view.ts";
import type { Over } from "../../src/custody/open-grant.ts";
import { errorOf } from "../../src/custody/refusal.ts";
import {
  createSigner,
  type ListRequest,
  type Signer,
  type SignerParts,
} from "../../src/custody/signer.ts";
import { parsePolicy } from "../../src/policy/document.ts";
import { buildTbsCertList, type RevokedCertificate } from "../../src/x509/certificate-list.ts";
import {
  buildTbsCertificate,
  certificateTemplate,
  type CertificateFields,
  type CertificateLeaf,
} from "../../src/x509/certificate-template.ts";
import { parseTbsCertificate } from "../../src/x509/certificate.ts";
import {
  DerReader,
  element,
  encodingOf,
  sequence,
  Tag,
  type DerElement,
} from "../../src/x509/der.ts";
import { encodeExtension } from "../../src/x509/extension.ts";
import { emptyName } from "../../src/x509/name.ts";
import { extKeyUsageOids } from "../../src/x509/oid.ts";
import { spkiDigest } from "../../src/x509/public-key.ts";
import { serialNumberFrom } from "../../src/x509/serial-number.ts";
import { assembleSigned } from "../../src/x509/signed.ts";
import { refused } from "../support/refused.ts";
import { DAY, softwareCa, softwareKey, type SoftwareKey } from "../support/software-ca.ts";
import { digestOf, policyText, TestLog, webRequester, type IntentChange } from "./keeper-home.ts";

export const HOUR = 3_600_000;
export const now = new Date("2026-11-21T12:00:00Z");
export const ca = softwareCa(new Date(now.getTime() - 100 * DAY));
export const key = ca.issuingKey;
export const leafKey = softwareKey("P-256");
export const logKey = noteSigner("test.example/audit", generateKeyPairSync("ed25519").privateKey);
export const policy = policyDigest(parsePolicy(policyText, "policy"));
export const standing: Grant = {
  operations: ["certificate", "crl"],
  profiles: ["server", "short"],
  policy,
  signaturesPerHour: 1000,
  maximumCrlLifetime: "8d",
};

export interface AskedIntent extends Omit<IntentChange, "operation"> {
  readonly operation?: "certificate" | "crl" | "request";
}

export interface Logged {
  readonly intentIndex: number;
  readonly intent: Uint8Array;
  readonly extension: LogExtension;
}

export interface Bench {
  readonly signer: Signer;
  readonly clock: TestClock;
  /** Why the signer has said that its grant is over, each time that it did. */
  readonly over: readonly Over[];
  /** Logs an intent; the extension is from the head that the signer was last shown. */
  readonly logged: (tbs: Uint8Array, change?: AskedIntent) => Logged;
  readonly sign: (tbs: Uint8Array, change?: AskedIntent) => Promise<Uint8Array | Error>;
  readonly signList: (
    tbs: Uint8Array,
    change?: AskedIntent & Partial<Pick<ListRequest, "predecessor" | "dropped">>,
  ) => Promise<Uint8Array | Error>;
}

/** Both clocks of a signer, and its timers. */
export class TestClock {
  wall = now.getTime();
  #steady = 0;
  #timers: { readonly at: number; readonly callback: () => void }[] = [];

  readonly now = (): Date => new Date(this.wall);
  readonly monotonic = (): number => this.#steady / 1000;
  readonly schedule = (callback: () => void, milliseconds: number): void => {
    this.#timers.push({ at: this.#steady + milliseconds, callback });
  };

  /** Lets milliseconds pass on both clocks, and whatever was scheduled happen in time. */
  pass(milliseconds: number): void {
    const end = this.#steady + milliseconds;
    for (;;) {
      const next = this.#timers.reduce((first, { at }) => Math.min(first, at), Infinity);
      const to = Math.min(next, end);
      this.wall += to - this.#steady;
      this.#steady = to;
      if (next > end) return;
      const due = this.#timers.filter(({ at }) => at <= to);
      this.#timers = this.#timers.filter(({ at }) => at > to);
      for (const { callback } of due) callback();
    }
  }
}

export function bench(change: Partial<SignerParts> = {}): Bench {
  const clock = new TestClock();
  const over: Over[] = [];
  const log = new TestLog();
  let seen = 0;
  const keyId = spkiDigest(change.key?.publicKey ?? key.info.spki);
  const signer = createSigner({
    key: signingKey(key),
    issuer: "issuing",
    grant: standing,
    alreadySigned: 0,
    usedDigests: [],
    policy: policyText,
    certificate: ca.issuing,
    chain: [ca.root],
    caKeys: new Set([ca.rootKey.keyId, ca.issuingKey.keyId]),
    logKey: logKey.verifierKey.text,
    head: undefined,
    list: undefined,
    now: clock.now,
    monotonic: clock.monotonic,
    schedule: clock.schedule,
    onOver: (reason) => over.push(reason),
    ...change,
  });
  function logged(tbs: Uint8Array, asked: AskedIntent = {}): Logged {
    const intent = intentFor(tbs, asked, keyId);
    const intentIndex = log.add(intent);
    const size = log.range.end;
    const note = signNote(checkpointText(logKey.name, size, log.range.root()), logKey);
    const leaves = log.leaves.slice(seen).map(leafHash);
    const extension = { from: seen, first: seen, size, note, nodes: [], leaves };
    seen = size;
    return { intentIndex, intent, extension };
  }
  return {
    signer,
    clock,
    over,
    logged,
    async sign(tbs, asked = {}) {
      const { extension, ...request } = logged(tbs, asked);
      const [result] = await signer.sign([{ ...request, tbs }], extension);
      return "signature" in result! ? result.signature : errorOf(result!.refusal);
    },
    async signList(tbs, { predecessor, dropped = new Uint8Array(0), ...asked } = {}) {
      const { extension, ...request } = logged(tbs, { operation: "crl", ...asked });
      try {
        return (await signer.signList({ ...request, tbs, predecessor, dropped }, extension)).crl;
      } catch (error) {
        return error as Error;
      }
    },
  };
}

export function signingKey(from: SoftwareKey): SignerParts["key"] {
  return { publicKey: from.info.spki, sign: (tbs) => Promise.resolve(from.sign(tbs)) };
}

export function intentFor(tbs: Uint8Array, change: AskedIntent, keyId: string): Uint8Array {
  const { operation = "certificate", actor = webRequester, number } = change;
  const profile = change.profile ?? (operation === "certificate" ? "server" : undefined);
  const serialNumber =
    change.serialNumber === undefined && operation === "certificate"
      ? Buffer.from(parseTbsCertificate(tbs).serialNumber).toString("hex")
      : change.serialNumber;
  const named = change.policy === undefined ? policy : change.policy;
  return encodeEntry({
    type: "sign.intent",
    at: now,
    actor: actor satisfies Actor,
    subject: {
      issuer: "issuing",
      keyId: change.keyId ?? keyId,
      ...(typeof serialNumber === "string" ? { serialNumber } : {}),
    },
    data: {
      operation,
      tbs: digestOf(tbs),
      ...(named === null ? {} : { policy: named }),
      ...(profile === undefined ? {} : { profile }),
      ...(number === undefined ? {} : { number }),
    },
  });
}

export const newSerialNumber = (): Uint8Array => serialNumberFrom(randomBytes(20));

export function leafTbs(
  leaf: Partial<CertificateLeaf> = {},
  fields: Partial<CertificateFields> = {},
): Uint8Array {
  const template = certificateTemplate({
    issuerCertificate: ca.issuing,
    keyUsage: ["digitalSignature"],
    extKeyUsage: [extKeyUsageOids.serverAuth],
    crlUrl: "http://pki.example.test/crl/issuing.crl",
    caIssuersUrl: "http://pki.example.test/ca/issuing.cer",
    subjectKeyIdentifier: false,
    ...fields,
  });
  return buildTbsCertificate(template, {
    serialNumber: newSerialNumber(),
    notBefore: new Date(now.getTime() - 60_000),
    notAfter: new Date(now.getTime() + 10 * DAY),
    subject: emptyName,
    publicKey: leafKey.info,
    names: [{ kind: "dns", value: "a.example.test" }],
    ...leaf,
  });
}

/** What the key has signed at some time: behind the signer's back. */
export function signed(tbs: Uint8Array): Uint8Array {
  return assembleSigned(tbs, ca.algorithm, key.sign(tbs));
}

export function crlTbs(
  number: bigint,
  entries: readonly RevokedCertificate[] = [],
  thisUpdate: Date = now,
): Uint8Array {
  const nextUpdate = new Date(thisUpdate.getTime() + 7 * DAY);
  return buildTbsCertList({
    issuerCertificate: ca.issuing,
    thisUpdate,
    nextUpdate,
    number,
    entries,
  });
}

export function elementsOf(outer: DerElement): Uint8Array[] {
  const reader = DerReader.inside(outer);
  const elements: Uint8Array[] = [];
  while (!reader.atEnd) elements.push(encodingOf(reader.readAny()));
  return elements;
}

/** The same CRL with one extension more. */
export function withCrlExtension(tbs: Uint8Array, oid: string, value: Uint8Array): Uint8Array {
  const fields = elementsOf(DerReader.whole(tbs, Tag.sequence));
  const [list] = elementsOf(DerReader.whole(fields.pop()!, 0xa0));
  const extensions = elementsOf(DerReader.whole(list!, Tag.sequence));
  extensions.push(encodeExtension({ oid, critical: true, value }));
  return sequence(...fields, element(0xa0, sequence(...extensions)));
}

export const mismatch = (detail: RegExp): unknown => refused("grant-mismatch", detail);

export function listOf(crl: Uint8Array, number: string): NonNullable<SignerParts["list"]> {
  return { number, crl: digestOf(crl), der: Buffer.from(crl).toString("base64") };
}

/** The same octets with one run in the place of another. */
export function replaced(
  octets: Uint8Array,
  old: Uint8Array,
  by: Uint8Array,
  last = false,
): Uint8Array {
  const copy = Buffer.from(octets);
  const place = last ? copy.lastIndexOf(old) : copy.indexOf(old);
  if (place < 0 || old.length !== by.length) throw new Error("nothing to replace");
  copy.set(by, place);
  return copy;
}
