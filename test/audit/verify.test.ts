import { expect, test } from "vitest";
import { checkpointText } from "../../src/audit/checkpoint.ts";
import { encodeEntry, type LogEntry } from "../../src/audit/entry.ts";
import type { LogSource } from "../../src/audit/log-source.ts";
import { emptyRoot } from "../../src/audit/merkle.ts";
import { signNote } from "../../src/audit/signed-note.ts";
import { encodeEntryBundle, tilePath, tilesOf, tileWidth } from "../../src/audit/tiles.ts";
import { verifyLog, type VerifyOptions, type VerifyReport } from "../../src/audit/verify.ts";
import { buildCertificationRequest } from "../../src/x509/certification-request-builder.ts";
import { assembleSigned, parseSigned } from "../../src/x509/signed.ts";
import { softwareKey, type SoftwareKey } from "../support/software-ca.ts";
import { issuanceLeaves, MemoryLog, serialNumberOf, sha256, signedObject } from "../support/log.ts";

const SIZE = 1000;
const leaves = issuanceLeaves(SIZE);

function logOf(size: number): MemoryLog {
  const log = new MemoryLog();
  log.append(leaves.slice(0, size));
  return log;
}

/** The files of an export, in memory, to be changed at will. */
function filesOf(log: MemoryLog): Map<string, Uint8Array> {
  const size = log.tree.size;
  const files = new Map<string, Uint8Array>([["checkpoint", Buffer.from(log.checkpoint())]]);
  for (const { level, n, width } of tilesOf(size)) {
    files.set(tilePath(level, n, width), Buffer.from(log.tiles.get(`${level}/${n}`)!));
  }
  for (let n = 0; n * 256 < size; n++)
    setBundle(files, n, log.leaves.slice(n * 256, n * 256 + 256), size);
  return files;
}

function setBundle(
  files: Map<string, Uint8Array>,
  n: number,
  entries: readonly Uint8Array[],
  size = SIZE,
): void {
  files.set(tilePath("entries", n, tileWidth("entries", n, size)), encodeEntryBundle(entries));
}

const sourceOf = (files: Map<string, Uint8Array>): LogSource => ({
  read: async (path) => files.get(path),
});

const log = logOf(SIZE);
const key = log.signer.verifierKey.text;

async function verifyChanged(
  change: (files: Map<string, Uint8Array>) => void,
  options: VerifyOptions = { key },
): Promise<VerifyReport> {
  const files = filesOf(log);
  change(files);
  return verifyLog(sourceOf(files), options);
}

/** `LOG-2 entry 7`, … */
const positions = ({ failures }: VerifyReport): string[] =>
  failures.map(({ rule, position }) => `${rule} ${position}`);

function flip(files: Map<string, Uint8Array>, path: string, offset: number): void {
  const content = Buffer.from(files.get(path)!);
  content[offset]! ^= 1;
  files.set(path, content);
}

test("AUDIT 9.6: a whole log verifies, and without a key it is anchored in nothing", async () => {
  const progress: number[] = [];
  const source = sourceOf(filesOf(log));
  const report = await verifyLog(source, { key, onProgress: (entries) => progress.push(entries) });
  expect(report).toMatchObject({
    consistent: true,
    anchored: true,
    checkpoint: { origin: "ca.example.com/audit", size: SIZE, root: log.tree.root() },
    rules: ["LOG-1", "LOG-2", "LOG-4"],
    failures: [],
    // Nothing but the log itself is at hand.
    notices: [
      {
        rule: "LOG-7",
        position: "objects",
        detail: expect.stringMatching(/^the bytes of 499 certificates and 0 CRLs are not beside/),
      },
    ],
  });
  expect(progress).toEqual([256, 512, 768, 1000]);
  expect(await verifyLog(source)).toMatchObject({ consistent: true, anchored: false });
});

test("AUDIT 9.6: an empty log verifies", async () => {
  const report = await verifyLog(sourceOf(filesOf(logOf(0))), { key });
  expect(report).toMatchObject({ consistent: true, anchored: true, checkpoint: { size: 0 } });
});

