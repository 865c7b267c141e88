/** How often the PIN of a token was tried: three wrong tries lock a token. */

import { statSync } from "node:fs";
import { CountersignError } from "../errors.ts";
import {
  reportUnwritten,
  type FileFingerprint,
  type KeeperState,
  type StateFile,
} from "./keeper-state.ts";

/** A PIN is handed to this many signers that end without a word. */
const PIN_TRIES = 2;

export interface PinTries {
  /**
   * Three wrong tries lock a token, so a PIN file that was refused, or may have been, is not tried again.
   *
   * @throws CountersignError `pin-wrong`.
   */
  check(): void;
  /** Whether the token has refused what the file holds. */
  refused(): boolean;
  /**
   * Writes down that the PIN is about to be tried. Where that cannot be written it is not tried: a token that
   * refused it could not be remembered either, and every start would take one of its tries.
   *
   * @throws CountersignError `token-unavailable`.
   */
  begin(): void;
  /** The token has taken the PIN. */
  accepted(): void;
  /** The token has not opened, but it is known what it said to the PIN. */
  failed(code: string | null): void;
}

/** @param issuer - The key's, by whose name the tries are kept. */
export function pinTries(issuer: string, pinFile: string, stateFile: StateFile): PinTries {
  /** The PIN file as it was when it was last tried. */
  let file: FileFingerprint | undefined;

  /** It is known what the token said to the PIN. Where that cannot be written, the try stays on record. */
  function settle(update: (state: KeeperState) => void): void {
    try {
      stateFile.change((state) => {
        delete state.triedPins[issuer];
        update(state);
      });
    } catch (error) {
      reportUnwritten(error);
    }
  }

  return {
    check() {
      const { wrongPins, triedPins } = stateFile.state;
      const now = fingerprintOf(pinFile);
      const wrong = wrongPins[issuer];
      const tried = triedPins[issuer];
      const repair =
        "Put the right PIN into the file, or touch the file if it is right after all, and start again.";
      if (wrong !== undefined && sameFile(wrong, now)) {
        throw new CountersignError(
          "pin-wrong",
          `The token refused the PIN of issuer ${issuer}, and its PIN file has not changed since. It is not tried ` +
            `again, because three wrong tries lock a token. ${repair}`,
        );
      }
      if (tried !== undefined && tried.tries >= PIN_TRIES && sameFile(tried.file, now)) {
        throw new CountersignError(
          "pin-wrong",
          `${tried.tries} signers in a row ended while they opened the token of issuer ${issuer}, so it is not known ` +
            `whether it refused the PIN. It is not tried again, because three wrong tries lock a token. ${repair}`,
        );
      }
    },
    refused() {
      const wrong = stateFile.state.wrongPins[issuer];
      return wrong !== undefined && sameFile(wrong, fingerprintOf(pinFile));
    },
    begin() {
      const now = fingerprintOf(pinFile);
      file = now;
      if (now === undefined) return; // without a file there is no PIN; the signer says what is wrong with it
      const tried = stateFile.state.triedPins[issuer];
      const tries = tried !== undefined && sameFile(tried.file, now) ? tried.tries + 1 : 1;
      try {
        stateFile.change((state) => {
          state.triedPins[issuer] = { file: now, tries };
        });
      } catch (error) {
        reportUnwritten(error);
        throw new CountersignError(
          "token-unavailable",
          "the keeper's state file cannot be written, and no PIN is tried without it",
          { cause: error },
        );
      }
    },
    accepted() {
      settle((state) => delete state.wrongPins[issuer]);
    },
    failed(code) {
      settle((state) => {
        if (code === "pin-wrong" && file !== undefined) state.wrongPins[issuer] = file;
      });
    },
  };
}

function fingerprintOf(file: string): FileFingerprint | undefined {
  try {
    const { mtimeMs, size, ino } = statSync(file);
    return { modified: mtimeMs, size, inode: ino };
  } catch {
    return undefined; // the signer says what is wrong with it
  }
}

function sameFile(a: FileFingerprint, b: FileFingerprint | undefined): boolean {
  return b !== undefined && a.modified === b.modified && a.size === b.size && a.inode === b.inode;
}
