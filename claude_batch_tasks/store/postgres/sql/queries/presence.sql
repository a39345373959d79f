-- name: list_workers
SELECT presence FROM claude_batch.workers WHERE expires_at > claude_batch.clock()
ORDER BY expires_at DESC LIMIT %(limit)s

-- name: remove_worker
DELETE FROM claude_batch.workers WHERE hostname = %(hostname)s

-- name: report_worker
WITH gone AS (
  DELETE FROM claude_batch.workers WHERE hostname IN (
    SELECT hostname FROM claude_batch.workers WHERE expires_at <= claude_batch.clock() AND hostname <> %(hostname)s
    FOR UPDATE SKIP LOCKED
  )
)
INSERT INTO claude_batch.workers (hostname, presence, expires_at)
VALUES (%(hostname)s, %(presence)s, claude_batch.clock() + %(ttl)s)
ON CONFLICT (hostname) DO UPDATE SET presence = excluded.presence, expires_at = excluded.expires_at
