-- The time, seconds since 1970. Not that of the transaction: that may have begun long ago.
CREATE OR REPLACE FUNCTION claude_batch.clock() RETURNS double precision
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT extract(epoch FROM clock_timestamp())::double precision
$$;