test("ST-78: an intent that a crash left open is in the report, and so is one that was given up", async () => {
  const crashed = logOf(SIZE); // ends with sign.intent 999
  crashed.append([
    encodeEntry({
      type: "sign.abandoned",
      at: new Date(0),
      actor: { kind: "service", id: "ca.example.com" },
      subject: {
        issuer: "issuing",
        keyId: "6feecc8c16c5551d9feb3eb5f77e2da773bf68bd9ef9c52927ceb2c86e56892b",
        serialNumber: serialNumberOf(999),
      },
      data: { intent: 999, reason: "crash" },
    }),
  ]);
  expect(await verifyLog(sourceOf(filesOf(log)))).toMatchObject({
    openIntents: [999],
    abandonedIntents: [],
  });
  expect(await verifyLog(sourceOf(filesOf(crashed)))).toMatchObject({
    consistent: true,
    openIntents: [],
    abandonedIntents: [999],
  });
});

test.for<{ name: string; change: (files: Map<string, Uint8Array>) => void; want: string[] }>([
  {
    name: "one byte of an entry",
    change: (files) => {
      const changed = log.leaves.slice(256, 512);
      changed[44] = Buffer.from(Buffer.from(changed[44]!).toString().replace("deploy", "deplox"));
      setBundle(files, 1, changed);
    },
    want: ["LOG-2 entry 300"],
  },
  {
    name: "one byte of an entry, so that it is no record any more",
    change: (files) => flip(files, "tile/entries/000", 2),
    want: ["LOG-2 entry 0", "LOG-4 entry 0"],
  },
  {
    name: "one byte of a tile of leaf hashes",
    change: (files) => flip(files, "tile/0/002", 32 * 7 + 5),
    want: ["LOG-2 tile/0/002 hash 7"],
  },
  {
    name: "one byte of a partial tile",
    change: (files) => flip(files, "tile/0/003.p/232", 32 * 231),
    want: ["LOG-2 tile/0/003.p/232 hash 231"],
  },
  {
    name: "one byte of a tile of the second level",
    change: (files) => flip(files, "tile/1/000.p/3", 33),
    want: ["LOG-2 tile/1/000.p/3 hash 1"],
  },
  {
    name: "one byte of the checkpoint's root",
    change: (files) => flip(files, "checkpoint", 30),
    want: ["LOG-1 checkpoint", "LOG-2 checkpoint"],
  },
  {
    name: "one byte of the checkpoint's signature",
    change: (files) => flip(files, "checkpoint", files.get("checkpoint")!.length - 8),
    want: ["LOG-1 checkpoint"],
  },
  {
    name: "the checkpoint's size, by one digit",
    change: (files) => {
      const note = Buffer.from(files.get("checkpoint")!).toString();
      files.set("checkpoint", Buffer.from(note.replace("\n1000\n", "\n1001\n")));
    },
    // Partial tiles are named by their width, so that those of another size are not there.
    want: ["LOG-1 checkpoint", "LOG-2 entry 768", "LOG-2 tile/0/003.p/233"],
  },
  {
    name: "the last entry deleted",
    change: (files) => setBundle(files, 3, log.leaves.slice(768, 999)),
    want: ["LOG-2 entry 999"],
  },
  {
    name: "the last entry deleted, with its hash",
    change: (files) => {
      setBundle(files, 3, log.leaves.slice(768, 999));
      files.set("tile/0/003.p/232", files.get("tile/0/003.p/232")!.subarray(0, 32 * 231));
    },
    want: ["LOG-2 entry 999", "LOG-2 tile/0/003.p/232"],
  },
  {
    name: "two entries swapped",
    change: (files) => {
      const swapped = log.leaves.slice(0, 256);
      [swapped[21], swapped[201]] = [swapped[201]!, swapped[21]!];
      setBundle(files, 0, swapped);
    },
    want: ["LOG-2 entry 21", "LOG-2 entry 201", "LOG-7 entry 22", "LOG-7 entry 202"],
  },
  {
    name: "two entries swapped, with their hashes",
    change: (files) => {
      const swapped = log.leaves.slice(0, 256);
      [swapped[2], swapped[4]] = [swapped[4]!, swapped[2]!];
      setBundle(files, 0, swapped);
      const tile = Buffer.from(files.get("tile/0/000")!);
      const [second, fourth] = [tile.subarray(64, 96), tile.subarray(128, 160)].map((hash) =>
        Buffer.from(hash),
      );
      tile.set(fourth!, 64);
      tile.set(second!, 128);
      files.set("tile/0/000", tile);
    },
    want: ["LOG-2 checkpoint", "LOG-2 tile/1/000.p/3 hash 0", "LOG-7 entry 2"],
  },
  {
    name: "an entry inserted, everything after it moved",
    change: (files) =>
      setBundle(files, 3, [...log.leaves.slice(768, 800), ...log.leaves.slice(799, 999)]),
    want: [
      ...Array.from({ length: 200 }, (_, offset) => `LOG-2 entry ${800 + offset}`),
      // The intent that is there twice; and each result now names the entry before its intent.
      "LOG-7 entry 800",
      ...Array.from({ length: 99 }, (_, pair) => `LOG-7 entry ${803 + 2 * pair}`),
    ],
  },
  {
    name: "an entry after the last",
    change: (files) => setBundle(files, 3, [...log.leaves.slice(768), log.leaves[0]!]),
    want: ["LOG-2 tile/entries/003.p/232"],
  },
  {
    name: "an octet after the last entry",
    change: (files) =>
      files.set(
        "tile/entries/001",
        Buffer.concat([files.get("tile/entries/001")!, Buffer.alloc(1)]),
      ),
    want: ["LOG-2 tile/entries/001"],
  },
  {
    name: "a bundle gone",
    change: (files) => files.delete("tile/entries/001"),
    want: ["LOG-2 entry 256", "LOG-7 entry 512"],
  },
  {
    name: "a tile of the second level gone",
    change: (files) => files.delete("tile/1/000.p/3"),
    want: ["LOG-2 tile/1/000.p/3"],
  },
  {
    name: "no checkpoint",
    change: (files) => files.delete("checkpoint"),
    want: ["LOG-1 checkpoint"],
  },
  {
    name: "a checkpoint that is none",
    change: (files) => files.set("checkpoint", Buffer.from("hello\n")),
    want: ["LOG-1 checkpoint", "LOG-1 checkpoint"],
  },
])("ST-72: $name is found and named", async ({ change, want }) => {
  const report = await verifyChanged(change);
  expect(positions(report)).toEqual(want);
  expect(report.consistent).toBe(false);
});

