/** Every step of the database, oldest first. A released step never changes. */

import { AuditLog1795219200000 } from "./1795219200000-audit-log.ts";
import { IssuedCertificates1795219200001 } from "./1795219200001-issued-certificates.ts";
import { Revocations1795219200002 } from "./1795219200002-revocations.ts";
import { RequesterStatements1795219200003 } from "./1795219200003-requester-statements.ts";
import { PolicyVersions1795219200004 } from "./1795219200004-policy-versions.ts";

export const migrations = [
  AuditLog1795219200000,
  IssuedCertificates1795219200001,
  Revocations1795219200002,
  RequesterStatements1795219200003,
  PolicyVersions1795219200004,
];
