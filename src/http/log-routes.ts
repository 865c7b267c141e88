/** The audit log: checkpoint and tiles as C2SP tlog-tiles lays them out, and the proof for one certificate. */

import { z } from "zod";
import { formatLogProof } from "../audit/proof.ts";
import { encodeEntryBundle, inclusionProof, parseTilePath, TILE_WIDTH } from "../audit/tiles.ts";
import { CountersignError } from "../errors.ts";
import type { Caller } from "../issuance/caller.ts";
import { visibleCertificate } from "./certificate-routes.ts";
import { newestCheckpoint } from "./log-head.ts";
import type { HttpParts } from "./parts.ts";
import { route, type Access, type Route } from "./route.ts";
import { certificateParams } from "./schemas.ts";

const HASH_OCTETS = 32;

const OCTETS = "application/octet-stream";

export function logRoutes(parts: HttpParts): Route[] {
  const { log, reads } = parts;
  // Who may read entries is known at start, and with it whether credentials are looked at.
  const access: Access = parts.publicEntries ? "public" : "anyone";

  const checkpoint = route({
    method: "GET",
    path: "/audit/checkpoint",
    site: "both",
    access: "public",
    id: "getCheckpoint",
    summary: "The newest signed checkpoint of the log",
    answers: {
      200: { description: "A C2SP tlog-checkpoint", content: { "text/plain": "text" } },
    },
    async handle(_, ctx) {
      const { note } = await newestCheckpoint(log);
      ctx.set("Cache-Control", "no-cache");
      ctx.type = "text/plain; charset=utf-8";
      ctx.body = note;
    },
  });

  const tile = route({
    method: "GET",
    path: "/audit/tile/*tile",
    site: "both",
    access,
    id: "getTile",
    summary: "A tile of hashes, or a bundle of entries",
    description:
      "C2SP tlog-tiles: <L>/<N>[.p/<W>] and entries/<N>[.p/<W>]. Entries are for operators unless configured public.",
    params: z.strictObject({ tile: z.string().max(128) }),
    answers: { 200: { description: "The tile", content: { [OCTETS]: "binary" } } },
    async handle({ caller, params }, ctx) {
      const position = parseTilePath(`tile/${params.tile}`);
      if (position === undefined) throw unknown("this is not the path of a tile");
      const { level, n, width } = position;
      const bytes =
        level === "entries"
          ? await entries(n, width, caller)
          : (await reads.tile(level, n))?.subarray(0, width * HASH_OCTETS);
      if (bytes === undefined || (level !== "entries" && bytes.length < width * HASH_OCTETS)) {
        throw unknown("the log has not grown that far");
      }
      ctx.set("Cache-Control", cacheControl(level === "entries" && !parts.publicEntries, width));
      ctx.type = OCTETS;
      ctx.body = Buffer.from(bytes);
    },
  });

  async function entries(
    n: number,
    width: number,
    caller: Caller | undefined,
  ): Promise<Uint8Array | undefined> {
    if (!parts.publicEntries && caller?.kind !== "operator") {
      throw new CountersignError(
        caller === undefined ? "unauthenticated" : "forbidden",
        "the entries of this log are for operators, who sign in at the API",
      );
    }
    const leaves = await reads.entries(n * TILE_WIDTH, n * TILE_WIDTH + width);
    return leaves.length === width ? encodeEntryBundle(leaves) : undefined;
  }

  const proof = route({
    method: "GET",
    path: "/v1/issuers/:issuer/certificates/:serialNumber/proof",
    site: "api",
    access: "caller",
    id: "getProof",
    summary: "That the certificate's record is in the log, checkable offline",
    params: certificateParams,
    answers: { 200: { description: "A C2SP tlog-proof", content: { "text/plain": "text" } } },
    async handle({ caller, params }, ctx) {
      const row = await visibleCertificate(parts, caller, params);
      // The record of the result; while there is none, that of the intent.
      const index = row.doneIndex ?? row.index;
      const { note, checkpoint: head } = await newestCheckpoint(log);
      if (index >= head.size) {
        throw new CountersignError(
          "log-unavailable",
          "the next checkpoint will cover this record",
          {
            members: { retryAfter: 1 },
          },
        );
      }
      const [leaf] = await reads.entries(index, index + 1);
      const path = await inclusionProof(readTile, index, head.size);
      ctx.type = "text/plain; charset=utf-8";
      ctx.body = formatLogProof({ index, proof: path, checkpoint: note, extra: leaf! });
    },
  });

  async function readTile(level: number, n: number): Promise<Uint8Array> {
    const hashes = await reads.tile(level, n);
    if (hashes === undefined) throw new Error(`tile ${level}/${n} is missing`);
    return hashes;
  }

  return [checkpoint, tile, proof];
}

function unknown(detail: string): CountersignError {
  return new CountersignError("log-entry-unknown", detail);
}

/** A full tile never changes; a partial one is soon replaced by a fuller one. */
function cacheControl(personal: boolean, width: number): string {
  if (personal) return "private, no-store";
  return width === TILE_WIDTH ? "public, max-age=31536000, immutable" : "public, max-age=60";
}
