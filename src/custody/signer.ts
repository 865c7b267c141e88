/**
 * What a signer enforces by itself: CUSTODY.md 7.5. Whoever has taken over the service can ask for what the grant
 * allows and the log has recorded, and for nothing else.
 */

import { digestOf } from "../audit/digest.ts";
import { leafHash } from "../audit/merkle.ts";
import { parseEntry, type LogEntryOf } from "../audit/entry.ts";
import { CountersignError } from "../errors.ts";
import { checkRoot, compileGate, refusal, type Gate } from "../gate/gate.ts";
import { compilePolicy } from "../policy/decide.ts";
import { parsePolicy } from "../policy/document.ts";
import { addLifetime, parseDuration } from "../policy/lifetime.ts";
import { parseRequesterStatement } from "../policy/requester.ts";
import { applyRecorded } from "../policy/requester-change.ts";
import {
  parseCertificateList,
  parseTbsCertList,
  type TbsCertList,
} from "../x509/certificate-list.ts";
import {
  extensionOf,
  parseCertificate,
  parseTbsCertificate,
  type TbsCertificate,
} from "../x509/certificate.ts";
import { parseCertificationRequestInfo } from "../x509/certification-request.ts";
import { DerError, DerReader, encodingOf, equalOctets, Tag } from "../x509/der.ts";
import { parseAuthorityKeyIdentifier, parseBasicConstraints } from "../x509/extension.ts";
import { readIssuer, type Issuer } from "../x509/issuer.ts";
import { extensionOids } from "../x509/oid.ts";
import { parsePublicKey, publicKeyObject, spkiDigest } from "../x509/public-key.ts";
import { serialNumberHex } from "../x509/serial-number.ts";
import { signatureAlgorithmFor, verifySignature } from "../x509/signature-algorithm.ts";
import { assembleSigned } from "../x509/signed.ts";
import {
  isDigests,
  isStanding,
  isWindow,
  policyDigest,
  windowOperation,
  type StandingGrant,
  type WindowGrant,
} from "./grant.ts";
import { openLogView, type LogExtension } from "./log-view.ts";
import { openGrant, type Allows, type OpenGrantParts } from "./open-grant.ts";
import { refusalOf } from "./refusal.ts";
import type { BatchRequest, SignResult } from "./sign-batch.ts";

/** A key that signs, wherever it is. */
export interface SigningKey {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array;
  /** A signature as X.509 wants it. */
  sign(tbs: Uint8Array): Promise<Uint8Array>;
}

export interface SignerParts extends OpenGrantParts {
  readonly key: SigningKey;
  /** The issuer's id in the policy. */
  readonly issuer: string;
  /** The policy document's text. */
  readonly policy: string;
  /** DER; undefined while a founding grant makes it. */
  readonly certificate: Uint8Array | undefined;
  /** DER; the issuer's issuer first. */
  readonly chain: readonly Uint8Array[];
  /** SHA-256 of the SubjectPublicKeyInfo of the CA keys of this installation, hex. */
  readonly caKeys: ReadonlySet<string>;
  /** Verifier key of the log. */
  readonly logKey: string;
  readonly head: { readonly note: string; readonly nodes: readonly Uint8Array[] } | undefined;
  /** The last CRL that the key signed: number, `sha256:<hex>`, and the CRL in base64. */
  readonly list:
    | { readonly number: string; readonly crl: string; readonly der: string }
    | undefined;
}

export interface ListRequest extends BatchRequest {
  /** The CRL before this one, DER. */
  readonly predecessor: Uint8Array | undefined;
  /** Certificates, DER, one after the other: expired, and no longer in the list. */
  readonly dropped: Uint8Array;
}

export interface SignedList {
  readonly signature: Uint8Array;
  readonly number: bigint;
  /** The CertificateList, DER. */
  readonly crl: Uint8Array;
}

