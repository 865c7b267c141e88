/** The keys of the keeper's configuration, each with its signer. */

import { CountersignError } from "../errors.ts";
import { parseCertificate } from "../x509/certificate.ts";
import { spkiDigest } from "../x509/public-key.ts";
import type { KeyConfig } from "./keeper-config.ts";
import { createKey, type Hold, type Key, type KeyParts, type OpenKey } from "./keeper-key.ts";
import type { StatusBody } from "./keeper-protocol.ts";
import { returnReservations } from "./signature-count.ts";

const READY_MILLISECONDS = 15_000;

export interface KeeperKeys {
  /** When each key has opened or failed, or some seconds are over. */
  readonly ready: Promise<void>;
  /** @throws CountersignError `key-unknown`, or, if the key is not open, what says why. */
  open(keyId: string): OpenKey;
  /**
   * Ends the signer of a key at once, and lets none start from now on.
   *
   * @throws CountersignError `key-unknown`.
   */
  hold(keyId: string, by: Hold): void;
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
  const caKeys = configured.flatMap(({ certificate, chain }) =>
    [...(certificate === undefined ? [] : [certificate]), ...chain].map((der) =>
      spkiDigest(parseCertificate(der).tbs.subjectPublicKeyInfo),
    ),
  );
  let becomeReady: () => void;
  const ready = new Promise<void>((resolve) => {
    becomeReady = resolve;
    setTimeout(resolve, READY_MILLISECONDS).unref();
  });
  const keys = configured.map((config) => createKey(config, { ...parts, caKeys }, report));
  for (const key of keys) key.start();
  report();

  function report(): void {
    if (keys.every(({ reported }) => reported)) becomeReady();
  }

  function keyOf(keyId: string): Key {
    const key = keys.find((candidate) => candidate.keyId === keyId);
    if (key === undefined) throw new CountersignError("key-unknown", `there is no key ${keyId}`);
    return key;
  }

  return {
    ready,
    open: (keyId) => keyOf(keyId).open(),
    hold: (keyId, by) => keyOf(keyId).hold(by),
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
