-- Replace a sealed pool by others, to which asks of it move; false: it was replaced before.
-- Of each other pool: its id, its record, its state, when it was opened, when it is due (null: not by itself), its deadline.
-- moved_positions, moved_to: the positions of asks that move, and to which of the pools, counted from 1.
CREATE OR REPLACE FUNCTION claude_batch.divide_pool(
  of_job text, new_ids text[], records text[], states text[], opened double precision[], dues double precision[],
  deadlines double precision[], moved_positions integer[], moved_to integer[], retention double precision
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  now double precision := claude_batch.clock();
BEGIN
  UPDATE claude_batch.pools SET state = 'divided', next_at = NULL, expires_at = now + retention
  WHERE job_id = of_job AND state IN ('sealed', 'closed');
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  INSERT INTO claude_batch.pools (job_id, key, record, state, count, size, opened_at, due_at, next_at, deadline)
  SELECT n.id, '', n.record, n.state, 0, 0, n.opened_at,
    CASE n.state WHEN 'closed' THEN now ELSE coalesce(n.due, now) END, CASE n.state WHEN 'closed' THEN now ELSE n.due END,
    n.deadline
  FROM unnest(new_ids, records, states, opened, dues, deadlines) AS n (id, record, state, opened_at, due, deadline);
  WITH moved AS (
    UPDATE claude_batch.pool_asks pa SET job_id = n.to_job, position = n.number
    FROM (
      SELECT had.position AS was, new_ids[w.part] AS to_job,
        row_number() OVER (PARTITION BY w.part ORDER BY had.position) - 1 AS number
      FROM unnest(moved_positions, moved_to) AS w (position, part)
      JOIN claude_batch.pool_asks had ON had.job_id = of_job AND had.position = w.position
    ) AS n
    WHERE pa.job_id = of_job AND pa.position = n.was
    RETURNING pa.job_id, pa.ask_id, pa.position, pa.size
  ), placed AS (
    UPDATE claude_batch.asks a SET job_id = m.job_id, position = m.position
    FROM moved m WHERE a.ask_id = m.ask_id AND a.job_id = of_job
  )
  UPDATE claude_batch.pools p SET count = n.asks, size = n.bytes
  FROM (SELECT job_id, count(*) AS asks, sum(size) AS bytes FROM moved GROUP BY job_id) AS n WHERE p.job_id = n.job_id;
  RETURN true;
END
$$;