export interface Signer {
  /**
   * Signs what passes, certificates and requests for one, and says of the rest why not: `grant-mismatch`,
   * `grant-exceeded` or a code of the gate.
   */
  sign(
    requests: readonly BatchRequest[],
    extension: LogExtension | undefined,
  ): Promise<SignResult[]>;
  /** @throws CountersignError as the refusals of `sign`. */
  signList(request: ListRequest, extension: LogExtension | undefined): Promise<SignedList>;
  /** Applies statements about requesters, canonical JSON that the keeper has verified, in order, as the keeper does. */
  changeRequesters(statements: readonly Uint8Array[]): void;
  /** Under a standing grant, those of the hour. */
  readonly signaturesLeft: number;
  readonly allows: Allows;
}

type Intent = LogEntryOf<"sign.intent">;

/** A CA as what it signs must name it. */
interface Identity {
  readonly issuer: Issuer;
  readonly gate: Gate;
}

const FIVE_MINUTES = 5 * 60 * 1000;
const SERIAL_NUMBER_OCTETS = { least: 8, most: 20 };

/** A CRL number far above the last would leave none for the CRLs after it. */
const CRL_NUMBER_STEP = 1n << 20n;
/** The journal's limit: its numbers are signed integers of 64 bits. */
const CRL_NUMBER_LIMIT = 1n << 63n;

/** Serial numbers that a signer remembers having signed, at least; twice as many at most, some 40 MB. */
const REMEMBERED_SERIAL_NUMBERS = 1 << 18;

/**
 * Makes the signer of one key.
 *
 * @throws CountersignError `grant-mismatch` if the policy is not the one that was granted, `grant-exceeded` if the
 *   window has ended already, `config-invalid` if the certificate is not that of the key, `policy-invalid`,
 *   `signature-invalid`.
 */
