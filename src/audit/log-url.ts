/** The log as a service publishes it: C2SP tlog-tiles over HTTP. */

import type { LogSource } from "./log-source.ts";

/** The largest bundle: 256 entries of 65,535 octets, each after two of length. */
const MAX_BUNDLE_LENGTH = 256 * (2 + 65_535);

export interface UrlLogOptions {
  /** For entries that are not public. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Milliseconds for one answer, whole. */
  readonly timeout?: number;
}

/**
 * A log under a prefix such as `https://ca.example.com/audit`. `read` rejects when the server does not answer, or
 * with anything but the resource or 404 and 410.
 *
 * @throws TypeError if it is not an http or https URL.
 */
export function urlLogSource(prefix: string, options: UrlLogOptions = {}): LogSource {
  const base = new URL(prefix.endsWith("/") ? prefix : `${prefix}/`);
  if (base.protocol !== "http:" && base.protocol !== "https:") {
    throw new TypeError(`a log is read over http or https, not ${base.protocol}`);
  }
  const { headers = {}, timeout = 30_000 } = options;
  return {
    async read(path) {
      const url = new URL(path, base);
      const response = await fetch(url, { headers, signal: AbortSignal.timeout(timeout) });
      if (response.status === 404 || response.status === 410) {
        await response.body?.cancel();
        return undefined;
      }
      if (response.status !== 200 || response.body === null) {
        await response.body?.cancel();
        throw new Error(`${url.href} answered ${response.status}`);
      }
      const parts: Uint8Array[] = [];
      let length = 0;
      for await (const part of response.body as AsyncIterable<Uint8Array>) {
        length += part.length;
        if (length > MAX_BUNDLE_LENGTH) {
          throw new Error(`${url.href} is longer than anything in a log`);
        }
        parts.push(part);
      }
      return Buffer.concat(parts);
    },
  };
}
