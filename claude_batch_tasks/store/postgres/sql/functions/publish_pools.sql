-- When a caller's transaction commits: let others use the pools that it has opened. What is in an open one moves into that
-- which all share, if there is one with room: so what all share is locked for the moment of the commit, and not while the
-- caller does other things.
CREATE OR REPLACE FUNCTION claude_batch.publish_pools() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
  own xid8 := pg_current_xact_id();
  cost record;
  remaining bigint;
  pool claude_batch.pools;
  shared claude_batch.pools;
  moved record;
BEGIN
  -- The first pool's trigger does it for all. In an order in which all do it: first costs, then pools.
  FOR cost IN
    SELECT a.name, a.seconds, a.start, sum(a.reserved)::bigint AS amount, max(p.max_cost) AS most
    FROM claude_batch.pools p JOIN claude_batch.pool_asks pa USING (job_id) JOIN claude_batch.asks a USING (ask_id)
    WHERE p.opened_in = own AND a.name IS NOT NULL GROUP BY a.name, a.seconds, a.start ORDER BY a.name, a.seconds, a.start
  LOOP
    remaining := claude_batch.reserve_window(false, cost.name, cost.seconds, cost.start, cost.amount, cost.most);
    IF remaining IS NOT NULL THEN
      RAISE EXCEPTION 'the asks of this transaction may cost up to % nano-USD, and % of the ask_max_cost of the pool % are left, '
        'since others have asked meanwhile: nothing of the transaction was stored', cost.amount, remaining, cost.name
      USING ERRCODE = 'check_violation';
    END IF;
  END LOOP;
  FOR pool IN SELECT * FROM claude_batch.pools WHERE opened_in = own ORDER BY key, opened_at LOOP
    shared := NULL;
    -- Where a transaction goes on seeing what was before it, it does not see what is shared now.
    IF pool.state = 'open' AND current_setting('transaction_isolation') = 'read committed' THEN
      shared := claude_batch.find_open_pool(
        false, pool.key, pool.size, pool.max_requests - pool.count + 1, pool.max_bytes
      );
    END IF;
    IF shared.job_id IS NULL THEN
      UPDATE claude_batch.pools SET opened_in = NULL WHERE job_id = pool.job_id;
    ELSE
      SELECT * INTO moved FROM claude_batch.move_asks(pool.job_id, shared.job_id, shared.count);
      PERFORM claude_batch.grow_pool(
        shared.job_id, moved.asks, moved.bytes, pool.due_at, pool.deadline, pool.max_requests, pool.max_bytes
      );
      DELETE FROM claude_batch.pools WHERE job_id = pool.job_id;
    END IF;
  END LOOP;
  RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS publish_pools ON claude_batch.pools;
CREATE CONSTRAINT TRIGGER publish_pools AFTER INSERT ON claude_batch.pools DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.opened_in IS NOT NULL) EXECUTE FUNCTION claude_batch.publish_pools();
