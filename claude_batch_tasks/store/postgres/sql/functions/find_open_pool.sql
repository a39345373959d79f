-- The open pool of a key, if it has room for what is so large, locked until the end of the transaction. One that has no room
-- is closed. Without any (job_id is null) the caller opens one: nobody else does so until the transaction ends.
-- own: only one that this transaction has opened.
CREATE OR REPLACE FUNCTION claude_batch.find_open_pool(
  own boolean, of_key text, more_bytes bigint, most_requests integer, most_bytes bigint
) RETURNS claude_batch.pools
LANGUAGE plpgsql AS $$
DECLARE
  found_pool claude_batch.pools;
  usual text := current_setting('lock_timeout');
BEGIN
  -- What is too large for any pool is one of its own, and leaves the open one as it is.
  IF more_bytes > most_bytes THEN
    RETURN NULL;
  END IF;
  IF own THEN
    SELECT * INTO found_pool FROM claude_batch.pools
    WHERE key = of_key AND state = 'open' AND opened_in = pg_current_xact_id();
  ELSE
    PERFORM pg_advisory_xact_lock(hashtextextended('claude_batch.pools ' || of_key, 0));
    -- What else locks one does so for a moment, but for a caller's transaction that withdraws an ask, say. After a while a
    -- pool is opened beside that which is locked; then it is not waited for any more.
    SELECT * INTO found_pool FROM claude_batch.pools
    WHERE key = of_key AND state = 'open' AND opened_in IS NULL ORDER BY opened_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND AND EXISTS (
      SELECT FROM claude_batch.pools WHERE key = of_key AND state = 'open' AND opened_in IS NULL
    ) THEN
      PERFORM set_config('lock_timeout', '200ms', true);
      BEGIN
        SELECT * INTO found_pool FROM claude_batch.pools
        WHERE key = of_key AND state = 'open' AND opened_in IS NULL ORDER BY opened_at LIMIT 1 FOR NO KEY UPDATE;
      EXCEPTION WHEN lock_not_available THEN
        NULL;
      END;
      PERFORM set_config('lock_timeout', usual, true);
    END IF;
  END IF;
  IF found_pool.count >= most_requests OR found_pool.size + more_bytes > most_bytes THEN
    PERFORM claude_batch.close_pool(found_pool.job_id);
    RETURN NULL;
  END IF;
  RETURN found_pool;
END
$$;
