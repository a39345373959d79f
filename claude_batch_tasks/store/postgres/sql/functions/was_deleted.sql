-- Whether a user deleted a job of this id within a day.
CREATE OR REPLACE FUNCTION claude_batch.was_deleted(job text) RETURNS boolean
LANGUAGE sql STABLE AS $$
  SELECT EXISTS (
    SELECT FROM claude_batch.flags WHERE name = 'deleted:' || job AND expires_at > claude_batch.clock()
  )
$$;
