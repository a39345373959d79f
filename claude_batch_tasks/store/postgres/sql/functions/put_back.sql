-- A request was refused, and not charged for: it is to be sent again, unless that is so for the limit-th time: then it stays
-- where it is, for whoever asks to end it. Returns how often it was refused; 0: somebody else has dealt with it.
CREATE OR REPLACE FUNCTION claude_batch.put_back(
  of_job text, of_batch integer, of_position integer, seconds double precision, most_refusals integer
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_job(of_job);
  had claude_batch.calls;
BEGIN
  PERFORM FROM claude_batch.records
  WHERE job = found_id AND batch = -1 AND lane = -1 AND record ->> 'state' = '"running"';
  -- Of a job that is over (revoked, most likely) nothing new is to stay.
  IF NOT FOUND THEN
    RETURN 0;
  END IF;
  UPDATE claude_batch.calls SET refused = refused + 1
  WHERE job = found_id AND batch = of_batch AND position = of_position AND lane IS NOT NULL
  RETURNING * INTO had;
  IF NOT FOUND THEN
    RETURN 0;
  ELSIF had.refused < most_refusals THEN
    IF had.most IS NOT NULL THEN
      PERFORM claude_batch.add_money(found_id, 0, - had.most, 0, - had.most);
    END IF;
    UPDATE claude_batch.calls SET due_at = claude_batch.clock() + seconds, lane = NULL, most = NULL
    WHERE job = found_id AND batch = of_batch AND position = of_position;
  END IF;
  RETURN had.refused;
END
$$;
