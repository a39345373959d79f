-- Reserve a share of a job's fallback requests for one batch, once. Returns how many; asked again, the same number.
CREATE OR REPLACE FUNCTION claude_batch.reserve_quota(
  of_job text, of_batch integer, wanted integer, most integer
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_job(of_job);
  had text;
  used integer;
  granted integer;
BEGIN
  SELECT nullif(record ->> 'granted', 'null') INTO had FROM claude_batch.records
  WHERE job = found_id AND batch = of_batch AND lane = -1;
  IF NOT FOUND THEN
    RETURN 0;
  ELSIF had IS NOT NULL THEN
    RETURN had;
  END IF;
  SELECT coalesce((record ->> 'fallback_granted')::integer, 0) INTO used FROM claude_batch.records
  WHERE job = found_id AND batch = -1 AND lane = -1;
  granted := greatest(0, least(wanted, most - coalesce(used, 0)));
  UPDATE claude_batch.records SET record = record || CASE batch
    WHEN -1 THEN jsonb_build_object('fallback_granted', (coalesce(used, 0) + granted)::text)
    ELSE jsonb_build_object('granted', granted::text)
  END
  WHERE job = found_id AND batch IN (-1, of_batch) AND lane = -1;
  RETURN granted;
END
$$;
