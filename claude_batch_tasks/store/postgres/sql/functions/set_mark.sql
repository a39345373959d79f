-- Mark the schema; null: remove the mark. closed: on top of what a process must know, while the schema is marked.
CREATE OR REPLACE FUNCTION claude_batch.set_mark(new_mark text, closed integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  UPDATE claude_batch.schema_version SET least = least % closed + CASE WHEN new_mark IS NULL THEN 0 ELSE closed END;
  DELETE FROM claude_batch.mark;
  IF new_mark IS NOT NULL THEN
    INSERT INTO claude_batch.mark (mark) VALUES (new_mark);
  END IF;
END
$$;
