-- Have a request to send through the Messages API, if everything lets it be sent now.
-- tokens: of its input. least_cost, most_cost: null: that is not known. seconds: for which it counts as in flight.
-- cap: calls in flight at most. fallback_limit, total_limit: what the job's Messages calls may cost, and the job; null: any
-- amount. first_allowed to reserved_wait: numbers of the rules.
CREATE OR REPLACE FUNCTION claude_batch.take_request(
  of_job text, of_batch integer, of_lane integer, by_owner text, of_position integer, of_pace text,
  tokens double precision, least_cost bigint, most_cost bigint, seconds double precision, cap integer,
  fallback_limit bigint, total_limit bigint,
  first_allowed double precision, slot_wait double precision, refill double precision, reserved_wait double precision,
  OUT state text, OUT wait double precision, OUT mark text
)
LANGUAGE plpgsql AS $$
DECLARE
  limited boolean := fallback_limit IS NOT NULL OR total_limit IS NOT NULL;
  found_id bigint;
  stopped text;
  canceled text;
  job_state text;
  now double precision;
  paused double precision;
  in_flight bigint;
  known claude_batch.paces;
  usual double precision;
  needs double precision[];
  need double precision;
  pause double precision;
  had claude_batch.money;
  fallback_answer text;
  total_answer text;
BEGIN
  wait := 0;
  mark := '';
  -- Most of those who ask have to wait, and are to lock nothing for that. What lets a request be sent is looked at once
  -- more, with everything locked that it depends on.
  FOR locked IN 0..1 LOOP
    IF locked = 0 THEN
      found_id := claude_batch.find_job(of_job);
    ELSE
      -- See make_safe. Nothing is sent before confirm_request has found it, whose commit waits for the disk.
      PERFORM set_config('synchronous_commit', 'off', true);
      found_id := claude_batch.lock_job(of_job);
      PERFORM FROM claude_batch.units WHERE job_id = of_job AND batch = of_batch AND lane = of_lane FOR SHARE;
      PERFORM claude_batch.lock_pace(of_pace);
    END IF;
    now := claude_batch.clock();
    PERFORM FROM claude_batch.units
    WHERE job_id = of_job AND batch = of_batch AND lane = of_lane AND owner = by_owner;
    IF NOT FOUND THEN
      state := 'taken_over';
      RETURN;
    END IF;
    PERFORM FROM claude_batch.calls
    WHERE job = found_id AND batch = of_batch AND position = of_position AND due_at IS NOT NULL;
    IF NOT FOUND THEN
      state := 'gone';
      RETURN;
    END IF;
    SELECT record ->> 'stopped', record ->> 'cancel_requested', record ->> 'state' INTO stopped, canceled, job_state
    FROM claude_batch.records WHERE job = found_id AND batch = -1 AND lane = -1;
    IF stopped <> 'null' THEN
      state := 'stopped';
      RETURN;
    ELSIF canceled = 'true' OR job_state IS DISTINCT FROM '"running"' THEN
      state := 'canceled';
      RETURN;
    ELSIF limited AND most_cost IS NULL THEN
      state := 'price';
      RETURN;
    END IF;

    state := 'wait';
    SELECT until INTO paused FROM claude_batch.pauses WHERE name = of_pace;
    IF paused > now THEN
      wait := paused - now;
      RETURN;
    END IF;
    SELECT count(*) INTO in_flight FROM claude_batch.pace_calls WHERE pace = of_pace AND expires_at > now;
    SELECT * INTO known FROM claude_batch.paces WHERE pace = of_pace AND expires_at > now;
    IF in_flight >= least(floor(coalesce(known.allowed, first_allowed)), cap) THEN
      wait := slot_wait;
      RETURN;
    END IF;

    -- What is left of each limit, by the last answer, less what was sent after that. When nothing seems left and no answer
    -- is on its way that could say more, one call finds out, after the time in which as much comes in.
    usual := coalesce(known.usual_output, 0);
    needs := ARRAY[1, tokens + usual, tokens, usual];
    pause := 0;
    IF now <= coalesce(known.at, 0) + refill THEN
      FOR i IN 1..4 LOOP
        -- What is in the cache counts for nothing, so that more may be let through than seems to fit at all.
        need := least(needs[i], known.limits[i]);
        IF known.remaining[i] < need THEN
          pause := greatest(pause, refill * need / greatest(known.limits[i], 1));
        END IF;
      END LOOP;
    END IF;
    IF pause > 0 AND in_flight > 0 THEN
      wait := pause;
      RETURN;
    ELSIF pause > 0 AND now < known.at + pause THEN
      wait := known.at + pause - now;
      RETURN;
    END IF;

    IF limited THEN
      SELECT * INTO had FROM claude_batch.money WHERE job = found_id;
      fallback_answer := claude_batch.affordable(
        fallback_limit, coalesce(had.fallback_spent, 0), coalesce(had.fallback_reserved, 0), least_cost, most_cost
      );
      total_answer := claude_batch.affordable(
        total_limit, coalesce(had.spent, 0), coalesce(had.reserved, 0), least_cost, most_cost
      );
      IF 'no' IN (fallback_answer, total_answer) THEN
        state := 'budget';
        RETURN;
      ELSIF 'wait' IN (fallback_answer, total_answer) THEN
        state := 'reserved';
        wait := reserved_wait;
        RETURN;
      END IF;
    END IF;
  END LOOP;

  UPDATE claude_batch.paces p SET
    sent = p.sent + 1, input = p.input + tokens, output = p.output + usual, expires_at = now + 3600,
    remaining = ARRAY(SELECT p.remaining[i] - needs[i] FROM generate_series(1, 4) AS i ORDER BY i)
  WHERE p.pace = of_pace
  RETURNING p.sent || ' ' || p.input || ' ' || p.output INTO mark;
  INSERT INTO claude_batch.pace_calls (pace, job_id, batch, position, expires_at)
  VALUES (of_pace, of_job, of_batch, of_position, now + seconds)
  ON CONFLICT (pace, job_id, batch, position) DO UPDATE SET expires_at = excluded.expires_at;
  IF limited THEN
    PERFORM claude_batch.add_money(found_id, 0, most_cost, 0, most_cost);
  END IF;
  UPDATE claude_batch.calls c SET
    due_at = NULL, lane = greatest(of_lane, 0), most = CASE WHEN limited THEN most_cost END
  WHERE c.job = found_id AND c.batch = of_batch AND c.position = of_position;
  state := 'taken';
END
$$;
