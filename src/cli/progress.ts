/** A bar on standard error for what takes longer than a second, on terminals only. */

const DELAY_MILLISECONDS = 1_000;
const REDRAW_MILLISECONDS = 100;
const WIDTH = 30;

export interface Progress {
  /** @param total - Unknown when absent. */
  update(done: number, total?: number): void;
  /** Takes the bar away. */
  end(): void;
}

/** @param what - What is counted: `entries`. */
export function startProgress(what: string): Progress {
  const terminal = process.stderr;
  if (!terminal.isTTY) return { update: () => undefined, end: () => undefined };
  const started = Date.now();
  let drawn = 0;
  return {
    update(done, total) {
      const now = Date.now();
      if (now - started < DELAY_MILLISECONDS || now - drawn < REDRAW_MILLISECONDS) return;
      drawn = now;
      terminal.write(`\r\u001b[K${bar(done, total)} ${what}`);
    },
    end() {
      if (drawn > 0) terminal.write("\r\u001b[K");
    },
  };
}

function bar(done: number, total: number | undefined): string {
  if (total === undefined || total === 0) return `${done}`;
  const filled = Math.round((WIDTH * Math.min(done, total)) / total);
  return `[${"#".repeat(filled)}${".".repeat(WIDTH - filled)}] ${done} of ${total}`;
}
