/** The commands for people: who they are, what they agree to, and the shares that they hold. */

import { Option, type Command } from "commander";
import type { DealtKeyType } from "../custody/plan.ts";
import type { CeremonyKind } from "../custody/statement.ts";
import type { AbortOptions, ApproveOptions } from "./approve.ts";
import type { ListOptions, ProposeOptions } from "./ceremony.ts";
import type { Context } from "./context.ts";
import type { EnrolOptions } from "./enrol.ts";
import type { ExitCode } from "./failure.ts";
import type { GenerateOptions, SealOptions } from "./keys.ts";
import type * as roster from "./roster.ts";
import type { ImportOptions, PrintOptions, ShareOptions } from "./share.ts";
import type { RefuseOptions, SubmitOptions } from "./submit.ts";

export interface CommandParts {
  /** Runs one subcommand: its context, its exit code, and its failure in words. */
  readonly run: (command: (context: Context) => Promise<ExitCode>) => Promise<void>;
  readonly repeatable: (flags: string, description: string) => Option;
  readonly examples: (...lines: readonly string[]) => string;
}

/** As custody/statement.ts has them; written out here, for a quick start. */
const KINDS: readonly CeremonyKind[] = [
  "sign",
  "window",
  "generate",
  "reshare",
  "roster",
  "policy",
  "resume",
  "retire",
];
const KEY_TYPES: readonly DealtKeyType[] = [
  "P-256",
  "P-384",
  "RSA-2048",
  "RSA-3072",
  "RSA-4096",
  "Ed25519",
];

const YES = ["--yes", "sign without asking, for scripts"] as const;
const ARTEFACT = "decode what is to be signed, from this file of its bytes; repeat for more";
const IDENTITY = ["--identity <file>", "your age identity (default: ageIdentity)"] as const;
const SHARE = ["--share <file>", "your share file (default: the one kept here)"] as const;

export function addPeopleCommands(program: Command, parts: CommandParts): void {
  const { run, examples } = parts;
  addEnrol(program, parts);
  addRoster(program, parts);

  program
    .command("inbox")
    .description("show what waits for you; on a terminal, go through it")
    .addHelpText("after", examples("countersign inbox", "countersign --json inbox"))
    .action(() => run(async (context) => (await import("./inbox.ts")).inbox(context)));

  addVerdicts(program, parts);
  addCeremony(program, parts);
  addShare(program, parts);
  addKeys(program, parts);

  program
    .command("lock")
    .description("lock one key at once; any one operator may")
    .argument("<key>", "its keyId, or its issuer's id")
    .option(...YES)
    .addHelpText("after", examples("countersign lock issuing"))
    .action((key: string, options: { yes?: boolean }) =>
      run(async (context) => (await import("./lock.ts")).lock(context, key, options)),
    );

  const dev = program.command("dev").description("what only a development home can do");
  dev
    .command("unlock")
    .description(
      "play all five people of a development home: give the shares that a ceremony needs, or open a key for a time",
    )
    .argument(
      "<key or ceremony>",
      "a key or its issuer's id, which gets a window; or a ceremony's id",
    )
    .addOption(
      parts.repeatable(
        "--operation <what>",
        "for a window: crl:COUNT or certificate:PROFILE:COUNT (default: crl:10)",
      ),
    )
    .option("--for <duration>", "for a window: how long", "1h")
    .addHelpText(
      "after",
      examples("countersign dev unlock root", "countersign dev unlock CEREMONY"),
    )
    .action((named: string, options: { operation: readonly string[]; for: string }) =>
      run(async (context) =>
        (await import("./dev.ts")).devUnlock(context, named, {
          ...options,
          home: program.opts<{ home?: string }>().home ?? "var",
        }),
      ),
    );

  program
    .command("panic")
    .description("lock every key at once; nothing opens until a ceremony of kind resume")
    .requiredOption("--reason <text>", "why; it is recorded")
    .option(...YES)
    .addHelpText("after", examples("countersign panic --reason 'the signing host is compromised'"))
    .action((options: { reason: string; yes?: boolean }) =>
      run(async (context) => (await import("./lock.ts")).panic(context, options)),
    );

  program
    .command("invite")
    .description("print the text of a mail that asks others to approve, or to give their shares")
    .argument("<id>", "of a ceremony or an unlock")
    .addHelpText(
      "after",
      examples("countersign invite 00112233445566778899aabbccddeeff | mail -t bob@example.com"),
    )
    .action((id: string) =>
      run(async (context) => (await import("./inbox.ts")).invite(context, id)),
    );
}

