/** What is wrong in a document, and where: shared by the policy file and the signed requesters. */

import { z } from "zod";

export type Path = readonly (string | number)[];

/** One thing wrong. `message` says what to write instead. */
export interface Problem {
  readonly path: Path;
  readonly message: string;
  /** It is the last key of the path that is wrong, not the value there. */
  readonly key?: true;
}

/** `issuers.issuing.names.dns.allow[0]`; a key with other characters stands in brackets, quoted. */
export function pathText(path: Path): string {
  return path.reduce<string>((text, segment) => {
    if (typeof segment === "number") return `${text}[${segment}]`;
    if (!/^[\w-]+$/.test(segment)) return `${text}[${JSON.stringify(segment)}]`;
    return text === "" ? segment : `${text}.${segment}`;
  }, "");
}

/** An object schema that refuses keys it does not know, and says which it knows. */
export function closed<Shape extends Readonly<Record<string, z.ZodType>>>(shape: Shape) {
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === "unrecognized_keys"
        ? `is not known here: known are ${Object.keys(shape).join(", ")}`
        : undefined,
  });
}

/** Checks plain JSON against a schema. */
export function readWith<T>(
  schema: z.ZodType<T>,
  json: unknown,
): { value: T } | { problems: Problem[] } {
  const result = schema.safeParse(json, { error: describe });
  if (result.success) return { value: result.data };
  return { problems: result.error.issues.flatMap(problemsOf) };
}

function problemsOf(issue: z.core.$ZodIssue): Problem[] {
  const path = issue.path.map((segment) =>
    typeof segment === "number" ? segment : String(segment),
  );
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({
      path: [...path, key],
      message: issue.message,
      key: true,
    }));
  }
  // A key of a map that its schema refuses: the message is that of the key's schema.
  if (issue.code === "invalid_key") {
    return [{ path, message: issue.issues[0]?.message ?? issue.message, key: true }];
  }
  return [{ path, message: issue.message }];
}

function describe(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.input === undefined && issue.code !== "custom") return "is missing";
  if (issue.code === "invalid_type") {
    return `must be ${withArticle(issue.expected)}, not ${kindOf(issue.input)}`;
  }
  if (issue.code === "invalid_value") {
    return `must be ${issue.values.map((value) => JSON.stringify(value)).join(" or ")}`;
  }
  return undefined;
}

function kindOf(input: unknown): string {
  if (input === null) return "empty";
  if (Array.isArray(input)) return "a list";
  if (typeof input === "object") {
    return `a map${Object.keys(input).length === 1 ? ' (a ": " inside a text needs quotes or no space)' : ""}`;
  }
  return withArticle(typeof input);
}

function withArticle(type: string): string {
  const words: Record<string, string> = {
    string: "a text",
    object: "a map",
    record: "a map",
    array: "a list",
    number: "a number",
    int: "a whole number",
    boolean: "true or false",
  };
  return words[type] ?? type;
}