test("ST-72: every byte of a small log matters", { timeout: 60_000 }, async () => {
  const small = logOf(3);
  for (const [path, content] of filesOf(small)) {
    for (let offset = 0; offset < content.length; offset++) {
      const files = filesOf(small);
      flip(files, path, offset);
      const { consistent } = await verifyLog(sourceOf(files), { key });
      if (consistent) throw new Error(`${path} at ${offset}`);
    }
  }
});

test("ST-72: an entry and a tile above it changed are both named", async () => {
  const report = await verifyChanged((files) => {
    const changed = log.leaves.slice(0, 256);
    changed[9] = log.leaves[11]!;
    setBundle(files, 0, changed);
    flip(files, "tile/1/000.p/3", 40);
  });
  expect(positions(report)).toEqual([
    "LOG-2 entry 9",
    "LOG-2 tile/1/000.p/3 hash 1",
    "LOG-7 entry 10",
    "LOG-7 entry 11",
  ]);
});

test("a checkpoint that names an absurd size ends where the log does", async () => {
  const { signer } = log;
  const huge = signNote(checkpointText(signer.name, 2 ** 53 - 1, emptyRoot), signer);
  const report = await verifyChanged((files) => files.set("checkpoint", Buffer.from(huge)));
  expect(positions(report)).toContain("LOG-2 entry 768");
  const wide = Buffer.alloc(8192);
  const bottomless: LogSource = {
    read: async (path) =>
      path === "checkpoint"
        ? Buffer.from(huge)
        : path.includes("entries")
          ? undefined
          : wide.subarray(0, 31),
  };
  expect(positions(await verifyLog(bottomless, { key }))).toEqual([
    "LOG-2 entry 0",
    "LOG-2 tile/0/000",
  ]);
});

test("findings beyond the first thousand are counted", async () => {
  const nonsense = new MemoryLog();
  nonsense.append(Array.from({ length: 3000 }, () => Buffer.from("nonsense")));
  const report = await verifyLog(sourceOf(filesOf(nonsense)), { key });
  expect([report.failures.length, report.moreFailures]).toEqual([1000, 2000]);
});

