-- Tell those who listen which asks have ended: arrays in JSON, each short enough for one notification.
CREATE OR REPLACE FUNCTION claude_batch.notify_asks(channel text, ids text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  room CONSTANT integer := 7900;
  id text;
  part text;
  payload text := '';
BEGIN
  FOREACH id IN ARRAY coalesce(ids, '{}') LOOP
    part := to_json(id)::text;
    -- Who waits for one whose id is longer than that asks for its place now and then.
    CONTINUE WHEN octet_length(part) > room;
    IF octet_length(payload) + octet_length(part) > room THEN
      PERFORM pg_notify(channel, '[' || payload || ']');
      payload := '';
    END IF;
    payload := payload || CASE payload WHEN '' THEN '' ELSE ',' END || part;
  END LOOP;
  IF payload <> '' THEN
    PERFORM pg_notify(channel, '[' || payload || ']');
  END IF;
END
$$;
