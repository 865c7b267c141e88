import type { MigrationInterface, QueryRunner } from "typeorm";

/** The columns of a row that never change, as a condition of its UPDATE trigger. */
const same = (...columns: readonly string[]) =>
  columns.map((column) => `NEW."${column}" IS OLD."${column}"`).join(" AND ");

/**
 * What people agree on, and who has agreed: CUSTODY.md 6. A ceremony goes the way of its kind, an unlock ends once, and
 * what somebody signed stays as it was signed. Digests are texts, `sha256:` and hex.
 */
export class Ceremonies1795219200005 implements MigrationInterface {
  async up(queryRunner: QueryRunner): Promise<void> {
    const appendOnly = async (table: string, reason: string): Promise<void> => {
      await queryRunner.query(`
        CREATE TRIGGER "${table}_frozen" BEFORE UPDATE ON "${table}"
        BEGIN SELECT RAISE(ABORT, '${reason}'); END`);
      await kept(table, reason);
    };
    const kept = async (table: string, reason: string): Promise<void> => {
      await queryRunner.query(`
        CREATE TRIGGER "${table}_kept" BEFORE DELETE ON "${table}"
        BEGIN SELECT RAISE(ABORT, '${reason}'); END`);
    };

    // What statements name by digest: plans, TBS bytes, lint reports.
    await queryRunner.query(`
      CREATE TABLE "object" (
        "digest" TEXT PRIMARY KEY NOT NULL,
        "octets" BLOB NOT NULL
      ) STRICT`);
    await appendOnly("object", "an object is what its digest says");
    await queryRunner.query(`
      CREATE TRIGGER "object_once" BEFORE INSERT ON "object"
      WHEN EXISTS (SELECT 1 FROM "object" WHERE "digest" = NEW."digest")
      BEGIN SELECT RAISE(ABORT, 'an object is what its digest says'); END`);

    // "evidence": JSON, the signatures under it, and the note and approvals of the ceremony that brought it about.
    await queryRunner.query(`
      CREATE TABLE "roster_version" (
        "version" INTEGER PRIMARY KEY NOT NULL,
        "digest" TEXT NOT NULL,
        "document" BLOB NOT NULL,
        "evidence" TEXT NOT NULL,
        "log_index" INTEGER NOT NULL
      ) STRICT`);
    await appendOnly("roster_version", "a roster is followed by another, never changed");
    await queryRunner.query(`
      CREATE TRIGGER "roster_version_next" BEFORE INSERT ON "roster_version"
      WHEN NEW."version" IS NOT (SELECT coalesce(max("version"), 0) + 1 FROM "roster_version")
      BEGIN SELECT RAISE(ABORT, 'a roster is followed by another, never changed'); END`);

    await queryRunner.query(`
      CREATE TABLE "ceremony" (
        "digest" TEXT PRIMARY KEY NOT NULL,
        "id" TEXT NOT NULL,
        "kind" TEXT NOT NULL CHECK ("kind" IN
          ('sign', 'window', 'generate', 'reshare', 'roster', 'policy', 'resume', 'retire')),
        "key_id" TEXT,
        "proposer" TEXT NOT NULL,
        "note" TEXT NOT NULL,
        "state" TEXT NOT NULL,
        "not_after" INTEGER NOT NULL,
        "created_at" INTEGER NOT NULL,
        "log_index" INTEGER NOT NULL,
        "changed_index" INTEGER NOT NULL,
        CONSTRAINT "ceremony_id" UNIQUE ("id")
      ) STRICT`);
    await queryRunner.query(`
      CREATE INDEX "ceremony_log_index" ON "ceremony" ("log_index")`);
    await queryRunner.query(`
      CREATE TRIGGER "ceremony_opened" BEFORE INSERT ON "ceremony"
      WHEN NEW."state" IS NOT 'gathering' OR NEW."changed_index" IS NOT NEW."log_index"
        OR EXISTS (SELECT 1 FROM "ceremony" WHERE "digest" = NEW."digest" OR "id" = NEW."id")
      BEGIN SELECT RAISE(ABORT, 'a ceremony begins once, by gathering'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "ceremony_frozen" BEFORE UPDATE ON "ceremony"
      WHEN NOT (
        NEW."changed_index" > OLD."changed_index"
        AND CASE OLD."state"
          WHEN 'gathering' THEN NEW."state" IN ('rejected', 'aborted', 'expired', 'failed')
            OR CASE OLD."kind"
              WHEN 'sign' THEN NEW."state" IN ('unlocking', 'unlocked')
              WHEN 'window' THEN NEW."state" IN ('unlocking', 'unlocked')
              WHEN 'generate' THEN NEW."state" = 'pending'
              WHEN 'reshare' THEN NEW."state" = 'unlocking'
              ELSE NEW."state" = 'applied'
            END
          WHEN 'unlocking' THEN NEW."state" IN ('gathering', 'aborted', 'expired', 'failed')
            OR NEW."state" = CASE OLD."kind" WHEN 'reshare' THEN 'pending' ELSE 'unlocked' END
          WHEN 'unlocked' THEN CASE OLD."kind"
            WHEN 'sign' THEN NEW."state" IN ('signed', 'published', 'aborted', 'failed')
            ELSE NEW."state" IN ('locked', 'aborted')
          END
          WHEN 'signed' THEN NEW."state" IN ('verified', 'published', 'failed')
          WHEN 'verified' THEN NEW."state" IN ('published', 'failed')
          WHEN 'pending' THEN NEW."state" IN ('applied', 'aborted', 'expired', 'failed')
          ELSE 0
        END
        AND ${same("digest", "id", "kind", "key_id", "proposer", "note", "not_after", "created_at", "log_index")}
      ) IS TRUE
      BEGIN SELECT RAISE(ABORT, 'a ceremony goes the way of its kind'); END`);
    await kept("ceremony", "a ceremony stays on record");

    await queryRunner.query(`
      CREATE TABLE "approval" (
        "ceremony" TEXT NOT NULL,
        "operator" TEXT NOT NULL,
        "verdict" TEXT NOT NULL CHECK ("verdict" IN ('approve', 'reject')),
        "role" TEXT NOT NULL,
        "statement" BLOB NOT NULL,
        "signature" TEXT NOT NULL,
        "at" INTEGER NOT NULL,
        "log_index" INTEGER NOT NULL,
        PRIMARY KEY ("ceremony", "operator")
      ) STRICT`);
    await appendOnly("approval", "an approval is given once");
    await queryRunner.query(`
      CREATE TRIGGER "approval_once" BEFORE INSERT ON "approval"
      WHEN EXISTS (SELECT 1 FROM "approval"
          WHERE "ceremony" = NEW."ceremony" AND "operator" = NEW."operator")
        OR NOT EXISTS (SELECT 1 FROM "ceremony"
          WHERE "digest" = NEW."ceremony" AND "state" IN ('gathering', 'unlocking'))
      BEGIN SELECT RAISE(ABORT, 'an approval is given once'); END`);

    await queryRunner.query(`
      CREATE TABLE "abort" (
        "ceremony" TEXT NOT NULL,
        "operator" TEXT NOT NULL,
        "statement" BLOB NOT NULL,
        "signature" TEXT NOT NULL,
        "log_index" INTEGER NOT NULL,
        PRIMARY KEY ("ceremony", "operator")
      ) STRICT`);
    await appendOnly("abort", "an abort is asked for once");
    await queryRunner.query(`
      CREATE TRIGGER "abort_once" BEFORE INSERT ON "abort"
      WHEN EXISTS (SELECT 1 FROM "abort"
          WHERE "ceremony" = NEW."ceremony" AND "operator" = NEW."operator")
        OR NOT EXISTS (SELECT 1 FROM "ceremony" WHERE "digest" = NEW."ceremony" AND "state" NOT IN
          ('published', 'locked', 'applied', 'rejected', 'aborted', 'expired', 'failed'))
      BEGIN SELECT RAISE(ABORT, 'an abort is asked for once'); END`);

    await queryRunner.query(`
      CREATE TABLE "unlock" (
        "digest" TEXT PRIMARY KEY NOT NULL,
        "id" TEXT NOT NULL,
        "ceremony" TEXT NOT NULL,
        "key_id" TEXT NOT NULL,
        "share_set" TEXT NOT NULL,
        "note" TEXT NOT NULL,
        "state" TEXT NOT NULL,
        "expires_at" INTEGER NOT NULL,
        "log_index" INTEGER NOT NULL,
        "changed_index" INTEGER NOT NULL,
        CONSTRAINT "unlock_id" UNIQUE ("id")
      ) STRICT`);
    await queryRunner.query(`
      CREATE INDEX "unlock_ceremony" ON "unlock" ("ceremony")`);
    await queryRunner.query(`
      CREATE UNIQUE INDEX "unlock_gathering" ON "unlock" ("ceremony") WHERE "state" = 'gathering'`);
    await queryRunner.query(`
      CREATE TRIGGER "unlock_opened" BEFORE INSERT ON "unlock"
      WHEN NEW."state" IS NOT 'gathering' OR NEW."changed_index" IS NOT NEW."log_index"
        OR EXISTS (SELECT 1 FROM "unlock" WHERE "digest" = NEW."digest" OR "id" = NEW."id"
          OR ("ceremony" = NEW."ceremony" AND "state" = 'gathering'))
        OR NOT EXISTS (SELECT 1 FROM "ceremony"
          WHERE "digest" = NEW."ceremony" AND "state" = 'gathering')
        OR NOT EXISTS (SELECT 1 FROM "share_set" WHERE "digest" = NEW."share_set"
          AND "key_id" = NEW."key_id" AND "state" = 'active')
      BEGIN SELECT RAISE(ABORT, 'an unlock gathers active shares, one a ceremony at a time'); END`);
    await queryRunner.query(`
      CREATE TRIGGER "unlock_frozen" BEFORE UPDATE ON "unlock"
      WHEN NOT (
        OLD."state" = 'gathering'
        AND NEW."state" IN ('opened', 'refused', 'expired', 'ended')
        AND NEW."changed_index" > OLD."changed_index"
        AND ${same("digest", "id", "ceremony", "key_id", "share_set", "note", "expires_at", "log_index")}
      ) IS TRUE
      BEGIN SELECT RAISE(ABORT, 'an unlock ends once'); END`);
    await kept("unlock", "an unlock stays on record");

    await queryRunner.query(`
      CREATE TABLE "submission" (
        "unlock" TEXT NOT NULL,
        "operator" TEXT NOT NULL,
        "verdict" TEXT NOT NULL CHECK ("verdict" IN ('give', 'refuse')),
        "statement" BLOB NOT NULL,
        "signature" TEXT NOT NULL,
        "at" INTEGER NOT NULL,
        "log_index" INTEGER NOT NULL,
        PRIMARY KEY ("unlock", "operator")
      ) STRICT`);
    await appendOnly("submission", "a custodian counts once");
    await queryRunner.query(`
      CREATE TRIGGER "submission_once" BEFORE INSERT ON "submission"
      WHEN EXISTS (SELECT 1 FROM "submission"
          WHERE "unlock" = NEW."unlock" AND "operator" = NEW."operator")
        OR NOT EXISTS (SELECT 1 FROM "unlock"
          WHERE "digest" = NEW."unlock" AND "state" = 'gathering')
      BEGIN SELECT RAISE(ABORT, 'a custodian counts once'); END`);
  }

  async down(): Promise<void> {
    throw new Error("what people signed is never dropped; restore a backup");
  }
}
