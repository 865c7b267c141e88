/**
 * What a database of the service consists of. A trigger or a view that somebody added changes what the service reads
 * and writes, and a trigger that is missing lets rows be changed.
 */

import { hash } from "node:crypto";
import type { Finding } from "./findings.ts";

/** A row of `sqlite_master`. */
export interface SchemaObject {
  readonly type: string;
  readonly name: string;
  readonly table: string;
  /** As it was made; empty for the index of a constraint. */
  readonly sql: string;
}

/** The steps of migrations/, oldest first. */
export const schemaSteps: readonly string[] = [
  "AuditLog1795219200000",
  "IssuedCertificates1795219200001",
  "Revocations1795219200002",
  "RequesterStatements1795219200003",
  "PolicyVersions1795219200004",
];

/** The {@link schemaDigest} of every object that the steps make. A test compares this with a new database. */
export const schemaDigests: Readonly<Record<string, string>> = {
  "index certificate_name_reversed":
    "1432614c8fb232d90da50d9b21fc08e37cf2b32a0a2001340f9c97b15ea924dd",
  "index crl_intent": "4c92da147a050a5e1c8f6db523e347f8c58f07afad92e3c572d5b3b1653fdcbf",
  "index crl_pending": "9243b59b1bab0fdefbdf5fec2a9d39b58cfc4ff09d85a107115111c2773bcc13",
  "index idempotency_created": "5fbceb47f80eeac88bcfc4658d39f3698c50a4ca9ddf032ad42caf094e64c56b",
  "index issued_certificate_authority":
    "17a6d9390afde97269fc28ff5366df56cc4592687711401787e29b2ee4faec58",
  "index issued_certificate_pending":
    "cc5bbfa94e992c62f881fdc480761c926f0bf403fc02058fe39ea3d2802eeb09",
  "index issued_certificate_requester":
    "70ed6520bf7ba55b0b957bad446fc876470fb13dd4665483279afae26da3f1af",
  "index issued_certificate_sha256":
    "1de7650646989a344091cfe20d27d3bf3a8be453c7a376c26ea12f3bff2e7f67",
  "index issued_certificate_spki":
    "ad62b7ed6fd2b6775c17f092bf56fea474696db4ea1439e5b0023e4c044fc233",
  "index sqlite_autoindex_crl_1":
    "7b168a368f809f68f6ebd939550d74933b00d421d0a3847f150a7c026e9f3b45",
  "index sqlite_autoindex_idempotency_1":
    "f27658b5438ad78d00d20bc6b149f1cdec621afbf2de567efd8f169b381cc918",
  "index sqlite_autoindex_issued_certificate_1":
    "77ea4072f0a34e7db0653dd0113dba661772ebc9ae687dfe3389b35db87ad042",
  "table audit_checkpoint": "49bc304521db0b532ffebe53ed4080546bbb759f730d463b48122a5894bea2e2",
  "table audit_entry": "bbb935773007258c5f229bb8a429ebbb1759372197925a6d7d14fe5720566826",
  "table audit_tile": "e89a6943efda0491e7c5f2611e39c0f2b757298cc5470f5db217906223dae44e",
  "table certificate_name": "5ef5e5cc2a31fd245be5afa1044f5657d324fb0a1eae74976568ddeb7938daa2",
  "table crl": "779fe7898cc536dcc11794825d9df897cfc257f83f57b5ebbcd89792b3826be4",
  "table idempotency": "5ed1a918361b9d657fdbff45f29635dc22dca1074e93b1c85580cadd608d1b82",
  "table issued_certificate": "237f01eb55293c0a7edad1bc7c28de72b3d25118710bc7187b7d14d11489ed4a",
  "table migrations": "a3c8e0a7207aa592888176311fd2156edf975ad41456716afd2962a2981c4f4d",
  "table policy_version": "51abfa5302d774ba7430b6edd3118ef0f8e22e83495fda9a62f18fb5a11d1f58",
  "table requester_statement": "903c03a99331ea491b719f0effc3ad143d602a904fe42211241e5b1560d24513",
  "table revocation": "c64089039b1ea0ff0efdd234b6ee1da4767a39cab45c48889f42673100747030",
  "table sqlite_sequence": "420604012bd061a0fe250a406dac8517d6a17b104b05315174c166cf39670eab",
  "trigger audit_entry_frozen": "ff56215730945c745e9c7f70fd5aab1ec330b4c1fbea0f21ae81672cf7f4e36a",
  "trigger audit_entry_kept": "609cd0579167c2f791327fb7a3717dfb8caccf4facf9df6af0e82292f077613e",
  "trigger audit_entry_next": "3f589120cf836d96f15ca4a82f4810f87d56737f1e2587b78baba6a7f6fcad04",
  "trigger audit_tile_grows": "1b1ae2ce6cbc24f61752653753ab138b209636ba2902a5f5e261dea0fa059e1b",
  "trigger audit_tile_kept": "72ecf43effb1159910e57c1240d66f78a0ca3a126aae59a528c55411c90d391f",
  "trigger audit_tile_next": "c40529a84a4d04718f51ae116832f548bde91e6535a58d57563c09782f9607d4",
  "trigger certificate_name_frozen":
    "1f90ca8b0d13afa74ee8f5761605a40e27c7a3a4b2ba523ce35202849e46cc7d",
  "trigger certificate_name_kept":
    "1f6412eea39d93c51042d5dfa7c0e0b223322607eff21a4711eb98d241f6a9d6",
  "trigger certificate_name_once":
    "cd65226d1d778ef880fe48534fa3ee3095f9fdb83227422958456d512c12d2ab",
  "trigger crl_frozen": "2f2c4d98e86e62c08810000a6b52bb838224f88389c4905eee8a3a86a0845c46",
  "trigger crl_intended": "458ecff0b2f14576c0f3b2fc2fee85711f0ceb35e4943876fe3a1ee47ddd37b5",
  "trigger crl_kept": "bb83cad0007281c73e1f9a509b90df64b90555bdc7314ec25b1cc0a168e666cf",
  "trigger issued_certificate_frozen":
    "85eb1fa68a5baac3457e49da480bff8d1cab7544ec828bcc4e6d44137c4915c4",
  "trigger issued_certificate_intended":
    "edf57af47f345e7ec74412ed02b0480a698224fbd147ae035bbb75c75c5c90b6",
  "trigger issued_certificate_kept":
    "0247ad76fd6c1e11ea480177881cee267a70ceb187d10ebe7d0aefbb880cf715",
  "trigger policy_version_frozen":
    "f9da9c32786c2565bf3e770fa7e58f07999b47bb4290f573c4a0805eac58120d",
  "trigger policy_version_kept": "d3deb8ddf431f1856991212cfd4a1b958d91c3b68a34daae2e85fdc69a11becb",
  "trigger policy_version_once": "96096a41c247cac3dd5cb2b489966bfed6ce63777f87567ffc80f8ca89f89bbe",
  "trigger requester_statement_frozen":
    "500ff888b2796d3cc9298849fea90f714499f5245dd7480eea4888d139897590",
  "trigger requester_statement_kept":
    "fc4b830bf9f55e75945092e16f8cb8c92db7623f8193734a6e2e28598a2826f7",
  "trigger requester_statement_once":
    "3913599aa7e6c7a8b94a63f1ccece51bceff4e77a36ee5fc14116a7c824236ee",
  "trigger revocation_frozen": "0ea5e257b7fca7779e8fad70b7fae57abe95f1dfd35e7ab5d3e18b54c437fee2",
  "trigger revocation_kept": "3c95362d18dd3b8c40ac313bf5d2e64e746489cddc202593cbd5f84ee0ae0926",
  "trigger revocation_once": "44f9a35c33eaad0a422543530fb5983dfaa4f1371e011996a162d73d6022f5b3",
};

