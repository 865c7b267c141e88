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
  "Ceremonies1795219200005",
  "ShareSets1795219200006",
  "Enrolments1795219200007",
];

/** The {@link schemaDigest} of every object that the steps make. A test compares this with a new database. */
export const schemaDigests: Readonly<Record<string, string>> = {
  "index ceremony_log_index": "daba4d54ef006bdeafbd539c5c0acd8210033663d1a6575b334d2fdd311cb5f6",
  "index certificate_name_reversed":
    "1432614c8fb232d90da50d9b21fc08e37cf2b32a0a2001340f9c97b15ea924dd",
  "index crl_intent": "4c92da147a050a5e1c8f6db523e347f8c58f07afad92e3c572d5b3b1653fdcbf",
  "index crl_pending": "9243b59b1bab0fdefbdf5fec2a9d39b58cfc4ff09d85a107115111c2773bcc13",
  "index enrolment_created": "79465ebbf3a249bec55f1a3a79050badd286d602ec09219a1b5645e93ba2e1a4",
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
  "index share_set_active": "3f80d4bcd1be351f69980af42eed6211e6c14a8f8fa70f30579909b866e33e4b",
  "index share_set_key": "e0b5dee4dd2fa234eee4a8f29754016801ea1396b91b91d3c5987ce590c3db67",
  "index sqlite_autoindex_abort_1":
    "28d72e8009e94c6a023abec43d0875f975b785e46b7ffb3c615faecd6635cbee",
  "index sqlite_autoindex_approval_1":
    "bed88a1e773b4e46877f148a387f78f246f05c0daaf008e84e2f884859bfa57e",
  "index sqlite_autoindex_ceremony_1":
    "e4d38b5911927e6c5e5fec5401bf229e386cd6081282689c82fe84aeaecb481f",
  "index sqlite_autoindex_ceremony_2":
    "c09e3841ee9b8ce781a82a1bb05813def3e48da781d5569f27379f8c0c256430",
  "index sqlite_autoindex_crl_1":
    "7b168a368f809f68f6ebd939550d74933b00d421d0a3847f150a7c026e9f3b45",
  "index sqlite_autoindex_enrolment_1":
    "73c848b83983a00af436998debcbb94bc5d2cbb04701955e6095954f6721f843",
  "index sqlite_autoindex_idempotency_1":
    "f27658b5438ad78d00d20bc6b149f1cdec621afbf2de567efd8f169b381cc918",
  "index sqlite_autoindex_issued_certificate_1":
    "77ea4072f0a34e7db0653dd0113dba661772ebc9ae687dfe3389b35db87ad042",
  "index sqlite_autoindex_object_1":
    "723c24e2236f2d2c8790504acabd89ce8b95c24d4b210a6dfcae6c6d85e4c7a8",
  "index sqlite_autoindex_share_1":
    "77a2e4d1214c0686425eba9940acb326cdc15f085285a9c868b2387e92427a27",
  "index sqlite_autoindex_share_set_1":
    "ca9b009d6dea4e4af6281f764c8dfdae80d7afb84df1becc19d4d29ef654c96a",
  "index sqlite_autoindex_submission_1":
    "4d3aa9d0e9e878946d06b5b394742d7cd6c88e248824d732a5d8549959cd19cf",
  "index sqlite_autoindex_unlock_1":
    "50b881697784f46db5e4a905fc341b524b666e389b269c85b4d16e3c9e2159ba",
  "index sqlite_autoindex_unlock_2":
    "55ae4aef13cf31102df37a6b1c9ff78cab23c66788ab9e3fb2fe0bb235304efc",
  "index unlock_ceremony": "4a594b7678a63518c84b8510c2ec00bb3fa8bea078ad1735d85b9ee54868acb8",
  "index unlock_gathering": "c5866c7ae3f99b4b9a7f0dcd6bce1a041487faa5e02ee2e038b0ddf021f674c7",
  "table abort": "a5ff649645832812a290b45f39dd1b7b7d5e6a72d38acf34037e79b07dbf8387",
  "table approval": "50c2acaf2f5637541f00982bf19fe143112c0fbaffa4aae17275645c3dc4d820",
  "table audit_checkpoint": "49bc304521db0b532ffebe53ed4080546bbb759f730d463b48122a5894bea2e2",
  "table audit_entry": "bbb935773007258c5f229bb8a429ebbb1759372197925a6d7d14fe5720566826",
  "table audit_tile": "e89a6943efda0491e7c5f2611e39c0f2b757298cc5470f5db217906223dae44e",
  "table ceremony": "94410596b44d3dd167072e3e3be9dfad63b56b072c1ba1858dc888e6499697b1",
  "table certificate_name": "5ef5e5cc2a31fd245be5afa1044f5657d324fb0a1eae74976568ddeb7938daa2",
  "table crl": "779fe7898cc536dcc11794825d9df897cfc257f83f57b5ebbcd89792b3826be4",
  "table enrolment": "b2d060f376eb61af9e948176887e88e95640157d1a1fd6ff84ca8f4b970d43ea",
  "table idempotency": "5ed1a918361b9d657fdbff45f29635dc22dca1074e93b1c85580cadd608d1b82",
  "table issued_certificate": "237f01eb55293c0a7edad1bc7c28de72b3d25118710bc7187b7d14d11489ed4a",
  "table migrations": "a3c8e0a7207aa592888176311fd2156edf975ad41456716afd2962a2981c4f4d",
  "table object": "80433d235b6bd7504e16208212787ebee9ab3554546bec5cab49c5512e4cb0e8",
  "table policy_version": "51abfa5302d774ba7430b6edd3118ef0f8e22e83495fda9a62f18fb5a11d1f58",
  "table requester_statement": "903c03a99331ea491b719f0effc3ad143d602a904fe42211241e5b1560d24513",
  "table revocation": "c64089039b1ea0ff0efdd234b6ee1da4767a39cab45c48889f42673100747030",
  "table roster_version": "3606331817a8541a74bd36f81cbe86a6b68121e2e6e6b05846d21dbc715a5cdb",
  "table share": "2350d90107909ddd0e483c89b1362a2f8743ae3f205e8a8843f9612347b915ce",
  "table share_set": "65dcb650dcf585f05240db1a246ec1821693b136486e00fef6a28871754d3d6c",
  "table sqlite_sequence": "420604012bd061a0fe250a406dac8517d6a17b104b05315174c166cf39670eab",
  "table submission": "8691742217dab2466bfc4d8d0a84fa6b4508c8eef24f3f1ce6db70c2248f35df",
  "table unlock": "dd079bd0e728c42fe91e1101b7666fcf67d932db17972be37294bd50fa943dfe",
  "trigger abort_frozen": "dfcdf8f39ea001c41f837897d2fca3cbf8e2106168862644f5afb82e2e36b2be",
  "trigger abort_kept": "b3b0a10ecaa785176823f888194a68fa118e71c80d403ee6670919aac6bf8ec9",
  "trigger abort_once": "74879292d4f9a439334b5d537b6e7ac6d11ebd68dca4d240d32ae56e0f6b5a61",
  "trigger approval_frozen": "1daa50e8c7dbd3e00f04b9aac4cba75b6e364a83b10a02153fdf3eaf9460514c",
  "trigger approval_kept": "6979a389a9d4162a1d1ccfe68dd1019de63e7aa0684b09a54b005109286e7457",
  "trigger approval_once": "cdb2a0b689abf7eb68543ba0be3a199d7c0a5ffa99ac1fd72ab344a273466a11",
  "trigger audit_entry_frozen": "ff56215730945c745e9c7f70fd5aab1ec330b4c1fbea0f21ae81672cf7f4e36a",
  "trigger audit_entry_kept": "609cd0579167c2f791327fb7a3717dfb8caccf4facf9df6af0e82292f077613e",
  "trigger audit_entry_next": "3f589120cf836d96f15ca4a82f4810f87d56737f1e2587b78baba6a7f6fcad04",
  "trigger audit_tile_grows": "1b1ae2ce6cbc24f61752653753ab138b209636ba2902a5f5e261dea0fa059e1b",
  "trigger audit_tile_kept": "72ecf43effb1159910e57c1240d66f78a0ca3a126aae59a528c55411c90d391f",
  "trigger audit_tile_next": "c40529a84a4d04718f51ae116832f548bde91e6535a58d57563c09782f9607d4",
  "trigger ceremony_frozen": "7e4ef51fbde5500577b16b917f9ff7f304d819ceda4639c5a400ca45d1101bc1",
  "trigger ceremony_kept": "312eb92f5d6cc8b73c3c20e14f379020e455d13fbe21bf0e8ab43cb02762fbf9",
  "trigger ceremony_opened": "c202b35e88f38230610d51796c69da3e5051d7c00dc62e5bfe775942d1c54f23",
  "trigger certificate_name_frozen":
    "1f90ca8b0d13afa74ee8f5761605a40e27c7a3a4b2ba523ce35202849e46cc7d",
  "trigger certificate_name_kept":
    "1f6412eea39d93c51042d5dfa7c0e0b223322607eff21a4711eb98d241f6a9d6",
  "trigger certificate_name_once":
    "cd65226d1d778ef880fe48534fa3ee3095f9fdb83227422958456d512c12d2ab",
  "trigger crl_frozen": "2f2c4d98e86e62c08810000a6b52bb838224f88389c4905eee8a3a86a0845c46",
  "trigger crl_intended": "458ecff0b2f14576c0f3b2fc2fee85711f0ceb35e4943876fe3a1ee47ddd37b5",
  "trigger crl_kept": "bb83cad0007281c73e1f9a509b90df64b90555bdc7314ec25b1cc0a168e666cf",
  "trigger enrolment_frozen": "82af834654832651d07d767a009c3fc16fc1a6e3d7fcb42ef51bee94936c74d6",
  "trigger enrolment_kept": "c42fabc24bab99093dae78631cd891e0702910b9ad34fd312c210ec33ba058d4",
  "trigger enrolment_requested": "592b94a79001efcd63dfd239acac57876e36658d0282e01c13ed043edb4c4f59",
  "trigger issued_certificate_frozen":
    "85eb1fa68a5baac3457e49da480bff8d1cab7544ec828bcc4e6d44137c4915c4",
  "trigger issued_certificate_intended":
    "edf57af47f345e7ec74412ed02b0480a698224fbd147ae035bbb75c75c5c90b6",
  "trigger issued_certificate_kept":
    "0247ad76fd6c1e11ea480177881cee267a70ceb187d10ebe7d0aefbb880cf715",
  "trigger object_frozen": "8da2084ae3b80162905198bfd230377dff26fb12c557405d7515e36f09bbe1b9",
  "trigger object_kept": "d389f9b84ca03a490ca9da261e52ce0e1b0e0393de9bd7d35ad1ba8e546089b9",
  "trigger object_once": "fe5c6b4fc957cea481a345bf696ca7e93b1843006a9566c347b68e7d6bd67c1e",
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
  "trigger roster_version_frozen":
    "1ffabe97085806d847df3b31ef474c4da4a045768b82f75262dc42ea9c9e5c4b",
  "trigger roster_version_kept": "c702fcb653f7b1203c91a54bd3dd9754670f2f48422f21fbdc43713249ea0590",
  "trigger roster_version_next": "ae811cd6d8b054c886a1e1836fda72ffc9d1aa8f9757df419edd532cbb9170b7",
  "trigger share_dealt": "831c1c98ce1a119e0a7b30dc78c6e6afaf772706ac72f220cb3ddce31b82f54f",
  "trigger share_frozen": "2500a227e9e0e46df216383e4dba21fd585d92c6c63c26f3fdda8172597c460d",
  "trigger share_kept": "f794825c82a3cdfa70cf94927bb130d2e7b83b24d9fa9ba9f94e29083d74ae93",
  "trigger share_set_dealt": "71eb4cf3d5b3a1e17129e8671e38c093866a7c5b0aa9486c26c38ccb192d120a",
  "trigger share_set_frozen": "a6af1af0592b083f898e3f6091ca75fc77017d3da58c6b6eeb3ce07903aa0515",
  "trigger share_set_kept": "deb2efe4c1857629dfd8073717a41e85cec3828ab1404447daf8a4a6d029611d",
  "trigger submission_frozen": "b0756695ccefcc0389c7ed425802203ece200002f902067549636b79fabeb007",
  "trigger submission_kept": "ba32fcb68ca2935554d2829b8bf92b9a0b826415c9e6cc1a5729d8aea4e5adb0",
  "trigger submission_once": "9a1b1a05b79c37bb21fe037ca25f212f098dc14bc6896b9d95e647fbe6bed240",
  "trigger unlock_frozen": "84efb6c005afc9229eecff75e1785244e8519c65f5c0d10f2ab692f841f9a358",
  "trigger unlock_kept": "bd55e0a9fb2f2c54f1d10620048d2e5f0137c651c16ec2ebc0df9f37bc19e743",
  "trigger unlock_opened": "ea5a780701faa9cdfc7660703b2ccea703ad7fd0771fd1025a1ddad6d3150234",
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
