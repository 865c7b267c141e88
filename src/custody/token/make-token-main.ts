/**
 * A process that makes one token and ends: `--module FILE --label TOKEN --object KEY --key P-256 --pin-file FILE`.
 * Prints one line of JSON: what was made, or the error's code and detail (then the exit status is 1).
 */

// First: it runs before any other module.
import "../harden.ts";
import { parseArgs } from "node:util";
import { CountersignError } from "../../errors.ts";
import { makeToken } from "./make-token.ts";
import { madeKeyTypes, type MakeTokenAnswer } from "./spawn-make-token.ts";

function parameters(): Record<"module" | "label" | "object" | "key" | "pin-file", string> {
  const text = { type: "string", default: "" } as const;
  try {
    const options = { module: text, label: text, object: text, key: text, "pin-file": text };
    return parseArgs({ options }).values;
  } catch (cause) {
    throw new CountersignError("config-invalid", (cause as Error).message, { cause });
  }
}

async function answer(): Promise<MakeTokenAnswer> {
  try {
    const { module: modulePath, label, object, key: wanted, "pin-file": pinFile } = parameters();
    const key = madeKeyTypes.find((type) => type === wanted);
    if (key === undefined) {
      throw new CountersignError("config-invalid", `--key is one of ${madeKeyTypes.join(", ")}.`);
    }
    if (!modulePath || !label || !object || !pinFile) {
      throw new CountersignError(
        "config-invalid",
        "--module, --label, --object and --pin-file are needed.",
      );
    }
    const made = await makeToken({ modulePath, label, object, key, pinFile });
    return { ...made, publicKey: Buffer.from(made.publicKey).toString("base64") };
  } catch (error) {
    if (!(error instanceof CountersignError)) throw error;
    return { code: error.code, detail: error.message };
  }
}

const line = await answer();
process.stdout.write(`${JSON.stringify(line)}\n`);
if ("code" in line) process.exitCode = 1;
