-- Record what a generation of a batch has cost, as far as is known, in the place of what was recorded or reserved before.
CREATE OR REPLACE FUNCTION claude_batch.record_cost(
  of_job text, of_batch integer, of_turn integer, cost bigint
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_job(of_job);
  had claude_batch.turns;
BEGIN
  SELECT * INTO had FROM claude_batch.turns WHERE job = found_id AND batch = of_batch AND turn = of_turn;
  IF FOUND THEN
    PERFORM claude_batch.add_money(
      found_id, cost - coalesce(had.spent, 0), CASE WHEN had.spent IS NULL THEN - had.reserved ELSE 0 END, 0, 0
    );
    UPDATE claude_batch.turns SET spent = cost WHERE job = found_id AND batch = of_batch AND turn = of_turn;
  END IF;
END
$$;