function addEnrol(program: Command, { run, examples }: CommandParts): void {
  program
    .command("enrol")
    .description("ask to become an operator: your SSH key, your age recipient, signed")
    .option("--agent", "sign with the one key in your SSH agent")
    .option("--recipient <age1…>", "an age recipient that you have (default: that of --identity)")
    .option(
      "--identity <file>",
      "your age identity; a file that is not there is made, mode 0600 (default: ~/.config/countersign/age.key)",
    )
    .option("--identity-key <key>", "the service's identity key, from somebody you trust; pinned")
    .option("--log-key <key>", "the verifier key of its log; pinned")
    .option("--service <name>", "what the service calls itself, where nothing else says it")
    .option("--out <file>", "write the request here in place of sending it")
    .option("--prove <id>", "prove the recipient of an enrolment that was sent without")
    .option(...YES)
    .addHelpText(
      "after",
      examples(
        "countersign enrol --operator bob --ssh-key ~/.ssh/id_ed25519 --url https://ca.example.com:8443 --ca ca.pem --identity-key 'ca.example.com/keeper+9c1f1a30+AY…'",
        "countersign enrol --operator bob --ssh-key ~/.ssh/id_ed25519_sk --service ca.example.com --out bob.json",
      ),
    )
    .action((options: EnrolOptions & { prove?: string }) =>
      run(async (context) => {
        const { enrol, proveEnrolment } = await import("./enrol.ts");
        return options.prove === undefined
          ? enrol(context, options)
          : proveEnrolment(context, options.prove);
      }),
    );
}

function addRoster(program: Command, { run, repeatable, examples }: CommandParts): void {
  const group = program
    .command("roster")
    .description("the operators: make, sign, show and change the list of them");
  const role = (): Option =>
    repeatable("--role <id=role,…>", "roles of a person (default: operator)");
  const rule = (): Option =>
    repeatable("--rule <rule>", "roster=2, policy=2, resume=2 or sign=officer:2,witness:1");
  const out = (text: string): Option =>
    new Option("--out <file>", "write the document here").default(text);

  group
    .command("new")
    .description("assemble the first roster from the requests of all who are to be in it")
    .argument("<request...>", "files that countersign enrol --out has written")
    .option("--identity-key <key>", "the service's identity key (default: the configured one)")
    .option("--log-key <key>", "the verifier key of its log (default: the configured one)")
    .addOption(role())
    .addOption(rule())
    .addOption(out("roster.json"))
    .option("--force", "let --out overwrite a file")
    .addHelpText(
      "after",
      examples(
        "countersign roster new alice.json bob.json carol.json --identity-key … --log-key …",
        "countersign roster new *.json --role alice=officer --rule sign=officer:1,operator:1",
      ),
    )
    .action((files: string[], options: roster.NewOptions) =>
      run(async (context) => (await import("./roster.ts")).newRoster(context, files, options)),
    );

  group
    .command("sign")
    .description("sign a roster that you are in; the signature stands beside its file")
    .argument("<file>", "the roster's document")
    .option("--force", "overwrite a signature of yours")
    .option(...YES)
    .addHelpText("after", examples("countersign roster sign roster.json"))
    .action((file: string, options: roster.SignOptions) =>
      run(async (context) => (await import("./roster.ts")).signRoster(context, file, options)),
    );

  group
    .command("show")
    .description("show a roster and who has signed it; without a file, the service's")
    .argument("[file]", "a roster's document, with its signatures beside it")
    .option("--out <file>", "write document and signatures into one file, once all have signed")
    .option("--force", "let --out overwrite a file")
    .addHelpText(
      "after",
      examples("countersign roster show", "countersign roster show roster.json --out genesis.json"),
    )
    .action((file: string | undefined, options: roster.ShowOptions) =>
      run(async (context) => (await import("./roster.ts")).showRosterFile(context, file, options)),
    );

  const change = (command: Command): Command =>
    command
      .addOption(role())
      .addOption(rule())
      .addOption(out("roster-next.json"))
      .option("--reason <text>", "for those who approve it")
      .option("--force", "let --out overwrite a file");
  change(
    group
      .command("add")
      .description("make the next version with one more person, or with a person's new keys")
      .argument("<enrolment>", "id of an enrolment, the person's id, or a file of enrol --out"),
  )
    .addHelpText(
      "after",
      examples(
        "countersign roster add dora",
        "countersign roster add dora.json --role dora=witness",
      ),
    )
    .action((reference: string, options: roster.AddOptions) =>
      run(async (context) =>
        (await import("./roster.ts")).addToRoster(context, reference, options),
      ),
    );
  change(
    group
      .command("remove")
      .description("make the next version without a person, and propose it")
      .argument("<operator>", "id of the person"),
  )
    .addHelpText("after", examples("countersign roster remove dora --reason 'has left'"))
    .action((operator: string, options: roster.AddOptions) =>
      run(async (context) =>
        (await import("./roster.ts")).removeFromRoster(context, operator, options),
      ),
    );

  group
    .command("propose")
    .description("propose a version whose new keys have signed it")
    .argument("<file>", "the document, with the signatures beside it")
    .option("--reason <text>", "for those who approve it")
    .addHelpText("after", examples("countersign roster propose roster-next.json"))
    .action((file: string, options: roster.ProposeOptions) =>
      run(async (context) => (await import("./roster.ts")).proposeRoster(context, file, options)),
    );
}

