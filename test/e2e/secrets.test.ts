/**
 * Where secrets must not be, in the running service: the memory of service, keeper and signer while shares are given and
 * when a key is open; everything on the disk; every answer, log line, environment and argument list; core files.
 */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { canonicalJson } from "../../src/audit/canonical-json.ts";
import { encodeShare } from "../../src/custody/sealed/share.ts";
import { openSealedKey } from "../../src/custody/sealed/sealed-key.ts";
import { recoverKek } from "../../src/custody/sealed/shamir.ts";
import { DEVELOPMENT_PEOPLE } from "../../src/development/people.ts";
import { isAlive, pidsOf } from "../custody/keeper-home.ts";
import { makeCsr } from "../support/csr.ts";
import { DevelopmentPeople, pointOf, type NamedShareSet } from "../support/development-people.ts";
import { scanFiles } from "../support/disk-scan.ts";
import { scanMemory } from "../support/memory-scan.ts";
import { type Finding, NeedleSearch, type Needles } from "../support/needles.ts";
import { privateScalar } from "../support/private-scalar.ts";
import {
  removeHome,
  startTestService,
  temporaryHome,
  type RunningService,
} from "../support/service.ts";

const home = temporaryHome();
/** Where the service makes temporary files, if it makes any. */
const temporary = mkdtempSync(join(tmpdir(), "countersign-secrets-"));
const begun = Date.now();
let service: RunningService;
let people: DevelopmentPeople;
/** Command lines and environments of all processes that were met. */
const processes = new Map<number, Buffer>();
/** Everything that is secret, as it became known. */
const secrets: Record<string, Uint8Array> = {};

beforeAll(async () => {
  service = await startTestService({ home, env: { TMPDIR: temporary } });
  people = new DevelopmentPeople(service);
});

afterAll(async () => {
  await service.stop();
  removeHome(home);
  rmSync(temporary, { recursive: true });
});

/** Service and keeper, and the keeper's children. */
function tree(): { both: number[]; children: Record<"signer" | "unlocker" | "dealer", number[]> } {
  const { service: own, keeper } = service.processes();
  const children = {
    signer: pidsOf("signer", keeper),
    unlocker: pidsOf("unlocker", keeper),
    dealer: pidsOf("dealer", keeper),
  };
  for (const pid of [own, keeper, ...Object.values(children).flat()]) {
    const seen = ["cmdline", "environ"].map((file) => readFileSync(`/proc/${pid}/${file}`));
    processes.set(pid, Buffer.concat(seen));
  }
  return { both: [own, keeper], children };
}

/** What is found in octets. */
function findIn(octets: Buffer, needles: Needles): Finding[] {
  let rest = octets;
  return new NeedleSearch(needles).search((into) => {
    const length = rest.copy(into);
    rest = rest.subarray(length);
    return length;
  });
}

/**
 * Searches the memory of service and keeper.
 *
 * @param control - what both do have.
 */
function expectNothingInBoth(when: string, needles: Needles, control: Uint8Array): void {
  for (const pid of tree().both) {
    const found = scanMemory(pid, { ...needles, control });
    expect(
      found.filter(({ needle }) => needle !== "control"),
      `${when}, in ${processes.get(pid)!.toString().split("\0").slice(0, 12).join(" ")}`,
    ).toEqual([]);
    expect(
      found.some(({ needle }) => needle === "control"),
      `the scan of ${pid} ${when} finds nothing at all`,
    ).toBe(true);
  }
}

function rowOf(sql: string): string {
  return execFileSync("sqlite3", ["-readonly", service.files.database, sql]).toString().trim();
}

interface Opened {
  readonly shares: Needles;
  readonly kek: Uint8Array;
  readonly secret: Buffer;
}

