/** Custody in figures: dealing, opening a key, carrying requests to a signer, and what junk costs everybody else. */

import { generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { canonicalJson, type Json } from "../../src/audit/canonical-json.ts";
import { digestOf } from "../../src/audit/digest.ts";
import { startDealer } from "../../src/custody/dealer-process.ts";
import { openFrames } from "../../src/custody/frames.ts";
import type { Plan } from "../../src/custody/plan.ts";
import { newAgeIdentity } from "../../src/custody/sealed/age-file.ts";
import { encodeResults, lengthsOf } from "../../src/custody/sign-batch.ts";
import {
  fromSignerProtocol,
  toSignerProtocol,
  type FromSigner,
  type ToSigner,
} from "../../src/custody/signer-protocol.ts";
import { buildTbsCertList } from "../../src/x509/certificate-list.ts";
import { decodePem } from "../../src/x509/pem.ts";
import { namespaces } from "../../src/custody/statement.ts";
import { HomePeople } from "../support/home-people.ts";
import { sshSign } from "../support/people.ts";
import type { RunningService } from "../support/service.ts";

const DEALS = 7;
const OPENINGS = 5;
const JUNK = 1_000;

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

function processorMilliseconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** From the start of the process to its answer, milliseconds: a P-256 key, 3 of 5. */
export async function dealMilliseconds(): Promise<number> {
  const custodians = await Promise.all(
    ["alice", "bob", "carol", "dora", "erin"].map(async (operator) => ({
      operator,
      recipient: (await newAgeIdentity()).recipient,
      role: "custodian" as const,
    })),
  );
  const plan: Plan = {
    type: "countersign/plan/v1",
    service: "bench",
    issuer: "CN=Bench",
    key: { generate: "P-256" },
    payload: "pkcs8",
    epoch: 1,
    previous: null,
    threshold: 3,
    shareCount: 5,
    custodians,
    roster: digestOf(Buffer.from("a roster")),
    reason: "a figure",
  };
  const octets = Buffer.from(canonicalJson(plan as unknown as Json));
  const times: number[] = [];
  for (let run = 0; run < DEALS; run++) {
    const start = performance.now();
    const dealer = startDealer({});
    // oxlint-disable-next-line no-await-in-loop -- one after the other, or they would share the processors
    await dealer.deal({ plan: octets, planDigest: digestOf(octets), secret: "none" });
    times.push(performance.now() - start);
    dealer.kill();
  }
  return median(times);
}

/** From the request with the third share to the end of the ceremony that it opens, milliseconds. */
export async function openingMilliseconds(service: RunningService): Promise<number> {
  const people = new HomePeople(service);
  try {
    const { keyId } = await people.key("root");
    const issuerCertificate = decodePem(
      readFileSync(service.files.rootCertificate, "utf8"),
      "CERTIFICATE",
    );
    const times: number[] = [];
    for (let run = 0; run < OPENINGS; run++) {
      // Each later than the one before it (CRL-19), however fast they follow one another.
      const thisUpdate = new Date((Math.floor(Date.now() / 1000) - OPENINGS + run) * 1000);
      const tbs = buildTbsCertList({
        issuerCertificate,
        thisUpdate,
        nextUpdate: new Date(thisUpdate.getTime() + 86_400_000),
        number: BigInt(run + 2),
        entries: [],
      });
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      times.push(await oneOpening(service, people, keyId, tbs));
    }
    return median(times);
  } finally {
    people.remove();
  }
}

async function oneOpening(
  service: RunningService,
  people: HomePeople,
  keyId: string,
  tbs: Uint8Array,
): Promise<number> {
  const ceremony = await people.propose({
    kind: "sign",
    keyId,
    artefacts: [{ tbs: Buffer.from(tbs).toString("base64") }],
  });
  const unlock = await people.unlock(ceremony.id);
  const textOf = (id: string): string => people.shareText(id, people.shareFile(id, keyId));
  for (const [place, id] of ["alice", "bob"].entries()) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await people.submit(id, unlock.id, place + 1, textOf(id));
  }
  const third = await people.submission("carol", unlock.id, 3, textOf("carol"));
  const start = performance.now();
  const answer = await service.send(`/v1/unlocks/${unlock.id}/submissions`, third, {
    token: false,
  });
  if (answer.status !== 202) throw new Error(answer.body.toString());
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- until it has come
    const { state } = await people.ceremony(ceremony.id);
    if (["signed", "verified", "published"].includes(state)) return performance.now() - start;
    if (!["unlocking", "unlocked", "gathering"].includes(state)) throw new Error(state);
  }
}

