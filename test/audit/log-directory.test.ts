import { createServer, type Server } from "node:http";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { directoryLogSource, exportLog } from "../../src/audit/log-directory.ts";
import { tileReader } from "../../src/audit/log-source.ts";
import { urlLogSource } from "../../src/audit/log-url.ts";
import { leafHash, verifyInclusion } from "../../src/audit/merkle.ts";
import { inclusionProof, tilesOf } from "../../src/audit/tiles.ts";
import { verifyLog } from "../../src/audit/verify.ts";
import { issuanceLeaves, MemoryLog } from "../support/log.ts";

let directory = "";

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "countersign-log-"));
});

afterEach(() => rmSync(directory, { recursive: true }));

function logOf(size: number): MemoryLog {
  const log = new MemoryLog();
  log.append(issuanceLeaves(size));
  return log;
}

const filesOf = (directory: string): string[] =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .sort();

test("AUDIT 9.4: an export has the files of C2SP tlog-tiles, and objects by digest", async () => {
  await exportLog(logOf(300).reader(), directory, [Buffer.from("a certificate")]);
  expect(filesOf(directory)).toEqual([
    "checkpoint",
    "objects/81acd762140fa692a142822d2fbe4dc6f54bcaa501f68ab37e5aeed0bafe4d99",
    "tile/0/000",
    "tile/0/001.p/44",
    "tile/1/000.p/1",
    "tile/entries/000",
    "tile/entries/001.p/44",
  ]);
});

test("an export is brought up to date, and proofs come from its tiles", async () => {
  await exportLog(logOf(300).reader(), directory);
  const log = logOf(520);
  await exportLog(log.reader(), directory);
  const source = directoryLogSource(directory);
  expect((await verifyLog(source, { key: log.signer.verifierKey.text })).failures).toEqual([]);
  const proof = await inclusionProof(tileReader(source, 520), 299, 520);
  expect(
    verifyInclusion({
      leafHash: leafHash(log.leaves[299]!),
      index: 299,
      size: 520,
      root: log.tree.root(),
      proof,
    }),
  ).toBe(true);
  expect([...tilesOf(520)].length).toBe(4);
  await expect(tileReader(source, 1000)(0, 3)).rejects.toThrow(/tile\/0\/003.p\/232 is missing/);
});

test("ST-74: an export is not overwritten by an older log, nor by another one", async () => {
  await exportLog(logOf(520).reader(), directory);
  const before = readFileSync(join(directory, "checkpoint"));
  await expect(exportLog(logOf(300).reader(), directory)).rejects.toMatchObject({
    code: "rolled-back",
  });
  const other = new MemoryLog();
  other.append(issuanceLeaves(521).reverse());
  await expect(exportLog(other.reader(), directory)).rejects.toMatchObject({ code: "rolled-back" });
  expect(readFileSync(join(directory, "checkpoint"))).toEqual(before);
});

test("an export refuses a reader whose parts do not fit", async () => {
  const log = logOf(300);
  const reader = log.reader();
  await expect(exportLog({ ...reader, size: 299 }, directory)).rejects.toThrow(RangeError);
  await expect(exportLog({ ...reader, entries: async () => [] }, directory)).rejects.toThrow(
    RangeError,
  );
  await expect(
    exportLog({ ...reader, tile: async () => new Uint8Array(32) }, directory),
  ).rejects.toThrow(RangeError);
  expect(filesOf(directory)).not.toContain("checkpoint");
});

test("a full tile or bundle stands in for a partial one that was deleted", async () => {
  const log = logOf(300);
  await exportLog(log.reader(), directory);
  const note = readFileSync(join(directory, "checkpoint"));
  const longer = logOf(520);
  await exportLog(longer.reader(), directory);
  for (const path of ["tile/0/001.p", "tile/entries/001.p"])
    rmSync(join(directory, path), { recursive: true });
  writeFileSync(join(directory, "checkpoint"), note);
  const report = await verifyLog(directoryLogSource(directory), {
    key: log.signer.verifierKey.text,
  });
  expect(report.failures).toEqual([]);
});

test("a path does not leave the directory", async () => {
  const source = directoryLogSource(directory);
  expect(() => source.read("../checkpoint")).toThrow(RangeError);
  expect(await source.read("tile/0/000")).toBeUndefined();
});

async function serve(
  answer: (path: string) => { status: number; body?: Uint8Array },
): Promise<Server> {
  const server = createServer((request, response) => {
    const { status, body } = answer(request.url ?? "");
    response.writeHead(status).end(body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

test("a log is verified over HTTP", async () => {
  const log = logOf(3000);
  await exportLog(log.reader(), directory);
  const source = directoryLogSource(directory);
  const paths: string[] = [];
  const server = createServer((request, response) => {
    const path = (request.url ?? "").replace(/^\/audit\//, "");
    paths.push(path);
    void source
      .read(path)
      .then((body) => response.writeHead(body === undefined ? 404 : 200).end(body));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/audit`;
  const key = log.signer.verifierKey.text;
  expect((await verifyLog(urlLogSource(url), { key })).failures).toEqual([]);
  expect(new Set(paths).size).toBe(1 + 12 + 12 + 1);
  rmSync(join(directory, "tile/0/005"));
  expect((await verifyLog(urlLogSource(`${url}/`), { key })).failures).toEqual([
    { rule: "LOG-2", position: "tile/0/005", detail: "it is missing" },
  ]);
  server.close();
});

test("a server that fails or sends too much ends the verification", async () => {
  const failing = await serve(() => ({ status: 500 }));
  const port = (server: Server): number => (server.address() as AddressInfo).port;
  await expect(verifyLog(urlLogSource(`http://127.0.0.1:${port(failing)}`))).rejects.toThrow(
    /answered 500/,
  );
  failing.close();
  const endless = await serve(() => ({ status: 200, body: Buffer.alloc(17_000_000) }));
  await expect(verifyLog(urlLogSource(`http://127.0.0.1:${port(endless)}`))).rejects.toThrow(
    /longer than anything/,
  );
  endless.close();
  expect(() => urlLogSource("file:///etc")).toThrow(TypeError);
});