/** What the shares open: the test plays the custodians, and three of them may know it. */
function openedBy({ digest, read }: NamedShareSet, texts: ReadonlyMap<string, string>): Opened {
  const points = [...texts.values()].map((text) => pointOf(text));
  const kek = recoverKek(points.slice(0, read.threshold), read);
  const sealed = rowOf(`SELECT hex(sealed) FROM share_set WHERE digest = '${digest}'`);
  return {
    shares: Object.fromEntries(
      points.map(({ x, y }) => [`share ${x} of ${read.keyId.slice(0, 8)}`, y]),
    ),
    kek,
    secret: openSealedKey(Buffer.from(sealed, "hex"), kek),
  };
}

function digestOctets(digest: string): Buffer {
  return Buffer.from(digest.slice("sha256:".length), "hex");
}

/** Opens a window on a key and gives it the shares of some, looking after each step. */
async function openWindow(
  keyId: string,
  operations: readonly object[],
  texts: ReadonlyMap<string, string>,
  look: (when: string, unlock: Buffer) => void,
  between: (unlock: string) => Promise<void> = async () => {},
): Promise<{ ceremony: string; unlock: Buffer }> {
  const at = Math.floor(Date.now() / 1000) * 1000;
  const { digest: ceremony } = await people.done<{ digest: string }>(
    people.send(
      "/v1/ceremonies",
      {
        kind: "window",
        keyId,
        reason: "a search for secrets",
        window: {
          operations,
          notBefore: new Date(at - 60_000).toISOString(),
          notAfter: new Date(at + 3_600_000).toISOString(),
          idleSeconds: 3600,
        },
      },
      "alice",
    ),
  );
  const opened = await people.done<{ digest: string }>(
    people.send("/v1/unlocks", { ceremony }, "alice"),
  );
  const unlock = digestOctets(opened.digest);
  for (const [id, text] of texts) {
    await people.done(people.submit(id, opened.digest, text));
    look(`after the share of ${id}`, unlock);
    if (id === "alice") await between(opened.digest);
  }
  const view = await people.done<{ state: string }>(
    people.ask(`/v1/ceremonies/${ceremony}`, "alice"),
  );
  expect(view.state).toBe("unlocked");
  return { ceremony, unlock };
}

async function keyOf(issuer: string): Promise<{ keyId: string; state: string }> {
  const { keys } = await people.done<{
    keys: { issuer: string; keyId: string; state: string }[];
  }>(people.ask("/v1/keys", "alice"));
  return keys.find((key) => key.issuer === issuer)!;
}

/** Every eight letters in a row that are the share's own. */
function piecesOf(text: string): string[] {
  const own = text.slice(-60).toLowerCase();
  return Array.from({ length: own.length - 7 }, (_, at) => own.slice(at, at + 8));
}

function expectNoPieces(text: string, where: Buffer): void {
  const searched = where.toString("latin1").toLowerCase();
  expect(piecesOf(text).filter((piece) => searched.includes(piece))).toEqual([]);
}

function databaseOctets(): Buffer {
  const files = ["", "-wal"].map((suffix) => `${service.files.database}${suffix}`);
  return Buffer.concat(files.map((file) => readFileSync(file)));
}

/** Each look at the memory of a process takes a second or two. */
const patience = 300_000;

