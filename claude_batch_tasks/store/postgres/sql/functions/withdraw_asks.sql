-- Take asks out of pools of which no job is made yet; of each whether it will never be sent.
-- while_sealing: also out of one that is being sealed. terminate: end those as revoked, too, that are in a job.
CREATE OR REPLACE FUNCTION claude_batch.withdraw_asks(
  ids text[], ttl double precision, while_sealing boolean, terminate boolean, channel text
) RETURNS boolean[]
LANGUAGE plpgsql AS $$
DECLARE
  now double precision;
  out_of_pools text[];
  ended text[];
BEGIN
  PERFORM claude_batch.lock_asks(ids);
  now := claude_batch.clock();
  out_of_pools := ARRAY(
    SELECT a.ask_id FROM claude_batch.asks a JOIN claude_batch.pools p USING (job_id)
    WHERE a.ask_id = ANY (ids) AND a.state = 'waiting' AND a.expires_at > now
      AND (p.state IN ('open', 'parked') OR p.state = 'closed' AND (p.sealing < 1 OR while_sealing))
  );
  PERFORM claude_batch.settle_asks(out_of_pools, array_fill(0::bigint, ARRAY[cardinality(out_of_pools)]));
  WITH gone AS (
    DELETE FROM claude_batch.pool_asks pa USING claude_batch.asks a
    WHERE a.ask_id = ANY (out_of_pools) AND pa.job_id = a.job_id AND pa.position = a.position RETURNING pa.job_id
  )
  UPDATE claude_batch.pools p SET withdrawn = p.withdrawn + n.asks
  FROM (SELECT job_id, count(*) AS asks FROM gone GROUP BY job_id) AS n WHERE p.job_id = n.job_id;
  WITH revoked AS (
    UPDATE claude_batch.asks SET
      state = 'revoked', withdrawn = ask_id = ANY (out_of_pools), expires_at = now + ttl
    WHERE ask_id = ANY (out_of_pools) OR terminate AND ask_id = ANY (ids) AND state = 'waiting' AND asks.expires_at > now
    RETURNING ask_id
  )
  SELECT array_agg(w.id ORDER BY w.number) INTO ended
  FROM unnest(ids) WITH ORDINALITY AS w (id, number) JOIN revoked ON revoked.ask_id = w.id;
  PERFORM claude_batch.notify_asks(channel, ended);
  RETURN ARRAY(
    SELECT coalesce(a.withdrawn AND a.expires_at > now, false)
    FROM unnest(ids) WITH ORDINALITY AS w (id, number) LEFT JOIN claude_batch.asks a ON a.ask_id = w.id
    ORDER BY w.number
  );
END
$$;