function addVerdicts(program: Command, { run, repeatable, examples }: CommandParts): void {
  program
    .command("approve")
    .description("approve a ceremony, after reading what it is")
    .argument("<id>", "id or digest of the ceremony")
    .option("--role <role>", "count in this role, where you have several")
    .addOption(repeatable("--artefact <file>", ARTEFACT))
    .option(...YES)
    .addHelpText(
      "after",
      examples(
        "countersign approve 00112233445566778899aabbccddeeff",
        "countersign approve 0011… --role witness --artefact root.tbs",
      ),
    )
    .action((id: string, options: ApproveOptions) =>
      run(async (context) => (await import("./approve.ts")).approve(context, id, options)),
    );

  program
    .command("reject")
    .description("reject a ceremony, with a reason")
    .argument("<id>", "id or digest of the ceremony")
    .option("--role <role>", "count in this role, where you have several")
    .addOption(repeatable("--artefact <file>", ARTEFACT))
    .requiredOption("--reason <text>", "why; it is recorded")
    .option(...YES)
    .addHelpText("after", examples("countersign reject 0011… --reason 'the path length is wrong'"))
    .action((id: string, options: ApproveOptions) =>
      run(async (context) => (await import("./approve.ts")).reject(context, id, options)),
    );

  program
    .command("submit")
    .description("give your share for an unlock; it is checked here before it leaves")
    .argument("<id>", "id or digest of the unlock")
    .option(...SHARE)
    .option(...IDENTITY)
    .addOption(repeatable("--artefact <file>", ARTEFACT))
    .option(...YES)
    .addHelpText("after", examples("countersign submit ffeeddccbbaa99887766554433221100"))
    .action((id: string, options: SubmitOptions) =>
      run(async (context) => (await import("./submit.ts")).submit(context, id, options)),
    );

  program
    .command("refuse")
    .description("refuse to give your share for an unlock, with a reason")
    .argument("<id>", "id or digest of the unlock")
    .requiredOption("--reason <text>", "why; it is recorded")
    .option(...YES)
    .addHelpText("after", examples("countersign refuse ffee… --reason 'not agreed on the call'"))
    .action((id: string, options: RefuseOptions) =>
      run(async (context) => (await import("./submit.ts")).refuse(context, id, options)),
    );

  program
    .command("abort")
    .description("ask for the end of a ceremony: its proposer alone, or two others")
    .argument("<id>", "id or digest of the ceremony")
    .requiredOption("--reason <text>", "why; it is recorded")
    .option(...YES)
    .addHelpText("after", examples("countersign abort 0011… --reason 'proposed by mistake'"))
    .action((id: string, options: AbortOptions) =>
      run(async (context) => (await import("./approve.ts")).abort(context, id, options)),
    );
}

