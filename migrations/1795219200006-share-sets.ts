import type { MigrationInterface, QueryRunner } from "typeorm";

const same = (...columns: readonly string[]) =>
  columns.map((column) => `NEW."${column}" IS OLD."${column}"`).join(" AND ");

/**
 * Sealed secrets and the shares that open them: CUSTODY.md 3 and 5. A key has one active set, whose epoch is above
 * those before it; a sealed secret goes when its set is retired or dropped, a share's file when its custodian has it.
 */
export class ShareSets1795219200006 implements MigrationInterface {
  async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(`
      CREATE TABLE "share_set" (
        "digest" TEXT PRIMARY KEY NOT NULL,
        "key_id" TEXT NOT NULL,
        "epoch" INTEGER NOT NULL,
        "ceremony" TEXT NOT NULL,
        "note" TEXT NOT NULL,
        "sealed" BLOB,
        "state" TEXT NOT NULL,
        "log_index" INTEGER NOT NULL,
        "changed_index" INTEGER NOT NULL
      ) STRICT`);
    await queryRunner.query(`
      CREATE INDEX "share_set_key" ON "share_set" ("key_id")`);
    await queryRunner.query(`
      CREATE UNIQUE INDEX "share_set_active" ON "share_set" ("key_id") WHERE "state" = 'active'`);
    await queryRunner.query(`
      CREATE TRIGGER "share_set_dealt" BEFORE INSERT ON "share_set"
      WHEN NEW."state" IS NOT 'pending' OR NEW."sealed" IS NULL
        OR NEW."changed_index" IS NOT NEW."log_index"
        OR EXISTS (SELECT 1 FROM "share_set" WHERE "digest" = NEW."digest")
        OR EXISTS (SELECT 1 FROM "share_set" WHERE "key_id" = NEW."key_id"
          AND "state" IN ('active', 'retired') AND "epoch" >= NEW."epoch")
      BEGIN SELECT RAISE(ABORT, 'a share set begins once, pending, above the epochs before it'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "share_set_frozen" BEFORE UPDATE ON "share_set"
      WHEN NOT (
        NEW."changed_index" > OLD."changed_index"
        AND CASE OLD."state" || ' ' || NEW."state"
          WHEN 'pending active' THEN NEW."sealed" IS OLD."sealed"
            AND NOT EXISTS (SELECT 1 FROM "share"
              WHERE "share_set" = OLD."digest" AND "confirmed_index" IS NULL)
            AND NOT EXISTS (SELECT 1 FROM "share_set" WHERE "key_id" = OLD."key_id"
              AND ("state" = 'active' OR ("state" = 'retired' AND "epoch" >= OLD."epoch")))
          WHEN 'pending dropped' THEN NEW."sealed" IS NULL
          WHEN 'active retired' THEN NEW."sealed" IS NULL
          ELSE 0
        END
        AND ${same("digest", "key_id", "epoch", "ceremony", "note", "log_index")}
      ) IS TRUE
      BEGIN SELECT RAISE(ABORT, 'a share set is activated when all have confirmed, and ends once'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "share_set_kept" BEFORE DELETE ON "share_set"
      BEGIN SELECT RAISE(ABORT, 'a share set stays on record'); END`);

    // "confirmation": JSON, what the custodian signed and the signature.
    await queryRunner.query(`
      CREATE TABLE "share" (
        "share_set" TEXT NOT NULL,
        "idx" INTEGER NOT NULL,
        "operator" TEXT NOT NULL,
        "file" BLOB,
        "file_sha256" TEXT NOT NULL,
        "confirmation" TEXT,
        "confirmed_index" INTEGER,
        "proved_at" INTEGER,
        "proved_index" INTEGER,
        PRIMARY KEY ("share_set", "idx")
      ) STRICT`);
    await queryRunner.query(`
      CREATE TRIGGER "share_dealt" BEFORE INSERT ON "share"
      WHEN NEW."file" IS NULL OR NEW."confirmation" IS NOT NULL OR NEW."confirmed_index" IS NOT NULL
        OR NEW."proved_at" IS NOT NULL OR NEW."proved_index" IS NOT NULL
        OR EXISTS (SELECT 1 FROM "share"
          WHERE "share_set" = NEW."share_set" AND "idx" = NEW."idx")
        OR NOT EXISTS (SELECT 1 FROM "share_set"
          WHERE "digest" = NEW."share_set" AND "state" = 'pending')
      BEGIN SELECT RAISE(ABORT, 'a share belongs to a pending set, once'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "share_frozen" BEFORE UPDATE ON "share"
      WHEN NOT (
        CASE (SELECT "state" FROM "share_set" WHERE "digest" = OLD."share_set")
          WHEN 'pending' THEN OLD."confirmation" IS NULL AND NEW."confirmation" IS NOT NULL
            AND NEW."confirmed_index" IS NOT NULL AND NEW."file" IS NULL
            AND ${same("proved_at", "proved_index")}
          WHEN 'active' THEN NEW."proved_at" IS NOT NULL
            AND NEW."proved_index" > coalesce(OLD."proved_index", -1)
            AND ${same("file", "confirmation", "confirmed_index")}
          ELSE NEW."file" IS NULL
            AND ${same("confirmation", "confirmed_index", "proved_at", "proved_index")}
        END
        AND ${same("share_set", "idx", "operator", "file_sha256")}
      ) IS TRUE
      BEGIN SELECT RAISE(ABORT, 'a share is confirmed while pending, proved while active'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "share_kept" BEFORE DELETE ON "share"
      BEGIN SELECT RAISE(ABORT, 'a share stays on record'); END`);
  }

  async down(): Promise<void> {
    throw new Error("sealed secrets are never dropped; restore a backup");
  }
}
