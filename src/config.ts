/** The service's configuration: one YAML file, read and checked once, at start. */

import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { CountersignError } from "./errors.ts";

const listener = z.strictObject({
  host: z.string().min(1).default("127.0.0.1"),
  port: z.int().min(0).max(65_535),
});

const sha256 = z.string().regex(/^sha256:[0-9a-f]{64}$/, "expected sha256: and 64 hex digits");

const schema = z.strictObject({
  /** The API, https. `certificate` and `key` are PEM files, read again when they change. */
  api: z.strictObject({
    ...listener.shape,
    certificate: z.string().min(1),
    key: z.string().min(1),
  }),
  /** CRLs, CA certificates, checkpoint, tiles and health, plain http. */
  public: z.strictObject({
    ...listener.shape,
    /** Where relying parties reach it; it stands in the certificates. Without a slash at the end. */
    url: z.url({ protocol: /^http$/ }).refine((url) => !url.endsWith("/"), "no slash at the end"),
  }),
  database: z.string().min(1),
  /**
   * The keeper: its own configuration file, whose path the service passes on and never reads; or the socket of a
   * keeper that runs as a user of its own.
   */
  keeper: z.union([z.string().min(1), z.strictObject({ socket: z.string().min(1) })]),
  /** The first roster, with its signatures beside it: read where none is recorded yet. */
  genesis: z.string().min(1),
  policy: z.string().min(1),
  /** SHA-256 of the key that may read /metrics, and nothing else. */
  metricsKey: sha256.optional(),
  log: z
    .strictObject({
      level: z.enum(["error", "warn", "info", "debug"]).default("info"),
      /** Whether anybody may read the entries of the audit log, not only operators. */
      publicEntries: z.boolean().default(false),
    })
    .prefault({}),
});

export type ServiceConfig = z.infer<typeof schema>;

/**
 * Reads the service's configuration.
 *
 * @returns The settings, with paths made absolute against the file's folder.
 * @throws CountersignError `config-invalid` that names the file and the setting.
 */
export function readServiceConfig(file: string): ServiceConfig {
  let document: unknown;
  try {
    document = parse(readFileSync(file, "utf8"), { strict: true, uniqueKeys: true });
  } catch (error) {
    throw new CountersignError(
      "config-invalid",
      `${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
  const result = schema.safeParse(document);
  if (!result.success) {
    const issues = result.error.issues.map(
      (issue) => `${issue.path.join(".") || "(document)"}: ${issue.message}`,
    );
    throw new CountersignError("config-invalid", `${file}: ${issues.join("; ")}`);
  }
  const config = result.data;
  const absolute = (path: string): string => resolve(dirname(file), path);
  return {
    ...config,
    api: {
      ...config.api,
      certificate: absolute(config.api.certificate),
      key: absolute(config.api.key),
    },
    database: absolute(config.database),
    keeper:
      typeof config.keeper === "string"
        ? absolute(config.keeper)
        : { socket: absolute(config.keeper.socket) },
    genesis: absolute(config.genesis),
    policy: absolute(config.policy),
  };
}