test.for([0, 1, 255, 256, 257, 300, 768, 999, 1000])(
  "AUDIT 9.6 rule 3: a checkpoint saved at %i entries is a beginning of the log",
  async (size) => {
    const report = await verifyChanged(() => {}, { key, since: logOf(size).checkpoint() });
    expect(report.failures).toEqual([]);
    expect(report.rules).toContain("LOG-3");
  },
);

test("AUDIT 9.6 rule 3: a log that was cut off or rewritten does not grow out of the saved checkpoint", async () => {
  const since = log.checkpoint();
  const cut = await verifyLog(sourceOf(filesOf(logOf(900))), { key, since });
  expect(positions(cut)).toEqual(["LOG-3 saved checkpoint"]);
  expect(cut.failures[0]!.detail).toMatch(/only 900: it was cut off/);

  for (const size of [300, 768, 1000]) {
    const rewritten = new MemoryLog();
    rewritten.append([...leaves.slice(0, 100), leaves[101]!, ...leaves.slice(101, 1000)]);
    const report = await verifyLog(sourceOf(filesOf(rewritten)), {
      key,
      since: logOf(size).checkpoint(),
    });
    expect(report.failures.filter(({ rule }) => rule === "LOG-3")).toMatchObject([
      { detail: `the first ${size} entries of the log have another root: it was rewritten` },
    ]);
  }
  const other = new MemoryLog("other.example/audit");
  expect(positions(await verifyChanged(() => {}, { since: other.checkpoint() }))).toEqual([
    "LOG-3 saved checkpoint",
  ]);
  expect(positions(await verifyChanged(() => {}, { key, since: other.checkpoint() }))).toEqual([
    "LOG-3 saved checkpoint",
  ]);
  expect(positions(await verifyChanged(() => {}, { key, since: "" }))).toEqual([
    "LOG-3 saved checkpoint",
  ]);
});

test("AUDIT 9.6 rule 3: a changed entry does not make the log look rewritten", async () => {
  const report = await verifyChanged(
    (files) => {
      const changed = log.leaves.slice(0, 256);
      changed[9] = log.leaves[11]!;
      setBundle(files, 0, changed);
    },
    { key, since: logOf(700).checkpoint() },
  );
  expect(positions(report)).toEqual(["LOG-2 entry 9", "LOG-7 entry 10", "LOG-7 entry 11"]);
});

test("AUDIT 9.6 rule 4: a leaf that is not canonical, or of an unknown type, is named", async () => {
  const odd = new MemoryLog();
  const leaf = Buffer.from(leaves[1]!).toString();
  odd.append([
    leaves[0]!,
    Buffer.from(leaf.replace(":{", ": {")),
    Buffer.from(leaf.replace("sign.intent", "sign.nothing")),
    Buffer.from(leaf.replace('"id":"deploy"', '"id":"deploy","id":"deploy"')),
    leaves[1]!,
  ]);
  expect(positions(await verifyLog(sourceOf(filesOf(odd)), { key }))).toEqual([
    "LOG-4 entry 1",
    "LOG-4 entry 2",
    "LOG-4 entry 3",
  ]);
});

test("AUDIT 9.6 rule 1: a log that was started under another origin is named", async () => {
  const moved = new MemoryLog("moved.example/audit");
  moved.append(leaves.slice(0, 3));
  const report = await verifyLog(sourceOf(filesOf(moved)), { key: moved.signer.verifierKey.text });
  expect(positions(report)).toEqual(["LOG-1 entry 0"]);
});

test("AUDIT 9.6 rule 10: a certificate is logged, only intended, or not logged", async () => {
  const logged = signedObject(serialNumberOf(501)).der;
  const intended = signedObject(serialNumberOf(999)).der;
  const unknown = signedObject(serialNumberOf(2)).der;
  const junk = Buffer.from("junk");
  const report = await verifyChanged(() => {}, {
    key,
    certificates: [logged, intended, unknown, junk],
  });
  expect(report.certificates).toEqual([
    { sha256: sha256(logged), verdict: "logged", intentIndex: 501, doneIndex: 502 },
    { sha256: sha256(intended), verdict: "intent", intentIndex: 999 },
    { sha256: sha256(unknown), verdict: "not-logged" },
    { sha256: sha256(junk), verdict: "not-logged" },
  ]);
  expect(positions(report)).toEqual(
    [intended, unknown, junk].map((certificate) => `LOG-10 certificate ${sha256(certificate)}`),
  );
  expect(report.rules).toContain("LOG-10");
  expect(report.failures[1]!.detail).toBe("it is NOT logged");
});

