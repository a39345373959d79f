-- Whether a job has ended, and was not revoked, by its record.
CREATE OR REPLACE FUNCTION claude_batch.has_ended(record jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
  SELECT coalesce(record ->> 'state' IN ('"completed"', '"canceled"', '"failed"'), false)
$$;