/** SHA-256, hex, of what an object is, however the SQL is laid out. */
export function schemaDigest({ type, name, table, sql }: SchemaObject): string {
  return hash("sha256", JSON.stringify([type, name, table, sql.trim().replaceAll(/\s+/g, " ")]));
}

/** In which objects a database is another than the steps make. */
export function schemaFindings(
  objects: readonly SchemaObject[],
  steps: readonly string[],
): Omit<Finding, "rule">[] {
  const findings: Omit<Finding, "rule">[] = [];
  if (steps.join("\n") !== schemaSteps.join("\n")) {
    findings.push({
      position: "migrations",
      detail:
        `the database was made by the steps ${steps.join(", ") || "(none)"}, and this verifier knows ` +
        `${schemaSteps.join(", ")}: use the one of the service's version`,
    });
  }
  const missing = new Set(Object.keys(schemaDigests));
  for (const object of objects) {
    const position = `${object.type} ${object.name}`;
    const expected = Object.hasOwn(schemaDigests, position) ? schemaDigests[position] : undefined;
    missing.delete(position);
    if (expected === undefined) {
      findings.push({ position, detail: `no step of the service makes it, on ${object.table}` });
    } else if (schemaDigest(object) !== expected) {
      findings.push({ position, detail: "it is not the one that the service makes" });
    }
  }
  for (const position of missing) {
    findings.push({ position, detail: "it is missing" });
  }
  return findings;
}
