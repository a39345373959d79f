-- Wake those who send the messages of units that wait, if none waits that is due earlier: they expect none before that.
CREATE OR REPLACE FUNCTION claude_batch.announce_due(at double precision) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF at <= (SELECT due_at FROM claude_batch.units WHERE waiting AND due_at IS NOT NULL ORDER BY due_at LIMIT 1) THEN
    PERFORM pg_notify('claude_batch:due', '');
  END IF;
END
$$;
