-- Reserve what a generation of a batch costs at most, once; 'yes', 'wait' or 'no'.
CREATE OR REPLACE FUNCTION claude_batch.reserve_cost(
  of_job text, of_batch integer, of_turn integer, least_cost bigint, most_cost bigint, most_of_all bigint
) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_job(of_job);
  cost claude_batch.turns;
  had claude_batch.money;
  answer text;
BEGIN
  IF found_id IS NULL THEN
    RETURN 'no';
  END IF;
  SELECT * INTO cost FROM claude_batch.turns WHERE job = found_id AND batch = of_batch AND turn = of_turn;
  IF FOUND AND cost.spent IS NULL THEN
    RETURN 'yes';
  ELSIF FOUND THEN
    -- It was given up, and proved never to have been created.
    PERFORM claude_batch.add_money(found_id, - cost.spent, 0, 0, 0);
    DELETE FROM claude_batch.turns WHERE job = found_id AND batch = of_batch AND turn = of_turn;
  END IF;
  SELECT * INTO had FROM claude_batch.money WHERE job = found_id;
  answer := claude_batch.affordable(most_of_all, coalesce(had.spent, 0), coalesce(had.reserved, 0), least_cost, most_cost);
  IF answer = 'yes' THEN
    PERFORM claude_batch.add_money(found_id, 0, most_cost, 0, 0);
    INSERT INTO claude_batch.turns (job, batch, turn, reserved) VALUES (found_id, of_batch, of_turn, most_cost);
  END IF;
  RETURN answer;
END
$$;
