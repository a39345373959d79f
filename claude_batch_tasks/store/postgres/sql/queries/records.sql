-- name: read_batches
SELECT r.batch, r.record || coalesce(claude_batch.interruptions(u), '{}') FROM claude_batch.records r
LEFT JOIN claude_batch.units u ON u.job_id = %(job_id)s AND u.batch = r.batch AND u.lane = -1
WHERE r.job = claude_batch.find_job(%(job_id)s) AND r.batch >= %(first)s AND r.batch < %(end)s AND r.lane = -1
ORDER BY r.batch

-- name: read_sender
SELECT record FROM claude_batch.records
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND lane = %(lane)s

-- name: read_position
SELECT position FROM claude_batch.units
WHERE job_id = %(job_id)s AND batch = %(batch)s AND lane = %(lane)s AND claude_batch.find_job(job_id) IS NOT NULL

-- name: request_restore
INSERT INTO claude_batch.restore_requests (job_id, requested_at) VALUES (%(job_id)s, claude_batch.clock())
ON CONFLICT (job_id) DO NOTHING

-- name: take_restore_requests
DELETE FROM claude_batch.restore_requests WHERE job_id IN (
  SELECT job_id FROM claude_batch.restore_requests ORDER BY requested_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
) RETURNING job_id

-- name: find_parts
SELECT claude_batch.find_parts(%(job_id)s, %(batch)s, %(names)s::text[])
