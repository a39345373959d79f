-- Remove some rows of a job that was removed, at most so many; whether none is left, or somebody else is at it.
-- They are in all tables that have a column job.
CREATE OR REPLACE FUNCTION claude_batch.clear_job(removed bigint, most integer) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  name regclass;
  deleted integer;
  remaining integer := most;
BEGIN
  PERFORM FROM claude_batch.removed_jobs WHERE id = removed FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN true;
  END IF;
  FOR name IN SELECT claude_batch.tables_with('job') LOOP
    EXECUTE format('DELETE FROM %1$s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %1$s WHERE job = $1 LIMIT $2))', name)
    USING removed, remaining;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    remaining := remaining - deleted;
    IF remaining <= 0 THEN
      RETURN false;
    END IF;
  END LOOP;
  DELETE FROM claude_batch.removed_jobs WHERE id = removed;
  RETURN true;
END
$$;