function addCeremony(program: Command, { run, repeatable, examples }: CommandParts): void {
  const group = program
    .command("ceremony")
    .description("propose, show and list what is to be done");

  group
    .command("propose")
    .description("propose a ceremony; that approves nothing, not even for you")
    .addArgument(program.createArgument("<kind>", "what is to be done").choices(KINDS))
    .requiredOption("--reason <text>", "what for, for those who approve it")
    .option("--key <key>", "its keyId, or its issuer's id")
    .option("--not-after <time>", "until when people may agree: a time, or 7d (default: 7d)")
    .addOption(repeatable("--tbs <file>", "sign: the bytes to be signed, DER; repeat for more"))
    .addOption(
      repeatable(
        "--operation <what:max>",
        "window: crl:24 or certificate:server:100; repeat for more",
      ),
    )
    .addOption(repeatable("--requester <name>", "window: only for this requester; repeat for more"))
    .option("--from <time>", "window: when it begins (default: now)")
    .option(
      "--until <time>",
      "window: when it ends, or how long from now, such as 2h (default: 24 h after its beginning)",
    )
    .option("--idle <time>", "window: it closes after so long without use (default: 8h)")
    .option("--release <keys>", "resume: all, or keys with commas between them")
    .option("--plan <file>", "generate, reshare, roster and the like: the document")
    .addHelpText(
      "after",
      examples(
        "countersign ceremony propose sign --key root --tbs intermediate.tbs --reason 'issue intermediate G2'",
        "countersign ceremony propose window --key root --operation crl:4 --reason 'CRLs of this quarter'",
        "countersign ceremony propose resume --release all --reason 'the host is replaced'",
      ),
    )
    .action((kind: CeremonyKind, options: ProposeOptions) =>
      run(async (context) =>
        (await import("./ceremony.ts")).proposeCeremony(context, kind, options),
      ),
    );

  group
    .command("show")
    .description("show a ceremony: its statement, checked, and how it stands")
    .argument("<id>", "id or digest")
    .addHelpText("after", examples("countersign ceremony show 00112233445566778899aabbccddeeff"))
    .action((id: string) =>
      run(async (context) => (await import("./ceremony.ts")).showOneCeremony(context, id)),
    );

  group
    .command("list")
    .description("list ceremonies, newest first")
    .option("--state <state>", "in this state")
    .addOption(new Option("--kind <kind>", "of this kind").choices(KINDS))
    .option("--key <key>", "of this key")
    .addHelpText("after", examples("countersign ceremony list --state gathering"))
    .action((options: ListOptions) =>
      run(async (context) => (await import("./ceremony.ts")).listCeremonies(context, options)),
    );

  program
    .command("unlock")
    .description("gather the shares that open a key for a ceremony")
    .command("open")
    .description("begin to gather shares")
    .argument("<ceremony>", "id or digest of the ceremony")
    .option("--gather <time>", "for so long, 10 min to 7 d (default: 24h)")
    .addHelpText("after", examples("countersign unlock open 0011… --gather 2h"))
    .action((ceremony: string, options: { gather?: string }) =>
      run(async (context) =>
        (await import("./ceremony.ts")).openUnlock(context, ceremony, options),
      ),
    );
}

