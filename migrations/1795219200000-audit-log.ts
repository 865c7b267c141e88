import type { MigrationInterface, QueryRunner } from "typeorm";

/**
 * AUDIT-LOG 9.4. An entry is written once, at the end: `INSERT OR REPLACE` passes triggers for UPDATE and DELETE,
 * so that the insert itself must be the next index. The last tile of a level is rewritten as it fills, and only
 * ever grows.
 */
export class AuditLog1795219200000 implements MigrationInterface {
  async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(`
      CREATE TABLE "audit_entry" (
        "idx" INTEGER PRIMARY KEY NOT NULL,
        "leaf" BLOB NOT NULL
      ) STRICT`);
    await queryRunner.query(`
      CREATE TRIGGER "audit_entry_frozen" BEFORE UPDATE ON "audit_entry"
      BEGIN SELECT RAISE(ABORT, 'append only'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "audit_entry_kept" BEFORE DELETE ON "audit_entry"
      BEGIN SELECT RAISE(ABORT, 'append only'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "audit_entry_next" BEFORE INSERT ON "audit_entry"
      WHEN NEW."idx" IS NOT (SELECT coalesce(max("idx"), -1) + 1 FROM "audit_entry")
      BEGIN SELECT RAISE(ABORT, 'append only'); END`);

    await queryRunner.query(`
      CREATE TABLE "audit_tile" (
        "level" INTEGER NOT NULL,
        "n" INTEGER NOT NULL,
        "hashes" BLOB NOT NULL,
        PRIMARY KEY ("level", "n")
      ) WITHOUT ROWID, STRICT`);
    await queryRunner.query(`
      CREATE TRIGGER "audit_tile_grows" BEFORE UPDATE ON "audit_tile"
      WHEN NEW."level" IS NOT OLD."level" OR NEW."n" IS NOT OLD."n"
        OR substr(NEW."hashes", 1, length(OLD."hashes")) IS NOT OLD."hashes"
      BEGIN SELECT RAISE(ABORT, 'a tile only grows'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "audit_tile_kept" BEFORE DELETE ON "audit_tile"
      BEGIN SELECT RAISE(ABORT, 'a tile only grows'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "audit_tile_next" BEFORE INSERT ON "audit_tile"
      WHEN EXISTS (
        SELECT 1 FROM "audit_tile" t WHERE t."level" = NEW."level" AND t."n" = NEW."n"
          AND substr(NEW."hashes", 1, length(t."hashes")) IS NOT t."hashes")
      BEGIN SELECT RAISE(ABORT, 'a tile only grows'); END`);

    await queryRunner.query(`
      CREATE TABLE "audit_checkpoint" (
        "size" INTEGER PRIMARY KEY NOT NULL,
        "note" TEXT NOT NULL
      ) STRICT`);
  }

  async down(): Promise<void> {
    throw new Error("a log is never dropped; restore a backup");
  }
}
