-- Wait, when this transaction commits, until all that was committed before it is on the disk, and on the replica that must
-- have it: only a transaction that has written something waits.
--
-- What many do to the same row at once (a job, a rate limit) commits without that (synchronous_commit is off), so that the
-- row is locked for a moment only; then each caller makes that safe, and all of them wait for the disk together. That is for
-- steps of workers and for single asks, and is never a part of an application's transaction.
CREATE OR REPLACE FUNCTION claude_batch.make_safe() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_logical_emit_message(true, 'claude_batch', '');
END
$$;
