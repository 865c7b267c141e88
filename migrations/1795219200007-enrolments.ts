import type { MigrationInterface, QueryRunner } from "typeorm";

/**
 * Who asks to become an operator. Strangers may, so this is not in the log: what counts is the roster that a ceremony
 * makes of it. "keys" is JSON, "challenge" an age file, "challenge_sha256" the digest of what it holds.
 */
export class Enrolments1795219200007 implements MigrationInterface {
  async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(`
      CREATE TABLE "enrolment" (
        "id" TEXT PRIMARY KEY NOT NULL,
        "operator" TEXT NOT NULL,
        "keys" TEXT NOT NULL,
        "recipient" TEXT NOT NULL,
        "statement" BLOB,
        "signature" TEXT,
        "challenge" BLOB NOT NULL,
        "challenge_sha256" TEXT NOT NULL,
        "state" TEXT NOT NULL,
        "created_at" INTEGER NOT NULL
      ) STRICT`);
    await queryRunner.query(`
      CREATE INDEX "enrolment_created" ON "enrolment" ("created_at")`);
    await queryRunner.query(`
      CREATE TRIGGER "enrolment_requested" BEFORE INSERT ON "enrolment"
      WHEN NEW."state" IS NOT 'requested'
        OR EXISTS (SELECT 1 FROM "enrolment" WHERE "id" = NEW."id")
      BEGIN SELECT RAISE(ABORT, 'an enrolment begins as a request of its own'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "enrolment_frozen" BEFORE UPDATE ON "enrolment"
      WHEN NOT (
        OLD."state" = 'requested' AND NEW."state" = 'proved'
        AND NEW."id" IS OLD."id"
        AND NEW."operator" IS OLD."operator"
        AND NEW."keys" IS OLD."keys"
        AND NEW."recipient" IS OLD."recipient"
        AND NEW."statement" IS OLD."statement"
        AND NEW."signature" IS OLD."signature"
        AND NEW."challenge" IS OLD."challenge"
        AND NEW."challenge_sha256" IS OLD."challenge_sha256"
        AND NEW."created_at" IS OLD."created_at"
      ) IS TRUE
      BEGIN SELECT RAISE(ABORT, 'an enrolment is proved once'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "enrolment_kept" BEFORE DELETE ON "enrolment"
      WHEN OLD."state" IS NOT 'requested'
      BEGIN SELECT RAISE(ABORT, 'an enrolment that was proved stays'); END`);
  }

  async down(): Promise<void> {
    throw new Error("enrolments are never dropped; restore a backup");
  }
}
