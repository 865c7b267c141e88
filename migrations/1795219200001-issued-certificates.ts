import type { MigrationInterface, QueryRunner } from "typeorm";

/**
 * RFC 5280 §4.1.2.2: issuer and serial number together name one certificate. A row begins as an intent and ends,
 * once, as issued or abandoned; nothing else about it changes, and it is never deleted.
 */
export class IssuedCertificates1795219200001 implements MigrationInterface {
  async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(`
      CREATE TABLE "issued_certificate" (
        "idx" INTEGER PRIMARY KEY NOT NULL,
        "issuer" TEXT NOT NULL,
        "key_id" TEXT NOT NULL,
        "serial_number" TEXT NOT NULL,
        "kind" TEXT NOT NULL CHECK ("kind" IN ('root', 'intermediate', 'leaf')),
        "profile" TEXT NOT NULL,
        "requester" TEXT,
        "subject" TEXT NOT NULL,
        "not_before" INTEGER NOT NULL,
        "not_after" INTEGER NOT NULL,
        "spki_sha256" BLOB NOT NULL,
        "tbs_sha256" BLOB NOT NULL,
        "csr" BLOB,
        "certificate" BLOB,
        "certificate_sha256" BLOB,
        "done_index" INTEGER,
        "state" TEXT NOT NULL,
        "created_at" INTEGER NOT NULL,
        CONSTRAINT "issued_certificate_serial" UNIQUE ("issuer", "serial_number")
      ) STRICT`);
    await queryRunner.query(`
      CREATE INDEX "issued_certificate_sha256" ON "issued_certificate" ("certificate_sha256")
      WHERE "certificate_sha256" IS NOT NULL`);
    await queryRunner.query(`
      CREATE INDEX "issued_certificate_spki" ON "issued_certificate" ("spki_sha256")`);
    await queryRunner.query(`
      CREATE INDEX "issued_certificate_requester" ON "issued_certificate" ("requester", "idx")`);
    // The few rows that a start looks for, so that it does not read all of them.
    await queryRunner.query(`
      CREATE INDEX "issued_certificate_pending" ON "issued_certificate" ("state")
      WHERE "state" = 'pending'`);
    await queryRunner.query(`
      CREATE INDEX "issued_certificate_authority" ON "issued_certificate" ("kind")
      WHERE "kind" <> 'leaf'`);
    await queryRunner.query(`
      CREATE TRIGGER "issued_certificate_intended" BEFORE INSERT ON "issued_certificate"
      WHEN NEW."state" IS NOT 'pending' OR NEW."certificate" IS NOT NULL
        OR NEW."certificate_sha256" IS NOT NULL OR NEW."done_index" IS NOT NULL
        OR EXISTS (SELECT 1 FROM "issued_certificate" WHERE "idx" = NEW."idx")
        OR EXISTS (SELECT 1 FROM "issued_certificate"
          WHERE "issuer" = NEW."issuer" AND "serial_number" = NEW."serial_number")
      BEGIN SELECT RAISE(ABORT, 'a certificate begins as an intent of its own'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "issued_certificate_frozen" BEFORE UPDATE ON "issued_certificate"
      WHEN NOT (
        OLD."state" = 'pending'
        AND CASE NEW."state"
          WHEN 'issued' THEN length(NEW."certificate_sha256") = 32 AND NEW."certificate" IS NOT NULL
            AND NEW."done_index" > NEW."idx"
          WHEN 'abandoned' THEN NEW."certificate" IS NULL AND NEW."certificate_sha256" IS NULL
            AND NEW."done_index" > NEW."idx"
          ELSE 0
        END
        AND NEW."idx" IS OLD."idx"
        AND NEW."issuer" IS OLD."issuer"
        AND NEW."key_id" IS OLD."key_id"
        AND NEW."serial_number" IS OLD."serial_number"
        AND NEW."kind" IS OLD."kind"
        AND NEW."profile" IS OLD."profile"
        AND NEW."requester" IS OLD."requester"
        AND NEW."subject" IS OLD."subject"
        AND NEW."not_before" IS OLD."not_before"
        AND NEW."not_after" IS OLD."not_after"
        AND NEW."spki_sha256" IS OLD."spki_sha256"
        AND NEW."tbs_sha256" IS OLD."tbs_sha256"
        AND NEW."csr" IS OLD."csr"
        AND NEW."created_at" IS OLD."created_at"
      ) IS TRUE
      BEGIN SELECT RAISE(ABORT, 'a certificate is recorded once'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "issued_certificate_kept" BEFORE DELETE ON "issued_certificate"
      BEGIN SELECT RAISE(ABORT, 'a certificate is recorded once'); END`);

    // "reversed" is the value from its last character to its first, so that a search for what names end in is a
    // range of the index, and one for a whole name is one look-up in the same index.
    await queryRunner.query(`
      CREATE TABLE "certificate_name" (
        "idx" INTEGER NOT NULL,
        "kind" TEXT NOT NULL,
        "value" TEXT NOT NULL,
        "reversed" TEXT NOT NULL,
        PRIMARY KEY ("idx", "kind", "value")
      ) WITHOUT ROWID, STRICT`);
    await queryRunner.query(`
      CREATE INDEX "certificate_name_reversed" ON "certificate_name" ("reversed")`);
    await queryRunner.query(`
      CREATE TRIGGER "certificate_name_frozen" BEFORE UPDATE ON "certificate_name"
      BEGIN SELECT RAISE(ABORT, 'a certificate is recorded once'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "certificate_name_kept" BEFORE DELETE ON "certificate_name"
      BEGIN SELECT RAISE(ABORT, 'a certificate is recorded once'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "certificate_name_once" BEFORE INSERT ON "certificate_name"
      WHEN EXISTS (SELECT 1 FROM "certificate_name"
        WHERE "idx" = NEW."idx" AND "kind" = NEW."kind" AND "value" = NEW."value")
      BEGIN SELECT RAISE(ABORT, 'a certificate is recorded once'); END`);

    await queryRunner.query(`
      CREATE TABLE "idempotency" (
        "requester" TEXT NOT NULL,
        "key" TEXT NOT NULL,
        "body_sha256" BLOB NOT NULL,
        "idx" INTEGER NOT NULL,
        "created_at" INTEGER NOT NULL,
        PRIMARY KEY ("requester", "key")
      ) STRICT`);
    await queryRunner.query(`
      CREATE INDEX "idempotency_created" ON "idempotency" ("created_at")`);
  }

  async down(): Promise<void> {
    throw new Error("an issuance log is never dropped; restore a backup");
  }
}
