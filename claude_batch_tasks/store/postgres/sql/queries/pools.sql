-- name: add_ask
CALL claude_batch.add_ask_and_commit(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
  %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: read_pool
SELECT record, state, count, withdrawn, size, opened_at, due_at, deadline FROM claude_batch.pools p
WHERE job_id = %(job_id)s AND (expires_at IS NULL OR expires_at > claude_batch.clock()) AND NOT EXISTS (
  SELECT FROM claude_batch.jobs j WHERE j.job_id = p.job_id AND j.created AND j.expires_at <= claude_batch.clock()
)

-- name: list_pools
SELECT job_id, record, state, count, withdrawn, size, opened_at, due_at, deadline FROM claude_batch.pools
WHERE state IN ('open', 'closed', 'parked')
  AND (opened_at, job_id) > (%(opened_at)s::double precision, %(last)s::text)
ORDER BY opened_at, job_id LIMIT %(most)s

-- name: wait_again
UPDATE claude_batch.pools SET next_at = claude_batch.clock() + %(seconds)s, sent = 0
WHERE job_id IN (
  SELECT job_id FROM claude_batch.pools WHERE job_id = ANY (%(job_ids)s) AND next_at IS NOT NULL
  ORDER BY job_id FOR NO KEY UPDATE
)

-- name: begin_sealing
UPDATE claude_batch.pools SET sealing = sealing + 1 WHERE job_id = %(job_id)s AND state = 'closed'

-- name: stop_sealing
UPDATE claude_batch.pools SET sealing = sealing - 1, failures = failures + 1
WHERE job_id = %(job_id)s AND state = 'closed' RETURNING failures

-- name: finish_sealing
UPDATE claude_batch.pools
SET state = 'sealed', next_at = NULL, expires_at = claude_batch.clock() + %(retention)s
WHERE job_id = %(job_id)s AND state IN ('closed', 'open')

-- name: release
UPDATE claude_batch.pools SET
  record = %(record)s, deadline = %(deadline)s, state = 'closed', due_at = claude_batch.clock(),
  next_at = claude_batch.clock()
WHERE job_id = %(job_id)s AND state = 'parked'

-- name: count_places
SELECT count FROM claude_batch.pools WHERE job_id = %(job_id)s AND NOT dropped

-- name: read_asks
SELECT position, ask_id, send_before, CASE WHEN %(params)s THEN params END FROM claude_batch.pool_asks
WHERE job_id = %(job_id)s AND position >= %(first)s AND position < %(after)s

-- name: forget_asks
UPDATE claude_batch.pools SET dropped = true WHERE job_id = %(job_id)s

-- name: drop_asks
DELETE FROM claude_batch.pool_asks WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM claude_batch.pool_asks WHERE job_id = %(job_id)s LIMIT %(most)s
))
