-- Change the record of a unit; false: the owner has lost the lease.
CREATE OR REPLACE FUNCTION claude_batch.write_record(
  job text, of_batch integer, of_lane integer, by_owner text, changes jsonb
) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
  RETURN claude_batch.write_leased(job, of_batch, of_lane, by_owner, changes) IS NOT NULL;
END
$$;
