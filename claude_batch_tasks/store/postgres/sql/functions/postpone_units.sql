-- Change when units are due that wait. woken: whatever they wait for; else only batches for which a list call may speak.
-- alone: none speaks for them any more (nor for those that are woken). shown: when a list call that shows them was begun.
CREATE OR REPLACE FUNCTION claude_batch.postpone_units(
  job_ids text[], batches integer[], lanes integer[], due double precision[], woken boolean, alone boolean,
  shown double precision
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  WITH listed AS (
    SELECT u.job_id, u.batch, u.lane, w.due_at, u.waiting AND (woken OR u.account IS NOT NULL) AS moves
    FROM claude_batch.units u
    JOIN unnest(job_ids, batches, lanes, due) AS w (job_id, batch, lane, due_at) USING (job_id, batch, lane)
    WHERE woken OR u.account IS NOT NULL
    ORDER BY u.job_id, u.batch, u.lane FOR UPDATE OF u
  ), moved AS (
    UPDATE claude_batch.units u SET
      due_at = CASE WHEN l.moves THEN l.due_at ELSE u.due_at END,
      account = CASE WHEN woken OR alone THEN null ELSE account END,
      flight = CASE WHEN woken OR alone THEN null ELSE flight END,
      deadline = CASE WHEN woken OR alone THEN null ELSE deadline END
    FROM listed l WHERE (u.job_id, u.batch, u.lane) = (l.job_id, l.batch, l.lane)
  )
  UPDATE claude_batch.records r SET record = record || jsonb_build_object('due_at', l.due_at::text) || CASE
    WHEN shown > coalesce(nullif(record ->> 'sighting', 'null')::double precision, 0)
    THEN jsonb_build_object('sighting', shown::text, 'absences', '0') ELSE '{}' END
  FROM listed l
  WHERE NOT woken AND l.moves AND r.job = claude_batch.find_job(l.job_id) AND r.batch = l.batch AND r.lane = l.lane;
  PERFORM claude_batch.announce_due((SELECT min(each) FROM unnest(due) AS each));
END
$$;
