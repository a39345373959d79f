-- Reserve something of what all asks of a pool's name may cost in a window of time. Returns null, or what is left if that is
-- too little. In a transaction of the caller's (own) it is only looked at: the row is locked when that commits.
CREATE OR REPLACE FUNCTION claude_batch.reserve_window(
  own boolean, of_name text, of_seconds double precision, of_start double precision, cost bigint, most_cost bigint
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  used bigint;
BEGIN
  IF NOT own AND cost <= most_cost THEN
    INSERT INTO claude_batch.costs AS c (name, seconds, start, amount, expires_at)
    VALUES (of_name, of_seconds, of_start, cost, of_start + of_seconds + 60)
    ON CONFLICT (name, seconds, start) DO UPDATE SET amount = c.amount + cost WHERE c.amount + cost <= most_cost;
    IF FOUND THEN
      RETURN NULL;
    END IF;
  END IF;
  SELECT coalesce(sum(amount), 0) INTO used FROM claude_batch.costs
  WHERE name = of_name AND seconds = of_seconds AND start = of_start;
  IF own THEN
    SELECT used + coalesce(sum(a.reserved), 0) INTO used
    FROM claude_batch.pools p JOIN claude_batch.pool_asks pa USING (job_id) JOIN claude_batch.asks a USING (ask_id)
    WHERE p.opened_in = pg_current_xact_id() AND a.name = of_name AND a.seconds = of_seconds AND a.start = of_start;
    IF used + cost <= most_cost THEN
      RETURN NULL;
    END IF;
  END IF;
  RETURN most_cost - used;
END
$$;
