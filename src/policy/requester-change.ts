/**
 * Putting requester statements into force: service, keeper and signers do it with these functions, so that the same
 * statements on top of the same policy file leave the same requesters everywhere.
 */

import { CountersignError } from "../errors.ts";
import { compilePolicy, type CompiledPolicy } from "./decide.ts";
import { checkRequester } from "./document.ts";
import type { RequesterStatement } from "./requester.ts";

/** Of the requester that the statement sets or removes. */
export function requesterNameOf(statement: RequesterStatement): string {
  return statement.action === "set" ? statement.requester.name : statement.name;
}

/**
 * Whether a new statement can be put into force. Asked before it is recorded: what is recorded stays for ever.
 *
 * @throws CountersignError `requester-unknown` for the removal of nobody, `requester-exists` for a credential of
 *   another requester, `policy-invalid` for an issuer or profile that the policy does not have, or a pattern that
 *   cannot be read.
 */
export function checkChange(policy: CompiledPolicy, statement: RequesterStatement): void {
  if (statement.action === "set") {
    checkRequester(policy.policy, statement.requester);
    const requesters = [...policy.requesters.values()].map(({ requester }) => requester);
    compilePolicy(policy.policy, requesters).updateRequester(statement.requester);
  } else if (!policy.requesters.has(statement.name)) {
    throw new CountersignError("requester-unknown", `there is no requester ${statement.name}`);
  }
}

/**
 * Puts a recorded statement into force. It could be when it was recorded, but the policy file below it may be another
 * by now: somebody may have given one of its credentials to an entry there. Such a statement must not keep the
 * service from starting. Its requester is then not in force at all, not as it was before either: the operators have
 * replaced what it was before, and a credential that they took from it may since be somebody else's.
 *
 * To remove who is not there is to have nothing to do: the entry stood in the policy file and was deleted.
 *
 * @returns Why the statement is not in force; undefined if it is.
 */
export function applyRecorded(
  policy: CompiledPolicy,
  statement: RequesterStatement,
): CountersignError | undefined {
  if (statement.action === "remove") {
    policy.removeRequester(statement.name);
    return undefined;
  }
  try {
    policy.updateRequester(statement.requester);
    return undefined;
  } catch (error) {
    if (!(error instanceof CountersignError)) throw error;
    policy.removeRequester(statement.requester.name);
    return error;
  }
}
