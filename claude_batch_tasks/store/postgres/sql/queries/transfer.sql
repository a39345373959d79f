-- name: read_mark
SELECT mark FROM claude_batch.mark

-- name: summarize_activity
SELECT md5(concat_ws(' ',
  (SELECT concat_ws(' ', count(*), sum(hashtextextended(concat_ws(' ', job_id, submitted_at), 0)))
   FROM claude_batch.jobs WHERE created),
  (SELECT concat_ws(' ', count(*), sum(hashtextextended(concat_ws(
     ' ', job_id, batch, lane, position, owner, lease_ends, due_at, waiting), 0)))
   FROM claude_batch.units),
  (SELECT concat_ws(' ', count(*), sum(hashtextextended(concat_ws(
     ' ', job_id, state, count, withdrawn, next_at, sealing, sent), 0)))
   FROM claude_batch.pools)
))

-- name: list_jobs
SELECT job_id, submitted_at, id FROM claude_batch.jobs
WHERE created AND (submitted_at, id) > (%(after)s::double precision, %(last)s)
  AND (expires_at IS NULL OR expires_at > claude_batch.clock())
ORDER BY submitted_at, id LIMIT %(limit)s

-- name: list_pools
SELECT job_id, opened_at FROM claude_batch.pools p
WHERE state IN ('open', 'closed', 'parked') AND opened_in IS NULL
  AND (opened_at, job_id) > (%(after)s::double precision, %(last)s::text)
  AND NOT EXISTS (SELECT FROM claude_batch.jobs j WHERE j.job_id = p.job_id AND j.created)
ORDER BY opened_at, job_id LIMIT %(limit)s

-- name: read_job
SELECT j.id, j.expires_at - claude_batch.clock(), r.record,
  (SELECT max(number) + 1 - count(*) FROM claude_batch.history h WHERE h.job = j.id),
  EXISTS (SELECT FROM claude_batch.money WHERE job = j.id),
  EXISTS (SELECT FROM claude_batch.turns WHERE job = j.id),
  EXISTS (SELECT FROM claude_batch.history WHERE job = j.id),
  EXISTS (SELECT FROM claude_batch.bits WHERE job = j.id),
  EXISTS (SELECT FROM claude_batch.taken WHERE job = j.id),
  EXISTS (SELECT FROM claude_batch.payload_chunks WHERE job = j.id),
  EXISTS (SELECT FROM claude_batch.index_parts WHERE job = j.id),
  EXISTS (SELECT FROM claude_batch.result_attempts WHERE job = j.id),
  EXISTS (SELECT FROM claude_batch.result_chunks WHERE job = j.id),
  EXISTS (SELECT FROM claude_batch.outcomes WHERE job = j.id),
  EXISTS (SELECT FROM claude_batch.calls WHERE job = j.id),
  EXISTS (SELECT FROM claude_batch.units WHERE job_id = j.job_id)
FROM claude_batch.jobs j JOIN claude_batch.records r ON r.job = j.id AND r.batch = -1 AND r.lane = -1
WHERE j.id = claude_batch.find_job(%(job_id)s)

-- name: read_records
SELECT batch, lane, record FROM claude_batch.records
WHERE job = %(job)s AND (batch, lane) > (%(batch)s, %(lane)s) ORDER BY batch, lane LIMIT %(limit)s

-- name: read_units
SELECT batch, lane, position, step_failures, step_failure, due_at, waiting, resent, resent_at, missed, account, flight
FROM claude_batch.units
WHERE job_id = %(job_id)s AND (batch, lane) > (%(batch)s, %(lane)s) ORDER BY batch, lane LIMIT %(limit)s

-- name: read_history
SELECT event FROM claude_batch.history WHERE job = %(job)s ORDER BY number

-- name: read_money
SELECT spent, reserved, fallback_spent, fallback_reserved FROM claude_batch.money WHERE job = %(job)s

-- name: read_turns
SELECT batch, turn, coalesce(spent, reserved), spent IS NOT NULL FROM claude_batch.turns WHERE job = %(job)s

-- name: read_bits
SELECT batch, name, claude_batch.get_bits(%(job)s, batch, name) FROM (
  SELECT DISTINCT batch, name FROM claude_batch.bits WHERE job = %(job)s
) AS known

-- name: read_taken
SELECT batch, retry, requests FROM claude_batch.taken WHERE job = %(job)s

-- name: read_requests
SELECT batch, first_position, requests, body, ids FROM claude_batch.payload_chunks
WHERE job = %(job)s AND (batch, first_position) > (%(batch)s, %(first)s) ORDER BY batch, first_position LIMIT %(limit)s

-- name: read_index
SELECT batch, attempt, part, entries FROM claude_batch.index_parts
WHERE job = %(job)s AND (batch, attempt, part) > (%(batch)s, %(attempt)s, %(part)s)
ORDER BY batch, attempt, part LIMIT %(limit)s

-- name: read_attempts
SELECT batch, attempt, pieces, eligible, again FROM claude_batch.result_attempts
WHERE job = %(job)s AND copy = '' AND expires_at IS NULL AND (batch, attempt) > (%(batch)s, %(attempt)s)
ORDER BY batch, attempt LIMIT %(limit)s

-- name: read_rows
SELECT batch, attempt, number, data FROM claude_batch.result_chunks c
WHERE job = %(job)s AND copy = '' AND (batch, attempt, number) > (%(batch)s, %(attempt)s, %(number)s) AND EXISTS (
  SELECT FROM claude_batch.result_attempts a
  WHERE a.job = c.job AND a.batch = c.batch AND a.attempt = c.attempt AND a.copy = '' AND a.expires_at IS NULL
)
ORDER BY batch, attempt, number LIMIT %(limit)s

