-- name: read_places
SELECT w.ask_id, a.job_id, a.position, a.asked_at, a.state, a.reserved, CASE WHEN %(with_canvas)s THEN a.canvas END,
  CASE WHEN %(with_canvas)s THEN a.headers END
FROM unnest(%(ids)s::text[]) WITH ORDINALITY AS w (ask_id, number)
LEFT JOIN claude_batch.asks a ON a.ask_id = w.ask_id AND a.expires_at > claude_batch.clock()
ORDER BY w.number

-- name: read_ended
SELECT claude_batch.get_bits(claude_batch.find_job(%(job_id)s), -1, 'ended')

-- name: read_cost
SELECT amount FROM claude_batch.costs
WHERE name = %(name)s AND seconds = %(window)s AND start = floor(claude_batch.clock() / %(window)s) * %(window)s
