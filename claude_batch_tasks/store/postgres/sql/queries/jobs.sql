-- name: read_job
SELECT r.record FROM claude_batch.records r
WHERE r.job = claude_batch.find_job(%(job_id)s) AND r.batch = -1 AND r.lane = -1

-- name: persist_job
UPDATE claude_batch.jobs SET expires_at = NULL WHERE id = claude_batch.find_job(%(job_id)s)

-- name: expire_job
UPDATE claude_batch.jobs SET expires_at = claude_batch.clock() + %(ttl)s WHERE id = claude_batch.find_job(%(job_id)s)

-- name: extend_job
UPDATE claude_batch.jobs SET expires_at = claude_batch.clock() + %(ttl)s
WHERE id = claude_batch.find_job(%(job_id)s) AND expires_at < claude_batch.clock() + %(ttl)s

-- name: update_job
UPDATE claude_batch.records SET record = record || %(changes)s
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = -1 AND lane = -1
  AND (%(only)s::text IS NULL OR record ->> 'state' = %(only)s)

-- name: list_jobs
SELECT job_id, submitted_at, id FROM claude_batch.jobs
WHERE created AND (submitted_at, id) < (%(before)s, %(id)s)
  AND (expires_at IS NULL OR expires_at > claude_batch.clock())
ORDER BY submitted_at DESC, id DESC LIMIT %(limit)s

-- name: sample_jobs
WITH known AS (SELECT min(id) AS first, max(id) AS last FROM claude_batch.jobs),
start AS (SELECT first + floor(random() * (last - first + 1))::bigint AS id FROM known)
(
  SELECT job_id FROM claude_batch.jobs
  WHERE id >= (SELECT id FROM start) AND created AND (expires_at IS NULL OR expires_at > claude_batch.clock())
  ORDER BY id LIMIT %(limit)s
)
UNION ALL
(
  SELECT job_id FROM claude_batch.jobs
  WHERE id < (SELECT id FROM start) AND created AND (expires_at IS NULL OR expires_at > claude_batch.clock())
  ORDER BY id LIMIT %(limit)s
)
LIMIT %(limit)s

-- name: read_states
SELECT r.record ->> 'state' FROM unnest(%(job_ids)s::text[]) WITH ORDINALITY AS asked (job_id, place)
LEFT JOIN claude_batch.jobs j
  ON j.job_id = asked.job_id AND j.created AND (j.expires_at IS NULL OR j.expires_at > claude_batch.clock())
LEFT JOIN claude_batch.records r ON r.job = j.id AND r.batch = -1 AND r.lane = -1
ORDER BY asked.place

-- name: read_labels
SELECT r.record ->> 'state', r.record ->> 'label', r.record ->> 'metadata'
FROM unnest(%(job_ids)s::text[]) WITH ORDINALITY AS asked (job_id, place)
LEFT JOIN claude_batch.jobs j
  ON j.job_id = asked.job_id AND j.created AND (j.expires_at IS NULL OR j.expires_at > claude_batch.clock())
LEFT JOIN claude_batch.records r ON r.job = j.id AND r.batch = -1 AND r.lane = -1
ORDER BY asked.place

-- name: find_ids
SELECT job_id FROM claude_batch.jobs
WHERE job_id LIKE %(pattern)s AND created AND (expires_at IS NULL OR expires_at > claude_batch.clock())
LIMIT %(limit)s

-- name: read_taken
SELECT retry, requests FROM claude_batch.taken WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s
