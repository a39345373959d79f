-- Replace what asks have reserved by what was spent for them, once. A window that is over counts for nothing.
CREATE OR REPLACE FUNCTION claude_batch.settle_asks(ids text[], spent bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM claude_batch.lock_asks(ids);
  WITH had AS (
    SELECT a.ask_id, a.name, a.seconds, a.start, w.cost - a.reserved AS more, p.opened_in
    FROM unnest(ids, spent) AS w (ask_id, cost) JOIN claude_batch.asks a USING (ask_id)
    LEFT JOIN claude_batch.pools p ON p.job_id = a.job_id
    WHERE a.name IS NOT NULL AND a.reserved > 0 AND a.expires_at > claude_batch.clock()
  ), settled AS (
    UPDATE claude_batch.asks a SET reserved = 0 FROM had WHERE a.ask_id = had.ask_id
  )
  UPDATE claude_batch.costs c SET amount = c.amount + n.more
  -- What this transaction has asked itself is reserved when it commits.
  FROM (SELECT name, seconds, start, sum(more) AS more FROM had WHERE opened_in IS NULL GROUP BY name, seconds, start) AS n
  WHERE c.name = n.name AND c.seconds = n.seconds AND c.start = n.start AND c.expires_at > claude_batch.clock();
END
$$;