const keyId = "6feecc8c16c5551d9feb3eb5f77e2da773bf68bd9ef9c52927ceb2c86e56892b";
const digest = sha256(Buffer.from("any"));
const at = new Date(0);
const actor = { kind: "service", id: "ca.example.com" } as const;
const subject = { issuer: "issuing", keyId, serialNumber: "05" };
const crlSubject = { issuer: "issuing", keyId };
type Intent = LogEntry & { type: "sign.intent" };
const intent: Intent = {
  type: "sign.intent",
  at,
  actor,
  subject,
  data: { operation: "certificate", tbs: digest, profile: "server" },
};
const crlIntent: Intent = {
  type: "sign.intent",
  at,
  actor,
  subject: crlSubject,
  data: { operation: "crl", tbs: digest, number: "1" },
};
const requestIntent: Intent = {
  type: "sign.intent",
  at,
  actor,
  subject: crlSubject,
  data: { operation: "request", tbs: digest },
};
const done: LogEntry = {
  type: "sign.done",
  at,
  actor,
  subject,
  data: { intent: 0, certificate: digest },
};
const abandoned: LogEntry = {
  type: "sign.abandoned",
  at,
  actor,
  subject,
  data: { intent: 0, reason: "crash" },
};

test.for<{ name: string; entries: readonly LogEntry[]; want: readonly string[] }>([
  { name: "a result", entries: [intent, done], want: [] },
  { name: "an intent given up", entries: [intent, abandoned], want: [] },
  {
    name: "a CRL",
    entries: [
      crlIntent,
      { ...done, subject: crlSubject, data: { intent: 0, crl: digest, number: "1" } },
    ],
    want: [],
  },
  {
    name: "a request of the key's own",
    entries: [
      requestIntent,
      { ...done, subject: crlSubject, data: { intent: 0, request: digest } },
    ],
    want: [],
  },
  {
    name: "a certificate as the result of a request",
    entries: [requestIntent, { ...done, subject: crlSubject }],
    want: ["entry 1: it is not the result of a request"],
  },
  {
    name: "a request as the result of a certificate",
    entries: [intent, { ...done, data: { intent: 0, certificate: digest, request: digest } }],
    want: ["entry 1: it is not the result of a certificate"],
  },
  {
    name: "a result of no intent",
    entries: [
      { ...intent, type: "sign.refused", subject: { issuer: "x" }, data: { code: "x" } },
      done,
    ],
    want: ["entry 1: sign.done of entry 0, which is no open sign.intent"],
  },
  {
    name: "a result before its intent",
    entries: [{ ...done, data: { intent: 1, certificate: digest } }, intent],
    want: ["entry 0: sign.done of entry 1, which is no open sign.intent"],
  },
  {
    name: "a second result",
    entries: [intent, done, done],
    want: ["entry 2: sign.done of entry 0, which is no open sign.intent"],
  },
  {
    name: "a result of what was given up",
    entries: [intent, abandoned, done],
    want: ["entry 2: sign.done of entry 0, which is no open sign.intent"],
  },
  {
    name: "what has a result given up",
    entries: [intent, done, abandoned],
    want: ["entry 2: sign.abandoned of entry 0, which is no open sign.intent"],
  },
  ...["issuer", "keyId", "serialNumber"].map((member) => ({
    name: `a result with another ${member}`,
    entries: [
      intent,
      { ...done, subject: { ...subject, [member]: member === "keyId" ? "00".repeat(32) : "06" } },
    ] as LogEntry[],
    want: ["entry 1: sign.done of entry 0 has another subject"],
  })),
  {
    name: "another serial number given up",
    entries: [intent, { ...abandoned, subject: { ...subject, serialNumber: "06" } }],
    want: ["entry 1: sign.abandoned of entry 0 has another subject"],
  },
  {
    name: "a CRL as the result of a certificate",
    entries: [intent, { ...done, data: { intent: 0, crl: digest } }],
    want: ["entry 1: it is not the result of a certificate"],
  },
  {
    name: "a certificate as the result of a CRL",
    entries: [crlIntent, { ...done, subject: crlSubject }],
    want: ["entry 1: it is not the result of a crl"],
  },
  {
    name: "both as the result of a certificate",
    entries: [intent, { ...done, data: { intent: 0, certificate: digest, crl: digest } }],
    want: ["entry 1: it is not the result of a certificate"],
  },
  {
    name: "neither as the result of a CRL",
    entries: [crlIntent, { ...done, subject: crlSubject, data: { intent: 0 } }],
    want: ["entry 1: it is not the result of a crl"],
  },
  {
    name: "a serial number intended twice",
    entries: [intent, abandoned, intent],
    want: ["entry 2: an entry before it is of the same key and serial number, 05"],
  },
  {
    name: "a serial number intended twice under another issuer's name",
    entries: [intent, { ...intent, subject: { ...subject, issuer: "other" } }],
    want: ["entry 1: an entry before it is of the same key and serial number, 05"],
  },
  {
    name: "a serial number of two keys, and two that differ by their length",
    entries: [
      intent,
      { ...intent, subject: { ...subject, keyId: "00".repeat(32) } },
      { ...intent, subject: { ...subject, serialNumber: "0105" } },
      { ...intent, subject: { ...subject, serialNumber: "0005" } },
    ],
    want: [],
  },
  {
    name: "a certificate without a serial number",
    entries: [{ ...intent, subject: crlSubject }],
    want: ["entry 0: this sign.intent of a certificate has no serial number"],
  },
])("AUDIT 9.6 rule 7: $name", async ({ entries, want }) => {
  const crafted = new MemoryLog();
  crafted.append(entries.map(encodeEntry));
  const { failures } = await verifyLog(sourceOf(filesOf(crafted)), { key });
  expect(failures.map(({ position, detail }) => `${position}: ${detail}`)).toEqual(want);
  expect(failures.every(({ rule }) => rule === "LOG-7")).toBe(true);
});

