/** What a CSR asks for, as names that the policy can decide on. */

import { CountersignError } from "../errors.ts";
import { shownName } from "../policy/name.ts";
import type { CertificationRequest } from "../x509/certification-request.ts";
import {
  parseBasicConstraints,
  parseExtKeyUsage,
  parseKeyUsage,
  type Extension,
} from "../x509/extension.ts";
import { parseName } from "../x509/name.ts";
import { attributeTypeOids, extensionOids, extKeyUsageOids } from "../x509/oid.ts";

/**
 * The names of a CSR: its SANs of the kinds that have rules so far, and the common name, which must be one of
 * them. Nothing is dropped: what cannot be granted refuses the whole request.
 *
 * @throws CountersignError `name-refused` for a kind of name without rules, `csr-extension-refused` for an
 *   extension that the profile does not take from a CSR.
 */
export function requestedNames(
  csr: CertificationRequest,
  kind: "server" | "client" | "peer",
): { kind: "dns" | "ip"; value: string }[] {
  for (const extension of csr.otherExtensions) refuseExtension(extension, kind);
  const names = csr.names.map((name) => {
    if (name.kind === "dns" || name.kind === "ip") return { kind: name.kind, value: name.value };
    throw nameRefused(name.kind, "value" in name ? name.value : name.kind);
  });
  for (const attribute of parseName(csr.subject).flat()) {
    if (attribute.oid !== attributeTypeOids.CN) {
      throw nameRefused(`subject field ${attribute.oid}`, attribute.value);
    }
    // Character for character (SRV-06): a DNS name stands in the certificate in lower case.
    if (!names.some((name) => name.value.toLowerCase() === attribute.value)) {
      const name = shownName(attribute.value);
      throw new CountersignError(
        "name-refused",
        `the common name "${name}" is not among the subject alternative names: add it there, ` +
          "in lower case in both places, or leave the subject empty",
        { members: { rule: "SRV-06", name } },
      );
    }
  }
  if (names.length === 0) {
    throw new CountersignError(
      "lint-refused",
      "the CSR asks for no name: add a subject alternative name",
      { members: { rule: kind === "client" ? "CLI-03" : "SRV-03" } },
    );
  }
  return names;
}

/** CSRs from stock tools often repeat what the profile gives anyway; anything more is refused. */
function refuseExtension(extension: Extension, kind: "server" | "client" | "peer"): void {
  const refuse = (detail: string): never => {
    throw new CountersignError("csr-extension-refused", detail, {
      members: { rule: "CRT-20", extension: extension.oid },
    });
  };
  switch (extension.oid) {
    case extensionOids.basicConstraints:
      if (parseBasicConstraints(extension.value).cA) refuse("a CSR cannot ask for cA TRUE here");
      return;
    case extensionOids.keyUsage: {
      const asked = parseKeyUsage(extension.value).filter((usage) => usage !== "digitalSignature");
      if (asked.length > 0) {
        refuse(
          `the profile gives keyUsage digitalSignature; the CSR also asks for ${asked.join(", ")}: ` +
            "leave keyUsage out of the CSR",
        );
      }
      return;
    }
    case extensionOids.extKeyUsage: {
      const given: readonly string[] = [
        ...(kind === "client" ? [] : [extKeyUsageOids.serverAuth]),
        ...(kind === "server" ? [] : [extKeyUsageOids.clientAuth]),
      ];
      const asked = parseExtKeyUsage(extension.value).filter((usage) => !given.includes(usage));
      if (asked.length > 0) {
        refuse(`the profile does not give extended key usage ${asked.join(", ")}`);
      }
      return;
    }
    default:
      refuse(`extension ${extension.oid} is not taken from a CSR: leave it out`);
  }
}

function nameRefused(kind: string, value: string): CountersignError {
  const name = shownName(value);
  return new CountersignError(
    "name-refused",
    `no rule allows names of the kind ${kind}: "${name}"`,
    { members: { rule: `${kind} (no rule for this kind)`, name } },
  );
}
