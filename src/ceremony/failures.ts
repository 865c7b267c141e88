/** Who is not heard for a while: CUSTODY.md 6.5. */

import { CountersignError } from "../errors.ts";

const WHILE_MILLISECONDS = 15 * 60_000;

/** Shares that were wrong or somebody else's. */
const FAILURES_OF_OPERATOR = 5;
/** Signatures that did not verify. */
const FAILURES_OF_ADDRESS = 20;
/** Requests to be enrolled that one address sends in a while. */
const ENROLMENTS_OF_ADDRESS = 10;

/** What is forgotten first when a stranger makes up more than this. */
const REMEMBERED = 10_000;

/** Times at which something happened, by whom. */
class Recent {
  readonly #times = new Map<string, number[]>();

  count(whose: string, now: Date): number {
    const from = now.getTime() - WHILE_MILLISECONDS;
    // A clock that was set back must not keep anybody out.
    const times = (this.#times.get(whose) ?? []).filter(
      (time) => time > from && time <= now.getTime(),
    );
    if (times.length === 0) this.#times.delete(whose);
    else this.#times.set(whose, times);
    return times.length;
  }

  /** @returns how many there are with this one. */
  add(whose: string, now: Date): number {
    const count = this.count(whose, now);
    const times = this.#times.get(whose) ?? [];
    this.#times.delete(whose);
    this.#times.set(whose, [...times, now.getTime()]);
    if (this.#times.size > REMEMBERED) {
      this.#times.delete(this.#times.keys().next().value!);
    }
    return count + 1;
  }
}

export class Failures {
  readonly #now: () => Date;
  readonly #ofOperators = new Recent();
  readonly #ofAddresses = new Recent();
  readonly #enrolments = new Recent();
  readonly #known = new Set<string>();

  constructor(now: () => Date) {
    this.#now = now;
  }

  /** @throws CountersignError `rate-limited` for an operator who failed too often. */
  requireOperator(operator: string): void {
    if (this.#ofOperators.count(operator, this.#now()) >= FAILURES_OF_OPERATOR) {
      throw limited(
        `${operator} sent ${FAILURES_OF_OPERATOR} shares that were wrong or another's within 15 minutes`,
      );
    }
  }

  /** @returns whether the operator is not heard from now on. */
  operatorFailed(operator: string): boolean {
    return this.#ofOperators.add(operator, this.#now()) === FAILURES_OF_OPERATOR;
  }

  /**
   * Counts a signature that did not verify. One that does is never refused for its address.
   *
   * @throws CountersignError `rate-limited` for an address that sent too many of them.
   */
  addressFailed(address: string): void {
    if (this.#ofAddresses.add(address, this.#now()) > FAILURES_OF_ADDRESS) {
      throw limited(
        `${FAILURES_OF_ADDRESS} signatures from this address did not verify within 15 minutes`,
      );
    }
  }

  /** @throws CountersignError `rate-limited`. */
  enrols(address: string): void {
    if (this.#enrolments.add(address, this.#now()) > ENROLMENTS_OF_ADDRESS) {
      throw limited(`this address asked ${ENROLMENTS_OF_ADDRESS} times within 15 minutes`);
    }
  }

  /**
   * Whether this refusal of these very bytes is new: whoever has seen a signed statement can send it again as often as
   * they like, and must fill neither the log nor the count of the one who signed it.
   */
  isNew(statement: string, code: string): boolean {
    const refusal = `${statement} ${code}`;
    if (this.#known.has(refusal)) return false;
    this.#known.add(refusal);
    if (this.#known.size > REMEMBERED) this.#known.delete(this.#known.values().next().value!);
    return true;
  }
}

function limited(why: string): CountersignError {
  return new CountersignError("rate-limited", `${why}: wait 15 minutes`);
}
