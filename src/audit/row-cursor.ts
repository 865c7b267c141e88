/** Rows in the order of the index of their record, taken as the records come by. */
export class RowCursor<Row> {
  readonly #rows: AsyncIterator<Row>;
  readonly #indexOf: (row: Row) => number;
  readonly #orphan: (row: Row) => void;
  #next: Row | undefined;
  #ended = false;

  constructor(rows: AsyncIterable<Row>, indexOf: (row: Row) => number, orphan: (row: Row) => void) {
    this.#rows = rows[Symbol.asyncIterator]();
    this.#indexOf = indexOf;
    this.#orphan = orphan;
  }

  /** The row of the record at `index`. Rows passed over have no record, and so has a second row of one record. */
  async at(index: number): Promise<Row | undefined> {
    for (let row = await this.#peek(); row !== undefined; row = await this.#peek()) {
      if (this.#indexOf(row) > index) {
        return undefined;
      }
      this.#next = undefined;
      if (this.#indexOf(row) === index) {
        return row;
      }
      this.#orphan(row);
    }
    return undefined;
  }

  /** All rows of the record at `index`, for a table that has any number of them. */
  async allAt(index: number): Promise<Row[]> {
    const rows: Row[] = [];
    for (let row = await this.at(index); row !== undefined; row = await this.at(index)) {
      rows.push(row);
    }
    return rows;
  }

  /** Rows that no record asked for. */
  async finish(): Promise<void> {
    await this.at(Number.POSITIVE_INFINITY);
  }

  async #peek(): Promise<Row | undefined> {
    if (this.#next === undefined && !this.#ended) {
      const { value, done } = (await this.#rows.next()) as IteratorResult<Row, undefined>;
      this.#next = value;
      this.#ended = done === true;
    }
    return this.#next;
  }
}
