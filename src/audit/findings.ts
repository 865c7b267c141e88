/** What a verifier has to say. */

/** Something that is not as it should be, or, as a notice, something to know. */
export interface Finding {
  /** `LOG-1` and so on: the numbers of AUDIT-LOG 9.6. */
  readonly rule: string;
  /** `checkpoint`, `entry 1234`, `tile/0/004 hash 210`, `issued_certificate issuing/00ff`, … */
  readonly position: string;
  readonly detail: string;
}

export const MAX_FINDINGS = 1000;

/** Collects failures; the first thousand by name. */
export class Findings {
  readonly list: Finding[] = [];
  more = 0;
  readonly #rule: string;

  constructor(rule: string) {
    this.#rule = rule;
  }

  add(position: string, detail: string): void {
    if (this.list.length < MAX_FINDINGS) {
      this.list.push({ rule: this.#rule, position, detail });
    } else {
      this.more++;
    }
  }
}
