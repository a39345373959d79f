-- Put an ask into the open pool that takes it, or into one that is opened for it; in one call, however many do so at once.
-- In a transaction of the caller's (own), the pool is one that only this transaction knows: what all share is locked when
-- it commits, and not before. See publish_pools.
-- place_ttl: seconds after which it is forgotten where the ask is. cost: what it reserves of the limit max_cost.
-- Returns in which pool it is, also if it was there before; null: the limit leaves no room for it, and nothing was stored;
-- then what is left, and the seconds until the next window.
CREATE OR REPLACE FUNCTION claude_batch.add_ask(
  own boolean, of_key text, new_id text, new_record text, pool_name text,
  due double precision, wanted_by double precision, starts double precision,
  new_ask_id text, ask_size bigint, ask_params bytea, ask_send_before double precision,
  ask_canvas text, ask_headers text, place_ttl double precision,
  most_requests integer, most_bytes bigint, max_wait double precision,
  cost bigint, most_cost bigint, cost_seconds double precision,
  OUT in_pool text, OUT at_position integer, OUT since double precision, OUT is_state text, OUT keeps bigint,
  OUT remaining bigint, OUT next_window double precision
)
LANGUAGE plpgsql AS $$
DECLARE
  now double precision := claude_batch.clock();
  window_start double precision := floor(now / cost_seconds) * cost_seconds;
  target claude_batch.pools;
BEGIN
  SELECT job_id, position, asked_at, state, reserved INTO in_pool, at_position, since, is_state, keeps
  FROM claude_batch.asks WHERE ask_id = new_ask_id AND expires_at > now;
  IF FOUND THEN
    RETURN;
  END IF;
  IF most_cost IS NOT NULL THEN
    remaining := claude_batch.reserve_window(own, pool_name, cost_seconds, window_start, cost, most_cost);
    IF remaining IS NOT NULL THEN
      next_window := window_start + cost_seconds - now;
      RETURN;
    END IF;
  END IF;

  due := CASE due WHEN 0 THEN now + max_wait ELSE due END;
  target := claude_batch.find_open_pool(own, of_key, ask_size, most_requests, most_bytes);
  -- It may have waited for others.
  now := claude_batch.clock();
  IF target.job_id IS NULL THEN
    INSERT INTO claude_batch.pools (
      job_id, key, opened_in, max_requests, max_bytes, max_cost, starts_at, record, state, count, size, opened_at, due_at,
      next_at, deadline
    ) VALUES (
      new_id, of_key, CASE WHEN own THEN pg_current_xact_id() END, most_requests, most_bytes, most_cost, starts, new_record,
      'open', 0, 0, now, due, due, wanted_by
    ) RETURNING * INTO target;
  END IF;
  INSERT INTO claude_batch.pool_asks (job_id, position, ask_id, size, send_before, params)
  VALUES (target.job_id, target.count, new_ask_id, ask_size, ask_send_before, ask_params);
  PERFORM claude_batch.grow_pool(target.job_id, 1, ask_size, due, wanted_by, most_requests, most_bytes);
  INSERT INTO claude_batch.asks (
    ask_id, job_id, position, asked_at, canvas, headers, reserved, name, seconds, start, expires_at
  ) VALUES (
    new_ask_id, target.job_id, target.count, now, ask_canvas, ask_headers, cost,
    CASE WHEN most_cost IS NOT NULL THEN pool_name END, CASE WHEN most_cost IS NOT NULL THEN cost_seconds END,
    CASE WHEN most_cost IS NOT NULL THEN window_start END, now + place_ttl + greatest(due - now, 0)
  ) ON CONFLICT (ask_id) DO UPDATE SET
    job_id = excluded.job_id, position = excluded.position, asked_at = excluded.asked_at, state = excluded.state,
    withdrawn = excluded.withdrawn, canvas = excluded.canvas, headers = excluded.headers, reserved = excluded.reserved,
    name = excluded.name, seconds = excluded.seconds, start = excluded.start, expires_at = excluded.expires_at
  WHERE asks.expires_at <= now
  RETURNING job_id, position, asked_at, state, reserved INTO in_pool, at_position, since, is_state, keeps;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the ask % was added by somebody else at this moment: nothing was stored', new_ask_id
    USING ERRCODE = 'serialization_failure';
  END IF;
END
$$;
