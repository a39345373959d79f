-- Store a request's final outcome, if it has none and its job is still there, and record what it cost; true: it was stored.
-- cost: null: all that was reserved. lost: its answer counts as lost; one that comes after all replaces this outcome, as
-- long as the batch is not final.
CREATE OR REPLACE FUNCTION claude_batch.save_outcome(
  of_job text, of_batch integer, of_position integer, packed bytea, cost bigint, lost boolean
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_job(of_job);
  had claude_batch.calls;
  stored boolean;
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);  -- see make_safe
  IF found_id IS NULL THEN
    RETURN false;
  END IF;
  INSERT INTO claude_batch.outcomes (job, batch, position, outcome, given_up)
  VALUES (found_id, of_batch, of_position, packed, lost) ON CONFLICT (job, batch, position) DO NOTHING;
  stored := FOUND;
  IF stored THEN
    UPDATE claude_batch.records
    SET record = record || jsonb_build_object('stored', (coalesce((record ->> 'stored')::integer, 0) + 1)::text)
    WHERE job = found_id AND batch = of_batch AND lane = -1;
  ELSIF NOT lost THEN
    UPDATE claude_batch.outcomes o SET outcome = packed, given_up = false
    WHERE o.job = found_id AND o.batch = of_batch AND o.position = of_position AND o.given_up AND NOT EXISTS (
      SELECT FROM claude_batch.records r
      WHERE r.job = found_id AND r.batch = of_batch AND r.lane = -1 AND r.record ->> 'final' = 'true'
    );
    stored := FOUND;
  END IF;
  DELETE FROM claude_batch.calls WHERE job = found_id AND batch = of_batch AND position = of_position
  RETURNING * INTO had;
  IF had.most IS NOT NULL THEN
    cost := coalesce(cost, had.most);
    PERFORM claude_batch.add_money(found_id, cost, - had.most, cost, - had.most);
  END IF;
  RETURN stored;
END
$$;
