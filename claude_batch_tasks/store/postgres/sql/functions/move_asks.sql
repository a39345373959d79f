-- Move the asks of a pool behind those of another one, in their order. Returns how many they are, and their bytes. Whoever
-- calls it has locked both pools, and counts them.
CREATE OR REPLACE FUNCTION claude_batch.move_asks(
  from_job text, to_job text, first_position integer, OUT asks bigint, OUT bytes bigint
)
LANGUAGE sql VOLATILE AS $$
  WITH moved AS (
    UPDATE claude_batch.pool_asks pa SET job_id = to_job, position = first_position + n.number
    FROM (
      SELECT position AS was, row_number() OVER (ORDER BY position) - 1 AS number
      FROM claude_batch.pool_asks WHERE job_id = from_job
    ) AS n
    WHERE pa.job_id = from_job AND pa.position = n.was
    RETURNING pa.ask_id, pa.position, pa.size
  ), placed AS (
    UPDATE claude_batch.asks a SET job_id = to_job, position = m.position
    FROM moved m WHERE a.ask_id = m.ask_id AND a.job_id = from_job
  )
  SELECT count(*), coalesce(sum(size), 0)::bigint FROM moved
$$;
