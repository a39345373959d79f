-- Say of a download what its rows are, and publish it. What is null stays as it was.
CREATE OR REPLACE FUNCTION claude_batch.put_attempt(
  of_job bigint, of_batch integer, of_attempt integer, new_pieces bytea, new_eligible bytea, new_again bytea,
  parts integer[], new_entries bytea[]
) RETURNS void
LANGUAGE sql AS $$
  INSERT INTO claude_batch.result_attempts AS a (job, batch, attempt, copy, pieces, eligible, again)
  VALUES (of_job, of_batch, of_attempt, '', new_pieces, new_eligible, new_again)
  ON CONFLICT (job, batch, attempt, copy) DO UPDATE
  SET expires_at = NULL, pieces = excluded.pieces, eligible = excluded.eligible,
    again = coalesce(excluded.again, a.again);
  INSERT INTO claude_batch.index_parts (job, batch, attempt, part, entries)
  SELECT of_job, of_batch, of_attempt, part, entries FROM unnest(parts, new_entries) AS each (part, entries)
  ON CONFLICT (job, batch, attempt, part) DO UPDATE SET entries = excluded.entries
$$;
