-- How often the step of a unit was interrupted, as fields of a record; null: it is in no table.
CREATE OR REPLACE FUNCTION claude_batch.interruptions(u claude_batch.units) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_build_object('step_failures', u.step_failures::text, 'step_failure', coalesce(u.step_failure, 'null'))
  WHERE u.job_id IS NOT NULL
$$;
