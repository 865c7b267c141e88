import type { MigrationInterface, QueryRunner } from "typeorm";

/** Every frame of the policy that was in force, as canonical JSON; its digest is what grants and intents name. */
export class PolicyVersions1795219200004 implements MigrationInterface {
  async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(`
      CREATE TABLE "policy_version" (
        "log_index" INTEGER PRIMARY KEY NOT NULL,
        "digest" TEXT NOT NULL,
        "document" TEXT NOT NULL
      ) STRICT`);
    await queryRunner.query(`
      CREATE TRIGGER "policy_version_frozen" BEFORE UPDATE ON "policy_version"
      BEGIN SELECT RAISE(ABORT, 'what was in force stays on record'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "policy_version_kept" BEFORE DELETE ON "policy_version"
      BEGIN SELECT RAISE(ABORT, 'what was in force stays on record'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "policy_version_once" BEFORE INSERT ON "policy_version"
      WHEN EXISTS (SELECT 1 FROM "policy_version" WHERE "log_index" = NEW."log_index")
      BEGIN SELECT RAISE(ABORT, 'what was in force stays on record'); END`);
  }

  async down(): Promise<void> {
    throw new Error("the record of policies is never dropped; restore a backup");
  }
}
