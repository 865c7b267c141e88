import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import decodeQr from "qr/decode.js";
import { shareQr } from "../../src/cli/qr.ts";
import { vectors } from "../custody/sealed/vectors.ts";
import { countersign, countersignJson, path, write, type Run } from "./command.ts";
import { startPeopleService, type PeopleService, type Person } from "./people-service.ts";
import { atTerminal } from "./terminal.ts";

let service: PeopleService;
let [bob]: Person[] = [];
/** Bob's share, as it stands on paper. */
let paper: string;
let shareSet: string;

beforeAll(async () => {
  service = await startPeopleService(["bob", "carol"]);
  [bob] = service.people;
  const dealt = await service.deal();
  shareSet = path(write("root.share-set", dealt.note));
  const text = execFileSync("age", ["-d", "-i", join(bob!.home, "age.key")], {
    input: dealt.files[0]!,
  }).toString();
  paper = text.split("\n").at(-2)!;
});
afterAll(() => service.sites.close());
beforeEach(() => {
  for (const name of ["state.json", "shares"]) {
    rmSync(join(bob!.home, ".config", "countersign", name), { recursive: true, force: true });
  }
});

/** The environment of a person whose service is not asked: its address leads nowhere. */
function offline(): Record<string, string> {
  const env = service.env(bob!);
  const file = join(bob!.home, ".config", "countersign", "config.json");
  const settings = JSON.parse(readFileSync(file, "utf8")) as Record<string, string>;
  writeFileSync(file, JSON.stringify({ ...settings, url: "https://127.0.0.1:9" }));
  return env;
}

function imported(text: string): Promise<Run> {
  write("typed.txt", text, 0o600);
  return countersign(["share", "import", "--share-set", shareSet, "--from", "typed.txt"], {
    env: offline(),
  });
}

const groups = (text: string): string[] => text.match(/.{5}/g)!;

test.for<{ name: string; text: (paper: string) => string }>([
  { name: "as it is", text: (text) => text },
  { name: "in lower case", text: (text) => text.toLowerCase() },
  { name: "with spaces", text: (text) => groups(text).join(" ") },
  { name: "with hyphens and line ends", text: (text) => groups(text).join("-\n") },
  {
    name: "with the numbers of the groups",
    text: (text) =>
      groups(text)
        .map((group, place) => `${place + 1} ${group}`)
        .join("  "),
  },
  { name: "with comments", text: (text) => `# share 1 of 2\n\n${text}\n` },
])(
  "ST-12: a share is read from paper $name, and stock age opens what is kept",
  async ({ text }) => {
    const run = await imported(text(paper));
    expect(run).toMatchObject({ status: 0 });
    const file = /: (.*\.age)$/m.exec(run.stdout)![1]!;
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const kept = execFileSync("age", ["-d", "-i", join(bob!.home, "age.key"), file]).toString();
    expect(kept.split("\n").at(-2)).toBe(paper);
  },
);

test.for<{ name: string; code: string; text: (paper: string) => string }>([
  {
    name: "one character wrong",
    code: "share-checksum",
    text: (text) => `${text.slice(0, 40)}${text[40] === "Q" ? "P" : "Q"}${text.slice(41)}`,
  },
  {
    name: "two neighbours swapped",
    code: "share-checksum",
    text: (text) => {
      const place = text.split("").findIndex((one, at) => at > 20 && one !== text[at + 1]);
      return text.slice(0, place) + text[place + 1]! + text[place]! + text.slice(place + 2);
    },
  },
  { name: "cut off", code: "share-checksum", text: (text) => text.slice(0, -1) },
  { name: "of mixed case", code: "share-checksum", text: (text) => `c${text.slice(1)}` },
  { name: "of another key", code: "share-foreign", text: () => vectors.shares[1]!.text },
])(
  "ST-15: a share that is $name is refused at the keyboard, without a piece of it",
  async ({ text, code }) => {
    const typed = text(paper);
    const run = await imported(typed);
    expect(run.status).toBe(1);
    expect(run.stderr).toContain(`${code}: `);
    const shown = `${run.stdout}${run.stderr}`.toUpperCase();
    for (let start = 8; start + 8 <= typed.length; start++) {
      expect(shown).not.toContain(typed.slice(start, start + 8).toUpperCase());
    }
    expect(existsSync(join(bob!.home, ".config/countersign/shares/ca.example.com"))).toBe(false);
  },
);

test("a share is typed at a terminal, on as many lines as it takes", async () => {
  const lines = [groups(paper).slice(0, 9).join(" "), groups(paper).slice(9).join(" ")];
  const run = await atTerminal(["share", "import", "--share-set", shareSet], lines, offline());
  expect(run).toMatchObject({ status: 0 });
  expect(run.stdout).toContain("is the right one");
});

test("a share that is here is not overwritten", async () => {
  await imported(paper);
  const run = await imported(paper);
  expect(run.status).toBe(1);
  expect(run.stderr).toContain("file-exists");
});

