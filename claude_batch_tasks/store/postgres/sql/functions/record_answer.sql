-- Record what an answer to a call of the Messages API says of its rate limit.
-- sent_mark: the mark it was sent with. new_limits, new_remaining: as in the table paces; a null: the answer does not name
-- that one. hold: seconds in which no call is to be made. first_allowed to max_pause: numbers of the rules.
CREATE OR REPLACE FUNCTION claude_batch.record_answer(
  of_job text, of_batch integer, of_position integer, of_pace text, sent_mark text,
  new_limits double precision[], new_remaining double precision[], refused boolean, hold double precision, cap integer,
  answer_output integer, first_allowed double precision, output_share double precision,
  refused_together double precision, max_pause double precision
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  known claude_batch.paces := claude_batch.lock_pace(of_pace);
  now double precision := claude_batch.clock();
  marks double precision[] := string_to_array(sent_mark, ' ')::double precision[];
  since double precision[];
  until_then double precision := 0;
BEGIN
  -- Of what a crash may lose here, the next answer says it again.
  PERFORM set_config('synchronous_commit', 'off', true);
  DELETE FROM claude_batch.pace_calls
  WHERE pace = of_pace AND job_id = of_job AND batch = of_batch AND position = of_position;

  IF answer_output IS NOT NULL THEN
    known.usual_output := coalesce(known.usual_output, answer_output);
    known.usual_output := known.usual_output + (answer_output - known.usual_output) / output_share;
  END IF;
  -- The answer to a later call has said more than one to an earlier call can say. What is not known any more has sent 0.
  IF marks[1] BETWEEN known.synced AND known.sent AND array_remove(new_limits, NULL) <> '{}' THEN
    since := ARRAY[
      known.sent - marks[1], known.input - marks[2] + known.output - marks[3],
      known.input - marks[2], known.output - marks[3]
    ];
    FOR i IN 1..4 LOOP
      IF new_limits[i] IS NOT NULL THEN
        known.limits[i] := new_limits[i];
        known.remaining[i] := new_remaining[i] - since[i];
      END IF;
    END LOOP;
    known.synced := marks[1];
    known.at := now;
  END IF;

  -- Twice as many in each round of answers until the first refusal, then one more; half as many after each refusal: once,
  -- for all that were refused together.
  known.allowed := coalesce(known.allowed, first_allowed);
  IF NOT refused THEN
    known.allowed := least(known.allowed + CASE WHEN known.cut_at IS NULL THEN 1 ELSE 1 / known.allowed END, cap);
    known.in_a_row := 0;
  ELSIF now > coalesce(known.cut_at, 0) + refused_together THEN
    known.allowed := greatest(known.allowed / 2, 1);
    known.cut_at := now;
    -- While nothing comes through, ever longer pauses: else each request would soon have been refused too often.
    known.in_a_row := known.in_a_row + 1;
    IF known.in_a_row > 1 THEN
      until_then := now + least(2 ^ least(known.in_a_row - 1, 30), max_pause);
    END IF;
  END IF;
  UPDATE claude_batch.paces SET
    limits = known.limits, remaining = known.remaining, synced = known.synced, at = known.at, allowed = known.allowed,
    cut_at = known.cut_at, in_a_row = known.in_a_row, usual_output = known.usual_output, expires_at = now + 3600
  WHERE pace = of_pace;
  until_then := greatest(until_then, now + hold);
  IF until_then > now THEN
    INSERT INTO claude_batch.pauses AS p (name, until) VALUES (of_pace, until_then)
    ON CONFLICT (name) DO UPDATE SET until = greatest(p.until, excluded.until);
  END IF;
END
$$;