-- name: read_outcomes
SELECT batch, position, outcome, given_up FROM claude_batch.outcomes
WHERE job = %(job)s AND (batch, position) > (%(batch)s, %(position)s) ORDER BY batch, position LIMIT %(limit)s

-- name: read_calls
SELECT batch, position, due_at, lane, most, refused FROM claude_batch.calls
WHERE job = %(job)s AND (batch, position) > (%(batch)s, %(position)s) ORDER BY batch, position LIMIT %(limit)s

-- name: read_pool
SELECT record, key, state, count, withdrawn, size, opened_at, due_at, deadline, sealing, sent, failures, next_at, dropped,
  expires_at - claude_batch.clock()
FROM claude_batch.pools
WHERE job_id = %(job_id)s AND (expires_at IS NULL OR expires_at > claude_batch.clock())

-- name: read_asks
SELECT position, ask_id, size, send_before, params FROM claude_batch.pool_asks
WHERE job_id = %(job_id)s AND position > %(position)s ORDER BY position LIMIT %(limit)s

-- name: mark_given_up
UPDATE claude_batch.outcomes SET given_up = true
WHERE job = %(job)s AND batch = %(batch)s AND position = ANY (%(positions)s::integer[])

-- name: open_pool
UPDATE claude_batch.pools SET state = %(state)s, next_at = %(next_at)s,
  expires_at = claude_batch.clock() + %(remaining)s
WHERE job_id = %(job_id)s

-- name: read_places
SELECT ask_id, job_id, position, asked_at, state, canvas, headers, reserved, seconds, start, name, withdrawn,
  expires_at - claude_batch.clock()
FROM claude_batch.asks
WHERE ask_id > %(after)s AND expires_at > claude_batch.clock() ORDER BY ask_id LIMIT %(limit)s

-- name: read_costs
SELECT seconds, start, name, amount, expires_at - claude_batch.clock() FROM claude_batch.costs
WHERE expires_at > claude_batch.clock()

-- name: read_owners
SELECT batch_id, job_id, batch, expires_at - claude_batch.clock() FROM claude_batch.batch_ids
WHERE batch_id > %(after)s AND expires_at > claude_batch.clock() ORDER BY batch_id LIMIT %(limit)s

-- name: read_deleted
SELECT substring(name FROM 9), expires_at - claude_batch.clock() FROM claude_batch.flags
WHERE name LIKE 'deleted:%%' AND expires_at > claude_batch.clock()

-- name: read_pauses
SELECT name, until FROM claude_batch.pauses

-- name: read_restore_requests
SELECT job_id, requested_at FROM claude_batch.restore_requests

-- name: put_place
INSERT INTO claude_batch.asks (
  ask_id, job_id, position, asked_at, state, canvas, headers, reserved, seconds, start, name, withdrawn, expires_at
) VALUES (
  %(ask_id)s, %(job_id)s, %(position)s, %(asked_at)s, %(state)s, %(canvas)s, %(headers)s, %(reserved)s, %(seconds)s,
  %(start)s, %(name)s, %(withdrawn)s, claude_batch.clock() + %(remaining)s
) ON CONFLICT (ask_id) DO UPDATE SET
  job_id = excluded.job_id, position = excluded.position, asked_at = excluded.asked_at, state = excluded.state,
  canvas = excluded.canvas, headers = excluded.headers, reserved = excluded.reserved, seconds = excluded.seconds,
  start = excluded.start, name = excluded.name, withdrawn = excluded.withdrawn, expires_at = excluded.expires_at

-- name: put_cost
INSERT INTO claude_batch.costs (seconds, start, name, amount, expires_at)
VALUES (%(seconds)s, %(start)s, %(name)s, %(amount)s, claude_batch.clock() + %(remaining)s)
ON CONFLICT (name, seconds, start) DO UPDATE SET amount = excluded.amount, expires_at = excluded.expires_at

-- name: put_owner
INSERT INTO claude_batch.batch_ids (batch_id, job_id, batch, lane, expires_at)
VALUES (%(batch_id)s, %(job_id)s, %(batch)s, -1, claude_batch.clock() + %(remaining)s)
ON CONFLICT (batch_id) DO UPDATE SET
  job_id = excluded.job_id, batch = excluded.batch, lane = excluded.lane, expires_at = excluded.expires_at

-- name: put_pause
INSERT INTO claude_batch.pauses (name, until) VALUES (%(name)s, %(until)s)
ON CONFLICT (name) DO UPDATE SET until = greatest(pauses.until, excluded.until)

-- name: put_restore_request
INSERT INTO claude_batch.restore_requests (job_id, requested_at) VALUES (%(job_id)s, %(at)s)
ON CONFLICT (job_id) DO NOTHING

-- name: put_deleted
SELECT claude_batch.put_flag(%(name)s, '', %(remaining)s)

-- name: drop_import
DELETE FROM claude_batch.jobs WHERE id = %(job)s

-- name: read_durations
SELECT name, requests, seconds FROM claude_batch.past_durations WHERE expires_at > claude_batch.clock()

-- name: put_durations
INSERT INTO claude_batch.past_durations (name, requests, seconds, expires_at)
VALUES (%(name)s, %(requests)s, %(seconds)s, claude_batch.clock() + %(remaining)s)
ON CONFLICT (name) DO UPDATE SET
  requests = excluded.requests, seconds = excluded.seconds, expires_at = excluded.expires_at

-- name: read_identity
SELECT value FROM claude_batch.flags WHERE name = 'identity'

-- name: put_identity
SELECT claude_batch.put_flag('identity', %(identity)s, %(remaining)s)
