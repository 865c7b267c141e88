/**
 * Turns on the one thread. When many requests arrive at once, preparing them all would hold up those that are further:
 * neither the disk nor the signer has anything to do meanwhile, and then the thread waits for both.
 */

/** Waits for its turn. */
export type Turn = () => Promise<void>;

/**
 * @param most - how many get their turn before the event loop goes round; the others wait, in order, while answers of
 *   the disk and the signer are taken.
 */
export function takeTurns(most: number): Turn {
  const waiting: (() => void)[] = [];
  const next = (): void => {
    for (const begin of waiting.splice(0, most)) begin();
    if (waiting.length > 0) setImmediate(next);
  };
  return () =>
    new Promise((resolve) => {
      if (waiting.push(resolve) === 1) setImmediate(next);
    });
}
