-- Count asks that an open pool has more. If that fills it, it is closed.
CREATE OR REPLACE FUNCTION claude_batch.grow_pool(
  of_job text, more_asks bigint, more_bytes bigint, due double precision, wanted_by double precision,
  most_requests integer, most_bytes bigint
) RETURNS void
LANGUAGE sql VOLATILE AS $$
  UPDATE claude_batch.pools SET
    count = count + more_asks, size = size + more_bytes, deadline = least(deadline, wanted_by),
    state = CASE WHEN f.is_full THEN 'closed' ELSE state END,
    due_at = CASE WHEN f.is_full THEN f.at ELSE least(due_at, due) END,
    next_at = CASE WHEN f.is_full THEN f.at ELSE least(next_at, due) END
  FROM (
    SELECT count + more_asks >= most_requests OR size + more_bytes >= most_bytes AS is_full,
      greatest(claude_batch.clock(), starts_at) AS at
    FROM claude_batch.pools WHERE job_id = of_job
  ) AS f
  WHERE job_id = of_job
$$;
