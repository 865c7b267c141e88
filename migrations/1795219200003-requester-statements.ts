import type { MigrationInterface, QueryRunner } from "typeorm";

/** Requesters change by an operator's signed statement; the sequence is part of what was signed. */
export class RequesterStatements1795219200003 implements MigrationInterface {
  async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(`
      CREATE TABLE "requester_statement" (
        "sequence" INTEGER PRIMARY KEY NOT NULL,
        "statement" BLOB NOT NULL,
        "signature" TEXT NOT NULL,
        "name" TEXT NOT NULL,
        "action" TEXT NOT NULL CHECK ("action" IN ('set', 'remove')),
        "log_index" INTEGER NOT NULL
      ) STRICT`);
    await queryRunner.query(`
      CREATE TRIGGER "requester_statement_frozen" BEFORE UPDATE ON "requester_statement"
      BEGIN SELECT RAISE(ABORT, 'a signed statement is final'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "requester_statement_kept" BEFORE DELETE ON "requester_statement"
      BEGIN SELECT RAISE(ABORT, 'a signed statement is final'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "requester_statement_once" BEFORE INSERT ON "requester_statement"
      WHEN EXISTS (SELECT 1 FROM "requester_statement" WHERE "sequence" = NEW."sequence")
      BEGIN SELECT RAISE(ABORT, 'a signed statement is final'); END`);
  }

  async down(): Promise<void> {
    throw new Error("signed statements are never dropped; restore a backup");
  }
}
