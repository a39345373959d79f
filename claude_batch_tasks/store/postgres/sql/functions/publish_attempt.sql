-- Make the rows of a download the results of its batch, in one with changes to the batch's record, if the owner holds the
-- lease; remove those of earlier downloads but the kept ones. If not, remove these, and return false.
CREATE OR REPLACE FUNCTION claude_batch.publish_attempt(
  job text, of_batch integer, of_attempt integer, by_owner text, new_pieces bytea, new_eligible bytea, new_again bytea,
  parts integer[], new_entries bytea[], kept integer[], changes jsonb
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  of_job bigint := claude_batch.lock_job(job);
BEGIN
  IF of_job IS NULL OR NOT claude_batch.write_record(job, of_batch, -1, by_owner, changes) THEN
    PERFORM claude_batch.discard_attempt(job, of_batch, of_attempt, '');
    RETURN false;
  END IF;
  PERFORM claude_batch.put_attempt(
    of_job, of_batch, of_attempt, new_pieces, new_eligible, new_again, parts, new_entries
  );
  DELETE FROM claude_batch.result_attempts a
  WHERE a.job = of_job AND a.batch = of_batch AND a.attempt < of_attempt AND a.attempt <> ALL (kept);
  DELETE FROM claude_batch.index_parts i
  WHERE i.job = of_job AND i.batch = of_batch AND i.attempt BETWEEN 0 AND of_attempt - 1 AND i.attempt <> ALL (kept);
  RETURN true;
END
$$;