test("a key that is none is the caller's mistake", async () => {
  await expect(verifyLog(sourceOf(filesOf(log)), { key: "x" })).rejects.toThrow(SyntaxError);
});

test("LOG-7: a request beside the log is what was to be signed, by the key that it names", async () => {
  const own = softwareKey("P-256");
  const requestBy = (signer: SoftwareKey): Uint8Array => {
    const { privateKey } = signer;
    return buildCertificationRequest({ privateKey, names: [], commonName: "Offline CA G2" });
  };
  const good = requestBy(own);
  const { tbs, signatureAlgorithm } = parseSigned(good);
  const other = softwareKey("P-256");
  const verify = async (named: Uint8Array, object?: Uint8Array): Promise<VerifyReport> => {
    const crafted = new MemoryLog();
    const about = { issuer: "root", keyId: own.keyId };
    const asked: LogEntry = {
      ...requestIntent,
      subject: about,
      data: { operation: "request", tbs: sha256(tbs) },
    };
    const made: LogEntry = {
      ...requestIntent,
      type: "sign.done",
      subject: about,
      data: { intent: 0, request: sha256(named) },
    };
    crafted.append([asked, made].map(encodeEntry));
    const source = { ...sourceOf(filesOf(crafted)), object: async () => object };
    return verifyLog(source, { key });
  };
  const details = ({ failures }: VerifyReport): string[] => failures.map(({ detail }) => detail);
  expect(await verify(good, good)).toMatchObject({ failures: [], notices: [] });
  const forged = assembleSigned(tbs, signatureAlgorithm, other.sign(tbs));
  expect(details(await verify(forged, forged))).toEqual([
    `its signature is not one by key ${own.keyId}`,
  ]);
  const foreign = requestBy(other);
  expect(details(await verify(foreign, foreign))).toEqual([
    "what was signed is not what entry 0 says was to be signed",
    `its signature is not one by key ${own.keyId}`,
  ]);
  expect(details(await verify(good, foreign))).toEqual([
    "the object beside the log has another digest",
  ]);
  const none = await verify(good);
  expect(none.failures).toEqual([]);
  expect(none.notices).toMatchObject([
    { detail: expect.stringMatching(/1 certification requests/) },
  ]);
});
