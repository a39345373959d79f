-- Store a page of the list of an account's batches; is_first: of a new list, and the last one is discarded.
CREATE OR REPLACE FUNCTION claude_batch.add_page(
  of_account text, batch_ids text[], entries bytea[], begun_at double precision, complete_since double precision,
  is_first boolean, seconds double precision
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  ends double precision := claude_batch.clock() + seconds;
BEGIN
  INSERT INTO claude_batch.account_lists (account, taken_at, since, expires_at)
  VALUES (of_account, begun_at, complete_since, ends)
  ON CONFLICT (account) DO UPDATE SET
    taken_at = excluded.taken_at, since = excluded.since, expires_at = excluded.expires_at;
  IF is_first THEN
    DELETE FROM claude_batch.listed_batches WHERE account = of_account;
  END IF;
  INSERT INTO claude_batch.listed_batches (account, batch_id, entry, expires_at)
  SELECT of_account, batch_id, entry, ends FROM unnest(batch_ids, entries) AS page (batch_id, entry)
  ON CONFLICT (account, batch_id) DO UPDATE SET entry = excluded.entry, expires_at = excluded.expires_at;
END
$$;
