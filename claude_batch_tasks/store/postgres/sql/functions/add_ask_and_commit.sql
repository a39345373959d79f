-- As add_ask, outside of any transaction of the caller's. Those who add to the same pool wait for one another; for the disk
-- (or a replica) they do so all together: the first commit leaves that to the second one, which has locked nothing. No
-- caller gets an answer before the ask is safe: what another transaction writes after it has seen the ask, is safe after the
-- ask. That goes for an ask that is there already, too: its own caller may have died before it was safe.
CREATE OR REPLACE PROCEDURE claude_batch.add_ask_and_commit(
  of_key text, new_id text, new_record text, pool_name text,
  due double precision, wanted_by double precision, starts double precision,
  new_ask_id text, ask_size bigint, ask_params bytea, ask_send_before double precision,
  ask_canvas text, ask_headers text, place_ttl double precision,
  most_requests integer, most_bytes bigint, max_wait double precision,
  cost bigint, most_cost bigint, cost_seconds double precision,
  INOUT in_pool text = NULL, INOUT at_position integer = NULL, INOUT since double precision = NULL,
  INOUT is_state text = NULL, INOUT keeps bigint = NULL, INOUT remaining bigint = NULL,
  INOUT next_window double precision = NULL
)
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  SELECT * INTO in_pool, at_position, since, is_state, keeps, remaining, next_window FROM claude_batch.add_ask(
    false, of_key, new_id, new_record, pool_name, due, wanted_by, starts, new_ask_id, ask_size, ask_params,
    ask_send_before, ask_canvas, ask_headers, place_ttl, most_requests, most_bytes, max_wait, cost, most_cost, cost_seconds
  );
  COMMIT;
  IF in_pool IS NOT NULL THEN
    PERFORM claude_batch.make_safe();
  END IF;
END
$$;
