/** The numbers of a split secret. */

/** Octets of a KEK, and of the value in a share. */
export const KEK_LENGTH = 32;

/** Custodians of one key, at most. */
export const MAX_SHARES = 32;

export interface Sharing {
  /** How many shares open it: 2 to `shareCount`. */
  readonly threshold: number;
  /** How many there are: at most 32. */
  readonly shareCount: number;
}