test(
  "ST-8, ST-15, ST-55, ST-59: nothing of a sealed key is where it must not be, while it is opened, while it is open, and after",
  async () => {
    const { keyId } = await keyOf("root");
    const set = await people.shareSet(keyId);
    const texts = new Map<string, string>();
    for (const id of DEVELOPMENT_PEOPLE) texts.set(id, await people.keptShare(id, set.read));
    const { shares, kek, secret } = openedBy(set, texts);
    const key = { "private key of the root": privateScalar(secret) };
    Object.assign(secrets, shares, { "KEK of the root": kek }, key);

    const three = new Map([...texts].slice(0, 3));
    const wrong = encodeShare(
      { ...set.read, keyId: Buffer.from(keyId, "hex") },
      { ...pointOf(texts.get("dora")!), y: Buffer.alloc(32, 0x5a) },
    );
    const erin = texts.get("erin")!;
    const mistyped = `${erin.slice(0, -10)}${erin.at(-10) === "Q" ? "P" : "Q"}${erin.slice(-9)}`;
    const standing = tree().children.signer;
    const { unlock } = await openWindow(
      keyId,
      [{ operation: "crl", max: 10 }],
      three,
      (when, control) => expectNothingInBoth(when, secrets, control),
      async (digest) => {
        // What is refused goes nowhere either.
        const logged = service.output.stderr.length;
        for (const [id, text, code] of [
          ["erin", mistyped, "share-checksum"],
          ["dora", wrong, "share-wrong"],
        ] as const) {
          const answer = await people.submit(id, digest, text);
          expect(answer.json()).toMatchObject({ type: `/problems/${code}` });
          expectNoPieces(text, answer.body);
          expectNoPieces(text, Buffer.from(service.output.stderr.slice(logged)));
          expectNoPieces(text, databaseOctets());
        }
        expectNothingInBoth("after two wrong shares", secrets, digestOctets(digest));
      },
    );
    const { children } = tree();
    expect([children.unlocker, children.dealer]).toEqual([[], []]);
    expect([standing.length, children.signer.length]).toEqual([1, 2]);
    const opened = children.signer.find((pid) => !standing.includes(pid));
    // The standing signer of the other key has heard of nothing; the opened one has the private key, and nothing else.
    expect(scanMemory(standing[0]!, secrets)).toEqual([]);
    const found = scanMemory(opened!, secrets);
    expect(found.filter(({ needle }) => !(needle in key))).toEqual([]);
    expect(found.some(({ needle }) => needle in key)).toBe(true);
    expectNothingInBoth("while the key is open", secrets, unlock);

    expect((await people.lock("bob", keyId)).status).toBeLessThan(300);
    await expect.poll(() => isAlive(opened!)).toBe(false);
    expect((await keyOf("root")).state).toBe("locked");
    expectNothingInBoth("after the lock", secrets, unlock);
  },
  patience,
);

test("ST-55: a signer that has a key open leaves no core when it crashes, and the window is locked", async () => {
  const { keyId } = await keyOf("root");
  const set = await people.shareSet(keyId);
  const texts = new Map<string, string>();
  for (const id of DEVELOPMENT_PEOPLE.slice(0, 3)) {
    texts.set(id, await people.keptShare(id, set.read));
  }
  const standing = tree().children.signer;
  await openWindow(keyId, [{ operation: "crl", max: 10 }], texts, () => {});
  const opened = tree().children.signer.find((pid) => !standing.includes(pid))!;
  expect(readFileSync(`/proc/${opened}/coredump_filter`, "utf8").trim()).toBe("00000000");
  expect(readFileSync(`/proc/${opened}/limits`, "utf8")).toMatch(/Max core file size +0 +0 /);
  const folder = readlinkSync(`/proc/${opened}/cwd`);
  process.kill(opened, "SIGABRT");
  await expect.poll(() => isAlive(opened)).toBe(false);
  expect(readdirSync(folder).filter((name) => /^core(?:\.|$)/.test(name))).toEqual([]);
  await expect.poll(async () => (await keyOf("root")).state).toBe("locked");
});

