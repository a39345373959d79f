-- Make a retry job of what was staged for it, and take its requests from other jobs (sources): 1: it was made; 0: it may
-- not take them; -1: what was staged has expired. retries: how many each of those had; links: what it says of this one.
CREATE OR REPLACE FUNCTION claude_batch.create_retry(
  job text, of_nonce text, at double precision, job_record jsonb, batch_records text[], due integer[],
  sources text[], retries integer[], links text[],
  taken_from text[], taken_retries integer[], taken_batches integer[], taken_requests bytea[]
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  now double precision;
BEGIN
  IF NOT claude_batch.free_job_id(job) THEN
    RETURN 0;
  END IF;
  PERFORM FROM (SELECT unnest(sources) AS source ORDER BY 1) AS ordered WHERE claude_batch.lock_job(source) IS NULL;
  IF FOUND THEN
    RETURN 0;
  END IF;
  PERFORM FROM unnest(sources, retries) AS s (source, had)
  JOIN claude_batch.jobs j ON j.job_id = s.source AND j.created
  LEFT JOIN claude_batch.records r ON r.job = j.id AND r.batch = -1 AND r.lane = -1
  WHERE r.job IS NULL OR NOT claude_batch.has_ended(r.record)
    OR jsonb_array_length(coalesce(r.record ->> 'retries', '[]')::jsonb) <> s.had;
  IF FOUND THEN
    RETURN 0;
  END IF;
  PERFORM FROM unnest(taken_from, taken_batches) AS t (source, number)
  JOIN claude_batch.jobs j ON j.job_id = t.source AND j.created
  WHERE NOT claude_batch.unit_stands(j.id, t.number, -1);
  IF FOUND THEN
    RETURN 0;
  END IF;
  IF claude_batch.insert_job(job, of_nonce, at, null, true, job_record, batch_records) IS NULL THEN
    RETURN -1;
  END IF;
  -- As text: what a later release wrote into it stays.
  UPDATE claude_batch.records r SET record = record || jsonb_build_object('retries', CASE
    WHEN s.had = 0 THEN '[' || s.link || ']' ELSE left(record ->> 'retries', -1) || ',' || s.link || ']' END)
  FROM unnest(sources, retries, links) AS s (source, had, link)
  JOIN claude_batch.jobs j ON j.job_id = s.source AND j.created
  WHERE r.job = j.id AND r.batch = -1 AND r.lane = -1;
  INSERT INTO claude_batch.taken (job, batch, retry, requests)
  SELECT j.id, number, retry, requests
  FROM unnest(taken_from, taken_retries, taken_batches, taken_requests) AS t (source, retry, number, requests)
  JOIN claude_batch.jobs j ON j.job_id = t.source AND j.created;
  now := claude_batch.clock();
  INSERT INTO claude_batch.units (job_id, batch, lane, due_at, waiting) SELECT job, unnest(due), -1, now, true
  ON CONFLICT (job_id, batch, lane) DO UPDATE SET due_at = excluded.due_at, waiting = true;
  PERFORM claude_batch.announce_due(now);
  RETURN 1;
END
$$;
