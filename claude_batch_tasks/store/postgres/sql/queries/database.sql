-- name: name_transaction
SELECT pg_current_xact_id()::text

-- name: name_database
SELECT pg_postmaster_start_time()::text || ' ' || current_database() || ' ' || to_regclass('claude_batch.jobs')::oid
