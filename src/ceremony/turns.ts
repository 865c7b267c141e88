/** Steps of one thing, one after the other: two that come at once must not both find that they are the first. */

export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();

  /** Does the work when all that was asked of the same thing before is done, or has failed. */
  inTurn<Value>(of: string, work: () => Promise<Value>): Promise<Value> {
    const before = this.#last.get(of) ?? Promise.resolve();
    const done = before.then(work);
    const settled = done.then(
      () => undefined,
      () => undefined,
    );
    this.#last.set(of, settled);
    void settled.then(() => {
      if (this.#last.get(of) === settled) this.#last.delete(of);
    });
    return done;
  }

  /** When nothing is under way. */
  async idle(): Promise<void> {
    while (this.#last.size > 0) {
      // oxlint-disable-next-line no-await-in-loop -- what is under way may ask for more
      await Promise.all(this.#last.values());
    }
  }
}
