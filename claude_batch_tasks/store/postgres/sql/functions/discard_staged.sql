-- Remove what was staged for a job under a nonce: it is gone at once, and clear_job removes its rows.
CREATE OR REPLACE FUNCTION claude_batch.discard_staged(job text, by_nonce text) RETURNS void
LANGUAGE sql AS $$
  WITH gone AS (
    DELETE FROM claude_batch.jobs WHERE job_id = job AND nonce = by_nonce AND NOT created RETURNING id
  )
  INSERT INTO claude_batch.removed_jobs (id) SELECT id FROM gone
$$;
