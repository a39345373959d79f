-- Wake those who send the messages of pools: one takes no more asks, and is due.
CREATE OR REPLACE FUNCTION claude_batch.announce_pool() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('claude_batch:due', '');
  RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS announce_pool ON claude_batch.pools;
CREATE TRIGGER announce_pool AFTER INSERT OR UPDATE OF state, opened_in ON claude_batch.pools
FOR EACH ROW WHEN (NEW.state = 'closed' AND NEW.opened_in IS NULL) EXECUTE FUNCTION claude_batch.announce_pool();
