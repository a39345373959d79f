-- Record how asks of a job ended, and tell those who listen. is_final: they have ended for good, and what followed them was
-- sent, which may be the prompt of another. What has ended for good stays as it is.
CREATE OR REPLACE FUNCTION claude_batch.end_asks(
  of_job text, positions integer[], ids text[], states text[], ttl double precision, is_final boolean, channel text
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_job(of_job);
  now double precision := claude_batch.clock();
  ended bytea := coalesce(claude_batch.get_bits(found_id, -1, 'ended'), '');
BEGIN
  INSERT INTO claude_batch.asks AS a (ask_id, job_id, position, asked_at, state, expires_at)
  SELECT e.ask_id, of_job, e.position, now, e.state, now + ttl
  FROM unnest(positions, ids, states) AS e (position, ask_id, state)
  WHERE CASE WHEN e.position / 8 < length(ended) THEN get_byte(ended, e.position / 8) & (128 >> e.position % 8) ELSE 0 END = 0
  ORDER BY e.ask_id
  ON CONFLICT (ask_id) DO UPDATE SET
    job_id = excluded.job_id, state = excluded.state, expires_at = excluded.expires_at,
    position = CASE WHEN a.expires_at <= now THEN excluded.position ELSE a.position END,
    asked_at = CASE WHEN a.expires_at <= now THEN now ELSE a.asked_at END,
    canvas = CASE WHEN NOT is_final AND a.expires_at > now THEN a.canvas END,
    headers = CASE WHEN NOT is_final AND a.expires_at > now THEN a.headers END
  WHERE a.job_id = of_job OR a.expires_at <= now;
  IF is_final AND found_id IS NOT NULL THEN
    PERFORM claude_batch.set_bits(found_id, -1, 'ended', positions, array_fill(1, ARRAY[cardinality(positions)]));
  END IF;
  PERFORM claude_batch.notify_asks(channel, ids);
END
$$;