function addShare(program: Command, { run, examples }: CommandParts): void {
  const group = program
    .command("share")
    .description("your own share: fetch, confirm, prove, print on paper, bring in from paper");
  const ofSet = (command: Command): Command =>
    command.option("--share-set <digest>", "of this share set, sha256:…, or a file of it");

  ofSet(group.command("fetch").description("fetch your share file, and keep it here"))
    .argument("<key>", "its keyId, or its issuer's id")
    .addHelpText("after", examples("countersign share fetch root"))
    .action((key: string, options: ShareOptions) =>
      run(async (context) => (await import("./share.ts")).fetchShare(context, key, options)),
    );

  ofSet(
    group
      .command("confirm")
      .description("open your share, check it, and confirm that it came; it is fetched if need be"),
  )
    .argument("<key>", "its keyId, or its issuer's id")
    .option(...SHARE)
    .option(...IDENTITY)
    .option(...YES)
    .addHelpText("after", examples("countersign share confirm root"))
    .action((key: string, options: ShareOptions) =>
      run(async (context) => (await import("./share.ts")).confirmShare(context, key, options)),
    );

  ofSet(
    group.command("prove").description("prove that you still hold your share, without showing it"),
  )
    .argument("<key>", "its keyId, or its issuer's id")
    .option(...SHARE)
    .option(...IDENTITY)
    .option(...YES)
    .addHelpText("after", examples("countersign share prove root"))
    .action((key: string, options: ShareOptions) =>
      run(async (context) => (await import("./share.ts")).proveOwnShare(context, key, options)),
    );

  ofSet(
    group
      .command("print")
      .description("print your share for paper, on this terminal or into a file of mode 0600"),
  )
    .argument(
      "[key]",
      "the beginning of its keyId, or its issuer's id; not needed for the only one",
    )
    .option("--out <file>", "write it here, mode 0600, never overwriting")
    .option("--no-qr", "without the QR code")
    .option(...SHARE)
    .option(...IDENTITY)
    .addHelpText(
      "after",
      examples("countersign share print root", "countersign share print --out share.txt"),
    )
    .action((key: string | undefined, options: PrintOptions) =>
      run(async (context) => (await import("./share.ts")).printShare(context, key, options)),
    );

  ofSet(
    group
      .command("import")
      .description("bring your share in from paper: typed, or from a file; checked and encrypted"),
  )
    .argument(
      "[key]",
      "the beginning of its keyId, or its issuer's id; not needed for the only one",
    )
    .option(
      "--from <file>",
      "read the share from this file in place of the keyboard; - is standard input",
    )
    .option("--recipient <age1…>", "encrypt it to this recipient (default: that of your identity)")
    .option("--share <file>", "write the share file here (default: where it is kept)")
    .option(...IDENTITY)
    .addHelpText(
      "after",
      examples("countersign share import root", "countersign share import --from share.txt"),
    )
    .action((key: string | undefined, options: ImportOptions) =>
      run(async (context) => (await import("./share.ts")).importShare(context, key, options)),
    );
}

function addKeys(program: Command, { run, repeatable, examples }: CommandParts): void {
  const group = program
    .command("keys")
    .description("the keys: how they are held, by whom, and the ceremonies that change that");

  group
    .command("list")
    .description("list the keys, their share sets and who has proved a share when")
    .addHelpText("after", examples("countersign keys list"))
    .action(() => run(async (context) => (await import("./keys.ts")).listKeys(context)));

  const plan = (command: Command): Command =>
    command
      .option("--threshold <k>", "how many shares open it (default: more than half)")
      .addOption(
        repeatable(
          "--custodian <id>",
          "who gets a share, in this order; repeat (default: everybody with a recipient)",
        ),
      )
      .option("--issuer-name <name>", "distinguished name, RFC 4514 (default: the issuer's)")
      .addOption(
        new Option(
          "--payload <what>",
          "what is sealed: the token's PIN, or the key itself",
        ).choices(["pin", "pkcs8"]),
      )
      .option("--reason <text>", "for those who approve it");

  plan(
    group
      .command("seal")
      .description("propose a seal around a key in use; of a sealed one, new shares (a reshare)")
      .argument("<key>", "its keyId, or its issuer's id"),
  )
    .addHelpText(
      "after",
      examples(
        "countersign keys seal root --threshold 2",
        "countersign keys seal root --threshold 3 --custodian alice --custodian bob --custodian carol",
      ),
    )
    .action((key: string, options: SealOptions) =>
      run(async (context) => (await import("./keys.ts")).sealKey(context, key, options)),
    );

  plan(
    group
      .command("generate")
      .description("propose a new key that is sealed from the beginning")
      .addOption(new Option("--type <type>", "of the key").choices(KEY_TYPES).default("P-256")),
  )
    .addHelpText(
      "after",
      examples("countersign keys generate --issuer-name 'CN=Example Root G1' --threshold 2"),
    )
    .action((options: GenerateOptions) =>
      run(async (context) => (await import("./keys.ts")).generateKey(context, options)),
    );
}
