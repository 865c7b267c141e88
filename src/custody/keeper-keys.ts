/** The keys of the keeper's configuration, each with its signer. */

import { CountersignError } from "../errors.ts";
import { parseCertificate } from "../x509/certificate.ts";
import { spkiDigest } from "../x509/public-key.ts";
import type { KeyConfig } from "./keeper-config.ts";
import { createKey, type Key, type KeyParts } from "./keeper-key.ts";
import type { StatusBody } from "./keeper-protocol.ts";
import { returnReservations } from "./signature-count.ts";

const READY_MILLISECONDS = 15_000;

export interface KeeperKeys {
  /** When each key that opens by itself has opened or failed, or some seconds are over. */
  readonly ready: Promise<void>;
  readonly all: readonly Key[];
  /** @throws CountersignError `key-unknown`. */
  of(keyId: string): Key;
  changeRequesters(statements: readonly Uint8Array[]): void;
  status(): Promise<StatusBody["keys"]>;
  /** Ends the signers at once. */
  stop(): void;
}

/** Starts a signer for each key that may have one. */
export function startKeys(
  configured: readonly KeyConfig[],
  parts: Omit<KeyParts, "caKeys">,
): KeeperKeys {
  const caKeys = configured.flatMap(({ keyId, certificate, chain }) => [
    ...(keyId === undefined ? [] : [keyId]),
    ...[...(certificate === undefined ? [] : [certificate]), ...chain].map((der) =>
      spkiDigest(parseCertificate(der).tbs.subjectPublicKeyInfo),
    ),
  ]);
  let becomeReady: () => void;
  const ready = new Promise<void>((resolve) => {
    becomeReady = resolve;
    setTimeout(resolve, READY_MILLISECONDS).unref();
  });
  const keys = configured.map((config) =>
    createKey(config, { ...parts, caKeys: [...new Set(caKeys)] }, report),
  );
  for (const key of keys) key.start();
  report();

  function report(): void {
    if (keys.every(({ reported }) => reported)) becomeReady();
  }

  return {
    ready,
    all: keys,
    of(keyId) {
      const key = keys.find((candidate) => candidate.keyId === keyId);
      if (key === undefined) throw new CountersignError("key-unknown", `there is no key ${keyId}`);
      return key;
    },
    changeRequesters(statements) {
      for (const key of keys) key.changeRequesters(statements);
    },
    status: () => Promise.all(keys.map((key) => key.status())),
    stop() {
      for (const key of keys) key.kill();
      returnReservations(parts.stateFile, keys, parts.now());
    },
  };
}
