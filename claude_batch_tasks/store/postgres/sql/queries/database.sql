-- name: name_transaction
SELECT pg_current_xact_id()::text

-- name: name_database
-- The same text in every session, whatever its time zone and its style of dates.
SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint || ' ' || current_database() || ' '
  || to_regclass('claude_batch.jobs')::oid
