-- name: count_batches
SELECT count(*) FROM (
  -- In order, so that the index is read, and no more of it than that.
  SELECT FROM claude_batch.units WHERE account = %(account)s ORDER BY due_at LIMIT %(most)s
) AS counted

-- name: list_batches
SELECT job_id, batch, lane, flight, due_at FROM claude_batch.units WHERE account = %(account)s AND waiting

-- name: unlock_list_call
DELETE FROM claude_batch.flags WHERE name = 'listing:' || %(account)s::text AND value = %(owner)s

-- name: forget_failures
DELETE FROM claude_batch.flags WHERE name = 'failed:' || %(account)s::text

-- name: count_failure
INSERT INTO claude_batch.flags AS f (name, value, expires_at)
VALUES ('failed:' || %(account)s::text, '1', claude_batch.clock() + %(ttl)s)
ON CONFLICT (name) DO UPDATE SET
  value = CASE WHEN f.expires_at > claude_batch.clock()
    THEN convert_to((convert_from(f.value, 'UTF8')::integer + 1)::text, 'UTF8') ELSE excluded.value END,
  expires_at = excluded.expires_at
RETURNING convert_from(value, 'UTF8')::integer

-- name: find_listed
SELECT b.entry, l.taken_at, l.since FROM claude_batch.account_lists l
LEFT JOIN claude_batch.listed_batches b ON b.account = l.account AND b.batch_id = %(batch_id)s
WHERE l.account = %(account)s AND l.expires_at > claude_batch.clock()

-- name: paused_until
SELECT max(until) FROM claude_batch.pauses WHERE name = ANY (%(names)s)

-- name: past_durations
SELECT requests, seconds FROM claude_batch.past_durations
WHERE name = %(name)s AND expires_at > claude_batch.clock()
