-- name: count_unfinished
SELECT (
  SELECT count(*) FROM claude_batch.calls
  WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND due_at IS NOT NULL
) + (
  SELECT count(*) FROM claude_batch.calls
  WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND lane IS NOT NULL
)

-- name: renew_calls
UPDATE claude_batch.pace_calls c SET expires_at = claude_batch.clock() + %(ttl)s
FROM (
  SELECT had.pace, had.position
  FROM unnest(%(paces)s::text[], %(positions)s::int[]) AS w (pace, position)
  JOIN claude_batch.pace_calls had USING (pace, position)
  WHERE had.job_id = %(job_id)s AND had.batch = %(batch)s
  ORDER BY had.pace, had.position FOR NO KEY UPDATE OF had
) AS n
WHERE c.pace = n.pace AND c.job_id = %(job_id)s AND c.batch = %(batch)s AND c.position = n.position

-- name: list_abandoned
SELECT position FROM claude_batch.calls
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND lane = %(lane)s

-- name: count_refusals
SELECT refused FROM claude_batch.calls
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND position = %(position)s

-- name: list_known
SELECT position FROM claude_batch.calls
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND (due_at IS NOT NULL OR lane IS NOT NULL)
UNION
SELECT position FROM claude_batch.outcomes
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s
