-- name: scan_jobs
SELECT j.submitted_at, j.id, j.job_id,
  ARRAY[
    r.record ->> 'state', r.record ->> 'batches', r.record ->> 'admitted', r.record ->> 'through', u.missed::text,
    r.record ->> 'pool', r.record ->> 'requests'
  ]
FROM claude_batch.jobs j
JOIN claude_batch.records r ON r.job = j.id AND r.batch = -1 AND r.lane = -1
LEFT JOIN claude_batch.units u ON u.job_id = j.job_id AND u.batch = -1 AND u.lane = -1
WHERE j.created AND (j.expires_at IS NULL OR j.expires_at > claude_batch.clock())
  AND (j.submitted_at, j.id) > (%(after)s, %(id)s)
ORDER BY j.submitted_at, j.id LIMIT %(limit)s

-- name: scan_batches
SELECT r.batch, ARRAY[r.record ->> 'state', r.record ->> 'created_at', r.record ->> 'sighting', u.missed::text]
FROM claude_batch.records r
LEFT JOIN claude_batch.units u ON u.job_id = %(job_id)s AND u.batch = r.batch AND u.lane = -1
WHERE r.job = claude_batch.find_job(%(job_id)s) AND r.batch >= %(first)s AND r.batch < %(end)s AND r.lane = -1
ORDER BY r.batch

-- name: past_seconds
SELECT coalesce(p.seconds, '{}') FROM unnest(%(kinds)s::text[]) WITH ORDINALITY AS asked (kind, place)
LEFT JOIN claude_batch.past_durations p ON p.name = 'kind:' || asked.kind AND p.expires_at > claude_batch.clock()
ORDER BY place