test("a share is not printed into a pipe", async () => {
  await imported(paper);
  const run = await countersign(["share", "print"], { env: offline() });
  expect(run).toMatchObject({ status: 2, stdout: "" });
  expect(run.stderr).toContain("--out");
  const json = await countersign(["--json", "share", "print", "--out", "x.txt"], {
    env: offline(),
  });
  expect(json).toMatchObject({ status: 2, stdout: "" });
});

test("what is printed can be read back, has the commitment's beginning, and a QR code of the share", async () => {
  await imported(paper);
  const { commit } = service.dealt[0]!.shareSet.custodians[0]!;
  const run = await countersign(["share", "print", "--out", "paper.txt"], { env: offline() });
  expect(run).toMatchObject({ status: 0 });
  expect(run.stdout).not.toContain(paper.slice(10, 18));
  expect(statSync(path("paper.txt")).mode & 0o777).toBe(0o600);
  const text = readFileSync(path("paper.txt"), "utf8");
  expect(text).toContain(`# its commitment begins ${commit.slice(0, 8)}\n`);
  for (const [place, group] of groups(paper).entries()) {
    expect(text).toMatch(new RegExp(`(?:^|  ) ?${place + 1} ${group}`, "m"));
  }
  expect(qrText(text.split("\n").filter((line) => /[▀▄█]/.test(line)))).toBe(paper);
  rmSync(join(bob!.home, ".config/countersign/shares"), { recursive: true });
  expect(await imported(text)).toMatchObject({ status: 0 });
  const again = await countersign(["share", "print", "--out", "paper.txt"], { env: offline() });
  expect(again.stderr).toContain("file-exists");
});

test("a share is printed on a terminal", async () => {
  await imported(paper);
  const run = await atTerminal(["share", "print"], [], offline());
  expect(run).toMatchObject({ status: 0 });
  expect(run.stdout).toContain(` 1 ${groups(paper)[0]}`);
  expect(run.stdout).toContain("17 ");
});

test("every share of the vectors fits a QR code of version 4 at level M", () => {
  for (const { text } of vectors.shares) {
    const lines = shareQr(text, "dark");
    // 33 modules and 4 quiet ones on each side, two in a line of text.
    expect(lines).toHaveLength(Math.ceil((33 + 8) / 2));
    expect(qrText(lines)).toBe(text);
    expect(shareQr(text, "light")).not.toEqual(lines);
  }
});

test("an identity that others may read is refused, and one that is none is named", async () => {
  await imported(paper);
  write("open.key", bob!.identity, 0o644);
  write("none.key", "hello\n", 0o600);
  const open = await countersign(["share", "print", "--out", "y.txt", "--identity", "open.key"], {
    env: offline(),
  });
  expect(open.stderr).toContain("chmod 600 open.key");
  const none = await countersign(["share", "print", "--out", "y.txt", "--identity", "none.key"], {
    env: offline(),
  });
  expect(none).toMatchObject({ status: 2 });
  expect(`${open.stderr}${none.stderr}`).not.toContain(bob!.identity);
});

test("somebody else's identity opens nothing", async () => {
  await imported(paper);
  const [, carol] = service.people;
  const run = await countersign(
    ["share", "print", "--out", "z.txt", "--identity", join(carol!.home, "age.key")],
    { env: offline() },
  );
  expect(run.status).toBe(1);
  expect(run.stderr).toContain("share-unreadable");
});

test("an identity that is itself encrypted is opened by stock age, on the terminal", async () => {
  await imported(paper);
  const answer = await countersignJson<{ keys: unknown[] }>(["keys", "list"], {
    env: service.env(bob!),
  });
  expect(answer.keys).toHaveLength(1);
  // A plugin that is not installed: age itself says so.
  write("plugin.key", "AGE-PLUGIN-NONE-1QQQQQQQQQ\n", 0o600);
  const run = await countersign(["share", "print", "--out", "w.txt", "--identity", "plugin.key"], {
    env: offline(),
  });
  expect(run.status).toBe(1);
  expect(run.stderr).toContain("age did not open the share");
});

/** What a reader of QR codes makes of the drawn characters. */
function qrText(lines: readonly string[]): string {
  const width = Math.max(...lines.map((line) => line.length)) + 4;
  const scale = 4;
  const rows = lines.flatMap((line) => {
    const cells = line.padEnd(width).split("");
    return [
      cells.map((cell) => cell === "█" || cell === "▀"),
      cells.map((cell) => cell === "█" || cell === "▄"),
    ];
  });
  rows.push(...Array.from({ length: 8 }, () => Array<boolean>(width).fill(false)));
  const size = Math.max(width, rows.length);
  const data = new Uint8Array(size * scale * size * scale * 4).fill(255);
  for (let y = 0; y < rows.length * scale; y++) {
    for (let x = 0; x < width * scale; x++) {
      const dark = rows[Math.floor(y / scale)]![Math.floor(x / scale)] === true;
      if (dark) data.fill(0, (y * size * scale + x) * 4, (y * size * scale + x) * 4 + 3);
    }
  }
  return decodeQr({ width: size * scale, height: size * scale, data });
}