export function createSigner(parts: SignerParts): Signer {
  const { key, grant, now } = parts;
  const keyId = spkiDigest(key.publicKey);
  const publicKey = parsePublicKey(key.publicKey);
  const keyObject = publicKeyObject(publicKey);
  const algorithm = signatureAlgorithmFor(publicKey.type);
  const policy = compilePolicy(parsePolicy(parts.policy, "policy"));
  /** What the grant asks of requests that match it; undefined where it is for exact bytes. */
  const matching = isDigests(grant) ? undefined : grant;
  if (matching !== undefined && policyDigest(policy.policy) !== matching.policy) {
    throw new CountersignError(
      "grant-mismatch",
      `the grant is for another policy; this one has the digest ${policyDigest(policy.policy)}`,
    );
  }
  const log = openLogView(parts.logKey, parts.head);
  let list = parts.list === undefined ? undefined : readLastList(parts.list);
  const issued = rememberedSerialNumbers();
  let listTurn: Promise<unknown> = Promise.resolve();
  let identity =
    parts.certificate === undefined ? undefined : identify(parts.certificate, parts.chain);
  const open = openGrant(parts);

  function identify(certificate: Uint8Array, chain: readonly Uint8Array[]): Identity {
    const issuer = readIssuer(certificate);
    if (!equalOctets(issuer.publicKey.spki, key.publicKey)) {
      throw new CountersignError(
        "config-invalid",
        "the certificate is not that of the token's key",
      );
    }
    const { issuer: id, caKeys } = parts;
    const { crlUrl, caIssuersUrl }: Partial<StandingGrant | WindowGrant> = matching ?? {};
    const gate = compileGate({
      issuer: id,
      certificate,
      chain,
      policy,
      caKeys,
      ...(crlUrl === undefined ? {} : { crlUrl }),
      ...(caIssuersUrl === undefined ? {} : { caIssuersUrl }),
    });
    return { issuer, gate };
  }

  /** The logged intent of a request, which is spent with this. */
  function takeIntent(
    request: BatchRequest,
    operations: readonly Intent["data"]["operation"][],
  ): Intent {
    if (!log.spend(request.intentIndex, leafHash(request.intent))) {
      throw mismatch("no unspent intent of this request in the log");
    }
    const intent = parseEntry(request.intent);
    if (intent.type !== "sign.intent") throw mismatch(`a record of type ${intent.type} as intent`);
    const { subject, data } = intent;
    if (subject.keyId !== keyId) throw mismatch("an intent for another key");
    if (!operations.includes(data.operation)) throw mismatch("an intent for another operation");
    if (data.tbs !== digestOf(request.tbs)) throw mismatch("an intent for other bytes");
    // A CRL's intent need not name the policy, which has no rules for CRLs.
    const named = data.policy ?? (data.operation === "crl" ? undefined : "no policy");
    if (matching !== undefined && named !== undefined && named !== matching.policy) {
      throw mismatch("an intent under a policy that is not granted");
    }
    return intent;
  }

  function requireIdentity(): Identity {
    if (identity === undefined)
      throw mismatch("a key without a certificate, which signs its own first");
    return identity;
  }

  function checkAlgorithm(identifier: Uint8Array): void {
    if (!equalOctets(identifier, algorithm.identifier)) {
      throw mismatch("a signature algorithm that is not that of the key");
    }
  }

  function checkIssuer(
    issuer: Uint8Array,
    authorityKeyIdentifier: Uint8Array | undefined,
  ): Identity {
    const ca = requireIdentity();
    if (!equalOctets(issuer, ca.issuer.name))
      throw mismatch("an issuer name that is not this CA's");
    if (
      authorityKeyIdentifier === undefined ||
      !equalOctets(authorityKeyIdentifier, ca.issuer.keyIdentifier)
    ) {
      throw mismatch("an authority key identifier that is not this CA's");
    }
    return ca;
  }

  function checkLeaf(tbs: TbsCertificate, intent: Intent, ca: Identity, at: Date): void {
    const { profile } = intent.data;
    if (profile === undefined || intent.actor.kind !== "requester") {
      throw mismatch("an intent that names no profile or no requester");
    }
    if (isStanding(grant) && !grant.profiles.includes(profile)) {
      throw mismatch(`profile ${profile}, which the grant does not have`);
    }
    const rules = policy.policy.profiles.get(profile);
    if (rules === undefined) throw mismatch(`profile ${profile}, which the policy does not have`);
    if (isCa(tbs)) throw mismatch("a certificate of a CA");
    if (tbs.notAfter > ca.issuer.notAfter) throw mismatch("a certificate that outlives its CA");
    if (tbs.notAfter > addLifetime(tbs.notBefore, rules.lifetime.maximum)) {
      throw mismatch("a lifetime longer than the profile's");
    }
    if (equalOctets(tbs.subjectPublicKeyInfo, key.publicKey))
      throw mismatch("the CA's own key as subject");
    refusal(ca.gate.checkCertificate(tbs.der, { profile, requester: intent.actor.id, now: at }));
  }

  function checkCertificate(tbs: TbsCertificate, intent: Intent, at: Date): void {
    checkAlgorithm(tbs.signatureAlgorithm);
    const { serialNumber } = tbs;
    if (
      serialNumber.length < SERIAL_NUMBER_OCTETS.least ||
      serialNumber.length > SERIAL_NUMBER_OCTETS.most ||
      serialNumber[0]! >= 0x80
    ) {
      throw mismatch("a serial number that is not positive and of 8 to 20 octets");
    }
    if (intent.subject.serialNumber !== serialNumberHex(serialNumber)) {
      throw mismatch("an intent for another serial number, or for none");
    }
    if (tbs.notAfter <= at) throw mismatch("a certificate that has ended already");
    if (list?.revoked.has(latin1(serialNumber)) === true) {
      throw mismatch("a serial number that its last CRL revokes");
    }
    if (matching !== undefined) {
      const ca = checkIssuer(tbs.issuer, authorityKeyIdentifierOf(tbs));
      checkLeaf(tbs, intent, ca, at);
      if (!issued.add(latin1(serialNumber))) {
        throw mismatch("a serial number that it has signed before");
      }
      return;
    }
    if (tbs.notBefore > at) throw mismatch("notBefore later than now");
    if (equalOctets(tbs.subjectPublicKeyInfo, key.publicKey)) {
      if (!equalOctets(tbs.issuer, tbs.subject)) throw mismatch("the CA's own key as subject");
      refusal(checkRoot(tbs.der, { now: at }));
      return;
    }
    const ca = checkIssuer(tbs.issuer, authorityKeyIdentifierOf(tbs));
    if (isCa(tbs)) refusal(ca.gate.checkCaCertificate(tbs.der, { now: at }));
    else checkLeaf(tbs, intent, ca, at);
  }

  /** What another CA is to certify. Its bytes were granted; that they are a request, and of this key, is checked here. */
  function checkRequest(tbs: Uint8Array): void {
    const { subjectPublicKeyInfo } = parseCertificationRequestInfo(tbs);
    if (!equalOctets(subjectPublicKeyInfo, key.publicKey)) {
      throw mismatch("a certification request for another key");
    }
  }

  /** That a grant for requests that match has this one's kind, and in a window its requester. */
  function requireOperation({ actor, data: { operation, profile } }: Intent): void {
    if (isStanding(grant) && !grant.operations.some((granted) => granted === operation)) {
      throw mismatch(`operation ${operation}, which the grant does not have`);
    }
    if (!isWindow(grant)) return;
    const { window } = grant;
    // No record of the log has a label, so no request can be shown to carry one that was approved.
    if (window.labels !== undefined) throw mismatch("a request without a label of the window");
    if (windowOperation(window, operation, profile) < 0) {
      const named = profile === undefined ? "" : ` of profile ${profile}`;
      throw mismatch(`operation ${operation}${named}, which the window does not have`);
    }
    // Nobody requests a CRL: the service makes it when it is due.
    if (
      operation === "certificate" &&
      window.requesters !== undefined &&
      (actor.kind !== "requester" || !window.requesters.includes(actor.id))
    ) {
      throw mismatch("a request of a requester that the window does not have");
    }
  }

  /**
   * Counts, signs, and verifies. A count or a digest is gone before the key is used, whatever happens then; only a
   * digest whose signature was never made comes back.
   */
  async function use(tbs: Uint8Array, { operation, profile }: Intent["data"]): Promise<Uint8Array> {
    const giveBack = open.spend({ tbs, operation, profile });
    let signature: Uint8Array;
    try {
      signature = await key.sign(tbs);
    } catch (error) {
      giveBack();
      throw error;
    }
    if (!verifySignature(keyObject, algorithm, tbs, signature)) {
      throw new CountersignError(
        "token-unavailable",
        "the token made a signature that does not verify; it was thrown away",
      );
    }
    open.signed();
    return signature;
  }

  async function signOne(request: BatchRequest, at: Date): Promise<SignResult> {
    try {
      open.check();
      const intent = takeIntent(request, ["certificate", "request"]);
      requireOperation(intent);
      const isRequest = intent.data.operation === "request";
      if (isRequest) checkRequest(request.tbs);
      else checkCertificate(parseTbsCertificate(request.tbs), intent, at);
      const signature = await use(request.tbs, intent.data);
      if (identity === undefined && !isRequest) {
        // The founding of a root: from here on it signs as what it has just called itself.
        identity = identify(assembleSigned(request.tbs, algorithm.identifier, signature), []);
      }
      return { signature };
    } catch (error) {
      return { refusal: refusalOf(asRefusal(error)) };
    }
  }

  function checkList(
    tbs: TbsCertList,
    request: ListRequest,
    intent: Intent,
    at: Date,
  ): Revocations {
    checkAlgorithm(tbs.signatureAlgorithm);
    const ca = checkIssuer(tbs.issuer, tbs.authorityKeyIdentifier);
    if (intent.data.number !== undefined && intent.data.number !== tbs.crlNumber.toString()) {
      throw mismatch("an intent for another CRL number");
    }
    if (list !== undefined && tbs.crlNumber <= list.number) {
      throw mismatch(
        `CRL number ${tbs.crlNumber}, which is not above the last one, ${list.number}`,
      );
    }
    if (matching !== undefined) {
      if (Math.abs(tbs.thisUpdate.getTime() - at.getTime()) > FIVE_MINUTES) {
        throw mismatch("thisUpdate more than five minutes from now");
      }
      const longest = parseDuration(matching.maximumCrlLifetime) * 1000;
      if (tbs.nextUpdate.getTime() - tbs.thisUpdate.getTime() > longest) {
        throw mismatch(`nextUpdate later than the grant allows, ${matching.maximumCrlLifetime}`);
      }
    } else if (tbs.thisUpdate > at) {
      throw mismatch("thisUpdate later than now");
    }
    const dropped = splitCertificates(request.dropped);
    const revoked = revocationsOf(tbs);
    const last = checkPredecessor(tbs, request.predecessor, dropped, revoked);
    if (tbs.crlNumber > last + CRL_NUMBER_STEP || tbs.crlNumber >= CRL_NUMBER_LIMIT) {
      throw mismatch(`CRL number ${tbs.crlNumber}, which is too far above the last one, ${last}`);
    }
    refusal(
      ca.gate.checkCertificateList(request.tbs, {
        now: at,
        dropped,
        ...(request.predecessor === undefined ? {} : { predecessor: request.predecessor }),
      }),
    );
    return revoked;
  }

  /**
   * No entry vanishes or is dated anew: who could drop one would undo a revocation.
   *
   * An entry goes with its certificate, which must have ended before the predecessor. A twin, a second certificate
   * with the serial number that ends earlier, would serve as well; so none is signed that has ended, whose serial
   * number the last CRL revokes, or that this process remembers. What is left is a twin that was made before the
   * revocation, by a process that a restart has ended since, and that was valid on the day of the revocation: the log
   * has two intents with its serial number.
   *
   * @returns the number of the predecessor; 0 if there is none.
   */
  function checkPredecessor(
    tbs: TbsCertList,
    der: Uint8Array | undefined,
    dropped: readonly Uint8Array[],
    revoked: Revocations,
  ): bigint {
    if (der === undefined) {
      if (list !== undefined) throw mismatch("a CRL without the one before it");
      return 0n;
    }
    if (list !== undefined && digestOf(der) !== list.crl) {
      throw mismatch("a predecessor that is not the last CRL of this key");
    }
    const predecessor = parseCertificateList(der);
    if (!verifySignature(keyObject, algorithm, predecessor.tbs, predecessor.signature)) {
      throw mismatch("a predecessor that this key did not sign");
    }
    if (predecessor.crlNumber >= tbs.crlNumber) throw mismatch("a predecessor of a higher number");
    const ended = new Map<string, TbsCertificate>();
    for (const certificate of dropped) {
      const gone = endedCertificate(certificate, predecessor.thisUpdate);
      ended.set(latin1(gone.serialNumber), gone);
    }
    for (const { serialNumber, revocationDate } of predecessor.entries()) {
      const name = latin1(serialNumber);
      const date = revoked.get(name);
      if (date === revocationDate.getTime()) continue;
      const entry = `the entry ${serialNumberHex(serialNumber)} of the one before it`;
      if (date !== undefined) throw mismatch(`a CRL with another revocation date in ${entry}`);
      const certificate = ended.get(name);
      if (certificate === undefined) throw mismatch(`a CRL without ${entry}`);
      if (revocationDate < certificate.notBefore || revocationDate > certificate.notAfter) {
        throw mismatch("a dropped certificate that was not valid when it was revoked");
      }
    }
    return predecessor.crlNumber;
  }

  function endedCertificate(der: Uint8Array, before: Date): TbsCertificate {
    const { tbs, signature } = parseCertificate(der);
    if (!verifySignature(keyObject, algorithm, tbs.der, signature)) {
      throw mismatch("a dropped certificate that this key did not sign");
    }
    if (tbs.notAfter >= before) {
      throw mismatch("a dropped certificate that had not expired at the last CRL");
    }
    return tbs;
  }

  async function signOneList(request: ListRequest, at: Date): Promise<SignedList> {
    open.check();
    const intent = takeIntent(request, ["crl"]);
    requireOperation(intent);
    const tbs = parseTbsCertList(request.tbs);
    const revoked = checkList(tbs, request, intent, at);
    const signature = await use(request.tbs, intent.data);
    const crl = assembleSigned(request.tbs, algorithm.identifier, signature);
    list = { number: tbs.crlNumber, crl: digestOf(crl), revoked };
    return { signature, number: tbs.crlNumber, crl };
  }

  return {
    sign(requests, extension) {
      return open.during(() => {
        try {
          if (extension !== undefined) log.extend(extension);
        } catch (error) {
          const refused = { refusal: refusalOf(error) };
          return Promise.resolve(requests.map(() => refused));
        }
        const at = now();
        return Promise.all(requests.map((request) => signOne(request, at)));
      });
    },
    signList(request, extension) {
      return open.during(() => {
        try {
          if (extension !== undefined) log.extend(extension);
        } catch (error) {
          return Promise.reject(error as Error);
        }
        // One after the other: each is checked against the one before it.
        const turn = listTurn.then(() => signOneList(request, now()));
        listTurn = turn.catch(() => {});
        return turn.catch((error: unknown) => {
          throw asRefusal(error);
        });
      });
    },
    changeRequesters(statements) {
      for (const statement of statements) {
        // What cannot be applied the keeper has reported.
        applyRecorded(
          policy,
          parseRequesterStatement(JSON.parse(Buffer.from(statement).toString("utf8"))),
        );
      }
    },
    get signaturesLeft() {
      return open.signaturesLeft;
    },
    get allows() {
      return open.allows;
    },
  };
}

