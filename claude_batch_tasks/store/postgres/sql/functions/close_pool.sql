-- Let a pool take no more asks, and be due at once, but not before it may be.
CREATE OR REPLACE FUNCTION claude_batch.close_pool(of_job text) RETURNS void
LANGUAGE sql VOLATILE AS $$
  UPDATE claude_batch.pools SET
    state = 'closed', due_at = greatest(claude_batch.clock(), starts_at), next_at = greatest(claude_batch.clock(), starts_at)
  WHERE job_id = of_job
$$;