export interface Transport {
  /** Microseconds of processor time that a request takes between keeper and signer, both ends. */
  readonly request: number;
  /** Microseconds of processor time of one P-256 `crypto.sign`. */
  readonly sign: number;
}

/** Carries requests to a signer that does nothing, in frames as the service fills them at concurrency 32. */
export async function transport(): Promise<Transport> {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const tbs = randomBytes(450);
  const intent = randomBytes(600);
  for (let count = 0; count < 2_000; count++) sign("sha256", tbs, privateKey);
  const before = processorMilliseconds();
  for (let count = 0; count < 20_000; count++) sign("sha256", tbs, privateKey);
  const signTime = (processorMilliseconds() - before) / 20;

  const [near, far] = await socketPair();
  const signature = { signature: randomBytes(71) };
  const signer = openFrames<ToSigner, FromSigner>(far, toSignerProtocol, {
    onMessage(message) {
      if (message.type !== "sign") return;
      const { lengths, body } = encodeResults(message.requests.map(() => signature));
      signer.send({ type: "signed", id: message.id, results: lengths }, ...body);
    },
    onEnd: () => undefined,
  });
  let answered: (() => void) | undefined;
  const keeper = openFrames<FromSigner, ToSigner>(near, fromSignerProtocol, {
    onMessage: () => answered?.(),
    onEnd: () => undefined,
  });
  const BATCH = 8;
  const requests = Array.from({ length: BATCH }, () => lengthsOf({ intentIndex: 1, intent, tbs }));
  const pieces = Array.from({ length: BATCH }, () => [intent, tbs]).flat();
  const carry = async (frames: number): Promise<void> => {
    for (let id = 0; id < frames; id++) {
      // oxlint-disable-next-line no-await-in-loop -- one frame at a time
      await new Promise<void>((resolve) => {
        answered = resolve;
        keeper.send({ type: "sign", id, requests, extension: null }, ...pieces);
      });
    }
  };
  await carry(2_000);
  const begin = processorMilliseconds();
  await carry(5_000);
  const request = ((processorMilliseconds() - begin) * 1000) / (5_000 * BATCH);
  keeper.destroy();
  signer.destroy();
  return { request, sign: signTime };
}

async function socketPair(): Promise<[Socket, Socket]> {
  const path = join(tmpdir(), `countersign-bench-${process.pid}.sock`);
  const server = createServer();
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const near = connect(path);
  const far = await accepted;
  server.close();
  return [near, far];
}

export interface JunkFigures {
  /** Certificates a second while junk comes, of those without. */
  readonly rate: number;
  /** Whether the custodian's own share was counted afterwards. */
  readonly counted: boolean;
}

/**
 * A stranger sends submissions in a custodian's name.
 *
 * @param load - certificates a second while `during` runs.
 */
export async function junk(
  service: RunningService,
  load: (during: () => Promise<unknown>) => Promise<number>,
): Promise<JunkFigures> {
  const people = new HomePeople(service);
  try {
    const { keyId } = await people.key("root");
    const window = {
      operations: [{ operation: "crl", max: 1 }],
      notBefore: new Date().toISOString(),
      notAfter: new Date(Date.now() + 3_600_000).toISOString(),
      idleSeconds: 3_600,
    };
    const ceremony = await people.propose({ kind: "window", keyId, window });
    const unlock = await people.unlock(ceremony.id);
    const text = people.shareText("bob", people.shareFile("bob", keyId));
    const real = await people.submission("bob", unlock.id, 2, text);
    const usual = await load(() => new Promise((resolve) => setTimeout(resolve, 3_000)));
    // Bob's words, and somebody else's signature: each of them must be looked at.
    const words = Buffer.from(real.submission, "base64");
    const forged = {
      ...real,
      signature: sshSign(people.fileOf("dora", "id_ed25519"), namespaces.submission, words),
    };
    const path = `/v1/unlocks/${unlock.id}/submissions`;
    const rate = await load(async () => {
      await Promise.all(
        Array.from({ length: 4 }, async () => {
          for (let count = 0; count < JUNK / 4; count++) {
            // oxlint-disable-next-line no-await-in-loop -- four at a time
            const { status } = await service.send(path, forged, { token: false });
            if (status === 202) throw new Error("junk was counted");
          }
        }),
      );
    });
    const answer = await service.send(path, real, { token: false });
    return { rate: rate / usual, counted: answer.status === 202 };
  } finally {
    people.remove();
  }
}
