-- Record what became of calls of a job's on_result, a bit for each request of the job.
-- what: called, delivered, failed (for a reason), or active; part, parts: which of the tasks of the call ended, from 0,
-- and how many must.
-- changed: how many requests have changed, null: the job is gone; complete: whether all are delivered now; new_reason:
-- whether no call has failed for this reason before, of which the last reasons_kept are stored.
CREATE OR REPLACE FUNCTION claude_batch.record_delivery(
  job text, what text, firsts integer[], counts integer[], reason text, part integer, parts integer,
  reasons_kept integer, OUT changed integer, OUT complete boolean, OUT new_reason boolean
)
LANGUAGE plpgsql AS $$
DECLARE
  of_job bigint := claude_batch.lock_job(job);
  now double precision := claude_batch.clock();
  requests integer;
  at record;
  ended bit(4096);
  reasons jsonb;
BEGIN
  SELECT (r.record ->> 'requests')::integer INTO requests
  FROM claude_batch.records r WHERE r.job = of_job AND r.batch = -1 AND r.lane = -1;
  IF requests IS NULL THEN
    RETURN;
  END IF;
  changed := 0;
  complete := false;
  new_reason := false;
  FOR at IN
    SELECT m.segment, m.mask FROM (
      SELECT array_agg(run.first) AS firsts, array_agg(least(run.count, requests - run.first)) AS counts
      FROM unnest(firsts, counts) AS run (first, count) WHERE run.first < requests
    ) AS within, claude_batch.make_masks(within.firsts, within.counts) AS m
  LOOP
    IF what = 'delivered' THEN
      ended := at.mask;
      IF parts > 1 THEN
        PERFORM claude_batch.change_segment(of_job, -1, 'part:' || part, at.segment, at.mask, true);
        FOR each IN 0 .. parts - 1 LOOP
          ended := ended & claude_batch.get_segment(of_job, -1, 'part:' || each, at.segment);
        END LOOP;
      END IF;
      changed := changed + claude_batch.change_segment(of_job, -1, 'delivered', at.segment, ended, true);
      PERFORM claude_batch.change_segment(of_job, -1, 'undelivered', at.segment, ended, false);
    ELSIF what = 'failed' THEN
      ended := at.mask & ~ claude_batch.get_segment(of_job, -1, 'delivered', at.segment);
      changed := changed + claude_batch.change_segment(of_job, -1, 'undelivered', at.segment, ended, true);
    ELSIF what = 'called' THEN
      PERFORM claude_batch.change_segment(of_job, -1, 'delivered', at.segment, at.mask, false);
      PERFORM claude_batch.change_segment(of_job, -1, 'undelivered', at.segment, at.mask, false);
      IF parts > 1 THEN
        FOR each IN 0 .. parts - 1 LOOP
          PERFORM claude_batch.change_segment(of_job, -1, 'part:' || each, at.segment, at.mask, false);
        END LOOP;
      END IF;
    END IF;
  END LOOP;
  IF what = 'delivered' AND changed > 0 THEN
    complete := claude_batch.count_ones(of_job, -1, 'delivered') = requests;
  ELSIF what = 'failed' AND changed > 0 THEN
    SELECT coalesce((r.record ->> 'delivery_errors')::jsonb, '[]') INTO reasons
    FROM claude_batch.records r WHERE r.job = of_job AND r.batch = -1 AND r.lane = -1;
    new_reason := NOT reasons ? reason;
    -- The last is the one that is shown.
    reasons := (reasons - reason) || to_jsonb(reason);
    IF jsonb_array_length(reasons) > reasons_kept THEN
      reasons := reasons - 0;
    END IF;
    UPDATE claude_batch.records r SET record = r.record || jsonb_build_object('delivery_errors', reasons::text)
    WHERE r.job = of_job AND r.batch = -1 AND r.lane = -1;
  END IF;
  -- Once a second is enough: the record is far larger than what has changed.
  UPDATE claude_batch.records r SET record = r.record || jsonb_build_object('delivery_at', now::text)
  WHERE r.job = of_job AND r.batch = -1 AND r.lane = -1
    AND coalesce(nullif(r.record ->> 'delivery_at', 'null')::double precision, 0) < now - 1;
END
$$;
