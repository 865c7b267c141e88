/** Every step of the database, oldest first. A released step never changes. */

import { AuditLog1795219200000 } from "./1795219200000-audit-log.ts";
import { IssuedCertificates1795219200001 } from "./1795219200001-issued-certificates.ts";
import { Revocations1795219200002 } from "./1795219200002-revocations.ts";
import { RequesterStatements1795219200003 } from "./1795219200003-requester-statements.ts";
import { PolicyVersions1795219200004 } from "./1795219200004-policy-versions.ts";
import { Ceremonies1795219200005 } from "./1795219200005-ceremonies.ts";
import { ShareSets1795219200006 } from "./1795219200006-share-sets.ts";
import { Enrolments1795219200007 } from "./1795219200007-enrolments.ts";

export const migrations = [
  AuditLog1795219200000,
  IssuedCertificates1795219200001,
  Revocations1795219200002,
  RequesterStatements1795219200003,
  PolicyVersions1795219200004,
  Ceremonies1795219200005,
  ShareSets1795219200006,
  Enrolments1795219200007,
];
