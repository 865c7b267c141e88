import type { MigrationInterface, QueryRunner } from "typeorm";

/**
 * Revocations, RFC 5280 §5.3, and the CRLs that publish them, §5.2.3: a CRL number is never used twice, and never
 * one below another.
 */
export class Revocations1795219200002 implements MigrationInterface {
  async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(`
      CREATE TABLE "revocation" (
        "issuer" TEXT NOT NULL,
        "key_id" TEXT NOT NULL,
        "serial_number" TEXT NOT NULL,
        "reason" TEXT NOT NULL,
        "revocation_date" INTEGER NOT NULL,
        "invalidity_date" INTEGER,
        "requested_by" TEXT NOT NULL,
        "log_index" INTEGER NOT NULL,
        "not_after" INTEGER NOT NULL,
        PRIMARY KEY ("issuer", "serial_number")
      ) WITHOUT ROWID, STRICT`);
    await queryRunner.query(`
      CREATE TRIGGER "revocation_frozen" BEFORE UPDATE ON "revocation"
      BEGIN SELECT RAISE(ABORT, 'a revocation is final'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "revocation_kept" BEFORE DELETE ON "revocation"
      BEGIN SELECT RAISE(ABORT, 'a revocation is final'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "revocation_once" BEFORE INSERT ON "revocation"
      WHEN EXISTS (SELECT 1 FROM "revocation"
        WHERE "issuer" = NEW."issuer" AND "serial_number" = NEW."serial_number")
      BEGIN SELECT RAISE(ABORT, 'a revocation is final'); END`);

    await queryRunner.query(`
      CREATE TABLE "crl" (
        "issuer" TEXT NOT NULL,
        "key_id" TEXT NOT NULL,
        "number" INTEGER NOT NULL,
        "tbs_sha256" BLOB NOT NULL,
        "crl" BLOB,
        "crl_sha256" BLOB,
        "this_update" INTEGER NOT NULL,
        "next_update" INTEGER NOT NULL,
        "intent_index" INTEGER NOT NULL,
        "done_index" INTEGER,
        "state" TEXT NOT NULL,
        PRIMARY KEY ("issuer", "number")
      ) STRICT`);
    await queryRunner.query(`
      CREATE UNIQUE INDEX "crl_intent" ON "crl" ("intent_index")`);
    await queryRunner.query(`
      CREATE INDEX "crl_pending" ON "crl" ("state") WHERE "state" = 'pending'`);
    await queryRunner.query(`
      CREATE TRIGGER "crl_intended" BEFORE INSERT ON "crl"
      WHEN NEW."state" IS NOT 'pending' OR NEW."crl" IS NOT NULL
        OR NEW."crl_sha256" IS NOT NULL OR NEW."done_index" IS NOT NULL
        OR NEW."number" <= (SELECT max("number") FROM "crl" WHERE "issuer" = NEW."issuer")
        OR EXISTS (SELECT 1 FROM "crl" WHERE "intent_index" = NEW."intent_index")
      BEGIN SELECT RAISE(ABORT, 'a CRL begins as an intent with the highest number'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "crl_frozen" BEFORE UPDATE ON "crl"
      WHEN NOT (
        OLD."state" = 'pending'
        AND CASE NEW."state"
          WHEN 'issued' THEN length(NEW."crl_sha256") = 32 AND NEW."crl" IS NOT NULL
            AND NEW."done_index" > NEW."intent_index"
          WHEN 'abandoned' THEN NEW."crl" IS NULL AND NEW."crl_sha256" IS NULL
            AND NEW."done_index" > NEW."intent_index"
          ELSE 0
        END
        AND NEW."issuer" IS OLD."issuer"
        AND NEW."key_id" IS OLD."key_id"
        AND NEW."number" IS OLD."number"
        AND NEW."tbs_sha256" IS OLD."tbs_sha256"
        AND NEW."this_update" IS OLD."this_update"
        AND NEW."next_update" IS OLD."next_update"
        AND NEW."intent_index" IS OLD."intent_index"
      ) IS TRUE
      BEGIN SELECT RAISE(ABORT, 'a CRL is recorded once'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "crl_kept" BEFORE DELETE ON "crl"
      BEGIN SELECT RAISE(ABORT, 'a CRL is recorded once'); END`);
  }

  async down(): Promise<void> {
    throw new Error("revocations are never dropped; restore a backup");
  }
}