test(
  "ST-59: nor a PIN under its seal, while it is made, while it is opened, and after",
  async () => {
    const { keyId } = await keyOf("issuing");
    const pinBefore = readFileSync(join(home, "keeper/pins/issuing.pin"));
    secrets["the PIN before"] = Buffer.from(pinBefore.toString().trim());
    const plan = Buffer.from(canonicalJson(await people.planForPin(keyId)));
    const { digest: ceremony } = await people.done<{ digest: string }>(
      people.send(
        "/v1/ceremonies",
        { kind: "generate", keyId, reason: "a test", plan: plan.toString("base64") },
        "alice",
      ),
    );
    for (const id of DEVELOPMENT_PEOPLE) await people.approve(id, ceremony);
    const view = await people.done<{ state: string; shareSet: string }>(
      people.ask(`/v1/ceremonies/${ceremony}`, "alice"),
    );
    expect(view.state).toBe("pending");
    const set = await people.shareSet(keyId, view.shareSet);
    expectNothingInBoth("after the PIN was changed", secrets, digestOctets(ceremony));
    const texts = new Map<string, string>();
    for (const id of DEVELOPMENT_PEOPLE) texts.set(id, await people.confirm(id, set));
    const { shares, kek, secret } = openedBy(set, texts);
    const pin = { "the sealed PIN": secret };
    Object.assign(secrets, shares, { "KEK of the PIN": kek }, pin);
    expectNothingInBoth("after the shares were confirmed", secrets, digestOctets(ceremony));

    const { unlock } = await openWindow(
      keyId,
      [
        { operation: "certificate", profile: "server", max: 5 },
        { operation: "crl", max: 10 },
      ],
      new Map([...texts].slice(1, 4)),
      (when, control) => expectNothingInBoth(when, secrets, control),
    );
    const { children } = tree();
    expect(children.signer).toHaveLength(1);
    const found = scanMemory(children.signer[0]!, secrets);
    expect(found.filter(({ needle }) => !(needle in pin))).toEqual([]);
    const answer = await service.api("/v1/issuers/issuing/certificates?profile=server", {
      body: makeCsr({ dns: ["web.example.test"] }),
      headers: { "content-type": "application/pkcs10" },
    });
    people.answers.push(answer.body);
    expect(answer.status, answer.body.toString()).toBe(201);
    expectNothingInBoth("while the token is open", secrets, unlock);
  },
  patience,
);

test("nothing secret was ever in an answer, a metric, a line of a log, an environment or an argument list", async () => {
  const metricsKey = readFileSync(service.files.metricsKey, "utf8").trim();
  for (const path of ["/metrics", "/v1/status", "/v1/ceremonies", "/v1/inbox", "/readyz"]) {
    await people.ask(path, "alice", path === "/metrics" ? { token: metricsKey } : {});
  }
  const control = Buffer.from("control of the search for secrets");
  for (const [what, octets] of [
    ["answers", Buffer.concat(people.answers)],
    ["output", Buffer.from(service.output.stdout + service.output.stderr)],
    ["processes", Buffer.concat([...processes.values()])],
  ] as const) {
    expect(octets.length, what).toBeGreaterThan(1000);
    const found = findIn(Buffer.concat([octets, control]), { ...secrets, control });
    expect([...new Set(found.map(({ needle }) => needle))], what).toEqual(["control"]);
  }
  expect(Object.keys(secrets).length).toBe(5 + 1 + 1 + 1 + 5 + 1 + 1);
});

test("nothing secret is on the disk in clear", async () => {
  await service.stop();
  const sealed = rowOf("SELECT hex(sealed) FROM share_set WHERE state = 'active' LIMIT 1");
  const control = Buffer.from(sealed, "hex").subarray(-64, -16);
  const { "the PIN before": before, ...others } = secrets;
  const { findings, files } = scanFiles(home, { ...others, control });
  expect(findings.filter(({ needle }) => needle !== "control")).toEqual([]);
  expect(findings.find(({ needle }) => needle === "control")?.file).toMatch(/countersign\.db/);
  expect(files).toContain("keeper/state.json");
  // The PIN that opened the token before lies in its file, and opens nothing any more.
  expect(scanFiles(home, { before: before! }).findings.map(({ file }) => file)).toEqual([
    "keeper/pins/issuing.pin",
  ]);
  expect(scanFiles(temporary, secrets).findings).toEqual([]);
  expect(newFilesIn(tmpdir()).flatMap((file) => found(file))).toEqual([]);

  function found(file: string): string[] {
    try {
      return findIn(readFileSync(file), secrets).map(({ needle }) => `${needle} in ${file}`);
    } catch {
      return []; // another test's, which has ended meanwhile
    }
  }
});

/** Files right there that came while the service ran. */
function newFilesIn(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => join(folder, name))
    .filter((file) => {
      const { mtimeMs, size } = statSync(file, { throwIfNoEntry: false }) ?? {
        mtimeMs: 0,
        size: 0,
      };
      return mtimeMs >= begun && size < 1 << 22;
    });
}