interface LastList {
  readonly number: bigint;
  /** `sha256:<hex>` of the CRL. */
  readonly crl: string;
  readonly revoked: Revocations;
}

/** Times of revocation, milliseconds, by serial number as `latin1` writes it. */
type Revocations = ReadonlyMap<string, number>;

function readLastList({ number, crl, der }: NonNullable<SignerParts["list"]>): LastList {
  const octets = Buffer.from(der, "base64");
  if (digestOf(octets) !== crl) {
    throw new CountersignError("rolled-back", "the last CRL is not the one that the key signed");
  }
  return { number: BigInt(number), crl, revoked: revocationsOf(parseCertificateList(octets)) };
}

function revocationsOf(list: TbsCertList): Revocations {
  const revoked = new Map<string, number>();
  for (const { serialNumber, revocationDate } of list.entries()) {
    revoked.set(latin1(serialNumber), revocationDate.getTime());
  }
  return revoked;
}

/** Remembers the newest; `add` is false for one that it knows. */
function rememberedSerialNumbers(): { add(serialNumber: string): boolean } {
  let newer = new Set<string>();
  let older = new Set<string>();
  return {
    add(serialNumber) {
      if (newer.has(serialNumber) || older.has(serialNumber)) return false;
      if (newer.size === REMEMBERED_SERIAL_NUMBERS) {
        older = newer;
        newer = new Set();
      }
      newer.add(serialNumber);
      return true;
    },
  };
}

