-- Move the asks of other parked pools behind those of a parked one.
CREATE OR REPLACE FUNCTION claude_batch.merge_pools(of_job text, others text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  other text;
  moved record;
BEGIN
  PERFORM FROM claude_batch.pools WHERE job_id = ANY (of_job || others) ORDER BY job_id FOR UPDATE;
  PERFORM FROM claude_batch.pools WHERE job_id = of_job AND state = 'parked';
  IF FOUND THEN
    FOREACH other IN ARRAY others LOOP
      PERFORM FROM claude_batch.pools WHERE job_id = other AND job_id <> of_job AND state = 'parked';
      CONTINUE WHEN NOT FOUND;
      SELECT m.* INTO moved FROM claude_batch.pools p, claude_batch.move_asks(other, of_job, p.count) AS m
      WHERE p.job_id = of_job;
      UPDATE claude_batch.pools SET count = count + moved.asks, size = size + moved.bytes WHERE job_id = of_job;
      DELETE FROM claude_batch.pools WHERE job_id = other;
    END LOOP;
  END IF;
END
$$;
