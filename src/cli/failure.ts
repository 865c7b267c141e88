/** How a command ends when it does not do what was asked. */

import { CountersignError } from "../errors.ts";

/** The exit codes of `countersign`; a released one keeps its meaning. */
export const ExitCode = {
  done: 0,
  /** The service refused, a check failed, or something on this machine did. */
  failed: 1,
  /** The command line or the configuration is wrong; nothing was asked of the service. */
  usage: 2,
  /** `verify` found nothing wrong, but was given no key to hold the log against. */
  notAnchored: 3,
  /** The service cannot be reached, or is not the one that the CA file vouches for. */
  unreachable: 4,
} as const;

export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

export interface FailureDetails {
  readonly exitCode?: ExitCode;
  /** Stable: a problem code of the service, or one of the few of the command itself. */
  readonly code?: string;
  /** What a person can do next. */
  readonly next?: string;
  /** Members of the service's problem document. */
  readonly problem?: Readonly<Record<string, unknown>>;
  /** An earlier attempt got no answer: what it asked for may have been done. */
  readonly uncertain?: boolean;
  readonly cause?: unknown;
}

/** A failure with words for a person. The message holds no secrets. */
export class CommandFailure extends Error {
  readonly exitCode: ExitCode;
  readonly code: string | undefined;
  readonly next: string | undefined;
  readonly problem: Readonly<Record<string, unknown>>;
  readonly uncertain: boolean;

  constructor(message: string, details: FailureDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "CommandFailure";
    this.exitCode = details.exitCode ?? ExitCode.failed;
    this.code = details.code;
    this.next = details.next;
    this.problem = details.problem ?? {};
    this.uncertain = details.uncertain ?? false;
  }

  /** The same failure with more advice. */
  with(next: string): CommandFailure {
    return new CommandFailure(this.message, {
      exitCode: this.exitCode,
      ...(this.code === undefined ? {} : { code: this.code }),
      next: this.next === undefined ? next : `${this.next}\n${next}`,
      problem: this.problem,
      uncertain: this.uncertain,
      cause: this.cause,
    });
  }
}

/** The command line, or what it refers to, is wrong. */
export function usage(message: string, next?: string): CommandFailure {
  return new CommandFailure(message, {
    exitCode: ExitCode.usage,
    code: "usage",
    ...(next === undefined ? {} : { next }),
  });
}

/** In words for a person; undefined for what is a fault of the command itself. */
export function failureFrom(error: unknown): CommandFailure | undefined {
  if (error instanceof CommandFailure) return error;
  if (!(error instanceof CountersignError)) return undefined;
  return new CommandFailure(error.message, { code: error.code, problem: error.members });
}