/** The shortest string that stands for some octets: there may be a million. */
function latin1(octets: Uint8Array): string {
  return Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString("latin1");
}

function isCa(tbs: TbsCertificate): boolean {
  const extension = extensionOf(tbs, extensionOids.basicConstraints);
  return extension !== undefined && parseBasicConstraints(extension.value).cA;
}

function authorityKeyIdentifierOf(tbs: TbsCertificate): Uint8Array | undefined {
  const extension = extensionOf(tbs, extensionOids.authorityKeyIdentifier);
  return extension && parseAuthorityKeyIdentifier(extension.value).keyIdentifier;
}

function splitCertificates(der: Uint8Array): Uint8Array[] {
  const certificates: Uint8Array[] = [];
  const reader = new DerReader(der);
  while (!reader.atEnd) certificates.push(encodingOf(reader.read(Tag.sequence)));
  return certificates;
}

/** Bytes that the strict readers refuse are not what was granted. */
function asRefusal(error: unknown): unknown {
  return error instanceof DerError || error instanceof SyntaxError
    ? mismatch(`bytes that cannot be read: ${error.message}`, error)
    : error;
}

function mismatch(detail: string, cause?: unknown): CountersignError {
  return new CountersignError("grant-mismatch", `the signer was given ${detail}`, { cause });
}
